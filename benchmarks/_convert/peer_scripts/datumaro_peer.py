"""Datumaro reads a COCO keypoints file, and exports it as COCO with its images."""

import json
import os
import sys
import time
from pathlib import Path

from datumaro import Dataset


def main(annotations: Path, images: Path, folder: Path) -> None:
    """Import and export; print what it took."""
    source = folder / "source"  # it wants its own names
    (source / "annotations").mkdir(parents=True)
    (source / "images").mkdir()
    os.symlink(annotations, source / "annotations/person_keypoints_all.json")
    os.symlink(images, source / "images/all")
    started = time.perf_counter()
    dataset = Dataset.import_from(str(source), "coco_person_keypoints")
    dataset.init_cache()
    began = time.perf_counter()
    out = folder / "exported"
    dataset.export(str(out), "coco_person_keypoints", save_media=True)
    os.sync()
    ended = time.perf_counter()
    items = sum(len(files) for _, _, files in os.walk(out / "images"))
    print(json.dumps({"items": items, "job": ended - started, "work": ended - began}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
