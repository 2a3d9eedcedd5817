"""The explorer of sampling, without a browser: sliders set from code, the picture and the line that follow, a real kernel."""

from __future__ import annotations

import base64
import io

import ipywidgets
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from course_lib import filters
from course_lib.layers import log_softmax
from course_lib.sampling_explorer import ORDERS, SamplingExplorer
from course_lib.shapes import ShapeError

TEXT, V = "a fox", 30
NAMES = ["<unk>", *"abcdefghijklmnopqrstuvwxyz \n."]
LOG_PROBS = log_softmax(np.random.default_rng(3).normal(0, 2, (len(TEXT), V)))


def explorer(**settings):
    return SamplingExplorer(TEXT, LOG_PROBS, NAMES, **settings)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_at_first_nothing_is_changed():
    fresh = explorer()
    assert fresh.chain() == []
    np.testing.assert_array_equal(fresh.filtered(), LOG_PROBS[-1])
    assert fresh.said() == "after a␣fox: 30 of 30 tokens are kept, 1.00 of the probability"


@pytest.mark.parametrize("seed", range(10))
def test_what_is_left_is_what_the_filters_leave_in_their_order(seed):
    rng = np.random.default_rng(seed)
    t, k, p, m = rng.uniform(0.3, 2), int(rng.integers(1, V)), rng.uniform(0.3, 0.95), rng.uniform(0, 0.3)
    first, behind = bool(rng.integers(2)), int(rng.integers(1, len(TEXT) + 1))
    ours = explorer(behind=behind, top_k=k)
    ours.temperature.value, ours.top_p.value, ours.min_p.value, ours.order.value = t, p, m, ORDERS[0 if first else 1]
    heat, cuts = filters.temperature(ours.temperature.value), [filters.top_k(k), filters.top_p(p), filters.min_p(m)]
    expected = LOG_PROBS[behind - 1 : behind]
    for keep in [heat, *cuts] if first else [*cuts, heat]:
        expected = keep(expected)
    np.testing.assert_allclose(np.exp(ours.filtered()), np.exp(expected[0]), atol=1e-12)
    kept = expected[0] > -np.inf
    share = np.exp(LOG_PROBS[behind - 1][kept]).sum()
    assert f"{kept.sum()} of {V} tokens are kept, {share:.2f}" in ours.line.value


def test_moving_a_slider_redraws_the_bars_and_going_back_gives_the_same_picture():
    ours = explorer()
    pictures = [ours.image.value]
    for name, value in (("top_p", 0.5), ("temperature", 2.0), ("behind", 2), ("order", ORDERS[1])):
        getattr(ours, name).value = value
        pictures.append(ours.image.value)
    assert len(set(pictures)) == len(pictures)
    assert {pixels(picture).shape for picture in pictures} == {pixels(pictures[0]).shape}
    for name, value in (("top_p", 1.0), ("temperature", 1.0), ("behind", len(TEXT)), ("order", ORDERS[0])):
        getattr(ours, name).value = value
    np.testing.assert_array_equal(pixels(ours.image.value), pixels(pictures[0]))


def test_bars_are_the_probabilities_of_the_best_in_order():
    ours = explorer(most=7, top_k=3, behind=4)
    best = np.argsort(-LOG_PROBS[3])[:7]
    np.testing.assert_allclose([bar.get_height() for bar in ours._own], np.exp(LOG_PROBS[3, best]))
    three = np.exp(LOG_PROBS[3, best[:3]])
    np.testing.assert_allclose([bar.get_height() for bar in ours._kept], [*(three / three.sum()), 0, 0, 0, 0])
    shown = [label.get_text() for label in ours._axes.get_xticklabels()]
    assert shown == [{" ": "␣", "\n": "↵"}.get(NAMES[v], NAMES[v]) for v in best]


def test_whatever_the_sliders_say_something_is_left():
    ours = explorer()
    for slider in (ours.temperature, ours.top_k, ours.top_p, ours.min_p):
        for end in (slider.min, slider.max):
            slider.value = end
            assert np.exp(ours.filtered()).sum() == pytest.approx(1)


def test_all_that_is_shown_is_one_output_with_a_widget_a_picture_and_a_line():
    ours = explorer(top_p=0.9)
    bundle = ours._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert base64.b64decode(bundle["image/png"]) == ours.image.value and bundle["text/plain"] == ours.said()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == ours.box.model_id
    inside = set(ours.box.children)
    assert {ours.image, ours.line, ours.behind, ours.temperature, ours.top_k, ours.top_p, ours.min_p, ours.order} == inside
    assert all(isinstance(child, ipywidgets.DOMWidget) for child in inside)


def test_a_cell_in_a_kernel_shows_both_faces():
    source = (
        "import numpy as np\nfrom IPython.display import display\nfrom course_lib.sampling_explorer import SamplingExplorer\n"
        "rows = np.log(np.full((2, 4), 0.25))\ndisplay(SamplingExplorer('ab', rows, list('abcd'), most=4, top_k=3))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    done = NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    (output,) = done.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"] == "after ab: 3 of 4 tokens are kept, 0.75 of the probability"
    assert pixels(base64.b64decode(output.data["image/png"])).shape[2] == 3
    assert "application/vnd.jupyter.widget-view+json" in output.data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((TEXT, LOG_PROBS[:-1], NAMES), r"log_probs: expected shape \(5, 30\)"),
        ((TEXT, LOG_PROBS, NAMES[:-1]), r"log_probs: expected shape \(5, 29\)"),
        (("", LOG_PROBS[:0], NAMES), "log_probs: expected shape"),
    ],
)
def test_shapes_are_checked(arguments, said):
    with pytest.raises(ShapeError, match=said):
        SamplingExplorer(*arguments)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"most": 0}, "most: expected 1 to 30"),
        ({"heat": 1}, "settings: expected some"),
        ({"top_p": 0}, "top_p: expected 0.05 to 1, got 0"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        explorer(**settings)


def test_no_letters_are_cut_off():
    for ours in (explorer(), explorer(top_p=0.35, behind=3), explorer(min_p=1.0)):
        drawn, (width, height) = ours._figure.get_tightbbox(), ours._figure.get_size_inches()
        assert 0 <= drawn.x0 < drawn.x1 <= width and 0 <= drawn.y0 < drawn.y1 <= height
