"""Peers that do not install beside kpdata run in environments of their own, made here."""

import json
import os
import shlex
import subprocess
import time
import venv
from pathlib import Path
from typing import NamedTuple

import click

from .dataset import Dataset
from .race import Contender, Lap

SCRIPTS = Path(__file__).with_name("peer_scripts")
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


class Peer(NamedTuple):
    """A peer with an environment of its own.

    Attributes:
        name: of the environment's folder, and of the script below ``peer_scripts/``.
        requirements: what pip installs.
    """

    name: str
    requirements: tuple[str, ...]


DATUMARO = Peer("datumaro", ("datumaro",))
IMG2DATASET = Peer("img2dataset", ("img2dataset", "tensorflow-cpu", "tensorflow-io"))


def environment(peer: Peer, folder: Path) -> Path | str:
    """The peer's Python, installed below ``folder`` unless it is there; else why it is not."""
    home = folder / peer.name
    python = home / "bin/python"
    if not (home / "installed").exists():
        click.echo(f"installing {', '.join(peer.requirements)} into {home}", err=True)
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *peer.requirements]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip() or "pip failed").splitlines()[-1]
        (home / "installed").touch()
    return python


def version(python: Path, peer: Peer) -> str:
    """The peer's version."""
    query = f"from importlib.metadata import version; print(version({peer.name!r}))"
    found = subprocess.run([str(python), "-c", query], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def scripted(python: Path, peer: Peer, *options: str) -> Contender:
    """The peer's script in its own environment.

    The script is given the annotation file, the images' folder, an empty folder and the options,
    and prints JSON: ``items`` it wrote, and the seconds of its ``job`` and ``work``.
    """

    def run(dataset: Dataset, folder: Path) -> Lap:
        script = str(SCRIPTS / f"{peer.name}_peer.py")
        command = [str(python), script, *map(str, dataset), str(folder), *options]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        started = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment | QUIET, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise click.ClickException(f"{shlex.join(command)} failed:\n{done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        return Lap(told["items"], seconds, told["job"], told["work"])

    return run
