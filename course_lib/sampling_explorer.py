"""An explorer of sampling: sliders for the filters, and the distribution of the next character that they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.explorer import Explorer, empty_figure, menu, slider
from course_lib.filters import Filter, min_p, temperature, top_k, top_p
from course_lib.plotting import BLUE, EDGED, visible
from course_lib.shapes import ShapeError

ORDERS = ("temperature first", "temperature last")


class SamplingExplorer(Explorer):
    """How filters cut and shift the distribution behind a text.

    Attributes: behind, temperature, top_k, top_p, min_p, order: the controls, see ``Explorer``.
    Args:       text: T characters that were read. log_probs: (T, V), of the token behind each of them. names: what to write
                below each token's bar, (V,). most: bars shown, the model's most probable ones. settings: first positions, as
                in top_p=0.9.
    Raises:     ShapeError, ValueError: naming the argument.
    """

    def __init__(self, text: str, log_probs: np.ndarray, names: Sequence[str], most: int = 24, **settings: float | str) -> None:
        self.text, self.names = text, names
        self.log_probs = np.asarray(log_probs, np.float64)
        T, V = len(text), len(names)
        if self.log_probs.shape != (T, V) or not text:
            expected = f"({T}, {V}), a row for each character of the text, a column for each name"
            raise ShapeError(f"log_probs: expected shape {expected}, got {self.log_probs.shape}")
        if not 1 <= most <= V:
            raise ValueError(f"most: expected 1 to {V}, the number of names, got {most}")
        figure, self._axes = empty_figure(8.2, 3.2)
        figure.subplots_adjust(left=0.105, right=0.99, bottom=0.18, top=0.9)
        self._own = self._axes.bar(range(most), np.zeros(most), 0.9, **EDGED, label="the model's own")
        self._kept = self._axes.bar(range(most), np.zeros(most), 0.5, color=BLUE, label="after the filters")
        self._axes.set_xticks(range(most), [""] * most, fontfamily="monospace")
        self._axes.grid(axis="x", visible=False)
        self._axes.margins(x=0.01)
        self._axes.set(xlabel="next character, by the model's own probability", ylabel="probability")
        self._axes.legend(loc="upper right", frameon=False)
        controls = {  # at positions that change nothing
            "behind": slider(T, 1, T, 1, "characters read"),
            "temperature": slider(1.0, 0.1, 2.0, 0.1, "temperature"),
            "top_k": slider(V, 1, V, 1, "top-k"),
            "top_p": slider(1.0, 0.05, 1.0, 0.05, "top-p"),
            "min_p": slider(0.0, 0.0, 1.0, 0.01, "min-p"),
            "order": menu(ORDERS[0], ORDERS, "order"),
        }
        super().__init__(figure, controls, settings)

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
        return f"after {read}: {kept.sum()} of {len(kept)} tokens are kept, {share:.2f} of the probability"

    def draw(self) -> None:
        """Move the bars, name them anew."""
        own, left = np.exp(self.log_probs[self.behind.value - 1]), np.exp(self.filtered())
        best = np.argsort(-own, kind="stable")[: len(self._own)]
        for token, grey, blue in zip(best, self._own, self._kept, strict=True):
            grey.set_height(own[token])
            blue.set_height(left[token])
        self._axes.set_xticklabels([visible(self.names[token]) for token in best])
        self._axes.set_ylim(0, 1.05 * max(own.max(), left.max()))
        self._axes.set_title(self.said(), loc="left", fontsize=9.5, fontweight="bold")
