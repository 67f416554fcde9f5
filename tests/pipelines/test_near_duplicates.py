"""Images that look alike share a split, whatever the seed, the order and the options."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpdata.core.progress import Progress
from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats.base import Source
from kpdata.images import codec as codec
from kpdata.pipelines.conversion import Outcome
from kpdata.pipelines.plan.file import read_plan
from kpdata.pipelines.plan.make import Plan, make_plan
from kpdata.pipelines.request import Request

Convert = Callable[..., Outcome]
MakeCoco = Callable[..., Path]

SKELETON = Skeleton("dot", ("dot",))
DISTANCE = 56
PHOTOS, VARIANTS = 12, 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``N-V.jpg``: twelve photos in three variants each, and a file that is no image."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        noise = rng.integers(0, 200, (12, 16, 3), np.uint8)
        photo = cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)
        small = cv2.resize(photo, (80, 60), interpolation=cv2.INTER_AREA)
        bright = np.clip(photo * 1.2, 0, 255).astype(np.uint8)
        for variant, pixels in enumerate((photo, small, bright)):
            path = folder / f"{number}-{variant}.jpg"
            path.write_bytes(codec.encode(np.asarray(pixels, np.uint8), "jpeg", 95 - 20 * variant))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


def references(names: Sequence[str]) -> list[Sample]:
    dot = Instance(np.array([[1, 2, 2]], np.float32))
    return [Sample(name, ImageRef(name), (dot,)) for name in names]


NAMES = [f"{number}-{variant}.jpg" for number in range(PHOTOS) for variant in range(VARIANTS)]


def plan_of(
    pictures: Path,
    folder: Path,
    names: Sequence[str] = NAMES,
    seed: int = 0,
    progress: Progress | None = None,
    groups: dict[str, str] | None = None,
) -> Plan:
    samples = (replace(one, group=(groups or {}).get(one.key)) for one in references(names))
    request = Request(
        skeleton=SKELETON, images_root=str(pictures), split="50/25/25", seed=seed,
        group_near_duplicates=DISTANCE,
    )  # fmt: skip
    source = Source(SKELETON, samples, pictures, (), Counter(), True)
    return make_plan(source, request, folder, progress or Progress())


def samples_of(plan: Plan) -> dict[str, tuple[str, str]]:
    """Key → split and group."""
    return {
        sample.key: (shard.split, sample.group or sample.key)
        for shard in plan.shards
        for sample, _ in read_plan(plan.folder / f"{shard.name}.plan")[1]
    }


@given(seed=st.integers(0, 2**62), order=st.permutations(NAMES))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_variants_of_a_photo_share_a_split_for_any_seed_and_order(
    pictures: Path, tmp_path: Path, seed: int, order: list[str]
) -> None:
    plan = plan_of(pictures, tmp_path / "plan", order, seed)
    assert plan.counts["near-duplicate images grouped"] == PHOTOS * (VARIANTS - 1)
    found = samples_of(plan)
    assert len(found) == len(NAMES)
    for number in range(PHOTOS):
        (same,) = {found[f"{number}-{variant}.jpg"] for variant in range(VARIANTS)}
        assert same[1] == f"{number}-0.jpg"
    assert len({group for _, group in found.values()}) == PHOTOS


def test_without_it_the_variants_are_torn_apart(pictures: Path, tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    plan = make_plan(
        Source(SKELETON, iter(references(NAMES)), pictures, (), Counter(), True),
        Request(skeleton=SKELETON, images_root=str(pictures), split="50/25/25"), tmp_path / "plan",
    )  # fmt: skip
    found = samples_of(plan)
    splits = [{found[f"{n}-{v}.jpg"][0] for v in range(VARIANTS)} for n in range(PHOTOS)]
    assert any(len(names) > 1 for names in splits)


def test_groups_that_look_alike_are_joined_whole(pictures: Path, tmp_path: Path) -> None:
    """A photo's video follows it; images that were in one group already are not counted."""
    videos = {"0-0.jpg": "v1", "1-0.jpg": "v1", "0-1.jpg": "v2", "2-0.jpg": "v2", "0-2.jpg": "v2"}
    plan = plan_of(pictures, tmp_path / "plan", list(videos), groups=videos)
    assert plan.counts["near-duplicate images grouped"] == 1
    assert {group for _, group in samples_of(plan).values()} == {"v1"}


def test_an_image_that_does_not_decode_is_left_to_the_writer(
    pictures: Path, tmp_path: Path
) -> None:
    plan = plan_of(pictures, tmp_path / "plan", ["broken.jpg", "3-0.jpg", "3-1.jpg"])
    found = samples_of(plan)
    assert found["broken.jpg"][1] == "broken.jpg"
    assert found["3-0.jpg"] == found["3-1.jpg"]


def test_the_progress_hears_of_every_image(pictures: Path, tmp_path: Path) -> None:
    class Count(Progress):
        def __init__(self) -> None:
            self.steps: dict[str, list[int]] = {}

        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            self.steps[step] = [total or 0]

        def advance(self, count: int = 1) -> None:
            self.steps[list(self.steps)[-1]].append(count)

    count = Count()
    plan_of(pictures, tmp_path / "plan", [*NAMES, "broken.jpg"], progress=count)
    assert sum(count.steps["hashing"][1:]) == count.steps["hashing"][0] == len(NAMES) + 1
    assert sum(count.steps["comparing"][1:]) == count.steps["comparing"][0] <= len(NAMES)


def test_a_conversion_resumes_and_repeats_with_it(
    convert_to: Convert, make_coco: MakeCoco, tmp_path: Path
) -> None:
    source = make_coco(tmp_path / "source", 20)
    first = convert_to(tmp_path / "a", source, group_near_duplicates=DISTANCE)
    again = convert_to(tmp_path / "a", source, group_near_duplicates=DISTANCE)
    assert again.unchanged
    assert again.manifest == first.manifest
    other = convert_to(tmp_path / "b", source, group_near_duplicates=DISTANCE, workers=2)
    assert other.manifest.root_hash == first.manifest.root_hash
    assert first.manifest.root_hash != convert_to(tmp_path / "c", source).manifest.root_hash
    assert first.manifest.options["group_near_duplicates"] == DISTANCE
