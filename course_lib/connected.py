"""What belongs together because it is tied together, directly or through others: the components of a graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


def components(links: Iterable[tuple[Item, Item]], items: Iterable[Item]) -> dict[Item, Item]:
    """For each item the smallest of its component (union-find); what only links name belongs to components, too.

    >>> components([(3, 1), (5, 3), (4, 2)], range(3, 7))
    {3: 1, 4: 2, 5: 1, 6: 6}
    """
    first: dict[Item, Item] = {}

    def find(item: Item) -> Item:
        while first.setdefault(item, item) != item:
            first[item] = item = first[first[item]]  # on the way, halve the path
        return item

    for a, b in links:
        smaller, larger = sorted((find(a), find(b)))
        first[larger] = smaller
    return {item: find(item) for item in items}
