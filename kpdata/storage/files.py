"""Hashes of files."""

import hashlib
from pathlib import Path

from blake3 import blake3

from kpdata.storage.bounded import open_regular

_BLOCK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_blake3(path: Path) -> str:
    """Hex BLAKE3 of a file's bytes."""
    digest = blake3()
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
