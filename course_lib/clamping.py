"""Hold one unit of a language model at a value, and see what changes: whether the unit is used, not only whether it is there.

A unit that follows a property may be a by-product. If it is used, then holding it still must cost nats, more than holding other
units does, and the characters that the property is about must become more or less probable as the value is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from course_lib.cells import LSTMParams
from course_lib.language_model import LanguageModelParams, forward, initial_state
from course_lib.layers import log_softmax
from course_lib.probes import Activations, Unit, activations, check_lstm

_SHUT, _OPEN, _ONE = -200.0, 200.0, 20.0  # pre-activations with σ = 0, σ = 1, tanh = 1 in float32 and float64
_ALMOST_ONE = 1 - 1e-9  # the mean of a tanh that is always at its end


class Ablation(NamedTuple):
    """What it costs to hold units at their means: extra nats of each token behind the first, (T - 1,).

    others: (K, T - 1), the same for K groups of as many other units, chosen at random.
    """

    units: np.ndarray
    others: np.ndarray


def clamp(params: LanguageModelParams, unit: Unit, value: float) -> LanguageModelParams:
    """The language model in which one unit has this value at every step, whatever it reads; all functions take it as any other.

    h[k] = value:  what reads h[k] gets a constant: its column of weights, times the value, moves into the bias.
    c[k] = value:  h[k] = o[k] tanh(value). Gates i = 1, f = 0 and the candidate 1 make c[k] = 1; the columns of weights that
                   read h[k] are multiplied by tanh(value) / tanh(1).

    Raises:   ValueError: params are no LSTMs, or have no such unit; value is not finite.
    """
    check_lstm(params)
    depth, kind, k = unit
    H = params.W_out.shape[1]
    if not (0 <= depth < len(params.layers) and kind in ("h", "c") and 0 <= k < H):
        raise ValueError(f"unit: expected a layer below {len(params.layers)}, h or c, a place below {H}, got {tuple(unit)}")
    if not np.isfinite(value):
        raise ValueError(f"value: expected a finite number, got {value}")

    def read(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weights (rows, H) and bias (rows,) of something that reads h of this layer."""
        W = W.copy()
        if kind == "c":
            W[:, k] *= np.tanh(value) / np.tanh(1)
            return W, b
        b = b + W.dtype.type(value) * W[:, k]
        W[:, k] = 0
        return W, b

    layers = list(params.layers)
    W_ih, (W_hh, b) = layers[depth].W_ih, read(layers[depth].W_hh, layers[depth].b)
    if kind == "c":
        W_ih, b, rows = W_ih.copy(), b.copy(), k + H * np.arange(4)  # of the gates i, f, g, o
        W_ih[rows[:3]] = W_hh[rows[:3]] = 0
        b[rows[:3]] = _OPEN, _SHUT, _ONE
    layers[depth] = LSTMParams(W_ih, W_hh, b)
    if depth + 1 < len(layers):
        above = layers[depth + 1]
        W_ih, b = read(above.W_ih, above.b)
        layers[depth + 1] = LSTMParams(W_ih, above.W_hh, b)
        return params._replace(layers=tuple(layers))
    W_out, b_out = read(params.W_out, params.b_out)
    return params._replace(layers=tuple(layers), W_out=W_out, b_out=b_out)


def ablate(params: LanguageModelParams, tokens: np.ndarray, units: Sequence[Unit], others: int = 10, seed: int = 0) -> Ablation:
    """Hold units, together, at their means over this text; then random groups in their stead, of the same layers and kinds.

    h at its mean; c at the value whose tanh is the mean of tanh c, because no more than tanh c is seen of it.

    Args:     tokens: (T,) integers in [0, V). units: at least one. others: K, the random groups, made of other units.
              seed: of their choice.
    Raises:   ValueError: no units, or so many that a layer has too few others.
    """
    if not units:
        raise ValueError("units: expected at least one, got none")
    layers, rng, whole = activations(params, tokens), np.random.default_rng(seed), nats(params, tokens)
    groups: list[list[Unit]] = [list(units), *([] for _ in range(others))]
    for layer, kind in sorted({(unit.layer, unit.kind) for unit in units}):
        taken = [unit.index for unit in units if (unit.layer, unit.kind) == (layer, kind)]
        rest = np.delete(np.arange(params.W_out.shape[1]), taken)
        if len(taken) > len(rest):
            raise ValueError(f"units: expected at most half of a layer's, got {len(taken)} of {len(taken) + len(rest)}")
        for group in groups[1:]:
            group += [Unit(layer, kind, int(k)) for k in rng.choice(rest, len(taken), replace=False)]
    extra = []
    for group in groups:
        held = params
        for unit in group:
            held = clamp(held, unit, _mean(layers[unit.layer], unit))
        extra.append(nats(held, tokens) - whole)
    return Ablation(extra[0], np.array(extra[1:]).reshape(others, len(tokens) - 1))


def nats(params: LanguageModelParams, tokens: np.ndarray) -> np.ndarray:
    """-log p of each token behind the first, given those before it, in nats, (T - 1,); one stream, from a state of zeros."""
    log_probs = _log_probs(params, tokens[:-1])
    return -np.take_along_axis(log_probs, np.asarray(tokens)[1:, None], axis=1)[:, 0].astype(np.float64)


def response(params: LanguageModelParams, tokens: np.ndarray, unit: Unit, values: Sequence[float]) -> np.ndarray:
    """The mean probability of each next token over this text, (len(values), V), the unit held at one value after the other."""
    return np.array([np.exp(_log_probs(clamp(params, unit, value), tokens)).mean(axis=0) for value in values])


def _mean(layer: Activations, unit: Unit) -> float:
    """Where ``ablate`` holds a unit."""
    if unit.kind == "h":
        return float(layer.h[:, unit.index].mean())
    return float(np.arctanh(np.clip(np.tanh(layer.c[:, unit.index].astype(np.float64)).mean(), -_ALMOST_ONE, _ALMOST_ONE)))


def _log_probs(params: LanguageModelParams, tokens: np.ndarray) -> np.ndarray:
    """Log-probabilities of the next token at each place of one stream, (T, V)."""
    logits, _, _ = forward(params, np.asarray(tokens)[:, None], initial_state(params, 1))
    return log_softmax(logits[:, 0])
