"""Attention in torch against the NumPy one by hand, and where exponentials overflow; its laws are in ``translation_laws``."""

import numpy as np
import pytest
import torch
from problems import assert_close

from course_lib import attention_by_hand
from course_lib.attention import SCORES, Attention, Memory

Q, M, A, S, N = 5, 3, 4, 6, 3


def problem(score, seed=0):
    """An attention in double precision, one query a stream, states and lengths."""
    rng = np.random.default_rng(seed)
    attention = Attention(Q, M, score, A if score == "additive" else None).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape))))
    return attention, rng.normal(size=(N, Q)), rng.normal(size=(S, N, M)), np.array([S, 1, 4])


def mask_of(lengths):
    return torch.tensor(np.arange(S)[:, None] < lengths)


@pytest.mark.parametrize("score", SCORES)
def test_it_is_the_attention_by_hand_forwards_and_backwards(score):
    attention, query, states, lengths = problem(score)
    W = {name: parameter.detach().numpy() for name, parameter in attention.named_parameters()}
    if score == "additive":
        params = attention_by_hand.AdditiveParams(W["W_q"], W["W_k"], W["v"])
    else:
        params = attention_by_hand.MultiplicativeParams(W["W_k"])
    context, alpha, cache = getattr(attention_by_hand, f"{score}_forward")(query, states, lengths, params)
    above = np.random.default_rng(1).normal(size=(N, M))
    dquery, dstates, dparams = getattr(attention_by_hand, f"{score}_backward")(above, cache)
    q, m = torch.tensor(query, requires_grad=True), torch.tensor(states, requires_grad=True)
    found, weights = attention(q[None], attention.memory(m, mask_of(lengths)))
    (found[0] * torch.tensor(above)).sum().backward()
    assert_close((found[0].detach().numpy(), weights[0].detach().numpy()), (context, alpha), 1e-14)
    assert_close((q.grad.numpy(), m.grad.numpy()), (dquery, dstates), 1e-13)
    grads = {name: parameter.grad.numpy() for name, parameter in attention.named_parameters()}
    assert_close(tuple(grads[name] for name in params._fields), tuple(dparams), 1e-13)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_scores_overflow_nowhere(score, size):
    attention, query, states, lengths = problem(score)
    query = torch.tensor(size * query)[None].requires_grad_()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter *= 100
    context, alpha = attention(query, attention.memory(torch.tensor(states), mask_of(lengths)))
    assert torch.isfinite(context).all()
    assert torch.allclose(alpha.sum(2), torch.ones(1, N).double(), rtol=0, atol=1e-14)
    context.sum().backward()
    assert torch.isfinite(query.grad).all()


def test_scores_that_are_equal_weigh_the_real_positions_equally():
    attention, query, states, lengths = problem("additive")
    attention.v.data.zero_()
    context, alpha = attention(torch.tensor(query)[None], attention.memory(torch.tensor(states), mask_of(lengths)))
    for n, length in enumerate(lengths):
        assert alpha[0, n].tolist() == pytest.approx([1 / length] * length + [0] * (S - length))
        assert context[0, n].tolist() == pytest.approx(states[:length, n].mean(0).tolist())


@pytest.mark.parametrize("score", SCORES)
def test_a_single_position_gets_all(score):
    attention, query, states, _ = problem(score)
    context, alpha = attention(torch.tensor(query)[None], attention.memory(torch.tensor(states), mask_of(np.ones(N))))
    assert torch.equal(context[0], torch.tensor(states[0]))
    assert torch.equal(alpha[0], torch.eye(S).double()[:1].expand(N, -1))


def test_a_memory_is_kept_for_many_queries():
    """The keys are computed once: with other values of W_k the memory of before still holds the old ones."""
    attention, query, states, lengths = problem("multiplicative")
    memory = attention.memory(torch.tensor(states), mask_of(lengths))
    assert isinstance(memory, Memory)
    before = attention(torch.tensor(query)[None], memory)
    attention.W_k.data.zero_()
    assert torch.equal(attention(torch.tensor(query)[None], memory)[1], before[1])
    assert sorted(attention.state_dict()) == ["W_k"]


def test_a_row_of_queries_is_each_of_them():
    attention, query, states, lengths = problem("additive")
    memory = attention.memory(torch.tensor(states), mask_of(lengths))
    queries = torch.tensor(np.stack([query, 2 * query, -query]))
    context, alpha = attention(queries, memory)
    for t in range(3):
        one, weights = attention(queries[t : t + 1], memory)
        assert torch.allclose(context[t], one[0], rtol=0, atol=1e-14)
        assert torch.allclose(alpha[t], weights[0], rtol=0, atol=1e-14)
