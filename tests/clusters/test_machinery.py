"""What starts, stops and checks the clusters, on small processes and jars."""

import os
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from engines.job_servers import content_sha256
from engines.processes import ClusterError, Parts, free_port


def test_a_part_that_ends_at_once_is_told_with_the_tail_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"]
    started = time.monotonic()
    with (
        Parts(tmp_path) as parts,
        pytest.raises(ClusterError, match=r"(?s)some-part never listened on .*no such option"),
    ):
        parts.wait_until_it_listens(parts.start("some-part", command), free_port())
    assert time.monotonic() - started < 30


def test_children_end_with_the_block_though_their_parent_was_killed(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with Parts(tmp_path) as parts:
        part = parts.start("parent", [sys.executable, "-c", program])
        parts.wait_until_it_says(part, "child ")
        child = psutil.Process(int(part.tail().split()[1]))
        part.process.kill()
        part.process.wait()
        assert child.is_running()
    assert not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE


def test_a_restarted_part_is_not_taken_at_the_word_of_the_last_one(tmp_path: Path) -> None:
    with Parts(tmp_path) as parts:
        first = parts.start("part", ["echo", "joined"])
        first.process.wait()
        second = parts.start("part", ["echo", "hello"])
        second.process.wait()
        assert first.has_said("joined")
        assert second.has_said("hello")
        assert not second.has_said("joined")


def test_python_of_a_part_is_the_one_that_runs_the_tests(tmp_path: Path) -> None:
    with Parts(tmp_path) as parts:
        part = parts.start("part", ["python", "-c", "import sys; print(sys.executable)"])
        part.process.wait()
    assert os.path.dirname(part.tail().strip()) == os.path.dirname(sys.executable)


def jar(path: Path, entries: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_jars_hash_is_of_its_content_and_not_of_how_it_was_packed(tmp_path: Path) -> None:
    manifest = "META-INF/MANIFEST.MF"
    one = jar(tmp_path / "one.jar", {"a.class": "a", "b.class": "b", manifest: "Java: 17"})
    two = jar(tmp_path / "two.jar", {manifest: "Java: 21", "b.class": "b", "a.class": "a"}, 0)
    assert content_sha256(one) == content_sha256(two)
    for changed in ({"a.class": "a", "b.class": "c"}, {"a.class": "a", "c.class": "b"}):
        assert content_sha256(jar(tmp_path / "three.jar", changed)) != content_sha256(one)
