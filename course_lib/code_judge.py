"""Is it Python? Samples of a language model judged by ``ast.parse``: read, never run.

A sample of a fixed length breaks off somewhere, and what breaks off cannot parse. It is therefore cut into top-level statements
and the last one, which may be unfinished, is left out. Everything else must parse. The rule, by lines:

    A top-level statement begins at a line that starts in column 0, outside a string in triple quotes, unless the line only goes
    on: a comment, a closing bracket, ``else``, ``elif``, ``except``, ``finally``, or what stands below a decorator. It ends
    where the next begins.

The rule needs no grammar, so it also cuts text that is not Python, and one bad statement does not spoil its neighbours. What an
unclosed string in triple quotes swallows is unfinished: ``judged`` says how much of a sample was looked at. Cut real source of
the same length by the same rule and put it beside.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 1_000_000  # characters that are given to the parser
LONG = 5  # lines that are not blank: such a statement is more than one simple line

_QUOTES = re.compile(r"""\"\"\"|'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*|\n""")
_GOES_ON = re.compile(r"[\s#)\]}]|(?:else|elif|except|finally)\b|$")


class Verdict(NamedTuple):
    """On one sample: how many complete statements it has, and how many of them parse; the same of those of 5 lines or more.

    parses: whether all complete statements, as one text, parse; False if there is none. judged: characters of that text.
    """

    parses: bool
    judged: int
    statements: int
    parsed: int
    long: int
    long_parsed: int


def parses(source: str) -> bool:
    """Whether this Python's parser accepts the source. Nothing is compiled or run, and no warning is shown.

    False, too, for what the parser gives up on: nesting too deep for it, NUL, half a surrogate pair.

    Raises:   ValueError: more than a million characters.
    """
    if len(source) > LONGEST:
        raise ValueError(f"source: expected at most {LONGEST:,} characters, got {len(source):,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes, `is` with a literal
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: NUL, surrogates
            return False
    return True


def statements(text: str) -> list[str]:
    """The text cut into top-level statements by the rule above; put together they are the text.

    >>> statements("import os\\n\\n@f\\ndef g():\\n    pass\\nx = 1")
    ['import os\\n\\n', '@f\\ndef g():\\n    pass\\n', 'x = 1']
    """
    cuts, decorated = [0], False
    for start, line in _lines_outside_strings(text):
        if start and not decorated and not _GOES_ON.match(line):
            cuts.append(start)
        decorated = line.startswith("@") or (
            decorated and (not line.strip() or line.startswith(("#", " ", "\t", ")", "]", "}")))
        )
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if a < b]


def judge(sample: str) -> Verdict:
    """Judge a sample that begins where a top-level statement may begin; its last statement is left out.

    Raises:   ValueError: more than a million characters.
    """
    complete = statements(sample)[:-1]
    code = [statement for statement in complete if any(_is_code(line) for line in statement.splitlines())]
    verdicts = [(parses(statement), sum(map(_is_code, statement.splitlines())) >= LONG) for statement in code]
    text = "".join(complete)
    return Verdict(
        parses=bool(code) and parses(text),
        judged=len(text),
        statements=len(code),
        parsed=sum(good for good, _ in verdicts),
        long=sum(long for _, long in verdicts),
        long_parsed=sum(good and long for good, long in verdicts),
    )


def shares(samples: Sequence[str]) -> dict[str, float]:
    """Of samples: how many have a complete statement ("judged"); of those, how many parse as a whole ("samples").

    Then the shares of all complete statements that parse ("statements"), and of those of 5 lines or more ("long statements"),
    how many statements there were ("number", "long number"), and the share of characters that was looked at ("characters").
    A share of nothing is NaN.

    Raises:   ValueError: no samples, or one too long.
    """
    if not samples:
        raise ValueError("samples: expected at least one, got none")
    verdicts = [judge(sample) for sample in samples]
    total = Verdict(*map(sum, zip(*verdicts, strict=True)))
    with_code = sum(verdict.statements > 0 for verdict in verdicts)
    return {
        "judged": with_code / len(samples),
        "samples": _share(total.parses, with_code),
        "statements": _share(total.parsed, total.statements),
        "long statements": _share(total.long_parsed, total.long),
        "number": total.statements,
        "long number": total.long,
        "characters": _share(total.judged, sum(map(len, samples))),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _is_code(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _lines_outside_strings(text: str) -> list[tuple[int, str]]:
    """(place, line) of each line that does not begin inside a string in triple quotes; other quotes end with their line."""
    starts, at = [0], 0
    while found := _QUOTES.search(text, at):
        at = found.end()
        if found[0] == "\n":
            starts.append(at)
        elif found[0] in ('"""', "'''"):
            end = re.compile(r"(?:\\.|[^\\])*?" + found[0], re.DOTALL).match(text, at)
            if end is None:
                break
            at = end.end()
    ends = [text.find("\n", start) for start in starts]
    return [(start, text[start : end if end >= 0 else len(text)]) for start, end in zip(starts, ends, strict=True)]
