"""What the samples of a language model are worth: quality against temperature and filter, repetition, novelty, form.

COURSE_DATA=... .venv/bin/python docs/measurements/generation.py MODEL [MODEL ...]     # shipped names, or folders of runs

Rows go to generation.json (a row with the same name is replaced), and generation.md is written anew from all of them.

The judge. Quality is the nats per character that another model gives to the samples. The sampled model itself would only tell
how sharply it was sampled, and an n-gram model of the training text would know the same passages and reward copying them. The
judge is therefore a Kneser-Ney n-gram model of the held-out text, which has read nothing of what the model has read. The
samples continue prompts from the training text, and real text is what stands there: as new to the judge, about the same people
and things. (With prompts from one half of the held-out text, and the other half as the judge, real text gained 0.15 nats: the
judge knew the names of the same plays.) Such prompts ask for memorised text, if there is any; the novel n-gram
curves of held-out text stand beside. Fewer nats than real text is not better, it is duller.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from course_lib import checkpoint, code_judge, decoding, filters, ngram, novelty, verse
from course_lib.datasets import Corpus, load_corpus
from course_lib.language_model import initial_state, make_step
from course_lib.text import CharTokenizer

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
STREAMS = 32  # samples of a seed
PROMPT = 100  # characters of training text that a sample continues
SHOWN = 300  # characters of a sample
LONGEST = 50  # of the novel n-gram curve
JUDGES = range(2, 9)  # orders tried
BLANK_LINE = "\n\n"
FEW = (0.6, 0.8, 1.0)  # temperatures at which form is judged
CODE = (32, 2500)  # samples of a seed and their characters, where Python is judged
POEMS = (64, 300)  # the same, where a first poem is judged

SETTINGS: dict[str, list[filters.Filter]] = (
    {"greedy": [filters.top_k(1)]}
    | {f"temperature {t}": [filters.temperature(t)] for t in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)}
    | {f"top-k {k}": [filters.top_k(k)] for k in (3, 10, 30)}
    | {f"top-p {p}": [filters.top_p(p)] for p in (0.5, 0.8, 0.9, 0.95)}
    | {f"min-p {p}": [filters.min_p(p)] for p in (0.02, 0.05, 0.1, 0.2)}
)


class Size(NamedTuple):
    """What depends on the writing system."""

    length: int  # characters of a sample
    n: int  # of the n-grams in the table
    baseline: int  # order of the n-gram model


LETTERS, CHINESE = Size(600, 12, 6), Size(300, 4, 3)

Sampler = Callable[[Sequence[str], int, Sequence[filters.Filter], int], list[str]]


def measured(source: str) -> dict[str, Any]:
    """The row of a model."""
    start = time.perf_counter()
    model = checkpoint.load(source)
    corpus = load_corpus(model.record["data"])
    tokenizer = model.tokenizer
    write = sampler(make_step(model.params), lambda n: initial_state(model.params, n), tokenizer)
    size = CHINESE if tokenizer.size > 1000 else LETTERS
    baseline = ngram.fit(tokenizer.encode(corpus.train), size.baseline, tokenizer.size)
    count = sampler(ngram.step(baseline), lambda n: ngram.initial_state(baseline, n), tokenizer)
    row = {
        "name": Path(source).name, "command": model.record["command"], "data": corpus.name, "data_sha256": corpus.sha256,
        "validation_nats": model.record["validation_nats"], "measured": date.today().isoformat(), "numpy": np.__version__,
        "seeds": len(SEEDS), "streams": STREAMS, "length": size.length, "n": size.n, "baseline_order": size.baseline,
        "baseline_nats": round(nats(baseline, tokenizer, [corpus.validation]), 4),
    }  # fmt: skip
    row |= quality(write, count, corpus, tokenizer, size)
    if corpus.name == "python_source":
        row["code"] = code(write, count, corpus)
    if corpus.name == "tang_poems":
        row["verse"] = poems(write, count, corpus)
    return row | {"seconds": round(time.perf_counter() - start)}


def sampler(step: decoding.Step, start: Callable[[int], Any], tokenizer: CharTokenizer) -> Sampler:
    """A function (prompts of one length, length, filters, seed) -> their continuations, all prompts in one batch."""

    def write(prompts: Sequence[str], length: int, shape: Sequence[filters.Filter], seed: int) -> list[str]:
        tokens, state = np.stack([tokenizer.encode(prompt) for prompt in prompts], axis=1), start(len(prompts))
        for token in tokens[:-1]:
            _, state = step(token, state)
        drawn = decoding.sample(step, state, tokens[-1], length, np.random.default_rng(seed), shape)
        return [tokenizer.decode(column) for column in drawn.T]

    return write


def quality(write: Sampler, count: Sampler, corpus: Corpus, tokenizer: CharTokenizer, size: Size) -> dict[str, Any]:
    """Every setting, the n-gram model and real text behind the same prompts, and held-out text; the novel n-gram curves."""
    length, n, _ = size
    places = {seed: line_starts(corpus.train, length, seed) for seed in SEEDS}
    prompts = {seed: [corpus.train[at - PROMPT : at] for at in places[seed]] for seed in SEEDS}
    written = {name: [write(prompts[seed], length, shape, seed) for seed in SEEDS] for name, shape in SETTINGS.items()}
    written["n-gram model"] = [count(prompts[seed], length, [], seed) for seed in SEEDS]
    real = [[corpus.train[at : at + length] for at in places[seed]] for seed in SEEDS]
    fresh = [line_starts(corpus.validation, length, seed) for seed in SEEDS]
    written["held-out text"] = [[corpus.validation[at : at + length] for at in starts] for starts in fresh]

    held_out = tokenizer.encode(corpus.validation)
    judges = [ngram.fit(held_out, order, tokenizer.size) for order in JUDGES]
    judge = min(judges, key=lambda judge: np.mean([nats(judge, tokenizer, group) for group in real]))

    everything = [sample for groups in written.values() for group in groups for sample in group]
    matched = novelty.match_lengths(everything, corpus.train)
    rows, curves = {}, {}
    for name, groups in written.items():
        copied, everywhere = [], []
        for group in groups:
            known, matched = matched[: len(group)], matched[len(group) :]
            everywhere += known
            copied.append({
                "novel": float(novelty.novel_shares(known, n)[-1]), "longest_copy": len(novelty.longest_copy(group, known)),
            })  # fmt: skip
        rows[name] = table(copied)
        rows[name]["copy"] = novelty.longest_copy([sample for group in groups for sample in group], everywhere)
        rows[name]["sample"] = groups[0][0][:SHOWN]
        curves[name] = novelty.novel_shares(everywhere, LONGEST).round(5).tolist()
    written["real text"] = real
    for name, groups in written.items():
        if name != "held-out text":  # the judge was made of it
            rows[name] = rows.get(name, {}) | table([{"nats": nats(judge, tokenizer, group)} for group in groups])
        rows[name] |= table([{
            "repetition": novelty.repetition(group, n), "distinct": novelty.distinct(group, n),
            "loops": float(np.mean([novelty.loops(sample) for sample in group])),
        } for group in groups])  # fmt: skip
    return {"judge_order": judge.order, "settings": rows, "novel_curve": {"n": list(range(1, LONGEST + 1)), **curves}}


def code(write: Sampler, count: Sampler, corpus: Corpus) -> dict[str, dict[str, list[float] | None]]:
    """The shares of samples and statements that parse: the model's, the n-gram model's, and real source cut the same way."""
    number, length = CODE
    blank = [BLANK_LINE + "\n"] * number  # two blank lines: what follows stands at the top level
    starts = np.cumsum([0, *map(len, code_judge.statements(corpus.validation))])
    starts = starts[starts + length < len(corpus.validation)]

    def real(seed: int) -> list[str]:
        chosen = np.random.default_rng(seed).choice(starts, number, replace=False)
        return [corpus.validation[at : at + length] for at in chosen]

    makers = {f"temperature {t}": lambda seed, t=t: write(blank, length, [filters.temperature(t)], seed) for t in FEW}
    makers |= {"n-gram model": lambda seed: count(blank, length, [], seed), "held-out text": real}
    return {name: table([code_judge.shares(make(seed)) for seed in SEEDS]) for name, make in makers.items()}


def poems(write: Sampler, count: Sampler, corpus: Corpus) -> dict[str, dict[str, list[float] | None]]:
    """The forms of the first poem of each sample (all complete ones would be too many short ones), and of real poems."""
    number, length = POEMS
    blank = [BLANK_LINE] * number

    def forms(poems: Sequence[str], asked: int) -> dict[str, float]:
        return {"poems": len(poems), "unfinished": 1 - len(poems) / asked} | (verse.shares(poems) if poems else {})

    def first(samples: Sequence[str]) -> dict[str, float]:
        return forms([poem for sample in samples for poem in verse.complete_poems(sample)[:1]], len(samples))

    makers = {f"temperature {t}": lambda seed, t=t: write(blank, length, [filters.temperature(t)], seed) for t in FEW}
    makers["n-gram model"] = lambda seed: count(blank, length, [], seed)
    rows = {name: table([first(make(seed)) for seed in SEEDS]) for name, make in makers.items()}
    for name, text in (("held-out text", corpus.validation), ("training text", corpus.train)):
        real = verse.complete_poems(text)
        rows[name] = table([forms(real, len(real))])
    return rows


def line_starts(text: str, length: int, seed: int) -> list[int]:
    """Random places for samples: behind a newline, with PROMPT characters before; the samples do not overlap."""
    starts = [at + 1 for at, c in enumerate(text) if c == "\n" and PROMPT <= at + 1 <= len(text) - length]
    chosen: list[int] = []
    for start in np.random.default_rng(seed).permutation(starts).tolist():
        if len(chosen) < STREAMS and all(abs(start - other) >= length for other in chosen):
            chosen.append(start)
    return chosen


def nats(judge: ngram.NGram, tokenizer: CharTokenizer, samples: Sequence[str]) -> float:
    """Nats per character of the samples under the judge, each sample by itself from its first character."""
    return -float(np.mean(np.concatenate([ngram.log_probs(judge, tokenizer.encode(sample)) for sample in samples])))


def spread(values: Sequence[float]) -> list[float] | None:
    """Mean and standard deviation over seeds; None if a seed has no value."""
    if np.isnan(values).any():
        return None
    return [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0]


def table(results: Sequence[dict[str, float]]) -> dict[str, list[float] | None]:
    """``spread`` of each quantity that all seeds have."""
    return {key: spread([result[key] for result in results]) for key in results[0] if all(key in r for r in results)}


def shown_as(value: list[float] | None) -> str:
    """Mean ± spread of a share or of nats; a count without decimals."""
    if value is None:
        return ""
    return f"{value[0]:.0f}" if value[0] >= 20 else f"{value[0]:.3f} ± {value[1]:.3f}"


def page(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = [
        "# Samples of the language models, measured", "",
        "Made by `python docs/measurements/generation.py MODEL ...`; the same numbers, and the whole novel n-gram curves,",
        "are in `generation.json`. The samples continue prompts from the training text, and real text is what follows there.",
        "Nats per character are those of a judge, a Kneser-Ney n-gram model of the held-out text, which has read none of the",
        "training text. Repetition, distinct and novel count n-grams of n characters (`course_lib/novelty.py` defines them);",
        "loops is the share of samples that end in one; copy is the longest passage of a seed's samples that",
        "stands in the training text. ± is the standard deviation over seeds. Filters are at temperature 1.",
        "Close to real text in every column is good; fewer nats than real text is dull.", "",
    ]  # fmt: skip
    for row in rows:
        lines += [f"## {row['name']}", "", f"`{row['command']}`", "",
                  f"Held-out {row['validation_nats']:.3f} nats per character. {row['seeds']} seeds of {row['streams']} samples "
                  f"of {row['length']} characters that continue {PROMPT}; n = {row['n']}; judge of order "
                  f"{row['judge_order']}; the n-gram model is of order {row['baseline_order']}, of the training text; held-out "
                  f"text costs it {row['baseline_nats']:.3f} nats; measured "
                  f"{row['measured']} in {row['seconds']} s.", "",
                  "| | nats | repetition | loops | distinct | novel | copy |", "|---|---|---|---|---|---|---|"]  # fmt: skip
        for name, values in row["settings"].items():
            shown = [shown_as(values.get(m)) for m in ("nats", "repetition", "loops", "distinct", "novel", "longest_copy")]
            lines.append(f"| {name} | " + " | ".join(shown) + " |")
        ns = [n for n in (2, 4, 6, 8, 10, 12, 16, 20, 30, 50)]
        lines += ["", "Share of n-grams that are not in the training text:", "",
                  "| n | " + " | ".join(map(str, ns)) + " |", "|---" * (len(ns) + 1) + "|"]  # fmt: skip
        for name in ("temperature 1.0", "temperature 0.6", "n-gram model", "held-out text"):
            lines.append(f"| {name} | " + " | ".join(f"{row['novel_curve'][name][n - 1]:.3f}" for n in ns) + " |")
        lines += ["", "The longest passage of the samples at temperature 1 that stands in the training text: "
                  f"`{json.dumps(row['settings']['temperature 1.0']['copy'], ensure_ascii=False)}`", ""]  # fmt: skip
        for part, title in (("code", "Shares that Python's parser accepts (`course_lib/code_judge.py`)"),
                            ("verse", "Forms of complete poems (`course_lib/verse.py`)")):  # fmt: skip
            if part in row:
                keys = list(next(iter(row[part].values())))
                lines += [f"{title}:", "", "| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
                for name, values in row[part].items():
                    lines.append(f"| {name} | " + " | ".join(shown_as(values.get(key)) for key in keys) + " |")
                lines.append("")
        for name in ("greedy", "temperature 0.6", "temperature 1.0", "temperature 1.4"):
            lines += [f"{name.capitalize()}, the first sample:", "", "```text", row["settings"][name]["sample"], "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def main(sources: list[str]) -> None:
    path = HERE / "generation.json"
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} if path.exists() else {}
    for source in sources:
        row = measured(source)
        rows[row["name"]] = row
        print(
            json.dumps({key: value for key, value in row.items() if key not in ("settings", "novel_curve")}, ensure_ascii=False)
        )
        for name, values in row["settings"].items():
            print(f"{name:16}", {key: value for key, value in values.items() if key not in ("copy", "sample")}, flush=True)
    text = json.dumps({"rows": list(rows.values())}, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[[\d\s.,e-]+\]", lambda numbers: " ".join(numbers[0].split()), text)  # a row of numbers is a line
    path.write_text(text + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(list(rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
