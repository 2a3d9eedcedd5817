"""The judge of Python samples: against the parser's own statements, against its traps, and never running anything."""

import ast
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import code_judge
from course_lib.embedded import split_files, to_ascii

TRAPS = {
    "parentheses": "(" * 100_000,
    "minus signs": "-" * 300_000 + "1",
    "attributes": "a" + ".a" * 100_000,
    "a sum": "1+" * 100_000 + "1",
    "calls": "x" + "()" * 100_000,
    "lambdas": "lambda:" * 100_000 + "1",
    "a number": "9" * 100_000,
    "indentation": "".join("  " * i + "if x:\n" for i in range(200)),
    "NUL": "x = 1\0",
    "half a character": "x = '\ud800'",
    "conditionals": "a if b else " * 50_000 + "c",
    "f-strings": "f'" + "{f'" * 50 + "'",
}


@pytest.mark.parametrize("source", TRAPS.values(), ids=TRAPS)
def test_the_parsers_traps_are_no_python(source):
    assert code_judge.parses(source) is False
    assert code_judge.judge(source) == (False, 0, 0, 0, 0, 0)


def test_the_traps_do_not_kill_the_process():
    code = "from course_lib.code_judge import parses\nimport sys\nprint([parses(eval(line)) for line in sys.stdin])"
    given_in = "\n".join(map(repr, TRAPS.values()))
    result = subprocess.run([sys.executable, "-c", code], input=given_in, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == str([False] * len(TRAPS))


def test_what_parses(recwarn):
    for source in ("", "x = 1", "'\\d'", "1 is 1", "def f():\n  return\n", "x = '\N{SNOWMAN}'"):
        assert code_judge.parses(source)
    for source in ("x =", "def f():", "  x = 1\n y = 2", "return return", "'abc", "To be, or not to be", "print 1"):
        assert not code_judge.parses(source)
    assert not recwarn.list
    with pytest.raises(ValueError, match="source: expected at most 1,000,000 characters, got 1,000,001"):
        code_judge.parses("x" * 1_000_001)


def test_nothing_is_run(tmp_path):
    mark = tmp_path / "ran"
    source = f"__import__('pathlib').Path({str(mark)!r}).write_text('x')\n"
    assert code_judge.judge(source * 3).parses
    assert not mark.exists()


def test_statements_are_those_of_the_parser():
    files = [to_ascii(source.expandtabs())[0] for source in split_files(0.1)[1].values()]
    begins, wrong = 0, 0
    for source in files:
        found = code_judge.statements(source)
        assert "".join(found) == source
        lines = {source[: source.index(part)].count("\n") + 1 for part in found[:1]}
        places, at = set(), 0
        for part in found:
            places.add(source[:at].count("\n") + 1)
            at += len(part)
        first = [
            min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) for node in ast.parse(source).body
        ]
        # The first cut is the beginning of the file, which may be a comment; two statements may share a line.
        expected = {1, *(line for line in first if not source.splitlines()[line - 1].startswith((" ", "#")))}
        begins += len(expected)
        wrong += len(places ^ expected)
        assert lines == {1}
    assert begins > 500
    assert wrong <= 0.01 * begins  # lists whose items start in column 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("x = 1\n", 1),
        ("x = 1\ny = 2\n", 2),
        ("\n\nx = 1\n\n\ny = 2\n", 3),
        ("# a\nx = 1\n# b\ny = 2\n", 3),
        ("if a:\n  b\nelif c:\n  d\nelse:\n  e\nf\n", 2),
        ("try:\n  a\nexcept B:\n  c\nfinally:\n  d\nelsewhere = 1\n", 2),
        ("x = [\n  1,\n]\ny = f(\n)\nz = {\n}\n", 3),
        ("x = '''\na\nb'c\n'''\ny = 1\n", 2),
        ('x = """a\\"""\nb\n"""\ny = 1\n', 2),
        ("x = \"'''\"\ny = 1\n", 2),
        ("x = 'it\\'s' # '''\ny = 1\n", 2),
        ("x = 'unclosed\ny = 1\n", 2),
        ('"""unclosed\ny = 1\nz = 2', 1),
        ("@a\n@b(\n  1,\n)\n# c\ndef f():\n    pass\n@c\nclass D: pass\nx\n", 3),
        ("async def f():\n    x\nwith a: b\n", 2),
    ],
)
def test_where_statements_begin(text, parts):
    found = code_judge.statements(text)
    assert "".join(found) == text
    assert len(found) == (parts or 0)


@given(st.text(alphabet="ab \n\"'#@()\\:=", max_size=60))
def test_nothing_is_lost_whatever_the_text(text):
    assert "".join(code_judge.statements(text)) == text
    verdict = code_judge.judge(text)
    assert 0 <= verdict.parsed <= verdict.statements
    assert 0 <= verdict.long_parsed <= verdict.long <= verdict.statements
    assert verdict.judged <= len(text)


def test_the_last_statement_is_left_out_and_one_bad_one_stays_alone():
    good = "def f(x):\n    y = x\n\n    z = y\n    return z\n\n"
    assert code_judge.judge(good + good + "def g(") == (True, 2 * len(good), 2, 2, 0, 0)
    long = good.replace("return", "w = z\n    return")
    assert code_judge.judge(long + "class A(:\n    pass\n" + long + "x") == (False, 2 * len(long) + 19, 3, 2, 2, 2)
    bad = long.replace("y = x", "y = (")
    assert code_judge.judge(bad + long + "x") == (False, len(bad + long), 2, 1, 2, 1)
    assert code_judge.judge("x = [\n1,\n]\ny") == (True, 11, 2, 0, 0, 0)  # the rule cuts it, the parser sees it whole
    assert code_judge.judge("def f(") == (False, 0, 0, 0, 0, 0)
    assert code_judge.judge("# a\n\nx = 1") == (False, 5, 0, 0, 0, 0)  # a comment is no statement


def test_shares():
    good, bad = "x = 1\ny = 2\nz", "x = 1\ny =\nz"
    assert code_judge.shares([good, bad, "def f(", "a b\nz"]) == pytest.approx(
        {"judged": 0.75, "samples": 1 / 3, "statements": 3 / 5, "long statements": float("nan"), "number": 5, "long number": 0,
         "characters": (12 + 10 + 4) / (13 + 11 + 6 + 5)}, nan_ok=True
    )  # fmt: skip
    with pytest.raises(ValueError, match="samples: expected at least one, got none"):
        code_judge.shares([])


def test_real_source_cut_anywhere_passes():
    source = "\n\n".join(to_ascii(text.expandtabs())[0].strip("\n") for text in split_files(0.1)[1].values())
    parts = code_judge.statements(source)
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    chosen = random.Random(0).choices([start for start in starts if start + 1000 < len(source)], k=200)
    windows = [source[start : start + 1000] for start in chosen]
    shares = code_judge.shares(windows)
    assert shares["statements"] > 0.97
    assert shares["samples"] > 0.95
    swapped = [window.replace("(", "((", 3) for window in windows]
    assert code_judge.shares(swapped)["samples"] < 0.5
