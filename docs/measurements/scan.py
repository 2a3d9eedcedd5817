"""What a recurrence without h in its gates is worth beside an LSTM: on tiny Shakespeare, and on four tasks.

COURSE_DATA=... .venv/bin/python docs/measurements/scan.py text LSTM steps 0.016 0 1   # or MinGRU; or seconds; seeds
.venv/bin/python docs/measurements/scan.py tasks 0                     # a seed of all tasks
.venv/bin/python docs/measurements/scan.py page                        # scan.md anew from scan.json

Rows go to scan.json (a row with the same name is replaced), and scan.md is written anew from all of them.
"""

from __future__ import annotations

import fcntl
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.archive import write_atomically
from course_lib.datasets import batches, load_corpus
from course_lib.text import CharTokenizer
from course_lib.torch_model import LanguageModel, evaluate
from course_lib.torch_scan import ScanLanguageModel, scan
from course_lib.trees import map_tree

RECORD = Path(__file__).with_suffix(".json")
N, T = 32, 128  # streams and steps of a batch of text
STEPS, SECONDS = 300, 50.0  # the two budgets of text; seconds of one CPU, not of the clock on the wall
WARM, CLIP = 50, 1.0


def text_models(V: int) -> dict[str, Callable[[], nn.Module]]:
    """Two models of about the same number of parameters."""
    return {"LSTM": lambda: LanguageModel(V, 64, 305), "MinGRU": lambda: ScanLanguageModel(V, 160, 256, 2)}


def train_text(model: nn.Module, tokens: np.ndarray, rate: float, share: Callable[[int], float]) -> tuple[int, float, float]:
    """AdamW, warm-up, cosine to 0 over the budget; share(steps) of it is used up.

    Returns:  Steps, CPU seconds, wall seconds.
    """
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
    steps, cpu, wall = 0, time.process_time(), time.perf_counter()
    while True:
        state = model.initial_state(N)
        for x, y in batches(tokens, N, T):
            used = share(steps)
            if used >= 1:
                return steps, time.process_time() - cpu, time.perf_counter() - wall
            optimizer.param_groups[0]["lr"] = rate * min(1, (steps + 1) / WARM) * (1 + math.cos(math.pi * used)) / 2
            logits, state = model(torch.from_numpy(x).long(), map_tree(Tensor.detach, state))
            update(model, optimizer, nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).long().flatten()))
            steps += 1


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()


def of_text(name: str, budget: str, rate: str, *seeds: str) -> Iterator[dict[str, Any]]:
    """Nats a character on the last 10 %, after STEPS steps or after SECONDS of CPU time."""
    corpus = load_corpus("tiny_shakespeare")
    tokenizer = CharTokenizer.from_text(corpus.train)
    train, validation = tokenizer.encode(corpus.train), tokenizer.encode(corpus.validation)
    for seed in map(int, seeds):
        torch.manual_seed(seed)
        model, start = text_models(tokenizer.size)[name](), time.process_time()
        shares = {"steps": lambda k: k / STEPS, "seconds": lambda k, start=start: (time.process_time() - start) / SECONDS}
        steps, cpu, wall = train_text(model, train, float(rate), shares[budget])
        nats, count = evaluate(model, validation)
        yield {"name": f"text, {name}, {budget}, rate {float(rate)}, seed {seed}", "kind": "text", "model": name,
               "budget": budget, "rate": float(rate), "seed": seed, "parameters": sum(p.numel() for p in model.parameters()),
               "steps": steps, "cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1),
               "nats": round(nats / count, 4)}  # fmt: skip


class Signed(nn.Module):
    """One linear recurrence whose gates may be negative, a = tanh(W x): what it adds to MinGRU is the sign."""

    def __init__(self, V: int, E: int, H: int):
        super().__init__()
        self.embedding, self.gates = nn.Embedding(V, E), nn.Linear(E, 2 * H)
        self.head = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, V))

    def initial_state(self, batch_size: int) -> None:
        return None

    def forward(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        k, b = self.gates(self.embedding(tokens)).chunk(2, dim=2)
        return self.head(scan(k.tanh(), b)), state


TASK_MODELS: dict[str, Callable[[int], nn.Module]] = {
    "LSTM, 1 layer": lambda V: LanguageModel(V, 32, 48),
    "LSTM, 2 layers": lambda V: LanguageModel(V, 32, 32, 2),
    "MinGRU, 1 block": lambda V: ScanLanguageModel(V, 32, 48, 1),
    "MinGRU, 2 blocks": lambda V: ScanLanguageModel(V, 32, 48, 2),
    "signed gates, no block": lambda V: Signed(V, 32, 48),
}
TASK_STEPS, TASK_BATCH, TASK_RATE = 600, 64, 5e-3


def parity(rng: np.random.Generator, steps: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits; after each of them: is the number of ones so far odd?"""
    bits = rng.integers(0, 2, (steps, n))
    return bits, bits.cumsum(0) % 2


def latch(rng: np.random.Generator, steps: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """0, 1: written; 2, 3: bits to ignore; 4: read, and the answer is the bit written last. Half of all steps are ignored."""
    kinds = rng.choice(3, (steps, n), p=[0.25, 0.5, 0.25])
    bits = rng.integers(0, 2, (steps, n))
    kinds[0] = 0
    last = np.maximum.accumulate(np.where(kinds == 0, np.arange(steps)[:, None], 0))
    return np.where(kinds == 2, 4, bits + 2 * kinds), np.where(kinds == 2, np.take_along_axis(bits, last, 0), -1)


def recall(rng: np.random.Generator, steps: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a key (of 8) and a value (of 8), then keys again in another order: which value did each have?"""
    keys = min(8, steps // 4)
    order, values = rng.permuted(np.tile(np.arange(8), (n, 1)), axis=1)[:, :keys], rng.integers(0, 8, (n, 8))
    pairs = np.stack([order, 8 + np.take_along_axis(values, order, 1)], axis=2).reshape(n, 2 * keys)
    asked = rng.permuted(order, axis=1)
    answers = 8 + np.take_along_axis(values, asked, 1)
    return np.concatenate([pairs, asked], 1).T, np.concatenate([np.full_like(pairs, -1), answers], 1).T


def copy(rng: np.random.Generator, steps: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols (of 8) for a third of the time, blanks for a third, then the symbols again in order."""
    third = steps // 3
    symbols, blank = rng.integers(0, 8, (third, n)), np.full((third, n), 8)
    return np.concatenate([symbols, blank, blank + 1]), np.concatenate([blank * 0 - 1, blank * 0 - 1, symbols])


# vocabulary, steps in training, steps in the two tests, share of right answers by guessing
TASKS = {
    "parity": (parity, 2, 24, (24, 240), 1 / 2),
    "latch": (latch, 5, 48, (48, 480), 1 / 2),
    "recall": (recall, 16, 24, (24,), 1 / 8),
    "copy": (copy, 10, 30, (30,), 1 / 8),
}


def of_tasks(seed: str) -> Iterator[dict[str, Any]]:
    """The share of right answers of each model on each task, on fresh examples."""
    seed = int(seed)
    for task, (draw, V, steps, tests, _) in TASKS.items():
        for name, make in TASK_MODELS.items():
            torch.manual_seed(seed)
            model, rng, start = make(V), np.random.default_rng(seed), time.process_time()
            optimizer = torch.optim.Adam(model.parameters(), TASK_RATE)
            for k in range(TASK_STEPS):
                optimizer.param_groups[0]["lr"] = TASK_RATE * min(1, (k + 1) / WARM, 4 * (1 - k / TASK_STEPS))
                x, y = (torch.from_numpy(part) for part in draw(rng, steps, TASK_BATCH))
                logits, _ = model(x, model.initial_state(TASK_BATCH))
                update(model, optimizer, nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=-1))
            row = {"name": f"{task}, {name}, seed {seed}", "kind": "task", "task": task, "model": name, "seed": seed,
                   "parameters": sum(p.numel() for p in model.parameters()),
                   "cpu_seconds": round(time.process_time() - start, 1)}  # fmt: skip
            for length in tests:
                x, y = (torch.from_numpy(part) for part in draw(np.random.default_rng(1000 + seed), length, 500))
                with torch.no_grad():
                    logits, _ = model(x, model.initial_state(500))
                last = (y >= 0) & (torch.arange(len(y)) >= len(y) // 2)[:, None]  # what is far from the beginning
                row[f"right_{length}"] = round(float((logits.argmax(2) == y)[last].float().mean()), 4)
            yield row


def page(rows: list[dict[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = ["# A recurrence without h in its gates, beside an LSTM", "",
             "Made by `docs/measurements/scan.py`; the same numbers are in `scan.json`. One thread of a shared machine:",
             "seconds are of the CPU (`time.process_time`), and still rough. The fair axis is steps.", ""]  # fmt: skip
    text = [row for row in rows if row["kind"] == "text"]
    if text:
        lines += ["## tiny Shakespeare, nats a character on the last 10 %", "",
                  f"AdamW, {N} streams of {T} characters, cosine to 0 over the budget. MinGRU: two blocks of convolution,",
                  "MinGRU and MLP, with norms and residual sums. In so short a run the peak rate decides: compare the models",
                  "at the best of those tried. The LSTM in a first search, 400 steps, seed 0: 1.886 with 0.004, 1.782 with",
                  "0.008, 1.682 with 0.016. For both models the highest rate tried is the best: neither has reached its own",
                  "best yet, and a lead of 0.02 nats between one seed each settles nothing. A step of MinGRU costs 1.7 times",
                  "the CPU seconds; a comparison at equal seconds is not measured yet where the table has no such row.", "",
                  "| budget | model | parameters | peak rate | steps | CPU seconds | nats a character, mean (each seed) |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for budget, name, rate in sorted(
            {(r["budget"], r["model"], r["rate"]) for r in text}, key=lambda k: (k[0] != "steps", k)
        ):
            part = [row for row in text if (row["budget"], row["model"], row["rate"]) == (budget, name, rate)]
            title = f"{STEPS} steps" if budget == "steps" else f"{SECONDS:.0f} CPU seconds"
            mean = statistics.mean(row["nats"] for row in part)
            lines.append(f"| {title} | {name} | {part[0]['parameters']:,} | {rate} | {_each(part, 'steps')} | "
                         f"{_each(part, 'cpu_seconds')} | **{mean:.3f}** ({_each(part, 'nats')}) |")  # fmt: skip
        lines.append("")
    if any(row["kind"] == "task" for row in rows):
        lines += ["## Four tasks", "",
                  f"{TASK_STEPS:,} steps of {TASK_BATCH} fresh examples, Adam, peak learning rate {TASK_RATE}. Share of right "
                  "answers in the second half of fresh sequences, each seed; a longer length than in training asks whether the "
                  "rule was learned.", "", "| task | length | guessing | " + " | ".join(TASK_MODELS) + " |",
                  "|---" * (3 + len(TASK_MODELS)) + "|"]  # fmt: skip
        for task, (_, _, steps, tests, guess) in TASKS.items():
            for length in tests:
                cells = []
                for name in TASK_MODELS:
                    part = [row for row in rows if row.get("task") == task and row["model"] == name]
                    cells.append(", ".join(f"{row[f'right_{length}']:.3f}" for row in part) or "-")
                longer = "" if length == steps else f", trained on {steps}"
                lines.append(f"| {task} | {length}{longer} | {guess:.3f} | " + " | ".join(cells) + " |")
        lines += ["", "* " + "\n* ".join(f"**{name}**: {draw.__doc__}" for name, (draw, *_) in TASKS.items()), ""]
        sizes = {row["model"]: row["parameters"] for row in rows if row.get("task") == "parity"}
        lines += ["Parameters (parity): " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + ".", ""]
    return "\n".join(lines).rstrip() + "\n"


def _each(rows: list[dict[str, Any]], key: str) -> str:
    return ", ".join(str(row[key]) for row in rows)


def main(what: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    for row in {"text": of_text, "tasks": of_tasks, "page": lambda: ()}[what](*arguments):
        row |= {"measured": date.today().isoformat(), "torch": torch.__version__}
        print(json.dumps(row), flush=True)
        save(row)
    RECORD.with_suffix(".md").write_text(page(read()), encoding="utf-8")


def read() -> list[dict[str, Any]]:
    return json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []


def save(row: dict[str, Any]) -> None:
    """Into the record at once: a run that is stopped has not worked in vain."""
    with Path(__file__).open() as lock:  # seeds and models may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {old["name"]: old for old in read()} | {row["name"]: row}
        write_atomically(RECORD, (json.dumps({"rows": [rows[name] for name in sorted(rows)]}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
