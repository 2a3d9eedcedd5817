"""A corpus of Chinese poems: read from the files of chinese-poetry, split by poem, rare characters replaced.

A poem is a text of one couplet a line, without title and author, and a blank line follows each poem:

    秦川雄帝宅，函谷壯皇居。
    綺殿千尋起，離宮百雉餘。

Anthologies repeat themselves: a poem stands in two files, three songs are printed as one poem and as three, editors differ in a
character. Poems that share five characters in a row (punctuation and line ends aside) stay together on one side.
"""  # noqa: RUF002

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from course_lib.connected import components
from course_lib.errors import CourseError
from course_lib.verse import HAN, LOST, lines

SHARED = 5  # characters in a row, which tie poems together: with 4, 758 poems would hang together
FEWEST = 5  # a character that occurs less often in the training poems is replaced by □
BLANK_LINE = "\n\n"  # after each poem

PUNCTUATION = "\uff0c\u3002\uff1f\uff01"  # comma, full stop, question mark, exclamation mark: as wide as the characters

_WHOLE = re.compile(f"[{HAN}{PUNCTUATION}\n]+")


def read(paths: Iterable[Path]) -> list[str]:
    """The poems of JSON files in their order: each once, whatever its punctuation, and none that is damaged.

    Damaged is what holds more than Chinese characters, commas, full stops, ? and !: lost characters and editors' remarks.

    Raises:   CourseError: a file is no list of poems with ``paragraphs``.
    """
    poems: dict[str, str] = {}
    for path in paths:
        try:
            texts = ["\n".join(entry["paragraphs"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(f"{path} is no list of poems ({error!r}); register it as another kind") from None
        for text in texts:
            if _WHOLE.fullmatch(text):
                poems.setdefault("".join(lines(text)), text)
    return [poem for key, poem in poems.items() if key]


def join(poems: Iterable[str]) -> str:
    """The text of these poems, a blank line after each."""
    return "".join(poem + BLANK_LINE for poem in poems)


def split(poems: Sequence[str], validation: float) -> tuple[list[str], list[str]]:
    """(training, validation): in a fixed random order; no five characters in a row are on both sides.

    A character that occurs fewer than 5 times in the training poems is □ on both sides, as editions print a lost one: a model
    could not learn it, and a third of all the different characters is that rare.

    Args:     validation: the share of poems held out, between 0 and 1; groups of poems are not cut for it.
    """
    first_with: dict[str, int] = {}
    runs = ((number, run) for number, poem in enumerate(poems) for run in _runs("".join(lines(poem))))
    links = ((number, first_with.setdefault(run, number)) for number, run in runs)
    groups = defaultdict(list)
    for number, group in components(links, range(len(poems))).items():
        groups[group].append(poems[number])
    train: list[str] = []
    held_out: list[str] = []
    for group in sorted(groups.values(), key=lambda group: hashlib.sha256(group[0].encode()).digest()):
        (train if len(train) < int((1 - validation) * len(poems)) else held_out).extend(group)
    counts = Counter(character for poem in train for character in poem)
    rare = {ord(c): LOST for c in set().union(*poems) if counts[c] < FEWEST}
    return [poem.translate(rare) for poem in train], [poem.translate(rare) for poem in held_out]


def _runs(characters: str) -> set[str]:
    return {characters[at : at + SHARED] for at in range(len(characters) - SHARED + 1)}
