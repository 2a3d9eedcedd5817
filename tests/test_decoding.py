"""Decoding with known distributions: frequencies against chi-square, states passed on, beam search against its definition.

The laws of beam search are functions of the module under test and a seed: they must hold for ``decoding``, and each planted
bug at the end must break one.
"""

# ruff: noqa: E501  (one bug, one line)

import functools
import types
from itertools import islice, product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from library_mutants import FOLDER, Mutant, mutated
from problems import few

from course_lib import decoding, language_model
from course_lib.decoding import (
    as_numpy,
    beam_search,
    draw,
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

TABLE = np.log(np.random.default_rng(3).dirichlet(np.full(V, 0.7), V) + 1e-4)
TABLE -= np.log(np.exp(TABLE).sum(1, keepdims=True))  # row u: the distribution of what follows u


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


# Beam search: models, and what it is by definition


class Model:
    """A model that is a function ``log_probs(prefix)`` of all it has read; its state is what each beam has read."""

    def __init__(self, log_probs, first=0):
        self.log_probs, self.first, self.calls = functools.cache(log_probs), first, []

    def state(self):
        return np.zeros((1, 0), int), (torch.zeros(1, 1, 0), np.zeros(1))

    def step(self, token, state):
        read, (other, count) = state
        read, count = np.column_stack([read, token]), count + 1
        other = torch.cat([other, torch.tensor(token)[:, None, None]], dim=2)
        self.calls.append(read)
        assert read.tolist() == other[:, 0].tolist()  # the rows of every leaf go together
        assert count.tolist() == [read.shape[1]] * len(read)
        return np.array([self.log_probs(tuple(row)) for row in read.tolist()]), (read, (other, count))


class Case(NamedTuple):
    model: Model
    V: int
    length: int
    width: int
    end: int | None
    length_penalty: float
    n_best: int | None

    def search(self, module, **changes):
        arguments = {name: changes.get(name, getattr(self, name)) for name in self._fields[2:]}
        return module.beam_search(self.model.step, self.model.state(), self.model.first, **arguments)


def random_case(seed):
    """Smooth, sharp, and coarse distributions: these have ties and impossible tokens."""
    rng = np.random.default_rng(seed)
    V, kind = int(rng.integers(2, 6)), seed % 3
    end = None if seed % 4 == 0 else int(rng.integers(V))

    def log_probs(prefix):
        own = np.random.default_rng([seed, *prefix])
        weights = own.multinomial(6, np.full(V, 1 / V)) if kind == 2 else own.dirichlet(np.full(V, [2.0, 0.4][kind])) + 1e-9
        with np.errstate(divide="ignore"):
            return np.log(weights / weights.sum())

    width = int(rng.integers(1, 7))
    n_best = None if seed % 5 == 0 else int(rng.integers(1, width + 1))
    penalty = float(rng.choice([0, 0.6, 1, 2]))
    return Case(Model(log_probs, int(rng.integers(V))), V, int(rng.integers(1, 6)), width, end, penalty, n_best)


def ranked(kept, case, n_best):
    """The best of [(tokens, log_prob, ended)], of equals the earlier, as Hypotheses with lists of tokens."""
    scored = [(tokens, nats, nats / len(tokens) ** case.length_penalty, ended) for tokens, nats, ended in kept]
    return sorted(scored, key=lambda hypothesis: -hypothesis[2])[:n_best]


def by_definition(case):
    """Beam search without states, arrays or an early stop: a beam is (tokens, nats); also the live beams at each step."""
    live, kept, lives = [([], 0.0)], [], []
    for _ in range(case.length):
        lives.append([tokens for tokens, _ in live])
        grown = []
        for tokens, nats in live:
            row = case.model.log_probs((case.model.first, *tokens))
            grown += [([*tokens, v], nats + row[v]) for v in range(case.V) if row[v] > -np.inf]
        grown = sorted(grown, key=lambda beam: -beam[1])[: case.width]
        kept += [(tokens, nats, True) for tokens, nats in grown if tokens[-1] == case.end]
        live = [(tokens, nats) for tokens, nats in grown if tokens[-1] != case.end]
    kept += [(tokens, nats, False) for tokens, nats in live]
    return ranked(kept, case, case.n_best or case.width), lives


def assert_same(found, expected):
    assert [(h.tokens.tolist(), h.ended) for h in found] == [(tokens, ended) for tokens, _, _, ended in expected]
    np.testing.assert_allclose([h[1:3] for h in found], [h[1:3] for h in expected], rtol=1e-13)


# Laws of (module, seed)


def beam_search_is_its_definition(module, seed):
    """Also: the early stop changes nothing, since the definition has none."""
    case = random_case(seed)
    assert_same(case.search(module), by_definition(case)[0])


def width_one_is_greedy(module, seed):
    case = random_case(seed)
    (found,) = case.search(module, width=1, n_best=1)
    tokens = module.greedy(case.model.step, case.model.state(), case.model.first, case.length, case.end)
    assert found.tokens.tolist() == tokens[:, 0].tolist()


def a_width_for_all_is_exhaustive_search(module, seed):
    """Only then must the best hypothesis be at least as probable as the greedy one: see the garden below."""
    case = random_case(seed)
    V, length = min(case.V, 4), min(case.length, 3)
    rows = case.model.log_probs

    def log_probs(prefix):  # of the first V tokens
        row = rows(prefix)[:V] + 1e-3 * np.random.default_rng([*prefix]).random(V)  # no ties
        return row - np.log(np.exp(row).sum()) if row.max() > -np.inf else np.full(V, -np.log(V))

    end = None if case.end is None else case.end % V
    case = case._replace(model=Model(log_probs, case.model.first), V=V, length=length, width=V**length, end=end, n_best=None)
    possible = {}
    for tokens in product(range(V), repeat=length):
        tokens = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        nats = sum(log_probs((case.model.first, *tokens[:t]))[v] for t, v in enumerate(tokens))
        if nats > -np.inf:
            possible[tokens] = (list(tokens), nats, tokens[-1] == end)
    everything = ranked(possible.values(), case, None)
    assert_same(case.search(module), everything)
    assert_same(case.search(module, n_best=1), everything[:1])
    tokens = module.greedy(case.model.step, case.model.state(), case.model.first, length, end)[:, 0].tolist()
    assert case.search(module, n_best=1, length_penalty=0.0)[0].log_prob >= possible[tuple(tokens)][1]


def a_hypothesis_is_what_it_says(module, seed):
    """Its tokens, fed to the model alone, have its log_prob; and the list is sorted, without doubles, of n_best at most."""
    case = random_case(seed)
    found = case.search(module)
    assert 1 <= len(found) <= (case.n_best or case.width)
    for h in found:
        state, token, nats = case.model.state(), case.model.first, 0.0
        for following in h.tokens.tolist():
            log_probs, state = case.model.step(np.array([token]), state)
            nats, token = nats + log_probs[0, following], following
        assert h.log_prob == pytest.approx(nats, rel=1e-13)
        assert np.isfinite(h.log_prob)
        assert h.score == pytest.approx(nats / len(h.tokens) ** case.length_penalty, rel=1e-13)
        assert h.ended == (token == case.end)
        assert case.end not in h.tokens[:-1]
        assert len(h.tokens) == case.length or h.ended
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert len({tuple(h.tokens) for h in found}) == len(found)


def rows_of_the_state_follow_their_beams(module, seed):
    """What the step has read in each row is ``first`` and that beam's tokens, at every call."""
    case = random_case(seed)
    case.search(module)
    lives = by_definition(case)[1]
    assert 1 <= len(case.model.calls) <= case.length
    for read, live in zip(case.model.calls, lives, strict=False):
        assert read.tolist() == [[case.model.first, *tokens] for tokens in live]


def streams_end_each_for_itself(module, seed):
    """With an end, greedy decoding and sampling give the same tokens, cut; the last stream that ends ends the decoding."""
    rng = np.random.default_rng(seed)
    N, length, end = int(rng.integers(1, 5)), int(rng.integers(1, 20)), int(rng.integers(V))
    first = rng.integers(0, V, N)  # may be the end itself: that stream has not written it yet
    decoders = [
        module.greedy,
        lambda *arguments, **end: module.sample(*arguments, np.random.default_rng(seed), [temperature(0.8)], **end),
    ]
    for decode in decoders:
        calls = []

        def step(token, state, calls=calls):
            calls.append(token)
            return markov(token, state)

        columns = decode(markov, start(N), first, length).T.tolist()
        columns = [column[: column.index(end) + 1] if end in column else column for column in columns]
        longest = max(map(len, columns))
        tokens = decode(step, start(N), first, length, end=end)
        assert tokens.T.tolist() == [column + [end] * (longest - len(column)) for column in columns]
        assert tokens.dtype.kind == "i"
        assert len(calls) == longest


LAWS = [
    beam_search_is_its_definition,
    width_one_is_greedy,
    a_width_for_all_is_exhaustive_search,
    a_hypothesis_is_what_it_says,
    rows_of_the_state_follow_their_beams,
    streams_end_each_for_itself,
]
FIXED = range(60)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@few
@given(seed=st.integers(0, 10**6))
def test_on_any_case(law, seed):
    law(decoding, seed)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_on_fixed_cases(law):
    for seed in FIXED:
        law(decoding, seed)


# Models of the library


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("end", [None, 5])
def test_a_language_model_in_numpy(cell, end):
    params = language_model.init(9, 4, 6, 2, cell, seed=1, dtype=np.float64)
    params = params._replace(W_out=8 * params.W_out)
    step, state = language_model.make_step(params), language_model.initial_state(params, 1)

    def log_probs(prefix):
        logits, _, _ = language_model.forward(params, np.array(prefix)[:, None], state)
        return logits[-1, 0] - np.log(np.exp(logits[-1, 0]).sum())

    for first in range(9):
        found = beam_search(step, state, first, 6, 4, end, 0.7)
        expected, _ = by_definition(Case(Model(log_probs, first), 9, 6, 4, end, 0.7, None))
        assert [h.tokens.tolist() for h in found] == [tokens for tokens, *_ in expected]
        np.testing.assert_allclose([h[1:3] for h in found], [h[1:3] for h in expected], rtol=1e-10)
        (one,) = beam_search(step, state, first, 6, 1, end)
        assert one.tokens.tolist() == greedy(step, state, first, 6, end)[:, 0].tolist()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tensors_as_the_state(device):
    torch.manual_seed(0)
    table, cell, out = torch.nn.Embedding(9, 4), torch.nn.LSTMCell(4, 6), torch.nn.Linear(6, 9)
    for module in (table, cell, out):
        module.to(device=device, dtype=torch.float64)

    def step(token, state):
        x = table(torch.as_tensor(token, device=device))
        state = cell(x, state)
        return torch.log_softmax(9 * out(state[0]), dim=1), state

    def log_probs(prefix):
        state = zeros
        for token in prefix:
            row, state = step(np.array([token]), state)
        return as_numpy(row)[0]

    zeros = (torch.zeros(1, 6, device=device, dtype=torch.float64),) * 2
    for first in range(9):
        found = beam_search(step, zeros, np.array([first]), 6, 4, 2, 0.7)
        expected, _ = by_definition(Case(Model(log_probs, first), 9, 6, 4, 2, 0.7, None))
        assert [h.tokens.tolist() for h in found] == [tokens for tokens, *_ in expected]
        np.testing.assert_allclose([h[1:3] for h in found], [h[1:3] for h in expected], rtol=1e-10)
        (one,) = beam_search(step, zeros, first, 6, 1, 2)
        assert one.tokens.tolist() == greedy(step, zeros, first, 6, 2)[:, 0].tolist()


def test_a_float32_model_is_summed_in_float64():
    row = np.log(np.float32([[0.3, 0.7]]))
    (found,) = beam_search(lambda token, state: (row, state), (), 0, 1000, 1)
    assert found.log_prob == pytest.approx(1000 * float(row[0, 1]), rel=1e-12)
    assert type(found.log_prob) is type(found.score) is float
    assert type(found.ended) is bool


# What a beam sees and greedy decoding does not, and the other way round


def words(table):
    """A model of words: {word: {next word: probability}}; the first word is <bos>. Returns it and a reader of its tokens."""
    names = list(dict.fromkeys([*table, *(word for row in table.values() for word in row), "<eos>"]))
    P = np.array([[table.get(word, {"<eos>": 1}).get(after, 0) for after in names] for word in names])
    with np.errstate(divide="ignore"):
        log_P = np.log(P)
    return Model(lambda prefix: log_P[prefix[-1]]), names.index("<eos>"), lambda tokens: " ".join(names[v] for v in tokens)


def where_greedy_loses():
    """Lesson 10's counterexample: behind the more probable first word there is no probable second one."""
    return words(
        {"<bos>": {"a": 0.55, "the": 0.45}, "a": {"cat": 0.4, "dog": 0.35, "bird": 0.25}, "the": {"cat": 0.9, "dog": 0.1}}
    )


def where_a_beam_of_two_loses():
    """The greedy path is the best one, and a beam of 2 drops it: two beginnings look better, and then scatter."""
    after = {f"<{end}>": 0.25 for end in "1234"}
    return words(
        {
            "<bos>": {"a": 0.55, "b": 0.45},
            "a": {"x": 0.34, "y": 0.33, "z": 0.33},
            "b": {"u": 0.5, "v": 0.5},
            "u": after,
            "v": after,
        }
    )


def test_greedy_decoding_can_miss_the_most_probable_sentence():
    model, end, text = where_greedy_loses()
    tokens = greedy(model.step, model.state(), 0, 3, end)[:, 0]
    best, second = beam_search(model.step, model.state(), 0, 3, 2, end)
    assert (text(tokens), text(best.tokens), text(second.tokens)) == ("a cat <eos>", "the cat <eos>", "a cat <eos>")
    np.testing.assert_allclose(np.exp([best.log_prob, second.log_prob]), [0.45 * 0.9, 0.55 * 0.4])


def test_a_wider_beam_can_find_worse():
    model, end, text = where_a_beam_of_two_loses()
    one, two, three = (beam_search(model.step, model.state(), 0, 3, width, end)[0] for width in (1, 2, 3))
    assert text(one.tokens) == text(three.tokens) == "a x <eos>"
    np.testing.assert_allclose(np.exp([one.log_prob, two.log_prob]), [0.55 * 0.34, 0.45 * 0.5 * 0.25])


def test_it_stops_as_soon_as_nothing_can_change():
    row = np.log(np.array([0.9, 0.06, 0.04]))
    cases = [(0, 3, 1, 1), (0, 3, 2, 2), (0, 1, 1, 1), (1, 3, 1, 8)]  # 8: the first with 8 log 0.06 / 200 < log 0.9
    for penalty, width, n_best, calls in cases:
        model = Model(lambda prefix: row)
        found = beam_search(model.step, model.state(), 1, 200, width, 0, penalty, n_best)
        assert len(model.calls) == calls
        assert found[0].tokens.tolist() == [0]


def test_fewer_than_asked_where_no_more_are_possible():
    model, end, _ = where_greedy_loses()
    assert len(beam_search(model.step, model.state(), 0, 9, 20, end)) == 5
    assert [h.ended for h in beam_search(model.step, model.state(), 0, 2, 20, end)] == [False] * 5


# Mistakes of the caller


def failing(**changes):
    arguments = {"step": markov, "state": start(1), "first": [0], "length": 3, "width": 2} | changes
    with pytest.raises(ValueError) as caught:
        beam_search(**arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length: expected at least 1, got 0"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"n_best": 3}, "n_best: expected 1 to 2, the width, got 3"),
        ({"n_best": 0}, "n_best: expected 1 to 2, the width, got 0"),
        ({"first": [1, 2]}, "first: expected one token, got [1, 2]"),
        ({"first": []}, "first: expected one token, got []"),
        ({"first": [[1]]}, "first: expected one token, got [[1]]"),
        ({"length_penalty": -0.1}, "length_penalty: expected a number of at least 0, got -0.1"),
        ({"length_penalty": float("nan")}, "length_penalty: expected a number of at least 0, got nan"),
        ({"length_penalty": float("inf")}, "length_penalty: expected a number of at least 0, got inf"),
    ],
)
def test_arguments_are_checked(changes, message):
    assert failing(**changes) == message


@pytest.mark.parametrize(
    "row",
    [[np.nan, -1, -1], [-np.inf] * 3, [1.5, -1, 0.2]],
    ids=["NaN", "nothing possible", "logits"],
)
def test_log_probs_are_checked(row):
    assert failing(step=lambda token, state: (np.array([row]), state)).startswith(
        "log_probs: expected logarithms of a distribution in each row, got rows whose largest are ["
    )


def test_a_row_for_each_beam():
    state = start(3)
    expected = "log_probs: expected (1, V), a row for each beam, got (3, 7)"
    assert failing(step=lambda token, state: (TABLE[:3], state), state=state) == expected
    assert failing(step=lambda token, state: (TABLE[0], state)) == expected.replace("(3, 7)", "(7,)")


# Planted bugs

KEPT = "finished + hypotheses(tokens[ends], totals[ends], True)"
LIVES_ON = "beam[~ends], token[~ends], tokens[~ends], totals[~ends]"
BOUND = "totals.max(initial=-np.inf)"
BUGS = {
    "_best": [
        ("the worst hypothesis first", "-hypothesis.score", "hypothesis.score"),
        ("ranked by log_prob", "-hypothesis.score", "-hypothesis.log_prob"),
        ("not sorted", "sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)", "hypotheses"),
        ("all are returned", "[:count]", ""),
    ],
    "_rows": [
        ("states not reordered", "rows.tolist()", "[k % len(leaf) for k in range(len(rows))]"),
        ("every beam has the state of the best", "rows.tolist()", "[0] * len(rows)"),
    ],
    "_largest": [
        ("the least probable continuations", "-numbers[candidates]", "numbers[candidates]"),
        ("of equals the last", "-count])", "-count])[::-1]"),
        ("one too few", "[:count]", "[: max(1, count - 1)]"),
    ],
    "_distributions": [
        ("probabilities summed", "return log_probs", "return np.where(log_probs == -np.inf, log_probs, np.exp(log_probs))"),
        ("single precision", "np.float64", "np.float32"),
    ],
    "_take": [
        ("never stops", "(taken[-1] == end).all()", "False"),
        ("stops with the first stream", ".all()", ".any()"),
        ("goes on behind the end", "np.where(taken[-1] == end, end, token)", "token"),
        ("the end itself is not returned", "            break", "            return np.array(taken[:-1])"),
    ],
    "beam_search": [
        ("finished hypotheses dropped", KEPT, "finished"),
        ("finished hypotheses of earlier steps dropped", KEPT, KEPT.removeprefix("finished + ")),
        ("finished hypotheses continued", LIVES_ON, "beam, token, tokens, totals"),
        ("only finished hypotheses returned", "finished + hypotheses(tokens, totals, False)", "finished or hypotheses(tokens, totals, False)"),
        ("those cut off count as ended", "tokens, totals, False", "tokens, totals, True"),
        ("scores not normalised", "totals / tokens.shape[1] ** length_penalty", "totals / 1"),
        ("scores always per token", "totals / tokens.shape[1] ** length_penalty", "totals / tokens.shape[1]"),
        ("scores times the length", "totals / tokens.shape[1] **", "totals * tokens.shape[1] **"),
        ("first counts in the length", "tokens.shape[1] **", "(tokens.shape[1] + 1) **"),
        ("the end token does not count in the length", "tokens.shape[1] **", "max(1, tokens.shape[1] - ended) **"),
        ("log_prob of the end left out", "totals[ends]", "(totals - as_numpy(log_probs)[beam, token])[ends]"),
        ("the end token left out", "hypotheses(tokens[ends]", "hypotheses(tokens[ends][:, :-1]"),
        ("log_prob of the last token only", "totals[:, None] +", "0 * totals[:, None] +"),
        ("the width for each beam", "_largest(grown.ravel(), width)", "np.concatenate([k * grown.shape[1] + _largest(row, width) for k, row in enumerate(grown)])"),
        ("the width shared out equally", "_largest(grown.ravel(), width)", "np.concatenate([k * grown.shape[1] + _largest(row, -(-width // len(grown))) for k, row in enumerate(grown)])"),
        ("one continuation of each beam", "_largest(grown.ravel(), width)", "_largest(grown.ravel(), width) if len(grown) == 1 else np.arange(len(grown)) * grown.shape[1] + grown.argmax(axis=1)"),
        ("a finished one takes its place for ever", "_largest(grown.ravel(), width)", "_largest(grown.ravel(), max(1, width - len(finished)))"),
        ("a finished one takes no place", "_largest(grown.ravel(), width)", "_largest(grown.ravel(), width + len(finished))"),
        ("state reset at each step", "log_probs, state = step", "log_probs, _ = step"),
        ("tokens do not follow their beams", "tokens[beam]", "tokens[np.arange(len(beam)) % len(tokens)]"),
        ("the first token read again and again", "step(token, state)", "step(0 * token, state)"),
        ("impossible tokens enter", "chosen[grown.flat[chosen] > -np.inf]", "chosen"),
        ("one step too many", "range(length)", "range(length + 1)"),
        ("one step too few", "range(length)", "range(max(1, length - 1))"),
        ("n_best ignored", "tokens, totals, False), n_best", "tokens, totals, False), width"),
        ("stops at n_best finished", " and finished[-1].score >= bound", ""),
        ("stops at the first finished", "(len(finished) == n_best and finished[-1].score >= bound)", "finished"),
        ("stops when the best finished is good enough", "finished[-1].score", "finished[0].score"),
        ("stops with too few", "len(finished) == n_best", "finished"),
        ("bound of the worst beam", BOUND, "totals.min(initial=0)"),
        ("bound not normalised", f"{BOUND} / length**length_penalty", BOUND),
        ("bound at the present length", f"{BOUND} / length**", f"{BOUND} / tokens.shape[1] **"),
    ],
}  # fmt: skip
MUTANTS = [Mutant("decoding", place, *bug) for place, bugs in BUGS.items() for bug in bugs]


def broken_law(source):
    """The name of a law that the source breaks on the fixed cases, or None; errors that are no wrong result are raised."""
    module = types.ModuleType("mutant of decoding")
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    for law in LAWS:
        for seed in FIXED:
            try:
                law(module, seed)
            except (AssertionError, ValueError, IndexError, KeyError, RuntimeWarning):
                return law.__name__
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.place}: {mutant.bug}")
def test_a_planted_bug_breaks_a_law(mutant):
    assert broken_law(mutated(mutant))


def test_without_a_bug_no_law_is_broken():
    assert len({mutant.name for mutant in MUTANTS}) == len({mutated(mutant) for mutant in MUTANTS}) == len(MUTANTS) > 30
    assert broken_law((FOLDER / "decoding.py").read_text(encoding="utf-8")) is None
