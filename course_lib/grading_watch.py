"""The processes of one learner's notebook: how long, how many, how much memory; and their end, without exception."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import psutil

MOST_PROCESSES = 200  # of one notebook; lesson 12 starts a handful
MARK = "COURSE_GRADE_RUN"  # in the environment of all that a notebook starts, so that nothing escapes that leaves the tree


class Limits(NamedTuple):
    """Of one notebook: seconds a cell, minutes in all, GB of memory of all its processes, MB of output a cell."""

    cell_seconds: float = 180
    minutes: float = 10
    memory: float = 4
    output: float = 10


class Watch:
    """The processes of one notebook: the worker, its descendants, and those that have left the tree but carry its mark."""

    def __init__(self, pid: int, mark: str) -> None:
        self.mark, self.begun, self.looks = mark, time.monotonic(), 0
        self.known: set[psutil.Process] = set()
        with contextlib.suppress(psutil.Error):
            self.known.add(psutil.Process(pid))

    def look(self, thoroughly: bool) -> list[psutil.Process]:
        """All that are alive. A process whose parent has died is found by what was seen before, or by its mark."""
        pids = {process.pid for process in self.known}
        for process in list(self.known):
            with contextlib.suppress(psutil.Error):
                if process.ppid() not in pids:  # the others are found below their parents
                    self.known.update(process.children(recursive=True))
        if thoroughly:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):  # of other users, or ended meanwhile
                    if process.environ().get(MARK) == self.mark:
                        self.known.add(process)
        self.known = {process for process in self.known if process.is_running()}
        return list(self.known)

    def trouble(self, limits: Limits) -> str:
        """Why the notebook has to be ended now; empty if it may go on."""
        self.looks += 1
        processes = self.look(thoroughly=self.looks % 10 == 0)
        if time.monotonic() - self.begun > limits.minutes * 60:
            return f"time: not finished after {limits.minutes:g} minutes"
        if len(processes) > MOST_PROCESSES:
            return f"error: more than {MOST_PROCESSES} processes"
        most = limits.memory * 1e9
        # Resident memory counts a page that processes share once for each: only a sum too large is looked at closely.
        if sum(map(resident, processes)) > most and sum(map(own_memory, processes)) > most:
            return f"memory: more than {limits.memory:g} GB"
        return ""

    def kill(self) -> None:
        """End them all; again, until none is left that was started meanwhile."""
        for _ in range(20):
            left = [process for process in self.look(thoroughly=True) if _is_alive(process)]
            if not left:
                return
            for act in ("suspend", "kill"):  # what is stopped starts nothing while the others are ended
                for process in left:
                    with contextlib.suppress(psutil.Error, OSError):
                        getattr(process, act)()
            psutil.wait_procs(left, timeout=1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def resident(process: psutil.Process) -> int:
    """Bytes in memory; 0 of a process that has ended."""
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def own_memory(process: psutil.Process) -> int:
    """Bytes in memory, a shared page divided among those that share it (Linux), or not counted (macOS, Windows)."""
    try:
        full = process.memory_full_info()
    except (psutil.Error, OSError):
        return resident(process)
    return getattr(full, "pss", 0) or full.uss
