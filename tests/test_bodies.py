"""Code and docstring sentences of the standard library: what a function's code becomes, and what needs no network."""

import ast
import re
from collections import Counter

import numpy as np
import pytest

from course_lib import bodies, embedded, summaries
from course_lib.bodies import LONGEST, baselines, code_words, word_f1
from course_lib.pairs import Pairs, key, shared


@pytest.fixture(scope="module")
def corpus():
    return bodies.load_bodies()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "def getSize(file_name): return os.stat(file_name).st_size  # in bytes",
            "def get size file name return os stat file name st size",
        ),
        ("@cache\nasync def HTTPServer2(x=10): pass", "async def http server 2 x 10 pass"),
        ("def f(self): return 'Löwe' + b'ab'.hex()", "def f self return lowe b ab hex"),
        ("def f(): return {1.5: -x}", "def f return 1 5 x"),
    ],
)
def test_code_becomes_words(source, words):
    assert code_words(ast.parse(source).body[0]) == words


def test_code_is_cut():
    source = f"def f(): return [{', '.join(f'a{n}' for n in range(100))}]"
    words = code_words(ast.parse(source).body[0]).split()
    assert len(words) == LONGEST == 60
    assert words[:7] == ["def", "f", "return", "a", "0", "a", "1"]


def test_no_docstring_is_left_in_the_code():
    source = '''
class A:
    """Secret of a class."""
    def outer(self):
        """First SECRET here. Secret too."""
        def inner():
            """Second secret here."""
        class B:
            """Third secret here."""
            x = "kept"
            async def most(): """Fourth secret here."""
        return inner
    def undocumented(self):
        return 1
    def __init__(self):
        "Fifth secret here!"
        self.x = 0
'''
    assert list(bodies.bodies(source)) == [
        ("def outer self def inner pass class b x kept async def most pass return inner", "first secret here."),
        ("def inner pass", "second secret here."),
        ("async def most pass", "fourth secret here."),
        ("def init self self x 0", "fifth secret here!"),
    ]
    assert list(bodies.bodies("def f(:\n")) == []


def test_neither_code_nor_sentence_stands_on_two_sides(monkeypatch):
    rng = np.random.default_rng(0)
    files, expected = {}, ([], [], [])
    for i in range(300):
        path, text = f"folder/file{i}.py", ""
        for n, m in rng.integers(0, 900, (3, 2)).tolist():
            text += f'def f():\n    "Do the thing {n} at once."\n    return g({m})\n'
        files[path] = text
        place = 2 if embedded.in_validation(path, 0.1) else 1 if embedded.in_validation(path, 0.2) else 0
        expected[place].extend(re.findall(r"thing (\d+)[^)]*g\((\d+)", text))
    monkeypatch.setattr(summaries, "split_files", lambda share: (files, {}))
    corpus = bodies.load_bodies()
    sentences, codes, dropped = set(), set(), 0
    for part, side in zip((corpus.train, corpus.validation, corpus.test), expected, strict=True):
        kept = [(n, m) for n, m in dict.fromkeys(side) if n not in sentences and m not in codes]
        dropped += len(set(side)) - len(kept)
        assert part.source == tuple(f"def f return g {m}" for _, m in kept)
        assert part.target == tuple(f"do the thing {n} at once." for n, _ in kept)
        sentences.update(n for n, _ in kept)
        codes.update(m for _, m in kept)
    assert corpus.dropped == dropped > 20


def test_the_standard_library(corpus):
    sizes = [len(part.source) for part in (corpus.train, corpus.validation, corpus.test)]
    assert sizes[0] > 3000
    assert all(0.05 < size / sum(sizes) < 0.2 for size in sizes[1:])
    for part in (corpus.train, corpus.validation, corpus.test):
        assert len(set(zip(*part, strict=True))) == len(part.source)
        for code, sentence in zip(*part, strict=True):
            assert re.fullmatch(r"(async )?def( [a-z]+| [0-9]+)+", code), code
            assert len(code.split()) <= LONGEST
            assert sentence == sentence.lower()
            assert sentence.isascii()
    for part in (corpus.validation, corpus.test):
        assert shared(part, corpus.train) == (0, 0)
    assert shared(corpus.test, corpus.validation) == (0, 0)
    again = {key(sentence) for sentence in summaries.load_summaries().test.source}
    assert sum(key(sentence) in again for sentence in corpus.test.target) > 0.6 * sizes[2]  # the same files


def test_words_alone_count():
    assert word_f1(["Return the size."], ["return (the) `size`!"]) == 1
    assert word_f1(["a b, c", "x"], ["c d", "y"]) == pytest.approx((2 * 1 / 5 + 0) / 2)


def test_baselines(corpus):
    train = Pairs(("def a x", "def b y z", "def c"), ("get the x.", "get the y now.", "the end."))
    part = Pairs(("def b y z", "def the q r s"), ("get it.", "the q."))
    found = baselines(train, part)  # sentences have 3 words on average: "the", "get" and "x", the first of the rest
    assert found["most frequent words"] == pytest.approx((2 / 5 + 2 / 5) / 2)
    assert found["name and arguments"] == pytest.approx((0 + 2 * 2 / 5) / 2)
    assert found["nearest neighbour"] == pytest.approx((2 / 6 + word_f1([train.target[0]], ["the q."])) / 2)
    assert Counter(found).keys() == {"most frequent words", "name and arguments", "nearest neighbour"}
    found = baselines(corpus.train, corpus.test)
    assert 0.1 < found["nearest neighbour"] < max(found.values()) < 0.3
