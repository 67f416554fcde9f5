"""Which backend Keras runs on, chosen before Keras is imported."""

import contextlib
import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from kpdata.core.errors import KpdataError
from kpdata.core.quiet import without_native_stderr

_BACKENDS = ("tensorflow", "jax")
_NEEDED = ("keras", "matplotlib", "pycocotools", "tensorboard")


def prepare_backend() -> None:
    """Import Keras, without its greetings, on the backend that KERAS_BACKEND names.

    Unless it names one, that is TensorFlow, or JAX where there is no TensorFlow.

    Raises:
        KpdataError: what the trainer needs is not installed, or KERAS_BACKEND names anything else.
    """
    missing = [name for name in _NEEDED if not _is_installed(name)]
    backends = [name for name in _BACKENDS if _is_installed(name)]
    if missing or not backends:
        what = ", ".join(missing or ["tensorflow or jax"])
        raise KpdataError(f"the trainer needs {what}: pip install 'kpdata[train]'")
    chosen = os.environ.setdefault("KERAS_BACKEND", backends[0])
    if chosen not in backends:
        raise KpdataError(
            f"KERAS_BACKEND is {chosen!r}: set it to {' or '.join(_BACKENDS)}; installed: "
            f"{', '.join(backends)}. To install TensorFlow: pip install 'kpdata[train]'; JAX: pip "
            "install jax"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_native_stderr(), interrupted_after():
        import keras  # noqa: F401


@contextlib.contextmanager
def interrupted_after() -> Iterator[None]:
    """Let a Ctrl-C in the block end it only when it is done, and a second one at once.

    TensorFlow's import takes seconds and calls Python from C, where an interrupt gets lost or
    crashes the process.
    """
    before = signal.getsignal(signal.SIGINT)
    own = threading.current_thread() is threading.main_thread()
    if not own or before is not signal.default_int_handler:
        yield
        return
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            signal.default_int_handler(number, frame)
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed.is_set():
        raise KeyboardInterrupt


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
