"""The declarations of formats, and all that is made of them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from kpdata import formats
from kpdata.core.errors import FormatError
from kpdata.formats import FORMATS, registry

DOCS = Path(__file__).parents[3] / "docs" / "formats.md"


def test_every_format_has_one_line_of_summary_and_convention():
    for name, entry in FORMATS.items():
        assert entry.name == name
        assert entry.summary
        assert "\n" not in entry.summary + entry.convention
        assert len(entry.summary) < 90


def test_the_formats_and_the_writable_ones_are_these():
    assert list(FORMATS) == [
        "lsp", "lspet", "mpii", "coco", "yolo", "deeplabcut", "labelme", "json", "shards",
    ]  # fmt: skip
    assert [f.name for f in FORMATS.values() if f.writable] == ["coco", "yolo", "shards"]


READERS = {
    "lsp": "lsp.read:read", "lspet": "lsp.read:read_lspet", "mpii": "mpii.read:read",
    "coco": "coco.read:read", "yolo": "yolo.read:read", "deeplabcut": "deeplabcut.read:read",
    "labelme": "labelme.read:read", "json": "json.read:read", "shards": "shards.read:read",
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_the_declared_options_are_the_readers_parameters(name):
    module, _, function = READERS[name].partition(":")
    reader = getattr(__import__(f"kpdata.formats.{module}", fromlist=["x"]), function)
    declared = [option.name for option in FORMATS[name].options]
    assert ["annotations", *declared] == list(inspect.signature(reader).parameters)


def test_the_table_in_the_docs_is_the_declarations_own():
    assert registry.as_markdown() in DOCS.read_text(), (
        "put into docs/formats.md what this prints: python -c 'from kpdata.formats import "
        "registry; print(registry.as_markdown())'"
    )


@pytest.mark.parametrize(
    ("said", "found"),
    [("COCO", "coco"), ("cocokeypoints", "coco"), ("coco-keypoints", "coco"), ("dlc", "deeplabcut"),
     ("yolo-pose", "yolo"), ("DeepLabCut", "deeplabcut"), ("X-AnyLabeling", "labelme")],
)  # fmt: skip
def test_other_names_of_a_format_are_understood(said, found):
    assert formats.find(said).name == found


def test_an_unknown_format_lists_the_known_ones_and_proposes_the_nearest():
    with pytest.raises(FormatError, match=r"unknown format 'voc': kpdata knows lsp, lspet, mpii,"):
        formats.read("voc", Path("x"))
    with pytest.raises(FormatError, match=r"'deeplabcat': did you mean deeplabcut\?"):
        formats.find("deeplabcat")


def test_an_option_that_the_reader_lacks_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"^`style` is not for format lsp, which takes images$"):
        formats.read("lsp", tmp_path / "joints.mat", style="list")
    with pytest.raises(FormatError, match=r"`some_thing` is not for format shards, .* no option"):
        formats.read("shards", tmp_path, some_thing=0)


def test_an_option_of_none_counts_as_not_given(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        formats.read("lsp", tmp_path / "joints.mat", style=None, images=None)


def test_the_registry_imports_no_reader():
    code = (
        "import sys, kpdata.formats; "
        "print([m for m in sys.modules if m.startswith('kpdata.formats') and 'read' in m])"
    )
    root = Path(formats.__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
