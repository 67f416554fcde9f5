"""The front door: what ``import kpdata as kp`` offers, by its own examples and by contract."""

import doctest
import importlib
import inspect
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from PIL import Image

import kpdata as kp
from kpdata.cli.convert import command as convert_command
from kpdata.core.errors import (
    DatasetError,
    FormatError,
    ImageError,
    KpdataError,
    KpdataWarning,
)
from kpdata.core.progress import Progress
from kpdata.core.skeletons import COCO17
from kpdata.door import CONVERSION_DEFAULTS, CONVERSION_OPTIONS
from kpdata.pipelines.request import Request
from kpdata.view.picture import Picture, thumbnails

WITH_EXAMPLES = (
    "kpdata", "kpdata.door", "kpdata.pipelines.request", "kpdata.core.flip_pairs",
    "kpdata.formats.yolo.read", "kpdata.labels", "kpdata.dataset", "kpdata.view.picture",
    "kpdata.core.progress", "kpdata.core.errors", "kpdata.core.sizes", "kpdata.formats.base",
    "kpdata.formats._lib.writing",
    "kpdata.cli.flags",
)  # fmt: skip


@pytest.fixture(scope="module")
def forty(make_coco, tmp_path_factory):
    """Forty pictures, as annotations and as crops of 64 px: what the examples are run on."""
    folder = tmp_path_factory.mktemp("forty")
    annotations = make_coco(folder, 40)
    kp.convert(annotations, folder / "shards", crop=64, seed=1, workers=1, progress=False)
    return annotations, folder / "shards"


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_are_true(name, forty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    annotations, shards = forty
    module = importlib.import_module(name)
    known = {**vars(module), "annotations": annotations, "shards": shards, "out": tmp_path}
    failed, tried = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


@pytest.mark.parametrize("name", [n for n in kp.__all__ if inspect.isclass(getattr(kp, n))])
def test_every_public_class_has_an_example(name):
    assert ">>> " in (getattr(kp, name).__doc__ or "")


def test_importing_the_door_costs_nothing_and_lists_what_it_has():
    code = (
        "import sys, kpdata; heavy = {'numpy', 'cv2', 'PIL', 'tensorflow', 'apache_beam', 'keras'};"
        "print(sorted(heavy & set(sys.modules)), dir(kpdata))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"[] {sorted(kp.__all__)}"


def test_train_stays_callable_whatever_was_imported_before():
    code = (
        "import kpdata as kp; first = callable(kp.train); kp.Run; import kpdata.train.api; "
        "print(first, callable(kp.train), callable(kp.evaluate))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True", "True"]


def test_what_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'kpdata' has no attribute 'walk'"):
        kp.walk  # noqa: B018


def test_keywords_of_convert_are_the_command_lines_options():
    typed = {parameter.name for parameter in convert_command.params}
    own = {"out", "to", "quiet", "as_json", "help"}
    assert typed - own == CONVERSION_OPTIONS - {"beam_options"}


def test_defaults_of_convert_are_those_of_a_request():
    defaults = {field.name: field.default for field in msgspec.structs.fields(Request)}
    found_out = {"to_skeleton", "split", "crop_from", "augment_config"}  # None until then
    names = CONVERSION_OPTIONS - found_out
    assert {n: CONVERSION_DEFAULTS[n] for n in names} == {n: defaults[n] for n in names}


@pytest.mark.parametrize(
    ("options", "margin"),
    [
        ({}, 1.25),
        ({"crop_from": "keypoints"}, 1.25),
        ({"crop_from": "image"}, 1.0),
        ({"crop_from": "image", "margin": 1.5}, 1.5),
    ],
)
def test_a_crop_of_the_whole_image_has_no_margin_unless_one_is_named(
    options, margin, forty, tmp_path
):
    ds = kp.convert(forty[0], tmp_path / "out", crop=32, workers=1, progress=False, **options)
    assert ds.manifest.options["margin"] == margin


def test_defaults_of_the_command_line_are_those_of_convert():
    context = convert_command.make_context("convert", [], resilient_parsing=True)
    typed = {option.name: option.get_default(context) for option in convert_command.params}
    assert typed.pop("shard_size") == "128M"
    assert CONVERSION_DEFAULTS["shard_size"] == 128_000_000
    names = CONVERSION_OPTIONS & typed.keys()
    given = {n: typed[n] for n in names if isinstance(typed[n], str | int | float)}
    assert {"seed", "augment", "exif", "max_quarantine"} <= given.keys()
    assert given == {name: CONVERSION_DEFAULTS[name] for name in given}


def test_progress_is_told_what_was_recognised(forty):
    class Lines(Progress):
        def __init__(self):
            self.told = []

        def tell(self, text):
            self.told.append(text)

    lines = Lines()
    kp.read(forty[0], progress=lines)
    (line,) = lines.told
    assert (
        line == f"{forty[0]}: format coco, recognised by its keys images, annotations, categories"
    )


def test_warnings_reach_those_who_see_no_progress(forty, tmp_path):
    for progress in (False, None):
        out = tmp_path / f"{progress}"
        with pytest.warns(KpdataWarning, match=r"split val is empty"):
            kp.convert(forty[0], out, split="98/2", group="^(.)", progress=progress)


@pytest.mark.parametrize("split", ["../oops", "val-x", "a b", "", 3])
def test_a_split_of_another_name_is_refused(forty, split):
    with pytest.raises(FormatError, match="for a split's name: expected lower-case letters"):
        kp.read({"train": forty[0], split: forty[0]})
    with pytest.raises(FormatError, match="annotations is empty"):
        kp.read({})


# --- labels ---------------------------------------------------------------------------------------


def test_labels_are_a_sequence_of_pictures_in_the_files_order(forty):
    labels = kp.read(str(forty[0]))
    assert len(labels) == 40
    assert [picture.name for picture in labels] == sorted(picture.name for picture in labels)
    assert labels[-1].name == labels[39].name
    with pytest.raises(IndexError):
        labels[40]
    assert all(isinstance(picture, Picture) for picture in labels[3:5])
    assert labels[0].pixels().shape == (48, 64, 3)
    assert labels[0].draw(128).shape == (96, 128, 3)


def test_labels_can_be_converted_again_and_again_and_after_a_look(forty, tmp_path):
    labels = kp.read(forty[0])
    first = kp.convert(labels, tmp_path / "a", progress=False)
    assert len(labels) == 40
    second = kp.convert(labels, tmp_path / "b", progress=False)
    assert (
        first.root_hash
        == second.root_hash
        == kp.convert(forty[0], tmp_path / "c", progress=False).root_hash
    )


def test_what_cannot_be_used_is_listed_with_its_reason(forty, tmp_path):
    text = forty[0].read_text().replace('"area": ', '"area": -', 1)
    (tmp_path / "a.json").write_text(text)
    labels = kp.read(tmp_path / "a.json", forty[0].parent / "images")
    assert len(labels) == 39
    (rejected,) = labels.rejected
    assert rejected.reason == "bad area"


def test_files_for_splits_are_one_sequence(forty, tmp_path):
    labels = kp.read({"train": forty[0], "val": forty[0]})
    assert len(labels) == 80
    assert {picture.split for picture in labels} == {"train", "val"}
    with pytest.raises(FormatError, match="`images` test=…: no annotations are called test"):
        kp.read({"train": forty[0]}, {"test": tmp_path})
    with pytest.raises(FormatError, match="`images` names 2 folders for all: name one"):
        kp.read({"train": forty[0], "val": forty[0]}, {"": [tmp_path, tmp_path]})


@pytest.mark.parametrize("name", ["../secret.png", "{folder}/secret.png"])
def test_pictures_outside_the_images_folder_are_not_opened(forty, tmp_path, name):
    images = shutil.copytree(forty[0].parent / "images", tmp_path / "images")
    Image.new("RGB", (64, 48)).save(tmp_path / "secret.png")
    outside = name.format(folder=tmp_path)
    (tmp_path / "a.json").write_text(forty[0].read_text().replace("000001.jpg", outside))
    labels = kp.read(tmp_path / "a.json", images)
    assert labels[0].name == outside
    with pytest.raises(ImageError, match=r"leads out of|is absolute|outside"):
        labels[0].pixels()
    assert "<img" in labels._repr_html_()  # the others are shown all the same


def test_labels_of_shards_are_read_again_from_their_records(forty):
    labels = kp.read(forty[1])
    assert labels[0].pixels().shape == (64, 64, 3)
    assert labels[0].image.data is None


def test_threads_may_share_labels_and_splits(forty):
    labels, train = kp.read(forty[0]), kp.open(forty[1])["train"]
    names = [picture.name for picture in labels]
    samples = [picture.sample for picture in train]
    fresh = kp.open(forty[1])["train"]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: labels[i].name, list(range(40)) * 20)) == names * 20
        assert list(pool.map(fresh.sample, list(range(50)) * 4)) == samples * 4


def test_labels_are_pickled_without_what_is_open(forty):
    labels = kp.read(forty[0])
    copy = pickle.loads(pickle.dumps(labels))
    assert [picture.name for picture in copy] == [picture.name for picture in labels]


def test_names_of_skeletons_are_no_markup_either(forty, tmp_path):
    (tmp_path / "a.json").write_text(forty[0].read_text().replace('"person"', '"<i>person"'))
    content = json.loads((tmp_path / "a.json").read_text())
    content["categories"][0]["keypoints"][0] = "<b>nose"
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = kp.read(tmp_path / "a.json", forty[0].parent / "images")
    ds = kp.convert(labels, tmp_path / "shards", progress=False)
    assert "<i>" not in labels._repr_html_() + ds._repr_html_() + ds["train"]._repr_html_()


def test_a_notebook_shows_pictures_and_counts(forty):
    shown = kp.read(forty[0])._repr_html_()
    assert shown.count("<img") == 4
    assert "<td>images</td><td>40</td>" in shown
    shards = kp.open(forty[1])
    assert "<th>occluded %</th>" in shards._repr_html_()
    assert shards["train"]._repr_html_().count("<img") == 4
    assert shards["train"][0]._repr_png_().startswith(b"\x89PNG")


def test_names_out_of_files_are_no_markup(forty, tmp_path):
    name = "<b>.jpg"
    (tmp_path / name).write_bytes((forty[0].parent / "images/000001.jpg").read_bytes())
    (tmp_path / "a.json").write_text(forty[0].read_text().replace("000001.jpg", name))
    shown = kp.read(tmp_path / "a.json", tmp_path)[:1]
    assert "<b>" not in thumbnails(shown)
    assert "&lt;b&gt;.jpg" in thumbnails(shown)


def test_a_picture_cannot_be_shown_into_any_file(forty, tmp_path):
    picture = kp.read(forty[0])[0]
    with pytest.raises(DatasetError, match=r"path is .*a\.jpg: expected a name that ends in \.png"):
        picture.show(tmp_path / "a.jpg")
    with pytest.raises(DatasetError, match=r"nodir/a\.png: cannot be written"):
        picture.show(tmp_path / "nodir" / "a.png")


def test_a_picture_is_shown_into_a_file(forty, tmp_path):
    path = kp.read(forty[0])[0].show(tmp_path / "a.png", size=100)
    with Image.open(path) as image:
        assert image.size == (100, 75)


# --- datasets -------------------------------------------------------------------------------------


def test_records_are_found_by_index_as_they_are_in_order(forty):
    train = kp.open(forty[1])["train"]
    in_order = [picture.sample for picture in train]
    assert [train.sample(i) for i in range(len(train))] == in_order
    assert train[-1].sample == in_order[-1]
    assert [picture.sample for picture in train[5:1:-2]] == in_order[5:1:-2]
    with pytest.raises(IndexError):
        train[len(train)]


def test_keypoints_and_tables_hold_every_instance(forty):
    val = kp.open(forty[1])["val"]
    keypoints = val.keypoints()
    assert keypoints.shape == (5, 17, 3)
    frame = val.to_dataframe()
    assert list(frame.columns[:3]) == ["split", "key", "image"]
    assert len(frame) == 5 * 17
    found = frame[["x", "y", "visibility"]].to_numpy(np.float32)
    assert np.array_equal(found, keypoints.reshape(-1, 3))
    assert set(frame["keypoint"]) == set(COCO17.keypoints)


def test_tensorflow_gets_the_same(forty):
    pytest.importorskip("tensorflow")
    train = kp.open(forty[1])["train"]
    for split in (train, train[4:9]):
        found = list(split.to_tf().as_numpy_iterator())
        assert len(found) == len(split)
        for one, picture in zip(found, split, strict=True):
            assert one["filename"].decode() == picture.name
            assert np.array_equal(one["labels"], [i.category_id for i in picture.instances])
            assert np.allclose(one["keypoints"], picture.keypoints, atol=1e-3)
            boxes = [i.bbox_xyxy for i in picture.instances]
            assert np.allclose(one["boxes"], boxes, atol=1e-3)
            assert np.abs(one["image"].astype(int) - picture.pixels()).max() <= 16


def test_pytorch_gets_torchvisions_targets_also_in_other_processes(forty):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    train = kp.open(forty[1])["train"].to_torch()
    loader = torch.utils.data.DataLoader(train, num_workers=2, collate_fn=list)
    for (image, target), picture in zip((one for (one,) in loader), train._split, strict=True):
        assert torch.equal(image, torch.from_numpy(picture.pixels().transpose(2, 0, 1).copy()))
        assert torch.equal(target["keypoints"], torch.from_numpy(picture.keypoints))
        assert target["boxes"].dtype == torch.float32
        assert target["labels"].dtype == torch.int64


def test_torchvisions_targets_hold_every_instance(forty, monkeypatch):
    """With NumPy in the place of PyTorch, which need not be installed for it."""
    stand_in = SimpleNamespace(
        from_numpy=lambda array: array,
        tensor=lambda values, dtype: np.array(values, dtype),
        int64=np.int64,
        float32=np.float32,
    )
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    whole = kp.convert(forty[0], forty[1].parent / "whole", progress=False)["train"]
    train = pickle.loads(pickle.dumps(whole[2:9].to_torch()))
    assert len(train) == 7
    for index, picture in enumerate(whole[2:9]):
        image, target = train[index]
        assert np.array_equal(image, picture.pixels().transpose(2, 0, 1))
        assert np.array_equal(target["keypoints"], picture.keypoints)
        assert np.allclose(target["boxes"], [i.bbox_xyxy for i in picture.instances], atol=1e-4)
        assert target["labels"].tolist() == [i.category_id for i in picture.instances]
        assert target["area"] == pytest.approx([i.area for i in picture.instances])
        assert target["image_id"] == 2 + index


def test_a_missing_library_is_named(forty, monkeypatch):
    train = kp.open(forty[1])["train"]
    for name in ("torch", "pandas", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(KpdataError, match="to_torch needs PyTorch: pip install torch"):
        train.to_torch()[0]
    with pytest.raises(KpdataError, match="to_dataframe needs pandas"):
        train.to_dataframe()
    with pytest.raises(KpdataError, match="to_tf needs TensorFlow"):
        train.to_tf()


def test_a_damaged_dataset_is_named_by_check_and_by_a_look(forty, tmp_path):
    folder = shutil.copytree(forty[1], tmp_path / "shards")
    (shard,) = folder.glob("val-*.tfrecord")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert len(kp.check(folder, progress=False)) >= 1
    with pytest.raises(DatasetError, match="CRC"):
        [kp.open(folder)["val"][i] for i in range(5)]


def test_a_split_that_is_not_there_is_named_with_those_that_are(forty):
    with pytest.raises(DatasetError, match=r"has no split 'tset'; it has train, val, test"):
        kp.open(forty[1])["tset"]


def test_a_dataset_is_a_mapping_and_equal_to_itself(forty):
    ds = kp.open(forty[1])
    assert ds.get("tset") is None
    assert "tset" not in ds
    assert ds == kp.open(forty[1])
    assert ds != {}
    assert len({ds, kp.open(forty[1])}) == 1


def test_a_dataset_is_converted_and_written_as_annotations_are(forty, tmp_path):
    ds = kp.open(forty[1])
    again = kp.convert(ds, tmp_path / "again", progress=False)
    assert {name: len(again[name]) for name in again} == {name: len(ds[name]) for name in ds}
    with pytest.raises(FormatError, match="annotations are one split: give the dataset"):
        kp.convert(ds["train"], tmp_path / "x")


def test_annotations_go_to_another_format_and_back(forty, tmp_path):
    written = kp.write(forty[0], tmp_path / "yolo", format="YOLO-pose", progress=False)
    assert written["images"] == 40
    back = kp.read(tmp_path / "yolo")
    assert (back.format.name, len(back)) == ("yolo", 40)
    with pytest.raises(FormatError, match=r"format is 'lsp', which is not written .* coco, yolo"):
        kp.write(forty[0], tmp_path / "x", format="lsp")


def test_errors_name_parameters(forty, tmp_path):
    with pytest.raises(KpdataError, match=r"^crop is 9000: expected 8 to 8192"):
        kp.convert(forty[0], tmp_path / "x", crop=9000, progress=False)
    with pytest.raises(KpdataError, match=r"^split is 'half': expected percentages"):
        kp.convert(forty[0], tmp_path / "x", split="half", progress=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": 2.0}, "`margin` changes nothing without `crop`"),
        ({"crop_from": "image"}, "`crop_from` changes nothing without `crop`"),
        ({"shards": 3, "shard_size": 500}, "`shards` and `shard_size` exclude each other"),
        ({"shard_size": "many"}, "shard_size is 'many': expected a size such as 500K"),
        ({"split": 5}, "split is 5: expected text such as 80/10/10"),
        ({"split": "-10/100/10"}, "split is '-10/100/10': a part is negative"),
        ({"group": len}, "group is .*: expected a regular expression as text"),
        ({"max_quarantine": -3}, "max_quarantine is -3"),
    ],
)
def test_what_the_command_line_refuses_python_refuses_too(forty, tmp_path, options, said):
    with pytest.raises(KpdataError, match=f"^{said}"):
        kp.convert(forty[0], tmp_path / "x", progress=False, **options)


def test_what_people_write_in_python_is_understood(forty, tmp_path):
    text = kp.convert(
        forty[0], tmp_path / "a", split="train=90,test=10", shard_size=1000, progress=False
    )
    same = kp.convert(
        forty[0], tmp_path / "b", split={"train": 90, "test": 10}, shard_size="1K", progress=False
    )
    assert text == same


@pytest.mark.parametrize("path", [None, 3, ["a"], ""])
def test_what_is_no_path_says_so(forty, tmp_path, path):
    with pytest.raises(KpdataError, match=r"is no path|a path is empty"):
        kp.read(path)
    with pytest.raises(KpdataError, match=r"is no path|a path is empty"):
        kp.convert(forty[0], path, progress=False)


def test_an_output_inside_the_annotations_is_refused(forty, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a.json").write_text('{"nose": [1, 2]}')
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    with pytest.raises(FormatError, match=r"^out is .*, which lies in .* choose another `out`"):
        kp.convert(folder, folder / "out", progress=False)


def test_paths_may_be_text_or_paths_or_relative(forty, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds = kp.convert(str(forty[0]), "out", progress=False)
    assert ds.path == Path("out")
    assert kp.open("out").root_hash == ds.root_hash
