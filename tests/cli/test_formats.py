"""``kpdata formats``, and what a format of somebody's own needs to be one of them."""

from collections import Counter

import pytest

import kpdata as kp
from kpdata.core.sample import ImageRef, Sample
from kpdata.core.skeletons import COCO17
from kpdata.formats import FORMATS, Format, Option, Source, registry


@pytest.fixture
def toy():
    """A format of ten lines, known to everybody for as long as a test takes."""
    declared = Format(
        name="toy",
        summary="a text file that names images",
        coordinates="no pixels at all",
        visibility="v 7",
        read=lambda annotations, mood=None: Source(
            COCO17, iter([Sample(annotations.name, ImageRef("a.jpg"))]), None, (annotations,),
            Counter({f"mood {mood}": 1}), False,
        ),
        detect=lambda seen: "its first word, TOY" if seen.head.startswith(b"TOY") else None,
        aliases=("plaything",),
        options=(Option("mood", "How it is read.", "MOOD"),),
    )  # fmt: skip
    registry.register(declared)
    yield declared
    del FORMATS["toy"]


def test_a_registered_format_is_listed_documented_offered_recognised_and_read(
    toy, tmp_path, kpdata
):
    (tmp_path / "a.toy").write_text("TOY")
    assert "a text file that names images" in kpdata("formats").out
    assert "--mood MOOD" in kpdata("convert", "--help").out
    assert "| `toy` | no pixels at all | v 7 |  |" in registry.as_markdown()
    labels = kp.read(tmp_path / "a.toy", mood="glad")
    assert (labels.format, labels.recognised) == (toy, "its first word, TOY")
    assert labels.counts == {"mood glad": 1}
    assert repr(labels) == "toy: coco17, 17 keypoints, 1 images"
    assert kp.read(tmp_path / "a.toy", format="Plaything").format is toy


def test_two_formats_cannot_share_a_name(toy):
    with pytest.raises(ValueError, match="the name 'plaything' of format other is taken"):
        registry.register(Format("other", "", "", "", toy.read, toy.detect, aliases=("plaything",)))
    assert "other" not in FORMATS
