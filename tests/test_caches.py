"""``at(t)`` gives what the step functions return when they are run over the same sequence."""

import numpy as np
import pytest
from problems import CELLS, assert_close, form, random_params, random_state

T, N, D, H = 5, 3, 2, 4


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("N", [N, 40])
def test_a_step_of_the_cache_is_the_cache_of_the_step(cell, N):
    rng = np.random.default_rng(0)
    x, state, params = rng.normal(size=(T, N, D)), random_state(rng, cell, N, H), random_params(rng, cell, D, H)
    _, _, cache = CELLS[cell].forward(x, state, params)
    for t in range(T):
        state, expected = CELLS[cell].step_forward(x[t], state, params)
        assert type(cache.at(t)) is type(expected)
        assert form(cache.at(t)) == form(expected)
        assert_close(cache.at(t), expected, 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_backward_from_it_leaves_the_cache_as_it_is(cell):
    rng = np.random.default_rng(1)
    x, state, params = rng.normal(size=(T, N, D)), random_state(rng, cell, N, H), random_params(rng, cell, D, H)
    _, final, cache = CELLS[cell].forward(x, state, params)
    first = CELLS[cell].step_backward(final, cache.at(2))
    CELLS[cell].step_backward(final, cache.at(3))
    assert_close(CELLS[cell].step_backward(final, cache.at(2)), first, 0)
