"""Rendering: crops and copies, their transforms, and that what is drawn lies where labels say."""

import io
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule
from kpdata.core.errors import ImageError
from kpdata.core.sample import WHOLE_IMAGE, ImageRef, Instance, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.core.transform import apply_affine, invert
from kpdata.images import codec
from kpdata.pipelines.request import Request
from kpdata.pipelines.write.render import render
from kpdata.shards import records

Pixels = npt.NDArray[np.uint8]

EYES = Skeleton("eyes", ("left_eye", "right_eye"))
GEOMETRY_ONLY = AugmentConfig(
    brightness=(0, 0), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), grey=0, blur=0,
    jpeg_quality=(95, 95), rectangles=0, cutout=0,
)  # fmt: skip


def rendered(
    data: bytes,
    *instances: Instance,
    split: str = "train",
    size: tuple[int | None, int | None] = (None, None),
    skeleton: Skeleton = EYES,
    **options: Any,
) -> tuple[list[Sample], Counter[str]]:
    """The records of one image, through the wire and back, and what was counted."""
    sample = Sample("key", ImageRef("a.jpg", "a.jpg", *size), instances)
    made = render(sample, data, split, Request(skeleton=skeleton, **options))
    decoded = [records.decode(records.encode(one), len(skeleton)) for one in made.records]
    return decoded, +made.counts


def instance(
    keypoints: Any, box: tuple[float, float, float, float] | None = None, **fields: Any
) -> Instance:
    bbox = None if box is None else np.array(box, np.float32)
    return Instance(np.array(keypoints, np.float32), bbox, **fields)


def encoded(pixels: Pixels, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, kind, **({"quality": 95} if kind == "JPEG" else {}) | options
    )
    return buffer.getvalue()


@cache
def any_image(width: int, height: int) -> bytes:
    """An image whose pixels differ from their neighbours and from those far away."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    grey = (x * 97 + y * 57) % 128 + 60 * x / width + 60 * y / height
    return encoded(np.dstack([grey] * 3).astype(np.uint8))


def noise(width: int = 64, height: int = 48) -> Pixels:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), 2)  # type: ignore[return-value]


def blobs(
    width: int, height: int, sigma: float, *centres: tuple[tuple[float, float], int]
) -> Pixels:
    """Grey with a Gaussian blob in a channel around each (x, y), in continuous pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    pixels = np.full((height, width, 3), 30.0)
    for (cx, cy), channel in centres:
        bell = 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
        pixels[..., channel] += bell
    return pixels.round().astype(np.uint8)


def centroid(pixels: Pixels, channel: int) -> npt.NDArray[np.float64]:
    """(2,) where the blob of a channel lies, in continuous pixels."""
    others = pixels[..., [c for c in range(3) if c != channel]].max(axis=2)
    light = pixels[..., channel].astype(np.float64) - others
    light[light < 25] = 0
    y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return np.array([(x * light).sum(), (y * light).sum()]) / light.sum()


# --- where the square lies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop_from", "centre", "side"),
    [("bbox", (100, 60), 80), ("keypoints", (95, 65), 30), ("image", (150, 100), 300)],
)
def test_the_square_is_centred_on_what_it_is_drawn_from(
    crop_from: str, centre: tuple[float, float], side: float
) -> None:
    person = instance([[80, 60, 2], [110, 70, 1]], (60, 40, 140, 80))
    (crop,), _ = rendered(any_image(300, 200), person, crop=64, crop_from=crop_from, margin=1.5)
    assert crop.view is not None
    scale = 64 / (side * 1.5)
    assert apply_affine(crop.view.transform, np.array(centre)) == pytest.approx([32, 32], abs=1e-4)
    assert crop.view.transform[:, :2] == pytest.approx(np.eye(2) * scale, abs=1e-7)
    assert (crop.image.width, crop.image.height) == (64, 64)
    assert (crop.view.source_width, crop.view.source_height) == (300, 200)
    assert codec.decode_stored(crop.image).shape == (64, 64, 3)


def test_an_image_crop_leaks_nothing_of_the_labels() -> None:
    here = instance([[10, 10, 2], [20, 20, 2]], (5, 5, 25, 25))
    there = instance([[200, 150, 2], [220, 160, 2]], (190, 140, 230, 170))
    first, second = (
        rendered(any_image(300, 200), person, crop=64, crop_from="image")[0][0]
        for person in (here, there)
    )
    assert first.view is not None
    assert second.view is not None
    assert (first.view.transform == second.view.transform).all()
    assert first.image.data == second.image.data


def test_each_instance_gets_a_record_of_its_own_that_names_it() -> None:
    people = [instance([[x, 30, 2], [x + 5, 30, 2]], (x - 5, 20, x + 10, 40)) for x in (20, 60, 90)]
    crops, _ = rendered(any_image(120, 60), *people, crop=32)
    assert [crop.view and crop.view.instance for crop in crops] == [0, 1, 2]
    assert all(len(crop.instances) == 1 for crop in crops)
    assert {crop.key for crop in crops} == {"key"}


def test_what_cannot_be_cropped_is_counted_by_its_reason() -> None:
    whole = instance([[10, 10, 2], [20, 20, 2]], (5, 5, 30, 30))
    crops, counts = rendered(
        any_image(64, 48),
        replace(whole, is_crowd=True),
        instance([[0, 0, 0], [0, 0, 0]], (5, 5, 30, 30)),
        instance([[10, 10, 2], [20, 20, 2]]),
        whole,
        crop=32,
    )
    assert [crop.view and crop.view.instance for crop in crops] == [3]
    assert counts == {
        "instances not cropped: crowd": 1,
        "instances not cropped: no labelled keypoint": 1,
        "instances not cropped: no box": 1,
    }


def test_an_instance_without_a_box_can_be_cropped_from_its_keypoints() -> None:
    crops, _ = rendered(
        any_image(64, 48), instance([[10, 10, 2], [20, 20, 2]]), crop=32, crop_from="keypoints"
    )
    assert len(crops) == 1


def test_keypoints_that_leave_the_crop_become_unlabelled_and_are_counted() -> None:
    person = instance([[30, 30, 2], [60, 45, 1]], (20, 20, 40, 40))
    (crop,), counts = rendered(any_image(64, 48), person, crop=40, margin=1)
    assert crop.instances[0].keypoints.tolist() == [[20, 20, 2], [0, 0, 0]]
    assert counts == {"keypoints outside a crop, set to v = 0": 1}


@pytest.mark.parametrize(
    ("crop_from", "box", "reason"),
    [
        ("keypoints", None, "keypoints all at one point"),
        ("bbox", (30, 30, 30, 30), "box without extent"),
        ("bbox", (10, 30, 50, 30), "box without extent"),
    ],
)
def test_what_has_no_extent_is_not_cropped(crop_from: str, box: Any, reason: str) -> None:
    person = instance([[30, 30, 2], [0, 0, 0]], box)
    crops, counts = rendered(any_image(64, 48), person, crop=32, crop_from=crop_from)
    assert crops == []
    assert counts == {f"instances not cropped: {reason}": 1}


def test_labelled_keypoints_outside_of_the_image_are_counted() -> None:
    person = instance([[-3, 10, 2], [64.0001, 10, 1]], (2, 2, 40, 40))
    other = instance([[10, 49, 1], [0, 0, 0]], (2, 2, 40, 40))
    made, counts = rendered(any_image(64, 48), person, other)
    assert counts == {"labelled keypoints outside of their image": 2}
    assert made[0].instances[0].keypoints[0].tolist() == [-3, 10, 2]


# --- there and back -------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.data(),
    st.sampled_from([(4000, 3000), (640, 480), (970, 4000)]),
    st.sampled_from([8, 64, 256]),
    st.floats(1, 3),
    st.sampled_from(["bbox", "keypoints", "image"]),
)
def test_the_inverse_transform_gives_the_sources_coordinates(
    data: st.DataObject, size: tuple[int, int], crop: int, margin: float, crop_from: str
) -> None:
    inside = st.tuples(*(st.floats(0, side - 1, width=32) for side in size))
    points = data.draw(st.lists(inside, min_size=2, max_size=2))
    low, high = np.sort(np.array([data.draw(inside), data.draw(inside)]), axis=0)
    person = instance([[x, y, 2] for x, y in points], (*low, *high))
    rule = CropRule(crop_from, margin)
    assume(rule.why_not(person) is None)
    corners = apply_affine(rule.square(person, *size, crop), np.array([(0, 0), size]))
    shown = np.ptp(corners.clip(0, crop), axis=0)
    assume(shown.min() >= 2)  # a thinner stripe can lie between the pixels: a crop of one colour
    made, _ = rendered(
        any_image(*size), person, crop=crop, margin=margin, crop_from=crop_from, augment=2
    )
    assert len(made) == 3
    for record in made:
        assert record.view is not None
        back = apply_affine(invert(record.view.transform), record.instances[0].xy)
        kept = record.instances[0].visibility > 0
        names = (
            person.xy
            if record.view.transform[0, 0] * record.view.transform[1, 1]
            >= (record.view.transform[0, 1] * record.view.transform[1, 0])
            else person.xy[EYES.flip_index]
        )
        assert np.abs(back - names)[kept].max(initial=0) < 1e-3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_transform_leads_back_to_the_pixels_that_the_annotator_saw(orientation: int) -> None:
    data = encoded(np.full((300, 400, 3), 90, np.uint8), exif=turned(orientation))
    person = instance([[123.4, 67.8, 2], [201.5, 55.5, 2]], (100, 40, 220, 90))
    (crop,), _ = rendered(data, person, crop=64, exif="ignored")
    assert crop.view is not None
    back = apply_affine(invert(crop.view.transform), crop.instances[0].xy)
    mirrored = orientation in (2, 4, 5, 7)
    assert back == pytest.approx(person.xy[::-1] if mirrored else person.xy, abs=1e-3)
    assert (crop.view.source_width, crop.view.source_height) == (400, 300)


# --- what is drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("sigma", "side"),
    [(40, 1600), (20, 800), (12, 400), (6, 180), (2, 60)],
    ids=["reduced 8", "reduced 8, less", "reduced 4", "reduced 2", "full size"],
)
def test_a_bright_dot_lies_where_its_keypoint_says(kind: str, sigma: float, side: int) -> None:
    for x, y in ((803.3, 601.9), (641.7, 433.2)):
        data = encoded(blobs(1600, 1200, sigma, ((x, y), 0)), kind)
        box = (x - 0.45 * side, y - 0.35 * side, x + 0.55 * side, y + 0.4 * side)
        person = instance([[x, y, 2], [0, 0, 0]], box)
        (crop,), _ = rendered(data, person, crop=64, margin=1.25)
        assert centroid(codec.decode_stored(crop.image), 0) == pytest.approx(
            crop.instances[0].xy[0], abs=0.15
        )


@pytest.mark.parametrize("size", [(1601, 1203), (1607, 1199)], ids=str)
def test_a_side_that_does_not_divide_by_the_reduction_shifts_nothing(size: tuple[int, int]) -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(blobs(*size, 40, ((1501.0, 1101.0), 0)), kind)
        person = instance([[1501, 1101, 2], [0, 0, 0]])
        (crop,), _ = rendered(data, person, crop=64, crop_from="image", margin=1)
        assert centroid(codec.decode_stored(crop.image), 0) == pytest.approx(
            crop.instances[0].xy[0], abs=0.15
        )


def test_the_dots_of_augmented_copies_lie_where_their_keypoints_say() -> None:
    points = [(300.4, 260.2), (340.8, 230.9)]
    data = encoded(blobs(640, 480, 8, (points[0], 0), (points[1], 1)))
    person = instance([[*points[0], 2], [*points[1], 2]], (250, 180, 400, 320))
    for crop in (96, None):
        made, _ = rendered(
            data, person, crop=crop, augment=12, augment_config=GEOMETRY_ONLY, seed=3
        )
        flips = 0
        for record in made:
            assert record.view is not None
            mirrored = np.linalg.det(record.view.transform[:, :2]) < 0
            flips += bool(mirrored)
            red, green = record.instances[0].xy[[1, 0] if mirrored else [0, 1]]
            if (record.instances[0].visibility == 2).all():
                assert centroid(codec.decode_stored(record.image), 0) == pytest.approx(red, abs=0.3)
                assert centroid(codec.decode_stored(record.image), 1) == pytest.approx(
                    green, abs=0.3
                )
        assert 0 < flips < 12


# --- orientation ----------------------------------------------------------------------------------


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RED, GREEN = (150.5, 40.5), (60.5, 80.5)


@pytest.mark.parametrize("crop", [None, 96])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_keypoints_of_upright_annotations_stay_on_the_picture(
    orientation: int, kind: str, crop: int | None
) -> None:
    raw = blobs(200, 120, 6, (RED, 0), (GREEN, 1))
    data = encoded(raw, kind, exif=turned(orientation))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    seen = [centroid(upright, channel) for channel in (0, 1)]
    person = instance([[*xy, 2] for xy in seen], (0, 0, upright.shape[1], upright.shape[0]))
    size = upright.shape[1], upright.shape[0]
    (record,), counts = rendered(data, person, size=size, crop=crop, exif="applied")
    for channel in (0, 1):
        xy = record.instances[0].xy[channel]
        assert centroid(codec.decode_stored(record.image), channel) == pytest.approx(xy, abs=0.2)
    assert counts["images turned upright"] == (orientation != 1)
    if not crop:
        assert (record.image.width, record.image.height) == size


@pytest.mark.parametrize("crop", [None, 96])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_keypoints_of_raw_annotations_stay_on_the_picture_and_mirrors_swap_names(
    orientation: int, crop: int | None
) -> None:
    data = encoded(blobs(200, 120, 6, (RED, 0), (GREEN, 1)), exif=turned(orientation))
    person = instance([[*RED, 2], [*GREEN, 2]], (0, 0, 200, 120))
    (record,), counts = rendered(data, person, size=(200, 120), crop=crop, exif="ignored")
    mirrored = orientation in (2, 4, 5, 7)
    for channel, row in ((0, int(mirrored)), (1, int(not mirrored))):
        xy = record.instances[0].xy[row]
        assert centroid(codec.decode_stored(record.image), channel) == pytest.approx(xy, abs=0.2)
    assert codec.decode_stored(record.image).shape[:2] == (
        (96, 96) if crop else (120, 200) if orientation < 5 else (200, 120)
    )
    assert counts["images turned upright"] == (orientation != 1)


def test_a_keypoint_outside_a_turned_image_is_counted() -> None:
    data = encoded(noise(), exif=turned(6))
    (record,), counts = rendered(data, instance([[70, 10, 2], [10, 10, 2]]), exif="ignored")
    assert record.instances[0].visibility.tolist() == [0, 2]
    assert counts["keypoints outside the image, set to v = 0"] == 1


@pytest.mark.parametrize(
    ("orientation", "exif", "stated", "advice"),
    [
        (6, "applied", (64, 48), "its EXIF turns it by 90°: try the other value of `exif`"),
        (8, "ignored", (48, 64), "its EXIF turns it by 90°: try the other value of `exif`"),
        (1, "applied", (640, 480), "was it resized, or does `images` name another folder?"),
        (3, "applied", (48, 64), "was it resized, or does `images` name another folder?"),
    ],
)
def test_a_size_that_differs_from_the_annotations_is_refused_with_advice(
    orientation: int, exif: str, stated: tuple[int, int], advice: str
) -> None:
    data = encoded(noise(), exif=turned(orientation))
    with pytest.raises(ImageError) as caught:
        rendered(data, size=stated, exif=exif)
    assert caught.value.reason == "size mismatch"
    assert f"its annotation says {stated[0]} × {stated[1]}: {advice}" in str(caught.value)
    assert "a.jpg" in str(caught.value)


def test_half_a_size_is_no_mismatch() -> None:
    (record,), _ = rendered(encoded(noise()), size=(64, None))
    assert (record.image.width, record.image.height) == (64, 48)


# --- the source's own bytes -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_plain_jpeg_is_stored_untouched(options: dict[str, Any]) -> None:
    data = encoded(noise(), **options) + b"trailing bytes of a camera"
    (record,), counts = rendered(data)
    assert record.image.data == data
    assert record.image.format == "jpeg"
    assert not counts


def test_a_plain_png_is_stored_untouched() -> None:
    data = encoded(noise(), "PNG")
    (record,), counts = rendered(data)
    assert record.image.data == data
    assert record.image.format == "png"
    assert not counts


def modes() -> dict[str, tuple[bytes, str]]:
    """Name → (bytes that a record cannot hold as they are, the format that it gets)."""
    picture = Image.fromarray(noise())
    alpha = picture.convert("RGBA")
    alpha.putalpha(200)
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16))

    def save(image: Image.Image, kind: str) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    return {
        "grey JPEG": (save(picture.convert("L"), "JPEG"), "jpeg"),
        "CMYK JPEG": (save(picture.convert("CMYK"), "JPEG"), "jpeg"),
        "grey PNG": (save(picture.convert("L"), "PNG"), "png"),
        "16-bit PNG": (save(deep, "PNG"), "png"),
        "palette PNG": (save(picture.convert("P"), "PNG"), "png"),
        "RGBA PNG": (save(alpha, "PNG"), "png"),
        "WebP": (save(picture, "WEBP"), "png"),
        "BMP": (save(picture, "BMP"), "png"),
        "TIFF": (save(picture, "TIFF"), "png"),
        "GIF": (save(picture.convert("P"), "GIF"), "png"),
    }


@pytest.mark.parametrize("name", list(modes()))
def test_what_a_record_cannot_hold_is_encoded_anew_and_counted(name: str) -> None:
    data, kind = modes()[name]
    person = instance([[10, 10, 2], [20, 20, 2]], (5, 5, 40, 40))
    (record,), counts = rendered(data, person, size=(64, 48))
    assert record.image.format == kind
    assert record.image.data != data
    assert codec.decode_stored(record.image).shape == (48, 64, 3)
    assert counts == {"images re-encoded as upright RGB": 1}
    assert record.instances[0].keypoints == pytest.approx(person.keypoints, abs=1e-4)
    difference = np.abs(
        codec.decode_stored(record.image).astype(int) - np.asarray(_rgb(data)).astype(int)
    )
    assert np.median(difference) <= 2
    (crop,), _ = rendered(data, person, crop=32)
    assert codec.decode_stored(crop.image).shape == (32, 32, 3)


def _rgb(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def test_a_quality_is_that_of_crops_and_of_forced_re_encodes() -> None:
    person = instance([[10, 10, 2], [20, 20, 2]], (5, 5, 40, 40))
    for data, options in ((encoded(noise()), {"crop": 64}), (modes()["grey JPEG"][0], {})):
        low, high = (
            len(rendered(data, person, jpeg_quality=quality, **options)[0][0].image.data or b"")
            for quality in (30, 95)
        )
        assert low < 0.7 * high


# --- damage that a header does not show -----------------------------------------------------------


def overwritten(data: bytes, with_: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + with_ + data[middle + len(with_) :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda: overwritten(encoded(noise(320, 240)), b"\xff" * 200), id="JPEG block"),
        pytest.param(lambda: overwritten(encoded(noise(320, 240)), b"\xff\xc0"), id="JPEG marker"),
        pytest.param(lambda: overwritten(encoded(noise(), "PNG"), bytes(50)), id="PNG block"),
    ],
)
def test_damage_behind_a_good_header_is_caught_by_checking_pixels(
    damage: Callable[[], bytes],
) -> None:
    data = damage()
    (record,), _ = rendered(data, validate_images="header")
    assert record.image.data == data
    with pytest.raises(ImageError) as caught:
        rendered(data, validate_images="decode")
    assert caught.value.reason == "image does not decode"


def test_checking_pixels_leaves_good_bytes_untouched() -> None:
    data = encoded(noise())
    (record,), _ = rendered(data, validate_images="decode")
    assert record.image.data == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_image_is_caught_without_decoding(kind: str) -> None:
    data = encoded(noise(320, 240), kind)
    for length in (len(data) // 2, len(data) - 2, 60):
        with pytest.raises(ImageError) as caught:
            rendered(data[:length])
        assert caught.value.reason == "image cut short"


def test_a_picture_of_too_many_pixels_is_refused_by_its_header() -> None:
    with pytest.raises(ImageError, match=r"64 × 48 pixels, over the limit of 3,071") as caught:
        rendered(encoded(noise()), max_pixels=3071)
    assert caught.value.reason == "image too large"


# --- copies ---------------------------------------------------------------------------------------

PERSON = instance([[20, 20, 2], [40, 30, 2]], (10, 10, 50, 40))


@pytest.mark.parametrize("split", ["val", "test", "training", "other"])
def test_only_train_gets_copies(split: str) -> None:
    made, _ = rendered(encoded(noise()), PERSON, split=split, augment=3)
    assert [record.view and record.view.copy for record in made] == [0]


def test_each_original_gets_its_copies() -> None:
    other = instance([[30, 30, 2], [35, 35, 2]], (25, 20, 45, 44))
    whole, _ = rendered(encoded(noise()), PERSON, other, augment=3)
    assert [r.view and (r.view.instance, r.view.copy) for r in whole] == [
        (WHOLE_IMAGE, copy) for copy in range(4)
    ]
    assert all(len(record.instances) == 2 for record in whole)
    crops, _ = rendered(encoded(noise()), PERSON, other, crop=32, augment=2)
    assert [r.view and (r.view.instance, r.view.copy) for r in crops] == [
        (index, copy) for index in (0, 1) for copy in range(3)
    ]


def test_a_whole_images_copies_leave_its_own_bytes_alone() -> None:
    data = encoded(noise())
    made, _ = rendered(data, PERSON, augment=1)
    assert made[0].image.data == data
    assert made[1].image.data != data
    assert (made[1].image.width, made[1].image.height) == (64, 48)


def test_copies_depend_on_seed_key_and_number_alone() -> None:
    data = encoded(noise())
    three, _ = rendered(data, PERSON, augment=3, seed=5)
    five, _ = rendered(data, PERSON, augment=5, seed=5)
    other, _ = rendered(data, PERSON, augment=3, seed=6)
    assert three == five[:4]
    assert [record.view and record.view.seed for record in three] == [0, 5, 5, 5]
    assert len({record.image.data for record in three}) == 4
    assert all(a.image.data != b.image.data for a, b in zip(three[1:], other[1:], strict=True))
    renamed = Sample("another key", ImageRef("a.jpg"), (PERSON,))
    again = list(render(renamed, data, "train", Request(skeleton=EYES, augment=3, seed=5)).records)
    assert all(a.image.data != b.image.data for a, b in zip(three[1:], again[1:], strict=True))


def test_a_flipped_copy_swaps_left_and_right_by_name() -> None:
    always = replace_config(flip=1.0, rotate=(0, 0), scale=(1, 1), shift=0)
    made, _ = rendered(encoded(noise()), PERSON, augment=1, augment_config=always)
    assert made[1].instances[0].keypoints.tolist() == pytest.approx(
        np.array([[64 - 40, 30, 2], [64 - 20, 20, 2]]), abs=1e-4
    )
    lopsided = Skeleton("lopsided", ("left_eye", "nose"))
    made, _ = rendered(
        encoded(noise()), PERSON, augment=1, augment_config=always, skeleton=lopsided
    )
    assert made[1].instances[0].xy[0] == pytest.approx([64 - 20, 20], abs=1e-4)


def test_keypoints_that_leave_a_copy_are_counted_and_hidden_ones_are_occluded() -> None:
    far = replace_config(flip=0, rotate=(0, 0), scale=(4, 4), shift=0)
    made, counts = rendered(encoded(noise()), PERSON, augment=1, augment_config=far)
    assert made[1].instances[0].num_labelled == 0
    assert counts == {"keypoints outside a copy, set to v = 0": 2}
    covered = replace_config(
        flip=0, rotate=(0, 0), scale=(1, 1), shift=0, cutout=1, cutout_size=(1, 1)
    )
    made, _ = rendered(encoded(noise()), PERSON, augment=8, augment_config=covered)
    seen = {v for record in made[1:] for v in record.instances[0].visibility.tolist()}
    assert 1 in seen
    assert 0 not in seen


def test_a_copys_quality_is_drawn_from_its_range() -> None:
    low, high = (
        rendered(
            encoded(noise()), PERSON, augment=1,
            augment_config=replace_config(jpeg_quality=(quality, quality)),
        )[0][1].image.data
        for quality in (20, 95)
    )  # fmt: skip
    assert low is not None
    assert high is not None
    assert len(low) < 0.6 * len(high)


def replace_config(**changes: Any) -> AugmentConfig:
    fields = {name: getattr(GEOMETRY_ONLY, name) for name in AugmentConfig.__struct_fields__}
    return AugmentConfig(**fields | changes)


# --- a crop of a crop -----------------------------------------------------------------------------


def test_a_crop_made_from_a_record_still_leads_back_to_the_first_source() -> None:
    person = instance([[803.3, 601.9, 2], [700.0, 650.0, 2]], (600, 400, 1000, 800))
    (first,), _ = rendered(any_image(1600, 1200), person, crop=256, margin=2)
    (second,) = render(
        first, first.image.data or b"", "test", Request(skeleton=EYES, crop=64)
    ).records
    assert second.view is not None
    back = apply_affine(invert(second.view.transform), second.instances[0].xy)
    assert back == pytest.approx(person.xy, abs=1e-3)
    assert (second.view.source_width, second.view.source_height) == (1600, 1200)
    assert math.isclose(second.instances[0].xy[0, 0], 64 / 2, abs_tol=2)
