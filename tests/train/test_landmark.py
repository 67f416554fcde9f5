"""Starting from BlazePose's published weights; the files here have its layout and other numbers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from tflite_files import tflite_bytes

from kpdata.core.errors import KpdataError, SchemaError
from kpdata.core.skeletons import BLAZEPOSE33, LSP14
from kpdata.shards.dataset import Dataset
from kpdata.train.api import configuration
from kpdata.train.loop.optimisers import make_optimiser
from kpdata.train.models import weights as catalogue
from kpdata.train.models.base import Phase
from kpdata.train.models.blazepose import FULL_SIDE
from kpdata.train.models.blazepose.landmark import (
    SIZES,
    Network,
    landmark_network,
    size_of,
    start_from,
)
from kpdata.train.models.registry import get_model
from kpdata.train.models.tflite_file import Convolution, read_convolutions
from kpdata.train.run.config import TrainConfig

if keras.backend.backend() != "tensorflow":
    pytest.skip("the other backend is tried in a process of its own", allow_module_level=True)

SEED = np.random.default_rng(0)


@pytest.fixture(scope="module")
def published() -> tuple[keras.Model, list[Convolution]]:
    """The lite network with weights of our own, as float16, and those weights in file order."""
    image = keras.Input((FULL_SIDE, FULL_SIDE, 3))
    network = Network(SIZES["lite"], image)
    weights = []
    for layer in network.convolutions:
        shapes = [weight.shape for weight in layer.get_weights()]
        fan_in = np.prod(shapes[0][:3]) if shapes[0][3] > 1 else np.prod(shapes[0][:2])
        kernel = SEED.normal(size=shapes[0]) * np.sqrt(2 / fan_in)
        made = [kernel, SEED.normal(size=shapes[1]) * 0.1]
        made = [values.astype(np.float16).astype(np.float32) for values in made]
        layer.set_weights(made)
        weights.append(Convolution(*made))
    return keras.Model(image, network.outputs), weights


@pytest.fixture
def file(published: tuple[keras.Model, list[Convolution]], tmp_path: Path) -> Path:
    path = tmp_path / "own.tflite"
    path.write_bytes(tflite_bytes(published[1]))
    return path


def crops(side: int = FULL_SIDE, count: int = 2) -> np.ndarray:
    return SEED.uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def test_with_its_own_names_the_network_starts_exactly_at_the_published_one(
    published: tuple[keras.Model, list[Convolution]], file: Path
) -> None:
    whole, _ = published
    model = landmark_network(33, FULL_SIDE, "lite")
    mapping = start_from(model, read_convolutions(file), "lite", BLAZEPOSE33)
    assert {keypoint.how for keypoint in mapping.keypoints} == {"exact"}
    images = crops()
    theirs = {n: ops.convert_to_numpy(v) for n, v in whole((images + 1) / 2).items()}
    ours = {n: ops.convert_to_numpy(v) for n, v in model(images).items()}
    landmarks = theirs["landmarks"].reshape(2, 39, 5)[:, :33]
    for found, expected in (
        (ours["heatmap_logit"], theirs["heatmap"][..., :33]),
        (ours["xy_norm"] * FULL_SIDE, landmarks[..., :2]),
        (ours["visibility"], landmarks[..., 3]),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.ptp(expected))


def test_other_skeletons_start_by_name_the_derived_from_a_mean_the_rest_at_random(
    published: tuple[keras.Model, list[Convolution]],
) -> None:
    whole, weights = published
    model = landmark_network(14, FULL_SIDE, "lite")
    images = crops()
    before = ops.convert_to_numpy(model(images)["xy_norm"])
    mapping = start_from(model, weights, "lite", LSP14)
    hows = {keypoint.name: keypoint.how for keypoint in mapping.keypoints}
    assert (hows["left_knee"], hows["neck"], hows["head_top"]) == ("exact", "derived", "missing")
    theirs = ops.convert_to_numpy(whole((images + 1) / 2)["landmarks"]).reshape(2, 39, 5)
    found = ops.convert_to_numpy(model(images)["xy_norm"]) * FULL_SIDE
    knee, neck, head = (LSP14.index(name) for name in ("left_knee", "neck", "head_top"))
    shoulders = [BLAZEPOSE33.index(f"{side}_shoulder") for side in ("left", "right")]
    spread = np.ptp(theirs[..., :2])
    np.testing.assert_allclose(
        found[:, knee], theirs[:, BLAZEPOSE33.index("left_knee"), :2], atol=1e-3 * spread
    )
    np.testing.assert_allclose(
        found[:, neck], theirs[:, shoulders, :2].mean(axis=1), atol=1e-3 * spread
    )
    assert np.abs(found[:, head] / FULL_SIDE - 0.5).max() < 0.5  # from the middle, as at the start
    assert np.abs(before - 0.5).max() < 0.1


@pytest.mark.parametrize("side", [160, 192, 224, 256])
def test_it_takes_the_sizes_of_which_the_tower_makes_two_by_two_cells(side: int) -> None:
    outputs = landmark_network(3, side, "lite").output
    shapes = {name: tuple(value.shape[1:]) for name, value in outputs.items()}
    assert shapes == {
        "heatmap_logit": (side // 4, side // 4, 3), "xy_norm": (3, 2), "visibility": (3,),
    }  # fmt: skip


@pytest.mark.parametrize("side", [128, 200, 288])
def test_other_input_sizes_are_refused(side: int) -> None:
    with pytest.raises(KpdataError, match=f"input_size is {side}: .* 32 from 160 to 256"):
        landmark_network(3, side, "lite")


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_known_by_its_convolutions(size: str) -> None:
    made = Network(SIZES[size], keras.Input((FULL_SIDE, FULL_SIDE, 3))).convolutions
    shapes = [tuple(layer.kernel.shape) for layer in made]
    assert {"lite": 88, "full": 96, "heavy": 198}[size] == len(shapes)
    weights = [Convolution(np.broadcast_to(np.float32(0), s), np.zeros(1)) for s in shapes]
    assert size_of(weights) == size
    assert size_of(weights[:-1]) is None
    weights[5] = Convolution(np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.float32))
    assert size_of(weights) is None


def test_a_configuration_below_the_least_input_size_is_refused() -> None:
    phases = (Phase("heatmap", 1, 128, 1e-3),)
    with pytest.raises(SchemaError, match=r"phases\.0\.input_size is 128: this blazepose"):
        TrainConfig(options={"weights": "blazepose-full"}, phases=phases)
    TrainConfig(phases=phases)


def test_weights_of_something_else_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(tflite_bytes([(np.ones((3, 3, 3, 8)), np.zeros(8))]))
    with pytest.raises(KpdataError, match=r"not those of BlazePose's landmark network lite, full"):
        configuration(Dataset.open(tiny_shards), weights=str(path))
    with pytest.raises(KpdataError, match="offsets is true: a network with BlazePose's weights"):
        configuration(Dataset.open(tiny_shards), weights=str(path), offsets=True)


def test_pretrained_layers_learn_at_a_rate_of_their_own() -> None:
    keras.utils.set_random_seed(0)
    phase = Phase("both", 1, 160, 1e-3, trunk_rate=0.0)
    config = TrainConfig(options={"size": "lite", "weights": "x"}, phases=(phase,), weight_decay=0)
    net = config.build(3, 160)
    optimiser = make_optimiser(config, phase, 1, net)
    optimiser.build(net.trainable_variables)
    before = [ops.convert_to_numpy(variable) for variable in net.trainable_variables]
    optimiser.apply([ops.ones_like(v) for v in net.trainable_variables], net.trainable_variables)
    moved = {
        variable.path
        for variable, old in zip(net.trainable_variables, before, strict=True)
        if np.abs(ops.convert_to_numpy(variable) - old).max() > 0
    }
    heads = ("heatmap_logit", "coordinates", "visible")
    assert moved == {f"{head}/{part}" for head in heads for part in ("kernel", "bias")}


def test_default_phases_suit_pretrained_weights() -> None:
    spec = get_model("blazepose")
    own, given = (spec.parse({"weights": name}) for name in ("none", "blazepose-full"))
    assert [phase.trunk_rate for phase in spec.default_phases(own, 80, 128)] == [1, 1]
    phases = spec.default_phases(given, 80, 128)
    assert [(p.epochs, p.input_size, p.trunk_rate) for p in phases] == [
        (10, 256, 0.1),
        (2, 256, 0.1),
    ]
    assert spec.describe(own) != spec.describe(given)


@pytest.mark.parametrize("name", catalogue.CATALOGUE)
def test_the_published_files_equal_their_own_runtime(name: str, tmp_path: Path) -> None:
    """Fetched as users fetch them; within a thousandth of each output's range on a real picture."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        path = catalogue.fetch(catalogue.get_weights(name))
    except KpdataError as error:
        pytest.skip(f"the registry cannot be reached: {error}")
    convolutions = read_convolutions(path)
    assert f"blazepose-{size_of(convolutions)}" == name
    image = keras.Input((FULL_SIDE, FULL_SIDE, 3))
    network = Network(SIZES[name.removeprefix("blazepose-")], image)
    for layer, weights in zip(network.convolutions, convolutions, strict=True):
        layer.set_weights(list(weights))
    picture = (crops(count=1) + 1) / 2
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    found = keras.Model(image, network.outputs)(picture)
    order = ("landmarks", "presence", "mask", "heatmap", "world")
    for detail in interpreter.get_output_details():
        output = order[int(detail["name"].partition("_")[2] or 0)]
        theirs = interpreter.get_tensor(detail["index"])
        ours = ops.convert_to_numpy(found[output]).reshape(theirs.shape)
        np.testing.assert_allclose(ours, theirs, atol=max(1e-6, 1e-3 * np.ptp(theirs)))
