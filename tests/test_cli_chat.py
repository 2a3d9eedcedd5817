"""`course chat`: a scene played through a pipe and on a terminal, its state, its end, and what it keeps."""

import os
import re
import signal
import string
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from course_process import COURSE, ENVIRONMENT, course, start, the_error, tree

from course_lib import checkpoint, language_model, writing
from course_lib.filters import temperature
from course_lib.text import CharTokenizer
from course_lib.trees import map_tree

SPEECHES = "But soft, what light through yonder window breaks?\n\n  I love thee. \n"


def chat(folder: Path, *arguments: object, speeches: str = SPEECHES, **more):
    return course("chat", "--seed", 1, *arguments, folder=folder, input=speeches, **more)


def test_the_standard_output_is_the_scene(tmp_path):
    result = chat(tmp_path, "--save", "scene.txt")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "scene.txt").read_text(encoding="utf-8") == result.stdout
    parts = re.split(r"^(ROMEO|JULIET):\n", result.stdout, flags=re.M)
    assert parts[1::2][:2] == ["ROMEO", "JULIET"]
    assert parts[2] == "But soft, what light through yonder window breaks?\n\n"
    assert parts[6] == "I love thee.\n\n"
    assert parts[4].endswith("\n\n")
    assert len(parts[4]) > 20
    assert parts == [*parts[:3], "JULIET", parts[4], "ROMEO", parts[6], "JULIET", parts[8]]
    again = chat(tmp_path)
    assert again.stdout == result.stdout


def test_the_answers_are_those_of_the_model_behind_the_whole_scene(tmp_path):
    """Each answer is what a model writes that has read the scene so far from its beginning."""
    lines = chat(tmp_path, "--temperature", 0.5, "--length", 120).stdout
    model, rng, at = checkpoint.load("shakespeare"), np.random.default_rng(1), 0
    for _ in range(2):
        at = lines.index("JULIET:\n", at) + len("JULIET:\n")
        scene = writing.Scene(model)
        scene.read(lines[:at])
        answer = scene.write(120, rng, [temperature(0.5)], ["\n\n", "\nROMEO:"]).text
        assert lines[at:].startswith(answer)


def save_a_model_that_forgets_nothing(path):
    """Random, with large weights: a character read long ago changes what follows. Shipped ones forget within two speeches."""
    tokenizer = CharTokenizer.from_text(string.ascii_letters + ":!? \n")
    config = {"vocab_size": tokenizer.size, "embedding_size": 8, "hidden_size": 32, "num_layers": 1, "cell": "lstm"}
    checkpoint.save(path, map_tree(lambda leaf: 3 * leaf, language_model.init(**config, seed=0)), tokenizer, config, {})


def test_speakers_an_opening_and_filters(tmp_path):
    (tmp_path / "before.txt").write_text("\n\nKATE:\nWho is there?\r\n\n\n", encoding="utf-8")
    save_a_model_that_forgets_nothing(tmp_path / "model")
    options = ("--me", "KATE", "--as", "PETER", "--filter", "temperature=0.9,top_k=30", "--length", 40, "--checkpoint", "model")
    from_file = chat(tmp_path, *options, "--scene", "before.txt", speeches="Speak!\n")
    assert from_file.stdout.startswith("KATE:\nWho is there?\n\nKATE:\nSpeak!\n\nPETER:\n")
    as_text = chat(tmp_path, *options, "--scene", r"KATE:\nWho is there?", speeches="Speak!\n")
    assert as_text.stdout == from_file.stdout
    answer = from_file.stdout.partition("PETER:\n")[2].partition("KATE:\n")[0]
    assert 0 < len(answer) <= 42
    assert chat(tmp_path, *options, speeches="Speak!\n").stdout != from_file.stdout.partition("\n\n")[2]


def test_an_endless_answer_is_cut(tmp_path):
    result = chat(tmp_path, "--length", 7, "--temperature", 0.3, speeches="Hello\n" * 3)
    answers = re.findall(r"JULIET:\n(.{7})\n\n", result.stdout, re.S)
    assert len(answers) == 3


def test_a_model_without_plays_answers_something(tmp_path):
    assert "python_docs" in course("chat", "--help", folder=tmp_path).stdout
    result = chat(tmp_path, "--checkpoint", "python_docs", "--length", 30, speeches="Sort a list\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ROMEO:\nSort a list\n\nJULIET:\n")


def test_nothing_said_is_no_scene(tmp_path):
    for speeches in ("", "\n\n"):
        result = chat(tmp_path, "--save", "none.txt", "--force", speeches=speeches)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert (tmp_path / "none.txt").read_text() == ""


def test_unknown_characters_are_noted_and_kept_in_the_scene(tmp_path):
    result = chat(tmp_path, "--length", 5, speeches="Ein süßes Wort\n")
    assert result.returncode == 0
    assert result.stderr == "note: shakespeare has never seen 'ß' 'ü'; skipped\n"
    assert "ROMEO:\nEin süßes Wort\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--me", ""), "--me: expected a name without a colon, got ''"),
        (("--as", "A:B"), "--as: expected a name without a colon, got 'A:B'"),
        (("--me", "X", "--as", "X"), "--as: expected another speaker than 'X', whom you play"),
        (("--scene", "nowhere.txt"), "--scene: cannot read nowhere.txt: No such file or directory; name a text file"),
        (("--scene", r"A b\q"), "--scene: expected n, t, r or a second backslash"),
        (("--scene", "."), "--scene: cannot read .: Is a directory"),
        (("--save", "."), "--save: . exists; choose the name of a file"),
        (("--force",), "--force does nothing without --save"),
        (("--checkpoint", "dates"), "course translate"),
        (("--length", "0"), "Invalid value for '--length'"),
        (("--filter", "top_k=1", "--top-p", "1"), "give --top-p or --filter, not both"),
        (("--temperature", "0"), "--temperature: expected a positive number"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, said):
    assert said in the_error(chat(tmp_path, *arguments))
    assert tree(tmp_path) == {}


def test_a_closed_standard_input_is_one_line(tmp_path):
    for command in ("chat", "generate --prompts -"):
        script = f"'{COURSE}' {command} <&-"
        result = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
        )
        assert "the standard input is closed" in the_error(result)


def test_ctrl_c_ends_politely_and_keeps_the_scene(tmp_path):
    """In the middle of an answer without end; what was written so far is kept."""
    arguments = ("chat", "--seed", 1, "--length", 10**8, "--as", "A", "--save", "scene.txt", "--checkpoint", "python_docs")
    process = start(*arguments, folder=tmp_path, stdin=-1)
    process.stdin.write("Hello\n")
    process.stdin.flush()
    shown = process.stdout.read(40)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    kept, printed = (tmp_path / "scene.txt").read_text(encoding="utf-8"), shown + rest
    assert kept[: len(printed)] == printed
    assert len(kept) <= len(printed) + 1  # the interruption may come between keeping a character and showing it
    assert shown.startswith("ROMEO:\nHello\n\nA:\n")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
@pytest.mark.parametrize("end", [b"\x04", b"\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_on_a_terminal(tmp_path, end):
    """The reader's name is asked with; typing shows the speech; the end is no error."""
    import pexpect

    process = pexpect.spawn(
        COURSE, ["chat", "--seed", "1", "--length", "30", "--save", "s.txt"], cwd=str(tmp_path), env=ENVIRONMENT, timeout=60
    )
    process.expect_exact("You are ROMEO. Each line is a speech; Ctrl-D ends the scene.")
    process.expect_exact("ROMEO:\r\n")
    process.sendline("Hello there")
    process.expect_exact("JULIET:\r\n")
    process.expect_exact("ROMEO:\r\n")
    time.sleep(0.3)  # until it reads again
    process.send(end)
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0
    assert b"error" not in process.before
    assert (tmp_path / "s.txt").read_text(encoding="utf-8").startswith("ROMEO:\nHello there\n\nJULIET:\n")
