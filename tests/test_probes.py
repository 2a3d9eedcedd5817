"""The search finds units that were planted by hand, and nothing where nothing is; states are those of the equations."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib import probes
from course_lib import text_properties as tp
from course_lib.cells import LSTMParams, LSTMState
from course_lib.language_model import LanguageModelParams, init
from course_lib.probes import Evidence, Found, Unit, activations, examine, saturation, search
from course_lib.shapes import ShapeError
from course_lib.text import CharTokenizer

LETTERS = "abcdefghij"
TOKENIZER = CharTokenizer.from_text(LETTERS + '"\n ')
H = 24
COUNTER, FLIPFLOP = 7, 11  # the planted units
GATES = dict(zip("ifgo", range(4), strict=True))


def planted(seed: int = 0) -> LanguageModelParams:
    """A layer of random units that see the last character only, and two that were set by hand.

    COUNTER:   i = 1; f = 0 and g = 0 at a newline, else f = 1 and g = 0.01:  c = 0.01 column.
    FLIPFLOP:  i = 1 and f = 0 at a quotation mark, else i = 0 and f = 1; there g is 1 if h was low and -1 if it was high.
    """
    V, rng = TOKENIZER.size, np.random.default_rng(seed)
    W_ih, W_hh, b = rng.standard_normal((4, H, V)), np.zeros((4, H, H)), rng.standard_normal((4, H)) - [[0], [4], [0], [0]]
    newline, quote = TOKENIZER.encode('\n"')
    W_ih[:, [COUNTER, FLIPFLOP]] = 0
    b[:, [COUNTER, FLIPFLOP]] = 0
    b[GATES["i"], COUNTER] = b[GATES["f"], COUNTER] = 40
    W_ih[GATES["f"], COUNTER, newline] = -80
    b[GATES["g"], COUNTER] = np.arctanh(0.01)
    W_ih[GATES["g"], COUNTER, newline] = -np.arctanh(0.01)
    b[GATES["i"], FLIPFLOP], W_ih[GATES["i"], FLIPFLOP, quote] = -40, 80
    b[GATES["f"], FLIPFLOP], W_ih[GATES["f"], FLIPFLOP, quote] = 40, -80
    b[GATES["g"], FLIPFLOP], W_hh[GATES["g"], FLIPFLOP, FLIPFLOP] = 15, -40  # h is 0 or -0.76, or 0.76 inside quotes
    b[GATES["o"], [COUNTER, FLIPFLOP]] = 40
    layer = LSTMParams(W_ih.reshape(4 * H, V), W_hh.reshape(4 * H, H), b.ravel())
    layer = LSTMParams(*(array.astype(np.float32) for array in layer))
    W_out = rng.standard_normal((V, H)).astype(np.float32)
    return LanguageModelParams(np.eye(V, dtype=np.float32), (layer,), W_out, np.zeros(V, np.float32))


def random_text(seed: int, length: int = 3000) -> str:
    """Lines of 10 to 60 letters, with quotation marks that are 5 to 40 characters apart; no line is empty."""
    rng, text = np.random.default_rng(seed), []
    line, mark = 30, 9
    while len(text) < length:
        line, mark = line - 1, mark - 1
        if line == 0:
            text.append("\n")
            line = rng.integers(10, 60)
        elif mark <= 0:
            text.append('"')
            mark = rng.integers(5, 40)
        else:
            text.append(rng.choice(list(LETTERS)))
    return "".join(text)


TEXT = random_text(1)
TOKENS = TOKENIZER.encode(TEXT)


def telegraph(seed: int, length: int = len(TEXT)) -> np.ndarray:
    """A flag that flips now and then, for no reason in any text."""
    return np.cumsum(np.random.default_rng(seed).random(length) < 0.05) % 2 == 1


def test_activations_are_those_of_the_equations() -> None:
    params = init(9, 5, 6, 2, "lstm", 3, np.float64)
    rng = np.random.default_rng(4)
    params = params._replace(layers=tuple(layer._replace(b=rng.standard_normal(24)) for layer in params.layers))
    tokens = rng.integers(0, 9, 15)
    start = tuple(LSTMState(*rng.standard_normal((2, 1, 6))) for _ in range(2))
    x = params.embedding[tokens]
    for layer, weights, (h, c) in zip(activations(params, tokens, start), params.layers, start, strict=True):
        h, c, hs = h[0], c[0], []
        for t in range(15):
            i, f, g, o = np.split(weights.W_ih @ x[t] + weights.W_hh @ h + weights.b, 4)
            i, f, o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            for name, expected in (("i", i), ("f", f), ("g", np.tanh(g)), ("o", o), ("c", c), ("h", h)):
                np.testing.assert_allclose(getattr(layer, name)[t], expected, atol=1e-12, err_msg=f"{name} at {t}")
            hs.append(h)
        x = np.array(hs)


def test_reading_piece_by_piece_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    params, tokens = init(9, 5, 6, 2, "lstm", 3), np.random.default_rng(0).integers(0, 9, 50)
    monkeypatch.setattr(probes, "PIECE", 7)
    for whole, pieces in zip(activations(params, tokens), probes._states(params, tokens), strict=True):
        np.testing.assert_allclose(pieces.h, whole.h, atol=1e-6)
        np.testing.assert_allclose(pieces.c, whole.c, atol=1e-6)


def test_the_search_finds_the_planted_counter() -> None:
    found = search(activations(planted(), TOKENS), tp.column(TEXT))
    assert found[0].unit == Unit(0, "c", COUNTER) and found[0].sign == 1
    assert min(found[0].searched, found[0].held_out) > 0.9999
    assert found[1].unit == Unit(0, "h", COUNTER)  # tanh bends it a little
    assert found[2].held_out < 0.3 and len(found) == 10


def test_the_search_finds_the_planted_flipflop() -> None:
    found = search(activations(planted(), TOKENS), tp.in_quotes(TEXT))
    assert {found[0].unit, found[1].unit} == {Unit(0, "h", FLIPFLOP), Unit(0, "c", FLIPFLOP)}
    assert found[0][1:] == found[1][1:] == (1, 1.0, 1.0)
    assert found[2].held_out < 0.7


def test_a_unit_may_fall_with_the_property() -> None:
    for values in (-tp.column(TEXT), ~tp.in_quotes(TEXT)):
        found = search(activations(planted(), TOKENS), values)[0]
        assert found.unit.index in (COUNTER, FLIPFLOP) and found.sign == -1
        assert min(found.searched, found.held_out) > 0.9999


def test_what_only_held_where_it_was_chosen_is_told() -> None:
    """The property turns round between the parts: what was found there is worse than nothing here."""
    column, layers = tp.column(TEXT), activations(planted(), TOKENS)
    turned = np.where(np.arange(len(TEXT)) < 2000, column, -column)
    found = search(layers, turned)[0]
    assert found.unit == Unit(0, "c", COUNTER) and found.searched > 0.9999 and found.held_out < -0.9999
    quotes = tp.in_quotes(TEXT)
    found = search(layers, np.where(np.arange(len(TEXT)) < 2000, quotes, ~quotes))[0]
    assert found.searched == 1 and found.held_out == 0


def test_the_second_layer_is_searched_too() -> None:
    bottom = planted()
    copy = np.zeros((4, H, H), np.float32)
    copy[GATES["g"], 5, COUNTER] = 1
    gates = np.full((4, H), 40, np.float32)
    gates[GATES["f"]], gates[GATES["g"]] = -40, 0  # c = tanh of what comes from below
    top = LSTMParams(copy.reshape(4 * H, H), np.zeros((4 * H, H), np.float32), gates.ravel())
    layers = activations(bottom._replace(layers=(*bottom.layers, top)), TOKENS)
    assert Unit(1, "c", 5) in [found.unit for found in search(layers, tp.column(TEXT))[:4]]
    assert search(layers[1:], tp.column(TEXT))[0].unit == Unit(0, "c", 5)


def test_planted_units_beat_their_baselines_and_noise_does_not() -> None:
    properties = {"column": tp.column(TEXT), "quotes": tp.in_quotes(TEXT), "noise": telegraph(2)}
    evidence = examine(planted(), TOKENS, properties | {"last": np.isin(list(TEXT), list("ab"))})
    column, quotes, noise, last = evidence.values()
    assert (column.measure, quotes.measure) == ("r²", "AUC")
    assert column.verdict == quotes.verdict == "one unit"
    assert column.units[0].held_out > 0.9999 and quotes.units[0].held_out == 1
    assert max(column.baselines.values()) < 0.6 and quotes.baselines.pop("random directions") < 0.97  # of only 24 numbers
    assert max(quotes.baselines.values()) < 0.65
    assert noise.verdict == "nothing" and noise.units[0].held_out < 0.65 and 0.35 < noise.linear < 0.65
    assert last.verdict == "nothing" and last.baselines["last character"] == 1  # what any read-out of the character knows
    assert next(iter(column.rows())) == f"unit c[{COUNTER}]" and list(column.rows().values())[-1] == column.linear
    assert quotes.changes == (np.diff(tp.in_quotes(TEXT)[2000:].astype(int)) != 0).sum()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_reported_where_nothing_is(seed: int) -> None:
    noise = np.cumsum(np.random.default_rng(seed).standard_normal(len(TEXT)))
    slow = noise - np.convolve(noise, np.ones(200) / 200, "same")  # a walk that comes back
    found = examine(planted(seed), TOKENS, {"flag": telegraph(seed + 9), "count": slow}, seed=seed)
    assert [evidence.verdict for evidence in found.values()] == ["nothing", "nothing"]


def test_what_ten_units_hold_together_is_called_spread() -> None:
    """Unit k counts its letter in the line; the property weighs the ten counts with both signs."""
    params, V = planted(), TOKENIZER.size
    W_ih, b = np.zeros((4, H, V), np.float32), np.zeros((4, H), np.float32)
    newline, letters = TOKENIZER.encode("\n")[0], TOKENIZER.encode(LETTERS)
    b[GATES["i"]] = b[GATES["f"]] = 40
    b[GATES["o"]] = -40
    W_ih[GATES["f"], :, newline] = -80
    W_ih[GATES["g"], np.arange(10), letters] = 0.05
    layer = LSTMParams(W_ih.reshape(4 * H, V), np.zeros((4 * H, H), np.float32), b.ravel())
    counts = np.array([[letter == c for letter in LETTERS] for c in TEXT]) @ [1, -1, 2, -2, 1, -1, 2, -2, 1, -1]
    total = np.cumsum(counts)
    newlines = np.array(list(TEXT)) == "\n"
    at = np.maximum.accumulate(np.where(newlines, np.arange(len(TEXT)), -1))
    walk = total - np.where(at >= 0, total[at], 0)
    evidence = examine(params._replace(layers=(layer,)), TOKENS, {"walk": walk}, history=3)["walk"]
    assert evidence.verdict == "spread" and evidence.linear > 0.99 and evidence.units[0].held_out < 0.6


def test_the_verdict_needs_changes_and_a_clear_lead() -> None:
    def verdict(unit: float, baseline: float, linear: float, changes: int = 100) -> str:
        return Evidence("AUC", [Found(Unit(0, "h", 0), 1, 1.0, unit)], {"a": 0.2, "b": baseline}, linear, changes).verdict

    assert verdict(0.61, 0.5, 0.5) == "one unit" and verdict(0.59, 0.5, 0.5) == "nothing"
    assert (
        verdict(0.59, 0.5, 0.61) == "spread"
        and verdict(0.55, 0.5, 0.59) == "nothing"
        and verdict(0.999, 0.99, 0.5) == "one unit"
    )
    assert verdict(1, 0.5, 1, changes=19) == "too rare" and verdict(1, 1, 1) == "nothing"


def test_baselines_are_what_they_are_called() -> None:
    params, quotes = planted(), tp.in_quotes(TEXT)
    evidence = examine(params, TOKENS, {"quotes": quotes}, history=3, seed=5)["quotes"]
    untrained = init(TOKENIZER.size, TOKENIZER.size, H, 1, "lstm", 5)
    assert evidence.baselines["random network"] == pytest.approx(search(activations(untrained, TOKENS), quotes)[0].held_out)
    one_hot = np.eye(TOKENIZER.size)[TOKENS]
    history = np.hstack([np.vstack([np.eye(TOKENIZER.size)[[0] * k], one_hot[: len(one_hot) - k]]) for k in range(3)])
    expected = probes.read_out(history, {"q": quotes})["q"]
    assert evidence.baselines["last 3 characters"] == pytest.approx(expected, abs=2e-3)
    shifted = []
    for by in np.linspace(0.1, 0.9, 20):
        parts = quotes[:2000], quotes[2000:]
        moved = np.concatenate([np.roll(part, int(by * len(part))) for part in parts])
        shifted.append(search(activations(params, TOKENS), moved)[0].held_out)
    assert evidence.baselines["shifted property"] == pytest.approx(max(shifted), abs=1e-6)
    assert len(evidence.baselines) == 5 and evidence.units[0].unit.index == FLIPFLOP


def test_saturation_counts_both_ends() -> None:
    gate = np.array([[0.05, 0.5], [0.95, 0.1], [0.99, 0.09], [0.02, 0.9]])
    assert [share.tolist() for share in saturation(gate)] == [[0.5, 0.25], [0.5, 0]]


def test_names_of_units() -> None:
    assert (str(Unit(0, "c", 3)), str(Unit(1, "h", 3))) == ("c[3]", "h[3], layer 1")


def test_errors_name_the_argument() -> None:
    params = planted()
    layers = activations(params, TOKENS[:90])
    with pytest.raises(ShapeError, match=r"values: expected shape \(90,\)"):
        search(layers, np.zeros(89))
    with pytest.raises(ValueError, match="dull: expected a property that changes"):
        examine(params, TOKENS[:90], {"dull": np.zeros(90)})
    with pytest.raises(ShapeError, match=r"tokens: expected one row \(T,\), got shape \(9, 10\)"):
        activations(params, TOKENS[:90].reshape(9, 10))
    with pytest.raises(ValueError, match="params: expected LSTM layers, layer 0 is of GRUParams"):
        activations(init(9, 5, 6, 1, "gru", 0), np.zeros(5, int))
