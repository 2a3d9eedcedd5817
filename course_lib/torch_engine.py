"""Training steps in PyTorch, on a CPU or a GPU, in float32 or with products in bfloat16."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import checkpoint
from course_lib.budget import Config
from course_lib.engines import average_decay, dump_trees
from course_lib.errors import CourseError
from course_lib.torch_model import LanguageModel, evaluate
from course_lib.torch_parallel import Group
from course_lib.torch_sequence import to_arrays
from course_lib.trees import leaves, map_tree


class TorchEngine:
    """An ``engines.Engine``. Its random numbers are those of torch; their state is dumped and restored with the rest.

    The streams of a batch may be taken in ``config.accumulate`` parts, one after the other: the gradients add up to that of the
    whole batch, and only one part's activations are in memory at a time. Started by torchrun, each process takes a share of the
    streams; see ``torch_parallel``.

    Raises:   CourseError: no such device; streams of a text that cannot be dealt out evenly.
    """

    def __init__(self, config: Config, params: Any):
        self.config, self.group = config, Group(find_device(config.device))
        self.device, self.rank, self.total = self.group.device, self.group.rank, self.group.total
        several = f", {self.group.size} processes" if self.group.size > 1 else ""
        self.name = f"torch {torch.__version__} on {_called(self.device)}, {config.precision}{several}"
        torch.manual_seed(config.seed)
        self.model = self._in_memory(lambda: self._build(params).to(self.device).train())
        torch.manual_seed(config.seed + 1_000_003 * self.rank)  # the processes drop other entries
        self.weights = list(dict.fromkeys(leaves(self.model.params())))  # a tied one once
        groups = [
            {"params": [w for w in self.weights if (w.dim() > 1) == decays], "weight_decay": config.weight_decay * decays}
            for decays in (True, False)
        ]
        self.adam = torch.optim.AdamW(groups, eps=1e-8, foreach=True)
        self.judged = copy.deepcopy(self.model) if config.average else self.model
        self.steps = 0
        self.reset_state()

    def _build(self, params: Any) -> nn.Module:
        """The model with these weights; its ``params()`` are a tree of its parameters."""
        c = self.config
        rates = {"input_dropout": c.input_dropout, "recurrent_dropout": c.recurrent_dropout}
        return LanguageModel.from_numpy(params, c.dropout, held=c.held_masks, tie=c.tie, **rates)

    @property
    def params(self) -> Any:
        """The weights, as arrays of their own."""
        return to_arrays(self.model.params())

    @property
    def averaged(self) -> Any:
        """The running mean of the weights if there is one, else the weights."""
        return to_arrays(self.judged.params())

    def reset_state(self) -> None:
        """Forget the streams: the next window starts a text."""
        self.group.check_divides(self.config.batch_size)
        self.state = self.model.initial_state(self.config.batch_size // self.group.size)

    def step(self, tokens: Any, targets: Any, lr: float) -> tuple[float, float]:
        """Learn from one window; see engines.Engine."""
        self.adam.zero_grad()
        loss, state = self._in_memory(lambda: self._backward(tokens, targets))
        self.group.sum_([loss, *(_gradient(weight) for weight in self.weights)])
        loss = loss.item()
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.clip, foreach=True).item()
        if math.isfinite(loss + norm):
            for group in self.adam.param_groups:
                group["lr"] = lr
            self.adam.step()
            self.state, self.steps = state, self.steps + 1
            if self.config.average:
                self._average()
        return loss, norm

    @torch.no_grad()
    def _average(self) -> None:
        mean = list(dict.fromkeys(leaves(self.judged.params())))
        torch._foreach_lerp_(mean, self.weights, 1 - average_decay(self.config.average, self.steps))

    def _parts(self, count: int) -> list[slice]:
        """The parts in which this process takes its share of so many streams."""
        parts = np.array_split(self.group.share(count), self.config.accumulate)
        return [slice(part[0], part[-1] + 1) for part in parts if len(part)]

    def _backward(self, tokens: np.ndarray, targets: np.ndarray) -> tuple[Tensor, tuple]:
        """Fill the gradients from this process's share of a batch, part by part.

        Returns:  Its share of the mean loss, and the state cut off from this window's record.
        """
        losses, states, first = [], [], self.group.share(tokens.shape[1])[0]
        for streams in self._parts(tokens.shape[1]):
            x, y = (torch.from_numpy(a[:, streams].astype(np.int64)).to(self.device) for a in (tokens, targets))
            rows = slice(streams.start - first, streams.stop - first)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits, state = self.model(x, map_tree(lambda s, rows=rows: s[rows], self.state))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / tokens.size
            loss.backward()
            losses.append(loss.detach())
            states.append(map_tree(lambda s: s.detach().to(self.model.out.weight.dtype), state))
        return torch.stack(losses).sum(), map_tree(lambda *rows: torch.cat(rows), *states)

    def evaluate(self, tokens: np.ndarray) -> tuple[float, int]:
        """Total nats of a text, in float32, and the number of tokens predicted."""
        return self._in_memory(lambda: evaluate(self.judged, tokens))

    def dump(self) -> dict[str, np.ndarray]:
        """See engines.Engine; the random state is bytes."""
        moments = (
            [self.adam.state[w].get(kind, torch.zeros_like(w)) for w in leaves(self.model.params())]
            for kind in ("exp_avg", "exp_avg_sq")
        )
        m, v = (to_arrays(_like(self.model.params(), tensors)) for tensors in moments)
        arrays = dump_trees(m=m, v=v, state=to_arrays(map_tree(self.group.joined, self.state)))
        if self.config.average:
            arrays |= dump_trees(mean=self.averaged)
        random = {f"random.{kind}": self.group.joined(state[None]) for kind, state in self._random().items()}
        return arrays | to_arrays(random)

    def _random(self) -> dict[str, Tensor]:
        """The states of torch's random numbers, as bytes."""
        cuda = {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state()} | cuda

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        """Take back what ``dump`` gave; on another kind of device, or in another number of processes, the
        random numbers start again from the seed."""
        template = self.params
        moments = [leaves(checkpoint.fill(template, arrays, kind)) for kind in "mv"]
        for weight, m, v in zip(leaves(self.model.params()), *moments, strict=True):
            self.adam.state[weight] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": torch.from_numpy(m.copy()).to(self.device),
                "exp_avg_sq": torch.from_numpy(v.copy()).to(self.device),
            }
        self.steps = steps
        if self.config.average:
            for mine, mean in zip(leaves(self.judged.params()), leaves(checkpoint.fill(template, arrays, "mean")), strict=True):
                mine.data.copy_(torch.from_numpy(mean))
        state = checkpoint.fill(to_arrays(map_tree(self.group.joined, self.state)), arrays, "state")
        own = self.group.share(self.config.batch_size)
        self.state = map_tree(lambda a: torch.from_numpy(a[own]).to(self.device), state)
        for kind, row in ((kind, arrays.get(f"random.{kind}", ())) for kind in self._random()):
            if len(row) == self.group.size:
                set_state = torch.set_rng_state if kind == "cpu" else partial(torch.cuda.set_rng_state, device=self.device)
                set_state(torch.from_numpy(row[self.rank].copy()))

    def _in_memory(self, work: Callable[[], Any]) -> Any:
        """What the work returns; too little memory on the device becomes a line with advice."""
        try:
            return work()
        except torch.OutOfMemoryError as error:
            advice = "raise --accumulate, or choose a smaller --batch-size, --window or --hidden"
            raise CourseError(f"{_called(self.device)} has not enough memory for {self._sizes()}; {advice}") from error

    def _sizes(self) -> str:
        c = self.config
        return f"batch_size {c.batch_size}, window {c.window}, hidden {c.hidden}"


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if torch can use one, else the CPU.

    Raises:   CourseError: there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise CourseError(f"--device: expected auto, cpu, cuda or cuda:1, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CourseError(
            f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here; use --device auto or cpu"
        )
    return device


def _gradient(weight: Tensor) -> Tensor:
    """Where its gradient is; zeros for a process that had no share of the batch."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _like(tree: Any, tensors: list) -> Any:
    """The tensors in the form of the tree."""
    rest = iter(tensors)
    return map_tree(lambda _: next(rest), tree)
