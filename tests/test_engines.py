"""Both engines take the same step, keep the same form of state, and give back what they took."""

import numpy as np
import pytest
from problems import assert_close, random_like

from course_lib import language_model
from course_lib.budget import Config
from course_lib.engines import NumpyEngine, dump_trees
from course_lib.torch_engine import TorchEngine
from course_lib.trees import leaves, map_tree, named_leaves

V, N, T = 11, 6, 5


def config(**changes):
    return Config(**{"data": "", "batch_size": N, "window": T, "steps": 9} | changes)


def params(cell="lstm", dtype=np.float64):
    return map_tree(lambda a: a + 0.05, language_model.init(V, 4, 7, 2, cell, 1, dtype))


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N))


def numpy_engine(start, **changes):
    return NumpyEngine(config(**changes), map_tree(np.copy, start), np.random.default_rng(4))


def torch_engine(start, **changes):
    return TorchEngine(config(engine="torch", device="cpu", **changes), start)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("options", [{"clip": 1e-3}, {"clip": 100.0}, {"weight_decay": 0.5, "average": 0.3}], ids=str)
def test_both_engines_take_the_same_steps(cell, options):
    one, other = numpy_engine(params(cell), **options), torch_engine(params(cell), **options)
    for step in range(4):
        lr = 0.01 / (1 + step)
        assert one.step(*batch(step), lr) == pytest.approx(other.step(*batch(step), lr), rel=1e-7)
    assert_close(other.params, one.params, 1e-7)
    assert_close(other.averaged, one.averaged, 1e-7)
    kept, theirs = one.dump(), other.dump()
    assert kept.keys() == theirs.keys() - {"random.cpu"}
    for name, array in kept.items():
        assert_close(theirs[name], array.astype(theirs[name].dtype), 1e-6)
    text = np.random.default_rng(2).integers(0, V, 60)
    assert one.evaluate(text) == pytest.approx(other.evaluate(text), rel=1e-6)


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
def test_the_mean_of_the_weights_is_what_is_judged(make):
    """By hand: mean <- d mean + (1 - d) w, d rising from 2 / 11 at the first step to what is asked for."""
    engine, mean = make(params(), average=0.4), params()
    for step in range(1, 7):
        engine.step(*batch(step), 0.05)
        d = min(0.4, (1 + step) / (10 + step))
        mean = map_tree(lambda m, w, d=d: d * m + (1 - d) * w, mean, engine.params)
    assert_close(engine.averaged, mean, 1e-12)
    text = np.random.default_rng(2).integers(0, V, 60)
    assert engine.evaluate(text) == pytest.approx(language_model.evaluate(mean, text), rel=1e-9)
    assert engine.evaluate(text)[0] != pytest.approx(language_model.evaluate(engine.params, text)[0], rel=1e-6)


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
def test_decay_pulls_matrices_alone_and_apart_from_the_gradient(make):
    """A step with decay is the step without it, taken from matrices that are smaller by the factor 1 - lr * decay."""
    start, lr, decay = params(), 0.02, 0.7
    plain, decayed = make(start), make(start, weight_decay=decay)
    for engine in (plain, decayed):
        engine.step(*batch(), lr)
    wanted = map_tree(lambda w, w0: w - lr * decay * w0 * (w0.ndim > 1), plain.params, start)
    assert_close(decayed.params, wanted, 1e-12)


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
@pytest.mark.parametrize("average", [0.0, 0.6])
def test_what_is_dumped_restores_the_engine(make, average):
    first = make(params(dtype=np.float32), dropout=0.3, average=average)
    for step in range(3):
        first.step(*batch(step), 0.01)
    kept, weights = {name: array.copy() for name, array in first.dump().items()}, map_tree(np.copy, first.params)
    if make is numpy_engine:
        drawn = first.rng.bit_generator.state
    second = make(weights, dropout=0.3, average=average)
    second.restore(kept, 3)
    if make is numpy_engine:
        second.rng.bit_generator.state = drawn
    ahead = [engine_result(first) for _ in range(1)]
    if make is torch_engine:  # one generator serves both: put it back where it was
        second.restore(kept, 3)
    assert ahead == [engine_result(second) for _ in range(1)]
    for one, other in ((first.params, second.params), (first.averaged, second.averaged)):
        assert all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def engine_result(engine):
    return [engine.step(*batch(step), 0.01) for step in range(3, 6)]


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
def test_state_is_carried_and_reset(make):
    engine = make(params())
    zeros = [array.copy() for name, array in engine.dump().items() if name.startswith("state")]
    assert len(zeros) == 4
    assert not any(array.any() for array in zeros)
    again = [engine.step(*batch(), 1e-300)[0] for _ in range(2)]
    assert again[0] != again[1], "the second window goes on from the first"
    engine.reset_state()
    assert engine.step(*batch(), 1e-300)[0] == again[0]


@pytest.mark.parametrize("make", [numpy_engine, torch_engine])
def test_a_loss_that_is_not_finite_changes_nothing(make):
    start = params()
    start.W_out[3, 2] = np.nan
    engine = make(start)
    before = engine.params
    before = map_tree(np.copy, before)
    with np.errstate(all="ignore"):
        try:
            loss, norm = engine.step(*batch(), 0.1)
        except ValueError as error:  # NumPy's layers name NaN themselves
            loss = norm = np.nan
            assert "NaN" in str(error)
    assert not np.isfinite(loss + norm)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(leaves(engine.params), leaves(before), strict=True))
    assert not any(a.any() for n, a in engine.dump().items() if n.startswith(("m.", "v.", "state.")))


def test_names_of_what_is_dumped():
    tree = random_like(np.random.default_rng(0), params())
    assert dump_trees(m=tree) == dict(named_leaves(tree, "m"))
