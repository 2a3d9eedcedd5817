"""The ``course`` command: doctor, lessons, data, train, eval, generate, chat, translate, classify, grade.

Each imports what it needs: ``--help`` is instant. A mistake of the user's ends in one line on standard error, ``error: what,
and what to do``, and exit status 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli_chat import chat
from course_lib.cli_classify import classify
from course_lib.cli_generate import generate
from course_lib.cli_grade import grade
from course_lib.cli_models import evaluate_checkpoint, translate
from course_lib.cli_train import train
from course_lib.errors import CourseError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data")


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
    """From RNN to LSTM: check the set-up, get lessons and data, train, evaluate, generate, chat, translate, classify, grade."""
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


@app.command()
def lessons(folder: Annotated[Path | None, typer.Argument(help="Where to; none: work/ in the checkout.")] = None) -> None:
    """Lay copies of the lessons to work in, or bring them up to date; what you edited is never overwritten."""
    from course_lib.workspace import update

    for line in update(folder):
        print(line)


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


app.command()(train)
app.command("eval")(evaluate_checkpoint)
app.command()(generate)
app.command()(chat)
app.command()(translate)
app.command()(classify)
app.command()(grade)
