"""What the ``course`` command does with models: evaluate, translate; see also ``cli_generate`` and ``cli_classify``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

from course_lib.errors import CourseError

DataOption = Annotated[str | None, typer.Option(help="A registered name (see `course data list`) or a UTF-8 text file.")]


@contextmanager
def options(**names: str) -> Iterator[None]:
    """Turn the library's ``top_p: expected ...`` into ``error: --top-p: expected ...``; ``names``: options of another name."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise CourseError(f"--{names.get(name, name).replace('_', '-')}:{rest}") from error


def note_unknown(source: str, unknown: list[str], end: str = "") -> None:
    """Say on standard error which characters or words a model has never seen, if there are any."""
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        print(f"note: {source} has never seen {' '.join(map(repr, unknown[:10]))}{more}{end}", file=sys.stderr)


def evaluate_checkpoint(
    source: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A shipped name, a file or a run folder.")],
    data: DataOption = None,
    split: Annotated[
        Literal["validation", "train", "all", "test"], typer.Option(help="The part of the data; test: of pairs and labels.")
    ] = "validation",
) -> None:
    """Score a model on its data or another, teacher-forced; prints JSON. A translator also translates, greedily."""
    import json

    from course_lib import archive, checkpoint
    from course_lib.datasets import load_corpus
    from course_lib.language_model import evaluate
    from course_lib.metrics import score
    from course_lib.text import UNKNOWN_ID

    kind = archive.kind_of(checkpoint.locate(source, None))
    if kind == archive.TRANSLATOR:
        return _evaluate_translator(source, data, split)
    if kind == archive.CLASSIFIER:
        return _evaluate_classifier(source, data, split)
    if split == "test":
        raise CourseError("--split test is of pairs and labelled texts; a language model has validation, train and all")
    model = checkpoint.load(source)
    name = data or model.record.get("data")
    if not isinstance(name, str):
        raise CourseError(f"{source} does not say what it was trained on; give --data")
    corpus = load_corpus(name)
    text = {"validation": corpus.validation, "train": corpus.train, "all": corpus.train + corpus.validation}[split]
    tokens = model.tokenizer.encode(text)
    if len(tokens) < 2:
        raise CourseError(f"the {split} part of {name} has {len(tokens)} characters, and 2 are needed; use a longer text")
    about = {"unknown": int((tokens == UNKNOWN_ID).sum()), "data": name, "split": split, "data_sha256": corpus.sha256}
    print(json.dumps(score(*evaluate(model.params, tokens))._asdict() | about))


def _evaluate_translator(source: str, data: str | None, split: str) -> None:
    """``course eval`` for a translator."""
    import json

    from course_lib.budget import Config
    from course_lib.tasks import torch_needed

    with torch_needed("course eval of a translator", "choose a language model"):
        from course_lib import translation_task, translator

    if split == "all":
        raise CourseError("--split all is of texts; a translator has validation, train and test")
    found = translator.load(source)
    asked = {"data": data} if data else {name: found.record.get(name) for name in ("data", "target", "reverse")}
    if not isinstance(asked["data"], str):
        raise CourseError(f"{source} does not say what it was trained on; give --data")
    config = Config(**asked, task="translate", engine="torch")
    print(json.dumps(translation_task.score(found, config, split)))


def _evaluate_classifier(source: str, data: str | None, split: str) -> None:
    """``course eval`` for a classifier."""
    import json

    from course_lib.tasks import torch_needed

    with torch_needed("course eval of a classifier", "choose a language model"):
        from course_lib import classifier_model, classifier_task

    if split == "all":
        raise CourseError("--split all is of texts; a classifier has validation, train and test")
    found = classifier_model.read(source)
    name = data or found.record.get("data")
    if not isinstance(name, str):
        raise CourseError(f"{source} does not say what it was trained on; give --data")
    print(json.dumps(classifier_task.score(found, name, split), ensure_ascii=False))


def translate(
    text: Annotated[list[str] | None, typer.Argument(help='Such as "le 3 février 2024"; none: lines of the input.')] = None,
    source: Annotated[str, typer.Option("--checkpoint", help="A shipped name, a file or a run folder.")] = "dates",
    width: Annotated[int, typer.Option(min=1, help="Beams; 1 is greedy.")] = 4,
    n_best: Annotated[int, typer.Option(min=1, help="How many translations to show.")] = 1,
    length_penalty: Annotated[float, typer.Option(min=0, help="0 favours short translations, 1 the mean per token.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each translation.")] = False,
) -> None:
    """Translate: dates in 17 languages into ISO 8601, or whatever --checkpoint learned; with the model's probability.

    Without TEXT, every line of the standard input is translated. "?" means: no date.
    """
    import json

    from course_lib.dates import NO_DATE, is_day
    from course_lib.tasks import torch_needed

    with torch_needed("course translate", "use another command"):
        from course_lib import translation, translator

    if n_best > width:
        raise CourseError(f"--n-best: expected at most --width, {width}, got {n_best}; raise --width")
    found = translator.load(source)
    model = found.model()
    for line in text or (line.rstrip("\n") for line in sys.stdin):
        note_unknown(source, found.source.unknown(translation.prepared(found, line)))
        for best in translation.candidates(found, line, width, length_penalty, n_best, model):
            p = best.probability
            if as_json:
                print(json.dumps({"source": line, "translation": best.text, "probability": p, "log_prob": best.log_prob,
                                  "score": best.score, "ended": best.ended}, ensure_ascii=False), flush=True)  # fmt: skip
                continue
            print(f"{best.text}  (probability {p:.3g})", flush=True)
            if found.config["prepare"] == "dates" and best.text != NO_DATE and not is_day(best.text):
                print(f"note: {best.text} is no day of the calendar", file=sys.stderr)
            if found.config["prepare"] == "dates" and best.text == NO_DATE:
                print("note: the model takes this for no date, or for one it cannot read", file=sys.stderr)
            if not best.ended:
                print("note: cut, the model did not come to an end", file=sys.stderr)
