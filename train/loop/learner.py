"""The compiled training step: augmentation, network and losses in one Keras model."""

from functools import partial
from typing import Any

import keras
import numpy as np

from kpdata.core.errors import TrainingError
from kpdata.core.skeleton import Skeleton
from kpdata.train.models.base import Phase
from kpdata.train.models.parts import Labels, Loss
from kpdata.train.ops.augment import apply
from kpdata.train.ops.device import compiled
from kpdata.train.ops.losses import Tensor, labelled
from kpdata.train.run.config import TrainConfig


class Learner(keras.Model):
    """A network in training. It takes the batches of :class:`kpdata.train.data.batches.Batches`.

    Outputs that a phase does not train are not computed.

    Args:
        net: the network to train; its variables are shared, not copied.
        config: how.
        phase: what.
        skeleton: names the keypoints.

    Raises:
        KpdataError: ``keypoint_weights`` names no keypoint of it, or no loss counts.
    """

    def __init__(self, net: keras.Model, config: TrainConfig, phase: Phase, skeleton: Skeleton):
        super().__init__(name="learner", dtype="float32")  # or coordinates come as bfloat16
        spec, stage = config.spec, config.spec.stage(phase.trains)
        if stage.freeze:
            stage.freeze(net)
        trained = stage.outputs or tuple(net.output)
        outputs = {name: value for name, value in net.output.items() if name in trained}
        self.net = net
        self.loss_layers = spec.loss_layers(spec.parse(config.options))
        self.config, self.size, self.skeleton = config, phase.input_size, skeleton
        self.importance = np.ones(len(skeleton), np.float32)
        for name, weight in config.keypoint_weights.items():
            self.importance[skeleton.index(name)] = weight
        augment = partial(apply, size=phase.input_size, flip_index=skeleton.flip_index)
        self.augment = compiled(augment)
        self.trained_outputs = keras.Model(net.inputs, outputs).__call__
        self.losses_used = [loss for loss in spec.losses if self._counts(loss, outputs)]
        self.trackers = {loss.name: keras.metrics.Mean(loss.name) for loss in self.losses_used}
        if not self.trackers:
            raise TrainingError(f"losses: all that phase {phase.trains} could learn from weigh 0")
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """A batch → the trained outputs, and the keypoints of the augmented crops."""
        params = {k: v for k, v in inputs.items() if k not in ("image", "keypoints")}
        image, keypoints = self.augment(inputs["image"], inputs["keypoints"], params)
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
        labels = Labels(
            keypoints=y_pred["keypoints"],
            weights=labelled(y_pred["keypoints"], self.importance),
            size=self.size,
            heatmap_sigma=self.config.heatmap_sigma,
            coordinate_loss=self.config.coordinate_loss,
            edge_index=self.skeleton.edge_index,
            layers=self.loss_layers,
        )
        total = 0.0
        for loss in self.losses_used:
            value = self.value_of(loss, y_pred, labels)
            self.trackers[loss.name].update_state(value)
            total = total + self.config.losses[loss.name] * value
        return total

    def value_of(self, loss: Loss, outputs: dict[str, Tensor], labels: Labels) -> Tensor:
        """One of the losses."""
        return loss.compute(outputs, labels)

    def _counts(self, loss: Loss, outputs: dict[str, Tensor]) -> bool:
        """Whether a loss applies to these outputs and has a weight."""
        possible = len(self.skeleton.edge_index) > 0 or not loss.needs_edges
        return loss.output in outputs and possible and self.config.losses[loss.name] > 0


def dropout_seeds(model: keras.Model) -> list[keras.Variable]:
    """The states of the random generators, which ``save_weights`` does not save."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
