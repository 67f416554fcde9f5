"""Fixtures that every test may use."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from kpdata.skeletons import COCO17

settings.register_profile("kpdata", deadline=None)  # a busy machine is not a failure
settings.load_profile("kpdata")

MakeCoco = Callable[..., Path]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real LSP and COCO files, named by KPDATA_TEST_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KPDATA_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; set KPDATA_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def make_coco() -> MakeCoco:
    """``make_coco(folder, count=12, size=(64, 48), seed=0) -> annotations.json``.

    Writes ``count`` distinct noisy JPEGs into ``folder/images`` and a COCO file beside them: one or
    two people each, 17 keypoints of mixed visibility, ids from 1.
    """
    return _make_coco


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``annotations.json`` and ``images/``: 12 pictures. Never write into it."""
    folder = tmp_path_factory.mktemp("tiny_coco")
    _make_coco(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_shards(tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_coco`` as shards: train (two shards, one copy of each image), val, test.

    Never write into it.
    """
    from kpdata import formats
    from kpdata.pipelines.convert import Request, Watcher, convert
    from kpdata.pipelines.job import Job
    from kpdata.pipelines.sharding import Sharding
    from kpdata.splits import parse_splits

    source = formats.read("coco", tiny_coco / "annotations.json")
    job = Job(source.skeleton, images_root=str(source.images_root), augment=1)
    out = tmp_path_factory.mktemp("tiny_shards") / "shards"
    splits = parse_splits("50/25/25", seed=2)  # a draw that leaves no split empty
    request = Request("coco", job, splits, Sharding(count=4))
    convert(source, request, out, Watcher())
    return out


@pytest.fixture(scope="module")
def tiny_models() -> Iterator[None]:
    """Blazepose ``lite`` and backbone ``mobilenet`` shrink to what compiles in a second or two."""
    import keras

    from kpdata.train.models.blazepose import SIZES, Size
    from kpdata.train.models.regression import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "lite", Size((4, 4, 6, 6, 8), (1, 1, 1, 1, 1), (1, 1)))
        patch.setitem(BACKBONES, "mobilenet", ("TinyBackbone", "unit"))
        patch.setattr(keras.applications, "TinyBackbone", _tiny_backbone, raising=False)
        yield
    keras.backend.clear_session()


def _tiny_backbone(weights: None, include_top: bool, input_shape: tuple[int, int, int]) -> Any:
    import keras
    from keras import layers

    image = keras.Input(input_shape)
    x = image
    for width in (8, 16):
        x = layers.Conv2D(width, 5, 4, "same", use_bias=False, name=f"convolve_{width}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"normalise_{width}")(x))
    return keras.Model(image, x)


def _make_coco(
    folder: Path, count: int = 12, size: tuple[int, int] = (64, 48), seed: int = 0
) -> Path:
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number:06d}.jpg"
        _write_noise(folder / "images" / name, size, rng)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for _ in range(1 + number % 2):
            annotations.append(_person(len(annotations) + 1, number, size, rng))
    path = folder / "annotations.json"
    categories = [_person_category()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def _write_noise(path: Path, size: tuple[int, int], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    _, data = cv2.imencode(".jpg", cv2.blur(pixels, (5, 5)))
    path.write_bytes(data.tobytes())


def _person(
    number: int, image: int, size: tuple[int, int], rng: np.random.Generator
) -> dict[str, Any]:
    xy = np.round(rng.uniform(2, np.array(size) - 2, (17, 2)), 2)
    visibility = rng.permutation([0] * 3 + [1] * 4 + [2] * 10)
    keypoints = np.column_stack([xy, visibility])
    keypoints[visibility == 0] = 0
    labelled = xy[visibility > 0]
    low, extent = labelled.min(axis=0), np.ptp(labelled, axis=0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": len(labelled),
        "keypoints": keypoints.reshape(-1).tolist(),
        "bbox": np.round([*low, *extent], 2).tolist(),
        "area": round(float(extent.prod()), 2),
    }


def _person_category() -> dict[str, Any]:
    edges = [[a + 1, b + 1] for a, b in COCO17.edge_index.tolist()]
    return {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": edges}
