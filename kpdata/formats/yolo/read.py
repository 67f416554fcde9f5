"""YOLO pose (Ultralytics): a data.yaml, and for each image a text file of normalised labels.

A line of a label file is an object: its class, the box's centre and size, and every keypoint as
``x y v`` or ``x y``, all but v in units of the upright image's width and height. The label file of
``images/train/1.jpg`` is ``labels/train/1.txt``. An image without one shows no object.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from kpdata.core.errors import FormatError, ImageError, SchemaError, located
from kpdata.core.sample import FloatArray, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats._lib.listing import check_file
from kpdata.formats.base import (
    LABELLED,
    LARGEST,
    ZEROED,
    Source,
    Unusable,
    image_ref,
    means_labelled,
    require_file,
)
from kpdata.formats.yolo.data import Data, is_own, load_data, split_images, without_absent_test
from kpdata.images.headers import upright_size
from kpdata.storage.bounded import read_bounded
from kpdata.storage.image_files import safe_path, stamp
from kpdata.storage.stores import Location, Url

UNLABELLED = "images without a label file"
LABELLED_CONVENTION = "normalised x/W, y/H of the upright image, v 0/1, 1 is visible"

ABSENT = "keypoints at (0, 0) or with a negative coordinate and no v, taken for not labelled"

_BOX = 5
"""Numbers before a line's keypoints: the class and the box."""


def read(
    annotations: Path,
    images: Location | None = None,
    skeleton: Skeleton | None = None,
    visibility: str | None = None,
) -> Source:
    """Read a dataset's data.yaml, and the images and labels of its train, val and test.

    Args:
        annotations: the YAML file.
        images: the dataset's folder, which holds ``images`` and ``labels``; by default what the
            YAML's ``path`` names below its own folder, else that folder.
        skeleton: names for the keypoints; by default the YAML's ``kpt_names``, else COCO's where
            number and mirror image are COCO's and the class is a person, else ``keypoint_1`` and so
            on.
        visibility: ``coco``, where v = 1 is occluded, or ``labelled``, where it says no more than
            that the keypoint is there; by default labelled where no label has v = 2.

    Raises:
        FormatError: the YAML is at fault, or names no image; the message names the key.
        SchemaError: the skeleton has another number of keypoints.
    """
    require_file(annotations)
    if isinstance(images, Url):
        raise FormatError(f"{images}: yolo is read from local folders: copy the dataset to one")
    data = load_data(annotations)
    if skeleton and len(skeleton) != data.num_keypoints:
        raise SchemaError(
            f"{annotations}: kpt_shape says {data.num_keypoints} keypoints, the skeleton "
            f"{skeleton.name} has {len(skeleton)}"
        )
    with located(str(annotations)):
        skeleton = skeleton or data.skeleton()
    root = data.root(annotations, images)
    counts: Counter[str] = Counter()
    present = without_absent_test(root, data)
    if present is not data:
        counts[f"splits left out, whose folder is absent: test ({data.test:.100})"] = 1
    if visibility is None and (data.kpt_shape[1] == 2 or is_own(annotations)):
        visibility = "coco"
    seen = set() if visibility else _Reader(root, present, Counter()).visibilities(annotations)
    reader = _Reader(root, present, counts, means_labelled(visibility, seen))
    return Source(
        skeleton=skeleton,
        samples=reader.samples(annotations),
        images_root=root,
        annotation_files=(annotations,),
        counts=counts,
        has_boxes=True,
        convention=LABELLED_CONVENTION if reader.v_is_labelled else "",
    )


class _Line(NamedTuple):
    """One object: its class, box (4,) as centre and size, and keypoints (K, 2 or 3), normalised."""

    number: int
    category: int
    box: FloatArray
    keypoints: FloatArray


@dataclass(frozen=True)
class _Reader:
    root: Path
    data: Data
    counts: Counter[str]
    v_is_labelled: bool = False

    def visibilities(self, annotations: Path) -> set[float]:
        """Those of 0, 1 and 2 that the labels have; ends at the first 2, which decides."""
        found: set[float] = set()
        for _, name in split_images(annotations, self.root, self.data):
            try:
                lines = self.lines(name)
            except (Unusable, ImageError):  # reported when the samples are read
                continue
            for line in lines:
                found |= {0.0, 1.0, 2.0}.intersection(line.keypoints[:, 2].tolist())
                if 2 in found:
                    return found
        return found

    def samples(self, annotations: Path) -> Iterator[Sample | Rejected]:
        """Every image of every split, in the order of their names."""
        for split, name in split_images(annotations, self.root, self.data):
            try:
                yield self._sample(split, name)
            except (Unusable, ImageError) as error:
                yield Rejected(name, error.reason, str(error))

    def _sample(self, split: str, name: str) -> Sample:
        path = safe_path(str(self.root), name)
        stamp(path)
        width, height = upright_size(path)
        size = np.array([width, height])
        lines = self.lines(name)
        return Sample(
            key=name,
            image=image_ref(self.root, name, width, height),
            instances=tuple(self._instance(line, size) for line in lines),
            split=split,
        )

    def lines(self, image: str) -> list[_Line]:
        """What an image's label file holds; nothing where there is none."""
        path = self.root / label_name(image)
        if not os.path.lexists(path):
            self.counts[UNLABELLED] += 1
            return []
        try:
            safe_path(str(self.root), label_name(image))  # its folder may be a symlink, too
            check_file(path, self.root)
            text = read_bounded(path).decode()
        except (OSError, ImageError, Unusable, FormatError, UnicodeDecodeError) as error:
            raise Unusable("bad annotation", f"{path}: {error}") from error
        rows = enumerate(text.splitlines(), start=1)
        return [self._line(f"{path}: line {n}", n, row.split()) for n, row in rows if row.strip()]

    def _line(self, where: str, number: int, words: Sequence[str]) -> _Line:
        count, dimensions = self.data.kpt_shape
        expected = _BOX + count * dimensions
        if len(words) != expected:
            raise Unusable(
                "bad keypoints",
                f"{where}: {len(words)} numbers: expected {expected}: the class, the box's 4, and "
                f"{count} keypoints of {dimensions}",
            )
        try:
            values = np.array(words, np.float64)
        except ValueError as error:
            raise Unusable("bad annotation", f"{where}: {error}") from error
        if not (np.abs(values) <= LARGEST).all():
            raise Unusable("bad annotation", f"{where}: a number beyond {LARGEST:g}")
        category, box = values[0], values[1:_BOX]
        if category not in self.data.classes:
            known = ", ".join(map(str, self.data.classes))
            raise Unusable("bad annotation", f"{where}: class {category:g}: names has {known}")
        if (box[2:] < 0).any():
            raise Unusable("bad annotation", f"{where}: a box of {box[2]:g} × {box[3]:g}")
        keypoints = values[_BOX:].reshape(count, dimensions)
        if dimensions == 3 and not np.isin(keypoints[:, 2], (0, 1, 2)).all():
            raise Unusable("bad keypoints", f"{where}: v must be 0, 1 or 2")
        return _Line(number, int(category), box, keypoints)

    def _instance(self, line: _Line, size: FloatArray) -> Instance:
        """(K, 3) keypoints and a box in pixels of an image of ``size`` width and height."""
        center, half = line.box[:2] * size, line.box[2:] / 2 * size
        xy = line.keypoints[:, :2]
        if line.keypoints.shape[1] == 3:
            visibility = line.keypoints[:, 2]
            self.counts[ZEROED] += int(((visibility == 0) & xy.any(axis=1)).sum())
            if self.v_is_labelled:
                self.counts[LABELLED] += int((visibility == 1).sum())
                visibility = np.where(visibility == 1, 2, visibility)
        else:
            absent = (xy < 0).any(axis=1) | ~xy.any(axis=1)
            visibility = np.where(absent, 0, 2)
            self.counts[ABSENT] += int(absent.sum())
        labelled = visibility[:, None] > 0
        return Instance(
            keypoints=np.hstack([np.where(labelled, xy * size, 0), visibility[:, None]]),
            bbox_xyxy=np.concatenate([center - half, center + half]),
            category=self.data.classes[line.category],
            category_id=line.category + 1,
            id=line.number,
        )


def label_name(image: str) -> str:
    """The label file of an image: in ``labels`` instead of the last ``images``, or beside it.

    >>> label_name("images/train/1.jpg"), label_name("boats/1.jpg")
    ('labels/train/1.txt', 'boats/1.txt')
    """
    *folders, name = PurePosixPath(image).with_suffix(".txt").parts
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return "/".join([*folders, name])
