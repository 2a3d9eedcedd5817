"""Variants of the cells: peephole LSTM, coupled gates, and the GRU with the reset gate before the product (lesson 04).

One step each, forward and backward, as in ``cells``: samples are rows, gradients have the type of what they differentiate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.cells import GRUParams, LSTMState
from course_lib.layers import sigmoid
from course_lib.shapes import check_shapes


class PeepholeParams(NamedTuple):
    W_ih: np.ndarray  # (4H, D), gate rows i, f, g, o
    W_hh: np.ndarray  # (4H, H)
    b: np.ndarray  # (4H,)
    p: np.ndarray  # (3H,): p_i, p_f, p_o, one weight a unit


class CoupledParams(NamedTuple):
    W_ih: np.ndarray  # (3H, D), gate rows f, g, o
    W_hh: np.ndarray  # (3H, H)
    b: np.ndarray  # (3H,)


class PeepholeCache(NamedTuple):
    x: np.ndarray
    prev: LSTMState
    params: PeepholeParams
    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    c: np.ndarray


class CoupledCache(NamedTuple):
    x: np.ndarray
    prev: LSTMState
    params: CoupledParams
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    tanh_c: np.ndarray


class ResetBeforeCache(NamedTuple):
    x: np.ndarray
    prev: np.ndarray
    params: GRUParams
    r: np.ndarray
    z: np.ndarray
    n: np.ndarray


def peephole_step_forward(x: np.ndarray, prev: LSTMState, params: PeepholeParams) -> tuple[LSTMState, PeepholeCache]:
    """Advance an LSTM whose gates see the cell state: i and f the previous one, o the new one.

        a = x W_ihᵀ + h W_hhᵀ + b;  i = σ(a_i + p_i ⊙ c);  f = σ(a_f + p_f ⊙ c);  g = tanh(a_g)
        c' = f ⊙ c + i ⊙ g;  o = σ(a_o + p_o ⊙ c');  h' = o ⊙ tanh(c')

    Args:     x: (N, D). prev: h and c, each (N, H). params: see PeepholeParams.
    Returns:  The next state, and the cache that peephole_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes.
    Reference: Gers & Schmidhuber 2000.
    """
    _check(x, prev, params, "4H", p=(params.p, "3H"))
    a_i, a_f, a_g, a_o = np.split(_pre_activation(x, prev.h, params), 4, axis=1)
    p_i, p_f, p_o = np.split(params.p, 3)
    i, f, g = sigmoid(a_i + p_i * prev.c), sigmoid(a_f + p_f * prev.c), np.tanh(a_g)
    c = f * prev.c + i * g
    o = sigmoid(a_o + p_o * c)
    return LSTMState(o * np.tanh(c), c), PeepholeCache(x, prev, params, i, f, g, o, c)


def peephole_step_backward(dstate: LSTMState, cache: PeepholeCache) -> tuple[np.ndarray, LSTMState, PeepholeParams]:
    """Pull dL/dh' and dL/dc' back through one peephole step.

        da_o = dh' ⊙ tanh(c') ⊙ o ⊙ (1 - o);  dc = dc' + dh' ⊙ o ⊙ (1 - tanh²(c')) + da_o ⊙ p_o
        da_i, da_f, da_g as in the LSTM;  dc_prev = dc ⊙ f + da_i ⊙ p_i + da_f ⊙ p_f

    Args:     dstate: dL/dh' and dL/dc' (without the paths through h' and o), each (N, H). cache: from peephole_step_forward.
    Returns:  dx (N, D), dprev (h and c), dparams.
    """
    x, prev, params, i, f, g, o, c = cache
    p_i, p_f, p_o = np.split(params.p, 3)
    tanh_c = np.tanh(c)
    da_o = dstate.h * tanh_c * o * (1 - o)
    dc = dstate.c + dstate.h * o * (1 - tanh_c * tanh_c) + da_o * p_o
    da_i, da_f, da_g = dc * g * i * (1 - i), dc * prev.c * f * (1 - f), dc * i * (1 - g * g)
    da = np.hstack([da_i, da_f, da_g, da_o])  # (N, 4H)
    dp = np.concatenate([(da_i * prev.c).sum(0), (da_f * prev.c).sum(0), (da_o * c).sum(0)])
    dprev = LSTMState(da @ params.W_hh, dc * f + da_i * p_i + da_f * p_f)
    return da @ params.W_ih, dprev, PeepholeParams(da.T @ x, da.T @ prev.h, da.sum(0), dp)


def coupled_step_forward(x: np.ndarray, prev: LSTMState, params: CoupledParams) -> tuple[LSTMState, CoupledCache]:
    """Advance an LSTM that writes exactly as much as it forgets: i = 1 - f.

        a = x W_ihᵀ + h W_hhᵀ + b;  f, o = σ(a_f), σ(a_o);  g = tanh(a_g);  c' = f ⊙ c + (1 - f) ⊙ g;  h' = o ⊙ tanh(c')

    Args:     x: (N, D). prev: h and c, each (N, H). params: see CoupledParams.
    Returns:  The next state, and the cache that coupled_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes.
    Reference: Greff et al. 2017 (CIFG).
    """
    _check(x, prev, params, "3H")
    a_f, a_g, a_o = np.split(_pre_activation(x, prev.h, params), 3, axis=1)
    f, g, o = sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * prev.c + (1 - f) * g
    tanh_c = np.tanh(c)
    return LSTMState(o * tanh_c, c), CoupledCache(x, prev, params, f, g, o, tanh_c)


def coupled_step_backward(dstate: LSTMState, cache: CoupledCache) -> tuple[np.ndarray, LSTMState, CoupledParams]:
    """Pull dL/dh' and dL/dc' back through one coupled step: the LSTM's equations with df = dc ⊙ (c_prev - g).

    Args:     dstate: dL/dh' and dL/dc' (without the path through h'), each (N, H). cache: from coupled_step_forward.
    Returns:  dx (N, D), dprev (h and c), dparams.
    """
    x, prev, params, f, g, o, tanh_c = cache
    dc = dstate.c + dstate.h * o * (1 - tanh_c * tanh_c)
    da_f, da_g = dc * (prev.c - g) * f * (1 - f), dc * (1 - f) * (1 - g * g)
    da = np.hstack([da_f, da_g, dstate.h * tanh_c * o * (1 - o)])  # (N, 3H)
    dparams = CoupledParams(da.T @ x, da.T @ prev.h, da.sum(0))
    return da @ params.W_ih, LSTMState(da @ params.W_hh, dc * f), dparams


def gru_reset_before_step_forward(x: np.ndarray, prev: np.ndarray, params: GRUParams) -> tuple[np.ndarray, ResetBeforeCache]:
    """Advance a GRU in the convention of its first paper: the reset gate acts on h before the recurrent product.

        r, z as in gru_step_forward;  n = tanh(x W_inᵀ + b_in + (r ⊙ h) W_hnᵀ + b_hn);  h' = (1 - z) ⊙ n + z ⊙ h

    Here b_ih and b_hh are redundant (only their sum counts), and the product of n must wait for r.

    Args:     x: (N, D). prev: h, (N, H). params: see GRUParams.
    Returns:  The next state h' (N, H), and the cache that gru_reset_before_step_backward needs.
    Raises:   ShapeError: naming the argument, the axis and the sizes.
    Reference: Cho et al. 2014.
    """
    H = check_shapes(
        x=(x, "N D"), prev=(prev, "N H"), W_ih=(params.W_ih, "3H D"), W_hh=(params.W_hh, "3H H"),
        b_ih=(params.b_ih, "3H"), b_hh=(params.b_hh, "3H"),
    )["H"]  # fmt: skip
    a = x @ params.W_ih.T + params.b_ih + params.b_hh  # (N, 3H)
    r, z = np.split(sigmoid(a[:, : 2 * H] + prev @ params.W_hh[: 2 * H].T), 2, axis=1)
    n = np.tanh(a[:, 2 * H :] + (r * prev) @ params.W_hh[2 * H :].T)
    return (1 - z) * n + z * prev, ResetBeforeCache(x, prev, params, r, z, n)


def gru_reset_before_step_backward(dstate: np.ndarray, cache: ResetBeforeCache) -> tuple[np.ndarray, np.ndarray, GRUParams]:
    """Pull dL/dh' back: the n rows reach h through r ⊙ h, whose gradient is da_n W_hn.

    Args:     dstate: dL/dh' (N, H). cache: from gru_reset_before_step_forward.
    Returns:  dx (N, D), dprev (N, H), dparams.
    """
    x, prev, params, r, z, n = cache
    H = n.shape[1]
    W_rz, W_n = params.W_hh[: 2 * H], params.W_hh[2 * H :]
    da_n = dstate * (1 - z) * (1 - n * n)
    drh = da_n @ W_n  # of r ⊙ h
    da_z, da_r = dstate * (prev - n) * z * (1 - z), drh * prev * r * (1 - r)
    da_rz = np.hstack([da_r, da_z])
    da = np.hstack([da_rz, da_n])  # (N, 3H)
    dW_hh = np.vstack([da_rz.T @ prev, da_n.T @ (r * prev)])
    dprev = dstate * z + drh * r + da_rz @ W_rz
    return da @ params.W_ih, dprev, GRUParams(da.T @ x, dW_hh, da.sum(0), da.sum(0))


def _pre_activation(x: np.ndarray, h: np.ndarray, params: PeepholeParams | CoupledParams) -> np.ndarray:
    return x @ params.W_ih.T + h @ params.W_hh.T + params.b


def _check(x: np.ndarray, prev: LSTMState, params: PeepholeParams | CoupledParams, rows: str, **more: tuple) -> None:
    weights = {"W_ih": (params.W_ih, f"{rows} D"), "W_hh": (params.W_hh, f"{rows} H"), "b": (params.b, rows)}
    check_shapes(x=(x, "N D"), h=(prev.h, "N H"), c=(prev.c, "N H"), **weights, **more)
