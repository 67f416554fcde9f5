"""Checks of what the crops allow, before training."""

import msgspec
import numpy as np
import pytest

from kpdata.core.progress import Progress
from kpdata.core.skeleton import Skeleton
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.loop.checks import (
    warn_if_worse_than_start,
    warn_of_close_keypoints,
    with_reference,
)
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, PretrainedStart, State

MOUSE = Skeleton(name="mouse", keypoints=("snout", "left_ear", "right_ear", "tail_base"))
CONFIG = TrainConfig(
    options={"size": "lite"}, phases=(Phase("both", 1, 192, 1e-3),), crop_from="image"
)


def mice(length: float, boxed: bool = False, count: int = 40, side: int = 192) -> LabelledCrops:
    """Mice of ``length`` px of the crop from snout to tail, their ears a tenth of it from there."""
    rng = np.random.default_rng(0)
    shape = np.array([[0, 0], [0.1, -0.05], [0.1, 0.05], [1, 0]]) * length
    keypoints = np.full((count, 4, 3), 2.0)
    keypoints[..., :2] = shape + rng.uniform(10, 20, (count, 1, 2))
    keypoints[::7, 2] = 0
    box = [0.0, 0, 4 * side, 4 * side] if boxed else [np.nan] * 4
    scale = np.array([4.0, 4, 1])
    return LabelledCrops(
        skeleton=MOUSE, side=side, crop="", keys=tuple(map(str, range(count))),
        instance=np.zeros(count, np.int64), keypoints=keypoints.astype(np.float32),
        truth=keypoints * scale, to_source=np.tile([[4.0, 0, 0], [0, 4, 0]], (count, 1, 1)),
        source_size=np.full((count, 2), 4.0 * side), area=np.full(count, np.nan),
        head_size=np.full(count, np.nan), bbox_xyxy=np.tile(box, (count, 1)),
        is_copy=np.zeros(count, bool), images=np.zeros((count, 1, 1, 3), np.uint8), counts={},
    )  # fmt: skip


class Told(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.told: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def tell(self, text: str) -> None:
        self.told.append(text)


def warned(config: TrainConfig, crops: LabelledCrops) -> list[str]:
    told = Told()
    warn_of_close_keypoints(config, crops, told)
    return told.warnings


def test_a_small_animal_in_a_large_frame_is_warned_of_with_what_helps() -> None:
    # Ears 0.1 · 40 = 4 px apart; a cell of BlazePose's heatmap is 4 px: 1 cell. For 2 cells the
    # input must be twice as large.
    (text,) = warned(CONFIG, mice(40.0))
    assert "left_ear and right_ear lie 4.0 of 192 pixels apart, 1.0 cells" in text
    assert "spans 40 (medians)" in text
    assert "train with `input_size` 384; or train a second model on crops around" in text
    assert "crop_from=bbox" not in text
    (text,) = warned(CONFIG, mice(40.0, boxed=True))
    assert "Better crop around the boxes (crop_from=bbox" in text
    (text,) = warned(CONFIG, mice(5.0))  # 3,072 px would do: more than can be
    assert "`input_size`" not in text


@pytest.mark.parametrize("length", [80.0, 100.0, 150.0])
def test_keypoints_that_are_apart_or_of_an_instance_that_fills_its_crop_are_no_fault(
    length: float,
) -> None:
    assert warned(CONFIG, mice(length)) == []


def test_a_face_that_fills_its_crop_is_no_fault_however_close_its_keypoints() -> None:
    crops = mice(150.0)
    crops.keypoints[:, 1:3, :2] = crops.keypoints[:, :1, :2]
    assert warned(CONFIG, crops) == []


def test_a_model_without_heatmaps_is_judged_by_cells_of_four_pixels() -> None:
    phases = (Phase("all", 1, 192, 1e-3),)
    config = TrainConfig(model="regression", phases=phases, crop_from="image")
    (text,) = warned(config, mice(40.0))
    assert "1.0 cells" in text


def test_single_keypoints_say_nothing_of_spacing() -> None:
    crops = mice(40.0)
    crops.keypoints[:, 1:] = 0
    assert warned(CONFIG, crops) == []


def test_without_torso_and_boxes_the_longest_pair_becomes_the_runs_reference() -> None:
    told = Told()
    config = with_reference(CONFIG, mice(40.0), told)
    assert config.reference == ("snout", "tail_base")
    assert told.told[0].startswith("PCK is measured by the distance of snout and tail_base")
    edged = msgspec.structs.replace(MOUSE, edges=(("snout", "left_ear"), ("snout", "right_ear")))
    crops = mice(40.0)
    object.__setattr__(crops, "skeleton", edged)
    assert with_reference(CONFIG, crops, told).reference == ("snout", "left_ear")


@pytest.mark.parametrize(
    ("began", "ended", "says"), [(0.5, 0.4, 1), (0.5, 0.5, 0), (0.4, 0.5, 0), (None, 0.1, 0)]
)
def test_a_run_that_ends_below_its_pretrained_start_says_so(began, ended, says) -> None:
    areas = {} if began is None else {"heatmap": began}
    start = PretrainedStart("blazepose-full", (), {}, areas)
    best = Best("f", 0, 3, 256, ("heatmap",), {}, {"heatmap": ended})
    told = Told()
    warn_if_worse_than_start(State(best=best, start=start), told)
    assert len(told.warnings) == says
    if says:
        assert "curve is 0.400, and blazepose-full had 0.500 before" in told.warnings[0]
    warn_if_worse_than_start(State(best=best), told)
    assert len(told.warnings) == says


def test_a_reference_that_there_is_stays() -> None:
    named = msgspec.structs.replace(CONFIG, reference=("snout", "left_ear"))
    assert with_reference(named, mice(40.0), Told()) == named
    assert with_reference(CONFIG, mice(40.0, boxed=True), Told()) == CONFIG
    single = mice(40.0)
    single.truth[:, 1:] = 0
    assert with_reference(CONFIG, single, Told()) == CONFIG
