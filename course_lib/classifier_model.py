"""A classifier of texts: embedding, stacked LSTMs, and a linear layer on the state after each text's last character."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checkpoint import write_atomically
from course_lib.errors import CourseError
from course_lib.shapes import ShapeError, check_tokens
from course_lib.text import CharTokenizer
from course_lib.torch_lstm import LSTM

FORMAT = "course_lib sequence classifier"


class Examples(NamedTuple):
    """Encoded texts and their classes. tokens: (T, N) int64, padded on the right. lengths: (N,) int64. labels: (N,) int64."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor


class SequenceClassifier(nn.Module):
    """Logits of classes from the tokens of a text.

    Args:     vocab_size V: tokens, padding and unknown included. embedding_size E. hidden_sizes: H of each LSTM layer.
              classes: C. dropout: rate on the embedding, between layers and on the last state, in training.
              backend: of the LSTM, see ``torch_stack``.
    Raises:   ValueError: naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 64,
        hidden_sizes: Sequence[int] = (128, 128),
        classes: int = 10,
        dropout: float = 0.0,
        backend: str = "auto",
    ):
        super().__init__()
        hidden_sizes = tuple(hidden_sizes)
        sizes = {"vocab_size": vocab_size, "embedding_size": embedding_size, "classes": classes}
        for name, size in (*sizes.items(), *(("hidden_sizes", size) for size in hidden_sizes or (0,))):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: expected integers of at least 1, got {hidden_sizes if 'hidden' in name else size}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {dropout}")
        self.config = {**sizes, "hidden_sizes": hidden_sizes, "dropout": dropout}
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        if len(set(hidden_sizes)) == 1:
            between = dropout if len(hidden_sizes) > 1 else 0.0
            self.lstm = LSTM(embedding_size, hidden_sizes[0], len(hidden_sizes), backend=backend, dropout=between)
        else:
            self.lstm = Tapered((embedding_size, *hidden_sizes), dropout, backend)
        self.linear = nn.Linear(hidden_sizes[-1], classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (N, C) of texts: tokens (T, N) integers in [0, V), padded on the right; lengths (N,), at least 1.

        Raises:   ShapeError, ValueError: naming the argument, what was expected and what came.
        """
        hs = self.states(tokens, lengths)
        return self.linear(self.dropout(hs[lengths - 1, torch.arange(len(lengths), device=hs.device)]))

    def states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The last layer's states (T, N, H), without dropout on them. Those at padding mean nothing.

        The LSTM need not know the lengths: padding stands behind each text, and a state looks back only.
        """
        _check_encoded(tokens, lengths, len(self.embedding.weight))
        return self.lstm(self.dropout(self.embedding(tokens)))[0]


class Tapered(nn.Module):
    """LSTM layers of different widths on each other. sizes: D, then H of each layer."""

    def __init__(self, sizes: Sequence[int], dropout: float, backend: str):
        super().__init__()
        self.parts = nn.ModuleList(LSTM(D, H, backend=backend) for D, H in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """The outputs of the last layer (T, N, H), and its final state."""
        for depth, part in enumerate(self.parts):
            x, final = part(self.dropout(x) if depth else x)
        return x, final


def save(path: str | Path, model: SequenceClassifier, tokenizer: CharTokenizer, names: Sequence[str]) -> None:
    """Write a model with what it takes to use it, the tokenizer and the names of the classes, as one safetensors file.

    Raises:   CourseError: the file cannot be written; whatever stood there stays. ValueError: not a name for each class.
    """
    from safetensors.torch import save as to_bytes

    if len(names) != model.config["classes"]:
        raise ValueError(f"names: expected {model.config['classes']}, one for each class, got {len(names)}")
    header = {"format": FORMAT, "config": model.config, "tokenizer": tokenizer.to_config(), "names": list(names)}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(Path(path), to_bytes(weights, {"course_lib": json.dumps(header)}))


def load(path: str | Path) -> tuple[SequenceClassifier, CharTokenizer, tuple[str, ...]]:
    """The model that ``save`` wrote, its tokenizer and the names of its classes.

    Raises:   CourseError: no such file, or not a whole classifier of this course.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["course_lib"])
            weights = {name: file.get_tensor(name) for name in file.keys()}
        if header["format"] != FORMAT:
            raise ValueError("another format")
        model = SequenceClassifier(**header["config"])
        model.load_state_dict(weights)
        return model.eval(), CharTokenizer.from_config(header["tokenizer"]), tuple(header["names"])
    except FileNotFoundError:
        raise CourseError(f"no file {str(path)!r}; save a classifier there first") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, CourseError) as error:
        what = str(error).partition("\n")[0]
        raise CourseError(f"{path} is not a whole classifier of this course ({what:.80}); save it again") from error


def check_examples(name: str, data: Examples, model: SequenceClassifier, device: Any) -> Examples:
    """The examples as int64 tensors on the device, or a ValueError that names what is wrong."""
    if not isinstance(data, tuple) or len(data) != 3 or any(isinstance(part, str | tuple | list) for part in data):
        raise ValueError(f"{name}: expected Examples(tokens, lengths, labels), got {type(data).__name__} of something else; "
                         "make them with classifier.examples(part, tokenizer)")  # fmt: skip
    data = Examples(*(torch.as_tensor(part) for part in data))
    _check_encoded(data.tokens, data.lengths, model.config["vocab_size"])
    if data.labels.shape != data.lengths.shape:
        raise ShapeError(f"labels: expected shape {tuple(data.lengths.shape)}, one a text, got {tuple(data.labels.shape)}")
    check_tokens("labels", data.labels.cpu().numpy(), model.config["classes"])
    return Examples(*(part.to(device=device, dtype=torch.int64) for part in data))


def _check_encoded(tokens: Tensor, lengths: Tensor, vocab_size: int) -> None:
    """Hold tokens and lengths to their shapes, types and ranges."""
    for name, tensor, axes in (("tokens", tokens, "(T, N)"), ("lengths", lengths, "(N,)")):
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{name}: expected integers {axes}, got {type(tensor).__name__}; encode the texts first, or predict()"
            )
        if tensor.dim() != axes.count(",") + (name == "tokens"):
            raise ShapeError(f"{name}: expected {axes}, got shape {tuple(tensor.shape)}")
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise ValueError(f"{name}: expected integers {axes}, got {tensor.dtype}")
    T, N = tokens.shape
    if not T or not N:
        raise ValueError(f"tokens: expected at least one text of one character, got shape {(T, N)}")
    if lengths.shape != (N,):
        raise ShapeError(f"lengths: axis N should be {N} (N = {N} from tokens), got shape {tuple(lengths.shape)}")
    if lengths.min() < 1 or lengths.max() > T:
        worst = lengths.min() if lengths.min() < 1 else lengths.max()
        raise ValueError(
            f"lengths: expected integers in [1, {T}], T = {T} from tokens, got {worst.item()}; leave empty texts out"
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        worst = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(
            f"tokens: expected integers in [0, {vocab_size}), got {worst.item()}; encode with training's tokenizer"
        )
