"""What a run of ``course train --task classify`` learns: the language of a name, or the labels of a file's lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from course_lib import classifier
from course_lib.budget import Config
from course_lib.classifier_engine import ClassifierEngine
from course_lib.classifier_model import Classifier, write
from course_lib.errors import CourseError
from course_lib.labelled import NAMES, load_labelled
from course_lib.text import UNKNOWN_ID, CharTokenizer


class ClassifierTask:
    """A ``tasks.Task``: batches of texts of similar length, dealt anew in each pass."""

    def __init__(self, config: Config, saved: Classifier | None = None):
        self.config, self.saved = config, saved
        corpus = load_labelled(config.data)
        self.sha256, self.names = corpus.sha256, corpus.names
        self.tokenizer = saved.tokenizer if saved else CharTokenizer.from_text("".join(corpus.train.texts))
        self.train, self.validation = (classifier.examples(part, self.tokenizer) for part in (corpus.train, corpus.validation))
        self.model = {
            "vocab_size": self.tokenizer.size + 1,  # and the padding
            "embedding_size": config.embedding,
            "classes": len(self.names),
            "hidden_sizes": [config.hidden] * config.layers,
            "dropout": config.dropout,
        }
        held_out = f"{len(self.validation.labels):,} held out, V = {self.model['vocab_size']}, {len(self.names)} classes"
        self.sizes = f"{len(self.train.labels):,} texts to train on, {held_out}"

    def engine(self, rng: np.random.Generator) -> ClassifierEngine:
        """Torch's: its random numbers follow from the seed."""
        if self.saved:  # what it holds; the trainer compares that with what was asked for
            return ClassifierEngine(self.config, self.saved.config, self.saved.params)
        return ClassifierEngine(self.config, self.model, None)

    def batches(self, number: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        """Pass ``number``: every text once, dealt by the seed and this number."""
        rng = np.random.default_rng([self.config.seed, number])
        for batch in classifier.batches(self.train, self.config.batch_size, rng):
            yield batch[:2], batch.labels

    def count(self, targets: Tensor) -> int:
        """The texts."""
        return len(targets)

    def measures(self, engine: ClassifierEngine) -> dict[str, float]:
        """The share of right answers."""
        right = engine.log_probs(self.validation).argmax(1) == self.validation.labels.numpy()
        return {"accuracy": float(right.mean())}

    def save(self, path: Path, params: Any, record: dict, extra: dict[str, np.ndarray]) -> None:
        """See classifier_model.write."""
        prepare = "names" if self.config.data == NAMES else "cleaned"
        write(path, Classifier(params, self.tokenizer, self.names, self.model, prepare, record, extra))


def score(found: Classifier, data: str, split: str) -> dict[str, Any]:
    """How well a classifier does on a part of some labelled texts, whose labels it must know.

    Args:     data: "languages" or a file. split: "train", "validation" or "test".
    Returns:  nats per text, accuracy, recall (for each class of the part, the share of its texts that is told right), texts,
              and how many of their characters are unknown.
    Raises:   CourseError: see labelled.load_labelled; a class that the classifier has never learned.
    """
    corpus = load_labelled(data)
    part = getattr(corpus, split)
    if strange := set(corpus.names) - set(found.names):
        known = ", ".join(found.names)
        raise CourseError(f"{data} has the label {min(strange)!r:.40}, which is none of {known:.100}; choose other data")
    labels = np.array([found.names.index(name) for name in corpus.names])[part.labels]
    examples = classifier.examples(part._replace(labels=labels), found.tokenizer)
    log_probs = classifier.log_probs(found.model(), examples)
    right = log_probs.argmax(1) == labels
    return {
        "nats": float(-log_probs[np.arange(len(labels)), labels].mean()),
        "accuracy": float(right.mean()),
        "recall": {found.names[y]: float(right[labels == y].mean()) for y in np.unique(labels)},
        "texts": len(labels),
        "unknown": int((examples.tokens == UNKNOWN_ID + 1).sum()),
        "data": data,
        "split": split,
        "data_sha256": corpus.sha256,
    }
