"""A picture with its labels, to look at in a notebook or to write into a file.

Code that decodes and draws is imported when it is used, so that opening a dataset is fast.
"""

import base64
import html
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kpdata.core.errors import DatasetError, KpdataError
from kpdata.core.sample import FloatArray, ImageRef, Instance, Pixels, Sample, View
from kpdata.core.skeleton import Skeleton
from kpdata.storage.atomic import as_write_error
from kpdata.view.printing import as_text

SHOWN = 512
"""Longer side, in pixels, of a picture that is shown."""

THUMBNAIL = 192


class Picture:
    """A sample with its skeleton and methods to decode, draw and show it.

    >>> import kpdata as kp
    >>> picture = kp.open(shards)["train"][0]
    >>> picture.pixels().shape
    (64, 64, 3)
    >>> picture.keypoints.shape                             # instances, keypoints, (x, y, v)
    (1, 17, 3)
    >>> picture.show("picture.png")
    PosixPath('picture.png')

    Attributes:
        sample: the image and its instances.
        skeleton: what the K keypoints of every instance are.

    Args:
        read: returns the pixels, for samples that do not hold their encoded image.
    """

    def __init__(
        self, sample: Sample, skeleton: Skeleton, read: Callable[[], Pixels] | None = None
    ):
        self.sample, self.skeleton = sample, skeleton
        self._read = read

    @property
    def key(self) -> str:
        """The source image's stable key."""
        return self.sample.key

    @property
    def name(self) -> str:
        """The image's relative file name."""
        return self.sample.image.name

    @property
    def image(self) -> ImageRef:
        """The encoded image, or where to read it."""
        return self.sample.image

    @property
    def view(self) -> View | None:
        """How the picture was made from its source image; None if it is that image."""
        return self.sample.view

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The labelled objects; can be empty."""
        return self.sample.instances

    @property
    def keypoints(self) -> FloatArray:
        """(N, K, 3) x, y and visibility of all instances, in continuous pixels."""
        stacked = [instance.keypoints for instance in self.instances]
        return np.array(stacked, np.float32).reshape(-1, len(self.skeleton), 3)

    def pixels(self) -> Pixels:
        """Decode the picture: (H, W, 3) uint8 RGB, upright.

        Raises:
            ImageError: it is missing, or does not decode.
        """
        if self._read:
            return self._read()
        from kpdata.images import codec

        return codec.decode_stored(self.sample.image)

    def draw(self, size: int | None = None) -> Pixels:
        """(H, W, 3) with its keypoints drawn: left orange, right blue, a ring for an occluded one.

        Args:
            size: the longer side in pixels; None keeps the picture's own.
        """
        from kpdata.view.draw import draw_instances

        return draw_instances(self.pixels(), self.instances, self.skeleton, size)

    def show(self, path: str | Path | None = None, size: int | None = SHOWN) -> Path | None:
        """Show the picture with its keypoints, in the notebook or else in an image viewer.

        Args:
            path: a PNG file to write instead.
            size: the longer side in pixels; None keeps the picture's own.

        Returns:
            The path, if one is given.
        """
        if path is not None:
            from kpdata.view.draw import write_png

            if Path(path).suffix.lower() != ".png":
                raise DatasetError(f"path is {path}: expected a name that ends in .png")
            drawn = self.draw(size)
            with as_write_error(Path(path)):
                write_png(Path(path), drawn)
            return Path(path)
        from PIL import Image
        from rich.console import Console

        shown = Image.fromarray(self.draw(size))
        if Console().is_jupyter:
            from IPython.display import display

            display(shown)  # type: ignore[no-untyped-call]
        else:
            shown.show(self.name)
        return None

    @property
    def group(self) -> str | None:
        """What must stay in one split, such as a video; None if unknown."""
        return self.sample.group

    @property
    def split(self) -> str | None:
        """The source's official split; None if it has none."""
        return self.sample.split

    def __repr__(self) -> str:
        count = len(self.instances)
        return f"{self.name}: {count} instance{'s' * (count != 1)} of {self.skeleton.name}"

    def _repr_png_(self) -> bytes:
        from kpdata.images import codec

        return codec.encode(self.draw(SHOWN), "png")


def thumbnails(pictures: Iterable[Picture]) -> str:
    """HTML of a row of small pictures, each with its keypoints drawn."""
    from kpdata.images import codec

    tags = []
    for picture in pictures:
        title = html.escape(repr(picture))
        try:
            data = base64.b64encode(codec.encode(picture.draw(THUMBNAIL), "jpeg", 85)).decode()
        except KpdataError as error:
            tags.append(f"<p>{title}: {html.escape(str(error))}</p>")
            continue
        tags.append(
            f'<img src="data:image/jpeg;base64,{data}" title="{title}" '
            'style="display:inline-block;margin:2px">'
        )
    return "".join(tags)


def html_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """HTML of a small table."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = ["".join(f"<td>{html.escape(as_text(cell))}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"
