"""Turn sentences into integers and back, one token per character or per word, for models that read one and write another.

Word by word, a Chinese or Japanese character (Han, Hiragana, Katakana) is a word of its own: no spaces tell their words apart.
Hangul is not split, since Korean sets spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from course_lib.errors import CourseError
from course_lib.text import (
    BOS,
    EOS,
    PAD,
    UNKNOWN,
    UNKNOWN_SHOWN,
    Vocabulary,
    check_ids,
    config_tokens,
    damaged,
    join_words,
    most_frequent,
    split_words,
    token_problem,
)

KINDS = ("characters", "words")
PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)

_SCRIPT = "\u3005-\u3007\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# The ideographic comma and full stop, brackets, the middle dot, and what is as wide as they are: ! ? , : ; ( ).
_MARKS = "\u3001-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_CHARACTER = re.compile(f"([{_SCRIPT}])")
_SPACE = re.compile(f"(?<=[{_SCRIPT}{_MARKS}]) | (?=[{_SCRIPT}{_MARKS}])")


@dataclass(frozen=True)
class UnitTokenizer:
    """One token per character or per word; ids 0 to 3 are ``<pad>``, ``<bos>``, ``<eos>`` and ``<unk>``.

    kind: "characters" or "words" (words and punctuation marks, as ``text.split_words`` has them). tokens: the units, without
    the four special ones. Texts are put into Unicode's composed form (NFC) first: one é, however it was typed.
    """

    kind: str
    tokens: tuple[str, ...]
    lowercase: bool = False

    SPECIAL = (PAD, BOS, EOS, UNKNOWN)  # no annotation: one for the class, not a field

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected 'characters' or 'words', got {self.kind!r:.40}")
        problem = token_problem((*self.SPECIAL, *self.tokens)) or _long_character(self.kind, self.tokens)
        if problem:
            raise ValueError(f"tokens: expected distinct non-empty {self.kind}, none of them special, {problem}")

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], kind: str, min_count: int = 1, max_size: int | None = None, lowercase: bool = False
    ) -> UnitTokenizer:
        """The tokenizer of these texts' units, the most frequent first.

        Args:     min_count: a rarer unit is unknown. max_size: at most so many ids, V, special tokens included.
        Raises:   CourseError: no unit is frequent enough. ValueError: naming the argument.
        """
        if isinstance(texts, str):
            raise ValueError("texts: expected several texts, got one; put it in a list")
        empty = cls(kind, (), lowercase)
        units = most_frequent((u for text in texts for u in empty.split(text)), min_count, max_size, len(cls.SPECIAL))
        if not units:
            raise CourseError(f"none of the {kind} of the texts occurs {min_count} times; use more text")
        return cls(kind, units, lowercase)

    @property
    def size(self) -> int:
        """The number of ids, V: the units and the four special tokens."""
        return len(self.SPECIAL) + len(self.tokens)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The special tokens, then the units."""
        return Vocabulary((*self.SPECIAL, *self.tokens))

    def split(self, text: str) -> list[str]:
        """The units of a text, in order."""
        text = unicodedata.normalize("NFC", text.lower() if self.lowercase else text)
        return list(text) if self.kind == "characters" else split_words(_CHARACTER.sub(r" \1 ", text))

    def join(self, pieces: Iterable[str]) -> str:
        """The text of these units; between words, spaces as English sets them, none beside Chinese or Japanese characters."""
        return "".join(pieces) if self.kind == "characters" else _SPACE.sub("", join_words(pieces))

    def encode(self, text: str) -> np.ndarray:
        """The ids of the text's units, (T,) int32, without ``<bos>`` and ``<eos>``."""
        ids = self.vocabulary.ids
        return np.array([ids.get(unit, UNK_ID) for unit in self.split(text)], dtype=np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of these ids, (T,): ends at ``<eos>``, shows neither ``<pad>`` nor ``<bos>``.

        The unknown token is shown as U+FFFD among characters and as ``<unk>`` among words.

        Raises:   ValueError: ids are not integers, not one row, or outside [0, V).
        """
        pieces: list[str] = []
        for i in check_ids(ids, self.size).tolist():
            if i == EOS_ID:
                break
            if i == UNK_ID:
                pieces.append(UNKNOWN_SHOWN if self.kind == "characters" else UNKNOWN)
            elif i not in (PAD_ID, BOS_ID):
                pieces.append(self.vocabulary.tokens[i])
        return self.join(pieces)

    def unknown(self, text: str) -> list[str]:
        """The distinct units of the text that the vocabulary lacks, sorted."""
        known = self.vocabulary.ids
        return sorted({unit for unit in self.split(text) if unit not in known})

    def to_config(self) -> dict[str, Any]:
        """A description for a JSON file, which ``from_config`` reads."""
        return {"kind": self.kind, "tokens": list(self.tokens), "lowercase": self.lowercase}

    @classmethod
    def from_config(cls, config: object) -> UnitTokenizer:
        """The tokenizer that ``to_config`` described.

        Raises:   CourseError: the description is damaged or of something else.
        """
        kind = config.get("kind") if isinstance(config, dict) else None
        if kind not in KINDS:
            raise CourseError(damaged("expected one of kind 'characters' or 'words'"))
        tokens = config_tokens(config, kind, "tokens")
        lowercase = config.get("lowercase")
        if not isinstance(lowercase, bool):
            raise CourseError(damaged(f"lowercase should be true or false, got {lowercase!r:.40}"))
        if set(tokens) & set(cls.SPECIAL):
            raise CourseError(damaged("a unit is spelled like a special token"))
        problem = _long_character(kind, tokens)
        if problem:
            raise CourseError(damaged(f"tokens: {problem}"))
        return cls(kind, tuple(tokens), lowercase)


def _long_character(kind: str, tokens: Iterable[str]) -> str | None:
    """What is wrong with a list of characters, if anything: one is longer than a character."""
    longer = next((t for t in tokens if kind == "characters" and len(t) != 1), None)
    return None if longer is None else f"got {longer!r:.40}, which is not one character"
