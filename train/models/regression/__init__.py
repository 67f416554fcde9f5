"""Coordinates from any Keras Applications backbone, ImageNet weights or none, and three heads."""

from pathlib import Path
from typing import Annotated, Any, Literal

from kpdata.core.errors import KpdataError
from kpdata.train.models.base import ModelSpec, Options, Phase, Stage, known_names, option
from kpdata.train.models.parts import (
    HEATMAP_DIVERGENCE,
    LIMB_LENGTH,
    VISIBILITY_BCE,
    Labels,
    Loss,
    Outputs,
    Tensor,
    coordinate_loss,
)

# Name → (class in keras.applications, pixels). Left out: NASNet, whose weights fit one input size,
# and the first EfficientNet, which scales its pixels otherwise when its weights come from a file.
BACKBONES: dict[str, tuple[str, str]] = {
    "mobilenet": ("MobileNet", "unit"),
    "mobilenet_v2": ("MobileNetV2", "unit"),
    "mobilenet_v3_small": ("MobileNetV3Small", "bytes"),
    "mobilenet_v3_large": ("MobileNetV3Large", "bytes"),
    **{f"efficientnet_v2_b{n}": (f"EfficientNetV2B{n}", "bytes") for n in range(4)},
    **{f"efficientnet_v2_{n.lower()}": (f"EfficientNetV2{n}", "bytes") for n in "SML"},
    **{f"resnet{n}": (f"ResNet{n}", "bgr") for n in (50, 101, 152)},
    **{f"resnet{n}_v2": (f"ResNet{n}V2", "unit") for n in (50, 101, 152)},
    **{f"densenet{n}": (f"DenseNet{n}", "standard") for n in (121, 169, 201)},
    **{
        f"convnext_{n.lower()}": (f"ConvNeXt{n}", "bytes")
        for n in ("Tiny", "Small", "Base", "Large", "XLarge")
    },
    "inception_v3": ("InceptionV3", "unit"),
    "inception_resnet_v2": ("InceptionResNetV2", "unit"),
    "xception": ("Xception", "unit"),
    "vgg16": ("VGG16", "bgr"),
    "vgg19": ("VGG19", "bgr"),
}

FAMILIES = {"mobilenet_v3": "mobilenet_v3_large", "efficientnet_v2": "efficientnet_v2_b0"}
"""Which backbone the name of a family stands for."""

HEAD_NAMES = ("dense", "softargmax", "rle")


class RegressionOptions(Options, frozen=True):
    """The options of a regression model."""

    backbone: Annotated[
        str, option("The network inside, such as resnet50; an unknown name lists all.")
    ] = "mobilenet_v2"
    weights: Annotated[
        str,
        option(
            "What the backbone starts from: imagenet, none (random), or a .h5 file.", is_file=True
        ),
    ] = "none"
    head: Annotated[
        Literal["dense", "softargmax", "rle"], option("How the model gives coordinates.")
    ] = "dense"
    dropout: Annotated[
        float, option("Dropout of the features before the dense layers.", low=0, high=0.95)
    ] = 0.2


def check_names(backbone: str, weights: str, head: str) -> None:
    """Raise KpdataError, before anything is built, for an unknown name or a missing file."""
    known = [*BACKBONES, *FAMILIES]
    if backbone not in known:
        raise KpdataError(f"backbone {backbone!r} is unknown; {known_names(backbone, known)}")
    if head not in HEAD_NAMES:
        raise KpdataError(f"regression head {head!r} is unknown; {known_names(head, HEAD_NAMES)}")
    if weights not in ("none", "imagenet"):
        check_file(Path(weights))


def check_file(path: Path) -> None:
    """Raise KpdataError unless there is a file of weights."""
    if path.suffix != ".h5":
        raise KpdataError(
            f"weights {str(path)!r}: neither 'none', nor 'imagenet', nor a .h5 or .weights.h5 file"
        )
    if not path.is_file():
        raise KpdataError(f"weights {path}: no such file")


def _build(options: RegressionOptions, num_keypoints: int, input_size: int) -> Any:
    from kpdata.train.models.regression.network import regression

    return regression(
        num_keypoints, input_size, options.backbone, options.weights, options.head, options.dropout
    )


def _freeze_backbone(net: Any) -> None:
    from kpdata.train.models.regression.network import backbone_of

    backbone_of(net).trainable = False


def _train_all(net: Any) -> None:
    from kpdata.train.models.regression.network import backbone_of

    backbone_of(net).trainable = True


def _phases(options: RegressionOptions, epochs: int, input_size: int) -> tuple[Phase, ...]:
    """A pretrained backbone is frozen at first; a fresh one learns from the start."""
    if options.weights == "none":
        return (Phase("all", epochs, input_size, 1e-3, warmup=min(3, epochs / 4)),)
    return (
        Phase("head", max(1, epochs // 10), input_size, 1e-3),
        Phase("all", epochs, input_size, 5e-4, warmup=min(1, epochs / 4)),
    )


def _loss_layers(options: RegressionOptions) -> dict[str, Any]:
    """Head ``rle`` learns the density of its residuals."""
    if options.head != "rle":
        return {}
    from kpdata.train.ops.losses import Flow

    flow = Flow(name="flow")
    flow.build((None, 2))
    return {"flow": flow}


def _coordinates(outputs: Outputs, labels: Labels) -> Tensor:
    if "flow" not in labels.layers:
        return coordinate_loss(outputs, labels)
    from kpdata.train.ops.losses import rle

    predicted, sigma = outputs["xy_norm"], outputs["sigma"]
    return rle(labels.xy_norm, predicted, sigma, labels.weights, labels.layers["flow"])


def _architecture(options: RegressionOptions) -> str:
    backbone = FAMILIES.get(options.backbone, options.backbone)
    return f"model=regression backbone={backbone} head={options.head}"


MODEL = ModelSpec(
    name="regression",
    summary="coordinates and visibility from a Keras Applications backbone",
    build=_build,
    options=RegressionOptions,
    stages=(
        Stage("head", "what stands on the frozen backbone", freeze=_freeze_backbone),
        Stage("all", "every variable", freeze=_train_all),
    ),
    losses=(
        HEATMAP_DIVERGENCE,
        Loss("coordinates", 1.0, "xy_norm", _coordinates),
        VISIBILITY_BCE,
        LIMB_LENGTH,
    ),
    loss_layers=_loss_layers,
    default_phases=_phases,
    architecture=_architecture,
    check=lambda options: check_names(options.backbone, options.weights, options.head),
    when_loading={"weights": "none"},
    when_overfitting={"dropout": 0.0},
)
