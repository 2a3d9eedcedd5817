"""Character n-gram classifiers: counts, gradients, and both models against slower ones."""

from collections import Counter

import numpy as np
import pytest

from course_lib import ngram_classifier as ng
from course_lib.gradcheck import gradient_check

TEXTS = ["banane", "ananas", "kiwi", "nan", "wikinger", "b", "an", "ab ana"]
LABELS = np.array([0, 1, 2, 1, 2, 0, 0, 1])


def slow_grams(text, order):
    marked = "^" + text + "$"
    return Counter(marked[i:j] for i in range(len(marked)) for j in range(i + 1, len(marked) + 1) if j - i <= order)


def slow_logits(model, text):
    total = model.weights.b.copy()
    for gram, count in slow_grams(text, model.order).items():
        if gram in model.rows:
            total += count * model.weights.W[model.rows[gram]]
    return total


def softmax(a):
    e = np.exp(a - a.max())
    return e / e.sum()


@pytest.fixture
def problem():
    rng = np.random.default_rng(4)
    rows = {gram: k for k, gram in enumerate(sorted(set().union(*(slow_grams(t, 3) for t in TEXTS))))}
    weights = ng.Weights(rng.normal(0, 0.7, (len(rows), 3)), rng.normal(0, 0.7, 3))
    return ng.NGramClassifier(rows, 3, weights), ng.count(TEXTS, rows, 3)


@pytest.mark.parametrize("order", [1, 2, 4, 9])
def test_grams(order):
    for text in [*TEXTS, ""]:
        assert Counter(ng.grams(text, order)) == slow_grams(text, order)


def test_log_probs(problem):
    model, _ = problem
    texts = [*TEXTS, "xyz", "nax"]  # grams that training never showed count nothing
    expected = [np.log(softmax(slow_logits(model, text))) for text in texts]
    np.testing.assert_allclose(ng.log_probs(model, texts), expected, atol=1e-12)


@pytest.mark.parametrize("l2", [0.0, 2.5])
def test_loss_and_gradients(problem, l2):
    model, counts = problem
    loss, grads = ng.loss_and_grads(model.weights, counts, LABELS, l2)
    nats = -sum(np.log(softmax(slow_logits(model, t))[y]) for t, y in zip(TEXTS, LABELS, strict=True))
    assert loss == pytest.approx((nats + l2 / 2 * (model.weights.W**2).sum()) / len(TEXTS), rel=1e-12)

    def f(W, b):
        return ng.loss_and_grads(ng.Weights(W, b), counts, LABELS, l2)[0]

    assert gradient_check(f, list(model.weights), list(grads)) < 1e-7


def test_logistic_finds_the_optimum():
    model = ng.logistic(TEXTS, LABELS, 3, order=3, l2=0.5, steps=300)
    counts = ng.count(TEXTS, model.rows, 3)
    loss, grads = ng.loss_and_grads(model.weights, counts, LABELS, 0.5)
    assert max(np.abs(g).max() for g in grads) < 2e-3
    rng = np.random.default_rng(0)
    for scale in (0.05, 0.5):  # convex: every other place is higher
        other = ng.Weights(*(w + rng.normal(0, scale, w.shape) for w in model.weights))
        assert ng.loss_and_grads(other, counts, LABELS, 0.5)[0] > loss
    assert (ng.log_probs(model, TEXTS).argmax(1) == LABELS).all()


def test_a_stronger_penalty_makes_smaller_weights():
    norms = [np.abs(ng.logistic(TEXTS, LABELS, 3, 2, l2, 60).weights.W).sum() for l2 in (0.1, 1, 10)]
    assert norms == sorted(norms, reverse=True)


def test_naive_bayes_counts():
    model = ng.naive_bayes(TEXTS, LABELS, 4, order=2, smoothing=0.7)  # class 3 never occurs
    counts = [sum((slow_grams(t, 2) for t, y in zip(TEXTS, LABELS, strict=True) if y == c), Counter()) for c in range(4)]
    assert np.exp(model.weights.b).sum() == pytest.approx(1)
    for text in [*TEXTS, "nab"]:
        joint = []
        for c in range(4):
            whole = sum(counts[c].values()) + 0.7 * len(model.rows)
            log_p = np.log((np.sum(LABELS == c) + 0.7) / (len(LABELS) + 4 * 0.7))
            for gram, n in slow_grams(text, 2).items():
                log_p += n * np.log((counts[c][gram] + 0.7) / whole) if gram in model.rows else 0
            joint.append(log_p)
        np.testing.assert_allclose(ng.log_probs(model, [text])[0], np.log(softmax(np.array(joint))), atol=1e-10)


@pytest.mark.parametrize("fit", [ng.logistic, ng.naive_bayes])
def test_arguments_that_cannot_be(fit):
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        fit([], np.zeros(0, int), 3)
    with pytest.raises(ValueError, match=r"labels: expected shape \(8,\), a label for each text, got \(7,\)"):
        fit(TEXTS, LABELS[1:], 3)
    with pytest.raises(ValueError, match=r"labels: expected tokens in \[0, 2\), got 2"):
        fit(TEXTS, LABELS, 2)
    with pytest.raises(ValueError, match="labels: expected integer tokens, got dtype float64"):
        fit(TEXTS, LABELS * 1.0, 3)
    with pytest.raises(ValueError, match="order: expected at least 1, got 0"):
        fit(TEXTS, LABELS, 3, order=0)
