"""Stacks and both directions, against layers run one by one with the slow references, and against central differences."""

import numpy as np
import pytest
from problems import (
    CELLS,
    assert_close,
    copied,
    form,
    random_like,
    random_params,
    random_stack,
    random_stack_state,
    slow_forward,
    slow_stack,
    worst_gradient_error,
)

from course_lib.cells import LSTMState
from course_lib.shapes import ShapeError
from course_lib.stacked import Bidirectional, stacked_backward, stacked_forward, zero_state, zeros_like
from course_lib.trees import leaves, map_tree

every_cell = pytest.mark.parametrize("cell", CELLS)
masked_or_not = pytest.mark.parametrize("lengths", [None, np.array([3, 0, 4])], ids=["plain", "masked"])
one_way_or_both = pytest.mark.parametrize("both", [False, True], ids=["ahead", "both"])
T, N, D, H = 4, 3, 2, 3
DEPTH = 2


def problem(cell, both, depth=DEPTH, seed=0):
    """x, initial states, layers; and gradients of the outputs and of the final states."""
    rng = np.random.default_rng(seed)
    layers, initial = random_stack(rng, cell, D, H, depth, both), random_stack_state(rng, cell, N, H, depth, both)
    dhs = rng.normal(size=(T, N, H * (1 + both)))
    return (rng.normal(size=(T, N, D)), initial, layers), (dhs, random_like(rng, initial))


@every_cell
@masked_or_not
@one_way_or_both
@pytest.mark.parametrize("depth", [1, 3])
def test_forward_is_layer_after_layer(cell, lengths, both, depth):
    (x, initial, layers), _ = problem(cell, both, depth)
    hs, finals, _ = stacked_forward(x, initial, layers, lengths)
    assert_close((hs, finals), slow_stack(cell, x, initial, layers, lengths), 1e-12)


@every_cell
@masked_or_not
@one_way_or_both
def test_gradients_by_differences(cell, lengths, both):
    inputs, upstream = problem(cell, both)
    kept = copied((inputs, upstream))
    grads = stacked_backward(*upstream, stacked_forward(*inputs, lengths)[2])
    assert_close((inputs, upstream), kept, 0)
    assert form(grads) == form(inputs)
    error = worst_gradient_error(lambda *inputs: stacked_forward(*inputs, lengths)[:2], inputs, upstream, grads)
    assert error <= 1e-6


@pytest.mark.parametrize("cell", ["lstm"])
@one_way_or_both
def test_gradients_through_dropout_by_differences(cell, both):
    inputs, upstream = problem(cell, both, 3)

    def forward(*inputs):
        return stacked_forward(*inputs, None, 0.4, np.random.default_rng(3))

    grads = stacked_backward(*upstream, forward(*inputs)[2])
    assert worst_gradient_error(lambda *inputs: forward(*inputs)[:2], inputs, upstream, grads) <= 1e-6


def test_dropout_is_on_the_inputs_of_later_layers_only():
    (x, initial, layers), _ = problem("gru", False, 3)
    hs, finals, cache = stacked_forward(x, initial, layers, None, 0.5, np.random.default_rng(3))
    first, final, _ = slow_forward("gru", x, initial[0], layers[0])
    assert_close(finals[0], final, 1e-12)
    assert [mask is None for mask in cache.masks] == [True, False, False]
    assert {0.0, 2.0} == set(np.unique(cache.masks[1])) == set(np.unique(cache.masks[2]))
    assert not np.array_equal(cache.masks[1], cache.masks[2])
    second, final, _ = slow_forward("gru", first * cache.masks[1], initial[1], layers[1])
    assert_close(finals[1], final, 1e-12)
    assert_close(hs, slow_forward("gru", second * cache.masks[2], initial[2], layers[2])[0], 1e-12)
    assert stacked_forward(x, initial, layers)[2].masks == (None, None, None)
    assert all(np.any(hs[t, n]) for t in range(T) for n in range(N))


@every_cell
@one_way_or_both
def test_padding_changes_nothing(cell, both):
    lengths = [3, 0, 4]  # a list will do
    (x, initial, layers), (dhs, dfinals) = problem(cell, both)
    padding = np.arange(T)[:, None] >= np.array(lengths)
    other_x, other_dhs = x.copy(), dhs.copy()
    other_x[padding], other_dhs[padding] = 1e6, -1e6
    hs, finals, cache = stacked_forward(x, initial, layers, lengths)
    other_hs, other_finals, other_cache = stacked_forward(other_x, initial, layers, np.array(lengths, np.uint64))
    assert_close((other_hs, other_finals), (hs, finals), 0)
    assert_close(stacked_backward(other_dhs, dfinals, other_cache), stacked_backward(dhs, dfinals, cache), 0)
    assert not hs[padding].any()


@every_cell
@one_way_or_both
def test_the_cache_survives(cell, both):
    inputs, upstream = problem(cell, both)
    expected = copied(stacked_backward(*upstream, stacked_forward(*inputs)[2]))
    hs, finals, cache = stacked_forward(*inputs)
    stacked_forward(*problem(cell, both, seed=1)[0])
    for leaf in leaves((hs, finals)):
        leaf[...] = np.nan
    assert_close(stacked_backward(*upstream, cache), expected, 0)


@every_cell
def test_two_halves_with_carried_states_are_one_pass(cell):
    (x, initial, layers), _ = problem(cell, False)
    hs, finals, _ = stacked_forward(x, initial, layers)
    hs_1, middle, _ = stacked_forward(x[:1], initial, layers)
    hs_2, end, _ = stacked_forward(x[1:], middle, layers)
    assert_close((np.concatenate([hs_1, hs_2]), end), (hs, finals), 1e-13)


def test_kinds_may_be_mixed():
    rng = np.random.default_rng(0)
    layers = (
        random_params(rng, "gru", D, 5),
        Bidirectional(random_params(rng, "lstm", 5, H), random_params(rng, "rnn", 5, H)),
    )
    initial, x = map_tree(lambda a: a + 0.3, zero_state(layers, N)), rng.normal(size=(T, N, D))
    hs, finals, cache = stacked_forward(x, initial, layers)
    upstream = random_like(rng, (hs, finals))
    grads = stacked_backward(*upstream, cache)
    error = worst_gradient_error(lambda *inputs: stacked_forward(*inputs)[:2], (x, initial, layers), upstream, grads)
    assert error <= 1e-6


@every_cell
@one_way_or_both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_states_have_the_form_and_type_of_the_stack(cell, both, dtype):
    layers = map_tree(lambda a: a.astype(dtype), random_stack(np.random.default_rng(0), cell, D, H, DEPTH, both))
    state = zero_state(layers, N)
    assert_close(state, zeros_like(random_stack_state(np.random.default_rng(1), cell, N, H, DEPTH, both)), 0)
    assert {leaf.dtype for leaf in leaves(state)} == {np.dtype(dtype)}
    assert len({id(leaf) for leaf in leaves(state)}) == len(leaves(state))
    inner = state[1].back if both else state[1]
    assert isinstance(inner, LSTMState) is (cell == "lstm")
    hs, finals, cache = stacked_forward(np.ones((T, N, D), dtype), state, layers)
    grads = stacked_backward(np.ones_like(hs), zeros_like(finals), cache)
    assert {leaf.dtype for leaf in leaves((hs, finals, grads))} == {np.dtype(dtype)}


def test_what_does_not_fit_is_named():
    (x, initial, layers), _ = problem("rnn", False)
    with pytest.raises(ValueError) as caught:
        stacked_forward(x, initial[:1], layers)
    assert str(caught.value) == "initial: expected 2 states, one a layer, got 1"
    with pytest.raises(ShapeError) as caught:
        stacked_forward(x, initial, layers[:1] * 2)
    assert str(caught.value) == "W_ih: axis D should be 3 (D = 3 from x), got shape (3, 2)"
    with pytest.raises(ValueError) as caught:
        stacked_forward(x, initial, layers, [0, 1, 5])
    assert str(caught.value) == "lengths: expected integers in [0, 4], got [0, 1, 5]"
    with pytest.raises(ValueError) as caught:
        stacked_forward(x, initial, layers, None, 1.0, np.random.default_rng(0))
    assert str(caught.value) == "rate: expected a number in [0, 1), got 1.0"
