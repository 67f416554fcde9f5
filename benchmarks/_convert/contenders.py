"""Who takes part: kpdata, and what is bare enough to measure it against."""

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from .dataset import Dataset
from .race import Contender, Lap

KPDATA = str(Path(sysconfig.get_path("scripts")) / "kpdata")
ONE, TENSORFLOW = "kpdata, 1 worker", "TensorFlow loop"
PINNED = "kpdata, 1 worker on 1 core"
CROP, MARGIN, QUALITY, TURN = 256, 1.25, 95, 10.0


def kpdata(workers: int, *options: str) -> Contender:
    """``kpdata convert`` with so many workers."""

    def run(dataset: Dataset, folder: Path) -> Lap:
        command = convert_command(dataset, folder / "shards", workers, *options)
        started = time.perf_counter()
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        seconds = time.perf_counter() - started
        result = json.loads(output)
        return Lap(
            sum(split["records"] for split in result["splits"].values()),
            seconds,
            result["seconds"],
            result["written_samples"] / result["images_per_second"],
        )

    return run


def on_one_core(contender: Contender) -> Contender:
    """A contender that has, with all that it starts, one core of this machine for itself."""

    def run(dataset: Dataset, folder: Path) -> Lap:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            return contender(dataset, folder)
        finally:
            os.sched_setaffinity(0, cores)

    return run


def kpdata_to_coco(dataset: Dataset, folder: Path) -> Lap:
    """``kpdata convert --to coco``, which tells no times of its own: the command's is all."""
    command = [
        KPDATA, "convert", "coco", str(dataset.annotations), "--images", str(dataset.images),
        "--to", "coco", "--out", str(folder / "coco"), "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    os.sync()
    seconds = time.perf_counter() - started
    return Lap(json.loads(output)["images"], seconds, seconds, seconds)


def convert_command(dataset: Dataset, out: Path, workers: int, *options: str) -> list[str]:
    """The command line that converts ``dataset`` into ``out``."""
    return [
        KPDATA, "convert", "coco", str(dataset.annotations), "--images", str(dataset.images),
        "--out", str(out), "--workers", str(workers), "--json", *options,
    ]  # fmt: skip


def cat(dataset: Dataset, folder: Path) -> Lap:
    """``cat`` of all files into one, synced at the end."""
    files = dataset.files()
    names = b"\0".join(os.fsencode(path) for path in files)
    started = time.perf_counter()
    with open(folder / "everything", "wb") as out:
        subprocess.run(["xargs", "-0", "cat"], input=names, stdout=out, check=True)
        unsynced = time.perf_counter() - started
        os.fsync(out.fileno())
    seconds = time.perf_counter() - started
    return Lap(len(files), seconds, seconds, seconds, unsynced)


class LoopTimes(NamedTuple):
    """What a loop measures of itself."""

    items: int
    job: float
    work: float
    unsynced: float


def alone(loop: Callable[[Dataset, Path], LoopTimes]) -> Contender:
    """A loop in a fresh Python process of its own."""

    def run(dataset: Dataset, folder: Path) -> Lap:
        started = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            times = process.submit(loop, dataset, folder).result()
        command = time.perf_counter() - started
        return Lap(times.items, command, times.job, times.work, times.unsynced)

    return run


def tensorflow_loop(dataset: Dataset, folder: Path) -> LoopTimes:
    """Read each image, wrap it in a tf.train.Example, write it by TensorFlow's TFRecordWriter."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")  # it says so otherwise
    import tensorflow as tf

    return example_loop(dataset, folder / "all.tfrecord", tf.train, tf.io.TFRecordWriter)


def unchecked_loop(dataset: Dataset, folder: Path) -> LoopTimes:
    """The same loop with kpdata's message and writer, and without anything that kpdata checks."""
    from kpdata.shards import tfrecord
    from kpdata.shards.wire import example_pb2

    def writer(path: str) -> tfrecord.Writer:
        return tfrecord.Writer(path, durable=False)

    return example_loop(dataset, folder / "all.tfrecord", example_pb2, writer)


def example_loop(dataset: Dataset, out: Path, messages: Any, open_writer: Any) -> LoopTimes:
    """Read, wrap and write every image with the given messages and writer."""
    started = time.perf_counter()
    images, annotations = dataset.read()
    began = time.perf_counter()
    with open_writer(str(out)) as writer:
        for image in images:
            data = (dataset.images / image["file_name"]).read_bytes()
            example = example_of(messages, image, annotations.get(image["id"], []), data)
            writer.write(example.SerializeToString())
    unsynced = time.perf_counter()
    sync(out)
    ended = time.perf_counter()
    return LoopTimes(len(images), ended - started, ended - began, unsynced - began)


def example_of(messages: Any, image: Any, annotations: list[dict[str, Any]], data: bytes) -> Any:
    """The Example that a simple script would write: the image, boxes and keypoints, normalised."""
    width, height = image["width"], image["height"]
    boxes = [annotation["bbox"] for annotation in annotations]
    keypoints = [annotation["keypoints"] for annotation in annotations]

    def of_bytes(value: bytes) -> Any:
        return messages.Feature(bytes_list=messages.BytesList(value=[value]))

    def floats(values: Iterable[float]) -> Any:
        return messages.Feature(float_list=messages.FloatList(value=values))

    def ints(values: Iterable[int]) -> Any:
        return messages.Feature(int64_list=messages.Int64List(value=values))

    feature = {
        "image/encoded": of_bytes(data),
        "image/format": of_bytes(b"jpeg"),
        "image/filename": of_bytes(image["file_name"].encode()),
        "image/source_id": of_bytes(str(image["id"]).encode()),
        "image/width": ints([width]),
        "image/height": ints([height]),
        "image/object/bbox/xmin": floats([x / width for x, _, _, _ in boxes]),
        "image/object/bbox/xmax": floats([(x + w) / width for x, _, w, _ in boxes]),
        "image/object/bbox/ymin": floats([y / height for _, y, _, _ in boxes]),
        "image/object/bbox/ymax": floats([(y + h) / height for _, y, _, h in boxes]),
        "image/object/keypoint/x": floats([x / width for points in keypoints for x in points[::3]]),
        "image/object/keypoint/y": floats(
            [y / height for points in keypoints for y in points[1::3]]
        ),
        "image/object/keypoint/visibility": ints([v for points in keypoints for v in points[2::3]]),
    }
    return messages.Example(features=messages.Features(feature=feature))


def opencv_loop(dataset: Dataset, folder: Path) -> LoopTimes:
    """Decode each image that shows a labelled person; warp and encode two crops of each person."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    started = time.perf_counter()
    images, annotations = dataset.read()
    began = time.perf_counter()
    pictures = 0
    with open(folder / "pictures", "wb") as out:
        for image in images:
            boxes = [a["bbox"] for a in annotations.get(image["id"], []) if is_cropped(a)]
            if not boxes:
                continue
            data = (dataset.images / image["file_name"]).read_bytes()
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            for affine in (crop_affine(box, turn) for box in boxes for turn in (0, TURN)):
                crop = cv2.warpAffine(pixels, affine, (CROP, CROP), flags=cv2.INTER_LINEAR)
                _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                out.write(encoded.tobytes())
                pictures += 1
    unsynced = time.perf_counter()
    sync(folder / "pictures")
    ended = time.perf_counter()
    return LoopTimes(pictures, ended - started, ended - began, unsynced - began)


def is_cropped(annotation: dict[str, Any]) -> bool:
    """Whether ``kpdata convert --crop`` makes a picture of the annotation."""
    return annotation["num_keypoints"] > 0 and not annotation["iscrowd"]


def crop_affine(bbox_xywh: list[float], degrees: float) -> Any:
    """(2, 3): the squared box with its margin, turned about its centre, to the picture's pixels."""
    import cv2

    x, y, width, height = bbox_xywh
    center = x + width / 2, y + height / 2
    affine = cv2.getRotationMatrix2D(center, degrees, CROP / (MARGIN * max(width, height)))
    affine[:, 2] += CROP / 2 - center[0], CROP / 2 - center[1]
    return affine


def sync(path: Path) -> None:
    """Wait until the file is on disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
