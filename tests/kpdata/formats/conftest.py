"""What the formats' tests share."""

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """Writes annotations/<name>.json and images/<name>.jpg for each value; returns the folder."""

    def write(**values):
        for name, value in values.items():
            for parent, suffix in (("annotations", ".json"), ("images", ".jpg")):
                path = tmp_path / parent / f"{name.replace('__', '/')}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                text = value if isinstance(value, (str, bytes)) else json.dumps(value)
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / "annotations"

    return write
