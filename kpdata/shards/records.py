"""Encode samples as serialised tf.train.Examples and decode them, without TensorFlow.

Feature names are those of the TF Object Detection API where it has one. A missing box, area or head
size is stored as zero, and so is a keypoint that is not labelled.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from kpdata.core.errors import DatasetError, located
from kpdata.core.sample import MAX_SIDE, ImageRef, Instance, Sample, View
from kpdata.shards.protobuf_bytes import bytes_beside_longest, varint
from kpdata.shards.tfrecord import MAX_RECORD_BYTES
from kpdata.shards.wire.example_pb2 import Example, Features  # type: ignore[attr-defined]

SCHEMA_VERSION = 2

MAX_INSTANCES = 10_000
"""The most instances of one record; a larger crowd should be labelled as a crowd."""

MAX_BESIDE_IMAGE = 16 << 20
"""The most bytes of a record besides its image; more than the labels of MAX_INSTANCES take."""


class Feature(NamedTuple):
    """One feature of every record.

    Attributes:
        name: the feature's name in the Example.
        kind: ``bytes``, ``float`` or ``int64``.
        length: how many values: a number, ``N`` (per instance) or ``NK`` (per keypoint).
    """

    name: str
    kind: str
    length: str


FEATURES = tuple(
    Feature(*row.split())
    for row in """
    image/encoded                     bytes  1
    image/format                      bytes  1
    image/height                      int64  1
    image/width                       int64  1
    image/filename                    bytes  1
    image/source_id                   bytes  1
    image/key/sha256                  bytes  1
    image/object/bbox/xmin            float  N
    image/object/bbox/ymin            float  N
    image/object/bbox/xmax            float  N
    image/object/bbox/ymax            float  N
    image/object/area                 float  N
    image/object/is_crowd             int64  N
    image/object/class/text           bytes  N
    image/object/class/label          int64  N
    image/object/id                   int64  N
    image/object/keypoint/x           float  NK
    image/object/keypoint/y           float  NK
    image/object/keypoint/visibility  int64  NK
    image/object/keypoint/num         int64  N
    kpdata/object/head_size           float  N
    kpdata/transform                  float  6
    kpdata/source/height              int64  1
    kpdata/source/width               int64  1
    kpdata/copy                       int64  1
    kpdata/seed                       int64  1
    kpdata/instance                   int64  1
    kpdata/group                      bytes  1
    """.strip().splitlines()
)
"""Every feature of a record, in the order of the table in docs/wire.md."""

_LISTS = {"bytes": "bytes_list", "float": "float_list", "int64": "int64_list"}
_FIELD_1, _FIELD_2 = b"\x0a", b"\x12"
"""Protobuf tags of length-delimited fields with the numbers 1 and 2."""

_IMAGE_KEY = _FIELD_1 + bytes([len(FEATURES[0].name)]) + FEATURES[0].name.encode()

_BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


def encode(sample: Sample) -> bytes:
    """Serialise a sample, which must hold its image's bytes and its view.

    Equal samples give equal bytes: the features are written in sorted order.
    """
    return b"".join(encode_parts(sample))


def encode_parts(sample: Sample) -> tuple[bytes, bytes, bytes]:
    """:func:`encode` in three parts; the second is the image's own bytes, without a copy.

    ``image/encoded`` comes first in sorted order. Its map entry is built here by hand, around the
    bytes, and protobuf serialises the features after it.
    """
    with located(sample.key):
        _check_instances(len(sample.instances))
    values = _flatten(sample)
    features = Features()
    for name, kind, _ in FEATURES[1:]:
        getattr(features.feature[name], _LISTS[kind]).value.extend(values[name])
    rest = features.SerializeToString(deterministic=True)
    with located(sample.key):
        _check_beside_image(len(rest))
    image = sample.image.data or b""
    head = b""
    for opening in (_FIELD_1, _FIELD_1, _IMAGE_KEY + _FIELD_2, _FIELD_1):
        head = opening + varint(len(head) + len(image)) + head
    head = _FIELD_1 + varint(len(head) + len(image) + len(rest)) + head
    if (size := len(head) + len(image) + len(rest)) > MAX_RECORD_BYTES:
        raise DatasetError(
            f"{sample.key}: a record of {size:,} bytes: at most {MAX_RECORD_BYTES:,} are read back"
        )
    return head, image, rest


def _check_instances(count: int) -> None:
    if count > MAX_INSTANCES:
        raise DatasetError(f"{count:,} instances: at most {MAX_INSTANCES:,} fit one record")


def _check_beside_image(size: int) -> None:
    if size > MAX_BESIDE_IMAGE:
        raise DatasetError(
            f"{size:,} bytes beside the image: at most {MAX_BESIDE_IMAGE:,} fit one record"
        )


def _flatten(sample: Sample) -> dict[str, Iterable[Any]]:
    image, view, instances = sample.image, sample.view, sample.instances
    if view is None or image.data is None or image.width is None or image.height is None:
        raise ValueError(f"{sample.key}: a record needs image bytes, their size and a view")
    width, height = image.width, image.height
    boxes = [i.bbox_xyxy.tolist() if i.bbox_xyxy is not None else _NO_BOX for i in instances]
    keypoints = [keypoint for i in instances for keypoint in i.keypoints.tolist()]  # N·K
    return {
        "image/format": [(image.format or "").encode()],
        "image/height": [image.height],
        "image/width": [image.width],
        "image/filename": [image.name.encode()],
        "image/source_id": [sample.key.encode()],
        "image/key/sha256": [hashlib.sha256(image.data).hexdigest().encode()],
        "image/object/bbox/xmin": [x / width for x, _, _, _ in boxes],
        "image/object/bbox/ymin": [y / height for _, y, _, _ in boxes],
        "image/object/bbox/xmax": [x / width for _, _, x, _ in boxes],
        "image/object/bbox/ymax": [y / height for _, _, _, y in boxes],
        "image/object/area": [i.area or 0.0 for i in instances],
        "image/object/is_crowd": [int(i.is_crowd) for i in instances],
        "image/object/class/text": [i.category.encode() for i in instances],
        "image/object/class/label": [i.category_id for i in instances],
        "image/object/id": [i.id for i in instances],
        "image/object/keypoint/x": [x / width for x, _, _ in keypoints],
        "image/object/keypoint/y": [y / height for _, y, _ in keypoints],
        "image/object/keypoint/visibility": [int(v) for _, _, v in keypoints],
        "image/object/keypoint/num": [i.num_labelled for i in instances],
        "kpdata/object/head_size": [i.head_size or 0.0 for i in instances],
        "kpdata/transform": view.transform.reshape(-1).tolist(),
        "kpdata/source/height": [view.source_height],
        "kpdata/source/width": [view.source_width],
        "kpdata/copy": [view.copy],
        "kpdata/seed": [view.seed],
        "kpdata/instance": [view.instance],
        "kpdata/group": [sample.split_group.encode()],
    }


def decode(data: bytes, num_keypoints: int) -> Sample:
    """Decode one record. Coordinates are exact up to float32.

    Args:
        data: a serialised Example.
        num_keypoints: K of the dataset's skeleton.

    Raises:
        DatasetError: it is not an Example, or a feature is missing or of the wrong kind or length.
        SchemaError: a value that no sample can hold.
    """
    values = _parse(data, num_keypoints)

    def one(name: str) -> Any:
        return values[name][0]

    def text(name: str) -> str:
        return _text(name, one(name))

    width, height = one("image/width"), one("image/height")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise DatasetError(f"image/width × image/height is {width} × {height}")
    if text("image/format") not in ("jpeg", "png"):
        raise DatasetError(f"image/format is {text('image/format')[:20]!r}: expected jpeg or png")
    return Sample(
        key=text("image/source_id"),
        image=ImageRef(
            name=text("image/filename"),
            width=width,
            height=height,
            data=one("image/encoded"),
            format=text("image/format"),
            sha256=text("image/key/sha256"),
        ),
        instances=_instances(values, num_keypoints, width, height),
        group=text("kpdata/group"),
        view=View(
            transform=np.array(values["kpdata/transform"], np.float32),
            source_width=one("kpdata/source/width"),
            source_height=one("kpdata/source/height"),
            copy=one("kpdata/copy"),
            seed=one("kpdata/seed"),
            instance=one("kpdata/instance"),
        ),
    )


def _parse(data: bytes, num_keypoints: int) -> dict[str, Sequence[Any]]:
    if len(data) > MAX_BESIDE_IMAGE:
        _check_beside_image(bytes_beside_longest(data))
    example = Example()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise DatasetError(f"not a tf.train.Example: {error}") from error
    features = example.features.feature
    values: dict[str, Sequence[Any]] = {}
    for name, kind, _ in FEATURES:
        if name not in features:
            raise DatasetError(f"feature {name} is missing")
        feature = features[name]
        found = feature.WhichOneof("kind")
        if found not in (_LISTS[kind], None):
            raise DatasetError(f"feature {name} is a {found}, expected a {_LISTS[kind]}")
        values[name] = getattr(feature, _LISTS[kind]).value
    count = len(values["image/object/class/label"])
    _check_instances(count)
    lengths = {"1": 1, "6": 6, "N": count, "NK": count * num_keypoints}
    for name, _, length in FEATURES:
        expected = lengths[length]
        if len(values[name]) != expected:
            raise DatasetError(
                f"feature {name} has {len(values[name])} values, expected {expected}"
                + (f" ({count} instances × {num_keypoints} keypoints)" if length == "NK" else "")
            )
    return values


def _instances(
    values: dict[str, Sequence[Any]], num_keypoints: int, width: int, height: int
) -> tuple[Instance, ...]:
    size = np.array([width, height], np.float32)
    sides = [values[f"image/object/bbox/{side}"] for side in _BOX_SIDES]
    columns = [values[f"image/object/keypoint/{axis}"] for axis in ("x", "y", "visibility")]
    keypoints = np.array(columns, np.float32).T.reshape(-1, num_keypoints, 3)  # (N, K, 3)
    with np.errstate(over="ignore", invalid="ignore"):  # Instance refuses what is not finite
        boxes = np.array(sides, np.float32).T.reshape(-1, 4) * np.tile(size, 2)  # (N, 4)
        keypoints[..., :2] *= size

    def instance(i: int) -> Instance:
        with located(f"instance {i}"):
            if values["image/object/is_crowd"][i] not in (0, 1):
                raise DatasetError(f"is_crowd is {values['image/object/is_crowd'][i]}")
            found = Instance(
                keypoints=keypoints[i],
                bbox_xyxy=boxes[i] if boxes[i].any() else None,
                area=values["image/object/area"][i] or None,
                is_crowd=bool(values["image/object/is_crowd"][i]),
                category=_text("image/object/class/text", values["image/object/class/text"][i]),
                category_id=values["image/object/class/label"][i],
                id=values["image/object/id"][i],
                head_size=values["kpdata/object/head_size"][i] or None,
            )
            if found.num_labelled != (stated := values["image/object/keypoint/num"][i]):
                raise DatasetError(f"{found.num_labelled} keypoints are labelled, not {stated}")
            return found

    return tuple(map(instance, range(len(keypoints))))


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DatasetError(f"feature {name} is not UTF-8: {value[:40]!r}") from error
