"""A checkpoint comes back exactly as it was saved, or is refused in one line: cut, flipped, foreign, hostile, half-written."""

import json
import os
import pickle
import resource
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from course_process import DATA

from course_lib import archive, checkpoint, downloads
from course_lib.checkpoint import Checkpoint, load, save
from course_lib.datasets import load_corpus, registry
from course_lib.errors import CourseError
from course_lib.language_model import evaluate, init
from course_lib.text import CharTokenizer
from course_lib.trees import leaves, map_tree, named_leaves

CONFIG = {"vocab_size": 6, "embedding_size": 3, "hidden_size": 4, "num_layers": 2, "cell": "lstm"}
TOKENIZER = CharTokenizer("\n aé狐")
RECORD = {"data": "mine.txt", "seed": 1, "validation_nats": 1.5, "smooth": float("inf")}


def model(config=CONFIG, seed=1) -> Checkpoint:
    """A model with no two weights alike, biases included."""
    rng = np.random.default_rng(seed)
    params = map_tree(lambda a: a + rng.normal(size=a.shape).astype(a.dtype), init(**config, seed=seed))
    return Checkpoint(params, TOKENIZER, config, RECORD, {"m.b": rng.normal(size=(2, 3)), "count": np.arange(3)})


def write(path: Path, made: Checkpoint) -> Path:
    save(path, *made)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "model.safetensors", model())


def refusal(path: Path) -> str:
    """Why a checkpoint is refused: one line that names the file."""
    with pytest.raises(CourseError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_all_comes_back_exactly(tmp_path, cell, layers):
    made = model(CONFIG | {"cell": cell, "num_layers": layers}, seed=layers)
    found = load(write(tmp_path / "a b é.safetensors", made))
    assert (found.tokenizer, found.config, found.record) == (made.tokenizer, made.config, made.record)
    assert [n for n, _ in named_leaves(found.params)] == [n for n, _ in named_leaves(made.params)]
    for new, old in zip(leaves(found.params), leaves(made.params), strict=True):
        assert type(found.params) is type(made.params)
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        assert new.tobytes() == old.tobytes()
        assert new.flags.writeable, "Adam works in place"
    assert found.extra.keys() == made.extra.keys()
    assert all(np.array_equal(found.extra[name], made.extra[name]) for name in made.extra)
    assert [p.name for p in tmp_path.iterdir()] == ["a b é.safetensors"]


def test_cut_anywhere_it_is_refused(tmp_path, whole):
    content, path = whole.read_bytes(), tmp_path / "cut.safetensors"
    for length in [*range(16), *range(16, len(content), 61), len(content) - 1]:
        path.write_bytes(content[:length])
        assert "not a whole checkpoint" in refusal(path)
    path.write_bytes(content + b"\0")
    refusal(path)


def test_a_flipped_bit_anywhere_is_refused(tmp_path, whole):
    content, path = whole.read_bytes(), tmp_path / "flipped.safetensors"
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        refusal(path)


def test_a_changed_letter_of_the_vocabulary_is_refused(tmp_path, whole):
    """It would be a valid checkpoint of a model that writes other letters: only the checksum can tell."""
    path = tmp_path / "letter.safetensors"
    changed = whole.read_bytes().replace(rb"\"a\"", rb"\"b\"")
    assert changed != whole.read_bytes()
    path.write_bytes(changed)
    assert "checksum" in refusal(path)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def nested(path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, path, {"course_lib": "[" * 100_000})


def another(path):
    from safetensors.numpy import save_file

    save_file({"model.embedding": np.zeros((6, 3), np.float32)}, path, {"format": "pt"})


def json_list(path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, path, {"course_lib": "[1]"})


def hidden_pickle(path):
    np.savez(path.with_suffix(".npz"), a=np.array([Bomb()], object))
    path.with_suffix(".npz").rename(path)


FOREIGN = {
    "text": lambda path: path.write_text("The quick brown fox\n" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "npz": hidden_pickle,
    "safetensors of others": another,
    "deeply nested": nested,
    "a list": json_list,
    "huge header": lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "header not JSON": lambda path: path.write_bytes(struct.pack("<Q", 4) + b"{{{{"),
    "terabytes": lambda path: path.write_bytes(
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[999999999999],"data_offsets":[0,4]}}'.ljust(66) + b"\0" * 4
    ),
    "another float": lambda path: path.write_bytes(
        struct.pack("<Q", 96)
        + b'{"__metadata__":{"course_lib":"{}"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'.ljust(96)
        + b"\0" * 4
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_never_executed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.safetensors"
    FOREIGN[kind](path)
    assert "not a whole checkpoint" in refusal(path)
    assert [p.name for p in tmp_path.iterdir()] == ["foreign.safetensors"]


def forge(path: Path, arrays: dict | None = None, drop: str = "", **header) -> Path:
    """A file whose checksum is right but whose content is not what this course writes."""
    from safetensors.numpy import save

    made = model()
    stored = {n: a for n, a in named_leaves(made.params, "model") if n != drop} | (arrays or {})
    whole = {"format": checkpoint.FORMAT, "version": archive.VERSION, "config": CONFIG, "record": RECORD}
    text = json.dumps(whole | {"tokenizer": TOKENIZER.to_config()} | header)
    path.write_bytes(save(stored, {"course_lib": text, "sha256": archive.digest(text, stored)}))
    return path


def test_the_forger_can_forge(tmp_path):
    assert load(forge(tmp_path / "f.safetensors")).config == CONFIG


def filled(value) -> np.ndarray:
    array = np.ones((6, 3), np.float32)
    array[5, 2] = value
    return array


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"config": None},
        {"config": {}},
        {"config": CONFIG | {"cell": "tree"}},
        {"config": CONFIG | {"cell": "gru"}},
        {"config": CONFIG | {"hidden_size": "4"}},
        {"config": CONFIG | {"hidden_size": -4}},
        {"config": CONFIG | {"hidden_size": 4.0}},
        {"config": CONFIG | {"hidden_size": None}},
        {"config": CONFIG | {"hidden_size": float("nan")}},
        {"config": CONFIG | {"num_layers": 0}},
        {"config": CONFIG | {"seed": 1}},
        {"config": CONFIG | {"dtype": "float64"}},
        {"config": CONFIG | {"unheard": 1}},
        {"record": 5},
        {"tokenizer": {"kind": "char", "characters": list("abc")}},
        {"tokenizer": {"kind": "char", "characters": list("aabcd")}},
        {"tokenizer": None},
        {"arrays": {"model.embedding": filled(np.nan)}},
        {"arrays": {"model.embedding": filled(np.inf)}},
        {"arrays": {"model.embedding": filled(1).astype(np.float64)}},
        {"arrays": {"model.embedding": filled(1).T.copy()}},
        {"arrays": {"model.more": filled(1)}},
        {"drop": "model.layers.1.W_hh"},
        {"drop": "model.layers.1.W_hh", "arrays": {"model.layers.1.w_hh": np.ones((16, 4), np.float32)}},
    ],
    ids=str,
)
def test_a_forged_file_is_refused(tmp_path, change):
    assert "not a whole checkpoint" in refusal(forge(tmp_path / "forged.safetensors", **change))


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 10**6, "embedding_size": 10**6},
        {"hidden_size": 10**5},
        {"embedding_size": 1, "vocab_size": 100, "hidden_size": 10**5},
        {"vocab_size": 1, "embedding_size": 10**5, "hidden_size": 10**5, "num_layers": 1},
        {"num_layers": 10**8},
        {"vocab_size": 1, "embedding_size": 1, "hidden_size": 1, "num_layers": 60},
        {"hidden_size": 1e400},
        {"vocab_size": 1, "embedding_size": 10**5, "hidden_size": 300, "num_layers": 1},
        {"vocab_size": 10**5, "embedding_size": 1, "hidden_size": 300, "num_layers": 1},
    ],
    ids=str,
)
def test_a_configuration_of_gigabytes_is_refused_before_it_takes_them(tmp_path, sizes):
    """Beside a stray array that would make room for many a small one."""
    path = forge(tmp_path / "greedy.safetensors", {"model.more": np.zeros(200_000, np.float16)}, config=CONFIG | sizes)
    tracemalloc.start()
    try:
        assert "asks for other weights than it holds" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# writing: the old file or the new one, entire


def test_a_file_beyond_the_limit_of_the_disk_leaves_the_old_one(tmp_path):
    """Not simulated: the kernel refuses to write more than 2,000 bytes."""
    path = write(tmp_path / "model.safetensors", model())
    before = path.read_bytes()
    assert len(before) > 2000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(CourseError, match=r"cannot write .*File too large"):
            write(path, model(seed=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == before
    load(path)


def test_no_place_to_write(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / "missing" / "m.safetensors", tmp_path / "file" / "m.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(CourseError, match=r"cannot write .*; free some space or choose another place"):
            write(path, model())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


# finding


def test_a_name_a_file_or_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shelf, run = tmp_path / "shelf", tmp_path / "run"
    shelf.mkdir()
    run.mkdir()
    monkeypatch.setattr(checkpoint, "SHIPPED", shelf)
    assert checkpoint.shipped() == []
    with pytest.raises(CourseError, match="no checkpoint 'poet': give a checkpoint file or a run folder"):
        load("poet")
    write(shelf / "poet.safetensors", model())
    write(shelf / "dates.safetensors", model())
    assert checkpoint.shipped() == ["dates", "poet"]
    assert checkpoint.locate("poet") == shelf / "poet.safetensors"
    with pytest.raises(CourseError, match="no checkpoint 'run': give dates, poet, a checkpoint file or a run folder"):
        load("run")
    write(run / "last.safetensors", model())
    assert checkpoint.locate("run").name == "last.safetensors"
    write(run / "best.safetensors", model())
    assert checkpoint.locate(run).name == "best.safetensors"
    assert checkpoint.locate(run / "last.safetensors").name == "last.safetensors"


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 5000, "../..", "/dev/null", "/proc/self/mem"])
def test_strange_names(name):
    with pytest.raises(CourseError) as caught:
        load(name)
    assert "\n" not in str(caught.value)


# the models that come with the course


def test_ship_puts_weights_and_record_on_the_shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    source = write(tmp_path / "source", model())
    checkpoint.ship(source, "fox")
    assert checkpoint.shipped() == ["fox"]
    found = load("fox")
    assert found.params.embedding.tobytes() == load(source).params.embedding.tobytes()
    assert found.extra == {}, "what only an unfinished run needs stays behind"
    assert json.loads((tmp_path / "fox.json").read_text()) == found.record == RECORD
    monkeypatch.setattr(checkpoint, "LARGEST_SHIPPED", 2000)
    with pytest.raises(CourseError, match=r"takes .* bytes, shipped are at most 2,000; train a smaller one"):
        checkpoint.ship(source, "large")
    save(source, *model()._replace(record={"data": "mine.txt"}))
    with pytest.raises(CourseError, match="records no validation_nats"):
        checkpoint.ship(source, "unmeasured")
    assert checkpoint.shipped() == ["fox"]


def test_models_come_with_the_course():
    assert {"python_docs", "python_source", "shakespeare", "tang_poems"} <= set(checkpoint.shipped())


def test_shipped_in_16_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    given = model()._replace(record={"data": "mine.txt", "validation_nats": 2.5})
    save(tmp_path / "model.safetensors", *given)
    sizes = [
        checkpoint.ship(tmp_path / "model.safetensors", name, half).stat().st_size for name, half in (("a", False), ("b", True))
    ]
    weights = sum(array.size for array in leaves(given.params))
    assert abs(sizes[0] - sizes[1] - 2 * weights) < 64
    for whole, half in zip(leaves(load("a").params), leaves(load("b").params), strict=True):
        assert half.dtype == np.float32
        assert np.array_equal(half, whole.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_a_shipped_model_is_small_and_has_its_record_beside_it(name):
    path = checkpoint.SHIPPED / f"{name}.safetensors"
    found = load(name)
    assert path.stat().st_size <= 8_000_000
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == found.record
    assert found.extra == {}
    assert found.record["command"].startswith("course train ")
    assert found.record.keys() >= {"data", "data_sha256", "command", "seed", "seconds", "validation_nats"}
    tied = found.params.W_out.size if "--tie" in found.record["command"] else 0
    assert found.record["parameters"] == sum(array.size for array in leaves(found.params)) - tied


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_a_shipped_model_is_as_good_as_its_record_says(name, monkeypatch):
    found = load(name)
    data, nats = found.record["data"], found.record["validation_nats"]
    if "COURSE_DATA" not in os.environ and DATA.is_dir():
        monkeypatch.setenv("COURSE_DATA", str(DATA))
    if downloads.status(data) == "not downloaded":
        pytest.skip(f"{data} is not here: set COURSE_DATA or run `course data fetch {data}`")
    corpus = load_corpus(data)
    tokens = found.tokenizer.encode(corpus.validation)
    if len(tokens) > 300_000:  # minutes, for two layers of 560: the record also has the nats of a beginning
        tokens, nats = tokens[:100_001], found.record["nats_of_first_100000"]
    total, count = evaluate(found.params, tokens)
    if corpus.sha256 == found.record["data_sha256"]:
        assert total / count == pytest.approx(nats, abs=2e-3)
    else:
        assert registry()[data].kind == "embedded", "only what comes with Python may differ"
        assert total / count < nats + 0.1
