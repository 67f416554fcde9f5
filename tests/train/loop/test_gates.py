import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kpdata import formats, synth
from kpdata.checks import gates
from kpdata.checks.gates import COORDINATES, OVERFIT, SIDES, VARIETY, VISIBILITY, check_data
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.images.headers import probe

SEEDS = st.integers(0, 2**32 - 1)
few_examples = hypothesis_settings(max_examples=12)

Data = tuple[np.ndarray, np.ndarray, np.ndarray | None, Skeleton]

# A person seen from the front: x to the image's right, y down, z towards the camera.
BODY = {
    "ankle": (0.15, 0.9, 0.0), "knee": (0.14, 0.5, 0.05), "hip": (0.13, 0.05, 0.0),
    "wrist": (0.35, 0.0, 0.1), "elbow": (0.3, -0.25, -0.05), "shoulder": (0.22, -0.5, 0.0),
    "eye": (0.04, -0.8, 0.1), "ear": (0.08, -0.78, 0.0),
    "neck": (0.0, -0.6, 0.0), "head_top": (0.0, -0.95, 0.0), "nose": (0.0, -0.75, 0.14),
}  # fmt: skip


def people(
    seed: int, skeleton: Skeleton = LSP14, count: int = 600, from_front: float = 0.75
) -> Data:
    """Stick figures seen from all around, ``from_front`` of them from the front half."""
    rng = np.random.default_rng(seed)
    body = np.array([placed(name) for name in skeleton.keypoints])  # (K, 3)
    limbs = body + rng.normal(0, 0.03, (count, *body.shape))
    front = rng.random(count) < from_front
    yaw = np.where(front, 0, np.pi) + rng.uniform(-1.4, 1.4, count)
    c, s = np.cos(yaw), np.sin(yaw)
    x = limbs[..., 0] * c[:, None] + limbs[..., 2] * s[:, None]
    tilt = rng.normal(0, 0.5, count)[:, None]
    c, s = np.cos(tilt), np.sin(tilt)
    turned = np.stack([c * x - s * limbs[..., 1], s * x + c * limbs[..., 1]], axis=2)  # (N, K, 2)
    size = rng.integers(180, 640, (count, 2)).astype(float)
    height = size.min(axis=1) * rng.uniform(0.25, 0.4, count)
    center = size * rng.uniform(0.45, 0.55, (count, 2))
    xy = center[:, None] + height[:, None, None] * turned
    visibility = np.where(rng.random(xy.shape[:2]) < 0.1, 1, 2)
    for name in {"nose", "left_eye", "right_eye"} & set(skeleton.keypoints):
        visibility[:, skeleton.index(name)] = np.where(front, 2, 1)
    boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
    return np.concatenate([xy, visibility[..., None]], axis=2), size, boxes, skeleton


def placed(name: str) -> tuple[float, float, float]:
    side = {"left": 1, "right": -1}.get(name.split("_")[0], 0)
    x, y, z = BODY[name.split("_", 1)[1] if side else name]
    return x * side, y, z


def walking_animals(seed: int, count: int = 600) -> Data:
    """Four-legged animals in profile, looking left or right; the near legs are a little lower."""
    rng = np.random.default_rng(seed)
    names = [f"{side}_{leg}_paw" for leg in ("front", "hind") for side in ("left", "right")]
    skeleton = Skeleton("animal", (*names, "nose", "tail"))
    looks_left = rng.random(count) < 0.5
    ahead = np.where(looks_left, -1, 1)
    near = np.where(looks_left, 1, -1)
    xy = np.zeros((count, 6, 2))
    for k, (along, side) in enumerate([(0.4, 1), (0.4, -1), (-0.4, 1), (-0.4, -1)]):
        xy[:, k, 0] = ahead * along + rng.normal(0, 0.08, count)
        xy[:, k, 1] = 0.3 + 0.03 * side * near
    xy[:, 4] = np.stack([0.55 * ahead, np.full(count, -0.2)], axis=1)
    xy[:, 5] = np.stack([-0.55 * ahead, np.full(count, -0.1)], axis=1)
    size = np.tile([400.0, 300.0], (count, 1))
    xy = size[:, None] / 2 + 200 * xy + rng.normal(0, 15, (count, 1, 2))
    return np.dstack([xy, np.full(xy.shape[:2], 2)]), size, None, skeleton


def failed(data: Data) -> list[str]:
    return [verdict.gate for verdict in check_data(*data) if not verdict.passed]


def inverted(data: Data) -> Data:
    truth, *rest = data
    flag = truth[..., 2]
    return np.dstack([truth[..., :2], np.where(flag > 0, 3 - flag, 0)]), *rest


def half_swapped(data: Data, seed: int = 0) -> Data:
    truth, size, boxes, skeleton = data
    swapped = np.random.default_rng(seed).random(len(truth)) < 0.5
    swaps = swapped[:, None, None]
    return np.where(swaps, truth[:, skeleton.flip_index], truth), size, boxes, skeleton


def second_half_swapped(data: Data) -> Data:
    truth, size, boxes, skeleton = data
    swaps = (np.arange(len(truth)) >= len(truth) / 2)[:, None, None]
    return np.where(swaps, truth[:, skeleton.flip_index], truth), size, boxes, skeleton


def relabelled(data: Data, xy: np.ndarray) -> Data:
    truth, size, boxes, skeleton = data
    return np.dstack([xy, truth[..., 2]]), size, boxes, skeleton


def percent(data: Data) -> Data:
    """As 1-based pixels over the image's size, times 100."""
    truth, size, *_ = data
    return relabelled(data, 100 * (truth[..., :2] + 0.5) / size[:, None])


@pytest.fixture(scope="module")
def lsp(real_data: Path) -> Data:
    return opened("lsp", real_data / "lsp" / "joints.mat", "train")


@pytest.fixture(scope="module")
def coco(real_data: Path) -> Data:
    return opened("coco", real_data / "coco_mini" / "person_keypoints_train2017.json", None)


def opened(format_name: str, path: Path, split: str | None) -> Data:
    source = formats.read(format_name, path)
    rows = [
        (instance, sample.image)
        for sample in source.samples
        if sample.split == split
        for instance in sample.instances
        if instance.num_labelled and not instance.is_crowd
    ]
    size = [(i.width, i.height) if i.width else header_size(i.uri) for _, i in rows]
    boxes = [np.full(4, np.nan) if r.bbox_xyxy is None else r.bbox_xyxy for r, _ in rows]
    truth = np.stack([instance.keypoints for instance, _ in rows]).astype(float)
    return truth, np.array(size, float), np.stack(boxes), source.skeleton


def header_size(path: str) -> tuple[int, int]:
    return probe(Path(path).read_bytes()).upright_size


@few_examples
@given(SEEDS, st.sampled_from([LSP14, COCO17]), st.sampled_from([0.25, 0.7, 0.95, 1.0]))
def test_sound_people_pass(seed, skeleton, from_front):
    assert failed(people(seed, skeleton, from_front=from_front)) == []


@few_examples
@given(SEEDS)
def test_people_seen_as_often_from_behind_pass_when_a_visible_nose_tells_the_side(seed):
    assert failed(people(seed, COCO17, from_front=0.5)) == []


@few_examples
@given(SEEDS)
def test_animals_in_profile_are_not_judged_by_their_sides(seed):
    verdicts = check_data(*walking_animals(seed))
    assert all(verdict.passed for verdict in verdicts)
    assert "not judged" in verdicts[1].explanation


def test_a_skeleton_without_pairs_skips_the_judgement_of_sides():
    truth, size, boxes, _ = half_swapped(people(0))
    boat = Skeleton("boat", tuple(f"part_{k}" for k in range(14)), flip_pairs=())
    verdict = check_data(truth, size, boxes, boat)[1]
    assert verdict.passed
    assert "fewer than two flip pairs" in verdict.explanation


@few_examples
@given(SEEDS)
def test_inverted_visibility_fails_by_its_own_gate_alone(seed):
    assert failed(inverted(people(seed))) == [VISIBILITY]


def crowd(seed: int, occluded: float) -> Data:
    """People of whom some are seen whole and some hidden whole, as in a crowd."""
    truth, *rest = people(seed)
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 0.5, 1.0], len(truth), p=[0.2, 1.6 - 2 * occluded, 2 * occluded - 0.8])
    hidden = rng.random(truth.shape[:2]) < share[:, None]
    truth[..., 2] = np.where(hidden, 1, 2)
    return truth, *rest


@pytest.mark.parametrize("occluded", [0.62, 0.64, 0.7])
def test_a_crowd_is_occluded_for_the_most_part_and_passes(occluded):
    data = crowd(0, occluded)
    share = (data[0][..., 2] == 1).mean()
    assert share == pytest.approx(occluded, abs=0.04)
    assert failed(data) == []


def test_a_crowd_whose_flag_is_inverted_where_hardly_any_is_seen_whole_fails():
    truth, *rest = people(0)
    rng = np.random.default_rng(0)
    whole = rng.random(len(truth)) < 0.3
    seen = np.where(whole[:, None], True, rng.random(truth.shape[:2]) < 0.6)
    truth[..., 2] = np.where(seen, 1, 2)  # inverted: what is seen says occluded
    assert 0.6 < (truth[..., 2] == 1).mean() < 0.85
    assert failed((truth, *rest)) == [VISIBILITY]


@pytest.mark.parametrize("occluded", [0.62, 0.65, 0.7, 0.84])
def test_without_instances_seen_whole_there_is_no_evidence_of_a_crowd(occluded):
    truth, *rest = people(0)
    hidden = np.random.default_rng(0).random(truth.shape[:2]) < occluded
    truth[..., 2] = np.where(hidden, 1, 2)
    assert failed((truth, *rest)) == [VISIBILITY]


def test_a_flag_that_only_says_labelled_gets_its_own_explanation():
    truth, *rest = people(0)
    truth[..., 2] = 1
    verdict = check_data(truth, *rest)[0]
    assert not verdict.passed
    assert "what is labelled, not what is seen" in verdict.explanation


@few_examples
@given(SEEDS, st.sampled_from([LSP14, COCO17]))
def test_sides_swapped_in_half_the_samples_fail_by_their_own_gate_alone(seed, skeleton):
    data = people(seed, skeleton)
    assert failed(half_swapped(data, seed)) == [SIDES]
    assert failed(second_half_swapped(data)) == [SIDES]


@few_examples
@given(SEEDS, st.sampled_from(LSP14.flip_pairs))
def test_one_pair_with_exchanged_names_is_named(seed, pair):
    truth, *rest = people(seed)
    i, j = map(LSP14.index, pair)
    truth[:, [i, j]] = truth[:, [j, i]]
    verdict = check_data(truth, *rest)[1]
    assert not verdict.passed
    assert "/".join(pair) in verdict.explanation


def test_labels_as_the_image_shows_them_are_consistent_and_said_to_be_one_sided():
    truth = people(0)[0]
    left, right = np.array([[LSP14.index(n) for n in pair] for pair in LSP14.flip_pairs]).T
    side = truth[:, left, 0].mean(axis=1) < truth[:, right, 0].mean(axis=1)
    truth = np.where(side[:, None, None], truth, truth[:, LSP14.flip_index])
    verdict = gates.judge_sides(truth, LSP14)
    assert verdict.passed
    assert "as the image shows it" in verdict.explanation


@few_examples
@given(SEEDS)
def test_percent_normalised_and_exchanged_coordinates_fail_by_their_own_gate_alone(seed):
    data = people(seed)
    truth, size, *_ = data
    for wrong, cause in (
        (percent(data), "percentages"),
        (relabelled(data, truth[..., :2] / size[:, None]), "normalised"),
        (relabelled(data, truth[..., 1::-1]), "y, x"),
        (relabelled(data, truth[..., :2] * 3), "another size"),
        (relabelled(data, truth[..., :2] / 20), "crops"),
    ):
        verdicts = {verdict.gate: verdict for verdict in check_data(*wrong)}
        assert failed(wrong) == [COORDINATES]
        assert cause in verdicts[COORDINATES].explanation


def test_boxes_whose_size_was_read_as_a_corner_are_found():
    truth, size, boxes, skeleton = people(0)
    boxes[:, 2:] -= boxes[:, :2]
    verdict = check_data(truth, size, boxes, skeleton)[2]
    assert not verdict.passed
    assert "box" in verdict.explanation


def test_small_objects_in_the_middle_of_small_images_are_no_percentages():
    rng = np.random.default_rng(0)
    size = np.full((200, 2), 160.0)
    truth = np.dstack([80 + rng.normal(0, 5, (200, 14, 2)), np.full((200, 14), 2)])
    assert gates.judge_coordinates(truth, size, None).passed


def test_unlabelled_keypoints_are_never_looked_at():
    truth, *rest = people(0, count=800)
    hidden = np.random.default_rng(1).random(truth.shape[:2]) < 0.3
    truth[hidden] = 0
    assert failed((truth, *rest)) == []
    junk = truth.copy()
    junk[hidden, :2] = 1e6
    assert check_data(junk, *rest) == check_data(truth, *rest)


def test_a_dataset_too_small_to_judge_passes_and_says_so():
    truth, size, boxes, skeleton = half_swapped(people(0, count=1))
    verdicts = check_data(truth, size, boxes, skeleton)
    assert all(verdict.passed and "not judged" in verdict.explanation for verdict in verdicts)


def test_every_failure_says_how_to_go_on():
    for wrong in (inverted(people(0)), half_swapped(people(0)), percent(people(0))):
        (verdict,) = [verdict for verdict in check_data(*wrong) if not verdict.passed]
        assert "Likely cause" in verdict.explanation
        assert "Fix: " in verdict.explanation
        assert verdict.explanation.endswith("`skip_checks`.")


def test_a_large_dataset_takes_no_longer():
    data = people(0, COCO17, count=40_000)
    started = time.perf_counter()
    assert failed(data) == []
    assert time.perf_counter() - started < 2
    assert failed(second_half_swapped(data)) == [SIDES]


def test_real_lsp_passes_and_each_fault_is_named(lsp):
    assert failed(lsp) == []
    assert failed(inverted(lsp)) == [VISIBILITY]
    for seed in range(5):
        assert failed(half_swapped(lsp, seed)) == [SIDES]
    assert failed(second_half_swapped(lsp)) == [SIDES]
    assert failed(percent(lsp)) == [COORDINATES]


def test_real_coco_passes(coco):
    assert failed(coco) == []
    assert failed(inverted(coco)) == [VISIBILITY]
    assert failed(percent(coco)) == [COORDINATES]


def test_rendered_people_pass():
    samples = list(synth.samples(24, seed=0, size=(160, 120)))
    truth = np.array([i.keypoints for s in samples for i in s.instances], float)
    size = np.array([(160.0, 120.0) for s in samples for _ in s.instances])
    boxes = np.array([i.bbox_xyxy for s in samples for i in s.instances], float)
    assert failed((truth, size, boxes, COCO17)) == []


def test_a_model_that_knows_its_pictures_passes_and_one_that_does_not_fails():
    truth = people(0, count=8)[0]
    truth[..., :2] = np.random.default_rng(0).uniform(0, 128, truth[..., :2].shape)
    near = truth + np.array([3.0, 4.0, 0.0])
    assert gates.judge_overfit(truth, near, side=128, steps=100).passed
    far = gates.judge_overfit(truth, truth + np.array([6.0, 8.0, 0.0]), side=128, steps=100)
    assert (far.gate, far.passed) == (OVERFIT, False)
    assert "0% of 112 keypoints" in far.explanation
    assert "7.8%" in far.explanation


def test_unlabelled_keypoints_need_not_be_learnt():
    truth = people(0, count=8)[0]
    truth[:, :7, 2] = 0
    wrong = truth.copy()
    wrong[:, :7, :2] += 1000
    assert gates.judge_overfit(truth, wrong, side=128, steps=1).passed


def test_nothing_that_counts_is_nothing_to_judge():
    nobody = np.zeros((8, 14, 3))
    verdict = gates.judge_overfit(nobody, nobody, side=128, steps=10)
    assert verdict.passed
    assert "not judged" in verdict.explanation


def test_predictions_that_are_not_finite_fail_with_their_own_cause():
    truth = people(0, count=8)[0]
    verdict = gates.judge_overfit(truth, np.full_like(truth, np.nan), side=128, steps=10)
    assert not verdict.passed
    assert "not finite" in verdict.explanation


def test_one_pose_for_all_pictures_fails_and_a_small_response_passes():
    truth = people(0, count=8)[0]
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    constant = gates.judge_variety(truth, mean, 640)
    assert (constant.gate, constant.passed) == (VARIETY, False)
    assert "move by 0.0 pixels" in constant.explanation
    assert not gates.judge_variety(truth, mean + 0.05 * (truth - mean), 640).passed
    assert gates.judge_variety(truth, mean + 0.2 * (truth - mean), 640).passed


def test_variety_is_not_judged_where_the_truth_has_none():
    same = np.repeat(people(0, count=1)[0], 8, axis=0)
    assert gates.judge_variety(same, same, 640).passed


def test_variety_is_not_judged_where_every_box_is_centred_on_its_only_keypoint():
    rng = np.random.default_rng(0)
    truth = np.concatenate([64 + rng.normal(0, 0.3, (8, 1, 2)), np.full((8, 1, 1), 2)], axis=2)
    verdict = gates.judge_variety(truth, np.full_like(truth, 64), 128)
    assert verdict.passed
    assert "not judged" in verdict.explanation
