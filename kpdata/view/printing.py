"""Print lines and errors; control characters from files are escaped, or they could rewrite the
screen.
"""

import io

import click

_DEL_AND_C1 = range(0x7F, 0xA0)
_CONTROLS = [code for code in (*range(0x20), *_DEL_AND_C1) if chr(code) not in "\n\t"]
_AS_DIGITS = {code: f"\\x{code:02x}" for code in _CONTROLS}
_AS_JSON = {code: f"\\u{code:04x}" for code in _DEL_AND_C1}
"""The control characters that JSON writers do not escape."""


def printable(text: str) -> str:
    r"""Escape control characters as ``\x1b``, except line ends and tabs."""
    return text.translate(_AS_DIGITS)


def print_line(text: str) -> None:
    """Print text on standard output."""
    click.echo(printable(text))


def print_json(text: str) -> None:
    """Print a JSON document on standard output."""
    click.echo(text.rstrip("\n").translate(_AS_JSON))


def print_error(text: str) -> None:
    """Print a message on standard error; lines after the first are indented.

    So a name with a line end in it cannot look like a second message.
    """
    click.echo(printable(text).replace("\n", "\n  "), err=True)


def print_usage_error(error: click.ClickException) -> None:
    """Print click's message about a wrong command line on standard error."""
    shown = io.StringIO()
    error.show(shown)
    click.echo(printable(shown.getvalue()), err=True, nl=False)


def as_text(cell: object) -> str:
    """A table's cell as one line of printable text."""
    return f"{cell:,}" if isinstance(cell, int) else printable(str(cell)).replace("\n", r"\n")
