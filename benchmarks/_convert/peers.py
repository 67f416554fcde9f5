"""What a user might take in kpdata's place, and what installs beside it: Beam's sink, and TFDS."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from .contenders import CROP, QUALITY, LoopTimes, example_of
from .dataset import Dataset

SHARDS = 8

Item = tuple[str, dict[str, Any], list[dict[str, Any]]]


def items_of(dataset: Dataset) -> list[Item]:
    """Path, entry and annotations of every image."""
    images, annotations = dataset.read()
    return [
        (str(dataset.images / image["file_name"]), image, annotations.get(image["id"], []))
        for image in images
    ]


def untouched(item: Item) -> bytes:
    """An Example with the file's own bytes."""
    from kpdata.shards.wire import example_pb2

    path, image, annotations = item
    data = Path(path).read_bytes()
    return example_of(example_pb2, image, annotations, data).SerializeToString()


def resized(item: Item) -> bytes:
    """An Example with the image as a square with borders, the labels moved along."""
    from kpdata.shards.wire import example_pb2

    path, image, annotations = item
    data, scale = resize(Path(path).read_bytes())
    side = {**image, "width": CROP, "height": CROP}
    moved = [
        {
            "bbox": [value * scale for value in annotation["bbox"]],
            "keypoints": [
                value if place % 3 == 2 else value * scale
                for place, value in enumerate(annotation["keypoints"])
            ],
        }
        for annotation in annotations
    ]
    return example_of(example_pb2, side, moved, data).SerializeToString()


def resize(data: bytes) -> tuple[bytes, float]:
    """A JPEG whose longer side is CROP, filled up to a square, and what it was scaled by."""
    import cv2
    import numpy as np

    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    height, width = pixels.shape[:2]
    scale = CROP / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    square = cv2.copyMakeBorder(
        small, 0, CROP - size[1], 0, CROP - size[0], cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    _, encoded = cv2.imencode(".jpg", square, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes(), scale


def resize_loop(dataset: Dataset, folder: Path) -> LoopTimes:
    """Resize every image in a plain loop, and write it by TensorFlow's TFRecordWriter."""
    import cv2
    import tensorflow as tf

    cv2.setNumThreads(1)
    started = time.perf_counter()
    items = items_of(dataset)
    began = time.perf_counter()
    with tf.io.TFRecordWriter(str(folder / "all.tfrecord")) as writer:
        for item in items:
            writer.write(resized(item))
    return _synced(len(items), started, began)


def beam_untouched(dataset: Dataset, folder: Path) -> LoopTimes:
    """Beam's own sink behind images that keep their bytes."""
    return _beam(untouched, dataset, folder)


def beam_resized(dataset: Dataset, folder: Path) -> LoopTimes:
    """Beam's own sink behind a resize."""
    return _beam(resized, dataset, folder)


def _beam(make: Callable[[Item], bytes], dataset: Dataset, folder: Path) -> LoopTimes:
    import apache_beam as beam
    import cv2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    cv2.setNumThreads(1)
    started = time.perf_counter()
    items = items_of(dataset)
    began = time.perf_counter()
    with beam.Pipeline(FnApiRunner()) as pipeline:
        (
            pipeline
            | beam.Create(items)
            | beam.Reshuffle()
            | beam.Map(make)
            | beam.io.WriteToTFRecord(str(folder / "part"), num_shards=SHARDS)
        )
    return _synced(len(items), started, began)


def tfds_generator(dataset: Dataset, folder: Path) -> LoopTimes:
    """TFDS's ``download_and_prepare`` of a dataset whose examples come from a generator."""
    return _tfds(dataset, folder, lambda items: map(tfds_example, items))


def tfds_beam(dataset: Dataset, folder: Path) -> LoopTimes:
    """The same, with the examples from a Beam pipeline and its writer."""
    import apache_beam as beam

    return _tfds(dataset, folder, lambda items: beam.Create(items) | beam.Map(tfds_example))


def tfds_example(item: Item) -> tuple[str, dict[str, Any]]:
    """An example's key and features; TFDS reads the image by its path, and keeps its bytes."""
    import numpy as np
    import tensorflow_datasets as tfds

    path, image, annotations = item
    width, height = image["width"], image["height"]
    objects = [
        {
            "bbox": tfds.features.BBox(
                *np.clip([y / height, x / width, (y + h) / height, (x + w) / width], 0, 1).tolist()
            ),
            "keypoints": np.float32(annotation["keypoints"]).reshape(-1, 3),
        }
        for annotation in annotations
        for x, y, w, h in [annotation["bbox"]]
    ]
    return str(image["id"]), {"image": path, "filename": image["file_name"], "objects": objects}


def _tfds(
    dataset: Dataset, folder: Path, examples: Callable[[list[Item]], Iterable[Any]]
) -> LoopTimes:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
    import apache_beam as beam
    import numpy as np
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    started = time.perf_counter()
    items = items_of(dataset)

    class People(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        """Images with people."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder
        url_infos: ClassVar = {}  # or it looks for them by a package that it does not install

        def _info(self) -> Any:
            keypoints = tfds.features.Tensor(shape=(17, 3), dtype=np.float32)
            objects = {"bbox": tfds.features.BBoxFeature(), "keypoints": keypoints}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(encoding_format="jpeg"),
                        "filename": tfds.features.Text(),
                        "objects": tfds.features.Sequence(objects),
                    }
                )
            )

        def _split_generators(self, _: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[Any]:
            return examples(items)  # type: ignore[return-value]

    began = time.perf_counter()
    builder = People(data_dir=str(folder))
    options = beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner"])
    config = tfds.download.DownloadConfig(beam_options=options)
    builder.download_and_prepare(download_config=config, file_format="tfrecord")
    return _synced(builder.info.splits["train"].num_examples, started, began)


def _synced(items: int, started: float, began: float) -> LoopTimes:
    unsynced = time.perf_counter()
    os.sync()
    ended = time.perf_counter()
    return LoopTimes(items, ended - started, ended - began, unsynced - began)
