"""Skeletons: the built-in ones are consistent, and a custom one's errors name the wrong key."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.flip_pairs import flip_pairs_by_name
from kpdata.core.skeleton import Skeleton
from kpdata.core.skeletons import BUILT_IN, COCO17, LSP14
from kpdata.formats.settings import get_skeleton, load_skeleton

BOAT = {
    "name": "boat",
    "keypoints": ["bow", "stern", "left_rail", "right_rail", "mast"],
    "edges": [["bow", "mast"], ["mast", "stern"]],
    "flip_pairs": [["left_rail", "right_rail"]],
    "sigmas": {"bow": 0.05, "stern": 0.05, "left_rail": 0.08, "right_rail": 0.08, "mast": 0.06},
    "torso": ["bow", "stern"],
    "head": ["mast", "bow"],
}

every_built_in = pytest.mark.parametrize("skeleton", BUILT_IN.values(), ids=BUILT_IN)


def write(folder: Path, content: object) -> Path:
    path = folder / "boat.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (name, int(re.search(r"[0-9]+$", name)[0]))
        for name in BUILT_IN
        if not name.startswith("posetrack")
    ] + [("posetrack17", 15), ("posetrack18", 17)],
)  # fmt: skip
def test_built_in_skeletons_have_as_many_keypoints_as_their_names_say(name, count):
    assert len(BUILT_IN[name]) == count == len(set(BUILT_IN[name].keypoints))
    assert BUILT_IN[name].name == name


@every_built_in
def test_flipping_a_built_in_skeleton_twice_changes_nothing(skeleton):
    index = skeleton.flip_index
    np.testing.assert_array_equal(index[index], np.arange(len(skeleton)))
    is_one_sided = skeleton.name == "hand21"
    assert (index != np.arange(len(skeleton))).any() != is_one_sided


@every_built_in
def test_flipping_swaps_left_and_right_by_name_and_keeps_the_rest(skeleton):
    for name, mirrored in zip(skeleton.keypoints, skeleton.flip_index, strict=True):
        swapped = name.replace("left", "@").replace("right", "left").replace("@", "right")
        if not name.startswith("face-"):
            assert skeleton.keypoints[mirrored] == swapped


@every_built_in
def test_edges_torso_and_head_name_keypoints(skeleton):
    torso = skeleton.torso
    assert {skeleton.keypoints[i] for pair in skeleton.edge_index for i in pair} <= set(
        skeleton.keypoints
    )
    assert skeleton.edge_index.shape == (len(skeleton.edges), 2)
    is_person = {"left_shoulder", "left_hip", "left_wrist"} <= set(skeleton.keypoints)
    assert torso == (("left_shoulder", "right_hip") if is_person else None)
    assert skeleton.head is None or set(skeleton.head) <= set(skeleton.keypoints)


def test_the_points_of_a_face_swap_sides():
    flip = BUILT_IN["face68"].flip_index
    chin, nose_tip, left_eye, right_eye = 8, 30, [36, 39], [45, 42]
    assert flip[[chin, nose_tip]].tolist() == [chin, nose_tip]
    assert flip[left_eye].tolist() == right_eye
    wholebody = BUILT_IN["coco_wholebody133"]
    assert [wholebody.keypoints[i] for i in wholebody.flip_index[[23, 23 + 36]]] == [
        "face-16", "face-45",
    ]  # fmt: skip


@every_built_in
def test_every_keypoint_of_a_person_is_joined_to_another(skeleton):
    joined = {name for edge in skeleton.edges for name in edge}
    alone = {name for name in skeleton.keypoints if name not in joined}
    ears = {"left_ear", "right_ear"} if skeleton.name == "posetrack18" else set()
    assert all(name.startswith("face-") for name in alone - ears)


def test_sigmas_are_those_that_were_published():
    with_sigmas = {name for name, s in BUILT_IN.items() if s.sigma_array is not None}
    assert with_sigmas == {"coco17", "coco_wholebody133", "crowdpose14", "aic14", "hand21"}
    sigmas = dict(zip(COCO17.keypoints, COCO17.sigma_array, strict=True))
    assert (sigmas["nose"], sigmas["left_hip"], sigmas["right_ankle"]) == (0.026, 0.107, 0.089)


def test_lsp_measures_the_head_from_neck_to_top():
    assert LSP14.head == ("neck", "head_top")
    assert LSP14.keypoints[LSP14.index("head_top")] == "head_top"


def test_an_unknown_name_is_told_which_ones_there_are():
    with pytest.raises(SchemaError, match=r"skeleton lsp14 has no keypoint 'nose'; it has right_a"):
        LSP14.index("nose")


def test_a_custom_skeleton_is_read_whole(tmp_path):
    boat = get_skeleton(str(write(tmp_path, BOAT)))
    assert boat.keypoints == tuple(BOAT["keypoints"])
    assert boat.edge_index.tolist() == [[0, 4], [4, 1]]
    assert boat.flip_index.tolist() == [0, 1, 3, 2, 4]
    assert boat.sigma_array.tolist() == [0.05, 0.05, 0.08, 0.08, 0.06]
    assert (boat.torso, boat.head) == (("bow", "stern"), ("mast", "bow"))


def test_name_and_keypoints_are_enough(tmp_path):
    path = write(tmp_path, {"name": "boat", "keypoints": BOAT["keypoints"]})
    boat = load_skeleton(path)
    assert boat.flip_pairs == (("left_rail", "right_rail"),)
    assert boat.edge_index.shape == (0, 2)
    assert boat.sigma_array is None


def test_an_empty_list_of_flip_pairs_means_no_mirror_image(tmp_path):
    boat = load_skeleton(write(tmp_path, BOAT | {"flip_pairs": []}))
    assert boat.flip_index.tolist() == [0, 1, 2, 3, 4]


SIGMAS = BOAT["sigmas"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": []}, "unknown field `joints`.*a skeleton's keys are name, keypoints, edges"),
        ({"keypoints": None}, r"Expected `array`, got `null` - at `\$\.keypoints`"),
        ({"keypoints": []}, "keypoints: a skeleton needs at least one name"),
        ({"keypoints": ["bow", "bow"]}, "keypoints: the name 'bow' is given twice"),
        ({"keypoints": ["bow", ""]}, "keypoints: the name '' is empty"),
        ({"keypoints": ["bow", 3]}, r"Expected `str`, got `int` - at `\$\.keypoints\[1\]`"),
        ({"edges": [["bow", "keel"]]}, "edges: 'keel' is not among the keypoints"),
        ({"edges": [["bow", "bow"]]}, "edges: 'bow' is paired with itself"),
        ({"edges": [["bow"]]}, r"length 2 - at `\$\.edges\[0\]`"),
        ({"edges": [[0, 1]]}, r"Expected `str`, got `int` - at `\$\.edges\[0\]\[0\]`"),
        ({"flip_pairs": [["left_rail", "x"]]}, "flip_pairs: 'x' is not among the keypoints"),
        (
            {"flip_pairs": [["left_rail", "right_rail"], ["right_rail", "bow"]]},
            "flip_pairs: 'right_rail' stands in two pairs",
        ),
        ({"torso": ["bow", "keel"]}, "torso: 'keel' is not among the keypoints"),
        ({"head": ["keel", "bow"]}, "head: 'keel' is not among the keypoints"),
        ({"sigmas": SIGMAS | {"keel": 0.1}}, "sigmas: 'keel' is not among the keypoints"),
        ({"sigmas": {"bow": 0.05}}, "sigmas: none given for 'stern', 'left_rail', 'right_rail'"),
        ({"sigmas": SIGMAS | {"mast": 0}}, r"sigmas: 'mast' has 0\.0: expected a value between"),
        ({"sigmas": SIGMAS | {"mast": 1.5}}, r"sigmas: 'mast' has 1\.5: expected a value between"),
        ({"sigmas": [0.1] * 5}, r"Expected `object`, got `array` - at `\$\.sigmas`"),
    ],
)
def test_a_custom_skeletons_error_names_the_file_and_the_wrong_key(tmp_path, change, message):
    path = write(tmp_path, BOAT | change)
    with pytest.raises(SchemaError, match=message) as caught:
        load_skeleton(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("key", ["name", "keypoints"])
def test_a_missing_key_is_named(tmp_path, key):
    content = {k: v for k, v in BOAT.items() if k != key}
    with pytest.raises(SchemaError, match=f"missing required field `{key}`"):
        load_skeleton(write(tmp_path, content))


@pytest.mark.parametrize("text", ["", "name: boat", '{"name": "boat"', "\0\0", '{"name": "\\ud8'])
def test_a_file_that_is_not_json_says_so(tmp_path, text):
    with pytest.raises(FormatError, match=r"boat\.json: not a JSON file"):
        load_skeleton(write(tmp_path, text))


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b'{"name": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000]
)
def test_bytes_that_no_json_reader_takes_are_the_files_fault(tmp_path, data):
    path = tmp_path / "boat.json"
    path.write_bytes(data)
    with pytest.raises((FormatError, SchemaError), match=r"boat\.json: "):
        load_skeleton(path)


def test_too_many_keypoints_are_refused_at_once(tmp_path):
    names = [f"k{number}" for number in range(1000)]
    assert len(load_skeleton(write(tmp_path, {"name": "mesh", "keypoints": names}))) == 1000
    many = {"name": "mesh", "keypoints": names * 200}
    started = time.process_time()
    with pytest.raises(SchemaError, match=r"boat\.json: keypoints: 200,000 names, at most 1,000"):
        load_skeleton(write(tmp_path, many))
    assert time.process_time() - started < 5


def test_json_that_is_no_object_says_what_was_expected(tmp_path):
    with pytest.raises(SchemaError, match="Expected `object`, got `array`"):
        load_skeleton(write(tmp_path, ["bow"]))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FormatError, match=r"none\.json: cannot read the skeleton: No such file"):
        get_skeleton(str(tmp_path / "none.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FormatError, match=r"folder\.json: cannot read .*: Is a directory"):
        get_skeleton(str(tmp_path / "folder.json"))


def test_built_in_names_are_found_in_any_case_and_others_listed():
    assert get_skeleton("CoCo17") is COCO17
    with pytest.raises(SchemaError, match="no skeleton 'boat': give lsp14, mpii16, coco17"):
        get_skeleton("boat")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left_hip", "right_hip"], [("left_hip", "right_hip")]),
        (["right_hip", "left_hip"], [("left_hip", "right_hip")]),
        (["mouth_left", "mouth_right"], [("mouth_left", "mouth_right")]),
        (["L_hip", "R_hip"], [("L_hip", "R_hip")]),
        (["hip_l", "hip_r"], [("hip_l", "hip_r")]),
        (["LeftHip", "RightHip"], [("LeftHip", "RightHip")]),
        (["Left Hip", "Right Hip"], [("Left Hip", "Right Hip")]),
        (["LShoulder", "RShoulder"], [("LShoulder", "RShoulder")]),
        (["lEye", "rEye"], [("lEye", "rEye")]),
        (["eyeL", "eyeR"], [("eyeL", "eyeR")]),
        (["lf_paw", "rf_paw", "lh_paw", "rh_paw"], [("lf_paw", "rf_paw"), ("lh_paw", "rh_paw")]),
        (["fl", "fr", "rl", "rr"], [("fl", "fr"), ("rl", "rr")]),
        (["L1", "R1", "L2"], [("L1", "R1")]),
        (["LEFT_EYE", "RIGHT_EYE"], [("LEFT_EYE", "RIGHT_EYE")]),
        (["leftEye", "rightEye"], [("leftEye", "rightEye")]),
        (["light", "right", "left"], [("left", "right")]),
        (["right_eye", "reye", "leye"], [("leye", "reye")]),
        (["tail", "nose", "lower_lip", "lEar", "elbow_l"], []),
        (["nose", "left_eye"], []),
        (["ball", "barr"], []),
        (["left", "right"], [("left", "right")]),
        (["upper_left_left", "upper_right_right"], []),
        (
            ["l_left", "r_left", "l_right", "r_right"],
            [("l_left", "l_right"), ("r_left", "r_right")],
        ),
    ],
)
def test_flip_pairs_are_read_off_the_names(names, pairs):
    assert list(flip_pairs_by_name(names)) == pairs


words = st.lists(
    st.sampled_from(
        ["l", "r", "L", "left", "right", "Left", "eye", "Eye", "paw", "1", "_", "lf", "rf"]
    ),
    max_size=4,
)


@given(st.lists(words.map("".join).filter(bool), min_size=1, max_size=8, unique=True))
def test_pairs_differ_in_their_side_alone_and_none_is_made_up(names):
    pairs = flip_pairs_by_name(names)
    seen = [name for pair in pairs for name in pair]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(names)
    for left, right in pairs:
        words = left.lower(), right.lower()
        if "left" in words[0]:
            assert words[1] == words[0].replace("left", "right")
        else:
            odd = [pair for pair in zip(*words, strict=True) if len(set(pair)) > 1]
            assert odd == [("l", "r")]
            assert not any(side in word for word in words for side in ("left", "right"))


@given(words.map("".join), words.map("".join))
def test_every_name_that_says_left_finds_the_one_that_says_right(before, behind):
    left, right = f"{before}left{behind}", f"{before}right{behind}"
    assume(left.lower().count("left") == 1)
    assert (left, right) in flip_pairs_by_name(["lf", "rf", right, left])


def test_names_that_differ_in_case_alone_do_not_break_the_derivation():
    skeleton = Skeleton("odd", ("left_a", "LEFT_A", "right_a"))
    index = skeleton.flip_index
    np.testing.assert_array_equal(index[index], np.arange(3))


def test_a_file_that_only_costs_memory_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b" " * (16 << 20) + b"{}")
    with pytest.raises(FormatError, match=f"{path}: larger than 16,777,216 bytes"):
        load_skeleton(path)


def test_a_device_without_an_end_is_not_read_to_it():
    with pytest.raises(FormatError, match="a pipe or a device"):
        load_skeleton("/dev/zero")
