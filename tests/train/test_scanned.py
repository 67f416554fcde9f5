"""An epoch that runs on the device as a whole is the same epoch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_an_epoch_in_one_scan_is_the_epoch_step_by_step() -> None:
    script = Path(__file__).with_name("scanned_epoch.py")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    (scanned, sums), (stepped, other_sums) = found["scanned"], found["stepped"]
    assert scanned["loss"] == pytest.approx(stepped["loss"], rel=1e-4)
    assert sums == pytest.approx(other_sums, rel=1e-4)
