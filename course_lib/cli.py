"""The ``course`` command: doctor, data, train, eval, generate, translate. Each imports what it needs: ``--help`` is instant.

A mistake of the user's ends in one line on standard error, ``error: what, and what to do``, and exit status 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from course_lib.cli_models import DataOption, evaluate_checkpoint, generate, options, translate
from course_lib.errors import CourseError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data")



TRANSLATING = ("target", "reverse", "attention", "units", "min_count", "copy", "teacher_forcing", "smoothing")


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


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    """From RNN to LSTM: check the set-up, fetch data, train, evaluate, generate and translate."""
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
        if not entry.files:
            print(f"{entry.name}: comes with {entry.package}, nothing to fetch")
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
    task: Annotated[
        Literal["language", "translate"] | None, typer.Option(help="Continue texts, or translate pairs. [default: language]")
    ] = None,
    target: Annotated[str | None, typer.Option(help="translate: the file of targets, line by line beside --data.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="translate: from the second language to the first.")] = False,
    attention: Annotated[
        Literal["none", "additive", "multiplicative"] | None, typer.Option(help="translate: the score. [default: additive]")
    ] = None,
    units: Annotated[
        Literal["characters", "words"] | None, typer.Option(help="translate: a token. [default: words; dates: characters]")
    ] = None,
    min_count: Annotated[
        int | None, typer.Option(min=1, help="translate: a rarer token is unknown. [default: 2; characters: 1]")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="translate: number rare words, so that they can be copied.")] = False,
    teacher_forcing: Annotated[
        float | None, typer.Option(help="translate: how often the true token is fed, in [0, 1]. [default: 1]")
    ] = None,
    smoothing: Annotated[float | None, typer.Option(help="translate: of the labels, in [0, 1). [default: 0]")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. [default: runs/DATA-CELL-HIDDEN]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, stopped or killed.")] = False,
) -> None:
    """Train a language model, in pure NumPy or in PyTorch, or a translator; the best weights end in OUT/best.safetensors.

    A translator learns from --data dates, summaries, bodies, multi30k, tatoeba_fra, tatoeba_cmn, a file of "source TAB target"
    lines, or two files, --data and --target.
    """
    import shlex

    from course_lib.progress import ProgressBar
    from course_lib.training import Config, Trainer

    fields = Config.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in fields and value is not None and value is not False}
    _of_one_task(given)
    with options():
        config = Config(**({"data": "", "engine": "torch" if task == "translate" else "numpy"} | given))
    command = shlex.join(["course", *sys.argv[1:]])
    if resume:
        if out is None or set(given) - {"minutes"}:
            raise CourseError("--resume takes --out, the run's folder, and at most --minutes; the run knows the rest")
        trainer = Trainer.resume(out, minutes, command)
    else:
        if data is None:
            raise CourseError("--data is missing: a registered name (`course data list`) or a text file")
        kind = config.cell if config.task == "language" else f"translate-{config.attention}"
        out = out or Path("runs") / f"{Path(config.data).stem}-{kind}-{config.hidden}"
        trainer = Trainer(config, out, command)
    sizes = trainer.task.sizes
    print(sizes if trainer.config.engine == "numpy" else f"{sizes}; {trainer.engine.name}")
    try:
        with ProgressBar(trainer.config, trainer.progress) as bar:
            best = trainer.run(bar.report).best
    except KeyboardInterrupt:
        resume_with = shlex.join(["course", "train", "--out", str(out), "--resume"])
        raise CourseError(f"interrupted; all is saved: go on with `{resume_with}`") from None
    translates = trainer.config.task == "translate"
    print(f"best held-out {best:.3f} nats per {'token' if translates else 'character'}; weights in {out}/best.safetensors")
    use = 'course translate "a sentence"' if translates else 'course generate "The quick brown fox"'
    print(f"{'translate' if translates else 'write'} with them: {use} --checkpoint {shlex.quote(str(out))}")


def _of_one_task(given: dict) -> None:
    """Refuse options of the other task: they would do nothing, silently."""
    translates = given.get("task") == "translate"
    wrong = {"cell", "window"} if translates else set(TRANSLATING)
    for name in sorted(wrong & given.keys()):
        advice = "leave it out" if translates else "add --task translate, or leave it out"
        raise CourseError(f"--{name.replace('_', '-')} does nothing with --task {given.get('task', 'language')}; {advice}")


app.command("eval")(evaluate_checkpoint)
app.command()(generate)
app.command()(translate)
