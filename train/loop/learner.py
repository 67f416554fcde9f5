"""The compiled training step: augmentation, model and losses in one Keras model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from kpdata.core.errors import TrainingError
from kpdata.core.skeleton import Skeleton
from kpdata.train.models.blazepose import set_stage
from kpdata.train.models.regression import backbone_of
from kpdata.train.ops import losses, targets
from kpdata.train.ops.augment import apply
from kpdata.train.ops.losses import COORDINATE_LOSSES, Flow, Tensor, labelled
from kpdata.train.run.config import Phase, TrainConfig

_OUTPUTS_OF = {
    "heatmap": ("heatmap", "offset"),
    "regression": ("xy_norm", "visibility"),
}


class Learner(keras.Model):
    """A model in training: takes the batches of :class:`kpdata.train.data.batches.Batches`.

    Outputs that a phase does not train are not computed.

    Args:
        net: the model to train; its variables are shared, not copied.
        config: how.
        phase: what.
        skeleton: names the keypoints.

    Raises:
        KpdataError: ``keypoint_weights`` names no keypoint of it, or no loss counts.
    """

    def __init__(self, net: keras.Model, config: TrainConfig, phase: Phase, skeleton: Skeleton):
        super().__init__(name="learner", dtype="float32")  # or coordinates come as bfloat16
        freeze(net, phase)
        trained = _OUTPUTS_OF.get(phase.trains, tuple(net.output))
        outputs = {name: value for name, value in net.output.items() if name in trained}
        self.net = net
        self.flow = Flow(name="flow") if "sigma" in outputs else None
        if self.flow:
            self.flow.build((None, 2))
        self.config, self.size, self.skeleton = config, phase.input_size, skeleton
        self.importance = np.ones(len(skeleton), np.float32)
        for name, weight in config.keypoint_weights.items():
            self.importance[skeleton.index(name)] = weight
        augment = partial(apply, size=phase.input_size, flip_index=skeleton.flip_index)
        self.augment = compiled(augment)
        self.trained_outputs = keras.Model(net.inputs, outputs).__call__
        self.trackers = {name: keras.metrics.Mean(name) for name in self._shares(outputs)}
        if not self.trackers:
            raise TrainingError(f"losses: all that phase {phase.trains} could learn from weigh 0")
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """A batch → the model's outputs, and the keypoints of the augmented pictures."""
        draws = {k: v for k, v in inputs.items() if k not in ("image", "keypoints")}
        image, keypoints = self.augment(inputs["image"], inputs["keypoints"], draws)
        return {**self.trained_outputs(image, training=training), "keypoints": keypoints}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The weighted sum of the losses that the outputs allow; each is tracked by its name."""
        total = 0.0
        for name, share in self._shares(y_pred).items():
            value = getattr(self, f"_{name}_loss")(y_pred, self._weights(y_pred))
            self.trackers[name].update_state(value)
            total = total + share * value
        return total

    def _shares(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """Loss → its weight in the sum, for those that mean something here."""
        shares = self.config.losses
        possible = {
            "heatmap": "heatmap" in outputs,
            "offset": "offset" in outputs,
            "coordinates": "xy_norm" in outputs,
            "visibility": "visibility" in outputs,
            "limbs": "xy_norm" in outputs and len(self.skeleton.edge_index) > 0,
        }
        return {
            name: getattr(shares, name)
            for name, is_possible in possible.items()
            if is_possible and getattr(shares, name) > 0
        }

    def _weights(self, outputs: dict[str, Tensor]) -> Tensor:
        return labelled(outputs["keypoints"], self.importance)

    def _heatmap_loss(self, outputs: dict[str, Tensor], weights: Tensor) -> Tensor:
        found = outputs["heatmap"]
        sigma = self.config.heatmap_sigma
        true = targets.heatmaps(outputs["keypoints"], self.size, found.shape[1], sigma)
        is_probability = self.config.model == "regression"
        loss = losses.heatmap_divergence if is_probability else losses.heatmap_mse
        return loss(true, found, weights)

    def _offset_loss(self, outputs: dict[str, Tensor], weights: Tensor) -> Tensor:
        found, keypoints = outputs["offset"], outputs["keypoints"]
        true = targets.offsets(keypoints, self.size, found.shape[1])
        discs = targets.discs(keypoints, self.size, found.shape[1])
        return losses.offset_l1(true, found, discs, weights)

    def _coordinates_loss(self, outputs: dict[str, Tensor], weights: Tensor) -> Tensor:
        true, found = targets.normalise_xy(outputs["keypoints"], self.size), outputs["xy_norm"]
        if self.flow:
            return losses.rle(true, found, outputs["sigma"], weights, self.flow)
        return COORDINATE_LOSSES[self.config.coordinate_loss](true, found, weights)

    def _visibility_loss(self, outputs: dict[str, Tensor], weights: Tensor) -> Tensor:
        return losses.visibility_bce(outputs["keypoints"], outputs["visibility"], weights)

    def _limbs_loss(self, outputs: dict[str, Tensor], weights: Tensor) -> Tensor:
        true = targets.normalise_xy(outputs["keypoints"], self.size)
        return losses.limb_length(true, outputs["xy_norm"], weights, self.skeleton.edge_index)


def freeze(net: keras.Model, phase: Phase) -> None:
    """Let learn what the phase trains, and nothing else."""
    if phase.trains in ("head", "all"):
        backbone_of(net).trainable = phase.trains == "all"
    else:
        set_stage(net, phase.trains)


def dropout_seeds(model: keras.Model) -> list[keras.Variable]:
    """The states of its random generators, which ``save_weights`` leaves out."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under XLA where the step around it is not."""
    if jit():
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def jit() -> bool:
    """Whether the whole step runs under XLA: not on TensorFlow's CPU, whose convolutions lose."""
    return on_gpu() or keras.backend.backend() != "tensorflow"


def on_gpu() -> bool:
    """Whether the backend found anything better than a CPU."""
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())
