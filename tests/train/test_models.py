import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import keras
import numpy as np
import pytest

from kpdata.core.errors import KpdataError
from kpdata.train.models.blazepose import SIZES, Size
from kpdata.train.models.blazepose.network import (
    blazepose,
    set_stage,
    stage_layers,
)
from kpdata.train.models.layers import ChannelAffine, SpatialExpectation, SpatialSoftmax
from kpdata.train.models.regression import BACKBONES
from kpdata.train.models.regression.network import (
    _PIXELS,
    backbone_of,
    load_backbone,
    regression,
)

TINY = Size((4, 4, 6, 6, 8), (1, 1, 1, 2, 1), (1, 1))
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
REPORTS: dict[str, dict] = {}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    yield
    keras.backend.clear_session(free_memory=False)  # a collection would take seconds each time


@pytest.fixture
def _bfloat16() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def steps(backend: str) -> dict[str, dict[str, list[str]]]:
    """What model_steps.py reports on a backend; it runs once for all tests."""
    if backend not in REPORTS:
        if backend == "jax":
            pytest.importorskip("jax")
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("model_steps.py"))],
            env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": QUICK_COMPILATION},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["backend"] == backend
        REPORTS[backend] = result["reports"]
    return REPORTS[backend]


def crops(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def arrays(outputs: dict) -> dict[str, np.ndarray]:
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def shuffle_weights(model: keras.Model) -> None:
    """Weights so unlike a fresh model's that no output is a constant."""
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.uniform(0.05, 0.3, w.shape) for w in model.get_weights()])


def trainable_parameters(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("size", "count", "paper"), [("lite", 14, 1.3e6), ("lite", 33, 1.3e6), ("full", 14, 3.4e6)]
)
def test_blazepose_has_about_the_papers_parameters(size, count, paper):
    model = blazepose(count, 256, size)
    assert abs(trainable_parameters(model) / paper - 1) < 0.1
    assert {name: output.shape[1:] for name, output in model.output.items()} == {
        "heatmap": (64, 64, count),
        "xy_norm": (count, 2),
        "visibility": (count,),
    }


def test_heavy_is_larger_than_full():
    assert trainable_parameters(blazepose(33, 128, "heavy")) > 2 * 3.4e6


@pytest.mark.parametrize(("count", "size"), [(1, 128), (14, 160), (33, 256)])
def test_blazepose_gives_each_output_its_shape_in_float32(count, size):
    outputs = arrays(blazepose(count, size, "tiny", offsets=True)(crops(size)))
    assert {name: value.shape for name, value in outputs.items()} == {
        "heatmap": (2, size // 4, size // 4, count),
        "offset": (2, size // 4, size // 4, 2 * count),
        "xy_norm": (2, count, 2),
        "visibility": (2, count),
    }
    assert {value.dtype for value in outputs.values()} == {np.dtype("float32")}


def test_blazepose_starts_at_the_middle_of_the_picture():
    outputs = arrays(blazepose(3, 64, "tiny")(crops(64)))
    np.testing.assert_allclose(outputs["xy_norm"], 0.5, atol=0.06)


def test_blazepose_weights_fit_every_input_size():
    small, large = blazepose(3, 96, "tiny"), blazepose(3, 160, "tiny")
    shuffle_weights(small)
    large.set_weights(small.get_weights())
    assert arrays(large(crops(160)))["heatmap"].shape == (2, 40, 40, 3)


@pytest.mark.parametrize("size", [100, 0, 255])
def test_blazepose_refuses_an_input_size_that_its_decoder_cannot_meet(size):
    with pytest.raises(KpdataError, match=f"input size {size} must be a multiple of 32"):
        blazepose(3, size, "tiny")


def test_blazepose_lists_the_sizes_it_knows():
    with pytest.raises(KpdataError, match="'huge' is unknown; known: lite, full, heavy"):
        blazepose(3, 64, "huge")


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_step_in_stage_heatmap_moves_the_shared_part_alone(backend):
    report = steps(backend)["heatmap"]
    assert set(report["moved"]) == set(report["shared"])
    assert {"stem_conv/kernel", "heatmap/kernel", "offset/kernel"} <= set(report["moved"])


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_step_in_stage_regression_leaves_every_shared_weight_and_statistic(backend):
    report = steps(backend)["regression"]
    assert set(report["moved"]) == set(report["all"]) - set(report["shared"])
    assert set(report["shared"]) & set(report["statistics"])
    assert {"vote_offset/kernel", "vote_logit/kernel", "visibility/kernel"} <= set(report["moved"])


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_coordinates_losses_never_reach_the_shared_weights_even_when_all_learn(backend):
    report = steps(backend)["both"]
    reached = set(report["moved"]) & set(report["shared"])
    assert reached == set(report["shared"]) & set(report["statistics"])
    assert set(report["all"]) - set(report["shared"]) <= set(report["moved"])


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_step_of_a_regression_model_moves_its_backbone_and_every_head(backend):
    report = steps(backend)["regression model"]
    assert set(report["moved"]) == set(report["all"])


def test_set_stage_lets_the_weights_of_its_layers_learn_and_no_statistics():
    model = blazepose(3, 64, "tiny", offsets=True)
    every = {v.path for v in model.trainable_variables}
    learning = {}
    for stage in ("heatmap", "regression", "both"):
        set_stage(model, stage)
        learning[stage] = {v.path for v in model.trainable_variables}
        variables = {v.path for layer in stage_layers(model, stage) for v in layer.variables}
        statistics = {path for path in variables if "/moving_" in path}
        assert statistics
        assert learning[stage] == variables - statistics
    assert learning["both"] == every
    assert learning["heatmap"] | learning["regression"] == every
    assert not learning["heatmap"] & learning["regression"]


def test_stages_survive_saving_and_renaming(tmp_path):
    model = blazepose(3, 64, "tiny")
    wanted = [layer.name for layer in stage_layers(model, "regression")]
    model.name = "mine"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in stage_layers(loaded, "regression")] == wanted


def test_stages_are_asked_of_a_blazepose_and_by_a_known_name():
    with pytest.raises(KpdataError, match="stage 'head' is unknown; known: heatmap, regression"):
        set_stage(blazepose(3, 64, "tiny"), "head")
    with pytest.raises(KpdataError, match="only blazepose has"):
        set_stage(regression(3, 64, backbone="mobilenet"), "heatmap")


@pytest.mark.parametrize("head", ["dense", "softargmax", "rle"])
@pytest.mark.parametrize(("count", "size"), [(1, 128), (33, 160)])
def test_regression_gives_each_output_its_shape_in_float32(head, count, size):
    outputs = arrays(regression(count, size, "mobilenet", head=head)(crops(size)))
    extra = {
        "dense": {},
        "softargmax": {"heatmap": (2, size // 8, size // 8, count)},
        "rle": {"sigma": (2, count, 2)},
    }[head]
    expected = {"xy_norm": (2, count, 2), "visibility": (2, count), **extra}
    assert {name: value.shape for name, value in outputs.items()} == expected
    assert {value.dtype for value in outputs.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("head", ["dense", "rle"])
def test_a_dense_head_starts_at_the_middle_and_is_not_clipped(head):
    model = regression(2, 64, "mobilenet", head=head, dropout=0.0)
    np.testing.assert_allclose(arrays(model(crops(64)))["xy_norm"], 0.5, atol=0.2)
    model.get_layer("coordinates").bias.assign([-1.0, 2.0, -1.0, 2.0])
    xy = arrays(model(crops(64)))["xy_norm"]
    assert (xy[..., 0] < 0).all()
    assert (xy[..., 1] > 1).all()


def test_sigma_lies_between_0_and_1():
    model = regression(2, 64, "mobilenet", head="rle")
    model.get_layer("spread").bias.assign([-9.0, 9.0, -1.0, 1.0])
    sigma = arrays(model(crops(64)))["sigma"]
    assert ((sigma > 0) & (sigma < 1)).all()
    assert sigma[0, 0, 0] < 0.01
    assert sigma[0, 0, 1] > 0.99


def test_the_heatmap_of_softargmax_is_a_probability():
    heatmap = arrays(regression(2, 64, "mobilenet", head="softargmax")(crops(64)))["heatmap"]
    assert (heatmap >= 0).all()
    np.testing.assert_allclose(heatmap.sum(axis=(1, 2)), 1, atol=1e-5)


def test_the_expectation_of_one_cell_is_its_centre_plus_its_offset():
    logits = np.full((1, 4, 8, 2), -100, "float32")
    logits[0, 1, 6, 0] = logits[0, 3, 0, 1] = 100
    probabilities = SpatialSoftmax()(logits)
    centres = arrays({"xy": SpatialExpectation()(probabilities)})["xy"]
    np.testing.assert_allclose(centres, [[[6.5 / 8, 1.5 / 4], [0.5 / 8, 3.5 / 4]]], atol=1e-6)
    offsets = np.zeros((1, 4, 8, 4), "float32")
    offsets[0, 1, 6] = [0.1, 9, -0.2, 9]  # x of both keypoints, y of both
    offsets[0, 3, 0] = [9, -0.3, 9, 0.4]
    moved = arrays({"xy": SpatialExpectation()([probabilities, offsets])})["xy"]
    np.testing.assert_allclose(moved - centres, [[[0.1, -0.2], [-0.3, 0.4]]], atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "module"),
    [("unit", "mobilenet_v2"), ("bgr", "resnet"), ("standard", "densenet"), ("bytes", "convnext")],
)
def test_pixels_reach_a_backbone_as_its_own_preprocessing_makes_them(pixels, module):
    raw = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    own = importlib.import_module(f"keras.applications.{module}").preprocess_input(raw.copy())
    ours = arrays({"x": ChannelAffine(**_PIXELS[pixels])(raw / 127.5 - 1)})["x"]
    np.testing.assert_allclose(ours, own, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "member"),
    [("mobilenet_v3", "mobilenet_v3_large"), ("efficientnet_v2", "efficientnet_v2_b0")],
)
def test_a_familys_name_stands_for_one_of_it(family, member, monkeypatch):
    built = []

    def stop(name: str, *_: object) -> None:
        built.append(name)
        raise InterruptedError

    module = importlib.import_module("kpdata.train.models.regression.network")
    monkeypatch.setattr(module, "_backbone", stop)
    for name in (family, member):
        with pytest.raises(InterruptedError):
            regression(3, 64, name)
    assert built == [member, member]


def test_every_backbone_is_a_keras_application():
    assert all(callable(getattr(keras.applications, name)) for name, _ in BACKBONES.values())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet50", "efficientnet_v2_b0"])
def test_a_backbone_of_another_family_is_frozen_whole(name):
    model = regression(2, 64, name)
    backbone_of(model).trainable = False
    heads = {v.path for v in model.trainable_variables}
    assert heads == {f"{head}/{part}" for head in ("coordinates", "visibility")
                     for part in ("kernel", "bias")}  # fmt: skip


def test_backbone_of_refuses_a_model_without_one():
    with pytest.raises(KpdataError, match="no backbone"):
        backbone_of(blazepose(3, 64, "tiny"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "alexnet"}, "backbone 'alexnet' is unknown; known: mobilenet, mobilenet_v2"),
        ({"head": "mlp"}, "head 'mlp' is unknown; known: dense, softargmax, rle"),
        ({"weights": "coco"}, "weights 'coco': neither 'none', nor 'imagenet', nor a .h5"),
        ({"weights": "missing.h5"}, "weights missing.h5: no such file"),
        ({"backbone": "xception"}, "xception at input size 64: .*at least 71"),
    ],
)
def test_regression_refuses_what_it_does_not_know(options, message):
    with pytest.raises(KpdataError, match=message):
        regression(2, 64, **options)


def test_imagenet_weights_without_a_network_say_how_to_supply_a_file(tmp_path, monkeypatch):
    files = "keras.src.utils.file_utils"

    def offline(*_: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(f"{files}.urlretrieve", offline)
    monkeypatch.setattr(f"{files}.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(KpdataError, match=r"mobilenet: URL.*no_top.h5.*its path as `weights`"):
        regression(2, 224, "mobilenet", weights="imagenet")


def stored_backbone(path: Path, width: int = 4, legacy: bool = False) -> Path:
    """Weights of a small backbone, all 0.25."""
    model = small_backbone(width)
    model.set_weights([np.full_like(w, 0.25) for w in model.get_weights()])
    if not legacy:
        model.save_weights(path)
        return path
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

    save_model_to_hdf5(model, path)
    return path


def small_backbone(width: int = 4) -> keras.Model:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(width, 3, name="first")(image)
    return keras.Model(image, keras.layers.Conv2D(2, 1, name="second")(x))


@pytest.mark.parametrize(("name", "legacy"), [("a.weights.h5", False), ("a_notop.h5", True)])
def test_weights_of_either_file_format_reach_the_backbone(tmp_path, name, legacy):
    model = small_backbone()
    load_backbone(model, "small", stored_backbone(tmp_path / name, legacy=legacy))
    assert all((w == 0.25).all() for w in model.get_weights())


@pytest.mark.parametrize(("name", "legacy"), [("a.weights.h5", False), ("a_notop.h5", True)])
def test_weights_that_do_not_fit_name_the_file_and_the_layer(tmp_path, name, legacy):
    path = stored_backbone(tmp_path / name, width=5, legacy=legacy)
    with pytest.raises(KpdataError, match=rf"{name} do not fit small(?s:.*)first"):
        load_backbone(small_backbone(), "small", path)


def test_weights_of_fewer_layers_name_the_first_that_is_missing(tmp_path):
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Conv2D(4, 3, name="first")(image)).save_weights(
        tmp_path / "short.weights.h5"
    )
    with pytest.raises(KpdataError, match=r"short.weights.h5 do not fit small(?s:.*)second"):
        load_backbone(small_backbone(), "small", tmp_path / "short.weights.h5")


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(KpdataError, match=r"model.h5 do not fit small"):
        load_backbone(small_backbone(), "small", path)


def test_a_path_of_weights_gives_a_model_with_those_weights(tmp_path):
    first = regression(2, 64, "mobilenet")
    path = tmp_path / "mine.weights.h5"
    backbone_of(first).save_weights(path)
    second = regression(2, 96, "mobilenet", weights=str(path))
    for ours, theirs in zip(
        backbone_of(second).get_weights(), backbone_of(first).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("_bfloat16")
def test_outputs_stay_float32_under_mixed_bfloat16():
    blaze = blazepose(3, 64, "tiny", offsets=True)
    assert blaze.get_layer("stem_conv").compute_dtype == "bfloat16"
    models = [blaze, *(regression(3, 64, "mobilenet", head=h) for h in ("softargmax", "rle"))]
    for model in models:
        outputs = arrays(model(crops(64)))
        assert {value.dtype for value in outputs.values()} == {np.dtype("float32")}
        assert all(np.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("kind", ["blazepose", "softargmax", "rle"])
def test_a_saved_model_loads_in_safe_mode_and_gives_the_same(tmp_path, kind):
    if kind == "blazepose":
        model = blazepose(3, 64, "tiny", offsets=True)
        shuffle_weights(model)
    else:
        model = regression(3, 64, "resnet50", head=kind)  # fresh, and yet no output is constant
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    expected, found = arrays(model(crops(64))), arrays(loaded(crops(64)))
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert value.std() > 0
