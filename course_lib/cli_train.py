"""``course train``: what a run is asked to do, from the command line to ``training.Trainer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from course_lib.cli_models import DataOption, options
from course_lib.errors import CourseError

USES = {  # of each task, what its nats are counted by, and how its weights are used
    "language": ("character", "write", 'course generate "The quick brown fox"'),
    "translate": ("token", "translate", 'course translate "a sentence"'),
    "classify": ("text", "classify", 'course classify "a text"'),
}
TRANSLATING = ("target", "reverse", "attention", "units", "min_count", "copy", "teacher_forcing", "smoothing")


def train(
    data: DataOption = None,
    start: Annotated[
        str | None, typer.Option(help="Begin with the weights, sizes and characters of this model. [default: random weights]")
    ] = None,
    cell: Annotated[Literal["rnn", "lstm", "gru"] | None, typer.Option(help="The recurrent cell. [default: lstm]")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden units, H. [default: 256]")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers, L. [default: 1]")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Size of the embedding, E. [default: 64]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Streams read side by side, N. [default: 32]")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="Steps of back-propagation, T. [default: 64]")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate. [default: by the budget]")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout rate, in [0, 1). [default: 0]")] = None,
    input_dropout: Annotated[
        float | None, typer.Option(help="Rate on the embedding (torch, LSTM). [default: as --dropout]")
    ] = None,
    held_masks: Annotated[
        bool, typer.Option("--held-masks", help="Hold dropout's masks over the time steps of a window (torch, LSTM).")
    ] = False,
    recurrent_dropout: Annotated[
        float | None, typer.Option(help="Rate on the entries of W_hh, in [0, 1) (torch, LSTM). [default: 0]")
    ] = None,
    tie: Annotated[bool, typer.Option("--tie", help="Predict with the embedding's weights; takes E = H (torch).")] = False,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW, on matrices. [default: 0]")] = None,
    average: Annotated[
        float | None, typer.Option(help="Judge and keep a running mean of the weights; its decay, such as 0.999. [default: 0]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many evaluations without a better one. [default: never]")
    ] = None,
    best_by: Annotated[
        Literal["nats", "accuracy", "token_f1", "bleu", "exact_match"] | None,
        typer.Option(help="Keep the weights that do best on the held-out part by this. [default: nats]"),
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Evaluations in the run. [default: 5, fewer in a short one]")
    ] = None,
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
        Literal["language", "translate", "classify"] | None,
        typer.Option(help="Continue texts, translate pairs, or tell classes of texts. [default: language]"),
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
    """Train a language model, in NumPy or PyTorch, a translator or a classifier; the best weights end in OUT/best.safetensors.

    A translator learns from --data dates, summaries, bodies, multi30k, tatoeba_fra, tatoeba_cmn, a file of "source TAB target"
    lines, or two files, --data and --target. A classifier learns from --data languages or a file of "text TAB label" lines.
    """
    import shlex

    from course_lib.progress import ProgressBar
    from course_lib.training import Config, Trainer

    fields = Config.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in fields and value is not None and value is not False}
    _of_one_task(given)
    command = shlex.join(["course", *sys.argv[1:]])
    if start:
        command = f"{_sizes_of(start, given)}; {command}"
    with options():
        config = Config(**({"data": "", "engine": "numpy" if task in (None, "language") else "torch"} | given))
    if resume:
        if out is None or set(given) - {"minutes"}:
            raise CourseError("--resume takes --out, the run's folder, and at most --minutes; the run knows the rest")
        trainer = Trainer.resume(out, minutes, command)
    else:
        if data is None:
            raise CourseError("--data is missing: a registered name (`course data list`) or a text file")
        kind = {"language": config.cell, "translate": f"translate-{config.attention}"}.get(config.task, config.task)
        out = out or Path("runs") / f"{Path(config.data).stem}-{kind}-{config.hidden}"
        trainer = Trainer(config, out, command)
    sizes = trainer.task.sizes
    if trainer.main:
        print(sizes if trainer.config.engine == "numpy" else f"{sizes}; {trainer.engine.name}")
    try:
        if not trainer.main:
            trainer.run()
            return
        with ProgressBar(trainer.config, trainer.progress) as bar:
            found = trainer.run(bar.report)
    except KeyboardInterrupt:
        resume_with = shlex.join(["course", "train", "--out", str(out), "--resume"])
        raise CourseError(f"interrupted; all is saved: go on with `{resume_with}`") from None
    unit, verb, use = USES[trainer.config.task]
    by = trainer.config.best_by
    score = "" if by == "nats" else f"{by} {found.score:.3f}, "
    print(f"best held-out {score}{found.best:.3f} nats per {unit}; weights in {out}/best.safetensors")
    print(f"{verb} with them: {use} --checkpoint {shlex.quote(str(out))}")


def _sizes_of(start: str, given: dict) -> str:
    """Take the sizes of the model that a run begins with into the options; the command that it was made by."""
    from course_lib import checkpoint

    model = checkpoint.load(start)
    names = {"cell": "cell", "hidden": "hidden_size", "layers": "num_layers", "embedding": "embedding_size"}
    for name, size in ((option, model.config[field]) for option, field in names.items()):
        if given.setdefault(name, size) != size:
            raise CourseError(f"--{name} {given[name]} is not that of {start}, {size}; leave it out, or leave out --start")
    return str(model.record.get("command", f"a model without a command, {start}"))


def _of_one_task(given: dict) -> None:
    """Refuse options of another task: they would do nothing, silently."""
    task = given.get("task", "language")
    wrong = {"language": set(), "translate": {"cell", "window"}, "classify": {"cell", "window", "tie"}}[task]
    for name in sorted((wrong if task == "translate" else wrong | set(TRANSLATING)) & given.keys()):
        advice = "add --task translate, or leave it out" if name in TRANSLATING else "leave it out"
        raise CourseError(f"--{name.replace('_', '-')} does nothing with --task {task}; {advice}")
