"""What a learner has solved: lines in a small file in the user's own data folder, which no update of the course touches."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path


def progress_file() -> Path | None:
    """COURSE_PROGRESS, or ``progress.jsonl`` in the system's folder for a user's data; None, keep nothing, if it is empty."""
    named = os.environ.get("COURSE_PROGRESS")
    if named is not None:
        return Path(named) if named.strip() else None
    import platformdirs

    return platformdirs.user_data_path("course_lib") / "progress.jsonl"


def read_solved() -> dict[str, str]:
    """The names of the solved exercises, each with the day it was first solved; lines that cannot be read are passed over."""
    path, solved = progress_file(), {}
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if path else []
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            solved.setdefault(str(entry["exercise"]), str(entry["day"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return solved


def record_solved(name: str) -> str:
    """Add a line for an exercise that has none. Lines are only ever added, so two notebooks at once lose nothing.

    Returns:  A line that says what went wrong; empty if nothing did.
    """
    path = progress_file()
    if path is None or name in read_solved():
        return ""
    line = json.dumps({"exercise": name, "day": date.today().isoformat()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # a line that was cut off stays a line of its own
            file.write(f"{'' if _ends_in_newline(path) else chr(10)}{line}\n".encode())
    except OSError as error:
        return f"(not noted in {path}: {error.strerror})"
    return ""


def _ends_in_newline(path: Path) -> bool:
    return not path.is_file() or not (content := path.read_bytes()) or content.endswith(b"\n")
