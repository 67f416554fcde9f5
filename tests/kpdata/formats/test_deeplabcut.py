"""DeepLabCut: a project's folder of labelled videos."""

import csv
import io
import os
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.sample import Rejected
from kpdata.formats import read
from kpdata.formats.deeplabcut.project import FAULTY_EDGES, NO_LABELS, OTHER_SCORERS
from kpdata.formats.deeplabcut.read import AT_ORIGIN, HALF, SHORT, UNIQUE_PARTS, UNLABELLED

PARTS = ("nose", "left_ear", "right_ear")
EMPTY = ("", "")
POINTS = [(10, 20), (30.5, 4), EMPTY]
CONFIG = {
    "Task": "mice",
    "scorer": "me",
    "bodyparts": list(PARTS),
    "skeleton": [["nose", "left_ear"], ["nose", "right_ear"]],
}


def table(images, parts=PARTS, animals=None, single=(), video="walk", index=3, scorer="me"):
    """A CSV: image → the points of all animals, then of ``single``, a bodypart each.

    ``index`` cells name an image; ``animals`` of None are a project of one.
    """
    owned = [(animal, part) for animal in animals or [""] for part in parts]
    owned += [("single", part) for part in single]
    twice = [each for each in owned for _ in "xy"]
    head = {"scorer": [scorer] * len(twice), "individuals": [owner for owner, _ in twice]}
    if animals is None:
        del head["individuals"]
    head |= {"bodyparts": [part for _, part in twice], "coords": ["x", "y"] * len(owned)}
    rows = [[kind, *[""] * (index - 1), *cells] for kind, cells in head.items()]
    for name, points in images.items():
        place = ["labeled-data", video, name]
        rows.append([*(place if index == 3 else ["/".join(place)]), *np.ravel(points)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@pytest.fixture
def project(tmp_path):
    """``project({video: text}, **config)``: a project's folder, without images."""

    def make(tables, **config):
        for video, text in tables.items():
            path = tmp_path / "labeled-data" / video / "CollectedData_me.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
        return tmp_path

    return make


def one(project, text=None, **config):
    return project({"walk": text or table({"1.png": POINTS})}, **config)


def samples(path, **options):
    source = read("deeplabcut", path, **options)
    return list(source.samples), source


def test_an_image_is_a_sample_and_its_animal_an_instance(project):
    folder = one(project, table({"1.png": POINTS, "2.png": [EMPTY] * 3}))
    (first, second), source = samples(folder)
    (mouse,) = first.instances
    assert mouse.keypoints.tolist() == [[10.5, 20.5, 2], [31, 4.5, 2], [0, 0, 0]]
    assert mouse.bbox_xyxy is None
    assert (mouse.category, mouse.id) == ("animal", 1)
    assert (first.key, first.group, first.split) == (
        "labeled-data/walk/1.png", "labeled-data/walk", None,
    )  # fmt: skip
    assert first.image.uri == str(folder / "labeled-data/walk/1.png")
    assert second.instances == ()
    assert (source.skeleton.name, source.skeleton.keypoints) == ("mice", PARTS)
    assert source.skeleton.edges == (("nose", "left_ear"), ("nose", "right_ear"))
    assert source.skeleton.flip_pairs == (("left_ear", "right_ear"),)
    assert (source.images_root, source.has_boxes) == (folder, False)
    assert source.groups_from_names
    assert source.counts == Counter({UNLABELLED: 1})


COORDINATE = st.floats(-1000, 1000, width=32).filter(lambda value: value != 0)
POINT = st.one_of(st.just(EMPTY), st.tuples(COORDINATE, COORDINATE))
IMAGES = st.dictionaries(
    st.from_regex(r"\Aimg[0-9]{1,4}\.png\Z"), st.lists(POINT, min_size=6, max_size=6), max_size=4
)


@given(images=IMAGES, index=st.sampled_from([1, 3]), old=st.sampled_from("/\\"),
       end=st.sampled_from(["\n", "\r\n", "\r"]), bom=st.sampled_from(["", "\ufeff"]))  # fmt: skip
def test_what_is_written_comes_back(tmp_path_factory, images, index, old, end, bom):
    folder = tmp_path_factory.mktemp("dlc") / "labeled-data/walk"
    folder.mkdir(parents=True)
    text = table(images, animals=["a", "b"], index=index).replace("/", old)
    (folder / "CollectedData_me.csv").write_bytes((bom + text.replace("\n", end)).encode())
    found, _ = samples(folder.parent)
    assert [sample.key for sample in found] == [f"labeled-data/walk/{name}" for name in images]
    for sample, points in zip(found, images.values(), strict=True):
        animals = [points[:3], points[3:]]
        labelled = [any(point != EMPTY for point in animal) for animal in animals]
        assert [i.id for i in sample.instances] == [n + 1 for n in (0, 1) if labelled[n]]
        for instance in sample.instances:
            for keypoint, point in zip(
                instance.keypoints.tolist(), animals[instance.id - 1], strict=True
            ):
                expected = [0, 0, 0] if point == EMPTY else [point[0] + 0.5, point[1] + 0.5, 2]
                assert keypoint == pytest.approx(expected, abs=1e-3)


def test_unique_bodyparts_are_left_out_and_counted(project):
    text = table(
        {"1.png": [*POINTS, *[EMPTY] * 3, (1, 1), EMPTY], "2.png": [*POINTS * 2, *[(2, "?")] * 2]},
        animals=["a", "b"], single=["corner_1", "corner_2"],
    )  # fmt: skip
    found, source = samples(one(project, text))
    assert source.skeleton.keypoints == PARTS
    assert [len(sample.instances) for sample in found] == [1, 2]
    assert source.counts == Counter({UNIQUE_PARTS: 3})


def test_an_animal_may_lack_columns(project):
    text = table({"1.png": [(1, 2), (3, 4)]}, parts=["nose"], animals=["a", "b"])
    text = text.replace("nose,nose,nose,nose", "nose,nose,tail,tail")
    ((sample,), source) = samples(one(project, text))
    assert source.skeleton.keypoints == ("nose", "tail")
    assert [i.visibility.tolist() for i in sample.instances] == [[2, 0], [0, 2]]


def test_order_is_mended_by_name(project):
    turned = table({"1.png": [(7, 8), (5, 6), (3, 4)]}, parts=PARTS[::-1], video="run")
    folder = project({"run": turned, "walk": table({"1.png": [(3, 4), (5, 6), (7, 8)]})})
    (run, walk), source = samples(folder)
    assert source.skeleton.keypoints == PARTS[::-1]
    assert run.instances[0].keypoints.tolist() == walk.instances[0].keypoints.tolist()
    assert (run.group, walk.group) == ("labeled-data/run", "labeled-data/walk")


def test_what_is_not_labelled(project):
    text = table({"1.png": [("NaN", "nan"), (0, 0.0), (3, "")], "2.png": [(0, 5), (-1, -2), EMPTY]})
    (first, second), source = samples(one(project, text))
    assert first.instances == ()
    assert second.instances[0].keypoints.tolist() == [[0.5, 5.5, 2], [-0.5, -1.5, 2], [0, 0, 0]]
    assert source.counts == Counter({AT_ORIGIN: 1, HALF: 1, UNLABELLED: 1})


@pytest.mark.parametrize("cell", ["left", "10,5", "inf", "-1e9"])
def test_a_cell_at_fault_costs_one_image(project, cell):
    text = table({"1.png": [(cell, 20), *POINTS[1:]], "2.png": POINTS})
    folder = one(project, text)
    (bad, good), _ = samples(folder)
    assert isinstance(bad, Rejected)
    assert (bad.key, bad.reason) == ("labeled-data/walk/1.png", "bad keypoints")
    path = folder / "labeled-data/walk/CollectedData_me.csv"
    assert bad.detail == (
        f"{path}: line 4: x of nose is {cell!r}: expected a number within 1e+07 pixels, "
        "or an empty cell"
    )
    assert good.key == "labeled-data/walk/2.png"


def test_rows_cut_short_of_empty_cells_are_read_and_counted(project):
    text = table({"1.png": POINTS}) + "labeled-data,walk,2.png,1,2\nlabeled-data,walk,3.png\n"
    (_, second, third), source = samples(one(project, text))
    assert second.instances[0].keypoints.tolist() == [[1.5, 2.5, 2], [0, 0, 0], [0, 0, 0]]
    assert third.instances == ()
    assert source.counts == Counter({SHORT: 2, UNLABELLED: 1})


def test_an_image_has_one_name_and_one_video(project):
    text = table({"1.png": POINTS}, index=1)
    more = ["./labeled-data/walk/2.png", "labeled-data//walk/./3.png"]
    numbers = ",".join(map(str, np.ravel(POINTS)))
    text += "".join(f"{name},{numbers}\n" for name in more)
    found, _ = samples(one(project, text))
    assert [sample.key for sample in found] == [f"labeled-data/walk/{n}.png" for n in (1, 2, 3)]
    assert {sample.group for sample in found} == {"labeled-data/walk"}


def test_a_lightning_pose_project_has_one_file_beside_its_images(tmp_path):
    (tmp_path / "labeled-data" / "walk").mkdir(parents=True)
    (tmp_path / "CollectedData.csv").write_text(table({"1.png": POINTS}, index=1))
    (sample,), _ = samples(tmp_path)
    assert sample.key == "labeled-data/walk/1.png"


def test_rows_at_fault_cost_one_image_each(project):
    text = table({"1.png": POINTS, "2.png": POINTS}) + (
        ",,,,,,,,\n\nlabeled-data,walk,3.png,1\nlabeled-data,walk,1.png,9,9,9,9,9,9\n"
        "labeled-data,walk,4.png,1,1,1,1,1,1\n,,,1,1,1,1,1,1\n"
    )
    found, _ = samples(one(project, text))
    assert [getattr(each, "reason", "") for each in found] == [
        "", "", "bad annotation", "image labelled twice", "", "bad annotation",
    ]  # fmt: skip
    assert "line 8: 4 cells: expected 9, as in the header" in found[2].detail
    assert "line 9: stands in line 4 too: keep one" in found[3].detail
    assert found[5].detail.endswith("line 11: names no image")


HEADER = "scorer,,,me,me\nbodyparts,,,nose,nose\ncoords,,,x,y\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n,,\n", "is empty: label some images"),
        (HEADER.replace(",", ";"), r"line 1: its cells are separated by ';'.*save it with commas"),
        (HEADER.replace(",", "\t"), r"line 1: its cells are separated by '\\t'"),
        ("file,x,y\n1.png,3,4\n", "line 1: begins with 'file': expected 'scorer'"),
        (HEADER.replace("bodyparts", "parts"), "line 2: begins with 'parts': expected 'bodyparts'"),
        ("scorer,me\nindividuals,a\nbodyparts,b\n1.png,3\n", "line 4: begins with '1.png'"),
        ("scorer,me\nbodyparts,a\n", "ends before its row 'coords'"),
        (HEADER.replace("nose,nose", "nose"), "line 2: 4 cells of bodyparts, but 5 of coords"),
        (HEADER.replace(",,,", ",,"), "line 3: the first coordinate is in column 3: expected"),
        (HEADER.replace(",x,y", ",,"), "line 3: names no coordinate"),
        (HEADER.replace("x,y", "x,z"), "column 5: 'z' of 'nose': expected x or y"),
        (HEADER.replace("x,y", "x,x"), "column 5: 'x' of 'nose': column 4 is that, too: keep one"),
        (HEADER.replace("nose,nose", "nose,tail"), "'nose' has a column of x alone"),
        (HEADER.replace("x,y", "x,likelihood"), "column 5: 'likelihood'.*what a network predicted"),
        (HEADER.replace("nose", ""), "keypoints: the name '' is empty"),
        (HEADER + "a" * (1 << 20) + "\n", "line 4: longer than 1,048,576 characters"),
        (HEADER + '"labeled', "line 4: not CSV: unexpected end of data"),
        (HEADER + f'"{"a" * 140_000}",\n', "line 4: not CSV: field larger than field limit"),
        ("scorer,a,a\nindividuals,single,single\nbodyparts,c,c\ncoords,x,y\n",
         "has no animal's bodyparts, only unique ones"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_labels_is_refused(project, text, says):
    folder = one(project, text)
    with pytest.raises((FormatError, SchemaError), match=rf"CollectedData_me\.csv: .*{says}"):
        samples(folder)


@pytest.mark.parametrize("end", [b"\xff\n", "\n".join("ü1").encode("utf-16")])
def test_other_encodings_are_refused(project, end):
    folder = one(project)
    path = folder / "labeled-data/walk/CollectedData_me.csv"
    path.write_bytes(path.read_bytes() + end)
    with pytest.raises(FormatError, match=r"CollectedData_me\.csv: not UTF-8 text \(.*CSV UTF-8"):
        samples(folder)


@pytest.mark.parametrize(
    ("others", "says"),
    [
        (("nose", "left_ear"), r"walk/.* has no 'right_ear', unlike .*/run/.*: all need the same"),
        ((*PARTS, "tail"), "run/.* has no 'tail', unlike .*/walk/.*columns of empty cells will do"),
    ],
)
def test_other_bodyparts_are_refused(project, others, says):
    folder = project({"run": table({}), "walk": table({}, parts=others)})
    with pytest.raises(FormatError, match=says):
        read("deeplabcut", folder)


def test_a_project_is_found_from_each_of_its_places(project, monkeypatch):
    folder = one(project)
    file = folder / "labeled-data/walk/CollectedData_me.csv"
    merged = folder / "training-datasets/iteration-0/set/CollectedData_me.csv"
    merged.parent.mkdir(parents=True)
    merged.write_text(table({"1.png": POINTS}, index=1))
    for place in (folder, folder / "labeled-data", file, merged):
        (sample,), source = samples(place)
        assert source.images_root == folder
        assert (sample.key, source.skeleton.name) == ("labeled-data/walk/1.png", "mice")
        assert source.annotation_files[1:] == (folder / "config.yaml",)
    monkeypatch.chdir(folder / "labeled-data")
    assert samples(file.parent.parent.relative_to(folder / "labeled-data"))[1].images_root == folder


def test_images_may_lie_elsewhere(project, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    (sample,), source = samples(one(project), images=away)
    assert source.images_root == away
    assert sample.image.uri == str(away / "labeled-data/walk/1.png")


def test_a_file_without_a_project_has_its_images_two_up(tmp_path):
    file = tmp_path / "frames/walk/CollectedData_me.csv"
    file.parent.mkdir(parents=True)
    file.write_text(table({"1.png": POINTS}))
    (tmp_path / "config.yaml").write_text("- another tool's")
    (_,), source = samples(file)
    assert source.images_root == tmp_path
    assert (source.skeleton.name, source.skeleton.edges) == ("animal", ())
    assert source.annotation_files == (file,)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "holds no labeled-data: give the project's folder, its labeled-data, or one"),
        ("config.yaml", "expected the project's folder, or a CollectedData_SCORER.csv"),
        ("CollectedData_me.h5", "HDF5 is not read: copy the CSV of the same name too"),
        ("none", "no such file"),
    ],
)
def test_other_places_are_refused(tmp_path, name, says):
    for each in ("config.yaml", "CollectedData_me.h5"):
        (tmp_path / each).touch()
    with pytest.raises(FormatError, match=says):
        read("deeplabcut", tmp_path / name)


def test_a_video_of_hdf5_alone_is_refused(project):
    folder = one(project)
    (folder / "labeled-data/run").mkdir()
    (folder / "labeled-data/run/CollectedData_me.h5").touch()
    with pytest.raises(FormatError, match=r"run/CollectedData_me\.h5: HDF5 is not read"):
        read("deeplabcut", folder)


def test_videos_without_labels_are_counted(project):
    folder = one(project)
    for name in ("run", "walk_labeled", ".hidden"):
        (folder / "labeled-data" / name).mkdir()
    assert samples(folder)[1].counts == Counter({NO_LABELS: 2})
    (folder / "labeled-data/walk/CollectedData_me.csv").unlink()
    with pytest.raises(FormatError, match=r"labeled-data: holds no VIDEO/CollectedData_SCORER.csv"):
        read("deeplabcut", folder)


def test_the_scorer_of_the_config_counts(project):
    folder = one(project)
    video = folder / "labeled-data/walk"
    (video / "CollectedData_mewindows.csv").write_text("a backup")
    (_,), source = samples(folder)
    assert source.counts == Counter({OTHER_SCORERS: 1})
    one(project, scorer="you")
    says = r"walk: holds CollectedData_me.csv and CollectedData_mewindows.csv: keep one, or name"
    with pytest.raises(FormatError, match=says):
        read("deeplabcut", folder)
    (video / "CollectedData_mewindows.csv").unlink()
    assert len(samples(folder)[0]) == 1


def test_edges_of_unknown_names_are_left_out_and_counted(project):
    drawn = [["nose", "left_ear"], ["nose", "left_ear"], ["nose", "tail"], ["nose"], "nose",
             ["nose", "nose"], ["nose", "left_ear", "right_ear"], [["nose"], {}]]  # fmt: skip
    _, source = samples(one(project, skeleton=drawn))
    assert source.skeleton.edges == (("nose", "left_ear"),)
    assert source.counts == Counter({FAULTY_EDGES: 6})
    assert samples(one(project, skeleton=None))[1].skeleton.edges == ()


def test_numbers_are_names_too(project):
    text = table({"1.png": [(1, 2), (3, 4)]}, parts=["1", "2"], scorer="7")
    folder = one(project, text, scorer=7, skeleton=[[1, 2]])
    with open(folder / "config.yaml", "a") as config:
        config.write(f"Task: 0x{'f' * 5000}\n")
    file = folder / "labeled-data/walk/CollectedData_me.csv"
    file.rename(file.with_name("CollectedData_7.csv"))
    file.write_text("another scorer's")
    _, source = samples(folder)
    assert (source.skeleton.name, source.skeleton.edges) == ("animal", (("1", "2"),))


@pytest.mark.parametrize("text", ["[", "a: b: c", "\x00", "a: !!float x"])
def test_a_config_that_is_no_yaml_is_refused(project, text):
    folder = one(project)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"config.yaml: not YAML: "):
        read("deeplabcut", folder)


@pytest.mark.parametrize("text", ["", "just words", "- scorer"])
def test_a_config_of_something_else_is_refused(project, text):
    folder = one(project)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"config.yaml: expected the keys of a DeepLab"):
        read("deeplabcut", folder)


def test_no_tag_is_obeyed(project):
    folder = one(project)
    made = folder / "made"
    (folder / "config.yaml").write_text(f"Task: !!python/object/apply:os.mkdir ['{made}']")
    with pytest.raises(FormatError, match="could not determine a constructor"):
        read("deeplabcut", folder)
    assert not made.exists()


def test_aliases_do_not_grow(project):
    folder = one(project)
    links = "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(40))
    config = f"a0: &a0 [nose]\n{links}Task: *a40\nskeleton: *a40\nscorer: *a40\n"
    (folder / "config.yaml").write_text(config)
    _, source = samples(folder)
    assert source.skeleton.name == "animal"
    assert source.counts == Counter({FAULTY_EDGES: 9})


@pytest.mark.parametrize("name", ["config.yaml", "labeled-data/walk/CollectedData_me.csv"])
def test_a_link_out_of_the_project_is_refused(project, name, tmp_path_factory):
    folder = one(project)
    away = tmp_path_factory.mktemp("away") / "file"
    os.replace(folder / name, away)
    (folder / name).symlink_to(away)
    with pytest.raises(FormatError, match=rf"{name}: cannot be read: is a symlink that leads out"):
        read("deeplabcut", folder)
