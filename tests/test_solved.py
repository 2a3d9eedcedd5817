"""What is solved is kept in one small file: lines are only added, nothing is lost, and it is never a reason to fail."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from course_lib.solved import progress_file, read_solved, record_solved

TODAY = date.today().isoformat()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    path = tmp_path / "mine" / "progress.jsonl"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def test_solved_exercises_are_kept_with_their_day(kept):
    assert read_solved() == {}
    assert record_solved("a") == record_solved("b") == record_solved("a") == ""
    assert read_solved() == {"a": TODAY, "b": TODAY}
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [{"exercise": name, "day": TODAY} for name in "ab"]


def test_the_first_day_stays(kept):
    kept.parent.mkdir()
    kept.write_text('{"exercise": "a", "day": "2020-01-01"}\n', encoding="utf-8")
    record_solved("a")
    record_solved("b")
    assert read_solved() == {"a": "2020-01-01", "b": TODAY}


@pytest.mark.parametrize(
    "text", ["not json", "[1, 2]", '{"exercise": ', '{"other": 1}', "7", "[" * 100_000, "\ufeff", "\0\xff"]
)
def test_what_cannot_be_read_stays_and_costs_nothing_else(kept, text):
    kept.parent.mkdir()
    damaged = '{"exercise": "a", "day": "2020-01-01"}\n' + text  # cut off: no newline at its end
    kept.write_text(damaged, encoding="utf-8")
    assert read_solved() == {"a": "2020-01-01"}
    assert record_solved("b") == ""
    assert read_solved() == {"a": "2020-01-01", "b": TODAY}
    assert kept.read_text(encoding="utf-8").startswith(damaged)


def test_the_mark_of_a_windows_editor_is_no_damage(kept):
    kept.parent.mkdir()
    kept.write_text('\ufeff{"exercise": "a", "day": "2020-01-01"}\r\n', encoding="utf-8")
    assert read_solved() == {"a": "2020-01-01"}


@pytest.mark.parametrize("place", ["file/progress.jsonl", ".", "/"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / place))
    line = record_solved("a")
    assert line.startswith("(not noted in ")
    assert "\n" not in line
    assert read_solved() == {}


def test_a_device_stays_a_device(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", os.devnull)
    assert record_solved("a") == ""
    assert not Path(os.devnull).is_file()


def test_a_link_stays_a_link(kept, tmp_path):
    kept.parent.mkdir()
    (tmp_path / "real").write_text("", encoding="utf-8")
    kept.symlink_to(tmp_path / "real")
    record_solved("a")
    assert kept.is_symlink()
    assert list(read_solved()) == ["a"]


def test_two_processes_lose_nothing(kept):
    code = "import sys; from course_lib.solved import record_solved; [record_solved(f'{sys.argv[1]}{k}') for k in range(100)]"
    both = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(read_solved()) == 200


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_means_nothing_is_kept(monkeypatch, value):
    monkeypatch.setenv("COURSE_PROGRESS", value)
    assert progress_file() is None
    assert record_solved("a") == ""
    assert read_solved() == {}


def test_the_default_is_the_users_own_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert progress_file().name == "progress.jsonl"
    if os.uname().sysname == "Linux":
        assert progress_file().parent == tmp_path / "course_lib"
