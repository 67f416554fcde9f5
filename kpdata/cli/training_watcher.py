"""Shows a training run on a meter; imported only by the commands that run one."""

from kpdata.checks.gates import Verdict
from kpdata.train.loop.phase import Watcher
from kpdata.train.run.config import Phase, TrainConfig
from kpdata.train.run.folder import Row
from kpdata.view.console import Meter


class MeterWatcher(Watcher):
    """Turns what a training says into a bar for each epoch and a line at its end."""

    def __init__(self, meter: Meter, config: TrainConfig):
        self._meter, self._config = meter, config
        self._steps = self._epoch = 0
        self._split = ""

    def reading(self, split: str, pictures: int) -> None:
        """Show the pictures read."""
        if split != self._split:
            self._split = split
            self._meter.begin(f"reading {split}", unit="pictures")
        self._meter.reach(pictures)

    def cropped(self, words: str) -> None:
        """Say what the pictures show."""
        self._meter.tell(f"pictures: {words}")

    def checking(self) -> None:
        """Show that the checks run."""
        self._meter.begin("checking labels and model")

    def checked(self, verdict: Verdict) -> None:
        """Say what a check found; what a failed one found is in the error that ends the command."""
        if verdict.passed:
            self._meter.tell(f"checked {verdict.gate}: {verdict.explanation}")

    def phase(self, number: int, phase: Phase, parameters: tuple[int, int], steps: int) -> None:
        """Say what is trained."""
        self._steps, self._split = steps, ""
        learning, count = parameters
        self._meter.tell(
            f"phase {number + 1} of {len(self._config.phases)}: {phase.trains}, {phase.epochs:,} "
            f"epochs of {steps:,} steps at {phase.input_size} px; {learning / 1e6:.2f} of "
            f"{count / 1e6:.2f} million parameters learn"
        )

    def step(self, epoch: int, epochs: int, step: int, loss: float) -> None:
        """Move the bar."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._meter.begin(f"epoch {epoch} of {epochs}", self._steps * self._config.batch_size)
        self._meter.reach(step * self._config.batch_size, note=f"loss {loss:.4f}")

    def epoch(self, row: Row, best: bool) -> None:
        """Say what the epoch came to."""
        score = "" if row.score is None else f", val PCK {row.score:.3f}{' best' if best else ''}"
        self._meter.tell(
            f"epoch {row.epoch}: loss {row.losses['loss']:.4f}{score}, learning rate "
            f"{row.learning_rate:.2g}, {row.images_per_second:,.0f} images/s"
        )

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._meter.warn(text)
