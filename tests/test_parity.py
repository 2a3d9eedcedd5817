"""NumPy by hand = the equations in torch, differentiated by autograd = torch.nn.RNN, LSTM, GRU: outputs and every gradient.

For the LSTM also = our module on every backend.
"""

import shutil

import numpy as np
import pytest
import torch
from problems import CELLS, assert_close, random_like, random_stack, random_stack_state
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from course_lib import torch_sequence
from course_lib.cells import GRUParams, LSTMParams, LSTMState
from course_lib.stacked import Bidirectional, stacked_backward, stacked_forward
from course_lib.torch_lstm import LSTM
from course_lib.torch_sequence import UNROLL
from course_lib.trees import leaves, map_tree, named_leaves
from course_lib.unroll import ONE_PRODUCT_BELOW

T, D, H = 7, 3, 5
EXACT, SINGLE = 1e-10, 1e-5

every_problem = pytest.mark.parametrize(
    ("cell", "both", "depth", "N"),
    [(cell, both, depth, N) for cell in CELLS for both in (False, True) for depth, N in ((1, 4), (2, ONE_PRODUCT_BELOW))],
)


def problem(cell, both, depth, N, dtype=np.float64, T=T):
    """(x, initial, layers) and the gradients of (hs, finals)."""
    rng = np.random.default_rng(7)
    initial, layers = random_stack_state(rng, cell, N, H, depth, both), random_stack(rng, cell, D, H, depth, both)
    inputs, dhs = (rng.normal(size=(T, N, D)), initial, layers), rng.normal(size=(T, N, H * (1 + both)))
    return map_tree(lambda a: a.astype(dtype), (inputs, (dhs, random_like(rng, initial))))


def by_hand(inputs, upstream, lengths=None):
    """Outputs and gradients of course_lib."""
    hs, finals, cache = stacked_forward(*inputs, lengths)
    return (hs, finals), stacked_backward(*upstream, cache)


def by_autograd(inputs, upstream, run):
    """The same of ``run`` on tensors, backwards by autograd."""
    tensors = map_tree(lambda a: torch.tensor(a, requires_grad=True), inputs)
    outputs = run(*tensors)
    torch.autograd.backward(leaves(outputs), [torch.tensor(a) for a in leaves(upstream)])
    return map_tree(lambda t: t.detach().numpy(), outputs), map_tree(lambda t: t.grad.numpy(), tensors)


def lessons_equations(x, initial, layers):
    """The equations as the lessons write them, in torch, a gate at a time and a step at a time."""
    finals = []
    for state, params in zip(initial, layers, strict=True):
        if isinstance(params, Bidirectional):
            ahead, final_ahead = unrolled(x, state.ahead, params.ahead)
            back, final_back = unrolled(x.flip(0), state.back, params.back)
            x, final = torch.cat([ahead, back.flip(0)], dim=2), Bidirectional(final_ahead, final_back)
        else:
            x, final = unrolled(x, state, params)
        finals.append(final)
    return x, tuple(finals)


def unrolled(x, state, params):
    hs = []
    for x_t in x:
        if isinstance(params, LSTMParams):
            a_i, a_f, a_g, a_o = torch.chunk(x_t @ params.W_ih.T + state.h @ params.W_hh.T + params.b, 4, dim=1)
            c = torch.sigmoid(a_f) * state.c + torch.sigmoid(a_i) * torch.tanh(a_g)
            state = LSTMState(torch.sigmoid(a_o) * torch.tanh(c), c)
        elif isinstance(params, GRUParams):
            x_r, x_z, x_n = torch.chunk(x_t @ params.W_ih.T + params.b_ih, 3, dim=1)
            h_r, h_z, h_n = torch.chunk(state @ params.W_hh.T + params.b_hh, 3, dim=1)
            n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            z = torch.sigmoid(x_z + h_z)
            state = (1 - z) * n + z * state
        else:
            state = torch.tanh(x_t @ params.W_ih.T + state @ params.W_hh.T + params.b)
        hs.append(state.h if isinstance(state, LSTMState) else state)
    return torch.stack(hs), state


def torch_nn(cell, both, depth, lengths=None):
    """A function like ``lessons_equations`` that calls torch.nn, with weights that autograd leads back to ours."""

    def run(x, initial, layers):
        parts = [part for layer in layers for part in (layer if both else [layer])]
        names = [f"l{k}{way}" for k in range(depth) for way in (["", "_reverse"] if both else [""])]
        module = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](D, H, depth, bidirectional=both)
        weights = {}
        for name, part in zip(names, parts, strict=True):
            biases = (part.b_ih, part.b_hh) if cell == "gru" else (part.b, torch.zeros_like(part.b))
            rows = (part.W_ih, part.W_hh, *biases)
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights |= {f"{kind}_{name}": row for kind, row in zip(kinds, rows, strict=True)}
        states = [state for layer in initial for state in (layer if both else [layer])]
        lstm = cell == "lstm"
        start = tuple(torch.stack([getattr(s, k) for s in states]) for k in "hc") if lstm else torch.stack(states)
        packed = x if lengths is None else pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        hs, end = torch.func.functional_call(module, weights, (packed, start))
        hs = hs if lengths is None else pad_packed_sequence(hs, total_length=len(x))[0]
        ends = [LSTMState(*pair) for pair in zip(*end, strict=True)] if lstm else list(end)
        return hs, tuple(Bidirectional(*ends[k : k + 2]) for k in range(0, len(ends), 2)) if both else tuple(ends)

    return run


def our_module(backend, both, depth, lengths=None):
    """A function like ``lessons_equations`` that calls our LSTM, with weights that autograd leads back to ours."""
    module = LSTM(D, H, depth, both, backend)

    def run(x, initial, layers):
        states = [state for layer in initial for state in (layer if both else [layer])]
        start = tuple(torch.stack([getattr(s, k) for s in states]) for k in "hc")
        hs, end = torch.func.functional_call(module, dict(named_leaves(layers, "layers")), (x, start, lengths))
        ends = [LSTMState(*pair) for pair in zip(*end, strict=True)]
        return hs, tuple(Bidirectional(*ends[k : k + 2]) for k in range(0, len(ends), 2)) if both else tuple(ends)

    return run


@every_problem
def test_numpy_equals_the_equations_in_autograd(cell, both, depth, N):
    inputs, upstream = problem(cell, both, depth, N)
    assert_close(by_hand(inputs, upstream), by_autograd(inputs, upstream, lessons_equations), EXACT)


@every_problem
def test_numpy_equals_torch_nn(cell, both, depth, N):
    inputs, upstream = problem(cell, both, depth, N)
    assert_close(by_hand(inputs, upstream), by_autograd(inputs, upstream, torch_nn(cell, both, depth)), EXACT)


@every_problem
def test_lengths_equal_packed_sequences(cell, both, depth, N):
    inputs, upstream = problem(cell, both, depth, N)
    lengths = np.random.default_rng(1).integers(1, T + 1, N)  # torch cannot pack a sequence of length 0
    lengths[:2] = T, 1
    expected = by_autograd(inputs, upstream, torch_nn(cell, both, depth, lengths))
    assert_close(by_hand(inputs, upstream, lengths), expected, EXACT)


@every_problem
def test_float32_equals_torch_nn(cell, both, depth, N):
    inputs, upstream = problem(cell, both, depth, N, np.float32)
    outputs = by_hand(inputs, upstream)
    assert {leaf.dtype for leaf in leaves(outputs)} == {np.dtype(np.float32)}
    assert_close(outputs, by_autograd(inputs, upstream, torch_nn(cell, both, depth)), SINGLE)


every_module = pytest.mark.parametrize(
    ("backend", "both", "depth"),
    [(name, both, depth) for name in ("auto", "loop", "fused", "cudnn") for both in (False, True) for depth in (1, 2)],
)


@every_module
def test_our_module_equals_numpy_and_torch_nn(backend, both, depth):
    inputs, upstream = problem("lstm", both, depth, 4)
    got = by_autograd(inputs, upstream, our_module(backend, both, depth))
    assert_close(got, by_hand(inputs, upstream), EXACT)
    assert_close(got, by_autograd(inputs, upstream, torch_nn("lstm", both, depth)), EXACT)
    assert_close(got, by_autograd(inputs, upstream, lessons_equations), EXACT)


@every_module
def test_our_module_with_lengths_equals_numpy_and_packed_sequences(backend, both, depth):
    inputs, upstream = problem("lstm", both, depth, 5)
    for lengths in ((T, 0, 3, 1, T - 1), (2, T, 3, 1, T - 1)):  # torch cannot pack a sequence of length 0
        got = by_autograd(inputs, upstream, our_module(backend, both, depth, lengths))
        assert_close(got, by_hand(inputs, upstream, np.array(lengths)), EXACT)
    assert_close(got, by_autograd(inputs, upstream, torch_nn("lstm", both, depth, lengths)), EXACT)


@every_module
def test_our_module_in_float32_equals_numpy_and_torch_nn(backend, both, depth):
    inputs, upstream = problem("lstm", both, depth, 4, np.float32)
    for lengths in (None, (T, 1, 3, T - 1)):
        got = by_autograd(inputs, upstream, our_module(backend, both, depth, lengths))
        assert {leaf.dtype for leaf in leaves(got)} == {np.dtype(np.float32)}
        assert_close(got, by_hand(inputs, upstream, lengths and np.array(lengths)), SINGLE)
        assert_close(got, by_autograd(inputs, upstream, torch_nn("lstm", both, depth, lengths)), SINGLE)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_compiled_equals_numpy_and_torch_nn():
    """Compiling takes 10 to 30 seconds, once: two parts for the compiler and a rest, and all that differs in one test."""
    T = 2 * UNROLL + 3
    for both, lengths in ((False, None), (True, (T, 3, 1, UNROLL))):
        inputs, upstream = problem("lstm", both, 2, 4, T=T)
        got = by_autograd(inputs, upstream, our_module("compile", both, 2, lengths))
        assert_close(got, by_hand(inputs, upstream, lengths and np.array(lengths)), EXACT)
        assert_close(got, by_autograd(inputs, upstream, torch_nn("lstm", both, 2, lengths)), EXACT)
    assert torch_sequence._not_compiling == []
