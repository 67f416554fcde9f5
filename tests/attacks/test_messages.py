"""Names, words and numbers of any length: a message of a few lines, and never a traceback."""

import json

import pytest
from PIL import Image

from kpdata.core.errors import KpdataError, shortened
from kpdata.formats import read
from kpdata.pipelines.conversion import convert
from kpdata.pipelines.request import Request

LONG = "x" * 3_000_000
DIGITS = "9" * 5000
SOUND = json.dumps({
    "categories": [{"id": 1, "name": "boat", "keypoints": ["bow"]}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [5, 5, 2]}],
    "images": [{"id": 1, "file_name": "0.png"}],
})  # fmt: skip
HOSTILE = {
    "image id": ('"images": [{"id": 1', f'"images": [{{"id": {DIGITS}'),
    "id of an image": ('"image_id": 1', f'"image_id": {DIGITS}'),
    "category id": ('"category_id": 1', f'"category_id": {DIGITS}'),
    "coordinate": ("[5, 5, 2]", f"[{DIGITS}, 5, 2]"),
    "width": ('"file_name"', f'"width": {DIGITS}, "file_name"'),
    "text id": ('"image_id": 1', f'"image_id": "{LONG}"'),
    "file name": ("0.png", LONG),
    "keypoint": ('["bow"]', f'["{LONG}"]'),
}


def message_of(source_of, tmp_path):
    def attempt():
        source = source_of()
        convert(source, Request.of(source, format="coco"), tmp_path / "out")

    with pytest.raises(KpdataError) as refused:
        attempt()
    return str(refused.value)


@pytest.mark.parametrize(("old", "new"), HOSTILE.values(), ids=HOSTILE)
def test_values_of_a_coco_file_that_are_too_long(tmp_path, old, new):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "images" / "0.png")
    assert old in SOUND
    (tmp_path / "a.json").write_text(SOUND.replace(old, new))
    message = message_of(lambda: read("coco", tmp_path / "a.json"), tmp_path)
    assert len(message) < 8000
    assert message.startswith(str(tmp_path)) or "samples are bad" in message


def test_a_long_word_in_a_label_file(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "images" / "0.png")
    (tmp_path / "labels" / "0.txt").write_text(f"0 .5 .5 .2 .2 {LONG} .5 2")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [boat]\nkpt_shape: [1, 3]\n")
    message = message_of(lambda: read("yolo", tmp_path / "data.yaml"), tmp_path)
    assert "0.txt: line 1: could not convert string to float" in message
    assert len(message) < 8000


def test_a_message_keeps_its_beginning_and_its_end():
    text = f"a.json: {LONG}: rename it"
    short = shortened(text)
    assert short.startswith("a.json: xxx")
    assert short.endswith("xxx: rename it")
    assert "characters …]" in short
    assert shortened("short") == "short"
