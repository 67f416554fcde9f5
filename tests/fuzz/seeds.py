"""Small valid inputs of every kind, made here: what the mutators start from."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import scipy.io
from blake3 import blake3
from mutate import frame
from PIL import Image

from kpdata.core.sample import ImageRef, Instance, Sample, View
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import LSP14
from kpdata.shards import records
from kpdata.shards.manifest import Manifest, ShardInfo, SourceInfo, SplitInfo, compute_root_hash

SKELETON = Skeleton("three", ("left_a", "right_a", "top"), edges=(("left_a", "top"),))
SIZE = WIDTH, HEIGHT = 24, 16
SHARD = "train-00000-of-00001.tfrecord"


def pixels(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """(H, W, 3) smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.blur(noise, (5, 5))


@cache
def pictures() -> tuple[bytes, ...]:
    """One of every kind that is read, and some that are not."""
    rgb = Image.fromarray(pixels())
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(SIZE))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 99)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "jpeg", {}),
        (rgb, "jpeg", {"progressive": True, "exif": exif}),
        (rgb.convert("L"), "jpeg", {}),
        (rgb.convert("CMYK"), "jpeg", {}),
        (rgb, "png", {}),
        (rgb, "png", {"exif": exif}),
        (alpha, "png", {}),
        (rgb.convert("P"), "png", {"transparency": 3}),
        (deep, "png", {}),
        (rgb.convert("1"), "png", {}),
        (rgb, "webp", {"lossless": True}),
        (alpha, "webp", {"exif": exif}),
        (rgb, "webp", {"save_all": True, "append_images": [alpha.convert("RGB")]}),
        (rgb, "bmp", {}),
        (rgb.convert("P"), "bmp", {}),
        (rgb, "tiff", {"exif": exif}),
        (rgb, "tiff", {"compression": "tiff_lzw"}),
        (alpha, "tiff", {"compression": "tiff_adobe_deflate"}),
        (rgb, "tiff", {"compression": "jpeg"}),
        (deep, "tiff", {}),
        (rgb.convert("P"), "gif", {"save_all": True, "append_images": [rgb.convert("P")]}),
        (rgb, "ppm", {}),
        (rgb.convert("L"), "ppm", {}),
        (rgb.convert("1"), "tiff", {"compression": "group4"}),
    ]
    return tuple(_saved(*kind) for kind in kinds)


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def matlab(name: str) -> tuple[bytes, ...]:
    """``joints.mat`` of four people: version 5, 5 compressed and 4, beside other variables."""
    shape = {"lsp": (3, 14, 4), "lspet": (14, 3, 4)}[name]
    joints = np.random.default_rng(0).uniform(1, 99, shape)
    flags = joints[2] if name == "lsp" else joints[:, 2]
    flags[:] = flags > 50
    made = []
    for variables, options in (
        ({"joints": joints}, {"do_compression": False}),
        ({"joints": joints.astype(np.float32)}, {"do_compression": True}),
        ({"a": "text", "joints": joints.round().astype(np.uint16)}, {"do_compression": False}),
        ({"joints": joints, "z": {"b": np.eye(2), "c": np.array([1, "x"], object)}}, {}),
        ({"joints": joints[..., 0]}, {"format": "4"}),
        ({"joints": np.array([joints, "x"], object)}, {"do_compression": False}),
    ):
        out = io.BytesIO()
        scipy.io.savemat(out, variables, **options)
        made.append(out.getvalue())
    return tuple(made)


@cache
def mpii() -> tuple[bytes, ...]:
    """MPII's file of a labelled image, one of the test set and one of nobody; compressed too."""

    def structs(*rows: dict[str, Any]) -> Any:
        array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
        for index, row in enumerate(rows):
            array[0, index] = tuple(row.values())
        return array

    points = structs(
        *({"x": 9.0 * n, "y": 99 - n, "id": n, "is_visible": flag} for n, flag in enumerate("10"))
    )
    place = structs({"x": 40.0, "y": 50.0})
    person = {"x1": 1, "y1": 2, "x2": 30, "y2": 40, "scale": 0.5, "objpos": place}
    people = structs({**person, "annopoints": structs({"point": points})})
    images = structs(
        *(
            {"image": structs({"name": f"{n}.jpg"}), "annorect": found, "vididx": n}
            for n, found in enumerate((people, people, np.zeros((0, 0))))
        )
    )
    release = structs({"annolist": images, "img_train": np.array([[1, 0, 1]]), "version": "12"})
    made = []
    for compress in (False, True):
        out = io.BytesIO()
        scipy.io.savemat(out, {"RELEASE": release}, do_compression=compress)
        made.append(out.getvalue())
    return tuple(made)


@cache
def coco() -> tuple[bytes, ...]:
    """A file of three images, two categories, a crowd and an annotation without keypoints."""
    images = [
        {"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in (1, 2, 3)
    ]
    keypoints = [3, 4, 2, 5.5, 6, 1, 0, 0, 0]
    box = {"bbox": [1, 2, 8, 9], "area": 72.5, "iscrowd": 0, "num_keypoints": 2}
    annotations = [
        {"id": 10, "image_id": 1, "category_id": 1, "keypoints": keypoints, **box},
        {"id": 11, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [1, 2]}},
        {"id": 12, "image_id": 2, "category_id": 2, **box},
        {"id": 13, "image_id": 3, "category_id": 1, "keypoints": [0] * 9, **box},
    ]
    person = {"id": 1, "name": "person", "keypoints": SKELETON.keypoints, "skeleton": [[1, 3]]}
    categories = [person, {"id": 2, "name": "dog"}]
    whole = {"info": {"a": [1]}, "images": images, "annotations": annotations}
    whole["categories"] = categories
    small = {"categories": [person], "images": images[:1], "annotations": annotations[:1]}
    return _as_json(whole), json.dumps(small, indent=1).encode(), b"\xef\xbb\xbf" + _as_json(small)


@cache
def per_image(style: str) -> tuple[bytes, ...]:
    """Files of one style."""
    point, pair = [3, 4, 2], [5.5, 6]
    values: dict[str, tuple[Any, ...]] = {
        "list": (
            [
                {"box": [1, 2, 9, 9], "keypoints": [point, pair, [0, 0, 0]], "label": "cat"},
                {"keypoints": [point, pair, point]},
            ],
            [{"keypoints": [point] * 3, "label": 7}],
            [],
        ),
        "torchvision": (
            {"bboxes": [[1, 2, 9, 9]] * 2, "keypoints": [[point] * 3, [point, [0, 0, 0], point]]},
            {"keypoints": [[point] * 3]},
        ),
        "named": ({"left_a": pair, "right_a": None, "top": point}, {"left_a": point}),
        "labelme": _labelme(),
    }
    return tuple(map(_as_json, values[style]))


def _labelme() -> tuple[dict[str, Any], ...]:
    """With group ids; with rectangles for them; with one object; and without any."""
    marks: list[dict[str, Any]] = [
        {"flags": {"occluded": True}},
        {"flags": {"visible": False}, "description": "hidden"},
        {"difficult": True, "attributes": {}, "score": 0.5},
        {},
    ]
    shapes = []
    for group, x in enumerate((2, 12)):
        corners = [[x, 1], [x + 8, 1], [x + 8, 9], [x, 9]]
        shapes.append({"label": "cat", "points": corners[:: 2 - group], "shape_type": "rectangle"})
        for number, name in enumerate(SKELETON.keypoints):
            shape = {"label": name, "points": [[x + number, 4.5]], "shape_type": "point"}
            shapes.append(shape | marks[(group + number) % len(marks)])
        for shape in shapes[-4:]:
            shape["group_id"] = group
    shapes.append({"label": "sea", "points": [[0, 0], [1, 0], [0, 1]], "shape_type": "polygon"})
    rest = {"flags": {}, "imagePath": "..\\a.jpg", "imageData": "/9j/", "version": "5.4.1"}
    size = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
    ungrouped = [shape | {"group_id": None} for shape in shapes]
    found = (shapes, ungrouped, ungrouped[:4], [])
    return tuple({"shapes": some} | rest | size for some in found)


@cache
def skeletons() -> tuple[bytes, ...]:
    """Skeletons with everything, and with as little as possible."""
    full = {
        "name": "boat",
        "keypoints": ["bow", "stern", "left_rail", "right_rail", "mast"],
        "edges": [["bow", "mast"], ["mast", "stern"]],
        "flip_pairs": [["left_rail", "right_rail"]],
        "sigmas": dict.fromkeys(("bow", "stern", "left_rail", "right_rail", "mast"), 0.05),
        "torso": ["bow", "stern"],
        "head": ["mast", "bow"],
    }
    return _as_json(full), _as_json({"name": "l", "keypoints": list(LSP14.keypoints)})


YOLO_IMAGE = "images/train/1.jpg"


@cache
def yolo_data() -> tuple[bytes, ...]:
    """YOLO's data.yaml, of the one image YOLO_IMAGE."""
    return (
        b"path: .\ntrain: images/train\nval:\nkpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\n"
        b"names:\n  0: boat\n  1: ship\n",
        b"train: [images/train]\nkpt_shape: [3, 3]\nnames: [boat]\n"
        b"kpt_names: {0: [left_a, right_a, top]}\n",
        b"train: [../images/train, list.txt]\nkpt_shape: &k [3, 3]\nflip_idx: *k\nnames: [a, a]\n",
    )


@cache
def yolo_labels() -> tuple[bytes, ...]:
    """An image's labels, with three keypoints of three numbers."""
    line = b"0 0.5 0.5 0.25 0.5 0.5 0.25 2 0.125 0.75 1 0 0 0\n"
    return line, line * 2, line.replace(b"0.5", b"5e-1")


@cache
def deeplabcut_config() -> tuple[bytes, ...]:
    """DeepLabCut's config.yaml."""
    return (
        b"Task: mice\nscorer: me\nbodyparts: [left_a, top]\nskeleton:\n- - left_a\n  - top\n"
        b"video_sets:\n  ? /a/walk.mp4\n  : crop: 0, 24, 0, 16\n",
        b"multianimalproject: true\nindividuals: &i [a, b]\nbodyparts: MULTI!\nscorer: 1\n"
        b"Task: 2026-01-01\nskeleton: [*i, [left_a, tail], [1, 2]]\n",
    )


@cache
def deeplabcut_labels() -> tuple[bytes, ...]:
    """CollectedData_me.csv: of one animal, of two and a unique bodypart, and as Windows writes."""
    head = b"scorer,,,me,me,me,me\nbodyparts,,,left_a,left_a,top,top\ncoords,,,x,y,x,y\n"
    several = (
        b"scorer,me,me,me,me,me,me\nindividuals,a,a,b,b,single,single\n"
        b"bodyparts,top,top,top,top,corner,corner\ncoords,x,y,x,y,x,y\n"
        b"labeled-data\\walk\\1.png,1,2.5,,,NaN,\nlabeled-data\\walk\\2.png,,,3,4,5,6\n"
    )
    return (
        head + b"labeled-data,walk,1.png,1,2,,\nlabeled-data,walk,2.png,3.25,4e0,0,0\n",
        several,
        b"\xef\xbb\xbf" + several.replace(b"\n", b"\r\n").replace(b"corner", b'"cor""ner"'),
    )


@cache
def augmentations() -> tuple[bytes, ...]:
    """TOML files of ``--augment-config``."""
    return (
        b"rotate = [-25, 25.0]\nscale = [0.8, 1.2]\nflip = 0.5\nrectangles = 2\nhue = [-1, 1]\n",
        b"[[x]]\na = {b = [1, 2, {c = 1979-05-27}]}\n",
    )


def sample(number: int, picture: bytes, instances: int = 2, instance: int = -1) -> Sample:
    """A record's sample."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return Sample(
        key=f"{number}.jpg",
        image=ImageRef(f"{number}.jpg", width=WIDTH, height=HEIGHT, data=picture, format=kind),
        instances=tuple(
            Instance(
                np.array([[3, 4, 2], [5.5 + i, 6, 1], [0, 0, 0]], np.float32),
                bbox_xyxy=np.array([1, 2, 9 + i, 11], np.float32),
                area=72.5,
                category="person",
                id=i + 1,
                head_size=3.0,
            )
            for i in range(instances)
        ),
        group=f"video {number}",
        view=View([[1, 0, 0], [0, 1, 0]], WIDTH, HEIGHT, instance=instance),
    )


@cache
def payloads() -> tuple[bytes, ...]:
    """Records: of two instances, of none, of a crop, of a PNG."""
    jpeg, png = pictures()[0], pictures()[4]
    return (
        records.encode(sample(1, jpeg)),
        records.encode(sample(2, jpeg, instances=0)),
        records.encode(sample(3, jpeg, instances=1, instance=0)),
        records.encode(sample(4, png)),
    )


@cache
def shards() -> tuple[bytes, ...]:
    """TFRecord files of those records."""
    return b"".join(map(frame, payloads())), frame(payloads()[0])


def manifest_of(shard: bytes, count: int) -> Manifest:
    """A manifest in which all that can be counted without parsing fits ``shard``."""
    info = ShardInfo(SHARD, count, len(shard), blake3(shard).hexdigest())
    visibility = ((0, 0, 5), (0, 5, 0), (5, 0, 0))
    split = SplitInfo(count, count, 0, 5, visibility, (info,))
    options = {
        "crop": 256, "crop_from": "bbox", "margin": 1.25, "seed": 0, "augment": 0,
        "splits": {"shares": {"train": 0.8, "test": 0.2}, "seed": 0}, "sharding": {"count": 1},
    }  # fmt: skip
    manifest = Manifest(
        schema_version=records.SCHEMA_VERSION,
        skeleton=SKELETON,
        mapping=(),
        source=SourceInfo("coco", "0-based", {"a.json": "0" * 64}, {"category": "person"}),
        options=options,
        splits={"train": split},
        counts={"images turned upright": 1},
        quarantine={"image missing": 2},
        quarantine_sha256=hashlib.sha256(b"").hexdigest(),
        references="0" * 64,
        sizes={"min_width": 24, "max_width": 24, "min_height": 16, "max_height": 16},
        software={"kpdata": "0"},
    )
    return msgspec.structs.replace(manifest, root_hash=compute_root_hash(manifest))


@cache
def manifests() -> tuple[bytes, ...]:
    """Of one split, and of three."""
    one = manifest_of(shards()[0], len(payloads()))
    split = one.splits["train"]
    several = {}
    for name in ("train", "val", "test"):
        infos = [
            msgspec.structs.replace(split.shards[0], name=f"{name}-{k:05d}-of-00002.tfrecord")
            for k in range(2)
        ]
        several[name] = msgspec.structs.replace(split, shards=tuple(infos))
    three = msgspec.structs.replace(one, splits=several)
    three = msgspec.structs.replace(three, root_hash=compute_root_hash(three))
    return msgspec.json.encode(one), msgspec.json.format(msgspec.json.encode(three), indent=1)


@cache
def boxes() -> tuple[bytes, ...]:
    """Every form of ``kpdata predict --boxes``."""
    detection = {"image_id": 1, "bbox": [1, 2, 8, 9], "score": 0.9, "category_id": 1}
    return (
        coco()[0],
        _as_json([detection, detection | {"image_id": 2}]),
        _as_json({"1.jpg": [[1, 2, 8, 9]], "sub/2.jpg": [[0, 0, 5, 5.5], [1, 1, 2, 2]]}),
    )


def _lines(lines: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(_as_json(line) + b"\n" for line in lines)


@cache
def predictions() -> tuple[bytes, ...]:
    """``predictions.jsonl`` of a model with two heads, and of one with one."""
    triples = [[1.5, 2.5, 0.9]] * 3
    base = {"keypoints": triples, "head": "coordinates", "baseline": triples}
    more = {"other_heads": {"heatmap": triples}, "visibility": [0.5, 0.1, 1.0]}
    return (
        _lines({"source_id": f"{n}", "instance": n, **base, **more} for n in range(3)),
        _lines({"source_id": f"{n}", "instance": 0, **base} for n in range(2)),
    )


@cache
def truths() -> tuple[bytes, ...]:
    """``truth.jsonl`` with all that an instance may have, and without."""
    base = {"keypoints": [[3, 4, 2], [5.5, 6, 1], [0, 0, 0]], "image_size": [24, 16]}
    more = {"area": 72.5, "bbox_xyxy": [1, 2, 9, 11], "head_size": 3.5}
    return (
        _lines({"source_id": f"{n}", "instance": n, **base, **more} for n in range(3)),
        _lines({"source_id": f"{n}", "instance": 0, **base} for n in range(2)),
    )


@cache
def runs() -> dict[str, bytes]:
    """``config.json``, ``dataset.json`` and ``state.json`` of a run."""
    from kpdata.train.run.config import load_recipe
    from kpdata.train.run.folder import Best, EpochRecord, RunInfo, State

    info = RunInfo("shards", "0" * 64, SKELETON, "a square", ((0.5, 0.5),) * 3, {"train": 4}, {})
    row = EpochRecord(0, "both", 256, 1, {"loss": 1.5}, {"heatmap": 0.5}, 1e-3, 30.0, 60.0)
    best = Best("checkpoints/best.weights.h5", 0, 1, 256, ("heatmap",), {"heatmap": 0.5})
    state = State((row,), best, "checkpoints/last.weights.h5", 0)
    config = load_recipe("lsp_blazepose")
    values = {"config": config, "dataset": info, "state": state}
    return {name: msgspec.json.encode(value) for name, value in values.items()}


@cache
def evaluations() -> tuple[bytes, ...]:
    """``metrics.json``."""
    from kpdata.metrics import Score
    from kpdata.train.evaluate.report import EvaluationSettings, Report

    parts: dict[str, float | None] = dict.fromkeys(SKELETON.keypoints, 0.5)
    score = Score(
        "PCK@0.2 (torso)", 0.5, "fraction", "torso", 9, "keypoints", {"unlabelled": 1}, parts,
        {"a": 0.5, "top": 0.5}, (0.4, 0.6), 0.1,
    )  # fmt: skip
    report = Report(
        "0", EvaluationSettings(), 1, "a square", 256, "0" * 64, "0" * 64, "0" * 64, SKELETON, 4, 5,
        {"crowds": 1}, ("note",), "heatmap", {"heatmap": (score,)}, (), "mean pose", (score,),
        {"AP": "no sigmas"},
    )  # fmt: skip
    return (msgspec.json.encode(report),)


@cache
def plans() -> tuple[bytes, ...]:
    """Plan files of the write step."""
    from kpdata.core.sample import pack
    from kpdata.pipelines.plan.file import PlanHeader
    from kpdata.pipelines.request import Request

    header = PlanHeader(Request(skeleton=SKELETON), {"kpdata": "0"})
    packed = [pack(sample(n, b"")) for n in (1, 2)]
    return (
        b"".join(
            map(
                frame,
                [
                    msgspec.json.encode(header, order="sorted"),
                    *(bytes(16) + each for each in packed),
                ],
            )
        ),
    )


@cache
def shard_reports() -> tuple[bytes, ...]:
    """Reports of finished shards."""
    from kpdata.core.sample import Rejected
    from kpdata.pipelines.write.shard import ShardReport

    shard = manifest_of(shards()[0], 4).splits["train"].shards[0]
    refused = [Rejected("5.jpg", "image missing", "no file")]
    visibility = [[0, 0, 5], [0, 5, 0], [5, 0, 0]]
    sizes = {"min_width": 24, "max_width": 24, "min_height": 16, "max_height": 16}
    pictures = bytes(16 * shard.records)
    report = ShardReport("0" * 64, shard, 4, 0, 5, visibility, sizes, {}, refused, pictures)
    return (msgspec.json.encode(report),)


@cache
def tflites() -> tuple[bytes, ...]:
    """Networks of two convolutions, in float16 and float32."""
    sys.path.append(str(Path(__file__).parents[1] / "helpers"))
    from tflite_files import tflite_bytes

    weights = [(np.ones((3, 3, 3, 4)), np.zeros(4)), (np.ones((5, 5, 4, 1)), np.ones(4))]
    return tflite_bytes(weights), tflite_bytes(weights, np.float32)


@cache
def quarantines() -> tuple[bytes, ...]:
    """``quarantine.jsonl``."""
    line = {"key": "5.jpg", "reason": "image missing", "detail": "no file"}
    return (_lines(line | {"key": f"{n}"} for n in range(3)), b"")


def _as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
