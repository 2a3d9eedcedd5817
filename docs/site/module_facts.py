"""What the reference pages say of a module, read from its source without importing it; and which lessons use which module."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

PACKAGE = "course_lib"


@dataclass
class Member:
    """A public name of a module, or a method: kind is function, class, data, attribute, method or property."""

    name: str
    kind: str
    signature: str = ""  # arguments and result
    docstring: str = ""
    note: str = ""  # the comment behind a field or a constant
    names: tuple[str, ...] = ()  # what the docstring may explain: arguments, or fields
    members: list[Member] = field(default_factory=list)


@dataclass
class Module:
    """A module: its docstring, its public members in their order, and what its names from the library mean."""

    name: str
    docstring: str
    members: list[Member]
    imported: dict[str, str]  # name in this module -> full name

    @property
    def subject(self) -> str:
        """The first sentence of the docstring."""
        first = " ".join(self.docstring.partition("\n\n")[0].split())
        return re.split(r"(?<=[.!]) (?=[A-Z])", first)[0].rstrip(":") if first else self.name


def read_modules(package: Path) -> dict[str, Module]:
    """The modules of a package by name, in alphabetical order."""
    return {path.stem: read_module(path) for path in sorted(package.glob("*.py")) if path.stem != "__init__"}


def read_module(path: Path) -> Module:
    """One module."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    imported = imported_names(tree)
    members = [member for node in tree.body for member in _members(node, lines, imported)]
    return Module(path.stem, ast.get_docstring(tree) or "", members, imported)


def imported_names(tree: ast.AST) -> dict[str, str]:
    """The names that come from the library: as they are called here -> full names."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.asname or a.name: a.name for a in node.names if a.name.split(".")[0] == PACKAGE}
    return found


def modules_used(tree: ast.AST) -> set[str]:
    """The modules of the library that a piece of code imports, or imports something from."""
    return {full.split(".")[1] for full in imported_names(tree).values() if "." in full}


def modules_of_lesson(notebook: nbformat.NotebookNode) -> set[str]:
    """The modules of the library that the code cells of a lesson import."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    code = [re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE) for source in code]  # commands to IPython
    return set().union(*(modules_used(ast.parse(source)) for source in code))


def _members(node: ast.stmt, lines: list[str], imported: dict[str, str]) -> list[Member]:
    name = getattr(node, "name", "")
    if isinstance(node, ast.FunctionDef) and not name.startswith("_"):
        return [_function(node, imported, "function")]
    if isinstance(node, ast.ClassDef) and not name.startswith("_"):
        return [_class(node, lines, imported)]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.startswith("_")]
    value = ast.unparse(node.value) if names and getattr(node, "value", None) else ""
    shown = f" = {value}" if value and len(value) <= 60 else ""
    return [Member(name, "data", signature=shown, note=_comment(node, lines)) for name in names]


def _class(node: ast.ClassDef, lines: list[str], imported: dict[str, str]) -> Member:
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    init = next((part for part in functions if part.name == "__init__"), None)
    members = [
        Member(part.target.id, "attribute", annotation(part.annotation, imported), note=_comment(part, lines))
        for part in fields
        if not part.target.id.startswith("_")
    ]
    members += [_function(part, imported, "method") for part in functions if not part.name.startswith("_")]
    called = [f"{part.target.id}{'=' + ast.unparse(part.value) if part.value else ''}" for part in fields]
    signature = arguments(init.args, imported, bound=True) if init else f"({', '.join(called)})" if called else ""
    explained = (*(part.target.id for part in fields), *(_names(init.args) if init else ()))
    return Member(node.name, "class", signature, ast.get_docstring(node) or "", names=explained, members=members)


def _function(node: ast.FunctionDef, imported: dict[str, str], kind: str) -> Member:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    bound = kind == "method" and "staticmethod" not in decorators
    if decorators & {"property", "cached_property", "functools.cached_property"}:
        return Member(node.name, "property", annotation(node.returns, imported), ast.get_docstring(node) or "")
    result = f" -> {annotation(node.returns, imported)}" if node.returns else ""
    signature = arguments(node.args, imported, bound) + result
    return Member(node.name, kind, signature, ast.get_docstring(node) or "", names=_names(node.args))


def _names(args: ast.arguments) -> tuple[str, ...]:
    plain = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return tuple(arg.arg for arg in plain if arg)


def arguments(args: ast.arguments, imported: dict[str, str], bound: bool) -> str:
    """The arguments of a function in brackets, without those that a method receives by itself."""
    args = ast.parse(f"def f({ast.unparse(args)}): pass").body[0].args  # a copy
    if bound:
        (args.posonlyargs or args.args).pop(0)
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if arg and arg.annotation:
            arg.annotation = _FullNames(imported).visit(arg.annotation)
    return f"({ast.unparse(args)})"


def annotation(node: ast.expr | None, imported: dict[str, str]) -> str:
    """A type with full names of what comes from the library, so that it can become a link."""
    return ast.unparse(_FullNames(imported).visit(ast.parse(ast.unparse(node), mode="eval").body)) if node else ""


class _FullNames(ast.NodeTransformer):
    """Puts full names for those that come from the library."""

    def __init__(self, imported: dict[str, str]) -> None:
        self.imported = imported

    def visit_Name(self, node: ast.Name) -> ast.expr:
        full = self.imported.get(node.id)
        return ast.parse(full, mode="eval").body if full else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Of ``Annotated[int, ...]``, which describes an option of a command, the type alone."""
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)


def _comment(node: ast.stmt, lines: list[str]) -> str:
    """The comment at the end of a statement's last line."""
    rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return rest.strip().removeprefix("#").strip() if rest.strip().startswith("#") else ""
