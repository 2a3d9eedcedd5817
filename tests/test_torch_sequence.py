"""The runners of one layer: the same numbers as by hand in NumPy, whatever is asked of them; and what each of them keeps."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from problems import assert_close, backwards, random_params, random_state
from torch_problems import by_numpy, by_torch, stack_problem, stacked_once, to_array, worst

from course_lib import torch_sequence
from course_lib.cells import LSTMParams, LSTMState, lstm_step_forward
from course_lib.torch_sequence import UNROLL, lstm_step, reverse, run_compiled, run_fused, run_loop
from course_lib.trees import leaves, map_tree

COMPILED = torch_sequence._compiled
RUNNERS = {"loop": run_loop, "fused": run_fused, "compile": run_compiled}
EXACT, SINGLE = 1e-10, 1e-5
HALF, HALF_GRADIENTS = 0.03, 0.08  # of the largest entry; over 20 seeds, 0.016 and 0.037 were the largest seen
SIZES = (2 * UNROLL + 3, 4, 3, 5)  # two parts for the compiler, and a rest
LENGTHS = (SIZES[0], 0, 7, 1)
PROBLEMS = {
    "all steps": (SIZES, None),
    "lengths": (SIZES, LENGTHS),
    "T = 1": ((1, 4, 3, 5), None),
    "T = 1, lengths": ((1, 4, 3, 5), (1, 0, 1, 0)),
    "N = 1": ((UNROLL, 1, 3, 5), None),
    "N = 1, lengths": ((UNROLL + 1, 1, 3, 5), (4,)),
    "D = H = 1": ((UNROLL - 1, 3, 1, 1), (2, 7, 6)),
    "no step at all": ((3, 2, 4, 3), (0, 0)),
}

every_runner = pytest.mark.parametrize("name", RUNNERS)
with_and_without_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all steps", "lengths"])


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Compiling takes 10 seconds a dtype: here the compiler is handed nothing, and test_parity compiles."""
    monkeypatch.setattr(torch_sequence, "_compiled", lambda: torch_sequence._several_steps)


def problem(sizes=SIZES, lengths=None, seed=0, dtype=np.float64):
    return stack_problem(np.random.default_rng(seed), sizes, lengths, dtype=dtype)


def tensors(p, grad=True):
    """(x, initial, params, lengths) of one layer in one direction."""
    inputs = map_tree(lambda a: torch.tensor(a).requires_grad_(grad), (p.x, map_tree(lambda a: a[0], p.state), p.layers[0]))
    return *inputs, None if p.lengths is None else torch.tensor(p.lengths)


def upstream(p):
    return [torch.tensor(a) for a in (p.dhs, *(part[0] for part in p.dstate))]


def gradients(outputs, weights, arguments, **options):
    """Of Σ weights ⊙ outputs, with respect to every tensor of the arguments."""
    return torch.autograd.grad(leaves(tuple(outputs)), leaves(arguments[:3]), weights, **options)


# The numbers


def test_a_step_is_the_step_of_the_numpy_side():
    rng = np.random.default_rng(0)
    x, prev, params = rng.normal(size=(4, 3)), random_state(rng, "lstm", 4, 5), random_params(rng, "lstm", 3, 5)
    state = lstm_step(*map_tree(torch.tensor, (x, prev, params)))
    assert isinstance(state, LSTMState)
    assert_close(map_tree(to_array, state), lstm_step_forward(x, prev, params)[0], 1e-14)


@every_runner
@pytest.mark.parametrize("which", PROBLEMS)
def test_double_precision_is_numpy(name, which):
    p = problem(*PROBLEMS[which])
    assert_close(by_torch(stacked_once(RUNNERS[name]), p), by_numpy(p), EXACT)


@every_runner
@pytest.mark.parametrize("which", PROBLEMS)
def test_single_precision_is_numpy(name, which):
    p = problem(*PROBLEMS[which], dtype=np.float32)
    got = by_torch(stacked_once(RUNNERS[name]), p)
    assert {leaf.dtype for leaf in leaves(got)} == {np.dtype(np.float32)}
    assert_close(got, by_numpy(p), SINGLE)


@every_runner
@with_and_without_lengths
def test_half_precision_is_near_single_precision(name, lengths):
    run = stacked_once(RUNNERS[name])
    for seed in range(5):
        p = problem(lengths=lengths, seed=seed, dtype=np.float32)
        outputs, grads = by_torch(run, p, torch.bfloat16)
        expected, expected_grads = by_torch(run, p)
        assert worst(outputs, expected) <= HALF
        assert worst(grads, expected_grads) <= HALF_GRADIENTS


@every_runner
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_holds_the_cell_state_in_single(name, dtype):
    """256 + 1/2 is 256 in bfloat16: a cell state kept in it would not grow."""
    T, H = 40, 2
    params = LSTMParams(torch.zeros(4 * H, 1), torch.zeros(4 * H, H), torch.tensor([0.0, 20, 20, 0]).repeat_interleave(H))
    state = LSTMState(torch.zeros(1, H), torch.full((1, H), 4096.0))
    with torch.no_grad():
        hs, (h, c) = RUNNERS[name](*map_tree(lambda t: t.to(dtype), (torch.zeros(T, 1, 1), state, params)))
    assert {hs.dtype, h.dtype, c.dtype} == {dtype}
    assert (c == torch.tensor(4096.0 + T / 2).to(dtype)).all()


@every_runner
def test_half_precision_gradients_have_the_dtype_of_what_they_belong_to(name):
    arguments = map_tree(lambda t: t.detach().bfloat16().requires_grad_(), tensors(problem())[:3])
    hs, final = RUNNERS[name](*arguments)
    grads = torch.autograd.grad(hs.sum() + final.h.sum() + final.c.sum(), leaves(arguments))
    assert {grad.dtype for grad in grads} == {torch.bfloat16}


@with_and_without_lengths
def test_the_fused_gradients_are_the_derivative(lengths):
    x, initial, params, ends = tensors(problem((4, 3, 2, 3), None if lengths is None else (4, 0, 2)))

    def function(x, h, c, *params):
        hs, final = run_fused(x, LSTMState(h, c), LSTMParams(*params), ends)
        return hs, *final

    assert torch.autograd.gradcheck(function, (x, *initial, *params), eps=1e-6, atol=1e-8, rtol=1e-6)


@every_runner
def test_padding_is_neither_read_nor_written(name):
    p = problem(lengths=LENGTHS)
    padded = np.arange(len(p.x))[:, None] >= p.lengths
    results = []
    for filler in (0.0, -1e30):
        p.x[padded], p.dhs[padded] = filler, filler
        (hs, final), (dx, *grads) = by_torch(stacked_once(RUNNERS[name]), p)
        assert not hs[padded].any() and not dx[padded].any()
        results.append((hs, final, dx, *grads))
    assert_close(*results, 0)
    empty = p.lengths == 0
    assert_close(map_tree(lambda a: a[:, empty], (final, grads[0])), map_tree(lambda a: a[:, empty], (p.state, p.dstate)), 0)


# What a caller may do


@every_runner
@with_and_without_lengths
def test_a_second_call_leaves_the_first_as_it_was(name, lengths):
    first, second = problem(lengths=lengths), problem(lengths=lengths, seed=1)
    expected = by_numpy(first), by_numpy(second)
    arguments = [tensors(first), tensors(second)]
    params = arguments[0][2]
    arguments[1] = (*arguments[1][:2], params, arguments[1][3])  # the same weights, as in training
    second = second._replace(layers=first.layers)
    expected = expected[0], by_numpy(second)
    outputs = [RUNNERS[name](*a) for a in arguments]
    for k in (1, 0):
        p = (first, second)[k]
        grads = gradients(outputs[k], upstream(p), arguments[k])
        (_, (dx, dstate, (dparams,))) = expected[k]
        assert_close(tuple(map(to_array, grads)), (dx, *(part[0] for part in dstate), *dparams), EXACT)


@every_runner
@with_and_without_lengths
def test_a_second_backward_gives_the_same(name, lengths):
    p = problem(lengths=lengths)
    arguments = tensors(p)
    outputs = RUNNERS[name](*arguments)
    first = [grad.clone() for grad in gradients(outputs, upstream(p), arguments, retain_graph=True)]
    second = gradients(outputs, upstream(p), arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        gradients(outputs, upstream(p), arguments)


@every_runner
@with_and_without_lengths
def test_the_caller_s_tensors_stay(name, lengths):
    p = problem(lengths=lengths)
    arguments, above = tensors(p), upstream(p)
    outputs = RUNNERS[name](*arguments)
    gradients(outputs, above, arguments)
    for got, kept in zip(leaves(arguments[:3]) + above, leaves(tensors(p)[:3]) + upstream(p), strict=True):
        assert torch.equal(got, kept)
    places = [t.untyped_storage().data_ptr() for t in leaves((*arguments[:3], outputs[1]))]
    assert len(set(places)) == len(places)


@every_runner
@with_and_without_lengths
@pytest.mark.parametrize("used", ["hs", "h", "c"])
def test_a_loss_may_use_one_output(name, used, lengths):
    p = problem(lengths=lengths)
    zero = map_tree(np.zeros_like, (p.dhs, p.dstate))
    ones = {"hs": (np.ones_like(p.dhs), zero[1]), "h": (zero[0], zero[1]._replace(h=np.ones_like(p.dstate.h)))}
    dhs, dstate = ones.get(used) or (zero[0], zero[1]._replace(c=np.ones_like(p.dstate.c)))
    (_, (dx, dinitial, (dparams,))) = by_numpy(p._replace(dhs=dhs, dstate=dstate))
    arguments = tensors(p)
    hs, final = RUNNERS[name](*arguments)
    {"hs": hs, "h": final.h, "c": final.c}[used].sum().backward()  # the gradient of a sum is one number, expanded
    got = tuple(torch.zeros_like(t) if t.grad is None else t.grad for t in leaves(arguments[:3]))
    assert_close(tuple(map(to_array, got)), (dx, *(part[0] for part in dinitial), *dparams), EXACT)


@every_runner
@with_and_without_lengths
def test_one_gradient_at_a_time_is_the_one_of_all(name, lengths):
    p = problem(lengths=lengths)
    arguments = tensors(p)
    all_of_them = gradients(RUNNERS[name](*arguments), upstream(p), arguments)
    for place, expected in enumerate(all_of_them):
        arguments = tensors(p, grad=False)
        one = leaves(arguments[:3])[place].requires_grad_()
        hs, final = RUNNERS[name](*arguments)
        outputs, weights = zip(
            *[(o, w) for o, w in zip((hs, *final), upstream(p), strict=True) if o.requires_grad], strict=True
        )
        (grad,) = torch.autograd.grad(outputs, one, weights)
        assert_close(to_array(grad), to_array(expected), 1e-14)


@every_runner
@with_and_without_lengths
def test_strided_and_expanded_arguments(name, lengths):
    p = problem(lengths=lengths)
    p.x[1:], p.state.h[0, 1:], p.layers[0].b[1:] = p.x[0], p.state.h[0, 0], p.layers[0].b[0]
    (hs, final), (dx, dinitial, (dparams,)) = by_numpy(p)
    T, N, _ = p.x.shape
    x, h, b = (torch.tensor(a).requires_grad_() for a in (p.x[:1], p.state.h[0, :1], p.layers[0].b[:1]))
    c, W_ih, W_hh = (turned(a) for a in (p.state.c[0], p.layers[0].W_ih, p.layers[0].W_hh))
    params = LSTMParams(W_ih, W_hh, b.expand(len(p.layers[0].b)))
    ends = None if lengths is None else torch.tensor(lengths)
    got_hs, got = RUNNERS[name](x.expand(T, -1, -1), LSTMState(h.expand(N, -1), c), params, ends)
    assert_close((to_array(got_hs), map_tree(to_array, got)), (hs, map_tree(lambda a: a[0], final)), EXACT)
    dhs, dh, dc = upstream(p)
    above = dhs.transpose(0, 2).contiguous().transpose(0, 2), turned(to_array(dh)).detach(), dc
    grads = torch.autograd.grad((got_hs, *got), (x, h, b, c, W_ih, W_hh), above)
    sums = dx.sum(0, keepdims=True), dinitial.h[0].sum(0, keepdims=True), dparams.b.sum(keepdims=True)
    assert_close(tuple(map(to_array, grads)), (*sums, dinitial.c[0], dparams.W_ih, dparams.W_hh), EXACT)


def turned(array):
    """A tensor whose axes lie the other way round in memory."""
    return torch.tensor(np.ascontiguousarray(array.T)).T.requires_grad_()


@every_runner
@with_and_without_lengths
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_recorded(name, mode, lengths):
    p = problem(lengths=lengths)
    with mode():
        hs, final = RUNNERS[name](*tensors(p))
    assert not any(t.requires_grad for t in (hs, *final))
    assert_close((to_array(hs), map_tree(lambda t: to_array(t)[None], final)), by_numpy(p)[0], EXACT)


@every_runner
def test_outputs_changed_in_place_never_give_wrong_gradients(name):
    p = problem()
    expected = None
    for in_place in (False, True):
        for which in range(3):
            arguments = tensors(p)
            hs, final = RUNNERS[name](*arguments)
            outputs = [hs, *final]
            try:
                outputs[which] = outputs[which].mul_(2) if in_place else outputs[which] * 2
                grads = torch.autograd.grad(outputs, leaves(arguments[:3]), upstream(p))
            except RuntimeError as error:
                assert in_place and "inplace" in str(error)
                continue
            if in_place:
                assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(grads, expected[which], strict=True))
            else:
                expected = (expected or []) + [grads]


def test_a_gradient_of_the_fused_gradient_is_refused():
    arguments = tensors(problem())
    hs, _ = run_fused(*arguments)
    grads = torch.autograd.grad((hs * hs).sum(), leaves(arguments[:3]), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grads[0].sum().backward()


# What is kept for the backward pass


def kept(run, p):
    """Numbers in memory for the backward pass and in the outputs, a token and hidden unit."""
    sizes = {}
    arguments = tensors(p)
    own = {t.untyped_storage().data_ptr() for t in leaves(arguments[:3])}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes() // 8
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hs, _ = run(*arguments)
    pack(hs)
    T, N, H = hs.shape
    return sum(sizes.values()) / (T * N * H)


def test_fused_keeps_six_numbers_a_token_and_unit_and_the_loop_eight():
    p = problem((100, 4, 3, 16))
    assert kept(run_fused, p) == pytest.approx(6, abs=0.1)
    assert kept(run_loop, p) == pytest.approx(8, abs=0.1)


def test_memory_is_freed_with_the_outputs():
    gc.disable()
    try:
        arguments = tensors(problem())
        hs, final = run_fused(*arguments)
        watched = weakref.ref(hs.grad_fn.saved_tensors[3])
        assert watched() is not None
        del hs, final
        assert watched() is None
    finally:
        gc.enable()


# torch.compile where it does not work


def test_a_compiler_that_fails_gives_one_warning_and_the_fused_numbers(monkeypatch):
    monkeypatch.setattr(torch_sequence, "_not_compiling", [])
    arguments = tensors(problem(lengths=LENGTHS))
    expected, _ = run_fused(*arguments)

    def broken(*_):
        raise torch._dynamo.exc.BackendCompilerFailed(compile_this, RuntimeError("no compiler\nand how to get one"), None)

    def compile_this():
        pass

    monkeypatch.setattr(torch_sequence, "_compiled", lambda: broken)
    with pytest.warns(
        UserWarning, match=r"^torch.compile does not work here \(RuntimeError: no compiler\); 'fused' is used instead$"
    ) as seen:
        hs, _ = run_compiled(*arguments)
    assert torch.equal(hs, expected)
    assert [warning.filename for warning in seen] == [__file__]
    hs, _ = run_compiled(*arguments)  # no second warning: it would be an error here
    assert torch.equal(hs, expected)
    assert "FusedLSTM" in type(hs.grad_fn).__name__


def test_a_python_without_torch_compile_gives_one_warning(monkeypatch):
    monkeypatch.setattr(torch_sequence, "_not_compiling", [])

    def unsupported(_):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", unsupported)
    monkeypatch.setattr(torch_sequence, "_compiled", COMPILED.__wrapped__)
    arguments = tensors(problem())
    with pytest.warns(
        UserWarning, match=r"^torch.compile does not work here \(CannotCompile: torch.compile is not supported on Python 3.99"
    ):
        hs, _ = run_compiled(*arguments)
    assert torch.equal(hs, run_fused(*arguments)[0])


def test_other_errors_are_not_the_compiler_s(monkeypatch):
    monkeypatch.setattr(torch_sequence, "_not_compiling", [])

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch_sequence, "_compiled", lambda: full)
    with pytest.raises(torch.OutOfMemoryError):
        run_compiled(*tensors(problem()))
    assert torch_sequence._not_compiling == []


def test_a_machine_without_a_compiler(tmp_path):
    code = """
import warnings
import torch
from course_lib.cells import LSTMParams, LSTMState
from course_lib.torch_sequence import run_compiled, run_fused

x, h, c, W_ih, W_hh, b = (torch.randn(s).requires_grad_() for s in [(9, 4, 3), (4, 5), (4, 5), (20, 3), (20, 5), (20,)])
arguments = x, LSTMState(h, c), LSTMParams(W_ih, W_hh, b)
for _ in range(2):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hs, final = run_compiled(*arguments)
    print(*(warning.message for warning in seen), sep="\\n")
    print(torch.equal(hs, run_fused(*arguments)[0]))
"""
    environment = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    warning, first, nothing, second = result.stdout.splitlines()
    assert warning.startswith("torch.compile does not work here (") and "No working C++ compiler" in warning
    assert (first, nothing, second) == ("True", "", "True")


# Small parts


@with_and_without_lengths
def test_reversed_are_each_stream_s_real_steps(lengths):
    p = problem(lengths=lengths)
    got = to_array(reverse(torch.tensor(p.x), None if lengths is None else torch.tensor(lengths)))
    real = np.arange(len(p.x))[:, None] < (np.inf if lengths is None else p.lengths)
    assert_close(got, np.where(real[..., None], backwards(p.x, lengths), p.x), 0)


# On a GPU, against the CPU in double precision and against cuDNN


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_runner
@with_and_without_lengths
def test_on_a_gpu(name, lengths, monkeypatch):
    monkeypatch.setattr(torch_sequence, "_compiled", COMPILED)
    assert not torch.backends.cuda.matmul.allow_tf32  # torch's default: products in full single precision
    p = problem(lengths=lengths)
    run = stacked_once(RUNNERS[name])
    assert_close(by_torch(run, p, torch.float64, "cuda"), by_numpy(p), EXACT)
    assert_close(by_torch(run, p, torch.float32, "cuda"), by_numpy(p), SINGLE)
    (outputs, grads), expected = by_torch(run, p, torch.bfloat16, "cuda"), by_numpy(p)
    assert worst(outputs, expected[0]) <= HALF
    assert worst(grads, expected[1]) <= HALF_GRADIENTS
