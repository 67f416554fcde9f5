"""``kpdata evaluate`` and ``compare``, with a model that knows the answers but for an error."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import kpdata as library
from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError
from kpdata.core.progress import Progress
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.images import codec
from kpdata.train.api import Run
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.evaluate.report import FILES, read_report
from kpdata.train.evaluate.scores import score_all
from kpdata.train.infer.predictions import Predictions, read_predictions, read_truth
from kpdata.train.models.base import Phase
from kpdata.train.run.backend import prepare_backend
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder, RunInfo, State

Kpdata = Callable[..., Any]


class StandIn:
    """Looks like a Predictor: finds what is there, some pixels off."""

    input_size = 64
    score_note, trained_with_flips = None, True
    heads: tuple[str, ...] = ("heatmap", "coordinates")

    def __init__(self, info: RunInfo, error: float):
        self.config = TrainConfig(phases=(Phase("both", 1, 64, 1e-3),))
        self.info, self.error = info, error
        self.best = Best("best", 0, 3, 64, ("heatmap", "coordinates"), {})
        self.asked: list[tuple[bool, str]] = []

    @property
    def crop_rule(self) -> CropRule:
        return CropRule(self.config.crop_from, self.config.margin)

    @property
    def skeleton(self) -> Skeleton:
        return self.info.skeleton

    def predict(
        self, crops: LabelledCrops, flip: bool, decode: str, progress: Progress
    ) -> Predictions:
        self.asked.append((flip, decode))
        progress.reach(len(crops))
        near, far = crops.truth.copy(), crops.truth.copy()
        near[..., 2] = far[..., 2] = 0.5
        near[..., 0] += self.error
        far[..., 0] += 3 * self.error
        seen = np.where(crops.truth[..., 2] == 2, 0.8, 0.4)
        found = {"heatmap": near, "coordinates": far}
        return Predictions({head: found[head] for head in self.heads}, seen, self.heads[0])


@pytest.fixture
def model(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, StandIn]:
    """Runs by folder name; ``exact``, and ``rough``, which is 10 px off."""
    manifest = library.open(tiny_shards).manifest
    crop = "a square around the bbox, × 1.25"
    pose = ((0.5, 0.5),) * 17
    info = RunInfo("x", manifest.root_hash, manifest.skeleton, crop, pose, {"train": 1}, {})
    runs = {"exact": StandIn(info, 0.0), "rough": StandIn(info, 10.0)}

    class Predictor:
        @staticmethod
        def open(path: Path) -> StandIn:
            return runs[path.name]

    module = ModuleType("kpdata.train.infer.predictor")
    vars(module)["Predictor"] = Predictor
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("kpdata.train.trained.prepare_backend", lambda: None)
    return runs


def row(text: str, name: str) -> str:
    """The one line of a table that begins with ``name``, indented or not."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name}  ")]
    return line


def test_a_decoding_that_there_is_not_is_refused_before_anything_is_read(model, tmp_path):
    with pytest.raises(KpdataError, match="decode is 'foo': expected dark, udp, quadratic or argm"):
        Run("exact").evaluate("nowhere", decode="foo", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluate_prints_scores_and_leaves_all_files(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    result = kpdata("evaluate", tmp_path / "rough", tiny_shards)
    assert (result.code, result.err) == (0, "")
    folder = tmp_path / "rough" / "evaluation-test"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    report = read_report(folder / "metrics.json")
    scores = {score.name: score for score in report.heads["heatmap"]}
    epe = row(result.out, "EPE").split()
    assert epe[:6] == ["EPE", "10.00", "px", "10.00", "…", "10.00"]
    assert epe[6:8] == ["30.00", "px"]
    assert epe[11:] == [f"{scores['EPE'].baseline:.2f}", "px", f"{scores['EPE'].n}", "keypoints"]
    pck = scores["PCK@0.2 (torso)"]
    assert f"{100 * pck.value:.2f} %" in row(result.out, "PCK@0.2 (torso)")
    assert "100.00 %" in row(result.out, "visibility accuracy")
    by_keypoint = result.out.partition("PCK@0.2 (torso) by keypoint")[2]
    assert f"{100 * pck.averaged['wrist']:.2f} %" in row(by_keypoint, "wrist")
    assert f"{100 * pck.parts['left_wrist']:.2f} %" in row(by_keypoint, "left_wrist")
    assert (
        "not computed: PCKh@0.5, pckh@0.707 (stretched): skeleton coco17 names no head"
        in result.out
    )
    assert "annotated boxes, not a detector's" in result.out
    assert report.split_sha256 in result.out
    for path in folder.glob("*.png"):
        assert min(codec.decode(path.read_bytes()).shape[:2]) > 100


def test_metrics_json_says_what_the_scores_depend_on_and_follows_from_the_other_files(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    options = ("--split", "val", "--no-flip", "--decode", "argmax", "--crop-from", "image")
    result = kpdata("evaluate", tmp_path / "rough", tiny_shards, *options, "--out", out, "--json")
    manifest = library.open(tiny_shards).manifest
    assert result.out == (out / "metrics.json").read_text()
    assert model["rough"].asked == [(False, "argmax")]
    report = read_report(out / "metrics.json")
    assert (report.kpdata, report.root_hash) == (library.__version__, manifest.root_hash)
    assert (report.settings.split, report.settings.flip_test, report.epoch) == ("val", False, 3)
    assert report.crop == "the whole image, squared around its centre, × 1.25"
    assert report.instances == manifest.splits["val"].instances
    assert any("trained on other crops" in note for note in report.notes)
    truth = read_truth(out / "truth.jsonl")
    recorded = read_predictions(out / "predictions.jsonl")
    again = score_all(report.skeleton, truth, recorded.predictions, recorded.baseline)
    assert msgspec.json.encode(again.heads) == msgspec.json.encode(report.heads)
    assert msgspec.json.encode(again.visibility) == msgspec.json.encode(report.visibility)
    assert again.not_computed == report.not_computed
    # The mean pose is the middle of each crop, which is the middle of the image.
    assert recorded.baseline[..., :2] == pytest.approx(
        np.broadcast_to([32, 24], (len(truth), 17, 2))
    )


def test_truth_and_predictions_are_in_pixels_of_the_source(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    assert kpdata("evaluate", tmp_path / "exact", tiny_shards, "--quiet").out == ""
    truth = read_truth(tmp_path / "exact" / "evaluation-test" / "truth.jsonl")
    originals = {
        (sample.key, number): instance
        for sample in library.open(tiny_shards)["test"]
        for number, instance in enumerate(sample.instances)
    }
    assert set(truth.keys) == set(originals)
    for row_number, key in enumerate(truth.keys):
        expected = originals[key]
        np.testing.assert_allclose(truth.keypoints[row_number], expected.keypoints, atol=1e-4)
        np.testing.assert_allclose(truth.bbox_xyxy[row_number], expected.bbox_xyxy, atol=1e-4)
        assert truth.area[row_number] == pytest.approx(expected.area)
    assert truth.image_size.tolist() == [[64, 48]] * len(truth)


def test_evaluating_the_training_pictures_is_warned_of(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    result = kpdata("evaluate", tmp_path / "exact", tiny_shards, "--split", "train")
    assert "WARNING: the run was trained on these very images" in result.out
    instances = library.open(tiny_shards).manifest.splits["train"].instances
    assert f"split train: {instances} instances" in result.out  # and not the copies


@pytest.mark.parametrize("trained_with_flips", [True, False])
@pytest.mark.parametrize("option", [None, "--flip", "--no-flip"])
def test_the_mirror_image_is_for_those_who_saw_one_unless_asked_for(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path,
    trained_with_flips: bool, option: str | None,
) -> None:  # fmt: skip
    model["exact"].trained_with_flips = trained_with_flips
    options = [option] if option else []
    result = kpdata("evaluate", tmp_path / "exact", tiny_shards, *options)
    flip = trained_with_flips if option is None else option == "--flip"
    assert model["exact"].asked == [(flip, "dark")]
    assert f"{'with' if flip else 'without'} flip test" in result.out
    warned = "WARNING: the flip test was asked for, and the run was trained on no" in result.out
    assert warned == (flip and not trained_with_flips)


def test_only_heatmaps_are_decoded(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    run = model["exact"]
    both = kpdata("evaluate", tmp_path / "exact", tiny_shards).out
    assert "heatmaps decoded by dark, the model's answer is that of its heatmap head" in both
    run.heads = ("coordinates",)
    one = kpdata("evaluate", tmp_path / "exact", tiny_shards).out
    assert "with flip test, the model's answer is that of its coordinates head\n" in one


def test_the_weights_are_named_by_epoch_and_phase_and_a_kept_head_by_its_own_epoch(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    run = model["exact"]
    phases = (Phase("heatmap", 9, 64, 1e-3), Phase("regression", 9, 64, 1e-3))
    run.config = msgspec.structs.replace(run.config, phases=phases)
    run.best = Best("best", 1, 14, 64, ("heatmap", "coordinates"), {}, earlier={"heatmap": 7})
    said = kpdata("evaluate", tmp_path / "exact", tiny_shards).out
    assert "weights of epoch 14 (phase 2, regression), of its heatmap head of epoch 7, " in said
    found = kpdata("evaluate", tmp_path / "exact", tiny_shards, "--json").json
    assert (found["epoch"], found["phase"], found["trains"]) == (14, 2, "regression")
    assert (found["primary"], found["earlier"]) == ("heatmap", {"heatmap": 7})


@pytest.mark.parametrize(("name", "leads"), [("rough", "PCK@0.2 (torso)"), ("exact", "EPE")])
def test_where_nearly_every_keypoint_is_right_the_error_leads(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path,
    name: str, leads: str,
) -> None:  # fmt: skip
    said = kpdata("evaluate", tmp_path / name, tiny_shards).out.splitlines()
    table = next(i for i, line in enumerate(said) if line.startswith("metric"))
    assert said[table + 1].startswith(f"{leads} ")
    assert said[table - 2].startswith(f"{leads} ")
    assert ("PCK@0.2 (torso) 100.00 % is near its end" in said[table - 2]) == (leads == "EPE")
    (title,) = (line for line in said if " by keypoint" in line)
    assert title.startswith(f"{leads} by keypoint, and ")


def test_the_error_of_each_keypoint_is_on_the_screen(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    said = kpdata("evaluate", tmp_path / "rough", tiny_shards).out
    assert "PCK@0.2 (torso) by keypoint, and EPE of the heatmap head" in said
    assert row(said, "left_knee").split()[-2:] == ["10.00", "px"]


def test_definitions_are_printed_for_those_who_ask(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    asked = kpdata("evaluate", tmp_path / "rough", tiny_shards, "--explain").out
    scores = read_report(tmp_path / "rough" / "evaluation-test" / "metrics.json").heads["heatmap"]
    said = kpdata("evaluate", tmp_path / "rough", tiny_shards).out
    for score in scores:
        assert f"{score.name}: {score.definition}\n" in asked
        assert score.definition not in said
    assert "definitions: with --explain" in said
    left_out = f"{scores[0].left_out['keypoints not labelled']:,} keypoints not labelled"
    assert left_out in said


def test_one_picture_for_several_people_is_warned_of(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    warning = "crops of val show the same as another instance's"
    split = ("evaluate", tmp_path / "exact", tiny_shards, "--split", "val")
    assert warning not in kpdata(*split).out
    assert warning in kpdata(*split, "--crop-from", "image").out


def test_a_torso_that_most_lack_gives_way_to_the_box_and_that_is_said(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("kpdata.train.evaluate.scores._USUAL", 1.0)
    result = kpdata("evaluate", tmp_path / "exact", tiny_shards, "--split", "train")
    assert "PCK@0.2 (bbox)" in result.out
    assert "note: the reference length is bbox: " in result.out


def test_the_reference_of_the_training_is_that_of_the_scores(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    drawn: list[str] = []
    monkeypatch.setattr(
        "kpdata.train.evaluate.plots.pck_curves", lambda curves, name, path: drawn.append(name)
    )
    monkeypatch.setattr("kpdata.train.evaluate.scores._USUAL", 1.0)  # most lack a torso
    run = model["exact"]
    run.config = msgspec.structs.replace(run.config, reference=("left_hip", "left_knee"))
    result = kpdata("evaluate", tmp_path / "exact", tiny_shards)
    assert "PCK@0.2 (left_hip–left_knee)" in result.out
    assert "(torso)" not in result.out
    assert "the reference length is" not in result.out  # which was not chosen by what is labelled
    assert drawn == ["left_hip–left_knee"]
    report = read_report(tmp_path / "exact" / "evaluation-test" / "metrics.json")
    assert report.settings.reference == ("left_hip", "left_knee")


def test_a_pair_that_the_skeleton_lacks_is_had_as_the_reason_says(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    """``not computed: skeleton coco17 names no head pair: add "head": [name, name] …``."""
    skeleton = msgspec.structs.replace(COCO17, name="coco17-head", head=("left_ear", "right_ear"))
    path, out = tmp_path / "skeleton.json", tmp_path / "shards"
    path.write_bytes(msgspec.json.encode(skeleton))
    command = ("convert", "shards", tiny_shards, "--to-skeleton", path, "--out", out)
    assert kpdata(*command).code == 0
    assert "PCKh@0.5" in row(kpdata("evaluate", tmp_path / "exact", out).out, "PCKh@0.5")


@pytest.mark.parametrize(
    ("margin", "trained", "other"),
    [
        (1.5, CropRule("bbox", 1.5), None),
        (1.25, CropRule("bbox", 1.5), "a square around the bbox, × 1.5"),
        (1.25, CropRule("image", 1.0), "the whole image, squared around its centre, × 1"),
    ],
)
def test_crops_are_held_against_those_of_the_training_whoever_cut_them(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_coco: Path, tmp_path: Path,
    margin: float, trained: CropRule, other: str | None,
) -> None:  # fmt: skip
    run, crops = model["exact"], tmp_path / "crops"
    run.config = msgspec.structs.replace(
        run.config, crop_from=trained.crop_from, margin=trained.margin
    )
    source = ("coco", tiny_coco / "annotations.json", "--images", tiny_coco / "images")
    crop = ("--crop", 64, "--margin", margin, "--out", crops)
    assert kpdata("convert", *source, *crop).code == 0
    said = kpdata("evaluate", tmp_path / "exact", crops, "--split", "train").out
    assert f"crop: as the shards were cropped: around the bbox, × {margin:g}" in said
    notes = [line for line in said.splitlines() if "trained on other crops" in line]
    assert notes == ([f"note: the run was trained on other crops: {other}"] if other else [])
    refused = kpdata(
        "evaluate", tmp_path / "exact", crops, "--split", "val", "--crop-from", "image"
    )
    assert (refused.code, refused.out) == (1, "")
    assert f"image: {crops} holds crops (a square around the bbox" in refused.err


def test_what_cannot_be_evaluated_is_refused(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "exact", tmp_path / "out"
    unknown = kpdata("evaluate", run, tiny_shards, "--split", "dev", "--out", out)
    assert (unknown.code, unknown.out) == (1, "")
    assert "has no split 'dev'; it has train, val, test" in unknown.err
    model["exact"].info = msgspec.structs.replace(model["exact"].info, skeleton=LSP14)
    other = kpdata("evaluate", run, tiny_shards, "--out", out)
    assert other.code == 1
    assert "the run predicts 14 keypoints of lsp14, the dataset has 17 of coco17" in other.err
    assert "Traceback" not in unknown.err + other.err
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_prediction_that_is_no_number_leaves_nothing(
    kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path
) -> None:
    model["exact"].error = np.nan
    result = kpdata("evaluate", tmp_path / "exact", tiny_shards)
    assert result.code == 1
    assert "predicted: instance 0, nose is [nan" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_as_the_trainer_leaves_it(kpdata: Kpdata, tiny_shards: Path, tmp_path: Path) -> None:
    prepare_backend()
    manifest = library.open(tiny_shards).manifest
    config = TrainConfig(options={"size": "lite"}, phases=(Phase("both", 1, 64, 1e-3),))
    info = RunInfo("x", manifest.root_hash, COCO17, "", ((0.5, 0.5),) * 17, {"train": 6}, {})
    folder = RunFolder(tmp_path / "run")
    folder.begin(config, info)
    weights = folder.save_weights("best", lambda path: config.build(17, 64).save_weights(path))
    folder.save_state(State(best=Best(weights, 0, 1, 64, ("heatmap", "coordinates"), {})))
    scored = folder.path / "evaluation-test"
    for options in ((), ("--no-flip", "--decode", "argmax")):
        result = kpdata("evaluate", folder.path, tiny_shards, "--quiet", *options)
        assert (result.code, result.out, result.err) == (0, "", "")
        report = read_report(scored / "metrics.json")
        assert report.settings.flip_test == (not options)
    assert (report.input_size, report.primary) == (64, "heatmap")
    assert {score.name for score in report.heads["coordinates"]} >= {"PCK@0.2 (torso)", "OKS AP"}
    assert report.visibility
    recorded = read_predictions(scored / "predictions.jsonl")
    # Seen from an untrained model, keypoints lie somewhere in the crops and not in their corner.
    spread = recorded.predictions.keypoints["coordinates"][..., :2].mean(axis=(0, 1))
    assert (np.abs(spread - recorded.baseline[..., :2].mean(axis=(0, 1))) < 64).all()


def test_what_was_never_trained_is_not_scored_and_not_averaged(
    kpdata: Kpdata, tiny_shards: Path, tmp_path: Path
) -> None:
    prepare_backend()
    config = TrainConfig(
        options={"size": "lite"},
        phases=(Phase("both", 1, 64, 1e-3),),
        losses={"visibility": 0},
        augment=AugmentConfig(flip=0),
    )
    info = RunInfo("x", "", COCO17, "", ((0.5, 0.5),) * 17, {}, {})
    folder = RunFolder(tmp_path / "run")
    folder.begin(config, info)
    weights = folder.save_weights("best", lambda path: config.build(17, 64).save_weights(path))
    folder.save_state(State(best=Best(weights, 0, 1, 64, ("heatmap", "coordinates"), {})))
    result = kpdata("evaluate", folder.path, tiny_shards)
    assert "note: the run was not trained on visibility (losses.visibility is 0): the score" in (
        result.out
    )
    report = read_report(folder.path / "evaluation-test" / "metrics.json")
    assert not report.settings.flip_test
    assert report.visibility == ()
    assert report.not_computed["visibility accuracy"] == "the model does not predict visibility"
    recorded = read_predictions(folder.path / "evaluation-test" / "predictions.jsonl")
    scores = {name: found[..., 2] for name, found in recorded.predictions.keypoints.items()}
    np.testing.assert_array_equal(scores["coordinates"], scores["heatmap"])


# --- compare --------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(kpdata: Kpdata, model: dict[str, StandIn], tiny_shards: Path, tmp_path: Path) -> Path:
    """A folder with the evaluated runs ``exact`` and ``rough``."""
    for name in model:
        assert kpdata("evaluate", tmp_path / name, tiny_shards, "--quiet").code == 0
    return tmp_path


def test_compare_prints_second_less_first(kpdata: Kpdata, evaluated: Path) -> None:
    result = kpdata("compare", evaluated / "rough", evaluated / "exact")
    assert (result.code, result.err) == (0, "")
    # 10 px off in x, and 0: the same for every resample.
    expected = ["EPE", "10.00", "px", "0.00", "px", "-10.00", "px", "-10.00", "…", "-10.00"]
    assert row(result.out, "EPE").split()[:10] == expected
    by_keypoint = result.out.partition("PCK@0.2 (torso) by keypoint")[2]
    assert "+" in row(by_keypoint, "left_knee")
    assert "not compared: PCKh@0.5" in result.out


def test_compare_as_json(kpdata: Kpdata, evaluated: Path) -> None:
    found = kpdata("compare", evaluated / "exact", evaluated / "rough", "--json").json
    epe = next(each for each in found["differences"] if each["name"] == "EPE")
    assert epe["overall"]["difference"] == pytest.approx(10)
    assert epe["overall"]["interval"] == pytest.approx([10, 10])
    assert epe["averaged"]["wrist"]["difference"] == pytest.approx(10)
    assert found["first"]["folder"] == str(evaluated / "exact" / "evaluation-test")
    report = read_report(evaluated / "exact" / "evaluation-test" / "metrics.json")
    assert found["instances"] == report.instances


def test_compare_needs_no_trainer(evaluated: Path) -> None:
    program = (
        "import sys; from kpdata.cli.main import cli\n"
        f"cli.main(['compare', {str(evaluated / 'exact')!r}, {str(evaluated / 'rough')!r}], "
        "standalone_mode=False)\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'apache_beam', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("[]\n")


def test_compare_refuses_what_was_not_evaluated(kpdata: Kpdata, evaluated: Path) -> None:
    result = kpdata("compare", evaluated / "exact", evaluated / "rough", "--split", "val")
    assert (result.code, result.out) == (1, "")
    assert "evaluation-val holds no metrics.json: first evaluate" in result.err
