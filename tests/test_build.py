"""The builder: what the editions hold, the same bytes twice, differences noticed, failures harmless."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import lesson_rules
import pytest
from nbconvert import HTMLExporter
from tiny_lesson import TINY, build_tiny, builder, files, load, run_builder, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The source of a tiny lesson that has been built."""
    return build_tiny(tmp_path_factory.mktemp("tiny"))


def test_building_twice_gives_the_same_bytes(tiny, tmp_path):
    # Only the bytes of the cell that prints an address may differ, and it says so by its tag.
    text = TINY.replace('print("at", id(plt))\n', "")
    built = []
    for name in ("one", "two"):
        result = run_builder(write_tiny(tmp_path / name, text).parents[1])
        assert result.returncode == 0, result.stderr
        built.append(files(tmp_path / name))
    assert sorted(built[0]) == ["99_tiny.ipynb", "instructor/99_tiny.ipynb", "zh/99_tiny.ipynb"]
    assert built[0] == built[1]


def tagged(notebook, tag):
    """The first cell with a tag."""
    return next(cell for cell in notebook.cells if tag in lesson_rules.tags(cell))


def test_what_each_edition_holds(tiny):
    editions = load(tiny).editions
    text = {name: "\n".join(cell.source for cell in notebook.cells) for name, notebook in editions.items()}
    holds = {name: [s in text[name] for s in ("Summary", "小结", "2 * x", "Ask what")] for name in text}
    assert holds == {
        "en": [True, False, False, False],
        "zh": [False, True, False, False],
        "instructor": [True, False, True, True],
    }
    checks = {name: lesson_rules.printed(tagged(notebook, "check")) for name, notebook in editions.items()}
    assert checks == dict(en="○ double: not written yet\n", zh="○ double: not written yet\n", instructor="✓ double\n")
    code = {name: [cell for cell in editions[name].cells if cell.cell_type == "code"] for name in ("en", "zh")}
    assert code["en"] == code["zh"]
    picture = code["en"][1].outputs[0]
    assert picture.metadata == {"image/png": {"alt": "A line: it rises from (0, 0) to (1, 1)."}}
    assert "version" not in str(editions["en"].metadata)


def test_the_picture_has_its_alt_in_html(tiny):
    html, _ = HTMLExporter(template_name="classic").from_filename(str(builder.notebook_path(tiny, builder.EDITIONS["en"])))
    assert 'alt="A line: it rises from (0, 0) to (1, 1)."' in html


def test_an_english_lesson_has_no_chinese_edition(tiny, tmp_path):
    source = write_tiny(tmp_path, TINY.replace("lang-zh", "instructor"))
    assert list(builder.editions(builder.read_source(source))) == ["en", "instructor"]
    shutil.copytree(tiny.parents[1] / "zh", tmp_path / "zh")
    assert any("no lang-zh cell" in line for line in builder.check(source))


def test_check_passes_and_notices_one_character_anywhere(tiny, tmp_path):
    root = tiny.parents[1]
    assert run_builder(root, "--check").returncode == 0
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    body = TINY.index("# 99")
    places = [match.start() for match in re.finditer(r"\w+", TINY) if match.start() >= body]
    for place in places[::3]:
        changed = TINY[:place] + chr(ord(TINY[place]) ^ 1) + TINY[place + 1 :]
        source = write_tiny(tmp_path, changed)
        try:
            assert builder.check(source), changed[place - 20 : place + 20]
        except builder.LessonError:
            pass  # it is no notebook any more
    result = run_builder(tmp_path, "--check")
    assert result.returncode == 1
    assert "99_tiny.ipynb" in result.stdout


@pytest.mark.parametrize("edition", ["en", "zh", "instructor"])
def test_check_notices_an_edited_notebook(tiny, tmp_path, edition):
    shutil.copytree(tiny.parents[1], tmp_path, dirs_exist_ok=True)
    source = tmp_path / "src" / tiny.name
    path = builder.notebook_path(source, builder.EDITIONS[edition])
    whole = path.read_text(encoding="utf-8")
    for old, new in [
        ("step = 7", "step = 8"),
        ('"execution_count": 5', '"execution_count": 6'),
        ('"nbval-ignore-output"', '"check"'),
    ]:
        if old in whole:
            path.write_text(whole.replace(old, new, 1), encoding="utf-8")
            assert builder.check(source), old
    path.write_text(whole.replace("one third is 0.333", "one third is 0.334"), encoding="utf-8")
    assert bool(builder.check(source)) == (edition != "instructor"), "only en and zh have each other to compare with"
    path.unlink()
    assert any("missing" in line for line in builder.check(source))


def test_check_notices_a_notebook_without_a_source(tiny, tmp_path):
    shutil.copytree(tiny.parents[1], tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "99_tiny.ipynb", tmp_path / "98_gone.ipynb")
    result = run_builder(tmp_path, "--check")
    assert (result.returncode, "98_gone.ipynb: has no source" in result.stdout) == (1, True)


def test_a_lesson_that_fails_leaves_the_old_notebooks(tiny, tmp_path):
    shutil.copytree(tiny.parents[1], tmp_path, dirs_exist_ok=True)
    old = files(tmp_path)
    write_tiny(tmp_path, TINY.replace("return 2 * x", "return 2 * z"))
    result = run_builder(tmp_path)
    assert result.returncode == 1
    assert "99_tiny, instructor edition: this cell failed:" in result.stderr
    assert "NameError: name 'z' is not defined" in result.stderr
    assert "\x1b" not in result.stderr
    assert files(tmp_path) == old
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["31"], "error: 31: no such lesson"), (["--root", "/nonexistent"], "no lesson sources"), ([], "not a MyST notebook")],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    write_tiny(tmp_path, "```{code-cell} ipython3\n:tags: [open\n```\n")
    result = run_builder(tmp_path, *arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
