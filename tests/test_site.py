"""The site: lessons and modules know of each other, and a small site builds without a warning."""

from __future__ import annotations

import functools
import html
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from colours import contrast

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/site"))

import module_facts  # noqa: E402
import reference_pages  # noqa: E402
import site_extension  # noqa: E402
import site_pages  # noqa: E402

LESSONS = ["04_lstm_forward", "05_lstm_backward"]
MODULES = ["cells", "layers", "shapes", "attention_by_hand", "ngram", "sampling_explorer"]


def test_public_names_and_signatures():
    """What is read from the source is what Python sees when it imports the module."""
    for name in ("cells", "layers", "decoding", "metrics", "stacked"):
        module, facts = importlib.import_module(f"course_lib.{name}"), module_facts.read_module(ROOT / f"course_lib/{name}.py")
        own = {
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__ and callable(value)
        }
        assert {member.name for member in facts.members if member.kind in {"function", "class"}} == own
        for member in facts.members:
            if member.kind == "function":
                parameters = tuple(inspect.signature(getattr(module, member.name)).parameters)
                assert sorted(member.names) == sorted(parameters)
            elif fields := getattr(getattr(module, member.name), "_fields", ()):
                assert tuple(part.name for part in member.members if part.kind == "attribute") == fields
    notes = {part.name: part.note for part in module_facts.read_module(ROOT / "course_lib/cells.py").members[1].members}
    assert notes == {"W_ih": "(4H, D), gate rows i, f, g, o", "W_hh": "(4H, H)", "b": "(4H,)"}


def test_lessons_and_modules_know_of_each_other():
    """The map, made again with regular expressions, both ways."""
    site = site_pages.Site(modules=[])
    for name, path in site.lessons.items():
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        code = "\n".join("".join(cell["source"]) for cell in cells)
        code = re.sub(r"\(\s*([^()]*?)\s*\)", lambda match: " ".join(match[1].split()), code) if "import (" in code else code
        used = set(re.findall(r"^\s*from course_lib\.(\w+)", code, flags=re.MULTILINE))
        for names in re.findall(r"^\s*from course_lib import (.+)", code, flags=re.MULTILINE):
            used |= {piece.split(" as ")[0].strip() for piece in names.split("#")[0].split(",")}
        assert site.used[name] == used, name
        assert all(name in site.users(module) for module in used)
    assert len(site.lessons) == 13


def test_every_module_has_one_subject():
    names = [name for listed in reference_pages.SUBJECTS.values() for name in listed.split()]
    assert sorted(names) == sorted({path.stem for path in (ROOT / "course_lib").glob("*.py")} - {"__init__"})
    assert reference_pages.by_subject(["cells", "text"]) == {"Cells and sequences": ["cells"], "Language models": ["text"]}


def test_references_to_equations():
    """Numbers behind "eq.", a bracket or another reference are links; others are not."""
    equations = {"4.1": "lessons/04", "4.6": "lessons/04", "5.9": "lessons/05"}
    lessons = {"04": "lessons/04", "05": "lessons/05"}

    def found(text):
        pieces = site_extension.references(text, equations, lessons)
        assert "".join(piece for piece, _ in pieces) == text
        return [target for _, target in pieces if target]

    assert found("lesson 04, eqs. 4.1-4.6.") == ["lessons/04", "lessons/04#eq-4-1", "lessons/04#eq-4-6"]
    assert found("See (5.9) and equations 4.1 and 4.6; lessons 04 and 05.") == [
        "lessons/05#eq-5-9", "lessons/04#eq-4-1", "lessons/04#eq-4-6", "lessons/04", "lessons/05",
    ]  # fmt: skip
    assert found("4.1 times (about 4.6) of 04, 5.9 s; equation 9.9; eq. 4.15") == []


def test_folded_answers():
    """Formulas in HTML are marked for MathJax; Markdown behind a blank line is left to the reader of Markdown."""
    text = "A $b$.\n\n<details><summary>Hint $h_t$</summary>It is $a < b$.</details>"
    assert site_pages.folded(text) == (
        'A $b$.\n\n<details><summary>Hint <span class="math notranslate nohighlight">\\(h_t\\)</span></summary>It is '
        '<span class="math notranslate nohighlight">\\(a &lt; b\\)</span>.</details>'
    )
    assert site_pages.folded("<details><summary>A</summary>\n\nIt is $a$.\n\n</details>").count("$") == 2


def test_links_of_the_repository():
    """A link to a file with a page leads there; another keeps its words only; code is left alone."""
    site = site_pages.Site(["04_lstm_forward"], ["cells"])
    text = "[a](../notebooks/04_lstm_forward.ipynb) [b](../datasets/x.json) [c](https://x.org) [d](#e)\n```\n[f](g.md)\n```\n"
    assert site.relink(text, "docs") == (
        "[a](/lessons/04_lstm_forward.ipynb) b [c](https://x.org) [d](#e)\n```\n[f](g.md)\n```\n"
    )
    assert site.relink("![w](docs/p.png) [m](course_lib/cells.py#x) [n](course_lib/text.py)", "") == (
        "![w](/docs/p.png) [m](/api/cells.rst#x) n"
    )


NOTATION = (ROOT / "docs/site/notation.md").read_text(encoding="utf-8")


def test_notation_of_the_library():
    """The names and shapes of the notation page are those of the library, its gates in their order."""
    from course_lib import cells, sequence, shapes

    for full in re.findall(r"\{py:\w+\}`\w+ <([\w.]+)>`", NOTATION):
        module, _, name = full.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full
    letters = re.findall(r"^\| \*\*(\w)\*\* \|", NOTATION, flags=re.MULTILINE)
    assert letters == re.findall(r"(?<!\S)([A-Z]) [a-z]", shapes.__doc__.split("\n\n")[1])
    for name, fields in (("RNNParams", "`W_ih`, `W_hh`, `b`"), ("GRUParams", "`W_ih`, `W_hh`, `b_ih`, `b_hh`")):
        assert f"{name}>`: {fields}" in NOTATION.replace("course_lib.cells.", "")
        assert tuple(re.findall(r"\w+", fields)) == getattr(cells, name)._fields
    assert cells.LSTMParams._fields == ("W_ih", "W_hh", "b") and cells.LSTMState._fields == ("h", "c")
    rng = np.random.default_rng(0)
    T, N, D, H = 5, 2, 3, 4
    rows = dict(re.findall(r"^\|[^|]*\| `(W_ih|W_hh|b)`[^|]*\| (\([^|]*\)) \|", NOTATION, flags=re.MULTILINE))
    sizes = {"4H": 4 * H, "D": D, "H": H}
    shape = {name: tuple(sizes[axis] for axis in re.findall(r"\w+", text)) for name, text in rows.items()}
    params = cells.LSTMParams(**{name: rng.normal(size=shape[name]) for name in ("W_ih", "W_hh", "b")})
    zero = cells.LSTMState(np.zeros((N, H)), rng.normal(size=(N, H)))
    hs, _, _ = sequence.lstm_forward(rng.normal(size=(T, N, D)), zero, params)
    assert hs.shape == (T, N, H)
    order = re.search(r"stacked \*\*(.+?)\*\*", NOTATION)[1].split(", ")
    assert order == list("ifgo")
    for place, gate in enumerate(order):
        bias = np.zeros(4 * H)
        bias[place * H : (place + 1) * H] = 30.0  # this gate alone is wide open
        _, cache = cells.lstm_step_forward(np.ones((N, D)), zero, cells.LSTMParams(0 * params.W_ih, 0 * params.W_hh, bias))
        others = [getattr(cache, name) for name in order if name != gate]
        assert np.allclose(getattr(cache, gate), 1) and all((np.abs(other) < 0.6).all() for other in others)
    assert set(cells.GRUCache._fields) >= {"r", "z", "n"}


class Page(HTMLParser):
    """What a page loads, links to and calls its parts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.alts: list[str | None] = []
        self.levels: list[int] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {values["id"]} if values.get("id") else set()
        if tag == "img":
            self.alts.append(values.get("alt"))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "link" and values.get("href"):
            self.loads.append(values["href"])
        if values.get("src"):
            self.loads.append(values["src"])
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))


def web(folder: Path) -> Path:
    """A folder of npm packages with a MathJax that does nothing."""
    script = folder / "mathjax/es5/tex-chtml-full.js"
    (script.parent / "output/chtml/fonts").mkdir(parents=True)
    script.write_text("")
    return folder


@functools.cache
def builder() -> ModuleType:
    """docs/site/build.py, under a name of its own."""
    specification = importlib.util.spec_from_file_location("site_build", ROOT / "docs/site/build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The builder, as `make site` calls it."""
    command = [sys.executable, ROOT / "docs/site/build.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def few_lessons(folder: Path) -> Path:
    """A repository without lessons, which is read in no time."""
    for part in ("notebooks", "course_lib"):
        (folder / part).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A site of two lessons and some modules."""
    folder = tmp_path_factory.mktemp("site")
    result = run("--out", folder / "site", "--web", web(folder / "web"), "--lessons", *LESSONS, "--modules", *MODULES)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    """Its pages by their addresses."""
    return {path.relative_to(built).as_posix(): Page(path) for path in built.rglob("*.html") if "_static" not in path.parts}


def test_nothing_is_loaded_from_elsewhere(pages, built):
    """Scripts, styles, fonts and pictures are files of the site."""
    for name, page in pages.items():
        for address in page.loads:
            assert not re.match(r"(\w+:)?//", address), (name, address)
            file = address.partition("?")[0].partition("#")[0]
            assert file.startswith("data:") or (built / name).parent.joinpath(file).exists(), (name, address)
    for style in built.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_links_resolve(pages, built):
    """Each link within the site leads to a page, and to a place on it that is there."""
    for name, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            file, _, place = link.partition("#")
            target = (built / name).parent.joinpath(file).resolve().relative_to(built.resolve()).as_posix() if file else name
            assert target in pages, (name, link)
            assert not place or place in pages[target].ids, (name, link)


def test_pages_of_lessons(pages):
    """Numbered equations, described pictures, headings in order, the modules at the end, previous and next."""
    site = site_pages.Site(LESSONS, MODULES)
    for name in LESSONS:
        page = pages[f"lessons/{name}.html"]
        numbers = [number for number, home in site.equations().items() if home == f"lessons/{name}"]
        assert numbers and all(site_extension.anchor(number) in page.ids for number in numbers)
        assert all(f"\\tag{{{number}}}" in page.text for number in numbers)
        assert "mathjax/tex-chtml-full.js" in page.text and "\\begin{split}" not in page.text
        described = [html.unescape(cell.metadata["alt"]) for cell in site.notebooks[name].cells if "alt" in cell.metadata]
        assert described and described == [alt for alt in page.alts if alt]
        assert None not in page.alts
        levels = page.levels[page.levels.index(1) :]
        assert levels.count(1) == 1 and all(after <= before + 1 for before, after in pairwise(levels))
        assert "../api/cells.html#module-course_lib.cells" in page.links
    assert 'rel="next" title="05' in pages["lessons/04_lstm_forward.html"].text
    assert "../lessons/04_lstm_forward.html" in pages["api/cells.html"].links
    assert "../lessons/04_lstm_forward.html#eq-4-1" in pages["api/cells.html"].links
    assert "lessons/04_lstm_forward.html" in pages["index.html"].links


def test_pages_of_modules(pages):
    """Each public function and class has its place; equations are displays, tables are not."""
    for name in MODULES:
        page, facts = pages[f"api/{name}.html"], module_facts.read_module(ROOT / f"course_lib/{name}.py")
        for member in facts.members:
            assert f"course_lib.{name}.{member.name}" in page.ids
    assert pages["api/cells.html"].text.count(r"\begin{aligned}") == 6
    assert r"\tag{10.4}" in pages["api/attention_by_hand.html"].text
    assert "T time   N batch   D input" in re.sub("<[^>]+>", "", pages["api/shapes.html"].text)


def test_contrast_of_code(built):
    """Each colour of code stands out from its background, light and dark, by WCAG's AA: 4.5."""
    style = (built / "_static/pygments.css").read_text(encoding="utf-8")
    theme = "".join(path.read_text(encoding="utf-8") for path in (built / "_static/styles").glob("*.css"))
    for mode in ("light", "dark"):
        rule = re.search(rf'html\[data-theme="?{mode}"?\]\{{([^}}]*--pst-color-surface[^}}]*)\}}', theme)
        surface = re.search(r"--pst-color-surface:\s*(#[0-9a-f]{6})", rule[1])[1]
        pattern = rf'html\[data-theme="{mode}"\] \.highlight (\.\w+)? ?\{{[^}}]*?(?<!-)color: (#[0-9a-fA-F]{{6}})'
        colours = {colour.lower() for name, colour in re.findall(pattern, style) if name != ".err"}
        assert len(colours) > 4
        for colour in colours:
            assert contrast(colour, surface) >= 4.5, (mode, colour, surface)


def test_a_warning_stops_the_build(tmp_path, monkeypatch, capfd):
    """A dead link is an error; the site that was there stays, and so does nothing of what was read."""
    site = site_pages.Site([], ["errors"])
    monkeypatch.setattr(site, "front", lambda: "# Front\n\n[dead](/lessons/99_none.ipynb)\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/.buildinfo").write_text("old")
    mathjax = web(tmp_path / "web") / "mathjax/es5"
    assert builder().build(site, tmp_path / "site", mathjax) == 1
    assert "99_none" in capfd.readouterr().err
    assert (tmp_path / "site/.buildinfo").read_text() == "old"
    assert not (tmp_path / "site-work").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--lessons", "99_none"], "99_none"), (["--web", "nowhere"], "make site"), (["--out", "."], "no built site")],
)
def test_bad_calls(tmp_path, monkeypatch, capsys, arguments, words):
    """One line that says what to do, status 2, nothing written."""
    if arguments[0] == "--out":
        (tmp_path / "mine.txt").write_text("x")
        arguments = ["--out", tmp_path]
    else:
        arguments = ["--out", tmp_path / "site", *arguments]
    web_arguments = [] if "--web" in arguments else ["--web", web(tmp_path / "web")]
    monkeypatch.setattr(site_pages, "ROOT", few_lessons(tmp_path / "repository"))
    monkeypatch.setattr(sys, "argv", ["build.py", *map(str, [*arguments, *web_arguments])])
    assert builder().main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error and not (tmp_path / "site").exists()
