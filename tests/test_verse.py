"""Forms of poems, counted again by hand and on poems put together at random."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import verse

COMMA, STOP = "\uff0c", "\u3002"


def poem(lengths, seed=0, printed=2):
    """Random characters in lines of these lengths, ``printed`` of them in a printed line."""
    rng = np.random.default_rng(seed)
    lines = ["".join(map(chr, rng.integers(0x4E00, 0x9FFF, n))) for n in lengths]
    return "".join(
        line + (COMMA if i % 2 == 0 else STOP) + ("\n" if i % printed == printed - 1 else "") for i, line in enumerate(lines)
    )


@pytest.mark.parametrize(
    ("lengths", "name", "characters"),
    [
        ([5] * 4, "jueju", 5),
        ([7] * 4, "jueju", 7),
        ([5] * 8, "lüshi", 5),
        ([7] * 8, "lüshi", 7),
        ([5] * 10, "long", 5),
        ([7] * 12, "long", 7),
        ([5] * 6, "irregular", 5),
        ([5] * 2, "irregular", 5),
        ([5] * 9, "irregular", 5),
        ([4] * 8, "irregular", 4),
        ([6] * 4, "irregular", 6),
        ([5, 5, 5, 6], "irregular", 0),
        ([5, 7] * 4, "irregular", 0),
    ],
)
def test_forms(lengths, name, characters):
    for printed in (1, 2, 4):
        form = verse.form(poem(lengths, printed=printed))
        assert form == (name, len(lengths), characters)
        assert form.regular == (name != "irregular")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=14), st.integers(0, 99))
def test_lines_are_what_was_put_in(lengths, seed):
    text = poem(lengths, seed)
    assert list(map(len, verse.lines(text))) == lengths
    assert verse.lines(text) == re.findall(f"[^{COMMA}{STOP}\n]+", text)
    same = set(lengths) in ({5}, {7}) and (len(lengths) in (4, 8) or (len(lengths) > 8 and len(lengths) % 2 == 0))
    assert verse.form(text).regular == same


def test_what_is_no_verse():
    assert verse.form("") == ("irregular", 0, 0)
    assert verse.form("To be, or not to be") == ("irregular", 0, 0)
    assert not verse.form(poem([5] * 4) + "abc").regular
    assert not verse.form(poem([5] * 4) + "7").regular
    lost = poem([5] * 4)
    assert verse.form(verse.LOST + lost[1:]).regular  # a lost character is a character
    assert verse.form("\U00020000" * 5 + lost[5:]).regular  # beyond the basic plane


def test_poems_of_a_text_are_complete():
    first, second = poem([5] * 4, 1), poem([7] * 4, 2)
    assert verse.complete_poems(first + "\n" + second + "\n" + first[:9]) == [first.strip(), second.strip()]
    assert verse.complete_poems(first + "\n\n\n" + second) == [first.strip()]
    assert verse.complete_poems("\n\n" + first + " \n\n") == [first.strip()]
    assert verse.complete_poems(first) == []
    assert verse.complete_poems("") == []


def test_shares():
    poems = [poem([5] * 4), poem([5] * 4, 1), poem([7] * 8), poem([7] * 10), poem([4] * 4), poem([5] * 6), poem([5, 6])]
    shares = verse.shares(poems)
    assert {key: round(7 * share, 9) for key, share in shares.items() if share} == {
        "regular": 4, "jueju 5": 2, "lüshi 7": 1, "long 7": 1, "irregular": 3,
    }  # fmt: skip
    assert list(shares) == [
        "regular", "jueju 5", "jueju 7", "lüshi 5", "lüshi 7", "long 5", "long 7", "irregular"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="poems: expected at least one, got none"):
        verse.shares([])
