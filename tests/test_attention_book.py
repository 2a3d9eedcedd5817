"""The exercises on attention: what is expected is recomputed, right answers in many ways pass, and what is wrong is said."""

import numpy as np
import pytest
import torch

from course_lib.attention_book import ATTENTION_EXERCISES, additive_scores, attention_sizes
from course_lib.attention_by_hand import (
    additive_forward,
    attention_backward,
    attention_context,
    masked_softmax_forward,
)
from course_lib.exercises import EXERCISES, check

TRIALS = range(20)  # as many as a check looks at


def problems(name):
    return [EXERCISES[name].problem(np.random.default_rng(trial)) for trial in TRIALS]


def test_they_are_registered():
    numbers = {name: EXERCISES[name].number for name in ATTENTION_EXERCISES}
    assert numbers == {
        "masked_softmax": "10.1",
        "additive_scores": "10.2",
        "attention_context": "10.3",
        "attention_backward": "10.6",
    }
    assert all(EXERCISES[name] is exercise and len(exercise.mistakes) >= 15 for name, exercise in ATTENTION_EXERCISES.items())


# The problems


def test_sizes_differ_and_are_sometimes_square_and_sometimes_1():
    sizes = [attention_sizes(np.random.default_rng(trial)) for trial in range(100)]
    assert all(len(set(each)) == (3 if each[2] == each[3] else 5) for each in sizes)
    assert 20 <= sum(q == m == a for _, _, q, m, a in sizes) <= 50
    for axis in range(5):
        assert 0 < sum(each[axis] == 1 for each in sizes) < 30


def test_every_row_has_a_real_position_and_most_have_padding():
    all_lengths = []
    for scores, lengths in problems("masked_softmax"):
        assert 1 <= lengths.min() and lengths.max() == scores.shape[1]
        all_lengths += [length / scores.shape[1] for length in lengths]
    assert np.mean(np.array(all_lengths) < 1) > 0.4


def test_scores_overflow_and_padding_is_larger_now_and_then():
    overflow = sum(scores[np.arange(scores.shape[1]) < n[:, None]].max() > 710 for scores, n in problems("masked_softmax"))
    larger = sum(
        scores[np.arange(scores.shape[1]) >= n[:, None]].max(initial=0) > 2000 for scores, n in problems("masked_softmax")
    )
    assert 4 <= overflow <= 14 and 4 <= larger <= 14


def test_weights_are_weights_and_no_gradient_is_zero():
    for alpha, memory in problems("attention_context"):
        np.testing.assert_allclose(alpha.sum(axis=1), 1)
        assert memory.shape[:2] == alpha.T.shape and memory.all()
    for dcontext, alpha, memory in problems("attention_backward"):
        assert dcontext.shape == memory.shape[1:] and dcontext.all()
        assert (np.diff((alpha > 0).astype(int), axis=1) <= 0).all()
    padded = [(alpha == 0).any() for _, alpha, _ in problems("attention_backward")]
    assert sum(padded) > 10


# What is expected, recomputed


def test_expected_weights_are_pytorch_s():
    for scores, lengths in problems("masked_softmax"):
        rows = [torch.tensor(row[:n]).softmax(0).numpy() for row, n in zip(scores, lengths, strict=True)]
        expected = np.stack([np.pad(row, (0, scores.shape[1] - len(row))) for row in rows])
        np.testing.assert_allclose(ATTENTION_EXERCISES["masked_softmax"].reference(scores, lengths), expected, atol=1e-12)


def test_expected_scores_are_those_of_the_forward():
    for query, memory, params in problems("additive_scores"):
        (S, N, _), scores = memory.shape, additive_scores(query, memory, params)
        by_loops = [[params.v @ np.tanh(params.W_q @ query[n] + params.W_k @ memory[j, n]) for j in range(S)] for n in range(N)]
        np.testing.assert_allclose(scores, by_loops, atol=1e-12)
        full = np.full(N, S)
        np.testing.assert_allclose(
            masked_softmax_forward(scores, full), additive_forward(query, memory, full, params)[1], atol=1e-12
        )


def test_expected_gradients_are_autograd_s():
    for dcontext, alpha, memory in problems("attention_backward"):
        real = torch.tensor(alpha > 0)
        scores = torch.tensor(np.log(np.where(alpha > 0, alpha, 1)), requires_grad=True)
        states = torch.tensor(memory, requires_grad=True)
        context = torch.einsum("ns,snm->nm", scores.masked_fill(~real, -torch.inf).softmax(1), states)
        np.testing.assert_allclose(context.detach(), EXERCISES["attention_context"].reference(alpha, memory), atol=1e-12)
        context.backward(torch.tensor(dcontext))
        for mine, its in zip(attention_backward(dcontext, alpha, memory), (scores.grad, states.grad), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-10, atol=1e-10)


# Right in many ways


def softmax_by_loop(scores, lengths):
    alpha = np.zeros_like(scores)
    for n, length in enumerate(lengths):
        weights = np.exp(scores[n, :length] - max(scores[n, :length]))
        alpha[n, :length] = weights / weights.sum()
    return alpha


def softmax_by_a_large_number(scores, lengths):
    masked = np.where(np.arange(scores.shape[1])[None] >= lengths.reshape(-1, 1), -1e9, scores)
    e = np.exp(masked - np.max(masked, 1)[:, None])
    return (e.T / e.sum(1)).T


def softmax_in_torch(scores, lengths):
    scores = torch.from_numpy(scores)
    padding = torch.arange(scores.shape[1]) >= torch.from_numpy(lengths)[:, None]
    return torch.softmax(scores.masked_fill(padding, float("-inf")), dim=-1)


def softmax_by_logarithms(scores, lengths):
    allowed = scores.copy()
    for n, length in enumerate(lengths):
        allowed[n, length:] = -np.inf
    return np.exp(allowed - np.logaddexp.reduce(allowed, axis=1, keepdims=True))


def backward_by_jacobians(dcontext, alpha, memory):
    dscores = [(np.diag(a) - np.outer(a, a)) @ (memory[:, n] @ dcontext[n]) for n, a in enumerate(alpha)]
    return np.stack(dscores), np.einsum("ns,nm->snm", alpha, dcontext)


def backward_from_the_context(dcontext, alpha, memory):
    """Σ_k α_k dα_k is dcontext · context."""
    context = attention_context(alpha, memory)
    return alpha * ((memory - context) * dcontext).sum(2).T, alpha.T[..., None] * dcontext[None]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("masked_softmax", softmax_by_loop),
        ("masked_softmax", softmax_by_a_large_number),
        ("masked_softmax", softmax_in_torch),
        ("masked_softmax", softmax_by_logarithms),
        ("additive_scores", lambda q, m, p: np.stack([np.tanh(q @ p.W_q.T + state @ p.W_k.T) @ p.v for state in m], axis=1)),
        (
            "additive_scores",
            lambda q, m, p: np.einsum("a,sna->ns", p.v, np.tanh(np.einsum("aq,nq->na", p.W_q, q) + m @ p.W_k.T)),
        ),
        ("additive_scores", lambda q, m, p: (np.tanh(m @ p.W_k.T + (q @ p.W_q.T)[None]) * p.v).sum(-1).transpose()),
        ("attention_context", lambda alpha, memory: (alpha.T[:, :, None] * memory).sum(0)),
        ("attention_context", lambda alpha, memory: (alpha[:, None] @ memory.transpose(1, 0, 2))[:, 0]),
        ("attention_context", lambda alpha, memory: [a @ memory[:, n] for n, a in enumerate(alpha)]),
        ("attention_context", lambda alpha, memory: sum(alpha[:, j, None] * m for j, m in enumerate(memory))),
        ("attention_backward", backward_by_jacobians),
        ("attention_backward", backward_from_the_context),
        ("attention_backward", lambda *arguments: list(map(torch.from_numpy, attention_backward(*arguments)))),
    ],
)
def test_right_in_many_ways(name, right):
    assert check(name, right).passed


# Wrong


def masked_in_place(scores, lengths):
    scores[np.arange(scores.shape[1]) >= lengths[:, None]] = -np.inf
    return masked_softmax_forward(scores, lengths)


def changed(place, change):
    def wrong(*arguments):
        outputs = list(attention_backward(*arguments))
        outputs[place] = change(outputs[place])
        return outputs

    return wrong


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("masked_softmax", masked_in_place, "it changes its argument scores"),
        ("masked_softmax", lambda s, n: masked_softmax_forward(s, n).T, "is it the transpose?"),
        ("masked_softmax", lambda s, n: masked_softmax_forward(s, n)[:, :-1], "alpha: expected shape"),
        ("masked_softmax", lambda s, n: softmax_by_a_large_number(s - 1e12, n), "alpha is wrong"),
        ("masked_softmax", lambda s, n: np.exp(s) / np.exp(s).sum(1, keepdims=True), "alpha is wrong"),
        ("masked_softmax", lambda s, n: masked_softmax_forward(np.maximum(s, -700), n), "alpha is wrong"),
        ("masked_softmax", lambda s, n: masked_softmax_forward(np.clip(s, None, 50), n), "alpha is wrong"),
        ("additive_scores", lambda q, m, p: np.tanh(q @ p.W_k.T + m @ p.W_q.T) @ p.v, "hint: W_q is for the query"),
        ("additive_scores", lambda q, m, p: additive_scores(q, m, p)[..., None], "scores: expected shape"),
        ("additive_scores", lambda q, m, p: additive_scores(q, m, p) ** 3, "scores is wrong"),
        (
            "additive_scores",
            lambda q, m, p: additive_scores(q, m.transpose(1, 0, 2), p),
            "✗ additive_scores: your function raised",
        ),
        ("attention_context", lambda a, m: attention_context(a, m).T, "is it the transpose?"),
        ("attention_context", lambda a, m: -attention_context(a, m), "the sign is wrong everywhere"),
        ("attention_context", lambda a, m: attention_context(a, m) / len(a), "context is wrong"),
        ("attention_context", lambda a, m: a @ m, "✗ attention_context: "),
        ("attention_backward", lambda d, a, m: attention_backward(d, a, m)[0], "expected 2 values (dscores, dmemory), got one"),
        ("attention_backward", lambda d, a, m: attention_backward(np.clip(d, -5, 5), a, m), "dscores is wrong"),
        ("attention_backward", lambda d, a, m: (attention_backward(d, a, m)[0], None), "dmemory is not written yet"),
        *[
            ("attention_backward", changed(place, change), f"{what} is wrong")
            for place, what in enumerate(("dscores", "dmemory"))
            for change in (np.negative, np.square, np.zeros_like, lambda a: 1.01 * a, lambda a: a + 0.01 * abs(a).max())
        ],
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)
