"""The slides without a browser: what is on them, what must not be, and what happens when they cannot be built.

What a deck must hold is a function from its page and the lesson's two editions to a list of violations; each is tried on a
planted violation too. ``tests/browser/test_slides.py`` measures the decks in a browser.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
SLIDES = ROOT / "docs" / "slides"
NOTEBOOKS = ROOT / "notebooks"
NAMES = ["03_vanishing_gradients", "05_lstm_backward"]  # figures, a widget, long equations; level-3 headings and many tables
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def load(name: str):
    """Import a module of docs/slides, whose modules find each other in their own folder."""
    spec = importlib.util.spec_from_file_location(f"slides_{name}", SLIDES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(SLIDES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SLIDES))
    return module


slides = load("build")
plan, cut, heights = slides.plan, slides.plan.cut, slides.plan.heights


def editions(name: str) -> tuple[NotebookNode, NotebookNode]:
    """Return the learner and the instructor edition of a lesson."""
    return tuple(nbformat.read(NOTEBOOKS / folder / f"{name}.ipynb", as_version=4) for folder in (".", "instructor"))


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """A folder in the place of the npm packages: the decks do not depend on what is in their files."""
    folder = tmp_path_factory.mktemp("web")
    for name in slides.ASSETS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def built(web, tmp_path_factory) -> Path:
    """A folder with the decks of two lessons."""
    out = tmp_path_factory.mktemp("decks") / "slides"
    assert slides.main([*NAMES, "--web", str(web), "--out", str(out)]) == 0
    return out


def read_page(path: Path) -> str:
    """Return a deck's page less the pictures themselves, which take long to parse."""
    return re.sub(r"base64,[^\"]*", "base64,", path.read_text())


def bare(text: str) -> str:
    """Return letters, digits and operators only, so that rendering makes no difference."""
    return re.sub(r"[^\w=+/<>-]", "", text)


# --- what a deck must hold ----------------------------------------------------------------------------------------------------


def outside(page: str) -> list[str]:
    """What a browser would fetch from another place than the folder."""
    found = re.findall(r"url\(([^)]*)\)|@import ([^;]*)", page)
    tags = BeautifulSoup(page, "html.parser").find_all(lambda tag: tag.name != "a")
    found += [(tag.get(key, ""),) for tag in tags for key in ("src", "href", "srcset", "data", "poster", "action")]
    links = (part.strip("'\" ") for parts in found for part in parts)
    return [link for link in links if re.match(r"(?:[a-z]+:)?//|\.\.|/", link)]


def notes_missing(page: str, instructor: NotebookNode) -> list[str]:
    """The notes that are not in the column of slides whose heading stands above them in the instructor edition."""
    noted = {}
    for column in BeautifulSoup(page, "html.parser").select(".slides > section"):
        noted[bare(column.find(["h1", "h2"]).text)] = bare(" ".join(note.text for note in column.select("aside.notes")))
    heading, missing = "", []
    for cell in instructor.cells:
        if cell.cell_type == "markdown" and cell.metadata.get("slideshow", {}).get("slide_type") == "notes":
            text = BeautifulSoup(re.sub(r"\]\([^)]*\)|(?m:^\d+\. )", "", cell.source).replace("_", ""), "html.parser").text
            if bare(text) not in noted.get(heading, "").replace("_", ""):
                missing.append(f"{heading}: {cell.source[:60]}")
        elif cell.cell_type == "markdown" and (titles := re.findall(r"^#{1,2} (.+)$", cell.source, flags=re.MULTILINE)):
            heading = bare(titles[-1])
    return missing


def solved(page: str, learner: NotebookNode, instructor: NotebookNode) -> list[str]:
    """The lines of solutions that are in the page; those that the learner edition has as well are no secret."""
    known = bare("\n".join(cell.source for cell in learner.cells))
    text = bare(BeautifulSoup(page, "html.parser").text)
    secret = [cell.source for cell in instructor.cells if "solution" in cell.metadata.get("tags", [])]
    assert secret
    lines = {line.strip() for source in secret for line in source.splitlines() if bare(line) not in known}
    return sorted(line for line in lines if len(bare(line)) > 15 and bare(line) in text)


def alts_wrong(page: str, learner: NotebookNode) -> list[str]:
    """The pictures whose alternative text is not that of the lesson, in order."""
    outputs = [(cell, output) for cell in learner.cells for output in cell.get("outputs", [])]
    wanted = [cell.metadata.get("alt") for cell, output in outputs if "image/png" in output.get("data", {})]
    got = [image.get("alt") for image in BeautifulSoup(page, "html.parser").find_all("img")]
    return [f"{a!r}, should be {b!r}" for a, b in zip(got, wanted, strict=False) if a != b or not a] + (
        [] if len(got) == len(wanted) else [f"{len(got)} pictures for {len(wanted)}"]
    )


def to_show(learner: NotebookNode) -> list[NotebookNode]:
    """The cells that should be on slides, code without its imports and without the choice of a style, line by line."""
    found = []
    for cell in copy.deepcopy(learner.cells):
        if "check" in cell.metadata.get("tags", []):
            continue
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            for node in ast.parse(cell.source.replace("%config", "config #")).body:
                if not isinstance(node, ast.Import | ast.ImportFrom) and "plt.style.use" not in ast.unparse(node):
                    break
                for number in range(node.lineno - 1, node.end_lineno):
                    lines[number] = ""
            cell.source = "\n".join(lines).strip()
        if cell.source:
            found.append(cell)
    return found


def lost(page: str, learner: NotebookNode) -> list[str]:
    """Code, printed lines and text of the learner edition that the slides do not have, in their order."""
    soup = BeautifulSoup(page, "html.parser")
    for aside in soup.select("aside, header.again"):
        aside.decompose()
    text, position, missing = bare(soup.select_one(".slides").text), 0, []
    for cell in to_show(learner):
        if cell.cell_type == "code":
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            parts = (cell.source + "\n" + printed).splitlines()
        else:
            marks = r"\]\([^)]*\)|^\|[\s:|-]+\|$|^\d+\. |^- |`{3}\w*|</?(?:details|summary|code|em|strong)>|---"
            plain = re.sub(marks, "\n", cell.source, flags=re.MULTILINE)
            parts = re.split(r"[|\n`*$\\{}_^<>&]", plain)
        for part in map(bare, parts):
            found = text.find(part, position)
            if found < 0:
                missing.append(part)
            else:
                position = found + len(part)
    return missing


def test_a_deck_needs_nothing_from_outside(built):
    for path in [*built.glob("*.html"), built / "assets" / "deck.css", SLIDES / "static" / "deck.js"]:
        assert outside(path.read_text()) == [], path
    for path in [*built.glob("*.html"), built / "assets" / "deck.css"]:
        local = re.findall(r'(?:src|href)="(?!data:|http|#)([^"]+)"|url\(([^)]+)\)', path.read_text())
        assert local
        assert all((path.parent / "".join(pair)).is_file() for pair in local if not pair[0].endswith(".ipynb")), path


@pytest.mark.parametrize("name", NAMES)
def test_a_deck_holds_what_it_must(built, name):
    page, (learner, instructor) = read_page(built / f"{name}.html"), editions(name)
    assert notes_missing(page, instructor) == []
    assert solved(page, learner, instructor) == []
    assert alts_wrong(page, learner) == []
    assert lost(page, learner) == []
    soup = BeautifulSoup(page, "html.parser")
    assert soup.html["lang"] == "en" and learner.cells[0].source.partition("\n")[0][2:] in soup.title.text
    assert all(section.find(["h1", "h2"]) for section in soup.select(".slides > section > section"))


def test_planted_violations_are_found(built):
    name = NAMES[0]
    page, (learner, instructor) = read_page(built / f"{name}.html"), editions(name)
    assert outside(page.replace("</head>", '<script src="https://unpkg.com/x.js"></script></head>')) == [
        "https://unpkg.com/x.js"
    ]
    assert outside("<style>a { background: url(//cdn/x.png) }</style>") == ["//cdn/x.png"]
    assert outside('<a href="https://arxiv.org">a link</a>') == []
    first = page.index('<aside class="notes">')
    assert len(notes_missing(page[:first] + page[page.index("</aside>", first) + 8 :], instructor)) == 1
    secret = next(cell.source for cell in instructor.cells if "solution" in cell.metadata.get("tags", []))
    assert solved(page.replace("</main>", f"<pre>{secret.splitlines()[-1]}</pre></main>"), learner, instructor)
    alt = next(cell.metadata.alt for cell in learner.cells if "alt" in cell.metadata)
    assert len(alts_wrong(page.replace(f'alt="{slides.html.escape(alt)}"', 'alt=""'), learner)) == 1
    pieces = re.findall(r'<div class="piece.*?</div>', page, flags=re.DOTALL)
    assert all(lost(page.replace(piece, "", 1), learner) for piece in pieces[2:40:12] if "<img" not in piece)


@pytest.mark.parametrize("name", LESSONS)
def test_no_cell_is_lost_by_splitting(name):
    learner, instructor = editions(name)
    planned = plan.deck(learner, instructor)
    pieces: dict[str, list[NotebookNode]] = {}
    for cell in planned.cells:
        pieces.setdefault(cell.metadata.get("lesson_cell"), []).append(cell)
    del pieces[None]  # headings and notes
    for cell in to_show(learner):
        body = re.sub(r"^#{1,2} .*$", "", cell.source, flags=re.MULTILINE) if cell.cell_type == "markdown" else cell.source
        got = "\n".join(piece.source for piece in pieces.pop(cell.id, []))
        if body.startswith("|") or "\n|" in body:  # the head of a table that is cut stands on both slides
            assert set(body.split("\n")) == set(got.split("\n")) | {""} or bare(body) == bare(got)
        else:
            assert bare(body) == bare(got), cell.id
    assert not pieces
    count = sum(cell.metadata.get("slideshow", {}).get("slide_type") == "notes" for cell in instructor.cells)
    assert count == sum(cell.metadata.get("slideshow", {}).get("slide_type") == "notes" for cell in planned.cells)


def test_two_builds_give_the_same_bytes(built, web, tmp_path):
    command = [sys.executable, SLIDES / "build.py", NAMES[0], "--web", web, "--out", tmp_path / "again"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "again" / f"{NAMES[0]}.html").read_bytes() == (built / f"{NAMES[0]}.html").read_bytes()


# --- how a lesson is cut ------------------------------------------------------------------------------------------------------


def lesson(*cells: NotebookNode) -> NotebookNode:
    """Return a notebook that begins with a title."""
    return new_notebook(cells=[new_markdown_cell("# 99 · Tiny"), *cells])


def columns(learner: NotebookNode, instructor: NotebookNode | None = None) -> list[list[list[str]]]:
    """Return the slides of each section, a slide as the sources (or outputs) of its pieces."""

    def shown(piece) -> str:
        return piece.cell.source or piece.cell.outputs[0].text

    sections = plan.sections(learner, instructor or learner)
    return [[[shown(piece) for piece in slide] for slide in plan.slides(section)] for section in sections]


def test_what_fits_stands_together():
    cells = [new_markdown_cell("## A\n\ntext"), new_code_cell("a = 1", outputs=[new_output("stream", text="1\n")])]
    assert columns(lesson(*cells)) == [[[]], [["text", "a = 1", "1\n"]]]


def test_long_code_is_cut_at_blank_lines_before_the_margin():
    functions = ["def f():\n" + "    a = 1\n" * 10 + "\n    return a" for _ in range(5)]
    source = "\n\n".join(functions)
    parts = cut.code(source)
    assert len(parts) == 3 and "\n\n".join(parts) == source and all(part.startswith("def f") for part in parts)
    assert cut.code("a = 1\n\nb = 2") == ["a = 1\n\nb = 2"]


def test_long_printed_text_is_cut_into_equal_parts():
    text = "".join(f"line {number}\n" for number in range(65))
    parts = cut.printed(text)
    assert "".join(parts) == text and [part.count("\n") for part in parts] == [22, 22, 21]


def test_long_text_and_tables_are_cut_between_paragraphs_and_rows():
    text = "\n\n".join(["word " * 60] * 8)
    parts = cut.text(text)
    assert len(parts) > 1 and bare("".join(parts)) == bare(text) and max(map(heights.prose, parts)) <= heights.ROOM * cut.ALONE
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {number} | {'word ' * 30} |" for number in range(20))
    parts = cut.text(table)
    assert len(parts) > 1 and all(part.startswith("| a | b |\n|---|---|\n| ") for part in parts)
    assert [line for part in parts for line in part.splitlines()[2:]] == table.splitlines()[2:]
    announced = cut.text("\n\n".join(["word " * 60] * 4 + ["For example:"] + ["word " * 60] * 4))
    assert not any(part.rstrip().endswith(":") for part in announced)


def test_equations_code_and_answers_are_not_torn():
    for whole in ("$$\na\n\nb\n$$", "```\na\n\nb\n```", "<details><summary>A</summary>\n\na\n\nb\n</details>"):
        assert heights.blocks(f"before\n\n{whole}\n\nbehind") == ["before", whole, "behind"]
    assert heights.columns("a" * 128) == 128 and heights.columns("a" * 129) == heights.WRAPPED and heights.columns("国") == 2


def test_the_lesson_can_demand_and_forbid():
    def slide(kind: str) -> dict:
        return {"slideshow": {"slide_type": kind}}

    cells = [
        new_markdown_cell("## A\n\ntext"),
        new_code_cell("a = 1", metadata=slide("subslide")),
        new_code_cell("b = 2", metadata=slide("skip")),
        new_code_cell("check(a)", metadata={"tags": ["check"]}),
        new_code_cell("import numpy\nplt.style.use(1)"),
        new_code_cell("import numpy\n\n@numpy\ndef f(): pass"),
        new_markdown_cell("```\n# no heading\n```"),
    ]
    assert columns(lesson(*cells)) == [[[]], [["text"], ["a = 1", "@numpy\ndef f(): pass", "```\n# no heading\n```"]]]


def test_minutes_are_the_seconds_of_a_section():
    note = new_markdown_cell("**3 min · core.** Say it.", metadata={"slideshow": {"slide_type": "notes"}})
    cells = [new_markdown_cell("## A\n\ntext"), new_code_cell("a = 1", metadata={"slideshow": {"slide_type": "subslide"}})]
    book = plan.deck(lesson(*cells), lesson(cells[0], note, *cells[1:]))
    timings = [cell.metadata.slideshow.get("data", {}).get("timing") for cell in book.cells if "again" in cell.metadata]
    assert timings == [None, "90", "90"]
    assert book.metadata.paced


# --- colours ------------------------------------------------------------------------------------------------------------------


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours by WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(two)])
    return (high + 0.05) / (low + 0.05)


def test_text_and_code_have_contrast(built):
    assert contrast("#ffffff", "#000000") == pytest.approx(21) and contrast("#777777", "#ffffff") < 4.5
    style = (SLIDES / "static" / "deck.css").read_text()
    variables = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style))
    tokens = dict(re.findall(r"^(\.highlight .*?) \{ color: (#[0-9a-f]{6})", style, flags=re.MULTILINE))
    assert len(tokens) >= 6
    for colour in [*tokens.values(), *(variables[name] for name in ("ink", "soft", "accent"))]:
        assert contrast(colour, variables["shade"]) >= 4.5 and contrast(colour, variables["paper"]) >= 4.5, colour
    styled = set(re.findall(r"\.highlight \.(\w+)", style))
    used = set(re.findall(r'<span class="(\w+)">', "".join(path.read_text() for path in built.glob("*.html"))))
    assert used - styled <= {"n", "o", "p", "w", "nn", "kc", "ow", "fm", "nv", "vm", "nl", "pm", "x", "err"}  # the ink itself


# --- what happens when slides cannot be built ---------------------------------------------------------------------------------


def test_bad_input_is_one_line_and_leaves_the_old_decks(built, web, tmp_path, capsys):
    out = tmp_path / "slides"
    good = [NAMES[0], "--web", str(web), "--out", str(out)]
    assert slides.main(good) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "lessons" / "instructor").mkdir(parents=True)
    (tmp_path / "lessons" / "01_broken.ipynb").write_text("{}")
    nbformat.write(new_notebook(cells=[new_markdown_cell("text")]), tmp_path / "lessons" / "02_headless.ipynb")
    nbformat.write(new_notebook(), tmp_path / "lessons" / "instructor" / "02_headless.ipynb")
    nbformat.write(lesson(), tmp_path / "lessons" / "03_alone.ipynb")
    own = ["--notebooks", str(tmp_path / "lessons")]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    capsys.readouterr()
    for arguments, said in [
        ([*good, "99"], "99: no such lesson"),
        ([*good, "--web", str(tmp_path)], "reveal.js is missing; install the npm packages: make slides"),
        ([*good[1:], "01", *own], "is not a notebook"),
        ([*good[1:], "02", *own], "stands before the first heading"),
        ([*good[1:], "03", *own], "instructor/03_alone.ipynb is missing; build it: make lessons"),
        ([*good[1:], "--notebooks", str(tmp_path / "mine")], "no lessons NN_name.ipynb there"),
        ([*good, "--out", str(tmp_path / "mine")], "holds something else than slides"),
    ]:
        assert slides.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lessons", "mine", "slides"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_other_decks_stay_and_the_index_lists_all(web, tmp_path):
    out = tmp_path / "slides"
    assert slides.main(["00", "--web", str(web), "--out", str(out)]) == 0
    (out / "98_gone.html").write_text("a deck whose lesson is gone")
    old = (out / "00_start_here.html").read_bytes()
    assert slides.main(["01", "--web", str(web), "--out", str(out)]) == 0
    assert (out / "00_start_here.html").read_bytes() == old
    listed = re.findall(r'href="(\d\d_\w+\.html)"', (out / "index.html").read_text())
    assert listed == sorted(path.name for path in out.glob("[0-9]*.html")) == ["00_start_here.html", "01_language_models.html"]


def test_a_note_without_a_section_and_a_failed_cell_are_refused():
    note = new_markdown_cell("lost", metadata={"slideshow": {"slide_type": "notes"}})
    with pytest.raises(plan.PlanError, match="stands under no heading"):
        plan.deck(lesson(), lesson(new_markdown_cell("## Only here"), note))
    failed = new_code_cell("a", outputs=[new_output("error", ename="NameError", evalue="", traceback=[])])
    with pytest.raises(plan.PlanError, match="failed with NameError"):
        plan.deck(lesson(failed), lesson())
