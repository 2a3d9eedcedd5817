"""Nested tuples and dicts of arrays: the form of every set of parameters, gradients and states in this course.

``LSTMParams``, a tuple of them, the parameters of a torch module by name: all are trees whose leaves are arrays. Optimisers,
checkpoints and decoders work on any of them through these three functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def named_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, array) for each leaf, in order: ``("layers.0.W_ih", array)``."""
    if not isinstance(tree, tuple | dict):
        yield prefix, tree
        return
    parts = tree.items() if isinstance(tree, dict) else zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)
    for name, child in parts:
        yield from named_leaves(child, f"{prefix}.{name}" if prefix else str(name))


def leaves(tree: Any) -> list[Any]:
    """The arrays of a tree, in order."""
    return [leaf for _, leaf in named_leaves(tree)]


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply ``function`` to corresponding leaves of trees of the same form; the result has the form of the first."""
    if isinstance(tree, dict):
        return {name: map_tree(function, child, *(other[name] for other in others)) for name, child in tree.items()}
    if not isinstance(tree, tuple):
        return function(tree, *others)
    children = [map_tree(function, *parts) for parts in zip(tree, *others, strict=True)]
    return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
