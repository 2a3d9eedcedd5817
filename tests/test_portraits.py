"""Portraits show the numbers that they are given, each at its character."""

from __future__ import annotations

from itertools import combinations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from colours import contrast

from course_lib import portraits


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_each_character_stands_on_the_colour_of_its_value() -> None:
    text = "ab c\n\nlonger line\nd"
    values = np.random.default_rng(0).standard_normal(len(text))
    ax = portraits.coloured_text(text, values, "h[3]", "title", width=8)
    cells = ax.images[0].get_array()
    rows = ["ab c\n", "\n", "longer l", "ine\n", "d"]
    assert cells.shape == (5, 8)
    t = 0
    for row, line in enumerate(rows):
        for column in range(8):
            if column < len(line):
                assert cells[row, column] == values[t]
                t += 1
            else:
                assert np.ma.is_masked(cells[row, column]) or np.isnan(cells[row, column])
    written = {(round(mark.get_position()[1]), round(mark.get_position()[0])): mark.get_text() for mark in ax.texts}
    shown = {(r, c): {"\n": "↵"}.get(char, char) for r, line in enumerate(rows) for c, char in enumerate(line) if char != " "}
    assert written == shown and t == len(text)
    low, high = ax.images[0].get_clim()
    assert -low == high == abs(values).max() and ax.get_title(loc="left") == "title"
    assert ax.child_axes[0].get_ylabel() == "h[3]"


def test_letters_can_be_read_on_their_colours() -> None:
    ax = portraits.coloured_text("abcde\n" * 20, np.linspace(-1, 1, 120), "v", "t", width=200)
    image = ax.images[0]
    for mark in ax.texts:
        column, row = map(round, mark.get_position())
        cell = image.cmap(image.norm(image.get_array()[row, column]))[:3]
        assert contrast(mark.get_color(), cell) >= 4.5


def test_a_line_that_just_fits_is_not_broken() -> None:
    assert portraits.coloured_text("abc\nd", np.ones(5), "v", "t", width=3).images[0].get_array().shape == (2, 4)
    assert portraits.coloured_text("abc", np.zeros(3), "v", "t").images[0].get_array().shape == (1, 3)


def test_a_trace_has_a_curve_for_each_unit() -> None:
    text = "ab\ncd\n"
    units = {"c[1]": np.arange(6.0), "c[2]": -np.arange(6.0)}
    ax = portraits.trace(text, units, "value", "title")
    for line, (name, values) in zip(ax.lines, units.items(), strict=False):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(6))
    assert [line.get_xdata()[0] for line in ax.lines[2:]] == [2, 5]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list("ab↵cd↵")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("character read", "value", "title")
    ax.figure.canvas.draw()
    for mark, line in zip(sorted(ax.texts, key=lambda m: m.get_text()), ax.lines, strict=False):
        assert (mark.get_text(), mark.get_color()) == (line.get_label(), line.get_color()) and mark.get_fontsize() >= 12
        assert mark.xy == (5, line.get_ydata()[-1])  # at its end
    assert len(ax.texts) == 2 and len({line.get_linestyle() for line in ax.lines[:2]}) == 2  # not by colour only


def test_names_of_traces_that_end_together_do_not_touch() -> None:
    ax = portraits.trace("abc", {f"unit {k}": np.array([0, k, 1.0]) for k in range(5)}, "value", "title")
    ax.figure.canvas.draw()
    extents = [mark.get_window_extent() for mark in ax.texts]
    assert len(extents) == 5 and not any(a.overlaps(b) for a, b in combinations(extents, 2))
    assert all(ax.figure.bbox.contains(*corner) for extent in extents for corner in extent.corners())


def test_gates_by_how_often_they_are_shut_and_open() -> None:
    gate = np.array([[0.05, 0.5], [0.95, 0.2], [0.99, 0.05], [0.02, 0.95]])
    ax = portraits.gate_saturation({"layer 0": gate, "layer 1": 1 - gate}, "forget gate")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[50, 50], [25, 25]])
    np.testing.assert_allclose(ax.collections[1].get_offsets(), [[50, 50], [25, 25]])
    assert ax.get_xlabel() == "shut, below 0.1 (% of steps)" and ax.get_ylabel() == "open, above 0.9 (% of steps)"
    assert [mark.get_text() for mark in ax.get_legend().get_texts()] == ["layer 0", "layer 1"]
    lopsided = portraits.gate_saturation({"layer 0": np.array([[0.05], [0.05], [0.95], [0.5]])}, "t")
    np.testing.assert_allclose(lopsided.collections[0].get_offsets(), [[50, 25]])
    assert lopsided.get_legend() is None


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"values: expected shape \(3,\), one for each character, got \(2,\)"):
        portraits.coloured_text("abc", np.zeros(2), "v", "t")
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        portraits.trace("ab", {"u": np.array([1, np.nan])}, "v", "t")
    with pytest.raises(ValueError, match="text: expected 1 to 3,000 characters, got 3,001; choose a shorter piece"):
        portraits.coloured_text("a" * 3001, np.zeros(3001), "v", "t")
    with pytest.raises(ValueError, match="text: expected 1 to 3,000 characters, got 0"):
        portraits.coloured_text("", np.zeros(0), "v", "t")
