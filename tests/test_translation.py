"""Translations in words: unknown ones are copied, texts keep their order, and what cannot be translated is named in one line.

The laws (a batch is its singles, true perplexity, scores by teacher forcing, all candidates) are in ``translation_laws``.
"""

import numpy as np
import pytest

from course_lib import translation
from course_lib.errors import CourseError
from course_lib.pairs import Pairs
from course_lib.seq2seq import EOS, Seq2Seq
from course_lib.translation import Encoded, alignment, candidates, encode, evaluate, prepared, source_tokens, translate
from course_lib.translator import Translator
from course_lib.units import UnitTokenizer

SOURCE, TARGET = UnitTokenizer("words", ("le", "chat", "dort", "."), True), UnitTokenizer("words", ("the", "cat", "."), True)
TEXTS = ["Le chat dort.", "Zorglub dort", "le", "le chat le chat le chat .", "chat Zorglub Snark ."]


def made(attention="additive", seed=3, prepare="sentences", size=1.5) -> Translator:
    """A translator with large random weights, which writes what it likes."""
    config = {"source_size": SOURCE.size, "target_size": TARGET.size, "embedding_size": 6, "hidden_size": 8}
    model = Seq2Seq(**config, attention=attention)
    rng = np.random.default_rng(seed)
    params = {n: rng.normal(0, size, tuple(p.shape)).astype(np.float32) for n, p in model.params().items()}
    return Translator(params, SOURCE, TARGET, {"model": model.config, "longest": [4, 6], "prepare": prepare}, {}, {})


def copying() -> Translator:
    """It writes one unknown word and the end, and looks at the source's unknown words only.

    h is zero but for the gates' biases, so everything is decided by the embeddings: the encoder's state tells words apart.
    """
    found = made(size=0.0)
    params = {name: array.copy() for name, array in found.params.items()}
    H = 4  # units in each direction
    for way in ("ahead", "back"):
        W, b = params[f"encoder.layers.0.{way}.W_ih"], params[f"encoder.layers.0.{way}.b"]
        W[2 * H, 0], b[:H], b[H : 2 * H], b[3 * H :] = 5, 5, -5, 5  # unit 0: tanh of the candidate, in and out, no memory
    params["source_embedding.weight"][3, 0] = 1
    params["attention.W_k"][0, 0] = 20
    params["attention.v"][0] = 20
    params["target_embedding.weight"][3, 1], params["target_embedding.weight"][EOS, 2] = 10, 10
    params["target_embedding.weight"][1, 3] = 10  # BOS is known by its third unit
    decoder = "decoder.layers.0"
    params[f"{decoder}.b"][:8], params[f"{decoder}.b"][8:16], params[f"{decoder}.b"][24:] = 5, -5, 5
    params[f"{decoder}.W_ih"][16, 3] = 5  # unit 0 is high behind BOS
    params["combine.weight"][1, 0], params["combine.bias"][1], params["combine.bias"][2] = 5, -1, 0.5
    return found._replace(params=params)


def test_an_unknown_word_is_replaced_by_the_source_word_looked_at_most():
    translator = copying()
    found = translate(translator, ["le Zorglub dort", "Snark", "chat chat chat Wolpertinger ."])
    assert [t.text for t in found] == ["zorglub", "snark", "wolpertinger"]
    assert [t.tokens.tolist() for t in found] == [[3, EOS]] * 3
    assert all(t.ended for t in found)
    alpha = alignment(translator.model(), source_tokens(translator, "le Zorglub dort"), np.array([3, EOS]))
    assert alpha.shape == (2, 3)
    assert alpha[0].argmax() == 1
    assert alpha.sum(1) == pytest.approx([1, 1])


def test_without_attention_an_unknown_word_stays_unknown():
    model = made("none")
    model.params["bias"][3] = 50
    found = translate(model, ["le Zorglub"])[0]
    assert found.text == " ".join(["<unk>"] * 6)
    assert not found.ended
    assert len(found.tokens) == 6, "cut at the length of the longest target of training"


@pytest.mark.parametrize("attention", ["none", "additive", "multiplicative"])
@pytest.mark.parametrize("width", [1, 3])
def test_texts_keep_their_order_in_any_batches(attention, width, monkeypatch):
    translator = made(attention)
    alone = [translate(translator, [text], width)[0] for text in TEXTS]
    assert len({t.text for t in alone}) >= 2
    for at_once in (1, 2, 256):
        monkeypatch.setattr(translation, "AT_ONCE", at_once)
        found = translate(translator, TEXTS, width)
        assert [t.text for t in found] == [t.text for t in alone]
        assert [t.log_prob for t in found] == pytest.approx([t.log_prob for t in alone], abs=1e-4)
        assert [t.tokens.tolist() for t in found] == [t.tokens.tolist() for t in alone]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_candidates_are_different_and_the_best_first(penalty):
    for text in TEXTS:
        found = candidates(made(), text, 6, penalty)
        assert 1 < len(found) <= 6
        assert len({tuple(t.tokens.tolist()) for t in found}) == len(found)
        assert [t.score for t in found] == sorted((t.score for t in found), reverse=True)
        for t in found:
            assert t.score == pytest.approx(t.log_prob / len(t.tokens) ** penalty)
            assert t.log_prob < 0
            assert t.ended == (t.tokens[-1] == EOS)
        assert [t.text for t in candidates(made(), text, 6, penalty, n_best=2)] == [t.text for t in found[:2]]
        assert translate(made(), [text], 6, penalty)[0].text == found[0].text


def test_a_model_at_hand_is_used_without_its_dropout():
    translator = made()
    config = translator.config | {"model": translator.config["model"] | {"dropout": 0.5}}
    model = translator._replace(config=config).model()
    for width in (1, 3):
        expected = translate(translator, TEXTS, width)
        for _ in range(3):
            assert [t.text for t in translate(translator, TEXTS, width, model=model.train())] == [t.text for t in expected]
    expected = [t.score for t in candidates(translator, TEXTS[0])]
    assert [t.score for t in candidates(translator, TEXTS[0], model=model.train())] == pytest.approx(expected, abs=1e-5)


def test_texts_are_cleaned_as_those_of_training():
    assert prepared(made(), "  Le \t chat ") == "Le chat"
    assert prepared(made(prepare="dates"), " Le 3 FÉVRIER ") == "le 3 février"
    assert source_tokens(made(), "Le  CHAT dort.").tolist() == [4, 5, 6, 7]
    for first, second in zip(translate(made(), ["LE chat", " le  chat"]), translate(made(), ["le chat"] * 2), strict=True):
        assert first.text == second.text


@pytest.mark.parametrize("width", [1, 2])
def test_what_cannot_be_translated_is_named(width):
    for text in ("", " ", "\t\n"):
        with pytest.raises(CourseError, match=r"^the text to translate is empty; give at least one character$"):
            translate(made(), ["le", text], width)
    assert translate(made(), ["le " * 8], width)[0].text is not None
    message = r"^the text has 9 words and the model learned from at most 4; translate it in parts$"
    with pytest.raises(CourseError, match=message):
        translate(made(), ["le", "le " * 9], width)
    assert translate(made(), [], width) == []


def test_pairs_with_an_empty_side_are_named():
    good = Pairs(("le chat", "dort"), ("the cat", "the ."))
    found = encode(good, SOURCE, TARGET)
    assert [s.tolist() for s in found.source] == [[4, 5], [6]]
    assert [t.tolist() for t in found.target] == [[4, 5, EOS], [4, 6, EOS]]
    with pytest.raises(CourseError, match=r"^pair 2 has an empty side \('dort' \| ' '\); take it out$"):
        encode(good._replace(target=("the", " ")), SOURCE, TARGET)
    with pytest.raises(CourseError, match=r"^pair 1 has an empty side \('' \| 'the cat'\); take it out$"):
        encode(good._replace(source=("", "le")), SOURCE, TARGET)


def test_perplexity_of_guessing_is_the_vocabulary():
    model = made(size=0.0).model()
    data = Encoded([np.array([4, 5]), np.array([6])], [np.array([4, EOS]), np.array([5, 4, 5, EOS])])
    nats, count = evaluate(model, data)
    assert count == 6
    assert np.exp(nats / count) == pytest.approx(TARGET.size)


def test_perplexity_is_not_of_its_own_guesses():
    """A model that never guesses right by itself, yet knows what follows a true token."""
    translator = made(size=0.0)
    params = translator.params
    params["target_embedding.weight"][4, 0] = params["target_embedding.weight"][5, 1] = 30.0
    decoder = "decoder.layers.0"
    params[f"{decoder}.b"][:8], params[f"{decoder}.b"][8:16], params[f"{decoder}.b"][24:] = 9, -9, 9
    params[f"{decoder}.W_ih"][16, 0] = params[f"{decoder}.W_ih"][17, 1] = 9.0
    params["combine.weight"][1, 0] = params["combine.weight"][0, 1] = 9.0  # "the" is followed by "cat", "cat" by "the"
    nats, count = evaluate(translator.model(), Encoded([np.array([4])], [np.array([4, 5, 4, 5, 4, 5])]))
    assert count == 6
    assert nats == pytest.approx(np.log(TARGET.size), abs=1e-3), "only the first token is a guess"


def test_alignment_is_of_the_model_without_attention_too():
    assert alignment(made("none").model(), np.array([4, 5, 6]), np.array([4, EOS])).tolist() == [[1.0], [1.0]]
