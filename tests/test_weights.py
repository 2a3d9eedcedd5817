"""Initial weights: their range, their singular values, and the signs that make them unique."""

import numpy as np
import pytest

from course_lib.shapes import ShapeError
from course_lib.weights import orthogonal, uniform


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (300, 25)])
def test_uniform_stays_within_its_bound_and_fills_it(rows, columns):
    W = uniform(np.random.default_rng(0), rows, columns)
    assert W.shape == (rows, columns)
    assert W.dtype == np.float32
    assert np.abs(W).max() <= columns**-0.5
    if rows > 1:
        assert np.abs(W).max() > 0.99 * columns**-0.5
        assert W.std() == pytest.approx(columns**-0.5 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_orthogonal_turns_and_does_not_stretch(size):
    gaussian = np.random.default_rng(size).normal(size=(size, size))
    Q = orthogonal(gaussian)
    np.testing.assert_allclose(Q @ Q.T, np.eye(size), atol=1e-12)
    R = Q.T @ gaussian
    np.testing.assert_allclose(R, np.triu(R), atol=1e-12)
    assert (np.diag(R) > 0).all()


def test_orthogonal_is_fair_to_both_signs():
    """Uniform over rotations and reflections: without the signs, qr's first entries would be of one sign."""
    rng = np.random.default_rng(0)
    first = np.array([orthogonal(rng.normal(size=(3, 3)))[0, 0] for _ in range(2000)])
    assert abs((first > 0).mean() - 0.5) < 0.04
    assert first.var() == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
def test_a_matrix_that_is_not_square_is_named(shape):
    with pytest.raises(ShapeError, match=r"^gaussian: expected a square matrix \(H, H\), got shape"):
        orthogonal(np.ones(shape))
