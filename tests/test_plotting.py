"""The figures show the numbers that they are given."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from colours import VISIONS, contrast, distance, lab
from matplotlib.colors import to_hex, to_rgb

from course_lib import diagrams, plotting

CYCLE = [plotting.BLUE, plotting.ORANGE, plotting.GREEN, plotting.PINK, plotting.BROWN, plotting.SKY, "#000000"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_style_s_cycle_is_the_palette() -> None:
    with plt.style.context(plotting.STYLE):
        assert [f"#{colour.strip('#')}" for colour in plt.rcParams["axes.prop_cycle"].by_key()["color"]] == CYCLE


@pytest.mark.parametrize("colour", [*CYCLE, plotting.INK, plotting.GREY])
def test_a_colour_of_lines_can_be_read_as_letters_on_white(colour: str) -> None:
    assert contrast(colour) >= 4.5  # WCAG 2.2, 1.4.3; lines and markers need 3, 1.4.11


def test_white_letters_can_be_read_on_blue_and_dark_ones_on_pale_faces() -> None:
    assert contrast("white", plotting.BLUE) >= 4.5 and contrast("white", plotting.ORANGE) >= 4.5
    for face in (plotting.PALE, diagrams.STATE):
        assert min(contrast(plotting.INK, face), contrast("black", face)) >= 7
        assert contrast(plotting.GREY, face) >= 3  # the edge that makes a pale face visible


@pytest.mark.parametrize(
    ("vision", "least"), [("normal", 20), ("protanopia", 12.5), ("deuteranopia", 12.5), ("tritanopia", 12.5)]
)
def test_any_two_colours_of_the_cycle_can_be_told_apart(vision: str, least: float) -> None:
    assert min(distance(lab(a, vision), lab(b, vision)) for a, b in combinations(CYCLE, 2)) >= least


def test_hues_are_those_that_the_lessons_name() -> None:
    hue = {name: np.degrees(np.arctan2(*lab(getattr(plotting, name))[:0:-1])) % 360 for name in ("BLUE", "ORANGE", "GREEN")}
    assert 255 < hue["BLUE"] < 300 and 45 < hue["ORANGE"] < 70 and 140 < hue["GREEN"] < 180


def test_the_measures_of_colour_are_those_of_their_sources() -> None:
    published = [  # CIEDE2000 test data of Sharma, Wu & Dalal 2005
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425), ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492), ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082), ((50, 0, 0), (50, -1, 2), 2.3669),
    ]  # fmt: skip
    for one, two, expected in published:
        assert distance(one, two) == pytest.approx(expected, abs=1e-4) == distance(two, one)
    assert contrast("black") == pytest.approx(21) and contrast("#767676") == pytest.approx(4.54, abs=0.01)
    assert lab("#FF0000") == pytest.approx((53.24, 80.09, 67.20), abs=0.02)
    for vision, matrix in VISIONS.items():
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5, err_msg=vision)  # greys stay grey
    for vision in ("protanopia", "deuteranopia"):
        assert distance(lab("#AA5500", vision), lab("#557700", vision)) < 0.5 * distance(lab("#AA5500"), lab("#557700"))


def test_letters_change_from_white_to_black_where_they_are_read_alike() -> None:
    greys = np.linspace(0, 1, 256)[:, None] * np.ones(3)
    given = plotting.luminance(greys)
    assert (given[0], given[-1]) == (0, pytest.approx(1)) and (np.diff(given) > 0).all()
    assert min(contrast(grey, "black" if light >= 0.18 else "white") for grey, light in zip(greys, given, strict=True)) >= 4.5
    assert plotting.luminance(np.array(to_rgb("#0246B0"))) == pytest.approx(1.05 / contrast("#0246B0") - 0.05, abs=1e-4)


def test_curves_carry_the_data_and_their_names_do_not_overlap() -> None:
    series = {"a": ([0, 1], [1.0, 2.0]), "b": ([0, 1], [0.0, 2.01]), "c": ([0, 1], [3.0, 2.02])}
    ax = plotting.curves(series, "x", "y", "title")
    for line, (x, y) in zip(ax.lines, series.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), x)
        np.testing.assert_array_equal(line.get_ydata(), y)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert {text.get_text() for text in ax.texts} == set(series) and min(np.diff(heights)) > 0.1
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("x", "y", "title")


@pytest.mark.parametrize("log", [False, True])
def test_names_at_the_ends_neither_touch_nor_are_cut_off(log: bool) -> None:
    ends = [1e-6, 2e-6, 1.0, 1.0, 1.01, 1.02, 1.0]
    series = {f"a name, number {k}": ([0, 1], [1.0, end]) for k, end in enumerate(ends)}
    ax = plotting.curves(series, "x", "y", "title", log=log)
    ax.figure.canvas.draw()
    extents = [text.get_window_extent() for text in ax.texts]
    assert not [1 for a, b in combinations(extents, 2) if a.overlaps(b)]
    assert all(ax.figure.bbox.contains(*corner) for extent in extents for corner in extent.corners())
    assert all(ax.get_ylim()[0] <= text.xy[1] <= ax.get_ylim()[1] for text in ax.texts)
    assert ax.get_yscale() == ("log" if log else "linear") and len(ax.lines) == len(ax.texts) == 7


def test_names_stay_at_their_lines_where_there_is_room() -> None:
    ax = plotting.curves({"a": ([0, 1], [1, 1e-4]), "b": ([0, 2], [1, 1e-2])}, "x", "y", "title", log=True)
    np.testing.assert_allclose([text.xy for text in ax.texts], [(1, 1e-4), (2, 1e-2)])
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.lines]


def test_a_line_that_ends_at_zero_has_its_name_at_the_bottom_of_a_log_axis() -> None:
    ax = plotting.curves({"a": ([0, 1, 2], [1, 1e-3, 0])}, "x", "y", "title", log=True)
    np.testing.assert_allclose(ax.texts[0].xy, (2, ax.get_ylim()[0]))


def test_text_map_has_a_column_a_character_and_a_row_a_unit() -> None:
    values = np.arange(15.0).reshape(3, 5) / 20
    ax = plotting.text_map("a $\nb", values, ["f", "i", "o"], "gate", "title", vmax=0.9)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.get_clim() == (0, 0.9) and image.get_cmap().name == "viridis" and image.origin == "upper"
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "␣", r"\$", "↵", "b"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["f", "i", "o"]
    assert (list(ax.get_xticks()), list(ax.get_yticks())) == ([0, 1, 2, 3, 4], [0, 1, 2])
    assert (image.colorbar.ax.get_ylabel(), ax.get_title(loc="left")) == ("gate", "title")


def test_characters_of_a_long_text_do_not_overlap() -> None:
    text = "wide mmmmm and narrow iiii " * 3
    ax = plotting.text_map(text, np.zeros((2, len(text))), ["f", "a longer name"], "gate", "title")
    ax.figure.canvas.draw()
    extents = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert len(extents) == 81 and all(a.x1 <= b.x0 for a, b in pairwise(extents))
    names = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(ax.figure.bbox.contains(*corner) for extent in names for corner in extent.corners())


@pytest.mark.parametrize(("vmin", "vmax", "limit"), [(-1, 1, 1), (-3, 1, 3), (-1, 2, 2)])
def test_text_map_with_negative_values_is_white_at_zero(vmin: float, vmax: float, limit: float) -> None:
    (image,) = plotting.text_map("ab", np.zeros((1, 2)), ["c"], "cell", "title", vmin, vmax).images
    assert image.get_clim() == (-limit, limit)
    assert min(image.to_rgba(0.0)) > 0.95 and image.to_rgba(limit)[0] > image.to_rgba(-limit)[0]


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,), (2, 2, 1)])
def test_text_map_names_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^values: expected shape \(2, 2\), a row for each name .*, got \([\d, ]+\)$"):
        plotting.text_map("ab", np.zeros(shape), ["f", "i"], "gate", "title")


def test_matrix_is_white_at_zero_if_it_has_both_signs() -> None:
    values = np.array([[1.0, -4.0, 0.0], [2.0, 3.0, 0.5]])
    ax = plotting.matrix(values, "column", "row", "title")
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.get_clim() == (-4, 4) and min(image.to_rgba(0.0)) > 0.95 and image.origin == "upper"
    assert image.colorbar is not None
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("column", "row", "title")
    assert image.colorbar.ax.get_ylabel() == "entry"
    (named,) = plotting.matrix(values, "column", "row", "title", label="weight").images
    assert named.colorbar.ax.get_ylabel() == "weight"
    (positive,) = plotting.matrix(np.abs(values) + 1, "column", "row", "title").images
    assert positive.get_clim() == (1, 5) and positive.get_cmap().name == "viridis"
    (negative,) = plotting.matrix(-np.abs(values) - 1, "column", "row", "title").images
    assert negative.get_clim() == (-5, -1) and negative.get_cmap().name == "viridis"


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 3))])
def test_matrix_names_a_wrong_shape(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^values: expected a matrix \(rows, columns\), got shape \([\d, ]+\)$"):
        plotting.matrix(values, "column", "row", "title")


def test_scoreboard_bars_are_means_and_dots_are_runs() -> None:
    ax = plotting.scoreboard({"one": 2.0, "three": [1.0, 2.0, 6.0]}, "nats", "title", highlight=["three"])
    assert [bar.get_width() for bar in ax.patches] == [2.0, 3.0]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 6])
    assert [text.get_text() for text in ax.texts] == ["2.00", "3.00"]
    assert ax.yaxis_inverted() and [label.get_text() for label in ax.get_yticklabels()] == ["one", "three"]
    assert to_hex(ax.patches[1].get_facecolor()).upper() == plotting.BLUE
    assert contrast(ax.patches[0].get_edgecolor()[:3]) >= 3 and ax.patches[0].get_linewidth() > 0  # pale, but with an edge


@pytest.mark.parametrize("runs", [[1.0, 1.0, 1.02], [0.2, 5.0, 0.1], [3.0, 3.0, 3.0]])
def test_scoreboard_s_number_touches_no_dot_and_is_not_cut_off(runs: list[float]) -> None:
    ax = plotting.scoreboard({"a": runs, "b": 2.0, "c": [1.0, 1.5]}, "nats", "title")
    ax.figure.canvas.draw()
    for text, line in zip((ax.texts[0], ax.texts[2]), ax.lines, strict=True):
        dots = ax.transData.transform(np.column_stack(line.get_data()))
        reach = line.get_markersize() / 2 * ax.figure.dpi / 72
        assert text.get_window_extent().x0 > dots[:, 0].max() + reach
    assert all(text.get_window_extent().x1 <= ax.figure.bbox.x1 for text in ax.texts)


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
    assert plotting.matrix(np.eye(2), "x", "y", "t", ax=ax) is ax
    assert plotting.text_map("ab", np.eye(2), "cd", "l", "t", ax=ax) is ax
    assert plotting.curves({"a": ([0], [1])}, "x", "y", "t", ax, log=True) is ax


SOURCES = sorted((Path(__file__).parents[1] / "notebooks" / "src").glob("*.md"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem[:2])
def test_colours_that_a_lesson_writes_itself_can_be_seen(source: Path):
    for line in source.read_text(encoding="utf-8").splitlines():
        for colour in re.findall(r'"(#[0-9A-Fa-f]{6}|gr[ae]y|(?:light|dark)\w+|red|blue|green|orange|purple)"', line):
            least = 4.5 if re.search(r"\.(text|annotate|write)\(", line) else 3
            assert contrast(colour) >= least, line
