"""The embedded runner's workers: where they come from, what they are told, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from apache_beam.runners.portability.fn_api_runner.worker_handlers import ControlConnection

from kpdata.core.errors import JobError
from kpdata.pipelines.run.beam_job import run_on_beam
from kpdata.pipelines.run.nursery import Nursery
from kpdata.pipelines.run.runners import EMBEDDED, Execution

SCRIPT = """
import os, sys
from pathlib import Path

from kpdata.pipelines.beam_job import run_on_beam
from kpdata.pipelines.nursery import Nursery
from kpdata.pipelines.runners import EMBEDDED, Execution

print("once")
folder = Path(sys.argv[1])
with Nursery(folder / "log") as nursery:
    run_on_beam(
        ["a", "b"], lambda name: (folder / name).touch(), Execution(EMBEDDED, 2, nursery)
    )
"""

NOWHERE = {
    "WORKER_ID": "1",
    "CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"',
    "PIPELINE_OPTIONS": "{}",
}
"""What keeps a worker trying for a minute."""

KILLED = f"""
import json, signal, sys, time
from pathlib import Path

from kpdata.pipelines.nursery import Nursery

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some that start programs leave it
where = {NOWHERE}
request = json.dumps(where).encode() + b"\\n"
nursery = Nursery(Path(sys.argv[1]))
BEGIN
print("begun", flush=True)
time.sleep(60)
"""


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """One whose processes have all ended when a test has."""
    with Nursery(tmp_path / "workers.log") as made:
        yield made
    assert family() == []


def family() -> list[psutil.Process]:
    """Nurseries that this process has started, and their workers."""
    below = psutil.Process().children(recursive=True)
    return [one for one in below if any("beam_nursery" in word for word in one.cmdline())]


def touch(folder: Path) -> Callable[[str], None]:
    return lambda name: (folder / name).touch()


def test_workers_are_told_beam_options_and_have_a_process_group_of_their_own(
    nursery: Nursery, tmp_path: Path
) -> None:
    def look(name: str) -> None:
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import HadoopFileSystemOptions

        options = FileSystems._pipeline_options.view_as(HadoopFileSystemOptions)
        seen = {"options": [options.hdfs_host, options.hdfs_port], "group": os.getpgrp()}
        (tmp_path / name).write_text(json.dumps({**seen, "path": sys.path}))

    options = ("--hdfs_host=example", "--hdfs_port=8020")
    run_on_beam(["a", "b"], look, Execution(EMBEDDED, 2, nursery, options))
    for name in ("a", "b"):
        seen = json.loads((tmp_path / name).read_text())
        assert seen["options"] == ["example", "8020"]
        assert seen["group"] != os.getpgrp()
        assert set(sys.path) <= set(seen["path"])
    assert family() == []


def test_what_a_worker_prints_before_it_dies_is_in_the_log(
    nursery: Nursery, tmp_path: Path
) -> None:
    def die(_: str) -> None:
        os.write(2, b"Segmentation fault")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(JobError, match=r"a worker process was killed.*\(this run had 2\)"):
        run_on_beam(["a", "b"], die, Execution(EMBEDDED, 2, nursery))
    assert "Segmentation fault" in (tmp_path / "workers.log").read_text()


def test_an_error_is_reported_though_it_cannot_be_logged(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise ValueError("no such shard")

    with Nursery(Path("/dev/full")) as nursery, pytest.raises(RuntimeError, match="no such shard"):
        run_on_beam(["a", "b"], fail, Execution(EMBEDDED, 2, nursery))


def test_a_worker_that_ends_before_it_is_stopped_has_not_died(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ControlConnection.close

    def close_slowly(connection: Any) -> None:
        close(connection)
        time.sleep(0.5)

    monkeypatch.setattr(ControlConnection, "close", close_slowly)
    run_on_beam(["a", "b"], touch(tmp_path), Execution(EMBEDDED, 2, nursery))
    assert (tmp_path / "a").exists()


def test_a_nursery_that_dies_early_is_reported(nursery: Nursery, tmp_path: Path) -> None:
    nursery.warm_up()
    (process,) = family()
    process.kill()
    with pytest.raises(JobError, match="no worker process could be started"):
        run_on_beam(["a", "b"], touch(tmp_path), Execution(EMBEDDED, 2, nursery))


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param("nursery.warm_up()", id="importing"),
        pytest.param("nursery.warm_up(); nursery._socket.sendall(request)", id="asked too early"),
        pytest.param("nursery.fork(where); nursery.fork(where)", id="two workers"),
        pytest.param(
            "nursery.fork({}); time.sleep(1); nursery.fork(where)", id="two workers, one dead"
        ),
    ],
)
def test_nothing_outlives_a_driver_that_is_killed(tmp_path: Path, begun: str) -> None:
    command = [sys.executable, "-c", KILLED.replace("BEGIN", begun), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        driver.stdout.readline()
        processes = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    group = processes[0].pid
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_nursery_that_hears_nothing_is_killed_with_its_workers(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kpdata.pipelines.run.nursery._SECONDS_TO_END", 0.2)
    os.close(nursery.fork(NOWHERE))
    parent, _ = family()
    parent.suspend()
    nursery.end()
    assert family() == []


def test_the_cpu_time_of_workers_counts_for_the_driver(nursery: Nursery) -> None:
    def work(_: str) -> None:
        end = time.process_time() + 1.5
        while time.process_time() < end:
            pass

    before = os.times()
    run_on_beam(["a", "b"], work, Execution(EMBEDDED, 2, nursery))
    spent = [now - then for now, then in zip(os.times(), before, strict=True)]
    assert spent[2] + spent[3] > 3.0  # of children, in user and in system mode


def test_a_nursery_ends_twice_and_unborn() -> None:
    unborn = Nursery(Path("log"))
    unborn.end()
    unborn.end()


@pytest.mark.parametrize("by_name", [True, False], ids=["file", "standard input"])
def test_a_script_that_guards_nothing_runs_once(tmp_path: Path, by_name: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script) if by_name else "-", str(tmp_path)]
    done = subprocess.run(
        command, input=None if by_name else SCRIPT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")
    assert (tmp_path / "b").exists()
