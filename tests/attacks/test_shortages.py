"""Too few file descriptors, threads or memory: a line that says so, and never a traceback."""

import errno
import os
import subprocess
import sys
import threading
from multiprocessing import Pipe
from pathlib import Path

import pytest

from kpdata.cli import main as command_line
from kpdata.core.errors import JobError, shortage
from kpdata.core.progress import Progress
from kpdata.formats import read
from kpdata.pipelines.conversion import convert
from kpdata.pipelines.request import Request
from kpdata.pipelines.run import worker
from kpdata.pipelines.write import shard as writing

OUT_OF_FILES = "too many files are open: raise the limit, as with ulimit -n"
SHORTAGES = {
    "files": (OSError(errno.EMFILE, "Too many open files", "a.json"), OUT_OF_FILES),
    "files of the system": (OSError(errno.ENFILE, "Too many open files"), OUT_OF_FILES),
    "threads": (RuntimeError("can't start new thread"), "no more threads or processes"),
    "processes": (BlockingIOError(errno.EAGAIN, "Resource"), "no more threads or processes"),
    "memory": (MemoryError(), "memory ran out"),
    "memory for a process": (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
    "memory in a worker": (RuntimeError("MemoryError: "), "memory ran out"),
    "memory for a library": (ImportError("a.so: failed to map segment from"), "memory ran out"),
    "files in a worker": (RuntimeError("OSError: [Errno 24] Too many open files"), OUT_OF_FILES),
    "memory in OpenCV": (Exception("(-4:Insufficient memory) Failed to"), "memory ran out"),
}


@pytest.mark.parametrize(("error", "says"), SHORTAGES.values(), ids=SHORTAGES)
def test_a_command_says_what_ran_out(error, says, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(command_line.cli, "main", fail)
    monkeypatch.setattr(sys, "argv", ["kpdata", "formats"])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kpdata: {says}")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("other"), KeyError()]
)
def test_other_errors_are_no_shortage(error):
    assert shortage(error) is None


@pytest.mark.parametrize(("error", "says"), SHORTAGES.values(), ids=SHORTAGES)
def test_a_conversion_that_ran_short_can_go_on(error, says, tiny_coco, tmp_path, monkeypatch):
    if not isinstance(error, RuntimeError | OSError | MemoryError):
        pytest.skip("no writer raises this")

    def fail(*_):
        raise error

    monkeypatch.setattr(writing.records, "encode_parts", fail)
    source = read("coco", tiny_coco / "annotations.json")
    with pytest.raises(JobError, match=rf"writing stopped: {says}.*run the same command again"):
        convert(source, Request.of(source, format="coco"), tmp_path / "out")
    monkeypatch.undo()
    source = read("coco", tiny_coco / "annotations.json")
    assert convert(source, Request.of(source, format="coco"), tmp_path / "out").manifest


@pytest.mark.parametrize("most", range(4, 12))
def test_few_file_descriptors_end_in_a_line_or_in_success(most, tiny_coco, tmp_path):
    for to in ("shards", "coco"):
        out = tmp_path / to
        options = ["convert", "coco", tiny_coco / "annotations.json", "--to", to, "--out", out]
        done = subprocess.run(
            [sys.executable, "-c", LIMITED.format(most=most), *map(str, options)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        if done.returncode:
            assert "Traceback" not in done.stderr
            assert "too many files are open" in done.stderr or "Too many open" in done.stderr
        else:
            assert out.is_dir()


LIMITED = """
import resource
from kpdata.cli import convert, main
from kpdata import pipelines
resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))
main.main()
"""


def test_a_worker_without_a_thread_tells_the_driver(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    ours, theirs = Pipe()
    monkeypatch.setattr(threading.Thread, "start", start)
    worker.main(os.dup(theirs.fileno()))
    assert shortage(RuntimeError(ours.recv_bytes().decode())) is not None


class Moves(Progress):
    """Moves the output away once something is written."""

    def __init__(self, out: Path):
        self.out = out

    def reach(self, done: int, note: str = "") -> None:
        if self.out.exists():
            os.rename(self.out, self.out.with_name("moved"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_output_that_is_moved_away_is_said_to_be_gone(
    workers, tiny_coco, tmp_path, monkeypatch, capsys
):
    source = read("coco", tiny_coco / "annotations.json")
    out = tmp_path / "out"
    monkeypatch.setattr(writing, "write_shard", slowly(writing.write_shard))
    monkeypatch.setattr(threading, "excepthook", pytest.fail)
    request = Request.of(source, format="coco", workers=workers, shards=6)
    with pytest.raises(JobError, match=r"out is no longer there\. Put it back"):
        convert(source, request, out, Moves(out))


def slowly(write):
    def wait(*arguments):
        threading.Event().wait(0.5)
        return write(*arguments)

    return wait
