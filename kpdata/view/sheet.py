"""Contact sheets, many small pictures in a grid, and legends: what is drawn in which colour."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kpdata.core.sample import Pixels
from kpdata.core.skeleton import Skeleton
from kpdata.view.draw import LEFT, RIGHT, Colour, keypoint_colours, resized
from kpdata.view.printing import printable

_GAP = 4  # pixels between tiles
_PAPER, _INK = (24, 24, 26), (225, 225, 225)
_SMALLEST_TEXT = 9.0
_ROOM = 0.25
"""Of a picture's height: where its legend would take more, there is no room for it."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    tiles: Sequence[tuple[Pixels, str]],
    columns: int = 0,
    tile: int = 256,
    skeleton: Skeleton | None = None,
) -> Pixels:
    """Put pictures into a grid, row by row, each with its caption below.

    Args:
        tiles: pictures (H, W, 3) of any size, and their captions.
        columns: pictures in a row; 0 makes the sheet about as wide as it is high.
        tile: side in pixels of the square that each picture is resized to fit.
        skeleton: whose keypoints are drawn; a legend of them stands below the pictures.

    Returns:
        (H, W, 3) RGB of rows · columns tiles with gaps between; (1, 1, 3) without tiles.
    """
    if not tiles:
        return np.full((1, 1, 3), _PAPER, np.uint8)
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    text_size = max(_SMALLEST_TEXT, tile / 18)
    font = ImageFont.load_default(text_size)
    line = _line(text_size)
    fitted = [resized(rgb, tile) for rgb, _ in tiles]
    height = max(picture.shape[0] for picture in fitted)
    across, down = tile + _GAP, height + line + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (picture, (_, caption)) in enumerate(zip(fitted, tiles, strict=True)):
        x, y = _GAP + index % columns * across, _GAP + index // columns * down
        margin = (tile - picture.shape[1]) // 2, (height - picture.shape[0]) // 2
        sheet.paste(Image.fromarray(picture), (x + margin[0], y + margin[1]))
        pen.text((x, y + height), _shortened(caption, tile, font), _INK, font)
    pixels = np.asarray(sheet)
    if skeleton:
        pixels = np.vstack([pixels, _legend(skeleton, pixels.shape[1], text_size)])
    return pixels.copy()


def with_legend(rgb: Pixels, skeleton: Skeleton) -> Pixels:
    """A picture (H, W, 3) with a legend of the keypoints' colours below, where there is room."""
    height, width = rgb.shape[:2]
    text_size = max(_SMALLEST_TEXT, min(height, width) / 40)
    in_a_row = width // (_dot(text_size) + 4 * _GAP) + 1  # of names without a letter
    if len(_entries(skeleton)) / in_a_row * _line(text_size) > _ROOM * height:
        return rgb  # to draw a thousand names takes a second
    legend = _legend(skeleton, width, text_size)
    return np.vstack([rgb, legend]) if legend.shape[0] <= _ROOM * height else rgb


def _entries(skeleton: Skeleton) -> list[tuple[str, Colour]]:
    """What a legend names. Keypoints that have a mirror image share the entries left and right."""
    sides = {"left": LEFT, "right": RIGHT} if skeleton.flip_pairs else {}
    colours = keypoint_colours(skeleton).items()
    own = [(name, colour) for name, colour in colours if colour not in (LEFT, RIGHT)]
    return [*sides.items(), *own]


def _line(text_size: float) -> int:
    return int(1.6 * text_size)


def _dot(text_size: float) -> int:
    return int(0.8 * text_size)


def _legend(skeleton: Skeleton, width: int, text_size: float) -> Pixels:
    """(H, width, 3) the names of what is drawn, each beside its colour, in rows."""
    font = ImageFont.load_default(text_size)
    line, dot = _line(text_size), _dot(text_size)
    places, x, y = [], _GAP, 0
    entries = _entries(skeleton)
    texts = [_shortened(name, width - 3 * _GAP - dot, font) for name, _ in entries]
    for text in texts:
        across = dot + _GAP + int(font.getlength(text)) + 3 * _GAP
        if x > _GAP and x + across - 2 * _GAP > width:
            x, y = _GAP, y + line
        places.append((x, y))
        x += across
    strip = Image.new("RGB", (width, y + line + _GAP), _PAPER)
    pen = ImageDraw.Draw(strip)
    for (x, y), text, (_, colour) in zip(places, texts, entries, strict=True):
        top = y + (line - dot) // 2 + _GAP // 2
        pen.ellipse((x, top, x + dot, top + dot), colour)
        pen.text((x + dot + _GAP, y + _GAP // 2), text, _INK, font)
    return np.asarray(strip)


def _shortened(text: str, width: float, font: Font) -> str:
    """``text``, without its middle where it is too long: names often differ at their ends alone."""
    text = short = printable(text)
    kept = len(text)
    while kept and font.getlength(short) > width:
        kept -= 1
        tail = -(-kept // 2)
        short = f"{text[: kept - tail]}…{text[len(text) - tail :]}"
    return short
