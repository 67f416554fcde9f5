"""``kpdata``: the group of commands, and where library errors become messages."""

import atexit
import gc
import importlib
import io
import os
import signal
import sys
from typing import Any

import click

from kpdata.view.printing import print_error, print_usage_error

COMMANDS = {
    "convert": "Convert annotations into verified, leak-free TFRecord shards, or back.",
    "formats": "List what can be read and written, each with its convention.",
    "inspect": "Show what a shard folder holds.",
    "verify": "Check every byte of a shard folder, and that nothing leaks across splits.",
    "audit": "Look for identical and near-duplicate images across splits and datasets.",
    "augment-preview": "Draw augmented copies with their keypoints on a contact sheet.",
    "synth": "Render a dataset of simulated people with exact labels.",
    "weights": "List and fetch pretrained weights that a model can start from.",
    "train": "Train a model on shards, and keep the one that validates best.",
    "evaluate": "Score a trained model on a split, with intervals and baselines.",
    "compare": "Show how two evaluated models differ, keypoint by keypoint.",
    "predict": "Find keypoints in photos, folders and videos with a trained model.",
    "export": "Write a trained model as TFLite, ONNX or SavedModel.",
    "demo": "Show the whole path on rendered data, in a few minutes.",
}
"""Name → short help. It stands here so that ``kpdata --help`` imports nothing but click."""

EXAMPLES = """
\b
Examples:
  kpdata demo
  kpdata convert lsp joints.mat --out shards/
  kpdata convert coco person_keypoints_train2017.json --images train2017/ \\
      --out shards/ --crop 256 --augment 4
  kpdata inspect shards/
  kpdata verify shards/
"""


_CHECKS = frozenset({"audit", "verify"})
"""Commands that exit with 1 if they find a fault, and with 2 if they cannot check."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which a new user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module with the command's name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kpdata.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn parameter names in its errors into flags."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from kpdata.cli.flags import as_flags
            from kpdata.core.errors import KpdataError

            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if isinstance(error, KpdataError) and command:
                error.args = (as_flags(str(error), command.get_params(ctx)), *error.args[1:])
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, help=f"Keypoint datasets, from any annotation to shards.\n{EXAMPLES}")
@click.version_option(package_name="kpdata", prog_name="kpdata")
def cli() -> None:
    """Do nothing: the commands do the work."""


def main() -> None:
    """Run the command line; a user's mistake ends with one message and no traceback."""
    from kpdata.core.errors import KpdataError, shortage

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name or a dash that the terminal cannot show
    trouble = 2 if set(sys.argv[1:2]) & _CHECKS else 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends a command as Ctrl-C does
    atexit.register(gc.freeze)  # garbage collection of Beam at exit takes 0.2 s
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignore a second Ctrl-C
        _end(f"interrupted. {error}".removesuffix(". "), 130)
    except click.ClickException as error:
        print_usage_error(error)
        sys.exit(error.exit_code)
    except KpdataError as error:
        _end(str(error), trouble)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UnicodeEncodeError as error:
        _end(f"{error.object!r} is not UTF-8: rename that file", trouble)
    except Exception as error:
        message = shortage(error)
        if message is None and isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            message = f"{error.strerror or error}{where}"
        if message is None:
            raise
        _end(message, trouble)


def _end(message: str, status: int) -> None:
    print_error(f"kpdata: {message}")
    sys.exit(status)
