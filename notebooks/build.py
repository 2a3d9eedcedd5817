"""Build the three editions of every lesson from its one source.

    src/NN_name.md  ->  NN_name.ipynb             learner, English
                        zh/NN_name.ipynb          learner, Chinese (when the source has lang-zh cells)
                        instructor/NN_name.ipynb  solutions and speaker notes, English

An edition is its source less the cells with certain tags. The learner notebook is executed once, in both languages, and
split afterwards, so the code, outputs and ids of the two are the same by construction.

    python notebooks/build.py                  build every lesson
    python notebooks/build.py 02_rnn           build one; `02` is enough
    python notebooks/build.py --check          compare the notebooks with their sources; executes nothing
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

CELL_TIMEOUT = 180  # seconds

# Fixed, so that no version or path of the machine that built a notebook gets into it.
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


class Edition(NamedTuple):
    """One edition: its folder, and the tags of the cells that it drops before and after the execution."""

    folder: str
    before: frozenset[str]
    after: frozenset[str] = frozenset()


LEARNER = frozenset({"instructor", "solution"})
EDITIONS = {
    "en": Edition("", LEARNER, frozenset({"lang-zh"})),
    "zh": Edition("zh", LEARNER, frozenset({"lang-en"})),
    "instructor": Edition("instructor", frozenset({"lang-zh"})),
}


class LessonError(Exception):
    """A lesson that cannot be built; the message says where and why."""


def read_source(path: Path) -> NotebookNode:
    """Return the whole lesson, not executed, with the metadata and cell ids that its editions keep.

    An id is a hash of the cell's text: it survives edits elsewhere, and no machine or build changes it.
    """
    try:
        lesson = jupytext.read(path, fmt="md:myst")
    except Exception as error:  # jupytext raises whatever its YAML and Markdown readers raise
        raise LessonError(f"{path}: not a MyST notebook: {' '.join(str(error).split())}") from error
    lesson.metadata = nbformat.from_dict(METADATA)
    lesson.nbformat, lesson.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in lesson.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return lesson


def drop(notebook: NotebookNode, tags: frozenset[str]) -> NotebookNode:
    """Return a copy of the notebook less the cells with any of the tags."""
    return TagRemovePreprocessor(remove_cell_tags=set(tags)).preprocess(copy.deepcopy(notebook), {})[0]


def editions(lesson: NotebookNode) -> dict[str, Edition]:
    """Return the editions that a lesson has: Chinese only when some cell is written in it."""
    bilingual = any("lang-zh" in cell.metadata.get("tags", []) for cell in lesson.cells)
    return {name: edition for name, edition in EDITIONS.items() if name != "zh" or bilingual}


def notebook_path(source: Path, edition: Edition) -> Path:
    """Return where an edition of ``ROOT/src/NN_name.md`` stands."""
    return source.parents[1] / edition.folder / f"{source.stem}.ipynb"


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook from top to bottom in a fresh kernel and return it with what it printed and drew.

    Raises: LessonError: quoting the cell that failed and the end of its traceback.
    """
    runner = ExecutePreprocessor(
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,  # how the kernel cuts a stream into messages varies from run to run
        store_widget_state=False,  # model ids are random
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        executed, _ = runner.preprocess(notebook, {"metadata": {"path": str(folder)}})
    except CellExecutionError as error:
        failed = next(c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", [])))
        trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).strip().splitlines()
        raise LessonError("\n".join(["this cell failed:", "", failed.source, "", *trace[-12:]])) from error
    except (TimeoutError, RuntimeError) as error:  # a cell that hangs, a kernel that dies
        raise LessonError(str(error).strip()) from error
    executed.metadata = nbformat.from_dict(METADATA)
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop("application/vnd.jupyter.widget-view+json", None)  # names a model that is gone
            if "alt" in cell.metadata and "image/png" in output.get("data", {}):
                output.metadata["image/png"] = {"alt": cell.metadata.alt}
    return executed


def build(source: Path) -> str:
    """Build every edition of one lesson; nothing is written unless all of them ran. Return a line for the log."""
    root, start = source.parents[1], time.perf_counter()
    lesson = read_source(source)
    executed: dict[frozenset[str], NotebookNode] = {}
    texts: dict[Path, str] = {}
    for name, edition in editions(lesson).items():
        if edition.before not in executed:
            try:
                executed[edition.before] = execute(drop(lesson, edition.before), root)
            except LessonError as error:
                raise LessonError(f"{source.stem}, {name} edition: {error}") from error
        notebook = drop(executed[edition.before], edition.after)
        nbformat.validate(notebook)
        texts[notebook_path(source, edition)] = nbformat.writes(notebook) + "\n"
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)  # a reader sees the old notebook or the new one, never half of one
    return f"{source.stem}: {len(texts)} editions, {time.perf_counter() - start:.0f} s"


def check(source: Path) -> list[str]:
    """Return the differences between a lesson's notebooks and its source, one line each, executing nothing."""
    lesson = read_source(source)
    found: list[str] = []
    read: dict[str, NotebookNode] = {}
    for name, edition in EDITIONS.items():
        path = notebook_path(source, edition)
        if name not in editions(lesson):
            found += [f"{path}: the source has no lang-zh cell"] * path.exists()
        elif not path.exists():
            found.append(f"{path}: missing")
        else:
            read[name] = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
            wanted = drop(lesson, edition.before | edition.after)
            found += [f"{path}: {line}" for line in differences(wanted, read[name])]
    if not found and "zh" in read:
        en, zh = ([cell for cell in read[name].cells if cell.cell_type == "code"] for name in ("en", "zh"))
        pairs = zip(en, zh, strict=True)
        found += [f"{source.stem}: en and zh differ in the output of {a.source!r}" for a, b in pairs if a != b]
    return found


def differences(wanted: NotebookNode, got: NotebookNode) -> list[str]:
    """Return how an executed notebook departs from the edition of its source, whatever it printed."""
    found = []
    for key in ("metadata", "nbformat", "nbformat_minor"):
        if wanted.get(key) != got.get(key):
            found.append(f"{key}: {got.get(key)}, the source gives {wanted.get(key)}")
    if len(wanted.cells) != len(got.cells):
        found.append(f"{len(got.cells)} cells, the source gives {len(wanted.cells)}")
    count = 0
    for number, (a, b) in enumerate(zip(wanted.cells, got.cells, strict=False), start=1):
        keys = [key for key in ("cell_type", "source", "metadata", "id") if a.get(key) != b.get(key)]
        if b.cell_type == "code":
            count += 1
            keys += ["execution_count"] * (b.execution_count != count)
        if keys:
            found.append(f"cell {number} ({', '.join(keys)}): {a.source.strip().partition(chr(10))[0]!r}")
    return found


def strays(root: Path) -> list[str]:
    """Return the notebooks that no source makes."""
    names = {path.stem for path in (root / "src").glob("*.md")}
    paths = (path for edition in EDITIONS.values() for path in sorted((root / edition.folder).glob("*.ipynb")))
    return [f"{path}: has no source" for path in paths if path.stem not in names]


def select(root: Path, names: list[str]) -> list[Path]:
    """Return the sources that the names begin, all of them for no name. Raises: LessonError: for an unknown name."""
    sources = sorted((root / "src").glob("*.md"))
    for name in names:
        if not any(path.stem.startswith(name) for path in sources):
            raise LessonError(f"{name}: no such lesson in {root / 'src'}")
    if not sources:
        raise LessonError(f"{root / 'src'}: no lesson sources")
    return [path for path in sources if not names or any(path.stem.startswith(name) for name in names)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="LESSON", help="such as 02_rnn, or 02; none means all")
    parser.add_argument("--check", action="store_true", help="compare notebooks with sources, execute nothing")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent, help="the folder that holds src/")
    parser.add_argument("--jobs", type=int, default=2, help="lessons built at the same time (2)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        sources = select(root, options.names)
        if options.check:
            found = [line for source in sources for line in check(source)] + strays(root)
            for line in found:
                print(line)
            return int(bool(found))
    except LessonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failures = 0
    with tempfile.TemporaryDirectory() as profile:
        # The kernels inherit these: one order of sets, no start-up file and no plotting backend of the user's, and one
        # thread, because kernels that share cores slow each other down and more threads round sums differently.
        os.environ |= {"PYTHONHASHSEED": "0", "IPYTHONDIR": profile, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        os.environ["COURSE_PROGRESS"] = ""  # the solutions of an instructor edition are nobody's progress
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.pop("MPLBACKEND", None)
        with ProcessPoolExecutor(max(1, options.jobs)) as pool:
            futures = [pool.submit(build, source) for source in sources]
        for future in futures:
            try:
                print(future.result(), flush=True)
            except LessonError as error:
                failures += 1
                print(f"error: {error}\n", file=sys.stderr, flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
