"""Targets, losses and augmentation give the same numbers on every backend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def values(backend, folder):
    pytest.importorskip(backend)
    path = folder / f"{backend}.npz"
    script = Path(__file__).with_name("ops_values.py")
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, script, path], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as arrays:
        return dict(arrays)


def test_tensorflow_and_jax_agree(tmp_path):
    jax, tensorflow = (values(backend, tmp_path) for backend in ("jax", "tensorflow"))
    assert (jax.pop("backend"), tensorflow.pop("backend")) == ("jax", "tensorflow")
    assert jax.keys() == tensorflow.keys()
    for name, value in jax.items():
        assert np.all(np.isfinite(value)), name
        assert np.any(value != 0), name
        np.testing.assert_allclose(value, tensorflow[name], rtol=1e-3, atol=1e-4, err_msg=name)
