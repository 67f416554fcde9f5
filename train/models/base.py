"""The declaration of a model: what training, scoring, prediction, export and commands ask of it."""

import difflib
import typing
from collections.abc import Callable, Iterable
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Real
from typing import Any, Literal, TypeVar

import msgspec

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.mapping import Mapping
from kpdata.core.skeleton import Skeleton
from kpdata.train.models.parts import (
    COORDINATES,
    COORDINATES_HEAD,
    LIMB_LENGTH,
    VISIBILITY_BCE,
    Head,
    Loss,
)

SMALLEST_INPUT, LARGEST_INPUT = 32, 1024


def check_within(name: str, value: float, low: float, high: float) -> None:
    """Raise SchemaError unless ``value`` is a number from ``low`` to ``high``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise SchemaError(f"{name} is {value!r}: expected a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise SchemaError(f"{name} is {value}: expected {low:g} to {high:g}")


def known_names(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown ``name``: the nearest known name, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, cutoff=0.7)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(known)}"


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some epochs with one input size and one set of variables that are trained.

    Attributes:
        trains: a stage of the model.
        epochs: passes over the training split.
        input_size: pixels; weights carry over from a phase of another size.
        learning_rate: after the warm-up.
        final_rate: where the cosine ends, as a fraction of ``learning_rate``.
        warmup: epochs of linear warm-up.
        trunk_rate: factor on the rate of all layers but the last ones before the outputs.
    """

    trains: str
    epochs: int
    input_size: int
    learning_rate: float
    final_rate: float = 0.01
    warmup: float = 0.0
    trunk_rate: float = 1.0

    def __post_init__(self) -> None:
        """Raise SchemaError naming the value that is out of range."""
        check_within("epochs", self.epochs, 1, 100_000)
        check_within("input_size", self.input_size, SMALLEST_INPUT, LARGEST_INPUT)
        check_within("learning_rate", self.learning_rate, 1e-8, 10)
        check_within("final_rate", self.final_rate, 0, 1)
        check_within("warmup", self.warmup, 0, self.epochs)
        check_within("trunk_rate", self.trunk_rate, 0, 1)


def option(
    text: str, *, low: float | None = None, high: float | None = None, is_file: bool = False
) -> msgspec.Meta:
    """Describes a field of :class:`Options`, as ``size: Annotated[int, option("…", low=1)] = 4``.

    Args:
        text: its help.
        low, high: the range of a number.
        is_file: whether it may be the path of a file: the configuration then keeps it absolute.
    """
    return msgspec.Meta(description=text, extra={"low": low, "high": high, "is_file": is_file})


@dataclass(frozen=True)
class OptionInfo:
    """An option of a model, as commands and docs show it.

    Attributes:
        name: of the field.
        kind: ``str``, ``int``, ``float`` or ``bool``.
        choices: what it may be; empty for anything of its kind.
        default: unless given.
        text: its help.
        low, high, is_file: as of :func:`option`.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    text: str
    low: float | None
    high: float | None
    is_file: bool


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's own options: subclass it with a default, and :func:`option`, for each field."""

    def __post_init__(self) -> None:
        """Raise SchemaError naming the value that is out of range, and what is allowed."""
        for info in option_infos(type(self)):
            value = getattr(self, info.name)
            if info.choices and value not in info.choices:
                raise SchemaError(
                    f"{info.name} is {value}: expected one of {', '.join(info.choices)}"
                )
            if info.low is not None and info.high is not None:
                check_within(info.name, value, info.low, info.high)


@cache
def option_infos(kind: type[Options]) -> tuple[OptionInfo, ...]:
    """The options that a class of options has."""
    hints = typing.get_type_hints(kind, include_extras=True)
    infos = []
    for name, default in zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True):
        annotated, meta = typing.get_args(hints[name])
        choices = typing.get_args(annotated) if typing.get_origin(annotated) is Literal else ()
        extra = meta.extra
        infos.append(
            OptionInfo(
                name,
                str if choices else annotated,
                choices,
                default,
                meta.description,
                extra["low"],
                extra["high"],
                extra["is_file"],
            )
        )
    return tuple(infos)


@dataclass(frozen=True)
class Stage:
    """A part of a model that a phase can train.

    Attributes:
        name: as in :attr:`Phase.trains`.
        summary: what it trains, for the docs.
        heads: which of the model's heads can be read afterwards; empty for all.
        outputs: whose losses count; empty for all.
        freeze: sets which layers of the network are trainable; None trains all.
        includes: stages whose phases belong to it, too, where a user asks for this one.
        needs_init: whether it is of no use without the weights of another run.
    """

    name: str
    summary: str = "every variable"
    heads: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    freeze: Callable[[Any], None] | None = None
    includes: tuple[str, ...] = ()
    needs_init: bool = False


ALL = Stage("all")


def one_phase(options: Any, epochs: int, input_size: int) -> tuple[Phase, ...]:
    """All variables at once, at a rate that suits most networks."""
    return (Phase("all", epochs, input_size, 1e-3, warmup=min(3, epochs / 4)),)


_Part = TypeVar("_Part", Stage, Head)


@dataclass(frozen=True)
class ModelSpec:
    """A model. ``build`` alone must be written for one that regresses coordinates.

    >>> def build(options, num_keypoints, input_size):        # imports keras, returns a keras.Model
    ...     ...                                               # of (B, S, S, 3) in [-1, 1]
    >>> spec = ModelSpec("tiny", "one convolution", build)
    >>> [stage.name for stage in spec.stages], [head.name for head in spec.heads]
    (['all'], ['coordinates'])

    Attributes:
        name: in configurations and commands.
        summary: one line of help.
        build: (options, K, input size) → a ``keras.Model`` from crops (B, S, S, 3) in [-1, 1] to a
            dict of outputs in float32, named as in :mod:`kpdata.train.models.parts`.
        options: its own options, with defaults, limits and help.
        stages: what phases can train; the last one trains everything.
        heads: how it tells keypoints; the first that was trained is its primary head.
        losses: what it learns from.
        loss_layers: options → layers that only losses use, trained beside the network.
        default_phases: (options, epochs, input size) → phases without a recipe.
        architecture: options → what decides which weights fit, as ``name=value`` words.
        complete: options → the same, with what follows from files that they name; called once, when
            a configuration is made.
        start: (network, options, skeleton) → gives a new network pretrained weights, and says which
            keypoint starts from which; None where it has none.
        check: raises KpdataError where options name something that is not there, before anything
            slow begins.
        input_multiple: the input size must be a multiple of it.
        smallest_input: options → the least input size.
        view: what an input shows: one ``instance``, or a whole ``image`` of many.
        exports: the formats that it can be exported to.
        when_loading: options of a network into which a run's own weights are loaded.
        when_overfitting: options of a network that shall learn a few crops by heart.
        is_default: whether commands take it where no model is named.
    """

    name: str
    summary: str
    build: Callable[[Any, int, int], Any]
    options: type[Options] = Options
    stages: tuple[Stage, ...] = (ALL,)
    heads: tuple[Head, ...] = (COORDINATES_HEAD,)
    losses: tuple[Loss, ...] = (COORDINATES, VISIBILITY_BCE, LIMB_LENGTH)
    loss_layers: Callable[[Any], dict[str, Any]] = lambda options: {}
    default_phases: Callable[[Any, int, int], tuple[Phase, ...]] = one_phase
    architecture: Callable[[Any], str] | None = None
    complete: Callable[[Any], Any] = lambda options: options
    start: Callable[[Any, Any, Skeleton], Mapping | None] = lambda net, options, skeleton: None
    check: Callable[[Any], None] = lambda options: None
    input_multiple: int = 1
    smallest_input: Callable[[Any], int] = lambda options: SMALLEST_INPUT
    view: Literal["instance", "image"] = "instance"
    exports: tuple[str, ...] = ("tflite", "onnx", "saved_model")
    when_loading: AnyMapping[str, Any] = field(default_factory=dict)
    when_overfitting: AnyMapping[str, Any] = field(default_factory=dict)
    is_default: bool = False

    @property
    def option_infos(self) -> tuple[OptionInfo, ...]:
        """Its options, as commands show them."""
        return option_infos(self.options)

    def parse(self, values: AnyMapping[str, Any]) -> Any:
        """Its options, checked; those that are not given have their defaults.

        Raises:
            SchemaError: an unknown name, or a value of the wrong kind or out of range.
        """
        infos = {info.name: info for info in self.option_infos}
        for name, value in values.items():
            if name not in infos:
                raise SchemaError(f"{name} is no option of {self.name}; {known_names(name, infos)}")
            if (choices := infos[name].choices) and value not in choices:
                raise SchemaError(f"{name} is {value}: expected one of {', '.join(choices)}")
        try:
            return msgspec.convert(dict(values), self.options)
        except msgspec.ValidationError as error:
            cause = error.__cause__
            raise SchemaError(str(cause if isinstance(cause, SchemaError) else error)) from error

    def stage(self, name: str) -> Stage:
        """The stage of that name; KpdataError where there is none."""
        return self._declared("stage", self.stages, name)

    def head(self, name: str) -> Head:
        """The head of that name; KpdataError where there is none."""
        return self._declared("head", self.heads, name)

    def _declared(self, what: str, declared: Iterable[_Part], name: str) -> _Part:
        by_name = {part.name: part for part in declared}
        if name not in by_name:
            raise KpdataError(
                f"{what} is {name}: {self.name} has no such {what}; {known_names(name, by_name)}"
            )
        return by_name[name]

    def heads_of(self, stage: str) -> tuple[str, ...]:
        """The heads that a stage trains."""
        return self.stage(stage).heads or tuple(head.name for head in self.heads)

    def describe(self, options: Any) -> str:
        """The model and its options as text: weights fit where it is equal, at any input size."""
        if self.architecture:
            return self.architecture(options)
        values = (f"{info.name}={getattr(options, info.name)}" for info in self.option_infos)
        return " ".join([f"model={self.name}", *values])
