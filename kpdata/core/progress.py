"""How long work tells how far it is: one protocol, from the first reference to the last epoch."""


class Progress:
    """Hears how work goes; this one keeps it to itself, and is what to subclass.

    Work is a row of steps. Each begins with its name and, where it is known, how many units it has;
    lines that a person should read go beside them.

    >>> class Lines(Progress):
    ...     def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
    ...         print(f"{step}: {total} {unit}")
    >>> Lines().begin("writing", 80)
    writing: 80 images
    """

    def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
        """A step of ``total`` units begins, and ends the one before."""

    def advance(self, count: int = 1) -> None:
        """``count`` more units of the step are done."""

    def reach(self, done: int, note: str = "") -> None:
        """``done`` units of the step are done by now; ``note`` says more, such as the loss."""

    def tell(self, text: str) -> None:
        """Something that the user may like to know."""

    def warn(self, text: str) -> None:
        """Something that the user should know, though the work goes on."""


SILENT = Progress()
"""Tells nobody."""
