"""Fixtures for the ground floor's tests."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny_shards`` to damage."""
    return shutil.copytree(tiny_shards, tmp_path / "shards")
