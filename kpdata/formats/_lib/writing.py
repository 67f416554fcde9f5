"""What the writers of annotation formats share: a folder with images, whole or not at all."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from kpdata.core.errors import FormatError, ImageError, JobError
from kpdata.core.sample import WHOLE_IMAGE, ImageRef, Rejected, Sample
from kpdata.images.headers import Header, probe
from kpdata.shards.manifest import QUARANTINE
from kpdata.shards.quarantine import as_line, check_quarantine
from kpdata.storage.atomic import as_write_error, whole_folder
from kpdata.storage.image_files import read_file, safe_path
from kpdata.storage.names import safe_name

DRAWN = "boxes drawn around the keypoints"
RENAMED = "image names given the suffix of their format"

SAFE = "image names changed to ones that any disk takes"

_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


class FolderWriter(Protocol):
    """One folder in the making; its memory does not grow with the samples.

    Attributes:
        counts: what was written, ``images`` among it, and what the format could not hold.
    """

    counts: Counter[str]

    def add(self, sample: Sample, data: bytes, header: Header) -> None:
        """Write a sample whose image's bytes are ``data``.

        Raises:
            ImageError: the image cannot be used; nothing is written.
        """

    def finish(self) -> None:
        """Write what could not be written before all samples were seen."""


def write_folder(
    samples: Iterable[Sample | Rejected],
    out: Path,
    images_root: Path | None,
    max_quarantine: float,
    begin: Callable[[Path, ExitStack], FolderWriter],
) -> Counter[str]:
    """Fill ``out`` with what a writer makes of ``samples``.

    Refused samples, and those whose image cannot be used, are listed in ``out/quarantine.jsonl``.

    Args:
        samples: what to write, streamed once; each carries its bytes, or a name to copy.
        out: a folder that does not exist or is empty.
        images_root: the folder that image names may not leave.
        max_quarantine: the percentage of samples that may be refused.
        begin: makes the writer, given its folder and what closes its files at the end.

    Returns:
        What was counted, refused samples by reason included.

    Raises:
        DatasetError: ``out`` is in use, or cannot be written.
        FormatError: an image name that leads out of the folder.
        JobError: more than ``max_quarantine`` of the samples were refused, or a disk failed
            while an image was read.
    """
    refused: list[Rejected] = []
    out = Path(out)
    with whole_folder(out) as folder, ExitStack() as stack:
        with as_write_error(out):
            writer = begin(folder, stack)
        for sample in samples:
            if isinstance(sample, Rejected):
                refused.append(sample)
                continue
            try:
                data = _bytes_of(sample.image, images_root)
                header = probe(data)
                with as_write_error(out):
                    writer.add(sample, data, header)
            except ImageError as error:
                refused.append(Rejected(sample.key, error.reason, _located(sample.image, error)))
        reasons = Counter(item.reason for item in refused)
        total = writer.counts["images"] + len(refused)
        check_quarantine(reasons, total, max_quarantine, (item.detail for item in refused))
        with as_write_error(out):
            writer.finish()
            if refused:
                (folder / QUARANTINE).write_bytes(b"".join(map(as_line, refused)))
    return writer.counts + Counter({f"quarantined: {why}": n for why, n in reasons.items()})


def _located(image: ImageRef, error: ImageError) -> str:
    return str(error) if image.name in str(error) else f"{image.uri or image.name}: {error}"


def _bytes_of(image: ImageRef, images_root: Path | None) -> bytes:
    if image.data is not None:
        return image.data
    safe = safe_path(str(images_root), image.name) if images_root else image.uri
    try:
        return read_file(safe)
    except OSError as error:
        raise JobError(
            f"{safe}: cannot be read: {error.strerror}. Put this right and start again."
        ) from error


class ImageFolder:
    """Images under names of their own, which say what the bytes are.

    Attributes:
        renamed: how many names were given another suffix.
    """

    def __init__(
        self,
        folder: Path,
        suffixes: Mapping[str, tuple[str, ...]],
        beside: Callable[[str], str] | None = None,
    ) -> None:
        """Names are relative to ``folder``.

        Args:
            folder: where the images go.
            suffixes: what names of each format may end in, the usual one first; other formats'
                names stay as they are.
            beside: the name of a file that goes with the image's, and must be free too.
        """
        self._folder, self._suffixes, self._beside = folder, suffixes, beside
        self.renamed = 0

    def write(self, sample: Sample, name: str, data: bytes, format_: str) -> str:
        """Write an image, and return its name: ``name`` with its format's suffix.

        Where that is taken, the number of the instance that a crop shows follows, or one that is
        free.
        """
        wanted = PurePosixPath(name)
        suffixes = self._suffixes.get(format_, ())
        if suffixes and wanted.suffix.lower() not in suffixes:
            self.renamed += 1
            wanted = wanted.with_suffix(suffixes[0])
        with possible_name(name):
            (self._folder / wanted).parent.mkdir(parents=True, exist_ok=True)
            free = str(self._free(wanted, sample))
            (self._folder / free).write_bytes(data)
        return free

    def _free(self, wanted: PurePosixPath, sample: Sample) -> PurePosixPath:
        if not self._is_taken(wanted):
            return wanted
        if is_crop(sample):
            assert sample.view is not None
            wanted = wanted.with_stem(f"{wanted.stem}-{sample.view.instance}")
        free, number = wanted, 0
        while self._is_taken(free):
            number += 1
            free = wanted.with_stem(f"{wanted.stem}-{number}")
        return free

    def _is_taken(self, name: PurePosixPath) -> bool:
        names = [str(name), self._beside(str(name))] if self._beside else [str(name)]
        return any(os.path.lexists(self._folder / one) for one in names)


@contextmanager
def possible_name(name: str) -> Iterator[None]:
    """Raise ImageError where the disk refuses a file for its name, and not for want of space."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_NAMES:
            raise
        raise ImageError("image name", f"{name}: {error.strerror}: rename the image") from error


def is_crop(sample: Sample) -> bool:
    """Whether the picture shows one instance of its source image."""
    return sample.view is not None and sample.view.instance != WHOLE_IMAGE


def relative_name(sample: Sample) -> str:
    """The image's name as a relative POSIX path that any disk and any reader takes.

    Raises:
        FormatError: it leads out of any folder.
    """
    name = sample.image.name.replace("\\", "/")
    if leads_out(name):
        raise FormatError(
            f"sample {sample.key}: the image name {name!r} leads out of the folder: "
            "expected a relative path"
        )
    return safe_name(name)


def leads_out(name: str) -> bool:
    """Whether ``name`` is absolute, goes up, or is no path at all.

    >>> leads_out("a/b.png"), leads_out("/b.png"), leads_out("a/../../b.png")
    (False, True, True)
    """
    return name.startswith("/") or "\0" in name or ".." in name.split("/")
