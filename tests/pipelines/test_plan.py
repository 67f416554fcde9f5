"""Planning: which reference goes into which shard of which split, and which are refused."""

import json
import math
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kpdata.core.augment import AugmentConfig
from kpdata.core.errors import FormatError, JobError
from kpdata.core.mapping import map_by_name
from kpdata.core.sample import ImageRef, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.splits import Splits, stable_hash
from kpdata.formats.base import Source
from kpdata.pipelines.plan.file import PlanHeader, read_plan
from kpdata.pipelines.plan.make import REJECTED, Plan, make_plan
from kpdata.pipelines.plan.references import References
from kpdata.pipelines.request import Request
from kpdata.shards.manifest import software
from kpdata.storage.image_files import stamp

SKELETON = Skeleton("dot", ("left_dot", "right_dot"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An empty images folder; planning opens no picture, so any bytes will do."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def add(
    images: Path,
    name: str,
    data: bytes | None = None,
    split: str | None = None,
    group: str | None = None,
) -> Sample:
    """A sample whose image file holds ``data``, by default bytes of its own."""
    path = images / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() if data is None else data)
    return refer(name, split, group)


def refer(name: str, split: str | None = None, group: str | None = None) -> Sample:
    instance = Instance(np.array([[1, 2, 2], [3, 4, 1]], np.float32))
    return Sample(name, ImageRef(name), (instance,), split, group)


def plan_of(
    images: Path,
    samples: Sequence[Sample | Rejected],
    split: str = "80/10/10",
    *,
    folder: str = "plan",
    groups_from_names: bool = False,
    request: Request | None = None,
    **options: Any,
) -> Plan:
    source = Source(
        SKELETON, iter(samples), images, (Path("labels.json"),), Counter(), True, groups_from_names
    )
    request = request or Request(skeleton=SKELETON, images_root=str(images))
    asked = msgspec.structs.replace(request, split=split, **options)
    return make_plan(source, asked, images.parent / folder)


def keys_by_split(plan: Plan) -> dict[str, list[str]]:
    """Split → the keys in it, in the order in which its shards hold them."""
    keys: dict[str, list[str]] = {}
    for shard in plan.shards:
        _, found = read_plan(plan.folder / f"{shard.name}.plan")
        keys.setdefault(shard.split, []).extend(sample.key for sample, _ in found)
    return keys


def split_by_key(plan: Plan) -> dict[str, str]:
    return {key: split for split, keys in keys_by_split(plan).items() for key in keys}


def rejected(plan: Plan) -> list[dict[str, str]]:
    return [json.loads(line) for line in (plan.folder / REJECTED).read_text().splitlines()]


def numbered(images: Path, count: int, split: str | None = None) -> list[Sample]:
    return [add(images, f"{number:04}.jpg", split=split) for number in range(count)]


def test_each_split_lies_in_the_order_of_its_keys_hashes_across_its_shards(images: Path) -> None:
    plan = plan_of(images, numbered(images, 200), shards=10)
    keys = keys_by_split(plan)
    assert sum(map(len, keys.values())) == plan.samples == 200
    for found in keys.values():
        assert found == sorted(found, key=lambda key: stable_hash(key) >> 1)
        assert found != sorted(found)


def test_a_plan_does_not_depend_on_the_order_of_the_source(images: Path) -> None:
    samples = numbered(images, 60)
    first = plan_of(images, samples, shards=6)
    second = plan_of(images, samples[::-1], folder="again", shards=6)
    assert first.shards == second.shards


def test_a_plan_is_named_by_its_bytes(images: Path) -> None:
    samples = numbered(images, 10)
    plain = plan_of(images, samples, "train=100")
    request = Request(skeleton=SKELETON, images_root=str(images), jpeg_quality=80)
    other = plan_of(images, samples, "train=100", folder="other", request=request)
    assert [shard.name for shard in plain.shards] == [shard.name for shard in other.shards]
    assert [shard.blake3 for shard in plain.shards] != [shard.blake3 for shard in other.shards]


def test_a_plan_file_holds_the_job_and_whole_samples(images: Path) -> None:
    sample = add(images, "a/b.jpg", group="walk")
    plan = plan_of(images, [sample], "train=100")
    header, references = read_plan(plan.folder / f"{plan.shards[0].name}.plan")
    ((found, found_stamp),) = references
    assert header == PlanHeader(Request(skeleton=SKELETON, images_root=str(images)), software())
    assert (found.key, found.group) == ("a/b.jpg", "walk")
    assert found.instances == sample.instances
    assert found.image.uri == str((images / "a/b.jpg").resolve())
    assert found_stamp == stamp(found.image.uri)


def test_a_mapping_is_applied_while_planning(images: Path) -> None:
    target = Skeleton("mirror", ("right_dot", "left_dot", "tail"))
    request = Request(
        skeleton=target, mapping=map_by_name(SKELETON, target), images_root=str(images)
    )
    plan = plan_of(images, [add(images, "a.jpg")], "train=100", request=request)
    _, found = read_plan(plan.folder / f"{plan.shards[0].name}.plan")
    assert next(found).sample.instances[0].keypoints.tolist() == [[3, 4, 1], [1, 2, 2], [0, 0, 0]]


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_shards_are_as_many_as_asked_for_and_balanced(images: Path, count: int) -> None:
    plan = plan_of(images, numbered(images, 50), "train=100", shards=count)
    sizes = [shard.samples for shard in plan.shards]
    assert len(sizes) == count
    assert sum(sizes) == 50
    assert max(sizes) - min(sizes) <= 1
    names = [f"train-{k:05}-of-{count:05}.tfrecord" for k in range(count)]
    assert [shard.name for shard in plan.shards] == names


def test_asked_for_shards_are_shared_out_and_every_split_has_one(images: Path) -> None:
    plan = plan_of(images, numbered(images, 200), shards=10)
    shards = Counter(shard.split for shard in plan.shards)
    assert shards.total() == 10
    sizes = {split: len(keys) for split, keys in keys_by_split(plan).items()}
    assert set(shards) == set(sizes) == {"train", "val", "test"}
    fullest = max(sizes[split] / shards[split] for split in sizes)
    for split, count in shards.items():  # nobody could do with a shard less than the fullest
        assert count == 1 or sizes[split] / (count - 1) >= fullest


def test_no_shard_is_empty_however_many_are_asked_for(images: Path) -> None:
    plan = plan_of(images, numbered(images, 5), "train=100", shards=40)
    assert [shard.samples for shard in plan.shards] == [1] * 5


def test_shard_size_decides_the_number_by_the_images_bytes(images: Path) -> None:
    samples = [add(images, f"{n}.jpg", bytes([n]) * 1000) for n in range(40)]
    plan = plan_of(images, samples, "train=100", shard_size=3000)
    assert len(plan.shards) == math.ceil(40 * 1000 / 3000)


def test_shard_size_counts_the_copies_of_train_and_of_nothing_else(images: Path) -> None:
    samples = [add(images, f"{n}.jpg", bytes([n]) * 1000) for n in range(60)]
    request = Request(skeleton=SKELETON, images_root=str(images), augment=3)
    plan = plan_of(images, samples, "50/25/25", shard_size=1000, request=request)
    shards = Counter(shard.split for shard in plan.shards)
    keys = keys_by_split(plan)
    assert shards["train"] == len(keys["train"])  # as many as there are samples, at most
    assert shards["val"] == len(keys["val"])
    wide = plan_of(images, samples, "50/25/25", folder="wide", shard_size=4000, request=request)
    shards = Counter(shard.split for shard in wide.shards)
    assert shards["train"] == len(keys["train"])
    assert shards["val"] == math.ceil(len(keys["val"]) / 4)


def test_crops_are_sized_by_their_pixels_not_by_the_images_bytes(images: Path) -> None:
    samples = [add(images, f"{n}.jpg", bytes([n]) * 10) for n in range(20)]
    request = Request(skeleton=SKELETON, images_root=str(images), crop=100, crop_from="keypoints")
    plan = plan_of(images, samples, "train=100", shard_size=20_000, request=request)
    assert len(plan.shards) == 20 * 4000 / 20_000


def test_an_image_that_gives_no_crop_is_counted_and_never_looked_for(images: Path) -> None:
    person = refer("a.jpg").instances[0]
    crowd = replace(person, is_crowd=True, bbox_xyxy=np.array([0, 0, 9, 9], np.float32))
    blank = replace(person, keypoints=np.zeros((2, 3), np.float32))
    boxed = replace(person, bbox_xyxy=np.array([0, 0, 9, 9], np.float32))
    samples = [
        replace(refer("gone.jpg"), instances=(crowd, blank, person)),
        replace(refer("empty.jpg"), instances=()),
        replace(add(images, "good.jpg"), instances=(crowd, boxed)),
    ]
    request = Request(skeleton=SKELETON, images_root=str(images), crop=32)
    plan = plan_of(images, samples, "train=100", request=request)
    assert keys_by_split(plan) == {"train": ["good.jpg"]}
    assert not plan.rejected
    assert plan.counts == {
        "images without an instance to crop": 2,
        "instances not cropped: crowd": 1,
        "instances not cropped: no labelled keypoint": 1,
        "instances not cropped: no box": 1,
    }
    with pytest.raises(FormatError, match="holds no sample to write; 2 images without an instance"):
        plan_of(images, samples[:2], folder="none", request=request)


def test_a_bad_image_is_refused_while_planning_with_its_name(images: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (images / "link.jpg").symlink_to(secret)
    (images / "folder.jpg").mkdir()
    (images / "loop").symlink_to(images / "loop")
    bad = {
        str(secret): "unsafe path",
        "../secret.jpg": "unsafe path",
        "a/../../secret.jpg": "unsafe path",
        "..\\secret.jpg": "unsafe path",
        "nul\0.jpg": "unsafe path",
        "link.jpg": "unsafe path",
        "gone.jpg": "image missing",
        "folder.jpg": "image missing",
        "loop": "image missing",
        "x" * 300 + ".jpg": "image missing",
        "empty.jpg": "image empty",
        "huge.jpg": "image too large",
    }
    add(images, "huge.jpg", b"x" * 101)
    add(images, "empty.jpg", b"")
    samples = [add(images, "good.jpg"), *map(refer, bad)]
    request = Request(skeleton=SKELETON, images_root=str(images), max_bytes=100)
    plan = plan_of(images, samples, "train=100", request=request)
    lines = rejected(plan)
    assert {line["key"]: line["reason"] for line in lines} == bad
    for line in lines:
        assert repr(line["key"])[1:-1] in line["detail"] or line["key"] in line["detail"]
    assert plan.rejected == Counter(bad.values())
    assert keys_by_split(plan) == {"train": ["good.jpg"]}


def test_a_link_inside_the_folder_is_followed(images: Path) -> None:
    add(images, "real.jpg")
    (images / "link.jpg").symlink_to(images / "real.jpg")
    plan = plan_of(images, [refer("link.jpg")], "train=100")
    assert keys_by_split(plan) == {"train": ["link.jpg"]}


def test_what_the_reader_refused_is_listed_with_the_rest_by_key(images: Path) -> None:
    refused = Rejected("b", "bad keypoints", "labels.json: $.annotations[3] is NaN")
    plan = plan_of(
        images, [refer("c.jpg"), refused, refer("a.jpg"), add(images, "d.jpg")], "train=100"
    )
    assert [line["key"] for line in rejected(plan)] == ["a.jpg", "b", "c.jpg"]
    assert rejected(plan)[1] == refused._asdict()
    assert list(plan.rejected_details())[1] == refused.detail


def test_a_source_without_an_images_folder_must_carry_its_bytes(images: Path) -> None:
    with pytest.raises(FormatError, match=r"no sample is usable \(1 × image missing\)"):
        plan_of(images, [refer("a.jpg")], request=Request(skeleton=SKELETON))


# --- identical images -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_one_picture_under_two_names_never_lies_in_two_splits(images: Path, seed: int) -> None:
    twins = [
        [
            add(images, f"first{n}.jpg", b"same" * (n + 1)),
            add(images, f"again{n}.jpg", b"same" * (n + 1)),
        ]
        for n in range(6)
    ]
    samples = [sample for pair in twins for sample in pair]
    plan = plan_of(images, samples, "50/25/25", seed=seed)
    where = split_by_key(plan)
    assert all(where[first.key] == where[second.key] for first, second in twins)
    assert plan.counts["identical images joined into one group"] == 6
    assert len(where) == 12


def test_images_of_one_size_or_one_tail_are_told_apart(images: Path) -> None:
    tail = b"t" * 5000
    samples = [add(images, f"{n}.jpg", bytes([n]) + tail) for n in range(20)]
    samples += [add(images, f"{n}.png", bytes([n]) * 8) for n in range(20)]
    plan = plan_of(images, samples)
    assert "identical images joined into one group" not in plan.counts


def test_groups_that_share_a_picture_are_one_group_and_so_on_along_the_chain(images: Path) -> None:
    def video(name: str, first: bytes, last: bytes) -> list[Sample]:
        middle = [add(images, f"{name}_{n}.jpg") for n in range(1, 4)]
        return [add(images, f"{name}_0.jpg", first), *middle, add(images, f"{name}_9.jpg", last)]

    chain = [*video("a", b"1", b"22"), *video("c", b"333", b"4444"), *video("b", b"22", b"333")]
    others = [sample for n in range(8) for sample in video(f"v{n}", b"%d" % n * 9, b"%d" % n * 10)]
    for seed in range(6):
        plan = plan_of(
            images, [*chain, *others], "50/25/25", seed=seed, folder=f"{seed}", group=r"(\w+)_\d"
        )
        where = split_by_key(plan)
        assert len({where[sample.key] for sample in chain}) == 1
        for n in range(8):
            assert len({split for key, split in where.items() if key.startswith(f"v{n}_")}) == 1
        assert plan.counts["identical images joined into one group"] == 2


def test_joined_groups_are_named_alike_in_the_records(images: Path) -> None:
    samples = [add(images, "x.jpg", b"1", group="later"), add(images, "y.jpg", b"1", group="early")]
    plan = plan_of(images, samples, "train=100")
    _, found = read_plan(plan.folder / f"{plan.shards[0].name}.plan")
    assert [sample.group for sample, _ in found] == ["early", "early"]


# --- groups ---------------------------------------------------------------------------------------


def test_a_regular_expression_keeps_what_it_captures_together(images: Path) -> None:
    samples = [add(images, f"day{n // 10}/{n}.jpg") for n in range(200)]
    where = split_by_key(plan_of(images, samples, "50/25/25", group=r"^(day\d+)/"))
    days = {
        day: {where[f"day{day}/{n}.jpg"] for n in range(day * 10, day * 10 + 10)}
        for day in range(20)
    }
    assert all(len(splits) == 1 for splits in days.values())
    assert len(set.union(*days.values())) == 3


def test_a_name_that_the_expression_does_not_match_is_its_own_group(images: Path) -> None:
    samples = [add(images, f"{n}.jpg") for n in range(100)]
    samples += [add(images, f"day7/{n}.jpg") for n in range(3)]
    grouped = plan_of(images, samples, group=r"^(day\d+)/")
    alone = split_by_key(plan_of(images, samples, folder="alone"))
    where = split_by_key(grouped)
    assert {key: where[key] for key in where if "/" not in key} == {
        key: alone[key] for key in alone if "/" not in key
    }
    assert len({where[f"day7/{n}.jpg"] for n in range(3)}) == 1
    assert grouped.counts["images whose name --group does not match"] == 100


def test_an_expression_that_matches_no_name_at_all_is_refused(images: Path) -> None:
    with pytest.raises(FormatError, match="which matches no image's name: every image would be"):
        plan_of(images, numbered(images, 10), group=r"^(day\d+)/")
    full = plan_of(images, numbered(images, 10), group=r"^(\d\d)")
    assert "images whose name --group does not match" not in full.counts


def test_the_sources_own_group_is_kept_together(images: Path) -> None:
    samples = [add(images, f"{n}.jpg", group=f"person{n // 5}") for n in range(100)]
    where = split_by_key(plan_of(images, samples, "50/25/25"))
    people = [{where[f"{n}.jpg"] for n in range(first, first + 5)} for first in range(0, 100, 5)]
    assert all(len(splits) == 1 for splits in people)
    assert set.union(*people) == {"train", "val", "test"}


def test_the_expression_joins_the_sources_own_groups_and_tears_none_apart(images: Path) -> None:
    samples = [add(images, f"day{n // 10}_{n}.jpg", group=f"person{n // 4}") for n in range(60)]
    samples += [add(images, f"{n}.jpg", group=f"other{n // 10}") for n in range(100)]
    plan = plan_of(images, samples, "50/25/25", group=r"^(day\d+)_")
    where = split_by_key(plan)
    for first in range(0, 60, 20):  # two days, of which person 2, 7 or 12 saw both
        assert len({where[sample.key] for sample in samples[first : first + 20]}) == 1
    others = [{where[f"{n}.jpg"] for n in range(first, first + 10)} for first in range(0, 100, 10)]
    assert all(len(splits) == 1 for splits in others)
    assert len(set.union(*others)) > 1
    assert plan.counts["images whose name --group does not match"] == 100


def test_the_expression_takes_the_place_of_groups_that_were_read_off_names(images: Path) -> None:
    samples = [add(images, f"day{n % 2}/{n}.jpg", group=f"day{n % 2}") for n in range(100)]
    options = {"group": r"(\d\d)\.jpg", "groups_from_names": True}
    plan = plan_of(images, samples, "50/25/25", **options)
    assert plan.counts["images whose name --group does not match"] == 10
    assert plan.warnings == ()
    where = split_by_key(plan)
    assert len({where[f"day{n % 2}/{n}.jpg"] for n in range(10, 100)}) == 3
    assert len({where[f"day0/{n}.jpg"] for n in range(0, 10, 2)}) == 1


def test_a_joined_groups_name_is_the_smallest_of_its_members(images: Path) -> None:
    samples = [add(images, f"{n}.jpg", group=group) for n, group in enumerate("abc")]
    plan = plan_of(images, samples, "train=100", group=r"(jpg)")
    _, found = read_plan(plan.folder / f"{plan.shards[0].name}.plan")
    assert [sample.group for sample, _ in found] == ["a"] * 3


def test_adding_images_never_moves_an_old_one_to_another_split(images: Path) -> None:
    samples = numbered(images, 120)
    few = split_by_key(plan_of(images, samples[::3]))
    many = split_by_key(plan_of(images, samples, folder="many"))
    assert {key: many[key] for key in few} == few
    assert set(few.values()) == {"train", "val", "test"}


def test_another_seed_is_another_draw(images: Path) -> None:
    samples = numbered(images, 120)
    assert split_by_key(plan_of(images, samples)) != split_by_key(
        plan_of(images, samples, seed=1, folder="other")
    )


# --- the official split ---------------------------------------------------------------------------


def official(images: Path) -> list[Sample]:
    train = [add(images, f"train{n}.jpg", split="train") for n in range(100)]
    return train + [add(images, f"test{n}.jpg", split="test") for n in range(40)]


def test_the_official_split_is_kept(images: Path) -> None:
    keys = keys_by_split(plan_of(images, official(images), "official"))
    assert {split: len(found) for split, found in keys.items()} == {"train": 100, "test": 40}
    assert all(key.startswith(split) for split, found in keys.items() for key in found)


def test_part_of_the_official_train_set_becomes_val_by_the_same_hash(images: Path) -> None:
    samples = official(images)
    keys = keys_by_split(plan_of(images, samples, "official", val_from_train=20))
    assert list(keys) == ["train", "val", "test"]
    assert len(keys["test"]) == 40
    assert 10 <= len(keys["val"]) <= 30
    assert all(key.startswith("train") for key in keys["val"])
    more = keys_by_split(plan_of(images, samples, "official", val_from_train=40, folder="more"))
    assert set(keys["val"]) < set(more["val"])


def test_the_carve_out_does_not_tear_groups_apart(images: Path) -> None:
    samples = [
        add(images, f"{n}.jpg", split="train" if n < 90 else "test", group=f"walk{n // 10}")
        for n in range(100)
    ]
    where = split_by_key(plan_of(images, samples, "official", val_from_train=50))
    walks = [{where[f"{n}.jpg"] for n in range(walk, walk + 10)} for walk in range(0, 100, 10)]
    assert all(len(splits) == 1 for splits in walks)
    assert set.union(*walks) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("splits", "kept"),
    [(("train", "test"), "test"), (("val", "train"), "val"), (("val", "test"), "test")],
)
def test_a_picture_in_two_official_splits_stays_where_it_measures(
    images: Path, splits: tuple[str, str], kept: str
) -> None:
    twins = [add(images, f"{split}.jpg", b"same", split) for split in splits]
    others = [add(images, f"{split}_other.jpg", split=split) for split in ("train", "val", "test")]
    plan = plan_of(images, twins + others, "official")
    (line,) = rejected(plan)
    lost = next(split for split in splits if split != kept)
    assert line == {
        "key": f"{lost}.jpg",
        "reason": "leaks into another split",
        "detail": f"{lost}.jpg of the official {lost} split is also in {kept}",
    }
    assert split_by_key(plan)[f"{kept}.jpg"] == kept


def test_a_group_in_two_official_splits_leaves_the_train_set(images: Path) -> None:
    samples = official(images)
    samples += [add(images, f"walk_{n}.jpg", split="train") for n in range(3)]
    samples += [add(images, "walk_9.jpg", split="test")]
    plan = plan_of(images, samples, "official", group=r"^(walk)_")
    assert [line["key"] for line in rejected(plan)] == ["walk_0.jpg", "walk_1.jpg", "walk_2.jpg"]
    assert split_by_key(plan)["walk_9.jpg"] == "test"


def test_a_sample_without_an_official_split_is_refused_by_name(images: Path) -> None:
    plan = plan_of(images, [*official(images), add(images, "new.jpg")], "official")
    (line,) = rejected(plan)
    assert (line["key"], line["reason"]) == ("new.jpg", "no official split")
    assert "choose percentages, `split` 80/10/10 say" in line["detail"]


def test_a_source_without_official_splits_says_so(images: Path) -> None:
    with pytest.raises(FormatError, match="has no split of its own here: choose percentages"):
        plan_of(images, numbered(images, 10), "official")


# --- what cannot be planned -----------------------------------------------------------------------


def test_a_source_of_bad_images_only_shows_the_reasons_and_the_first_detail(images: Path) -> None:
    samples = [refer("a.jpg"), refer("b.jpg"), refer("../c.jpg")]
    expected = (
        r"labels\.json: no sample is usable \(2 × image missing, 1 × unsafe path\); the first"
    )
    with pytest.raises(FormatError, match=expected):
        plan_of(images, samples)


def test_an_empty_source_is_refused(images: Path) -> None:
    with pytest.raises(FormatError, match=r"labels\.json: holds no sample to write"):
        plan_of(images, [])


def test_two_samples_under_one_key_are_refused(images: Path) -> None:
    sample = add(images, "a.jpg")
    with pytest.raises(FormatError, match=r"two samples have the key 'a\.jpg'"):
        plan_of(images, [sample, sample])


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (
            "train=98,val=1,test=1",
            ("split test is empty: 2 images in 2 groups are too few for 3 splits. "
             "Give fewer splits, or a finer `group`.",),
        ),
        ("train=99,test=1", ()),
    ],
)  # fmt: skip
def test_a_split_is_empty_only_where_groups_are_fewer(
    images: Path, splits: str, says: tuple[str, ...]
) -> None:
    plan = plan_of(images, [add(images, "a.jpg", b"1"), add(images, "b.jpg", b"22")], splits)
    assert plan.warnings == says


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("groups", [3, 4, 10])
def test_no_split_is_empty_where_there_are_groups_enough(
    images: Path, groups: int, seed: int
) -> None:
    samples = [
        add(images, f"{group}_{frame}.jpg", b"%d" % (100 * group + frame), group=str(group))
        for group in range(groups)
        for frame in range(3)
    ]
    plan = plan_of(images, samples, seed=seed)
    by_split = keys_by_split(plan)
    assert by_split.keys() == {"train", "val", "test"}
    assert sum(map(len, by_split.values())) == 3 * groups
    for keys in by_split.values():
        for key in keys:
            assert {f"{key[0]}_{frame}.jpg" for frame in range(3)} <= set(keys)


def test_only_a_split_that_would_be_empty_takes_a_group_that_is_not_its_own(images: Path) -> None:
    few = numbered(images, 10)
    plan = plan_of(images, few)
    moved = [
        key for key, split in split_by_key(plan).items()
        if Splits({"train": 0.8, "val": 0.1, "test": 0.1}).assign(key, None) != split
    ]  # fmt: skip
    assert len(moved) <= 1


def test_versions_of_one_picture_by_roboflow_are_one_group(images: Path) -> None:
    names = [f"boat_{boat}_png.rf.{number:012x}.png" for boat in range(40) for number in (1, 77)]
    samples = [add(images, name, name.encode()) for name in names]
    plan = plan_of(images, samples)
    split = split_by_key(plan)
    for first, second in zip(names[::2], names[1::2], strict=True):
        assert split[first] == split[second]
    (said,) = (what for what in plan.counts if "Roboflow" in what)
    assert plan.counts[said] == 80
    apart = split_by_key(plan_of(images, samples, folder="own", group="(.+)"))
    assert any(apart[a] != apart[b] for a, b in zip(names[::2], names[1::2], strict=True))


def test_names_that_look_like_frames_are_a_hint_unless_they_are_grouped(images: Path) -> None:
    names = [f"v{video}/{frame:04}.jpg" for video in range(5) for frame in range(6)]
    samples = [add(images, name, name.encode()) for name in names]
    (hint,) = plan_of(images, samples).warnings
    assert hint.startswith(
        "the images look like frames of 5 videos (v0/0000.jpg, v0/0001.jpg, ...)"
    )
    pattern = hint.rpartition("`group` ")[2].strip("'")
    grouped = plan_of(images, samples, folder="grouped", group=pattern)
    assert grouped.warnings == ()
    split = split_by_key(grouped)
    assert len({(name[:2], split[name]) for name in names}) == 5


def test_what_a_reader_hints_at_is_a_warning(images: Path) -> None:
    source = Source(
        SKELETON, iter(numbered(images, 60)), images, (Path("labels.json"),), Counter(), True,
        hints=("give `skeleton` coco17",),
    )  # fmt: skip
    request = Request(skeleton=SKELETON, images_root=str(images))
    assert make_plan(source, request, images.parent / "plan").warnings == source.hints


def test_full_splits_need_no_warning(images: Path) -> None:
    assert plan_of(images, numbered(images, 200)).warnings == ()


def test_an_official_split_of_one_part_is_a_warning(images: Path) -> None:
    plan = plan_of(images, numbered(images, 3, split="train"), "official")
    assert plan.warnings == ("the source's official split has only train: nothing to test on",)


def test_an_official_split_that_is_not_kept_is_a_warning(images: Path) -> None:
    plan = plan_of(images, official(images), "90/0/10")
    assert plan.warnings == (
        "the source has an official split (train, test): `split` official keeps it",
    )
    assert plan_of(images, official(images), "official", folder="kept").warnings == ()
    one = numbered(images, 200, split="train")
    assert plan_of(images, one, "90/0/10", folder="one").warnings == ()


@pytest.mark.parametrize(
    ("names", "augment", "flip", "warned"),
    [
        (("bow", "stern"), 1, 0.5, True),
        (("bow", "stern"), 0, 0.5, False),
        (("bow", "stern"), 1, 0, False),
        (("left_rail", "right_rail"), 1, 0.5, False),
        (("bow",), 1, 0.5, False),
    ],
)
def test_mirrored_copies_without_flip_pairs_are_a_warning(
    images: Path, names: tuple[str, ...], augment: int, flip: float, warned: bool
) -> None:
    config = AugmentConfig(flip=flip)
    request = Request(
        skeleton=Skeleton("boat", names),
        images_root=str(images),
        augment=augment,
        augment_config=config,
    )  # fmt: skip
    plan = plan_of(images, [add(images, "a.jpg")], "train=100", request=request)
    assert [warning.startswith("skeleton boat has no flip pairs") for warning in plan.warnings] == (
        [True] if warned else []
    )


def test_a_full_temporary_folder_is_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(references: References, rows: Iterable[object] = ()) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(References, "_flush", full)
    with pytest.raises(JobError, match=f"^{tempfile.gettempdir()}: .*full: point TMPDIR to"):
        plan_of(images, [add(images, "a.jpg")])
