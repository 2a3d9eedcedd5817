"""Right answers to the exercises of lesson 02, written in other ways, are accepted."""

import numpy as np
import pytest

from course_lib import rnn_book
from course_lib.cells import RNNParams, rnn_step_backward
from course_lib.exercises import check
from course_lib.sequence import rnn_backward
from course_lib.trees import map_tree


def by_einsum(dstate, cache):
    da = np.einsum("nh,nh->nh", dstate, 1 - cache.h**2)
    weights = RNNParams(np.einsum("nh,nd->hd", da, cache.x), np.einsum("nh,nk->hk", da, cache.prev), np.einsum("nh->h", da))
    return np.einsum("nh,hd->nd", da, cache.params.W_ih), np.einsum("nh,hk->nk", da, cache.params.W_hh), weights


def in_place(dstate, cache):
    da = cache.h * cache.h
    np.subtract(1, da, out=da)
    da *= dstate
    return da @ cache.params.W_ih, da @ cache.params.W_hh, (da.T @ cache.x, da.T @ cache.prev, da.sum(0))


def in_single(dstate, cache):
    x, prev, (W_ih, W_hh, _), h = cache
    da = (dstate * (1 - h * h)).astype(np.float32)
    x, prev, W_ih, W_hh = (a.astype(np.float32) for a in (x, prev, W_ih, W_hh))
    return da @ W_ih, da @ W_hh, RNNParams(da.T @ x, da.T @ prev, da.sum(0))


def stream_by_stream(dstate, cache):
    x, prev, (W_ih, W_hh, b), h = cache
    dx, dprev, dW_ih, dW_hh, db = (np.zeros_like(a) for a in (x, prev, W_ih, W_hh, b))
    for n in range(len(x)):
        da = dstate[n] * (1 - h[n] ** 2)
        dx[n], dprev[n] = W_ih.T @ da, W_hh.T @ da
        dW_ih += np.outer(da, x[n])
        dW_hh += np.outer(da, prev[n])
        db += da
    return [dx, dprev, [dW_ih, dW_hh, db]]


@pytest.mark.parametrize("function", [by_einsum, in_place, in_single, stream_by_stream])
def test_steps_backward(function):
    assert check("rnn_step_backward", function).passed


def two_products(dhs, dfinal, cache):
    x, hs, (W_ih, W_hh, _), _ = cache
    das, dh = np.empty_like(dhs), dfinal
    for t in reversed(range(len(x))):
        das[t] = (dhs[t] + dh) * (1 - hs[t + 1] ** 2)
        dh = das[t] @ W_hh
    return das @ W_ih, dh, RNNParams(np.einsum("tnh,tnd->hd", das, x), np.einsum("tnh,tnk->hk", das, hs[:-1]), das.sum((0, 1)))


def in_single_sequence(dhs, dfinal, cache):
    single = map_tree(lambda a: None if a is None else a.astype(np.float32), (dhs, dfinal, cache))
    return two_products(*single)


@pytest.mark.parametrize("function", [two_products, in_single_sequence, rnn_book._rnn_backward_loop])
def test_sequences_backward(function):
    assert check("rnn_backward", function).passed


def in_one_loop(dhs, cache, k, cut=lambda t, k: (t + 1) % k == 0):
    """Without chunks: dh is dropped where a chunk ends."""
    dx, dh, total = np.empty_like(cache.x), np.zeros_like(cache.hs[0]), map_tree(np.zeros_like, cache.params)
    for t in reversed(range(len(dhs))):
        dh = np.zeros_like(dh) if cut(t, k) else dh
        dx[t], dh, step = rnn_step_backward(dh + dhs[t], cache.at(t))
        total = map_tree(np.add, total, step)
    return dx, total


def test_truncation_in_one_loop():
    assert check("rnn_truncated_backward", in_one_loop).passed
    one_late = check("rnn_truncated_backward", lambda *a: in_one_loop(*a, cut=lambda t, k: t % k == 0))
    assert "the cut is at the wrong steps" in one_late.lines[-1]


def test_truncation_from_the_whole_length_on_is_none():
    dhs, dfinal, cache = rnn_book._rnn_gradient(np.random.default_rng(0))
    dx, _, dparams = rnn_backward(dhs, 0 * dfinal, cache)
    for k in (len(dhs), len(dhs) + 3):
        got_dx, got = rnn_book.rnn_truncated_backward(dhs, cache, k)
        np.testing.assert_allclose(got_dx, dx, atol=1e-13)
        for a, b in zip(got, dparams, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)


def test_forwards():
    assert check("rnn_forward", rnn_book._rnn_forward_loop).passed
    assert check("rnn_step_forward", lambda x, h, p: (np.tanh(np.hstack([x, h]) @ np.hstack(p[:2]).T + p.b), None)).passed
