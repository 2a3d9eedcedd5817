"""Nested tuples of arrays: the form of every set of parameters, gradients and states in this course.

``LSTMParams``, a tuple of them, a language model's parameters: all are trees whose leaves are arrays. Optimisers, checkpoints
and decoders work on any of them through these three functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def named_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, array) for each leaf, in order: ``("layers.0.W_ih", array)``."""
    if not isinstance(tree, tuple):
        yield prefix, tree
        return
    names = getattr(tree, "_fields", None) or range(len(tree))
    for name, child in zip(names, tree, strict=True):
        yield from named_leaves(child, f"{prefix}.{name}" if prefix else str(name))


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree, in order."""
    return [leaf for _, leaf in named_leaves(tree)]


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply ``function`` to corresponding leaves of trees of the same form; the result has the form of the first."""
    if not isinstance(tree, tuple):
        return function(tree, *others)
    children = [map_tree(function, *parts) for parts in zip(tree, *others, strict=True)]
    return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
