"""The explorer of gradients: each norm recomputed with torch's automatic differentiation, the bounds by hand."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
import torch

from course_lib.gradient_explorer import GradientExplorer
from course_lib.shapes import ShapeError

T, D, H = 7, 3, 5
X = np.random.default_rng(1).normal(size=(T, D))


def explorer(**settings):
    return GradientExplorer(X, hidden=H, seed=4, **settings)


def tensors(params):
    return [torch.tensor(np.asarray(a)) for a in params]


def rnn_tail(params, x):
    W_ih, W_hh, b = tensors(params)

    def run(h, start=0):
        for row in torch.tensor(x[start:]):
            h = torch.tanh(W_ih @ row + W_hh @ h + b)
        return h

    return run


def lstm_tail(params, x):
    W_ih, W_hh, b = tensors(params)

    def step(row, h, c):
        i, f, g, o = (W_ih @ row + W_hh @ h + b).split(H)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o), c

    def run(h, c, start=0):
        o = torch.zeros(H, dtype=torch.float64)
        for row in torch.tensor(x[start:]):
            o, c = step(row, h, c)
            h = o * torch.tanh(c)
        return h, c, o

    return run


def spectral(J):
    return np.sqrt(np.linalg.eigvalsh(np.asarray(J).T @ np.asarray(J)).max())


@pytest.mark.parametrize("settings", [{}, {"radius": 2.0, "forget_bias": -1.0, "T": 4}, {"inputs": 2.0, "forget_bias": 3.0}])
def test_norms_are_those_of_automatic_differentiation(settings):
    ours = explorer(**settings)
    norms, (rnn, lstm) = ours.norms(), ours.params()
    x, zero = ours.inputs.value * X[: ours.T.value], torch.zeros(H, dtype=torch.float64)
    forward, run = rnn_tail(rnn, x), lstm_tail(lstm, x)
    jacobian = torch.autograd.functional.jacobian
    for t in range(1, len(x) + 1):  # back from T to t
        back = len(x) - t
        h_t = rnn_tail(rnn, x[:t])(zero)
        assert norms.rnn[back] == pytest.approx(spectral(jacobian(lambda h, t=t: forward(h, t), h_t)), rel=1e-6)
        _, c_t, o_t = lstm_tail(lstm, x[:t])(zero, zero)

        def from_cell(c, o=o_t, t=t):  # moving C_t moves h_t with it; o_t does not depend on C_t
            return run(o * torch.tanh(c), c, t)[:2]

        dh, dc = jacobian(from_cell, c_t)
        assert norms.cell[back] == pytest.approx(spectral(dc), rel=1e-6)
        assert norms.output[back] == pytest.approx(spectral(dh), rel=1e-6)
    assert len(norms.rnn) == len(norms.bound) == len(norms.gates) == len(x)


def test_bound_and_forget_gates_are_products():
    ours = explorer(radius=1.7, forget_bias=0.5)
    norms, (rnn, lstm) = ours.norms(), ours.params()
    x = torch.tensor(ours.inputs.value * X)
    h, slopes = torch.zeros(H, dtype=torch.float64), []
    W_ih, W_hh, b = tensors(rnn)
    for row in x:
        h = torch.tanh(W_ih @ row + W_hh @ h + b)
        slopes.append((1 - h**2).max().item())
    largest = np.linalg.svd(rnn.W_hh)[1][0]
    expected = [np.prod([s * largest for s in slopes[T - k :]]) for k in range(T)]
    np.testing.assert_allclose(norms.bound, expected, rtol=1e-9)
    assert (norms.rnn <= norms.bound * (1 + 1e-9)).all()
    W_ih, W_hh, b = tensors(lstm)
    h = c = torch.zeros(H, dtype=torch.float64)
    gates = []
    for row in x:
        i, f, g, o = (W_ih @ row + W_hh @ h + b).split(H)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        gates.append(torch.sigmoid(f).numpy())
    np.testing.assert_allclose(norms.gates, [np.prod(gates[T - k :], axis=0).max() if k else 1 for k in range(T)], rtol=1e-9)


def test_controls_set_the_weights_that_they_name():
    ours = explorer()
    for radius in (0.3, 1.0, 2.5):
        ours.radius.value = radius
        assert np.abs(np.linalg.eigvals(ours.params()[0].W_hh)).max() == pytest.approx(radius)
    ours.forget_bias.value = 3.5
    np.testing.assert_array_equal(ours.params()[1].b, [0] * H + [3.5] * H + [0] * 2 * H)
    assert (np.abs(ours.params()[1].W_hh) <= H**-0.5).all() and (np.abs(ours.params()[1].W_ih) <= D**-0.5).all()


def test_without_inputs_the_rnn_s_jacobian_is_its_matrix():
    ours = explorer(inputs=0.0, radius=0.8)
    W = ours.params()[0].W_hh
    np.testing.assert_allclose(ours.norms().rnn, [spectral(np.linalg.matrix_power(W, k)) for k in range(T)], rtol=1e-7)
    np.testing.assert_allclose(ours.norms().bound, np.linalg.norm(W, 2) ** np.arange(T))
    np.testing.assert_allclose(ours.norms().gates, (1 / (1 + np.exp(-1))) ** np.arange(T))  # equation 3.11, exactly


def test_the_picture_shows_the_norms_and_its_line_says_them():
    ours = explorer(T=5)
    norms = ours.norms()._asdict()
    for name, values in norms.items():
        np.testing.assert_array_equal(ours._lines[name].get_xdata(), range(5))
        np.testing.assert_allclose(ours._lines[name].get_ydata(), values)
        assert ours._names[name].xy[0] == 4 and ours._names[name].get_color() == ours._lines[name].get_color()
    said = re.findall(r"\d[\d.]*(?:e[+-]\d+)?", ours.line.value.partition("back: ")[2])
    expected = [norms[name][-1] for name in ("rnn", "bound", "cell", "gates", "output")]
    np.testing.assert_allclose([float(number) for number in said], expected, rtol=0.5)
    assert ours.line.value.startswith("4 steps back: RNN ") and ours._title.get_text() == ours.line.value
    same_colour = [n for n in norms if ours._lines[n].get_color() == ours._lines["cell"].get_color()]
    assert len({ours._lines[name].get_linestyle() for name in same_colour}) == len(same_colour) == 2


def test_names_do_not_touch_even_if_lines_end_together_or_leave_the_picture():
    for settings in ({"radius": 0.1}, {"radius": 3.0, "inputs": 0.0}, {"T": 2, "forget_bias": 6.0}):
        ours = GradientExplorer(np.tile(X, (12, 1)), hidden=H, **settings)
        heights = np.sort([np.log10(name.xy[1]) for name in ours._names.values()])
        assert np.diff(heights).min() > 1.5 and -16.01 < heights[0] and heights[-1] < 8.01


def test_each_control_changes_the_picture_and_the_same_seed_gives_the_same():
    ours = explorer()
    pictures = [ours.image.value]
    for name, value in (("radius", 2.0), ("forget_bias", 4.0), ("inputs", 0.2), ("T", 3)):
        getattr(ours, name).value = value
        pictures.append(ours.image.value)
    assert len(set(pictures)) == len(pictures)
    assert explorer().image.value == pictures[0] != GradientExplorer(X, hidden=H, seed=5).image.value


def test_it_redraws_in_time():
    ours = GradientExplorer(np.random.default_rng(0).normal(size=(50, 32)))
    used = []
    for k in range(10):
        start = time.process_time()
        ours.radius.value = 0.5 + 0.1 * k
        used.append(time.process_time() - start)
    assert np.median(used) < 0.2


def test_arguments_are_checked():
    with pytest.raises(ShapeError, match="x: expected"):
        GradientExplorer(X[0])
    with pytest.raises(ValueError, match="x, hidden: expected at least 2 rows and 1 unit, got 1 and 32"):
        GradientExplorer(X[:1])
    with pytest.raises(ValueError, match="x, hidden: expected at least 2 rows and 1 unit, got 7 and 0"):
        GradientExplorer(X, hidden=0)
    with pytest.raises(ValueError, match="T: expected 2 to 7, got 8"):
        explorer(T=8)
    with pytest.raises(ValueError, match="settings: expected some of radius, forget_bias, inputs, T, got rho"):
        explorer(rho=1)


def test_no_letters_are_cut_off():
    for ours in (explorer(), explorer(radius=3, inputs=0), explorer(T=2, forget_bias=-2), GradientExplorer(np.tile(X, (9, 1)))):
        drawn, (width, height) = ours._figure.get_tightbbox(), ours._figure.get_size_inches()
        assert 0 <= drawn.x0 < drawn.x1 <= width and 0 <= drawn.y0 < drawn.y1 <= height
