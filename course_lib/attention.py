"""Attention: the decoder asks, at each step, which states of the encoder matter now, and reads their weighted mean.

    score_tj = vᵀ tanh(W_q q_t + W_k m_j)         additive (Bahdanau, Cho & Bengio 2015)
    score_tj = q_tᵀ W_k m_j                       multiplicative, "general" (Luong, Pham & Manning 2015)
    α_tj = exp(score_tj) / Σ_k exp(score_tk)      over the real positions k; 0 at padding
    context_t = Σ_j α_tj m_j                      (lesson 10, eqs. 10.1-10.4)

W_k m_j does not depend on t: it is computed once for a source and kept, as ``Memory.keys``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

SCORES = ("additive", "multiplicative")


class Memory(NamedTuple):
    """What a decoder may look at; the stream is on axis 0, so that a decoder can carry it as a part of its state.

    keys: (N, S, A), W_k m_j. values: (N, S, M), the states m_j themselves. mask: (N, S) bool, true at real positions.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor


class Attention(nn.Module):
    """One of the two scores, the softmax over real positions, and the weighted mean.

    Args:     query_size Q, memory_size M. score: "additive" or "multiplicative". size: A of the additive score (default Q);
              a multiplicative score compares keys with queries, so there A = Q.
    Raises:   ValueError: naming the argument.
    """

    def __init__(self, query_size: int, memory_size: int, score: str = "additive", size: int | None = None):
        super().__init__()
        if score not in SCORES:
            raise ValueError(f"score: expected one of {', '.join(SCORES)}, got {score!r}")
        size = query_size if size is None else size
        if score == "multiplicative" and size != query_size:
            raise ValueError(f"size: expected {query_size}, the query's size, for a multiplicative score, got {size}")
        self.score = score
        self.W_k = nn.Parameter(torch.empty(size, memory_size).uniform_(-(memory_size**-0.5), memory_size**-0.5))
        if score == "additive":
            self.W_q = nn.Parameter(torch.empty(size, query_size).uniform_(-(query_size**-0.5), query_size**-0.5))
            self.v = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))

    def memory(self, states: Tensor, mask: Tensor) -> Memory:
        """What to keep of a source: states (S, N, M) of the encoder, mask (S, N) bool, true at real positions."""
        values = states.transpose(0, 1)
        return Memory(values @ self.W_k.T, values, mask.T)

    def scores(self, query: Tensor, memory: Memory) -> Tensor:
        """How well each position answers each query: (N, T, S), padding included. query: (T, N, Q)."""
        query = query.transpose(0, 1)  # (N, T, Q)
        if self.score == "multiplicative":
            return query @ memory.keys.transpose(1, 2)
        return torch.tanh((query @ self.W_q.T)[:, :, None] + memory.keys[:, None]) @ self.v  # (N, T, S, A) inside

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend T times.

        Args:     query: (T, N, Q), the decoder's states.
        Returns:  context (T, N, M); alpha (T, N, S): each row sums to 1 over the real positions and is 0 elsewhere.
        """
        scores = self.scores(query, memory).masked_fill(~memory.mask[:, None], -math.inf)
        alpha = scores.softmax(dim=2)  # (N, T, S)
        return (alpha @ memory.values).transpose(0, 1), alpha.transpose(0, 1)
