"""Dates as people write them, in 17 languages, and the ISO 8601 each stands for: "le 3 février 2024" -> "2024-02-03".

The patterns and names are the Unicode consortium's locale data (CLDR), which comes with Babel, so nothing is downloaded; EXTRA
adds what people write and CLDR lacks. Each pattern is there twice: "printed" as in CLDR, and "typed" in a hurry, without
accents, commas and dots behind abbreviations. Everything is in lower case (``clean``). Years are 1800 to 2199, a whole cycle of
400, and have four digits: "3.2.24" has no single answer, so it is refused.

A string that two orders of writing read as two days ("3/2/2024") is ambiguous and left out, padded or not, and whatever weekday
stands before it. The weekday is never held against the day: a model that learns from this need not know the calendar.
There are 29,198,668 different (string, day) pairs (``count``; Babel 2.18). The days, not the strings, are split into train,
validation and test: no day is in two of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import NamedTuple

import numpy as np

LOCALES = tuple("en de fr es it pt nl sv fi pl cs hu ru tr zh ja ko".split())
PARTS = ("train", "validation", "test")
FIRST, LAST = date(1800, 1, 1), date(2199, 12, 31)
NO_DATE = "?"  # the target of a source that is no date
HELD_OUT = 0.01  # of the days, for validation and again for the test
SPLIT_NUMBER = 9

LENGTHS = ("full", "long", "medium", "short")
SKELETONS = ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMMd", "yMMMMEd", "yMMMMEEEEd")
EXTRA = {  # beyond CLDR's letters: ddd is the day's number as it is said (3rd, 1er), dddd the same with its article (il 3, l'8)
    "en": "MM/dd/y|MMMM ddd, y|MMM ddd, y|ddd MMMM y|ddd MMM y|'the' ddd 'of' MMMM y|MMMM 'the' ddd, y|EEEE, MMMM ddd, y|"
    "EEEE ddd MMMM y|EEEE, 'the' ddd 'of' MMMM y|dd MMM y|d-MMM-y|y-MM-dd",
    "de": "dd.MM.y|'am' d. MMMM y|'den' d. MMMM y|EEEE, 'den' d. MMMM y|'am' EEEE, 'den' d. MMMM y|EEEE, 'der' d. MMMM y|"
    "y-MM-dd",
    "fr": "'le' d MMMM y|'le' EEEE d MMMM y|ddd MMMM y|'le' ddd MMMM y|EEEE ddd MMMM y|d/M/y|dd-MM-y",
    "es": "'el' d 'de' MMMM 'de' y|'el' EEEE d 'de' MMMM 'de' y|EEEE d 'de' MMMM 'de' y|d 'de' MMMM 'del' y|dd/MM/y|dd-MM-y",
    "it": "dddd MMMM y|ddd MMMM y|EEEE ddd MMMM y|d/M/y|dd-MM-y",
    "pt": "d/M/y|dd-MM-y|ddd 'de' MMMM 'de' y|'dia' d 'de' MMMM 'de' y|EEEE, ddd 'de' MMMM 'de' y",
    "nl": "'op' d MMMM y|'op' EEEE d MMMM y|d/M/y|dd/MM/y",
    "sv": "'den' d MMMM y|EEEE 'den' d MMMM y",
    "fi": "EEEE d. MMMM y|dd.MM.y",
    "pl": "'dnia' d MMMM y|d MMMM y 'r.'|'dnia' d MMMM y 'r.'|dd.MM.y|y-MM-dd",
    "cs": "'dne' d. MMMM y|EEEE, d. MMMM y|dd. MM. y",
    "hu": "y. M. d.|y-MM-dd",
    "ru": "d MMMM y|d MMMM y 'года'|EEEE, d MMMM y|d.MM.y",
    "tr": "d.M.y|dd/MM/y|d MMMM y, EEEE",
    "zh": "y-MM-dd|y/MM/dd|y年MM月dd日|y年M月d日 EEEE|y.M.d",
    "ja": "y-MM-dd|y年MM月dd日|y.M.d",
    "ko": "y-MM-dd|y.M.d|y.MM.dd|y년 MM월 dd일|y년 M월 d일|y년M월d일",
}
SAID = {"fr": {1: "1er"}, "it": {1: "1º"}, "pt": {1: "1º"}}
SAID["en"] = {n: f"{n}{'th' if n // 10 == 1 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}" for n in range(100)}
ARTICLES = {"it": {8: "l'8", 11: "l'11"}}

# In a form, single characters stand for what changes with the day: d, dd, ddd, dddd and y.
PLACES = dict(zip(("d", "dd", "ddd", "dddd", "y"), "\ue000\ue001\ue002\ue003\ue004", strict=True))
TO_FORM = {ord(place): f"{{{number}}}" for number, place in enumerate(PLACES.values())}
DOT_BETWEEN = re.compile("(?<=[0-9\ue000-\ue004])\\. ?(?=[0-9\ue000-\ue004])")
PIECE = re.compile(r"'([^']*)'|(([a-zA-Z])\3*)|(.)", re.DOTALL)
PLAIN = {ord("İ"): "i", ord("\u00ad"): None, ord("\u200b"): None, ord("\u200e"): None, ord("\u200f"): None, ord("\ufeff"): None}
PLAIN |= {ord(c): "'" for c in "\u2018\u2019\u02bc\u02bb`"} | {ord(c): "-" for c in "\u2010\u2011\u2012\u2013\u2014\u2212"}
PLAIN |= {0xFF01 + k: chr(0x21 + k) for k in range(94)} | {0xFF40: "'"}  # full-width forms of ASCII
GONE = "\ue005"  # a month left out
LEFT_OUT = {"day": r"\{[0-3]\}[日일]?", "month": GONE + "[月월]?", "year": r"\{4\}[年년]?"}  # with the character that counts it
OVERFLOWS = ((2, 29), (2, 29), (2, 30), (2, 31), (4, 31), (6, 31), (9, 31), (11, 31))  # month, day; 29 in a common year


class Template(NamedTuple):
    """A way to write a day. locale: one of LOCALES. pattern: CLDR's letters and ddd, dddd. hand: "printed" or "typed".

    source: the Babel locale whose names it uses: that of ``locale``, or en_GB for the British ways of "en".
    """

    locale: str
    pattern: str
    hand: str
    source: str


def clean(text: str) -> str:
    """What is drawn, and what a user types, as the model reads it: composed (NFC), lower case, single plain spaces,
    apostrophes and hyphens plain, full-width digits narrow, nothing invisible; Turkish İ is i, without a dot left over."""
    text = unicodedata.normalize("NFC", text).translate(PLAIN).lower()
    return " ".join(unicodedata.normalize("NFC", re.sub("i\u0307+", "i", text)).split())


@cache
def templates() -> tuple[Template, ...]:
    """All of them, locale by locale; none that writes every day as an earlier one of the same locale does."""
    from babel import Locale

    found = []
    for locale in LOCALES:
        seen = set()
        for source in ("en", "en_GB") if locale == "en" else (locale,):
            data = Locale.parse(source)
            patterns = [data.date_formats[length].pattern for length in LENGTHS]
            patterns += [data.datetime_skeletons[s].pattern for s in SKELETONS if s in data.datetime_skeletons]
            for pattern in dict.fromkeys([re.sub("y+", "y", p) for p in patterns] + EXTRA[locale].split("|")):
                for hand in ("printed", "typed"):
                    template = Template(locale, pattern, hand, source)
                    forms = [_form(template, month, weekday) for month in range(1, 13) for weekday in range(7)]
                    texts = _day_texts(locale, hand) if "ddd" in pattern else ()
                    if (*forms, *texts) not in seen:
                        seen.add((*forms, *texts))
                        found.append(template)
    return tuple(found)


def render(template: Template, day: date) -> str:
    """The day written by the template, cleaned."""
    return _write(template, day.month, day.weekday(), day.day, f"{day.year:04d}")


def is_ambiguous(template: Template, day: date) -> bool:
    """Whether what the template writes for the day is, in some template of any locale, how another day is written."""
    return day.day <= 12 and day.day != day.month and day.month <= 12 and _both_orders(template, day.weekday())


def is_day(text: str) -> bool:
    """Whether it is a day of the calendar in ISO 8601: "2024-02-29" is, "2023-02-29" and "20240229" are not."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def days(part: str) -> tuple[date, ...]:
    """The days of a part in order: "validation" and "test" have about 1 % each, by the hash of the date, "train" the rest.

    Raises:   ValueError: another part.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r:.40}")
    return _split()[part]


def draw(rng: np.random.Generator, n: int, part: str = "train", refused: float = 0.0) -> tuple[list[str], list[str], list[str]]:
    """n random (human, ISO, locale), as three lists: a day of the part, a locale, one of its templates, each uniformly.

    Args:     refused: the share of sources that are no date, with the target NO_DATE: days and months that do not exist, dates
              without year, month or day, with two digits of a year or cut in two, names of languages and countries, random
              characters. A weekday that contradicts its day is not among them.
    Raises:   ValueError: another part, a negative n, a share outside [0, 1].
    """
    if n < 0 or not 0 <= refused <= 1:
        raise ValueError(f"draw: expected n >= 0 and 0 <= refused <= 1, got n = {n}, refused = {refused}")
    chosen, ways = days(part), _by_locale()
    locales = [LOCALES[k] for k in rng.integers(len(LOCALES), size=n)]
    humans, isos = [], []
    for locale, no, pick, way in zip(
        locales, (rng.random(n) < refused).tolist(), rng.random(n).tolist(), rng.random(n).tolist(), strict=True
    ):
        day, template = chosen[int(pick * len(chosen))], ways[locale][int(way * len(ways[locale]))]
        while not no and is_ambiguous(template, day):
            day = chosen[int(rng.random() * len(chosen))]
            template = ways[locale][int(rng.random() * len(ways[locale]))]
        humans.append(_no_date(rng, template, day) if no else render(template, day))
        isos.append(NO_DATE if no else day.isoformat())
    return humans, isos, locales


def held_out(part: str, per_locale: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """A fixed set of (human, ISO, locale) from a part, ``per_locale`` different pairs in each of the 17 locales.

    Raises:   ValueError: another part, or more per locale than the part has days.
    """
    chosen = days(part)
    if not 0 <= per_locale <= len(chosen):
        raise ValueError(f"per_locale: expected 0 to {len(chosen)}, the days of {part}, got {per_locale}")
    rng, found = np.random.default_rng(seed), []
    for locale, ways in _by_locale().items():
        pairs: dict[tuple[str, str, str], None] = {}
        while len(pairs) < per_locale:
            day, template = chosen[int(rng.random() * len(chosen))], ways[int(rng.random() * len(ways))]
            if not is_ambiguous(template, day):
                pairs[render(template, day), day.isoformat(), locale] = None
        found += pairs
    return found


def count() -> int:
    """The number of different (string, day) pairs, ambiguous ones left out: exact, since what is written depends on the year's
    digits, which are four, and otherwise on month, day and weekday alone. Some seconds."""
    alike: dict[tuple[int, int, int], list[date]] = defaultdict(list)
    for part in PARTS:
        for day in days(part):
            alike[day.month, day.day, day.weekday()].append(day)
    return sum(
        len(group) * len({render(t, group[0]) for t in templates() if not is_ambiguous(t, group[0])})
        for group in alike.values()
    )


@cache
def alphabet() -> str:
    """Every character that a template can write, sorted: the source characters of a model."""
    found = set("0123456789")
    for template in templates():
        for month in range(1, 13):
            for weekday in range(7):
                found.update(_form(template, month, weekday).format("", "", "", "", ""))
        for texts in _day_texts(template.locale, template.hand)[1:32]:
            if "ddd" in template.pattern:
                found.update("".join(texts))
    return "".join(sorted(found))


def sha256() -> str:
    """Of a fixed sample, so that a record can say which data a number belongs to; CLDR's versions differ."""
    rows = [row for part in PARTS[1:] for row in held_out(part, 100)]
    rows += zip(*draw(np.random.default_rng(0), 10_000, refused=0.05), strict=True)
    return hashlib.sha256("".join("\t".join(row) + "\n" for row in rows).encode()).hexdigest()


@cache
def _split() -> dict[str, tuple[date, ...]]:
    parts: dict[str, list[date]] = {part: [] for part in PARTS}
    for ordinal in range(FIRST.toordinal(), LAST.toordinal() + 1):
        day = date.fromordinal(ordinal)
        place = int(hashlib.sha256(f"{SPLIT_NUMBER}:{day.isoformat()}".encode()).hexdigest()[:8], 16) / 2**32
        parts["validation" if place < HELD_OUT else "test" if place < 2 * HELD_OUT else "train"].append(day)
    return {part: tuple(found) for part, found in parts.items()}


@cache
def _by_locale() -> dict[str, tuple[Template, ...]]:
    return {locale: tuple(t for t in templates() if t.locale == locale) for locale in LOCALES}


def _typed(text: str) -> str:
    """Without accents on Latin letters, commas and dots; a dot between two numbers stays, without a space behind."""
    letters = ((unicodedata.normalize("NFKD", c)[0], c) for c in text)
    text = "".join(first if first.isascii() else c for first, c in letters).translate({0x131: "i", 0x142: "l"})
    return DOT_BETWEEN.sub("\0", text).replace(",", "").replace(".", "").replace("\0", ".")


def _pieces(pattern: str) -> Iterator[tuple[str, str]]:
    """(field, "") or ("", text), in order."""
    for quoted, field, _, other in PIECE.findall(pattern):
        yield (field, "") if field else ("", other or quoted or "'")


@cache
def _form(template: Template, month: int | str, weekday: int) -> str:
    """What the template writes in a month on a weekday, for str.format with the places of d, dd, ddd, dddd and y.

    Args:     month: 1 to 12; where the month is a number any other number too, or a text to stand for it.
    """
    from babel import Locale

    data, text = Locale.parse(template.source), ""
    for field, literal in _pieces(template.pattern):
        context, width = "stand-alone" if field[:1] in ("L", "c") else "format", "wide" if len(field) == 4 else "abbreviated"
        if field[:1] in ("M", "L"):
            if isinstance(month, int):
                text += data.months[context][width][month] if len(field) > 2 else str(month).zfill(len(field))
            else:
                text += month
        elif field[:1] in ("E", "c"):
            text += data.days[context][width][weekday]
        else:
            text += PLACES[field] if field else literal
    text = clean(text)
    return (clean(_typed(text)) if template.hand == "typed" else text).translate(TO_FORM)


@cache
def _day_texts(locale: str, hand: str) -> list[tuple[str, str, str, str]]:
    """For the numbers 0 to 99 what d, dd, ddd and dddd stand for."""
    rows = []
    for n in range(100):
        said = SAID.get(locale, {}).get(n, str(n))
        row = (str(n), f"{n:02d}", said, ARTICLES.get(locale, {}).get(n, f"il {said}"))
        rows.append(tuple(map(_typed, row)) if hand == "typed" else row)
    return rows


def _write(template: Template, month: int | str, weekday: int, day: int, year: str) -> str:
    return _form(template, month, weekday).format(*_day_texts(template.locale, template.hand)[day], year)


@cache
def _is_numeric(template: Template) -> bool:
    return any(field in ("M", "MM", "L", "LL") for field, _ in _pieces(template.pattern))


@cache
def _fields(template: Template) -> set[str]:
    return {field[:1] for field, _ in _pieces(template.pattern)}


def _shape(template: Template, weekday: int) -> str:
    """What a numeric template writes with its day and its month alike, padded or not: d/M/y and MM/dd/y have the same shape."""
    return _form(template, PLACES["d"], weekday).replace("{1}", "{0}")


@cache
def _orders() -> dict[str, set[bool]]:
    """For the shapes of all numeric templates, whether the day stands before the month: {True, False} where both happen."""
    found = defaultdict(set)
    for template in filter(_is_numeric, templates()):
        fields = [field[:1] for field, _ in _pieces(template.pattern)]
        for weekday in range(7):
            found[_shape(template, weekday)].add(fields.index("d") < fields.index("M"))
    return dict(found)


@cache
def _both_orders(template: Template, weekday: int) -> bool:
    return _is_numeric(template) and len(_orders()[_shape(template, weekday)]) == 2


@cache
def _names() -> tuple[str, ...]:
    """Of languages and countries in all locales, none longer than the longest date."""
    from babel import Locale

    data = [Locale.parse(locale) for locale in LOCALES]
    names = {clean(name) for d in data for table in (d.languages, d.territories) for name in table.values()}
    return tuple(sorted(name for name in names if 0 < len(name) <= 40))


def _no_date(rng: np.random.Generator, template: Template, day: date) -> str:
    """Something that no template writes for any day: all of them write a day that exists, a month and four digits of a year."""
    kind, place, weekday, year = rng.random(), rng.random(), day.weekday(), f"{day.year:04d}"
    if kind < 0.3:  # a day that this month of the year has not
        month, number = OVERFLOWS[int(place * len(OVERFLOWS))]
        number += number == 29 and is_day(f"{year}-02-29")
        return _write(template, month, weekday, number, year)
    if kind < 0.4:  # nor any other
        return _write(template, day.month, weekday, (*[0] * 8, *range(32, 100))[int(place * 76)], year)
    if kind < 0.5 and _is_numeric(template):  # a month; neither one that the other order takes for a day
        first = 32 if day.day <= 12 and _both_orders(template, weekday) else 13
        return _write(template, first + int(place * (100 - first)), weekday, day.day, year)
    if kind < 0.65:  # day, month or year left out, and a separator with it
        texts, left_out = _day_texts(template.locale, template.hand)[day.day], ("day", "month", "year")[int(place * 3)]
        if left_out == "month" and _fields(template) & set("Ec"):
            left_out = "year"  # or "mar 4 2024" were a Tuesday in French, and a day in English
        form = _form(template, GONE if left_out == "month" else day.month, weekday)
        text = clean(re.sub(LEFT_OUT[left_out], "", form).format(*texts, year)).strip(" ,.-/")
        return clean(re.sub(r"([-./]) ?(?=[-./])", "", text))
    if kind < 0.75:  # two digits of the year
        return _write(template, day.month, weekday, day.day, year[2:])
    if kind < 0.85:  # cut within the year, so that each half lacks some of it
        text = render(template, day)
        cut = text.index(year) + 1 + int(place * 3)
        return clean(text[:cut] if rng.random() < 0.5 else text[cut:])
    if kind < 0.95:
        return _names()[int(place * len(_names()))]
    letters = rng.choice(list(alphabet()), size=1 + int(place * 30))
    return clean(re.sub("([0-9]{3})[0-9]+", r"\1", "".join(letters))) or NO_DATE  # no four digits in a row
