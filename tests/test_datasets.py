"""Loading, splitting and batching text; every bad file ends in one line that says what to do."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import datasets, downloads
from course_lib.errors import CourseError

TEXT = "The time traveller, for so it will be convenient to speak of him, was expounding a matter to us. " * 3


@pytest.fixture
def data(monkeypatch):
    folder = os.environ.get("COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(folder).is_dir():
        pytest.skip("no folder of data here: set COURSE_DATA")
    monkeypatch.setenv("COURSE_DATA", str(folder))
    return Path(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no data set or file .*; registered: bodies, dates, multi30k, names, "),
        (b"", "is empty; choose"),
        (TEXT.encode() + b"\0", r"is binary \(a NUL at byte 291\)"),
        (TEXT.encode() + b"\xe9t\xe9", r"is not UTF-8 \(first at byte 291\); save it as UTF-8"),
        (TEXT.encode("utf-16"), "is (binary|not UTF-8)"),
        (TEXT[:99].encode(), "has 99 characters and at least 100 are needed"),
        (b"\xef\xbb\xbf", "has 0 characters"),
        (b"a" * 500, "is 'a' repeated"),
        (b"\r\n" * 500, r"is '\\n' repeated"),
    ],
    ids=["missing", "empty", "NUL", "latin-1", "utf-16", "short", "mark only", "one character", "line ends"],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "some.txt"
    if content is not None:
        path.write_bytes(content)
    for load in (datasets.load_text, datasets.load_corpus):
        with pytest.raises(CourseError, match=message) as caught:
            load(str(path))
        assert "\n" not in str(caught.value)
        assert "some.txt" in str(caught.value)


def test_bad_names(tmp_path):
    with pytest.raises(CourseError, match="is a folder"):
        datasets.load_text(tmp_path)
    with pytest.raises(CourseError, match="did you mean python_docs"):
        datasets.load_corpus("pythondocs")
    for name in ("a\0b", "a\nb", "x" * 5000):
        with pytest.raises(CourseError) as caught:
            datasets.load_text(name)
        assert "\n" not in str(caught.value)


def test_pairs_are_no_single_text():
    for name in ("multi30k", "tatoeba_fra", "dates", "summaries"):
        for load in (datasets.load_text, datasets.load_corpus):
            with pytest.raises(CourseError, match=f"{name} is of kind 'pairs' and has no single text; choose a text or lines"):
                load(name)


def test_bytes_and_files_are_read_alike(tmp_path):
    raw = b"\xef\xbb\xbf" + TEXT.encode() + b"\r\n\xc3\xa9\r"
    (tmp_path / "some.txt").write_bytes(raw)
    assert datasets.decode_text(raw, "x") == datasets.read_text(tmp_path / "some.txt") == TEXT + "\né\n"
    with pytest.raises(CourseError, match="x is empty; choose"):
        datasets.decode_text(b"", "x")


def test_any_file_is_split_at_nine_tenths(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace(".", "é\r\n").encode() + b"\r")
    text = TEXT.replace(".", "é\n") + "\n"
    assert datasets.load_text(path) == text
    corpus = datasets.load_corpus(path)
    assert corpus.train == text[: int(0.9 * len(text))]
    assert corpus.train + corpus.validation == text
    assert corpus.name == str(path)
    assert corpus.sha256 == hashlib.sha256((corpus.train + "\0" + corpus.validation).encode()).hexdigest()
    assert len(datasets.load_corpus(path, validation=0.5).train) == len(text) // 2
    for share in (0, 1, -0.1):
        with pytest.raises(ValueError, match="validation: expected a share"):
            datasets.load_corpus(path, share)


def test_a_registered_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("python_source").write_text(TEXT)
    assert datasets.load_text("./python_source") == TEXT
    assert datasets.load_text(Path("python_source")) == TEXT
    corpus = datasets.load_corpus("python_source")
    assert datasets.load_text("python_source") == corpus.train + corpus.validation


def test_lines_are_split_without_leaks(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdef"), rng.integers(2, 6))) for _ in range(2000)]
    monkeypatch.setattr(downloads, "REGISTRY_FILE", tmp_path / "registry.json")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    content = ("\n".join(names) + "\n\n").encode()
    (tmp_path / "n.txt").write_bytes(content)
    (tmp_path / "registry.json").write_text(
        '{"n": {"kind": "lines", "description": "", "licence": "", "note": "", "files": [{"file": "n.txt", "bytes": 0,'
        f'"sha256": "{hashlib.sha256(content).hexdigest()}", "url": "http://127.0.0.1:9"}}]}}}}'
    )
    corpus = datasets.load_corpus("n")
    train, validation = corpus.train.splitlines(), corpus.validation.splitlines()
    assert sorted(train + validation) == sorted(set(names))
    assert len(train) == int(0.9 * len(set(names)))
    assert train != sorted(train)
    assert abs(np.mean([name < "d" for name in validation]) - np.mean([n < "d" for n in set(names)])) < 0.15
    assert corpus.train.endswith("\n")
    assert corpus.validation.endswith("\n")
    assert datasets.load_corpus("n") == corpus
    assert datasets.load_text("n") == content.decode()


def test_the_quoted_splits(data):
    corpus = datasets.load_corpus("tiny_shakespeare")
    text = (data / "tiny_shakespeare" / "input.txt").read_text(encoding="utf-8")
    assert (len(corpus.train), len(corpus.validation)) == (1_003_854, 111_540)
    assert corpus.train + corpus.validation == text
    names = datasets.load_corpus("names")
    train, validation = set(names.train.split()), set(names.validation.split())
    assert not train & validation
    assert len(train) + len(validation) == 32_033 - 2_539
    assert datasets.load_corpus("time_machine").train.startswith("The Time Machine")


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9), st.sampled_from([np.int32, np.int64]))
def test_batches_carry_on_and_lose_nothing(extra, batch_size, steps, dtype):
    tokens = np.random.default_rng(extra).integers(0, 1000, batch_size + extra).astype(dtype)
    pieces = list(datasets.batches(tokens, batch_size, steps))
    length = (len(tokens) - 1) // batch_size
    inputs, targets = (np.concatenate(side) for side in zip(*pieces, strict=True))
    assert inputs.shape == targets.shape == (length, batch_size)
    for n in range(batch_size):
        start = n * length
        assert inputs[:, n].tolist() == tokens[start : start + length].tolist()
        assert targets[:, n].tolist() == tokens[start + 1 : start + length + 1].tolist()
    assert len(tokens) - 1 - length * batch_size < batch_size
    for piece in pieces[:-1]:
        assert piece[0].shape == (steps, batch_size)
    for piece in pieces:
        assert all(side.flags.c_contiguous and side.dtype == dtype for side in piece)


def test_batches_refuse_what_they_cannot_cut():
    with pytest.raises(CourseError, match="the text has 4 tokens and 4 streams need at least 5"):
        datasets.batches(np.arange(4), 4, 10)
    with pytest.raises(CourseError, match="has 0 tokens"):
        datasets.batches(np.zeros(0, int), 1, 1)
    assert [x.tolist() for x, _ in datasets.batches(np.arange(5), 4, 10)] == [[[0, 1, 2, 3]]]
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        datasets.batches(np.arange(9), 0, 1)
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        datasets.batches(np.arange(9), 1, 0)
    with pytest.raises(ValueError, match="tokens: expected one row of integers"):
        datasets.batches(np.arange(9.0), 1, 1)
