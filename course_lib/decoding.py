"""Turn a step function into tokens: greedy decoding, sampling and beam search.

    step(token (N,), state) -> (log_probs (N, V), state)

Nothing here knows a model: a language model and the decoder of a Seq2Seq speak the same ``step``. A state is any nesting of
tuples of arrays with the stream on axis 0. ``stream``, ``greedy`` and ``sample`` pass it on and never look into it;
``beam_search``, whose beams are the streams of one call, picks rows on axis 0. The filters of ``filters`` are names here too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from course_lib.filters import Filter, forbid, min_p, repetition_penalty, require, temperature, top_k, top_p
from course_lib.trees import map_tree

__all__ = [
    "Filter",
    "Hypothesis",
    "Step",
    "as_numpy",
    "beam_search",
    "draw",
    "forbid",
    "greedy",
    "min_p",
    "repetition_penalty",
    "sample",
    "stream",
    "temperature",
    "top_k",
    "top_p",
]

Step = Callable[[np.ndarray, Any], tuple[Any, Any]]


def greedy(step: Step, state: Any, first: np.ndarray, length: int, end: int | None = None) -> np.ndarray:
    """Always take the most probable token (of equals, the one with the smallest number).

    Args:     step, state: see the module. first: (N,) tokens to start from. length: at least 1.
              end: the token that ends a stream; behind it a stream's tokens are ``end``. None: streams have no end.
    Returns:  tokens (length, N), without ``first``; fewer rows if every stream has ended by then.
    Raises:   ValueError: length below 1.
    """
    return _take(stream(step, state, first, lambda log_probs: log_probs.argmax(axis=1)), length, end)


def sample(
    step: Step,
    state: Any,
    first: np.ndarray,
    length: int,
    rng: np.random.Generator,
    filters: Sequence[Filter] = (),
    end: int | None = None,
) -> np.ndarray:
    """Draw each token from the model's distribution after the filters; same rng state, same tokens.

    Args:     step, state: see the module. first: (N,) tokens to start from. length: at least 1. filters: in order.
              end: the token that ends a stream; behind it a stream's tokens are ``end``. None: streams have no end.
    Returns:  tokens (length, N), without ``first``; fewer rows if every stream has ended by then.
    Raises:   ValueError: length below 1.
    """
    return _take(stream(step, state, first, lambda log_probs: draw(log_probs, rng), filters), length, end)


class Hypothesis(NamedTuple):
    """What beam search found: the tokens without ``first``, and how probable they are."""

    tokens: np.ndarray  # (T,) integers, the end token included if it came
    log_prob: float  # nats: the sum over the tokens
    score: float  # log_prob / T**length_penalty
    ended: bool  # by the end token, not for want of length


def beam_search(
    step: Step,
    state: Any,
    first: int | np.ndarray,
    length: int,
    width: int,
    end: int | None = None,
    length_penalty: float = 0.0,
    n_best: int | None = None,
) -> list[Hypothesis]:
    """Follow the ``width`` most probable beginnings at once; ``width`` 1 is greedy decoding.

    At each step every live beam is continued by every token, and the ``width`` most probable of all these continuations stay
    (of equals, that of the earlier beam, then of the smaller token). One that ends takes up its place and is set aside. The
    search is over at ``length`` tokens, or as soon as nothing that lives can still come among the ``n_best``: log_prob only
    falls, so a beam's score will be at most log_prob / length**length_penalty.

    Args:     step: see the module; it is called with a row for each live beam. state: of one stream, with one row on axis 0.
              first: one token to start from. length: at least 1. width: at least 1. end: the token that ends a hypothesis.
              length_penalty: 0 ranks by probability, which favours the short; 1 by the mean log-probability of a token.
              n_best: how many to return, 1 to width (the default).
    Returns:  at most n_best hypotheses, all different, the best score first (of equals, the one found earlier).
    Raises:   ValueError: naming the argument; for log_probs that are not logarithms of a distribution in each row.
    Reference: Graves 2012; score, Wu et al. 2016 without their constant.
    """
    n_best = width if n_best is None else n_best
    token = np.atleast_1d(np.asarray(first))
    require(length >= 1, "length", "at least 1", length)
    require(width >= 1, "width", "at least 1", width)
    require(1 <= n_best <= width, "n_best", f"1 to {width}, the width", n_best)
    require(token.shape == (1,), "first", "one token", first)
    require(0 <= length_penalty < float("inf"), "length_penalty", "a number of at least 0", length_penalty)

    def hypotheses(tokens: np.ndarray, totals: np.ndarray, ended: bool) -> list[Hypothesis]:
        scores = totals / tokens.shape[1] ** length_penalty
        return [Hypothesis(row, float(a), float(b), ended) for row, a, b in zip(tokens, totals, scores, strict=True)]

    tokens, totals = np.empty((1, 0), int), np.zeros(1)  # the live beams: (K, t), and their nats (K,)
    finished: list[Hypothesis] = []
    for _ in range(length):
        log_probs, state = step(token, state)
        grown = totals[:, None] + _distributions(log_probs, len(token))
        chosen = _largest(grown.ravel(), width)
        beam, token = np.divmod(chosen[grown.flat[chosen] > -np.inf], grown.shape[1])
        tokens, totals = np.column_stack([tokens[beam], token]), grown[beam, token]
        ends = np.full(len(token), False) if end is None else token == end
        finished = _best(finished + hypotheses(tokens[ends], totals[ends], True), n_best)
        beam, token, tokens, totals = beam[~ends], token[~ends], tokens[~ends], totals[~ends]
        bound = totals.max(initial=-np.inf) / length**length_penalty
        if not len(token) or (len(finished) == n_best and finished[-1].score >= bound):
            break
        state = _rows(state, beam)
    return _best(finished + hypotheses(tokens, totals, False), n_best)


def stream(
    step: Step,
    state: Any,
    first: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    filters: Sequence[Filter] = (),
) -> Generator[np.ndarray, np.ndarray | None, None]:
    """Yield tokens (N,) one after the other, for ever; each is fed back with the state the step returned.

    ``send(rows)`` in place of ``next`` goes on with these streams only: integers, or True for each that stays.
    A filter with ``needs_history`` is called with (log_probs, history): (t, N), ``first`` and all tokens chosen so far.
    """
    token = np.atleast_1d(np.asarray(first))
    remember = any(getattr(f, "needs_history", False) for f in filters)
    history = token[None]  # its first t rows are in use
    t = 1
    while True:
        log_probs, state = step(token, state)
        log_probs = as_numpy(log_probs)
        for f in filters:
            log_probs = f(log_probs, history[:t]) if getattr(f, "needs_history", False) else f(log_probs)
        token = choose(log_probs)
        if remember:
            if t == len(history):
                history = np.concatenate([history, np.zeros_like(history)])  # twice as long: copying costs O(1) a token
            history[t] = token
            t += 1
        rows = yield token
        if rows is not None:
            rows = np.arange(len(token))[rows]
            token, history, state = token[rows], history[:, rows], _rows(state, rows)


def draw(log_probs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One token for each row of (N, V), by inverting the cumulative distribution at a uniform number."""
    cumulative = np.exp(log_probs, dtype=np.float64).cumsum(axis=1)
    if not (cumulative[:, -1] > 0).all():
        raise ValueError("log_probs: expected a distribution in each row, got NaN or no token with a probability")
    points = rng.random((len(cumulative), 1)) * cumulative[:, -1:]  # in [0, total): never a token of probability 0
    return (cumulative <= points).sum(axis=1)


def as_numpy(array: Any) -> np.ndarray:
    """NumPy's view of an array or of a torch tensor on any device."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def _distributions(log_probs: Any, rows: int) -> np.ndarray:
    """Log-probabilities (rows, V) in float64, checked."""
    log_probs = as_numpy(log_probs).astype(np.float64)
    require(log_probs.ndim == 2 and len(log_probs) == rows, "log_probs", f"({rows}, V), a row for each beam", log_probs.shape)
    best = log_probs.max(axis=1)  # NaN if there is one; a little above 0 by rounding only
    possible = (best > -np.inf) & (best < 1e-6)
    require(possible.all(), "log_probs", "logarithms of a distribution in each row", f"rows whose largest are {best}")
    return log_probs


def _rows(state: Any, rows: np.ndarray) -> Any:
    """The chosen rows of every leaf: a list picks them from NumPy's arrays and from torch's tensors on any device."""
    return map_tree(lambda leaf: leaf[rows.tolist()], state)


def _largest(numbers: np.ndarray, count: int) -> np.ndarray:
    """Where the ``count`` largest are, the largest first; of equals, those that come first. Sorts no more than it must."""
    count = min(count, len(numbers))
    candidates = np.flatnonzero(numbers >= np.partition(numbers, -count)[-count])
    return candidates[np.argsort(-numbers[candidates], kind="stable")[:count]]


def _best(hypotheses: list[Hypothesis], count: int) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[:count]


def _take(tokens: Iterator[np.ndarray], length: int, end: int | None) -> np.ndarray:
    """The first ``length`` tokens of a stream, or until every stream has ended."""
    require(length >= 1, "length", "at least 1", length)
    taken: list[np.ndarray] = []
    for token in islice(tokens, length):
        taken.append(token if end is None or not taken else np.where(taken[-1] == end, end, token))
        if end is not None and (taken[-1] == end).all():
            break
    return np.array(taken)
