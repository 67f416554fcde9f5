"""The annotations that a command reads: its arguments and options, and the source they name."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from kpdata.core.errors import FormatError
from kpdata.core.splits import SPLIT_NAME
from kpdata.formats import FORMATS, Source, read
from kpdata.formats.settings import get_skeleton
from kpdata.storage.stores import Location, Url, as_location, local_copy

F = TypeVar("F", bound=Callable[..., Any])

_COPIED = {
    "shards": frozenset({".json", ".tfrecord"}),
    "deeplabcut": frozenset({".csv", ".yaml"}),
}
_COPIED_USUALLY = frozenset({".json"})
"""What is copied of a folder on a store."""


class SplitLocation(NamedTuple):
    """``NAME=PATH``: a place, and the split that it belongs to; "" where none is named."""

    split: str
    place: Location


class _FormatName(click.Choice):  # type: ignore[type-arg]
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            order = f"kpdata {ctx.info_name if ctx else '…'} FORMAT ANNOTATIONS"
            self.fail(f"{error.message} The format comes first: {order}", param, ctx)


class _SplitLocation(click.ParamType):  # type: ignore[type-arg]
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


def source_arguments(function: F) -> F:
    """The annotations to read, and their format before them."""
    paths = click.argument(
        "annotations", nargs=-1, required=True, type=_SplitLocation(), metavar="ANNOTATIONS"
    )
    name = click.argument("format_name", metavar="FORMAT", type=_FormatName(list(FORMATS)))
    return name(paths(function))


def reader_options(function: F) -> F:
    """What readers take besides the annotations."""
    for option in reversed(
        (
            click.option(
                "--images", multiple=True, type=_SplitLocation(),
                help="The images' folder, SPLIT=FOLDER for a split's own; found beside the "
                "annotations where it can be.",
            ),
            click.option("--category", metavar="NAME", help="coco: the category to read."),
            click.option(
                "--skeleton", metavar="NAME|FILE",
                help="json: the skeleton's name or JSON file.",
            ),
            click.option(
                "--style", type=click.Choice(["list", "torchvision", "named", "labelme"]),
                help="json: recognised unless given.",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def places_of(options: dict[str, Any]) -> list[Location]:
    """Where the annotations and the images lie, as far as the options say."""
    return [found.place for found in (*options["annotations"], *options["images"])]


@contextmanager
def source_from(options: dict[str, Any]) -> Iterator[Source]:
    """Open the source that the options name; annotations on a store are copied here meanwhile.

    Raises:
        FormatError: several ANNOTATIONS without a name each; what a reader raises.
    """
    annotations, images = options["annotations"], _images_by_split(options)
    _check_splits(annotations)
    with ExitStack() as stack:
        sources = {
            split: stack.enter_context(_open(where, images.get(split) or images.get(""), options))
            for split, where in annotations
        }
        if list(sources) == [""]:
            yield sources[""]
        else:
            from kpdata.formats._lib.merged import merge

            yield merge(sources)


@contextmanager
def _open(
    annotations: Location, images: Location | None, options: dict[str, Any]
) -> Iterator[Source]:
    name = options["format_name"]
    skeleton = options["skeleton"] and get_skeleton(options["skeleton"])
    if isinstance(annotations, Url) and images is None and name != "shards":
        raise FormatError(f"{annotations}: give --images too, the folder or URL of the images")
    with local_copy(annotations, _COPIED.get(name, _COPIED_USUALLY)) as path:
        yield read(
            name,
            path,
            images=images,
            category=options["category"],
            skeleton=skeleton,
            style=options["style"],
        )


def _images_by_split(options: dict[str, Any]) -> dict[str, Location]:
    """Split → its images' folder; "" is that of all others."""
    given: Sequence[SplitLocation] = options["images"]
    known = {"", *(found.split for found in options["annotations"])}
    for split, times in Counter(found.split for found in given).items():
        if times > 1:
            raise FormatError(
                f"--images is given {times} times{f' for {split}' if split else ''}: once, or "
                "SPLIT=FOLDER for each split's own"
            )
        if split not in known:
            raise FormatError(f"--images {split}=…: no ANNOTATIONS are called {split}=…")
    return dict(given)


def _check_splits(annotations: Sequence[SplitLocation]) -> None:
    splits = {found.split for found in annotations}
    if len(annotations) > 1 and ("" in splits or len(splits) < len(annotations)):
        listed = " ".join(f"{split}={at}" if split else f"{at}" for split, at in annotations)
        raise FormatError(
            f"{listed}: give one ANNOTATIONS, or each with a split of its own, such as "
            "train=a.json val=b.json"
        )
