"""Drawings of the cells: the unrolled RNN, the LSTM cell in four stages and its computation graph (lessons 02, 04 and 05).

A drawing is a table of nodes and a table of arrows between them, placed on a sheet that is measured in inches.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.plotting import BLUE, GREEN, GREY, INK, ORANGE, PALE, PINK, new_axes

Point = tuple[float, float]

STATE = "#DCEBF5"  # the face of a state, pale blue
BENT = {"": "arc3", "across": "angle,angleA=0,angleB=90,rad=6", "up": "angle,angleA=90,angleB=0,rad=6"}  # how it starts


class Sheet:
    """Axes of ``width`` by ``height`` inches without a frame, and the nodes drawn on them by name."""

    def __init__(self, ax: Axes | None, width: float, height: float, title: str) -> None:
        self.ax = new_axes(ax, figsize=(width, height + 0.36))
        self.ax.set(xlim=(0, width), ylim=(0, height), aspect="equal", title=title)
        self.ax.axis("off")
        self.nodes: dict[str, tuple[Point, FancyBboxPatch]] = {}

    def write(self, x: float, y: float, text: str, color: str = INK, size: float = 13, **style: object) -> None:
        style = {"ha": "center", "va": "center", "math_fontfamily": "stix", "zorder": 4, **style}
        self.ax.text(x, y, text, color=color, fontsize=size, **style)

    def box(self, x: float, y: float, width: float, height: float, **style: object) -> FancyBboxPatch:
        """A rounded box around (x, y); a circle if it is as high as wide."""
        shape = "circle,pad=0" if width == height else "round,pad=0,rounding_size=0.1"
        style = {"zorder": 3, "linewidth": 1.3, **style}
        return self.ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=shape, **style))

    def node(
        self, name: str, x: float, y: float, text: str, size: Point, face: str = "white", edge: str = GREY, ink: str = INK,
        caption: str = "",
    ) -> None:  # fmt: skip
        """A box with a text, and a smaller text below it, that arrows can lead to by its name."""
        self.nodes[name] = (x, y), self.box(x, y, *size, facecolor=face, edgecolor=edge)
        self.write(x, y + 0.13 * bool(caption), text, ink, 14.5)
        if caption:
            self.write(x, y - 0.15, caption, ink, 9)

    def arrow(
        self, start: str | Point, end: str | Point, text: str = "", beside: Point = (0, 0), bend: str = "", color: str = GREY,
        ink: str = "", shift: Point = (0, 0), head: bool = True,
    ) -> None:  # fmt: skip
        """An arrow from node to node (or from or to a point) with a text ``beside`` its middle; ``shift`` moves both."""
        (a, tail), (b, tip) = (self.nodes[end] if isinstance(end, str) else (end, None) for end in (start, end))
        a, b = ((x + shift[0], y + shift[1]) for x, y in (a, b))
        style = {"color": color, "linewidth": 1.6, "mutation_scale": 13, "zorder": 2, "connectionstyle": BENT[bend]}
        shrink = {"shrinkA": 1.5 * bool(tail), "shrinkB": 1.5 * bool(tip)}
        kind = "-|>" if head else "-"
        self.ax.add_patch(FancyArrowPatch(a, b, patchA=tail, patchB=tip, arrowstyle=kind, **shrink, **style))
        if text:
            self.write((a[0] + b[0]) / 2 + beside[0], (a[1] + b[1]) / 2 + beside[1], text, ink or color)

    def fork(self, x: float, y: float, color: str = GREY) -> None:
        """A dot where arrows part or meet."""
        self.box(x, y, 0.09, 0.09, color=color)


def unrolled_rnn(steps: int = 4, gradients: bool = False, ax: Axes | None = None) -> Axes:
    """An RNN unrolled in time: inputs below, states in a row, losses above; arrows with the same weights have the same colour.

    Args:     gradients: also draw the way back, from each loss to its state and from state to state.
    Raises:   ValueError: if there is no step.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    back_title = "A state collects gradients: from its own loss and from the next state"
    title = back_title if gradients else "One cell at every step: same colour, same weights"
    width = 1.75 * steps + 1.6
    sheet = Sheet(ax, max(width, 7), 3.6, title)  # room for the title
    left = 0.5 + max(7 - width, 0) / 2
    circle, aside = (0.62, 0.62), 0.1 if gradients else 0  # the way forward makes room for the way back
    sheet.node("h0", left, 1.8, "$h_0$", circle)
    for t in range(1, steps + 1):
        for name, y, face, edge in (("x", 0.4, PALE, GREY), ("h", 1.8, STATE, BLUE), ("L", 3.2, PALE, GREY)):
            sheet.node(f"{name}{t}", left + 1.75 * t, y, f"${name}_{{{t}}}$", circle, face, edge)
        sheet.arrow(f"x{t}", f"h{t}", "$W_{ih}$", (-0.28, 0), color=BLUE)
        sheet.arrow(f"h{t - 1}", f"h{t}", "$W_{hh}$", (0, 0.18), color=GREEN, shift=(0, aside))
        sheet.arrow(f"h{t}", f"L{t}", "$W_{out}$", (-0.32, 0), color=PINK, shift=(-aside, 0))
        if gradients:
            back, down = rf"$\mathrm{{d}}L/\mathrm{{d}}a_{{{t}}}\;W_{{hh}}$", rf"$\partial^{{+}}L/\partial h_{{{t}}}$"
            sheet.arrow(f"h{t}", f"h{t - 1}", back, (0, -0.2), color=ORANGE, shift=(0, -aside))
            sheet.arrow(f"L{t}", f"h{t}", down, (0.55, 0), color=ORANGE, shift=(aside, 0))
    return sheet.ax


TITLES = {
    1: "The forget gate decides how much of the old cell state is kept",
    2: "The input gate decides how much of the candidate is written",
    3: "The new cell state: what is kept plus what is written",
    4: "The output gate decides how much of the cell state is shown",
}
GATE, OPERATOR, PORT = (1.06, 0.66), (0.36, 0.36), (0.56, 0.3)
CELL_NODES = (  # stage, name, x, y, text, size, caption
    (0, "C'", 0.4, 3.55, "$C_{t-1}$", PORT, ""),
    (0, "h'", 0.4, 0.95, "$h_{t-1}$", PORT, ""),
    (0, "x", 1.25, 0.2, "$x_t$", PORT, ""),
    (1, "f", 2.0, 1.9, r"$\sigma$", GATE, "forget gate"),
    (1, "f*", 2.0, 3.55, r"$\times$", OPERATOR, ""),
    (2, "i", 3.3, 1.9, r"$\sigma$", GATE, "input gate"),
    (2, "g", 4.6, 1.9, r"$\tanh$", GATE, "candidate"),
    (2, "i*", 3.95, 2.8, r"$\times$", OPERATOR, ""),
    (3, "+", 3.95, 3.55, "$+$", OPERATOR, ""),
    (3, "C", 8.1, 3.55, "$C_t$", PORT, ""),
    (4, "o", 5.9, 1.9, r"$\sigma$", GATE, "output gate"),
    (4, "tanh", 7.05, 2.8, r"$\tanh$", (0.66, 0.4), ""),
    (4, "o*", 7.05, 1.9, r"$\times$", OPERATOR, ""),
    (4, "h", 8.1, 1.9, "$h_t$", PORT, ""),
)
CELL_ARROWS = (  # stage, start, end, text, beside, bend
    (0, "h'", (1.25, 0.95), "", (0, 0), ""),
    (0, "x", (1.25, 0.95), "", (0, 0), ""),
    (1, (1.25, 0.95), "f", "$[h_{t-1}, x_t]$", (0.24, -0.7), "across"),
    (1, "f", "f*", "$f_t$", (-0.2, 0.1), ""),
    (1, "C'", "f*", "", (0, 0), ""),
    (1, "f*", (3.77, 3.55), r"$f_t \odot C_{t-1}$", (0, 0.2), ""),
    (2, (2.0, 0.95), "i", "", (0, 0), "across"),
    (2, (3.3, 0.95), "g", "", (0, 0), "across"),
    (2, "i", "i*", "$i_t$", (-0.5, 0), "up"),
    (2, "g", "i*", r"$\tilde{C}_t$", (0.52, 0), "up"),
    (2, "i*", (3.95, 3.37), r"$i_t \odot \tilde{C}_t$", (0.5, 0), ""),
    (3, "+", "C", "", (0, 0), ""),
    (4, (4.6, 0.95), "o", "", (0, 0), "across"),
    (4, "o", "o*", "$o_t$", (0.17, 0.17), ""),
    (4, (7.05, 3.55), "tanh", "", (0, 0), ""),
    (4, "tanh", "o*", "", (0, 0), ""),
    (4, "o*", "h", "", (0, 0), ""),
)
CELL_FORKS = ((0, 1.25, 0.95), (2, 2.0, 0.95), (2, 3.3, 0.95), (4, 4.6, 0.95), (4, 7.05, 3.55))  # stage, x, y


def lstm_cell(stage: int, ax: Axes | None = None) -> Axes:
    """The LSTM cell, built in stages: what is new in colour, what is known in grey, what is to come left out.

    Args:     stage: 1 the forget gate, 2 the input gate and the candidate, 3 the new cell state, 4 the output gate.
    Raises:   ValueError: for another stage.
    """
    if stage not in TITLES:
        raise ValueError(f"stage: expected 1, 2, 3 or 4, got {stage!r}")
    sheet = Sheet(ax, 8.5, 4.0, TITLES[stage])
    sheet.box(4.18, 2.22, 6.65, 3.36, facecolor="#F7F9FA", edgecolor=PALE, zorder=0)
    for part, name, x, y, text, size, caption in CELL_NODES:
        if part > stage:
            continue
        if part == stage:
            look = {"face": BLUE, "edge": BLUE, "ink": "white"}
        else:
            look = {"face": PALE, "edge": GREY, "ink": INK}
        if size is PORT:  # letters outside the cell
            look = {"face": "none", "edge": "none", "ink": BLUE if part == stage else INK}
        sheet.node(name, x, y, text, size, caption=caption, **look)
    for part, start, end, text, beside, bend in CELL_ARROWS:
        if part <= stage:
            colours = {"color": BLUE, "ink": BLUE} if part == stage else {"color": GREY, "ink": GREY}
            sheet.arrow(start, end, text, beside, bend, head=part > 0, **colours)
    for part, x, y in CELL_FORKS:
        if part <= stage:
            sheet.fork(x, y, BLUE if part == stage else GREY)
    return sheet.ax


VALUE, PRODUCT = (0.58, 0.58), (1.08, 0.46)
GRAPH_NODES = (  # name, x, y, text, size
    ("C'", 0.5, 4.2, "$C_{t-1}$", VALUE),
    ("h'", 0.5, 2.975, "$h_{t-1}$", VALUE),
    ("x", 0.5, 1.1, "$x_t$", VALUE),
    ("a_f", 2.25, 3.4, "$a_f$", VALUE),
    ("a_i", 2.25, 2.55, "$a_i$", VALUE),
    ("a_g", 2.25, 1.7, "$a_g$", VALUE),
    ("a_o", 2.25, 0.5, "$a_o$", VALUE),
    ("f", 3.95, 3.4, "$f_t$", VALUE),
    ("i", 3.95, 2.55, "$i_t$", VALUE),
    ("g", 3.95, 1.7, r"$\tilde{C}_t$", VALUE),
    ("o", 3.95, 0.5, "$o_t$", VALUE),
    ("f*", 5.6, 3.4, r"$f_t \odot C_{t-1}$", PRODUCT),
    ("i*", 5.6, 2.1, r"$i_t \odot \tilde{C}_t$", PRODUCT),
    ("C", 7.1, 2.75, "$C_t$", VALUE),
    ("tanh", 7.1, 1.6, r"$\tanh C_t$", (0.96, 0.46)),
    ("h", 7.1, 0.5, "$h_t$", VALUE),
)
GRAPH_ARROWS = (  # start, end, derivative, beside, bend
    ("h'", (1.6, 2.975), "$W_{hh}$", (0, 0.18), ""),
    ("x", (1.6, 1.1), "$W_{ih}$", (0, 0.18), ""),
    ((1.6, 2.0), "a_f", "", (0, 0), "up"),
    ((1.6, 2.0), "a_i", "", (0, 0), "up"),
    ((1.6, 2.0), "a_g", "", (0, 0), "up"),
    ((1.6, 2.0), "a_o", "", (0, 0), "up"),
    ("a_f", "f", "$f_t(1-f_t)$", (0, 0.18), ""),
    ("a_i", "i", "$i_t(1-i_t)$", (0, 0.18), ""),
    ("a_g", "g", r"$1-\tilde{C}_t^2$", (0, 0.2), ""),
    ("a_o", "o", "$o_t(1-o_t)$", (0, 0.18), ""),
    ("C'", "f*", "$f_t$", (2.74, 0), "across"),
    ("f", "f*", "$C_{t-1}$", (-0.1, 0.18), ""),
    ("i", "i*", r"$\tilde{C}_t$", (0, 0.2), ""),
    ("g", "i*", "$i_t$", (0, -0.2), ""),
    ("f*", "C", "$1$", (0.15, 0.15), ""),
    ("i*", "C", "$1$", (0.15, -0.15), ""),
    ("C", "tanh", r"$1-\tanh^2 C_t$", (0.64, 0), ""),
    ("tanh", "h", "$o_t$", (0.2, 0), ""),
    ("o", "h", r"$\tanh C_t$", (0, 0.18), ""),
)
GRAPH_FORKS = ((1.6, 2.975), (1.6, 1.1))


def lstm_graph(ax: Axes | None = None) -> Axes:
    """The computation graph of one LSTM step; at each arrow, in colour, the derivative of its end by its start."""
    sheet = Sheet(ax, 8.4, 4.6, "One LSTM step: every arrow has a simple derivative")
    for name, x, y, text, size in GRAPH_NODES:
        state = name in ("C", "h", "C'", "h'")
        sheet.node(name, x, y, text, size, STATE if state else PALE, BLUE if state else GREY)
    for start, end, text, beside, bend in GRAPH_ARROWS:
        sheet.arrow(start, end, text, beside, bend, ink=ORANGE, head=end not in GRAPH_FORKS)
    for place in GRAPH_FORKS:
        sheet.fork(*place)
    return sheet.ax
