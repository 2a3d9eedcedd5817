"""The exercises of lesson 02: the RNN step and back-propagation through time.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from course_lib.caches import RNNSequenceCache
from course_lib.cells import LSTMState, RNNParams, rnn_step_backward, rnn_step_forward
from course_lib.diagnosis import MisfitError
from course_lib.exercise_book import Exercise, slips
from course_lib.sequence import rnn_backward, rnn_forward
from course_lib.trees import map_tree


def draw(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Normal numbers of these shapes: nothing is zero, no two entries agree; now and then all are large."""
    return [rng.normal(0, 0.7, shape) * rng.choice([1, 1, 1, 5]) for shape in shapes]


def sizes(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """T, N, D, H, all different, so that a transposed array fits nowhere by accident, save where the matrix is square.

    In one of three draws a size is 1.
    """
    T, N, D, H = rng.permutation([2, 3, 4, 5]) if rng.random() < 2 / 3 else rng.permutation([1, 2, 3, 4])
    return int(T), int(N), int(D), int(H)


def upstream(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Gradients from above; now and then so large that clipping would show."""
    return rng.normal(size=shape) * rng.choice([1, 1, 100])


def _states(result: Any, count: int, form: str) -> Any:
    if result is None:
        return None
    if isinstance(result, LSTMState) or not isinstance(result, tuple | list) or len(result) != count:
        raise MisfitError(f"it must return {form}; the cache may be None")
    return result[0] if count == 2 else tuple(result[:-1])


def state_of(function: Callable, *arguments: Any) -> Any:
    """The state that a step returns; its cache is the learner's own affair."""
    return _states(function(*arguments), 2, "(state, cache)")


def states_of(function: Callable, *arguments: Any) -> Any:
    """The states that a sequence returns: (hs, final); its cache is the learner's own affair."""
    return _states(function(*arguments), 3, "(hs, final, cache)")


def _rnn_step(rng: np.random.Generator) -> tuple:
    _, N, D, H = sizes(rng)
    x, h, *params = draw(rng, (N, D), (N, H), (H, D), (H, H), (H,))
    return x, h, RNNParams(*params)


def _rnn_sequence(rng: np.random.Generator) -> tuple:
    T, N, D, H = sizes(rng)
    x, h, *params = draw(rng, (T, N, D), (N, H), (H, D), (H, H), (H,))
    return x, h, RNNParams(*params)


def rnn_step_gradient(rng: np.random.Generator) -> tuple:
    h, cache = rnn_step_forward(*_rnn_step(rng))
    return upstream(rng, h.shape), cache


def _rnn_gradient(rng: np.random.Generator) -> tuple:
    hs, final, cache = rnn_forward(*_rnn_sequence(rng))
    return upstream(rng, hs.shape), upstream(rng, final.shape), cache


def _truncated_gradient(rng: np.random.Generator) -> tuple:
    dhs, _, cache = _rnn_gradient(rng)
    return dhs, cache, int(rng.integers(1, len(dhs) + 2))


def _rnn_forward_loop(x: np.ndarray, initial: np.ndarray, params: RNNParams) -> tuple:
    hs, h = [], initial
    for t in range(len(x)):
        h, _ = rnn_step_forward(x[t], h, params)
        hs.append(h)
    return np.stack(hs), h, None


def _rnn_backward_loop(dhs: np.ndarray, dfinal: np.ndarray, cache: RNNSequenceCache) -> tuple:
    x, hs, (W_ih, W_hh, b), _ = cache
    dx, dh = np.empty_like(x), dfinal
    dW_ih, dW_hh, db = np.zeros_like(W_ih), np.zeros_like(W_hh), np.zeros_like(b)
    for t in reversed(range(len(x))):
        dh = dh + dhs[t]
        da = dh * (1 - hs[t + 1] ** 2)
        dx[t] = da @ W_ih
        dW_ih += da.T @ x[t]
        dW_hh += da.T @ hs[t]
        db += da.sum(0)
        dh = da @ W_hh
    return dx, dh, RNNParams(dW_ih, dW_hh, db)


def rnn_truncated_backward(dhs: np.ndarray, cache: RNNSequenceCache, k: int) -> tuple[np.ndarray, RNNParams]:
    """Truncated back-propagation through time: the gradient is cut at the borders of chunks of k steps (lesson 02).

    Args:     dhs: dL/dhs (T, N, H). cache: from rnn_forward. k: at least 1; from T on this is full back-propagation.
    Returns:  dx (T, N, D), dparams.
    Reference: Williams & Peng 1990.
    """
    dx, total, borders = [], map_tree(np.zeros_like, cache.params), [*range(0, len(dhs), k), len(dhs)]
    for start, end in pairwise(borders):
        chunk = cache._replace(x=cache.x[start:end], hs=cache.hs[start : end + 1])
        dx_chunk, _, dparams = rnn_backward(dhs[start:end], np.zeros_like(cache.hs[0]), chunk)
        dx.append(dx_chunk)
        total = map_tree(np.add, total, dparams)
    return np.concatenate(dx), total


RNN_EXERCISES: dict[str, Exercise] = {
    "rnn_step_forward": Exercise(
        "2.1",
        rnn_step_forward,
        _rnn_step,
        [
            *slips(
                rnn_step_forward,
                ("without tanh the whole network is one linear map", "np.tanh(", "("),
                ("the bias is missing", " + params.b)", ")"),
                ("the state before this step is missing", "prev @ params.W_hh.T", "0"),
                ("samples are rows: h @ W_hh.T; without .T it fits too, since W_hh is square", "W_hh.T", "W_hh"),
                ("the input is missing", "x @ params.W_ih.T", "0"),
            ),
        ],
        call=state_of, arguments="x prev params", outputs="h",
    ),
    "rnn_step_backward": Exercise(
        "2.2",
        rnn_step_backward,
        rnn_step_gradient,
        [
            *slips(
                rnn_step_backward,
                ("the slope of tanh, 1 - h², is missing", "* (1 - h * h)", "* 1"),
                ("the slope of tanh at a is 1 - tanh²(a) = 1 - h²; h is tanh(a) already", "h * h", "np.tanh(h) ** 2"),
                ("the square is missing: 1 - h²", "h * h", "h"),
                ("the slope is that of this step's h, not of the previous one", "h * h", "prev * prev"),
                ("W_hh multiplied the previous state: its gradient is daᵀ h_{t-1}, not daᵀ h_t", "da.T @ prev", "da.T @ h"),
                ("dh_{t-1} = da W_hh; with .T it fits too, since W_hh is square", "da @ params.W_hh", "da @ params.W_hh.T"),
                ("the bias is shared by the batch: sum over N, not the mean", "da.sum(0)", "da.mean(0)"),
                ("dW_hh is daᵀ h_{t-1}; this is its transpose", "da.T @ prev", "prev.T @ da"),
                ("everything behind tanh takes da, not dh", "return da @", "return dstate @"),
            ),
        ],
        arguments="dstate cache", outputs="dx dprev dparams",
    ),
    "rnn_backward": Exercise(
        "2.3",
        rnn_backward,
        _rnn_gradient,
        [
            *slips(
                _rnn_backward_loop,
                ("the weights are used at every step: add up over time, += instead of =",
                 "dW_ih +=", "dW_ih =", "dW_hh +=", "dW_hh =", "db +=", "db ="),
                ("dW_ih too is a sum over time: +=", "dW_ih +=", "dW_ih ="),
                ("dW_hh too is a sum over time: +=", "dW_hh +=", "dW_hh ="),
                ("db too is a sum over time: +=", "db +=", "db ="),
                ("dh arrives from two sides: from the loss at step t, and from step t + 1", "dh = dh + dhs[t]", "dh = dhs[t]"),
                ("each step has a loss of its own: add dhs[t]", "dh = dh + dhs[t]", "dh = dh"),
                ("the final state has a gradient too: start from dfinal",
                 "np.empty_like(x), dfinal", "np.empty_like(x), 0 * dfinal"),
                ("back-propagation walks from the last step to the first", "reversed(range(len(x)))", "range(len(x))"),
                ("hs[0] is the initial state: step t's output is hs[t + 1]", "hs[t + 1]", "hs[t]"),
                ("W_hh multiplied the state before the step, hs[t]", "da.T @ hs[t]", "da.T @ hs[t + 1]"),
                ("what goes back to step t - 1 passes W_hh: dh = da @ W_hh", "dh = da @ W_hh", "dh = da"),
                ("only what has passed the step goes on: dh = da @ W_hh replaces the old dh",
                 "dh = da @ W_hh", "dh = dh + da @ W_hh"),
                ("dh_{t-1} = da W_hh; with .T it fits too, since W_hh is square", "da @ W_hh", "da @ W_hh.T"),
                ("dinitial is what the loop has carried past the first step", "return dx, dh,", "return dx, dhs[0],"),
            ),
        ],
        arguments="dhs dfinal cache", outputs="dx dinitial dparams",
    ),
    "rnn_truncated_backward": Exercise(
        "2.4",
        rnn_truncated_backward,
        _truncated_gradient,
        [
            *slips(
                rnn_truncated_backward,
                ("the gradient is never cut", "range(0, len(dhs), k)", "[0]"),
                ("the cut is at the wrong steps: chunks are counted from the first step; the last of each receives nothing",
                 "*range(0, len(dhs), k)", "0, *range(1, len(dhs), k)"),
                ("the cut removes what comes from later steps, not the loss of step t itself",
                 "(dhs[start:end],", "(dhs[start:end] * ((np.arange(start, end) + 1) % k > 0)[:, None, None],"),
                ("only the gradient is cut: dW_hh still takes the carried state hs[t]",
                 "cache.hs[start : end + 1]", "np.concatenate([0 * cache.hs[:1], cache.hs[start + 1 : end + 1]])"),
                ("the chunks' gradients add up: do not start anew in each",
                 "map_tree(np.add, total, dparams)", "total if start else dparams"),
                ("that cuts at every step", "range(0, len(dhs), k)", "range(len(dhs))"),
            ),
        ],
        arguments="dhs cache k", outputs="dx dparams",
    ),
    "rnn_forward": Exercise(
        "",
        rnn_forward,
        _rnn_sequence,
        [
            *slips(
                _rnn_forward_loop,
                ("each step starts from the state that the step before has left", "x[t], h,", "x[t], initial,"),
                ("start from the initial state that is given, not from zeros", "[], initial", "[], 0 * initial"),
                ("hs[t] is the state after step t, not before", "np.stack(hs)", "np.stack([initial, *hs[:-1]])"),
            ),
        ],
        call=states_of, arguments="x initial params", outputs="hs final",
    ),
}  # fmt: skip
