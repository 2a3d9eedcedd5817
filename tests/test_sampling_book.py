"""The exercises of lesson 11: what is expected is recomputed, right answers in many ways pass, what is wrong is said."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from course_lib import filters, novelty, writing
from course_lib.exercises import EXERCISES, check
from course_lib.sampling_book import SAMPLING_EXERCISES, chi_square, min_p, novel_share, stop_place

TRIALS = range(20)  # as many as a check looks at


def problems(name, trials=TRIALS):
    return [EXERCISES[name].problem(np.random.default_rng(trial)) for trial in trials]


def test_they_are_registered():
    numbers = {name: EXERCISES[name].number for name in SAMPLING_EXERCISES}
    assert numbers == {"min_p": "11.1", "stop_place": "11.2", "chi_square": "11.3", "novel_share": "11.4"}
    assert all(EXERCISES[name] is exercise and len(exercise.mistakes) >= 11 for name, exercise in SAMPLING_EXERCISES.items())


# The problems


def test_rows_are_distributions_of_which_some_is_cut_and_some_is_kept():
    shares = []
    for p, log_probs in problems("min_p"):
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)
        shares.append((min_p(p)(log_probs) > -np.inf).mean(axis=1))
    assert np.min(shares) <= 1 / 9 and np.max(shares) > 0.9 and len({p for p, _ in problems("min_p")}) >= 4


def test_stop_strings_come_or_not_and_hide_one_another():
    found = [(text, stops, [stop for stop in stops if stop in text]) for text, stops in problems("stop_place", range(100))]
    assert 5 < sum(not inside for _, _, inside in found) < 40
    assert sum(any(text.endswith(stop) for stop in stops) for text, stops, _ in found) > 10
    earliest = [min((text.find(stop) for stop in inside), default=len(text)) for text, _, inside in found]
    assert sum(stop_place(text, stops) != place for (text, stops, _), place in zip(found, earliest, strict=True)) >= 5


def test_counts_have_rare_tokens_and_are_from_the_distribution_or_beside_it():
    distances = []
    for counts, log_probs in problems("chi_square", range(60)):
        assert counts.sum() in (200, 1000) and np.exp(log_probs).sum() == pytest.approx(1)
        assert (counts.sum() * np.exp(log_probs) < 5).sum() >= 3
        statistic, degrees = chi_square(counts, log_probs)
        distances.append(statistic / degrees)
    assert min(distances) < 1 < 5 < max(distances)


def test_samples_are_partly_new_and_have_ngrams_twice():
    shares = [novel_share(*problem) for problem in problems("novel_share")]
    assert np.mean((np.array(shares) > 0.05) & (np.array(shares) < 0.95)) > 0.7
    for sample, train, n in problems("novel_share"):
        assert len(sample) > n and len(train) > n
        assert max(Counter(sample[i : i + n] for i in range(len(sample) - n + 1)).values()) > 1


# What is expected, recomputed


def test_expected_filter_is_the_library_s():
    for p, log_probs in problems("min_p", range(50)):
        np.testing.assert_allclose(np.exp(min_p(p)(log_probs)), np.exp(filters.min_p(p)(log_probs)), atol=1e-15)


def test_expected_place_is_that_of_the_writer():
    for text, stops in problems("stop_place", range(200)):
        draft = writing.Draft("", stops)
        for character in text:
            if not draft.stopped:
                draft.add(character, 0.0)
        assert stop_place(text, stops) == len(draft.finished().text)


def test_expected_statistic_is_the_sum_over_classes():
    for counts, log_probs in problems("chi_square", range(50)):
        p, draws = np.exp(log_probs).tolist(), int(counts.sum())
        classes = [(int(n), draws * q) for n, q in zip(counts, p, strict=True) if draws * q >= 5]
        rest = draws - sum(n for n, _ in classes), draws - sum(e for _, e in classes)
        classes.append(rest)
        statistic, degrees = chi_square(counts, log_probs)
        assert degrees == len(classes) - 1 and statistic == pytest.approx(sum((n - e) ** 2 / e for n, e in classes), rel=1e-9)


def test_the_statistic_is_about_its_degrees_of_freedom():
    rng, log_p = np.random.default_rng(0), np.log([0.4, 0.3, 0.15, 0.1, 0.03, 0.016, 0.004])
    found = [chi_square(rng.multinomial(1000, np.exp(log_p)), log_p) for _ in range(2000)]
    assert {degrees for _, degrees in found} == {6}
    assert np.mean([s for s, _ in found]) == pytest.approx(6, abs=0.4)
    assert np.std([s for s, _ in found]) == pytest.approx(np.sqrt(12), rel=0.15)


def test_expected_share_is_that_of_novelty():
    for sample, train, n in problems("novel_share", range(50)):
        matched = novelty.match_lengths([sample], train)
        assert novel_share(sample, train, n) == pytest.approx(novelty.novel_shares(matched, n)[-1])


# Right in many ways


def min_p_by_loop(p):
    def keep(log_probs):
        probabilities = np.exp(log_probs)
        for row in probabilities:
            row[row < p * row.max() * (1 - 1e-12)] = 0
            row /= row.sum()
        with np.errstate(divide="ignore"):
            return np.log(probabilities)

    return keep


def min_p_in_torch(p):
    def keep(log_probs):
        x = torch.from_numpy(log_probs)
        kept = x.masked_fill(x < x.max(1, keepdim=True).values + np.log(p), -torch.inf)
        return kept.log_softmax(1)

    return keep


def stop_by_regular_expression(text, stops):
    ends = [(at.end(), -len(stop)) for stop in stops for at in re.finditer(f"(?={re.escape(stop)})", text)]
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text] if ends else []
    return sum(min(ends)) if ends else len(text)


def chi_by_loop(counts, log_probs):
    total, classes, rare_n, rare_e = 0.0, 0, 0, 0.0
    for n, lp in zip(counts, log_probs, strict=True):
        expected = sum(counts) * np.exp(lp)
        if expected < 5:
            rare_n, rare_e = rare_n + n, rare_e + expected
        else:
            total, classes = total + (n - expected) ** 2 / expected, classes + 1
    return total + (rare_n - rare_e) ** 2 / rare_e, classes


def share_by_counter(sample, train, n):
    grams = Counter(map("".join, zip(*(sample[k:] for k in range(n)), strict=False)))
    return sum(count for gram, count in grams.items() if gram not in train) / grams.total()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("min_p", filters.min_p),
        ("min_p", min_p_by_loop),
        ("min_p", min_p_in_torch),
        ("stop_place", stop_by_regular_expression),
        ("chi_square", chi_by_loop),
        ("chi_square", lambda counts, log_probs: [float(chi_square(counts, log_probs)[0]), chi_by_loop(counts, log_probs)[1]]),
        ("novel_share", share_by_counter),
        ("novel_share", lambda s, t, n: float(np.mean([s[i : i + n] not in t for i in range(len(s) - n + 1)]))),
    ],
)
def test_right_in_many_ways(name, right):
    assert check(name, right).passed


# Wrong


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "hint", "mistake"),
    [(name, hint, mistake) for name, exercise in SAMPLING_EXERCISES.items() for hint, mistake in exercise.mistakes],
)
def test_each_known_mistake_is_rejected(name, hint, mistake):
    report = check(name, mistake)
    assert not report.passed and not report.lines[0].startswith("○")


def zeroed_in_place(p):
    def keep(log_probs):
        log_probs[log_probs < log_probs.max(axis=1, keepdims=True) + np.log(p)] = -np.inf
        return filters.temperature(1)(log_probs)

    return keep


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("min_p", lambda p: p, "it must return a function of log_probs, got float"),
        ("min_p", zeroed_in_place, "it changes its argument log_probs"),
        ("min_p", lambda p: filters.top_p(p), "log_probs is wrong"),
        ("min_p", lambda p: lambda x: np.where(x >= x.max(1)[:, None] + np.log(p), x, -np.inf), "hint: the kept ones must"),
        ("stop_place", lambda text, stops: min([text.find(s) for s in stops if s in text] or [len(text)]),
         "hint: the first that is complete counts"),
        ("stop_place", lambda text, stops: text[: stop_place(text, stops)], "✗ stop_place: "),
        ("chi_square", lambda n, lp: chi_square(n, lp)[0], "expected 2 values (statistic, degrees)"),
        ("chi_square", lambda n, lp: (chi_square(n, lp)[0], len(n) - 1), "hint: classes, not tokens"),
        ("chi_square", lambda n, lp: (chi_square(n, lp)[0] + 1e-3, chi_square(n, lp)[1]), "statistic is wrong"),
        ("novel_share", lambda s, t, n: 1 - novel_share(s, t, n), "hint: that is the share that does occur there"),
        ("novel_share", lambda s, t, n: novel_share(t, s, n), "share is wrong"),
        ("novel_share", lambda s, t, n: 100 * novel_share(s, t, n), "share is wrong"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert report.passed == said.startswith("✓") and said in "\n".join(report.lines)
