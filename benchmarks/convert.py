"""What ``kpdata convert`` costs above the physical work, measured in one run on one machine.

A folder of real COCO JPEGs is copied many times over, each copy told apart by a few bytes behind
its end marker. Every contender then handles these files in turn, round after round, from a warm
page cache into a fresh folder on the same disk, which is deleted afterwards. All end with what they
wrote on disk (fsync).

    python benchmarks/convert.py --images train2017 --annotations person_keypoints_train2017.json \
        --out benchmarks/convert.md --work /var/tmp
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import psutil

KPDATA = str(Path(sysconfig.get_path("scripts")) / "kpdata")
CROP, MARGIN, QUALITY, TURN = 256, 1.25, 95, 10.0
SOFT_SIGMA, SOFT_QUALITY = 8.0, 10
STARTS = 15
SECONDS_BETWEEN_LOOKS = 0.02
MIB = 2**20
PACKAGES = (
    "kpdata",
    "apache-beam",
    "numpy",
    "opencv-python-headless",
    "protobuf",
    "tensorflow-cpu",
)

Annotations = dict[int, list[dict[str, Any]]]


class Dataset(NamedTuple):
    """A COCO annotation file and its images' folder."""

    annotations: Path
    images: Path

    def read(self) -> tuple[list[dict[str, Any]], Annotations]:
        """The images' entries, and the annotations by image."""
        content = msgspec.json.decode(self.annotations.read_bytes())
        by_image: Annotations = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        return content["images"], by_image

    def files(self) -> list[Path]:
        """Every image."""
        images, _ = self.read()
        return [self.images / image["file_name"] for image in images]


@dataclass(frozen=True)
class Lap:
    """How long one contender took once, in seconds.

    Attributes:
        items: images, or pictures made of them.
        command: the whole process, from its start to its end.
        job: without its start-up: the annotations are read, the items written and synced.
        work: the items alone.
        unsynced: ``work`` without the last fsync, where that is known.
        cpu: of all processes together.
    """

    items: int
    command: float
    job: float
    work: float
    unsynced: float | None = None
    cpu: float = 0.0


Contender = Callable[[Dataset, Path], Lap]


class Pair(NamedTuple):
    """One contender's rate against a rival's, each by one of a lap's clocks."""

    name: str
    clock: str
    rival: str
    rival_clock: str
    target: float


@dataclass(frozen=True)
class Ratio:
    """A ratio in every round, and where it should be."""

    what: str
    values: list[float]
    target: float
    at_least: bool = True

    @property
    def median(self) -> float:
        """The middle round's."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """Whether the median meets the target."""
        return self.median >= self.target if self.at_least else self.median <= self.target

    def row(self) -> tuple[str, ...]:
        """The ratio's line of the table."""
        return (
            self.what,
            f"{'≥' if self.at_least else '≤'} {self.target:g}",
            f"**{self.median:.2f}**",
            f"{min(self.values):.2f} – {max(self.values):.2f}",
            "yes" if self.reached else "no",
        )


@dataclass(frozen=True)
class Section:
    """One part's results: a table of what was measured, and the ratios."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    ratios: list[Ratio]
    raw: dict[str, Any] = field(default_factory=dict)


def soften(data: bytes) -> bytes:
    """A JPEG of the same size in pixels, blurred until it takes a few kilobytes."""
    import cv2
    import numpy as np

    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    blurred = cv2.GaussianBlur(pixels, (0, 0), SOFT_SIGMA)
    _, encoded = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, SOFT_QUALITY])
    return bytes(encoded.tobytes())


def copy_images(source: Dataset, folder: Path, copies: int, small: bool = False) -> None:
    """Copy every image many times over into the new ``folder``; the k-th copy ends in k bytes.

    The copies' sizes differ, as sizes do in a real dataset.

    Args:
        source: the real data.
        folder: made here.
        copies: of every image.
        small: blur them until they take a few kilobytes, so that many fit on the disk.
    """
    folder.mkdir()
    for path in source.files():
        data = path.read_bytes()
        data = soften(data) if small else data
        for copy in range(copies):
            (folder / copy_name(path.name, copy)).write_bytes(data + bytes(copy))


def copy_annotations(source: Dataset, images: Path, copies: int) -> Dataset:
    """Write a COCO file for so many of the copies in ``images``, beside that folder."""
    content = msgspec.json.decode(source.annotations.read_bytes())
    replicated = {
        **content,
        "images": [
            {
                **image,
                "id": image["id"] * copies + copy,
                "file_name": copy_name(image["file_name"], copy),
            }
            for image in content["images"]
            for copy in range(copies)
        ],
        "annotations": [
            {
                **annotation,
                "id": annotation["id"] * copies + copy,
                "image_id": annotation["image_id"] * copies + copy,
            }
            for annotation in content["annotations"]
            for copy in range(copies)
        ],
    }
    path = images.with_name(f"annotations_{copies}.json")
    path.write_bytes(msgspec.json.encode(replicated))
    return Dataset(path, images)


def copy_name(name: str, copy: int) -> str:
    """The file name of an image's copy."""
    return f"{Path(name).stem}_{copy:04d}.jpg"


def race(
    contenders: dict[str, Contender], dataset: Dataset, rounds: int, work: Path
) -> dict[str, list[Lap]]:
    """Let every contender run once a round, each round beginning with another one."""
    laps: dict[str, list[Lap]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            warm_up(dataset)
            before = cpu_of_children()
            with tempfile.TemporaryDirectory(dir=work) as folder:
                lap = contenders[name](dataset, Path(folder))
            laps[name].append(replace(lap, cpu=cpu_of_children() - before))
            click.echo(f"round {number + 1}: {name}: {lap.command:.2f} s", err=True)
    check_items(laps)
    return laps


def cpu_of_children() -> float:
    """Seconds of CPU time in all processes that this one has started and seen end."""
    times = os.times()
    return times.children_user + times.children_system


def warm_up(dataset: Dataset) -> None:
    """Let the disk come to rest, and read every file into the page cache."""
    os.sync()
    for path in dataset.files():
        path.read_bytes()


def check_items(laps: dict[str, list[Lap]]) -> None:
    """Refuse to compare contenders that did not do the same amount of work."""
    items = {name: {lap.items for lap in found} for name, found in laps.items()}
    if len(set.union(*items.values())) > 1:
        raise click.ClickException(f"unequal numbers of items: {items}")


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


def convert_command(dataset: Dataset, out: Path, workers: int, *options: str) -> list[str]:
    """The command line that converts ``dataset`` into ``out``."""
    return [
        KPDATA, "convert", "coco", str(dataset.annotations), "--images", str(dataset.images),
        "--out", str(out), "--workers", str(workers), "--json", *options,
    ]  # fmt: skip


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
    from kpdata import tfrecord
    from kpdata.wire import example_pb2

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


def measure_untouched(dataset: Dataset, rounds: int, work: Path) -> Section:
    """Whole images, their bytes untouched."""
    contenders = {
        "cat": cat,
        "plain loop, TensorFlow": alone(tensorflow_loop),
        "plain loop, kpdata's writer": alone(unchecked_loop),
        "kpdata, 1 worker": kpdata(1),
        "kpdata, 2 workers": kpdata(2),
    }
    laps = race(contenders, dataset, rounds, work)
    size = sum(path.stat().st_size for path in dataset.files())
    note = (
        f"{len(dataset.files()):,} JPEGs, {size / 1e6:,.0f} MB. Rates are in images per second; "
        "every clock stops when the output is synced, but for the last column."
    )
    plain = "plain loop, TensorFlow"
    ratios = compare(
        laps,
        Pair("kpdata, 1 worker", "work", plain, "work", 0.9),
        Pair("kpdata, 1 worker", "job", plain, "job", 0.9),
        Pair("kpdata, 1 worker", "command", plain, "command", 0.9),
        Pair("kpdata, 1 worker", "command", plain, "work", 0.9),
        Pair("kpdata, 2 workers", "work", "cat", "command", 0.8),
        Pair("kpdata, 2 workers", "job", "cat", "command", 0.8),
        Pair("kpdata, 2 workers", "command", "cat", "command", 0.8),
    )
    return race_section("Untouched images", note, laps, ratios)


def measure_crops(dataset: Dataset, rounds: int, work: Path) -> Section:
    """One crop and one augmented copy of each person."""
    options = ("--crop", str(CROP), "--augment", "1", "--split", "train=100")
    bare = "bare OpenCV loop"
    contenders = {
        bare: alone(opencv_loop),
        "kpdata, 1 worker": kpdata(1, *options),
        "kpdata, 2 workers": kpdata(2, *options),
    }
    laps = race(contenders, dataset, rounds, work)
    note = (
        f"`{shlex.join(options)}`: {laps[bare][0].items:,} pictures of {CROP} × {CROP}. Rates are "
        "in pictures per second. The bare loop opens only the images that show a labelled person, "
        f"and writes JPEGs of quality {QUALITY} one behind the other."
    )
    ratios = compare(
        laps,
        *(
            Pair(f"kpdata, {workers}", clock, bare, clock, target)
            for workers, target in (("1 worker", 0.85), ("2 workers", 1.7))
            for clock in ("work", "job", "command")
        ),
    )
    return race_section("Crops with one augmented copy", note, laps, ratios)


def compare(laps: dict[str, list[Lap]], *pairs: Pair) -> list[Ratio]:
    """The pairs' ratios of rates, each taken within one round."""
    return [
        Ratio(
            f"{pair.name} ({pair.clock}) / {pair.rival} ({pair.rival_clock})",
            [
                getattr(theirs, pair.rival_clock) / getattr(ours, pair.clock)
                for ours, theirs in zip(laps[pair.name], laps[pair.rival], strict=True)
            ],
            pair.target,
        )
        for pair in pairs
    ]


def race_section(title: str, note: str, laps: dict[str, list[Lap]], ratios: list[Ratio]) -> Section:
    """A race's results: median rates by every clock."""
    columns = (
        "", "command, s", "CPU, s", "command, /s", "job, /s", "work, /s", "work unsynced, /s",
    )  # fmt: skip
    rows = [
        (
            name,
            *(f"{statistics.median(getattr(lap, key) for lap in found):.2f}" for key in _SECONDS),
            *(median_rate(found, clock) for clock in ("command", "job", "work", "unsynced")),
        )
        for name, found in laps.items()
    ]
    raw = {name: [asdict(lap) for lap in found] for name, found in laps.items()}
    return Section(title, note, columns, rows, ratios, raw)


_SECONDS = ("command", "cpu")


def median_rate(laps: list[Lap], clock: str) -> str:
    """Items per second by one clock, or a dash where it was not read."""
    rates = [lap.items / seconds for lap in laps if (seconds := getattr(lap, clock)) is not None]
    return f"{statistics.median(rates):,.0f}" if rates else "–"


def measure_memory(once: Dataset, tenfold: Dataset, rounds: int, work: Path) -> Section:
    """Peak resident memory on some images, and on ten times as many."""
    peaks: dict[str, list[Peaks]] = {}
    for _ in range(rounds):
        for dataset in (once, tenfold):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                found = peak_memory(convert_command(dataset, Path(folder) / "shards", workers=2))
            name = f"{len(dataset.files()):,} images"
            peaks.setdefault(name, []).append(found)
            click.echo(f"{name}: {found}", err=True)
    columns = ("", *(f"{process}, MiB" for process in Peaks._fields))
    rows = [
        (name, *(f"{statistics.median(values):.0f}" for values in zip(*found, strict=True)))
        for name, found in peaks.items()
    ]
    ratios = [
        Ratio(
            f"{process}, 10× / 1×",
            [ten[i] / one[i] for one, ten in zip(*peaks.values(), strict=True)],
            1.2,
            at_least=False,
        )
        for i, process in enumerate(Peaks._fields)
    ]
    note = (
        "`kpdata convert` of small JPEGs by 2 workers: the most that a process ever held (VmHWM)."
    )
    return Section("Peak memory", note, columns, rows, ratios, dict(peaks))


class Peaks(NamedTuple):
    """MiB at the peak of the first process, and of the largest of those below it."""

    driver: float
    worker: float


def peak_memory(command: list[str]) -> Peaks:
    """Run a command, and look at its processes all the while."""
    peaks: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        for pid in [driver.pid, *children_of(driver)]:
            peaks[pid] = high_water(pid) or peaks.get(pid, 0.0)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise click.ClickException(f"{shlex.join(command)} failed")
    return Peaks(peaks.pop(process.pid), max(peaks.values(), default=0.0))


def children_of(process: psutil.Process) -> list[int]:
    """The ids of all processes below this one."""
    try:
        return [child.pid for child in process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def high_water(pid: int) -> float:
    """MiB that a process has held at most; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def measure_start() -> Section:
    """Start-up of the command line against that of the library it stands on."""
    commands = {
        "kpdata --help": [KPDATA, "--help"],
        'python -c "import click"': [sys.executable, "-c", "import click"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    rows = [(f"`{name}`", f"{statistics.median(s) * 1000:.0f}") for name, s in seconds.items()]
    ratio = Ratio(
        "`kpdata --help` / `import click`",
        [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)],
        3,
        at_least=False,
    )
    note = f"Median of {STARTS} runs each, in turn."
    return Section("Start-up", note, ("", "ms"), rows, [ratio], dict(seconds))


def machine(work: Path) -> dict[str, str]:
    """What it ran on."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "disk": disk_kind(work),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def disk_kind(folder: Path) -> str:
    """The file system of ``folder``, its device, and whether that spins."""
    mounts = psutil.disk_partitions(all=True)
    holding = [m for m in mounts if folder.resolve().is_relative_to(m.mountpoint)]
    mount = max(holding, key=lambda m: len(m.mountpoint))
    device = os.stat(folder).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for queue in (block / "queue", block.parent / "queue"):
        if queue.is_dir():
            spins = (queue / "rotational").read_text().strip() == "1"
            kind = "reported as rotational" if spins else "not rotational"
            return f"{mount.fstype} on {block.name}, {kind}"
    return f"{mount.fstype}"


def commit() -> str:
    """The commit that is checked out, and whether the library differs from it."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "kpdata", "pipelines")
    return (git("rev-parse", "HEAD") or "unknown") + (", with changes" if changed else "")


def shown_command() -> str:
    """The command line, without the folders that its files lie in."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/convert.py", *words])


def as_markdown(sections: list[Section], facts: dict[str, str]) -> str:
    """The whole report."""
    parts = ["# kpdata convert: what it costs", CLOCKS, markdown_table(("", ""), facts.items())]
    for section in sections:
        parts += [f"## {section.title}", section.note]
        parts.append(markdown_table(section.columns, section.rows))
        columns = ("ratio", "target", "median", "range", "reached")
        parts.append(markdown_table(columns, (ratio.row() for ratio in section.ratios)))
    return "\n\n".join(parts) + "\n"


CLOCKS = """\
Three clocks: **command** is the whole process from its start to its end; **job** leaves out its
start-up (imports); **work** is the images alone: for kpdata the write phase with the start of its
workers, for a loop the loop. Every ratio is one of rates within one round, so more is better; it is
given as the median over the rounds and their range."""


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and the others numbers."""
    head = list(columns)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS = ("untouched", "crops", "memory", "start")


def measure(
    parts: Iterable[str], source: Dataset, copies: int, rounds: int, work: Path
) -> Iterator[Section]:
    """The sections of the parts asked for, in their order."""
    if {"untouched", "crops"} & set(parts):
        with tempfile.TemporaryDirectory(dir=work) as folder:
            copied = Path(folder) / "images"
            copy_images(source, copied, copies)
            dataset = copy_annotations(source, copied, copies)
            if "untouched" in parts:
                yield measure_untouched(dataset, rounds, work)
            if "crops" in parts:
                yield measure_crops(dataset, rounds, work)
    if "memory" in parts:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            copied = Path(folder) / "images"
            copy_images(source, copied, 10 * copies, small=True)
            both = [copy_annotations(source, copied, count) for count in (copies, 10 * copies)]
            yield measure_memory(both[0], both[1], rounds, work)
    if "start" in parts:
        yield measure_start()


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--annotations", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--copies", default=80, show_default=True, help="Of every image.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--part", "parts", multiple=True, default=PARTS, type=click.Choice(PARTS))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
@click.option("--work", required=True, type=click.Path(exists=True, path_type=Path))
def main(
    images: Path, annotations: Path, copies: int, rounds: int, parts: Iterable[str], out: Path,
    work: Path,
) -> None:  # fmt: skip
    """Measure, and write the report."""
    facts = {
        "command": f"`{shown_command()}`",
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **machine(work),
    }
    source = Dataset(annotations, images)
    sections = list(measure(parts, source, copies, rounds, work.resolve()))
    out.write_text(as_markdown(sections, facts))
    raw = {"facts": facts, "sections": [asdict(section) for section in sections]}
    out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    click.echo(out.read_text())


if __name__ == "__main__":
    main()
