"""A run on labelled texts survives a stop bit for bit, deals its texts anew in each pass, and keeps what it was asked for."""

import itertools
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_torch_parallel import torchrun

from course_lib import archive, checkpoint, classifier, classifier_model, classifier_task, labelled, languages, tasks
from course_lib.budget import Config
from course_lib.classifier_task import ClassifierTask
from course_lib.errors import CourseError
from course_lib.labelled import load_labelled
from course_lib.text import CharTokenizer
from course_lib.training import Trainer

NAMES = ("first", "second", "third")


def lines(n=240, seed=0) -> str:
    """Different texts; the class is that of the last letter."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < n:
        text = "".join(rng.choice(list("abcdef"), rng.integers(5, 12)))
        found[text] = NAMES["abcdef".index(text[-1]) % 3]
    return "".join(f"{text}\t{label}\n" for text, label in found.items())


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with 240 texts: a pass over the training part takes 9 steps of ``config``."""
    monkeypatch.chdir(tmp_path)
    Path("mine.tsv").write_text(lines(), encoding="utf-8")
    return Path("mine.tsv")


def config(**changes) -> Config:
    given = {"data": "mine.tsv", "task": "classify", "engine": "torch", "device": "cpu", "hidden": 8, "embedding": 6}
    return Config(**given | {"batch_size": 24, "steps": 20, "seed": 3} | changes)


def state(folder: str, name: str = "last") -> dict:
    """All that a checkpoint holds apart from the times and the command."""
    found = classifier_model.read(Path(folder) / f"{name}.safetensors")
    record = {k: v for k, v in found.record.items() if k not in ("seconds", "command")}
    if "progress" in record:
        record["progress"] = {k: v for k, v in record["progress"].items() if k != "seconds"}
    arrays = found.params | {f"extra {k}": a for k, a in found.extra.items()}
    return {"record": record, "config": found.config, "names": found.names, "tokenizer": found.tokenizer} | {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()
    }


def history(folder: str) -> list[dict]:
    found = [json.loads(line) for line in (Path(folder) / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def stop_at(trainer: Trainer, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda p, _: p.step == step and signal.raise_signal(signal.SIGINT))
    assert trainer.progress.step == step


# what a run does


def test_a_run_learns_and_writes_down_what_it_did(file):
    trainer = Trainer(config(steps=200, lr=0.03, layers=2), Path("run"), "course train")
    trainer.run()
    model, tokenizer, names = classifier.load(Path("run") / "best.safetensors")
    corpus = load_labelled("mine.tsv")
    assert names == NAMES == corpus.names
    nats, accuracy = classifier.evaluate(model, classifier.examples(corpus.validation, tokenizer))
    assert accuracy > 0.9
    found = classifier_model.read("run")
    assert found.record["validation_nats"] == pytest.approx(nats, abs=1e-5)
    assert found.record["validation_accuracy"] == accuracy
    expected = {"data": "mine.tsv", "data_sha256": corpus.sha256, "command": "course train", "seed": 3}
    assert found.record.items() >= expected.items()
    assert found.record["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.config["hidden_sizes"] == (8, 8)
    assert tokenizer == CharTokenizer.from_text("".join(corpus.train.texts))
    assert (found.prepare, found.extra) == ("cleaned", {})
    train, held_out = len(corpus.train.texts), len(corpus.validation.texts)
    assert trainer.task.sizes == f"{train} texts to train on, {held_out} held out, V = 8, 3 classes"
    dealt = itertools.chain.from_iterable(map(trainer.task.batches, itertools.count()))
    assert trainer.progress.tokens == sum(len(y) for _, y in itertools.islice(dealt, 200))
    looks = [line for line in history("run") if "validation_nats" in line]
    assert [line["step"] for line in looks] == [40, 80, 120, 160, 200]
    assert all(0 <= line["validation_accuracy"] <= 1 for line in looks)


def test_each_pass_takes_all_texts_in_another_order(file):
    task = ClassifierTask(config())

    def rows(task, number: int) -> list[tuple]:
        found = []
        for (tokens, lengths), labels in task.batches(number):
            assert task.count(labels) == len(labels) == tokens.shape[1] <= 24
            found += [(*c[:n].tolist(), y) for c, n, y in zip(tokens.T, lengths, labels.tolist(), strict=True)]
        return found

    first, again, second = rows(task, 0), rows(task, 0), rows(task, 1)
    assert first == again
    assert first != second
    assert len(list(task.batches(0))) == 9
    corpus = load_labelled("mine.tsv")
    texts = zip(corpus.train.texts, corpus.train.labels.tolist(), strict=True)
    assert sorted(first) == sorted(second) == sorted((*(task.tokenizer.encode(t) + 1).tolist(), y) for t, y in texts)
    assert rows(ClassifierTask(config(seed=4)), 0) != first


def test_names_are_cleaned_as_lesson_08_does(tmp_path):
    task = ClassifierTask(config(data="languages"))
    assert task.sha256 == languages.load_names().sha256
    assert task.model["classes"] == 10
    task.save(tmp_path / "a.safetensors", task.engine(np.random.default_rng(0)).params, {}, {})
    found = classifier_model.read(tmp_path / "a.safetensors")
    assert found.names == languages.LANGUAGES
    assert found.prepared("  Vereinigte  STAATEN (USA)") == "vereinigte staaten"


# stopping and going on


@pytest.mark.parametrize(
    "changes",
    [{}, {"layers": 2, "dropout": 0.3, "average": 0.9, "best_by": "accuracy"}, {"accumulate": 3, "precision": "bf16"}],
    ids=["plain", "dropout and averaged", "in parts"],
)
def test_stopped_anywhere_it_goes_on_bit_for_bit(file, changes):
    Trainer(config(**changes), Path("whole")).run()
    for at in (1, 4, 9, 10, 19):  # 4: at an evaluation; 9: at the end of a pass
        folder = f"stopped at {at}"
        stop_at(Trainer(config(**changes), Path(folder)), at)
        torch.manual_seed(99)  # another process begins with other random numbers
        Trainer.resume(Path(folder)).run()
        for name in ("last", "best"):
            assert state(folder, name) == state("whole", name), (at, name)
        assert history(folder) == history("whole"), at


def test_two_processes_take_the_steps_of_one_and_stop_together(file):
    """The weights agree up to rounding; the first process alone measures, and patience stops both."""
    course, rng = Path(sys.executable).parent / "course", np.random.default_rng(0)
    guesses = (f"{line.split()[0]}\t{rng.choice(NAMES)}\n" for line in lines().splitlines())
    file.write_text("".join(guesses), encoding="utf-8")  # nothing to learn but by heart: no look is better for long
    sizes = ("--hidden", 8, "--batch-size", 23, "--steps", 30, "--lr", 0.05, "--evaluations", 30, "--seed", 3)
    options = ("--data", "mine.tsv", "--task", "classify", *sizes, "--device", "cpu", "--best-by", "accuracy", "--patience", 6)
    for processes in (1, 2):
        launch = ("--no-python", course, "train", *options, "--out", f"run{processes}")
        run = torchrun(*launch, folder=Path.cwd(), processes=processes)
        output, errors = run.communicate(timeout=180)
        assert run.returncode == 0, errors
        assert output.count("best held-out accuracy") == 1
    one, two = (classifier_model.read(Path(f"run{n}") / "last.safetensors") for n in (1, 2))
    assert one.record["progress"]["step"] == two.record["progress"]["step"] < 30
    assert one.record["progress"]["tokens"] == two.record["progress"]["tokens"]
    assert one.record["progress"]["score"] == two.record["progress"]["score"] > 0
    for name, array in one.params.items():
        np.testing.assert_allclose(two.params[name], array, atol=2e-3)


def test_a_run_is_not_resumed_with_other_data(file):
    stop_at(Trainer(config(), Path("run")), 3)
    content = {p.name: p.read_bytes() for p in Path("run").iterdir()}
    file.write_text(lines().replace("first", "fourth"), encoding="utf-8")
    with pytest.raises(CourseError, match=r"^mine.tsv is not the data this run began with; restore it, or start a new run$"):
        Trainer.resume(Path("run"))
    assert {p.name: p.read_bytes() for p in Path("run").iterdir()} == content
    file.write_text(lines(), encoding="utf-8")
    Trainer.resume(Path("run")).run()


def test_a_model_alone_or_another_model_is_no_run(file):
    Trainer(config(steps=5), Path("run")).run()
    last, best = (Path("run") / f"{name}.safetensors" for name in ("last", "best"))
    whole = classifier_model.read(last)
    changed = whole.record | {"run": whole.record["run"] | {"hidden": 10}}
    classifier_model.write(last, whole._replace(record=changed))
    message = r"cannot go on from last.safetensors \(it holds another model than was asked for\); start a new run$"
    with pytest.raises(CourseError, match=message):
        Trainer.resume(Path("run"))
    best.replace(last)
    with pytest.raises(CourseError, match="is no run to go on with, but a model alone; start a new run"):
        Trainer.resume(Path("run"))


def test_a_run_of_texts_is_saved_as_a_classifier(file):
    Trainer(config(steps=2), Path("run")).run()
    assert archive.kind_of(Path("run") / "best.safetensors") == archive.CLASSIFIER
    assert isinstance(tasks.load_saved(Path("run") / "last.safetensors"), classifier_model.Classifier)
    with pytest.raises(CourseError, match=r"holds a sequence classifier: use `course classify` or `course eval`"):
        checkpoint.load("run")


# the best by accuracy


def test_the_accuracy_of_each_evaluation_is_that_of_the_weights_it_saw(file):
    trainer, seen = Trainer(config(lr=0.05, evaluations=10, best_by="accuracy", average=0.5), Path("run")), []
    trainer.run(lambda _, line: "validation_nats" in line and seen.append((line, trainer.engine.averaged)))
    examples = classifier.examples(load_labelled("mine.tsv").validation, trainer.task.tokenizer)
    assert len(seen) == 10
    for line, weights in seen:
        model = classifier_model.build(trainer.task.model, weights).eval()
        nats, accuracy = classifier.evaluate(model, examples)
        assert line["validation_accuracy"] == pytest.approx(accuracy, abs=1e-4)
        assert line["validation_nats"] == pytest.approx(nats, abs=1e-4)
    rows = [(line["validation_accuracy"], -line["validation_nats"], line["step"]) for line, _ in seen]
    assert len({row[0] for row in rows}) > 2
    record = classifier_model.read("run").record
    assert record["steps"] == max(rows)[2]
    assert record["validation_accuracy"] == trainer.progress.score == pytest.approx(max(rows)[0], abs=1e-4)


@pytest.mark.parametrize("by", ["nats", "accuracy"])
def test_patience_counts_by_the_measure_that_was_asked_for(file, monkeypatch, by):
    """Nats fall at each look, accuracy first rises, then falls: with equal accuracy the lower nats are better."""
    trainer = Trainer(config(steps=20, evaluations=20, patience=3, best_by=by), Path("run"))
    accuracies, looked = [0.2, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.3], []
    monkeypatch.setattr(trainer.engine, "evaluate", lambda _: (3.0 - 0.1 * len(looked), 2))

    def measures(_):
        looked.append(trainer.progress.step)
        return {"accuracy": accuracies[min(len(looked), len(accuracies)) - 1]}

    monkeypatch.setattr(trainer.task, "measures", measures)
    progress = trainer.run()
    assert progress.step == {"nats": 20, "accuracy": 6}[by]
    assert classifier_model.read("run").record["steps"] == {"nats": 20, "accuracy": 3}[by]
    assert progress.score == {"nats": 0, "accuracy": 0.5}[by]


# scores and refusals


def test_a_score_is_of_the_part_that_is_asked_for(file):
    Trainer(config(steps=8, lr=0.03), Path("run")).run()  # not many: it is to make mistakes
    found, corpus = classifier_model.read("run"), load_labelled("mine.tsv")
    for split in ("train", "validation", "test"):
        part = getattr(corpus, split)
        result = classifier_task.score(found, "mine.tsv", split)
        p = classifier.predict(found.model(), list(part.texts), found.tokenizer)
        guesses = p.argmax(1)
        assert result["nats"] == pytest.approx(-np.log(p[np.arange(len(p)), part.labels]).mean())
        assert result["accuracy"] == np.mean(guesses == part.labels) < 0.95
        for y, name in enumerate(NAMES):
            of_class = [guess == y for guess, label in zip(guesses, part.labels, strict=True) if label == y]
            assert result["recall"][name] == pytest.approx(np.mean(of_class))
        assert (result["texts"], result["unknown"]) == (len(part.texts), 0)
        assert (result["data"], result["split"], result["data_sha256"]) == ("mine.tsv", split, corpus.sha256)


def test_other_data_are_scored_by_the_names_of_their_classes(file):
    """A file with two of the three classes, whose numbers there are others."""
    Trainer(config(steps=150, lr=0.03), Path("run")).run()
    found = classifier_model.read("run")
    kept = [line for line in lines(300, seed=8).splitlines() if not line.endswith("first")]
    Path("other.tsv").write_text("\n".join(kept).replace("b\t", "bxy\t"), encoding="utf-8")
    result = classifier_task.score(found, "other.tsv", "train")
    part = load_labelled("other.tsv").train
    assert result["unknown"] == "".join(part.texts).count("x") * 2 > 0
    assert set(result["recall"]) == {"second", "third"}
    assert result["recall"]["third"] > 0.8
    Path("other.tsv").write_text(lines().replace("first", "fourth"), encoding="utf-8")
    with pytest.raises(CourseError, match=r"^other.tsv has the label 'fourth', which is none of first, second, third; choose"):
        classifier_task.score(found, "other.tsv", "train")


def test_data_that_cannot_be_learned_from_are_refused_before_anything_is_written(file):
    Path("untabbed.tsv").write_text("no tab\n" * 200, encoding="utf-8")
    Path("one.tsv").write_text(lines().replace("first", "third").replace("second", "third"), encoding="utf-8")
    for data, message in {"untabbed.tsv": "has no TAB", "one.tsv": "has the label 'third'", "names": "has no labels"}.items():
        with pytest.raises(CourseError, match=message):
            Trainer(config(data=data), Path("run"))
        assert not Path("run").exists()
    assert labelled.FEWEST == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "numpy"}, "engine: expected torch with --task classify, got numpy"),
        ({"start": "shakespeare"}, "start: expected nothing with --task classify, got shakespeare"),
        ({"best_by": "bleu"}, "best_by: expected nats or accuracy with --task classify, got bleu"),
        ({"best_by": "accuracy", "task": "language"}, "best_by: expected nats with --task language, got accuracy"),
        ({"held_masks": True}, "held_masks: expected them with --cell lstm and --engine torch only, got True"),
        ({"target": "b.txt"}, "target: expected nothing without --task translate, got b.txt"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    assert config(hidden=9).hidden == 9
    with pytest.raises(ValueError, match=f"^{message}$"):
        config(**changes)
