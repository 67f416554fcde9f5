"""Scalars and pictures for TensorBoard, written without TensorFlow."""

from pathlib import Path
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kpdata import images
from kpdata.images import Pixels
from kpdata.train.run_folder import Row


class EventLog:
    """Appends to a folder that ``tensorboard --logdir`` shows; makes it with the first entry."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def scalars(self, row: Row) -> None:
        """Losses, validation scores, learning rate and speed of one epoch."""
        values = {f"loss/{name}": value for name, value in row.losses.items()}
        values |= {f"val_pck/{head}": value for head, value in row.scores.items()}
        values |= {"learning_rate": row.learning_rate, "images_per_second": row.images_per_second}
        summary = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(row.epoch, summary)

    def picture(self, epoch: int, name: str, rgb: Pixels) -> None:
        """One picture (H, W, 3)."""
        height, width = rgb.shape[:2]
        encoded = images.encode(rgb, "png")
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded
        )
        self._add(epoch, [Summary.Value(tag=name, image=image)])

    def _add(self, epoch: int, values: list[Summary.Value]) -> None:
        self._writer = self._writer or EventFileWriter(str(self._folder))
        self._writer.add_event(Event(step=epoch, summary=Summary(value=values)))
        self._writer.flush()
