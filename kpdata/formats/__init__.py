"""The annotation formats: what reads each and, where it can be written, what writes it.

A new format is a module with a ``read(annotations, ...) -> Source`` and an entry in FORMATS.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpdata.core.errors import FormatError
from kpdata.formats.base import Source

__all__ = ["FORMATS", "Format", "Source", "read", "writer"]


@dataclass(frozen=True)
class Format:
    """A format that kpdata knows.

    Attributes:
        name: what the command line calls it.
        module: the reader as ``dotted.module:function``, imported when it is needed.
        summary: one line on what it is.
        convention: one line on its pixel origin and its visibility flag.
        has_splits: its samples are split already, and stay so unless the user says otherwise.
        writer: what writes it, as ``dotted.module:function``; empty where nothing does.
        is_target: whether the conversion itself writes it, from a Request.
    """

    name: str
    module: str
    summary: str
    convention: str
    has_splits: bool = False
    writer: str = ""
    is_target: bool = False

    @property
    def writable(self) -> bool:
        """Whether kpdata can write it."""
        return self.is_target or bool(self.writer)


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            name="lsp",
            module="kpdata.formats.lsp.read:read",
            summary="Leeds Sports Pose: joints.mat of shape (3, 14, N) and images/im0001.jpg ...",
            convention="1-based pixels, flag 1 = occluded, every keypoint labelled",
        ),
        Format(
            name="lspet",
            module="kpdata.formats.lsp.read:read_lspet",
            summary="LSP extended: joints.mat of shape (14, 3, N) and images/im00001.jpg ...",
            convention="1-based pixels, flag 1 = labelled and visible, 0 = missing",
        ),
        Format(
            name="mpii",
            module="kpdata.formats.mpii.read:read",
            summary="MPII Human Pose: its .mat of annotations and images/",
            convention="1-based pixels, is_visible 1/0, what is not listed is not labelled",
        ),
        Format(
            name="coco",
            module="kpdata.formats.coco.read:read",
            summary="COCO keypoints: one JSON file, any category and any number of keypoints",
            convention="0-based pixel indices, boxes continuous xywh, v 0/1/2",
            writer="kpdata.formats.coco.write:write",
        ),
        Format(
            name="yolo",
            module="kpdata.formats.yolo.read:read",
            summary="YOLO pose: data.yaml, images/ and labels/ with a text file per image",
            convention="normalised x/W, y/H of the upright image, v 0/1/2, 2 where not given",
            has_splits=True,
            writer="kpdata.formats.yolo.write:write",
        ),
        Format(
            name="deeplabcut",
            module="kpdata.formats.deeplabcut.read:read",
            summary="DeepLabCut: a project with labeled-data/VIDEO/CollectedData_SCORER.csv",
            convention="0-based pixel indices, empty cells = not labelled, no boxes",
        ),
        Format(
            name="json",
            module="kpdata.formats.json.read:read",
            summary="one JSON file per image; styles list, torchvision, named, labelme",
            convention="0-based pixel indices (labelme: continuous), boxes continuous xyxy, "
            "v 0/1/2, 2 where not given",
        ),
        Format(
            name="shards",
            module="kpdata.formats.shards.read:read",
            summary="a shard folder that kpdata wrote: TFRecord files and kpdata.json",
            convention="normalised x/W, y/H from the image's corner, v 0/1/2",
            has_splits=True,
            is_target=True,
        ),
    )
}


def read(name: str, annotations: Path, **options: Any) -> Source:
    """Open ``annotations`` with the reader of the format ``name``.

    Args:
        name: a key of FORMATS.
        annotations: the annotation file or folder.
        **options: the reader's own options; those that are None count as not given.

    Raises:
        FormatError: an unknown format, an option it does not take, or an unusable source.
    """
    reader = _function(_known(name).module)
    given = {option: value for option, value in options.items() if value is not None}
    taken = inspect.signature(reader).parameters
    for option in given:
        if option not in taken:
            raise FormatError(f"{name} takes no --{option.replace('_', '-')}")
    source: Source = reader(Path(annotations), **given)
    return source


def writer(name: str) -> Callable[..., Any]:
    """What writes the annotation format ``name``.

    It is ``write(samples, skeleton, out, images_root=None, max_quarantine=0.0)`` and returns a
    Counter of what was written.

    Raises:
        FormatError: an unknown format, or one that has no such writer, as shards have not.
    """
    if not _known(name).writer:
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.writer)
        raise FormatError(f"{name} has no writer of annotations, unlike {able}")
    return _function(FORMATS[name].writer)


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise FormatError(f"unknown format {name!r}: kpdata knows {', '.join(FORMATS)}")
    return FORMATS[name]


def _function(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
