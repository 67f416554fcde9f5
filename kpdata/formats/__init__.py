"""The annotation formats: one module each, with ``read`` and, where it can be written, ``write``.

A new format is a module with a ``read(annotations, ...) -> Source`` and an entry in FORMATS.
"""

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpdata.errors import FormatError
from kpdata.formats.source import Source

__all__ = ["FORMATS", "Format", "Source", "read"]


@dataclass(frozen=True)
class Format:
    """A format that kpdata knows.

    Attributes:
        name: what the command line calls it.
        module: the reader as ``dotted.module:function``, imported when it is needed.
        summary: one line on what it is.
        convention: one line on its pixel origin and its visibility flag.
        readable, writable: what kpdata can do with it.
    """

    name: str
    module: str
    summary: str
    convention: str
    readable: bool = True
    writable: bool = False


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            name="lsp",
            module="kpdata.formats.lsp:read",
            summary="Leeds Sports Pose: joints.mat of shape (3, 14, N) and images/im0001.jpg ...",
            convention="1-based pixels, flag 1 = occluded, every keypoint labelled",
        ),
        Format(
            name="lspet",
            module="kpdata.formats.lsp:read_lspet",
            summary="LSP extended: joints.mat of shape (14, 3, N) and images/im00001.jpg ...",
            convention="1-based pixels, flag 1 = labelled and visible, 0 = missing",
        ),
        Format(
            name="coco",
            module="kpdata.formats.coco:read",
            summary="COCO keypoints: one JSON file, any category and any number of keypoints",
            convention="0-based pixel indices, boxes continuous xywh, v 0/1/2",
            writable=True,
        ),
        Format(
            name="json",
            module="kpdata.formats.per_image_json:read",
            summary="one JSON file per image, same stem; styles list, torchvision, named",
            convention="0-based pixel indices, boxes continuous xyxy, v 0/1/2, 2 where not given",
        ),
        Format(
            name="shards",
            module="kpdata.formats.shards:read",
            summary="a shard folder that kpdata wrote: TFRecord files and kpdata.json",
            convention="normalised x/W, y/H from the image's corner, v 0/1/2",
            writable=True,
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
    if name not in FORMATS:
        raise FormatError(f"unknown format {name!r}: kpdata knows {', '.join(FORMATS)}")
    module, _, function = FORMATS[name].module.partition(":")
    reader = getattr(importlib.import_module(module), function)
    given = {option: value for option, value in options.items() if value is not None}
    taken = inspect.signature(reader).parameters
    for option in given:
        if option not in taken:
            raise FormatError(f"{name} takes no --{option.replace('_', '-')}")
    source: Source = reader(Path(annotations), **given)
    return source
