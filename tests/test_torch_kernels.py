"""The Triton runner, interpreted on the CPU, equals NumPy's LSTM; on a GPU (marked gpu) also torch.nn.LSTM."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import Problem, assert_close, random_params, random_state
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from triton_modes import kernels

from course_lib import torch_kernels
from course_lib.cells import LSTMParams, LSTMState
from course_lib.sequence import lstm_backward, lstm_forward
from course_lib.torch_kernels import HOPPER_BYTES, Plan, plan_for, run_triton, why_not
from course_lib.trees import leaves, map_tree

T, N, D = 4, 6, 3
LENGTHS = [4, 0, 1, 3, 4, 2]  # of N streams, two of which the second program has
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5}
COARSE = {torch.bfloat16: 6 * 2**-7, torch.float16: 6 * 2**-11}  # six roundings; the interpreter cuts bfloat16's last bits off

every_variant = pytest.mark.parametrize("variant", ["resident", "streamed"])
# Less than a tile of 16, and a unit more than one and two.
every_size = pytest.mark.parametrize(
    ("H", "dtype"), [(5, torch.float64), (17, torch.float64), (33, torch.float64), (17, torch.float32)], ids=str
)
with_and_without_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
gpu = pytest.mark.gpu


@pytest.fixture
def interpreter():
    with kernels(interpreted=True):
        yield


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with kernels(interpreted=False), torch.backends.cudnn.flags(allow_tf32=False):
        yield torch.device("cuda")


def small_plan(variant, H):
    """Several programs, and, when streamed, several tiles."""
    return Plan(variant, 4, 16 if variant == "streamed" else max(16, 1 << (H - 1).bit_length()), "ieee", 4, 2)


def problem(H, lengths=None, sizes=(T, N, D), scale=1.0):
    rng, (T, N, D) = np.random.default_rng(H), sizes
    params = map_tree(lambda a: scale * a, random_params(rng, "lstm", D, H))
    lengths = None if lengths is None else np.array(lengths)
    upstream = rng.normal(size=(T, N, H)), random_state(rng, "lstm", N, H)
    return Problem(rng.normal(size=(T, N, D)), random_state(rng, "lstm", N, H), params, lengths, *upstream)


def rounded(p, dtype):
    """The same problem in numbers that the dtype has, still float64."""
    parts = map_tree(lambda a: torch.tensor(a, dtype=dtype).double().numpy(), (p.x, p.initial, p.params, p.dhs, p.dfinal))
    return Problem(*parts[:3], p.lengths, *parts[3:])


def by_numpy(p):
    """(hs, final), (dx, dinitial, dparams), float64."""
    hs, final, cache = lstm_forward(p.x, p.initial, p.params, p.lengths)
    return (hs, final), lstm_backward(p.dhs, p.dfinal, cache)


def tensors(p, dtype=torch.float64, device="cpu"):
    """x, initial and params as leaves of autograd, and lengths."""
    inputs = map_tree(lambda a: torch.tensor(a, dtype=dtype, device=device).requires_grad_(), (p.x, p.initial, p.params))
    return *inputs, None if p.lengths is None else torch.tensor(p.lengths, device=device)


def by_torch(run, p, dtype=torch.float64, device="cpu"):
    """The same as by_numpy of a runner, backwards by autograd."""
    *inputs, lengths = tensors(p, dtype, device)
    outputs = run(*inputs, lengths)
    assert {leaf.dtype for leaf in leaves(outputs)} == {dtype}
    upstream = [torch.tensor(a, dtype=dtype, device=device) for a in leaves((p.dhs, p.dfinal))]
    torch.autograd.backward(leaves(outputs), upstream)
    return arrays(outputs), arrays(tuple(map_tree(lambda t: t.grad, tuple(inputs))))


def arrays(tree):
    return map_tree(lambda t: t.detach().double().cpu().numpy(), tree)


def by_kernels(p, dtype=torch.float64, plan=None, device="cpu"):
    return by_torch(lambda *inputs: run_triton(*inputs, plan), p, dtype, device)


# Against NumPy, interpreted -----------------------------------------------------------------------------------------------


@every_variant
@every_size
@with_and_without_lengths
def test_outputs_and_gradients_equal_numpys(interpreter, variant, H, lengths, dtype):
    p = rounded(problem(H, lengths), dtype)
    assert_close(by_kernels(p, dtype, small_plan(variant, H)), by_numpy(p), BOUNDS[dtype])


@every_variant
@with_and_without_lengths
@pytest.mark.parametrize("dtype", COARSE, ids=str)
def test_16_bits_are_as_near_as_they_can_be(interpreter, variant, lengths, dtype):
    p = rounded(problem(17, lengths), dtype)
    assert_close(by_kernels(p, dtype, small_plan(variant, 17)), by_numpy(p), COARSE[dtype])


@every_variant
@pytest.mark.parametrize("sizes", [(1, 2, 1), (3, 1, 2), (2, 4, 1)], ids=str)
def test_sizes_of_one(interpreter, variant, sizes):
    p = problem(1, sizes=sizes)
    assert_close(by_kernels(p, plan=small_plan(variant, 1)), by_numpy(p))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_plan_need_not_be_given(interpreter, dtype):
    p = rounded(problem(9, [2, 0, 1] * 6, (2, 18, 3)), dtype)  # a second program of 16 streams
    assert_close(by_kernels(p, dtype), by_numpy(p), {**BOUNDS, **COARSE}[dtype])


@every_variant
def test_saturated_gates_overflow_nowhere(interpreter, variant):
    p = rounded(problem(17, LENGTHS, scale=300.0), torch.float32)  # pre-activations up to a thousand; warnings are errors
    assert_close(by_kernels(p, torch.float32, small_plan(variant, 17))[0], by_numpy(p)[0], 1e-5)


@every_variant
def test_the_cell_state_is_a_sum_in_float32(interpreter, variant):
    """f = 1, i g = 2⁻⁹: added to 1 in bfloat16, this would be lost in every step."""
    T, H = 32, 5
    b = torch.tensor([30.0, 30.0, float(np.arctanh(2.0**-9)), 30.0]).repeat_interleave(H).bfloat16()
    params = LSTMParams(torch.zeros(4 * H, 1).bfloat16(), torch.zeros(4 * H, H).bfloat16(), b)
    initial = LSTMState(torch.zeros(2, H).bfloat16(), torch.ones(2, H).bfloat16())
    _, final = run_triton(torch.zeros(T, 2, 1).bfloat16(), initial, params, plan=small_plan(variant, H))
    assert torch.all((final.c - (1 + T * 2.0**-9)).abs() <= 2.0**-7)


@every_variant
def test_arrays_need_not_be_contiguous(interpreter, variant):
    p = problem(17, LENGTHS)
    wide = map_tree(lambda a: np.repeat(a, 2, axis=-1), (p.x, p.initial, p.params))
    *inputs, _ = (map_tree(lambda a: torch.tensor(a)[..., ::2].requires_grad_(), part) for part in (*wide, ()))
    x = torch.tensor(p.x.swapaxes(0, 1).copy()).transpose(0, 1).requires_grad_()  # as batch_first gives it
    assert not any(a.is_contiguous() for a in leaves((x, *inputs)))
    outputs = run_triton(x, *inputs[1:], torch.tensor(np.repeat(LENGTHS, 2))[::2], small_plan(variant, 17))
    upstream = [torch.tensor(np.repeat(a, 2, axis=-1))[..., ::2] for a in leaves((p.dhs, p.dfinal))]
    torch.autograd.backward(leaves(outputs), upstream)
    got = arrays(outputs), arrays((x.grad, *map_tree(lambda t: t.grad, tuple(inputs[1:]))))
    assert_close(got, by_numpy(p))


@every_variant
@pytest.mark.parametrize("used", [(True, False, False), (False, True, False), (False, False, True)], ids=["hs", "h", "c"])
def test_a_loss_may_use_one_output_alone(interpreter, variant, used):
    p = problem(5, LENGTHS)
    *inputs, lengths = tensors(p)
    outputs = leaves(run_triton(*inputs, lengths, small_plan(variant, 5)))
    sum(output.sum() for output, use in zip(outputs, used, strict=True) if use).backward()  # the gradient is an expanded 1
    dhs, *dfinal = (np.full(output.shape, float(use)) for output, use in zip(outputs, used, strict=True))
    expected = by_numpy(p._replace(dhs=dhs, dfinal=LSTMState(*dfinal)))[1]
    assert_close(arrays(tuple(map_tree(lambda t: t.grad, tuple(inputs)))), expected)


@every_variant
def test_padding_is_neither_read_nor_written(interpreter, variant):
    p = problem(17, LENGTHS)
    padding = np.arange(T)[:, None] >= LENGTHS
    (hs, _), expected = by_numpy(p)
    p.x[padding], p.dhs[padding] = 1e3, np.nan
    (got_hs, _), (dx, *got) = by_kernels(p, plan=small_plan(variant, 17))
    assert not got_hs[padding].any() and not dx[padding].any()
    assert_close((got_hs, dx, *got), (hs, *expected))


@every_variant
def test_every_address_is_inside_an_array(interpreter, monkeypatch, variant):
    """Outside it a load is a fault on a GPU, even of numbers that nobody uses."""
    from triton.runtime.interpreter import InterpreterBuilder

    inside, launch = [], torch_kernels.launch

    def noting_arrays(way, plan, arrays, *sizes):
        inside[:] = [(a.untyped_storage().data_ptr(), a.untyped_storage().nbytes()) for a in arrays]
        launch(way, plan, arrays, *sizes)

    def guarded(access, mask_of):
        def guard(self, pointers, *rest):
            used = pointers.data[np.broadcast_to(mask_of(rest).data, pointers.data.shape)].astype(np.int64)
            assert np.any([(start <= used) & (used < start + size) for start, size in inside], axis=0).all()
            return access(self, pointers, *rest)

        return guard

    loads, stores = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    monkeypatch.setattr(torch_kernels, "launch", noting_arrays)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", guarded(loads, lambda rest: rest[0]))
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", guarded(stores, lambda rest: rest[1]))
    p = problem(17, LENGTHS)
    assert_close(by_kernels(p, plan=small_plan(variant, 17)), by_numpy(p))


@every_variant
def test_a_second_backward_pass_gives_the_same(interpreter, variant):
    p = problem(5, LENGTHS)
    *inputs, lengths = tensors(p)
    hs, final = run_triton(*inputs, lengths, small_plan(variant, 5))
    loss = (hs**2).sum() + (final.c**2).sum() + final.h.sum()
    first, second = (torch.autograd.grad(loss, leaves(tuple(inputs)), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_have_no_gradient(interpreter):
    *inputs, _ = tensors(problem(5))
    hs, _ = run_triton(*inputs)
    grad = torch.autograd.grad((hs**2).sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_inputs_that_want_no_gradient_get_none(interpreter):
    p = problem(5)
    *inputs, _ = tensors(p)
    inputs = map_tree(torch.Tensor.detach, tuple(inputs))
    inputs[2].W_hh.requires_grad_()
    outputs = run_triton(*inputs)
    torch.autograd.backward(leaves(outputs), [torch.tensor(a) for a in leaves((p.dhs, p.dfinal))])
    assert_close(inputs[2].W_hh.grad.numpy(), by_numpy(p)[1][2].W_hh)
    assert inputs[0].grad is None
    with torch.no_grad():
        assert_close(arrays(run_triton(*inputs)), by_numpy(p)[0])


def test_autocast_converts_what_it_is_given(interpreter):
    p = rounded(problem(5, LENGTHS), torch.bfloat16)
    *inputs, lengths = tensors(p, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run_triton(*inputs, lengths)
    assert {output.dtype for output in leaves(outputs)} == {torch.bfloat16}
    torch.autograd.backward(leaves(outputs), [torch.tensor(a).bfloat16() for a in leaves((p.dhs, p.dfinal))])
    grads = tuple(map_tree(lambda t: t.grad, tuple(inputs)))
    assert {grad.dtype for grad in leaves(grads)} == {torch.float32}
    assert_close((arrays(outputs), arrays(grads)), by_numpy(p), COARSE[torch.bfloat16])


# Whether and how --------------------------------------------------------------------------------------------------------


def test_why_not_is_empty_where_it_works(interpreter):
    assert why_not(torch.zeros(T, N, D), 1024) == ""


def test_why_not_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert why_not(torch.zeros(T, N, D), 4) == "Triton is not installed here (it comes with PyTorch for CUDA on Linux)"
    with pytest.raises(ValueError, match=r"^Triton is not installed here"):
        run_triton(*tensors(problem(5)))


def test_why_not_on_the_cpu(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    message = "the kernels need an NVIDIA GPU, x is on cpu (TRITON_INTERPRET=1 runs them on any device, slowly)"
    assert why_not(torch.zeros(T, N, D), 4) == message


def test_why_not_by_dtype_size_and_version(interpreter, monkeypatch):
    message = "the kernels compute in float16, bfloat16, float32 or float64, x is complex64"
    assert why_not(torch.zeros(T, N, D, dtype=torch.complex64), 4) == message
    message = "the kernels count W_hh and a step's gates in 31 bits, H = 23171 and N = 6 need more"
    assert why_not(torch.zeros(T, N, D), 23171) == message
    assert why_not(torch.zeros(T, N, D), 23170) == ""
    assert "H = 2 and N = 268435456" in why_not(torch.empty(1, 1 << 28, 1, device="meta"), 2)
    monkeypatch.setattr("triton.__version__", "3.4.1")
    assert why_not(torch.zeros(T, N, D), 4) == "the kernels need Triton 3.5 or newer, this is 3.4.1: update PyTorch"


@pytest.mark.parametrize(("capability", "said"), [((7, 5), True), ((8, 0), False), ((12, 0), False)])
def test_why_not_by_capability(monkeypatch, capability, said):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    x = SimpleNamespace(dtype=torch.float32, shape=(T, N, D), device=torch.device("cuda:0"))
    message = "the kernels need a GPU of compute capability 8.0 or newer, cuda:0 has 7.5"
    assert why_not(x, 4) == (message if said else "")


@pytest.mark.parametrize(
    ("H", "dtype", "plan"),
    [
        (128, torch.bfloat16, Plan("resident", 16, 128, "ieee", 8, 2)),
        (129, torch.float16, Plan("streamed", 16, 64, "ieee", 8, 3)),
        (64, torch.float32, Plan("resident", 4, 64, "ieee", 8, 2)),
        (65, torch.float32, Plan("streamed", 4, 32, "ieee", 4, 3)),
        (17, torch.float64, Plan("resident", 16, 32, "ieee", 4, 2)),
        (1, torch.bfloat16, Plan("resident", 16, 16, "ieee", 4, 2)),
    ],
    ids=str,
)
def test_plans_for_hopper(H, dtype, plan):
    assert plan_for(H, dtype) == plan


def test_plans_for_less_shared_memory(monkeypatch):
    """An A100's 163 KiB have no room for the next step's arrays; an RTX 4090's 99 KiB are enough for half as many units."""
    for kibibytes, H, variant, stages in [(163, 128, "resident", 1), (99, 128, "streamed", 3), (99, 64, "resident", 2)]:
        device = SimpleNamespace(shared_memory_per_block_optin=kibibytes << 10)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, device=device: device)
        plan = plan_for(H, torch.bfloat16, "cuda:0")
        assert (plan.variant, plan.num_stages) == (variant, stages)


def test_tf32_only_where_torch_may_use_it():
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert plan_for(64, torch.float32)[1:4] == (16, 64, "tf32")
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_the_table_of_the_module():
    """The sizes of W_hh in its docstring, and up to which H a Hopper GPU keeps them."""
    rows = [line.split() for line in torch_kernels.__doc__.splitlines() if "H   " in line or " bits" in line]
    sizes = [int(entry) for entry in rows[0][1:]]
    for bits, row in zip((16, 32), rows[1:3], strict=True):
        assert row[1:3] == [str(bits), "bits"] and [int(n) for n in row[3:8]] == [4 * H * H * bits // 8 >> 10 for H in sizes]
        fits = [H for H in sizes if plan_for(H, {16: torch.bfloat16, 32: torch.float32}[bits]).variant == "resident"]
        assert max(fits) == int(row[-1])
    assert HOPPER_BYTES == 227 * 1024


def test_the_module_can_be_imported_without_triton():
    code = """
import sys, torch
sys.modules["triton"] = None
from course_lib.torch_kernels import why_not
print(why_not(torch.zeros(1, 1, 1), 1))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("Triton is not installed here"), result.stderr


def test_the_reference_of_the_gpus_tests():
    """On the CPU it can be seen that they compare with the right thing."""
    for lengths in (None, [4, 1, 1, 3, 4, 2]):
        p = problem(5, lengths)
        assert_close(by_torch(with_nn_lstm, p), by_numpy(p))


# On a GPU ---------------------------------------------------------------------------------------------------------------


@gpu
@every_variant
@every_size
@with_and_without_lengths
def test_cuda_equals_numpy(cuda, variant, H, lengths, dtype):
    if plan_for(H, dtype, cuda).variant != "resident" == variant:
        pytest.skip("this device has too little shared memory")
    p = rounded(problem(H, lengths), dtype)
    assert_close(by_kernels(p, dtype, small_plan(variant, H), cuda), by_numpy(p), BOUNDS[dtype])


def with_nn_lstm(x, initial, params, lengths):
    """torch.nn.LSTM as a runner."""
    module = torch.nn.LSTM(x.shape[2], initial.h.shape[1], device="meta")
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = dict(zip(names, (*params, torch.zeros_like(params.b)), strict=True))
    packed = x if lengths is None else pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    hs, (h, c) = torch.func.functional_call(module, weights, (packed, (initial.h[None], initial.c[None])))
    hs = hs if lengths is None else pad_packed_sequence(hs, total_length=len(x))[0]
    return hs, LSTMState(h[0], c[0])


def relative_errors(got, expected):
    return [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(leaves(got), leaves(expected), strict=True)]


@gpu
@pytest.mark.filterwarnings("ignore:RNN module weights")
@with_and_without_lengths
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("H", [128, 256, 512, 1024])
def test_cuda_is_as_exact_as_cudnn(cuda, H, dtype, lengths):
    """Both against cuDNN in float64, by the norm of the difference: ours may err twice as much, and by a few roundings."""
    T, N = 256, 64
    lengths = None if lengths is None else np.random.default_rng(0).integers(1, T + 1, N)
    p = rounded(problem(H, lengths, (T, N, H), scale=1.7 * H**-0.5), dtype)
    exact = by_torch(with_nn_lstm, p, torch.float64, cuda)
    cudnn = relative_errors(by_torch(with_nn_lstm, p, dtype, cuda), exact)
    ours = relative_errors(by_kernels(p, dtype, None, cuda), exact)
    few = 8 * torch.finfo(dtype).eps
    assert all(a <= 2 * b + few for a, b in zip(ours, cudnn, strict=True)), (ours, cudnn)


@gpu
@pytest.mark.filterwarnings("ignore:RNN module weights")
@pytest.mark.parametrize("H", [64, 200])
def test_cuda_in_tf32(cuda, H):
    p = rounded(problem(H, None, (32, 20, 30), scale=1.7 * H**-0.5), torch.float32)
    plan = plan_for(H, torch.float32, cuda)
    plan = plan._replace(precision="tf32", BLOCK_N=16, num_stages=1 if plan.variant == "resident" else plan.num_stages)
    errors = relative_errors(by_kernels(p, torch.float32, plan, cuda), by_torch(with_nn_lstm, p, torch.float64, cuda))
    assert 1e-6 < max(errors) < 5e-3  # 11 bits, not 24


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("H", [128, 300, 512])
def test_cuda_gives_the_same_bits_again(cuda, H, dtype):
    """Threads that do not wait for each other would be seen here, now and then."""
    p = rounded(problem(H, None, (64, 37, 8), scale=1.7 * H**-0.5), dtype)
    first, *others = (leaves(by_kernels(p, dtype, None, cuda)) for _ in range(5))
    assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
