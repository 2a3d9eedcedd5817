"""What happens to real processes: killed at any moment, out of disk, shut out, two at once, given cut or hostile files.

A killed run goes on and ends with the same bits as an undisturbed one. What cannot go on ends in one line and exit status 2.
"""

import random
import signal
import sys
import time
from pathlib import Path

import pytest
from course_process import TEXT, TINY, course, start
from doomed import POINTS
from test_training import state, steps_and_losses, wait_for

from course_lib import checkpoint, run_folder

DOOMED = (sys.executable, str(Path(__file__).with_name("doomed.py")))
KEPT = ["best.safetensors", "history.jsonl", "last.safetensors"]


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a text in it."""
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


# kill -9


def kill_again_and_again(place: Path, asked: list, kills: list) -> None:
    """Kill a run, resume it and kill it again: each kill is a time in seconds, or a point and how often it is passed before."""
    folder, last = place / "killed", place / "killed" / "last.safetensors"
    for number, kill in enumerate(kills):
        before = last.stat().st_ino if last.exists() else None
        arguments = [*asked, "--out", "killed"] if before is None else ["train", "--resume", "--out", "killed"]
        planted = ("never", "0") if isinstance(kill, float) else (kill[0], str(kill[1]))
        process = start(*arguments, folder=place, program=(*DOOMED, *planted))
        if isinstance(kill, float):
            wait_for(lambda before=before: last.exists() and last.stat().st_ino != before, process)
            time.sleep(kill)
            process.kill()
        output = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, (number, kill, output)
        steps = [line["step"] for line in run_folder.lines(folder)]
        assert steps == sorted(set(steps)), (number, kill)
        if last.exists():
            checkpoint.load(last)


def is_as_if_undisturbed(place: Path, asked: list) -> None:
    """Finish the killed run, carry out another without any fault, and compare all they leave but the times."""
    killed, whole = place / "killed", place / "whole"
    step, wanted = checkpoint.load(killed / "last.safetensors").record["progress"]["step"], asked[asked.index("--steps") + 1]
    assert 5 < step < wanted, "killed in the midst of the training"
    for arguments in (["train", "--resume", "--out", "killed"], [*asked, "--out", "whole"]):
        result = course(*arguments, folder=place)
        assert (result.returncode, result.stderr) == (0, "")
    for name in ("last", "best"):
        assert state(killed, name) == state(whole, name)
    assert steps_and_losses(killed) == steps_and_losses(whole)
    assert sorted(path.name for path in killed.iterdir()) == KEPT


def test_kill_9_at_20_moments(place):
    """Ten at random times, ten at random points of saving; each point at least twice."""
    draw = random.Random(5)
    kills = [draw.uniform(0, 0.1) for _ in range(10)]
    kills += [(point, draw.randint(1, 9)) for point in [*POINTS, *POINTS, *draw.sample(list(POINTS), 2)]]
    draw.shuffle(kills)
    asked = ["train", "--data", "mine.txt", "--cell", "gru", "--dropout", "0.2", "--steps", 3000, *TINY]
    kill_again_and_again(place, asked, kills)
    is_as_if_undisturbed(place, asked)


def test_kill_9_with_the_other_engine(place):
    """The state of torch's engine is saved and picked up as well."""
    kills = [("half of a file is written", 4), 0.05, ("half a line of the history is written", 3)]
    asked = ["train", "--data", "mine.txt", "--engine", "torch", "--device", "cpu", "--steps", 400, *TINY]
    kill_again_and_again(place, asked, kills)
    is_as_if_undisturbed(place, asked)
