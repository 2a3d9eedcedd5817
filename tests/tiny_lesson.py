"""A lesson small enough to build inside a test, and the builder to build it with."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
from lesson_rules import Lesson
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

spec = importlib.util.spec_from_file_location("lesson_builder", NOTEBOOKS / "build.py")
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)

TINY = """\
---
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

+++ {"tags": ["lang-en"], "slideshow": {"slide_type": "slide"}}

# 99 · Tiny

| | |
|---|---|
| **Promise** | You will see a line. |
| **Prerequisites** | none |
| **Time** | 5 minutes, and 2 for the exercises |
| **Hardware** | any |

+++ {"tags": ["lang-zh"]}

# 99 · 小课

一条直线。

+++ {"tags": ["instructor"], "slideshow": {"slide_type": "notes"}}

**2 min · core.** Ask what a line is.

+++ {"tags": ["lang-en"]}

## A line

+++ {"tags": ["lang-zh"]}

## 直线

+++ {"tags": ["instructor"], "slideshow": {"slide_type": "notes"}}

**2 min · core.** It goes on.

**Ask:** "Where does it end?"

**Usual wrong answer:** at the frame; the frame cuts it.

```{code-cell} ipython3
import matplotlib.pyplot as plt

print(f"one third is {1 / 3:.3f}")
```

```{code-cell} ipython3
:alt: "A line: it rises from (0, 0) to (1, 1)."

plt.plot([0, 1], [0, 1])
plt.show()
```

```{code-cell} ipython3
:tags: [nbval-ignore-output]

print("at", id(plt))
assert id(plt) > 0
```

FILLER

+++ {"tags": ["lang-en"]}

## Exercise 99.1: double (easy, 2 minutes)

$$ y = 2x $$

<details><summary>Hint</summary>Add it to itself.</details>

+++ {"tags": ["lang-zh"]}

## 练习 99.1 加倍

$$ y = 2x $$

```{code-cell} ipython3
:tags: [exercise]

def double(x):
    raise NotImplementedError
```

```{code-cell} ipython3
:tags: [solution]

def double(x):
    return 2 * x
```

```{code-cell} ipython3
:tags: [check]

try:
    print("✓ double" if double(2) == 4 else "✗ double")
except NotImplementedError:
    print("○ double: not written yet")
```

+++ {"tags": ["lang-en"]}

## Summary

A line rises.

## Symbols

## What this cannot do

## Sources

+++ {"tags": ["lang-zh"]}

## 小结

## 符号

## 局限

## 出处

+++ {"tags": ["instructor"], "slideshow": {"slide_type": "notes"}}

**1 min · optional.** It rose. **If skipped:** say so.
""".replace("FILLER", "\n\n".join(f"```{{code-cell}} ipython3\nstep = {n}\n```" for n in range(27)))


def read(path: Path) -> NotebookNode:
    """Return a notebook exactly as it stands in its file."""
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)


def load(source: Path) -> Lesson:
    """Return a lesson with all of its notebooks."""
    lesson = builder.read_source(source)
    paths = {name: builder.notebook_path(source, edition) for name, edition in builder.editions(lesson).items()}
    return Lesson(source.stem, lesson, {name: read(path) for name, path in paths.items()})


def write_tiny(root: Path, text: str = TINY) -> Path:
    """Write the tiny lesson below a root of its own and return its source."""
    source = root / "src" / "99_tiny.md"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text, encoding="utf-8")
    return source


def run_builder(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the builder as its users do."""
    command = [sys.executable, NOTEBOOKS / "build.py", "--root", root, "--jobs", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)


def files(root: Path) -> dict[str, bytes]:
    """Return the notebooks below a root."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.ipynb")}


def build_tiny(root: Path) -> Path:
    """Write and build the tiny lesson below a root, and return its source."""
    source = write_tiny(root)
    result = run_builder(root)
    assert result.returncode == 0, result.stderr
    return source
