"""What every unrolled cell shares: the products outside the time loop, the masks of padding, the activations in place."""

from __future__ import annotations

import math
import threading

import numpy as np

from course_lib.shapes import ShapeError, check_numbers, check_shapes

ONE_PRODUCT_BELOW = 32  # streams; from here on T products of N columns each beat one product and a transposed copy

# The C library hands freed memory back to the system beyond a threshold, and fetching it again, page by page, took a third of
# the time at (T, N, D, H) = (100, 32, 64, 128). The threshold follows the largest block ever freed, up to 32 MB: free one.
np.empty(31 << 20, np.uint8)

_kept = threading.local()


def workspace(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory for an intermediate result that never leaves the function that asks for it; contents are arbitrary.

    It is kept, one buffer a name and thread, and grows as needed: fresh memory of tens of megabytes costs more than filling it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = getattr(_kept, name, None)
    if buffer is None or buffer.nbytes < size:
        buffer = np.empty(size, np.uint8)
        setattr(_kept, name, buffer)
    return buffer[:size].view(dtype).reshape(shape)


def input_product(x: np.ndarray, W_ih: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """W_ih x_t for every t at once, feature-major: (T, N, D), (4H, D) -> (T, 4H, N)."""
    T, N, D = x.shape
    a = np.empty((T, len(W_ih), N), dtype)
    if N < ONE_PRODUCT_BELOW:
        rows = workspace("input_product", (T * N, len(W_ih)), dtype)
        np.matmul(x.reshape(T * N, D), W_ih.T, out=rows)
        a[...] = rows.reshape(T, N, -1).transpose(0, 2, 1)
    else:
        np.matmul(W_ih, x.transpose(0, 2, 1), out=a)
    return a


def input_gradients(da: np.ndarray, x: np.ndarray, W_ih: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx_t = da_t W_ih, dW_ih = Σ_t da_tᵀ x_t and db = Σ_t da_t, from da (4H, T, N): one product each."""
    rows = da.reshape(len(da), -1)  # (4H, T N)
    return (rows.T @ W_ih).reshape(x.shape), rows @ x.reshape(-1, x.shape[2]), column_sums(rows)


def column_sums(rows: np.ndarray) -> np.ndarray:
    """Σ over the last axis, as a product with ones: BLAS uses all threads."""
    return rows @ np.ones(rows.shape[1], rows.dtype)


def recurrent_gradient(da: np.ndarray, hs: np.ndarray) -> np.ndarray:
    """dW_hh = Σ_t da_tᵀ h_{t-1}, from da (4H, T, N) and hs (T + 1, N, H) that starts with h_0: one product."""
    return da.reshape(len(da), -1) @ hs[:-1].reshape(-1, hs.shape[2])


def sigmoid_(a: np.ndarray) -> None:
    """σ(a) = ½ + ½ tanh(a / 2), in place."""
    half = a.dtype.type(0.5)
    a *= half
    np.tanh(a, out=a)
    a *= half
    a += half


def lstm_activations_(a: np.ndarray, H: int) -> None:
    """σ on the rows i, f, o and tanh on the rows g of (4H, N), in place: one tanh serves all four gates."""
    half = a.dtype.type(0.5)
    i_and_f, o = a[: 2 * H], a[3 * H :]
    i_and_f *= half
    o *= half
    np.tanh(a, out=a)
    i_and_f *= half
    i_and_f += half
    o *= half
    o += half


def check_lengths(lengths: np.ndarray | None, T: int, N: int) -> np.ndarray | None:
    """Return lengths as a signed integer array (N,) with entries in [0, T], or raise ShapeError / ValueError."""
    if lengths is None:
        return None
    lengths = np.asarray(lengths)
    if lengths.shape != (N,):
        raise ShapeError(f"lengths: axis N should be {N} (N = {N} from x), got shape {lengths.shape}")
    if not np.issubdtype(lengths.dtype, np.integer) or lengths.min() < 0 or lengths.max() > T:
        raise ValueError(f"lengths: expected integers in [0, {T}], got {lengths.tolist()}")
    return lengths.astype(np.intp)


def outputs(hs: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The outputs h_1 ... h_T of hs (T + 1, N, H), 0 where a step is padding; a copy, so the cache stays untouched."""
    if lengths is None:
        return hs[1:].copy()
    return np.where(_padding(lengths, len(hs) - 1), 0, hs[1:])


def final_state(states: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The state after each stream's last real step, from states (T + 1, N, H) that start with the initial one."""
    return states[-1].copy() if lengths is None else states[lengths, np.arange(states.shape[1])]


def output_gradients(
    dhs: np.ndarray, dfinal: np.ndarray, hs: np.ndarray, lengths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients that enter the backward loop: dhs (T, N, H) at each step, and dh (H, N) after the last.

    With lengths, padded steps contribute nothing and dfinal joins dhs at each stream's last real step.
    """
    check_shapes(output=(hs[1:], "T N H"), dhs=(dhs, "T N H"), dfinal=(dfinal, "N H"))
    if lengths is None:
        return dhs, np.array(dfinal.T, hs.dtype, order="C")
    dhs = np.where(_padding(lengths, len(dhs)), 0, dhs)
    real = np.flatnonzero(lengths)
    dhs[lengths[real] - 1, real] += dfinal[real]
    return dhs, np.zeros((hs.shape[2], hs.shape[1]), hs.dtype)


def initial_gradient(dh: np.ndarray, dfinal: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """What the loop carried back, dh (H, N), as (N, H); a stream of length 0 passes dfinal straight through."""
    if lengths is None:
        return dh.T.copy()
    return np.where((lengths == 0)[:, None], dfinal, dh.T)


def reverse(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Reverse (T, N, ...) in time; with lengths, each stream's real steps only, the padding staying behind them."""
    if lengths is None:
        return x[::-1]
    t, lengths = np.arange(len(x))[:, None], np.asarray(lengths, np.intp)
    return x[np.where(t < lengths, lengths - 1 - t, t), np.arange(x.shape[1])]


def check_result(result: np.ndarray, **arguments: np.ndarray) -> None:
    """NaN in any argument reaches the last state, so one look at that suffices; only then are the arguments searched."""
    if np.isnan(result).any():
        check_numbers(**arguments)


def _padding(lengths: np.ndarray, T: int) -> np.ndarray:
    """(T, N, 1), true where a step is padding."""
    return (np.arange(T)[:, None] >= lengths)[..., None]
