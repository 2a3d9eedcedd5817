"""How much room a piece of a lesson takes on a slide of 1280 x 720, estimated from its text alone.

The estimates decide where a slide is split. They need not be exact: the deck measures itself in the browser and makes a
slide that is a little too full smaller (``static/deck.js``), and the browser tests say where that is not enough. Sizes are
those of ``static/deck.css``, in pixels.
"""

from __future__ import annotations

import base64
import re
import struct
import unicodedata
from itertools import zip_longest
from math import ceil

WIDTH = 1184  # of the content: 1280 less the margins
ROOM = 572  # below the heading of a section's first slide, above the footer
ROOM_AGAIN = 598  # below the smaller heading of the slides after it
PROSE, PROSE_LINE = 28, 38
CODE, CODE_LINE = 18, 24.5
TABLE, TABLE_LINE = 24, 32
GAP = 16
CHARACTERS = 95  # in a line of prose, on average
WRAP = 128  # printed lines longer than this are wrapped, after 104 characters
WRAPPED = 104
GROWN = 1.15  # a figure is at least this much larger than in the notebook, or gets a slide of its own


def width(line: str) -> int:
    """Return the width of a line in characters of code; a Chinese one counts two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)


def columns(text: str) -> int:
    """Return the width that sets the size of code: that of the widest line, unless it is so wide that it wraps."""
    widest = max(map(width, text.splitlines()), default=1)
    return WRAPPED if widest > WRAP else max(widest, 1)


def code(text: str) -> float:
    """Return the height of code, or of printed text; long lines make its letters smaller."""
    across = columns(text)
    rows = sum(max(1, ceil(width(line) / across)) for line in text.rstrip("\n").split("\n"))
    return rows * min(CODE_LINE, CODE_LINE * (WIDTH - 36) / (0.603 * CODE * across)) + 22 + GAP


def figure(png: str) -> float:
    """Return the least height that a figure needs, from the head of its PNG file in base 64."""
    width, height = struct.unpack(">II", base64.b64decode(png[:64])[16:24])
    return min(GROWN, WIDTH / width) * height + GAP


def prose(markdown: str) -> float:
    """Return the height of blocks of Markdown, folded answers open."""
    return sum(_block(block) for block in blocks(markdown))


def blocks(markdown: str) -> list[str]:
    """Split Markdown at its blank lines, but not within fenced code, displayed equations or HTML that is still open.

    A list, and equations that follow each other line by line, are one block.
    """
    found: list[list[str]] = [[]]
    for line in markdown.strip().splitlines():
        text = "\n".join(found[-1])
        within = text.count("```") % 2 or text.count("$$") % 2 or text.count("<details") != text.count("</details>")
        if line.strip() or within:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(lines) for lines in found if lines]


def _plain(text: str) -> str:
    """Return text about as long as it looks: no tags, no addresses of links, a command of TeX as one character."""
    text = re.sub(r"\]\([^)]*\)|<[^>]*>|[*`$\[]", "", text)
    return re.sub(r"\\(?:mathrm|text|tilde|hat|bar|mathbf)\b|[{}^_]", "", re.sub(r"\\(?:left|right|[,;!])", "", text))


def _lines(text: str, characters: float = CHARACTERS) -> int:
    return max(1, ceil(len(re.sub(r"\\[a-zA-Z]+ ?", "x", _plain(text))) / characters))


def _equation(tex: str) -> float:
    rows = tex.count(r"\\") + 1
    tall = bool(re.search(r"\\frac|\\sum|\\prod|\\int|\\underbrace", tex))
    return rows * (66 if tall else 42) + 22


def _block(block: str) -> float:
    """Return the height of one block with the gap behind it."""
    if block.startswith("```"):
        return code("\n".join(block.splitlines()[1:-1]))
    if block.startswith("|"):
        return _table(block)
    if "<details" in block:
        folded = re.findall(r"<summary>(.*?)</summary>(.*?)</details>", block, flags=re.DOTALL)
        return sum(58 + sum(0.9 * _block(part) - GAP for part in blocks(answer)) for _, answer in folded) + GAP / 2
    if re.match(r"[*+-] |\d+\. ", block):
        items = re.split(r"\n(?=[*+-] |\d+\. )", block)
        return sum(_paragraph(item, CHARACTERS - 4) - GAP + 6 for item in items) + GAP
    return _paragraph(block, CHARACTERS)


def _table(block: str) -> float:
    """Return the height of a table whose columns share the width of the slide by their longest cells, as browsers do."""
    rows = [row.strip().strip("|").split("|") for row in block.splitlines() if not re.fullmatch(r"[|\s:-]+", row)]
    lengths = [[len(_plain(cell)) for cell in row] for row in rows]
    longest = [max(1, *column) for column in zip_longest(*lengths, fillvalue=0)]
    shrunk = max(1.0, sum(longest) * TABLE * 0.46 / (WIDTH - TABLE * len(longest)))
    heights = [max(ceil(n * shrunk / most) for n, most in zip(row, longest, strict=False)) for row in lengths]
    return sum(max(1, lines) * TABLE_LINE + 13 for lines in heights) + GAP


def _paragraph(text: str, characters: float) -> float:
    """Return the height of running text with the equations displayed in it."""
    equations = re.findall(r"\$\$(.*?)\$\$", text, flags=re.DOTALL)
    parts = [part for part in re.split(r"\$\$.*?\$\$", text, flags=re.DOTALL) if part.strip()]
    return sum(map(_equation, equations)) + sum(_lines(part, characters) * PROSE_LINE + GAP for part in parts)
