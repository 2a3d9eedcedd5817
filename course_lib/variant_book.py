"""The exercises of lessons 04 and 05 on the LSTM's variants and the GRU, forward and backward."""

from __future__ import annotations

import numpy as np

from course_lib import sequence, variants
from course_lib.caches import GRUSequenceCache
from course_lib.cells import GRUParams, LSTMParams, gru_step_backward, gru_step_forward, lstm_step_forward
from course_lib.exercise_book import Exercise, slips
from course_lib.lstm_book import gradient, longer, lstm_like, swapped
from course_lib.rnn_book import draw, sizes, state_of, states_of
from course_lib.trees import map_tree
from course_lib.variants import (
    CoupledParams,
    PeepholeParams,
    coupled_step_backward,
    coupled_step_forward,
    peephole_step_backward,
    peephole_step_forward,
)


def _gru_step(rng: np.random.Generator) -> tuple:
    _, N, D, H = sizes(rng)
    x, h, *weights = draw(rng, (N, D), (N, H), (3 * H, D), (3 * H, H), (3 * H,), (3 * H,))
    return x, h, GRUParams(*weights)


def _gru_backward_loop(dhs: np.ndarray, dfinal: np.ndarray, cache: GRUSequenceCache) -> tuple:
    dx, dh, dparams = np.empty_like(cache.x), dfinal, map_tree(np.zeros_like, cache.params)
    for t in reversed(range(len(dhs))):
        dx[t], dh, step = gru_step_backward(dhs[t] + dh, cache.at(t))
        dparams = map_tree(np.add, dparams, step)
    return dx, dh, dparams


def _gru_forward_loop(x: np.ndarray, initial: np.ndarray, params: GRUParams) -> tuple:
    hs, h = [], initial
    for t in range(len(x)):
        h, _ = gru_step_forward(x[t], h, params)
        hs.append(h)
    return np.stack(hs), h, None


GRU_ORDER = "r z n"
_coupled, _peephole = lstm_like(CoupledParams, 3), lstm_like(PeepholeParams, 4, 3)

VARIANT_EXERCISES: dict[str, Exercise] = {
    "coupled_step_forward": Exercise(
        "4.1",
        coupled_step_forward,
        _coupled,
        [
            *slips(
                coupled_step_forward,
                ("what is not kept is written: i = 1 - f", "(1 - f) * g", "g"),
                ("f keeps the old state, 1 - f writes the new: they are exchanged",
                 "f * prev.c + (1 - f) * g", "(1 - f) * prev.c + f * g"),
                ("the old cell state is missing", "f * prev.c + ", ""),
                ("h = o tanh(C): the tanh is missing", "tanh_c = np.tanh(c)", "tanh_c = c"),
                ("LSTMState(h, c): h stands first", "LSTMState(o * tanh_c, c)", "LSTMState(c, o * tanh_c)"),
            ),
            *swapped(coupled_step_forward, "a_f, a_g, a_o = np", "f g o", "a_"),
        ],
        call=state_of, arguments="x prev params", outputs="state", gates="f g o",
    ),
    "peephole_step_forward": Exercise(
        "4.3",
        peephole_step_forward,
        _peephole,
        [
            ("without peepholes this is the plain LSTM", lambda x, prev, p: lstm_step_forward(x, prev, LSTMParams(*p[:3]))),
            *slips(
                peephole_step_forward,
                ("the output gate peeks at the new C, not at the previous one", "p_o * c)", "p_o * prev.c)"),
                ("the output gate peeks too: p_o", " + p_o * c)", ")"),
                ("i and f peek at the previous C, not at the previous h",
                 "p_i * prev.c", "p_i * prev.h", "p_f * prev.c", "p_f * prev.h"),
                ("the candidate has no peephole", "np.tanh(a_g)", "np.tanh(a_g + p_i * prev.c)"),
            ),
            *swapped(peephole_step_forward, "p_i, p_f, p_o = np", "i f o", "p_"),
        ],
        call=state_of, arguments="x prev params", outputs="state",
    ),
    "gru_step_forward": Exercise(
        "4.4",
        gru_step_forward,
        _gru_step,
        [
            ("this is the other convention: in ours r scales the product, its bias included, not h",
             variants.gru_reset_before_step_forward),
            *slips(
                gru_step_forward,
                ("r scales the bias b_hn as well: r ⊙ (h W_hnᵀ + b_hn)",
                 "n = np.tanh(x_n + r * a_hn)", "b_n = params.b_hh[-len(prev[0]):]; n = np.tanh(x_n + r * (a_hn - b_n) + b_n)"),
                ("z keeps the old state: h' = (1 - z) n + z h; they are exchanged",
                 "(1 - z) * n + z * prev", "z * n + (1 - z) * prev"),
                ("the reset gate is missing", "r * a_hn", "a_hn"),
                ("r multiplies only the part of h: tanh(part of x + r ⊙ part of h)", "x_n + r * a_hn", "r * (x_n + a_hn)"),
                ("the old state is missing: h' = (1 - z) n + z h", " + z * prev", ""),
                ("the candidate goes through tanh, not σ", "np.tanh(x_n", "sigmoid(x_n"),
                ("r and z are swapped: rows r, z, n",
                 "x_r, x_z, x_n = ", "x_z, x_r, x_n = ", "h_r, h_z, a_hn = ", "h_z, h_r, a_hn = "),
                ("there are two biases", " + params.b_hh", ""),
            ),
        ],
        call=state_of, arguments="x prev params", outputs="h", gates=GRU_ORDER,
    ),
    "gru_step_backward": Exercise(
        "5.4",
        gru_step_backward,
        gradient(gru_step_forward, _gru_step),
        [
            *slips(
                gru_step_backward,
                ("h' = (1 - z) n + z h: the direct path dh' z is missing", "dstate * z + da_h", "da_h"),
                ("dz takes h - n", "(prev - n)", "(n - prev)"),
                ("dz takes h - n: the n is missing", "(prev - n)", "prev"),
                ("n enters with 1 - z, not with z", "da_n = dstate * (1 - z)", "da_n = dstate * z"),
                ("the slope of tanh, 1 - n², is missing", " * (1 - n * n)", ""),
                ("the slope of σ, z (1 - z), is missing", " * z * (1 - z)", ""),
                ("the slope of σ, r (1 - r), is missing", " * r * (1 - r)", ""),
                ("dr takes what r multiplied: a_hn = h W_hnᵀ + b_hn", "da_n * a_hn", "da_n * prev"),
                ("on the recurrent side the n rows carry da_n r", "da_z, da_n * r]", "da_z, da_n]"),
                ("on the input side the n rows carry da_n, without r", "da_z, da_n])", "da_z, da_n * r])"),
                ("b_hh is not b_ih: r scales the part of n that b_hh belongs to", "da_h.sum(0)", "da_x.sum(0)"),
            ),
        ],
        arguments="dstate cache", outputs="dx dprev dparams", gates=GRU_ORDER,
    ),
    "peephole_step_backward": Exercise(
        "5.5",
        peephole_step_backward,
        gradient(peephole_step_forward, _peephole),
        [
            *slips(
                peephole_step_backward,
                ("the output gate peeks at C: dc gains da_o p_o", " + da_o * p_o", ""),
                ("i and f peek at the previous C: dC_{t-1} gains da_i p_i + da_f p_f", " + da_i * p_i + da_f * p_f", ""),
                ("f peeks too: dC_{t-1} gains da_f p_f", " + da_f * p_f", ""),
                ("p_o multiplied the new C", "(da_o * c)", "(da_o * prev.c)"),
                ("p_i and p_f multiplied the previous C", "(da_i * prev.c)", "(da_i * c)", "(da_f * prev.c)", "(da_f * c)"),
                ("the peephole weights are shared by the batch: sum over N", "(da_o * c).sum(0)", "(da_o * c).mean(0)"),
                ("dp takes da, the gradient behind σ", "(da_o * c)", "(dstate.h * tanh_c * c)"),
                ("C also has an effect after this step: add what arrives, dstate.c", "dc = dstate.c + ", "dc = "),
            ),
        ],
        arguments="dstate cache", outputs="dx dprev dparams",
    ),
    "gru_forward": Exercise(
        "",
        sequence.gru_forward,
        longer(_gru_step),
        [
            *slips(
                _gru_forward_loop,
                ("each step starts from the state that the step before has left", "x[t], h,", "x[t], initial,"),
                ("start from the initial state that is given, not from zeros", "[], initial", "[], 0 * initial"),
            ),
        ],
        call=states_of, arguments="x initial params", outputs="hs final",
    ),
    "gru_backward": Exercise(
        "",
        sequence.gru_backward,
        gradient(sequence.gru_forward, longer(_gru_step)),
        [
            *slips(
                _gru_backward_loop,
                ("the weights are used at every step: add up over time", "map_tree(np.add, dparams, step)", "step"),
                ("dh arrives from two sides: from the loss at step t, and from step t + 1", "dhs[t] + dh", "dhs[t]"),
                ("each step has a loss of its own: add dhs[t]", "dhs[t] + dh", "dh"),
                ("back-propagation walks from the last step to the first", "reversed(range(len(dhs)))", "range(len(dhs))"),
            ),
        ],
        arguments="dhs dfinal cache", outputs="dx dinitial dparams", gates=GRU_ORDER,
    ),
    "coupled_step_backward": Exercise(
        "",
        coupled_step_backward,
        gradient(coupled_step_forward, _coupled),
        [
            *slips(
                coupled_step_backward,
                ("f writes through 1 - f as well: df = dc (C_prev - g)", "(prev.c - g)", "prev.c"),
                ("dg takes 1 - f", "dc * (1 - f) * (1 - g * g)", "dc * (1 - g * g)"),
            ),
        ],
        arguments="dstate cache", outputs="dx dprev dparams", gates="f g o",
    ),
}  # fmt: skip
