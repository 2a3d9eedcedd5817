"""A learner's function may do anything: the call ends in time, hands its result or error over, and shows its own lines."""

import threading
import time

import numpy as np
import pytest

from course_lib.learner_call import OverTimeError, call, own_frames


def test_results_and_errors_come_through():
    assert call(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        call(lambda: 1 / 0, 5)
    with pytest.raises(SystemExit):
        call(lambda: exit(), 5)


def test_an_endless_loop_is_ended():
    def endless():
        while True:
            pass

    start = time.monotonic()
    with pytest.raises(OverTimeError, match=r"^not finished after 0\.2 s$") as caught:
        call(endless, 0.2)
    assert caught.value.stopped
    assert time.monotonic() - start < 5
    assert "learner's function" not in {thread.name for thread in threading.enumerate()}


def test_an_endless_loop_that_catches_every_exception_is_ended():
    def stubborn():
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass

    with pytest.raises(OverTimeError) as caught:
        call(stubborn, 0.1)
    assert caught.value.stopped


def test_a_call_that_cannot_be_ended_is_said_to_run_on(monkeypatch):
    monkeypatch.setattr("course_lib.learner_call.GRACE", 0.1)
    gate = threading.Event()

    def deaf():
        gate.wait(20)  # one call in C: no exception reaches it

    start = time.monotonic()
    with pytest.raises(OverTimeError) as caught:
        call(deaf, 0.1)
    assert not caught.value.stopped
    assert time.monotonic() - start < 5
    gate.set()


def test_settings_of_numpy_hold_inside():
    with np.errstate(divide="ignore"):
        assert call(lambda: np.geterr()["divide"], 5) == "ignore"


def test_only_the_learners_frames_are_shown():
    def helper(x):
        return np.linalg.inv(x)  # raises inside NumPy

    with pytest.raises(np.linalg.LinAlgError) as caught:
        call(lambda: helper(np.zeros((2, 2))), 5)
    frames = own_frames(caught.value)
    assert "in helper: return np.linalg.inv(x)" in frames[-1]
    assert not any("_umath" in frame or "linalg.py" in frame or "run()" in frame for frame in frames)


def test_frames_of_a_notebook_are_the_learners(tmp_path):
    folder = tmp_path / "ipykernel_7"
    folder.mkdir()
    cell = folder / "123.py"
    cell.write_text("def f():\n    return 1 / 0\n", encoding="utf-8")
    namespace = {}
    exec(compile(cell.read_text(encoding="utf-8"), str(cell), "exec"), namespace)
    with pytest.raises(ZeroDivisionError) as caught:
        call(namespace["f"], 5)
    assert own_frames(caught.value)[-1] == "line 2, in f: return 1 / 0"
