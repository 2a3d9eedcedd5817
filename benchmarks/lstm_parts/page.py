"""docs/measurements/lstm_speed.md, written from the record alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TITLES = {"cpu": "CPU", "cuda": "GPU"}
PRECISIONS = {"fp32": "float32", "tf32": "float32 with TF32 products", "bf16": "bfloat16"}
MODES = {"forward": "forward without gradients", "training": "forward + backward"}

INTRODUCTION = """# The LSTM's speed, backend by backend

Written by `benchmarks/lstm_speed.py`; do not edit. Every number of a section comes from the one run that its first line names.

One layer in one direction, D = H. Before a backend is timed, its outputs and all its gradients are compared with NumPy in
float64 and with `torch.nn.LSTM` in float32; one that is off by more than the bound is reported as wrong, without a time. All
backends are called in turn, round after round; ms is the median.

* **times nn.LSTM**: time of `torch.nn.LSTM` / time of the backend, the median of the ratios within a round, with the quartiles
  in brackets. Above 1 the backend is faster.
* **matrix**: operations of the matrix products a second, as a share of what a large product of the same precision reaches here.
  Above 100 %: the machine was busy with something else while the ceiling was measured; then trust the ratios, not the shares.
* **memory**: the fewest bytes that must be moved a second, as a share of what this machine moves; in brackets as if W_hh were
  read from main memory again at each step. Above 100 % in brackets: W_hh stays in a cache.
* Operations and bytes are counted by `flop_lstm` and `bytes_lstm` in `course_lib/roofline.py`, where they are derived.
* **MB** on a CPU: what the forward pass keeps for the backward pass. On a GPU: the most allocated during the call; for a CUDA
  graph, what it holds all the time. Inputs and weights are not counted.
* **errors**: the largest relative error of any output or gradient, against NumPy and against nn.LSTM.
* **cudnn** is our module when it hands its weights to `torch.nn.LSTM`, on any device; **graph** is `fused` as a CUDA graph.
"""


def page(record: dict[str, dict]) -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for device, title in TITLES.items():
        parts.append(f"## {title}\n")
        parts += part(record[device], device) if device in record else ["Not measured yet.\n"]
    return "\n".join(parts)


def part(section: dict, device: str) -> Iterable[str]:
    """The section of one kind of device."""
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in section["versions"].items())
    threads = f", {section['threads']} thread{'s' * (section['threads'] != 1)}" if device == "cpu" else ""
    unfinished = "" if section["complete"] else " **The run was stopped before its end.**"
    yield f"{section['date']}, {section['device']}{threads}; {versions}.\n"
    yield f"`{section['command']}`, {section['seconds']} s.{unfinished}\n"
    if device == "cuda":
        yield "In float32 rows TF32 is off, for cuDNN too, whose default is on; the tf32 rows allow it everywhere.\n"
    bounds = "; ".join(
        f"{name} {numpy:g} and {nn:g}" for name, (numpy, nn) in section["bounds"].items() if name in section["ceilings"]
    )
    yield f"Largest relative error allowed, against NumPy and against nn.LSTM: {bounds}.\n"
    if section["failures"]:
        yield "".join(f"* {where}: {what}\n" for where, what in section["failures"].items())
    yield "### Ceilings of this machine\n"
    yield table(
        ("precision", "matrix, GFLOP/s", "memory, GB/s", "ridge, FLOP a byte", "smallest call, µs"),
        (
            (PRECISIONS[name], c["matrix"] / 1e9, c["memory"] / 1e9, c["matrix"] / c["memory"], 1e6 * c["call"])
            for name, c in section["ceilings"].items()
        ),
    )
    yield from summaries(section)
    for precision in section["ceilings"]:
        for mode, words in MODES.items():
            rows = [row for row in section["rows"] if row["precision"] == precision and row["mode"] == mode]
            yield f"### {PRECISIONS[precision]}, {words}\n"
            yield details(rows)
    yield from growth(section)
    yield from preparation(section)


def summaries(section: dict) -> Iterable[str]:
    """Times nn.LSTM, at a glance: a line for each backend, a column for each H."""
    yield "### Times nn.LSTM, at a glance\n"
    hidden = sorted({row["H"] for row in section["rows"]})
    for precision in section["ceilings"]:
        for mode, words in MODES.items():
            ratios: dict[str, dict[int, Any]] = {}
            for row in section["rows"]:
                if (row["precision"], row["mode"]) == (precision, mode) and "ratio" in row:
                    ratios.setdefault(row["backend"], {})[row["H"]] = f"{row['ratio']:.2f}"
            if ratios:
                lines = ([backend, *(by_size.get(H) for H in hidden)] for backend, by_size in ratios.items())
                yield table((f"{PRECISIONS[precision]}, {words}", *(f"H = {H}" for H in hidden)), lines)


def details(rows: list[dict]) -> str:
    """Everything that was measured, a line for each size and backend; what was not, below."""
    lines, notes = [], {}
    for row in rows:
        size = (row["T"], row["N"], row["H"])
        if "ms" not in row:
            notes.setdefault((row["backend"], row["note"] or "not measured"), []).append(f"H = {row['H']}")
            continue
        ratio = f"{row['ratio']:.2f} ({' - '.join(f'{x:.2f}' for x in row['ratio_quartiles'])})" if "ratio" in row else None
        memory = None if row.get("memory_bytes") is None else f"{row['memory_bytes'] / 1e6:,.1f}"
        shares = f"{row['matrix_share']:.0%}", f"{row['memory_share']:.1%} ({row['reread_share']:.0%})"
        errors = " ".join(f"{row[key]:.0e}" for key in ("error_numpy", "error_nn"))
        speed = f"{row['ms']:.4g}", f"{row['us_per_step']:.4g}", f"{row['tokens_per_s']:,.0f}"
        lines.append((str(size), row["backend"], *speed, ratio, *shares, memory, errors))
    heads = ("(T, N, H)", "backend", "ms", "µs a step", "tokens/s", "times nn.LSTM", "matrix", "memory", "MB", "errors")
    below = "".join(f"* {backend}, {', '.join(sizes)}: {note}\n" for (backend, note), sizes in notes.items())
    libraries = sorted({row["library"] for row in rows if "library" in row})
    below += f"* nn.LSTM is computed by {' and '.join(libraries)} here\n" if libraries else ""
    return (table(heads, lines) if lines else "") + ("\n" if lines and below else "") + below


def growth(section: dict) -> Iterable[str]:
    """Time over T."""
    yield "### Growth with T, forward + backward\n"
    rows = section["growth"]
    if not rows:
        yield "Not measured yet.\n"
        return
    yield f"{PRECISIONS[rows[0]['precision']]}, N = {rows[0]['N']}, H = {rows[0]['H']}; times of T = {rows[0]['T'][0]}.\n"
    lines = [(row["backend"], *(f"{x:.2f}" for x in row["ratio"]), *(f"{x:.4g}" for x in row["ms"])) for row in rows]
    steps = rows[0]["T"]
    yield table(("backend", *(f"T = {T}" for T in steps), *(f"ms at {T}" for T in steps)), lines)


def preparation(section: dict) -> Iterable[str]:
    """What a backend does once for each size before it runs."""
    yield "### Seconds before the first result\n"
    yield "Once for each size and precision, with empty caches: compiling, or recording a CUDA graph.\n"
    rows = [row for row in section["rows"] if row["backend"] in ("compile", "graph", "triton") and "prepare_s" in row]
    rows = [row for row in rows if row["mode"] == "training"]
    lines = ((row["precision"], f"H = {row['H']}", row["backend"], row["prepare_s"]) for row in rows)
    yield table(("precision", "size", "backend", "s"), lines) if rows else "Not measured yet.\n"


def table(heads: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """A Markdown table: text to the left, everything else to the right; None is a dash."""
    heads = list(heads)
    body = [[text(cell) for cell in line] for line in lines]
    rule = ["---", *(["---:"] * (len(heads) - 1))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *body))


def text(cell: Any) -> str:
    """A cell's content; numbers with 3 significant digits, None as a dash."""
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return "-" if cell is None else str(cell)
