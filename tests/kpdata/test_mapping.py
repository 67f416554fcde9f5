"""Mapping by name: exact, derived and missing keypoints, and how visible a derived one is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.mapping import DERIVED, map_by_name, map_sample
from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import BUILT_IN, COCO17, LSP14, MPII16

row = st.one_of(
    st.just((0.0, 0.0, 0.0)),
    st.tuples(st.floats(0, 4000, width=32), st.floats(0, 4000, width=32), st.sampled_from([1, 2])),
)


def rows(count: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(row, min_size=count, max_size=count).map(lambda r: np.array(r, np.float32))


def how(source: Skeleton, target: Skeleton) -> dict[str, list[str]]:
    """The target's names by where they come from."""
    names: dict[str, list[str]] = {"exact": [], "derived": [], "missing": []}
    for keypoint in map_by_name(source, target).keypoints:
        names[keypoint.how].append(keypoint.name)
    return names


def full(skeleton: Skeleton) -> np.ndarray:
    """Keypoint k at (10 k + 1, 5 k + 2), visible."""
    k = np.arange(len(skeleton))
    return np.column_stack([10 * k + 1, 5 * k + 2, np.full(len(k), 2)]).astype(np.float32)


def test_coco_to_lsp_has_the_limbs_derives_the_neck_and_misses_the_head_top():
    names = how(COCO17, LSP14)
    assert names["derived"] == ["neck"]
    assert names["missing"] == ["head_top"]
    assert set(names["exact"]) == set(LSP14.keypoints) - {"neck", "head_top"}


def test_lsp_to_coco_misses_the_face():
    names = how(LSP14, COCO17)
    assert names["derived"] == []
    assert names["missing"] == ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]


def test_mpii_and_lsp_share_the_neck_under_two_names():
    assert how(MPII16, LSP14)["derived"] == ["neck"]
    assert how(MPII16, LSP14)["missing"] == []
    assert how(LSP14, MPII16)["derived"] == ["pelvis", "thorax", "upper_neck"]
    assert how(LSP14, MPII16)["missing"] == []


def test_the_neck_is_taken_from_mpiis_upper_neck_rather_than_from_the_shoulders():
    mapped = map_by_name(MPII16, LSP14)
    neck = mapped.keypoints[LSP14.index("neck")]
    assert neck.sources == ("upper_neck",)
    keypoints = full(MPII16)
    np.testing.assert_array_equal(
        mapped.apply(keypoints)[LSP14.index("neck")], keypoints[MPII16.index("upper_neck")]
    )


def test_exact_keypoints_keep_their_values_under_their_names():
    source = full(COCO17)
    mapped = map_by_name(COCO17, LSP14).apply(source)
    for name in how(COCO17, LSP14)["exact"]:
        np.testing.assert_array_equal(mapped[LSP14.index(name)], source[COCO17.index(name)])


def test_a_derived_keypoint_is_the_mean_of_its_sources_and_says_why():
    mapping = map_by_name(LSP14, MPII16)
    source = full(LSP14)
    hips = source[[LSP14.index("left_hip"), LSP14.index("right_hip")], :2]
    pelvis = mapping.apply(source)[MPII16.index("pelvis")]
    np.testing.assert_allclose(pelvis[:2], hips.mean(axis=0))
    assert mapping.keypoints[MPII16.index("pelvis")].reason == DERIVED["pelvis"][0][1]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(2, 2, 2), (1, 2, 1), (2, 1, 1), (1, 1, 1), (0, 2, 0), (1, 0, 0)],
)
def test_a_derived_keypoint_is_as_visible_as_its_least_visible_source(left, right, expected):
    source = full(COCO17)
    for name, visibility in (("left_shoulder", left), ("right_shoulder", right)):
        index = COCO17.index(name)
        source[index] = (*source[index, :2], visibility) if visibility else 0
    sample = Sample("a", ImageRef("a.jpg"), (Instance(source),))
    mapped = map_sample(sample, map_by_name(COCO17, LSP14)).instances[0]
    neck = mapped.keypoints[LSP14.index("neck")]
    assert neck[2] == expected
    assert neck[:2].any() == (expected > 0)


def test_mapping_a_sample_keeps_all_but_the_keypoints():
    instance = Instance(full(COCO17), np.array([1, 2, 3, 4]), 5.0, True, "person", 3, 7)
    sample = Sample("a", ImageRef("a.jpg"), (instance, instance), "train", "video")
    mapped = map_sample(sample, map_by_name(COCO17, LSP14))
    assert (mapped.key, mapped.image, mapped.split, mapped.group) == (
        "a",
        sample.image,
        "train",
        "video",
    )
    for after in mapped.instances:
        assert after.keypoints.shape == (14, 3)
        assert (after.area, after.is_crowd, after.category, after.category_id, after.id) == (
            5.0,
            True,
            "person",
            3,
            7,
        )
        np.testing.assert_array_equal(after.bbox_xyxy, [1, 2, 3, 4])


@pytest.mark.parametrize("skeleton", BUILT_IN.values(), ids=BUILT_IN)
@given(data=st.data())
def test_the_mapping_of_a_skeleton_to_itself_changes_nothing(skeleton, data):
    keypoints = data.draw(rows(len(skeleton)))
    mapping = map_by_name(skeleton, skeleton)
    assert {keypoint.how for keypoint in mapping.keypoints} == {"exact"}
    np.testing.assert_array_equal(mapping.apply(keypoints), keypoints)


@given(rows(len(COCO17)))
def test_what_mapping_gives_is_always_a_valid_instance(keypoints):
    sample = Sample("a", ImageRef("a.jpg"), (Instance(keypoints),))
    mapped = map_sample(sample, map_by_name(COCO17, MPII16)).instances[0]
    assert mapped.keypoints.shape == (16, 3)
    assert mapped.num_labelled <= len(MPII16)


def test_skeletons_without_a_common_name_give_nothing_labelled():
    boat = Skeleton("boat", ("bow", "stern"))
    mapped = map_by_name(COCO17, boat).apply(full(COCO17))
    np.testing.assert_array_equal(mapped, np.zeros((2, 3)))
