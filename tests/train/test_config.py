import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata.core.augment import AugmentConfig
from kpdata.core.errors import KpdataError, SchemaError
from kpdata.train.models.base import Phase
from kpdata.train.models.registry import models
from kpdata.train.run.config import TrainConfig, load_recipe, recipe_names
from kpdata.train.run.overrides import of_stage, override, with_epochs, with_input_size

BLAZEPOSE = TrainConfig(
    phases=(Phase("heatmap", 4, 64, 1e-3, warmup=1), Phase("regression", 2, 96, 1e-3))
)
REGRESSION = TrainConfig(
    model="regression", phases=(Phase("head", 3, 50, 1e-3), Phase("all", 5, 70, 1e-4))
)


OPTIONS = {
    "blazepose": st.fixed_dictionaries({}, optional={"offsets": st.booleans()}),
    "regression": st.fixed_dictionaries(
        {}, optional={"head": st.sampled_from(["dense", "softargmax", "rle"])}
    ),
}


def phases_of(model: str) -> st.SearchStrategy[Phase]:
    return st.builds(
        Phase,
        trains=st.sampled_from([stage.name for stage in models()[model].stages]),
        epochs=st.integers(9, 99),
        input_size=st.sampled_from([64, 128, 256]),
        learning_rate=st.floats(1e-6, 1),
        final_rate=st.floats(0, 1),
        warmup=st.floats(0, 9),
    )


CONFIGS = st.sampled_from(sorted(OPTIONS)).flatmap(
    lambda model: st.builds(
        TrainConfig,
        model=st.just(model),
        options=OPTIONS[model],
        phases=st.lists(phases_of(model), min_size=1, max_size=3).map(tuple),
        batch_size=st.integers(1, 512),
        weight_decay=st.floats(0, 1),
        schedule=st.sampled_from(["cosine", "plateau"]),
        keypoint_weights=st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 5)),
        losses=st.fixed_dictionaries({"limbs": st.floats(0, 9)}),
        augment=st.builds(AugmentConfig, flip=st.floats(0, 1), rotate=st.just((-3.0, 4.0))),
        reference=st.sampled_from([None, "torso", "head", "bbox", ("a", "b")]),
        seed=st.integers(0, 2**40),
        init_from=st.sampled_from(["", "runs/a", "12"]),
    )
)


@given(config=CONFIGS, base=st.sampled_from([BLAZEPOSE, REGRESSION]), order=st.randoms())
@settings(max_examples=60)
def test_every_configuration_is_reached_by_settings_in_any_order(config, base, order):
    tree = json.loads(msgspec.json.encode(config))
    given_settings = [f"{key}={json.dumps(value)}" for key, value in tree.items()]
    order.shuffle(given_settings)
    assert override(base, given_settings) == config


@given(CONFIGS)
@settings(max_examples=30)
def test_a_configuration_comes_back_from_json(config):
    assert msgspec.json.decode(msgspec.json.encode(config), type=TrainConfig) == config


def test_another_square_has_its_own_margin_unless_one_is_named():
    whole = override(BLAZEPOSE, ["crop_from=image"])
    assert (BLAZEPOSE.margin, whole.margin) == (1.25, 1.0)
    assert override(whole, ["crop_from=bbox"]).margin == 1.25
    assert override(BLAZEPOSE, ["margin=1.5", "crop_from=image"]).margin == 1.5
    assert override(whole, ["batch_size=4"]).margin == 1.0


def test_no_settings_change_nothing():
    assert override(BLAZEPOSE, []) == BLAZEPOSE


def test_a_dot_reaches_inside_and_leaves_the_rest():
    made = override(
        BLAZEPOSE,
        [
            "phases.1.epochs=7",
            "augment.rotate.0=-90",
            "augment.flip=0",
            "losses.limbs=0.5",
            "keypoint_weights.nose=2",
            "size=lite",
            "options.offsets=true",
        ],
    )
    assert made.phases == (
        BLAZEPOSE.phases[0],
        msgspec.structs.replace(BLAZEPOSE.phases[1], epochs=7),
    )
    assert made.augment.rotate == (-90, 30)
    assert (made.augment.flip, made.losses["limbs"]) == (0, 0.5)
    assert made.keypoint_weights == {"nose": 2}
    assert made.options == {"size": "lite", "offsets": True, "weights": "none"}
    assert BLAZEPOSE.phases[1].epochs == 2


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("batch_size", "setting batch_size: expected key=value, such as batch_size=16"),
        (
            "batchsize=3",
            "setting batchsize=3: no key 'batchsize' there; did you mean batch_size? known: model,",
        ),
        ("epochs=3", "epochs is of a phase: `epochs` 3, or phases.0.epochs=3"),
        ("input_size=64", "input_size is of a phase: `input_size` 64, or phases.0.input_size=64"),
        ("learning_rate=0.1", "learning_rate is of a phase: phases.0.learning_rate=0.1"),
        ("augment.flop=1", "no key 'flop' there; did you mean flip? known: flip, rotate"),
        ("phase.0.epochs=1", "no key 'phase' there; did you mean phases? known: model"),
        ("phases.2.epochs=1", "no entry '2' among 2, counted from 0"),
        ("phases.x.epochs=1", "no entry 'x' among 2"),
        ("phases.-1.epochs=1", "no entry '-1' among 2"),
        ("seed.x=1", "setting seed.x=1: no key 'x' there"),
        ("reference.x.y=1", "no key 'x' there"),
        ("model.x=1", "no key 'x' there"),
        ("batch_size=many", "setting batch_size=many: Expected `int`, got `str` - at `$.batch_si"),
        ("batch_size=0", "setting batch_size=0: batch_size is 0: expected 1 to 65536"),
        ("size=huge", "setting size=huge: size is huge: expected one of lite, full, heavy"),
        ("offsets=3", "setting offsets=3: Expected `bool`, got `int` - at `$.offsets`"),
        ("options.seize=lite", "no key 'seize' there; did you mean size? known: size, offsets"),
        ('options={"seize":1}', "seize is no option of blazepose; did you mean size? known: size"),
        ('losses={"limb":1}', "losses.limb is no loss of blazepose; did you mean limbs? known: h"),
        ("phases=[]", "phases is empty"),
        ("phases=3", "Expected `array`, got `int` - at `$.phases`"),
        ("phases.0.trains=head", "phases.0.trains is head: blazepose has heatmap, regression, bo"),
        ("model=regression", "phases.0.trains is heatmap: regression has head, all"),
        ("model=blazepoze", "model is blazepoze: no such model; did you mean blazepose? known: "),
        ("phases.0.input_size=100", "phases.0.input_size is 100: blazepose takes multiples of 32"),
        ("phases.0.warmup=5", "phases.0: warmup is 5.0: expected 0 to 4"),
        ("phases.0.learning_rate=11", "phases.0: learning_rate is 11.0: expected 1e-08 to 10"),
        ("losses.limbs=-1", "losses.limbs is -1.0: expected 0 to 1e+06"),
        ("keypoint_weights.nose=-1", "keypoint_weights.nose is -1.0"),
        ("augment.flip=2", "flip is 2.0: expected a value from 0 to 1"),
        ("augment.rotate=[5,1]", "rotate is [5.0, 1.0]: expected a range"),
        ('phases.0={"trains":"heatmap"}', "phases.0: Object missing required field `epochs`"),
        ('phases.0.color="red"', "no key 'color' there; known: trains, epochs"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_can(setting, says):
    with pytest.raises(KpdataError) as caught:
        override(BLAZEPOSE, [setting])
    assert says in str(caught.value)


def test_settings_are_judged_together():
    made = override(BLAZEPOSE, ["phases.0.epochs=1", "phases.0.warmup=0"])
    assert (made.phases[0].epochs, made.phases[0].warmup) == (1, 0)


@pytest.mark.parametrize("name", ["ema", "clip_norm", "heatmap_sigma", "threshold"])
def test_numbers_out_of_range_are_refused_by_name(name):
    with pytest.raises(SchemaError, match=f"{name} is -1: expected "):
        msgspec.structs.replace(BLAZEPOSE, **{name: -1})


def test_an_option_out_of_range_is_refused_by_name():
    with pytest.raises(SchemaError, match=r"dropout is -1.*: expected 0 to 0.95"):
        REGRESSION.with_options(dropout=-1)


def test_a_shortened_phase_shortens_its_warmup_unless_that_is_named():
    long = override(BLAZEPOSE, ["phases.0.epochs=40", "phases.0.warmup=8"])
    made = override(long, ["phases.0.epochs=1"])
    assert (made.phases[0].epochs, made.phases[0].warmup) == (1, 0.25)
    with pytest.raises(SchemaError, match=r"phases.0: warmup is 8.0: expected 0 to 1"):
        override(long, ["phases.0.epochs=1", "phases.0.warmup=8"])


def test_settings_may_be_a_mapping():
    assert override(BLAZEPOSE, {"seed": 3, "size": "lite"}).seed == 3


def test_another_model_has_options_and_losses_of_its_own():
    phases = json.dumps(msgspec.to_builtins(REGRESSION.phases))
    settings = ["head=rle", f"phases={phases}", "model=regression", "losses.limbs=2"]
    made = override(BLAZEPOSE, settings)
    assert made.options["head"] == "rle"
    assert made.losses == {"heatmap": 1.0, "coordinates": 1.0, "visibility": 0.05, "limbs": 2.0}


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    epochs=st.integers(4, 900),
    share=st.floats(0, 1),
)
def test_epochs_are_shared_between_the_phases_in_proportion(lengths, epochs, share):
    phases = tuple(Phase("both", n, 64, 1e-3, warmup=n * share) for n in lengths)
    made = with_epochs(TrainConfig(phases=phases), epochs)
    assert made.epochs == epochs
    for phase, length in zip(made.phases, lengths, strict=True):
        exact = epochs * length / sum(lengths)
        assert phase.epochs == 1 or abs(phase.epochs - exact) < len(lengths) + 1
        assert phase.warmup == pytest.approx(phase.epochs * share)


def test_fewer_epochs_than_phases_are_refused():
    with pytest.raises(KpdataError, match="epochs is 1: expected 2 or more, one for each phase"):
        with_epochs(BLAZEPOSE, 1)


def test_an_input_size_is_the_last_phases_and_the_others_follow():
    assert [p.input_size for p in with_input_size(BLAZEPOSE, 192).phases] == [128, 192]
    assert [p.input_size for p in with_input_size(REGRESSION, 140).phases] == [100, 140]
    with pytest.raises(KpdataError, match="input_size is 100: blazepose takes multiples of 32"):
        with_input_size(BLAZEPOSE, 100)


def test_the_size_and_length_of_a_run_follow_from_its_phases():
    assert (BLAZEPOSE.input_size, BLAZEPOSE.epochs) == (96, 6)


def test_a_stage_keeps_its_own_phases():
    assert of_stage(BLAZEPOSE, "both") == BLAZEPOSE
    assert of_stage(BLAZEPOSE, "heatmap").phases == BLAZEPOSE.phases[:1]
    assert of_stage(BLAZEPOSE, "regression").phases == BLAZEPOSE.phases[1:]
    with pytest.raises(
        KpdataError, match="stage is heatmap: regression has no such stage; known: head, all"
    ):
        of_stage(REGRESSION, "heatmap")


def test_every_recipe_loads_and_an_unknown_one_lists_them():
    assert "lsp_blazepose" in recipe_names()
    assert all(load_recipe(name).phases for name in recipe_names())
    for name in ("resnet", "../config", "config"):
        with pytest.raises(KpdataError, match=r"is unknown; known: .*lsp_blazepose"):
            load_recipe(name)
