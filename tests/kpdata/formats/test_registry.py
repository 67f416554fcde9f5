import subprocess
import sys
from pathlib import Path

import pytest

from kpdata import formats
from kpdata.core.errors import FormatError


def test_every_format_has_one_line_of_summary_and_convention():
    for name, entry in formats.FORMATS.items():
        assert entry.name == name
        assert entry.summary
        assert entry.convention
        assert "\n" not in entry.summary + entry.convention
        assert len(entry.summary) < 90


def test_the_formats_and_the_writable_ones_are_these():
    assert list(formats.FORMATS) == [
        "lsp", "lspet", "mpii", "coco", "yolo", "deeplabcut", "json", "shards",
    ]  # fmt: skip
    assert [f.name for f in formats.FORMATS.values() if f.writable] == ["coco", "yolo", "shards"]


def test_a_writer_is_found_by_the_formats_name():
    from kpdata.formats.coco.write import write
    from kpdata.formats.yolo import write as yolo_writer

    assert formats.writer("coco") is write
    assert formats.writer("yolo") is yolo_writer.write
    for name in ("lsp", "shards"):
        with pytest.raises(
            FormatError, match=f"^{name} has no writer of annotations, unlike coco, yolo$"
        ):
            formats.writer(name)
    with pytest.raises(FormatError, match="unknown format 'voc': kpdata knows lsp"):
        formats.writer("voc")


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(FormatError, match="unknown format 'voc': kpdata knows lsp, lspet, mpii,"):
        formats.read("voc", Path("x"))


def test_an_option_that_the_reader_lacks_is_refused_by_its_command_line_name(tmp_path):
    with pytest.raises(FormatError, match=r"^lsp takes no --style$"):
        formats.read("lsp", tmp_path / "joints.mat", style="list")
    with pytest.raises(FormatError, match="coco takes no --some-thing"):
        formats.read("coco", tmp_path / "a.json", some_thing=0)


def test_an_option_of_none_counts_as_not_given(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        formats.read("lsp", tmp_path / "joints.mat", style=None, images=None)


def test_the_registry_imports_no_reader():
    code = "import sys, kpdata.formats; print([m for m in sys.modules if 'kpdata.formats.' in m])"
    root = Path(formats.__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert found.stdout.strip() == "['kpdata.formats.base']", found.stderr
