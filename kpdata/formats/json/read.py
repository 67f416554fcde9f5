"""One JSON file per image, in one of three styles.

- ``list``: ``[{"box": [x0, y0, x1, y1], "keypoints": [[x, y, v] or [x, y], ...], "label": ...}]``
- ``torchvision``: ``{"bboxes": [[x0, y0, x1, y1]], "keypoints": [[[x, y, v], ...]]}``
- ``named``, one object: ``{"left_eye": [x, y] or [x, y, v] or null, ...}``

Each file bears its image's stem.

Keypoints are taken as 0-based pixel indices, like COCO's: half a pixel is added. Boxes are
continuous xyxy. A keypoint without v is visible (2), unless it is [0, 0] or has two negative
numbers, which mean missing; that and null are not labelled (0).
"""

from pathlib import Path

from kpdata.core.errors import FormatError
from kpdata.core.skeleton import Skeleton
from kpdata.formats._lib.per_image import read_folder
from kpdata.formats._lib.style import Style
from kpdata.formats.base import Source
from kpdata.formats.json.styles import STYLES, recognise
from kpdata.storage.stores import Location


def read(
    annotations: Path,
    images: Location | None = None,
    skeleton: Skeleton | None = None,
    style: str | None = None,
    visibility: str | None = None,
    pixel_origin: str | None = None,
) -> Source:
    """Read a folder of JSON files, one per image; see :func:`read_folder`.

    Args:
        annotations: the folder.
        images: the images' folder, where each has the JSON file's stem.
        skeleton: the named style can do without, and then takes the first file's keys.
        style: a key of STYLES; by default the first file that is sound tells.
        visibility, pixel_origin: what v = 1 means, and where (0, 0) lies; see :func:`read_folder`.

    Raises:
        FormatError: what :func:`read_folder` refuses, or an unknown style.
    """
    if style is not None and style not in STYLES:
        raise FormatError(f"style is {style!r}: expected {', '.join(STYLES)}")

    def chosen(value: object) -> Style:
        return STYLES[style] if style else recognise(value)

    return read_folder(annotations, images, skeleton, chosen, visibility, pixel_origin)
