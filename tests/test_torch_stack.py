"""Stacks on every backend: the numbers of the NumPy side, dropout, what "auto" stands for, and every refusal."""

import re
import threading

import numpy as np
import pytest
import torch
from problems import assert_close, slow_stack
from torch import nn
from torch_problems import by_numpy, by_torch, flat, stack_problem, to_array, tree, worst

from course_lib import torch_sequence, torch_stack
from course_lib.cells import LSTMState
from course_lib.shapes import ShapeError
from course_lib.torch_stack import BACKENDS, RUNNERS, check_call, fastest, run_stack
from course_lib.trees import leaves, map_tree

HERE = [name for name in BACKENDS if name != "triton"]  # test_torch_kernels has the other
EXACT, SINGLE = 1e-10, 1e-5
# bfloat16 against float32: outputs, of the largest entry; gradients, of the length of all together. Over 40 seeds the largest
# seen were 0.041 and 0.068, the middle ones 0.005 to 0.009.
HALF, HALF_GRADIENTS = 0.08, 0.1
SIZES = (11, 4, 3, 5)
LENGTHS = (11, 0, 7, 1)

every_backend = pytest.mark.parametrize("backend", HERE)
with_and_without_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all steps", "lengths"])
every_stack = pytest.mark.parametrize(
    ("depth", "both"), [(1, False), (2, False), (3, False), (1, True), (2, True)], ids=lambda v: str(v)
)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch_sequence, "_compiled", lambda: torch_sequence._several_steps)


def problem(depth=2, both=False, lengths=None, sizes=SIZES, seed=0, dtype=np.float64):
    return stack_problem(np.random.default_rng(seed), sizes, lengths, depth, both, dtype)


def on(backend, dropout=0.0):
    return lambda x, state, layers, lengths: run_stack(x, state, layers, lengths, backend, dropout)


def tensors(p):
    return *map_tree(torch.tensor, (p.x, p.state, p.layers)), None if p.lengths is None else torch.tensor(p.lengths)


# The numbers


@every_backend
@every_stack
@with_and_without_lengths
def test_a_stack_is_numpy_s(backend, depth, both, lengths):
    p = problem(depth, both, lengths)
    assert_close(by_torch(on(backend), p), by_numpy(p), EXACT)


@every_backend
@every_stack
@with_and_without_lengths
def test_single_precision_too(backend, depth, both, lengths):
    p = problem(depth, both, lengths, dtype=np.float32)
    got = by_torch(on(backend), p)
    assert {leaf.dtype for leaf in leaves(got)} == {np.dtype(np.float32)}
    assert_close(got, by_numpy(p), SINGLE)


@every_backend
@pytest.mark.parametrize(("sizes", "lengths"), [((1, 1, 1, 1), None), ((1, 3, 2, 4), (0, 1, 1)), ((4, 2, 1, 3), (0, 0))])
def test_smallest_sizes(backend, sizes, lengths):
    p = problem(2, True, lengths, sizes)
    assert_close(by_torch(on(backend), p), by_numpy(p), EXACT)


def length_of(tree):
    return sum(float(np.sum(leaf.astype(np.float64) ** 2)) for leaf in leaves(tree)) ** 0.5


@every_backend
@pytest.mark.parametrize(("depth", "both"), [(1, False), (2, True)])
@with_and_without_lengths
def test_half_precision_is_near_single_precision(backend, depth, both, lengths):
    for seed in range(4):
        p = problem(depth, both, lengths, seed=seed, dtype=np.float32)
        outputs, grads = by_torch(on(backend), p, torch.bfloat16)
        expected, expected_grads = by_numpy(p)
        assert worst(outputs, expected) <= HALF
        assert length_of(map_tree(np.subtract, grads, expected_grads)) <= HALF_GRADIENTS * length_of(expected_grads)


@every_backend
def test_padding_is_neither_read_nor_written(backend):
    p = problem(2, True, LENGTHS)
    padded = np.arange(len(p.x))[:, None] >= p.lengths
    results = []
    for filler in (0.0, -1e30):
        p.x[padded], p.dhs[padded] = filler, filler
        (hs, final), (dx, *grads) = by_torch(on(backend), p)
        assert not hs[padded].any()
        assert not dx[padded].any()
        results.append((hs, final, dx, *grads))
    assert_close(*results, 0)


@every_backend
def test_a_second_call_leaves_the_first_as_it_was(backend):
    """nn.LSTM's module is kept and lent to the next call, the weights are not."""
    problems = [problem(2, True, seed=seed) for seed in (0, 1)]
    inputs = [map_tree(lambda a: torch.tensor(a).requires_grad_(), (p.x, p.state, p.layers)) for p in problems]
    outputs = [run_stack(*arguments, None, backend) for arguments in inputs]
    for p, arguments, (hs, state) in zip(problems, inputs, outputs, strict=True):
        torch.autograd.backward([hs, *state], above(p))
        assert_close(map_tree(lambda t: to_array(t.grad), arguments), by_numpy(p)[1], EXACT)


def above(p):
    return [torch.tensor(a) for a in leaves((p.dhs, p.dstate))]


# Dropout


@every_backend
def test_dropout_acts_between_layers_only(backend):
    one = tensors(problem(1))
    assert torch.equal(run_stack(*one, backend, 0.5)[0], run_stack(*one, backend)[0])
    p = problem(2)
    x, state, layers, _ = tensors(p)
    torch.manual_seed(0)
    hs, final = run_stack(x, state, layers, None, backend, 0.5)
    _, plain = run_stack(x, state, layers, None, backend)
    assert torch.equal(final.h[0], plain.h[0])
    assert torch.equal(final.c[0], plain.c[0])
    assert (final.h[1] != plain.h[1]).all()
    assert torch.equal(hs[-1], final.h[1])  # nothing is dropped after the last layer


@every_backend
def test_dropout_is_seeded(backend):
    arguments = tensors(problem(3, True))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(run_stack(*arguments, backend, 0.3)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("backend", ["loop", "fused", "compile"])
@with_and_without_lengths
def test_dropout_is_that_of_the_inputs_of_later_layers(backend, lengths, monkeypatch):
    """With the masks written down, the NumPy side gives the same numbers; each is 0 or 1 / (1 - rate)."""
    masks = []

    def dropout(x, rate):
        mask = (torch.rand(x.shape) >= rate).to(x.dtype) / (1 - rate)
        masks.append(mask.numpy())
        return x * mask

    monkeypatch.setattr(torch_stack.nn.functional, "dropout", dropout)
    p = problem(3, True, lengths)
    hs, final = run_stack(*tensors(p), backend, 0.25)
    assert [mask.shape[2] for mask in masks] == [10, 10]
    expected, finals = slow_stack("lstm", p.x, tree(p.state, p.layers), p.layers, p.lengths, (None, *masks))
    assert_close((to_array(hs), map_tree(to_array, final)), (expected, flat(finals)), EXACT)


@every_backend
def test_dropout_keeps_the_mean(backend):
    """A second layer near 0, where it is linear in its input: the mean over many masks is the value without dropout."""
    T, N, H = 1, 4000, 3
    p = problem(2, sizes=(T, N, 2, H))
    p.x[:], p.state.h[:], p.state.c[:] = p.x[:, :1], 0, 0
    p.layers[1].W_ih[:] *= 1e-3
    arguments = tensors(p)
    torch.manual_seed(0)
    dropped = to_array(run_stack(*arguments, backend, 0.4)[0])[0]
    plain = to_array(run_stack(*arguments, backend)[0])[0, 0]
    error = (dropped.mean(0) - plain) / (dropped.std(0) / N**0.5)
    assert (np.abs(error) < 5).all()
    assert (dropped.std(0) > 0).all()


@every_backend
def test_gradients_pass_where_inputs_did(backend):
    """Along a random direction through every array, with the same masks at both ends."""
    p = problem(2, True, LENGTHS)
    run = on(backend, 0.4)

    def seeded(*arguments):
        torch.manual_seed(3)
        return run(*arguments)

    _, grads = by_torch(seeded, p)
    rng = np.random.default_rng(1)
    direction = map_tree(lambda a: rng.normal(size=a.shape), (p.x, p.state, p.layers))
    ends = []
    for eps in (1e-5, -1e-5):
        x, state, layers = map_tree(lambda a, d, eps=eps: a + eps * d, (p.x, p.state, p.layers), direction)
        hs, final = seeded(*tensors(p._replace(x=x, state=state, layers=layers)))
        ends.append(sum(float((w * o).sum()) for w, o in zip(above(p), (hs, *final), strict=True)))
    slope = sum(float(np.vdot(g, d)) for g, d in zip(leaves(grads), leaves(direction), strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


# Which backend


def test_the_backends():
    assert BACKENDS == ("auto", "loop", "fused", "compile", "triton", "cudnn")


def test_auto_takes_nn_lstm_and_fused_for_padding_on_a_cpu():
    x, lengths = torch.zeros(2, 3, 4), torch.tensor([1, 2, 0])
    assert fastest(x, None) == "cudnn"
    assert fastest(x, lengths) == "fused"
    assert fastest(x.to("meta"), lengths) == "cudnn"  # any other device
    with torch.no_grad():
        assert fastest(x, lengths) == "cudnn"


@pytest.mark.parametrize(("lengths", "called"), [(None, "cudnn"), (LENGTHS, "fused")])
def test_auto_runs_what_it_chose(lengths, called, monkeypatch):
    calls = []
    monkeypatch.setattr(torch_stack, "_delegate", lambda *_: calls.append("cudnn"))
    monkeypatch.setitem(RUNNERS, "fused", lambda *a: calls.append("fused") or torch_sequence.run_fused(*a))
    run_stack(*tensors(problem(1, lengths=lengths)))
    assert calls == [called]


@pytest.mark.parametrize("name", ["loop", "fused", "compile"])
def test_a_named_backend_runs_itself(name, monkeypatch):
    calls = []
    runner = RUNNERS[name]
    monkeypatch.setitem(RUNNERS, name, lambda *a: calls.append(name) or runner(*a))
    run_stack(*tensors(problem(2, True)), name)
    assert calls == [name] * 4
    assert RUNNERS["loop"] is not RUNNERS["fused"] is not RUNNERS["compile"]


def test_triton_where_it_does_not_run_gives_one_warning_and_the_fused_numbers(monkeypatch):
    asked = []
    monkeypatch.setattr(torch_stack, "why_not", lambda x, H: asked.append((x, H)) or "no kernel for this")
    arguments = tensors(problem(2, True, LENGTHS))
    with pytest.warns(UserWarning, match=r"^no kernel for this; 'fused' is used instead$") as seen:
        hs, state = run_stack(*arguments, "triton")
    assert len(seen) == 1
    expected, expected_state = run_stack(*arguments, "fused")
    assert all(torch.equal(a, b) for a, b in zip((hs, *state), (expected, *expected_state), strict=True))
    ((x, H),) = asked
    assert x is arguments[0]
    assert H == SIZES[3]


def test_triton_where_it_runs(monkeypatch):
    calls = []
    monkeypatch.setattr(torch_stack, "why_not", lambda x, H: None)
    monkeypatch.setitem(RUNNERS, "triton", lambda *a: calls.append(len(a)) or torch_sequence.run_loop(*a))
    run_stack(*tensors(problem(2, True)), "triton")
    assert calls == [4] * 4


def test_threads_do_not_share_the_module_that_is_lent(monkeypatch):
    """Each thread waits inside nn.LSTM until all are there, with its own weights put in."""
    threads, problems = 4, [problem(1, seed=seed) for seed in range(4)]
    all_in, forward, results = threading.Barrier(threads), nn.LSTM.forward, {}

    def waiting(self, *args):
        all_in.wait(20)
        return forward(self, *args)

    monkeypatch.setattr(nn.LSTM, "forward", waiting)

    def work(k):
        results[k] = to_array(run_stack(*tensors(problems[k]), "cudnn")[0])

    workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k, p in enumerate(problems):
        assert_close(results[k], by_numpy(p)[0][0], EXACT)


def test_the_module_that_is_lent_has_no_memory_and_is_made_once():
    p = problem(2, True)
    run_stack(*tensors(p), "cudnn")
    made = torch_stack._skeleton.cache_info().misses
    run_stack(*tensors(problem(2, True, seed=1)), "cudnn")
    assert torch_stack._skeleton.cache_info().misses == made
    module = torch_stack._skeleton(threading.get_ident(), SIZES[2], SIZES[3], 2, True, 0.0)
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


# Refusals


def call(**changes):
    """check_call of a good call with some arguments changed."""
    p = problem(2, True)
    x, state, layers, _ = tensors(p)
    arguments = {"x": x, "state": state, "layers": layers, "lengths": list(LENGTHS)} | changes
    return check_call(arguments["x"], arguments["state"], arguments["layers"], arguments["lengths"])


def test_lengths_come_back_as_int64():
    for lengths in (list(LENGTHS), LENGTHS, np.array(LENGTHS), torch.tensor(LENGTHS, dtype=torch.int32)):
        got = call(lengths=lengths)
        assert got.dtype == torch.int64
        assert got.tolist() == list(LENGTHS)
    assert call(lengths=None) is None
    assert call(state=None).tolist() == list(LENGTHS)


T, N, D, H = SIZES
ROWS = (4, N, H)
WRONG = {
    "x without N": ({"x": torch.zeros(T, D)}, ShapeError, "x: expected 3 axes (T, N, D), got shape "),
    "x of another width": ({"x": torch.zeros(T, N, D + 1)}, ShapeError, "x: axis D should be 3 (D = 3 from W_ih), got shape "),
    "x without steps": ({"x": torch.zeros(0, N, D)}, ShapeError, "x: axis T should be at least 1, got shape "),
    "x of integers": (
        {"x": torch.zeros(T, N, D, dtype=torch.int64)},
        ValueError,
        "x is torch.int64 and the weights torch.float64: convert one with .to(dtype), or use autocast",
    ),
    "x of another dtype": (
        {"x": torch.zeros(T, N, D)},
        ValueError,
        "x is torch.float32 and the weights torch.float64: convert one with .to(dtype), or use autocast",
    ),
    "x complex": (
        {"x": torch.zeros(T, N, D, dtype=torch.complex128)},
        ValueError,
        "x is torch.complex128 and the weights torch.float64: convert one with .to(dtype), or use autocast",
    ),
    "x elsewhere": (
        {"x": torch.zeros(T, N, D, dtype=torch.float64, device="meta")},
        ValueError,
        "x is on meta and the weights on cpu: move one of them, with .to(device)",
    ),
    "x an array": (
        {"x": np.zeros((T, N, D))},
        ValueError,
        "x: expected a tensor, got ndarray; torch.as_tensor makes one of an array",
    ),
    "the state one tensor": (
        {"state": torch.zeros(2, *ROWS)},
        ValueError,
        "state: expected the pair (h_0, c_0), got Tensor",
    ),
    "the state of three": ({"state": (1, 2, 3)}, ValueError, "state: expected the pair (h_0, c_0), got 3 of them"),
    "h_0 of None": (
        {"state": (None, None)},
        ValueError,
        "h_0: expected a tensor, got NoneType; torch.as_tensor makes one of an array",
    ),
    "h_0 of one direction": (
        {"state": (torch.zeros(2, N, H, dtype=torch.float64),) * 2},
        ShapeError,
        "h_0: expected (L, N, H) = (4, 4, 5), N = 4 from x, got (2, 4, 5)",
    ),
    "h_0 for one stream": (
        {"state": (torch.zeros(4, 1, H, dtype=torch.float64),) * 2},
        ShapeError,
        "h_0: expected (L, N, H) = (4, 4, 5), N = 4 from x, got (4, 1, 5)",
    ),
    "c_0 of another width": (
        {"state": (torch.zeros(ROWS, dtype=torch.float64), torch.zeros(4, N, H + 1, dtype=torch.float64))},
        ShapeError,
        "c_0: expected (L, N, H) = (4, 4, 5), N = 4 from x, got (4, 4, 6)",
    ),
    "c_0 of another dtype": (
        {"state": (torch.zeros(ROWS, dtype=torch.float64), torch.zeros(ROWS))},
        ValueError,
        "c_0 is torch.float32 and x torch.float64: convert one with .to(dtype), or use autocast",
    ),
    "h_0 elsewhere": (
        {"state": (torch.zeros(ROWS, dtype=torch.float64, device="meta"), torch.zeros(ROWS, dtype=torch.float64))},
        ValueError,
        "h_0 is on meta and x on cpu: move one of them, with .to(device)",
    ),
    "lengths for other streams": (
        {"lengths": [1] * (N + 1)},
        ShapeError,
        "lengths: axis N should be 4 (N = 4 from x), got shape (5,)",
    ),
    "one length": ({"lengths": 3}, ShapeError, "lengths: axis N should be 4 (N = 4 from x), got shape ()"),
    "too long": ({"lengths": [1, 12, 1, 1]}, ValueError, "lengths: expected integers in [0, 11], got [1, 12, 1, 1]"),
    "negative": ({"lengths": [1, 1, -1, 1]}, ValueError, "lengths: expected integers in [0, 11], got [1, 1, -1, 1]"),
    "fractions": ({"lengths": [1.0, 2, 3, 4]}, ValueError, "lengths: expected integers in [0, 11], got [1.0, 2.0, 3.0, 4.0]"),
    "a mask": ({"lengths": [True] * 4}, ValueError, "lengths: expected integers in [0, 11], got [True, True, True, True]"),
}


@pytest.mark.parametrize("what", WRONG)
def test_refusals(what):
    changes, kind, message = WRONG[what]
    with pytest.raises(kind, match=f"^{re.escape(message)}") as raised:
        call(**changes)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)


def test_autocast_lets_dtypes_differ_except_for_double():
    x, state, layers, _ = tensors(problem(1, dtype=np.float32))
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float16):
            check_call(x.to(dtype), state, layers, None)
        for wrong in (torch.float64, torch.int64):
            with pytest.raises(ValueError, match=f"^x is {wrong} and the weights torch.float32: convert"):
                check_call(x.to(wrong), state, layers, None)
    with pytest.raises(ValueError, match=r"^x is torch.bfloat16 and the weights torch.float32: convert"):
        check_call(x.bfloat16(), state, layers, None)


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("backend", BACKENDS)
@every_stack
@with_and_without_lengths
def test_on_a_gpu(backend, depth, both, lengths):
    if backend == "triton" and (reason := torch_stack.why_not(torch.zeros(SIZES[:3], device="cuda"), SIZES[3])):
        pytest.skip(reason)
    p = problem(depth, both, lengths)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert_close(by_torch(on(backend), p, torch.float32, "cuda"), by_numpy(p), 5e-5)
        outputs, grads = by_torch(on(backend), p, torch.bfloat16, "cuda")
    expected, expected_grads = by_numpy(p)
    assert worst(outputs, expected) <= HALF
    assert length_of(map_tree(np.subtract, grads, expected_grads)) <= HALF_GRADIENTS * length_of(expected_grads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_devices_are_not_mixed():
    x, state, layers, _ = tensors(problem(1))
    with pytest.raises(ValueError, match=r"^x is on cuda:0 and the weights on cpu: move one of them, with \.to\(device\)$"):
        check_call(x.cuda(), state, layers, None)
    with pytest.raises(ValueError, match=r"^h_0 is on cpu and x on cuda:0: move one of them, with \.to\(device\)$"):
        check_call(x.cuda(), state, map_tree(lambda t: t.cuda(), layers), None)
    on_gpu = x.cuda(), LSTMState(*(part.cuda() for part in state)), map_tree(lambda t: t.cuda(), layers)
    lengths = check_call(*on_gpu, torch.tensor(LENGTHS))  # lengths from the CPU are taken along
    assert lengths.device == on_gpu[0].device
    assert fastest(on_gpu[0], lengths) == "cudnn"
