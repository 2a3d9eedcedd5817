"""The syllabus says what the lessons say: minutes, exercises, and an order in which every lesson comes after those it needs."""

from __future__ import annotations

import re

import pytest
from speaker_notes import minutes, sections, stated
from tiny_lesson import NOTEBOOKS, load

PAGE = (NOTEBOOKS.parent / "docs" / "syllabus.md").read_text(encoding="utf-8")
LESSONS = {path.stem[:2]: load(path) for path in sorted((NOTEBOOKS / "src").glob("*.md"))}
LECTURE = 90  # minutes


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading, without its head."""
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return rows[2:]


LECTURES, NEEDS, WEEKEND = (
    table(heading) for heading in ("Six lectures of 90 minutes", "The lessons, and what each needs", "A weekend alone")
)


def exercises(number: str) -> dict[str, int]:
    """Number and minutes of each exercise of a lesson."""
    found = [re.match(r"Exercise ([\d.]+): .*?(\d+) minutes", section.heading) for section in sections(LESSONS[number])]
    return {match[1]: int(match[2]) for match in found if match}


def lessons(cell: str) -> list[str]:
    return re.findall(r"\d\d", cell)


def duration(total: int) -> str:
    return f"{total // 60} h {total % 60:02} min"


def test_every_lesson_is_in_one_lecture_of_at_most_90_minutes():
    assert [number for row in LECTURES for number in lessons(row[1])] == list(LESSONS)
    for row in LECTURES:
        core = sum(minutes(LESSONS[number], ("core",)) for number in lessons(row[1]))
        assert int(row[3]) == core <= LECTURE, row


@pytest.mark.parametrize(("rows", "columns"), [(LECTURES, (4, 5)), (WEEKEND, (2,))], ids=["lectures", "weekend"])
def test_the_exercises_that_are_set_belong_to_the_lessons(rows, columns):
    for row in rows:
        there = {name for number in lessons(row[1]) for name in exercises(number)}
        named = [name for column in columns for name in re.findall(r"[\d.]+", row[column])]
        assert named
        assert set(named) <= there and len(set(named)) == len(named), row


def test_minutes_and_titles_are_those_of_the_lessons():
    for row, (number, lesson) in zip(NEEDS, LESSONS.items(), strict=True):
        title = lesson.editions["en"].cells[0].source.partition("\n")[0].removeprefix(f"# {number} · ")
        assert row[:2] == [number, f"[{title}](../notebooks/{lesson.name}.ipynb)"]
        assert [int(cell) for cell in row[4:]] == [minutes(lesson, ("core",)), *stated(lesson)]
    whole, spare = (sum(stated(lesson)[k] for lesson in LESSONS.values()) for k in (0, 1))
    assert f"Whole course: {duration(whole)} of lessons and {duration(spare)} of exercises." in PAGE


def test_a_lesson_comes_after_those_it_needs():
    before: set[str] = set()
    for row in NEEDS:
        assert set(lessons(row[2])) <= before
        before.add(row[0])


def test_the_weekend_takes_as_long_as_its_lessons_and_exercises():
    for row in WEEKEND:
        every = {name: time for number in lessons(row[1]) for name, time in exercises(number).items()}
        total = sum(stated(LESSONS[number])[0] for number in lessons(row[1]))
        assert row[3] == duration(total + sum(every[name] for name in re.findall(r"[\d.]+", row[2])))
