"""Every backend of our LSTM against torch.nn.LSTM in one run: correct first, then time, share of the ceilings, memory.

Run: python benchmarks/lstm_speed.py --write, about 8 minutes on two cores with nothing else running, or with --device cuda on
a GPU. Each writes its own section of docs/measurements/lstm_speed.json, and lstm_speed.md anew; the other section stays.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lstm_parts.page import page
from lstm_parts.subjects import (
    BACKENDS,
    REFERENCE,
    Problem,
    Subject,
    by_numpy,
    memory_bytes,
    problem,
    unavailable,
    widened,
    worst_error,
)

from course_lib import roofline, torch_sequence
from course_lib.checkpoint import write_atomically

SIZES, QUICK = [(256, 64, H) for H in (128, 256, 512, 1024)], [(24, 8, 16), (24, 8, 40)]  # T, N, H; D = H
SHORT = 19  # steps of the comparison with NumPy: two groups of run_compiled and a rest
# The error that is allowed, against NumPy in float64 over SHORT steps and against torch.nn.LSTM in float32 over all T steps.
# bf16 keeps 8 significant bits and TF32 11; what was rounded in one step is an argument of all that follow.
BOUNDS = {"fp32": (1e-5, 1e-5), "tf32": (5e-3, 5e-3), "bf16": (5e-2, 5e-2)}
MODES = ("forward", "training")
GROWTH = (1, 2, 4)
ROUNDS = 5


class Run:
    """One run over all sizes and precisions; ``section`` is its part of the record."""

    def __init__(self, options: argparse.Namespace, save: Callable[[dict], None] = lambda section: None):
        self.device, self.backends, self.sizes, self.save = options.device, options.backends, options.sizes, save
        self.start, self.limit = time.perf_counter(), 60 * options.minutes
        self.section = describe(options) | {"bounds": BOUNDS, "ceilings": {}, "rows": [], "growth": []}

    def measure(self) -> dict:
        """Fill the section, and save it after each size: a run that is stopped has not worked in vain."""
        for precision in ("fp32", "tf32", "bf16") if self.device == "cuda" else ("fp32", "bf16"):
            ceilings = roofline.measure_ceilings(self.device, precision)
            self.section["ceilings"][precision] = {name: rounded(value) for name, value in ceilings._asdict().items()}
            for number, sizes in enumerate(self.sizes):
                self.one_size((*sizes[:2], *sizes[2:] * 2), precision, growing=number == 0 and precision == "fp32")
                seconds = self.section["seconds"] = round(time.perf_counter() - self.start)
                self.save(self.section)
                print(f"{seconds:4} s: {precision}, (T, N, H) = {sizes}", file=sys.stderr, flush=True)
        self.section["complete"] = True
        self.save(self.section)
        return self.section

    def one_size(self, sizes: tuple[int, int, int, int], precision: str, growing: bool) -> None:
        """The rows of one size in one precision: check all backends, time those that are right, in turn."""
        torch._dynamo.reset()  # compile for this size, not for any size
        torch_sequence._not_compiling.clear()
        given, slow = problem(sizes, precision, self.device), self.slow_bf16(precision)
        cells = {name: {"note": slow or unavailable(name, given), "seconds": {}, "bytes": {}} for name in self.backends}
        with roofline.products_in(precision):
            subjects = {} if slow else self.correct(cells, given)
            for mode in MODES:
                self.time(cells, subjects, mode)
                for name in subjects:
                    with noted(cells[name]):
                        cells[name]["bytes"][mode] = memory_bytes(subjects[name], mode, self.device)
            if growing:
                self.growth(cells, subjects, sizes, precision)
        self.section["rows"] += [row(sizes, precision, mode, cells, name, self.section) for mode in MODES for name in cells]
        del subjects, given
        clean()

    def slow_bf16(self, precision: str) -> str | None:
        """Why bf16 is left out on this CPU, if it is."""
        matrix = {name: ceilings["matrix"] for name, ceilings in self.section["ceilings"].items()}
        if precision != "bf16" or self.device == "cuda" or matrix["bf16"] > matrix["fp32"]:
            return None
        return f"not measured: on this CPU bf16 products run at {matrix['bf16'] / matrix['fp32']:.2f} of fp32's speed"

    def correct(self, cells: dict[str, dict], given: Problem) -> dict[str, Subject]:
        """The backends whose outputs and gradients are right, over few steps and over all; the others get a note."""
        (_, N, D), H = given.inputs[0].shape, given.inputs[1].shape[2]
        short, wide = problem((SHORT, N, D, H), given.precision, self.device), widened(given)
        with roofline.products_in("fp32"):
            expected, reference = by_numpy(short), Subject(REFERENCE, wide).results()
        right = {}
        for name, entry in cells.items():
            if entry["note"]:
                continue
            with noted(entry):
                start = time.perf_counter()
                got = Subject(name, short).results()
                entry["prepare_s"] = time.perf_counter() - start  # compilers work at the first call
                entry["error_numpy"] = worst_error(got, expected, BOUNDS[given.precision][0])
                start = time.perf_counter()
                subject = Subject(name, given)
                entry["prepare_s"] += time.perf_counter() - start  # a CUDA graph is recorded here
                entry["error_nn"] = worst_error(subject.results(), reference, BOUNDS[given.precision][1])
                right[name] = subject
        return right

    def time(self, cells: dict[str, dict], subjects: dict[str, Subject], mode: str) -> None:
        """Seconds of a call in each round, for each backend."""
        calls = {name: guarded(getattr(subject, mode), cells[name]) for name, subject in subjects.items()}
        try:
            times = roofline.interleaved(calls, self.device, ROUNDS, 1.0, warm=True, limit=self.left())
        except TimeoutError as error:
            for entry in cells.values():
                entry["note"] = entry["note"] or f"not measured: {error}"
            return
        for name, seconds in times.items():
            cells[name]["seconds"][mode] = seconds

    def growth(self, cells: dict[str, dict], subjects: dict[str, Subject], sizes: tuple, precision: str) -> None:
        """Training over T, 2 T, 4 T steps: linear time is 1, 2, 4 times."""
        T, calls = sizes[0], {}
        for times in GROWTH:
            longer = problem((times * T, *sizes[1:]), precision, self.device)
            for name in subjects:
                with noted(cells[name], "growth_note"):
                    calls[name, times] = guarded(Subject(name, longer).training, cells[name], "growth_note")
        try:
            seconds = roofline.interleaved(calls, self.device, ROUNDS, 1.0, limit=self.left() / 2)
        except TimeoutError:
            return
        for name in subjects:
            if cells[name].get("growth_note") or cells[name]["note"]:
                continue
            ratios = [rounded(np.median(seconds[name, times] / seconds[name, 1])) for times in GROWTH]
            steps, ms = [times * T for times in GROWTH], [rounded(1e3 * np.median(seconds[name, times])) for times in GROWTH]
            where = {"precision": precision, "N": sizes[1], "H": sizes[3], "mode": "training"}
            self.section["growth"].append(where | {"backend": name, "T": steps, "ms": ms, "ratio": ratios})

    def left(self) -> float:
        """Seconds until the time is used up."""
        return self.limit - (time.perf_counter() - self.start)


def row(sizes: tuple, precision: str, mode: str, cells: dict[str, dict], name: str, section: dict) -> dict[str, Any]:
    """One line of the record: a backend on a size in a precision and a mode."""
    (T, N, D, H), entry, ceilings = sizes, cells[name], section["ceilings"][precision]
    result = {"precision": precision, "T": T, "N": N, "D": D, "H": H, "mode": mode, "backend": name, "note": entry["note"]}
    result |= {key: rounded(entry[key]) for key in ("error_numpy", "error_nn", "prepare_s") if key in entry}
    if entry["note"] or mode not in entry["seconds"]:
        return result
    seconds, training = float(np.median(entry["seconds"][mode])), mode == "training"
    flop = roofline.flop_lstm(T, N, D, H, training)
    once, each_step = (
        roofline.bytes_lstm(T, N, D, H, roofline.dtype_of(precision).itemsize, training=training, on_chip=on_chip)
        for on_chip in (True, False)
    )
    reference, ratio = cells[REFERENCE], {}
    if mode in reference["seconds"] and not reference["note"]:
        ratios = reference["seconds"][mode] / entry["seconds"][mode]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        ratio = {"ratio": rounded(middle), "ratio_quartiles": [rounded(low), rounded(high)]}
    numbers = {
        "ms": 1e3 * seconds,
        "us_per_step": 1e6 * seconds / T,
        "tokens_per_s": T * N / seconds,
        "matrix_share": flop / seconds / ceilings["matrix"],
        "memory_share": once / seconds / ceilings["memory"],
        "reread_share": each_step / seconds / ceilings["memory"],
    }
    memory = {"memory_bytes": entry["bytes"].get(mode), "rounds": len(entry["seconds"][mode])}
    return result | {key: rounded(value) for key, value in numbers.items()} | ratio | memory


@contextmanager
def noted(entry: dict, key: str = "note") -> Iterator[None]:
    """Turn an exception into a note of one line in the cell; the run goes on."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*is used instead")  # a backend that hands over to another
            yield
    except Exception as error:
        first = " ".join(str(error).split("\n")[0].split())[:160]
        if isinstance(error, ArithmeticError):
            entry[key] = f"wrong: {first}"
        elif isinstance(error, torch.OutOfMemoryError | MemoryError):
            entry[key] = "out of memory"
        else:
            entry[key] = f"failed: {type(error).__name__}: {first}"
        del error
        clean()


def guarded(call: Callable[[], Any], entry: dict, key: str = "note") -> Callable[[], Any]:
    """The call, which does nothing any more once it has failed."""

    def run() -> None:
        if not entry.get(key):
            with noted(entry, key):
                call()

    return run


def clean() -> None:
    """Give memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{float(value):.4g}")


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that a reader needs to know about the run but its numbers."""
    versions = {"python": platform.python_version()}
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


def merge(folder: Path, device: str, section: dict) -> dict[str, dict]:
    """The record with this section in it: the folder's record, or that of the repository, whose other section stays."""
    for path in (folder / roofline.RECORD.name, roofline.RECORD):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8")) | {device: section}
    return {device: section}


def write(folder: Path, device: str, section: dict) -> None:
    """Write record and page, each whole or not at all."""
    record = merge(folder, device, section)
    path = folder / roofline.RECORD.name
    write_atomically(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(path.with_suffix(".md"), page(record).encode())


def options_from(arguments: list[str]) -> argparse.Namespace:
    """The options, complete: which device, backends and sizes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU (its own choice otherwise)")
    parser.add_argument("--quick", action="store_true", help="small sizes, without compile: does everything work?")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="H", help="hidden units, with T = 256 and N = 64")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="some of them; nn.LSTM is always measured")
    parser.add_argument("--minutes", type=float, default=8, help="what does not fit is left out with a note (8)")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=False, help="into --out; else print")
    parser.add_argument("--out", type=Path, default=roofline.RECORD.parent, help="the folder of lstm_speed.json and .md")
    options = parser.parse_args(arguments)
    options.arguments = arguments
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: no CUDA device here; choose cpu")
    if options.write and not options.out.is_dir():
        parser.error(f"--out: no folder {options.out}")
    chosen = options.backends or [name for name in BACKENDS if not (options.quick and name == "compile")]
    options.backends = [name for name in BACKENDS if name in (*chosen, REFERENCE)]
    options.sizes = [(256, 64, H) for H in options.sizes] if options.sizes else QUICK if options.quick else SIZES
    return options


def main(arguments: list[str]) -> dict:
    """Measure as the arguments say; write or print; return the section."""
    options = options_from(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as fresh:  # what was compiled before counts as new
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{fresh}/inductor", "TRITON_CACHE_DIR": f"{fresh}/triton"}
        save = (lambda section: write(options.out, options.device, section)) if options.write else lambda section: None
        section = Run(options, save).measure()
    if not options.write:
        print(page({options.device: section}))
    return section


if __name__ == "__main__":
    main(sys.argv[1:])
