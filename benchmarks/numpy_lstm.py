"""Our NumPy LSTM against torch.nn.LSTM: forward + backward, float32, same threads, side by side.

Run: python benchmarks/numpy_lstm.py. Correctness first, then a table of ratios (torch time / NumPy time: above 1 we are
faster), the operations of each size, and the share of a large matrix product's speed that the whole reaches. Where
OPENBLAS_CORETYPE narrows NumPy's BLAS, the table is measured a second time with the kernels OpenBLAS itself chooses.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import numpy as np
import torch

from course_lib.cells import LSTMParams, LSTMState
from course_lib.sequence import lstm_backward, lstm_forward

SIZES = [(100, 32, 64, 128), (100, 32, 128, 256), (64, 64, 256, 512), (35, 20, 650, 650)]


def milliseconds(function: Callable[[], object], budget: float) -> list[float]:
    """Time one call after another for ``budget`` seconds, and at least three times."""
    times: list[float] = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def problem(T: int, N: int, D: int, H: int) -> tuple[Callable[[], tuple], Callable[[], tuple]]:
    """The same random problem for both; each function returns hs and the gradients of x, W_ih, W_hh, b."""
    torch.manual_seed(0)
    module = torch.nn.LSTM(D, H)
    x, dhs = torch.randn(T, N, D, requires_grad=True), torch.randn(T, N, H)
    h, c = torch.randn(1, N, H, requires_grad=True), torch.randn(1, N, H, requires_grad=True)
    arrays = [p.detach().numpy() for p in module.parameters()]
    params = LSTMParams(arrays[0], arrays[1], arrays[2] + arrays[3])
    initial, zero = LSTMState(h.detach().numpy()[0], c.detach().numpy()[0]), np.zeros((N, H), np.float32)
    x_np, dhs_np = x.detach().numpy(), dhs.numpy()

    def with_torch() -> tuple:
        for tensor in (x, h, c, *module.parameters()):
            tensor.grad = None
        hs, _ = module(x, (h, c))
        hs.backward(dhs)
        grads = (x.grad, module.weight_ih_l0.grad, module.weight_hh_l0.grad, module.bias_ih_l0.grad)
        return (hs.detach(), *grads)

    def with_numpy() -> tuple:
        hs, _, cache = lstm_forward(x_np, initial, params)
        dx, _, dparams = lstm_backward(dhs_np, LSTMState(zero, zero), cache)
        return hs, dx, *dparams

    return with_torch, with_numpy


def product_speed() -> float:
    """GFLOP/s of one large float32 product, the ceiling of everything here."""
    a = np.random.default_rng(0).standard_normal((1536, 1536), dtype=np.float32)
    return 2 * 1536**3 / min(milliseconds(lambda: a @ a, 1.0)) / 1e6


@cache
def timed(library: int, size: tuple[int, int, int, int]) -> Callable[[], tuple]:
    """The function of one library (0 torch, 1 NumPy) for one size, made once in each worker process."""
    return problem(*size)[library]


def median_ms(library: int, size: tuple[int, int, int, int]) -> float:
    """What a worker process measures when it is asked."""
    milliseconds(timed(library, size), 0.2)  # warm up
    return statistics.median(milliseconds(timed(library, size), 0.5))


def table() -> None:
    """One row a size: medians of alternating rounds, so that a slow moment of the machine meets both.

    Each library has a process of its own: idle threads of the one do not spin while the other works, and neither profits or
    suffers from how the other has left the memory allocator.
    """
    peak = product_speed()
    print(f"BLAS kernels: {os.environ.get('OPENBLAS_CORETYPE', 'chosen by OpenBLAS')}; matrix product {peak:.0f} GFLOP/s")
    print(f"{'(T, N, D, H)':>20} {'torch ms':>9} {'NumPy ms':>9} {'ratio':>6} {'GFLOP':>6} {'GFLOP/s':>8} {'of product':>10}")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as for_torch, ProcessPoolExecutor(1, mp_context=spawn) as for_numpy:
        for size in SIZES:
            with_torch, with_numpy = problem(*size)
            for ours, theirs in zip(with_numpy(), with_torch(), strict=True):
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
            time.sleep(1)  # this process's own threads stop spinning
            rounds = [
                [pool.submit(median_ms, library, size).result() for library, pool in enumerate((for_torch, for_numpy))]
                for _ in range(7)
            ]
            ms_torch, ms_numpy = (statistics.median(column) for column in zip(*rounds, strict=True))
            T, N, D, H = size
            flop = 3 * 2 * T * N * 4 * H * (D + H) / 1e9  # forward one product for each weight, backward two
            speed = flop / ms_numpy * 1e3
            times = f"{ms_torch:9.2f} {ms_numpy:9.2f} {ms_torch / ms_numpy:6.2f}"
            print(f"{size!s:>20} {times} {flop:6.2f} {speed:8.0f} {speed / peak:10.0%}", flush=True)


if __name__ == "__main__":
    threads = torch.get_num_threads()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__} on {threads} threads,")
    print(f"NumPy {np.__version__}, Python {platform.python_version()}")
    table()
    if "OPENBLAS_CORETYPE" in os.environ:
        without = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__], env=without, check=True)
