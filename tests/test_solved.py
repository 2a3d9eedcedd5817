"""What is solved is kept in one small file: written whole or not at all, never lost, never a reason to fail."""

import json
import os
from datetime import date

import pytest

from course_lib.solved import progress_file, read_solved, record_solved


@pytest.fixture
def kept(tmp_path, monkeypatch):
    path = tmp_path / "mine" / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    return path


def test_solved_exercises_are_kept_with_their_day(kept):
    assert read_solved() == {}
    assert record_solved("a") == record_solved("b") == record_solved("a") == ""
    assert read_solved() == {"a": date.today().isoformat(), "b": date.today().isoformat()}
    assert [path.name for path in kept.parent.iterdir()] == ["progress.json"]


def test_the_first_day_stays(kept):
    kept.parent.mkdir()
    kept.write_text('{"a": "2020-01-01"}', encoding="utf-8")
    record_solved("a")
    record_solved("b")
    assert read_solved()["a"] == "2020-01-01"


@pytest.mark.parametrize("text", ["", "not json", "[1, 2]", '{"a": '])
def test_a_damaged_file_is_kept_beside_a_new_one(kept, text):
    kept.parent.mkdir()
    kept.write_text(text, encoding="utf-8")
    assert read_solved() == {}
    assert record_solved("a") == ""
    assert list(read_solved()) == ["a"]
    assert kept.with_suffix(".damaged").read_text(encoding="utf-8") == text


def test_an_empty_object_is_no_damage(kept):
    kept.parent.mkdir()
    kept.write_text("{}\n", encoding="utf-8")
    record_solved("a")
    assert not kept.with_suffix(".damaged").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    line = record_solved("a")
    assert line.startswith("(not noted in ")
    assert "\n" not in line
    assert read_solved() == {}


def test_empty_means_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "")
    assert progress_file() is None
    assert record_solved("a") == ""
    assert read_solved() == {}


def test_the_default_is_the_users_own_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_PROGRESS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert progress_file().name == "progress.json"
    if os.uname().sysname == "Linux":
        assert progress_file().parent == tmp_path / "course_lib"


def test_the_file_is_plain_json(kept):
    record_solved("a")
    assert list(json.loads(kept.read_text(encoding="utf-8"))) == ["a"]
