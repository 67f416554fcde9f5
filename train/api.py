"""Train models and compare runs from Python; the commands are thin over it.

Importing this imports no Keras: each function does when it is called.
"""

import difflib
from collections import defaultdict
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kpdata.core.errors import KpdataError, TrainingError
from kpdata.train.infer.results import Prediction, PredictionList, PredictionStream
from kpdata.train.models.registry import default_model, get_model, models
from kpdata.train.run.backend import prepare_backend
from kpdata.train.run.config import TrainConfig, load_recipe
from kpdata.train.run.folder import RunFolder
from kpdata.train.run.overrides import (
    Overrides,
    of_stage,
    override,
    with_epochs,
    with_input_size,
)
from kpdata.train.trained import AnyDataset, AnyPath, Run, open_shards, same_data
from kpdata.view.console import Shown, shown

if TYPE_CHECKING:
    from kpdata.train.evaluate.compare import Comparison

__all__ = [
    "Prediction",
    "PredictionList",
    "PredictionStream",
    "Run",
    "compare",
    "configuration",
    "resumed_configuration",
    "train",
]


def train(
    dataset: AnyDataset | None,
    out: AnyPath,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    stage: str | None = None,
    init_from: "Run | AnyPath | None" = None,
    settings: Overrides = (),
    resume: bool = False,
    skip_checks: bool = False,
    devices: int = 1,
    progress: Shown = None,
    **model_options: Any,
) -> "Run":
    """Train a model on shards, and keep the weights that validate best.

    >>> run = train("shards/", "runs/a", size="lite", epochs=50)             # doctest: +SKIP
    >>> run.evaluate("shards/", split="test")["pck@0.2"].value               # doctest: +SKIP
    0.727

    Args:
        dataset: shards with a split ``train``, and ``val`` to select by: a folder, a URL, or what
            ``kpdata.open`` gives. None, with ``resume``: those that the run was begun with.
        out: the run's folder.
        recipe: a named configuration; without, it suits the dataset and this machine.
        model: its name, unless a recipe names it.
        epochs: in all, shared between the phases as before.
        input_size: of the finished model, in pixels.
        batch_size: crops a step.
        seed: decides everything random: weights, the order of crops, augmentation.
        stage: which phases to train, by what they train; all unless given.
        init_from: a run, whose best weights training starts from.
        settings: any other value of the configuration: ``["augment.flip=0"]``, or a mapping.
        resume: go on with the run in ``out``, which has its configuration already.
        skip_checks: train without checking labels and model first.
        devices: how many of JAX's devices share each batch.
        progress: True or False; None shows it on a terminal and in notebooks. A Progress is told
            instead.
        **model_options: of the model, such as ``size`` or ``backbone``.

    Raises:
        KpdataError: a parameter that cannot be, shards that cannot be trained on, a check that
            failed, or a loss that is not a number.

    See Also:
        configuration: what would be trained.
    """
    _check_whole(devices=devices)
    prepare_backend()
    folder = RunFolder(Path(out))
    choices: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "epochs": epochs,
        "input_size": input_size,
        "batch_size": batch_size,
        "seed": seed,
        "stage": stage,
        "init_from": init_from,
        "settings": settings,
        **model_options,
    }
    if resume:
        config = resumed_configuration(folder, choices)
        opened = same_data(folder, dataset)
    else:
        if dataset is None:
            raise TrainingError("`dataset` is missing: the shards to train on")
        opened = open_shards(dataset)
        config = configuration(opened, **choices)
        if folder.state().epochs:
            raise TrainingError(
                f"{folder.path} holds a run already: add `resume` to go on with it, or choose "
                "another `out`"
            )
    from kpdata.train.loop.train import train as train_all

    with shown(progress) as meter:
        train_all(folder, opened, config, meter, check_first=not skip_checks, devices=devices)
    return Run(folder.path)


def configuration(
    dataset: AnyDataset,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    stage: str | None = None,
    init_from: "Run | AnyPath | None" = None,
    settings: Overrides = (),
    **model_options: Any,
) -> TrainConfig:
    """The configuration that :func:`train` would use, from the same arguments.

    Raises:
        KpdataError: a parameter that cannot be.
    """
    prepare_backend()
    from kpdata.train.run.defaults import default_config

    _check_whole(epochs=epochs, input_size=input_size, batch_size=batch_size, seed=seed)
    if recipe and model:
        raise KpdataError("`model` does not go with `recipe`: a recipe names its model")
    base = load_recipe(recipe) if recipe else None
    spec = base.spec if base else get_model(model or default_model())
    options = {name: value for name, value in model_options.items() if value is not None}
    _check_options(spec.name, options)
    for info in spec.option_infos:  # a run may be resumed from another working directory
        if info.is_file and Path(str(options.get(info.name, ""))).is_file():
            options[info.name] = str(Path(options[info.name]).resolve())
    parsed = spec.complete(spec.parse({**(base.options if base else {}), **options}))
    options = msgspec.to_builtins(parsed)
    if base:
        config = base.with_options(**options)
    else:
        config = default_config(open_shards(dataset), spec.name, options)
    if stage:
        if spec.stage(stage).needs_init and not init_from:
            raise KpdataError(
                f"stage is {stage}: it needs `init_from`, the run whose other stages it stands on"
            )
        config = of_stage(config, stage)
    if epochs is not None:
        config = with_epochs(config, epochs)
    if input_size is not None:
        config = with_input_size(config, input_size)
    changes: dict[str, Any] = {}
    if batch_size is not None:
        changes["batch_size"] = batch_size
    if seed is not None:
        changes["seed"] = seed
    if init_from is not None:
        path = init_from.path if isinstance(init_from, Run) else Path(init_from)
        changes["init_from"] = str(path.resolve())
    return override(msgspec.structs.replace(config, **changes), settings)


def resumed_configuration(folder: RunFolder, choices: Mapping[str, Any]) -> TrainConfig:
    """That of the run in a folder; KpdataError where ``choices`` name a value of another."""
    for name, value in choices.items():
        if value is not None and value != ():
            raise KpdataError(
                f"`{name}` does not go with `resume`: the run has its configuration already"
            )
    return folder.config()


def _check_whole(**numbers: Any) -> None:
    """Raise KpdataError for a value that is neither a whole number nor None."""
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise KpdataError(f"{name} is {value!r}: expected a whole number")


def _check_options(model: str, options: Mapping[str, Any]) -> None:
    """Raise KpdataError for an option that the model does not declare."""
    owners: dict[str, list[str]] = defaultdict(list)
    for spec in models().values():
        for info in spec.option_infos:
            owners[info.name].append(spec.name)
    for name in options:
        if name not in owners:
            parameters = ("epochs", "input_size", "batch_size", "seed", "stage", "init_from")
            near = difflib.get_close_matches(name, [*owners, *parameters], 1)
            raise KpdataError(
                f"`{name}` is unknown" + (f": did you mean `{near[0]}`?" if near else "")
            )
        if model not in owners[name]:
            raise KpdataError(
                f"`{name}` is of {' and '.join(owners[name])}, and this model is {model}"
            )


def compare(
    run_a: "Run | AnyPath", run_b: "Run | AnyPath", *, split: str = "test", seed: int = 0
) -> "Comparison":
    """Every metric of ``run_b`` less that of ``run_a``, on the same instances.

    >>> [d.name for d in compare("runs/a", "runs/b").differences]            # doctest: +SKIP
    ['PCK@0.2 (torso)', 'EPE', ...]

    Args:
        run_a, run_b: runs, their folders, or the folders of their evaluations.
        split: of the evaluations.
        seed: of the paired bootstrap.

    Raises:
        DatasetError: one was not evaluated, or the two were evaluated on different instances.
    """
    from kpdata.train.evaluate.compare import compare_runs

    first, second = (run.path if isinstance(run, Run) else Path(run) for run in (run_a, run_b))
    return compare_runs(first, second, split, seed)
