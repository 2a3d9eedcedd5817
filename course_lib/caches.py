"""What a sequence's forward pass keeps for its backward pass.

The fast loops hold activations feature-major, (4H, N). ``cache.at(t)`` gives the cache of one time step in the notation of
``cells``, samples as rows: all that a step's backward needs, as views where that is possible. t counts from 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.cells import GRUCache, GRUParams, LSTMCache, LSTMParams, LSTMState, RNNCache, RNNParams


class RNNSequenceCache(NamedTuple):
    x: np.ndarray  # (T, N, D)
    hs: np.ndarray  # (T + 1, N, H), the initial state first
    params: RNNParams
    lengths: np.ndarray | None

    def at(self, t: int) -> RNNCache:
        """The cache of step t, as rnn_step_forward returns it."""
        return RNNCache(self.x[t], self.hs[t], self.params, self.hs[t + 1])


class LSTMSequenceCache(NamedTuple):
    x: np.ndarray  # (T, N, D)
    hs: np.ndarray  # (T + 1, N, H)
    cs: np.ndarray  # (T + 1, H, N)
    gates: np.ndarray  # (T, 4H, N)
    params: LSTMParams
    lengths: np.ndarray | None

    def at(self, t: int) -> LSTMCache:
        """The cache of step t, as lstm_step_forward returns it."""
        i, f, g, o = np.split(self.gates[t].T, 4, axis=1)
        return LSTMCache(self.x[t], LSTMState(self.hs[t], self.cs[t].T), self.params, i, f, g, o, np.tanh(self.cs[t + 1].T))


class GRUSequenceCache(NamedTuple):
    x: np.ndarray  # (T, N, D)
    hs: np.ndarray  # (T + 1, N, H)
    gates: np.ndarray  # (T, 3H, N)
    a_hn: np.ndarray  # (T, H, N)
    params: GRUParams
    lengths: np.ndarray | None

    def at(self, t: int) -> GRUCache:
        """The cache of step t, as gru_step_forward returns it."""
        r, z, n = np.split(self.gates[t].T, 3, axis=1)
        return GRUCache(self.x[t], self.hs[t], self.params, r, z, n, self.a_hn[t].T)
