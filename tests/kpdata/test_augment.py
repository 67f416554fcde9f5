import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core import transform
from kpdata.core.augment import (
    AugmentConfig,
    CopyParams,
    Rectangle,
    occlude,
    params_affine,
    sample_params,
)
from kpdata.core.errors import FormatError, SchemaError
from kpdata.core.sample import Instance
from kpdata.formats.settings import load_config
from kpdata.images.photometric import paint

WIDTH, HEIGHT = 160, 120

sides = st.tuples(st.integers(1, 400), st.integers(1, 400))


@st.composite
def draws(draw_from: st.DrawFn) -> CopyParams:
    """Any geometry that the default configuration can draw, and more."""
    return CopyParams(
        flip=draw_from(st.booleans()),
        rotate=draw_from(st.floats(-180, 180)),
        scale=draw_from(st.floats(0.5, 2)),
        shift_xy=draw_from(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))),
    )


@given(draws(), st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)))
def test_a_copys_affine_and_its_inverse_give_coordinates_back(copy, xy):
    stored = transform.as_stored(params_affine(copy, WIDTH, HEIGHT))
    seen = transform.apply_affine(stored, xy).astype(np.float32)
    back = transform.apply_affine(transform.invert(stored), seen)
    np.testing.assert_allclose(back, xy, atol=1e-3)


def test_a_copy_is_flipped_then_turned_and_scaled_about_the_centre_then_shifted():
    copy = CopyParams(flip=True, rotate=90, scale=2.0, shift_xy=(0.1, -0.2))
    # 10 px left of the centre → 10 right of it → 20 below it → shifted by (16, −24)
    seen = transform.apply_affine(params_affine(copy, WIDTH, HEIGHT), [WIDTH / 2 - 10, HEIGHT / 2])
    np.testing.assert_allclose(seen, [WIDTH / 2 + 16, HEIGHT / 2 + 20 - 24], atol=1e-9)


def test_the_draw_that_changes_nothing_has_the_identity_affine():
    np.testing.assert_array_equal(params_affine(CopyParams(), WIDTH, HEIGHT), transform.IDENTITY)


@given(st.integers(0, 2**32), sides)
def test_the_same_seed_gives_the_same_draw(seed, size):
    config = AugmentConfig()
    assert sample_params(config, np.random.default_rng(seed), *size) == sample_params(
        config, np.random.default_rng(seed), *size
    )


def test_different_seeds_give_different_draws():
    config = AugmentConfig()
    rotations = {sample_params(config, np.random.default_rng(i), 64, 64).rotate for i in range(50)}
    assert len(rotations) == 50


@given(st.integers(0, 2**32), sides)
def test_every_number_lies_in_its_range(seed, size):
    config = AugmentConfig(rectangles=4, cutout=1.0, blur=1.0, grey=0.0)
    copy = sample_params(config, np.random.default_rng(seed), *size)
    for key in ("rotate", "scale", "brightness", "contrast", "saturation", "hue"):
        low, high = getattr(config, key)
        assert low - 1e-12 <= getattr(copy, key) <= high + 1e-12, key
    assert config.blur_sigma[0] <= copy.blur_sigma <= config.blur_sigma[1]
    assert config.jpeg_quality[0] <= copy.jpeg_quality <= config.jpeg_quality[1]
    assert max(map(abs, copy.shift_xy)) <= config.shift
    assert 1 <= len(copy.rectangles) <= 5
    for x0, y0, x1, y1, rgb in copy.rectangles:
        assert 0 <= x0 < x1 <= size[0]
        assert 0 <= y0 < y1 <= size[1]
        assert all(0 <= channel <= 255 for channel in rgb)


@pytest.mark.parametrize("key", ["flip", "grey", "blur", "cutout"])
def test_a_probability_of_0_never_happens_and_of_1_always_does(key):
    happened = {
        "flip": lambda copy: copy.flip,
        "grey": lambda copy: copy.saturation == 0,
        "blur": lambda copy: copy.blur_sigma > 0,
        "cutout": lambda copy: bool(copy.rectangles),
    }[key]
    for probability in (0.0, 1.0):
        config = AugmentConfig(**{"rectangles": 0, key: probability})
        seen = {
            happened(sample_params(config, np.random.default_rng(i), 64, 64)) for i in range(30)
        }
        assert seen == {probability == 1}


CHANGES = {
    "flip": (0.0, {"flip"}),
    "rotate": ((-180, -90), {"rotate"}),
    "scale": ((2.0, 3.0), {"scale"}),
    "shift": (0.5, {"shift_xy"}),
    "brightness": ((0.5, 0.6), {"brightness"}),
    "contrast": ((2.0, 3.0), {"contrast"}),
    "saturation": ((2.0, 3.0), {"saturation"}),
    "hue": ((90, 100), {"hue"}),
    "grey": (1.0, {"saturation"}),
    "blur": (1.0, {"blur_sigma"}),
    "blur_sigma": ((5.0, 6.0), {"blur_sigma"}),
    "jpeg_quality": ((1, 5), {"jpeg_quality"}),
    "rectangles": (0, {"rectangles"}),
    "rectangle_size": ((0.8, 0.9), {"rectangles"}),
    "cutout": (1.0, {"rectangles"}),
    "cutout_size": ((0.8, 0.9), {"rectangles"}),
}


def test_every_key_of_the_configuration_has_a_change_to_test():
    assert set(CHANGES) == set(AugmentConfig.__struct_fields__)


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_of_one_key_changes_nothing_else_in_any_draw(key):
    value, meant = CHANGES[key]
    before, after = AugmentConfig(), AugmentConfig(**{key: value})
    changed = set()
    for seed in range(60):
        old = dataclasses.asdict(sample_params(before, np.random.default_rng(seed), 100, 80))
        new = dataclasses.asdict(sample_params(after, np.random.default_rng(seed), 100, 80))
        changed |= {field for field in old if old[field] != new[field]}
    assert changed == meant


def test_whole_numbers_reach_both_ends_of_their_range():
    config = AugmentConfig(jpeg_quality=(60, 62), rectangles=2, cutout=0.0)
    copies = [sample_params(config, np.random.default_rng(i), 64, 64) for i in range(60)]
    assert {copy.jpeg_quality for copy in copies} == {60, 61, 62}
    assert {len(copy.rectangles) for copy in copies} == {0, 1, 2}


def test_a_factor_and_its_inverse_are_equally_likely():
    config = AugmentConfig(scale=(0.5, 2.0))
    scales = np.array(
        [sample_params(config, np.random.default_rng(i), 9, 9).scale for i in range(2000)]
    )
    assert abs(np.log(scales).mean()) < 0.04
    assert abs((scales > 1).mean() - 0.5) < 0.04


def test_a_rectangle_hides_visible_keypoints_and_leaves_the_others_alone():
    keypoints = np.array([[15.0, 15, 2], [16, 16, 1], [0, 0, 0], [50, 50, 2], [35, 35, 2]])
    rectangles = [Rectangle(0, 0, 20, 20, (1, 2, 3)), Rectangle(30, 30, 40, 40, (4, 5, 6))]
    hidden = occlude(Instance(keypoints, area=5.0), rectangles)
    assert hidden.visibility.tolist() == [1, 1, 0, 2, 1]
    np.testing.assert_array_equal(hidden.xy, keypoints[:, :2])
    assert hidden.area == 5


def test_a_rectangle_holds_its_left_and_top_edge_but_not_the_others():
    edges = np.array([[10.0, 25, 2], [15, 20, 2], [30, 25, 2], [15, 50, 2]])
    hidden = occlude(Instance(edges), [Rectangle(10, 20, 30, 50, (0, 0, 0))])
    assert hidden.visibility.tolist() == [1, 1, 2, 2]


def test_without_a_rectangle_over_a_keypoint_the_instance_is_the_same():
    boat = Instance(np.array([[15.0, 15, 2], [0, 0, 0]]))
    assert occlude(boat, []) == boat
    assert occlude(boat, [Rectangle(16, 0, 30, 30, (0, 0, 0))]) == boat


@given(st.integers(0, 2**32))
def test_a_keypoint_is_occluded_exactly_where_its_pixel_is_painted_over(seed):
    """Every pixel's centre is a keypoint; the occluders' colours occur nowhere in the picture."""
    config = AugmentConfig(rectangles=3, cutout=1.0)
    copy = sample_params(config, np.random.default_rng(seed), 24, 18)
    rectangles = tuple(r._replace(rgb=(9, 9, 9)) for r in copy.rectangles)
    painted = paint(np.full((18, 24, 3), 200, np.uint8), CopyParams(rectangles=rectangles))
    rows, columns = np.mgrid[:18, :24]
    keypoints = np.column_stack([columns.ravel() + 0.5, rows.ravel() + 0.5, np.full(18 * 24, 2)])
    hidden = occlude(Instance(keypoints), rectangles).visibility.reshape(18, 24) == 1
    np.testing.assert_array_equal(painted == 9, np.repeat(hidden[..., None], 3, axis=2))
    assert hidden.any()


def test_a_cutout_is_a_black_square_painted_last():
    config = AugmentConfig(rectangles=2, cutout=1.0, cutout_size=(0.25, 0.25))
    for seed in range(20):
        *_, (x0, y0, x1, y1, rgb) = sample_params(
            config, np.random.default_rng(seed), 400, 200
        ).rectangles
        assert rgb == (0, 0, 0)
        inside = x0 > 0 and y0 > 0 and x1 < 400 and y1 < 200
        assert not inside or {x1 - x0, y1 - y0} <= {50, 51}


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_paint_without_changes_leaves_pixels_untouched():
    np.testing.assert_array_equal(paint(picture(), CopyParams()), picture())


def test_paint_applies_every_change_and_never_writes_to_its_input():
    source = picture()
    before = source.copy()
    occluder = Rectangle(10, 20, 30, 50, (40, 80, 120))
    for change in (
        CopyParams(brightness=0.2),
        CopyParams(contrast=1.2),
        CopyParams(saturation=0.5),
        CopyParams(hue=20),
        CopyParams(blur_sigma=1.0),
        CopyParams(rectangles=(occluder,)),
    ):
        painted = paint(source, change)
        assert (painted != before).any(), change
        assert painted.shape == before.shape
    np.testing.assert_array_equal(source, before)


def test_occluders_are_in_the_scene_and_so_take_part_in_colour():
    occluder = Rectangle(10, 20, 30, 50, (40, 80, 120))
    painted = paint(picture(), CopyParams(rectangles=(occluder,), brightness=0.2))
    assert (painted[20:50, 10:30] == (91, 131, 171)).all()


def test_a_grey_copy_has_equal_channels():
    config = AugmentConfig(grey=1.0)
    painted = paint(picture(), sample_params(config, np.random.default_rng(3), WIDTH, HEIGHT))
    plain = paint(picture(), CopyParams(saturation=0.0, hue=30, contrast=1.2))
    assert (plain == plain[..., :1]).all()
    assert (painted == painted[..., :1]).all()


def test_a_file_sets_the_keys_it_names_and_leaves_the_others(tmp_path):
    path = tmp_path / "gentle.toml"
    path.write_text("flip = 0\nrotate = [-10, 10]\nrectangles = 0\njpeg_quality = [90, 90]\n")
    assert load_config(path) == AugmentConfig(
        flip=0.0, rotate=(-10, 10), rectangles=0, jpeg_quality=(90, 90)
    )


def test_an_empty_file_is_the_default(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert load_config(path) == AugmentConfig()


def test_the_example_in_the_docstring_shows_the_defaults(tmp_path):
    from kpdata.core import augment

    path = tmp_path / "example.toml"
    path.write_text("\n".join(s for s in augment.__doc__.splitlines() if s.startswith("    ")))
    assert "cutout_size = " in path.read_text()
    assert load_config(path) == AugmentConfig()


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("flip", 1.5, "0 to 1"),
        ("flip", float("nan"), "0 to 1"),
        ("rotate", (30, -30), "within -180 and 180"),
        ("rotate", (-200, 0), "within -180 and 180"),
        ("scale", (0.0, 1.0), "within 0.1 and 10"),
        ("shift", -0.1, "0 to 1"),
        ("brightness", (-2.0, 0.0), "within -1 and 1"),
        ("contrast", (0.0, 1.0), "within 0.1 and 4"),
        ("saturation", (1.0, float("inf")), "within 0 and 4"),
        ("hue", (0, 181), "within -180 and 180"),
        ("grey", -1.0, "0 to 1"),
        ("blur", 2.0, "0 to 1"),
        ("blur_sigma", (0.0, 1.0), "within 0.1 and 20"),
        ("jpeg_quality", (0, 95), "within 1 and 100"),
        ("rectangles", 17, "0 to 16"),
        ("rectangle_size", (0.1, 1.1), "within 0.01 and 1"),
        ("cutout", 7.0, "0 to 1"),
        ("cutout_size", (0.0, 0.5), "within 0.01 and 1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_key_value_and_range(key, value, allowed):
    with pytest.raises(SchemaError) as refusal:
        AugmentConfig(**{key: value})
    message = str(refusal.value)
    assert message.startswith(f"{key} is {list(value) if isinstance(value, tuple) else value}: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("text", "error", "parts"),
    [
        ("flips = 0.5", SchemaError, ["`flips`", "keys are flip, rotate, scale"]),
        ('flip = "often"', SchemaError, ["`float`", "`str`", "flip"]),
        ("rotate = 30", SchemaError, ["`array`", "rotate"]),
        ("rotate = [1, 2, 3]", SchemaError, ["length 2", "rotate"]),
        ("jpeg_quality = [60.5, 95]", SchemaError, ["`int`", "jpeg_quality"]),
        ("scale = [-1, 1]", SchemaError, ["scale is [-1.0, 1.0]", "0.1 and 10"]),
        ("flip 0.5", FormatError, ["not a TOML file", "line 1"]),
        ("flip = 0.5\nflip = 0.6", FormatError, ["not a TOML file", "overwrite"]),
        (b"\xff\xfe\x00", FormatError, ["not a TOML file"]),
    ],
    ids=["unknown", "text", "scalar", "long", "float", "range", "syntax", "twice", "bytes"],
)
def test_a_bad_file_is_refused_by_file_and_key(tmp_path, text, error, parts):
    path = tmp_path / "augment.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error) as refusal:
        load_config(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(FormatError, match=r"absent\.toml: cannot read the augmentation: No such"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(FormatError, match="cannot read the augmentation: Is a directory"):
        load_config(tmp_path)
