"""Nats, bits per character, perplexity: one quantity in three units, always weighted by tokens; counts of confusions; and texts
against their references: BLEU, token F1, exact match.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
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


class Bleu(NamedTuple):
    """How many n-grams of the hypotheses occur in the references, in percent: 100 is a copy.

    score = brevity_penalty * exp(mean of log precision_n, n = 1 to 4). precisions: in percent. signature: what sacrebleu
    counted and how; two scores are comparable if their signatures are the same.
    """

    score: float
    brevity_penalty: float
    precisions: tuple[float, float, float, float]
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> Bleu:
    """Corpus BLEU by sacrebleu, one reference each, its tokenizer "13a": give texts as people write them, not tokens.

    Counts are summed over all sentences before they are divided: the mean of the sentences' scores is a different number.

    Args:     lowercase: whether capitals count as small letters, in both.
    Raises:   ValueError: unequal numbers of sentences, or none.
    Reference: Papineni et al. 2002; Post 2018.
    """
    _check_texts("hypotheses", hypotheses, references)
    from sacrebleu.metrics import BLEU

    measure = BLEU(lowercase=lowercase, tokenize="13a")
    result = measure.corpus_score(list(hypotheses), [list(references)])
    return Bleu(result.score, result.bp, tuple(result.precisions), str(measure.get_signature()))


def token_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The mean over all texts of 2 m / (p + r): m tokens in common (as multisets), p predicted, r in the reference; in [0, 1].

    Tokens are what spaces separate; their order does not count. Two empty texts agree (1).

    Raises:   ValueError: unequal numbers of texts, or none.
    """
    _check_texts("predictions", predictions, references)
    total = 0.0
    for prediction, reference in zip(predictions, references, strict=True):
        p, r = Counter(prediction.split()), Counter(reference.split())
        tokens = p.total() + r.total()
        total += 2 * (p & r).total() / tokens if tokens else 1.0
    return total / len(references)


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The share of texts predicted to the letter, in [0, 1].

    Raises:   ValueError: unequal numbers of texts, or none.
    """
    _check_texts("predictions", predictions, references)
    return sum(p == r for p, r in zip(predictions, references, strict=True)) / len(references)


def _check_texts(name: str, texts: Sequence[str], references: Sequence[str]) -> None:
    for argument, value in ((name, texts), ("references", references)):
        if isinstance(value, str):
            raise ValueError(f"{argument}: expected a list of texts, got one text; put it in a list")
    if len(texts) != len(references):
        raise ValueError(f"{name}: expected {len(references)} texts, one for each reference, got {len(texts)}")
    if not len(texts):
        raise ValueError(f"{name}: expected at least one text, got none")
