"""Training steps of a translator in PyTorch: as ``torch_engine``, on pairs instead of streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.budget import Config
from course_lib.seq2seq import PAD, shifted, token_loss
from course_lib.torch_engine import TorchEngine
from course_lib.translation import Encoded, Source, evaluate, translate
from course_lib.translator import Translator, build


class TranslationEngine(TorchEngine):
    """An ``engines.Engine``: tokens are ``translation.Source``, targets (T, N) finish with the end token.

    Args:     model: the configuration of a translator. params: its weights by name; None: random ones, by the seed.
    """

    def __init__(self, config: Config, model: dict, params: dict[str, np.ndarray] | None):
        self.translator = model
        super().__init__(config, params)

    def _build(self, params: dict[str, np.ndarray] | None) -> torch.nn.Module:
        return build(self.translator, params)

    def reset_state(self) -> None:
        """Pairs have nothing to do with each other: there is no state between them."""
        self.state = ()

    def _backward(self, tokens: Source, targets: Tensor) -> tuple[Tensor, tuple]:
        """Fill the gradients from the parts of a batch; the share of the mean loss in nats per token, without smoothing."""
        real = int((targets != PAD).sum())
        losses = [torch.zeros((), device=self.device)]
        for part in self._parts(targets.shape[1]):
            source, y = (tensor[:, part].to(self.device, non_blocking=True) for tensor in (tokens.tokens, targets))
            lengths, share = tokens.lengths[part].to(self.device), int((targets[:, part] != PAD).sum()) / real
            source = source[: int(tokens.lengths[part].max())]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                logits = self.model(source, lengths, shifted(y), self.config.teacher_forcing)
            (share * token_loss(logits, y, self.config.smoothing)).backward()
            losses.append(share * token_loss(logits.detach(), y))
        return torch.stack(losses).sum(), ()

    def evaluate(self, tokens: Encoded) -> tuple[float, int]:
        """Total nats of the held-out targets, teacher-forced, in float32, and the number of tokens."""
        return self._in_memory(lambda: evaluate(self.judged, tokens))

    def translations(self, translator: Translator, texts: Sequence[str]) -> list[str]:
        """Greedy translations by the judged weights, without dropout; the translator's own weights are not read."""
        training = self.judged.training
        try:
            return self._in_memory(lambda: [found.text for found in translate(translator, texts, model=self.judged.eval())])
        finally:
            self.judged.train(training)

    def _sizes(self) -> str:
        c: Any = self.config
        return f"batch_size {c.batch_size}, hidden {c.hidden}"
