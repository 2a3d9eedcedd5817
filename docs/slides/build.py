"""Turn lessons into slides: one reveal.js deck each, complete without a network.

    python docs/slides/build.py                          every lesson, into build/slides
    python docs/slides/build.py 02_rnn 03                some; the other decks stay as they are
    python docs/slides/build.py --web build/web/node_modules --out build/slides

The folder that it writes holds the decks, an index and the assets (reveal.js, MathJax, fonts). Nothing in it points outside,
so it can be copied and opened from anywhere. It is built beside the old one and takes its place at the end.
"""

from __future__ import annotations

import argparse
import html
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib
import nbformat
import plan
from nbconvert import SlidesExporter
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SANS = "reveal.js/dist/theme/fonts/source-sans-pro"
ASSETS = {  # in the folder of npm packages -> beside the decks
    "reveal.js/dist/reveal.js": "reveal/reveal.js",
    "reveal.js/dist/reveal.css": "reveal/reveal.css",
    "reveal.js/plugin/notes/notes.js": "reveal/notes.js",
    "reveal.js/LICENSE": "reveal/LICENSE",
    "mathjax/es5/tex-svg-full.js": "mathjax/tex-svg-full.js",
    "mathjax/LICENSE": "mathjax/LICENSE",
    **{
        f"{SANS}/source-sans-pro-{face}.woff": f"fonts/source-sans-pro-{face}.woff"
        for face in ("regular", "italic", "semibold", "semibolditalic")
    },
    f"{SANS}/LICENSE": "fonts/LICENSE-source-sans-pro",
}
OURS = {  # any other file -> beside the decks
    HERE / "static" / "deck.css": "deck.css",
    HERE / "static" / "deck.js": "deck.js",
    FONTS / "DejaVuSansMono.ttf": "fonts/DejaVuSansMono.ttf",
    FONTS / "DejaVuSansMono-Bold.ttf": "fonts/DejaVuSansMono-Bold.ttf",
    FONTS / "LICENSE_DEJAVU": "fonts/LICENSE-dejavu",
}
INDEX = HERE / "static" / "index.html"  # with {items}, the list of the decks


class SlidesError(Exception):
    """Slides that cannot be built; the message says what is wrong, and what to do."""


def read(path: Path) -> NotebookNode:
    """Return a notebook. Raises: SlidesError: if it is missing or is none."""
    try:
        return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except FileNotFoundError as error:
        raise SlidesError(f"{path} is missing; build it: make lessons") from error
    except Exception as error:  # nbformat raises whatever JSON and its schema raise
        raise SlidesError(f"{path} is not a notebook ({' '.join(str(error).split())[:80]}); build it: make lessons") from error


def select(notebooks: Path, names: list[str]) -> list[Path]:
    """Return the learner notebooks that the names begin, all of them for no name. Raises: SlidesError: for an unknown name."""
    found = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    for name in names:
        if not name or not any(path.stem.startswith(name) for path in found):
            raise SlidesError(f"{name or repr(name)}: no such lesson in {notebooks}; name one as 02_rnn, or 02")
    if not found:
        raise SlidesError(f"{notebooks}: no lessons NN_name.ipynb there; build them: make lessons")
    return [path for path in found if not names or any(path.stem.startswith(name) for name in names)]


def exporter() -> SlidesExporter:
    """Return nbconvert's exporter of slides with our template."""
    return SlidesExporter(template_name="lecture", extra_template_basedirs=[str(HERE / "templates")], exclude_anchor_links=True)


def book(path: Path) -> NotebookNode:
    """Return the notebook of a lesson's slides, from its two editions. Raises: SlidesError."""
    try:
        return plan.deck(read(path), read(path.parent / "instructor" / path.name))
    except plan.PlanError as error:
        raise SlidesError(f"{path}: {error}; mend its source and build it: make lessons") from error


def deck(path: Path, slides: SlidesExporter) -> str:
    """Return the page of one lesson's slides. Raises: SlidesError."""
    page, _ = slides.from_notebook_node(book(path))
    return page.strip() + "\n"


def assets(web: Path, out: Path) -> None:
    """Copy what the decks load. Raises: SlidesError: naming the first file that is missing."""
    pairs = [(web / source, target) for source, target in ASSETS.items()] + list(OURS.items())
    for source, target in pairs:
        if not source.is_file():
            raise SlidesError(f"{source} is missing; install the npm packages: make slides")
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / target)


def index(out: Path, notebooks: Path) -> str:
    """Return the page that lists the decks in a folder."""
    items = []
    for path in sorted(out.glob("[0-9][0-9]_*.html")):
        planned = book(notebooks / f"{path.stem}.ipynb")
        count = sum("again" in cell.metadata for cell in planned.cells)
        items.append(f'<li><a href="{path.name}">{html.escape(planned.metadata.title)}</a>, {count} slides</li>')
    return INDEX.read_text(encoding="utf-8").replace("{items}", "\n".join(items))


def build(lessons: list[Path], web: Path, out: Path) -> None:
    """Build the decks of these lessons and put them in place of the old ones; an error leaves ``out`` as it was."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "assets" / "deck.js").is_file())):
        raise SlidesError(f"{out} holds something else than slides; name another folder with --out")
    notebooks = lessons[0].parent
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        new = Path(scratch) / "new"
        assets(web, new / "assets")
        for old in out.glob("[0-9][0-9]_*.html"):
            if (notebooks / f"{old.stem}.ipynb").exists():
                shutil.copyfile(old, new / old.name)
        slides = exporter()
        for path in lessons:
            (new / f"{path.stem}.html").write_text(deck(path, slides), encoding="utf-8")
            print(f"{path.stem}.html", flush=True)
        (new / "index.html").write_text(index(new, notebooks), encoding="utf-8")
        if not out.exists():
            new.replace(out)
            return
        out.replace(Path(scratch) / "old")
        try:
            new.replace(out)
        except OSError:
            (Path(scratch) / "old").replace(out)
            raise


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="LESSON", help="such as 02_rnn, or 02; none means all")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides", help="the folder of the decks (build/slides)")
    parser.add_argument("--web", type=Path, default=ROOT / "build" / "web" / "node_modules", help="the folder of npm packages")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="the folder of the lessons")
    options = parser.parse_intermixed_args(arguments)
    try:
        build(select(options.notebooks, options.names), options.web, options.out.resolve())
    except (SlidesError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
