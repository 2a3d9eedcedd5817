"""``course grade``: run a class's notebooks, print what was solved, and write it as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from course_lib import __version__
from course_lib.errors import CourseError

if TYPE_CHECKING:
    from course_lib.grading import Graded, Limits

FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001 - what a spreadsheet may take for a formula
COLUMNS = ("learner", "notebook", "lesson", "exercise", "name", "difficulty", "minutes")
COLUMNS += ("status", "seconds", "check", "hint", "note")
LONGEST = 300  # characters of a text in the table


def grade(
    folder: Annotated[Path, typer.Argument(help="What holds the learners' notebooks, at any depth; or one notebook.")],
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a row for each exercise of each notebook.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything, notebook by notebook.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks run at the same time.")] = 2,
    cell_seconds: Annotated[float, typer.Option(help="Limit of each cell; then it is interrupted.")] = 180,
    minutes: Annotated[float, typer.Option(help="Limit of each notebook; then it is ended.")] = 10,
    memory: Annotated[float, typer.Option(help="GB that the processes of a notebook may take together.")] = 4,
    output: Annotated[float, typer.Option(help="MB that a cell may print or draw; then it is interrupted.")] = 10,
    lessons: Annotated[Path | None, typer.Option(help="The course's own notebooks. [default: beside the library]")] = None,
) -> None:
    """Run learners' notebooks in processes of their own, and say which exercises are solved.

    The exit status is 0 whatever the learners have solved. Their files are not changed. See docs/grading.md.
    """
    from course_lib import grading, grading_plan

    limits = grading.Limits(cell_seconds, minutes, memory, output)
    for option, value in zip(("--cell-seconds", "--minutes", "--memory", "--output"), limits, strict=True):
        if not 0 < value < float("inf"):
            raise CourseError(f"{option} {value:g}: expected more than 0")
    targets = [path for path in (csv_file, json_file) if path]
    if len({path.resolve() for path in targets}) < len(targets):
        raise CourseError(f"--csv and --json are both {csv_file}; name two files")
    for path in targets:
        _try_to_write(path)
    known = grading_plan.lessons(lessons)
    plans = [grading_plan.plan(path, folder, known) for path in grading_plan.find_notebooks(folder)]
    done = 0

    def tell(graded: Graded) -> None:
        nonlocal done
        done += 1
        name = " ".join(plain(part) for part in (graded.learner, graded.notebook))
        print(f"[{done}/{len(plans)}] {name}: {_score(graded)}, {graded.seconds:.0f} s", file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: end the workers, write what is known
    found = grading.grade(plans, limits, jobs, tell)
    try:
        if csv_file:
            _write(csv_file, as_csv(found), "utf-8-sig")  # with a mark by which spreadsheets know UTF-8
        if json_file:
            _write(json_file, as_json(found, limits), "utf-8")
    finally:  # of a disk that is full, the table on the screen is left
        print(table(found))
    if any(graded.status.startswith("interrupted") for graded in found):
        raise KeyboardInterrupt


def plain(text: object) -> str:
    """One line without control characters, which could steer a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def safe(value: object) -> object:
    """A value that no spreadsheet takes for a formula: such a text gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def as_csv(found: list[Graded]) -> str:
    """A row for each exercise of each notebook; one row for a notebook that is none of the course's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for graded in found:
        for row in graded.rows:
            writer.writerow([safe(value) for value in row])
        if not graded.rows:
            blank = [""] * 4
            row = [graded.learner, graded.notebook, graded.lesson, *blank, "error", graded.seconds, graded.status, "", ""]
            writer.writerow([safe(value) for value in row])
    return text.getvalue()


def as_json(found: list[Graded], limits: Limits) -> str:
    """All that is known, with the limits it was found under."""
    notebooks: list[dict[str, Any]] = []
    for graded in found:
        fields = graded._asdict()
        rows = [dict(zip(COLUMNS[3:], row[3:], strict=True)) for row in fields.pop("rows")]
        notebooks.append(fields | {"solved": graded.solved, "of": len(rows), "exercises": rows})
    content = {"course_lib": __version__, "limits": limits._asdict(), "notebooks": notebooks}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def table(found: list[Graded]) -> str:
    """A row for each notebook, the notes, and a row for each exercise."""
    from course_lib.grading import most_frequent

    rows = [("learner", "notebook", "solved", "seconds", "status")]
    rows += [(g.learner, g.notebook, _solved(g), f"{g.seconds:.0f}", _with_failed(g)) for g in found]
    summary = [("exercise", "name", "solved", "others", "most frequent hint")]
    exercises = {row.name: row for graded in found for row in graded.rows}
    for name, first in sorted(exercises.items(), key=lambda pair: [*map(int, pair[1].number.split("."))]):
        mine = [row for graded in found for row in graded.rows if row.name == name]
        count = {status: sum(row.status == status for row in mine) for status in dict.fromkeys(row.status for row in mine)}
        others = ", ".join(f"{k} {status}" for status, k in count.items() if status != "solved")
        solved = f"{count.get('solved', 0)} of {len(mine)}"
        summary.append((first.number, name, solved, others, most_frequent(row.hint for row in mine)))
    noted = [f"{row.notebook} {row.number}: {row.note}" for graded in found for row in graded.rows if row.note]
    parts = [_aligned(rows), "\n".join(["notes", *map(plain, noted)]) if noted else "", _aligned(summary) if exercises else ""]
    return "\n\n".join(filter(None, parts))


def _aligned(rows: list[tuple[str, ...]]) -> str:
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]) - 1)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in cells)


def _solved(graded: Graded) -> str:
    return f"{graded.solved} of {len(graded.rows)}" if graded.rows else "-"


def _with_failed(graded: Graded) -> str:
    count = len(graded.failures)
    return graded.status + (f"; {count} cell{'s' * (count > 1)} failed" if count else "")


def _score(graded: Graded) -> str:
    return plain(_solved(graded) if graded.status == "ok" else f"{_solved(graded)} ({graded.status})")


def _try_to_write(path: Path) -> None:
    """Refuse a file that cannot be written now, not after an hour of grading."""
    if path.is_dir() or path.suffix == ".ipynb":
        what = "is a folder" if path.is_dir() else "would replace a notebook"
        raise CourseError(f"{path}: {what}; name a file for the table")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CourseError(f"{path}: cannot be written ({error.strerror}); name a file in a folder of yours") from error


def _write(path: Path, text: str, encoding: str) -> None:
    """Write a file whole, or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding=encoding, errors="backslashreplace", newline="")  # a file's name may be no UTF-8
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
