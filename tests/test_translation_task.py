"""A run on pairs survives a stop bit for bit, deals its pairs anew in each pass, and refuses what it cannot learn from."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import archive, checkpoint, dates, metrics, tasks, translation, translation_task, translator
from course_lib.budget import Config
from course_lib.errors import CourseError
from course_lib.pairs import Pairs, ParallelCorpus, load_pairs
from course_lib.seq2seq import EOS, PAD
from course_lib.training import Trainer
from course_lib.translation_task import TranslationTask, load_corpus

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five", "sechs": "six", "acht": "eight"}


def lines(n=200, seed=0) -> str:
    """Different sentences of numbers in German and English."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < n:
        words = rng.choice(list(WORDS), rng.integers(2, 7))
        found[" ".join(words)] = " ".join(WORDS[word] for word in words)
    return "".join(f"{a}\t{b}\n" for a, b in found.items())


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with 200 pairs: a pass over the training part takes 8 steps of ``config``."""
    monkeypatch.chdir(tmp_path)
    Path("mine.tsv").write_text(lines(), encoding="utf-8")
    return Path("mine.tsv")


@pytest.fixture
def few_dates(monkeypatch):
    monkeypatch.setattr(translation_task, "DATES_A_PASS", 120)
    monkeypatch.setattr(translation_task, "DATES_VALIDATED", 30)


def config(**changes) -> Config:
    given = {"data": "mine.tsv", "task": "translate", "engine": "torch", "device": "cpu", "hidden": 8, "embedding": 6}
    return Config(**given | {"batch_size": 24, "steps": 20, "seed": 3, "attention": "multiplicative"} | changes)


def state(folder: str, name: str = "last") -> dict:
    """All that a checkpoint holds apart from the times and the command."""
    found = translator.load(Path(folder) / f"{name}.safetensors")
    record = {k: v for k, v in found.record.items() if k not in ("seconds", "command")}
    if "progress" in record:
        record["progress"] = {k: v for k, v in record["progress"].items() if k != "seconds"}
    arrays = found.params | {f"extra {k}": a for k, a in found.extra.items()}
    return {"record": record, "config": found.config, "sides": found[1:3]} | {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()
    }


def history(folder: str) -> list[tuple]:
    found = [json.loads(line) for line in (Path(folder) / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [tuple(sorted((k, v) for k, v in line.items() if k != "seconds")) for line in found]


def stop_at(trainer: Trainer, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda p, _: p.step == step and signal.raise_signal(signal.SIGINT))
    assert trainer.progress.step == step


# what a run does


def test_a_run_learns_and_writes_down_what_it_did(file):
    trainer = Trainer(config(steps=150, lr=0.03), Path("run"), "course train")
    trainer.run()
    found = translator.load("run")
    corpus = load_pairs("mine.tsv")
    data = translation.encode(corpus.validation, found.source, found.target)
    nats, count = translation.evaluate(found.model(), data)
    assert count == sum(len(text.split()) + 1 for text in corpus.validation.target)
    assert found.record["validation_nats"] == pytest.approx(nats / count, abs=1e-4)
    assert nats / count < 0.8 * np.log(len(WORDS) + 1), "guessing a word or the end takes 2.1"
    expected = {"data": "mine.tsv", "data_sha256": corpus.sha256, "command": "course train", "seed": 3}
    assert found.record.items() >= expected.items()
    assert found.record["parameters"] == sum(a.size for a in found.params.values())
    assert found.config["prepare"] == "sentences"
    assert found.config["longest"] == [6, 7], "with the end token of the target"
    assert found.config["model"]["attention"] == "multiplicative"
    assert set(found.source.tokens) == set(WORDS)
    assert set(found.target.tokens) == set(WORDS.values())
    assert (
        trainer.task.sizes
        == f"{len(corpus.train.source)} pairs to train on, {len(corpus.validation.source)} held out, V = 11 -> 11"
    )
    (line,) = [line for line in map(dict, history("run")) if line["step"] == 1]
    first = next(iter(trainer.task.batches(0)))[1]
    assert line["tokens"] == trainer.task.count(first) == int((first != PAD).sum()) < first.numel()
    assert translation.translate(found, ["Eins zwei drei"])[0].text


def test_each_pass_takes_all_pairs_in_another_order(file):
    task = TranslationTask(config())

    def rows(number: int) -> list[tuple]:
        found = []
        for source, targets in task.batches(number):
            assert source.tokens.shape[1] <= 24
            found += [tuple(c[c > 0].tolist()) for c in torch.cat([source.tokens, targets]).T]
        return found

    first, again, second = rows(0), rows(0), rows(1)
    assert first == again
    assert first != second
    assert sorted(first) == sorted(second)
    train = zip(*task.train, strict=True)
    assert sorted(first) == sorted((*a.tolist(), *b.tolist()) for a, b in train)
    assert all(row[-1] == EOS for row in first)
    assert rows(0) != [row for source, y in TranslationTask(config(seed=4)).batches(0) for row in source.tokens.T.tolist()]


def test_the_units_that_are_asked_for(file):
    words = "eins\n" * 3 + "einzig\n"
    Path("a.txt").write_text("".join(f"{w} {n}\n" for n, w in enumerate(words.split() * 40)), encoding="utf-8")
    Path("b.txt").write_text("".join(f"One {n}\n" for n in range(160)), encoding="utf-8")
    two = {"data": "a.txt", "target": "b.txt"}
    assert "eins" in TranslationTask(config(**two)).source.tokens
    assert "159" not in TranslationTask(config(**two)).source.tokens, "seen once, it is unknown"
    assert TranslationTask(config(**two)).target.tokens == ("one",)
    assert "100" in TranslationTask(config(**two, min_count=1)).target.tokens
    characters = TranslationTask(config(**two, units="characters"))
    assert characters.target.kind == "characters"
    assert "O" not in characters.target.tokens
    assert {"o", "7"} <= set(characters.target.tokens)
    back = TranslationTask(config(**two, reverse=True))
    assert "eins" in back.target.tokens
    assert back.sha256 != TranslationTask(config(**two)).sha256


def test_dates_are_drawn_for_each_pass_and_never_a_held_out_day(few_dates):
    task = TranslationTask(config(data="dates"))
    assert (task.source.kind, task.target.kind) == ("characters", "characters")
    assert task.sizes.startswith("120 pairs drawn for each pass, 30 held out, V = ")
    held_out = {day.isoformat() for part in ("validation", "test") for day in dates.days(part)}
    passes = []
    for number in (0, 1, 2, 1):
        found = []
        for source, targets in task.batches(number):
            for n in range(targets.shape[1]):
                found.append((task.source.decode(source.tokens[:, n].numpy()), task.target.decode(targets[:, n].numpy())))
        assert len(found) == 120
        assert not {target for _, target in found} & held_out
        passes.append(found)
    assert passes[1] == passes[3]
    assert not set(passes[0]) & set(passes[1])
    assert any(target == dates.NO_DATE for found in passes for _, target in found)
    of_dates = "".join(source for found in passes for source, target in found if target != dates.NO_DATE)
    assert "\ufffd" not in of_dates, "every character of a date is known"
    validated = {task.target.decode(t) for t in task.validation.target} - {dates.NO_DATE}
    assert validated <= {day.isoformat() for day in dates.days("validation")}
    assert TranslationTask(config(data="dates", seed=4)).validation.target[0].tolist() == task.validation.target[0].tolist()


# stopping and going on


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention": "additive", "layers": 2, "dropout": 0.3, "teacher_forcing": 0.6, "smoothing": 0.1},
     {"attention": "none", "accumulate": 3, "precision": "bf16"}],
    ids=["plain", "dropout and own guesses", "none in parts"],
)  # fmt: skip
def test_stopped_anywhere_it_goes_on_bit_for_bit(file, changes):
    Trainer(config(**changes), Path("whole")).run()
    for at in (1, 4, 8, 9, 19):  # 4: at an evaluation; 8: at the end of a pass
        folder = f"stopped at {at}"
        stop_at(Trainer(config(**changes), Path(folder)), at)
        torch.manual_seed(99)  # another process begins with other random numbers
        Trainer.resume(Path(folder)).run()
        for name in ("last", "best"):
            assert state(folder, name) == state("whole", name), (at, name)
        assert history(folder) == history("whole"), at


def test_dates_go_on_bit_for_bit_too(few_dates, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = config(data="dates", steps=12)  # 5 steps a pass
    Trainer(asked, Path("whole")).run()
    for at in (3, 5, 7):
        folder = f"stopped at {at}"
        stop_at(Trainer(asked, Path(folder)), at)
        torch.manual_seed(99)
        Trainer.resume(Path(folder)).run()
        assert state(folder) == state("whole")
        assert history(folder) == history("whole")
    found = translator.load("whole")
    assert found.config["prepare"] == "dates"
    assert translation.source_tokens(found, " 3 FÉVRIER ").tolist() == found.source.encode("3 février").tolist()


def test_the_seed_decides(file):
    for name, seed in {"a": 3, "b": 3, "c": 4}.items():
        Trainer(config(steps=4, seed=seed), Path(name)).run()
    assert state("a") == state("b")
    assert state("a")["bias"] != state("c")["bias"]


def test_a_run_is_not_resumed_with_other_data(file):
    stop_at(Trainer(config(), Path("run")), 3)
    content = {p.name: p.read_bytes() for p in Path("run").iterdir()}
    for text in (lines(seed=1), lines() + "zwölf\ttwelve\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(
            CourseError, match=r"^mine.tsv is not the data this run began with; restore it, or start a new run$"
        ):
            Trainer.resume(Path("run"))
    file.unlink()
    with pytest.raises(CourseError, match=r"mine\.tsv"):
        Trainer.resume(Path("run"))
    assert {p.name: p.read_bytes() for p in Path("run").iterdir()} == content
    file.write_text(lines(), encoding="utf-8")
    Trainer.resume(Path("run")).run()


def test_a_model_alone_or_another_model_is_no_run(file):
    Trainer(config(steps=5), Path("run")).run()
    last, best = (Path("run") / f"{name}.safetensors" for name in ("last", "best"))
    whole = translator.load(last)
    changed = whole.record | {"run": whole.record["run"] | {"hidden": 10}}
    translator.save(last, whole._replace(record=changed))
    message = r"cannot go on from last.safetensors \(it holds another model than was asked for\); start a new run$"
    with pytest.raises(CourseError, match=message):
        Trainer.resume(Path("run"))
    best.replace(last)
    with pytest.raises(CourseError, match="is no run to go on with, but a model alone; start a new run"):
        Trainer.resume(Path("run"))


# refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "summaries", "reverse": True}, "--data summaries goes from sentence to name only; leave out --reverse and"),
        ({"data": "summaries", "target": "b.txt"}, "--data summaries goes from sentence to name only"),
        ({"data": "nothing"}, "'nothing'"),
        ({"data": "tiny_shakespeare"}, "is of kind 'text' and has no pairs; choose one of"),
        ({"target": "nothing.txt"}, "'nothing.txt'"),
        ({"data": "untabbed.txt"}, "line 1 of 'untabbed.txt' has no TAB"),
        ({"data": "short.tsv"}, "has 50 different pairs and at least 100 are needed; add some"),
        ({"min_count": 10**6}, "none of the words of the texts occurs 1000000 times; use more text"),
        ({"best_by": "token_f1"}, "--best-by token_f1: --data mine.tsv is measured by nats, exact_match, bleu; choose one"),
        ({"best_by": "bleu", "data": "dates"}, "--best-by bleu: --data dates is measured by nats, exact_match; choose one"),
        ({"best_by": "bleu", "data": "summaries"}, "--data summaries is measured by nats, exact_match, token_f1; choose"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_before_anything_is_written(file, changes, message):
    Path("untabbed.txt").write_text("no tab\n" * 200, encoding="utf-8")
    Path("short.tsv").write_text(lines(50), encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        Trainer(config(**changes), Path("run"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 9}, "hidden: expected an even number with --task translate, got 9"),
        ({"engine": "numpy"}, "engine: expected torch with --task translate, got numpy"),
        ({"attention": "dot"}, "attention: expected none, additive or multiplicative, got dot"),
        ({"units": "bytes"}, "units: expected characters or words, got bytes"),
        ({"min_count": 0}, "min_count: expected at least 1, got 0"),
        ({"teacher_forcing": 1.5}, r"teacher_forcing: expected a number in \[0, 1\], got 1.5"),
        ({"smoothing": 1.0}, r"smoothing: expected a number in \[0, 1\), got 1.0"),
        ({"task": "summarise"}, "task: expected language, translate or classify, got summarise"),
        (
            {"best_by": "accuracy"},
            "best_by: expected nats or exact_match or token_f1 or bleu with --task translate, got accuracy",
        ),
        ({"task": "language", "target": "b.txt"}, "target: expected nothing without --task translate, got b.txt"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        config(**changes)


def test_a_run_of_pairs_is_saved_as_a_translator(file):
    Trainer(config(steps=2), Path("run")).run()
    assert archive.kind_of(Path("run") / "best.safetensors") == archive.TRANSLATOR
    assert isinstance(tasks.load_saved(Path("run") / "last.safetensors"), translator.Translator)
    with pytest.raises(CourseError, match=r"holds a translator: use `course translate`"):
        checkpoint.load("run")


def test_summaries_are_sentences_and_names(monkeypatch):
    part = Pairs(("Return the sum of the numbers.", "Return the name."), ("sum of numbers", "name"))
    monkeypatch.setattr(translation_task, "load_summaries", lambda: ParallelCorpus("summaries", part, part, part, "0" * 64))
    task = TranslationTask(config(data="summaries", min_count=1))
    assert load_corpus(config(data="summaries")).train == part
    assert task.sha256 == "0" * 64
    assert task.source.lowercase
    assert task.source.kind == "words"
    assert [task.target.decode(t) for t in task.train.target] == ["sum of numbers", "name"]


def test_with_copy_both_sides_share_a_vocabulary_that_numbers_rare_words(file):
    task = TranslationTask(config(copy=True))
    assert task.source == task.target
    assert task.source.tokens[-8:] == translation.NUMBERED
    assert set(task.source.tokens[:-8]) == {*WORDS, *WORDS.values()}
    found = translation.encode(Pairs(("eins Zorglub",), ("one zorglub",)), task.source, task.target)
    assert found.source[0][1] == found.target[0][1] == task.source.vocabulary.ids["<unk1>"]
    assert found.target[0][-1] == EOS


def test_a_score_is_of_the_true_text_and_of_what_is_written(file):
    Trainer(config(steps=120, lr=0.03), Path("run")).run()
    found, corpus = translator.load("run"), load_pairs("mine.tsv")
    result = translation_task.score(found, config(), "test")
    nats, count = translation.evaluate(found.model(), translation.encode(corpus.test, found.source, found.target))
    assert result["nats"] == pytest.approx(nats / count)
    assert result["perplexity"] == pytest.approx(np.exp(nats / count))
    assert result["tokens"] == count == sum(len(text.split()) + 1 for text in corpus.test.target)
    written = [t.text for t in translation.translate(found, corpus.test.source)]
    assert result["exact_match"] == np.mean([a == b for a, b in zip(written, corpus.test.target, strict=True)])
    assert 0 <= result["bleu"] <= 100
    assert (result["pairs"], result["split"], result["data"]) == (len(written), "test", "mine.tsv")
    assert result["data_sha256"] == corpus.sha256
    assert "token_f1" not in result
    perfect = translation_task.score(found, config(reverse=True), "train")
    assert perfect["data_sha256"] != corpus.sha256, "the other direction is other data"


# the best by another measure than nats


def test_the_best_weights_by_what_the_translations_are_worth(file, monkeypatch):
    """Every evaluation's measures are recomputed from the weights it saw; the best of them are what is kept."""
    monkeypatch.setattr(translation_task, "MEASURED", 3)
    asked = config(steps=60, lr=0.03, evaluations=12, best_by="bleu", average=0.5, dropout=0.2)
    trainer, seen = Trainer(asked, Path("run")), []
    held_out = load_pairs("mine.tsv").validation
    assert len(held_out.source) == 10

    def look(progress, line):
        if "validation_nats" in line:
            seen.append((dict(line), trainer.engine.averaged))
        assert trainer.engine.judged is not trainer.engine.model
        assert trainer.engine.model.training

    trainer.run(look)
    some = [0, 3, 6]  # of ten, from all over them
    expected = []
    for line, weights in seen:
        found = translator.load("run")._replace(params=weights)
        written = [t.text for t in translation.translate(found, [held_out.source[n] for n in some])]
        targets = [held_out.target[n] for n in some]
        bleu = metrics.bleu(written, targets, lowercase=True).score
        assert line["validation_bleu"] == pytest.approx(bleu, abs=1e-4)
        assert line["validation_exact_match"] == pytest.approx(
            np.mean([a == b for a, b in zip(written, targets, strict=True)]), abs=1e-4
        )
        expected.append(bleu)
    assert len(set(expected)) > 2
    ranks = [(line["validation_bleu"], -line["validation_nats"]) for line, _ in seen]
    best = ranks.index(max(ranks))
    record = translator.load("run").record
    assert record["steps"] == seen[best][0]["step"]
    assert (trainer.progress.score, record["validation_bleu"]) == (pytest.approx(max(expected)),) * 2
    assert record["validation_nats"] == trainer.progress.best == pytest.approx(seen[best][0]["validation_nats"], abs=1e-4)


def test_without_another_measure_nothing_is_translated(file, monkeypatch):
    monkeypatch.setattr(translation_task.TranslationEngine, "translations", None)
    Trainer(config(steps=5), Path("run")).run()
    assert not [line for line in history("run") if "validation_exact_match" in dict(line)]


def test_translating_between_the_steps_changes_none_of_them(file):
    """Dropout and random numbers are as they were: the same weights as with nats, also after a stop."""
    for name in ("nats", "exact_match"):
        Trainer(config(best_by=name, dropout=0.3), Path(name)).run()
    nats, other = state("nats"), state("exact_match")
    for found in (nats, other):
        del found["record"]
    assert nats == other
    stop_at(Trainer(config(best_by="exact_match", dropout=0.3), Path("stopped")), 9)
    Trainer.resume(Path("stopped")).run()
    for name in ("last", "best"):
        assert state("stopped", name) == state("exact_match", name)
    assert history("stopped") == history("exact_match")


def test_a_source_too_long_to_be_translated_does_not_stop_the_run(file):
    trainer = Trainer(config(best_by="exact_match", steps=1), Path("run"))
    task, longest = trainer.task, trainer.task.model["longest"][0]
    texts = [" ".join(["eins"] * (2 * longest + extra)) for extra in (0, 1)]
    task.held_out = Pairs((*texts, "eins zwei"), ("one two three four", "one", "four three two one"))
    task.validation = translation.encode(task.held_out, task.source, task.target)
    given = []
    trainer.engine.translations = lambda _, texts: given.extend(texts) or list(task.held_out.target[::2])
    assert task.measures(trainer.engine) == {"exact_match": 1.0, "bleu": pytest.approx(100)}
    assert given == [texts[0], "eins zwei"]
