"""Everything that reads what somebody else may have written, each with its seeds and mutator.

A target's ``check`` returns when the input is accepted, and raises KpdataError when it is refused;
whatever else it does is a finding.
"""

import os
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import mutate
import seeds
from mutate import Mutator

from kpdata import formats
from kpdata.checks import verify
from kpdata.core.errors import KpdataError
from kpdata.core.sample import Rejected, Sample
from kpdata.core.skeletons import LSP14
from kpdata.formats.base import Source
from kpdata.formats.settings import load_skeleton
from kpdata.formats.yolo.read import label_name
from kpdata.images import codec
from kpdata.images.headers import probe
from kpdata.shards import manifest, records, tfds, tfrecord
from kpdata.shards.dataset import Dataset
from kpdata.train.models.tflite_file import read_convolutions

Check = Callable[[bytes], object]

_MOST_PICTURES = 8


@dataclass(frozen=True)
class Target:
    """One reader under attack.

    Attributes:
        seeds: makes the valid inputs.
        mutate: makes hostile ones of them.
        prepare: takes an empty folder and gives the check.
        share: how many inputs it gets, of all targets' together.
    """

    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutator
    prepare: Callable[[Path], Check]
    share: float


def _drain(source: Source) -> None:
    for _ in source.samples:
        pass


def _mat(name: str, folder: Path) -> Check:
    (folder / "images").mkdir()
    path = folder / "annotations.mat"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _drain(formats.read(name, path))

    return check


def _coco(folder: Path) -> Check:
    (folder / "images").mkdir()
    path = folder / "annotations.json"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        category = "person" if len(data) % 2 else None
        _drain(formats.read("coco", path, images=folder / "images", category=category))

    return check


def _yolo(attacked: str, folder: Path) -> Check:
    """The input is data.yaml, or the labels of the one image."""
    name = seeds.YOLO_IMAGE
    files = {
        name: seeds.pictures()[0],
        label_name(name): seeds.yolo_labels()[0],
        "data.yaml": seeds.yolo_data()[0],
    }
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    path = folder / (attacked if attacked in files else label_name(name))

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = list(formats.read("yolo", folder / "data.yaml").samples)
        if any(isinstance(one, Rejected) for one in found):
            raise KpdataError("an image is left out")

    return check


def _deeplabcut(attacked: str, folder: Path) -> Check:
    """The input is config.yaml, or the labels of the one video."""
    labels = "labeled-data/walk/CollectedData_me.csv"
    files = {labels: seeds.deeplabcut_labels()[0], "config.yaml": seeds.deeplabcut_config()[0]}
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    path = folder / (attacked if attacked in files else labels)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = list(formats.read("deeplabcut", folder).samples)
        if any(isinstance(one, Rejected) for one in found):
            raise KpdataError("an image is left out")

    return check


def _per_image(style: str, folder: Path) -> Check:
    """The input is the first of two files, so that it decides the style and the skeleton."""
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(b"")
    (folder / "b.json").write_bytes(seeds.per_image(style)[0])
    known = None if style in ("named", "labelme") else seeds.SKELETON

    def check(data: bytes) -> None:
        (folder / "a.json").write_bytes(data)
        if style == "labelme":
            _drain(formats.read("labelme", folder, skeleton=known))
            return
        given = style if len(data) % 2 else None
        _drain(formats.read("json", folder, skeleton=known, style=given))

    return check


def _file(name: str, read: Callable[[Path], object], folder: Path) -> Check:
    path = folder / name

    def check(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return check


def _skeleton(path: Path) -> None:
    skeleton = load_skeleton(path)
    assert len(skeleton.flip_index) == len(skeleton)
    assert skeleton.edge_index.shape == (len(skeleton.edges), 2)


def _augmentation(path: Path) -> None:
    from kpdata.formats.settings import load_config

    load_config(path)


def _record(folder: Path) -> Check:
    return lambda data: records.decode(data, len(seeds.SKELETON))


def _tfrecord(path: Path) -> None:
    for _ in tfrecord.read(path):
        pass


def _manifest(path: Path) -> None:
    found = manifest.read_manifest(path.parent)
    tfds.metadata(found)
    for split in found.splits:
        len(Dataset(path.parent, found)[split])


def _inspect(path: Path) -> None:
    from kpdata.cli.inspect import show

    dataset = Dataset.open(path.parent)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        show(dataset.manifest, path.parent)


_ROOT = re.compile(rb'("root_hash":\s*)"[^"]*"')


def _resealed(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A changed manifest, mostly with the root hash that fits."""
    changed = mutate.json_text(rng, data, others)
    if rng.random() < 0.8:
        try:
            found = msgspec.json.decode(changed, type=manifest.Manifest)
            root = manifest.compute_root_hash(found)
        except (msgspec.MsgspecError, ValueError, KpdataError, RecursionError):
            return changed
        changed = _ROOT.sub(rb'\1"' + root.encode() + b'"', changed)
    return changed


def _forged(folder: Path) -> Check:
    """A shard, in a folder whose manifest fits it in length, hash and root hash; or not.

    Then everything that reads shard folders has a go.
    """
    sound = seeds.shards()[0]
    (folder / manifest.QUARANTINE).touch()

    def check(data: bytes) -> None:
        (folder / seeds.SHARD).write_bytes(data)
        described = data if len(data) % 4 else sound
        try:
            count = len(mutate.unframe(data))
        except struct.error:  # an odd end
            count = 4
        sealed = seeds.manifest_of(described, count)
        (folder / manifest.MANIFEST).write_bytes(msgspec.json.encode(sealed))
        for name, content in tfds.metadata(sealed).items():
            (folder / name).write_bytes(content)
        refused = [each for each in (_iterate, _convert, _learn) if not _accepts(each, folder)]
        faults = verify.verify(folder)[1]
        if data != described:
            assert len(refused) == 3, "wrong data in silence"
            assert any(seeds.SHARD in fault for fault in faults), "verify says nothing"
        if refused or faults:
            raise KpdataError(f"refused by {refused}, {faults}")

    return check


def _accepts(read: Callable[[Path], object], folder: Path) -> bool:
    try:
        read(folder)
    except KpdataError:
        return False
    return True


def _iterate(folder: Path) -> None:
    dataset = Dataset.open(folder)
    for number, sample in enumerate(dataset["train"]):
        if number < _MOST_PICTURES:
            _shown(sample)


def _shown(sample: Sample) -> None:
    seen = codec.decode_stored(sample.image)
    assert seen.shape == (sample.image.height, sample.image.width, 3), "not what the record states"


def _convert(folder: Path) -> None:
    _drain(formats.read("shards", folder))


def _learn(folder: Path) -> None:
    from kpdata.train.data.crops import CropRule, load

    load(Dataset.open(folder), "train", CropRule("keypoints"), 16, memory=1 << 20)


def _header(folder: Path) -> Check:
    return probe


def _picture(folder: Path) -> Check:
    def check(data: bytes) -> None:
        header = probe(data)
        if header.storable:
            seen = codec.decode(data)
            assert seen.shape == (header.height, header.width, 3), "not what the header states"
        seen = codec.decode_upright(data, header)
        assert seen.shape[1::-1] == header.upright_size, "not what the header states"

    return check


def _boxes(path: Path) -> None:
    from kpdata.train.infer.boxes import read_boxes

    read_boxes(path, {"1.jpg": 1, "sub/2.jpg": 2})


def _predictions(path: Path) -> None:
    from kpdata.train.infer.predictions import read_predictions

    read_predictions(path)


def _truth(path: Path) -> None:
    from kpdata.train.infer.predictions import read_truth

    truth = read_truth(path)
    truth.poses(LSP14 if len(truth.keypoints[0]) == 14 else seeds.SKELETON, truth.keypoints)


def _evaluation(path: Path) -> None:
    from kpdata.train.evaluate.report import read_report

    assert read_report(path).by_keypoint


def _run(part: str, path: Path) -> None:
    from kpdata.train.run.folder import RunFolder

    getattr(RunFolder(path.parent), part)()


def _plan(path: Path) -> None:
    from kpdata.pipelines.plan.file import read_plan

    _, samples = read_plan(path)
    for _ in samples:
        pass


def _shard_report(folder: Path) -> Check:
    """As a conversion finds it that takes up a stopped one."""
    from collections import Counter

    from blake3 import blake3

    from kpdata.pipelines.conversion import _reports
    from kpdata.pipelines.output.local import Workspace
    from kpdata.pipelines.plan.make import Plan, ShardPlan
    from kpdata.pipelines.seal import _sizes, _splits

    (folder / seeds.SHARD).write_bytes(seeds.shards()[0])
    workspace = Workspace(folder)
    workspace.start()
    plan = ShardPlan(seeds.SHARD, "train", 4, "0" * 64)
    whole = Plan(workspace.plan_folder, (plan,), Counter(), Counter(), "", ())

    def check(data: bytes) -> None:
        digest = blake3(data).hexdigest().encode()  # made to fit again
        workspace.report_path(seeds.SHARD).write_bytes(b"%b\n%b\n" % (data, digest))
        found = _reports(workspace, whole)
        if not found:
            raise KpdataError("left out: the shard is written anew")
        _splits(whole, found)
        _sizes(found.values())

    return check


def _quarantine(path: Path) -> None:
    if verify._quarantine_digest(path) is None:
        raise KpdataError("verify reports it as changed")


TARGETS: dict[str, Target] = {
    "lsp-mat": Target(partial(seeds.matlab, "lsp"), mutate.matlab, partial(_mat, "lsp"), 4),
    "lspet-mat": Target(partial(seeds.matlab, "lspet"), mutate.matlab, partial(_mat, "lspet"), 4),
    "mpii-mat": Target(seeds.mpii, mutate.matlab, partial(_mat, "mpii"), 4),
    "coco-json": Target(seeds.coco, mutate.json_text, _coco, 4),
    **{
        f"json-{style}": Target(
            partial(seeds.per_image, style), mutate.json_text, partial(_per_image, style), 2
        )
        for style in ("list", "torchvision", "named", "labelme")
    },
    "recognise-json": Target(
        seeds.coco, mutate.json_text, partial(_file, "a", formats.recognise), 2
    ),
    "recognise-csv": Target(
        seeds.deeplabcut_labels, mutate.csv_text, partial(_file, "a.csv", formats.recognise), 2
    ),
    "recognise-mat": Target(
        partial(seeds.matlab, "lsp"), mutate.matlab, partial(_file, "a", formats.recognise), 2
    ),
    "yolo-data": Target(seeds.yolo_data, mutate.plain, partial(_yolo, "data.yaml"), 2),
    "yolo-labels": Target(seeds.yolo_labels, mutate.plain, partial(_yolo, "labels"), 3),
    "deeplabcut-config": Target(
        seeds.deeplabcut_config, mutate.plain, partial(_deeplabcut, "config.yaml"), 2
    ),
    "deeplabcut-labels": Target(
        seeds.deeplabcut_labels, mutate.csv_text, partial(_deeplabcut, "labels"), 3
    ),
    "skeleton-json": Target(
        seeds.skeletons, mutate.json_text, partial(_file, "skeleton.json", _skeleton), 14
    ),
    "augment-toml": Target(
        seeds.augmentations, mutate.plain, partial(_file, "augment.toml", _augmentation), 8
    ),
    "record": Target(seeds.payloads, mutate.record, _record, 14),
    "tfrecord": Target(
        seeds.shards, mutate.framed(mutate.plain), partial(_file, "a.tfrecord", _tfrecord), 20
    ),
    "manifest": Target(
        seeds.manifests, _resealed, partial(_file, manifest.MANIFEST, _manifest), 10
    ),
    "inspect": Target(seeds.manifests, _resealed, partial(_file, manifest.MANIFEST, _inspect), 0.5),
    "shards": Target(seeds.shards, mutate.framed(mutate.record), _forged, 1.5),
    "quarantine": Target(
        seeds.quarantines, mutate.json_lines, partial(_file, "quarantine.jsonl", _quarantine), 6
    ),
    "image-header": Target(seeds.pictures, mutate.picture, _header, 16),
    "image": Target(seeds.pictures, mutate.picture, _picture, 6),
    "boxes": Target(seeds.boxes, mutate.json_text, partial(_file, "boxes.json", _boxes), 4),
    "predictions": Target(
        seeds.predictions, mutate.json_lines, partial(_file, "predictions.jsonl", _predictions), 4
    ),
    "truth": Target(seeds.truths, mutate.json_lines, partial(_file, "truth.jsonl", _truth), 4),
    "evaluation": Target(
        seeds.evaluations, mutate.json_text, partial(_file, "metrics.json", _evaluation), 3
    ),
    **{
        f"run-{part}": Target(
            lambda part=part: (seeds.runs()[part],),
            mutate.json_text,
            partial(_file, f"{part}.json", partial(_run, method)),
            2,
        )
        for part, method in (("config", "config"), ("dataset", "info"), ("state", "state"))
    },
    "plan": Target(
        seeds.plans, mutate.framed(mutate.json_or_plain), partial(_file, "a.plan", _plan), 3
    ),
    "tflite": Target(seeds.tflites, mutate.plain, partial(_file, "a.tflite", read_convolutions), 2),
    "shard-report": Target(seeds.shard_reports, mutate.json_text, _shard_report, 3),
}
