"""The folder of a training run: made or refused, held by one run at a time, and its history.

Files: ``last.safetensors``, ``best.safetensors`` and ``history.jsonl``, one JSON object a line. While a run is at work there is
also ``.lock``, with its process id; a killed run may leave this file behind, and a ``.NAME.partial``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from course_lib.archive import write_atomically
from course_lib.errors import CourseError

LAST, BEST, HISTORY, LOCK = "last.safetensors", "best.safetensors", "history.jsonl", ".lock"


class Hold:
    """The right to write into a run's folder. One process has it; the system takes it back when that process ends, even killed.

    Raises:   CourseError: another run has it, or the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = FileLock(folder / LOCK, thread_local=False)  # a run may be made in one thread and carried out in another
        self._take()

    def __enter__(self) -> Hold:
        """Keep the right until the end of the block; take it again if it was given back."""
        if not self._lock.is_locked:
            self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the right back, if it is held; the file goes first, so that nobody can wait for one that is gone."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                (self.folder / LOCK).unlink()
            self._lock.release()

    def _take(self) -> None:
        path = self.folder / LOCK
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise CourseError(f"{self.folder} is in use by {_holder(path)}; wait or stop it, or choose another --out") from None
        except OSError as error:
            raise CourseError(f"cannot write {path}: {error.strerror}; choose another --out") from error
        with contextlib.suppress(OSError):  # the number only makes a message better: a full disk may refuse it
            path.write_text(f"{os.getpid()}\n", encoding="ascii")


def make(folder: Path) -> Hold:
    """Make the folder of a new run, and hold it. It may be there already if it is empty, or if a run died in it before saving.

    Raises:   CourseError: it holds something, cannot be made or written, or another run is at work in it.
    """
    try:
        if (folder / LOCK).exists():
            Hold(folder).release()  # say first that a run is at work there, if one is
        _refuse_content(folder)
        folder.mkdir(parents=True, exist_ok=True)
        hold = Hold(folder)
        try:
            _refuse_content(folder)  # another run may have come and gone
        except BaseException:
            hold.release()
            raise
    except OSError as error:
        raise CourseError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
    return hold


def reopen(folder: Path) -> Hold:
    """Hold the folder of a run that is to go on.

    Raises:   CourseError: there is no run, or another process is at work on it.
    """
    if not (folder / LAST).is_file():
        raise CourseError(f"{folder} holds no run to resume (no {LAST}); start one without --resume")
    return Hold(folder)


def rewind(folder: Path, step: int) -> None:
    """Remove what a run left behind after its last checkpoint: partial files, and later or half lines of the history."""
    for partial in folder.glob(".*.partial"):
        partial.unlink()
    kept = [line for line in lines(folder) if line["step"] <= step]
    write_atomically(folder / HISTORY, "".join(json.dumps(line) + "\n" for line in kept).encode())


def append(folder: Path, line: dict) -> None:
    """Add a line to the history.

    Raises:   CourseError: it cannot be written; half of it may stand there, which ``rewind`` drops.
    """
    where = folder / HISTORY
    try:
        with where.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise CourseError(f"cannot write {where}: {error.strerror}; free some space, then --resume") from error


def lines(folder: Path) -> Iterator[dict]:
    """The whole lines of the history that have a step; none if there is no history."""
    path = folder / HISTORY
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def _refuse_content(folder: Path) -> None:
    if (folder / LAST).exists():
        raise CourseError(f"{folder} already holds a run: add --resume to go on with it, or choose another --out")
    if folder.exists() and not folder.is_dir():
        raise CourseError(f"{folder} is a file; choose another --out")
    if folder.exists() and any(path.suffix != ".partial" and path.name != LOCK for path in folder.iterdir()):
        raise CourseError(f"{folder} is not empty; choose another --out")


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f"process {int(path.read_text(encoding='ascii'))}"
    return "another run"
