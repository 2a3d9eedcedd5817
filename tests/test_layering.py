"""The table in the docstring of ``course_lib`` is true: it lists every module once, and imports go to lower ranks only."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import course_lib

FOLDER = Path(course_lib.__file__).parent
MODULES = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
RANKS = [
    (name, int(rank)) for rank, names in re.findall(r"^ +rank (\d+) +(.+)$", course_lib.__doc__, re.M) for name in names.split()
]
RANK = dict(RANKS)

# Modules that are not NumPy's.
TORCH = {name for name in MODULES if name.startswith(("torch_", "classifier", "translat"))} - {"torch_book", "classifier_book"}
TORCH |= {"attention", "seq2seq"}
DRAWS = {"plotting", "diagrams", "portraits", "sampling_plots"}  # modules that import matplotlib
DRAWS |= {"explorer", "sampling_explorer", "gate_explorer", "gradient_explorer"}
EXTRA_TESTS = {"faults", "parity", "layering", "lessons", "build", "setup", "laws", "mutants"}  # of no single module
EXTRA_TESTS |= {"no_pickle", "lstm_speed", "sampling_laws", "cover", "site", "site_docstrings", "slides", "syllabus"}
NO_BEHAVIOUR = {"errors"}  # modules that hold nothing to test


def imports(tree, lazy=True):
    """Yield (first name, the names below it) of each import; without ``lazy``, only of those that run when the module does."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".", 1)) if "." in alias.name else (alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["course_lib" if node.level else "", node.module or ""]))
            head, _, rest = module.partition(".")
            yield from ((head, rest or alias.name) for alias in node.names)
        elif lazy or not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(node)):
            yield from imports(node, lazy)


def _for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def inner(source):
    """The modules of course_lib that a source imports, anywhere."""
    return {rest.split(".")[0] for head, rest in imports(ast.parse(source)) if head == "course_lib"} & MODULES


def outer(source):
    """The packages that a source imports when it is imported itself."""
    return {head for head, _ in imports(ast.parse(source), lazy=False)}


def source(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def loaded_by(code):
    """Packages in memory after a new Python has run the code."""
    report = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_the_table_lists_every_module_once():
    assert sorted(name for name, _ in RANKS) == sorted(MODULES)
    assert [rank for _, rank in RANKS] == sorted(rank for _, rank in RANKS)
    assert {rank for _, rank in RANKS} == set(range(max(RANK.values()) + 1))


@pytest.mark.parametrize("name", sorted(MODULES & set(RANK)))
def test_imports_go_to_lower_ranks(name):
    upwards = {other: RANK.get(other, "unknown") for other in inner(source(name)) if not RANK.get(other, 99) < RANK[name]}
    assert not upwards, f"{name} has rank {RANK[name]} and imports from these ranks: {upwards}"


@pytest.mark.parametrize("name", sorted(MODULES - TORCH))
def test_numpy_modules_do_not_import_torch(name):
    heavy = {"torch", *([] if name in DRAWS else ["matplotlib"])}
    assert not outer(source(name)) & heavy


def test_the_package_itself_imports_nothing():
    assert not list(imports(ast.parse(source("__init__"))))


def test_the_reader_of_imports_sees_them_everywhere():
    hidden = """
import numpy as np, os.path
def f():
    from course_lib import cells, __version__
    class A:
        import course_lib.layers as x
try:
    from course_lib.text import CharTokenizer
except ImportError:
    if True:
        from . import shapes
        from .trees import leaves
if TYPE_CHECKING:
    import torch
async def g():
    import matplotlib
class B:
    import json
"""
    assert inner(hidden) == {"cells", "layers", "text", "shapes", "trees"}
    assert outer(hidden) == {"numpy", "os", "course_lib", "json"}


def test_numpy_modules_load_neither_torch_nor_matplotlib():
    names = sorted(MODULES - TORCH - DRAWS)
    loaded = loaded_by("\n".join(f"import course_lib.{name}" for name in names))
    assert "numpy" in loaded
    assert not loaded & {"torch", "matplotlib"}


def test_drawing_does_not_load_torch():
    assert "torch" not in loaded_by("\n".join(f"import course_lib.{name}" for name in sorted(DRAWS)))


def test_help_loads_nothing_heavy():
    run = "import sys; sys.argv = ['course', '--help']\nfrom course_lib.cli import main\ntry: main()\nexcept SystemExit: pass"
    loaded = loaded_by(run)
    assert "typer" in loaded
    assert not loaded & {"torch", "matplotlib", "numpy", "pooch"}
    assert not loaded_by("import course_lib") & {"numpy", "typer"}


def test_each_module_has_its_test_file():
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert not tested & NO_BEHAVIOUR
    assert (MODULES - NO_BEHAVIOUR) ^ (tested - EXTRA_TESTS) == set()  # without a test file, or a test file without a module
