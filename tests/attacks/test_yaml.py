"""YAML files that ask for much: a message, in a short time."""

import time

import pytest

from kpdata.core.errors import FormatError
from kpdata.formats import read
from kpdata.formats._lib.yaml_file import read_yaml

HEAD = "train: images\nnames: [boat]\n"
HOSTILE = {
    "int": '!!int ""',
    "bool": "!!bool maybe",
    "timestamp": "!!timestamp foo",
    "float": "!!float x",
    "binary": "!!binary ß",
    "omap": "!!omap 3",
    "python": "!!python/object/apply:os.system [true]",
    "hexadecimal": "0x" + "f" * 900_000,
    "decimal": "1" * 900_000,
    "base 60": ":".join(["59"] * 300_000),
    "list": "[" + ",".join(["a"] * 400_000) + "]",
    "nested": "[" * 5000 + "]" * 5000,
    "cut": "[1, 2",
    "merge": "{<<: 3}",
}
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_value_that_is_none_is_a_message(tmp_path, value):
    path = tmp_path / "data.yaml"
    path.write_text(f"{HEAD}kpt_shape: {value}\n")
    before = time.process_time()
    with pytest.raises(FormatError) as refused:
        read("yolo", path)
    assert len(str(refused.value)) < 500 + len(str(path))
    assert time.process_time() - before < 15


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_project_with_such_a_value_is_a_message_or_read_without_it(tmp_path, value):
    folder = tmp_path / "labeled-data" / "v"
    folder.mkdir(parents=True)
    (folder / "CollectedData_me.csv").write_text(
        "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\nlabeled-data/v/1.png,1,2\n"
    )
    (tmp_path / "config.yaml").write_text(f"scorer: me\nTask: {value}\n")
    try:
        found, message = list(read("deeplabcut", tmp_path).samples), ""
    except FormatError as refused:
        found, message = [], str(refused)
    assert len(found) == 1 or message.startswith(str(tmp_path / "config.yaml"))


def test_aliases_of_aliases_take_no_memory(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(f"{LAUGHS}{HEAD}kpt_shape: [1, 3]\n")
    assert read_yaml(path, "YAML")["kpt_shape"] == [1, 3]


def test_dates_and_numbers_of_people_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("date: 2026-11-29\nscale: 0.5\ncount: 12_000\nhex: 0x1F\nnone: ~\non: true\n")
    assert read_yaml(path, "YAML") == {
        "date": "2026-11-29", "scale": 0.5, "count": 12_000, "hex": 31, "none": None, True: True,
    }  # fmt: skip
