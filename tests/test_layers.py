"""Each layer against torch, its gradient against torch and central differences, and its errors word by word."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import assert_close, few, worst_gradient_error
from torch.nn import functional

from course_lib.layers import (
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
    log_softmax,
    sigmoid,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from course_lib.shapes import ShapeError

LEADING = [(), (1,), (7,), (3, 5), (2, 1, 4)]
DTYPES = [(np.float64, 1e-12), (np.float32, 1e-5)]
both_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
every_leading = pytest.mark.parametrize("leading", LEADING, ids=str)


def gradients(output, upstream, inputs):
    """What torch's autograd gives."""
    return tuple(g.numpy() for g in torch.autograd.grad(output, inputs, torch.tensor(upstream)))


def tensors(*arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


@given(st.floats(-1e4, 1e4))
def test_sigmoid(a):
    assert_close(sigmoid(np.array([a, -a])), torch.sigmoid(torch.tensor([a, -a], dtype=torch.float64)).numpy(), 1e-15)
    assert sigmoid(np.float32([a])).dtype == np.float32


@both_dtypes
@every_leading
def test_linear(leading, dtype, tolerance):
    rng = np.random.default_rng(1)
    x, W, b = (rng.normal(size=shape).astype(dtype) for shape in ((*leading, 3), (4, 3), 4))
    dy = rng.normal(size=(*leading, 4)).astype(dtype)
    before = [a.copy() for a in (x, W, b, dy)]
    y, cache = linear_forward(x, W, b)
    grads = linear_backward(dy, cache)
    t_x, t_W, t_b = tensors(x, W, b)
    expected = functional.linear(t_x, t_W, t_b)
    assert_close((y, grads), (expected.detach().numpy(), gradients(expected, dy, (t_x, t_W, t_b))), tolerance)
    assert {a.dtype for a in (y, *grads)} == {np.dtype(dtype)}
    y[...] = np.nan  # a caller may do with its output what it likes
    assert_close(linear_backward(dy, cache), grads, 0)
    assert_close((x, W, b, dy), tuple(before), 0)


def test_linear_by_differences():
    rng = np.random.default_rng(2)
    inputs, dy = (rng.normal(size=(2, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)), rng.normal(size=(2, 4))
    grads = linear_backward(dy, linear_forward(*inputs)[1])
    assert worst_gradient_error(lambda *inputs: linear_forward(*inputs)[0], inputs, dy, grads) <= 1e-8


@pytest.mark.parametrize(("W", "b"), [((4, 2), (4,)), ((4, 3), (3,)), ((4, 3), (4, 1))])
def test_linear_names_its_shapes(W, b):
    with pytest.raises(ShapeError) as caught:
        linear_forward(np.zeros((5, 3)), np.zeros(W), np.zeros(b))
    assert str(caught.value) == f"linear: x (5, 3), W {W}, b {b}: expected x (..., D), W (V, D), b (V,)"


@both_dtypes
@every_leading
def test_embedding(leading, dtype, tolerance):
    rng = np.random.default_rng(3)
    table = rng.normal(size=(6, 3)).astype(dtype)
    tokens = rng.choice([0, 2, 3, 5], size=leading)  # 1 and 4 never occur; others occur twice and more
    dx = rng.normal(size=(*leading, 3)).astype(dtype)
    x, cache = embedding_forward(tokens, table)
    (t_table,) = tensors(table)
    expected = functional.embedding(torch.tensor(tokens), t_table)
    (dtable,) = gradients(expected, dx, (t_table,))
    assert_close(x, table[tokens], 0)
    assert_close(embedding_backward(dx, cache), dtable, tolerance)
    assert embedding_backward(dx, cache).dtype == dtype
    x[...] = np.nan
    assert_close(embedding_backward(dx, cache), dtable, tolerance)
    assert np.isfinite(table).all()


def test_embedding_of_nothing_and_of_small_integers():
    table = np.arange(12.0).reshape(4, 3)
    x, cache = embedding_forward(np.zeros(0, int), table)
    assert_close(embedding_backward(x, cache), np.zeros((4, 3)), 0)
    assert_close(embedding_forward(np.array([3, 0], np.uint8), table)[0], table[[3, 0]])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[0, 6]], "tokens: expected tokens in [0, 6), got 6"),
        ([-1], "tokens: expected tokens in [0, 6), got -1"),
        ([1.0], "tokens: expected integer tokens, got dtype float64"),
    ],
)
def test_embedding_refuses_other_tokens(tokens, message):
    with pytest.raises(ValueError) as caught:
        embedding_forward(np.array(tokens), np.zeros((6, 3)))
    assert str(caught.value) == message


@both_dtypes
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dtype, tolerance):
    x = np.full((200, 500), 3, dtype)
    y, mask = dropout_forward(x, rate, np.random.default_rng(4))
    dropped = y == 0
    spread = (rate * (1 - rate) / x.size) ** 0.5
    assert abs(dropped.mean() - rate) < 4 * spread
    assert abs(np.corrcoef(dropped[:, :-1].ravel(), dropped[:, 1:].ravel())[0, 1]) < 4 / x.size**0.5
    np.testing.assert_allclose(y[~dropped], 3 / (1 - rate), rtol=tolerance)
    assert y.dtype == mask.dtype == dtype
    dy = np.random.default_rng(5).normal(size=x.shape).astype(dtype)
    np.testing.assert_allclose(dropout_backward(dy, mask), np.where(dropped, 0, dy / (1 - rate)), rtol=tolerance)
    assert (x == 3).all()


def test_dropout_of_nothing_and_its_seed():
    x, rng = np.random.default_rng(6).normal(size=(4, 5)), np.random.default_rng
    assert_close(dropout_forward(x, 0, rng(0))[0], x, 0)
    assert_close(dropout_forward(x, 0.5, rng(0)), dropout_forward(x, 0.5, rng(0)), 0)
    assert not np.array_equal(dropout_forward(x, 0.5, rng(0))[1], dropout_forward(x, 0.5, rng(1))[1])


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_other_rates(rate):
    with pytest.raises(ValueError) as caught:
        dropout_forward(np.ones(3), rate, np.random.default_rng(0))
    assert str(caught.value) == f"rate: expected a number in [0, 1), got {rate}"


@few
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1, 1e3, 1e38]))
def test_log_softmax(seed, scale):
    logits = np.random.default_rng(seed).normal(size=(3, 2, 5)) * scale
    kept = logits.copy()
    assert_close(log_softmax(logits), torch.log_softmax(torch.tensor(logits), -1).numpy(), 1e-12)
    assert_close(logits, kept, 0)
    np.testing.assert_allclose(np.exp(log_softmax(logits)).sum(-1), 1, rtol=1e-12)
    assert log_softmax((logits / 100).astype(np.float32)).dtype == np.float32


@both_dtypes
@every_leading
def test_softmax_cross_entropy(leading, dtype, tolerance):
    rng = np.random.default_rng(7)
    logits, targets = (3 * rng.normal(size=(*leading, 6))).astype(dtype), rng.integers(0, 6, leading)
    kept = logits.copy()
    loss, cache = softmax_cross_entropy_forward(logits, targets)
    dlogits = softmax_cross_entropy_backward(cache)
    (t_logits,) = tensors(logits)
    expected = functional.cross_entropy(t_logits.reshape(-1, 6), torch.tensor(targets).reshape(-1))
    assert isinstance(loss, float)
    assert loss == pytest.approx(expected.item(), rel=tolerance)
    assert_close(dlogits, gradients(expected, np.array(1, dtype), (t_logits,))[0], tolerance)
    assert dlogits.dtype == dtype
    first = dlogits.copy()
    dlogits[...] = np.nan  # the caller's own
    assert_close(softmax_cross_entropy_backward(cache), first, 0)
    assert_close(logits, kept, 0)


def test_softmax_cross_entropy_by_differences():
    logits, targets = np.random.default_rng(8).normal(size=(3, 2, 5)), np.array([[0, 4], [4, 1], [2, 3]])
    dlogits = softmax_cross_entropy_backward(softmax_cross_entropy_forward(logits, targets)[1])
    error = worst_gradient_error(
        lambda a: softmax_cross_entropy_forward(a, targets)[0], (logits,), np.array(1.0), (dlogits,)
    )
    assert error <= 1e-8


def test_the_loss_of_guessing_is_log_v():
    assert softmax_cross_entropy_forward(np.zeros((4, 9)), np.array([0, 8, 3, 3]))[0] == pytest.approx(np.log(9))


@pytest.mark.parametrize(
    ("logits", "targets", "kind", "message"),
    [
        ((3, 2, 5), [[0], [1]], ShapeError, "targets: expected shape (3, 2) from logits (3, 2, 5), got (2, 1)"),
        ((2, 5), [0, 5], ValueError, "targets: expected tokens in [0, 5), got 5"),
        ((2, 5), [0, -1], ValueError, "targets: expected tokens in [0, 5), got -1"),
        ((2, 5), [0, 1.0], ValueError, "targets: expected integer tokens, got dtype float64"),
    ],
)
def test_cross_entropy_refuses_other_targets(logits, targets, kind, message):
    with pytest.raises(kind) as caught:
        softmax_cross_entropy_forward(np.zeros(logits), np.array(targets))
    assert str(caught.value) == message
