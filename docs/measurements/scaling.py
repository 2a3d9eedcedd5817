"""What regularisation, width, data and time buy: runs of one small model on one CPU core each, and the page about them.

Run: python docs/measurements/scaling.py ladder width data --jobs 2     (COURSE_DATA or a network for tiny Shakespeare)

Every run is judged on the last 10 % of tiny Shakespeare, teacher-forced with carried state. It trains on a beginning of the
first 90 %, of which the last tenth chooses the best checkpoint, so that what is reported was never looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
EXCERPT = 200_000  # characters that the ladder trains on: little text, so that over-fitting shows within minutes
LADDER = {
    "none": {},
    "dropout 0.3": {"dropout": 0.3},
    "dropout 0.3, held masks": {"dropout": 0.3, "held-masks": True},
    "recurrent dropout 0.3": {"recurrent-dropout": 0.3},
    "weight decay 0.1": {"weight-decay": 0.1},
    "averaging 0.999": {"average": 0.999},
    "tied": {"tie": True, "embedding": 256},
    "untied, E = H": {"embedding": 256},
    "all but tying": {
        "dropout": 0.3, "held-masks": True, "recurrent-dropout": 0.3, "weight-decay": 0.1, "average": 0.999
    },
}  # fmt: skip
SEEDS = (0, 1, 2)
WIDTHS = (32, 64, 128, 256, 512)
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
RECIPE = {"engine": "torch", "device": "cpu", "lr": 4e-3, "evaluations": 12}


def runs(what: str) -> Iterator[dict[str, Any]]:
    """The runs of a table: group, name, seed, characters of the training text, options of ``course train``."""
    if what == "ladder":
        for seed in SEEDS:
            for name, options in LADDER.items():
                yield {"name": name, "seed": seed, "characters": EXCERPT, "options": {"hidden": 256, "steps": 2000} | options}
    for seed in SEEDS[:2]:
        for H in WIDTHS if what == "width" else ():
            yield {"name": f"H = {H}", "seed": seed, "characters": None, "options": {"hidden": H, "steps": 1500}}
        for share in SHARES if what == "data" else ():
            yield {"name": f"{share:.0%}", "seed": seed, "characters": share, "options": {"hidden": 256, "steps": 1500}}


def carry_out(what: str, run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and judge the best weights; in a process of its own, with one thread."""
    from course_lib.datasets import load_corpus

    train = load_corpus("tiny_shakespeare").train
    size = run["characters"] or 1
    text = folder / f"{what}-{size}.txt"
    text.write_text(train[: int(size if size > 1 else size * len(train))], encoding="utf-8")
    out = folder / f"{what}-{run['name']}-{run['seed']}".replace(" ", "_")
    options = RECIPE | run["options"] | {"seed": run["seed"], "data": text.name, "out": out.name}
    given = [f"--{name}" + ("" if value is True else f"={value}") for name, value in options.items()]
    course = [sys.executable, "-c", "from course_lib.cli import main; main()"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    shown = f"course train {shlex.join(given)}"
    for command in (["train", *given], ["eval", out.name, "--data", "tiny_shakespeare"]):
        done = subprocess.run([*course, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{shown}: {done.stderr}")
    history = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    looks = [line for line in history if "validation_nats" in line]
    curve = [[line[name] for name in ("step", "seconds", "tokens", "validation_nats")] for line in looks]
    record = {"nats": json.loads(done.stdout)["nats"], "best_own": min(line["validation_nats"] for line in looks)}
    training = mean(line["nats"] for line in history[-10:])
    return run | {"table": what, "command": shown, "curve": curve, "training_nats": training, **record, **of_model(out)}


def of_model(folder: Path) -> dict[str, Any]:
    """What the run's own record says."""
    from course_lib import checkpoint

    record = checkpoint.load(folder / "last.safetensors").record
    return {name: record[name] for name in ("parameters", "seconds", "steps", "tokens", "engine")}


def page(found: dict[str, Any]) -> str:
    """The page: a table for each kind of run."""
    lines = ["# What regularisation, width, data and time buy", "", *(__doc__ or "").strip().splitlines()[2:], ""]
    heads = {
        "ladder": f"One layer of 256, 2,000 steps, {EXCERPT:,} characters to train on",
        "width": "One layer of H units, 1,500 steps, all the training text",
        "data": "One layer of 256, 1,500 steps, a share of the training text",
    }
    for table, head in heads.items():
        rows = [row for row in found["rows"] if row["table"] == table]
        if not rows:
            continue
        lines += [f"## {head}", "", f"Measured {rows[0]['measured']} on {rows[0]['on']}; {rows[0]['engine']}.", ""]
        lines += ["| | parameters | held-out nats | over seeds, ± | training nats at the end | seconds, one core |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for name in dict.fromkeys(row["name"] for row in rows):
            these = [row for row in rows if row["name"] == name]
            nats = [row["nats"] for row in these]
            spread = f"{stdev(nats):.3f} ({len(nats)})" if len(nats) > 1 else "-"
            seconds, training = (mean(row[key] for row in these) for key in ("seconds", "training_nats"))
            size = these[0]["parameters"]
            lines.append(f"| {name} | {size:,} | {mean(nats):.3f} | {spread} | {training:.3f} | {seconds:.0f} |")
        lines += ["", f"Command of the first: `{rows[0]['command']}`", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=["ladder", "width", "data"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--on", default=platform.processor() or platform.machine(), help="what the machine is called")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    path = options.out / "scaling.json"
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = {(row["table"], row["name"], row["seed"]): row for row in old}
    asked = [(table, run) for table in options.tables for run in runs(table)]
    asked.sort(key=lambda pair: pair[1]["seed"])  # whoever stops it has whole tables of fewer seeds
    order = [(table, run["name"], run["seed"]) for table in ("ladder", "width", "data") for run in runs(table)]

    def one(pair: tuple[str, dict]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            row = carry_out(*pair, Path(folder)) | {"measured": date.today().isoformat(), "on": options.on}
        rows[row["table"], row["name"], row["seed"]] = row
        print(row["table"], row["name"], row["seed"], round(row["nats"], 3), round(row["seconds"]), flush=True)
        found = {"rows": [rows[key] for key in order if key in rows]}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(page(found), encoding="utf-8")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, asked))


if __name__ == "__main__":
    main()
