"""Real LSP and COCO files, from end to end."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat

import kpdata
from kpdata import formats
from kpdata.checks.verify import verify
from kpdata.formats.coco import write
from kpdata.pipelines.conversion import Outcome
from kpdata.pipelines.run import worker_count

Convert = Callable[..., Outcome]


@pytest.fixture(scope="module")
def lsp(real_data: Path) -> Path:
    return real_data / "lsp/joints.mat"


@pytest.fixture(scope="module")
def coco(real_data: Path) -> Path:
    return real_data / "coco_mini/person_keypoints_train2017.json"


def test_lsp_is_stored_whole_to_the_byte_and_to_the_hundredth_of_a_pixel(
    lsp: Path, convert_to: Convert, tmp_path: Path
) -> None:
    outcome = convert_to(tmp_path / "out", lsp, format="lsp", split="official")
    splits = outcome.manifest.splits
    assert {name: split.records for name, split in splits.items()} == {"train": 1000, "test": 1000}
    visibility = np.sum([split.visibility for split in splits.values()], axis=(0, 1))
    assert visibility.tolist() == [0, 2044, 28000 - 2044]
    joints = loadmat(lsp)["joints"]  # (3, 14, 2000)
    dataset = kpdata.open(tmp_path / "out")
    seen = set()
    for split, first in (("train", 1), ("test", 1001)):
        for sample in dataset[split]:
            number = int(sample.key[2:6])
            seen.add(number)
            assert first <= number < first + 1000
            assert sample.image.data == (lsp.parent / "images" / sample.key).read_bytes()
            x, y, occluded = joints[:, :, number - 1]
            (person,) = sample.instances
            assert np.abs(person.xy - np.column_stack([x, y]) + 0.5).max() < 0.01
            assert ((person.visibility == 1) == (occluded == 1)).all()
    assert seen == set(range(1, 2001))
    assert verify(tmp_path / "out")[1] == []


def test_lsp_crops_and_copies_do_not_depend_on_the_workers(
    lsp: Path, convert_to: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"format": "lsp", "crop": 128, "crop_from": "image", "augment": 3, "shards": 12}
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0)
    one, two = (
        convert_to(tmp_path / str(workers), lsp, workers=workers, **options) for workers in (1, 2)
    )
    assert one.manifest.root_hash == two.manifest.root_hash
    assert one.manifest.splits["train"].copies == 3 * one.manifest.splits["train"].samples
    assert verify(tmp_path / "2")[1] == []
    dataset = kpdata.open(tmp_path / "2")
    keys: dict[str, set[str]] = {}
    for split in dataset.splits:
        for sample in dataset[split]:
            assert sample.view is not None
            assert split == "train" or sample.view.copy == 0
            keys.setdefault(split, set()).add(sample.key)
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == 2000


@pytest.fixture(scope="module")
def there_and_back(
    coco: Path, convert_to: Convert, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """COCO → shards → COCO: the folder of the last."""
    folder = tmp_path_factory.mktemp("coco")
    convert_to(folder / "shards", coco, split="train=100", max_quarantine=0)
    assert verify(folder / "shards")[1] == []
    source = formats.read("shards", folder / "shards")
    write.write(source.samples, source.skeleton, folder / "back")
    return folder / "back"


def by_id(path: Path, what: str) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry for entry in json.loads(path.read_text())[what]}


def test_coco_comes_back_with_equal_images(coco: Path, there_and_back: Path) -> None:
    before, after = by_id(coco, "images"), by_id(there_and_back / "train.json", "images")
    assert before.keys() == after.keys()
    for number, image in before.items():
        for key in ("file_name", "width", "height"):
            assert after[number][key] == image[key]
        name = image["file_name"]
        stored = (there_and_back / "images" / name).read_bytes()
        assert stored == (coco.parent / "train2017" / name).read_bytes()


def test_coco_comes_back_with_equal_annotations(coco: Path, there_and_back: Path) -> None:
    before, after = by_id(coco, "annotations"), by_id(there_and_back / "train.json", "annotations")
    assert before.keys() == after.keys()
    assert any(entry["iscrowd"] for entry in before.values())
    for number, entry in before.items():
        found = after[number]
        for key in ("image_id", "iscrowd", "num_keypoints", "category_id"):
            assert found[key] == entry[key]
        assert found["area"] == pytest.approx(entry["area"], rel=1e-6)
        assert found["bbox"] == pytest.approx(entry["bbox"], abs=0.01)
        expected = np.reshape(entry["keypoints"], (-1, 3)).astype(float)
        expected[expected[:, 2] == 0] = 0
        assert np.abs(np.reshape(found["keypoints"], (-1, 3)) - expected).max() < 0.01


def test_coco_ground_truth_scores_one_against_itself(there_and_back: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_api.COCO(str(there_and_back / "train.json"))
        detections = [
            {key: entry[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 1.0}
            for entry in truth.anns.values()
            if entry["num_keypoints"] and not entry["iscrowd"]
        ]
        assert detections
        scores = evaluation.COCOeval(truth, truth.loadRes(detections), "keypoints")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    assert scores.stats[0] == pytest.approx(1.0, abs=1e-9)


def test_coco_crops_lead_back_to_the_annotations(
    coco: Path, convert_to: Convert, tmp_path: Path
) -> None:
    from kpdata.core.transform import apply_affine, invert

    outcome = convert_to(tmp_path / "out", coco, split="train=100", crop=256)
    annotations = by_id(coco, "annotations")
    dataset = kpdata.open(tmp_path / "out")
    for sample in dataset["train"]:
        (person,) = sample.instances
        assert sample.view is not None
        expected = np.reshape(annotations.pop(person.id)["keypoints"], (-1, 3))
        back = apply_affine(invert(sample.view.transform), person.xy)
        kept = person.visibility > 0
        assert np.abs(back - expected[:, :2] - 0.5)[kept].max() < 1e-3
    left = [a for a in annotations.values() if a["num_keypoints"] and not a["iscrowd"]]
    assert not left
    counts = outcome.manifest.counts
    assert counts["instances not cropped: crowd"] == sum(a["iscrowd"] for a in annotations.values())
