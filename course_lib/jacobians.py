"""How one state depends on an earlier one: the Jacobian of a step, and products of Jacobians over time (lesson 03)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from course_lib.cells import LSTMCache, RNNCache
from course_lib.shapes import check_shapes


def rnn_step_jacobian(cache: RNNCache) -> np.ndarray:
    """dh_t / dh_{t-1} = diag(1 - h_t²) W_hh, for each stream.

    Args:     cache: from rnn_step_forward, or at(t) of a sequence's cache.
    Returns:  (N, H, H); entry [n, j, k] is dh_t[n, j] / dh_{t-1}[n, k].
    """
    return (1 - cache.h * cache.h)[:, :, None] * cache.params.W_hh


def lstm_step_jacobian(cache: LSTMCache) -> np.ndarray:
    """d[h_t; c_t] / d[h_{t-1}; c_{t-1}], for each stream; the state is h followed by c.

        dc_t/dc_{t-1} = diag(f);  dc_t/dh_{t-1} = diag(c_{t-1} f (1-f)) W_f + diag(g i (1-i)) W_i + diag(i (1-g²)) W_g
        dh_t/ds = diag(tanh(c_t) o (1-o)) W_o ds + diag(o (1 - tanh² c_t)) dc_t/ds

    Args:     cache: from lstm_step_forward, or at(t) of a sequence's cache.
    Returns:  (N, 2H, 2H); entry [n, j, k] is ds_t[n, j] / ds_{t-1}[n, k].
    """
    i, f, g, o, tanh_c = cache.i, cache.f, cache.g, cache.o, cache.tanh_c
    N, H = i.shape
    W_i, W_f, W_g, W_o = cache.params.W_hh.reshape(4, H, H)

    def rows(factor: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return factor[:, :, None] * matrix  # diag(factor) matrix, a matrix a stream

    J = np.zeros((N, 2 * H, 2 * H), i.dtype)
    J[:, H:, :H] = rows(cache.prev.c * f * (1 - f), W_f) + rows(g * i * (1 - i), W_i) + rows(i * (1 - g * g), W_g)
    J[:, H:, H:] = rows(f, np.eye(H, dtype=i.dtype))
    J[:, :H] = rows(o * (1 - tanh_c * tanh_c), J[:, H:])
    J[:, :H, :H] += rows(tanh_c * o * (1 - o), W_o)
    return J


def jacobian_products(jacobians: np.ndarray) -> np.ndarray:
    """J_T ... J_{t+1} = ds_T / ds_t for every t.

    Args:     jacobians: (T, H, H); jacobians[t - 1] is J_t = ds_t / ds_{t-1}.
    Returns:  (T + 1, H, H); entry [t] is ds_T / ds_t, the last one the identity.
    Raises:   ShapeError: naming the axis and the sizes.
    """
    sizes = check_shapes(jacobians=(jacobians, "T H H"))
    products = np.empty((sizes["T"] + 1, *jacobians.shape[1:]), jacobians.dtype)
    products[-1] = np.eye(sizes["H"])
    for t in reversed(range(sizes["T"])):
        products[t] = products[t + 1] @ jacobians[t]
    return products


def cell_derivatives(steps: Sequence[LSTMCache], stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """dC_T/dC_t and dh_T/dC_t, total: C_t acts by itself and through h_t (lesson 03, equation 3.9).

        [dh_T; dC_T] / dC_t = P_t[:, C] + P_t[:, h] diag(o_t (1 - tanh² C_t)),  P_t = J_T ... J_{t+1}

    Args:     steps: the caches of steps 1 ... T. stream: which of the N streams.
    Returns:  two arrays (T, H, H); entries [t - 1] are those of t, the last ones of t = T.
    """
    H = steps[0].o.shape[1]
    P = jacobian_products(np.stack([lstm_step_jacobian(step)[stream] for step in steps]))[1:]
    through_h = np.stack([step.o[stream] * (1 - step.tanh_c[stream] ** 2) for step in steps])  # (T, H): dh_t/dC_t
    both = P[:, :, H:] + P[:, :, :H] * through_h[:, None, :]  # (T, 2H, H)
    return both[:, H:], both[:, :H]
