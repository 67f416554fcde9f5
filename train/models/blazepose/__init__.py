"""BlazePose: heatmaps teach the features, a regression encoder reads them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kpdata.train.models.base import ModelSpec, Options, Phase, Stage, option
from kpdata.train.models.parts import (
    COORDINATES,
    COORDINATES_HEAD,
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


class BlazePoseOptions(Options, frozen=True):
    """The options of BlazePose."""

    size: Annotated[
        Literal["lite", "full", "heavy"],
        option("How large the model is: 1.3, 3.4 or 11 million parameters."),
    ] = "full"
    offsets: Annotated[bool, option("Add offset maps, which udp decodes.")] = False


def _build(options: BlazePoseOptions, num_keypoints: int, input_size: int) -> Any:
    from kpdata.train.models.blazepose.network import blazepose

    return blazepose(num_keypoints, input_size, options.size, options.offsets)


def _stage(name: str, summary: str, **more: Any) -> Stage:
    def freeze(net: Any) -> None:
        from kpdata.train.models.blazepose.network import set_stage

        set_stage(net, name)

    return Stage(name, summary, freeze=freeze, **more)


def _phases(options: BlazePoseOptions, epochs: int, input_size: int) -> tuple[Phase, ...]:
    rest = max(1, epochs // 4)
    return (
        Phase("heatmap", epochs, input_size, 3e-3, warmup=min(3, epochs / 4)),
        Phase("regression", rest, input_size, 2e-3, warmup=min(1, rest / 4)),
    )


def _architecture(options: BlazePoseOptions) -> str:
    return f"model=blazepose size={options.size} offsets={str(options.offsets).lower()}"


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
            outputs=("heatmap", "offset"),
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
    losses=(HEATMAP_MSE, OFFSET_L1, COORDINATES, VISIBILITY_BCE, LIMB_LENGTH),
    default_phases=_phases,
    architecture=_architecture,
    input_multiple=32,
    is_default=True,
)
