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
from importlib import metadata

import numpy as np

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


def arrays(T: int, N: int, D: int, H: int) -> dict[str, np.ndarray]:
    """The same random problem for both libraries, float32."""
    rng = np.random.default_rng(0)
    shapes = {"x": (T, N, D), "h": (N, H), "c": (N, H), "dhs": (T, N, H), "W_ih": (4 * H, D), "W_hh": (4 * H, H), "b": (4 * H,)}
    scale = {"W_ih": H**-0.5, "W_hh": H**-0.5, "b": 0.1}
    return {k: scale.get(k, 1) * rng.standard_normal(shape, dtype=np.float32) for k, shape in shapes.items()}


@cache
def with_torch(size: tuple[int, int, int, int]) -> Callable[[], tuple]:
    """Forward and backward of torch.nn.LSTM; returns hs and the gradients of x, W_ih, W_hh, b."""
    import torch

    a = {k: torch.from_numpy(value) for k, value in arrays(*size).items()}
    module = torch.nn.LSTM(size[2], size[3])
    with torch.no_grad():
        for weight, value in zip(module.parameters(), (a["W_ih"], a["W_hh"], a["b"], 0 * a["b"]), strict=True):
            weight.copy_(value)
    inputs = [a["x"], a["h"][None], a["c"][None]]
    for tensor in inputs:
        tensor.requires_grad_()

    def run() -> tuple:
        for tensor in (*inputs, *module.parameters()):
            tensor.grad = None
        hs, _ = module(inputs[0], tuple(inputs[1:]))
        hs.backward(a["dhs"])
        return (hs.detach(), inputs[0].grad, *(p.grad for p in list(module.parameters())[:3]))

    return run


@cache
def with_numpy(size: tuple[int, int, int, int]) -> Callable[[], tuple]:
    """Forward and backward of ours; returns the same quantities."""
    from course_lib.cells import LSTMParams, LSTMState
    from course_lib.sequence import lstm_backward, lstm_forward

    a = arrays(*size)
    params, initial = LSTMParams(a["W_ih"], a["W_hh"], a["b"]), LSTMState(a["h"], a["c"])
    zero = LSTMState(np.zeros_like(a["h"]), np.zeros_like(a["c"]))

    def run() -> tuple:
        hs, _, cache = lstm_forward(a["x"], initial, params)
        dx, _, dparams = lstm_backward(a["dhs"], zero, cache)
        return hs, dx, *dparams

    return run


def product_speed() -> float:
    """GFLOP/s of one large float32 product, the ceiling of everything here."""
    a = np.random.default_rng(0).standard_normal((1536, 1536), dtype=np.float32)
    return 2 * 1536**3 / min(milliseconds(lambda: a @ a, 1.0)) / 1e6


def median_ms(library: Callable, size: tuple[int, int, int, int]) -> float:
    """What a worker process measures when it is asked."""
    run = library(size)
    milliseconds(run, 0.2)  # warm up
    return statistics.median(milliseconds(run, 0.5))


def results(library: Callable, size: tuple[int, int, int, int]) -> list[np.ndarray]:
    """What a worker process computes, for the comparison."""
    return [np.asarray(result) for result in library(size)()]


def table() -> None:
    """One row a size: medians of alternating rounds, so that a slow moment of the machine meets both.

    Each library has a process of its own: idle threads of the one do not spin while the other works, and neither profits or
    suffers from how the other has left the memory allocator.
    """
    peak = product_speed()
    print(f"one large matrix product: {peak:.0f} GFLOP/s")
    print(f"{'(T, N, D, H)':>20} {'torch ms':>9} {'NumPy ms':>9} {'ratio':>6} {'GFLOP':>6} {'GFLOP/s':>8} {'of product':>10}")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as for_torch, ProcessPoolExecutor(1, mp_context=spawn) as for_numpy:
        for size in SIZES:
            workers = ((with_torch, for_torch), (with_numpy, for_numpy))
            theirs, ours = (pool.submit(results, library, size).result() for library, pool in workers)
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))
            rounds = [[pool.submit(median_ms, library, size).result() for library, pool in workers] for _ in range(7)]
            ms_torch, ms_numpy = (statistics.median(column) for column in zip(*rounds, strict=True))
            T, N, D, H = size
            flop = 3 * 2 * T * N * 4 * H * (D + H) / 1e9  # forward one product for each weight, backward two
            speed = flop / ms_numpy * 1e3
            times = f"{ms_torch:9.2f} {ms_numpy:9.2f} {ms_torch / ms_numpy:6.2f}"
            print(f"{size!s:>20} {times} {flop:6.2f} {speed:8.0f} {speed / peak:10.0%}", flush=True)


def parts() -> None:
    """What bounds ours: each matrix product by itself, against the whole; and BLAS's two orientations."""
    from course_lib.unroll import input_gradients, input_product, recurrent_gradient

    print("milliseconds of the products alone (input, recurrent forward and backward, input gradients, recurrent gradient),")
    print("then the whole; MB of weights read a step; GFLOP/s of W (4H, H) h (H, N), as the loop does, and of h (N, H) Wᵀ")
    for size in SIZES:
        a, (T, N, _, H) = arrays(*size), size
        hs, hT = np.concatenate([a["h"][None], a["dhs"]]), np.ascontiguousarray(a["h"].T)
        da, W_hh, W_hh_T = np.ones((4 * H, T, N), np.float32), a["W_hh"], np.ascontiguousarray(a["W_hh"].T)
        da_t = da[:, 0].copy()
        products = [
            lambda a=a: input_product(a["x"], a["W_ih"], np.dtype(np.float32)),
            lambda T=T, W=W_hh, h=hT: [W @ h for _ in range(T)],
            lambda T=T, W=W_hh_T, d=da_t: [W @ d for _ in range(T)],
            lambda a=a, da=da: input_gradients(da, a["x"], a["W_ih"]),
            lambda da=da, hs=hs: recurrent_gradient(da, hs),
        ]
        times = [statistics.median(milliseconds(product, 0.3)) for product in products]
        rows = statistics.median(milliseconds(lambda T=T, W=W_hh, h=a["h"]: [h @ W.T for _ in range(T)], 0.3))
        gflop = 2 * T * N * 4 * H * H / 1e6
        each = " ".join(f"{ms:6.2f}" for ms in times)
        whole = f"sum {sum(times):6.2f} of {median_ms(with_numpy, size):6.2f}, {W_hh.nbytes / 1e6:5.2f} MB"
        print(f"{size!s:>20} {each} {whole}, {gflop / times[1]:4.0f} against {gflop / rows:4.0f}", flush=True)


def run(*tables: Callable[[], None]) -> None:
    """Name the machine and print the tables, twice where the environment narrows NumPy's BLAS: as set, and without that."""
    versions = f"torch {metadata.version('torch')}, NumPy {np.__version__}, Python {platform.python_version()}"
    kernels = os.environ.get("OPENBLAS_CORETYPE", "chosen by OpenBLAS")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {versions}; BLAS kernels: {kernels}")
    for table in tables:
        table()
    if "OPENBLAS_CORETYPE" in os.environ:
        without = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        sys.stdout.flush()
        subprocess.run([sys.executable, sys.argv[0]], env=without, check=True)


if __name__ == "__main__":
    run(table, parts)
