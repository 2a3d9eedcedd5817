"""The language model of lesson 06 in PyTorch: the same weights, the same log-probabilities, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.cells import GRUParams, LSTMParams, LSTMState, RNNParams
from course_lib.language_model import LanguageModelParams, windows
from course_lib.torch_dropout import Dropout
from course_lib.torch_lstm import LSTM
from course_lib.torch_sequence import to_arrays, wide
from course_lib.trees import leaves

CELLS = {"rnn": nn.RNN, "lstm": LSTM, "gru": nn.GRU}
KINDS = {RNNParams: "rnn", LSTMParams: "lstm", GRUParams: "gru"}


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, linear layer over the next token.

    RNN and GRU are torch's own; its RNN has a second bias, which stays 0. Dropout acts where the NumPy model has it: on the
    embedding, between layers and before the linear layer.

    Args:     vocab_size V, embedding_size E, hidden_size H, num_layers L. cell: "rnn", "lstm" or "gru". dropout: rate, in
              training. backend: of the LSTM, see ``torch_stack``. held: one dropout mask for all time steps of a call.
              recurrent_dropout: rate on the entries of the LSTM's W_hh. input_dropout: rate on the embedding, if another.
              tie: the linear layer's weights are the embedding.
    Raises:   ValueError: naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "lstm",
        dropout: float = 0.0,
        backend: str = "auto",
        *,
        held: bool = False,
        recurrent_dropout: float = 0.0,
        input_dropout: float | None = None,
        tie: bool = False,
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        if cell != "lstm" and (held or recurrent_dropout):
            raise ValueError(f"held, recurrent_dropout: expected neither with cell {cell!r}, only with 'lstm'")
        if tie and embedding_size != hidden_size:
            raise ValueError(f"tie: expected embedding_size = hidden_size, got {embedding_size} and {hidden_size}")
        options: dict[str, Any] = {"dropout": dropout if num_layers > 1 else 0.0}  # for one layer there is no between
        if cell == "lstm":
            options |= {"backend": backend, "held": held, "recurrent_dropout": recurrent_dropout}
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.layers = CELLS[cell](embedding_size, hidden_size, num_layers, **options)
        self.out = nn.Linear(hidden_size, vocab_size)
        if tie:
            self.out.weight = self.embedding.weight
        self.input_dropout = Dropout(dropout if input_dropout is None else input_dropout, held)
        self.dropout, self.cell = Dropout(dropout, held), cell
        if cell == "rnn":
            for name, parameter in self.layers.named_parameters():
                if name.startswith("bias_hh"):
                    nn.init.zeros_(parameter).requires_grad_(False)

    @classmethod
    def from_numpy(
        cls, params: LanguageModelParams, dropout: float = 0.0, backend: str = "auto", **options: Any
    ) -> LanguageModel:
        """A model with copies of these weights; options are those of the constructor. Tied, W_out is both matrices."""
        (V, E), H = params.embedding.shape, params.W_out.shape[1]
        model = cls(V, E, H, len(params.layers), KINDS[type(params.layers[0])], dropout, backend, **options)
        model.to(torch.from_numpy(params.W_out).dtype)
        with torch.no_grad():
            for mine, given in zip(leaves(model.params()), leaves(params), strict=True):
                mine.copy_(torch.from_numpy(np.ascontiguousarray(given)))
        return model

    def to_numpy(self) -> LanguageModelParams:
        """Copies of the weights, in the form that ``language_model`` and ``checkpoint`` take."""
        return to_arrays(self.params())

    def params(self) -> LanguageModelParams:
        """The trainable parameters themselves, as a tree like that of ``language_model``."""
        if self.cell == "lstm":
            layers = self.layers.params()
        else:
            kind = RNNParams if self.cell == "rnn" else GRUParams
            layers = tuple(kind(*weights[: len(kind._fields)]) for weights in self.layers.all_weights)
        return LanguageModelParams(self.embedding.weight, layers, self.out.weight, self.out.bias)

    def initial_state(self, batch_size: int) -> tuple:
        """The state before the first token of ``batch_size`` streams: for each layer zeros, (N, H), streams on axis 0."""
        zeros = self.out.weight.new_zeros(self.layers.num_layers, batch_size, self.layers.hidden_size)
        return self._unstacked((zeros, zeros.clone()) if self.cell == "lstm" else zeros)

    def forward(self, tokens: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """Logits of the next token at each position.

        Args:     tokens: (T, N) integers in [0, V). state: from initial_state or an earlier call.
        Returns:  logits (T, N, V), in float32 at least; the state after the last token.
        """
        hs, state = self.layers(self.input_dropout(self.embedding(tokens)), self._stacked(state))
        return wide(self.out(self.dropout(hs))), self._unstacked(state)

    def _stacked(self, state: tuple) -> Any:
        """From a state for each layer to what torch takes: (L, N, H), for an LSTM twice."""
        if self.cell == "lstm":
            return tuple(torch.stack(parts) for parts in zip(*state, strict=True))
        return torch.stack(state)

    def _unstacked(self, state: Any) -> tuple:
        return tuple(LSTMState(h, c) for h, c in zip(*state, strict=True)) if self.cell == "lstm" else tuple(state)


def make_step(model: LanguageModel) -> Callable[[Any, tuple], tuple[np.ndarray, tuple]]:
    """``step(token (N,), state) -> (log_probs (N, V), state)`` for the decoders, without gradients or dropout.

    Tokens and log-probabilities are NumPy's; the state stays where the model is.
    """
    model.eval()

    @torch.inference_mode()
    def step(token: Any, state: tuple) -> tuple[np.ndarray, tuple]:
        logits, state = model(torch.as_tensor(token, device=model.out.weight.device)[None], state)
        return logits[0].log_softmax(dim=1).cpu().numpy(), state

    return step


@torch.no_grad()
def evaluate(
    model: LanguageModel, tokens: np.ndarray, streams: int | None = None, steps: int | None = None
) -> tuple[float, int]:
    """Teacher-forced nats of a text, as language_model.evaluate.

    Returns:  Total nats, and the number of tokens predicted: length - 1.
    """
    training, device, state, total = model.training, model.out.weight.device, None, 0.0
    model.eval()
    for window in windows(tokens, streams, steps):
        x, y, real = (torch.from_numpy(part).to(device) for part in window)
        logits, state = model(x, state if state else model.initial_state(x.shape[1]))
        log_probs = logits.log_softmax(dim=2).gather(2, y.long()[..., None])[..., 0]
        total -= log_probs.double()[real].sum().item()
    model.train(training)
    return total, len(tokens) - 1
