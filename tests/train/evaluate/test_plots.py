"""Pictures of a run: what they show, not how they look."""

import cv2
import numpy as np
import pytest

from kpdata.core.errors import TrainingError
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Poses, pck
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.evaluate import plots
from kpdata.train.evaluate.report import MEAN_POSE
from kpdata.train.evaluate.scores import CURVE_THRESHOLDS
from kpdata.view import draw

PAIR = Skeleton(
    name="pair", keypoints=("left_eye", "right_eye", "nose"), torso=("left_eye", "right_eye")
)

HISTORY = """epoch,phase,trains,input_size,loss,loss_heatmap,val_pck_heatmap,learning_rate
1,0,heatmap,128,4.0,3.0,,0.001
2,0,heatmap,128,2.0,1.5,0.25,0.002
3,1,both,256,1.0,0.5,,0.001
4,1,both,256,0.5,0.25,0.5,0.0005
"""


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, which are still saved."""
    figures = []
    save = plots._save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def crops(count=20, side=64):
    """Grey crops of 64² that show the source at half its size, moved by (10, 20)."""
    keypoints = np.tile([[16.5, 32.5, 2], [48.5, 32.5, 2], [0, 0, 0]], (count, 1, 1))
    truth = keypoints * [2, 2, 1] + [10, 20, 0]
    truth[:, 2] = 0
    missing = np.full(count, np.nan)
    return LabelledCrops(
        skeleton=PAIR, side=side, crop="", keys=tuple(f"crop {i}" for i in range(count)),
        instance=np.zeros(count, np.int64), keypoints=keypoints.astype(np.float32), truth=truth,
        to_source=np.tile([[2.0, 0, 10], [0, 2, 20]], (count, 1, 1)),
        source_size=np.full((count, 2), 200.0), area=missing, head_size=missing,
        bbox_xyxy=np.full((count, 4), np.nan),
        is_copy=np.zeros(count, bool),
        images=np.full((count, side, side, 3), 128, np.uint8), counts={},
    )  # fmt: skip


def size_of(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image.shape[:2]


def test_training_curves_show_every_loss_and_score(tmp_path, drawn):
    (tmp_path / "history.csv").write_text(HISTORY)
    plots.curves(tmp_path / "history.csv", tmp_path / "curves.png")
    assert min(size_of(tmp_path / "curves.png")) > 500
    assert [path.name for path in tmp_path.glob("*.png")] == ["curves.png"]
    losses, scores, rates = drawn[0].axes
    marks = {(1.0, "heatmap\n128 px"), (3.0, "both\n256 px")}
    assert {(t.get_position()[0] + 0.5, t.get_text()) for t in losses.texts} == marks
    lines = {line.get_label(): line for axes in drawn[0].axes for line in axes.lines}
    assert {"loss", "loss_heatmap", "val_pck_heatmap", "learning_rate"} <= set(lines)
    assert lines["loss"].get_ydata().tolist() == [4, 2, 1, 0.5]
    assert losses.get_yscale() == "log"
    assert lines["val_pck_heatmap"].get_xdata().tolist() == [2, 4]
    assert lines["val_pck_heatmap"] in scores.lines
    assert lines["learning_rate"] in rates.lines


def test_negative_losses_are_drawn_on_a_plain_axis(tmp_path, drawn):
    (tmp_path / "history.csv").write_text("epoch,loss,learning_rate\n1,-1.5,0.1\n2,-2,0.1\n")
    plots.curves(tmp_path / "history.csv", tmp_path / "curves.png")
    assert drawn[0].axes[0].get_yscale() == "linear"


def test_a_history_that_cannot_be_drawn_is_named(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY.splitlines()[0] + "\n")
    with pytest.raises(TrainingError, match=r"history\.csv: no epoch"):
        plots.curves(path, tmp_path / "curves.png")
    path.write_text(HISTORY.replace("0.25,0.002", "much,0.002"))
    with pytest.raises(TrainingError, match=r"history\.csv: column val_pck_heatmap: .*much"):
        plots.curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_the_pck_curve_holds_model_and_floor(tmp_path, drawn):
    named = {"heatmap": np.linspace(0, 1, 51), MEAN_POSE: np.linspace(0, 0.5, 51)}
    plots.pck_curves(named, "torso", tmp_path / "pck.png")
    assert min(size_of(tmp_path / "pck.png")) > 300
    (axes,) = drawn[0].axes
    model, baseline = axes.lines
    assert model.get_ydata()[-1] == 100
    assert (baseline.get_label(), baseline.get_ydata()[-1]) == (MEAN_POSE, 50)
    assert model.get_xdata().tolist() == CURVE_THRESHOLDS.tolist()
    assert "torso" in axes.get_xlabel()


def test_bars_are_percentages_of_averaged_keypoints(tmp_path, drawn):
    truth = np.tile([[0.0, 0, 2], [10, 0, 2], [5, 5, 2]], (4, 1, 1))
    predicted = truth.copy()
    predicted[0, 1, 1] = 9  # one right eye of four
    score = pck(Poses(PAIR, truth, predicted)).score(np.random.default_rng(0), 5)
    baseline = pck(Poses(PAIR, truth, truth + 100)).score(np.random.default_rng(0), 5)
    plots.keypoint_bars({"heatmap": score, "b": score, MEAN_POSE: baseline}, tmp_path / "k.png")
    assert min(size_of(tmp_path / "k.png")) > 100
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["eye", "nose"]
    assert [bar.get_width() for bar in axes.patches] == [87.5, 100, 87.5, 100]
    assert axes.lines[0].get_xdata().tolist() == [0, 0]
    assert axes.get_xlabel() == "PCK@0.2 (torso), %"


def test_errors_are_in_sides_of_the_crop():
    # A crop of 64 px at half the source's size is 128 source pixels wide. One of two labelled
    # keypoints is 12.8 px off: a mean of 0.05. What is not labelled does not count.
    shown = crops(3)
    predicted = shown.truth.copy()
    predicted[1, 0, 0] += 12.8
    predicted[2, 2, :2] = 1000
    assert plots.mean_errors(shown, predicted) == pytest.approx([0, 0.05, 0])


def test_best_median_and_worst():
    errors = np.random.default_rng(0).permutation(101).astype(float)
    best, median, worst = (errors[plots.choose(errors, w)] for w in ("best", "median", "worst"))
    assert best.tolist() == list(range(12))
    assert median.tolist() == list(range(44, 56))
    assert worst.tolist() == list(range(100, 88, -1))
    few = np.array([3.0, 1.0, 2.0])
    assert plots.choose(few, "best").tolist() == plots.choose(few, "median").tolist() == [1, 2, 0]
    assert plots.choose(few, "worst").tolist() == [0, 2, 1]


def test_a_sheet_shows_the_truth_on_the_left_and_the_prediction_on_the_right(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "contact_sheet", lambda tiles, **_: seen.extend(tiles))
    shown = crops(3)
    predicted = shown.truth.copy()
    predicted[:, :2, 1] += 24  # 12 px further down in the crop
    predicted[:, 2] = [100, 60, 0.3]  # the nose, of which the truth knows nothing
    plots.sheet(shown, predicted, np.array([2, 0]))
    assert [caption.split(": ")[1] for _, caption in seen] == ["crop 2", "crop 0"]
    assert seen[0][1].startswith("truth | predicted, off 18.8 %")  # 24 of 128
    rgb = seen[0][0]
    assert rgb.shape == (64, 128, 3)
    truth, answer = rgb[:, :64], rgb[:, 64:]
    assert truth[32, 16].tolist() == answer[44, 16].tolist() == list(draw.LEFT)
    assert truth[32, 48].tolist() == answer[44, 48].tolist() == list(draw.RIGHT)
    assert answer[20, 45].tolist() == list(draw.MIDDLE)
    assert (truth == draw.MIDDLE).all(axis=2).sum() == 0
