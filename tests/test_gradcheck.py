"""The gradient checker on functions whose derivatives are known, and on gradients that are wrong in one entry."""

import numpy as np
import pytest

from course_lib.gradcheck import gradient_check, numeric_gradient


def problem(seed=0):
    """f(A, b) = Σ sin(A) ⊙ b² + b₀ with its two gradients."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(3, 4)), rng.normal(size=4) + 2

    def f(A, b):
        return float((np.sin(A) * b**2).sum() + b[0])

    return f, [A, b], [np.cos(A) * b**2, 2 * b * np.sin(A).sum(0) + np.eye(4)[0]]


def test_right_gradients_pass_and_the_arguments_stay():
    f, arrays, grads = problem()
    before = [a.copy() for a in (*arrays, *grads)]
    for a in (*arrays, *grads):
        a.flags.writeable = False
    assert gradient_check(f, arrays, grads) < 1e-9
    for a, b in zip((*arrays, *grads), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("which", "index"), [(0, (0, 0)), (0, (2, 3)), (1, (0,)), (1, (3,))])
def test_one_wrong_entry_is_seen_wherever_it_is(which, index):
    f, arrays, grads = problem()
    right = grads[which][index]
    grads[which][index] = wrong = right + 1e-3
    assert gradient_check(f, arrays, grads) == pytest.approx(1e-3 / max(1, abs(wrong), abs(right)), rel=1e-4)


def test_the_error_is_relative_for_large_gradients_of_either_side_and_absolute_for_small_ones():
    x = [np.array([0.3])]
    for slope, claimed, error in [(1e4, 1.1e4, 1 / 11), (1.1e4, 1e4, 1 / 11), (0.2, 0.1, 0.1), (-1e4, 0, 1), (1, -3, 4 / 3)]:
        assert gradient_check(lambda a, slope=slope: slope * a[0], x, [np.array([claimed])]) == pytest.approx(error, rel=1e-6)


def test_differences_are_central_and_use_eps():
    cube = [np.array([2.0, -1.0])]
    for eps in (1e-1, 1e-2):  # ((a + e)³ - (a - e)³) / 2e = 3a² + e² exactly
        np.testing.assert_allclose(numeric_gradient(lambda a: (a**3).sum(), cube, 0, eps), [12 + eps**2, 3 + eps**2], rtol=1e-9)
        assert gradient_check(lambda a: (a**3).sum(), cube, [3 * cube[0] ** 2], eps) == pytest.approx(eps**2 / 3, rel=0.3)
    factors = [np.array([2.0, 3, 5])]  # linear in each, so exact for any eps, if the other entries stand where they should
    np.testing.assert_allclose(numeric_gradient(lambda a: a.prod(), factors, 0, 0.1), [15, 10, 6], rtol=1e-12)
    calls = []
    assert gradient_check(lambda a: calls.append(a) or 0.0, [np.zeros((2, 3))], [np.zeros((2, 3))]) == 0
    assert len(calls) == 12
    assert gradient_check(lambda a: 0.0, [np.zeros((0, 3))], [np.zeros((0, 3))]) == 0
    np.testing.assert_allclose(numeric_gradient(lambda a: float(3 * a), [np.array(1.5)], 0), 3)


@pytest.mark.parametrize(
    ("arrays", "grads", "message"),
    [
        ([np.zeros(2)], [], "grads: expected 1 arrays as in arrays, got 0"),
        ([np.zeros(2), np.zeros(3)], [np.zeros(2), np.zeros(2)], "grads[1]: expected shape (3,), got (2,)"),
        (
            [np.zeros(2, np.float32)],
            [np.zeros(2)],
            "arrays[0]: expected float64 (differences drown in float32 rounding), got float32",
        ),
        ([np.zeros((2, 2))], [np.array([[0, 0], [np.nan, 0]])], "arrays[0]: the gradient or the function is NaN at [1, 0]"),
    ],
)
def test_what_cannot_be_checked_is_refused(arrays, grads, message):
    with pytest.raises(ValueError) as caught:
        gradient_check(lambda *arrays: 0.0, arrays, grads)
    assert str(caught.value) == message
