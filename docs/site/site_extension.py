"""A small Sphinx extension: equations that keep their numbers and can be linked to, references that become links."""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

TAG = re.compile(r"\\tag\{([^}]+)\}")
_NUMBER = r"\d{1,2}\.\d{1,2}"
_LEADS = re.compile(
    r"\(|\b[Ee]qs?\. |\b[Ee]quations? |\b[Ll]essons? |(?<=\d)(?: and | to | or |, |-|\u2013)"
    rf"|(?P<number>{_NUMBER})(?![\d.]*\d)|(?P<lesson>\d\d)\b"
)
_LEFT_ALONE = (nodes.Inline, nodes.literal_block, nodes.title, nodes.math_block, nodes.raw)


def anchor(number: str) -> str:
    """The id of the equation with this number."""
    return "eq-" + re.sub(r"\W", "-", number)


def visit_math_block(self, node: nodes.math_block) -> None:
    """Write a display as it stands: Sphinx would put it into an environment in which numbers are not allowed."""
    formula = node.astext().strip()
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    for number in dict.fromkeys(TAG.findall(formula)):
        self.body.append(f'<span class="course-equation" id="{anchor(number)}"></span>')
    if r"\\" in formula and not re.match(r"\\begin\{", formula):
        name = "gather*" if TAG.search(formula) else "aligned"
        formula = rf"\begin{{{name}}}{formula}\end{{{name}}}"
    self.body.append(rf"\[{html.escape(formula, quote=False)}\]</div>")
    raise nodes.SkipNode


def references(text: str, equations: dict[str, str], lessons: dict[str, str]) -> list[tuple[str, str]]:
    """A text cut into (piece, target); target is "", page or page#anchor.

    A number is a reference directly behind a word such as "eqs. " or "lesson ", a bracket, or another reference and "and".
    """
    out: list[tuple[str, str]] = []
    done = end = 0  # the text that is in out; where the last lead or number ended
    kind = ""  # what a number here means
    for match in _LEADS.finditer(text):
        found, target = match[0], ""
        if match.start() == end and match["number"] and kind == "equation" and found in equations:
            target = f"{equations[found]}#{anchor(found)}"
        elif match.start() == end and match["lesson"] and kind == "lesson":
            target = lessons.get(found, "")
        elif found == "(" or found[0] in "Ee":
            kind = "equation"
        elif found[0] in "Ll":
            kind = "lesson"
        elif done != end or not done:  # "and" behind something else than a reference, or a number that is none
            kind = ""
        if target:
            out += [(text[done : match.start()], ""), (found, target)]
            done = match.end()
        end = match.end()
    return [*out, (text[done:], "")]


def link_references(app: Sphinx, doctree: nodes.document) -> None:
    """Make links of the numbers of equations and lessons in a page's text."""
    here = app.env.docname
    for text in list(doctree.findall(nodes.Text)):
        parents = [text.parent]
        while parents[-1].parent is not None:
            parents.append(parents[-1].parent)
        if any(isinstance(parent, _LEFT_ALONE) and not isinstance(parent, nodes.emphasis | nodes.strong) for parent in parents):
            continue
        pieces = references(text.astext(), app.config.course_equations, app.config.course_lessons)
        if len(pieces) > 1:
            text.parent.replace(text, [_piece(app, here, piece, target) for piece, target in pieces if piece])


def _piece(app: Sphinx, here: str, piece: str, target: str) -> nodes.Node:
    page, _, place = target.partition("#")
    if not target or (page == here and not place):
        return nodes.Text(piece)
    address = "" if page == here else app.builder.get_relative_uri(here, page)
    return nodes.reference(piece, piece, refuri=address + (f"#{place}" if place else ""), internal=True)


def set_language(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Pages in Chinese say so."""
    if page.startswith("lessons/zh/"):
        context["language"] = "zh"


def use_own_displays(app: Sphinx) -> None:
    """Let ``visit_math_block`` write the displays."""
    app.registry.html_block_math_renderers["mathjax"] = (visit_math_block, None)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Called by Sphinx."""
    app.add_config_value("course_equations", {}, "env")
    app.add_config_value("course_lessons", {}, "env")
    app.connect("builder-inited", use_own_displays, priority=900)  # behind MyST, which sets its own
    app.connect("doctree-read", link_references)
    app.connect("html-page-context", set_language)
    return {"version": str(Path(__file__).stat().st_mtime_ns), "parallel_read_safe": True, "parallel_write_safe": True}
