import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata.core import transform
from kpdata.core.augment import AugmentConfig, occlude, params_affine, sample_params
from kpdata.core.sample import Instance
from kpdata.core.skeletons import LSP14
from kpdata.core.transform import move_instance, resize_affine
from kpdata.images.photometric import paint
from kpdata.images.resample import warp
from kpdata.train.ops import augment
from kpdata.train.ops.augment import apply, only_crops, sample_batch

WIDTH, HEIGHT, SIZE, K = 100, 80, 64, 14
CROP = np.array([[0.8, 0.1, -6.0], [-0.1, 0.8, 4.0]])
STILL = AugmentConfig(
    flip=0, rotate=(0, 0), scale=(1, 1), shift=0, brightness=(0, 0), contrast=(1, 1),
    saturation=(1, 1), hue=(0, 0), grey=0, blur=0, rectangles=0, cutout=0,
)  # fmt: skip


def images(count=1, width=WIDTH, height=HEIGHT, seed=0):
    """Smooth coloured noise, so that a shift by a part of a pixel shows but rounding does not."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, height, width, 3), np.uint8)
    smooth = [cv2.normalize(cv2.GaussianBlur(p, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
              for p in noise]  # fmt: skip
    return np.stack(smooth)


def labels(count=1, width=WIDTH, height=HEIGHT, seed=0):
    rng = np.random.default_rng(seed)
    visibility = rng.integers(0, 3, (count, K, 1))
    xy = rng.uniform(0, (width, height), (count, K, 2))
    return (np.concatenate([xy, visibility], -1) * (visibility > 0)).astype(np.float32)


def bytes_of(image):
    return (np.asarray(image) + 1) * 127.5


def on_host(config, index, crop, keypoints):
    """What the pipeline would make of the same sample with the same draw."""
    numbers = sample_params(config, np.random.default_rng([7, 2, index]), SIZE, SIZE)
    affine = transform.as_stored(transform.compose(params_affine(numbers, SIZE, SIZE), CROP))
    seen = paint(warp(crop, affine, SIZE, SIZE), numbers)
    moved, _ = move_instance(Instance(keypoints), affine, SIZE, SIZE, LSP14.flip_index)
    return seen, occlude(moved, numbers.rectangles).keypoints


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(blur=0, rectangles=4, cutout=0.5),
        AugmentConfig(blur=1, blur_sigma=(0.3, 2.0)),
        AugmentConfig(
            rotate=(-180, 180), scale=(0.5, 2), shift=0.3, hue=(-180, 180), grey=0.5, blur=0
        ),
    ],
    ids=["plain", "blurred", "wild"],
)
def test_the_device_does_what_the_pipeline_does(config):
    count = 12
    image, keypoints = images(count), labels(count)
    params = sample_batch(config, 7, 2, range(count), [CROP] * count, SIZE)
    seen, moved = apply(image, keypoints, params, SIZE, LSP14.flip_index)
    for index in range(count):
        pixels, points = on_host(config, index, image[index], keypoints[index])
        difference = np.abs(bytes_of(seen[index]) - pixels)
        # rounding to bytes between the host's steps, and its 1/32 pixel, make the difference
        assert difference.mean() < 1
        assert np.quantile(difference, 0.99) < 4
        np.testing.assert_allclose(moved[index], points, atol=1e-3)
    assert len(np.unique(np.asarray(moved)[..., 2])) == 3


@pytest.mark.parametrize("key", ["flip", "rotate", "brightness", "rectangles", "cutout", "blur"])
def test_a_device_that_left_a_change_out_would_be_caught(key):
    change = {
        "flip": {"flip": 1.0},
        "rotate": {"rotate": (5, 5)},
        "brightness": {"brightness": (0.1, 0.1)},
        "rectangles": {"rectangles": 16},
        "cutout": {"cutout": 1.0},
        "blur": {"blur": 1.0, "blur_sigma": (3, 3)},
    }[key]
    config = AugmentConfig(**{f: getattr(STILL, f) for f in STILL.__struct_fields__} | change)
    still = apply(images(), labels(), only_crops([CROP]), SIZE, LSP14.flip_index)[0]
    params = sample_batch(config, 7, 2, [3], [CROP], SIZE)
    changed = apply(images(), labels(), params, SIZE, LSP14.flip_index)[0]
    assert np.abs(bytes_of(still) - bytes_of(changed)).mean() > 1


def test_without_draws_a_picture_of_the_inputs_size_stays_as_it_is():
    image, keypoints = images(2, SIZE, SIZE), labels(2, SIZE, SIZE)
    crops = [resize_affine(SIZE, SIZE, SIZE)] * 2
    for params in (only_crops(crops), sample_batch(STILL, 0, 0, [0, 1], crops, SIZE)):
        seen, moved = apply(image, keypoints, params, SIZE, LSP14.flip_index)
        np.testing.assert_allclose(bytes_of(seen), image, atol=1e-4)
        np.testing.assert_array_equal(moved, keypoints)
        assert np.asarray(seen).dtype == np.asarray(moved).dtype == np.float32


@pytest.mark.parametrize("size", [32, 50, 64])
def test_without_draws_another_size_is_a_plain_resize(size):
    image, keypoints = images(), labels()
    params = only_crops([resize_affine(WIDTH, HEIGHT, size)])
    seen, moved = apply(image, keypoints, params, size, LSP14.flip_index)
    expected = cv2.resize(image[0], (size, size), interpolation=cv2.INTER_LINEAR)
    assert np.abs(bytes_of(seen[0]) - expected).max() < 1.5
    np.testing.assert_allclose(
        moved[0], keypoints[0] * np.float32([size / WIDTH, size / HEIGHT, 1]), atol=1e-4
    )


@given(
    st.floats(-180, 180),
    st.floats(0.7, 1.5),
    st.booleans(),
    st.tuples(st.floats(45, 55), st.floats(35, 45)),
)
@settings(max_examples=30)
def test_a_blob_lands_where_its_keypoint_lands(degrees, scale, mirror, center):
    i, j = np.indices((HEIGHT, WIDTH)) + 0.5
    blob = 255 * np.exp(-((j - center[0]) ** 2 + (i - center[1]) ** 2) / (2 * 3**2))
    image = np.repeat(np.round(blob).astype(np.uint8)[None, ..., None], 3, -1)
    affine = transform.about(
        [WIDTH / 2, HEIGHT / 2], scale * transform.rotation(degrees), np.array([-18.0, -8.0])
    )
    if mirror:
        affine = transform.compose(transform.flip(SIZE), affine)
    keypoints = np.full((1, K, 3), (*center, 2), np.float32)
    seen, moved = apply(image, keypoints, only_crops([affine]), SIZE, LSP14.flip_index)
    hosts = warp(image[0], affine, SIZE, SIZE)
    y, x = np.indices((SIZE, SIZE)) + 0.5
    for pixels in (bytes_of(seen[0])[..., 0], hosts[..., 0].astype(float)):
        centroid = [(pixels * axis).sum() / pixels.sum() for axis in (x, y)]
        np.testing.assert_allclose(centroid, np.asarray(moved)[0, 0, :2], atol=0.06)


def test_a_mirror_image_swaps_pixels_and_names():
    image, keypoints = images(1, SIZE, SIZE), np.full((1, K, 3), (30, 40, 2), np.float32)
    left, right = LSP14.index("left_knee"), LSP14.index("right_knee")
    keypoints[0, left, :2], keypoints[0, right, :2] = (10, 20), (50, 21)
    params = only_crops([transform.flip(SIZE)])
    seen, moved = apply(image, keypoints, params, SIZE, LSP14.flip_index)
    np.testing.assert_allclose(bytes_of(seen[0]), image[0, :, ::-1], atol=1e-3)
    np.testing.assert_allclose(np.asarray(moved)[0, [left, right], :2], [(14, 21), (54, 20)])
    again = augment.move(moved, params["affine"], SIZE, LSP14.flip_index)
    np.testing.assert_allclose(again, keypoints, atol=1e-4)


def test_a_keypoint_that_leaves_the_frame_is_no_longer_labelled():
    keypoints = np.zeros((1, K, 3), np.float32)
    keypoints[0, :5] = [(0, 0, 2), (-0.1, 5, 2), (64, 5, 1), (5, 63.9, 1), (5, 64, 2)]
    keypoints[0, 5] = 5, 5, 0
    moved = augment.move(keypoints, transform.IDENTITY[None], SIZE, np.arange(K))
    expected = np.zeros_like(keypoints[0])
    expected[[0, 3]] = keypoints[0, [0, 3]]
    np.testing.assert_array_equal(moved[0], expected)


def test_rectangles_cover_their_pixels_in_order_and_hide_what_lies_under_them():
    rectangles = np.array([[[10, 20, 30, 40], [20, 30, 25, 50], [0, 0, 0, 0]]], np.float32)
    rgb = np.array([[[1, 2, 3], [4, 5, 6], [9, 9, 9]]], np.float32)
    pixels = np.asarray(augment.cover(np.zeros((1, 64, 64, 3), np.float32), rectangles, rgb))
    expected = np.zeros((64, 64, 3))
    expected[20:40, 10:30] = 1, 2, 3
    expected[30:50, 20:25] = 4, 5, 6
    np.testing.assert_array_equal(pixels[0], expected)
    points = [(10, 20, 2), (30, 20, 2), (9.9, 30, 2), (22, 49, 2), (15, 25, 1), (0, 0, 0)]
    hidden = augment.occlude(np.array([points], np.float32), rectangles)
    np.testing.assert_array_equal(hidden[0, :, 2], [1, 2, 2, 1, 1, 0])
    np.testing.assert_array_equal(hidden[0, :, :2], np.array(points, np.float32)[:, :2])


def test_garbage_at_unlabelled_keypoints_becomes_zeros():
    keypoints = np.full((1, K, 3), (np.nan, np.inf, 0), np.float32)
    params = sample_batch(AugmentConfig(), 0, 0, [0], [CROP], SIZE)
    _, moved = apply(images(), keypoints, params, SIZE, LSP14.flip_index)
    np.testing.assert_array_equal(moved, np.zeros_like(keypoints))


def test_a_samples_draw_follows_from_seed_epoch_and_index_alone():
    config, crops = AugmentConfig(), [CROP] * 3
    batch = sample_batch(config, 1, 2, [5, 6, 7], crops, SIZE)
    alone = sample_batch(config, 1, 2, [6], crops[:1], SIZE)
    for name, array in batch.items():
        np.testing.assert_array_equal(array[1:2], alone[name])
    for other in ((2, 2, [6]), (1, 3, [6]), (1, 2, [7])):
        different = sample_batch(config, *other, crops[:1], SIZE)
        assert not np.array_equal(different["affine"], alone["affine"])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, {"affine", "colour", "rectangles", "rgb", "blur"}),
        ({"blur": 0}, {"affine", "colour", "rectangles", "rgb"}),
        ({"blur": 0, "rectangles": 0}, {"affine", "colour", "rectangles", "rgb"}),
        ({"blur": 0, "rectangles": 0, "cutout": 0}, {"affine", "colour"}),
    ],
)
def test_the_arrays_have_one_shape_for_every_batch_of_a_configuration(changes, names):
    config = AugmentConfig(**changes)
    batches = [sample_batch(config, 0, e, [0, 1], [CROP] * 2, SIZE) for e in range(10)]
    shapes = [{n: (a.shape, a.dtype) for n, a in batch.items()} for batch in batches]
    assert set(shapes[0]) == names
    assert all(shape == shapes[0] for shape in shapes)
    assert {a.dtype for a in batches[0].values()} == {np.dtype(np.float32)}
