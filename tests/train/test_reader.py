from types import SimpleNamespace
from typing import get_args

import keras
import numpy as np
import pytest
from keras import ops

from kpdata.core.errors import KpdataError
from kpdata.core.progress import Progress
from kpdata.core.skeleton import Skeleton
from kpdata.train.data.crops import Crops
from kpdata.train.infer.predictions import Decode
from kpdata.train.infer.reader import PoseReader, _batch_size, predict_crops
from kpdata.train.models.parts import COORDINATES_HEAD, HEATMAP_HEAD
from kpdata.train.ops.targets import DECODERS

SKELETON = Skeleton("kite", ("nose", "left_tip", "right_tip"))
SIZE, CELLS = 32, 8
BOTH = (HEATMAP_HEAD, COORDINATES_HEAD)


@keras.saving.register_keras_serializable(package="test")
class Cells(keras.layers.Layer):
    """Averages the crop's channels over squares of 4 × 4: a heatmap for each of 3 keypoints."""

    def call(self, inputs):
        return ops.average_pool(inputs, SIZE // CELLS, SIZE // CELLS)


def looking_net():
    """Its heatmaps are the crop's channels, its coordinates the brightest rows' middle."""
    image = keras.Input((SIZE, SIZE, 3))
    maps = Cells(dtype="float32")(image)
    bright = keras.layers.GlobalAveragePooling2D()(image)  # (B, 3)
    constant = keras.layers.Dense(6, kernel_initializer="zeros", name="xy")
    xy = keras.layers.Reshape((3, 2))(constant(bright))
    net = keras.Model(image, {"heatmap": maps, "xy_norm": xy, "visibility": bright})
    constant.bias.assign([0.5, 0.1, 0.2, 0.3, 0.6, 0.4])
    return net


@pytest.fixture(scope="module")
def net():
    return looking_net()


def crops_at(spots):
    """A crop for each of N (K, 2) cell positions (column, row), each keypoint in its channel."""
    crops = np.zeros((len(spots), SIZE, SIZE, 3), np.uint8)
    step = SIZE // CELLS
    for crop, cells in zip(crops, spots, strict=True):
        for channel, (column, row) in enumerate(cells):
            crop[row * step : (row + 1) * step, column * step : (column + 1) * step, channel] = 255
    scale = np.array([[[2.0 + n, 0, 10 * n], [0, 2.0 + n, 5.0]] for n in range(len(spots))])
    return Crops(SIZE, scale, crops)


def spots(count):
    return np.random.default_rng(0).integers(1, CELLS - 1, (count, 3, 2))


def test_the_decodings_that_are_declared_are_those_that_there_are(net):
    assert tuple(DECODERS) == HEATMAP_HEAD.decodings == get_args(Decode)
    reader = PoseReader(net, SKELETON, (HEATMAP_HEAD,), flip=False, decode="foo")
    with pytest.raises(KpdataError, match="decode is 'foo': expected dark, udp, quadratic or argm"):
        predict_crops(reader, crops_at(spots(2)))


def test_heatmaps_give_places_in_source_pixels(net):
    cells = spots(5)
    seen = predict_crops(
        PoseReader(net, SKELETON, (HEATMAP_HEAD,), flip=False, decode="argmax"), crops_at(cells)
    )
    assert seen.primary == "heatmap"
    assert seen.visibility is None
    in_picture = (cells + 0.5) * SIZE / CELLS
    for n, found in enumerate(seen.keypoints["heatmap"]):
        np.testing.assert_allclose(found[:, :2], in_picture[n] * (2 + n) + [10 * n, 5], atol=1e-3)
        np.testing.assert_allclose(found[:, 2], 1, atol=1e-6)  # the channel's own brightness


def test_coordinates_come_with_their_visibility(net):
    seen = predict_crops(
        PoseReader(net, SKELETON, (COORDINATES_HEAD,), flip=False), crops_at(spots(2))
    )
    found = seen.keypoints["coordinates"]
    expected = np.array([[0.5, 0.1], [0.2, 0.3], [0.6, 0.4]]) * SIZE
    np.testing.assert_allclose(found[0, :, :2], expected * 2 + [0, 5], atol=1e-4)
    np.testing.assert_allclose(found[1, :, :2], expected * 3 + [10, 5], atol=1e-4)
    logits = crops_at(spots(2)).images[0].mean((0, 1)) / 127.5 - 1
    np.testing.assert_allclose(seen.visibility[0], 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_array_equal(found[..., 2], seen.visibility)


def test_the_flip_test_averages_with_the_mirror_image_and_swaps_names(net):
    reader = PoseReader(net, SKELETON, (COORDINATES_HEAD,), flip=True)
    found = predict_crops(reader, crops_at(spots(1))).keypoints["coordinates"][0, :, :2]
    left, right = (0.2 + 1 - 0.6) / 2, (0.6 + 1 - 0.2) / 2
    expected = np.array([[0.5, 0.1], [left, 0.35], [right, 0.35]]) * SIZE * 2 + [0, 5]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_coordinates_without_visibility_score_by_the_peak_or_one(net):
    crops = crops_at(spots(2))
    for heads, expected in (((COORDINATES_HEAD,), 1), (BOTH, None)):
        reader = PoseReader(
            net, SKELETON, heads, flip=False, decode="argmax", with_visibility=False
        )
        seen = predict_crops(reader, crops)
        assert seen.visibility is None
        peaks = seen.keypoints["heatmap"][..., 2] if expected is None else expected
        np.testing.assert_array_equal(seen.keypoints["coordinates"][..., 2], peaks)


def test_the_flip_test_looks_at_the_mirror_image(net):
    """Grey crops and their mirror images agree: keypoints whose channels are alike stay."""
    cells = np.repeat(spots(4)[:, :1], 3, axis=1)
    flip, plain = (
        predict_crops(
            PoseReader(net, SKELETON, (HEATMAP_HEAD,), flip=flip, decode="argmax"), crops_at(cells)
        ).keypoints["heatmap"]
        for flip in (True, False)
    )
    np.testing.assert_allclose(flip, plain, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "counts", "batches"),
    [
        (32, [1, 3, 32, 33, 1], [1, 4, 32, 32, 32]),
        (256, [5, 40], [8, 32]),
        (384, [1, 100], [1, 14]),
        (512, [1, 2, 100], [1, 2, 8]),
        (1024, [1, 32], [1, 2]),
    ],
)
def test_a_batch_holds_no_more_than_there_is_and_fewer_large_crops(size, counts, batches):
    reader = SimpleNamespace(size=size, batch_size=0)
    found = []
    for count in counts:
        reader.batch_size = _batch_size(reader, count)
        found.append(reader.batch_size)
    assert found == batches


def test_one_picture_is_a_batch_of_one_and_its_answer_the_same(net, monkeypatch):
    shown = []
    real = PoseReader.predict_on_batch
    monkeypatch.setattr(
        PoseReader, "predict_on_batch", lambda self, x: shown.append(len(x)) or real(self, x)
    )
    reader = PoseReader(net, SKELETON, BOTH, flip=True)
    crops = crops_at(spots(9))
    one = predict_crops(reader, Crops(SIZE, crops.to_source[:1], crops.images[:1]))
    many = predict_crops(reader, crops, batch_size=32)
    assert shown == [1, 32]
    for head in one.keypoints:
        np.testing.assert_allclose(one.keypoints[head][0], many.keypoints[head][0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_every_picture_is_answered_once_and_in_order_whatever_the_batch(net, count):
    told: list[int] = []
    progress = Progress()
    progress.reach = lambda done, note="": told.append(done)
    reader = PoseReader(net, SKELETON, BOTH, flip=False, decode="argmax")
    cells = spots(9)[:count]
    seen = predict_crops(reader, crops_at(cells), progress, batch_size=4)
    whole = predict_crops(reader, crops_at(cells), batch_size=9)
    assert told == [min(count, n) for n in range(4, count + 4, 4)]
    assert seen.keypoints.keys() == {"heatmap", "coordinates"}
    for head in seen.keypoints:
        assert len(seen.keypoints[head]) == count
        np.testing.assert_allclose(seen.keypoints[head], whole.keypoints[head], atol=1e-4)


@pytest.mark.parametrize(("factor", "score"), [(3.0, 1), (-1.0, 0)])
def test_scores_of_heatmaps_stay_between_0_and_1(factor, score):
    image = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Rescaling(factor, offset=-0.1)(Cells(dtype="float32")(image))
    reader = PoseReader(
        keras.Model(image, {"heatmap": maps}), SKELETON, (HEATMAP_HEAD,), flip=False
    )
    white = Crops(SIZE, np.eye(3)[None, :2], np.full((1, SIZE, SIZE, 3), 255, np.uint8))
    assert (predict_crops(reader, white).keypoints["heatmap"][..., 2] == score).all()


def test_the_first_head_speaks_for_the_model(net):
    seen = predict_crops(PoseReader(net, SKELETON, BOTH, flip=False), crops_at(spots(1)))
    assert seen.primary == "heatmap"


@pytest.mark.parametrize("decode", ["dark", "quadratic", "argmax"])
def test_every_decoding_finds_the_spot(net, decode):
    cells = spots(3)
    reader = PoseReader(net, SKELETON, (HEATMAP_HEAD,), flip=False, decode=decode)
    found = predict_crops(reader, crops_at(cells)).keypoints["heatmap"]
    for n in range(3):
        expected = (cells[n] + 0.5) * SIZE / CELLS * (2 + n) + [10 * n, 5]
        np.testing.assert_allclose(found[n, :, :2], expected, atol=0.5)
