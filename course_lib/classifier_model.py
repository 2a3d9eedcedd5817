"""A classifier of texts: embedding, stacked LSTMs, and a linear layer on the state after each text's last character."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import archive, checkpoint, languages, pairs
from course_lib.errors import CourseError
from course_lib.shapes import ShapeError, check_tokens
from course_lib.text import CharTokenizer
from course_lib.torch_lstm import LSTM
from course_lib.torch_sequence import to_arrays
from course_lib.torch_tokens import check_encoded

FORMAT = archive.CLASSIFIER
EXTRA = "extra."  # before the names of a run's arrays
PREPARE = {"as they are": str, "cleaned": pairs.clean, "names": languages.clean}  # how texts are cleaned


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

    def params(self) -> dict[str, nn.Parameter]:
        """The weights by name."""
        return dict(self.named_parameters())

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
        check_encoded(tokens, lengths, len(self.embedding.weight))
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


class Classifier(NamedTuple):
    """A classifier as it is kept. params: the weights by name. names: of the classes.

    config: the arguments of SequenceClassifier. prepare: how texts are cleaned, see PREPARE. record, extra: as in
    checkpoint.Checkpoint.
    """

    params: dict[str, np.ndarray]
    tokenizer: CharTokenizer
    names: tuple[str, ...]
    config: dict
    prepare: str
    record: dict
    extra: dict[str, np.ndarray]

    def model(self) -> SequenceClassifier:
        """The model itself, on the CPU, ready to classify."""
        return build(self.config, self.params).eval()

    def prepared(self, text: str) -> str:
        """The text as those of training were written."""
        return PREPARE[self.prepare](text)


def build(config: dict, params: dict[str, np.ndarray] | None = None) -> SequenceClassifier:
    """The model of a configuration, with these weights or with random ones.

    Raises:   KeyError, ValueError: weights that do not fit the configuration.
    """
    model = SequenceClassifier(**config)
    if params is not None:
        mine = to_arrays(model.params())
        if mine.keys() != params.keys():
            raise ValueError("the names of its weights do not fit its configuration")
        filled = checkpoint.fill(mine, {f"model.{name}": array for name, array in params.items()}, "model")
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in filled.items()})
    return model


def save(path: str | Path, model: SequenceClassifier, tokenizer: CharTokenizer, names: Sequence[str]) -> None:
    """Write a model with what it takes to use it, the tokenizer and the names of the classes, as one safetensors file.

    Raises:   CourseError: the file cannot be written; whatever stood there stays. ValueError: not a name for each class.
    """
    write(Path(path), Classifier(to_arrays(model.params()), tokenizer, tuple(names), model.config, "as they are", {}, {}))


def write(path: Path, kept: Classifier) -> None:
    """Write a classifier atomically, with the record and the state of the run that it comes from.

    Raises:   as ``save``.
    """
    if len(kept.names) != kept.config["classes"]:
        raise ValueError(f"names: expected {kept.config['classes']}, one for each class, got {len(kept.names)}")
    header = {"config": kept.config, "tokenizer": kept.tokenizer.to_config(), "names": list(kept.names)}
    header |= {"prepare": kept.prepare, "record": kept.record}
    archive.write(path, FORMAT, header, kept.params | {f"{EXTRA}{name}": array for name, array in kept.extra.items()})


def load(path: str | Path) -> tuple[SequenceClassifier, CharTokenizer, tuple[str, ...]]:
    """The model that ``save`` or ``course train`` wrote, its tokenizer and the names of its classes.

    Raises:   CourseError: no such file, or not a whole classifier of this course.
    """
    if not Path(path).is_file():
        raise CourseError(f"no file {str(path)!r}; save a classifier there first")
    kept = read(path)
    return kept.model(), kept.tokenizer, kept.names


def read(source: str | Path) -> Classifier:
    """A classifier's file, or the best one of a run's folder.

    Raises:   CourseError: no such file, or not a whole classifier of this course.
    """
    path = checkpoint.locate(source, FORMAT)
    if (kind := archive.kind_of(path)) in archive.USES and kind != FORMAT:
        archive.read(path, FORMAT)  # says what the file is for
    try:
        header, found = archive.read(path, FORMAT)
        arrays = {name: array for name, array in found.items() if not name.startswith(EXTRA)}
        config, names = dict(header["config"]), tuple(header["names"])
        tokenizer, record = CharTokenizer.from_config(header["tokenizer"]), dict(header.get("record", {}))
        if _entries(config, len(arrays)) != sum(array.size for array in arrays.values() if array.dtype == np.float32):
            raise ValueError("its configuration asks for other weights than it holds")  # before they take the memory
        if len(names) != config["classes"] or not all(isinstance(name, str) for name in names):
            raise ValueError("it does not name its classes")
        if (prepare := header.get("prepare", "as they are")) not in PREPARE:
            raise ValueError("it does not say how its texts were prepared")
        build(config, arrays)
        extra = {name.removeprefix(EXTRA): array for name, array in found.items() if name.startswith(EXTRA)}
        return Classifier(arrays, tokenizer, names, config, prepare, record, extra)
    except (*archive.UNREADABLE, CourseError) as error:
        what = archive.reason(error)
        raise CourseError(f"{path} is not a whole classifier of this course ({what:.80}); save it again") from error


def _entries(config: dict, most: int) -> int:
    """The number of weights that a configuration asks for, in at most so many arrays."""
    V, E, C, H = (config[name] for name in ("vocab_size", "embedding_size", "classes", "hidden_sizes"))
    if not 0 < len(H) <= most:
        raise ValueError("it has not as many layers as its configuration says")
    return V * E + sum(4 * h * (d + h + 1) for d, h in pairwise((E, *H))) + C * (H[-1] + 1)


def check_examples(name: str, data: Examples, model: SequenceClassifier, device: Any) -> Examples:
    """The examples as int64 tensors on the device, or a ValueError that names what is wrong."""
    if not isinstance(data, tuple) or len(data) != 3 or any(isinstance(part, str | tuple | list) for part in data):
        raise ValueError(f"{name}: expected Examples(tokens, lengths, labels), got {type(data).__name__} of something else; "
                         "make them with classifier.examples(part, tokenizer)")  # fmt: skip
    data = Examples(*(torch.as_tensor(part) for part in data))
    check_encoded(data.tokens, data.lengths, model.config["vocab_size"])
    if data.labels.shape != data.lengths.shape:
        raise ShapeError(f"labels: expected shape {tuple(data.lengths.shape)}, one a text, got {tuple(data.labels.shape)}")
    check_tokens("labels", data.labels.cpu().numpy(), model.config["classes"])
    return Examples(*(part.to(device=device, dtype=torch.int64) for part in data))
