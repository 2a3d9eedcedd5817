"""The layers around the recurrent cells, each a forward / backward pair: linear, embedding, dropout, softmax cross-entropy.

A forward returns (output, cache); a backward takes the gradient of the output and the cache. Leading axes are free:
``(..., D)`` is a row vector of D for each position.
"""

from __future__ import annotations

import numpy as np

from course_lib.shapes import ShapeError, check_tokens


def sigmoid(a: np.ndarray) -> np.ndarray:
    """σ(a) = 1 / (1 + e^-a), written as ½ (1 + tanh(a / 2)): the same function, and no overflow for large negative a."""
    return 0.5 * (1 + np.tanh(0.5 * a))


def linear_forward(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple]:
    """y = x Wᵀ + b.

    Args:     x: (..., D). W: (V, D). b: (V,).
    Returns:  y (..., V), cache.
    Raises:   ShapeError: naming the argument, the axis and the sizes.
    """
    if x.shape[-1] != W.shape[1] or b.shape != W.shape[:1]:
        raise ShapeError(f"linear: x {x.shape}, W {W.shape}, b {b.shape}: expected x (..., D), W (V, D), b (V,)")
    y = x.reshape(-1, x.shape[-1]) @ W.T
    y += b
    return y.reshape(*x.shape[:-1], -1), (x, W)


def linear_backward(dy: np.ndarray, cache: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = dy W;  dW = dyᵀ x;  db = Σ dy, each one product over all positions at once.

    Returns:  dx (..., D), dW (V, D), db (V,).
    """
    x, W = cache
    rows = dy.reshape(-1, W.shape[0])
    return (rows @ W).reshape(x.shape), rows.T @ x.reshape(-1, W.shape[1]), rows.sum(0)


def embedding_forward(tokens: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Look up a row of the table for each token: the product of a one-hot row with the table, without the product.

    Args:     tokens: (...) integers in [0, V). table: (V, E).
    Returns:  (..., E), cache.
    Raises:   ValueError: a token outside [0, V), or not an integer.
    """
    check_tokens("tokens", tokens, len(table))
    return table[tokens], (tokens, table)


def embedding_backward(dx: np.ndarray, cache: tuple) -> np.ndarray:
    """dtable[v] = Σ of dx over the positions whose token is v; a token that occurs twice receives both.

    Sorting the positions by token turns the scattered additions into one segment sum.
    """
    tokens, table = cache
    dtable = np.zeros_like(table)
    order = np.argsort(tokens, axis=None, kind="stable")
    present, starts = np.unique(tokens.ravel()[order], return_index=True)
    dtable[present] = np.add.reduceat(dx.reshape(-1, table.shape[1])[order], starts, axis=0)
    return dtable


def dropout_forward(x: np.ndarray, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Zero each entry with probability ``rate`` and scale the others by 1 / (1 - rate), so the mean is unchanged.

    Returns:  The thinned x, and the mask, which is the cache.
    Raises:   ValueError: rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected a number in [0, 1), got {rate}")
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    mask = kept.astype(x.dtype) / x.dtype.type(1 - rate)
    return x * mask, mask


def dropout_backward(dy: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """dx = dy ⊙ mask."""
    return dy * mask


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log p_v = a_v - log Σ_u e^{a_u}, over the last axis; the maximum is subtracted first, so nothing overflows."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def softmax_cross_entropy_forward(logits: np.ndarray, targets: np.ndarray) -> tuple[float, tuple]:
    """Mean of -log p(target), in nats per token.

    Args:     logits: (..., V). targets: (...) integers in [0, V).
    Returns:  The loss, a float, and the cache.
    Raises:   ShapeError: targets do not match the logits. ValueError: a target outside [0, V).
    """
    if logits.shape[:-1] != targets.shape:
        raise ShapeError(f"targets: expected shape {logits.shape[:-1]} from logits {logits.shape}, got {targets.shape}")
    check_tokens("targets", targets, logits.shape[-1])
    log_probs = log_softmax(logits)
    picked = np.take_along_axis(log_probs, targets[..., None], axis=-1)
    return -float(picked.mean(dtype=np.float64)), (log_probs, targets)


def softmax_cross_entropy_backward(cache: tuple) -> np.ndarray:
    """dlogits = (p - onehot(target)) / number of tokens."""
    log_probs, targets = cache
    dlogits = np.exp(log_probs)
    rows = dlogits.reshape(-1, dlogits.shape[-1])
    rows[np.arange(len(rows)), targets.ravel()] -= 1
    dlogits /= targets.size
    return dlogits
