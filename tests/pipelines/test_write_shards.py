"""WriteShards: a conversion's shards written inside a Beam pipeline of a user's own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that

from kpdata import formats
from kpdata.checks.verify import verify
from kpdata.core.errors import JobError
from kpdata.formats.base import Source
from kpdata.pipelines import Conversion, Request, WriteShards, convert

OPTIONS = {"crop": 48, "augment": 1, "shards": 5, "seed": 3}


@pytest.fixture(scope="module")
def coco(make_coco: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small images. Never write into their folder."""
    return make_coco(tmp_path_factory.mktemp("coco"), 40)


def read(coco: Path) -> tuple[Source, Request]:
    source = formats.read("coco", coco)
    return source, Request.of(source, format="coco", **OPTIONS)


@pytest.mark.parametrize("runner", ["FnApiRunner", "DirectRunner", "BundleBasedDirectRunner"])
def test_a_pipeline_of_ones_own_gives_the_same_dataset(
    coco: Path, tmp_path: Path, runner: str
) -> None:
    alone = convert(*read(coco), tmp_path / "alone")

    def every_shard_is_reported(reports: list[object]) -> None:
        assert sorted(report.shard.name for report in reports) == sorted(names)  # type: ignore[attr-defined]

    with Conversion.plan(*read(coco), str(tmp_path / "out")) as conversion:
        names = conversion.shards
        assert len(names) == 5
        with beam.Pipeline(options=PipelineOptions([f"--runner={runner}"])) as pipeline:
            reports = pipeline | WriteShards(conversion)
            assert_that(reports, every_shard_is_reported)
            _ = pipeline | "beside it" >> beam.Create([1, 2]) | beam.Map(lambda number: number)
        outcome = conversion.seal()
    assert outcome.manifest.root_hash == alone.manifest.root_hash
    assert outcome.written_samples == 40
    assert verify(tmp_path / "out")[1] == []
    assert not (tmp_path / "out/.kpdata").exists()


def test_a_conversion_that_is_not_sealed_keeps_its_shards_for_the_next(
    coco: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Conversion.plan(*read(coco), out) as conversion:
        conversion.write_function()(conversion.shards[0])
        with pytest.raises(JobError, match="4 of 5 shards were not written"):
            conversion.seal()
    assert (out / conversion.shards[0]).exists()
    with Conversion.plan(*read(coco), out) as again:
        assert again.shards == conversion.shards[1:]
    outcome = convert(*read(coco), out)
    assert outcome.kept_samples > 0
    assert outcome.manifest.root_hash == convert(*read(coco), tmp_path / "b").manifest.root_hash


def test_a_conversion_that_writes_nothing_leaves_no_folder(coco: Path, tmp_path: Path) -> None:
    with Conversion.plan(*read(coco), tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_a_finished_dataset_has_nothing_to_write(coco: Path, tmp_path: Path) -> None:
    convert(*read(coco), tmp_path / "out")
    with Conversion.plan(*read(coco), tmp_path / "out") as conversion:
        assert conversion.shards == ()
        with beam.Pipeline() as pipeline:
            _ = pipeline | WriteShards(conversion)
        assert conversion.seal().unchanged


def test_beam_is_imported_with_write_shards_and_not_before() -> None:
    program = (
        "import sys\n"
        "from kpdata.pipelines import Conversion, Request, convert\n"
        "assert callable(convert)\n"
        "assert 'apache_beam' not in sys.modules\n"
        "from kpdata.pipelines import WriteShards\n"
        "assert 'apache_beam' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
