"""Worker processes of this machine: how they start, what they hear, how they end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import worker_tasks

from kpdata.core.errors import JobError
from kpdata.pipelines.run.processes import Processes

HELPERS = str(Path(__file__).parents[1] / "helpers")

SCRIPT = f"""
import sys
from functools import partial
from pathlib import Path

sys.path.append({HELPERS!r})
import worker_tasks

from kpdata.pipelines.run.processes import Processes

print("once")
folder = Path(sys.argv[1])
with Processes(folder / "log") as processes:
    processes.map(partial(worker_tasks.TASK, folder), ["a", "b"], 2)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Some that have all ended when a test has."""
    with Processes(tmp_path / "workers.log") as made:
        yield made
    assert family() == []


def family(pid: int | None = None) -> list[psutil.Process]:
    """Workers that a process, this one unless another is given, has started."""
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "kpdata.pipelines.run.worker" in one.cmdline():
                found.append(one)
    return found


def wait_until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to this point"
        time.sleep(0.02)


def test_workers_have_the_drivers_path_a_group_of_their_own_and_no_beam(
    processes: Processes, tmp_path: Path
) -> None:
    processes.map(partial(worker_tasks.look, tmp_path), ["a", "b"], 2)
    seen = [json.loads((tmp_path / name).read_text()) for name in ("a", "b")]
    assert len({one["group"] for one in seen} | {os.getpgrp()}) == 3
    for one in seen:
        assert set(filter(None, sys.path)) <= set(one["path"])
        assert not one["beam"]


def test_more_arguments_than_workers_are_each_taken_once_and_workers_serve_again(
    processes: Processes, tmp_path: Path
) -> None:
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        names = [f"{number}" for number in range(50)]
        processes.map(partial(worker_tasks.touch, folder), names, 3)
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_what_a_worker_prints_before_it_dies_is_in_the_log(
    processes: Processes, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"a worker process was killed.*\(this run had 2\)"):
        processes.map(worker_tasks.die, ["a", "b"], 2)
    assert "Segmentation fault" in (tmp_path / "workers.log").read_text()


def test_an_error_is_reported_though_it_cannot_be_logged() -> None:
    with (
        Processes(Path("/dev/full")) as processes,
        pytest.raises(RuntimeError, match="ValueError: no such shard"),
    ):
        processes.map(worker_tasks.fail, ["a", "b"], 2)


def test_a_worker_killed_while_it_starts_is_reported(processes: Processes, tmp_path: Path) -> None:
    processes.start(2)
    family()[0].kill()
    with pytest.raises(JobError, match="a worker process was killed"):
        processes.map(partial(worker_tasks.touch, tmp_path), ["a", "b"], 2)


def test_a_stopped_worker_is_waited_for(processes: Processes, tmp_path: Path) -> None:
    processes.start(2)
    stopped = family()[0]
    stopped.suspend()
    threading.Timer(1, stopped.resume).start()
    processes.map(partial(worker_tasks.touch, tmp_path), ["a", "b"], 2)
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()


def test_a_stopped_worker_is_ended_with_the_others(processes: Processes) -> None:
    processes.start(2)
    family()[0].suspend()
    processes.end()
    assert family() == []


def test_workers_can_be_used_from_any_thread(processes: Processes, tmp_path: Path) -> None:
    task = partial(worker_tasks.touch, tmp_path)
    thread = threading.Thread(target=processes.map, args=(task, ["a", "b"], 2))
    thread.start()
    thread.join()
    assert (tmp_path / "b").exists()


def test_the_cpu_time_of_workers_counts_for_the_driver(processes: Processes) -> None:
    before = os.times()
    processes.map(worker_tasks.work, ["a", "b"], 2)
    processes.end()
    spent = [now - then for now, then in zip(os.times(), before, strict=True)]
    assert spent[2] + spent[3] > 3.0  # of children, in user and in system mode


def test_ending_twice_or_before_the_start_is_no_error(tmp_path: Path) -> None:
    none = Processes(tmp_path / "log")
    none.end()
    none.end()


@pytest.mark.parametrize("by_name", [True, False], ids=["file", "standard input"])
def test_a_script_that_guards_nothing_runs_once(tmp_path: Path, by_name: bool) -> None:
    text = SCRIPT.replace("TASK", "touch")
    script = tmp_path / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script) if by_name else "-", str(tmp_path)]
    done = subprocess.run(
        command, input=None if by_name else text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")
    assert (tmp_path / "b").exists()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, whose two workers are in the middle of their work."""
    script = SCRIPT.replace("TASK", "note_and_sleep")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
        yield process
        process.kill()


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_no_worker_outlives_a_driver_that_is_killed(
    driver: "subprocess.Popen[str]", stopped: bool
) -> None:
    workers = family(driver.pid)
    assert len(workers) == 2
    if stopped:
        driver.send_signal(signal.SIGSTOP)
    driver.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_the_workers(driver: "subprocess.Popen[str]", times: int) -> None:
    workers = family(driver.pid)
    for _ in range(times):
        driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=10)
    assert error.rstrip().endswith("KeyboardInterrupt")
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
