"""Run learners' notebooks, each in a process of its own under watch, and judge what became of every exercise.

A notebook's processes are watched from here: time, memory, number. Whatever happens in them, what was reported before counts.
Nothing of a learner's is run in this process, and nothing is written beside a learner's file: a notebook runs in a scratch
folder, in which copies of the small files beside it lie.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.grading_plan import Exercise, Plan
from course_lib.grading_watch import MARK, Limits, Watch

LOOK = 0.2  # seconds between two looks at the processes of a notebook
COPIED = 10_000_000  # bytes of a file beside a notebook that is copied to its scratch folder; larger ones are left


class Row(NamedTuple):
    """One exercise of one notebook. status: solved, wrong, not written, error, not reached, time, memory or output."""

    learner: str
    notebook: str
    lesson: str
    number: str
    name: str
    difficulty: str
    minutes: int | str
    status: str
    seconds: float
    line: str
    hint: str
    note: str


class Graded(NamedTuple):
    """One notebook. status: "ok", or what ended it; failures: a line for each cell that raised an error or was interrupted."""

    learner: str
    notebook: str
    lesson: str
    status: str
    seconds: float
    failures: list[str]
    rows: list[Row]

    @property
    def solved(self) -> int:
        return sum(row.status == "solved" for row in self.rows)


def grade(plans: list[Plan], limits: Limits, jobs: int, tell: Callable[[Graded], None]) -> list[Graded]:
    """Grade notebooks, ``jobs`` at a time; ``tell`` is called as each ends. Ctrl-C ends all; what is known is returned.

    Returns:  The notebooks in the order of the plans. The status of those that were not finished is "interrupted".
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    ended: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    for number in range(len(plans)):
        todo.put(number)

    def take() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number = todo.get_nowait()
                try:
                    graded = _graded(plans[number], limits, stop)
                except Exception as error:  # no room for a scratch folder, no process to be had: costs this notebook only
                    graded = results(plans[number], [], f"error: {type(error).__name__}: {error}", 0.0)
                ended.put((number, graded))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(min(jobs, len(plans)))]
    found: dict[int, Graded] = {}
    for thread in threads:
        thread.start()
    try:
        while len(found) < len(plans):
            with contextlib.suppress(queue.Empty):
                number, graded = ended.get(timeout=0.5)
                found[number] = graded
                tell(graded)
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        while not ended.empty():
            number, graded = ended.get()
            found[number] = graded
    return [found[number] for number in range(len(plans))]


def _graded(plan: Plan, limits: Limits, stop: threading.Event) -> Graded:
    """Run one notebook and collect what is reported, until it ends or has to be ended."""
    if plan.problem or stop.is_set():
        return results(plan, [], plan.problem or "interrupted", 0.0)
    begun = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="course-grade-"))
    events: list[dict[str, Any]] = []
    try:
        job = _job(plan, limits, scratch)
        mark = secrets.token_hex(8)
        worker = _start(scratch, mark)
        watch = Watch(worker.pid, mark)
        try:
            reader = threading.Thread(target=_read, args=(worker, job, events), daemon=True)
            reader.start()
            ending = ""
            while reader.is_alive() and not ending:
                reader.join(LOOK)
                ending = watch.trouble(limits) or ("interrupted" if stop.is_set() else "")
        finally:
            watch.kill()
            worker.wait()
            reader.join(5)
            _close(worker)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return results(plan, list(events), ending, time.monotonic() - begun)


def _job(plan: Plan, limits: Limits, scratch: Path) -> dict[str, Any]:
    folder = scratch / "work"
    folder.mkdir()
    for path in plan.path.parent.iterdir():
        with contextlib.suppress(OSError):
            if path.suffix != ".ipynb" and path.is_file() and path.stat().st_size <= COPIED:
                shutil.copyfile(path, folder / path.name)
    return {
        "scratch": str(scratch),
        "folder": str(folder),
        "cells": [cell.source for cell in plan.cells],
        "after": plan.after,
        "names": list(plan.owners),
        "cell_seconds": limits.cell_seconds,
        "output_bytes": limits.output * 1e6,
    }


def _start(scratch: Path, mark: str) -> subprocess.Popen:
    """The worker, in a session of its own: Ctrl-C reaches the grader alone, which then ends the workers."""
    environment = os.environ | {
        MARK: mark,
        "COURSE_PROGRESS": "",  # what learners solve is not the instructor's progress
        "IPYTHONDIR": str(scratch / "ipython"),  # no start-up file of the instructor's
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUTF8": "1",
    }
    environment.setdefault("OMP_NUM_THREADS", "1")  # notebooks that run side by side slow each other down otherwise
    environment.pop("MPLBACKEND", None)
    # -P: Python's own modules and the library's, not files of the same name in the current folder.
    command = [sys.executable, "-P", "-m", "course_lib.grading_worker"]
    apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=scratch, env=environment, **pipes, **apart)


def _read(worker: subprocess.Popen, job: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Hand the job over and read reports until the worker closes its end; a line that is none is passed over."""
    with contextlib.suppress(OSError, ValueError):  # it died
        worker.stdin.write(json.dumps(job).encode() + b"\n")
        worker.stdin.flush()
    for line in worker.stdout:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)


def _close(worker: subprocess.Popen) -> None:
    for stream in (worker.stdin, worker.stdout):
        with contextlib.suppress(OSError):  # what was left to write has no reader
            stream.close()


def results(plan: Plan, events: list[dict[str, Any]], ending: str, seconds: float) -> Graded:
    """What a notebook's reports come to. ending: why the grader ended it, empty if it did not."""
    place = max((e["cell"] + 1 for e in events if e.get("event") == "cell"), default=0)
    end = next((e for e in events if e.get("event") == "end"), None)
    if end:
        status = "ok" if end["status"] == "ok" else f"{end['status']}: {end['line']}"
    elif ending:
        status = f"{ending}, in code cell {place}" if place else ending
    else:
        status = f"died: its worker process was ended, in code cell {place}"
    ran = {e["cell"]: e for e in events if e.get("event") == "ran"}
    failures = [f"code cell {cell + 1}: {e['line']}" for cell, e in sorted(ran.items()) if e["status"] != "ok"]
    exercises = plan.lesson.exercises if plan.lesson else ()
    lesson = plan.lesson.name if plan.lesson else ""
    rows = [Row(plan.learner, plan.notebook, lesson, *_row(e, plan, events, ran, status)) for e in exercises]
    return Graded(plan.learner, plan.notebook, lesson, status, round(seconds, 1), failures, rows)


def _row(exercise: Exercise, plan: Plan, events: list[dict], ran: dict[int, dict], ended: str) -> tuple:
    """Everything of a row that is the exercise's own."""
    name = exercise.name
    judged = [e for e in events if e.get("event") == "judged" and e.get("name") == name and e["status"] != "same"]
    seconds = round(sum(e.get("seconds", 0.0) for e in judged), 3)
    best = judged[-1] if judged else None  # what is solved is not judged again
    notes = [*plan.notes.get(name, []), *(best or {}).get("notes", [])]
    owners = plan.owners.get(name, [])
    broken = next((ran[k] for k in reversed(owners) if k in ran and ran[k]["status"] != "ok"), None)
    if best is None:
        best = {"status": _unjudged(name, plan, events, ran, ended), "line": "" if ended == "ok" else ended, "hint": ""}
    elif broken and best["status"] == "not written":  # its cell failed, so what stands there is the stub
        best = {"status": broken["status"], "line": f"code cell {broken['cell'] + 1}: {broken['line']}", "hint": ""}
    elif broken:
        notes.append(f"code cell {broken['cell'] + 1} failed: {broken['line']}")
    told = (best["status"], seconds, best["line"], best["hint"], "; ".join(notes))
    return (exercise.number, name, exercise.difficulty, exercise.minutes, *told)


def _unjudged(name: str, plan: Plan, events: list[dict], ran: dict[int, dict], ended: str) -> str:
    """The status of an exercise that no check has reached: what ended the notebook, if that was in a cell of its own."""
    if plan.problem:
        return "error"
    last = next((e for e in reversed(events) if e.get("event") in ("cell", "judging")), {})
    mine = {*plan.owners.get(name, []), *plan.checks.get(name, [])}
    if last.get("name") != name and last.get("cell") not in mine:
        return "not reached"
    if last.get("cell") in ran and ran[last["cell"]]["status"] in ("time", "output"):
        return ran[last["cell"]]["status"]
    cause = ended.partition(":")[0].partition(",")[0]
    return {"interrupted": "not reached"}.get(cause, cause if cause in ("time", "memory", "output") else "error")


def most_frequent(texts: Iterable[str]) -> str:
    """The text that comes most often, the first of equals; empty for none."""
    counts: dict[str, int] = {}
    for text in filter(None, texts):
        counts[text] = counts.get(text, 0) + 1
    return max(counts, key=lambda text: counts[text]) if counts else ""
