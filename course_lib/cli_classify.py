"""``course classify``: the classes of texts, with their probabilities."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from course_lib.cli_models import note_unknown
from course_lib.errors import CourseError


def classify(
    text: Annotated[list[str] | None, typer.Argument(help='Such as "finlandia"; none: lines of the input.')] = None,
    source: Annotated[str | None, typer.Option("--checkpoint", help="A classifier's file or a run folder.")] = None,
    n_best: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each text.")] = False,
) -> None:
    """Tell the classes of texts, the most probable first; `course train --task classify` trains what can.

    Without TEXT, every line of the standard input is classified.
    """
    import json

    from course_lib.tasks import torch_needed

    with torch_needed("course classify", "use another command"):
        from course_lib import classifier, classifier_model

    if source is None:
        raise CourseError("--checkpoint is missing: the file or run folder that `course train --task classify` has made")
    found = classifier_model.read(source)
    model = found.model()
    for line in text or (line.rstrip("\n") for line in sys.stdin):
        prepared = found.prepared(line)
        if not prepared:
            raise CourseError("the text to classify is empty; give at least one character")
        note_unknown(source, found.tokenizer.unknown(prepared))
        (probabilities,) = classifier.predict(model, [prepared], found.tokenizer).tolist()
        best = sorted(zip(found.names, probabilities, strict=True), key=lambda pair: -pair[1])[:n_best]
        if as_json:
            classes = [{"class": name, "probability": p} for name, p in best]
            print(json.dumps({"text": line, "classes": classes}, ensure_ascii=False), flush=True)
        else:
            print(", ".join(f"{name} {p:.3f}" for name, p in best), flush=True)
