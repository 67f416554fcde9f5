"""Parts that models share: heads, which read keypoints from outputs, and losses.

A network's outputs are named. These names mean the same in every model:

    heatmap     (B, h, w, K)   scores or probabilities of each cell
    heatmap_logit (B, h, w, K) whose softmax over the cells says where the keypoint is
    offset      (B, h, w, 2K)  UDP's offset maps, as :func:`kpdata.train.ops.targets.offsets`
    xy_norm     (B, K, 2)      coordinates, 0 to 1 inside the crop
    visibility  (B, K)         logits, positive for visible

Functions import Keras when they are called, not before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kpdata.core.errors import KpdataError, either

Tensor = Any
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Head:
    """One way to read keypoints from a model's outputs.

    Attributes:
        name: how scores and files call it.
        outputs: what it reads of the network; those that the network lacks are left out.
        read: (outputs, input size, decoding) → (B, K, 3) x, y in input pixels and a score from 0 to
            1; or (B, K, 2), whose score is then the visibility, or else another head's, or 1.
        decodings: the ways in which it can be decoded, the usual one first; none for coordinates.
        needs: decoding → the output without which it is impossible.
        scores: whether ``read`` gives scores.
    """

    name: str
    outputs: tuple[str, ...]
    read: Callable[[Outputs, int, str], Tensor]
    decodings: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    scores: bool = False


def _read_heatmap(outputs: Outputs, size: int, decode: str) -> Tensor:
    from keras import ops

    from kpdata.train.ops.targets import DECODERS, peaks_of

    if decode not in DECODERS:
        raise KpdataError(f"decode is {decode!r}: expected {either(DECODERS)}")
    if "heatmap_logit" in outputs:
        outputs = {**outputs, "heatmap": peaks_of(outputs["heatmap_logit"])}
    keypoints = DECODERS[decode](outputs, size)
    return ops.concatenate([keypoints[..., :2], ops.clip(keypoints[..., 2:], 0, 1)], axis=-1)


def _read_coordinates(outputs: Outputs, size: int, decode: str) -> Tensor:
    return outputs["xy_norm"] * size


HEATMAP_HEAD = Head(
    "heatmap",
    ("heatmap", "heatmap_logit", "offset"),
    _read_heatmap,
    decodings=("dark", "udp", "quadratic", "argmax"),
    needs={"udp": "offset"},
    scores=True,
)
COORDINATES_HEAD = Head("coordinates", ("xy_norm",), _read_coordinates)


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels that a loss compares a batch's outputs with.

    Attributes:
        keypoints: (B, K, 3) in input pixels, after augmentation.
        weights: (B, K) how much each counts; 0 where it is not labelled.
        size: of the input, in pixels.
        heatmap_sigma, coordinate_loss: the configuration's.
        edge_index: (E, 2), the skeleton's.
        layers: what the model's ``loss_layers`` made.
    """

    keypoints: Tensor
    weights: Tensor
    size: int
    heatmap_sigma: float
    coordinate_loss: str
    edge_index: npt.NDArray[np.intp]
    layers: Mapping[str, Any]

    @property
    def xy_norm(self) -> Tensor:
        """(B, K, 2), what the output ``xy_norm`` should be."""
        from kpdata.train.ops import targets

        return targets.normalise_xy(self.keypoints, self.size)

    def heatmaps(self, like: Tensor) -> Tensor:
        """(B, h, w, K) Gaussians, of the size of the output ``like``."""
        from kpdata.train.ops import targets

        return targets.heatmaps(self.keypoints, self.size, like.shape[1], self.heatmap_sigma)


@dataclass(frozen=True)
class Loss:
    """A part of the loss, computed where the phase trains its output.

    Attributes:
        name: its key in the configuration's ``losses``.
        weight: there, unless another is given.
        output: which output it is of.
        compute: (outputs, labels) → one number.
        needs_edges: whether it means something only for skeletons with edges.
    """

    name: str
    weight: float
    output: str
    compute: Callable[[Outputs, Labels], Tensor]
    needs_edges: bool = False


def _heatmap_mse(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses

    predicted = outputs["heatmap"]
    return losses.heatmap_mse(labels.heatmaps(predicted), predicted, labels.weights)


def _heatmap_cross_entropy(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses

    logits = outputs["heatmap_logit"]
    return losses.spatial_cross_entropy(labels.heatmaps(logits), logits, labels.weights)


def _heatmap_divergence(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses

    predicted = outputs["heatmap"]
    return losses.heatmap_divergence(labels.heatmaps(predicted), predicted, labels.weights)


def _offset_l1(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses, targets

    predicted, side = outputs["offset"], outputs["offset"].shape[1]
    true = targets.offsets(labels.keypoints, labels.size, side)
    discs = targets.discs(labels.keypoints, labels.size, side)
    return losses.offset_l1(true, predicted, discs, labels.weights)


def coordinate_loss(outputs: Outputs, labels: Labels) -> Tensor:
    """The configuration's loss of ``xy_norm``."""
    from kpdata.train.ops.losses import COORDINATE_LOSSES

    function = COORDINATE_LOSSES[labels.coordinate_loss]
    return function(labels.xy_norm, outputs["xy_norm"], labels.weights)


def _visibility_bce(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses

    return losses.visibility_bce(labels.keypoints, outputs["visibility"], labels.weights)


def _limb_length(outputs: Outputs, labels: Labels) -> Tensor:
    from kpdata.train.ops import losses

    return losses.limb_length(labels.xy_norm, outputs["xy_norm"], labels.weights, labels.edge_index)


HEATMAP_MSE = Loss("heatmap", 1.0, "heatmap", _heatmap_mse)
HEATMAP_CROSS_ENTROPY = Loss("places", 1.0, "heatmap_logit", _heatmap_cross_entropy)
HEATMAP_DIVERGENCE = Loss("heatmap", 1.0, "heatmap", _heatmap_divergence)
OFFSET_L1 = Loss("offset", 0.1, "offset", _offset_l1)
COORDINATES = Loss("coordinates", 1.0, "xy_norm", coordinate_loss)
VISIBILITY_BCE = Loss("visibility", 0.05, "visibility", _visibility_bce)
LIMB_LENGTH = Loss("limbs", 0.0, "xy_norm", _limb_length, needs_edges=True)
