"""Every exercise accepts its right answer and rejects every mistake it knows, with that mistake's hint."""

from __future__ import annotations

import pytest

from course_lib.exercise_book import EXERCISES
from course_lib.exercises import check

MISTAKES = [(name, hint, mistake) for name, exercise in EXERCISES.items() for hint, mistake in exercise.mistakes]


@pytest.mark.parametrize("name", EXERCISES)
def test_reference_passes(name: str) -> None:
    report = check(name, EXERCISES[name].reference)
    assert report.passed and report.lines[0].startswith("✓")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is the very mistake of one of them
@pytest.mark.parametrize(("name", "hint", "mistake"), MISTAKES)
def test_mistake_is_rejected_with_its_hint(name: str, hint: str, mistake: object) -> None:
    report = check(name, mistake)
    assert not report.passed and report.lines[-1] == f"  hint: {hint}"
