"""The corpora that come with Python: clean characters, no leak between the two sides, the same text each time."""

import inspect
import string
import sysconfig
from pathlib import Path

import pytest

from course_lib import datasets, embedded
from course_lib.errors import CourseError

CHARACTERS = set(string.digits + string.ascii_letters + string.punctuation + " \n")


@pytest.fixture(scope="module")
def docs():
    return embedded.python_docs()


@pytest.fixture(scope="module")
def source():
    return embedded.python_source()


def test_sizes_and_characters(docs, source):
    for split, size in ((docs, 1_200_000), (source, 5_000_000)):
        whole = split.train + split.validation
        assert len(whole) > size
        assert 0.06 < len(split.validation) / len(whole) < 0.16
        assert set(whole) <= CHARACTERS
        assert set(split.validation) <= set(split.train)
        assert split.dropped < 1000
        assert min(split.files) > 20


def test_no_validation_paragraph_occurs_in_training(docs):
    train = " ".join(docs.train.split())
    paragraphs = [p for p in docs.validation.split("\n\n") if len(p) >= 40]
    assert len(paragraphs) > 500
    assert [p for p in paragraphs if p in docs.train] == []
    # Even under another indentation, less than one in fifty: a sentence that stands inside a longer paragraph.
    assert sum(" ".join(p.split()) in train for p in paragraphs) < len(paragraphs) / 50


def test_no_long_paragraph_occurs_twice(docs):
    paragraphs = [" ".join(p.split()) for p in (docs.train + "\n" + docs.validation).split("\n\n")]
    long = [p for p in paragraphs if len(p) >= 40]
    assert len(long) == len(set(long))


def test_source_files_stand_whole_on_one_side(source):
    root = Path(sysconfig.get_path("stdlib"))
    for name in ("json/decoder.py", "typing.py", "bisect.py", "difflib.py"):
        text = (root / name).read_text(encoding="utf-8").strip("\n")
        held_out = embedded.in_validation(name, 0.1)
        assert text in (source.validation if held_out else source.train)
        assert text not in (source.train if held_out else source.validation)
    assert embedded.in_validation("typing.py", 0.1)
    assert not embedded.in_validation("bisect.py", 0.1)


def test_skipped_files_are_not_there(tmp_path, monkeypatch):
    for i in range(40):
        (tmp_path / f"m{i}.py").write_text(f'"""Module {i}."""\n')
    for i, folder in enumerate(("test", "site-packages", "pkg/tests", "pkg/__pycache__", "idlelib", "config-3.9-x")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text(f'"""Hidden {i}."""\n')
    (tmp_path / "pkg" / "same.py").write_text('"""Module 3."""\n')  # a copy of m3.py
    (tmp_path / "pkg" / "broken.py").write_text("def (:")
    (tmp_path / "pkg" / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "notes.txt").write_text("no Python")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    split = embedded.python_source(0.3)
    assert "Hidden" not in split.train + split.validation
    assert (split.train + split.validation).count("Module 3.") == 1
    assert sum(split.files) == 41
    held_out = {i for i in range(40) if embedded.in_validation(f"m{i}.py", 0.3)}
    assert 3 < len(held_out) < 20
    for i in range(40):
        assert (f"Module {i}." in split.validation) == (i in held_out)
    docs = embedded.python_docs(0.3)
    assert ("Module 4." in docs.validation) == (4 in held_out)


def test_a_python_without_source(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    for build in (embedded.python_docs, embedded.python_source):
        with pytest.raises(CourseError, match="holds no source files"):
            build()
    with pytest.raises(ValueError, match=r"validation: expected a share in \[0, 1\), got 1"):
        embedded.python_docs(1)


def test_docstrings_of_everything_that_has_one():
    import json.decoder
    import textwrap

    code = textwrap.dedent('''
        """Module."""
        if True:
            class A:
                """Class.

                Plain.
                    Indented.
                """
                async def f(self):
                    """Coroutine."""
                    g = lambda: "none"
        try:
            pass
        except OSError:
            def g(): "Handler."
        match 1:
            case 1:
                def h(): "Case."
        def nothing(): pass
    ''')
    assert embedded.docstrings(code) == ["Module.", "Class.\n\nPlain.\n    Indented.", "Coroutine.", "Handler.", "Case."]
    assert embedded.docstrings("def (:") == []
    assert embedded.docstrings("x = 1\0") == []
    found = embedded.docstrings(inspect.getsource(json.decoder))
    for thing in (json.decoder.JSONDecoder, json.decoder.JSONDecoder.raw_decode, json.decoder.JSONDecodeError):
        assert inspect.getdoc(thing) in found


def test_to_ascii():
    assert embedded.to_ascii("plain\n\ttab") == ("plain\ntab", 1)
    assert embedded.to_ascii("\u201cL\u00f6wis\u2019s\u201d \u2014 ok\u2026\f") == ('"Lowis\'s" -- ok...', 0)
    assert embedded.to_ascii("a\u72d7b") == ("ab", 1)


def test_the_same_text_each_time(docs):
    corpus = datasets.load_corpus("python_docs")
    assert (corpus.train, corpus.validation) == (docs.train, docs.validation)
