"""The reference: a page for each module, made from its source; a page that lists them by subject."""

from __future__ import annotations

import re
from collections.abc import Mapping

from docstring_rst import Link, convert, inline
from module_facts import PACKAGE, Member, Module

SUBJECTS = {
    "Cells and sequences": "cells sequence unroll caches stacked variants weights",
    "Layers, losses and checks": "shapes trees layers gradcheck optim metrics jacobians",
    "Language models": "text language_model ngram checkpoint archive",
    "Writing text": "decoding filters constraints writing",
    "PyTorch and the GPU": """torch_lstm torch_stack torch_sequence torch_kernels torch_triton torch_dropout torch_parallel
        torch_scan torch_model roofline""",
    "Classification": """classifier classifier_model classifier_task classifier_engine ngram_classifier labelled languages
        torch_tokens""",
    "Sequence to sequence": """attention_by_hand attention seq2seq translator translation translation_engine translation_task
        units""",
    "Training": "training engines torch_engine tasks budget progress run_folder",
    "Data": "downloads datasets embedded poems pairs dates date_forms summaries bodies connected errors",
    "Looking inside, and judging samples": """probes association text_properties clamping novelty code_judge verse""",
    "Figures and explorers": """plotting diagrams portraits sampling_plots explorer sampling_explorer gate_explorer
        gradient_explorer""",
    "Exercises": """exercises exercise_book diagnosis learner_call tensor_call solved workspace rnn_book jacobian_book lstm_book
        variant_book torch_book window_book conversion_book classifier_book beam_book attention_book sampling_book
        scaling_book""",
    "Grading": "grading grading_plan grading_watch grading_worker grading_kernel",
    "The command line": "cli cli_train cli_generate cli_chat cli_models cli_classify cli_grade doctor",
}


def by_subject(names: list[str]) -> dict[str, list[str]]:
    """The modules of each subject; a subject without any is left out."""
    groups = {subject: [name for name in listed.split() if name in names] for subject, listed in SUBJECTS.items()}
    return {subject: found for subject, found in groups.items() if found}


class Index:
    """What has a page of its own or a place on one, and when a name in a text means it."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self.names = {name: f"{PACKAGE}.{name}" for name in modules}  # as texts write it -> full name
        self.owners: dict[str, list[str]] = {}  # member -> full names
        self.ambiguous: set[str] = set()  # what is an argument or a field somewhere means no function in a sentence
        self.aliases: dict[str, str] = {}  # a name where it is imported -> where it is defined
        for module in modules.values():
            self.aliases |= {f"{PACKAGE}.{module.name}.{name}": full for name, full in module.imported.items()}
            for member in module.members:
                full = f"{PACKAGE}.{module.name}.{member.name}"
                self.names[f"{module.name}.{member.name}"] = full
                self.owners.setdefault(member.name, []).append(full)
                self.ambiguous |= set(member.names)
                for part in member.members:
                    self.names[f"{module.name}.{member.name}.{part.name}"] = f"{full}.{part.name}"
                    self.ambiguous |= {part.name, *part.names}

    def full(self, name: str) -> str | None:
        """The full name, if it has a place."""
        name = name.removeprefix(f"{PACKAGE}.")
        return self.names.get(name)

    def signature(self, text: str) -> str:
        """A signature whose types have the names under which they are defined."""
        return re.sub(rf"\b{PACKAGE}\.\w+\.\w+", lambda match: self.aliases.get(match[0], match[0]), text)

    def link(self, module: Module, me: str = "") -> Link:
        """The rule for the texts of a module, on a member of it: names that mean this member are no links."""
        own = {member.name for member in module.members}

        def link(name: str, code: bool) -> str | None:
            if name == me or name == module.name:
                return None
            if "." in name:
                return self.full(name)
            here = f"{module.name}.{name}" if name in own else module.imported.get(name, "")
            if code:
                return self.full(here) or self.full(name)
            title = sum(map(str.isupper, name)) > 1 and any(map(str.islower, name))  # LSTMParams, ShapeError
            if title and not self.full(here) and len(self.owners.get(name, ())) == 1:
                return self.owners[name][0]
            plain = "_" in name.strip("_") and name not in self.ambiguous
            return self.full(here) if title or plain else None

        return link


def module_page(module: Module, rank: int | None, lessons: list[str], index: Index) -> str:
    """reStructuredText of a module's page; lessons: links to those that use it."""
    link = index.link(module)
    docstring = convert(module.docstring, (), link)
    used = "Lessons that use it: " + ", ".join(lessons) + "." if lessons else "No lesson imports it."
    place = f"Rank {rank}. " if rank is not None else ""
    first = next((number for number, line in enumerate(docstring) if not line), len(docstring))
    title = f"``{module.name}``"
    head = [title, "=" * len(title), "", f".. py:module:: {PACKAGE}.{module.name}", "", *docstring[:first], ""]
    head += [".. container:: course-used", "", f"   {place}{used}", "", *docstring[first:], ""]
    body = [line for member in module.members for line in [*_member(member, module, index), ""]]
    return "\n".join(head + body) + "\n"


def _member(member: Member, module: Module, index: Index) -> list[str]:
    link = index.link(module, member.name)
    if member.kind == "data":
        options = [f"   :value: {member.signature.removeprefix(' = ')}"] if member.signature else []
        return [f".. py:data:: {member.name}", *options, "", f"   {inline(member.note, link)}"]
    if member.kind in {"attribute", "property"}:
        options = [f"   :type: {index.signature(member.signature)}"] if member.signature else []
        options += ["   :no-contents-entry:"]
        note = [f"   {inline(member.note, link)}"] if member.note else []
        out = [f".. py:{member.kind}:: {member.name}", *options, "", *note]
    else:
        quiet = ["   :no-contents-entry:"] if member.kind == "method" else []
        out = [f".. py:{member.kind}:: {member.name}{index.signature(member.signature)}", *quiet, ""]
    out += [f"   {line}" if line else "" for line in convert(member.docstring, member.names, link)]
    for part in member.members:
        out += ["", *[f"   {line}" if line else "" for line in _member(part, module, index)]]
    return out


def index_page(modules: Mapping[str, Module], index: Index, ranks: Mapping[str, int]) -> str:
    """reStructuredText of the list of all modules, by subject."""
    title = "Reference"
    about = f"""The library ``{PACKAGE}``: {len(modules)} modules, each about one subject. A module imports only from modules of
lower rank; ranks are on the pages. :doc:`/notation` explains the symbols and the shapes."""
    out = [title, "=" * len(title), "", about, ""]
    for subject, names in by_subject(list(modules)).items():
        out += [subject, "-" * len(subject), "", ".. list-table::", "   :class: course-modules", "   :widths: 25 75", ""]
        for name in names:
            module = modules[name]
            out += [f"   * - :py:mod:`{name} <{PACKAGE}.{name}>`", f"     - {inline(module.subject, index.link(module))}"]
        out += ["", ".. toctree::", "   :hidden:", f"   :caption: {subject}", "", *[f"   {name}" for name in names], ""]
    return "\n".join(out)


def ranks_of(docstring: str) -> dict[str, int]:
    """The rank of each module, from the table in the package's docstring."""
    found = {}
    for line in docstring.splitlines():
        if match := re.match(r"\s*rank (\d+)\s+(.*)", line):
            found |= dict.fromkeys(match[2].split(), int(match[1]))
    return found
