"""What all explorers share: controls that redraw and that follow others, one output with two faces, checked settings."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from course_lib.explorer import Explorer, empty_figure, menu, slider


class Line(Explorer):
    """A line of a slope and a style; the slope goes back to 1 when the style changes. Counts its drawings."""

    def __init__(self, **settings):
        figure, self.axes = empty_figure(3, 2)
        (self.drawn,) = self.axes.plot([0, 1], [0, 0])
        self.axes.set(ylim=(-3, 3))
        self.count = 0
        controls = {
            "style": menu("-", [("solid", "-"), ("dashed", "--")], "style"),
            "slope": slider(1.0, -2.0, 2.0, 0.5, "slope"),
            "width": slider(2, 1, 9, 1, "width"),
        }
        super().__init__(figure, controls, settings)

    def said(self):
        return f"slope {self.slope.value:g}, {self.style.value}, {self.width.value}"

    def draw(self):
        self.count += 1
        self.drawn.set(ydata=[0, self.slope.value], linestyle=self.style.value, linewidth=self.width.value)

    def moved(self, name):
        if name == "style":
            self.slope.value = 1.0


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_control_that_moves_redraws_once_and_the_line_follows():
    ours = Line()
    first = ours.image.value
    assert ours.count == 1 and ours.line.value == "slope 1, -, 2"
    ours.slope.value = 2
    assert ours.count == 2 and ours.line.value == "slope 2, -, 2"
    assert (pixels(ours.image.value) != pixels(first)).any()
    ours.slope.value = 1
    np.testing.assert_array_equal(pixels(ours.image.value), pixels(first))
    ours.slope.value = 1
    assert ours.count == 3  # nothing moved


def test_a_control_that_follows_another_is_moved_before_the_one_drawing():
    ours = Line()
    ours.slope.value = -2
    ours.style.value = "--"
    assert (ours.slope.value, ours.count, ours.line.value) == (1, 3, "slope 1, --, 2")
    assert list(ours.drawn.get_ydata()) == [0, 1]


def test_an_error_while_following_does_not_stop_later_drawings(monkeypatch):
    ours = Line()
    monkeypatch.setattr(ours, "moved", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ours.width.value = 3
    monkeypatch.undo()
    ours.width.value = 4
    assert ours.line.value == "slope 1, -, 4"


def test_settings_are_first_positions_whatever_their_order():
    ours = Line(slope=-1.5, style="--", width=9)
    assert ours.said() == "slope -1.5, --, 9" and ours.count == 1
    assert isinstance(ours.width.value, int)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heat": 1}, "settings: expected some of style, slope, width, got heat"),
        ({"slope": 2.5}, "slope: expected -2 to 2, got 2.5"),
        ({"width": 0}, "width: expected 1 to 9, got 0"),
        ({"width": "thick"}, "width: expected 1 to 9, got 'thick'"),
        ({"style": ":"}, "style: expected one of '-', '--', got ':'"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        Line(**settings)


def test_one_output_has_a_widget_a_picture_and_a_line():
    ours = Line()
    bundle = ours._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert base64.b64decode(bundle["image/png"]) == ours.image.value and bundle["text/plain"] == ours.said()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == ours.box.model_id
    assert list(ours.box.children) == [ours.style, ours.slope, ours.width, ours.line, ours.image]


def test_the_figure_is_in_the_course_s_style_and_no_notebook_shows_it():
    import matplotlib.pyplot as plt

    plt.close("all")
    before = dict(plt.rcParams)
    ours = Line()
    assert not plt.get_fignums() and dict(plt.rcParams) == before
    assert not ours.axes.spines["top"].get_visible() and pixels(ours.image.value).shape == (200, 300, 3)
