"""A recurrence computed by a scan against our LSTM, over lengths: right first, then times, side by side in one run.

Run: python benchmarks/scan_speed.py --write, about 3 minutes on one thread, or with --device cuda on a GPU. Each writes its own
section of docs/measurements/scan_speed.json, and scan_speed.md anew; the other section stays.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from lstm_parts.record import describe, rounded
from torch import Tensor

from course_lib import roofline
from course_lib.archive import write_atomically
from course_lib.torch_lstm import LSTM
from course_lib.torch_scan import SCANS, MinGRU

RECORD = roofline.RECORD.with_name("scan_speed.json")
LENGTHS, SIZES = (64, 256, 1024, 4096), ((1, 256), (16, 256))  # T; N, H with D = H
QUICK = (5, 12), ((2, 4),)
MODES = ("forward", "training")
METHODS = ("loop", "parallel", "chunked")
REFERENCE = "LSTM"
BOUND = 1e-5  # of the largest entry of an output or a gradient, float32 against the loop in float64
ROUNDS, SECONDS = 5, 0.3  # at least, for each size, length and mode
TITLES = {"cpu": "CPU", "cuda": "GPU"}
CPU_CLOCK = "Others were busy on this machine: all seconds are of this process on its one thread."
HEAD = """# A scan against the LSTM's loop

Written by `benchmarks/scan_speed.py`; do not edit. Every number of a section comes from the one run that its first line names.

The recurrence h = a h + b over T steps, N streams and H units in float32 (no TF32), alone (*scan*) and as a layer of `MinGRU`,
beside one layer of our LSTM, backend "auto", with D = H. `MinGRU` has 2H (D + 1) parameters and the LSTM 4H (D + H + 1): four
times as many here, so a layer is not a layer; docs/measurements/scan.md compares models of equal size. Before a scan is timed,
its outputs and all gradients are compared with the loop in float64. All are called in turn, round after round.

* **ms**: the median over rounds. training: forward and backward; the loop is differentiated by autograd, the others by a scan.
* **LSTM / MinGRU**: the median of the ratios within a round, quartiles in brackets; above 1 MinGRU is faster.
"""


class Problem:
    """Everything that is timed at one length and size; ``calls(mode)`` gives a function for each subject."""

    def __init__(self, T: int, N: int, H: int, device: str):
        torch.manual_seed(T)
        self.a = torch.rand(T, N, H, device=device)
        self.b, self.x, self.g = (torch.randn(T, N, H, device=device) for _ in range(3))
        self.h0 = torch.randn(N, H, device=device)
        self.layers = {f"MinGRU {method}": MinGRU(H, H, method=method).to(device) for method in METHODS}
        weights = self.layers["MinGRU loop"].state_dict()
        for layer in self.layers.values():
            layer.load_state_dict(weights)
        self.layers[REFERENCE] = LSTM(H, H).to(device)

    def results(self, name: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The outputs of a subject and its gradients."""
        x, g = self.x.to(dtype).requires_grad_(), self.g.to(dtype)
        if name.startswith("scan "):
            inputs = [t.detach().to(dtype).requires_grad_() for t in (self.a, self.b, self.h0)]
            hs = SCANS[name.removeprefix("scan ")](*inputs)
        else:
            layer = self.layers[name].to(dtype)
            inputs = [x, *layer.parameters()]
            hs = layer(x)[0]
        results = [hs.detach(), *torch.autograd.grad(hs, inputs, g)]
        if name in self.layers:
            self.layers[name].float()
        return results

    def errors(self) -> dict[str, float]:
        """The largest relative error of each subject that is a scan."""
        errors = {}
        for kind in ("scan", "MinGRU"):
            expected = self.results(f"{kind} loop", torch.float64)
            for method in METHODS:
                pairs = zip(self.results(f"{kind} {method}"), expected, strict=True)
                errors[f"{kind} {method}"] = max(float((m - e).abs().max() / e.abs().max()) for m, e in pairs)
        return errors

    def calls(self, mode: str) -> dict[str, Callable[[], Any]]:
        """A function for each subject: forward without gradients, or forward and backward."""
        calls: dict[str, Callable[[], Any]] = {}
        for method in METHODS:
            calls[f"scan {method}"] = _scan_call(SCANS[method], (self.a, self.b, self.h0), self.g, mode)
        for name, layer in self.layers.items():
            calls[name] = _layer_call(layer, self.x, self.g, mode)
        return calls


def _scan_call(scan: Callable, inputs: tuple[Tensor, ...], g: Tensor, mode: str) -> Callable[[], Any]:
    if mode == "forward":
        return lambda: scan(*inputs)
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    return lambda: torch.autograd.grad(scan(*inputs), inputs, g)


def _layer_call(layer: torch.nn.Module, x: Tensor, g: Tensor, mode: str) -> Callable[[], Any]:
    if mode == "forward":
        return torch.no_grad()(lambda: layer(x))
    x = x.detach().requires_grad_()
    inputs = (x, *layer.parameters())
    return lambda: torch.autograd.grad(layer(x)[0], inputs, g)


def measure(options: argparse.Namespace, save: Callable[[dict], None]) -> dict[str, Any]:
    """All rows; saved after each length, so that a run that is stopped has not worked in vain."""
    start = time.perf_counter()
    command = shlex.join(["python", "benchmarks/scan_speed.py", *options.arguments])
    section = describe(options) | {"command": command, "clock": options.clock, "bound": BOUND, "rows": []}
    lengths, sizes = QUICK if options.quick else (LENGTHS, SIZES)
    with roofline.products_in("fp32"):
        for T in lengths:
            for N, H in sizes:
                left = 60 * options.minutes - (time.perf_counter() - start)
                section["rows"] += one_size((T, N, H), options.device, left)
                section["seconds"] = round(time.perf_counter() - start)
                save(section)
                print(f"{section['seconds']:4} s: (T, N, H) = {T, N, H}", file=sys.stderr, flush=True)
    section["complete"] = True
    save(section)
    return section


def one_size(sizes: tuple[int, int, int], device: str, left: float) -> list[dict[str, Any]]:
    """The rows of one (T, N, H): checked, then timed in both modes, within the seconds that are left."""
    rows, end = [], time.perf_counter() + left
    where = dict(zip("TNH", sizes, strict=True))
    if left <= 0:
        return [where | {"mode": mode, "note": "not measured: no time is left"} for mode in MODES]
    problem = Problem(*sizes, device)
    errors = problem.errors()
    for mode in MODES:
        calls = {name: call for name, call in problem.calls(mode).items() if errors.get(name, 0) <= BOUND}
        try:
            times = roofline.interleaved(calls, device, ROUNDS, SECONDS, limit=end - time.perf_counter())
        except TimeoutError as error:
            rows.append(where | {"mode": mode, "note": f"not measured: {error}"})
            continue
        rows += [row(sizes, mode, name, times, errors) for name in (*errors, REFERENCE)]
    return rows


def row(sizes: tuple[int, int, int], mode: str, name: str, times: dict[str, np.ndarray], errors: dict) -> dict[str, Any]:
    """One line of the record; ratio: the LSTM's time / this one's, in the same round."""
    T, N, H = sizes
    result = {"T": T, "N": N, "H": H, "mode": mode, "subject": name}
    if name in errors:
        result["error"] = rounded(errors[name])
    if name not in times:
        return result | {"note": f"wrong: off by {errors[name]:.2g}, allowed {BOUND:g}"}
    low, middle, high = map(rounded, np.quantile(times[REFERENCE] / times[name], (0.25, 0.5, 0.75)))
    seconds = float(np.median(times[name]))
    numbers = {"ms": rounded(1e3 * seconds), "tokens_per_s": rounded(T * N / seconds), "rounds": len(times[name])}
    return result | numbers | {"ratio": middle, "ratio_quartiles": [low, high]}


def page(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [HEAD]
    for device, title in TITLES.items():
        section = record.get(device)
        lines += [f"## {title}", ""]
        if section is None:
            lines += ["Not measured yet.", ""]
            continue
        versions = ", ".join(f"{name} {version}" for name, version in section["versions"].items() if version)
        lines += [f"{section['date']}, {section['device']}, {section['threads']} thread(s); {versions}.", "",
                  *([CPU_CLOCK, ""] if section.get("clock") == "cpu" else []),
                  f"`{section['command']}`, {section['seconds']} s."
                  + ("" if section["complete"] else " The run was stopped before its end."), ""]  # fmt: skip
        rows = section["rows"]
        worst = max((row["error"] for row in rows if "error" in row), default=0)
        lines += [f"Largest relative error of an output or a gradient: {worst:.1g}, allowed {section['bound']:g}.", ""]
        sizes = dict.fromkeys((row["N"], row["H"], row["mode"]) for row in rows)
        for N, H, mode in sizes:
            names = [*(f"{kind} {method}" for kind in ("scan", "MinGRU") for method in METHODS), REFERENCE]
            lines += [f"### N = {N}, H = {H}, {mode}, ms", "", "| T | " + " | ".join(names) + " | LSTM / MinGRU, the best |",
                      "| ---: " * (len(names) + 2) + "|"]  # fmt: skip
            notes = []
            for T in dict.fromkeys(row["T"] for row in rows):
                here = {r.get("subject"): r for r in rows if (r["T"], r["N"], r["H"], r["mode"]) == (T, N, H, mode)}
                notes += [f"* T = {T}: {r.get('subject', 'all')}: {r['note']}" for r in here.values() if "note" in r]
                best = max((r for name, r in here.items() if "ratio" in r and name.startswith("MinGRU")),
                           key=lambda r: r["ratio"], default=None)  # fmt: skip
                ratio = "-"
                if best:
                    low, high = best["ratio_quartiles"]
                    ratio = f"{best['ratio']:.2f} ({low:.2f} - {high:.2f}), {best['subject'].removeprefix('MinGRU ')}"
                cells = [f"{here[name]['ms']:.4g}" if "ms" in here.get(name, {}) else "-" for name in names]
                lines.append(f"| {T} | " + " | ".join(cells) + f" | {ratio} |")
            lines += ["", *notes, *([""] if notes else [])]
    return "\n".join(lines).rstrip() + "\n"


def write(folder: Path, device: str, section: dict) -> None:
    """Record and page, each whole or not at all; the section of the other device stays, from the folder or the repository."""
    path = folder / RECORD.name
    before = next((place for place in (path, RECORD) if place.exists()), None)
    record = (json.loads(before.read_text(encoding="utf-8")) if before else {}) | {device: section}
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    write_atomically(path.with_suffix(".md"), page(record).encode())


def options_from(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU (its own choice otherwise)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything work?")
    parser.add_argument("--minutes", type=float, default=6, help="what does not fit is left out with a note (6)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of this process, where others are busy")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=False, help="into --out; else print")
    parser.add_argument("--out", type=Path, default=RECORD.parent, help="the folder of scan_speed.json and .md")
    options = parser.parse_args(arguments)
    options.arguments = arguments
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: no CUDA device here; choose cpu")
    if options.clock == "cpu" and (options.device == "cuda" or options.threads != 1):
        parser.error("--clock cpu: only with --device cpu --threads 1")
    if options.write and not options.out.is_dir():
        parser.error(f"--out: no folder {options.out}")
    return options


def main(arguments: list[str]) -> dict[str, Any]:
    """Measure as the arguments say; write or print; return the section."""
    options = options_from(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    save = (lambda part: write(options.out, options.device, part)) if options.write else lambda part: None
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    with mock.patch.object(time, "perf_counter", clock):  # that of roofline as well
        section = measure(options, save)
    if not options.write:
        print(page({options.device: section}))
    return section


if __name__ == "__main__":
    main(sys.argv[1:])
