"""A finished, or at least begun, run as something that finds keypoints in pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.skeleton import Skeleton
from kpdata.train.data.pictures import Views
from kpdata.train.infer.predictions import COORDINATES, HEATMAP, Decode, Predictions
from kpdata.train.infer.reader import PoseReader, read_pictures
from kpdata.train.models import build
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import Best, RunFolder, RunInfo


@dataclass(frozen=True)
class Predictor:
    """The best weights of a run.

    Attributes:
        path: the run's folder.
        config: what it did.
        info: what it was trained on.
        best: which weights these are.
    """

    path: Path
    config: TrainConfig
    info: RunInfo
    best: Best

    @classmethod
    def open(cls, path: Path) -> "Predictor":
        """Read a run's folder; nothing in it is executed.

        Raises:
            TrainingError: no run lies there, it is damaged, or it has no weights yet.
        """
        folder = RunFolder(path)
        config, info, best = folder.config(), folder.info(), folder.state().best
        if best is None or not best.heads:
            raise TrainingError(f"{path} has no weights yet: no epoch is validated")
        return cls(path, config, info, best)

    @property
    def skeleton(self) -> Skeleton:
        """Names the keypoints that it finds."""
        return self.info.skeleton

    @property
    def crop_rule(self) -> CropRule:
        """Which squares it was taught to see: those of its shards, where they were crops."""
        return self.info.crop_rule or CropRule(self.config.crop_from, self.config.margin)

    @property
    def saw_mirrored(self) -> bool:
        """Whether it learnt from mirror images: without them, what it finds in one is a guess."""
        return self.config.augment.flip > 0

    @property
    def score_note(self) -> str | None:
        """What to say of scores that are not what they usually are; None where they are."""
        if self._sees or COORDINATES not in self.best.heads:
            return None
        score = "the heatmap's peak" if HEATMAP in self.best.heads else "always 1"
        return (
            "the run was not taught visibility (losses.visibility is 0): the score of its "
            f"coordinates is {score}"
        )

    @property
    def _sees(self) -> bool:
        return self.config.losses.visibility > 0

    @property
    def input_size(self) -> int:
        """The side of the pictures that it takes, in pixels."""
        return self.best.input_size

    @cached_property
    def net(self) -> Any:
        """The Keras model, with its weights."""
        config = msgspec.structs.replace(self.config, weights="none")  # the run has its own
        net = build(config, len(self.skeleton), self.input_size)
        RunFolder(self.path).load_weights(self.best.file, net.load_weights)
        return net

    def predict(
        self,
        pictures: Views,
        flip: bool = True,
        decode: Decode = "dark",
        on_done: Callable[[int], None] | None = None,
    ) -> Predictions:
        """Keypoints in source pixels.

        Args:
            pictures: whose side is ``input_size``.
            flip: average with what is seen in the mirror image.
            decode: how a heatmap gives a place; ``udp`` needs a model with offsets.
            on_done: is told how many pictures are done.

        Raises:
            KpdataError: pictures of another size, or a decoding that the model lacks.
        """
        if pictures.side != self.input_size:
            raise KpdataError(
                f"pictures of {pictures.side} px: this model takes {self.input_size} px"
            )
        key = (flip, decode)
        if key not in self._readers:
            self._readers[key] = self.reader(flip, decode, self.best.heads)
        return read_pictures(self._readers[key], pictures, on_done)

    def reader(self, flip: bool, decode: Decode, heads: tuple[str, ...]) -> PoseReader:
        """The model with all that makes keypoints of pictures.

        Args:
            flip, decode: as in :meth:`predict`.
            heads: some of those that the run was taught.

        Raises:
            KpdataError: a head or a decoding that the model lacks.
        """
        if missing := set(heads) - set(self.best.heads):
            raise KpdataError(
                f"{self.path} was not taught {', '.join(sorted(missing))}: it has "
                f"{', '.join(self.best.heads)}"
            )
        if decode == "udp" and HEATMAP in heads and "offset" not in self.net.output:
            raise KpdataError(
                f"{self.path}: --decode udp needs offset maps, and this run was trained without "
                "them (offsets=false)"
            )
        return PoseReader(self.net, self.skeleton, heads, flip, decode, self._sees)

    @cached_property
    def _readers(self) -> dict[tuple[bool, Decode], PoseReader]:
        return {}
