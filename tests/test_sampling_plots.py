"""Figures of sampling show the numbers that they are given."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from course_lib import sampling_plots
from course_lib.filters import temperature, top_k
from course_lib.layers import log_softmax
from course_lib.plotting import BLUE, GREY, ORANGE

NAMES = ["<unk>", *"abc \n"]
TEXT = "ab c\nba"
LOG_PROBS = log_softmax(np.random.default_rng(0).normal(0, 2, (len(TEXT), len(NAMES))))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_each_panel_has_the_best_characters_and_marks_the_one_that_comes() -> None:
    figure = sampling_plots.next_characters(TEXT, LOG_PROBS, NAMES, "conclusion", most=3)
    assert figure.get_suptitle() == "conclusion" and len(figure.axes) == 10  # two rows of five
    for t, ax in enumerate(figure.axes[: len(TEXT)]):
        best = sorted(range(len(NAMES)), key=lambda v, t=t: -LOG_PROBS[t, v])[:3]
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], np.exp(LOG_PROBS[t, best]))
        shown = [{" ": "␣", "\n": "↵"}.get(NAMES[v], NAMES[v]) for v in best]
        assert [label.get_text() for label in ax.get_yticklabels()] == shown
        comes = [t + 1 < len(TEXT) and NAMES[v] == TEXT[t + 1] for v in best]
        assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [ORANGE if c else BLUE for c in comes]
        assert [bool(bar.get_hatch()) for bar in ax.patches] == comes  # not by colour only
        assert ax.yaxis_inverted() and ax.get_title(loc="left").startswith("after ")
    assert not any(ax.axison for ax in figure.axes[len(TEXT) :])


def test_a_panel_for_each_filter_shows_what_it_leaves() -> None:
    filters = {"cool": temperature(0.5), "two": top_k(2), "one": top_k(1)}
    figure = sampling_plots.filtered(LOG_PROBS[2], filters, NAMES, "conclusion", most=4)
    best = np.argsort(-LOG_PROBS[2])[:4]
    for ax, (name, keep), left in zip(figure.axes, filters.items(), (6, 2, 1), strict=False):
        heights = [bar.get_height() for bar in ax.patches]
        np.testing.assert_allclose(heights[:4], np.exp(LOG_PROBS[2, best]))
        np.testing.assert_allclose(heights[4:], np.exp(keep(LOG_PROBS[2:3])[0, best]))
        assert all(to_hex(bar.get_edgecolor()).upper() == GREY for bar in ax.patches[:4])  # pale bars have an edge
        assert ax.get_title(loc="left") == f"{name}: {left} of 6 are left"


def test_the_tokens_kept_are_counted_along_the_text() -> None:
    def cut(log_probs):
        return np.where(log_probs > np.log(0.15), log_probs, -np.inf)

    ax = sampling_plots.kept_along(TEXT, LOG_PROBS, {"two": top_k(2), "likely": cut, "all": temperature(1)}, "conclusion")
    two, likely, whole = (line.get_ydata() for line in ax.lines)
    assert LOG_PROBS.min() < -5 and list(two) == [2] * len(TEXT) and list(whole) == [len(NAMES)] * len(TEXT)
    assert list(likely) == [sum(p > 0.15 for p in np.exp(row)) for row in LOG_PROBS]
    assert ax.get_yscale() == "log" and [label.get_text() for label in ax.get_xticklabels()] == list("ab␣c↵ba")
