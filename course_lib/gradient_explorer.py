"""An explorer of vanishing and exploding gradients: how much the last state of a network depends on earlier ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from course_lib.cells import LSTMParams, LSTMState, RNNParams
from course_lib.explorer import Explorer, empty_figure, slider
from course_lib.jacobians import cell_derivatives, jacobian_products, rnn_step_jacobian
from course_lib.plotting import BLUE, GREEN, ORANGE, spread
from course_lib.sequence import lstm_forward, rnn_forward
from course_lib.shapes import check_shapes
from course_lib.weights import uniform

LOW, HIGH = 1e-16, 1e8  # ends of the axis; what leaves the picture is still said in the line


class Norms(NamedTuple):
    """Spectral norms 0, 1, ... T - 1 steps back, each (T,)."""

    rnn: np.ndarray  # of dh_T/dh_t
    bound: np.ndarray  # the upper bound of it, equation 3.4
    cell: np.ndarray  # of dC_T/dC_t, total, equation 3.9
    gates: np.ndarray  # of the path along the cell alone, the product of forget gates
    output: np.ndarray  # of dh_T/dC_t, what the output at T sees


LINES = {  # Norms' field: name in the picture, colour, style
    "rnn": (r"RNN, $\mathrm{d}h_T/\mathrm{d}h_t$", BLUE, "-"),
    "bound": ("RNN, upper bound (3.4)", BLUE, ":"),
    "cell": (r"LSTM, $\mathrm{d}C_T/\mathrm{d}C_t$", ORANGE, "-"),
    "gates": ("LSTM, forget gates alone", ORANGE, ":"),
    "output": (r"LSTM, $\mathrm{d}h_T/\mathrm{d}C_t$", GREEN, "--"),
}


class GradientExplorer(Explorer):
    """Norms of the derivatives of lesson 03 against the steps back, for an RNN and an LSTM that read the same inputs.

    Both have random weights and start from the zero state. The RNN's W_hh is Gaussian, scaled to the spectral radius, its W_ih
    Gaussian with variance 1/D, its bias 0; the LSTM's weights are uniform in ±1/√fan-in, its biases 0 but the forget gate's.

    Attributes: radius, forget_bias, inputs, T: the controls, see ``Explorer``; inputs is a factor of x.
    Args:       x: (T, D), what both read; the rows of an embedding for a text. hidden: H of both. seed: of the weights.
                settings: first positions, as in radius=1.5.
    Raises:     ShapeError, ValueError: naming the argument.
    """

    def __init__(self, x: np.ndarray, hidden: int = 32, seed: int = 0, **settings: float) -> None:
        self._x = np.asarray(x, np.float64)
        T, D = check_shapes(x=(self._x, "T D")).values()
        if T < 2 or hidden < 1:
            raise ValueError(f"x, hidden: expected at least 2 rows and 1 unit, got {T} and {hidden}")
        rng = np.random.default_rng(seed)
        gaussian = rng.normal(size=(hidden, hidden))
        self._W_hh = gaussian / np.abs(np.linalg.eigvals(gaussian)).max()  # of spectral radius 1
        self._W_ih = rng.normal(size=(hidden, D)) / np.sqrt(D)
        self._lstm = LSTMParams(*(uniform(rng, 4 * hidden, n, np.float64) for n in (D, hidden)), np.zeros(4 * hidden))
        figure = self._make_figure(T)
        controls = {
            "radius": slider(1.2, 0.1, 3.0, 0.1, "RNN: spectral radius"),
            "forget_bias": slider(1.0, -2.0, 6.0, 0.5, "LSTM: forget bias"),
            "inputs": slider(1.0, 0.0, 2.0, 0.1, "inputs, factor"),
            "T": slider(T, 2, T, 1, "steps T"),
        }
        super().__init__(figure, controls, settings)

    def params(self) -> tuple[RNNParams, LSTMParams]:
        """The weights at the controls' present positions."""
        H, b = len(self._W_hh), self._lstm.b.copy()
        b[H : 2 * H] = self.forget_bias.value
        return RNNParams(self._W_ih, self.radius.value * self._W_hh, np.zeros(H)), self._lstm._replace(b=b)

    def norms(self) -> Norms:
        """The norms at the controls' present positions."""
        x, (rnn, lstm) = self.inputs.value * self._x[: self.T.value, None], self.params()
        zero = np.zeros((1, len(self._W_hh)))
        _, _, cache = rnn_forward(x, zero, rnn)
        J = np.concatenate([rnn_step_jacobian(cache.at(t)) for t in range(len(x))])
        slopes = 1 - cache.hs[:1:-1, 0] ** 2  # (T - 1, H), of the last step first
        bound = np.append(1, np.cumprod(slopes.max(axis=1) * np.linalg.norm(rnn.W_hh, 2)))
        _, _, memory = lstm_forward(x, LSTMState(zero, zero), lstm)
        steps = [memory.at(t) for t in range(len(x))]
        cell, output = cell_derivatives(steps)
        f = np.stack([step.f[0] for step in steps])  # (T, H)
        gates = np.append(1, np.cumprod(f[:0:-1], axis=0).max(axis=1))
        return Norms(_norm(jacobian_products(J)[1:]), bound, _norm(cell), gates, _norm(output))

    def said(self) -> str:
        """What the picture shows, in a line: the norms at its left end, the first step."""
        ends = {name: _number(values[-1]) for name, values in self._norms._asdict().items()}
        return (
            f"{self.T.value - 1} steps back: RNN {ends['rnn']} (bound {ends['bound']}), LSTM cell {ends['cell']} "
            f"(forget gates alone {ends['gates']}), LSTM output {ends['output']}"
        )

    def draw(self) -> None:
        """Compute, and move the lines and their names."""
        self._norms = self.norms()
        back = np.arange(self.T.value)
        ends = {}
        for name, values in self._norms._asdict().items():
            self._lines[name].set_data(back, values)
            ends[name] = np.log10(max(values[-1], 1e-300))
        low_to_high = sorted(ends, key=ends.get)
        places = spread([ends[name] for name in low_to_high], np.log10(LOW), np.log10(HIGH))
        for name, place in zip(low_to_high, places, strict=True):
            self._names[name].xy = back[-1], 10**place
        self._title.set_text(self.said())

    def _make_figure(self, T: int) -> Any:
        figure, self._axes = empty_figure(8.2, 3.8)
        figure.subplots_adjust(left=0.09, right=0.75, bottom=0.14, top=0.91)
        self._lines, self._names = {}, {}
        for field, (name, colour, style) in LINES.items():
            (self._lines[field],) = self._axes.semilogy([0], [1], style, color=colour, linewidth=1.4 if style == ":" else 2)
            at = {"xy": (0, 1), "xytext": (6, 0), "textcoords": "offset points"}
            self._names[field] = self._axes.annotate(name, **at, color=colour, va="center", annotation_clip=False)
        self._axes.set(xlim=(0, T - 1), ylim=(LOW, HIGH), xlabel="steps back, T - t", ylabel="spectral norm")
        self._title = figure.text(0.01, 0.985, "", va="top", fontsize=9.5, fontweight="bold")
        return figure


def _norm(matrices: np.ndarray) -> np.ndarray:
    """The largest singular value of each, the last one first."""
    return np.linalg.norm(matrices, 2, axis=(1, 2))[::-1]


def _number(value: float) -> str:
    return f"{value:.2g}" if 0.01 <= value < 100 else f"{value:.0e}"
