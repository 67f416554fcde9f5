import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.train.loop.optimisers import (
    averaged_weights,
    epochs_since_best,
    make_optimiser,
    plateau_rate,
)
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.folder import EpochRecord

STEPS = 5
PHASE = Phase("heatmap", 10, 64, 0.1, final_rate=0.02, warmup=2)


def config(**changes):
    return TrainConfig(phases=(PHASE,), **changes)


def rows(scores):
    """Epochs with these validation scores; None where nothing was validated."""
    return [
        EpochRecord(
            0, "heatmap", 64, n + 1, {}, {}, 0.1, 1, 1, {} if score is None else {"heatmap": score}
        )
        for n, score in enumerate(scores)
    ]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )
    made.set_weights([np.full(w.shape, 2.0) for w in made.get_weights()])
    return made


def step(optimiser, model, size=0.0):
    """One update with gradients all of this size."""
    variables = model.trainable_variables
    optimiser.apply([keras.ops.full(v.shape, size) for v in variables], variables)


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adamw_decays_kernels_alone_and_the_others_nothing(model, name, decay):
    optimiser = make_optimiser(config(optimizer=name, weight_decay=decay), PHASE, STEPS)
    step(optimiser, model)
    rate = PHASE.learning_rate / 100  # where the warm-up begins
    for variable in model.trainable_variables:
        decays = name == "adamw" and variable.name == "kernel"
        expected = 2 * (1 - rate * decay) if decays else 2
        np.testing.assert_allclose(variable, expected, rtol=1e-6, err_msg=variable.name)


def test_gradients_are_clipped_together(model):
    optimiser = make_optimiser(config(clip_norm=0.5, weight_decay=0), PHASE, STEPS)
    clipped = optimiser._clip_gradients([keras.ops.full((2, 2), 3.0), keras.ops.full((5,), -4.0)])
    norm = np.sqrt(sum(float(keras.ops.sum(g**2)) for g in clipped))
    assert norm == pytest.approx(0.5, rel=1e-5)
    free = make_optimiser(config(clip_norm=0), PHASE, STEPS)
    assert float(free._clip_gradients([keras.ops.full((1,), 99.0)])[0][0]) == 99


def rates(phase, schedule="cosine"):
    optimiser = make_optimiser(config(schedule=schedule), phase, STEPS)
    variable = keras.Variable(0.0)
    optimiser.build([variable])
    found = []
    for _ in range(phase.epochs * STEPS + 1):
        found.append(float(optimiser.learning_rate))
        optimiser.apply([keras.ops.convert_to_tensor(0.0)], [variable])
    return np.array(found)


def test_the_cosine_warms_up_to_the_rate_and_ends_at_its_fraction():
    found = rates(PHASE)
    warm = 2 * STEPS
    assert found[0] == pytest.approx(PHASE.learning_rate / 100)
    assert found.argmax() == warm
    assert found[warm] == pytest.approx(PHASE.learning_rate, rel=1e-5)
    assert np.all(np.diff(found[: warm + 1]) > 0)
    assert np.all(np.diff(found[warm:]) < 0)
    middle = PHASE.learning_rate * (1 + PHASE.final_rate) / 2
    assert found[warm + 4 * STEPS] == pytest.approx(middle, rel=1e-4)
    assert found[-1] == pytest.approx(PHASE.learning_rate * PHASE.final_rate, rel=1e-4)


def test_without_warm_up_the_cosine_begins_at_the_rate():
    assert rates(Phase("heatmap", 3, 64, 0.1))[0] == pytest.approx(0.1)


def test_a_phase_may_be_all_warm_up():
    found = rates(Phase("heatmap", 2, 64, 0.1, warmup=2))
    assert np.all(np.diff(found) > 0)
    assert found[-1] == pytest.approx(0.1)


def test_with_plateau_steps_leave_the_rate_alone():
    assert np.unique(rates(Phase("heatmap", 3, 64, 0.1), "plateau")) == pytest.approx([0.1])


def test_the_plateau_warms_up_by_epochs():
    phase = Phase("heatmap", 9, 64, 0.3, warmup=2)
    found = [plateau_rate(config(), phase, rows([0.1 * n for n in range(done)]))
             for done in range(5)]  # fmt: skip
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])
    optimiser = make_optimiser(config(schedule="plateau"), phase, STEPS)
    assert float(optimiser.learning_rate) == pytest.approx(0.1)


def test_the_plateau_halves_the_rate_each_time_the_score_has_not_risen():
    phase = Phase("heatmap", 99, 64, 0.8)
    scores = [0.1, 0.3, 0.2, 0.3, 0.25, 0.1, 0.31, None, None, 0.3, 0.2]
    patient = config(plateau_patience=2)
    found = [plateau_rate(patient, phase, rows(scores[:done])) for done in range(12)]
    halved = [0.8] * 4 + [0.4] * 2 + [0.2] * 5 + [0.1]
    assert found == pytest.approx(halved)


@given(st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.3]), max_size=60), st.integers(1, 5))
def test_the_plateau_never_rises_nor_falls_below_the_final_rate(scores, patience):
    phase = Phase("heatmap", 100, 64, 1.0, final_rate=0.1)
    patient = config(plateau_patience=patience)
    found = [plateau_rate(patient, phase, rows(scores[:n])) for n in range(len(scores) + 1)]
    assert found[0] == 1
    assert np.all(np.diff(found) <= 0)
    assert min(found) >= 0.1


@given(st.lists(st.floats(0, 1), min_size=1))
def test_epochs_since_best_counts_from_the_first_highest(scores):
    back = epochs_since_best(scores)
    best = len(scores) - 1 - back
    assert scores[best] == max(scores)
    assert all(score < max(scores) for score in scores[:best])


def test_no_scores_are_no_epochs_since_the_best():
    assert epochs_since_best([]) == 0


def test_the_average_stands_in_the_place_of_the_weights_for_a_while(model):
    optimiser = make_optimiser(config(ema=0.75, weight_decay=0), PHASE, STEPS)
    seen = []
    for _ in range(4):
        step(optimiser, model, size=1.0)
        seen.append([keras.ops.convert_to_numpy(v) for v in model.trainable_variables])
    average = seen[0]
    for values in seen[1:]:
        average = [0.75 * a + 0.25 * v for a, v in zip(average, values, strict=True)]
    with averaged_weights(model, optimiser):
        for variable, expected, own in zip(
            model.trainable_variables, average, seen[-1], strict=True
        ):
            np.testing.assert_allclose(variable, expected, rtol=1e-6)
            assert np.any(expected != own)
    for variable, own in zip(model.trainable_variables, seen[-1], strict=True):
        np.testing.assert_array_equal(variable, own)


def test_whatever_fails_meanwhile_the_weights_are_their_own_again(model):
    optimiser = make_optimiser(config(ema=0.75), PHASE, STEPS)
    for _ in range(2):
        step(optimiser, model, size=1.0)
    own = model.get_weights()
    with pytest.raises(KeyboardInterrupt), averaged_weights(model, optimiser):
        raise KeyboardInterrupt
    for now, before in zip(model.get_weights(), own, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize(
    ("epochs", "steps", "momentum"), [(10, 1000, 0.998), (10, 5, 0.8), (1, 4, 0.5)]
)
def test_a_short_phase_averages_over_a_tenth_of_its_steps(epochs, steps, momentum):
    phase = Phase("heatmap", epochs, 64, 0.1)
    made = make_optimiser(config(ema=0.998), phase, steps)
    assert made.ema_momentum == pytest.approx(momentum)


def test_without_an_average_the_weights_are_their_own(model):
    optimiser = make_optimiser(config(ema=0), PHASE, STEPS)
    step(optimiser, model, size=1.0)
    own = model.get_weights()
    with averaged_weights(model, optimiser):
        for now, before in zip(model.get_weights(), own, strict=True):
            np.testing.assert_array_equal(now, before)
