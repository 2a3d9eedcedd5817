"""Ways to write a day in 17 languages: the Unicode consortium's patterns and names (CLDR), which come with Babel, and EXTRA.

EXTRA has what people write and CLDR lacks. Each pattern is there twice: "printed" as in CLDR, and "typed" in a hurry, without
accents, commas and dots behind abbreviations. Everything is in lower case (``clean``); years have four digits.

A string that two orders of writing read as two days ("3/2/2024") is ambiguous (``is_ambiguous``), padded or not, and whatever
weekday stands before it: no one who reads it need know the calendar.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from functools import cache
from typing import NamedTuple

LOCALES = tuple("en de fr es it pt nl sv fi pl cs hu ru tr zh ja ko".split())

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
                    forms = [form(template, month, weekday) for month in range(1, 13) for weekday in range(7)]
                    texts = day_texts(locale, hand) if "ddd" in pattern else ()
                    if (*forms, *texts) not in seen:
                        seen.add((*forms, *texts))
                        found.append(template)
    return tuple(found)


def render(template: Template, day: date) -> str:
    """The day written by the template, cleaned."""
    return write(template, day.month, day.weekday(), day.day, f"{day.year:04d}")


def is_ambiguous(template: Template, day: date) -> bool:
    """Whether what the template writes for the day is, in some template of any locale, how another day is written."""
    return day.day <= 12 and day.day != day.month and day.month <= 12 and both_orders(template, day.weekday())


def is_day(text: str) -> bool:
    """Whether it is a day of the calendar in ISO 8601: "2024-02-29" is, "2023-02-29" and "20240229" are not."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@cache
def alphabet() -> str:
    """Every character that a template can write, sorted: the source characters of a model."""
    found = set("0123456789")
    for template in templates():
        for month in range(1, 13):
            for weekday in range(7):
                found.update(form(template, month, weekday).format("", "", "", "", ""))
        for texts in day_texts(template.locale, template.hand)[1:32]:
            if "ddd" in template.pattern:
                found.update("".join(texts))
    return "".join(sorted(found))


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
def form(template: Template, month: int | str, weekday: int) -> str:
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
def day_texts(locale: str, hand: str) -> list[tuple[str, str, str, str]]:
    """For the numbers 0 to 99 what d, dd, ddd and dddd stand for."""
    rows = []
    for n in range(100):
        said = SAID.get(locale, {}).get(n, str(n))
        row = (str(n), f"{n:02d}", said, ARTICLES.get(locale, {}).get(n, f"il {said}"))
        rows.append(tuple(map(_typed, row)) if hand == "typed" else row)
    return rows


def write(template: Template, month: int | str, weekday: int, day: int, year: str) -> str:
    """What the template writes for these, cleaned; no day of the calendar is asked for. weekday: 0 is Monday. day: 0 to 99."""
    return form(template, month, weekday).format(*day_texts(template.locale, template.hand)[day], year)


@cache
def is_numeric(template: Template) -> bool:
    """Whether it writes the month as a number."""
    return any(field in ("M", "MM", "L", "LL") for field, _ in _pieces(template.pattern))


@cache
def fields(template: Template) -> set[str]:
    """The letters of its fields: y; M or L; d; E or c if it writes the weekday."""
    return {field[:1] for field, _ in _pieces(template.pattern)}


def _shape(template: Template, weekday: int) -> str:
    """What a numeric template writes with its day and its month alike, padded or not: d/M/y and MM/dd/y have the same shape."""
    return form(template, PLACES["d"], weekday).replace("{1}", "{0}")


@cache
def _orders() -> dict[str, set[bool]]:
    """For the shapes of all numeric templates, whether the day stands before the month: {True, False} where both happen."""
    found = defaultdict(set)
    for template in filter(is_numeric, templates()):
        order = [field[:1] for field, _ in _pieces(template.pattern)]
        for weekday in range(7):
            found[_shape(template, weekday)].add(order.index("d") < order.index("M"))
    return dict(found)


@cache
def both_orders(template: Template, weekday: int) -> bool:
    """Whether it is numeric, and some template writes day and month the other way round and otherwise the same."""
    return is_numeric(template) and len(_orders()[_shape(template, weekday)]) == 2
