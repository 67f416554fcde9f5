"""The certificate: an audit's result, with what was compared, how, and every leak found."""

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
    """An original picture: where its record is, and some of its fields.

    Attributes:
        dataset, split, shard, offset: the folder, and the position of the record in it.
        key, file, group: the source image's key, file name and split group.
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
    """Two pictures in different splits that should be in one.

    Attributes:
        kind: one of KINDS.
        distance: number of bits by which their perceptual hashes differ.
        first, second: ordered by split: train, val, test, others.
    """

    kind: str
    distance: int
    first: Picture
    second: Picture


class Checked(msgspec.Struct, frozen=True):
    """A dataset that was audited.

    Attributes:
        folder, root_hash: identify the dataset.
        pictures: split → number of original pictures that were compared.
        names: names of images and groups mean the same in datasets with the same value here.
    """

    folder: str
    root_hash: str
    pictures: dict[str, int]
    names: str


class Certificate(msgspec.Struct, frozen=True):
    """The result of an audit.

    Attributes:
        kpdata: version of kpdata.
        method: name of the perceptual hash, and versions of the packages that compute it.
        distance: the most bits between near duplicates.
        datasets: in the order given.
        counts: kind → number of leaks; a pair counts under the first kind that it matches.
        complete: whether ``leaks`` holds all leaks; False if there are over MAX_LEAKS of one kind.
        leaks: sorted by kind.
    """

    kpdata: str
    method: dict[str, str]
    distance: int
    datasets: tuple[Checked, ...]
    counts: dict[str, int]
    complete: bool
    leaks: tuple[Leak, ...]


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write the certificate as JSON, atomically."""
    text = msgspec.json.format(msgspec.json.encode(certificate), indent=1)
    write_atomically(path, text + b"\n")


def leak_sheet(certificate: Certificate, of_each: int = 24) -> Pixels:
    """(H, W, 3) contact sheet of the first leaks of each kind, with two pairs in a row.

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
