"""Tokenizers: ids and text are inverse to each other, for any Unicode, and hostile descriptions are refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import text as text_module
from course_lib.errors import CourseError
from course_lib.text import BOS, EOS, PAD, UNKNOWN, UNKNOWN_SHOWN, CharTokenizer, Vocabulary, WordTokenizer, split_words

# Every character but the surrogates, which are halves of characters; hypothesis likes the astral planes and U+0000.
any_text = st.text(st.characters(exclude_categories=["Cs"]))
some_text = any_text.filter(bool)


@given(some_text, any_text)
def test_characters_against_a_dictionary(training, other):
    tokenizer = CharTokenizer.from_text(training)
    ids = {c: i for i, c in enumerate(sorted(set(training)), 1)}
    encoded = tokenizer.encode(training + other)
    assert encoded.tolist() == [ids.get(c, 0) for c in training + other]
    assert encoded.dtype == np.int32
    assert tokenizer.size == len(ids) + 1
    assert tokenizer.decode(encoded) == training + "".join(c if c in ids else UNKNOWN_SHOWN for c in other)
    assert tokenizer.unknown(training + other) == sorted({c for c in other if c not in ids})


def test_long_texts_are_encoded_in_pieces(monkeypatch):
    monkeypatch.setattr(text_module, "_CHUNK", 7)
    text = "the quick 🦊 jumps over 狗, twice: 🦊🦊"
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.characters == "".join(sorted(set(text)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(CourseError, match=r"U\+DC80 at position 37"):
        tokenizer.encode("x" * 37 + "\udc80")


@given(some_text)
def test_character_config_survives_json(training):
    tokenizer = CharTokenizer.from_text(training)
    assert CharTokenizer.from_config(json.loads(json.dumps(tokenizer.to_config()))) == tokenizer


@given(any_text, st.characters(categories=["Cs"]), any_text)
def test_half_characters_are_refused_in_one_line(before, half, after):
    text = before + half + after
    for use in (CharTokenizer.from_text, CharTokenizer.from_text("abc").encode):
        with pytest.raises(CourseError, match=rf"half a character \(U\+{ord(half):04X} at position {len(before):,}\)"):
            use(text)


def test_empty_text_has_no_vocabulary():
    with pytest.raises(CourseError, match="empty"):
        CharTokenizer.from_text("")
    with pytest.raises(CourseError, match="no word"):
        WordTokenizer.from_text(" \n")
    assert CharTokenizer.from_text("ab").encode("").shape == (0,)
    assert CharTokenizer.from_text("ab").decode([]) == ""


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 3], r"ids: expected integers in \[0, 3\), got 3"),
        ([-1, 1], r"ids: expected integers in \[0, 3\), got -1"),
        ([0.5], r"ids: expected one row of integers, got shape \(1,\) of float64"),
        ([[1]], r"ids: expected one row of integers, got shape \(1, 1\) of int64"),
        (1, r"ids: expected one row"),
        ([True], "of bool"),
    ],
)
def test_decode_names_what_is_wrong(ids, message):
    with pytest.raises(ValueError, match=message):
        CharTokenizer.from_text("ab").decode(ids)
    words = WordTokenizer(("w", "v"))
    with pytest.raises(ValueError, match=message.replace("3", "6")):
        words.decode(np.array(ids) * 2 if isinstance(ids, list) and 3 in ids else ids)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "kind 'char'"),
        ([], "kind 'char'"),
        ({"kind": "word", "words": ["a"]}, "kind 'char'"),
        ({"kind": "char"}, "list that is not empty"),
        ({"kind": "char", "characters": []}, "list that is not empty"),
        ({"kind": "char", "characters": "abc"}, "list that is not empty"),
        ({"kind": "char", "characters": ["a", 1]}, "got 1"),
        ({"kind": "char", "characters": ["a", ["b"]]}, r"got \['b'\]"),
        ({"kind": "char", "characters": ["a", ""]}, "got ''"),
        ({"kind": "char", "characters": ["a", "b", "a"]}, "got 'a' twice"),
        ({"kind": "char", "characters": ["a", "bc"]}, "'bc' is not one character"),
        ({"kind": "char", "characters": ["\ud800"]}, "half a character"),
    ],
)
def test_damaged_character_config(config, message):
    with pytest.raises(CourseError, match=message) as caught:
        CharTokenizer.from_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "char", "characters": ["a"]}, "kind 'word'"),
        ({"kind": "word", "words": ["a", "a"], "lowercase": True}, "twice"),
        ({"kind": "word", "words": ["a", None], "lowercase": True}, "got None"),
        ({"kind": "word", "words": ["a"]}, "lowercase should be"),
        ({"kind": "word", "words": ["a"], "lowercase": 1}, "lowercase should be"),
        ({"kind": "word", "words": ["a", PAD], "lowercase": False}, "special"),
    ],
)
def test_damaged_word_config(config, message):
    with pytest.raises(CourseError, match=message):
        WordTokenizer.from_config(config)


def test_constructors_refuse_repeated_tokens():
    for make in (lambda: Vocabulary(("a", "a")), lambda: CharTokenizer("aa"), lambda: WordTokenizer(("a", "a"))):
        with pytest.raises(ValueError, match="twice"):
            make()
    assert Vocabulary(("x", "y")).ids == {"x": 0, "y": 1}
    assert Vocabulary(("x", "y")).size == 2


def test_words_keep_their_special_ids_and_frequency_order():
    tokenizer = WordTokenizer.from_text("b a b c a b. don't", min_count=1)
    assert tokenizer.vocabulary.tokens == (PAD, BOS, EOS, UNKNOWN, "b", "a", ".", "c", "don't")
    assert tokenizer.encode("a d b", bos=True, eos=True).tolist() == [1, 5, 3, 4, 2]
    assert tokenizer.unknown("a d, b") == [",", "d"]
    assert WordTokenizer.from_text("b a b c a b", min_count=2).words == ("b", "a")
    assert WordTokenizer.from_text("b a b c a b", max_size=5).words == ("b",)
    with pytest.raises(CourseError, match="occurs 4 times"):
        WordTokenizer.from_text("b a b c a b", min_count=4)
    with pytest.raises(ValueError, match="max_size: expected at least 5, got 4"):
        WordTokenizer.from_text("a", max_size=4)
    with pytest.raises(ValueError, match="min_count"):
        WordTokenizer.from_text("a", min_count=0)


def test_words_are_spaced_as_english_sets_them():
    sentence = "Well (she said), don't go: it's [almost] 5 % off! Really?"
    tokenizer = WordTokenizer.from_text(sentence)
    assert tokenizer.decode(tokenizer.encode(sentence)) == sentence.replace(" %", "%")
    ids = tokenizer.vocabulary.ids
    assert tokenizer.decode([ids[BOS], ids["go"], ids[UNKNOWN], ids[PAD], ids["!"], ids[EOS], ids["she"]]) == "go <unk>!"


def test_lowercase_is_kept_in_the_config():
    tokenizer = WordTokenizer.from_text("The THE the", lowercase=True)
    assert tokenizer.words == ("the",)
    again = WordTokenizer.from_config(json.loads(json.dumps(tokenizer.to_config())))
    assert again == tokenizer
    assert again.encode("The").tolist() == [4]


@given(any_text.filter(lambda text: split_words(text)))
def test_words_round_trip(text):
    tokenizer = WordTokenizer.from_text(text)
    assert split_words(tokenizer.decode(tokenizer.encode(text))) == split_words(text)
    assert WordTokenizer.from_config(json.loads(json.dumps(tokenizer.to_config()))) == tokenizer
