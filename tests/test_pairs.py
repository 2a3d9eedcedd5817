"""Parallel corpora: no sentence on two sides, whatever repeats; every bad file ends in one line that says what to do."""

import gzip
import hashlib
import io
import json
import os
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import downloads, pairs
from course_lib.errors import CourseError
from course_lib.pairs import Pairs, load_pairs, split_pairs


def rows(corpus):
    """The pairs of the three sides."""
    return [list(zip(*part, strict=True)) for part in (corpus.train, corpus.validation, corpus.test)]


def synonyms(n, seed=0):
    """n pairs in which each source has a few targets and some targets several sources; written in several ways."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        i = int(rng.integers(n))
        source, target = f"Say {i} twice", f"deux fois {i + int(rng.integers(2)) * (i % 5 == 0)}"
        ways = [str.upper, lambda s: s + "!", lambda s: s.replace(" ", "  ") + " .", str]
        found.append((ways[rng.integers(4)](source), ways[rng.integers(4)](target)))
    return [(pairs.clean(a), pairs.clean(b)) for a, b in found]


def components(items):
    """The connected components by walking the graph, as a set of sets of places."""
    neighbours = defaultdict(set)
    for i, (a, b) in enumerate(items):
        for j, (c, d) in enumerate(items):
            if pairs.key(a) == pairs.key(c) or pairs.key(b) == pairs.key(d):
                neighbours[i].add(j)
    left, found = set(range(len(items))), set()
    while left:
        reached, front = set(), {min(left)}
        while front:
            reached |= front
            front = set().union(*(neighbours[i] for i in front)) - reached
        found.add(frozenset(reached))
        left -= reached
    return found


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefghij")), min_size=1, max_size=14))
def test_groups_are_connected_components(items):
    labels = pairs.groups(items)
    found = defaultdict(set)
    for i, label in enumerate(labels):
        found[label].add(i)
    assert {frozenset(members) for members in found.values()} == components(items)
    assert all(min(members) == label for label, members in found.items())


def test_source_and_target_of_the_same_word_are_two_sentences():
    assert pairs.groups([("taxi", "cab"), ("voiture", "taxi")]) == [0, 1]


def test_keys():
    assert len({pairs.key(s) for s in ("Run!", "run .", "  RUN", "«Run»", "\uff32un", "_run_")}) == 1
    assert len({pairs.key(s) for s in ("run", "runs", "rún", "跑", "run 2")}) == 5
    assert pairs.key("?!") == "?!"
    assert pairs.key("...") != pairs.key("?!")
    assert pairs.key("STRASSE") == pairs.key("Straße")


@pytest.mark.parametrize(("n", "seed"), [(150, 0), (150, 1), (2000, 2)])
def test_no_sentence_on_two_sides(n, seed):
    items = synonyms(n, seed)
    corpus = split_pairs("x", items)
    sides = rows(corpus)
    assert Counter(pair for side in sides for pair in side) == Counter(set(items))  # each once, none lost
    assert corpus.duplicates == len(items) - len(set(items))
    keys = [[{pairs.key(pair[column]) for pair in side} for side in sides] for column in (0, 1)]
    for train, validation, test in keys:
        assert not train & validation
        assert not train & test
        assert not validation & test
    enough = max(10, round(0.025 * len(set(items))))
    largest = max(5, enough // 10)
    assert all(enough <= len(side) < enough + largest for side in sides[1:])
    order = {pair: i for i, pair in reversed(list(enumerate(items)))}
    assert all([order[pair] for pair in side] == sorted(order[pair] for pair in side) for side in sides)
    if n < 1000:
        sizes = [len(c) for c in components(list(dict.fromkeys(items)))]
        assert (corpus.groups, corpus.largest) == (len(sizes), max(sizes))
        assert corpus.largest > 1


def test_the_split_follows_from_the_pairs_alone():
    items = synonyms(300)
    corpus = split_pairs("x", items)
    assert split_pairs("x", list(items)) == corpus
    shuffled = [items[i] for i in np.random.default_rng(1).permutation(len(items))]
    assert [set(side) for side in rows(split_pairs("x", shuffled))] == [set(side) for side in rows(corpus)]
    text = "\0".join("".join(f"{a}\t{b}\n" for a, b in side) for side in rows(corpus))
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    positions = [int(source.lower().strip("!. ").split()[1]) for source, _ in rows(corpus)[1]]
    assert min(positions) < 150 < max(positions)  # from everywhere, not from an end


def test_a_giant_group_trains():
    for word in "abcdefghijklmnopqrstuvwxyz":  # with chance alone, some would be held out
        giant = [(word, f"{word} {i}") for i in range(30)]
        corpus = split_pairs("x", [*giant, *((f"word {i}", f"mot {i}") for i in range(100))])
        assert set(giant) <= set(rows(corpus)[0])
        assert corpus.largest == 30
    with pytest.raises(CourseError, match=r"'x' share so many .* \(200 pairs, but only 2 groups that share none\); add pairs"):
        split_pairs("x", [(f"word {i}", ("good", "bad")[i % 2]) for i in range(200)])
    with pytest.raises(CourseError, match="only 16 groups"):  # enough for one side only
        split_pairs("x", [("a", f"x {i}") for i in range(100)] + [(f"b {i}", f"y {i}") for i in range(15)])


def test_too_few_pairs():
    items = [(f"a {i}", f"b {i}") for i in range(100)]
    assert [len(side) for side in rows(split_pairs("x", items))] == [80, 10, 10]
    with pytest.raises(CourseError, match="'x' has 99 different pairs and at least 100 are needed; add some"):
        split_pairs("x", items[:99] * 2)


def test_shared():
    train = Pairs(("A b.", "c", "d"), ("w", "X", "Y!"))
    assert pairs.shared(Pairs(("a b", "C!", "e"), ("z", "x", "z")), train) == (2, 1)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.tsv"
    lines = [f"la  ligne\u00a0{i}\u2028\x85 e\u0301\tline {i} \t#{i} someone" for i in range(120)]  # only newlines end a line
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    corpus = load_pairs(path)
    assert corpus.name == str(path)
    expected = {(f"la ligne {i} é", f"line {i}") for i in range(120)}
    assert {pair for side in rows(corpus) for pair in side} == expected
    assert load_pairs(str(path)) == corpus
    swapped = {pair for side in rows(load_pairs(path, reverse=True)) for pair in side}
    assert swapped == {(b, a) for a, b in expected}


def test_two_files(tmp_path):
    de, en = tmp_path / "de.txt", tmp_path / "en.txt"
    de.write_text("".join(f"Zeile {i}\n" for i in range(120)))
    en.write_text("\n".join(f"line\t{i}" for i in range(120)))
    expected = {(f"Zeile {i}", f"line {i}") for i in range(120)}
    assert {pair for side in rows(load_pairs(de, en)) for pair in side} == expected
    back = load_pairs(str(de), str(en), reverse=True)
    assert {pair for side in rows(back) for pair in side} == {(b, a) for a, b in expected}
    en.write_text("".join(f"line {i}\n" for i in range(119)))
    with pytest.raises(CourseError, match=r"de.txt has 120 lines and .*en.txt 119; line n of one must translate"):
        load_pairs(de, en)
    en.write_text("".join(f"line {i}\n" if i != 6 else "\n" for i in range(120)))
    with pytest.raises(CourseError, match=r"line 7 of .*de.txt or .*en.txt has an empty target; fill it or take the pair out"):
        load_pairs(de, en)
    with pytest.raises(CourseError, match=r"no data set or file '.*missing'"):
        load_pairs(de, tmp_path / "missing")


GOOD = "".join(f"eins {i}\tone {i}\n" for i in range(120))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no data set or file .*registered: .*multi30k"),
        (b"", "is empty"),
        ((GOOD + "no tab here\n" + GOOD).encode(), "line 121 of .* has no TAB; write source TAB target in each line"),
        ((GOOD + "\n" + GOOD).encode(), "line 121 of .* has no TAB"),
        ((GOOD + "zwei\t \n").encode(), "line 121 of .* has an empty target"),
        (("\ttwo\n" + GOOD).encode(), "line 1 of .* has an empty source"),
        (GOOD.encode("utf-16"), "is binary|is not UTF-8"),
        (GOOD.encode() + "é\té".encode("latin-1"), r"is not UTF-8 \(first at byte 1,820\); save it as UTF-8"),
        ("".join(f"eins {i}\tone {i}\n" for i in range(30)).encode(), "has 30 different pairs and at least 100"),
    ],
    ids=["missing", "empty", "no tab", "blank", "no target", "no source", "utf-16", "latin-1", "short"],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "mine.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError, match=message) as caught:
        load_pairs(path)
    assert "\n" not in str(caught.value)
    assert "mine.tsv" in str(caught.value)


def test_data_sets_of_other_kinds():
    for name in ("names", "tiny_shakespeare", "python_docs"):
        with pytest.raises(CourseError, match=f"{name} is of kind .* has no pairs; choose one of bodies, dates, multi30k, "):
            load_pairs(name)
    with pytest.raises(CourseError, match="did you mean multi30k"):
        load_pairs("multi3k")
    for name, package in (("dates", "Babel"), ("summaries", "Python"), ("bodies", "Python")):
        message = f"{name} comes with {package}: it has no file; use `course train --task translate --data {name}`"
        with pytest.raises(CourseError, match=f"^{re.escape(message)}$"):
            load_pairs(name)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Registers files, given by their names and contents, as a data set of pairs."""
    monkeypatch.setattr(downloads, "REGISTRY_FILE", tmp_path / "registry.json")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))

    def register(name, **contents):
        files = []
        for file, content in contents.items():
            (tmp_path / file).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            files.append({"file": file, "bytes": len(content), "sha256": digest, "url": "http://127.0.0.1:9"})
        entry = {"kind": "pairs", "description": "", "licence": "", "note": "", "files": files}
        (tmp_path / "registry.json").write_text(json.dumps({name: entry}))

    return register


@pytest.mark.parametrize("packed", [False, True])
def test_registered_lines_have_english_first_and_bad_ones_are_counted(registered, packed):
    text = "\ufeff" + "".join(f"Go {i}!\tVa\u202f{i} !\tCC-BY #{i}\n" for i in range(130)) + "Go 5!\tVa 5 !\n\tx\ny\t\nz\n"
    content = text.encode()
    if packed:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("_about.txt", "not\tthis\n" * 500)
            archive.writestr("fra.txt", text)
        content = buffer.getvalue()
    registered("songs", file=content)
    corpus = load_pairs("songs")
    assert {pair for side in rows(corpus) for pair in side} == {(f"Va {i} !", f"Go {i}!") for i in range(130)}
    assert (corpus.name, corpus.duplicates, corpus.dropped, corpus.groups, corpus.largest) == ("songs", 1, 3, 130, 1)
    assert load_pairs("songs", reverse=True).train.source[0].startswith("Go ")


def test_a_given_split_is_kept(registered):
    sides = [[("a", "b"), ("a", "b"), ("c d", "e f")] * 40, [("a", "b"), ("g", "h")] * 30, [("i", "j")] * 70]
    files = {f"{i}{language}": gzip.compress("".join(f" {pair[j]}  \n" for pair in side).encode())
             for i, side in enumerate(sides) for j, language in enumerate(("de", "en"))}  # fmt: skip
    registered("multi30k", **files)
    assert rows(load_pairs("multi30k")) == sides
    assert rows(load_pairs("multi30k", reverse=True)) == [[(b, a) for a, b in side] for side in sides]


@pytest.fixture
def data(monkeypatch):
    folder = os.environ.get("COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not (Path(folder) / "multi30k").is_dir():
        pytest.skip("no folder of pairs here: set COURSE_DATA")
    monkeypatch.setenv("COURSE_DATA", str(folder))
    return Path(folder)


def test_multi30k(data):
    corpus = load_pairs("multi30k")
    assert [len(part.source) for part in corpus[1:4]] == [29_000, 1_014, 1_000]
    assert corpus.train.source[0] == "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    assert corpus.train.target[0] == "Two young, White males are outside near many bushes."
    assert all(text for part in corpus[1:4] for side in part for text in side)
    assert pairs.shared(corpus.test, corpus.train) == (0, 0)  # no test sentence occurs in training, on either side
    assert pairs.shared(corpus.validation, corpus.train) == (1, 1)


@pytest.mark.parametrize(
    ("name", "lines", "duplicates", "largest", "pair"),
    [
        ("tatoeba_fra", 142_787, 135, 72, ("Va !", "Go.")),
        ("tatoeba_cmn", 29_155, 100, 25, ("嗨。", "Hi.")),
    ],
)
def test_tatoeba(data, name, lines, duplicates, largest, pair):
    corpus = load_pairs(name)
    sizes = [len(part.source) for part in corpus[1:4]]
    assert sum(sizes) + corpus.duplicates + corpus.dropped == lines
    assert (corpus.duplicates, corpus.dropped, corpus.largest) == (duplicates, 0, largest)
    assert all(0.0249 < size / sum(sizes) < 0.028 for size in sizes[1:])
    assert pair in [p for side in rows(corpus) for p in side]
    assert pairs.shared(corpus.test, corpus.train) == (0, 0)
    assert pairs.shared(corpus.validation, corpus.train) == (0, 0)
    assert pairs.shared(corpus.test, corpus.validation) == (0, 0)
