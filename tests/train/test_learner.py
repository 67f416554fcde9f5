import keras
import numpy as np
import pytest

from kpdata.core.augment import AugmentConfig
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.skeletons import LSP14
from kpdata.train.loop.learner import Learner, dropout_seeds
from kpdata.train.models.base import Phase
from kpdata.train.models.registry import get_model
from kpdata.train.models.regression.network import backbone_of
from kpdata.train.ops.augment import sample_batch
from kpdata.train.run.config import TrainConfig

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("gradients here are TensorFlow's", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("tiny_models")

B, K, SIZE = 4, len(LSP14), 64
ALL = {
    "heatmap": 1.0,
    "offset": 0.5,
    "coordinates": 2.0,
    "visibility": 0.25,
    "limbs": 0.125,
    "places": 1.5,
}
CONFIGS = {
    "blazepose": {"size": "lite", "offsets": True},
    "dense": {"backbone": "mobilenet", "head": "dense", "dropout": 0.0},
    "softargmax": {"backbone": "mobilenet", "head": "softargmax", "dropout": 0.0},
    "rle": {"backbone": "mobilenet", "head": "rle", "dropout": 0.0},
}


def config(kind, trains=None, options=(), **changes):
    model = "blazepose" if kind == "blazepose" else "regression"
    trains = trains or ("both" if kind == "blazepose" else "all")
    phases = (Phase(trains, 1, SIZE, 1e-3),)
    own = {loss.name: ALL[loss.name] for loss in get_model(model).losses}
    options = {**CONFIGS[kind], **dict(options)}
    return TrainConfig(model=model, options=options, phases=phases, **{"losses": own, **changes})


def learner(settings):
    keras.utils.set_random_seed(0)
    net = settings.build(K, SIZE)
    made = Learner(net, settings, settings.phases[0], LSP14)
    made.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    return made


def batch(junk=None, seed=0):
    """Noise, and keypoints of which a third are not labelled; ``junk`` stands in their place."""
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(1, SIZE - 1, (B, K, 3)).astype(np.float32)
    keypoints[..., 2] = rng.integers(0, 3, (B, K))
    if junk is not None:
        keypoints[keypoints[..., 2] == 0, :2] = junk
    crops = [np.eye(2, 3)] * B
    params = sample_batch(AugmentConfig(scale=(0.9, 1.1), blur=0.0), 0, 0, range(B), crops, SIZE)
    return {"image": rng.integers(0, 256, (B, SIZE, SIZE, 3), np.uint8), "keypoints": keypoints,
            **params}  # fmt: skip


def step(made, data):
    """The loss, its parts and its gradients, of one batch."""
    made.reset_metrics()
    with tf.GradientTape() as tape:
        outputs = made(data, training=True)
        loss = made.compute_loss(data, None, outputs)
    gradients = tape.gradient(loss, [v.value for v in made.trainable_variables])
    parts = {name: float(tracker.result()) for name, tracker in made.trackers.items()}
    return float(loss), parts, [None if g is None else np.asarray(g) for g in gradients]


@pytest.mark.parametrize("kind", CONFIGS)
def test_whatever_stands_at_unlabelled_keypoints_moves_no_loss_and_no_gradient(kind):
    made = learner(config(kind))
    loss, parts, gradients = step(made, batch())
    maps = {"blazepose": {"heatmap", "offset"}, "softargmax": {"heatmap"}}
    assert parts.keys() == {"coordinates", "visibility", "limbs"} | maps.get(kind, set())
    assert all(np.isfinite(value) and value != 0 for value in parts.values())
    for junk in (np.nan, np.inf, -1e9, SIZE / 2):
        other_loss, other_parts, other = step(made, batch(junk))
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_parts == pytest.approx(parts, rel=1e-5)
        for variable, first, second in zip(made.trainable_variables, gradients, other, strict=True):
            if first is None:
                assert second is None
                continue
            scale = np.abs(first).max() + 1e-8
            np.testing.assert_allclose(first, second, atol=1e-3 * scale, err_msg=variable.path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_batch_without_labels_teaches_nothing(kind):
    data = batch()
    data["keypoints"][..., 2] = 0
    loss, _, gradients = step(learner(config(kind)), data)
    assert loss == 0
    assert not any(gradient is not None and gradient.any() for gradient in gradients)


def test_a_labelled_keypoint_does_move_the_losses():
    made, data = learner(config("blazepose", losses={})), batch()
    loss = step(made, data)[0]
    labelled = np.argwhere(data["keypoints"][..., 2] > 0)[0]
    data["keypoints"][tuple(labelled)][:2] = 10
    assert step(made, data)[0] != pytest.approx(loss, rel=1e-5)


def test_a_keypoint_of_weight_0_does_not_count():
    nose = LSP14.keypoints[0]
    weights = {nose: 0.0, LSP14.keypoints[LSP14.flip_index[0]]: 0.0}  # both: crops are mirrored
    made = learner(config("blazepose", keypoint_weights=weights))
    data = batch()
    first = step(made, data)[0]
    data["keypoints"][:, [0, LSP14.flip_index[0]]] = (30, 30, 2)
    assert step(made, data)[0] == pytest.approx(first, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    loss, parts, _ = step(learner(config("blazepose")), batch())
    assert loss == pytest.approx(sum(ALL[name] * v for name, v in parts.items()), rel=1e-5)


@pytest.mark.parametrize(
    ("trains", "parts"),
    [
        ("heatmap", {"heatmap", "offset"}),
        ("regression", {"coordinates", "visibility", "limbs"}),
        ("both", {"heatmap", "offset", "coordinates", "visibility", "limbs"}),
    ],
)
def test_a_phase_computes_only_what_it_trains(trains, parts):
    made = learner(config("blazepose", trains))
    outputs = made(batch(), training=True)
    own = {"coordinates": "xy_norm", "limbs": "xy_norm"}
    assert set(made.trackers) == parts
    assert set(outputs) == {own.get(name, name) for name in parts} | {"keypoints"}


def test_a_loss_of_weight_0_is_left_out():
    made = learner(config("blazepose", losses={"offset": 0, "limbs": 0}))
    assert set(made.trackers) == {"heatmap", "coordinates", "visibility"}


def test_a_phase_without_any_loss_is_refused():
    nothing = {"heatmap": 0, "offset": 0}
    with pytest.raises(TrainingError, match="all that phase heatmap could learn from weigh 0"):
        learner(config("blazepose", "heatmap", losses=nothing))


def test_a_weight_for_a_keypoint_that_is_none_lists_them():
    with pytest.raises(KpdataError, match=r"no keypoint 'noze'; it has right_ankle"):
        learner(config("blazepose", keypoint_weights={"noze": 2.0}))


def test_head_leaves_the_backbone_alone_and_all_thaws_it():
    for trains in ("head", "all"):
        made = learner(config("dense", trains))
        backbone = {v.path for v in backbone_of(made.net).variables}
        before = {v.path: v.numpy() for v in made.net.variables}
        made.train_on_batch(batch())
        moved = {v.path for v in made.net.variables if np.any(v.numpy() != before[v.path])}
        assert {v.path for v in made.net.weights} - backbone <= moved
        assert bool(moved & backbone) == (trains == "all")
        if trains == "all":
            assert backbone <= moved


def test_the_flow_of_rle_learns_beside_the_model():
    made = learner(config("rle"))
    before = [v.numpy() for v in made.loss_layers["flow"].trainable_variables]
    for seed in range(3):  # its last layers start at 0: the first step moves these alone
        made.train_on_batch(batch(seed=seed))
    now = [v.numpy() for v in made.loss_layers["flow"].trainable_variables]
    assert all(np.any(a != b) for a, b in zip(before, now, strict=True))


def test_without_augmentation_the_picture_and_its_labels_are_as_they_were():
    made, data = learner(config("dense")), batch()
    data = {"image": data["image"], "keypoints": data["keypoints"],
            "affine": np.tile(np.eye(2, 3, dtype=np.float32), (B, 1, 1))}  # fmt: skip
    image, keypoints = made.augment(data["image"], data["keypoints"], {"affine": data["affine"]})
    np.testing.assert_allclose(image, data["image"] / 127.5 - 1, atol=1e-5)
    labelled = data["keypoints"][..., 2] > 0
    np.testing.assert_allclose(np.asarray(keypoints)[labelled], data["keypoints"][labelled])


def test_dropout_seeds_are_what_checkpoints_leave_out(tmp_path):
    made = learner(config("dense", options={"dropout": 0.5}))
    (seed,) = dropout_seeds(made)
    made.save_weights(tmp_path / "a.weights.h5")
    before = seed.numpy()
    made.train_on_batch(batch())
    assert np.any(seed.numpy() != before)
    made.load_weights(tmp_path / "a.weights.h5")
    assert np.any(seed.numpy() != before)
    losses = []
    for _ in range(2):
        made.load_weights(tmp_path / "a.weights.h5")
        seed.assign([3, 7])
        losses.append(step(made, batch())[0])
    assert losses[0] == losses[1]
    seed.assign([3, 8])
    made.load_weights(tmp_path / "a.weights.h5")
    assert step(made, batch())[0] != losses[0]
    assert dropout_seeds(learner(config("blazepose"))) == []


@pytest.mark.parametrize("kind", ["blazepose", "rle"])
def test_mixed_bfloat16_computes_inside_and_keeps_heads_and_losses_in_float32(kind, monkeypatch):
    # TensorFlow leaves parts of a depthwise gradient unset where a stride of 2 meets 1 × 1 pixels.
    monkeypatch.setitem(globals(), "SIZE", 128)
    expected = step(learner(config(kind)), batch())[0]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = learner(config(kind))
    finally:
        keras.config.set_dtype_policy("float32")
    half = [layer for layer in made.net._flatten_layers() if layer.compute_dtype == "bfloat16"]
    assert any(isinstance(layer, keras.layers.Conv2D) for layer in half)
    outputs = made(batch(), training=True)
    assert {keras.backend.standardize_dtype(v.dtype) for v in outputs.values()} == {"float32"}
    loss = made.compute_loss(y_pred=outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert {v.dtype for v in made.trainable_variables} == {"float32"}
    assert float(loss) == pytest.approx(expected, rel=0.1)
    made.train_on_batch(batch())
    assert [v.path for v in made.variables if not np.isfinite(np.asarray(v)).all()] == []
