"""Names of languages, countries, scripts, currencies and cities in ten languages: short texts whose language is to be told.

They are the Unicode consortium's locale data (CLDR), which comes with Babel, so nothing is downloaded. All ten languages use
the Latin alphabet: otherwise the script would give the answer away. Four are Germanic, four Romance, so that each has relatives
to be mistaken for; Polish and Finnish have none here. They are the ones with the most names that differ from the other nine.

Names are in lower case, since CLDR's habit of capitals ("English", "anglais") would tell languages apart without any spelling.
What stands in brackets is left out. A name that is the same in two of the ten languages ("kiribati") has no single answer and
is dropped from all of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from course_lib.connected import components
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer

LANGUAGES = ("de", "en", "es", "fi", "fr", "it", "nl", "pl", "pt", "sv")
ENGLISH_NAMES = dict(
    zip(LANGUAGES, "German English Spanish Finnish French Italian Dutch Polish Portuguese Swedish".split(), strict=True)
)
KINDS = ("languages", "territories", "scripts", "currencies", "cities")

SHORTEST_NAME = 3  # letters
BEGINNING = 5  # letters of a word by which relatives are found: Norwe-gian, Norwe-gen
COMMON_BEGINNING = 20  # concepts; the beginning of "north" or "islands" makes no relatives
LARGE_GROUP = 30  # concepts; such a group is for training, or its side would be known before the coin is thrown
HELD_OUT = 1 / 8  # of the other groups, for validation and again for the test: a tenth of all names or a little less
SPLIT_NUMBER = 145  # with it the three parts have alike sizes, kinds and languages
PADDING = 0  # the token behind the end of a name; 1 is an unknown character

Concept = tuple[str, str]  # what a name names: its kind and CLDR's code, ("territories", "NO")


class Part(NamedTuple):
    """Some names. texts: N strings. labels: (N,) int64, places in ``languages``. concepts: what each text names."""

    texts: tuple[str, ...]
    labels: np.ndarray
    concepts: tuple[Concept, ...]


class Names(NamedTuple):
    """All names, split so that no group of related concepts stands on two sides.

    languages: their codes. sha256: of all three parts (names differ between versions of CLDR). dropped: names left out since
    two languages share them. groups: concepts that belong together. largest: the number of concepts in the largest group.
    """

    train: Part
    validation: Part
    test: Part
    languages: tuple[str, ...]
    sha256: str
    dropped: int
    groups: int
    largest: int


def load_names(languages: Sequence[str] = LANGUAGES, related: bool = True) -> Names:
    """The names in these languages, split 80/10/10, about; the same on every machine with the same CLDR.

    Args:     languages: codes of Babel's locales. related: whether related concepts stay together (see ``groups``); without
              it, a concept is held out while its relatives train, which is there to measure how much that leaks.
    Raises:   CourseError: Babel does not know a language, or has too few names. ValueError: fewer than two, or one twice.
    """
    languages = tuple(languages)
    if len(languages) < 2 or len(set(languages)) < len(languages):
        raise ValueError(f"languages: expected at least two different codes, got {languages}")
    tables = [names_in(language) for language in languages]
    together = groups(tables) if related else {c: c for table in tables for c in table}
    sizes: dict[Concept, int] = defaultdict(int)
    for first in together.values():
        sizes[first] += 1
    languages_of: dict[str, set[int]] = defaultdict(set)
    for label, table in enumerate(tables):
        for name in table.values():
            languages_of[name].add(label)
    sides: tuple[list, list, list] = ([], [], [])
    for label, table in enumerate(tables):
        seen: set[str] = set()
        for concept, name in sorted(table.items()):
            if len(languages_of[name]) == 1 and name not in seen:
                seen.add(name)
                first = together[concept]
                side = 0 if sizes[first] > LARGE_GROUP else _side(first)
                sides[side].append((name, label, concept))
    if not all(sides):
        raise CourseError(f"Babel has too few names in {', '.join(languages)}; choose other languages or a newer Babel")
    parts = [_part(side) for side in sides]
    text = "\0".join("".join(f"{languages[y]}\t{name}\n" for name, y in zip(*part[:2], strict=True)) for part in parts)
    dropped = sum(len(having) > 1 for having in languages_of.values())
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Names(*parts, languages, sha256, dropped, len(sizes), max(sizes.values()))


def names_in(language: str) -> dict[Concept, str]:
    """Babel's names in one language, cleaned: {("territories", "NO"): "norwegen", ...}.

    Raises:   CourseError: Babel does not know the language.
    """
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError, TypeError):
        raise CourseError(f"Babel has no language {language!r:.40}; give codes such as {', '.join(LANGUAGES[:3])}") from None
    raw = {(kind, code): name for kind in KINDS[:-1] for code, name in getattr(locale, kind).items()}
    raw |= {("cities", zone): names["city"] for zone, names in locale.time_zones.items() if names.get("city")}
    cleaned = {concept: clean(name) for concept, name in raw.items() if name}
    return {concept: name for concept, name in cleaned.items() if sum(map(str.isalpha, name)) >= SHORTEST_NAME}


def clean(name: str) -> str:
    """A name in lower case, without brackets and what they hold, with single spaces, plain apostrophes, no soft hyphens."""
    name = unicodedata.normalize("NFC", name).lower()
    name = re.sub(r"[\u2019\u02bc\u02bb`]", "'", name).replace("\u00ad", "")
    return " ".join(re.sub(r"[(\[][^)\]]*[)\]]", " ", name).split())


def groups(tables: Sequence[Mapping[Concept, str]]) -> dict[Concept, Concept]:
    """For each concept the first of its group: concepts of which one gives away what another is called belong together.

    They do if they have the same name in some language; if one's code extends the other's (en_GB, en) or is the currency of the
    other's country (NOK, NO); or if, in at least half of the languages, their names share a word's first five letters, as those
    of Guinea and Guinea-Bissau do, or Norway and Norwegian. Beginnings that more than 20 concepts share are common words
    ("north"). Currencies are left out of the last rule, since it would tie every peso to every other. What ties two concepts
    together also ties what they are tied to.

    Args:     tables: of each language, the name of each concept.
    """
    named = sorted({concept for table in tables for concept in table})
    links: list[tuple[Concept, Concept]] = []
    shared: dict[tuple[Concept, Concept], int] = defaultdict(int)
    for table in tables:
        same, alike = defaultdict(list), defaultdict(list)
        for concept, name in table.items():
            same[name].append(concept)
            for beginning in () if concept[0] == "currencies" else beginnings(name):
                alike[beginning].append(concept)
        links += ((concepts[0], other) for concepts in same.values() for other in concepts[1:])
        close = (combinations(sorted(concepts), 2) for concepts in alike.values() if len(concepts) <= COMMON_BEGINNING)
        for pair in {pair for pairs in close for pair in pairs}:
            shared[pair] += 1
    for kind, code in named:
        if kind == "languages" and "_" in code:
            links.append(((kind, code), (kind, code.partition("_")[0])))
        if kind == "currencies" and not code.startswith("X"):  # X: of no country
            links.append(((kind, code), ("territories", code[:2])))
    links += (pair for pair, count in shared.items() if 2 * count >= len(tables))
    return components(links, named)


def words(name: str) -> list[str]:
    """The words of a name: runs of letters."""
    return re.findall(r"[^\W\d_]+", name)


def beginnings(name: str) -> set[str]:
    """The first five letters, without accents, of each word that has at least four."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return {word[:BEGINNING] for word in words(plain) if len(word) >= BEGINNING - 1}


def shared_words(part: Part, train: Part) -> list[tuple[str, ...]]:
    """For each name, its words of five letters or more that also stand in a training name of the same language."""
    known = {(label, word) for text, label in zip(train.texts, train.labels.tolist(), strict=True) for word in words(text)}
    pairs = zip(part.texts, part.labels.tolist(), strict=True)
    return [tuple(w for w in words(text) if len(w) >= BEGINNING and (label, w) in known) for text, label in pairs]


def encode(texts: Sequence[str], tokenizer: CharTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Names as columns of tokens, padded on the right.

    A token is the tokenizer's id plus 1: 0 is padding, 1 an unknown character, so a model needs tokenizer.size + 1 of them.

    Returns:  tokens (T, N) int64, T the longest name; lengths (N,) int64.
    Raises:   ValueError: no texts, or one that is no text or empty.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"texts: expected a list of texts such as ['norwegen'], got {texts!r:.40}; put even a single one in a list"
        )
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    if not len(lengths) or not lengths.all():
        raise ValueError(f"texts: expected at least one, none of them empty, got {list(texts)[:3]}; take the empty ones out")
    tokens = np.full((lengths.max(), len(texts)), PADDING, dtype=np.int64)
    for n, text in enumerate(texts):
        tokens[: len(text), n] = tokenizer.encode(text) + 1
    return tokens, lengths


def _side(first: Concept) -> int:
    """0, 1 or 2: training, validation or test, by the hash of the group's first concept."""
    digest = hashlib.sha256(f"{SPLIT_NUMBER}:{'/'.join(first)}".encode()).hexdigest()
    place = int(digest[:8], 16) / 2**32
    return 1 if place < HELD_OUT else 2 if place < 2 * HELD_OUT else 0


def _part(rows: list[tuple[str, int, Concept]]) -> Part:
    texts, labels, concepts = zip(*rows, strict=True)
    return Part(texts, np.array(labels, dtype=np.int64), concepts)
