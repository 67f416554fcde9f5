"""The embedded runner's worker processes: what they are told, what they hear, how they end."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from kpdata.errors import JobError
from kpdata.pipelines import forked
from kpdata.pipelines.beam_job import run_on_beam
from kpdata.pipelines.runners import EMBEDDED, Execution


@pytest.fixture
def execution(tmp_path: Path) -> Execution:
    options = ("--hdfs_host=example", "--hdfs_port=8020")
    return Execution(EMBEDDED, 2, tmp_path / "workers.log", options)


def test_workers_are_told_beam_options_and_are_deaf_to_signals(
    execution: Execution, tmp_path: Path
) -> None:
    def look(name: str) -> None:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import HadoopFileSystemOptions

        options = FileSystems._pipeline_options.view_as(HadoopFileSystemOptions)
        seen = {
            "options": [options.hdfs_host, options.hdfs_port],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "pid": os.getpid(),
        }
        (tmp_path / name).write_text(json.dumps(seen))

    run_on_beam(["a", "b"], look, execution)
    forked.cool_down()
    for name in ("a", "b"):
        seen = json.loads((tmp_path / name).read_text())
        assert seen["options"] == ["example", "8020"]
        assert {signal.SIGINT, signal.SIGTERM} <= set(seen["blocked"])
        assert not psutil.pid_exists(seen["pid"])
    assert forked_from() == []


def test_what_a_worker_prints_before_it_dies_is_in_the_log(execution: Execution) -> None:
    def die(_: str) -> None:
        os.write(2, b"Segmentation fault")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(JobError, match=r"a worker process was killed.*\(this run had 2\)"):
        run_on_beam(["a", "b"], die, execution)
    assert "Segmentation fault" in execution.log.read_text()
    forked.cool_down()
    assert forked_from() == []


def forked_from() -> list[str]:
    """Command lines of forking processes, and of what was forked, that this one has started."""
    lines = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    return [" ".join(line) for line in lines if any("forkserver" in word for word in line)]


def test_cooling_down_what_is_not_warm_does_nothing() -> None:
    forked.cool_down()
    forked.cool_down()
    assert forked_from() == []
