"""Tell texts apart by the character n-grams they hold: naive Bayes, and logistic regression on counts.

    log p(y | text) = log softmax(b + Σ_g n_g(text) W_g)_y

n_g(text) counts the gram g, any run of one to ``order`` characters, in "^text$": the marks show where a name begins and ends.
Both models have this form. Naive Bayes counts its weights, W_gy = log p(g | y), as if grams came independently of each other;
logistic regression chooses the weights that make the training labels likeliest, less a penalty ½ λ ‖W‖².

Reference: Cavnar & Trenkle 1994 (n-grams and languages); Ng & Jordan 2001 (the two models as a pair).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from course_lib.layers import log_softmax
from course_lib.optim import adam_, adam_init
from course_lib.shapes import check_tokens

BEGIN, END = "^", "$"


class Weights(NamedTuple):
    W: np.ndarray  # (G, C), a row for each gram
    b: np.ndarray  # (C,)


class NGramClassifier(NamedTuple):
    """A fitted model: the row of each gram that training showed, at most ``order`` characters long, and the weights."""

    rows: dict[str, int]
    order: int
    weights: Weights


class Counts(NamedTuple):
    """The grams of N texts behind each other. row: (M,) of each gram. text: (M,) the place of its text. size: N."""

    row: np.ndarray
    text: np.ndarray
    size: int


def grams(text: str, order: int) -> list[str]:
    """Every run of 1 to ``order`` characters of "^text$".

    >>> grams("ab", 2)
    ['^', 'a', 'b', '$', '^a', 'ab', 'b$']
    """
    marked = BEGIN + text + END
    return [marked[i : i + k] for k in range(1, order + 1) for i in range(len(marked) - k + 1)]


def count(texts: Sequence[str], rows: dict[str, int], order: int) -> Counts:
    """The grams of each text; one that ``rows`` lacks is left out."""
    found = [[rows[gram] for gram in grams(text, order) if gram in rows] for text in texts]
    lengths = [len(row) for row in found]
    return Counts(
        np.array(list(chain.from_iterable(found)), dtype=np.int64), np.repeat(np.arange(len(texts)), lengths), len(texts)
    )


def logits(weights: Weights, counts: Counts) -> np.ndarray:
    """b + Σ_g n_g W_g, (N, C)."""
    return weights.b + np.stack([np.bincount(counts.text, column[counts.row], counts.size) for column in weights.W.T], axis=1)


def loss_and_grads(weights: Weights, counts: Counts, labels: np.ndarray, l2: float) -> tuple[float, Weights]:
    """The mean of -log p(label) in nats a text, plus ½ λ ‖W‖² / N; and its gradients.

    Args:     counts: of N texts. labels: (N,) integers in [0, C). l2: λ.
    """
    log_probs = log_softmax(logits(weights, counts))
    chosen = np.arange(counts.size), labels
    loss = (0.5 * l2 * np.vdot(weights.W, weights.W) - log_probs[chosen].sum()) / counts.size
    da = np.exp(log_probs)
    da[chosen] -= 1
    dW = np.stack([np.bincount(counts.row, column[counts.text], len(weights.W)) for column in da.T], axis=1)
    return float(loss), Weights((dW + l2 * weights.W) / counts.size, da.mean(0))


def logistic(
    texts: Sequence[str], labels: np.ndarray, classes: int, order: int = 4, l2: float = 1.0, steps: int = 100
) -> NGramClassifier:
    """Fit by ``steps`` steps of Adam over all texts at once; the problem is convex, so where it starts does not matter.

    Args:     texts: N. labels: (N,) integers in [0, classes). order: the longest gram. l2: λ, the strength of the penalty.
    Raises:   ValueError: no texts, or labels that do not fit.
    """
    rows, counts, labels = _prepare(texts, labels, classes, order)
    weights = Weights(np.zeros((len(rows), classes)), np.zeros(classes))
    state = adam_init(weights)
    for step in range(steps):
        _, grads = loss_and_grads(weights, counts, labels, l2)
        state = adam_(weights, grads, state, lr=0.2 * (1 - step / steps), betas=(0.9, 0.99))
    return NGramClassifier(rows, order, weights)


def naive_bayes(
    texts: Sequence[str], labels: np.ndarray, classes: int, order: int = 4, smoothing: float = 0.3
) -> NGramClassifier:
    """Count: p(g | y) = (n_gy + s) / (Σ_g n_gy + s G), G grams in all; p(y) is the share of the class.

    Args:     as ``logistic``. smoothing: s, added to every count.
    """
    rows, counts, labels = _prepare(texts, labels, classes, order)
    cells = counts.row * classes + labels[counts.text]
    n = np.bincount(cells, minlength=len(rows) * classes).reshape(len(rows), classes) + smoothing
    prior = (np.bincount(labels, minlength=classes) + smoothing) / (len(labels) + smoothing * classes)
    return NGramClassifier(rows, order, Weights(np.log(n / n.sum(0)), np.log(prior)))


def log_probs(model: NGramClassifier, texts: Sequence[str]) -> np.ndarray:
    """log p(class | text), (N, C)."""
    return log_softmax(logits(model.weights, count(texts, model.rows, model.order)))


def _prepare(texts: Sequence[str], labels: np.ndarray, classes: int, order: int) -> tuple[dict[str, int], Counts, np.ndarray]:
    """The row of each gram, the counts, the labels as an array; all checked."""
    labels = np.asarray(labels)
    if not len(texts):
        raise ValueError("texts: expected at least one, got none")
    if labels.shape != (len(texts),):
        raise ValueError(f"labels: expected shape ({len(texts)},), a label for each text, got {labels.shape}")
    check_tokens("labels", labels, classes)
    if order < 1:
        raise ValueError(f"order: expected at least 1, got {order}")
    seen = Counter(gram for text in texts for gram in grams(text, order))
    rows = {gram: row for row, gram in enumerate(sorted(seen))}
    return rows, count(texts, rows, order), labels
