"""Assemble the folder that Sphinx reads: the front page from the README, lessons, reference, documents, and the links between.

Links in the repository's texts are relative to the repository. On the site, one to a file with a page leads to that page; one
to another file loses its address and keeps its words, since nothing is there to be opened.
"""

from __future__ import annotations

import ast
import copy
import html
import posixpath
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
from docstring_rst import inline
from module_facts import PACKAGE, modules_of_lesson, read_modules
from reference_pages import Index, index_page, module_page, ranks_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FRONT = ("Two commands", "The course")  # sections of the README on the front page, behind its beginning
DOCUMENTS = {  # file of the repository -> page; a file that is not there has none
    "docs/syllabus.md": "teaching/syllabus.md",
    "docs/grading.md": "teaching/grading.md",
    "docs/architecture.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
}
SECTIONS = {
    "teaching": ("Teaching", "For those who give the course or grade it."),
    "measurements": ("Measurements", "What was measured, with the command, the device and the date."),
    "project": ("The project", "How it is built, and how to change it."),
}
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")


class Site:
    """The pages of the site; or of a part of it, the named lessons and modules (None: all) without the other documents."""

    def __init__(self, lessons: Iterable[str] | None = None, modules: Iterable[str] | None = None) -> None:
        every = {path.stem: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
        self.lessons = {name: path for name, path in every.items() if lessons is None or name in set(lessons)}
        chinese = sorted((ROOT / "notebooks/zh").glob("*.ipynb"))
        self.chinese = {path.stem: path for path in chinese if path.stem in self.lessons}
        self.notebooks = {name: nbformat.read(path, as_version=4) for name, path in self.lessons.items()}
        self.used = {name: modules_of_lesson(notebook) for name, notebook in self.notebooks.items()}
        read = read_modules(ROOT / PACKAGE)
        self.modules = {name: module for name, module in read.items() if modules is None or name in set(modules)}
        self.index = Index(self.modules)
        self.pictures: set[str] = set()  # of the texts that were relinked
        self.pages = {f"notebooks/{name}.ipynb": f"lessons/{name}.ipynb" for name in self.lessons}
        self.pages |= {f"notebooks/zh/{name}.ipynb": f"lessons/zh/{name}.ipynb" for name in self.chinese}
        self.pages |= {f"{PACKAGE}/{name}.py": f"api/{name}.rst" for name in self.modules}
        self.pages |= {"README.md": "index.md", "notebooks": "lessons/index.md"}
        if lessons is None and modules is None:
            self.pages |= {file: page for file, page in DOCUMENTS.items() if (ROOT / file).exists()}
            measured = sorted((ROOT / "docs/measurements").glob("*.md"))
            self.pages |= {f"docs/measurements/{path.name}": f"measurements/{path.name}" for path in measured}
            self.pages["docs/measurements"] = "measurements/index.md"

    def title(self, name: str) -> str:
        """The title of a lesson, as "04 · LSTM forward"."""
        return re.search(r"^# (.+)$", self.notebooks[name].cells[0].source, re.MULTILINE)[1].strip()

    def equations(self) -> dict[str, str]:
        """Number of each equation -> the page on which it stands."""
        text = {name: "\n".join(cell.source for cell in book.cells) for name, book in self.notebooks.items()}
        return {tag: f"lessons/{name}" for name in text for tag in re.findall(r"\\tag\{([\d.]+)\}", text[name])}

    def users(self, module: str) -> list[str]:
        """The lessons that import a module."""
        return [name for name, used in self.used.items() if module in used]

    def write(self, folder: Path) -> None:
        """Write everything."""
        wanted = {
            "index.md": self.front(),
            "notation.md": (HERE / "notation.md").read_text(encoding="utf-8"),
            "lessons/index.md": self.list_of_lessons(),
            "api/index.rst": index_page(self.modules, self.index, self.ranks),
        }
        for name, notebook in self.notebooks.items():
            wanted[f"lessons/{name}.ipynb"] = self.lesson(notebook, "notebooks", self.used[name])
        for name, path in self.chinese.items():
            book = nbformat.read(path, as_version=4)
            wanted[f"lessons/zh/{name}.ipynb"] = self.lesson(book, "notebooks/zh", self.used[name])
        for name, module in self.modules.items():
            links = [f":doc:`{_escaped(self.title(user))} </lessons/{user}>`" for user in self.users(name)]
            wanted[f"api/{name}.rst"] = module_page(module, self.ranks.get(name), links, self.index)
        for file, page in self.pages.items():
            if file.endswith(".md") and page != "index.md":
                wanted[page] = self.relink((ROOT / file).read_text(encoding="utf-8"), posixpath.dirname(file))
        wanted["project/library.md"] = self.library()
        for section in filter(self.parts, SECTIONS):
            wanted[f"{section}/index.md"] = self.section(section, wanted)
        for name, text in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        for picture in filter(lambda file: (ROOT / file).exists(), sorted(self.pictures)):  # Sphinx says which is not
            (folder / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / picture, folder / picture)

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each module."""
        return ranks_of(ast.get_docstring(ast.parse((ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8"))) or "")

    def relink(self, text: str, folder: str) -> str:
        """A Markdown text of the repository, its links changed for the site; code is left alone."""

        def changed(match: re.Match[str]) -> str:
            target, _, anchor = match["target"].partition("#")
            if re.match(r"\w+:", target) or not target:
                return match[0]
            file = posixpath.normpath(posixpath.join(folder, target))
            if match["picture"]:
                self.pictures.add(file)
                return f"![{match['text']}](/{file})"
            if page := self.pages.get(file):
                return f"[{match['text']}](/{page}{'#' + anchor if anchor else ''})"
            return match["text"]

        parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
        return "".join(part if number % 2 else _LINK.sub(changed, part) for number, part in enumerate(parts))

    def lesson(self, notebook: nbformat.NotebookNode, folder: str, used: set[str]) -> str:
        """A lesson for the site: pictures described, formulas in folded answers marked, the modules at its end."""
        notebook = copy.deepcopy(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = self.relink(folded(cell.source), folder)
            elif alt := cell.metadata.get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
        notebook.cells.append(nbformat.v4.new_markdown_cell(self.modules_used(used, folder.endswith("zh")), id="modules-used"))
        return nbformat.writes(notebook)

    def modules_used(self, used: set[str], chinese: bool) -> str:
        """The end of a lesson: which modules it uses, and what each is about."""
        lines = [f"## {'本课用到的模块' if chinese else 'Modules used here'}", ""]
        for name in sorted(used):
            if module := self.modules.get(name):
                lines.append(f"- {{py:mod}}`{name} <{PACKAGE}.{name}>`: {_markdown(module.subject)}")
            else:
                lines.append(f"- `{name}`")
        return "\n".join(lines)

    def front(self) -> str:
        """The front page: what the README begins with, and its sections FRONT."""
        readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
        text = readme[""] + "".join(f"\n## {name}\n{readme[name]}" for name in FRONT)
        links = ["[notation](/notation.md)", "[reference of the library](/api/index.rst)"]
        links += [f"[{title.lower()}](/{section}/index.md)" for section, (title, _) in SECTIONS.items() if self.parts(section)]
        more = f"\n\nAlso here: {', '.join(links)}.\n"
        tree = ["lessons/index", "notation", "api/index", *[f"{section}/index" for section in SECTIONS if self.parts(section)]]
        return self.relink(text, "") + more + _toctree(tree)

    def library(self) -> str:
        """What the README says besides: a page of its own."""
        readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
        rest = "".join(f"\n## {name}\n{text}" for name, text in readme.items() if name and name not in FRONT)
        return self.relink(f"# The library in short\n{rest}", "")

    def list_of_lessons(self) -> str:
        """The lessons in order, with what the learner can do afterwards."""
        readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
        tree = [*self.lessons, *[f"zh/{name}" for name in self.chinese]]
        return "# Lessons\n" + self.relink(readme["The course"], "") + _toctree(tree)

    def parts(self, section: str) -> list[str]:
        """The pages of a section, without its index."""
        pages = [page for page in self.pages.values() if page.startswith(f"{section}/") and not page.endswith("index.md")]
        return (["project/library.md"] if section == "project" else []) + pages

    def section(self, section: str, pages: dict[str, str]) -> str:
        """The page that lists a section's pages."""
        title, about = SECTIONS[section]
        names = [posixpath.basename(page).removesuffix(".md") for page in self.parts(section)]
        listed = [f"- [{_title(pages[f'{section}/{name}.md'])}]({name}.md)" for name in names]
        return "\n".join([f"# {title}", "", about, "", *listed, ""]) + _toctree(names)


def folded(text: str) -> str:
    """Markdown whose folded answers without blank lines, which are HTML, have their formulas marked for MathJax."""

    def formula(match: re.Match[str]) -> str:
        return rf'<span class="math notranslate nohighlight">\({html.escape(html.unescape(match[1]))}\)</span>'

    def changed(match: re.Match[str]) -> str:
        parts = re.split(r"(\n\s*\n)", match[0])
        as_html = [re.sub(r"\$([^$\n]+)\$", formula, part) if part.startswith("<details") else part for part in parts]
        return "".join(as_html)

    return re.sub(r"<details.*?</details>", changed, text, flags=re.DOTALL)


def sections(markdown: str) -> dict[str, str]:
    """A document by its headings of the second level; the beginning has the name ""."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def _title(markdown: str) -> str:
    return re.search(r"^# (.+)$", markdown, re.MULTILINE)[1]


def _toctree(names: list[str]) -> str:
    return "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def _escaped(title: str) -> str:
    return inline(title).replace("<", r"\<")


def _markdown(text: str) -> str:
    """A sentence of a docstring in Markdown: its code stays code, no other sign means anything."""
    parts = re.split(r"(``[^`]+``)", text)
    return "".join(part[1:-1] if part.startswith("``") else re.sub(r"([\\*_$<>\[\]])", r"\\\1", part) for part in parts)
