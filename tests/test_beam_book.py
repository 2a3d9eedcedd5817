"""The exercises on tokens and beams: what is expected is recomputed, right answers in many ways pass, what is wrong is said."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from course_lib import seq2seq
from course_lib.beam_book import BEAM_EXERCISES, beam_step, clipped_precision, shifted, token_loss
from course_lib.decoding import beam_search
from course_lib.exercises import EXERCISES, check
from course_lib.layers import log_softmax

TRIALS = range(20)  # as many as a check looks at


def problems(name, trials=TRIALS):
    return [EXERCISES[name].problem(np.random.default_rng(trial)) for trial in trials]


def test_they_are_registered():
    numbers = {name: EXERCISES[name].number for name in BEAM_EXERCISES}
    assert numbers == {"shifted": "9.1", "token_loss": "9.2", "beam_step": "10.4", "clipped_precision": "10.5"}
    assert all(EXERCISES[name] is exercise and len(exercise.mistakes) >= 12 for name, exercise in BEAM_EXERCISES.items())


# The problems


@pytest.mark.parametrize("name", ["shifted", "token_loss"])
def test_targets_end_once_and_then_are_padding(name):
    for *_, targets in problems(name, range(50)):
        assert 3 <= len(targets) and 1 not in targets
        lengths = (targets != 0).sum(axis=0)
        assert lengths.min() >= 1 and lengths.max() == len(targets)
        np.testing.assert_array_equal(targets == 2, np.arange(len(targets))[:, None] == lengths - 1)
        np.testing.assert_array_equal(targets == 0, np.arange(len(targets))[:, None] >= lengths)
    assert sum((targets == 0).any() for *_, targets in problems(name)) > 12


def test_beams_are_distributions_and_their_order_is_open():
    widths = []
    for totals, log_probs, width in problems("beam_step"):
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)
        assert log_probs.shape[0] == len(totals) < log_probs.shape[1] and width <= log_probs.size
        widths.append(np.sign(width - len(totals)))
    assert Counter(widths).keys() == {-1, 0, 1}
    assert any((np.diff(totals) > 0).any() for totals, *_ in problems("beam_step"))


def test_sentences_repeat_and_match_and_are_too_short_now_and_then():
    found = [(clipped_precision(*problem), problem) for problem in problems("clipped_precision")]
    assert {n for _, (*_, n) in found} == {1, 2, 3, 4}
    assert 1 <= sum(total == 0 for (_, total), _ in found) <= 6
    assert sum(0 < matches < total for (matches, total), _ in found) >= 10
    assert any(matches for (matches, _), (*_, n) in found if n > 1)
    assert sum(max(Counter(hypothesis).values()) > 1 for _, (hypothesis, *_) in found) >= 10


# What is expected, recomputed


def test_expected_inputs_are_those_of_the_model():
    for (targets,) in problems("shifted"):
        inputs = shifted(targets)
        np.testing.assert_array_equal(inputs, seq2seq.shifted(torch.from_numpy(targets)))
        for t, n in np.ndindex(targets.shape):
            assert inputs[t, n] == (targets[t - 1, n] if t else 1)


def test_expected_loss_is_pytorch_s():
    for logits, targets in problems("token_loss"):
        its = torch.nn.functional.cross_entropy(
            torch.tensor(logits).flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=0
        )
        assert token_loss(logits, targets) == pytest.approx(its.item(), rel=1e-12)


def test_expected_continuations_are_the_best_of_all():
    for totals, log_probs, width in problems("beam_step", range(50)):
        every = [(totals[k] + log_probs[k, v], k, v) for k, v in product(*map(range, log_probs.shape))]
        best = sorted(every, reverse=True)[:width]
        assert [(total, k, v) for k, v, total in zip(*beam_step(totals, log_probs, width), strict=True)] == best


@pytest.mark.parametrize("seed", range(5))
def test_steps_are_the_search_of_the_library(seed):
    """With a table of the next token alone, and without an end."""
    table, width = log_softmax(np.random.default_rng(seed).normal(0, 2, (7, 7))), 3
    totals, token, paths = np.zeros(1), np.array([4]), [[]]
    for _ in range(5):
        beam, token, totals = beam_step(totals, table[token], width)
        paths = [[*paths[k], int(v)] for k, v in zip(beam, token, strict=True)]
    found = beam_search(lambda token, state: (table[token], state), (), 4, length=5, width=width)
    assert [each.tokens.tolist() for each in found] == paths
    np.testing.assert_allclose([each.log_prob for each in found], totals)


def test_expected_counts_are_those_of_sacrebleu():
    measure = BLEU(tokenize="none", effective_order=True)
    for hypothesis, reference, _ in problems("clipped_precision", range(50)):
        its = measure.sentence_score(" ".join(hypothesis), [" ".join(reference)]) if hypothesis else None
        for n in range(1, 5):
            expected = (its.counts[n - 1], its.totals[n - 1]) if its else (0, 0)
            assert clipped_precision(hypothesis, reference, n) == expected


def test_the_example_of_papineni_and_others():
    the, cat = ["the"] * 7, "the cat is on the mat".split()
    assert clipped_precision(the, cat, 1) == (2, 7)
    assert clipped_precision(the, cat, 2) == (0, 6)
    assert clipped_precision(cat, cat, 4) == (3, 3)
    assert clipped_precision(cat[:2], cat, 3) == (0, 0)


# Right in many ways


def shifted_by_loop(targets):
    inputs = np.ones(targets.shape)
    for t in range(1, len(targets)):
        inputs[t] = targets[t - 1]
    return inputs


def shifted_by_roll(targets):
    inputs = np.roll(targets, 1, axis=0)
    inputs[0] = 1
    return inputs


def loss_by_loop(logits, targets):
    total = count = 0
    for row, target in zip(logits.reshape(-1, logits.shape[2]), targets.flat, strict=True):
        if target:
            total, count = total + np.logaddexp.reduce(row) - row[target], count + 1
    return total / count


def loss_by_mask(logits, targets):
    T, N = targets.shape
    picked = log_softmax(logits)[np.arange(T)[:, None], np.arange(N), targets]
    return -np.sum(picked * (targets > 0)) / np.count_nonzero(targets)


def beams_by_sorting(totals, log_probs, width):
    every = [(totals[k] + p, k, v) for k, row in enumerate(log_probs) for v, p in enumerate(row)]
    total, beam, token = zip(*sorted(every, reverse=True)[:width], strict=True)
    return beam, token, total


def beams_of_each_beam_first(totals, log_probs, width):
    """The best of each beam's best, which is enough."""
    token = np.argsort(-log_probs, axis=1)[:, :width]
    grown = totals[:, None] + np.take_along_axis(log_probs, token, axis=1)
    beam, place = np.unravel_index(np.argsort(-grown, axis=None)[:width], grown.shape)
    return beam, token[beam, place], grown[beam, place]


def beams_in_torch(totals, log_probs, width):
    total, place = torch.topk(torch.from_numpy(totals[:, None] + log_probs).flatten(), width)
    return place // log_probs.shape[1], place % log_probs.shape[1], total


def counts_by_crossing_out(hypothesis, reference, n):
    grams = [[words[i : i + n] for i in range(len(words) - n + 1)] for words in (hypothesis, reference)]
    left, matches = list(grams[1]), 0
    for gram in grams[0]:
        if gram in left:
            left.remove(gram)
            matches += 1
    return matches, len(grams[0])


def counts_by_counters(hypothesis, reference, n):
    a, b = (Counter(" ".join(w[i : i + n]) for i in range(len(w) + 1 - n)) for w in (hypothesis, reference))
    return [sum((a & b).values()), max(0, len(hypothesis) - n + 1)]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("shifted", shifted_by_loop),
        ("shifted", shifted_by_roll),
        ("shifted", lambda targets: np.vstack([[1] * targets.shape[1], targets])[:-1]),
        ("shifted", lambda targets: np.pad(targets, ((1, 0), (0, 0)), constant_values=1)[:-1]),
        ("shifted", lambda targets: seq2seq.shifted(torch.from_numpy(targets))),
        ("token_loss", loss_by_loop),
        ("token_loss", loss_by_mask),
        (
            "token_loss",
            lambda x, y: torch.nn.CrossEntropyLoss(ignore_index=0)(torch.tensor(x).mT.mT.movedim(2, 1), torch.tensor(y)),
        ),
        ("token_loss", lambda x, y: -log_softmax(x[y != 0])[np.arange((y != 0).sum()), y[y != 0]].mean()),
        ("beam_step", beams_by_sorting),
        ("beam_step", beams_of_each_beam_first),
        ("beam_step", beams_in_torch),
        ("clipped_precision", counts_by_crossing_out),
        ("clipped_precision", counts_by_counters),
    ],
)
def test_right_in_many_ways(name, right):
    assert check(name, right).passed


# Wrong


def shifted_in_place(targets):
    targets[1:] = targets[:-1].copy()
    targets[0] = 1
    return targets


def adds_in_place(totals, log_probs, width):
    log_probs += totals[:, None]
    return beam_step(0 * totals, log_probs, width)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("shifted", shifted_in_place, "it changes its argument targets"),
        ("shifted", lambda y: shifted(y).T, "is it the transpose?"),
        (
            "shifted",
            lambda y: np.concatenate([np.ones_like(y[:1]), y]),
            "hint: there are as many inputs as targets: the last row",
        ),
        ("shifted", lambda y: [1, *y[:-1]], "inputs: cannot be read as numbers"),
        ("shifted", lambda y: shifted(y) * (y > 0), "inputs is wrong"),
        ("token_loss", lambda x, y: loss_by_loop(x, y) + 1e-3, "loss is wrong"),
        ("token_loss", lambda x, y: -log_softmax(x)[y != 0].mean(), "loss is wrong"),
        ("token_loss", lambda x, y: loss_by_mask(np.clip(x, -700, 700), y), "loss is wrong"),
        ("token_loss", lambda x, y: (x.argmax(2) == y)[y != 0].mean(), "loss is wrong"),
        ("token_loss", lambda x, y: -np.log(np.exp(x) / np.exp(x).sum(2, keepdims=True))[0], "loss: expected shape (), got"),
        ("beam_step", adds_in_place, "it changes its argument log_probs"),
        ("beam_step", lambda a, b, k: beam_step(a, b, k)[:2], "expected 3 values (beam, token, totals), got 2"),
        ("beam_step", lambda a, b, k: beam_step(a, b, k + 1), "beam: expected shape"),
        ("beam_step", lambda a, b, k: np.stack(beam_step(a, b, k), axis=1), "expected 3 values"),
        ("beam_step", lambda a, b, k: beam_step(-a, -b, k), "beam is wrong"),
        ("beam_step", lambda a, b, k: (*beam_step(a, b, k)[:2], a[:k]), "totals"),
        ("beam_step", lambda a, b, k: beam_step(a[:k], b[:k], k), "✗ beam_step: "),
        ("clipped_precision", lambda h, r, n: 0.5, "expected 2 values (matches, total), got one float"),
        ("clipped_precision", lambda h, r, n: (len([w for w in h if w in r]), len(h)), "matches is wrong"),
        ("clipped_precision", lambda h, r, n: clipped_precision(r, h, n), "total is wrong"),
        ("clipped_precision", lambda h, r, n: clipped_precision(h, r, min(n, 3)), "✗ clipped_precision: "),
        ("clipped_precision", lambda h, r, n: clipped_precision(h, sorted(r), n), "matches is wrong"),
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)
