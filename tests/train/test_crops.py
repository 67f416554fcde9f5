import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec import structs

from kpdata import formats
from kpdata.core import transform
from kpdata.core.augment import AugmentConfig
from kpdata.core.crop import CropRule, square_crop
from kpdata.core.errors import DatasetError, SchemaError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.sample import ImageRef, Instance, Sample
from kpdata.core.skeletons import COCO17
from kpdata.core.transform import apply_affine
from kpdata.images import codec
from kpdata.images.resample import shrink_for, warp
from kpdata.pipelines import Request, convert
from kpdata.shards.dataset import Dataset
from kpdata.train.data.batches import Batches
from kpdata.train.data.crops import Crops, LabelledCrops, load
from kpdata.train.data.decoding import decode_crop
from kpdata.train.loop.train import load_crops
from kpdata.train.models.base import Phase
from kpdata.train.ops.augment import apply
from kpdata.train.run.config import TrainConfig

SIDE = 40
Convert = Callable[..., Dataset]


@pytest.fixture(scope="module")
def annotations(make_coco, tmp_path_factory) -> Path:
    """Twelve pictures; one has a crowd and one a person without a labelled keypoint besides."""
    path = make_coco(tmp_path_factory.mktemp("coco"))
    content = json.loads(path.read_text())
    some = content["annotations"][0]
    nobody = {"keypoints": [0] * 51, "num_keypoints": 0}
    content["annotations"].insert(0, some | {"id": 900, "iscrowd": 1} | nobody)
    content["annotations"].append(some | {"id": 901, "image_id": 2} | nobody)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def shards(annotations: Path, tmp_path_factory) -> Convert:
    """``shards(crop=…, augment=…)``: all pictures as the split ``train``, converted once."""
    made: dict[str, Dataset] = {}

    def of(**options) -> Dataset:
        name = json.dumps(options)
        if name not in made:
            source = formats.read("coco", annotations)
            request = Request.of(source, format="coco", split="100/0/0", shards=2, **options)
            out = tmp_path_factory.mktemp("shards") / "made"
            convert(source, request, out, SILENT)
            made[name] = Dataset.open(out)
        return made[name]

    return of


@pytest.fixture(scope="module")
def people(annotations: Path) -> dict[tuple[str, int], Instance]:
    """(key, position in its image) → each labelled person of the annotation file itself."""
    source = formats.read("coco", annotations)
    return {
        (sample.key, number): instance
        for sample in source.samples
        for number, instance in enumerate(sample.instances)
        if not instance.is_crowd and instance.num_labelled
    }


def by_name(crops: LabelledCrops) -> dict[tuple[str, int], int]:
    """(key, position in its image) → position in the crops."""
    return {key: n for n, key in enumerate(zip(crops.keys, crops.instance, strict=True))}


CROP_RULES = [CropRule("bbox", 1.25), CropRule("keypoints", 1.5), CropRule("image", 1.0)]


@pytest.mark.parametrize("crop_rule", CROP_RULES, ids=lambda crop_rule: crop_rule.crop_from)
def test_the_truth_is_the_annotations_own(shards, people, crop_rule):
    crops = load(shards(), "train", crop_rule, SIDE)
    places = by_name(crops)
    assert places.keys() == people.keys()
    for name, place in places.items():
        person = people[name]
        np.testing.assert_allclose(crops.truth[place], person.keypoints, atol=1e-3)
        np.testing.assert_allclose(crops.bbox_xyxy[place], person.bbox_xyxy, atol=1e-3)
        assert crops.area[place] == pytest.approx(person.area, rel=1e-4)
    assert (crops.source_size == (64, 48)).all()
    assert np.isnan(crops.head_size).all()
    assert not crops.is_copy.any()


@pytest.mark.parametrize("crop_rule", CROP_RULES, ids=lambda crop_rule: crop_rule.crop_from)
def test_pictures_keypoints_and_truth_are_one_affine_apart(shards, crop_rule):
    crops = load(shards(), "train", crop_rule, SIDE)
    labelled = crops.keypoints[..., 2] > 0
    for affine, seen, truth, counts in zip(
        crops.to_source, crops.keypoints, crops.truth, labelled, strict=True
    ):
        back = apply_affine(affine, seen[counts, :2])
        np.testing.assert_allclose(back, truth[counts, :2], atol=1e-3)
    assert not crops.keypoints[~labelled].any()
    assert not crops.truth[~labelled].any()


@pytest.mark.parametrize("crop_rule", CROP_RULES, ids=lambda crop_rule: crop_rule.crop_from)
def test_crops_on_the_fly_and_shards_of_crops_agree(shards, crop_rule):
    crop = {"crop": SIDE, "crop_from": crop_rule.crop_from, "margin": crop_rule.margin}
    whole = load(shards(), "train", crop_rule, SIDE)
    crops = load(shards(**crop), "train", CropRule(), SIDE)
    first, second = by_name(whole), by_name(crops)
    assert first.keys() == second.keys()
    for name, one in first.items():
        other = second[name]
        np.testing.assert_allclose(whole.to_source[one], crops.to_source[other], atol=1e-4)
        kept = crops.keypoints[other, :, 2] > 0  # a crop's labels end at its frame
        for array in ("truth", "keypoints"):
            seen, stored = getattr(whole, array)[one], getattr(crops, array)[other]
            np.testing.assert_allclose(seen[kept], stored[kept], atol=1e-3)
        difference = np.abs(
            whole.images[[one]].astype(float) - crops.images[np.array([other])].astype(float)
        )
        assert difference.mean() < 6  # the stored one went through JPEG
    assert crops.crop == "as the shards were cropped"


def test_shards_of_crops_are_resized_to_the_side_asked_for(shards, people):
    crops = load(shards(crop=64), "train", CropRule(), 32)
    assert crops.images[np.arange(3)].shape == (3, 32, 32, 3)
    for name, place in by_name(crops).items():
        kept = crops.truth[place, :, 2] > 0
        np.testing.assert_allclose(
            crops.truth[place][kept], people[name].keypoints[kept], atol=1e-3
        )


def test_a_crop_shows_what_lies_at_its_place_in_the_image(shards, annotations):
    crops = load(shards(), "train", CropRule("image", 1.0), 64)
    rgb = codec.decode((annotations.parent / "images" / f"{crops.keys[0]:0>6}.jpg").read_bytes())
    seen = crops.images[np.array([0])][0]
    np.testing.assert_array_equal(seen[8:56], rgb)  # 64 × 48, squared around its centre
    assert not seen[:8].any()
    assert not seen[56:].any()


def test_on_disk_and_in_memory_are_the_same(shards):
    dataset = shards()
    kept = load(dataset, "train", CropRule(), SIDE)
    read = load(dataset, "train", CropRule(), SIDE, memory=0)
    assert isinstance(kept.images, np.ndarray)
    assert not isinstance(read.images, np.ndarray)
    for indices in (np.arange(len(kept)), np.array([5, 0, 5])):
        np.testing.assert_array_equal(read.images[indices], kept.images[indices])
    np.testing.assert_array_equal(read.keypoints, kept.keypoints)
    assert read.keys == kept.keys


def test_pictures_are_kept_while_they_fit(shards):
    count = len(load(shards(), "train", CropRule(), SIDE))
    enough = count * SIDE * SIDE * 3
    fits = load(shards(), "train", CropRule(), SIDE, memory=enough)
    does_not = load(shards(), "train", CropRule(), SIDE, memory=enough - 1)
    assert isinstance(fits.images, np.ndarray)
    assert not isinstance(does_not.images, np.ndarray)


def test_copies_are_taken_when_asked_for_and_told_apart(shards):
    augmented = shards(crop=SIDE, augment=2)
    without = load(augmented, "train", CropRule(), SIDE)
    with_copies = load(augmented, "train", CropRule(), SIDE, copies=True)
    assert not without.is_copy.any()
    assert without.keys == load(shards(crop=SIDE), "train", CropRule(), SIDE).keys
    originals = with_copies.take(np.flatnonzero(~with_copies.is_copy))
    assert sorted(originals.keys) == sorted(without.keys)
    assert with_copies.is_copy.sum() > len(without)


def test_a_copys_keypoints_lie_on_its_own_source(shards, people):
    augmented = load(shards(augment=2), "train", CropRule("image"), SIDE, copies=True)
    checked = 0
    for place in np.flatnonzero(augmented.is_copy):
        person = people[augmented.keys[place], augmented.instance[place]].keypoints
        linear = augmented.to_source[place, :, :2]
        mirrored = np.linalg.det(linear) < 0
        expected = person[COCO17.flip_index] if mirrored else person
        kept = augmented.truth[place, :, 2] > 0
        seen = augmented.truth[place][kept, :2]
        np.testing.assert_allclose(seen, expected[kept, :2], atol=2e-3)
        checked += mirrored and kept.any()
    assert checked


def test_pictures_that_stand_for_several_instances_are_counted_and_warned_of(shards, people):
    """Every second image has two people, and a copy of an image is not another person."""
    several = {key for key, n in Counter(key for key, _ in people).items() if n > 1}
    for options in ({}, {"augment": 1}, {"crop": SIDE, "crop_from": "image"}):
        crops = load(shards(**options), "train", CropRule("image"), SIDE, copies=True)
        expected = sum(crops.keys.count(key) for key in several)
        assert crops.shared_crops == expected > 0
        says = f"{expected} of {len(crops)} crops of train show the same as another instance's"
        assert crops.warning("train").startswith(says)
    around_boxes = load(shards(augment=1), "train", CropRule("bbox"), SIDE, copies=True)
    assert around_boxes.shared_crops == 0
    assert around_boxes.warning("train") is None


def test_taking_some_reads_them_and_leaves_the_rest(shards):
    crops = load(shards(), "train", CropRule(), SIDE, memory=0)
    some = crops.take(np.array([3, 1]))
    assert isinstance(some.images, np.ndarray)
    assert some.keys == (crops.keys[3], crops.keys[1])
    assert len(some) == 2
    np.testing.assert_array_equal(some.truth, crops.truth[[3, 1]])
    np.testing.assert_array_equal(some.images, crops.images[np.array([3, 1])])


def test_what_cannot_be_learnt_from_is_counted(shards):
    assert load(shards(), "train", CropRule(), SIDE).counts == {
        "instances not shown: crowd": 1,
        "instances not shown: no labelled keypoint": 1,
    }


def test_reading_is_told_as_it_goes(shards):
    told: list[int] = []
    progress = Progress()
    progress.reach = lambda done, note="": told.append(done)
    crops = load(shards(), "train", CropRule(), SIDE, progress=progress)
    assert told == sorted(told)
    assert told[-1] == len(crops)


@pytest.mark.parametrize(
    ("crop_rule", "crop", "says"),
    [
        (CropRule("image", 1.0), None, "the whole image, squared around its centre, × 1"),
        (CropRule("bbox", 1.25), None, "a square around the bbox, × 1.25"),
        (CropRule("bbox", 1.25), SIDE, "as the shards were cropped"),
    ],
)
def test_the_crop_is_said_in_words(shards, crop_rule, crop, says):
    dataset = shards(crop=crop) if crop else shards()
    assert load(dataset, "train", crop_rule, SIDE).crop == says


@pytest.mark.parametrize("crop_from", ["foo", "", None, 3])
def test_a_crop_around_what_there_is_not_is_refused(crop_from):
    with pytest.raises(SchemaError, match=f"crop_from is {crop_from!r}: expected bbox, keypoints"):
        CropRule(crop_from)


@pytest.mark.parametrize("margin", [0, 0.09, 10.1, -1, np.nan, np.inf, "1", None, True])
def test_a_margin_that_is_no_number_from_a_tenth_to_ten_is_refused(margin):
    with pytest.raises(SchemaError, match=r"^margin is .*: expected a number from 0\.1 to 10$"):
        CropRule("bbox", margin)
    assert CropRule("bbox", np.float32(0.5)).margin == 0.5


def test_an_instance_without_a_box_is_counted_and_the_others_are_shown(make_coco, tmp_path):
    path = make_coco(tmp_path / "coco", count=3)
    content = json.loads(path.read_text())
    del content["annotations"][0]["bbox"]
    path.write_text(json.dumps(content))
    source = formats.read("coco", path)
    request = Request.of(source, format="coco", split="100/0/0", shards=1)
    convert(source, request, tmp_path / "shards", SILENT)
    dataset = Dataset.open(tmp_path / "shards")
    crops = load(dataset, "train", CropRule("bbox"), SIDE)
    assert len(crops) == 4
    assert crops.counts == {"instances not shown: no box": 1}
    phase = Phase("all", 1, SIDE, 1e-3)
    warnings: list[str] = []
    progress = Progress()
    progress.warn = warnings.append
    no_val = TrainConfig(model="regression", phases=(phase,))
    load_crops(dataset, no_val, "train", SIDE, progress)
    assert warnings == ["train: 1 instances not shown: no box"]


def test_whole_images_without_boxes_say_what_else_to_crop_around(make_coco, tmp_path):
    path = make_coco(tmp_path / "coco", count=3)
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        del annotation["bbox"]
    path.write_text(json.dumps(content))
    source = formats.read("coco", path)
    request = Request.of(source, format="coco", split="100/0/0", shards=1)
    convert(source, request, tmp_path / "shards", SILENT)
    dataset = Dataset.open(tmp_path / "shards")
    with pytest.raises(DatasetError, match=r"5 instances not shown: no box.*`crop_from` image"):
        load(dataset, "train", CropRule("bbox"), SIDE)
    assert len(load(dataset, "train", CropRule("image"), SIDE)) == 5


def test_a_split_that_shows_nothing_says_what_was_left_out(make_coco, tmp_path):
    path = make_coco(tmp_path / "coco", count=3)
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation.update(keypoints=[0] * 51, num_keypoints=0)
    path.write_text(json.dumps(content))
    source = formats.read("coco", path)
    request = Request.of(source, format="coco", split="100/0/0", shards=1)
    convert(source, request, tmp_path / "shards", SILENT)
    dataset = Dataset.open(tmp_path / "shards")
    with pytest.raises(DatasetError, match=r"train shows no instance \(5 instances not shown"):
        load(dataset, "train", CropRule(), SIDE)
    with pytest.raises(DatasetError, match="no split 'dev'; it has train"):
        load(dataset, "dev", CropRule(), SIDE)


@pytest.mark.parametrize("memory", [None, 0])
def test_a_damaged_record_is_named(shards, tmp_path, memory):
    folder = tmp_path / "damaged"
    shutil.copytree(shards().folder, folder)
    shard = next(folder.glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"{shard.name}: .*record"):
        load(Dataset.open(folder), "train", CropRule(), SIDE, memory=memory)


@pytest.mark.parametrize(
    ("scale", "shrink"),
    [(2, 1), (0.41, 1), (0.4, 2), (0.21, 2), (0.2, 4), (0.11, 4), (0.1, 8), (0.01, 8)],
)
def test_large_pictures_are_averaged_before_they_are_sampled(scale, shrink):
    affine = np.array([[scale, 0, 3], [0, scale, 5.0]])
    assert shrink_for(affine) == shrink
    assert shrink_for(transform.as_stored(affine)) == shrink


def test_shrinking_moves_nothing():
    """A disc in a large crop is where the affine says, whatever was averaged before."""
    center = np.array([330.0, 250.0])
    rgb = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(rgb, (330, 250), 24, (255, 255, 255), -1)
    data = codec.encode(rgb, "png")
    instance = Instance(np.tile([*center, 2.0], (17, 1)))
    sample = Sample("a.png", ImageRef("a.png", width=640, height=480, data=data), (instance,))
    for side in (32, 64, 128, 480):
        affine = square_crop(np.array([0.0, 0, 640, 480]), 1.0, side)
        seen = decode_crop(sample, affine, side)[..., 0].astype(float)
        y, x = np.mgrid[:side, :side] + 0.5
        found = np.array([(x * seen).sum(), (y * seen).sum()]) / seen.sum()
        expected = apply_affine(affine, center + 0.5)  # OpenCV draws on pixel centres
        np.testing.assert_allclose(found, expected, atol=0.06)


def test_views_count_their_affines():
    views = Crops(8, np.zeros((5, 2, 3)), np.zeros((5, 8, 8, 3), np.uint8))
    assert len(views) == 5
    assert len(replace(views, to_source=views.to_source[:2])) == 2


# --- the border, which augmentation looks at


TURNED = AugmentConfig(
    rotate=(-30, 30), scale=(1, 1.33), shift=0.04, brightness=(0, 0), contrast=(1, 1),
    saturation=(1, 1), hue=(0, 0), grey=0, blur=0, rectangles=0, cutout=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def one_person(tmp_path_factory) -> Callable[..., tuple[np.ndarray, Dataset]]:
    """``one_person(bbox, crop)``: a bright picture of 240 × 240 pixels, and its shards."""

    def make(bbox: list[float], crop: int | None = None) -> tuple[np.ndarray, Dataset]:
        folder = tmp_path_factory.mktemp("one")
        noise = np.random.default_rng(0).integers(100, 256, (240, 240, 3), np.uint8)
        picture = cv2.GaussianBlur(noise, (0, 0), 2)
        (folder / "a.png").write_bytes(codec.encode(picture, "png"))
        middle = [bbox[0] + bbox[2] / 2, bbox[1] + bbox[3] / 2, 2]
        category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 240, "height": 240}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": bbox, "iscrowd": 0,
                             "area": 900, "num_keypoints": 17, "keypoints": middle * 17}],
            "categories": [category],
        }  # fmt: skip
        (folder / "coco.json").write_text(json.dumps(content))
        source = formats.read("coco", folder / "coco.json", images=folder)
        request = Request.of(source, format="coco", split="100/0/0", shards=1, crop=crop)
        convert(source, request, folder / "shards", SILENT)
        return picture, Dataset.open(folder / "shards")

    return make


def trained_on(dataset: Dataset, config: AugmentConfig, margin: float = 1.25) -> LabelledCrops:
    phases = (Phase("all", 1, SIDE, 1e-3),)
    options = {"augment": config, "crop_from": "bbox", "margin": margin}
    return load_crops(
        dataset, TrainConfig(model="regression", phases=phases, **options), "train", SIDE
    )


def test_a_turned_crop_shows_the_picture_in_its_corners(one_person):
    picture, dataset = one_person([100, 100, 40, 40])
    crops = trained_on(dataset, TURNED)
    assert (crops.side, crops.images.shape[1]) == (SIDE, SIDE + 2 * crops.border)
    (to_source,) = crops.to_source
    for epoch in range(8):
        batch = Batches(crops, TURNED, 1, seed=3).batch(epoch, 0)
        image, keypoints, params = batch.pop("image"), batch.pop("keypoints"), batch
        seen, moved = apply(image, keypoints, params, SIDE, COCO17.flip_index)
        pixels = (np.asarray(seen)[0] + 1) * 127.5
        assert pixels.min() > 90  # the picture is brighter than that, and what is beyond it black
        to_input = transform.compose(params["affine"][0], transform.invert(crops.without_border))
        from_source = transform.compose(to_input, transform.invert(to_source))
        expected = warp(picture, from_source, SIDE, SIDE)
        assert np.abs(pixels - expected).mean() < 2
        middle = apply_affine(from_source, np.array([[120.5, 120.5]]))
        np.testing.assert_allclose(np.asarray(moved)[0, :, :2], np.tile(middle, (17, 1)), atol=1e-3)


def test_beyond_the_picture_a_crop_is_black(one_person):
    _, dataset = one_person([0, 0, 40, 40])
    crops = trained_on(dataset, TURNED)
    (image,) = crops.images[np.arange(1)]
    outside = int(crops.border + SIDE * 0.1 - 1)  # a tenth of the crop lies beyond the picture
    assert image[:outside].max() == image[:, :outside].max() == 0
    assert image[outside + 3 :, outside + 3 :].min() > 90


@pytest.mark.parametrize(
    ("crop", "config", "split", "border"),
    [
        (None, TURNED, "train", 10),  # a quarter: 0.24 were enough
        (None, AugmentConfig(scale=(0.1, 1)), "train", SIDE // 4),
        (None, structs.replace(TURNED, rotate=(0, 0), shift=0.04), "train", 2),
        (None, structs.replace(TURNED, rotate=(0, 0), shift=0.0), "train", 0),
        (SIDE, TURNED, "train", 0),
    ],
)
def test_the_border_is_as_wide_as_the_changes_reach_up_to_a_quarter(
    one_person, crop, config, split, border
):
    _, dataset = one_person([100, 100, 40, 40], crop)
    crops = trained_on(dataset, config)
    assert crops.border == border
    assert crops.images[np.arange(1)].shape[1] == SIDE + 2 * border
    assert load(dataset, split, CropRule("bbox", 1.25), SIDE).border == 0


def test_crops_that_are_not_kept_in_memory_have_the_same_border(one_person):
    _, dataset = one_person([100, 100, 40, 40])
    kept, read = (
        load(dataset, "train", CropRule("bbox", 1.25), SIDE, memory=memory, border=7)
        for memory in (1 << 20, 0)
    )
    assert isinstance(kept.images, np.ndarray)
    assert not isinstance(read.images, np.ndarray)
    assert (read.images[np.arange(1)] == kept.images).all()
    inside = load(dataset, "train", CropRule("bbox", 1.25), SIDE).images
    assert (kept.images[:, 7:-7, 7:-7] == inside).all()
