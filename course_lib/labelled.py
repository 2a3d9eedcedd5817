"""Texts with labels: names in ten languages, or the lines of any UTF-8 file, split so that no text stands on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from course_lib import languages
from course_lib.datasets import read_text
from course_lib.downloads import registry
from course_lib.errors import CourseError
from course_lib.pairs import clean, key

NAMES = "languages"  # the data of lesson 08
FEWEST = 100  # different texts
HELD_OUT = 0.1  # of the texts, for validation and again for the test


class Part(NamedTuple):
    """Some texts. labels: (N,) int64, places in ``names`` of the corpus."""

    texts: tuple[str, ...]
    labels: np.ndarray


class LabelledCorpus(NamedTuple):
    """Texts in three parts; names: of the classes. sha256: of all of it. dropped: texts with more than one label, left out."""

    train: Part
    validation: Part
    test: Part
    names: tuple[str, ...]
    sha256: str
    dropped: int


def load_labelled(name_or_path: str) -> LabelledCorpus:
    """The names of lesson 08 for "languages", in their own split; else a file with "text TAB label" in each line.

    Of a file, each text occurs once, with single spaces and in Unicode's composed form. The hash of a text decides its side,
    80/10/10, about: lines that are added later move no other text. Texts that differ in case, punctuation or spaces only are
    on one side; a text with two labels has no single answer and is left out.

    Raises:   CourseError: no file of such lines (line n has no TAB, no text or no label); fewer than 100 texts, one class, or
              a class that no training text has.
    """
    if name_or_path == NAMES:
        names = languages.load_names()
        parts = [Part(part.texts, part.labels) for part in names[:3]]
        return LabelledCorpus(*parts, names.languages, names.sha256, names.dropped)
    if name_or_path in registry():
        raise CourseError(f"{name_or_path} has no labels; give {NAMES}, or a file with text TAB label in each line")
    return split_labelled(name_or_path, read_rows(name_or_path))


def read_rows(path: str) -> list[tuple[str, str]]:
    """(text, label) of each line of a file.

    Raises:   CourseError: as ``load_labelled``.
    """
    rows = []
    for number, line in enumerate(read_text(path).rstrip("\n").split("\n"), 1):
        text, tab, label = line.partition("\t")
        if not tab:
            raise CourseError(f"line {number} of {path!r} has no TAB; write text TAB label in each line")
        text, label = clean(text), clean(label.split("\t")[0])
        if not text or not label:
            raise CourseError(f"line {number} of {path!r} has no {'label' if text else 'text'}; fill it or take the line out")
        rows.append((text, label))
    return rows


def split_labelled(name: str, rows: Sequence[tuple[str, str]]) -> LabelledCorpus:
    """Split (text, label) rows; see ``load_labelled``, also for what is raised."""
    labels: dict[str, set[str]] = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    kept = {text: min(found) for text, found in labels.items() if len(found) == 1}
    if len(kept) < FEWEST:
        raise CourseError(f"{name!r} has {len(kept)} different texts with one label, and {FEWEST} are needed; add lines")
    names = sorted(set(kept.values()))
    if len(names) < 2:
        raise CourseError(f"every line of {name!r} has the label {names[0]!r:.40}; add lines of another class")
    sides: tuple[list, list, list] = ([], [], [])
    for text, label in kept.items():
        sides[_side(text)].append((text, names.index(label)))
    untaught = set(range(len(names))) - {label for _, label in sides[0]}
    if untaught:
        few = names[min(untaught)]
        count = sum(label == few for label in kept.values())
        raise CourseError(f"no text to train on has the label {few!r:.40} ({count} in all); add lines of it or take it out")
    if not all(sides):
        raise CourseError(f"of the {len(kept)} texts of {name!r} none is held out; add lines")
    shown = "\0".join("".join(f"{text}\t{names[y]}\n" for text, y in side) for side in sides)
    parts = [Part(texts, np.array(y, dtype=np.int64)) for texts, y in (zip(*side, strict=True) for side in sides)]
    return LabelledCorpus(*parts, tuple(names), hashlib.sha256(shown.encode()).hexdigest(), len(labels) - len(kept))


def _side(text: str) -> int:
    """0, 1 or 2: training, validation or test, by the hash of what the text says."""
    place = int(hashlib.sha256(key(text).encode()).hexdigest()[:8], 16) / 2**32
    return 1 if place < HELD_OUT else 2 if place < 2 * HELD_OUT else 0
