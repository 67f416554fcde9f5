"""Shows a conversion on a meter; imported only by commands that run one."""

from kpdata.cli.console import Meter
from kpdata.pipelines.convert import Watcher


class MeterWatcher(Watcher):
    """Turns what a conversion says into bars and lines."""

    def __init__(self, meter: Meter):
        self._meter = meter

    def planning(self) -> None:
        """Show the plan step."""
        self._meter.begin("planning")

    def planned(self, samples: int) -> None:
        """Show the references read."""
        self._meter.advance(samples, "samples")

    def grouping(self, what: str, images: int) -> None:
        """Show a step of the search for near duplicates."""
        self._meter.begin(what, images)

    def grouped(self, images: int) -> None:
        """Show the images that are done."""
        self._meter.advance(images)

    def writing(self, samples: int) -> None:
        """Show the write step."""
        self._meter.begin("writing", samples)

    def written(self, samples: int, size: int) -> None:
        """Show the images written."""
        self._meter.reach(samples, more=f", {size / 1e6:,.0f} MB")

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._meter.say(f"warning: {text}")
