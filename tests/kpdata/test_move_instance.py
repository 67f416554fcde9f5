import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core import transform
from kpdata.core.augment import CopyParams, params_affine
from kpdata.core.crop import square_crop
from kpdata.core.sample import Instance
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import move_instance
from kpdata.images.resample import warp

BOAT = Skeleton(
    name="boat",
    keypoints=("bow", "left_rail", "mast", "left_wrist", "right_rail", "stern", "right_wrist"),
)
"""Asymmetric in its order: mirroring by reversed or adjacent indices would fail."""

WIDTH, HEIGHT = 160, 120


@st.composite
def draws(draw_from: st.DrawFn) -> CopyParams:
    """Any geometry that the default configuration can draw, and more."""
    return CopyParams(
        flip=draw_from(st.booleans()),
        rotate=draw_from(st.floats(-180, 180)),
        scale=draw_from(st.floats(0.5, 2)),
        shift_xy=draw_from(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))),
    )


@st.composite
def boats(draw_from: st.DrawFn) -> Instance:
    """An instance well inside the frame, with every visibility."""
    rows = draw_from(
        st.lists(
            st.tuples(
                st.floats(1, WIDTH - 1), st.floats(1, HEIGHT - 1), st.sampled_from([0, 1, 2])
            ),
            min_size=len(BOAT),
            max_size=len(BOAT),
        )
    )
    keypoints = np.array([row if row[2] else (0, 0, 0) for row in rows])
    return Instance(keypoints, np.array([5, 6, 90, 100]), area=40.0, head_size=12.0)


@given(boats())
def test_a_flip_of_a_flip_is_the_identity(boat):
    mirror = transform.flip(WIDTH)
    once, _ = move_instance(boat, mirror, WIDTH, HEIGHT, BOAT.flip_index)
    twice, left = move_instance(once, mirror, WIDTH, HEIGHT, BOAT.flip_index)
    np.testing.assert_allclose(twice.keypoints, boat.keypoints, atol=1e-4)
    np.testing.assert_allclose(twice.bbox_xyxy, boat.bbox_xyxy, atol=1e-4)
    assert (twice.area, twice.head_size, left) == (boat.area, boat.head_size, 0)


def test_a_flip_puts_the_left_wrist_at_the_mirrored_place_under_the_right_ones_name():
    keypoints = np.array([[x, 10 + x, 2] for x in (10, 20, 30, 40, 50, 60, 70)], np.float32)
    keypoints[BOAT.index("left_wrist"), 2] = 1
    flipped, _ = move_instance(
        Instance(keypoints), transform.flip(WIDTH), WIDTH, HEIGHT, BOAT.flip_index
    )
    at = {name: flipped.keypoints[BOAT.index(name)].tolist() for name in BOAT.keypoints}
    assert at["right_wrist"] == [WIDTH - 40, 50, 1]
    assert at["left_wrist"] == [WIDTH - 70, 80, 2]
    assert at["left_rail"] == [WIDTH - 50, 60, 2]
    assert at["mast"] == [WIDTH - 30, 40, 2]


@given(st.floats(-180, 180), st.booleans())
def test_names_change_places_exactly_where_the_whole_affine_mirrors(degrees, mirrored):
    copy = CopyParams(flip=mirrored, rotate=degrees)
    crop = square_crop(np.array([0, 0, WIDTH, HEIGHT]), 1.0, 64)
    affine = transform.compose(params_affine(copy, 64, 64), crop)
    keypoints = np.column_stack([np.full((7, 2), (WIDTH / 2, HEIGHT / 2)), np.full(7, 2)])
    keypoints[BOAT.index("left_wrist"), 2] = 1
    moved, _ = move_instance(Instance(keypoints), affine, 64, 64, BOAT.flip_index)
    hidden = BOAT.keypoints[int(np.flatnonzero(moved.visibility == 1)[0])]
    assert hidden == ("right_wrist" if mirrored else "left_wrist")


def test_without_a_flip_index_a_mirroring_affine_keeps_the_names():
    keypoints = np.array([[10.0, 20, 1], [30, 40, 2]])
    moved, _ = move_instance(Instance(keypoints), transform.flip(WIDTH), WIDTH, HEIGHT)
    np.testing.assert_array_equal(moved.keypoints, [[WIDTH - 10, 20, 1], [WIDTH - 30, 40, 2]])


def test_box_area_and_head_size_follow_the_scale():
    source = Instance(np.zeros((1, 3)), np.array([70, 50, 90, 70]), area=300.0, head_size=8.0)
    affine = params_affine(CopyParams(scale=1.5), WIDTH, HEIGHT)
    moved, _ = move_instance(source, affine, WIDTH, HEIGHT)
    np.testing.assert_allclose(moved.bbox_xyxy, [65, 45, 95, 75], atol=1e-4)
    assert moved.area == pytest.approx(300 * 1.5**2)
    assert moved.head_size == pytest.approx(12)


def test_what_an_instance_lacks_stays_lacking_and_the_rest_is_kept():
    source = Instance(np.zeros((2, 3)), is_crowd=True, category="boat", category_id=9, id=77)
    moved, left = move_instance(source, transform.flip(WIDTH), WIDTH, HEIGHT)
    assert moved == source
    assert left == 0


def test_a_keypoint_outside_the_frame_is_zeroed_and_counted():
    keypoints = np.array([[5.0, 60, 2], [150, 60, 1], [0, 0, 0], [80, 115, 2], [80, 60, 2]])
    affine = params_affine(CopyParams(shift_xy=(-0.1, 0.05)), WIDTH, HEIGHT)  # 16 left, 6 down
    moved, left = move_instance(Instance(keypoints), affine, WIDTH, HEIGHT)
    np.testing.assert_allclose(
        moved.keypoints, [[0, 0, 0], [134, 66, 1], [0, 0, 0], [0, 0, 0], [64, 66, 2]], atol=1e-4
    )
    assert left == 2


def test_the_frame_holds_its_left_and_top_edge_but_not_the_others():
    edges = [[0, 5, 2], [5, 0, 2], [WIDTH, 5, 2], [5, HEIGHT, 2], [WIDTH - 0.5, HEIGHT - 0.5, 2]]
    moved, left = move_instance(Instance(np.array(edges)), transform.IDENTITY, WIDTH, HEIGHT)
    assert moved.visibility.tolist() == [2, 2, 0, 0, 2]
    assert left == 2


@given(boats(), draws())
def test_every_labelled_keypoint_is_inside_the_frame_or_counted(boat, copy):
    affine = params_affine(copy, WIDTH, HEIGHT)
    moved, left = move_instance(boat, affine, WIDTH, HEIGHT, BOAT.flip_index)
    assert moved.num_labelled + left == boat.num_labelled
    labelled = moved.xy[moved.visibility > 0]
    assert ((labelled >= 0) & (labelled < (WIDTH, HEIGHT))).all()


def test_a_coordinate_that_float32_rounds_up_to_the_edge_counts_as_outside():
    almost = transform.IDENTITY.copy()
    almost[0, 2] = WIDTH - 1e-9
    moved, left = move_instance(Instance(np.array([[0.0, 5, 2]])), almost, WIDTH, HEIGHT)
    assert (moved.keypoints[0].tolist(), left) == ([0, 0, 0], 1)


@pytest.mark.parametrize(
    "copy",
    [
        CopyParams(),
        CopyParams(flip=True),
        CopyParams(rotate=30),
        CopyParams(rotate=-90),
        CopyParams(scale=0.75),
        CopyParams(scale=1.33),
        CopyParams(shift_xy=(0.053, -0.081)),
        CopyParams(flip=True, rotate=-17.5, scale=1.21, shift_xy=(-0.04, 0.06)),
    ],
    ids=["same", "flip", "turn", "quarter", "shrink", "grow", "shift", "all"],
)
@pytest.mark.parametrize("cropped", [False, True], ids=["whole", "crop"])
def test_a_bright_dot_lies_where_its_keypoint_was_mapped(copy, cropped):
    xy = np.array([86.37, 52.81])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dot = 255 * np.exp(-((columns - xy[0]) ** 2 + (rows - xy[1]) ** 2) / (2 * 3.0**2))
    source = np.repeat(np.round(dot).astype(np.uint8)[..., None], 3, axis=2)
    width, height = (128, 128) if cropped else (WIDTH, HEIGHT)
    box = np.array([30, 10, 130, 95])
    view = square_crop(box, 1.25, 128) if cropped else transform.IDENTITY
    affine = transform.as_stored(transform.compose(params_affine(copy, width, height), view))
    seen = warp(source, affine, width, height).mean(axis=2)
    rows, columns = np.mgrid[:height, :width] + 0.5
    centroid = np.array([(seen * columns).sum(), (seen * rows).sum()]) / seen.sum()
    moved, left = move_instance(Instance(np.array([[*xy, 2]])), affine, width, height)
    assert left == 0
    np.testing.assert_allclose(centroid, moved.xy[0], atol=0.1)
