"""Writing COCO keypoints: a folder of images and one JSON file per split, whole or not at all."""

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from kpdata.core.crop import keypoint_box
from kpdata.core.errors import FormatError
from kpdata.core.sample import FloatArray, ImageRef, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats._lib.writing import (
    DRAWN,
    RENAMED,
    SAFE,
    ImageFolder,
    leads_out,
    relative_name,
    write_folder,
)
from kpdata.formats.coco.index import OWN_MARK
from kpdata.images.headers import Header, check_size
from kpdata.shards.quarantine import escaped
from kpdata.storage.names import safe_name
from kpdata.storage.scratch import scratch_database

_DECIMALS = 3
_SUFFIXES = {"jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",)}
_LARGEST_ID = 2**63 - 1


def write(
    samples: Iterable[Sample | Rejected],
    skeleton: Skeleton,
    out: Path,
    images_root: Path | None = None,
    max_quarantine: float = 0.0,
) -> Counter[str]:
    """Write ``out/images/`` and one ``out/<split>.json`` per split.

    Samples without a split go to ``annotations.json``. COCO needs a box: an instance without one
    gets the tight box of its labelled keypoints. Images are copied as they are; the suffix of a
    JPEG's or PNG's name follows from its bytes. An image whose group is not its file name carries
    it as ``group``, a key that is kpdata's own. Refused samples, and those whose image cannot be
    used, are listed in ``out/quarantine.jsonl``.

    Arguments, counts and errors are those of :func:`~kpdata.formats._lib.writing.write_folder`;
    ``skeleton`` says what the samples' keypoints are.
    """
    return write_folder(samples, out, images_root, max_quarantine, partial(_Writer, skeleton))


class _SplitFile:
    """One JSON file, whose two arrays grow side by side before they are joined."""

    def __init__(self, path: Path, stack: ExitStack):
        self._path = path
        self._parts: dict[str, BinaryIO] = {}
        for name in ("images", "annotations"):
            self._parts[name] = path.with_name(f"{path.name}.{name}").open("wb")
            stack.callback(_abandon, self._parts[name])

    def add(self, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        """Append an image and its annotations."""
        self._append("images", image)
        for annotation in annotations:
            self._append("annotations", annotation)

    def finish(self, categories: list[dict[str, Any]]) -> None:
        """Write the file: nothing can be added any more."""
        info = {"description": f"keypoints {OWN_MARK}", "version": "1.0"}
        with self._path.open("wb") as file:
            file.write(b'{"info": %b' % msgspec.json.encode(info))
            file.write(b', "licenses": [], "categories": %b' % msgspec.json.encode(categories))
            for name, part in self._parts.items():
                part.close()
                file.write(b',\n"%b": [\n' % name.encode())
                with open(part.name, "rb") as written:
                    shutil.copyfileobj(written, file)
                os.unlink(part.name)
                file.write(b"\n]")
            file.write(b"}\n")

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        part = self._parts[name]
        part.write((b",\n" if part.tell() else b"") + msgspec.json.encode(entry))


def _abandon(file: BinaryIO) -> None:
    """Close a file that is finished, or thrown away: what a full disk says of it is known."""
    with suppress(OSError):
        file.close()


class _Numbers:
    """Numbers given out once each, remembered on disk."""

    def __init__(self, stack: ExitStack):
        table = "CREATE TABLE taken (number INTEGER PRIMARY KEY)"
        self._db = stack.enter_context(scratch_database(table))
        self._last = 0

    def take(self, wanted: int | None) -> int:
        """``wanted``, or the next free number where it is None or taken."""
        number = wanted
        while number is None or not self._insert(number):
            number = self._last = self._last + 1
        return number

    def _insert(self, number: int) -> bool:
        added = self._db.execute("INSERT OR IGNORE INTO taken VALUES (?)", (number,)).rowcount
        return bool(added)


class _Writer:
    """One COCO folder in the making; its memory does not grow with the samples."""

    def __init__(self, skeleton: Skeleton, folder: Path, stack: ExitStack) -> None:
        self.counts: Counter[str] = Counter()
        self._skeleton, self._folder, self._stack = skeleton, folder, stack
        self._splits: dict[str, _SplitFile] = {}
        self._image_ids, self._annotation_ids = _Numbers(stack), _Numbers(stack)
        self._categories: dict[tuple[int, str], int] = {}
        (folder / "images").mkdir()
        self._images = ImageFolder(folder / "images", _SUFFIXES)

    def add(self, sample: Sample, data: bytes, header: Header) -> None:
        width, height = _size(sample.image, header)
        wanted = relative_name(sample)
        self.counts[SAFE] += wanted != sample.image.name
        name = self._images.write(sample, wanted, data, header.format)
        id_ = self._image_ids.take(int(sample.key) if _is_number(sample.key) else None)
        image = {"id": id_, "file_name": name, "width": width, "height": height}
        if (group := escaped(sample.split_group)) != name:
            image["group"] = group
        annotations = [self._annotation(id_, instance) for instance in sample.instances]
        self._split(sample.split or "annotations").add(image, annotations)
        self.counts["images"] += 1
        self.counts["instances"] += len(annotations)

    def finish(self) -> None:
        categories = self._categories or {(1, self._skeleton.name): 1}
        entries = [self._category(name, id_) for (_, name), id_ in categories.items()]
        for split in self._splits.values() or [self._split("annotations")]:
            split.finish(entries)
        self.counts[RENAMED] += self._images.renamed

    def _split(self, name: str) -> _SplitFile:
        if name not in self._splits:
            if leads_out(name) or "/" in name or safe_name(name) != name:
                raise FormatError(f"the split {name!r} cannot be a file's name")
            self._splits[name] = _SplitFile(self._folder / f"{name}.json", self._stack)
        return self._splits[name]

    def _annotation(self, image_id: int, instance: Instance) -> dict[str, Any]:
        box = instance.bbox_xyxy
        if box is None:
            self.counts[DRAWN] += 1
            box = keypoint_box(instance)
        xywh = [0.0] * 4 if box is None else _to_xywh(box)
        if instance.head_size is not None:
            self.counts["head sizes, which COCO does not hold"] += 1
        return {
            "id": self._annotation_ids.take(instance.id or None),
            "image_id": image_id,
            "category_id": self._category_id(instance),
            "iscrowd": int(instance.is_crowd),
            "bbox": xywh,
            "area": xywh[2] * xywh[3] if instance.area is None else instance.area,
            "num_keypoints": instance.num_labelled,
            "keypoints": _to_indices(instance.keypoints),
        }

    def _category_id(self, instance: Instance) -> int:
        category = (instance.category_id, instance.category)
        if category not in self._categories:
            taken = set(self._categories.values())
            free = max(taken, default=0) + 1
            self._categories[category] = category[0] if category[0] not in taken else free
        return self._categories[category]

    def _category(self, name: str, id_: int) -> dict[str, Any]:
        return {
            "id": id_,
            "name": name,
            "supercategory": name,
            "keypoints": self._skeleton.keypoints,
            "skeleton": (self._skeleton.edge_index + 1).tolist(),
        }


def _size(image: ImageRef, header: Header) -> tuple[int, int]:
    """Width and height that the annotations go by: raw, or upright."""
    check_size(image, header, header.upright_size, (header.width, header.height))
    if image.width and image.height:
        return image.width, image.height
    return header.upright_size


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key)) == key and int(key) <= _LARGEST_ID


def _to_indices(keypoints: FloatArray) -> list[float]:
    """(K, 3) → the flat list that COCO has: 0-based pixel indices, zeros where v = 0."""
    values = keypoints.astype(np.float64)
    values[values[:, 2] > 0, :2] -= 0.5
    flat = [round(value, _DECIMALS) for value in values.ravel().tolist()]
    flat[2::3] = map(int, flat[2::3])
    return flat


def _to_xywh(bbox_xyxy: FloatArray) -> list[float]:
    x0, y0, x1, y1 = bbox_xyxy.tolist()
    return [round(value, _DECIMALS) for value in (x0, y0, x1 - x0, y1 - y0)]
