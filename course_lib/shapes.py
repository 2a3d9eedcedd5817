"""Axis letters, and one function that holds arrays to them.

    T time   N batch   D input   E embedding   H hidden   V vocabulary   L layers   S source length   K beams

A specification is a string of axes such as ``"T N D"`` or ``"4H D"`` (four times H: the stacked LSTM gates).
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np


class ShapeError(ValueError):
    """An array has the wrong shape; the message names the argument, the axis, and the sizes."""


def check_shapes(**arrays: tuple[np.ndarray, str]) -> dict[str, int]:
    """Check arrays against axis letters and return the size of each letter.

    >>> check_shapes(x=(np.zeros((5, 2, 3)), "T N D"), W_ih=(np.zeros((24, 3)), "4H D"))
    {'T': 5, 'N': 2, 'D': 3, 'H': 6}

    Args:     arrays: name=(array, specification). The first array that uses a letter fixes its size.
    Returns:  The size of each letter.
    Raises:   ShapeError: naming the argument, the axis and the sizes.
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    for name, (array, spec) in arrays.items():
        axes, shape = _parse(spec), tuple(np.shape(array))
        if len(shape) != len(axes):
            raise ShapeError(f"{name}: expected {len(axes)} axes ({', '.join(spec.split())}), got shape {shape}")
        for (factor, letter), size in zip(axes, shape, strict=True):
            axis = f"{factor if factor > 1 else ''}{letter}"
            if letter not in sizes:
                if size % factor or size == 0:
                    wanted = f"a positive multiple of {factor}" if factor > 1 else "at least 1"
                    raise ShapeError(f"{name}: axis {axis} should be {wanted}, got shape {shape}")
                sizes[letter], origin[letter] = size // factor, name
            elif size != factor * sizes[letter]:
                why = f"{letter} = {sizes[letter]} from {origin[letter]}"
                raise ShapeError(f"{name}: axis {axis} should be {factor * sizes[letter]} ({why}), got shape {shape}")
    return sizes


def check_numbers(**arrays: np.ndarray) -> None:
    """Raise ValueError naming the first array that holds NaN, and where; the callers ask when a result turned to NaN."""
    for name, array in arrays.items():
        where = np.argwhere(np.isnan(array))
        if where.size:
            raise ValueError(f"{name}: expected numbers, got NaN at {where[0].tolist()} ({len(where)} in all)")


def check_tokens(name: str, tokens: np.ndarray, vocab_size: int) -> None:
    """Raise ValueError unless ``tokens`` are integers in [0, vocab_size)."""
    tokens = np.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integer tokens, got dtype {tokens.dtype}")
    if tokens.size:
        low, high = tokens.min(), tokens.max()
        if low < 0 or high >= vocab_size:
            raise ValueError(f"{name}: expected tokens in [0, {vocab_size}), got {low if low < 0 else high}")


@cache
def _parse(spec: str) -> list[tuple[int, str]]:
    """``"4H D"`` -> ``[(4, "H"), (1, "D")]``."""
    return [(int(factor or 1), letter) for factor, letter in re.findall(r"(\d*)([A-Z])", spec)]
