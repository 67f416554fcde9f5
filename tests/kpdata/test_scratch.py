import sqlite3
import tempfile

import pytest

from kpdata.checks import verify as verify_module
from kpdata.checks.verify import verify
from kpdata.core.errors import JobError
from kpdata.storage import image_objects
from kpdata.storage.scratch import scratch_database

FULL = rf"^{tempfile.gettempdir()}: .*full: point TMPDIR to a folder with more room"
TINY = "PRAGMA max_page_count = 2;"


def test_what_is_written_is_read_back():
    with scratch_database("CREATE TABLE t (n)") as db:
        db.execute("INSERT INTO t VALUES (7)")
        assert db.execute("SELECT n FROM t").fetchall() == [(7,)]
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("SELECT n FROM t")


def test_a_full_disk_names_the_folder_and_the_fix():
    with pytest.raises(JobError, match=FULL), scratch_database(TINY + "CREATE TABLE t (n)") as db:
        db.executemany("INSERT INTO t VALUES (?)", (("x" * 1000,) for _ in range(100)))


def test_other_errors_pass():
    with pytest.raises(ValueError, match="mine"), scratch_database("") as _:
        raise ValueError("mine")


def test_verify_says_that_there_is_no_room(tiny_shards, monkeypatch):
    tables = TINY + verify_module._Leaks.TABLES + "; CREATE TABLE a (n); CREATE TABLE b (n);"
    monkeypatch.setattr(verify_module._Leaks, "TABLES", tables)
    with pytest.raises(JobError, match=FULL):
        verify(tiny_shards)


def test_a_listing_of_a_store_says_that_there_is_no_room(monkeypatch):
    monkeypatch.setattr(
        image_objects, "_TABLES", TINY + image_objects._TABLES + "CREATE TABLE b (n);"
    )
    with pytest.raises(JobError, match=FULL), image_objects.StampListing("s3://bucket/images"):
        pass
