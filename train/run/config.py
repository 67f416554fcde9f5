"""What a training run does, as one frozen value; named ones are in ``kpdata.train.run.recipes``."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

import msgspec

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropFrom
from kpdata.core.errors import KpdataError, SchemaError, located
from kpdata.metrics.poses import Reference
from kpdata.train.run import recipes

Trains = Literal["heatmap", "regression", "both", "head", "all"]

STAGES: dict[str, tuple[Trains, ...]] = {
    "blazepose": ("heatmap", "regression", "both"),
    "regression": ("head", "all"),
}
"""What can be trained of each model; ``head`` leaves the backbone as it is, ``all`` thaws it."""

SMALLEST_INPUT, LARGEST_INPUT = 32, 1024


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SchemaError(f"{name} is {value}: expected {low:g} to {high:g}")


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some epochs with one input size and one set of learning variables.

    Attributes:
        trains: for blazepose ``heatmap``, ``regression`` or ``both``; for regression ``head`` or
            ``all``.
        epochs: passes over the training split.
        input_size: pixels; weights carry over from a phase of another size.
        learning_rate: after the warm-up.
        final_rate: where the cosine ends, as a fraction of ``learning_rate``.
        warmup: epochs of linear warm-up.
    """

    trains: Trains
    epochs: int
    input_size: int
    learning_rate: float
    final_rate: float = 0.01
    warmup: float = 0.0

    def __post_init__(self) -> None:
        """Raise SchemaError naming the value that is out of range."""
        _within("epochs", self.epochs, 1, 100_000)
        _within("input_size", self.input_size, SMALLEST_INPUT, LARGEST_INPUT)
        _within("learning_rate", self.learning_rate, 1e-8, 10)
        _within("final_rate", self.final_rate, 0, 1)
        _within("warmup", self.warmup, 0, self.epochs)


class LossWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each loss counts; those that the model or the phase has no output for are left out.

    ``heatmap`` is the squared error of BlazePose's heatmaps, and of head ``softargmax`` the
    divergence of its maps from a Gaussian, without which they need not point anywhere (DSNT).
    """

    heatmap: float = 1.0
    offset: float = 0.1
    coordinates: float = 1.0
    visibility: float = 0.05
    limbs: float = 0.0

    def __post_init__(self) -> None:
        """Raise SchemaError naming the value that is out of range."""
        for name in self.__struct_fields__:
            _within(f"losses.{name}", getattr(self, name), 0, 1e6)


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training run.

    Attributes:
        model: ``blazepose`` or ``regression``.
        size, offsets: of blazepose; see :func:`kpdata.train.models.blazepose.blazepose`.
        backbone, weights, head, dropout: see :func:`kpdata.train.models.regression.regression`.
        phases: one after the other.
        crop_from, margin: which square is cut out of whole images; crops keep that of their shards.
        batch_size: pictures a step.
        optimizer: of these adamw alone applies ``weight_decay``.
        clip_norm: of all gradients together; 0 for none.
        schedule: ``cosine`` over each phase, or ``plateau``: the rate is halved after
            ``plateau_patience`` validations without a better score.
        ema: momentum of the weights' average, which is what is validated and kept; 0 for none. A
            short phase averages over a tenth of its steps at most.
        patience: validations without a better score that end a phase; 0 for never.
        coordinate_loss: a name in ``ops.losses.COORDINATE_LOSSES``; head ``rle`` brings
            its own.
        heatmap_sigma: in heatmap pixels.
        keypoint_weights: factors on the losses of single keypoints, 1 unless named.
        losses: how the losses are weighed against each other.
        augment: what is drawn for each picture, each epoch anew.
        precision: ``float32`` or ``mixed_bfloat16``.
        reference, threshold: the PCK that validation selects by; None takes the torso, or the
            box where less than half of the instances have a torso.
        validate_every: epochs.
        seed: of everything random.
        start: a run's folder, whose best weights the first phase starts from.
    """

    model: Literal["blazepose", "regression"] = "blazepose"
    size: Literal["lite", "full", "heavy"] = "full"
    offsets: bool = False
    backbone: str = "mobilenet_v2"
    weights: str = "none"
    head: Literal["dense", "softargmax", "rle"] = "dense"
    dropout: float = 0.2
    phases: tuple[Phase, ...]
    crop_from: CropFrom = "bbox"
    margin: float = 1.25
    batch_size: int = 32
    optimizer: Literal["adamw", "adam", "rmsprop"] = "adamw"
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_patience: int = 10
    ema: float = 0.998
    patience: int = 0
    coordinate_loss: Literal["mse", "l1", "smooth_l1", "wing"] = "l1"
    heatmap_sigma: float = 1.5
    keypoint_weights: dict[str, float] = {}
    losses: LossWeights = LossWeights()
    augment: AugmentConfig = AugmentConfig(blur=0.0)
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    reference: Reference | None = None
    threshold: float = 0.2
    validate_every: int = 1
    seed: int = 0
    start: str = ""

    def __post_init__(self) -> None:
        """Raise SchemaError naming the value that is out of range, and what is allowed."""
        if not self.phases:
            raise SchemaError("phases is empty: give at least one")
        for number, phase in enumerate(self.phases):
            if phase.trains not in STAGES[self.model]:
                known = ", ".join(STAGES[self.model])
                raise SchemaError(
                    f"phases.{number}.trains is {phase.trains}: {self.model} has {known}"
                )
            if self.model == "blazepose" and phase.input_size % 32:
                raise SchemaError(
                    f"phases.{number}.input_size is {phase.input_size}: blazepose takes multiples "
                    "of 32"
                )
        for name, low, high in _LIMITS:
            _within(name, getattr(self, name), low, high)
        for name, weight in self.keypoint_weights.items():
            _within(f"keypoint_weights.{name}", weight, 0, 1e6)

    @property
    def input_size(self) -> int:
        """Of the finished model: the last phase's."""
        return self.phases[-1].input_size

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self.phases)


_LIMITS = (
    ("dropout", 0, 0.95),
    ("margin", 0.1, 10),
    ("batch_size", 1, 65_536),
    ("weight_decay", 0, 10),
    ("clip_norm", 0, 1e6),
    ("plateau_patience", 1, 100_000),
    ("ema", 0, 0.99999),
    ("patience", 0, 100_000),
    ("heatmap_sigma", 0.3, 20),
    ("threshold", 0.001, 10),
    ("validate_every", 1, 100_000),
    ("seed", 0, 2**63 - 1),
)


def of_stage(config: TrainConfig, stage: Trains) -> TrainConfig:
    """``config`` with the phases that train ``stage`` alone; ``both`` leaves it as it is.

    Raises:
        KpdataError: there is none.
    """
    if stage == "both":
        return config
    phases = tuple(phase for phase in config.phases if phase.trains == stage)
    if not phases:
        found = ", ".join(dict.fromkeys(phase.trains for phase in config.phases))
        raise KpdataError(f"--stage {stage}: the phases train {found}")
    return msgspec.structs.replace(config, phases=phases)


def recipe_names() -> list[str]:
    """The named recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def load_recipe(name: str) -> TrainConfig:
    """The configuration of a named recipe.

    Raises:
        KpdataError: no such recipe; the message lists them.
    """
    if name not in recipe_names():
        raise KpdataError(f"recipe {name!r} is unknown; known: {', '.join(recipe_names())}")
    config: TrainConfig = importlib.import_module(f"{recipes.__name__}.{name}").CONFIG
    return config


def override(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """``config`` with ``key=value`` settings; a dotted key reaches inside: ``phases.0.epochs=3``.

    A value is JSON, or else taken as text. What must fit together is looked at once all are set.

    Raises:
        KpdataError: an unknown key, or a value of the wrong type or out of range.
    """
    tree, done = msgspec.to_builtins(config), []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise KpdataError(f"--set {setting}: expected key=value, such as batch_size=16")
        with located(f"--set {setting}"):
            _put(tree, key, text)
        done.append(f"--set {setting}")
    with located(" ".join(done)):
        return _as_config(tree)


def _put(tree: Any, key: str, text: str) -> None:
    *path, last = key.split(".")
    for step in path:
        tree = _inside(tree, step)
    if isinstance(tree, dict) and last in tree:
        tree[last] = _value(text)
    elif isinstance(tree, list):
        tree[_position(tree, last)] = _value(text)
    elif isinstance(tree, dict) and path[-1:] == ["keypoint_weights"]:
        tree[last] = _value(text)
    else:
        _refuse(tree, last)


def _inside(tree: Any, step: str) -> Any:
    if isinstance(tree, list):
        return tree[_position(tree, step)]
    if not isinstance(tree, dict) or step not in tree:
        _refuse(tree, step)
    if isinstance(tree[step], tuple):  # what to_builtins leaves of one
        tree[step] = list(tree[step])
    return tree[step]


def _refuse(tree: Any, key: str) -> NoReturn:
    known = f"; known: {', '.join(tree)}" if tree and isinstance(tree, dict) else ""
    raise KpdataError(f"no key {key!r} there{known}")


def _position(items: list[Any], text: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        raise KpdataError(f"no entry {text!r} among {len(items)}, counted from 0")
    return int(text)


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _as_config(tree: Any) -> TrainConfig:
    try:
        return msgspec.convert(tree, TrainConfig)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        raise SchemaError(str(cause if isinstance(cause, SchemaError) else error)) from error
