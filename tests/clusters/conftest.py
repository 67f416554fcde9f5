"""Conversions on clusters of real processes; they run where ``pytest -m cluster`` is typed."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from engines import ENGINES, Cluster

from kpdata.checks.verify import verify
from kpdata.shards import tfrecord

MARK = "cluster"
NOTES = pytest.StashKey[list[str]]()
COMMAND = (sys.executable, "-c", "from kpdata.cli.main import main; main()", "convert", "coco")
OPTIONS = ("--crop", "192", "--augment", "24", "--shards", "24", "--json")
SECONDS = 300


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the clusters alone unless they are asked for by name."""
    if MARK in config.option.markexpr:
        return
    reason = "starts clusters: pip install '.[cluster]' && pytest -m cluster tests/clusters"
    for item in items:
        if item.get_closest_marker(MARK):
            item.add_marker(pytest.mark.skip(reason))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what was tried."""
    notes = config.stash.get(NOTES, [])
    if notes:
        terminalreporter.section(f"clusters: {len(notes)} notes")
    for text in notes:
        terminalreporter.line(text)


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """``note(text)``: a line for the end of the whole run."""
    return pytestconfig.stash.setdefault(NOTES, []).append


@pytest.fixture(scope="session")
def source(make_coco: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images enough to be interrupted over. Never write into their folder."""
    return make_coco(tmp_path_factory.mktemp("source"), 320, (160, 120))


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster of the engine that a test names as its parameter."""
    folder = tmp_path_factory.mktemp(request.param)
    with ENGINES[request.param](folder) as running:
        yield running


@dataclass(frozen=True)
class Whole:
    """A finished dataset: its root hash, and how often each of its records is there."""

    root_hash: str
    records: Counter[bytes]


@dataclass
class Running:
    """A conversion under way."""

    process: subprocess.Popen[str]
    out: Path

    @property
    def shards(self) -> int:
        """Shards that are whole."""
        return len(list((self.out / ".kpdata/reports").glob("*.json")))

    def wait_for_shards(self, count: int) -> None:
        """Wait until so many shards are whole, or the conversion is over."""
        end = time.monotonic() + SECONDS
        while self.shards < count and self.process.poll() is None:
            assert time.monotonic() < end, f"{self.shards} shards of {count} within {SECONDS} s"
            time.sleep(0.02)

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr; fails where the process hangs."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


Start = Callable[..., contextlib.AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def start(source: Path) -> Start:
    """``with start(out, *options) as running``: a conversion, ended with the block at last."""

    @contextlib.contextmanager
    def begin(out: Path, *options: str) -> Iterator[Running]:
        process = subprocess.Popen(
            [*COMMAND, str(source), "--out", str(out), *OPTIONS, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=out.parent,
            env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},  # of Spark's driver
            start_new_session=True,
        )
        try:
            yield Running(process, out)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.communicate()

    return begin


Convert = Callable[..., Whole]


@pytest.fixture(scope="session")
def convert(start: Start) -> Convert:
    """``convert(out, *options) -> Whole``: to its end, without a fault."""

    def to_the_end(out: Path, *options: str) -> Whole:
        with start(out, *options) as running:
            code, printed, err = running.end()
        assert (code, err) == (0, "")
        return _look_at(out, json.loads(printed)["root_hash"])

    return to_the_end


@pytest.fixture(scope="session")
def alone(convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What one process makes: the measure of all others."""
    return convert(tmp_path_factory.mktemp("alone") / "out", "--workers", "1")


LookAt = Callable[[Path, str], Whole]


@pytest.fixture(scope="session")
def look_at() -> LookAt:
    """``look_at(out, root_hash) -> Whole``: verify a dataset, and count its records."""
    return _look_at


def _look_at(out: Path, root_hash: str) -> Whole:
    _, faults = verify(out)
    assert faults == []
    assert not list(out.glob(".*"))
    records = Counter(
        sha256(payload).digest()
        for path in sorted(out.glob("*.tfrecord"))
        for _, payload in tfrecord.read(path)
    )
    return Whole(root_hash, records)
