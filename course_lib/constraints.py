"""Constraints: filters that hold what is written to a set of tokens, or to a regular expression.

They come before the filters that cut (top-k, top-p, min-p), which would otherwise leave only tokens that are not allowed:
forbid, allow, matching, repetition_penalty, temperature, top_k, top_p, min_p.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex

from course_lib.filters import Filter, require
from course_lib.layers import log_softmax
from course_lib.text import UNKNOWN_ID, CharTokenizer

END = UNKNOWN_ID  # what ``matching`` writes behind a whole match: the one token of a CharTokenizer that is no character
SECONDS = 2.0  # for one look of a pattern at one text; they take microseconds unless the pattern backtracks without end
REMEMBERED = 4096  # texts whose continuations are kept


def allow(tokens: str | Sequence[int], tokenizer: CharTokenizer | None = None) -> Filter:
    """Give all tokens but these probability 0; the opposite of ``forbid``.

    Args:     tokens: numbers; or characters, which the tokenizer turns into numbers, leaving out those it does not know.
    Raises:   ValueError: there are none; or, when used, none of them is possible (allow first, cut afterwards).
    """
    known = np.unique(tokenizer.encode(tokens) if isinstance(tokens, str) else np.array(tokens, int))
    known = known[known != UNKNOWN_ID] if isinstance(tokens, str) else known
    require(known.size > 0, "allow", "at least one token that the model knows", repr(tokens))

    def keep(log_probs: np.ndarray) -> np.ndarray:
        kept = np.full_like(log_probs, -np.inf)
        kept[:, known] = log_probs[:, known]
        possible = kept.max(axis=1) > -np.inf
        require(possible.all(), "allow", "a token that is still possible (allow first, cut afterwards)", repr(tokens))
        return log_softmax(kept)

    return keep


def matching(pattern: str, tokenizer: CharTokenizer) -> Filter:
    """Hold each stream, from behind ``first`` on, to texts that are, or can still become, a full match of a pattern.

    A character is allowed if some text that begins with all written so far and this character is a full match. Where what is
    written is a match already, the stream may also end, by the token ``END``: with the probability of all characters that the
    pattern does not allow there, since it is they that would end it. So ``[A-Z][a-z]+`` ends where the model would go on with
    anything but a small letter, and a pattern behind whose match nothing can follow ends there for certain. Behind ``END``
    there is only ``END``; ``decoding.sample(..., end=END)`` stops at it. Forbid the unknown token first: its number is END's.

    "Some text" means any characters: a pattern may lead to a place where only a character is left that the model does not
    know. That is an error, and says where.

    Args:     pattern: as the library ``regex`` reads it (Python's syntax, and more).
    Raises:   ValueError: no regular expression; nothing that the model can write begins a match. When used: nothing can go
              on (see above); what could has no probability (matching first, cut afterwards); SECONDS are over.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"matching: expected a regular expression, got {pattern!r} ({error})") from None
    kinds = [np.array(kind) for kind in alike(pattern, tokenizer.characters)]
    samples = [tokenizer.characters[kind[0]] for kind in kinds]
    V = tokenizer.size

    @lru_cache(REMEMBERED)
    def after(text: str) -> tuple[np.ndarray, bool]:
        """Which tokens may follow, (V,), and whether the text is a match as it stands."""
        allowed = np.zeros(V, bool)
        try:
            whole = compiled.fullmatch(text, timeout=SECONDS) is not None
            for kind, sample in zip(kinds, samples, strict=True):
                allowed[1 + kind] = compiled.fullmatch(text + sample, partial=True, timeout=SECONDS) is not None
        except TimeoutError:
            raise ValueError(f"matching: {pattern!r} takes more than {SECONDS:g} s behind {text[-40:]!r}") from None
        if not whole and not allowed.any():
            place = f"behind {text[-40:]!r}" if text else "at the beginning"
            raise ValueError(f"matching: {place}, {pattern!r} needs a character that the model does not know")
        return allowed, whole

    after("")  # a mistake is told before anything is written

    def keep(log_probs: np.ndarray, history: np.ndarray) -> np.ndarray:
        kept = np.full_like(log_probs, -np.inf)
        for n, tokens in enumerate(history[1:].T.tolist()):
            if tokens and tokens[-1] == END:
                kept[n, END] = 0
                continue
            allowed, whole = after("".join([tokenizer.characters[v - 1] for v in tokens]))
            kept[n, allowed] = log_probs[n, allowed]
            if whole:
                kept[n, END] = np.logaddexp.reduce(log_probs[n, ~allowed], initial=-np.inf)
        expected = "a character that is still possible (matching first, cut afterwards)"
        require((kept.max(axis=1) > -np.inf).all(), "matching", expected, repr(pattern))
        return log_softmax(kept)

    keep.needs_history = True
    return keep


def alike(pattern: str, characters: str) -> list[list[int]]:
    """Group characters (by their places) that the pattern cannot tell apart, so that one of each group is tested for all.

    A pattern looks at a character only through its atoms: a letter, a set such as ``[a-z]``, an escape such as ``\\w``. Two
    characters that match the same atoms, with and without regard to case, are alike. In a pattern with anything that is not
    in ``_ATOM`` (back references, nested sets, recursion), every character is a group of its own.
    """
    atoms = [r"\w", r"\n", r"\s"]  # what \b, ^, $ and . look at
    at = 0
    while at < len(pattern):
        found = _ATOM.match(pattern, at)
        if found is None:
            return [[place] for place in range(len(characters))]
        atoms += [found["one"]] if found["one"] else [regex.escape(found["literal"])] if found["literal"] else []
        at = found.end()
    tests = [regex.compile(atom, flags) for atom in dict.fromkeys(atoms) for flags in (0, regex.IGNORECASE)]
    groups: dict[tuple, list[int]] = {}
    for place, character in enumerate(characters):
        groups.setdefault(tuple(test.fullmatch(character) is not None for test in tests), []).append(place)
    return list(groups.values())


_ATOM = regex.compile(
    r"""\(\?(?:[imsx-]*:|[=!>]|<[=!]|P?<\w+>|[imsx]+\))  # the beginning of a group, or flags
      | \\[bBAZ]
      | (?P<one> \\[dDwWsSntrfv] | \\[pP]\{[^{}\\]+\} | \\x[0-9a-fA-F]{2} | \\u[0-9a-fA-F]{4} | \\[^A-Za-z0-9]
               | \[\^?\]?(?:\\[^0-9]|[^\[\]\\])*\] )
      | (?!\(\?)(?P<literal>[^\\\[\]])           # a letter; or a sign such as * or {, taken for one""",
    regex.VERBOSE | regex.DOTALL,
)
