"""A learner's copies of the lessons: nothing that was edited is ever lost, whatever the order of edits and updates."""

from __future__ import annotations

import json
import random
from pathlib import Path

import nbformat
import pytest
from course_process import course

from course_lib import workspace
from course_lib.errors import CourseError
from course_lib.workspace import RECORD, digest, update


def write(path: Path, *texts: str, output: str = "") -> None:
    """Write a notebook whose code cells have these texts; the last one printed ``output``."""
    cells = [nbformat.v4.new_code_cell(text, id=f"c{k}") for k, text in enumerate(texts)]
    if output:
        cells[-1].outputs = [nbformat.v4.new_output("stream", text=output)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)), encoding="utf-8")


@pytest.fixture
def shop(tmp_path):
    """A checkout with two lessons, one of them in two languages, and a learner's folder that is not there yet."""
    lessons = tmp_path / "notebooks"
    write(lessons / "00_a.ipynb", "one", "two")
    write(lessons / "01_b.ipynb", "three")
    write(lessons / "zh" / "00_a.ipynb", "one", "zwei")
    write(lessons / "instructor" / "00_a.ipynb", "the solution")
    return lessons, tmp_path / "work"


def edited_and_updated(shop: tuple[Path, Path]) -> tuple[Path, Path]:
    """Lay the lessons, edit a copy, ship a second version, update."""
    lessons, work = shop
    update(work, lessons)
    write(work / "00_a.ipynb", "mine")
    write(lessons / "00_a.ipynb", "second")
    update(work, lessons)
    return shop


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_learner_edition_is_laid_out_as_it_is_and_then_left_in_peace(shop):
    lessons, work = shop
    assert update(work, lessons) == [f"{work / name}: new" for name in ("00_a.ipynb", "01_b.ipynb", "zh/00_a.ipynb")]
    assert files(work) == {"00_a.ipynb", "01_b.ipynb", "zh/00_a.ipynb", RECORD}
    for name in files(work) - {RECORD}:
        assert (work / name).read_bytes() == (lessons / name).read_bytes()
    before = {name: (work / name).stat().st_mtime_ns for name in files(work)}
    assert update(work, lessons) == []
    assert {name: (work / name).stat().st_mtime_ns for name in files(work)} == before


def test_a_lesson_that_was_only_run_is_brought_up_to_date(shop):
    lessons, work = shop
    update(work, lessons)
    write(work / "00_a.ipynb", "one", "two", output="another text than last time")
    assert update(work, lessons) == []
    write(lessons / "00_a.ipynb", "one", "two, corrected")
    assert update(work, lessons) == [f"{work / '00_a.ipynb'}: brought up to date"]
    assert (work / "00_a.ipynb").read_bytes() == (lessons / "00_a.ipynb").read_bytes()
    assert files(work) == {"00_a.ipynb", "01_b.ipynb", "zh/00_a.ipynb", RECORD}


def test_an_edited_lesson_stays_and_each_new_version_lies_beside_it(shop):
    lessons, work = shop
    update(work, lessons)
    write(work / "00_a.ipynb", "one", "two", "my solution")
    mine = (work / "00_a.ipynb").read_bytes()
    assert update(work, lessons) == []  # nothing new, so nothing beside it
    assert "00_a.new.ipynb" not in files(work)
    for text in ("second", "third"):  # the third takes the place of the second, which nobody touched
        write(lessons / "00_a.ipynb", "one", text)
        (line,) = update(work, lessons)
        said = "you edited it, so it stays as it is; the new version lies beside it: 00_a.new.ipynb"
        assert line == f"{work / '00_a.ipynb'}: {said}"
        assert (work / "00_a.new.ipynb").read_bytes() == (lessons / "00_a.ipynb").read_bytes()
        assert update(work, lessons) == []
    write(work / "00_a.new.ipynb", "one", "third", "my other solution")
    other = (work / "00_a.new.ipynb").read_bytes()
    write(lessons / "00_a.ipynb", "one", "fourth")
    (line,) = update(work, lessons)
    assert line.endswith("beside it: 00_a.new-2.ipynb")
    assert (work / "00_a.ipynb").read_bytes() == mine
    assert (work / "00_a.new.ipynb").read_bytes() == other


def test_a_new_version_that_was_thrown_away_does_not_come_back_but_a_lesson_does(shop):
    lessons, work = edited_and_updated(shop)
    (work / "00_a.new.ipynb").unlink()
    (work / "01_b.ipynb").rename(work / "my_b.ipynb")
    assert update(work, lessons) == [f"{work / '01_b.ipynb'}: new"]
    assert "00_a.new.ipynb" not in files(work)


def test_taking_the_new_version_over_ends_the_matter(shop):
    lessons, work = edited_and_updated(shop)
    (work / "00_a.new.ipynb").replace(work / "00_a.ipynb")
    assert update(work, lessons) == []
    write(lessons / "00_a.ipynb", "third")
    assert update(work, lessons) == [f"{work / '00_a.ipynb'}: brought up to date"]


@pytest.mark.parametrize("record", [None, "", "[1]", "{"])
def test_without_a_record_what_differs_counts_as_edited(shop, record):
    lessons, work = shop
    update(work, lessons)
    write(work / "01_b.ipynb", "mine")
    (work / RECORD).unlink() if record is None else (work / RECORD).write_text(record, encoding="utf-8")
    (line,) = update(work, lessons)
    assert line.startswith(f"{work / '01_b.ipynb'}: you edited it")
    assert "mine" in (work / "01_b.ipynb").read_text(encoding="utf-8")
    write(lessons / "00_a.ipynb", "second")  # it was the same when the record was made again
    assert update(work, lessons) == [f"{work / '00_a.ipynb'}: brought up to date"]


NO_NOTEBOOKS = [b"", b"{}", b'{"cells": [', b"\xff\xfe", b'{"cells": [{"cell_type": "code"}]}', b"[" * 100_000]


@pytest.mark.parametrize("content", NO_NOTEBOOKS, ids=range(len(NO_NOTEBOOKS)))
def test_a_file_that_is_no_notebook_is_the_learners(shop, content):
    lessons, work = shop
    update(work, lessons)
    (work / "00_a.ipynb").write_bytes(content)
    write(lessons / "00_a.ipynb", "second")
    (line,) = update(work, lessons)
    assert "beside it: 00_a.new.ipynb" in line
    assert (work / "00_a.ipynb").read_bytes() == content


def test_texts_kinds_and_pasted_files_are_edits_outputs_counts_and_metadata_are_none(tmp_path):
    path = tmp_path / "a.ipynb"
    write(path, "one", "two")
    notebook, first = json.loads(path.read_text(encoding="utf-8")), digest(path)

    def changed(edit) -> bool:
        copy = json.loads(json.dumps(notebook))
        edit(copy["cells"])
        path.write_text(json.dumps(copy), encoding="utf-8")
        return digest(path) != first

    assert changed(lambda cells: cells[0].update(source="one "))
    assert changed(lambda cells: cells[0].update(cell_type="markdown"))
    assert changed(lambda cells: cells[0].update(attachments={"a.png": {"image/png": "00"}}))
    assert changed(lambda cells: cells.reverse())
    assert changed(lambda cells: cells.pop())
    assert not changed(lambda cells: cells[0].update(source=["o", "ne"]))  # as another editor may save it
    assert not changed(lambda cells: cells[0].update(outputs=[1], execution_count=7, metadata={"a": 1}, attachments={}))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_a_learner_wrote_is_ever_lost(shop, seed):
    """Random edits, runs, deletions and updates; every text that the learner saved last in a file is still in that file."""
    lessons, work = shop
    rng, written = random.Random(seed), {}
    for step in range(30):
        update(work, lessons)
        assert all(text in path.read_text(encoding="utf-8") for path, text in written.items()), (seed, step)
        laid = json.loads((work / RECORD).read_text(encoding="utf-8"))
        assert digest(lessons / "00_a.ipynb") in {laid.get(path.name) for path in work.glob("00_a*.ipynb")}
        match rng.choice(["edit", "edit", "ship", "ship", "run"]):
            case "edit":
                path = rng.choice(sorted(work.glob("0*.ipynb")))
                written[path] = f"mine, step {step}"
                write(path, "one", written[path])
            case "ship":
                write(lessons / rng.choice(["00_a.ipynb", "01_b.ipynb"]), "one", f"version {step}")
            case "run":
                path = rng.choice(sorted(work.glob("0*.ipynb")))
                texts = [cell.source for cell in nbformat.read(path, 4).cells]
                write(path, *texts, output=f"output of step {step}")


def test_bad_input_is_one_line(shop, tmp_path):
    lessons, work = shop
    with pytest.raises(CourseError, match="no lessons in"):
        update(work, tmp_path / "nowhere")
    work.write_text("a file", encoding="utf-8")
    with pytest.raises(CourseError, match=f"{work}: File exists; mend that"):
        update(work, lessons)
    write(lessons / "00_a.ipynb", "one")
    (lessons / "01_b.ipynb").write_text("cut off", encoding="utf-8")
    with pytest.raises(CourseError, match=r"01_b\.ipynb: not a notebook; restore it"):
        update(tmp_path / "other", lessons)
    assert digest(tmp_path / "other" / "00_a.ipynb") == digest(lessons / "00_a.ipynb")


def test_the_command_lays_out_all_lessons_of_the_course(tmp_path):
    first, second = (course("lessons", "mine", folder=tmp_path) for _ in range(2))
    learner = sorted((workspace.CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))
    assert first.returncode == second.returncode == 0
    assert [line.partition(": ")[2] for line in first.stdout.splitlines()] == ["new"] * (len(learner) + 1)
    assert second.stdout == ""
    assert {path.name for path in (tmp_path / "mine").glob("*.ipynb")} == {path.name for path in learner}
