"""`course train --task classify`, `course classify` and `course eval` of a classifier, as a user meets them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from course_process import course, the_error, tree
from test_classifier_task import NAMES, lines

from course_lib import classifier, classifier_model, cli, labelled
from course_lib.text import CharTokenizer

TINY = ("--task", "classify", "--hidden", 8, "--embedding", 6, "--batch-size", 24, "--seed", 1)


@pytest.fixture
def inside(monkeypatch, capsys):
    """The command in this process, which has loaded torch already."""

    def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["course", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Labelled texts, a classifier trained on them in `run`, and a bad file."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "mine.tsv").write_text(lines(), encoding="utf-8")
    (folder / "text.txt").write_text("no tab in this line\n" * 200, encoding="utf-8")
    training = ("--data", "mine.tsv", *TINY, "--lr", 0.03, "--steps", 120, "--best-by", "accuracy", "--out", "run")
    trained = course("train", *training, folder=folder, timeout=300)
    assert (trained.returncode, trained.stderr) == (0, "")
    record = classifier_model.read(folder / "run").record
    nats, accuracy = record["validation_nats"], record["validation_accuracy"]
    assert (
        f"best held-out accuracy {accuracy:.3f}, {nats:.3f} nats per text; weights in run/best.safetensors\n" in trained.stdout
    )
    assert 'classify with them: course classify "a text" --checkpoint run\n' in trained.stdout
    looks = [line for line in trained.stdout.splitlines() if line.startswith("step ")]
    assert len(looks) == 5
    assert all(", accuracy " in line and "bits" not in line and "perplexity" not in line for line in looks)
    return folder


def test_what_was_learned_is_used(inside, place):
    part = labelled.load_labelled(str(place / "mine.tsv")).test
    result = inside("classify", *part.texts, "--checkpoint", "run", "--n-best", 2, folder=place)
    assert (result.returncode, result.stderr) == (0, "")
    found = classifier_model.read(place / "run")
    p = classifier.predict(found.model(), list(part.texts), found.tokenizer)
    for line, row in zip(result.stdout.splitlines(), p, strict=True):
        order = np.argsort(-row)[:2]
        assert line == ", ".join(f"{NAMES[y]} {row[y]:.3f}" for y in order)
    assert np.mean(p.argmax(1) == part.labels) > 0.6


def test_json_and_standard_input(place):
    result = course("classify", "--checkpoint", "run", "--json", folder=place, input="abcabc\n  fab  cab \n")
    assert result.returncode == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["abcabc", "  fab  cab "]
    found = classifier_model.read(place / "run")
    for row, text in zip(rows, ("abcabc", "fab cab"), strict=True):
        (p,) = classifier.predict(found.model(), [text], found.tokenizer)
        assert {c["class"]: c["probability"] for c in row["classes"]} == pytest.approx(
            dict(zip(NAMES, p, strict=True)), abs=1e-5
        )
        probabilities = [c["probability"] for c in row["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
    assert result.stderr == "note: run has never seen ' '\n"


def test_a_classifier_that_was_saved_by_hand_is_used_too(inside, tmp_path):
    model = classifier.SequenceClassifier(5, 3, (4,), 2)
    classifier.save(tmp_path / "m.safetensors", model, CharTokenizer("ab "), ("x", "y"))
    result = inside("classify", "a  b", "--checkpoint", "m.safetensors", folder=tmp_path)
    (p,) = classifier.predict(model, ["a  b"], CharTokenizer("ab "))
    best = sorted(zip("xy", p, strict=True), key=lambda pair: -pair[1])
    assert result.stdout == ", ".join(f"{name} {q:.3f}" for name, q in best) + "\n", "its text is taken as it is"
    assert "--data" in the_error(inside("eval", "m.safetensors", folder=tmp_path))


def test_eval_prints_json(inside, place):
    found = json.loads(inside("eval", "run", folder=place).stdout)
    record = classifier_model.read(place / "run").record
    assert found["nats"] == pytest.approx(record["validation_nats"], abs=1e-5)
    assert found["accuracy"] == record["validation_accuracy"]
    test = json.loads(inside("eval", "run", "--split", "test", "--data", "mine.tsv", folder=place).stdout)
    assert test["split"] == "test"
    assert test["texts"] == len(labelled.load_labelled(str(place / "mine.tsv")).test.texts)
    assert list(test["recall"]) == list(NAMES)


def test_a_run_goes_on(inside, place, tmp_path):
    options = ("--data", place / "mine.tsv", *TINY, "--steps", 4)
    assert inside("train", *options, "--out", "one", folder=tmp_path).returncode == 0
    result = inside("train", "--out", "one", "--resume", "--minutes", 0.01, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert classifier_model.read(tmp_path / "one" / "last.safetensors").record["progress"]["step"] > 4
    assert (tmp_path / "one" / "best.safetensors").is_file()


def test_the_folder_and_the_engine_by_default(inside, place, tmp_path):
    result = inside("train", "--data", place / "mine.tsv", *TINY, "--steps", 2, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert classifier_model.read(tmp_path / "runs" / "mine-classify-8").record["engine"].startswith("torch")


BAD = {
    "no tab": (("--data", "text.txt"), "line 1 of 'text.txt' has no TAB; write text TAB label in each line"),
    "no file": (("--data", "nowhere.tsv"), "nowhere.tsv"),
    "a text": (("--data", "python_docs"), "python_docs has no labels; give languages, or a file"),
    "cell": (("--data", "mine.tsv", "--cell", "gru"), "--cell does nothing with --task classify; leave it out"),
    "window": (("--data", "mine.tsv", "--window", 7), "--window does nothing with --task classify; leave it out"),
    "attention": (("--data", "mine.tsv", "--attention", "none"), "--attention does nothing with --task classify; add --task"),
    "tie": (("--data", "mine.tsv", "--tie"), "--tie does nothing with --task classify; leave it out"),
    "numpy": (("--data", "mine.tsv", "--engine", "numpy"), "--engine: expected torch with --task classify"),
    "measure": (("--data", "mine.tsv", "--best-by", "bleu"), "--best-by: expected nats or accuracy with --task classify"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_and_options_are_one_line(inside, place, name, tmp_path):
    options, said = BAD[name]
    before = tree(place)
    message = the_error(inside("train", "--task", "classify", *options, "--out", tmp_path / "out", folder=place))
    assert said in message
    assert tree(place) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("classify", "", "--checkpoint", "run"), "the text to classify is empty; give at least one character"),
        (("classify", "  ", "--checkpoint", "run"), "the text to classify is empty"),
        (("classify", "abc"), "--checkpoint is missing: the file or run folder that `course train --task classify` has made"),
        (("classify", "abc", "--checkpoint", "shakespeare"), "language model: use `course generate` or `course eval`"),
        (("classify", "abc", "--checkpoint", "nowhere"), "no checkpoint 'nowhere'"),
        (("classify", "abc", "--checkpoint", "run", "--n-best", 0), "--n-best"),
        (("generate", "abc", "--checkpoint", "run"), "a sequence classifier: use `course classify` or `course eval`"),
        (("eval", "run", "--split", "all"), "--split all is of texts; a classifier has validation, train and test"),
        (("eval", "run", "--data", "languages"), "languages has the label 'de', which is none of first, second, third"),
        (("train", "--data", "text.txt", "--best-by", "accuracy"), "--best-by: expected nats with --task language"),
    ],
)
def test_what_cannot_be_done_is_one_line(inside, place, arguments, said):
    assert said in the_error(inside(*arguments, folder=place))
