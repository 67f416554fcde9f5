import re
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from kpdata import synth
from kpdata.checks.gates import COORDINATES, OVERFIT, SIDES, VARIETY, VISIBILITY, Verdict
from kpdata.core import transform
from kpdata.core.crop import square_crop
from kpdata.core.errors import TrainingError
from kpdata.core.skeletons import COCO17
from kpdata.images import codec
from kpdata.images.resample import warp, with_spare_channel
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.loop import preflight
from kpdata.train.models.base import Phase
from kpdata.train.models.blazepose import SIZES, Size
from kpdata.train.run.config import TrainConfig

SIDE = 64
BLAZEPOSE = TrainConfig(
    options={"size": "lite"},
    phases=(Phase("heatmap", 5, SIDE, 1e-3), Phase("regression", 5, SIDE, 1e-3)),
)
REGRESSION = TrainConfig(
    model="regression", options={"backbone": "mobilenet"}, phases=(Phase("all", 1, SIDE, 1e-3),)
)
pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture(scope="module")
def people() -> LabelledCrops:
    """Rendered people, a square of SIDE pixels each."""
    crops, labels = [], []
    for sample in synth.samples(24, seed=1, size=(160, 120)):
        for instance in sample.instances:
            if instance.num_labelled > 8 and len(labels) < 24:
                crop = square_crop(instance.bbox_xyxy, 1.25, SIDE)
                rgb = with_spare_channel(codec.decode_stored(sample.image))
                crops.append(warp(rgb, crop, SIDE, SIDE))
                moved = np.column_stack(
                    [transform.apply_affine(crop, instance.xy), instance.visibility]
                )
                labels.append(np.where(moved[:, 2:] > 0, moved, 0))
    keypoints, count = np.stack(labels), len(labels)
    return LabelledCrops(
        side=SIDE,
        to_source=np.tile(np.eye(2, 3), (count, 1, 1)),
        images=np.stack(crops),
        skeleton=COCO17,
        crop="whole",
        keys=tuple(map(str, range(count))),
        instance=np.zeros(count, np.int64),
        keypoints=keypoints.astype(np.float32),
        truth=keypoints,
        source_size=np.full((count, 2), SIDE),
        area=np.full(count, np.nan),
        bbox_xyxy=np.full((count, 4), np.nan),
        head_size=np.full(count, np.nan),
        is_copy=np.zeros(count, bool),
        counts={},
    )


def every_check(config: TrainConfig, crops: LabelledCrops) -> list[Verdict]:
    return [*preflight.check_labels(crops), *preflight.check_learning(config, crops)]


@pytest.mark.parametrize("config", [BLAZEPOSE, REGRESSION], ids=lambda config: config.model)
def test_good_data_and_a_model_that_learns_pass_every_gate(people, config, monkeypatch):
    monkeypatch.setitem(SIZES, "lite", Size((8, 16, 24, 32, 48), (1, 1, 1, 1, 1), (1, 1)))
    verdicts = every_check(config, people)
    gates = [VISIBILITY, SIDES, COORDINATES, OVERFIT, VARIETY]
    assert [verdict.gate for verdict in verdicts] == gates
    assert [verdict.gate for verdict in verdicts if not verdict.passed] == []
    preflight.raise_failed(verdicts)
    assert "8 training crops" in verdicts[3].explanation


def test_pictures_that_show_nothing_fail_what_the_model_must_learn(people, monkeypatch):
    monkeypatch.setattr(preflight, "_MOST_STEPS", 80)
    black = replace(people, images=np.zeros_like(people.images))
    verdicts = {verdict.gate: verdict for verdict in every_check(REGRESSION, black)}
    assert not verdicts[OVERFIT].passed
    assert not verdicts[VARIETY].passed
    assert verdicts[COORDINATES].passed


def test_a_model_that_does_not_move_fails(people, monkeypatch):
    monkeypatch.setattr(preflight, "_RATE", 1e-8)
    monkeypatch.setattr(preflight, "_MOST_STEPS", 40)
    verdicts = {verdict.gate: verdict for verdict in preflight.check_learning(REGRESSION, people)}
    assert not verdicts[OVERFIT].passed
    assert "seen 40 times" in verdicts[OVERFIT].explanation


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (REGRESSION, {"phases": (Phase("all", 1, SIDE, 10.0),)}),
        (BLAZEPOSE, {"phases": (Phase("heatmap", 1, SIDE, 10.0),)}),
        (REGRESSION, {"phases": (Phase("head", 1, SIDE, 1e-3),)}),
        (BLAZEPOSE, {"losses": {"heatmap": 0.0, "visibility": 1.0, "coordinates": 0.0}}),
    ],
    ids=["rate", "rate of a heatmap", "frozen backbone", "losses"],
)
def test_what_the_run_itself_would_do_is_tried(people, monkeypatch, config, changes):
    """A rate of 10, a random backbone that is frozen, and losses that teach no place."""
    monkeypatch.setitem(SIZES, "lite", Size((8, 16, 24, 32, 48), (1, 1, 1, 1, 1), (1, 1)))
    if "losses" in changes:
        changes = changes | {"phases": (Phase("both", 1, SIDE, 1e-3),)}
    monkeypatch.setattr(preflight, "_MOST_STEPS", 200)
    verdicts = {
        v.gate: v for v in preflight.check_learning(structs.replace(config, **changes), people)
    }
    assert not verdicts[OVERFIT].passed


def test_the_phase_that_trains_most_is_tried(people, monkeypatch):
    tried = []
    monkeypatch.setattr(preflight, "Learner", lambda net, config, phase, _: tried.append(phase))
    phases = (Phase("head", 2, SIDE, 3e-3), Phase("all", 3, SIDE, 1e-4))
    config = structs.replace(REGRESSION, phases=phases)
    with pytest.raises(AttributeError):
        list(preflight.check_learning(config, people))
    assert (tried[0].trains, tried[0].learning_rate) == ("all", preflight._RATE)


def test_keypoints_that_weigh_nothing_need_not_be_learnt(people, monkeypatch):
    monkeypatch.setattr(preflight, "_MOST_STEPS", 40)
    spoilt = np.arange(len(COCO17)) % 2 == 0
    weightless = dict.fromkeys(np.array(COCO17.keypoints)[spoilt].tolist(), 0.0)
    labelled = people.keypoints[preflight._some(np.arange(len(people))), :, 2] > 0
    for weights, counted in (({}, labelled), (weightless, labelled[:, ~spoilt])):
        config = structs.replace(REGRESSION, keypoint_weights=weights)
        verdicts = {verdict.gate: verdict for verdict in preflight.check_learning(config, people)}
        assert f" of {counted.sum()} keypoints" in verdicts[OVERFIT].explanation


def test_only_originals_are_judged_and_learnt(people, monkeypatch):
    """Copies with inverted flags and labels elsewhere would fail every gate."""
    learnt = []
    monkeypatch.setattr(LabelledCrops, "take", lambda crops, some: learnt.append(some.tolist()))
    truth, count = people.truth.copy(), len(people)
    copies = np.arange(count) % 3 > 0
    truth[copies] *= (-50, 9, 0.5)
    mixed = replace(people, truth=truth, is_copy=copies)
    assert all(verdict.passed for verdict in preflight.check_labels(mixed))
    few = replace(people, is_copy=np.arange(count) > 2)
    for crops in (mixed, few):
        with pytest.raises(TypeError):  # nothing was taken
            list(preflight.check_learning(REGRESSION, crops))
    assert learnt == [list(range(0, count, 3)), [0, 1, 2]]


def test_all_that_failed_is_said_at_once():
    verdicts = [Verdict("a", False, "first"), Verdict("b", True, "fine"), Verdict("c", False, "2")]
    with pytest.raises(TrainingError, match=re.escape("failed.\na: first\nc: 2")) as caught:
        preflight.raise_failed(verdicts)
    assert "fine" not in str(caught.value)
    preflight.raise_failed(verdicts[1:2])
