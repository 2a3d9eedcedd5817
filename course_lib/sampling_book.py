"""The exercises of lesson 11: a filter, stop strings, a law of sampling as a number, novelty.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.diagnosis import MisfitError
from course_lib.exercise_book import Exercise, slips
from course_lib.filters import Filter
from course_lib.layers import log_softmax

FEWEST = 5  # draws expected of a token that is compared by itself


def min_p(p: float) -> Filter:
    """Keep the tokens at least p times as probable as the most probable one of their row.

    Reference: Nguyen et al. 2024.
    """

    def keep(log_probs: np.ndarray) -> np.ndarray:
        best = log_probs.max(axis=1, keepdims=True)
        return log_softmax(np.where(log_probs >= best + np.log(p), log_probs, -np.inf))

    return keep


def stop_place(text: str, stops: Sequence[str]) -> int:
    """How many characters of a text are left when it is cut before the first stop string that is complete.

    Written character by character, the text ends as soon as it ends in a stop string; of two complete at once, the longer
    one is cut off. Without one, all is left.
    """
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end - max(map(len, found))
    return len(text)


def chi_square(counts: np.ndarray, log_probs: np.ndarray) -> tuple[float, int]:
    """How far counts of drawn tokens are from a distribution: Pearson's statistic, and its degrees of freedom.

    Tokens expected fewer than 5 times are put together into one class, which may be rare itself.

    Args:     counts, log_probs: (V,). Some tokens are rare.
    Returns:  the sum of (count - expected)² / expected over the classes; the number of classes less 1.
    Reference: Pearson 1900.
    """
    expected = counts.sum() * np.exp(log_probs)
    rare = expected < FEWEST
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    return ((observed - expected) ** 2 / expected).sum(), len(expected) - 1


def novel_share(sample: str, train: str, n: int) -> float:
    """The share of a sample's n-grams (n characters in a row, at every place) that never occur in the training text.

    Args:     sample, train: at least n characters.
    Reference: McCoy et al. 2023.
    """
    known = {train[i : i + n] for i in range(len(train) - n + 1)}
    grams = [sample[i : i + n] for i in range(len(sample) - n + 1)]
    return sum(gram not in known for gram in grams) / len(grams)


def _filtered(make: Callable, p: float, log_probs: np.ndarray) -> np.ndarray:
    keep = make(p)
    if not callable(keep):
        raise MisfitError(f"it must return a function of log_probs, got {type(keep).__name__}")
    return keep(log_probs)


def _rows(rng: np.random.Generator) -> tuple:
    """Rows that are sure and rows that are not."""
    scale = rng.permutation([0.5, 1.5, 4.0])[:, None]
    return float(rng.choice([0.02, 0.1, 0.3, 0.8, 1.0])), log_softmax(scale * rng.normal(0, 1, (3, 9)))


def _stopped(rng: np.random.Generator) -> tuple:
    """A text with stop strings in it, one inside or at the end of another; at its end, too, or nowhere."""
    stops = [["ad\nbc", "d\n"], ["ad\n", "d\n"], ["bdd", "d\nd", "bd"], ["\nab", "\nb"], ["d"]][
        rng.choice(5, p=[0.3, 0.3, 0.2, 0.1, 0.1])
    ]
    pieces = ["".join(rng.choice(list("abc "), rng.integers(2, 9))) for _ in range(3)]
    first, second = rng.choice(stops, 2) if rng.random() < 0.3 else (stops[0], stops[-1])
    text = [pieces[0], str(first), pieces[1], str(second), pieces[2]][: rng.choice([1, 2, 2, 3, 5, 5])]
    return "".join(text), rng.permutation(stops).tolist()


def _counts(rng: np.random.Generator) -> tuple:
    """Counts from a distribution with rare tokens, or from one a little beside it."""
    V, draws = int(rng.integers(8, 14)), int(rng.choice([200, 1000]))
    log_probs = log_softmax(2 * rng.normal(0, 1, V))
    log_probs[rng.choice(V, 3, replace=False)] -= 9
    log_probs = log_softmax(log_probs[None])[0]
    beside = log_softmax((log_probs + rng.choice([0, 0.7]) * rng.normal(0, 1, V))[None])[0]
    return rng.multinomial(draws, np.exp(beside)), log_probs


def _texts(rng: np.random.Generator) -> tuple:
    """A training text, and a sample that takes pieces of it, some of them twice."""
    train = "".join(rng.choice(list("abc "), rng.integers(30, 60)))
    pieces = [train[i : i + int(rng.integers(6, 10))] for i in rng.integers(0, len(train) - 9, rng.integers(1, 4))]
    pieces.append(train[-int(rng.integers(4, 9)) :])
    sample = "".join([*pieces, pieces[0]]) + "".join(rng.choice(list("abc "), 20))
    return sample, train, int(rng.integers(3, 6))


_COMPLETE = "text[:end].endswith(stop)"
_KNOWN = "{train[i : i + n] for i in range(len(train) - n + 1)}"
_GRAMS = "[sample[i : i + n] for i in range(len(sample) - n + 1)]"

SAMPLING_EXERCISES: dict[str, Exercise] = {
    "min_p": Exercise(
        "11.1",
        min_p,
        _rows,
        [
            *slips(
                min_p,
                ("p is a share of the best one's probability, not a probability: add log p to the best",
                 "best + np.log(p)", "np.log(p) + 0 * best", "-np.inf", "-1e9"),
                ("the kept ones must sum to 1 again: normalise", "log_softmax(np.where", "(np.where"),
                ("of log-probabilities, the product p times best is a sum: best + log p", "best + np.log(p)", "best * p"),
                ("log-probabilities are compared with log p, not with p", "np.log(p)", "p"),
                ("those are the ones below the threshold", ">=", "<"),
                ("at least p times as probable: the best one itself stays when p is 1",
                 ">=", ">", "-np.inf", "-1e9"),
                ("each row has a best of its own: max over axis 1", "log_probs.max(axis=1, keepdims=True)", "log_probs.max()",
                 "-np.inf", "-1e9"),
                ("the best of a row, not of a column: axis 1", "axis=1", "axis=0", "-np.inf", "-1e9"),
                ("as probable as the best one, not as the mean", ".max(", ".mean("),
                ("what is cut gets probability 0, log-probability -inf, not 0", "-np.inf", "0.0"),
                ("these are probabilities; log-probabilities are asked for",
                 "return log_softmax(np.where(log_probs >= best + np.log(p), log_probs, -np.inf))",
                 "return np.exp(log_softmax(np.where(log_probs >= best + np.log(p), log_probs, -np.inf)))"),
            ),
        ],
        call=_filtered, arguments="p log_probs", usage="function(p)(log_probs)", outputs="log_probs",
    ),
    "stop_place": Exercise(
        "11.2",
        stop_place,
        _stopped,
        [
            ("the first in the text counts, not the first in the list",
             lambda text, stops: next((text.find(stop) for stop in stops if stop in text), len(text))),
            *slips(
                stop_place,
                ("a stop string at the very end counts, too", "range(1, len(text) + 1)", "range(1, len(text))"),
                ("the stop string itself is not part of the text", "end - max(map(len, found))", "end"),
                ("of two complete at once the longer is cut off", "max(map(len, found))", "min(map(len, found))"),
                ("all stop strings are looked for, not the first in the list",
                 "for stop in stops if", "for stop in stops[:1] if"),
                ("the first that is complete, not the last", "range(1, len(text) + 1)", "range(len(text), 0, -1)"),
                ("without a stop string all is left", "return len(text)", "return -1"),
                ("without a stop string all is left, not nothing", "return len(text)", "return 0"),
                ("a text ends with a stop string, not with its first character", _COMPLETE, "text[:end].endswith(stop[0])"),
                ("cut before the stop string, all of it: not only its last character", "end - max(map(len, found))", "end - 1"),
            ),
            ("the first that is complete counts, not the first that begins: a short one inside a long one is complete earlier",
             lambda text, stops: min((text.find(stop) for stop in stops if stop in text), default=len(text))),
            ("find gives -1 for a stop string that does not come: leave it out",
             lambda text, stops: min(text.find(stop) for stop in stops)),
        ],
        arguments="text stops", outputs="characters",
    ),
    "chi_square": Exercise(
        "11.3",
        chi_square,
        _counts,
        [
            *slips(
                chi_square,
                ("expected are counts, too: the number of draws times the probability", "counts.sum() * np", "np"),
                ("the logarithms are given: p is exp(log p)", "np.exp(log_probs)", "log_probs"),
                ("rare tokens are put together: nothing is left out",
                 "np.append(counts[~rare], counts[rare].sum())", "counts[~rare]",
                 "np.append(expected[~rare], expected[rare].sum())", "expected[~rare]"),
                ("tokens expected fewer than 5 times are one class together", "expected < FEWEST", "expected < 0.01"),
                ("rare is what is expected fewer than 5 times, not what came fewer than 5 times",
                 "rare = expected <", "rare = counts <"),
                ("the difference is squared", "(observed - expected) ** 2", "abs(observed - expected)"),
                ("divided by the expected count, not by the observed one", "** 2 / expected", "** 2 / np.maximum(observed, 1)"),
                ("divided by the expected count: a variance, without a root", "/ expected)", "/ np.sqrt(expected))"),
                ("each square is divided by the expected count of its own class",
                 "((observed - expected) ** 2 / expected).sum()", "((observed - expected) ** 2).sum() / expected.sum()"),
                ("the sum over the classes, not their mean", "/ expected).sum()", "/ expected).mean()"),
                ("the counts sum to the number of draws, so one class is not free: classes less 1",
                 "len(expected) - 1", "len(expected)"),
                ("classes, not tokens: the rare ones are one class", "len(expected) - 1", "len(log_probs) - 1"),
                ("a square is a square, and a logarithm of a ratio another statistic (G)",
                 "((observed - expected) ** 2 / expected).sum()",
                 "2 * (observed * np.log(np.maximum(observed, 1e-300) / expected)).sum()"),
                ("statistic and degrees of freedom are exchanged",
                 "return ((observed - expected) ** 2 / expected).sum(), len(expected) - 1",
                 "return len(expected) - 1, ((observed - expected) ** 2 / expected).sum()"),
            ),
        ],
        arguments="counts log_probs", outputs="statistic degrees",
    ),
    "novel_share": Exercise(
        "11.4",
        novel_share,
        _texts,
        [
            *slips(
                novel_share,
                ("that is the share that does occur there", "not in known", "in known"),
                ("a share: divide by the number of the sample's n-grams", " / len(grams)", ""),
                ("every place counts: a gram that comes twice counts twice", _GRAMS, "{*" + _GRAMS + "}"),
                ("m characters have m - n + 1 n-grams: the sample's last one is missing",
                 "len(sample) - n + 1", "len(sample) - n"),
                ("m characters have m - n + 1 n-grams: the training text's last one is missing",
                 "len(train) - n + 1", "len(train) - n"),
                ("n-grams overlap: one begins at every place of the sample",
                 "range(len(sample) - n + 1)", "range(0, len(sample) - n + 1, n)"),
                ("n-grams overlap: one begins at every place of the training text",
                 "range(len(train) - n + 1)", "range(0, len(train) - n + 1, n)"),
                ("behind the end an n-gram has fewer than n characters: it does not count",
                 "range(len(sample) - n + 1)", "range(len(sample))"),
                ("n characters, not n + 1", "train[i : i + n]", "train[i : i + n + 1]",
                 "sample[i : i + n]", "sample[i : i + n + 1]"),
                ("single characters are compared: n in a row", "sample[i : i + n]", "sample[i]"),
                ("divide by the number of n-grams, not of characters", "/ len(grams)", "/ len(sample)"),
                ("the sample's n-grams are asked about, not the training text's",
                 "sum(gram not in known for gram in grams) / len(grams)",
                 "sum(gram not in {*grams} for gram in known) / len(known)"),
            ),
        ],
        arguments="sample train n", outputs="share",
    ),
}  # fmt: skip
