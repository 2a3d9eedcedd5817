"""The worker runs cells under limits, and its reports come over a channel that a notebook does not print to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from learners import NAMES, solution

from course_lib import grading_worker
from course_lib.grading_worker import Kernel

MOST = 100_000


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("k")
    (folder / "work").mkdir()
    made = Kernel(folder, folder / "work")
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("source", "status", "line"),
    [
        ("x = 1", "ok", ""),
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("exit(", "error", "_IncompleteInputError: incomplete input (__main__, line 1)"),
        ("raise SystemExit", "error", "SystemExit: "),
        ("import time; time.sleep(50)", "time", "not finished after 0.5 s"),
        ("while True: print('x' * 100)", "output", "more than 0.1 MB of output"),
        ("print('x' * 300_000)", "output", "more than 0.1 MB of output"),
        ("raise ValueError('x' * 400)", "error", f"ValueError: {'x' * 288}"),
    ],
)
def test_a_cell(kernel: Kernel, source: str, status: str, line: str) -> None:
    done = kernel.run(source, 0.5 if status == "time" else 30, MOST)
    assert done.status == status and done.alive
    if "Incomplete" not in line:  # its name differs between versions of Python
        assert done.line == line
    assert kernel.value("__import__('json').dumps({'token': TOKEN, 'n': 3})", 30)[1] == {"n": 3}


def test_a_value_needs_the_token(kernel: Kernel) -> None:
    for wrong in ("'{\"token\": 1, \"n\": 3}'", "'{'", "3", "[1]", "no_such_name", "'[]'"):
        assert kernel.value(wrong, 30)[1] == {}
    assert kernel.value("1 / 0", 30)[0].line == "ZeroDivisionError: division by zero"
    assert kernel.value("__import__('time').sleep(50)", 0.5)[0].status == "time"


def test_a_broken_display_does_not_matter(kernel: Kernel) -> None:
    kernel.run("class A:\n    def __repr__(self): raise ValueError\nA()", 30, MOST)
    assert kernel.value("__import__('json').dumps({'token': TOKEN, 'n': 3})", 30)[1] == {"n": 3}


def started(job: dict[str, Any], folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "course_lib.grading_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen(command, cwd=folder, **pipes)
    worker.stdin.write(json.dumps(job).encode() + b"\n")
    worker.stdin.flush()
    return worker


def job(folder: Path, *cells: str, after: dict[int, list[str]] | None = None) -> dict[str, Any]:
    folder = folder / "scratch"
    (folder / "work").mkdir(parents=True)
    limits = {"cell_seconds": 30, "output_bytes": MOST}
    paths = {"scratch": str(folder), "folder": str(folder / "work")}
    return {"cells": cells, "after": after or {}, "names": NAMES[1:2], **limits, **paths}


def test_the_reports_of_a_job(tmp_path: Path) -> None:
    shout = "import os\nfor n in (1, 2):\n    os.write(n, b'{\"event\": \"shout\"}\\n')"
    imports = "import numpy as np\nfrom course_lib.cells import LSTMState\nfrom course_lib.layers import sigmoid"
    child = "import subprocess\nsubprocess.run(['echo', '{}'])"
    made = job(tmp_path, imports, "", "print('hello')", solution(NAMES[1]), "os", child, shout, after={3: [NAMES[1]]})
    with started(made, tmp_path) as worker:
        events = [json.loads(line) for line in worker.stdout]
        worker.stdin.close()
    ran = [(e["cell"], e["status"]) for e in events if e["event"] == "ran"]
    assert ran == [(0, "ok"), (2, "ok"), (3, "ok"), (4, "error"), (5, "ok"), (6, "ok")]
    assert [e["status"] for e in events if e["event"] == "judged"] == ["solved", "same"]
    assert events.index(next(e for e in events if e["event"] == "judged")) < events.index({"event": "cell", "cell": 4})
    assert events[-1] == {"event": "end", "status": "ok", "line": ""}
    assert {e["event"] for e in events} == {"cell", "ran", "judging", "judged", "end"}


def test_the_worker_ends_with_the_grader(tmp_path: Path) -> None:
    worker = started(job(tmp_path, "import time; time.sleep(100)"), tmp_path)
    assert json.loads(worker.stdout.readline()) == {"event": "cell", "cell": 0}
    family = psutil.Process(worker.pid).children(recursive=True)
    assert family
    worker.stdin.close()  # as when the grader is killed
    assert worker.wait(timeout=20) == 1
    worker.stdout.close()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not (tmp_path / "scratch").exists()


def test_without_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(grading_worker, "Kernel", broken)
    said: list[dict] = []
    grading_worker.work(job(tmp_path, "1"), lambda **fields: said.append(fields))
    assert said == [{"event": "end", "status": "error", "line": "no kernel: no room"}]
