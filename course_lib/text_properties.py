"""What a text says at each place about its own form: length of the line, speaker, indentation, quotes, nesting.

Each function takes a text of T characters and returns an array (T,): entry t is the value when characters 0 to t were read
and the next one is still unknown, as for the state h[t] of a network that reads the text. Counts are int64, flags are bool.
No entry depends on later characters, except where a Python token is only known at its end (see ``python_structure``).
"""

from __future__ import annotations

import io
import tokenize
from typing import NamedTuple

import numpy as np

# Python 3.12 cut f-strings, and 3.14 t-strings, into several tokens.
_F_STARTS = {getattr(tokenize, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(tokenize, name)}
_F_ENDS = {getattr(tokenize, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(tokenize, name)}


def column(text: str) -> np.ndarray:
    """Characters since the beginning of the line: 0 behind a newline."""
    return _since(_characters(text) == "\n")


def capitals(text: str) -> np.ndarray:
    """Upper-case letters without a break up to here: 3 behind ``KIN`` of ``KING``, 0 behind any other character."""
    return _since(~np.char.isupper(_characters(text)))


def letters(text: str) -> np.ndarray:
    """Letters without a break up to here: how long the word is so far."""
    return _since(~np.char.isalpha(_characters(text)))


def name_line(text: str) -> np.ndarray:
    """Whether the next character stands in the first line behind an empty one (or of the text).

    In tiny Shakespeare that line names the speaker: ``GREMIO:``.
    """
    return speech_line(text) == 0


def speech_line(text: str) -> np.ndarray:
    """The line of the speech in which the next character stands: 0 is the speaker's name, 1 the first line spoken.

    Counts line ends since the last empty line, or since the text's beginning.
    """
    characters = _characters(text)
    ends = np.cumsum(characters == "\n")
    return ends - np.maximum.accumulate(np.where(_empty_lines(characters), ends, 0))


def indentation(text: str) -> np.ndarray:
    """Spaces before the text of the line; at a line's beginning, until it shows something, those of the line before.

    Lines of spaces only count for nothing.
    """
    characters, spaces = _characters(text), column(text) - 1
    shown = (characters != " ") & (characters != "\n")
    position = np.arange(len(text))
    line = np.cumsum(characters == "\n") - (characters == "\n")  # the line to which each character belongs
    first = shown & (np.r_[-1, line[shown]][np.cumsum(shown) - shown] != line)  # the first visible character of its line
    last = np.maximum.accumulate(np.where(first, position, -1))
    return np.where(last >= 0, spaces[last], 0)


def in_quotes(text: str, mark: str = '"') -> np.ndarray:
    """Whether an odd number of quotation marks was read since the last empty line: the marks open and close in turn."""
    characters = _characters(text)
    marks = np.cumsum(characters == mark)
    return (marks - np.maximum.accumulate(np.where(_empty_lines(characters), marks, 0))) % 2 == 1


def bracket_depth(text: str, opening: str = "([{", closing: str = ")]}") -> np.ndarray:
    """How many brackets are open, counted from the last empty line; a closing one with nothing to close counts for nothing."""
    depths, depth, before = np.zeros(len(text), np.int64), 0, "\n"
    for t, character in enumerate(text):
        if character in opening:
            depth += 1
        elif character in closing:
            depth = max(0, depth - 1)
        elif character == before == "\n":
            depth = 0
        depths[t], before = depth, character
    return depths


class PythonStructure(NamedTuple):
    """Each (T,): inside a string; inside a comment; open brackets; blocks (indented levels) around the line."""

    string: np.ndarray
    comment: np.ndarray
    brackets: np.ndarray
    blocks: np.ndarray


def python_structure(source: str) -> PythonStructure:
    """What Python's own tokenizer says of a whole source text.

    A string begins with its first quotation mark (behind letters as in ``rb"``) and ends with its last; what stands in the
    braces of an f-string is inside it. A comment begins with # and ends before the newline. A line's block is known at its
    first visible character; until then the value is that of the line before. Two marks may be an empty string or the beginning
    of a triple-quoted one: here they are what they turn out to be.

    Raises:   ValueError: the source is no whole Python source (cut in a string, a bracket or a block, or of another Python).
    """
    starts = np.cumsum([0, *map(len, io.StringIO(source))])
    steps = np.zeros((4, len(source) + 1), int)  # of string, comment, brackets, blocks
    f_starts: list[int] = []  # where the f-strings that are open began
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            first, last = (min(starts[min(line, len(starts)) - 1] + at, len(source)) for line, at in (token.start, token.end))
            quote = first + len(token.string) - len(token.string.lstrip("rRbBuUfFtT"))
            if token.type in _F_STARTS:
                f_starts.append(quote)
            elif token.type in _F_ENDS:
                quote = f_starts.pop()
            if token.type in (tokenize.STRING, *_F_ENDS) and not f_starts:
                steps[0, [quote, last - 1]] += 1, -1
            elif token.type == tokenize.COMMENT:
                steps[1, [first, last]] += 1, -1
            elif token.type == tokenize.OP and token.string in "([{}])" and not f_starts:
                steps[2, first] += 1 if token.string in "([{" else -1
            elif token.type in (tokenize.INDENT, tokenize.DEDENT):
                steps[3, last] += 1 if token.type == tokenize.INDENT else -1
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"source: expected whole Python source, the tokenizer says {error}") from None
    string, comment, brackets, blocks = steps.cumsum(axis=1)[:, :-1]
    return PythonStructure(string > 0, comment > 0, brackets, blocks)


def _characters(text: str) -> np.ndarray:
    return np.array(list(text), dtype="<U1")


def _since(reset: np.ndarray) -> np.ndarray:
    """How many entries up to here since the last true one: 0 at it; from the beginning, 1, 2, ..."""
    position = np.arange(len(reset))
    return position - np.maximum.accumulate(np.where(reset, position, -1))


def _empty_lines(characters: np.ndarray) -> np.ndarray:
    """Where a newline ends an empty line; the text's beginning counts as the beginning of a line."""
    newline = characters == "\n"
    return newline & np.r_[True, newline[:-1]][: len(newline)]
