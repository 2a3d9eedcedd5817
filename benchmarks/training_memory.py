"""Peak memory of `course train` on 1 MB and on 100 MB of text, with the same settings; it must not grow by more than the text.

Run: python benchmarks/training_memory.py [SECONDS]; each run trains so long (15) and evaluates once. With --write it also
records what it printed in docs/measurements/training_memory.md. The bound: 1.1 times the peak with the short text, plus the
long text.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from course_lib.archive import write_atomically

MB = 1_000_000
SHORT, LONG = 1, 100  # MB of text
SETTINGS = ("--hidden", "64", "--embedding", "32", "--batch-size", "32", "--window", "64")
RECORD = Path(__file__).parents[1] / "docs" / "measurements" / "training_memory.md"


def write_text(path: Path, size: int) -> None:
    """Random words, the frequent ones often, as Zipf has it, with ends of sentences and of lines; the same each time."""
    rng = np.random.default_rng(3)
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    words = ["".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(20_000)]
    share = 1 / np.arange(1, len(words) + 1)
    ends = [" "] * 17 + [", ", ". ", ".\n"]
    with path.open("w", encoding="ascii") as file:
        while size > 0:
            chosen = rng.choice(len(words), 100_000, p=share / share.sum()), rng.choice(len(ends), 100_000)
            size -= file.write("".join(words[w] + ends[e] for w, e in zip(*chosen, strict=True))[:size])


def measure(text: Path, engine: str, seconds: float, out: Path) -> tuple[float, float]:
    """Carry out `course train`: seconds until its first step is in the history, and its peak resident memory in MB."""
    arguments = ("train", "--data", text, "--engine", engine, "--minutes", seconds / 60, "--out", out, *SETTINGS)
    command = [Path(sys.executable).with_name("course"), *map(str, arguments)]
    began, first, peak = time.perf_counter(), float("nan"), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if first != first and (out / "history.jsonl").exists():
            first = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        if found := re.search(r"VmHWM:\s*(\d+) kB", status):  # the most so far
            peak = int(found[1])
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return first, peak * 1024 / MB


def table(seconds: float) -> bool:
    """A row for each engine and text; whether all stay within the bound."""
    print(f"{' '.join(SETTINGS)}; load in the last minute {os.getloadavg()[0]:.1f}")
    print("engine  text MB  first step after s  peak MB  bound MB")
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        for size in (SHORT, LONG):
            write_text(Path(folder, f"{size}.txt"), size * MB)
        for engine in ("numpy", "torch"):
            bound = float("inf")
            for size in (SHORT, LONG):
                first, peak = measure(Path(folder, f"{size}.txt"), engine, seconds, Path(folder, f"{engine}-{size}"))
                print(f"{engine:6} {size:8} {first:19.1f} {peak:8.0f} {bound:9.0f}", flush=True)
                kept &= peak <= bound
                bound = 1.1 * peak + LONG
    return kept


def record() -> None:
    """Run this script without arguments and write what it printed, with machine, date and command."""
    printed = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True).stdout
    print(printed, end="")
    text = f"""# Peak memory of training

Written by `python benchmarks/training_memory.py --write` on {datetime.date.today().isoformat()}; {os.cpu_count()} cores,
{platform.platform()}.

`course train` as its own process, for 15 seconds and one evaluation of the held-out tenth. The peak is the resident memory
(VmHWM); the bound is 1.1 times the peak with {SHORT} MB of text, plus {LONG} MB, the long text itself. A file is read in pieces
and kept as tokens of one byte each where the vocabulary is that small (`datasets.load_tokens`); training takes the memory of
one window, and so does an evaluation.

```
{printed.rstrip()}
```
"""
    write_atomically(RECORD, text.encode())


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        record()
    elif not table(float(sys.argv[1]) if sys.argv[1:] else 15):
        sys.exit("a run took more memory than its bound")
