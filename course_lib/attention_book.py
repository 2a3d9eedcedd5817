"""The exercises of lesson 10 on attention: masked softmax, additive score, context, and the way back to scores and memory.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

import numpy as np

from course_lib.attention_by_hand import AdditiveParams, attention_backward, attention_context, masked_softmax_forward
from course_lib.exercise_book import Exercise, slips
from course_lib.rnn_book import draw, upstream


def additive_scores(query: np.ndarray, memory: np.ndarray, params: AdditiveParams) -> np.ndarray:
    """score_j = vᵀ tanh(W_q q + W_k m_j): how well each position answers the query, padding included.

    Args:     query: (N, Q). memory: (S, N, M). params: see AdditiveParams.
    Returns:  scores (N, S).
    """
    return (np.tanh(query @ params.W_q.T + memory @ params.W_k.T) @ params.v).T


def _masked_softmax(scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    real = np.arange(scores.shape[1]) < lengths[:, None]
    allowed = np.where(real, scores, -np.inf)
    exponentials = np.exp(allowed - allowed.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _attention_backward(dcontext: np.ndarray, alpha: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    dalpha = np.einsum("nm,snm->ns", dcontext, memory)
    dscores = alpha * (dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))
    return dscores, alpha.T[:, :, None] * dcontext


def attention_sizes(rng: np.random.Generator) -> tuple[int, int, int, int, int]:
    """S, N, Q, M, A, all different, now and then one of them 1; in one of three draws Q = M = A: all matrices are square."""
    S, N, Q, M, A = map(int, rng.permutation(5) + rng.integers(1, 3))
    return (S, N, Q, Q, Q) if rng.random() < 1 / 3 else (S, N, Q, M, A)


def _lengths(rng: np.random.Generator, S: int, N: int) -> np.ndarray:
    lengths = rng.integers(1, S + 1, N)
    lengths[rng.integers(N)] = S  # the longest stream is why there are S positions
    return lengths


def _scores(rng: np.random.Generator) -> tuple:
    """Now and then so large that exponentials overflow, rows far apart, or what stands at padding larger than all else."""
    S, N, *_ = attention_sizes(rng)
    lengths = _lengths(rng, S, N)
    scores = rng.normal(0, 2, (N, S)) + rng.choice([0, 1000]) * rng.normal(size=(N, 1))
    padding = np.arange(S) >= lengths[:, None]
    return scores + rng.choice([0, 3000]) * padding, lengths


def _for_scores(rng: np.random.Generator) -> tuple:
    S, N, Q, M, A = attention_sizes(rng)
    query, memory, *weights = draw(rng, (N, Q), (S, N, M), (A, Q), (A, M), (A,))
    return query, memory, AdditiveParams(*weights)


def _for_context(rng: np.random.Generator) -> tuple:
    S, N, _, M, _ = attention_sizes(rng)
    return masked_softmax_forward(rng.normal(0, 1.5, (N, S)), _lengths(rng, S, N)), *draw(rng, (S, N, M))


def _for_backward(rng: np.random.Generator) -> tuple:
    alpha, memory = _for_context(rng)
    return upstream(rng, memory.shape[1:]), alpha, memory


_NORMALISED = "exponentials / exponentials.sum(axis=1, keepdims=True)"
_READ = 'np.einsum("ns,snm->nm", alpha, memory)'
_CENTRED = "(dalpha - (alpha * dalpha).sum(axis=1, keepdims=True))"

ATTENTION_EXERCISES: dict[str, Exercise] = {
    "masked_softmax": Exercise(
        "10.1",
        masked_softmax_forward,
        _scores,
        [
            *slips(
                _masked_softmax,
                ("padding gets a share: nothing is masked", "np.where(real, scores, -np.inf)", "scores"),
                ("a score of 0 is no mask: e^0 = 1; at padding the score is -inf", "-np.inf", "0"),
                ("a small negative number is no mask: its exponential still has a share; -inf has none", "-np.inf", "-5"),
                ("masked behind the softmax, a row no longer sums to 1: mask the scores",
                 "np.where(real, scores, -np.inf)", "scores", _NORMALISED, f"real * {_NORMALISED}"),
                ("positions are counted from 0: position lengths is padding already, < instead of <=",
                 "< lengths[:, None]", "<= lengths[:, None]"),
                ("positions are counted from 0: the last real one is lengths - 1",
                 "< lengths[:, None]", "< lengths[:, None] - 1"),
                ("real and padding are exchanged", "< lengths[:, None]", ">= lengths[:, None]"),
                ("padding is on the right: the first positions are the real ones",
                 "< lengths[:, None]", ">= scores.shape[1] - lengths[:, None]"),
                ("all streams have the mask of the first: lengths[:, None]", "< lengths[:, None]", "< lengths[0]"),
                ("normalise over the positions of a stream, axis 1; axis 0 is the streams",
                 "allowed.max(axis=1", "allowed.max(axis=0", "exponentials.sum(axis=1", "exponentials.sum(axis=0"),
                ("normalise each row by itself: that is one distribution for all streams",
                 "allowed.max(axis=1, keepdims=True)", "allowed.max()",
                 "exponentials.sum(axis=1, keepdims=True)", "exponentials.sum()"),
                ("e^1000 is infinite: subtract each row's maximum first", " - allowed.max(axis=1, keepdims=True)", ""),
                ("the maximum is that of the real positions: a large score at padding leaves 0 / 0",
                 "allowed.max(axis=1", "scores.max(axis=1"),
                ("each row has its own maximum: beside another row's all of a row may be 0, and 0 / 0 its share",
                 "allowed.max(axis=1, keepdims=True)", "allowed.max()"),
                ("divide by the row's sum: these are the exponentials", _NORMALISED, "exponentials"),
                ("the weights are asked for, not their logarithms", _NORMALISED, f"np.log({_NORMALISED})"),
                ("every real position gets the same: the scores are not used", "scores, -np.inf", "0, -np.inf"),
                ("the largest score takes all: that is the maximum itself, not the softmax",
                 _NORMALISED, "1.0 * (exponentials == 1)"),
            ),
        ],
        arguments="scores lengths", outputs="alpha",
    ),
    "additive_scores": Exercise(
        "10.2",
        additive_scores,
        _for_scores,
        [
            *slips(
                additive_scores,
                ("tanh is missing: the query then adds the same to every position, and the softmax does not see it",
                 "np.tanh(", "("),
                ("tanh, not the logistic function", "np.tanh(", "(lambda a: 0.5 + 0.5 * np.tanh(a / 2))("),
                ("tanh acts on the sum, not on each part", " + memory @", ") + np.tanh(memory @"),
                ("v stands outside tanh", "(np.tanh(", "np.tanh(("),
                ("v is missing: the entries are not just added up", "@ params.v)", ").sum(axis=2)"),
                ("v is missing: no mean either", "@ params.v)", ").mean(axis=2)"),
                ("the query is missing", "query @ params.W_q.T + ", ""),
                ("the memory is missing", " + memory @ params.W_k.T", " + 0 * (memory @ params.W_k.T)"),
                ("the query and the memory are added, not multiplied", " + memory @", " * (memory @", "W_k.T)", "W_k.T))"),
                ("W_q is for the query and W_k for the memory: they are exchanged", "W_q", "W_k", "W_k", "W_q"),
                ("samples are rows: query @ W_q.T; without .T it fits too where W_q is square", "W_q.T", "W_q"),
                ("samples are rows: memory @ W_k.T; without .T it fits too where W_k is square", "W_k.T", "W_k"),
                ("each stream has its own query: that is the first one's for all", "query @", "query[0] @"),
                ("a score for each stream and position: (N, S), not (S, N)", "params.v).T", "params.v)"),
                ("(S, N) is transposed, not reshaped: reshape mixes the streams",
                 "params.v).T", "params.v).reshape(len(query), len(memory))"),
                ("the division by a root belongs to the scaled dot product of the Transformer",
                 "params.v).T", "params.v).T / np.sqrt(len(params.v))"),
                ("scores are asked for; the softmax comes behind them",
                 "return (np.tanh(", "return masked_softmax_forward((np.tanh(",
                 "params.v).T", "params.v).T, np.full(len(query), len(memory)))"),
            ),
        ],
        arguments="query memory params", outputs="scores",
    ),
    "attention_context": Exercise(
        "10.3",
        attention_context,
        _for_context,
        [
            *slips(
                attention_context,
                ("sum over the positions of a stream; that sums over the streams", "->nm", "->sm"),
                ("the weights are not used: a mean of all states, padding included", _READ, "memory.mean(axis=0)"),
                ("the weights are not used: a mean of the real states",
                 _READ, 'np.einsum("ns,snm->nm", (alpha > 0) / (alpha > 0).sum(axis=1, keepdims=True), memory)'),
                ("the weights are not used: the sum of all states", _READ, "memory.sum(axis=0)"),
                ("attention is a weighted mean, not the state of the largest weight",
                 _READ, "memory[alpha.argmax(axis=1), np.arange(len(alpha))]"),
                ("that is the last state, and padding for all streams but the longest", _READ, "memory[-1]"),
                ("that is the last real state: the fixed vector that attention replaces",
                 _READ, "memory[(alpha > 0).sum(axis=1) - 1, np.arange(len(alpha))]"),
                ("that is the first state", _READ, "memory[0]"),
                ("the weights sum to 1 already: do not divide by the number of positions", _READ, f"{_READ} / len(memory)"),
                ("alpha is a distribution already: no second softmax",
                 "alpha, memory)", "np.exp(alpha) / np.exp(alpha).sum(axis=1, keepdims=True), memory)"),
                ("each stream has its own weights: those are the first one's for all",
                 "alpha, memory)", "np.broadcast_to(alpha[0], alpha.shape), memory)"),
                ("the memory is time-major: reshape does not exchange its axes, transpose does",
                 "alpha, memory)", "alpha, memory.reshape(*alpha.shape, -1).transpose(1, 0, 2))"),
                ("alpha is (N, S): reshape does not exchange its axes, .T does",
                 "alpha, memory)", "alpha.reshape(alpha.T.shape).T, memory)"),
                ("the weighted states are added, not searched for the largest",
                 _READ, "(alpha.T[:, :, None] * memory).max(axis=0)"),
                ("the weighted states have to be added up over the positions", "->nm", "->snm"),
                ("the weights are reversed: alpha[:, 0] belongs to the first position",
                 "alpha, memory)", "alpha[:, ::-1], memory)"),
            ),
        ],
        arguments="alpha memory", outputs="context",
    ),
    "attention_backward": Exercise(
        "10.6",
        attention_backward,
        _for_backward,
        [
            *slips(
                _attention_backward,
                ("a weight grows at the cost of the others: subtract Σ_k α_k dα_k", _CENTRED, "dalpha"),
                ("subtract the mean weighted with α, not the plain one", "(alpha * dalpha).sum(", "dalpha.mean("),
                ("subtract the sum weighted with α", "(alpha * dalpha).sum(", "dalpha.sum("),
                ("the other weights change too: α_j (1 - α_j) is only the diagonal of the softmax's Jacobian",
                 _CENTRED, "dalpha * (1 - alpha)"),
                ("the sum belongs to one stream: over the positions, axis 1; axis 0 is the streams",
                 ".sum(axis=1", ".sum(axis=0"),
                ("the weighted mean is subtracted, not added", "dalpha - (", "dalpha + ("),
                ("α_j in front is missing: padding would get a gradient", f"alpha * {_CENTRED}", _CENTRED),
                ("α_j in front is that of the softmax, not its square", "alpha * (dalpha -", "alpha**2 * (dalpha -"),
                ("between the weights and the scores is the softmax: this is dα", f"alpha * {_CENTRED}", "dalpha"),
                ("dα_j = dcontext · m_j: the memory is missing", "dcontext, memory)", "dcontext, np.ones_like(memory))"),
                ("dα_j = dcontext · m_j is a sum over the entries, not their mean",
                 'np.einsum("nm,snm->ns", dcontext, memory)', "(dcontext * memory).mean(axis=2).T"),
                ("a state gets as much of dcontext as it was read: α_j dcontext; α is missing",
                 "alpha.T[:, :, None] * dcontext", "np.ones_like(memory) * dcontext"),
                ("the context reads a state with weight α_j: dm_j = α_j dcontext, not dα_j dcontext",
                 "alpha.T[:, :, None]", "dalpha.T[:, :, None]"),
                ("the context reads a state with weight α_j: dm_j = α_j dcontext, not dscore_j dcontext",
                 "alpha.T[:, :, None]", "dscores.T[:, :, None]"),
                ("dmemory is time-major as the memory, (S, N, M)",
                 "alpha.T[:, :, None] * dcontext", "alpha[:, :, None] * dcontext[:, None]"),
                ("dm_j comes from the gradient of the context: dm_j = α_j dcontext, not α_j m_j",
                 "alpha.T[:, :, None] * dcontext", "alpha.T[:, :, None] * memory"),
                ("nothing is divided by the number of positions",
                 "alpha.T[:, :, None] * dcontext", "alpha.T[:, :, None] * dcontext / len(memory)"),
                ("dscores comes first, then dmemory",
                 "return dscores, alpha.T[:, :, None] * dcontext", "return alpha.T[:, :, None] * dcontext, dscores"),
            ),
        ],
        arguments="dcontext alpha memory", outputs="dscores dmemory",
    ),
}  # fmt: skip
