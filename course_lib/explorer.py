"""What the explorers share: controls, a picture that follows them, and a line that says in words what it shows.

In JupyterLab the controls redraw the picture. It is one output with two faces: the widget, and a picture of its first positions
for all who cannot show a widget (nbval, nbconvert, a web page, a saved notebook). So nothing is lost there but the motion.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from traitlets import TraitError

from course_lib.plotting import STYLE

_LOOK = {"continuous_update": True, "style": {"description_width": "11em"}}


class Explorer:
    """Controls and the picture that they change; ``display`` shows both.

    A kind of explorer says in ``said`` and ``draw`` what its figure shows at the controls' present positions.

    Attributes: controls, by name, and each by its name, an ipywidget whose ``value`` can be set from code, too; image, line,
                box.
    Args:       figure: its axes and texts are made once, ``draw`` moves them. controls: name -> widget, at the position to
                start from. settings: name -> another position to start from.
    Raises:     ValueError: a setting that names no control, or a position that the control does not have.
    """

    def __init__(self, figure: Figure, controls: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self._figure, self.controls, self._moving = figure, dict(controls), False
        vars(self).update(controls)
        unknown = [name for name in settings if name not in controls]
        if unknown:
            raise ValueError(f"settings: expected some of {', '.join(controls)}, got {unknown[0]}")
        for name in controls:  # in this order: what follows another control is set after it
            if name in settings:
                _set(name, controls[name], settings[name])
                self.moved(name)
        self.image, self.line = ipywidgets.Image(format="png"), ipywidgets.Label()
        for control in controls.values():
            control.observe(self._changed, names="value")
        self.box = ipywidgets.VBox([*controls.values(), self.line, self.image])
        self._redraw()

    def said(self) -> str:
        """What the picture shows, in a line."""
        raise NotImplementedError

    def draw(self) -> None:
        """Bring the figure to the controls' present positions."""
        raise NotImplementedError

    def moved(self, name: str) -> None:
        """Move the controls that follow this one, before the picture is drawn; here, none do."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """For ``display``: the widget, and the picture for those who cannot show one."""
        picture = base64.b64encode(self.image.value).decode("ascii")
        return self.box._repr_mimebundle_() | {"text/plain": self.said(), "image/png": picture}

    def _changed(self, change: Any) -> None:
        """A control has been moved: let others follow, then draw once."""
        if self._moving:
            return
        self._moving = True
        try:
            self.moved(next(name for name, control in self.controls.items() if control is change["owner"]))
        finally:
            self._moving = False
        self._redraw()

    def _redraw(self) -> None:
        """Print the picture anew."""
        self.draw()
        self.line.value = self.said()  # not as the image's tooltip: ipywidgets 8.1 then fails to show it
        page = io.BytesIO()
        self._figure.canvas.print_png(page)
        self.image.value = page.getvalue()


def empty_figure(width: float, height: float, **layout: Any) -> tuple[Figure, Any]:
    """A figure in the course's style that no notebook shows by itself, and its axes; inches, layout as for ``subplots``."""
    with plt.style.context(STYLE):
        figure = Figure(figsize=(width, height), dpi=100, layout="none")  # what the layout costs, each redraw would pay
        FigureCanvasAgg(figure)
        return figure, figure.subplots(**layout)


def slider(value: float, low: float, high: float, step: float, description: str) -> Any:
    """A slider that redraws while it is moved; of whole numbers if all four are."""
    whole = all(isinstance(number, int) for number in (value, low, high, step))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value, min=low, max=high, step=step, description=description, layout={"width": "36em"}, **_LOOK)


def menu(value: Any, options: Iterable[Any], description: str) -> Any:
    """A menu of values, or of (name, value)."""
    return ipywidgets.Dropdown(options=list(options), value=value, description=description, style=_LOOK["style"])


def _set(name: str, control: Any, value: Any) -> None:
    """Move a control to a position that it must have."""
    options = getattr(control, "options", None)
    if options is None:
        wanted = f"{control.min:g} to {control.max:g}"
    else:
        wanted = "one of " + ", ".join(repr(o[1] if isinstance(o, tuple) else o) for o in options)
    try:
        control.value = value
        found = control.value == value  # a slider moves what is outside to its end
    except TraitError:
        found = False
    if not found:
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
