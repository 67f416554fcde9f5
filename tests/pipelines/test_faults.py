"""Conversions in a process of their own that is interrupted, or loses a worker, or is killed.

The trials at random moments are ``KPDATA_FAULT_TRIALS`` of each kind (2), drawn from the seeds from
``KPDATA_FAULT_SEED`` (0) on; the end of the output counts them.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kpdata.checks.verify import verify
from kpdata.shards.manifest import read_manifest

COMMAND = (sys.executable, "-c", "from kpdata.cli.main import main; main()", "convert", "coco")
SHARDS = 24
OPTIONS = ("--crop", "192", "--augment", "12", "--shards", str(SHARDS), "--json")
FIRST_SEED = int(os.environ.get("KPDATA_FAULT_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("KPDATA_FAULT_TRIALS", "2")))

FaultTrial = Callable[..., None]
trials = pytest.mark.parametrize("seed", SEEDS)


@pytest.fixture(scope="module")
def source(make_coco: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for worker processes. Never write into their folder."""
    return make_coco(tmp_path_factory.mktemp("source"), 320, (160, 120))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of an undisturbed conversion in one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(source, out, workers=1)
    return out


@pytest.fixture(scope="module")
def root_hash(whole: Path) -> str:
    """What it is known by."""
    return read_manifest(whole).root_hash


MODULE = "kpdata.pipelines.run.worker"


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@dataclass
class Running:
    """A conversion under way."""

    process: subprocess.Popen[str]
    out: Path

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        return [one for one in self.descendants() if MODULE in _words(one)]

    def wait_until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "it never came to this point"
            time.sleep(0.02)

    def wait_until_writing(self) -> None:
        """Until a shard is whole, one is half written, and most is still to be done."""
        reports = self.out / ".kpdata/reports"
        self.wait_until(lambda: any(reports.glob("*.json")) and any(self.out.glob(".*.tmp")))
        assert not (self.out / "kpdata.json").exists()

    def wait_for_a_moment(self, draw: random.Random, latest: float = 0.8) -> str:
        """Until a random number of shards is whole, and for a moment more; says which it was."""
        shards, pause = draw.randrange(int(latest * SHARDS)), draw.uniform(0, 0.1)
        reports = self.out / ".kpdata/reports"
        self.wait_until(lambda: len(list(reports.glob("*.json"))) >= shards)
        self.wait_until(lambda: bool(shards) or any(self.out.glob(".*.tmp")))
        time.sleep(pause)
        return f"{pause * 1000:.0f} ms after {shards} of {SHARDS} shards"

    def session(self) -> list[psutil.Process]:
        """All processes that came of this one, also once it is gone."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid:
                    found.append(process)
        return found

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Exit code and all that was printed; fails where the process hangs."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out + err


@pytest.fixture
def start(source: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """``start(workers)``: begin a conversion into ``tmp_path / "out"``."""
    begun: list[Running] = []

    def start_one(workers: int = 2, *options: str) -> Running:
        out = tmp_path / "out"
        process = subprocess.Popen(
            [*command(source, out, workers), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(Running(process, out))
        return begun[-1]

    yield start_one
    for running in begun:
        for process in running.descendants():
            process.kill()
        running.process.kill()
        running.process.communicate()


def command(source: Path, out: Path, workers: int) -> list[str]:
    return [*COMMAND, str(source), "--out", str(out), "--workers", str(workers), *OPTIONS]


def finish(source: Path, out: Path, workers: int = 2) -> str:
    """Run the conversion to its end, and return its root hash."""
    done = subprocess.run(
        command(source, out, workers), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    _, faults = verify(out)
    assert faults == []
    assert not (out / ".kpdata").exists()
    assert not list(out.glob(".*"))
    result: str = json.loads(done.stdout)["root_hash"]
    return result


def assert_gone(processes: list[psutil.Process], seconds: float = 20) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive


@pytest.mark.parametrize("to_the_whole_group", [True, False], ids=["terminal", "driver only"])
def test_an_interrupt_while_workers_write_ends_in_one_message_and_is_made_good(
    start: Callable[..., Running], source: Path, root_hash: str, to_the_whole_group: bool
) -> None:
    running = start()
    running.wait_until_writing()
    workers = running.workers()
    assert len(workers) == 2
    if to_the_whole_group:
        os.killpg(running.process.pid, signal.SIGINT)
    else:
        running.process.send_signal(signal.SIGINT)
    code, printed = running.end()
    assert code == 130, printed
    assert printed.strip() == (
        "kpdata: interrupted. Run the same command again to go on where it stopped."
    )
    assert_gone(workers, 5)
    assert not (running.out / "kpdata.json").exists()
    assert not list(running.out.glob(".*.tmp"))
    kept = {path.name: path.stat().st_ino for path in running.out.glob("*.tfrecord")}
    assert kept
    assert finish(source, running.out) == root_hash
    after = {name: (running.out / name).stat().st_ino for name in kept}
    assert sum(after[name] == inode for name, inode in kept.items()) >= len(kept) - 2


def test_a_second_interrupt_while_the_first_is_obeyed_changes_nothing(
    start: Callable[..., Running], source: Path, root_hash: str
) -> None:
    running = start()
    running.wait_until_writing()
    workers = running.workers()
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    running.process.send_signal(signal.SIGINT)
    code, printed = running.end(10)
    assert code == 130, printed
    assert "Traceback" not in printed
    assert_gone(workers, 5)
    assert finish(source, running.out) == root_hash


@pytest.mark.parametrize("which", ["driver", "worker"])
def test_a_stopped_process_goes_on_where_it_was(
    start: Callable[..., Running], root_hash: str, which: str
) -> None:
    running = start()
    running.wait_until_writing()
    stopped = running.workers()[0] if which == "worker" else psutil.Process(running.process.pid)
    stopped.suspend()
    time.sleep(1.5)
    assert running.process.poll() is None
    stopped.resume()
    code, printed = running.end(60)
    assert code == 0
    assert json.loads(printed)["root_hash"] == root_hash


def test_a_script_that_guards_nothing_converts_once_from_a_thread_too(
    source: Path, root_hash: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, threading\n"
        "from kpdata import formats\n"
        "from kpdata.pipelines import Request, convert\n"
        "def run():\n"
        f"    source = formats.read('coco', {str(source)!r})\n"
        "    request = Request.of(\n"
        f"        source, format='coco', crop=192, augment=12, shards={SHARDS}, workers=2\n"
        "    )\n"
        f"    print(convert(source, request, {str(tmp_path / 'out')!r}).manifest.root_hash)\n"
        "thread = threading.Thread(target=run)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == (f"{root_hash}\n", "")


def test_an_interrupt_of_a_single_process_is_the_same(
    start: Callable[..., Running], source: Path, root_hash: str
) -> None:
    running = start(1)
    running.wait_until_writing()
    running.process.send_signal(signal.SIGINT)
    code, printed = running.end(5)
    assert code == 130, printed
    assert "kpdata: interrupted" in printed
    assert "Traceback" not in printed
    assert not list(running.out.glob(".*.tmp"))
    assert finish(source, running.out) == root_hash


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("to_the_whole_group", [True, False], ids=["group", "driver only"])
def test_a_polite_kill_ends_as_an_interrupt_does(
    start: Callable[..., Running], workers: int, to_the_whole_group: bool
) -> None:
    running = start(workers)
    running.wait_until_writing()
    others = running.descendants()
    if to_the_whole_group:
        os.killpg(running.process.pid, signal.SIGTERM)
    else:
        running.process.send_signal(signal.SIGTERM)
    code, printed = running.end(15)
    assert code == 130, printed
    assert printed.strip() == (
        "kpdata: interrupted. Run the same command again to go on where it stopped."
    )
    assert_gone(others, 5)
    assert not list(running.out.glob(".*.tmp"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_while_planning_leaves_no_folder_and_no_process(
    source: Path, start: Callable[..., Running], tmp_path: Path, workers: int
) -> None:
    running = start(workers, "--images", str(_images_slow_to_plan(source, tmp_path)))
    below = running.descendants
    running.wait_until(lambda: (running.out / ".kpdata/plan").is_dir())
    expected = workers if workers > 1 else 0
    running.wait_until(lambda: len(running.workers()) == expected)
    starting = below()
    assert len(starting) == expected
    os.killpg(running.process.pid, signal.SIGINT)
    code, printed = running.end(10)
    assert code == 130, printed
    assert printed.strip() == (
        "kpdata: interrupted. Run the same command again to go on where it stopped."
    )
    assert_gone(starting, 5)
    assert not running.out.exists()


def _images_slow_to_plan(source: Path, tmp_path: Path) -> Path:
    """Sparse files of one size and one tail: planning must read them all to tell them apart."""
    folder = tmp_path / "images"
    folder.mkdir()
    for image in json.loads(source.read_text())["images"]:
        path = folder / image["file_name"]
        path.write_text(path.name)
        os.truncate(path, 20_000_000)
    return folder


def test_a_killed_worker_is_reported_in_seconds_and_made_good(
    start: Callable[..., Running], source: Path, root_hash: str
) -> None:
    running = start()
    running.wait_until_writing()
    workers = running.workers()
    workers[0].kill()
    code, printed = running.end(15)
    assert code == 1
    assert "kpdata: a worker process was killed, most likely because memory ran out." in printed
    assert "Run the same command again" in printed
    assert "Fewer workers need less memory (this run had 2)" in printed
    log = running.out / ".kpdata/workers.log"
    assert (f"{log} has what workers printed" in printed) == (log.stat().st_size > 0)
    assert "Traceback" not in printed
    assert_gone(workers, 5)
    assert not (running.out / "kpdata.json").exists()
    assert finish(source, running.out) == root_hash


def test_a_killed_driver_leaves_what_the_next_run_can_finish(
    start: Callable[..., Running], source: Path, root_hash: str
) -> None:
    running = start()
    running.wait_until_writing()
    workers = running.workers()
    running.process.kill()
    running.end(20)
    assert not (running.out / "kpdata.json").exists()
    assert finish(source, running.out) == root_hash  # beside workers that may not have ended yet
    assert_gone(workers)
    _, faults = verify(running.out)
    assert faults == []


def test_a_second_conversion_into_the_folder_is_refused_while_the_first_goes_on(
    start: Callable[..., Running], source: Path, root_hash: str
) -> None:
    first = start()
    first.wait_until_writing()
    second = start()
    code, printed = second.end(20)
    assert code == 1
    assert f"kpdata: {first.out}: another conversion is writing to this folder" in printed
    code, printed = first.end(120)
    assert code == 0
    assert json.loads(printed)["root_hash"] == root_hash


# --- trials at random moments ---------------------------------------------------------------------


@trials
def test_a_trial_of_killing_a_worker(
    start: Callable[..., Running], source: Path, whole: Path, fault_trial: FaultTrial, seed: int
) -> None:
    draw = random.Random(f"worker {seed}")
    running = start()
    moment = running.wait_for_a_moment(draw)
    workers = running.workers()
    draw.choice(workers).kill()
    code, printed = running.end()
    assert code == 1
    assert "kpdata: a worker process was killed" in printed
    assert_gone(workers, 5)
    assert not (running.out / "kpdata.json").exists()
    assert finish(source, running.out) == read_manifest(whole).root_hash
    fault_trial("worker killed", f"seed {seed}: {moment}", running.out, whole)


@trials
def test_a_trial_of_killing_the_driver(
    start: Callable[..., Running], source: Path, whole: Path, fault_trial: FaultTrial, seed: int
) -> None:
    draw = random.Random(f"driver {seed}")
    running = start()
    if draw.random() < 0.25:
        pause = draw.uniform(0, 1.5)
        moment = f"{pause * 1000:.0f} ms after it was started"
        time.sleep(pause)
    else:
        moment = running.wait_for_a_moment(draw)
    running.process.kill()
    orphans = running.session()
    rerun_at_once = draw.random() < 0.5
    if not rerun_at_once:
        assert_gone(orphans)
    assert not (running.out / "kpdata.json").exists()
    assert finish(source, running.out) == read_manifest(whole).root_hash
    assert_gone(orphans)
    assert not list(running.out.glob(".*"))
    when = f"{moment}, run again {'at once' if rerun_at_once else 'when the workers had ended'}"
    fault_trial("driver killed", f"seed {seed}: {when}", running.out, whole)


@trials
def test_a_trial_of_a_second_job_and_of_the_lock_that_a_killed_one_leaves(
    start: Callable[..., Running], source: Path, whole: Path, fault_trial: FaultTrial, seed: int
) -> None:
    draw = random.Random(f"lock {seed}")
    first = start(draw.choice([1, 2]))
    moment = first.wait_for_a_moment(draw)
    os.killpg(first.process.pid, signal.SIGSTOP)  # the lock is held, however slow the second is
    code, printed = start().end(60)
    assert code == 1
    assert f"kpdata: {first.out}: another conversion is writing to this folder" in printed
    first.process.kill()
    first.process.wait()
    orphans = first.session()
    assert finish(source, first.out) == read_manifest(whole).root_hash  # whatever the orphans do
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first.process.pid, signal.SIGCONT)
    assert_gone(orphans)
    assert not list(first.out.glob(".*"))
    fault_trial("second job, first killed", f"seed {seed}: {moment}", first.out, whole)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``disk(bytes)``: a file system of that size, in pages; called again, it is resized."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        again = ",remount" if os.path.ismount(folder) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}{again}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small file system cannot be mounted here: {error}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@trials
def test_a_trial_of_a_full_disk(
    disk: Callable[[int], Path], source: Path, whole: Path, fault_trial: FaultTrial, seed: int
) -> None:
    draw = random.Random(f"disk {seed}")
    needed = sum(path.stat().st_size for path in whole.iterdir())
    size, workers = draw.randrange(4096, needed), draw.choice([1, 2])
    out = disk(size) / "out"
    stopped = subprocess.run(
        command(source, out, workers), capture_output=True, text=True, timeout=120, check=False
    )
    assert stopped.returncode == 1
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (out / "kpdata.json").exists()
    assert not list(out.glob(".*.tmp"))
    disk(4 * needed)
    assert finish(source, out, workers) == read_manifest(whole).root_hash
    moment = f"seed {seed}: a disk of {size:,} of {needed:,} bytes, workers: {workers}"
    fault_trial("disk full", moment, out, whole)
