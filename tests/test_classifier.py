"""Training and using a classifier: each score recomputed by a loop, each run repeated."""

import numpy as np
import pytest
import torch

from course_lib import classifier
from course_lib.classifier import Examples, SequenceClassifier
from course_lib.languages import Part, encode
from course_lib.text import CharTokenizer

CLASSES = 3
TOKENIZER = CharTokenizer.from_text("abcdefg")
V = TOKENIZER.size + 1


def part(count, seed):
    """Texts whose class is that of their last letter, of lengths 1 to 9."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abcdefg"), rng.integers(1, 10))) for _ in range(count)]
    labels = np.array([ord(text[-1]) % CLASSES for text in texts])
    return Part(tuple(texts), labels, tuple(("made", text) for text in texts))


TRAIN, HELD_OUT = part(230, 0), part(61, 1)


@pytest.fixture(scope="module")
def train():
    return classifier.examples(TRAIN, TOKENIZER)


@pytest.fixture(scope="module")
def held_out():
    return classifier.examples(HELD_OUT, TOKENIZER)


def new_model(seed=0, dropout=0.1):
    torch.manual_seed(seed)
    return SequenceClassifier(V, 6, (9, 8), CLASSES, dropout)


@pytest.fixture(scope="module")
def fitted(train, held_out):
    model, lines = new_model(), []
    history = classifier.fit(model, train, held_out, epochs=12, batch_size=16, lr=2e-2, seed=3, report=lines.append)
    return model, history, lines


def slow_log_probs(model, texts):
    """One text at a time, padding nowhere."""
    rows = []
    for text in texts:
        with torch.no_grad():
            logits = model.eval()(torch.tensor([[i + 1] for i in TOKENIZER.encode(text).tolist()]), torch.tensor([len(text)]))[
                0
            ]
        a = logits.double().numpy()
        rows.append(a - np.log(np.exp(a).sum()))
    return np.array(rows)


def test_examples(train):
    tokens, lengths = encode(TRAIN.texts, TOKENIZER)
    assert np.array_equal(train.tokens, tokens)
    assert np.array_equal(train.lengths, lengths)
    assert np.array_equal(train.labels, TRAIN.labels)


def test_it_learns(fitted):
    model, history, lines = fitted
    assert len(history) == len(lines) == 12
    assert history[0].train_loss < np.log(CLASSES) + 0.2
    assert history[-1].validation_accuracy > 0.9
    assert history[-1].train_loss < 0.4 < history[0].train_loss
    assert not model.training
    assert all(row.seconds > 0 for row in history)
    assert lines[1] == (f"epoch 2: loss {history[1].train_loss:.3f}, validation {history[1].validation_loss:.3f}, "
                        f"{history[1].validation_accuracy:.3f} right")  # fmt: skip


def test_scores_by_a_loop(fitted, held_out):
    model, history, _ = fitted
    slow = slow_log_probs(model, HELD_OUT.texts)
    np.testing.assert_allclose(classifier.log_probs(model, held_out, batch_size=7), slow, atol=1e-5)
    loss = -np.mean([row[y] for row, y in zip(slow, HELD_OUT.labels, strict=True)])
    right = np.mean([row.argmax() == y for row, y in zip(slow, HELD_OUT.labels, strict=True)])
    assert classifier.evaluate(model, held_out) == (pytest.approx(loss, abs=1e-5), right)
    assert history[-1][2:4] == classifier.evaluate(model, held_out)


def test_the_training_columns(train, held_out):
    """At a learning rate of almost nothing and without dropout, they are the scores of the untrained model."""
    model = new_model(dropout=0.0)
    loss, right = classifier.evaluate(model, train)
    (row,) = classifier.fit(model, train, held_out, epochs=1, batch_size=64, lr=1e-9)
    assert row.train_loss == pytest.approx(loss, abs=1e-5)
    assert row.train_accuracy == pytest.approx(right, abs=0.01)


def test_one_step_is_adam_on_the_clipped_gradient(train, held_out):
    few = Examples(train.tokens[:, :20], train.lengths[:20], train.labels[:20])
    ours, theirs = new_model(dropout=0.0), new_model(dropout=0.0)
    classifier.fit(ours, few, held_out, epochs=1, batch_size=20, lr=0.5, seed=9)
    for p in theirs.parameters():
        p.requires_grad_()
    torch.nn.functional.cross_entropy(theirs(few.tokens, few.lengths), few.labels).backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Adam's first step has the size of the learning rate whatever the gradient's; progress 0 is warm-up's thousandth / 0.02
        step = 0.5 * 1e-3 / 0.02 * torch.sign(q.grad)
        moved = q.grad.abs() > 1e-4
        assert torch.allclose(p[moved], (q - step)[moved], atol=1e-4)


def test_the_same_seed_the_same_weights(train, held_out, fitted):
    models = [new_model() for _ in range(3)]
    histories = []
    for model, seed in zip(models, (3, 3, 4), strict=True):
        torch.rand(seed)  # whatever was drawn before
        histories.append(classifier.fit(model, train, held_out, epochs=2, batch_size=16, lr=2e-2, seed=seed))
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])
    assert [row[:4] for row in histories[0]] == [row[:4] for row in histories[1]]


def test_the_seed_also_deals_the_batches(train, held_out):
    models = [new_model(dropout=0.0) for _ in range(2)]
    for seed, model in enumerate(models):
        classifier.fit(model, train, held_out, epochs=1, batch_size=16, lr=2e-2, seed=seed)
    assert not torch.allclose(*(model.linear.weight for model in models))


def test_gradients_are_fresh_and_clipped_and_dropout_is_on(train, held_out, monkeypatch):
    seen = []
    model = new_model(dropout=0.0).eval()

    def spy(self):
        gradients = torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]])
        seen.append((gradients.clone(), model.training))

    monkeypatch.setattr(torch.optim.Adam, "step", spy)  # so the weights stay
    whole = {"batch_size": len(train.labels), "seed": 1}
    classifier.fit(model, train, held_out, epochs=2, **whole)
    assert torch.allclose(seen[0][0], seen[1][0], atol=1e-6)
    assert all(training for _, training in seen)
    small = seen[0][0].norm()
    assert small < classifier.MAX_NORM
    monkeypatch.setattr(classifier, "MAX_NORM", float(small) / 3)
    classifier.fit(model, train, held_out, epochs=1, **whole)
    assert torch.allclose(seen[2][0], seen[0][0] / 3, atol=1e-6)


def test_the_learning_rate_falls_to_zero(train, held_out, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def spy(self):
        rates.append(self.param_groups[0]["lr"])
        return step(self)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    classifier.fit(new_model(), train, held_out, epochs=30, batch_size=16, lr=0.01)
    assert len(rates) == 30 * 15
    assert max(rates) == pytest.approx(0.01, rel=0.01)
    peak = int(np.argmax(rates))
    assert peak < 0.05 * len(rates)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-5


def test_batches_hold_every_text_once(train):
    rng = np.random.default_rng(2)
    first, second = classifier.batches(train, 32, rng), classifier.batches(train, 32, rng)
    longest = [int(batch.lengths.max()) for batch in first + second]
    assert longest[:8] != sorted(longest[:8])
    assert longest[:8] != longest[8:]
    for found in (first, second):
        assert len(found) == 8
        columns = []
        for batch in found:
            assert len(batch.tokens) == batch.lengths.max()
            columns += [
                (*column[:n].tolist(), label)
                for column, n, label in zip(batch.tokens.T, batch.lengths, batch.labels.tolist(), strict=True)
            ]
            assert all((column[n:] == 0).all() for column, n in zip(batch.tokens.T, batch.lengths, strict=True))
        expected = [(*(TOKENIZER.encode(t) + 1).tolist(), y) for t, y in zip(TRAIN.texts, TRAIN.labels.tolist(), strict=True)]
        assert sorted(columns) == sorted(expected)
    assert not all(
        torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True) if a.tokens.shape == b.tokens.shape
    )
    padding = np.mean([float((batch.tokens == 0).float().mean()) for batch in first])
    assert padding < 0.5 * float((train.tokens == 0).float().mean())


def test_predict(fitted):
    model, _, _ = fitted
    model.train()  # dropout must stay out, and the mode as it is
    texts = ["gab", "e", "zzz?a"]
    found = classifier.predict(model, texts, TOKENIZER)
    assert model.training
    known = [text.translate({ord("z"): "\ufffd", ord("?"): "\ufffd"}) for text in texts]
    np.testing.assert_allclose(found, np.exp(slow_log_probs(model, known)), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize("texts", ["some text", [3, 4], np.zeros((2, 3), int), torch.zeros(2, 3)])
def test_predict_wants_texts(fitted, texts):
    with pytest.raises(ValueError, match="texts: expected a list of texts"):
        classifier.predict(fitted[0], texts, TOKENIZER)


@pytest.mark.parametrize("texts", [[], [""], ["abc", ""]])
def test_predict_wants_characters(fitted, texts):
    with pytest.raises(ValueError, match="texts: expected at least one, none of them empty"):
        classifier.predict(fitted[0], texts, TOKENIZER)


def test_accuracy_by_prefix_cuts_the_texts(fitted, held_out):
    model, _, _ = fitted
    seen = [1, 2, 5, 20]
    expected = []
    for k in seen:
        guesses = slow_log_probs(model, [text[:k] for text in HELD_OUT.texts]).argmax(1)
        expected.append((guesses == HELD_OUT.labels).mean())
    np.testing.assert_allclose(classifier.accuracy_by_prefix(model, held_out, seen), expected)
    assert expected[-1] > expected[0] + 0.3
    for wrong in ([0, 1], []):
        with pytest.raises(ValueError, match="seen: expected numbers of characters, at least 1 each, got"):
            classifier.accuracy_by_prefix(model, held_out, wrong)


def test_confusion_by_a_loop():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 4, (2, 50))
    expected = np.zeros((5, 5), int)
    for true, guess in zip(labels, predicted, strict=True):
        expected[true, guess] += 1
    assert np.array_equal(classifier.confusion(labels, predicted, 5), expected)
    with pytest.raises(ValueError, match=r"predicted: expected shape \(50,\) as labels, one axis, got \(49,\)"):
        classifier.confusion(labels, predicted[1:], 5)
    with pytest.raises(ValueError, match=r"predicted: expected tokens in \[0, 3\), got 3"):
        classifier.confusion(labels % 3, predicted, 3)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr"])
def test_numbers_that_are_not_positive(train, held_out, name):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got 0"):
        classifier.fit(new_model(), train, held_out, **{name: 0})


def test_data_that_cannot_be(train, held_out):
    with pytest.raises(ValueError, match="train: expected Examples"):
        classifier.fit(new_model(), TRAIN, held_out)
    with pytest.raises(ValueError, match="validation: expected Examples"):
        classifier.fit(new_model(), train, HELD_OUT)
    with pytest.raises(ValueError, match="labels: expected tokens"):
        classifier.fit(new_model(), train._replace(labels=train.labels + 1), held_out)
    with pytest.raises(ValueError, match="at least one text"):
        classifier.evaluate(new_model(), Examples(*(tensor[..., :0] for tensor in train)))


def test_names_of_the_model_are_here_too(tmp_path, fitted):
    classifier.save(tmp_path / "m", fitted[0], TOKENIZER, "xyz")
    again, tokenizer, names = classifier.load(tmp_path / "m")
    assert (tokenizer, names) == (TOKENIZER, ("x", "y", "z"))
    assert np.array_equal(classifier.predict(again, ["abc"], tokenizer), classifier.predict(fitted[0], ["abc"], TOKENIZER))
