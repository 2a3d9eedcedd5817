"""``course train``: options that do nothing are refused, a model can be gone on from, and the options reach the run."""

import json

import pytest
from course_process import TEXT, TINY, course, the_error

from course_lib import checkpoint
from course_lib.trees import leaves

TORCH = ("--engine", "torch", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and a small model."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "mine.txt").write_text(TEXT, encoding="utf-8")
    assert course("train", "--data", "mine.txt", "--steps", 60, *TINY, "--out", "first", folder=folder).returncode == 0
    return folder


def train(place, *options):
    return course("train", "--data", "mine.txt", "--steps", 4, *options, folder=place)


def test_the_options_of_regularisation_reach_the_run(place):
    rates = ("--dropout", 0.3, "--input-dropout", 0.1, "--recurrent-dropout", 0.2, "--weight-decay", 0.05, "--average", 0.9)
    others = ("--held-masks", "--tie", "--patience", 3, "--evaluations", 2)
    sizes = ("--hidden", 8, "--embedding", 8, "--layers", 2, "--batch-size", 4, "--window", 16)
    result = train(place, *TORCH, *rates, *others, *sizes, "--out", "all")
    assert result.returncode == 0, result.stderr
    found = checkpoint.load(place / "all" / "last.safetensors")
    run = found.record["run"]
    asked = {"dropout": 0.3, "input_dropout": 0.1, "recurrent_dropout": 0.2, "weight_decay": 0.05, "average": 0.9}
    assert {name: run[name] for name in asked} == asked
    assert (run["held_masks"], run["tie"], run["patience"], run["evaluations"]) == (True, True, 3, 2)
    assert (found.params.embedding == found.params.W_out).all(), "tied"
    best = checkpoint.load(place / "all")
    assert best.record["steps"] in (2, 4), "of two evaluations"
    differ = [(a != b).any() for a, b in zip(leaves(best.params), leaves(found.params), strict=True)]
    assert all(differ), "the best weights are the mean ones"


def test_going_on_from_a_model(place):
    result = train(place, "--start", "first", "--batch-size", 4, "--window", 16, "--out", "second")
    assert result.returncode == 0, result.stderr
    first, second = checkpoint.load(place / "first"), checkpoint.load(place / "second")
    assert second.config == first.config, "its sizes"
    assert second.record["command"].startswith(first.record["command"] + "; course train --data mine.txt --steps 4 --start")
    history = [json.loads(line) for line in (place / "second" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert history[0]["nats"] < 2.95, "it begins where the other left off, not above ln 26 = 3.26"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--start", "first", "--hidden", 9), "--hidden 9 is not that of first, 8; leave it out, or leave out --start"),
        (("--start", "nothing"), "no checkpoint 'nothing'"),
        (("--held-masks",), "--held-masks: expected them with --cell lstm and --engine torch only"),
        (("--recurrent-dropout", 0.2), "--recurrent-dropout: expected 0 but for --cell lstm, --engine torch, got 0.2"),
        (("--recurrent-dropout", 1, *TORCH), "--recurrent-dropout: expected a number in [0, 1), got 1.0"),
        (("--input-dropout", 0.2, "--cell", "gru", *TORCH), "--input-dropout: expected it with --cell lstm and --engine torch"),
        (("--tie", *TORCH), "--tie: expected it with --embedding 256, as --hidden, only"),
        (("--average", 1), "--average: expected a number in [0, 1), got 1.0"),
        (("--weight-decay", -1), "--weight-decay: expected a number of at least 0, got -1.0"),
        (("--evaluations", 10001), "--evaluations: expected 1 to 10000, got 10001"),
        (("--task", "translate", "--tie"), "--tie: expected it with --engine torch only"),
    ],
)
def test_what_does_nothing_or_cannot_be_is_refused(place, options, message):
    assert message in the_error(train(place, *options, "--out", "refused"))
    assert not (place / "refused").exists()
