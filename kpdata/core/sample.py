"""Samples, instances and images: immutable values that check themselves.

Coordinates are continuous pixels everywhere: (0, 0) is the image's top-left *corner*, the centre of
the first pixel is (0.5, 0.5) and an image spans [0, W] × [0, H]. Visibility is COCO's: 0 not
labelled (and then x = y = 0), 1 labelled but occluded, 2 visible.
"""

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from kpdata.core.errors import SchemaError

FloatArray = npt.NDArray[np.floating[Any]]

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

NOT_LABELLED, OCCLUDED, VISIBLE = 0, 1, 2

WHOLE_IMAGE = -1
"""``View.instance`` of a picture that shows the whole image rather than one instance."""

MAX_SIDE = 2**31 - 1
"""The largest width or height, in pixels, of any image."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Instance:
    """One object's keypoints and box.

    Attributes:
        keypoints: (K, 3) float32: x and y in continuous pixels, and visibility 0, 1 or 2.
        bbox_xyxy: (4,) float32 in continuous pixels, or None where the source has no box.
        area: square pixels, as OKS divides by it; None where the source has none.
        is_crowd: whether it is a group of objects annotated as one (COCO's ``iscrowd``).
        category, category_id: the class's name and its number in the source.
        id: the instance's number in the source, 0 where it has none.
        head_size: pixels, the reference length of PCKh, where the source measures one.
    """

    keypoints: FloatArray
    bbox_xyxy: FloatArray | None = None
    area: float | None = None
    is_crowd: bool = False
    category: str = "object"
    category_id: int = 1
    id: int = 0
    head_size: float | None = None

    def __post_init__(self) -> None:
        """Convert the arrays to float32; raise SchemaError for an invalid value."""
        object.__setattr__(self, "keypoints", _checked_keypoints(self.keypoints))
        if self.bbox_xyxy is not None:
            object.__setattr__(self, "bbox_xyxy", _checked_box(self.bbox_xyxy))
        for name in ("area", "head_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < _FLOAT32_MAX:
                raise SchemaError(f"{name} is {value}: expected a finite number of 0 or more")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and pack(self) == pack(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def xy(self) -> FloatArray:
        """(K, 2) continuous pixels; (0, 0) where not labelled."""
        return self.keypoints[:, :2]

    @property
    def visibility(self) -> FloatArray:
        """(K,) 0, 1 or 2, as float32."""
        return self.keypoints[:, 2]

    @property
    def num_labelled(self) -> int:
        """Keypoints with a coordinate: COCO's ``num_keypoints``."""
        return int(np.count_nonzero(self.visibility))


@dataclass(frozen=True)
class ImageRef:
    """An image: where its file or object is, or its encoded bytes.

    Attributes:
        name: the relative file name, which the record carries as ``image/filename``.
        uri: path, URL or place in a shard to read; empty when ``data`` holds the bytes.
        width, height: pixels; None where the annotation does not say.
        data: the encoded bytes, in a sample that was read from shards.
        format: ``jpeg`` or ``png``, with ``data``.
        sha256: of ``data``, hex, as the record states it; ``kpdata verify`` checks it.
    """

    name: str
    uri: str = ""
    width: int | None = None
    height: int | None = None
    data: bytes | None = field(default=None, repr=False)
    format: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class View:
    """How a picture was made from its source image.

    Attributes:
        transform: (2, 3) float32 affine from source pixels to this picture's pixels.
        source_width, source_height: the source image's size in pixels.
        copy: 0 for the original, 1 … N for an augmented copy.
        seed: the seed of the copy's random parameters; 0 for an original.
        instance: index of the instance that a crop shows; WHOLE_IMAGE (−1) otherwise.
    """

    transform: FloatArray
    source_width: int
    source_height: int
    copy: int = 0
    seed: int = 0
    instance: int = WHOLE_IMAGE

    def __post_init__(self) -> None:
        """Raise SchemaError unless the transform is a finite, invertible affine."""
        matrix = _floats(self.transform, "transform must be 6 finite numbers").reshape(-1)
        numbers = matrix.tolist()
        if len(numbers) != 6 or not all(map(isfinite, numbers)):
            raise SchemaError(f"transform must be 6 finite numbers, got {numbers}")
        if numbers[0] * numbers[4] == numbers[1] * numbers[3]:
            raise SchemaError(f"transform cannot be inverted: {numbers}")
        for name, low, high in _VIEW_LIMITS:
            if not low <= getattr(self, name) <= high:
                raise SchemaError(f"{name} is {getattr(self, name)}: expected {low} to {high}")
        object.__setattr__(self, "transform", matrix.reshape(2, 3))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and pack(self) == pack(other)

    __hash__ = None  # type: ignore[assignment]


_VIEW_LIMITS = (
    ("source_width", 1, 2**63 - 1),
    ("source_height", 1, 2**63 - 1),
    ("copy", 0, MAX_SIDE),
    ("instance", WHOLE_IMAGE, MAX_SIDE),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its instances.

    Attributes:
        key: the source image's stable key, the same for all its crops and copies.
        image: the picture, or where to read it.
        instances: the objects in it; empty for an image without any.
        split: the source's official split, where it has one.
        group: name of what must stay in one split (a video, a person), where known.
        view: how the picture was made; None for the source image itself.
    """

    key: str
    image: ImageRef
    instances: tuple[Instance, ...] = ()
    split: str | None = None
    group: str | None = None
    view: View | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and pack(self) == pack(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def split_group(self) -> str:
        """The name that decides the sample's split: its group, else its image's file name."""
        return self.group or self.image.name


class Rejected(NamedTuple):
    """A sample that a reader could not use.

    Attributes:
        key: the sample's key or, where it has none, what names it best.
        reason: a short name to count by, such as ``bad keypoints``.
        detail: file, record, value and fix.
    """

    key: str
    reason: str
    detail: str


def with_keypoints(instance: Instance, keypoints: FloatArray, **changes: Any) -> Instance:
    """``instance`` with other keypoints (K, 3); x and y become 0 where v = 0."""
    keypoints = np.where(keypoints[:, 2:] == NOT_LABELLED, np.float32(0), keypoints)
    return replace(instance, keypoints=keypoints, **changes)


def _checked_keypoints(values: FloatArray) -> FloatArray:
    keypoints = _floats(values, "keypoints must be numbers, K rows of x, y, visibility")
    if keypoints.ndim == 1 and keypoints.size % 3 == 0:
        keypoints = keypoints.reshape(-1, 3)
    if keypoints.ndim != 2 or keypoints.shape[1] != 3:
        raise SchemaError(f"keypoints must have shape (K, 3), got {keypoints.shape}")
    top = _FLOAT32_MAX
    for row, (x, y, v) in enumerate(keypoints.tolist()):
        placed = -top <= x <= top and -top <= y <= top
        if not ((placed and (v in (VISIBLE, OCCLUDED))) or v == x == y == 0):
            raise SchemaError(_keypoint_fault(row, x, y, v))
    return keypoints


def _keypoint_fault(row: int, x: float, y: float, v: float) -> str:
    if not np.isfinite((x, y)).all():
        return f"keypoint {row} is not finite: {[x, y, v]}"
    if v != NOT_LABELLED:
        return f"keypoint {row} has visibility {v:g}: expected 0, 1 or 2"
    return f"keypoint {row} is not labelled (v = 0) yet lies at {[x, y]}: expected x = y = 0"


def _checked_box(values: FloatArray) -> FloatArray:
    box = _floats(values, "bbox_xyxy must be 4 finite numbers")
    sides = box.tolist()
    if box.shape != (4,) or not all(map(isfinite, sides)):
        raise SchemaError(f"bbox_xyxy must be 4 finite numbers, got {sides}")
    if sides[2] < sides[0] or sides[3] < sides[1]:
        raise SchemaError(f"bbox_xyxy ends before it begins: {sides}")
    return box


def _floats(values: FloatArray, expected: str) -> npt.NDArray[np.float32]:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise SchemaError(f"{expected}, got {values!r}") from None


def _encode_array(value: object) -> bytes:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot pack a {type(value).__name__}")
    return value.tobytes()


def _decode_array(_kind: type, value: bytes) -> FloatArray:
    return np.frombuffer(value, np.float32)


_packer = msgspec.msgpack.Encoder(enc_hook=_encode_array)


def pack(value: object) -> bytes:
    """Serialise a Sample, or a part of one, as msgpack; equal values give equal bytes."""
    return _packer.encode(value)


def unpack_sample(data: bytes) -> Sample:
    """The inverse of :func:`pack` for a Sample."""
    return _sample_unpacker.decode(data)


_sample_unpacker = msgspec.msgpack.Decoder(Sample, dec_hook=_decode_array)
