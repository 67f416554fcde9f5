"""Turn parameter names in the library's messages into flags of the command line."""

import re
from collections.abc import Sequence

import click

from kpdata.view.console import Meter


def as_flags(message: str, parameters: Sequence[click.Parameter]) -> str:
    """Replace parameter names in a library's message by flags.

    >>> crop = click.Option(["--crop"])
    >>> as_flags("crop is 9000: expected 8 to 8192: leave `crop` out", [crop])
    '--crop is 9000: expected 8 to 8192: leave --crop out'
    """
    flags = {p.name: p.opts[0] for p in parameters if isinstance(p, click.Option) and p.name}
    if (begins := re.match(r"(\w+) (?=is )", message)) and begins[1] in flags:
        message = flags[begins[1]] + message[begins.end(1) :]
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), message)


class CommandMeter(Meter):
    """Progress of the command that runs; its messages name flags."""

    def __init__(self, quiet: bool = False):
        super().__init__(quiet)
        context = click.get_current_context()
        self._parameters = context.command.get_params(context)

    def tell(self, text: str) -> None:
        """Print a line above the bar."""
        super().tell(as_flags(text, self._parameters))
