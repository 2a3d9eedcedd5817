"""Encoder and decoder: a language model of the target whose first state, and what it may look at, come from the source.

    encoder   m_1 ... m_S and its final state, from a stack of LSTMs that reads the source, in both directions if asked
    decoder   s_t from (y_t-1, s_t-1), an LSTM of as many layers that begins in the encoder's final state
    context_t attention over m_1 ... m_S with the query s_t; with attention="none" the encoder's last output, at every step
    output    h̃_t = tanh(W_c [s_t; context_t]);  logits_t = E h̃_t + b, where E is the embedding of the target (tied weights)

The context enters behind the LSTM (Luong, Pham & Manning 2015), not before it (Bahdanau, Cho & Bengio 2015), with either
score: with teacher forcing the decoder's LSTM then reads the whole target in one call.
References: Sutskever, Vinyals & Le 2014; Cho et al. 2014; tied weights, Press & Wolf 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.attention import Attention, Memory
from course_lib.cells import LSTMState
from course_lib.torch_lstm import LSTM
from course_lib.torch_sequence import real_steps, wide
from course_lib.torch_tokens import check_encoded
from course_lib.units import BOS_ID, EOS_ID, PAD_ID, UNK_ID

PAD, BOS, EOS, UNK = PAD_ID, BOS_ID, EOS_ID, UNK_ID
ATTENTIONS = ("none", "additive", "multiplicative")


class DecoderState(NamedTuple):
    """All that the next step needs; the stream is on axis 0 of every leaf, so that a beam search can reorder them.

    layers: h and c of each decoder layer, (N, H). memory: of the source; for attention="none" it has one position.
    """

    layers: tuple[LSTMState, ...]
    memory: Memory


class Seq2Seq(nn.Module):
    """A translator of token sequences. Tokens 0 to 3 are padding, begin, end and unknown, on both sides.

    Args:     source_size, target_size: V of each side. embedding_size E. hidden_size H: of the decoder; an encoder in both
              directions has H/2 in each. num_layers L. attention: "none", "additive" or "multiplicative".
              dropout: rate on embeddings, between layers and before the output, in training. backend: see ``torch_stack``.
    Raises:   ValueError: naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 1,
        attention: str = "additive",
        bidirectional: bool = True,
        dropout: float = 0.0,
        backend: str = "auto",
    ):
        super().__init__()
        sizes = {"source_size": source_size, "target_size": target_size, "embedding_size": embedding_size}
        sizes |= {"hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            least = 1 + UNK if name in ("source_size", "target_size") else 1
            if not isinstance(size, int) or size < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {size!r}")
        if bidirectional and hidden_size % 2:
            raise ValueError(f"hidden_size: expected an even number with bidirectional=True, got {hidden_size}")
        if attention not in ATTENTIONS:
            raise ValueError(f"attention: expected one of {', '.join(ATTENTIONS)}, got {attention!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {dropout}")
        self.config = sizes | {"attention": attention, "bidirectional": bidirectional, "dropout": dropout}
        between = dropout if num_layers > 1 else 0.0
        each = hidden_size // 2 if bidirectional else hidden_size
        self.source_embedding = _embedding(source_size, embedding_size)
        self.encoder = LSTM(embedding_size, each, num_layers, bidirectional, backend, dropout=between)
        self.target_embedding = _embedding(target_size, embedding_size)
        self.decoder = LSTM(embedding_size, hidden_size, num_layers, backend=backend, dropout=between)
        self.attention = None if attention == "none" else Attention(hidden_size, hidden_size, attention)
        self.combine = nn.Linear(2 * hidden_size, embedding_size)  # W_c
        self.bias = nn.Parameter(torch.zeros(target_size))
        self.dropout = nn.Dropout(dropout)

    def params(self) -> dict[str, nn.Parameter]:
        """The trainable parameters themselves, by name."""
        return dict(self.named_parameters())

    def encode(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Read the sources.

        Args:     source: (S, N) tokens, padded on the right. lengths: (N,), at least 1.
        Returns:  The state in which the decoder begins.
        Raises:   ShapeError, ValueError: naming the argument, what was expected and what came.
        """
        check_encoded(source, lengths, self.config["source_size"])
        states, (h, c) = self.encoder(self.dropout(self.source_embedding(source)), lengths=lengths)
        if self.config["bidirectional"]:  # (2L, N, H/2), ahead and back in turn -> (L, N, H)
            h, c = (torch.cat((part[0::2], part[1::2]), dim=2) for part in (h, c))
        if self.attention is None:
            memory = Memory(h[-1][:, None], h[-1][:, None], torch.ones_like(lengths, dtype=torch.bool)[:, None])
        else:
            memory = self.attention.memory(states, real_steps(lengths, len(source))[..., 0])
        return DecoderState(tuple(map(LSTMState, h, c)), memory)

    def decode(self, inputs: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState, Tensor]:
        """Go on from a state over given inputs: inputs[t] is the token before the one that logits[t] predict.

        Args:     inputs: (T, N) tokens.
        Returns:  logits (T, N, V), in float32 at least; the state after the last input; alpha (T, N, S).
        """
        first = LSTMState(*(torch.stack(parts) for parts in zip(*state.layers, strict=True)))
        hs, (h, c) = self.decoder(self.dropout(self.target_embedding(inputs)), first)
        if self.attention is None:
            context, alpha = state.memory.values.transpose(0, 1).expand(len(hs), -1, -1), hs.new_ones((*inputs.shape, 1))
        else:
            context, alpha = self.attention(hs, state.memory)
        combined = torch.tanh(self.combine(torch.cat((hs, context), dim=2)))
        logits = nn.functional.linear(self.dropout(combined), self.target_embedding.weight, self.bias)
        return wide(logits), DecoderState(tuple(map(LSTMState, h, c)), state.memory), alpha

    def forward(self, source: Tensor, lengths: Tensor, inputs: Tensor, teacher_forcing: float = 1.0) -> Tensor:
        """Logits of the target, (T, N, V).

        Args:     source, lengths: see encode. inputs: (T, N), the begin token and then the true target, see shifted.
                  teacher_forcing: the probability that a step is given the true token before it; otherwise it gets the most
                  probable token of its own last prediction (scheduled sampling, Bengio et al. 2015), without a gradient.
        """
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing: expected a probability, got {teacher_forcing}")
        state = self.encode(source, lengths)
        if teacher_forcing == 1:
            return self.decode(inputs, state)[0]
        found = []
        for t, true in enumerate(inputs):
            if t:
                own = found[-1][0].argmax(dim=1)
                true = torch.where(torch.rand(own.shape, device=own.device) < teacher_forcing, true, own)
            logits, state, _ = self.decode(true[None], state)
            found.append(logits)
        return torch.cat(found)


def shifted(targets: Tensor) -> Tensor:
    """The decoder's inputs for targets (T, N) that finish with the end token: the begin token, then all but the last row.

    At step t the decoder knows y_1 ... y_t-1 and is to predict y_t: given y_t itself it would learn to copy.
    """
    return torch.cat((torch.full_like(targets[:1], BOS), targets[:-1]))


def token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean nats per token of targets (T, N) that is not padding; logits (T, N, V).

    Args:     smoothing: of the labels, in training: this part of each target's weight is spread evenly over V.
    Reference: label smoothing, Szegedy et al. 2016.
    """
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=smoothing
    )  # the mean over what is not ignored


def next_log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities of what may be written, (T, N, V): not padding or BOS, which no target holds."""
    unwritten = torch.arange(logits.shape[2], device=logits.device) <= BOS
    return logits.masked_fill(unwritten, -torch.inf).log_softmax(dim=2)


def make_step(model: Seq2Seq) -> Callable[[Any, DecoderState], tuple[np.ndarray, DecoderState]]:
    """``step(token (N,), state) -> (log_probs (N, V), state)`` for the decoders, without gradients or dropout.

    The first token is BOS, the first state ``encode``'s; see next_log_probs. Tokens and log-probabilities are NumPy's; the
    state stays where the model is.
    """
    model.eval()

    @torch.inference_mode()
    def step(token: Any, state: DecoderState) -> tuple[np.ndarray, DecoderState]:
        logits, state, _ = model.decode(torch.as_tensor(token, device=model.bias.device)[None], state)
        return next_log_probs(logits)[0].cpu().numpy(), state

    return step


def _embedding(size: int, width: int) -> nn.Embedding:
    """Normal with standard deviation E^-1/2, so that tied weights make logits of the size of h̃."""
    embedding = nn.Embedding(size, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return embedding
