"""An explorer of sampling: sliders for the filters, and the distribution of the next character that they leave.

In JupyterLab the sliders redraw the picture. It is one output with two faces: the widget, and a picture of its first positions
for all who cannot show a widget (nbval, nbconvert, a web page, a saved notebook). So nothing is lost there but the motion.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from course_lib.filters import Filter, min_p, temperature, top_k, top_p
from course_lib.plotting import BLUE, STYLE, visible
from course_lib.sampling_plots import PALE
from course_lib.shapes import ShapeError

ORDERS = ("temperature first", "temperature last")


class SamplingExplorer:
    """Sliders and the picture that they change; ``display`` shows both.

    Attributes: behind, temperature, top_k, top_p, min_p, order: ipywidgets, whose ``value`` can be set from code, too.
    Args:       text: T characters that were read. log_probs: (T, V), of the token behind each of them. names: what to write
                below each token's bar, (V,). most: bars shown, the model's most probable ones. settings: first positions, as
                in top_p=0.9.
    Raises:     ShapeError, ValueError: naming the argument.
    """

    def __init__(self, text: str, log_probs: np.ndarray, names: Sequence[str], most: int = 24, **settings: float | str) -> None:
        self.text, self.names = text, names
        self.log_probs = np.asarray(log_probs, np.float64)
        if self.log_probs.shape != (len(text), len(names)) or not text:
            expected = f"({len(text)}, {len(names)}), a row for each character of the text, a column for each name"
            raise ShapeError(f"log_probs: expected shape {expected}, got {self.log_probs.shape}")
        if not 1 <= most <= len(names):
            raise ValueError(f"most: expected 1 to {len(names)}, the number of names, got {most}")
        self.behind, self.temperature, self.top_k, self.top_p, self.min_p, self.order = self._controls().values()
        for name, value in settings.items():
            if name not in self._controls():
                raise ValueError(f"settings: expected some of {', '.join(self._controls())}, got {name}")
            getattr(self, name).value = value
        self._figure, self._axes, self._own, self._kept = _empty_picture(most)
        self.image, self.line = ipywidgets.Image(format="png"), ipywidgets.Label()
        controls = [self.behind, self.temperature, self.top_k, self.top_p, self.min_p, self.order]
        for control in controls:
            control.observe(self._redraw, names="value")
        self.box = ipywidgets.VBox([*controls, self.line, self.image])
        self._redraw()

    def chain(self) -> list[Filter]:
        """The filters at the sliders' present positions, in their order; those that change nothing are left out."""
        cuts: list[tuple[bool, Callable[[], Filter]]] = [
            (self.top_k.value < len(self.names), lambda: top_k(self.top_k.value)),
            (self.top_p.value < 1, lambda: top_p(self.top_p.value)),
            (self.min_p.value > 0, lambda: min_p(self.min_p.value)),
        ]
        chosen = [make() for wanted, make in cuts if wanted]
        heat = [temperature(self.temperature.value)] if self.temperature.value != 1 else []
        return heat + chosen if self.order.value == ORDERS[0] else chosen + heat

    def filtered(self) -> np.ndarray:
        """The log-probabilities that the filters leave, (V,), behind the characters read so far."""
        rows = self.log_probs[self.behind.value - 1][None]
        for keep in self.chain():
            rows = keep(rows)
        return rows[0]

    def said(self) -> str:
        """What the picture shows, in a line."""
        own, kept = self.log_probs[self.behind.value - 1], self.filtered() > -np.inf
        share = np.exp(own[kept]).sum() / np.exp(own).sum()
        read = "".join(map(visible, self.text[: self.behind.value]))[-30:]
        return f"behind {read}: {kept.sum()} of {len(kept)} tokens are kept, {share:.2f} of the probability"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """For ``display``: the widget, and the picture for those who cannot show one."""
        picture = base64.b64encode(self.image.value).decode("ascii")
        return self.box._repr_mimebundle_() | {"text/plain": self.said(), "image/png": picture}

    def _controls(self) -> dict[str, ipywidgets.Widget]:
        """New controls at positions that change nothing."""
        V, T = len(self.names), len(self.text)
        common = {"continuous_update": True, "style": {"description_width": "8em"}, "layout": {"width": "32em"}}
        return {
            "behind": ipywidgets.IntSlider(T, 1, T, description="characters read", **common),
            "temperature": ipywidgets.FloatSlider(1.0, min=0.1, max=2.0, step=0.1, description="temperature", **common),
            "top_k": ipywidgets.IntSlider(V, 1, V, description="top-k", **common),
            "top_p": ipywidgets.FloatSlider(1.0, min=0.05, max=1.0, step=0.05, description="top-p", **common),
            "min_p": ipywidgets.FloatSlider(0.0, min=0.0, max=1.0, step=0.01, description="min-p", **common),
            "order": ipywidgets.Dropdown(options=ORDERS, description="order", style=common["style"]),
        }

    def _redraw(self, change: object = None) -> None:
        """Move the bars and print the picture anew: the axes and their texts are made once."""
        own, left = np.exp(self.log_probs[self.behind.value - 1]), np.exp(self.filtered())
        best = np.argsort(-own, kind="stable")[: len(self._own)]
        for token, grey, blue in zip(best, self._own, self._kept, strict=True):
            grey.set_height(own[token])
            blue.set_height(left[token])
        self._axes.set_xticklabels([visible(self.names[token]) for token in best])
        self._axes.set_ylim(0, 1.05 * max(own.max(), left.max()))
        self.line.value = self.said()
        self._axes.set_title(self.said(), loc="left", fontsize=9.5, fontweight="bold")
        page = io.BytesIO()
        self._figure.canvas.print_png(page)
        self.image.value = page.getvalue()


def _empty_picture(most: int) -> tuple[Figure, Any, Any, Any]:
    """Figure, axes, and two rows of bars: the model's own probabilities, and those that are left."""
    with plt.style.context(STYLE):
        figure = Figure(figsize=(8.2, 3.2), dpi=100, layout="tight")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        own = ax.bar(range(most), np.zeros(most), width=0.9, color=PALE, label="the model's own")
        kept = ax.bar(range(most), np.zeros(most), width=0.5, color=BLUE, label="behind the filters")
        ax.set_xticks(range(most), [""] * most, fontfamily="monospace")
        ax.grid(axis="x", visible=False)
        ax.set(xlabel="next character, by the model's own probability", ylabel="probability")
        ax.legend(loc="upper right")
    return figure, ax, own, kept
