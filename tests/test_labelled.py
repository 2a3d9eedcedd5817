"""Labelled texts: each on one side, whatever is added later; what cannot be split is one line."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from course_lib import labelled, languages
from course_lib.errors import CourseError
from course_lib.labelled import load_labelled, split_labelled
from course_lib.pairs import key


def rows(n, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        text = "".join(rng.choice(list("abcdefghij"), rng.integers(6, 12)))
        found[text] = f"class {len(found) % classes}"
    return list(found.items())


def content(part, names):
    return [(text, names[y]) for text, y in zip(part.texts, part.labels.tolist(), strict=True)]


def test_a_file_is_split_by_its_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = rows(1000)
    Path("mine.tsv").write_text("".join(f"{text}\t{label}\tmore\n" for text, label in lines) + "\n\n", encoding="utf-8")
    found = load_labelled("mine.tsv")
    assert found.names == ("class 0", "class 1", "class 2")
    sides = [content(part, found.names) for part in found[:3]]
    assert sorted(chain.from_iterable(sides)) == sorted(lines)
    assert [len(side) / 1000 for side in sides] == pytest.approx([0.8, 0.1, 0.1], abs=0.03)
    assert found.dropped == 0
    assert found.train.labels.dtype == np.int64
    assert load_labelled("mine.tsv").sha256 == found.sha256 == split_labelled("other", lines).sha256
    changed = split_labelled("x", [*lines[:-1], (lines[-1][0], "class 1" if lines[-1][1] != "class 1" else "class 0")])
    assert changed.sha256 != found.sha256


def test_added_lines_move_no_text():
    before, after = split_labelled("a", rows(400)), split_labelled("a", [*rows(300, seed=5), *rows(400)])
    for small, large in zip(before[:3], after[:3], strict=True):
        assert set(small.texts) <= set(large.texts)
    sides = [labelled._side(text) for text in "abcdefghijklmnop"]
    assert sides == [0, 0, 2, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1], "a run can be resumed with any version of the course"


def test_texts_that_say_the_same_are_on_one_side():
    lines = rows(300)
    variants = [(f"{text.upper()}!", label) for text, label in lines]
    found = split_labelled("a", lines + variants)
    sides = [set(map(key, part.texts)) for part in found[:3]]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(part.texts) for part in found[:3]) == 600


def test_a_text_with_two_labels_is_left_out_and_one_with_the_same_again_kept_once():
    lines = rows(200)
    doubtful, again = lines[0][0], lines[1]
    found = split_labelled("a", [*lines, (doubtful, "class 1"), again, again])
    texts = [text for part in found[:3] for text in part.texts]
    assert doubtful not in texts
    assert found.dropped == 1
    assert texts.count(again[0]) == 1
    assert len(texts) == 199


def test_the_names_of_lesson_08_keep_their_split():
    found, names = load_labelled("languages"), languages.load_names()
    assert (found.names, found.sha256, found.dropped) == (names.languages, names.sha256, names.dropped)
    for mine, theirs in zip(found[:3], names[:3], strict=True):
        assert mine.texts == theirs.texts
        assert np.array_equal(mine.labels, theirs.labels)


def test_spaces_and_forms_of_characters_are_cleaned(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("  cafe\u0301   noir \t très  bon \n" + LINES, encoding="utf-8")
    assert labelled.read_rows(str(path))[:1] == [("café noir", "très bon")]


LINES = "".join(f"{text}\t{label}\n" for text, label in rows(200))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES + "no tab\n", "line 201 of 'a.tsv' has no TAB; write text TAB label in each line"),
        ("a\tb\n\n" + LINES, "line 2 of 'a.tsv' has no TAB"),
        ("a\t \n" + LINES, "line 1 of 'a.tsv' has no label; fill it or take the line out"),
        (" \tb\n" + LINES, "line 1 of 'a.tsv' has no text; fill it or take the line out"),
        ("".join(f"{text}\tx\n" for text, _ in rows(200)), "every line of 'a.tsv' has the label 'x'; add lines of another"),
        ("".join(LINES.splitlines(True)[:99]), "'a.tsv' has 99 different texts with one label, and 100 are needed; add lines"),
        ("same\tx\n" * 200, "'a.tsv' has 1 different texts"),
        ("".join(f"{text}\t{text}\n" for text, _ in rows(200)), "no text to train on has the label"),
    ],
)
def test_files_that_cannot_be_learned_from(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        load_labelled("a.tsv")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_of_labels():
    with pytest.raises(CourseError, match=r"^tiny_shakespeare has no labels; give languages, or a file with text TAB label"):
        load_labelled("tiny_shakespeare")
    with pytest.raises(CourseError, match=r"nowhere\.tsv"):
        load_labelled("nowhere.tsv")


def test_none_held_out_is_said(monkeypatch):
    monkeypatch.setattr(labelled, "HELD_OUT", 0.0)
    with pytest.raises(CourseError, match=r"^of the 200 texts of 'a' none is held out; add lines$"):
        split_labelled("a", rows(200))
