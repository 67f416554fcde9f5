"""The device of the backend, and which functions XLA compiles there."""

from collections.abc import Callable
from typing import Any

import keras


def on_gpu() -> bool:
    """Whether the backend found a GPU or another accelerator."""
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def compiles_steps() -> bool:
    """Whether XLA compiles the whole step: not on TensorFlow's CPU, where it is slower."""
    return on_gpu() or keras.backend.backend() != "tensorflow"


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, compiled by XLA where the step around it is not."""
    if compiles_steps():
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True)
