import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata.train.ops.losses import (
    COORDINATE_LOSSES,
    Flow,
    heatmap_divergence,
    heatmap_mse,
    l1,
    labelled,
    limb_length,
    mse,
    offset_l1,
    rle,
    smooth_l1,
    spatial_cross_entropy,
    visibility_bce,
    wing,
)
from kpdata.train.ops.targets import discs, heatmaps, offsets

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("gradients here are TensorFlow's", allow_module_level=True)

B, K, SIZE, SIDE = 2, 5, 64, 16
EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])


@pytest.fixture(scope="module")
def flow():
    keras.utils.set_random_seed(0)
    return disturbed(Flow(couplings=2, width=8))


def disturbed(flow):
    flow.build((None, 2))
    rng = np.random.default_rng(0)
    flow.set_weights([rng.normal(0, 0.4, w.shape) for w in flow.get_weights()])
    return flow


def all_losses(flow):
    """Every loss as a function of keypoints (B, K, 3) in pixels and a dict of predictions."""
    simple = {
        name: lambda k, p, loss=loss: loss(k[..., :2] / SIZE, p["xy"], labelled(k))
        for name, loss in COORDINATE_LOSSES.items()
    }
    return simple | {
        "rle": lambda k, p: rle(k[..., :2] / SIZE, p["xy"], p["sigma"], labelled(k), flow),
        "heatmap_mse": lambda k, p: heatmap_mse(
            heatmaps(k, SIZE, SIDE, 1.5), p["maps"], labelled(k)
        ),
        "heatmap_divergence": lambda k, p: heatmap_divergence(
            heatmaps(k, SIZE, SIDE, 1.5), p["chances"], labelled(k)
        ),
        "spatial_cross_entropy": lambda k, p: spatial_cross_entropy(
            heatmaps(k, SIZE, SIDE, 1.5), p["maps"], labelled(k)
        ),
        "offset_l1": lambda k, p: offset_l1(
            offsets(k, SIZE, SIDE), p["offsets"], discs(k, SIZE, SIDE), labelled(k)
        ),
        "visibility_bce": lambda k, p: visibility_bce(k, p["logits"], labelled(k)),
        "limb_length": lambda k, p: limb_length(k[..., :2] / SIZE, p["xy"], labelled(k), EDGES),
    }


NAMES = sorted(all_losses(None))


def example(seed=0):
    """Keypoints of which some are not labelled, and predictions, by name."""
    rng = np.random.default_rng(seed)
    visibility = rng.permutation([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]).reshape(B, K, 1)
    keypoints = np.concatenate([rng.uniform(1, SIZE - 1, (B, K, 2)), visibility], -1)
    predictions = {
        "xy": rng.uniform(0, 1, (B, K, 2)),
        "sigma": rng.uniform(0.01, 0.5, (B, K, 2)),
        "logits": rng.normal(size=(B, K)),
        "maps": rng.normal(size=(B, SIDE, SIDE, K)),
        "chances": rng.dirichlet(np.ones(SIDE * SIDE), (B, K)).reshape(B, SIDE, SIDE, K),
        "offsets": rng.normal(size=(B, SIDE, SIDE, 2 * K)),
    }
    return keypoints.astype(np.float32), as_float32(predictions)


def as_float32(arrays):
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def put(keypoints, predictions, where, value):
    """Copies with ``value`` in every place that belongs to the keypoints ``where`` (B, K)."""
    keypoints = keypoints.copy()
    keypoints[where, :2] = value
    mask = where[:, None, None, :]
    masks = {
        "xy": where[..., None],
        "sigma": where[..., None],
        "logits": where,
        "maps": mask,
        "chances": mask,
        "offsets": np.concatenate([mask, mask], -1),
    }
    return keypoints, {
        name: np.where(masks[name], np.float32(value), p) for name, p in predictions.items()
    }


def with_gradients(loss, keypoints, predictions):
    inputs = {name: tf.constant(value) for name, value in predictions.items()}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(keypoints, inputs)
    gradients = tape.gradient(value, inputs)
    return float(value), {n: np.asarray(g) for n, g in gradients.items() if g is not None}


def test_only_labelled_keypoints_have_weight():
    keypoints = np.array([[[1, 1, 0], [1, 1, 1], [1, 1, 2]]], np.float32)
    np.testing.assert_array_equal(labelled(keypoints), [[0, 1, 1]])
    np.testing.assert_array_equal(labelled(keypoints, np.array([5, 0.5, 2])), [[0, 0.5, 2]])


@pytest.mark.parametrize("name", NAMES)
@given(
    seed=st.integers(0, 1000),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -7.0, 0.5]),
)
@settings(max_examples=8)
def test_whatever_stands_at_unlabelled_keypoints_changes_nothing(flow, name, seed, value):
    loss = all_losses(flow)[name]
    keypoints, predictions = example(seed)
    unlabelled = keypoints[..., 2] == 0
    clean = put(keypoints, predictions, unlabelled, 0.0)
    dirty = put(keypoints, predictions, unlabelled, value)
    expected, clean_gradients = with_gradients(loss, *clean)
    seen, gradients = with_gradients(loss, *dirty)
    assert seen == expected
    assert math.isfinite(seen)
    _, is_unlabelled = put(keypoints, as_float32({n: p * 0 for n, p in predictions.items()}),
                           unlabelled, 1.0)  # fmt: skip
    for key, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, clean_gradients[key])
        assert np.all(gradient[is_unlabelled[key] == 1] == 0)
        assert np.any(gradient != 0)


@pytest.mark.parametrize("name", NAMES)
def test_without_any_labelled_keypoint_the_loss_and_its_gradient_are_0(flow, name):
    keypoints, predictions = example()
    keypoints[..., 2] = 0
    value, gradients = with_gradients(all_losses(flow)[name], keypoints, predictions)
    assert value == 0
    assert gradients
    assert all(np.all(gradient == 0) for gradient in gradients.values())


@pytest.mark.parametrize("extreme", [1e6, -1e6, 0.0])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_predictions_give_finite_losses_and_gradients(flow, name, extreme):
    keypoints, predictions = example()
    _, predictions = put(keypoints, predictions, np.ones((B, K), bool), extreme)
    predictions["sigma"] = np.full((B, K, 2), np.clip(extreme, 0, 1), np.float32)
    for points in (keypoints, np.where(keypoints == keypoints[0, 0, 0], 1e6, keypoints)):
        value, gradients = with_gradients(all_losses(flow)[name], points, predictions)
        assert math.isfinite(value)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())


@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"rle", "visibility_bce", "spatial_cross_entropy"})
)
def test_a_perfect_prediction_costs_nothing(name):
    keypoints, predictions = example()
    maps = np.asarray(heatmaps(keypoints, SIZE, SIDE, 1.5))
    masses = maps.sum((1, 2), keepdims=True)
    predictions |= {
        "xy": keypoints[..., :2] / SIZE,
        "maps": maps,
        "chances": np.divide(maps, masses, out=np.zeros_like(maps), where=masses > 0),
        "offsets": np.asarray(offsets(keypoints, SIZE, SIDE)),
    }
    value, gradients = with_gradients(all_losses(None)[name], keypoints, predictions)
    assert value == 0
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())


TRUE = np.zeros((1, 3, 2), np.float32)
PREDICTED = np.array([[[0.3, -0.4], [0.1, 0.1], [9, 9]]], np.float32)
SEEN = np.array([[1, 1, 0]], np.float32)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (mse, ((0.09 + 0.16) / 2 + 0.01) / 2),
        (l1, ((0.3 + 0.4) / 2 + 0.1) / 2),
        (
            lambda *a: smooth_l1(*a, beta=0.2),
            ((0.3 - 0.1 + 0.4 - 0.1) / 2 + 0.1**2 / (2 * 0.2)) / 2,
        ),
        (
            lambda *a: wing(*a, width=0.2, curvature=0.1),
            ((0.1 + 0.2) / 2 + 0.2 * math.log(3) + 0.2 * math.log(2)) / 2,
        ),
    ],
    ids=["mse", "l1", "smooth_l1", "wing"],
)
def test_coordinate_losses_by_hand(loss, expected):
    assert float(loss(TRUE, PREDICTED, SEEN)) == pytest.approx(expected, rel=1e-5)


def test_importance_weights_the_mean():
    weights = labelled(
        np.array([[[0, 0, 2], [0, 0, 1], [0, 0, 0]]], np.float32), np.array([3, 1, 9])
    )
    expected = (3 * (0.09 + 0.16) / 2 + 1 * 0.01) / 4
    assert float(mse(TRUE, PREDICTED, weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("size", "sigma"), [(16, 1.0), (64, 2.0), (40, 1.5)])
def test_empty_heatmaps_cost_1_at_every_size_and_sigma(size, sigma):
    keypoints = np.array([[[30, 20, 2], [50, 50, 1], [7, 7, 0]]], np.float32)
    true = heatmaps(keypoints, SIZE, size, sigma)
    weights = labelled(keypoints)
    assert float(heatmap_mse(true, 0 * true, weights)) == pytest.approx(1)
    assert float(heatmap_mse(true, 0.5 * true, weights)) == pytest.approx(0.25)


def test_heatmap_loss_by_hand():
    true = np.zeros((1, 2, 2, 2), np.float32)
    true[0, 0, 0] = 1, 2  # energies 1 and 4
    predicted = true.copy()
    predicted[0, 1, 1] = 0.5, -1  # squared errors 0.25 and 1
    both, importance = np.ones((1, 2), np.float32), np.array([[1, 3]], np.float32)
    assert float(heatmap_mse(true, predicted, both)) == pytest.approx(1.25 / 5)
    assert float(heatmap_mse(true, predicted, importance)) == pytest.approx(3.25 / 13)


def test_heatmap_divergence_by_hand():
    true = np.zeros((1, 1, 2, 3), np.float32)
    true[0, 0, 0] = 5, 0.5, 0  # read as certain, certain, and outside of the crop
    predicted = np.array([[[[0.0, 0.5, 0.7], [1.0, 0.5, 0.3]]]], np.float32)
    apart = math.log(2)  # of what never overlaps
    near = (math.log(1 / 0.75) + 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2
    everywhere, importance = np.ones((1, 3), np.float32), np.array([[3, 1, 9]], np.float32)
    close = pytest.approx((apart + near) / 2, rel=1e-5)
    assert float(heatmap_divergence(true, predicted, everywhere)) == close
    weighted = pytest.approx((3 * apart + near) / 4, rel=1e-5)
    assert float(heatmap_divergence(true, predicted, importance)) == weighted


def test_spatial_cross_entropy_by_hand():
    true = np.zeros((1, 1, 2, 3), np.float32)
    true[0, 0, 0] = 5, 0.5, 0  # read as certain, certain, and outside of the crop
    true[0, 0, 1, 1] = 0.5  # now half and half
    logits = np.log(np.array([[[[0.25, 0.5, 0.7], [0.75, 0.5, 0.3]]]], np.float32)) + 7
    everywhere, importance = np.ones((1, 3), np.float32), np.array([[3, 1, 9]], np.float32)
    both = math.log(4), 0.0  # nothing where it is as unsure as the target
    close = pytest.approx(sum(both) / 2, rel=1e-5)
    assert float(spatial_cross_entropy(true, logits, everywhere)) == close
    weighted = pytest.approx((3 * both[0] + both[1]) / 4, rel=1e-5)
    assert float(spatial_cross_entropy(true, logits, importance)) == weighted


def test_offsets_count_inside_their_disc_alone():
    true = np.zeros((1, 2, 2, 2), np.float32)
    inside = np.zeros((1, 2, 2, 1), np.float32)
    inside[0, 0] = 1
    predicted = np.full_like(true, 100)
    predicted[0, 0, 0], predicted[0, 0, 1] = (0.1, -0.2), (0.3, 0)
    loss = offset_l1(true, predicted, inside, np.ones((1, 1), np.float32))
    assert float(loss) == pytest.approx(0.6 / 4)


def test_visibility_by_hand_with_1_as_visible():
    keypoints = np.array([[[0, 0, 2], [0, 0, 1], [0, 0, 0]]], np.float32)
    logits = np.array([[2, 3, -50]], np.float32)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(3))) / 2
    seen = float(visibility_bce(keypoints, logits, labelled(keypoints)))
    assert seen == pytest.approx(expected, rel=1e-6)


def test_limb_lengths_by_hand_over_limbs_with_both_ends():
    true = np.array([[[0, 0], [3, 4], [3, 5], [9, 9]]], np.float32)
    predicted = np.array([[[1, 1], [1, 3], [5, 3], [0, 0]]], np.float32)
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    weights = np.array([[1, 1, 1, 0]], np.float32)
    loss = limb_length(true, predicted, weights, edges)  # 5 → 2, 1 → 4
    assert float(loss) == pytest.approx((3 + 3) / 2)
    none = limb_length(true, predicted, weights, np.empty((0, 2), np.intp))
    assert float(none) == 0


def test_rle_starts_as_the_sum_of_laplace_and_normal():
    fresh = Flow()
    error, sigma = np.array([0.02, -0.05]), np.array([0.1, 0.04])
    loss = rle(
        np.zeros((1, 1, 2), np.float32),
        error.reshape(1, 1, 2).astype(np.float32),
        sigma.reshape(1, 1, 2).astype(np.float32),
        np.ones((1, 1), np.float32),
        fresh,
    )
    scale = 0.001 + 0.999 * sigma
    laplace = -np.log(np.exp(-np.abs(error / scale)) / (2 * scale))
    normal = -np.log(np.exp(-((error / scale) ** 2) / 2) / (np.sqrt(2 * np.pi) * scale))
    assert float(loss) == pytest.approx((laplace + normal).sum(), rel=1e-5)


def test_a_flow_is_a_density_and_not_the_one_it_started_with(flow):
    side, step = np.linspace(-20, 20, 601, retstep=True)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
    density = np.exp(np.asarray(flow(grid)))
    assert density.sum() * step**2 == pytest.approx(1, abs=2e-3)
    start = np.exp(-(grid**2).sum(-1) / 2) / (2 * np.pi)
    assert np.abs(density - start).max() > 0.01


def test_a_flow_comes_back_from_its_configuration(flow):
    again = Flow.from_config(flow.get_config())
    again.build((None, 2))
    again.set_weights(flow.get_weights())
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.testing.assert_array_equal(again(points), flow(points))


def test_rle_pulls_at_a_wrong_label_no_harder_than_l1(flow):
    keypoints, predictions = example()
    keypoints[..., 2] = 2
    predictions["sigma"][:] = 0.05
    predictions["xy"][0, 0] = 1e5
    _, gradients = with_gradients(all_losses(flow)["rle"], keypoints, predictions)
    scale = 0.001 + 0.999 * 0.05
    np.testing.assert_allclose(gradients["xy"][0, 0], 1 / scale / (B * K), rtol=1e-4)


def test_rle_and_its_flow_learn_how_the_errors_are_spread():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    errors = rng.laplace(0, 0.05, (64, 4, 2)).astype(np.float32)
    flow, raw = Flow(1, 8), keras.Variable(np.zeros((1, 1, 2), np.float32))
    flow.build((None, 2))
    optimiser = keras.optimizers.Adam(0.05)
    variables = [raw, *flow.trainable_variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            sigma = tf.broadcast_to(tf.sigmoid(raw.value), errors.shape)
            loss = rle(errors * 0, errors, sigma, np.ones((64, 4), np.float32), flow)
        optimiser.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    losses = [float(step()) for _ in range(150)]
    known = 4 * (math.log(2 * 0.05) + 1)  # both densities being the errors' own
    assert losses[0] > known + 5
    assert losses[-1] < known + 1.2


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_float32_whatever_the_predictions_type(flow, name):
    keypoints, predictions = example()
    loss = all_losses(flow)[name]
    half = {key: tf.cast(value, tf.bfloat16) for key, value in predictions.items()}
    value = loss(keypoints, half)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(float(loss(keypoints, predictions)), rel=0.05)
