"""The check accepts right answers however they are written, and says plainly what is wrong with the others."""

from __future__ import annotations

import time

import numpy as np
import pytest

from course_lib import cells, exercises, layers
from course_lib.cells import LSTMState
from course_lib.exercises import EXERCISES, check, progress


def unwritten(*_: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize("name", EXERCISES)
def test_unwritten_is_no_error(name: str, capsys: pytest.CaptureFixture) -> None:
    report = check(name, unwritten)
    assert not report.passed and report.lines == [f"○ {name}: not written yet"]
    assert capsys.readouterr().out == f"○ {name}: not written yet\n"


@pytest.mark.parametrize("name", EXERCISES)
def test_none_is_told(name: str) -> None:
    def forgot_return(*arguments: object) -> None:
        """Does nothing, returns nothing."""

    report = check(name, forgot_return)
    assert not report.passed and report.lines[0].startswith("✗")


def test_each_quantity_has_its_line() -> None:
    def forgets_a_slope(dstate: LSTMState, cache: cells.LSTMCache) -> tuple:
        dx, dprev, dparams = cells.lstm_step_backward(dstate, cache)
        return dx, LSTMState(dprev.h, 2 * dprev.c), dparams._replace(b=None)

    lines = check("lstm_step_backward", forgets_a_slope).lines
    assert lines[0] == "✗ lstm_step_backward: dprev.c is wrong"
    assert lines[1:3] == ["  ✓ dx", "  ✓ dprev.h"]
    assert lines[3].startswith("  ✗ dprev.c: worst entry at [")
    assert lines[4:7] == ["  ✓ dparams.W_ih", "  ✓ dparams.W_hh", "  ○ dparams.b: not written yet"]
    assert lines[7] == "  hint: all of it is 2 times what is expected: a factor too many or too few, a mean for a sum?"


def test_what_is_still_open_is_no_mistake() -> None:
    lines = check("rnn_step_backward", lambda dstate, cache: (cells.rnn_step_backward(dstate, cache)[0], None, None)).lines
    assert lines[0] == "○ rnn_step_backward: dprev is not written yet" and lines[1:3] == [
        "  ✓ dx",
        "  ○ dprev: not written yet",
    ]


def test_expected_and_got_are_the_worst_entry() -> None:
    def one_entry_off(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
        dx, dprev, dparams = cells.rnn_step_backward(dstate, cache)
        dx[0, 0] += 0.5
        dx[1, 1] += 3
        return dx, dprev, dparams

    line = check("rnn_step_backward", one_entry_off).lines[1]
    assert line.startswith("  ✗ dx: worst entry at [1, 1]: expected ")
    expected, got = line.partition("expected ")[2].split(", got ")
    assert float(got) - float(expected) == pytest.approx(3, abs=1e-4)


def test_gates_in_another_order_are_recognised() -> None:
    def in_the_order_of_keras(dstate: LSTMState, cache: cells.LSTMCache) -> tuple:
        dx, dprev, dparams = cells.lstm_step_backward(dstate, cache)
        i, f, g, o = np.split(dparams.W_ih, 4)
        return dx, dprev, dparams._replace(W_ih=np.concatenate([f, i, g, o]))

    lines = check("lstm_step_backward", in_the_order_of_keras).lines
    assert lines[0] == "✗ lstm_step_backward: dparams.W_ih is wrong"
    assert lines[-1] == "  hint: the gates stand in the order f, i, g, o; expected i, f, g, o"


def test_wrong_shape_and_type_are_named() -> None:
    assert check("log_softmax", lambda a: layers.log_softmax(a)[0]).lines[1].startswith("  ✗ result: expected shape")
    assert check("perplexity", lambda nats: "3").lines[1] == "  ✗ result: expected real numbers, got text"
    assert (
        check("pooled", lambda parts: (1.0, 2.0))
        .lines[0]
        .startswith("✗ pooled: it returned the wrong count: expected 4 values")
    )
    assert "got nan" in check("perplexity", lambda nats: float("nan")).lines[1]
    report = check("rnn_backward", lambda dhs, dfinal, cache: (dhs, dfinal))
    assert report.lines == ["✗ rnn_backward: it returned the wrong count: expected 3 values (dx, dinitial, dparams), got 2"]


def test_a_forward_may_keep_any_cache_but_must_return_one() -> None:
    def without_cache(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> LSTMState:
        return cells.lstm_step_forward(x, prev, params)[0]

    assert check("lstm_step_forward", lambda *arguments: (without_cache(*arguments), None)).passed
    assert "return (state, cache) from a step" in check("lstm_step_forward", without_cache).lines[0]


def test_the_learners_own_error_is_shown_with_the_line() -> None:
    def broken(nats: float) -> float:
        return nats / 0

    report = check("perplexity", broken)
    assert report.lines[0] == "✗ perplexity: your function raised ZeroDivisionError: float division by zero"
    assert "in broken: return nats / 0" in report.lines[1] and len(report.lines) == 2


def test_an_error_below_the_learners_line_shows_the_line() -> None:
    def wrong_product(dstate: np.ndarray, cache: cells.RNNCache) -> np.ndarray:
        return np.linalg.inv(cache.params.W_ih)

    lines = check("rnn_step_backward", wrong_product).lines
    assert "LinAlgError" in lines[0] and lines[1].endswith("in wrong_product: return np.linalg.inv(cache.params.W_ih)")
    assert len(lines) == 2


def test_the_wrong_number_of_arguments_is_explained() -> None:
    lines = check("rnn_backward", lambda dhs, cache: None).lines
    assert "takes 2 positional arguments but 3 were given" in lines[0]
    assert lines[1] == "  it is called as function(dhs, dfinal, cache)"


def test_changed_arguments_are_told() -> None:
    def spoils(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
        dstate *= 1 - cache.h**2
        params = cache.params
        return (
            dstate @ params.W_ih,
            dstate @ params.W_hh,
            cells.RNNParams(dstate.T @ cache.x, dstate.T @ cache.prev, dstate.sum(0)),
        )

    def wrong_too(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
        cache.x[:] = 0
        return spoils(dstate.copy(), cache)

    report = check("rnn_step_backward", spoils)
    assert not report.passed and len(report.lines) == 1
    assert report.lines[0].startswith("✗ rnn_step_backward: it changes its argument dstate: `a += b` writes into the caller's")
    lines = check("rnn_step_backward", wrong_too).lines
    assert lines[0] == "✗ rnn_step_backward: dparams.W_ih is wrong" and lines[1].startswith("  it changes its argument cache: ")
    assert check("log_softmax", lambda a: a.__isub__(a) * 0).lines[1].startswith("  it changes its argument logits")


def test_the_learner_cannot_spoil_the_expected_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(dstate: LSTMState, cache: cells.LSTMCache) -> tuple:
        result = cells.lstm_step_backward(dstate, cache)
        for array in (*dstate, *cache.params):
            array[:] = 0
        return result

    assert [line for line in check("lstm_step_backward", spoils).lines if "wrong" in line or "✗ d" in line] == []


def test_an_endless_loop_costs_seconds_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercises, "SECONDS", 0.3)

    def endless(nats: float) -> float:
        while True:
            nats += 1

    start = time.monotonic()
    (line,) = check("perplexity", endless).lines
    assert (
        line.startswith("✗ perplexity: not finished after 0.")
        and "a loop without end" in line
        and line.endswith("it was stopped")
    )
    assert time.monotonic() - start < 5


def test_the_limit_is_for_all_trials_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exercises.SECONDS <= 10
    monkeypatch.setattr(exercises, "SECONDS", 0.3)

    def slow(nats: float) -> float:
        time.sleep(0.1)
        return float(np.exp(nats))

    assert "not finished after" in check("perplexity", slow).lines[0]


class NoInput(NotImplementedError):
    """What a notebook without a keyboard raises for input()."""


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), RecursionError("too deep"), NoInput()])
def test_nothing_that_is_raised_gets_out(raised: BaseException) -> None:
    def raises(nats: float) -> float:
        raise raised

    assert check("perplexity", raises).lines[0].startswith(f"✗ perplexity: your function raised {type(raised).__name__}")


def test_infinity_is_not_close_to_everything() -> None:
    assert not check("top_k", lambda k: lambda log_probs: log_probs).passed


def test_unknown_exercise_and_no_function() -> None:
    with pytest.raises(KeyError, match=r"no exercise 'nothing'; there are: perplexity, "):
        check("nothing", unwritten)
    with pytest.raises(TypeError, match=r"expected a function \(no parentheses behind it\), got float"):
        check("perplexity", 3.0)


def test_progress_shows_what_is_solved(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    check("rnn_step_backward", cells.rnn_step_backward)
    check("rnn_step_forward", unwritten)
    check("gru_backward", EXERCISES["gru_backward"].reference)  # of no lesson
    capsys.readouterr()
    report = progress()
    assert not report.passed and capsys.readouterr().out == "\n".join(report.lines) + "\n"
    place = report.lines.index("lesson 02: 1 of 4")
    assert report.lines[place + 1 : place + 3] == ["  ○ 2.1 rnn_step_forward", "  ✓ 2.2 rnn_step_backward"]
    numbered = sum(bool(exercise.number) for exercise in EXERCISES.values())
    assert report.lines[-1] == f"1 of {numbered} solved; kept in {tmp_path / 'progress.json'}"
    for name, exercise in EXERCISES.items():
        check(name, exercise.reference)
    assert progress().passed


def test_progress_that_cannot_be_kept_is_no_failure(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    report = check("perplexity", np.exp)
    assert report.passed and report.lines[1].startswith("  (not noted in ")
