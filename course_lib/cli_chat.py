"""``course chat``: a scene in which the reader and a language model speak by turns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli_generate import (
    Chain,
    Force,
    MinP,
    Page,
    Penalty,
    Save,
    Seed,
    Source,
    Temperature,
    TopK,
    TopP,
    chosen_filters,
    content,
    decoded,
    new_seed,
    standard_input,
    unescaped,
)
from course_lib.cli_models import note_unknown
from course_lib.errors import CourseError


def chat(
    me: Annotated[str, typer.Option(help="The speaker whom you play.")] = "ROMEO",
    other: Annotated[str, typer.Option("--as", help="The speaker whom the model plays.")] = "JULIET",
    source: Source = "shakespeare",
    scene: Annotated[
        str | None, typer.Option(help=r"What was said before: a text file, or the text; \n is understood.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Characters of an answer, at most.")] = 300,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    chain: Chain = None,
    save: Save = None,
    force: Force = False,
    seed: Seed = None,
) -> None:
    """Play a scene with a model: you speak as one person of a play, it answers as another.

    Each line that you enter is a speech; empty lines are skipped; Ctrl-D or Ctrl-C ends the scene, and --save keeps it. The
    model must have learned plays written as in Shakespeare's: the speaker's name and a colon, the speech on the lines below,
    then a blank line. Others (such as python_docs) go on with the text, and their answers are no speeches.
    """
    filters = chosen_filters(chain, repetition_penalty, temperature, top_k, top_p, min_p)
    for option, name in (("--me", me), ("--as", other)):
        if not name.strip() or set(name) & set(":\n"):
            raise CourseError(f"{option}: expected a name without a colon, got {name!r}")
    if me == other:
        raise CourseError(f"--as: expected another speaker than {me!r}, whom you play")
    page, opening, stdin = Page(save, force), _opening(scene), standard_input()

    from course_lib import checkpoint, writing

    model = checkpoint.load(source)
    note_unknown(source, model.tokenizer.unknown(opening + me + other), "; skipped")
    play, rng = writing.Scene(model), writing.generator(new_seed() if seed is None else seed)
    stop = [text for text in ("\n\n", f"\n{me}:") if not model.tokenizer.unknown(text)]
    asks = stdin.isatty()
    if asks:
        print(f"You are {me}. Each line is a speech; Ctrl-D ends the scene.\n", file=sys.stderr)
    else:
        stdin.reconfigure(errors="replace")
    play.read(opening)
    page.write(opening)
    try:
        while True:
            speech = input(f"{me}:\n" if asks else "").strip()  # on a terminal, the reader's own typing shows the speech
            if not speech:
                continue
            note_unknown(source, model.tokenizer.unknown(speech), "; skipped")
            page.write(f"{me}:\n{speech}\n", shown=not asks)
            page.write(f"\n{other}:\n")
            play.read(f"{me}:\n{speech}\n\n{other}:\n")
            answer = play.write(length, rng, filters, stop, page.write).text
            end = "\n" if answer.endswith("\n") else "\n\n"
            play.read(end)
            page.write(end)
            page.save()
    except (EOFError, KeyboardInterrupt):
        if asks:
            print()
    page.save()


def _opening(scene: str | None) -> str:
    """What was said before, with a blank line behind it."""
    if scene is None:
        return ""
    if not any(c.isspace() for c in scene) or _is_file(scene):  # no speech is a single word
        scene = decoded("--scene", content("--scene", scene))
    else:
        scene = unescaped("--scene", scene)
    return scene.strip("\n") + "\n\n" if scene.strip() else ""


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a text, too long for a name
        return False
