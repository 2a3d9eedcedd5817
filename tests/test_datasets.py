"""Loading, splitting and batching text; every bad file ends in one line that says what to do."""

import hashlib
import os
import random
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import datasets, downloads
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer

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
    for load in (datasets.load_text, datasets.load_corpus, datasets.load_tokens):
        with pytest.raises(CourseError, match=message) as caught:
            load(str(path))
        assert "\n" not in str(caught.value)
        assert "some.txt" in str(caught.value)


def test_bad_names(tmp_path):
    for load in (datasets.load_text, datasets.load_tokens):
        with pytest.raises(CourseError, match="is a folder"):
            load(tmp_path)
    with pytest.raises(CourseError, match="did you mean python_docs"):
        datasets.load_corpus("pythondocs")
    for name in ("a\0b", "a\nb", "x" * 5000):
        with pytest.raises(CourseError) as caught:
            datasets.load_text(name)
        assert "\n" not in str(caught.value)


def test_pairs_are_no_single_text():
    for name in ("multi30k", "tatoeba_fra", "dates", "summaries"):
        for load in (datasets.load_text, datasets.load_corpus, datasets.load_tokens):
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


def as_load_corpus_has_it(name: str | Path, share: float = 0.1) -> datasets.Tokens:
    """The tokens of a corpus, after comparing them with the text that load_corpus loads."""
    corpus, found = datasets.load_corpus(name, share), datasets.load_tokens(name, validation=share)
    assert found.sha256 == corpus.sha256
    assert found.tokenizer == CharTokenizer.from_text(corpus.train)
    assert found.train.dtype == found.validation.dtype == found.tokenizer.smallest
    for tokens, text in ((found.train, corpus.train), (found.validation, corpus.validation)):
        assert np.array_equal(tokens, found.tokenizer.encode(text))
    other = CharTokenizer("the quick")
    given = datasets.load_tokens(name, other, share)
    assert (given.tokenizer, given.sha256) == (other, corpus.sha256)
    assert np.array_equal(given.train, other.encode(corpus.train))
    return found


@pytest.mark.parametrize("piece", [1, 2, 7, 100, 1 << 18])
def test_tokens_are_those_of_the_text_wherever_it_is_cut(tmp_path, monkeypatch, piece):
    """Characters of 1 to 4 bytes, every end of line, marks of byte order, and a character that only the held-out part has."""
    monkeypatch.setattr(datasets, "PIECE", piece)
    draw, path = random.Random(piece), tmp_path / "mine.txt"
    for number in range(12):
        units = draw.choices(["a", "é", "狐", "🦊", "\r", "\n", "\r\n", "\ufeff", "\x85", "\u2028"], k=250 + number)
        path.write_bytes((b"\xef\xbb\xbf" if number % 2 else b"") + ("".join(units) + "t").encode())
        found = as_load_corpus_has_it(path, draw.choice([0.1, 0.5, 0.9]))
        assert "t" not in found.tokenizer.characters


def test_tokens_of_what_is_no_plain_file(data):
    for name in ("tiny_shakespeare", "names", "time_machine"):
        assert as_load_corpus_has_it(name).train.dtype == np.uint8
    for share in (0, 1, float("nan"), -0.1):
        with pytest.raises(ValueError, match="validation: expected a share"):
            datasets.load_tokens("tiny_shakespeare", validation=share)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_tokens_from_a_pipe(tmp_path):
    """As in `course train --data <(zcat texts.gz)`: it can be read only once."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(TEXT,))
    writer.start()
    found = datasets.load_tokens(tmp_path / "pipe")
    writer.join()
    assert found.tokenizer.decode(found.train) == TEXT[: int(0.9 * len(TEXT))]


@pytest.mark.parametrize("later", [TEXT + TEXT, TEXT[:200]], ids=["longer", "shorter"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, later):
    path, right = tmp_path / "mine.txt", datasets._survey
    path.write_text(TEXT)

    def survey(name):
        found = right(name)
        path.write_text(later)
        return found

    monkeypatch.setattr(datasets, "_survey", survey)
    with pytest.raises(CourseError, match=r"mine.txt' changed while it was read; start again when it is complete$"):
        datasets.load_tokens(path)


@pytest.mark.parametrize(("letters", "width"), [(200, 1), (300, 2)])
def test_tokens_take_the_memory_of_the_tokens_alone(tmp_path, letters, width):
    """The text of eight million characters and its copies would take 40 to 80 MB."""
    path = tmp_path / "mine.txt"
    alphabet = np.array([0x30 + i for i in range(letters)], "<u4")
    codes = alphabet[np.random.default_rng(0).integers(0, 200, 1 << 20)]
    codes[:letters] = alphabet
    with path.open("w", encoding="utf-8") as file:
        for _ in range(8):
            file.write(codes.tobytes().decode("utf-32-le"))
    tracemalloc.start()
    try:
        found = datasets.load_tokens(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.train.itemsize == width
    assert len(found.train) + len(found.validation) == 8 << 20
    assert peak < (8 << 20) * width + 10e6  # 4.5 MB: a table of all code points; a piece in several forms


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9), st.sampled_from([np.uint16, np.int32, np.int64]))
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
        assert all(side.flags.c_contiguous and side.dtype == (np.int64 if dtype == np.int64 else np.int32) for side in piece)


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
