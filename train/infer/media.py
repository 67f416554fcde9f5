"""Read images and videos, given as files and folders, as upright RGB frames."""

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging

from kpdata.core.errors import DatasetError, FormatError, ImageError
from kpdata.core.sample import Pixels
from kpdata.images import codec
from kpdata.images.headers import MAX_PIXELS, probe
from kpdata.shards.quarantine import escaped
from kpdata.storage.atomic import whole_file
from kpdata.storage.image_files import read_file
from kpdata.storage.names import safe_name

OVERLAYS = "overlays"
"""The folder of overlays, below that of the results."""

CUT_SHORT = "video cut short"
"""The reason of a video that ends too early, whose frames are used."""

_SIDES = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")

_USUAL_RATE = 25.0
_ROUGH = 0.02
"""By how much a header's number of frames may be wrong: some containers have it from durations."""

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg is quiet: we say what fails


@dataclass(frozen=True)
class Item:
    """One file to predict on.

    Attributes:
        path: where it is.
        name: what its results are named after: the last parts of its path, as many as tell it
            from the other files, as any disk takes it.
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
        besides: the folder of the results. It is left out where a walk meets it, and its overlays
            always are: an earlier run wrote them.

    Raises:
        FormatError: there is no such path, a folder without images and videos, or one of overlays.
    """
    left_out = [] if besides is None else [besides.resolve(), (besides / OVERLAYS).resolve()]
    files: list[Path] = []
    least: list[int] = []
    for path in paths:
        if path.is_dir():
            here = path.resolve()
            if left_out and left_out[1] in (here, *here.parents):
                raise FormatError(
                    f"{path}: holds the overlays of `out`: give pictures, or another `out`"
                )
            found = sorted(_walk(path, left_out))
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


def _walk(folder: Path, besides: Sequence[Path]) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        here = Path(top)
        folders[:] = [name for name in folders if (here / name).resolve() not in besides]
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
            return _safe_names(names, whole)
        counts = [n + more for n, more in zip(counts, crowded, strict=True)]


def _safe_names(names: Sequence[str], whole: Sequence[tuple[str, ...]]) -> list[str]:
    """The names as any disk takes them, numbered where overlays would be in each other's way."""
    safe = [safe_name(name) for name in names]
    taken = {str(folder) for name in safe for folder in PurePosixPath(name).parents}
    free: dict[tuple[tuple[str, ...], str], str] = {}
    for parts, name in zip(whole, safe, strict=True):
        if (parts, name) in free:
            continue
        path, number = PurePosixPath(name), 0
        while not taken.isdisjoint(overlay_names(str(path))):
            number += 1
            path = PurePosixPath(name).with_stem(f"{PurePosixPath(name).stem}-{number}")
        taken.update(overlay_names(str(path)))
        free[parts, name] = str(path)
    return [free[key] for key in zip(whole, safe, strict=True)]


def overlay_names(name: str) -> tuple[str, str]:
    """What the overlay of a file is called, and what as a PNG, where it is too large for a JPEG."""
    return overlay_name(name), f"{overlay_name(name)}.png"


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
    is_video &= _is_utf8(path)  # OpenCV crashes at other names
    with _quiet_opencv():
        return cv2.VideoCapture(str(path) if is_video else "")


def _is_utf8(path: Path) -> bool:
    return escaped(str(path)) == str(path)


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    level = cv2_logging.getLogLevel()
    cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2_logging.setLogLevel(level)


def _frames_in(path: Path) -> int:
    capture = _capture(path)
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def read(item: Item) -> Iterator[Image]:
    """The image, or a video's frames one after the other.

    Raises:
        ImageError: it cannot be used; after the last frame of a video, that it is cut short.
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
    if not _is_utf8(path):
        raise ImageError("name not UTF-8", f"{path}: the video's name is not UTF-8: rename it")
    capture = _capture(path)
    try:
        number, promised = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
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
    if number < promised - max(1, _ROUGH * promised):
        raise ImageError(
            CUT_SHORT,
            f"{path}: ends after {number:,} of the {promised:,} frames that its header promises; "
            "these are used",
        )


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

    It is H.264 where that can be written, else MPEG-4 Part 2, which browsers do not play.

    Args:
        path: the file, whose folder exists; a link of that name is replaced.
        rate: frames a second.

    Raises:
        DatasetError: it cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._open = contextlib.ExitStack()
        self._frames: _Frames | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def add(self, rgb: Pixels) -> None:
        """Append one frame (H, W, 3), of the first one's size; odd sides grow by a pixel."""
        odd = [(0, side % 2) for side in rgb.shape[:2]]  # colours are stored for 2 × 2 pixels
        even = np.pad(rgb, (*odd, (0, 0)), "edge")
        try:
            if self._frames is None:
                partial_file = self._open.enter_context(
                    whole_file(self._path, durable=False, follow=False)
                )
                write = h264() or partial(_by_opencv, "mp4v")
                self._frames = write(partial_file, self._rate, (even.shape[1], even.shape[0]))
                self._open.callback(self._frames.close)
                next(self._frames)
            self._frames.send(even)
        except OSError as error:
            raise DatasetError(f"{self._path}: cannot be written as a video: {error}") from error


_Frames = Generator[None, Pixels, None]
"""Takes frames (H, W, 3) by ``send`` after a first ``next``, and ends the file by ``close``."""


@cache
def h264() -> Callable[[Path, float, tuple[int, int]], _Frames] | None:
    """What writes H.264 to a path, at frames a second and of a width and height; None if nothing.

    OpenCV's wheels hold no encoder for it, and use that of the system where there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        for write in (_by_ffmpeg, partial(_by_opencv, "avc1")):
            with contextlib.suppress(ImportError, OSError, RuntimeError):
                frames = write(Path(folder) / "tried.mp4", _USUAL_RATE, (64, 64))
                next(frames)
                frames.send(np.zeros((64, 64, 3), np.uint8))
                frames.close()
                return write
    return None


def _by_ffmpeg(path: Path, rate: float, size: tuple[int, int]) -> _Frames:
    import imageio_ffmpeg

    frames: _Frames = imageio_ffmpeg.write_frames(
        path, size, fps=rate, codec="libx264", macro_block_size=1, ffmpeg_log_level="quiet"
    )
    return frames


def _by_opencv(code: str, path: Path, rate: float, size: tuple[int, int]) -> _Frames:
    with _quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV refuses {size[0]} × {size[1]} pixels")
    try:
        while True:
            writer.write(cv2.cvtColor((yield), cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
