"""Every backend of our LSTM against torch.nn.LSTM in one run: correct first, then time, share of the ceilings, memory.

Run: python benchmarks/lstm_speed.py --write, about 8 minutes on two cores with nothing else running, or with --device cuda on
a GPU. Each writes its own section of docs/measurements/lstm_speed.json, and lstm_speed.md anew; the other section stays.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from lstm_parts.page import page
from lstm_parts.record import describe, rounded, row, write
from lstm_parts.subjects import (
    BACKENDS,
    REFERENCE,
    Problem,
    Subject,
    by_numpy,
    library,
    memory_bytes,
    problem,
    unavailable,
    widened,
    worst_error,
)

from course_lib import roofline, torch_sequence

SIZES, QUICK = [(256, 64, H) for H in (128, 256, 512, 1024)], [(24, 8, 16), (24, 8, 40)]  # T, N, H; D = H
SHORT = 19  # steps of the comparison with NumPy: two groups of run_compiled and a rest
# The error that is allowed, against NumPy in float64 over SHORT steps and against torch.nn.LSTM in float32 over all T steps.
# bf16 keeps 8 significant bits and TF32 11; what was rounded in one step is an argument of all that follow.
BOUNDS = {"fp32": (1e-5, 5e-5), "tf32": (1e-2, 1e-2), "bf16": (5e-2, 5e-2)}
MODES = ("forward", "training")
GROWTH = (1, 2, 4)
ROUNDS, SECONDS = 5, 1.0  # at least, for each size and mode


class Run:
    """One run over all sizes and precisions; ``section`` is its part of the record."""

    def __init__(self, options: argparse.Namespace, save: Callable[[dict], None] | None = None):
        self.device, self.backends, self.sizes = options.device, options.backends, options.sizes
        self.save = save or (lambda section: None)
        self.start, self.limit = time.perf_counter(), 60 * options.minutes
        self.section = describe(options) | {"bounds": BOUNDS, "ceilings": {}, "rows": [], "growth": [], "failures": {}}

    def measure(self) -> dict:
        """Fill the section, and save it after each size: a run that is stopped has not worked in vain."""
        for precision in ("fp32", "tf32", "bf16") if self.device == "cuda" else ("fp32", "bf16"):
            ceilings = roofline.measure_ceilings(self.device, precision)
            self.section["ceilings"][precision] = {name: rounded(value) for name, value in ceilings._asdict().items()}
            for sizes in self.sizes:
                with noted(self.section["failures"], f"{precision}, (T, N, H) = {sizes}"):
                    self.one_size(
                        (*sizes[:2], *sizes[2:] * 2), precision, growing=(precision, sizes) == ("fp32", self.sizes[0])
                    )
                seconds = self.section["seconds"] = round(time.perf_counter() - self.start)
                self.save(self.section)
                print(f"{seconds:4} s: {precision}, (T, N, H) = {sizes}", file=sys.stderr, flush=True)
        self.section["complete"] = True
        self.save(self.section)
        return self.section

    def one_size(self, sizes: tuple[int, int, int], precision: str, growing: bool) -> None:
        """The rows of one size (T, N, H) in one precision: check all backends, time those that are right, in turn."""
        sizes = (*sizes[:2], sizes[2], sizes[2])  # T, N, D, H
        if "compile" in self.backends:  # for this size, not for any size, and whatever happened at another one
            torch._dynamo.reset()
            torch_sequence._not_compiling.clear()
        given, slow = problem(sizes, precision, self.device), self.slow_bf16(precision)
        cells = {name: cell(slow or unavailable(name, given)) for name in self.backends}
        with roofline.products_in(precision):
            subjects = {} if slow else self.correct(cells, given)
            for mode in MODES:
                self.timed(cells, subjects, mode)
                for name in subjects:
                    with noted(cells[name], "memory_note"):
                        cells[name]["bytes"][mode] = memory_bytes(subjects[name], mode, self.device)
                        if name == REFERENCE:
                            cells[name]["library"][mode] = library(subjects[name], mode)
            if growing:
                with noted(self.section["failures"], "growth with T"):
                    self.growth(cells, subjects, sizes, precision)
        ceilings = self.section["ceilings"][precision]
        self.section["rows"] += [row(sizes, precision, mode, cells, name, ceilings) for mode in MODES for name in cells]
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
        right: dict[str, Subject] = {}
        failure: dict[str, str] = {}
        with roofline.products_in("fp32"), noted(failure):
            expected, reference = by_numpy(short), Subject(REFERENCE, wide).results()
        for name, entry in cells.items():
            entry["note"] = entry["note"] or ("nothing to compare with: " + failure["note"] if failure else None)
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

    def timed(self, cells: dict[str, dict], subjects: dict[str, Subject], mode: str) -> None:
        """Seconds of a call in each round, for each backend."""
        calls = {name: guarded(getattr(subject, mode), cells[name]) for name, subject in subjects.items()}
        try:
            times = roofline.interleaved(calls, self.device, ROUNDS, SECONDS, warm=True, limit=self.left())
        except TimeoutError as error:
            for name in calls:
                cells[name]["late"][mode] = one_line(error)
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
        seconds = roofline.interleaved(calls, self.device, ROUNDS, SECONDS, limit=self.left() / 2)
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


def cell(note: str | None) -> dict[str, Any]:
    """What is known of a backend at one size: why it has no numbers at all; then by mode."""
    return {"note": note, "late": {}, "seconds": {}, "bytes": {}, "library": {}}


@contextmanager
def noted(entry: dict, key: str = "note") -> Iterator[None]:
    """Turn an exception into a note of one line in the cell; the run goes on."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*is used instead")  # a backend that hands over to another
            yield
    except Exception as error:
        entry[key] = one_line(error)
        clean()


def one_line(error: Exception) -> str:
    """What a cell says instead of a number."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out of memory"
    first = " ".join(str(error).partition("\n")[0].split())[:160]
    known = {ArithmeticError: "wrong", TimeoutError: "not measured"}
    return f"{known.get(type(error), f'failed: {type(error).__name__}')}: {first}"


def guarded(call: Callable[[], Any], entry: dict, key: str = "note") -> Callable[[], Any]:
    """The call, which does nothing any more once it has failed."""

    def run() -> None:
        if not entry.get(key):
            try:
                call()
            except Exception as error:
                entry[key] = one_line(error)

    return run


def clean() -> None:
    """Give memory back."""
    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # after some errors a GPU does nothing more for this process
            torch.cuda.empty_cache()


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
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as fresh:  # what was compiled in an earlier run counts too
        caches = {f"{name}_CACHE_DIR": str(Path(fresh) / name) for name in ("TORCHINDUCTOR", "TRITON")}
        with mock.patch.dict(os.environ, caches):
            run = Run(options, (lambda section: write(options.out, options.device, section)) if options.write else None)
            section = run.measure()
    if not options.write:
        print(page({options.device: section}))
    return section


if __name__ == "__main__":
    main(sys.argv[1:])
