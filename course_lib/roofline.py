"""What bounds the speed of an LSTM: its operations, its bytes, and how fast this machine does either.

An algorithm that does F operations on B bytes takes at least F / (matrix ceiling) and at least B / (memory ceiling) seconds.
Its intensity F / B tells which of the two is longer: below ridge = matrix / memory ceiling it waits for bytes, above it for
arithmetic. Drawn as attainable speed over intensity, the two bounds look like a roof, hence the name. The time loop adds a
third bound: T steps one after another, none of them shorter than what starting it costs.

The functions count one layer in one direction: T steps, N streams, D inputs, H units, s bytes a number.

Reference: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model", 2009.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RECORD = Path(__file__).parents[1] / "docs" / "measurements" / "lstm_speed.json"
DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16"}  # tf32: float32 whose products round to 10 bits of fraction


def flop_lstm(T: int, N: int, D: int, H: int, training: bool = False) -> int:
    """Operations of the matrix products: 2 · 4H (D + H) · T N forward, three times that forward and backward.

    A token's x_t (D) and h_{t-1} (H) each meet a column of numbers for each of 4H gate rows, and each meeting is one
    multiplication and one addition. Backward, each product A B has two gradients, dA = dC Bᵀ and dB = Aᵀ dC, each as large as
    itself. The rest, some 30 operations for each of the H units, is left out: 1.5 % of the whole at D = H = 128.
    """
    return 2 * 4 * H * (D + H) * T * N * (3 if training else 1)


def bytes_lstm(T: int, N: int, D: int, H: int, itemsize: int = 4, *, training: bool = False, on_chip: bool = True) -> int:
    """Bytes that must pass through main memory when the input product is taken before the loop.

    Each stage reads each of its arrays once and writes its result once; h_t and c_t, needed again at once, stay in a cache.

        stage                   numbers for each token                                  weights
        input product           x: D read; a: 4H written                                W_ih, once
        loop                    a: 4H read; h: H written                                W_hh, once or T times
          in training also      gates: 4H written; c: H written
        loop backward           gates: 4H, c: H, dL/dh: H read; da: 4H written          W_hh, once or T times
        dx = da W_ih            da: 4H read; dx: D written                              W_ih, once
        dW_ih = daᵀ x           da: 4H, x: D read                                       dW_ih written
        dW_hh = daᵀ h           da: 4H, h: H read                                       dW_hh written

    Args:     itemsize: s, 4 in float32 and 2 in bfloat16; c takes at least 4. on_chip: W_hh is read from memory once and then
              stays in registers or a cache; otherwise each step reads its 4H² numbers again.
    """
    wide, recurrent = max(itemsize, 4), 4 * H * H * itemsize * (1 if on_chip else T)
    tokens, weights = (D + 4 * H + 4 * H + H) * itemsize, 4 * H * D * itemsize + recurrent
    if training:
        gates_and_c = 4 * H * itemsize + H * wide
        products = (4 * H + D + 4 * H + D + 4 * H + H) * itemsize
        tokens += gates_and_c + gates_and_c + (H + 4 * H) * itemsize + products
        weights += recurrent + (2 * 4 * H * D + 4 * H * H) * itemsize
    return T * N * tokens + weights


def recurrent_intensity(N: int, H: int, itemsize: int = 4, on_chip: bool = False) -> float:
    """Operations for each byte of one step of the forward loop, h_{t-1} W_hhᵀ and what surrounds it.

        8 N H² / (s (4 H² + 5 N H)),  without 4 H² if W_hh is on chip

    While N is much smaller than H this is 2 N / s: each weight that is fetched meets N streams and is dropped again, so only
    a larger batch helps. With W_hh on chip it is 1.6 H / s, whatever the batch: only the activations are fetched.
    """
    return 8 * N * H * H / (itemsize * (5 * N * H + (0 if on_chip else 4 * H * H)))


class Ceilings(NamedTuple):
    """What a machine can do at most, as measured."""

    matrix: float  # operations a second of large matrix products
    memory: float  # bytes a second through main memory, read and written
    call: float  # seconds that one call of the smallest operation costs, one after another

    @property
    def ridge(self) -> float:
        """The intensity, in operations a byte, from which on arithmetic bounds the speed and no longer memory."""
        return self.matrix / self.memory

    def attainable(self, intensity: float) -> float:
        """Operations a second that work of this intensity can reach: the roof."""
        return min(self.matrix, intensity * self.memory)


def measure_ceilings(device: str = "cpu", precision: str = "fp32") -> Ceilings:
    """Measure the ceilings of this machine with PyTorch, in a second or two; each is the best of several runs.

    matrix: square products of random numbers, n doubled until one takes 10 ms. memory: z = x + 2 y over arrays larger than any
    cache, 3 numbers moved for each entry (STREAM's triad; that a CPU may first read what it overwrites is not counted). call:
    in-place additions to one number.

    Raises:   ValueError: an unknown precision.
    """
    import torch

    dtype, clock = dtype_of(precision), _clock(device)
    with products_in(precision):
        matrix = 0.0
        for n in (1024, 2048, 4096, 8192):
            a, b, c = (torch.randn(n, n, device=device).to(dtype) for _ in range(3))
            seconds = _best(clock, lambda a=a, b=b, c=c: torch.mm(a, b, out=c))
            matrix = max(matrix, 2 * n**3 / seconds)
            if seconds > 0.01:
                break
        numbers = (2**27 if torch.device(device).type == "cpu" else 2**29) // dtype.itemsize
        x, y, z = (torch.ones(numbers, device=device, dtype=dtype) for _ in range(3))
        memory = 3 * numbers * dtype.itemsize / _best(clock, lambda: torch.add(x, y, alpha=2, out=z))
        one = torch.ones(1, device=device, dtype=dtype)
        call = _best(clock, lambda: one.add_(1), repeats=300)
    return Ceilings(matrix, memory, call)


def interleaved(
    calls: dict[str, Callable[[], Any]],
    device: str = "cpu",
    rounds: int = 5,
    seconds: float = 0.5,
    *,
    warm: bool = False,
    limit: float = math.inf,
) -> dict[str, np.ndarray]:
    """Time several functions in turn, round after round, so that a slow moment of a shared machine meets all of them.

    Compare within a round: ``np.median(times["a"] / times["b"])`` moves far less than the times themselves. Short functions
    are called several times in a row, until about 5 ms are full; a GPU's own clock is used on a GPU.

    Args:     rounds: at least so many, more until ``seconds`` have passed. warm: all of them have run before; otherwise each
              is called once before the first round. limit: seconds that the rounds may take.
    Returns:  For each name the seconds of one call, an entry a round.
    Raises:   TimeoutError: the rounds would take longer than ``limit``.
    """
    clock = _clock(device)
    if not warm:
        for call in calls.values():
            call()
    first = {name: clock(call, 1) for name, call in calls.items()}
    repeats = {name: max(1, min(1000, round(5e-3 / max(took, 1e-9)))) for name, took in first.items()}
    times = [first] if all(count == 1 for count in repeats.values()) else []
    needed = sum(first[name] * repeats[name] for name in calls) * (rounds - len(times))
    if needed > limit:
        raise TimeoutError(f"{rounds} rounds need about {needed:.0f} s more, {max(limit, 0):.0f} s are left")
    end, names = time.perf_counter() + seconds, list(calls)
    while len(times) < rounds or (time.perf_counter() < end and len(times) < 100):
        names.reverse()  # none always follows the same other one
        taken = {name: clock(calls[name], repeats[name]) for name in names}
        times.append({name: taken[name] for name in calls})
    return {name: np.array([taken[name] for taken in times]) for name in calls}


def dtype_of(precision: str) -> Any:
    """The torch dtype of "fp32", "tf32" or "bf16".

    Raises:   ValueError: another name.
    """
    import torch

    if precision not in DTYPES:
        raise ValueError(f"precision: expected one of {', '.join(DTYPES)}, got {precision!r}")
    return getattr(torch, DTYPES[precision])


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Within it, float32 products on a GPU round their factors to TF32 if ``precision`` is "tf32", and not otherwise.

    By default PyTorch lets cuDNN's LSTM do so and a plain product not, which makes a comparison of the two unfair.
    """
    import torch

    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = precision == "tf32"
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def recorded(device: str = "cpu") -> dict[str, Any] | None:
    """What ``benchmarks/lstm_speed.py`` has measured on a "cpu" or on a "cuda" device, or None if nobody has yet.

    Returns:  "device", "date", "command", "threads", "versions", "complete"; "ceilings": for each precision a dict like
              Ceilings; "rows": see ``recorded_rows``; "growth": dicts with "backend", "T" and "ms", lists of equal length.
    """
    try:
        return json.loads(RECORD.read_text(encoding="utf-8")).get(device)
    except (OSError, ValueError):
        return None


def recorded_rows(device: str = "cpu", **wanted: Any) -> list[dict[str, Any]]:
    """The measured rows that fit, such as ``recorded_rows("cpu", precision="fp32", mode="training", H=256)``; [] if none do.

    A row: precision, T, N, D, H, mode ("forward" without gradients, or "training": forward + backward), backend; ms,
    us_per_step, tokens_per_s; ratio, times as fast as torch.nn.LSTM in the same round; matrix_share, memory_share and
    reread_share, parts of the two ceilings (the last as if W_hh were read at each step); memory_bytes.
    """
    rows = (recorded(device) or {}).get("rows", [])
    return [row for row in rows if row.get("ms") and all(row.get(key) == value for key, value in wanted.items())]


def _best(clock: Callable[[Callable, int], float], call: Callable[[], Any], repeats: int = 1) -> float:
    """The least seconds of a call: at least 3 runs after a warm-up, more until 0.2 s have passed."""
    clock(call, repeats)
    best, end = math.inf, time.perf_counter() + 0.2
    for run in itertools.count():
        if run >= 3 and time.perf_counter() > end:
            return best
        best = min(best, clock(call, repeats))
    return best


def _clock(device: str) -> Callable[[Callable[[], Any], int], float]:
    """A function that takes (call, repeats) and returns seconds a call, on the clock of the device."""

    def on_cpu(call: Callable[[], Any], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    def on_gpu(call: Callable[[], Any], repeats: int) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats

    return on_gpu if str(device).startswith("cuda") else on_cpu
