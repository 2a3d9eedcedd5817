"""The form of a Chinese poem: how many lines it has, of how many characters; what share of poems keeps to a form.

A line (句) ends at a punctuation mark or where the printed line ends; a printed line is a couplet (聯) as a rule. Classical
poems have lines of 5 or of 7 characters: four in a jueju (絕句), eight in a lüshi (律詩), more in a pailü (排律), always whole
couplets. Form is counted here and no more: whether an old-style poem (古詩) only happens to have eight lines, the tones and
rhymes of the eighth century would tell. The course has no dictionary of them, and today's readings are other sounds.

Reference: Owen 1981, The Great Age of Chinese Poetry.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters, as ranges for a regular expression
LOST = "\N{WHITE SQUARE}"  # how editions print a character that is lost
LENGTHS = (5, 7)  # characters of a classical line
NAMES = {4: "jueju", 8: "lüshi"}  # by the number of lines
LONG = "long"  # an even number of lines above eight: pailü, and old-style poems that look like it
IRREGULAR = "irregular"

_LINE = re.compile(f"[{HAN}{LOST}]+")
_BETWEEN_POEMS = re.compile(r"\n\s*\n")


class Form(NamedTuple):
    """name: "jueju", "lüshi", "long" or "irregular". characters: of each line; 0 if lines differ or there is none."""

    name: str
    lines: int
    characters: int

    @property
    def regular(self) -> bool:
        """Whether the form is one of the three with a name."""
        return self.name != IRREGULAR


def lines(poem: str) -> list[str]:
    """The lines of a poem, without punctuation: the runs of Chinese characters, with □ for a lost one.

    >>> lines("牀前明月光，疑是地上霜。")
    ['牀前明月光', '疑是地上霜']
    """  # noqa: RUF002
    return _LINE.findall(poem)


def form(poem: str) -> Form:
    """The form of a poem. Anything else than Chinese characters and punctuation in it makes it irregular.

    >>> form("牀前看月光，疑是地上霜。舉頭望山月，低頭思故鄉。")
    Form(name='jueju', lines=4, characters=5)
    """  # noqa: RUF002
    found = lines(poem)
    lengths = set(map(len, found))
    characters = lengths.pop() if len(lengths) == 1 else 0
    even = len(found) % 2 == 0
    name = NAMES.get(len(found), LONG if even and len(found) > max(NAMES) else IRREGULAR)
    foreign = any(c.isalnum() for c in _LINE.sub("", poem))
    return Form(name if characters in LENGTHS and not foreign else IRREGULAR, len(found), characters)


def complete_poems(text: str) -> list[str]:
    """The poems of a text, cut at its blank lines; what follows the last blank line is unfinished and left out."""
    return [poem.strip() for poem in _BETWEEN_POEMS.split(text)[:-1] if poem.strip()]


def shares(poems: Sequence[str]) -> dict[str, float]:
    """The share of poems in regular form ("regular"), of each form by name and characters ("jueju 5"), and the rest.

    Keys are always the same: "regular", "jueju 5", "jueju 7", "lüshi 5", ..., "long 7", "irregular".

    Raises:   ValueError: no poems.
    """
    if not poems:
        raise ValueError("poems: expected at least one, got none")
    forms = Counter((f.name, f.characters) if f.regular else (IRREGULAR, 0) for f in map(form, poems))
    found = {f"{name} {n}": forms[name, n] / len(poems) for name in (*NAMES.values(), LONG) for n in LENGTHS}
    irregular = forms[IRREGULAR, 0] / len(poems)
    return {"regular": 1 - irregular} | found | {IRREGULAR: irregular}
