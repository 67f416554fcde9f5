"""COCO keypoints: one JSON file of any size, read in memory that does not grow with it.

The file is cut into elements, each decoded by type; a temporary database joins annotations to
images, whatever order the file has them in. What is wrong with the file's structure stops the
reader; what is wrong with one annotation's values costs one image.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import ImageError
from kpdata.core.sample import FloatArray, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, COCO_WHOLEBODY133
from kpdata.formats.base import (
    LABELLED,
    LARGEST,
    ZEROED,
    Source,
    find_images,
    image_ref,
    means_labelled,
    require_file,
)
from kpdata.formats.coco.categories import check_lengths, choose, skeleton_of
from kpdata.formats.coco.index import OWN_MARK, TABLES, Index, Row
from kpdata.storage.image_files import local_name, safe_path
from kpdata.storage.scratch import scratch_database
from kpdata.storage.stores import Location

OTHER_CATEGORIES = "annotations of other categories"
RENAMED = "absolute image names, or with \\, read as relative to the images folder"

PARTS = "annotations whose foot_kpts, face_kpts or hands were left out"
CORNER = "annotations read in pixels from the first one's corner, as {} writes them"

_CORNER_TOOLS = re.compile(
    r"roboflow|label ?studio|labelme|anylabeling|cvat|supervisely|make ?sense|datumaro|"
    r"exported from v7|darwin|encord|labelbox|dataloop|segments\.ai"
)
"""Tools that count pixels from the corner of their canvas, as ``info`` names them."""

_TRIED = 20
"""Images that are looked for, to find their folder."""


def read(
    annotations: Path,
    images: Location | None = None,
    category: str | None = None,
    skeleton: Skeleton | None = None,
    visibility: str | None = None,
    pixel_origin: str | None = None,
) -> Source:
    """Read COCO keypoints: crowds, instances without keypoints and empty images included.

    Args:
        annotations: the JSON file.
        images: the images' folder; by default one called like the last part of the file's name
            (``train2017``), or ``images``, beside the file or its parent, or the file's own: the
            first in which one of the first images lies.
        category: the category's name, where several have keypoints, and not the same.
        skeleton: takes the place of the names in the file.
        visibility: ``coco``, where v = 1 is occluded, or ``labelled``, where it says no more than
            that the keypoint is there; by default labelled where some v is 1 and none is 2.
        pixel_origin: what (0, 0) is: the ``center`` of the first pixel, as in COCO, or its
            ``corner``; by default corner where the file's ``info`` names a tool whose canvas
            begins there.

    Raises:
        FormatError: the file's structure is at fault; the message names file and JSON path.
        JobError: there is no room for the temporary database.
    """
    require_file(annotations)
    if images is not None:
        images = find_images(annotations, images, ())
    with ExitStack() as stack:
        index = Index(annotations, stack.enter_context(scratch_database(TABLES)))
        root = images or _find_images(annotations, index.first_names(_TRIED))
        in_parts = (
            skeleton is not None
            and skeleton.keypoints == COCO_WHOLEBODY133.keypoints
            and not index.holds(len(skeleton))
        )
        chosen = choose(annotations, index, category, COCO17 if in_parts else skeleton)
        ids = [entry.id for entry in chosen.values()]
        index.choose(ids)
        counts: Counter[str] = Counter()
        if skeleton is None:
            skeleton, counts = skeleton_of(annotations, chosen)
            check_lengths(annotations, index, chosen)
            in_parts = skeleton == COCO17 and index.wholebody > 0
            if in_parts:
                skeleton = COCO_WHOLEBODY133
        counts.update(index.counts)
        chosen_ids = set(ids)
        counts[OTHER_CATEGORIES] = sum(
            index.annotations[c.id] for c in index.categories if c.id not in chosen_ids
        )
        if not in_parts:
            counts[PARTS] = index.wholebody
        for key, count in index.grouped_by.items():
            counts[f"images grouped by their {key}"] = count if key != "group" else 0
        if visibility is None and OWN_MARK in index.tool:
            visibility = "coco"
        v_is_labelled = means_labelled(visibility, index.visibilities)
        tool = _CORNER_TOOLS.search(index.tool) if pixel_origin is None else None
        if tool:
            counts[CORNER.format(tool[0])] = sum(index.annotations[id_] for id_ in ids)
        from_corner = pixel_origin == "corner" or tool is not None
        counts = +counts
        reader = _Reader(
            path=annotations,
            root=root,
            index=index,
            categories={c.id: c.name for c in chosen.values()},
            num_keypoints=len(skeleton),
            num_listed=len(COCO17) if in_parts else len(skeleton),
            shift=0.0 if from_corner else 0.5,
            v_is_labelled=v_is_labelled,
            counts=counts,
        )
        return Source(
            skeleton=skeleton,
            samples=reader.samples(stack.pop_all()),
            images_root=root,
            annotation_files=(annotations,),
            counts=counts,
            has_boxes=any(index.with_box[id_] for id_ in ids),
            groups_from_names=not index.grouped_by["group"],
            groups_are_numbers=index.group_numbers,
            convention=_convention(from_corner, v_is_labelled),
        )


def _convention(from_corner: bool, v_is_labelled: bool) -> str:
    """What the numbers were taken to mean; empty where it is what the format says."""
    if not (from_corner or v_is_labelled):
        return ""
    pixels = "continuous pixels" if from_corner else "0-based pixel indices"
    return f"{pixels}, boxes continuous xywh, v {'0/1, 1 is visible' if v_is_labelled else '0/1/2'}"


def _find_images(annotations: Path, names: list[str]) -> Path:
    candidates = _image_folders(annotations)
    for folder in (*candidates, annotations.parent):
        if any(_lies_in(folder, name) for name in names):
            return folder
    found = find_images(annotations, None, candidates)
    assert isinstance(found, Path)
    return found


def _lies_in(folder: Path, name: str) -> bool:
    with suppress(ImageError, OSError):
        return os.path.isfile(safe_path(str(folder), local_name(str(folder), name)))
    return False


@dataclass(frozen=True)
class _Reader:
    """Turns the rows of the index into samples.

    Attributes:
        num_keypoints: K.
        num_listed: how many of them ``keypoints`` lists; COCO-WholeBody has others in further keys.
        shift: from the file's coordinates to continuous pixels.
    """

    path: Path
    root: Location
    index: Index
    categories: dict[int, str]
    num_keypoints: int
    num_listed: int
    shift: float
    v_is_labelled: bool
    counts: Counter[str]

    def samples(self, stack: ExitStack) -> Iterator[Sample | Rejected]:
        """All samples; ``stack`` holds the index's database."""
        with stack:
            for _, group in groupby(self._instances(), key=lambda found: found[0].image):
                rows, found = zip(*group, strict=True)
                faults = [one for one in found if isinstance(one, str)]
                if faults:
                    reason, _, detail = faults[0].partition(": ")
                    yield Rejected(str(rows[0].image_id), reason, detail)
                else:
                    yield self._sample(rows[0], tuple(one for one in found if one is not None))
            for position, image_id in self.index.orphans():
                yield Rejected(
                    str(image_id),
                    "annotation of an unknown image",
                    f"{self.path}: $.annotations[{position}].image_id: no image has the id "
                    f"{image_id!r}: add the image or remove the annotation",
                )
            for position, image_id, category_id in self.index.unknown_categories():
                yield Rejected(
                    str(image_id),
                    "annotation of an unknown category",
                    f"{self.path}: $.annotations[{position}].category_id: no category has the id "
                    f"{category_id}: add the category or remove the annotation",
                )

    def _sample(self, row: Row, instances: tuple[Instance, ...]) -> Sample:
        name = local_name(str(self.root), row.file_name)
        if name != row.file_name:
            self.counts[RENAMED] += 1
        image = image_ref(self.root, name, row.width, row.height)
        return Sample(str(row.image_id), image, instances, group=row.group)

    def _instances(self) -> Iterator[tuple[Row, Instance | str | None]]:
        """Each row with its instance, or with what is wrong with it as "reason: detail"."""
        for rows in self.index.rows():
            keypoints, faults = self._keypoints(rows)
            boxes = _boxes(rows)
            for number, row in enumerate(rows):
                if row.position is None:
                    yield row, None
                elif row.fault:
                    yield row, row.fault
                elif number in faults:
                    position = f"{self.path}: $.annotations[{row.position}].keypoints"
                    yield row, faults[number].format(position)
                else:
                    yield row, self._instance(row, keypoints[number], boxes[number])

    def _keypoints(self, rows: list[Row]) -> tuple[FloatArray, dict[int, str]]:
        """Keypoints (N, K, 3) in continuous pixels, and what is wrong with them, by row."""
        values, faults = self._stack(rows)  # (N, K, 3) as in the file
        xy, visibility = values[..., :2], values[..., 2:]
        known = (visibility == 0) | (visibility == 1) | (visibility == 2)
        placed = (np.abs(xy) <= LARGEST).all(axis=2)  # (N, K), False for NaN
        usable = (placed & known[..., 0]) | (visibility[..., 0] == 0)
        for number in np.flatnonzero(~usable.all(axis=1)).tolist():
            faults[number] = _bad_keypoint(values[number], usable[number])
            values[number] = 0
        given = (np.nan_to_num(xy) != 0).any(axis=2)  # NaN and null are no coordinates
        if zeroed := int(((visibility[..., 0] == 0) & given).sum()):
            self.counts[ZEROED] += zeroed
        if self.v_is_labelled and (raised := int((visibility == 1).sum())):
            self.counts[LABELLED] += raised
            visibility[visibility == 1] = 2
        xy[:] = np.where(visibility > 0, xy + self.shift, 0)
        return values.astype(np.float32), faults

    def _stack(self, rows: list[Row]) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
        """Keypoints (N, K, 3), zeros where a row has none, and the rows of a wrong length."""
        values = np.zeros((len(rows), self.num_keypoints, 3))
        listed = values[:, : self.num_listed]
        whole, faults = [], {}
        for number, row in enumerate(rows):
            if self.num_listed < self.num_keypoints and row.more is not None:
                values[number, self.num_listed :] = np.frombuffer(row.more).reshape(-1, 3)
            if row.keypoints is None:
                continue
            if len(row.keypoints) == listed[0].nbytes:
                whole.append(number)
            else:
                faults[number] = (
                    f"bad keypoints: {{}} holds {len(row.keypoints) // values.itemsize} numbers: "
                    f"expected {self.num_listed * 3}, x, y and v of {self.num_listed} keypoints"
                )
        joined = b"".join(rows[number].keypoints or b"" for number in whole)
        listed[whole] = np.frombuffer(joined).reshape(-1, self.num_listed, 3)
        return values, faults

    def _instance(self, row: Row, keypoints: FloatArray, box: FloatArray) -> Instance:
        return Instance(
            keypoints=keypoints,
            bbox_xyxy=None if row.box is None else box,
            area=row.area,
            is_crowd=bool(row.is_crowd),
            category=self.categories[row.category_id],
            category_id=row.category_id,
            id=row.id,
        )


def _image_folders(annotations: Path) -> list[Path]:
    split = annotations.stem.rpartition("_")[2]
    names = (split, f"images/{split}", "images")
    return [beside / name for name in names for beside in (annotations.parent, _above(annotations))]


def _above(annotations: Path) -> Path:
    return annotations.absolute().parent.parent


def _boxes(rows: list[Row]) -> FloatArray:
    """(N, 4) xyxy; zeros where a row has none."""
    none = bytes(32)
    xywh = np.frombuffer(b"".join(row.box or none for row in rows)).reshape(-1, 4)
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32)


def _bad_keypoint(values: FloatArray, usable: npt.NDArray[np.bool_]) -> str:
    keypoint = int(np.argmin(usable))
    for position, value in enumerate(values[keypoint, :2].tolist(), start=keypoint * 3):
        if not abs(value) <= LARGEST:
            expected = f"a finite number within {LARGEST:g} pixels"
            return f"bad keypoints: {{}}[{position}] is {value}: expected {expected}"
    position, visibility = keypoint * 3 + 2, values[keypoint, 2]
    return f"bad keypoints: {{}}[{position}] is {visibility:g}: expected v of 0, 1 or 2"
