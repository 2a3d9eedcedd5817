"""Train a model within a budget of minutes or steps, in a folder that survives being killed.

A run folder holds ``last.safetensors`` (all that is needed to go on: what was asked, weights, optimiser, position in the text,
random state; there from the first moment on), ``history.jsonl`` (one JSON object a line) and ``best.safetensors`` (the weights
with the lowest validation nats so far, or the best ones by another measure that was asked for). One run at a time is at work
in it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from course_lib import run_folder, tasks
from course_lib.budget import Config, Progress
from course_lib.errors import CourseError
from course_lib.optim import warmup_cosine
from course_lib.trees import leaves

SAVE_EVERY = 20.0  # seconds between checkpoints


class Trainer:
    """One run: ``Trainer(config, folder)`` starts it, ``Trainer.resume(folder)`` picks it up, ``run()`` carries it out."""

    def __init__(self, config: Config, folder: Path, command: str = "", saved: Any = None, hold: run_folder.Hold | None = None):
        self.config, self.folder, self.command = config, folder, command
        self.task = tasks.start(config, saved)
        self.rng = np.random.default_rng(config.seed)
        self.engine = self.task.engine(self.rng)
        self.progress = Progress()
        self.main = self.engine.rank == 0  # the other processes of a run only compute
        self.hold = hold or (run_folder.make(folder) if self.main else None)  # until ``run`` ends
        try:
            if saved:
                self._restore(saved)
            self.save()
        except BaseException:
            if self.hold:
                self.hold.release()
            raise

    @property
    def params(self) -> Any:
        """The weights as they are now."""
        return self.engine.params

    @classmethod
    def resume(cls, folder: Path, minutes: float | None = None, command: str = "") -> Trainer:
        """Pick up a run where its last checkpoint left it; ``minutes`` may change its budget.

        Raises:   CourseError: no run, at work already, no text, another text, or a damaged checkpoint. ValueError: minutes not
                  positive.
        """
        hold = None if int(os.environ.get("RANK", 0)) else run_folder.reopen(folder)
        last = folder / run_folder.LAST
        try:
            saved = tasks.load_saved(last)
            try:
                config, begun = Config(**saved.record["run"]), str(saved.record["command"])
            except (KeyError, TypeError, ValueError) as error:
                raise CourseError(f"{last} is no run to go on with, but a model alone; start a new run") from error
            if minutes is not None:
                config, begun = replace(config, minutes=minutes, steps=None), f"{begun}; {command}"
            return cls(config, folder, begun, saved, hold)
        except BaseException:
            if hold:
                hold.release()
            raise

    def run(self, report: Callable[[Progress, dict], None] = lambda progress, line: None) -> Progress:
        """Train until the budget is used; ``report`` sees the progress after each step, and each line of the history.

        Raises:   CourseError: the loss is no longer finite. KeyboardInterrupt: after saving.
        """
        with self.hold or contextlib.nullcontext(), _stop_requests() as requests, np.errstate(all="ignore"):
            try:
                self._run(report, requests)
            except ValueError as error:  # the library met NaN
                self._stop(str(error))
            self.save()
        if requests:
            raise KeyboardInterrupt
        return self.progress

    def _run(self, report: Callable[[Progress, dict], None], requests: list) -> None:
        p, config = self.progress, self.config
        saved_at, began = p.seconds, time.perf_counter() - p.seconds
        source = self._batches()
        while (done := p.fraction(config)) < 1 and not self._stopped(requests):
            tokens, targets = next(source)
            lr = config.peak_lr() * warmup_cosine(done)
            loss, norm = self.engine.step(tokens, targets, lr)
            if not math.isfinite(loss + norm):
                self._stop(f"the loss is {loss:.3g} with gradient norm {norm:.3g}")
            p.step, p.tokens, p.batch = p.step + 1, p.tokens + self.task.count(targets), p.batch + 1
            p.smooth = loss if math.isnan(p.smooth) else 0.98 * p.smooth + 0.02 * loss
            self._tell_time(began)
            line = {"step": p.step, "seconds": round(p.seconds, 2), "tokens": p.tokens, "nats": round(loss, 4), "lr": lr}
            if p.fraction(config) * config.looks() >= p.evaluated + 1:
                line |= self._evaluate()
                self._tell_time(began)
            if self.main and ("validation_nats" in line or p.step % 50 == 1):
                run_folder.append(self.folder, line)
            if p.seconds - saved_at > SAVE_EVERY:
                self.save()
                saved_at = p.seconds
            report(p, line)

    def _stopped(self, requests: list) -> bool:
        """Whether to stop: a signal came to one of the processes, or there was no better evaluation for too long."""
        patience = self.config.patience
        return self.engine.total(len(requests))[0] > 0 or (patience is not None and self.progress.stale >= patience)

    def _tell_time(self, began: float) -> None:
        """Note the seconds of the run; the first process's clock is everybody's."""
        (self.progress.seconds,) = self.engine.total((time.perf_counter() - began) * self.main)

    def save(self) -> None:
        """Write last.safetensors: the run can go on from here."""
        params, state = self.params, self.engine.dump()
        if not self.main:
            return
        if not all(np.isfinite(array).all() for array in leaves(params)):
            self._stop("a weight is too large")
        run = {"run": asdict(self.config), "progress": asdict(self.progress), "random": self.rng.bit_generator.state}
        last, record = self.folder / run_folder.LAST, self._record() | run
        self.task.save(last, params, record, state)

    def _restore(self, saved: Any) -> None:
        if saved.record.get("data_sha256") != self.task.sha256:
            raise CourseError(f"{self.config.data} is not the data this run began with; restore it, or start a new run")
        try:
            if saved.config != self.task.model:
                raise ValueError("it holds another model than was asked for")
            self.progress = Progress(**saved.record["progress"])
            self.engine.restore(saved.extra, self.progress.step)
            self.rng.bit_generator.state = saved.record["random"]
        except (KeyError, TypeError, ValueError) as error:
            raise CourseError(f"{self.folder} cannot go on from last.safetensors ({error}); start a new run") from error
        self.progress.evaluated = int(self.progress.fraction(self.config) * self.config.looks())  # of a new budget
        if self.main:
            run_folder.rewind(self.folder, self.progress.step)

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        """Pass after pass over the data, from where the run stands; each pass starts with a state of zeros."""
        while True:
            yield from islice(self.task.batches(self.progress.passes), self.progress.batch, None)
            self.progress.batch, self.progress.passes = 0, self.progress.passes + 1
            self.engine.reset_state()

    def _evaluate(self) -> dict[str, float]:
        """Look at the held-out part, and keep the weights if they are the best so far; what the history says of them."""
        (nats, count), measures = (0.0, 0), {}
        if self.main:
            (nats, count), measures = self.engine.evaluate(self.task.validation), self.task.measures(self.engine)
        nats, count, score = self.engine.total(nats, count, measures.get(self.config.best_by, 0.0))
        p = self.progress
        if not math.isfinite(nats):
            self._stop("the held-out loss is not finite")
        p.evaluated, p.stale = p.evaluated + 1, p.stale + 1
        found = {f"validation_{name}": value for name, value in ({"nats": nats / count} | measures).items()}
        if (score, -nats / count) > (p.score, -p.best):  # the lower nats decide between equal scores
            p.best, p.score, p.stale = nats / count, score, 0
            if self.main:
                self.task.save(self.folder / run_folder.BEST, self.engine.averaged, self._record() | found, {})
        return {name: round(value, 4) for name, value in found.items()}

    def _record(self) -> dict[str, Any]:
        p, c, params = self.progress, self.config, self.params
        return {
            "data": c.data,
            "data_sha256": self.task.sha256,
            "command": self.command,
            "engine": self.engine.name,
            "seed": c.seed,
            "seconds": round(p.seconds, 1),
            "steps": p.step,
            "tokens": p.tokens,
            "parameters": sum(array.size for array in leaves(params)) - (params.W_out.size if c.tie else 0),  # tied: one of two
        }

    def _stop(self, what: str) -> None:
        raise CourseError(
            f"training broke down after step {self.progress.step}: {what}; start again with a lower --lr than "
            f"{self.config.peak_lr():.2g} (the last checkpoint in {self.folder} is good)"
        )


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
