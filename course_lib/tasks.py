"""What a run learns: its data, its batches in order, the engine that computes, and how a checkpoint of it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from course_lib import archive, checkpoint
from course_lib.budget import Config
from course_lib.datasets import batches, load_tokens
from course_lib.engines import Engine, NumpyEngine
from course_lib.errors import CourseError
from course_lib.language_model import init


class Task(Protocol):
    """What ``training`` asks of a task."""

    sha256: str  # of the data
    sizes: str  # of the data, in words
    model: dict  # the configuration that a checkpoint keeps, without the weights
    validation: Any  # what the engine evaluates

    def engine(self, rng: np.random.Generator) -> Engine:
        """What takes the steps, with the weights to start from."""

    def batches(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The (tokens, targets) of pass ``number`` over the data, the same each time they are asked for."""

    def count(self, targets: Any) -> int:
        """How many tokens are predicted in a batch, or texts classified."""

    def measures(self, engine: Any) -> dict[str, float]:
        """Measures of the held-out part other than nats, each the better the higher, by the weights that the engine judges.

        Those that cost little, and the one that ``config.best_by`` names.
        """

    def save(self, path: Path, params: Any, record: dict, extra: dict[str, np.ndarray]) -> None:
        """Write a checkpoint atomically."""


class LanguageTask:
    """Predict the next character of a text; the streams of a batch go on from one batch to the next."""

    def __init__(self, config: Config, saved: checkpoint.Checkpoint | None = None):
        self.config = config
        self.begun = checkpoint.load(config.start) if config.start and not saved else saved
        found = load_tokens(config.data, self.begun.tokenizer if self.begun else None)
        self.train, self.validation, self.tokenizer, self.sha256 = found
        held_out = f"{len(self.validation):,} held out, V = {self.tokenizer.size}"
        self.sizes = f"{len(self.train):,} characters to train on, {held_out}"
        self.model = {
            "vocab_size": self.tokenizer.size,
            "embedding_size": config.embedding,
            "hidden_size": config.hidden,
            "num_layers": config.layers,
            "cell": config.cell,
        }
        next(self.batches(0))  # too little text: say so before anything is written

    def engine(self, rng: np.random.Generator) -> Engine:
        """NumPy's or torch's, as the configuration asks; torch is imported only then."""
        params = self.begun.params if self.begun else init(**self.model, seed=self.config.seed)
        if self.config.engine == "numpy":
            return NumpyEngine(self.config, params, rng)
        with torch_needed("--engine torch", "leave it out"):
            from course_lib.torch_engine import TorchEngine
        return TorchEngine(self.config, params)

    def batches(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every pass is the same walk along the text."""
        return batches(self.train, self.config.batch_size, self.config.window)

    def count(self, targets: np.ndarray) -> int:
        """All of them."""
        return targets.size

    def measures(self, engine: Engine) -> dict[str, float]:
        """None: a text is measured by its nats."""
        return {}

    def save(self, path: Path, params: Any, record: dict, extra: dict[str, np.ndarray]) -> None:
        """See checkpoint.save."""
        checkpoint.save(path, params, self.tokenizer, self.model, record, extra)


@contextmanager
def torch_needed(what: str, instead: str) -> Iterator[None]:
    """Around an import of torch: its failure becomes one line that names what asked for it."""
    try:
        yield
    except ImportError as error:
        raise CourseError(f"{what} cannot import PyTorch ({error}); run make setup, or {instead}") from error


def load_saved(path: Path) -> Any:
    """The checkpoint of a run, whatever its task.

    Raises:   CourseError: the reasons of ``archive.read``.
    """
    kind = archive.kind_of(path)
    if kind not in (archive.TRANSLATOR, archive.CLASSIFIER):
        return checkpoint.load(path)
    with torch_needed(f"a {'translator' if kind == archive.TRANSLATOR else 'classifier'}", "choose another run"):
        from course_lib import classifier_model, translator
    return translator.load(path) if kind == archive.TRANSLATOR else classifier_model.read(path)


def start(config: Config, saved: Any = None) -> Task:
    """The task that a configuration asks for."""
    if config.task == "language":
        return LanguageTask(config, saved)
    with torch_needed(f"--task {config.task}", "leave it out"):
        from course_lib.classifier_task import ClassifierTask
        from course_lib.translation_task import TranslationTask
    return TranslationTask(config, saved) if config.task == "translate" else ClassifierTask(config, saved)
