"""An LSTM layer whose loop over time runs inside a GPU kernel, written in Triton (``torch_triton`` holds the kernels).

Driven from Python, a step of the loop is some ten kernels; here a whole sequence is one kernel forward and one backward. As in
``sequence``, the products that need no state stay outside, each one large product over all T steps: x W_ihᵀ + b before the
kernel; dx, dW_ih, dW_hh, db after it. What is left for the kernel, in every step:

    operations   2 · 4H · H · N: the product of h (N, H) and W_hhᵀ (H, 4H), a multiplication and an addition each; the
                 activations, some tens a unit, are few beside it
    bytes, W_hh  4H² numbers, for each program that reads them
    bytes, N     forward reads 4H numbers a stream (x W_ihᵀ + b) and writes 6H (gates, c, h); backward reads 6H, writes 4H

A program has BLOCK_N streams, so a step does 2 · BLOCK_N operations for each number of W_hh: with 16 streams in bfloat16, 16
operations a byte. An H100 does 295 in the time of a byte from its memory (data sheet: 989 TFLOP/s, 3.35 TB/s), so it would
wait for W_hh nearly all the time. Hence W_hh should stay on the chip. One streaming multiprocessor (SM) of a Hopper GPU has
228 KiB of shared memory, 227 of them for one program, and 256 KiB of registers, for the states and the products' results:

    H             64     128    256    512     1024
    4H², 16 bits  32     128    512    2048    8192  KiB    fits up to H = 128
    4H², 32 bits  64     256    1024   4096    16384 KiB    fits up to H = 64

Where it fits, W_hh is read once a sequence ("resident"); beyond, once a step ("streamed"), from the L2 cache if it is held
there, a tile on its way while the product of the one before is taken. At H = 256 and 16 bits not even shared memory and
registers together would hold it.

The limit of this design: programs never wait for each other, so each has all H units, and only ceil(N / BLOCK_N) SMs work, 4 of
an H100's 132 for 64 streams in bfloat16. With large H each of these few pulls all of W_hh through its own access to L2 in
every step. A library can spread the units over all SMs instead, each holding its part of W_hh, at the price of a meeting of all
SMs in every step; the larger H, the better that bargain, so cuDNN wins there:
on an H200 the kernels reach 0.04 to 0.25 of its speed (docs/measurements/lstm_speed.md).

Tensor cores multiply blocks of 16 rows: in 16 bits, or in TF32, which is float32 with 10 bits after the point (some do float64
too). TF32 is used where torch's own products may use it (torch.set_float32_matmul_precision("high")). Otherwise float32 is
multiplied in full and without tensor cores, and a program has 4 streams: less to do in each step, and more SMs at work.

Reference: Diamos et al. 2016 (recurrent weights kept on chip). Sizes of an SM: NVIDIA, Hopper Tuning Guide.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.cells import LSTMParams, LSTMState
from course_lib.torch_sequence import final_state, input_gradients, input_product

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HOPPER_BYTES = 227 << 10  # shared memory that one program may have
OLDEST = (3, 5)  # the first Triton whose products take blocks of 4 rows


class Plan(NamedTuple):
    """How the kernels run; ``plan_for`` chooses."""

    variant: str  # "resident" or "streamed"
    BLOCK_N: int  # streams of a program
    BLOCK_H: int  # units of a tile of W_hh; resident: of all of it, so at least H
    precision: str  # "ieee" or "tf32", of products in float32
    num_warps: int  # groups of 32 threads in a program
    num_stages: int  # tiles on their way at a time; resident: steps


def run_triton(
    x: Tensor, initial: LSTMState, params: LSTMParams, lengths: Tensor | None = None, plan: Plan | None = None
) -> tuple[Tensor, LSTMState]:
    """Run an LSTM over a sequence, all steps in one kernel: a runner like those of ``torch_sequence``, differentiable once.

    Args:     x: (T, N, D). initial: h_0 and c_0, each (N, H). params: see LSTMParams. All of one dtype and device; autocast
              converts them. lengths: (N,) integers in [0, T], steps that are not padding. plan: plan_for's if None.
    Returns:  hs (T, N, H), the final state.
    Raises:   ValueError: what why_not says.
    """
    H = initial.h.shape[1]
    if reason := why_not(x, H):
        raise ValueError(reason)
    arrays = [x, *initial, *params]
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        arrays = [a if a is initial.c else a.to(dtype) for a in arrays]
    hs, h, c = TritonLSTM.apply(*arrays, lengths, plan or plan_for(H, arrays[0].dtype, x.device))
    return hs, LSTMState(h, c)


def why_not(x: Tensor, hidden_size: int) -> str:
    """Why run_triton cannot take x (T, N, D) and H units: one line, or "" if it can."""
    try:
        import triton
    except ImportError:
        return "Triton is not installed here (it comes with PyTorch for CUDA on Linux)"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
        return f"the kernels need Triton {OLDEST[0]}.{OLDEST[1]} or newer, this is {triton.__version__}: update PyTorch"
    if x.dtype not in DTYPES:
        return f"the kernels compute in float16, bfloat16, float32 or float64, x is {str(x.dtype).removeprefix('torch.')}"
    if 4 * hidden_size * max(hidden_size, x.shape[1]) >= 1 << 31:
        return f"the kernels count W_hh and a step's gates in 31 bits, H = {hidden_size} and N = {x.shape[1]} need more"
    if triton.knobs.runtime.interpret:
        return ""
    if x.device.type != "cuda" or torch.version.hip:
        return f"the kernels need an NVIDIA GPU, x is on {x.device} (TRITON_INTERPRET=1 runs them on any device, slowly)"
    major, minor = torch.cuda.get_device_capability(x.device)
    if major < 8:
        return f"the kernels need a GPU of compute capability 8.0 or newer, {x.device} has {major}.{minor}"
    return ""


def plan_for(hidden_size: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Plan:
    """The plan for H units: resident where W_hh fits the device's shared memory, else streamed.

    Beside W_hh, a resident program needs room where threads exchange numbers, 6 of them a unit and stream, and as much again if
    the next step's arrays are to be on their way meanwhile; ``test_torch_triton`` holds this to what the compiler takes.
    On the CPU the plan is a Hopper GPU's.
    """
    device = torch.device(device)
    available = HOPPER_BYTES
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    BLOCK_N = 4 if dtype == torch.float32 and precision == "ieee" else 16
    size, padded = dtype.itemsize, max(16, 1 << (hidden_size - 1).bit_length())
    for num_stages, numbers in ((2, 12), (1, 6)):
        if (4 * padded + numbers * BLOCK_N) * padded * size <= available:
            return Plan("resident", BLOCK_N, padded, precision, 8 if padded >= 64 else 4, num_stages)
    tile = 64 if size == 2 else 32
    return Plan("streamed", BLOCK_N, tile, precision, 8 if tile >= 64 else 4, 3)


class TritonLSTM(torch.autograd.Function):
    """sequence.lstm_forward and lstm_backward, their loops as kernels. Kept for the backward pass, a token: gates, h and c."""

    @staticmethod
    def forward(ctx, x, h_0, c_0, W_ih, W_hh, b, lengths, plan):
        T, N, H = len(x), *h_0.shape
        gates = input_product(x, LSTMParams(W_ih, W_hh, b)).contiguous()  # (T, N, 4H); the kernel replaces a by i, f, g, o
        hs, cs = gates.new_empty(T + 1, N, H), gates.new_empty(T + 1, N, H, dtype=torch.promote_types(x.dtype, torch.float32))
        hs[0], cs[0] = h_0, c_0
        W_hh, steps = W_hh.contiguous(), gates.new_full((N,), T, dtype=torch.int32)
        if lengths is not None:
            steps.copy_(lengths)
        launch("forward", plan, (gates, W_hh, hs, cs, steps), T, N, H)
        ctx.save_for_backward(x, W_ih, W_hh, gates, hs, cs, steps)
        ctx.plan = plan
        return hs[1:], final_state(hs, lengths), final_state(cs, lengths).to(hs.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dhs, dh_T, dc_T):
        x, W_ih, W_hh, gates, hs, cs, steps = ctx.saved_tensors
        (T, N, H), da = dhs.shape, torch.empty_like(gates)
        dhs = dhs.contiguous()
        dh, dc = cs.new_empty(N, H).copy_(dh_T), cs.new_empty(N, H).copy_(dc_T)  # of the final state, then of the initial one
        last = (gates[-1], W_hh, cs[-1], steps, dhs[-1], da[-1])  # the kernel walks backward from here
        launch("backward", ctx.plan, (*last, dh, dc), T, N, H)
        return *input_gradients(x, W_ih, hs, da, dh, dc, dh, dc, None), None, None


def launch(way: str, plan: Plan, arrays: tuple[Tensor, ...], T: int, N: int, H: int) -> None:
    """Start the kernel of a plan, "forward" or "backward", on arrays that lie one number beside the next."""
    from course_lib import torch_triton  # needs Triton, which not every system has

    kernel, programs = getattr(torch_triton, f"{way}_{plan.variant}"), -(-N // plan.BLOCK_N)
    sizes = {"H": H, "BLOCK_N": plan.BLOCK_N, "BLOCK_H": plan.BLOCK_H, "PRECISION": plan.precision}
    with torch.cuda.device_of(arrays[0]):
        kernel[(programs,)](*arrays, T, N, **sizes, num_warps=plan.num_warps, num_stages=plan.num_stages)
