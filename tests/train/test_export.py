"""Exported models, run by their own runtimes, against the Keras model that they are made of."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kpdata import metrics
from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule
from kpdata.core.errors import DatasetError, KpdataError, TrainingError
from kpdata.core.skeletons import COCO17
from kpdata.images import codec
from kpdata.shards.dataset import Dataset
from kpdata.train.api import Run
from kpdata.train.data.crops import load
from kpdata.train.export import export as exporting
from kpdata.train.export.export import Card, agreement, export, pose_model, rendered_crops
from kpdata.train.export.formats import FORMATS
from kpdata.train.infer.predictions import Truth
from kpdata.train.infer.predictor import Predictor
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported through TensorFlow", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("tiny_models")

SIDE = 64
BLAZEPOSE = TrainConfig(
    phases=(Phase("both", 1, SIDE, 1e-3),),
    model="blazepose",
    options={"size": "lite", "offsets": True},
)
REGRESSION = TrainConfig(
    phases=(Phase("all", 1, SIDE, 1e-3),), model="regression", options={"backbone": "mobilenet"}
)
BOTH = ("heatmap", "coordinates")
DOCS = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture(scope="module")
def run_of(untrained_run):
    """``run_of(folder, config, *heads)``: a run whose weights nobody trained, opened."""
    return lambda *arguments: Predictor.open(untrained_run(*arguments))


@pytest.fixture(scope="module")
def blazepose(tiny_models: None, run_of, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return run_of(tmp_path_factory.mktemp("runs") / "blazepose", BLAZEPOSE, *BOTH)


def answers(predictor: Predictor, head: str, flip: bool, decode: str) -> dict[str, np.ndarray]:
    crops = rendered_crops(SIDE, 4)
    found = predictor.reader(flip, decode, (head,)).predict_on_batch(crops)
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("head", "flip", "decode"),
    [
        ("heatmap", False, "dark"),
        ("heatmap", True, "udp"),
        ("coordinates", False, "dark"),
    ],
)
def test_every_file_answers_as_the_run_does(blazepose, head, flip, decode, tmp_path):
    card = export(blazepose, tmp_path / "out", tuple(FORMATS), head, flip, decode)
    expected = answers(blazepose, head, flip, decode)
    crops = rendered_crops(SIDE, 4)
    for name, form in FORMATS.items():
        found = form.load(tmp_path / "out" / form.file)(crops)
        assert found.keys() == card.outputs.keys()
        np.testing.assert_allclose(found["keypoints"], expected[head], atol=2e-3, err_msg=name)
        if head == "coordinates":
            np.testing.assert_allclose(found["visibility"], expected["visibility"], atol=1e-4)
        assert card.files[name].agreement.median_px < 1e-3


@pytest.mark.parametrize("head", ["dense", "softargmax", "rle"])
def test_every_head_of_a_regression_model_is_exported(run_of, head, tmp_path):
    config = REGRESSION.with_options(head=head)
    run = run_of(tmp_path / "run", config, "coordinates")
    card = export(run, tmp_path / "out", ("tflite", "onnx"))
    assert card.head == "coordinates"
    answered = answers(run, "coordinates", flip=False, decode="dark")["coordinates"]
    assert np.ptp(answered[..., :2], axis=0).max() > 1  # it does look at the crop
    for file in card.files.values():
        assert file.agreement.max_px < 1e-2
        assert file.agreement.max_score < 1e-3


def test_the_card_says_what_a_caller_must_know(blazepose, tmp_path):
    export(blazepose, tmp_path / "out", ("saved_model", "tflite"))
    card = msgspec.json.decode((tmp_path / "out/model.json").read_bytes(), type=Card)
    assert (card.root_hash, card.epoch, card.skeleton) == ("a" * 64, 7, COCO17)
    assert (card.head, card.decode, card.flip_test) == ("heatmap", "dark", False)
    assert card.crop_rule == CropRule("bbox", 1.5)
    assert card.inputs["image"].shape == (SIDE, SIDE, 3)
    assert card.inputs["image"].dtype == "uint8"
    assert card.outputs["keypoints"].shape == (17, 3)
    assert "peak" in card.outputs["keypoints"].meaning
    assert {name: file.batch for name, file in card.files.items()} == {
        "saved_model": None,
        "tflite": 1,
    }
    for file in card.files.values():
        path = tmp_path / "out" / file.name
        parts = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        assert file.bytes == sum(part.stat().st_size for part in parts)


def test_the_card_says_what_the_score_of_untaught_visibility_is(run_of, tmp_path):
    config = msgspec.structs.replace(REGRESSION, losses={"visibility": 0.0})
    run = run_of(tmp_path / "run", config, "coordinates")
    card = export(run, tmp_path / "out", ("saved_model",))
    assert card.outputs.keys() == {"keypoints"}
    assert "always 1" in card.outputs["keypoints"].meaning


def loading(monkeypatch, load):
    """SavedModels are loaded by ``load``, given what really loads them."""
    form = FORMATS["saved_model"]
    changed = replace(form, load=lambda path: load(form.load, path))
    monkeypatch.setitem(exporting.FORMATS, "saved_model", changed)


def answering_otherwise(change):
    def load(really, path: Path):
        run = really(path)
        return lambda crops: change(dict(run(crops)))

    return load


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f | {"keypoints": f["keypoints"] + [0.6, 0, 0]}, r"only 0% of the keypoints"),
        (lambda f: f | {"keypoints": f["keypoints"] - [0, 0, 0.1]}, r"scores up to 0.1\)"),
        (lambda f: f | {"visibility": f["visibility"] + 0.1}, r"scores up to 0.1\)"),
        (lambda f: f | {"visibility": f["visibility"] * np.nan}, "are not all numbers"),
        (lambda f: {"keypoints": f["keypoints"]}, "gives keypoints, not "),
    ],
)
def test_a_file_that_answers_otherwise_is_not_kept(blazepose, tmp_path, monkeypatch, change, says):
    loading(monkeypatch, answering_otherwise(change))
    with pytest.raises(TrainingError, match=r"to is saved_model: .*" + says):
        export(blazepose, tmp_path / "out", ("saved_model",), head="coordinates")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("no such op\nand more"), OSError("no such op")])
def test_a_file_that_its_runtime_refuses_is_not_kept(blazepose, tmp_path, monkeypatch, error):
    def refuse(really, path: Path):
        raise error

    loading(monkeypatch, refuse)
    with pytest.raises(TrainingError, match=r"written and run: no such op; leave this format out$"):
        export(blazepose, tmp_path / "out", ("saved_model",))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverged_is_not_blamed_on_a_converter(run_of, tmp_path):
    run = run_of(tmp_path / "run", REGRESSION, "coordinates")
    run.net.trainable_variables[0].assign(run.net.trainable_variables[0] * np.nan)
    with pytest.raises(TrainingError, match="its training diverged"):
        export(run, tmp_path / "out", ("saved_model",))
    assert not (tmp_path / "out").exists()


def test_agreement_is_counted_by_keypoint():
    expected = {"keypoints": np.zeros((1, 4, 3))}
    found = {"keypoints": np.array([[[0.3, 0.4, 0.01], [0.6, 0, 0], [3, 4, 0], [0, 0, 0.03]]])}
    agrees = agreement(expected, found)
    assert (agrees.crops, agrees.near) == (1, 0.25)
    assert (agrees.max_px, agrees.max_score) == pytest.approx((5, 0.03))


def test_a_flip_test_of_a_run_that_saw_no_mirror_image_is_noted(run_of, tmp_path):
    config = msgspec.structs.replace(REGRESSION, augment=AugmentConfig(flip=0.0))
    run = run_of(tmp_path / "run", config, "coordinates")
    assert export(run, tmp_path / "out", ("saved_model",)).notes == []
    (note,) = export(run, tmp_path / "flip", ("saved_model",), flip=True).notes
    assert "was trained on no mirror image" in note


# --- less than float32


def quantised(run, out, precision, shards, head=None):
    dataset = Dataset.open(shards)
    return export(run, out, ("tflite",), head, precision=precision, dataset=dataset)


@pytest.mark.parametrize(
    ("precision", "head", "stored"),
    [
        ("float16", "coordinates", np.float16),
        ("int8", "coordinates", np.int8),
        ("float16", "heatmap", np.float16),
        ("int8", "heatmap", None),  # of this tiny model all weights are too few to be worth it
    ],
)
def test_a_smaller_file_is_scored_beside_the_model(
    blazepose, tiny_shards, tmp_path, precision, head, stored
):
    card = quantised(blazepose, tmp_path / "small", precision, tiny_shards, head)
    file = card.files["tflite"]
    assert file.precision == precision
    assert file.bytes == (tmp_path / "small" / "model.tflite").stat().st_size
    interpreter = Interpreter(str(tmp_path / "small" / "model.tflite"))
    types = {each["dtype"] for each in interpreter.get_tensor_details()}
    assert stored is None or stored in types
    assert (file.accuracy.split, file.accuracy.crops > 0) == ("val", True)
    assert file.accuracy.epe == pytest.approx(file.accuracy.keras_epe, rel=0.1)
    assert card == msgspec.json.decode((tmp_path / "small/model.json").read_bytes(), type=Card)
    assert any("int8" in note for note in card.notes) == ((precision, head) == ("int8", "heatmap"))


def test_the_model_beside_it_scores_as_it_does_in_an_evaluation(blazepose, tiny_shards, tmp_path):
    dataset = Dataset.open(tiny_shards)
    card = quantised(blazepose, tmp_path / "small", "float16", tiny_shards, "coordinates")
    crops = load(dataset, "val", blazepose.crop_rule, SIDE)
    found = blazepose.predict(crops, flip=False).keypoints["coordinates"]
    poses = Truth.of(crops).poses(crops.skeleton, found)
    accuracy = card.files["tflite"].accuracy
    assert accuracy.crops == len(crops)
    assert accuracy.keras_epe == pytest.approx(metrics.epe(poses).value, rel=1e-4)
    assert accuracy.keras_pck == pytest.approx(metrics.pck(poses).value)


@pytest.mark.parametrize(
    ("pck", "epe", "refused"),
    [(0.79, 10.4, False), (0.77, 10.0, True), (0.8, 11.5, True), (None, 10.4, False)],
)
def test_a_file_that_loses_much_is_not_kept(
    blazepose, tiny_shards, tmp_path, monkeypatch, pck, epe, refused
):
    scores = iter([(pck, epe), (None if pck is None else 0.8, 10.0)])
    monkeypatch.setattr(exporting, "_scores", lambda *_: next(scores))
    if refused:
        with pytest.raises(TrainingError, match=r"model.tflite of float16 loses too much: PCK@0.2"):
            quantised(blazepose, tmp_path / "small", "float16", tiny_shards)
        assert list(tmp_path.iterdir()) == []
    else:
        assert quantised(blazepose, tmp_path / "small", "float16", tiny_shards)


@pytest.mark.parametrize(
    ("formats", "precision", "says"),
    [
        (("tflite", "onnx"), "int8", "precision is int8: tflite alone is written so, and `to` is"),
        (("tflite",), "int4", "precision is int4: expected float32, float16 or int8"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(blazepose, tmp_path, formats, precision, says):
    with pytest.raises(TrainingError, match=says):
        export(blazepose, tmp_path / "out", formats, precision=precision)


def test_the_runs_own_shards_are_asked_for_where_they_are_needed(blazepose, tiny_shards, tmp_path):
    run = Run(blazepose.path)
    with pytest.raises(TrainingError, match=r"is not what .* was begun with"):
        run.export(tmp_path / "out", to="tflite", precision="int8", dataset=tiny_shards)
    with pytest.raises(TrainingError, match="`dataset` changes nothing without a `precision`"):
        run.export(tmp_path / "out", to="tflite", dataset=tiny_shards)


def test_another_backend_is_refused(blazepose, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TrainingError, match="set KERAS_BACKEND=tensorflow"):
        export(blazepose, tmp_path / "out", ("saved_model",))


def test_an_output_in_use_is_left_alone(blazepose, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match="already exists"):
        export(blazepose, tmp_path / "out", ("saved_model",))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_missing_library_is_named_before_anything_is_done(blazepose, tmp_path, monkeypatch):
    form = replace(FORMATS["onnx"], needs=("onnx", "no_such_runtime"))
    monkeypatch.setitem(exporting.FORMATS, "onnx", form)
    with pytest.raises(TrainingError, match=r"onnx needs no_such_runtime: .*kpdata\[export\]"):
        export(blazepose, tmp_path / "out", ("saved_model", "onnx"))
    assert not (tmp_path / "out").exists()


def test_a_head_or_a_decoding_that_the_run_lacks_is_refused(run_of, tmp_path):
    run = run_of(tmp_path / "run", REGRESSION, "coordinates")
    with pytest.raises(
        KpdataError, match="head is heatmap: regression has no such head; known: coordinates"
    ):
        export(run, tmp_path / "out", ("saved_model",), head="heatmap")
    plain = BLAZEPOSE.with_options(offsets=False)
    run = run_of(tmp_path / "plain", plain, *BOTH)
    with pytest.raises(KpdataError, match="decode is udp: it needs the output offset"):
        export(run, tmp_path / "out", ("saved_model",), decode="udp")


def test_the_input_is_named_and_takes_bytes(blazepose):
    model = pose_model(blazepose, "heatmap", flip=False, decode="dark")
    assert (model.input.name, model.input.dtype) == ("image", "uint8")


def test_the_documented_program_runs(blazepose, tmp_path):
    export(blazepose, tmp_path / "exported", ("onnx",))
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    (tmp_path / "photo.jpg").write_bytes(codec.encode(noise, "jpeg"))
    (program,) = (
        code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
        if "onnxruntime" in code
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(COCO17.keypoints)
    card = json.loads((tmp_path / "exported/model.json").read_text())
    assert len(lines) == card["outputs"]["keypoints"]["shape"][0]
