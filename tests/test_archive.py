"""A file comes back as it was written or is refused in one line; each kind says what to do with a file of another.

How checkpoints and translators are refused is tested in ``test_checkpoint`` and ``test_translator``.
"""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import FOREIGN

from course_lib import archive
from course_lib.errors import CourseError

KIND = archive.TRANSLATOR
HEADER = {"config": {"a": 1, "é": [None, True, 0.5]}, "record": {"nats": float("inf")}}
ARRAYS = {
    "b.0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([[1, 2], [3, 4]], np.float16).T,  # not in C order
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 3)),
    "bytes": np.arange(5, dtype=np.uint8),
}


@pytest.fixture
def path(tmp_path) -> Path:
    archive.write(tmp_path / "x.safetensors", KIND, HEADER, ARRAYS)
    return tmp_path / "x.safetensors"


def refusal(path: Path, kind: str = KIND) -> str:
    with pytest.raises(CourseError) as caught:
        archive.read(path, kind)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_all_comes_back(path):
    header, arrays = archive.read(path, KIND)
    assert header == {"format": KIND, "version": archive.VERSION} | HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(arrays[name], array)
    assert archive.kind_of(path) == KIND
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_cut_or_flipped_anywhere_it_is_refused(path):
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert "is not a whole checkpoint of this course" in refusal(path)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        refusal(path)


@pytest.mark.parametrize("kind", archive.USES)
def test_another_kind_is_named_with_its_use(tmp_path, kind):
    path = tmp_path / "x"
    archive.write(path, kind, {}, {})
    assert archive.read(path, kind)[0]["format"] == archive.kind_of(path) == kind
    for other in archive.USES.keys() - {kind}:
        assert refusal(path, other) == f"{path} holds a {kind.removeprefix('course_lib ')}: {archive.USES[kind]}"
    assert [use.partition("`")[2].split("`")[0] for use in archive.USES.values()] == [
        "course generate",
        "course translate",
        "course classify",
    ]


@pytest.mark.parametrize("kind", ["something else", None, 7, ["course_lib translator"], {"a": 1}])
def test_an_unknown_kind_was_written_by_something_else(tmp_path, kind):
    path = tmp_path / "x"
    archive.write(path, kind, {}, {})
    assert "it was written by something else; train one with `course train`" in refusal(path)
    assert archive.kind_of(path) == (kind if isinstance(kind, str) else None)


@pytest.mark.parametrize("version", [0, archive.VERSION + 1, "1", None])
def test_another_version_is_named(tmp_path, version):
    path = tmp_path / "x"
    archive.write(path, KIND, {"version": version}, {})
    assert refusal(path).endswith(f"has version {version!r}, this course_lib reads {archive.VERSION}; train it again")


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_has_no_kind(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = Path("foreign.safetensors")
    FOREIGN[kind](path)
    assert archive.kind_of(path) is None
    assert "is not a whole checkpoint of this course" in refusal(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_missing_has_no_kind(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        assert archive.kind_of(path) is None
        refusal(path)


def test_the_digest_covers_the_header_and_every_array():
    base = {"a": np.zeros(4, np.float32), "b": np.ones((2, 2), np.float32)}
    changes = {
        "header": ("{ }", base),
        "name": ("{}", {"a": base["a"], "c": base["b"]}),
        "names swapped": ("{}", {"a": base["b"].ravel(), "b": base["a"].reshape(2, 2)}),
        "dtype": ("{}", base | {"a": np.zeros(4, np.int32)}),
        "shape": ("{}", base | {"b": np.ones(4, np.float32)}),
        "bytes": ("{}", base | {"b": np.array([[1, 1], [1, 2]], np.float32)}),
        "one less": ("{}", {"a": base["a"]}),
        "an empty one more": ("{}", base | {"d": np.zeros(0)}),
    }
    found = {name: archive.digest(*change) for name, change in changes.items()} | {"": archive.digest("{}", base)}
    assert len(set(found.values())) == len(found)
    assert archive.digest("{}", dict(reversed(base.items()))) == found[""], "the order of the arrays does not count"
    assert archive.digest("{}", base | {"b": np.asfortranarray(base["b"])}) == found[""]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch, failure):
    before = path.read_bytes()

    def fsync(_: int) -> None:
        assert path.read_bytes() == before, "the old file stands until the new one is on the disk"
        raise failure

    monkeypatch.setattr(os, "fsync", fsync)
    expected = CourseError if isinstance(failure, OSError) else KeyboardInterrupt
    message = re.escape(f"cannot write {path}: No space left on device; free some") if expected is CourseError else "^$"
    with pytest.raises(expected, match=message):
        archive.write(path, KIND, {"more": 1}, ARRAYS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_header_that_is_no_json_is_a_bug_of_the_caller_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError):
        archive.write(tmp_path / "x", KIND, {"array": np.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []
