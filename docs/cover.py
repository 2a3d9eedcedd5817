"""Draw the picture of the README: the cell, and what the shipped model makes of a sentence: python docs/cover.py."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib import checkpoint, clamping, diagrams, plotting, writing
from course_lib.filters import temperature

PICTURE = Path(__file__).with_name("cover.png")
SENTENCE = "The quick brown fox jumps over the lazy dog"
HEAT, SEED = 0.6, 0


def content() -> dict:
    """What the picture says: the sentence, the nats of each character behind its first, what the model writes next."""
    model = checkpoint.load("shakespeare")
    nats = clamping.nats(model.params, model.tokenizer.encode(SENTENCE))
    (written,) = writing.continue_text(model, SENTENCE, 60, [temperature(HEAT)], seed=SEED)
    return {"sentence": SENTENCE, "nats": nats.round(3).tolist(), "goes on": written.text.partition(".")[0] + "."}


def draw(said: dict) -> Figure:
    """The cover, 1600 by 640 pixels: title and cell above, the surprise at each character below."""
    with plt.style.context(plotting.STYLE):
        figure = plt.figure(figsize=(16, 6.4), dpi=100, layout="none")
        figure.text(0.028, 0.925, "From RNN to LSTM", fontsize=48, fontweight="bold", color=plotting.INK, va="top")
        figure.text(0.03, 0.77, "derived, verified and run", fontsize=26, color=plotting.BLUE, va="top")
        told = textwrap.fill(said["sentence"] + said["goes on"].split("\n")[0], 46) + "\n" + said["goes on"].partition("\n")[2]
        figure.text(
            0.03, 0.645, told, fontsize=17, family="serif", style="italic", color=plotting.INK, va="top", linespacing=1.4
        )
        figure.text(
            0.03, 0.5, f"line 1: the prompt; line 2: our LSTM, temperature {HEAT}", fontsize=15, color=plotting.GREY, va="top"
        )
        _cell(figure.add_axes((0.53, 0.43, 0.46, 0.56)))
        _surprise(figure.add_axes((0.05, 0.095, 0.875, 0.27)), said)
    return figure


def _cell(ax: Axes) -> None:
    """The LSTM cell without small print."""
    diagrams.lstm_cell(4, ax).set_title("")
    for text in list(ax.texts):
        if text.get_fontsize() < 10:  # the caption of a gate
            text.remove()
        elif text.get_text() in (r"$\sigma$", r"$\tanh$") and text.get_position()[1] == 1.9 + 0.13:
            text.set_y(1.9)
    nudged = {r"$f_t \odot C_{t-1}$": (0.08, 0.02), r"$i_t \odot \tilde{C}_t$": (0.12, 0.03), "$i_t$": (-0.02, 0.1),
              r"$\tilde{C}_t$": (0.06, 0.12), "$o_t$": (0, 0.04), "$[h_{t-1}, x_t]$": (0.22, 0)}  # fmt: skip
    for text in ax.texts:
        beside = text.get_text() in nudged  # an arrow
        text.set_fontsize(16 if beside else 19)
        if beside:
            text.set_position(np.add(text.get_position(), nudged[text.get_text()]))


def _surprise(ax: Axes, said: dict) -> None:
    """The bars, with large letters."""
    plotting.surprise(said["sentence"][1:], np.array(said["nats"]), "", ax)
    ax.set_title("What surprises an LSTM that has read only Shakespeare?", fontsize=20, loc="left", pad=10)
    ax.set_ylabel("nats", fontsize=17)
    ax.margins(x=0.008)
    ax.tick_params(axis="x", labelsize=20, length=0)
    ax.tick_params(axis="y", labelsize=16)
    ax.texts[0].set_fontsize(16)


if __name__ == "__main__":
    said = content()
    draw(said).savefig(PICTURE, metadata={"Software": None, "Description": json.dumps(said)})
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")
