"""Pairs that need no download: the first sentence of a function's docstring -> the function's name, as words.

    "Return the size of a file, reported by os.stat()."  ->  "getsize"
    "Fail if the two objects are unequal."               ->  "assert equal"

They come from the running Python's standard library, parsed, never imported, and are split by file: functions of one file are
alike. Which side a file is on follows from its path, as in ``embedded``. The pairs themselves differ between Python versions.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from course_lib.embedded import definitions, in_validation, split_files, to_ascii
from course_lib.errors import CourseError
from course_lib.metrics import exact_match, token_f1
from course_lib.pairs import Pair, Pairs, ParallelCorpus, corpus_of, key, pairs_of

HELD_OUT = 0.1  # of the files, for validation and again for the test

_WORD = re.compile(r"[a-z0-9]+")
_NAME_TOKEN = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`]*)`")  # :class:`Name`
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)[.!?](?=\s|$)")
_STOP_WORDS = frozenset(
    "a all an and any are as at be been by can each for from given has have if in into is it its may of on or s should so some "
    "such than that the their them then there these this those to used using was when where which whether will with you".split()
)


def load_summaries() -> ParallelCorpus:
    """Sentence -> name of every documented function of the standard library, split 80/10/10, about, by file.

    Names with two underscores on either side are left out. Within a side a pair occurs once; a sentence that stands on an
    earlier side (training, then validation) is taken out of the later ones: ``dropped`` says how many.

    Raises:   CourseError: this Python has no standard library in source form.
    """
    return split_by_file("summaries", functions)


def split_by_file(name: str, read: Callable[[str], Iterable[Pair]], columns: tuple[int, ...] = (0,)) -> ParallelCorpus:
    """The pairs that ``read`` finds in each file of the standard library, as ``load_summaries`` splits them.

    Args:     columns: 0 for the source, 1 for the target: what of a pair must not stand on an earlier side.
    Raises:   CourseError: this Python has no standard library in source form.
    """
    sides: tuple[list[Pair], list[Pair], list[Pair]] = ([], [], [])
    sizes = []
    for path, source in split_files(0)[0].items():
        found = list(read(source))
        sides[2 if in_validation(path, HELD_OUT) else 1 if in_validation(path, 2 * HELD_OUT) else 0].extend(found)
        if found:
            sizes.append(len(found))
    duplicates = dropped = 0
    seen: set[tuple[int, str]] = set()
    parts = []
    for side in sides:
        unique = list(dict.fromkeys(side))
        kept = [pair for pair in unique if seen.isdisjoint((column, key(pair[column])) for column in columns)]
        duplicates, dropped = duplicates + len(side) - len(unique), dropped + len(unique) - len(kept)
        seen.update((column, key(pair[column])) for pair in kept for column in columns)
        parts.append(kept)
    if not all(parts):
        raise CourseError("the standard library's sources have no docstrings; use a full Python installation")
    return corpus_of(name, [pairs_of(part) for part in parts], duplicates, dropped, len(sizes), max(sizes))


def functions(source: str) -> Iterator[Pair]:
    """(first sentence, name in words) of each documented function of a module, in order; none if it cannot be parsed."""
    for node, sentence in documented(source):
        name = name_words(node.name)
        if name:
            yield sentence, name


def documented(source: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """(function, its docstring's first sentence) of a module, in order; none if it cannot be parsed."""
    for node in definitions(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            sentence = first_sentence(ast.get_docstring(node) or "")
            if sentence:
                yield node, sentence


def first_sentence(docstring: str) -> str:
    """The first sentence on one line, ASCII, without markup; empty if it has fewer than two words."""
    paragraph = re.split(r"\n\s*\n|(?:^|\n)\s*>>>", to_ascii(docstring)[0].strip())[0]
    text = " ".join(_ROLE.sub(r"\1", paragraph).replace("`", "").split())
    end = _SENTENCE_END.search(text)
    text = text[: end.end()] if end else text
    return text if len(_WORD.findall(text.lower())) >= 2 else ""


def name_words(name: str) -> str:
    """A function's name as words in lower case: ``_getFile_name`` -> "get file name"; empty for names such as ``__init__``."""
    if name.startswith("__") and name.endswith("__"):
        return ""
    return " ".join(_NAME_TOKEN.findall(to_ascii(name)[0])).lower()


def given_away(pairs: Pairs) -> tuple[float, float]:
    """The shares of pairs whose sentence contains one of the name's words, and all of them (as words, without stemming)."""
    some = every = 0
    for sentence, name in zip(*pairs, strict=True):
        words = set(_WORD.findall(sentence.lower()))
        inside = [word in words for word in name.split()]
        some, every = some + any(inside), every + all(inside)
    return some / len(pairs.source), every / len(pairs.source)


def nearest_neighbour(train: Pairs, sources: Sequence[str]) -> list[str]:
    """For each sentence the name of the training sentence closest to it: the cosine of their TF-IDF vectors.

    tf: how often a word stands in a sentence; idf = log(sentences / sentences that have it). Of equally close ones, the first;
    with no word in common, the most frequent name.
    """
    counts = [Counter(_WORD.findall(sentence.lower())) for sentence in train.source]
    having = Counter(word for count in counts for word in count)
    idf = {word: math.log(len(counts) / n) for word, n in having.items()}
    index: dict[str, list[tuple[int, float]]] = defaultdict(list)  # word -> (sentence, its weight in a vector of length 1)
    for i, count in enumerate(counts):
        length = math.sqrt(sum((n * idf[word]) ** 2 for word, n in count.items()))
        for word, n in count.items():
            if length:
                index[word].append((i, n * idf[word] / length))
    common = Counter(train.target).most_common(1)[0][0]
    names = []
    for sentence in sources:
        cosine: dict[int, float] = defaultdict(float)  # times the length of the sentence's own vector
        for word, n in Counter(_WORD.findall(sentence.lower())).items():
            for i, weight in index.get(word, ()):
                cosine[i] += n * idf[word] * weight
        names.append(train.target[max(cosine, key=lambda i: (cosine[i], -i))] if cosine else common)
    return names


def copying(train: Pairs, sources: Sequence[str]) -> list[str]:
    """For each sentence its first k content words, the first one stemmed or not: the rule that scores best in training."""
    rules = [(k, stem) for k in range(1, 6) for stem in (False, True)]

    def score(rule: tuple[int, bool]) -> float:
        return token_f1([_first_words(sentence, *rule) for sentence in train.source], train.target)

    best = max(rules, key=score)
    return [_first_words(sentence, *best) for sentence in sources]


def baselines(train: Pairs, part: Pairs) -> dict[str, tuple[float, float]]:
    """What needs no network, measured on a part: {"copying": (token F1, exact match), ...}."""
    common = Counter(train.target).most_common(1)[0][0]
    guesses = {
        "most frequent name": [common] * len(part.source),
        "copying": copying(train, part.source),
        "nearest neighbour": nearest_neighbour(train, part.source),
    }
    return {name: (token_f1(guess, part.target), exact_match(guess, part.target)) for name, guess in guesses.items()}


def _first_words(sentence: str, k: int, stem: bool) -> str:
    words = [word for word in _WORD.findall(sentence.lower()) if word not in _STOP_WORDS][:k]
    if stem and words:  # "returns", "matches", "closing": docstrings often begin with a verb
        words[0] = re.sub(r"(?<=sh|ch|ss)es$|(?<=[^s]{3})s$|(?<=\w{3})ing$", "", words[0])
    return " ".join(words)
