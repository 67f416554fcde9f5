"""COCO keypoints: one JSON file of any size, read in memory that does not grow with it.

The file is cut into elements, each decoded by type; a temporary database joins annotations to
images, whatever order the file has them in. What is wrong with the file's structure stops the
reader; what is wrong with one annotation's values costs one image.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kpdata.errors import FormatError, JobError, located
from kpdata.formats.coco_index import Category, Index, Row
from kpdata.formats.source import LARGEST, ZEROED, Source, find_images, image_ref, require_file
from kpdata.schema import FloatArray, Instance, Rejected, Sample
from kpdata.skeletons import BUILT_IN, Skeleton
from kpdata.stores import Place

OTHER_CATEGORIES = "annotations of other categories"


def read(annotations: Path, images: Place | None = None, category: str | None = None) -> Source:
    """Read COCO keypoints: crowds, instances without keypoints and empty images included.

    Args:
        annotations: the JSON file.
        images: the images' folder; by default one called like the last part of the file's name
            (``train2017``), or ``images``, beside the file or its parent.
        category: the category's name, where several have keypoints.

    Raises:
        FormatError: the file's structure is at fault; the message names file and JSON path.
        JobError: there is no room for the temporary database.
    """
    require_file(annotations)
    root = find_images(annotations, images, _image_folders(annotations))
    try:
        index = Index(annotations)
    except sqlite3.Error as error:
        raise JobError(
            f"{annotations}: cannot be indexed: {error}; point TMPDIR to a folder with as much "
            "room as the file takes"
        ) from error
    place, chosen = _choose(annotations, index.categories, category)
    counts: Counter[str] = Counter()
    if others := index.annotations.total() - index.annotations[chosen.id]:
        counts[OTHER_CATEGORIES] = others
    skeleton = _skeleton(f"{annotations}: $.categories[{place}]", chosen)
    return Source(
        skeleton=skeleton,
        samples=_samples(annotations, root, index, chosen, len(skeleton), counts),
        images_root=root,
        annotation_files=(annotations,),
        counts=counts,
        has_boxes=index.with_box[chosen.id] > 0,
    )


def _image_folders(annotations: Path) -> list[Path]:
    split = annotations.stem.rpartition("_")[2]
    names = (split, f"images/{split}", "images")
    return [beside / name for name in names for beside in (annotations.parent, _above(annotations))]


def _above(annotations: Path) -> Path:
    return annotations.absolute().parent.parent


def _choose(path: Path, categories: list[Category], wanted: str | None) -> tuple[int, Category]:
    """Position and value of the category to read."""
    able = [(place, entry) for place, entry in enumerate(categories) if entry.keypoints]
    names = ", ".join(repr(entry.name) for _, entry in able)
    if not able:
        raise FormatError(
            f"{path}: no category has keypoints: give the person_keypoints file rather than the "
            'instances one, or add "keypoints": ["nose", ...] to the category'
        )
    chosen = [(place, entry) for place, entry in able if wanted in (None, entry.name)]
    if not chosen:
        raise FormatError(f"{path}: no category {wanted!r} with keypoints; there is {names}")
    if len(chosen) > 1:
        raise FormatError(f"{path}: several categories have keypoints: pass --category: {names}")
    return chosen[0]


def _skeleton(place: str, category: Category) -> Skeleton:
    names = category.keypoints
    for number, edge in enumerate(category.skeleton or ()):
        if not all(1 <= end <= len(names) for end in edge):
            raise FormatError(
                f"{place}.skeleton[{number}] is {list(edge)}: expected numbers from 1 to "
                f"{len(names)}, the category's keypoints counted from 1"
            )
    for known in BUILT_IN.values():
        if known.keypoints == names:
            return known
    edges = tuple((names[a - 1], names[b - 1]) for a, b in category.skeleton or ())
    with located(place):
        return Skeleton(name=category.name, keypoints=names, edges=edges)


def _samples(
    path: Path, root: Place, index: Index, category: Category, count: int, counts: Counter[str]
) -> Iterator[Sample | Rejected]:
    with closing(index):
        instances = _instances(path, index, category, count, counts)
        for _, group in groupby(instances, key=lambda found: found[0].image):
            rows, found = zip(*group, strict=True)
            image = rows[0]
            faults = [one for one in found if isinstance(one, str)]
            if faults:
                reason, _, detail = faults[0].partition(": ")
                yield Rejected(str(image.image_id), reason, detail)
            else:
                yield Sample(
                    key=str(image.image_id),
                    image=image_ref(root, image.file_name, image.width, image.height),
                    instances=tuple(one for one in found if one is not None),
                    group=image.group,
                )


def _instances(
    path: Path, index: Index, category: Category, count: int, counts: Counter[str]
) -> Iterator[tuple[Row, Instance | str | None]]:
    """Each row with its instance, or with what is wrong with it as "reason: detail"."""
    for rows in index.rows(category.id):
        keypoints, faults, zeroed = _keypoints(rows, count)
        if zeroed:
            counts[ZEROED] += zeroed
        boxes = _boxes(rows)
        for number, row in enumerate(rows):
            if row.place is None:
                yield row, None
            elif row.fault:
                yield row, row.fault
            elif number in faults:
                yield row, faults[number].format(f"{path}: $.annotations[{row.place}].keypoints")
            else:
                yield (
                    row,
                    Instance(
                        keypoints=keypoints[number],
                        bbox_xyxy=None if row.box is None else boxes[number],
                        area=row.area,
                        is_crowd=bool(row.is_crowd),
                        category=category.name,
                        category_id=category.id,
                        id=row.id,
                    ),
                )


def _boxes(rows: list[Row]) -> FloatArray:
    """(N, 4) xyxy; zeros where a row has none."""
    none = bytes(32)
    xywh = np.frombuffer(b"".join(row.box or none for row in rows)).reshape(-1, 4)
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]).astype(np.float32)


def _keypoints(rows: list[Row], count: int) -> tuple[FloatArray, dict[int, str], int]:
    """Keypoints (N, K, 3) in continuous pixels, the faults by row, and how many were zeroed."""
    values, faults = _stack(rows, count)  # (N, K, 3) as in the file
    xy, visibility = values[..., :2], values[..., 2:]
    known = (visibility == 0) | (visibility == 1) | (visibility == 2)
    usable = (np.abs(xy) <= LARGEST).all(axis=2) & known[..., 0]  # (N, K), False for NaN
    for number in np.flatnonzero(~usable.all(axis=1)).tolist():
        faults[number] = _bad_keypoint(values[number], usable[number])
        values[number] = 0
    zeroed = int(((visibility == 0) & (xy != 0)).any(axis=2).sum())
    xy[:] = np.where(visibility > 0, xy + 0.5, 0)
    return values.astype(np.float32), faults, zeroed


def _stack(rows: list[Row], count: int) -> tuple[npt.NDArray[np.float64], dict[int, str]]:
    """Keypoints (N, K, 3), zeros where a row has none, and the rows of a wrong length."""
    values = np.zeros((len(rows), count, 3))
    whole, faults = [], {}
    for number, row in enumerate(rows):
        if row.keypoints is None or (row.is_crowd and not row.keypoints):
            continue
        if len(row.keypoints) == values[0].nbytes:
            whole.append(number)
        else:
            faults[number] = (
                f"bad keypoints: {{}} holds {len(row.keypoints) // values.itemsize} numbers: "
                f"expected {count * 3}, x, y and v of {count} keypoints"
            )
    joined = b"".join(rows[number].keypoints or b"" for number in whole)
    values[whole] = np.frombuffer(joined).reshape(-1, count, 3)
    return values, faults


def _bad_keypoint(values: FloatArray, usable: npt.NDArray[np.bool_]) -> str:
    keypoint = int(np.argmin(usable))
    for place, value in enumerate(values[keypoint, :2].tolist(), start=keypoint * 3):
        if not abs(value) <= LARGEST:
            expected = f"a finite number within {LARGEST:g} pixels"
            return f"bad keypoints: {{}}[{place}] is {value}: expected {expected}"
    place, visibility = keypoint * 3 + 2, values[keypoint, 2]
    return f"bad keypoints: {{}}[{place}] is {visibility:g}: expected v of 0, 1 or 2"
