"""The certificate of an audit: what was checked and how, and every leak that was found."""

from itertools import islice
from pathlib import Path

import msgspec

from kpdata.core.sample import Pixels, Sample
from kpdata.images import codec
from kpdata.shards.dataset import Dataset, read_record
from kpdata.storage.atomic import write_atomically
from kpdata.view.sheet import contact_sheet

IDENTICAL, SOURCE, GROUP, NEAR = KINDS = (
    "identical picture",
    "same source image",
    "same group",
    "near duplicate",
)

_TILE = 256


class Picture(msgspec.Struct, frozen=True):
    """Where an original picture is, and what its record says of it.

    Attributes:
        dataset, split, shard, offset: the folder, and the place of the record in it.
        key, file, group: the source image's key and file name, and what decided its split.
        instance: index of the instance that a crop shows; −1 for a whole image.
        sha256: of the picture's encoded bytes, hex.
    """

    dataset: str
    split: str
    shard: str
    offset: int
    key: str
    file: str
    group: str
    instance: int
    sha256: str


class Leak(msgspec.Struct, frozen=True):
    """Two pictures that must not lie in two splits.

    Attributes:
        kind: one of KINDS.
        distance: bits in which their perceptual hashes differ.
        first, second: in order of train, val, test and other splits.
    """

    kind: str
    distance: int
    first: Picture
    second: Picture


class Checked(msgspec.Struct, frozen=True):
    """A dataset that was audited.

    Attributes:
        folder, root_hash: which.
        pictures: split → original pictures compared.
        names: datasets with the same value here share their source images' names and groups.
    """

    folder: str
    root_hash: str
    pictures: dict[str, int]
    names: str


class Certificate(msgspec.Struct, frozen=True):
    """What was audited, how, and what was found.

    Attributes:
        kpdata: the version that audited.
        method: the perceptual hash, and versions of what computes it.
        distance: two pictures this many bits apart, or fewer, are near duplicates.
        datasets: in the order given.
        counts: leaks of each kind; a pair counts under the first kind that it is.
        complete: whether ``leaks`` holds all there are; False beyond MAX_LEAKS of one kind.
        leaks: kind by kind.
    """

    kpdata: str
    method: dict[str, str]
    distance: int
    datasets: tuple[Checked, ...]
    counts: dict[str, int]
    complete: bool
    leaks: tuple[Leak, ...]


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write the certificate as JSON that appears whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(certificate), indent=1)
    write_atomically(path, text + b"\n")


def leak_sheet(certificate: Certificate, of_each: int = 24) -> Pixels:
    """Pictures of the first leaks of each kind, side by side, two pairs in a row: (H, W, 3).

    Raises:
        KpdataError: a shard changed since the audit.
    """
    datasets = {checked.folder: Dataset.open(checked.folder) for checked in certificate.datasets}
    tiles = []
    for kind in KINDS:
        for leak in islice((leak for leak in certificate.leaks if leak.kind == kind), of_each):
            for picture in (leak.first, leak.second):
                sample = _read(datasets[picture.dataset], picture)
                where = f"{picture.dataset} " if len(datasets) > 1 else ""
                caption = f"{where}{picture.split} {picture.file}: {leak.distance} bits"
                tiles.append((codec.decode_stored(sample.image), caption))
    return contact_sheet(tiles, columns=4, tile=_TILE)


def _read(dataset: Dataset, picture: Picture) -> Sample:
    shard = next(s for s in dataset[picture.split].shards if s.name == picture.shard)
    return read_record(dataset.record_uri(shard, picture.offset))
