"""The corpus of poems: nothing twice, nothing on both sides, nothing rare, and what is lost is what is said."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from course_lib import datasets, downloads, poems, verse
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer

COMMA, STOP = "\uff0c", "\u3002"


def couplet(characters):
    half = len(characters) // 2
    return characters[:half] + COMMA + characters[half:] + STOP


def random_poems(count, alphabet=1000, seed=0):
    """Poems of two couplets of 5 + 5 random characters."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, alphabet, (count, 2, 10)) + 0x4E00
    return ["\n".join(couplet("".join(map(chr, line))) for line in row) for row in rows]


def runs(poem, length=5):
    text = "".join(c for c in poem if c not in COMMA + STOP + "\n")
    return {text[i : i + length] for i in range(len(text) - length + 1)}


def write(folder, name, texts):
    path = folder / name
    path.write_text(json.dumps([{"title": "x", "paragraphs": text.split("\n")} for text in texts]), encoding="utf-8")
    return path


def test_each_poem_once_whatever_its_punctuation(tmp_path):
    one, two, three = random_poems(3)
    with_marks = one.replace(COMMA, STOP, 1).replace(STOP, "\uff01")
    paths = [write(tmp_path, "a.json", [one, two, one]), write(tmp_path, "b.json", [with_marks, three, STOP, ""])]
    assert poems.read(paths) == [one, two, three]
    assert poems.join([one, two]) == f"{one}\n\n{two}\n\n"
    assert verse.complete_poems(poems.join([one, two])) == [one, two]


@pytest.mark.parametrize("mark", [verse.LOST, "[", "(", "a", "7", "\u300a", " "])
def test_damaged_poems_are_left_out(tmp_path, mark):
    one, two = random_poems(2)
    assert poems.read([write(tmp_path, "a.json", [one, two[:3] + mark + two[3:]])]) == [one]


@pytest.mark.parametrize("content", ["{}x", '[{"title": "x"}]', '[["x"]]', "[7]", '[{"paragraphs": [7]}]'])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(CourseError, match=r"a\.json is no list of poems") as caught:
        poems.read([tmp_path / "a.json"])
    assert "\n" not in str(caught.value)


def test_no_five_characters_in_a_row_are_on_both_sides():
    texts = random_poems(400, alphabet=100)
    for n in range(0, 300, 3):  # chains: the second shares five characters with the first, the third five with the second
        first, second = ("".join(verse.lines(texts[m])) for m in (n, n + 1))
        second = second[:3] + first[8:13] + second[8:]
        third = "".join(verse.lines(texts[n + 2]))
        third = second[14:19] + third[5:]
        texts[n + 1], texts[n + 2] = ("\n".join((couplet(t[:10]), couplet(t[10:]))) for t in (second, third))
    train, held_out = poems.split(texts, 0.25)
    assert len(train) + len(held_out) == 400
    assert 300 <= len(train) <= 302
    assert not set().union(*map(runs, train)) & set().union(*map(runs, held_out))
    original = {poem: n for n, poem in enumerate(texts)}
    side = {original[poem]: side for side, part in enumerate((train, held_out)) for poem in part}
    assert len(side) == 400
    assert all(side[n] == side[n + 2] for n in range(0, 300, 3))
    assert {side[n] for n in range(0, 300, 3)} == {0, 1}


def test_the_order_is_fixed_and_random():
    texts = random_poems(300, alphabet=100)
    train, held_out = poems.split(texts, 0.1)
    assert (train, held_out) == poems.split(list(texts), 0.1)
    place = {poem: n for n, poem in enumerate(texts)}
    places = [place[poem] for poem in train + held_out]
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.2


def test_rare_characters_are_lost_on_both_sides():
    texts = random_poems(300, alphabet=1500)  # about 4 of each
    train, held_out = poems.split(texts, 0.1)
    whole = {tuple(c if d == verse.LOST else d for c, d in zip(t, t, strict=True)): t for t in texts}
    assert len(whole) == 300
    shown = Counter("".join(train))
    assert all(count >= 5 for character, count in shown.items() if character != verse.LOST)
    assert set("".join(held_out)) <= set(shown)
    lengths = Counter(map(len, texts))
    assert lengths == Counter(map(len, train + held_out))
    # Recomputed: put the training poems back by what is left of them, count, replace.
    originals = [next(t for t in texts if all(b in (a, verse.LOST) for a, b in zip(t, poem, strict=True))) for poem in train]
    counts = Counter("".join(originals))
    assert train == ["".join(c if counts[c] >= 5 else verse.LOST for c in poem) for poem in originals]


def test_a_registered_set_is_loaded(tmp_path, monkeypatch):
    texts = random_poems(120, alphabet=40)
    path = write(tmp_path, "p.json", texts)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    file = {"file": "p.json", "bytes": 0, "sha256": sha256, "url": "http://127.0.0.1:9"}
    entry = {"kind": "poems", "description": "", "licence": "", "note": "", "files": [file]}
    (tmp_path / "registry.json").write_text(json.dumps({"p": entry}), encoding="utf-8")
    monkeypatch.setattr(downloads, "REGISTRY_FILE", tmp_path / "registry.json")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    assert datasets.load_text("p") == poems.join(texts)
    corpus = datasets.load_corpus("p", 0.2)
    assert (corpus.train, corpus.validation) == tuple(map(poems.join, poems.split(texts, 0.2)))
    assert corpus.name == "p"


def test_the_poems_of_the_tang(monkeypatch):
    folder = os.environ.get("COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(folder).is_dir():
        pytest.skip("no folder of data here: set COURSE_DATA")
    monkeypatch.setenv("COURSE_DATA", str(folder))
    corpus = datasets.load_corpus("tang_poems")
    train, held_out = (verse.complete_poems(part) for part in (corpus.train, corpus.validation))
    assert (len(train), len(held_out)) == (8836, 982)
    assert not set().union(*map(runs, train)) & {run for run in set().union(*map(runs, held_out)) if verse.LOST not in run}
    assert CharTokenizer.from_text(corpus.train).size == 3883
    assert corpus.train.count(verse.LOST) / len(corpus.train) < 0.007
    assert set(corpus.validation) <= set(corpus.train)
    for part in (train, held_out):
        assert 0.83 < verse.shares(part)["regular"] < 0.87
    whole = datasets.load_text("tang_poems")
    assert verse.LOST not in whole
    assert len(verse.complete_poems(whole)) == 9818
    assert len(whole) == len(corpus.train) + len(corpus.validation)
