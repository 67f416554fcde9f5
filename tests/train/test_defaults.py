"""What a configuration without a recipe looks at."""

from dataclasses import replace

import pytest

from kpdata import formats
from kpdata.core.progress import SILENT
from kpdata.core.sample import Sample
from kpdata.pipelines import Request, convert
from kpdata.shards.dataset import Dataset
from kpdata.train.run.defaults import default_config


@pytest.mark.parametrize(("is_boxed", "crop_from"), [(False, "bbox"), (True, "image")])
def test_most_instances_decide_what_is_cropped_around(tiny_coco, tmp_path, is_boxed, crop_from):
    """The first record alone is, or is not, boxed."""
    source = formats.read("coco", tiny_coco / "annotations.json")
    samples = list(source.samples)
    request = Request.of(source, format="coco", split="100/0/0", shards=1)

    def converted(name: str, some: list[Sample]) -> Dataset:
        convert(replace(source, samples=some), request, tmp_path / name, SILENT)
        return Dataset.open(tmp_path / name)

    first = next(s for s in converted("boxed", samples)["train"] if s.instances).key
    changed = [
        s if (s.key == first) == is_boxed
        else replace(s, instances=tuple(replace(i, bbox_xyxy=None) for i in s.instances))
        for s in samples
    ]  # fmt: skip
    assert default_config(converted("some", changed), "blazepose").crop_from == crop_from
