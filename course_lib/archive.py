"""One safetensors file with a JSON header, written whole or not at all, and refused if anything in it was altered.

The header carries the format, its version and what the caller puts in; beside it stands the SHA-256 of this JSON and of every
array. Loading never unpickles. What a header means is the business of ``checkpoint``, ``translator``, ``classifier_model``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from course_lib.errors import CourseError

VERSION = 1
LANGUAGE_MODEL, TRANSLATOR, CLASSIFIER = (
    f"course_lib {kind}" for kind in ("language model", "translator", "sequence classifier")
)
USES = {  # of each format, what to do with a file of it
    LANGUAGE_MODEL: "use `course generate` or `course eval`",
    TRANSLATOR: "use `course translate` or `course eval`",
    CLASSIFIER: "load it with classifier.load",
}


def write(path: Path, kind: str, header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write a file atomically: whatever happens, ``path`` holds the old file or the new one, entire.

    Raises:   CourseError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    write_atomically(path, to_bytes(kind, header, arrays))


def to_bytes(kind: str, header: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """The content of a file."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"format": kind, "version": VERSION} | header)
    return save(arrays, {"course_lib": text, "sha256": digest(text, arrays)})


def read(path: Path, kind: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The header and the arrays of a file of this kind.

    Raises:   CourseError: truncated, altered, foreign, of another kind or version.
    """
    from safetensors import SafetensorError, safe_open

    broken = f"{path} is not a whole checkpoint of this course"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata.get("course_lib")
            arrays = {name: file.get_tensor(name) for name in file.keys()} if text else {}
        header = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise CourseError(f"{broken} ({type(error).__name__}); it may be truncated: copy or train it again") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != kind:
        if isinstance(found, str) and found in USES:
            raise CourseError(f"{path} holds a {found.removeprefix('course_lib ')}: {USES[found]}")
        raise CourseError(f"{broken}: it was written by something else; train one with `course train`")
    if header.get("version") != VERSION:
        raise CourseError(f"{path} has version {header.get('version')}, this course_lib reads {VERSION}; train it again")
    if metadata.get("sha256") != digest(text, arrays):
        raise CourseError(f"{broken}: it does not match its checksum; copy or train it again")
    return header, arrays


def kind_of(path: Path) -> str | None:
    """The format that a file says it has; None if it says none."""
    from safetensors import SafetensorError, safe_open

    reasons = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError)
    with contextlib.suppress(*reasons), safe_open(path, framework="numpy") as file:
        found = json.loads(file.metadata()["course_lib"])["format"]
        return found if isinstance(found, str) else None
    return None


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
