"""Each kind of error is told apart, and named as what it is."""

import numpy as np
import pytest
import torch

from course_lib.cells import LSTMParams, LSTMState
from course_lib.diagnosis import MisfitError, made_the_same, recognise, verdicts

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, 3)), RNG.normal(size=(8, 3)), RNG.normal(size=(5, 2, 3))
STATE = LSTMState(RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3)))
PARAMS = LSTMParams(RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2)), RNG.normal(size=8))


def same(expected, got):
    return not any(verdict.problem or verdict.missing for verdict in verdicts(expected, got))


def problems(expected, got, *more):
    return {verdict.name: verdict.problem for verdict in verdicts(expected, got, *more) if verdict.problem}


def test_quantities_have_the_names_of_the_equations():
    found = verdicts((A, STATE, PARAMS), (A, STATE, PARAMS), ["dx", "dprev", "dparams"])
    assert [v.name for v in found] == ["dx", "dprev.h", "dprev.c", "dparams.W_ih", "dparams.W_hh", "dparams.b"]
    assert [v.name for v in verdicts(STATE, STATE, ["state"])] == ["state.h", "state.c"]
    assert [v.name for v in verdicts(A, A, ["Q"])] == ["Q"]
    assert [v.name for v in verdicts(A, A)] == ["result"]


def test_lists_and_plain_tuples_are_as_good():
    assert same((A, STATE), [A.tolist(), (STATE.h, STATE.c)])
    assert same(np.float64(2), 2)


def test_float32_is_right_and_a_small_error_in_float64_is_not():
    assert same(B, B.astype(np.float32))
    assert same(B, B + 1e-6)
    assert not same(B, B + 1e-5)
    assert not same(B, (B * 1.01).astype(np.float32))


@pytest.mark.parametrize(
    ("expected", "got", "problem"),
    [
        (B, B[:4], "expected shape (8, 3), got (4, 3)"),
        (B, "text", "expected real numbers, got text"),
        (B, B + 1j, "expected real numbers, got complex ones"),
        (B, {}, "expected real numbers, got dict"),
        (B, [[1.0], [1.0, 2.0]], "cannot be read as numbers (ValueError)"),
        (np.float64(25.056), 25.05606, "worst entry: expected 25.056, got 25.0561"),
        (np.zeros(3), np.array([0, np.nan, np.nan]), "expected numbers, got nan at [1] (2 in all)"),
        (np.zeros(3), np.array([0, 0, np.inf]), "expected numbers, got inf at [2] (1 in all)"),
        (np.zeros((2, 2)), np.array([[0, 1.0], [0, -3.0]]), "worst entry at [1, 1]: expected 0, got -3"),
        (np.float64(1), 2.0, "worst entry: expected 1, got 2"),
        (np.array([0, -np.inf]), np.array([0, -5.0]), "worst entry at [1]: expected -inf, got -5"),
    ],
)
def test_problems(expected, got, problem):
    assert problems(expected, got) == {"result": problem}


@pytest.mark.parametrize(
    ("expected", "got", "names", "message"),
    [
        (A, None, (), "it returned None: is the `return` missing?"),
        ((A, B), A, ("da", "db"), "it returned the wrong count: expected 2 values (da, db), got one ndarray"),
        ((A, B), (A, B, C), ("da", "db"), "it returned the wrong count: expected 2 values (da, db), got 3"),
        ((A, STATE), (A, A), ("da", "ds"), "ds: expected 2 values (h, c), got one ndarray"),
        ((A, STATE), (A, (A,)), ("da", "ds"), "ds: expected 2 values (h, c), got 1"),
        (STATE, A, ("state",), "state: expected 2 values (h, c), got one ndarray"),
    ],
)
def test_misfits(expected, got, names, message):
    with pytest.raises(MisfitError) as caught:
        verdicts(expected, got, names)
    assert str(caught.value) == message


def test_none_is_not_written_yet():
    found = verdicts((A, STATE, B), (A, None, None), ["da", "ds", "db"])
    assert [(v.name, v.missing) for v in found] == [("da", False), ("ds.h", True), ("ds.c", True), ("db", True)]


@pytest.mark.parametrize(
    ("right", "value", "hint"),
    [
        (A, 0 * A, "zero everywhere"),
        (A, -A, "sign"),
        (A, A / 3, "0.333 times"),
        (A, A.T, "transpose"),
        (B, B[[0, 1, 4, 5, 2, 3, 6, 7]], "the gates stand in the order i, g, f, o; expected i, f, g, o"),
        (B, B[[4, 5, 0, 1, 2, 3, 6, 7]], "the gates stand in the order g, i, f, o; expected i, f, g, o"),
        (C, C[::-1], "reversed in time"),
        (C, np.concatenate([A[None, :2], C[:-1]]), "shifted by one time step"),
        (C, np.concatenate([C[1:], A[None, :2]]), "shifted by one time step"),
        (A, A + RNG.normal(size=A.shape), ""),
        (A, 1.001 * A, ""),
        (np.array([1.0, np.nan]), np.zeros(2), ""),
    ],
)
def test_recognised(right, value, hint):
    found = recognise(right, value, ["i", "f", "g", "o"], in_time=True)
    assert hint in found
    assert bool(hint) == bool(found)


def test_a_transposed_shape_is_asked_about():
    (verdict,) = verdicts(B, B.T)
    assert verdict.hint == "is it the transpose?"


def test_time_is_looked_for_only_where_there_is_one():
    assert recognise(C, C[::-1]) == ""


def test_tensors_that_carry_a_gradient_are_numbers_too():
    assert same(B, torch.tensor(B, requires_grad=True))


class Odd:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError


def test_what_cannot_be_an_array_is_told():
    assert problems(B, Odd()) == {"result": "cannot be read as numbers (RuntimeError)"}


def test_mistakes_are_matched_on_what_is_written():
    wrong, other = (A + 1, STATE), (A + 2, STATE)
    assert made_the_same((A, STATE), wrong, wrong) and not made_the_same((A, STATE), wrong, other)
    assert made_the_same((A, STATE), (A + 1, None), wrong)
    assert not made_the_same((A, STATE), (None, None), wrong)
    assert made_the_same((A, STATE), (A + 1, LSTMState(A, A)), wrong, only="da", names=["da", "ds"])
    assert not made_the_same((A, STATE), (A + 1, LSTMState(A, A)), other, only="da", names=["da", "ds"])
    assert not made_the_same((A, STATE), A, wrong)
