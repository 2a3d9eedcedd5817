"""Decoding with known distributions: filters against slow references, frequencies against chi-square, states passed on."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import assert_close, few

from course_lib.decoding import (
    as_numpy,
    draw,
    forbid,
    greedy,
    min_p,
    repetition_penalty,
    sample,
    stream,
    temperature,
    top_k,
    top_p,
)

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


TABLE = random_log_probs(3, rows=V)  # row u: the distribution of what follows u


def markov(token, state):
    """A model that needs its last token only; its state counts the steps and remembers the tokens."""
    (count, (seen,)) = state
    return TABLE[token], (count + 1, (np.concatenate([seen, token[:, None]], axis=1),))


def start(N):
    return np.zeros((N, 1), int), (np.zeros((N, 0), int),)


def fits(observed, probs):
    """Pearson's statistic of the tokens expected five times or more is not absurd, and no impossible token occurs."""
    expected = observed.sum() * probs
    common = expected >= 5
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
    return observed[probs == 0].sum() == 0 and statistic < common.sum() + 5 * (2 * common.sum()) ** 0.5


FILTERS = [(), (temperature(0.6),), (top_k(3),), (top_p(0.8),), (min_p(0.2),), (temperature(2), top_k(4), top_p(0.9))]


@pytest.mark.parametrize("filters", FILTERS, ids=len)
def test_frequencies_fit_the_filtered_distribution(filters):
    N = 20_000
    first = np.random.default_rng(0).integers(0, V, N)
    tokens = sample(markov, start(N), first, 2, np.random.default_rng(1), filters)
    table = TABLE
    for apply in filters:
        table = apply(table)
    table = np.exp(table)
    for before, after in [(first, tokens[0]), (tokens[0], tokens[1])]:
        for u in range(V):
            assert fits(np.bincount(after[before == u], minlength=V), table[u])
    off = table[0] * np.linspace(0.9, 1.1, V)
    assert not fits(np.bincount(tokens[0][first == 0], minlength=V) * 20, off / off.sum())  # the test can fail


def test_the_penalty_shapes_what_is_sampled():
    first = np.arange(40_000) % V
    tokens = sample(markov, start(len(first)), first, 2, np.random.default_rng(1), [repetition_penalty(3)])
    pairs = [(u, v) for u in range(V) for v in range(V) if ((first == u) & (tokens[0] == v)).sum() > 500]
    assert len(pairs) > 2 * V
    for u, v in pairs:
        probs = np.exp(TABLE[v])
        probs[list({u, v})] **= 3
        assert fits(np.bincount(tokens[1][(first == u) & (tokens[0] == v)], minlength=V), probs / probs.sum())


def test_drawing_inverts_the_cumulative_distribution():
    class Points:
        def __init__(self, values):
            self.values = values

        def random(self, shape):
            return np.reshape(self.values, shape)

    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[0, 0.5, 0, 0.25, 0.25, 0]] * 6))
    points = [0, 0.25, 0.5, 0.7, 0.75, 1 - 2**-53]
    assert draw(log_probs, Points(points)).tolist() == [1, 1, 3, 3, 4, 4]
    near = [p + 1e-6 for p in points[:-1]] + points[-1:]  # now the probabilities are off by rounding
    assert draw(log_probs - 3, Points(near)).tolist() == [1, 1, 3, 3, 4, 4]
    assert draw(log_probs.astype(np.float32), Points(near)).tolist() == [1, 1, 3, 3, 4, 4]


def test_greedy_takes_the_best_and_feeds_it_back():
    first = np.array([0, 3, 6, 3])
    expected = [first]
    for _ in range(5):
        expected.append(np.array([max(range(V), key=lambda v, u=u: TABLE[u, v]) for u in expected[-1]]))
    tokens = greedy(markov, start(4), first, 5)
    assert tokens.shape == (5, 4)
    np.testing.assert_array_equal(tokens, expected[1:])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(sample(markov, start(4), first, 5, rng, [top_k(1)]), tokens)
    np.testing.assert_array_equal(sample(markov, start(4), first, 5, rng, [temperature(1e-300)]), tokens)


def test_of_equals_greedy_takes_the_smallest():
    def step(token, state):
        return np.log(np.array([[0.1, 0.3, 0.3, 0.3], [0.25] * 4])), state

    assert greedy(step, (), [0, 0], 2).tolist() == [[1, 0], [1, 0]]


def test_same_seed_same_tokens_and_streams_differ():
    def tokens(seed):
        return sample(markov, start(6), np.zeros(6, int), 30, np.random.default_rng(seed))

    np.testing.assert_array_equal(tokens(1), tokens(1))
    assert not np.array_equal(tokens(1), tokens(2))
    assert len({tuple(column) for column in tokens(1).T}) == 6


def test_states_and_tokens_go_round():
    calls = []

    def step(token, state):
        calls.append((token.copy(), state))
        return markov(token, state)

    first = np.array([4, 1])
    tokens = sample(step, start(2), first, 6, np.random.default_rng(0), [repetition_penalty(1.5)])
    assert len(calls) == 6  # none for a token that nobody asked for
    np.testing.assert_array_equal([token for token, _ in calls], [first, *tokens[:-1]])
    count, (seen,) = calls[-1][1]
    assert count.ravel().tolist() == [5, 5]
    np.testing.assert_array_equal(seen.T, [first, *tokens[:-2]])


def test_filters_come_in_order_and_those_that_ask_see_the_history():
    seen = []

    def plain(log_probs):
        seen.append("plain")
        return log_probs

    def historian(log_probs, history):
        seen.append(history.tolist())
        return log_probs

    historian.needs_history = True
    tokens = sample(markov, start(2), [5, 6], 3, np.random.default_rng(0), [plain, historian]).tolist()
    assert seen == ["plain", [[5, 6]], "plain", [[5, 6], tokens[0]], "plain", [[5, 6], *tokens[:2]]]
    order = sample(markov, start(2), [5, 6], 20, np.random.default_rng(0), [top_k(3), temperature(9), top_p(0.5)])
    other = sample(markov, start(2), [5, 6], 20, np.random.default_rng(0), [top_p(0.5), temperature(9), top_k(3)])
    assert not np.array_equal(order, other)


def test_torch_steps_and_one_stream_without_an_axis():
    def step(token, state):
        (h,) = state
        assert isinstance(h, torch.Tensor)
        return torch.tensor(TABLE[token], requires_grad=True), (h + 1,)

    state = (torch.zeros(1, 2),)
    for first in (3, [3], np.array([3])):
        np.testing.assert_array_equal(greedy(step, state, first, 4), greedy(markov, start(1), [3], 4))
    tokens = sample(step, state, 3, 9, np.random.default_rng(0), [temperature(0.9), repetition_penalty(1.2)])
    expected = sample(markov, start(1), [3], 9, np.random.default_rng(0), [temperature(0.9), repetition_penalty(1.2)])
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_array_equal(as_numpy([1, 2]), np.array([1, 2]))


def test_a_stream_has_no_end_of_its_own():
    tokens = list(islice(stream(markov, start(2), [0, 1], lambda log_probs: log_probs.argmin(axis=1)), 50))
    assert np.shape(tokens) == (50, 2)
    np.testing.assert_array_equal(tokens[0], TABLE[[0, 1]].argmin(axis=1))


@pytest.mark.parametrize("length", [0, -1])
def test_length_is_at_least_one(length):
    for decode in (
        lambda: greedy(markov, start(1), [0], length),
        lambda: sample(markov, start(1), [0], length, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError) as caught:
            decode()
        assert str(caught.value) == f"length: expected at least 1, got {length}"


@pytest.mark.parametrize("row", [[np.nan, -1.0], [-np.inf, -np.inf]])
def test_drawing_from_no_distribution_is_refused(row):
    with pytest.raises(ValueError, match="log_probs: expected a distribution in each row, got NaN or no token"):
        draw(np.array([[-0.7, -0.7], row]), np.random.default_rng(0))
