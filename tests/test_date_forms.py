# ruff: noqa: RUF001  letters of other alphabets that look like Latin ones
"""How dates are written: held to Babel, to the calendar, and to a table of all that can be written."""

import calendar
import re
import unicodedata
from collections import defaultdict
from datetime import date, timedelta

import numpy as np
import pytest
from babel import Locale
from babel.dates import format_date
from hypothesis import given
from hypothesis import strategies as st

from course_lib import date_forms

LEAP = 2024


def year_of(year):
    return [date(year, 1, 1) + timedelta(days=n) for n in range(365 + calendar.isleap(year))]


def random_days(n, seed):
    rng = np.random.default_rng(seed)
    first, last = date(1800, 1, 1).toordinal(), date(2199, 12, 31).toordinal()
    return [date.fromordinal(int(k)) for k in rng.integers(first, last + 1, size=n)]


def typed(text):
    """The hurried hand by another way: letter by letter."""
    found = ""
    for k, c in enumerate(text):
        before, after = text[k - 1 : k], text[k + 1 :].lstrip(" ")[:1]
        between = before.isdigit() and after.isdigit()
        if c == "," or (c == "." and not between):
            continue
        if c == " " and before == "." and text[k - 2 : k - 1].isdigit() and after.isdigit():
            continue
        if unicodedata.name(c).startswith("LATIN SMALL"):
            c = {"ı": "i", "ł": "l"}.get(c) or unicodedata.normalize("NFD", c)[0]
        found += "o" if c == "º" else c
    return " ".join(found.split())


def all_readings():
    """What each string of a leap year may stand for: all templates, and any weekday before any day.

    Returns:  {string: {(month, day): whether it is left out as ambiguous under every template that writes it}}
    """
    table = defaultdict(dict)
    for weekday in range(7):  # seven leap years, in which each day meets each weekday, all written as one
        year = next(y for y in range(1804, 2200) if calendar.isleap(y) and date(y, 1, 1).weekday() == weekday)
        ways = [t for t in date_forms.templates() if not weekday or re.search("[Ec]", re.sub("'.*?'", "", t.pattern))]
        for day in year_of(year):
            for template in ways:
                text, out = date_forms.render(template, day), date_forms.is_ambiguous(template, day)
                row = table[text.replace(str(year), str(LEAP))]
                row[day.month, day.day] = row.get((day.month, day.day), True) and out
    return table


@pytest.fixture(scope="module")
def readings():
    return all_readings()


def test_babel_agrees():
    days = [*random_days(6, seed=1), date(1800, 1, 1), date(2199, 12, 31), date(2000, 2, 29), date(2024, 5, 11)]
    checked = 0
    for template in date_forms.templates():
        if "ddd" in template.pattern:
            continue
        for day in days:
            written = date_forms.clean(format_date(day, template.pattern, template.source))
            assert date_forms.render(template, day) == (typed(written) if template.hand == "typed" else written), template
            checked += 1
    assert checked > 2000


@pytest.mark.parametrize("source", [*date_forms.LOCALES, "en_GB"])
def test_every_way_of_cldr_is_there(source):
    data = Locale.parse(source)
    patterns = [data.date_formats[n].pattern for n in ("full", "long", "medium", "short")]
    patterns += [
        data.datetime_skeletons[n].pattern
        for n in ("yMd", "yMEd", "yMMMd", "yMMMEd", "yMMMMd", "yMMMMEd", "yMMMMEEEEd")
        if n in data.datetime_skeletons
    ]
    ways = [t for t in date_forms.templates() if t.locale == source[:2]]
    for day in random_days(5, seed=2):
        written = {date_forms.render(t, day) for t in ways}
        for pattern in patterns:
            printed = date_forms.clean(format_date(day, pattern.replace("yy", "y"), source))
            assert {printed, typed(printed)} <= written, pattern


def test_templates_are_distinct():
    days = [*year_of(2024), *year_of(2025)]
    assert {t.locale for t in date_forms.templates()} == set(date_forms.LOCALES)
    assert len(date_forms.LOCALES) == 17
    for locale in date_forms.LOCALES:
        ways = [t for t in date_forms.templates() if t.locale == locale]
        assert {t.hand for t in ways} == {"printed", "typed"} or locale in ("nl", "zh", "ja")  # no accents, commas or dots
        assert len({tuple(date_forms.render(t, day) for day in days) for t in ways}) == len(ways)


@pytest.mark.parametrize(
    ("iso", "locale", "texts"),
    [
        (
            "2024-02-03",
            "en",
            "3rd february 2024|february 3rd, 2024|the 3rd of february 2024|3 feb 2024|sat feb 3 2024|3-feb-2024",
        ),
        ("2021-09-11", "en", "11th september 2021|sep 11th 2021|11 sept 2021|saturday the 11th of september 2021"),
        ("1999-12-22", "en", "22nd december 1999|12/22/1999|22/12/1999|1999-12-22|december the 22nd, 1999"),
        ("2001-01-21", "en", "january 21st 2001|01/21/2001"),
        ("2024-02-01", "fr", "le 1er février 2024|1er fevrier 2024|le jeudi 1 février 2024|1 févr. 2024|1 fevr 2024"),
        ("2024-02-03", "fr", "le 3 février 2024|le 3 fevrier 2024"),
        ("2024-03-03", "de", "am 3. märz 2024|am sonntag, den 3. märz 2024|3 marz 2024|03.03.2024|3.3.2024"),
        ("2024-02-03", "es", "el 3 de febrero de 2024|el sábado 3 de febrero de 2024|sabado 3 de febrero de 2024"),
        ("2024-02-01", "it", "il 1º febbraio 2024|1o febbraio 2024|1º febbraio 2024"),
        ("2024-03-08", "it", "l'8 marzo 2024|8 marzo 2024|venerdi 8 marzo 2024"),
        ("2024-03-11", "it", "l'11 marzo 2024"),
        ("2024-02-03", "it", "il 3 febbraio 2024"),
        ("2024-02-01", "pt", "1º de fevereiro de 2024|dia 1 de fevereiro de 2024|1 de fev de 2024"),
        ("2024-02-03", "nl", "op 3 februari 2024|3-2-2024"),
        ("2024-02-03", "sv", "den 3 februari 2024|lordag 3 februari 2024|2024-02-03"),
        ("2024-02-03", "fi", "lauantaina 3. helmikuuta 2024|lauantai 3 helmikuuta 2024|3.2.2024"),
        (
            "2024-10-02",
            "pl",
            "dnia 2 października 2024|2 pazdziernika 2024 r|środa, 2 października 2024|sroda 2 pazdziernika 2024",
        ),
        ("2024-02-03", "cs", "dne 3. února 2024|3. 2. 2024|3.2.2024|3 unora 2024"),
        ("2024-02-03", "hu", "2024. február 3.|2024 februar 3|2024. 02. 03.|2024.02.03|2024.2.3"),
        ("2024-02-03", "ru", "3 февраля 2024 г.|3 февраля 2024 г|3 февраля 2024|3 февраля 2024 года|03.02.2024"),
        ("2023-11-03", "tr", "3 kasım 2023|3 kasim 2023|3 kasım 2023 cuma"),
        ("2024-02-03", "zh", "2024年2月3日|2024年2月3日星期六|2024/2/3|2024年02月03日"),
        ("2024-02-03", "ja", "2024年2月3日(土)|2024/02/03"),
        ("2024-02-03", "ko", "2024년 2월 3일|2024. 2. 3.|2024.2.3|2024년2월3일|2024년 2월 3일 토요일"),
    ],
)
def test_what_people_write(iso, locale, texts):
    day = date.fromisoformat(iso)
    written = {date_forms.render(t, day) for t in date_forms.templates() if t.locale == locale}
    assert set(texts.split("|")) <= written


def test_no_string_stands_for_two_days(readings):
    two = [(text, days) for text, days in readings.items() if len(days) > 1]
    assert len(two) > 200
    for text, days in two:
        assert all(days.values()), (text, days)  # left out whichever template writes it


def test_only_what_is_ambiguous_is_left_out(readings):
    def unpadded(text):
        return re.sub(r"\b0(?=\d)", "", text)

    alike = defaultdict(set)
    for text, days in readings.items():
        alike[unpadded(text)].update(days)
    for text, days in readings.items():
        (month, day), out = next(iter(days.items()))
        assert out == (len(alike[unpadded(text)]) > 1), text
        assert not out or (day, month) in alike[unpadded(text)]


@pytest.mark.parametrize(
    ("locale", "pattern", "iso", "ambiguous"),
    [
        ("fr", "dd/MM/y", "2024-02-03", True),  # as padded, only MM/dd/y is against it
        ("fr", "dd/MM/y", "2024-02-13", False),
        ("fr", "dd/MM/y", "2024-03-03", False),
        ("en", "M/d/y", "2024-12-11", True),
        ("en", "E, M/d/y", "2024-02-03", True),  # the weekday would tell, but whoever reads need not know it
        ("es", "EEE, d/M/y", "2024-02-03", False),  # only in Spanish, only one order
        ("de", "d.M.y", "2024-02-03", False),
        ("nl", "d-M-y", "2024-02-03", False),
        ("zh", "y/M/d", "2024-02-03", False),
        ("en", "d MMMM y", "2024-02-03", False),
    ],
)
def test_ambiguous_or_not(locale, pattern, iso, ambiguous):
    template = next(t for t in date_forms.templates() if (t.locale, t.pattern) == (locale, pattern))
    assert date_forms.is_ambiguous(template, date.fromisoformat(iso)) == ambiguous


def test_alphabet(readings):
    letters = date_forms.alphabet()
    assert letters == "".join(sorted(set(letters)))
    assert set(letters) == {c for text in readings for c in text} | set("0123456789")


@pytest.mark.parametrize("locale", date_forms.LOCALES)
def test_each_word_is_clean(locale):
    for template in (t for t in date_forms.templates() if t.locale == locale):
        for day in random_days(20, seed=8):
            text = date_forms.render(template, day)
            assert text == date_forms.clean(text) == text.lower()
            if template.hand == "typed":
                assert not re.search(r"[,äöüéèáàçşğıłńśźčřžěůőåãõ]|\.$|\. |[^\d]\.", text)


@given(st.text())
def test_clean_twice_is_clean_once(text):
    assert date_forms.clean(date_forms.clean(text)) == date_forms.clean(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Le\u00a03  FÉVRIER\u202f2024 ", "le 3 février 2024"),
        ("fe\u0301vrier", "février"),
        ("l\u20198 marzo", "l'8 marzo"),
        ("l\uff408 marzo", "l'8 marzo"),
        ("3 İKİ", "3 iki"),
        ("I\u0307 i\u0307\u0307", "i i"),
        ("2024\u20112\u22123", "2024-2-3"),
        ("\uff12\uff10\uff12\uff14年\uff12月\uff08土\uff09", "2024年2月(土)"),
        ("a\u00adb\u200b\ufeff", "ab"),
        ("\t\n", ""),
        ("", ""),
    ],
)
def test_clean(text, cleaned):
    assert date_forms.clean(text) == cleaned


def test_is_day():
    for year in (1800, 1900, 2000, 2023, 2024):
        for month in range(15):
            for day in range(34):
                right = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
                assert date_forms.is_day(f"{year}-{month:02}-{day:02}") == right
    for text in ("", "?", "20240203", "2024-W05-6", "2024-2-3", "2024-02-03 ", "0000-01-01", "\u0662024-02-03", "2024-02-03\n"):
        assert not date_forms.is_day(text)
