"""Check a learner's function against the library's, on random inputs, and say what is wrong with it; keep what is solved.

The books (``exercise_book``, ``rnn_book``, ...) list the exercises and, as functions, the mistakes that people make. A
learner's result that equals a mistake's gets that mistake's hint; the tests demand that every one of them is rejected.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from course_lib.diagnosis import MisfitError, Verdict, same, verdicts
from course_lib.exercise_book import LANGUAGE_EXERCISES, Exercise
from course_lib.jacobian_book import JACOBIAN_EXERCISES
from course_lib.learner_call import OverTimeError, call, own_frames
from course_lib.lstm_book import LSTM_EXERCISES
from course_lib.rnn_book import RNN_EXERCISES
from course_lib.solved import progress_file, read_solved, record_solved
from course_lib.trees import leaves
from course_lib.variant_book import VARIANT_EXERCISES

EXERCISES = LANGUAGE_EXERCISES | RNN_EXERCISES | JACOBIAN_EXERCISES | LSTM_EXERCISES | VARIANT_EXERCISES
SECONDS = 10.0  # for all trials together


class Report(NamedTuple):
    """What a check found: whether all is right, and the lines it printed."""

    passed: bool
    lines: list[str]


def check(name: str, function: Callable, trials: int = 20) -> Report:
    """Compare ``function`` with the library's ``name`` on random inputs; print and return what was found.

    ✓ all equal, and noted for ``progress``. ✗ what is wrong, then a line for each quantity: ✓ right, ✗ its worst entry with
    expected and got, ○ None, not written yet; and a hint if the error is a known one. ○ not written yet.

    Raises:   KeyError: no such exercise. TypeError: function is none.
    """
    if name not in EXERCISES:
        raise KeyError(f"no exercise {name!r}; there are: {', '.join(EXERCISES)}")
    if not callable(function):
        raise TypeError(f"check({name!r}, ...): expected a function (no parentheses behind it), got {type(function).__name__}")
    report = _report(name, function, trials)
    if report.passed and (trouble := record_solved(name)):
        report.lines.append(f"  {trouble}")
    print("\n".join(report.lines))
    return report


def progress() -> Report:
    """Print which exercises are solved, lesson by lesson; passed: all of them are."""
    solved, lines = read_solved(), []
    numbered = sorted((tuple(map(int, e.number.split("."))), name) for name, e in EXERCISES.items() if e.number)
    for lesson in dict.fromkeys(number[0] for number, _ in numbered):
        mine = [(place, name) for (of, place), name in numbered if of == lesson]
        lines.append(f"lesson {lesson:02}: {sum(name in solved for _, name in mine)} of {len(mine)}")
        lines += [f"  {'✓' if name in solved else '○'} {lesson}.{place} {name}" for place, name in mine]
    done = sum(name in solved for _, name in numbered)
    where = f"kept in {path}" if (path := progress_file()) else "nothing is kept: COURSE_PROGRESS is empty"
    lines.append(f"{done} of {len(numbered)} solved; {where}")
    print("\n".join(lines))
    return Report(done == len(numbered), lines)


def _report(name: str, function: Callable, trials: int) -> Report:
    exercise, end = EXERCISES[name], time.monotonic() + SECONDS
    for trial in range(trials):
        arguments = exercise.problem(np.random.default_rng(trial))
        expected = exercise.call(exercise.reference, *copy.deepcopy(arguments))
        given = copy.deepcopy(arguments)
        try:
            got = call(lambda given=given: exercise.call(function, *given), max(0.1, end - time.monotonic()))
        except OverTimeError as error:
            return Report(False, [f"✗ {name}: {_over_time(error)}"])
        except MisfitError as error:
            return Report(False, [f"✗ {name}: {error}"])
        except BaseException as error:  # whatever the learner's code raises is shown as theirs
            if type(error) is NotImplementedError:
                return Report(False, [f"○ {name}: not written yet"])
            return Report(False, [f"✗ {name}: your function raised {type(error).__name__}: {error}", *_frames(exercise, error)])
        lines = _wrong(exercise, arguments, given, expected, got)
        if lines:
            return Report(False, [f"{lines[0][0]} {name}: {lines[0][2:]}", *(f"  {line}" for line in lines[1:])])
    return Report(True, [f"✓ {name}: equal to the library's on {trials} random inputs"])


def _wrong(exercise: Exercise, arguments: tuple, given: tuple, expected: Any, got: Any) -> list[str]:
    """What is wrong with a result, in lines; none if it is right."""
    try:
        found = verdicts(expected, got, exercise.outputs.split(), exercise.gates)
    except MisfitError as error:
        return [f"✗ {error}"]
    changed = [] if exercise.in_place else list(_changed(exercise, arguments, given))
    wrong, missing = [v for v in found if v.problem], [v for v in found if v.missing]
    if wrong or missing:
        known = (hint for hint, mistake in exercise.mistakes if _makes(exercise, mistake, arguments, got))
        hint = next(known, next((verdict.hint for verdict in wrong if verdict.hint), ""))
        changed += [*map(_line, found), *[f"hint: {hint}"] * bool(hint)]
    if wrong:
        return [f"✗ {wrong[0].name} is wrong", *changed]
    if missing:
        return [f"○ {missing[0].name} is not written yet", *changed]
    return [f"✗ {line}" for line in changed]


def _line(verdict: Verdict) -> str:
    if verdict.missing:
        return f"○ {verdict.name}: not written yet"
    return f"✗ {verdict.name}: {verdict.problem}" if verdict.problem else f"✓ {verdict.name}"


def _makes(exercise: Exercise, mistake: Callable, arguments: tuple, got: Any) -> bool:
    """Whether the learner's result is what this mistake gives."""
    try:
        with np.errstate(all="ignore"):
            return same(exercise.call(mistake, *copy.deepcopy(arguments)), got)
    except Exception:
        return False


def _changed(exercise: Exercise, arguments: tuple, given: tuple) -> Iterator[str]:
    """A line for each argument that is not what it was before the call."""
    names = exercise.arguments.split() or [f"argument {k}" for k in range(1, len(arguments) + 1)]
    for name, before, after in zip(names, arguments, given, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(leaves(before), leaves(after), strict=True)):
            yield f"it changes its argument {name}: `a += b` writes into the caller's array, `a = a + b` makes a new one"


def _frames(exercise: Exercise, error: BaseException) -> list[str]:
    frames = own_frames(error)
    called = f"it is called as function({', '.join(exercise.arguments.split())})" if isinstance(error, TypeError) else ""
    return [f"  {line}" for line in frames or [called] if line]


def _over_time(error: OverTimeError) -> str:
    tail = "it was stopped" if error.stopped else "it could not be stopped and still runs: restart the kernel"
    return f"{error}: a loop without end, or far too slow; {tail}"
