"""Nats, bits and perplexity are one quantity; texts are pooled by their tokens. BLEU, F1 and exact match, counted by hand."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.metrics import bits_per_character, bleu, exact_match, perplexity, pooled, score, token_f1

nats = st.floats(0, 20)


@given(st.integers(1, 10**6))
def test_a_uniform_guess_among_v_scores_log_v(v):
    uniform = score(37 * math.log(v), 37)
    assert uniform == pytest.approx((math.log(v), math.log2(v), v, 37), rel=1e-12)
    assert uniform._fields == ("nats", "bits_per_character", "perplexity", "tokens")


@given(nats)
def test_units_agree(value):
    assert 2 ** bits_per_character(value) == pytest.approx(perplexity(value), rel=1e-12)


def test_perplexity_does_not_overflow():
    assert perplexity(700) == math.exp(700)
    assert perplexity(1e4) == math.inf
    assert math.isnan(perplexity(math.nan))


@given(st.lists(st.tuples(nats, st.integers(1, 1000)), min_size=1))
def test_pooling_is_scoring_the_concatenation(parts):
    surprisals = [value for value, count in parts for _ in range(count)]
    assert pooled(iter(parts)) == pytest.approx(score(math.fsum(surprisals), len(surprisals)), rel=1e-9)


def test_pooling_is_not_the_mean_of_means():
    assert pooled([(1.0, 3), (2.0, 1)]).nats == 1.25
    assert pooled([(1.0, 3), (2.0, 1)]).perplexity == pytest.approx(math.exp(1.25))


@pytest.mark.parametrize("make", [lambda: score(0.0, 0), lambda: pooled([]), lambda: pooled([(1.0, 0)])])
def test_no_tokens_no_score(make):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == "tokens: expected at least 1, got 0"


def random_sentences(seed, count, words="abcdefg"):
    """Sentences of a few words each, drawn from so few that n-grams repeat: clipping has something to do."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list(words), rng.integers(1, 12))) for _ in range(count)]


def bleu_by_hand(hypotheses, references):
    """(score, brevity penalty, precisions): clipped n-grams of the whole corpus; none in common counts as 1/2, 1/4, ...."""
    hypotheses, references = ([text.split() for text in side] for side in (hypotheses, references))
    precisions, missing = [], 1
    for n in (1, 2, 3, 4):
        matched = total = 0
        for h, r in zip(hypotheses, references, strict=True):
            left = [tuple(r[i : i + n]) for i in range(len(r) - n + 1)]
            for i in range(len(h) - n + 1):
                total += 1
                if tuple(h[i : i + n]) in left:
                    left.remove(tuple(h[i : i + n]))
                    matched += 1
        if not matched:
            missing *= 2
        precisions.append(100 * matched / total if matched else 100 / (missing * total))
    c, r = (sum(map(len, side)) for side in (hypotheses, references))
    penalty = 1.0 if c >= r else math.exp(1 - r / c)
    return penalty * math.prod(precisions) ** (1 / 4), penalty, precisions


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_bleu_is_what_clipped_counts_say(seed, cut):
    references = random_sentences(seed, 20)
    words = [sentence.split() for sentence in references]
    hypotheses = [" ".join(w[: max(1, len(w) - (i % cut))] + w[:1] * (i % 3 == 0)) for i, w in enumerate(words)]
    if seed % 2:
        hypotheses = random_sentences(seed + 100, 20, "abcx")
    result = bleu(hypotheses, references)
    expected, penalty, precisions = bleu_by_hand(hypotheses, references)
    assert result.precisions == pytest.approx(precisions, rel=1e-9)
    assert result.brevity_penalty == pytest.approx(penalty, rel=1e-9)
    assert result.score == pytest.approx(expected, rel=1e-9)
    assert 0 < result.score < 100


def test_bleu_clips_and_penalises_brevity():
    assert bleu(["the the the the the the the"], ["the cat is on the mat"]).precisions[0] == pytest.approx(200 / 7)  # not 100
    short = bleu(["a b c d"], ["a b c d e f"])
    assert (short.precisions, short.score) == (pytest.approx((100,) * 4), pytest.approx(100 * math.exp(-0.5)))
    assert bleu(["a b c d e f"], ["a b c d"]).brevity_penalty == 1
    assert bleu(["", ""], ["a b", "c"]).score == 0


def test_bleu_sums_over_the_corpus():
    hypotheses, references = ["a b c d e", "x y z u v"], ["a b c d e", "x y z v u w w w"]
    mean = sum(bleu([h], [r]).score for h, r in zip(hypotheses, references, strict=True)) / 2
    assert abs(bleu(hypotheses, references).score - mean) > 1
    assert bleu(hypotheses, references).score == pytest.approx(bleu_by_hand(hypotheses, references)[0])


def test_bleu_splits_punctuation_and_says_what_it_did():
    assert bleu(["a dog, it is here."], ["a dog , it is here ."]).score == pytest.approx(100)
    assert bleu(["A Dog is here now"], ["a dog is here now"]).score < 50
    assert bleu(["A Dog is here now"], ["a dog is here now"], lowercase=True).score == pytest.approx(100)
    for lowercase, case in ((False, "mixed"), (True, "lc")):
        signature = bleu(["a"], ["a"], lowercase).signature
        assert re.fullmatch(rf"nrefs:1\|case:{case}\|eff:no\|tok:13a\|smooth:exp\|version:[\d.]+", signature)


@pytest.mark.parametrize("seed", range(5))
def test_token_f1_is_the_mean_of_harmonic_means(seed):
    predictions, references = random_sentences(seed, 30), random_sentences(seed + 50, 30, "abcd")
    values = []
    for p, r in zip(map(str.split, predictions), map(str.split, references), strict=True):
        common = sum(min(p.count(token), r.count(token)) for token in set(p))
        precision, recall = common / len(p), common / len(r)
        values.append(2 * precision * recall / (precision + recall) if common else 0.0)
    assert token_f1(predictions, references) == pytest.approx(np.mean(values), rel=1e-12)
    assert 0.1 < np.mean(values) < 0.9


def test_token_f1_and_exact_match_by_hand():
    assert token_f1(["get file"], ["get file name"]) == pytest.approx(0.8)
    assert token_f1(["a a a"], ["a b"]) == pytest.approx(0.4)  # the second and the third a match nothing
    assert token_f1(["b a", "x", "", ""], ["a b", "y", "a", ""]) == 0.5
    assert exact_match(["b a", "x", "y ", ""], ["a b", "x", "y", ""]) == 0.5


@pytest.mark.parametrize(("measure", "name"), [(bleu, "hypotheses"), (token_f1, "predictions"), (exact_match, "predictions")])
def test_texts_and_references_must_be_as_many(measure, name):
    for texts, references, message in [
        (["a", "b"], ["a"], f"{name}: expected 1 texts, one for each reference, got 2"),
        ([], [], f"{name}: expected at least one text, got none"),
        ("ab", ["a", "b"], f"{name}: expected a list of texts, got one text; put it in a list"),
        (["a", "b"], "ab", "references: expected a list of texts, got one text; put it in a list"),
    ]:
        with pytest.raises(ValueError) as caught:
            measure(texts, references)
        assert str(caught.value) == message
