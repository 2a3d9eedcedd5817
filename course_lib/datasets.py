"""Text to train on, split and cut into batches: a registered data set, what comes with Python, or any UTF-8 file."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from course_lib import poems
from course_lib.downloads import fetch, fetch_all, lookup, registry, status, suggestion
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer

SHORTEST_TEXT = 100  # characters
PIECE = 1 << 18  # bytes of a file in memory at a time

__all__ = [
    "Corpus", "Tokens", "batches", "decode_text", "fetch", "load_corpus", "load_text", "load_tokens", "lookup", "read_text",
    "registry", "status",
]  # fmt: skip


class Corpus(NamedTuple):
    """Text to train on and text held out; sha256 is that of train, a NUL and validation as UTF-8."""

    name: str
    train: str
    validation: str
    sha256: str


def load_text(name_or_path: str | Path) -> str:
    """The whole text of a registered data set, or of any UTF-8 text file; a registered name comes first.

    A byte order mark is taken off, and every end of line becomes a newline.

    Raises:   CourseError: the file is missing, a folder, unreadable, empty, binary, not UTF-8, shorter than 100
              characters or one character repeated; or the reasons of ``fetch_all``.
    """
    entry = registry().get(name_or_path) if isinstance(name_or_path, str) else None
    if entry is None:
        return read_text(name_or_path)
    if entry.kind == "poems":
        return poems.join(poems.read(fetch_all(entry.name)))
    if entry.kind not in ("embedded", "lines", "text"):
        raise CourseError(f"{entry.name} is of kind {entry.kind!r} and has no single text; choose a text or lines data set")
    if entry.kind == "embedded":
        corpus = load_corpus(entry.name)
        return corpus.train + corpus.validation
    return read_text(fetch(entry.name))


def load_corpus(name_or_path: str | Path, validation: float = 0.1) -> Corpus:
    """A text split into a training and a validation part.

    Prose and any file: the first characters train, the last ones validate (tiny Shakespeare's quoted 90/10 split).
    Lines: each line once, in a fixed random order, split between lines. Embedded: split between source files. Poems: in a
    fixed random order, split between poems (see ``poems.split``), rare characters replaced by □.

    Args:     validation: the share held out, between 0 and 1.
    Raises:   CourseError: as ``load_text``. ValueError: validation out of range.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected a share between 0 and 1, got {validation!r}")
    entry = registry().get(name_or_path) if isinstance(name_or_path, str) else None
    kind = entry.kind if entry else "text"
    if kind == "embedded":
        from course_lib import embedded

        split = getattr(embedded, entry.name)(validation)
        return _corpus(entry.name, split.train, split.validation)
    if kind == "poems":
        return _corpus(entry.name, *map(poems.join, poems.split(poems.read(fetch_all(entry.name)), validation)))
    text = load_text(name_or_path)
    if kind == "lines":
        lines = sorted(set(filter(None, map(str.strip, text.splitlines()))), key=_digest)
        n = int((1 - validation) * len(lines))
        train, held_out = ("".join(line + "\n" for line in part) for part in (lines[:n], lines[n:]))
    else:
        n = int((1 - validation) * len(text))
        train, held_out = text[:n], text[n:]
    return _corpus(str(name_or_path), train, held_out)


class Tokens(NamedTuple):
    """A corpus as integers. train, validation: (M,), of the smallest type. sha256: as that of the ``Corpus``."""

    train: np.ndarray
    validation: np.ndarray
    tokenizer: CharTokenizer
    sha256: str


def load_tokens(name_or_path: str | Path, tokenizer: CharTokenizer | None = None, validation: float = 0.1) -> Tokens:
    """What ``load_corpus`` loads, as tokens; a text file is read twice, in pieces, so that its text is never in memory.

    Args:     tokenizer: None: that of the training part. validation: the share held out, between 0 and 1.
    Raises:   CourseError: as ``load_text``. ValueError: validation out of range.
    """
    count, first = _survey(name_or_path)
    n = int((1 - validation) * count) if 0 < validation < 1 else 0
    if not 0 < n < count or count < SHORTEST_TEXT or len(first) < 2:  # no text file, or one that load_corpus refuses
        corpus = load_corpus(name_or_path, validation)
        tokenizer = tokenizer or CharTokenizer.from_text(corpus.train)
        parts = (tokenizer.encode(text, np.empty(len(text), tokenizer.smallest)) for text in corpus[1:3])
        return Tokens(*parts, tokenizer, corpus.sha256)
    tokenizer = tokenizer or CharTokenizer("".join(sorted(c for c, place in first.items() if place < n)))
    ids, digest, at = np.empty(count, tokenizer.smallest), hashlib.sha256(), 0
    for piece in _pieces(name_or_path):
        end = at + len(piece)
        if end > count:
            break
        tokenizer.encode(piece, ids[at:end])
        digest.update((f"{piece[: n - at]}\0{piece[n - at :]}" if at <= n < end else piece).encode())
        at = end
    if at != count:
        raise CourseError(f"{str(name_or_path)!r} changed while it was read; start again when it is complete")
    return Tokens(ids[:n], ids[n:], tokenizer, digest.hexdigest())


def batches(tokens: np.ndarray, batch_size: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a text into N streams side by side and walk along them, T tokens at a time.

    Column n of a batch continues column n of the batch before it, so that a state can be carried. Targets are the
    inputs one token later. The last batch may be shorter; fewer than N tokens at the end of the text are left out.

    Args:     tokens: (M,) integers. batch_size: N. steps: T.
    Returns:  An iterator of (inputs (T, N), targets (T, N)), contiguous, in the integer type of tokens, at least int32.
    Raises:   CourseError: fewer than N + 1 tokens. ValueError: naming the argument.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens: expected one row of integers, got shape {tokens.shape} of {tokens.dtype}")
    for argument, value in (("batch_size", batch_size), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{argument}: expected at least 1, got {value}")
    length = (len(tokens) - 1) // batch_size  # of a stream
    if length < 1:
        raise CourseError(
            f"the text has {len(tokens)} tokens and {batch_size} streams need at least {batch_size + 1}; "
            "use a longer text or a smaller batch size"
        )
    inputs = tokens[: length * batch_size].reshape(batch_size, length).T  # (length, N)
    targets = tokens[1 : length * batch_size + 1].reshape(batch_size, length).T
    slices = (slice(t, t + steps) for t in range(0, length, steps))
    dtype = np.promote_types(tokens.dtype, np.int32)
    return ((np.ascontiguousarray(inputs[s], dtype), np.ascontiguousarray(targets[s], dtype)) for s in slices)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark and with newlines only.

    Raises:   CourseError: the reasons of ``load_text``.
    """
    shown = repr(str(path))
    try:
        if Path(path).is_dir():
            raise CourseError(f"{shown} is a folder; name a text file in it")
        raw = Path(path).read_bytes()
    except (FileNotFoundError, ValueError):  # ValueError: a NUL in the path
        raise CourseError(f"no data set or file {shown}; {suggestion(str(path), registry())}") from None
    except OSError as error:
        raise CourseError(f"cannot read {shown}: {error.strerror}; check its permissions") from None
    return decode_text(raw, shown)


def decode_text(raw: bytes, shown: str) -> str:
    """As ``read_text``, from the bytes of a file. shown: the file's name in errors."""
    if not raw:
        raise CourseError(f"{shown} is empty; choose a file with text")
    if b"\0" in raw:
        raise CourseError(f"{shown} is binary (a NUL at byte {raw.index(0):,}); choose a text file, saved as UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CourseError(f"{shown} is not UTF-8 (first at byte {error.start:,}); save it as UTF-8") from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < SHORTEST_TEXT:
        raise CourseError(f"{shown} has {len(text)} characters and at least {SHORTEST_TEXT} are needed; use a longer text")
    if text.count(text[0]) == len(text):
        raise CourseError(f"{shown} is {text[0]!r} repeated; there is nothing to learn from one character")
    return text


def _survey(name_or_path: str | Path) -> tuple[int, dict[str, int]]:
    """How many characters a text file has, and where each of them stands first; 0 if it is none, or cannot be read."""
    count, first = 0, {}
    try:
        for piece in _pieces(name_or_path):
            first |= {character: count + piece.index(character) for character in set(piece).difference(first)}
            count += len(piece)
    except (OSError, ValueError):
        return 0, {}
    return count, first


def _pieces(name_or_path: str | Path) -> Iterator[str]:
    """The text of a file as ``read_text`` has it, piece by piece. Raises OSError, ValueError: the reasons of ``read_text``."""
    entry = registry().get(name_or_path) if isinstance(name_or_path, str) else None
    if entry and entry.kind != "text":
        return
    path = Path(fetch(entry.name) if entry else name_or_path)
    if not path.is_file():  # a pipe can be read only once
        return
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    with path.open("rb") as file:
        while raw := file.read(PIECE):
            if b"\0" in raw:
                raise ValueError("a NUL")
            yield decoder.decode(raw)
    yield decoder.decode(b"", final=True)


def _corpus(name: str, train: str, validation: str) -> Corpus:
    return Corpus(name, train, validation, _digest(f"{train}\0{validation}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
