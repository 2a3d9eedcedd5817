"""Characters per second: our NumPy step against stepping torch.nn.LSTM, the same weights; and how it grows with H.

Run: python benchmarks/generation.py; with --write it also records what it printed in docs/measurements/generation_speed.md.
Correctness first: both must give the same log-probabilities. Both sample the same way, through ``decoding.stream``.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy_lstm import run

from course_lib import decoding, language_model
from course_lib.archive import write_atomically
from course_lib.trees import leaves

LAYERS, SIZES, STREAMS = (1, 2), (128, 256, 512, 1024), (1, 64)
V, E = 66, 64
ROUNDS, SECONDS = 5, 0.25
RECORD = Path(__file__).parents[1] / "docs" / "measurements" / "generation_speed.md"


def torch_step(params: language_model.LanguageModelParams) -> Callable:
    """The step that a PyTorch user writes: nn.Embedding, nn.LSTM over one time step, nn.Linear, log_softmax."""
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(params.embedding))
    H, L = params.W_out.shape[1], len(params.layers)
    lstm, linear = torch.nn.LSTM(E, H, L), torch.nn.Linear(H, V)
    weights = [getattr(lstm, f"{name}_l{k}") for k in range(L) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    values = [value for layer in params.layers for value in (*layer, np.zeros_like(layer.b))]
    with torch.no_grad():
        for weight, value in zip([*weights, linear.weight, linear.bias], [*values, params.W_out, params.b_out], strict=True):
            weight.copy_(torch.from_numpy(value))

    @torch.no_grad()
    def step(token: np.ndarray, state: tuple) -> tuple[torch.Tensor, tuple]:
        hs, state = lstm(embedding(torch.from_numpy(token))[None], state)
        return torch.log_softmax(linear(hs[0]), dim=1), state

    return step


def rate(step: Callable, state: tuple, streams: int) -> float:
    """Characters per second while sampling, of all streams together."""
    rng, steps = np.random.default_rng(0), max(10, 200 // streams)
    tokens = decoding.stream(step, state, np.ones(streams, int), lambda log_probs: decoding.draw(log_probs, rng))
    # On one thread, the time of this process alone: what else runs on the machine then counts little.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    list(islice(tokens, steps))
    written, start = 0, clock()
    while clock() < start + SECONDS:
        list(islice(tokens, steps))
        written += steps * streams
    return written / (clock() - start)


def measure(layers: int, H: int, streams: int) -> tuple[float, float, int]:
    """Characters per second of NumPy and of torch, medians of alternating rounds; and the bytes of weights a step reads."""
    params = language_model.init(V, E, H, layers, "lstm", seed=0)
    ours, theirs = language_model.make_step(params), torch_step(params)
    state, zeros = language_model.initial_state(params, streams), (torch.zeros(layers, streams, H),) * 2
    a, b = state, zeros
    for token in np.random.default_rng(1).integers(0, V, (5, streams)):
        (p, a), (q, b) = ours(token, a), theirs(token, b)
        np.testing.assert_allclose(p, q.numpy(), atol=1e-5)
    rounds = [(rate(ours, state, streams), rate(theirs, zeros, streams)) for _ in range(ROUNDS)]
    read = sum(leaf.nbytes for leaf in leaves((params.layers, params.W_out))) - params.layers[0].W_ih.nbytes  # that is a table
    return *(statistics.median(column) for column in zip(*rounds, strict=True)), read


def table() -> None:
    """One row a model and number of streams; then what a larger H costs, and what many streams bring."""
    threads = torch.get_num_threads()
    print(f"{threads} thread(s), {'CPU' if threads == 1 else 'wall'} time; load in the last minute {os.getloadavg()[0]:.1f}")
    print("layers     H streams  NumPy char/s  torch char/s  ratio MB a step   GB/s")
    found = {}
    for layers in LAYERS:
        for streams in STREAMS:
            for H in SIZES:
                ours, theirs, read = measure(layers, H, streams)
                found[layers, streams, H] = ours, read
                speed = f"{ours:13,.0f} {theirs:13,.0f} {ours / theirs:6.2f}"
                print(f"{layers:6} {H:5} {streams:7} {speed} {read / 1e6:9.2f} {read * ours / streams / 1e9:6.1f}", flush=True)
    print(f"NumPy, from H = {SIZES[0]} to {SIZES[-1]}:")
    for layers in LAYERS:
        for streams in STREAMS:
            (fast, few), (slow, many) = (found[layers, streams, H] for H in (SIZES[0], SIZES[-1]))
            times = f"weights x {many / few:.0f}, characters per second / {fast / slow:.0f}"
            print(f"{layers} layer(s), {streams:2} stream(s): {times}")
    for layers in LAYERS:
        gains = (f"H = {H}: {found[layers, STREAMS[-1], H][0] / found[layers, 1, H][0]:.1f}" for H in SIZES)
        print(f"{layers} layer(s), {STREAMS[-1]} streams over one: {', '.join(gains)}")


def record() -> None:
    """Run this script without arguments and write what it printed, with machine, date and command."""
    printed = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True).stdout
    print(printed, end="")
    cpu = next((line.partition(": ")[2] for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    threads = os.environ.get("OMP_NUM_THREADS")
    command = f"{'OMP_NUM_THREADS=' + threads + ' ' if threads else ''}python benchmarks/generation.py --write"
    text = f"""# Speed of generation

Written by `{command}` on {datetime.date.today().isoformat()}; {cpu}, {os.cpu_count()} cores, {platform.platform()}.

Both libraries have the same weights, give the same log-probabilities (asserted to 1e-5 before each row) and sample through
the same `decoding.stream`. A rate counts the characters of all streams together: the median of {ROUNDS} rounds of {SECONDS} s,
the two libraries by turns. The ratio is NumPy's rate over torch's; "MB a step" are the weights that a step reads, "GB/s" those
times the steps per second. CPU time leaves out what other processes take; they still share the caches, the more the higher
the load.

```
{printed.rstrip()}
```

One stream is a matrix times a vector at each step: it reads every weight for one character, so the rate falls as the weights
grow. With 64 streams each weight is read once for 64 characters, and the product, not the reading, is the bound; so the cost
of a call to torch, which one stream pays for each character, hardly counts, and the two libraries come close.
"""
    write_atomically(RECORD, text.encode())


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    record() if sys.argv[1:] == ["--write"] else run(table)
