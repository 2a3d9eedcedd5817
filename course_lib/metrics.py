"""Nats, bits per character, perplexity: one quantity in three units, always weighted by tokens; and counts of confusions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from course_lib.shapes import ShapeError, check_tokens


class Score(NamedTuple):
    """How well a model predicts a text, per token: in nats, in bits, as e^nats; and the number of tokens measured."""

    nats: float
    bits_per_character: float
    perplexity: float
    tokens: int


def bits_per_character(nats: float) -> float:
    """Nats per character / ln 2. (Of a word model, divide its total nats by the characters of the text, not by its words.)"""
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """e^nats: the number of equally likely tokens that would be as surprising. Infinite when it exceeds the largest float."""
    return math.inf if nats > 709 else math.exp(nats)


def score(total_nats: float, tokens: int) -> Score:
    """The score of a text from its total nats and its number of predicted tokens.

    Raises:   ValueError: no tokens.
    """
    if tokens < 1:
        raise ValueError(f"tokens: expected at least 1, got {tokens}")
    nats = total_nats / tokens
    return Score(nats, bits_per_character(nats), perplexity(nats), tokens)


def pooled(parts: Iterable[tuple[float, int]]) -> Score:
    """The score of several texts together, from (nats per token, tokens) of each: a long text counts for more than a short one.

    The mean of means is a different number, and perplexities must not be averaged at all: average nats, then exponentiate.
    """
    parts = list(parts)
    return score(sum(nats * tokens for nats, tokens in parts), sum(tokens for _, tokens in parts))


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was taken for each other.

    Args:     labels, predicted: (N,) integers in [0, classes).
    Returns:  (classes, classes) counts: the row is the true class, the column the predicted one.
    Raises:   ShapeError, ValueError: naming the argument.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ShapeError(f"predicted: expected shape {labels.shape} as labels, one axis, got {predicted.shape}")
    check_tokens("labels", labels, classes)
    check_tokens("predicted", predicted, classes)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts
