"""RNN, LSTM and GRU: one time step, forward and backward.

Samples are rows: x (N, D), h (N, H), hence ``x @ W.T``. A step returns its next state and the cache that its backward
needs; nothing is stored elsewhere. A gradient has the type of what it differentiates. The recurrent matrices multiply the
previous state; LSTM gate rows are stacked i, f, g, o and GRU rows r, z, n, as in PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.layers import sigmoid
from course_lib.shapes import ShapeError, check_numbers, check_shapes


class RNNParams(NamedTuple):
    W_ih: np.ndarray  # (H, D)
    W_hh: np.ndarray  # (H, H)
    b: np.ndarray  # (H,)


class LSTMParams(NamedTuple):
    W_ih: np.ndarray  # (4H, D), gate rows i, f, g, o
    W_hh: np.ndarray  # (4H, H)
    b: np.ndarray  # (4H,)


class GRUParams(NamedTuple):
    W_ih: np.ndarray  # (3H, D), gate rows r, z, n
    W_hh: np.ndarray  # (3H, H)
    b_ih: np.ndarray  # (3H,)
    b_hh: np.ndarray  # (3H,); not redundant: r scales the part of n that b_hh belongs to


class LSTMState(NamedTuple):
    h: np.ndarray  # (N, H)
    c: np.ndarray  # (N, H)


class RNNCache(NamedTuple):
    x: np.ndarray
    prev: np.ndarray
    params: RNNParams
    h: np.ndarray


class LSTMCache(NamedTuple):
    x: np.ndarray
    prev: LSTMState
    params: LSTMParams
    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    tanh_c: np.ndarray


class GRUCache(NamedTuple):
    x: np.ndarray
    prev: np.ndarray
    params: GRUParams
    r: np.ndarray
    z: np.ndarray
    n: np.ndarray
    a_hn: np.ndarray


def rnn_step_forward(x: np.ndarray, prev: np.ndarray, params: RNNParams) -> tuple[np.ndarray, RNNCache]:
    """Advance a simple (Elman) RNN by one time step.

        h' = tanh(x W_ihᵀ + h W_hhᵀ + b)          (lesson 02)

    Args:     x: (N, D). prev: h, (N, H). params: see RNNParams.
    Returns:  The next state h' (N, H), and the cache that rnn_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    Reference: Elman 1990.
    """
    check_step(x, prev, params)
    h = np.tanh(x @ params.W_ih.T + prev @ params.W_hh.T + params.b)
    if np.isnan(h).any():
        check_numbers(x=x, prev=prev, **params._asdict())
    return h, RNNCache(x, prev, params, h)


def rnn_step_backward(dstate: np.ndarray, cache: RNNCache) -> tuple[np.ndarray, np.ndarray, RNNParams]:
    """Pull dL/dh' back through one RNN step.

        da = dh' ⊙ (1 - h'²);  dx = da W_ih;  dh = da W_hh;  dW_ih = daᵀ x;  dW_hh = daᵀ h;  db = Σ_N da

    Args:     dstate: dL/dh' (N, H). cache: from rnn_step_forward.
    Returns:  dx (N, D), dprev (N, H), dparams.
    """
    x, prev, params, h = cache
    check_shapes(h=(h, "N H"), dstate=(dstate, "N H"))
    da = dstate * (1 - h * h)
    return da @ params.W_ih, da @ params.W_hh, RNNParams(da.T @ x, da.T @ prev, da.sum(0))


def lstm_step_forward(x: np.ndarray, prev: LSTMState, params: LSTMParams) -> tuple[LSTMState, LSTMCache]:
    """Advance an LSTM by one time step.

        a = x W_ihᵀ + h W_hhᵀ + b;  i, f, o = σ(a_i), σ(a_f), σ(a_o);  g = tanh(a_g)
        c' = f ⊙ c + i ⊙ g;  h' = o ⊙ tanh(c')          (lesson 04, eqs. 4.1-4.6)

    Args:     x: (N, D). prev: h and c, each (N, H). params: see LSTMParams.
    Returns:  The next state, and the cache that lstm_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    Reference: Hochreiter & Schmidhuber 1997; forget gate, Gers et al. 2000.
    """
    check_step(x, prev, params)
    a = x @ params.W_ih.T + prev.h @ params.W_hh.T + params.b  # (N, 4H)
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * prev.c + i * g
    tanh_c = np.tanh(c)
    h = o * tanh_c
    if np.isnan(h).any():
        check_numbers(x=x, h=prev.h, c=prev.c, **params._asdict())
    return LSTMState(h, c), LSTMCache(x, prev, params, i, f, g, o, tanh_c)


def lstm_step_backward(dstate: LSTMState, cache: LSTMCache) -> tuple[np.ndarray, LSTMState, LSTMParams]:
    """Pull dL/dh' and dL/dc' back through one LSTM step.

        do = dh' ⊙ tanh(c');  dc = dc' + dh' ⊙ o ⊙ (1 - tanh²(c'));  di = dc ⊙ g;  df = dc ⊙ c_prev;  dg = dc ⊙ i
        da_s = ds ⊙ s ⊙ (1 - s) for s in i, f, o;  da_g = dg ⊙ (1 - g²);  dc_prev = dc ⊙ f;  dh_prev = da W_hh

    Args:     dstate: dL/dh' and dL/dc' (without the path through h'), each (N, H). cache: from lstm_step_forward.
    Returns:  dx (N, D), dprev (h and c), dparams.
    """
    x, prev, params, i, f, g, o, tanh_c = cache
    check_shapes(h=(tanh_c, "N H"), dh=(dstate.h, "N H"), dc=(dstate.c, "N H"))
    dc = dstate.c + dstate.h * o * (1 - tanh_c * tanh_c)
    da = np.hstack(
        [
            dc * g * i * (1 - i),
            dc * prev.c * f * (1 - f),
            dc * i * (1 - g * g),
            dstate.h * tanh_c * o * (1 - o),
        ]
    )  # (N, 4H)
    dparams = LSTMParams(da.T @ x, da.T @ prev.h, da.sum(0))
    return da @ params.W_ih, LSTMState(da @ params.W_hh, dc * f), dparams


def gru_step_forward(x: np.ndarray, prev: np.ndarray, params: GRUParams) -> tuple[np.ndarray, GRUCache]:
    """Advance a GRU by one time step, in PyTorch's convention: the reset gate acts after the recurrent product.

        r = σ(x W_irᵀ + b_ir + h W_hrᵀ + b_hr);  z = σ(x W_izᵀ + b_iz + h W_hzᵀ + b_hz)
        n = tanh(x W_inᵀ + b_in + r ⊙ (h W_hnᵀ + b_hn));  h' = (1 - z) ⊙ n + z ⊙ h

    Args:     x: (N, D). prev: h, (N, H). params: see GRUParams.
    Returns:  The next state h' (N, H), and the cache that gru_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes. ValueError: NaN in an argument.
    Reference: Cho et al. 2014.
    """
    check_step(x, prev, params)
    x_r, x_z, x_n = np.split(x @ params.W_ih.T + params.b_ih, 3, axis=1)
    h_r, h_z, a_hn = np.split(prev @ params.W_hh.T + params.b_hh, 3, axis=1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * a_hn)
    h = (1 - z) * n + z * prev
    if np.isnan(h).any():
        check_numbers(x=x, prev=prev, **params._asdict())
    return h, GRUCache(x, prev, params, r, z, n, a_hn)


def gru_step_backward(dstate: np.ndarray, cache: GRUCache) -> tuple[np.ndarray, np.ndarray, GRUParams]:
    """Pull dL/dh' back through one GRU step.

        da_n = dh' ⊙ (1 - z) ⊙ (1 - n²);  da_z = dh' ⊙ (h - n) ⊙ z ⊙ (1 - z);  da_r = da_n ⊙ a_hn ⊙ r ⊙ (1 - r)
        on the recurrent side the n rows carry da_n ⊙ r;  dh = dh' ⊙ z + [da_r, da_z, da_n ⊙ r] W_hh

    Args:     dstate: dL/dh' (N, H). cache: from gru_step_forward.
    Returns:  dx (N, D), dprev (N, H), dparams.
    """
    x, prev, params, r, z, n, a_hn = cache
    check_shapes(h=(n, "N H"), dstate=(dstate, "N H"))
    da_n = dstate * (1 - z) * (1 - n * n)
    da_z = dstate * (prev - n) * z * (1 - z)
    da_r = da_n * a_hn * r * (1 - r)
    da_x = np.hstack([da_r, da_z, da_n])  # (N, 3H)
    da_h = np.hstack([da_r, da_z, da_n * r])
    dparams = GRUParams(da_x.T @ x, da_h.T @ prev, da_x.sum(0), da_h.sum(0))
    return da_x @ params.W_ih, dstate * z + da_h @ params.W_hh, dparams


GATES = {RNNParams: 1, LSTMParams: 4, GRUParams: 3}  # blocks of H rows in each weight matrix


def check_step(x: np.ndarray, prev: np.ndarray | LSTMState, params: tuple, axes: str = "N D") -> dict[str, int]:
    """Hold one step's arguments (or, with axes "T N D", a sequence's) to the notation; returns the sizes."""
    rows, name = f"{GATES[type(params)]}H", "prev" if axes == "N D" else "initial"
    wanted = LSTMState if isinstance(params, LSTMParams) else np.ndarray
    if not isinstance(prev, wanted):
        kind = "an LSTMState (h, c)" if wanted is LSTMState else "an array h"
        raise ShapeError(f"{name}: expected {kind} for {type(params).__name__}, got {type(prev).__name__}")
    states = {"h": (prev.h, "N H"), "c": (prev.c, "N H")} if wanted is LSTMState else {name: (prev, "N H")}
    specs = {"W_ih": f"{rows} D", "W_hh": f"{rows} H"}
    weights = {name: (array, specs.get(name, rows)) for name, array in params._asdict().items()}
    return check_shapes(x=(x, axes), **states, **weights)
