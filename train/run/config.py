"""The configuration of a training run. Named ones are in ``kpdata.train.run.recipes``."""

import importlib
import pkgutil
from typing import Any, Literal

import msgspec

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropFrom
from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.mapping import Mapping
from kpdata.core.skeleton import Skeleton
from kpdata.metrics.poses import Reference
from kpdata.train.models.base import ModelSpec, Phase, check_within, known_names
from kpdata.train.models.registry import default_model, get_model
from kpdata.train.run import recipes


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training run.

    >>> config = TrainConfig(phases=(Phase("both", epochs=3, input_size=128, learning_rate=1e-3),))
    >>> config.model, config.options, config.losses["visibility"]
    ('blazepose', {'size': 'full', 'offsets': False, 'weights': 'none'}, 0.05)

    Attributes:
        model: a name of :func:`kpdata.train.models.registry.models`.
        options: the model's own; those that are not given are filled in.
        phases: one after the other.
        crop_from, margin: which square is cut out of whole images; crops keep that of their shards.
        batch_size: crops a step.
        optimizer: of these adamw alone applies ``weight_decay``.
        clip_norm: of all gradients together; 0 for none.
        schedule: ``cosine`` over each phase, or ``plateau``: the rate is halved after
            ``plateau_patience`` validations without a better score.
        ema: momentum of the weights' average, which is what is validated and kept; 0 for none. A
            short phase averages over a tenth of its steps at most.
        patience: validations without a better score that end a phase; 0 for never.
        coordinate_loss: a name in ``ops.losses.COORDINATE_LOSSES``, for models that do not bring
            their own.
        heatmap_sigma: in heatmap pixels.
        keypoint_weights: factors on the losses of single keypoints, 1 unless named.
        losses: weights of the model's losses in their sum; those that are not given are filled in.
        augment: the random changes of each crop, sampled anew each epoch.
        precision: ``float32`` or ``mixed_bfloat16``.
        reference, threshold: the PCK that validation selects by; None takes the torso, or the
            box where less than half of the instances have a torso.
        validate_every: epochs.
        seed: of everything random.
        init_from: a run's folder, whose best weights the first phase starts from.
    """

    model: str = ""
    options: dict[str, Any] = {}
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
    losses: dict[str, float] = {}
    augment: AugmentConfig = AugmentConfig(blur=0.0)
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    reference: Reference | None = None
    threshold: float = 0.2
    validate_every: int = 1
    seed: int = 0
    init_from: str = ""

    def __post_init__(self) -> None:
        """Fill in the model's options and losses.

        Raises:
            SchemaError, KpdataError: a value is out of range; the message names it and what is
                allowed.
        """
        if not self.model:
            msgspec.structs.force_setattr(self, "model", default_model())
        spec = self.spec
        options = spec.parse(self.options)
        msgspec.structs.force_setattr(self, "options", msgspec.to_builtins(options))
        msgspec.structs.force_setattr(self, "losses", _filled(spec, self.losses))
        if not self.phases:
            raise SchemaError("phases is empty: give at least one")
        for number, phase in enumerate(self.phases):
            _check_phase(spec, number, phase, spec.smallest_input(options))
        for name, low, high in _LIMITS:
            check_within(name, getattr(self, name), low, high)
        for name, weight in self.keypoint_weights.items():
            check_within(f"keypoint_weights.{name}", weight, 0, 1e6)

    @property
    def spec(self) -> ModelSpec:
        """The model's declaration."""
        return get_model(self.model)

    @property
    def architecture(self) -> str:
        """The model and its options, which decide which weights fit. The input size does not."""
        return self.spec.describe(self.spec.parse(self.options))

    @property
    def input_size(self) -> int:
        """Input size of the finished model, in pixels: that of the last phase."""
        return self.phases[-1].input_size

    @property
    def epochs(self) -> int:
        """The number of epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def with_options(self, **options: Any) -> "TrainConfig":
        """The same with other options of the model."""
        return msgspec.structs.replace(self, options={**self.options, **options})

    def start(self, net: Any, skeleton: Skeleton) -> Mapping | None:
        """Give a new network the model's pretrained weights; see :attr:`ModelSpec.start`."""
        return self.spec.start(net, self.spec.parse(self.options), skeleton)

    def build(self, num_keypoints: int, input_size: int, loading: bool = False) -> Any:
        """The model's network, a ``keras.Model`` with fresh weights.

        Args:
            num_keypoints: K.
            input_size: pixels.
            loading: whether other weights are loaded into it afterwards: it then needs no files.

        Raises:
            KpdataError: weights that are not there or do not fit.
        """
        values = {**self.options, **(self.spec.when_loading if loading else {})}
        return self.spec.build(self.spec.parse(values), num_keypoints, input_size)


_LIMITS = (
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


def _filled(spec: ModelSpec, given: dict[str, float]) -> dict[str, float]:
    """The weights of the model's losses, in its order."""
    usual = {loss.name: loss.weight for loss in spec.losses}
    for name, weight in given.items():
        if name not in usual:
            raise SchemaError(
                f"losses.{name} is no loss of {spec.name}; {known_names(name, usual)}"
            )
        check_within(f"losses.{name}", weight, 0, 1e6)
    return {**usual, **{name: float(weight) for name, weight in given.items()}}


def _check_phase(spec: ModelSpec, number: int, phase: Phase, least: int) -> None:
    known = [stage.name for stage in spec.stages]
    if phase.trains not in known:
        raise SchemaError(
            f"phases.{number}.trains is {phase.trains}: {spec.name} has {', '.join(known)}"
        )
    if phase.input_size < least:
        raise SchemaError(
            f"phases.{number}.input_size is {phase.input_size}: this {spec.name} takes {least} or "
            "more"
        )
    if phase.input_size % spec.input_multiple:
        raise SchemaError(
            f"phases.{number}.input_size is {phase.input_size}: {spec.name} takes multiples of "
            f"{spec.input_multiple}"
        )


def recipe_names() -> list[str]:
    """The named recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def load_recipe(name: str) -> TrainConfig:
    """The configuration of a named recipe.

    Raises:
        KpdataError: no such recipe; the message lists them.
    """
    if name not in recipe_names():
        raise KpdataError(f"recipe {name!r} is unknown; {known_names(name, recipe_names())}")
    config: TrainConfig = importlib.import_module(f"{recipes.__name__}.{name}").CONFIG
    return config


def recipe_summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    module = importlib.import_module(f"{recipes.__name__}.{name}")
    return (module.__doc__ or "").splitlines()[0]
