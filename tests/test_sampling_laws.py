"""The laws of sampling, for random models and a shipped one; each planted bug at the end breaks one of them.

A law is a function of the library (the modules filters, decoding, constraints, writing) and a seed, so that it can be held
against copies with a bug in one of them.
"""

# ruff: noqa: E501, RUF001  (one bug, one line; characters that look alike)

import itertools
import re
import sys
import types
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from library_mutants import FOLDER, Mutant, mutated
from test_filters import kept_by_min_p, kept_by_top_k, kept_by_top_p, renormalised

import course_lib
from course_lib import checkpoint, constraints, decoding, filters, language_model, writing
from course_lib.text import CharTokenizer
from course_lib.trees import leaves, map_tree

MODULES = ("filters", "decoding", "constraints", "writing")  # each imports from those before it
LIBRARY = types.SimpleNamespace(filters=filters, decoding=decoding, constraints=constraints, writing=writing)
LETTERS = "abc\n"


# Models and distributions


@cache
def tiny_model(cell="lstm", layers=2, letters=LETTERS, seed=0):
    """A language model in float64 whose distributions are far from uniform and depend on what came before."""
    tokenizer = CharTokenizer.from_text(letters)
    params = language_model.init(tokenizer.size, 4, 7, layers, cell, seed, dtype=np.float64)
    params = map_tree(lambda leaf: 2 * leaf, params)
    return checkpoint.Checkpoint(params._replace(W_out=2 * params.W_out), tokenizer, {}, {}, {})


@cache
def shakespeare():
    """The shipped model, in float64: a batch and a single stream then agree to 1e-13."""
    model = checkpoint.load("shakespeare")
    return model._replace(params=map_tree(lambda leaf: leaf.astype(np.float64), model.params))


def refed(model, text):
    """The log-probabilities of what follows a text, all of it read anew from a state of zeros; (V,)."""
    tokens = model.tokenizer.encode(text)
    logits, _, _ = language_model.forward(
        model.params, tokens[tokens > 0][:, None], language_model.initial_state(model.params, 1)
    )
    return logits[-1, 0] - np.logaddexp.reduce(logits[-1, 0])


def distributions(seed, dtype=np.float64):
    """Adversarial rows of log-probabilities, (N, V): ties, certainty, impossible tokens, huge differences, random ones."""
    rng = np.random.default_rng(seed)
    V = int(rng.integers(2, 9))
    logits = [
        np.zeros(V),  # all equal
        np.where(np.arange(V) == rng.integers(V), 0, -np.inf),  # certain
        np.where(np.arange(V) == rng.integers(V), 0, -1e30),  # nearly
        rng.integers(0, 2, V).astype(float),  # ties
        rng.normal(0, 1, V),
        rng.normal(0, 30, V),
        rng.normal(0, 1e4, V),
        1e6 + rng.normal(0, 1, V),
    ]
    some = rng.normal(0, 2, V)
    some[rng.choice(V, V - 1, replace=False)[: V // 2]] = -np.inf  # one at least stays possible
    logits = np.array([*logits, some], np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(dtype)


def random_filters(lib, rng, V):
    """Some filters in some order, with settings from mild to extreme."""
    make = lib.filters
    choices = [
        lambda: make.temperature(float(10 ** rng.uniform(-4, 3))),
        lambda: make.top_k(int(rng.integers(1, V + 3))),
        lambda: make.top_p(float(rng.choice([1e-12, 0.3, 0.9, 1 - 1e-12, 1]))),
        lambda: make.min_p(float(rng.choice([0, 1e-9, 0.2, 1 - 1e-12, 1]))),
        lambda: make.repetition_penalty(float(rng.choice([1, 1.2, 50]))),
    ]
    return [choices[int(i)]() for i in rng.integers(0, len(choices), rng.integers(1, 6))]


def through(chain, log_probs, history=None):
    for apply in chain:
        log_probs = apply(log_probs, history) if getattr(apply, "needs_history", False) else apply(log_probs)
    return log_probs


def p_value(observed, probs):
    """How often counts at least so far from the expected ones come by chance: Pearson's chi-square, rare tokens put together."""
    assert observed[probs == 0].sum() == 0, "an impossible token was drawn"
    expected = observed.sum() * probs
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    half = torch.tensor([(len(expected) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*half))


# Laws of filters


def a_filter_is_its_definition(lib, seed):
    V, rng = 7, np.random.default_rng(seed)  # the references of test_filters have 7 tokens
    rows = rng.dirichlet(np.full(V, 0.7), 3) + 1e-4
    rows[0] = rng.multinomial(9, np.full(V, 1 / V)) + 1.0  # ties
    rows /= rows.sum(axis=1, keepdims=True)
    t, k, p, m, r = (
        rng.uniform(0.2, 4),
        int(rng.integers(1, V + 2)),
        rng.uniform(0.01, 0.99),
        rng.uniform(0, 1),
        rng.uniform(1, 3),
    )
    history = rng.integers(0, V, (4, 3))
    out, seen = rng.choice(V, 2, replace=False).tolist(), [set(column.tolist()) for column in history.T]
    make = lib.filters
    cases = [
        (make.temperature(t), lambda row, n: (row ** (1 / t) / (row ** (1 / t)).sum()).tolist()),
        (make.top_k(k), lambda row, n: renormalised(row, kept_by_top_k(row, k))),
        (make.top_p(p), lambda row, n: renormalised(row, kept_by_top_p(row, p))),
        (make.min_p(m), lambda row, n: renormalised(row, kept_by_min_p(row, m))),
        (make.forbid(out), lambda row, n: renormalised(row, set(range(V)) - set(out))),
        (lib.constraints.allow(out), lambda row, n: renormalised(row, set(out))),
        (
            make.repetition_penalty(r),
            lambda row, n: renormalised([q**r if v in seen[n] else q for v, q in enumerate(row)], range(V)),
        ),
    ]
    for apply, reference in cases:
        log_probs = np.log(rows)
        found = np.exp(through([apply], log_probs, history))
        np.testing.assert_allclose(found, [reference(row, n) for n, row in enumerate(rows)], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(log_probs, np.log(rows))  # the argument is left alone
    np.testing.assert_allclose(np.exp(make.top_p(0.5)(np.log([[0.25, 0.5, 0.25]]))), [[0, 1, 0]])  # p is reached: no more


def filters_never_empty_the_set(lib, seed):
    rng = np.random.default_rng(seed)
    for dtype in (np.float64, np.float32):
        log_probs = distributions(seed, dtype)
        N, V = log_probs.shape
        for _ in range(4):
            kept = log_probs.copy()
            history = rng.integers(0, V, (int(rng.integers(1, 9)), N))
            found = through(random_filters(lib, rng, V), log_probs, history)
            np.testing.assert_array_equal(log_probs, kept)  # the argument is left alone
            assert found.dtype == dtype
            assert not np.isnan(found).any()
            np.testing.assert_allclose(np.exp(found.astype(float)).sum(axis=1), 1, rtol=1e-5 if dtype is np.float32 else 1e-9)
            assert not np.isfinite(found[~np.isfinite(log_probs)]).any()  # what was impossible stays so


def settings_that_change_nothing(lib, seed):
    make, log_probs = lib.filters, distributions(seed)
    N, V = log_probs.shape
    history = np.random.default_rng(seed).integers(0, V, (3, N))
    for apply in (
        make.temperature(1),
        make.top_k(V),
        make.top_k(V + 5),
        make.top_p(1),
        make.min_p(0),
        make.repetition_penalty(1),
    ):
        np.testing.assert_allclose(through([apply], log_probs, history), log_probs, rtol=1e-12, atol=1e-12)


def the_best_token_stays_the_best(lib, seed):
    """Neither temperature nor a cut changes which token is the most probable; and top-k 1 leaves no other."""
    rng, log_probs = np.random.default_rng(seed), distributions(seed)
    V = log_probs.shape[1]
    best = log_probs.max(axis=1, keepdims=True)
    make = lib.filters
    settings = [
        make.temperature(rng.uniform(0.1, 5)),
        make.top_k(int(rng.integers(1, V + 1))),
        make.top_p(rng.uniform(0.01, 1)),
        make.min_p(rng.uniform(0, 1)),
    ]
    found = through([settings[i] for i in rng.permutation(4)], log_probs)
    assert (np.take_along_axis(log_probs, found.argmax(axis=1)[:, None], axis=1) == best).all()
    alone = make.top_k(1)(log_probs)
    assert (alone.argmax(axis=1) == log_probs.argmax(axis=1)).all()
    assert ((alone > -np.inf).sum(axis=1) == 1).all()


# Which filters may change places, and which may not: (one, other) -> whether they commute on every distribution
ORDERS = {
    ("temperature", "top_k"): True,  # a temperature keeps the ranks
    ("top_k", "min_p"): True,  # both keep those at the top; each ratio to the best stays
    ("forbid", "temperature"): True,
    ("allow", "temperature"): True,
    ("temperature", "top_p"): False,  # a sharpened distribution needs fewer tokens for p
    ("temperature", "min_p"): False,  # (q / best)^(1/t) against q / best
    ("top_k", "top_p"): False,  # after the cut, fewer tokens make up p
    ("top_p", "min_p"): False,
    ("repetition_penalty", "temperature"): False,  # the penalty is a power of a probability that sums to 1 with the others
    ("repetition_penalty", "top_k"): False,
    ("allow", "top_k"): False,  # first among those allowed, or among all
}


def orders_of_filters(lib, seed):
    rng = np.random.default_rng(seed)
    log_probs = np.log(rng.dirichlet(np.full(9, 0.8), 40) + 1e-3)
    log_probs -= np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    history = np.argsort(-log_probs, axis=1)[:, :2].T  # the penalty hits the best two
    make = lib.filters
    made = {
        "temperature": make.temperature(rng.uniform(0.4, 0.7)), "top_k": make.top_k(4), "top_p": make.top_p(0.7),
        "min_p": make.min_p(0.25), "repetition_penalty": make.repetition_penalty(1.7), "forbid": make.forbid([2, 5]),
        "allow": lib.constraints.allow([1, 2, 3, 4, 5, 6]),
    }  # fmt: skip
    for (one, other), commute in ORDERS.items():
        ab = np.exp(through([made[one], made[other]], log_probs, history))
        ba = (
            np.exp(through([made[other], made[one]], log_probs, history))
            if other != "top_k" or one != "allow"
            else ab_of_cut(made, log_probs)
        )
        same = np.allclose(ab, ba, rtol=1e-9, atol=1e-12)
        assert same == commute, (one, other)
        if commute:
            np.testing.assert_array_equal(ab > 0, ba > 0)


def ab_of_cut(made, log_probs):
    """top_k, then allow: an error where nothing allowed is left, otherwise another distribution."""
    found = np.zeros(log_probs.shape)
    for n, row in enumerate(log_probs):
        try:
            found[n] = np.exp(made["allow"](made["top_k"](row[None])))[0]
        except ValueError as error:
            assert "allow first, cut afterwards" in str(error)
    return found


# Laws of decoding


def markov(seed, V=6):
    """A model that looks at the last two tokens; (step, state of N streams)."""
    table = np.log(np.random.default_rng(seed).dirichlet(np.full(V, 0.8), (V, V)) + 1e-3)
    table -= np.logaddexp.reduce(table, axis=-1, keepdims=True)

    def step(token, state):
        (before,) = state
        return table[before, token], (np.asarray(token),)

    return step, lambda N: (np.arange(N) % V,)


def top_k_one_is_greedy(lib, seed):
    step, start = markov(seed)
    first, make = np.arange(5), lib.filters
    expected = lib.decoding.greedy(step, start(5), first, 12)
    for chain in ([], [make.temperature(3)], [make.top_p(0.9), make.min_p(0.1)]):
        found = lib.decoding.sample(step, start(5), first, 12, np.random.default_rng(seed), [*chain, make.top_k(1)])
        np.testing.assert_array_equal(found, expected)


def a_batch_of_streams_is_single_streams(lib, seed):
    """With a generator a stream, in one batch from which streams are dropped while it writes; the penalty looks back."""
    step, start = markov(seed)
    rng, N = np.random.default_rng(seed), 6
    first, ends = rng.integers(0, 6, N), rng.integers(1, 15, N)
    chain = [lib.filters.repetition_penalty(1.6), lib.filters.temperature(0.9)]

    def choose(numbers):
        return lambda log_probs: lib.decoding.draw(log_probs, lib.writing.Each(numbers))

    generators = [np.random.default_rng([seed, n]) for n in range(N)]
    alive, found = np.arange(N), [[] for _ in range(N)]
    streams = lib.decoding.stream(
        step, start(N), first, lambda log_probs: choose([generators[n] for n in alive])(log_probs), chain
    )
    keep = None
    while alive.size:
        for n, token in zip(alive, streams.send(keep), strict=True):
            found[n].append(int(token))
        keep = np.array([len(found[n]) < ends[n] for n in alive])
        alive = alive[keep]
    for n in range(N):
        state = tuple(leaf[n : n + 1] for leaf in start(N))
        own = lib.decoding.stream(step, state, first[n : n + 1], choose([np.random.default_rng([seed, n])]), chain)
        assert found[n] == [int(next(own)[0]) for _ in range(ends[n])]


def draws_have_the_frequencies_of_the_distribution(lib, seed):
    probs = np.random.default_rng(seed).dirichlet(np.full(5, 1.0))
    tokens = lib.decoding.draw(np.tile(np.log(probs), (3000, 1)), np.random.default_rng(seed))
    assert p_value(np.bincount(tokens, minlength=5), probs) > 1e-6  # 28 seeds, and copies with bugs: what is wrong is far off


def filters_see_the_whole_history(lib, seed):
    step, start = markov(seed)
    seen = []

    def historian(log_probs, history):
        seen.append(history.tolist())
        return log_probs

    historian.needs_history = True
    tokens = lib.decoding.sample(step, start(2), [3, 1], 40, np.random.default_rng(seed), [historian]).tolist()
    assert seen == [[[3, 1], *tokens[:t]] for t in range(40)]


# Laws of constraints


def allowed_characters(lib, seed):
    tokenizer = CharTokenizer.from_text(LETTERS)
    row = np.random.default_rng(seed).dirichlet(np.ones(5))
    some = str(np.random.default_rng(seed).permutation([*LETTERS])[0])
    found = np.exp(lib.constraints.allow(f"b{some}狐", tokenizer)(np.log(row)[None]))[0]
    kept = [v > 0 and tokenizer.characters[v - 1] in f"b{some}" for v in range(5)]
    np.testing.assert_allclose(found, np.where(kept, row, 0) / row[kept].sum(), rtol=1e-12)


PATTERNS = [
    "abc", "a*", "(?:ab)+", "a{2,3}", "[ab]*c", "[^a]+", ".*", "(?s).*", "a.b?", "ab|ac|b", "(?:a|b\n)*", "(a|b)c\\1", "(?=ab)[abc]{3}",
    "(?!ab)[ab]{2,}", "[abc]{2}(?<=b)", "(?i)A+B", "a?b?c?", "(?P<x>a|b)(?P=x)", "\\w\\n\\w", "[a-b]\\b\\n?", "(?:a(?:b|c)){1,2}", "(?m)(?:^a$\n)+", "",
    "a++", "[\\nb]{1,2}a", "\\x61b", "c\\Z", "(?x) a  b # two",
]  # fmt: skip
LONGEST = 6


@cache
def language(pattern):
    """Every text of LETTERS, up to LONGEST, that is a full match: by trying them all with Python's own module."""
    texts = ("".join(letters) for n in range(LONGEST + 1) for letters in itertools.product(LETTERS, repeat=n))
    return {text for text in texts if re.fullmatch(pattern.replace("++", "+"), text)}


def matching_is_its_definition(lib, seed):
    tokenizer, rng = CharTokenizer.from_text(LETTERS), np.random.default_rng(seed)
    pattern = PATTERNS[seed % len(PATTERNS)]
    words = language(pattern)
    beginnings = sorted({word[:n] for word in words for n in range(min(len(word), 3) + 1)})
    texts = [beginnings[i] for i in rng.permutation(len(beginnings))[:6]]
    apply = lib.constraints.matching(pattern, tokenizer)
    for length in {len(text) for text in texts}:
        group = [text for text in texts if len(text) == length]
        rows = rng.dirichlet(np.ones(5), len(group))
        rows[:, 0] = 0  # forbidden, as the unknown token is
        rows /= rows.sum(axis=1, keepdims=True)
        first = rng.integers(1, 5, len(group))
        history = np.array([first, *np.array([tokenizer.encode(text) for text in group]).reshape(len(group), length).T])
        with np.errstate(divide="ignore"):
            found = np.exp(apply(np.log(rows), history))
        for text, row, got in zip(group, rows, found, strict=True):
            allowed = [0.0] + [
                row[1 + v] * any(word.startswith(text + c) for word in words) for v, c in enumerate(tokenizer.characters)
            ]
            if text in words:
                allowed[0] = 1 - sum(allowed)  # the pattern would be left
            np.testing.assert_allclose(got, np.array(allowed) / sum(allowed), atol=1e-12, err_msg=repr((pattern, text)))


def groups_are_alike(lib, seed):
    """Testing one character of each group tells the same as testing all."""
    characters = "abcxyzABZ019 _.,\n\t-'éßſKµ狐。"
    rng = np.random.default_rng(seed)
    pieces = [
        "a",
        "[a-c]",
        "[^x-z]",
        "\\w",
        "\\W",
        "\\d+",
        "\\s",
        ".",
        "\\b",
        "(?:B|é)",
        "\\.",
        "[\\w-]",
        "Z?",
        "\\p{Lu}",
        "狐*",
        "(?=\\w)",
        "K",
        "ß",
        "[^\\n]",
    ]
    pattern = str(rng.choice(["", "(?i)", "(?s)", "(?m)^"])) + "".join(rng.choice(pieces, 4)) + str(rng.choice(["", "+", "$"]))
    compiled = constraints.regex.compile(pattern)
    groups = lib.constraints.alike(pattern, characters)
    assert sorted(itertools.chain(*groups)) == list(range(len(characters)))
    assert len(groups) < len(characters)
    texts = ["", *("".join(rng.choice([*characters], rng.integers(1, 4))) for _ in range(30))]
    for text, group in itertools.product(texts, groups):
        verdicts = {compiled.fullmatch(text + characters[i], partial=True) is not None for i in group}
        assert len(verdicts) == 1, (pattern, text, [characters[i] for i in group])
    assert len(lib.constraints.alike("(a|b)\\1", characters)) == len(characters)  # a back reference sees every character


def what_matches_ends_and_nothing_else(lib, seed):
    """Drawn from a model: a text that ended is a full match, one that was cut begins one, and behind the end is only the end."""
    model = tiny_model(seed=seed % 3)
    pattern = PATTERNS[seed % len(PATTERNS)]
    chain = [lib.filters.forbid([0]), lib.constraints.matching(pattern, model.tokenizer)]
    state, first = language_model.initial_state(model.params, 20), np.full(20, 2)
    tokens = lib.decoding.sample(language_model.make_step(model.params), state, first, 4, np.random.default_rng(seed), chain)
    for column in tokens.T.tolist():
        written = list(itertools.takewhile(bool, column))
        assert set(column[len(written) :]) <= {lib.constraints.END}
        text = model.tokenizer.decode(written)
        assert (
            text in language(pattern)
            if len(written) < len(tokens)
            else any(word.startswith(text) for word in language(pattern))
        )


# Laws of writing


def problem(seed):
    """A model, prompts of different lengths with an unknown character, and how to write behind them."""
    rng = np.random.default_rng(seed)
    model = tiny_model(["lstm", "gru", "rnn"][seed % 3], 1 + seed % 2, seed=seed % 5)
    prompts = ["".join(rng.choice([*LETTERS, "狐"], rng.integers(0, 9))) + str(rng.choice([*LETTERS])) for _ in range(3)]
    stops = [("".join(rng.choice([*LETTERS], n))) for n in rng.integers(1, 5, rng.integers(0, 4))]
    stops += [stops[0][1:]] if stops and len(stops[0]) > 1 else []  # complete at the same character
    return model, prompts, stops, int(rng.integers(2, 25)), rng


def cut(text, stops):
    """Where a text ends: by the definition, looking at each beginning of it; None if no stop string comes."""
    for n in range(1, len(text) + 1):
        if starts := [n - len(stop) for stop in stops if text[:n].endswith(stop)]:
            return min(starts)
    return None


def chosen(lib, rng):
    return [[], [lib.filters.temperature(0.7)], [lib.filters.repetition_penalty(1.4), lib.filters.top_k(3)]][
        int(rng.integers(3))
    ]


def many_texts_are_single_texts(lib, seed):
    """Text k of prompt i: alone, by decoding.sample with its own generator, or beside others of any number; and batch by batch."""
    model, prompts, _, length, rng = problem(seed)
    chain = chosen(lib, rng)
    everything = lib.writing.continue_text(model, prompts, length, chain, samples=3, seed=seed)
    assert [found.prompt for found in everything] == [prompt for prompt in prompts for _ in range(3)]
    fewer = lib.writing.continue_text(model, prompts[0], length, chain, samples=2, seed=seed)
    assert [found.text for found in fewer] == [found.text for found in everything[:2]]
    size, lib.writing.BATCH = lib.writing.BATCH, 4
    try:
        assert [f.text for f in lib.writing.continue_text(model, prompts, length, chain, samples=3, seed=seed)] == [
            f.text for f in everything
        ]
    finally:
        lib.writing.BATCH = size
    step = language_model.make_step(model.params)
    for n, found in enumerate(everything):
        state, tokens = language_model.initial_state(model.params, 1), model.tokenizer.encode(found.prompt)
        tokens = tokens[tokens > 0]
        for token in tokens[:-1]:
            _, state = step(np.array([token]), state)
        numbers = (
            np.random.default_rng(seed)
            if n == 0
            else np.random.default_rng(np.random.SeedSequence(seed, spawn_key=divmod(n, 3)))
        )
        own = lib.decoding.sample(step, state, tokens[-1:], length, numbers, [lib.filters.forbid([0]), *chain])
        assert found.text == model.tokenizer.decode(own[:, 0])
        assert (found.stopped, len(found.text)) == ("length", length)


def carried_state_is_reading_everything_anew(lib, seed):
    """Each recorded log-probability is the model's own, before any filter, with prompt and text read from the beginning."""
    model, prompts, stops, length, rng = problem(seed)
    for found in lib.writing.continue_text(model, prompts, length, chosen(lib, rng), samples=2, seed=seed, stop=stops):
        assert len(found.log_probs) == len(found.text)
        for n, character in enumerate(found.text):
            own = refed(model, found.prompt + found.text[:n])[model.tokenizer.encode(character)[0]]
            assert abs(found.log_probs[n] - own) < 1e-9
        if found.text:
            assert abs(found.nats + sum(found.log_probs) / len(found.text)) < 1e-9


def stop_strings_cut_exactly(lib, seed):
    """Against the same texts written without any; pieces are shown as soon as they are certain, and no earlier."""
    model, prompts, stops, length, rng = problem(seed)
    chain, shown = chosen(lib, rng), {}
    arguments = {"samples": 2, "seed": seed}
    whole = lib.writing.continue_text(model, prompts, length, chain, **arguments)
    found = lib.writing.continue_text(
        model, prompts, length, chain, stop=stops, show=lambda n, piece: shown.setdefault(n, []).append(piece), **arguments
    )
    for n, (full, got) in enumerate(zip(whole, found, strict=True)):
        end = cut(full.text, stops)
        assert (got.text, got.stopped) == ((full.text, "length") if end is None else (full.text[:end], "stop"))
        np.testing.assert_allclose(got.log_probs, full.log_probs[: len(got.text)], atol=1e-9)
        pieces, certain = [], 0
        steps = length if end is None else next(t for t in range(1, length + 1) if cut(full.text[:t], stops) is not None)
        for t in range(1, steps + 1):
            held = max((k for stop in stops for k in range(len(stop)) if full.text[:t].endswith(stop[:k])), default=0)
            until = len(got.text) if t == steps else t - held
            pieces += [full.text[certain:until]] if until > certain else []
            certain = max(certain, until)
        assert shown.get(n, []) == pieces


def constrained_texts(lib, seed):
    """--only and --match together with filters and stop strings, several streams that end at different times."""
    model, prompts, stops, length, rng = problem(seed)
    chain, pattern = chosen(lib, rng), PATTERNS[seed % len(PATTERNS)]
    for found in lib.writing.continue_text(model, prompts, 4, chain, samples=3, seed=seed, match=pattern):
        expected = language(pattern)
        assert found.stopped in ("match", "length")
        assert found.text in expected if found.stopped == "match" else any(word.startswith(found.text) for word in expected)
        assert (found.stopped == "length") == (len(found.text) == 4)
    for found in lib.writing.continue_text(model, prompts, length, chain, samples=2, seed=seed, only="ca狐", stop=stops):
        assert set(found.text) <= {"a", "c"}
    single = lib.writing.continue_text(model, prompts[0], 4, chain, seed=seed, match=pattern)[0]
    assert single.text == lib.writing.continue_text(model, prompts, 4, chain, samples=2, seed=seed, match=pattern)[0].text


def a_scene_is_its_text(lib, seed):
    """Reading and writing by turns: the state, and what is written next, are those of the whole text read at once."""
    model, prompts, stops, length, rng = problem(seed)
    scene, expected = lib.writing.Scene(model), ""
    for turn, prompt in enumerate([*prompts, ""]):
        scene.read(prompt)
        expected += prompt
        shown = []
        found = scene.write(length, np.random.default_rng([seed, turn]), chosen(lib, rng), stops, shown.append)
        assert "".join(shown) == found.text
        assert found.prompt == expected
        expected += found.text
        assert scene.text == expected
        fresh = lib.writing.Scene(model)
        fresh.read(expected)
        assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(leaves(scene._state), leaves(fresh._state), strict=True))
        assert scene._last.tolist() == fresh._last.tolist() == model.tokenizer.encode(expected.replace("狐", ""))[-1:].tolist()
        assert cut(found.text, stops) is None


def the_unknown_character_is_never_written(lib, seed):
    model, prompts, _, length, _ = problem(seed)
    b_out = model.params.b_out.copy()
    b_out[0] += 50
    loud = model._replace(params=model.params._replace(b_out=b_out))
    scene = lib.writing.Scene(loud)
    scene.read(prompts[0])
    texts = [
        scene.write(length, np.random.default_rng(seed)).text,
        *(f.text for f in lib.writing.continue_text(loud, prompts, length, seed=seed)),
    ]
    assert all(len(text) == length and set(text) <= set(LETTERS) for text in texts)


LAWS = {
    "filters": [
        a_filter_is_its_definition,
        filters_never_empty_the_set,
        settings_that_change_nothing,
        the_best_token_stays_the_best,
        orders_of_filters,
    ],
    "decoding": [
        top_k_one_is_greedy,
        a_batch_of_streams_is_single_streams,
        draws_have_the_frequencies_of_the_distribution,
        filters_see_the_whole_history,
    ],
    "constraints": [
        allowed_characters,
        matching_is_its_definition,
        groups_are_alike,
        what_matches_ends_and_nothing_else,
    ],
    "writing": [
        stop_strings_cut_exactly,
        a_scene_is_its_text,
        many_texts_are_single_texts,
        constrained_texts,
        the_unknown_character_is_never_written,
        carried_state_is_reading_everything_anew,
    ],
}  # of each module
FIXED = range(28)  # at least one for each pattern


@pytest.mark.parametrize("law", [law for laws in LAWS.values() for law in laws], ids=lambda law: law.__name__)
def test_law(law):
    for seed in FIXED:
        law(LIBRARY, seed)


# The shipped model

PROMPTS = [
    "The quick brown fox",
    "ROMEO:\n",
    "First Citizen:\nWe are accounted poor citizens, the patricians good.\n\nMENENIUS:\nW",
    "a",
]


def refed_at_each_step(model, prompt, text):
    """The log-probabilities of each character of a text, (len(text), V): every prefix read from the beginning, side by side."""
    tokens = model.tokenizer.encode(prompt + text[:-1])
    lengths = np.arange(len(prompt), len(prompt) + len(text))
    columns = np.where(np.arange(len(tokens))[:, None] < lengths, tokens[:, None], 0)
    logits, _, _ = language_model.forward(model.params, columns, language_model.initial_state(model.params, len(text)), lengths)
    rows = logits[lengths - 1, np.arange(len(text))].astype(np.float64)
    return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)


def after(model, text):
    """The model's distribution behind a text, (V,), the unknown character forbidden."""
    log_probs = refed(model, text)
    log_probs[0] = -np.inf
    return log_probs - np.logaddexp.reduce(log_probs)


def counts(model, prompt, samples, chain=(), seed=0):
    written = writing.continue_text(model, prompt, 1, chain, samples, seed=seed)
    return np.bincount([model.tokenizer.encode(found.text)[0] for found in written], minlength=model.tokenizer.size)


NOTHING = [filters.temperature(1), filters.top_p(1), filters.min_p(0), filters.repetition_penalty(1)]
ALPHA = 1e-3  # of each test, with a fixed seed


@pytest.mark.parametrize("prompt", PROMPTS[:2])
@pytest.mark.parametrize("chain", [[], NOTHING], ids=["no filter", "filters that change nothing"])
def test_first_characters_have_the_models_own_frequencies(prompt, chain):
    """Each sample's generator is its own: the first numbers of thousands of them must be as good as one stream of numbers."""
    observed = counts(shakespeare(), prompt, 2000, chain)
    assert p_value(observed, np.exp(after(shakespeare(), prompt))) > ALPHA


@pytest.mark.parametrize("prompt", PROMPTS[:3])
def test_frequencies_of_many_draws_and_the_power_to_see_a_slight_temperature(prompt):
    """40,000 draws fit the model's distribution and reject one tempered by 8 %, as they should: T = 1.08 is drawn just the same."""
    model, N = shakespeare(), 40_000
    own = after(model, prompt)
    first = np.zeros(N, int)

    def step(token, state):
        return np.broadcast_to(own, (len(token), len(own))), state

    def drawn(chain):
        return np.bincount(decoding.sample(step, (), first, 1, np.random.default_rng(2), chain)[0], minlength=len(own))

    tempered = through([filters.temperature(1.08)], own[None])[0]
    assert p_value(drawn(NOTHING), np.exp(own)) > ALPHA
    assert p_value(drawn(NOTHING), np.exp(tempered)) < 1e-6
    assert p_value(drawn([filters.temperature(1.08)]), np.exp(own)) < 1e-6
    assert p_value(drawn([filters.temperature(1.08)]), np.exp(tempered)) > ALPHA
    cut_off = through([filters.top_k(5), filters.temperature(0.8)], own[None])[0]
    assert p_value(drawn([filters.top_k(5), filters.temperature(0.8)]), np.exp(cut_off)) > ALPHA


def test_the_next_characters_are_drawn_given_the_first():
    """Pairs of characters behind a prompt, against the product of what the model says at each step, both read anew."""
    model, prompt = shakespeare(), "ROMEO:\nWh"
    written = writing.continue_text(model, prompt, 2, samples=1500, seed=5)
    pairs = Counter(found.text for found in written)
    first = np.exp(after(model, prompt))
    likely = [c for c in model.tokenizer.characters if first[model.tokenizer.encode(c)[0]] > 0.02]
    texts, probs = [], []
    for c in likely:
        second = np.exp(after(model, prompt + c))
        for d in model.tokenizer.characters:
            texts.append(c + d)
            probs.append(first[model.tokenizer.encode(c)[0]] * second[model.tokenizer.encode(d)[0]])
    observed = np.array([pairs[text] for text in texts])
    rest = len(written) - observed.sum()
    assert p_value(np.append(observed, rest), np.append(probs, 1 - sum(probs))) > ALPHA


def test_greedy_is_top_k_one_and_what_the_temperature_goes_to():
    model = shakespeare()
    greedy = [filters.top_k(1), filters.temperature(1e-6), filters.top_p(1e-9), filters.min_p(1)]
    for prompt in PROMPTS[:2]:
        (text,) = {writing.continue_text(model, prompt, 50, [apply], seed=3)[0].text for apply in greedy}
        best = refed_at_each_step(model, prompt, text)[:, 1:].argmax(axis=1)
        assert text == model.tokenizer.decode(1 + best)


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_carried_state_equals_reading_the_whole_prefix_in_single_precision(name):
    """As shipped, in float32: log-probabilities to 1e-5."""
    model = checkpoint.load(name)
    prompt = "".join(c for c in "\nthe only 春風" if c in model.tokenizer.characters)
    for found in writing.continue_text(model, prompt, 60, [filters.temperature(0.8)], 2, seed=1):
        own = refed_at_each_step(model, found.prompt, found.text)
        np.testing.assert_allclose(found.log_probs, own[np.arange(60), model.tokenizer.encode(found.text)], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"stop": ["\n\n", ",", "the"]}, {"match": r"(?:[A-Z][a-z' ,]*\n)+"}, {"only": "aeiou nrst\n"}],
    ids=["free", "stop", "match", "only"],
)
def test_a_batch_of_texts_is_single_texts(options):
    """8 texts behind prompts of 1 to 83 characters, one by one and all in one batch: the same characters."""
    model, chain = shakespeare(), [filters.repetition_penalty(1.05), filters.temperature(0.9), filters.top_p(0.98)]
    together = writing.continue_text(model, PROMPTS, 50, chain, samples=2, seed=11, **options)
    held = writing.constraints(model.tokenizer, options.get("only"), options.get("match"))
    step = language_model.make_step(model.params)
    for i, prompt in enumerate(PROMPTS):
        tokens, state = model.tokenizer.encode(prompt), language_model.initial_state(model.params, 1)
        for token in tokens[:-1]:
            _, state = step(np.array([token]), state)
        for k in range(2):
            draft, rng = writing.Draft(prompt, options.get("stop", ())), writing.generator(11, i, k)
            writing.write(step, state, tokens[-1:], model.tokenizer, [draft], [rng], 50, [*held, *chain])
            alone, beside = draft.finished(), together[2 * i + k]
            assert (alone.text, alone.stopped) == (beside.text, beside.stopped)
            np.testing.assert_allclose(alone.log_probs, beside.log_probs, atol=1e-9)


def test_seeds():
    model = shakespeare()
    texts = [[f.text for f in writing.continue_text(model, "The ", 30, samples=3, seed=seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert len({*texts[0], *texts[2]}) == 6
    same_prompt_twice = writing.continue_text(model, ["The ", "The "], 30, samples=3, seed=1)
    assert len({found.text for found in same_prompt_twice}) == 6


# Planted bugs

BUGS = {
    ("filters", "temperature"): [
        ("multiplied", "below_best / np.float64(t)", "below_best * np.float64(t)"),
        ("not normalised", "_normalised((below_best / np.float64(t)).astype(log_probs.dtype))", "(below_best / np.float64(t)).astype(log_probs.dtype)"),
        ("the root of the temperature", "np.float64(t)", "np.float64(t) ** 0.5"),
    ],
    ("filters", "top_k"): [
        ("one more", ": int(k)]", ": int(k) + 1]"),
        ("the least probable", "-log_probs, axis=1", "log_probs, axis=1"),
        ("of equals any", 'np.argsort(-log_probs, axis=1, kind="stable")', "(log_probs.shape[1] - 1 - np.argsort(-log_probs[:, ::-1], axis=1, kind='stable'))"),
        ("those of the first stream", "np.take_along_axis(log_probs, best, axis=1), axis=1)", "np.take_along_axis(log_probs, best, axis=1), axis=1)\n        kept = np.where(kept[:1] > -np.inf, log_probs, -np.inf)"),
    ],
    ("filters", "top_p"): [
        ("the token that reaches p is cut", "before < p", "before + np.exp(ordered) <= p"),
        ("unsorted", 'np.argsort(-log_probs, axis=1, kind="stable")', "np.tile(np.arange(log_probs.shape[1]), (len(log_probs), 1))"),
        ("at least p before", "before < p", "before <= p"),
        ("1 - p", "before < p", "before < 1 - p"),
    ],
    ("filters", "min_p"): [
        ("against 1, not the best", "best + threshold", "threshold"),
        ("the best is cut", "log_probs >= best", "log_probs > best"),
        ("the best of all streams", "log_probs.max(axis=1, keepdims=True)", "log_probs.max()"),
    ],
    ("filters", "repetition_penalty"): [
        ("divided", "log_probs * r", "log_probs / r"),
        ("every stream's tokens", "seen[np.arange(log_probs.shape[0]), history] = True", "seen[:, history.ravel()] = True"),
        ("the last token only", "history] = True", "history[-1:]] = True"),
        ("subtracted", "log_probs * r", "log_probs - r"),
    ],
    ("filters", "forbid"): [
        ("of the first stream only", "kept[:, list(tokens)]", "kept[:1, list(tokens)]"),
        ("made unlikely", "kept[:, list(tokens)] = -np.inf", "kept[:, list(tokens)] -= 20"),
        ("the argument is changed", "log_probs.copy()", "log_probs"),
    ],
    ("filters", "_normalised"): [("in single precision", "log_probs - best - np.log", "log_probs - best - 1e-6 - np.log")],
    ("decoding", "draw"): [
        ("always the middle", "rng.random((len(cumulative), 1))", "0.5"),
        ("one number for all streams", "rng.random((len(cumulative), 1))", "rng.random((len(cumulative), 1))[:1]"),
        ("the next token", "cumulative <= points", "cumulative < points + 0.1"),
    ],
    ("decoding", "stream"): [
        ("states are not dropped", "history[:, rows], _rows(state, rows)", "history[:, rows], _rows(state, np.arange(len(rows)))"),
        ("histories are not dropped", "history[:, rows], _rows", "history[:, : len(rows)], _rows"),
        ("the last token is not fed back", "step(token, state)", "step(history[0], state)"),
        ("the history forgets the first token", "history[:t])", "history[min(1, t - 1):t])"),
        ("filters in reverse", "for f in filters:", "for f in filters[::-1]:"),
        ("the state is not carried", "log_probs, state = step(token, state)", "log_probs, _ = step(token, state)"),
        ("the history stops growing", "            t += 1", "            t = min(t + 1, 4)"),
    ],
    ("constraints", "allow"): [
        ("the unknown character is allowed", "known[known != UNKNOWN_ID] if isinstance(tokens, str) else known", "known"),
        ("the others stay unlikely", "np.full_like(log_probs, -np.inf)", "log_probs - 9"),
        ("all but the last", "kept[:, known] = log_probs[:, known]", "kept[:, known[:-1]] = log_probs[:, known[:-1]]"),
    ],
    ("constraints", "matching"): [
        ("first belongs to the text", "history[1:]", "history"),
        ("the text of the first stream", "history[1:].T.tolist()", "history[1:, [0] * history.shape[1]].T.tolist()"),
        ("only whole matches", "partial=True, timeout", "partial=False, timeout"),
        ("only beginnings", "is not None\n            for kind", "is not None and not text\n            for kind"),
        ("matches within the text", "compiled.fullmatch(text + sample", "compiled.match(text + sample"),
        ("never ends", "            if whole:", "            if False:"),
        ("ends at once", "            if whole:", "            if whole and not kept[n].fill(-np.inf):"),
        ("ends with the odds of what may follow", "~allowed", "allowed"),
        ("goes on behind the end", "tokens and tokens[-1] == END", "False"),
        ("the next character of the alphabet", "allowed[1 + kind]", "allowed[kind]"),
        ("the last character is not looked at", "for v in tokens]", "for v in tokens[:-1]]"),
        ("probabilities of another stream", "log_probs[n, allowed]", "log_probs[0, allowed]"),
        ("not normalised", "log_softmax(kept)", "kept"),
    ],
    ("constraints", "alike"): [
        ("all alike in anything unusual", "[[place] for place in range(len(characters))]", "[list(range(len(characters)))]"),
        ("no regard to case", "for flags in (0, regex.IGNORECASE)", "for flags in (0,)"),
        ("letters are forgotten", "[regex.escape(found[\"literal\"])] if found[\"literal\"] else []", "[]"),
        ("sets are forgotten", "[found[\"one\"]] if found[\"one\"] else", ""),
        ("word characters and others", "atoms = [r\"\\w\", r\"\\n\", r\"\\s\"]", "atoms = []"),
    ],
    ("writing", "generator"): [
        ("the same for each sample", "spawn_key=place", "spawn_key=place[:1]"),
        ("the same for each prompt", "(prompt, sample) if", "(sample,) if"),
        ("sum of prompt and sample", "(prompt, sample) if", "(prompt + sample,) if"),
    ],
    ("writing", "continuations"): [
        ("filters before the constraints", "[*constraints(tokenizer, only, match), *filters]", "[*filters, *constraints(tokenizer, only, match)]"),
        ("states of the wrong prompt", "leaf[rows], state)", "leaf[[0] * len(rows)], state)"),
        ("last characters of the wrong prompt", "first[rows]", "first[[0] * len(rows)]"),
        ("the prompts of each batch are the first", "Draft(prompts[i], stops)", "Draft(prompts[0], stops)"),
        ("numbers restart in each batch", "generator(seed, *at) for at in batch", "generator(seed, *at) for at in streams[: len(batch)]"),
        ("the numbers of pieces restart in each batch", "show(start + n, piece)", "show(n % 2, piece)"),
        ("only is dropped", "constraints(tokenizer, only, match)", "constraints(tokenizer, None, match)"),
        ("match is dropped", "constraints(tokenizer, only, match)", "constraints(tokenizer, only)"),
    ],
    ("writing", "Scene.read"): [
        ("the last character is forgotten", "np.concatenate([self._last, known_tokens(self.model.tokenizer, text)])", "known_tokens(self.model.tokenizer, text)"),
        ("the state is not carried", "[tokens], self._state)", "[tokens], initial_state(self.model.params, 1))"),
    ],
    ("writing", "Scene.write"): [
        ("the stop string stays in the state", "states[len(result.text) - draft.steps - 1]", "states[-1]"),
        ("one step short", "- draft.steps - 1]", "- draft.steps - 2 + (len(states) < 3)]"),
        ("the last character stays the prompt's", "[-1:]", "[:1]"),
        ("the text is not noted", "self.text += result.text", "pass"),
        ("the unknown character may be written", "[*constraints(self.model.tokenizer), *filters]", "[*filters]"),
    ],
    ("writing", "Draft.add"): [
        ("the stop string is kept", "del self.characters[-len(found) :], self.log_probs[-len(found) :]", "pass"),
        ("log-probabilities are not cut", ", self.log_probs[-len(found) :]", ""),
        ("the stop string does not stop", 'self.stopped = "stop"', 'self.stopped = ""'),
        ("one character too much is cut", "del self.characters[-len(found) :]", "del self.characters[-len(found) - 1 :]"),
        ("the end counts as a stop string", 'self.stopped = "match"', 'self.stopped = "stop"'),
    ],
    ("writing", "Draft.fresh"): [
        ("nothing is held back", "0 if self.stopped else next((len(s) for s in self.beginnings if self._ends_with(s)), 0)", "0"),
        ("held back for ever", "0 if self.stopped else next", "next"),
        ("shown twice", "self.sure += len(piece)", "pass"),
        ("a constant number held back", "next((len(s) for s in self.beginnings if self._ends_with(s)), 0)", "max(0, self.longest - 1)"),
    ],
    ("writing", "Draft.__init__"): [
        ("of two stop strings the shorter", "sorted(stops, key=len, reverse=True)", "sorted(stops, key=len)"),
        ("the shorter beginning is held back", "for n in range(1, len(s))}, key=len, reverse=True)", "for n in range(1, len(s))}, key=len)"),
        ("beginnings of the first stop string", "for s in stops for n", "for s in stops[:1] for n"),
    ],
    ("writing", "Draft._ends_with"): [("anywhere", "self.characters[-len(text) :] == [*text]", "text in ''.join(self.characters)")],
    ("writing", "write"): [
        ("a stream that has stopped goes on", "going = np.array([not drafts[n].stopped for n in writing])", "going = np.array([True for n in writing])"),
        ("all stop with the first", "        writing = writing[going]\n", "        writing = writing[going] if going.all() else writing[:0]\n"),
        ("generators do not follow their streams", "[generators[n] for n in writing]", "generators[: len(writing)]"),
        ("drafts do not follow their streams", "        writing = writing[going]\n", "        writing = np.arange(going.sum())\n"),
        ("log-probabilities after the filters", "        return decoding.draw(log_probs", "        own[:] = log_probs\n        return decoding.draw(log_probs"),
        ("log-probability of the best token", "own[np.arange(len(tokens)), tokens]", "own.max(axis=1)"),
        ("one character short", "drafts[n].steps == length", "drafts[n].steps == length - 1"),
        ("length replaces another reason", 'drafts[n].stopped or "length"', '"length"'),
    ],
    ("writing", "Each.random"): [("one generator for all", "own.random(shape[1:]) for own in self.generators", "self.generators[0].random(shape[1:]) for own in self.generators")],
    ("writing", "read"): [
        ("padding is read", "np.clip(lengths - start, 0, len(part))", "None"),
        ("the last token is read, too", "padded[: lengths[n], n] = own[:-1]", "padded[: lengths[n], n] = own[1:]"),
        ("pieces do not carry the state", "_, state, _ = forward(model.params, part, state,", "_, state, _ = forward(model.params, part, initial_state(model.params, len(tokens)),"),
        ("lengths of the first piece", "lengths - start", "lengths"),
    ],
    ("writing", "known_tokens"): [("unknown characters are read", "tokens[tokens != UNKNOWN_ID]", "tokens")],
}  # fmt: skip
MUTANTS = [Mutant(module, place, *bug) for (module, place), bugs in BUGS.items() for bug in bugs]


def library_with(module, source):
    """The library with one module from another source, and those that import it made anew."""
    names = MODULES[MODULES.index(module) :]
    before = {name: sys.modules[f"course_lib.{name}"] for name in names}
    made = {}
    try:
        for name in names:
            made[name] = types.ModuleType(f"course_lib.{name}")
            text = source if name == module else (FOLDER / f"{name}.py").read_text(encoding="utf-8")
            exec(compile(text, f"<{name}>", "exec"), made[name].__dict__)
            sys.modules[f"course_lib.{name}"] = made[name]
            setattr(course_lib, name, made[name])
    finally:
        for name, original in before.items():
            sys.modules[f"course_lib.{name}"] = original
            setattr(course_lib, name, original)
    return types.SimpleNamespace(**(vars(LIBRARY) | made))


def broken_law(library, module):
    """The name of a law that a library breaks on the fixed cases, those of the module first; or None.

    Errors that are no wrong result are raised.
    """
    for law in [*LAWS[module], *(law for other, laws in LAWS.items() if other != module for law in laws)]:
        for seed in FIXED:
            try:
                law(library, seed)
            except (AssertionError, ValueError, IndexError, KeyError, StopIteration, RuntimeWarning):
                return law.__name__
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_breaks_a_law(mutant):
    library = library_with(mutant.module, mutated(mutant))
    library.writing._LOGITS = 30  # prompts are read in pieces of a few steps, so that short ones have several
    assert broken_law(library, mutant.module)


def test_without_a_bug_no_law_is_broken(monkeypatch):
    assert len({mutant.name for mutant in MUTANTS}) == len({mutated(mutant) for mutant in MUTANTS}) == len(MUTANTS) > 80
    library = library_with("filters", (FOLDER / "filters.py").read_text(encoding="utf-8"))  # and all that import it
    library.writing._LOGITS = 30
    assert broken_law(library, "filters") is None
