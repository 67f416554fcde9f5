"""A folder of JSON files and a folder of images as a source, whatever the files' style.

Labels are all names or all numbers. Names are numbered from 1 in their sorted order, so a class's
number depends neither on the files' names nor on their order.
"""

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from kpdata.core.errors import FormatError
from kpdata.core.sample import NOT_LABELLED, VISIBLE, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import BUILT_IN
from kpdata.formats._lib.listing import IMAGE_SUFFIXES, TABLES, FilePair, FilePairs, holds_images
from kpdata.formats._lib.style import AnnotatedObject, Label, Point, StatedImage, Style
from kpdata.formats._lib.survey import (
    classes_of,
    contents_of,
    derive_skeleton,
    first_sound,
    skeleton_of,
    survey,
)
from kpdata.formats.base import (
    LABELLED,
    LARGEST,
    ZEROED,
    Source,
    Unusable,
    find_images,
    image_ref,
    means_labelled,
)
from kpdata.storage.scratch import scratch_database
from kpdata.storage.stores import Location

ABSENT = "named keypoints absent from their file, v = 0"
UNMARKED = "keypoints without a point in their object, v = 0"
BACKSLASHES = "image paths with \\, read as /"
UNANNOTATED = "images without an annotation file"
HIDDEN = "hidden files, whose names begin with a dot, left out"
NEGATIVE = "points [x, y] with both negative, taken for missing, v = 0"
AT_ORIGIN = "points [0, 0], taken for missing, v = 0"
RESPELT = "labels in other upper and lower case, read as the keypoint's name"
_MOST = 0.6
"""Share of a built-in skeleton's keypoints that makes it worth a hint."""
_SUFFIXES = ", ".join(sorted(IMAGE_SUFFIXES))


def read_folder(
    annotations: Path,
    images: Location | None,
    skeleton: Skeleton | None,
    recognise: Callable[[object], Style],
    visibility: str | None = "coco",
    pixel_origin: str | None = None,
) -> Source:
    """Read a folder of JSON files, one per image, sub-folders included, in the order of names.

    Args:
        annotations: the folder.
        images: the images' folder; each lies at the same relative place as its JSON file, and has
            its stem, or the name that it gives. By default the annotations' own folder if it holds
            images, else ``../images``.
        skeleton: None takes the files' names.
        recognise: the style of a decoded file; raises Unusable where it is none.
        visibility: whether v = 1 is occluded (``coco``) or just ``labelled``; None finds out:
            labelled where some v is 1 and none is 2.
        pixel_origin: ``center`` or ``corner`` of the first pixel; by default the style's.

    Raises:
        FormatError: no such folder, no JSON file or no images in it, no skeleton, or labels of two
            kinds.
        SchemaError: the skeleton is at fault.
    """
    if not annotations.is_dir():
        what = "is a file" if annotations.exists() else "no such folder"
        raise FormatError(
            f"{annotations}: {what}: give the folder of the JSON files; "
            "one COCO file is read as format coco"
        )
    beside = annotations.absolute().parent / "images"
    candidates = [annotations, beside] if holds_images(annotations) else [beside]
    root = find_images(annotations, images, candidates)
    with ExitStack() as stack:
        listing = FilePairs(stack.enter_context(scratch_database(TABLES)), annotations, root)
        style, first = first_sound(annotations, listing, recognise)
        unannotated = 0 if style.names_image else listing.count_unannotated()
        counts: Counter[str] = +Counter({UNANNOTATED: unannotated, HIDDEN: listing.hidden})
        derived = skeleton is None
        if derived and style.names != "all":
            skeleton = derive_skeleton(annotations, style, first)
        found = survey(annotations, listing, style)
        skeleton = skeleton or skeleton_of(annotations, found.names)
        v_is_labelled = means_labelled(visibility, found.visibilities)
        if pixel_origin:
            style = style.counted_from(pixel_origin)
        unlabelled = "person" if skeleton in BUILT_IN.values() else skeleton.name
        reader = _Reader(
            annotations=annotations,
            root=root,
            style=style,
            skeleton=skeleton,
            derived=derived,
            counts=counts,
            classes=classes_of(found.labels, unlabelled),
            v_is_labelled=v_is_labelled,
        )
        return Source(
            skeleton=skeleton,
            samples=reader.samples(listing, stack.pop_all()),
            images_root=root,
            annotation_files=(annotations,),
            counts=counts,
            has_boxes=found.has_boxes,
            convention=f"{style.convention}{', v of 1 is visible' if v_is_labelled else ''}",
            hints=tuple(_hints(skeleton)) if derived else (),
        )


def _hints(skeleton: Skeleton) -> Iterator[str]:
    """Which built-in skeleton the keypoints may be those of, some of which nobody labelled."""
    names = set(skeleton.keypoints)
    for known in BUILT_IN.values():
        if len(names) >= _MOST * len(known) and names < set(known.keypoints):
            yield (
                f"the labels name {len(names)} of the {len(known)} keypoints of {known.name}, and "
                f"are put in alphabetical order: give `skeleton` {known.name} to get its order, "
                "its edges and all of its keypoints"
            )
            return


@dataclass(frozen=True)
class _Reader:
    """Turns annotation files into samples."""

    annotations: Path
    root: Location
    style: Style
    skeleton: Skeleton
    derived: bool
    counts: Counter[str]
    classes: dict[Label | None, tuple[str, int]]
    v_is_labelled: bool

    @cached_property
    def known(self) -> frozenset[str]:
        """The keypoints' names."""
        return frozenset(self.skeleton.keypoints)

    @cached_property
    def spellings(self) -> dict[str, str]:
        """Keypoint in lower case → its name, where no two differ in case alone."""
        names = self.skeleton.keypoints
        folded = {name.casefold(): name for name in names}
        return folded if len(folded) == len(names) else {}

    def samples(self, listing: FilePairs, stack: ExitStack) -> Iterator[Sample | Rejected]:
        """All samples; ``stack`` holds the listing's database."""
        read = self._with_its_stem
        if self.style.names_image:
            read = partial(self._with_its_name, listing)
        with stack:
            for pair in listing.pairs():
                path = self.annotations / pair.annotation
                try:
                    yield read(path, pair)
                except Unusable as error:
                    key = pair.image if pair.candidates == 1 else pair.annotation
                    yield Rejected(key, error.reason, f"{path}: {error}")
            if self.style.names_image:
                self.counts.update(+Counter({UNANNOTATED: listing.count_unannotated()}))

    def _with_its_stem(self, path: Path, pair: FilePair) -> Sample:
        """The sample of a file whose image bears its stem."""
        image = self._image(pair)
        contents = contents_of(path, self.annotations, self.style)
        self.counts.update(contents.counts)
        instances = tuple(map(self._instance, contents.objects))
        return Sample(image, image_ref(self.root, image), instances)

    def _with_its_name(self, listing: FilePairs, path: Path, pair: FilePair) -> Sample:
        """The sample of a file that may name its image."""
        contents = contents_of(path, self.annotations, self.style)
        self.counts.update(contents.counts)
        stated = contents.image or StatedImage("")
        image = self._named_image(listing, pair, stated) if stated.path else self._image(pair)
        instances = tuple(map(self._instance, contents.objects))
        if not listing.take_image(image):
            problem = f"another file before it has its image {image}, too: remove one of them"
            raise Unusable("two annotations for one image", problem)
        ref = image_ref(self.root, image, stated.width, stated.height)
        return Sample(image, ref, instances)

    def _named_image(self, listing: FilePairs, pair: FilePair, stated: StatedImage) -> str:
        """The image of the name that ends a path, at the annotation's place."""
        folder = pair.annotation.rpartition("/")[0]
        name = posixpath.join(folder, stated.path.rpartition("/")[2])
        if listing.holds_image(name):
            return name
        base = PureWindowsPath(stated.path).name
        slashed = posixpath.join(folder, base)
        if listing.holds_image(slashed):
            self.counts[BACKSLASHES] += 1
            return slashed
        raise Unusable(
            "image missing",
            f"$.imagePath names {base!r:.200}: no such image ({_SUFFIXES}) at its place below "
            f"{self.root}; pictures embedded as imageData are not read",
        )

    def _image(self, pair: FilePair) -> str:
        if pair.candidates == 1:
            return pair.image
        if pair.candidates:
            raise Unusable(
                "two images for one annotation",
                f"both {pair.image} and {pair.last_image} have its stem: remove one",
            )
        raise Unusable(
            "image missing", f"no image with its stem ({_SUFFIXES}) at its place below {self.root}"
        )

    def _instance(self, found: AnnotatedObject) -> Instance:
        points = list(found.keypoints.items())
        if found.names is not None:
            points = self._ordered(found, found.names)
        if len(points) != len(self.skeleton):
            raise Unusable(
                "bad keypoints",
                f"{found.path} holds {len(points)} keypoints: expected the {len(self.skeleton)} of "
                f"skeleton {self.skeleton.name}",
            )
        rows = [self._keypoint(path, point) for path, point in points]
        if found.label not in self.classes:
            raise Unusable("bad annotation", "changed while it was read")
        category, category_id = self.classes[found.label]
        return Instance(
            keypoints=np.array(rows, np.float32),
            bbox_xyxy=None if found.box is None else _box(found.box_path, found.box),
            category=category,
            category_id=category_id,
        )

    def _ordered(self, found: AnnotatedObject, names: dict[str, str]) -> list[tuple[str, Point]]:
        """Paths and points in the skeleton's order, None where the object lacks one."""
        if self.style.names == "all" and not names.keys() <= self.known:
            respelt = {self.spellings.get(name.casefold(), name): names[name] for name in names}
            if len(respelt) == len(names):
                self.counts[RESPELT] += len(names.keys() - respelt.keys())
                names = respelt
        for name in names.keys() - self.known:
            problem = f"{names[name]} is not a keypoint of skeleton {self.skeleton.name}"
            if self.derived and self.style.names == "first":
                raise FormatError(
                    f"{self.annotations}: {problem}, which was read off the first file: "
                    "give `skeleton`, a JSON file with every name"
                )
            raise Unusable("bad keypoints", problem)
        if absent := len(self.skeleton) - len(names):
            self.counts[ABSENT if self.style.names == "first" else UNMARKED] += absent
        paths = [names.get(name, "") for name in self.skeleton.keypoints]
        return [(path, found.keypoints.get(path)) for path in paths]

    def _keypoint(self, path: str, point: Point) -> tuple[float, float, float]:
        if point is None:
            return 0, 0, 0
        if len(point) not in (2, 3):
            raise Unusable("bad keypoints", f"{path} is {point}: expected [x, y] or [x, y, v]")
        numbers = [math.nan if value is None else value for value in point]
        x, y, visibility = numbers if len(numbers) == 3 else (*numbers, self._seen(*numbers))
        if visibility not in (0, 1, 2):
            problem = f"{path}[2] is {visibility:g}: expected v of 0, 1 or 2"
            raise Unusable("bad keypoints", problem)
        if visibility == 1 and self.v_is_labelled:
            self.counts[LABELLED] += 1
            visibility = VISIBLE
        if visibility == 0:
            if len(point) == 3 and (x, y) != (0, 0):
                self.counts[ZEROED] += 1
            return 0, 0, 0
        if not (abs(x) <= LARGEST and abs(y) <= LARGEST):
            problem = f"{path} is {point}: expected finite numbers within {LARGEST:g} pixels"
            raise Unusable("bad keypoints", problem)
        shift = self.style.shift
        return x + shift, y + shift, visibility

    def _seen(self, x: float, y: float) -> int:
        """The visibility of a point that does not say: 0 for what other tools call missing."""
        if -LARGEST <= x < 0 and -LARGEST <= y < 0:
            self.counts[NEGATIVE] += 1
        elif x == y == 0:
            self.counts[AT_ORIGIN] += 1
        else:
            return VISIBLE
        return NOT_LABELLED


def _box(path: str, box: list[float]) -> Any:
    if len(box) != 4 or not all(abs(value) <= LARGEST for value in box):
        problem = f"{path} is {box}: expected four numbers within {LARGEST:g} pixels, x0 y0 x1 y1"
        raise Unusable("bad box", problem)
    if box[2] < box[0] or box[3] < box[1]:
        raise Unusable("bad box", f"{path} is {box}: it ends before it begins (x0 y0 x1 y1)")
    return np.array(box, np.float32)
