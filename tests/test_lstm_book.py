"""Right answers to the exercises on the LSTM, written in other ways, are accepted."""

import numpy as np
import pytest

from course_lib import lstm_book
from course_lib.cells import LSTMParams, LSTMState, lstm_step_backward
from course_lib.exercises import check
from course_lib.sequence import lstm_backward
from course_lib.trees import map_tree


def sigma(a):
    return 1 / (1 + np.exp(-a))


def concatenated(x, prev, params):
    """The six equations with W_f · [h, x]."""
    W = np.hstack([params.W_hh, params.W_ih])
    i, f, g, o = (np.hstack([prev.h, x]) @ part.T + b for part, b in zip(np.split(W, 4), np.split(params.b, 4), strict=True))
    c = sigma(f) * prev.c + sigma(i) * np.tanh(g)
    return (sigma(o) * np.tanh(c), c), None


def in_single(x, prev, params):
    (h, c), _ = concatenated(*map_tree(lambda a: a.astype(np.float32), (x, prev, params)))
    assert h.dtype == np.float32
    return LSTMState(h, c), "any cache"


@pytest.mark.parametrize("function", [concatenated, in_single])
def test_steps_forward(function):
    assert check("lstm_step_forward", function).passed


def gate_by_gate(dstate, cache):
    x, prev, params, i, f, g, o, tanh_c = cache
    dc = dstate.c + dstate.h * o * (1 - tanh_c**2)
    da = {
        "i": dc * g * i * (1 - i),
        "f": dc * prev.c * f * (1 - f),
        "g": dc * i * (1 - g**2),
        "o": dstate.h * tanh_c * o * (1 - o),
    }
    W_ih, W_hh = (dict(zip("ifgo", np.split(W, 4), strict=True)) for W in params[:2])
    dx = sum(da[k] @ W_ih[k] for k in "ifgo")
    dh = sum(da[k] @ W_hh[k] for k in "ifgo")
    dW_ih, dW_hh = (np.concatenate([da[k].T @ right for k in "ifgo"]) for right in (x, prev.h))
    return dx, (dh, dc * f), (dW_ih, dW_hh, np.concatenate([da[k].sum(0) for k in "ifgo"]))


def in_place(dstate, cache):
    x, prev, params, i, f, g, o, tanh_c = cache
    H = i.shape[1]
    da, dc = np.empty((len(x), 4 * H)), 1 - tanh_c * tanh_c
    dc *= o
    dc *= dstate.h
    dc += dstate.c
    np.multiply(dc, g * i * (1 - i), out=da[:, :H])
    np.multiply(dc, prev.c * f * (1 - f), out=da[:, H : 2 * H])
    np.multiply(dc, i * (1 - g * g), out=da[:, 2 * H : 3 * H])
    np.multiply(dstate.h, tanh_c * o * (1 - o), out=da[:, 3 * H :])
    dc *= f
    return da @ params.W_ih, LSTMState(da @ params.W_hh, dc), LSTMParams(da.T @ x, da.T @ prev.h, da.sum(0))


def by_einsum(dstate, cache):
    x, prev, params, i, f, g, o, tanh_c = cache
    dc = dstate.c + dstate.h * o * (1 - tanh_c**2)
    da = np.stack([dc * g * i * (1 - i), dc * prev.c * f * (1 - f), dc * i * (1 - g**2), dstate.h * tanh_c * o * (1 - o)])
    W_ih, W_hh = (W.reshape(4, i.shape[1], -1) for W in params[:2])
    dW_ih, dW_hh = (np.einsum("knh,nd->khd", da, right).reshape(4 * i.shape[1], -1) for right in (x, prev.h))
    dprev = LSTMState(np.einsum("knh,khj->nj", da, W_hh), dc * f)
    return np.einsum("knh,khd->nd", da, W_ih), dprev, LSTMParams(dW_ih, dW_hh, da.sum(1).ravel())


def single(dstate, cache):
    return lstm_step_backward(*map_tree(lambda a: a.astype(np.float32), (dstate, cache)))


@pytest.mark.parametrize("function", [gate_by_gate, in_place, by_einsum, single])
def test_steps_backward(function):
    assert check("lstm_step_backward", function).passed


def products_outside(dhs, dfinal, cache):
    """Only da inside the loop; the weight gradients as two products after it."""
    (dh, dc), das = dfinal, []
    for t in reversed(range(len(dhs))):
        _, _, params, i, f, g, o, tanh_c = step = cache.at(t)
        dh = dh + dhs[t]
        dc = dc + dh * o * (1 - tanh_c**2)
        slopes = i * (1 - i), f * (1 - f), 1 - g**2, o * (1 - o)
        das.append(np.hstack([d * s for d, s in zip((dc * g, dc * step.prev.c, dc * i, dh * tanh_c), slopes, strict=True)]))
        dh, dc = das[-1] @ params.W_hh, dc * f
    da = np.stack(das[::-1])
    rows = da.reshape(-1, da.shape[2])
    dW_ih, dW_hh = (rows.T @ right.reshape(len(rows), -1) for right in (cache.x, cache.hs[:-1]))
    return da @ cache.params.W_ih, LSTMState(dh, dc), LSTMParams(dW_ih, dW_hh, rows.sum(0))


@pytest.mark.parametrize("function", [products_outside, lstm_book._lstm_backward_loop, lstm_backward])
def test_sequences_backward(function):
    assert check("lstm_backward", function).passed


def test_sequences_forward():
    assert check("lstm_forward", lstm_book._lstm_forward_loop).passed


def test_output_gradients():
    assert check("lstm_output_gradients", lambda d, c: [d.h * c.tanh_c, d.c + d.h * c.o - d.h * c.o * c.tanh_c**2]).passed
