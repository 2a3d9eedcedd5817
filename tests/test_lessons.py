"""Every committed notebook equals its source and obeys the rules of a lesson; each rule finds a planted violation."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path

import lesson_rules
import nbformat
import pytest
from lesson_rules import Lesson
from nbformat import NotebookNode
from speaker_notes import speaker_notes
from tiny_lesson import NOTEBOOKS, build_tiny, builder, load, read

RULES = [*lesson_rules.RULES, speaker_notes]
SOURCES = sorted((NOTEBOOKS / "src").glob("*.md"))

every_lesson = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


# ------------------------------------------------------------------------------------------------ the committed lessons


def test_there_are_lessons_and_no_stray_notebooks():
    assert SOURCES, "notebooks/src holds no lesson"
    assert builder.strays(NOTEBOOKS) == []


@every_lesson
def test_notebooks_equal_their_source(source):
    assert builder.check(source) == [], "run: make lessons"


@every_lesson
def test_notebooks_are_valid_and_small(source):
    for edition in builder.editions(builder.read_source(source)).values():
        path = builder.notebook_path(source, edition)
        nbformat.validate(read(path))
        assert path.stat().st_size <= lesson_rules.BYTES, path


@every_lesson
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(source, rule):
    assert rule(load(source)) == [], rule.__doc__


# ------------------------------------------------------------------------------------------------------------ the rules


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The source of a tiny lesson that has been built."""
    return build_tiny(tmp_path_factory.mktemp("tiny"))


def test_the_tiny_lesson_obeys_every_rule(tiny):
    assert {rule.__name__: rule(load(tiny)) for rule in RULES} == {rule.__name__: [] for rule in RULES}


def cell(lesson: Lesson, text: str, edition: str = "en") -> NotebookNode:
    """Return the first cell of an edition (or of the source) that contains the text."""
    notebook = lesson.source if edition == "source" else lesson.editions[edition]
    return next(cell for cell in notebook.cells if text in cell.source)


def say(text: str, **metadata) -> NotebookNode:
    """Return a text cell."""
    return nbformat.v4.new_markdown_cell(text, metadata=metadata)


def setter(text: str, edition: str = "en", **values):
    """Return a violation: the cell with the text gets other values."""
    return lambda lesson: cell(lesson, text, edition).update(values)


def replacer(text: str, new: str, edition: str = "en", where: str | None = None):
    """Return a violation: in a cell, the text is replaced."""

    def plant(lesson: Lesson) -> None:
        target = cell(lesson, where or text, edition)
        target.source = target.source.replace(text, new)

    return plant


def tagger(text: str, *tags: str, edition: str = "en"):
    """Return a violation: the cell with the text gets these tags."""
    return lambda lesson: cell(lesson, text, edition).metadata.update(tags=list(tags))


def tag_all_ignored(lesson: Lesson) -> None:
    for number in range(10):
        tagger(f"step = {number}", "nbval-ignore-output")(lesson)
        cell(lesson, f"step = {number}").source += "\nassert True"


def drop_where(text: str, edition: str):
    """Return a violation: the cell with the text is missing."""

    def plant(lesson: Lesson) -> None:
        notebook = lesson.source if edition == "source" else lesson.editions[edition]
        notebook.cells.remove(cell(lesson, text, edition))

    return plant


def long_median(lesson: Lesson) -> None:
    for c in lesson.editions["en"].cells:
        if c.cell_type == "code":
            c.source += "\nx = 1" * 6


def same_check(lesson: Lesson) -> None:
    cell(lesson, "not written", "instructor").outputs = cell(lesson, "not written").outputs


def over_budget(lesson: Lesson) -> None:
    lesson.name = "00_start_here"  # which may take ten minutes
    replacer("2 min", "9 min", "instructor", "It goes on")(lesson)
    replacer("5 minutes", "12 minutes")(lesson)


def print_text(text: str):
    return setter("step = 3", outputs=[nbformat.v4.new_output("stream", text=text)])


def derivation(code: str) -> list[NotebookNode]:
    """Return a displayed derivative and a cell below it."""
    return [say(r"$$ \frac{\mathrm dL}{\mathrm dx} = 2 \tag{99.1} $$"), nbformat.v4.new_code_cell(code)]


def derive(code: str):
    return lambda lesson: lesson.editions["en"].cells.extend(derivation(code))


ERROR = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
ONE = "one third"  # a cell that prints
VIOLATIONS = {
    "number_of_cells": [
        lambda lesson: lesson.editions["en"].cells.extend(say("more") for _ in range(30)),
        lambda lesson: lesson.editions["en"].cells.__delitem__(slice(3, 20)),
        setter("step = 3", source=" \n"),
    ],
    "length_of_code": [
        setter("step = 3", source="x = 1\n" * 26),
        setter("return 2", "instructor", source="x = 1\n" * 26),
        long_median,
    ],
    "length_of_text": [
        setter("A line rises", "source", source="word " * 91),
        setter("A line rises", "source", source="a line\n<details>" + "word " * 91 + "</details>"),
        setter("Ask what", "source", source="$a$ well-known " * 46),
        setter("小结", "source", source="字" * 181),
    ],
    "ignored_outputs": [tag_all_ignored, replacer("assert id(plt) > 0", "# assert")],
    "forbidden_code": [
        replacer("step = 3", "step = 3;  "),
        replacer("step = 3", "from IPython.display import clear_output"),
        replacer("step = 3", "%time step = 3"),
        replacer("step = 3", "%%timeit\nstep = 3"),
        replacer("step = 3", "interact(f)"),
    ],
    "figures": [
        replacer("plt.show()", ""),
        lambda lesson: cell(lesson, "plt.show").metadata.pop("alt"),
        lambda lesson: cell(lesson, "plt.show").metadata.update(alt=" "),
        lambda lesson: cell(lesson, "plt.show").outputs[0].metadata.clear(),
        lambda lesson: cell(lesson, "step = 3").metadata.update(alt="What was a picture once."),
        replacer("step = 3", "plt.show()"),
    ],
    "execution": [
        setter("step = 3", outputs=[ERROR]),
        setter("step = 3", execution_count=99),
        setter("step = 3", "zh", execution_count=None),
    ],
    "printed_digits": [print_text(t) for t in ("loss 1.234", "99.87%", "1.234e-5", "1,234.5", "-0.01234", "[12.50]")],
    "exercises": [
        replacer("raise NotImplementedError", "pass", "source"),
        replacer("double", "treble", "source", where="return 2"),
        drop_where("return 2", "source"),
        drop_where("not written", "source"),
        lambda lesson: lesson.source.cells.append(copy.deepcopy(cell(lesson, "return 2", "source"))),
        replacer("easy", "fun", "source"),
        replacer("2 minutes", "soon", "source"),
        replacer("<details", "<p", "source"),
        replacer("Exercise", "Task", "source"),
        same_check,
        setter("not written", outputs=[]),
    ],
    "heading_order": [
        replacer("## Symbols", "#### Symbols"),
        replacer("## Symbols", "# Symbols"),
        replacer("# 99", "## 99"),
        replacer("## 小结", "### 小结", "zh"),
        lambda lesson: lesson.editions["en"].cells.insert(0, say("first")),
    ],
    "opening_and_closing": [
        replacer("**Promise**", "**Pledge**"),
        replacer("5 minutes", "short"),
        replacer("## Sources", "## Links"),
        replacer("## Sources", "## Sources\n\n## More"),
    ],
    "tags_of_editions": [
        tagger("step = 3", "solution"),
        tagger("step = 3", "instructor", edition="zh"),
        tagger("A line rises", "lang-zh", edition="instructor"),
        tagger("step = 3", "hide-input", edition="source"),
        lambda lesson: cell(lesson, "step = 3").metadata.update(slideshow={"slide_type": "page"}),
    ],
    "languages": [
        drop_where("小结", "source"),
        drop_where("A line rises", "source"),
        replacer("y = 2x", "y = 3x", "source"),
        lambda lesson: lesson.source.cells.append(say("Both read this.")),
    ],
    "derivatives_are_executed": [
        lambda lesson: lesson.editions["en"].cells.append(say(r"$$ \partial y / \partial x = 2 $$")),
        lambda lesson: lesson.editions["en"].cells.append(say(r"$$ y = 2x \tag{99.2} $$")),
        derive("# no number\nassert True"),
        derive("x = 1  # (99.1)"),
        derive("assert True  # (99.10)"),
        derive("x = 1  # (99.1)\nprint('assert')"),
        lambda lesson: lesson.editions["en"].cells.extend(reversed(derivation("assert True  # (99.1)"))),
    ],
    "speaker_notes": [
        drop_where("It goes on", "instructor"),
        lambda lesson: lesson.editions["instructor"].cells.append(say("**1 min · core.** More.", tags=["instructor"])),
        replacer("2 min · core", "3 min · core", "instructor", where="It goes on"),
        replacer("2 min · core", "2 min · vital", "instructor", where="It goes on"),
        replacer("**2 min · core.** ", "", "instructor", where="Ask what"),
        replacer("**Ask:**", "Ask:", "instructor"),
        replacer("**Usual wrong answer:**", "**Wrong:**", "instructor"),
        replacer("**If skipped:**", "Then", "instructor"),
        replacer("and 2 for", "and 3 for"),
        over_budget,
    ],
}


def test_every_rule_has_a_violation_to_find():
    assert list(VIOLATIONS) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize(
    ("rule", "number"), [(rule, n) for rule in RULES for n in range(len(VIOLATIONS.get(rule.__name__, [])))]
)
def test_rule_finds_its_violation(tiny, rule, number):
    lesson = load(tiny)
    VIOLATIONS[rule.__name__][number](lesson)
    assert rule(lesson)


@pytest.mark.parametrize(
    "text", ["loss 1.23", "0.00123", "1,115,394 characters", "Python 3.11.7", "1.25e-10", "12.5 %", "CPython 3.13", "-0.333"]
)
def test_numbers_that_may_be_printed(tiny, text):
    lesson = load(tiny)
    print_text(text)(lesson)
    assert lesson_rules.printed_digits(lesson) == []


@pytest.mark.parametrize(
    "code", ["assert True  # (99.1)", "# (99.1) and (99.2)\nassert True", "equation_99_1 = 2\nassert True"]
)
def test_ways_to_execute_an_equation(tiny, code):
    lesson = load(tiny)
    derive(code)(lesson)
    assert lesson_rules.derivatives_are_executed(lesson) == []
    assert lesson_rules.equation_table(lesson) == [("99.1", f"[None] {code.partition(chr(10))[0]}")]
    assert not lesson_rules.is_derivative(r"$$ J = \mathrm{diag}(f) W \tag{99.1} $$")


def test_the_searches_behind_lesson_03_still_find_its_functions():
    spec = importlib.util.spec_from_file_location("lesson_03", NOTEBOOKS.parent / "docs" / "measurements" / "lesson_03.py")
    searches = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(searches)
    assert set(searches.lesson()) >= searches.NAMES
    assert 1 < searches.reach(4.0, seed=0)[0] < searches.reach(4.0, seed=0)[1]
    error, steps = searches.final_error("lstm", 2.0, 8, 2e-2, seed=0, steps=30, H=4)
    assert 0 < error < 1 and steps == 30


def test_what_counts_as_words():
    text = (
        "A [long link](https://a.b/c) is `f(a, b)`, $x + y$.\n\n| a | b |\n|---|---|\n\n$$ a + b $$\n\n```python\nx = 1\n```\n"
    )
    assert [lesson_rules.words(part) for part in lesson_rules.prose(text)] == [6]
    assert [lesson_rules.words(part) for part in lesson_rules.prose("Why?\n<details>So it is.</details>")] == [1, 3]


# --------------------------------------------------------------------------------------------------- what nbval sanitises


def sanitise(text: str) -> str:
    """Return the text as nbval compares it."""
    from nbval.plugin import get_sanitize_patterns

    for pattern, replacement in get_sanitize_patterns((Path(__file__).parent / "nbval_sanitize.cfg").read_text("utf-8")):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<object at 0x7f3a2b1c4d50>", "<object at 0x7f0000000010>"),
        ("/tmp/ipykernel_12/345.py:3: UserWarning", "/tmp/ipykernel_9/1.py:3: UserWarning"),
        (" 50%|█████     | 5/10 [00:01<00:01, 4.9it/s]", " 51%|█████▏    | 5/10 [00:09<00:00, 99it/s]"),
        ("took 1.3 s", "took 12 s"),
        ("on NVIDIA GeForce RTX 4090", "on NVIDIA H200"),
    ],
)
def test_what_a_machine_decides_is_not_compared(one, other):
    assert sanitise(one) == sanitise(other)


@pytest.mark.parametrize("text", ["loss 1.23", "1.2e-10", "[0.1, 0.2]", "shape (3, 4)", "50 % of 100", "x = 0x1f", "3 steps"])
def test_what_a_lesson_computes_is_compared(text):
    assert sanitise(text) == text
