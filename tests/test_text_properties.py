"""Properties of a text: written out by hand under examples, and never dependent on what comes later."""

from __future__ import annotations

import ast
import io
import tokenize

import numpy as np
import pytest

from course_lib import embedded
from course_lib import text_properties as tp

PIECES = ["KING:", "a", "B", " ", "  ", "\n", "\n\n", '"', "(", ")", "Word", "3", "\n    ", "[", "é", "\n \n"]
COUNTS = [tp.column, tp.capitals, tp.letters, tp.speech_line, tp.indentation, tp.bracket_depth]
FLAGS = [tp.name_line, tp.in_quotes]


def random_text(seed: int, length: int = 120) -> str:
    return "".join(np.random.default_rng(seed).choice(PIECES, length))


def digits(values: np.ndarray) -> str:
    return "".join(str(int(value)) for value in values)


@pytest.mark.parametrize(
    "property_, text, expected",
    [
        (tp.column, "ab\n\nc d", "1200123"),
        (tp.capitals, "KInG ÉA1", "12010120"),
        (tp.letters, "I am. a1b", "101200101"),
        (tp.speech_line, "A:\nb\nc\n\nD:\ne", "001122300011"),
        (tp.name_line, "A:\nb\n\nD:\ne", "1100011100"),
        (tp.indentation, "a\n  b\n    \nc\n d", "000022222220001"),
        (tp.in_quotes, 'a"b"c"\nd\n\ne"', "011001111001"),
        (tp.bracket_depth, "f(a[1]))x(\n\ny", "0112210001100"),
    ],
)
def test_examples(property_, text: str, expected: str) -> None:
    assert digits(property_(text)) == expected


@pytest.mark.parametrize("property_", COUNTS + FLAGS)
@pytest.mark.parametrize("seed", range(3))
def test_no_value_depends_on_later_characters(property_, seed: int) -> None:
    text = random_text(seed)
    whole = property_(text)
    assert whole.shape == (len(text),) and whole.dtype == (bool if property_ in FLAGS else np.int64)
    assert len(np.unique(whole)) > 1
    for k in range(len(text) + 1):
        np.testing.assert_array_equal(property_(text[:k]), whole[:k])


def slowly(text: str) -> dict[str, list[int]]:
    """The properties by a walk over the characters."""
    rows: dict[str, list[int]] = {name: [] for name in ("column", "speech_line", "indentation", "in_quotes", "bracket_depth")}
    line, ends, indent, quotes, depth = "", 0, 0, 0, 0
    for character in text:
        if character == "\n":
            ends = ends + 1 if line else 0
            if not line:
                quotes = depth = 0
            line = ""
        else:
            if character != " " and not line.strip(" "):
                indent = len(line)
            line += character
            quotes += character == '"'
            depth = max(0, depth + (character in "([{") - (character in ")]}"))
        values = (len(line), ends, indent, quotes % 2, depth)
        for row, value in zip(rows.values(), values, strict=True):
            row.append(value)
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_over_the_characters_agrees(seed: int) -> None:
    text = random_text(seed, 400)
    for name, row in slowly(text).items():
        np.testing.assert_array_equal(getattr(tp, name)(text), row, err_msg=name)


def test_other_marks_and_brackets() -> None:
    assert digits(tp.in_quotes("a`b`", "`")) == "0110"
    assert digits(tp.bracket_depth("(<(>", "<", ">")) == "0110"


SOURCE = '''def f(a, b="(x"):  # see (1)
    """Say "hi"."""
    if a:
        return [rb'#', ""]
    return f"{a}"
x = 1
'''


def test_python_structure_by_hand() -> None:
    string, comment, brackets, blocks = tp.python_structure(SOURCE)
    at = SOURCE.index
    inside = np.zeros(len(SOURCE), bool)
    for literal in ('"(x"', '"""Say "hi"."""', "'#'", '""', '"{a}"'):
        start = at(literal) if literal != '""' else at('""]')
        inside[start : start + len(literal) - 1] = True
    np.testing.assert_array_equal(string, inside)
    assert SOURCE[comment.argmax() : len(SOURCE) - comment[::-1].argmax()] == "# see (1)"
    assert comment.sum() == len("# see (1)")
    expected = [0] * len(SOURCE)
    for opening, closing in ((at("(a"), at("):")), (at("[rb"), at("]"))):
        expected[opening:closing] = [1] * (closing - opening)
    np.testing.assert_array_equal(brackets, expected)
    levels = np.zeros(len(SOURCE), int)
    levels[at('"""Say') : at("x = 1")] = 1
    levels[at("return [") : at('return f"')] = 2
    np.testing.assert_array_equal(blocks, levels)


def test_all_three_kinds_of_brackets_count() -> None:
    assert digits(tp.python_structure("{1: [(2)]}\n").brackets) == "11112332100"[:10] + "0"


def test_python_structure_of_the_standard_library() -> None:
    """The strings of real source are those of the syntax tree, its comments those that comments are made of."""
    _, files = embedded.split_files(0.1)
    checked = 0
    for source in list(files.values())[:12]:
        source = embedded.to_ascii(source.expandtabs())[0]
        string, comment, brackets, blocks = tp.python_structure(source)
        assert brackets.min() == 0 == brackets[-1] and blocks.min() == 0 and not (string & comment).any()
        lines = np.cumsum([0, *map(len, io.StringIO(source))])
        tree = ast.parse(source)
        in_f = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        for node in set(ast.walk(tree)) - in_f:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno == node.end_lineno:
                first, last = lines[node.lineno - 1] + node.col_offset, lines[node.lineno - 1] + node.end_col_offset
                if source[first] in "\"'" and "\n" not in source[first:last] and source[first:last].count(source[first]) == 2:
                    assert string[first : last - 1].all() and not string[last - 1]
                    checked += 1
            if isinstance(node, ast.FunctionDef) and isinstance(node.body[0], ast.Return):
                first = lines[node.body[0].lineno - 1] + node.body[0].col_offset
                assert node.body[0].lineno == node.lineno or blocks[first] > blocks[lines[node.lineno - 1] + node.col_offset]
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                assert comment[lines[token.start[0] - 1] + token.start[1] :][: len(token.string)].all()
    assert checked > 300


@pytest.mark.parametrize("source", ["x = (1,\n", 'x = """a\n', "if a:\n    b\n  c\n"])
def test_a_piece_of_source_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="source: expected whole Python source"):
        tp.python_structure(source)


def test_empty_and_unfinished_texts() -> None:
    for property_ in COUNTS + FLAGS:
        assert property_("").shape == (0,)
    assert [len(array) for array in tp.python_structure("x = 1")] == [5] * 4
    assert [len(array) for array in tp.python_structure("")] == [0] * 4
