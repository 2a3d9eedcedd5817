"""Two processes against one: training tokens a second under torchrun, on CPUs, and what the processes say to each other.

Run: python benchmarks/processes.py --write, about 4 minutes on two cores with nothing else running. Each row is a run of
`course train` on the same text: one process with one thread, one with two, two with one thread each. Rounds are interleaved and
the medians compared. The step before a timing is checked: one process and two end with the same loss to four digits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch

RECORD = Path(__file__).parents[1] / "docs" / "measurements" / "processes.md"
SIZES = ((128, 1, 32, 64), (256, 1, 32, 64), (512, 1, 32, 64))  # H, layers, streams, window
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
ROUNDS, STEPS = 3, 20
COURSE = Path(sys.executable).with_name("course")


def train(folder: Path, size: tuple, processes: int, threads: int) -> tuple[float, float]:
    """Tokens a second between the first step and the last, and the loss of the last."""
    H, layers, streams, window = size
    out = folder / f"{time.monotonic_ns()}"
    sizes = {"hidden": H, "layers": layers, "batch-size": streams, "window": window, "steps": STEPS + 1, "out": out}
    options = {"data": "text.txt", "engine": "torch", "device": "cpu", "evaluations": 1} | sizes
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    command = [*(launch if processes > 1 else []), COURSE, "train", *(f"--{name}={value}" for name, value in options.items())]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = lines[0], lines[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]), last["nats"]


def exchange(numbers: int, rounds: int = 20) -> float:
    """Milliseconds to sum so many float32 over two processes through gloo."""
    code = (
        "import time, torch, torch.distributed as d\n"
        "d.init_process_group('gloo'); x = torch.ones({n}); d.all_reduce(x); t = time.perf_counter()\n"
        "for _ in range({r}): d.all_reduce(x)\n"
        "d.get_rank() or print(1e3 * (time.perf_counter() - t) / {r})\n"
        "d.destroy_process_group()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "exchange.py"
        script.write_text(code.format(n=numbers, r=rounds), encoding="utf-8")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return float(subprocess.run(launch, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {RECORD.name}")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    lines = ["# Two processes against one", "", "Made by `python benchmarks/processes.py --write`; see there.", ""]
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs; torch {torch.__version__}, gloo"
    heads = ["H, layers, streams, window", *WAYS, "two / the best of one", "gradients, MB", "exchange, ms"]
    lines += [f"{date.today().isoformat()}, {machine}.", "", "| " + " | ".join(heads) + " |"]
    lines += ["| --- |" + " ---: |" * (len(WAYS) + 3)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = np.array(["the ", "quick ", "brown ", "fox ", "jumps ", "over ", "a ", "lazy ", "dog.\n", "and "])
        (folder / "text.txt").write_text("".join(rng.choice(words, 60_000)), encoding="utf-8")
        for size in SIZES:
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            losses: dict[str, float] = {}
            for _ in range(ROUNDS):
                for way, (processes, threads) in WAYS.items():
                    speed, losses[way] = train(folder, size, processes, threads)
                    found[way].append(speed)
            if max(losses.values()) - min(losses.values()) > 2e-3:
                raise SystemExit(f"not the same training: {losses}")
            H, layers = size[:2]
            parameters = 4 * H * (64 + H) + (layers - 1) * 8 * H * H + 30 * (64 + H)
            speeds = [median(values) for values in found.values()]
            ratio = median(b / max(a) for *a, b in zip(*found.values(), strict=True))
            sent = [f"{4e-6 * parameters:.1f}", f"{exchange(parameters):.1f}"]
            row = [f"{speed:,.0f}" for speed in speeds] + [f"{ratio:.2f}", *sent]
            lines.append(f"| {', '.join(map(str, size))} | " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
            if options.write:  # each row at once: whoever stops it keeps what was measured
                end = ["", "Numbers are training tokens a second, the median of three rounds.", ""]
                RECORD.write_text("\n".join([*lines, *end]), encoding="utf-8")


if __name__ == "__main__":
    main()
