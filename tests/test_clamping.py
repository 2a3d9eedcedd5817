"""A clamped model is the model whose unit is overwritten at each step; holding a unit costs what it should."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib.cells import LSTMParams, LSTMState, lstm_step_forward
from course_lib.clamping import ablate, clamp, nats, response
from course_lib.decoding import greedy
from course_lib.language_model import LanguageModelParams, evaluate, init, initial_state, make_step, step
from course_lib.layers import log_softmax
from course_lib.probes import Unit, activations

V, E, H, L = 9, 5, 6, 3
TOKENS = np.random.default_rng(8).integers(0, V, 40)


def model(seed: int = 3, dtype: type = np.float64) -> LanguageModelParams:
    """Three layers with weights large enough that every unit matters."""
    rng, params = np.random.default_rng(seed), init(V, E, H, L, "lstm", seed, dtype)
    layers = (type(layer)(*(rng.standard_normal(a.shape).astype(dtype) for a in layer)) for layer in params.layers)
    return params._replace(
        layers=tuple(layers), W_out=rng.standard_normal((V, H)).astype(dtype), b_out=np.arange(V, dtype=dtype) / 9
    )


def overwritten(params: LanguageModelParams, tokens: np.ndarray, unit: Unit, value: float) -> np.ndarray:
    """Log-probabilities (T, V), step by step, with the unit set by hand whenever it was computed."""
    state, rows = [LSTMState(*np.zeros((2, 1, H))) for _ in range(L)], []
    if unit.kind == "h":
        state[unit.layer].h[:, unit.index] = value
    for token in tokens:
        x = params.embedding[[token]]
        for depth, layer in enumerate(params.layers):
            (h, c), cache = lstm_step_forward(x, state[depth], layer)
            if depth == unit.layer and unit.kind == "h":
                h[:, unit.index] = value
            elif depth == unit.layer:
                c[:, unit.index] = value
                h[:, unit.index] = cache.o[:, unit.index] * np.tanh(value)
            state[depth] = LSTMState(h, c)
            x = h
        rows.append(log_softmax(x @ params.W_out.T + params.b_out)[0])
    return np.array(rows)


@pytest.mark.parametrize("layer", range(L))
@pytest.mark.parametrize("kind", ["h", "c"])
@pytest.mark.parametrize("value", [-0.7, 0.0, 2.5])
def test_clamping_is_overwriting_at_each_step(layer: int, kind: str, value: float) -> None:
    params, unit = model(), Unit(layer, kind, 4)
    expected = overwritten(params, TOKENS, unit, value)
    held = clamp(params, unit, value)
    for one_step in (make_step(held), lambda token, state: step(held, token, state)):
        state, rows = initial_state(held, 1), []
        for token in TOKENS:
            log_probs, state = one_step(np.array([token]), state)
            rows.append(log_probs[0])
        np.testing.assert_allclose(rows, expected, atol=1e-9)
    assert abs(expected - overwritten(params, TOKENS, unit, value + 1)).max() > 1e-2


def test_the_model_itself_stays_as_it_is() -> None:
    params = model()
    before = [array.copy() for layer in params.layers for array in layer] + [params.W_out.copy(), params.b_out.copy()]
    for kind in "hc":
        for layer in range(L):
            clamp(params, Unit(layer, kind, 1), 0.5)
    after = [array for layer in params.layers for array in layer] + [params.W_out, params.b_out]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["h", "c"])
def test_a_clamped_model_in_single_precision_is_one(kind: str) -> None:
    params = model(dtype=np.float32)
    held = clamp(params, Unit(1, kind, 2), 0.3)
    assert {array.dtype for layer in held.layers for array in layer} | {held.b_out.dtype} == {np.dtype(np.float32)}
    expected = overwritten(params, TOKENS, Unit(1, kind, 2), 0.3)
    assert nats(held, TOKENS) == pytest.approx(-expected[np.arange(39), TOKENS[1:]], abs=1e-4)
    if kind == "c":  # other units change the gate, but the cell stands still
        assert (activations(held, TOKENS)[1].c[:, 2] == 1).all()


def test_clamping_twice_holds_both_units() -> None:
    params, first, second = model(), Unit(0, "h", 1), Unit(2, "c", 3)
    a = clamp(clamp(params, first, 0.2), second, 0.9)
    b = clamp(clamp(params, second, 0.9), first, 0.2)
    assert nats(a, TOKENS) == pytest.approx(nats(b, TOKENS), abs=1e-12)


def test_generation_takes_a_clamped_model() -> None:
    params, unit, first = model(), Unit(2, "h", 0), np.arange(V)
    held = clamp(params, unit, 3.0)
    tokens = greedy(make_step(held), initial_state(held, V), first, 6)
    for n in range(V):
        expected = overwritten(params, np.r_[first[n], tokens[:, n]], unit, 3.0).argmax(axis=1)[:-1]
        assert tokens[:, n].tolist() == expected.tolist()
    assert (tokens != greedy(make_step(params), initial_state(params, V), first, 6)).any()


def test_nats_are_those_of_evaluate() -> None:
    params = model()
    total, count = evaluate(params, TOKENS, streams=1)
    assert nats(params, TOKENS).sum() == pytest.approx(total) and len(nats(params, TOKENS)) == count


def test_ablation_holds_units_at_their_means() -> None:
    params, unit = model(), Unit(1, "c", 2)
    result = ablate(params, TOKENS, [unit], others=30, seed=4)
    c, whole = activations(params, TOKENS)[1].c, nats(params, TOKENS)

    def extra(k: int) -> np.ndarray:
        log_probs = overwritten(params, TOKENS[:-1], Unit(1, "c", k), np.arctanh(np.tanh(c[:, k]).mean()))
        return -log_probs[np.arange(39), TOKENS[1:]] - whole

    np.testing.assert_allclose(result.units, extra(2), atol=1e-9)
    expected = {k: extra(k) for k in (0, 1, 3, 4, 5)}  # the other units: 30 choices hit each of them, and nothing else
    hits = [[k for k, row in expected.items() if np.allclose(row, one, atol=1e-9)] for one in result.others]
    assert all(len(hit) == 1 for hit in hits) and {hit[0] for hit in hits} == set(expected)
    assert not np.array_equal(result.others, ablate(params, TOKENS, [unit], others=30, seed=5).others)


def test_units_are_held_together() -> None:
    params, units = model(), [Unit(0, "h", 1), Unit(2, "c", 3), Unit(0, "h", 4)]
    layers, whole, held = activations(params, TOKENS), nats(params, TOKENS), params
    for unit in units:
        states = getattr(layers[unit.layer], unit.kind)[:, unit.index]
        held = clamp(held, unit, states.mean() if unit.kind == "h" else np.arctanh(np.tanh(states).mean()))
    result = ablate(params, TOKENS, units, others=4)
    np.testing.assert_allclose(result.units, nats(held, TOKENS) - whole, atol=1e-12)
    singles = [ablate(params, TOKENS, [unit], others=0) for unit in units]
    assert abs(result.units - sum(single.units for single in singles)).max() > 1e-3  # effects do not simply add
    assert result.others.shape == (4, 39) and singles[0].others.shape == (0, 39)
    assert len({tuple(row) for row in np.vstack([result.units, result.others]).round(9)}) == 5


def test_units_that_nothing_reads_cost_nothing() -> None:
    params = model()
    deaf, W_out = params.layers[2].W_hh.copy(), params.W_out.copy()
    deaf[:, 1] = W_out[:, 1] = 0
    params = params._replace(layers=(*params.layers[:2], params.layers[2]._replace(W_hh=deaf)), W_out=W_out)
    for kind in "hc":
        result = ablate(params, TOKENS, [Unit(2, kind, 1)], others=2)
        assert abs(result.units).max() < 1e-12 < abs(result.others).max(axis=1).min()


def test_a_cell_that_never_leaves_the_end_can_be_held() -> None:
    params = model()
    W_ih, W_hh, b = (array.copy() for array in params.layers[2])
    for rows, bias in ((slice(1, 2), 90), (slice(H + 1, H + 2), 90), (slice(2 * H + 1, 2 * H + 2), 90)):
        W_ih[rows], W_hh[rows], b[rows] = 0, 0, bias  # i = f = g = 1: c = 1, 2, 3, ...
    params = params._replace(layers=(*params.layers[:2], LSTMParams(W_ih, W_hh, b)))
    c = activations(params, TOKENS[20:])[2].c[:, 1]
    assert c.tolist() == list(range(1, 21))
    assert np.isfinite(ablate(params, np.tile(TOKENS, 30), [Unit(2, "c", 1)], others=1).units).all()


def test_what_a_held_cell_reads_does_not_move_it() -> None:
    params, unit = model(), Unit(1, "c", 4)
    W_ih, W_hh, b = params.layers[1]
    loud = LSTMParams(np.where(np.arange(4 * H)[:, None] % H == 4, 300 * W_ih, W_ih),
                      np.where(np.arange(4 * H)[:, None] % H == 4, 300 * W_hh, W_hh), b)  # fmt: skip
    params = params._replace(layers=(params.layers[0], loud, params.layers[2]))
    expected = overwritten(params, TOKENS, unit, 0.6)
    assert nats(clamp(params, unit, 0.6), TOKENS) == pytest.approx(-expected[np.arange(39), TOKENS[1:]], abs=1e-9)


def test_the_response_is_the_mean_probability() -> None:
    params, unit = model(), Unit(0, "h", 3)
    found = response(params, TOKENS, unit, [-0.9, 0.9])
    for row, value in zip(found, [-0.9, 0.9], strict=True):
        np.testing.assert_allclose(row, np.exp(overwritten(params, TOKENS, unit, value)).mean(axis=0), atol=1e-10)
    assert abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("unit", [Unit(3, "h", 0), Unit(-1, "h", 0), Unit(0, "o", 0), Unit(0, "c", 6)])
def test_units_that_are_not_there(unit: Unit) -> None:
    with pytest.raises(ValueError, match="unit: expected a layer below 3, h or c, a place below 6, got"):
        clamp(model(), unit, 0.0)


def test_other_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="value: expected a finite number, got nan"):
        clamp(model(), Unit(0, "h", 0), float("nan"))
    with pytest.raises(ValueError, match="params: expected LSTM layers"):
        clamp(init(V, E, H, 1, "rnn", 0), Unit(0, "h", 0), 0.0)
    with pytest.raises(ValueError, match="units: expected at most half of a layer's, got 4 of 6"):
        ablate(model(), TOKENS, [Unit(0, "h", k) for k in range(4)])
    with pytest.raises(ValueError, match="units: expected at least one, got none"):
        ablate(model(), TOKENS, [])
