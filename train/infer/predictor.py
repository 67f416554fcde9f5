"""A run, finished or not, as a predictor of keypoints in crops."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kpdata.core.crop import CropRule
from kpdata.core.errors import KpdataError, TrainingError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.skeleton import Skeleton
from kpdata.train.data.crops import Crops
from kpdata.train.infer.predictions import Decode, Predictions
from kpdata.train.infer.reader import PoseReader, predict_crops
from kpdata.train.models.parts import Head
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
        known = {head.name for head in config.spec.heads}
        if not set(best.heads) <= known:
            raise TrainingError(
                f"{path}: state.json is damaged: best.heads is {', '.join(best.heads)}: expected "
                f"some of {', '.join(sorted(known))}"
            )
        if not 0 <= best.phase < len(config.phases):
            raise TrainingError(
                f"{path}: state.json is damaged: best.phase is {best.phase}: expected 0 to "
                f"{len(config.phases) - 1}"
            )
        return cls(path, config, info, best)

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of the keypoints that it predicts."""
        return self.info.skeleton

    @property
    def crop_rule(self) -> CropRule:
        """The crops that it was trained on: those of its shards, where they were crops."""
        return self.info.crop_rule or CropRule(self.config.crop_from, self.config.margin)

    @property
    def trained_with_flips(self) -> bool:
        """Whether it was trained on mirror images, which the flip test needs."""
        return self.config.augment.flip > 0

    @property
    def score_note(self) -> str | None:
        """A note if scores are not the visibility; None if they are."""
        unscored = [head.name for head in self._heads(self.best.heads) if not head.scores]
        if self._with_visibility or not unscored:
            return None
        scored = [head.name for head in self._heads(self.best.heads) if head.scores]
        score = f"the {scored[0]}'s peak" if scored else "always 1"
        return (
            "the run was not trained on visibility (losses.visibility is 0): the score of its "
            f"{unscored[0]} is {score}"
        )

    @property
    def _with_visibility(self) -> bool:
        return self.config.losses.get("visibility", 0) > 0

    def _heads(self, names: tuple[str, ...]) -> tuple[Head, ...]:
        return tuple(self.config.spec.head(name) for name in names)

    @property
    def input_size(self) -> int:
        """The side of the crops that it takes, in pixels."""
        return self.best.input_size

    @cached_property
    def net(self) -> Any:
        """The Keras model, with its weights."""
        net = self.config.build(len(self.skeleton), self.input_size, loading=True)
        folder = RunFolder(self.path)
        folder.load_weights(self.best.file, net.load_weights)
        if not all(np.isfinite(weight).all() for weight in net.get_weights()):
            raise TrainingError(
                f"{folder.weights(self.best.file)}: some weights are not numbers, so that nothing "
                "can be predicted with them: train again, or take another run"
            )
        return net

    def predict(
        self,
        crops: Crops,
        flip: bool = True,
        decode: Decode = "dark",
        progress: Progress = SILENT,
    ) -> Predictions:
        """Keypoints in source pixels.

        Args:
            crops: whose side is ``input_size``.
            flip: average with what is found in the mirror image.
            decode: how a heatmap is decoded; ``udp`` needs a model with offsets.
            progress: hears how many crops are done.

        Raises:
            KpdataError: crops of another size, or a decoding that the model lacks.
        """
        if crops.side != self.input_size:
            raise KpdataError(f"crops of {crops.side} px: this model takes {self.input_size} px")
        key = (flip, decode)
        if key not in self._readers:
            self._readers[key] = self.reader(flip, decode, self.best.heads)
        return predict_crops(self._readers[key], crops, progress)

    def reader(self, flip: bool, decode: Decode, heads: tuple[str, ...]) -> PoseReader:
        """The network with the decoding of its outputs.

        Args:
            flip, decode: as in :meth:`predict`.
            heads: some of those that the run was trained on.

        Raises:
            KpdataError: a head or a decoding that the model lacks.
        """
        if missing := set(heads) - set(self.best.heads):
            raise KpdataError(
                f"head is {', '.join(sorted(missing))}: {self.path} was not trained on it, it has "
                f"{', '.join(self.best.heads)}"
            )
        chosen = self._heads(heads)
        for head in chosen:
            needed = head.needs.get(decode)
            if needed and needed not in self.net.output:
                raise KpdataError(
                    f"decode is {decode}: it needs the output {needed}, and {self.path} was "
                    "trained without"
                )
        return PoseReader(self.net, self.skeleton, chosen, flip, decode, self._with_visibility)

    @cached_property
    def _readers(self) -> dict[tuple[bool, Decode], PoseReader]:
        return {}
