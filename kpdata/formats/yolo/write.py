"""Writing YOLO pose (Ultralytics): data.yaml, images, and for each a text file of its labels.

A label that Ultralytics refuses costs it the whole image, so none of the kind is written: it wants
every coordinate within the image, and knows neither crowds nor objects without a box.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kpdata import __version__
from kpdata.core.crop import keypoint_box
from kpdata.core.errors import FormatError, ImageError
from kpdata.core.sample import FloatArray, ImageRef, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import DEFAULT_NAMES, TRAIN, VAL
from kpdata.formats._lib.writing import (
    DRAWN,
    RENAMED,
    SAFE,
    ImageFolder,
    is_crop,
    possible_name,
    relative_name,
    write_folder,
)
from kpdata.formats.yolo.data import OWN_MARK
from kpdata.formats.yolo.read import label_name
from kpdata.images.headers import Header, check_size, open_with_pillow

CLIPPED = "boxes clipped to the image"
OUTSIDE = "keypoints outside the image, set to v = 0"
CROWDS = "crowds left out: YOLO would take each for one object"
BOXLESS = "instances left out: no box within the image"
HEADS = "head sizes, which YOLO does not hold"
GROUPED = "images of a group, which YOLO does not hold"
UNSPLIT = "images without a split, written as train"
HIDDEN = "image names whose parts began with a dot, now with _"
SMALL = "images under 10 pixels wide or high, which Ultralytics leaves out"
MISSING = "no split {}, without which Ultralytics does not train"

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg"),
    "png": (".png",),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "tiff": (".tif", ".tiff"),
}
"""Formats that both Ultralytics and our own reader take, and the names they know them by."""

_DECIMALS = 8
"""Half of the last is 0.0003 pixels of an image as wide as a JPEG can be, 65,535 pixels."""

_NOISE = 1e-3
"""Pixels: so far do float32 numbers stray over the edge on their way through shards."""

_SMALLEST = 10


def write(
    samples: Iterable[Sample | Rejected],
    skeleton: Skeleton,
    out: Path,
    images_root: Path | None = None,
    max_quarantine: float = 0.0,
) -> Counter[str]:
    """Write ``out/data.yaml``, ``out/images/<split>/`` and ``out/labels/<split>/``.

    Samples without a split go to train. Images are copied as they are; the suffix of a name follows
    from the bytes. An instance without a box gets the tight box of its labelled keypoints; boxes
    are clipped to the image, and a keypoint outside it becomes v = 0. Crowds, and instances whose
    box has no extent within the image, are left out. Refused samples, and those whose image cannot
    be used, are listed in ``out/quarantine.jsonl``.

    Arguments, counts and errors are those of :func:`~kpdata.formats._lib.writing.write_folder`;
    ``skeleton`` says what the samples' keypoints are. A split that YOLO does not know is a
    FormatError, too.
    """
    return write_folder(samples, out, images_root, max_quarantine, partial(_Writer, skeleton))


class _Writer:
    """One YOLO folder in the making; its memory does not grow with the samples."""

    def __init__(self, skeleton: Skeleton, folder: Path, stack: ExitStack) -> None:
        self.counts: Counter[str] = Counter()
        self._skeleton, self._folder = skeleton, folder
        self._images = ImageFolder(folder, _SUFFIXES, beside=label_name)
        self._splits: set[str] = set()
        self._classes = _Classes()

    def add(self, sample: Sample, data: bytes, header: Header) -> None:
        split = self._split(sample)
        format_ = _format(sample.image, data, header)
        check_size(sample.image, header, header.upright_size)
        wanted = f"images/{split}/{self._inner_name(sample, split)}"
        name = self._images.write(sample, wanted, data, format_)
        size = np.array(header.upright_size, np.float64)
        lines = list(filter(None, (self._line(one, size) for one in sample.instances)))
        self._write_label(name, "".join(lines))
        self._splits.add(split)
        self.counts["images"] += 1
        self.counts["instances"] += len(lines)
        self.counts[UNSPLIT] += sample.split is None
        self.counts[GROUPED] += is_crop(sample) or sample.split_group != sample.image.name
        self.counts[SMALL] += min(header.upright_size) < _SMALLEST

    def _write_label(self, image: str, lines: str) -> None:
        label = self._folder / label_name(image)
        try:
            with possible_name(image):
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_bytes(lines.encode())
        except ImageError:
            (self._folder / image).unlink()
            raise

    def finish(self) -> None:
        self.counts[RENAMED] += self._images.renamed
        names, numbers = self._classes.in_order()
        if numbers != sorted(numbers):
            for path in filter(Path.is_file, (self._folder / "labels").rglob("*.txt")):
                path.write_bytes(_renumbered(path.read_bytes(), numbers))
        for split in (TRAIN, VAL):
            self.counts[MISSING.format(split)] += bool(self._splits) and split not in self._splits
        splits = [split for split in DEFAULT_NAMES if split in self._splits] or [TRAIN]
        (self._folder / "images" / splits[0]).mkdir(parents=True, exist_ok=True)
        text = _data_yaml(splits, self._skeleton, names or [self._skeleton.name])
        (self._folder / "data.yaml").write_bytes(text.encode())

    def _split(self, sample: Sample) -> str:
        split = sample.split or TRAIN
        if split not in DEFAULT_NAMES:
            known = ", ".join(DEFAULT_NAMES)
            raise FormatError(
                f"sample {sample.key}: its split is {split!r}, YOLO knows {known}: convert to "
                "shards with `split` 80/10/10 first, then convert those"
            )
        return split

    def _inner_name(self, sample: Sample, split: str) -> str:
        """The image's name below its split's folder.

        Readers swap the last folder called images for labels and skip hidden files, so neither
        stays.
        """
        safe = relative_name(sample)
        self.counts[SAFE] += safe != sample.image.name
        *folders, name = safe.split("/")
        folders = [folder for folder in folders if folder != "images"]
        inner = "/".join([*folders, name]).removeprefix(f"{split}/")
        seen = re.sub(r"(^|/)\.", r"\1_", inner)
        self.counts[HIDDEN] += seen != inner
        return seen

    def _line(self, instance: Instance, size: FloatArray) -> str:
        """An instance in an image of ``size`` (2,) pixels; empty where YOLO cannot hold it."""
        if instance.is_crowd:
            self.counts[CROWDS] += 1
            return ""
        box = self._box(instance, size)
        if box is None:
            self.counts[BOXLESS] += 1
            return ""
        self.counts[HEADS] += instance.head_size is not None
        words = [str(self._classes.number(instance)), *map(_text, box.tolist())]
        for x, y, v in self._keypoints(instance, size).tolist():
            words += _text(x), _text(y), str(int(v))
        return " ".join(words) + "\n"

    def _box(self, instance: Instance, size: FloatArray) -> FloatArray | None:
        """(4,) centre and size, normalised; None where nothing of it lies within the image."""
        given = instance.bbox_xyxy
        box = keypoint_box(instance) if given is None else given
        if box is None:
            return None
        corners = box.astype(np.float64).reshape(2, 2)
        inside = np.clip(corners, 0, size)
        extent = inside[1] - inside[0]
        if (extent < _NOISE).any():
            return None
        self.counts[DRAWN] += given is None
        self.counts[CLIPPED] += bool((np.abs(corners - inside) > _NOISE).any())
        return np.concatenate([inside.mean(axis=0) / size, extent / size])

    def _keypoints(self, instance: Instance, size: FloatArray) -> FloatArray:
        """(K, 3) normalised x and y, and visibility; zeros where not labelled or not inside."""
        xy = instance.xy.astype(np.float64)
        outside = ((xy < -_NOISE) | (xy > size + _NOISE)).any(axis=1)
        self.counts[OUTSIDE] += int(outside.sum())
        keypoints = np.column_stack([np.clip(xy / size, 0, 1), instance.visibility])
        keypoints[outside] = 0
        return keypoints


class _Classes:
    """Categories by name, numbered as they come; two of one name are one class."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids: dict[str, int] = {}

    def number(self, instance: Instance) -> int:
        name, id_ = instance.category, instance.category_id
        self._ids[name] = min(id_, self._ids.get(name, id_))
        return self._numbers.setdefault(name, len(self._numbers))

    def in_order(self) -> tuple[list[str], list[int]]:
        """The names in the order of their ids, and for each number so far its place among them."""
        names = sorted(self._ids, key=lambda name: (self._ids[name], name))
        return names, [names.index(name) for name in self._numbers]


def _format(image: ImageRef, data: bytes, header: Header) -> str:
    if header.format != "other":
        return header.format
    found = str(open_with_pillow(io.BytesIO(data)).format)
    if found.lower() not in _SUFFIXES:
        raise ImageError(
            "image format",
            f"{image.name} is a {found}, which Ultralytics does not read: convert to shards first, "
            "where it becomes a PNG, then those",
        )
    return found.lower()


def _renumbered(labels: bytes, numbers: list[int]) -> bytes:
    rows = [line.split(b" ", 1) for line in labels.splitlines()]
    return b"".join(b"%d %s\n" % (numbers[int(number)], rest) for number, rest in rows)


def _data_yaml(splits: list[str], skeleton: Skeleton, names: list[str]) -> str:
    """Without ``path``: Ultralytics then looks beside the file, wherever that is moved."""
    content: dict[str, Any] = {split: f"images/{split}" for split in splits}
    content |= {
        "kpt_shape": [len(skeleton), 3],
        "flip_idx": skeleton.flip_index.tolist(),
        "names": dict(enumerate(names)),
        "kpt_names": {number: list(skeleton.keypoints) for number in range(len(names))},
    }
    text = yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return f"{OWN_MARK} {__version__}\n{text}"


def _text(value: float) -> str:
    return f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
