"""A run survives what happens to it: stopped, killed or out of disk, it goes on where it was, bit for bit."""

import json
import resource
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from course_process import TEXT, TINY, course, start, tree

from course_lib import checkpoint, engines
from course_lib.budget import Config
from course_lib.datasets import load_corpus
from course_lib.errors import CourseError
from course_lib.language_model import evaluate
from course_lib.training import Trainer
from course_lib.trees import leaves


@pytest.fixture
def text(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a text; a pass over its training part takes 36 steps of `config`, the last one shorter."""
    monkeypatch.chdir(tmp_path)
    path = Path("mine.txt")
    path.write_text(TEXT, encoding="utf-8")
    return path


def config(**changes) -> Config:
    given = {"data": "mine.txt", "hidden": 8, "embedding": 4, "batch_size": 4, "window": 16, "steps": 45, "seed": 3}
    return Config(**given | changes)


def history(folder: Path) -> list[dict]:
    """The lines of a history, each whole."""
    content = (folder / "history.jsonl").read_text(encoding="utf-8")
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def steps_and_losses(folder: Path) -> list[tuple]:
    """What a history holds apart from the times."""
    return [tuple(sorted((k, v) for k, v in line.items() if k != "seconds")) for line in history(folder)]


def state(folder: Path, name: str = "last") -> dict:
    """All that a checkpoint holds apart from the times and the command."""
    found = checkpoint.load(folder / f"{name}.safetensors")
    record = {k: v for k, v in found.record.items() if k not in ("seconds", "command")}
    if "progress" in record:
        record["progress"] = {k: v for k, v in record["progress"].items() if k != "seconds"}
    arrays = {f"model {i}": leaf for i, leaf in enumerate(leaves(found.params))} | found.extra
    return {"record": record} | {n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()}


def stop_at(trainer: Trainer, step: int) -> None:
    """Run until a step, then ask it to stop, as Ctrl-C does."""
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda p, _: p.step == step and signal.raise_signal(signal.SIGINT))
    assert trainer.progress.step == step, "the step at work is finished, and no other begun"


# what a run leaves behind


def test_a_run_learns_and_writes_down_what_it_did(text):
    seen = []
    trainer = Trainer(config(steps=120, lr=0.02), Path("run"), "course train")
    assert trainer.run(lambda p, line: seen.append((p.step, line))) is trainer.progress
    assert [step for step, _ in seen] == list(range(1, 121))
    assert sorted(p.name for p in Path("run").iterdir()) == ["best.safetensors", "history.jsonl", "last.safetensors"]
    lines = history(Path("run"))
    assert [line["step"] for line in lines] == [1, 24, 48, 51, 72, 96, 101, 120]
    assert [line["step"] for line in lines if "validation_nats" in line] == [24, 48, 72, 96, 120]
    assert lines == [line for _, line in seen if line["step"] in {line["step"] for line in lines}]
    assert lines[0]["nats"] == pytest.approx(np.log(trainer.task.tokenizer.size), abs=0.2)  # it starts by guessing
    found = checkpoint.load("run")
    corpus, tokens = load_corpus("mine.txt"), found.tokenizer.encode(TEXT)
    counts = np.bincount(tokens)[1:]
    unigram = -(counts / counts.sum() * np.log(counts / counts.sum())).sum()
    nats, count = evaluate(found.params, found.tokenizer.encode(corpus.validation))
    assert nats / count < unigram - 0.1
    assert found.record["validation_nats"] == nats / count == trainer.progress.best
    assert round(nats / count, 4) == min(line["validation_nats"] for line in lines if "validation_nats" in line)
    assert found.extra == {}
    expected = {"data": "mine.txt", "data_sha256": corpus.sha256, "command": "course train", "seed": 3, "steps": 120}
    assert found.record.items() >= expected.items()
    assert found.record["parameters"] == sum(a.size for a in leaves(found.params))
    assert found.record["tokens"] == trainer.progress.tokens == lines[-1]["tokens"] > 120 * 4 * 12


def test_best_is_the_lowest_not_the_latest(text, monkeypatch):
    scores = iter([3.0, 2.5, 2.75, 2.25, 2.875])
    monkeypatch.setattr(engines, "evaluate", lambda params, tokens: (next(scores) * 100, 100))
    trainer = Trainer(config(steps=10), Path("run"))
    trainer.run()
    found = checkpoint.load(Path("run") / "best.safetensors")
    assert (found.record["validation_nats"], found.record["steps"], trainer.progress.best) == (2.25, 8, 2.25)


def test_patience_ends_a_run_that_gets_no_better(text, monkeypatch):
    scores = [3.0, 2.5, 2.75, 2.625, 2.25, 2.875, 2.5, 2.5, 2.0, 1.0]
    monkeypatch.setattr(engines, "evaluate", lambda params, tokens: (scores[trainer.progress.evaluated] * 100, 100))
    trainer = Trainer(config(steps=20, evaluations=10, patience=3), Path("run"))
    progress = trainer.run()
    assert (progress.step, progress.stale, progress.best) == (16, 3, 2.25), "the third evaluation after the best one"
    assert len([line for line in history(Path("run")) if "validation_nats" in line]) == 8
    again = Trainer.resume(Path("run")).run()
    assert again.step == 16, "resumed, it has nothing left to do"


def test_a_run_begins_with_the_weights_of_another_model(text):
    Trainer(config(), Path("first")).run()
    found = checkpoint.load(Path("first"))
    Path("mine.txt").write_text(TEXT[::-1] + "é" * 30, encoding="utf-8")
    trainer = Trainer(config(start="first", steps=2, lr=1e-12), Path("second"))
    assert trainer.task.tokenizer == found.tokenizer, "also where the new text has other characters"
    trainer.run()
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(leaves(trainer.params), leaves(found.params), strict=True))
    Path("first").rename("gone")
    Trainer.resume(Path("second")).run()  # the run itself holds all it needs


def test_each_pass_reads_the_whole_text_from_a_state_of_zeros(text, monkeypatch):
    seen, right = [], engines.loss_and_grads

    def watch(params, tokens, targets, before, *rest):
        seen.append((tokens, targets, before))
        *results, after = right(params, tokens, targets, before, *rest)
        afters.append(after)
        return *results, after

    afters = []
    monkeypatch.setattr(engines, "loss_and_grads", watch)
    trainer = Trainer(config(steps=80), Path("run"))
    trainer.run()
    for first in (0, 36, 72):
        assert not any(leaf.any() for leaf in leaves(seen[first][2]))
    assert all(seen[i][2] is afters[i - 1] for i in range(1, 80) if i % 36), "else the state is carried"
    read = np.concatenate([tokens for tokens, _, _ in seen[:36]])  # (length, N)
    assert np.array_equal(read.T.ravel(), trainer.task.train[: read.size])
    assert all(np.array_equal(seen[i][0], seen[i + 36][0]) for i in range(36))
    assert all(np.array_equal(tokens[1:], targets[:-1]) for tokens, targets, _ in seen)


def test_the_seed_decides(text):
    for name, changes in {"a": {}, "b": {}, "c": {"seed": 4}, "d": {"dropout": 0.5}, "e": {"dropout": 0.5, "seed": 4}}.items():
        Trainer(config(steps=6, **changes), Path(name)).run()
    assert state(Path("a")) == state(Path("b"))
    weights = {state(Path(name))["model 0"][2] for name in "acde"}
    assert len(weights) == 4


def test_a_run_works_where_signals_cannot_be_caught(text):
    thread = threading.Thread(target=Trainer(config(steps=3), Path("run")).run)
    thread.start()
    thread.join()
    assert state(Path("run"))["record"]["steps"] == 3


def test_handlers_are_put_back(text):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop_at(Trainer(config(), Path("run")), 2)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# stopping and going on


@pytest.mark.parametrize(
    "changes",
    [{}, {"cell": "gru", "layers": 2, "dropout": 0.3}, {"cell": "rnn", "average": 0.9, "weight_decay": 0.1}],
    ids=["lstm", "gru dropout", "rnn average"],
)
def test_stopped_anywhere_it_goes_on_bit_for_bit(text, changes):
    Trainer(config(**changes), Path("whole")).run()
    for at in (1, 9, 20, 35, 36, 37, 44, 45):  # 9: at an evaluation; 36: at the end of a pass over the text
        folder = Path(f"stopped at {at}")
        stop_at(Trainer(config(**changes), folder), at)
        Trainer.resume(folder).run()
        assert state(folder) == state(Path("whole")), at
        assert state(folder, "best") == state(Path("whole"), "best"), at
        assert steps_and_losses(folder) == steps_and_losses(Path("whole")), at


def test_stopped_at_every_step_it_goes_on_bit_for_bit(text):
    Trainer(config(), Path("whole")).run()
    stop_at(Trainer(config(), Path("often")), 1)
    for step in range(2, 46):
        stop_at(Trainer.resume(Path("often")), step)
    Trainer.resume(Path("often")).run()
    assert state(Path("often")) == state(Path("whole"))
    assert steps_and_losses(Path("often")) == steps_and_losses(Path("whole"))


def test_a_run_that_never_began_goes_on_from_its_first_moment(text):
    Trainer(config(), Path("whole")).run()
    Trainer(config(), Path("killed"), "course train the first")
    assert sorted(p.name for p in Path("killed").iterdir()) == [".lock", "last.safetensors"]
    Trainer.resume(Path("killed"), command="course train --resume").run()
    assert state(Path("killed")) == state(Path("whole"))
    assert checkpoint.load("killed").record["command"] == "course train the first"


def wait_for(condition, process) -> None:
    """Wait until something is true or the process has ended."""
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminate"])
def test_a_request_to_stop_saves_and_says_how_to_go_on(text, tmp_path, number):
    asked = ["train", "--data", "mine.txt", "--minutes", "5", *TINY, "--out", "my run"]
    process = start(*asked, folder=tmp_path)
    wait_for((tmp_path / "my run" / "history.jsonl").exists, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    expected = "error: interrupted; all is saved: go on with `course train --out 'my run' --resume`\n"
    assert errors == expected
    assert "Traceback" not in output
    found = checkpoint.load(Path("my run") / "last.safetensors").record
    assert found["progress"]["step"] >= 1
    assert found["command"] == "course train --data mine.txt --minutes 5 " + " ".join(TINY) + " --out 'my run'"
    again = course("train", "--out", "my run", "--resume", "--minutes", f"{found['seconds'] / 60 + 0.005:.4f}", folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert checkpoint.load("my run").record["validation_nats"] > 0
    assert checkpoint.load(Path("my run") / "last.safetensors").record["progress"]["step"] > found["progress"]["step"]


def test_half_a_line_of_history_is_dropped(text):
    Trainer(config(), Path("whole")).run()
    stop_at(Trainer(config(), Path("run")), 20)
    path = Path("run") / "history.jsonl"
    with path.open("ab") as file:
        file.write(b'{"step": 21, "seconds": 1}\n[1]\n7\n{"a": 1}\n\xff\xfe\n\0\0\n{"step": 24, "seco')
    Trainer.resume(Path("run")).run()
    assert steps_and_losses(Path("run")) == steps_and_losses(Path("whole"))
    path.unlink()
    Trainer.resume(Path("run")).run()
    assert path.read_bytes() == b"", "a finished run takes no more steps"


# budgets


def test_minutes_are_kept_and_can_be_prolonged(text):
    began = time.monotonic()
    trainer = Trainer(config(steps=None, minutes=0.01), Path("run"), "course train")
    trainer.run()
    assert 0.55 < time.monotonic() - began < 3
    assert 0.6 <= trainer.progress.seconds < 1.5
    assert trainer.progress.evaluated == 1
    longer = Trainer.resume(Path("run"), minutes=0.02, command="course train --minutes 0.02")
    stop_at(longer, longer.progress.step + 1)
    forgotten = Trainer.resume(Path("run"))
    assert forgotten.config.minutes == 0.02, "the new budget is remembered"
    assert forgotten.run().seconds >= 1.2
    assert forgotten.progress.evaluated == 1
    assert checkpoint.load(Path("run") / "last.safetensors").record["command"] == "course train; course train --minutes 0.02"
    finished = Trainer.resume(Path("run")).run()
    assert finished == forgotten.progress


def test_minutes_replace_a_budget_of_steps(text):
    Trainer(config(steps=3), Path("run")).run()
    trainer = Trainer.resume(Path("run"), minutes=0.005)
    assert (trainer.config.minutes, trainer.config.steps) == (0.005, None)
    assert trainer.run().step > 3


def test_a_run_looks_at_the_held_out_text_at_its_end_and_at_most_five_times(text):
    assert [config(steps=None, minutes=m).looks() for m in (0.01, 0.5, 1, 2, 60)] == [1, 1, 2, 5, 5]
    for steps in (1, 2, 3, 7):
        trainer = Trainer(config(steps=steps), Path(f"run{steps}"))
        trainer.run()
        lines = history(trainer.folder)
        assert "validation_nats" in lines[-1]
        assert lines[-1]["step"] == steps
        assert trainer.progress.evaluated == min(5, steps)


# refusals, nothing half-written


def test_resume_refuses_what_it_cannot_go_on_with(text):
    stop_at(Trainer(config(), Path("run")), 10)
    before = tree(Path("run"))

    def refused(message: str, folder: str = "run") -> None:
        content = tree(Path(folder))
        with pytest.raises(CourseError, match=message) as caught:
            Trainer.resume(Path(folder))
        assert "\n" not in str(caught.value)
        assert tree(Path(folder)) == content

    refused("holds no run to resume", "nothing")
    refused("holds no run to resume", "mine.txt")
    Path("mine.txt").write_text(TEXT + "x", encoding="utf-8")
    refused("mine.txt is not the data this run began with; restore it, or start a new run")
    Path("mine.txt").unlink()
    refused("no data set or file 'mine.txt'")
    Path("mine.txt").write_text(TEXT, encoding="utf-8")
    for name, content in {
        "cut": before["last.safetensors"][:-1],
        "empty": b"",
        "foreign": b"The quick brown fox",
    }.items():
        Path(name).mkdir()
        (Path(name) / "last.safetensors").write_bytes(content)
        refused("is not a whole checkpoint of this course", name)
    Trainer(config(steps=5), Path("finished")).run()
    (Path("finished") / "best.safetensors").replace(Path("finished") / "last.safetensors")
    refused("is no run to go on with, but a model alone", "finished")
    Trainer.resume(Path("run")).run()


@pytest.mark.parametrize("change", ["progress", "random", "run", "arrays", "batch_size", "hidden"])
def test_resume_refuses_a_run_that_was_tampered_with(text, change):
    trainer = Trainer(config(steps=5), Path("run"))
    trainer.run()
    found = checkpoint.load(Path("run") / "last.safetensors")
    record, extra = dict(found.record), dict(found.extra)
    if change == "arrays":
        del extra["v.embedding"]
    elif change in ("batch_size", "hidden"):
        record["run"] = asdict(config(**{change: 5}))
    else:
        record[change] = {"unheard": 1}
    checkpoint.save(Path("run") / "last.safetensors", *found._replace(record=record, extra=extra))
    with pytest.raises(CourseError, match=r"run cannot go on from last|is no run to go on with"):
        Trainer.resume(Path("run"))


def test_a_new_run_takes_an_empty_folder_only(text, tmp_path):
    Trainer(config(steps=2), Path("run")).run()
    Path("other").mkdir()
    Path("other/notes.txt").touch()
    Path("file").touch()
    before = tree(tmp_path)
    for folder, message in {
        "run": "run already holds a run: add --resume to go on with it, or choose another --out",
        "other": "other is not empty; choose another --out",
        "file": "file is a file; choose another --out",
        "file/below": "cannot make the folder file/below: Not a directory; choose another --out",
        "/proc/below": "cannot make the folder /proc/below: No such file or directory; choose another --out",
    }.items():
        with pytest.raises(CourseError) as caught:
            Trainer(config(), Path(folder))
        assert str(caught.value) == message
    assert tree(tmp_path) == before
    Path("killed").mkdir()
    Path("killed/.last.safetensors.partial").touch()  # all that a run leaves which was killed while it began
    Trainer(config(steps=2), Path("killed")).run()
    Path("killed/.best.safetensors.partial").touch()
    Trainer.resume(Path("killed")).run()
    assert sorted(p.name for p in Path("killed").iterdir()) == ["best.safetensors", "history.jsonl", "last.safetensors"]


def test_text_too_short_for_the_streams_leaves_no_folder(text):
    with pytest.raises(CourseError, match="use a longer text or a smaller batch size"):
        Trainer(config(batch_size=3000), Path("run"))
    assert not Path("run").exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [1, 2, 40])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_loss_that_is_no_number_stops_the_run_before_the_good_checkpoint_is_lost(text, steps, cell):
    for at, lr in enumerate((1e38, 1e300, 1e19)):
        folder = Path(f"run{at}")
        try:
            Trainer(config(steps=steps, cell=cell, lr=lr, clip=1e38), folder).run()
        except CourseError as error:
            assert "training broke down after step" in str(error)
            assert f"start again with a lower --lr than {lr:.2g}" in str(error)
            assert "\n" not in str(error)
        for path in folder.glob("*.safetensors"):
            assert all(np.isfinite(leaf).all() for leaf in leaves(checkpoint.load(path).params))
        assert Trainer.resume(folder).progress.step <= steps
        assert "NaN" not in "".join(p.read_text() for p in folder.glob("*.jsonl"))


def test_the_breakdown_is_certain_with_a_huge_rate(text):
    trainer = Trainer(config(lr=1e38), Path("run"))
    with pytest.raises(CourseError, match=r"training broke down after step [1-5]: "):
        trainer.run()
    assert checkpoint.load(Path("run") / "last.safetensors").record["progress"]["step"] == 0


def test_weights_that_are_no_numbers_are_never_saved(text):
    """A request to stop may come just after the step that spoilt them."""
    trainer = Trainer(config(), Path("run"))
    before = (Path("run") / "last.safetensors").read_bytes()
    trainer.params.W_out[3, 2] = np.inf
    with pytest.raises(CourseError, match="training broke down after step 0: a weight is too large; start again"):
        trainer.save()
    assert (Path("run") / "last.safetensors").read_bytes() == before


def test_a_gradient_that_is_no_number_stops_the_run(text, monkeypatch):
    right = engines.loss_and_grads

    def wrong(params, *rest):
        loss, grads, new_state = right(params, *rest)
        if trainer.progress.step == 7:
            grads.b_out[2] = np.nan
        return loss, grads, new_state

    monkeypatch.setattr(engines, "loss_and_grads", wrong)
    trainer = Trainer(config(), Path("run"))
    with pytest.raises(CourseError, match=r"broke down after step 7: the loss is [\d.]+ with gradient norm nan"):
        trainer.run()
    assert all(np.isfinite(leaf).all() for leaf in leaves(trainer.params))


def test_a_full_disk_leaves_the_last_checkpoint(text):
    """Not simulated: the kernel refuses a file that long."""
    stop_at(Trainer(config(), Path("full")), 30)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = Trainer.resume(Path("full"))
    kept = (Path("full") / "last.safetensors").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))  # the history has no room either
    try:
        with pytest.raises(CourseError, match=r"cannot write full/.*: File too large"):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (Path("full") / "last.safetensors").read_bytes() == kept
    Trainer.resume(Path("full")).run()
    Trainer(config(), Path("whole")).run()
    assert state(Path("full")) == state(Path("whole"))
    assert steps_and_losses(Path("full")) == steps_and_losses(Path("whole"))
