"""``kpdata train``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kpdata.cli.flags import CommandMeter
from kpdata.cli.main import COMMANDS
from kpdata.cli.model_options import DeclaredCommand, training_options
from kpdata.cli.options import LOCATION, as_json, quiet
from kpdata.dataset import open_dataset
from kpdata.storage.stores import Location
from kpdata.view.console import screen
from kpdata.view.printing import print_json, print_line

if TYPE_CHECKING:
    from kpdata.train.api import Run
    from kpdata.train.run.config import TrainConfig

_RUNNING = ("skip_checks", "devices")
"""Options that say how to run, and are not part of the configuration."""


@click.command(
    "train", cls=DeclaredCommand, declared=training_options, short_help=COMMANDS["train"]
)
@click.argument("shards", type=LOCATION, required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--recipe", metavar="NAME", help="A named configuration; see --recipes.")
@click.option("--recipes", is_flag=True, help="List the named configurations, and end.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="The folder of a finished run: training starts from its best weights.",
)
@click.option(
    "--epochs", type=click.IntRange(1), metavar="N",
    help="Number of epochs in all. Phases and their warm-ups keep their shares of it.",
)  # fmt: skip
@click.option(
    "--input-size", type=click.IntRange(1), metavar="PX",
    help="Side of the crops that the finished model takes.",
)  # fmt: skip
@click.option("--batch-size", type=int, help="Number of crops in a training step.")
@click.option(
    "--seed",
    type=int,
    help="Decides everything random: the first weights, the order of crops, augmentation.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Change any setting that --print-config shows; a dot reaches inside: augment.flip=0.",
)  # fmt: skip
@click.option("--print-config", is_flag=True, help="Print the configuration as JSON, and end.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option(
    "--devices", default=1, show_default=True, type=click.IntRange(1, 64),
    help="GPUs (or other devices of JAX) that share each batch.",
)  # fmt: skip
@click.option("--skip-checks", is_flag=True, help="Train without checking labels and model first.")
@quiet
@as_json
def command(
    shards: Location | None,
    out: Path | None,
    recipes: bool,
    print_config: bool,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,  # the models declare some of them, so that their names are not known here
) -> None:
    """Train a model on the dataset SHARDS, and keep the one that validates best.

    Without --recipe, the configuration suits the dataset and this machine. Before a new run,
    kpdata checks the labels (visibility flags, left and right, coordinates), and that the model can
    learn a few crops by heart. The run's folder holds its configuration, history, weights and
    curves; tensorboard --logdir RUN/logs shows the curves live. After Ctrl-C or a crash, --resume
    goes on exactly where the last epoch ended.

    \b
    Examples:
      kpdata train shards/ --out runs/a
      kpdata train shards/ --model regression --weights imagenet --out runs/b
      kpdata train shards/ --recipe lsp_blazepose --epochs 50 --out runs/c
      kpdata train --out runs/a --resume
    """
    if recipes:
        _list_recipes()
        return
    if out is None and not print_config:
        raise click.UsageError("--out is missing: the folder that the run is kept in")
    if shards is None and not resume:
        raise click.UsageError("name the folder of shards to train on")
    if print_config:
        print_json(_configuration(shards, out, resume, options))
        return
    assert out is not None  # checked above
    with CommandMeter(quiet or as_json) as meter:
        run = _train(shards, out, resume, meter, options)
    if as_json:
        print_json(json.dumps(_result(run), indent=1))
    elif not quiet:
        _show(run, shards)


def _configuration(
    shards: Location | None, out: Path | None, resume: bool, options: dict[str, Any]
) -> str:
    import msgspec

    from kpdata.train.api import configuration, resumed_configuration
    from kpdata.train.run.folder import RunFolder

    choices = {name: value for name, value in options.items() if name not in _RUNNING}
    config: TrainConfig
    if resume:
        config = resumed_configuration(RunFolder(out or Path()), choices)
    else:
        assert shards is not None  # checked by the command
        config = configuration(shards, **choices)
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def _train(
    shards: Location | None, out: Path, resume: bool, meter: CommandMeter, options: dict[str, Any]
) -> "Run":
    from kpdata.train.api import train
    from kpdata.train.run.folder import RunFolder

    try:
        return train(shards, out, resume=resume, progress=meter, **options)
    except KeyboardInterrupt:
        done = len(RunFolder(out).state().epochs)
        kept = f"Epochs kept: {done}. Go on with: kpdata train --out {out} --resume"
        nothing = "No epoch is done: run the same command again"
        raise click.Abort(kept if done else nothing) from None


def _list_recipes() -> None:
    from kpdata.train.run.config import recipe_names, recipe_summary

    for name in recipe_names():
        print_line(f"{name}: {recipe_summary(name)}")


def _result(run: "Run") -> dict[str, Any]:
    state = run.state
    best = state.best
    return {
        "run": str(run.path),
        "epochs": len(state.epochs),
        "seconds": sum(record.seconds for record in state.epochs),
        "best_epoch": best.epoch if best else None,
        "best_phase": best.phase + 1 if best else None,
        "answer": best.heads[0] if best and best.heads else None,
        "val_pck": state.val_pck,
    }


def _show(run: "Run", shards: Location | None) -> None:
    console = screen()
    result = _result(run)
    (answers, score), *others = [*result["val_pck"].items()] or [("", None)]
    said = "" if score is None else f", validation PCK {score:.3f} of its answer, {answers}"
    if run.best and (epoch := run.best.earlier.get(answers)):
        said += f" of epoch {epoch}"
    if others:
        said += f" ({', '.join(f'{head} {value:.3f}' for head, value in others)})"
    phase = f" (phase {result['best_phase']})" if len(run.config.phases) > 1 else ""
    console.print(
        f"{run.path}: {result['epochs']:,} epochs in {result['seconds']:,.0f} s; best epoch "
        f"{result['best_epoch']:,}{phase}{said}"
    )
    dataset = open_dataset(shards or run.info.shards)
    splits = [split for split in dataset.splits if split not in ("train", "val")]
    if splits:
        console.print(f"next: kpdata evaluate {run.path} {dataset.location} --split {splits[0]}")
