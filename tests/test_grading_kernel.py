"""The check inside the kernel is the library's own, and sees which functions are the library's."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import course_lib
from course_lib import cells, exercises, grading_kernel, variants
from course_lib.cells import LSTMState
from course_lib.grading_kernel import judge, library_calls
from course_lib.layers import sigmoid

NAME = "lstm_step_forward"


def right(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
    a_i, a_f, a_g, a_o = np.split(x @ params.W_ih.T + prev.h @ params.W_hh.T + params.b, 4, axis=1)
    c = sigmoid(a_f) * prev.c + sigmoid(a_i) * np.tanh(a_g)
    return LSTMState(sigmoid(a_o) * np.tanh(c), c), None


def slip(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
    (h, _), cache = right(x, prev, params)
    return LSTMState(h, h), cache


def unwritten(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
    raise NotImplementedError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grading_kernel, "_judged", {})
    monkeypatch.setattr(grading_kernel, "_before", None)
    grading_kernel.start("")
    return


def judged(function: object, name: str = NAME, **more: object) -> dict[str, Any]:
    return json.loads(judge(name, "the token", {name: function} | more))


@pytest.mark.parametrize(
    ("function", "status"),
    [
        (right, "solved"),
        (slip, "wrong"),
        (unwritten, "not written"),
        (lambda *a: 1 / 0, "error"),
        (lambda *a: None, "wrong"),
        (3, "wrong"),
        (None, "wrong"),
        (cells.lstm_step_forward, "not written"),
        (functools.partial(cells.lstm_step_forward), "not written"),
    ],
)
def test_status(function: object, status: str, capsys: pytest.CaptureFixture) -> None:
    found = judged(function)
    assert found["status"] == status and found["token"] == "the token" and found["seconds"] >= 0
    assert capsys.readouterr() == ("", "")


def test_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(exercises, "SECONDS", 0.2)

    def endless(*_: object) -> None:
        while True:
            print("again")

    assert judged(endless)["status"] == "time" and capsys.readouterr().out == ""


def test_a_name_that_is_not_there() -> None:
    found = json.loads(judge(NAME, "x", {}))
    assert found["status"] == "not written" and found["line"] == f"no {NAME} in the notebook"


def test_only_what_is_new_is_judged() -> None:
    assert [judged(f)["status"] for f in (slip, slip, right, unwritten)] == ["wrong", "same", "solved", "same"]
    grading_kernel._judged.clear()
    helper: dict[str, Callable] = {}
    later = lambda *a: helper["f"](*a)  # noqa: E731
    assert judged(later)["status"] == "error"
    helper["f"] = right  # a helper that stands below what needs it
    assert judged(later)["status"] == "solved"


def test_the_hint_is_that_of_the_check() -> None:
    def sigmoid_candidate(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
        a_i, a_f, a_g, a_o = np.split(x @ params.W_ih.T + prev.h @ params.W_hh.T + params.b, 4, axis=1)
        c = sigmoid(a_f) * prev.c + sigmoid(a_i) * sigmoid(a_g)
        return LSTMState(sigmoid(a_o) * np.tanh(c), c), None

    found = judged(sigmoid_candidate)
    assert found["hint"] == "the candidate goes through tanh, not σ" and found["line"].startswith(f"✗ {NAME}: ")


def test_what_the_notebook_changed_is_put_back_for_the_check_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def passing(*_: object) -> exercises.Report:
        return exercises.Report(True, ["✓ fine"])

    monkeypatch.setattr(exercises, "_report", passing)
    monkeypatch.setattr(np, "array_equal", passing)
    monkeypatch.setitem(exercises.EXERCISES, NAME, exercises.EXERCISES["perplexity"])
    found = judged(slip)
    assert found["status"] == "wrong"
    (note,) = found["notes"]
    assert all(name in note for name in ("course_lib.exercises._report", "numpy.array_equal", "EXERCISES"))
    assert exercises._report is passing and np.array_equal is passing
    assert exercises.EXERCISES[NAME] is exercises.EXERCISES["perplexity"]


def test_rewritten_code_and_deleted_functions_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    code = exercises._report.__code__
    monkeypatch.delattr(exercises, "_tried")
    exercises._report.__code__ = (lambda name, function, trials: None).__code__
    try:
        found = judged(slip)
        assert found["status"] == "wrong" and "course_lib.exercises._report" in found["notes"][0]
        assert exercises._report.__code__ is not code and not hasattr(exercises, "_tried")
    finally:
        exercises._report.__code__ = code


def test_nothing_changed_is_no_note() -> None:
    assert judged(right, check=exercises.check)["notes"] == []
    assert judged(slip, NAME, check=print)["status"] == "same"
    grading_kernel._judged.clear()
    assert judged(slip, NAME, check=print)["notes"] == ["the notebook has a `check` of its own"]


def test_no_progress_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress"))
    assert judged(right)["status"] == "solved"
    assert os.environ["COURSE_PROGRESS"] == str(tmp_path / "progress") and not (tmp_path / "progress").exists()


def inner(*a: Any) -> Any:
    return cells.lstm_step_forward(*a)


def _borrowing() -> dict[str, Callable]:
    other = cells.lstm_step_forward

    def by_import(*a: Any) -> Any:
        from course_lib.cells import lstm_step_forward as f

        return f(*a)

    def nested(*a: Any) -> Any:
        def deep() -> Any:
            return course_lib.cells.lstm_step_forward(*a)

        return [deep() for _ in "1"].pop()

    def unused_within(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> Any:
        return right(x, prev, params) if len(x) < 10**6 else (lambda: cells.lstm_step_forward(x, prev, params))()

    def unused_closure(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> Any:
        return right(x, prev, params) if len(x) < 10**6 else other(x, prev, params)

    def unused(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> Any:
        return right(x, prev, params) if len(x) < 10**6 else cells.lstm_step_forward(x, prev, params)

    return {
        "attribute": lambda *a: cells.lstm_step_forward(*a),
        "helper": lambda *a: inner(*a),
        "closure": lambda *a: other(*a),
        "import": by_import,
        "nested": nested,
        "unused": unused,
        "unused within": unused_within,
        "unused closure": unused_closure,
        "default": lambda x, prev, params, f=other: f(x, prev, params),
        "getattr": lambda *a: getattr(cells, "lstm_step" + "_forward")(*a),
        "book": lambda *a: exercises.EXERCISES[NAME].reference(*a),
    }


@pytest.mark.parametrize("way", _borrowing())
def test_the_librarys_own_function_is_named(way: str) -> None:
    found = judged(_borrowing()[way])
    assert found["status"] == "solved" and found["notes"] == ["calls course_lib.cells.lstm_step_forward"]


def test_other_functions_of_the_library_may_be_used() -> None:
    assert library_calls(NAME, right) == []

    def loop(x: np.ndarray, initial: LSTMState, params: cells.LSTMParams, lengths: Any = None) -> Any:
        return [cells.lstm_step_forward(step, initial, params) for step in x]

    assert library_calls("lstm_forward", loop) == []
    assert library_calls("peephole_step_forward", lambda *a: variants.peephole_step_forward(*a)) == [
        "course_lib.variants.peephole_step_forward"
    ]
