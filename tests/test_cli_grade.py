"""`course grade` as an instructor runs it: its tables, its files, its refusals, and what Ctrl-C leaves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from course_process import COURSE, course, start, the_error, tree
from learners import LESSON, NAMES, notebook, save, solved

from course_lib import cli_grade
from course_lib.grading import Graded, Limits, Row

SLOW = "import time\ntime.sleep(100)"


def row(learner: str, status: str, *, name: str = NAMES[1], number: str = "4.2", hint: str = "", note: str = "") -> Row:
    return Row(learner, f"{learner}/x.ipynb", LESSON, number, name, "medium", 10, status, 0.5, f"✗ {name}", hint, note)


CALC = "=cmd|' /C calc'!A0"
FOUND = [
    Graded(CALC, "x\x1b[31m.ipynb", LESSON, "ok", 3.2, ["code cell 3: x"], [row(CALC, "solved", hint="+1")]),
    Graded("@b", "b/x.ipynb", LESSON, "ok", 2, [], [row("@b", "wrong", hint="-tanh\nand more", note='a "note", too')]),
    Graded("c", "c/x.ipynb", LESSON, "memory: more than 1 GB", 9, ["a", "b"], [row("c", "wrong", hint="-tanh\nand more")]),
    Graded("d", "d/y.ipynb", "", "unreadable: the file is empty", 0, [], []),
]


def test_the_csv_is_safe_for_spreadsheets() -> None:
    rows = list(csv.DictReader(io.StringIO(cli_grade.as_csv(FOUND))))
    assert list(rows[0]) == list(cli_grade.COLUMNS) and len(rows) == 4
    assert rows[0]["learner"] == "'=cmd|' /C calc'!A0" and rows[0]["hint"] == "'+1" and rows[0]["check"] == f"✗ {NAMES[1]}"
    assert rows[1]["hint"] == "'-tanh and more" and rows[1]["note"] == 'a "note", too' and rows[1]["learner"] == "'@b"
    assert rows[3]["status"] == "error" and rows[3]["check"] == "unreadable: the file is empty"
    for text in ("=1", "+1", "-1", "@x", "\t=1", "  =1", "\r=1", "＝1"):  # noqa: RUF001
        assert cli_grade.safe(text).startswith("'")
    assert cli_grade.safe(3) == 3 and cli_grade.safe("a=1") == "a=1"


def test_the_json_holds_all() -> None:
    content = json.loads(cli_grade.as_json(FOUND, Limits(1, 2, 3, 4)))
    assert content["limits"] == {"cell_seconds": 1, "minutes": 2, "memory": 3, "output": 4}
    first = content["notebooks"][0]
    assert (first["solved"], first["of"], first["failures"], first["seconds"]) == (1, 1, ["code cell 3: x"], 3.2)
    assert list(first["exercises"][0]) == list(cli_grade.COLUMNS[3:]) and first["exercises"][0]["status"] == "solved"


def test_the_table() -> None:
    lines = cli_grade.table(FOUND).splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[0].split() == ["learner", "notebook", "solved", "seconds", "status"]
    assert lines[1].endswith("1 of 1  3        ok; 1 cell failed")
    assert lines[3].endswith("0 of 1  9        memory: more than 1 GB; 2 cells failed")
    assert lines[4].split() == ["d", "d/y.ipynb", "-", "0", "unreadable:", "the", "file", "is", "empty"]
    assert lines[5:9] == ["", "notes", '@b/x.ipynb 4.2: a "note", too', ""]
    assert lines[10:] == [f"4.2       {NAMES[1]}  1 of 3  2 wrong  -tanh and more"]


def test_exercises_are_in_the_order_of_the_course() -> None:
    places = {"x": "10.1", "y": "9.2", "z": "4.10", "w": "4.2"}
    rows = [row("a", "solved", name=name, number=number) for name, number in places.items()]
    text = cli_grade.table([Graded("a", "a", LESSON, "ok", 1, [], rows)])
    assert [line.split()[0] for line in text.splitlines()[4:]] == ["4.2", "4.10", "9.2", "10.1"]


def test_long_and_odd_texts_are_one_line() -> None:
    assert cli_grade.plain("a\n\x00\x1b[2J b\u202e") == "a [2J b"
    assert len(cli_grade.plain("x" * 1000)) < 310


def test_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    save(folder, "alice", notebook(solved()))
    save(folder, "", "no notebook", f"bob_{LESSON}.ipynb")
    save(folder, "carl", json.dumps({"cells": []}), "poem.ipynb")
    before = tree(folder)
    result = course("grade", "class", "--csv", "a.csv", "--json", "a.json", "--jobs", "1", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert tree(folder) == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json", "class"]
    said = [line.rpartition(",")[0] for line in result.stderr.splitlines()]
    assert said == [
        f"[1/3] alice alice/{LESSON}.ipynb: 5 of 5",
        f"[2/3] bob bob_{LESSON}.ipynb: 0 of 5 (unreadable: no JSON: damaged or cut off)",
        "[3/3] carl carl/poem.ipynb: - (none of the course's lessons: neither its name nor its cells are those of one)",
    ]
    assert "4.2       lstm_step_forward      1 of 2  1 error" in result.stdout
    text = (tmp_path / "a.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbflearner,") and b"\r" not in text
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"))))
    assert [r["status"] for r in rows] == ["solved"] * 5 + ["error"] * 6
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [n["solved"] for n in content["notebooks"]] == [5, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], "none: no such folder"),
        (["empty"], "empty: no notebook"),
        (["class", "--jobs", "0"], "--jobs"),
        (["class", "--minutes", "0"], "--minutes 0: expected more than 0"),
        (["class", "--memory", "nan"], "--memory nan: expected more than 0"),
        (["class", "--csv", "no/such/a.csv"], "no/such/a.csv: cannot be written (No such file or directory)"),
        (["class", "--csv", "empty"], "empty: is a folder"),
        (["class", "--json", "class/x.ipynb"], "class/x.ipynb: would replace a notebook"),
        (["class", "--csv", "a", "--json", "./a"], "--csv and --json are both a"),
        (["class", "--lessons", "empty"], "no lessons with exercises in empty"),
    ],
)
def test_refusals(tmp_path: Path, arguments: list[str], told: str) -> None:
    save(tmp_path, "class", notebook(), "x.ipynb")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    result = course("grade", *arguments, folder=tmp_path)
    assert told in the_error(result) and result.stdout == "" and tree(tmp_path) == before


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            found += [process] if process.environ().get("COURSE_GRADE_TEST") == mark else []
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_grader_is_stopped_nothing_runs_on(tmp_path: Path, number: int) -> None:
    save(tmp_path / "class", "a", "no notebook")
    here = tmp_path / "here"
    save(tmp_path / "class", "b", notebook(solved(), before={NAMES[2]: f"open({str(here)!r}, 'w').close()\n{SLOW}"}))
    mark = f"{os.getpid()} {number}"
    environment = os.environ | {"COURSE_GRADE_TEST": mark}
    grader = start("grade", "class", "--csv", "a.csv", folder=tmp_path, env=environment, program=(COURSE,))
    end = time.monotonic() + 60
    while not here.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert here.exists() and len(marked(mark)) >= 3
    grader.send_signal(number)
    _, error = grader.communicate(timeout=60)
    end = time.monotonic() + 10
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.1)
    assert marked(mark) == []
    if number != signal.SIGKILL:
        assert grader.returncode == 2 and error.splitlines()[-1] == "error: interrupted"
        rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(encoding="utf-8-sig"))))
        assert [r["status"] for r in rows] == ["error"] * 5 + ["solved", "solved", *["not reached"] * 3]
