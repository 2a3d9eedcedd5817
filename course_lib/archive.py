"""One safetensors file with a JSON header, written whole or not at all, and refused if anything in it was altered.

The header carries the format, its version and what the caller puts in; beside it stands the SHA-256 of this JSON and of every
array. Loading never unpickles, and takes memory in proportion to the file. What a header means is the business of
``checkpoint``, ``translator``, ``classifier_model``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from course_lib.errors import CourseError

VERSION = 1
LARGEST_HEADER = 4_000_000  # bytes of JSON: two vocabularies of 100,000 words, or all of Unicode
LANGUAGE_MODEL, TRANSLATOR, CLASSIFIER = (
    f"course_lib {kind}" for kind in ("language model", "translator", "sequence classifier")
)
USES = {  # of each format, what to do with a file of it
    LANGUAGE_MODEL: "use `course generate` or `course eval`",
    TRANSLATOR: "use `course translate` or `course eval`",
    CLASSIFIER: "use `course classify` or `course eval`",
}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError, RecursionError)


def write(path: Path, kind: str, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write a file atomically: whatever happens, ``path`` holds the old file or the new one, entire.

    Raises:   CourseError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    write_atomically(path, to_bytes(kind, header, arrays))


def to_bytes(kind: str, header: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """The content of a file.

    Raises:   CourseError: the header is too long to be read again.
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"format": kind, "version": VERSION} | header)
    data = save(arrays, {"course_lib": text, "sha256": digest(text, arrays)})
    if (length := int.from_bytes(data[:8], "little")) > LARGEST_HEADER:
        raise CourseError(f"the vocabulary takes {length:,} bytes and a checkpoint holds {LARGEST_HEADER:,}; raise --min-count")
    return data


def read(path: Path, kind: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The header and the arrays of a file of this kind.

    Raises:   CourseError: unreadable, truncated, altered, foreign, of another kind or version.
    """
    from safetensors import SafetensorError

    broken = f"{path} is not a whole checkpoint of this course"
    try:
        with _opened(path) as file:
            metadata = file.metadata() or {}
            text = metadata.get("course_lib")
            arrays = {name: file.get_tensor(name) for name in file.keys()} if text else {}
        header = json.loads(text) if text else {}
    except OSError as error:
        raise CourseError(f"cannot read {path}: {error.strerror or error}; check the name and its permissions") from error
    except (SafetensorError, *UNREADABLE) as error:
        raise CourseError(f"{broken} ({type(error).__name__}); it may be truncated: copy or train it again") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != kind:
        if isinstance(found, str) and found in USES:
            raise CourseError(f"{path} holds a {found.removeprefix('course_lib ')}: {USES[found]}")
        raise CourseError(f"{broken}: it was written by something else; train one with `course train`")
    if header.get("version") != VERSION:
        raise CourseError(f"{path} has version {header.get('version')!r:.40}, this course_lib reads {VERSION}; train it again")
    if metadata.get("sha256") != digest(text, arrays):
        raise CourseError(f"{broken}: it does not match its checksum; copy or train it again")
    return header, arrays


def kind_of(path: Path) -> str | None:
    """The format that a file says it has; None if it says none."""
    from safetensors import SafetensorError

    with contextlib.suppress(SafetensorError, *UNREADABLE), _opened(path) as file:
        found = json.loads(file.metadata()["course_lib"])["format"]
        return found if isinstance(found, str) else None
    return None


def reason(error: Exception) -> str:
    """What an error says, for a line that tells of it: it may quote a foreign file, at any length and with any characters."""
    return "".join(c if c.isprintable() else " " for c in f"{error!s:.200}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside its place, flush it to the disk, then rename it into place."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CourseError(f"cannot write {path}: {error.strerror}; free some space or choose another place") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def digest(text: str, arrays: dict[str, Any]) -> str:
    """SHA-256 over the header's text, then names, dtypes, shapes and bytes of the arrays in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory; safetensors itself checks types, shapes and that the arrays fill the file."""
    from safetensors import safe_open

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("its header is too long")
        json.loads(file.read(length), object_pairs_hook=_check_names)
    with safe_open(path, framework="numpy") as file:
        yield file


def _check_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("it says something twice")
