"""MPII Human Pose: ``mpii_human_pose_v1_u12_1.mat``, people of 16 keypoints, 1-based pixels.

A keypoint's place is its ``id``, not its position in the list. ``is_visible`` is 1 for visible and
0 for occluded, as a number, as text or missing; what is not listed is not labelled. A person's box
is a square around ``objpos`` with a side of 200 × ``scale``; the reference length of PCKh is 0.6 ×
the diagonal of the head's box. Images are frames of videos, and a video's are one group.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import FormatError, located
from kpdata.core.sample import OCCLUDED, VISIBLE, FloatArray, Instance, Rejected, Sample
from kpdata.core.skeletons import MPII16
from kpdata.formats._lib import matlab
from kpdata.formats._lib.matlab import Variable
from kpdata.formats.base import LARGEST, Source, Unusable, find_images, image_ref
from kpdata.shards.records import MAX_INSTANCES
from kpdata.storage.stores import Location

MAX_BYTES = 64 << 20
"""Larger files are refused: the real one has 13 MB."""

MAX_INFLATED = 512 << 20
"""Bytes that the file may inflate to."""

SIDE_OF_SCALE = 200
"""Pixels of a person's height at ``scale`` 1, and so of the box's side."""

HEAD_SIZE_OF_DIAGONAL = 0.6
"""What PCKh divides by, in diagonals of the head's box: ``SC_BIAS`` of MPII's evaluation."""

_NAMED = 20
"""Fields that a message lists."""

_NAME = 1024
"""Characters of an image's name, or of a flag."""

TEST = "images of MPII's test set, whose keypoints are not public, left out"
NOT_SAID = "keypoints of unknown visibility, taken for visible"

_VISIBLE, _OCCLUDED = (1, "1"), (0, "0")

Record = dict[str, Variable]
_Point = tuple[float, float]


def read(annotations: Path, images: Location | None = None) -> Source:
    """Read the training images, all of which are the official split ``train``.

    Raises:
        FormatError: no images folder, or the file is not MPII's.
    """
    data = matlab.read_file(annotations, MAX_BYTES)
    with located(str(annotations)):
        release = _one(matlab.read_variable(data, "RELEASE", MAX_INFLATED))
        listed, flags = _field(release, "annolist"), _field(release, "img_train")
        if prod(flags.shape) != prod(listed.shape):
            raise FormatError(
                f"annolist has shape {listed.shape}, but img_train {flags.shape}: "
                "expected a flag for every image"
            )
        is_train = matlab.numbers(flags, MAX_INFLATED).reshape(-1) == 1
    counts: Counter[str] = Counter()
    root = find_images(annotations, images, [annotations.parent / "images"])
    return Source(
        skeleton=MPII16,
        samples=_Reader(annotations, root, counts).samples(listed, is_train),
        images_root=root,
        annotation_files=(annotations,),
        counts=counts,
        has_boxes=True,
    )


@dataclass(frozen=True)
class _Reader:
    annotations: Path
    root: Location
    counts: Counter[str]

    def samples(
        self, images: Variable, is_train: npt.NDArray[np.bool_]
    ) -> Iterator[Sample | Rejected]:
        with located(str(self.annotations)):
            for number, image in enumerate(matlab.records(images), start=1):
                if is_train[number - 1]:
                    yield self._sample(number, image)
                else:
                    self.counts[TEST] += 1

    def _sample(self, number: int, image: Record) -> Sample | Rejected:
        name = f"image {number}"
        try:
            name = matlab.text(_field(_one(_field(image, "image")), "name"), _NAME) or name
            people = _field(image, "annorect")
            if prod(people.shape) > MAX_INSTANCES:
                raise Unusable("bad annotation", f"annorect has shape {people.shape}")
            instances = tuple(
                self._person(index, person)
                for index, person in enumerate(matlab.records(people), start=1)
            )
            group = _video(image)
        except (FormatError, Unusable) as error:
            return Rejected(
                name, _reason(error), f"{self.annotations}: image {number} ({name}): {error}"
            )
        return Sample(name, image_ref(self.root, name), instances, "train", group)

    def _person(self, number: int, person: Record) -> Instance:
        try:
            return Instance(
                self._keypoints(person),
                bbox_xyxy=_box(person),
                category="person",
                id=number,
                head_size=_head_size(person),
            )
        except (FormatError, Unusable) as error:
            raise Unusable(_reason(error), f"person {number}: {error}") from error

    def _keypoints(self, person: Record) -> FloatArray:
        keypoints = np.zeros((len(MPII16), 3), np.float32)
        for points in matlab.records(person["annopoints"]) if "annopoints" in person else ():
            for point in matlab.records(_field(points, "point")):
                index = _number(point, "id")
                if index not in range(len(keypoints)):
                    raise Unusable("bad keypoints", f"id is {index:g}: expected 0 to 15")
                row = keypoints[int(index)]
                if row[2]:
                    raise Unusable("bad keypoints", f"two points of id {index:g}")
                row[:] = *_place(point, "x", "y"), self._visibility(point)
        return keypoints

    def _visibility(self, point: Record) -> int:
        flag = point.get("is_visible")
        if flag is None or 0 in flag.shape:
            self.counts[NOT_SAID] += 1
            return VISIBLE
        said = matlab.text(flag, _NAME) if matlab.is_text(flag) else _number(point, "is_visible")
        if said not in (*_VISIBLE, *_OCCLUDED):
            raise Unusable("bad keypoints", f"is_visible is {said!r:.20}: expected 0, 1 or nothing")
        return VISIBLE if said in _VISIBLE else OCCLUDED


def _reason(error: FormatError | Unusable) -> str:
    return error.reason if isinstance(error, Unusable) else "bad annotation"


def _video(image: Record) -> str | None:
    """The group of the video's frames; None where the image names no video."""
    index = matlab.number(image["vididx"]) if "vididx" in image else None
    if index is None:
        return None
    if not (index.is_integer() and 0 <= index <= LARGEST):
        raise Unusable("bad annotation", f"vididx is {index}: expected a video's number")
    return f"video {int(index)}"


def _box(person: Record) -> FloatArray | None:
    if _is_empty(person, "objpos") or _is_empty(person, "scale"):
        return None
    x, y = _place(_one(person["objpos"]), "x", "y")
    half = _number(person, "scale") * SIDE_OF_SCALE / 2
    if not 0 <= half <= LARGEST:
        raise Unusable("bad annotation", f"scale is {2 * half / SIDE_OF_SCALE:g}")
    return np.array([x - half, y - half, x + half, y + half], np.float32)


def _head_size(person: Record) -> float | None:
    if any(_is_empty(person, side) for side in ("x1", "y1", "x2", "y2")):
        return None
    (left, top), (right, bottom) = _place(person, "x1", "y1"), _place(person, "x2", "y2")
    return HEAD_SIZE_OF_DIAGONAL * hypot(right - left, bottom - top)


def _place(record: Record, x: str, y: str) -> _Point:
    """Continuous pixels: the first pixel's centre is (1, 1) in the file, and (0.5, 0.5) here."""
    xy = _number(record, x) - 0.5, _number(record, y) - 0.5
    if not all(abs(value) <= LARGEST for value in xy):
        found = [value + 0.5 for value in xy]
        raise Unusable("bad keypoints", f"{x} and {y} are {found}: expected pixels")
    return xy


def _number(record: Record, name: str) -> float:
    value = matlab.number(_field(record, name))
    if value is None:
        raise Unusable("bad annotation", f"{name} is empty: expected a number")
    return value


def _is_empty(record: Record, name: str) -> bool:
    return name not in record or 0 in record[name].shape


def _one(variable: Variable) -> Record:
    """The only element of a struct."""
    if prod(variable.shape) != 1:
        raise FormatError(f"{variable.name} has shape {variable.shape}: expected one struct")
    return next(matlab.records(variable))


def _field(record: Record, name: str) -> Variable:
    if name not in record:
        found = ", ".join(list(record)[:_NAMED])
        raise FormatError(f"no field {name}: expected MPII's, among {found or 'none at all'}")
    return record[name]
