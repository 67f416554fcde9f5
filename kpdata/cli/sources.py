"""The arguments [FORMAT] ANNOTATIONS of a command, and the reader options that formats declare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from kpdata.core.errors import FormatError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.splits import SPLIT_NAME
from kpdata.formats import Format, find, lookup
from kpdata.formats.base import IMAGES
from kpdata.formats.registry import reader_options
from kpdata.labels import Labels, read
from kpdata.storage.stores import Location, as_location


class SplitLocation(NamedTuple):
    """``NAME=PATH`` on the command line: a location, and its split; "" where none is named."""

    split: str
    location: Location


class _SplitLocationType(click.ParamType):  # type: ignore[type-arg]
    name = "[SPLIT=]PATH|URL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> SplitLocation:
        if isinstance(value, SplitLocation):
            return value
        split, equals, rest = str(value).partition("=")
        named = equals and SPLIT_NAME.fullmatch(split) and not Path(value).exists()
        return (
            SplitLocation(split, as_location(rest))
            if named
            else SplitLocation("", as_location(value))
        )


_SPLIT_LOCATION = _SplitLocationType()


class ReadsAnnotations(click.Command):
    """A command whose first arguments are [FORMAT] ANNOTATIONS.

    It has the reader options of all registered formats. They are not known before it runs, so its
    function takes ``**options: Any``.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The annotations, the command's first option, the formats' options, and the rest."""
        annotations = click.Argument(
            ["annotations"], nargs=-1, required=True, metavar="[FORMAT] ANNOTATIONS"
        )
        own = super().get_params(ctx)
        return [annotations, *own[:1], *_format_options(), *own[1:]]


def labels_from(options: dict[str, Any], progress: Progress = SILENT) -> Labels:
    """Read the annotations that a command line names.

    Args:
        options: all parameters of a :class:`ReadsAnnotations` command, by name.
        progress: is told of the format that was recognised.

    Raises:
        FormatError: there are several annotations and not each has a split of its own; or a file
            cannot be read as its format.
    """
    declared, annotations = _split_format(options["annotations"])
    given = {option.name: options[option.name] for option in reader_options() if option != IMAGES}
    _check_splits(annotations)
    (split, location), *others = annotations
    return read(
        _by_split(annotations) if split or others else location,
        _by_split(options["images"]) or None,
        format=declared.name if declared else None,
        progress=progress,
        **given,
    )


def _format_options() -> list[click.Option]:
    made = []
    for option, formats in reader_options().items():
        if option == IMAGES:
            many = f"{option.help} SPLIT=DIR is a split's own."
            made.append(click.Option(["--images"], multiple=True, type=_SPLIT_LOCATION, help=many))
            continue
        made.append(
            click.Option(
                [f"--{option.name.replace('_', '-')}"],
                type=click.Choice(option.choices) if option.choices else str,
                metavar=None if option.choices else option.metavar,
                help=f"{', '.join(formats)}: {option.help}",
            )
        )
    return made


def _split_format(words: Sequence[str]) -> tuple[Format | None, list[SplitLocation]]:
    """Split the arguments into the format, if the first word names one, and the annotations."""
    first, *others = words
    is_path = Path(first).exists()
    declared = None if is_path and not others else lookup(first)
    if declared and not others:
        raise FormatError(f"{first} is a format: say which annotations behind it, too")
    if declared is None and (last := lookup(words[-1])) and not Path(words[-1]).exists():
        raise FormatError(f"the format comes first: {last.name} {' '.join(words[:-1])}")
    if declared is None and others and not (is_path or "=" in first or "://" in first):
        find(first)  # raises, and names the nearest
    annotations = others if declared else words
    return declared, [_SPLIT_LOCATION.convert(word, None, None) for word in annotations]


def _by_split(given: Sequence[SplitLocation]) -> dict[str, list[Location]]:
    """Split → its locations; the key "" is for those that name no split."""
    found: dict[str, list[Location]] = {}
    for split, location in given:
        found.setdefault(split, []).append(location)
    return found


def _check_splits(annotations: Sequence[SplitLocation]) -> None:
    if len(annotations) > 1 and any(not found.split for found in annotations):
        listed = " ".join(f"{split}={at}" if split else f"{at}" for split, at in annotations)
        raise FormatError(
            f"{listed}: give one ANNOTATIONS, or each with its split, such as "
            "train=a.json train=b.json val=c.json"
        )
