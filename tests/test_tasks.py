"""Tasks: the one that a configuration asks for, the same batches each time, and torch only where it is needed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from course_process import TEXT
from test_checkpoint import model, write

from course_lib import archive, checkpoint, tasks
from course_lib.budget import Config
from course_lib.datasets import load_corpus
from course_lib.engines import NumpyEngine
from course_lib.errors import CourseError
from course_lib.tasks import LanguageTask
from course_lib.trees import leaves


@pytest.fixture
def text(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(TEXT, encoding="utf-8")
    return Path("mine.txt")


def config(**changes) -> Config:
    given = {"data": "mine.txt", "hidden": 8, "embedding": 4, "batch_size": 4, "window": 16, "steps": 45, "seed": 3}
    return Config(**given | changes)


def test_a_language_task_walks_along_the_text(text):
    task, corpus = tasks.start(config()), load_corpus("mine.txt")
    assert isinstance(task, LanguageTask)
    assert task.sha256 == corpus.sha256
    assert task.tokenizer.decode(task.train) == corpus.train
    assert task.tokenizer.decode(task.validation) == corpus.validation
    V = task.tokenizer.size
    assert task.model == {"vocab_size": V, "embedding_size": 4, "hidden_size": 8, "num_layers": 1, "cell": "lstm"}
    assert task.sizes == f"{len(corpus.train):,} characters to train on, {len(corpus.validation)} held out, V = {V}"
    passes = [list(task.batches(number)) for number in (0, 1, 7)]
    for found in passes:
        assert len(found) == 36
        for (tokens, targets), (same, _) in zip(found, passes[0], strict=True):
            assert np.array_equal(tokens, same)
            assert np.array_equal(tokens[1:], targets[:-1])
            assert task.count(targets) == targets.size
    assert task.measures(task.engine(np.random.default_rng(0))) == {}
    read = np.concatenate([tokens for tokens, _ in passes[0]])
    assert np.array_equal(read.T.ravel(), task.train[: read.size])


def test_its_engine_starts_from_the_seed_or_from_what_was_saved(text, tmp_path):
    engines = [tasks.start(config(seed=seed)).engine(np.random.default_rng(0)) for seed in (3, 3, 4)]
    assert all(isinstance(engine, NumpyEngine) for engine in engines)
    weights = [engine.params.embedding for engine in engines]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    task = tasks.start(config(seed=4))
    task.save(tmp_path / "m.safetensors", engines[0].params, {"nats": 1.0}, {"x": np.ones(2)})
    saved = tasks.load_saved(tmp_path / "m.safetensors")
    assert isinstance(saved, checkpoint.Checkpoint)
    assert (saved.record, saved.config, saved.tokenizer) == ({"nats": 1.0}, task.model, task.tokenizer)
    assert saved.extra["x"].tolist() == [1, 1]
    for name in ("numpy", "torch"):
        engine = tasks.start(config(seed=4, engine=name), saved).engine(np.random.default_rng(0))
        for got, expected in zip(leaves(engine.params), leaves(engines[0].params), strict=True):
            assert np.array_equal(got, expected)


def test_a_saved_vocabulary_is_kept(text, tmp_path):
    """A run that goes on keeps its numbers of characters, whatever the text now holds."""
    saved = checkpoint.load(write(tmp_path / "m.safetensors", model()))
    text.write_text("a\n a" * 600, encoding="utf-8")
    assert tasks.start(config(), saved).tokenizer == saved.tokenizer
    assert tasks.start(config()).tokenizer != saved.tokenizer


def test_too_little_text_is_refused_at_once(text):
    text.write_text("abc" * 10, encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        tasks.start(config(batch_size=64))
    assert "\n" not in str(caught.value)


def test_without_torch_one_line_says_what_needs_it(text, tmp_path, monkeypatch):
    path, classifier = tmp_path / "t.safetensors", tmp_path / "c.safetensors"
    archive.write(path, archive.TRANSLATOR, {}, {})
    archive.write(classifier, archive.CLASSIFIER, {}, {})
    for name in ("torch_engine", "translation_task", "translator", "classifier_task", "classifier_model"):
        monkeypatch.delitem(sys.modules, f"course_lib.{name}", raising=False)
        monkeypatch.delattr(f"course_lib.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    tasks.start(config())
    for work, start in (
        (
            lambda: tasks.start(config(engine="torch")).engine(np.random.default_rng(0)),
            "--engine torch cannot import PyTorch (",
        ),
        (lambda: tasks.start(config(engine="torch", task="translate")), "--task translate cannot import PyTorch ("),
        (lambda: tasks.start(config(engine="torch", task="classify")), "--task classify cannot import PyTorch ("),
        (lambda: tasks.load_saved(path), "a translator cannot import PyTorch ("),
        (lambda: tasks.load_saved(classifier), "a classifier cannot import PyTorch ("),
    ):
        with pytest.raises(CourseError) as caught:
            work()
        assert str(caught.value).startswith(start)
        assert "); run make setup, or " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_language_task_of_numpy_does_not_import_torch(text):
    code = (
        "import sys, numpy as np; from course_lib import tasks; from course_lib.budget import Config;"
        "task = tasks.start(Config('mine.txt', hidden=8, batch_size=4, window=16)); task.engine(np.random.default_rng(0));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_saved_model_is_loaded_by_its_kind(tmp_path):
    language = write(tmp_path / "l.safetensors", model())
    assert isinstance(tasks.load_saved(language), checkpoint.Checkpoint)
    other = tmp_path / "c.safetensors"
    archive.write(other, archive.CLASSIFIER, {}, {})
    with pytest.raises(CourseError, match=r"is not a whole classifier of this course"):
        tasks.load_saved(other)
    for content in (b"", b"no checkpoint"):
        other.write_bytes(content)
        with pytest.raises(CourseError, match="is not a whole checkpoint of this course"):
            tasks.load_saved(other)
