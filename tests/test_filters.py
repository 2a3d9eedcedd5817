"""Filters against slow references, at their edges and at extreme settings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import assert_close, few

from course_lib import decoding, filters
from course_lib.filters import forbid, min_p, repetition_penalty, temperature, top_k, top_p

V = 7


def random_log_probs(seed, rows=3, dtype=np.float64, zeros=0):
    """Normalised log-probabilities of V tokens; ``zeros`` of them -inf in each row, one always possible."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(V, 0.7), rows) + 1e-4
    for row in probs:
        row[rng.choice(V, zeros, replace=False)] = 0
    with np.errstate(divide="ignore"):
        return np.log(probs / probs.sum(1, keepdims=True)).astype(dtype)


def kept_by_top_k(p, k):
    return sorted(range(V), key=lambda v: (-p[v], v))[:k]


def kept_by_top_p(p, limit):
    kept, total = [], 0.0
    for v in sorted(range(V), key=lambda v: (-p[v], v)):
        if total < limit:
            kept.append(v)
        total += p[v]
    return kept


def kept_by_min_p(p, share):
    return [v for v in range(V) if p[v] >= share * max(p)]


def renormalised(p, kept):
    total = sum(p[v] for v in kept)
    return [p[v] / total if v in kept else 0.0 for v in range(V)]


REFERENCES = {
    "temperature": (temperature, lambda p, t: [q ** (1 / t) / sum(r ** (1 / t) for r in p) for q in p], st.floats(0.1, 10)),
    "top_k": (top_k, lambda p, k: renormalised(p, kept_by_top_k(p, k)), st.integers(1, V + 2)),
    "top_p": (top_p, lambda p, limit: renormalised(p, kept_by_top_p(p, limit)), st.floats(1e-6, 1 - 1e-6)),
    "min_p": (min_p, lambda p, share: renormalised(p, kept_by_min_p(p, share)), st.floats(0, 1)),
    "forbid": (forbid, lambda p, tokens: renormalised(p, set(range(V)) - set(tokens)), st.sets(st.integers(0, 3)).map(list)),
}
every_filter = pytest.mark.parametrize("name", REFERENCES)


@every_filter
@given(st.data(), st.integers(0, 10**6), st.integers(0, 2))
def test_filters_against_slow_references(name, data, seed, zeros):
    make, reference, options = REFERENCES[name]
    option = data.draw(options)
    log_probs = random_log_probs(seed, zeros=0 if name == "forbid" else zeros)
    expected = np.array([reference(row.tolist(), option) for row in np.exp(log_probs)])
    assert_close(np.exp(make(option)(log_probs)), expected, 1e-9)


every_extreme = pytest.mark.parametrize(
    "apply",
    [
        *(temperature(t) for t in (5e-324, 1e-45, 1e-3, 1.0, 1e3, 1e308)),
        *(top_k(k) for k in (1, 3, V, 10**9)),
        *(top_p(p) for p in (5e-324, 1e-9, 0.5, 1 - 1e-16, 1)),
        *(min_p(p) for p in (0, 5e-324, 0.5, 1)),
        *(lambda log_probs, r=r: repetition_penalty(r)(log_probs, np.zeros((1, 3), int)) for r in (1, 1.3, 1e30)),
        forbid([]),
        forbid([0]),
    ],
)


@every_extreme
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("zeros", [0, 3])
def test_a_filter_returns_a_distribution_and_leaves_its_input_alone(apply, dtype, zeros):
    for seed in range(5):
        log_probs = random_log_probs(seed, dtype=dtype, zeros=zeros)
        log_probs[2] = np.where(np.arange(V) == 4, 0, -np.inf)  # certain
        kept = log_probs.copy()
        filtered = apply(log_probs)
        np.testing.assert_allclose(np.exp(filtered).sum(1), 1, rtol=1e-5 if dtype is np.float32 else 1e-12)
        assert not np.isfinite(filtered[~np.isfinite(log_probs)]).any()  # what was impossible stays so
        assert filtered.dtype == dtype
        np.testing.assert_array_equal(log_probs, kept)


def test_filters_that_change_nothing():
    log_probs = random_log_probs(1, zeros=1)
    for apply in (temperature(1), top_k(V), top_k(100), top_p(1), min_p(0), forbid([])):
        np.testing.assert_allclose(apply(log_probs), log_probs, rtol=1e-14)
    np.testing.assert_allclose(repetition_penalty(1)(log_probs, np.zeros((4, 3), int)), log_probs, rtol=1e-14)


def test_filters_at_the_edge():
    halves = np.log(np.array([[0.25, 0.5, 0.25]]))
    np.testing.assert_allclose(np.exp(top_p(0.5)(halves)), [[0, 1, 0]])
    np.testing.assert_allclose(np.exp(top_p(0.5 + 1e-9)(halves)), [[1 / 3, 2 / 3, 0]])  # of equals, the smaller number
    np.testing.assert_allclose(np.exp(top_k(2)(halves)), [[1 / 3, 2 / 3, 0]])
    np.testing.assert_allclose(np.exp(top_k(1)(halves[:, ::2])), [[1, 0]])
    np.testing.assert_allclose(np.exp(min_p(1)(halves[:, ::2])), [[0.5, 0.5]])
    np.testing.assert_allclose(np.exp(min_p(0.5 - 1e-9)(halves)), np.exp(halves))
    np.testing.assert_allclose(np.exp(min_p(0.5 + 1e-9)(halves)), [[0, 1, 0]])


def test_forbidding_everything_is_an_error_not_a_silence():
    with pytest.raises(ValueError) as caught:
        forbid([1])(top_k(1)(np.log(np.array([[0.2, 0.8], [0.6, 0.4]]))))
    assert str(caught.value) == "forbid: expected some other token that is possible, got [1]"


@few
@given(st.integers(0, 10**6), st.floats(1, 5), st.integers(1, 6))
def test_the_repetition_penalty_looks_at_each_streams_own_tokens(seed, r, length):
    log_probs, history = random_log_probs(seed), np.random.default_rng(seed).integers(0, V, (length, 3))
    expected = np.exp(log_probs)
    for n in range(3):
        for v in set(history[:, n].tolist()):
            expected[n, v] **= r  # r times the logarithm, once however often it was seen
        expected[n] /= expected[n].sum()
    assert_close(np.exp(repetition_penalty(r)(log_probs, history)), expected, 1e-12)


@pytest.mark.parametrize(
    ("make", "value", "message"),
    [
        (temperature, 0, "temperature: expected a positive number (greedy is its limit at 0), got 0"),
        (temperature, -1.5, "temperature: expected a positive number (greedy is its limit at 0), got -1.5"),
        (temperature, float("inf"), "temperature: expected a positive number (greedy is its limit at 0), got inf"),
        (temperature, float("nan"), "temperature: expected a positive number (greedy is its limit at 0), got nan"),
        (top_k, 0, "top_k: expected a whole number of at least 1, got 0"),
        (top_k, 2.5, "top_k: expected a whole number of at least 1, got 2.5"),
        (top_k, float("inf"), "top_k: expected a whole number of at least 1, got inf"),
        (top_k, float("nan"), "top_k: expected a whole number of at least 1, got nan"),
        (top_p, 0, "top_p: expected a number in (0, 1], got 0"),
        (top_p, 1.1, "top_p: expected a number in (0, 1], got 1.1"),
        (top_p, float("nan"), "top_p: expected a number in (0, 1], got nan"),
        (min_p, -0.1, "min_p: expected a number in [0, 1], got -0.1"),
        (min_p, 1.1, "min_p: expected a number in [0, 1], got 1.1"),
        (min_p, float("nan"), "min_p: expected a number in [0, 1], got nan"),
        (repetition_penalty, 0.9, "repetition_penalty: expected a number of at least 1, got 0.9"),
        (repetition_penalty, float("inf"), "repetition_penalty: expected a number of at least 1, got inf"),
    ],
)
def test_other_values_are_refused_at_once(make, value, message):
    with pytest.raises(ValueError) as caught:
        make(value)
    assert str(caught.value) == message


def test_the_filters_are_names_of_decoding_too():
    for name in ("Filter", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "forbid"):
        assert getattr(decoding, name) is getattr(filters, name)
        assert name in decoding.__all__
    assert all(hasattr(decoding, name) for name in decoding.__all__)
