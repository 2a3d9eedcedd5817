"""The `course` command, saving at every step, in a process that may kill itself: `python doomed.py POINT COUNT train ...`.

POINT is one of ``POINTS``, reached for the COUNT-th time; "never" leaves the process to others. Files are opened, flushed and
put into place by pathlib and os, so nothing of the library is replaced but how often it saves.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

POINTS = {  # what happens at each, and what share of the data is written before
    "half of a file is written": ("wb", 0.5),
    "a file is written, but not in its place": ("fsync", 1),
    "a file is in its place": ("replace", 1),
    "half a line of the history is written": ("a", 0.5),
    "a line of the history is written, but nothing saved": ("a", 1),
}


def die() -> None:
    """As kill -9 does: no handler runs, no buffer is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


class LastWords:
    """A file that is written to once, a share of the data."""

    def __init__(self, file: Any, share: float):
        self.file, self.share = file, share

    def __enter__(self) -> LastWords:
        return self

    def __exit__(self, *_: object) -> None:
        raise AssertionError("nothing was written")

    def write(self, data: Any) -> None:
        """Write the share to the file, and die."""
        self.file.write(data[: int(len(data) * self.share)])
        self.file.flush()
        die()


def plant(point: str, count: int) -> None:
    """Let the process die when it reaches the point for the ``count``-th time."""
    (place, share), opened, fsync, replace = POINTS[point], Path.open, os.fsync, Path.replace
    left = [count]

    def now(at: str) -> bool:
        left[0] -= at == place
        return at == place and left[0] == 0

    def opened_or_dying(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(self, mode, *rest, **more)
        return LastWords(file, share) if now(mode) else file

    def fsync_or_die(number: int) -> None:
        if now("fsync"):
            die()
        fsync(number)

    def replace_and_die(self: Path, target: Any) -> Path:
        result = replace(self, target)
        if now("replace"):
            die()
        return result

    Path.open, os.fsync, Path.replace = opened_or_dying, fsync_or_die, replace_and_die


if __name__ == "__main__":
    from course_lib import cli, training

    training.SAVE_EVERY = 0
    wanted, number, *sys.argv[1:] = sys.argv[1:]
    if wanted != "never":
        plant(wanted, int(number))
    cli.main()
