"""kpdata against the tools that a user might take in its place."""

from collections.abc import Iterator
from pathlib import Path

from _shared.report import Ratio, Section

from . import environments, peers
from .contenders import (
    CROP,
    ONE,
    QUALITY,
    TENSORFLOW,
    alone,
    kpdata,
    kpdata_to_coco,
    tensorflow_loop,
)
from .dataset import one_person_each
from .environments import DATUMARO, IMG2DATASET, Peer
from .race import Contender, Laps, Sizes, race
from .report import race_section, ratio_of, ratios_of

SINK = "Beam's WriteToTFRecord"
TFDS, TFDS_BEAM = "TFDS, generator", "TFDS, Beam writer"
LOOP, TO_COCO = "TFRecordWriter loop", "kpdata, to COCO"
RESIZE = (
    "--crop", str(CROP), "--crop-from", "image", "--margin", "1", "--split", "train=100",
    "--jpeg-quality", str(QUALITY),
)  # fmt: skip


def measure_peers(sizes: Sizes, rounds: int, work: Path, folder: Path) -> Iterator[Section]:
    """Untouched images, then images resized, from a warm page cache.

    Args:
        sizes: the dataset, and a part of it.
        rounds: how often.
        work: on the disk to measure.
        folder: where peers' environments are, or are made.
    """
    yield _untouched(sizes, rounds, work, folder)
    yield _resized(Sizes(*map(one_person_each, sizes)), rounds, work, folder)


def _untouched(sizes: Sizes, rounds: int, work: Path, folder: Path) -> Section:
    exported, note = _own(DATUMARO, folder)
    contenders = {
        TENSORFLOW: alone(tensorflow_loop),
        ONE: kpdata(1),
        SINK: alone(peers.beam_untouched),
        TFDS: alone(peers.tfds_generator),
        TFDS_BEAM: alone(peers.tfds_beam),
        TO_COCO: kpdata_to_coco,
        **exported,
    }
    laps = race(contenders, sizes, rounds, work)
    targets = {TENSORFLOW: 1.0, SINK: 3.0, TFDS: 1.0, TFDS_BEAM: 1.0}
    ratios = [*_ratios(laps, ONE, targets), *_ratios(laps, TO_COCO, dict.fromkeys(exported, 1.0))]
    text = (
        f"{laps[ONE].items:,} JPEGs, their bytes kept, in one process each. TFDS writes every "
        "record twice, to shuffle them; its Beam writer and Beam's own sink run on Beam's FnApi"
        "Runner inside their process. Datumaro writes no records, but a COCO file and copies of "
        "the images, as does `kpdata convert --to coco`, of which only the command's time is "
        f"known: compare the marginal ones. {note}"
    )
    return race_section("Peers, untouched images", text, laps, ratios)


def _resized(sizes: Sizes, rounds: int, work: Path, folder: Path) -> Section:
    fetched, note = _own(IMG2DATASET, folder, "1")
    contenders = {
        LOOP: alone(peers.resize_loop),
        ONE: kpdata(1, *RESIZE),
        SINK: alone(peers.beam_resized),
        **fetched,
    }
    laps = race(contenders, sizes, rounds, work)
    targets = {LOOP: 1.0, SINK: 3.0} | dict.fromkeys(fetched, 2.0)
    text = (
        f"{laps[ONE].items:,} images with one labelled person each, as squares of {CROP} × {CROP}, "
        f"JPEG quality {QUALITY}, into TFRecord. The loop, Beam and img2dataset shrink to the mean "
        "of the pixels and fill up with borders; kpdata decodes at a half or less where that "
        "suffices, and warps. img2dataset, which downloads images, is given file URLs, and writes "
        "no labels; it fetches in threads, as kpdata decodes in one: **per core** compare the CPU "
        f"seconds. {note}"
    )
    return race_section("Peers, resize and write", text, laps, list(_ratios(laps, ONE, targets)))


def _own(peer: Peer, folder: Path, *options: str) -> tuple[dict[str, Contender], str]:
    """The peer in an environment of its own, and what the report says of that."""
    python = environments.environment(peer, folder)
    if isinstance(python, str):
        return {}, f"{peer.name} cannot be installed: {python}"
    name = f"{peer.name} {environments.version(python, peer)}"
    return {
        name: environments.scripted(python, peer, *options)
    }, f"{name} runs in an environment of its own."


def _ratios(laps: dict[str, Laps], ours: str, targets: dict[str, float]) -> Iterator[Ratio]:
    for name, target in targets.items():
        yield from ratios_of(laps, ours, name, target)
        what = f"{ours} / {name}, per CPU second"
        yield ratio_of(laps, (ours, "cpu"), (name, "cpu"), target, what)
