"""From a lesson to a notebook of slides: which cells are shown, where a slide ends, where the speaker notes go.

The result is a notebook of *pieces* (a heading, some paragraphs, code, printed text, a figure, a note), whose
``slideshow.slide_type`` nbconvert's exporter of slides understands. A section of the lesson, from one heading to the next, is
one column of slides: the first with the heading and its text, the others below it under the same heading, set smaller.

    shown      text, code with its output, the stubs of exercises
    not shown  imports and the choice of a style, the checks of exercises (they say "not solved yet"), cells marked ``skip``
"""

from __future__ import annotations

import ast
import re
from itertools import zip_longest
from typing import NamedTuple

import cut
import heights
import nbformat
from nbformat import NotebookNode

HEADING = re.compile(r"^(#{1,2}) +(.+?)\s*$", flags=re.MULTILINE)
MINUTES = re.compile(r"\*\*(\d+) min\b")
FULL = 1.1  # several pieces on a slide may be this much too high: they are made a little smaller
PRINTED = 1.2  # code with what it printed may be this much too high


class PlanError(Exception):
    """A lesson that cannot become slides; the message says where and why."""


class Piece(NamedTuple):
    """What stands on a slide as one: a cell without outputs, or outputs without their source; and its height."""

    cell: NotebookNode
    height: float
    kind: str  # text, code, output, figure


class Section(NamedTuple):
    """A heading, the pieces up to the next one, where a new slide is demanded, and the notes."""

    level: int
    title: str
    pieces: list[Piece]
    breaks: set[int]
    notes: list[str]


def tags(cell: NotebookNode) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.metadata.get("tags", []))


def slide_type(cell: NotebookNode) -> str:
    """Return what the lesson says about a cell and slides; "-" if nothing."""
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def without_imports(source: str) -> str:
    """Return code less the imports and the choice of a style at its beginning: nobody needs them on a wall."""
    try:
        body = ast.parse(re.sub(r"^[%!].*", "pass", source, flags=re.MULTILINE)).body
    except SyntaxError:  # more of IPython than a magic on a line of its own
        return source
    for node in body:
        if not isinstance(node, ast.Import | ast.ImportFrom) and not ast.unparse(node).startswith("plt.style.use("):
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            return "\n".join(source.splitlines()[first - 1 :]) if node is not body[0] else source
    return ""


def is_shown(cell: NotebookNode) -> bool:
    """Whether a cell of the learner edition is on a slide."""
    hidden = slide_type(cell) in {"skip", "notes"} or "check" in tags(cell)
    return not hidden and bool(without_imports(cell.source).strip() if cell.cell_type == "code" else cell.source.strip())


def sections(learner: NotebookNode, instructor: NotebookNode) -> list[Section]:
    """Return the lesson's sections: the learner edition's cells, and the notes of the instructor edition.

    Raises: PlanError: for text before the first heading, or a note under a heading that the learner edition lacks.
    """
    found: list[Section] = []
    for cell in learner.cells:
        if not is_shown(cell):
            continue
        parts = [(None, cell.source)] if cell.cell_type == "code" else _split_at_headings(cell.source)
        for heading, body in parts:
            if heading:
                found.append(Section(len(heading[0]), heading[1], [], set(), []))
            if not found:
                raise PlanError(f"the cell {cell.id} stands before the first heading")
            section = found[-1]
            if slide_type(cell) == "subslide" and not heading:
                section.breaks.add(len(section.pieces))
            section.pieces.extend(_pieces(cell, body))
    by_title = {section.title: section for section in found}
    title = ""
    for cell in instructor.cells:
        if cell.cell_type != "markdown":
            continue
        if slide_type(cell) == "notes":
            if title not in by_title:
                raise PlanError(f"the note {cell.id} stands under no heading of the learner edition")
            by_title[title].notes.append(cell.source)
        else:
            title = next((heading[1] for heading, _ in reversed(_split_at_headings(cell.source)) if heading), title)
    return found


def _split_at_headings(markdown: str) -> list[tuple[tuple[str, str] | None, str]]:
    """Return a cell's parts, each with the marks and the text of the heading above it; fenced code has no headings."""
    found: list[tuple[tuple[str, str] | None, list[str]]] = [(None, [])]
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading:
            found.append(((heading[1], heading[2]), []))
        else:
            found[-1][1].append(line)
    parts = [(heading, "\n".join(lines).strip()) for heading, lines in found]
    return [(heading, body) for heading, body in parts if heading or body]


def _pieces(cell: NotebookNode, body: str) -> list[Piece]:
    """Return the pieces of one cell, or of the part of a text cell under one heading. Raises: PlanError: for a failed cell."""
    if cell.cell_type != "code":
        return [_piece(cell, "text", source=part) for part in cut.text(body)] if body else []
    found = [_piece(cell, "code", source=part) for part in cut.code(without_imports(cell.source))]
    for output in cell.outputs:
        if output.output_type == "error":
            raise PlanError(f"the cell {cell.id} failed with {output.ename}")
        data = output.get("data", {})
        if output.output_type == "stream":
            found += [_piece(cell, "output", outputs=[{**output, "text": text}]) for text in cut.printed(output.text)]
        elif "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt") or cell.metadata.get("alt", "")
            shown = {**output, "data": {"image/png": data["image/png"]}, "metadata": {"image/png": {"alt": alt}}}
            found.append(_piece(cell, "figure", outputs=[shown]))
        elif data:
            found.append(_piece(cell, "output", outputs=[output]))
    return found


def _piece(cell: NotebookNode, kind: str, source: str = "", outputs: list[dict] | None = None) -> Piece:
    new = nbformat.from_dict({"cell_type": cell.cell_type, "source": source, "metadata": {"tags": sorted(tags(cell))}})
    new.metadata.slideshow = {"slide_type": "fragment" if slide_type(cell) == "fragment" else "-"}
    new.metadata.lesson_cell = cell.id
    if kind == "text":
        return Piece(new, heights.prose(source), kind)
    new.execution_count, new.outputs = None, nbformat.from_dict(outputs or [])
    if kind == "code":
        new.metadata.columns = heights.columns(source)
        return Piece(new, heights.code(source), kind)
    new.metadata.transient = {"remove_source": True}
    if kind == "figure":
        return Piece(new, heights.figure(new.outputs[0].data["image/png"]), kind)
    text = new.outputs[0].get("text") or new.outputs[0].get("data", {}).get("text/plain", "")
    new.metadata.columns = heights.columns(text)
    return Piece(new, heights.code(text), kind)


def _groups(section: Section) -> list[list[Piece]]:
    """Return the pieces in groups that stay together: code with what it printed, if both fit on one slide."""
    found: list[list[Piece]] = []
    for number, piece in enumerate(section.pieces):
        last = found[-1] if found else []
        same = last and last[0].kind == "code" and piece.cell.metadata.lesson_cell == last[0].cell.metadata.lesson_cell
        fits = _height(last) + piece.height <= heights.ROOM_AGAIN * PRINTED
        if piece.kind == "output" and same and fits and number not in section.breaks:
            last.append(piece)
        else:
            found.append([piece])
    return found


def _height(pieces: list[Piece]) -> float:
    return sum(piece.height for piece in pieces)


def slides(section: Section) -> list[list[Piece]]:
    """Distribute a section's pieces over slides: as long as they fit, they stand together."""
    found: list[list[Piece]] = [[]]
    groups, number = _groups(section), 0
    for group, after in zip_longest(groups, groups[1:], fillvalue=[]):
        slide, first = found[-1], group[0]
        needed = _height(group)
        if first.kind == "text" and any(piece.kind != "text" for piece in slide) and after and after[0].kind == "code":
            needed += _height(after)  # text behind code introduces what follows, and is not torn from it
        room = (heights.ROOM if len(found) == 1 else heights.ROOM_AGAIN) * (1 if first.kind == "figure" else FULL)
        if slide and (_height(slide) + needed > room or number in section.breaks):
            found.append([])
        found[-1].extend(group)
        number += len(group)
    return found


def deck(learner: NotebookNode, instructor: NotebookNode) -> NotebookNode:
    """Return the notebook of slides: what nbconvert turns into a deck. Raises: PlanError."""
    cells: list[NotebookNode] = []
    for section in sections(learner, instructor):
        columns = slides(section)
        minutes = sum(int(found) for note in section.notes for found in MINUTES.findall(note)[:1])
        for number, pieces in enumerate(columns):
            heading = nbformat.from_dict({"cell_type": "markdown", "source": "#" * section.level + " " + section.title})
            heading.metadata = {"again": number > 0, "slideshow": {"slide_type": "subslide" if number else "slide"}}
            if minutes:  # the pacing of the notes view; the first slides get the seconds that are left over
                seconds = minutes * 60 // len(columns) + (number < minutes * 60 % len(columns))
                heading.metadata["slideshow"]["data"] = {"timing": str(seconds)}
            cells.append(nbformat.from_dict(heading))
            if number == 0:
                notes = {"slideshow": {"slide_type": "notes"}}
                cells += [nbformat.v4.new_markdown_cell(note, metadata=notes) for note in section.notes]
            cells += [piece.cell for piece in pieces]
    if not cells:
        raise PlanError("no cell to show")
    for number, cell in enumerate(cells):
        cell.id = f"piece-{number}"
    book = nbformat.v4.new_notebook(cells=cells, metadata=learner.metadata)
    book.metadata.title = cells[0].source.lstrip("# ")
    book.metadata.paced = any("data" in cell.metadata.get("slideshow", {}) for cell in cells)
    return book
