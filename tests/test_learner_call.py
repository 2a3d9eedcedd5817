"""A learner's function may do anything: the call ends in time, hands its result or error over, and shows its own lines."""

import asyncio
import signal
import threading
import time

import numpy as np
import pytest

from course_lib.learner_call import OverTimeError, call, described, is_unwritten, own_frames


def no_thread_is_left():
    """Whether the learner's threads are gone, at the latest in a moment."""
    for _ in range(100):
        if "learner's function" not in {thread.name for thread in threading.enumerate()}:
            return True
        time.sleep(0.01)
    return False


def raised_by(function):
    """The exception that a call of it comes to."""
    error = call(function, 5).error
    assert error is not None
    return error


def test_results_and_errors_come_through():
    assert call(lambda: 7, 5) == (7, None)
    assert isinstance(raised_by(lambda: 1 / 0), ZeroDivisionError)
    assert isinstance(raised_by(lambda: exit()), SystemExit)


def test_an_endless_loop_is_ended():
    def endless():
        while True:
            pass

    start = time.monotonic()
    with pytest.raises(OverTimeError) as caught:
        call(endless, 0.2)
    assert caught.value.stopped
    assert time.monotonic() - start < 5
    assert no_thread_is_left()


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_an_endless_loop_that_catches_exceptions_is_ended(kind):
    patience = iter(range(3))

    def stubborn():
        while True:
            try:
                time.sleep(0.01)
            except kind:
                next(patience)

    with pytest.raises(OverTimeError) as caught:
        call(stubborn, 0.1)
    assert caught.value.stopped


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to a thread; this system cannot")
def test_an_interrupt_of_the_notebook_goes_through_and_ends_the_function():
    started = threading.Event()

    def endless():
        started.set()
        while True:
            pass

    def interrupt():
        started.wait(5)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        call(endless, 20)
    assert no_thread_is_left()


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
        assert call(lambda: np.geterr()["divide"], 5).value == "ignore"


def test_only_the_learners_frames_are_shown():
    def helper(x):
        return np.linalg.inv(x)  # raises inside NumPy

    frames = own_frames(raised_by(lambda: helper(np.zeros((2, 2)))))
    assert "in helper: return np.linalg.inv(x)" in frames[-1]
    assert not any("_umath" in frame or "linalg.py" in frame or "run()" in frame for frame in frames)


def test_deep_recursion_is_short():
    def deep(n):
        return deep(n + 1)

    assert [frame.partition(": ")[2] for frame in own_frames(raised_by(lambda: deep(0)))] == ["return deep(n + 1)"] * 3


def test_frames_of_a_notebook_are_the_learners(tmp_path):
    folder = tmp_path / "ipykernel_7"
    folder.mkdir()
    cell = folder / "123.py"
    cell.write_text("def f():\n    return 1 / 0\n", encoding="utf-8")
    namespace = {}
    exec(compile(cell.read_text(encoding="utf-8"), str(cell), "exec"), namespace)
    assert own_frames(raised_by(namespace["f"]))[-1] == "line 2, in f: return 1 / 0"


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("why"), "ValueError: why"), (KeyboardInterrupt(), "KeyboardInterrupt"), (Unspeakable(), "Unspeakable")],
)
def test_exceptions_are_described(error, text):
    assert described(error) == text


def test_a_long_message_is_cut():
    assert len(described(ValueError("x" * 10**6))) < 400


def stub():
    raise NotImplementedError


def stub_with_a_word():
    raise NotImplementedError("later")


class NoInput(NotImplementedError):
    """What a notebook without a keyboard raises for input()."""


def no_input():
    raise NoInput


def test_what_counts_as_unwritten():
    assert is_unwritten(raised_by(stub))
    assert is_unwritten(raised_by(stub_with_a_word))
    typed_in = {}
    exec("def stub():\n    raise NotImplementedError", typed_in)
    assert is_unwritten(raised_by(typed_in["stub"]))
    assert not is_unwritten(raised_by(no_input))
    assert not is_unwritten(raised_by(lambda: 1 / 0))
    assert not is_unwritten(raised_by(lambda: asyncio.AbstractEventLoop().run_forever()))  # not the learner's own
