"""Turn a docstring of this project into reStructuredText.

Its form is plain (see cells.py): paragraphs; indented blocks, which are equations, tables or code; examples behind ``>>>``;
and sections such as ``Args: x: (N, D). prev: h and c.``, whose entries are found by the names of the arguments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection

import formula_tex

SECTIONS = {
    "Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Yields": "Yields", "Raises": "Raises",
    "Reference": "Reference", "References": "References",
}  # fmt: skip
Link = Callable[[str, bool], str | None]  # (a name, whether it is marked as code) -> its full name, if it has a page

_SECTION = re.compile(rf"({'|'.join(SECTIONS)}):\s+(.*)")
_HANGING = re.compile(r"(\S[^:]*):\s{2,}(.*)")
_PIECE = re.compile(r"(``[^`]+``|`[^`]+`|https?://[^\s,;)]+[\w/]|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def no_link(name: str, code: bool) -> None:
    """No name has a page."""
    return None


def escape(text: str) -> str:
    """Text whose signs mean nothing to reStructuredText."""
    return re.sub(r"([\\*`|_<>\[\]])", r"\\\1", text)


def inline(text: str, link: Link = no_link) -> str:
    """A run of text: code stays code, names that have a page become links."""
    out = []
    for piece in _PIECE.split(text):
        code = piece.startswith("`")
        name = piece.strip("`") if code else piece
        is_name = bool(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name))
        if is_name and (target := link(name, code)):
            out.append(rf"\ :py:obj:`{name} <{target}>`\ ")
        elif code:
            out.append(rf"\ ``{name}``\ ")
        elif piece.startswith("http"):
            out.append(piece)
        else:
            out.append(escape(piece))
    joined = "".join(out).strip()
    joined = re.sub(r"^\\ |\\ $", "", joined)
    return re.sub(r"^([-+•]|\d+[.)]|[A-Za-z][.)])(?=\s)", r"\\\1", joined)


def items(text: str, names: Collection[str]) -> list[tuple[str, str]]:
    """The entries of a section: ("x", "(N, D).") and so on; what stands before the first name has none.

    An entry begins at the beginning or behind a full stop, with a name and perhaps the letter of its size, or several of
    them with commas between; a colon or a full stop comes next.
    """
    if not names:
        return [("", text)]
    name = "(?:" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + r")(?: [A-Z](?![\w']))?"
    pattern = re.compile(rf"(?:^|(?<=[.;] )|(?<=[.;]\) ))({name}(?:(?:, | and ){name})*)(?:[:.]|$)(?=\s|$)")
    found = list(pattern.finditer(text))
    if not found:
        return [("", text)]
    out = [("", text[: found[0].start()].strip())] if found[0].start() else []
    for match, after in zip(found, [*found[1:], None], strict=True):
        out.append((match[1], text[match.end() : after.start() if after else None].strip()))
    return out


def bullets(entries: list[tuple[str, str]], names: Collection[str], link: Link) -> list[str]:
    """Entries as a list: the names as code, then what they mean."""
    out = []
    for name, meaning in entries:
        shown = re.sub(r"[A-Za-z_]\w*", lambda word: f"``{word[0]}``" if word[0] in names else word[0], name)
        body = inline(meaning, link)
        out.append(f"* {shown}: {body}" if shown and body else f"* {shown or body}")
    return out


def blocks(docstring: str) -> list[tuple[str, list[str]]]:
    """A docstring as (kind, lines): paragraph, indented, example, or the name of a section."""
    out: list[tuple[str, list[str]]] = []
    fresh = True  # a new block begins here
    for line in inspect.cleandoc(docstring).splitlines():
        section = _SECTION.match(line)
        if not line.strip():
            fresh = True
        elif section:
            out.append((section[1], [section[2]]))
            fresh = False
        elif fresh:
            kind = "example" if line.startswith(">>>") else "indented" if line.startswith("    ") else "paragraph"
            out.append((kind, [line]))
            fresh = False
        elif out[-1][0] == "indented" and not line.startswith(" "):
            out.append(("paragraph", [line]))
        else:
            out[-1][1].append(line)
    return out


def convert(docstring: str, names: Collection[str] = (), link: Link = no_link) -> list[str]:
    """reStructuredText of a docstring, line by line; names: those of the arguments or fields that it may explain."""
    out: list[str] = []
    fields: list[str] = []
    for kind, lines in blocks(docstring):
        if kind in SECTIONS:
            fields += _section(kind, " ".join(map(str.strip, lines)), names, link)
        elif kind == "example":
            out += [".. code-block:: pycon", "", *[f"   {line}" for line in lines], ""]
        elif kind == "indented":
            out += _indented([line[4:] for line in lines], link)
        else:
            out += [*_paragraph(lines, names, link), ""]
    return out + fields


def _section(kind: str, text: str, names: Collection[str], link: Link) -> list[str]:
    entries = items(text, names) if kind in {"Args", "Attributes"} else [("", text)]
    if len(entries) == 1 and not entries[0][0]:
        return [f":{SECTIONS[kind]}: {inline(text, link)}"]
    return [f":{SECTIONS[kind]}:", *[f"   {line}" for line in bullets(entries, names, link)], ""]


def _indented(lines: list[str], link: Link) -> list[str]:
    if formula_tex.is_display(lines):
        body, sources = formula_tex.display(lines)
        out = [".. math::", "", *[f"   {line}" for line in body.splitlines()], ""]
        return out + [line for source in sources for line in (inline(source[0].upper() + source[1:] + ".", link), "")]
    if _is_prose(lines):
        return [f"   {inline(' '.join(line.strip() for line in lines), link)}", ""]
    plain = [line.replace("``", "") for line in lines]  # marks of code mean nothing where all is code
    return [".. code-block:: text", "", *[f"   {line}" for line in plain], ""]


def _is_prose(lines: list[str]) -> bool:
    """Whether a block is a quotation: lines filled with text, with no columns."""
    return len(lines) > 1 and all(len(line) > 80 for line in lines[:-1]) and not any(re.search(r"\S {2,}\S", x) for x in lines)


def _paragraph(lines: list[str], names: Collection[str], link: Link) -> list[str]:
    if re.match(r"\d+\. ", lines[0]):
        return _numbered(lines, link)
    if any(line.startswith(" ") for line in lines) or all(map(_HANGING.match, lines)):
        return _hanging(lines, link)
    entries = items(" ".join(lines), names)
    if entries[0][0] and entries[0][1]:
        return bullets(entries, names, link)
    return [inline(" ".join(lines), link)]


def _numbered(lines: list[str], link: Link) -> list[str]:
    entries: list[str] = []
    for line in lines:
        if match := re.match(r"\d+\. (.*)", line):
            entries.append(match[1])
        else:
            entries[-1] += " " + line.strip()
    return [f"#. {inline(entry, link)}" for entry in entries]


def _hanging(lines: list[str], link: Link) -> list[str]:
    """Entries whose further lines are indented: name, colon, two spaces, meaning."""
    entries: list[list[str]] = []
    for line in lines:
        match = _HANGING.match(line)
        if match:
            entries.append([match[1], match[2]])
        elif entries:
            entries[-1][1] += " " + line.strip()
        else:
            return [inline(" ".join(map(str.strip, lines)), link)]
    return [f"* ``{name}``: {inline(meaning, link)}" for name, meaning in entries]
