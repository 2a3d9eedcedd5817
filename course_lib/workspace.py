"""A learner's own copies of the lessons, brought up to date without touching what the learner wrote.

``course lessons``, and so ``make lab``, lays the learner edition into ``work/``, a folder that git ignores. A copy is *touched*
when a cell's text is no longer what was laid there; running a lesson does not touch it. When a lesson is new in the checkout:

    no copy yet        it is laid there
    untouched copy     it is replaced
    touched copy       it stays; the new version is laid beside it as NAME.new.ipynb (NAME.new-2.ipynb, if that is touched, too)

``.laid.json`` remembers what was laid where. Without it, copies that differ from the checkout count as touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from course_lib.archive import write_atomically
from course_lib.errors import CourseError

CHECKOUT = Path(__file__).parents[1]
RECORD = ".laid.json"


def update(folder: Path | None = None, lessons: Path = CHECKOUT / "notebooks") -> list[str]:
    """Bring the copies in ``folder`` (``work/`` in the checkout) up to date with ``lessons``; a line for each file laid.

    Raises:   CourseError: no lessons in the checkout; a folder that cannot be written.
    """
    folder = CHECKOUT / "work" if folder is None else folder
    names = [path.relative_to(lessons) for pattern in ("[0-9]*.ipynb", "zh/[0-9]*.ipynb") for path in lessons.glob(pattern)]
    if not names:
        raise CourseError(f"no lessons in {lessons}: run this in a clone of the course, installed with `pip install -e .`")
    said = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        laid = _read_record(folder / RECORD)
        for name in sorted(names):
            said += _lay(lessons / name, folder, name, laid)
    except OSError as error:
        raise CourseError(f"{error.filename or folder}: {error.strerror}; mend that, or name another folder") from error
    return said


def digest(path: Path) -> str | None:
    """What a notebook's cells say, as a SHA-256: kinds, texts and pasted files, no outputs; None if it is not a notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [[cell["cell_type"], "".join(cell["source"]), cell.get("attachments") or {}] for cell in cells]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def _lay(lesson: Path, folder: Path, name: Path, laid: dict[str, str]) -> list[str]:
    """Lay a lesson at the first place that is free, untouched or already holds it; note it in ``laid`` and the record."""
    new = digest(lesson)
    if new is None:
        raise CourseError(f"{lesson}: not a notebook; restore it with `git checkout {lesson}`")
    for place in _places(folder / name):
        key = place.relative_to(folder).as_posix()
        there = digest(place) if place.exists() else None
        if laid.get(key) == new and (place.exists() or place != folder / name):
            return []  # what is there came from this version, whatever became of it; a new version may have been thrown away
        if there == new:
            break  # the record was lost, or the learner copied it
        if not place.exists() or (there is not None and there == laid.get(key)):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, lesson.read_bytes())
            break
    old = laid.get(key)
    laid[key] = new
    write_atomically(folder / RECORD, json.dumps(laid, indent=1, sort_keys=True).encode())
    if place != folder / name:
        return [f"{folder / name}: you edited it, so it stays as it is; the new version lies beside it: {place.name}"]
    return [] if there == new else [f"{place}: {'new' if old is None or there is None else 'brought up to date'}"]


def _places(first: Path) -> Iterator[Path]:
    """NAME.ipynb, NAME.new.ipynb, NAME.new-2.ipynb, ..."""
    yield first
    for number in count(1):
        yield first.with_name(f"{first.stem}.new{f'-{number}' if number > 1 else ''}.ipynb")


def _read_record(path: Path) -> dict[str, str]:
    """What was laid where; empty if there is no record, or none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in record.items()} if isinstance(record, dict) else {}
