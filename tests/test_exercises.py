"""The check accepts right answers however they are written, and says plainly what is wrong with the others."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib import layers
from course_lib.exercise_book import EXERCISES
from course_lib.exercises import check
from course_lib.trees import leaves


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


def test_other_ways_to_write_it_pass() -> None:
    def loops(logits: np.ndarray) -> np.ndarray:
        return np.array([[float(a - row.max()) - np.log(sum(np.exp(row - row.max()))) for a in row] for row in logits])

    def clip(grads: object, max_norm: float) -> None:
        flat = np.concatenate([g.ravel() for g in leaves(grads)])
        scale = min(1, max_norm / np.linalg.norm(flat))
        for g in leaves(grads):
            np.multiply(g, scale, out=g)

    assert check("log_softmax", loops).passed
    assert check("clip_global_norm_", clip).passed
    assert check("witten_bell_table", lambda n, q: EXERCISES["witten_bell_table"].reference(n.astype(float), q)).passed
    assert check("pooled", lambda parts: tuple(EXERCISES["pooled"].reference(parts))).passed


def test_wrong_shape_and_type_are_named() -> None:
    assert "expected shape" in check("log_softmax", lambda a: layers.log_softmax(a)[0]).lines[0]
    assert "expected numbers, got str" in check("perplexity", lambda nats: "3").lines[0]
    assert "returned 2 values, expected 4" in check("pooled", lambda parts: (1.0, 2.0)).lines[0]
    assert "got nan" in check("perplexity", lambda nats: float("nan")).lines[0]


def test_the_learners_own_error_is_shown_with_the_line() -> None:
    def broken(nats: float) -> float:
        return nats / 0

    report = check("perplexity", broken)
    assert report.lines[0] == "✗ perplexity: your function raised ZeroDivisionError: float division by zero"
    assert "in broken: return nats / 0" in report.lines[1] and len(report.lines) == 2


def test_the_learner_cannot_spoil_the_expected_result() -> None:
    def spoils(logits: np.ndarray) -> np.ndarray:
        result = layers.log_softmax(logits)
        logits[:] = 0
        return result

    assert check("log_softmax", spoils).passed


def test_infinity_is_not_close_to_everything() -> None:
    assert not check("top_k", lambda k: lambda log_probs: log_probs).passed


def test_unknown_exercise() -> None:
    with pytest.raises(KeyError):
        check("nothing", unwritten)
