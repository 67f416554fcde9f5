"""What every reader returns, and where readers look for images."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kpdata.core.errors import FormatError
from kpdata.core.sample import ImageRef, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.storage.stores import Location, Url, any_of, store_of

LARGEST = 1e7
"""No coordinate of a picture comes near it, in pixels; what does is refused."""

LARGEST_AREA = LARGEST**2

ZEROED = "keypoints with v = 0 but coordinates, zeroed"


class Unusable(Exception):
    """One annotation of an image, or the file that holds them, cannot be used."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
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
        groups_from_names: samples' groups are read off their images' names, so that ``--group``
            takes their place; else it can only join what the source holds together.
        convention: what the numbers were taken to mean, where that is not all that the format says.
    """

    skeleton: Skeleton
    samples: Iterator[Sample | Rejected]
    images_root: Location | None
    annotation_files: tuple[Path, ...]
    counts: Counter[str]
    has_boxes: bool
    groups_from_names: bool = False
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


def find_images(annotations: Path, images: Location | None, candidates: Sequence[Path]) -> Location:
    """The images' folder: ``images`` where given, else the first candidate that exists.

    Raises:
        FormatError: there is none; the message says where it was looked for.
    """
    if isinstance(images, Url):
        if any_of(store_of(images), images) is None:
            raise FormatError(f"{images}: holds nothing: give --images the folder of the images")
        return images
    if images is not None:
        if not images.is_dir():
            raise FormatError(f"{images}: no such folder: give --images the folder of the images")
        return images
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise FormatError(f"{annotations}: no images found (looked for {looked}): pass --images FOLDER")


def image_ref(
    root: Location, name: str, width: int | None = None, height: int | None = None
) -> ImageRef:
    """The image called ``name``, a relative POSIX path, below ``root``; nothing is opened."""
    return ImageRef(name=name, uri=os.path.join(root, name), width=width, height=height)
