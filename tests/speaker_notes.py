"""The speaker notes of a lesson: one for each section, with minutes, a question for the room and the usual wrong answer.

    **6 min · core.** What to say.                                  a lecture with little time shows it
    **4 min · optional.** What to say.  **If skipped:** instead.    a lecture with little time leaves it out

All minutes together are the time that the lesson states; the core ones fit the share of its session (docs/syllabus.md).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lesson_rules import Lesson, tags

CORE = {  # minutes of the lecture that each lesson may take: six sessions of 90
    "00_start_here": 10,
    "01_language_models": 30,
    "02_rnn": 50,
    "03_vanishing_gradients": 40,
    "04_lstm_forward": 50,
    "05_lstm_backward": 60,
    "06_numpy_language_model": 30,
    "07_pytorch_gpu": 40,
    "08_sequence_classification": 40,
    "09_seq2seq": 30,
    "10_attention": 60,
    "11_text_generation": 60,
    "12_scaling_up": 30,
}
WITHOUT_NOTE = r"Exercise|Symbols$|What this cannot do$|Sources$"
FORM = re.compile(r"\*\*(\d+) min · (core|optional)\.\*\* \S")
ASK, WRONG, SKIPPED = "**Ask:** ", "**Usual wrong answer:** ", "**If skipped:** "


class Section(NamedTuple):
    """A section of the instructor edition: its heading, 1 for the title or 2, and its notes."""

    heading: str
    level: int
    notes: list[str]


def sections(lesson: Lesson) -> list[Section]:
    """Return the sections in order; a cell with several headings is one, named by its first."""
    found: list[Section] = []
    for cell in lesson.editions["instructor"].cells:
        heading = re.search(r"^(##?) +(.+)$", cell.source, flags=re.MULTILINE) if cell.cell_type == "markdown" else None
        if "instructor" in tags(cell):
            found[-1].notes.append(cell.source.strip())
        elif heading:
            found.append(Section(heading[2].strip(), len(heading[1]), []))
    return found


def minutes(lesson: Lesson, kinds: tuple[str, ...] = ("core", "optional")) -> int:
    """Return the minutes of all notes of these kinds together."""
    firsts = [FORM.match(note) for section in sections(lesson) for note in section.notes]
    return sum(int(first[1]) for first in firsts if first and first[2] in kinds)


def exercise_minutes(lesson: Lesson) -> list[int]:
    """Return the minutes that the headings of the exercises name, in order."""
    titles = [section.heading for section in sections(lesson) if section.heading.startswith("Exercise")]
    return [int(number) for title in titles for number in re.findall(r"(\d+) minutes", title)]


def stated(lesson: Lesson) -> tuple[int, int]:
    """Return the minutes of the opening table: the lesson's, and the exercises' (0 if it names none)."""
    row = re.search(r"\*\*Time\*\* *\|(.+)", lesson.editions["en"].cells[0].source)[1]
    reading, exercises = re.search(r"(\d+) minutes", row), re.search(r"and (\d+) for the exercises", row)
    return int(reading[1]), int(exercises[1]) if exercises else 0


def speaker_notes(lesson: Lesson) -> list[str]:
    """Each section has one note, of the form above; their minutes are those that the lesson states."""
    found = []
    for section in sections(lesson):
        wanted = 0 if re.match(WITHOUT_NOTE, section.heading) else 1
        found += [f"{section.heading}: {len(section.notes)} notes, expected {wanted}"] * (len(section.notes) != wanted)
        found += [f"{section.heading}: {problem}" for note in section.notes for problem in _problems(note, section)]
    if (total := minutes(lesson)) != stated(lesson)[0]:
        found.append(f"the notes take {total} minutes, the opening table says {stated(lesson)[0]}")
    if (core := minutes(lesson, ("core",))) > CORE.get(lesson.name, core):
        found.append(f"the core takes {core} minutes, at most {CORE[lesson.name]}")
    if (exercises := sum(exercise_minutes(lesson))) != stated(lesson)[1]:
        found.append(f"the exercises take {exercises} minutes, the opening table says {stated(lesson)[1]}")
    return found


def _problems(note: str, section: Section) -> list[str]:
    """What a note lacks."""
    first = FORM.match(note)
    if not first:
        return ["the note begins with neither '**N min · core.** ' nor '**N min · optional.** '"]
    if first[2] == "optional":
        return [f"no '{SKIPPED}'"] * (SKIPPED not in note)
    if section.level == 1 or section.heading == "Summary":
        return []
    return [f"no '{label}'" for label in (ASK, WRONG) if label not in note]
