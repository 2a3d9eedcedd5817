"""What the ``course`` command does with models: evaluate, generate, translate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

from course_lib.errors import CourseError

DataOption = Annotated[str | None, typer.Option(help="A registered name (see `course data list`) or a UTF-8 text file.")]


@contextmanager
def options() -> Iterator[None]:
    """Turn the library's ``top_p: expected ...`` into ``error: --top-p: expected ...``."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise CourseError(f"--{name.replace('_', '-')}:{rest}") from error


def evaluate_checkpoint(
    source: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A shipped name, a file or a run folder.")],
    data: DataOption = None,
    split: Annotated[
        Literal["validation", "train", "all", "test"], typer.Option(help="The part of the data; test: of pairs.")
    ] = "validation",
) -> None:
    """Score a model on its data or another, teacher-forced; prints JSON. A translator also translates, greedily."""
    import json

    from course_lib import archive, checkpoint
    from course_lib.datasets import load_corpus
    from course_lib.language_model import evaluate
    from course_lib.metrics import score
    from course_lib.text import UNKNOWN_ID

    if archive.kind_of(checkpoint.locate(source, None)) == archive.TRANSLATOR:
        return _evaluate_translator(source, data, split)
    if split == "test":
        raise CourseError("--split test is of pairs of texts; a language model has validation, train and all")
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


def generate(
    prompt: Annotated[str, typer.Argument(help='The beginning, such as "The quick brown fox".')],
    source: Annotated[str, typer.Option("--checkpoint", help="A shipped name, a file or a run folder.")] = "shakespeare",
    length: Annotated[int, typer.Option(min=1, help="Characters to write.")] = 300,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 wilder.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Only the K most probable characters.")] = None,
    top_p: Annotated[float, typer.Option(help="Only the most probable characters that make up P, in (0, 1].")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Only characters at least P times as probable as the best, in [0, 1].")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: characters written before become less likely.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same text. [default: a new one each time]")] = None,
) -> None:
    """Continue a text, character by character."""
    from itertools import islice

    import numpy as np

    from course_lib import checkpoint, decoding
    from course_lib.language_model import forward, initial_state, make_step
    from course_lib.text import UNKNOWN_ID

    with options():
        filters = [decoding.forbid([UNKNOWN_ID])]
        if repetition_penalty != 1:
            filters.append(decoding.repetition_penalty(repetition_penalty))
        filters += [decoding.temperature(temperature)] + ([decoding.top_k(top_k)] if top_k else [])
        filters += [decoding.top_p(top_p), decoding.min_p(min_p)]
    model = checkpoint.load(source)
    tokens = model.tokenizer.encode(prompt)
    known = tokens[tokens != UNKNOWN_ID]
    if not known.size:
        raise CourseError("the prompt has no character that the model knows; begin with at least one letter")
    if unknown := model.tokenizer.unknown(prompt):
        shown = [*map(repr, unknown[:10]), *([f"and {len(unknown) - 10} more"] if len(unknown) > 10 else [])]
        print(f"note: {source} has never seen {' '.join(shown)}; skipped", file=sys.stderr)
    state = initial_state(model.params, 1)
    if known.size > 1:
        _, state, _ = forward(model.params, known[:-1, None], state)
    rng = np.random.default_rng(seed)
    written = decoding.stream(make_step(model.params), state, known[-1:], lambda lp: decoding.draw(lp, rng), filters)
    print(prompt, end="", flush=True)
    for token in islice(written, length):
        print(model.tokenizer.decode(token), end="", flush=True)
    print()


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
        if unknown := found.source.unknown(translation.prepared(found, line)):
            shown = " ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
            print(f"note: {source} has never seen {shown}", file=sys.stderr)
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
