"""A configuration with some of its values changed."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from kpdata.core.crop import usual_margin
from kpdata.core.errors import KpdataError, SchemaError, located
from kpdata.train.models.base import Phase, known_names
from kpdata.train.models.registry import get_model
from kpdata.train.run.config import TrainConfig

T = TypeVar("T")

Overrides = Iterable[str] | Mapping[str, Any]
"""``key=value`` texts, or key → value; a dotted key reaches inside."""


def of_stage(config: TrainConfig, stage: str) -> TrainConfig:
    """``config`` with the phases that belong to a stage of its model alone.

    Raises:
        KpdataError: there is none.
    """
    wanted = {stage, *config.spec.stage(stage).includes}
    phases = tuple(phase for phase in config.phases if phase.trains in wanted)
    if not phases:
        found = ", ".join(dict.fromkeys(phase.trains for phase in config.phases))
        raise KpdataError(f"stage is {stage}: the phases train {found}")
    return msgspec.structs.replace(config, phases=phases)


def with_epochs(config: TrainConfig, epochs: int) -> TrainConfig:
    """``config`` with so many epochs in all, shared between its phases as before.

    Warm-ups keep their share of their phase, and each phase has one epoch at least.

    Raises:
        KpdataError: fewer epochs than phases.
    """
    count = len(config.phases)
    if epochs < count:
        raise KpdataError(
            f"epochs is {epochs}: expected {count} or more, one for each phase"
            + (", or choose a `stage`" if len(config.spec.stages) > 1 else "")
        )
    exact = [epochs * phase.epochs / config.epochs for phase in config.phases]
    shares = [max(1, int(share)) for share in exact]
    while (missing := epochs - sum(shares)) != 0:
        step = 1 if missing > 0 else -1
        able = [n for n in range(count) if shares[n] + step >= 1]
        shares[max(able, key=lambda n: step * (exact[n] - shares[n]))] += step
    phases = tuple(
        _lasting(phase, share) for phase, share in zip(config.phases, shares, strict=True)
    )
    return msgspec.structs.replace(config, phases=phases)


def _lasting(phase: Phase, epochs: int) -> Phase:
    warmup = phase.warmup * epochs / phase.epochs
    return msgspec.structs.replace(phase, epochs=epochs, warmup=warmup)


def with_input_size(config: TrainConfig, input_size: int) -> TrainConfig:
    """``config`` whose last phase has this input size, and the others theirs in proportion.

    Raises:
        KpdataError: the model takes no such size.
    """
    step = config.spec.input_multiple
    if input_size % step:
        raise KpdataError(f"input_size is {input_size}: {config.model} takes multiples of {step}")
    last = config.input_size
    phases = []
    for phase in config.phases:
        size = max(step, step * round(phase.input_size * input_size / last / step))
        phases.append(msgspec.structs.replace(phase, input_size=size))
    return msgspec.structs.replace(config, phases=tuple(phases))


def override(config: TrainConfig, settings: Overrides) -> TrainConfig:
    """``config`` with ``key=value`` settings; a dotted key reaches inside: ``phases.0.epochs=3``.

    A text value is JSON, or else taken as text. An option of the model may be named without
    ``options.`` before it. What must fit together is looked at once all are set; a warm-up that
    would be longer than its phase shrinks with it, and another ``crop_from`` has its own margin.

    >>> from kpdata.train.run.config import load_recipe
    >>> override(load_recipe("demo"), ["size=heavy", "phases.0.epochs=7"]).phases[0].epochs
    7

    Raises:
        KpdataError: an unknown key, or a value of the wrong type or out of range.
    """
    pairs = _pairs(settings)
    tree = msgspec.to_builtins(config)
    tree["phases"] = list(tree["phases"])
    model = dict(pairs).get("model", config.model)
    if model != config.model:
        with located(f"setting model={model}"):
            _change_model(tree, model)
    for key, value in pairs:
        with located(_named(key, value)):
            _put(tree, key.split("."), value)
    if (crop_from := dict(pairs).get("crop_from")) and "margin" not in dict(pairs):
        tree["margin"] = usual_margin(crop_from)
    _shrink_warmups(tree, {key for key, _ in pairs})
    with located(" ".join(_named(key, value) for key, value in pairs) or "configuration"):
        return _as_config(tree)


def _pairs(settings: Overrides) -> list[tuple[str, Any]]:
    if isinstance(settings, Mapping):
        return list(settings.items())
    pairs = []
    for setting in [settings] if isinstance(settings, str) else settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise KpdataError(f"setting {setting}: expected key=value, such as batch_size=16")
        pairs.append((key, _value(text)))
    return pairs


def _named(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"setting {key}={text}"


def _change_model(tree: dict[str, Any], name: str) -> None:
    """Another model has options and losses of its own."""
    spec = get_model(name)
    tree["model"], tree["options"] = name, msgspec.to_builtins(spec.parse({}))
    tree["losses"] = {loss.name: loss.weight for loss in spec.losses}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    if path[0] not in tree and path[0] in tree["options"]:
        path = ["options", *path]
    if path[0] not in tree and path[0] in Phase.__struct_fields__:
        _refuse_phase_key(path[0], value)
    inside: Any = tree
    for step in path[:-1]:
        inside = _step(inside, step)
    last = path[-1]
    if isinstance(inside, list):
        inside[_position(inside, last)] = value
    elif isinstance(inside, dict) and (last in inside or path[:-1] == ["keypoint_weights"]):
        inside[last] = value
    else:
        _refuse(inside, last)


def _refuse_phase_key(key: str, value: Any) -> NoReturn:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    short = f"`{key}` {text}, or " if key in ("epochs", "input_size") else ""
    raise KpdataError(f"{key} is of a phase: {short}phases.0.{key}={text}")


def _step(tree: Any, step: str) -> Any:
    if isinstance(tree, list):
        return tree[_position(tree, step)]
    if not isinstance(tree, dict) or step not in tree:
        _refuse(tree, step)
    if isinstance(tree[step], tuple):  # what to_builtins leaves of one
        tree[step] = list(tree[step])
    return tree[step]


def _refuse(tree: Any, key: str) -> NoReturn:
    known = f"; {known_names(key, tree)}" if tree and isinstance(tree, dict) else ""
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


def _shrink_warmups(tree: dict[str, Any], keys: set[str]) -> None:
    """Where a phase was shortened and its warm-up was not named, the warm-up fits into it."""
    phases = tree["phases"] if isinstance(tree["phases"], list) else []
    for number, phase in enumerate(phases):
        if f"phases.{number}.epochs" in keys and f"phases.{number}.warmup" not in keys:
            epochs = phase["epochs"]
            if isinstance(epochs, int) and phase["warmup"] > epochs > 0:
                phase["warmup"] = epochs / 4


def _as_config(tree: dict[str, Any]) -> TrainConfig:
    for number, phase in enumerate(tree["phases"] if isinstance(tree["phases"], list) else ()):
        with located(f"phases.{number}"):
            _converted(phase, Phase)
    return _converted(tree, TrainConfig)


def _converted(tree: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        raise SchemaError(str(cause if isinstance(cause, KpdataError) else error)) from error
