"""Counting language models: how often each token followed the last few, smoothed so that nothing is impossible.

An n-gram model of order n looks at the last n - 1 tokens. With c(...) counted in the training tokens, every order k
mixes what it has seen with what the next shorter context h' says:

    p_k(w | h) = direct(h w) + backoff(h) p_{k-1}(w | h')        p_0(w) = 1 / V

    witten_bell  direct = c(h w) / (c(h) + u(h))                 backoff = u(h) / (c(h) + u(h))
    kneser_ney   direct = (c(h w) - D(c(h w))) / c(h)            backoff = sum over w of D(c(h w)) / c(h)

u(h) is the number of different tokens seen after h. Below the top order, Kneser-Ney counts something else as c(h w):
the different tokens seen before h w, because a shorter context is asked only where the longer one knows nothing. Its
discount D takes three values, for counts of one, two, and three or more, estimated from the counts of counts.

Reference: Witten & Bell 1991; Kneser & Ney 1995; modified and interpolated as in Chen & Goodman 1999.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from course_lib.errors import CourseError

NOTHING = -1  # in a state: no token yet. As an index: never seen

Step = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Level(NamedTuple):
    """All grams of one length k. A gram's index is its place in ``keys``; its context is a gram of length k - 1.

    keys: (G_k,) int64, sorted: index of the context in the level below * V + last token; for k = 1 the context is 0.
    direct: (G_k,) the probability a gram gives its last token.
    backoff: (G_{k-1},) the probability each context leaves to the next shorter one.
    """

    keys: np.ndarray
    direct: np.ndarray
    backoff: np.ndarray


class NGram(NamedTuple):
    """A fitted model: levels 1 to order, over tokens in [0, vocab_size)."""

    vocab_size: int
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        """The longest gram; the model looks at order - 1 tokens."""
        return len(self.levels)


def fit(tokens: np.ndarray, order: int, vocab_size: int, smoothing: str = "kneser_ney") -> NGram:
    """Count the grams of a text, up to ``order`` tokens long, and smooth them.

    Args:     tokens: (T,) integers in [0, vocab_size). smoothing: "kneser_ney" or "witten_bell".
    Raises:   CourseError: fewer tokens than order. ValueError: naming the argument.
    """
    tokens = _check_tokens(tokens, vocab_size)
    if order < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    if smoothing not in ("kneser_ney", "witten_bell"):
        raise ValueError(f"smoothing: expected 'kneser_ney' or 'witten_bell', got {smoothing!r}")
    if len(tokens) < order:
        raise CourseError(f"{len(tokens)} tokens are too few to count grams of {order}; use a longer text")

    keys, counts, suffixes = [], [], []
    gram_at = np.zeros(len(tokens) + 1, dtype=np.int64)  # index of the (k-1)-gram that starts at each place
    for k in range(1, order + 1):
        key_at = gram_at[: len(tokens) - k + 1] * vocab_size + tokens[k - 1 :]
        unique, first, inverse, count = np.unique(key_at, return_index=True, return_inverse=True, return_counts=True)
        keys.append(unique)
        counts.append(count)
        suffixes.append(gram_at[first + 1])  # each gram without its first token, as an index into the level below
        gram_at = inverse
    if smoothing == "kneser_ney":
        for k in range(order - 1):
            counts[k] = np.bincount(suffixes[k + 1], minlength=len(keys[k]))

    sizes = [1, *map(len, keys)]
    levels = (_smooth(keys[k], counts[k], sizes[k], vocab_size, smoothing) for k in range(order))
    return NGram(vocab_size, tuple(levels))


def log_probs(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """The log-probability of each token given those before it, (T,) in nats; the first ones have shorter contexts.

    The mean of the negative is the loss in nats per token.

    Raises:   ValueError: tokens are no row of integers in [0, V).
    """
    tokens = _check_tokens(tokens, model.vocab_size)
    p = np.full(len(tokens), 1 / model.vocab_size)
    context = np.zeros(len(tokens), dtype=np.int64)  # the (k-1)-gram before each token, as an index
    for level in model.levels:
        gram = _find(level.keys, context, tokens, model.vocab_size)
        p = _mix(level, context, gram, p)
        context = np.concatenate([[NOTHING], gram[:-1]])  # what ends at t is the context of t + 1
    return np.log(p)


def initial_state(model: NGram, streams: int) -> np.ndarray:
    """The state before the first token, (N, order - 1): nothing seen."""
    return np.full((streams, model.order - 1), NOTHING)


def step(model: NGram) -> Step:
    """The model as ``decoding`` wants it: step(token (N,), state) -> (log_probs (N, V), state).

    A state is (N, order - 1): the last tokens, the newest in the last column. Start from ``initial_state``.
    """
    every_token = np.arange(model.vocab_size)

    def advance(token: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        token = _check_tokens(token, model.vocab_size)
        if np.shape(state) != (len(token), model.order - 1):
            raise ValueError(f"state: expected shape {(len(token), model.order - 1)}, got {np.shape(state)}")
        state = np.concatenate([state, token[:, None]], axis=1)[:, 1:]  # with order 1 nothing is kept
        p = np.full((len(token), model.vocab_size), 1 / model.vocab_size)
        for k, level in enumerate(model.levels):
            context = np.zeros(len(token), dtype=np.int64)
            for shorter, word in zip(model.levels, state[:, state.shape[1] - k :].T, strict=False):  # the last k tokens
                context = _find(shorter.keys, context, word, model.vocab_size)
            gram = _find(level.keys, context[:, None], every_token, model.vocab_size)
            p = _mix(level, context[:, None], gram, p)
        return np.log(p), state

    return advance


def _smooth(keys: np.ndarray, counts: np.ndarray, contexts: int, vocab_size: int, smoothing: str) -> Level:
    """Turn the counts of one level into probabilities."""
    context = keys // vocab_size
    total = np.bincount(context, weights=counts, minlength=contexts)  # c(h); 0 where the text ended
    if smoothing == "witten_bell":
        left_over = np.bincount(context, weights=counts > 0, minlength=contexts)  # u(h)
        whole, kept = total + left_over, counts
    else:
        discount = _discounts(counts)[np.minimum(counts, 3)]
        left_over = np.bincount(context, weights=discount, minlength=contexts)
        whole, kept = total, counts - discount
    backoff = np.divide(left_over, whole, out=np.ones(contexts), where=total > 0)
    direct = kept / np.maximum(whole, 1)[context]
    return Level(keys, direct, backoff)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What Kneser-Ney takes off a count of 0, 1, 2, and 3 or more (Chen & Goodman 1999, eq. 26)."""
    _, n1, n2, n3, n4 = (int(np.sum(counts == c)) for c in range(5))
    if min(n1, n2, n3, n4) == 0:  # too few grams to estimate from
        return np.array([0, 0.5, 1.0, 1.5])
    y = n1 / (n1 + 2 * n2)
    estimate = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    # Above 0, so that unseen tokens keep some probability; at most the count itself.
    return np.array([0, *(min(max(d, 0.05), c) for c, d in enumerate(estimate, 1))])


def _find(keys: np.ndarray, context: np.ndarray, token: np.ndarray, vocab_size: int) -> np.ndarray:
    """The index of the gram (context, token), or NOTHING; NOTHING in either is never found."""
    key = np.where((context >= 0) & (token >= 0), context * vocab_size + token, NOTHING)
    place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
    return np.where(keys[place] == key, place, NOTHING)


def _mix(level: Level, context: np.ndarray, gram: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """p_k from p_{k-1}; a context never seen leaves it as it is."""
    mixed = np.where(gram >= 0, level.direct[gram], 0) + level.backoff[context] * shorter
    return np.where(context >= 0, mixed, shorter)


def _check_tokens(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens: expected one row of integers, got shape {tokens.shape} of {tokens.dtype}")
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= vocab_size):
        low, high = tokens.min(), tokens.max()
        raise ValueError(f"tokens: expected integers in [0, {vocab_size}), got {low if low < 0 else high}")
    return tokens.astype(np.int64, copy=False)
