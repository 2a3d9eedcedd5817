"""SGD, Adam(W) and global-norm clipping over trees of arrays, in place; and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from course_lib.trees import leaves, map_tree


class AdamState(NamedTuple):
    m: Any  # running mean of the gradient, of the form of the parameters
    v: Any  # running mean of its square
    t: int  # steps taken


def global_norm(grads: Any) -> float:
    """√ Σ g², over every entry of every array."""
    return math.sqrt(sum(float(np.vdot(g, g)) for g in leaves(grads)))


def clip_global_norm_(grads: Any, max_norm: float) -> float:
    """Scale all gradients in place so that their joint norm is at most ``max_norm``; the direction stays.

    Returns:  The norm before clipping.
    Raises:   ValueError: max_norm not positive.
    Reference: Pascanu, Mikolov & Bengio 2013.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm}")
    norm = global_norm(grads)
    if norm > max_norm:
        for g in leaves(grads):
            g *= g.dtype.type(max_norm / norm)
    return norm


def sgd_(params: Any, grads: Any, lr: float) -> None:
    """θ ← θ - lr g, in place."""
    for p, g in zip(leaves(params), leaves(grads), strict=True):
        p -= p.dtype.type(lr) * g


def adam_init(params: Any) -> AdamState:
    """The state before the first step: zeros."""
    return AdamState(map_tree(np.zeros_like, params), map_tree(np.zeros_like, params), 0)


def adam_(
    params: Any,
    grads: Any,
    state: AdamState,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> AdamState:
    """One step of Adam, in place; with weight_decay, of AdamW (decay of matrices only, not of biases).

        m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ - lr (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε)

    Returns:  The state with t advanced (its arrays are the ones passed in, updated).
    Reference: Kingma & Ba 2015; Loshchilov & Hutter 2019.
    """
    beta1, beta2 = betas
    t = state.t + 1
    step_size, root = lr / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
    for p, g, m, v in zip(leaves(params), leaves(grads), leaves(state.m), leaves(state.v), strict=True):
        number = p.dtype.type
        m *= number(beta1)
        m += number(1 - beta1) * g
        v *= number(beta2)
        squares = g * g
        squares *= number(1 - beta2)
        v += squares
        if weight_decay and p.ndim > 1:
            p *= number(1 - lr * weight_decay)
        np.sqrt(v, out=squares)
        squares *= number(root)
        squares += number(eps)
        np.divide(m, squares, out=squares)
        squares *= number(step_size)
        p -= squares
    return state._replace(t=t)


def warmup_cosine(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """The factor on the learning rate: up linearly over the first ``warmup`` of a run, then down a cosine to ``floor``.

    Args:     progress: the part of the run that is done, in [0, 1]; steps or seconds, whatever the budget counts.
    """
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    along = min(1.0, (progress - warmup) / (1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))
