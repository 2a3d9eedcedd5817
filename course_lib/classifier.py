"""Train and use a classifier of texts: ``fit`` on the categorical cross-entropy with Adam, ``evaluate``, ``predict`` from text.

What Keras users know as Embedding, LSTM(128, return_sequences=True), LSTM(128), Dense(10), compile, fit, evaluate and predict
is ``SequenceClassifier(V, E, (128, 128), 10)`` and the functions of this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from course_lib.classifier_model import Examples, SequenceClassifier, check_examples, load, save
from course_lib.languages import Part, encode
from course_lib.metrics import confusion
from course_lib.optim import warmup_cosine
from course_lib.text import CharTokenizer
from course_lib.torch_tokens import similar_lengths

__all__ = [
    "Epoch", "Examples", "SequenceClassifier", "accuracy_by_prefix", "batches", "confusion", "evaluate", "examples", "fit",
    "load", "log_probs", "predict", "save",
]  # fmt: skip

MAX_NORM = 1.0  # of the gradient


class Epoch(NamedTuple):
    """One row of a history: mean losses in nats a text, shares of right answers, and the seconds it took.

    The training columns are means over the epoch's batches, each measured before the step it led to, with dropout.
    """

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def examples(part: Part, tokenizer: CharTokenizer) -> Examples:
    """The texts of a part as tokens, with their labels.

    Raises:   ValueError: no texts, or an empty one.
    """
    return Examples(*(torch.from_numpy(array) for array in (*encode(part.texts, tokenizer), part.labels)))


def fit(
    model: SequenceClassifier,
    train: Examples,
    validation: Examples,
    epochs: int = 10,
    batch_size: int = 64,
    lr: float = 5e-3,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[str], Any] | None = None,
) -> list[Epoch]:
    """Train a model in place: Adam on the cross-entropy, the gradient clipped, the learning rate falling along a cosine to 0.

    Each epoch deals the texts anew into batches of similar length. The same seed gives the same weights on the same machine;
    it also restarts torch's random numbers, from which dropout draws.

    Args:     lr: the highest learning rate. device: where to train; the model stays there. report: gets a line an epoch.
    Returns:  A row for each epoch.
    Raises:   ValueError: naming the argument: no texts, labels outside [0, C), numbers that are not positive.
    """
    for name, value in {"epochs": epochs, "batch_size": batch_size, "lr": lr}.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    train, validation = (check_examples(name, data, model, device) for name, data in
                         (("train", train), ("validation", validation)))  # fmt: skip
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model.to(device)
    adam = torch.optim.Adam(model.parameters(), lr)
    steps, step, history = epochs * -(-len(train.labels) // batch_size), 0, []
    for number in range(1, epochs + 1):
        start, loss_sum, right = time.perf_counter(), 0.0, 0
        model.train()
        for batch in batches(train, batch_size, rng):
            logits = model(batch.tokens, batch.lengths)
            loss = nn.functional.cross_entropy(logits, batch.labels)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            adam.param_groups[0]["lr"] = lr * warmup_cosine(step / steps, floor=0.0)
            adam.step()
            step += 1
            loss_sum += len(batch.labels) * loss.item()
            right += (logits.argmax(1) == batch.labels).sum().item()
        n = len(train.labels)
        history.append(Epoch(loss_sum / n, right / n, *evaluate(model, validation), time.perf_counter() - start))
        if report:
            last = history[-1]
            report(f"epoch {number}: loss {last.train_loss:.3f}, validation {last.validation_loss:.3f}, "
                   f"{last.validation_accuracy:.3f} right")  # fmt: skip
    model.eval()
    return history


def batches(data: Examples, batch_size: int, rng: np.random.Generator) -> list[Examples]:
    """The examples in batches, in random order; texts of one batch are of similar length, and it is as long as its longest."""
    return [_select(data, places) for places in similar_lengths(data.lengths.cpu().numpy(), batch_size, rng)]


def log_probs(model: SequenceClassifier, data: Examples, batch_size: int = 512) -> np.ndarray:
    """log p(class | text), (N, C) float64, in the order of the data and without dropout."""
    device = model.linear.weight.device
    data = check_examples("data", data, model, device)
    order = torch.argsort(data.lengths, stable=True).cpu().numpy()
    out = np.empty((len(order), model.linear.out_features))
    with _evaluating(model):
        for k in range(0, len(order), batch_size):
            batch = _select(data, order[k : k + batch_size])
            out[order[k : k + batch_size]] = model(batch.tokens, batch.lengths).double().log_softmax(1).cpu().numpy()
    return out


def evaluate(model: SequenceClassifier, data: Examples) -> tuple[float, float]:
    """Mean loss in nats a text, and the share of right answers."""
    found, labels = log_probs(model, data), data.labels.cpu().numpy()
    return float(-found[np.arange(len(labels)), labels].mean()), float((found.argmax(1) == labels).mean())


def predict(model: SequenceClassifier, texts: Sequence[str], tokenizer: CharTokenizer) -> np.ndarray:
    """Probabilities of the classes for each text, (N, C); the tokenizer is that of training.

    Raises:   ValueError: not a list of texts, or an empty one.
    """
    tokens, lengths = (torch.from_numpy(array) for array in encode(texts, tokenizer))
    return np.exp(log_probs(model, Examples(tokens, lengths, torch.zeros_like(lengths))))


def accuracy_by_prefix(model: SequenceClassifier, data: Examples, seen: Sequence[int]) -> np.ndarray:
    """The share of right answers when only the first k characters of each text are read, for each k of ``seen``.

    One pass is enough: the state after k characters does not depend on those that follow.
    """
    if min(seen, default=0) < 1:
        raise ValueError(f"seen: expected numbers of characters, at least 1 each, got {list(seen)}")
    data = check_examples("data", data, model, model.linear.weight.device)
    with _evaluating(model):
        guesses = model.linear(model.states(data.tokens, data.lengths)).argmax(2)  # (T, N)
    at = torch.arange(len(data.labels), device=guesses.device)
    return np.array([(guesses[data.lengths.clamp(max=k) - 1, at] == data.labels).double().mean().item() for k in seen])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; afterwards the model is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _select(data: Examples, chosen: np.ndarray) -> Examples:
    """Some of the examples, the tokens no longer than the longest of them."""
    at = torch.as_tensor(chosen, device=data.labels.device)
    lengths = data.lengths[at]
    return Examples(data.tokens[: int(lengths.max()), at], lengths, data.labels[at])
