"""The module: called like torch.nn.LSTM, with weights of NumPy, torch.nn.LSTM and Keras; what it refuses, in which words."""

import copy
import io
import os
import re
import warnings

import numpy as np
import pytest
import torch
from problems import assert_close, random_params, random_stack
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch_problems import by_numpy, stack_problem, to_array, worst

from course_lib import torch_sequence
from course_lib.cells import GRUParams, LSTMParams, LSTMState
from course_lib.shapes import ShapeError
from course_lib.stacked import Bidirectional, stacked_forward, zero_state
from course_lib.torch_lstm import (
    LSTM,
    from_keras,
    from_numpy,
    from_torch_lstm,
    to_keras,
    to_numpy,
    to_torch_lstm,
)
from course_lib.torch_stack import BACKENDS
from course_lib.trees import leaves, map_tree

HERE = [name for name in BACKENDS if name != "triton"]
T, N, D, H = 9, 4, 3, 5
LENGTHS = (9, 0, 7, 1)
# bfloat16 against float32: outputs of the largest entry, gradients of the length of all together; the largest seen over 40
# seeds were 0.014 and 0.0094.
HALF, HALF_GRADIENTS = 0.03, 0.02

every_backend = pytest.mark.parametrize("backend", HERE)
every_form = pytest.mark.parametrize(("depth", "both"), [(1, False), (2, False), (1, True), (2, True)], ids=lambda v: str(v))


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch_sequence, "_compiled", lambda: torch_sequence._several_steps)


def pair(depth=2, both=True, backend="auto", seed=0, dtype=torch.float64, **options):
    """torch.nn.LSTM with random weights, biases included, and our module with the same."""
    torch.manual_seed(seed)
    theirs = nn.LSTM(D, H, depth, bidirectional=both, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.5)
    return theirs, from_torch_lstm(theirs, backend=backend)


def random_state(depth, both, streams=N, dtype=torch.float64):
    return tuple(torch.randn(depth * (1 + both), streams, H, dtype=dtype) for _ in range(2))


def same(got, expected, tolerance=1e-12):
    """Equal types of containers, shapes and numbers; an LSTMState is a tuple."""
    if isinstance(expected, PackedSequence):
        assert isinstance(got, PackedSequence)
        for a, b in zip(got, expected, strict=True):
            assert (a is None and b is None) or torch.allclose(a, b, rtol=0, atol=tolerance)
    elif isinstance(expected, tuple):
        assert isinstance(got, tuple)
        for a, b in zip(got, expected, strict=True):
            same(a, b, tolerance)
    else:
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert torch.allclose(got, expected, rtol=0, atol=tolerance)


# Called like torch.nn.LSTM


@every_backend
@every_form
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_call(backend, depth, both, batch_first):
    theirs, ours = pair(depth, both, backend, batch_first=batch_first)
    x, state = torch.randn(N, T, D) if batch_first else torch.randn(T, N, D), random_state(depth, both)
    x = x.double()
    same(ours(x, state), theirs(x, state))
    same(ours(x), theirs(x))
    same(ours(x, None), theirs(x, None))
    same(ours(x, state=state), theirs(x, hx=state))
    output, (h_n, c_n) = ours(x, state)
    assert isinstance(ours(x)[1], LSTMState)
    last = output[:, -1] if batch_first else output[-1]
    assert torch.equal(last[:, :H], h_n[-2 if both else -1])
    assert h_n.shape == c_n.shape == (depth * (1 + both), N, H)


@every_backend
@every_form
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_stream_without_a_batch_axis(backend, depth, both, batch_first):
    theirs, ours = pair(depth, both, backend, batch_first=batch_first)
    x, state = torch.randn(T, D).double(), tuple(part[:, 0] for part in random_state(depth, both, 1))
    same(ours(x, state), theirs(x, state))
    same(ours(x), theirs(x))
    same(ours(x, lengths=[4])[1], theirs(x[:4])[1])


@every_backend
@every_form
@pytest.mark.parametrize("lengths", [(9, 7, 7, 1), (7, 1, 9, 7), (1, 1, 1, 1)], ids=["sorted", "not sorted", "all one"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences(backend, depth, both, lengths, batch_first):
    theirs, ours = pair(depth, both, backend, batch_first=batch_first)
    state = random_state(depth, both)
    for enforce_sorted in {False, lengths == tuple(sorted(lengths, reverse=True))}:
        x = torch.randn(T, N, D).double()
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=enforce_sorted)
        same(ours(packed, state), theirs(packed, state))
        same(ours(packed), theirs(packed))


@every_backend
def test_gradients_through_packed_sequences(backend):
    theirs, ours = pair(2, True, backend)
    x, state = torch.randn(T, N, D).double().requires_grad_(), random_state(2, True)
    weights, grads = None, []
    for module in (ours, theirs):
        packed = pack_padded_sequence(x, torch.tensor([7, 1, 9, 7]), enforce_sorted=False)
        output, (h, c) = module(packed, state)
        weights = weights or [torch.randn_like(t) for t in (output.data, h, c)]
        grads.append(torch.autograd.grad((output.data, h, c), x, weights)[0])
    same(*grads)


@every_backend
@every_form
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_a_packed_sequence(backend, depth, both, batch_first):
    """And a stream of length 0, which cannot be packed, keeps its state."""
    theirs, ours = pair(depth, both, backend)
    ours.batch_first = batch_first
    x, state = torch.randn(T, N, D).double(), random_state(depth, both)
    packed = pack_padded_sequence(x, torch.tensor([9, 5, 7, 1]), enforce_sorted=False)
    expected, final = theirs(packed, state)
    expected, _ = pad_packed_sequence(expected, total_length=T)
    x, expected = (t.transpose(0, 1) if batch_first else t for t in (x, expected))
    same(ours(x, state, torch.tensor([9, 5, 7, 1])), (expected, final))
    output, (h, c) = ours(x, state, [9, 0, 7, 1])
    assert not (output[1] if batch_first else output[:, 1]).any()
    same((h[:, 1], c[:, 1]), tuple(part[:, 1] for part in state), 0)


@every_backend
def test_training_moves_both_modules_alike(backend):
    """Three steps of gradient descent; the summed bias of theirs at half the rate, since both its parts move."""
    theirs, ours = pair(2, True, backend)
    x, target = torch.randn(T, N, D).double(), torch.randn(T, N, 2 * H).double()
    weights, biases = ([p for n, p in theirs.named_parameters() if ("bias" in n) == bias] for bias in (False, True))
    optimizers = [
        torch.optim.SGD(ours.parameters(), 0.5),
        torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 0.25}], 0.5),
    ]
    for _ in range(3):
        losses = []
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append((module(x)[0] - target).square().mean())
            losses[-1].backward()
            optimizer.step()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    assert_close(to_numpy(ours), to_numpy(from_torch_lstm(theirs)), 1e-12)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_sum_of_two_biases_moves_twice_as_far_as_one(optimizer):
    theirs, ours = pair(1, False)
    x, moved = torch.randn(T, N, D).double(), []
    for module in (ours, theirs):
        before = to_numpy(module if module is ours else from_torch_lstm(module))
        step = optimizer(module.parameters(), lr=0.1)
        module(x)[0].square().sum().backward()
        step.step()
        moved.append(map_tree(np.subtract, to_numpy(module if module is ours else from_torch_lstm(module)), before))
    (W_ih, W_hh, b), (their_W_ih, their_W_hh, their_b) = moved
    assert_close((their_W_ih, their_W_hh), (W_ih, W_hh), 1e-9)
    assert (np.abs(b) > 1e-3).all()
    assert_close(their_b, 2 * b, 1e-9)


# What a module must do


def test_initial_weights():
    torch.manual_seed(0)
    module = LSTM(70, 100, 2, bidirectional=True)
    for name, parameter in module.named_parameters():
        if name.endswith("b"):
            i, f, g, o = parameter.chunk(4)
            assert not any(part.any() for part in (i, g, o))
            assert (f == 1).all()
        else:
            assert -0.1 <= parameter.min() < -0.099
            assert 0.099 < parameter.max() <= 0.1
            assert abs(parameter.mean()) < 1e-3
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    assert shapes == {
        f"layers.{k}.{way}.{name}": shape
        for k, width in enumerate((70, 200))
        for way in ("ahead", "back")
        for name, shape in {"W_ih": (400, width), "W_hh": (400, 100), "b": (400,)}.items()
    }


def test_params_are_the_module_s_own():
    for both in (False, True):
        module = LSTM(D, H, 2, both)
        assert [id(leaf) for leaf in leaves(module.params())] == [id(p) for p in module.parameters()]
        assert {type(layer) for layer in module.params()} == {Bidirectional if both else LSTMParams}


def test_it_prints_its_arguments():
    module = LSTM(D, H, 2, True, "loop", batch_first=True, dropout=0.5)
    assert "3, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5, backend='loop'" in repr(module)


@every_form
def test_copies_states_and_files(depth, both):
    _, ours = pair(depth, both)
    x, state = torch.randn(T, N, D).double(), random_state(depth, both)
    twin = copy.deepcopy(ours)
    same(twin(x, state), ours(x, state), 0)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    other = LSTM(D, H, depth, both).double()
    other.load_state_dict(torch.load(file, weights_only=True))
    same(other(x, state), ours(x, state), 0)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(next(twin.parameters()), next(ours.parameters()))


@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_conversion_to_a_dtype(backend, dtype):
    _, ours = pair(2, True, backend, dtype=torch.float32)
    x = torch.randn(T, N, D)
    expected, _ = ours(x)
    output, (h, c) = ours.to(dtype)(x.to(dtype), lengths=[T] * N)
    assert {output.dtype, h.dtype, c.dtype} == {dtype}
    assert worst(to_array(output), to_array(expected)) <= (0.05 if dtype == torch.bfloat16 else 1e-5)


def weights_gradient(module, x, state, above):
    output, final = module(x, state)
    module.zero_grad()
    torch.autograd.backward([output, *final], [w.to(t.dtype) for w, t in zip(above, (output, *final), strict=True)])
    return map_tree(to_array, (output, *final)), np.concatenate([to_array(p.grad).ravel() for p in module.parameters()])


@every_backend
@every_form
@pytest.mark.parametrize("how", ["module", "autocast"])
def test_half_precision_is_near_single_precision(backend, depth, both, how):
    for seed in range(3):
        torch.manual_seed(seed)
        ours = LSTM(D, H, depth, both, backend)
        x, state = torch.randn(T, N, D), random_state(depth, both, dtype=torch.float32)
        above = [torch.randn(T, N, H * (1 + both)), *random_state(depth, both, dtype=torch.float32)]
        expected, expected_grads = weights_gradient(ours, x, state, above)
        if how == "module":
            half = copy.deepcopy(ours).bfloat16()
            outputs, grads = weights_gradient(half, x.bfloat16(), tuple(part.bfloat16() for part in state), above)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                assert {t.dtype for t in (ours(x, state)[0], *ours(x)[1])} == {torch.bfloat16}
                outputs, grads = weights_gradient(ours, x, state, above)
            assert {p.grad.dtype for p in ours.parameters()} == {torch.float32}
        assert worst(outputs, expected) <= HALF
        assert np.linalg.norm(grads - expected_grads) <= HALF_GRADIENTS * np.linalg.norm(expected_grads)


@every_backend
def test_autocast_leaves_double_alone_and_comes_back(backend):
    _, ours = pair(1, False, backend)
    x = torch.randn(T, N, D).double()
    expected = ours(x)
    with torch.autocast("cpu", torch.bfloat16):
        same(ours(x), expected, 0)
        assert torch.is_autocast_enabled("cpu")
        with pytest.raises(ShapeError):
            ours(x[..., 1:])
        assert torch.is_autocast_enabled("cpu")


@every_backend
def test_without_gradients(backend):
    _, ours = pair(2, True, backend)
    x = torch.randn(T, N, D).double()
    expected = ours(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            output, state = ours(x)
        assert not output.requires_grad
        same((output.clone(), state), expected)
    assert expected[0].requires_grad


@every_backend
def test_dropout_is_for_training(backend):
    ours = LSTM(D, H, 2, True, backend, dropout=0.5)
    x = torch.randn(T, N, D)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    torch.manual_seed(1)
    first = ours(x)[0]
    torch.manual_seed(1)
    same(ours(x)[0], first, 0)
    ours.eval()
    plain = from_numpy(to_numpy(ours), backend=backend)
    same(ours(x), plain(x), 0)
    ours.train()
    assert not torch.equal(ours(x)[0], plain(x)[0])


@every_backend
def test_dropout_with_one_layer_does_nothing_but_say_so(backend):
    with pytest.warns(UserWarning, match=r"^dropout acts between layers; with num_layers=1 it does nothing$") as seen:
        ours = LSTM(D, H, backend=backend, dropout=0.5)
    assert [warning.filename for warning in seen] == [__file__]
    x = torch.randn(T, N, D)
    same(ours(x), from_numpy(to_numpy(ours), backend=backend)(x), 0)  # and no warning again


@every_backend
def test_a_module_on_the_meta_device_gives_shapes(backend):
    ours = LSTM(D, H, 2, True, backend).to("meta")
    output, (h, c) = ours(torch.randn(T, N, D, device="meta"))
    assert (output.shape, h.shape, c.shape) == ((T, N, 2 * H), (4, N, H), (4, N, H))


# Refusals


def good(**options):
    return LSTM(D, H, 2, **options)


BUILDS = {
    "no input": ((0, H), {}, "input_size: expected an integer of at least 1, got 0"),
    "half a unit": ((D, 2.5), {}, "hidden_size: expected an integer of at least 1, got 2.5"),
    "no layer": ((D, H, 0), {}, "num_layers: expected an integer of at least 1, got 0"),
    "a backend": (
        (D, H),
        {"backend": "cuda"},
        "backend: expected one of auto, loop, fused, compile, triton, cudnn, got 'cuda'",
    ),
    "dropout of all": ((D, H, 2), {"dropout": 1.0}, "dropout: expected a rate in [0, 1), got 1.0"),
    "dropout of less than nothing": ((D, H, 2), {"dropout": -0.1}, "dropout: expected a rate in [0, 1), got -0.1"),
}


@pytest.mark.parametrize("what", BUILDS)
def test_modules_that_cannot_be(what):
    sizes, options, message = BUILDS[what]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LSTM(*sizes, **options)


def zeros(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


READ = "; batch_first={}: x is read as {}"
CALLS = {
    "batch_first seen through the state": (
        {},
        (zeros(N, T, D), (zeros(2, N, H),) * 2),
        "h_0: expected (L, N, H) = (2, 9, 5), N = 9 from x, got (2, 4, 5)" + READ.format(False, "(T, N, D)"),
    ),
    "the other way round": (
        {"batch_first": True},
        (zeros(T, N, D), (zeros(2, N, H),) * 2),
        "h_0: expected (L, N, H) = (2, 9, 5), N = 9 from x, got (2, 4, 5)" + READ.format(True, "(N, T, D)"),
    ),
    "batch_first seen through lengths": (
        {},
        (zeros(N, T, D), None, [1] * N),
        "lengths: axis N should be 9 (N = 9 from x), got shape (4,)" + READ.format(False, "(T, N, D)"),
    ),
    "a state with the batch first": (
        {"batch_first": True},
        (zeros(N, T, D), (zeros(N, 2, H),) * 2),
        "h_0: expected (L, N, H) = (2, 4, 5), N = 4 from x, got (4, 2, 5)" + READ.format(True, "(N, T, D)"),
    ),
    "a state for one stream": (
        {},
        (zeros(T, D), (zeros(2, 1, H),) * 2),
        "h_0: expected (L, N, H) = (2, 1, 5), N = 1 from x, got (2, 1, 1, 5)" + READ.format(False, "(T, D)"),
    ),
    "lengths too long": ({}, (zeros(T, N, D), None, [1, 2, 3, 10]), "lengths: expected integers in [0, 9], got [1, 2, 3, 10]"),
    "lengths negative": ({}, (zeros(T, N, D), None, [1, 2, 3, -1]), "lengths: expected integers in [0, 9], got [1, 2, 3, -1]"),
    "lengths of fractions": (
        {},
        (zeros(T, N, D), None, zeros(N) + 0.5),
        "lengths: expected integers in [0, 9], got [0.5, 0.5, 0.5, 0.5]",
    ),
    "lengths beside a packed sequence": (
        {},
        (pack_padded_sequence(zeros(T, N, D), torch.tensor([9, 9, 9, 9])), None, [1, 2, 3, 4]),
        "lengths: a PackedSequence holds its own; leave lengths out",
    ),
    "an array": ({}, (np.zeros((T, N, D), "f"),), "x: expected a tensor, got ndarray; torch.as_tensor makes one of an array"),
    "integers": (
        {},
        (zeros(T, N, D, dtype=torch.int64),),
        "x is torch.int64 and the weights torch.float32: convert one with .to(dtype), or use autocast",
    ),
    "another dtype": (
        {},
        (zeros(T, N, D, dtype=torch.float64),),
        "x is torch.float64 and the weights torch.float32: convert one with .to(dtype), or use autocast",
    ),
    "a state of another dtype": (
        {},
        (zeros(T, N, D), (zeros(2, N, H, dtype=torch.bfloat16),) * 2),
        "h_0 is torch.bfloat16 and x torch.float32: convert one with .to(dtype), or use autocast",
    ),
    "another device": (
        {},
        (zeros(T, N, D, device="meta"),),
        "x is on meta and the weights on cpu: move one of them, with .to(device)",
    ),
    "a state on another device": (
        {},
        (zeros(T, N, D), (zeros(2, N, H), zeros(2, N, H, device="meta"))),
        "c_0 is on meta and x on cpu: move one of them, with .to(device)",
    ),
    "one tensor for two": ({}, (zeros(T, N, D), zeros(2, N, H)), "state: expected the pair (h_0, c_0), got Tensor"),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls_that_cannot_be(what):
    options, arguments, message = CALLS[what]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        good(**options)(*arguments)


@pytest.mark.parametrize(("shape", "form"), [((T, N, D + 1), "(T, N, D)"), ((T, D + 1), "(T, D)"), ((N, T, D, 1), "(T, N, D)")])
def test_an_x_of_another_width_says_how_it_is_read(shape, form):
    start = (
        "x: expected 3 axes (T, N, D), got shape " if len(shape) == 4 else "x: axis D should be 3 (D = 3 from W_ih), got shape "
    )
    with pytest.raises(ShapeError, match=f"^{re.escape(start)}.*{re.escape(READ.format(False, form))}$"):
        good()(zeros(*shape))


# Weights of the NumPy side


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@every_form
def test_numpy_weights_go_both_ways(dtype, depth, both):
    p = stack_problem(np.random.default_rng(0), (T, N, D, H), LENGTHS, depth, both, dtype)
    module = from_numpy(p.layers, backend="fused", batch_first=True)
    assert (module.backend, module.batch_first, module.num_layers, module.bidirectional) == ("fused", True, depth, both)
    back = to_numpy(module)
    back = (back,) if depth == 1 and not both else back
    assert_close(back, p.layers, 0)
    assert {leaf.dtype for leaf in leaves(back)} == {np.dtype(dtype)}
    x, state = torch.tensor(p.x).transpose(0, 1), tuple(map(torch.tensor, p.state))
    output, final = module(x, state, torch.tensor(p.lengths))
    expected = by_numpy(p)[0]
    assert_close(
        (to_array(output.transpose(0, 1)), map_tree(to_array, final)), expected, 1e-10 if dtype == np.float64 else 1e-5
    )
    default, _, _ = stacked_forward(p.x, zero_state(p.layers, N), p.layers)
    assert_close(to_array(module(x)[0].transpose(0, 1)), default, 1e-10 if dtype == np.float64 else 1e-5)


def test_numpy_weights_are_copied_both_ways():
    params = random_params(np.random.default_rng(0), "lstm", D, H)
    module = from_numpy(params)
    kept = to_numpy(module)
    assert isinstance(kept, LSTMParams)
    for leaf in params:
        leaf[...] = np.nan
    assert_close(to_numpy(module), kept, 0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(leaf.any() for leaf in kept)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_numpy_weights_of_any_layout_and_of_half_precision():
    params = random_params(np.random.default_rng(0), "lstm", D, H)
    turned = LSTMParams(np.asfortranarray(params.W_ih), params.W_hh[:, ::-1], params.b[::-1])
    assert_close(to_numpy(from_numpy(turned)), turned, 0)
    half = to_numpy(from_numpy(params).bfloat16())
    assert {leaf.dtype for leaf in half} == {np.dtype(np.float32)}
    assert_close(half, params, 2**-8)


def test_what_is_no_lstm_of_numpy():
    rng = np.random.default_rng(0)
    lstm, gru = random_params(rng, "lstm", D, H), random_params(rng, "gru", D, H)
    both = Bidirectional(lstm, lstm)
    for params, found in (
        ((), "nothing"),
        (gru, "ndarray, ndarray, ndarray, ndarray"),
        ((gru,), "GRUParams"),
        ((lstm, both), "LSTMParams, Bidirectional"),
        ((Bidirectional(lstm, gru),), "Bidirectional"),
    ):
        message = f"params: expected LSTMParams for each layer, all in one direction or all Bidirectional, got {found}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            from_numpy(params)
    assert isinstance(gru, GRUParams)
    with pytest.raises(ShapeError, match=r"^layers\.1\.W_ih: expected \(20, 5\), got \(20, 3\)$"):
        from_numpy((lstm, lstm))
    with pytest.raises(ShapeError, match=r"^layers\.0\.b: expected \(20,\), got \(19,\)$"):
        from_numpy(lstm._replace(b=lstm.b[1:]))
    with pytest.raises(ShapeError, match=r"^W_ih: axis 4H should be a positive multiple of 4, got shape \(19, 3\)$"):
        from_numpy(lstm._replace(W_ih=lstm.W_ih[1:]))


# Weights of torch.nn.LSTM


@every_form
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_weights_go_both_ways(depth, both, bias, dtype):
    options = {"batch_first": both, "dropout": 0.25 * (depth > 1)}
    theirs, ours = pair(depth, both, dtype=dtype, bias=bias, **options)
    assert (ours.batch_first, ours.dropout) == (options["batch_first"], options["dropout"])
    back = to_torch_lstm(ours)
    for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "dropout"):
        assert getattr(back, name) == getattr(ours, name) == getattr(theirs, name)
    assert back.bias
    for module in (theirs, ours, back):
        module.eval()
    x, state = torch.randn(T, T, D, dtype=dtype), random_state(depth, both, T, dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    same(ours(x, state), theirs(x, state), tolerance)
    same(back(x, state), theirs(x, state), tolerance)
    assert_close(to_numpy(from_torch_lstm(back)), to_numpy(ours), 0)
    for (W_ih, W_hh, *biases), (w_ih, w_hh, b_ih, b_hh) in zip(theirs.all_weights, back.all_weights, strict=True):
        assert torch.equal(W_ih, w_ih)
        assert torch.equal(W_hh, w_hh)
        assert torch.equal(b_ih, sum(biases, torch.zeros_like(b_ih)))
        assert not b_hh.any()


def test_torch_weights_are_copies_with_the_mode_of_the_module():
    theirs, ours = pair(1, False)
    assert ours.training
    assert not from_torch_lstm(theirs.eval()).training
    assert not to_torch_lstm(ours.eval()).training
    places = {p.data_ptr() for module in (theirs, ours, to_torch_lstm(ours)) for p in module.parameters()}
    assert len(places) == 4 + 3 + 4
    assert from_torch_lstm(theirs, batch_first=True, backend="loop").backend == "loop"
    assert all(p.requires_grad and p.is_leaf for module in (ours, to_torch_lstm(ours)) for p in module.parameters())


def test_projections_are_refused():
    with pytest.raises(ValueError, match=r"^module: expected torch.nn.LSTM without projections, got proj_size=2$"):
        from_torch_lstm(nn.LSTM(D, H, proj_size=2))


def test_weights_on_another_device_stay_there():
    ours = from_torch_lstm(nn.LSTM(D, H, 2, device="meta"))
    assert {parameter.device.type for parameter in ours.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in to_torch_lstm(ours).parameters()} == {"meta"}


# Weights of Keras


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on PyTorch, its settings in a temporary folder."""
    before = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "KERAS_HOME")}
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    try:
        with warnings.catch_warnings(action="ignore"):
            keras = pytest.importorskip("keras")
        assert keras.backend.backend() == "torch"
        yield keras
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def keras_model(keras, layers, seed=0):
    """A built model of these layers with random weights, biases included."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((None, D)), *layers])
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.weights])
    return model


# Keras 3.15 asks tensors for their arrays in a way that NumPy 2 remarks on.
in_keras = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def predictions(model, x):
    return model.predict(x, verbose=0)


def keras_layers(keras, both, bias=True, depth=2, **options):
    lstms = [keras.layers.LSTM(H, return_sequences=True, use_bias=bias, **options) for _ in range(depth)]
    return [keras.layers.Bidirectional(lstm) for lstm in lstms] if both else lstms


@in_keras
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_keras_weights_give_the_same_predictions(keras, both, bias):
    layers = keras_layers(keras, both, bias)
    model = keras_model(keras, layers)
    ours = from_keras(*layers, batch_first=True)
    x = np.random.default_rng(1).normal(size=(N, T, D)).astype("f")
    with torch.no_grad():
        output, _ = ours(torch.tensor(x))
    assert_close(to_array(output), predictions(model, x), 1e-5)
    if not bias:
        return
    twin = keras_model(keras, others := keras_layers(keras, both), seed=7)
    assert np.abs(predictions(twin, x) - predictions(model, x)).max() > 0.1
    to_keras(ours, *others)
    assert_close(predictions(twin, x), predictions(model, x), 1e-6)
    assert_close(to_numpy(from_keras(*others)), to_numpy(ours), 0)


@in_keras
def test_keras_masks_are_lengths(keras):
    layers = keras_layers(keras, True)
    model = keras_model(keras, [keras.layers.Masking(), *layers])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, T, D)).astype("f")
    x[np.arange(T) >= np.array(LENGTHS)[:, None]] = 0
    with torch.no_grad():
        output, _ = from_keras(*layers, batch_first=True)(torch.tensor(x), lengths=LENGTHS)
    real = (np.arange(T) < np.array(LENGTHS)[:, None])[..., None]
    assert_close(to_array(output), predictions(model, x) * real, 1e-5)


@in_keras
def test_the_last_output_of_keras_is_our_final_state(keras):
    model = keras_model(keras, [keras.layers.LSTM(H, return_sequences=True, dropout=0.5), last := keras.layers.LSTM(H)])
    ours = from_keras(*model.layers, batch_first=True)
    x = np.random.default_rng(1).normal(size=(N, T, D)).astype("f")
    with torch.no_grad():
        _, (h, _) = ours(torch.tensor(x))
    assert model.layers[-1] is last
    assert_close(to_array(h[-1]), predictions(model, x), 1e-5)


def test_our_weights_go_to_keras_without_a_warning(keras):
    """Outside of the filter: from_keras and to_keras keep Keras' remark to themselves."""
    for both in (False, True):
        with warnings.catch_warnings(action="ignore"):
            layers = keras_layers(keras, both)
            keras_model(keras, layers)
        ours = from_numpy(random_stack(np.random.default_rng(0), "lstm", D, H, 2, both)).float()
        to_keras(ours, *layers)
        assert_close(to_numpy(from_keras(*layers)), to_numpy(ours), 0)
        to_keras(ours.bfloat16(), *layers)
        assert_close(to_numpy(from_keras(*layers)), to_numpy(ours), 0)


@in_keras
def test_what_is_no_lstm_of_keras(keras):
    K = keras.layers
    expected = r"layers: expected keras.layers.LSTM with tanh and sigmoid, got "

    def built(layer):
        keras_model(keras, [layer])
        return layer

    lstm = built(K.LSTM(H, return_sequences=True))
    ours = from_keras(lstm)
    wrong = {
        expected + "LSTM with relu and sigmoid": built(K.LSTM(H, activation="relu")),
        expected + "LSTM with tanh and hard_sigmoid": built(K.LSTM(H, recurrent_activation="hard_sigmoid")),
        expected + "GRU with tanh and sigmoid": built(K.GRU(H)),
        expected + "Dense with linear and none": built(K.Dense(H)),
        expected + "GRU with tanh and sigmoid ": built(K.Bidirectional(K.GRU(H))),
        r"layers: lstm\w* has go_backwards=True; only Bidirectional may read backwards": built(K.LSTM(H, go_backwards=True)),
        r"layers: expected Bidirectional with merge_mode='concat', got 'sum'": built(
            K.Bidirectional(K.LSTM(H), merge_mode="sum")
        ),
        r"layers: lstm\w* has no weights yet; call it or its model once, or .build\(shape\)": K.LSTM(H),
    }
    for message, layer in wrong.items():
        for call in (lambda layer=layer: from_keras(layer), lambda layer=layer: to_keras(ours, layer)):
            with pytest.raises(ValueError, match=f"^{message.strip()}$"):
                call()
    for both, layer, counts in ((False, built(K.Bidirectional(K.LSTM(H))), (1, 2)), (True, lstm, (2, 1))):
        message = "layers: expected {} direction\\(s\\) in each, as in the module, got {}".format(*counts)
        with pytest.raises(ValueError, match=f"^{message}$"):
            to_keras(LSTM(D, H, bidirectional=both), layer)
    with pytest.raises(ValueError, match=r"^layers: expected 1, one for each layer of the module, got 2$"):
        to_keras(ours, lstm, lstm)
    with pytest.raises(ValueError, match="not compatible with provided weight shape"):
        to_keras(LSTM(D, H + 1), lstm)
    with pytest.raises(ValueError, match=r"^params: expected LSTMParams for each layer.* got nothing$"):
        from_keras()


# On a GPU, against cuDNN


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.filterwarnings("ignore:RNN module weights")  # torch.nn.LSTM does not lay out bfloat16 as cuDNN wants it
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
@every_form
def test_on_a_gpu_it_is_cudnn(backend, depth, both, dtype):
    theirs, ours = (module.to("cuda", dtype) for module in pair(depth, both, backend))
    x, state = torch.randn(T, N, D).to("cuda", dtype), tuple(part.to("cuda", dtype) for part in random_state(depth, both))
    packed = pack_padded_sequence(x, torch.tensor([9, 5, 7, 1]), enforce_sorted=False)
    above = [torch.randn(T, N, H * (1 + both)), *random_state(depth, both)]
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.08}[dtype]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), warnings.catch_warnings():
        if backend == "triton":
            warnings.filterwarnings("ignore", message=".*'fused' is used instead", category=UserWarning)
        assert_close(tuple(map(to_array, (ours(x, state)[0], *ours(x, state)[1]))), arrays(theirs(x, state)), tolerance)
        same_data = ours(packed, state)[0].data - theirs(packed, state)[0].data
        assert same_data.abs().max() <= tolerance
        grads = []
        for module in (ours, theirs):
            leaf = x.detach().requires_grad_()
            output, final = module(leaf, state)
            torch.autograd.backward([output, *final], [w.to(output) for w in above])
            grads.append(to_array(leaf.grad))
    assert worst(*grads) <= (0.1 if dtype == torch.bfloat16 else tolerance)


def arrays(result):
    output, state = result
    return tuple(map(to_array, (output, *state)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_autocast_and_devices():
    ours = LSTM(D, H, 2, True).cuda()
    x = torch.randn(T, N, D)
    with torch.autocast("cuda", torch.bfloat16):
        output, (h, c) = ours(x.cuda(), lengths=torch.tensor(LENGTHS))
    assert {output.dtype, h.dtype, c.dtype} == {torch.bfloat16}
    assert worst(to_array(output), to_array(ours(x.cuda(), lengths=LENGTHS)[0])) <= HALF
    with pytest.raises(ValueError, match=r"^x is on cpu and the weights on cuda:0: move one of them, with \.to\(device\)$"):
        ours(x)
    assert_close(to_numpy(ours.cpu()), to_numpy(copy.deepcopy(ours).cuda()), 0)
