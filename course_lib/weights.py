"""Initial weights: uniform by fan-in, and orthogonal."""

from __future__ import annotations

import numpy as np

from course_lib.shapes import ShapeError


def uniform(rng: np.random.Generator, rows: int, columns: int, dtype: type = np.float32) -> np.ndarray:
    """A (rows, columns) matrix, uniform in ±1/√columns: sums over the columns keep the size of their terms."""
    return rng.uniform(-(columns**-0.5), columns**-0.5, (rows, columns)).astype(dtype)


def orthogonal(gaussian: np.ndarray) -> np.ndarray:
    """The orthogonal factor Q of gaussian = Q R, with the signs chosen such that the diagonal of R is positive.

    Of a matrix of independent normal numbers this makes a rotation or reflection drawn uniformly from all of them; without
    the signs it would depend on the algorithm. All singular values of Q are 1.

    Args:     gaussian: (H, H), of full rank.
    Returns:  Q (H, H), Q Qᵀ = 1.
    Raises:   ShapeError: not a square matrix.
    Reference: Saxe, McClelland & Ganguli 2014; the signs, Mezzadri 2007.
    """
    if gaussian.ndim != 2 or gaussian.shape[0] != gaussian.shape[1]:
        raise ShapeError(f"gaussian: expected a square matrix (H, H), got shape {gaussian.shape}")
    Q, R = np.linalg.qr(gaussian)
    return Q * np.where(np.diag(R) < 0, -1, 1).astype(Q.dtype)
