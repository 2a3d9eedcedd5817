"""The docstrings of the library as pages of the site: sections, lists, and equations in LaTeX, with nothing lost."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/site"))

import docstring_rst  # noqa: E402
import formula_tex  # noqa: E402
import module_facts  # noqa: E402


@functools.cache
def docstrings() -> dict[str, str]:
    """Every docstring of the library with the name of its owner."""
    found = {}
    for path in sorted((ROOT / "course_lib").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found[f"{path.stem}.{getattr(node, 'name', '')}".rstrip(".")] = text
    return found


def indented(docstring: str) -> list[list[str]]:
    """The indented blocks of a docstring."""
    return [[line[4:] for line in lines] for kind, lines in docstring_rst.blocks(docstring) if kind == "indented"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x W_ihᵀ + h W_hhᵀ + b", r"x\,W_{ih}^{\top} + h\,W_{hh}^{\top} + b"),
        ("f ⊙ c", r"f \odot  c"),
        ("σ(a_i)", r"\sigma (a_{i})"),
        ("1 - tanh²(c')", r"1 - \tanh^{2}(c')"),
        ("1 - h'²", r"1 - h^{\prime2}"),
        ("dc_prev", r"\mathrm{d}c_{\mathrm{prev}}"),
        ("dscore_j", r"\mathrm{d}\mathit{score}_{j}"),
        ("dα_j", r"\mathrm{d}\alpha _{j}"),
        ("diag(f)", r"\operatorname{diag}(f)"),
        ("Σ_k e^(s_k - m)", r"\sum_{k}\,e^{s_{k} - m}"),
        ("√(v / (1 - β₂ᵗ)) + ε", r"\sqrt{v / (1 - \beta _{2}^{t})} + \varepsilon "),
        ("h_{t-1}", r"h_{t-1}"),
        ("softmax(b)_y", r"\operatorname{softmax}(b)_{y}"),
        ("ds for s in i, f, o", r"\mathrm{d}s\ \text{for}\ s\ \text{in}\ i, f, o"),
        ("as in gru_step_forward", r"\text{as in}\ \texttt{gru\_step\_forward}"),
        ("h̃_t", r"\tilde{h}_{t}"),
        ("½ λ", r"\tfrac12 \lambda "),
    ],
)
def test_formula(text, expected):
    """One sign after the other."""
    assert re.sub(r"\s+", " ", formula_tex.tex(text)) == re.sub(r"\s+", " ", expected)


def test_displays_of_the_library():
    """Which blocks are equations, which are tables, code or prose; equations keep each letter and sign in its order."""
    kinds = {True: set(), False: set()}
    for name, text in docstrings().items():
        for block in indented(text):
            kinds[formula_tex.is_display(block)].add(name)
            if formula_tex.is_display(block):
                assert_nothing_lost(block)
    steps = {f"{cell}_step_{way}" for cell in ("rnn", "lstm", "gru") for way in ("forward", "backward")}
    equations = {f"cells.{step}" for step in steps} | {
        "attention", "attention_by_hand", "jacobians.lstm_step_jacobian", "ngram", "ngram_classifier", "optim.adam_",
        "roofline.recurrent_intensity", "torch_scan", "torch_scan.LinearScan", "torch_scan.MinGRU",
        "variants.peephole_step_forward", "variants.peephole_step_backward", "variants.coupled_step_forward",
        "variants.gru_reset_before_step_forward",
    }  # fmt: skip
    others = {
        "association", "bodies", "code_judge", "decoding", "novelty", "poems", "roofline.bytes_lstm", "shapes", "summaries",
        "torch_kernels", "torch_stack", "torch_triton",
    }  # fmt: skip
    assert equations <= kinds[True] - kinds[False]
    assert others <= kinds[False] - kinds[True]


def assert_nothing_lost(block: list[str]) -> None:
    """Undo the LaTeX by other means than those that made it: what is left are the signs of the source."""
    body, sources = formula_tex.display(block)
    assert body.count("{") == body.count("}"), body
    plain = re.sub(r"\\(begin|end)\{[a-z*]+\}|\\[,;] ?|\\ |&", "", body.replace(r"\&", "§"))
    signs = {**{name: sign for sign, name in formula_tex.GREEK.items()}, "odot": "⊙", "cdot": "·", "leftarrow": "←", "mid": "|",
             "top": "ᵀ", "prime": "'", "sum": "Σ", "dots": "...", "sqrt": "√", "tfrac12": "½"}  # fmt: skip
    plain = re.sub(r"\\(?:text|mathrm|mathit|texttt|operatorname|tag)(?![a-z])", "", plain)
    plain = re.sub(r"\\([a-z]+)", lambda match: signs.get(match[1], match[1]), plain)

    def bare(text: str) -> str:
        text = text.translate(str.maketrans("²³ᵗ₁₂", "23t12")).replace("§", "&")
        return re.sub(r"[\s{}()_^\\;,ᵀ]", "", text)

    got = sorted(bare(plain) + "".join(map(bare, sources)))
    assert got == sorted(bare("".join(block))), (block, body)


def test_formulas_without_a_sign_of_text():
    """Outside of text, LaTeX has letters of ASCII only: anything else MathJax would set from another font, or not at all."""
    for name, docstring in docstrings().items():
        for block in filter(formula_tex.is_display, indented(docstring)):
            body = re.sub(r"\\text\{[^}]*\}", "", formula_tex.display(block)[0])
            assert body.isascii(), (name, body)


DOCSTRING = '''Advance by one step; see ``other`` and other_function.

    h' = tanh(x W_ihᵀ)          (lesson 02)

1. First, of
   two lines.
2. Second.

units:      the best *units*
linear:     a linear read-out
            of all states

>>> f(1)
2

Args:     x: (N, D). prev: h and c, each (N, H). vocab_size V, size: at least 1.
          options: see *there*, 1.5 x: as it is.
Returns:  |y| and x_.
Raises:   ValueError: always.
Reference: Elman 1990.
'''


def test_docstring():
    """Each form that a docstring has; signs of reStructuredText mean nothing in it."""

    def link(name, code):
        return f"lib.{name}" if name in {"other", "other_function"} else None

    lines = docstring_rst.convert(DOCSTRING, ["x", "prev", "vocab_size", "size", "options"], link)
    assert lines == [
        "Advance by one step; see \\ :py:obj:`other <lib.other>`\\  and \\ :py:obj:`other_function <lib.other_function>`\\ .",
        "",
        ".. math::", "", "   \\begin{aligned}", "   h' &= \\tanh(x\\,W_{ih}^{\\top})", "   \\end{aligned}", "",
        "Lesson 02.", "",
        "#. First, of two lines.", "#. Second.", "",
        "* ``units``: the best \\*units\\*", "* ``linear``: a linear read-out of all states", "",
        ".. code-block:: pycon", "", "   >>> f(1)", "   2", "",
        ":Arguments:", "   * ``x``: (N, D).", "   * ``prev``: h and c, each (N, H).",
        "   * ``vocab_size`` V, ``size``: at least 1.", "   * ``options``: see \\*there\\*, 1.5 x: as it is.", "",
        ":Returns: \\|y\\| and x\\_.", ":Raises: ValueError: always.", ":Reference: Elman 1990.",
    ]  # fmt: skip


def test_arguments_are_found():
    """The entries of each ``Args`` of the library begin with arguments, and no argument is left inside of another's entry."""
    for module in module_facts.read_modules(ROOT / "course_lib").values():
        members = [*module.members, *(part for member in module.members for part in member.members)]
        for member in members:
            for kind, lines in docstring_rst.blocks(member.docstring):
                if kind == "Args":
                    entries = docstring_rst.items(" ".join(map(str.strip, lines)), member.names)
                    inside = [name for name in member.names for _, text in entries if re.search(rf"\. {name}: ", text)]
                    assert not inside, (module.name, member.name, inside)
