"""The picture of the README shows what the shipped model says, and is the one that docs/cover.py draws."""

from __future__ import annotations

import importlib.util
import io
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from colours import contrast
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from course_lib import checkpoint, language_model, writing
from course_lib.filters import temperature

SPEC = importlib.util.spec_from_file_location("cover", Path(__file__).parents[1] / "docs" / "cover.py")
cover = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cover)


@cache
def said():
    return cover.content()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_nats_are_those_of_the_model_step_by_step():
    model = checkpoint.load("shakespeare")
    state, nats = language_model.initial_state(model.params, 1), []
    tokens = model.tokenizer.encode(said()["sentence"])
    for token, following in pairwise(tokens):
        log_probs, state = language_model.step(model.params, np.array([token]), state)
        nats.append(-float(log_probs[0, following]))
    np.testing.assert_allclose(said()["nats"], nats, atol=2e-3)
    assert len(nats) == 42 and said()["sentence"] == "The quick brown fox jumps over the lazy dog"


def test_the_model_wrote_what_the_picture_says_it_wrote():
    model = checkpoint.load("shakespeare")
    several = writing.continue_text(model, said()["sentence"], 50, [temperature(cover.HEAT)], samples=3, seed=cover.SEED)
    assert several[0].text.startswith(said()["goes on"]) and len(said()["goes on"]) > 30
    shown = {text.get_text() for text in cover.draw(said()).texts}
    assert said()["sentence"] + said()["goes on"] in shown and any(f"temperature {cover.HEAT}" in text for text in shown)


def test_bars_are_the_nats_and_the_letters_are_the_sentence():
    ax = cover.draw(said()).axes[-1]
    bars = [patch.get_height() for patch in ax.patches if patch.get_width() == 0.8]
    np.testing.assert_array_equal(bars, said()["nats"])
    assert "".join(label.get_text() for label in ax.get_xticklabels()) == said()["sentence"][1:].replace(" ", "␣")


def test_the_file_is_this_picture_and_not_large():
    with Image.open(cover.PICTURE) as picture:
        assert picture.size == (1600, 640) and json.loads(picture.text["Description"]) == said()
    assert cover.PICTURE.stat().st_size < 250_000


def test_the_picture_is_the_same_each_time():
    pages = []
    for _ in range(2):
        page = io.BytesIO()
        cover.draw(said()).savefig(page, metadata={"Software": None})
        pages.append(page.getvalue())
    assert pages[0] == pages[1]


def test_all_letters_can_be_read_at_half_the_size():
    figure = cover.draw(said())
    figure.canvas.draw()
    written = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert len(written) > 60
    for text in written:
        assert text.get_fontsize() * 100 / 72 / 2 >= 10, text.get_text()  # pixels where the picture is 800 wide
        assert to_rgb(text.get_color()) == (1, 1, 1) or contrast(text.get_color()) >= 4.5, text.get_text()
        at = text.get_window_extent()
        assert (
            figure.bbox.padded(0).x0 <= at.x0 and at.x1 <= figure.bbox.x1 and figure.bbox.y0 <= at.y0 <= at.y1 <= figure.bbox.y1
        )
