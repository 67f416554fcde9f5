"""Temporary databases, for what must not grow in memory with a dataset."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kpdata.core.errors import JobError


@contextmanager
def scratch_database(tables: str) -> Iterator[sqlite3.Connection]:
    """A SQLite file without a name, gone at the end of the block: one transaction, any thread.

    Args:
        tables: a script to begin with.

    Raises:
        JobError: SQLite fails anywhere in the block, as when the temporary folder is full.
    """
    try:
        with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as db:
            db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + tables)
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise JobError(
            f"{tempfile.gettempdir()}: {error}: point TMPDIR to a folder with more room"
        ) from error
