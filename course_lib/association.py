"""How well numbers that change over time follow a property: one number alone, or a linear read-out of many.

    r²    for a count: the squared correlation over time
    AUC   for a flag: the chance that the number is larger where the flag is true than where it is false (the area under the ROC
          curve; equal numbers count half)

What was chosen or fitted on one part of the text is measured on another: the first two thirds choose, the last third measures.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from course_lib.shapes import ShapeError

CHOOSES = 2 / 3  # the share of a text in which units are chosen and read-outs are fitted; the rest measures
RIDGE = 0.01  # penalty of a read-out, for inputs and outputs of variance 1


def parts(length: int) -> tuple[slice, slice]:
    """The part of a text that chooses, and the part that measures."""
    cut = round(length * CHOOSES)
    return slice(cut), slice(cut, length)


def check_property(name: str, values: np.ndarray, length: int) -> np.ndarray:
    """The property as an array.

    Raises:   ShapeError, ValueError: it is not (length,), not finite numbers, or constant in one of the parts.
    """
    values = np.asarray(values)
    if values.shape != (length,):
        raise ShapeError(f"{name}: expected shape ({length},), one value a token, got {values.shape}")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected flags or finite numbers, got dtype {values.dtype}")
    for part, where in zip(parts(length), ("first two thirds", "last third"), strict=True):
        if not len(values[part]) or (values[part] == values[part][0]).all():
            raise ValueError(f"{name}: expected a property that changes, it is constant in the {where} of the text")
    return values


def association(states: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How each unit goes with each property, in [-1, 1]: the correlation, or for flags 2 AUC - 1. A constant unit has 0.

    Args:     states: (T, U). values: (T, K) counts, or flags of dtype bool, none of them constant.
    Returns:  (U, K).
    """
    if values.dtype != bool:
        x = standard(states)
        return np.clip(x.T @ standard(values).astype(x.dtype) / len(x), -1, 1)  # 1 + 1e-7 is rounding
    true = values.sum(axis=0)
    centred = ranks(states) - (len(states) + 1) / 2
    return 2 * (centred.T @ values.astype(np.float64)) / (true * (len(states) - true))


def measured(associations: np.ndarray, signs: np.ndarray | int, flags: bool) -> np.ndarray:
    """The AUC, or r², of units that were chosen with these signs. An AUC below 0.5, or a minus: the other direction."""
    directed = np.asarray(associations) * signs
    return (1 + directed) / 2 if flags else directed * abs(directed)


def standard(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1, in float32 if they were, else in float64; a constant column becomes 0."""
    dtype = np.float32 if values.dtype == np.float32 else np.float64
    mean = values.mean(axis=0, dtype=np.float64)
    centred = np.subtract(values, mean, dtype=np.float64) if dtype == np.float64 else values - mean.astype(dtype)
    scale = np.sqrt(np.einsum("tu,tu->u", centred, centred) / len(values))
    centred /= np.where(scale > np.finfo(dtype).eps * abs(mean), scale, np.inf)
    return centred


def ranks(states: np.ndarray) -> np.ndarray:
    """The rank of each entry in its column, from 1; equal entries share the mean of their ranks. (T, U) -> (T, U) float64."""
    result = np.empty(states.shape[::-1])
    for row, column in zip(result, states.T, strict=True):
        order = np.argsort(column)
        ordered = column[order]
        new = np.r_[True, ordered[1:] != ordered[:-1]]
        if new.all():
            row[order] = np.arange(1, len(order) + 1)
        else:
            first = np.flatnonzero(np.r_[new, True])
            row[order] = ((first[:-1] + first[1:] + 1) / 2)[np.cumsum(new) - 1]
    return result.T


def read_out(inputs: np.ndarray, properties: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What a linear read-out of all inputs reaches: ridge regression on the first two thirds, r² or AUC on the last third.

    Args:     inputs: (T, D). properties: name -> (T,) counts, or flags of dtype bool.
    """
    fit, test = parts(len(inputs))
    mean, scale = inputs[fit].mean(axis=0), inputs[fit].std(axis=0)
    x = (inputs - mean) / np.where(scale > 0, scale, 1)
    y = standard(np.column_stack([values[fit] for values in properties.values()])).astype(x.dtype)
    gram = (x[fit].T @ x[fit] / len(y)).astype(np.float64) + RIDGE * np.eye(x.shape[1])
    outputs = x[test] @ np.linalg.solve(gram, x[fit].T @ y / len(y))
    result = {}
    for k, (name, values) in enumerate(properties.items()):
        directed = association(outputs[:, k : k + 1], values[test, None])[0, 0]
        result[name] = float(measured(directed, 1, values.dtype == bool))
    return result
