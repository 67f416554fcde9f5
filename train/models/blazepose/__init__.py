"""BlazePose: heatmaps teach the features, a regression encoder reads them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from kpdata.core.errors import KpdataError, either
from kpdata.core.mapping import Mapping
from kpdata.core.skeleton import Skeleton
from kpdata.train.models.base import SMALLEST_INPUT, ModelSpec, Options, Phase, Stage, option
from kpdata.train.models.parts import (
    COORDINATES,
    COORDINATES_HEAD,
    HEATMAP_CROSS_ENTROPY,
    HEATMAP_HEAD,
    HEATMAP_MSE,
    LIMB_LENGTH,
    OFFSET_L1,
    VISIBILITY_BCE,
)


@dataclass(frozen=True)
class Size:
    """Widths and depths of one BlazePose.

    Attributes:
        widths: channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's side.
        depths: residual blocks of the encoder at each of them.
        deep: residual blocks of the regression encoder at 1/64 and at 1/128.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    deep: tuple[int, int]


SIZES = {
    "lite": Size((16, 32, 64, 128, 192), (1, 2, 3, 4, 7), (6, 6)),
    "full": Size((24, 48, 96, 192, 288), (2, 3, 4, 5, 8), (7, 7)),
    "heavy": Size((40, 80, 160, 320, 512), (2, 4, 6, 8, 8), (8, 8)),
}


LEAST_SIDE, FULL_SIDE = 160, 256
"""Input sizes of the network with BlazePose's own weights, which are for the larger."""


class BlazePoseOptions(Options, frozen=True):
    """The options of BlazePose."""

    size: Annotated[
        Literal["lite", "full", "heavy"],
        option("How large the model is: 1.3, 3.4 or 11 million parameters."),
    ] = "full"
    offsets: Annotated[bool, option("Add offset maps, which udp decodes.")] = False
    weights: Annotated[
        str,
        option(
            "What it starts from: none (random), blazepose-lite, -full or -heavy, which `kpdata "
            "weights` lists, or such a .tflite file. Its size is then that of the weights.",
            is_file=True,
        ),
    ] = "none"

    @property
    def is_pretrained(self) -> bool:
        """Whether it is the network of MediaPipe, whose weights it starts from."""
        return self.weights != "none"


def _build(options: BlazePoseOptions, num_keypoints: int, input_size: int) -> Any:
    if options.is_pretrained:
        from kpdata.train.models.blazepose.landmark import landmark_network

        return landmark_network(num_keypoints, input_size, options.size)
    from kpdata.train.models.blazepose.network import blazepose

    return blazepose(num_keypoints, input_size, options.size, options.offsets)


def _stage(name: str, summary: str, **more: Any) -> Stage:
    def freeze(net: Any) -> None:
        from kpdata.train.models.blazepose.network import set_stage

        set_stage(net, name)

    return Stage(name, summary, freeze=freeze, **more)


def _phases(options: BlazePoseOptions, epochs: int, input_size: int) -> tuple[Phase, ...]:
    if options.is_pretrained:
        epochs = max(3, epochs // 8)
        rest = max(1, epochs // 4)
        return (
            Phase("heatmap", epochs, FULL_SIDE, 2e-3, warmup=min(1, epochs / 4), trunk_rate=0.1),
            Phase("regression", rest, FULL_SIDE, 1e-3, warmup=min(1, rest / 4), trunk_rate=0.1),
        )
    rest = max(1, epochs // 4)
    return (
        Phase("heatmap", epochs, input_size, 3e-3, warmup=min(3, epochs / 4)),
        Phase("regression", rest, input_size, 2e-3, warmup=min(1, rest / 4)),
    )


def _architecture(options: BlazePoseOptions) -> str:
    own = f"model=blazepose size={options.size} offsets={str(options.offsets).lower()}"
    return f"{own} network=mediapipe" if options.is_pretrained else own


def _complete(options: BlazePoseOptions) -> BlazePoseOptions:
    if not options.is_pretrained:
        return options
    if options.offsets:
        raise KpdataError("offsets is true: a network with BlazePose's weights has no offset maps")
    return msgspec.structs.replace(options, size=_read(options)[1])


def _start(net: Any, options: BlazePoseOptions, skeleton: Skeleton) -> Mapping | None:
    if not options.is_pretrained:
        return None
    from kpdata.train.models.blazepose.landmark import start_from

    convolutions, size = _read(options)
    if size != options.size:
        raise KpdataError(f"weights {options.weights} are {size}, and size is {options.size}")
    return start_from(net, convolutions, size, skeleton)


def _read(options: BlazePoseOptions) -> tuple[list[Any], str]:
    """The convolutions of the weights, and the size of their network."""
    from kpdata.train.models.blazepose.landmark import SIZES, size_of
    from kpdata.train.models.tflite_file import read_convolutions
    from kpdata.train.models.weights import find_weights

    path = find_weights(options.weights)
    convolutions = read_convolutions(path)
    size = size_of(convolutions)
    if size is None:
        raise KpdataError(
            f"weights {path} are not those of BlazePose's landmark network {either(SIZES)}: their "
            f"{len(convolutions)} convolutions have other shapes"
        )
    return convolutions, size


MODEL = ModelSpec(
    name="blazepose",
    summary="heatmaps teach the features; a second encoder reads coordinates and visibility",
    build=_build,
    options=BlazePoseOptions,
    stages=(
        _stage(
            "heatmap",
            "encoder, decoder and heatmaps",
            heads=("heatmap",),
            outputs=("heatmap", "heatmap_logit", "offset"),
        ),
        _stage(
            "regression",
            "the regression encoder, behind stopped gradients",
            heads=("coordinates",),
            outputs=("xy_norm", "visibility"),
            needs_init=True,
        ),
        _stage("both", "every variable", includes=("heatmap", "regression")),
    ),
    heads=(HEATMAP_HEAD, COORDINATES_HEAD),
    losses=(
        HEATMAP_MSE,
        HEATMAP_CROSS_ENTROPY,
        OFFSET_L1,
        COORDINATES,
        VISIBILITY_BCE,
        LIMB_LENGTH,
    ),
    default_phases=_phases,
    architecture=_architecture,
    complete=_complete,
    start=_start,
    input_multiple=32,
    smallest_input=lambda options: LEAST_SIDE if options.is_pretrained else SMALLEST_INPUT,
    is_default=True,
)
