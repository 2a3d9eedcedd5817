"""Laws of the LSTM in PyTorch: functions of a case of ``test_laws``, which imports them (and torch) when one is tried."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from problems import assert_close, backwards, random_params, slow_stack
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_problems import Stack, by_numpy, by_torch, flat, stack_problem, stacked_once, to_array, tree, worst

from course_lib import torch_lstm, torch_sequence, torch_stack
from course_lib.cells import LSTMParams, LSTMState
from course_lib.shapes import ShapeError
from course_lib.stacked import Bidirectional, stacked_forward, zero_state
from course_lib.torch_lstm import LSTM
from course_lib.torch_stack import run_stack
from course_lib.trees import leaves, map_tree

RUNNERS = {"loop": torch_sequence.run_loop, "fused": torch_sequence.run_fused, "compile": torch_sequence.run_compiled}
EXACT = 1e-11


@contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes of modules, other ones for a while."""
    before = [getattr(owner, name) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(changes, before, strict=True):
            setattr(owner, name, value)


def uncompiled() -> Any:
    """torch.compile as the identity: compiling takes 10 seconds."""
    return replaced((torch_sequence, "_compiled", lambda: torch_sequence._several_steps))


def layer_problem(case: Any, dtype: type = np.float64) -> Stack:
    """One layer in one direction."""
    return stack_problem(case.rng, case[1:5], case.lengths, dtype=dtype)


def tensors(p: Stack) -> tuple:
    inputs = map_tree(lambda a: torch.tensor(a).requires_grad_(), (p.x, p.state, p.layers))
    return *inputs, None if p.lengths is None else torch.tensor(p.lengths)


def above(p: Stack) -> list[torch.Tensor]:
    return [torch.tensor(a) for a in leaves((p.dhs, p.dstate))]


# One layer


def runner_is_numpy(case: Any) -> None:
    p = layer_problem(case)
    with uncompiled():
        assert_close(by_torch(stacked_once(RUNNERS[case.kind]), p), by_numpy(p), EXACT)


def runner_keeps_precision(case: Any) -> None:
    """Results have the dtype of the inputs and are near to those in double precision."""
    p = layer_problem(case)
    outputs, grads = by_numpy(p)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 0.1), (torch.bfloat16, 0.3)):
        arguments = map_tree(lambda t, dtype=dtype: t.detach().to(dtype).requires_grad_(), tensors(p)[:3])
        with uncompiled():
            hs, state = stacked_once(RUNNERS[case.kind])(*arguments, None if p.lengths is None else torch.tensor(p.lengths))
        assert {leaf.dtype for leaf in (hs, *state)} == {dtype}
        torch.autograd.backward([hs, *state], [w.to(dtype) for w in above(p)])
        assert_close((to_array(hs), map_tree(to_array, state)), outputs, tolerance)
        assert_close(map_tree(lambda t: to_array(t.grad), arguments), grads, tolerance)


def runner_holds_the_cell_state_in_single_precision(case: Any) -> None:
    """256 + 1/2 is 256 in bfloat16, and 2048 + 1/2 is 2048 in float16: what every step adds would be lost."""
    T, N, H = 4 * case.T, case.N, case.H
    a = torch.tensor([0.0, 20, 20, 0]).repeat_interleave(H)  # i = 1/2, f = g = 1
    for dtype, start in ((torch.float16, 2048.0), (torch.bfloat16, 256.0)):
        params = map_tree(lambda t, d=dtype: t.to(d), LSTMParams(torch.zeros(4 * H, 1), torch.zeros(4 * H, H), a))
        state = LSTMState(torch.zeros(N, H, dtype=dtype), torch.full((N, H), start, dtype=dtype))
        lengths = None if case.lengths is None else torch.tensor([T] * N)
        with uncompiled(), torch.no_grad():
            _, final = RUNNERS[case.kind](torch.zeros(T, N, 1, dtype=dtype), state, params, lengths)
        assert (final.c == torch.tensor(start + T / 2).to(dtype)).all()


def runner_leaves_the_caller_s_tensors_alone(case: Any) -> None:
    p = layer_problem(case)
    arguments, given = tensors(p), above(p)
    places = []
    with uncompiled():
        run = stacked_once(RUNNERS[case.kind])
        hs, state = run(*arguments)
        if case.kind != "loop":  # its outputs are autograd's business
            places = [t.untyped_storage().data_ptr() for t in (hs, *state, *leaves(arguments[:3]))]
        run(*map_tree(lambda t: t.detach() + 1, arguments[:3]), arguments[3])  # a second call
    for _ in range(2):
        grads = torch.autograd.grad((hs, *state), leaves(arguments[:3]), given, retain_graph=True)
        assert_close(tuple(map(to_array, grads)), tuple(leaves(by_numpy(p)[1])), EXACT)
    kept = leaves(tensors(p)[:3]) + above(p)
    assert all(torch.equal(a, b) for a, b in zip([*leaves(arguments[:3]), *given], kept, strict=True))
    assert len(set(places)) == len(places)


def runner_takes_any_gradient(case: Any) -> None:
    """Of one output alone, and of its sum, which is one number expanded."""
    p = layer_problem(case)
    zero = Stack(p.x, p.state, p.layers, p.lengths, 0 * p.dhs, map_tree(np.zeros_like, p.dstate))
    for used in range(3):
        arguments = tensors(p)
        with uncompiled():
            hs, state = RUNNERS[case.kind](arguments[0], map_tree(lambda t: t[0], arguments[1]), arguments[2][0], arguments[3])
        (hs, *state)[used].sum().backward()
        got = map_tree(lambda t: torch.zeros_like(t) if t.grad is None else t.grad, arguments[:3])
        dhs, dh, dc = (np.full_like(a, float(k == used)) for k, a in enumerate(leaves((p.dhs, p.dstate))))
        assert_close(map_tree(to_array, got), by_numpy(zero._replace(dhs=dhs, dstate=LSTMState(dh, dc)))[1], EXACT)


def reversed_streams_are_their_real_steps_backwards(case: Any) -> None:
    x = case.rng.normal(size=(case.T, case.N, case.D))
    lengths = None if case.lengths is None else np.array(case.lengths)
    got = torch_sequence.reverse(torch.tensor(x), None if lengths is None else torch.tensor(lengths))
    real = np.arange(case.T)[:, None] < (np.inf if lengths is None else lengths)
    assert_close(to_array(got), np.where(real[..., None], backwards(x, lengths), x), 0)


class OutOfMemory(Exception):
    """Any error that is not the compiler's."""


class CompilerFailed(Exception):
    """As torch._dynamo.exc.BackendCompilerFailed, whose module takes a second to import."""

    __module__ = "torch._dynamo.exc"
    inner_exception = RuntimeError("no compiler\nnowhere")


def where_nothing_compiles_fused_runs(case: Any) -> None:
    p = layer_problem(case._replace(T=torch_sequence.UNROLL, lengths=None) if case.T < torch_sequence.UNROLL else case)
    x, state, (params,), lengths = tensors(p)
    arguments = x, map_tree(lambda t: t[0], state), params, lengths
    expected, final = torch_sequence.run_fused(*arguments)

    def broken(*_: Any) -> None:
        raise CompilerFailed

    def unsupported(_: Any) -> None:
        raise RuntimeError("no compiler")

    original = torch_sequence._compiled.__wrapped__
    for change in ((torch_sequence, "_compiled", lambda: broken), (torch, "compile", unsupported)):
        with replaced((torch_sequence, "_compiled", original), (torch_sequence, "_not_compiling", []), change):
            with pytest.warns(UserWarning, match=r"^torch.compile does not work here \(.+: no compiler\); 'fused' is used ins"):
                results = [torch_sequence.run_compiled(*arguments)]
            results.append(torch_sequence.run_compiled(*arguments))  # without a warning
        for hs, got in results:
            assert torch.equal(hs, expected)
            assert torch.equal(got.c, final.c)

    def full(*_: Any) -> None:
        raise OutOfMemory

    with replaced((torch_sequence, "_compiled", lambda: full), (torch_sequence, "_not_compiling", [])):
        with pytest.raises(OutOfMemory):
            torch_sequence.run_compiled(*arguments)
        assert torch_sequence._not_compiling == []


# Stacks


def deep_problem(case: Any) -> tuple[str, Stack]:
    """The backend, and a stack of one to three layers."""
    backend, way = case.kind.split()
    return backend, stack_problem(case.rng, case[1:5], case.lengths, 1 + case.seed % 3, way == "both")


def a_torch_stack_is_numpy_s(case: Any) -> None:
    backend, p = deep_problem(case)
    with uncompiled():
        assert_close(by_torch(lambda *arguments: run_stack(*arguments, backend), p), by_numpy(p), EXACT)
        if backend == "cudnn" and p.lengths is not None:  # every stream shorter than x
            p = p._replace(lengths=np.maximum(p.lengths - 1, 0))
            assert_close(by_torch(lambda *arguments: run_stack(*arguments, backend), p), by_numpy(p), EXACT)


def torch_dropout_is_between_layers(case: Any) -> None:
    """With the masks written down, the NumPy side gives the same; nn.LSTM, whose masks nobody sees, is held to its layers."""
    (backend, p), rate = deep_problem(case), 0.9
    masks: list[np.ndarray] = []

    def dropout(x: torch.Tensor, asked: float) -> torch.Tensor:
        assert asked == rate
        mask = (torch.rand(x.shape) >= rate).to(x.dtype) / (1 - rate)
        masks.append(mask.numpy())
        return x * mask

    arguments = map_tree(torch.tensor, (p.x, p.state, p.layers))
    lengths = None if p.lengths is None else torch.tensor(p.lengths)
    with uncompiled(), replaced((torch_stack.nn.functional, "dropout", dropout)):
        hs, final = run_stack(*arguments, lengths, backend, rate)
    if backend != "cudnn" and (backend != "auto" or lengths is not None):
        assert len(masks) == len(p.layers) - 1
        expected, finals = slow_stack("lstm", p.x, tree(p.state, p.layers), p.layers, p.lengths, (None, *masks))
        assert_close((to_array(hs), map_tree(to_array, final)), (expected, flat(finals)), EXACT)
        return
    (plain, plain_final), ways = by_numpy(p)[0], len(final.h) // len(p.layers)
    assert_close(map_tree(lambda t: to_array(t[:ways]), final), map_tree(lambda a: a[:ways], plain_final), EXACT)
    if len(p.layers) == 1:
        assert_close(to_array(hs), plain, EXACT)
    elif lengths is None and case.T * case.N * case.H >= 8:  # all kept once in 10⁸ calls
        assert np.abs(to_array(hs) - plain).max() > 1e-9


def a_backend_runs_what_it_names(case: Any) -> None:
    backend, p = deep_problem(case)
    arguments, calls = map_tree(torch.tensor, (p.x, p.state, p.layers)), []
    lengths = None if p.lengths is None else torch.tensor(p.lengths)

    def counted(name: str) -> Any:
        def runner(*arguments: Any) -> Any:
            calls.append(name)
            return torch_sequence.run_loop(*arguments)

        return runner

    counting = {name: counted(name) for name in torch_stack.RUNNERS}
    expected = {"auto": "cudnn" if lengths is None else "fused"}.get(backend, backend)
    for reason in ("", "not here"):
        del calls[:]
        changes = (
            (torch_stack, "RUNNERS", counting),
            (torch_stack, "why_not", lambda x, H, reason=reason: reason if H == case.H else "H is wrong"),
        )
        with replaced(*changes), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run_stack(*arguments, lengths, backend)
        if backend == "triton" and reason:
            assert [str(warning.message) for warning in seen] == ["not here; 'fused' is used instead"]
            assert calls == ["fused"] * len(p.state.h)
        else:
            assert not seen
            assert calls == ([expected] * len(p.state.h) if expected != "cudnn" else [])
    assert torch_stack.fastest(arguments[0].to("meta"), lengths) == "cudnn"
    with torch.no_grad():
        assert torch_stack.fastest(arguments[0], lengths) == "cudnn"
    for name, run in RUNNERS.items():
        assert torch_stack.RUNNERS[name] is run


def torch_calls_are_checked(case: Any) -> None:
    """Every refusal, and every message's start."""
    p = stack_problem(case.rng, case[1:5], case.lengths, 2, True, np.float32)
    x, state, layers = map_tree(torch.tensor, (p.x, p.state, p.layers))
    T, N, D, H = case[1:5]
    lengths = torch_stack.check_call(x, state, layers, case.lengths)
    assert (lengths is None) == (case.lengths is None)
    for good in ([T] * N, torch.zeros(N, dtype=torch.int32)):
        got = torch_stack.check_call(x, state, layers, good)
        assert got is not None
        assert got.dtype == torch.int64
        assert got.tolist() == torch.as_tensor(good).tolist()
    torch_stack.check_call(x, None, layers, None)
    (h, c), double = state, state.h.double()
    refused: list[tuple[str, type, tuple]] = [
        ("x: expected 3 axes", ShapeError, (x[0], state, layers, None)),
        (f"x: axis D should be {D} ", ShapeError, (torch.cat([x, x], 2), state, layers, None)),
        ("x: axis T should be at least 1", ShapeError, (x[:0], state, layers, None)),
        ("x is torch.int64 and the weights torch.float32", ValueError, (x.long(), state, layers, None)),
        ("x is torch.float64 and the weights torch.float32", ValueError, (x.double(), state, layers, None)),
        ("x is on meta and the weights on cpu", ValueError, (x.to("meta"), state, layers, None)),
        ("x: expected a tensor, got ndarray", ValueError, (p.x, state, layers, None)),
        ("state: expected the pair (h_0, c_0), got Tensor", ValueError, (x, h, layers, None)),
        ("state: expected the pair (h_0, c_0), got 3 of them", ValueError, (x, (h, c, c), layers, None)),
        (f"h_0: expected (L, N, H) = (4, {N}, {H})", ShapeError, (x, (h[:2], c), layers, None)),
        (f"h_0: expected (L, N, H) = (4, {N}, {H})", ShapeError, (x, (torch.cat([h, h], 1), c), layers, None)),
        (f"c_0: expected (L, N, H) = (4, {N}, {H})", ShapeError, (x, (h, torch.cat([c, c], 2)), layers, None)),
        ("h_0: expected a tensor, got NoneType", ValueError, (x, (None, c), layers, None)),
        ("h_0 is torch.float64 and x torch.float32", ValueError, (x, (double, c), layers, None)),
        ("c_0 is torch.float64 and x torch.float32", ValueError, (x, (h, double), layers, None)),
        ("c_0 is on meta and x on cpu", ValueError, (x, (h, c.to("meta")), layers, None)),
        (f"lengths: axis N should be {N} ", ShapeError, (x, state, layers, [1] * (N + 1))),
        (f"lengths: axis N should be {N} ", ShapeError, (x, state, layers, 1)),
        (f"lengths: expected integers in [0, {T}], got [{T + 1}", ValueError, (x, state, layers, [T + 1] * N)),
        ("lengths: expected", ValueError, (x, state, layers, [*[0] * (N - 1), -1])),
        ("lengths: expected", ValueError, (x, state, layers, [*[0] * (N - 1), 0.5])),
        ("lengths: expected", ValueError, (x, state, layers, [True] * N)),
    ]
    for start, kind, arguments in refused:
        with pytest.raises(kind, match=f"^{re.escape(start)}"):
            torch_stack.check_call(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        torch_stack.check_call(x.bfloat16(), state, layers, None)
        for wrong in (x.double(), x.long()):
            with pytest.raises(ValueError, match=r"^x is torch\."):
                torch_stack.check_call(wrong, state, layers, None)


# The module


def twins(case: Any, **options: Any) -> tuple[nn.LSTM, LSTM]:
    """torch.nn.LSTM with random weights, and our module with the same; some in both directions, some without bias."""
    seed = case.seed
    torch.manual_seed(seed)
    theirs = nn.LSTM(
        case.D, case.H, 1 + seed % 2, bidirectional=seed % 4 > 1, bias=seed % 3 != 1, dtype=torch.float64, **options
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.5)
    return theirs, torch_lstm.from_torch_lstm(theirs)


def near(got: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert isinstance(got, tuple)
        for a, b in zip(got, expected, strict=True):
            near(a, b)
    elif expected is not None:
        assert got.shape == expected.shape
        assert torch.allclose(got, expected, rtol=0, atol=1e-12)


def the_module_is_called_like_nn_lstm(case: Any) -> None:
    """In every form of x, with a state and without."""
    for batch_first in (False, True):
        theirs, ours = twins(case, batch_first=batch_first)
        assert ours.batch_first == batch_first
        x = torch.randn(case.T, case.N, case.D, dtype=torch.float64)
        rows = theirs.num_layers * (1 + theirs.bidirectional)
        state = tuple(torch.randn(rows, case.N, case.H, dtype=torch.float64) for _ in range(2))
        turned = x.transpose(0, 1) if batch_first else x
        near(ours(turned, state), theirs(turned, state))
        near(ours(turned), theirs(turned))
        near(ours(x[:, 0], tuple(part[:, 0] for part in state)), theirs(x[:, 0], tuple(part[:, 0] for part in state)))
        lengths = torch.tensor(np.random.default_rng(case.seed).integers(1, case.T + 1, case.N))
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        expected, final = theirs(packed, state)
        near(tuple(ours(packed, state)), (expected, final))
        padded, _ = pad_packed_sequence(expected, total_length=case.T)
        near(ours(turned, state, lengths), (padded.transpose(0, 1) if batch_first else padded, final))
        packed = pack_padded_sequence(x, lengths.sort(descending=True)[0])
        near(tuple(ours(packed, state)), theirs(packed, state))
        with pytest.raises(ValueError, match=r"^lengths: a PackedSequence holds its own"):
            ours(packed, state, lengths)


def the_module_says_how_it_reads_x(case: Any) -> None:
    for batch_first, axes, form in ((False, 3, "(T, N, D)"), (True, 3, "(N, T, D)"), (False, 2, "(T, D)"), (True, 2, "(T, D)")):
        module = LSTM(case.D, case.H, batch_first=batch_first)
        with pytest.raises(ShapeError, match=re.escape(f"; batch_first={batch_first}: x is read as {form}") + "$"):
            module(torch.zeros((2,) * (axes - 1) + (case.D + 1,)))
    with pytest.raises(ValueError, match=r"^x: expected a tensor, got ndarray"):
        module(np.zeros((1, 1, case.D)))


def modules_that_cannot_be_are_refused(case: Any) -> None:
    D, H = case.D, case.H
    for name, sizes in (("input_size", (0, H)), ("hidden_size", (D, -H)), ("num_layers", (D, H, 0)), ("hidden_size", (D, 1.0))):
        with pytest.raises(ValueError, match=f"^{name}: expected an integer of at least 1, got "):
            LSTM(*sizes)
    with pytest.raises(ValueError, match=r"^backend: expected one of auto, .*, got 'best'$"):
        LSTM(D, H, backend="best")
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"^dropout: expected a rate in \[0, 1\)"):
            LSTM(D, H, 2, dropout=rate)
    with pytest.warns(UserWarning, match=r"^dropout acts between layers; with num_layers=1 it does nothing$"):
        module = LSTM(D, H, dropout=0.5)
    x = torch.randn(case.T, case.N, D)
    near(module(x)[0], torch_lstm.from_numpy(torch_lstm.to_numpy(module))(x)[0])
    with pytest.raises(ValueError, match=r"^module: expected torch.nn.LSTM without projections"):
        torch_lstm.from_torch_lstm(nn.LSTM(D, H + 1, proj_size=H))


def a_new_module_is_as_described(case: Any) -> None:
    H, widths = 25, (40, 50)
    module = LSTM(40, H, 2, bidirectional=True)
    for k, (pair, width) in enumerate(zip(module.params(), widths, strict=True)):
        assert isinstance(pair, Bidirectional), k
        for params in pair:
            assert [tuple(leaf.shape) for leaf in params] == [(4 * H, width), (4 * H, H), (4 * H,)]
            for W in params[:2]:
                assert -0.2 <= W.min() < -0.198
                assert 0.198 < W.max() <= 0.2
            assert params.b.tolist() == [0] * H + [1] * H + [0] * 2 * H
            assert all(leaf.requires_grad for leaf in params)
    assert [id(leaf) for leaf in leaves(module.params())] == [id(leaf) for leaf in module.parameters()]
    for name in ("input_size", "hidden_size", "num_layers", "bidirectional", "backend", "batch_first", "dropout"):
        assert hasattr(module, name)
    assert f"40, {H}, num_layers=2, bidirectional=True, batch_first=False, dropout=0.0, backend='auto'" in repr(module)


def dropout_is_for_training(case: Any) -> None:
    ours = LSTM(case.D, 20, 2, dropout=0.5, backend="loop")
    x = torch.randn(case.T, 10, case.D)
    plain = torch_lstm.from_numpy(torch_lstm.to_numpy(ours), backend="loop")(x)[0]
    assert not torch.equal(ours(x)[0], plain)
    assert torch.equal(ours.eval()(x)[0], plain)


def autocast_computes_in_its_dtype(case: Any) -> None:
    for backend in ("loop", "fused"):  # nn.LSTM in bfloat16 takes a second to start
        ours = LSTM(case.D, case.H, 2, True, backend)
        x = torch.randn(case.T, case.N, case.D)
        state = tuple(torch.randn(4, case.N, case.H) for _ in range(2))
        expected = ours(x, state)
        with torch.autocast("cpu", torch.bfloat16):
            output, (h, c) = ours(x, state)
            assert torch.is_autocast_enabled("cpu")
            double = copy.deepcopy(ours).double()
            assert double(x.double())[0].dtype == torch.float64
        assert {output.dtype, h.dtype, c.dtype} == {torch.bfloat16}
        assert worst(to_array(output), to_array(expected[0])) < 0.1
        output.sum().backward()
        assert {parameter.grad.dtype for parameter in ours.parameters()} == {torch.float32}
        assert not torch.equal(expected[0], output.float())
    assert LSTM(case.D, case.H).to("meta")(x.to("meta"))[0].shape == (case.T, case.N, case.H)


def numpy_and_back(case: Any, both: bool) -> None:
    p = stack_problem(case.rng, case[1:5], case.lengths, 1 + case.seed % 3, both)
    module = torch_lstm.from_numpy(p.layers, batch_first=True)
    back = torch_lstm.to_numpy(module)
    single = len(p.layers) == 1 and not both
    assert_close((back,) if single else back, p.layers, 0)
    hs, _, _ = stacked_forward(p.x, zero_state(p.layers, case.N), p.layers, p.lengths)
    output, _ = module(torch.tensor(p.x).transpose(0, 1), None, p.lengths)
    assert_close(to_array(output.transpose(0, 1)), hs, EXACT)
    kept = map_tree(np.copy, back)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert_close(back, kept, 0)
    again = torch_lstm.from_numpy(p.layers)
    assert_close(torch_lstm.to_numpy(again), kept, 0)
    half = map_tree(lambda a: a.dtype, torch_lstm.to_numpy(again.bfloat16()))
    assert set(leaves(half)) == {np.dtype(np.float32)}


def weights_survive_numpy(case: Any) -> None:
    for both in (False, True):
        numpy_and_back(case, both)
    lstm, gru = random_params(case.rng, "lstm", 2, 3), random_params(case.rng, "gru", 2, 3)
    for wrong in ((), (gru,), (lstm, Bidirectional(lstm, lstm))):
        with pytest.raises(
            ValueError, match=r"^params: expected LSTMParams for each layer, all in one direction or all Bidirec"
        ):
            torch_lstm.from_numpy(wrong)
    with pytest.raises(ShapeError, match=r"^layers\.0\.b: expected \(12,\), got \(6,\)$"):
        torch_lstm.from_numpy(lstm._replace(b=lstm.b[:6]))


def weights_survive_nn_lstm(case: Any) -> None:
    theirs, ours = twins(case, batch_first=case.seed % 2 == 0)
    back = torch_lstm.to_torch_lstm(ours.eval())
    assert not back.training
    assert not torch_lstm.from_torch_lstm(theirs.eval()).training
    assert torch_lstm.from_torch_lstm(theirs.train()).training
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float64}
    for name in ("num_layers", "bidirectional", "batch_first", "dropout"):
        assert getattr(back, name) == getattr(theirs, name) == getattr(ours, name)
    for (W_ih, W_hh, *biases), (w_ih, w_hh, b_ih, b_hh) in zip(theirs.all_weights, back.all_weights, strict=True):
        assert torch.equal(W_ih, w_ih)
        assert torch.equal(W_hh, w_hh)
        assert torch.equal(b_ih, sum(biases, torch.zeros_like(b_ih)))
        assert not b_hh.any()
    x = torch.randn(case.T, case.N, case.D, dtype=torch.float64)
    near(ours(x), theirs(x))
    near(back(x), theirs(x))
    dropping = torch_lstm.to_torch_lstm(LSTM(case.D, case.H, 2, dropout=0.25))
    assert dropping.dropout == torch_lstm.from_torch_lstm(dropping).dropout == 0.25


class Keras(SimpleNamespace):
    """What from_keras and to_keras ask of a layer of Keras; the tests of torch_lstm take Keras itself."""

    def get_weights(self) -> list[np.ndarray]:
        warnings.warn("__array__ implementation doesn't accept a copy keyword", DeprecationWarning, stacklevel=2)
        return self.weights

    def set_weights(self, weights: list[np.ndarray]) -> None:
        assert [a.shape for a in weights] == [a.shape for a in self.weights]
        self.weights = weights


class GRULayer(Keras):
    pass


LSTMLayer = type("LSTM", (Keras,), {})
GRULayer.__name__ = "GRU"


def keras_direction(
    rng: np.random.Generator, D: int, H: int, backwards: bool = False, kind: type = LSTMLayer, **changes: Any
) -> Any:
    def tanh() -> None: ...

    def sigmoid() -> None: ...

    weights = [rng.normal(size=shape).astype("f") for shape in ((D, 4 * H), (H, 4 * H), (4 * H,))]
    options = {"activation": tanh, "recurrent_activation": sigmoid, "go_backwards": backwards, "built": True, "name": "lstm_7"}
    return kind(**options | {"weights": weights} | changes)


def keras_layer(rng: np.random.Generator, D: int, H: int, both: bool, **changes: Any) -> Any:
    if not both:
        return keras_direction(rng, D, H)
    ways = {"forward_layer": keras_direction(rng, D, H), "backward_layer": keras_direction(rng, D, H, True)}
    return SimpleNamespace(**ways | {"merge_mode": "concat", "name": "bidirectional_3"} | changes)


def weights_survive_keras(case: Any) -> None:
    rng, D, H = case.rng, case.D, case.H
    for both in (False, True):
        layers = [keras_layer(rng, width, H, both) for width in (D, H * (1 + both))]
        ours = torch_lstm.from_keras(*layers, batch_first=True)
        assert (ours.num_layers, ours.bidirectional, ours.batch_first) == (2, both, True)
        parts = [part for layer in layers for part in ((layer.forward_layer, layer.backward_layer) if both else (layer,))]
        numpy = leaves(torch_lstm.to_numpy(ours))
        for k, part in enumerate(parts):
            W, U, b = part.weights
            assert_close(tuple(numpy[3 * k : 3 * k + 3]), (W.T, U.T, b), 0)
        torch_lstm.to_keras(torch_lstm.from_numpy(map_tree(lambda a: 2 * a, torch_lstm.to_numpy(ours))), *layers)
        for k, part in enumerate(parts):
            W, U, b = part.weights
            assert_close((W.T, U.T, b), tuple(2 * a for a in numpy[3 * k : 3 * k + 3]), 0)
    bare = keras_direction(rng, D, H)
    bare.weights = bare.weights[:2]
    assert not leaves(torch_lstm.to_numpy(torch_lstm.from_keras(bare)))[2].any()

    def relu() -> None: ...

    good, one = keras_layer(rng, D, H, True), torch_lstm.from_keras(keras_layer(rng, D, H, False))
    wrong = [
        ("expected keras.layers.LSTM with tanh and sigmoid, got LSTM with relu", keras_direction(rng, D, H, activation=relu)),
        (
            "expected keras.layers.LSTM with tanh and sigmoid, got LSTM with tanh and relu",
            keras_direction(rng, D, H, recurrent_activation=relu),
        ),
        ("expected keras.layers.LSTM with tanh and sigmoid, got GRU", keras_direction(rng, D, H, kind=GRULayer)),
        ("lstm_7 has go_backwards=True", keras_direction(rng, D, H, True)),
        ("lstm_7 has go_backwards=False", keras_layer(rng, D, H, True, backward_layer=keras_direction(rng, D, H))),
        ("lstm_7 has no weights yet", keras_direction(rng, D, H, built=False, weights=[])),
        ("expected Bidirectional with merge_mode='concat', got 'sum'", keras_layer(rng, D, H, True, merge_mode="sum")),
    ]
    for start, layer in wrong:
        with pytest.raises(ValueError, match=f"^layers: {re.escape(start)}"):
            torch_lstm.from_keras(layer)
        with pytest.raises(ValueError, match=f"^layers: {re.escape(start)}"):
            torch_lstm.to_keras(one, layer)
    with pytest.raises(ValueError, match=r"^layers: expected 1 direction\(s\) in each, as in the module, got 2$"):
        torch_lstm.to_keras(one, good)
    with pytest.raises(ValueError, match=r"^layers: expected 1, one for each layer of the module, got 2$"):
        torch_lstm.to_keras(one, good, good)
