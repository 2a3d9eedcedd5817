"""Trees of arrays: the order and names of the leaves, and that mapping keeps the form."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.trees import leaves, map_tree, named_leaves


class Pair(NamedTuple):
    left: Any
    right: Any


TREE = (Pair(1, (2, 3)), Pair((), Pair(4, 5)))
trees = st.recursive(st.integers(), lambda inner: st.lists(inner).map(tuple) | st.builds(Pair, inner, inner))


def flattened(tree):
    return [tree] if not isinstance(tree, tuple) else [leaf for child in tree for leaf in flattened(child)]


def test_names_follow_fields_and_positions():
    names = ["0.left", "0.right.0", "0.right.1", "1.right.left", "1.right.right"]
    assert list(named_leaves(TREE)) == list(zip(names, [1, 2, 3, 4, 5], strict=True))
    assert list(named_leaves(TREE[0], "model")) == [("model.left", 1), ("model.right.0", 2), ("model.right.1", 3)]
    assert list(named_leaves(7, "b")) == [("b", 7)]


@given(trees)
def test_leaves_are_in_order_and_names_are_unique(tree):
    assert leaves(tree) == flattened(tree)
    names = [name for name, _ in named_leaves(tree)]
    assert len(set(names)) == len(names)


@given(trees)
def test_mapping_keeps_the_form(tree):
    doubled = map_tree(lambda a, b, c: (a + b - c) * 2, tree, tree, tree)
    assert leaves(doubled) == [2 * leaf for leaf in leaves(tree)]
    assert map_tree(lambda a: a // 2, doubled) == tree
    assert str(map_tree(lambda a: a // 2, doubled)) == str(tree)  # a Pair prints, and compares, unlike a tuple


def test_arguments_correspond_and_lists_are_leaves():
    assert map_tree(lambda a, b: a - 10 * b, (1, Pair(2, 3)), (4, Pair(5, 6))) == (-39, Pair(-48, -57))
    assert map_tree(len, Pair([1, 2], [])) == Pair(2, 0)
    assert type(map_tree(np.zeros_like, Pair(np.ones(2), np.ones(3)))) is Pair
    assert leaves((lst := [1, 2], lst)) == [[1, 2], [1, 2]]


def test_trees_of_other_forms_are_refused():
    with pytest.raises(ValueError, match="zip"):
        map_tree(lambda a, b: a, (1, 2), (1, 2, 3))


def test_dicts_are_trees_in_the_order_of_their_names():
    tree = {"b": 1, "a": (2, {"c": Pair(3, 4)}), "none": {}}
    names = ["b", "a.0", "a.1.c.left", "a.1.c.right"]
    assert list(named_leaves(tree)) == list(zip(names, [1, 2, 3, 4], strict=True))
    assert list(named_leaves({"x": 7}, "model")) == [("model.x", 7)]
    assert leaves(tree) == [1, 2, 3, 4]
    doubled = map_tree(lambda a: 2 * a, tree)
    assert doubled == {"b": 2, "a": (4, {"c": Pair(6, 8)}), "none": {}}
    assert list(doubled) == ["b", "a", "none"]
    assert type(doubled["a"][1]["c"]) is Pair
    assert leaves({}) == []


def test_in_dicts_names_correspond_whatever_their_order():
    assert map_tree(lambda a, b: a - 10 * b, {"x": 1, "y": (2,)}, {"y": (4,), "x": 3}) == {"x": -29, "y": (-38,)}
    assert list(map_tree(lambda a, b: a, {"x": 1, "y": 2}, {"y": 4, "x": 3})) == ["x", "y"]
    with pytest.raises(KeyError, match="y"):
        map_tree(lambda a, b: a, {"x": 1, "y": 2}, {"x": 1})
