import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.skeletons import LSP14
from kpdata.train.models.layers import SpatialExpectation, SpatialSoftmax
from kpdata.train.ops.targets import (
    decode_argmax,
    decode_dark,
    decode_quadratic,
    decode_udp,
    discs,
    flip_back,
    heatmaps,
    normalise,
    normalise_xy,
    offsets,
)

SIZES = [(256, 64, 2.0), (160, 40, 1.5), (128, 32, 1.5), (96, 24, 1.0)]
"""(size, heatmap size, sigma)"""


def keypoints_anywhere(size, seed=0, count=500):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, size, (count, 3, 2))
    xy[:4, 0] = [(0, 0), (size - 0.01, 0), (0, size - 0.01), (size - 0.01, size - 0.01)]
    return np.concatenate([xy, np.full((count, 3, 1), 2)], axis=-1).astype(np.float32)


def errors(decoded, keypoints, size, heatmap_size):
    """(B, K) the worse of x and y, and the distance to the nearest edge: both in heatmap pixels."""
    stride = size / heatmap_size
    xy = keypoints[..., :2]
    wrong = np.abs(np.asarray(decoded)[..., :2] - xy).max(axis=-1) / stride
    return wrong, np.minimum(xy, size - xy).min(axis=-1) / stride


def test_pixels_become_minus_1_to_1_and_coordinates_0_to_1():
    pixels = np.array([0, 51, 255], np.uint8)
    np.testing.assert_allclose(normalise(pixels), [-1, -0.6, 1], atol=1e-6)
    np.testing.assert_allclose(normalise_xy(np.array([[[64, 32, 2.0]]]), 128), [[[0.5, 0.25]]])


def test_a_heatmap_is_a_gaussian_of_height_1_around_the_keypoints_place():
    # stride 4: the centre of heatmap pixel (row 3, column 5) is (22, 14) in the crop
    on_centre, between = [22, 14, 2], [24, 14, 1]
    maps = np.asarray(heatmaps(np.array([[on_centre, between]], np.float32), 64, 16, 1.5))
    assert maps.shape == (1, 16, 16, 2)
    assert maps[0, 3, 5, 0] == 1
    assert maps[0, 4, 7, 0] == pytest.approx(np.exp(-(1 + 4) / (2 * 1.5**2)))
    assert maps[0, 3, 5, 1] == maps[0, 3, 6, 1] == pytest.approx(np.exp(-0.25 / (2 * 1.5**2)))


@pytest.mark.parametrize(
    "absent",
    [
        (30, 30, 0), (np.nan, np.nan, 0), (np.inf, 3, 0),
        (-0.01, 30, 2), (64, 30, 2), (30, -5, 1), (30, 64, 1), (1e30, 30, 2),
    ],
)  # fmt: skip
def test_maps_are_empty_without_a_keypoint_inside_the_picture(absent):
    keypoints = np.array([[absent, (31, 29, 1)]], np.float32)
    for maps in (
        heatmaps(keypoints, 64, 16, 1.5),
        discs(keypoints, 64, 16),
        offsets(keypoints, 64, 16)[..., :2],
    ):
        assert np.all(np.asarray(maps)[..., 0] == 0)
        assert np.any(np.asarray(maps)[..., 1] != 0)


def test_offsets_point_from_each_pixel_of_the_disc_to_the_keypoint_in_radii():
    keypoints = np.array([[[101.0, 90.0, 2.0]]], np.float32)  # (25.25, 22.5) in heatmap pixels
    near = np.asarray(discs(keypoints, 256, 64))[0, :, :, 0]
    x, y = np.moveaxis(np.asarray(offsets(keypoints, 256, 64))[0], -1, 0)
    i, j = np.indices((64, 64))
    to_x, to_y = 25.25 - (j + 0.5), 22.5 - (i + 0.5)
    inside = np.hypot(to_x, to_y) <= 3.5  # 0.0546875 × 64
    np.testing.assert_array_equal(near, inside)
    np.testing.assert_allclose(x, np.where(inside, to_x / 3.5, 0), atol=1e-6)
    np.testing.assert_allclose(y, np.where(inside, to_y / 3.5, 0), atol=1e-6)


@pytest.mark.parametrize(("size", "heatmap_size", "sigma"), SIZES)
def test_decoding_gives_the_encoded_place_back_up_to_the_edges(size, heatmap_size, sigma):
    keypoints = keypoints_anywhere(size)
    maps = np.asarray(heatmaps(keypoints, size, heatmap_size, sigma))
    argmax, edge = errors(decode_argmax(maps, size), keypoints, size, heatmap_size)
    quadratic, _ = errors(decode_quadratic(maps, size), keypoints, size, heatmap_size)
    dark, _ = errors(decode_dark(maps, size), keypoints, size, heatmap_size)
    assert argmax.max() <= 0.5 + 1e-3
    assert quadratic[edge >= 1].max() < 0.05
    assert quadratic.max() <= 0.5 + 1e-3
    assert dark.max() < 0.025
    assert dark[edge >= 4].max() < 0.002
    assert (edge < 1).sum() > 50


@pytest.mark.parametrize(("size", "heatmap_size", "sigma"), SIZES)
def test_udp_gives_the_encoded_place_back_from_discs_and_from_gaussians(size, heatmap_size, sigma):
    keypoints = keypoints_anywhere(size, seed=1)
    way = offsets(keypoints, size, heatmap_size)
    gaussians = heatmaps(keypoints, size, heatmap_size, sigma)
    for maps in (discs(keypoints, size, heatmap_size), gaussians):
        wrong, _ = errors(decode_udp(maps, way, size), keypoints, size, heatmap_size)
        assert wrong.max() < 1e-3


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
@pytest.mark.parametrize(("size", "heatmap_size"), [(64, 16), (96, 24), (112, 28), (128, 32)])
def test_udp_counts_no_pixel_whose_offset_was_not_trained(size, heatmap_size, sigma):
    keypoints = keypoints_anywhere(size, seed=2)
    trained = np.asarray(discs(keypoints, size, heatmap_size))
    way = np.array(offsets(keypoints, size, heatmap_size))
    outside = np.concatenate([trained, trained], axis=-1) == 0
    way[outside] = np.random.default_rng(0).normal(0, 1, int(outside.sum()))
    maps = heatmaps(keypoints, size, heatmap_size, sigma)
    wrong, _ = errors(decode_udp(maps, way, size), keypoints, size, heatmap_size)
    assert wrong.max() < 1e-3


def test_dark_follows_a_slanted_gaussian_where_parabolas_along_the_axes_do_not():
    i, j = np.indices((32, 32)) + 0.5
    x, y = j - 15.3, i - 16.8
    slanted = np.exp(-(x * x + y * y - 1.6 * x * y) / 4).astype(np.float32)[None, :, :, None]
    place = np.array([15.3, 16.8]) * 4
    np.testing.assert_allclose(decode_dark(slanted, 128, 0)[0, 0, :2], place, atol=1e-2)
    straight = np.asarray(decode_quadratic(slanted, 128, 0))[0, 0, :2]
    assert np.abs(straight - place).max() > 0.2


def test_the_blur_finds_a_hill_beside_a_lonely_high_pixel():
    maps = np.array(heatmaps(np.array([[[41, 87, 2]]], np.float32), 128, 32, 2.0))
    maps[0, 5, 27, 0] = 1.3
    for decode in (decode_quadratic, decode_dark):
        np.testing.assert_allclose(decode(maps, 128)[0, 0, :2], [41, 87], atol=0.1)
    np.testing.assert_array_equal(decode_argmax(maps, 128)[0, 0, :2], [27.5 * 4, 5.5 * 4])


@pytest.mark.parametrize("filling", ["zeros", "ones", "negative", "noise", "huge", "spike"])
def test_maps_of_anything_decode_to_a_place_inside_and_their_maximum(filling):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
    spike = np.zeros_like(noise)
    spike[:, 0, 15] = 1
    maps = {
        "zeros": noise * 0,
        "ones": noise * 0 + 1,
        "negative": -np.abs(noise),
        "noise": noise,
        "huge": noise * 1e6,
        "spike": spike,
    }[filling]
    way = rng.uniform(-1, 1, (4, 16, 16, 6)).astype(np.float32)
    for decoded in (
        decode_argmax(maps, 64),
        decode_quadratic(maps, 64),
        decode_dark(maps, 64),
        decode_udp(maps, 0 * way, 64),
    ):
        decoded = np.asarray(decoded)
        assert decoded.shape == (4, 3, 3)
        assert np.all((decoded[..., :2] >= 0) & (decoded[..., :2] <= 64))
        np.testing.assert_array_equal(decoded[..., 2], maps.max(axis=(1, 2)))
    assert np.all(np.isfinite(decode_udp(maps, way, 64)))


@given(st.integers(0, 2**32))
def test_encoding_the_mirror_image_is_mirroring_what_was_encoded(seed):
    rng = np.random.default_rng(seed)
    keypoints = np.empty((2, 14, 3), np.float32)
    keypoints[..., :2] = rng.integers(1, 1024, (2, 14, 2)) / 4  # so that nothing is rounded
    keypoints[..., 2] = rng.integers(0, 3, (2, 14))
    mirrored = keypoints[:, LSP14.flip_index]
    mirrored[..., 0] = 256 - mirrored[..., 0]

    def encoded(points):
        return {
            "heatmap": heatmaps(points, 256, 64, 2.0),
            "offset": offsets(points, 256, 64),
            "xy_norm": normalise_xy(points, 256),
            "visibility": points[..., 2],
        }

    seen, expected = flip_back(encoded(mirrored), LSP14.flip_index), encoded(keypoints)
    for name, value in expected.items():
        np.testing.assert_array_equal(seen[name], value, err_msg=name)


def test_the_flip_test_puts_left_names_on_the_left_persons_side():
    left, right = LSP14.index("left_wrist"), LSP14.index("right_wrist")
    xy = np.full((1, 14, 2), 0.5, np.float32)
    xy[0, left] = 0.9, 0.2
    back = np.asarray(flip_back({"xy_norm": xy}, LSP14.flip_index)["xy_norm"])
    np.testing.assert_allclose(back[0, right], [0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(back[0, left], [0.5, 0.5])


@pytest.mark.parametrize("decode", [decode_argmax, decode_quadratic, decode_dark])
def test_a_decoded_mirror_image_is_the_mirror_image_of_what_is_decoded(decode):
    keypoints = keypoints_anywhere(128, seed=3, count=100)
    maps = np.asarray(heatmaps(keypoints, 128, 32, 1.5))
    plain = np.asarray(decode(maps, 128))
    mirrored = np.array(decode(flip_back({"heatmap": maps}, np.arange(3))["heatmap"], 128))
    mirrored[..., 0] = 128 - mirrored[..., 0]
    np.testing.assert_allclose(mirrored, plain, atol=1e-3)


def soft_argmax(logits):
    """The two layers that end a network with DSNT's head."""
    return np.asarray(SpatialExpectation()(SpatialSoftmax()(logits)))


def test_soft_argmax_is_the_mean_position():
    flat = np.zeros((1, 8, 8, 1), np.float32)
    np.testing.assert_allclose(soft_argmax(flat), [[[0.5, 0.5]]], atol=1e-6)
    two = np.full((1, 8, 8, 1), -1e9, np.float32)
    two[0, 1, 2], two[0, 1, 7] = 0, np.log(3)  # columns 2 and 7 with 1/4 and 3/4
    np.testing.assert_allclose(
        soft_argmax(two), [[[(0.25 * 2.5 + 0.75 * 7.5) / 8, 1.5 / 8]]], atol=1e-6
    )
    i, j = np.indices((32, 32)) + 0.5
    hill = -((j - 13.2) ** 2 + (i - 17.9) ** 2)[None, :, :, None] / 2
    np.testing.assert_allclose(soft_argmax(hill), [[[13.2 / 32, 17.9 / 32]]], atol=1e-4)
