"""What a conversion is asked to do."""

import math
from typing import Any, Literal, Self, get_args

import msgspec

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropFrom, CropRule, usual_margin
from kpdata.core.defaults import JPEG_QUALITY, MAX_PIXELS, MAX_QUARANTINE, SHARD_SIZE
from kpdata.core.errors import JobError
from kpdata.core.mapping import Mapping
from kpdata.core.sample import Instance
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import DEFAULT_SPLIT, TRAIN, Splits, group_finder, parse_splits
from kpdata.formats.base import Source
from kpdata.images.perceptual import MAX_DISTANCE
from kpdata.storage.image_files import MAX_BYTES
from kpdata.storage.stores import is_url

Exif = Literal["applied", "ignored"]
ImageCheck = Literal["header", "decode"]

_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("crop", 8, 8192),
    ("margin", 0.1, 10),
    ("augment", 0, 1000),
    ("seed", 0, 2**63 - 1),
    ("max_pixels", 1, 2**31),
    ("jpeg_quality", 1, 100),
    ("group_near_duplicates", 0, MAX_DISTANCE),
    ("shards", 1, 99_999),
    ("shard_size", 1, math.inf),
    ("max_quarantine", 0, 100),
    ("workers", 1, 1024),
)
_FRACTIONS = frozenset({"margin", "val_from_train", "max_quarantine"})
_OPTIONAL = frozenset({"crop", "group_near_duplicates", "shards", "workers"})
_CHOICES = (("crop_from", CropFrom), ("exif", Exif), ("validate_images", ImageCheck))

_FOR_WORKERS = (
    "skeleton", "images_root", "crop", "crop_from", "margin", "augment", "augment_config", "seed",
    "exif", "validate_images", "max_pixels", "max_bytes", "jpeg_quality",
)  # fmt: skip


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A conversion's options, under the names that Python and the command line give them.

    >>> from kpdata.core.skeletons import COCO17
    >>> request = Request(format="coco", skeleton=COCO17, images_root="train2017/", crop=256)
    >>> request.renders
    True
    >>> Request(format="coco", skeleton=COCO17, crop=9000)
    Traceback (most recent call last):
    kpdata.core.errors.JobError: crop is 9000: expected 8 to 8192

    Attributes:
        skeleton: the records' skeleton.
        mapping: from the source's skeleton to it; None where they are the same.
        images_root: folder or URL of the images, which no image name may lead out of; None for
            shards, whose samples hold their images.
        format: the source's, a key of FORMATS.
        reader_options: option → text, for the manifest. Each format declares its own, such as
            COCO's ``category``, so that no names are fixed here.
        crop: side in pixels of a square record per instance; None keeps whole images.
        crop_from, margin: what the square is centred on, and its side in units of that box's
            longer side; None takes 1.25, and 1 around the whole image.
        augment: augmented copies of each train sample, sampled from ``augment_config``.
        seed: of the split and of every random number.
        exif: whether the annotator saw images with their EXIF orientation applied.
        validate_images: how to check images that are stored as they are: by ``header`` and end
            marker, or ``decode`` them.
        max_pixels, max_bytes: the largest image that is opened.
        jpeg_quality: of crops, and of images that must be encoded anew; a copy's own is random.
        split: percentages such as ``80/10/10`` or ``train=90,test=10``, or ``official``.
        val_from_train: percentage of the official train set that becomes val.
        group: regular expression; what its first (…) matches in an image's name is the image's
            group.
        group_near_duplicates: images are kept together if their perceptual hashes differ in at
            most this many bits; None compares none.
        shards: number of shards in all, at least one for each split; None follows ``shard_size``.
        shard_size: bytes of a shard, roughly.
        max_quarantine: percentage of samples that may be quarantined before the job fails.
        workers: processes on this machine; None takes one for each usable core.
        runner: the name of a Beam runner to write on instead, with ``beam_options`` for it.

    Raises:
        JobError: a value that is out of its range; the message begins with its name.
        FormatError: ``split`` or ``group`` cannot be understood.
    """

    skeleton: Skeleton
    mapping: Mapping | None = None
    images_root: str | None = None
    format: str = ""
    reader_options: dict[str, str] = {}
    crop: int | None = None
    crop_from: CropFrom = "bbox"
    margin: float | None = None
    augment: int = 0
    augment_config: AugmentConfig = AugmentConfig()
    seed: int = 0
    exif: Exif = "applied"
    validate_images: ImageCheck = "header"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    jpeg_quality: int = JPEG_QUALITY
    split: str = DEFAULT_SPLIT
    val_from_train: float = 0.0
    group: str | None = None
    group_near_duplicates: int | None = None
    shards: int | None = None
    shard_size: int = SHARD_SIZE
    max_quarantine: float = MAX_QUARANTINE
    workers: int | None = None
    runner: str | None = None
    beam_options: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, **options: Any) -> Self:
        """Make a request for ``source``; its skeleton and images folder are the defaults.

        Raises:
            JobError: crops around boxes are asked for, and the source has none; and as the class.
        """
        root = str(source.images_root) if source.images_root else None
        request = cls(**{"skeleton": source.skeleton, "images_root": root, **options})
        if request.crop and request.crop_from == "bbox" and not source.has_boxes:
            raise JobError(
                f"crop_from is 'bbox', and {request.format or 'the source'} has no boxes to crop "
                "around: choose `crop_from` image (the whole image, squared; no label leaks into "
                "the crop) or `crop_from` keypoints (around the labels; scores on such crops are "
                "'oracle crop' scores)"
            )
        return request

    def __post_init__(self) -> None:
        """Fill in the margin; raise JobError or FormatError, as the class says."""
        if self.margin is None:
            msgspec.structs.force_setattr(self, "margin", usual_margin(self.crop_from))
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            number = isinstance(value, int | float if name in _FRACTIONS else int)
            if not number or isinstance(value, bool) or not low <= value <= high:
                expected = f"{low:g} or more" if high == math.inf else f"{low} to {high}"
                raise JobError(f"{name} is {value!r}: expected {expected}")
        for name, choices in _CHOICES:
            if getattr(self, name) not in get_args(choices):
                raise JobError(
                    f"{name} is {getattr(self, name)!r}: expected {' or '.join(get_args(choices))}"
                )
        if self.beam_options and not self.runner:
            raise JobError("Beam options are given without a `runner`: name the Beam runner, too")
        if self.group is not None:
            group_finder(self.group)
        shares = self.splits.shares
        if self.augment and shares and TRAIN not in shares:
            raise JobError(
                f"augment is {self.augment}, but only split train gets copies, and split names "
                f"{', '.join(shares)}: call one of them train, such as train=90,test=10, or leave "
                "out `augment`"
            )

    @property
    def splits(self) -> Splits:
        """Which split a group belongs to."""
        return parse_splits(self.split, self.val_from_train, self.seed)

    @property
    def crop_rule(self) -> CropRule:
        """How crops are cut; means something only with ``crop``."""
        assert self.margin is not None
        return CropRule(self.crop_from, self.margin)

    @property
    def on_store(self) -> bool:
        """Whether the images lie on an object store."""
        return is_url(self.images_root or "")

    @property
    def renders(self) -> bool:
        """Whether crops or copies are asked for, so that every image must be decoded."""
        return self.crop is not None or self.augment > 0

    def why_not_cropped(self, instance: Instance) -> str | None:
        """The name to count an instance by that cannot be cropped; None where it can."""
        reason = self.crop_rule.why_not(instance)
        return f"instances not cropped: {reason}" if reason else None

    @property
    def for_workers(self) -> "Request":
        """This request with every option at its default that cannot change a planned shard's bytes.

        Each plan file holds it. A resumed conversion keeps a shard whose plan file is unchanged, so
        options such as ``workers`` must not be in there.
        """
        return Request(**{name: getattr(self, name) for name in _FOR_WORKERS})
