"""What takes a training step: the NumPy of this course, or PyTorch on a CPU or a GPU. Both start from the same weights.

An engine owns the weights, the optimiser and the carried state of a run. It hands them out as NumPy trees, so that a checkpoint
does not know which engine wrote it.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from course_lib import checkpoint
from course_lib.budget import Config
from course_lib.language_model import LanguageModelParams, evaluate, initial_state, loss_and_grads
from course_lib.optim import AdamState, adam_, adam_init, clip_global_norm_
from course_lib.trees import leaves, map_tree, named_leaves


class Engine(Protocol):
    """What ``training`` asks of an engine."""

    name: str
    rank: int  # of this process among those of the run; number 0 evaluates and saves

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over the processes of the run."""

    @property
    def params(self) -> LanguageModelParams:
        """The weights, as arrays."""

    @property
    def averaged(self) -> LanguageModelParams:
        """The running mean of the weights if ``config.average`` asks for one, else the weights: what is judged and kept."""

    def reset_state(self) -> None:
        """Forget the streams: the next window starts a text."""

    def step(self, tokens: np.ndarray, targets: np.ndarray, lr: float) -> tuple[float, float]:
        """Learn from one window, (T, N) integers, and carry the state on; nothing changes if a result is not finite.

        Returns:  The loss in nats per token, and the norm of the gradient before clipping.
        """

    def evaluate(self, tokens: np.ndarray) -> tuple[float, int]:
        """Total nats of a text, teacher-forced, and the number of tokens; see language_model.evaluate."""

    def dump(self) -> dict[str, np.ndarray]:
        """All that a resumed run needs besides the weights: m.*, v.*, state.* and the engine's own random state."""

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        """Take back what ``dump`` gave after so many steps. Raises KeyError or ValueError if it does not fit."""


class NumpyEngine:
    """Gradients by the hand-derived backward pass; dropout draws from ``rng``, whose state the caller keeps."""

    name = "numpy"
    rank = 0

    def __init__(self, config: Config, params: LanguageModelParams, rng: np.random.Generator):
        self.config, self.params, self.rng = config, params, rng
        self.adam = adam_init(params)
        self.averaged = map_tree(np.copy, params) if config.average else params
        self.reset_state()

    def total(self, *numbers: float) -> list[float]:
        return list(numbers)

    def reset_state(self) -> None:
        self.state = initial_state(self.params, self.config.batch_size)

    def step(self, tokens: np.ndarray, targets: np.ndarray, lr: float) -> tuple[float, float]:
        loss, grads, state = loss_and_grads(self.params, tokens, targets, self.state, self.config.dropout, self.rng)
        norm = clip_global_norm_(grads, self.config.clip)
        if math.isfinite(loss + norm):
            self.adam = adam_(self.params, grads, self.adam, lr, weight_decay=self.config.weight_decay)
            self.state = state
            if self.config.average:
                self._average()
        return loss, norm

    def _average(self) -> None:
        share = 1 - average_decay(self.config.average, self.adam.t)
        for mean, weight in zip(leaves(self.averaged), leaves(self.params), strict=True):
            mean += mean.dtype.type(share) * (weight - mean)

    def evaluate(self, tokens: np.ndarray) -> tuple[float, int]:
        return evaluate(self.averaged, tokens)

    def dump(self) -> dict[str, np.ndarray]:
        mean = {"mean": self.averaged} if self.config.average else {}
        return dump_trees(m=self.adam.m, v=self.adam.v, state=self.state, **mean)

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        m, v = (checkpoint.fill(self.params, arrays, kind) for kind in "mv")
        self.adam = AdamState(m, v, steps)
        if self.config.average:
            self.averaged = checkpoint.fill(self.params, arrays, "mean")
        self.state = checkpoint.fill(self.state, arrays, "state")


def average_decay(decay: float, steps: int) -> float:
    """The decay of the running mean of the weights at this step: less at the start, lest the first weights stay in it."""
    return min(decay, (1 + steps) / (10 + steps))


def dump_trees(**trees: Any) -> dict[str, np.ndarray]:
    """The leaves of trees of arrays, under the names that ``checkpoint.fill`` looks for."""
    return {name: leaf for prefix, tree in trees.items() for name, leaf in named_leaves(tree, prefix)}
