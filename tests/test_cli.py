"""The `course` command as a user meets it: real processes, their output, their exit status, their one-line errors."""

import itertools
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from course_process import COURSE, DATA, ENVIRONMENT, TEXT, TINY, WORDS, course, start, the_error, tree

from course_lib import checkpoint
from course_lib.datasets import load_corpus
from course_lib.language_model import initial_state, step
from course_lib.trees import leaves

PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a text, a model trained on it in `run`, and bad files; the tests leave it as it is."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "mine.txt").write_text(TEXT, encoding="utf-8")
    trained = course("train", "--data", "mine.txt", "--steps", 150, "--lr", 0.02, *TINY, "--out", "run", folder=folder)
    assert (trained.returncode, trained.stderr) == (0, "")
    for name, content in {
        "empty": b"",
        "binary": TEXT.encode() + b"\0",
        "latin": TEXT.encode() + b"\xe9t\xe9",
        "one": b"a" * 5000,
        "short": b"Too short",
    }.items():
        (folder / f"{name}.txt").write_bytes(content)
    (folder / "cut.safetensors").write_bytes((folder / "run" / "best.safetensors").read_bytes()[:-100])
    (folder / "foreign.safetensors").write_text(TEXT, encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "notes").touch()
    return folder


# help


@pytest.mark.parametrize("command", ["", "doctor", "data", "data list", "data fetch", "data path", "train", "eval", "generate"])
def test_help(command, tmp_path):
    shown = course(*command.split(), "--help", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: course {command}".rstrip())
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("command", ["", "data"])
def test_a_group_alone_shows_its_help(command, tmp_path):
    assert course(*command.split(), folder=tmp_path).stdout == course(*command.split(), "--help", folder=tmp_path).stdout


def loaded(*arguments: str, folder: Path) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = "import sys\nfrom course_lib.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    program = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(program, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return set(result.stderr.split())


def test_what_is_not_needed_is_not_imported(place):
    heavy = {"torch", "matplotlib", "pooch", "requests", "tqdm", "IPython"}
    assert not loaded("--help", folder=place) & (heavy | {"numpy", "safetensors"})
    assert not loaded("generate", "the", "--checkpoint", "run", "--length", "5", folder=place) & heavy
    assert "torch" not in loaded("eval", "run", folder=place)
    assert "torch" not in loaded("train", "--resume", "--out", "run", folder=place)


# bad input: one line, exit status 2, nothing left behind

BAD = {
    # text
    "train --data missing.txt": "no data set or file 'missing.txt'; registered: ",
    "train --data pythondocs": "did you mean python_docs?",
    "train --data empty.txt": "'empty.txt' is empty; choose",
    "train --data binary.txt": "is binary (a NUL at byte",
    "train --data latin.txt": "is not UTF-8",
    "train --data one.txt": "is 'a' repeated",
    "train --data short.txt": "has 9 characters and at least 100 are needed",
    "train --data run": "'run' is a folder",
    "train --data mine.txt --batch-size 5000": "use a longer text or a smaller batch size",
    "train": "--data is missing",
    "eval run --data missing.txt": "no data set or file 'missing.txt'",
    "eval run --data short.txt": "has 9 characters",
    # options
    "train --data mine.txt --cell tree": "Invalid value for '--cell'",
    "train --data mine.txt --hidden 0": "Invalid value for '--hidden'",
    "train --data mine.txt --hidden 1000000": "--hidden: expected 1 to 65536, got 1000000",
    "train --data mine.txt --hidden 8.5": "Invalid value for '--hidden'",
    "train --data mine.txt --layers 0": "Invalid value for '--layers'",
    "train --data mine.txt --hidden 60000 --layers 100": "not enough memory; choose a smaller --hidden",
    "train --data mine.txt --minutes 0": "--minutes: expected a positive number below a million, got 0.0",
    "train --data mine.txt --minutes -1": "--minutes: expected",
    "train --data mine.txt --minutes nan": "--minutes: expected",
    "train --data mine.txt --minutes inf": "--minutes: expected",
    "train --data mine.txt --minutes soon": "Invalid value for '--minutes'",
    "train --data mine.txt --steps 0": "Invalid value for '--steps'",
    "train --data mine.txt --lr 0": "--lr: expected a positive number, got 0.0",
    "train --data mine.txt --lr nan": "--lr: expected a positive number, got nan",
    "train --data mine.txt --lr inf": "--lr: expected a positive number, got inf",
    "train --data mine.txt --dropout 1": "--dropout: expected a number in [0, 1), got 1.0",
    "train --data mine.txt --dropout nan": "--dropout: expected",
    "train --data mine.txt --batch-size 0": "Invalid value for '--batch-size'",
    "train --data mine.txt --seed -1": "Invalid value for '--seed'",
    "train --data mine.txt --unheard 1": "No such option: --unheard",
    "train mine.txt": "unexpected extra argument",
    "generate the --checkpoint run --temperature 0": "--temperature: expected a positive number",
    "generate the --checkpoint run --temperature -1": "--temperature: expected",
    "generate the --checkpoint run --temperature nan": "--temperature: expected",
    "generate the --checkpoint run --temperature inf": "--temperature: expected",
    "generate the --checkpoint run --top-p 0": "--top-p: expected a number in (0, 1], got 0.0",
    "generate the --checkpoint run --top-p 1.1": "--top-p: expected",
    "generate the --checkpoint run --top-p nan": "--top-p: expected",
    "generate the --checkpoint run --min-p -0.1": "--min-p: expected a number in [0, 1], got -0.1",
    "generate the --checkpoint run --min-p 1.1": "--min-p: expected",
    "generate the --checkpoint run --min-p nan": "--min-p: expected",
    "generate the --checkpoint run --top-k 0": "Invalid value for '--top-k'",
    "generate the --checkpoint run --length 0": "Invalid value for '--length'",
    "generate the --checkpoint run --seed -1": "Invalid value for '--seed'",
    "generate the --checkpoint run --repetition-penalty 0.5": "--repetition-penalty: expected a number of at least 1, got 0.5",
    "generate": "Missing argument 'prompt'",
    "generate QQQ --checkpoint run": "the prompt has no character that the model knows",
    "eval run --split half": "Invalid value for '--split'",
    # checkpoints
    "eval": "Missing argument 'CHECKPOINT'",
    "eval nobody": "no checkpoint 'nobody': give ",
    "generate the --checkpoint nobody": "no checkpoint 'nobody': give ",
    "generate the --checkpoint cut.safetensors": "cut.safetensors is not a whole checkpoint of this course",
    "eval foreign.safetensors": "foreign.safetensors is not a whole checkpoint of this course",
    "eval full": "no checkpoint 'full'",
    # places
    "train --data mine.txt --out run": "run already holds a run: add --resume to go on with it, or choose another --out",
    "train --data mine.txt --out full": "full is not empty; choose another --out",
    "train --data mine.txt --out mine.txt": "mine.txt is a file; choose another --out",
    "train --data mine.txt --out mine.txt/run": "cannot make the folder mine.txt/run: Not a directory",
    "train --data mine.txt --out /proc/run": "cannot make the folder /proc/run",
    "train --resume": "--resume takes --out",
    "train --resume --out run --hidden 9": "--resume takes --out, the run's folder, and at most --minutes",
    "train --resume --out run --data mine.txt": "--resume takes --out",
    "train --resume --out run --minutes nan": "--minutes: expected",
    "train --resume --out nowhere": "nowhere holds no run to resume",
    "train --resume --out full": "full holds no run to resume",
    # data sets
    "data fetch shakespear": "did you mean tiny_shakespeare?",
    "data fetch": "Missing argument",
    "data path nobody": "no data set is called 'nobody'",
    "data path python_docs": "comes with Python: it has no file",
    "data path dates": "comes with Babel: it has no file; use `course train --task translate --data dates`",
    "unheard": "No such command 'unheard'",
    "--unheard": "No such option: --unheard",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line(command, place):
    before = tree(place)
    result = course(*command.split(), folder=place)
    assert BAD[command] in the_error(result)
    assert "Traceback" not in result.stdout
    assert tree(place) == before


def test_a_line_break_in_a_name_does_not_break_the_line(place):
    for arguments in (["eval", "a\nb"], ["train", "--data", "a\nb"], ["train", "--data", "mine.txt", "--out", "mine.txt/a\nb"]):
        assert the_error(course(*arguments, folder=place))
    assert the_error(course("generate", "", "--checkpoint", "run", folder=place))


def test_a_breakdown_is_one_line(place, tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    result = course("train", "--data", "mine.txt", "--lr", "1e38", "--steps", "30", *TINY, folder=tmp_path)
    assert "training broke down after step" in the_error(result)
    assert course("eval", "runs/mine-lstm-8", folder=tmp_path).returncode == 0


def test_a_full_disk_under_the_output_is_one_line(place):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for command in ("data list", "--help", "generate the --checkpoint run --length 3"):
        with Path("/dev/full").open("w") as full:
            result = course(*command.split(), folder=place, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert "No space left on device" in the_error(result)


def test_an_output_that_cannot_show_a_character_shows_a_question_mark(place):
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    result = course("generate", "the fox é", "--checkpoint", "run", folder=place, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("the fox ?")


# train


def test_train_says_what_it_does_and_where_the_weights_are(tmp_path):
    (tmp_path / "some.text.txt").write_text(TEXT, encoding="utf-8")
    arguments = ["--data", tmp_path / "some.text.txt", "--steps", 20, "--cell", "gru", *TINY]
    result = course("train", *arguments, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, ""), "in a log there is no bar"
    lines = result.stdout.splitlines()
    n = len(TEXT)
    assert lines[0] == f"{int(0.9 * n):,} characters to train on, {n - int(0.9 * n):,} held out, V = {len(set(TEXT)) + 1}"
    shown = [re.fullmatch(r"step (\d+): held-out ([\d.]+) nats, ([\d.]+) bits/char", line).groups() for line in lines[1:6]]
    assert [int(step) for step, _, _ in shown] == [4, 8, 12, 16, 20]
    assert all(float(bits) == pytest.approx(float(nats) / math.log(2), abs=1e-2) for _, nats, bits in shown)
    assert lines[6].endswith("weights in runs/some.text-gru-8/best.safetensors")
    assert (tmp_path / "runs" / "some.text-gru-8" / "best.safetensors").is_file()
    hint = re.fullmatch(r'write with them: course generate "The quick brown fox" --checkpoint (\S+)', lines[7])[1]
    assert course("generate", PROMPT, "--checkpoint", hint, "--length", 5, folder=tmp_path).returncode == 0


# eval


def nats_by_hand(model: checkpoint.Checkpoint, text: str, streams: int = 8) -> float:
    """The mean nats of a text, character by character in float64, each eighth of it read from a state of zeros."""
    E, (layer,), W, b = model.params
    W_ih, W_hh, b_gates = (np.asarray(a, np.float64) for a in layer)
    ids = [model.tokenizer.characters.find(c) + 1 for c in text]
    pairs = list(itertools.pairwise(ids))
    each, total = -(-len(pairs) // streams), 0.0
    for at, (token, target) in enumerate(pairs):
        if at % each == 0:
            h = c = np.zeros(W_hh.shape[1])
        i, f, g, o = np.split(W_ih @ E[token] + W_hh @ h + b_gates, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        logits = W @ h + b
        total += np.log(np.exp(logits).sum()) - logits[target]
    return total / len(pairs)


def test_eval_prints_one_line_of_json_that_is_true(place):
    corpus = load_corpus(place / "mine.txt")
    model = checkpoint.load(place / "run")
    texts = {"validation": corpus.validation, "train": corpus.train, "all": TEXT}
    for split, text in texts.items():
        result = course("eval", "run", "--split", split, folder=place)
        assert (result.returncode, result.stderr, result.stdout.count("\n")) == (0, "", 1)
        found = json.loads(result.stdout)
        assert list(found) == ["nats", "bits_per_character", "perplexity", "tokens", "unknown", "data", "split", "data_sha256"]
        assert found["tokens"] == len(text) - 1
        assert found["nats"] == pytest.approx(nats_by_hand(model, text), abs=1e-5)
        assert found["bits_per_character"] == pytest.approx(found["nats"] / math.log(2), rel=1e-12)
        assert found["perplexity"] == pytest.approx(math.exp(found["nats"]), rel=1e-12)
        assert (found["unknown"], found["data"], found["split"]) == (0, "mine.txt", split)
        assert found["data_sha256"] == corpus.sha256
    assert json.loads(course("eval", "run", folder=place).stdout)["nats"] == model.record["validation_nats"]


def test_eval_takes_a_file_and_another_text(place, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT.replace("fox", "FOX")[::-1], encoding="utf-8")
    result = course("eval", place / "run" / "last.safetensors", "--data", other, "--split", "all", folder=tmp_path)
    found = json.loads(result.stdout)
    assert found["unknown"] == 3 * TEXT.count("fox")
    text = other.read_text(encoding="utf-8")
    assert found["nats"] == pytest.approx(nats_by_hand(checkpoint.load(place / "run" / "last.safetensors"), text), abs=1e-5)


# generate


def generate(place: Path, prompt: str, *options: object, **more) -> subprocess.CompletedProcess:
    return course("generate", prompt, "--checkpoint", "run", *options, folder=place, **more)


def test_same_seed_same_text(place):
    seeds = [("--seed", 1), ("--seed", 1), ("--seed", 2), (), ()]
    texts = [generate(place, "the quick", "--length", 200, *seed).stdout for seed in seeds]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4
    for text in texts:
        assert text.startswith("the quick")
        assert text.endswith("\n")
        assert len(text) == 9 + 200 + 1
        assert set(text) <= set(TEXT)
    long = generate(place, "the quick", "--length", 300, "--seed", 1).stdout
    assert long.startswith(texts[0][:-1]), "a longer text begins like a shorter one"


def test_options_reach_the_sampler(place):
    def text(*options: object) -> str:
        return generate(place, "the", "--length", 120, "--seed", 1, *options).stdout

    greedy = text("--top-k", 1)
    assert greedy == text("--temperature", 0.001) == text("--top-p", 1e-6) == text("--min-p", 1)
    different = {greedy, text(), text("--temperature", 2), text("--top-k", 3), text("--top-p", 0.5), text("--min-p", 0.3)}
    assert len(different | {text("--repetition-penalty", 1.5)}) == 7


def test_the_whole_prompt_is_read(place, tmp_path):
    """The most probable continuation, against the model's definition stepped through prompt and text."""
    model = checkpoint.load(place / "run")
    for leaf in leaves(model.params):
        leaf *= 3  # what was read long ago changes what follows
    checkpoint.save(tmp_path / "model", *model)
    for prompt in ("e", "the fox jumpe", ",.,.e"):
        arguments = ["generate", prompt, "--checkpoint", "model", "--length", 60, "--top-k", 1]
        written = course(*arguments, folder=tmp_path).stdout[:-1]
        state, expected = initial_state(model.params, 1), prompt[:1]
        for at in range(len(prompt) + 59):
            token = model.tokenizer.encode(written[at])
            log_probs, state = step(model.params, token, state)
            guess = model.tokenizer.decode(1 + log_probs[:, 1:].argmax(axis=1))
            expected += prompt[at + 1] if at + 1 < len(prompt) else guess
        assert written == expected


def test_the_unknown_character_is_never_written(place, tmp_path):
    model = checkpoint.load(place / "run")
    model.params.b_out[0] = 50  # it would write nothing else
    checkpoint.save(tmp_path / "model", *model)
    written = course("generate", "the", "--checkpoint", "model", "--length", 40, folder=tmp_path).stdout
    assert "\N{REPLACEMENT CHARACTER}" not in written
    assert len(written) == 44


def test_unknown_characters_are_reported_once_and_skipped(place):
    plain = generate(place, "the ox", "--length", 50, "--seed", 1)
    strange = generate(place, "the狐 o狐Éx", "--length", 50, "--seed", 1)
    assert strange.returncode == 0
    assert strange.stderr == "note: run has never seen 'É' '狐'; skipped\n"
    assert strange.stdout.removeprefix("the狐 o狐Éx") == plain.stdout.removeprefix("the ox")
    many = generate(place, "the " + "".join(map(chr, range(0x4E00, 0x4F00))), "--length", 5)
    assert many.stderr.splitlines()[0].endswith("and 246 more; skipped")
    assert len(many.stderr) < 200
    assert "\N{REPLACEMENT CHARACTER}" not in many.stdout


@pytest.mark.parametrize("prompt", ["", "狐狸", "ÄÖÜ", "\udcff"])
def test_a_prompt_that_says_nothing(place, prompt):
    assert the_error(generate(place, prompt))


@pytest.mark.parametrize("prompt", ["t", " ", "a dog\nran\n", "the lazy dog " * 800, "-", "--"])
def test_any_other_prompt(place, prompt):
    arguments = ["generate", "--checkpoint", "run", "--length", "3", "--seed", "1", "--", prompt]
    result = course(*arguments, folder=place)
    if set(prompt) & set(TEXT):
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(prompt)
        assert len(result.stdout) == len(prompt) + 4
    else:
        the_error(result)


def test_text_streams_and_a_reader_that_leaves_is_no_error(place):
    process = start("generate", "the", "--checkpoint", "run", "--length", 10**9, folder=place)
    pipe, first = process.stdout.fileno(), b""
    while len(first) < 200 and select.select([pipe], [], [], 20)[0]:
        first += os.read(pipe, 200)
    running = process.poll() is None
    process.stdout.close()
    if len(first) < 200:
        process.kill()
    assert running
    assert len(first) >= 200, "all of it is kept until the end"
    assert first.startswith(b"the")
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("command", ["data list", "generate the --checkpoint run --length 20000", "train --help"])
def test_piped_into_head(place, command):
    script = f"set -o pipefail; '{COURSE}' {command} | head -c 20"
    result = subprocess.run(["bash", "-c", script], cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr, len(result.stdout)) == (0, "", 20)


def test_ctrl_c_while_writing_is_one_line(place):
    process = start("generate", "the", "--checkpoint", "run", "--length", 10**9, folder=place)
    assert process.stdout.read(200)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.strip() == "error: interrupted"


def test_the_model_has_learnt_words(place):
    """Sharpened, a model that learnt anything from 2,500 characters writes some of their words."""
    written = generate(place, "the ", "--length", 400, "--temperature", 0.3, "--seed", 1).stdout
    assert sum(word in written for word in WORDS) >= 1


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_a_shipped_model_writes_from_anywhere(tmp_path, name):
    began, prompt = time.monotonic(), {"tang_poems": "春風"}.get(name, PROMPT)
    process = start("generate", prompt, "--checkpoint", name, "--length", 200, "--seed", 1, folder=tmp_path)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert (process.returncode, errors) == (0, "")
    assert output.startswith(prompt)
    assert len(output) == len(prompt) + 201
    assert len(set(output)) > 12


# data


def test_data_list_names_every_set(tmp_path):
    listed = course("data", "list", folder=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {"python_docs", "python_source", "tiny_shakespeare", "names", "time_machine", "dates", "summaries"} <= set(names)
    assert len(set(names)) == len(names)
    states = r"(embedded|in COURSE_DATA|cached|not downloaded)"
    assert all(re.match(rf"\w+ +{states} +\S.* \[.+\]$", line) for line in listed.stdout.splitlines())


def test_data_fetch_and_path(tmp_path):
    if not DATA.is_dir():
        pytest.skip("no folder of data here")
    environment = ENVIRONMENT | {"COURSE_DATA": str(DATA), "COURSE_CACHE": str(tmp_path / "cache")}
    fetched = course("data", "fetch", "names", "python_docs", "time_machine", "dates", folder=tmp_path, env=environment)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    names, docs, machine, dates = fetched.stdout.splitlines()
    assert Path(names).is_file()
    assert Path(machine).is_file()
    assert docs == "python_docs: comes with Python, nothing to fetch"
    assert dates == "dates: comes with Babel, nothing to fetch"
    assert course("data", "path", "names", folder=tmp_path, env=environment).stdout == names + "\n"
    assert course("data", "path", folder=tmp_path, env=environment).stdout == f"{DATA}\n"
    environment.pop("COURSE_DATA")
    assert course("data", "path", folder=tmp_path, env=environment).stdout == f"{tmp_path / 'cache'}\n"
    assert not (tmp_path / "cache").exists()


def test_a_bad_data_folder_is_one_line(tmp_path):
    for command in ("data list", "data path", "data path names", "train --data names"):
        result = course(*command.split(), folder=tmp_path, env=ENVIRONMENT | {"COURSE_DATA": "/nowhere"})
        assert "COURSE_DATA names '/nowhere', which is no folder; correct it or unset it" in the_error(result)
    assert tree(tmp_path) == {}


def test_a_registered_set_is_trained_on_and_scored_by_name(tmp_path):
    if not (DATA / "names").is_dir():
        pytest.skip("no folder of data here")
    result = course("train", "--data", "names", "--steps", 3, *TINY, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(course("eval", "runs/names-lstm-8", folder=tmp_path).stdout)
    assert found["data"] == "names"
    assert found["nats"] == checkpoint.load(tmp_path / "runs" / "names-lstm-8").record["validation_nats"]
