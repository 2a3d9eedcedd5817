"""Counting models against a slow reference that keeps its counts in dictionaries, and against arithmetic."""

import itertools
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from course_lib import ngram
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer

SCHEMES = ("kneser_ney", "witten_bell")


def random_tokens(seed, length=400, vocab_size=5):
    """Tokens with structure: a Markov chain, in which the last id never occurs."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(vocab_size - 1, 0.4), size=vocab_size - 1)
    tokens = [0]
    for _ in range(length - 1):
        tokens.append(rng.choice(vocab_size - 1, p=table[tokens[-1]]))
    return np.array(tokens)


class Reference:
    """The docstring's formulas, word by word: probabilities from dictionaries of counts."""

    def __init__(self, tokens, order, vocab_size, smoothing):
        tokens = [int(t) for t in tokens]
        self.vocab_size, self.order, self.smoothing = vocab_size, order, smoothing
        grams = {k: [tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)] for k in range(1, order + 2)}
        self.counts = {k: Counter(grams[k]) for k in range(1, order + 1)}
        if smoothing == "kneser_ney":
            for k in range(1, order):
                before = defaultdict(set)
                for gram in grams[k + 1]:
                    before[gram[1:]].add(gram[0])
                self.counts[k] = Counter({gram: len(firsts) for gram, firsts in before.items()})
        self.discounts = {k: self.estimate(self.counts[k]) for k in self.counts}

    @staticmethod
    def estimate(counts):
        n = [sum(c == j for c in counts.values()) for j in range(5)]
        if 0 in n[1:]:
            return {1: 0.5, 2: 1.0, 3: 1.5}
        y = n[1] / (n[1] + 2 * n[2])
        return {j: min(max(j - (j + 1) * y * n[j + 1] / n[j], 0.05), j) for j in (1, 2, 3)}

    def probability(self, word, context):
        """p(word | context), where context is as long as the order allows."""
        if len(context) == 0:
            lower = 1 / self.vocab_size
        else:
            lower = self.probability(word, context[1:])
        k = len(context) + 1
        after = {w: self.counts[k][(*context, w)] for w in range(self.vocab_size)}
        after = {w: c for w, c in after.items() if c > 0}
        total = sum(after.values())
        if total == 0:
            return lower
        if self.smoothing == "witten_bell":
            return (after.get(word, 0) + len(after) * lower) / (total + len(after))
        discount = {w: self.discounts[k][min(c, 3)] for w, c in after.items()}
        kept = after[word] - discount[word] if word in after else 0
        return kept / total + sum(discount.values()) / total * lower


@pytest.mark.parametrize("smoothing", SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_log_probs_equal_the_reference(order, smoothing):
    train, other = random_tokens(1), random_tokens(2, length=60)
    other[[7, 30]] = 4  # a token that training never showed
    model = ngram.fit(train, order, 5, smoothing)
    reference = Reference(train, order, 5, smoothing)
    expected = [
        np.log(reference.probability(int(other[t]), tuple(other[max(0, t - order + 1) : t]))) for t in range(len(other))
    ]
    actual = ngram.log_probs(model, other)
    assert actual.shape == (60,)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert model.order == order


def test_the_discounts_are_estimated_on_a_large_text_and_fixed_on_a_tiny_one():
    long, tiny = random_tokens(3, 3000, 12), np.array([0, 1, 0, 2, 1])
    counts = ngram.fit(long, 3, 12).levels[-1]
    assert len(counts.keys) > 300
    reference = Reference(long, 3, 12, "kneser_ney")
    assert reference.discounts[3] != {1: 0.5, 2: 1.0, 3: 1.5}
    other = random_tokens(4, 50, 12)
    expected = [np.log(reference.probability(int(w), tuple(other[max(0, t - 2) : t]))) for t, w in enumerate(other)]
    np.testing.assert_allclose(ngram.log_probs(ngram.fit(long, 3, 12), other), expected, rtol=1e-12)
    assert np.isfinite(ngram.log_probs(ngram.fit(tiny, 5, 4), np.array([3, 3, 0, 1, 2]))).all()


@pytest.mark.parametrize("smoothing", SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one_in_every_context(order, smoothing):
    vocab_size = 5
    model = ngram.fit(random_tokens(5), order, vocab_size, smoothing)
    contexts = np.array(list(itertools.product(range(vocab_size), repeat=max(order - 1, 1))))
    state = ngram.initial_state(model, len(contexts))
    advance = ngram.step(model)
    for column in contexts.T:
        log_probs, state = advance(column, state)
        assert log_probs.shape == (len(contexts), vocab_size)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-12)
    for level in model.levels:
        assert (level.backoff > 0).all()


@pytest.mark.parametrize("smoothing", SCHEMES)
@pytest.mark.parametrize("order", [1, 2, 5])
def test_step_equals_log_probs(order, smoothing):
    model = ngram.fit(random_tokens(6), order, 5, smoothing)
    streams = np.stack([random_tokens(seed, 30) for seed in (7, 8, 9)], axis=1)  # (T, N)
    streams[10, 1] = 4
    state = ngram.initial_state(model, 3)
    advance = ngram.step(model)
    for t in range(29):
        before = state.copy()
        log_probs, after = advance(streams[t], state)
        np.testing.assert_array_equal(state, before)  # the caller's state is left alone
        for n in range(3):
            expected = ngram.log_probs(model, streams[: t + 2, n])[-1]
            np.testing.assert_allclose(log_probs[n, streams[t + 1, n]], expected, rtol=1e-12)
        state = after
    np.testing.assert_array_equal(state, streams[29 - order + 1 : 29].T)


def test_large_vocabularies_do_not_overflow():
    rng = np.random.default_rng(10)
    tokens = rng.integers(0, 100_000, 5000)  # 100,000 to the fifth is beyond 64 bits
    tokens[2500:] = tokens[:2500]
    model = ngram.fit(tokens[:4000], 5, 100_000)
    seen_again = ngram.log_probs(model, tokens[4000:])
    assert seen_again[5:].mean() > -3 > -np.log(100_000)
    _, counts = np.unique(tokens[:4000], return_counts=True)
    assert len(model.levels[0].keys) == len(counts)


def test_bad_arguments_are_named():
    tokens = random_tokens(11)
    with pytest.raises(ValueError, match="order: expected at least 1, got 0"):
        ngram.fit(tokens, 0, 5)
    with pytest.raises(ValueError, match="smoothing: expected"):
        ngram.fit(tokens, 2, 5, "laplace")
    with pytest.raises(ValueError, match=r"tokens: expected integers in \[0, 3\), got "):
        ngram.fit(tokens, 2, 3)
    with pytest.raises(ValueError, match="tokens: expected one row of integers"):
        ngram.fit(tokens.astype(float), 2, 5)
    with pytest.raises(CourseError, match="3 tokens are too few"):
        ngram.fit(tokens[:3], 4, 5)
    model = ngram.fit(tokens, 3, 5)
    with pytest.raises(ValueError, match=r"tokens: expected integers in \[0, 5\), got -1"):
        ngram.log_probs(model, np.array([0, -1]))
    with pytest.raises(ValueError, match=r"state: expected shape \(2, 2\), got \(1, 2\)"):
        ngram.step(model)(np.array([0, 1]), ngram.initial_state(model, 1))
    assert ngram.log_probs(model, np.zeros(0, int)).shape == (0,)


def shakespeare():
    folders = [os.environ.get("COURSE_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for folder in filter(None, folders):
        path = Path(folder) / "tiny_shakespeare" / "input.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    pytest.skip("tiny_shakespeare/input.txt is not here: set COURSE_DATA")


@pytest.mark.parametrize(("smoothing", "nats"), [("witten_bell", 1.669), ("kneser_ney", 1.562)])
def test_five_grams_of_shakespeare(smoothing, nats):
    """1.669 nats per character is the known figure of an interpolated 5-gram."""
    text = shakespeare()
    n = int(0.9 * len(text))
    tokenizer = CharTokenizer.from_text(text[:n])
    model = ngram.fit(tokenizer.encode(text[:n]), 5, tokenizer.size, smoothing)
    assert -ngram.log_probs(model, tokenizer.encode(text[n:])).mean() == pytest.approx(nats, abs=1e-3)
