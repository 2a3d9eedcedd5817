"""`course generate` with all its options, as a user meets them; what it wrote before Part E is tested in test_cli."""

import io
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from course_process import course, the_error, tree

from course_lib import checkpoint, cli, writing
from course_lib.cli_generate import unescaped
from course_lib.errors import CourseError
from course_lib.filters import min_p, repetition_penalty, temperature, top_k, top_p

SEED = ("--seed", 1, "--length", 60)


@pytest.fixture
def generate(monkeypatch, capsys, tmp_path):
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess:
        monkeypatch.setattr("sys.argv", ["course", "generate", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return run


def text_of(result: subprocess.CompletedProcess) -> str:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def objects(result: subprocess.CompletedProcess) -> list[dict]:
    return [json.loads(line) for line in text_of(result).splitlines()]


def test_json_says_all_that_is_needed(generate):
    (found,) = objects(generate("ROMEO:\n", *SEED, "--json"))
    assert found["prompt"] == "ROMEO:\n"
    assert (found["seed"], found["checkpoint"], found["stopped"]) == (1, "shakespeare", "length")
    assert (found["prompt_number"], found["sample"]) == (0, 0)
    assert "".join(entry["character"] for entry in found["characters"]) == found["text"]
    assert len(found["text"]) == 60
    log_probs = [entry["log_prob"] for entry in found["characters"]]
    assert found["nats_per_character"] == pytest.approx(-math.fsum(log_probs) / 60)
    (expected,) = writing.continue_text(checkpoint.load("shakespeare"), "ROMEO:\n", 60, [temperature(0.8)], seed=1)
    assert found["text"] == expected.text
    np.testing.assert_allclose(log_probs, expected.log_probs)
    assert text_of(generate("ROMEO:\n", *SEED)) == f"ROMEO:\n{found['text']}\n"


def test_every_output_can_be_repeated(generate):
    first, second = (objects(generate("The", "--length", 20, "--json"))[0] for _ in range(2))
    assert first["seed"] != second["seed"]
    assert objects(generate("The", "--length", 20, "--json", "--seed", first["seed"])) == [first]


def test_several_samples_do_not_depend_on_their_number(generate):
    three = objects(generate("The", *SEED, "--samples", 3, "--json"))
    two = objects(generate("The", *SEED, "--samples", 2, "--json"))
    assert [found["text"] for found in two] == [found["text"] for found in three[:2]]
    assert [found["sample"] for found in three] == [0, 1, 2]
    assert len({found["text"] for found in three}) == 3
    shown = text_of(generate("The", *SEED, "--samples", 3))
    assert shown == "".join(f"--- sample {k + 1}\nThe{found['text']}\n\n" for k, found in enumerate(three))


@pytest.mark.parametrize("source", ["file", "-"])
def test_prompts_from_a_file_or_the_standard_input(generate, source):
    data = "\ufeffROMEO\r\n\nThe 狐 king\n  And".encode()
    Path("prompts.txt").write_bytes(data)
    arguments = ["--prompts", "prompts.txt" if source == "file" else "-", *SEED, "--samples", 2]
    result = generate(*arguments, "--json", stdin=data)
    assert (result.returncode, result.stderr) == (0, "note: shakespeare has never seen '狐'; skipped\n")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(f["prompt"], f["prompt_number"], f["sample"]) for f in found] == [
        (prompt, i, k) for i, prompt in enumerate(["ROMEO", "The 狐 king", "  And"]) for k in range(2)
    ]
    assert len({f["text"] for f in found}) == 6
    assert found[0]["text"] == objects(generate("ROMEO", *SEED, "--json"))[0]["text"]
    shown = generate(*arguments, stdin=data).stdout
    assert re.findall(r"^--- (.*)$", shown, re.M)[:3] == ["prompt 1, sample 1", "prompt 1, sample 2", "prompt 2, sample 1"]
    assert f"--- prompt 3, sample 2\n  And{found[5]['text']}\n" in shown


def test_a_chain_of_filters_is_applied_in_its_order(generate):
    model = checkpoint.load("shakespeare")
    chains = {
        "temperature=1.5,top_p=0.8": [temperature(1.5), top_p(0.8)],
        "top_p=0.8, temperature=1.5": [top_p(0.8), temperature(1.5)],
        "top-k=3,repetition_penalty=1.3,min_p=0.05": [top_k(3), repetition_penalty(1.3), min_p(0.05)],
    }
    texts = []
    for chain, filters in chains.items():
        (found,) = objects(generate("The", *SEED, "--json", "--filter", chain))
        texts.append(found["text"])
        assert found["text"] == writing.continue_text(model, "The", 60, filters, seed=1)[0].text
    assert len(set(texts)) == 3
    in_parts = objects(generate("The", *SEED, "--json", "--filter", "temperature=1.5", "--filter", "top_p=0.8"))
    assert in_parts[0]["text"] == texts[0]


def test_single_options_are_applied_in_the_order_that_is_documented(generate):
    options = ("--min-p", 0.02, "--top-p", 0.9, "--top-k", 9, "--temperature", 1.4, "--repetition-penalty", 1.2)
    chain = "repetition_penalty=1.2,temperature=1.4,top_k=9,top_p=0.9,min_p=0.02"
    assert text_of(generate("The", *SEED, *options)) == text_of(generate("The", *SEED, "--filter", chain))
    assert text_of(generate("The", *SEED)) == text_of(generate("The", *SEED, "--filter", "temperature=0.8"))
    shown = " ".join(text_of(generate("--help")).split())
    assert "--only, --match, --repetition-penalty, --temperature, --top-k, --top-p, --min-p" in shown


def test_stop_strings(generate):
    (whole,) = objects(generate("ROMEO:\n", "--seed", 1, "--length", 999, "--json"))
    for stops in (["\n\n"], ["\n"], ["e ", ",\n"]):
        options = [option for stop in stops for option in ("--stop", stop.replace("\n", r"\n"))]
        (found,) = objects(generate("ROMEO:\n", "--seed", 1, "--length", 999, "--json", *options))
        assert found["stopped"] == "stop"
        assert found["text"] == whole["text"][: min(whole["text"].find(stop) for stop in stops if stop in whole["text"])]
        assert len(found["characters"]) == len(found["text"])
        assert text_of(generate("ROMEO:\n", "--seed", 1, "--length", 999, *options)) == f"ROMEO:\n{found['text']}\n"


def test_only_and_match(generate):
    (found,) = objects(generate("ROMEO", *SEED, "--json", "--only", r"aeiou \n狐"))
    assert set(found["text"]) <= set("aeiou \n")
    for found in objects(generate("\n", *SEED, "--samples", 8, "--json", "--match", r"[A-Z]+:\n(?:[A-Z][a-z ',]+[.!?]\n)")):
        whole = re.fullmatch(r"[A-Z]+:\n(?:[A-Z][a-z ',]+[.!?]\n)", found["text"])
        assert found["stopped"] in (("match", "length") if whole else ("length",)), "a match may use up the length"
    (nothing,) = objects(generate("ROMEO", *SEED, "--json", "--match", ""))
    assert (nothing["text"], nothing["nats_per_character"], nothing["stopped"]) == ("", None, "match")


def test_save_keeps_what_is_printed_and_replaces_nothing_unasked(generate, tmp_path):
    for options in ((), ("--samples", 2), ("--json", "--samples", 2)):
        printed = text_of(generate("The fox é".removesuffix(" é"), *SEED, *options, "--save", "out.txt"))
        assert Path("out.txt").read_text(encoding="utf-8") == printed
        assert "add --force" in the_error(generate("ROMEO", *SEED, "--save", "out.txt"))
        assert Path("out.txt").read_text(encoding="utf-8") == printed
        again = text_of(generate("ROMEO", *SEED, "--save", "out.txt", "--force"))
        assert Path("out.txt").read_text(encoding="utf-8") == again
        Path("out.txt").unlink()
    assert tree(tmp_path) == {}


def test_python_docs_writes_too(generate):
    (found,) = objects(generate("Return a list of", *SEED, "--json", "--checkpoint", "python_docs", "--stop", r"\n\n"))
    assert found["checkpoint"] == "python_docs"
    assert found["text"]


BAD = {
    "no prompt": ((), "Missing argument 'prompt': give the beginning of a text, or --prompts FILE"),
    "two": (("a", "--prompts", "p.txt"), "give a prompt or --prompts, not both"),
    "no file": (("--prompts", "none.txt"), "--prompts: cannot read none.txt: No such file or directory; name a text file"),
    "a folder": (("--prompts", "."), "--prompts: cannot read .: Is a directory"),
    "NUL in a name": (("--prompts", "a\0b"), "--prompts: cannot read"),
    "no lines": (("--prompts", "empty.txt"), "--prompts: empty.txt has no line with a prompt"),
    "Latin-1": (("--prompts", "latin.txt"), "--prompts: expected UTF-8 text, got byte 0xe9 at 1"),
    "a silent line": (("--prompts", "silent.txt"), "prompt 2, '狐', has no character that the model knows"),
    "silent": (("狐", "--match", "a"), "the prompt has no character that the model knows"),
    "filter without a value": (("a", "--filter", "top_k"), "--filter: expected NAME=NUMBER, comma, ..., of rep"),
    "filter of another name": (("a", "--filter", "top_q=1"), "got 'top_q=1'; such as temperature=0.7,top_p=0.9"),
    "filter of nothing": (("a", "--filter", ""), "--filter: expected NAME=NUMBER"),
    "filter with a comma too much": (("a", "--filter", "top_k=3,"), "--filter: expected NAME=NUMBER"),
    "filter with a word": (("a", "--filter", "top_k=three"), "got 'top_k=three'"),
    "filter out of range": (("a", "--filter", "top_p=2"), "--filter: top_p: expected a number in (0, 1], got 2.0"),
    "filter of a fraction": (("a", "--filter", "top_k=2.5"), "--filter: top_k: expected a whole number of at least 1, got 2.5"),
    "both": (("a", "--filter", "top_k=2", "--min-p", "0.1"), "give --min-p or --filter, not both"),
    "both, at its default": (("a", "--filter", "top_k=2", "--temperature", "0.8"), "give --temperature or --filter, not both"),
    "an empty stop string": (("a", "--stop", ""), "--stop: expected characters that the model can write, got ''"),
    "a stop string that cannot come": (("a", "--stop", "a", "--stop", "狐"), "--stop: expected characters that the model can"),
    "a bad escape": (("a", "--stop", r"\q"), "--stop: expected n, t, r or a second backslash behind a backslash, got 'q'"),
    "a backslash at the end": (("a", "--only", "ab\\"), "--only: expected n, t, r or a second backslash"),
    "only nothing": (("a", "--only", ""), "--only: expected at least one token that the model knows, got ''"),
    "only unknown": (("a", "--only", "狐"), "--only: expected at least one token that the model knows"),
    "no expression": (("a", "--match", "(a"), "--match: expected a regular expression, got '(a' (missing )"),
    "an expression that cannot begin": (("a", "--match", "狐+"), "--match: at the beginning, '狐+' needs a character that"),
    "only against match": (("a", "--only", "a", "--match", "b"), "--match: expected a character that is still possible"),
    "no samples": (("a", "--samples", "0"), "Invalid value for '--samples'"),
    "force alone": (("a", "--force"), "--force does nothing without --save FILE; leave it out"),
    "save into a folder": (("a", "--save", "."), "--save: . exists; choose the name of a file"),
    "save over a device": (("a", "--save", "/dev/null", "--force"), "--save: /dev/null exists; choose the name of a file"),
    "save nowhere": (("a", "--save", "no/such/folder.txt"), "--save: there is no folder no/such; make it first"),
    "save into a name too long": (("a", "--save", "x" * 300), "name too long"),
    "half a character": (("a\udcff", "--seed", "1"), "half a character"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(generate, name, tmp_path):
    for file, data in [
        ("p.txt", b"a\n"),
        ("empty.txt", b"\n\n"),
        ("latin.txt", b"h\xe9llo\n"),
        ("silent.txt", "a\n狐\n".encode()),
    ]:
        Path(file).write_bytes(data)
    before, (arguments, said) = tree(tmp_path), BAD[name]
    message = the_error(generate(*arguments, "--length", 3))
    assert said in message, message
    assert tree(tmp_path) == before


def test_a_dead_end_is_told_where_it_is(generate):
    result = generate("a", "--seed", 1, "--match", "[^狐]{3}狐")
    assert result.returncode == 2
    assert re.search(
        r"error: --match: behind '...', '\[\^狐\]\{3\}狐' needs a character that the model does not know\n$", result.stderr
    )


def test_escapes():
    assert unescaped("--stop", r"a\n\t\r\\n\\\n") == "a\n\t\r\\n\\\n"
    assert unescaped("--stop", "狐 é") == "狐 é"
    with pytest.raises(CourseError):
        unescaped("--stop", "\\\\\\")


def test_another_process_streams_a_single_text_and_reads_prompts_from_a_pipe(tmp_path):
    """As a user starts it; without torch, and within seconds."""
    result = course(
        "generate", "--prompts", "-", *SEED, "--json", "--save", "x.jsonl", folder=tmp_path, input="ROMEO\nJULIET\n"
    )
    assert len(text_of(result).splitlines()) == 2
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == result.stdout
    stopped = course("generate", "ROMEO:\n", *SEED, "--stop", r"\n", "--stop", "zz", folder=tmp_path)
    assert re.fullmatch(r"ROMEO:\n.+\n", text_of(stopped))
