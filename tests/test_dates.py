"""Dates: held to the calendar, to their split, and to a table of all that can be written."""

import re
from collections import Counter
from datetime import date, timedelta
from hashlib import sha256

import babel
import numpy as np
import pytest
from test_date_forms import LEAP, all_readings, year_of

from course_lib import date_forms, dates


def test_the_forms_are_names_here_too():
    assert set(dates.__all__) <= set(vars(dates))
    for name in ("LOCALES", "Template", "alphabet", "clean", "is_ambiguous", "is_day", "render", "templates"):
        assert name in dates.__all__
        assert getattr(dates, name) is getattr(date_forms, name)


def test_days_are_split_by_their_hash():
    parts = [dates.days(part) for part in dates.PARTS]
    together = [day for part in parts for day in part]
    assert sorted(together) == [date(1800, 1, 1) + timedelta(days=n) for n in range(146_097)]
    assert together[len(parts[0]) - 1] == date(2199, 12, 31) or date(2199, 12, 31) not in parts[0]
    for part, days in zip(dates.PARTS, parts, strict=True):
        assert list(days) == sorted(days)
        for day in days[::97]:
            number = int(sha256(f"{dates.SPLIT_NUMBER}:{day}".encode()).hexdigest()[:8], 16) * 100 // 2**32
            assert {0: "validation", 1: "test"}.get(number, "train") == part
    assert len(parts[1]) == pytest.approx(1461, rel=0.1)
    assert len(parts[2]) == pytest.approx(1461, rel=0.1)


@pytest.mark.parametrize("part", dates.PARTS)
def test_draw(part):
    humans, isos, locales = dates.draw(np.random.default_rng(3), 4000, part)
    assert len(humans) == len(isos) == len(locales) == 4000
    days = set(dates.days(part))
    for human, iso, locale in zip(humans, isos, locales, strict=True):
        day = date.fromisoformat(iso)
        assert day in days
        ways = [t for t in dates.templates() if t.locale == locale and dates.render(t, day) == human]
        assert ways
        assert not all(dates.is_ambiguous(t, day) for t in ways)
        assert human == dates.clean(human)
    shares = Counter(locales)
    assert all(shares[locale] == pytest.approx(4000 / 17, abs=75) for locale in dates.LOCALES)  # five deviations
    if part == "train":
        assert len(set(isos)) > 3800


def test_every_template_is_drawn():
    humans, isos, locales = dates.draw(np.random.default_rng(4), 20_000)
    written = {
        t
        for human, iso, locale in zip(humans, isos, locales, strict=True)
        for t in dates.templates()
        if t.locale == locale and dates.render(t, date.fromisoformat(iso)) == human
    }
    assert written == set(dates.templates())


def test_what_is_refused_is_no_date():
    readings = all_readings()
    humans, isos, _ = dates.draw(np.random.default_rng(5), 20_000, refused=1.0)
    assert set(isos) == {dates.NO_DATE}
    kinds = Counter()
    for human in humans:
        assert human == dates.clean(human) != ""
        years = re.findall("[0-9]{4}", human)
        kinds[len(years)] += 1
        if years:  # whatever the weekday and the year, no template writes it: the 29th of February is in the table
            assert human.replace(years[0], str(LEAP)) not in readings, human
    assert kinds[0] > 5000
    assert kinds[1] > 5000
    assert set(kinds) == {0, 1}
    assert all(re.search("[0-9]{4}", text) for text in readings)  # so what has not four digits is none either


def test_refused_kinds():
    humans = set(dates.draw(np.random.default_rng(6), 60_000, refused=1.0)[0])
    for pattern in (
        r"3[01] februari \d{4}",
        r"3[01] de febrero de \d{4}",
        r"31 april \d{4}",
        r"0 \w+ \d{4}",
        r"[4-9]\d\. dubna \d{4}",
        r"\d{4}-([2-9]\d|1[3-9])-\d\d",
        r"(1[3-9]|2\d)/(1[3-9]|2\d)/\d{4}",
        r"\d\d?\.\d{4}",
        r"\d\d? mai",
        r"(januar|februar) \d{4}",
        r"\d{4}年\d\d?月",
        r"\d{4}年\d\d?日",
        r"\d\d?月\d\d?日",
        r"\d\d/\d\d/\d\d",
        r"\d\d?(st|nd|rd|th) \w+ \d\d?\d?",
        r"\d\d?\d?-\d\d-\d\d",
        r"[^\W\d_]{5,}",
        "french|französisch|français|フランス語|французский",
    ):
        assert any(re.fullmatch(pattern, human) for human in humans), pattern
    assert not any(re.fullmatch(r"(\d|1[0-2])/(1[3-9]|2[0-8])/\d{4}", human) for human in humans)  # a day, by the other order


def test_the_share_refused():
    isos = dates.draw(np.random.default_rng(7), 10_000, refused=0.05)[1]
    assert isos.count("?") == pytest.approx(500, abs=110)
    assert "?" not in dates.draw(np.random.default_rng(7), 1000)[1]


def test_the_same_each_time():
    def once(seed):
        return dates.draw(np.random.default_rng(seed), 300, "test", 0.1)

    assert once(1) == once(1) != once(2)
    assert dates.held_out("test", 5) == dates.held_out("test", 5) != dates.held_out("test", 5, seed=1)
    assert dates.draw(np.random.default_rng(0), 0) == ([], [], [])
    assert dates.sha256() == dates.sha256()
    assert re.fullmatch("[0-9a-f]{64}", dates.sha256())


def test_sha256_tells_data_apart(monkeypatch):
    before = dates.sha256()
    monkeypatch.setattr(dates, "NO_DATE", "!")
    assert dates.sha256() != before


@pytest.mark.parametrize("part", dates.PARTS)
def test_held_out(part):
    rows, days = dates.held_out(part, 60), set(dates.days(part))
    assert len(set(rows)) == len(rows) == 60 * 17
    assert Counter(locale for *_, locale in rows) == {locale: 60 for locale in dates.LOCALES}
    for human, iso, locale in rows:
        day = date.fromisoformat(iso)
        assert day in days
        assert human in {
            dates.render(t, day) for t in dates.templates() if t.locale == locale and not dates.is_ambiguous(t, day)
        }


def test_count(monkeypatch):
    assert dates.count() >= 2_000_000
    if babel.__version__.startswith("2.18."):
        assert f"{dates.count():,}" in " ".join(dates.__doc__.split())
    some = [
        *year_of(2000)[50:70],
        *year_of(2001)[50:70],
        *year_of(2023)[50:70],
        date(2034, 3, 1),
    ]  # 2023, 2034: the same weekdays
    pairs = {(dates.render(t, day), day) for t in dates.templates() for day in some if not dates.is_ambiguous(t, day)}
    monkeypatch.setattr(dates, "days", lambda part: tuple(some) if part == "test" else ())
    assert dates.count() == len(pairs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dates.days("dev"), "^part: expected one of train, validation, test, got 'dev'$"),
        (lambda: dates.draw(np.random.default_rng(0), 1, "dev"), "^part: expected one of"),
        (lambda: dates.held_out("dev", 1), "^part: expected one of"),
        (
            lambda: dates.draw(np.random.default_rng(0), -1),
            "^draw: expected n >= 0 and 0 <= refused <= 1, got n = -1, refused = 0.0$",
        ),
        (lambda: dates.draw(np.random.default_rng(0), 1, refused=1.5), "^draw: expected .* refused = 1.5$"),
        (lambda: dates.draw(np.random.default_rng(0), 1, refused=float("nan")), "^draw: expected"),
        (lambda: dates.held_out("test", 2000), "^per_locale: expected 0 to 1[34]\\d\\d, the days of test, got 2000$"),
        (lambda: dates.held_out("test", -1), "^per_locale: expected"),
    ],
)
def test_arguments_that_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()
