"""The check accepts right answers however they are written, and says plainly what is wrong with the others."""

from __future__ import annotations

import time

import numpy as np
import pytest

from course_lib import caches, cells, decoding, exercises, layers, sequence
from course_lib.cells import LSTMState
from course_lib.exercises import EXERCISES, check, progress
from course_lib.jacobians import jacobian_products
from course_lib.rnn_book import rnn_truncated_backward
from course_lib.trees import leaves
from course_lib.weights import orthogonal


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
    assert lines[7] == "  hint: dprev.c: all of it is 2 times what is expected: a factor too many or too few, a mean for a sum?"


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
    assert lines[-1] == "  hint: dparams.W_ih: the gates stand in the order f, i, g, o; expected i, f, g, o"


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
    assert "it must return (state, cache)" in check("lstm_step_forward", without_cache).lines[0]


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


def three_values(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
    (h, c), cache = cells.lstm_step_forward(x, prev, params)
    return h, c, cache


def clipped(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
    return cells.rnn_step_backward(np.clip(dstate, -5, 5), cache)


def clipped_in_time(dhs: np.ndarray, dfinal: LSTMState, cache: caches.LSTMSequenceCache) -> tuple:
    return sequence.lstm_backward(np.clip(dhs, -5, 5), dfinal, cache)


def squeezed(x: np.ndarray, prev: np.ndarray, params: cells.RNNParams) -> tuple:
    return np.tanh(np.squeeze(x) @ params.W_ih.T + prev @ params.W_hh.T + params.b), None


def saturated(x: np.ndarray, prev: LSTMState, params: cells.LSTMParams) -> tuple:
    (_, c), cache = cells.lstm_step_forward(x, prev, params)
    return LSTMState(cache.o * np.tanh(np.clip(c, -3, 3)), c), None


def not_for_one_step(dhs: np.ndarray, dfinal: np.ndarray, cache: caches.RNNSequenceCache) -> tuple:
    dx, dinitial, dparams = sequence.rnn_backward(dhs, dfinal, cache)
    return dx, dinitial, dparams._replace(W_hh=dparams.W_hh * (len(dhs) > 1))


def only_short_chunks(dhs: np.ndarray, cache: caches.RNNSequenceCache, k: int) -> tuple:
    return rnn_truncated_backward(dhs, cache, k) if k <= len(dhs) else (dhs[:, :, :1] * 0, cache.params)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("lstm_step_forward", three_values),
        ("rnn_forward", lambda x, initial, params: (sequence.rnn_forward(x, initial, params)[:2], None)),
        ("rnn_step_backward", clipped),
        ("lstm_backward", clipped_in_time),
        ("rnn_step_forward", squeezed),
        ("lstm_step_forward", saturated),
        ("rnn_backward", not_for_one_step),
        ("rnn_truncated_backward", only_short_chunks),
        ("temperature", lambda t: decoding.temperature(max(t, 0.5))),
        ("top_k", lambda k: decoding.top_k(min(k, 6))),
        ("top_p", lambda p: decoding.top_p(min(p, 0.96))),
        ("top_k", lambda k: decoding.top_k(max(k, 2))),
        ("lstm_backward", lambda *a: (1 / (len(a[0]) - 1), sequence.lstm_backward(*a))[1]),
        ("jacobian_products", lambda J: jacobian_products(J) * np.isclose(J.shape[1], 2) + 0 * np.eye(J.shape[1])),
        ("orthogonal", lambda A: orthogonal(A) if len(A) == 4 else A),
    ],
)
def test_what_goes_wrong_only_at_the_edges_is_wrong(name: str, wrong: object) -> None:
    assert not check(name, wrong).passed


def test_a_hint_must_fit_more_than_one_wrong_result() -> None:
    def from_the_end(dhs: np.ndarray, cache: caches.RNNSequenceCache, k: int) -> tuple:
        return rnn_truncated_backward(dhs, cache, max(1, k - 1))

    assert "hint" not in check("rnn_truncated_backward", from_the_end).lines[-1]


def test_a_hint_for_the_first_quantity_when_the_others_are_open() -> None:
    def begun(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
        return dstate @ cache.params.W_ih, None, None

    assert check("rnn_step_backward", begun).lines[-1] == "  hint: the slope of tanh, 1 - h², is missing"


def test_the_form_of_a_filter_is_explained() -> None:
    lines = check("temperature", lambda t, log_probs: layers.log_softmax(log_probs / t)).lines
    assert lines[-1] == "  it is called as function(t)(log_probs)"
    assert check("temperature", lambda t: None).lines == ["✗ temperature: it must return a function of log_probs, got NoneType"]
    assert check("batches", lambda *_: None).lines[0].startswith("✗ batches: it must return or yield pairs")


def test_batches_without_end_are_wrong_soon() -> None:
    def endless(tokens: np.ndarray, batch_size: int, steps: int) -> object:
        while True:
            yield tokens[:0], tokens[:0]

    assert not check("batches", endless).passed


def test_trials_are_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"^trials: expected at least 1, got 0$"):
        check("perplexity", np.exp, trials=0)


def almost(factor: float) -> object:
    def wrong(dstate: np.ndarray, cache: cells.RNNCache) -> tuple:
        dx, dprev, dparams = cells.rnn_step_backward(dstate, cache)
        return dx, dprev * factor, dparams

    return wrong


def test_what_is_nearly_right_gets_no_hint_of_a_slip() -> None:
    assert check("rnn_step_backward", almost(1 + 3e-7)).passed
    assert "right to about four digits" in check("rnn_step_backward", almost(1 + 3e-5)).lines[-1]


def test_single_precision_on_the_way_and_difference_quotients_are_right() -> None:
    def single_inside(jacobians: np.ndarray) -> np.ndarray:
        return jacobian_products(jacobians.astype(np.float32)).astype(float)

    def quotients(cache: cells.RNNCache, eps: float = 1e-5) -> np.ndarray:
        x, prev, params, _ = cache
        columns = [
            (cells.rnn_step_forward(x, prev + e, params)[0] - cells.rnn_step_forward(x, prev - e, params)[0]) / (2 * eps)
            for e in eps * np.eye(prev.shape[1])
        ]
        return np.stack(columns, axis=2)

    def norm_as_in_torch(grads: tuple, max_norm: float) -> None:
        norm = np.sqrt(sum((g**2).sum() for g in leaves(grads)))
        for g in leaves(grads):
            g *= min(1, max_norm / (norm + 1e-6))

    assert check("jacobian_products", single_inside).passed
    assert check("rnn_step_jacobian", quotients).passed
    assert check("clip_global_norm_", norm_as_in_torch).passed


class Sleepy:
    def __array__(self, dtype: object = None, copy: object = None) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("result", [10**400, Sleepy(), [Sleepy()], "x", {}, object()])
def test_no_result_makes_the_check_fail(result: object) -> None:
    assert not check("perplexity", lambda nats: result).passed
    assert not check("rnn_step_backward", lambda dstate, cache: (result, result, (result, None, result))).passed
