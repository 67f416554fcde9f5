"""What a format declares, and what its reader returns."""

import importlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpdata.core.errors import FormatError, shortened
from kpdata.core.sample import ImageRef, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.storage.stores import Location, Url, any_of, store_of

if TYPE_CHECKING:
    from kpdata.formats.detect import Seen

LARGEST = 1e7
"""Pixels. Larger coordinates are refused: no real picture has them."""

LARGEST_AREA = LARGEST**2

ZEROED = "keypoints with v = 0 but coordinates, zeroed"


@dataclass(frozen=True)
class Option:
    """An option of a reader, besides the path of the annotations.

    Attributes:
        name: the reader's parameter; a flag of that name on the command line.
        help: one line.
        metavar: what the command line shows for the value.
        choices: the values that there are; any text where empty.
    """

    name: str
    help: str
    metavar: str = "TEXT"
    choices: tuple[str, ...] = ()


IMAGES = Option(
    "images",
    "The folder of the images. Default: the one that is found beside the annotations.",
    "DIR",
)
SKELETON = Option(
    "skeleton", "The keypoints' names, of a built-in skeleton or a JSON file.", "NAME|FILE"
)
VISIBILITY = Option(
    "visibility",
    "What v = 1 means: occluded (coco), or only labelled. Default: labelled if no "
    "keypoint has v = 2.",
    choices=("coco", "labelled"),
)
PIXEL_ORIGIN = Option(
    "pixel_origin",
    "Where (0, 0) lies: at the center of the first pixel, as in COCO, or at its corner, as in most "
    "annotation tools. Default: what the file's tool or style has.",
    choices=("center", "corner"),
)

LABELLED = "keypoints with v = 1 taken for visible, since none in the source has v = 2"


def means_labelled(told: str | None, visibilities: Collection[float | None]) -> bool:
    """Whether v = 1 says no more than that a keypoint is there.

    Args:
        told: the value of :data:`VISIBILITY`; None has the source's values decide.
        visibilities: those that the source has.
    """
    return told == "labelled" or (told is None and 1 in visibilities and 2 not in visibilities)


@dataclass(frozen=True)
class Format:
    """The declaration of an annotation format: all that commands, docs and detection ask of it.

    >>> Format(
    ...     name="toy",
    ...     summary="one text file of names and points",
    ...     coordinates="continuous pixels",
    ...     visibility="always 2",
    ...     read=lambda annotations: ...,
    ...     detect=lambda seen: "its first line, TOY" if seen.head.startswith(b"TOY") else None,
    ... ).convention
    'continuous pixels, always 2'

    Attributes:
        name: lower case, as the command line and manifests have it.
        summary: one line on what it is.
        coordinates: what a coordinate means in its files, for the table in docs/formats.md.
        visibility: what its flags mean, for the same table.
        read: ``read(annotations, **options)`` returns a Source; see :func:`imported`.
        detect: returns what in the annotations shows that they are of this format; None if nothing
            does.
        hint: returns advice on annotations that are almost of this format; else None.
        aliases: other names that people give it, lower case.
        options: what else its reader can be told.
        write: ``write(samples, skeleton, out, images_root, max_quarantine)`` returns its counts.
        is_target: a conversion writes this format itself, without ``write``.
        has_splits: its samples are split already, and stay so unless the user asks for another.
        copied: suffixes of the files that are downloaded when its folder is on an object store.
    """

    name: str
    summary: str
    coordinates: str
    visibility: str
    read: Callable[..., "Source"]
    detect: Callable[["Seen"], str | None]
    hint: Callable[["Seen"], str | None] = lambda seen: None
    aliases: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    write: Callable[..., Counter[str]] | None = None
    is_target: bool = False
    has_splits: bool = False
    copied: frozenset[str] = frozenset({".json"})

    @property
    def convention(self) -> str:
        """What manifests say of its numbers. Manifests are hashed: other words, another hash."""
        return f"{self.coordinates}, {self.visibility}"

    @property
    def writable(self) -> bool:
        """Whether kpdata can write it."""
        return self.is_target or self.write is not None


def imported(path: str) -> Callable[..., Any]:
    """The function ``package.module:name``, whose module is imported when it is first called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        module, _, name = path.partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__name__ = path
    return call


class Unusable(Exception):
    """One annotation of an image, or the file that holds them, cannot be used."""

    def __init__(self, reason: str, detail: str):
        super().__init__(shortened(detail))
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """What a reader found.

    Attributes:
        skeleton: what the K keypoints of every sample are.
        samples: streamed once, in a deterministic order; a sample at fault comes as Rejected.
        images_root: the folder, here or on a store, below which image names resolve; None where
            samples carry their own bytes or URI.
        annotation_files: what the manifest hashes as the source; a folder stands for its files.
        counts: named counters, filled while the samples stream.
        has_boxes: at least one instance carries a box.
        groups_from_names: samples' groups are read off their images' names, so that ``group``
            takes their place; else it can only join what the source holds together.
        groups_are_numbers: samples' groups are numbers, which begin anew in another source.
        hints: what the user may want to say otherwise, with the option that does.
        convention: what the numbers were taken to mean, where that is not all that the format says.
    """

    skeleton: Skeleton
    samples: Iterator[Sample | Rejected]
    images_root: Location | None
    annotation_files: tuple[Path, ...]
    counts: Counter[str]
    has_boxes: bool
    groups_from_names: bool = False
    groups_are_numbers: bool = False
    hints: tuple[str, ...] = ()
    convention: str = ""

    @property
    def folders(self) -> tuple[Location, ...]:
        """Folders that were read whole: of annotation files, and then of their images too."""
        annotations = tuple(path for path in self.annotation_files if path.is_dir())
        images = (self.images_root,) if annotations and self.images_root else ()
        return annotations + images


def require_file(path: Path) -> None:
    """Raise FormatError unless ``path`` is an existing file."""
    if path.is_dir():
        raise FormatError(f"{path}: is a folder: give the annotation file")
    if not path.exists():
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: is a pipe or a device: save it to a file first")


def find_images(annotations: Path, images: Location | None, candidates: Sequence[Path]) -> Location:
    """The images' folder: ``images`` where given, else the first candidate that exists.

    Raises:
        FormatError: there is none; the message says where it was looked for.
    """
    if isinstance(images, Url):
        if any_of(store_of(images), images) is None:
            raise FormatError(f"{images}: holds nothing: give `images`, the folder of the images")
        return images
    if images is not None:
        if not images.is_dir():
            raise FormatError(f"{images}: no such folder: give `images`, the folder of the images")
        return images
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise FormatError(f"{annotations}: no images found (looked for {looked}): give `images`")


def image_ref(
    root: Location, name: str, width: int | None = None, height: int | None = None
) -> ImageRef:
    """The image called ``name``, a relative POSIX path, below ``root``; nothing is opened."""
    return ImageRef(name=name, uri=os.path.join(root, name), width=width, height=height)
