"""Texts side by side: every token in its place, every text in one batch, and each refusal in one sentence."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.shapes import ShapeError
from course_lib.torch_tokens import CHUNK, check_encoded, columns, similar_lengths


@given(st.lists(st.lists(st.integers(1, 99), max_size=5), max_size=6))
def test_columns_hold_each_sequence_and_zeros_behind(sequences):
    tokens, lengths = columns([np.array(s, np.int32) for s in sequences])
    assert tokens.dtype == lengths.dtype == torch.int64
    assert lengths.tolist() == [len(s) for s in sequences]
    assert tokens.shape == (max(map(len, sequences), default=0), len(sequences))
    for n, s in enumerate(sequences):
        assert tokens[:, n].tolist() == s + [0] * (len(tokens) - len(s))


@given(st.lists(st.integers(1, 30), max_size=100), st.integers(1, 7), st.integers(0, 99))
def test_each_text_is_in_one_batch(lengths, size, seed):
    found = similar_lengths(np.array(lengths), size, np.random.default_rng(seed))
    assert sorted(k for places in found for k in places) == list(range(len(lengths)))
    assert all(1 <= len(places) <= size for places in found)
    assert len(found) == -(-len(lengths) // size)


def test_texts_of_a_batch_are_of_similar_length_and_dealt_anew():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 4 * CHUNK * 8)
    first, second = (similar_lengths(lengths, 8, rng) for _ in range(2))
    spread = np.mean([np.ptp(lengths[places]) for places in first])
    assert spread < 10, "8 random texts of 1 to 99 tokens spread over 78"
    assert {frozenset(p.tolist()) for p in first} != {frozenset(p.tolist()) for p in second}
    means = np.array([lengths[places].mean() for places in first])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4, "short and long batches come in random order"
    again = similar_lengths(lengths, 8, np.random.default_rng(7)), similar_lengths(lengths, 8, np.random.default_rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(*again, strict=True))


TOKENS, LENGTHS = torch.tensor([[1, 5], [4, 0], [2, 0]]), torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("start", "kind", "arguments"),
    [
        ("tokens: expected integers (T, N), got list; encode the texts first", ValueError, ([[1]], LENGTHS)),
        ("lengths: expected integers (N,), got list", ValueError, (TOKENS, [3, 1])),
        ("tokens: expected (T, N), got shape (2,)", ShapeError, (TOKENS[0], LENGTHS)),
        ("lengths: expected (N,), got shape (2, 1)", ShapeError, (TOKENS, LENGTHS[:, None])),
        ("tokens: expected integers (T, N), got torch.float32", ValueError, (TOKENS.float(), LENGTHS)),
        ("tokens: expected integers (T, N), got torch.bool", ValueError, (TOKENS > 0, LENGTHS)),
        ("lengths: expected integers (N,), got torch.float32", ValueError, (TOKENS, LENGTHS.float())),
        ("tokens: expected at least one text of one character, got shape (0, 2)", ValueError, (TOKENS[:0], LENGTHS)),
        ("tokens: expected at least one text of one character, got shape (3, 0)", ValueError, (TOKENS[:, :0], LENGTHS[:0])),
        ("lengths: axis N should be 2 (N = 2 from tokens), got shape (1,)", ShapeError, (TOKENS, LENGTHS[:1])),
        ("lengths: expected integers in [1, 3], T = 3 from tokens, got 0; leave", ValueError, (TOKENS, LENGTHS - 1)),
        ("lengths: expected integers in [1, 3], T = 3 from tokens, got 4; leave", ValueError, (TOKENS, LENGTHS + 1)),
        ("tokens: expected integers in [0, 6), got -1; encode with", ValueError, (TOKENS - 1, LENGTHS)),
        ("tokens: expected integers in [0, 6), got 6; encode with", ValueError, (TOKENS + 1, LENGTHS)),
    ],
)
def test_what_is_wrong_is_named(start, kind, arguments):
    check_encoded(TOKENS, LENGTHS, 6)
    with pytest.raises(kind, match=f"^{re.escape(start)}"):
        check_encoded(*arguments, 6)
