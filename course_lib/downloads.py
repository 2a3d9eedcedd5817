"""Registered data files: where they are, how they are downloaded, and the proof that they are the right ones.

A file is looked for in the folder that the environment variable COURSE_DATA names, then in the cache folder
(COURSE_CACHE, else the system's usual place), and is downloaded there otherwise. Its SHA-256 is verified at each use.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from course_lib.errors import CourseError

REGISTRY_FILE = Path(__file__).resolve().parent.parent / "datasets" / "registry.json"
TIMEOUT = 30  # seconds without an answer from a server


class RemoteFile(NamedTuple):
    """One file of a data set. file: its place in COURSE_DATA or the cache, with ``/``. size: in bytes."""

    file: str
    size: int
    sha256: str
    url: str


class Entry(NamedTuple):
    """A registered data set. kind: "text" (prose), "lines" (one item a line), "poems", "pairs" or "embedded" (a text).

    package: "Python" or "Babel", with which a data set without files comes, else empty.
    """

    name: str
    kind: str
    description: str
    licence: str
    note: str
    files: tuple[RemoteFile, ...]
    package: str = ""


_PYTHON = ("PSF-2.0", "The text varies with the Python version.", (), "Python")
_BABEL = ("Unicode-3.0 (CLDR)", "The strings vary with Babel's version, the days do not.", (), "Babel")
_EMBEDDED = (  # name, kind, description
    ("python_docs", "embedded", "docstrings and help topics of the running Python (1.7 MB of English, no download)", *_PYTHON),
    ("python_source", "embedded", "source code of the running Python's standard library (8 MB, no download)", *_PYTHON),
    ("summaries", "pairs", "docstring's first sentence -> function name, of the running Python (no download)", *_PYTHON),
    ("bodies", "pairs", "code of a function -> its docstring's first sentence, of the running Python (no download)", *_PYTHON),
    ("dates", "pairs", "29 million date strings in 17 languages -> ISO 8601 (no download)", *_BABEL),
)


def registry() -> dict[str, Entry]:
    """The registered data sets by name.

    Raises:   CourseError: ``datasets/registry.json`` is missing or damaged.
    """
    try:
        listed = json.loads(REGISTRY_FILE.read_text(encoding="utf-8"))
        entries = {
            name: Entry(
                name, e["kind"], e["description"], e["licence"], e["note"],
                tuple(RemoteFile(f["file"], f["bytes"], f["sha256"], f["url"]) for f in e["files"]),
            )
            for name, e in listed.items()
        }  # fmt: skip
    except OSError as error:
        raise CourseError(
            f"cannot read {REGISTRY_FILE} ({error.strerror}); run pip install -e . in the course's repository"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(f"{REGISTRY_FILE} is damaged ({error!r}); restore it with git checkout") from None
    return entries | {row[0]: Entry(*row) for row in _EMBEDDED}


def lookup(name: str) -> Entry:
    """The registered data set of this name. Raises CourseError, with the nearest name, if there is none."""
    entries = registry()
    if name not in entries:
        raise CourseError(f"no data set is called {name!r}; {suggestion(name, entries)}")
    return entries[name]


def suggestion(name: str, entries: dict[str, Entry]) -> str:
    """What to say about a name that is not registered."""
    import difflib

    near = difflib.get_close_matches(name, entries, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"registered: {', '.join(sorted(entries))}"


def data_folder() -> Path | None:
    """The folder COURSE_DATA names, or None. Raises CourseError if it names no folder."""
    value = os.environ.get("COURSE_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise CourseError(f"COURSE_DATA names {value!r}, which is no folder; correct it or unset it")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: COURSE_CACHE, or the system's folder for caches. It may not exist yet."""
    value = os.environ.get("COURSE_CACHE")
    if value:
        return Path(value).expanduser()
    import pooch

    return Path(pooch.os_cache("course_lib"))


def status(name: str) -> str:
    """Where a data set is: "embedded", "in COURSE_DATA", "cached", "not downloaded" or "damaged in COURSE_DATA".

    Of several files, the worst. Reads every file to verify it; downloads and deletes nothing.
    """
    entry = lookup(name)
    if not entry.files:
        return "embedded"
    order = ("in COURSE_DATA", "cached", "not downloaded", "damaged in COURSE_DATA")
    return max((_file_status(remote) for remote in entry.files), key=order.index)


def fetch(name: str) -> Path:
    """The verified file of a data set that has one file; see ``fetch_all``."""
    paths = fetch_all(name)
    if len(paths) != 1:
        raise ValueError(f"name: expected a data set of one file, {name!r} has {len(paths)}; use fetch_all")
    return paths[0]


def fetch_all(name: str) -> tuple[Path, ...]:
    """The verified files of a data set, in the registry's order, downloaded if they are nowhere yet.

    Raises:   CourseError: unknown name, no file to fetch, an altered file in COURSE_DATA, a download that failed.
    """
    entry = lookup(name)
    if not entry.files:
        use = f"load_corpus({name!r})" if entry.kind == "embedded" else f"`course train --task translate --data {name}`"
        raise CourseError(f"{name} comes with {entry.package}: it has no file; use {use}")
    return tuple(_fetch_file(remote) for remote in entry.files)


def _is_intact(path: Path, remote: RemoteFile) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256
    except OSError:  # unreadable
        return False


def _file_status(remote: RemoteFile) -> str:
    folder = data_folder()
    if folder and (folder / remote.file).exists():
        return "in COURSE_DATA" if _is_intact(folder / remote.file, remote) else "damaged in COURSE_DATA"
    cached = cache_folder() / remote.file
    return "cached" if cached.is_file() and _is_intact(cached, remote) else "not downloaded"


def _fetch_file(remote: RemoteFile) -> Path:
    folder = data_folder()
    if folder and (folder / remote.file).exists():
        path = folder / remote.file
        if not _is_intact(path, remote):
            raise CourseError(f"{path} is altered or incomplete; replace it by {remote.url} (SHA-256 {remote.sha256})")
        return path
    path = cache_folder() / remote.file
    try:
        if path.is_file():
            if _is_intact(path, remote):
                return path
            path.unlink()
        _download(remote, path)
    except OSError as error:
        why = " ".join(str(error.strerror or error).split())  # one line
        raise CourseError(f"cannot write {path}: {why}; check the folder or its disk") from None
    return path


def _download(remote: RemoteFile, path: Path) -> None:
    """Download into a temporary file beside ``path``, verify it, then move it there: all or nothing."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=TIMEOUT)
    try:
        pooch.retrieve(remote.url, f"sha256:{remote.sha256}", path.name, path.parent, downloader=downloader)
        return
    except requests.HTTPError as error:
        reason = f"the server answered {error.response.status_code}"
    except requests.Timeout:
        reason = f"no answer within {TIMEOUT} s"
    except requests.RequestException:
        reason = "no connection, or it broke off"
    except ValueError:
        reason = "what arrived has another checksum"
    by_hand = (data_folder() or cache_folder()) / remote.file
    raise CourseError(
        f"could not download {path.name} from {remote.url} ({reason}); try again, or put the file at {by_hand} "
        f"yourself (SHA-256 {remote.sha256})"
    )
