"""One run in several processes, as torchrun starts them: each takes a share of a batch, and gradients are summed.

The gradient of a sum is the sum of the gradients. Every process holds all the weights, computes the gradient of its own
streams, and after ``sum_`` all hold that of the joint batch: they take the same step and stay equal. torchrun tells a process
its number (RANK) and how many there are (WORLD_SIZE); with one process nothing here communicates.

    torchrun --standalone --nproc-per-node 2 --no-python course train --engine torch --device cpu ...
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from course_lib.errors import CourseError


class Group:
    """The processes of a run. rank: the number of this one. size: how many there are.

    On CPUs they talk through gloo, on GPUs, one for each process, through NCCL.
    """

    def __init__(self, device: torch.device):
        self.rank, self.size = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        self.device = device
        if device.type == "cuda" and self.size > 1:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)  # threads of gloo left running abort the process now and then

    def share(self, count: int) -> np.ndarray:
        """Which of so many streams are this process's: consecutive ones, as many as for the others or one fewer."""
        return np.array_split(np.arange(count), self.size)[self.rank]

    def check_divides(self, batch_size: int) -> None:
        """Raise CourseError unless the streams of a text can be dealt out evenly: they are carried on, and saved together."""
        if batch_size % self.size:
            raise CourseError(f"--batch-size: expected a multiple of the {self.size} processes, got {batch_size}")

    def sum_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; all travel as one."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.detach().flatten().to(self.device) for tensor in tensors])
        with _while_all_live():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over the processes, in float64."""
        flat = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.sum_([flat])
        return flat.tolist()

    def joined(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, equal in shape, one behind the other on axis 0."""
        if self.size == 1:
            return tensor
        own = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with _while_all_live():
            dist.all_gather(parts, own)
        return torch.cat(parts)


@contextmanager
def _while_all_live() -> Iterator[None]:
    """Around what the processes do together: the end of another one becomes one line."""
    try:
        yield
    except RuntimeError as error:
        raise CourseError("another process of this run has ended; read what it said, then --resume") from error
