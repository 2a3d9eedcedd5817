"""The language model against its definition, step by step; its gradients by differences; every token scored once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import CELLS, assert_close, copied, few, form, random_stack, random_stack_state, slow_forward

from course_lib.gradcheck import gradient_check
from course_lib.language_model import (
    LanguageModelParams,
    evaluate,
    forward,
    init,
    initial_state,
    loss_and_grads,
    make_step,
    step,
)
from course_lib.layers import dropout_forward
from course_lib.shapes import ShapeError
from course_lib.trees import leaves, map_tree

every_cell = pytest.mark.parametrize("cell", CELLS)
T, N, V, E, H, L = 5, 3, 6, 2, 4, 2


def problem(cell, L=L, seed=0, dtype=np.float64):
    """Parameters, tokens, targets and a state, all without special values; some token twice, some never."""
    rng = np.random.default_rng(seed)
    W_out, b_out = rng.normal(size=(V, H)), rng.normal(size=V)
    params = LanguageModelParams(rng.normal(size=(V, E)), random_stack(rng, cell, E, H, L), W_out, b_out)
    state = random_stack_state(rng, cell, N, H, L)
    tokens, targets = rng.integers(0, V - 1, (2, T, N))
    params, state = map_tree(lambda a: a.astype(dtype), (params, state))
    return params, tokens, targets, state


def slow_logits(cell, params, tokens, state, lengths=None, masks=None):
    """Logits and final states from loops over steps; ``masks`` multiply the inputs of each layer and of the softmax."""
    x, finals, masks = params.embedding[tokens], [], masks or [1.0] * (len(params.layers) + 1)
    for layer, initial, mask in zip(params.layers, state, masks, strict=False):
        x, final, _ = slow_forward(cell, x * mask, initial, layer, lengths)
        finals.append(final)
    return np.einsum("tnh,vh->tnv", x * masks[-1], params.W_out) + params.b_out, tuple(finals)


def surprisal(logits, targets):
    """-log p(target) of each position."""
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(probs, targets[..., None], axis=-1)[..., 0])


@every_cell
@pytest.mark.parametrize("lengths", [None, [5, 0, 2]], ids=["plain", "masked"])
def test_forward_and_loss_by_their_definition(cell, lengths):
    params, tokens, targets, state = problem(cell)
    kept = copied((params, tokens, targets, state))
    logits, final, _ = forward(params, tokens, state, lengths)
    expected, expected_final = slow_logits(cell, params, tokens, state, lengths)
    assert_close((logits, final), (expected, expected_final), 1e-12)
    if lengths is None:
        loss, grads, new_state = loss_and_grads(params, tokens, targets, state)
        assert loss == pytest.approx(surprisal(expected, targets).mean(), rel=1e-12)
        assert_close(new_state, expected_final, 1e-12)
        assert form(grads) == form(params)
    assert_close((params, tokens, targets, state), kept, 0)


@every_cell
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_by_differences(cell, rate):
    params, tokens, targets, state = problem(cell)

    def loss(*arrays):
        take = iter(arrays)
        varied = map_tree(lambda _: next(take), params)
        return loss_and_grads(varied, tokens, targets, state, rate, np.random.default_rng(5))[0]

    grads = loss_and_grads(params, tokens, targets, state, rate, np.random.default_rng(5))[1]
    assert gradient_check(loss, leaves(params), leaves(grads)) <= 1e-6


def test_dropout_is_on_the_embedding_between_layers_and_before_the_softmax():
    params, tokens, _, state = problem("lstm")
    logits, final, _ = forward(params, tokens, state, None, 0.5, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    masks = [dropout_forward(np.ones((T, N, width)), 0.5, rng)[1] for width in (E, H, H)]
    assert_close((logits, final), slow_logits("lstm", params, tokens, state, masks=masks), 1e-12)


@every_cell
def test_state_carried_between_calls_is_one_long_call(cell):
    params, tokens, targets, state = problem(cell)
    whole, _, end = loss_and_grads(params, tokens, targets, state)
    first, _, middle = loss_and_grads(params, tokens[:2], targets[:2], state)
    second, _, last = loss_and_grads(params, tokens[2:], targets[2:], middle)
    assert (2 * first + 3 * second) / 5 == pytest.approx(whole, rel=1e-12)
    assert_close(last, end, 1e-12)


@every_cell
@pytest.mark.parametrize("L", [1, 3])
def test_steps_equal_forward(cell, L):
    params, tokens, _, state = problem(cell, L)
    kept = copied((params, state))
    logits, final, _ = forward(params, tokens, state)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    slow, fast, fast_step = state, state, make_step(params)
    for t in range(T):
        log_probs, slow = step(params, tokens[t], slow)
        fast_log_probs, fast = fast_step(tokens[t], fast)
        assert_close((log_probs, fast_log_probs), (expected[t], expected[t]), 1e-12)
        assert_close(fast, slow, 1e-12)
    assert_close(slow, final, 1e-12)
    assert_close((params, state), kept, 0)


@every_cell
def test_float32_stays_and_is_close(cell):
    double, single = problem(cell), problem(cell, dtype=np.float32)
    loss, grads, state = loss_and_grads(*single)
    expected = loss_and_grads(*double)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert_close((grads, state), expected[1:], 1e-5)
    dropped = loss_and_grads(*single, 0.3, np.random.default_rng(0))[1]
    steps = [one(single[1][0], single[3]) for one in (make_step(single[0]), lambda *a: step(single[0], *a))]
    assert_close(steps[0], steps[1], 1e-5)
    assert {leaf.dtype for leaf in leaves((grads, state, dropped, *steps))} == {np.dtype(np.float32)}


def slow_evaluate(params, tokens, streams):
    """One stream after the other, a token at a time; the state starts from zeros at the start of each."""
    count = len(tokens) - 1
    each, nats, scored = -(-count // min(streams, count)), 0.0, 0
    for begin in range(0, count, each):
        state = initial_state(params, 1)
        for t in range(begin, min(begin + each, count)):
            log_probs, state = step(params, tokens[[t]], state)
            nats, scored = nats - log_probs[0, tokens[t + 1]], scored + 1
    return nats, scored


@few
@given(st.sampled_from(list(CELLS)), st.integers(2, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_evaluation_scores_every_token_once(cell, length, streams, steps, seed):
    params = problem(cell, seed=seed)[0]
    tokens = np.random.default_rng(seed).integers(0, V, length)
    nats, count = evaluate(params, tokens, streams, steps)
    assert (nats, count) == pytest.approx(slow_evaluate(params, tokens, streams), rel=1e-11)
    assert count == length - 1


def test_evaluation_in_one_stream_is_teacher_forcing():
    params, tokens = problem("lstm")[0], np.random.default_rng(0).integers(0, V, 23)
    expected = surprisal(slow_logits("lstm", params, tokens[:-1, None], initial_state(params, 1))[0], tokens[1:, None]).sum()
    for steps in (1, 7, 22, 1000):
        assert evaluate(params, tokens, 1, steps) == pytest.approx((expected, 22), rel=1e-12)
    kept = tokens.copy()
    evaluate(params, tokens)
    np.testing.assert_array_equal(tokens, kept)


def test_a_model_without_knowledge_scores_log_v():
    params = map_tree(np.zeros_like, problem("gru")[0])
    assert evaluate(params, np.arange(50) % V) == pytest.approx((49 * np.log(V), 49))


@pytest.mark.parametrize("length", [0, 1])
def test_evaluation_needs_two_tokens(length):
    with pytest.raises(ValueError) as caught:
        evaluate(problem("rnn")[0], np.zeros(length, int))
    assert str(caught.value) == f"tokens: expected at least 2, got {length}"


@every_cell
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_init(cell, dtype):
    V, E, H, L = 300, 50, 70, 3
    params = init(V, E, H, L, cell, 11, dtype)
    gates = CELLS[cell].gates
    assert type(params) is LanguageModelParams
    assert [type(layer) for layer in params.layers] == [CELLS[cell].params] * L
    assert [layer.W_ih.shape for layer in params.layers] == [(gates * H, E), (gates * H, H), (gates * H, H)]
    assert [layer.W_hh.shape for layer in params.layers] == [(gates * H, H)] * L
    assert (params.embedding.shape, params.W_out.shape, params.b_out.shape) == ((V, E), (V, H), (V,))
    assert {leaf.dtype for leaf in leaves(params)} == {np.dtype(dtype)}
    matrices = [params.W_out, *(matrix for layer in params.layers for matrix in layer[:2])]
    for matrix in matrices:
        bound = matrix.shape[1] ** -0.5
        assert 0.98 * bound < np.abs(matrix).max() <= bound * (1 + 1e-6)
        assert matrix.std() == pytest.approx(bound / 3**0.5, rel=0.03)  # uniform
        assert abs(matrix.mean()) < 0.03 * bound
    assert params.embedding.std() == pytest.approx(0.5, rel=0.03)
    assert not params.b_out.any()
    for layer in params.layers:
        for bias in layer[2:]:
            gate_means = bias.reshape(gates, H).mean(1).tolist()
            assert gate_means == ([0, 1, 0, 0] if cell == "lstm" else [0] * gates)
            assert set(bias.tolist()) <= {0, 1}
    assert len({id(leaf) for leaf in leaves(params)}) == len(leaves(params))
    state = initial_state(params, 4)
    assert form(state) == form(random_stack_state(np.random.default_rng(0), cell, 4, H, L))
    assert not any(leaf.any() for leaf in leaves(state))
    assert {leaf.dtype for leaf in leaves(state)} == {np.dtype(dtype)}


def test_a_seed_is_a_model():
    sizes = (9, 2, 3, 2, "lstm")
    assert_close(init(*sizes, seed=1), init(*sizes, seed=1), 0)
    first, second = init(*sizes, seed=1), init(*sizes, seed=2)
    assert not np.array_equal(first.embedding, second.embedding)
    assert not np.array_equal(first.layers[0].W_hh, second.layers[0].W_hh)
    assert not np.array_equal(first.layers[0].W_hh, first.layers[1].W_hh)
    assert {leaf.dtype for leaf in leaves(first)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size: expected at least 1, got 0"),
        ({"embedding_size": -1}, "embedding_size: expected at least 1, got -1"),
        ({"hidden_size": 0}, "hidden_size: expected at least 1, got 0"),
        ({"num_layers": 0}, "num_layers: expected at least 1, got 0"),
        ({"cell": "LSTM"}, "cell: expected one of rnn, lstm, gru, got 'LSTM'"),
    ],
)
def test_init_refuses_other_sizes(change, message):
    right = {"vocab_size": 5, "embedding_size": 2, "hidden_size": 3, "num_layers": 1, "cell": "gru", "seed": 0}
    init(**right)
    with pytest.raises(ValueError) as caught:
        init(**right | change)
    assert str(caught.value) == message


def test_what_does_not_fit_is_named():
    params, tokens, targets, state = problem("lstm")
    high, low = tokens.copy(), tokens.copy()
    high[2, 1], low[0, 0] = V, -1
    for call, kind, message in [
        (lambda: forward(params, tokens[0], state), ShapeError, "tokens: expected 2 axes (T, N), got shape (3,)"),
        (lambda: forward(params, high, state), ValueError, "tokens: expected tokens in [0, 6), got 6"),
        (lambda: forward(params, low, state), ValueError, "tokens: expected tokens in [0, 6), got -1"),
        (lambda: forward(params, tokens * 1.0, state), ValueError, "tokens: expected integer tokens, got dtype float64"),
        (lambda: loss_and_grads(params, tokens, high, state), ValueError, "targets: expected tokens in [0, 6), got 6"),
        (
            lambda: loss_and_grads(params, tokens, targets[1:], state),
            ShapeError,
            "targets: expected shape (5, 3) from logits (5, 3, 6), got (4, 3)",
        ),
        (lambda: forward(params, tokens[:, :2], state), ShapeError, "h: axis N should be 2 (N = 2 from x), got shape (3, 4)"),
        (lambda: forward(params, tokens, state[:1]), ValueError, "initial: expected 2 states, one a layer, got 1"),
        (lambda: step(params, high[2], state), ValueError, "token: expected tokens in [0, 6), got 6"),
        (lambda: make_step(params)(high[2], state), ValueError, "token: expected tokens in [0, 6), got 6"),
        (lambda: make_step(params)(low[0], state), ValueError, "token: expected tokens in [0, 6), got -1"),
    ]:
        with pytest.raises(kind) as caught:
            call()
        assert str(caught.value) == message
