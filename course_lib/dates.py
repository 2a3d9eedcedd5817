"""Dates as people write them, in 17 languages, and the ISO 8601 each stands for: "le 3 février 2024" -> "2024-02-03".

How they are written is the subject of ``date_forms``; the names there are names here too, and nothing is downloaded. Years are
1800 to 2199, a whole cycle of 400, and have four digits: "3.2.24" has no single answer, so it is refused. Ambiguous strings
("3/2/2024") are left out. The weekday is never held against the day: a model that learns from this need not know the calendar.
There are 29,198,668 different (string, day) pairs (``count``; Babel 2.18). The days, not the strings, are split into train,
validation and test: no day is in two of them.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from datetime import date
from functools import cache

import numpy as np

from course_lib.date_forms import (
    LOCALES,
    Template,
    alphabet,
    both_orders,
    clean,
    day_texts,
    fields,
    form,
    is_ambiguous,
    is_day,
    is_numeric,
    render,
    templates,
    write,
)

PARTS = ("train", "validation", "test")
FIRST, LAST = date(1800, 1, 1), date(2199, 12, 31)
NO_DATE = "?"  # the target of a source that is no date
HELD_OUT = 0.01  # of the days, for validation and again for the test
SPLIT_NUMBER = 9
GONE = "\ue005"  # a month left out
LEFT_OUT = {"day": r"\{[0-3]\}[日일]?", "month": GONE + "[月월]?", "year": r"\{4\}[年년]?"}  # with the character that counts it
OVERFLOWS = ((2, 30), (2, 31), (4, 31), (6, 31), (9, 31), (11, 31))  # month, day

__all__ = ["FIRST", "LAST", "LOCALES", "NO_DATE", "PARTS", "Template", "alphabet", "clean", "count", "days", "draw", "held_out"]
__all__ += ["is_ambiguous", "is_day", "render", "sha256", "templates"]


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
              characters. Neither a weekday that contradicts its day is among them, nor 29 February of a common year: real ones
              are rare, and a model would refuse them too. ``is_day`` says it of an answer.
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
    if kind < 0.3:  # a day that this month never has
        month, number = OVERFLOWS[int(place * len(OVERFLOWS))]
        return write(template, month, weekday, number, year)
    if kind < 0.4:  # nor any other
        return write(template, day.month, weekday, (*[0] * 8, *range(32, 100))[int(place * 76)], year)
    if kind < 0.5 and is_numeric(template):  # a month; neither one that the other order takes for a day
        first = 32 if day.day <= 12 and both_orders(template, weekday) else 13
        return write(template, first + int(place * (100 - first)), weekday, day.day, year)
    if kind < 0.65:  # day, month or year left out, and a separator with it
        texts, left_out = day_texts(template.locale, template.hand)[day.day], ("day", "month", "year")[int(place * 3)]
        if left_out == "month" and fields(template) & set("Ec"):
            left_out = "year"  # or "mar 4 2024" were a Tuesday in French, and a day in English
        left = form(template, GONE if left_out == "month" else day.month, weekday)
        text = clean(re.sub(LEFT_OUT[left_out], "", left).format(*texts, year)).strip(" ,.-/")
        return clean(re.sub(r"([-./]) ?(?=[-./])", "", text))
    if kind < 0.75:  # two digits of the year
        return write(template, day.month, weekday, day.day, year[2:])
    if kind < 0.85:  # cut within the year, so that each half lacks some of it
        text = render(template, day)
        cut = text.index(year) + 1 + int(place * 3)
        return clean(text[:cut] if rng.random() < 0.5 else text[cut:])
    if kind < 0.95:
        return _names()[int(place * len(_names()))]
    letters = rng.choice(list(alphabet()), size=1 + int(place * 30))
    return clean(re.sub("([0-9]{3})[0-9]+", r"\1", "".join(letters))) or NO_DATE  # no four digits in a row
