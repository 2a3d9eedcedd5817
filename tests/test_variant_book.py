"""Right answers to the exercises on variants and the GRU, written in other ways, are accepted."""

import numpy as np

from course_lib import variant_book
from course_lib.cells import GRUParams, LSTMParams, LSTMState, gru_step_backward, lstm_step_forward
from course_lib.exercises import check
from course_lib.trees import map_tree


def sigma(a):
    return 1 / (1 + np.exp(-a))


def test_coupled_as_an_lstm_with_tied_weights():
    def tied(x, prev, params):
        H = prev.h.shape[1]
        return lstm_step_forward(x, prev, LSTMParams(*(np.concatenate([-rows[:H], rows]) for rows in params)))

    assert check("coupled_step_forward", tied).passed


def test_peephole_by_diagonal_matrices():
    def diagonal(x, prev, params):
        p_i, p_f, p_o = (np.diag(p) for p in np.split(params.p, 3))
        a_i, a_f, a_g, a_o = np.split(x @ params.W_ih.T + prev.h @ params.W_hh.T + params.b, 4, axis=1)
        c = sigma(a_f + prev.c @ p_f) * prev.c + sigma(a_i + prev.c @ p_i) * np.tanh(a_g)
        return LSTMState(sigma(a_o + c @ p_o) * np.tanh(c), c), None

    assert check("peephole_step_forward", diagonal).passed


def test_gru_gate_by_gate():
    def gates(x, h, params):
        (W_r, W_z, W_n), (U_r, U_z, U_n) = np.split(params.W_ih, 3), np.split(params.W_hh, 3)
        (b_r, b_z, b_n), (d_r, d_z, d_n) = np.split(params.b_ih, 3), np.split(params.b_hh, 3)
        r, z = sigma(x @ W_r.T + h @ U_r.T + b_r + d_r), sigma(x @ W_z.T + h @ U_z.T + b_z + d_z)
        n = np.tanh(x @ W_n.T + b_n + r * (h @ U_n.T + d_n))
        return n + z * (h - n), None

    def backward(dh, cache):
        x, h, params, r, z, n, a_hn = cache
        (W_r, W_z, W_n), (U_r, U_z, U_n) = np.split(params.W_ih, 3), np.split(params.W_hh, 3)
        dn, dz = dh * (1 - z) * (1 - n**2), dh * (h - n) * z * (1 - z)
        dr = dn * a_hn * r * (1 - r)
        dx, dprev = dr @ W_r + dz @ W_z + dn @ W_n, dh * z + dr @ U_r + dz @ U_z + (dn * r) @ U_n
        of_x, of_h = (dr, dz, dn), (dr, dz, dn * r)
        weights = (np.vstack([d.T @ right for d in ds]) for ds, right in ((of_x, x), (of_h, h)))
        return dx, dprev, (*weights, *(np.concatenate([d.sum(0) for d in ds]) for ds in (of_x, of_h)))

    def single(dh, cache):
        return gru_step_backward(*map_tree(lambda a: a.astype(np.float32), (dh, cache)))

    assert check("gru_step_forward", gates).passed
    assert check("gru_step_backward", backward).passed
    assert check("gru_step_backward", single).passed


def test_sequences():
    assert check("gru_forward", variant_book._gru_forward_loop).passed
    assert check("gru_backward", variant_book._gru_backward_loop).passed


def test_peephole_backward_through_one_more_input():
    """A peephole is a diagonal weight on an input that happens to be a cell state."""

    def backward(dstate, cache):
        x, prev, params, i, f, g, o, c = cache
        H = i.shape[1]
        P = np.concatenate([np.diag(p) for p in np.split(params.p, 3)])  # (3H, H)
        da_o = dstate.h * np.tanh(c) * o * (1 - o)
        dc = dstate.c + dstate.h * o / np.cosh(c) ** 2 + da_o @ P[2 * H :]
        da_if = np.hstack([dc * g * i * (1 - i), dc * prev.c * f * (1 - f)])
        da = np.hstack([da_if, dc * i * (1 - g**2), da_o])
        dp = np.concatenate([np.diag(part) for part in np.split(np.vstack([da_if.T @ prev.c, da_o.T @ c]), 3)])
        dprev = LSTMState(da @ params.W_hh, dc * f + da_if @ P[: 2 * H])
        return da @ params.W_ih, dprev, (da.T @ x, da.T @ prev.h, da.sum(0), dp)

    assert check("peephole_step_backward", backward).passed


def test_the_biases_of_a_gru_are_two():
    def merged(dh, cache):
        dx, dprev, d = gru_step_backward(dh, cache)
        return dx, dprev, GRUParams(d.W_ih, d.W_hh, d.b_ih, d.b_ih)

    assert not check("gru_step_backward", merged).passed
