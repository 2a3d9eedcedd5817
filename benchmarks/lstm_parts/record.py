"""The record of benchmarks/lstm_speed.py: what a row holds, what is noted about a run, and the two files it is written to."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lstm_parts.page import page
from lstm_parts.subjects import REFERENCE

from course_lib import roofline
from course_lib.checkpoint import write_atomically


def row(sizes: tuple[int, int, int, int], precision: str, mode: str, cells: dict[str, dict], name: str, ceilings: dict) -> dict:
    """One line of the record, a backend at a size in a precision and a mode; ``roofline.recorded_rows`` explains it."""
    (T, N, D, H), cell = sizes, cells[name]
    result = {"precision": precision, "T": T, "N": N, "D": D, "H": H, "mode": mode, "backend": name}
    result["note"] = cell["note"] or cell["late"].get(mode)
    result |= {key: rounded(cell[key]) for key in ("error_numpy", "error_nn", "prepare_s") if key in cell}
    if result["note"] or mode not in cell["seconds"]:
        return result
    rounds = cell["seconds"][mode]
    seconds, training, itemsize = float(np.median(rounds)), mode == "training", roofline.dtype_of(precision).itemsize
    once, each_step = (
        roofline.bytes_lstm(T, N, D, H, itemsize, training=training, on_chip=on_chip) for on_chip in (True, False)
    )
    numbers = {
        "ms": 1e3 * seconds,
        "us_per_step": 1e6 * seconds / T,
        "tokens_per_s": T * N / seconds,
        "matrix_share": roofline.flop_lstm(T, N, D, H, training) / seconds / ceilings["matrix"],
        "memory_share": once / seconds / ceilings["memory"],
        "reread_share": each_step / seconds / ceilings["memory"],
    }
    result |= {key: rounded(value) for key, value in numbers.items()}
    result |= {"rounds": len(rounds), "memory_bytes": cell["bytes"].get(mode)}
    if mode in cell["library"]:
        result["library"] = cell["library"][mode]
    if mode in cells[REFERENCE]["seconds"] and not cells[REFERENCE]["note"]:
        low, middle, high = map(rounded, np.quantile(cells[REFERENCE]["seconds"][mode] / rounds, (0.25, 0.5, 0.75)))
        result |= {"ratio": middle, "ratio_quartiles": [low, high]}
    return result


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{float(value):.4g}")


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that a reader needs to know about the run but its numbers."""
    versions: dict[str, Any] = {"python": platform.python_version()}
    for name in ("torch", "numpy", "triton"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    if options.device == "cuda":
        device = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    else:
        device = f"{processor()}, {os.cpu_count()} CPUs, {torch.backends.cpu.get_cpu_capability()}"
    command = shlex.join(["python", "benchmarks/lstm_speed.py", *options.arguments])
    facts = {"device": device, "date": date.today().isoformat(), "command": command, "threads": torch.get_num_threads()}
    return facts | {"versions": versions, "quick": options.quick, "complete": False}


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write(folder: Path, device: str, section: dict) -> None:
    """Write record and page, each whole or not at all. The section of the other kind of device stays: that in the folder's own
    record, or if it has none, that in the repository's."""
    path = folder / roofline.RECORD.name
    before = next((place for place in (path, roofline.RECORD) if place.exists()), None)
    record = (json.loads(before.read_text(encoding="utf-8")) if before else {}) | {device: section}
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    write_atomically(path.with_suffix(".md"), page(record).encode())
