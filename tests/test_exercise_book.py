"""Every exercise accepts its right answer and rejects every mistake it knows, with that mistake's hint; and many more."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from course_lib.exercise_book import edited, slips
from course_lib.exercises import EXERCISES, check
from course_lib.trees import leaves, map_tree

MISTAKES = [(name, hint, mistake) for name, exercise in EXERCISES.items() for hint, mistake in exercise.mistakes]
SOURCES = Path(__file__).parents[1] / "notebooks" / "src"
OUTPUTS = {name: len(leaves(e.call(e.reference, *e.problem(np.random.default_rng(0))))) for name, e in EXERCISES.items()}


@pytest.mark.parametrize("name", EXERCISES)
def test_reference_passes(name: str) -> None:
    report = check(name, EXERCISES[name].reference)
    assert report.passed and report.lines[0].startswith("✓")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is the very mistake of one of them
@pytest.mark.parametrize(("name", "hint", "mistake"), MISTAKES)
def test_mistake_is_rejected_with_its_hint(name: str, hint: str, mistake: object) -> None:
    report = check(name, mistake)
    assert not report.passed and report.lines[-1] == f"  hint: {hint}"


def test_there_are_many_mistakes_and_no_two_share_a_hint() -> None:
    assert len(MISTAKES) >= 300
    assert len({(name, hint) for name, hint, _ in MISTAKES}) == len(MISTAKES)
    assert all(len(exercise.mistakes) >= 2 for exercise in EXERCISES.values())


def changed(name: str, place: int, change: object) -> object:
    """The reference with its output number ``place`` changed."""
    exercise = EXERCISES[name]

    def wrong(*arguments: object) -> object:
        numbers = iter(range(100))
        result = exercise.reference(*arguments)
        kept = (None,) if len(result) == 3 and "cache" not in exercise.arguments else ()  # a forward's cache stays
        outputs = map_tree(lambda a: change(a) if next(numbers) == place else a, result[: len(result) - len(kept)])
        return (*outputs, *kept)

    return wrong


GRADIENTS = [name for name, exercise in EXERCISES.items() if name.endswith("backward") and exercise.outputs.startswith("dx")]
ANY_OUTPUT = [(name, place) for name in GRADIENTS for place in range(OUTPUTS[name])]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: 0 * a,
        lambda a: -a,
        lambda a: 1.01 * a,
        lambda a: a + 1e-3 * max(1, np.abs(a).max()),
        lambda a: a[::-1],
        lambda a: np.full_like(a, np.nan),
        lambda a: a[..., None],
        lambda a: a[1:],
        lambda a: np.roll(a, 1),
        lambda a: None,
    ],
    ids=["zero", "negated", "1 % more", "shifted", "reversed", "nan", "an axis more", "a row less", "rolled", "missing"],
)
@pytest.mark.parametrize(("name", "place"), ANY_OUTPUT)
def test_every_gradient_is_looked_at(name: str, place: int, change: object) -> None:
    report = check(name, changed(name, place, change))
    assert not report.passed and sum(line.startswith(("  ✗", "  ○")) for line in report.lines) == 1


@pytest.mark.parametrize("name", [name for name in GRADIENTS if EXERCISES[name].gates])
def test_swapped_gates_are_rejected_and_named(name: str) -> None:
    gates = EXERCISES[name].gates.split()
    for a, b in combinations(range(len(gates)), 2):
        for place in range(OUTPUTS[name]):

            def swap(array: np.ndarray, a: int = a, b: int = b) -> np.ndarray:
                blocks = np.split(array, len(gates))
                blocks[a], blocks[b] = blocks[b], blocks[a]
                return np.concatenate(blocks)

            shape = leaves(EXERCISES[name].reference(*EXERCISES[name].problem(np.random.default_rng(0))))[place].shape
            if shape[0] % len(gates) == 0 and "W_" in check(name, changed(name, place, lambda a: 0 * a)).lines[0]:
                assert "the gates stand in the order" in check(name, changed(name, place, swap)).lines[-1]


def test_edits_say_when_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match="'nowhere' occurs 0 times, expected once"):
        edited(map_tree, ("nowhere", ""))(len, ())
    ((hint, wrong),) = slips(map_tree, ("a hint", "type(tree)(*children)", "children", "tuple(children)", "None"))
    assert hint == "a hint" and wrong(len, ("abc",)) is None


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.md")), ids=lambda path: path.stem)
def test_lessons_and_book_number_the_exercises_alike(source: Path) -> None:
    """Headings "Exercise 2.3" and the checks below them, in order; every numbered exercise is set in its lesson."""
    text = source.read_text(encoding="utf-8")
    headings = re.findall(r"^## Exercise (\d+\.\d+)", text, re.M)
    checks = re.findall(r'^(?:report = )?check\("(\w+)"', text, re.M)
    expected = {e.number: name for name, e in EXERCISES.items() if e.number.partition(".")[0] == str(int(source.stem[:2]))}
    assert dict(zip(headings, checks, strict=True)) == expected


SEQUENCES = [
    name
    for name in EXERCISES
    if name.split("_")[0] in ("rnn", "lstm", "gru") and not any(part in name for part in ("step", "output", "from"))
]


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_size_is_1_now_and_then(name: str) -> None:
    """The twenty problems that a check draws: T, N and H are 1 somewhere, and not everywhere."""
    shapes = [np.shape(leaves(EXERCISES[name].problem(np.random.default_rng(trial)))[0]) for trial in range(20)]
    for axis in (0, 1):
        assert 0 < sum(shape[axis] == 1 for shape in shapes) < 12
    assert 1 in {shape[2] for shape in shapes}
