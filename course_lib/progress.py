"""Show how a run goes: a bar on a terminal; in a log, where a bar would be thousands of lines, one line now and then."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from course_lib.budget import Config, Progress
from course_lib.metrics import bits_per_character, perplexity

LINE_EVERY = 30.0  # seconds between lines where there is no bar


class ProgressBar(tqdm):
    """A tqdm bar over the budget of a run; its ``report`` is what ``Trainer.run`` calls."""

    def __init__(self, config: Config, start: Progress):
        self.config = config
        self.whole = config.steps or round(60 * config.minutes, 1)
        self.printed = time.monotonic()
        form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        super().__init__(total=self.whole, initial=self._done(start), bar_format=form, disable=None)  # None: only on a terminal

    def report(self, p: Progress, line: dict) -> None:
        """Show the progress after a step; ``line`` is the step's line of the history."""
        what = "texts" if self.config.task == "classify" else "tokens"
        now = f"{self._units(p.smooth)}, {p.tokens / p.seconds:,.0f} {what}/s"
        self.set_postfix_str(now, refresh=False)
        self.update(self._done(p) - self.n)
        if "validation_nats" in line:
            others = {name.removeprefix("validation_"): value for name, value in line.items() if name.startswith("validation_")}
            shown = [f"{name} {value:.3f}" for name, value in others.items() if name != "nats"]
            self._print(f"step {p.step}: held-out {', '.join([self._units(others['nats']), *shown])}")
        elif self.disable and time.monotonic() - self.printed > LINE_EVERY:
            self._print(f"step {p.step}: {now}, {p.fraction(self.config):.0%} done")

    def _units(self, nats: float) -> str:
        """A translator's tokens may be words, which have no bits a character; a classifier's nats are a text's."""
        if self.config.task == "classify":
            return f"{nats:.3f} nats"
        if self.config.task == "translate":
            return f"{nats:.3f} nats, perplexity {perplexity(nats):.2f}"
        return f"{nats:.3f} nats, {bits_per_character(nats):.3f} bits/char"

    def _done(self, p: Progress) -> float:
        return min(self.whole, p.step if self.config.steps else p.seconds)

    def _print(self, text: str) -> None:
        self.write(text, sys.stdout)
        sys.stdout.flush()
        self.printed = time.monotonic()
