"""Training steps of a classifier in PyTorch: as ``torch_engine``, on labelled texts instead of streams."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.budget import Config
from course_lib.classifier import log_probs
from course_lib.classifier_model import Examples, build
from course_lib.torch_engine import TorchEngine


class ClassifierEngine(TorchEngine):
    """An ``engines.Engine``: tokens are (tokens (T, N), lengths (N,)), targets the labels (N,).

    Args:     model: the configuration of a classifier. params: its weights by name; None: random ones, by the seed.
    """

    def __init__(self, config: Config, model: dict, params: dict[str, np.ndarray] | None):
        self.classifier = model
        super().__init__(config, params)

    def _build(self, params: dict[str, np.ndarray] | None) -> nn.Module:
        return build(self.classifier, params)

    def reset_state(self) -> None:
        """Texts have nothing to do with each other: there is no state between them."""
        self.state = ()

    def _backward(self, tokens: tuple[Tensor, Tensor], targets: Tensor) -> tuple[Tensor, tuple]:
        """Fill the gradients from the parts of a batch; the share of the mean loss in nats per text."""
        losses = [torch.zeros((), device=self.device)]
        for part in self._parts(len(targets)):
            lengths, y = (tensor[part].to(self.device, non_blocking=True) for tensor in (tokens[1], targets))
            x = tokens[0][: int(tokens[1][part].max()), part].to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits = self.model(x, lengths)
            loss = nn.functional.cross_entropy(logits, y, reduction="sum") / len(targets)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum(), ()

    def log_probs(self, data: Examples) -> np.ndarray:
        """log p(class | text) by the judged weights, (N, C), in float32 and without dropout."""
        return self._in_memory(lambda: log_probs(self.judged, data))

    def evaluate(self, tokens: Examples) -> tuple[float, int]:
        """Total nats of the labels of the held-out texts, and the number of texts."""
        found = self.log_probs(tokens)
        return -float(found[np.arange(len(found)), tokens.labels.numpy()].sum()), len(found)

    def _sizes(self) -> str:
        return f"batch_size {self.config.batch_size}, hidden {self.config.hidden}"
