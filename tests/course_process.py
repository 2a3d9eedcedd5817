"""Run the `course` command as a user does: another process, its output, its exit status."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

COURSE = str(Path(sys.executable).with_name("course"))
DATA = Path(os.environ.get("COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
if "COURSE_DATA" not in ENVIRONMENT and DATA.is_dir():
    ENVIRONMENT["COURSE_DATA"] = str(DATA)

WORDS = "the quick brown fox jumps over a lazy dog and then it ran away from home".split()
_random = random.Random(1)
TEXT = "".join(_random.choice(WORDS) + _random.choice([" ", " ", ".\n", ", "]) for _ in range(500))  # 2,500 characters
TINY = ("--hidden", "8", "--embedding", "4", "--batch-size", "4", "--window", "16")


def course(*arguments: object, folder: Path, **options) -> subprocess.CompletedProcess:
    """Run `course` in a folder and wait for it."""
    command = [COURSE, *map(str, arguments)]
    defaults = {"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True, "encoding": "utf-8", "timeout": 60}
    return subprocess.run(command, **defaults | options)


def start(*arguments: object, folder: Path, program: tuple = (COURSE,), **options) -> subprocess.Popen:
    """Start `course` in a folder and do not wait for it."""
    defaults = {"cwd": folder, "env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*program, *map(str, arguments)], **defaults | options)


def the_error(result: subprocess.CompletedProcess) -> str:
    """The one line of a refused command: exit status 2, ``error: what, and what to do`` and nothing else."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: "), lines
    assert len(lines[0]) > 20
    return lines[0]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder: name -> content, None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
