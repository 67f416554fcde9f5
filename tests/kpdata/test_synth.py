from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from kpdata.core.errors import SchemaError
from kpdata.core.sample import Instance, Sample
from kpdata.core.skeletons import COCO17
from kpdata.images import codec
from kpdata.synth import labels, paint, samples, scene
from kpdata.synth.body import PARTS, Body, pose_body
from kpdata.synth.camera import Camera, turned
from kpdata.synth.looks import Build, sample_clothes
from kpdata.synth.occluders import add_occluder
from kpdata.synth.poses import Limb, Pose
from kpdata.synth.raster import BACKDROP, Labels, Light, Mask, Raster

WIDTH, HEIGHT = 240, 240
LIGHT = Light((0, -0.6, 0.8), 0.5, 0.5)
MIDDLING = Build(1.75, 1, 1, 1, 1, 1, 1, long_hair=False)
HANGING, STRAIGHT = Limb(0, 10, 0, 8), Limb(0, 5, 0, 3)
STANDING = Pose((HANGING, HANGING), (STRAIGHT, STRAIGHT), 0, 0, 0, (0, 0, 0), 0, False, 0)


@cache
def some() -> tuple[Sample, ...]:
    return tuple(samples(60, seed=3))


def everyone() -> list[tuple[Sample, Instance]]:
    return [(sample, instance) for sample in some() for instance in sample.instances]


def standing(facing: float, **pose) -> Body:
    clothes = sample_clothes(np.random.default_rng(1))
    return pose_body(MIDDLING, clothes, replace(STANDING, **pose), facing)


def level_camera() -> Camera:
    eye = np.array([0, 0.9, 5.0])
    return Camera(turned(0, 0), eye, 500.0, np.array([WIDTH / 2, HEIGHT / 2]))


def drawn(*bodies: Body) -> tuple[Raster, list[Mask]]:
    raster = Raster(WIDTH * paint.SUPERSAMPLE, HEIGHT * paint.SUPERSAMPLE)
    camera = level_camera()
    masks = [paint.draw_figure(raster, b, n, camera, LIGHT) for n, b in enumerate(bodies)]
    return raster, masks


def labelled(body: Body) -> Instance:
    raster, (mask,) = drawn(body)
    return labels.label_figure(raster, body, 0, level_camera(), mask)


def keypoint(instance: Instance, name: str) -> np.ndarray:
    return instance.keypoints[COCO17.index(name)]


def test_the_same_seed_and_number_give_the_same_sample_whatever_the_count():
    assert list(samples(2, seed=3)) == list(some()[:2])
    assert next(samples(1, seed=4)) != some()[0]


def test_samples_are_numbered_and_carry_jpegs_of_the_size_asked_for():
    for number, sample in enumerate(samples(3, size=(200, 120)), start=1):
        assert sample.key == str(number)
        assert sample.image.name == f"{number:06d}.jpg"
        assert (sample.image.width, sample.image.height) == (200, 120)
        assert codec.decode_stored(sample.image).shape == (120, 200, 3)


def test_a_size_too_small_to_show_anything_is_refused():
    with pytest.raises(SchemaError, match="size is 10x240"):
        next(samples(1, size=(10, 240)))


def test_pictures_hold_one_to_three_people_with_ids_of_their_own():
    counts = {len(sample.instances) for sample in some()}
    assert counts == {1, 2, 3}
    ids = [instance.id for _, instance in everyone()]
    assert len(set(ids)) == len(ids)
    assert {instance.category for _, instance in everyone()} == {"person"}


def test_labelled_keypoints_lie_inside_the_picture_and_inside_the_box():
    for sample, instance in everyone():
        xy = instance.xy[instance.visibility > 0]
        x0, y0, x1, y1 = instance.bbox_xyxy
        assert 0 <= x0 < x1 <= sample.image.width
        assert 0 <= y0 < y1 <= sample.image.height
        assert (xy >= [x0, y0]).all()
        assert (xy <= [x1, y1]).all()


def test_the_area_is_a_silhouettes_a_part_of_its_box():
    for _, instance in everyone():
        x0, y0, x1, y1 = instance.bbox_xyxy
        assert 0.05 * (x1 - x0) * (y1 - y0) < instance.area < (x1 - x0) * (y1 - y0)


def test_every_visibility_occurs_and_everyone_shows_something():
    shares = np.bincount(
        np.concatenate([one.visibility for _, one in everyone()]).astype(int), minlength=3
    ) / (17 * len(everyone()))
    assert (shares > [0.02, 0.1, 0.3]).all()
    assert all((one.visibility == 2).sum() >= 3 for _, one in everyone())


def test_people_take_up_a_good_part_of_the_picture():
    heights = [(one.bbox_xyxy[3] - one.bbox_xyxy[1]) / 240 for _, one in everyone()]
    assert 0.45 < np.median(heights) < 0.95


@pytest.mark.parametrize(("facing", "sign"), [(0, 1), (30, 1), (180, -1), (150, -1)])
def test_the_left_side_is_the_figures_own_left(facing, sign):
    instance = labelled(standing(facing))
    for part in ("shoulder", "hip", "wrist", "ankle"):
        left, right = keypoint(instance, f"left_{part}"), keypoint(instance, f"right_{part}")
        assert sign * (left[0] - right[0]) > 0
    assert (keypoint(instance, "nose")[2] == 2) == (sign > 0)


def test_from_behind_the_face_is_occluded_and_the_back_is_seen():
    instance = labelled(standing(180))
    for name in ("nose", "left_eye", "right_eye"):
        assert keypoint(instance, name)[2] == 1
    for name in ("left_shoulder", "right_shoulder", "left_hip", "right_knee", "left_ankle"):
        assert keypoint(instance, name)[2] == 2


def test_from_the_side_the_far_side_is_occluded():
    instance = labelled(standing(90))  # looks to the picture's right: its right side is near
    for part in ("eye", "ear", "shoulder", "elbow", "knee"):
        assert keypoint(instance, f"right_{part}")[2] == 2
        assert keypoint(instance, f"left_{part}")[2] == 1


def test_a_raised_left_arm_is_the_left_wrist_above_the_head():
    raised = Limb(0, 165, 0, 5)
    instance = labelled(standing(0, arms=(raised, HANGING)))
    assert keypoint(instance, "left_wrist")[1] < keypoint(instance, "left_eye")[1]
    assert keypoint(instance, "right_wrist")[1] > keypoint(instance, "right_shoulder")[1]


def test_a_visible_keypoint_lies_on_its_own_part_of_the_body():
    body = standing(20)
    raster, _ = drawn(body)
    instance = labelled(body)
    for name, (x, y, seen) in zip(COCO17.keypoints, instance.keypoints, strict=True):
        row, column = int(y * paint.SUPERSAMPLE), int(x * paint.SUPERSAMPLE)
        part = PARTS[paint.part_of(raster.label[row, column : column + 1])[0]]
        if name.endswith(("eye", "ear", "nose")) and seen == 2:
            assert part == name
        if name.endswith("elbow"):
            side = name.partition("_")[0]
            assert part in (f"{side}_upper_arm", f"{side}_forearm")


def test_an_elbow_lies_midway_across_the_arm():
    body = standing(0, arms=(Limb(0, 90, 0, 0), HANGING))
    raster, _ = drawn(body)
    x, y, _ = keypoint(labelled(body), "left_elbow")
    rows = np.flatnonzero(raster.label[:, int(x * paint.SUPERSAMPLE)] != BACKDROP)
    middle = (rows[0] + rows[-1] + 1) / 2 / paint.SUPERSAMPLE
    assert y == pytest.approx(middle, abs=0.75)


def test_a_ball_is_drawn_around_its_centre_and_bulges_towards_the_camera():
    raster, mask = Raster(80, 60), np.zeros((60, 80), np.bool_)
    raster.ellipsoid((33.25, 27.75, -500.0), np.eye(3) * 15, 100.0, LIGHT, 1, mask)
    rows, columns = np.nonzero(mask)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((33.25, 27.75), abs=0.05)
    assert mask.sum() == pytest.approx(np.pi * 15**2, rel=0.01)
    assert raster.depth.min() == pytest.approx(5 - 0.15, abs=1e-4)
    assert np.isinf(raster.depth[~mask]).all()


@pytest.mark.parametrize("depths", [(-500.0, -500.0), (-500.0, -470.0), (-460.0, -500.0)])
def test_a_cone_is_the_hull_of_its_spheres(depths):
    ends = np.array([[20.3, 20.6, depths[0], 12.0], [55.1, 41.7, depths[1], 5.0]])
    cone, balls = Raster(80, 60), Raster(80, 60)
    masks = np.zeros((2, 60, 80), np.bool_)
    cone.cone(ends, 100.0, LIGHT, Labels(1, 2, 0.5), masks[0])
    for t in np.linspace(0, 1, 400):
        x, y, w, r = ((1 - t) * ends[0] + t * ends[1]).tolist()
        label = 1 if t <= 0.5 else 2
        balls.ellipsoid((x, y, w), np.eye(3) * r, 100.0, LIGHT, label, masks[1])
    assert (masks[0] != masks[1]).sum() <= 8
    both = masks.all(axis=0)
    assert cone.depth[both] == pytest.approx(balls.depth[both], abs=0.01)
    assert np.abs(cone.shade - balls.shade)[both].mean() < 0.01
    assert (cone.label != balls.label)[both].mean() < 0.02


def test_the_box_and_the_area_are_the_silhouettes():
    body = standing(0)
    _, (mask,) = drawn(body)
    instance = labelled(body)
    rows, columns = np.nonzero(mask)
    expected = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert instance.bbox_xyxy == pytest.approx(expected / paint.SUPERSAMPLE)
    assert instance.area == mask.sum() / paint.SUPERSAMPLE**2


def test_a_figure_behind_another_keeps_its_box_and_loses_its_visibility():
    behind, before = standing(0), standing(0)
    alone = labelled(behind)
    before.move(np.array([0, 0, 1.0]))
    raster, (mask, _) = drawn(behind, before)
    instance = labels.label_figure(raster, behind, 0, level_camera(), mask)
    assert (instance.bbox_xyxy == alone.bbox_xyxy).all()
    assert instance.area == alone.area
    assert (instance.xy == alone.xy).all()
    assert (instance.visibility == 2).sum() < (alone.visibility == 2).sum() / 2


def test_an_occluder_hides_exactly_the_keypoints_that_it_covers():
    body = standing(0)
    raster, (mask,) = drawn(body)
    before = labels.label_figure(raster, body, 0, level_camera(), mask)
    canvas = np.zeros((*mask.shape, 3), np.uint8)
    hidden = 0
    for seed in range(6):
        covered = add_occluder(np.random.default_rng(seed), canvas, labels.mask_box(mask))
        raster, _ = drawn(body)
        raster.label[covered] = BACKDROP
        after = labels.label_figure(raster, body, 0, level_camera(), mask)
        columns, rows = (before.xy * paint.SUPERSAMPLE).astype(int).T
        under = covered[rows, columns]
        assert (after.visibility[under] == 1).all()
        assert (after.visibility[~under] == before.visibility[~under]).all()
        hidden += int((before.visibility[under] == 2).sum())
    assert hidden > 3


def test_what_leaves_the_picture_is_not_labelled():
    body = standing(0)
    body.move(np.array([1.2, 0, 0]))
    instance = labelled(body)
    assert keypoint(instance, "left_wrist").tolist() == [0, 0, 0]
    assert instance.bbox_xyxy[2] == WIDTH
    assert 0 < (instance.visibility == 0).sum() < 17


def test_the_lowest_part_of_a_body_stands_on_the_ground():
    rng = np.random.default_rng(5)
    for _ in range(30):
        body = scene.sample_body(rng, float(rng.uniform(0, 360)))
        bottoms = [(cone.ends[:, 1] - cone.radii).min() for cone in body.cones if not cone.is_prop]
        bottoms += [blob.centre[1] - np.linalg.norm(blob.axes[1]) for blob in body.ellipsoids]
        assert -1e-9 < min(bottoms) <= 0.13 * body.build.stature


def test_both_sides_of_a_body_are_clothed_alike():
    body = standing(0)
    worn = {PARTS[cone.part]: (cone.materials, cone.cut) for cone in body.cones}
    pairs = [(name, name.replace("left", "right")) for name in worn if name.startswith("left")]
    assert len(pairs) >= 5
    for left, right in pairs:
        assert worn[left] == worn[right]


def test_the_camera_projects_a_ray_and_a_spot_on_the_ground_where_they_were_asked_for():
    camera = replace(level_camera(), rotation=turned(12, 3))
    xy, depth = camera.project(camera.eye + 7 * camera.ray(np.array([30.0, 200.0])))
    assert xy == pytest.approx([30, 200])
    assert depth == pytest.approx(7)
    spot = camera.ground(55, 6, 0)
    xy, depth = camera.project(spot)
    assert (xy[0], depth, spot[1]) == pytest.approx((55, 6, 0))
