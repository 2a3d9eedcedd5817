"""Copied and repeated passages, against searching for every n-gram by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import novelty

letters = st.text(alphabet="ab\u4e00\U00020000", max_size=30)
texts = st.lists(letters, max_size=5)


def brute_match(sample, start, train, longest):
    n = 0
    while n < longest and start + n < len(sample) and sample[start : start + n + 1] in train:
        n += 1
    return n


@given(texts, letters, st.integers(1, 9))
def test_matches_and_the_curve(samples, train, longest):
    matched = novelty.match_lengths(samples, train, longest)
    assert len(matched) == len(samples)
    for sample, lengths in zip(samples, matched, strict=True):
        assert lengths.tolist() == [brute_match(sample, i, train, longest) for i in range(len(sample))]
    curve = novelty.novel_shares(matched, longest)
    for n in range(1, longest + 1):
        grams = [sample[i : i + n] for sample in samples for i in range(len(sample) - n + 1)]
        if grams:
            assert curve[n - 1] == pytest.approx(np.mean([gram not in train for gram in grams]))
        else:
            assert np.isnan(curve[n - 1])


@given(texts, letters)
def test_the_longest_copy(samples, train):
    copy = novelty.longest_copy(samples, novelty.match_lengths(samples, train))
    pieces = [sample[a:b] for sample in samples for a in range(len(sample)) for b in range(a + 1, len(sample) + 1)]
    copied = [piece for piece in pieces if piece in train]
    assert len(copy) == max(map(len, copied), default=0)
    assert not copy or copy == next(piece for piece in copied if len(piece) == len(copy))


def test_a_planted_copy_is_found_in_a_long_text():
    rng = np.random.default_rng(0)
    train = "".join(rng.choice(list("abcdefgh"), 20_000))
    sample = "".join(rng.choice(list("abcdefgh"), 3_000))
    planted = sample[:1000] + train[7000:7300] + sample[1000:]
    matched = novelty.match_lengths([planted], train, 250)
    assert matched[0][1000] == 250  # not followed further
    assert 300 <= len(novelty.longest_copy([planted], novelty.match_lengths([planted], train))) < 320
    curve = novelty.novel_shares(matched, 250)
    assert (np.diff(curve) >= -1e-3).all()
    assert curve[0] == 0
    assert curve[249] == pytest.approx(1 - 51 / (3300 - 249), abs=0.003)


def test_no_passage_crosses_a_border():
    matched = novelty.match_lengths(["abc", "def"], "abcdef")
    assert [lengths.tolist() for lengths in matched] == [[3, 2, 1], [3, 2, 1]]
    assert novelty.match_lengths([], "abc") == []
    assert novelty.match_lengths(["ab"], "")[0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="longest: expected at least 1, got 0"):
        novelty.match_lengths(["a"], "a", 0)


@given(st.lists(st.text(alphabet="abc", min_size=4, max_size=30), min_size=1, max_size=4), st.integers(1, 4))
def test_distinct_and_repetition(samples, n):
    grams = [[sample[i : i + n] for i in range(len(sample) - n + 1)] for sample in samples]
    together = [gram for one in grams for gram in one]
    assert novelty.distinct(samples, n) == pytest.approx(len(set(together)) / len(together))
    seen_before = [np.mean([gram in one[:i] for i, gram in enumerate(one)]) for one in grams]
    assert novelty.repetition(samples, n) == pytest.approx(np.mean(seen_before))


def test_what_has_no_n_grams():
    with pytest.raises(ValueError, match=r"samples: expected one of at least 4 characters \(n\), the longest has 3"):
        novelty.distinct(["abc", "ab"], 4)
    with pytest.raises(ValueError, match="the longest has 0"):
        novelty.distinct([], 4)
    with pytest.raises(ValueError, match="the longest has 3"):
        novelty.repetition(["abcdef", "abc"], 4)
    with pytest.raises(ValueError, match="samples: expected at least one"):
        novelty.repetition([], 1)
    for measure in (novelty.distinct, novelty.repetition):
        with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
            measure(["abc"], 0)


@pytest.mark.parametrize("size", [1, 3, 7, 10, 11, 137, 200])
def test_loops_are_seen_at_the_end_only(size):
    rng = np.random.default_rng(size)
    start = "".join(map(chr, rng.integers(0x4E00, 0x9FFF, 700)))
    passage = start[:size]
    times = max(3, -(-36 // size))
    assert novelty.loops(start + passage * times)
    assert novelty.loops(start + passage * times + passage[: size // 2])  # breaks off inside
    assert not novelty.loops(start + passage * times + start[-40:])
    if size > 10:
        assert not novelty.loops(start + passage * 2)
    assert not novelty.loops(start)
    assert not novelty.loops("")
    assert not novelty.loops("ab" * 14)  # 28 characters
    assert novelty.loops("ab" * 15)
    assert not novelty.loops(start + start[:201] * 3)
