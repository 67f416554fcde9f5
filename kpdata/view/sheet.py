"""Contact sheets: many small pictures in a grid, each with a caption."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kpdata.core.sample import Pixels
from kpdata.view.draw import resized

_GAP = 4  # pixels between tiles
_PAPER, _INK = (24, 24, 26), (225, 225, 225)


def contact_sheet(tiles: Sequence[tuple[Pixels, str]], columns: int = 0, tile: int = 256) -> Pixels:
    """Put pictures into a grid, row by row, each with its caption below.

    Args:
        tiles: pictures (H, W, 3) of any size, and their captions.
        columns: pictures in a row; 0 makes the sheet about as wide as it is high.
        tile: side in pixels of the square that each picture is resized to fit.

    Returns:
        (H, W, 3) RGB of rows · columns tiles with gaps between; (1, 1, 3) without tiles.
    """
    if not tiles:
        return np.full((1, 1, 3), _PAPER, np.uint8)
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    text_size = max(9.0, tile / 18)
    font = ImageFont.load_default(text_size)
    line = int(1.6 * text_size)
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
    return np.asarray(sheet).copy()


def _shortened(
    caption: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(caption + "…") > width:
        caption = caption[:-1]
    return caption + "…"
