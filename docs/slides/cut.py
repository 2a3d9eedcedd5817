"""Where text, code and printed text that do not fit on one slide are cut."""

from __future__ import annotations

import re
from itertools import pairwise

import heights

ALONE = 1.35  # text of one cell may be this much too high before it is cut: it is set smaller
LINES = 26  # of code or printed text on a slide


def text(markdown: str) -> list[str]:
    """Cut text that is too high for a slide into equal parts, between paragraphs; one that ends in ":" stays with the next."""
    height = heights.prose(markdown)
    if height <= heights.ROOM * ALONE:
        return [markdown]
    blocks = [part for block in heights.blocks(markdown) for part in _parts(block)]
    target = height / -(-height // heights.ROOM)
    parts: list[list[str]] = [[]]
    for block in blocks:
        now = heights.prose("\n\n".join(parts[-1]))
        # The border is drawn where the part comes nearest to its share.
        if parts[-1] and now + heights.prose(block) / 2 > target and not parts[-1][-1].endswith(":"):
            parts.append([])
        parts[-1].append(block)
    return [_join(part) for part in parts]


def _join(blocks: list[str]) -> str:
    """Put blocks together again; the parts of one table or list become one."""
    text = blocks[0]
    for last, block in pairwise(blocks):
        if last.startswith("|") and block.startswith("|") and last.splitlines()[:2] == block.splitlines()[:2]:
            text += "\n" + "\n".join(block.splitlines()[2:])
        else:
            text += "\n\n" + block
    return text


def _parts(block: str) -> list[str]:
    """Cut a list, a table or folded answers that fill more than half a slide, between items, rows or answers."""
    if heights.prose(block) <= heights.ROOM / 2:
        return [block]
    if block.startswith("<details"):
        return re.split(r"\n(?=<details)", block)
    if block.startswith("|"):
        head, rule, *rows = block.splitlines()
        return ["\n".join([head, rule, *rows[start : start + 3]]) for start in range(0, len(rows), 3)]
    return re.split(r"\n(?=[*+-] |\d+\. )", block) if re.match(r"[*+-] |\d+\. ", block) else [block]


def code(source: str) -> list[str]:
    """Cut code that is too long for a slide at the blank lines before a line that is not indented, into equal parts."""
    total = source.count("\n") + 1
    if total <= LINES + 4 and heights.code(source) <= heights.ROOM_AGAIN * 1.1:
        return [source]
    blocks = re.split(r"\n\s*\n(?=\S)", source)
    target = total / -(-total // LINES)
    parts = [blocks[0]]
    for block in blocks[1:]:
        if parts[-1].count("\n") + 1 + (block.count("\n") + 1) / 2 > target:
            parts.append(block)
        else:
            parts[-1] += "\n\n" + block
    return parts


def printed(text: str) -> list[str]:
    """Cut printed text that is too long for a slide into equal parts."""
    lines = text.rstrip("\n").split("\n")
    count = -(-len(lines) // LINES)
    size = -(-len(lines) // count)
    return ["\n".join(lines[start : start + size]) + "\n" for start in range(0, len(lines), size)]
