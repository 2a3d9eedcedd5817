"""Turn text into integers and back: vocabularies, a character tokenizer and a word tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from course_lib.errors import CourseError

UNKNOWN = "<unk>"  # stands for everything that training never showed
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"  # filling behind short sequences, beginning, end of a sequence
UNKNOWN_ID = 0  # its id in a CharTokenizer
UNKNOWN_SHOWN = "\N{REPLACEMENT CHARACTER}"  # what an unknown character looks like when decoded

_CODE_POINTS = 0x110000
_CHUNK = 1 << 20  # characters encoded at a time: a 100 MB text needs no gigabytes of intermediate arrays
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # U+2019: the typographic apostrophe
_NO_SPACE_BEFORE = frozenset(".,;:!?)]}%…")
_NO_SPACE_AFTER = frozenset("([{")


@dataclass(frozen=True)
class Vocabulary:
    """Distinct tokens; the id of a token is its place.

    Raises:   ValueError: tokens repeat, or are no non-empty strings.
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        problem = token_problem(self.tokens)
        if problem:
            raise ValueError(f"tokens: expected distinct non-empty strings, {problem}")

    @property
    def size(self) -> int:
        """The number of tokens, V."""
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return {token: i for i, token in enumerate(self.tokens)}


@dataclass(frozen=True)
class CharTokenizer:
    """One token per character: id 0 is the unknown token, ids 1, 2, ... are the characters of the training text.

    >>> tokenizer = CharTokenizer.from_text("hello")
    >>> tokenizer.characters, tokenizer.encode("hole").tolist()
    ('ehlo', [2, 4, 3, 1])
    """

    characters: str

    def __post_init__(self) -> None:
        problem = token_problem(self.characters)
        if problem:
            raise ValueError(f"characters: expected distinct characters, {problem}")

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The tokenizer of this text's characters, in the order of their code points.

        Raises:   CourseError: the text is empty or holds half a surrogate pair.
        """
        if not text:
            raise CourseError("the text is empty; a vocabulary needs at least one character")
        found = set()
        for start in range(0, len(text), _CHUNK):
            found.update(np.unique(_code_points(text[start : start + _CHUNK], start)).tolist())
        return cls("".join(map(chr, sorted(found))))

    @property
    def size(self) -> int:
        """The number of ids, V: the characters and the unknown token."""
        return len(self.characters) + 1

    @property
    def smallest(self) -> np.dtype:
        """The smallest type that holds every id: uint8 for up to 256 of them, uint16, else int32."""
        return np.min_scalar_type(self.size - 1) if self.size <= 1 << 16 else np.dtype(np.int32)

    def encode(self, text: str, out: np.ndarray | None = None) -> np.ndarray:
        """The ids of the text's characters, (len(text),) int32; 0 for a character never seen.

        Args:     out: (len(text),), where to write them, in another type that holds them.
        Raises:   CourseError: the text holds half a surrogate pair.
        """
        ids = np.empty(len(text), dtype=np.int32) if out is None else out
        for start in range(0, len(text), _CHUNK):
            ids[start : start + _CHUNK] = self._id_of_code_point[_code_points(text[start : start + _CHUNK], start)]
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of these ids, (T,); the unknown token is shown as U+FFFD.

        Raises:   ValueError: ids are not integers, not one row, or outside [0, V).
        """
        ids = check_ids(ids, self.size)
        codes = np.array([ord(c) for c in UNKNOWN_SHOWN + self.characters], dtype="<u4")
        return codes[ids].tobytes().decode("utf-32-le")

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of the text that training never showed, sorted."""
        return sorted(set(text) - set(self.characters))

    def to_config(self) -> dict[str, Any]:
        """A description for a JSON file, which ``from_config`` reads."""
        return {"kind": "char", "characters": list(self.characters)}

    @classmethod
    def from_config(cls, config: object) -> CharTokenizer:
        """The tokenizer that ``to_config`` described.

        Raises:   CourseError: the description is damaged or of something else.
        """
        characters = config_tokens(config, "char", "characters")
        for character in characters:
            if len(character) != 1:
                raise CourseError(damaged(f"{character!r:.40} is not one character"))
        return cls("".join(characters))

    @cached_property
    def _id_of_code_point(self) -> np.ndarray:
        table = np.zeros(_CODE_POINTS, dtype=np.int32)  # pages that no character touches take no memory
        table[_code_points(self.characters)] = np.arange(1, self.size)
        return table


@dataclass(frozen=True)
class WordTokenizer:
    """One token per word or punctuation mark; ids 0 to 3 are ``<pad>``, ``<bos>``, ``<eos>`` and ``<unk>``."""

    words: tuple[str, ...]
    lowercase: bool = False

    SPECIAL = (PAD, BOS, EOS, UNKNOWN)  # no annotation: one for the class, not a field

    def __post_init__(self) -> None:
        problem = token_problem((*self.SPECIAL, *self.words))
        if problem:
            raise ValueError(f"words: expected distinct non-empty strings, none of them special, {problem}")

    @classmethod
    def from_text(cls, text: str, min_count: int = 1, max_size: int | None = None, lowercase: bool = False) -> WordTokenizer:
        """The tokenizer of this text's words, the most frequent first.

        Args:     min_count: a rarer word is unknown. max_size: at most so many ids, V, special tokens included.
        Raises:   CourseError: no word is frequent enough. ValueError: min_count < 1 or max_size < 5.
        """
        words = most_frequent(split_words(text, lowercase), min_count, max_size, len(cls.SPECIAL))
        if not words:
            raise CourseError(f"the text has no word that occurs {min_count} times; use a longer text")
        return cls(words, lowercase)

    @property
    def size(self) -> int:
        """The number of ids, V: the words and the four special tokens."""
        return self.vocabulary.size

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The special tokens, then the words."""
        return Vocabulary((*self.SPECIAL, *self.words))

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> np.ndarray:
        """The ids of the text's words, (T,) int32, between ``<bos>`` and ``<eos>`` where asked for."""
        ids = self.vocabulary.ids
        unknown = ids[UNKNOWN]
        words = [ids.get(word, unknown) for word in split_words(text, self.lowercase)]
        return np.array([ids[BOS]] * bos + words + [ids[EOS]] * eos, dtype=np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The words of these ids, (T,), with spaces as English sets them; ends at ``<eos>``, shows no padding.

        Raises:   ValueError: ids are not integers, not one row, or outside [0, V).
        """
        words: list[str] = []
        for i in check_ids(ids, self.size).tolist():
            word = self.vocabulary.tokens[i]
            if word == EOS:
                break
            if word not in (PAD, BOS):
                words.append(word)
        return join_words(words)

    def unknown(self, text: str) -> list[str]:
        """The distinct words of the text that the vocabulary lacks, sorted."""
        return sorted(set(split_words(text, self.lowercase)) - set(self.words))

    def to_config(self) -> dict[str, Any]:
        """A description for a JSON file, which ``from_config`` reads."""
        return {"kind": "word", "words": list(self.words), "lowercase": self.lowercase}

    @classmethod
    def from_config(cls, config: object) -> WordTokenizer:
        """The tokenizer that ``to_config`` described.

        Raises:   CourseError: the description is damaged or of something else.
        """
        words = config_tokens(config, "word", "words")
        lowercase = config.get("lowercase")
        if not isinstance(lowercase, bool):
            raise CourseError(damaged(f"lowercase should be true or false, got {lowercase!r:.40}"))
        if set(words) & set(cls.SPECIAL):
            raise CourseError(damaged("a word is spelled like a special token"))
        return cls(tuple(words), lowercase)


def most_frequent(units: Iterable[str], min_count: int, max_size: int | None, special: int) -> tuple[str, ...]:
    """The units that occur at least ``min_count`` times, the most frequent first, of equals in the order of their letters.

    Args:     max_size: at most so many, with ``special`` others; None: all.
    Raises:   ValueError: min_count < 1, or a max_size that leaves no room.
    """
    if min_count < 1:
        raise ValueError(f"min_count: expected at least 1, got {min_count}")
    if max_size is not None and max_size <= special:
        raise ValueError(f"max_size: expected at least {special + 1}, got {max_size}")
    counts = Counter(units)
    kept = sorted((unit for unit, n in counts.items() if n >= min_count), key=lambda unit: (-counts[unit], unit))
    return tuple(kept[: None if max_size is None else max_size - special])


def split_words(text: str, lowercase: bool = False) -> list[str]:
    """Words (``don't`` is one) and punctuation marks, in order."""
    return _WORD.findall(text.lower() if lowercase else text)


def join_words(words: Iterable[str]) -> str:
    """Words and punctuation marks with spaces as English sets them: the way back from ``split_words``, as far as it goes."""
    pieces: list[str] = []
    glue = True
    for word in words:
        pieces.append(word if glue or word in _NO_SPACE_BEFORE else " " + word)
        glue = word in _NO_SPACE_AFTER
    return "".join(pieces)


def _code_points(text: str, start: int = 0) -> np.ndarray:
    """The code point of each character, (len(text),); ``start`` is where the text stands in a longer one."""
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        code, place = ord(text[error.start]), start + error.start
        raise CourseError(f"the text holds half a character (U+{code:04X} at position {place:,}); remove it") from None


def check_ids(ids: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """The ids as an array, (T,). Raises ValueError unless they are one row of integers in [0, size)."""
    array = np.asarray(ids)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"ids: expected one row of integers, got shape {array.shape} of {array.dtype}")
    low, high = array.min(), array.max()
    if low < 0 or high >= size:
        raise ValueError(f"ids: expected integers in [0, {size}), got {low if low < 0 else high}")
    return array


def token_problem(tokens: Iterable[object]) -> str | None:
    """What is wrong with a list of tokens, if anything."""
    seen = set()
    for token in tokens:
        if not isinstance(token, str) or not token:
            return f"got {token!r:.40}"
        if token in seen:
            return f"got {token!r:.40} twice"
        if any("\ud800" <= c <= "\udfff" for c in token):
            return f"got half a character in {token!r:.40}"
        seen.add(token)
    return None


def config_tokens(config: object, kind: str, field: str) -> list[str]:
    """The list of tokens of a tokenizer's description, checked: it may come from a foreign file."""
    if not isinstance(config, dict) or config.get("kind") != kind:
        raise CourseError(damaged(f"expected one of kind {kind!r}"))
    tokens = config.get(field)
    if not isinstance(tokens, list) or not tokens:
        raise CourseError(damaged(f"{field} should be a list that is not empty"))
    problem = token_problem(tokens)
    if problem:
        raise CourseError(damaged(f"{field}: {problem}"))
    return tokens


def damaged(what: str) -> str:
    """What to say of a tokenizer's description that ``from_config`` cannot use."""
    return f"the tokenizer's description is damaged: {what}; get the file again"
