"""Several annotation files as one dataset, each a split."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kpdata.core.errors import FormatError
from kpdata.core.sample import ImageRef, Instance, Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import COCO17, LSP14
from kpdata.formats.base import Source
from kpdata.formats.merged import REARRANGED, merge
from kpdata.storage.stores import Url


def source(root, *names, skeleton=COCO17, **changes):
    """A source of images called so, which counts one thing while it streams."""
    counts = Counter()

    def samples():
        for number, name in enumerate(names):
            counts["streamed"] += 1
            yield Sample(key=str(number), image=ImageRef(name), group=changes.get("group"))

    return Source(skeleton, samples(), root, (Path(f"{names[0]}.json"),), counts, False)


@pytest.fixture
def folders(tmp_path):
    """Two folders that both hold an image of the same name."""
    for name in ("train2017", "val2017"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    return tmp_path / "train2017", tmp_path / "val2017"


def test_each_source_is_a_split_and_numbers_may_start_anew(folders):
    train, val = folders
    merged = merge({"train": source(train, "1.jpg", "2.jpg"), "val": source(val, "1.jpg")})
    found = [(s.key, s.split, s.image.name) for s in merged.samples]
    assert found == [
        ("train/0", "train", "train2017/1.jpg"),
        ("train/1", "train", "train2017/2.jpg"),
        ("val/0", "val", "val2017/1.jpg"),
    ]
    assert merged.images_root == train.parent
    assert merged.counts == Counter(streamed=3)
    assert [path.name for path in merged.annotation_files] == ["1.jpg.json", "1.jpg.json"]
    assert merged.convention == ""


def test_what_numbers_were_taken_to_mean_is_said_once(folders):
    said = ("continuous", "", "0-based", "continuous")
    sources = {
        f"s{n}": replace(source(folders[0], "1.jpg"), convention=c) for n, c in enumerate(said)
    }
    assert merge(sources).convention == "continuous; 0-based"


def test_groups_that_were_read_off_names_stay_apart_as_the_names_do(folders):
    train, val = folders

    def groups(from_names, *roots):
        parts = {
            name: replace(source(root, "1.jpg", group="walk"), groups_from_names=from_names)
            for name, root in zip(("train", "val"), roots, strict=True)
        }
        merged = merge(parts)
        assert merged.groups_from_names is from_names
        return [sample.group for sample in merged.samples]

    assert groups(True, train, val) == ["train2017/walk", "val2017/walk"]
    assert groups(True, train, train) == ["walk", "walk"]
    assert groups(False, train, val) == ["walk", "walk"]


def test_images_in_one_folder_keep_their_names(folders):
    train, _ = folders
    merged = merge({"train": source(train, "1.jpg"), "val": source(train, "1.jpg")})
    assert merged.images_root == train
    assert [s.image.name for s in merged.samples] == ["1.jpg", "1.jpg"]


def test_a_folder_may_lie_in_the_other(folders):
    train, _ = folders
    merged = merge({"train": source(train.parent, "a.jpg"), "val": source(train, "1.jpg")})
    assert merged.images_root == train.parent
    assert [s.image.name for s in merged.samples] == ["a.jpg", "train2017/1.jpg"]


def test_groups_hold_across_files_but_equal_names_are_no_group(folders):
    train, val = folders
    for group, expected in (("v", ["v", "v"]), (None, ["train2017/1.jpg", "val2017/1.jpg"])):
        sources = {"a": source(train, "1.jpg", group=group), "b": source(val, "1.jpg", group=group)}
        assert [s.split_group for s in merge(sources).samples] == expected


def test_a_link_from_one_folder_to_the_other_is_refused(folders):
    train, val = folders
    (train / "link.jpg").symlink_to(val / "1.jpg")
    merged = merge(
        {"train": source(train, "link.jpg", "../val2017/1.jpg"), "val": source(val, "1.jpg")}
    )
    link, up, fine = merged.samples
    assert isinstance(link, Rejected)
    assert (link.key, link.reason) == ("train/0", "unsafe path")
    assert isinstance(up, Rejected)
    assert up.reason == "unsafe path"
    assert isinstance(fine, Sample)


def test_what_was_rejected_bears_its_split():
    bad = replace(source(None, "a"), samples=iter([Rejected("7", "why", "detail")]))
    (found,) = merge({"train": bad}).samples
    assert found == ("train/7", "why", "detail")


def test_folders_on_a_store():
    roots = {"train": Url("s3://b/coco/train"), "val": Url("s3://b/coco/val")}
    merged = merge({split: source(root, "1.jpg") for split, root in roots.items()})
    assert merged.images_root == Url("s3://b/coco")
    assert isinstance(merged.images_root, Url)
    assert [s.image.name for s in merged.samples] == ["train/1.jpg", "val/1.jpg"]


@pytest.mark.parametrize("other", [Url("s3://b/x"), None], ids=["store", "none"])
def test_images_without_a_common_folder_are_refused(other):
    with pytest.raises(
        FormatError, match=r"no folder in common \(a: /here/x, b: .*put them below one"
    ):
        merge({"a": source(Path("/here/x"), "1"), "b": source(other, "1")})


def test_two_buckets_are_no_folder_in_common():
    with pytest.raises(FormatError, match="no folder in common"):
        merge({"a": source(Url("s3://b/x"), "1"), "b": source(Url("s3://c/x"), "1")})


def test_images_on_two_disks_are_named_from_the_root():
    merged = merge({"a": source(Path("/here/x"), "1"), "b": source(Path("/elsewhere"), "1")})
    assert merged.images_root == Path("/")
    assert [s.image.name for s in merged.samples] == ["here/x/1", "elsewhere/1"]


def test_two_sources_of_one_split(tmp_path):
    merged = merge({
        "train": source(tmp_path / "a", "1"), "train+2": source(tmp_path / "b", "1"),
        "val": source(tmp_path / "b", "2"),
    })  # fmt: skip
    assert [(s.key, s.image.name, s.split) for s in merged.samples] == [
        ("train/0", "a/1", "train"), ("train+2/0", "b/1", "train"), ("val/0", "b/2", "val"),
    ]  # fmt: skip


def person(skeleton, value):
    return Instance(np.full((len(skeleton), 3), (value, value, 2), np.float32))


def with_people(skeleton, value):
    made = source(None, "1", skeleton=skeleton)
    samples = (replace(s, instances=(person(skeleton, value),)) for s in made.samples)
    return replace(made, samples=samples)


def test_other_keypoints_are_joined_by_name():
    merged = merge({"a": with_people(COCO17, 1), "b": with_people(LSP14, 5)})
    names = merged.skeleton.keypoints
    first, second = (sample.instances[0] for sample in merged.samples)
    assert merged.skeleton.name == "coco17+lsp14"
    assert names == (*COCO17.keypoints, "neck", "head_top")
    assert first.xy.tolist() == [[1, 1]] * 17 + [[0, 0]] * 2
    for name, (x, _, v) in zip(names, second.keypoints.tolist(), strict=True):
        assert (x, v) == ((5, 2) if name in LSP14.keypoints else (0, 0))
    flip = merged.skeleton.flip_index
    assert [names[flip[names.index(n)]] for n in ("left_eye", "neck")] == ["right_eye", "neck"]
    assert merged.skeleton.sigmas == {}
    assert merged.counts[REARRANGED] == 2


def test_the_same_keypoints_in_another_order_follow_the_first():
    other = Skeleton("other", COCO17.keypoints[::-1])
    merged = merge({"a": with_people(COCO17, 1), "b": with_people(other, 5)})
    assert merged.skeleton is COCO17
    _, second = merged.samples
    assert second.instances[0].keypoints.tolist() == [[5, 5, 2]] * 17


def test_numbered_groups_of_two_files_are_not_the_same():
    numbered = [
        replace(one, groups_are_numbers=True, samples=(replace(s, group="1") for s in one.samples))
        for one in (source(None, "1"), source(None, "1"))
    ]
    first, second = merge({"train": numbered[0], "val": numbered[1]}).samples
    assert (first.group, second.group) == ("train/1", "val/1")
