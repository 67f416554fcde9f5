"""The one protocol by which long work reports its progress."""


class Progress:
    """Is told how far the work is. This class ignores it; subclass it to show or record it.

    Work is a sequence of steps. Each has a name, a unit and, where it is known, a number of units.
    Messages for the user go through :meth:`tell` and :meth:`warn`.

    >>> class Lines(Progress):
    ...     def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
    ...         print(f"{step}: {total} {unit}")
    >>> Lines().begin("writing", 80)
    writing: 80 images
    """

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        """A step of ``total`` units (None: unknown) begins; the step before has ended."""

    def advance(self, count: int = 1) -> None:
        """``count`` more units of the step are done."""

    def reach(self, done: int, note: str = "") -> None:
        """``done`` units of the step are done in all; ``note`` adds a text, such as the loss."""

    def tell(self, text: str) -> None:
        """A message for the user."""

    def warn(self, text: str) -> None:
        """A warning for the user; the work goes on."""


SILENT = Progress()
"""Ignores everything."""
