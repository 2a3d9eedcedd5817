"""The forward passes in torch: answers as in NumPy, other ways of writing them accepted, what they hide from autograd found."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from course_lib import sequence
from course_lib.cells import LSTMState
from course_lib.exercises import EXERCISES, check
from course_lib.torch_book import cell, hoisted_forward, masked_forward, module_forward
from course_lib.torch_sequence import run_fused, run_loop
from course_lib.trees import leaves

FORWARD = ("module_forward", "hoisted_forward", "masked_forward")


@pytest.mark.parametrize("trial", range(5))
@pytest.mark.parametrize("name", FORWARD)
def test_expected_values_and_gradients_are_those_of_numpy(name, trial):
    exercise = EXERCISES[name]
    arguments = exercise.problem(np.random.default_rng(trial))
    result = exercise.call(exercise.reference, *arguments)
    hs, final, cache = sequence.lstm_forward(*arguments)
    upstream = [np.random.default_rng(k).normal(size=a.size).reshape(a.shape) for k, a in enumerate((hs, *final))]
    expected = hs, *final, *sequence.lstm_backward(upstream[0], LSTMState(*upstream[1:]), cache)
    for a, b in zip(leaves(tuple(result)), leaves(expected), strict=False):  # hoisted_forward has a count besides
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def steps(a, state, params):
    """What follows the input products a, one tensor a step."""
    (h, c), hs = state, []
    for a_t in a:
        h, c = cell(a_t + h @ params.W_hh.T, c)
        hs.append(h)
    return torch.stack(hs), (h, c)


def of_nn_lstm(x, state, params, lengths=None):
    """nn.LSTM itself, with the parameters put in."""
    module = nn.LSTM(x.shape[2], state[0].shape[1], device="meta")
    weights = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), (params.W_ih, params.W_hh, params.b), strict=True))
    weights["bias_hh_l0"] = torch.zeros_like(params.b)
    packed = x if lengths is None else pack_padded_sequence(x, lengths.clamp(min=1), enforce_sorted=False)
    out, (h, c) = torch.func.functional_call(module, weights, (packed, (state[0][None], state[1][None])))
    if lengths is None:
        return out, (h[0], c[0])
    real = (lengths > 0)[:, None]
    return pad_packed_sequence(out, total_length=len(x))[0] * real, (h[0].where(real, state[0]), c[0].where(real, state[1]))


class Layer(nn.Module):
    def forward(self, x, state):
        (h, c), hs = state, torch.zeros(*x.shape[:2], state[0].shape[1])  # single precision, filled in place
        for t in range(x.size(0)):
            i, f, g, o = torch.split(linear(x[t], self.W_ih, self.b) + linear(h, self.W_hh), h.shape[1], dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hs[t] = h
        return hs, (h, c)


def by_lstm_cell(self, x, state):
    hs = []
    for x_t in x:
        state = torch.lstm_cell(x_t, state, self.W_ih, self.W_hh, self.b, 0 * self.b)
        hs.append(state[0])
    return [torch.stack(hs), list(state)]


def by_einsum(self, x, state):
    (h, c), hs, H = state, [], state[0].shape[1]
    for x_t in x.unbind():
        a = torch.einsum("nd,khd->knh", x_t, self.W_ih.view(4, H, -1)) + torch.einsum("nj,khj->knh", h, self.W_hh.view(4, H, H))
        i, f, g, o = (a + self.b.view(4, 1, H)).unbind()
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hs += [h[None]]
    return torch.cat(hs), LSTMState(hs[-1][0], c)


def by_concatenation(self, x, state):
    self.h, self.c = state
    self.hs, W = [], torch.cat([self.W_hh, self.W_ih], 1)
    for x_t in x:
        self.h, self.c = cell(torch.cat([self.h, x_t], 1).mm(W.t()).add(self.b), self.c)
        self.hs.append(self.h)
    return torch.stack(self.hs), (self.h, self.c)


@pytest.mark.parametrize(
    "forward",
    [
        module_forward,
        Layer.forward,
        by_lstm_cell,
        by_einsum,
        by_concatenation,
        lambda self, x, state: of_nn_lstm(x, state, self),
    ],
)
def test_modules_of_many_kinds(forward):
    assert check("module_forward", forward).passed


@pytest.mark.parametrize(
    "product",
    [
        lambda x, W, b: linear(x, W, b),
        lambda x, W, b: torch.einsum("tnd,gd->tng", x, W) + b,
        lambda x, W, b: torch.tensordot(x, W, ([2], [1])) + b,
        lambda x, W, b: torch.bmm(x, W.T.expand(len(x), *W.T.shape)) + b,
        lambda x, W, b: torch.addmm(b, x.flatten(0, 1), W.T).unflatten(0, x.shape[:2]),
        lambda x, W, b: (W @ x[..., None])[..., 0] + b,
        lambda x, W, b: torch.vmap(lambda row: row @ W.T + b)(x),
        lambda x, W, b: (x @ W.T + b).unbind(),
    ],
    ids=["linear", "einsum", "tensordot", "bmm", "addmm", "left", "vmap", "unbind"],
)
def test_one_input_product_of_many_kinds(product):
    assert check("hoisted_forward", lambda x, state, params: steps(product(x, params.W_ih, params.b), state, params)).passed


def test_whole_layers_are_hoisted_too():
    assert check("hoisted_forward", of_nn_lstm).passed
    assert check("hoisted_forward", run_fused).passed
    assert check("hoisted_forward", hoisted_forward).passed


def masked_by_selection(x, state, params, lengths):
    """Every stream runs to the end; what counts is picked out afterwards."""
    (h, c), states = state, [state]
    for x_t in x:
        h, c = cell(x_t @ params.W_ih.T + h @ params.W_hh.T + params.b, c)
        states.append((h, c))
    hs, cs = (torch.stack(parts) for parts in zip(*states, strict=True))
    n, real = torch.arange(len(lengths)), torch.arange(len(x))[:, None] < lengths
    return hs[1:].masked_fill(~real[..., None], 0), (hs[lengths, n], cs[lengths, n])


def masked_by_blending(x, state, params, lengths):
    (h, c), hs = state, []
    for t in range(len(x)):
        m = (lengths > t).double().unsqueeze(1)
        new = cell(x[t] @ params.W_ih.T + h @ params.W_hh.T + params.b, c)
        h, c = (m * b + (1 - m) * a for a, b in zip((h, c), new, strict=True))
        hs.append(m * h)
    return torch.stack(hs), (h, c)


def stream_by_stream(x, state, params, lengths):
    runs = []
    for n, length in enumerate(lengths.tolist()):
        hs, h, c = [], state.h[n], state.c[n]
        for x_t in x[:length, n]:
            h, c = (part[0] for part in cell((x_t @ params.W_ih.T + h @ params.W_hh.T + params.b)[None], c))
            hs.append(h)
        runs.append((torch.stack(hs + [torch.zeros_like(h)] * (len(x) - length)), h, c))
    hs, h, c = zip(*runs, strict=True)
    return torch.stack(hs, dim=1), (torch.stack(h), torch.stack(c))


@pytest.mark.parametrize(
    "forward", [masked_forward, masked_by_selection, masked_by_blending, stream_by_stream, of_nn_lstm, run_loop, run_fused]
)
def test_masks_of_many_kinds(forward):
    assert check("masked_forward", forward).passed


def test_lengths_of_all_kinds_are_drawn():
    """Full length, 1 and 0, each in many of the twenty problems, and together where there are streams enough."""
    problems = [EXERCISES["masked_forward"].problem(np.random.default_rng(trial)) for trial in range(20)]
    for wanted in (lambda n, T: n == T, lambda n, T: n == 1, lambda n, T: n == 0):
        assert sum(any(wanted(n, len(x)) for n in lengths) for x, _, _, lengths in problems) >= 8
    assert all({len(x), 1, 0} <= set(lengths) for x, _, _, lengths in problems if len(lengths) >= 3)


@pytest.mark.parametrize("name", FORWARD)
def test_every_size_is_1_now_and_then(name):
    shapes = [np.shape(EXERCISES[name].problem(np.random.default_rng(trial))[0]) for trial in range(20)]
    assert all(0 < sum(shape[axis] == 1 for shape in shapes) < 12 for axis in (0, 1))
    assert all(len({*shape}) == 3 for shape in shapes)


def in_place(x, state, params, lengths):
    (h, c), hs = state, []
    for t, x_t in enumerate(x):
        new_h, new_c = cell(x_t @ params.W_ih.T + h @ params.W_hh.T + params.b, c)
        h[t < lengths], c[t < lengths] = new_h[t < lengths], new_c[t < lengths]
        hs.append(h * (t < lengths)[:, None])
    return torch.stack(hs), (h, c)


def cloned_once(x, state, params, lengths):
    return in_place(x, LSTMState(state.h.clone(), state.c.clone()), params, lengths)


def nan_behind_a_mask(x, state, params, lengths):
    hs, final = masked_forward(x, state, params, lengths)
    real = (torch.arange(len(x))[:, None] < lengths)[..., None]
    return torch.where(real, hs, (0 * hs).sqrt()), final


def inner_state_detached(self, x, state):
    hs, final = module_forward(self, x[:1], state)
    rest, final = module_forward(self, x[1:], LSTMState(*(s.detach() for s in final))) if len(x) > 1 else (hs[:0], final)
    return torch.cat([hs, rest]), final


def no_grad(function):
    def wrapped(*arguments):
        with torch.no_grad():
            return function(*arguments)

    return wrapped


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        (
            "module_forward",
            lambda self, x, state: module_forward(self, x, state)[0],
            "it must return (hs, (h, c)), got one Tensor",
        ),
        (
            "module_forward",
            lambda self, x, state: (*module_forward(self, x, state), 0),
            "it must return (hs, (h, c)), got 3 values",
        ),
        ("module_forward", lambda self, x, state: (module_forward(self, x, state)[0].detach().numpy(), state), "got ndarray"),
        ("module_forward", lambda self, x, state: (list(x), state), "hs: expected a tensor, got list: torch.stack"),
        (
            "module_forward",
            lambda self, x, state: (module_forward(self, x, state)[0], state[0]),
            "final: expected the pair (h, c)",
        ),
        ("module_forward", lambda self, x, state: (None, state), "○ hs: not written yet"),
        ("module_forward", lambda x, state: None, "it is called as forward(self, x, state)"),
        ("module_forward", lambda self, x, state: self.step(x), "'Module' object has no attribute 'step'"),
        ("module_forward", inner_state_detached, "  ✗ dx: worst entry"),
        ("module_forward", no_grad(module_forward), "hint: nothing receives a gradient: it ran under no_grad"),
        (
            "module_forward",
            lambda self, x, state: module_forward(self, torch.tensor(x.tolist()).double(), state),
            "module_forward: dx is wrong",
        ),
        ("hoisted_forward", no_grad(hoisted_forward), "  ✓ input_products"),
        ("hoisted_forward", run_loop, "expected 1, got 5"),
        ("hoisted_forward", lambda x, s, p: steps(x @ p.W_ih.T + p.b + 0 * (x @ p.W_ih.T), s, p), "expected 1, got 2"),
        (
            "hoisted_forward",
            lambda x, s, p: steps([linear(x_t, p.W_ih, p.b) for x_t in x], s, p),
            "hint: the product with W_ih st",
        ),
        (
            "hoisted_forward",
            lambda x, s, p: steps((x[:, :, None] * p.W_ih).sum(3) + p.b, s, p),
            "hint: no product with W_ih alone",
        ),
        ("masked_forward", in_place, "hint: that writes into an argument"),
        ("masked_forward", cloned_once, "modified by an inplace operation; give each new value a new tensor"),
        ("masked_forward", nan_behind_a_mask, "✗ dx: expected numbers, got nan"),
        ("masked_forward", lambda x, s, p, n: masked_forward(x, s, p, n.clamp(min=1)), "✗ masked_forward: hs is wrong"),
        ("masked_forward", lambda x, s, p, n: masked_forward(x, s, p, len(x) - n), "✗ masked_forward: hs is wrong"),
        ("masked_forward", lambda x, s, p, n: masked_forward(x, s, p, n.sub_(1) + 1), "it changes its argument lengths"),
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)


def test_a_global_no_grad_is_no_obstacle():
    with torch.no_grad():
        assert check("module_forward", module_forward).passed


def test_a_wrong_result_keeps_its_hint_when_a_later_input_raises():
    """Time and streams exchanged: an error where T is not N, a wrong number of steps first."""
    trials = []

    def sometimes(self, x, state):
        trials.append(x)
        if len(trials) > 1:
            raise ValueError("later")
        hs, final = module_forward(self, x, state)
        return hs, LSTMState(final.c, final.h)

    assert check("module_forward", sometimes).lines[-1] == "  hint: the final state is (h, c), in this order"
