"""Which exercises a lesson has, which lesson a notebook is, whose it is, and which cells belong to an exercise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from learners import CHECKS, LESSON, NAMES, NOTEBOOKS, code, notebook, save, solved, source

from course_lib import grading_plan
from course_lib.errors import CourseError
from course_lib.exercises import EXERCISES
from course_lib.grading_plan import UnreadableError, find_notebooks, lessons, plan, read_cells

KNOWN = lessons()


def test_every_exercise_of_the_books_is_found() -> None:
    found = {e.number: e.name for lesson in KNOWN.values() for e in lesson.exercises}
    assert found == {e.number: name for name, e in EXERCISES.items() if e.number}
    for name, lesson in KNOWN.items():
        assert all(int(e.number.split(".")[0]) == int(name[:2]) for e in lesson.exercises)
        text = (NOTEBOOKS / "src" / f"{name}.md").read_text(encoding="utf-8")
        headings = re.findall(r"^## Exercise (\S+): .* \((\w+), (\d+) minutes\)", text, re.M)
        assert {(e.number, e.difficulty, str(e.minutes)) for e in lesson.exercises} == set(headings)
        assert all(e.ids[0] and e.ids[1] for e in lesson.exercises)


def test_no_lessons(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"no lessons with exercises in .*--lessons"):
        lessons(tmp_path)
    (tmp_path / "01_x.ipynb").write_text("{")
    with pytest.raises(CourseError, match=r"01_x\.ipynb: no JSON"):
        lessons(tmp_path)


@pytest.mark.parametrize(
    ("path", "lesson", "learner"),
    [
        ("alice/04_lstm_forward.ipynb", LESSON, "alice"),
        ("alice/late/04_lstm_forward-Copy1.ipynb", LESSON, "alice/late"),
        ("alice_04_lstm_forward.ipynb", LESSON, "alice"),
        ("04_lstm_forward (2).ipynb", LESSON, "the class"),
        ("04_lstm_forward_bob-Copy12.ipynb", LESSON, "bob"),
        ("homework.ipynb", LESSON, "homework"),
        ("Ann 02_rnn.ipynb", LESSON, "Ann"),  # the cells are those of lesson 04 only
    ],
)
def test_lesson_and_learner(tmp_path: Path, path: str, lesson: str, learner: str) -> None:
    folder = tmp_path / "the class"
    folder.mkdir()
    save(folder, "", notebook(solved()), path)
    (found,) = find_notebooks(folder)
    made = plan(found, folder, KNOWN)
    assert (made.lesson.name, made.learner, made.notebook, made.problem) == (lesson, learner, path, "")


def test_the_name_decides_where_the_cells_do_not(tmp_path: Path) -> None:
    bare = {"cells": [code("1 + 1")]}
    save(tmp_path, "", bare, "zoe_02_rnn.ipynb")
    save(tmp_path, "", bare, "zoe.ipynb")
    by_name, by_none = [plan(tmp_path / name, tmp_path, KNOWN) for name in ("zoe_02_rnn.ipynb", "zoe.ipynb")]
    assert by_name.lesson.name == "02_rnn" and not by_name.problem
    assert by_name.notes["rnn_step_forward"] == ["no cell defines it", "check cell deleted"]
    assert by_none.lesson is None and by_none.problem.startswith("none of the course's lessons")


def test_every_edition_is_recognised_under_any_name(tmp_path: Path) -> None:
    for path in [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("zh/*.ipynb"), *NOTEBOOKS.glob("instructor/*.ipynb")]:
        copy = tmp_path / "x.ipynb"
        copy.write_bytes(path.read_bytes())
        made = plan(copy, tmp_path, KNOWN)
        assert made.lesson.name == path.stem
        assert all(notes == [] for notes in made.notes.values())


def test_one_notebook_alone(tmp_path: Path) -> None:
    path = save(tmp_path, "alice", notebook())
    assert find_notebooks(path) == [path]
    made = plan(path, path, KNOWN)
    assert (made.learner, made.notebook) == (LESSON, f"{LESSON}.ipynb")


def test_which_files_are_notebooks(tmp_path: Path) -> None:
    for name in ("b/x.ipynb", "a/deep/er/y.ipynb"):
        save(tmp_path, "", "", name)
    for name in ("a/.ipynb_checkpoints/x.ipynb", "__MACOSX/b/x.ipynb", "b/._x.ipynb", "b/x.py"):
        save(tmp_path, "", "", name)
    (tmp_path / "folder.ipynb").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in find_notebooks(tmp_path)] == ["a/deep/er/y.ipynb", "b/x.ipynb"]
    for wrong in (tmp_path / "none", tmp_path / "b" / "x.py", tmp_path / "folder.ipynb"):
        with pytest.raises(CourseError, match=r"no such folder|no notebook"):
            find_notebooks(wrong)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"cells": [', "damaged or cut off"),
        (b"<<<<<<< HEAD\n{}", "damaged or cut off"),
        (b"\xff\xfe{\x00", "not UTF-8"),
        (b"[" * 100_000, "damaged or cut off"),
        (b"[1, 2]", "it has no cells"),
        (b'{"cells": 3}', "it has no cells"),
        (b'{"worksheets": []}', "old format"),
    ],
)
def test_what_is_no_notebook(tmp_path: Path, content: bytes, told: str) -> None:
    path = save(tmp_path, "x", content)
    with pytest.raises(UnreadableError, match=told):
        read_cells(path)
    made = plan(path, tmp_path, KNOWN)
    assert made.problem.startswith("unreadable: ") and made.lesson.name == LESSON


def test_odd_cells_are_read(tmp_path: Path) -> None:
    rows = [3, {}, {"cell_type": "code"}, {"cell_type": "code", "source": ["a\n", "b"], "metadata": {"tags": 3}, "id": 7}]
    rows += [{"cell_type": "code", "source": "x\ud800"}, {"cell_type": "markdown", "source": "y"}]
    rows += [{"cell_type": "code", "source": 5}]
    path = save(tmp_path, "x", "\ufeff" + json.dumps({"cells": rows}))
    assert [cell.source for cell in read_cells(path)[0]] == ["", "a\nb", "x?", ""]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading_plan, "LARGEST", 1_000_000)
    with pytest.raises(UnreadableError, match="larger than 1 MB"):
        read_cells(save(tmp_path, "x", b" " * 1_000_001))


def test_where_the_checks_go(tmp_path: Path) -> None:
    first, second, third, fourth, fifth = NAMES
    below = f"%matplotlib inline\n{third}: object = 3\ndef broken(:"
    content = notebook(checks={first: None, second: "print('fine')"})
    content["cells"].append(code(below))
    content["cells"].append(code(f"    def {fifth}(): ...\n{fifth} == 3\nx = {fifth}\n{fifth}_2 = 1"))
    made = plan(save(tmp_path, "x", content), tmp_path, KNOWN)
    # 0 imports, 1 first, 2 second, 3 its check, 4 third, 5 its check, 6 fourth, 7, 8 fifth, 9, 10 below, 11
    assert made.owners == {first: [1], second: [2], third: [4, 10], fourth: [6], fifth: [8]}
    assert made.checks == {first: [], second: [3], third: [5], fourth: [7], fifth: [9]}
    assert {k: sorted(v) for k, v in made.after.items()} == {
        1: [first], 2: [second], 5: [third], 10: [third], 6: [fourth], 7: [fourth], 8: [fifth], 9: [fifth],
    }  # fmt: skip
    assert made.notes == {first: ["check cell deleted"], second: ["check cell edited"], third: [], fourth: [], fifth: []}


def test_a_check_cell_that_lost_its_id_is_intact(tmp_path: Path) -> None:
    content = notebook()
    for cell in content["cells"]:
        cell.pop("id", None)
        cell["source"] = cell["source"] + "\n"
    made = plan(save(tmp_path, "x", content), tmp_path, KNOWN)
    assert all(notes == [] for notes in made.notes.values())
    assert source(CHECKS[NAMES[0]]).strip() == KNOWN[LESSON].exercises[0].check
