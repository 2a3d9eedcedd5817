"""Figures of the lessons. Each function draws on an ``Axes`` (a new one if none is given) and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import MaxNLocator

STYLE = Path(__file__).with_name("course.mplstyle")
# Each can be read as text on white (4.5:1), and be told from the others by colour-blind readers (see test_plotting.py).
BLUE, ORANGE, GREEN, PINK, BROWN, SKY = "#0246B0", "#C64F01", "#056C4B", "#9D537D", "#604216", "#017EB5"
INK, GREY, PALE = "#263238", "#546E7A", "#DCE3E7"  # letters; lines and small letters; faces, which need an edge to be seen
EDGED = {"color": PALE, "edgecolor": GREY, "linewidth": 0.8}  # a bar that is not highlighted


def new_axes(ax: Axes | None, **size: object) -> Axes:
    """``ax``, or the axes of a new figure in the course's style."""
    if ax is not None:
        return ax
    plt.style.use(STYLE)
    return plt.subplots(**size)[1]


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    title: str,
    ax: Axes | None = None,
    *,
    log: bool = False,
) -> Axes:
    """Lines with their names at their right ends, so that no legend has to be matched by colour.

    Args:     series: name -> (x, y), equally long. log: whether the y-axis is logarithmic.
    """
    ax = new_axes(ax)
    ax.set_yscale("log" if log else "linear")
    ends = []
    for name, (x, y) in series.items():
        (line,) = ax.plot(x, y, label=name)
        ends.append((float(y[-1]), float(x[-1]), name, line.get_color()))
    ends.sort()
    scale = ax.yaxis.get_transform()  # the distance between names is that on paper, logarithmic or not
    low, high = scale.transform(ax.get_ylim())
    for (_, x, name, color), place in zip(ends, spread([scale.transform(end[0]) for end in ends], low, high), strict=True):
        ax.annotate(name, (x, scale.inverted().transform(place)), xytext=(6, 0), textcoords="offset points", color=color,
                    va="center", annotation_clip=False)  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return ax


def spread(heights: Sequence[float], low: float, high: float, share: float = 0.075) -> np.ndarray:
    """Sorted heights moved apart, by a share of the axis, until names at them do not overlap: up first, then down from high."""
    gap = share * (high - low)
    places = np.clip(heights, low, high)
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], high if k == len(places) - 1 else places[k + 1] - gap)
    return places


def scoreboard(
    rows: Mapping[str, float | Sequence[float]], xlabel: str, title: str, highlight: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Horizontal bars, the first row on top, each with its number; several values of a row are dots over their mean."""
    ax = new_axes(ax, figsize=(7.5, 0.6 + 0.45 * len(rows)))
    widest = max(float(np.max(np.append(np.mean(values), values))) for values in rows.values())
    for place, (name, values) in enumerate(rows.items()):
        values = np.atleast_1d(values)
        ax.barh(place, values.mean(), 0.65, **({"color": BLUE} if name in highlight else EDGED))
        if len(values) > 1:
            ax.plot(values, np.full(len(values), place), "o", color="black", markersize=5, markeredgecolor="white")
        ax.annotate(f"{values.mean():.2f}", (max(values.mean(), values.max()), place), xytext=(7, 0),
                    textcoords="offset points", va="center")  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel=xlabel, title=title, xlim=(0, 1.12 * widest))
    return ax


def distribution(log_probs: np.ndarray, names: Sequence[str], title: str, most: int = 12, ax: Axes | None = None) -> Axes:
    """Bars of the most probable tokens, in order.

    Args:     log_probs: (V,). names: what to write below each token's bar, (V,).
    """
    ax = new_axes(ax)
    best = np.argsort(-log_probs)[:most]
    probabilities = np.exp(log_probs[best])
    bars = ax.bar(range(len(best)), probabilities, color=BLUE)
    ax.bar_label(bars, [f"{p:.2f}" for p in probabilities], fontsize=8.5)
    ax.margins(y=0.15)
    ax.set_xticks(range(len(best)), [visible(names[token]) for token in best], fontfamily="monospace")
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="next character", ylabel="probability", title=title)
    return ax


def surprise(text: str, nats: np.ndarray, title: str, ax: Axes | None = None) -> Axes:
    """One bar a character: how many nats it cost the model.

    Args:     nats: (len(text),).
    """
    ax = new_axes(ax, figsize=(7.5, 2.9))
    ax.bar(range(len(text)), nats, color=np.where(np.asarray(nats) > np.mean(nats), ORANGE, BLUE))
    ax.set_xticks(range(len(text)), [visible(c) for c in text], fontfamily="monospace")
    ax.axhline(np.mean(nats), color="black", linewidth=1, linestyle="--")
    ax.annotate(f"mean\n{np.mean(nats):.2f}", (1, np.mean(nats)), xycoords=("axes fraction", "data"), va="center")
    ax.grid(axis="x", visible=False)
    ax.set(ylabel="surprise (nats)", title=title)
    return ax


def text_map(
    text: str,
    values: np.ndarray,
    names: Sequence[str],
    label: str,
    title: str,
    vmin: float = 0,
    vmax: float = 1,
    ax: Axes | None = None,
) -> Axes:
    """Heat map below a text: a column for each character, a row for each unit.

    Args:     values: (len(names), len(text)). label: what the colours mean. vmin, vmax: the values at the ends of the
              colour bar; if they have opposite signs, white is 0 and the bar reaches equally far to both sides.
    Raises:   ValueError: if the shape of values does not match.
    """
    values = np.asarray(values)
    if values.shape != (len(names), len(text)):
        expected = f"({len(names)}, {len(text)}), a row for each name and a column for each character"
        raise ValueError(f"values: expected shape {expected}, got {values.shape}")
    ax = new_axes(ax, figsize=(8.2, 1.3 + 0.3 * len(names)))
    _image(values, label, vmin, vmax, ax, aspect="auto")
    size = min(10.5, 650 / (len(text) + 1))  # a long text is written smaller
    ax.set_xticks(range(len(text)), [visible(c) for c in text], fontfamily="monospace", fontsize=size)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.set(title=title)
    return ax


def matrix(values: np.ndarray, xlabel: str, ylabel: str, title: str, ax: Axes | None = None, label: str = "entry") -> Axes:
    """A matrix as an image with a colour bar: white is 0 if it has both signs.

    Args:     values: (rows, columns), the first row on top. label: what the colours mean.
    Raises:   ValueError: if values has not two axes.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values: expected a matrix (rows, columns), got shape {values.shape}")
    rows, columns = values.shape
    square = 1 / 2 <= columns / rows <= 2  # else square entries would leave a strip
    ax = new_axes(ax, figsize=(5.5, 4.2) if square else (7.5, 3.6))
    _image(values, label, values.min(), values.max(), ax, aspect="equal" if square else "auto")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return ax


def _image(values: np.ndarray, label: str, vmin: float, vmax: float, ax: Axes, aspect: str) -> None:
    """Draw values and their colour bar; a range with both signs is made symmetric, its colours diverge from white at 0."""
    diverging = vmin < 0 < vmax
    if diverging:
        vmax = max(-vmin, vmax)
        vmin = -vmax
    colours = "RdBu_r" if diverging else "viridis"
    image = ax.imshow(values, vmin=vmin, vmax=vmax, cmap=colours, aspect=aspect, interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    beside = ax.inset_axes((1.03, 0, 0.05, 1) if aspect == "equal" else (1.015, 0, 0.02, 1))  # as high as the image
    ax.figure.colorbar(image, cax=beside, label=label).outline.set_visible(False)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """How much light an sRGB colour gives, 0 black to 1 white; black letters can be read on 0.18 and more, white on less.

    Args:     rgb: (..., 3), from 0 to 1.
    Reference: relative luminance, WCAG 2.2.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def visible(character: str) -> str:
    """A character as it can be seen on an axis."""
    return {" ": "␣", "\n": "↵", "\t": "⇥", "$": r"\$"}.get(character, character)


def course_map(lessons: Sequence[tuple[str, str]], here: int = -1, ax: Axes | None = None) -> Axes:
    """The lessons as boxes along a path, four in a row.

    Args:     lessons: (number, title). here: the lesson to highlight.
    """
    columns = 4
    rows = -(-len(lessons) // columns)
    ax = new_axes(ax, figsize=(8.2, 0.2 + 1.05 * rows))
    snake = [[(x, -y) for x in (range(columns) if y % 2 == 0 else reversed(range(columns)))] for y in range(rows)]
    places = [place for row in snake for place in row][: len(lessons)]
    for (x, y), (x2, y2) in pairwise(places):
        start = (x + 0.41 * np.sign(x2 - x), y - 0.33 * (y2 < y))  # from edge to edge
        end = (x2 - 0.41 * np.sign(x2 - x), y2 + 0.33 * (y2 < y))
        ax.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, arrowstyle="-|>", mutation_scale=14, color=GREY))
    for k, ((x, y), (number, title)) in enumerate(zip(places, lessons, strict=True)):
        face = BLUE if k == here else "white"
        ink = "white" if k == here else "black"
        box = FancyBboxPatch((x - 0.38, y - 0.3), 0.76, 0.6, boxstyle="round,pad=0.02,rounding_size=0.08", facecolor=face,
                             edgecolor=GREY, zorder=2)  # fmt: skip
        ax.add_patch(box)
        ax.text(x, y + 0.13, number, ha="center", va="center", weight="bold", color=ink, zorder=3)
        ax.text(x, y - 0.1, title, ha="center", va="center", fontsize=8.5, color=ink, zorder=3, linespacing=0.95)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(-rows + 0.55, 0.45))
    ax.axis("off")
    return ax
