"""Attention in NumPy, one step of the decoder, forward and backward: what lesson 10 derives.

    score_j = vᵀ tanh(W_q q + W_k m_j)                additive                                       (10.1)
    score_j = qᵀ W_k m_j                              multiplicative                                 (10.2)
    α_j = e^(score_j - max) / Σ_k e^(score_k - max)   over real positions, 0 at padding              (10.3)
    context = Σ_j α_j m_j                                                                            (10.4)

    dα_j = dcontext · m_j                                                                            (10.5)
    dscore_j = α_j (dα_j - Σ_k α_k dα_k)                                                             (10.6)
    dm_j = α_j dcontext + W_kᵀ dkey_j                 m_j is read, and it is what is compared        (10.7)

where key_j = W_k m_j. Additive: dkey_j = dscore_j v ⊙ (1 - tanh²), dq = W_qᵀ Σ_j dkey_j, dW_q = (Σ_j dkey_j) qᵀ,
dv = Σ_j dscore_j tanh(...). Multiplicative: dkey_j = dscore_j q, dq = Σ_j dscore_j key_j. Either: dW_k = Σ_j dkey_j m_jᵀ.

Axes: N streams, S source positions, Q and M the sizes of query and memory, A of the comparison. The memory is time-major,
(S, N, M), padded on the right; whatever stands at padding, NaN included, changes nothing and has a gradient of 0.
References: Bahdanau, Cho & Bengio 2015; Luong, Pham & Manning 2015, their "general" score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.shapes import ShapeError, check_numbers, check_shapes


class AdditiveParams(NamedTuple):
    W_q: np.ndarray  # (A, Q)
    W_k: np.ndarray  # (A, M)
    v: np.ndarray  # (A,)


class MultiplicativeParams(NamedTuple):
    W_k: np.ndarray  # (Q, M)


class AdditiveCache(NamedTuple):
    query: np.ndarray  # (N, Q)
    memory: np.ndarray  # (S, N, M), 0 at padding
    params: AdditiveParams
    hidden: np.ndarray  # (S, N, A), tanh(W_q q + W_k m_j)
    alpha: np.ndarray  # (N, S)


class MultiplicativeCache(NamedTuple):
    query: np.ndarray  # (N, Q)
    memory: np.ndarray  # (S, N, M), 0 at padding
    params: MultiplicativeParams
    keys: np.ndarray  # (S, N, Q), W_k m_j
    alpha: np.ndarray  # (N, S)


def masked_softmax_forward(scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The softmax of each row over its real positions (10.3); the largest of them is subtracted, so nothing overflows.

    Args:     scores: (N, S); beyond a stream's length anything. lengths: (N,) integers in [1, S].
    Returns:  alpha (N, S): each row sums to 1, and is 0 at padding. It is all that the backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: a length that cannot be.
    """
    sizes = check_shapes(scores=(scores, "N S"))
    allowed = np.where(_real_positions(lengths, sizes["N"], sizes["S"]), scores, -np.inf)
    exponentials = np.exp(allowed - allowed.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def masked_softmax_backward(dalpha: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """dscore_j = α_j (dα_j - Σ_k α_k dα_k), eq. 10.6; at padding α_j is 0, and so is dscore_j.

    Args:     dalpha: dL/dalpha (N, S). alpha: from masked_softmax_forward.
    Returns:  dscores (N, S).
    """
    check_shapes(alpha=(alpha, "N S"), dalpha=(dalpha, "N S"))
    return alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))


def attention_context(alpha: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """context = Σ_j α_j m_j, eq. 10.4: alpha (N, S), memory (S, N, M) -> (N, M)."""
    return np.einsum("ns,snm->nm", alpha, memory)


def attention_backward(dcontext: np.ndarray, alpha: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pull dL/dcontext back to the scores (10.5, 10.6), and to the memory as far as it is read: α_j dcontext, in 10.7.

    Args:     dcontext: (N, M). alpha: (N, S). memory: (S, N, M).
    Returns:  dscores (N, S), dmemory (S, N, M); what the scores send to the memory is not in it.
    """
    dalpha = np.einsum("nm,snm->ns", dcontext, memory)
    return masked_softmax_backward(dalpha, alpha), alpha.T[:, :, None] * dcontext


def additive_forward(
    query: np.ndarray, memory: np.ndarray, lengths: np.ndarray, params: AdditiveParams
) -> tuple[np.ndarray, np.ndarray, AdditiveCache]:
    """Attend once with the additive score: eqs. 10.1, 10.3, 10.4.

    Args:     query: (N, Q). memory: (S, N, M). lengths: (N,) integers in [1, S]. params: see AdditiveParams.
    Returns:  context (N, M), alpha (N, S), and the cache that additive_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: a length that cannot be; NaN in an argument.
    """
    W_q, W_k, v = params
    check_shapes(query=(query, "N Q"), memory=(memory, "S N M"), W_q=(W_q, "A Q"), W_k=(W_k, "A M"), v=(v, "A"))
    memory = _without_padding(memory, lengths)
    hidden = np.tanh(query @ W_q.T + memory @ W_k.T)
    alpha = masked_softmax_forward((hidden @ v).T, lengths)
    context = attention_context(alpha, memory)
    _name_nan(context, query, memory, params)
    return context, alpha, AdditiveCache(query, memory, params, hidden, alpha)


def additive_backward(dcontext: np.ndarray, cache: AdditiveCache) -> tuple[np.ndarray, np.ndarray, AdditiveParams]:
    """Pull dL/dcontext (N, M) back: eqs. 10.5 to 10.7.

    Returns:  dquery (N, Q), dmemory (S, N, M), dparams.
    """
    query, memory, params, hidden, alpha = cache
    check_shapes(memory=(memory, "S N M"), dcontext=(dcontext, "N M"))
    dscores, dmemory = attention_backward(dcontext, alpha, memory)
    dkeys = dscores.T[:, :, None] * params.v * (1 - hidden * hidden)  # (S, N, A)
    dquery = dkeys.sum(axis=0)  # of W_q q, which every position reads
    dv = np.einsum("ns,sna->a", dscores, hidden)
    dparams = AdditiveParams(dquery.T @ query, np.einsum("sna,snm->am", dkeys, memory), dv)
    return dquery @ params.W_q, dmemory + dkeys @ params.W_k, dparams


def multiplicative_forward(
    query: np.ndarray, memory: np.ndarray, lengths: np.ndarray, params: MultiplicativeParams
) -> tuple[np.ndarray, np.ndarray, MultiplicativeCache]:
    """Attend once with the multiplicative score: eqs. 10.2, 10.3, 10.4. As additive_forward otherwise."""
    check_shapes(query=(query, "N Q"), memory=(memory, "S N M"), W_k=(params.W_k, "Q M"))
    memory = _without_padding(memory, lengths)
    keys = memory @ params.W_k.T
    alpha = masked_softmax_forward(np.einsum("nq,snq->ns", query, keys), lengths)
    context = attention_context(alpha, memory)
    _name_nan(context, query, memory, params)
    return context, alpha, MultiplicativeCache(query, memory, params, keys, alpha)


def multiplicative_backward(
    dcontext: np.ndarray, cache: MultiplicativeCache
) -> tuple[np.ndarray, np.ndarray, MultiplicativeParams]:
    """Pull dL/dcontext (N, M) back: eqs. 10.5 to 10.7.

    Returns:  dquery (N, Q), dmemory (S, N, M), dparams.
    """
    query, memory, params, keys, alpha = cache
    check_shapes(memory=(memory, "S N M"), dcontext=(dcontext, "N M"))
    dscores, dmemory = attention_backward(dcontext, alpha, memory)
    dkeys = dscores.T[:, :, None] * query  # (S, N, Q)
    dparams = MultiplicativeParams(np.einsum("snq,snm->qm", dkeys, memory))
    return np.einsum("ns,snq->nq", dscores, keys), dmemory + dkeys @ params.W_k, dparams


def _real_positions(lengths: np.ndarray, N: int, S: int) -> np.ndarray:
    """(N, S) bool, true at the positions before each stream's length."""
    lengths = np.asarray(lengths)
    if lengths.shape != (N,):
        raise ShapeError(f"lengths: expected shape ({N},), a length for each stream, got {lengths.shape}")
    if lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.max() > S:
        raise ValueError(f"lengths: expected integers in [1, {S}], got {lengths.tolist()}")
    return np.arange(S) < lengths[:, None]


def _without_padding(memory: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The memory with 0 at padding, whose numbers, huge or NaN, would come through a product with 0 otherwise."""
    S, N, _ = memory.shape
    return np.where(_real_positions(lengths, N, S).T[:, :, None], memory, 0)


def _name_nan(context: np.ndarray, query: np.ndarray, memory: np.ndarray, params: tuple) -> None:
    if np.isnan(context).any():
        check_numbers(query=query, memory=memory, **params._asdict())
