"""Docstring sentences and function names of the standard library: split by file, and what the baselines reach."""

import numpy as np
import pytest

from course_lib import embedded, summaries
from course_lib.metrics import token_f1
from course_lib.pairs import Pairs, key, shared
from course_lib.summaries import baselines, copying, first_sentence, functions, given_away, name_words, nearest_neighbour


@pytest.fixture(scope="module")
def corpus():
    return summaries.load_summaries()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_file_name", "get file name"),
        ("assertEqual", "assert equal"),
        ("__hidden_thing", "hidden thing"),
        ("_getHTTPServer2", "get http server2"),
        ("do_GET", "do get"),
        ("b64encode", "b64encode"),
        ("SHA256sum", "sha256 sum"),
        ("trailing_", "trailing"),
        ("naïveName", "naive name"),
        ("getaddrinfo", "getaddrinfo"),
        ("__init__", ""),
        ("_", ""),
        ("__", ""),
    ],
)
def test_names_become_words(name, words):
    assert name_words(name) == words


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the size.  Raise if none.", "Return the size."),
        ("Return a name, e.g. a\nfile's (i.e. its path). More.", "Return a name, e.g. a file's (i.e. its path)."),
        ("Is it v3.11 or later? Yes.", "Is it v3.11 or later?"),
        ("No full stop\n\nSecond paragraph. Third.", "No full stop"),
        ("  \n  Use :class:`Foo` or :py:meth:`~os.walk`, or `x` in ``y``.", "Use Foo or os.walk, or x in y."),
        ("An “empty” café…", 'An "empty" cafe...'),
        ("An example:\n>>> f(1)\n2", "An example:"),
        ("Internal.", ""),
        (">>> f(1)", ""),
        ("--- !", ""),
        ("", ""),
    ],
)
def test_first_sentences(docstring, sentence):
    assert first_sentence(docstring) == sentence


def test_functions_are_found_wherever_they_stand():
    source = '''
def f_one():
    "First one here."
    def inner_two():
        """Second one here. And more."""
class A:
    "A class, not a function."
    def __init__(self):
        "Dunder names are out."
    async def threeTimes(self):
        "Third one here."
    def undocumented(self): pass
    def short(self):
        "Short."
try:
    pass
except OSError:
    def four():
        "Fourth one here."
if x: pass
else:
    match y:
        case 1:
            def five():
                "Fifth one here\\d."
'''
    sentences = ["First", "Second", "Third", "Fourth"]
    names = ["f one", "inner two", "three times", "four"]
    expected = [(f"{word} one here.", name) for word, name in zip(sentences, names, strict=True)]
    assert list(functions(source)) == [*expected, ("Fifth one here\\d.", "five")]
    assert list(functions("def f(:\n")) == []
    assert list(functions("x = 1\0")) == []


def test_sides_follow_from_the_path_and_share_no_sentence(monkeypatch):
    rng = np.random.default_rng(0)
    files, expected = {}, ([], [], [])
    for i in range(300):
        path, body = f"folder/file{i}.py", ""
        for n in rng.integers(0, 400, 3).tolist():
            body += f'def name_{n % 7}_{i % 3}():\n    "Do the thing {n} at once{"!."[i % 2]}"\n'
        files[path] = body
        place = 2 if embedded.in_validation(path, 0.1) else 1 if embedded.in_validation(path, 0.2) else 0
        expected[place].extend(functions(body))
    monkeypatch.setattr(summaries, "split_files", lambda share: (files, {}))
    corpus = summaries.load_summaries()
    before, duplicates, dropped = set(), 0, 0
    for part, side in zip((corpus.train, corpus.validation, corpus.test), expected, strict=True):
        unique = set(side)
        kept = {pair for pair in unique if key(pair[0]) not in before}
        assert set(zip(*part, strict=True)) == kept
        assert len(part.source) == len(kept)
        duplicates, dropped = duplicates + len(side) - len(unique), dropped + len(unique) - len(kept)
        before |= {key(sentence) for sentence, _ in side}
    assert (corpus.duplicates, corpus.dropped, corpus.groups, corpus.largest) == (duplicates, dropped, 300, 3)
    assert min(duplicates, dropped, *(len(part.source) for part in corpus[1:4])) > 5


def test_the_standard_library(corpus):
    sizes = [len(part.source) for part in (corpus.train, corpus.validation, corpus.test)]
    assert sizes[0] > 2500
    assert all(0.05 < size / sum(sizes) < 0.2 for size in sizes[1:])
    for part in (corpus.train, corpus.validation, corpus.test):
        assert len(set(zip(*part, strict=True))) == len(part.source)
        for sentence, name in zip(*part, strict=True):
            assert sentence.isascii()
            assert sentence.isprintable()
            assert name == " ".join(name.lower().split()) != ""
            assert "_" not in name
    assert shared(corpus.validation, corpus.train)[0] == shared(corpus.test, corpus.train)[0] == 0
    assert shared(corpus.test, corpus.validation)[0] == 0
    assert summaries.load_summaries() == corpus
    assert "assert equal" in corpus.train.target + corpus.validation.target + corpus.test.target


def test_a_third_of_the_names_can_be_copied(corpus):
    for part in (corpus.train, corpus.validation, corpus.test):
        some, every = given_away(part)
        assert 0.25 < every < 0.45 < some < 0.75
    hand = Pairs(("Get a file-name now.", "Close it.", "It does."), ("get file size", "close", "run"))
    assert given_away(hand) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("seed", range(5))
def test_the_nearest_neighbour_is_the_largest_cosine(seed):
    rng = np.random.default_rng(seed)
    words = np.array([f"w{i}" for i in range(15)])
    draw = lambda n: [" ".join(rng.choice(words, rng.integers(1, 8), p=np.arange(1, 16) / 120)) for _ in range(n)]  # noqa: E731
    train = Pairs(tuple(draw(40)), tuple(f"name {i}" for i in range(40)))
    queries = [*draw(30), "unheard of"]
    counts = np.array([[text.split().count(word) for word in words] for text in (*train.source, *queries)], float)
    having = (counts[:40] > 0).sum(0)
    vectors = counts * np.log(40 / np.maximum(having, 1)) * (having > 0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    cosines = vectors[40:] @ vectors[:40].T
    found = nearest_neighbour(train, queries)
    for name, cosine in zip(found[:-1], cosines, strict=False):
        assert cosine[int(name.split()[1])] == pytest.approx(cosine.max(), abs=1e-12)
    assert found[-1] == "name 0"
    assert nearest_neighbour(train, [f"({train.source[7].upper()})!"]) == nearest_neighbour(train, [train.source[7]])
    assert len(set(found)) > 10


def test_copying_takes_the_rule_that_is_best_in_training():
    sentences = ("Returns the file name.", "Matches a long pattern.", "Closing all open files.")
    train = Pairs(sentences, ("return file", "match long", "clos open"))
    stemmed = copying(train, ["It is writing to the disk.", "Bus", "Passes less", "of the"])
    assert stemmed == ["writ disk", "bus", "pass less", ""]
    plain = Pairs(sentences[:1], ("returns file name",))
    assert copying(plain, ["Closing all open big files."]) == ["closing open big"]


def test_baselines_on_the_standard_library(corpus):
    for part in (corpus.validation, corpus.test):
        found = baselines(corpus.train, part)
        assert list(found) == ["most frequent name", "copying", "nearest neighbour"]
        assert found["copying"][0] == token_f1(copying(corpus.train, part.source), part.target)
        assert found["most frequent name"][0] < 0.05
        assert 0.1 < found["nearest neighbour"][0] < found["copying"][0] < 0.35
        assert found["copying"][1] < 0.05 < found["nearest neighbour"][1] < 0.2
