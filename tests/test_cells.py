"""One time step: forward against the equations written out unit by unit, backward against central differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    CELLS,
    ONE_NAN,
    argument_names,
    assert_close,
    copied,
    dot,
    few,
    form,
    random_like,
    random_params,
    random_state,
    replaced,
    spoiled,
)

from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams, lstm_step_forward
from course_lib.sequence import rnn_forward
from course_lib.shapes import ShapeError
from course_lib.trees import leaves, map_tree

every_cell = pytest.mark.parametrize("cell", CELLS)
N, D, H = 2, 3, 6


def sigma(a):
    return 1 / (1 + math.exp(-a))


def rnn_unit(x, h, j, p):
    """h'_j of one stream."""
    return math.tanh(dot(p.W_ih[j], x) + dot(p.W_hh[j], h[0]) + p.b[j])


def lstm_unit(x, state, j, p):
    """(h'_j, c'_j) of one stream; rows i, f, g, o."""
    H = len(state[0])
    i, f, g, o = (dot(p.W_ih[k * H + j], x) + dot(p.W_hh[k * H + j], state[0]) + p.b[k * H + j] for k in range(4))
    c = sigma(f) * state[1][j] + sigma(i) * math.tanh(g)
    return sigma(o) * math.tanh(c), c


def gru_unit(x, h, j, p):
    """h'_j of one stream; rows r, z, n; the reset gate scales the recurrent part of n, its bias included."""
    (h,), H = h, len(h[0])
    of_x = [dot(p.W_ih[k * H + j], x) + p.b_ih[k * H + j] for k in range(3)]
    of_h = [dot(p.W_hh[k * H + j], h) + p.b_hh[k * H + j] for k in range(3)]
    r, z = sigma(of_x[0] + of_h[0]), sigma(of_x[1] + of_h[1])
    return (1 - z) * math.tanh(of_x[2] + r * of_h[2]) + z * h[j]


UNITS = {"rnn": rnn_unit, "lstm": lstm_unit, "gru": gru_unit}


def problem(cell, N=N, D=D, H=H, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(dtype)
    return x, random_state(rng, cell, N, H, dtype), random_params(rng, cell, D, H, dtype)


@few
@given(st.sampled_from(list(CELLS)), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_forward_unit_by_unit(cell, N, D, H, seed):
    x, prev, params = problem(cell, N, D, H, seed)
    state, _ = CELLS[cell].step_forward(x, prev, params)
    assert form(state) == form(prev)
    for n in range(N):
        before = [leaf[n] for leaf in leaves(prev)]
        for j in range(H):
            expected = UNITS[cell](x[n], before, j, params)
            assert [leaf[n, j] for leaf in leaves(state)] == pytest.approx(np.atleast_1d(expected).tolist(), abs=1e-13)


@every_cell
def test_float32_stays_and_is_close(cell):
    inputs = problem(cell)
    results = {}
    for dtype in (np.float64, np.float32):
        state, cache = CELLS[cell].step_forward(*map_tree(lambda a, d=dtype: a.astype(d), inputs))
        grads = CELLS[cell].step_backward(random_like(np.random.default_rng(1), state), cache)
        results[dtype] = (state, *grads)
        assert {leaf.dtype for leaf in leaves(results[dtype])} == {np.dtype(dtype)}
    assert_close(results[np.float32], results[np.float64], 1e-5)


@every_cell
def test_inputs_stay_and_a_second_step_does_not_spoil_the_first(cell):
    inputs, step = problem(cell), CELLS[cell]
    kept = copied(inputs)
    state, cache = step.step_forward(*inputs)
    dstate = random_like(np.random.default_rng(1), state)
    kept_dstate, expected = copied(dstate), step.step_backward(dstate, cache)
    step.step_forward(*problem(cell, seed=1))
    step.step_forward(inputs[0], state, inputs[2])
    assert_close(step.step_backward(dstate, cache), expected, 0)
    assert_close((inputs, dstate), (kept, kept_dstate), 0)


def test_the_order_of_fields():
    assert RNNParams._fields == LSTMParams._fields == ("W_ih", "W_hh", "b")
    assert GRUParams._fields == ("W_ih", "W_hh", "b_ih", "b_hh")
    assert LSTMState._fields == ("h", "c")


SHAPE_ERRORS = [
    ("lstm", {"W_ih": (24, 4)}, "W_ih: axis D should be 3 (D = 3 from x), got shape (24, 4)"),
    ("lstm", {"W_ih": (18, 3)}, "W_ih: axis 4H should be 24 (H = 6 from h), got shape (18, 3)"),
    ("lstm", {"W_hh": (24, 5)}, "W_hh: axis H should be 6 (H = 6 from h), got shape (24, 5)"),
    ("lstm", {"b": (6,)}, "b: axis 4H should be 24 (H = 6 from h), got shape (6,)"),
    ("lstm", {"b": (24, 1)}, "b: expected 1 axes (4H), got shape (24, 1)"),
    ("lstm", {"h": (3, 6)}, "h: axis N should be 2 (N = 2 from x), got shape (3, 6)"),
    ("lstm", {"c": (2, 5)}, "c: axis H should be 6 (H = 6 from h), got shape (2, 5)"),
    ("lstm", {"x": (2, 3, 1)}, "x: expected 2 axes (N, D), got shape (2, 3, 1)"),
    ("lstm", {"x": (0, 3)}, "x: axis N should be at least 1, got shape (0, 3)"),
    ("rnn", {"prev": (1, 6)}, "prev: axis N should be 2 (N = 2 from x), got shape (1, 6)"),
    ("rnn", {"W_hh": (12, 6)}, "W_hh: axis H should be 6 (H = 6 from prev), got shape (12, 6)"),
    ("rnn", {"b": (5,)}, "b: axis H should be 6 (H = 6 from prev), got shape (5,)"),
    ("gru", {"prev": (6,)}, "prev: expected 2 axes (N, H), got shape (6,)"),
    ("gru", {"b_ih": (24,)}, "b_ih: axis 3H should be 18 (H = 6 from prev), got shape (24,)"),
    ("gru", {"b_hh": (6,)}, "b_hh: axis 3H should be 18 (H = 6 from prev), got shape (6,)"),
]


@pytest.mark.parametrize(("cell", "wrong", "message"), SHAPE_ERRORS)
def test_wrong_shapes_are_named(cell, wrong, message):
    ((name, shape),) = wrong.items()
    with pytest.raises(ShapeError) as caught:
        CELLS[cell].step_forward(*replaced(problem(cell), argument_names(cell, "prev").index(name), np.zeros(shape)))
    assert str(caught.value) == message


@pytest.mark.parametrize(("cell", "place"), [(cell, k) for cell in CELLS for k in range(len(argument_names(cell, "prev")))])
def test_nan_is_named(cell, place):
    with pytest.raises(ValueError, match=f"^{argument_names(cell, 'prev')[place]}: {ONE_NAN}"):
        CELLS[cell].step_forward(*spoiled(problem(cell), place))


def test_gradients_of_wrong_shape_are_named():
    for cell, wrong, message in [
        ("rnn", np.zeros((2, 5)), "dstate: axis H should be 6 (H = 6 from h), got shape (2, 5)"),
        ("gru", np.zeros((1, 6)), "dstate: axis N should be 2 (N = 2 from h), got shape (1, 6)"),
        ("lstm", LSTMState(np.zeros((2, 5)), np.zeros((2, 6))), "dh: axis H should be 6 (H = 6 from h), got shape (2, 5)"),
        ("lstm", LSTMState(np.zeros((2, 6)), np.zeros((1, 6))), "dc: axis N should be 2 (N = 2 from h), got shape (1, 6)"),
    ]:
        with pytest.raises(ShapeError) as caught:
            CELLS[cell].step_backward(wrong, CELLS[cell].step_forward(*problem(cell))[1])
        assert str(caught.value) == message


@every_cell
def test_large_inputs_saturate_without_warnings(cell):
    x, prev, params = problem(cell)
    state, cache = CELLS[cell].step_forward(1e6 * x, prev, params)
    assert all(np.isfinite(leaf).all() for leaf in leaves((state, CELLS[cell].step_backward(state, cache))))


def test_the_state_of_another_cell_is_refused():
    h = np.ones((2, 3))
    lstm = LSTMParams(np.ones((12, 4)), np.ones((12, 3)), np.ones(12))
    rnn = RNNParams(np.ones((3, 4)), np.ones((3, 3)), np.ones(3))
    with pytest.raises(ShapeError, match=r"^prev: expected an LSTMState \(h, c\) for LSTMParams, got ndarray$"):
        lstm_step_forward(np.ones((2, 4)), h, lstm)
    with pytest.raises(ShapeError, match=r"^initial: expected an array h for RNNParams, got LSTMState$"):
        rnn_forward(np.ones((5, 2, 4)), LSTMState(h, h), rnn)
