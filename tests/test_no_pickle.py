"""No file of this course is ever unpickled: unpickling runs whatever its author wrote. Every source is searched for it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {"pickle", "_pickle", "cPickle", "pickletools", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"}
ANYWHERE = {"read_pickle", "to_pickle"}  # pandas, polars
METHODS = {"__reduce__", "__reduce_ex__", "__setstate__"}

ALLOWED = {
    # A pickle that leaves a trace if it is ever executed: no loader of the course may do so.
    "tests/test_checkpoint.py": {"pickle", "__reduce__"},
    # A learner who keeps a state_dict with torch's own functions can: weights_only executes nothing.
    "tests/test_torch_lstm.py": {"torch.save", "torch.load"},
}


def pickling(source: str) -> set[str]:
    """What in a source pickles, unpickles, or says how to: under any name that it was imported by."""
    names: dict[str, str] = {}  # what a name of this source stands for
    found: set[str] = set()

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
                found |= {first} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {(node.module or "").partition(".")[0]} & MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            found |= {dotted(node)} & CALLS
        if isinstance(node, ast.Attribute):
            found |= {node.attr} & (ANYWHERE | METHODS)
        if isinstance(node, ast.FunctionDef):
            found |= {node.name} & METHODS
        if isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg == "allow_pickle" and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                    found.add("allow_pickle")
            if dotted(node.func).rpartition(".")[2] in ("import_module", "__import__", "importorskip") and node.args:
                found |= {getattr(node.args[0], "value", "")} & MODULES
    return found


def sources() -> Iterator[tuple[str, str]]:
    """Every Python file of the repository, and the code of every lesson and page."""
    for path in sorted(ROOT.rglob("*")):
        name = path.relative_to(ROOT)
        if any(part.startswith(".") or part in ("build", "runs") for part in name.parts):
            continue
        if path.suffix == ".py":
            yield name.as_posix(), path.read_text(encoding="utf-8")
        elif path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            lines = "\n".join(re.findall(r"^```(?:\{code-cell\}|python|py\b).*?\n(.*?)^```", text, re.M | re.S)).splitlines()
            code = [line for line in lines if not line.startswith((":", "---", "tags:", "%", "!"))]
            yield name.as_posix(), "\n".join(code)


def test_nothing_is_pickled():
    found = {name: uses for name, code in sources() if (uses := pickling(code))}
    assert found == ALLOWED


def test_every_source_is_searched():
    names = {name for name, code in sources() if len(code) > 200}
    assert {"course_lib/archive.py", "tests/test_no_pickle.py", "notebooks/build.py", "benchmarks/generation.py"} <= names
    assert {f"notebooks/src/{path.name}" for path in (ROOT / "notebooks" / "src").glob("*.md")} <= names
    assert len([name for name in names if name.startswith("course_lib/")]) > 60


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", "pickle"),
        ("import os, pickle as p", "pickle"),
        ("from pickle import loads", "pickle"),
        ("def f():\n    from dill.source import x", "dill"),
        ("import joblib", "joblib"),
        ("import shelve", "shelve"),
        ("import marshal", "marshal"),
        ("import importlib\nimportlib.import_module('pickle')", "pickle"),
        ("__import__('marshal')", "marshal"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("import torch as t\nt.save({}, 'x')", "torch.save"),
        ("from torch import load as get\nget('x')", "torch.load"),
        ("import torch\nread = torch.load", "torch.load"),
        ("import torch.jit\ntorch.jit.load('x')", "torch.jit.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
        ("import numpy as np\nnp.load('x', allow_pickle=flag)", "allow_pickle"),
        ("import pandas\npandas.read_pickle('x')", "read_pickle"),
        ("frame.to_pickle('x')", "to_pickle"),
        ("class A:\n    def __reduce__(self): return int, ()", "__reduce__"),
        ("class A:\n    def __setstate__(self, state): pass", "__setstate__"),
        ("x.__reduce_ex__(2)", "__reduce_ex__"),
    ],
)
def test_the_search_finds(source, expected):
    assert pickling(source) == {expected}


@pytest.mark.parametrize(
    "source",
    [
        "import json, torch\njson.load(file)\ntorch.tensor(1)\nmodel.save('x')",
        "import numpy as np\nnp.load('x')\nnp.load('x', allow_pickle=False)",
        "from course_lib import checkpoint\ncheckpoint.load('x')",
        "'''Never unpickles.'''  # pickle",
    ],
)
def test_the_search_passes_over(source):
    assert pickling(source) == set()
