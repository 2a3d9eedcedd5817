"""The figures show the numbers that they are given."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import plotting


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_style_is_colour_blind_safe_and_complete() -> None:
    plt.style.use(plotting.STYLE)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert colours[0] == plotting.BLUE and len(set(colours)) == 7


def test_curves_carry_the_data_and_their_names_do_not_overlap() -> None:
    series = {"a": ([0, 1], [1.0, 2.0]), "b": ([0, 1], [0.0, 2.01]), "c": ([0, 1], [3.0, 2.02])}
    ax = plotting.curves(series, "x", "y", "title")
    for line, (x, y) in zip(ax.lines, series.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), x)
        np.testing.assert_array_equal(line.get_ydata(), y)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert {text.get_text() for text in ax.texts} == set(series) and min(np.diff(heights)) > 0.1
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("x", "y", "title")


def test_scoreboard_bars_are_means_and_dots_are_runs() -> None:
    ax = plotting.scoreboard({"one": 2.0, "three": [1.0, 2.0, 6.0]}, "nats", "title", highlight=["three"])
    assert [bar.get_width() for bar in ax.patches] == [2.0, 3.0]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 6])
    assert [text.get_text() for text in ax.texts] == ["2.00", "3.00"]
    assert ax.yaxis_inverted() and [label.get_text() for label in ax.get_yticklabels()] == ["one", "three"]
    assert ax.patches[1].get_facecolor() != ax.patches[0].get_facecolor()


def test_distribution_shows_the_most_probable_in_order() -> None:
    probabilities = np.array([0.1, 0.5, 0.15, 0.25])
    ax = plotting.distribution(np.log(probabilities), ["a", " ", "c", "\n"], "title", most=3)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.5, 0.25, 0.15])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["␣", "↵", "c"]


def test_surprise_marks_what_is_above_the_mean() -> None:
    ax = plotting.surprise("abc", np.array([1.0, 4.0, 1.0]), "title")
    assert [bar.get_height() for bar in ax.patches] == [1.0, 4.0, 1.0]
    faces = [bar.get_facecolor() for bar in ax.patches]
    assert faces[0] == faces[2] != faces[1] and ax.texts[0].get_text() == "mean\n2.00"


def test_course_map_has_a_box_a_lesson_and_arrows_between() -> None:
    lessons = [(str(k), f"lesson {k}") for k in range(6)]
    ax = plotting.course_map(lessons, here=2)
    boxes = [patch for patch in ax.patches if type(patch).__name__ == "FancyBboxPatch"]
    arrows = [patch for patch in ax.patches if type(patch).__name__ == "FancyArrowPatch"]
    assert (len(boxes), len(arrows)) == (6, 5)
    highlighted = [k for k, box in enumerate(boxes) if matplotlib.colors.to_hex(box.get_facecolor()).upper() == plotting.BLUE]
    assert highlighted == [2]
    rows = {round(text.get_position()[1] - 0.13, 6) for text in ax.texts if text.get_text().isdigit()}
    assert rows == {0.0, -1.0}


def test_axes_passed_in_are_used() -> None:
    _, ax = plt.subplots()
    assert plotting.scoreboard({"a": 1.0}, "x", "t", ax=ax) is ax
