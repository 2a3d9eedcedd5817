"""The drawings say what they claim, and their letters can be read."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import combinations, pairwise

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib import diagrams, plotting

DRAWINGS = {
    "unrolled": lambda: diagrams.unrolled_rnn(),
    "unrolled, one step": lambda: diagrams.unrolled_rnn(1),
    "unrolled, back": lambda: diagrams.unrolled_rnn(gradients=True),
    "unrolled, one step back": lambda: diagrams.unrolled_rnn(1, gradients=True),
    "unrolled, six steps back": lambda: diagrams.unrolled_rnn(6, gradients=True),
    **{f"cell {stage}": lambda stage=stage: diagrams.lstm_cell(stage) for stage in (1, 2, 3, 4)},
    "graph": diagrams.lstm_graph,
}
NEW = {  # what each stage of the cell adds
    1: [
        *("$C_{t-1}$", "$h_{t-1}$", "$x_t$", "$[h_{t-1}, x_t]$"),
        *("forget gate", r"$\sigma$", "$f_t$", r"$\times$", r"$f_t \odot C_{t-1}$"),
    ],
    2: ["input gate", r"$\sigma$", "$i_t$", "candidate", r"$\tanh$", r"$\tilde{C}_t$", r"$\times$", r"$i_t \odot \tilde{C}_t$"],
    3: ["$+$", "$C_t$"],
    4: ["output gate", r"$\sigma$", "$o_t$", r"$\tanh$", r"$\times$", "$h_t$"],
}
PRODUCT, WRITTEN = r"$f_t \odot C_{t-1}$", r"$i_t \odot \tilde{C}_t$"
DERIVATIVES = {  # (from, to) -> the derivative of the one by the other, worked out by hand
    ("$a_f$", "$f_t$"): "$f_t(1-f_t)$",
    ("$a_i$", "$i_t$"): "$i_t(1-i_t)$",
    ("$a_g$", r"$\tilde{C}_t$"): r"$1-\tilde{C}_t^2$",
    ("$a_o$", "$o_t$"): "$o_t(1-o_t)$",
    ("$C_{t-1}$", PRODUCT): "$f_t$",
    ("$f_t$", PRODUCT): "$C_{t-1}$",
    ("$i_t$", WRITTEN): r"$\tilde{C}_t$",
    (r"$\tilde{C}_t$", WRITTEN): "$i_t$",
    (PRODUCT, "$C_t$"): "$1$",
    (WRITTEN, "$C_t$"): "$1$",
    ("$C_t$", r"$\tanh C_t$"): r"$1-\tanh^2 C_t$",
    (r"$\tanh C_t$", "$h_t$"): "$o_t$",
    ("$o_t$", "$h_t$"): r"$\tanh C_t$",
    ("$h_{t-1}$", None): "$W_{hh}$",  # to the fork before a_f, a_i, a_g and a_o
    ("$x_t$", None): "$W_{ih}$",
}


@cache
def drawing(name: str) -> Axes:
    return render(DRAWINGS[name]())


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def render(ax: Axes) -> Axes:
    ax.figure.canvas.draw()
    return ax


def labels(ax: Axes) -> Counter:
    return Counter(text.get_text() for text in ax.texts)


def arrows(ax: Axes) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def boxes(ax: Axes) -> list[FancyBboxPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


def course(arrow: FancyArrowPatch) -> np.ndarray:
    """Points along an arrow in pixels, from its start to its end."""
    path = arrow.get_transform().transform_path(arrow.get_path())
    curve = path.to_polygons(closed_only=False)[0]  # the shaft is the first part
    steps = np.linspace(0, 1, 50)[:, None]
    return np.concatenate([a + steps * (b - a) for a, b in pairwise(curve)])


def node_at(ax: Axes, point: np.ndarray) -> str | None:
    """The text of the node that a point touches."""
    for box in boxes(ax):
        outline = box.get_window_extent()
        if outline.width > 20 and outline.padded(7).contains(*point):
            return next(t.get_text() for t in ax.texts if outline.contains(*ax.transData.transform(t.get_position())))
    return None


def place(artist: object) -> tuple[float, ...]:
    return tuple(np.round(artist.get_window_extent().bounds, 1))


def hexes(artists: list) -> Counter:
    return Counter(to_hex(artist.get_edgecolor()).upper() for artist in artists)


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_touches_another_text(name: str) -> None:
    ax = drawing(name)
    extents = [(t.get_text(), t.get_window_extent()) for t in (*ax.texts, ax._left_title)]
    assert len(extents) > 5
    touching = [(a, b) for (a, at_a), (b, at_b) in combinations(extents, 2) if at_a.overlaps(at_b)]
    assert not touching


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_arrow_runs_through_a_text(name: str) -> None:
    ax = drawing(name)
    for arrow in arrows(ax):
        points = course(arrow)
        for text in ax.texts:
            extent = text.get_window_extent()
            assert not any(extent.contains(*point) for point in points), text.get_text()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_text_lies_inside_a_box_or_outside(name: str) -> None:
    ax = drawing(name)
    for text in ax.texts:
        inner = text.get_window_extent()
        for box in boxes(ax):
            outer = box.get_window_extent()
            inside = all(outer.contains(*corner) for corner in inner.corners())
            assert inside or not outer.overlaps(inner), text.get_text()


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_lies_outside_the_axes(name: str) -> None:
    ax = drawing(name)
    frame = ax.get_window_extent().padded(0.5)
    for artist in (*ax.texts, *ax.patches):
        extent = artist.get_window_extent()
        assert all(frame.contains(*corner) for corner in extent.corners()), artist
    for extent in (ax.get_window_extent().padded(-0.5), ax._left_title.get_window_extent()):
        assert all(ax.figure.bbox.contains(*corner) for corner in extent.corners())
    assert ax.get_aspect() == 1 and not ax.axison and ax.get_title(loc="left")


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_unrolled_rnn_repeats_the_same_weights_at_each_step(steps: int) -> None:
    ax = diagrams.unrolled_rnn(steps)
    weights = Counter({"$W_{ih}$": steps, "$W_{hh}$": steps, "$W_{out}$": steps})
    assert labels(ax) == Counter(f"${v}_{{{t}}}$" for v in "xhL" for t in range(1, steps + 1)) + weights + Counter(["$h_0$"])
    assert sorted(hexes(arrows(ax)).values()) == [steps] * 3  # one colour for each matrix
    written = {text.get_text(): to_hex(text.get_color()).upper() for text in ax.texts}
    assert {written[name] for name in weights} == set(hexes(arrows(ax)))


def test_unrolled_rnn_leads_from_inputs_to_states_to_losses() -> None:
    ax = render(diagrams.unrolled_rnn(3))
    ways = {(node_at(ax, course(arrow)[0]), node_at(ax, course(arrow)[-1])) for arrow in arrows(ax)}
    before = ["$h_0$", "$h_{1}$", "$h_{2}$"]
    assert ways == {
        pair
        for t in (1, 2, 3)
        for pair in [(f"$x_{{{t}}}$", f"$h_{{{t}}}$"), (before[t - 1], f"$h_{{{t}}}$"), (f"$h_{{{t}}}$", f"$L_{{{t}}}$")]
    }


def test_gradients_add_the_way_back() -> None:
    there, both = render(diagrams.unrolled_rnn(3)), render(diagrams.unrolled_rnn(3, gradients=True))
    added = [rf"$\mathrm{{d}}L/\mathrm{{d}}a_{{{t}}}\;W_{{hh}}$" for t in (1, 2, 3)]
    added += [rf"$\partial^{{+}}L/\partial h_{{{t}}}$" for t in (1, 2, 3)]
    assert labels(both) - labels(there) == Counter(added) and not labels(there) - labels(both)
    assert hexes(arrows(both)) - hexes(arrows(there)) == Counter({plotting.ORANGE: 6})
    back = [course(arrow) for arrow in arrows(both) if to_hex(arrow.get_edgecolor()).upper() == plotting.ORANGE]
    ways = {(node_at(both, way[0]), node_at(both, way[-1])) for way in back}
    assert ways == {
        ("$h_{3}$", "$h_{2}$"), ("$h_{2}$", "$h_{1}$"), ("$h_{1}$", "$h_0$"),
        ("$L_{1}$", "$h_{1}$"), ("$L_{2}$", "$h_{2}$"), ("$L_{3}$", "$h_{3}$"),
    }  # fmt: skip


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_a_stage_shows_the_stages_up_to_it_and_nothing_else(stage: int) -> None:
    ax = diagrams.lstm_cell(stage)
    assert labels(ax) == Counter(label for part in range(1, stage + 1) for label in NEW[part])
    forks = [box for box in boxes(render(ax)) if box.get_window_extent().width < 12]
    assert (len(arrows(ax)), len(forks)) == {1: (6, 1), 2: (11, 3), 3: (12, 3), 4: (17, 5)}[stage]


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_a_stage_keeps_everything_in_its_place(stage: int) -> None:
    before, after = render(diagrams.lstm_cell(stage - 1)), render(diagrams.lstm_cell(stage))
    assert np.array_equal(before.get_position().bounds, after.get_position().bounds)
    for kind in ("texts", "patches"):
        old, new = (Counter(place(artist) for artist in getattr(ax, kind)) for ax in (before, after))
        assert not old - new and new - old


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_only_what_is_new_is_coloured(stage: int) -> None:
    ax = diagrams.lstm_cell(stage)
    coloured = {"#FFFFFF", plotting.BLUE}
    ports = {"$C_{t-1}$", "$h_{t-1}$", "$x_t$"}  # known from the start
    bright = Counter(text.get_text() for text in ax.texts if to_hex(text.get_color()).upper() in coloured)
    assert bright == Counter(label for label in NEW[stage] if label not in ports)
    count = {1: 4, 2: 5, 3: 1, 4: 5}[stage]  # arrows
    assert hexes(arrows(ax))[plotting.BLUE] == count and len(hexes(arrows(ax))) == 2


def test_the_graph_has_every_quantity_and_every_derivative() -> None:
    ax = render(diagrams.lstm_graph())
    nodes = {*sum(DERIVATIVES, ()), "$a_f$", "$a_i$", "$a_g$", "$a_o$"} - {None}
    assert len(nodes) == 16 and labels(ax) == Counter(nodes) + Counter(DERIVATIVES.values())
    ways = [course(arrow) for arrow in arrows(ax)]
    names = [(node_at(ax, way[0]), node_at(ax, way[-1])) for way in ways]
    assert Counter(names) == Counter([*DERIVATIVES, *((None, f"$a_{gate}$") for gate in "figo")])
    beside = {}
    for text in ax.texts:  # a derivative belongs to the nearest arrow
        if to_hex(text.get_color()).upper() == plotting.ORANGE:
            center = text.get_window_extent().get_points().mean(axis=0)
            beside[names[np.argmin([np.linalg.norm(way - center, axis=1).min() for way in ways])]] = text.get_text()
    assert beside == DERIVATIVES


@pytest.mark.parametrize("stage", [0, 5, "1", 1.5, None])
def test_unknown_stage(stage: object) -> None:
    with pytest.raises(ValueError, match=rf"^stage: expected 1, 2, 3 or 4, got {stage!r}$"):
        diagrams.lstm_cell(stage)


@pytest.mark.parametrize("steps", [0, -2])
def test_no_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^steps: expected at least 1, got {steps}$"):
        diagrams.unrolled_rnn(steps)


def test_axes_passed_in_are_used() -> None:
    for draw in (diagrams.unrolled_rnn, diagrams.lstm_graph, lambda ax: diagrams.lstm_cell(1, ax)):
        _, ax = plt.subplots()
        assert draw(ax=ax) is ax and ax.texts
