"""Learners' notebooks for the tests of grading: lesson 04, cut down to its exercises, with whatever a learner has written."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSON = "04_lstm_forward"
NAMES = ("coupled_step_forward", "lstm_step_forward", "peephole_step_forward", "gru_step_forward", "lstm_forward")
IMPORTS = """
import numpy as np
from course_lib import cells
from course_lib.cells import LSTMState
from course_lib.exercises import check
from course_lib.layers import sigmoid
"""


def tagged(tag: str, edition: str = "instructor") -> dict[str, dict]:
    """The cells of lesson 04 with a tag, by the exercise that they name."""
    cells = json.loads((NOTEBOOKS / edition / f"{LESSON}.ipynb").read_text(encoding="utf-8"))["cells"]
    mine = [cell for cell in cells if tag in cell["metadata"].get("tags", [])]
    assert len(mine) == len(NAMES)
    return dict(zip(NAMES, mine, strict=True))


STUBS, SOLUTIONS, CHECKS = tagged("exercise"), tagged("solution"), tagged("check")


def source(cell: dict) -> str:
    return "".join(cell["source"])


def solution(name: str) -> str:
    return source(SOLUTIONS[name])


def code(text: str, **more: object) -> dict:
    return {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": text} | more


def notebook(written: dict[str, str] | None = None, before: dict | None = None, checks: dict | None = None) -> dict:
    """A learner's notebook. written: what stands in an exercise's cell instead of the stub. before: a cell ahead of it.

    checks: what stands in a check cell instead of the check; None, the cell is deleted.
    """
    cells = [code(IMPORTS)]
    for name in NAMES:
        if name in (before or {}):
            cells.append(code(before[name]))
        cells.append(code((written or {}).get(name, source(STUBS[name])), id=STUBS[name]["id"]))
        text = (checks or {}).get(name, source(CHECKS[name]))
        if text is not None:
            cells.append(code(text, id=CHECKS[name]["id"], metadata=CHECKS[name]["metadata"]))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def solved(**but: str) -> dict[str, str]:
    """Every exercise solved, but for those that are given."""
    return {name: solution(name) for name in NAMES} | but


def save(folder: Path, learner: str, content: dict | str | bytes, name: str = f"{LESSON}.ipynb") -> Path:
    path = folder / learner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
