"""Beam's job servers for Flink and Spark: built by Maven once, checked, and kept in a cache."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from engines.processes import ClusterError

_PROJECT = Path(__file__).parents[1] / "job-servers"
_CONTENTS = _PROJECT / "contents.json"
"""Engine → :func:`content_sha256` of its jar."""

_SECONDS_TO_BUILD = 1500
_BLOCK = 1 << 20


def job_server(engine: str) -> Path:
    """The jar of ``flink`` or ``spark``: what Beam publishes as ``beam-runners-…-job-server``.

    Raises:
        ClusterError: Maven cannot build it, or what it built is not what it was.
    """
    jar = _cache() / f"{engine}-job-server.jar"
    if not jar.is_file():
        _build(jar.parent)
    return jar


def content_sha256(jar: Path) -> str:
    """A hash of all that a jar holds, but for what differs from one build to the next.

    These are the order, the dates and the compression of its entries, and the manifest, in which
    Maven notes the Java version.
    """
    digest = hashlib.sha256()
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(set(archive.namelist())):
            if name == "META-INF/MANIFEST.MF" or name.startswith("META-INF/maven/kpdata.tests/"):
                continue
            entry = hashlib.sha256()
            with archive.open(name) as content:
                while block := content.read(_BLOCK):
                    entry.update(block)
            digest.update(f"{entry.hexdigest()} {name}\n".encode())
    return digest.hexdigest()


def _cache() -> Path:
    """A folder of its own for every state of the project and of the checksums."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    files = [*sorted(_PROJECT.rglob("pom.xml")), _CONTENTS]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return base / "kpdata" / f"job-servers-{state[:16]}"


def _build(folder: Path) -> None:
    wanted = json.loads(_CONTENTS.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        project = shutil.copytree(_PROJECT, Path(scratch) / "job-servers")
        _maven(project)
        for engine, sha256 in wanted.items():
            jar = project / engine / "target" / f"{engine}-job-server.jar"
            found = content_sha256(jar)
            if found != sha256:
                raise ClusterError(f"{jar.name} holds {found}, not {sha256} as {_CONTENTS} says")
        for engine in wanted:
            name = f"{engine}-job-server.jar"
            os.replace(project / engine / "target" / name, folder / name)


def _maven(project: Path) -> None:
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "package"]
    try:
        done = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=_SECONDS_TO_BUILD
        )
    except FileNotFoundError:
        raise ClusterError("Maven (mvn) and Java 17 are needed to build the job servers") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr}")
