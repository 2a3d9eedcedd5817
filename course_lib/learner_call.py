"""Call a learner's function so that nothing it does can take the notebook with it: a time limit, and only its own frames.

The function runs in a thread of its own. When its time is over an exception is raised inside it, which ends an endless loop
of Python; a single call that never comes back (one huge product) cannot be ended, but the notebook goes on and says so.
"""

from __future__ import annotations

import contextvars
import ctypes
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = {str(Path(__file__).parent), *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))}
GRACE = 1.0  # seconds that a function whose time is over has for stopping


class TimeUpError(BaseException):
    """Raised inside a function whose time is over; no `except Exception` of a learner's catches it."""


class OverTimeError(Exception):
    """The function did not return in time. stopped: whether it was ended, or still runs."""

    def __init__(self, seconds: float, stopped: bool) -> None:
        super().__init__(f"not finished after {seconds:.2g} s")
        self.stopped = stopped


def call(function: Callable[[], Any], seconds: float) -> Any:
    """Return what ``function()`` returns, or raise what it raises.

    Raises:   OverTimeError: it took longer than ``seconds``.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:  # SystemExit of a learner's too
            outcome.append((False, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True, name="learner's function")
    thread.start()
    try:
        thread.join(seconds)
    finally:  # the kernel's interrupt button, too
        late, stopped = thread.is_alive(), _stop(thread)
    if late:
        raise OverTimeError(seconds, stopped)
    returned, value = outcome[0]
    if returned:
        return value
    raise value


def _stop(thread: threading.Thread) -> bool:
    """End a thread by an exception raised inside it, again if it was caught; returns whether it has ended."""
    for _ in range(10):
        if not thread.is_alive():
            return True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(TimeUpError))
        thread.join(GRACE / 10)
    return not thread.is_alive()


def own_frames(error: BaseException, most: int = 3) -> list[str]:
    """Where in the learner's own code an error arose, innermost last: no frame of the library or of a package."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_foreign(f.filename)]
    return [f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-most:]]


def _is_foreign(filename: str) -> bool:
    """Whether a file belongs to Python, to a package or to this library; a notebook's cell, whatever its name, does not."""
    if "ipykernel" in Path(filename).parent.name or filename.startswith("<ipython"):
        return False
    return filename.startswith("<") or any(Path(filename).is_relative_to(folder) for folder in PACKAGES)
