"""RNN, LSTM and GRU over a whole sequence, forward and backward (back-propagation through time).

The step functions of ``cells`` are the definition; these compute the same numbers fast. Three things make the difference:

1. The input product needs no state, so it is taken for all time steps at once, before the loop.
2. The weight gradients are sums over time, Σ_t da_tᵀ h_{t-1}: one large product after the loop.
3. Inside the loop the activations are held feature-major, (4H, N): each gate is one contiguous block, and W (4H, H) times
   h (H, N) is the orientation in which BLAS is fastest. Every operation in the loop writes into memory that exists already.

``lengths`` (N,) marks padding on the right: a padded step changes no state, output (0) or gradient. Padding must be finite.
"""

from __future__ import annotations

import numpy as np

from course_lib.caches import GRUSequenceCache, LSTMSequenceCache, RNNSequenceCache
from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams, check_step
from course_lib.shapes import check_shapes
from course_lib.unroll import (
    check_lengths,
    check_result,
    column_sums,
    final_state,
    initial_gradient,
    input_gradients,
    input_product,
    lstm_activations_,
    output_gradients,
    outputs,
    recurrent_gradient,
    sigmoid_,
    workspace,
)


def rnn_forward(
    x: np.ndarray, initial: np.ndarray, params: RNNParams, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, RNNSequenceCache]:
    """Run a simple RNN over a sequence.

    Args:     x: (T, N, D). initial: h_0 (N, H). params: see RNNParams. lengths: (N,) steps that are not padding.
    Returns:  hs (T, N, H), the final state (N, H), cache for rnn_backward.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    """
    a, hs, bias, product, lengths = _forward_buffers(x, initial, params, params.b, lengths)
    for t in range(len(x)):
        np.matmul(params.W_hh, hs[t].T, out=product)
        product += bias
        product += a[t]
        np.tanh(product, out=product)
        hs[t + 1] = product.T
    check_result(hs[-1], x=x, initial=initial, **params._asdict())
    return outputs(hs, lengths), final_state(hs, lengths), RNNSequenceCache(x, hs, params, lengths)


def rnn_backward(dhs: np.ndarray, dfinal: np.ndarray, cache: RNNSequenceCache) -> tuple[np.ndarray, np.ndarray, RNNParams]:
    """Back-propagate through time: the loop carries dh back, the products wait until it is done.

    Args:     dhs: dL/dhs (T, N, H). dfinal: dL/dfinal (N, H). cache: from rnn_forward.
    Returns:  dx (T, N, D), dinitial (N, H), dparams.
    """
    x, hs, params, lengths = cache
    dhs, dh = output_gradients(dhs, dfinal, hs, lengths)
    da_all, da, W_hh_T = _backward_buffers(x, params, hs.dtype)
    for t in reversed(range(len(x))):
        h = hs[t + 1].T
        dh += dhs[t].T
        np.multiply(h, h, out=da)
        np.subtract(1, da, out=da)
        da *= dh
        da_all[:, t] = da
        np.matmul(W_hh_T, da, out=dh)
    dx, dW_ih, db = input_gradients(da_all, x, params.W_ih)
    dinitial = initial_gradient(dh, dfinal, lengths)
    check_result(dinitial, dfinal=dfinal, dhs=dhs)
    return dx, dinitial, RNNParams(dW_ih, recurrent_gradient(da_all, hs), db)


def lstm_forward(
    x: np.ndarray, initial: LSTMState, params: LSTMParams, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, LSTMState, LSTMSequenceCache]:
    """Run an LSTM over a sequence; lstm_step_forward holds the equations.

    Args:     x: (T, N, D). initial: h_0 and c_0, each (N, H). params: see LSTMParams. lengths: (N,) unpadded steps.
    Returns:  hs (T, N, H), the final state (h and c, each (N, H)), cache for lstm_backward.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    """
    gates, hs, bias, product, lengths = _forward_buffers(x, initial, params, params.b, lengths)
    T, N, H = len(x), *initial.h.shape
    cs = np.empty((T + 1, H, N), hs.dtype)
    cs[0] = initial.c.T
    scratch = np.empty((H, N), hs.dtype)
    for t in range(T):
        a, c = gates[t], cs[t + 1]
        np.matmul(params.W_hh, hs[t].T, out=product)
        product += bias
        a += product
        lstm_activations_(a, H)
        i, f, g, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        np.multiply(f, cs[t], out=c)
        np.multiply(i, g, out=scratch)
        c += scratch
        np.tanh(c, out=scratch)
        scratch *= o
        hs[t + 1] = scratch.T
    check_result(hs[-1], x=x, h=initial.h, c=initial.c, **params._asdict())
    final = LSTMState(final_state(hs, lengths), final_state(cs.transpose(0, 2, 1), lengths))
    return outputs(hs, lengths), final, LSTMSequenceCache(x, hs, cs, gates, params, lengths)


def lstm_backward(dhs: np.ndarray, dfinal: LSTMState, cache: LSTMSequenceCache) -> tuple[np.ndarray, LSTMState, LSTMParams]:
    """Back-propagate through time; lstm_step_backward holds the equations.

    Args:     dhs: dL/dhs (T, N, H). dfinal: dL/dh_T and dL/dc_T, each (N, H). cache: from lstm_forward.
    Returns:  dx (T, N, D), dinitial (h and c, each (N, H)), dparams.
    """
    x, hs, cs, gates, params, lengths = cache
    H = hs.shape[2]
    check_shapes(h=(hs[0], "N H"), dh=(dfinal.h, "N H"), dc=(dfinal.c, "N H"))
    dhs, dh = output_gradients(dhs, dfinal.h, hs, lengths)
    dc = np.array(dfinal.c.T, hs.dtype, order="C") if lengths is None else np.zeros_like(dh)
    da_all, da, W_hh_T = _backward_buffers(x, params, hs.dtype)
    slope, tanh_c, scratch = np.empty_like(da), np.empty_like(dh), np.empty_like(dh)
    one = dh.dtype.type(1)
    for t in reversed(range(len(x))):
        a = gates[t]
        i, f, g, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        if lengths is not None:
            dc[:, lengths == t + 1] = dfinal.c[lengths == t + 1].T
        dh += dhs[t].T
        np.tanh(cs[t + 1], out=tanh_c)
        np.multiply(dh, tanh_c, out=da[3 * H :])  # do
        np.multiply(tanh_c, tanh_c, out=scratch)
        np.subtract(one, scratch, out=scratch)
        scratch *= o
        scratch *= dh
        dc += scratch
        np.multiply(dc, g, out=da[:H])  # di
        np.multiply(dc, cs[t], out=da[H : 2 * H])  # df
        np.multiply(dc, i, out=da[2 * H : 3 * H])  # dg
        np.multiply(a, a, out=slope)  # σ' = σ - σ² for i, f, o;  tanh' = 1 - tanh² for g
        np.subtract(a[: 2 * H], slope[: 2 * H], out=slope[: 2 * H])
        np.subtract(one, slope[2 * H : 3 * H], out=slope[2 * H : 3 * H])
        np.subtract(o, slope[3 * H :], out=slope[3 * H :])
        da *= slope
        dc *= f
        da_all[:, t] = da
        np.matmul(W_hh_T, da, out=dh)
    dx, dW_ih, db = input_gradients(da_all, x, params.W_ih)
    dinitial = LSTMState(*(initial_gradient(d, df, lengths) for d, df in zip((dh, dc), dfinal, strict=True)))
    check_result(np.stack(dinitial), dh=dfinal.h, dc=dfinal.c, dhs=dhs)
    return dx, dinitial, LSTMParams(dW_ih, recurrent_gradient(da_all, hs), db)


def gru_forward(
    x: np.ndarray, initial: np.ndarray, params: GRUParams, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, GRUSequenceCache]:
    """Run a GRU over a sequence; gru_step_forward holds the equations.

    Args:     x: (T, N, D). initial: h_0 (N, H). params: see GRUParams. lengths: (N,) steps that are not padding.
    Returns:  hs (T, N, H), the final state (N, H), cache for gru_backward.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    """
    check_step(x, initial, params, axes="T N D")
    T, N, H = len(x), *initial.shape
    recurrent_bias = params.b_hh + np.concatenate([params.b_ih[: 2 * H], np.zeros(H, params.b_ih.dtype)])
    gates, hs, bias, product, lengths = _forward_buffers(x, initial, params, recurrent_bias, lengths)
    a_hn, h = np.empty((T, H, N), hs.dtype), np.array(initial.T, hs.dtype, order="C")
    bias_n = np.repeat(params.b_ih[2 * H :, None], N, axis=1)
    for t in range(T):
        a = gates[t]
        r, z, n = a[:H], a[H : 2 * H], a[2 * H :]
        np.matmul(params.W_hh, h, out=product)
        product += bias
        a_hn[t] = product[2 * H :]
        a[: 2 * H] += product[: 2 * H]
        sigmoid_(a[: 2 * H])
        product[2 * H :] *= r
        n += bias_n
        n += product[2 * H :]
        np.tanh(n, out=n)
        h -= n
        h *= z
        h += n
        hs[t + 1] = h.T
    check_result(hs[-1], x=x, initial=initial, **params._asdict())
    return outputs(hs, lengths), final_state(hs, lengths), GRUSequenceCache(x, hs, gates, a_hn, params, lengths)


def gru_backward(dhs: np.ndarray, dfinal: np.ndarray, cache: GRUSequenceCache) -> tuple[np.ndarray, np.ndarray, GRUParams]:
    """Back-propagate through time; gru_step_backward holds the equations.

    Args:     dhs: dL/dhs (T, N, H). dfinal: dL/dfinal (N, H). cache: from gru_forward.
    Returns:  dx (T, N, D), dinitial (N, H), dparams.
    """
    x, hs, gates, a_hn, params, lengths = cache
    H = hs.shape[2]
    dhs, dh = output_gradients(dhs, dfinal, hs, lengths)
    da_all, da, W_hh_T = _backward_buffers(x, params, hs.dtype)  # the input side
    dh_n_all = workspace("dh_n", (H, *x.shape[:2]), dh.dtype)  # the n rows of the recurrent side: da_n ⊙ r
    scratch = np.empty_like(dh)
    for t in reversed(range(len(x))):
        r, z, n = gates[t, :H], gates[t, H : 2 * H], gates[t, 2 * H :]
        da_r, da_z, da_n = da[:H], da[H : 2 * H], da[2 * H :]
        dh += dhs[t].T
        np.multiply(n, n, out=da_n)
        np.subtract(1, da_n, out=da_n)
        np.subtract(1, z, out=scratch)
        da_n *= scratch
        da_n *= dh
        np.subtract(hs[t].T, n, out=da_z)
        da_z *= scratch
        da_z *= z
        da_z *= dh
        np.multiply(da_n, a_hn[t], out=da_r)
        np.subtract(1, r, out=scratch)
        da_r *= scratch
        da_r *= r
        dh *= z
        da_all[:, t] = da
        da_n *= r
        dh_n_all[:, t] = da_n
        np.matmul(W_hh_T, da, out=scratch)
        dh += scratch
    dx, dW_ih, db_ih = input_gradients(da_all, x, params.W_ih)
    dW_hh = np.vstack([recurrent_gradient(da_all[: 2 * H], hs), recurrent_gradient(dh_n_all, hs)])
    dinitial = initial_gradient(dh, dfinal, lengths)
    check_result(dinitial, dfinal=dfinal, dhs=dhs)
    db_hh = np.concatenate([db_ih[: 2 * H], column_sums(dh_n_all.reshape(H, -1))])
    return dx, dinitial, GRUParams(dW_ih, dW_hh, db_ih, db_hh)


def _forward_buffers(
    x: np.ndarray, initial: np.ndarray | LSTMState, params: tuple, bias: np.ndarray, lengths: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the arguments; return the input products (T, 4H, N), hs (T + 1, N, H) with h_0 in place, the bias for N
    columns (4H, N), the memory of the recurrent product (4H, N), and lengths."""
    sizes = check_step(x, initial, params, axes="T N D")
    lengths = check_lengths(lengths, sizes["T"], sizes["N"])
    h = initial.h if isinstance(initial, LSTMState) else initial
    dtype = np.result_type(x, h, *params, np.float32)
    a = input_product(x, params.W_ih, dtype)
    hs = np.empty((len(x) + 1, *h.shape), dtype)
    hs[0] = h
    return a, hs, np.repeat(bias[:, None], len(h), axis=1), np.empty(a.shape[1:], dtype), lengths


def _backward_buffers(x: np.ndarray, params: tuple, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Memory for da of all steps, (4H, T, N), and of one step, (4H, N); and W_hhᵀ laid out for the loop."""
    T, N, _ = x.shape
    rows = len(params.W_hh)
    return workspace("da", (rows, T, N), dtype), np.empty((rows, N), dtype), np.ascontiguousarray(params.W_hh.T)
