"""A translator comes back as it was saved, in half the bytes if asked, or is refused in one line that says what it is."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from test_checkpoint import FOREIGN
from test_checkpoint import model as language_model
from test_checkpoint import write as write_language_model

from course_lib import archive, checkpoint, tasks, translator
from course_lib.errors import CourseError
from course_lib.seq2seq import Seq2Seq
from course_lib.translation import translate
from course_lib.translator import Translator, build, load, save
from course_lib.trees import leaves, map_tree
from course_lib.units import UnitTokenizer

SOURCE, TARGET = UnitTokenizer("words", ("le", "chien", "été"), True), UnitTokenizer("characters", tuple("dog 狐"))
MODEL = {"source_size": 7, "target_size": 9, "embedding_size": 5, "hidden_size": 6, "num_layers": 2}
MODEL |= {"attention": "additive", "bidirectional": True, "dropout": 0.25}
CONFIG = {"model": MODEL, "longest": [5, 7], "prepare": "sentences"}
RECORD = {"data": "mine.tsv", "seed": 1, "validation_nats": 1.5}


def made(seed=1, **changes) -> Translator:
    """A translator with no two weights alike."""
    rng = np.random.default_rng(seed)
    model = Seq2Seq(**MODEL | changes)
    params = map_tree(lambda p: rng.normal(size=tuple(p.shape)).astype(np.float32), model.params())
    extra = {"m.bias": rng.normal(size=9), "random": np.arange(3, dtype=np.uint8)}
    return Translator(params, SOURCE, TARGET, CONFIG | {"model": MODEL | changes}, RECORD, extra)


@pytest.fixture
def path(tmp_path) -> Path:
    save(tmp_path / "t.safetensors", made())
    return tmp_path / "t.safetensors"


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    (tmp_path / "shelf").mkdir()
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "shelf")
    return tmp_path / "shelf"


def refusal(path: Path, loader=load) -> str:
    with pytest.raises(CourseError) as caught:
        loader(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes", [{}, {"attention": "none", "num_layers": 1}, {"attention": "multiplicative", "bidirectional": False}]
)
def test_all_comes_back_bit_for_bit(tmp_path, changes):
    path, before = tmp_path / "a b é.safetensors", made(**changes)
    save(path, before)
    for loader in (load, tasks.load_saved):
        found = loader(path)
        assert (found.source, found.target, found.config, found.record) == before[1:5]
        for new, old in ((found.params, before.params), (found.extra, before.extra)):
            assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in new.items()} == {
                n: (a.dtype, a.shape, a.tobytes()) for n, a in old.items()
            }
    model = found.model()
    assert not model.training
    assert model.config == before.config["model"]
    for name, parameter in model.params().items():
        assert np.array_equal(parameter.detach().numpy(), before.params[name])
    model.bias.data.zero_()
    assert found.params["bias"].any(), "the model has weights of its own"


def test_without_weights_a_model_is_random():
    torch.manual_seed(0)
    first, second = build(CONFIG), build(CONFIG)
    assert not torch.equal(first.combine.weight, second.combine.weight)
    assert first.training


def test_half_precision_takes_half_the_bytes_and_translates_the_same(path, shelf):
    translator.ship(path, "whole")
    assert translator.ship(path, "half", half=True) == shelf / "half.safetensors"
    assert checkpoint.shipped(archive.TRANSLATOR) == ["half", "whole"]
    assert checkpoint.shipped() == []
    whole, half = load("whole"), load("half")
    assert whole.extra == half.extra == {}
    assert {a.dtype for a in half.params.values()} == {np.dtype(np.float32)}
    for name, array in load(path).params.items():
        assert np.array_equal(whole.params[name], array)
        assert np.array_equal(half.params[name], array.astype(np.float16).astype(np.float32))
    assert not np.array_equal(half.params["bias"], whole.params["bias"])
    sizes = [(shelf / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    weights = sum(array.size for array in leaves(whole.params))
    assert sizes[1] - sizes[0] == pytest.approx(2 * weights, abs=16)
    texts = ["le chien", "été le", "le le chien"]
    assert [t.text for t in translate(half, texts)] == [t.text for t in translate(whole, texts)]
    for name in ("half", "whole"):
        assert json.loads((shelf / f"{name}.json").read_text(encoding="utf-8")) == RECORD
    translator.ship("half", "again", half=True)
    assert all(np.array_equal(array, half.params[name]) for name, array in load("again").params.items())


def test_ship_refuses_what_nobody_measured_or_could_download(path, shelf, monkeypatch):
    save(path, made()._replace(record={"data": "mine.tsv"}))
    with pytest.raises(CourseError, match=r"records no validation_nats; ship the best checkpoint of a finished run$"):
        translator.ship(path, "unmeasured")
    save(path, made())
    monkeypatch.setattr(checkpoint, "LARGEST_SHIPPED", 5000)
    with pytest.raises(CourseError, match=r"takes [\d,]+ bytes, shipped are at most 5,000"):
        translator.ship(path, "large")
    assert list(shelf.iterdir()) == []


def test_a_name_a_file_or_the_best_of_a_run(path, shelf, tmp_path):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "last.safetensors", made(2))
    assert np.array_equal(load(tmp_path / "run").params["bias"], made(2).params["bias"])
    save(tmp_path / "run" / "best.safetensors", made(3))
    assert np.array_equal(load(tmp_path / "run").params["bias"], made(3).params["bias"])
    save(shelf / "poet.safetensors", made(4))
    assert np.array_equal(load("poet").params["bias"], made(4).params["bias"])
    with pytest.raises(CourseError, match=r"^no checkpoint 'nobody': give "):
        load("nobody")


# refusals


def test_cut_or_altered_it_is_refused(path):
    content = path.read_bytes()
    for length in [*range(0, len(content), 211), len(content) - 1]:
        path.write_bytes(content[:length])
        assert "is not a whole checkpoint of this course" in refusal(path)
    for place in range(0, len(content), 29):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        refusal(path)
    changed = content.replace(b"chien", b"chine")
    assert changed != content
    path.write_bytes(changed)
    assert "it does not match its checksum" in refusal(path)


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_and_never_executed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = Path("foreign.safetensors")
    FOREIGN[kind](path)
    for loader in (load, tasks.load_saved):
        assert "is not a whole checkpoint" in refusal(path, loader)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_model_of_another_kind_says_what_it_is_and_what_to_use(path, tmp_path):
    other = write_language_model(tmp_path / "poet.safetensors", language_model())
    assert refusal(other) == f"{other} holds a language model: {archive.USES[archive.LANGUAGE_MODEL]}"
    assert refusal(path, checkpoint.load) == f"{path} holds a translator: {archive.USES[archive.TRANSLATOR]}"


def changed(**changes) -> dict:
    """A header in which the configuration of the model is another."""
    return {"config": CONFIG | {"model": MODEL | changes}}


def forged(path: Path, header: dict, arrays: dict | None = None, drop: str = "") -> Path:
    """A file with a right checksum around a wrong content."""
    whole = made()
    stored = {f"model.{name}": a for name, a in whole.params.items() if name != drop} | (arrays or {})
    sides = {"source": SOURCE.to_config(), "target": TARGET.to_config(), "config": CONFIG, "record": RECORD}
    archive.write(path, archive.TRANSLATOR, {k: v for k, v in (sides | header).items() if v != "gone"}, stored)
    return path


def test_the_forger_can_forge(tmp_path):
    assert load(forged(tmp_path / "f", {})).config == CONFIG


FORGED = {
    "no config": {"config": "gone"},
    "no record": {"record": "gone"},
    "no source": {"source": "gone"},
    "config is a list": {"config": [1]},
    "record is a number": {"record": 5},
    "tokenizer of another size": {"source": UnitTokenizer("words", ("le",)).to_config()},
    "tokenizers exchanged": {"source": TARGET.to_config(), "target": SOURCE.to_config()},
    "tokenizer of a language model": {"target": {"kind": "char", "characters": list("abcd")}},
    "no model": {"config": {"longest": [5, 7], "prepare": "sentences"}},
    "no longest": {"config": {"model": MODEL, "prepare": "sentences"}},
    "longest of one side": {"config": CONFIG | {"longest": [5]}},
    "longest 0": {"config": CONFIG | {"longest": [5, 0]}},
    "longest a word": {"config": CONFIG | {"longest": "57"}},
    "no prepare": {"config": {"model": MODEL, "longest": [5, 7]}},
    "prepared somehow": {"config": CONFIG | {"prepare": "somehow"}},
    "one layer": changed(num_layers=1),
    "three layers": changed(num_layers=3),
    "odd hidden": changed(hidden_size=5),
    "hidden a word": changed(hidden_size="6"),
    "hidden NaN": changed(hidden_size=float("nan")),
    "hidden negative": changed(hidden_size=-6),
    "another attention": changed(attention="multiplicative"),
    "unheard attention": changed(attention="dot"),
    "no attention": changed(attention="none"),
    "one direction": changed(bidirectional=False),
    "dropout 2": changed(dropout=2),
    "more": changed(seed=1),
}


@pytest.mark.parametrize("header", FORGED.values(), ids=FORGED)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, header):
    message = refusal(forged(tmp_path / "f", header))
    assert "is not a whole checkpoint of this course: " in message
    assert message.endswith("; train it again")


@pytest.mark.parametrize(
    ("arrays", "drop"),
    [
        ({"model.more": np.zeros(3, np.float32)}, ""),
        ({}, "bias"),
        ({"model.bias": np.zeros(8, np.float32)}, ""),
        ({"model.bias": np.zeros(9)}, ""),
        ({"model.bias": np.full(9, np.nan, np.float32)}, ""),
        ({"model.bias": np.full(9, np.inf, np.float16)}, ""),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, arrays, drop):
    assert "is not a whole checkpoint of this course: " in refusal(forged(tmp_path / "f", {}, arrays, drop))


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 10**5}, {"embedding_size": 10**8}, {"num_layers": 10**8}, {"hidden_size": 1e400},
              {"hidden_size": 2, "num_layers": 10**4}]
)  # fmt: skip
def test_a_configuration_of_gigabytes_is_refused_before_it_takes_them(tmp_path, sizes):
    path = forged(tmp_path / "f", changed(**sizes))
    tracemalloc.start()
    try:
        assert "asks for more weights than it holds" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", checkpoint.shipped(archive.TRANSLATOR))
def test_a_shipped_translator_is_small_and_has_its_record_beside_it(name):
    path, found = checkpoint.SHIPPED / f"{name}.safetensors", load(name)
    assert path.stat().st_size <= 8_000_000
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == found.record
    assert found.extra == {}
    assert found.record.keys() >= {"data", "data_sha256", "command", "seed", "seconds", "validation_nats"}
    assert found.record["parameters"] == sum(array.size for array in found.params.values())
