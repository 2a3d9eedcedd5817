"""A translator that is kept: a Seq2Seq model with the tokenizers of both sides and the record of how it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from course_lib import archive, checkpoint
from course_lib.errors import CourseError
from course_lib.seq2seq import Seq2Seq
from course_lib.trees import map_tree
from course_lib.units import UnitTokenizer

FORMAT = archive.TRANSLATOR


class Translator(NamedTuple):
    """params: the weights by name. source, target: tokenizers. record, extra: as in checkpoint.Checkpoint.

    config: "model", the arguments of Seq2Seq; "longest", the numbers of tokens of the longest source and the longest target
    in training; "prepare", "dates" or "sentences": how sources are cleaned.
    """

    params: dict[str, np.ndarray]
    source: UnitTokenizer
    target: UnitTokenizer
    config: dict
    record: dict
    extra: dict[str, np.ndarray]

    def model(self) -> Seq2Seq:
        """The model itself, on the CPU, ready to translate."""
        return build(self.config, self.params).eval()


def build(config: dict, params: dict[str, np.ndarray] | None = None) -> Seq2Seq:
    """The model of a configuration, with these weights or with random ones.

    Raises:   KeyError, ValueError: weights that do not fit the configuration.
    """
    model = Seq2Seq(**config["model"])
    if params is not None:
        mine = map_tree(lambda t: t.detach().numpy(), model.params())
        if params.keys() != mine.keys():
            raise ValueError("the names of its weights do not fit its configuration")
        filled = checkpoint.fill(mine, {f"model.{name}": array for name, array in params.items()}, "model")
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in filled.items()})
    return model


def save(path: Path, translator: Translator) -> None:
    """Write a translator atomically.

    Raises:   CourseError: the reasons of ``archive.write``.
    """
    archive.write(path, FORMAT, _header(translator), _arrays(translator))


def load(source: str | Path) -> Translator:
    """A shipped translator by name, a file, or the best one of a run's folder.

    Raises:   CourseError: no such file; truncated, altered, foreign, or something else than a translator.
    """
    path = checkpoint.locate(source, FORMAT)
    header, arrays = archive.read(path, FORMAT)
    extra = {name.removeprefix("extra."): array for name, array in arrays.items() if name.startswith("extra.")}
    params = {
        name.removeprefix("model."): array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in arrays.items()
        if name.startswith("model.")
    }
    try:
        source_units, target_units = (UnitTokenizer.from_config(header[side]) for side in ("source", "target"))
        config, record = dict(header["config"]), dict(header["record"])
        if [source_units.size, target_units.size] != [config["model"][f"{side}_size"] for side in ("source", "target")]:
            raise ValueError("its tokenizers do not fit its configuration")
        if not all(isinstance(n, int) and n > 0 for n in config["longest"]) or len(config["longest"]) != 2:
            raise ValueError("it does not say how long its sentences were")
        if config["prepare"] not in ("dates", "sentences"):
            raise ValueError("it does not say how its sentences were prepared")
        E, H, L = (config["model"][name] for name in ("embedding_size", "hidden_size", "num_layers"))
        least = (source_units.size + target_units.size) * E + 4 * H * (E + L * H)  # of at most 4.5 times as many
        held = sum(array.size for array in params.values() if array.dtype == np.float32)
        if L > len(params) or held < least:  # before taking the memory
            raise ValueError("its configuration asks for more weights than it holds")
        build(config, params)
    except (*archive.UNREADABLE, CourseError) as error:
        raise CourseError(
            f"{path} is not a whole checkpoint of this course: {archive.reason(error)}; train it again"
        ) from error
    return Translator(params, source_units, target_units, config, record, extra)


def ship(source: str | Path, name: str, half: bool = False) -> Path:
    """Put a trained translator among the shipped models, with its record beside it.

    Args:     half: keep the weights in 16 bits, in half the bytes; they are computed with in 32.
    Raises:   CourseError: it was never evaluated on held-out pairs, or takes more than 8 MB.
    """
    found = load(source)
    if half:
        found = found._replace(params=map_tree(lambda a: a.astype(np.float16), found.params))
    if "validation_nats" not in found.record:
        raise CourseError(f"{source} records no validation_nats; ship the best checkpoint of a finished run")
    data = archive.to_bytes(FORMAT, _header(found), _arrays(found._replace(extra={})))
    if len(data) > checkpoint.LARGEST_SHIPPED:
        raise CourseError(f"{source} takes {len(data):,} bytes, shipped are at most {checkpoint.LARGEST_SHIPPED:,}")
    path = checkpoint.SHIPPED / f"{name}.safetensors"
    archive.write_atomically(path, data)
    archive.write_atomically(path.with_suffix(".json"), (json.dumps(found.record, indent=1) + "\n").encode())
    return path


def _header(translator: Translator) -> dict:
    sides = {"source": translator.source.to_config(), "target": translator.target.to_config()}
    return sides | {"config": translator.config, "record": translator.record}


def _arrays(translator: Translator) -> dict[str, np.ndarray]:
    weights = {f"model.{name}": array for name, array in translator.params.items()}
    return weights | {f"extra.{name}": array for name, array in translator.extra.items()}
