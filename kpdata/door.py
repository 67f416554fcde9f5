"""The functions of ``import kpdata as kp``; the command line calls the same ones."""

from collections import Counter
from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kpdata.core.crop import CropFrom
from kpdata.core.defaults import JPEG_QUALITY, MAX_PIXELS, MAX_QUARANTINE, SHARD_SIZE
from kpdata.core.errors import FormatError
from kpdata.core.mapping import Mapping, map_by_name, map_sample
from kpdata.core.progress import Progress
from kpdata.core.sample import Rejected, Sample
from kpdata.core.sizes import parse_size
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import DEFAULT_SPLIT, OFFICIAL
from kpdata.dataset import Dataset, Split, open_dataset
from kpdata.formats import FORMATS, Source, find
from kpdata.formats.base import IMAGES
from kpdata.formats.settings import get_skeleton, load_config
from kpdata.labels import Labels
from kpdata.labels import read as read_labels
from kpdata.shards.manifest import MANIFEST
from kpdata.storage.stores import Location, Url, as_location, is_inside
from kpdata.view.console import Shown, shown

if TYPE_CHECKING:
    from kpdata.core.augment import AugmentConfig
    from kpdata.pipelines.conversion import Outcome
    from kpdata.pipelines.request import Request
    from kpdata.train.api import PredictionList, Run
    from kpdata.train.evaluate.compare import Comparison
    from kpdata.train.evaluate.evaluate import Evaluation
    from kpdata.train.export.export import Card

AnyPath = str | Path
Annotations = Labels | Dataset | AnyPath | AnyMapping[str, AnyPath | Sequence[AnyPath]]


def read(
    annotations: AnyPath | AnyMapping[str, AnyPath],
    images: AnyPath | AnyMapping[str, AnyPath] | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the term
    progress: Shown = None,
    **options: Any,
) -> Labels:
    """Read annotations of any format that kpdata knows; see :func:`kpdata.labels.read`.

    >>> import kpdata as kp
    >>> kp.read(annotations)
    coco: coco17, 17 keypoints, 40 images
    """
    with shown(progress) as meter:
        return read_labels(annotations, images, format=format, progress=meter, **options)


def open(path: AnyPath) -> Dataset:  # noqa: A001 - reads as kp.open("shards/")
    """Open a shard folder, local or on a store; see :class:`kpdata.dataset.Dataset`.

    >>> import kpdata as kp
    >>> kp.open(shards).splits
    ('train', 'val', 'test')
    """
    return open_dataset(path)


def convert(
    annotations: Annotations,
    out: AnyPath,
    *,
    to_skeleton: str | Skeleton | None = None,
    split: str | AnyMapping[str, float] | None = None,
    val_from_train: float = 0.0,
    group: str | None = None,
    group_near_duplicates: int | None = None,
    seed: int = 0,
    crop: int | None = None,
    crop_from: CropFrom | None = None,
    margin: float | None = None,
    augment: int = 0,
    augment_config: "AnyPath | AugmentConfig | None" = None,
    exif: Literal["applied", "ignored"] = "applied",
    validate_images: Literal["header", "decode"] = "header",
    max_pixels: int = MAX_PIXELS,
    jpeg_quality: int = JPEG_QUALITY,
    max_quarantine: float = MAX_QUARANTINE,
    shards: int | None = None,
    shard_size: int | str = SHARD_SIZE,
    workers: int | None = None,
    runner: str | None = None,
    beam_options: Sequence[str] = (),
    progress: Shown = None,
) -> Dataset:
    """Convert annotations into leak-free shards, as ``kpdata convert`` does.

    >>> import kpdata as kp
    >>> ds = kp.convert(annotations, out / "crops", crop=64, augment=2, progress=False)
    >>> ds.manifest.splits["train"].copies
    110

    If it is stopped, the same call goes on from there. The shards are the same, byte for byte, for
    any number of workers. (docs/wire.md says on which machines.)

    Args:
        annotations: what :func:`read` or :func:`open` returns, or a path that :func:`read` takes.
        out: the folder to write, local or on a store.
        to_skeleton: map the keypoints to another skeleton, by name.
        split: ``80/10/10``, ``train=90,test=10``, the same as a mapping, or ``official``. None
            keeps the splits of a source that has them, and is ``80/10/10`` for others.
        val_from_train: with ``official``, the percentage of train to use as val.
        group: regular expression; images stay in one split if its first (…) matches the same text
            in their names.
        group_near_duplicates: images stay in one split if their pixels are the same, or their
            perceptual hashes differ in at most this many of 256 bits.
        seed: of the split and of every copy.
        crop: side in pixels of a square crop per instance; None keeps whole images.
        crop_from: what to crop around; None is ``bbox``.
        margin: side of the crop, in units of the box's longer side; None takes 1.25, and 1 around
            the whole image.
        augment: number of augmented copies of each train sample.
        augment_config: the ranges that copies are sampled from, or a TOML file with them.
        exif: whether the annotator saw images with their EXIF orientation applied.
        validate_images: how to check images that are stored as they are: by ``header`` and end
            marker, or ``decode`` them.
        max_pixels: larger images are refused.
        jpeg_quality: of crops, and of images that must be encoded anew.
        max_quarantine: percentage of samples that may be refused before the conversion fails.
        shards: number of shards in all, at least one for each split; None follows ``shard_size``.
        shard_size: bytes of a shard, roughly: a number, or text such as ``128M``.
        workers: worker processes; None starts one for each usable core.
        runner: name of a Beam runner; None writes on this machine.
        beam_options: options for the runner, such as ``["--flink_master=host:8081"]``.
        progress: whether to show progress; None shows it on a terminal and in notebooks.

    Raises:
        KpdataError: the annotations, an option or the folder cannot be used, or the work stopped.
    """
    options = {name: value for name, value in locals().items() if name in CONVERSION_OPTIONS}
    changed = {name for name, value in options.items() if value != CONVERSION_DEFAULTS[name]}
    refuse_idle(changed, options)
    options |= {"split": _split_text(split), "shard_size": _bytes_of(shard_size)}
    if group is not None and not isinstance(group, str):
        raise FormatError(f"group is {group!r}: expected a regular expression as text")
    with shown(progress) as meter:
        labels = _labels(annotations, meter)
        run_conversion(labels, as_location(out), options, meter)
    return open_dataset(out)


def refuse_idle(given: AnyCollection[str], options: AnyMapping[str, Any]) -> None:
    """Refuse options that change nothing, because another option is missing or overrides them.

    Args:
        given: names of the options that the user gave.
        options: the values of all options, by name.

    Raises:
        FormatError: the message names both options.
    """
    for name, partner in (
        ("crop_from", "crop"),
        ("margin", "crop"),
        ("augment_config", "augment"),
    ):
        if name in given and not options[partner]:
            raise FormatError(f"`{name}` changes nothing without `{partner}`")
    if {"shards", "shard_size"} <= set(given):
        raise FormatError("`shards` and `shard_size` exclude each other: give one of them")


CONVERSION_DEFAULTS = {
    name: value for name, value in (convert.__kwdefaults__ or {}).items() if name != "progress"
}
CONVERSION_OPTIONS = frozenset(CONVERSION_DEFAULTS)
"""The names of a conversion's options, the same in Python and on the command line."""


def run_conversion(
    labels: Labels, out: Location, options: AnyMapping[str, Any], progress: Progress
) -> "Outcome":
    """Convert, for :func:`convert` and ``kpdata convert``; takes the options of the former."""
    progress.begin("starting")
    from kpdata.pipelines import convert as write_shards

    with labels.source() as source:
        _refuse_inside(source, out)
        request = request_for(labels, source, options)
        _refuse_far_shards(labels, request)
        return write_shards(source, request, out, progress)


def write(
    data: Annotations,
    out: AnyPath,
    *,
    format: str,  # noqa: A002 - the term
    to_skeleton: str | Skeleton | None = None,
    max_quarantine: float = MAX_QUARANTINE,
    progress: Shown = None,
) -> Counter[str]:
    """Write annotations with their images in another tool's format.

    >>> import kpdata as kp
    >>> kp.write(kp.open(shards), out / "yolo", format="yolo", progress=False)["images"]
    60

    Args:
        data: what :func:`read` or :func:`open` returns, or a path that :func:`read` takes.
        out: a new or empty local folder. It appears only once it is complete.
        format: a format that can be written; ``kpdata formats`` lists them.
        to_skeleton: map the keypoints to another skeleton, by name.
        max_quarantine: percentage of samples that may be refused.
        progress: whether to show progress; None shows it on a terminal and in notebooks.

    Returns:
        Name → count: the images written, and everything that the format cannot hold.

    Raises:
        KpdataError: a format without a writer, or data or a folder that cannot be used.
    """
    with shown(progress) as meter:
        return run_writing(
            _labels(data, meter), as_location(out), format, to_skeleton, max_quarantine, meter
        )


def run_writing(
    labels: Labels,
    out: Location,
    format: str,  # noqa: A002 - the term
    to_skeleton: str | Skeleton | None,
    max_quarantine: float,
    progress: Progress,
) -> Counter[str]:
    """Write annotations, for :func:`write` and ``kpdata convert --to``."""
    target = find(format)
    if target.write is None:
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.write)
        raise FormatError(f"format is {format!r}, which is not written as annotations: {able} are")
    for location in (out, *labels.image_locations):
        if isinstance(location, Url):
            raise FormatError(f"{location}: {format} is written from folder to folder, on disks")
    with labels.source() as source:
        _refuse_inside(source, out)
        skeleton, mapping = _target_skeleton(source.skeleton, to_skeleton)

        def mapped() -> Iterator[Sample | Rejected]:
            for sample in source.samples:
                progress.advance()
                yield (
                    map_sample(sample, mapping)
                    if mapping and isinstance(sample, Sample)
                    else sample
                )

        progress.begin("writing")
        written = target.write(mapped(), skeleton, Path(out), source.images_root, max_quarantine)
        return source.counts + written


def check(data: Dataset | AnyPath, *, progress: Shown = None) -> list[str]:
    """Check every byte of a dataset, and that no sample leaks from one split into another.

    >>> import kpdata as kp
    >>> kp.check(shards, progress=False)
    []

    Returns:
        A message for each fault; an empty list for a sound dataset.

    Raises:
        DatasetError: there is no readable manifest.
    """
    from kpdata.checks.verify import verify

    where = data.location if isinstance(data, Dataset) else as_location(data)
    with shown(progress) as meter:
        meter.begin("verifying", unit="shards")
        return verify(where, meter)[1]


def evaluate(
    run: "Run | AnyPath", dataset: Dataset | AnyPath, *, progress: Shown = None, **options: Any
) -> "Evaluation":
    """Score a trained run on a split; takes the options of ``kpdata evaluate``.

    See :meth:`kpdata.train.api.Run.evaluate`.
    """
    from kpdata.train import api

    return api.Run.open(run).evaluate(dataset, progress=progress, **options)


def predict(
    run: "Run | AnyPath", sources: Any, *, progress: Shown = None, **options: Any
) -> "PredictionList":
    """Find keypoints in photos, folders and videos; takes the options of ``kpdata predict``.

    See :meth:`kpdata.train.api.Run.predict`.
    """
    from kpdata.train import api

    return api.Run.open(run).predict(sources, progress=progress, **options)


def export(run: "Run | AnyPath", out: AnyPath, *, progress: Shown = None, **options: Any) -> "Card":
    """Write a trained run for other programs; takes the options of ``kpdata export``.

    See :meth:`kpdata.train.api.Run.export`.
    """
    from kpdata.train import api

    return api.Run.open(run).export(Path(out), progress=progress, **options)


def compare(run_a: "Run | AnyPath", run_b: "Run | AnyPath", **options: Any) -> "Comparison":
    """Compare two evaluated runs, keypoint by keypoint; see :func:`kpdata.train.api.compare`."""
    from kpdata.train import api

    return api.compare(run_a, run_b, **options)


def request_for(labels: Labels, source: Source, options: AnyMapping[str, Any]) -> "Request":
    """Make a conversion's Request from the options of :func:`convert`."""
    from kpdata.core.augment import AugmentConfig
    from kpdata.pipelines.request import Request

    given = {name: value for name, value in options.items() if value is not None}
    skeleton, mapping = _target_skeleton(source.skeleton, given.pop("to_skeleton", None))
    is_split = labels.format.has_splits or labels.split_names
    given.setdefault("split", OFFICIAL if is_split else DEFAULT_SPLIT)
    config = given.pop("augment_config", AugmentConfig())
    return Request.of(
        source,
        format=labels.format.name,
        reader_options={k: v for k, v in labels.options.items() if isinstance(v, str)},
        skeleton=skeleton,
        mapping=mapping,
        augment_config=config if isinstance(config, AugmentConfig) else load_config(config),
        **given | {"beam_options": tuple(given["beam_options"])},
    )


def _split_text(split: Any) -> str | None:
    """The split as text, as the command line takes it."""
    if isinstance(split, AnyMapping):
        return ",".join(f"{name}={percent}" for name, percent in split.items())
    if split is None or isinstance(split, str):
        return split
    raise FormatError(f"split is {split!r}: expected text such as 80/10/10, or a mapping")


def _bytes_of(shard_size: int | str) -> int:
    try:
        return parse_size(shard_size)
    except ValueError as error:
        raise FormatError(f"shard_size is {shard_size!r}: {error}") from None


def _target_skeleton(
    source: Skeleton, to_skeleton: str | Skeleton | None
) -> tuple[Skeleton, Mapping | None]:
    """The skeleton that samples get, and the mapping to it; None where it is the source's own.

    Raises:
        FormatError: the two share no keypoint.
    """
    if not to_skeleton:
        return source, None
    target = get_skeleton(to_skeleton)
    mapping = map_by_name(source, target)
    if all(keypoint.how == "missing" for keypoint in mapping.keypoints):
        raise FormatError(
            f"to_skeleton is {target.name}, which shares no keypoint name with {source.name}: "
            "nothing would be left"
        )
    return target, mapping


def _labels(annotations: Annotations, progress: Progress) -> Labels:
    if isinstance(annotations, Split):
        raise FormatError("annotations are one split: give the dataset, as kpdata.open returns it")
    if isinstance(annotations, Dataset):
        return read_labels(annotations.location, format="shards")
    if isinstance(annotations, Labels):
        return annotations
    return read_labels(annotations, progress=progress)


def _refuse_far_shards(labels: Labels, request: "Request") -> None:
    """Refuse shards on a store as a runner's source: they are copied to this machine only."""
    if not request.runner or IMAGES in labels.format.options:
        return
    for location in labels.locations:
        if isinstance(location, Url):
            raise FormatError(
                f"{location}: shards on a store are copied to this machine first, where the "
                "workers of `runner` cannot read them: copy them to a folder that all workers share"
            )


def _refuse_inside(source: Source, out: Location) -> None:
    """Refuse an output inside a source folder: the next run would read the output as a source."""
    shards = (path.parent for path in source.annotation_files if path.name == MANIFEST)
    for folder in (*source.folders, *shards):
        if is_inside(out, folder):
            raise FormatError(
                f"out is {out}, which lies in {folder}. All of that folder is read, so that the "
                "next run would read the output as part of the source: choose another `out`"
            )
