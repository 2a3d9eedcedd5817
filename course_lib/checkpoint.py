"""Save and load a trained model: one safetensors file with its configuration and its record, written whole or not at all.

The header of the file carries, as JSON, the format's version, the configuration that rebuilds the model and the record of how
it was trained; beside it, the SHA-256 of this JSON and the weights. Loading never unpickles, and refuses what it did not write.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from course_lib.errors import CourseError
from course_lib.language_model import LanguageModelParams, init
from course_lib.text import CharTokenizer
from course_lib.trees import map_tree, named_leaves

FORMAT, VERSION = "course_lib language model", 1
SHIPPED = Path(__file__).parent.parent / "datasets" / "checkpoints"
LARGEST_SHIPPED = 8_000_000  # bytes


class Checkpoint(NamedTuple):
    params: LanguageModelParams
    tokenizer: CharTokenizer
    config: dict  # the arguments of language_model.init
    record: dict  # data, sha256 of the data, command, seed, seconds, metric
    extra: dict[str, np.ndarray]  # arrays of an unfinished run; empty in a model to share


def save(
    path: Path,
    params: LanguageModelParams,
    tokenizer: CharTokenizer,
    config: dict,
    record: dict,
    extra: dict[str, np.ndarray] | None = None,
) -> None:
    """Write a checkpoint atomically: whatever happens, ``path`` holds the old file or the new one, entire.

    Raises:   CourseError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    write_atomically(path, to_bytes(params, tokenizer, config, record, extra or {}))


def ship(source: str | Path, name: str) -> Path:
    """Put a trained model among the shipped ones: its weights as NAME.safetensors, its record beside them as NAME.json.

    Raises:   CourseError: the model was never evaluated on held-out text, or takes more than 8 MB.
    """
    model, path = load(source), SHIPPED / f"{name}.safetensors"
    if "validation_nats" not in model.record:
        raise CourseError(f"{source} records no validation_nats; ship the best checkpoint of a finished run")
    data = to_bytes(model.params, model.tokenizer, model.config, model.record, {})
    if len(data) > LARGEST_SHIPPED:
        raise CourseError(f"{source} takes {len(data):,} bytes, shipped are at most {LARGEST_SHIPPED:,}; train a smaller one")
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), (json.dumps(model.record, indent=1) + "\n").encode())
    return path


def to_bytes(
    params: LanguageModelParams, tokenizer: CharTokenizer, config: dict, record: dict, extra: dict[str, np.ndarray]
) -> bytes:
    """The content of a checkpoint's file; see ``Checkpoint``."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in named_leaves(params, "model")}
    arrays |= {f"extra.{name}": np.ascontiguousarray(array) for name, array in extra.items()}
    header = {"format": FORMAT, "version": VERSION, "config": config, "tokenizer": tokenizer.to_config(), "record": record}
    text = json.dumps(header)
    return save(arrays, {"course_lib": text, "sha256": digest(text, arrays)})


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


def load(source: str | Path) -> Checkpoint:
    """Load a shipped model by name, a checkpoint file, or the best checkpoint of a run folder.

    Raises:   CourseError: no such checkpoint; truncated, altered, foreign, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    path = locate(source)
    broken = f"{path} is not a whole checkpoint of this course"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            text = metadata.get("course_lib")
            arrays = {name: file.get_tensor(name) for name in file.keys()} if text else {}
        header = json.loads(text) if text else {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise CourseError(f"{broken} ({type(error).__name__}); it may be truncated: copy or train it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CourseError(f"{broken}: it was written by something else; train one with `course train`")
    if header.get("version") != VERSION:
        raise CourseError(f"{path} has version {header.get('version')}, this course_lib reads {VERSION}; train it again")
    if metadata.get("sha256") != digest(text, arrays):
        raise CourseError(f"{broken}: it does not match its checksum; copy or train it again")
    try:
        config, record = dict(header["config"]), dict(header["record"])
        tokenizer = CharTokenizer.from_config(header["tokenizer"])
        params = _rebuild(config, arrays)
        if tokenizer.size != len(params.embedding):
            raise ValueError(f"{tokenizer.size} characters for {len(params.embedding)} embeddings")
    except (KeyError, TypeError, ValueError, CourseError) as error:
        raise CourseError(f"{broken}: {error}; train it again") from error
    extra = {name.removeprefix("extra."): array for name, array in arrays.items() if name.startswith("extra.")}
    return Checkpoint(params, tokenizer, config, record, extra)


def locate(source: str | Path) -> Path:
    """The file behind a shipped name, a path to a checkpoint, or a run folder."""
    path = Path(source)
    for candidate in (path, path / "best.safetensors", path / "last.safetensors", SHIPPED / f"{source}.safetensors"):
        with contextlib.suppress(OSError):  # a name too long for a file
            if candidate.is_file():
                return candidate
    raise CourseError(f"no checkpoint {str(source)!r}: give {', '.join([*shipped(), 'a checkpoint file or a run folder'])}")


def shipped() -> list[str]:
    """Names of the models that come with the course."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over the header's text, then names, dtypes, shapes and bytes of the arrays in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()


def _rebuild(config: dict, arrays: dict[str, np.ndarray]) -> Any:
    """Put the arrays into the tree that the configuration describes; every name, shape and dtype must fit."""
    model = {name: array for name, array in arrays.items() if name.startswith("model.")}
    V, E, H, L = (config[f] for f in ("vocab_size", "embedding_size", "hidden_size", "num_layers"))
    if L > len(model) or V * (E + H) + H * (E + (2 * L - 1) * H) > sum(array.size for array in model.values()):
        raise ValueError("its configuration asks for more weights than it holds")  # before init takes the memory
    template = init(**config, seed=0)
    if model.keys() != {name for name, _ in named_leaves(template, "model")}:
        raise ValueError("the names of its weights do not fit its configuration")
    return fill(template, model, "model")


def fill(template: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """A tree like the template, from the arrays called ``prefix.name``.

    Raises:   KeyError: one is missing. ValueError: one has another shape or dtype, or an entry that is not finite.
    """
    names = (name for name, _ in named_leaves(template, prefix))

    def place(expected: np.ndarray) -> np.ndarray:
        name = next(names)
        array = arrays[name]
        if array.shape != expected.shape or array.dtype != expected.dtype or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite {expected.dtype} {expected.shape}, got {array.dtype} {array.shape}")
        return array

    return map_tree(place, template)
