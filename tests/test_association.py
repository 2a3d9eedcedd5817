"""Squared correlation, AUC and linear read-outs, against pairs counted one by one and least squares."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib.association import association, check_property, measured, parts, ranks, read_out, standard
from course_lib.shapes import ShapeError

RNG = np.random.default_rng(5)


def auc_by_pairs(x: np.ndarray, flag: np.ndarray) -> float:
    """The share of pairs (true, false) in which the true one is larger; ties count half."""
    larger = x[flag][:, None] > x[~flag][None]
    equal = x[flag][:, None] == x[~flag][None]
    return float((larger + equal / 2).mean())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", [False, True])
def test_auc_counts_pairs(dtype: type, ties: bool) -> None:
    states = RNG.standard_normal((90, 5)).astype(dtype)
    states = np.round(states) if ties else states
    flags = RNG.random((90, 3)) < [0.1, 0.5, 0.8]
    states[:, 0] += 2 * flags[:, 1]
    found = measured(association(states, flags), 1, True)
    expected = [[auc_by_pairs(states[:, u], flags[:, k]) for k in range(3)] for u in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(found[0, 1] - 0.5) > 0.2


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_correlation_is_numpys(dtype: type, tolerance: float) -> None:
    states = (RNG.standard_normal((70, 4)) + 5).astype(dtype)
    values = np.column_stack([RNG.integers(0, 9, 70), np.round(4 * states[:, 2] - states[:, 1])]).astype(int)
    expected = np.corrcoef(np.hstack([states, values]).T)[:4, 4:]
    np.testing.assert_allclose(association(states, values), expected, atol=tolerance)
    np.testing.assert_allclose(measured(expected, np.sign(expected), False), expected**2, rtol=1e-12)


def test_constant_units_have_no_association() -> None:
    states = np.column_stack([np.full(50, 0.3, np.float32), np.arange(50, dtype=np.float32)])
    assert association(states, np.arange(50)[:, None])[:, 0].tolist() == pytest.approx([0, 1])
    assert association(states, np.arange(50)[:, None] > 20)[:, 0].tolist() == pytest.approx([0, 1])
    assert (standard(states)[:, 0] == 0).all()


def test_measured_tells_of_the_other_direction() -> None:
    assert measured(np.array([0.5, -0.5]), np.array([1, 1]), False).tolist() == [0.25, -0.25]
    assert measured(np.array([0.5, -0.5]), np.array([-1, -1]), False).tolist() == [-0.25, 0.25]
    assert measured(np.array([0.5, -0.5]), np.array([1, 1]), True).tolist() == [0.75, 0.25]


def test_ranks_share_ties() -> None:
    assert ranks(np.array([[3.0, 1], [1, 1], [3, 2], [2, 1]])).T.tolist() == [[3.5, 1, 3.5, 2], [2, 2, 4, 2]]


def test_read_out_is_ridge_regression_measured_on_the_last_third() -> None:
    inputs = RNG.standard_normal((300, 6)) @ RNG.standard_normal((6, 6)) + 3
    count = np.round(inputs @ RNG.standard_normal(6) + RNG.standard_normal(300)).astype(int)
    flag = count + 2 * RNG.standard_normal(300) > np.median(count)
    found = read_out(inputs, {"count": count, "flag": flag})
    mean, scale = inputs[:200].mean(0), inputs[:200].std(0)
    x = (inputs - mean) / scale
    augmented = np.vstack([x[:200] / np.sqrt(200), np.sqrt(0.01) * np.eye(6)])  # least squares with the penalty as data
    for name, values in (("count", count), ("flag", flag)):
        y = (values[:200] - values[:200].mean()) / values[:200].std()
        weights = np.linalg.lstsq(augmented, np.r_[y / np.sqrt(200), np.zeros(6)], rcond=None)[0]
        output = x[200:] @ weights
        if name == "count":
            assert found[name] == pytest.approx(np.corrcoef(output, values[200:])[0, 1] ** 2, rel=1e-9)
        else:
            assert found[name] == pytest.approx(auc_by_pairs(output, values[200:]), rel=1e-9)
    assert 0.3 < found["count"] < 0.999 and 0.6 < found["flag"] < 0.999


def test_a_read_out_of_noise_reaches_nothing_and_may_miss_an_input() -> None:
    inputs = RNG.standard_normal((3000, 20)).astype(np.float32)
    inputs[:, 3] = 0  # never varies
    found = read_out(inputs, {"noise": RNG.integers(0, 5, 3000), "flag": RNG.random(3000) < 0.4})
    assert abs(found["noise"]) < 0.02 and abs(found["flag"] - 0.5) < 0.06


def test_parts_meet() -> None:
    first, second = parts(31)
    assert (first.start or 0, first.stop, second.start, second.stop) == (0, 21, 21, 31)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.arange(29), r"p: expected shape \(30,\), one value a token, got \(29,\)"),
        (np.r_[np.arange(20), np.zeros(10)], "p: expected a property that changes, it is constant in the last third"),
        (np.r_[np.zeros(20), np.arange(10)], "it is constant in the first two thirds"),
        (np.r_[np.nan, np.arange(29)], "p: expected flags or finite numbers"),
        (np.array(["a", "b"] * 15), "p: expected flags or finite numbers, got dtype <U1"),
    ],
)
def test_properties_that_cannot_be_measured(values: np.ndarray, message: str) -> None:
    with pytest.raises((ShapeError, ValueError), match=message):
        check_property("p", values, 30)
