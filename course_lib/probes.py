"""Look inside a language model: which unit follows a property of the text, and is that more than chance or the last characters?

The best of a thousand units looks good where it was chosen. So it is chosen on one part of a text and measured on another, and
beside its value stand those of units that learnt nothing and of read-outs that see the last characters only. The measures, r²
and AUC, are those of ``association``; properties of a text are in ``text_properties``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from course_lib.association import association, check_property, measured, parts, read_out, standard
from course_lib.cells import LSTMParams, LSTMState
from course_lib.language_model import LanguageModelParams, forward, init, initial_state
from course_lib.shapes import ShapeError

BETTER = 0.2  # what is found must close so much of the gap that the best baseline leaves to 1
FEWEST_CHANGES = 20  # of a property in the held-out part
PIECE = 1000  # tokens read at a time when gates are not kept
SHIFTS = 20  # copies of a property, moved in time, that have nothing to do with the states


class Activations(NamedTuple):
    """One layer while it reads: states and gates after each token, each (T, H)."""

    h: np.ndarray
    c: np.ndarray
    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray


class Unit(NamedTuple):
    """One number of the state: in which layer, of h or of c, at which place. Layers and places count from 0."""

    layer: int
    kind: str
    index: int

    def __str__(self) -> str:
        return f"{self.kind}[{self.index}]" if self.layer == 0 else f"{self.kind}[{self.index}], layer {self.layer}"


class Found(NamedTuple):
    """A unit and how well it follows a property, where it was chosen and on held-out text.

    sign: 1 if the unit rises with the property, -1 if it falls. held_out is measured with that sign: an AUC below 0.5, or an r²
    with a minus, means that the unit goes the other way there.
    """

    unit: Unit
    sign: int
    searched: float
    held_out: float


class Evidence(NamedTuple):
    """A search, and on the same held-out text, in the same measure, what else reaches how much.

    units:      the best units, the best on the searched part first
    baselines:  "random network": the best unit of a network of this size before training. "random directions": the best of as
                many random combinations of a layer's h or c. "shifted property": the best unit for the property moved in time,
                the largest of 20 shifts. "last character", "last K characters": a linear read-out of them.
    linear:     a linear read-out of all states together
    changes:    how often the property changes its value in the held-out part; below 20 its values there are an anecdote
    """

    measure: str
    units: list[Found]
    baselines: dict[str, float]
    linear: float
    changes: int

    @property
    def verdict(self) -> str:
        """What was found: "one unit", if it is clearly better than every baseline; "spread", if only a read-out of all is.

        Else "nothing". Clearly better: it closes a fifth of the gap between the best baseline and 1. With fewer than 20 changes
        the verdict is "too rare".
        """
        if self.changes < FEWEST_CHANGES:
            return "too rare"
        best = max(*self.baselines.values(), 0)
        needed = best + BETTER * (1 - best)
        return "one unit" if self.units[0].held_out > needed else "spread" if self.linear > needed else "nothing"

    def rows(self) -> dict[str, float]:
        """What was measured, each by its name, for a table or ``plotting.scoreboard``: the best unit first."""
        return {f"unit {self.units[0].unit}": self.units[0].held_out, **self.baselines, "read-out of all units": self.linear}


def activations(params: LanguageModelParams, tokens: np.ndarray, state: tuple | None = None) -> tuple[Activations, ...]:
    """Read a text from beginning to end as one stream, and keep what every LSTM layer does at each step.

    The arrays are views of what the forward pass keeps for its backward pass: 24 H bytes a token and layer in float32, no more.

    Args:     tokens: (T,) integers in [0, V). state: before the first token, of one stream; None: zeros.
    Returns:  Activations of each layer.
    Raises:   ShapeError, ValueError: naming the argument; a layer that is no LSTM.
    """
    check_lstm(params)
    if np.ndim(tokens) != 1:
        raise ShapeError(f"tokens: expected one row (T,), got shape {np.shape(tokens)}")
    _, _, (_, _, cache, _) = forward(params, np.asarray(tokens)[:, None], initial_state(params, 1) if state is None else state)
    layers = []
    for layer in cache.layers:
        i, f, g, o = np.split(layer.gates[:, :, 0], 4, axis=1)
        layers.append(Activations(layer.hs[1:, 0], layer.cs[1:, :, 0], i, f, g, o))
    return tuple(layers)


def search(layers: Sequence[Activations], values: np.ndarray, most: int = 10) -> list[Found]:
    """The units, of h and of c in all layers, that follow a property best.

    Args:     layers: from activations. values: (T,) counts (measured by r²), or flags of dtype bool (measured by the AUC).
    Returns:  ``most`` units, the best on the first two thirds of the text first; each with its value on the last third.
    Raises:   ShapeError, ValueError: naming the argument; a property that is constant in one of the parts.
    """
    values = check_property("values", values, len(layers[0].h))
    return _search_all(_blocks(layers), {"values": values}, shifts=0)["values"][0][:most]


def examine(
    params: LanguageModelParams, tokens: np.ndarray, properties: Mapping[str, np.ndarray], history: int = 8, seed: int = 0
) -> dict[str, Evidence]:
    """Search for units that follow each property, and measure all that they must be compared with.

    Args:     tokens: (T,) a text that the model was not trained on. properties: name -> (T,) counts, or flags of dtype bool.
              history: K, the characters that the longer read-out sees. seed: of the untrained network and of the directions.
    Returns:  name -> Evidence.
    Raises:   ShapeError, ValueError: naming the argument or the property.
    """
    tokens, rng = np.asarray(tokens), np.random.default_rng(seed)
    checked = {name: check_property(name, values, len(tokens)) for name, values in properties.items()}
    (V, E), H = params.embedding.shape, params.W_out.shape[1]
    blocks, untrained = (_blocks(_states(p, tokens)) for p in (params, init(V, E, H, len(params.layers), "lstm", seed)))
    directions = ((units, standard(states) @ rng.standard_normal((H, H), states.dtype)) for units, states in blocks)
    best = _search_all(blocks, checked, SHIFTS)
    best_untrained, best_direction = (_search_all(others, checked, shifts=0) for others in (untrained, directions))
    one_hot = np.eye(V, dtype=np.float32)
    padded = np.concatenate([np.zeros(history - 1, int), tokens])  # before the beginning stands the unknown token
    last = [one_hot[tokens], np.hstack([one_hot[padded[k : k + len(tokens)]] for k in range(history)])]
    read = [read_out(inputs, checked) for inputs in (*last, np.hstack([states for _, states in blocks]))]
    result = {}
    for name, values in checked.items():
        units, shifted = best[name]
        baselines = {
            "random network": best_untrained[name][0][0].held_out,
            "random directions": best_direction[name][0][0].held_out,
            "shifted property": max(shifted),
            "last character": read[0][name],
            f"last {history} characters": read[1][name],
        }
        held_out = values[parts(len(values))[1]]
        changes = int((held_out[1:] != held_out[:-1]).sum())
        result[name] = Evidence("AUC" if values.dtype == bool else "r²", units[:10], baselines, read[2][name], changes)
    return result


def saturation(gate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each unit's gate is left-saturated (below 0.1) and right-saturated (above 0.9): shares of time, each (H,).

    Args:     gate: (T, H), values of i, f or o.
    Reference: Karpathy, Johnson & Fei-Fei 2015, figure 2.
    """
    return (gate < 0.1).mean(axis=0), (gate > 0.9).mean(axis=0)


def _states(params: LanguageModelParams, tokens: np.ndarray) -> list[LSTMState]:
    """h and c of each layer after each token, (T, H), read piece by piece: the memory of gates is that of one piece."""
    state, pieces = None, []
    for start in range(0, len(tokens), PIECE):
        layers = activations(params, tokens[start : start + PIECE], state)
        state = tuple(LSTMState(layer.h[-1:], layer.c[-1:]) for layer in layers)
        pieces.append([LSTMState(layer.h.copy(), layer.c.copy()) for layer in layers])
    return [LSTMState(*map(np.concatenate, zip(*layer, strict=True))) for layer in zip(*pieces, strict=True)]


def _blocks(layers: Sequence[Activations | LSTMState]) -> list[tuple[list[Unit], np.ndarray]]:
    """The states in blocks: h, then c, of each layer; the units' names and their values (T, H)."""
    return [
        ([Unit(depth, kind, k) for k in range(layer.h.shape[1])], getattr(layer, kind))
        for depth, layer in enumerate(layers)
        for kind in ("h", "c")
    ]


def _search_all(
    blocks: Iterable[tuple[list[Unit], np.ndarray]], properties: Mapping[str, np.ndarray], shifts: int
) -> dict[str, tuple[list[Found], list[float]]]:
    """For each property all units, the best first; and the best one's held-out value for the property moved in time, each way.

    Flags and counts are taken together: the units' ranks, which take the time, are computed once for all flags.
    """
    units: list[Unit] = []
    found: dict[str, list] = {name: [] for name in properties}  # of each block (H, 2, 1 + shifts): both parts
    for names, states in blocks:
        units += names
        for flags in (False, True):
            chosen = {name: values for name, values in properties.items() if (values.dtype == bool) == flags}
            if not chosen:
                continue
            both = []
            for part in parts(len(states)):
                moved = np.linspace(0.1, 0.9, shifts) * len(states[part])
                copies = [np.roll(values[part], int(by)) for values in chosen.values() for by in (0, *moved)]
                both.append(association(states[part], np.stack(copies, axis=1)).reshape(len(names), len(chosen), -1))
            for k, name in enumerate(chosen):
                found[name].append(np.stack([block[:, k] for block in both], axis=1))
    result = {}
    for name, values in properties.items():
        searched, held_out = np.concatenate(found[name]).transpose(1, 2, 0)  # each (1 + shifts, U)
        signs = np.where(searched < 0, -1, 1)
        flags = values.dtype == bool
        here, there = measured(searched, signs, flags), measured(held_out, signs, flags)
        order = np.argsort(-here[0], kind="stable")
        ranking = [Found(units[u], int(signs[0, u]), float(here[0, u]), float(there[0, u])) for u in order]
        result[name] = ranking, [float(row[u]) for row, u in zip(there[1:], here[1:].argmax(axis=1), strict=True)]
    return result


def check_lstm(params: LanguageModelParams) -> None:
    """Raise ValueError unless all layers are LSTMs."""
    for depth, layer in enumerate(params.layers):
        if not isinstance(layer, LSTMParams):
            raise ValueError(f"params: expected LSTM layers, layer {depth} is of {type(layer).__name__}")
