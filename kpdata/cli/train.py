"""``kpdata train``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.main import COMMANDS
from kpdata.cli.options import as_json, quiet
from kpdata.cli.training import need_trainer
from kpdata.core.errors import TrainingError
from kpdata.view.console import Meter, screen
from kpdata.view.printing import say, say_json

if TYPE_CHECKING:
    from kpdata.shards.dataset import Dataset
    from kpdata.train.run.config import TrainConfig
    from kpdata.train.run.folder import RunFolder, State

_SHORTHANDS = ("size", "backbone", "weights", "head", "batch_size", "seed")
_ONLY_OF = {
    "size": "blazepose",
    "stage": "blazepose",
    "backbone": "regression",
    "weights": "regression",
    "head": "regression",
}


@click.command("train", short_help=COMMANDS["train"])
@click.argument("shards", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--recipe", metavar="NAME", help="A named configuration; see --recipes.")
@click.option("--recipes", is_flag=True, help="List the named configurations, and end.")
@click.option(
    "--model", type=click.Choice(["blazepose", "regression"]), help="blazepose unless given."
)
@click.option(
    "--size",
    type=click.Choice(["lite", "full", "heavy"]),
    help="How large a blazepose model is; full unless given.",
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="The network inside a regression model, as resnet50; an unknown name lists all.",
)
@click.option(
    "--weights",
    metavar="imagenet|none|FILE",
    help="What the backbone starts from: imagenet, none (random; unless given), or a file.",
)
@click.option(
    "--head",
    type=click.Choice(["dense", "softargmax", "rle"]),
    help="How a regression model tells coordinates; dense unless given.",
)
@click.option(
    "--stage", type=click.Choice(["heatmap", "regression", "both"]),
    help="Which phases of blazepose to train; both, one after the other, unless given.",
)  # fmt: skip
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    help="The folder of a finished run: training starts from its best weights.",
)
@click.option("--batch-size", type=int, help="Pictures a step.")
@click.option(
    "--seed",
    type=int,
    help="Decides everything random: the first weights, the order of pictures, augmentation.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Change any setting that --print-config shows; a dot reaches inside: augment.flip=0.",
)  # fmt: skip
@click.option("--print-config", is_flag=True, help="Print the configuration as JSON, and end.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--devices", default=1, show_default=True, type=click.IntRange(1, 64),
    help="GPUs (or other devices of JAX) that share each batch.",
)  # fmt: skip
@click.option("--skip-checks", is_flag=True, help="Train without checking labels and model first.")
@quiet
@as_json
@click.pass_context
def command(ctx: click.Context, /, shards: Path | None, **options: Any) -> None:
    """Train a model on the dataset SHARDS, and keep the one that validates best.

    Without --recipe, the configuration suits the dataset and this machine. Before a new run the
    data are checked: visibility flags, left and right, coordinates; and that the model can learn a
    few pictures by heart. The run's folder holds its configuration, history, weights and curves;
    tensorboard --logdir RUN/logs shows them live. After Ctrl-C or a crash, --resume goes on exactly
    where the last epoch ended.

    \b
    Examples:
      kpdata train shards/ --out runs/a
      kpdata train shards/ --model regression --weights imagenet --out runs/b
      kpdata train shards/ --recipe lsp_blazepose --set phases.0.epochs=50 --out runs/c
      kpdata train --out runs/a --resume
    """
    if options["recipes"]:
        _list_recipes()
        return
    need_trainer()
    from kpdata.shards.dataset import Dataset
    from kpdata.train.run.folder import RunFolder

    folder = RunFolder(_out(options))
    if options["resume"]:
        _refuse_other_options(ctx)
        config = folder.config()
        dataset = _same_data(folder, shards)
    else:
        if shards is None:
            raise click.UsageError("name the folder of shards to train on")
        dataset = Dataset.open(shards)
        config = _configuration(dataset, options)
    if options["print_config"]:
        say_json(_as_json(config))
        return
    if not options["resume"] and folder.state().rows:
        raise TrainingError(
            f"{folder.path} holds a run already: add --resume to go on with it, or choose "
            "another --out"
        )
    state = _train(folder, dataset, config, options)
    if options["as_json"]:
        say_json(json.dumps(_result(folder, state), indent=1))
    elif not options["quiet"]:
        _show(folder, dataset, state)


def _out(options: dict[str, Any]) -> Path:
    if options["out"] is None and not options["print_config"]:
        raise click.UsageError("--out is missing: the folder that the run is kept in")
    return options["out"] or Path()


def _refuse_other_options(ctx: click.Context) -> None:
    kept = {"shards", "out", "resume", "devices", "quiet", "as_json", "print_config", "skip_checks"}
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if option.name not in kept and source == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --resume: the run has its configuration already"
            )


def _same_data(folder: "RunFolder", shards: Path | None) -> "Dataset":
    """The dataset that a run was begun with, wherever it lies now."""
    from kpdata.shards.dataset import Dataset

    info = folder.info()
    dataset = Dataset.open(shards or info.shards)
    if dataset.manifest.root_hash != info.root_hash:
        raise TrainingError(
            f"{dataset.folder} is not what {folder.path} was begun with: its root hash is "
            f"{dataset.manifest.root_hash[:12]}…, not {info.root_hash[:12]}…"
        )
    return dataset


def _configuration(dataset: "Dataset", options: dict[str, Any]) -> "TrainConfig":
    from kpdata.train.loop.defaults import default_config
    from kpdata.train.run.config import load_recipe, of_stage, override

    if options["recipe"]:
        if options["model"]:
            raise click.UsageError("--model does not go with --recipe: a recipe names its model")
        config = load_recipe(options["recipe"])
    else:
        pretrained = options["weights"] not in (None, "none")
        config = default_config(dataset, options["model"] or "blazepose", pretrained)
    for name, model in _ONLY_OF.items():
        if options[name] is not None and config.model != model:
            raise click.UsageError(f"--{name} is of {model}, and this model is {config.model}")
    if options["stage"] == "regression" and not options["start"]:
        raise click.UsageError(
            "--stage regression needs --start RUN: the run whose heatmap stage it stands on"
        )
    if options["stage"]:
        config = of_stage(config, options["stage"])
    given = {key: options[key] for key in _SHORTHANDS if options[key] is not None}
    if given.get("weights", "").endswith(".h5"):  # --resume may be run from another folder
        given["weights"] = str(Path(given["weights"]).resolve())
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    if options["start"]:
        settings.append(f"start={json.dumps(str(options['start'].resolve()))}")
    return override(config, [*settings, *options["settings"]])


def _train(
    folder: "RunFolder", dataset: "Dataset", config: "TrainConfig", options: dict[str, Any]
) -> "State":
    from kpdata.cli.training_watcher import MeterWatcher
    from kpdata.train.loop.train import train

    with Meter(options["quiet"] or options["as_json"]) as meter:
        try:
            return train(
                folder,
                dataset,
                config,
                MeterWatcher(meter, config),
                check_first=not options["skip_checks"],
                devices=options["devices"],
            )
        except KeyboardInterrupt:
            done = len(folder.state().rows)
            kept = f"epochs kept: {done}. Go on with: kpdata train --out {folder.path} --resume"
            nothing = "no epoch is done: run the same command again"
            raise TrainingError(f"interrupted; {kept if done else nothing}") from None


def _as_json(config: "TrainConfig") -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def _list_recipes() -> None:
    import importlib

    from kpdata.train.run.config import recipe_names

    for name in recipe_names():
        module = importlib.import_module(f"kpdata.train.run.recipes.{name}")
        say(f"{name}: {(module.__doc__ or '').splitlines()[0]}")


def _result(folder: "RunFolder", state: "State") -> dict[str, Any]:
    best = state.best
    return {
        "run": str(folder.path),
        "epochs": len(state.rows),
        "seconds": sum(row.seconds for row in state.rows),
        "best_epoch": best.epoch if best else None,
        "val_pck": best.scores if best else {},
    }


def _show(folder: "RunFolder", dataset: "Dataset", state: "State") -> None:
    console = screen()
    result = _result(folder, state)
    scores = ", ".join(f"{head} {value:.3f}" for head, value in result["val_pck"].items())
    console.print(
        f"{folder.path}: {result['epochs']:,} epochs in {result['seconds']:,.0f} s; best epoch "
        f"{result['best_epoch']:,}" + (f", validation PCK: {scores}" if scores else "")
    )
    splits = [split for split in dataset.splits if split not in ("train", "val")]
    if splits:
        console.print(f"next: kpdata evaluate {folder.path} {dataset.folder} --split {splits[0]}")
