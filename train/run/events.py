"""Scalars and pictures for TensorBoard, written without TensorFlow."""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from kpdata.core.sample import Pixels
from kpdata.images import codec
from kpdata.shards.tfrecord import framed
from kpdata.train.run.folder import EpochRecord


class EventLog:
    """A file of events in a folder that ``tensorboard --logdir`` shows; the first event makes it.

    TensorBoard's own writer would import TensorFlow wherever it is installed.
    """

    def __init__(self, folder: Path):
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name

    def scalars(self, row: EpochRecord) -> None:
        """Losses, validation scores, learning rate and speed of one epoch."""
        values = {f"loss/{name}": value for name, value in row.losses.items()}
        values |= {f"val_pck/{head}": value for head, value in row.scores.items()}
        values |= {f"val_pck_area/{head}": value for head, value in row.areas.items()}
        values |= {"learning_rate": row.learning_rate, "images_per_second": row.images_per_second}
        summary = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(row.epoch, summary)

    def picture(self, epoch: int, name: str, rgb: Pixels) -> None:
        """One picture (H, W, 3)."""
        height, width = rgb.shape[:2]
        encoded = codec.encode(rgb, "png")
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded
        )
        self._add(epoch, [Summary.Value(tag=name, image=image)])

    def _add(self, epoch: int, values: list[Summary.Value]) -> None:
        now = time.time()
        events = [Event(wall_time=now, step=epoch, summary=Summary(value=values))]
        if not self._path.exists():
            self._path.parent.mkdir(exist_ok=True)
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        with open(self._path, "ab") as file:
            for event in events:
                file.writelines(framed(event.SerializeToString()))
