"""What there is to grade: the exercises of each lesson, the notebooks in a folder, and where in a notebook an exercise stands.

Notebooks are read as JSON and as text; nothing of them is run here. A cell belongs to an exercise if it defines the
exercise's function at its left margin, or if it is the exercise's check cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from course_lib.errors import CourseError

HEADING = re.compile(r"^## Exercise (?P<number>\d+\.\d+): .*\((?P<difficulty>\w+), (?P<minutes>\d+) minutes?\)", re.M)
CHECKED = re.compile(r"""\bcheck\(\s*["'](\w+)["']""")
LARGEST = 200_000_000  # bytes of a notebook that is read


class Exercise(NamedTuple):
    """One exercise of a lesson. check: the source of its check cell; ids: those of its stub and check cells."""

    number: str
    name: str
    difficulty: str
    minutes: int
    check: str
    ids: tuple[str, str]


class Lesson(NamedTuple):
    """name: such as "05_lstm_backward". cells: the ids of all its cells, by which a renamed copy is recognised."""

    name: str
    exercises: tuple[Exercise, ...]
    cells: frozenset[str]


class Cell(NamedTuple):
    """One code cell. tags: those of its metadata."""

    id: str
    source: str
    tags: tuple[str, ...] = ()


class UnreadableError(Exception):
    """A file that is no notebook; the message says why."""


@dataclass
class Plan:
    """A notebook and what is to be done with it. problem: why it cannot be run, empty if it can.

    after: for each code cell, the names to check behind it. owners: for each name, the numbers of the code cells that define
    its function; checks: those that are its check cell, intact or edited. notes: for each name, what is odd about its cells.
    """

    path: Path
    learner: str
    notebook: str
    lesson: Lesson | None = None
    cells: list[Cell] = field(default_factory=list)
    problem: str = ""
    after: dict[int, list[str]] = field(default_factory=dict)
    owners: dict[str, list[int]] = field(default_factory=dict)
    checks: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def read_cells(path: Path) -> tuple[list[Cell], list[dict]]:
    """The code cells of a notebook, and all cells as they stand in the file.

    Raises:   UnreadableError: no notebook, or one of a format before 2015.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UnreadableError(f"larger than {LARGEST // 10**6} MB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error
    if not content.strip():
        raise UnreadableError("the file is empty")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "damaged or cut off"
        raise UnreadableError(f"no JSON: {reason}") from error
    if isinstance(notebook, dict) and "worksheets" in notebook:
        raise UnreadableError("an old format of notebooks (3): open it in JupyterLab and save it once")
    rows = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(rows, list):
        raise UnreadableError("JSON, but no notebook: it has no cells")
    cells = [row for row in rows if isinstance(row, dict)]
    return [_cell(row) for row in cells if row.get("cell_type") == "code"], cells


def _cell(row: dict) -> Cell:
    metadata = row.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else ()
    return Cell(str(row.get("id", "")), _source(row), tuple(map(str, tags)) if isinstance(tags, list) else ())


def _source(row: dict) -> str:
    source = row.get("source", "")
    text = source if isinstance(source, str) else "".join(map(str, source)) if isinstance(source, list) else ""
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be sent to a kernel


def lessons(folder: Path | None = None) -> dict[str, Lesson]:
    """The lessons by name, from the learner edition that comes with the course.

    Raises:   CourseError: the folder holds no lessons.
    """
    folder = folder or Path(__file__).parents[1] / "notebooks"
    found = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        try:
            found[path.stem] = _lesson(path)
        except UnreadableError as error:
            raise CourseError(f"{path}: {error}; name the course's own notebooks with --lessons") from error
    if not any(lesson.exercises for lesson in found.values()):
        raise CourseError(f"no lessons with exercises in {folder}; name the course's own notebooks with --lessons FOLDER")
    return found


def _lesson(path: Path) -> Lesson:
    exercises, heading, stub = [], None, ""
    rows = read_cells(path)[1]
    for row in rows:
        source, tags = _source(row), _cell(row).tags
        if row.get("cell_type") == "markdown":
            heading = HEADING.search(source) or heading
        elif "exercise" in tags:
            stub = str(row.get("id", ""))
        elif "check" in tags and heading and (checked := CHECKED.search(source)):
            number, difficulty, minutes = heading.group("number", "difficulty", "minutes")
            ids = (stub, str(row.get("id", "")))
            exercises.append(Exercise(number, checked.group(1), difficulty, int(minutes), source.strip(), ids))
    return Lesson(path.stem, tuple(exercises), frozenset(str(row["id"]) for row in rows if row.get("id")))


def find_notebooks(folder: Path) -> list[Path]:
    """The notebooks in a folder, at any depth, in order; or the one notebook that is named.

    Raises:   CourseError: no such folder, or no notebook in it.
    """
    if folder.is_file() and folder.suffix == ".ipynb":
        return [folder]
    if not folder.is_dir():
        raise CourseError(f"{folder}: no such folder, and no notebook; name the folder that holds the learners' notebooks")
    paths = [path for path in folder.rglob("*.ipynb") if path.is_file() and not _is_hidden(path.relative_to(folder))]
    if not paths:
        raise CourseError(f"{folder}: no notebook (.ipynb) in it; name the folder that holds the learners' notebooks")
    return sorted(paths)


def _is_hidden(path: Path) -> bool:
    """Jupyter's checkpoints, and what macOS puts into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def plan(path: Path, folder: Path, known: dict[str, Lesson]) -> Plan:
    """What is to be done with one notebook below a folder; a file that cannot be read is a plan with a problem."""
    named = _by_name(path.stem, known)
    relative = path.relative_to(folder) if folder.is_dir() else Path(path.name)
    made = Plan(path, _learner(relative, named, folder), relative.as_posix(), known.get(named))
    try:
        made.cells, rows = read_cells(path)
    except UnreadableError as error:
        made.problem = f"unreadable: {error}"
        return made
    made.lesson = _lesson_of(made.cells, rows, known, named)
    if made.lesson is None:
        made.problem = "none of the course's lessons: neither its name nor its cells are those of one"
        return made
    _place(made)
    return made


def _by_name(stem: str, known: Iterable[str]) -> str:
    """The lesson whose name a file's name contains; empty if none is."""
    return next((name for name in known if re.search(rf"(?<!\d){re.escape(name)}", stem)), "")


def _learner(relative: Path, lesson: str, folder: Path) -> str:
    """Whose notebook it is: its folder; for a file that stands in none, its name without the lesson's."""
    if relative.parent.parts:
        return relative.parent.as_posix()
    rest = relative.stem.replace(lesson, " ") if lesson else relative.stem
    rest = re.sub(r"(-Copy\d+|\(\d+\))\s*$", "", rest)  # what JupyterLab and browsers add
    return rest.strip(" _-.") or (folder.resolve().name if folder.is_dir() else relative.stem)


def _lesson_of(cells: list[Cell], rows: list[dict], known: dict[str, Lesson], named: str) -> Lesson | None:
    """The lesson by the file's name, unless its cells are those of another one and of none of that."""
    ids, text = {str(row.get("id", "")) for row in rows}, "\n".join(cell.source for cell in cells)

    def likeness(lesson: Lesson) -> int:
        written = sum(bool(_defines(text, e.name)) for e in lesson.exercises)
        return len(ids & lesson.cells) + written + sum(e.check in text for e in lesson.exercises)

    scores = {name: likeness(lesson) for name, lesson in known.items()}
    best = max(scores, key=lambda name: scores[name])
    if named and (scores[named] or not scores[best]):
        return known[named]
    return known[best] if scores[best] else None


def _defines(source: str, name: str) -> bool:
    """Whether a cell gives a name a value at its left margin; also one with an error of syntax, or with magic lines."""
    return bool(re.search(rf"^(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*(?::[^=\n]*)?=(?!=)", source, re.M))


def _place(made: Plan) -> None:
    """Where in the notebook each exercise is defined and checked; behind these cells the grader's own check is to run."""
    for exercise in made.lesson.exercises if made.lesson else ():
        name, cells = exercise.name, list(enumerate(made.cells))
        owners = [k for k, cell in cells if _defines(cell.source, name)]
        intact = [k for k, cell in cells if cell.source.strip() == exercise.check]
        edited = [k for k, cell in cells if k not in intact and exercise.ids[1] and cell.id == exercise.ids[1]]
        notes = ["no cell defines it"] * (not owners)
        if not intact:
            notes.append("check cell edited" if edited else "check cell deleted")
        made.owners[name], made.checks[name], made.notes[name] = owners, intact + edited, notes
        for place in {max(places) for places in (owners, intact) if places}:
            made.after.setdefault(place, []).append(name)
