"""One place says which square an instance is seen in."""

from dataclasses import replace

import numpy as np
import pytest

from kpdata.core.crop import CropRule, crop_rule_of, why_not_shown
from kpdata.core.errors import SchemaError
from kpdata.core.sample import Instance
from kpdata.core.transform import apply_affine

POSE = np.array([[10, 20, 2], [30, 60, 1], [0, 0, 0]])
PERSON = Instance(POSE, np.array([0, 10, 40, 90]))


@pytest.mark.parametrize(
    ("crop_from", "center", "longer"),
    [("bbox", (20, 50), 80), ("keypoints", (20, 40), 40), ("image", (100, 75), 200)],
)
def test_the_square_is_centred_on_its_box_and_as_large_as_its_margin_says(
    crop_from, center, longer
):
    crop_rule = CropRule(crop_from, 1.5)
    affine = crop_rule.square(PERSON, 200, 150, 64)
    np.testing.assert_allclose(apply_affine(affine, np.array(center)), [32, 32])
    edge = np.add(center, [longer * 1.5 / 2, 0])
    np.testing.assert_allclose(apply_affine(affine, edge), [64, 32], atol=1e-9)
    assert crop_rule.why_not(PERSON) is None


def test_a_manifest_says_what_its_crops_were_cut_by():
    options = {"crop": 128, "crop_from": "image", "margin": 1.0, "augment": 3}
    assert crop_rule_of(options) == CropRule("image", 1.0)
    assert crop_rule_of(options | {"crop": None}) is None
    assert crop_rule_of({}) is None


def test_what_has_no_square_is_named_by_its_reason():
    boxless = replace(PERSON, bbox_xyxy=None)
    nobody = replace(PERSON, keypoints=np.zeros((3, 3)))
    assert CropRule("bbox").why_not(boxless) == "no box"
    assert CropRule("keypoints").why_not(boxless) is None
    assert CropRule("image").why_not(boxless) is None
    for crop_rule in map(CropRule, ("bbox", "keypoints", "image")):
        assert crop_rule.why_not(nobody) == why_not_shown(nobody) == "no labelled keypoint"
        assert crop_rule.why_not(replace(nobody, is_crowd=True)) == "crowd"
    assert why_not_shown(boxless) is None
    for flat in ([10, 10, 10, 10], [10, 10, 50, 10], [10, 10, 10, 50], [10, 10, 10.5, 10.5]):
        flat_box = replace(PERSON, bbox_xyxy=np.array(flat, np.float32))
        assert CropRule("bbox").why_not(flat_box) == "box without extent"
        assert CropRule("keypoints").why_not(flat_box) is None
        assert CropRule("image").why_not(flat_box) is None
    one_point = replace(PERSON, keypoints=np.array([[5, 5, 2], [0, 0, 0], [5.5, 5, 1]], np.float32))
    assert CropRule("keypoints").why_not(one_point) == "keypoints all at one point"
    in_a_row = replace(PERSON, keypoints=np.array([[5, 5, 2], [9, 5, 2], [0, 0, 0]], np.float32))
    assert CropRule("keypoints").why_not(in_a_row) is None
    with pytest.raises(SchemaError, match="no box to put a square around"):
        CropRule("bbox").square(boxless, 200, 150, 64)
    with pytest.raises(SchemaError, match="no labelled keypoint to put"):
        CropRule("keypoints").square(nobody, 200, 150, 64)
