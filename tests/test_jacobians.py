"""Jacobians entry by entry against central differences and against the backward steps; products against the whole sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import CELLS, few, random_params, random_state

from course_lib.cells import LSTMState
from course_lib.jacobians import cell_derivatives, jacobian_products, lstm_step_jacobian, rnn_step_jacobian
from course_lib.sequence import lstm_forward, rnn_forward
from course_lib.shapes import ShapeError

JACOBIANS = {"rnn": rnn_step_jacobian, "lstm": lstm_step_jacobian}
every_cell = pytest.mark.parametrize("cell", JACOBIANS)


def flat(state):
    return np.hstack(state) if isinstance(state, LSTMState) else state


def unflat(cell, rows):
    return LSTMState(*np.split(rows, 2, axis=1)) if cell == "lstm" else rows


def differences(function, start, eps=1e-5):
    """(N, out, in) of a function of (N, in) whose rows are independent."""
    columns = []
    for k in range(start.shape[1]):
        above, below = start.copy(), start.copy()
        above[:, k] += eps
        below[:, k] -= eps
        columns.append((function(above) - function(below)) / (2 * eps))
    return np.stack(columns, axis=2)


@few
@given(st.sampled_from(list(JACOBIANS)), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10**6))
def test_a_step_by_differences(cell, N, D, H, seed):
    rng = np.random.default_rng(seed)
    x, prev, params = rng.normal(size=(N, D)), random_state(rng, cell, N, H), random_params(rng, cell, D, H)
    cache = CELLS[cell].step_forward(x, prev, params)[1]
    numeric = differences(lambda rows: flat(CELLS[cell].step_forward(x, unflat(cell, rows), params)[0]), flat(prev))
    np.testing.assert_allclose(JACOBIANS[cell](cache), numeric, atol=1e-8)


@every_cell
def test_a_step_backward_multiplies_by_it(cell):
    rng = np.random.default_rng(0)
    x, prev, params = rng.normal(size=(3, 2)), random_state(rng, cell, 3, 4), random_params(rng, cell, 2, 4)
    state, cache = CELLS[cell].step_forward(x, prev, params)
    dstate = rng.normal(size=flat(state).shape)
    dprev = flat(CELLS[cell].step_backward(unflat(cell, dstate), cache)[1])
    np.testing.assert_allclose(dprev, np.einsum("nj,njk->nk", dstate, JACOBIANS[cell](cache)), atol=1e-13)


@every_cell
def test_products_are_the_jacobians_of_the_rest_of_the_sequence(cell):
    T, H = 5, 3
    rng = np.random.default_rng(0)
    x, initial, params = rng.normal(size=(T, 1, 2)), random_state(rng, cell, 1, H), random_params(rng, cell, 2, H)
    forward = {"rnn": rnn_forward, "lstm": lstm_forward}[cell]
    cache = forward(x, initial, params)[2]
    products = jacobian_products(np.stack([JACOBIANS[cell](cache.at(t))[0] for t in range(T)]))
    state = initial
    for t in range(T + 1):
        if t == T:
            numeric = np.eye(products.shape[1])[None]
        else:
            numeric = differences(lambda s, t=t: flat(forward(x[t:], unflat(cell, s), params)[1]), flat(state))
            state = CELLS[cell].step_forward(x[t], state, params)[0]
        np.testing.assert_allclose(products[t], numeric[0], atol=1e-8)


@pytest.mark.parametrize("stream", [0, 1])
def test_what_a_cell_state_does_to_the_last_states_by_differences(stream):
    T, N, D, H = 5, 2, 3, 4
    rng = np.random.default_rng(0)
    x, initial, params = rng.normal(size=(T, N, D)), random_state(rng, "lstm", N, H), random_params(rng, "lstm", D, H)
    cache = lstm_forward(x, initial, params)[2]
    of_c, of_h = cell_derivatives([cache.at(t) for t in range(T)], stream)
    assert of_c.shape == of_h.shape == (T, H, H)
    for t in range(1, T + 1):
        step = cache.at(t - 1)
        o = step.o  # held: it was computed before C_t

        def last(c, t=t, o=o):
            state = LSTMState(o * np.tanh(c), c)
            return flat(lstm_forward(x[t:], state, params)[1] if t < T else state)

        h, c = np.split(differences(last, lstm_forward(x[:t], initial, params)[1].c)[stream], 2)
        np.testing.assert_allclose(of_c[t - 1], c, atol=1e-8)
        np.testing.assert_allclose(of_h[t - 1], h, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_stay(dtype):
    rng = np.random.default_rng(0)
    for cell, jacobian in JACOBIANS.items():
        args = (
            rng.normal(size=(2, 3)).astype(dtype),
            random_state(rng, cell, 2, 4, dtype),
            random_params(rng, cell, 3, 4, dtype),
        )
        J = jacobian(CELLS[cell].step_forward(*args)[1])
        assert J.dtype == dtype == jacobian_products(J).dtype


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError, match=r"^jacobians: axis H should be 2 \(H = 2 from jacobians\), got shape \(4, 2, 3\)$"):
        jacobian_products(np.ones((4, 2, 3)))
    with pytest.raises(ShapeError, match=r"^jacobians: expected 3 axes"):
        jacobian_products(np.ones((2, 2)))
