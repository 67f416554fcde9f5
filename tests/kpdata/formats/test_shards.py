import shutil
from dataclasses import replace

import numpy as np
import pytest

from kpdata import formats
from kpdata.core.sample import Rejected, Sample
from kpdata.shards import records, tfrecord
from kpdata.shards.dataset import Dataset


def far_keypoint(instance):
    keypoints = instance.keypoints.copy()
    keypoints[3] = (-1.2e7, 5, 2)
    return replace(instance, keypoints=keypoints)


def far_box(instance):
    return replace(instance, bbox_xyxy=np.array([0, 0, 1, 1.2e7], np.float32))


@pytest.mark.parametrize(
    ("spoil", "reason", "detail"),
    [
        (far_keypoint, "bad keypoints", "keypoints at -1.2e+07: expected numbers within 1e+07"),
        (far_box, "bad box", "box at 1.2e+07: expected numbers within 1e+07 pixels"),
        (lambda i: replace(i, area=1.1e14), "bad area", "area of 1.1e+14: expected at most 1e+14"),
    ],
)
def test_numbers_that_no_picture_has_reject_their_record_alone(
    tiny_shards, tmp_path, spoil, reason, detail, reseal
):
    shutil.copytree(tiny_shards, tmp_path / "shards")
    dataset = Dataset.open(tmp_path / "shards")
    shard = dataset.manifest.splits["test"].shards[0]
    samples = [sample for _, sample in dataset.read_shard(shard)]
    samples[0] = replace(samples[0], instances=tuple(map(spoil, samples[0].instances)))
    with tfrecord.Writer(dataset.shard_path(shard)) as writer:
        for sample in samples:
            writer.write(records.encode(sample))
    reseal(tmp_path / "shards")
    found = list(formats.read("shards", tmp_path / "shards").samples)
    (bad,) = [item for item in found if isinstance(item, Rejected)]
    assert (bad.key, bad.reason) == (samples[0].key, reason)
    assert bad.detail.startswith(f"{dataset.shard_path(shard)}: record at byte 0: {detail}")
    assert sum(isinstance(item, Sample) for item in found) == 11
