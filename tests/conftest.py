"""Fixtures that every test may use."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from kpdata.checks.verify import verify
from kpdata.core.skeletons import COCO17
from kpdata.shards import records
from kpdata.shards.dataset import Dataset

settings.register_profile(
    "kpdata",
    deadline=None,  # a busy machine is not a failure
    derandomize="CI" in os.environ,  # a commit passes or fails by what it holds
)
settings.load_profile("kpdata")

MakeCoco = Callable[..., Path]
FAULTS = ("lost", "duplicated", "wrong")


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
    from kpdata.core.progress import SILENT
    from kpdata.pipelines.conversion import convert
    from kpdata.pipelines.request import Request

    source = formats.read("coco", tiny_coco / "annotations.json")
    out = tmp_path_factory.mktemp("tiny_shards") / "shards"
    request = Request(
        format="coco", skeleton=source.skeleton, images_root=str(source.images_root), augment=1,
        split="50/25/25", seed=2, shards=4, workers=1,
    )  # fmt: skip
    convert(source, request, out, SILENT)
    return out


@pytest.fixture(scope="session")
def reseal() -> Callable[[Path], None]:
    """``reseal(folder)``: forge a manifest that fits shards and manifest as they are now."""
    return _reseal


def _reseal(folder: Path) -> None:
    from kpdata.shards.manifest import MANIFEST, read_manifest, write_manifest
    from kpdata.storage.files import file_blake3

    content = json.loads((folder / MANIFEST).read_text())
    for split in content["splits"].values():
        for shard in split["shards"]:
            path = folder / shard["name"]
            shard["bytes"], shard["blake3"] = path.stat().st_size, file_blake3(path)
    (folder / MANIFEST).write_text(json.dumps(content))
    write_manifest(folder, read_manifest(folder))


@pytest.fixture
def fault_trial(record_property: Callable[[str, str], None]) -> Callable[..., None]:
    """``fault_trial(kind, moment, out, whole, missing=())``: judge what a disturbed job made.

    The dataset ``out`` must pass ``verify`` and hold each record of ``whole``, once, the same,
    except for those of the samples with the keys ``missing``. The end of pytest's output counts the
    trials.
    """

    def judge(
        kind: str, moment: str, out: Path, whole: Path, missing: frozenset[str] = frozenset()
    ) -> None:
        found, expected = _records_of(out), _records_of(whole)
        expected = {place: seen for place, seen in expected.items() if place[1] not in missing}
        counts = {
            "lost": len(expected.keys() - found.keys()),
            "duplicated": sum(seen.total() > 1 for seen in found.values()),
            "wrong": sum(seen.keys() != expected.get(at, {}).keys() for at, seen in found.items()),
        }
        trial = {"kind": kind, "moment": moment, "records": len(found), **counts}
        record_property("fault trial", json.dumps(trial))
        print(trial)
        assert not any(counts.values())
        assert verify(out)[1] == []

    return judge


def _records_of(out: Path) -> dict[tuple[str, str, int, int], Counter[bytes]]:
    """Split, source image, copy and instance → the records found there, whole."""
    dataset = Dataset.open(out)
    found: dict[tuple[str, str, int, int], Counter[bytes]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            view = sample.view
            assert view is not None
            place = (split, sample.key, view.copy, view.instance)
            found.setdefault(place, Counter())[hashlib.sha256(records.encode(sample)).digest()] += 1
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count the fault trials, by kind."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    trials = [
        json.loads(value)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "fault trial"
    ]
    if trials:
        kinds = Counter(trial["kind"] for trial in trials)
        told = [f"{sum(trial[fault] for trial in trials)} {fault}" for fault in FAULTS]
        told.append(f"of {sum(trial['records'] for trial in trials):,} records")
        terminalreporter.section("fault trials")
        for kind, count in kinds.items():
            terminalreporter.line(f"{count:4} × {kind}")
        terminalreporter.line(f"{len(trials):4} in all: {', '.join(told)}")


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


@pytest.fixture(scope="session")
def untrained_run() -> Callable[..., Path]:
    """``untrained_run(folder, config, *heads) -> folder``: a run whose weights nobody trained.

    It is done with epoch 7, and finds COCO17's keypoints in squares around boxes, × 1.5.
    """
    return _untrained_run


def _untrained_run(folder: Path, config: Any, *heads: str) -> Path:
    import keras

    from kpdata.core.crop import CropRule
    from kpdata.train.run.folder import Best, RunFolder, RunInfo, State

    keras.utils.set_random_seed(1)
    pose, crop_rule, side = ((0.5, 0.5),) * 17, CropRule("bbox", 1.5), config.phases[0].input_size
    info = RunInfo("shards", "a" * 64, COCO17, "a crop", pose, {"train": 1}, {}, crop_rule)
    run = RunFolder(folder)
    run.begin(config, info)
    net = config.build(len(COCO17), side)
    for variable in net.trainable_variables:  # untrained heads answer any picture alike
        variable.assign(variable + 0.3 * keras.random.normal(variable.shape))
    file = run.save_weights("best", net.save_weights)
    run.save_state(State(best=Best(file, 0, 7, side, heads, {}), done=1))
    return folder


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
