"""What the translators are worth: test scores, perplexity, speed, samples good and bad; one row for each trained run.

.venv/bin/python docs/measurements/translation.py RUN [RUN ...]     # folders of runs, or names of shipped translators

RUN may be "RUN=a note for the page". Rows go to translation.json (a row with the same name is replaced), and translation.md is
written anew from all of them.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_lib import dates, metrics, summaries, translation, translator
from course_lib.budget import Config
from course_lib.pairs import Pairs, shared
from course_lib.seq2seq import Seq2Seq
from course_lib.torch_engine import find_device
from course_lib.translation_task import load_corpus
from course_lib.translator import Translator

HERE = Path(__file__).parent
WIDTH = 5  # beams
SHOWN = 4  # samples of each kind
A_LOCALE = 500  # test dates of each locale
NO_DATES = 2_000


def measured(source: str, model: Seq2Seq | None = None) -> dict[str, Any]:
    """The row of a run."""
    found = translator.load(source)
    model = found.model().to(find_device("auto")) if model is None else model
    record = found.record
    place = "" if " on cpu" in record["engine"] else ", on a GPU"
    row = {
        "name": f"{record['data']}, seed {record['seed']}{place}", "command": record["command"], "engine": record["engine"],
        "minutes": round(record["seconds"] / 60, 1), "steps": record["steps"], "parameters": record["parameters"],
        "measured": date.today().isoformat(), "on": platform.machine(), "torch": torch.__version__,
    }  # fmt: skip
    if record["data"] == "dates":
        return row | of_dates(found, model)
    asked = {name: record[name] for name in ("data", "target", "reverse")}
    corpus = load_corpus(Config(**asked, task="translate", engine="torch"))
    test = corpus.test
    row |= {"data_sha256": corpus.sha256, "test_pairs": len(test.source), "training_pairs": len(corpus.train.source)}
    nats, tokens = translation.evaluate(model, translation.encode(test, found.source, found.target))
    row |= {"nats": nats / tokens, "perplexity": metrics.perplexity(nats / tokens)}
    return row | (of_summaries if record["data"] == "summaries" else of_sentences)(found, model, test, corpus.train)


def of_dates(found: Translator, model: Seq2Seq) -> dict[str, Any]:
    """Exact answers in each locale, on days that are in no other part; what is refused; speed."""
    data = dates.held_out("test", A_LOCALE)
    start = time.perf_counter()
    written = translation.translate(found, [human for human, _, _ in data], model=model)
    seconds = time.perf_counter() - start
    right: dict[str, list[bool]] = defaultdict(list)
    for (_, iso, locale), best in zip(data, written, strict=True):
        right[locale].append(best.text == iso)
    wrong = [(h, iso, best) for (h, iso, _), best in zip(data, written, strict=True) if best.text != iso]
    singles = []
    for human, _, _ in data[:: len(data) // 50]:
        start = time.perf_counter()
        translation.candidates(found, human, 4, model=model)
        singles.append(time.perf_counter() - start)
    none = dates.draw(np.random.default_rng(1), NO_DATES, "test", refused=1.0)[0]
    refused = translation.translate(found, none, model=model)
    return {
        "test_pairs": len(data), "exact": sum(map(sum, right.values())) / len(data),
        "exact_by_locale": {locale: float(np.mean(answers)) for locale, answers in right.items()},
        "no_dates_refused": float(np.mean([best.text == dates.NO_DATE for best in refused])),
        "strings_per_second": len(data) / seconds, "seconds_a_string_beam_4": float(np.median(singles)),
        "threads": torch.get_num_threads(),
        "samples": [{"source": h, "reference": iso, "hypothesis": best.text, "probability": best.probability}
                    for h, iso, best in wrong[: 2 * SHOWN]],
    }  # fmt: skip


def of_sentences(found: Translator, model: Seq2Seq, test: Pairs, train: Pairs) -> dict[str, Any]:
    """BLEU of greedy decoding and of a beam, and samples by their own BLEU."""
    start = time.perf_counter()
    greedy = [best.text for best in translation.translate(found, test.source, model=model)]
    seconds = time.perf_counter() - start
    beam = [best.text for best in translation.translate(found, test.source, WIDTH, model=model)]
    scores = {name: metrics.bleu(texts, test.target, lowercase=True) for name, texts in (("greedy", greedy), ("beam", beam))}
    each = [metrics.bleu([h], [r], lowercase=True).score for h, r in zip(beam, test.target, strict=True)]
    order = [int(n) for n in np.argsort(each, kind="stable") if len(test.target[n].split()) >= 6]
    middle = len(order) // 2
    chosen = {"worst": order[:SHOWN], "middle": order[middle : middle + SHOWN], "best": order[-SHOWN:]}
    known = shared(test, train)
    return {
        "bleu": scores["beam"].score, "bleu_greedy": scores["greedy"].score, "width": WIDTH,
        "signature": scores["beam"].signature, "brevity_penalty": scores["beam"].brevity_penalty,
        "sentences_per_second": len(greedy) / seconds,
        "test_sources_in_training": known[0], "test_targets_in_training": known[1],
        "samples": [{"kind": kind, "source": test.source[n], "reference": test.target[n], "hypothesis": beam[n],
                     "bleu": each[n]} for kind, places in chosen.items() for n in places],
    }  # fmt: skip


def of_summaries(found: Translator, model: Seq2Seq, test: Pairs, train: Pairs) -> dict[str, Any]:
    """Token F1 and exact match, beside what needs no network; and without the replacement of unknown words."""
    names = [best.text for best in translation.translate(found, test.source, WIDTH, model=model)]
    greedy = translation.translate(found, test.source, model=model)
    plain = [found.target.decode(best.tokens) for best in greedy]
    each = [metrics.token_f1([h], [r]) for h, r in zip(names, test.target, strict=True)]
    order = np.argsort(each, kind="stable").tolist()
    places = np.linspace(0, len(order) - 1, 3 * SHOWN).astype(int)
    return {
        "token_f1": metrics.token_f1(names, test.target), "exact_match": metrics.exact_match(names, test.target),
        "token_f1_greedy": metrics.token_f1([best.text for best in greedy], test.target),
        "token_f1_greedy_unknown_kept": metrics.token_f1(plain, test.target), "width": WIDTH,
        "baselines": {name: list(pair) for name, pair in summaries.baselines(train, test).items()},
        "samples": [{"source": test.source[order[n]], "reference": test.target[order[n]], "hypothesis": names[order[n]],
                     "f1": each[order[n]]} for n in places],
    }  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """All rows as Markdown."""
    lines = [
        "# Translators, measured", "",
        "Made by `python docs/measurements/translation.py RUN ...` from the runs of the commands below; the same numbers are",
        "in `translation.json`. Perplexity is teacher-forced, per target token with its end; an unknown word is one token.",
        "BLEU is of lower-cased text (the models write nothing else), one reference. Minutes are of wall clock.", "",
    ]  # fmt: skip
    for row in rows:
        lines += [f"## {row['name']}", "", f"`{row['command']}`", ""]
        lines += [f"{row['engine']}; {row['minutes']} minutes, {row['steps']:,} steps, {row['parameters']:,} parameters; "
                  f"measured {row['measured']}" + (f". {row['note']}" if "note" in row else ""), ""]  # fmt: skip
        if "exact" in row:
            lines += [f"{row['exact']:.2%} of {row['test_pairs']:,} test dates exact; of {NO_DATES:,} sources that are no date "
                      f"{row['no_dates_refused']:.1%} refused; {row['strings_per_second']:.0f} strings a second, "
                      f"{row['seconds_a_string_beam_4']:.3f} s for one alone (4 beams), {row['threads']} thread(s).", "",
                      "| " + " | ".join(row["exact_by_locale"]) + " |", "|---" * len(row["exact_by_locale"]) + "|",
                      "| " + " | ".join(f"{v:.1%}" for v in row["exact_by_locale"].values()) + " |", ""]  # fmt: skip
        if "bleu" in row:
            lines += [f"Test: {row['test_pairs']:,} pairs; BLEU **{row['bleu']:.1f}** with {row['width']} beams, "
                      f"{row['bleu_greedy']:.1f} greedy (`{row['signature']}`); perplexity {row['perplexity']:.2f}. "
                      f"{row['test_sources_in_training']} test sources and {row['test_targets_in_training']} test targets "
                      "stand in training too, but for case and punctuation.", ""]  # fmt: skip
        if "token_f1" in row:
            lines += [f"Test: {row['test_pairs']:,} pairs of files that training has not seen; "
                      f"perplexity {row['perplexity']:.2f}.", "",
                      "| | token F1 | exact |", "|---|---|---|",
                      f"| this model, {row['width']} beams | **{row['token_f1']:.3f}** | {row['exact_match']:.3f} |",
                      f"| greedy | {row['token_f1_greedy']:.3f} | |",
                      f"| greedy, unknown words not replaced | {row['token_f1_greedy_unknown_kept']:.3f} | |",
                      *(f"| {name} | {f1:.3f} | {em:.3f} |" for name, (f1, em) in row["baselines"].items()), ""]  # fmt: skip
        columns = [c for c in ("kind", "source", "reference", "hypothesis") if any(c in sample for sample in row["samples"])]
        if row["samples"]:
            lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
            lines += ["| " + " | ".join(str(s[c]).replace("|", "\\|") for c in columns) + " |" for s in row["samples"]] + [""]
    return "\n".join(lines).rstrip() + "\n"


def main(sources: list[str]) -> None:
    path = HERE / "translation.json"
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} if path.exists() else {}
    for source in sources:
        source, _, note = source.partition("=")
        row = measured(source) | ({"note": note} if note else {})
        rows[row["name"]] = row
        print({name: value for name, value in row.items() if name != "samples"}, flush=True)
    path.write_text(json.dumps({"rows": list(rows.values())}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(list(rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
