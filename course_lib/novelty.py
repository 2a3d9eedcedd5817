"""What a text repeats: passages of the training text, and its own.

Everything here is exact and counts characters. An n-gram is n characters in a row, at any place of a sample; no n-gram reaches
from one sample into the next.

    novel share     n-grams of the samples that never occur in the training text / all their n-grams     (McCoy et al. 2023)
    distinct-n      different n-grams / all n-grams, over all samples together                           (Li et al. 2016)
    repetition      1 - different n-grams / all n-grams in one sample, mean over samples: seq-rep-n      (Welleck et al. 2020)
    looping share   samples whose end is one passage three times over                                    (Holtzman et al. 2020)

Each depends on n and on the length of the samples: compare only equal ones, and put real text that nobody trained on beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST = 1000  # characters: a longer match is not followed
LOOP = (10, 200)  # characters of a passage that a loop repeats: shorter loops have multiples that are as long
TIMES = 3  # a loop repeats its passage so often

_CODE_POINTS = 0x110000


def match_lengths(samples: Sequence[str], train: str, longest: int = LONGEST) -> list[np.ndarray]:
    """For each place of each sample, how many characters from there on occur in the training text in one piece.

    Lengths grow one by one, for all places at once. Of the training text only those places are kept whose passage occurs in a
    sample, so that after a few characters little is left: 100,000 characters against 1 MB take about a second.

    Args:     longest: matches are followed so far, and longer ones count as this length; at least 1.
    Returns:  An array (characters,) int64 for each sample: 0 to ``longest``.
    Raises:   ValueError: longest below 1.
    """
    if longest < 1:
        raise ValueError(f"longest: expected at least 1, got {longest}")
    text, source = _codes("".join(samples)), _codes(train)
    sizes = [len(sample) for sample in samples]
    ends = np.repeat(np.cumsum(sizes, dtype=np.int64), sizes)  # of the sample that each place is in
    matched = np.zeros(len(text), np.int64)
    # A place is the start of a passage of n - 1 characters; equal passages have equal names.
    places, names = np.arange(len(text)), np.zeros(len(text), np.int64)
    source_places, source_names = np.arange(len(source)), np.zeros(len(source), np.int64)
    for n in range(1, longest + 1):
        inside = places + n <= ends[places]
        places, names = places[inside], names[inside]
        if not len(places):
            break
        inside = source_places + n <= len(source)
        source_places, source_names = source_places[inside], source_names[inside]
        grown, names = np.unique(names * _CODE_POINTS + text[places + n - 1], return_inverse=True)
        wanted = source_names * _CODE_POINTS + source[source_places + n - 1]
        source_names = np.minimum(np.searchsorted(grown, wanted), len(grown) - 1)
        known = grown[source_names] == wanted
        source_places, source_names = source_places[known], source_names[known]
        occurs = np.zeros(len(grown), bool)
        occurs[source_names] = True
        places, names = places[occurs[names]], names[occurs[names]]
        matched[places] = n
    return np.split(matched, np.cumsum(sizes)[:-1]) if sizes else []


def novel_shares(matched: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """The novel n-gram curve: for n = 1 to ``longest``, the share of the samples' n-grams that are not in the training text.

    Args:     matched: of ``match_lengths``, followed at least to ``longest``.
    Returns:  (longest,), never falling for samples of one length; NaN where no sample is n characters long.
    """
    counts, novel = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
    for lengths in matched:
        for n in range(1, min(longest, len(lengths)) + 1):
            counts[n - 1] += len(lengths) - n + 1
            novel[n - 1] += np.count_nonzero(lengths[: len(lengths) - n + 1] < n)
    return np.divide(novel, counts, out=np.full(longest, np.nan), where=counts > 0)


def longest_copy(samples: Sequence[str], matched: Sequence[np.ndarray]) -> str:
    """The longest passage of a sample that stands in the training text, too; of equals, the first; empty if there is none."""
    best = ""
    for sample, lengths in zip(samples, matched, strict=True):
        if len(lengths) and lengths.max() > len(best):
            start = int(lengths.argmax())
            best = sample[start : start + int(lengths[start])]
    return best


def distinct(samples: Sequence[str], n: int) -> float:
    """distinct-n: different n-grams / all n-grams of the samples together, in (0, 1]. It falls as samples grow.

    Raises:   ValueError: n below 1, or no sample is n characters long.
    """
    _check_n(n)
    grams = [sample[i : i + n] for sample in samples for i in range(len(sample) - n + 1)]
    if not grams:
        raise ValueError(
            f"samples: expected one of at least {n} characters (n), the longest has {max(map(len, samples), default=0)}"
        )
    return len(set(grams)) / len(grams)


def repetition(samples: Sequence[str], n: int) -> float:
    """seq-rep-n: the share of a sample's n-grams that occurred before in it, in [0, 1); the mean over samples.

    Raises:   ValueError: n below 1, no samples, or one shorter than n characters.
    """
    _check_n(n)
    if not samples:
        raise ValueError("samples: expected at least one, got none")
    return float(np.mean([1 - distinct([sample], n) for sample in samples]))


def loops(sample: str) -> bool:
    """Whether a sample ends in a loop: the last 30 characters or more are one passage of at least 10 characters three times.

    The passage counts up to 200 characters; what else repeats there, such as blank lines and dashes, counts too.
    """
    return any(
        sample[-TIMES * size : -size] == sample[-(TIMES - 1) * size :]
        for size in range(LOOP[0], min(LOOP[1], len(sample) // TIMES) + 1)
    )


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _check_n(n: int) -> None:
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
