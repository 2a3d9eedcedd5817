"""Parallel corpora: pairs of a source and a target text, split so that no sentence stands on two sides.

Collections of translations repeat themselves: "Run!" has a dozen French translations, and some of those translate "Flee." too.
A split by lines therefore tests on sentences that trained. Here pairs that share a sentence, directly or through others, are
one group (a connected component of the graph between source and target sentences), and a group stays together.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from course_lib.connected import components
from course_lib.datasets import decode_text, read_text
from course_lib.downloads import fetch, fetch_all, registry
from course_lib.errors import CourseError

HELD_OUT = 0.025  # of the pairs, for validation and again for the test
FEWEST_HELD_OUT = 10  # pairs on each of these two sides
FEWEST = 100  # pairs of a corpus
LARGE_GROUP = 0.1  # of a held-out side: a group with more pairs trains, or a side would be about a few sentences
SMALL_GROUP = 5  # pairs: such a group may be held out, however small the side

_NO_KEY = re.compile(r"[\W_]+")

Pair = tuple[str, str]


class Pairs(NamedTuple):
    """N pairs: the source texts and, at the same places, the target texts."""

    source: tuple[str, ...]
    target: tuple[str, ...]


class ParallelCorpus(NamedTuple):
    """Pairs to train on and pairs held out; sha256 is of all three parts.

    duplicates: pairs left out because they were there already. dropped: pairs left out for another reason: a side was empty,
    or (of summaries) the sentence stands on an earlier side. groups: how many stayed together on one side: pairs that share
    a sentence, or a file (of summaries); 0: not split here. largest: the pairs of the largest group.
    """

    name: str
    train: Pairs
    validation: Pairs
    test: Pairs
    sha256: str
    duplicates: int = 0
    dropped: int = 0
    groups: int = 0
    largest: int = 0


def load_pairs(name_or_path: str | Path, target: str | Path | None = None, reverse: bool = False) -> ParallelCorpus:
    """A registered data set of pairs, or the user's own; a registered name comes first.

    multi30k: German -> English, its given split, every pair kept. tatoeba_fra: French -> English. tatoeba_cmn: Chinese ->
    English. A file: "source TAB target" in each line (more columns are not read). Two files: line n translates line n.
    All but multi30k are split 95/2.5/2.5, about, by groups (see above); a pair occurs once. Spaces are cleaned.
    dates, summaries and bodies are registered too, but have modules of their own.

    Args:     target: the file of the targets, if name_or_path is the file of the sources. reverse: swap the sides.
    Raises:   CourseError: one line: which file or line is wrong, and what to do; or the reasons of ``fetch_all``.
    """
    entry = registry().get(name_or_path) if isinstance(name_or_path, str) and target is None else None
    if entry is not None and entry.kind != "pairs":
        known = ", ".join(name for name, other in sorted(registry().items()) if other.kind == "pairs")
        raise CourseError(f"{entry.name} is of kind {entry.kind!r} and has no pairs; choose one of {known}, or a file")
    name = str(name_or_path)
    if name == "multi30k" and entry:
        return _multi30k(reverse)
    if entry:
        lines = _registered(entry.name)
        rows = [(columns[1], columns[0]) for columns in (line.split("\t") for line in lines) if len(columns) > 1]
        cleaned = [(clean(a), clean(b)) for a, b in rows]
        pairs = [pair for pair in cleaned if all(pair)]
        dropped = len(lines) - len(pairs)
    else:
        pairs = _two_files(name_or_path, target) if target is not None else _one_file(name_or_path)
        dropped = 0
    if reverse:
        pairs = [(b, a) for a, b in pairs]
    return split_pairs(name, pairs, dropped)


def split_pairs(name: str, pairs: Sequence[Pair], dropped: int = 0) -> ParallelCorpus:
    """Split pairs 95/2.5/2.5, about, so that no source and no target sentence stands on two sides.

    Sentences that differ in case, punctuation or spaces only count as the same. Groups are taken in a fixed random order.

    Raises:   CourseError: fewer than 100 different pairs, or too many of them share sentences.
    """
    unique = list(dict.fromkeys(pairs))
    if len(unique) < FEWEST:
        raise CourseError(f"{name!r} has {len(unique)} different pairs and at least {FEWEST} are needed; add some")
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups(unique)):
        members[group].append(i)
    enough = max(FEWEST_HELD_OUT, round(HELD_OUT * len(unique)))
    sides: tuple[list[int], list[int], list[int]] = ([], [], [])
    for group in sorted(members.values(), key=lambda group: _digest("\t".join(min(unique[i] for i in group)))):
        small = len(group) <= max(SMALL_GROUP, LARGE_GROUP * enough)
        side = next((s for s in (1, 2) if small and len(sides[s]) < enough), 0)
        sides[side].extend(group)
    if min(map(len, sides)) < FEWEST_HELD_OUT:
        raise CourseError(
            f"the pairs of {name!r} share so many sentences that too few can be held out ({len(unique)} pairs, but only "
            f"{len(members)} groups that share none); add pairs of other sentences"
        )
    parts = [pairs_of([unique[i] for i in sorted(side)]) for side in sides]
    largest = max(map(len, members.values()))
    return corpus_of(name, parts, len(pairs) - len(unique), dropped, len(members), largest)


def groups(pairs: Sequence[Pair]) -> list[int]:
    """The group of each pair, as the place of its first pair: pairs that share a sentence, directly or through others.

    Which of the sides a sentence stands on matters: source and target may be the same word ("taxi").
    """
    seen: dict[tuple[int, str], int] = {}
    links = ((seen.setdefault((side, key(text)), i), i) for i, pair in enumerate(pairs) for side, text in enumerate(pair))
    return list(components(links, range(len(pairs))).values())


def key(sentence: str) -> str:
    """What a sentence says, apart from case, punctuation and spaces; a sentence of punctuation marks is its own key."""
    text = unicodedata.normalize("NFKC", sentence).casefold()
    return _NO_KEY.sub("", text) or text


def clean(sentence: str) -> str:
    """A sentence with single spaces, none at its ends, in Unicode's composed form (NFC)."""
    return " ".join(unicodedata.normalize("NFC", sentence).split())


def shared(part: Pairs, train: Pairs) -> tuple[int, int]:
    """How many sources, and how many targets, of a part also occur in training, by their keys."""
    known = [set(map(key, side)) for side in train]
    return tuple(sum(key(text) in seen for text in side) for side, seen in zip(part, known, strict=True))


def pairs_of(rows: Iterable[Pair]) -> Pairs:
    """Pairs as two columns. Raises ValueError if there is none."""
    source, target = zip(*rows, strict=True)
    return Pairs(source, target)


def corpus_of(name: str, parts: Sequence[Pairs], *facts: int) -> ParallelCorpus:
    """The corpus of these parts, training, validation and test, with its checksum. facts: duplicates, dropped, ...."""
    text = "\0".join("".join(f"{a}\t{b}\n" for a, b in zip(*part, strict=True)) for part in parts)
    return ParallelCorpus(name, *parts, _digest(text), *facts)


def _multi30k(reverse: bool) -> ParallelCorpus:
    texts = [decode_text(gzip.decompress(path.read_bytes()), path.name) for path in fetch_all("multi30k")]
    sides = [[clean(line) for line in _lines(text)] for text in texts]
    parts = [pairs_of(zip(*(sides[i : i + 2][:: -1 if reverse else 1]), strict=True)) for i in (0, 2, 4)]
    return corpus_of("multi30k", parts)


def _registered(name: str) -> list[str]:
    path = fetch(name)
    raw = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(raw)):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            raw = archive.read(next(member for member in archive.namelist() if not member.startswith("_")))
    return _lines(decode_text(raw, path.name))


def _one_file(path: str | Path) -> list[Pair]:
    pairs = []
    for number, line in enumerate(_lines(read_text(path)), 1):
        columns = line.split("\t")
        if len(columns) < 2:
            raise CourseError(
                f"line {number} of {str(path)!r} has no TAB; write source TAB target in each line, or name a file of targets"
            )
        pairs.append(_checked(columns[0], columns[1], number, str(path)))
    return pairs


def _two_files(source: str | Path, target: str | Path) -> list[Pair]:
    sides = [_lines(read_text(path)) for path in (source, target)]
    (a, m), (b, n) = ((str(path), len(lines)) for path, lines in zip((source, target), sides, strict=True))
    if m != n:
        raise CourseError(f"{a} has {m:,} lines and {b} {n:,}; line n of one must translate line n of the other")
    return [_checked(*pair, number, f"{a} or {b}") for number, pair in enumerate(zip(*sides, strict=True), 1)]


def _checked(source: str, target: str, number: int, where: str) -> Pair:
    pair = clean(source), clean(target)
    for side, text in zip(("source", "target"), pair, strict=True):
        if not text:
            raise CourseError(f"line {number} of {where} has an empty {side}; fill it or take the pair out")
    return pair


def _lines(text: str) -> list[str]:
    """The lines of a text, apart from empty ones at its end. Only a newline ends a line, or sides would get out of step."""
    return text.rstrip("\n").split("\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
