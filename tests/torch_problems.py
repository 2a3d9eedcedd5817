"""Problems for stacks of LSTMs in the form that PyTorch's modules take, and their solution by the NumPy side.

A state is h and c, (L, N, H) each, layer by layer, and in both directions ahead before back: as ``torch.nn.LSTM`` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from problems import random_like, random_stack, random_stack_state

from course_lib.cells import LSTMState
from course_lib.stacked import Bidirectional, stacked_backward, stacked_forward
from course_lib.trees import leaves, map_tree


class Stack(NamedTuple):
    """A call's arguments, and gradients that come from above."""

    x: np.ndarray  # (T, N, D)
    state: LSTMState
    layers: tuple
    lengths: np.ndarray | None
    dhs: np.ndarray
    dstate: LSTMState


def stack_problem(
    rng: np.random.Generator,
    sizes: Sequence[int],
    lengths: Sequence[int] | None = None,
    depth: int = 1,
    both: bool = False,
    dtype: type = np.float64,
) -> Stack:
    """Random everything; sizes: T, N, D, H."""
    T, N, D, H = sizes
    state, layers = flat(random_stack_state(rng, "lstm", N, H, depth, both)), random_stack(rng, "lstm", D, H, depth, both)
    problem = (rng.normal(size=(T, N, D)), state, layers), (rng.normal(size=(T, N, H * (1 + both))), random_like(rng, state))
    inputs, upstream = map_tree(lambda a: a.astype(dtype), problem)
    return Stack(*inputs, None if lengths is None else np.array(lengths), *upstream)


def flat(states: tuple) -> LSTMState:
    """The states of the NumPy side, a tree, as one pair of arrays."""
    parts = [part for layer in states for part in (layer if isinstance(layer, Bidirectional) else (layer,))]
    return LSTMState(*(np.stack([getattr(part, name) for part in parts]) for name in "hc"))


def tree(state: LSTMState, layers: tuple) -> tuple:
    """The inverse of ``flat``."""
    parts = iter(LSTMState(*pair) for pair in zip(*state, strict=True))
    return tuple(
        Bidirectional(next(parts), next(parts)) if isinstance(layer, Bidirectional) else next(parts) for layer in layers
    )


def by_numpy(p: Stack) -> tuple[tuple, tuple]:
    """((hs, state), (dx, dstate, dlayers)) of ``stacked``."""
    hs, finals, cache = stacked_forward(p.x, tree(p.state, p.layers), p.layers, p.lengths)
    dx, dinitials, dlayers = stacked_backward(p.dhs, tree(p.dstate, p.layers), cache)
    return (hs, flat(finals)), (dx, flat(dinitials), dlayers)


def by_torch(run: Callable[..., tuple], p: Stack, dtype: torch.dtype | None = None, device: str = "cpu") -> tuple[tuple, tuple]:
    """The same of ``run(x, state, layers, lengths) -> (hs, state)`` on tensors, backwards by autograd."""
    inputs = map_tree(lambda a: torch.tensor(a, dtype=dtype, device=device).requires_grad_(), (p.x, p.state, p.layers))
    lengths = None if p.lengths is None else torch.tensor(p.lengths, device=device)
    outputs = run(*inputs, lengths)
    upstream = [
        torch.tensor(a, dtype=t.dtype, device=device) for a, t in zip(leaves((p.dhs, p.dstate)), leaves(outputs), strict=True)
    ]
    torch.autograd.backward(leaves(outputs), upstream)
    grads = map_tree(lambda t: torch.zeros_like(t) if t.grad is None else t.grad, inputs)
    return map_tree(to_array, (tuple(outputs), grads))


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """In NumPy, 16-bit numbers as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.element_size() < 4 else tensor).numpy()


def stacked_once(run: Callable[..., tuple]) -> Callable[..., tuple]:
    """A runner of one layer in one direction, called as a stack of one."""

    def run_one(x: Any, state: LSTMState, layers: tuple, lengths: Any) -> tuple:
        hs, final = run(x, map_tree(lambda part: part[0], state), layers[0], lengths)
        return hs, LSTMState(*(part[None] for part in final))

    return run_one


def worst(got: Any, expected: Any) -> float:
    """The largest difference in any array, relative to the largest entry of that array."""
    pairs = zip(leaves(got), leaves(expected), strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)
