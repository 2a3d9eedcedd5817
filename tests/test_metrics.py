"""Nats, bits and perplexity are one quantity; texts are pooled by their tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.metrics import bits_per_character, perplexity, pooled, score

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
