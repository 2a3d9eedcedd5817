"""What `course grade` does inside a learner's kernel: the library's own check, whatever the notebook has changed.

``start`` is called before the learner's first cell and remembers the functions of this library, of NumPy and of Python;
``judge`` puts them back for the time of a check, and says which ones the notebook had replaced. All this runs in the learner's
process, so it withstands accidents and simple tricks, not somebody who looks for this module.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np

from course_lib import exercises

LIBRARY = str(Path(__file__).parent)
TRACED = 5  # trials in which the functions that are called are looked at


class Snapshot:
    """The functions, classes and modules that some modules hold, with the functions' code, and the table of exercises."""

    def __init__(self, modules: list[ModuleType]) -> None:
        self.values = [
            (module, key, value)
            for module in modules
            for key, value in list(vars(module).items())
            if not key.startswith("__") and (callable(value) or isinstance(value, ModuleType))
            if module is not builtins or getattr(value, "__module__", "") == "builtins"  # not what Jupyter puts there
        ]
        functions = {id(value): value for _, _, value in self.values if isinstance(value, FunctionType)}.values()
        self.codes = [(function, function.__code__, function.__defaults__) for function in functions]
        self.table = dict(exercises.EXERCISES)

    @contextlib.contextmanager
    def restored(self) -> Iterator[list[str]]:
        """Everything as it was, for as long as this lasts; yields the names of what had been changed."""
        moved = [(m, k, vars(m).get(k, Snapshot), v) for m, k, v in self.values if vars(m).get(k, Snapshot) is not v]
        rewritten = [(*kept, kept[0].__code__, kept[0].__defaults__) for kept in self.codes]
        rewritten = [row for row in rewritten if row[1] is not row[3] or row[2] is not row[4]]
        table = dict(exercises.EXERCISES)
        changed = [f"{module.__name__}.{key}" for module, key, *_ in moved]
        changed += [f"{function.__module__}.{function.__qualname__}" for function, *_ in rewritten]
        changed += ["course_lib.exercises.EXERCISES"] * (table != self.table)
        for module, key, _, value in moved:
            setattr(module, key, value)
        for function, code, defaults, *_ in rewritten:
            function.__code__, function.__defaults__ = code, defaults
        _refill(exercises.EXERCISES, self.table)
        try:
            yield list(dict.fromkeys(changed))
        finally:  # the rest of the notebook runs with what the learner made of it
            for module, key, value, _ in moved:
                vars(module).pop(key) if value is Snapshot else setattr(module, key, value)
            for function, _, _, code, defaults in rewritten:
                function.__code__, function.__defaults__ = code, defaults
            _refill(exercises.EXERCISES, table)


class _Silence(io.TextIOBase):
    """A stream that keeps nothing: a function that prints for ever takes no memory."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


_nowhere = _Silence()  # kept for good: Python crashes when a thread prints to a stream that has just been freed
_before: Snapshot | None = None
_judged: dict[str, tuple[Any, str]] = {}  # name -> what was judged last, and with which status


def start(token: str) -> str:
    """Remember everything as it is; called before the first cell of the learner's."""
    global _before
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "course_lib"]
    _before = Snapshot([*ours, np, builtins])
    return json.dumps({"token": token, "ready": True})


def judge(name: str, token: str, namespace: dict[str, Any] | None = None) -> str:
    """Check what a name stands for now, if it is new since the last time; JSON with status, line, hint, notes, seconds.

    The status is one of solved, wrong, not written, error, time; or "same": there is nothing new to judge.
    """
    if namespace is None:
        from IPython import get_ipython

        namespace = get_ipython().user_ns
    last, known = _judged.get(name, (None, ""))
    if known == "solved" or (known and last is namespace.get(name) and known != "error"):
        return json.dumps({"token": token, "status": "same"})
    begun = time.perf_counter()
    with (_before or Snapshot([])).restored() as changed:
        found = _found(name, namespace.get(name), name in namespace)
        notes = found.pop("notes")
        if changed:
            notes.append(f"changed by the notebook, put back for this check: {', '.join(changed[:5])}")
        if namespace.get("check", exercises.check) is not exercises.check:
            notes.append("the notebook has a `check` of its own")
    _judged[name] = (namespace.get(name), found["status"])
    return json.dumps(found | {"token": token, "notes": notes, "seconds": round(time.perf_counter() - begun, 3)})


def _found(name: str, function: Any, exists: bool) -> dict[str, Any]:
    if not exists:
        return {"status": "not written", "line": f"no {name} in the notebook", "hint": "", "notes": []}
    if not callable(function):
        return {"status": "wrong", "line": f"{name} is no function, but {type(function).__name__}", "hint": "", "notes": []}
    if itself := _library_name(function):
        return {"status": "not written", "line": f"{name} is the library's own function", "hint": "", "notes": [f"is {itself}"]}
    kept = os.environ.get("COURSE_PROGRESS")
    os.environ["COURSE_PROGRESS"] = ""
    try:
        with contextlib.redirect_stdout(_nowhere), contextlib.redirect_stderr(_nowhere):
            passed, lines = exercises.check(name, function)
            notes = [f"calls {other}" for other in library_calls(name, function)] if passed else []
    finally:
        os.environ.pop("COURSE_PROGRESS") if kept is None else os.environ.update(COURSE_PROGRESS=kept)
    hint = next((line.partition("hint: ")[2] for line in lines if line.strip().startswith("hint: ")), "")
    return {"status": _status(passed, lines[0]), "line": lines[0], "hint": hint, "notes": notes}


def _status(passed: bool, line: str) -> str:
    if passed:
        return "solved"
    said = line.partition(": ")[2]
    starts = {"your function raised": "error", "not finished after": "time"}
    return "not written" if line.startswith("○") else next((s for t, s in starts.items() if said.startswith(t)), "wrong")


def library_calls(name: str, function: Callable) -> list[str]:
    """The library's own answers to an exercise that a function uses: seen in its code, or when it runs."""
    exercise = exercises.EXERCISES[name]
    answer = getattr(exercise.reference, "__code__", None)

    def is_answer(code: CodeType) -> bool:
        return code is answer or (code.co_name == name and code.co_filename.startswith(LIBRARY))

    found = {_library_name(other): None for other in _reached(function) if is_answer(other.__code__)}
    called: dict[CodeType, str] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and is_answer(frame.f_code):
            called[frame.f_code] = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"

    for trial in range(TRACED):
        arguments = exercise.problem(np.random.default_rng(trial))
        sys.setprofile(note)
        try:
            exercise.call(function, *arguments)
        except Exception:  # it was right a moment ago
            break
        finally:
            sys.setprofile(None)
    return sorted({*filter(None, found), *called.values()})


def _reached(function: Any) -> list[FunctionType]:
    """The library's functions that the names in a function's code stand for, through the learner's own helpers too."""
    waiting, seen, found = [_plain(function)], set(), []
    while waiting:
        here = waiting.pop()
        if not isinstance(here, FunctionType) or id(here) in seen:
            continue
        seen.add(id(here))
        if _library_name(here):
            found.append(here)
            continue
        names = set(_names(here.__code__))
        values = [here.__globals__.get(name, sys.modules.get(name)) for name in names]
        values += [cell.cell_contents for cell in here.__closure__ or () if _is_filled(cell)]
        values += [*(here.__defaults__ or ()), *(here.__kwdefaults__ or {}).values()]
        for value in values:  # it grows: in `course_lib.cells.f`, f is an attribute of an attribute
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == "course_lib" and id(value) not in seen:
                seen.add(id(value))
                values += [vars(value)[name] for name in names if name in vars(value)]
            waiting.append(_plain(value))
    return found


def _names(code: CodeType) -> Iterator[str]:
    """The names in a function's code and in the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _plain(value: Any) -> Any:
    """The function inside a partial function, a bound method, or one that was wrapped."""
    for _ in range(20):
        inner = value.func if isinstance(value, functools.partial) else getattr(value, "__func__", None)
        inner = inner or (vars(value).get("__wrapped__") if isinstance(value, FunctionType) else None)
        if inner is None:
            return value
        value = inner
    return value


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _library_name(function: Any) -> str:
    """module.name of a function of this library's; empty for any other."""
    function = _plain(function)
    if isinstance(function, FunctionType) and function.__code__.co_filename.startswith(LIBRARY):
        return f"{function.__module__}.{function.__qualname__}"
    return ""


def _refill(table: dict, content: dict) -> None:
    if table != content:
        table.clear()
        table.update(content)
