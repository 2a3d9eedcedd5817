"""Layers of recurrent cells: stacked on each other, or run over the sequence in both directions.

A layer is its parameters: their type says whether it is an RNN, an LSTM or a GRU, and a ``Bidirectional`` pair of them is
one layer of width 2H. A stack is a tuple of layers; its initial and final states are tuples of the same form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams
from course_lib.layers import dropout_backward, dropout_forward
from course_lib.sequence import gru_backward, gru_forward, lstm_backward, lstm_forward, rnn_backward, rnn_forward
from course_lib.trees import map_tree
from course_lib.unroll import reverse

SEQUENCE = {
    RNNParams: (rnn_forward, rnn_backward),
    LSTMParams: (lstm_forward, lstm_backward),
    GRUParams: (gru_forward, gru_backward),
}


class Bidirectional(NamedTuple):
    """The two directions of one layer: of its parameters, its states, its caches or its gradients."""

    ahead: Any
    back: Any


class StackedCache(NamedTuple):
    layers: tuple
    masks: tuple  # dropout masks of the inputs of layers 1, 2, ...; None without dropout
    lengths: np.ndarray | None


def zero_state(layers: tuple, batch_size: int) -> tuple:
    """States of zeros, of the form that ``stacked_forward`` takes, in the parameters' dtype."""

    def zeros(params: Any) -> Any:
        if isinstance(params, Bidirectional):
            return Bidirectional(zeros(params.ahead), zeros(params.back))
        state = np.zeros((batch_size, params.W_hh.shape[1]), params.W_hh.dtype)
        return LSTMState(state, state.copy()) if isinstance(params, LSTMParams) else state

    return tuple(zeros(params) for params in layers)


def stacked_forward(
    x: np.ndarray,
    initial: tuple,
    layers: tuple,
    lengths: np.ndarray | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, tuple, StackedCache]:
    """Run a stack of layers; the outputs of one are the inputs of the next.

    Args:     x: (T, N, D). initial: a state for each layer. layers: parameters of each layer. lengths: (N,) unpadded steps.
              dropout: the rate at which inputs of layers 1, 2, ... are dropped (training only; then rng is needed).
    Returns:  hs of the last layer (T, N, H), or (T, N, 2H) if it is bidirectional; the final states; the cache.
    Raises:   ShapeError, ValueError: as the layers.
    """
    if len(initial) != len(layers):
        raise ValueError(f"initial: expected {len(layers)} states, one a layer, got {len(initial)}")
    finals, caches, masks = [], [], []
    for depth, (params, state) in enumerate(zip(layers, initial, strict=True)):
        mask = None
        if depth and dropout:
            x, mask = dropout_forward(x, dropout, rng)
        x, final, cache = _layer_forward(x, state, params, lengths)
        finals.append(final)
        caches.append(cache)
        masks.append(mask)
    return x, tuple(finals), StackedCache(tuple(caches), tuple(masks), lengths)


def stacked_backward(dhs: np.ndarray, dfinals: tuple, cache: StackedCache) -> tuple[np.ndarray, tuple, tuple]:
    """Back-propagate through the stack, last layer first.

    Args:     dhs: of the last layer's outputs. dfinals: of the final states. cache: from stacked_forward.
    Returns:  dx (T, N, D), dinitials, dlayers.
    """
    dinitials, dlayers = [], []
    for dfinal, layer_cache, mask in zip(dfinals[::-1], cache.layers[::-1], cache.masks[::-1], strict=True):
        dhs, dinitial, dparams = _layer_backward(dhs, dfinal, layer_cache, cache.lengths)
        if mask is not None:
            dhs = dropout_backward(dhs, mask)
        dinitials.append(dinitial)
        dlayers.append(dparams)
    return dhs, tuple(dinitials[::-1]), tuple(dlayers[::-1])


def _layer_forward(x: np.ndarray, state: Any, params: Any, lengths: np.ndarray | None) -> tuple[np.ndarray, Any, Any]:
    """One layer; the backward direction of a bidirectional one reads each stream's real steps in reverse."""
    if not isinstance(params, Bidirectional):
        return SEQUENCE[type(params)][0](x, state, params, lengths)
    ahead, final_ahead, cache_ahead = _layer_forward(x, state.ahead, params.ahead, lengths)
    back, final_back, cache_back = _layer_forward(reverse(x, lengths), state.back, params.back, lengths)
    hs = np.concatenate([ahead, reverse(back, lengths)], axis=2)
    return hs, Bidirectional(final_ahead, final_back), Bidirectional(cache_ahead, cache_back)


def _layer_backward(dhs: np.ndarray, dfinal: Any, cache: Any, lengths: np.ndarray | None) -> tuple[np.ndarray, Any, Any]:
    """The mirror image of _layer_forward; x was read twice, so its gradients add."""
    if not isinstance(cache, Bidirectional):
        return SEQUENCE[type(cache.params)][1](dhs, dfinal, cache)
    dahead, dback = np.split(dhs, 2, axis=2)
    dx_ahead, dinitial_ahead, dparams_ahead = _layer_backward(dahead, dfinal.ahead, cache.ahead, lengths)
    dx_back, dinitial_back, dparams_back = _layer_backward(reverse(dback, lengths), dfinal.back, cache.back, lengths)
    dx = dx_ahead + reverse(dx_back, lengths)
    return dx, Bidirectional(dinitial_ahead, dinitial_back), Bidirectional(dparams_ahead, dparams_back)


def zeros_like(tree: Any) -> Any:
    """A tree of zeros of the same form: the gradient of a final state that the loss does not use."""
    return map_tree(np.zeros_like, tree)
