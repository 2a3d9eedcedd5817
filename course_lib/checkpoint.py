"""Save and load a trained language model: an ``archive`` whose header rebuilds the model and records how it was trained."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from course_lib import archive
from course_lib.archive import write_atomically
from course_lib.cells import GRUParams, LSTMParams, RNNParams
from course_lib.errors import CourseError
from course_lib.language_model import CELLS, LanguageModelParams, init
from course_lib.text import CharTokenizer
from course_lib.trees import map_tree, named_leaves

FORMAT = archive.LANGUAGE_MODEL
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


def ship(source: str | Path, name: str, half: bool = False) -> Path:
    """Put a trained model among the shipped ones: its weights as NAME.safetensors, its record beside them as NAME.json.

    Args:     half: keep the weights in 16 bits, in half the bytes; they are computed with in 32.
    Raises:   CourseError: the model was never evaluated on held-out text, or takes more than 8 MB.
    """
    model, path = load(source), SHIPPED / f"{name}.safetensors"
    if "validation_nats" not in model.record:
        raise CourseError(f"{source} records no validation_nats; ship the best checkpoint of a finished run")
    params = map_tree(lambda a: a.astype(np.float16), model.params) if half else model.params
    data = to_bytes(params, model.tokenizer, model.config, model.record, {})
    if len(data) > LARGEST_SHIPPED:
        raise CourseError(f"{source} takes {len(data):,} bytes, shipped are at most {LARGEST_SHIPPED:,}; train a smaller one")
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), (json.dumps(model.record, indent=1) + "\n").encode())
    return path


def to_bytes(
    params: LanguageModelParams, tokenizer: CharTokenizer, config: dict, record: dict, extra: dict[str, np.ndarray]
) -> bytes:
    """The content of a checkpoint's file; see ``Checkpoint``."""
    arrays = dict(named_leaves(params, "model")) | {f"extra.{name}": array for name, array in extra.items()}
    return archive.to_bytes(FORMAT, {"config": config, "tokenizer": tokenizer.to_config(), "record": record}, arrays)


def load(source: str | Path) -> Checkpoint:
    """Load a shipped model by name, a checkpoint file, or the best checkpoint of a run folder.

    Raises:   CourseError: no such checkpoint; truncated, altered, foreign, or of another version.
    """
    path = locate(source)
    header, arrays = archive.read(path, FORMAT)
    try:
        config, record = dict(header["config"]), dict(header["record"])
        tokenizer = CharTokenizer.from_config(header["tokenizer"])
        params = _rebuild(config, arrays)
        if tokenizer.size != len(params.embedding):
            raise ValueError(f"{tokenizer.size} characters for {len(params.embedding)} embeddings")
    except (*archive.UNREADABLE, CourseError) as error:
        raise CourseError(
            f"{path} is not a whole checkpoint of this course: {archive.reason(error)}; train it again"
        ) from error
    extra = {name.removeprefix("extra."): array for name, array in arrays.items() if name.startswith("extra.")}
    return Checkpoint(params, tokenizer, config, record, extra)


def locate(source: str | Path, kind: str | None = FORMAT) -> Path:
    """The file behind a shipped name, a path to a checkpoint, or a run folder.

    Args:     kind: of the shipped models that an error names; None: of all.
    Raises:   CourseError: there is none.
    """
    path = Path(source)
    for candidate in (path, path / "best.safetensors", path / "last.safetensors", SHIPPED / f"{source}.safetensors"):
        with contextlib.suppress(OSError):  # a name too long for a file
            if candidate.is_file():
                return candidate
    raise CourseError(f"no checkpoint {str(source)!r}: give {', '.join([*shipped(kind), 'a checkpoint file or a run folder'])}")


def shipped(kind: str | None = FORMAT) -> list[str]:
    """Names of the models of this kind, or of all, that come with the course; those too damaged to tell are among them."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors") if kind is None or archive.kind_of(path) in (kind, None))


def _rebuild(config: dict, arrays: dict[str, np.ndarray]) -> Any:
    """Put the arrays into the tree that the configuration describes; every name, shape and dtype must fit."""
    model = {name: _wide(array) for name, array in arrays.items() if name.startswith("model.")}
    V, E, H, L = (config[f] for f in ("vocab_size", "embedding_size", "hidden_size", "num_layers"))
    gates, biases = {RNNParams: (1, 1), LSTMParams: (4, 1), GRUParams: (3, 2)}[CELLS[config["cell"]]]
    entries = V * (E + H + 1) + gates * H * (E + (2 * L - 1) * H + biases * L)
    if L > len(model) or entries != sum(array.size for array in model.values() if array.dtype == np.float32):
        raise ValueError("its configuration asks for other weights than it holds")  # before init takes the memory
    template = init(**config, seed=0)
    if model.keys() != {name for name, _ in named_leaves(template, "model")}:
        raise ValueError("the names of its weights do not fit its configuration")
    return fill(template, model, "model")


def _wide(array: np.ndarray) -> np.ndarray:
    """Shipped weights of 16 bits are computed with in 32."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


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
