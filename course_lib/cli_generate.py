"""``course generate``: continue texts with a language model; and the options that ``course chat`` shares."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from course_lib.cli_models import note_unknown, options
from course_lib.errors import CourseError

if TYPE_CHECKING:
    from course_lib.filters import Filter
    from course_lib.writing import Continuation

FILTERS = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")  # in the order in which their options are applied
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

Source = Annotated[str, typer.Option("--checkpoint", help="A shipped name, a file or a run folder.")]
Temperature = Annotated[float | None, typer.Option(help="Below 1 safer, above 1 wilder. [default: 0.8]")]
TopK = Annotated[int | None, typer.Option(min=1, help="Only the K most probable characters.")]
TopP = Annotated[float | None, typer.Option(help="Only the most probable characters that make up P, in (0, 1].")]
MinP = Annotated[float | None, typer.Option(help="Only characters at least P times as probable as the best, in [0, 1].")]
Penalty = Annotated[float | None, typer.Option(help="Above 1: characters written before become less likely.")]
Chain = Annotated[
    list[str] | None,
    typer.Option("--filter", help='All filters in your own order, such as "temperature=0.7,top_p=0.9", and no others.'),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same text. [default: a new one each time]")]
Save = Annotated[Path | None, typer.Option(help="Also write it to this file, whole or not at all.")]
Force = Annotated[bool, typer.Option("--force", help="--save may replace a file.")]


def generate(
    prompt: Annotated[str | None, typer.Argument(help='The beginning, such as "The quick brown fox".')] = None,
    source: Source = "shakespeare",
    length: Annotated[int, typer.Option(min=1, help="Characters to write, at most.")] = 300,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    chain: Chain = None,
    only: Annotated[str | None, typer.Option(help=r"Write only these characters; \n, \t and \\ are understood.")] = None,
    match: Annotated[str | None, typer.Option(help="The whole continuation matches this regular expression.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help=r"End before this string; repeatable; \n is understood.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Texts for each prompt.")] = 1,
    prompts: Annotated[str | None, typer.Option(help="A file with a prompt on each line; - is the standard input.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each text, with every log-probability.")] = False,
    save: Save = None,
    force: Force = False,
    seed: Seed = None,
) -> None:
    """Continue a text, character by character.

    Filters are applied in this order: --only, --match, --repetition-penalty, --temperature, --top-k, --top-p, --min-p; with
    --filter, in the order that it gives. A text with --match ends where the pattern is complete and the model would write
    something else. Sample k of a prompt does not depend on how many others are written.
    """
    filters = chosen_filters(chain, repetition_penalty, temperature, top_k, top_p, min_p)
    if prompt is not None and prompts is not None:
        raise CourseError("give a prompt or --prompts, not both")
    if prompt is None and prompts is None:
        raise CourseError("Missing argument 'prompt': give the beginning of a text, or --prompts FILE")
    page = Page(save, force)
    beginnings = [prompt] if prompts is None else _lines(prompts)

    from course_lib import checkpoint, writing

    model = checkpoint.load(source)
    seed = new_seed() if seed is None else seed
    alone = len(beginnings) * samples == 1 and not as_json

    def show(_: int, piece: str) -> None:
        page.write(piece)

    with options(allow="only", matching="match"):
        written = writing.continuations(
            model, beginnings, length, filters, samples, [unescaped("--stop", s) for s in stop or []], seed,
            None if only is None else unescaped("--only", only), match, show if alone else None,
        )  # fmt: skip
        note_unknown(source, model.tokenizer.unknown("".join(beginnings)), "; skipped")
        if alone:
            page.write(beginnings[0])
        for number, found in enumerate(written):
            place = {"prompt_number": number // samples, "sample": number % samples, "seed": seed, "checkpoint": source}
            if alone:
                page.write("\n")
            elif as_json:
                page.write(_json(found, place) + "\n")
            else:
                page.write(_heading(place, len(beginnings)) + f"{found.prompt}{found.text}\n\n")
    page.save()


class Page:
    """What goes to the standard output and, in the end, into the file of --save."""

    def __init__(self, path: Path | None, force: bool) -> None:
        self.path, self.pieces = path, []
        if path is None and force:
            raise CourseError("--force does nothing without --save FILE; leave it out")
        if path is not None and path.exists() and not (force and path.is_file()):
            advice = "add --force to replace it, or choose another name" if path.is_file() else "choose the name of a file"
            raise CourseError(f"--save: {path} exists; {advice}")
        if path is not None and not path.absolute().parent.is_dir():
            raise CourseError(f"--save: there is no folder {path.parent}; make it first")

    def write(self, text: str, shown: bool = True) -> None:
        if self.path is not None:
            self.pieces.append(text)
        if shown:
            print(text, end="", flush=True)

    def save(self) -> None:
        from course_lib.archive import write_atomically

        if self.path is not None:
            write_atomically(self.path, "".join(self.pieces).encode())


def chosen_filters(
    chain: list[str] | None, repetition_penalty: float | None, temperature: float | None, top_k: int | None,
    top_p: float | None, min_p: float | None,
) -> list[Filter]:  # fmt: skip
    """The filters of --filter in its order, or those of the single options in the order of FILTERS."""
    from course_lib import filters

    values = (repetition_penalty, temperature, top_k, top_p, min_p)
    single = {name: value for name, value in zip(FILTERS, values, strict=True) if value is not None}
    if chain is None:
        single = {name: single.get(name, 0.8 if name == "temperature" else None) for name in FILTERS}
        with options():
            return [getattr(filters, name)(value) for name, value in single.items() if value is not None]
    if single:
        option = f"--{next(iter(single)).replace('_', '-')}"
        raise CourseError(f"give {option} or --filter, not both: --filter says all filters and their order")
    made = []
    for part in ",".join(chain).split(","):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        try:
            number = float(value)
        except ValueError:
            number = None
        if name not in FILTERS or number is None:
            expected = f"NAME=NUMBER, comma, ..., of {', '.join(FILTERS)}"
            raise CourseError(f"--filter: expected {expected}, got {part!r}; such as temperature=0.7,top_p=0.9")
        try:
            made.append(getattr(filters, name)(number))
        except ValueError as error:
            raise CourseError(f"--filter: {error}") from error
    return made


def unescaped(option: str, text: str) -> str:
    r"""A text in which ``\n``, ``\t``, ``\r`` and ``\\`` stand for a newline, a tab, a carriage return and a backslash."""
    pieces = text.split("\\\\")
    for at, piece in enumerate(pieces):
        first, *rest = piece.split("\\")
        if wrong := [part for part in rest if part[:1] not in ESCAPES]:
            raise CourseError(f"{option}: expected n, t, r or a second backslash behind a backslash, got {wrong[0][:1]!r}")
        pieces[at] = first + "".join(ESCAPES[part[0]] + part[1:] for part in rest)
    return "\\".join(pieces)


def _lines(path: str) -> list[str]:
    """The prompts in a file, or - for the standard input: one on each line that is not empty."""
    text = decoded("--prompts", standard_input().buffer.read() if path == "-" else content("--prompts", path))
    lines = [line for line in text.split("\n") if line]
    if not lines:
        raise CourseError(f"--prompts: {path} has no line with a prompt")
    return lines


def content(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise CourseError(f"{option}: cannot read {path}: {getattr(error, 'strerror', error)}; name a text file") from error


def standard_input() -> TextIO:
    """``sys.stdin``, which Python sets to None where it is closed."""
    if sys.stdin is None:
        raise CourseError("the standard input is closed; give it a file or a pipe")
    return sys.stdin


def decoded(option: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CourseError(f"{option}: expected UTF-8 text, got byte {data[error.start]:#04x} at {error.start}") from error


def _json(found: Continuation, place: dict) -> str:
    import json

    pairs = zip(found.text, found.log_probs.tolist(), strict=True)
    nats = None if math.isnan(found.nats) else found.nats
    about = {"prompt": found.prompt, "text": found.text, "stopped": found.stopped, "nats_per_character": nats}
    characters = {"characters": [{"character": character, "log_prob": log_prob} for character, log_prob in pairs]}
    return json.dumps(about | place | characters, ensure_ascii=False)


def _heading(place: dict, prompts: int) -> str:
    prompt = f"prompt {place['prompt_number'] + 1}, " if prompts > 1 else ""
    return f"--- {prompt}sample {place['sample'] + 1}\n"


def new_seed() -> int:
    import secrets

    return secrets.randbelow(2**32)
