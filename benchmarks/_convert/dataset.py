"""Many distinct copies of a few real images, with their annotations."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

SOFT_SIGMA, SOFT_QUALITY = 8.0, 10

Annotations = dict[int, list[dict[str, Any]]]


class Dataset(NamedTuple):
    """A COCO annotation file and its images' folder."""

    annotations: Path
    images: Path

    def read(self) -> tuple[list[dict[str, Any]], Annotations]:
        """The images' entries, and the annotations by image."""
        content = msgspec.json.decode(self.annotations.read_bytes())
        by_image: Annotations = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        return content["images"], by_image

    def files(self) -> list[Path]:
        """Every image."""
        images, _ = self.read()
        return [self.images / image["file_name"] for image in images]


def copy_images(source: Dataset, folder: Path, copies: int, small: bool = False) -> None:
    """Copy every image many times over into the new ``folder``; the k-th copy ends in k bytes.

    The copies' sizes differ, as sizes do in a real dataset.

    Args:
        source: the real data.
        folder: made here.
        copies: of every image.
        small: blur them until they take a few kilobytes, so that many fit on the disk.
    """
    folder.mkdir()
    for path in source.files():
        data = path.read_bytes()
        data = soften(data) if small else data
        for copy in range(copies):
            (folder / copy_name(path.name, copy)).write_bytes(data + bytes(copy))


def copy_annotations(source: Dataset, images: Path, copies: int) -> Dataset:
    """Write a COCO file for so many of the copies in ``images``, beside that folder."""
    content = msgspec.json.decode(source.annotations.read_bytes())
    replicated = {
        **content,
        "images": [
            {
                **image,
                "id": image["id"] * copies + copy,
                "file_name": copy_name(image["file_name"], copy),
            }
            for image in content["images"]
            for copy in range(copies)
        ],
        "annotations": [
            {
                **annotation,
                "id": annotation["id"] * copies + copy,
                "image_id": annotation["image_id"] * copies + copy,
            }
            for annotation in content["annotations"]
            for copy in range(copies)
        ],
    }
    path = images.with_name(f"annotations_{copies}.json")
    path.write_bytes(msgspec.json.encode(replicated))
    return Dataset(path, images)


def one_person_each(dataset: Dataset) -> Dataset:
    """The images that show a labelled person, with one such each, in a COCO file beside the other.

    A tool that makes one picture of every image, and one that makes a picture of every person, then
    have the same number to make.
    """
    content = msgspec.json.decode(dataset.annotations.read_bytes())
    people = {
        annotation["image_id"]: annotation
        for annotation in content["annotations"]
        if annotation["num_keypoints"] > 0 and not annotation["iscrowd"]
    }
    images = [image for image in content["images"] if image["id"] in people]
    path = dataset.annotations.with_name(f"{dataset.annotations.stem}_single.json")
    single = {**content, "images": images, "annotations": list(people.values())}
    path.write_bytes(msgspec.json.encode(single))
    return Dataset(path, dataset.images)


def copy_name(name: str, copy: int) -> str:
    """The file name of an image's copy."""
    return f"{Path(name).stem}_{copy:04d}.jpg"


def soften(data: bytes) -> bytes:
    """A JPEG of the same size in pixels, blurred until it takes a few kilobytes."""
    import cv2
    import numpy as np

    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    blurred = cv2.GaussianBlur(pixels, (0, 0), SOFT_SIGMA)
    _, encoded = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, SOFT_QUALITY])
    return bytes(encoded.tobytes())
