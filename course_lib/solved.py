"""What a learner has solved: a small file in the user's own data folder, so that updating the course does not touch it."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import date
from pathlib import Path


def progress_file() -> Path | None:
    """COURSE_PROGRESS, or ``progress.json`` in the system's folder for a user's data; None, keep nothing, if it is empty."""
    named = os.environ.get("COURSE_PROGRESS")
    if named is not None:
        return Path(named).expanduser() if named else None
    import platformdirs

    return platformdirs.user_data_path("course_lib") / "progress.json"


def read_solved() -> dict[str, str]:
    """The names of the solved exercises, each with the day it was first solved; a damaged file counts as an empty one."""
    path = progress_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return {str(name): str(day) for name, day in content.items()} if isinstance(content, dict) else {}


def record_solved(name: str) -> str:
    """Add an exercise. A damaged file is kept beside the new one; a folder that cannot be written is no failure.

    Returns:  A line that says what went wrong; empty if nothing did.
    """
    path = progress_file()
    if path is None or name in (solved := read_solved()):
        return ""
    text = json.dumps(solved | {name: date.today().isoformat()}, indent=1)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not solved and path.read_text(encoding="utf-8", errors="replace").strip() != "{}":
            path.replace(path.with_suffix(".damaged"))
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        return f"(not noted in {path}: {error.strerror})"
    return ""
