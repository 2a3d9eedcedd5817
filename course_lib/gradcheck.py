"""Compare gradients with central differences, on every entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def gradient_check(
    f: Callable[..., float], arrays: Sequence[np.ndarray], grads: Sequence[np.ndarray], eps: float = 1e-5
) -> float:
    """Return the worst relative error of ``grads`` against (f(a + eps) - f(a - eps)) / (2 eps), entry by entry.

    The error of an entry is |analytic - numeric| / max(1, |analytic|, |numeric|): relative for large gradients, absolute
    for small ones, where the difference quotient itself is only good to about 1e-10. In float64 a correct gradient of a smooth
    function gives 1e-8 or less, a wrong one 1e-3 or more.

    Args:     f: takes the arrays, returns a scalar. arrays: float64, any shapes; not changed. grads: dL/d(each array).
    Returns:  The worst error over every entry of every array.
    Raises:   ValueError: counts, shapes or dtypes that do not fit, or NaN.
    """
    if len(arrays) != len(grads):
        raise ValueError(f"grads: expected {len(arrays)} arrays as in arrays, got {len(grads)}")
    worst = 0.0
    for k, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
        if array.dtype != np.float64:
            raise ValueError(f"arrays[{k}]: expected float64 (differences drown in float32 rounding), got {array.dtype}")
        if np.shape(grad) != array.shape:
            raise ValueError(f"grads[{k}]: expected shape {array.shape}, got {np.shape(grad)}")
        numeric = numeric_gradient(f, arrays, k, eps)
        error = np.abs(grad - numeric) / np.maximum(1, np.maximum(np.abs(grad), np.abs(numeric)))
        if np.isnan(error).any():
            raise ValueError(f"arrays[{k}]: the gradient or the function is NaN at {np.argwhere(np.isnan(error))[0].tolist()}")
        worst = max(worst, float(error.max(initial=0)))
    return worst


def numeric_gradient(f: Callable[..., float], arrays: Sequence[np.ndarray], which: int, eps: float = 1e-5) -> np.ndarray:
    """Central differences of ``f`` in every entry of ``arrays[which]``; two evaluations of ``f`` an entry."""
    varied = list(arrays)
    varied[which] = array = np.array(arrays[which])
    numeric = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + eps
        above = f(*varied)
        array[index] = value - eps
        below = f(*varied)
        array[index] = value
        numeric[index] = (above - below) / (2 * eps)
    return numeric
