"""Look over an installation: what is there, what is broken, and what to do about it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from course_lib import archive, checkpoint, downloads
from course_lib.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
SIGNS = {"good": "✓", "note": "○", "broken": "✗"}


class Finding(NamedTuple):
    """One line of the report. level: "good", "note" (works, but look) or "broken"."""

    level: str
    text: str

    def __str__(self) -> str:
        return f"{SIGNS[self.level]} {self.text}"


def examine() -> Iterator[Finding]:
    """Yield the findings one after the other; the installation is broken if one of them is."""
    for check in (_python, _packages, _torch, _data, _models, _disk):
        try:
            yield from check()
        except Exception as error:  # whatever is wrong with this machine, the other checks go on
            why = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding("broken", f"{check.__name__[1:]}: {why}; run make setup")


def _python() -> Iterator[Finding]:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses older ones, a copied folder does not
        yield Finding("broken", f"{text}: the course needs 3.11 or newer; make setup PYTHON=/path/to/python3.12")
    else:
        yield Finding("good", text)


def _packages() -> Iterator[Finding]:
    """Hold every requirement of the course to the exact versions that it was tested with."""
    path = ROOT / "constraints.txt"
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)) if path.exists() else {}
    pins = {_normal(name): version for name, version in pins.items()}
    names = [re.match(r"[\w.-]+", line)[0] for line in metadata.requires("course-lib") or [] if "extra ==" not in line]
    missing, other = [], []
    for name in names:
        try:
            version = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if pins and version != pins.get(_normal(name)):
            other.append(f"{name} {version} (tested: {pins.get(_normal(name))})")
    if missing:
        yield Finding("broken", f"missing packages: {', '.join(missing)}; run make setup")
    if other:
        yield Finding("note", f"other versions than tested: {', '.join(other)}; make setup installs the tested ones")
    if not missing and not other:
        yield Finding("good", f"{len(names)} packages in the tested versions")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken build can raise anything
        why = " ".join(str(error).split())[:150]
        yield Finding("broken", f"torch does not import ({why}); run make setup (lessons 00-06 work without it)")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Finding("good", f"torch {torch.__version__}, {build} build, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        yield Finding("good", f"GPU: {torch.cuda.get_device_name()}")
    elif shutil.which("nvidia-smi"):
        yield Finding("note", "an NVIDIA driver, but torch cannot use it; the README says what a GPU owner installs")
    else:
        yield Finding("note", "no GPU: nothing in the course needs one")


def _data() -> Iterator[Finding]:
    try:
        folder = downloads.data_folder()
        cache = downloads.cache_folder()
        states = {name: downloads.status(name) for name in downloads.registry()}
    except CourseError as error:
        yield Finding("broken", str(error))
        return
    if folder:
        yield Finding("good", f"COURSE_DATA: {folder}")
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        yield Finding("good", f"downloads go to {cache}")
    else:
        yield Finding("broken", f"cannot write to {existing}, where downloads go; name another folder in COURSE_CACHE")
    for name, state in states.items():
        if state.startswith("damaged"):
            yield Finding("broken", f"data set {name}: {state}; replace the file, `course data fetch {name}` says which")
    ready = [name for name, state in states.items() if not state.startswith(("damaged", "not"))]
    rest = [name for name, state in states.items() if state == "not downloaded"]
    later = f"; fetched when first used: {', '.join(rest)}" if rest else ""
    yield Finding("good", f"data sets ready: {', '.join(ready)}{later}")


def _models() -> Iterator[Finding]:
    good = []
    for path in sorted(checkpoint.SHIPPED.glob("*.safetensors")):
        try:
            if archive.kind_of(path) == archive.TRANSLATOR:
                archive.read(path, archive.TRANSLATOR)
            else:
                checkpoint.load(path)
            good.append(path.stem)
        except CourseError as error:
            yield Finding("broken", f"shipped model {path.stem}: {error}")
    if good:
        yield Finding("good", f"shipped models: {', '.join(good)}")
    elif not checkpoint.shipped():
        yield Finding("broken", f"no shipped models in {checkpoint.SHIPPED}; clone the course again")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 0.1:
        yield Finding("broken", f"{free:.2f} GB free on the disk of {ROOT}; free at least 0.1 GB")
    else:
        yield Finding("good" if free > 1 else "note", f"{free:.1f} GB free on the disk")
