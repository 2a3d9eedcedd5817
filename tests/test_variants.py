"""Variants: equations in torch with autograd, central differences, and the limits in which they become the plain cells."""

import numpy as np
import pytest
import torch
from problems import assert_close, random_like

from course_lib import variants
from course_lib.cells import GRUParams, LSTMParams, LSTMState, gru_step_forward, lstm_step_forward
from course_lib.shapes import ShapeError
from course_lib.trees import leaves, map_tree
from course_lib.variants import CoupledParams, PeepholeParams

N, D, H = 2, 3, 5
KINDS = {"peephole": (PeepholeParams, 4), "coupled": (CoupledParams, 3), "gru_reset_before": (GRUParams, 3)}
every_kind = pytest.mark.parametrize("kind", KINDS)


def problem(kind, N=N, D=D, H=H, seed=0):
    rng = np.random.default_rng(seed)
    params, gates = KINDS[kind]
    shapes = {"W_ih": (gates * H, D), "W_hh": (gates * H, H), "p": (3 * H,)}
    h, c = rng.normal(size=(2, N, H))
    weights = params(*(rng.normal(0, 0.7, shapes.get(name, (gates * H,))) for name in params._fields))
    return rng.normal(size=(N, D)), h if kind == "gru_reset_before" else LSTMState(h, c), weights


def step(kind, way):
    return getattr(variants, f"{kind}_step_{way}")


def in_torch(kind, x, prev, p):
    """The papers' equations, one gate at a time."""
    s, tanh = torch.sigmoid, torch.tanh
    W, U = p.W_ih.split(len(p.W_hh[0])), p.W_hh.split(len(p.W_hh[0]))
    if kind == "gru_reset_before":
        b, d = p.b_ih.split(len(p.W_hh[0])), p.b_hh.split(len(p.W_hh[0]))
        r, z = (s(x @ W[k].T + b[k] + prev @ U[k].T + d[k]) for k in (0, 1))
        n = tanh(x @ W[2].T + b[2] + (r * prev) @ U[2].T + d[2])
        return n - z * n + z * prev
    a = [x @ w.T + prev.h @ u.T + b for w, u, b in zip(W, U, p.b.split(len(p.W_hh[0])), strict=True)]
    if kind == "coupled":
        f = s(a[0])
        c = f * prev.c + tanh(a[1]) - f * tanh(a[1])
        return LSTMState(s(a[2]) * tanh(c), c)
    p_i, p_f, p_o = p.p.split(len(p.W_hh[0]))
    c = s(a[1] + p_f * prev.c) * prev.c + s(a[0] + p_i * prev.c) * tanh(a[2])
    return LSTMState(s(a[3] + p_o * c) * tanh(c), c)


@every_kind
def test_equal_to_autograd(kind):
    inputs = problem(kind)
    state, cache = step(kind, "forward")(*inputs)
    dstate = random_like(np.random.default_rng(1), state)
    grads = step(kind, "backward")(dstate, cache)
    tensors = map_tree(lambda a: torch.tensor(a, requires_grad=True), inputs)
    expected = in_torch(kind, *tensors)
    sum((torch.tensor(w) * a).sum() for w, a in zip(leaves(dstate), leaves(expected), strict=True)).backward()
    assert_close(state, map_tree(lambda a: a.detach().numpy(), expected), 1e-13)
    assert_close(grads, map_tree(lambda a: a.grad.numpy(), tensors), 1e-12)


def test_without_peepholes_it_is_the_lstm():
    x, prev, params = problem("peephole")
    plain = lstm_step_forward(x, prev, LSTMParams(*params[:3]))[0]
    assert_close(variants.peephole_step_forward(x, prev, params._replace(p=0 * params.p))[0], plain, 1e-15)
    assert np.abs(variants.peephole_step_forward(x, prev, params)[0].h - plain.h).max() > 1e-2


def test_coupled_gates_are_an_lstm_with_tied_weights():
    """1 - σ(a) = σ(-a): the input gate's rows are the forget gate's, negated."""
    x, prev, params = problem("coupled")
    tied = LSTMParams(*(np.concatenate([-rows[:H], rows]) for rows in params))
    assert_close(variants.coupled_step_forward(x, prev, params)[0], lstm_step_forward(x, prev, tied)[0], 1e-14)


def test_the_two_gru_conventions_differ_but_agree_where_the_reset_gate_is_open():
    x, h, params = problem("gru_reset_before")
    assert np.abs(variants.gru_reset_before_step_forward(x, h, params)[0] - gru_step_forward(x, h, params)[0]).max() > 1e-2
    b_ih = params.b_ih.copy()
    b_ih[:H] = 50  # r = 1
    opened = params._replace(b_ih=b_ih)
    assert_close(variants.gru_reset_before_step_forward(x, h, opened)[0], gru_step_forward(x, h, opened)[0], 1e-13)


@every_kind
def test_inputs_stay(kind):
    inputs = problem(kind)
    kept = map_tree(np.copy, inputs)
    state, cache = step(kind, "forward")(*inputs)
    dstate = map_tree(np.copy, state)
    step(kind, "backward")(dstate, cache)
    assert_close((inputs, dstate), (kept, state), 0)


@pytest.mark.parametrize(
    ("kind", "name", "shape", "message"),
    [
        ("peephole", "p", (20,), "p: axis 3H should be 15 (H = 5 from h), got shape (20,)"),
        ("peephole", "W_hh", (15, 5), "W_hh: axis 4H should be 20 (H = 5 from h), got shape (15, 5)"),
        ("coupled", "W_ih", (20, 3), "W_ih: axis 3H should be 15 (H = 5 from h), got shape (20, 3)"),
        ("gru_reset_before", "b_hh", (5,), "b_hh: axis 3H should be 15 (H = 5 from prev), got shape (5,)"),
    ],
)
def test_wrong_shapes_are_named(kind, name, shape, message):
    x, prev, params = problem(kind)
    with pytest.raises(ShapeError) as caught:
        step(kind, "forward")(x, prev, params._replace(**{name: np.zeros(shape)}))
    assert str(caught.value) == message
