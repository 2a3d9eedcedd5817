"""Constraints: examples, what they say when nothing can go on, large vocabularies. Their laws are in test_sampling_laws."""

# ruff: noqa: RUF001  (Chinese punctuation)

import numpy as np
import pytest
import regex

from course_lib import constraints, decoding
from course_lib.constraints import END, alike, allow, matching
from course_lib.filters import forbid, top_k
from course_lib.text import CharTokenizer

TOKENIZER = CharTokenizer.from_text("abc\n")  # ids: newline 1, a 2, b 3, c 4


def rows(*probs):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probs, float))


def history(*texts):
    """Token 1, then the texts, all of one length; a dot is END."""
    columns = [[1, *(END if c == "." else int(TOKENIZER.encode(c)[0]) for c in text)] for text in texts]
    return np.array(columns).T


def test_the_example_of_the_docstring():
    """Behind a match, the end has the probability of all that the pattern does not allow."""
    apply = matching("a[ab]+", TOKENIZER)
    row = [0, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(np.exp(apply(rows(row), history(""))), [[0, 0, 1, 0, 0]])
    np.testing.assert_allclose(np.exp(apply(rows(row), history("a"))), [[0, 0, 0.4, 0.6, 0]])
    np.testing.assert_allclose(np.exp(apply(rows(row, row), history("ab", "aa"))), [[0.5, 0, 0.2, 0.3, 0]] * 2)
    np.testing.assert_allclose(np.exp(apply(rows(row, row), history("ab.", "aba"))), [[1, 0, 0, 0, 0], [0.5, 0, 0.2, 0.3, 0]])


def test_a_match_behind_which_nothing_follows_ends_for_certain():
    apply = matching("ab|ac", TOKENIZER)
    np.testing.assert_allclose(np.exp(apply(rows([0, 0.1, 0.2, 0.3, 0.4]), history("ab"))), [[1, 0, 0, 0, 0]])
    tokens = decoding.sample(
        lambda token, state: (np.tile(rows([0.1, 0.2, 0.2, 0.2, 0.3]), (len(token), 1)), state), (), np.full(50, 3), 9,
        np.random.default_rng(0), [forbid([0]), apply], end=END,
    )  # fmt: skip
    assert tokens.shape == (3, 50)  # over as soon as each has ended
    assert {TOKENIZER.decode(column) for column in tokens.T} == {"ab\N{REPLACEMENT CHARACTER}", "ac\N{REPLACEMENT CHARACTER}"}


def test_single_precision_stays():
    for apply in (allow("ab", TOKENIZER), lambda log_probs: matching("a*", TOKENIZER)(log_probs, history("a"))):
        assert apply(rows([0, 0.1, 0.2, 0.3, 0.4]).astype(np.float32)).dtype == np.float32


def failing(function, *arguments):
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    return str(caught.value)


def test_patterns_that_are_none():
    assert failing(matching, "(a", TOKENIZER) == "matching: expected a regular expression, got '(a' (missing ) at position 2)"


def test_no_character_can_go_on():
    """At the beginning it is told at once; later, when a stream gets there. Never by an empty set."""
    message = failing(matching, "é+", TOKENIZER)
    assert message == "matching: at the beginning, 'é+' needs a character that the model does not know"
    apply = matching("a|bé", TOKENIZER)
    apply(rows([0, 0.1, 0.2, 0.3, 0.4]), history(""))
    message = failing(apply, rows([0, 0.1, 0.2, 0.3, 0.4]), history("b"))
    assert message == "matching: behind 'b', 'a|bé' needs a character that the model does not know"
    np.testing.assert_allclose(np.exp(matching("é?", TOKENIZER)(rows([0, 1, 0, 0, 0]), history(""))), [[1, 0, 0, 0, 0]])


def test_what_was_cut_before():
    row = rows([0, 0.1, 0.2, 0.3, 0.4])
    message = failing(matching("a", TOKENIZER), top_k(1)(row), history(""))
    assert message == "matching: expected a character that is still possible (matching first, cut afterwards), got 'a'"
    message = failing(allow("a", TOKENIZER), top_k(1)(row))
    assert message == "allow: expected a token that is still possible (allow first, cut afterwards), got 'a'"


@pytest.mark.parametrize("nothing", ["", "狐é", []])
def test_a_set_that_allows_nothing(nothing):
    message = failing(allow, nothing, TOKENIZER)
    assert message == f"allow: expected at least one token that the model knows, got {nothing!r}"


def test_tokens_by_number():
    np.testing.assert_allclose(np.exp(allow([0, 3])(rows([0.1, 0.2, 0.2, 0.3, 0.2]))), [[0.25, 0, 0, 0.75, 0]])


def test_a_pattern_without_end_is_an_error_not_a_standstill(monkeypatch):
    monkeypatch.setattr(constraints, "SECONDS", 0.05)
    apply = matching("(?:(?:a|b|ab)*)*(?=c)a", TOKENIZER)
    message = failing(apply, rows([0, 0.1, 0.2, 0.3, 0.4]), history("ab" * 20))
    assert message.startswith("matching: '(?:(?:a|b|ab)*)*(?=c)a' takes more than 0.05 s behind '")


def test_a_large_vocabulary_is_tested_by_groups(monkeypatch):
    """A form of a poem over 6,000 characters: four tests a step, not 6,000; and the same answer as one by one."""
    characters = "\n，。" + "".join(chr(0x4E00 + i) for i in range(5997))
    pattern = "(?:[^，。\n]{5}，[^，。\n]{5}。\n)+"
    tokenizer = CharTokenizer(characters)
    assert len(alike(pattern, characters)) == 4  # newline, comma, full stop, all the rest
    calls = []
    original = regex.compile

    class Counted:
        def __init__(self, *arguments):
            self.pattern = original(*arguments)

        def fullmatch(self, *arguments, **options):
            calls.append(arguments)
            return self.pattern.fullmatch(*arguments, **options)

    monkeypatch.setattr(regex, "compile", Counted)
    apply = matching(pattern, tokenizer)
    calls.clear()
    uniform = np.full((8, 6001), -np.log(6001))
    text = tokenizer.encode("一丁七万丈，三上")
    past = np.tile(np.concatenate([[1], text])[:, None], (1, 8))
    found = apply(uniform, past)
    assert len(calls) == 5  # four groups and the whole text, once for eight streams with the same text
    compiled = original(pattern)
    allowed = [compiled.fullmatch("一丁七万丈，三上" + c, partial=True) is not None for c in characters]
    np.testing.assert_array_equal(found[0, 1:] > -np.inf, allowed)


@pytest.mark.parametrize(
    "unusual",
    [r"(a)\1", "(?P<x>a)(?P=x)", "[[:alpha:]]", "(?V1)[[a-z]--[b]]", r"\N{DIGIT ONE}?", "(?r)ab", r"\X", "(a(?R)?b)"],
)
def test_patterns_that_are_not_understood_are_tested_character_by_character(unusual):
    assert len(alike(unusual, "abc\n")) == 4
