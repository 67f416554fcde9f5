"""A format is recognised by what annotations hold, and what is not recognised is described."""

import json
import os
import time
from pathlib import Path

import pytest
import scipy.io

import kpdata as kp
from kpdata.core.errors import FormatError, KpdataError
from kpdata.formats import recognise

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [],
    "categories": [{"id": 1, "name": "cat", "keypoints": ["nose"]}],
}


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def mat(path: Path, **variables) -> Path:
    scipy.io.savemat(path, variables)
    return path


def test_matlab_files_are_told_apart_by_their_arrays(tmp_path):
    import numpy as np

    lsp = mat(tmp_path / "a.dat", joints=np.zeros((3, 14, 5)))
    assert recognise(lsp).format.name == "lsp"
    assert recognise(lsp).evidence == "joints of shape (3, 14, 5)"
    lspet = mat(tmp_path / "lsp.mat", joints=np.zeros((14, 3, 5)))
    assert recognise(lspet).format.name == "lspet"
    mpii = mat(tmp_path / "b.mat", RELEASE={"annolist": 1.0})
    assert recognise(mpii).format.name == "mpii"
    other = mat(tmp_path / "c.mat", joints=np.zeros((3, 16, 5)), names=np.zeros(2))
    with pytest.raises(
        FormatError, match=r"a MATLAB file with 'joints' \(3, 16, 5\), 'names' \(1, 2"
    ):
        recognise(other)


@pytest.mark.parametrize("suffix", [".json", ".txt", ""])
def test_coco_is_recognised_whatever_the_files_name(tmp_path, suffix):
    found = recognise(write(tmp_path / f"labels{suffix}", COCO))
    assert (found.format.name, found.evidence) == (
        "coco",
        "its keys images, annotations, categories",
    )


@pytest.mark.parametrize("first", ["images", "annotations"])
def test_a_coco_file_too_large_to_look_through_is_recognised_by_its_first_array(tmp_path, first):
    entry = {"images": {"id": 1, "file_name": "a.jpg"}, "annotations": {"id": 1, "image_id": 1}}
    rest = {key: value for key, value in COCO.items() if key != first}
    content = {first: [entry[first] | {"id": i} for i in range(60_000)], **rest}
    path = write(tmp_path / "a.json", content)
    assert path.stat().st_size > 1 << 20
    assert recognise(path).format.name == "coco"


def test_a_folder_of_one_readable_file_stands_for_it(tmp_path):
    path = write(tmp_path / "set/person.json", COCO)
    write(tmp_path / "set/README.md", "# about")
    write(tmp_path / "set/train2017/a.jpg", "no annotation")
    assert recognise(tmp_path / "set").path == path


def test_two_readable_files_are_a_question(tmp_path):
    for name in ("train.json", "val.json"):
        write(tmp_path / name, COCO)
    with pytest.raises(FormatError) as caught:
        recognise(tmp_path)
    said = str(caught.value)
    assert "could be read in 2 ways" in said
    assert f"{tmp_path / 'train.json'}: coco, by its keys" in said
    assert "train=a.json val=b.json" in said


def test_yolo_is_recognised_by_kpt_shape(tmp_path):
    path = write(tmp_path / "data.yaml", "kpt_shape: [17, 3]\nnames: [person]\ntrain: images\n")
    assert recognise(path).format.name == recognise(tmp_path).format.name == "yolo"
    boxes = write(tmp_path / "boxes/data.yaml", "names: [person]\ntrain: images\n")
    with pytest.raises(FormatError, match="a YAML file with the keys 'names', 'train'"):
        recognise(boxes)


def test_deeplabcut_is_recognised_by_project_labels_and_table(tmp_path):
    rows = "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\nlabeled-data/v/a.png,1,2\n"
    table = write(tmp_path / "p/labeled-data/v/CollectedData_me.csv", rows)
    for path in (tmp_path / "p", tmp_path / "p/labeled-data", table):
        assert recognise(path).format.name == "deeplabcut"
    with pytest.raises(FormatError, match="a CSV file that begins with 'a', 'b'"):
        recognise(write(tmp_path / "x.csv", "a,b\n1,2\n"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"shapes": [{"label": "nose", "points": [[1, 2]]}], "imagePath": "a.jpg"}, "labelme"),
        ([{"keypoints": [[1, 2]], "box": [0, 0, 1, 1]}], "json"),
        ({"keypoints": [[[1, 2, 2]]], "bboxes": [[0, 0, 1, 1]]}, "json"),
        ({"nose": [1, 2], "tail": None}, "json"),
    ],
)
def test_folders_of_json_files_are_recognised_by_the_first(tmp_path, content, name):
    write(tmp_path / "a" / "one.json", content)
    write(tmp_path / "a" / "._one.json", "a Mac's own")
    assert recognise(tmp_path / "a").format.name == name


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xml", "<?xml version='1.0'?>\n<annotations><image/></annotations>",
         "an XML file with the root element annotations"),
        ("a.json", [{"image_id": 1, "keypoints": [1, 2, 3], "score": 0.5}],
         "a JSON list of objects with the keys 'image_id', 'keypoints', 'score'"),
        ("a.json", {"predictions": [], "meta": {"images": 3}},
         "a JSON file with the keys 'predictions', 'meta'"),
        ("a.bin", "\x00\x01", r"a file that begins with b'\x00\x01'"),
        ("a.json", "", "an empty file"),
    ],
)  # fmt: skip
def test_what_is_not_recognised_is_described_with_what_could_be(tmp_path, name, content, said):
    with pytest.raises(FormatError) as caught:
        recognise(write(tmp_path / name, content))
    assert said in str(caught.value)
    assert "lsp, lspet, mpii, coco, yolo" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", '{"a": "' + '\\"' * 500_000), ("a.json", '{"a": "' + "x" * 900_000),
     ("a.xml", "<!>" * 200_000 + "#"), ("a.xml", " " * 900_000), ("a.xml", "<!--" * 100_000),
     ("a.csv", "x" * 900_000 + "\n"), ("a.json", "[" * 900_000), ("a.json", '{"a":' * 200_000)],
)  # fmt: skip
def test_nothing_in_a_file_takes_long(tmp_path, name, content):
    path = write(tmp_path / name, content)
    started = time.process_time()
    with pytest.raises(FormatError, match="of no format"):
        recognise(path)
    assert time.process_time() - started < 5


def test_an_xml_file_may_begin_with_comments_and_a_doctype(tmp_path):
    text = "<?xml version='1.0'?>\n<!DOCTYPE a>\n<!-- <b> -->\n<annotation x='1'>"
    with pytest.raises(FormatError, match="with the root element annotation"):
        recognise(write(tmp_path / "a.xml", text))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", {"shapes": [], "imagePath": "a.jpg"}, "give the folder of labelme's files"),
        ("a.json", {"nose": [1, 2]}, "give the folder of the JSON files, one per image"),
        ("config.yaml", "scorer: me\nbodyparts: [a]\n", "the folder of DeepLabCut's project"),
        ("data.yaml", "names: [a]\ntrain: images\n", "data.yaml has no kpt_shape"),
    ],
)  # fmt: skip
def test_what_is_almost_of_a_format_says_what_to_give(tmp_path, name, content, said):
    with pytest.raises(FormatError, match=said):
        recognise(write(tmp_path / name, content))


def test_a_folder_for_each_split_says_what_to_type(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split / "_annotations.coco.json", COCO)
    with pytest.raises(FormatError) as caught:
        recognise(tmp_path)
    assert f"train={tmp_path / 'train'} val={tmp_path / 'valid'}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x1f\x8b\x08", "a gzip file"), (b"PK\x03\x04", "a zip file"), (b"\x89HDF\r\n", "HDF5"),
     ("{}".encode("utf-16"), "UTF-16"), (b"version https://git-lfs.x", "Git LFS")],
)  # fmt: skip
def test_files_of_other_kinds_are_called_by_their_names(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FormatError, match=said):
        recognise(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.json", "data.yaml", "kpdata.json"])
def test_a_pipe_keeps_nobody_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(KpdataError):
            kp.read(path)
    with pytest.raises(FormatError, match="is a pipe or a device"):
        kp.read(tmp_path / name, format="coco")


def test_another_tools_json_does_not_hide_a_folder(tmp_path):
    write(tmp_path / "aaa_settings.json", {"theme": "dark"})
    write(tmp_path / "one.json", {"shapes": [{"label": "nose", "points": [[1, 2]]}]})
    assert recognise(tmp_path).format.name == "labelme"


def test_nothing_and_empty_folders_say_so(tmp_path):
    with pytest.raises(FormatError, match="no such file or folder"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="an empty folder"):
        recognise(tmp_path)


def test_real_data_is_recognised(real_data):
    assert recognise(real_data / "lsp").format.name == "lsp"
    assert recognise(real_data / "coco_mini").format.name == "coco"
