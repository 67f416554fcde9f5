"""Temporary databases, for data that grows with a dataset and does not belong in memory."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kpdata.core.errors import JobError


@contextmanager
def scratch_database(tables: str) -> Iterator[sqlite3.Connection]:
    """A temporary SQLite database, removed when the block ends; any thread may use it.

    Everything happens in one transaction, which is never committed.

    Args:
        tables: SQL that creates the tables.

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
