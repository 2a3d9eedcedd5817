"""What happens to real processes: killed at any moment, out of disk, shut out, two at once, given cut or hostile files.

A killed run goes on and ends with the same bits as an undisturbed one. What cannot go on ends in one line and exit status 2.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from course_process import COURSE, ENVIRONMENT, TEXT, TINY, WORDS, course, start, the_error, tree
from doomed import POINTS
from test_training import state, steps_and_losses, wait_for

from course_lib import archive, checkpoint, classifier_model, run_folder, translator
from course_lib.classifier_model import SequenceClassifier
from course_lib.errors import CourseError
from course_lib.language_model import init
from course_lib.seq2seq import Seq2Seq
from course_lib.text import CharTokenizer
from course_lib.trees import leaves
from course_lib.units import UnitTokenizer

DOOMED = (sys.executable, str(Path(__file__).with_name("doomed.py")))
KEPT = ["best.safetensors", "history.jsonl", "last.safetensors"]


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a text in it."""
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


# kill -9


def kill_again_and_again(place: Path, asked: list, kills: list) -> None:
    """Kill a run, resume it and kill it again: each kill is a time in seconds, or a point and how often it is passed before."""
    folder, last = place / "killed", place / "killed" / "last.safetensors"
    for number, kill in enumerate(kills):
        before = last.stat().st_ino if last.exists() else None
        arguments = [*asked, "--out", "killed"] if before is None else ["train", "--resume", "--out", "killed"]
        planted = ("never", "0") if isinstance(kill, float) else (kill[0], str(kill[1]))
        process = start(*arguments, folder=place, program=(*DOOMED, *planted))
        if isinstance(kill, float):
            wait_for(lambda before=before: last.exists() and last.stat().st_ino != before, process)
            time.sleep(kill)
            process.kill()
        output = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, (number, kill, output)
        steps = [line["step"] for line in run_folder.lines(folder)]
        assert steps == sorted(set(steps)), (number, kill)
        if last.exists():
            checkpoint.load(last)


def is_as_if_undisturbed(place: Path, asked: list) -> None:
    """Finish the killed run, carry out another without any fault, and compare all they leave but the times."""
    killed, whole = place / "killed", place / "whole"
    step, wanted = checkpoint.load(killed / "last.safetensors").record["progress"]["step"], asked[asked.index("--steps") + 1]
    assert 5 < step < wanted, "killed in the midst of the training"
    for arguments in (["train", "--resume", "--out", "killed"], [*asked, "--out", "whole"]):
        result = course(*arguments, folder=place)
        assert (result.returncode, result.stderr) == (0, "")
    for name in ("last", "best"):
        assert state(killed, name) == state(whole, name)
    assert steps_and_losses(killed) == steps_and_losses(whole)
    assert sorted(path.name for path in killed.iterdir()) == KEPT


def test_kill_9_at_20_moments(place):
    """Ten at random times, ten at random points of saving."""
    draw = random.Random(5)
    kills = [draw.uniform(0, 0.1) for _ in range(10)]
    kills += [(point, draw.randint(1, 9)) for point in [*POINTS, *POINTS]]
    draw.shuffle(kills)
    asked = ["train", "--data", "mine.txt", "--cell", "gru", "--dropout", "0.2", "--steps", 3000, *TINY]
    kill_again_and_again(place, asked, kills)
    is_as_if_undisturbed(place, asked)


def test_kill_9_with_the_other_engine(place):
    """The state of torch's engine is saved and picked up as well."""
    kills = [("half of a file is written", 16), 0.05]
    asked = ["train", "--data", "mine.txt", "--engine", "torch", "--device", "cpu", "--steps", 400, *TINY]
    kill_again_and_again(place, asked, kills)
    is_as_if_undisturbed(place, asked)


# no room, no right


ASKED = ["train", "--data", "mine.txt", "--steps", 60, *TINY]


def goes_on(place: Path, folder: str) -> None:
    """A run that was stopped by a fault, now mended, ends as an undisturbed one; one that never saved begins anew."""
    begun = (place / folder / "last.safetensors").exists()
    result = course(*(["train", "--resume"] if begun else ASKED), "--out", folder, folder=place)
    assert (result.returncode, result.stderr) == (0, "")
    if not (place / "whole").exists():
        assert course(*ASKED, "--out", "whole", folder=place).returncode == 0
    for name in ("last", "best"):
        assert state(place / folder, name) == state(place / "whole", name)
    assert steps_and_losses(place / folder) == steps_and_losses(place / "whole")
    assert sorted(path.name for path in (place / folder).iterdir()) == KEPT


@pytest.fixture
def disk(place):
    """A function that mounts a file system at place/disk, or changes its size or rights; skipped where nobody may mount."""

    def mount(options: str) -> None:
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"remount,{options}" if (place / "disk").is_mount() else options,
            "none",
            "disk",
        ]
        try:
            result = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("no program to mount a file system with")
        if result.returncode:
            pytest.skip(f"cannot mount a file system: {result.stderr.strip()}")

    (place / "disk").mkdir()
    yield mount
    if (place / "disk").is_mount():
        subprocess.run(["umount", place / "disk"], check=True, timeout=60)


def test_a_full_disk(place, disk):
    """File systems one page too small for the first checkpoint, for the history, for the best and for the last one."""
    page, whole = resource.getpagesize(), place / "whole"
    assert course(*ASKED, "--out", "whole", folder=place).returncode == 0
    last, best = (-(-(whole / name).stat().st_size // page) for name in ("last.safetensors", "best.safetensors"))
    assert (whole / "history.jsonl").stat().st_size < page, "one page, like the lock"
    disk("size=1m")
    for pages, refused in {
        last: "last.safetensors",
        last + 1: "history.jsonl",
        last + best + 1: "best.safetensors",
        2 * last + best + 1: "last.safetensors",
    }.items():
        disk(f"size={pages * page}")
        result = course(*ASKED, "--out", "disk/run", folder=place)
        assert the_error(result).startswith(f"error: cannot write disk/run/{refused}: No space left on device; free some space")
        assert not list((place / "disk" / "run").glob(".*")), "neither a part nor a lock"
        disk("size=1m")
        goes_on(place, "disk/run")
        shutil.rmtree(place / "disk" / "run")


def test_files_no_longer_than_a_limit(place):
    """Where nobody may mount: the kernel refuses a file as long as a checkpoint."""
    assert course(*ASKED, "--out", "run", folder=place).returncode == 0
    before = tree(place / "run")
    limit = len(before["last.safetensors"]) // 2

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    message = "{}/last.safetensors: File too large; free some space or choose another place"
    again = course("train", "--resume", "--out", "run", "--minutes", "1", folder=place, preexec_fn=limited)
    assert the_error(again) == f"error: cannot write {message.format('run')}"
    assert tree(place / "run") == before
    fresh = course(*ASKED, "--out", "fresh", folder=place, preexec_fn=limited)
    assert the_error(fresh) == f"error: cannot write {message.format('fresh')}"
    assert tree(place / "fresh") == {}


def test_a_file_system_that_is_read_only(place, disk):
    disk("size=1m")
    assert course(*ASKED, "--out", "disk/run", folder=place).returncode == 0
    before = tree(place / "disk")
    disk("ro")
    read_only = "Read-only file system; choose another --out"
    for arguments, message in {
        (*ASKED, "--out", "disk/new"): f"cannot make the folder disk/new: {read_only}",
        ("train", "--resume", "--out", "disk/run"): f"cannot write disk/run/.lock: {read_only}",
    }.items():
        assert the_error(course(*arguments, folder=place)) == f"error: {message}"
    assert course("eval", "disk/run", folder=place).returncode == 0
    assert course("generate", "the", "--checkpoint", "disk/run", "--length", 9, folder=place).returncode == 0
    assert tree(place / "disk") == before


@pytest.fixture
def without_rights(place) -> tuple:
    """How to run a program that may do with files only what their permissions say; root may do more."""
    prefix = (
        () if os.getuid() else ("setpriv", *(f"--{of}=-dac_override,-dac_read_search" for of in ("bounding-set", "inh-caps")))
    )
    closed = place / "closed"
    closed.mkdir(mode=0o555)
    probe = "import os, sys; sys.exit(os.access('closed', os.W_OK))"
    try:
        denied = subprocess.run([*prefix, sys.executable, "-c", probe], cwd=place, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no program to give up the rights of root with")
    if denied.returncode:
        pytest.skip(f"cannot give up the rights of root: {denied.stderr.decode()}")
    return prefix


def test_a_folder_without_permission(place, without_rights):
    def tried(*arguments: object) -> subprocess.CompletedProcess:
        process = start(*arguments, folder=place, program=(*without_rights, COURSE))
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    assert course(*ASKED, "--out", "run", folder=place).returncode == 0
    before = tree(place / "run")
    (place / "run").chmod(0o555)
    denied = "Permission denied; choose another --out"
    for arguments, message in {
        (*ASKED, "--out", "closed"): f"cannot write closed/.lock: {denied}",
        (*ASKED, "--out", "closed/run"): f"cannot make the folder closed/run: {denied}",
        ("train", "--resume", "--out", "run"): f"cannot write run/.lock: {denied}",
    }.items():
        assert the_error(tried(*arguments)) == f"error: {message}"
    assert tried("eval", "run").returncode == 0, "reading needs no lock"
    assert tree(place / "run") == before
    assert tree(place / "closed") == {}
    (place / "run").chmod(0o755)
    for name in ("best", "last"):
        (place / "run" / f"{name}.safetensors").chmod(0)
    cannot = "cannot read run/{}.safetensors: Permission denied; check the name and its permissions"
    assert the_error(tried("eval", "run")) == f"error: {cannot.format('best')}"
    assert the_error(tried("train", "--resume", "--out", "run")) == f"error: {cannot.format('last')}"
    assert sorted(path.name for path in (place / "run").iterdir()) == KEPT


def test_a_folder_closed_while_a_run_is_at_work(place, without_rights):
    folder = place / "run"
    process = start(*ASKED, "--out", "run", folder=place, program=(*without_rights, *DOOMED, "never", "0"))
    wait_for((folder / "history.jsonl").exists, process)
    folder.chmod(0o555)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (2, 1), errors
    assert re.match(r"error: cannot write run/(last|best)\.safetensors: Permission denied; ", errors)
    folder.chmod(0o755)
    goes_on(place, "run")


# two at once


def test_two_runs_on_one_folder(place):
    endless = ["train", "--data", "mine.txt", "--minutes", 5, *TINY, "--out", "run"]
    first = start(*endless, folder=place)
    try:
        wait_for((place / "run" / "history.jsonl").exists, first)
        in_use = f"error: run is in use by process {first.pid}; wait or stop it, or choose another --out"
        assert the_error(course(*endless, folder=place)) == in_use
        assert the_error(course("train", "--resume", "--out", "run", folder=place)) == in_use
        assert course("eval", "run", folder=place).returncode == 0, "reading needs no lock"
        assert course("generate", "the", "--checkpoint", "run", "--length", 9, folder=place).returncode == 0
        assert first.poll() is None
    finally:
        first.terminate()
        _, errors = first.communicate(timeout=60)
    assert errors.startswith("error: interrupted; all is saved")
    steps = [line["step"] for line in run_folder.lines(place / "run")]
    assert steps == sorted(set(steps))
    minutes = checkpoint.load(place / "run" / "last.safetensors").record["seconds"] / 60 + 0.003
    assert course("train", "--resume", "--out", "run", "--minutes", minutes, folder=place).returncode == 0
    assert sorted(path.name for path in (place / "run").iterdir()) == KEPT


def test_two_runs_started_at_the_same_time(place):
    """One of them is carried out, as if it were alone."""
    runs = [start(*ASKED, "--out", "run", folder=place, program=(*DOOMED, "never", "0")) for _ in range(3)]
    results = [(run.communicate(timeout=60)[1], run.returncode) for run in runs]
    refused = [errors for errors, status in results if status == 2]
    assert [status for _, status in results if status != 2] == [0]
    assert all(re.fullmatch(r"error: run (is in use by .*|already holds a run: .*)\n", errors) for errors in refused), refused
    goes_on(place, "run")


# cut, flipped, hostile


def a_language_model(path: Path) -> None:
    """A checkpoint as a run leaves it, of 90 kB, with the two moments of Adam beside the weights."""
    rng, tokenizer = np.random.default_rng(1), CharTokenizer.from_text(TEXT)
    config = {"vocab_size": tokenizer.size, "embedding_size": 16, "hidden_size": 32, "num_layers": 1, "cell": "lstm"}
    params = init(**config, seed=1)
    extra = {f"{moment}.{i}": rng.normal(size=a.shape) for moment in "mv" for i, a in enumerate(leaves(params))}
    checkpoint.save(path, params, tokenizer, config, {"data": "mine.txt"}, extra)


def a_translator(path: Path) -> None:
    """A translator of words, of 60 kB."""
    units = UnitTokenizer("words", tuple(WORDS))
    model = {"source_size": units.size, "target_size": units.size, "embedding_size": 16, "hidden_size": 32, "num_layers": 1}
    params = {name: p.detach().numpy() for name, p in Seq2Seq(**model).params().items()}
    config = {"model": model, "longest": [5, 5], "prepare": "sentences"}
    translator.save(path, translator.Translator(params, units, units, config, {"data": "mine.tsv"}, {}))


def a_classifier(path: Path) -> None:
    """A classifier of texts, of 60 kB."""
    tokenizer = CharTokenizer.from_text(TEXT)
    classifier_model.save(path, SequenceClassifier(tokenizer.size, 16, (32, 32), 3), tokenizer, ("a", "b", "c"))


KINDS = {  # how a file of each kind is made, and who loads it
    archive.LANGUAGE_MODEL: (a_language_model, checkpoint.load),
    archive.TRANSLATOR: (a_translator, translator.load),
    archive.CLASSIFIER: (a_classifier, classifier_model.load),
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.removeprefix("course_lib "))
def kept(request, tmp_path) -> tuple:
    """A whole file of each kind, its kind, and the function that loads it."""
    make, load = KINDS[request.param]
    make(tmp_path / "kept.safetensors")
    load(tmp_path / "kept.safetensors")
    return tmp_path / "kept.safetensors", request.param, load


def refusal(path: Path, load) -> str:
    with pytest.raises(CourseError) as caught:
        load(path)
    message = str(caught.value)
    assert message.isprintable()
    assert str(path) in message
    assert len(message) < 500 + 2 * len(str(path))
    return message


def test_cut_at_every_thousandth_byte_it_is_refused(kept):
    path, kind, load = kept
    whole, arrays_at = path.stat().st_size, 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert whole > 50_000
    lengths = {*range(0, whole, 1000), 1, 7, 8, 9, arrays_at - 1, arrays_at, arrays_at + 1, whole - 1}
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        assert re.search("is not a whole (checkpoint|classifier) of this course", refusal(path, load)), length
        with pytest.raises(CourseError):
            archive.read(path, kind)


def test_with_a_flipped_bit_it_is_refused(kept):
    """In the length, in the header and in the arrays: every bit of the first, 150 of each of the others."""
    path, _, load = kept
    whole, draw = path.read_bytes(), random.Random(7)
    arrays_at = 8 + int.from_bytes(whole[:8], "little")
    bits = [*range(64)]
    for first, last in ((8, arrays_at), (arrays_at, len(whole))):
        bits += [draw.randrange(8 * first, 8 * last) for _ in range(150)]
    for bit in bits:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refusal(path, load)
    path.write_bytes(whole)
    load(path)


def test_commands_refuse_a_damaged_checkpoint(place):
    """Real processes: what they print is one line."""
    a_translator(place / "translator.safetensors")
    assert course(*ASKED, "--out", "run", folder=place).returncode == 0
    best, last = place / "run" / "best.safetensors", place / "run" / "last.safetensors"
    whole = best.read_bytes()
    damaged = {"cut": whole[:1000], "one byte short": whole[:-1], "a bit": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]}
    refused = f"error: {best.relative_to(place)} is not a whole "
    for content in damaged.values():
        best.write_bytes(content)
        assert the_error(course("eval", "run", folder=place)).startswith(refused)
    assert the_error(course("generate", "the", "--checkpoint", "run", folder=place)).startswith(refused)
    os.truncate(last, 3000)
    assert "last.safetensors is not a whole " in the_error(course("train", "--resume", "--out", "run", folder=place))
    os.truncate(place / "translator.safetensors", 30_000)
    refused = course("translate", "the dog", "--checkpoint", "translator.safetensors", folder=place)
    assert "translator.safetensors is not a whole checkpoint" in the_error(refused)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with this header, whatever it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def hostile_headers(kind: str, whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that safetensors or JSON should not take, and some that they take but nobody should. whole: a good one."""
    said = json.dumps({"format": kind, "version": archive.VERSION})
    ours, four, eight = {"__metadata__": {"course_lib": said}}, bytes(4), bytes(8)
    for length in (2**60, 2**63, 2**64 - 1, archive.LARGEST_HEADER, archive.LARGEST_HEADER + 1, 0, 1, 3):
        yield f"a header of {length} bytes", safetensors(ours, length=length)
    for shape in ([2**32, 2**32], [2**63, 2], [2**61], [2**64], [10**30], [-1], [1.5], ["1"], [None], None, 1, [[1]], [1] * 70):
        yield f"shape {shape}", safetensors(ours | {"a": tensor(shape, 0, 4)}, four)
    for shape in ([0, 2**40], [0, 2**62], [0, 2**63, 2], [0, 2**64 - 1], [2**40, 0]):
        yield f"empty shape {shape}", safetensors(ours | {"a": tensor(shape, 0, 0)})
    for name, one, two in (
        ("the same bytes", (0, 4), (0, 4)),
        ("overlapping", (0, 4), (2, 6)),
        ("a gap", (0, 4), (8, 12)),
        ("behind the end", (0, 4), (4, 2**62)),
        ("backwards", (4, 0), (4, 8)),
        ("negative", (-4, 0), (0, 4)),
        ("not from the beginning", (4, 8), (8, 12)),
    ):
        yield f"offsets: {name}", safetensors(ours | {"a": tensor([1], *one), "b": tensor([1], *two)}, eight)
    for dtype in ("F128", "BF16", "F8_E4M3", "F8_E5M2", "F4", "C64", "str", "O", "", None, 7):
        yield f"dtype {dtype}", safetensors(ours | {"a": tensor([1], 0, 4, dtype)}, four)
    text, twice = json.dumps(ours)[:-1].encode(), json.dumps(tensor([1], 0, 4)).encode()
    yield "a name twice", safetensors(text + b', "a": ' + twice + b', "a": ' + twice + b"}", four)
    yield "an empty one twice", safetensors(text + b', "a": ' + json.dumps(tensor([0], 0, 0)).encode() * 2 + b"}")
    yield "metadata twice", safetensors(text + b', "__metadata__": {}}')
    arrays_at = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:arrays_at]), whole[arrays_at:]
    for name, value in header.items():  # its checksum is right
        again = f"{json.dumps(header)[:-1]}, {json.dumps(name)}: {json.dumps(value)}}}"
        yield f"{name} twice", safetensors(again.encode(), data)
    yield "no metadata", safetensors({"a": tensor([1], 0, 4)}, four)
    yield "not UTF-8", safetensors(b'{"\xff\xfe": ' + twice + b"}", four)
    yield "half a character", safetensors({"__metadata__": {"course_lib": json.dumps({"format": kind, "version": "\ud800"})}})
    yield "UTF-16", safetensors(json.dumps(ours).encode("utf-16"))
    for part in (b"[", b'{"a":', b'{"a":['):
        yield f"nested {part!r}", safetensors(b'{"a":' + part * 100_000)
        yield f"nested within {part!r}", safetensors({"__metadata__": {"course_lib": (part * 100_000).decode()}})
    for size in (archive.LARGEST_HEADER - 50,):
        yield "many lists", safetensors(b'{"a":[' + b"[]," * (size // 3) + b"0]}")
        yield "many lists within", safetensors({"__metadata__": {"course_lib": "[" + "[]," * (size // 3) + "0]"}})
        one = '"%07x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
        many = ",".join(one % i for i in range(size // 60))
        yield "many arrays", safetensors(f"{json.dumps(ours)[:-1]},{many}}}".encode())
    for value in ([], {}, "x", 7, None, [ours], {"__metadata__": 1}, {"__metadata__": {"course_lib": 1}}, {"a": 1}, {"a": {}}):
        yield f"header {value}", safetensors(value)
    for value in ("7", "null", "{", "{}", '{"format": 1e999}', '{"version": ' + "9" * 5000 + "}", "\x00"):
        yield f"our header {value:.20}", safetensors({"__metadata__": {"course_lib": value}})
    for version in ("1\n2", "\x1b[2J", "x" * 10**6, [1] * 10**5, 2**200):
        text = json.dumps({"format": kind, "version": version})
        yield f"version {version!r:.20}", safetensors({"__metadata__": {"course_lib": text}})


ABSURD = [10**9, 10**6, 10**18, 10**400, -(10**9), 0, -1, 0.5, 1e308, float("nan"), "9" * 9, None, [], {}, [10**9], True]


def just_enough(kind: str, inner: dict) -> Iterator[tuple[str, dict, int, type]]:
    """Sizes, and how many entries of one array seem to be enough for them: bytes for numbers, one array for many layers."""
    E, L = 6_000_000, 100_000
    if kind == archive.LANGUAGE_MODEL:
        one = {"vocab_size": 1, "hidden_size": 1}
        yield "bytes for numbers", one | {"embedding_size": E, "num_layers": 1}, E + 2 + 4 * (E + 2), np.uint8
        L *= 6
        yield "many layers in one array", one | {"embedding_size": 1, "num_layers": L}, 3 + 4 * 3 * L, np.float32
    elif kind == archive.TRANSLATOR:
        V = inner["source_size"] + inner["target_size"]
        n = V * E // 6 + 4 * 2 * (E // 6 + 2)
        yield "bytes for numbers", {"embedding_size": E // 6, "hidden_size": 2, "num_layers": 1}, n, np.uint8
        wide = {"embedding_size": 40_000, "hidden_size": 300, "num_layers": 1}
        yield "wide and wide", wide, V * 40_000 + 4 * 300 * 300, np.float32
        n = V + 4 * 2 * (1 + 2 * L)
        yield "many layers in one array", {"embedding_size": 1, "hidden_size": 2, "num_layers": L}, n, np.float32
    else:
        one = {"vocab_size": 1, "classes": 3}
        yield "bytes for numbers", one | {"embedding_size": E, "hidden_sizes": [1]}, E + 4 * (E + 2) + 3 * 2, np.uint8
        n = 1 + 4 * 3 * L + 3 * 2
        yield "many layers in one array", one | {"embedding_size": 1, "hidden_sizes": [1] * L}, n, np.float32


def hostile_configurations(kind: str, path: Path) -> Iterator[tuple[str, dict, dict]]:
    """Headers and arrays with a right checksum, that ask for more than there is, or for something else."""
    header, arrays = archive.read(path, kind)
    stray = {f"model.stray{i}": np.zeros((0, 10**6), np.float32) for i in range(200)}
    stray |= {"model.bytes": np.zeros(500_000, np.uint8), "model.halves": np.zeros(200_000, np.float16)}
    inner = header["config"]["model"] if kind == archive.TRANSLATOR else header["config"]

    def asking(config: dict) -> dict:
        return header | {"config": header["config"] | {"model": config} if kind == archive.TRANSLATOR else config}

    for name in inner:
        for value in [*ABSURD, *([10**9], [1] * 10**5, [10**5] * 100, [32, "32"]) * (name == "hidden_sizes")]:
            if value != inner[name]:
                yield f"{name} {value!r:.20}", asking(inner | {name: value}), arrays | stray
        if name not in ("dropout", "attention", "bidirectional"):  # the model has defaults for these
            yield f"no {name}", asking({n: v for n, v in inner.items() if n != name}), arrays
    for what, sizes, n, dtype in just_enough(kind, inner):
        yield what, asking(inner | sizes), {"model.all": np.zeros(n, dtype)}
    yield "another argument", asking(inner | {"a\nb" * 1000: 1}), arrays
    for name in header:
        if name not in ("format", "version"):
            characters = {"kind": "char", "characters": ["a"] * 10**5}
            for value in (None, 7, "x" * 10**5, [[]] * 10**5, *([[], {}, {"kind": []}, characters] * (name != "record"))):
                yield f"{name} {value!r:.20}", header | {name: value}, arrays
            yield f"without {name}", {n: v for n, v in header.items() if n != name}, arrays
    for name in [name for name in arrays if not name.startswith("extra.")]:
        others = {n: a for n, a in arrays.items() if n != name}
        for what, other in {
            "missing": {},
            "under another name": {f"{name}\n": arrays[name]},
            "flat": {name: arrays[name].ravel()[:, None]},
            "empty": {name: np.zeros((0, 2**40), np.float32)},
            "whole numbers": {name: np.zeros(arrays[name].shape, np.int64)},
            "not finite": {name: np.full(arrays[name].shape, np.nan, np.float32)},
        }.items():
            yield f"{name} {what}", header, others | other


MEASURE = """
import importlib, json, re, resource, sys
from pathlib import Path
from course_lib.errors import CourseError
load = importlib.import_module(sys.argv[1]).load
used = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])  # the most so far
good, *files = sys.argv[2:]
load(good)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**30,) * 2)
before, said = used(), {}
for file in sorted(Path(files[0]).iterdir()):
    try:
        load(file)
        said[file.name] = None
    except CourseError as error:
        said[file.name] = str(error)
print(json.dumps([used() - before, said]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures and limits memory as Linux does")
def test_a_hostile_file_costs_no_memory_and_is_refused_in_one_line(kept):
    """A child that may take 1 GB of addresses more than for a whole file; it must not touch 200 MB of them."""
    path, kind, load = kept
    folder, names = path.with_name("hostile"), []
    folder.mkdir()
    for name, content in hostile_headers(kind, path.read_bytes()):
        (folder / f"{len(names):04}").write_bytes(content)
        names.append(name)
    for name, header, arrays in hostile_configurations(kind, path):
        (folder / f"{len(names):04}").write_bytes(archive.to_bytes(kind, header, arrays))
        names.append(name)
    command = [sys.executable, "-c", MEASURE, load.__module__, path, folder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    more, said = json.loads(result.stdout)
    assert more < 200_000, f"{more} kB more than for a whole file"
    assert len(said) == len(names)
    accepted = [name for name, message in zip(names, said.values(), strict=True) if message is None]
    of_before = {"without prepare", "without record"} if kind == archive.CLASSIFIER else set()  # files that lesson 08 wrote
    assert set(accepted) == of_before
    for name, message in ((name, said) for name, said in zip(names, said.values(), strict=True) if name not in of_before):
        assert message.isprintable(), name
        assert len(message) < 500 + 2 * len(str(path)), name
        assert "llocate" not in message and "Memory" not in message, (name, message)
