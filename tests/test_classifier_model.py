"""The classifier's module: its logits in NumPy, padding that changes nothing, clear errors, and files."""

import re

import numpy as np
import pytest
import torch

from course_lib import archive
from course_lib.cells import LSTMParams
from course_lib.classifier_model import Classifier, Examples, SequenceClassifier, check_examples, load, read, save, write
from course_lib.errors import CourseError
from course_lib.stacked import stacked_forward, zero_state
from course_lib.text import CharTokenizer

V, E, C, T, N = 11, 3, 4, 7, 5
SIZES = [(6,), (6, 6), (6, 5), (2, 4, 3)]


@pytest.fixture(params=SIZES, ids=str)
def model(request):
    torch.manual_seed(3)
    return SequenceClassifier(V, E, request.param, C, dropout=0.4).double().eval()


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    lengths = np.array([3, 7, 1, 5, 7])
    tokens = rng.integers(1, V, (T, N)) * (np.arange(T)[:, None] < lengths)
    return Examples(*map(torch.from_numpy, (tokens, lengths, rng.integers(0, C, N))))


def layers_of(model):
    parts = [p for m in model.lstm.modules() if hasattr(m, "W_ih") for p in [m]]
    return tuple(LSTMParams(*(w.detach().numpy() for w in (p.W_ih, p.W_hh, p.b))) for p in parts)


def test_logits_in_numpy(model, data):
    layers = layers_of(model)
    assert len(layers) == len(model.config["hidden_sizes"])
    table, W, b = (w.detach().numpy() for w in (model.embedding.weight, model.linear.weight, model.linear.bias))
    with torch.no_grad():
        found = model(data.tokens, data.lengths).numpy()
    for n, length in enumerate(data.lengths.tolist()):
        x = table[data.tokens[:length, n].numpy()][:, None]
        hs, _, _ = stacked_forward(x, zero_state(layers, 1), layers)
        np.testing.assert_allclose(found[n], W @ hs[-1, 0] + b, atol=1e-12)


def test_padding_changes_no_logit_and_no_gradient(model, data):
    def logits_and_gradients(tokens):
        model.zero_grad()
        logits = model(tokens, data.lengths)
        torch.nn.functional.cross_entropy(logits, data.labels).backward()
        return logits.detach(), [p.grad.clone() for p in model.parameters()]

    expected, gradients = logits_and_gradients(data.tokens)
    padded = torch.arange(T)[:, None] >= data.lengths
    longer = torch.cat([torch.where(padded, 9, data.tokens), torch.full((3, N), 10)])  # anything may stand there
    found, others = logits_and_gradients(longer)
    assert torch.allclose(found, expected, atol=1e-12)
    for a, b in zip(others, gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert any(g.abs().max() > 0 for g in gradients)


def test_a_batch_equals_its_texts(model, data):
    with torch.no_grad():
        together = model(data.tokens, data.lengths)
        for n, length in enumerate(data.lengths.tolist()):
            alone = model(data.tokens[:length, [n]], data.lengths[[n]])
            assert torch.allclose(alone[0], together[n], atol=1e-12)


def test_dropout_acts_in_training_only(model, data):
    with torch.no_grad():
        assert torch.equal(model(data.tokens, data.lengths), model(data.tokens, data.lengths))
        model.train()
        draws = [model(data.tokens, data.lengths) for _ in range(2)]
    assert not torch.allclose(*draws)


def test_dropout_between_all_layers(model):
    """In training, two fifths of what enters the first LSTM, each further layer and the linear layer are zeros."""
    rng = torch.Generator().manual_seed(0)
    tokens, zeros = torch.randint(1, V, (T, 300), generator=rng), []
    parts = getattr(model.lstm, "parts", [])
    for module in (model.lstm, *parts[1:], model.linear):
        module.register_forward_pre_hook(lambda _, arguments: zeros.append((arguments[0] == 0).double().mean().item()))
    model.train()(tokens, torch.full((300,), T))
    assert len(zeros) == 2 + max(0, len(parts) - 1)
    assert zeros == pytest.approx([0.4] * len(zeros), abs=0.06)
    if not parts and model.lstm.num_layers > 1:
        assert model.lstm.dropout == 0.4
    assert model.config == {"vocab_size": V, "embedding_size": E, "classes": C, "dropout": 0.4,
                            "hidden_sizes": model.config["hidden_sizes"]}  # fmt: skip


@pytest.mark.parametrize("backend", ["loop", "fused", "cudnn"])
def test_every_backend(backend, data):
    outputs = []
    for name in ("auto", backend):
        torch.manual_seed(1)
        model = SequenceClassifier(V, E, (6, 6), C, backend=name).double()
        outputs.append(model(data.tokens, data.lengths))
    assert torch.allclose(*outputs, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 0}, "vocab_size: expected integers of at least 1, got 0"),
        ({"embedding_size": 2.5}, "embedding_size: expected integers of at least 1, got 2.5"),
        ({"hidden_sizes": ()}, r"hidden_sizes: expected integers of at least 1, got \(\)"),
        ({"hidden_sizes": (4, 0)}, r"hidden_sizes: expected integers of at least 1, got \(4, 0\)"),
        ({"classes": -1}, "classes: expected integers of at least 1, got -1"),
        ({"dropout": 1.0}, r"dropout: expected a rate in \[0, 1\), got 1.0"),
    ],
)
def test_sizes_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SequenceClassifier(**{"vocab_size": V, "classes": C} | arguments)


def changed(data, **parts):
    return data._replace(**parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"tokens": ["some text"]}, "tokens: expected integers (T, N), got list; encode the texts first"),
        (lambda d: {"tokens": "some text"}, "tokens: expected integers (T, N), got str; encode the texts first"),
        (lambda d: {"tokens": d.tokens[0]}, "tokens: expected (T, N), got shape (5,)"),
        (lambda d: {"tokens": d.tokens.double()}, "tokens: expected integers (T, N), got torch.float64"),
        (lambda d: {"tokens": d.tokens + 1}, "tokens: expected integers in [0, 11), got 11; encode with training's tokenizer"),
        (lambda d: {"tokens": d.tokens - 1}, "tokens: expected integers in [0, 11), got -1; encode with training's tokenizer"),
        (lambda d: {"tokens": d.tokens[:, :0]}, "tokens: expected at least one text of one character, got shape (7, 0)"),
        (lambda d: {"lengths": [3]}, "lengths: expected integers (N,), got list"),
        (lambda d: {"lengths": d.lengths[:2]}, "lengths: axis N should be 5 (N = 5 from tokens), got shape (2,)"),
        (lambda d: {"lengths": d.lengths[None]}, "lengths: expected (N,), got shape (1, 5)"),
        (
            lambda d: {"lengths": d.lengths - 1},
            "lengths: expected integers in [1, 7], T = 7 from tokens, got 0; leave empty texts out",
        ),
        (lambda d: {"lengths": d.lengths + 1}, "lengths: expected integers in [1, 7], T = 7 from tokens, got 8"),
    ],
)
def test_calls_that_cannot_be(change, message, data):
    model, data = SequenceClassifier(V, E, (6,), C), data._replace(**change(data))
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        model(data.tokens, data.lengths)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("some text", "train: expected Examples(tokens, lengths, labels), got str"),
        (["some", "text"], "train: expected Examples(tokens, lengths, labels), got list"),
        (
            (("a", "b"), np.zeros(2), ()),
            "train: expected Examples(tokens, lengths, labels), got tuple of something else; make them",
        ),
    ],
)
def test_other_things_than_examples(data, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        check_examples("train", data, SequenceClassifier(V, E, (6,), C), "cpu")


def test_labels_that_cannot_be(data):
    model = SequenceClassifier(V, E, (6,), C)
    with pytest.raises(ValueError, match=r"labels: expected tokens in \[0, 4\), got 4"):
        check_examples("train", data._replace(labels=torch.full((N,), C)), model, "cpu")
    with pytest.raises(ValueError, match=r"labels: expected shape \(5,\), one a text, got \(4,\)"):
        check_examples("train", data._replace(labels=data.labels[1:]), model, "cpu")
    with pytest.raises(ValueError, match="labels: expected integer tokens, got dtype float64"):
        check_examples("train", data._replace(labels=data.labels.double()), model, "cpu")
    found = check_examples("train", Examples(*(part.numpy().astype(np.int32) for part in data)), model, "cpu")
    assert all(a.dtype == torch.int64 and torch.equal(a, b) for a, b in zip(found, data, strict=True))


def test_saved_and_loaded(tmp_path, model, data):
    tokenizer, names = CharTokenizer("abcdefghi"), ("w", "x", "y", "\u0142")
    model.float()
    save(tmp_path / "m.safetensors", model, tokenizer, names)
    again, tokenizer_again, names_again = load(tmp_path / "m.safetensors")
    assert (tokenizer_again, names_again) == (tokenizer, names)
    assert again.config == model.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(data.tokens, data.lengths), model(data.tokens, data.lengths))
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_files_that_cannot_be_read(tmp_path):
    path, model = tmp_path / "m.safetensors", SequenceClassifier(V, E, (6, 6), C)
    with pytest.raises(CourseError, match=r"^no file '.*m.safetensors'; save a classifier there first$"):
        load(path)
    with pytest.raises(ValueError, match="names: expected 4, one for each class, got 2"):
        save(path, model, CharTokenizer("abc"), ("x", "y"))
    save(path, model, CharTokenizer("abc"), "wxyz")
    whole = path.read_bytes()
    for broken in (
        b"",
        b"hello",
        whole[:-5],
        whole.replace(b'\\"classes\\": 4', b'\\"classes\\": 5'),
        whole.replace(b"course_lib", b"course_lab"),
    ):
        assert broken != whole
        path.write_bytes(broken)
        with pytest.raises(CourseError, match=r"is not a whole classifier of this course \(.*\); save it again$"):
            load(path)
    with pytest.raises(CourseError, match="cannot write"):
        save(tmp_path / "no" / "m", model, CharTokenizer("abc"), "wxyz")


def kept(**changes):
    model = SequenceClassifier(V, E, (6,), C)
    params = {name: p.detach().numpy() for name, p in model.params().items()}
    return Classifier(params, CharTokenizer("abcdefghi"), tuple("wxyz"), model.config, "names", {"seed": 3}, {})._replace(
        **changes
    )


def test_the_state_of_a_run_goes_along_and_load_reads_the_same_file(tmp_path):
    path, extra = tmp_path / "best.safetensors", {"m.linear.bias": np.arange(4.0), "random": np.arange(3, dtype=np.uint8)}
    whole = kept(extra=extra)
    write(path, whole)
    found = read(tmp_path)
    assert found[1:3] == whole[1:3]
    assert (found.prepare, found.record) == ("names", {"seed": 3})
    assert SequenceClassifier(**found.config).config == {**whole.config, "hidden_sizes": (6,)}
    for mine, theirs in ((found.params, whole.params), (found.extra, extra)):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine)
    model, tokenizer, names = load(path)
    assert (tokenizer, names) == whole[1:3]
    assert all(np.array_equal(p.detach().numpy(), whole.params[name]) for name, p in model.params().items())
    assert not found.model().training


def test_a_file_of_before_is_read(tmp_path):
    """Weights, sizes, tokenizer and names alone."""
    path, whole = tmp_path / "m.safetensors", kept()
    header = {"config": whole.config, "tokenizer": whole.tokenizer.to_config(), "names": list(whole.names)}
    archive.write(path, archive.CLASSIFIER, header, whole.params)
    found = read(path)
    assert (found.prepare, found.record, found.extra) == ("as they are", {}, {})
    assert found.prepared(" A  b(c)") == " A  b(c)"
    assert load(path)[2] == whole.names


def test_how_texts_are_prepared():
    text = "  Cafe\u0301  NOIR (x)"
    wanted = {"as they are": text, "cleaned": "Caf\xe9 NOIR (x)", "names": "caf\xe9 noir"}
    assert {name: kept(prepare=name).prepared(text) for name in wanted} == wanted


def test_another_preparation_or_another_kind_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    write(path, kept(prepare="boiled"))
    with pytest.raises(
        CourseError, match=r"is not a whole classifier of this course \(it does not say how its texts were prep"
    ):
        read(path)
    archive.write(path, archive.TRANSLATOR, {}, {})
    with pytest.raises(CourseError, match=r"m.safetensors holds a translator: use `course translate` or `course eval`$"):
        read(path)
    with pytest.raises(ValueError, match="names: expected 4, one for each class, got 2"):
        write(path, kept(names=("x", "y")))
