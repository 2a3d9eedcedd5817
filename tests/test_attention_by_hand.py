"""Attention by hand is PyTorch's, forward and backward; its gradients are differences; padding is not seen.

The laws that planted bugs must break are in ``test_laws``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from course_lib import attention_by_hand as by_hand
from course_lib.attention import Attention
from course_lib.attention_by_hand import AdditiveParams, MultiplicativeParams
from course_lib.gradcheck import gradient_check
from course_lib.shapes import ShapeError

KINDS = {
    "additive": (by_hand.additive_forward, by_hand.additive_backward, AdditiveParams),
    "multiplicative": (by_hand.multiplicative_forward, by_hand.multiplicative_backward, MultiplicativeParams),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


class Problem(NamedTuple):
    query: np.ndarray
    memory: np.ndarray
    lengths: np.ndarray
    params: tuple
    dcontext: np.ndarray


def random_problem(kind: str, seed: int, S: int = 6, N: int = 4, Q: int = 3, M: int = 5, A: int = 2) -> Problem:
    """Nothing is zero, all sizes and most lengths differ, and one stream has no padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, S + 1, N)
    lengths[rng.integers(N)] = S
    shapes = [(A, Q), (A, M), (A,)] if kind == "additive" else [(Q, M)]
    params = KINDS[kind][2](*(rng.normal(size=shape) for shape in shapes))
    return Problem(rng.normal(size=(N, Q)), rng.normal(size=(S, N, M)), lengths, params, rng.normal(size=(N, M)))


def attended(kind: str, p: Problem) -> list[np.ndarray]:
    """Context, alpha, dquery, dmemory, and the gradient of each parameter."""
    forward, backward, _ = KINDS[kind]
    context, alpha, cache = forward(*p[:4])
    dquery, dmemory, dparams = backward(p.dcontext, cache)
    assert type(dparams) is type(p.params)
    return [context, alpha, dquery, dmemory, *dparams]


def attended_by_torch(kind: str, p: Problem) -> list[np.ndarray]:
    """The same by ``course_lib.attention`` and autograd."""
    (_, Q), (S, _, M) = p.query.shape, p.memory.shape
    module = Attention(Q, M, kind, len(p.params.v) if kind == "additive" else None).double()
    for name, array in p.params._asdict().items():
        getattr(module, name).data = torch.tensor(array)
    query, memory = (torch.tensor(array, requires_grad=True) for array in (p.query, p.memory))
    mask = torch.arange(S)[:, None] < torch.tensor(p.lengths)
    context, alpha = module(query[None], module.memory(memory, mask))
    context[0].backward(torch.tensor(p.dcontext))
    grads = [query.grad, memory.grad, *(getattr(module, name).grad for name in p.params._fields)]
    return [part.detach().numpy() for part in (context[0], alpha[0], *grads)]


@each_kind
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [{}, dict(S=1), dict(N=1), dict(Q=1, M=1, A=1), dict(Q=4, M=4, A=4)], ids=str)
def test_it_is_pytorch_s(kind, seed, sizes):
    p = random_problem(kind, seed, **sizes)
    for mine, its in zip(attended(kind, p), attended_by_torch(kind, p), strict=True):
        assert mine.shape == its.shape
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-12)


@each_kind
@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_differences(kind, seed):
    p = random_problem(kind, seed)
    forward, _, params_of = KINDS[kind]

    def loss(query, memory, *params):
        return float((forward(query, memory, p.lengths, params_of(*params))[0] * p.dcontext).sum())

    assert gradient_check(loss, [p.query, p.memory, *p.params], attended(kind, p)[2:]) <= 1e-9


@each_kind
@pytest.mark.parametrize("garbage", [0, -3.0, 1e300, -1e300, np.inf, np.nan])
def test_padding_is_not_seen(kind, garbage):
    p = random_problem(kind, 1)
    padding = np.arange(len(p.memory))[:, None] >= p.lengths
    assert 1 < padding.sum() < padding.size / 2
    results = attended(kind, p)
    memory = np.where(padding[:, :, None], garbage, p.memory)
    longer = np.concatenate([memory, np.full_like(memory[:2], garbage)])
    for a, b in zip(attended(kind, p._replace(memory=memory)), results, strict=True):
        np.testing.assert_array_equal(a, b)
    context, alpha, dquery, dmemory, *dparams = attended(kind, p._replace(memory=longer))
    for a, b in zip([context, alpha[:, :-2], dquery, dmemory[:-2], *dparams], results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    assert not alpha[:, -2:].any() and not dmemory[-2:].any()
    assert not results[1].T[padding].any() and not results[3][padding].any()
    assert (results[1].T[~padding] > 0).all() and (results[3][~padding] != 0).any(axis=1).all()


@each_kind
def test_a_single_position_takes_all_and_its_scores_learn_nothing(kind):
    p = random_problem(kind, 2)
    context, alpha, dquery, dmemory, *dparams = attended(kind, p._replace(lengths=np.ones(4, int)))
    np.testing.assert_array_equal(context, p.memory[0])
    np.testing.assert_array_equal(alpha, np.eye(6)[[0] * 4])
    np.testing.assert_array_equal(dmemory[0], p.dcontext)
    assert not any(part.any() for part in (dquery, dmemory[1:], *dparams))


def test_a_masked_softmax_worked_out():
    alpha = by_hand.masked_softmax_forward(np.log([[1.0, 3, 4, 8], [2, 6, 5, 5], [7, 1, 1, 1]]), np.array([3, 2, 1]))
    np.testing.assert_allclose(alpha, [[1 / 8, 3 / 8, 1 / 2, 0], [1 / 4, 3 / 4, 0, 0], [1, 0, 0, 0]], atol=1e-15)
    np.testing.assert_allclose(  # dα - Σ α dα: in the first row the sum is 1/8 + 6/8 + 8/8 = 15/8
        by_hand.masked_softmax_backward(np.array([[1.0, 2, 2, 9], [1, 1, 9, 9], [5, 9, 9, 9]]), alpha),
        [[-7 / 64, 3 / 64, 4 / 64, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        atol=1e-15,
    )


@pytest.mark.parametrize("scores", [[1000.0, 1001], [-1000.0, -999], [1e8, 1e8 + 1]])
def test_large_scores_do_not_overflow(scores):
    alpha = by_hand.masked_softmax_forward(np.array([[*scores, 1e9], [0, 1, np.nan]]), [2, 2])
    np.testing.assert_allclose(alpha, [[1 / (1 + np.e), np.e / (1 + np.e), 0]] * 2, rtol=1e-12)


def test_additive_attention_worked_out():
    """One state is found at once: v picks where tanh saturates."""
    memory = np.array([[[-40.0]], [[40.0]], [[-40.0]]])
    params = AdditiveParams(W_q=np.array([[1.0]]), W_k=np.array([[1.0]]), v=np.array([np.log(3) / 2]))
    context, alpha, _ = by_hand.additive_forward(np.array([[0.0]]), memory, np.array([3]), params)
    np.testing.assert_allclose(alpha, [[0.2, 0.6, 0.2]], atol=1e-15)  # e^(2 v) = 3 times as much
    np.testing.assert_allclose(context, [[8.0]], atol=1e-12)


def test_the_parts_are_those_that_the_lesson_derives():
    p = random_problem("additive", 3)
    context, alpha, cache = by_hand.additive_forward(*p[:4])
    np.testing.assert_array_equal(by_hand.attention_context(alpha, cache.memory), context)
    dscores, direct = by_hand.attention_backward(p.dcontext, alpha, cache.memory)
    for n, length in enumerate(p.lengths):
        dalpha = np.array([p.dcontext[n] @ p.memory[j, n] for j in range(length)])
        jacobian = np.diag(alpha[n, :length]) - np.outer(alpha[n, :length], alpha[n, :length])
        np.testing.assert_allclose(dscores[n, :length], jacobian @ dalpha, atol=1e-14)
        np.testing.assert_allclose(direct[:, n], np.outer(alpha[n], p.dcontext[n]), atol=1e-15)
    assert abs(dscores.sum(axis=1)).max() < 1e-14  # more for one score is less for others


@each_kind
def test_single_precision_stays(kind):
    p = random_problem(kind, 4)
    single = [array.astype(np.float32) for array in (p.query, p.memory, p.dcontext, *p.params)]
    results = attended(kind, Problem(single[0], single[1], p.lengths, KINDS[kind][2](*single[3:]), single[2]))
    assert {part.dtype for part in results} == {np.dtype(np.float32)}
    for a, b in zip(results, attended(kind, p), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


def nan_at(array, *index):
    array = array.copy()
    array[index] = np.nan
    return array


P = random_problem("additive", 0)._replace(lengths=np.array([6, 1, 3, 2]))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (dict(query=P.query[:3]), ShapeError, r"memory: axis N should be 3 \(N = 3 from query\), got shape \(6, 4, 5\)"),
        (dict(query=P.query.T), ShapeError, "memory: axis N should be 3"),
        (dict(query=P.query[0]), ShapeError, r"query: expected 2 axes \(N, Q\), got shape \(3,\)"),
        (dict(memory=P.memory[:, :, :4]), ShapeError, r"W_k: axis M should be 4 \(M = 4 from memory\), got shape \(2, 5\)"),
        (dict(memory=P.memory[:0]), ShapeError, "memory: axis S should be at least 1"),
        (dict(params=P.params._replace(v=np.ones(3))), ShapeError, r"v: axis A should be 2 \(A = 2 from W_q\)"),
        (dict(params=P.params._replace(W_q=P.params.W_k)), ShapeError, "W_q: axis Q should be 3"),
        (dict(lengths=[6, 1, 3]), ShapeError, r"lengths: expected shape \(4,\), a length for each stream, got \(3,\)"),
        (dict(lengths=6), ShapeError, r"lengths: expected shape \(4,\), a length for each stream, got \(\)"),
        (dict(lengths=[6, 0, 3, 2]), ValueError, r"lengths: expected integers in \[1, 6\], got \[6, 0, 3, 2\]"),
        (dict(lengths=[7, 1, 3, 2]), ValueError, r"lengths: expected integers in \[1, 6\], got \[7, 1, 3, 2\]"),
        (dict(lengths=[6.0, 1, 3, 2]), ValueError, r"lengths: expected integers in \[1, 6\], got \[6.0, 1.0"),
        (dict(query=nan_at(P.query, 2, 1)), ValueError, r"query: expected numbers, got NaN at \[2, 1\] \(1 in all\)"),
        (dict(memory=nan_at(P.memory, 2, 2)), ValueError, r"memory: expected numbers, got NaN at \[2, 2, 0\] \(5 in all\)"),
        (dict(params=P.params._replace(v=nan_at(P.params.v, 0))), ValueError, r"v: expected numbers, got NaN at \[0\]"),
    ],
)
def test_errors_name_the_argument(change, error, said):
    with pytest.raises(error, match=f"^{said}"):
        by_hand.additive_forward(*P._replace(**change)[:4])


@each_kind
def test_backward_and_softmax_refuse_what_does_not_fit(kind):
    p = random_problem(kind, 0)
    forward, backward, _ = KINDS[kind]
    with pytest.raises(ShapeError, match=r"^dcontext: axis N should be 4 \(N = 4 from memory\), got shape \(1, 5\)$"):
        backward(p.dcontext[:1], forward(*p[:4])[2])
    with pytest.raises(ShapeError, match=r"^scores: expected 2 axes \(N, S\), got shape \(4,\)$"):
        by_hand.masked_softmax_forward(np.ones(4), [1])
    with pytest.raises(ShapeError, match=r"^dalpha: axis N should be 4"):
        by_hand.masked_softmax_backward(np.ones((1, 6)), np.ones((4, 6)))


@each_kind
def test_a_forward_leaves_its_arguments_and_its_cache_alone(kind):
    p = random_problem(kind, 5)
    forward, backward, _ = KINDS[kind]
    kept = [np.copy(part) for part in (*p[:3], *p.params)]
    cache = forward(*p[:4])[2]
    first, second = backward(p.dcontext, cache), backward(p.dcontext, cache)
    for a, b in zip((*p[:3], *p.params), kept, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((*first[:2], *first[2]), (*second[:2], *second[2]), strict=True):
        np.testing.assert_array_equal(a, b)
