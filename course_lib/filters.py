"""Filters: they shape the distribution of the next token before it is drawn.

A filter maps log-probabilities (N, V) to log-probabilities that again sum to 1; ``decoding.sample`` applies filters in the
order given. The usual order is forbid (and the ``constraints``), repetition_penalty, temperature, top_k, top_p, min_p: rule
out, penalise, sharpen, then cut. Temperature and top_k may change places, and so may top_k and min_p. No other two of the last
five may: a sharper distribution needs fewer tokens for top_p, and min_p and the penalty see other probabilities behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Filter = Callable[..., np.ndarray]


def temperature(t: float) -> Filter:
    """p ∝ p^(1/t): below 1 sharpens, above 1 flattens, 1 changes nothing.

    Raises:   ValueError: t not positive (for t → 0, use greedy).
    """
    require(0 < t < float("inf"), "temperature", "a positive number (greedy is its limit at 0)", t)

    def sharpen(log_probs: np.ndarray) -> np.ndarray:
        below_best = log_probs - log_probs.max(axis=1, keepdims=True)  # before dividing: the best stays finite at any t
        with np.errstate(over="ignore"):
            return _normalised((below_best / np.float64(t)).astype(log_probs.dtype))

    return sharpen


def top_k(k: int) -> Filter:
    """Keep the k most probable tokens; of equals at the edge, those with the smallest numbers.

    Raises:   ValueError: k below 1.
    """
    require(k >= 1 and k % 1 == 0, "top_k", "a whole number of at least 1", k)

    def keep(log_probs: np.ndarray) -> np.ndarray:
        if k >= log_probs.shape[1]:
            return log_probs
        best = np.argsort(-log_probs, axis=1, kind="stable")[:, : int(k)]
        kept = np.full_like(log_probs, -np.inf)
        np.put_along_axis(kept, best, np.take_along_axis(log_probs, best, axis=1), axis=1)
        return _normalised(kept)

    return keep


def top_p(p: float) -> Filter:
    """Keep the smallest set of most probable tokens whose probabilities sum to at least p (nucleus); never none.

    Raises:   ValueError: p outside (0, 1].
    Reference: Holtzman et al. 2020.
    """
    require(0 < p <= 1, "top_p", "a number in (0, 1]", p)

    def keep(log_probs: np.ndarray) -> np.ndarray:
        if p == 1:
            return log_probs
        order = np.argsort(-log_probs, axis=1, kind="stable")
        ordered = np.take_along_axis(log_probs, order, axis=1)
        before = np.exp(ordered, dtype=np.float64).cumsum(axis=1) - np.exp(ordered, dtype=np.float64)
        kept = np.empty_like(log_probs)
        np.put_along_axis(kept, order, np.where(before < p, ordered, -np.inf), axis=1)
        return _normalised(kept)

    return keep


def min_p(p: float) -> Filter:
    """Keep the tokens at least p times as probable as the most probable one: strict when the model is sure, lax when not.

    Raises:   ValueError: p outside [0, 1].
    Reference: Nguyen et al. 2024.
    """
    require(0 <= p <= 1, "min_p", "a number in [0, 1]", p)
    threshold = np.log(p) if p > 0 else -np.inf

    def keep(log_probs: np.ndarray) -> np.ndarray:
        best = log_probs.max(axis=1, keepdims=True)
        return _normalised(np.where(log_probs >= best + threshold, log_probs, -np.inf))

    return keep


def repetition_penalty(r: float) -> Filter:
    """Multiply the log-probability of every token seen so far in its stream by r: 1 changes nothing, above 1 discourages.

    Raises:   ValueError: r below 1.
    Reference: Keskar et al. 2019, applied to log-probabilities, which are never positive.
    """
    require(1 <= r < float("inf"), "repetition_penalty", "a number of at least 1", r)

    def penalise(log_probs: np.ndarray, history: np.ndarray) -> np.ndarray:
        seen = np.zeros(log_probs.shape, bool)
        seen[np.arange(log_probs.shape[0]), history] = True  # history: (tokens so far, N)
        return _normalised(np.where(seen, log_probs * r, log_probs))

    penalise.needs_history = True
    return penalise


def forbid(tokens: Sequence[int]) -> Filter:
    """Give the listed tokens probability 0: the unknown token, padding, whatever must not be written.

    Raises:   ValueError: when used, if no other token is possible (forbid first, cut afterwards).
    """

    def keep(log_probs: np.ndarray) -> np.ndarray:
        kept = log_probs.copy()
        kept[:, list(tokens)] = -np.inf
        require((kept.max(axis=1) > -np.inf).all(), "forbid", "some other token that is possible", list(tokens))
        return _normalised(kept)

    return keep


def _normalised(log_probs: np.ndarray) -> np.ndarray:
    """Shift each row so that its probabilities sum to 1; -inf stays -inf."""
    best = log_probs.max(axis=1, keepdims=True)
    return log_probs - best - np.log(np.exp(log_probs - best).sum(axis=1, keepdims=True))


def require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got}")
