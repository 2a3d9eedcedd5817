"""A harder task without download: the code of a function -> the first sentence of its docstring, in lower case.

    "def getsize filename return os stat filename st size"  ->  "return the size of a file, reported by os.stat()."

The functions are those of ``summaries``, and those whose names have two underscores on either side; the split by file is the
same. The code has its name and its arguments, but no docstring, no comment and no punctuation; names are cut into words.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from course_lib.embedded import to_ascii
from course_lib.metrics import token_f1
from course_lib.pairs import Pair, Pairs, ParallelCorpus
from course_lib.summaries import documented, nearest_neighbour, split_by_file

LONGEST = 60  # words of a function; the rest is cut off

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_SENTENCE_WORD = re.compile(r"[a-z0-9]+")


def load_bodies() -> ParallelCorpus:
    """Code -> sentence of every documented function of the standard library, split 80/10/10, about, by file.

    Within a side a pair occurs once; a pair whose code or whose sentence stands on an earlier side is taken out of the later
    ones: ``dropped`` says how many.

    Raises:   CourseError: this Python has no standard library in source form.
    """
    return split_by_file("bodies", bodies, columns=(0, 1))


def bodies(source: str) -> Iterator[Pair]:
    """(code in words, sentence) of each documented function of a module, in order; none if it cannot be parsed."""
    found = list(documented(source))
    inner = (child for node, _ in found for child in ast.walk(node))
    for node in {id(child): child for child in inner if _may_have_docstring(child)}.values():
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    for node, sentence in found:
        yield code_words(node), sentence.lower()


def code_words(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The first 60 words of a function's code, decorators left out: keywords, names cut into words, numbers, words of texts."""
    node.decorator_list = []
    return " ".join(_WORD.findall(to_ascii(ast.unparse(node))[0])[:LONGEST]).lower()


def word_f1(predictions: Sequence[str], references: Sequence[str]) -> float:
    """``metrics.token_f1`` of the words of sentences, whatever their punctuation and case.

    Raises:   ValueError: unequal numbers of sentences, or none.
    """
    return token_f1(*([" ".join(_SENTENCE_WORD.findall(text.lower())) for text in side] for side in (predictions, references)))


def baselines(train: Pairs, part: Pairs) -> dict[str, float]:
    """What needs no network: the word F1, on a part, of the most frequent words, the name alone, and the nearest neighbour.

    The most frequent words of the sentences are as many as a sentence has on average. The name, with its arguments, is what
    code says best in few words: the first ones behind "def", as many as again.
    """
    counts = Counter(word for text in train.target for word in set(_SENTENCE_WORD.findall(text)))
    mean = round(sum(len(_SENTENCE_WORD.findall(text)) for text in train.target) / len(train.target))
    guesses = {
        "most frequent words": [" ".join(word for word, _ in counts.most_common(mean))] * len(part.source),
        "name and arguments": [" ".join(code.split()[1 : 1 + mean]) for code in part.source],
        "nearest neighbour": nearest_neighbour(train, part.source),
    }
    return {name: word_f1(guess, part.target) for name, guess in guesses.items()}


def _may_have_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
