"""Components against a search that walks from neighbour to neighbour."""

from hypothesis import given
from hypothesis import strategies as st

from course_lib.connected import components

links = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15)


def reached(links: list[tuple[int, int]], start: int) -> set[int]:
    found, front = {start}, [start]
    while front:
        here = front.pop()
        near = {b if a == here else a for a, b in links if here in (a, b)} - found
        found |= near
        front += near
    return found


@given(links, st.sets(st.integers(0, 20)))
def test_an_item_stands_for_the_smallest_that_can_be_reached(links, items):
    assert components(links, items) == {item: min(reached(links, item)) for item in items}


def test_links_are_read_once_and_in_any_order():
    pairs = [("d", "c"), ("b", "a"), ("c", "b"), ("f", "e")]
    for links in (pairs, pairs[::-1], iter(pairs)):
        assert components(links, "adfz") == {"a": "a", "d": "a", "f": "e", "z": "z"}
