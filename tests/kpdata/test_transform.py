import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kpdata.core import transform
from kpdata.core.crop import keypoint_box, square_crop
from kpdata.core.sample import Instance
from kpdata.images.resample import warp

coordinates = st.floats(-2000, 2000, width=32)
points = st.tuples(coordinates, coordinates).map(np.array)


@st.composite
def affines(draw: st.DrawFn) -> transform.Affine:
    linear = draw(st.floats(0.1, 10)) * transform.rotation(draw(st.floats(-180, 180)))
    turned = transform.about(draw(points), linear, draw(points))
    return transform.compose(turned, transform.flip(640)) if draw(st.booleans()) else turned


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    corner = draw(points)
    return np.concatenate([corner, corner + draw(st.tuples(*[st.floats(1, 3000)] * 2))])


def blob(width: int, height: int, xy: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    """A black picture with a bright dot at a continuous coordinate."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    bright = np.exp(-((columns - xy[0]) ** 2 + (rows - xy[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(255 * bright).astype(np.uint8)[..., None], 3, axis=2)


def centroid(pixels: np.ndarray) -> np.ndarray:
    weights = pixels.mean(axis=2)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


@given(affines(), points)
def test_an_affine_and_its_inverse_give_a_point_back(affine, xy):
    there = transform.apply_affine(affine, xy)
    back = transform.apply_affine(transform.invert(affine), there)
    np.testing.assert_allclose(back, xy, atol=1e-6)
    np.testing.assert_allclose(
        transform.compose(transform.invert(affine), affine), transform.IDENTITY, atol=1e-6
    )


@given(affines(), affines(), points)
def test_compose_applies_the_first_affine_first(first, second, xy):
    both = transform.apply_affine(transform.compose(second, first), xy)
    one_by_one = transform.apply_affine(second, transform.apply_affine(first, xy))
    np.testing.assert_allclose(both, one_by_one, atol=1e-6)


@given(affines(), affines())
def test_scale_multiplies_when_affines_are_composed(first, second):
    product = transform.scale_of(first) * transform.scale_of(second)
    assert transform.scale_of(transform.compose(second, first)) == pytest.approx(product)


@given(points, st.floats(-180, 180), st.floats(0.1, 10), points)
def test_about_moves_its_centre_by_the_shift_alone(center, degrees, scale, shift):
    affine = transform.about(center, scale * transform.rotation(degrees), shift)
    np.testing.assert_allclose(transform.apply_affine(affine, center), center + shift, atol=1e-6)
    assert transform.scale_of(affine) == pytest.approx(scale)


def test_a_quarter_turn_is_clockwise_on_screen():
    right_of_origin = transform.rotation(90) @ [1, 0]
    np.testing.assert_allclose(right_of_origin, [0, 1], atol=1e-12)  # y points down


def test_flip_maps_the_left_edge_to_the_right_edge_and_back():
    mirror = transform.flip(7)
    np.testing.assert_array_equal(
        transform.apply_affine(mirror, [[0, 2], [0.5, 2], [7, 2]]), [[7, 2], [6.5, 2], [0, 2]]
    )
    np.testing.assert_array_equal(transform.compose(mirror, mirror), transform.IDENTITY)


def test_as_stored_is_float32_and_stays_within_a_thousandth_of_a_pixel_after_the_inverse():
    affine = square_crop(np.array([1234.5, 321.7, 1500.1, 900.3]), 1.25, 256)
    stored = transform.as_stored(affine)
    assert stored.dtype == np.float32
    xy = np.array([[1300.25, 500.75], [1234.5, 900.3]])
    seen = transform.apply_affine(stored, xy).astype(np.float32)
    back = transform.apply_affine(transform.invert(stored), seen)
    np.testing.assert_allclose(back, xy, atol=1e-3)


@given(boxes(), st.floats(1, 3), st.integers(16, 512))
def test_square_crop_is_centred_on_the_box_and_covers_it_with_its_margin(box, margin, size):
    crop = square_crop(box, margin, size)
    center, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    np.testing.assert_allclose(transform.apply_affine(crop, center), [size / 2] * 2, atol=1e-6)
    corners = transform.apply_affine(
        transform.invert(crop), np.array([[0, 0], [size, size]], np.float64)
    )
    np.testing.assert_allclose(corners[1] - corners[0], [sides.max() * margin] * 2, rtol=1e-9)
    assert (corners[0] <= center - margin * sides / 2 + 1e-6).all()
    assert (corners[1] >= center + margin * sides / 2 - 1e-6).all()


def test_square_crop_of_an_empty_box_shows_one_pixel_with_its_margin():
    crop = square_crop(np.array([10.0, 20, 10, 20]), 2.0, 8)
    assert transform.scale_of(crop) == pytest.approx(4)


@given(affines(), boxes(), st.floats(0, 1), st.floats(0, 1))
def test_map_box_contains_every_mapped_point_of_the_box(affine, box, across, down):
    inside = box[:2] + (box[2:] - box[:2]) * [across, down]
    x, y = transform.apply_affine(affine, inside)
    x0, y0, x1, y1 = transform.map_box(affine, box)
    slack = 1e-6 * np.abs([x0, y0, x1, y1]).max() + 1e-4
    assert x0 - slack <= x <= x1 + slack
    assert y0 - slack <= y <= y1 + slack


def test_map_box_of_a_turned_square_is_the_upright_box_around_it():
    turned = transform.about(np.array([5, 5]), transform.rotation(45), np.zeros(2))
    half = 5 * 2**0.5
    np.testing.assert_allclose(
        transform.map_box(turned, np.array([0, 0, 10, 10])),
        [5 - half, 5 - half, 5 + half, 5 + half],
        rtol=1e-6,
    )


def test_keypoint_box_looks_at_labelled_keypoints_alone():
    keypoints = np.array([[0, 0, 0], [4, 9, 1], [7, 3, 2]])
    np.testing.assert_array_equal(keypoint_box(Instance(keypoints)), [4, 3, 7, 9])
    assert keypoint_box(Instance(np.zeros((3, 3)))) is None


def with_orientation(pixels: np.ndarray, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", exif=exif)
    return Image.open(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_affine_agrees_with_pillow_pixel_for_pixel(orientation):
    raw = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    upright = np.asarray(ImageOps.exif_transpose(with_orientation(raw, orientation)))
    height, width = upright.shape[:2]
    affine = transform.orientation_affine(orientation, 8, 5)
    np.testing.assert_array_equal(warp(raw, affine, width, height), upright)
    rows, columns = np.mgrid[:5, :8]
    seen = np.floor(transform.apply_affine(affine, np.stack([columns, rows], -1) + 0.5)).astype(int)
    np.testing.assert_array_equal(upright[seen[..., 1], seen[..., 0]], raw)


def test_warp_by_the_identity_and_by_whole_pixels_copies_pixels_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(pixels, transform.IDENTITY, 9, 6), pixels)
    moved = warp(pixels, np.array([[1.0, 0, 2], [0, 1, 1]]), 9, 6, fill=(7, 8, 9))
    np.testing.assert_array_equal(moved[1:, 2:], pixels[:-1, :-2])
    assert (moved[0] == (7, 8, 9)).all()
    assert (moved[:, :2] == (7, 8, 9)).all()


def test_warp_doubles_each_pixel_without_a_shift():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1, 2] = 200
    doubled = warp(pixels, np.array([[2.0, 0, 0], [0, 2, 0]]), 8, 8)
    np.testing.assert_allclose(centroid(doubled), [5, 3], atol=1e-6)


@pytest.mark.parametrize("margin", [1.0, 1.25])
def test_a_dot_in_a_crop_lies_where_the_crop_maps_it(margin):
    xy = np.array([61.3, 47.8])
    crop = square_crop(np.array([20, 10, 95, 80]), margin, 96)
    seen = warp(blob(120, 90, xy), crop, 96, 96)
    np.testing.assert_allclose(centroid(seen), transform.apply_affine(crop, xy), atol=0.1)
