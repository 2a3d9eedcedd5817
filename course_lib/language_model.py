"""A language model: embedding, recurrent cells, softmax over the next token; its loss, its gradients, its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams, gru_step_forward, lstm_step_forward, rnn_step_forward
from course_lib.layers import (
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
    log_softmax,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from course_lib.shapes import ShapeError, check_tokens
from course_lib.stacked import stacked_backward, stacked_forward, zero_state, zeros_like
from course_lib.weights import uniform

CELLS = {"rnn": RNNParams, "lstm": LSTMParams, "gru": GRUParams}
STEPS = {RNNParams: rnn_step_forward, LSTMParams: lstm_step_forward, GRUParams: gru_step_forward}


class LanguageModelParams(NamedTuple):
    embedding: np.ndarray  # (V, E)
    layers: tuple  # RNNParams, LSTMParams or GRUParams of each layer
    W_out: np.ndarray  # (V, H)
    b_out: np.ndarray  # (V,)


def init(
    vocab_size: int, embedding_size: int, hidden_size: int, num_layers: int, cell: str, seed: int, dtype: type = np.float32
) -> LanguageModelParams:
    """Draw the parameters of a language model.

    Weights are uniform in ±1/√fan-in, biases 0, and the LSTM's forget-gate bias is 1: at the start the cell remembers.

    Args:     vocab_size V, embedding_size E, hidden_size H, num_layers L: at least 1. cell: "rnn", "lstm" or "gru".
    Returns:  LanguageModelParams of the dtype.
    Raises:   ValueError: naming the argument, what was expected and what came.
    Reference: forget-gate bias, Jozefowicz, Zaremba & Sutskever 2015.
    """
    sizes = {"vocab_size": vocab_size, "embedding_size": embedding_size, "hidden_size": hidden_size, "num_layers": num_layers}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if cell not in CELLS:
        raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
    rng, E, H = np.random.default_rng(seed), embedding_size, hidden_size

    def layer(D: int) -> tuple:
        gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
        W_ih, W_hh = (uniform(rng, gates * H, columns, dtype) for columns in (D, H))
        b = np.zeros(gates * H, dtype)
        if cell == "lstm":
            b[H : 2 * H] = 1
        return GRUParams(W_ih, W_hh, b, b.copy()) if cell == "gru" else CELLS[cell](W_ih, W_hh, b)

    embedding = (rng.standard_normal((vocab_size, E)) * 0.5).astype(dtype)
    layers = tuple(layer(E if depth == 0 else H) for depth in range(num_layers))
    return LanguageModelParams(embedding, layers, uniform(rng, vocab_size, H, dtype), np.zeros(vocab_size, dtype))


def initial_state(params: LanguageModelParams, batch_size: int) -> tuple:
    """The state before the first token of ``batch_size`` streams: zeros, for each layer."""
    return zero_state(params.layers, batch_size)


def forward(
    params: LanguageModelParams,
    tokens: np.ndarray,
    state: tuple,
    lengths: np.ndarray | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, tuple, tuple]:
    """Logits of the next token at each position.

    Args:     tokens: (T, N) integers in [0, V). state: from initial_state or an earlier call. lengths: (N,) unpadded steps.
              dropout: rate, on the embedding, between layers and before the softmax (training only; then rng is needed).
    Returns:  logits (T, N, V), the state after the last token, cache.
    Raises:   ShapeError, ValueError: naming the argument.
    """
    if np.ndim(tokens) != 2:
        raise ShapeError(f"tokens: expected 2 axes (T, N), got shape {np.shape(tokens)}")
    x, embedding_cache = embedding_forward(tokens, params.embedding)
    masks = [None, None]
    if dropout:
        x, masks[0] = dropout_forward(x, dropout, rng)
    hs, state, layers_cache = stacked_forward(x, state, params.layers, lengths, dropout, rng)
    if dropout:
        hs, masks[1] = dropout_forward(hs, dropout, rng)
    logits, linear_cache = linear_forward(hs, params.W_out, params.b_out)
    return logits, state, (embedding_cache, masks, layers_cache, linear_cache)


def loss_and_grads(
    params: LanguageModelParams,
    tokens: np.ndarray,
    targets: np.ndarray,
    state: tuple,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[float, LanguageModelParams, tuple]:
    """Mean cross-entropy of the targets, and its gradient by back-propagation through these T steps (and no further).

    Args:     tokens, targets: (T, N) integers in [0, V); targets are the tokens one step later. state: before the first.
    Returns:  The loss in nats per token, gradients of the form of params, the state to carry into the next call.
    Raises:   ShapeError, ValueError: naming the argument.
    """
    logits, new_state, (embedding_cache, masks, layers_cache, linear_cache) = forward(
        params, tokens, state, dropout=dropout, rng=rng
    )
    loss, loss_cache = softmax_cross_entropy_forward(logits, targets)
    dhs, dW_out, db_out = linear_backward(softmax_cross_entropy_backward(loss_cache), linear_cache)
    if masks[1] is not None:
        dhs = dropout_backward(dhs, masks[1])
    dx, _, dlayers = stacked_backward(dhs, zeros_like(new_state), layers_cache)
    if masks[0] is not None:
        dx = dropout_backward(dx, masks[0])
    return loss, LanguageModelParams(embedding_backward(dx, embedding_cache), dlayers, dW_out, db_out), new_state


def step(params: LanguageModelParams, token: np.ndarray, state: tuple) -> tuple[np.ndarray, tuple]:
    """Read one token of each stream; predict the next. This is the definition; ``make_step`` computes the same faster.

    Args:     token: (N,) integers in [0, V). state: from initial_state or an earlier step.
    Returns:  log-probabilities of the next token (N, V), the new state.
    """
    check_tokens("token", token, len(params.embedding))
    x, new_state = params.embedding[token], []
    for layer, layer_state in zip(params.layers, state, strict=True):
        layer_state, _ = STEPS[type(layer)](x, layer_state, layer)
        new_state.append(layer_state)
        x = layer_state.h if isinstance(layer_state, LSTMState) else layer_state
    return log_softmax(x @ params.W_out.T + params.b_out), tuple(new_state)


def make_step(params: LanguageModelParams) -> Callable[[np.ndarray, tuple], tuple[np.ndarray, tuple]]:
    """Prepare ``step(token, state)`` for the decoders: ``step`` above, with all that does not depend on the state done once.

    For LSTMs, the first layer's input product becomes a table with a row for each token, and gate rows are sorted into
    i, f, o, g with the first three halved, so that one tanh over (N, 4H) gives all four: σ(a) = ½ + ½ tanh(a / 2).
    Other cells step as ``cells`` defines them.
    """
    if not all(isinstance(layer, LSTMParams) for layer in params.layers):
        return lambda token, state: step(params, token, state)
    V, H = len(params.embedding), params.W_out.shape[1]
    half = params.W_out.dtype.type(0.5)

    def sort(rows: np.ndarray) -> np.ndarray:
        i_and_f, g, o = rows[: 2 * H], rows[2 * H : 3 * H], rows[3 * H :]
        return np.concatenate([half * i_and_f, half * o, g])

    layers = [LSTMParams(*map(sort, layer)) for layer in params.layers]
    table = params.embedding @ layers[0].W_ih.T + layers[0].b  # (V, 4H)

    def fast_step(token: np.ndarray, state: tuple) -> tuple[np.ndarray, tuple]:
        check_tokens("token", token, V)
        new_state, a = [], table[token]
        for depth, (layer, (h, c)) in enumerate(zip(layers, state, strict=True)):
            if depth:
                a = new_state[-1].h @ layer.W_ih.T
                a += layer.b
            a += h @ layer.W_hh.T
            np.tanh(a, out=a)
            gates, g = a[:, : 3 * H], a[:, 3 * H :]
            gates *= half
            gates += half
            c = a[:, H : 2 * H] * c
            c += a[:, :H] * g
            h = np.tanh(c)
            h *= a[:, 2 * H : 3 * H]
            new_state.append(LSTMState(h, c))
        logits = new_state[-1].h @ params.W_out.T
        logits += params.b_out
        return log_softmax(logits), tuple(new_state)

    return fast_step


class Window(NamedTuple):
    """A piece of every stream of a text that is being evaluated."""

    tokens: np.ndarray  # (T, N)
    targets: np.ndarray  # (T, N), the tokens one step later
    real: np.ndarray  # (T, N), false behind the end of a stream


def windows(tokens: np.ndarray, streams: int | None = None, steps: int | None = None) -> Iterator[Window]:
    """Cut a text into ``streams`` equal parts, to be read side by side, ``steps`` tokens at a time; no token is left out.

    Args:     streams: None: 8, and in a long text one for each 32,768 tokens, up to 64. steps: None: such that a window holds
              2,048 tokens; so the memory that an evaluation needs does not grow with the text.
    Raises:   ValueError: fewer than 2 tokens.
    """
    count = len(tokens) - 1
    if count < 1:
        raise ValueError(f"tokens: expected at least 2, got {len(tokens)}")
    streams = min(streams or max(8, min(64, count // 32_768)), count)
    steps = steps or max(1, 2048 // streams)
    each = -(-count // streams)
    starts = np.arange(streams) * each
    ends = np.minimum(starts + each, count)
    for first in range(0, each, steps):
        at = starts + np.arange(first, min(first + steps, each))[:, None]  # (T, N) positions
        inside = np.minimum(at, count - 1)
        dtype = np.promote_types(tokens.dtype, np.int32)
        yield Window(tokens[inside].astype(dtype), tokens[inside + 1].astype(dtype), at < ends)


def evaluate(
    params: LanguageModelParams, tokens: np.ndarray, streams: int | None = None, steps: int | None = None
) -> tuple[float, int]:
    """Teacher-forced nats of a text: every token but the first is predicted from the true tokens before it.

    The text is cut into ``streams`` equal parts that are read side by side, each with its state carried from end to end.

    Args:     tokens: (length,) integers in [0, V), length at least 2.
    Returns:  Total nats, and the number of tokens predicted: length - 1.
    """
    state, nats = None, 0.0
    for window in windows(tokens, streams, steps):
        if state is None:
            state = initial_state(params, window.tokens.shape[1])
        logits, state, _ = forward(params, window.tokens, state)
        picked = np.take_along_axis(log_softmax(logits), window.targets[..., None], axis=-1)[..., 0]
        nats -= float(picked[window.real].sum(dtype=np.float64))
    return nats, len(tokens) - 1
