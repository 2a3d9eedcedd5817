"""The folder of a run: made or refused, held by one run at a time, its history without half lines."""

import errno
import json
import multiprocessing
import os
import re
import signal
from pathlib import Path

import pytest
from course_process import tree

from course_lib import run_folder
from course_lib.errors import CourseError
from course_lib.run_folder import Hold, append, lines, make, reopen, rewind


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("my run")


def refusal(function, *arguments) -> str:
    with pytest.raises(CourseError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def begun(folder: Path) -> Path:
    """A folder as a run leaves it."""
    with make(folder):
        (folder / "last.safetensors").write_bytes(b"weights")
    return folder


# new folders and old ones


@pytest.mark.parametrize("left", [None, [], [".lock"], [".last.safetensors.partial", ".lock"]], ids=str)
def test_a_new_run_takes_a_new_folder_an_empty_one_or_what_a_killed_run_left(folder, left):
    if left is not None:
        folder.mkdir()
        for name in left:
            (folder / name).write_text("99999999")
    with make(folder):
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"
    assert not (folder / ".lock").exists()


def test_folders_are_made_with_those_above(folder):
    make(folder / "a" / "b").release()
    assert (folder / "a" / "b").is_dir()


def test_content_is_refused_and_kept(folder):
    begun(folder)
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    before = tree(Path())
    again = "already holds a run: add --resume to go on with it, or choose another --out"
    assert refusal(make, folder) == f"my run {again}"
    assert refusal(make, Path("other")) == "other is not empty; choose another --out"
    assert refusal(make, Path("file")) == "file is a file; choose another --out"
    assert refusal(make, Path("file/below")) == "cannot make the folder file/below: Not a directory; choose another --out"
    assert refusal(make, Path("x" * 300)).endswith(": File name too long; choose another --out")
    for path in ("nothing", "other", "file"):
        message = f"{path} holds no run to resume (no last.safetensors); start one without --resume"
        assert refusal(reopen, Path(path)) == message
    assert tree(Path()) == before


def test_a_run_that_came_and_went_in_between_is_not_written_over(folder, monkeypatch):
    """Its weights appear after the first look at the folder and before the hold."""
    right = Hold._take

    def take(self):
        (folder / "last.safetensors").write_bytes(b"of the other")
        right(self)

    monkeypatch.setattr(Hold, "_take", take)
    assert "already holds a run" in refusal(make, folder)
    assert tree(folder) == {"last.safetensors": b"of the other"}


# one run at a time


def test_a_second_run_is_refused_until_the_first_lets_go(folder):
    begun(folder)
    in_use = f"my run is in use by process {os.getpid()}; wait or stop it, or choose another --out"
    hold = reopen(folder)
    for function in (reopen, make, Hold):
        assert refusal(function, folder) == in_use
    with hold, hold:
        assert refusal(reopen, folder) == in_use
    hold.release()
    reopen(folder).release()
    with hold:
        assert refusal(reopen, folder) == in_use, "taken again"
    with reopen(folder):
        assert refusal(hold.__enter__) == in_use, "not while another has it"
        hold.release()
        assert (folder / ".lock").exists(), "who has it not cannot give it back"
    assert tree(folder) == {"last.safetensors": b"weights"}


def test_a_holder_without_a_number_is_another_run(folder):
    begun(folder)
    with reopen(folder):
        for text in ("", "nobody\n", "\xff"):
            (folder / ".lock").write_text(text)
            assert refusal(reopen, folder) == "my run is in use by another run; wait or stop it, or choose another --out"


def test_a_hold_that_is_dropped_is_given_back(folder):
    begun(folder)
    reopen(folder)  # nobody keeps it
    reopen(folder).release()


def _hold_for_ever(folder: Path, held) -> None:
    hold = reopen(folder)
    held.set()
    signal.pause()
    hold.release()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_the_system_takes_it_back_from_a_killed_process(folder):
    begun(folder)
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold_for_ever, args=(folder.absolute(), held))
    process.start()
    assert held.wait(60)
    assert refusal(reopen, folder).startswith(f"my run is in use by process {process.pid}; ")
    assert "already holds a run" not in refusal(make, folder)
    process.kill()
    process.join()
    assert (folder / ".lock").exists(), "it had no time to remove it"
    with reopen(folder):
        assert (folder / ".lock").read_text() == f"{os.getpid()}\n"
    assert tree(folder) == {"last.safetensors": b"weights"}


def test_a_lock_that_cannot_be_written_is_named(folder):
    begun(folder)
    (folder / ".lock").mkdir()
    assert re.fullmatch(r"cannot write my run/\.lock: .+; choose another --out", refusal(reopen, folder))


def test_no_room_for_the_number_does_not_matter(folder, monkeypatch):
    begun(folder)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        hold = reopen(folder)
    assert "in use by another run" in refusal(reopen, folder)
    hold.release()


# the history


def test_lines_come_back_in_order(folder):
    folder.mkdir()
    assert list(lines(folder)) == []
    written = [{"step": 1, "nats": 2.5}, {"step": 9, "nats": 1e-300, "validation_nats": 2.0}]
    for line in written:
        append(folder, line)
    assert list(lines(folder)) == written
    assert (folder / "history.jsonl").read_bytes().count(b"\n") == 2


def test_half_lines_and_foreign_ones_are_passed_over(folder):
    folder.mkdir()
    append(folder, {"step": 1})
    with (folder / "history.jsonl").open("ab") as file:
        file.write(b'[1]\n7\n{"a": 1}\n{"step": "2"}\n\xff\xfe\n\0\0\n\n{"step": 2}\n{"step": 3, "seco')
    assert [line["step"] for line in lines(folder)] == [1, 2]


def test_rewind_drops_what_came_after_the_checkpoint(folder):
    begun(folder)
    for step in range(6):
        append(folder, {"step": step, "nats": step / 7})
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 3, "na')
    for name in (".last.safetensors.partial", ".history.jsonl.partial", "notes.partial", ".hidden"):
        (folder / name).touch()
    rewind(folder, 3)
    assert [json.loads(text)["step"] for text in (folder / "history.jsonl").read_text().splitlines()] == [0, 1, 2, 3]
    assert sorted(tree(folder)) == [".hidden", "history.jsonl", "last.safetensors", "notes.partial"]
    rewind(folder, -1)
    assert (folder / "history.jsonl").read_bytes() == b""


def test_a_history_that_cannot_be_written_is_named(folder):
    (folder / "history.jsonl").mkdir(parents=True)
    expected = "cannot write my run/history.jsonl: Is a directory; free some space, then --resume"
    assert refusal(append, folder, {"step": 1}) == expected
    assert run_folder.HISTORY == "history.jsonl"
