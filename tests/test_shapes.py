"""Axis letters: sizes are inferred, and every misfit is named in words a learner can act on."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import shapes
from course_lib.shapes import ShapeError, check_numbers, check_shapes, check_tokens

sizes = st.integers(1, 40)


def test_the_example_in_the_docstring():
    assert doctest.testmod(shapes).failed == 0
    assert doctest.testmod(shapes).attempted == 1


@given(sizes, sizes, sizes, sizes)
def test_sizes_are_found_whatever_they_are(T, N, D, H):
    arrays = {"x": (np.zeros((T, N, D)), "T N D"), "h": (np.zeros((N, H)), "N H"), "W": (np.zeros((12 * H, D)), "12H D")}
    assert check_shapes(**arrays, b=(np.zeros(12 * H), "12H"), loss=(1.5, "")) == {"T": T, "N": N, "D": D, "H": H}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": ((5, 2, 3), "T N D"), "W_ih": ((24, 4), "4H D")},
            "W_ih: axis D should be 3 (D = 3 from x), got shape (24, 4)",
        ),
        ({"h": ((2, 6), "N H"), "b": ((18,), "4H")}, "b: axis 4H should be 24 (H = 6 from h), got shape (18,)"),
        ({"W": ((24, 3), "4H D"), "h": ((2, 5), "N H")}, "h: axis H should be 6 (H = 6 from W), got shape (2, 5)"),
        ({"W_hh": ((6, 5), "H H")}, "W_hh: axis H should be 6 (H = 6 from W_hh), got shape (6, 5)"),
        ({"x": ((5, 3), "T N D")}, "x: expected 3 axes (T, N, D), got shape (5, 3)"),
        ({"h": ((5, 3, 2), "N H")}, "h: expected 2 axes (N, H), got shape (5, 3, 2)"),
        ({"b": ((), "H")}, "b: expected 1 axes (H), got shape ()"),
        ({"b": ((22,), "4H")}, "b: axis 4H should be a positive multiple of 4, got shape (22,)"),
        ({"b": ((0,), "4H")}, "b: axis 4H should be a positive multiple of 4, got shape (0,)"),
        ({"x": ((0, 2, 3), "T N D")}, "x: axis T should be at least 1, got shape (0, 2, 3)"),
    ],
)
def test_the_misfit_is_named(arrays, message):
    with pytest.raises(ShapeError) as caught:
        check_shapes(**{name: (np.zeros(shape), spec) for name, (shape, spec) in arrays.items()})
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


def test_nan_is_named_with_its_place_and_nothing_else_is_refused():
    good, bad = np.array([[1.0, np.inf], [-np.inf, 0]]), np.array([[1.0, 2, np.nan], [np.nan, 3, np.nan]], np.float32)
    check_numbers(good=good, whole=np.arange(3), nothing=np.zeros((0, 2)))
    with pytest.raises(ValueError) as caught:
        check_numbers(good=good, bad=bad, worse=np.array(np.nan))
    assert str(caught.value) == "bad: expected numbers, got NaN at [0, 2] (3 in all)"


@pytest.mark.parametrize("tokens", [[[0, 4], [2, 2]], np.array([4], np.uint8), np.zeros((3, 0), int), np.array(4)])
def test_tokens_in_range_pass(tokens):
    check_tokens("tokens", tokens, 5)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, 5], "ids: expected tokens in [0, 5), got 5"),
        ([0, 4, 9], "ids: expected tokens in [0, 5), got 9"),
        ([[-1, 9]], "ids: expected tokens in [0, 5), got -1"),
        ([2, -3], "ids: expected tokens in [0, 5), got -3"),
        ([0.0], "ids: expected integer tokens, got dtype float64"),
        ([True], "ids: expected integer tokens, got dtype bool"),
    ],
)
def test_tokens_out_of_range_are_named(tokens, message):
    with pytest.raises(ValueError) as caught:
        check_tokens("ids", np.array(tokens), 5)
    assert str(caught.value) == message
