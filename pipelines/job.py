"""What one conversion is asked to do: everything that decides a shard's bytes."""

from typing import Literal

import msgspec

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropFrom, CropRule
from kpdata.core.errors import JobError
from kpdata.core.mapping import Mapping
from kpdata.core.skeleton import Skeleton
from kpdata.images.headers import MAX_PIXELS
from kpdata.storage.image_files import MAX_BYTES
from kpdata.storage.stores import is_url


class Job(msgspec.Struct, frozen=True):
    """The options of a conversion that reach the records.

    Attributes:
        skeleton: of the records; ``mapping`` leads there from the source's, if it differs.
        images_root: folder that image names may not leave; None where samples carry their bytes.
        crop: side in pixels of a square record per instance; None keeps whole images.
        crop_from, margin: what the square is drawn around, and its side in units of that.
        augment: augmented copies of each train sample, drawn from ``augment_config``.
        seed: of every draw.
        exif: whether the annotator saw images with their EXIF orientation applied.
        check: ``headers`` trusts an untouched image's header and end marker, ``pixels`` decodes it.
        max_pixels, max_bytes: the largest image that is opened.
        jpeg_quality: of crops and forced re-encodes; a copy's is drawn.
    """

    skeleton: Skeleton
    mapping: Mapping | None = None
    images_root: str | None = None
    crop: int | None = None
    crop_from: CropFrom = "bbox"
    margin: float = 1.25
    augment: int = 0
    augment_config: AugmentConfig = AugmentConfig()
    seed: int = 0
    exif: Literal["applied", "ignored"] = "applied"
    check: Literal["headers", "pixels"] = "headers"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        """Raise JobError naming the option that is out of range."""
        for option, value, low, high in (
            ("--crop", self.crop, 8, 8192),
            ("--margin", self.margin, 0.1, 10),
            ("--augment", self.augment, 0, 1000),
            ("--jpeg-quality", self.jpeg_quality, 1, 100),
            ("--max-pixels", self.max_pixels, 1, 2**31),
            ("--seed", self.seed, 0, 2**63 - 1),
        ):
            if value is not None and not low <= value <= high:
                raise JobError(f"{option} {value}: expected {low} to {high}")

    @property
    def crop_rule(self) -> CropRule:
        """Which square of an image becomes a record, where there is a crop."""
        return CropRule(self.crop_from, self.margin)

    @property
    def on_store(self) -> bool:
        """Whether the images lie on an object store."""
        return is_url(self.images_root or "")

    @property
    def renders(self) -> bool:
        """Whether any picture is made anew, so that every image is decoded."""
        return self.crop is not None or self.augment > 0
