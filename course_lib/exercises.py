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

from course_lib.attention_book import ATTENTION_EXERCISES
from course_lib.beam_book import BEAM_EXERCISES
from course_lib.classifier_book import CLASSIFIER_EXERCISES
from course_lib.conversion_book import CONVERSION_EXERCISES
from course_lib.diagnosis import MisfitError, Verdict, made_the_same, verdicts
from course_lib.exercise_book import LANGUAGE_EXERCISES, Exercise
from course_lib.jacobian_book import JACOBIAN_EXERCISES
from course_lib.learner_call import Outcome, OverTimeError, call, described, is_unwritten, own_frames
from course_lib.lstm_book import LSTM_EXERCISES
from course_lib.rnn_book import RNN_EXERCISES
from course_lib.sampling_book import SAMPLING_EXERCISES
from course_lib.scaling_book import SCALING_EXERCISES
from course_lib.solved import progress_file, read_solved, record_solved
from course_lib.torch_book import TORCH_EXERCISES
from course_lib.trees import leaves
from course_lib.variant_book import VARIANT_EXERCISES
from course_lib.window_book import WINDOW_EXERCISES

EXERCISES = LANGUAGE_EXERCISES | RNN_EXERCISES | JACOBIAN_EXERCISES | LSTM_EXERCISES | VARIANT_EXERCISES
EXERCISES |= TORCH_EXERCISES | WINDOW_EXERCISES | CONVERSION_EXERCISES | CLASSIFIER_EXERCISES
EXERCISES |= BEAM_EXERCISES | ATTENTION_EXERCISES | SAMPLING_EXERCISES | SCALING_EXERCISES
SECONDS = 9.0  # for all trials together; with the grace for stopping, 10 s
FAILURES_LOOKED_AT = 10  # a hint must fit so many wrong results; the first may fit it by accident


class Report(NamedTuple):
    """What a check found: whether all is right, and the lines it printed."""

    passed: bool
    lines: list[str]


def check(name: str, function: Callable, trials: int = 20) -> Report:
    """Compare ``function`` with the library's ``name`` on random inputs; print and return what was found.

    ✓ all equal, and noted for ``progress``. ✗ what is wrong, then a line for each quantity: ✓ right, ✗ its worst entry with
    expected and got, ○ None, not written yet; and a hint if the error is a known one. ○ not written yet.

    Raises:   KeyError: no such exercise. TypeError: function is none. ValueError: no trials.
    """
    if name not in EXERCISES:
        raise KeyError(f"no exercise {name!r}; there are: {', '.join(EXERCISES)}")
    if not callable(function):
        raise TypeError(f"check({name!r}, ...): expected a function (no parentheses behind it), got {type(function).__name__}")
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, got {trials}")
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
    exercise = EXERCISES[name]
    exercise.problem(np.random.default_rng(0))  # may load torch; the learner's time starts after that
    end = time.monotonic() + SECONDS
    failed, hints, lines, general = 0, dict(exercise.mistakes), [], ""
    for trial in range(trials):
        arguments, given, outcome = _tried(exercise, function, trial, end)
        if isinstance(outcome, str):
            return Report(False, lines or [f"✗ {name}: {outcome}"])
        if outcome.error is not None and lines:
            break
        if outcome.error is not None:
            return Report(False, _raised(name, exercise, outcome.error, arguments))
        with np.errstate(all="ignore"):
            expected = exercise.call(exercise.reference, *copy.deepcopy(arguments))
            found, trouble = _judged(exercise, arguments, given, expected, outcome.value)
            wrong = next((verdict for verdict in found if verdict.problem or verdict.missing), None)
            if not wrong and not trouble:
                continue
            failed += 1
            if wrong:
                hints = _matching(exercise, hints, arguments, expected, outcome.value, wrong.name)
        if not lines:  # what is shown is the first failure
            lines, general = _lines(name, found, trouble), next((f"{v.name}: {v.hint}" for v in found if v.hint), "")
        if failed == FAILURES_LOOKED_AT or not hints:
            break
    if not failed:
        return Report(True, [f"✓ {name}: equal to the library's on {trials} random inputs"])
    hint = next(iter(hints), general) if len(hints) < len(exercise.mistakes) else general
    return Report(False, lines + [f"  hint: {hint}"] * bool(hint))


def _tried(exercise: Exercise, function: Callable, trial: int, end: float) -> tuple[tuple, tuple, Outcome | str]:
    """Arguments before and after the call, and what it came to; a line if that is neither value nor exception."""
    arguments = exercise.problem(np.random.default_rng(trial))
    given = copy.deepcopy(arguments)
    try:
        outcome: Outcome | str = call(lambda: exercise.call(function, *given), max(0.01, end - time.monotonic()))
    except OverTimeError as error:
        tail = "it was stopped" if error.stopped else "it could not be stopped and still runs: restart the kernel"
        outcome = f"not finished after {SECONDS:g} s in all: a loop without end, or far too slow; {tail}"
    return arguments, given, outcome


def _raised(name: str, exercise: Exercise, error: BaseException, arguments: tuple) -> list[str]:
    """The lines for an exception: the learner's own, in the learner's own code, and a hint if a known mistake raises it too."""
    if is_unwritten(error):
        return [f"○ {name}: not written yet"]
    if isinstance(error, MisfitError):
        return [f"✗ {name}: {error}"]
    usage, said = exercise.usage or f"function({', '.join(exercise.arguments.split())})", described(error)
    frames = own_frames(error) or [f"it is called as {usage}"] * isinstance(error, TypeError)
    hints = [f"hint: {hint}" for hint, mistake in exercise.mistakes if _error_of(exercise, mistake, arguments) == said]
    return [f"✗ {name}: your function raised {said}", *(f"  {line}" for line in frames + hints[:1])]


def _error_of(exercise: Exercise, mistake: Callable, arguments: tuple) -> str:
    """What a mistake raises, described; empty if it returns."""
    try:
        with np.errstate(all="ignore"):
            exercise.call(mistake, *copy.deepcopy(arguments))
    except Exception as error:
        return described(error)
    return ""


def _judged(exercise: Exercise, arguments: tuple, given: tuple, expected: Any, got: Any) -> tuple[list[Verdict], list[str]]:
    """A verdict on each quantity, and what is wrong besides, in lines."""
    try:
        found = verdicts(expected, got, exercise.outputs.split(), exercise.gates)
    except MisfitError as error:
        return [], [str(error)]
    return found, [] if exercise.in_place else list(_changed(exercise, arguments, given))


def _matching(exercise: Exercise, hints: dict, arguments: tuple, expected: Any, got: Any, wrong: str) -> dict:
    """The mistakes that give this result; if none gives all of it, those that give the first wrong quantity."""
    names, full, first = exercise.outputs.split(), {}, {}
    for hint, mistake in hints.items():
        try:
            result = exercise.call(mistake, *copy.deepcopy(arguments))
        except Exception:  # a mistake that fails on these inputs
            continue
        if made_the_same(expected, got, result, names=names):
            full[hint] = mistake
        elif made_the_same(expected, got, result, wrong, names):
            first[hint] = mistake
    return full if full or exercise.in_place else first


def _lines(name: str, found: list[Verdict], trouble: list[str]) -> list[str]:
    wrong, missing = [v for v in found if v.problem], [v for v in found if v.missing]
    trouble = list(trouble)
    if wrong:
        head = f"✗ {name}: {wrong[0].name} is wrong"
    elif missing and not trouble:
        head = f"○ {name}: {missing[0].name} is not written yet"
    else:
        head = f"✗ {name}: {trouble.pop(0)}"
    rows = [_line(verdict) for verdict in found] if wrong or missing else []
    return [head, *(f"  {line}" for line in trouble + rows)]


def _line(verdict: Verdict) -> str:
    if verdict.missing:
        return f"○ {verdict.name}: not written yet"
    return f"✗ {verdict.name}: {verdict.problem}" if verdict.problem else f"✓ {verdict.name}"


def _changed(exercise: Exercise, arguments: tuple, given: tuple) -> Iterator[str]:
    """A line for each argument that is not what it was before the call."""
    names = exercise.arguments.split() or [f"argument {k}" for k in range(1, len(arguments) + 1)]
    for name, before, after in zip(names, arguments, given, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(leaves(before), leaves(after), strict=True)):
            yield f"it changes its argument {name}: `a += b` writes into the caller's array, `a = a + b` makes a new one"
