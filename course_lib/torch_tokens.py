"""Texts as columns of tokens in torch: padded on the right, in batches of similar length; and the checks of such columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from course_lib.shapes import ShapeError

PADDING = 0  # the token behind the end of a text
CHUNK = 20  # batches among which texts are sorted by length, so that a batch has little padding


def columns(sequences: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Sequences of tokens side by side.

    Returns:  tokens (T, N) int64, T the longest, 0 behind each end; lengths (N,) int64.
    """
    lengths = [len(sequence) for sequence in sequences]
    tokens = np.full((max(lengths, default=0), len(lengths)), PADDING, dtype=np.int64)
    for n, sequence in enumerate(sequences):
        tokens[: lengths[n], n] = sequence
    return torch.from_numpy(tokens), torch.tensor(lengths, dtype=torch.int64)


def similar_lengths(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Places of texts of these lengths (N,), dealt into batches of similar length, in random order."""
    order = rng.permutation(len(lengths))
    found = []
    for start in range(0, len(order), CHUNK * batch_size):
        chunk = order[start : start + CHUNK * batch_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        found += [chunk[k : k + batch_size] for k in range(0, len(chunk), batch_size)]
    return [found[k] for k in rng.permutation(len(found))]


def check_encoded(tokens: Tensor, lengths: Tensor, vocab_size: int) -> None:
    """Hold tokens and lengths to their shapes, types and ranges."""
    for name, tensor, axes in (("tokens", tokens, "(T, N)"), ("lengths", lengths, "(N,)")):
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{name}: expected integers {axes}, got {type(tensor).__name__}; encode the texts first, or predict()"
            )
        if tensor.dim() != axes.count(",") + (name == "tokens"):
            raise ShapeError(f"{name}: expected {axes}, got shape {tuple(tensor.shape)}")
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise ValueError(f"{name}: expected integers {axes}, got {tensor.dtype}")
    T, N = tokens.shape
    if not T or not N:
        raise ValueError(f"tokens: expected at least one text of one character, got shape {(T, N)}")
    if lengths.shape != (N,):
        raise ShapeError(f"lengths: axis N should be {N} (N = {N} from tokens), got shape {tuple(lengths.shape)}")
    if lengths.min() < 1 or lengths.max() > T:
        worst = lengths.min() if lengths.min() < 1 else lengths.max()
        raise ValueError(
            f"lengths: expected integers in [1, {T}], T = {T} from tokens, got {worst.item()}; leave empty texts out"
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        worst = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(
            f"tokens: expected integers in [0, {vocab_size}), got {worst.item()}; encode with training's tokenizer"
        )
