"""Figures of lesson 11: what a model expects behind each character of a text, and what filters leave of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.filters import Filter
from course_lib.plotting import BLUE, EDGED, ORANGE, STYLE, curves, visible

SHOWN = 7  # characters of the text above a panel
COLUMNS = 5


def next_characters(text: str, log_probs: np.ndarray, names: Sequence[str], title: str, most: int = 4) -> Figure:
    """A panel behind each character of a text: bars of the most probable next ones, orange and hatched for the one that comes.

    Args:     log_probs: (len(text), V), of the token behind each character. names: of the tokens, (V,). most: bars a panel.
    """
    plt.style.use(STYLE)
    rows = -(-len(text) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(9.6, 0.5 + 1.5 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    for t, ax in enumerate(axes.flat):
        if t >= len(text):
            ax.axis("off")
            continue
        best = np.argsort(-log_probs[t], kind="stable")[:most]
        comes = text[t + 1 : t + 2]
        bars = ax.barh(range(most), np.exp(log_probs[t, best]), color=BLUE)
        for bar, k in zip(bars, best, strict=True):
            if names[k] == comes:
                bar.set(facecolor=ORANGE, hatch="////", edgecolor="white", linewidth=0)
        ax.set_yticks(range(most), [visible(names[k]) for k in best], fontfamily="monospace")
        ax.invert_yaxis()
        ax.set(xlim=(0, 1))
        ax.set_title("after " + "".join(map(visible, text[: t + 1][-SHOWN:])), fontsize=9)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel("probability of the next character")
    return figure


def filtered(row: np.ndarray, filters: Mapping[str, Filter], names: Sequence[str], title: str, most: int = 20) -> Figure:
    """A panel for each filter: the distribution itself in grey, what the filter leaves in blue, and how many tokens those are.

    Args:     row: log-probabilities (V,). filters: name -> filter. names: of the tokens, (V,). most: bars, the most probable.
    """
    plt.style.use(STYLE)
    rows = -(-len(filters) // 2)
    size = (9.4, 0.6 + 2.2 * rows)
    figure, axes = plt.subplots(rows, 2, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    best = np.argsort(-row, kind="stable")[:most]
    for ax, (name, keep) in zip(axes.flat, filters.items(), strict=False):
        left = np.exp(keep(row[None])[0])
        ax.bar(range(most), np.exp(row[best]), 0.9, **EDGED)
        ax.bar(range(most), left[best], 0.5, color=BLUE)
        ax.set_xticks(range(most), [visible(names[v]) for v in best], fontfamily="monospace")
        ax.grid(axis="x", visible=False)
        ax.set(ylabel="probability")
        ax.set_title(f"{name}: {(left > 0).sum()} of {left.size} are left", fontsize=10.5)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel("next character")
    return figure


def kept_along(text: str, log_probs: np.ndarray, filters: Mapping[str, Filter], title: str, ax: Axes | None = None) -> Axes:
    """How many tokens each filter leaves behind each character of a text, on a logarithmic axis.

    Args:     log_probs: (len(text), V). filters: name -> filter.
    """
    counts = {name: (keep(log_probs) > -np.inf).sum(axis=1) for name, keep in filters.items()}
    series = {name: (range(len(text)), count) for name, count in counts.items()}
    ax = curves(series, "character read", "tokens kept", title, ax, log=True)
    ax.set_xticks(range(len(text)), [visible(c) for c in text], fontfamily="monospace")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick <= max(map(max, counts.values()))]
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    return ax
