"""Dropout for recurrent layers: masks held over time, and connections dropped from W_hh.

Ordinary dropout draws another mask at each time step; on the recurrent path the noise of many steps would wipe out what a state
remembers. Two remedies:

    held masks     one mask for all T steps of a stream, on the inputs of a layer          (Gal & Ghahramani 2016)
    drop-connect   one mask for the whole call on the entries of W_hh                      (Merity, Keskar & Socher 2018)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from course_lib.cells import LSTMParams


class Dropout(nn.Module):
    """``drop`` as a module: in training only. p: the rate."""

    def __init__(self, p: float, held: bool = False):
        super().__init__()
        self.p, self.held = p, held

    def forward(self, x: Tensor) -> Tensor:
        """x (T, N, D), with entries dropped."""
        return drop(x, self.p if self.training else 0.0, self.held)


def drop(x: Tensor, rate: float, held: bool = False) -> Tensor:
    """Drop entries of x (T, N, D) at this rate and scale the others by 1 / (1 - rate); held: the same ones at every t."""
    if not rate:
        return x
    if not held:
        return nn.functional.dropout(x, rate)
    return x * nn.functional.dropout(torch.ones_like(x[:1]), rate)


def drop_connect(layers: Any, rate: float) -> Any:
    """The layers, LSTMParams or tuples of them, with entries of each W_hh dropped at this rate and the others scaled."""
    if not rate:
        return layers
    if isinstance(layers, LSTMParams):
        return layers._replace(W_hh=nn.functional.dropout(layers.W_hh, rate))
    parts = [drop_connect(layer, rate) for layer in layers]
    return type(layers)(*parts) if hasattr(layers, "_fields") else tuple(parts)
