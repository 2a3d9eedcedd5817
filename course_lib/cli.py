"""The ``course`` command: doctor, data, train, eval, generate. Each imports what it needs, so ``--help`` is instant.

A mistake of the user's ends in one line on standard error, ``error: what, and what to do``, and exit status 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from course_lib.errors import CourseError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data")

DataOption = Annotated[str | None, typer.Option(help="A registered name (see `course data list`) or a UTF-8 text file.")]


def main() -> None:
    """Run the command; turn every expected failure into one line and exit status 2."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    try:
        status = _run()
        print(end="", flush=True)  # now, where a failure is caught
    except CourseError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted")
    except MemoryError:
        _fail("not enough memory; choose a smaller --hidden, --embedding, --batch-size or text")
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try, and fail, to write the rest when it ends
        if not isinstance(error, BrokenPipeError):
            _fail(f"{error}; free some space, or mend the permissions")
        status = 0  # `course generate ... | head`: nobody reads on, and that is no error
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of typer's has one
            raise
        command = getattr(getattr(error, "ctx", None), "command_path", "course")
        _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`")
    sys.exit(status)


def _run() -> int:
    """Run the command without typer's own handling of errors, which differs between its versions; its exit status."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("course", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def _options() -> Iterator[None]:
    """Turn the library's ``top_p: expected ...`` into ``error: --top-p: expected ...``."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise CourseError(f"--{name.replace('_', '-')}:{rest}") from error


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """From RNN to LSTM: check the set-up, fetch data, train, evaluate and generate."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@data_app.callback(invoke_without_command=True)
def data_root(context: typer.Context) -> None:
    """List, fetch or locate the data sets."""
    root(context)


@app.command()
def doctor() -> None:
    """Check Python, packages, torch, GPU, data, models and disk; exit status 1 if something is broken."""
    from course_lib.doctor import examine

    broken = 0
    for finding in examine():
        print(finding, flush=True)
        broken += finding.level == "broken"
    print(f"{broken} broken: do what the lines with ✗ say" if broken else "All is well.")
    raise typer.Exit(1 if broken else 0)


@data_app.command("list")
def data_list() -> None:
    """Name, state and description of every data set."""
    from course_lib.datasets import registry, status

    for name, entry in registry().items():
        print(f"{name:18} {status(name):16} {entry.description} [{entry.licence}]")


@data_app.command("fetch")
def data_fetch(names: Annotated[list[str], typer.Argument(help="Registered names.")]) -> None:
    """Download data sets, verified by their SHA-256, and print where they are."""
    from course_lib.downloads import fetch_all, lookup

    for entry in [lookup(name) for name in names]:  # a misspelt name stops before any download
        if entry.kind == "embedded":
            print(f"{entry.name}: comes with Python, nothing to fetch")
        else:
            print(*fetch_all(entry.name), sep="\n")


@data_app.command("path")
def data_path(name: Annotated[str | None, typer.Argument(help="Registered name; none: the folder.")] = None) -> None:
    """Print where a data set's files are, fetching them if needed; without a name, the folder that downloads go to."""
    from course_lib.downloads import cache_folder, data_folder, fetch_all

    print(*(fetch_all(name) if name else [data_folder() or cache_folder()]), sep="\n")


@app.command()
def train(
    data: DataOption = None,
    cell: Annotated[Literal["rnn", "lstm", "gru"] | None, typer.Option(help="The recurrent cell. [default: lstm]")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden units, H. [default: 256]")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers, L. [default: 1]")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Size of the embedding, E. [default: 64]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Streams read side by side, N. [default: 32]")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Steps of back-propagation, T. [default: 64]")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate. [default: by the budget]")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout rate, in [0, 1). [default: 0]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes of wall clock. [default: 2]")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Budget in steps instead: the run then repeats exactly.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the random numbers. [default: 0]")] = None,
    engine: Annotated[Literal["numpy", "torch"] | None, typer.Option(help="What computes. [default: numpy]")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda, of torch. [default: auto: a GPU if there is one]")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"] | None, typer.Option(help="Of torch's products. [default: fp32]")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts of a batch, to save memory (torch). [default: 1]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: runs/DATA-CELL-HIDDEN]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, stopped or killed.")] = False,
) -> None:
    """Train a character language model, in pure NumPy or in PyTorch; the best weights end in OUT/best.safetensors."""
    import shlex

    from course_lib.progress import ProgressBar
    from course_lib.training import Config, Trainer

    given = {name: value for name, value in locals().items() if name in Config.__dataclass_fields__ and value is not None}
    with _options():
        config = Config(**({"data": ""} | given))
    command = shlex.join(["course", *sys.argv[1:]])
    if resume:
        if out is None or set(given) - {"minutes"}:
            raise CourseError("--resume takes --out, the run's folder, and at most --minutes; the run knows the rest")
        trainer = Trainer.resume(out, minutes, command)
    else:
        if data is None:
            raise CourseError("--data is missing: a registered name (`course data list`) or a text file")
        out = out or Path("runs") / f"{Path(config.data).stem}-{config.cell}-{config.hidden}"
        trainer = Trainer(config, out, command)
    sizes = f"{len(trainer.train):,} characters to train on, {len(trainer.validation):,} held out, V = {trainer.tokenizer.size}"
    print(sizes if trainer.config.engine == "numpy" else f"{sizes}; {trainer.engine.name}")
    try:
        with ProgressBar(trainer.config, trainer.progress) as bar:
            best = trainer.run(bar.report).best
    except KeyboardInterrupt:
        resume_with = shlex.join(["course", "train", "--out", str(out), "--resume"])
        raise CourseError(f"interrupted; all is saved: go on with `{resume_with}`") from None
    print(f"best held-out {best:.3f} nats per character; weights in {out}/best.safetensors")
    print(f'write with them: course generate "The quick brown fox" --checkpoint {shlex.quote(str(out))}')


@app.command("eval")
def evaluate_checkpoint(
    source: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A shipped name, a file or a run folder.")],
    data: DataOption = None,
    split: Annotated[Literal["validation", "train", "all"], typer.Option(help="The part of the data.")] = "validation",
) -> None:
    """Score a model on a text, teacher-forced with carried state; prints JSON. Default data: what it was trained on."""
    import json

    from course_lib import checkpoint
    from course_lib.datasets import load_corpus
    from course_lib.language_model import evaluate
    from course_lib.metrics import score
    from course_lib.text import UNKNOWN_ID

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


@app.command()
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

    with _options():
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
