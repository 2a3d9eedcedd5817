"""Call a learner's function so that it cannot take the notebook with it: a time limit, its errors as values, its own frames.

The function runs in a thread of its own. When its time is over an exception is raised inside it, which ends an endless loop
of Python. A single long call into C that lets go of Python's lock (a huge product) cannot be ended, but the notebook goes on
and says so; one that holds the lock (a hopeless regular expression) stops everything, and is told when it returns.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import sysconfig
import threading
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = {str(Path(__file__).parent), *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))}
GRACE = 1.0  # seconds that a function whose time is over has for stopping
LONGEST = 300  # characters of a learner's message that are shown


class TimeUpError(BaseException):
    """Raised inside a function whose time is over; no `except Exception` of a learner's catches it."""


class OverTimeError(Exception):
    """The function did not return in time. stopped: whether it was ended, or still runs."""

    def __init__(self, stopped: bool) -> None:
        super().__init__("the function did not return in time")
        self.stopped = stopped


class Outcome(NamedTuple):
    """What a call came to: a value, or the exception that it raised."""

    value: Any
    error: BaseException | None


def call(function: Callable[[], Any], seconds: float) -> Outcome:
    """Run ``function()``; an interrupt of the notebook is no outcome, it goes through.

    Raises:   OverTimeError: it took longer than ``seconds``.
    """
    outcome: list[Outcome] = []
    ended = threading.Event()  # an interrupted join takes a running thread for a stopped one

    def run() -> None:
        with contextlib.suppress(TimeUpError):
            try:
                outcome.append(Outcome(function(), None))
            except BaseException as error:  # SystemExit of a learner's too
                outcome.append(Outcome(None, error))
        ended.set()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True, name="learner's function")
    try:
        thread.start()
        ended.wait(seconds)
    finally:  # an interrupt may come at any moment, that of the start included
        late, stopped = not ended.is_set(), _stop(thread, ended)
    if late or not outcome:
        raise OverTimeError(stopped)
    return outcome[0]


def _stop(thread: threading.Thread, ended: threading.Event) -> bool:
    """End a thread by an exception raised inside it, again if it was caught; returns whether it has ended."""
    for _ in range(10):
        if ended.is_set():
            return True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeUpError))
        ended.wait(GRACE / 10)
    return ended.is_set()


def described(error: BaseException) -> str:
    """Type and message, cut if it is long; an exception whose message cannot be made has only its type."""
    try:
        message = str(error)
    except Exception:
        message = ""
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_unwritten(error: BaseException) -> bool:
    """Whether it is the NotImplementedError that an exercise's stub raises, and not one of a package's."""
    if type(error) is not NotImplementedError:
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return not _is_foreign(last.filename) and (not str(error) or "NotImplementedError" in (last.line or ""))


def own_frames(error: BaseException, most: int = 3) -> list[str]:
    """Where in the learner's own code an error arose, innermost last: no frame of the library or of a package."""
    walk = traceback.walk_tb(error.__traceback__)
    own = deque((pair for pair in walk if not _is_foreign(pair[0].f_code.co_filename)), maxlen=most)
    return [f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in traceback.StackSummary.extract(own)]


@functools.cache
def _is_foreign(filename: str) -> bool:
    """Whether a file belongs to Python, to a package or to this library; a notebook's cell, whatever its name, does not."""
    if filename.startswith("<"):  # typed in, or made by exec, if it is not Python's own
        return filename.startswith(("<frozen", "<__array_function__"))
    return any(Path(filename).is_relative_to(folder) for folder in PACKAGES)
