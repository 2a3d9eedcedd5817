"""The exercises of lessons 04 and 05 on the LSTM itself, forward and backward.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from course_lib import sequence
from course_lib.caches import LSTMSequenceCache
from course_lib.cells import (
    LSTMCache,
    LSTMParams,
    LSTMState,
    lstm_step_backward,
    lstm_step_forward,
)
from course_lib.exercise_book import Exercise, Problem, edited, slips
from course_lib.rnn_book import draw, sizes, state_of, states_of, upstream
from course_lib.trees import map_tree


def lstm_like(params: type, gates: int, peepholes: int = 0) -> Problem:
    def problem(rng: np.random.Generator) -> tuple:
        _, N, D, H = sizes(rng)
        x, h, c, *weights = draw(rng, (N, D), (N, H), (N, H), (gates * H, D), (gates * H, H), (gates * H,))
        return x, LSTMState(h, c), params(*weights, *draw(rng, *[(peepholes * H,)] * bool(peepholes)))

    return problem


def longer(step: Problem) -> Problem:
    """The arguments of a sequence from those of a step."""

    def problem(rng: np.random.Generator) -> tuple:
        x, initial, params = step(rng)
        return rng.normal(size=(int(rng.choice([1, 2, 3, 4, 5])), *x.shape)), initial, params

    return problem


def _padded(step: Problem) -> Problem:
    def problem(rng: np.random.Generator) -> tuple:
        x, initial, params = longer(step)(rng)
        lengths = rng.integers(0, len(x) + 1, x.shape[1])
        return x, initial, params, None if rng.random() < 0.3 else lengths

    return problem


def gradient(forward: Callable, problem: Problem) -> Problem:
    """(dstate, cache) of a step, (dhs, dfinal, cache) of a sequence."""

    def draw_gradient(rng: np.random.Generator) -> tuple:
        *states, cache = forward(*problem(rng))
        return (*map_tree(lambda a: upstream(rng, a.shape), tuple(states)), cache)

    return draw_gradient


def lstm_output_gradients(dstate: LSTMState, cache: LSTMCache) -> tuple[np.ndarray, np.ndarray]:
    """dL/do_t, and the total dL/dC_t of one step: what arrives, and what comes through h_t (lesson 05).

    Args:     dstate: dL/dh_t and the dL/dC_t that arrives from the next step, each (N, H). cache: from lstm_step_forward.
    Returns:  do (N, H), dc (N, H).
    """
    do = dstate.h * cache.tanh_c
    dc = dstate.c + dstate.h * cache.o * (1 - cache.tanh_c**2)
    return do, dc


def _lstm_forward_loop(x: np.ndarray, initial: LSTMState, params: LSTMParams, lengths: np.ndarray | None) -> tuple:
    hs, state = [], initial
    for t in range(len(x)):
        new, _ = lstm_step_forward(x[t], state, params)
        real = np.ones((x.shape[1], 1)) if lengths is None else (t < np.asarray(lengths))[:, None]
        state = LSTMState(np.where(real, new.h, state.h), np.where(real, new.c, state.c))
        hs.append(np.where(real, new.h, 0))
    return np.stack(hs), state, None


def _lstm_backward_loop(dhs: np.ndarray, dfinal: LSTMState, cache: LSTMSequenceCache) -> tuple:
    dx, dparams = np.empty_like(cache.x), map_tree(np.zeros_like, cache.params)
    dh, dc = dfinal
    for t in reversed(range(len(dhs))):
        dx[t], (dh, dc), step = lstm_step_backward(LSTMState(dhs[t] + dh, dc), cache.at(t))
        dparams = map_tree(np.add, dparams, step)
    return dx, LSTMState(dh, dc), dparams


def swapped(function: Callable, line: str, gates: str, offset: str = "") -> list[tuple[str, Callable]]:
    """Every pair of gates confused in the line that names them."""
    names = gates.split()
    found = []
    for a, b in combinations(range(len(names)), 2):
        order = list(names)
        order[a], order[b] = order[b], order[a]
        wrong = line.replace(", ".join(f"{offset}{n}" for n in names), ", ".join(f"{offset}{n}" for n in order))
        hint = f"the gates stand in the order {', '.join(names)}: {names[a]} and {names[b]} are swapped"
        found.append((hint, edited(function, (line, wrong))))
    return found


LSTM_ORDER = "i f g o"
_lstm = lstm_like(LSTMParams, 4)

LSTM_EXERCISES: dict[str, Exercise] = {
    "lstm_step_forward": Exercise(
        "4.2",
        lstm_step_forward,
        _lstm,
        [
            *swapped(lstm_step_forward, "a_i, a_f, a_g, a_o = np", LSTM_ORDER, "a_"),
            *slips(
                lstm_step_forward,
                ("the candidate goes through tanh, not σ", "np.tanh(a_g)", "sigmoid(a_g)"),
                ("the gates go through σ, not tanh", "sigmoid(a_i), sigmoid(a_f)", "np.tanh(a_i), np.tanh(a_f)"),
                ("h = o tanh(C): the tanh is missing", "tanh_c = np.tanh(c)", "tanh_c = c"),
                ("the output gate is missing: h = o tanh(C)", "h = o * tanh_c", "h = tanh_c"),
                ("the input gate is missing: C = f C + i g", " + i * g", " + g"),
                ("the forget gate is missing: C = f C + i g", "f * prev.c", "prev.c"),
                ("the old cell state is missing: C = f C + i g", "f * prev.c + ", ""),
                ("f multiplies the previous C, not the previous h", "f * prev.c", "f * prev.h"),
                ("the gates read the previous h, not the previous C", "prev.h @ params", "prev.c @ params"),
                ("h comes from the new C, not from the old one", "np.tanh(c)", "np.tanh(prev.c)"),
                ("the bias is missing", ".T + params.b", ".T"),
                ("[h, x] goes with [W_hh, W_ih]: the two matrices are exchanged",
                 "x @ params.W_ih.T + prev.h @ params.W_hh.T", "np.hstack([prev.h, x]) @ np.hstack(params[:2]).T"),
                ("every gate has a bias of its own: rows i, f, g, o of b",
                 "params.b  #", "np.tile(params.b[-prev.h.shape[1]:], 4)  #"),
                ("the gates read the previous h as well: the product with W_hh is missing", " + prev.h @ params.W_hh.T", ""),
            ),
        ],
        call=state_of, arguments="x prev params", outputs="state", gates=LSTM_ORDER,
    ),
    "lstm_forward": Exercise(
        "4.5",
        sequence.lstm_forward,
        _padded(_lstm),
        [
            *slips(
                _lstm_forward_loop,
                ("each step starts from the state that the step before has left", "x[t], state,", "x[t], initial,"),
                ("the cell state is carried as well as h", "x[t], state,", "x[t], LSTMState(state.h, initial.c),"),
                ("start from the initial state that is given, not from zeros",
                 "[], initial", "[], LSTMState(0 * initial.h, 0 * initial.c)"),
                ("a padded step changes no state: the final state is that after the last real step",
                 "state = LSTMState(np.where(real, new.h, state.h), np.where(real, new.c, state.c))", "state = new"),
                ("the output of a padded step is 0", "np.where(real, new.h, 0)", "state.h"),
                ("a padded step keeps the old state; only its output is 0",
                 "state = LSTMState(np.where(real, new.h, state.h), np.where(real, new.c, state.c))",
                 "state = LSTMState(np.where(real, new.h, 0), np.where(real, new.c, 0))"),
                ("lengths is not looked at: a step with t >= lengths is padding",
                 "(t < np.asarray(lengths))[:, None]", "np.ones((x.shape[1], 1))"),
                ("lengths counts real steps: step t is real where t < lengths", "t < np", "t <= np"),
                ("hs[t] is the state after step t, not before", "np.stack(hs)", "np.stack([initial.h, *hs[:-1]])"),
            ),
        ],
        call=states_of, arguments="x initial params lengths", outputs="hs final",
    ),
    "lstm_output_gradients": Exercise(
        "5.1",
        lstm_output_gradients,
        gradient(lstm_step_forward, _lstm),
        [
            *slips(
                lstm_output_gradients,
                ("h = o tanh(C): do takes tanh(C), not C",
                 "dstate.h * cache.tanh_c\n", "dstate.h * np.arctanh(cache.tanh_c)\n"),
                ("do is the gradient of the gate, before the slope o (1 - o)",
                 "dstate.h * cache.tanh_c\n", "dstate.h * cache.tanh_c * cache.o * (1 - cache.o)\n"),
                ("C also has an effect after this step: add what arrives, dstate.c", "dstate.c + ", ""),
                ("h depends on C: the path through h_t is missing", " + dstate.h * cache.o * (1 - cache.tanh_c**2)", ""),
                ("the slope 1 - tanh²(C) is missing", " * (1 - cache.tanh_c**2)", ""),
                ("the slope is 1 - tanh²(C), with the square", "cache.tanh_c**2", "cache.tanh_c"),
                ("the order is do, dc", "return do, dc", "return dc, do"),
                ("the factor o is missing: h = o tanh(C)", "cache.o * (1", "(1"),
            ),
        ],
        arguments="dstate cache", outputs="do dc",
    ),
    "lstm_step_backward": Exercise(
        "5.2",
        lstm_step_backward,
        gradient(lstm_step_forward, _lstm),
        [
            *slips(
                lstm_step_backward,
                ("C also has an effect after this step: add what arrives, dstate.c", "dc = dstate.c + ", "dc = "),
                ("h depends on C: the path through h_t is missing", " + dstate.h * o * (1 - tanh_c * tanh_c)", ""),
                ("the slope 1 - tanh²(C) is missing", " * (1 - tanh_c * tanh_c)", ""),
                ("the slope is 1 - tanh²(C), with the square", "(1 - tanh_c * tanh_c)", "(1 - tanh_c)"),
                ("the factor o is missing in the path through h_t", "dstate.h * o * (1 -", "dstate.h * (1 -"),
                ("C = f C_prev + i g: di takes g", "dc * g * i", "dc * i"),
                ("C = f C_prev + i g: df takes the previous C, not the new one",
                 "dc * prev.c * f", "dc * np.arctanh(tanh_c) * f"),
                ("C = f C_prev + i g: dg takes i", "dc * i * (1 - g * g)", "dc * (1 - g * g)"),
                ("the slope of σ, i (1 - i), is missing", " * i * (1 - i)", ""),
                ("the slope of σ, f (1 - f), is missing", " * f * (1 - f)", ""),
                ("the slope of σ, o (1 - o), is missing", " * tanh_c * o * (1 - o)", " * tanh_c"),
                ("the slope of tanh, 1 - g², is missing", " * (1 - g * g)", ""),
                ("g is tanh(a) already: its slope is 1 - g², not 1 - tanh²(g)", "(1 - g * g)", "(1 - np.tanh(g) ** 2)"),
                ("the gradient of C_{t-1} is dc f", "dc * f)", "dc)"),
                ("dprev is LSTMState(h, c), in this order",
                 "LSTMState(da @ params.W_hh, dc * f)", "LSTMState(dc * f, da @ params.W_hh)"),
                ("what flows back along C is the total dc, not only what arrived", "dc * f)", "dstate.c * f)"),
                ("W_hh multiplied the previous h: daᵀ h_{t-1}", "da.T @ prev.h", "da.T @ (o * tanh_c)"),
                ("W_hh multiplied the previous h, not the previous C", "da.T @ prev.h", "da.T @ prev.c"),
                ("the bias is shared by the batch: sum over N, not the mean", "da.sum(0)", "da.mean(0)"),
                ("every gate has a bias of its own", "da.sum(0)", "np.tile(da[:, -f.shape[1]:].sum(0), 4)"),
            ),
        ],
        arguments="dstate cache", outputs="dx dprev dparams", gates=LSTM_ORDER,
    ),
    "lstm_backward": Exercise(
        "5.3",
        sequence.lstm_backward,
        gradient(sequence.lstm_forward, longer(_lstm)),
        [
            *slips(
                _lstm_backward_loop,
                ("the weights are used at every step: add up over time", "map_tree(np.add, dparams, step)", "step"),
                ("dh arrives from two sides: from the loss at step t, and from step t + 1", "dhs[t] + dh", "dhs[t]"),
                ("each step has a loss of its own: add dhs[t]", "dhs[t] + dh", "dh"),
                ("two gradients flow back, dh and dc: dc is dropped", "+ dh, dc)", "+ dh, 0 * dc)"),
                ("the final state has gradients too: start from dfinal",
                 "dh, dc = dfinal\n", "dh, dc = 0 * dfinal.h, 0 * dfinal.c\n"),
                ("add dhs[t] before the step goes back, not after it",
                 "dhs[t] + dh, dc), cache.at(t))", "dh, dc), cache.at(t)); dh = dh + dhs[t]"),
                ("the final C has a gradient too: start from dfinal", "dh, dc = dfinal\n", "dh, dc = dfinal.h, 0 * dfinal.c\n"),
                ("the final h has a gradient too: start from dfinal", "dh, dc = dfinal\n", "dh, dc = 0 * dfinal.h, dfinal.c\n"),
                ("back-propagation walks from the last step to the first", "reversed(range(len(dhs)))", "range(len(dhs))"),
                ("that uses the cache of another step", "cache.at(t)", "cache.at(max(t - 1, 0))"),
                ("the last step is not visited", "range(len(dhs))", "range(len(dhs) - 1)", "np.empty_like(", "np.zeros_like("),
                ("dinitial is what the loop has carried past the first step",
                 "return dx, LSTMState(dh, dc)", "return dx, dfinal"),
                ("dh already holds the step's share: adding dhs[t] once is enough", "dhs[t] + dh,", "2 * dhs[t] + dh,"),
            ),
        ],
        arguments="dhs dfinal cache", outputs="dx dinitial dparams", gates=LSTM_ORDER,
    ),
}  # fmt: skip
