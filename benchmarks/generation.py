"""Characters per second of one stream: our NumPy step against stepping torch.nn.LSTM, the same weights, side by side.

Run: python benchmarks/generation.py. Correctness first: both must give the same log-probabilities. Both sample the same way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from numpy_lstm import run

from course_lib import decoding, language_model

SIZES = [128, 256, 512]  # hidden units, one layer
V, E = 66, 64


def torch_step(params: language_model.LanguageModelParams) -> Callable:
    """The step that a PyTorch user writes: nn.Embedding, nn.LSTM over one time step, nn.Linear, log_softmax."""
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(params.embedding))
    layer = params.layers[0]
    H = layer.W_hh.shape[1]
    lstm, linear = torch.nn.LSTM(E, H), torch.nn.Linear(H, V)
    weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0, linear.weight, linear.bias)
    values = (*layer, np.zeros_like(layer.b), params.W_out, params.b_out)
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(torch.from_numpy(value))

    @torch.no_grad()
    def step(token: np.ndarray, state: tuple) -> tuple[torch.Tensor, tuple]:
        hs, state = lstm(embedding(torch.from_numpy(token))[None], state)
        return torch.log_softmax(linear(hs[0]), dim=1), state

    return step


def rate(step: Callable, state: tuple, seconds: float = 1.0) -> float:
    """Characters per second while sampling one stream."""
    rng = np.random.default_rng(0)
    tokens = decoding.stream(step, state, np.array([1]), lambda log_probs: decoding.draw(log_probs, rng))
    list(islice(tokens, 100))
    written, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        list(islice(tokens, 100))
        written += 100
    return written / (time.perf_counter() - start)


def table() -> None:
    """One row a size: medians of alternating rounds."""
    print(f"{'H':>5} {'NumPy char/s':>13} {'torch char/s':>13} {'ratio':>6} {'weights read, GB/s':>19}")
    for H in SIZES:
        params = language_model.init(V, E, H, 1, "lstm", seed=0)
        ours, theirs = language_model.make_step(params), torch_step(params)
        state, zeros = language_model.initial_state(params, 1), (torch.zeros(1, 1, H), torch.zeros(1, 1, H))
        a, b = state, zeros
        for token in (3, 7, 1):
            (p, a), (q, b) = ours(np.array([token]), a), theirs(np.array([token]), b)
            np.testing.assert_allclose(p, q.numpy(), atol=1e-5)
        rounds = [(rate(ours, state), rate(theirs, zeros)) for _ in range(5)]
        numpy_rate, torch_rate = (statistics.median(column) for column in zip(*rounds, strict=True))
        gigabytes = 4 * (4 * H * H + V * H) * numpy_rate / 1e9
        print(f"{H:5} {numpy_rate:13,.0f} {torch_rate:13,.0f} {numpy_rate / torch_rate:6.1f} {gigabytes:19.1f}", flush=True)


if __name__ == "__main__":
    run(table)
