"""Turn the equations of docstrings, written in Unicode text, into LaTeX.

A block is a display of equations if every line of it has one; otherwise it is a table, code or prose and stays as it is. A
column of a line (two spaces or more apart, or behind ``;``) is an equation if it has a relation (= or ←), or a product or a
square without prose. The rules look at signs and spaces only; ``tests/test_site.py`` lists what they make of every docstring.
"""

from __future__ import annotations

import re

FUNCTIONS = {"tanh", "exp", "log", "max", "min", "diag", "softmax"}
PLAIN_TEX = FUNCTIONS - {"diag", "softmax"}  # those that LaTeX has a command for
NAMES = {"score", "context", "key", "direct", "backoff", "lr"}  # quantities whose names are words
WORDS = {"in", "of", "if", "is", "on", "to", "as", "at", "by", "or", "it", "no"}  # two letters, and yet no symbol
SIGNS = {
    "⊙": r"\odot", "·": r"\cdot", "×": r"\times", "←": r"\leftarrow", "→": r"\to", "∝": r"\propto", "±": r"\pm", "≤": r"\le",
    "≥": r"\ge", "∈": r"\in", "‖": r"\Vert", "½": r"\tfrac12", "...": r"\dots", "|": r"\mid", "−": "-", "*": r"\ast",
    "&": r"\&", "%": r"\%", "#": r"\#", "{": r"\{", "}": r"\}", "~": r"\sim",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "δ": "delta", "ε": "varepsilon", "η": "eta", "θ": "theta", "λ": "lambda",
    "μ": "mu", "π": "pi", "σ": "sigma", "τ": "tau", "φ": "varphi", "ω": "omega", "∂": "partial", "∇": "nabla",
    "Δ": "Delta", "Ω": "Omega",
}  # fmt: skip
RAISED = {"ᵀ": r"\top", "²": "2", "³": "3", "ᵗ": "t", "⁻": "-", "¹": "1", "⁺": "+"}
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))

_GREEK = "".join(GREEK)
_INDEX = rf"_\{{[^}}]*\}}|_[A-Za-z0-9{_GREEK}]+"
_NAME = rf"(?P<stem>[A-Za-z]+|[{_GREEK}]|Σ)(?P<tilde>\u0303)?(?P<index>(?:{_INDEX}|[{''.join(LOWERED)}])*)"
_AFTER = rf"(?P<raised>['{''.join(RAISED)}]*)"
_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<code>[A-Za-z]+(?:_[A-Za-z]+){{2,}})|(?P<number>\d[\d,]*(?:\.\d+)?){_AFTER.replace('raised', 'power')}"
    rf"|d(?P<d>(?=(?:[A-Za-z]|{'|'.join(sorted(NAMES))})(?![A-Za-z])|[{_GREEK}]))|(?P<name>{_NAME}{_AFTER})|(?P<sign>\.\.\.|.)"
)
_RELATION = re.compile(r"(?<![<>!=])=(?!=)|←")


def is_relation(text: str) -> bool:
    """Whether there is an = or ← outside of all brackets."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and _RELATION.match(text, place):
            return True
    return False


def is_word(stem: str) -> bool:
    """Whether letters are a word of English rather than a symbol, a function or a differential."""
    if stem in FUNCTIONS or stem in NAMES or (stem[0] == "d" and _differentiates(stem)):
        return False
    return stem in WORDS or len(stem) > 2


def _differentiates(stem: str) -> bool:
    rest = stem[1:]
    return rest in NAMES or len(rest) == 1


def columns(line: str) -> list[str]:
    """The parts of a line: two spaces or more apart."""
    return re.split(r"\s{2,}", line.strip())


def is_equation(column: str) -> bool:
    """Whether a column of a line is an equation, or a formula without prose."""
    if '"' in column or "->" in column or "``" in column:
        return False
    prose = any(is_word(match["stem"]) for match in _TOKEN.finditer(column) if match["stem"])
    return is_relation(column) or (not prose and bool(re.search(r"[²⊙]", column)))


def is_display(lines: list[str]) -> bool:
    """Whether every line of a block has an equation."""
    return all(any(map(is_equation, columns(line))) for line in lines)


def tex(text: str) -> str:
    """LaTeX of one formula; words in it become text."""
    text = _roots(text)
    out: list[str] = []
    pending = ""  # a space is seen between two atoms, and around words
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if match["space"]:
            pending = " "
            continue
        piece, word = _piece(match)
        if out and pending:
            out.append(r"\ " if word or out[-1].endswith("\u200b") else _gap(out[-1], piece))
        out.append(piece + ("\u200b" if word else ""))
        pending = ""
        if kind == "sign" and match["sign"] == "^":
            out[-1] = "^"
    joined = "".join(out).replace("\u200b", "")
    while (together := re.sub(r"(\\text\{[^{}]*)\}\\ \\text\{", r"\1 ", joined)) != joined:
        joined = together
    return _powers(joined)


def _piece(match: re.Match[str]) -> tuple[str, bool]:
    """LaTeX of a token, and whether it is a word."""
    if match["code"]:
        return rf"\texttt{{{match['code'].replace('_', chr(92) + '_')}}}", True
    if match["number"]:
        return match["number"].replace(",", "{,}") + _raised(match["power"]), False
    if match["d"] is not None:
        return r"\mathrm{d}", False
    if match["name"]:
        return _name(match), bool(match["stem"]) and is_word(match["stem"])
    sign = match["sign"]
    return (f"{SIGNS[sign]} " if sign in SIGNS and SIGNS[sign].startswith("\\") else SIGNS.get(sign, sign)), False


def _name(match: re.Match[str]) -> str:
    stem = match["stem"]
    if stem == "Σ":
        base = r"\sum"
    elif stem in GREEK:
        base = rf"\{GREEK[stem]} "
    elif stem in PLAIN_TEX:
        base = rf"\{stem}"
    elif stem in FUNCTIONS:
        base = rf"\operatorname{{{stem}}}"
    elif is_word(stem):
        return rf"\texttt{{{stem}{match['index'].replace('_', chr(92) + '_')}}}" if match["index"] else rf"\text{{{stem}}}"
    else:
        base = stem if len(stem) == 1 else rf"\mathit{{{stem}}}"
    if match["tilde"]:
        base = rf"\tilde{{{base}}}"
    indices = [_index(part) for part in re.findall(rf"{_INDEX}|[{''.join(LOWERED)}]", match["index"])]
    lowered = f"_{{{','.join(indices)}}}" if indices else ""
    return base + lowered + _raised(match["raised"])


def _index(part: str) -> str:
    text = LOWERED.get(part, part.removeprefix("_").strip("{}"))
    text = "".join(rf"\{GREEK[character]} " if character in GREEK else character for character in text)
    return rf"\mathrm{{{text}}}" if re.fullmatch("[A-Za-z]{3,}", text) else text


def _raised(marks: str | None) -> str:
    primes = "'" * (marks or "").count("'")
    power = "".join(RAISED[mark] for mark in marks or "" if mark != "'")
    if primes and power:
        return "^{" + r"\prime" * len(primes) + power + "}"
    return primes + (f"^{{{power}}}" if power else "")


def _gap(before: str, after: str) -> str:
    """A thin space between the factors of a product; operators have theirs."""
    ends, begins = bool(re.search(r"[\w})\]']$", before)), bool(re.match(r"[\w\\([]", after))
    operator = re.match(r"\\(odot|cdot|times|leftarrow|to|propto|pm|le|ge|in|mid|sim|ast|dots)\b", after)
    return r"\," if ends and begins and not operator else " "


def _closing(text: str, opening: int) -> int:
    """Where the bracket that opens here is closed; the end of the text if it is not."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text) - 1


def _roots(text: str) -> str:
    """√(x) as ⟦x⟧, which becomes a square root."""
    while (place := text.find("√")) >= 0:
        if text[place + 1 : place + 2] == "(":
            end = _closing(text, place + 1)
            text = f"{text[:place]}⟦{text[place + 2 : end]}⟧{text[end + 1 :]}"
        else:
            text = f"{text[:place]}⟦{text[place + 1]}⟧{text[place + 2 :]}"
    return text


def _powers(text: str) -> str:
    """What stands in brackets behind ^ is raised, without the brackets; marks of roots become roots."""
    text = text.replace("⟦", r"\sqrt{").replace("⟧", "}")
    while (place := text.find("^(")) >= 0:
        end = _closing(text, place + 1)
        text = f"{text[:place]}^{{{text[place + 2 : end]}}}{text[end + 1 :]}"
    return re.sub(r"([)\]])_([A-Za-z])", r"\1_{\2}", text)


def remark(text: str) -> str:
    """LaTeX of what stands beside an equation: text, with its symbols set as such."""
    if re.search(r"[_²⊙ᵀα-ω]", text):
        return tex(text)
    escaped = re.sub(r"([&%#_{}$])", r"\\\1", text)
    return rf"\text{{{escaped}}}"


def display(lines: list[str]) -> tuple[str, list[str]]:
    """A block of equations as LaTeX, a row for each, and the remarks about all of it, such as "lesson 04, eqs. 4.1-4.6".

    A column of prose belongs to the equation before it, or to the one behind it if it begins the line; with a semicolon it is
    a statement of its own.
    """
    rows: list[list[str]] = []  # equation, what stands beside it, tag
    sources: list[str] = []
    for line in lines:
        label, first = "", len(rows)
        for column in columns(line):
            text = column.rstrip(";,")
            if number := re.fullmatch(r"\((\d+\.\d+)\)", text):
                rows[-1][2] = rf" \tag{{{number[1]}}}"
            elif source := re.fullmatch(r"\((lesson [^)]*)\)", text):
                sources.append(source[1])
            elif is_equation(text) or column.endswith(";"):
                rows.append([text, label, ""])
                label = ""
            elif len(rows) > first:
                rows[-1][1] = text
            else:
                label = text
    body = [_row(equation, beside) + tag for equation, beside, tag in rows]
    name = "align*" if any(tag for _, _, tag in rows) else "aligned"
    return "\n".join([rf"\begin{{{name}}}", " \\\\\n".join(body), rf"\end{{{name}}}"]), sources


def _row(equation: str, beside: str) -> str:
    left, sign, right = _at_relation(equation)
    row = f"{tex(left)} &{tex(sign)} {tex(right)}" if sign else f"& {tex(equation)}"
    return row + (rf" && {remark(beside)}" if beside else "")


def _at_relation(equation: str) -> tuple[str, str, str]:
    """An equation cut at its first relation outside of brackets."""
    depth = 0
    for place, character in enumerate(equation):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and (match := _RELATION.match(equation, place)):
            return equation[:place].strip(), match[0], equation[match.end() :].strip()
    return "", "", equation
