"""Names in ten languages: clean, of one language only, and no relatives on two sides."""

import unicodedata
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from babel import Locale

from course_lib import languages
from course_lib.errors import CourseError
from course_lib.text import CharTokenizer


@pytest.fixture(scope="module")
def names():
    return languages.load_names()


@pytest.fixture(scope="module")
def careless():
    return languages.load_names(related=False)


@pytest.fixture(scope="module")
def tables():
    return [languages.names_in(language) for language in languages.LANGUAGES]


def parts(names):
    return names.train, names.validation, names.test


def test_sizes_and_balance(names):
    sizes = [len(part.texts) for part in parts(names)]
    assert sum(sizes) > 6000
    assert min(sizes) > 0.06 * sum(sizes)
    assert sizes[0] > 0.75 * sum(sizes)
    assert names.dropped > 500
    assert names.groups > 700
    for part in parts(names):
        assert part.labels.dtype == np.int64
        assert len(part.texts) == len(part.labels) == len(part.concepts)
        counts = np.bincount(part.labels, minlength=10)
        assert len(counts) == 10
        assert counts.max() < 2.5 * counts.min()
    assert 8 < np.median([len(text) for text in names.train.texts]) < 20


def letters(text):
    """The letters of a text, without case, accents composed, and without apostrophes that Unicode counts as letters."""
    return [c for c in unicodedata.normalize("NFC", text).lower() if c.isalpha() and c not in "\u02bb\u02bc"]


def test_texts_are_what_babel_says(names):
    for part in parts(names):
        for text, label, (kind, code) in zip(part.texts, part.labels, part.concepts, strict=True):
            locale = Locale.parse(names.languages[label])
            raw = locale.time_zones[code]["city"] if kind == "cities" else getattr(locale, kind)[code]
            if not set("([") & set(raw):
                assert letters(text) == letters(raw)
            assert set(letters(text)) <= set(letters(raw))
            assert text == text.lower().strip()
            assert not set("()[]\u2019\u00ad\n") & set(text)


def test_a_name_belongs_to_one_language(names, tables):
    every = [text for part in parts(names) for text in part.texts]
    assert len(every) == len(set(every))
    having = defaultdict(set)
    for label, table in enumerate(tables):
        for name in table.values():
            having[name].add(label)
    label_of = {t: y for part in parts(names) for t, y in zip(part.texts, part.labels.tolist(), strict=True)}
    assert {name: labels for name, labels in having.items() if len(labels) == 1} == {t: {y} for t, y in label_of.items()}
    assert names.dropped == sum(len(labels) > 1 for labels in having.values())


def components(tables):
    """The sets of related concepts by another way: every edge written out, then walked along."""
    edges, votes = defaultdict(set), defaultdict(set)

    def edge(a, b):
        edges[a].add(b)
        edges[b].add(a)

    for number, table in enumerate(tables):
        starts = defaultdict(set)
        for a, name in table.items():
            edges[a].add(a)
            if a[0] == "languages":
                edge(a, ("languages", a[1].split("_")[0]))
            if a[0] == "currencies":
                if a[1][0] != "X":
                    edge(a, ("territories", a[1][:2]))
                continue
            letters = "".join(c if c.isalpha() else " " for c in unicodedata.normalize("NFC", name))
            for word in letters.split():
                bare = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
                if len(bare) > 3:
                    starts[bare[:5]].add(a)
        same = defaultdict(list)
        for a, name in table.items():
            same[name].append(a)
        for group in same.values():
            for a, b in combinations(group, 2):
                edge(a, b)
        for group in starts.values():
            if len(group) <= 20:
                for a, b in combinations(sorted(group), 2):
                    votes[a, b].add(number)
    for (a, b), numbers in votes.items():
        if len(numbers) >= len(tables) / 2:
            edge(a, b)
    found, known = [], set().union(*tables)
    while edges:
        queue, seen = [next(iter(edges))], set()
        while queue:
            a = queue.pop()
            if a not in seen:
                seen.add(a)
                queue += edges.pop(a)
        found.append(seen & known)
    return {frozenset(group) for group in found if group}


def test_groups_are_the_components_of_the_rules(tables, names):
    together = defaultdict(set)
    for concept, first in languages.groups(tables).items():
        together[first].add(concept)
    assert {frozenset(group) for group in together.values()} == components(tables)
    assert names.groups == len(together)
    assert names.largest == max(map(len, together.values()))


def test_no_group_is_on_two_sides(tables, names):
    side_of = {concept: number for number, part in enumerate(parts(names)) for concept in part.concepts}
    for number, part in enumerate(parts(names)):
        assert {side_of[concept] for concept in part.concepts} == {number}
    for group in components(tables):
        sides = {side_of[concept] for concept in group if concept in side_of}
        assert len(sides) <= 1
        if len(group) > languages.LARGE_GROUP:
            assert sides == {0}


def test_large_groups_train(tables, names, monkeypatch):
    monkeypatch.setattr(languages, "LARGE_GROUP", 3)
    found, sizes = languages.load_names(), {c: len(group) for group in components(tables) for c in group}
    for before, after in zip(parts(names)[1:], parts(found)[1:], strict=True):
        assert set(after.concepts) == {concept for concept in before.concepts if sizes[concept] <= 3} != set(before.concepts)


def test_short_names_are_left_out(monkeypatch):
    before = languages.names_in("fi")
    monkeypatch.setattr(languages, "SHORTEST_NAME", 8)
    assert languages.names_in("fi") == {c: name for c, name in before.items() if sum(ch.isalpha() for ch in name) >= 8}


def test_relatives_known_by_name(tables):
    first = languages.groups(tables)
    assert len({first["territories", code] for code in ("GN", "GQ", "GW")}) == 1  # three Guineas
    assert first["languages", "en_GB"] == first["languages", "en"]
    assert first["currencies", "NOK"] == first["territories", "NO"] == first["languages", "no"] == first["languages", "nb"]
    assert first["territories", "NO"] != first["territories", "JP"]
    assert first["currencies", "BRL"] != first["currencies", "XAU"]


def test_groups_of_made_up_names():
    en = {("territories", "QA"): "old zembla", ("territories", "QB"): "new zembla", ("languages", "zz"): "foo"}
    fr = {("territories", "QA"): "zemble", ("territories", "QB"): "autre chose", ("languages", "zz"): "autre chose"}
    together = languages.groups([en, fr])  # zembl- in one of two languages is half; the same name in one is enough
    assert len(set(together.values())) == 1
    third = {("territories", "QA"): "a", ("territories", "QB"): "b", ("languages", "zz"): "c"}
    apart = languages.groups([en, third, third])
    assert len(set(apart.values())) == 3
    many = {("cities", f"Q/{k}"): f"{'abcdefghijklmnopqrstuvwxyz'[k]} islands" for k in range(languages.COMMON_BEGINNING + 1)}
    assert len(set(languages.groups([many]).values())) == len(many)  # a common word makes no relatives
    many.popitem()
    assert len(set(languages.groups([many]).values())) == 1


def test_the_careless_split_leaks_more(names, careless):
    def leaking(names):
        return np.mean([bool(words) for words in languages.shared_words(names.test, names.train)])

    assert sum(len(p.texts) for p in parts(careless)) == sum(len(p.texts) for p in parts(names))
    assert leaking(names) < 0.35 < leaking(careless)


def test_shared_words(names):
    known = defaultdict(set)
    for text, label in zip(names.train.texts, names.train.labels, strict=True):
        known[label].update("".join(c if c.isalpha() else " " for c in text).split())
    rows = languages.shared_words(names.test, names.train)
    for text, label, shared in zip(names.test.texts, names.test.labels, rows, strict=True):
        words = "".join(c if c.isalpha() else " " for c in text).split()
        assert [w for w in words if len(w) > 4 and w in known[label]] == list(shared)


def test_the_same_each_time(names):
    again = languages.load_names()
    assert again.sha256 == names.sha256 != languages.load_names(related=False).sha256
    assert again.test.texts == names.test.texts
    assert (again.test.labels == names.test.labels).all()


def test_other_languages():
    few = languages.load_names(("da", "tr", "cs"))
    assert few.languages == ("da", "tr", "cs")
    assert set(few.test.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        (("de", "xx"), CourseError, "Babel has no language 'xx'; give codes such as de, en, es"),
        (("de", "!"), CourseError, "Babel has no language '!'"),
        (("de", "de_AT", "de_DE"), CourseError, "Babel has too few names in de, de_AT, de_DE; choose other languages"),
        (("de",), ValueError, r"languages: expected at least two different codes, got \('de',\)"),
        (("de", "en", "de"), ValueError, "languages: expected at least two different codes"),
    ],
)
def test_languages_that_cannot_be(argument, error, message):
    with pytest.raises(error, match=message):
        languages.load_names(argument)


def test_clean():
    assert languages.clean("Myanmar (Birma)") == "myanmar"
    assert languages.clean("  Cap\u00ad Vert [x] S\u2019il ") == "cap vert s'il"
    assert languages.clean("A\u030aland") == "\u00e5land"  # composed


def test_beginnings():
    assert languages.beginnings("\u00e5land-inseln und oie s\u00e3ot") == {"aland", "insel", "saot"}
    assert languages.words("guinea-bissau 2 x") == ["guinea", "bissau", "x"]


def test_encode():
    tokenizer = CharTokenizer.from_text("hello world")
    tokens, lengths = languages.encode(["hell", "world!", "o"], tokenizer)
    assert tokens.shape == (6, 3)
    assert tokens.dtype == lengths.dtype == np.int64
    assert lengths.tolist() == [4, 6, 1]
    for column, text in zip(tokens.T, ["hell", "world\ufffd", "o"], strict=True):
        assert tokenizer.decode(column[: len(text)] - 1) == text
        assert (column[len(text) :] == languages.PADDING).all()
    assert tokens[5, 1] == 1  # unknown
    assert tokens.max() <= tokenizer.size


@pytest.mark.parametrize("texts", ["hello", [1, 2], [[1]], np.zeros(3), [b"hello"]])
def test_encode_wants_texts(texts):
    with pytest.raises(
        ValueError, match=r"^texts: expected a list of texts such as \['norwegen'\], got .*even a single one in a list$"
    ):
        languages.encode(texts, CharTokenizer("helo"))


@pytest.mark.parametrize("texts", [[], ["hello", ""]])
def test_encode_wants_characters(texts):
    with pytest.raises(ValueError, match="texts: expected at least one, none of them empty"):
        languages.encode(texts, CharTokenizer("helo"))
