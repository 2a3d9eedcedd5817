"""The explorer of gates: each number recomputed by the formulas of lesson 04, for a random model and for the shipped one."""

from __future__ import annotations

import base64
import re
import time

import numpy as np
import pytest

from course_lib import checkpoint, language_model
from course_lib.checkpoint import Checkpoint
from course_lib.gate_explorer import GateExplorer
from course_lib.text import CharTokenizer

TEXT = "a (b) $c\nab"
TOKENIZER = CharTokenizer.from_text(TEXT)
PARAMS = language_model.init(TOKENIZER.size, 5, 4, 2, "lstm", seed=3)
LAYER = PARAMS.layers[0]._replace(b=np.random.default_rng(0).normal(size=16).astype(np.float32), W_hh=4 * PARAMS.layers[0].W_hh)
MODEL = Checkpoint(PARAMS._replace(layers=(LAYER, PARAMS.layers[1])), TOKENIZER, {}, {}, {})
UNITS = {"first": 2, "second": 0}


def explorer(**settings):
    return GateExplorer(MODEL, TEXT, UNITS, **settings)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step_by_hand(x, h, c):
    """f, i, o, g, c_prev, c, h of all units in float64, gate by gate."""
    W_ih, W_hh, b = (np.asarray(a, np.float64).reshape(4, 4, -1) for a in LAYER)
    a_i, a_f, a_g, a_o = (W_ih[k] @ x + W_hh[k] @ h + b[k, :, 0] for k in range(4))
    f, i, o, g = sigmoid(a_f), sigmoid(a_i), sigmoid(a_o), np.tanh(a_g)
    new = f * c + i * g
    return f, i, o, g, c, new, o * np.tanh(new)


def states_by_hand():
    """h and c before each character of TEXT."""
    h, c, found = np.zeros(4), np.zeros(4), []
    for character in TEXT:
        found.append((h, c))
        *_, c, h = step_by_hand(MODEL.params.embedding[TOKENIZER.encode(character)[0]], h, c)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_each_number_is_that_of_the_step(seed):
    rng, states = np.random.default_rng(seed), states_by_hand()
    place, name = int(rng.integers(0, len(TEXT))), ("first", "second")[seed % 2]
    ours = explorer(unit=name, behind=place)
    h, c = states[place]
    own = [values[UNITS[name]] for values in step_by_hand(MODEL.params.embedding[TOKENIZER.encode(TEXT[place])[0]], h, c)]
    np.testing.assert_allclose(ours.step(), own, atol=1e-6)
    np.testing.assert_allclose(ours.own(), own, atol=1e-6)
    x, size, C = str(rng.choice(list(TOKENIZER.characters))), rng.uniform(0, 2), rng.uniform(-2, 2)
    ours.x.value, ours.h.value, ours.c.value = x, size, C
    c = c.copy()
    c[UNITS[name]] = C
    moved = [values[UNITS[name]] for values in step_by_hand(MODEL.params.embedding[TOKENIZER.encode(x)[0]], size * h, c)]
    np.testing.assert_allclose(ours.step(), moved, atol=1e-6)
    np.testing.assert_allclose(ours.own(), own, atol=1e-6)  # what the model did does not move


def test_bars_and_marks_show_the_numbers():
    ours = explorer(unit="second", behind=4, x="a", h=0.5, c=-1.25)
    step, own = ours.step(), ours.own()
    for s, edges in ((step, [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ours._bars]), (own, None)):
        kept = s.f * s.c_prev
        ends = [s.f, s.i, s.o, s.g, s.c_prev, kept, s.c, s.c, s.h]
        if edges is None:
            np.testing.assert_allclose([mark.get_xdata()[0] for mark in ours._marks], ends, atol=1e-6)
        else:
            starts = [0] * 6 + [kept, 0, 0]  # what is written starts where what is kept ends
            np.testing.assert_allclose(edges, np.sort(np.stack([starts, ends], axis=1), axis=1), atol=1e-6)
    written = [step.f, step.i, step.o, step.g, step.c_prev, step.f * step.c_prev, step.i * step.g, step.c, step.h]
    np.testing.assert_allclose([float(label.get_text()) for label in ours._labels], written, atol=0.0051)
    limits = ours._memory.get_xlim()
    assert all(limits[0] < mark.get_xdata()[0] < limits[1] for mark in ours._marks[4:])


def test_the_line_says_the_equation_with_its_numbers():
    ours = explorer(unit="first", behind=3, c=-1.5)
    s = ours.step()
    numbers = re.findall(r"-?\d+\.\d\d", ours.line.value.split(". C =")[1])
    np.testing.assert_allclose([float(n) for n in numbers], [s.f, s.c_prev, s.i, s.g, s.c, s.o, s.c, s.h], atol=0.0051)
    assert ours.line.value.startswith(f"unit first after a␣( reads b: keeps {s.f:.2f}, writes {s.i:.2f} of the news")
    assert "· (-1.50) +" in ours.line.value and "-0.00" not in ours.line.value
    assert ours._title.get_text().replace("\n", ". ") == ours.line.value


def test_another_place_or_unit_starts_from_what_the_model_has_there():
    ours, states = explorer(), states_by_hand()
    for place, name in ((7, "first"), (7, "second"), (0, "second"), (10, "first")):
        ours.h.value, ours.c.value, ours.x.value = 0.1, 0.3, ")"
        ours.behind.value, ours.unit.value = place, name
        assert (ours.x.value, ours.h.value) == (TEXT[place], 1.0)
        assert ours.c.value == pytest.approx(states[place][1][UNITS[name]], abs=1e-6)
        np.testing.assert_allclose(ours.step(), ours.own(), atol=1e-6)


def test_only_what_depends_on_a_control_moves_with_it():
    ours = explorer(behind=5)
    before = ours.step()
    ours.c.value = 1.75
    assert ours.step()[:4] == before[:4] and ours.step().c != before.c  # no gate sees C: there are no peepholes
    ours.c.value = before.c_prev
    ours.h.value = 0.0
    assert all(a != b for a, b in zip(ours.step()[:4], before[:4], strict=True))
    ours.h.value, ours.x.value = 1.0, "\n"
    assert all(a != b for a, b in zip(ours.step()[:4], before[:4], strict=True))


def test_each_control_changes_the_picture():
    ours = explorer(behind=4)
    pictures = [ours.image.value]
    for name, value in (("x", "\n"), ("h", 0.2), ("c", 2.0), ("behind", 6), ("unit", "second")):
        getattr(ours, name).value = value
        pictures.append(ours.image.value)
    assert len(set(pictures)) == len(pictures)


def test_every_character_can_be_read_and_is_named_so_that_it_is_seen():
    ours = explorer()
    labels = dict((value, label) for label, value in ours.x.options)
    assert set(labels) == set(TOKENIZER.characters)
    assert (labels[" "], labels["\n"], labels["$"], labels["a"]) == ("␣", "↵", "$", "a")


def test_the_bracket_unit_of_the_shipped_model_is_shut_by_what_it_has_just_read():
    model = checkpoint.load("python_docs")
    ours = GateExplorer(model, "Return the name (a string) of", {"bracket": 347}, behind=26)
    assert ours.step().f < 0.05 and ours.step().c_prev > 1 > 0 > ours.step().c  # behind the closing bracket
    ours.h.value = 0.0
    assert ours.step().f > 0.5
    bundle = ours._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == ours.image.value
    used = []
    for place in range(10, 20):
        start = time.process_time()
        ours.behind.value = place
        used.append(time.process_time() - start)
    assert np.median(used) < 0.2


@pytest.mark.parametrize(
    ("text", "units", "settings", "said"),
    [
        ("a", UNITS, {}, r"text: expected at least two characters that the model knows, got 'a'"),
        ("abz?", UNITS, {}, r"text: expected at least two characters that the model knows, got '\?z'"),
        (TEXT, {}, {}, "units: expected a name for each of some units below 4, got none"),
        (TEXT, {"a": 1, "b": 4}, {}, r"units: expected a name for each of some units below 4, got \[4\]"),
        (TEXT, {"a": -1}, {}, r"units: .* below 4, got \[-1\]"),
        (TEXT, UNITS, {"x": "z"}, "x: expected one of .*, got 'z'"),
        (TEXT, UNITS, {"behind": 11}, "behind: expected 0 to 10, got 11"),
        (TEXT, UNITS, {"h": -1}, "h: expected 0 to 2, got -1"),
        (TEXT, UNITS, {"forget": 1}, "settings: expected some of unit, behind, x, h, c, got forget"),
    ],
)
def test_arguments_are_checked(text, units, settings, said):
    with pytest.raises(ValueError, match=said):
        GateExplorer(MODEL, text, units, **settings)


def test_other_cells_are_refused():
    rnn = language_model.init(TOKENIZER.size, 5, 4, 1, "gru", seed=0)
    with pytest.raises(ValueError, match="params: expected LSTM layers"):
        GateExplorer(Checkpoint(rnn, TOKENIZER, {}, {}, {}), TEXT, UNITS)


def test_no_letters_are_cut_off():
    for ours in (explorer(), explorer(c=-2, behind=9, unit="second"), explorer(h=2, x="\n")):
        drawn, (width, height) = ours._figure.get_tightbbox(), ours._figure.get_size_inches()
        assert 0 <= drawn.x0 < drawn.x1 <= width and 0 <= drawn.y0 < drawn.y1 <= height
