"""Train a language model within a budget of minutes or steps, in a folder that survives being killed.

A run folder holds ``run.json`` (what was asked), ``history.jsonl`` (one JSON object a line), ``last.safetensors`` (all that is
needed to go on: weights, optimiser, position in the text, random state) and ``best.safetensors`` (the weights with the lowest
validation nats so far).
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from course_lib import checkpoint
from course_lib.datasets import Corpus, batches, load_corpus
from course_lib.errors import CourseError
from course_lib.language_model import LanguageModelParams, evaluate, init, initial_state, loss_and_grads
from course_lib.optim import AdamState, adam_, adam_init, clip_global_norm_, warmup_cosine
from course_lib.text import CharTokenizer
from course_lib.trees import leaves, map_tree, named_leaves

SAVE_EVERY = 20.0  # seconds between checkpoints
EVALUATIONS = 5  # in a run, spread evenly over its budget; fewer in a run of less than two minutes


@dataclass(frozen=True)
class Config:
    """What a run is asked to do. Its budget is ``minutes`` of wall clock, or ``steps`` when given: then runs repeat exactly."""

    data: str
    cell: str = "lstm"
    hidden: int = 256
    layers: int = 1
    embedding: int = 64
    batch_size: int = 32
    window: int = 64  # steps of truncated back-propagation, T
    lr: float | None = None  # None: by the budget, see peak_lr
    dropout: float = 0.0
    clip: float = 1.0
    minutes: float = 2.0
    steps: int | None = None
    seed: int = 0

    def evaluations(self) -> int:
        """How often the run looks at the held-out text."""
        return EVALUATIONS if self.steps else max(1, min(EVALUATIONS, int(2.5 * self.minutes)))

    def peak_lr(self) -> float:
        """The highest learning rate of the run: a short run cannot afford small steps, a long one profits from them.

        Measured on tiny Shakespeare (H = 256): about 1.5e-2 is best for half a minute, 8e-3 for two, 2.5e-3 for twenty.
        """
        if self.lr is not None:
            return self.lr
        minutes = self.steps / 2000 if self.steps else self.minutes
        return min(2e-2, max(1.5e-3, 1.1e-2 / math.sqrt(minutes)))


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    batch: int = 0  # in the current pass over the text
    smooth: float = math.nan  # running mean of the training nats
    best: float = math.inf  # lowest validation nats
    evaluated: int = 0  # evaluations done

    def fraction(self, config: Config) -> float:
        """The part of the budget that is used, in [0, 1]."""
        used = self.step / config.steps if config.steps else self.seconds / (60 * config.minutes)
        return min(1.0, used)


class Trainer:
    """One run: ``Trainer(config, folder)`` starts it, ``Trainer.resume(folder)`` picks it up, ``run()`` carries it out."""

    def __init__(self, config: Config, folder: Path, command: str = "", saved: checkpoint.Checkpoint | None = None):
        self.config, self.folder, self.command = config, folder, command
        self.corpus: Corpus = load_corpus(config.data)
        self.tokenizer = saved.tokenizer if saved else CharTokenizer.from_text(self.corpus.train)
        self.train, self.validation = (self.tokenizer.encode(t) for t in (self.corpus.train, self.corpus.validation))
        self.model = {
            "vocab_size": self.tokenizer.size,
            "embedding_size": config.embedding,
            "hidden_size": config.hidden,
            "num_layers": config.layers,
            "cell": config.cell,
        }
        self.params: LanguageModelParams = saved.params if saved else init(**self.model, seed=config.seed)
        self.adam = adam_init(self.params)
        self.state = initial_state(self.params, config.batch_size)
        self.rng = np.random.default_rng(config.seed)
        self.progress = Progress()
        next(batches(self.train, config.batch_size, config.window))  # too little text: say so before anything is written
        if saved:
            self._restore(saved)
        else:
            _new_folder(folder)
            checkpoint.write_atomically(folder / "run.json", json.dumps(asdict(config), indent=1).encode())

    @classmethod
    def resume(cls, folder: Path, minutes: float | None = None, command: str = "") -> Trainer:
        """Pick up a run where its last checkpoint left it; ``minutes`` may change its budget."""
        try:
            config = Config(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CourseError(f"{folder} holds no run to resume (no readable run.json); start one without --resume") from error
        last = folder / "last.safetensors"
        if not last.is_file():
            raise CourseError(f"{folder} stopped before its first checkpoint; delete it and start again")
        if minutes is not None:
            config = replace(config, minutes=minutes)
        return cls(config, folder, command, checkpoint.load(last))

    def run(self, report: Callable[[Progress, dict], None] = lambda progress, line: None) -> Progress:
        """Train until the budget is used; ``report`` sees the progress after each step, and each line of the history.

        Raises:   CourseError: the loss is no longer finite. KeyboardInterrupt: after saving.
        """
        with _stop_requests() as requests:
            self._run(report, requests)
        self.save()
        if requests:
            raise KeyboardInterrupt
        return self.progress

    def _run(self, report: Callable[[Progress, dict], None], requests: list) -> None:
        p, config = self.progress, self.config
        saved_at, began = p.seconds, time.perf_counter() - p.seconds
        source = self._batches()
        while (done := p.fraction(config)) < 1 and not requests:
            tokens, targets = next(source)
            lr = config.peak_lr() * warmup_cosine(done)
            loss, grads, state = loss_and_grads(self.params, tokens, targets, self.state, config.dropout, self.rng)
            norm = clip_global_norm_(grads, config.clip)
            if not math.isfinite(loss + norm):
                self._stop(loss, norm)
            self.adam = adam_(self.params, grads, self.adam, lr)
            self.state = state
            p.step, p.tokens, p.batch = p.step + 1, p.tokens + tokens.size, p.batch + 1
            p.smooth = loss if math.isnan(p.smooth) else 0.98 * p.smooth + 0.02 * loss
            p.seconds = time.perf_counter() - began
            line = {"step": p.step, "seconds": round(p.seconds, 2), "tokens": p.tokens, "nats": round(loss, 4), "lr": lr}
            if p.fraction(config) * config.evaluations() >= p.evaluated + 1:
                line["validation_nats"] = self._evaluate()
                p.seconds = time.perf_counter() - began
            if "validation_nats" in line or p.step % 50 == 1:
                self._log(line)
            if p.seconds - saved_at > SAVE_EVERY:
                self.save()
                saved_at = p.seconds
            report(p, line)

    def save(self) -> None:
        """Write last.safetensors: the run can go on from here."""
        extra = {f"m.{name}": array for name, array in named_leaves(self.adam.m)}
        extra |= {f"v.{name}": array for name, array in named_leaves(self.adam.v)}
        extra |= {f"state.{name}": array for name, array in named_leaves(self.state)}
        record = self._record() | {"progress": asdict(self.progress), "random": self.rng.bit_generator.state}
        checkpoint.save(self.folder / "last.safetensors", self.params, self.tokenizer, self.model, record, extra)

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        if saved.record.get("data_sha256") != self.corpus.sha256:
            raise CourseError(f"{self.config.data} is not the text this run began with; restore it, or start a new run")
        take = iter([saved.extra[f"{k}.{name}"] for k in "mv" for name, _ in named_leaves(self.params)])
        m, v = (map_tree(lambda _: next(take), self.params) for _ in "mv")
        self.progress = Progress(**saved.record["progress"])
        self.progress.evaluated = int(self.progress.fraction(self.config) * self.config.evaluations())  # of a new budget
        self.adam = AdamState(m, v, self.progress.step)
        states = iter([saved.extra[f"state.{name}"] for name, _ in named_leaves(self.state)])
        self.state = map_tree(lambda _: next(states), self.state)
        self.rng.bit_generator.state = saved.record["random"]
        history = self.folder / "history.jsonl"
        kept = [line for line in _lines(history) if line["step"] <= self.progress.step]
        checkpoint.write_atomically(history, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pass after pass over the text, from where the run stands; each pass starts with a state of zeros."""
        while True:
            yield from islice(batches(self.train, self.config.batch_size, self.config.window), self.progress.batch, None)
            self.progress.batch = 0
            self.state = initial_state(self.params, self.config.batch_size)

    def _evaluate(self) -> float:
        nats, count = evaluate(self.params, self.validation)
        p = self.progress
        p.evaluated += 1
        if nats / count < p.best:
            p.best = nats / count
            path = self.folder / "best.safetensors"
            checkpoint.save(path, self.params, self.tokenizer, self.model, self._record() | {"validation_nats": p.best})
        return round(nats / count, 4)

    def _record(self) -> dict[str, Any]:
        p, c = self.progress, self.config
        return {
            "data": c.data,
            "data_sha256": self.corpus.sha256,
            "command": self.command,
            "seed": c.seed,
            "seconds": round(p.seconds, 1),
            "steps": p.step,
            "tokens": p.tokens,
            "parameters": sum(array.size for array in leaves(self.params)),
        }

    def _log(self, line: dict) -> None:
        try:
            with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            where = self.folder / "history.jsonl"
            raise CourseError(f"cannot write {where}: {error.strerror}; free some space, then --resume") from error

    def _stop(self, loss: float, norm: float) -> None:
        p = self.progress
        raise CourseError(
            f"step {p.step + 1}: the loss is {loss:.3g} with gradient norm {norm:.3g}, no longer a number; "
            f"the last checkpoint in {self.folder} is good: start again with a lower --lr than {self.config.peak_lr():.2g}"
        )


def _new_folder(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "already holds a run: add --resume to go on with it" if (folder / "run.json").exists() else "is not empty"
            raise CourseError(f"{folder} {what}, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error


def _lines(path: Path) -> Iterator[dict]:
    """The whole lines of a history; a run killed while writing leaves half a line, which is dropped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


@contextlib.contextmanager
def _stop_requests() -> Iterator[list]:
    """Collect Ctrl-C and the request to terminate in a list, so that a step is finished, and saved, before the run stops."""
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, lambda n, _: requests.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
