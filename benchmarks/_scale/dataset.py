"""Any number of small images that differ, and COCO files for the first so many of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from _convert.dataset import Dataset

from kpdata.core.skeletons import COCO17

PICTURES = 2000
SIZE = 64, 48
PADDING = 1000
PER_FOLDER = 1000
STRIDE = 1_000_003
"""A prime: annotation i belongs to image i · STRIDE mod n, so that no order helps."""


def make_images(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs of one to two kilobytes, no two alike, in folders of a thousand.

    They show 2,000 pictures; behind the end marker stand up to a thousand zeros, so that sizes
    differ about as little as they can, and the image's number.
    """
    pictures = list(_pictures())
    paddings = np.random.default_rng(1).integers(0, PADDING, count).tolist()
    for number, padding in enumerate(paddings):
        path = folder / name_of(number)
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(pictures[number % PICTURES] + bytes(padding) + b"%08d" % number)


def link_images(folder: Path, count: int) -> None:
    """Give the pictures ``count`` names, by hard links: each has count / 2,000 names."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number, data in enumerate(_pictures()):
        (pictures / str(number)).write_bytes(data)
    for number in range(count):
        path = folder / name_of(number)
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        os.link(pictures / str(number % PICTURES), path)


def annotate(images: Path, count: int) -> Dataset:
    """Write a COCO file for the first ``count`` images beside their folder: a person on each.

    Everything is streamed; the annotations stand in another order than the images.
    """
    path = images.with_name(f"{images.name}_{count}.json")
    width, height = SIZE
    entries = (
        {"id": n, "file_name": name_of(n), "width": width, "height": height} for n in range(count)
    )
    with open(path, "wb") as out:
        for name, items in (("images", entries), ("annotations", _people(count))):
            out.write(b'%s"%s":[' % (b"{" if name == "images" else b",", name.encode()))
            for number, item in enumerate(items):
                out.write(b",\n" * (number > 0) + msgspec.json.encode(item))
            out.write(b"]")
        category = {"id": 1, "name": "person", "keypoints": COCO17.keypoints, "skeleton": []}
        out.write(b',"categories":%s}\n' % msgspec.json.encode([category]))
    return Dataset(path, images)


def name_of(number: int) -> str:
    """An image's file name."""
    return f"{number // PER_FOLDER:04d}/{number:08d}.jpg"


def _pictures() -> Iterator[bytes]:
    import cv2

    rng = np.random.default_rng(0)
    for _ in range(PICTURES):
        pixels = cv2.blur(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8), (5, 5))
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 50])
        yield data.tobytes()


def _people(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(2)
    for number in range(count):
        xy = rng.integers(2, (SIZE[0] - 2, SIZE[1] - 2), (17, 2))
        keypoints = np.column_stack([xy, np.where(rng.random(17) < 0.2, 1, 2)])
        low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
        yield {
            "id": number,
            "image_id": number * STRIDE % count,
            "category_id": 1,
            "iscrowd": 0,
            "num_keypoints": 17,
            "keypoints": keypoints.reshape(-1).tolist(),
            "bbox": [*low.tolist(), *extent.tolist()],
            "area": int(extent.prod()),
        }
