"""OpenCV rounds differently on processors without AVX2: shards of both kinds are never mixed."""

import json
import os
import platform
import subprocess
import sys

import pytest

from kpdata.shards.manifest import software

pytestmark = pytest.mark.skipif(
    not software()["processor"].endswith("AVX2"), reason="this processor has no AVX2 to switch off"
)


def kpdata(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kpdata", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )


WITHOUT = {"OPENCV_CPU_DISABLE": "AVX2,AVX512-SKX"}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    assert kpdata("synth", "--count", 24, "--out", folder / "in").returncode == 0
    return folder / "in"


def manifest(out):
    return json.loads((out / "kpdata.json").read_text())


def convert(people, out, **environment):
    return kpdata(
        "convert", people, "--crop", 64, "--augment", 1, "--shards", 4, "--workers", 1,
        "--out", out, **environment,
    )  # fmt: skip


def test_a_manifest_says_on_which_kind_of_processor_it_was_made(people, tmp_path):
    assert convert(people, tmp_path / "with").returncode == 0
    assert convert(people, tmp_path / "without", **WITHOUT).returncode == 0
    machine = platform.machine()
    assert manifest(tmp_path / "with")["software"]["processor"] == f"{machine} AVX2"
    assert manifest(tmp_path / "without")["software"]["processor"] == machine


def test_a_resumed_conversion_writes_the_other_kinds_shards_anew(people, tmp_path):
    whole = tmp_path / "whole"
    assert convert(people, whole).returncode == 0
    out = tmp_path / "out"
    stop = (
        "import kpdata.pipelines.conversion as c; c.seal = None\n"
        "from kpdata.cli.main import main; main()"
    )
    options = ["--crop", "64", "--augment", "1", "--shards", "4", "--workers", "1"]
    subprocess.run(
        [sys.executable, "-c", stop, "convert", str(people), *options, "--out", str(out)],
        capture_output=True, env=os.environ | WITHOUT, check=False,
    )  # fmt: skip
    assert len(list(out.glob("*.tfrecord"))) == 4
    assert not (out / "kpdata.json").exists()
    done = convert(people, out)
    assert done.returncode == 0, done.stderr
    assert manifest(out)["root_hash"] == manifest(whole)["root_hash"]
    assert manifest(out)["software"] == manifest(whole)["software"]
