"""Sentences to integers and back: by characters and by words, Chinese and Japanese ones too."""

import json
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.errors import CourseError
from course_lib.text import WordTokenizer
from course_lib.units import UnitTokenizer

SENTENCES = ["The cat sat.", "the Cat, the dog (mine) sat!", "Don't: a dog's 3 cats?", "naïve café"]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
english = st.text(st.sampled_from("ab cd'.,;:!?()[]{}%…-é3\n"), max_size=40)


@given(texts, st.booleans())
def test_characters_come_back(text, lowercase):
    tokenizer = UnitTokenizer.from_texts([text, "x"], "characters", lowercase=lowercase)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text.lower() if lowercase else text)
    assert tokenizer.size == 4 + len(tokenizer.tokens)
    assert not len(ids) or (ids.min() >= 4 and ids.max() < tokenizer.size)


@given(texts | st.text(st.sampled_from("我们。、\uff01\uff1f\uff08\uff09「」ー々ひカ가나a1 .,'(-…"), max_size=30))
def test_words_that_were_joined_split_as_before(text):
    tokenizer = UnitTokenizer("words", ("a",))
    pieces = tokenizer.split(text)
    assert tokenizer.split(tokenizer.join(pieces)) == pieces
    assert "".join(pieces) == "".join(unicodedata.normalize("NFC", text).split())


@given(st.lists(english, min_size=1, max_size=4), english, st.integers(1, 2), st.booleans())
def test_without_chinese_it_is_the_word_tokenizer(train, text, min_count, lowercase):
    try:
        theirs = WordTokenizer.from_text("\n".join(train), min_count=min_count, lowercase=lowercase)
    except CourseError:
        with pytest.raises(CourseError, match=f"none of the words of the texts occurs {min_count} times"):
            UnitTokenizer.from_texts(train, "words", min_count, lowercase=lowercase)
        return
    ours = UnitTokenizer.from_texts(train, "words", min_count, lowercase=lowercase)
    assert ours.tokens == theirs.words
    assert ours.encode(text).tolist() == theirs.encode(text).tolist()
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.unknown(text) == theirs.unknown(text)


@pytest.mark.parametrize(
    ("text", "pieces", "joined"),
    [
        ("我在1999年 Tom, 是学生。", ["我", "在", "1999", "年", "Tom", ",", "是", "学", "生", "。"], "我在1999年Tom,是学生。"),
        ("嗨\uff01你好", ["嗨", "\uff01", "你", "好"], "嗨\uff01你好"),
        ("ひらがな、カタカナー", [*"ひらがな、カタカナー"], "ひらがな、カタカナー"),
        ("時々 𠀀", ["時", "々", "𠀀"], "時々𠀀"),
        ("저는 학생입니다.", ["저는", "학생입니다", "."], "저는 학생입니다."),
        ("he said ( yes ) : « oui »", ["he", "said", "(", "yes", ")", ":", "«", "oui", "»"], "he said (yes): « oui »"),
    ],
    ids=["mixed", "full-width", "Japanese", "rare Han", "Korean", "English"],
)
def test_words_of_several_scripts(text, pieces, joined):
    tokenizer = UnitTokenizer.from_texts([text], "words")
    assert tokenizer.split(text) == pieces
    assert tokenizer.decode(tokenizer.encode(text)) == joined


@pytest.mark.parametrize("kind", ["characters", "words"])
def test_an_accent_is_the_same_however_it_was_typed(kind):
    tokenizer = UnitTokenizer.from_texts(["cafe\u0301 no"], kind)
    assert tokenizer.encode("caf\u00e9").tolist() == tokenizer.encode("cafe\u0301").tolist()
    assert tokenizer.unknown("caf\u00e9") == []
    assert UnitTokenizer.from_texts(["CAFE\u0301"], kind, lowercase=True).unknown("caf\u00c9") == []


@pytest.mark.parametrize("kind", ["characters", "words"])
@pytest.mark.parametrize("min_count", [1, 2, 3])
@pytest.mark.parametrize("max_size", [None, 5, 9, 1000])
def test_the_most_frequent_come_first(kind, min_count, max_size):
    tokenizer = UnitTokenizer.from_texts(iter(SENTENCES), kind, min_count, max_size, lowercase=True)
    counts = Counter(unit for text in SENTENCES for unit in tokenizer.split(text))
    frequent = {unit for unit, n in counts.items() if n >= min_count}
    ranked = [counts[unit] for unit in tokenizer.tokens]
    assert ranked == sorted(ranked, reverse=True)
    assert len(tokenizer.tokens) == min(len(frequent), (max_size or 10**6) - 4)
    assert set(tokenizer.tokens) <= frequent
    assert all(counts[unit] <= min(ranked) for unit in frequent - set(tokenizer.tokens))
    for text in SENTENCES:
        known = [unit if unit in tokenizer.tokens else "?" for unit in tokenizer.split(text)]
        shown = [tokenizer.vocabulary.tokens[i] if i != 3 else "?" for i in tokenizer.encode(text)]
        assert shown == known


def test_special_tokens():
    words = UnitTokenizer.from_texts(SENTENCES, "words", min_count=2)
    assert words.vocabulary.tokens[:4] == ("<pad>", "<bos>", "<eos>", "<unk>")
    a, b = words.encode("sat the")
    assert words.decode([1, a, 0, 3, b, 0, 2, a]) == "sat <unk> the"
    characters = UnitTokenizer("characters", ("a", "b"))
    assert characters.decode([1, 4, 3, 0, 5, 2, 4]) == "a\N{REPLACEMENT CHARACTER}b"
    for tokenizer in (words, characters):
        assert tokenizer.decode([]) == tokenizer.decode(np.zeros(5, int)) == ""
        empty = tokenizer.encode("")
        assert (empty.shape, empty.dtype) == ((0,), np.int32)
        assert not set(tokenizer.encode("<pad> <bos> <eos>").tolist()) & {0, 1, 2}  # text does not become a command
        for ids in ([tokenizer.size], [-1], [[4]], [4.0]):
            with pytest.raises(ValueError, match="ids: expected"):
                tokenizer.decode(ids)
    assert UnitTokenizer("words", ("我", "們", "a")).decode([4, 3, 5, 3, 6, 3]) == "我<unk>們<unk> a <unk>"


@given(st.lists(texts.filter(str.strip), min_size=1, max_size=5), st.sampled_from(["characters", "words"]), st.booleans())
def test_configuration_survives_json(train, kind, lowercase):
    tokenizer = UnitTokenizer.from_texts([*train, "x"], kind, lowercase=lowercase)
    again = UnitTokenizer.from_config(json.loads(json.dumps(tokenizer.to_config())))
    assert again == tokenizer
    assert [again.encode(text).tolist() for text in train] == [tokenizer.encode(text).tolist() for text in train]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "expected one of kind 'characters' or 'words'"),
        ([], "expected one of kind"),
        ({"kind": "word", "tokens": ["a"], "lowercase": False}, "expected one of kind"),
        ({"kind": ["words"], "tokens": ["a"], "lowercase": False}, "expected one of kind"),
        ({"kind": "words", "lowercase": False}, "tokens should be a list that is not empty"),
        ({"kind": "words", "tokens": [], "lowercase": False}, "tokens should be a list that is not empty"),
        ({"kind": "words", "tokens": ["a", "a"], "lowercase": False}, "got 'a' twice"),
        ({"kind": "words", "tokens": ["a", 1], "lowercase": False}, "got 1"),
        ({"kind": "words", "tokens": ["a", ""], "lowercase": False}, "got ''"),
        ({"kind": "words", "tokens": ["a", "\ud800"], "lowercase": False}, "half a character"),
        ({"kind": "words", "tokens": ["a", "<eos>"], "lowercase": False}, "spelled like a special token"),
        ({"kind": "words", "tokens": ["a"]}, "lowercase should be true or false, got None"),
        ({"kind": "words", "tokens": ["a"], "lowercase": 1}, "lowercase should be true or false, got 1"),
        ({"kind": "characters", "tokens": ["a", "bc"], "lowercase": False}, "'bc', which is not one character"),
    ],
)
def test_damaged_configurations(config, message):
    with pytest.raises(CourseError, match=message) as caught:
        UnitTokenizer.from_config(config)
    assert str(caught.value).startswith("the tokenizer's description is damaged: ")
    assert "\n" not in str(caught.value)


def test_refused_arguments():
    for make, message in [
        (lambda: UnitTokenizer("word", ("a",)), "kind: expected 'characters' or 'words', got 'word'"),
        (lambda: UnitTokenizer("words", ("a", "a")), "tokens: .* got 'a' twice"),
        (lambda: UnitTokenizer("words", ("<unk>",)), "tokens: .* got '<unk>' twice"),
        (lambda: UnitTokenizer("characters", ("ab",)), "tokens: .* got 'ab', which is not one character"),
        (lambda: UnitTokenizer.from_texts("abc", "words"), "texts: expected several texts"),
        (lambda: UnitTokenizer.from_texts(["a"], "letters"), "kind: expected"),
        (lambda: UnitTokenizer.from_texts(["a"], "words", min_count=0), "min_count: expected at least 1, got 0"),
        (lambda: UnitTokenizer.from_texts(["a"], "words", max_size=4), "max_size: expected at least 5, got 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    for texts, kind in [([], "words"), ([" \n"], "words"), (["", ""], "characters")]:
        with pytest.raises(CourseError, match=f"none of the {kind} of the texts occurs 1 times"):
            UnitTokenizer.from_texts(texts, kind)
