"""The formats that kpdata knows, each declared by a package of its own."""

import difflib
from pathlib import Path
from typing import Any

from kpdata.core.errors import FormatError
from kpdata.formats import coco, deeplabcut, json, labelme, lsp, mpii, shards, yolo
from kpdata.formats.base import Format, Option, Source
from kpdata.formats.detect import Recognised
from kpdata.formats.detect import recognise as recognise_among

FORMATS: dict[str, Format] = {}
"""Name → declaration, in the order in which they are listed."""


def register(declared: Format) -> None:
    """Add a format. From then on it is read, listed, documented and recognised like the others.

    Raises:
        ValueError: another format has its name or one of its aliases.
    """
    taken = {name for known in FORMATS.values() for name in (known.name, *known.aliases)}
    for name in (declared.name, *declared.aliases):
        if name in taken:
            raise ValueError(f"the name {name!r} of format {declared.name} is taken")
    FORMATS[declared.name] = declared


for _declared in (
    lsp.LSP, lsp.LSPET, mpii.FORMAT, coco.FORMAT, yolo.FORMAT, deeplabcut.FORMAT, labelme.FORMAT,
    json.FORMAT, shards.FORMAT,
):  # fmt: skip
    register(_declared)


def find(name: str) -> Format:
    """The format of a name or an alias, in any case; ``-`` and ``_`` are alike.

    Raises:
        FormatError: there is none; the message names the nearest.
    """
    if (known := lookup(name)) is not None:
        return known
    nearest = difflib.get_close_matches(_plain(name), _names(), n=1)
    meant = f": did you mean {_names()[nearest[0]].name}?" if nearest else ":"
    raise FormatError(f"unknown format {name!r}{meant} kpdata knows {', '.join(FORMATS)}")


def lookup(name: str) -> Format | None:
    """The format of a name or an alias; None if there is none."""
    return _names().get(_plain(name))


def recognise(path: Path) -> Recognised:
    """The one format that annotations are of; see :func:`kpdata.formats.detect.recognise`."""
    return recognise_among(path, FORMATS)


def read(format: str, annotations: Path, **options: Any) -> Source:  # noqa: A002 - the term
    """Open annotations with the reader of a format.

    Args:
        format: a name or an alias.
        annotations: the annotation file or folder.
        **options: what the format declares, with a Skeleton for a skeleton; those that are None
            count as not given.

    Raises:
        FormatError: an unknown format, an option it does not take, or an unusable source.
    """
    declared = find(format)
    given = {option: value for option, value in options.items() if value is not None}
    known = [option.name for option in declared.options]
    for option in given:
        if option not in known:
            takes = ", ".join(known) or "no option"
            raise FormatError(f"`{option}` is not for format {declared.name}, which takes {takes}")
    source: Source = declared.read(Path(annotations), **given)
    return source


def reader_options() -> dict[Option, list[str]]:
    """All options of all readers, each with the names of the formats that take it."""
    takers: dict[Option, list[str]] = {}
    for declared in FORMATS.values():
        for option in declared.options:
            takers.setdefault(option, []).append(declared.name)
    return takers


def as_markdown() -> str:
    """The table of docs/formats.md."""
    rows = [
        ("format", "coordinates", "visibility", "written"),
        ("---", "---", "---", "---"),
        *(
            (f"`{f.name}`", f.coordinates, f.visibility, "yes" if f.writable else "")
            for f in FORMATS.values()
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _names() -> dict[str, Format]:
    return {
        _plain(name): declared
        for declared in FORMATS.values()
        for name in (declared.name, *declared.aliases)
    }


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
