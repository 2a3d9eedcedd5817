"""Check a learner's function against the library's, on random inputs, and say what is wrong with it.

``exercise_book`` lists the exercises and, as functions, the mistakes that people make. A learner's result that equals a
mistake's gets that mistake's hint, and the tests demand that every one of them is rejected.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from course_lib.exercise_book import EXERCISES, Exercise
from course_lib.trees import named_leaves

TOLERANCE = 1e-6  # relative; the problems are float64, which leaves a million times more room


class Report(NamedTuple):
    """What a check found: whether all is right, and the lines it printed."""

    passed: bool
    lines: list[str]


def check(name: str, function: Callable, trials: int = 20) -> Report:
    """Compare ``function`` with the library's ``name`` on random inputs; print and return what was found.

    ✓ all equal; ✗ the first wrong quantity, its worst entry, expected and got, and a hint; ○ not written yet.

    Raises:   KeyError: no such exercise.
    """
    report = _report(name, function, trials)
    print("\n".join(report.lines))
    return report


def _report(name: str, function: Callable, trials: int) -> Report:
    exercise = EXERCISES[name]
    for trial in range(trials):
        arguments = exercise.problem(np.random.default_rng(trial))
        expected = exercise.call(exercise.reference, *copy.deepcopy(arguments))
        given = copy.deepcopy(arguments)
        try:
            got = exercise.call(function, *given)
        except NotImplementedError:
            return Report(False, [f"○ {name}: not written yet"])
        except Exception as error:  # whatever the learner's code raises is shown as theirs
            return Report(False, [f"✗ {name}: your function raised {type(error).__name__}: {error}", *_own_frames(error)])
        wrong = _difference(expected, got)
        if wrong:
            hints = [f"  hint: {hint}" for hint, mistake in exercise.mistakes if _makes(exercise, mistake, arguments, got)]
            return Report(False, [f"✗ {name}: {wrong}", *hints[:1]])
    return Report(True, [f"✓ {name}: equal to the library's on {trials} random inputs"])


def _makes(exercise: Exercise, mistake: Callable, arguments: tuple, got: Any) -> bool:
    """Whether the learner's result is what this mistake gives."""
    try:
        with np.errstate(all="ignore"):
            return not _difference(exercise.call(mistake, *copy.deepcopy(arguments)), got)
    except Exception:
        return False


def _difference(expected: Any, got: Any) -> str:
    """The first quantity that is wrong, in a line; empty if none is."""
    if expected is not None and got is None:
        return "it returned None: is the `return` missing?"
    if isinstance(expected, list) and isinstance(got, list):
        expected, got = tuple(expected), tuple(got)
    if isinstance(expected, tuple) and (not isinstance(got, tuple) or len(got) != len(expected)):
        what = f"{len(got)} values" if isinstance(got, tuple | list) else f"one {type(got).__name__}"
        return f"it returned {what}, expected {len(expected)}"
    wanted = dict(named_leaves(expected))
    for (label, right), value in zip(wanted.items(), [leaf for _, leaf in named_leaves(got)], strict=False):
        name = label or "result"
        right = np.asarray(right)
        if np.asarray(value).dtype.kind not in "biuf":
            return f"{name}: expected numbers, got {type(value).__name__}"
        value = np.asarray(value, dtype=float)
        if value.shape != right.shape:
            return f"{name}: expected shape {right.shape}, got {value.shape}"
        with np.errstate(invalid="ignore"):
            error = np.abs(value - right)
        same = (value == right) | (np.isfinite(right) & (error <= TOLERANCE * np.maximum(1, np.abs(right))))
        if not same.all():
            worst = np.unravel_index(np.argmax(np.where(same, -1, np.nan_to_num(error, nan=np.inf))), same.shape)
            at = f" at {list(map(int, worst))}" if worst else ""
            return f"{name}{at}: expected {right[worst]:.6g}, got {value[worst]:.6g}"
    return ""


def _own_frames(error: BaseException) -> list[str]:
    """Where in the learner's own code it went wrong: the frames outside the library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "course_lib" not in f.filename]
    return [f"  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-2:]]
