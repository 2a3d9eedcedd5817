"""An explorer of one LSTM unit in a trained model: move what it reads and what it holds, and see what its gates do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from course_lib.cells import LSTMState, lstm_step_forward
from course_lib.checkpoint import Checkpoint
from course_lib.explorer import Explorer, empty_figure, menu, slider
from course_lib.plotting import BLUE, GREEN, GREY, ORANGE, visible
from course_lib.probes import check_lstm
from course_lib.sequence import lstm_forward

GATES = (("keep, $f_t$", BLUE), ("write, $i_t$", ORANGE), ("show, $o_t$", GREEN), (r"news, $\tilde C_t$", ORANGE))
MEMORY = (("before, $C_{t-1}$", GREY), (r"kept, $f_t * C_{t-1}$", BLUE), (r"written, $i_t * \tilde C_t$", ORANGE),
          ("after, $C_t$", GREY), (r"shown, $h_t$", GREEN))  # fmt: skip
UPRIGHT = ((-0.15, -1), (0.15, -1), (0.15, 1), (-0.15, 1))  # a black mark with a white rim: seen on a bar and beside it
REACHES = (1.25, 2.5, 4, 8, 15, 30, 60, 125)  # of the axis of the memory; few, so that it seldom jumps


class UnitStep(NamedTuple):
    """A step of one unit: its gates and its candidate g, c before and after, h after."""

    f: float
    i: float
    o: float
    g: float
    c_prev: float
    c: float
    h: float


class GateExplorer(Explorer):
    """What a unit of the first layer of a trained LSTM does with the next character.

    h_{t-1} and C_{t-1} are those of the model that has read so much of the text. The character x that it reads next, the size
    of h_{t-1} and the unit's own C_{t-1} can be set otherwise; at another place or unit, they are the model's own again. The
    step is ``lstm_step_forward`` of the whole layer. Black marks: the model's own values.

    Attributes: unit, behind, x, h, c: the controls, see ``Explorer``.
    Args:       model: a language model of LSTMs. text: at least two characters of its vocabulary. units: name -> index.
                settings: first positions: unit, a name; behind, characters read; x, a character; h, a factor of h_{t-1};
                c, C_{t-1} of the unit.
    Raises:     ValueError: naming the argument.
    """

    def __init__(self, model: Checkpoint, text: str, units: Mapping[str, int], **settings: Any) -> None:
        check_lstm(model.params)
        self.text, self.units, self._layer = text, dict(units), model.params.layers[0]
        H, characters = self._layer.W_hh.shape[1], model.tokenizer.characters
        foreign = sorted(set(text) - set(characters))
        if len(text) < 2 or foreign:
            raise ValueError(f"text: expected at least two characters that the model knows, got {''.join(foreign) or text!r}")
        wrong = [k for k in self.units.values() if not 0 <= k < H]
        if not self.units or wrong:
            raise ValueError(f"units: expected a name for each of some units below {H}, got {wrong or 'none'}")
        self._inputs = dict(zip(characters, model.params.embedding[model.tokenizer.encode(characters)], strict=True))
        zero = np.zeros((1, H), np.float32)
        x = np.stack([self._inputs[character] for character in text])[:, None]
        _, _, cache = lstm_forward(x, LSTMState(zero, zero), self._layer)
        self._hs, self._cs = cache.hs[:-1, 0], cache.cs[:-1, :, 0]  # (T, H): before each character
        figure = self._make_figure()
        controls = {
            "unit": menu(next(iter(self.units)), self.units, "unit"),
            "behind": slider(1, 0, len(text) - 1, 1, "characters read"),
            "x": menu(text[1], [(visible(c).replace(r"\$", "$"), c) for c in characters], "x, the next one"),
            "h": slider(1.0, 0.0, 2.0, 0.05, "size of h before"),
            "c": slider(0.0, -2.0, 2.0, 0.05, "C before"),
        }
        super().__init__(figure, controls, {"unit": controls["unit"].value} | settings)

    def own(self) -> UnitStep:
        """The step that the model itself takes here, with the text's next character."""
        place = self.behind.value
        return self._take(self.text[place], 1, self._cs[place, self.units[self.unit.value]])

    def step(self) -> UnitStep:
        """The step at the controls' present positions."""
        return self._take(self.x.value, self.h.value, self.c.value)

    def said(self) -> str:
        """What the picture shows, in a line."""
        return f"{self._words()}. {self._numbers()}"

    def moved(self, name: str) -> None:
        """At another place or unit, start from what the model has there."""
        if name in ("unit", "behind"):
            place, cs = self.behind.value, self._cs[:, self.units[self.unit.value]]
            reach = float(max(2, np.ceil(1.2 * np.abs(cs).max())))
            self.c.value = 0.0
            self.c.min, self.c.max = -reach, reach
            self.x.value, self.h.value, self.c.value = self.text[place], 1.0, float(cs[place])

    def draw(self) -> None:
        """Move the bars, their numbers and the black marks."""
        spans, own = _spans(self.step()), _spans(self.own())
        for row, ((start, end), (_, model_s)) in enumerate(zip(spans, own, strict=True)):
            self._bars[row].set(x=min(start, end), width=abs(end - start))
            self._marks[row].set_xdata([model_s])
            self._labels[row].set_text(_number(end - start))
            self._labels[row].xy = max(0, start, end, model_s), self._labels[row].xy[1]  # right of all that is drawn
        far = max(abs(place) for span in (*spans[len(GATES) :], *own[len(GATES) :]) for place in span)
        reach = next((r for r in REACHES if far <= 0.75 * r), 1.4 * far)
        self._memory.set_xlim(-reach, reach)
        self._title.set_text(f"{self._words()}\n{self._numbers()}")

    def _take(self, x: str, size: float, c: float) -> UnitStep:
        """One step of the layer from the present place, as seen by the unit."""
        k, place = self.units[self.unit.value], self.behind.value
        h, cs = np.float32(size) * self._hs[place][None], self._cs[place][None].copy()
        cs[0, k] = c
        state, cache = lstm_step_forward(self._inputs[x][None], LSTMState(h, cs), self._layer)
        return UnitStep(*(float(a[0, k]) for a in (cache.f, cache.i, cache.o, cache.g, cs, state.c, state.h)))

    def _words(self) -> str:
        step, read = self.step(), "".join(map(visible, self.text[: self.behind.value]))[-24:]
        place = f"after {read} reads {visible(self.x.value)}" if read else f"at the start reads {visible(self.x.value)}"
        return f"unit {self.unit.value} {place}: keeps {step.f:.2f}, writes {step.i:.2f} of the news, shows {step.o:.2f}"

    def _numbers(self) -> str:
        step = self.step()
        f, i, o, g, c_prev, c, _ = map(_factor, step)
        return f"C = {f} · {c_prev} + {i} · {g} = {_number(step.c)}, h = {o} · tanh {c} = {_number(step.h)}"

    def _make_figure(self) -> Any:
        figure, (gates, self._memory) = empty_figure(8.2, 3.3, ncols=2, width_ratios=(1, 1.25))
        figure.subplots_adjust(left=0.105, right=0.985, bottom=0.16, top=0.85, wspace=0.5)
        self._bars, self._marks, self._labels = [], [], []
        for ax, rows in ((gates, GATES), (self._memory, MEMORY)):
            for row, (_, colour) in enumerate(rows):
                self._bars += ax.barh(row, 0.0, 0.62, color=colour)
                self._marks += ax.plot([0], [row], marker=UPRIGHT, markersize=20, color="black", markeredgecolor="white")
                beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9.5}
                self._labels.append(ax.annotate("", (0.0, row), **beside))
            ax.set_yticks(range(len(rows)), [name for name, _ in rows])
            ax.invert_yaxis()
            ax.axvline(0, color=GREY, linewidth=1)
            ax.grid(axis="y", visible=False)
        gates.set(xlim=(-1.15, 1.4), xticks=(-1, 0, 1), xlabel="value")
        self._memory.set(xlabel="value (black marks: the model's own)")
        self._title = figure.text(0.01, 0.985, "", va="top", fontsize=9.5, fontweight="bold")
        return figure


def _spans(step: UnitStep) -> list[tuple[float, float]]:
    """Where each bar starts and ends: what is written is added to what is kept."""
    kept = step.f * step.c_prev
    ends = (step.f, step.i, step.o, step.g, step.c_prev, kept, step.c, step.c, step.h)
    return [(kept if row == 6 else 0.0, end) for row, end in enumerate(ends)]


def _factor(value: float) -> str:
    """A number in a product: a negative one in brackets."""
    number = _number(value)
    return f"({number})" if number.startswith("-") else number


def _number(value: float) -> str:
    """A number with two digits behind the point; what rounds to 0 has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"
