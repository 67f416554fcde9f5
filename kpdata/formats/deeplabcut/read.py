"""DeepLabCut's labelled images: labeled-data/VIDEO/CollectedData_SCORER.csv of a project.

The labelling tools count pixels from 0 at the first pixel's *centre*: those of DeepLabCut 2.0 to
2.2 store matplotlib's ``xdata`` over ``imshow``, the later one napari's points, both as they are.
Half a pixel is added.

A keypoint is labelled (2) where it has x and y, else not (0): there is no flag for occlusion.
Exactly (0, 0) is not labelled either: DeepLabCut trains on no keypoint there. Frames of one video
are near duplicates, so that an image's folder, which is its video's, is its group.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kpdata.core.errors import FormatError, located
from kpdata.core.sample import NOT_LABELLED, VISIBLE, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats.base import LARGEST, Source, Unusable, find_images, image_ref
from kpdata.formats.deeplabcut.project import FAULTY_EDGES, open_project
from kpdata.formats.deeplabcut.table import Columns, Table, read_table
from kpdata.storage.stores import Location

ANIMAL = "animal"

HALF = "keypoints with x or y alone, taken for not labelled"
AT_ORIGIN = "keypoints at (0, 0), taken for not labelled"
UNLABELLED = "images without a labelled keypoint, perhaps not labelled yet"
SHORT = "rows shorter than their header, whose missing cells are read as empty"
UNIQUE_PARTS = "unique bodyparts, which belong to no animal, left out"


def read(annotations: Path, images: Location | None = None) -> Source:
    """Read a project's labels, video by video in the order of their folders' names.

    Args:
        annotations: the project's folder, its ``labeled-data``, or one CollectedData_SCORER.csv.
        images: the folder that holds ``labeled-data`` with the images; by default the project's.

    Raises:
        FormatError: there are no labels, a CSV or config.yaml is at fault, or two videos have
            different bodyparts; the message names the file.
    """
    project = open_project(annotations)
    root = find_images(annotations, images, [project.root])
    tables = [read_table(path, project.root) for path in project.tables]
    for table in tables:
        _check_bodyparts(table, tables[0])
    with located(str(tables[0].path)):
        keypoints = tables[0].bodyparts
        edges, faulty = project.config.edges(keypoints)
        skeleton = Skeleton(project.config.task or ANIMAL, keypoints, edges)
    counts = project.counts + Counter({FAULTY_EDGES: faulty})
    return Source(
        skeleton=skeleton,
        samples=_Reader(root, skeleton, counts).samples(tables),
        images_root=root,
        annotation_files=(*project.tables, *filter(None, [project.config_file])),
        counts=counts,
        has_boxes=False,
        groups_from_names=True,
    )


def _check_bodyparts(table: Table, first: Table) -> None:
    """Raise FormatError unless both have the same bodyparts, in any order."""
    if not table.bodyparts:
        raise FormatError(f"{table.path}: has no animal's bodyparts, only unique ones")
    for one, other in ((table, first), (first, table)):
        there = set(one.bodyparts)
        for part in other.bodyparts:
            if part not in there:
                raise FormatError(
                    f"{one.path}: has no {part!r:.40}, unlike {other.path}: all need the same "
                    "bodyparts; columns of empty cells will do"
                )


@dataclass(frozen=True)
class _Reader:
    root: Location
    skeleton: Skeleton
    counts: Counter[str]

    def samples(self, tables: list[Table]) -> Iterator[Sample | Rejected]:
        for table in tables:
            yield from self._samples(table)

    def _samples(self, table: Table) -> Iterator[Sample | Rejected]:
        seen: dict[str, int] = {}
        for line, cells in table.rows():
            name = table.image_name(cells)
            if len(cells) in range(table.index, table.width, 2):  # no x without its y
                self.counts[SHORT] += 1
                cells += [""] * (table.width - len(cells))
            try:
                _check_row(table, name, cells, seen)
                sample = self._sample(table, name, cells)
            except Unusable as error:
                yield Rejected(name, error.reason, f"{table.path}: line {line}: {error}")
            else:
                seen[name] = line
                yield sample

    def _sample(self, table: Table, name: str, cells: list[str]) -> Sample:
        instances = tuple(
            instance
            for number, columns in enumerate(table.animals.values(), start=1)
            if (instance := self._instance(number, columns, cells)).num_labelled
        )
        self.counts[UNLABELLED] += not instances
        self.counts[UNIQUE_PARTS] += sum(
            not (_is_empty(cells[x]) or _is_empty(cells[y])) for x, y in table.unique.values()
        )
        group = name.rpartition("/")[0]
        return Sample(name, image_ref(self.root, name), instances, group=group or None)

    def _instance(self, number: int, columns: dict[str, Columns], cells: list[str]) -> Instance:
        points = [
            self._keypoint(part, columns[part], cells) if part in columns else (0, 0, NOT_LABELLED)
            for part in self.skeleton.keypoints
        ]
        return Instance(np.array(points, np.float32), category=ANIMAL, id=number)

    def _keypoint(self, part: str, columns: Columns, cells: list[str]) -> tuple[float, float, int]:
        x, y = (
            _number(coordinate, part, cells[column])
            for coordinate, column in zip("xy", columns, strict=True)
        )
        if x is None or y is None:
            self.counts[HALF] += x is not y
        elif x == y == 0:
            self.counts[AT_ORIGIN] += 1
        else:
            return x + 0.5, y + 0.5, VISIBLE
        return 0, 0, NOT_LABELLED


def _check_row(table: Table, name: str, cells: list[str], seen: dict[str, int]) -> None:
    """Raise Unusable unless the row is as wide as its header, and the first of its image."""
    if len(cells) != table.width:
        expected = f"expected {table.width}, as in the header"
        raise Unusable("bad annotation", f"{len(cells)} cells: {expected}")
    if not name:
        raise Unusable("bad annotation", "names no image")
    if name in seen:
        raise Unusable("image labelled twice", f"stands in line {seen[name]} too: keep one")


def _number(coordinate: str, part: str, cell: str) -> float | None:
    """A cell's value in pixels; None for an empty cell or NaN."""
    if _is_empty(cell):
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not abs(value) <= LARGEST:
        raise Unusable(
            "bad keypoints",
            f"{coordinate} of {part} is {cell!r:.40}: expected a number within {LARGEST:g} pixels, "
            "or an empty cell",
        )
    return value


def _is_empty(cell: str) -> bool:
    return cell.strip().lower() in ("", "nan")
