"""Portraits of single units: a text coloured by a unit, a unit's trace along a text, how often gates are shut or open."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm

from course_lib.plotting import GREY, luminance, new_axes, spread, visible
from course_lib.probes import saturation

LONGEST = 3000  # characters of a picture
LINES = ("-", "--", "-.", ":")
WHITE_BELOW = 0.18  # the luminance at which black letters become easier to read than white ones


def coloured_text(text: str, values: np.ndarray, label: str, title: str, width: int = 72, ax: Axes | None = None) -> Axes:
    """The text in its own lines, each character on the colour of the unit's value when it had been read.

    White is 0; red and blue reach as far as the largest value of either sign does. A line longer than ``width`` is broken.

    Args:     values: (len(text),). label: what the colours mean, with the unit's name. width: characters in a row.
    Raises:   ValueError: values of another shape or not finite; no text, or more than 3,000 characters.
    """
    values = _checked(text, values)
    rows, columns = _places(text, width)
    ax = new_axes(ax, figsize=(0.4 + 0.112 * (columns.max() + 1), 0.8 + 0.2 * (rows.max() + 1)))
    cells = np.full((rows.max() + 1, columns.max() + 1), np.nan)
    cells[rows, columns] = values
    reach = abs(values).max() or 1.0
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="none")
    norm = TwoSlopeNorm(0, -reach, reach)
    image = ax.imshow(cells, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    dark = luminance(colours(norm(values))[:, :3]) < WHITE_BELOW
    written = {"family": "monospace", "fontsize": 9, "ha": "center", "va": "center_baseline"}
    for character, row, column, below in zip(text, rows, columns, dark, strict=True):
        if character != " ":
            ax.text(column, row, visible(character), color="white" if below else "black", **written)
    ax.set(title=title)
    ax.axis("off")
    beside = ax.inset_axes((1.015, 0, 0.02, 1))
    ax.figure.colorbar(image, cax=beside, label=label).outline.set_visible(False)
    return ax


def trace(text: str, values: Mapping[str, np.ndarray], ylabel: str, title: str, ax: Axes | None = None) -> Axes:
    """The values of units along a text, written below: a curve for each, its name at its end; a vertical line at each newline.

    Args:     values: name -> (len(text),), entry t after character t was read.
    Raises:   ValueError: values of another shape or not finite; no text, or more than 3,000 characters.
    """
    ax = new_axes(ax, figsize=(8.2, 3.0))
    drawn = []
    for (name, of_unit), style in zip(values.items(), cycle(LINES), strict=False):
        drawn += ax.plot(_checked(text, of_unit), style, label=name, linewidth=1.6)
    drawn.sort(key=lambda line: line.get_ydata()[-1])
    heights = spread([line.get_ydata()[-1] for line in drawn], *ax.get_ylim(), 0.12)
    for line, height in zip(drawn, heights, strict=True):
        ax.annotate(line.get_label(), (len(text) - 1, height), xytext=(8, 0), textcoords="offset points", fontsize=12,
                    color=line.get_color(), va="center", annotation_clip=False)  # fmt: skip
    for place in np.flatnonzero(np.array(list(text)) == "\n"):
        ax.axvline(place, color=GREY, linewidth=1, zorder=0)
    size = min(10.5, 650 / (len(text) + 1))  # a long text is written smaller
    ax.set_xticks(range(len(text)), [visible(c) for c in text], fontfamily="monospace", fontsize=size)
    ax.tick_params(axis="x", length=0)
    ax.grid(axis="x", visible=False)
    ax.margins(x=0.01)
    ax.set(xlabel="character read", ylabel=ylabel, title=title)
    return ax


def gate_saturation(gates: Mapping[str, np.ndarray], title: str, ax: Axes | None = None) -> Axes:
    """One dot a unit: how often its gate is shut (below 0.1) against how often it is open (above 0.9), in percent of the steps.

    A dot at the lower right is a gate that is nearly always shut, at the upper left one that is nearly always open, near the
    origin one that is in between, on the dashed line one that is always at one of the ends.

    Args:     gates: name of a layer -> (T, H), values of one gate.
    Reference: Karpathy, Johnson & Fei-Fei 2015, figure 2.
    """
    ax = new_axes(ax, figsize=(4.2, 4.0))
    for (name, gate), marker in zip(gates.items(), "o^sDv*", strict=False):
        shut, open_ = saturation(gate)
        ax.scatter(100 * shut, 100 * open_, s=14, alpha=0.75, linewidths=0, marker=marker, label=name)
    ax.plot([0, 100], [100, 0], "--", color=GREY, linewidth=1, zorder=0)
    ax.set(xlabel="shut, below 0.1 (% of steps)", ylabel="open, above 0.9 (% of steps)", title=title)
    ax.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
    if len(gates) > 1:
        ax.legend(loc="upper right")
    return ax


def _checked(text: str, values: np.ndarray) -> np.ndarray:
    """The values as floats, one a character."""
    values = np.asarray(values, float)
    if not 0 < len(text) <= LONGEST:
        raise ValueError(f"text: expected 1 to {LONGEST:,} characters, got {len(text):,}; choose a shorter piece")
    if values.shape != (len(text),):
        raise ValueError(f"values: expected shape ({len(text)},), one for each character, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values: expected finite numbers")
    return values


def _places(text: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each character; a newline stands at the end of its row."""
    rows, columns, row, column = [], [], 0, 0
    for character in text:
        if column >= width and character != "\n":
            row, column = row + 1, 0
        rows.append(row)
        columns.append(column)
        row, column = (row + 1, 0) if character == "\n" else (row, column + 1)
    return np.array(rows), np.array(columns)
