import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.images.photometric import LUMA, blur, colour_matrix, recolour


def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def test_the_colour_matrix_without_changes_is_the_identity():
    np.testing.assert_array_equal(colour_matrix(), np.eye(3, 4))
    np.testing.assert_array_equal(recolour(picture(), colour_matrix()), picture())


def test_without_saturation_a_picture_has_equal_channels_at_the_pixels_luma():
    source = picture()
    grey = recolour(source, colour_matrix(saturation=0))
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], source @ LUMA, atol=1.5)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_more_brightness_is_never_darker(one, other):
    lower, higher = sorted([one, other])
    source = picture()
    dim, bright = (recolour(source, colour_matrix(brightness=value)) for value in (lower, higher))
    assert (dim <= bright).all()


def test_brightness_of_a_tenth_adds_a_tenth_of_the_full_range_and_saturates():
    flat = np.array([[[0, 100, 250]]], np.uint8)
    np.testing.assert_allclose(
        recolour(flat, colour_matrix(brightness=0.1)), [[[26, 126, 255]]], atol=1
    )


def test_contrast_stretches_about_mid_grey():
    flat = np.array([[[28, 128, 178]]], np.uint8)
    np.testing.assert_allclose(
        recolour(flat, colour_matrix(contrast=1.5)), [[[0, 128, 203]]], atol=1
    )


@given(st.floats(0.1, 4), st.floats(0, 4), st.floats(-180, 180), st.integers(0, 255))
def test_saturation_and_hue_leave_greys_alone(contrast, saturation, hue, level):
    grey = np.full((1, 1, 3), level, np.uint8)
    np.testing.assert_allclose(
        recolour(grey, colour_matrix(saturation=saturation, hue=hue)), grey, atol=1
    )
    stretched = recolour(grey, colour_matrix(contrast=contrast, saturation=saturation, hue=hue))
    assert np.ptp(stretched.astype(int)) <= 1


def test_a_hue_of_120_degrees_turns_red_into_green_into_blue():
    red, green, blue = np.eye(3)
    turn = colour_matrix(hue=120)[:, :3]
    np.testing.assert_allclose(turn @ red, green, atol=1e-12)
    np.testing.assert_allclose(turn @ green, blue, atol=1e-12)


def test_recolour_is_the_matrix_rounded_and_saturated():
    source = picture()
    matrix = colour_matrix(0.1, 1.4, 0.5, 30)
    exact = source @ matrix[:, :3].T + matrix[:, 3]
    np.testing.assert_allclose(recolour(source, matrix), np.clip(exact, 0, 255), atol=1.5)


def test_blur_smooths_and_keeps_the_mean():
    source = picture()
    blurred = blur(source, 2.0)
    assert blurred.std() < 0.9 * source.std()
    assert blurred.mean() == pytest.approx(source.mean(), abs=1)
