"""Read images and videos, given as files and folders, as upright RGB frames."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from kpdata.core.errors import DatasetError, FormatError, ImageError
from kpdata.core.sample import Pixels
from kpdata.images import codec
from kpdata.images.headers import MAX_PIXELS, probe
from kpdata.storage.atomic import whole_file
from kpdata.storage.image_files import read_file

_SIDES = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")

_USUAL_RATE = 25.0


@dataclass(frozen=True)
class Item:
    """One file to predict on.

    Attributes:
        path: where it is.
        name: what its results are named after: the last parts of its path, as many as tell it
            from the other files.
        pixels: (H, W, 3) RGB, of an image that is in memory and not in a file.
    """

    path: Path
    name: str
    pixels: Pixels | None = field(default=None, compare=False)

    @property
    def is_video(self) -> bool:
        """Whether its extension is a video's."""
        return self.path.suffix.lower() in VIDEOS


class Image(NamedTuple):
    """Upright RGB pixels (H, W, 3), and which frame of a video they are; None for an image."""

    pixels: Pixels
    frame: int | None


def find(paths: Iterable[Path], besides: Path | None = None) -> list[Item]:
    """The files that are named, and the images and videos below the folders that are, in order.

    Args:
        paths: files and folders.
        besides: a folder that is left out where a walk meets it: the results of an earlier run.

    Raises:
        FormatError: there is no such path, or a folder without images and videos.
    """
    files: list[Path] = []
    least: list[int] = []
    for path in paths:
        if path.is_dir():
            found = sorted(_walk(path, besides and besides.resolve()))
            if not found:
                known = ", ".join((*IMAGES, *VIDEOS))
                raise FormatError(f"{path}: holds no image and no video: looked for {known}")
            least += [len(file.relative_to(path).parts) + 1 for file in found]
        elif path.exists():
            found = [path]
            least.append(1)
        else:
            raise FormatError(f"{path}: no such file or folder")
        files += found
    return list(map(Item, files, _names(files, least)))


def _walk(folder: Path, besides: Path | None) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        here = Path(top)
        folders[:] = [name for name in folders if (here / name).resolve() != besides]
        for name in names:
            if Path(name).suffix.lower() in IMAGES + VIDEOS and not name.startswith("."):
                yield here / name


def _names(files: Sequence[Path], least: Sequence[int]) -> list[str]:
    """Names whose overlays differ: the last parts of each path, at least as many as given.

    Only a file that is given twice has the same name twice.
    """
    whole = [Path(os.path.abspath(file)).parts[1:] for file in files]
    counts = list(least)
    while True:
        names = ["/".join(parts[-n:]) for parts, n in zip(whole, counts, strict=True)]
        bearers: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name, parts in zip(names, whole, strict=True):
            bearers[overlay_name(name)].add(parts)
        crowded = [len(bearers[overlay_name(name)]) > 1 for name in names]
        if not any(crowded):
            return names
        counts = [n + more for n, more in zip(counts, crowded, strict=True)]


def overlay_name(name: str) -> str:
    """What the overlay of a file is called: its own name, and the overlay's suffix if need be.

    No two names share it, so that a name which is another's overlay gets the suffix once more.

    >>> [overlay_name(name) for name in ("a.jpg", "a.png", "a.png.jpg", "a", "b.mp4", "b.avi")]
    ['a.jpg', 'a.png.jpg', 'a.png.jpg.jpg', 'a.jpg.jpg', 'b.mp4', 'b.avi.mp4']
    """
    known = IMAGES + VIDEOS
    stem, suffix = os.path.splitext(name)
    wanted = ".mp4" if suffix.lower() in VIDEOS else ".jpg"
    if suffix.lower() not in known:
        return name + wanted + wanted
    inner = os.path.splitext(stem)[1].lower()
    return name if suffix == wanted and inner not in known else name + wanted


def count_frames(items: Iterable[Item]) -> int:
    """The number of frames. For videos it is what their headers say."""
    return sum(_frames_in(item.path) if item.is_video else 1 for item in items)


def _capture(path: Path) -> Any:
    """OpenCV's reader of a video; of a pipe or a device, which may never end, it has no frame."""
    is_video = path.is_file() and path.stat().st_size > 0  # a file of /proc has no size
    return cv2.VideoCapture(str(path) if is_video else "")


def _frames_in(path: Path) -> int:
    capture = _capture(path)
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def read(item: Item) -> Iterator[Image]:
    """The image, or a video's frames one after the other.

    Raises:
        ImageError: it cannot be used.
    """
    if item.pixels is not None:
        yield Image(item.pixels, None)
    elif item.is_video:
        yield from _video(item.path)
    else:
        data = read_file(str(item.path))
        yield Image(codec.decode_upright(data, probe(data)), None)


def read_frame(item: Item, number: int | None) -> Pixels:
    """(H, W, 3) RGB: one frame of a video, or the image.

    Raises:
        ImageError: it cannot be used, or has no such frame.
    """
    for image in read(item):
        if image.frame == number:
            return image.pixels
    raise ImageError("no such frame", f"{item.path}: has no frame {number}")


def array_item(pixels: Pixels, number: int) -> Item:
    """An image in memory; FormatError unless it is (H, W, 3) uint8."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise FormatError(
            f"image {number} is an array of {pixels.dtype} {pixels.shape}: expected uint8 (H, W, 3)"
        )
    return Item(Path(f"image {number}"), f"image-{number}", pixels)


def _video(path: Path) -> Iterator[Image]:
    capture = _capture(path)
    try:
        number = 0
        while True:
            width, height = (int(capture.get(side)) for side in _SIDES)
            if width * height > MAX_PIXELS:
                raise ImageError("image too large", f"{path}: {width} × {height} pixels a frame")
            decoded, bgr = capture.read()
            if not decoded:
                break
            yield Image(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), number)
            number += 1
    finally:
        capture.release()
    if not number:
        raise ImageError("not a video", f"{path}: no frame of it can be decoded")


def frame_rate(path: Path) -> float:
    """Frames a second; 25 where the video does not say."""
    capture = _capture(path)
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if np.isfinite(rate) and rate > 0 else _USUAL_RATE


class VideoFile:
    """Writes an MP4 that gets its name when it is complete; a context manager.

    Args:
        path: the file, whose folder exists.
        rate: frames a second.

    Raises:
        DatasetError: it cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._open = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.release()
        self._open.__exit__(*error)

    def add(self, rgb: Pixels) -> None:
        """Append one frame (H, W, 3), of the first one's size."""
        if self._writer is None:
            size = rgb.shape[1], rgb.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            partial = self._open.enter_context(whole_file(self._path, durable=False))
            self._writer = cv2.VideoWriter(str(partial), code, self._rate, size)
            if not self._writer.isOpened():
                raise DatasetError(f"{self._path}: cannot be written as a video of {size} pixels")
        self._writer.write(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
