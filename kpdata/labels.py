"""Annotations as a Python object: ``kpdata.read``."""

import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from html import escape
from os import PathLike
from typing import Any, overload

from kpdata.core.errors import FormatError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import ImageRef, Pixels, Rejected, Sample, pack, unpack_sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import SPLIT_NAME
from kpdata.formats import Format, Source, find, recognise
from kpdata.formats import read as read_source
from kpdata.formats.base import IMAGES
from kpdata.formats.merged import merge
from kpdata.formats.settings import get_skeleton
from kpdata.storage.stores import Location, Url, as_location, local_copy
from kpdata.view.picture import Picture, html_table, thumbnails

AnyPath = str | PathLike[str]

_SHOWN = 4


def read(
    annotations: AnyPath | Mapping[str, AnyPath | Sequence[AnyPath]],
    images: AnyPath | Mapping[str, AnyPath | Sequence[AnyPath]] | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the term
    progress: Progress = SILENT,
    **options: Any,
) -> "Labels":
    """Read annotations of any format that kpdata knows.

    >>> import kpdata as kp
    >>> labels = kp.read(annotations)
    >>> labels
    coco: coco17, 17 keypoints, 40 images
    >>> labels.recognised
    'its keys images, annotations, categories'

    Args:
        annotations: a file or folder, here or on a store; or split → path, for a file a split; or
            split → paths, for several datasets in one split.
        images: the images' folder, where it cannot be found beside the annotations; or split → one;
            or split → one for each of its paths.
        format: its name or alias; None recognises it by the content.
        progress: is told what was recognised.
        **options: what the format's reader takes: see ``kpdata formats``.

    Raises:
        FormatError: nothing is there, it is of no known format or of several, or not what its
            format says; an option that the format does not take.
    """
    given = annotations if isinstance(annotations, Mapping) else {"": annotations}
    if not given:
        raise FormatError("annotations is empty: give a file or folder")
    if isinstance(annotations, Mapping):
        for split in annotations:
            if not (isinstance(split, str) and SPLIT_NAME.fullmatch(split)):
                raise FormatError(
                    f"annotations has {split!r} for a split's name: expected lower-case letters, "
                    "digits and _, as in {'train': …, 'val': …}"
                )
    folders = images if isinstance(images, Mapping) else {"": images} if images is not None else {}
    labels = Labels(
        *_by_source(given, folders),
        find(format) if format else None,
        {name: value for name, value in options.items() if value is not None},
    )
    for line in labels.recognitions:
        progress.tell(line)
    return labels


def _by_source(
    annotations: Mapping[str, AnyPath | Sequence[AnyPath]],
    images: Mapping[str, AnyPath | Sequence[AnyPath]],
) -> tuple[dict[str, Location], dict[str, Location]]:
    """The annotations and images of each source; the second one of split train is ``train+2``."""
    locations: dict[str, Location] = {}
    folders: dict[str, Location] = {}
    for split, given in images.items():
        if split and split not in annotations:
            raise FormatError(f"`images` {split}=…: no annotations are called {split}=…")
        count, files = len(_listed(given)), len(_listed(annotations.get(split, "")))
        if count not in (1, files):
            raise FormatError(
                f"`images` names {count} folders for {f'split {split}' if split else 'all'}: name "
                "one, or one for each annotation file of the split"
            )
    for split, given in annotations.items():
        paths: Sequence[Any] = _listed(given) if split else [given]
        own = _listed(images[split]) if split in images else []
        for number, path in enumerate(paths, start=1):
            name = split if number == 1 else f"{split}+{number}"
            locations[name] = as_location(path)
            if own:
                folders[name] = as_location(own[number - 1 if len(own) > 1 else 0])
    if "" in images and "" not in annotations:
        folders[""] = as_location(_listed(images[""])[0])
    return locations, folders


def _listed(given: AnyPath | Sequence[AnyPath]) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else [given]


class Labels(Sequence[Picture]):
    """The annotations of a dataset: a sequence of pictures, read when they are asked for.

    The first look at a picture, or at their number, reads all annotations once and keeps them in a
    temporary file; images stay where they are.

    >>> import kpdata as kp
    >>> labels = kp.read(annotations)
    >>> len(labels), len(labels[-2:]), labels[0]
    (40, 2, 000001.jpg: 2 instances of coco17)
    >>> labels[0].instances[0].keypoints.shape
    (17, 3)

    Attributes:
        format: of the annotations.
        recognised: what showed the format; empty where it was named.
        recognitions: a line of text for each file whose format was recognised.
        skeleton: what the K keypoints of every instance are.
        options: what else the reader was told.
        split_names: of annotations given as a file for each split.
    """

    def __init__(
        self,
        locations: Mapping[str, Location],
        images: Mapping[str, Location],
        format: Format | None,  # noqa: A002 - the term
        options: Mapping[str, Any],
    ):
        self._images, self.options = images, dict(options)
        self.recognised = ""
        self.recognitions: list[str] = []
        self._locations = dict(locations)
        if "skeleton" in self.options:  # readers, one for each split, get it read
            self.options["skeleton"] = get_skeleton(self.options["skeleton"])
        self.format = format or self._recognise()
        self.split_names = tuple(dict.fromkeys(n.partition("+")[0] for n in locations if n))
        with ExitStack() as stack:
            first = self._open(stack)
            self._first: tuple[Source, ExitStack] | None = (first, stack.pop_all())
        self.skeleton: Skeleton = first.skeleton
        self.has_boxes = first.has_boxes
        self._images_root = first.images_root
        self._rows: _Rows | None = None

    def _recognise(self) -> Format:
        found = {}
        for split, location in self._locations.items():
            if isinstance(location, Url):
                raise FormatError(
                    f"{location}: name its format, such as coco: it is not looked at on a store"
                )
            one = found[split] = recognise(location)
            self._locations[split] = one.path
            self.recognitions.append(str(one))
        self.recognised = "; ".join(dict.fromkeys(one.evidence for one in found.values()))
        names = {one.format.name: one.format for one in found.values()}
        if len(names) > 1:
            raise FormatError(f"annotations of several formats: {'; '.join(self.recognitions)}")
        return next(iter(names.values()))

    def _open(self, stack: ExitStack) -> Source:
        """A source to stream once; ``stack`` holds what it needs meanwhile."""
        takes_images = IMAGES in self.format.options
        sources = {}
        for split, location in self._locations.items():
            images = self._images.get(split, self._images.get(""))
            if isinstance(location, Url) and images is None and takes_images:
                raise FormatError(f"{location}: give `images` too, the folder or URL of the images")
            path = stack.enter_context(local_copy(location, self.format.copied))
            sources[split] = read_source(self.format.name, path, images=images, **self.options)
        return sources[""] if list(sources) == [""] else merge(sources)

    @contextmanager
    def source(self) -> Iterator[Source]:
        """The annotations as a stream of samples, from the beginning; images are not opened.

        Annotations on a store are copied here for as long as the block lasts.
        """
        source, stack = self._first or (None, ExitStack())
        self._first = None
        with stack:
            yield source or self._open(stack)

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where the annotations and their images lie, as far as they were named."""
        return (*self._locations.values(), *self._images.values())

    @property
    def image_locations(self) -> tuple[Location, ...]:
        """Where the images lie, as far as that was said."""
        return tuple(self._images.values())

    @property
    def counts(self) -> Counter[str]:
        """What the reader zeroed, repaired or left out, by name."""
        return self._read().counts

    @property
    def rejected(self) -> list[Rejected]:
        """Samples that cannot be used, each with its reason."""
        return self._read().rejected

    def samples(self) -> Iterator[Sample]:
        """All samples, in the order of the annotations."""
        rows = self._read()
        return (rows.sample(index) for index in range(len(rows)))

    def __getstate__(self) -> dict[str, Any]:
        """All but what is open: another process reads the annotations for itself."""
        return self.__dict__ | {"format": self.format.name, "_first": None, "_rows": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"format": find(state["format"])})

    def _read(self) -> "_Rows":
        if self._rows is None:
            with self.source() as source:
                self._rows = _Rows(source)
        return self._rows

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rows = self._read()
        sample = rows.sample(range(len(rows))[index])
        root = None if self._images_root is None else str(self._images_root)
        return Picture(sample, self.skeleton, partial(_pixels_of, sample.image, root))

    def __repr__(self) -> str:
        return (
            f"{self.format.name}: {self.skeleton.name}, {len(self.skeleton)} keypoints, "
            f"{len(self):,} images"
        )

    def _repr_html_(self) -> str:
        counted = [("images", len(self)), ("rejected", len(self.rejected)), *self.counts.items()]
        some = [picture for picture in self[: 5 * _SHOWN] if picture.instances][:_SHOWN]
        return (
            f"<p>{escape(repr(self))}</p>{thumbnails(some)}{html_table(('what', 'count'), counted)}"
        )


def _pixels_of(image: ImageRef, images_root: str | None) -> Pixels:
    """(H, W, 3) upright RGB of an annotated image, which may not lie outside its folder."""
    from kpdata.images import codec, headers
    from kpdata.shards.fetch import fetch, locate

    data = fetch(locate(image, images_root))
    return codec.decode_upright(data, headers.probe(data))


class _Rows:
    """All samples of a source in a temporary file, each found by its index."""

    def __init__(self, source: Source):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._ends = array("Q", [0])
        self.rejected: list[Rejected] = []
        for sample in source.samples:
            if isinstance(sample, Rejected):
                self.rejected.append(sample)
                continue
            image = replace(sample.image, data=None)  # those of shards are read again from there
            self._ends.append(self._ends[-1] + self._file.write(pack(replace(sample, image=image))))
        self._file.flush()
        self.counts = +source.counts

    def __len__(self) -> int:
        return len(self._ends) - 1

    def sample(self, index: int) -> Sample:
        start, end = self._ends[index], self._ends[index + 1]
        return unpack_sample(os.pread(self._file.fileno(), end - start, start))
