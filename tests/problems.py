"""Random problems for recurrent cells, without special values: parameters, states, losses on every output; and references.

The slow references run the step functions of ``cells``, one stream at a time and without any array for a whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings

from course_lib import cells, sequence
from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams
from course_lib.gradcheck import gradient_check
from course_lib.stacked import Bidirectional
from course_lib.trees import leaves, map_tree, named_leaves

few = settings(max_examples=25)  # random examples, where each is a whole recurrent network


class Problem(NamedTuple):
    """A sequence's arguments, and gradients that come from above."""

    x: np.ndarray
    initial: Any
    params: Any
    lengths: np.ndarray | None
    dhs: np.ndarray
    dfinal: Any


class Cell(NamedTuple):
    """Everything that differs between the three kinds."""

    params: type
    gates: int
    step_forward: Callable
    step_backward: Callable
    forward: Callable
    backward: Callable


def _cell(name: str, params: type, gates: int) -> Cell:
    steps = (getattr(cells, f"{name}_step_{way}") for way in ("forward", "backward"))
    return Cell(params, gates, *steps, *(getattr(sequence, f"{name}_{way}") for way in ("forward", "backward")))


CELLS = {name: _cell(name, *rest) for name, *rest in [("rnn", RNNParams, 1), ("lstm", LSTMParams, 4), ("gru", GRUParams, 3)]}


def random_params(rng: np.random.Generator, cell: str, D: int, H: int, dtype: type = np.float64) -> Any:
    """Parameters of one layer, all non-zero, biases included."""
    kind, gates = CELLS[cell].params, CELLS[cell].gates
    columns = {"W_ih": (D,), "W_hh": (H,)}
    return kind(*(rng.normal(0, 0.6, (gates * H, *columns.get(name, ()))).astype(dtype) for name in kind._fields))


def random_state(rng: np.random.Generator, cell: str, N: int, H: int, dtype: type = np.float64) -> Any:
    """A state, h and c non-zero and different."""
    h, c = rng.normal(0, 0.7, (2, N, H)).astype(dtype)
    return LSTMState(h, c) if cell == "lstm" else h


def random_stack(rng: np.random.Generator, cell: str, D: int, H: int, count: int, both: bool = False) -> tuple:
    """Parameters of ``count`` layers on each other, bidirectional if ``both``."""
    widths = [D] + [H * (1 + both)] * (count - 1)
    if both:
        return tuple(Bidirectional(*(random_params(rng, cell, width, H) for _ in range(2))) for width in widths)
    return tuple(random_params(rng, cell, width, H) for width in widths)


def random_stack_state(rng: np.random.Generator, cell: str, N: int, H: int, count: int, both: bool = False) -> tuple:
    """Initial states of a stack."""
    if both:
        return tuple(Bidirectional(*(random_state(rng, cell, N, H) for _ in range(2))) for _ in range(count))
    return tuple(random_state(rng, cell, N, H) for _ in range(count))


def random_like(rng: np.random.Generator, tree: Any) -> Any:
    """A tree of the same form filled with normal numbers: the weights of a loss, or gradients that come from above."""
    return map_tree(lambda a: rng.standard_normal(np.shape(a)).astype(a.dtype), tree)


def copied(tree: Any) -> Any:
    """A tree of copies."""
    return map_tree(np.copy, tree)


def argument_names(cell: str, state: str) -> list[str]:
    """What messages call the leaves of (x, state, params), in order; ``state``: the name of one that is not h and c."""
    return ["x", *(["h", "c"] if cell == "lstm" else [state]), *CELLS[cell].params._fields]


def replaced(tree: Any, place: int, array: np.ndarray) -> Any:
    """The tree with another array as its leaf number ``place``."""
    numbers = iter(range(len(leaves(tree))))
    return map_tree(lambda a: array if next(numbers) == place else a, tree)


def spoiled(tree: Any, place: int) -> Any:
    """The tree with one NaN in the middle of leaf number ``place``."""
    array = leaves(tree)[place].copy()
    array.flat[array.size // 2] = np.nan
    return replaced(tree, place, array)


ONE_NAN = r"expected numbers, got NaN at \[\d+(, \d+)*\] \(1 in all\)$"


def form(tree: Any) -> str:
    """The types and shapes of a tree, written out."""
    return str(map_tree(np.shape, tree))


def rows_of(tree: Any, which: Any) -> Any:
    """The chosen streams of a state, whose leaves have the stream on axis 0."""
    return map_tree(lambda a: a[which], tree)


def dot(weights: Any, tree: Any) -> float:
    """The loss of the tests: Σ weights ⊙ tree, so that the gradient of every output is its weight."""
    return sum(float(np.vdot(w, a)) for w, a in zip(leaves(weights), leaves(tree), strict=True))


def worst_gradient_error(function: Callable, inputs: tuple, weights: Any, grads: tuple) -> float:
    """gradient_check of ``dot(weights, function(*inputs))`` over every entry of every leaf of ``inputs``."""

    def loss(*arrays: np.ndarray) -> float:
        take = iter(arrays)
        return dot(weights, function(*map_tree(lambda _: next(take), inputs)))

    return gradient_check(loss, leaves(inputs), leaves(grads))


def assert_close(got: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """The same form and shapes; entries within ``tolerance`` of the largest expected entry of their array, or of 1."""
    got, expected = list(named_leaves(got)), list(named_leaves(expected))
    assert [name for name, _ in got] == [name for name, _ in expected]
    for (name, a), (_, b) in zip(got, expected, strict=True):
        assert np.shape(a) == np.shape(b), f"{name}: {np.shape(a)} instead of {np.shape(b)}"
        error = np.max(np.abs(a - b), initial=0) / max(1, np.max(np.abs(b), initial=0))
        assert error <= tolerance, f"{name}: off by {error:.3g}"


def slow_forward(cell: str, x: Any, initial: Any, params: Any, lengths: Sequence[int] | None = None) -> tuple:
    """Outputs, final state and the caches of each stream, by steps over each stream alone, no further than its length."""
    T, N, _ = x.shape
    hs, finals, caches = np.zeros((T, N, params.W_hh.shape[1]), x.dtype), [], []
    for n in range(N):
        state, stream = rows_of(initial, [n]), []
        for t in range(T if lengths is None else lengths[n]):
            state, cache = CELLS[cell].step_forward(x[t, [n]], state, params)
            hs[t, n] = leaves(state)[0][0]
            stream.append(cache)
        finals.append(state)
        caches.append(stream)
    return hs, map_tree(lambda *rows: np.concatenate(rows), *finals), caches


def backwards(x: np.ndarray, lengths: Sequence[int] | None) -> np.ndarray:
    """Each stream's real steps in reverse, by a loop."""
    out = np.zeros_like(x)
    for n in range(x.shape[1]):
        length = len(x) if lengths is None else lengths[n]
        for t in range(length):
            out[t, n] = x[length - 1 - t, n]
    return out


def slow_stack(
    cell: str, x: np.ndarray, initial: tuple, layers: tuple, lengths: Sequence[int] | None = None, masks: tuple = ()
) -> tuple:
    """The definition of a stack: layer by layer, and direction by direction, with slow_forward. masks: dropout of inputs."""
    finals = []
    for state, params, mask in zip(initial, layers, masks or [None] * len(layers), strict=True):
        x = x if mask is None else x * mask
        if isinstance(params, Bidirectional):
            ahead, final_ahead, _ = slow_forward(cell, x, state.ahead, params.ahead, lengths)
            back, final_back, _ = slow_forward(cell, backwards(x, lengths), state.back, params.back, lengths)
            x, final = np.concatenate([ahead, backwards(back, lengths)], axis=2), Bidirectional(final_ahead, final_back)
        else:
            x, final, _ = slow_forward(cell, x, state, params, lengths)
        finals.append(final)
    return x, tuple(finals)


def slow_backward(cell: str, dhs: Any, dfinal: Any, x: Any, params: Any, caches: list) -> tuple:
    """dx, dinitial, dparams from the caches of slow_forward, by steps backward over each stream alone."""
    dx, dinitials, dparams = np.zeros(x.shape, x.dtype), [], map_tree(np.zeros_like, params)
    for n, stream in enumerate(caches):
        dstate = rows_of(dfinal, [n])
        for t in reversed(range(len(stream))):
            dh, *dc = leaves(dstate)
            dstate = LSTMState(dh + dhs[t, [n]], *dc) if dc else dh + dhs[t, [n]]
            dx[t, [n]], dstate, part = CELLS[cell].step_backward(dstate, stream[t])
            dparams = map_tree(np.add, dparams, part)
        dinitials.append(dstate)
    return dx, map_tree(lambda *rows: np.concatenate(rows), *dinitials), dparams
