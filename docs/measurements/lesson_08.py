"""The runs behind lesson 08: baselines, three seeds, other settings, less data, other splits; a quarter of an hour, two cores.

.venv/bin/python docs/measurements/lesson_08.py > docs/measurements/lesson_08.md
"""

from __future__ import annotations

import functools
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # a process a core; before NumPy is loaded

import babel
import numpy as np
import torch

from course_lib import classifier, languages, ngram_classifier
from course_lib.languages import LANGUAGES, Part
from course_lib.text import CharTokenizer

SEEDS = (0, 1, 2)
LESSON = {"hidden_sizes": (128, 128), "embedding_size": 64, "dropout": 0.3, "epochs": 10, "batch_size": 64, "lr": 5e-3}
OTHERS = {
    "20 epochs, lr 0.003": {"epochs": 20, "lr": 3e-3},
    "no dropout": {"dropout": 0.0},
    "dropout 0.5": {"dropout": 0.5},
    "embedding 32": {"embedding_size": 32},
    "one layer": {"hidden_sizes": (128,)},
}
SPLITS = range(5)  # numbers of other splits; the lesson's is languages.SPLIT_NUMBER
SHARES = (0.25, 0.5, 1.0)


class Result(NamedTuple):
    """log p of every class for the validation and the test names, and the seconds of processor time that training took."""

    validation: np.ndarray
    test: np.ndarray
    seconds: float


@functools.cache
def data(split: int = languages.SPLIT_NUMBER, related: bool = True, share: float = 1.0) -> languages.Names:
    """The names; of the training names, if asked for, only those of a part of the concepts."""
    kept, languages.SPLIT_NUMBER = languages.SPLIT_NUMBER, split
    names = languages.load_names(related=related)
    languages.SPLIT_NUMBER = kept
    concepts = sorted(set(names.train.concepts))
    chosen = {concepts[k] for k in np.random.default_rng(0).permutation(len(concepts))[: round(share * len(concepts))]}
    return names._replace(train=some(names.train, [concept in chosen for concept in names.train.concepts]))


def some(part: Part, mask: list[bool]) -> Part:
    """The names of a part for which the mask is true."""
    keep = np.flatnonzero(mask)
    return Part(tuple(part.texts[k] for k in keep), part.labels[keep], tuple(part.concepts[k] for k in keep))


def lstm(where: dict, seed: int, **changes: object) -> Result:
    """Train the lesson's LSTM, with some settings changed, on the names that ``where`` describes."""
    torch.set_num_threads(1)
    settings, names = LESSON | changes, data(**where)
    shape = {key: settings.pop(key) for key in ("hidden_sizes", "embedding_size", "dropout")}
    tokenizer = CharTokenizer.from_text("".join(names.train.texts))
    train, validation, test = (classifier.examples(part, tokenizer) for part in names[:3])
    torch.manual_seed(seed)
    model = classifier.SequenceClassifier(tokenizer.size + 1, classes=len(LANGUAGES), **shape)
    start = time.process_time()
    classifier.fit(model, train, validation, seed=seed, **settings)
    seconds = time.process_time() - start
    return Result(classifier.log_probs(model, validation), classifier.log_probs(model, test), seconds)


def grams(where: dict, kind: str = "logistic", **settings: object) -> Result:
    """Fit an n-gram classifier."""
    names, start = data(**where), time.process_time()
    model = getattr(ngram_classifier, kind)(names.train.texts, names.train.labels, len(LANGUAGES), **settings)
    seconds = time.process_time() - start
    return Result(*(ngram_classifier.log_probs(model, part.texts) for part in names[1:3]), seconds)


def scores(result: Result, where: dict) -> tuple[float, float, float, float]:
    """Validation accuracy and nats, test accuracy and nats."""
    found = []
    for log_probs, part in zip(result[:2], data(**where)[1:3], strict=True):
        found += [float((log_probs.argmax(1) == part.labels).mean())]
        found += [float(-log_probs[np.arange(len(part.labels)), part.labels].mean())]
    return tuple(found)


def mixed(results: list[Result]) -> Result:
    """The average of the probabilities of several models."""
    return Result(*(np.log(np.mean([np.exp(result[k]) for result in results], axis=0)) for k in (0, 1)), 0.0)


def row(name: str, results: list[Result], where: dict) -> None:
    """Print a line of a table: means over the results, test accuracy of each."""
    rows = np.array([scores(result, where) for result in results])
    each = ", ".join(f"{100 * right:.1f}" for right in rows[:, 2])
    means = rows.mean(0)
    seconds = f"{np.mean([result.seconds for result in results]):.0f}" if results[0].seconds else ""
    print(f"| {name} | {100 * means[0]:.1f} | {means[1]:.2f} | {100 * means[2]:.1f} ({each}) | {means[3]:.2f} | {seconds} |")


def main() -> None:
    here: dict = {}
    with ProcessPoolExecutor(2) as pool:
        submit = pool.submit
        seeds = [submit(lstm, here, seed) for seed in SEEDS]
        others = {name: [submit(lstm, here, seed, **change) for seed in SEEDS] for name, change in OTHERS.items()}
        counted = {
            (order, l2): submit(grams, here, order=order, l2=l2) for order in (3, 4, 5) for l2 in (0.3, 1.0, 3.0)
        }  # fmt: skip
        bayes = submit(grams, here, "naive_bayes")
        careless = {"related": False}
        flattered = submit(grams, careless), submit(lstm, careless, 0)
        less = {s: (submit(grams, {"share": s}), [submit(lstm, {"share": s}, seed) for seed in SEEDS]) for s in SHARES}
        splits = {s: (submit(grams, {"split": s}), submit(lstm, {"split": s}, 0)) for s in SPLITS}

    names = data()
    print(f"# The runs behind lesson 08\n\nMade by `python docs/measurements/lesson_08.py` on {date.today()}: ", end="")
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, Babel {babel.__version__}, ",
        end="",
    )
    print("one thread a run.\n")
    print(f"{', '.join(map(str, (len(part.texts) for part in names[:3])))} names to train, choose and test by; ", end="")
    print(f"{names.dropped} names dropped, {names.groups} groups, sha256 {names.sha256[:12]}. Seconds are of processor time.")

    columns = ("validation: right, %", "nats", "test: right, % (each seed)", "nats", "seconds")
    table("Scoreboard", "model", *columns)
    lstms, logistic = [run.result() for run in seeds], counted[4, 1.0].result()
    common = np.bincount(names.train.labels, minlength=len(LANGUAGES)) / len(names.train.labels)
    row("most frequent language", [Result(*(np.tile(np.log(common), (len(p.labels), 1)) for p in names[1:3]), 0.0)], here)
    row("naive Bayes, 1- to 4-grams", [bayes.result()], here)
    row("logistic regression, 1- to 4-grams, λ = 1", [logistic], here)
    row("LSTM, three seeds", lstms, here)
    row("the three LSTMs averaged", [mixed(lstms)], here)
    row("each LSTM averaged with the logistic regression", [mixed([one, logistic]) for one in lstms], here)

    table("Logistic regression: longest gram and penalty", "setting", *columns)
    for (order, l2), run in counted.items():
        row(f"1- to {order}-grams, λ = {l2:g}", [run.result()], here)

    table("LSTM: one setting changed, three seeds", "setting", *columns)
    row("the lesson's", lstms, here)
    for name, runs in others.items():
        row(name, [run.result() for run in runs], here)

    table("A careless split: concepts held out one by one", "model", *columns)
    for name, run in zip(("logistic regression", "LSTM, one seed"), flattered, strict=True):
        row(name, [run.result()], careless)
    for name, kind in (("related concepts together", here), ("careless", careless)):
        shared = np.mean([bool(words) for words in languages.shared_words(data(**kind).test, data(**kind).train)])
        print(f"\nTest names that share a word of five letters or more with a training name, {name}: {100 * shared:.0f} %.")

    table("Less data", "training names", "logistic regression: test, %", "LSTM: test, % (each seed)", "difference")
    for share, (run, runs) in less.items():
        where = {"share": share}
        counted_right = 100 * scores(run.result(), where)[2]
        right = [100 * scores(one.result(), where)[2] for one in runs]
        each = ", ".join(f"{r:.1f}" for r in right)
        n, difference = len(data(**where).train.texts), np.mean(right) - counted_right
        print(f"| {n} | {counted_right:.1f} | {np.mean(right):.1f} ({each}) | {difference:+.1f} |")

    table("Other splits, one seed", "split", "test names", "logistic regression: test, %", "LSTM: test, %", "difference")
    differences = []
    for split, runs in splits.items():
        where = {"split": split}
        right = [100 * scores(run.result(), where)[2] for run in runs]
        differences.append(right[1] - right[0])
        print(f"| {split} | {len(data(**where).test.texts)} | {right[0]:.1f} | {right[1]:.1f} | {differences[-1]:+.1f} |")
    spread = np.std(differences, ddof=1) / len(differences) ** 0.5
    print(f"\nMean difference {np.mean(differences):+.1f}, standard error {spread:.1f}.")


def table(title: str, *columns: str) -> None:
    """Print a heading and the head of a table."""
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


if __name__ == "__main__":
    main()
