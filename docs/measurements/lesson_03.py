"""The searches behind lesson 03: learning rates, seeds and longer runs; about three minutes on two cores.

    .venv/bin/python docs/measurements/lesson_03.py > docs/measurements/lesson_03.md

The functions are the lesson's own: they are taken out of its notebook, so what is measured here is what is taught there.
"""

from __future__ import annotations

import ast
import functools
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process a core; before NumPy is loaded

import matplotlib
import nbformat
import numpy as np

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_vanishing_gradients.ipynb"
STARTS, RNN_RATES, LSTM_RATES = ("uniform", "orthogonal", "identity"), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (5e-3, 1e-2, 2e-2, 4e-2)


NAMES = {
    "measure", "train_model", "read", "cell_derivatives", "adding_problem", "train_adding", "rnn_layer", "lstm_layer",
    "smooth", "steps_to_learn", "corpus", "tokenizer", "train", "passages",
}  # fmt: skip


@functools.cache
def lesson() -> dict:
    """The lesson's imports, and the functions and data of it that are needed here, by name."""
    matplotlib.use("Agg")
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    names: dict = {}
    for node in (node for source in cells for node in ast.parse(source).body):
        assigned = ast.unparse(node.targets[0]).strip("()").split(",") if isinstance(node, ast.Assign) else []
        defined = [node.name] if isinstance(node, ast.FunctionDef) else assigned
        if isinstance(node, ast.Import | ast.ImportFrom) or NAMES & set(defined):
            exec(compile(ast.Module([node], []), str(NOTEBOOK), "exec"), names)
    return names


def final_error(kind: str, start: str | float, T: int, lr: float, seed: int, steps: int, H: int) -> tuple[float, int]:
    """Mean squared error of the last 100 steps, and the step at which the mean of 20 fell below 0.05 (or all steps)."""
    names = lesson()
    losses = names["train_adding"](names[f"{kind}_layer"](start, seed, H), T, lr, steps, seed)
    return float(losses[-100:].mean()), int(names["steps_to_learn"](losses))


def memory(seed: int) -> tuple[float, float]:
    """Median norm of dh_T/dh_t 20 characters back on ten passages of text, before and after training."""
    names = lesson()
    models = (
        names["language_model"].init(names["tokenizer"].size, 32, 64, 1, "rnn", seed),
        names["train_model"]("rnn", 5e-3, seed)[0],
    )
    caches = [names["read"](model, names["passages"]) for model in models]
    before, after = (np.median([names["measure"](cache, n)[0][20] for n in range(10)]) for cache in caches)
    return float(before), float(after)


def reach(bias: float, seed: int) -> tuple[float, float]:
    """Norm of dC_T/dC_t of an untrained LSTM on the adding problem at T = 60, 10 and 59 steps back."""
    names = lesson()
    layer, (x, _) = names["lstm_layer"](bias, seed), names["adding_problem"](np.random.default_rng(seed), 60, 1)
    layer = names["trees"].map_tree(lambda weight: weight.astype(np.float64), layer)
    cache = names["sequence"].lstm_forward(x.astype(np.float64), names["zero_state"]((layer,), 1)[0], layer)[2]
    norms = np.linalg.norm(names["cell_derivatives"](cache)[0], 2, axis=(1, 2))[::-1]
    return float(norms[10]), float(norms[59])


def main() -> None:
    grid = {
        "RNN, 32 units": [("rnn", s, 100, lr, seed, 700, 32) for s in STARTS for lr in RNN_RATES for seed in range(3)],
        "RNN, 64 units": [("rnn", s, 100, lr, seed, 700, 64) for s in STARTS for lr in (3e-4, 1e-3) for seed in range(2)],
        **{f"LSTM, bias 2, lr {lr:g}": [("lstm", 2.0, 100, lr, seed, 700, 32) for seed in range(4)] for lr in LSTM_RATES},
        "RNN, 4000 steps": [("rnn", s, 100, lr, 0, 4000, 32) for s in STARTS for lr in (3e-4, 1e-3)],
        **{f"T = 60, bias {b}": [("lstm", float(b), 60, 2e-2, seed, 450, 32) for seed in range(9)] for b in (0, 2, 4)},
    }
    with ProcessPoolExecutor(2) as pool:
        runs = {name: [pool.submit(final_error, *job) for job in jobs] for name, jobs in grid.items()}
        memories, reaches = list(pool.map(memory, range(9))), {b: list(pool.map(reach, [b] * 3, range(3))) for b in (0, 2, 4)}
        found = {name: [run.result() for run in futures] for name, futures in runs.items()}
    print(f"# The searches behind lesson 03\n\nMade by `python docs/measurements/lesson_03.py` on {date.today()}: ", end="")
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, one thread a run.")
    table("The adding problem", "what", "runs", "error: least, largest", "below 0.05 after (steps)")
    for name, results in found.items():
        errors, steps = zip(*results, strict=True)
        each = [str(n) if n < grid[name][0][5] else "never" for n in steps]
        learnt = ", ".join(each) if set(each) != {"never"} else "never"
        print(f"| {name} | {len(results)} | {min(errors):.4f}, {max(errors):.4f} | {learnt} |")
    table("Memory of a character RNN: median norm of dh_T/dh_t, 20 characters back", "seed", "before", "after", "ratio")
    for seed, (before, after) in enumerate(memories):
        print(f"| {seed} | {before:.1e} | {after:.1e} | {after / before:.2f} |")
    table("Norm of dC_T/dC_t at the start, adding problem, T = 60, three seeds", "forget bias", "10 back", "59 back")
    for bias, pairs in reaches.items():
        print(f"| {bias} | {', '.join(f'{a:.2g}' for a, _ in pairs)} | {', '.join(f'{b:.2g}' for _, b in pairs)} |")


def table(title: str, *columns: str) -> None:
    """Print a heading and the head of a table."""
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


if __name__ == "__main__":
    main()
