"""The Python API, with a model that is declared here: trained, scored, run and exported."""

import inspect
import json
import pickle
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import keras
import numpy as np
import pytest

import kpdata
from kpdata.core.errors import DatasetError, FormatError, KpdataError, TrainingError
from kpdata.core.progress import Progress
from kpdata.images import codec
from kpdata.shards.dataset import Dataset
from kpdata.train import api
from kpdata.train.api import Run, compare, train
from kpdata.train.infer import frames
from kpdata.train.infer.media import VideoFile
from kpdata.train.models import registry
from kpdata.train.models.base import ModelSpec, Options, option

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are exported through TensorFlow", allow_module_level=True)


class ToyOptions(Options, frozen=True):
    """What the toy can be asked for."""

    width: Annotated[int, option("Channels.", low=1, high=64)] = 8


def build_toy(options: ToyOptions, num_keypoints: int, input_size: int) -> keras.Model:
    """One convolution, pooled, and a dense layer."""
    image = keras.Input((input_size, input_size, 3), name="image")
    x = keras.layers.Conv2D(options.width, 5, 4, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2 * num_keypoints, bias_initializer="ones")(x)
    xy = keras.layers.Reshape((num_keypoints, 2), name="xy_norm", dtype="float32")(0.5 * x)
    return keras.Model(image, {"xy_norm": xy})


TOY = ModelSpec("toy", "one convolution", build_toy, options=ToyOptions)


class Heard(Progress):
    """Keeps the steps, the notes and the lines."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []
        self.lines: list[str] = []

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        self.steps.append(step)

    def reach(self, done: int, note: str = "") -> None:
        self.notes.append(note)

    def tell(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[ModelSpec]:
    registry.register(TOY)
    yield TOY
    del registry.models()["toy"]


@pytest.fixture(scope="module")
def heard() -> Heard:
    return Heard()


@pytest.fixture(scope="module")
def run(toy: ModelSpec, heard: Heard, tiny_shards: Path, tmp_path_factory: Any) -> Run:
    """A toy trained for three epochs."""
    return train(
        tiny_shards,
        tmp_path_factory.mktemp("runs") / "toy",
        model="toy",
        width=4,
        epochs=3,
        input_size=32,
        batch_size=4,
        settings={"ema": 0.5},
        skip_checks=True,
        progress=heard,
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    (tmp_path / "photo.png").write_bytes(codec.encode(noise, "png"))
    return tmp_path / "photo.png"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of 20 frames, each brighter than the one before."""
    with VideoFile(tmp_path / "clip.mp4", 12) as file:
        for number in range(20):
            file.add(np.full((48, 64, 3), 10 * number, np.uint8))
    return tmp_path / "clip.mp4"


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> "list[weakref.ref[np.ndarray]]":
    """The pixels of all frames that were read."""
    pixels: list[weakref.ref[np.ndarray]] = []

    def watched(item):
        for image in read(item):
            pixels.append(weakref.ref(image.pixels))
            yield image

    read = frames.read
    monkeypatch.setattr(frames, "read", watched)
    return pixels


# --- a model of one's own


def test_a_registered_model_is_trained_by_its_name(run, heard):
    assert run.config.model == "toy"
    assert run.config.options == {"width": 4}
    assert [record.trains for record in run.state.epochs] == ["all"] * 3
    assert run.best is not None
    assert run.best.heads == ("coordinates",)
    assert run.state.epochs[0].losses.keys() == {"loss", "coordinates"}
    assert "epoch 3 of 3" in heard.steps
    assert repr(run).startswith(f"<Run {run.path}: toy, 17 keypoints of ")


def test_training_says_when_the_whole_run_is_done(heard):
    assert re.search(r"loss \d.*, run done in \d+ s", " ".join(heard.notes))


def test_the_parameters_of_a_small_model_are_counted_one_by_one(heard):
    said = " ".join(heard.lines)
    assert re.search(r"32 px; 474 of 474 parameters are trained", said), said


def test_a_registered_model_is_scored(run, tiny_shards):
    evaluation = run.evaluate(Dataset.open(tiny_shards), split="test")
    score = evaluation["pck@0.2"]
    assert 0 <= score.value <= 1
    assert score.interval[0] <= score.value <= score.interval[1]
    assert score.baseline is not None
    assert score.n > 0
    assert "left_shoulder" in score.definition
    assert evaluation.heads["coordinates"]["epe"].unit == "px"
    assert set(evaluation) >= {"pck@0.2", "epe", "nme", "oks ap"}
    assert (run.path / "evaluation-test" / "metrics.json").is_file()
    assert repr(evaluation).startswith("<Evaluation of ")
    with pytest.raises(
        KeyError, match=r"no score 'pck@0.3'; did you mean pck@0.2\? known: pck@0.2"
    ):
        evaluation["pck@0.3"]
    with pytest.raises(KpdataError, match="not computed: skeleton coco17 names no head pair"):
        evaluation["PCKh@0.5"]
    (same,) = {d.overall.difference for d in compare(run, run.path).differences}
    assert same == 0


def test_a_registered_model_predicts(run, photo, tmp_path):
    one, two = run.predict(photo, boxes={"photo.png": [[0, 0, 40, 40], [40, 20, 80, 60]]})
    assert one.keypoints.shape == (17, 3)
    assert (one.keypoints[:, 2] == 1).all()  # it tells no visibility
    assert (one.image, one.frame, one.visibility) == (str(photo), None, None)
    assert two.bbox_xyxy.tolist() == [40, 20, 80, 60]
    assert one.pixels().shape == (60, 80, 3)
    assert one.instance().num_labelled == 17
    assert repr(one) == f"<Prediction of 17 keypoints in {photo}, mean score 1.00>"
    written = run.predict([str(photo)], out=tmp_path / "out", coco_out=tmp_path / "coco.json")
    assert written.tally.images == 1
    assert (tmp_path / "out" / "predictions.jsonl").is_file()
    assert len(json.loads((tmp_path / "coco.json").read_text())) == 1
    assert (tmp_path / "out" / "overlays" / "photo.png.jpg").is_file()


def test_images_in_memory_are_predicted_as_those_in_files_are(run, photo):
    pixels = codec.decode(photo.read_bytes())
    (found,) = run.predict(pixels)
    (expected,) = run.predict(photo)
    np.testing.assert_allclose(found.keypoints, expected.keypoints)
    assert found.image == "image 0"
    np.testing.assert_array_equal(found.pixels(), pixels)
    boxes = np.array([[0, 0, 40, 40.0]])
    assert len(run.predict([pixels, pixels], boxes=boxes)) == 2
    with pytest.raises(FormatError, match=r"image 0 is an array of float64 .*: expected uint8"):
        run.predict(pixels / 255)


def test_predictions_keep_no_frame_of_a_video_and_read_it_anew(run, clip, alive):
    poses = run.predict(clip)
    assert [pose.frame for pose in poses] == list(range(20))
    assert len(alive) == 20
    assert not [pixels for pixels in alive if pixels() is not None]
    sent = pickle.loads(pickle.dumps(poses[7]))
    assert abs(sent.pixels().mean() - 70) < 5
    np.testing.assert_array_equal(sent.keypoints, poses[7].keypoints)


def test_predict_shows_the_parameters_of_iter_predictions():
    whole, stream = map(inspect.signature, (Run.predict, Run.iter_predictions))
    assert whole.parameters == stream.parameters
    assert whole.parameters["min_score"].default == 0.2


def test_a_stream_holds_some_frames_and_no_predictions(run, clip, alive, tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "AT_A_TIME", 4)
    stream = run.iter_predictions(clip, out=tmp_path / "out")
    assert not alive
    seen: weakref.WeakSet[Any] = weakref.WeakSet()
    for pose in stream:
        seen.add(pose)
        assert len(seen) <= 2
        assert sum(pixels() is not None for pixels in alive) <= 2 * frames.AT_A_TIME
    assert stream.tally.frames == 20
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 20


def test_a_stream_that_is_left_leaves_no_half_of_a_file(run, clip, tmp_path):
    stream = run.iter_predictions(clip, out=tmp_path / "out")
    next(stream)
    del stream
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"margin": 0}, "margin is 0: expected a number from 0.1 to 10"),
        ({"margin": float("nan")}, "margin is nan: expected a number from 0.1 to 10"),
        ({"margin": "wide"}, "margin is 'wide': expected a number from 0.1 to 10"),
        ({"min_score": 1.5}, "min_score is 1.5: expected 0 to 1"),
        ({"min_score": "high"}, "min_score is 'high': expected a number from 0 to 1"),
        ({"min_box_score": -1}, "min_box_score is -1: expected 0 to 1"),
    ],
)
def test_a_prediction_out_of_range_is_refused_before_anything_is_written(
    run, photo, tmp_path, option, says
):
    with pytest.raises(KpdataError, match=f"^{re.escape(says)}$"):
        run.iter_predictions(photo, out=tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_an_evaluation_that_cannot_be_is_refused_before_anything_is_written(
    run, tiny_shards, tmp_path
):
    says = "crop_from is 'foo': expected bbox, keypoints or image"
    with pytest.raises(KpdataError, match=says):
        run.evaluate(tiny_shards, out=tmp_path / "out", crop_from="foo")
    with pytest.raises(KpdataError, match="`decode` changes nothing: coordinates need no"):
        run.evaluate(tiny_shards, out=tmp_path / "out", decode="foo")
    assert not (tmp_path / "out").exists()


def test_a_registered_model_is_exported(run, tmp_path):
    card = run.export(tmp_path / "exported", to="saved_model")
    assert card.head == "coordinates"
    assert card.files["saved_model"].agreement.max_px < 1e-3
    with pytest.raises(TrainingError, match="to is coreml: toy is exported as tflite, onnx, saved"):
        run.export(tmp_path / "other", to=["coreml"])
    with pytest.raises(TrainingError, match="to is coreml: toy is exported as tflite"):
        run.export(tmp_path / "other", to="coreml")
    with pytest.raises(TrainingError, match="to is empty: expected some of tflite, onnx, saved"):
        run.export(tmp_path / "other", to=())
    assert not (tmp_path / "other").exists()


def test_a_registered_model_stands_in_the_commands_help():
    from click.testing import CliRunner

    from kpdata.cli.train import command

    said = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--width INTEGER toy: Channels. Default: 8." in said
    assert "[blazepose|regression|toy]" in said


# --- training


def test_a_run_goes_on_and_knows_its_shards(run, tmp_path):
    again = train(None, run.path, resume=True)
    assert again.state == run.state
    with pytest.raises(KpdataError, match="`width` does not go with `resume`"):
        train(None, run.path, resume=True, width=3)
    with pytest.raises(TrainingError, match="holds a run already: add `resume` to go on with it"):
        train(run.info.shards, run.path, model="toy")


def test_a_dataset_is_a_path_or_an_opened_one(run, tiny_shards):
    opened = kpdata.open(tiny_shards)
    for dataset in (tiny_shards, str(tiny_shards), opened, opened.stored, None):
        assert train(dataset, run.path, resume=True).state == run.state
    with pytest.raises(
        KpdataError, match="dataset is of type int: expected a folder or URL of shards"
    ):
        train(3, run.path, resume=True)
    with pytest.raises(TrainingError, match="`dataset` is missing: the shards to train on"):
        train(None, run.path)


class FolderStore:
    """A store whose objects are a folder's files."""

    def __init__(self, folder: Path):
        self.folder = folder

    def list(self, url):
        paths = self.folder.iterdir()
        return [SimpleNamespace(name=path.name, size=path.stat().st_size) for path in paths]

    def download(self, url, path):
        shutil.copy(self.folder / url.name, path)


def test_a_dataset_on_a_store_is_trained_on_and_found_again(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setattr("kpdata.shards.remote.store_of", lambda url: FolderStore(tiny_shards))
    url = "s3://bucket/shards"
    first = train(
        url, tmp_path / "run", model="toy", epochs=1, input_size=32, skip_checks=True
    )  # fmt: skip
    assert first.info.shards == url
    assert train(None, tmp_path / "run", resume=True).state == first.state
    assert first.evaluate(url).report.root_hash == first.info.root_hash


def test_a_run_starts_from_another(run, tiny_shards, tmp_path):
    started = train(
        tiny_shards, tmp_path / "b", model="toy", width=4, epochs=1, input_size=32,
        init_from=run, skip_checks=True,
    )  # fmt: skip
    assert started.config.init_from == str(run.path.resolve())
    with pytest.raises(
        TrainingError, match=r"init_from is .*: its weights are of model=toy width=4"
    ):
        train(tiny_shards, tmp_path / "c", model="toy", init_from=run)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"widht": 3}, "`widht` is unknown: did you mean `width`?"),
        ({"size": "lite"}, "`size` is of blazepose, and this model is toy"),
        ({"width": 99}, "width is 99: expected 1 to 64"),
        ({"stage": "head"}, "stage is head: toy has no such stage; known: all"),
        ({"epochs": 0}, "epochs is 0: expected 1 or more"),
        ({"epochs": "x"}, "epochs is 'x': expected a whole number"),
        ({"input_size": 64.5}, "input_size is 64.5: expected a whole number"),
        ({"batch_size": True}, "batch_size is True: expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0: expected 1 to 65536"),
        ({"seed": "1"}, "seed is '1': expected a whole number"),
        ({"devices": 1.0}, "devices is 1.0: expected a whole number"),
        ({"settings": ["margin=0"]}, "margin is 0.0: expected 0.1 to 10"),
        ({"input_size": 8}, "input_size is 8: expected 32 to 1024"),
        ({"settings": ["width=99"]}, "setting width=99: width is 99: expected 1 to 64"),
        ({"settings": {"epochs": 3}}, "epochs is of a phase: `epochs` 3, or phases.0.epochs=3"),
    ],
)
def test_what_cannot_be_is_named_in_pythons_words(tiny_shards, tmp_path, choices, says):
    with pytest.raises(KpdataError) as caught:
        train(tiny_shards, tmp_path / "run", model="toy", **choices)
    assert says in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path, run):
    with pytest.raises(TrainingError, match=r"is no training run: config\.json is missing"):
        Run.open(tmp_path)
    with pytest.raises(DatasetError, match=r"holds no metrics\.json"):
        compare(run, tmp_path)


def test_a_room_without_a_model_is_named(tmp_path, monkeypatch):
    (tmp_path / "attic").mkdir()
    (tmp_path / "attic" / "__init__.py").touch()
    monkeypatch.setattr(registry.rooms, "__path__", [*registry.rooms.__path__, str(tmp_path)])
    says = r"train/models/attic/__init__\.py declares no model: each folder there defines MODEL"
    with pytest.raises(KpdataError, match=says):
        registry.models.__wrapped__()
    del sys.modules["kpdata.train.models.attic"]


def test_importing_the_api_and_asking_for_help_import_no_keras():
    program = (
        "import sys, kpdata.train.api\n"
        "from kpdata.train.models.registry import models\n"
        "print([spec.option_infos for spec in models().values()] and sorted("
        "{'keras', 'tensorflow', 'jax', 'matplotlib', 'apache_beam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_every_parameter_is_an_option_of_its_command():
    import inspect

    import click

    from kpdata.cli import evaluate, export, predict
    from kpdata.cli import train as training

    pairs = [
        (training.command, train, {"dataset": "shards", "model_options": None}),
        (evaluate.command, Run.evaluate, {"self": "run", "dataset": "shards"}),
        (predict.command, Run.predict, {"self": "run", "sources": "inputs"}),
        (export.command, Run.export, {"self": "run", "to": "formats"}),
    ]
    for command, function, renamed in pairs:
        options = {p.name for p in command.get_params(click.Context(command))}
        names = set(inspect.signature(function).parameters) - {"progress"}
        assert {renamed.get(name, name) for name in names} - {None} <= options
    assert api.__doc__
