"""The rules of a lesson (design §6-7), each a function from a lesson to the list of its violations.

``test_lessons.py`` applies every rule to every lesson, and tests each rule against a planted violation.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from nbformat import NotebookNode

CELLS = (35, 60)
CELLS_OF = {"00_start_here": (15, 60)}  # a map and a set-up check, no derivation
CODE_LINES = 25
CODE_LINES_MEDIAN = 6
WORDS = 90
CHINESE_CHARACTERS = 180  # about 90 English words
IGNORED_SHARE = 1 / 4
DIGITS = 3
BYTES = 700_000
OPENING = ["Promise", "Prerequisites", "Time", "Hardware"]
CLOSING = ["Summary", "Symbols", "What this cannot do", "Sources"]
TAGS = {"lang-en", "lang-zh", "exercise", "solution", "check", "instructor", "nbval-ignore-output"}
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
ABSENT = {
    "en": {"solution", "instructor", "lang-zh"},
    "zh": {"solution", "instructor", "lang-en"},
    "instructor": {"lang-zh"},
}
ANNOUNCED = {  # in the text cell before an exercise
    "heading with 'Exercise'": r"^#+ .*Exercise",
    "difficulty": r"\b(easy|medium|hard)\b",
    "'<number> minutes'": r"\d+ minutes",
    "hint in <details>": "<details",
}


@dataclass
class Lesson:
    """A lesson as the rules see it: the source, not executed, and the executed editions by name (en, zh, instructor)."""

    name: str
    source: NotebookNode
    editions: dict[str, NotebookNode]

    def code(self) -> Iterator[tuple[str, NotebookNode]]:
        """Yield every code cell of every edition with a name for it; zh has the same ones as en."""
        for name in ("en", "instructor"):
            for number, cell in enumerate(self.editions[name].cells, start=1):
                if cell.cell_type == "code":
                    yield f"{name}, cell {number}", cell


def tags(cell: NotebookNode) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.metadata.get("tags", []))


def headings(notebook: NotebookNode) -> list[tuple[int, str]]:
    """Return level and text of each heading, those in fenced code left out."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [(len(marks), title.strip()) for marks, title in re.findall(r"^(#{1,6}) +(.+)$", text, flags=re.MULTILINE)]


def prose(markdown: str) -> list[str]:
    """Return what is read at one go: the text of a cell, then each folded answer by itself.

    Tables, fenced code and displayed equations are looked at, not read; an inline formula or name is one word.
    """
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--.*?-->|^ *\|.*?$", " ", markdown, flags=re.DOTALL | re.MULTILINE)
    folded = r"<details[^>]*>(.*?)</details>"
    parts = [re.sub(folded, " ", text, flags=re.DOTALL), *re.findall(folded, text, flags=re.DOTALL)]
    plain = []
    for part in parts:
        part = re.sub(r"<[^>]+>", " ", part)
        part = re.sub(r"\]\([^)]*\)", "]", part)  # a link counts as the words that are shown
        plain.append(re.sub(r"\$[^$]+\$|`[^`]+`", " formula ", part))
    return plain


def words(text: str) -> int:
    """Return the number of words, a hyphenated one or a number counting once."""
    return len(re.findall(r"[^\W_]+(?:['.,-][^\W_]+)*", text))


def lines(code: str) -> int:
    """Return the number of lines that are not blank."""
    return sum(bool(line.strip()) for line in code.splitlines())


def last_line(code: str) -> str:
    """Return the last line of a cell."""
    return code.strip().rpartition("\n")[2]


def printed(cell: NotebookNode) -> str:
    """Return all text that a cell put out."""
    outputs = cell.get("outputs", [])
    results = (o.get("data", {}) for o in outputs if o.output_type != "stream")
    shown = [data.get("text/plain", "") for data in results if "image/png" not in data]  # a picture's is its size
    return "".join([o.text for o in outputs if o.output_type == "stream"] + shown)


def find(notebook: NotebookNode, cell_id: str) -> NotebookNode:
    """Return the cell with this id, an empty one if there is none (another test says so)."""
    return next((cell for cell in notebook.cells if cell.id == cell_id), NotebookNode(outputs=[]))


def equations(markdown: str) -> list[str]:
    """Return the displayed equations of a cell."""
    return re.findall(r"\$\$.*?\$\$", markdown, flags=re.DOTALL)


def numbered(lesson: Lesson) -> list[tuple[str, list[str]]]:
    """Return each displayed equation of the learner edition with its numbers, as ``2.7``."""
    texts = [cell.source for cell in lesson.editions["en"].cells if cell.cell_type == "markdown"]
    return [(e, re.findall(r"\\tag\{(\d+\.\d+)\}", e)) for text in texts for e in equations(text)]


def is_derivative(equation: str) -> bool:
    """Whether an equation displays a derivative."""
    return bool(re.search(r"\\partial|\\mathrm(?: d|\{d\})", equation))


def naming(number: str) -> str:
    """Return the pattern of a line that names an equation."""
    return rf"#.*\({re.escape(number)}\)|equation_{number.replace('.', '_')}(?!\d)"


def executed_in(lesson: Lesson, number: str) -> NotebookNode | None:
    """Return the first code cell below equation ``number`` that names it, as ``# (2.7)`` or ``equation_2_7``."""
    below = False
    for cell in lesson.editions["en"].cells:
        below = below or (cell.cell_type == "markdown" and rf"\tag{{{number}}}" in cell.source)
        if below and cell.cell_type == "code" and re.search(naming(number), cell.source):
            return cell
    return None


def first_line(cell: NotebookNode) -> str:
    """Return the first line of a cell."""
    return cell.source.strip().partition("\n")[0]


def defined(code: str) -> set[str]:
    """Return the functions and classes that a cell defines."""
    return {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def number_of_cells(lesson: Lesson) -> list[str]:
    """Each lesson has 35 to 60 cells, none of them empty."""
    low, high = CELLS_OF.get(lesson.name, CELLS)
    cells = lesson.editions["en"].cells
    found = [f"en, cell {number} is empty" for number, cell in enumerate(cells, start=1) if not cell.source.strip()]
    return found + [f"{len(cells)} cells, expected {low} to {high}"] * (not low <= len(cells) <= high)


def length_of_code(lesson: Lesson) -> list[str]:
    """A code cell has at most 25 lines; the median is at most 6."""
    whole = [(where, len(cell.source.splitlines())) for where, cell in lesson.code()]
    found = [f"{where}: {length} lines" for where, length in whole if length > CODE_LINES]
    lengths = [lines(cell.source) for cell in lesson.editions["en"].cells if cell.cell_type == "code"]
    median = statistics.median(lengths)
    return found + [f"median {median} lines, at most {CODE_LINES_MEDIAN}"] * (median > CODE_LINES_MEDIAN)


def length_of_text(lesson: Lesson) -> list[str]:
    """A text cell has at most 90 words, and so has each folded answer; in Chinese, 180 characters."""
    found = []
    for cell in lesson.source.cells:
        for text in prose(cell.source) if cell.cell_type == "markdown" else []:
            begin = cell.source.strip()[:40]
            if "lang-zh" not in tags(cell) and words(text) > WORDS:
                found.append(f"{words(text)} words: {begin!r}")
            if "lang-zh" in tags(cell) and (count := len(re.findall(r"[\u4e00-\u9fff]", text))) > CHINESE_CHARACTERS:
                found.append(f"{count} Chinese characters: {begin!r}")
    return found


def ignored_outputs(lesson: Lesson) -> list[str]:
    """At most a quarter of the code cells go uncompared, and each of these asserts."""
    found = []
    for name in ("en", "instructor"):
        code = [cell for cell in lesson.editions[name].cells if cell.cell_type == "code"]
        ignored = [cell for cell in code if "nbval-ignore-output" in tags(cell)]
        if len(ignored) > IGNORED_SHARE * len(code):
            found.append(f"{name}: {len(ignored)} of {len(code)} code cells are ignored")
        for cell in ignored:
            if not re.search(r"^\s*assert\b", cell.source, flags=re.MULTILINE):
                found.append(f"{name}: ignored without an assert: {last_line(cell.source)!r}")
    return found


def forbidden_code(lesson: Lesson) -> list[str]:
    """No final `;`, clear_output, %time or interact(."""
    found = [f"{where}: ends in ';'" for where, cell in lesson.code() if last_line(cell.source).rstrip().endswith(";")]
    pattern = r"clear_output|^\s*%%?time\w*|\binteract\("
    for where, cell in lesson.code():
        found += [f"{where}: {text.strip()}" for text in re.findall(pattern, cell.source, flags=re.MULTILINE)]
    return found


def figures(lesson: Lesson) -> list[str]:
    """A cell that draws ends in plt.show() and says in `alt` what one sees; no other cell does either."""
    found = []
    for where, cell in lesson.code():
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        alt = str(cell.metadata.get("alt", "")).strip()
        shows = last_line(cell.source) == "plt.show()"
        if pictures and not (shows and alt):
            found.append(f"{where}: draws, without " + ("an alt" if shows else "a final plt.show()"))
        if not pictures and (shows or alt):
            found.append(f"{where}: draws nothing, but has " + ("plt.show()" if shows else "an alt"))
        if any(output.metadata.get("image/png", {}).get("alt") != cell.metadata.get("alt") for output in pictures):
            found.append(f"{where}: the alt did not reach the picture")
    return found


def execution(lesson: Lesson) -> list[str]:
    """Every cell ran, once, in order, without an error."""
    found = [f"{where}: error" for where, cell in lesson.code() if any(o.output_type == "error" for o in cell.outputs)]
    for name, notebook in lesson.editions.items():
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        if counts != list(range(1, len(counts) + 1)):
            found.append(f"{name}: execution counts {counts}")
    return found


def printed_digits(lesson: Lesson) -> list[str]:
    """A compared output prints no number with a fraction to more than 3 significant digits."""
    found = []
    number = r"(?<![\w.])(\d[\d,]*\.\d+)(?![\d.]*\.\d)"  # 1.2.3 is a version
    for where, cell in lesson.code():
        if "nbval-ignore-output" not in tags(cell):
            for text in re.findall(number, printed(cell)):
                if len(text.replace(",", "").replace(".", "").lstrip("0")) > DIGITS:
                    found.append(f"{where}: prints {text}")
    return found


def exercises(lesson: Lesson) -> list[str]:
    """Exercise, solution, check, in this order and about the same names; announced with difficulty, minutes and hints."""
    kinds = ["exercise", "solution", "check"]
    cells = [cell for cell in lesson.source.cells if cell.cell_type == "code" and tags(cell) & set(kinds)]
    order = [kind for cell in cells for kind in kinds if kind in tags(cell)]
    if order != kinds * (len(cells) // 3):
        return [f"cells are {order}, expected {kinds} for each exercise"]
    found = []
    for stub, solution, check in zip(cells[::3], cells[1::3], cells[2::3], strict=True):
        name = first_line(stub)
        before = lesson.source.cells[: lesson.source.cells.index(stub)]
        text = next((c.source for c in reversed(before) if c.cell_type == "markdown" and "lang-zh" not in tags(c)), "")
        found += [
            f"{name}: no {what} in the text before it" for what, sign in ANNOUNCED.items() if not re.search(sign, text, re.M)
        ]
        found += [f"{name}: does not raise NotImplementedError"] * ("raise NotImplementedError" not in stub.source)
        found += [f"{name}: the solution defines other names"] * (not defined(stub.source) <= defined(solution.source))
        before, after = (printed(find(lesson.editions[edition], check.id)) for edition in ("en", "instructor"))
        if not before or before == after or "✗" in after:
            found.append(f"{name}: the check prints {before!r} for the stub and {after!r} for the solution")
    return found


def heading_order(lesson: Lesson) -> list[str]:
    """One title, in the first cell; no level is skipped; Chinese has the levels of English."""
    found = []
    for name, notebook in lesson.editions.items():
        levels = [level for level, _ in headings(notebook)]
        if levels.count(1) != 1 or not notebook.cells[0].source.startswith("# "):
            found.append(f"{name}: {levels.count(1)} titles, expected one, on top of the first cell")
        found += [f"{name}: a heading of level {b} after one of level {a}" for a, b in pairwise(levels) if b > a + 1]
    if "zh" in lesson.editions:
        en, zh = ([level for level, _ in headings(lesson.editions[name])] for name in ("en", "zh"))
        found += [f"levels in en {en}, in zh {zh}"] * (en != zh)
    return found


def opening_and_closing(lesson: Lesson) -> list[str]:
    """Opens with a table of promise, prerequisites, time and hardware; closes with four sections."""
    cells = [cell.source for cell in lesson.editions["en"].cells[:3] if cell.cell_type == "markdown"]
    rows = dict(re.findall(r"^\| *\*\*(.+?)\*\* *\| *(.+?) *\|$", "\n".join(cells), flags=re.MULTILINE))
    found = [f"opening table: rows {list(rows)}, expected {OPENING}"] * (list(rows) != OPENING)
    found += ["opening table: Time has no '<number> minutes'"] * (not re.search(r"\d+ minutes", rows.get("Time", "")))
    sections = [title for level, title in headings(lesson.editions["en"]) if level == 2][-len(CLOSING) :]
    return found + [f"closing sections {sections}, expected {CLOSING}"] * (sections != CLOSING)


def tags_of_editions(lesson: Lesson) -> list[str]:
    """Only known tags and slide types; no edition has a cell that is not for its readers."""
    found = []
    for name, notebook in [("source", lesson.source), *lesson.editions.items()]:
        for cell in notebook.cells:
            slide = cell.metadata.get("slideshow", {}).get("slide_type", "-")
            wrong = tags(cell) & ABSENT.get(name, set()) | tags(cell) - TAGS | {slide} - SLIDES
            found += [f"{name}: {first_line(cell)!r} has {sorted(wrong)}"] * bool(wrong)
    return found


def languages(lesson: Lesson) -> list[str]:
    """In a bilingual lesson each English cell is followed by its Chinese one, with the same displayed equations."""
    if "zh" not in lesson.editions:
        return []
    found, cells = [], [c for c in lesson.source.cells if not tags(c) & {"instructor", "solution"}]
    for before, cell, after in zip([None, *cells], cells, [*cells[1:], None], strict=False):
        name = repr(first_line(cell))
        if "lang-en" in tags(cell):
            if after is None or "lang-zh" not in tags(after):
                found.append(f"{name}: no Chinese cell after it")
            elif equations(cell.source) != equations(after.source):
                found.append(f"{name}: its displayed equations differ in Chinese")
        elif "lang-zh" in tags(cell):
            found += [f"{name}: no English cell before it"] * (before is None or "lang-en" not in tags(before))
        elif cell.cell_type == "markdown" and any(words(text) for text in prose(cell.source)):
            found.append(f"{name}: prose without lang-en or lang-zh")
    return found


def derivatives_are_executed(lesson: Lesson) -> list[str]:
    """Equations are numbered in order, and each that displays a derivative is executed below it, by a cell that asserts."""
    lesson_number, found = int(lesson.name[:2]), []
    shown = numbered(lesson)
    tagged = [number for _, numbers in shown for number in numbers]
    wanted = [f"{lesson_number}.{k}" for k in range(1, len(tagged) + 1)]
    found += [f"equations are numbered {tagged}, expected {wanted}"] * (tagged != wanted)
    for equation, numbers in shown:
        if not is_derivative(equation):
            continue
        found += [f"a derivative without a number: {equation}"] * (not numbers)
        for number in numbers:
            cell = executed_in(lesson, number)
            if cell is None or not re.search(r"^\s*assert\b", cell.source, flags=re.MULTILINE):
                found.append(f"equation {number}: no cell below executes it with an assert and names it, as `# ({number})`")
    return found


RULES = [
    number_of_cells,
    length_of_code,
    length_of_text,
    ignored_outputs,
    forbidden_code,
    figures,
    execution,
    printed_digits,
    exercises,
    heading_order,
    opening_and_closing,
    tags_of_editions,
    languages,
    derivatives_are_executed,
]


def equation_table(lesson: Lesson) -> list[tuple[str, str]]:
    """Return (number, execution count and line of the cell that executes it) of each equation that displays a derivative."""
    derivatives = [number for equation, numbers in numbered(lesson) if is_derivative(equation) for number in numbers]
    cells = [(number, executed_in(lesson, number)) for number in derivatives]
    lines = [next(line for line in cell.source.splitlines() if re.search(naming(number), line)) for number, cell in cells]
    return [(number, f"[{cell.execution_count}] {line.strip()}") for (number, cell), line in zip(cells, lines, strict=True)]


if __name__ == "__main__":
    from tiny_lesson import NOTEBOOKS, load

    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        for number, line in equation_table(load(NOTEBOOKS / "src" / f"{notebook.stem}.md")):
            print(f"| {number} | `{line}` |")
