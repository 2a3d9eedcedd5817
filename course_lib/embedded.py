"""Text that needs no download: the documentation and the source code of the running Python's standard library.

Both corpora are split by file, never by line, and no file appears twice. Whether a file is for training or for
validation follows from the SHA-256 of its path, so a file stays on its side when Python or the machine changes.
The text itself differs between Python versions: ``datasets.Corpus.sha256`` says which text a number belongs to.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from course_lib.errors import CourseError

if TYPE_CHECKING:
    import ast

# Left out everywhere: tests, other people's packages, and tables written by programs (code pages, build settings).
# Also parts that newer Pythons removed or that Linux distributions pack separately, so that corpora stay comparable.
SKIPPED_FOLDERS = frozenset(
    "test tests idle_test __pycache__ site-packages dist-packages encodings pydoc_data "
    "distutils lib2to3 ensurepip idlelib tkinter turtledemo".split()
)
SKIPPED_PREFIXES = ("config-", "_sysconfigdata", "_distutils", "sitecustomize")
# Files differ in length: with this number in front of each path, a tenth of the files is a tenth of either corpus.
SPLIT_NUMBER = 17
SHORTEST_TRACKED_PARAGRAPH = 40  # characters; shorter paragraphs ("Example:") may repeat

_ASCII_TWINS = str.maketrans(
    # quotation marks, dashes, ellipsis, bullet; form feed and carriage return simply go
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--"}
    | {"\u2026": "...", "\u2022": "*", "\f": None, "\r": None}
)


class Split(NamedTuple):
    """A corpus cut in two.

    train, validation: the text. files: (training files, validation files). dropped: characters that had no ASCII twin.
    """

    train: str
    validation: str
    files: tuple[int, int]
    dropped: int


def python_docs(validation: float = 0.1) -> Split:
    """Docstrings of the standard library and the topics of Python's ``help()``: English prose, about 1.7 MB.

    Modules are parsed, never imported. A docstring occurs once, and so does a paragraph of 40 characters or more: what
    training has seen is taken out of validation. The help topics are one file, for training.

    Args:     validation: the share of files held out, in [0, 1).
    Raises:   CourseError: this Python has no standard library in source form.
    """
    train_files, validation_files = split_files(validation)
    seen: set[str] = set()
    dropped = 0
    sides: list[str] = []
    for files in (train_files, validation_files):
        documents = [docstrings(source) for source in files.values()]
        if files is train_files:
            documents.append(_help_topics())
        kept = []
        for document in documents:
            for text in document:
                clean, lost = to_ascii(text)
                dropped += lost
                kept.append(_new_paragraphs(clean, seen))
        sides.append("\n\n".join(text for text in kept if text) + "\n")
    train, held_out = sides
    return Split(train, _without_copies(held_out, train), (len(train_files) + 1, len(validation_files)), dropped)


def python_source(validation: float = 0.1) -> Split:
    """The source code of the standard library, about 8 MB of Python; identical files are kept once.

    Args:     validation: the share of files held out, in [0, 1).
    Raises:   CourseError: this Python has no standard library in source form.
    """
    train_files, validation_files = split_files(validation)
    dropped = 0
    sides = []
    for files in (train_files, validation_files):
        cleaned = [to_ascii(source.expandtabs()) for source in files.values()]
        dropped += sum(lost for _, lost in cleaned)
        sides.append("\n\n".join(text.strip("\n") for text, _ in cleaned) + "\n")
    return Split(sides[0], sides[1], (len(train_files), len(validation_files)), dropped)


def split_files(share: float) -> tuple[dict[str, str], dict[str, str]]:
    """The library's files as {relative path: source}, in the order of their paths: (training, validation).

    Args:     share: of the files held out, in [0, 1).
    Raises:   CourseError: this Python has no standard library in source form.
    """
    if not 0 <= share < 1:
        raise ValueError(f"validation: expected a share in [0, 1), got {share!r}")
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    contents: set[str] = set()
    root = Path(sysconfig.get_path("stdlib"))
    for path in _source_files(root):
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if not source.strip() or source in contents:
            continue
        contents.add(source)
        name = path.relative_to(root).as_posix()
        (held_out if in_validation(name, share) else train)[name] = source
    if len(train) < 10 or (share >= 0.05 and not held_out):
        raise CourseError(f"the standard library in {root} holds no source files; use a full Python installation")
    return train, held_out


def in_validation(path: str, share: float) -> bool:
    """Whether the file at this path (relative, with ``/``) is held out: true for about ``share`` of all paths."""
    return int(hashlib.sha256(f"{SPLIT_NUMBER}:{path}".encode()).hexdigest()[:8], 16) < share * 2**32


def docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and its functions, in order, without their indentation.

    A file that this Python cannot parse has none.
    """
    import ast

    return [text for node in definitions(source) if (text := ast.get_docstring(node))]


def definitions(source: str) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module, its classes and its functions, in order; nothing if this Python cannot parse it."""
    import ast
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own invalid escapes are not our reader's business
        try:
            module = ast.parse(source)
        except (SyntaxError, ValueError):  # ValueError: NUL bytes
            return
    # Statements alone are visited: expressions hold no definitions and are most of the tree.
    queue: list[ast.AST] = [module]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        blocks = [getattr(node, field, ()) for field in ("body", "handlers", "orelse", "finalbody", "cases")]
        # The body of a lambda or of a conditional expression is no list.
        queue.extend(reversed([child for block in blocks if isinstance(block, list) for child in block]))


def to_ascii(text: str) -> tuple[str, int]:
    """Printable ASCII and newlines only, and how many characters were dropped for it.

    Typographic quotes and dashes become their ASCII twins and accents are taken off (``Löwis`` -> ``Lowis``).
    """
    text = text.translate(_ASCII_TWINS) if not text.isascii() or "\f" in text or "\r" in text else text
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    clean = "".join(c for c in text if c == "\n" or " " <= c <= "~") if not _is_plain(text) else text
    return clean, len(text) - len(clean)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.replace("\n", "").isprintable()


def _source_files(root: Path) -> Iterator[Path]:
    """Every .py file of the library that is not skipped, in the order of its path."""
    paths = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [f for f in subfolders if f not in SKIPPED_FOLDERS and not f.startswith(SKIPPED_PREFIXES)]
        here = Path(folder)
        paths += [here / n for n in names if n.endswith(".py") and not n.startswith(SKIPPED_PREFIXES)]
    return iter(sorted(paths, key=lambda path: path.relative_to(root).as_posix()))


def _help_topics() -> list[str]:
    """What ``help("topic")`` prints, by the topic's name; empty where a distribution left it out."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return []
    return [topics[name] for name in sorted(topics)]


def _new_paragraphs(text: str, seen: set[str]) -> str:
    """The text without the paragraphs that were seen before; a text seen before as a whole becomes empty."""
    whole = " ".join(text.split())
    if whole in seen:
        return ""
    kept = []
    for paragraph in text.split("\n\n"):
        key = " ".join(paragraph.split())
        if len(key) >= SHORTEST_TRACKED_PARAGRAPH:
            if key in seen:
                continue
            seen.add(key)
        kept.append("\n".join(line.rstrip() for line in paragraph.splitlines()).strip("\n"))
    seen.add(whole)
    return "\n\n".join(paragraph for paragraph in kept if paragraph.strip())


def _without_copies(held_out: str, train: str) -> str:
    """The held-out text without the paragraphs that stand inside a longer paragraph of the training text."""
    kept = [p for p in held_out.strip().split("\n\n") if len(p) < SHORTEST_TRACKED_PARAGRAPH or p.strip() not in train]
    return "\n\n".join(kept) + "\n"
