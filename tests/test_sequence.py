"""Whole sequences: equal to the step functions run one stream at a time, and to central differences, masked or not."""

import numpy as np
import pytest
from problems import (
    CELLS,
    ONE_NAN,
    Problem,
    argument_names,
    assert_close,
    copied,
    form,
    random_like,
    random_params,
    random_state,
    replaced,
    rows_of,
    slow_backward,
    slow_forward,
    spoiled,
    worst_gradient_error,
)

from course_lib.cells import LSTMState
from course_lib.shapes import ShapeError
from course_lib.trees import leaves, map_tree, named_leaves
from course_lib.unroll import ONE_PRODUCT_BELOW

every_cell = pytest.mark.parametrize("cell", CELLS)
masked_or_not = pytest.mark.parametrize("masked", [False, True])
T, N, D, H = 5, 3, 2, 4
MANY = ONE_PRODUCT_BELOW + 1


def problem(cell, T=T, N=N, D=D, H=H, masked=False, seed=0, dtype=np.float64):
    """Random everything; masked: the first length is 0, the last T, the others anything."""
    rng = np.random.default_rng(seed)
    x, initial, params = rng.normal(size=(T, N, D)), random_state(rng, cell, N, H), random_params(rng, cell, D, H)
    dhs, dfinal = rng.normal(size=(T, N, H)), random_like(rng, initial)
    x, initial, params, dhs, dfinal = map_tree(lambda a: a.astype(dtype), (x, initial, params, dhs, dfinal))
    lengths = rng.integers(0, T + 1, N) if masked else None
    if masked:
        lengths[[0, -1]] = 0, T
    return Problem(x, initial, params, lengths, dhs, dfinal)


def run(cell, p):
    """(hs, final) and (dx, dinitial, dparams)."""
    hs, final, cache = CELLS[cell].forward(p.x, p.initial, p.params, p.lengths)
    return (hs, final), CELLS[cell].backward(p.dhs, p.dfinal, cache)


def run_slowly(cell, p):
    hs, final, caches = slow_forward(cell, p.x, p.initial, p.params, p.lengths)
    return (hs, final), slow_backward(cell, p.dhs, p.dfinal, p.x, p.params, caches)


SIZES = [(1, 1, 1, 1), (T, N, D, H), (1, 4, 3, 2), (7, 1, 2, 3), (4, MANY, 3, 2), (3, MANY, 1, 1), (3, MANY - 1, 2, 5)]


@every_cell
@masked_or_not
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sequences_equal_steps(cell, sizes, masked):
    p = problem(cell, *sizes, masked)
    outputs, grads = run(cell, p)
    slow_outputs, slow_grads = run_slowly(cell, p)
    assert_close(outputs, slow_outputs, 1e-12)
    assert_close(grads, slow_grads, 1e-12)
    assert form((outputs[1], *grads)) == form((p.initial, p.x, p.initial, p.params))


@every_cell
@masked_or_not
@pytest.mark.parametrize("N", [N, MANY])
def test_gradients_by_differences(cell, N, masked):
    p = problem(cell, 4, N, masked=masked, D=3, H=2)
    (_, _), grads = run(cell, p)

    def outputs(x, initial, params):
        return CELLS[cell].forward(x, initial, params, p.lengths)[:2]

    assert worst_gradient_error(outputs, (p.x, p.initial, p.params), (p.dhs, p.dfinal), grads) <= 1e-6


@every_cell
@masked_or_not
@pytest.mark.parametrize("N", [N, MANY])
def test_float32_stays_and_is_close(cell, N, masked):
    single, double = (run(cell, problem(cell, 12, N, 5, 7, masked, dtype=dtype)) for dtype in (np.float32, np.float64))
    assert {leaf.dtype for leaf in leaves(single)} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in leaves(double)} == {np.dtype(np.float64)}
    assert_close(single, double, 1e-5)


@every_cell
@pytest.mark.parametrize("N", [N, MANY])
@pytest.mark.parametrize("filler", [0.0, -7.5, 1e30])
def test_padding_changes_nothing(cell, N, filler):
    p = problem(cell, N=N, masked=True)
    padding = np.arange(T)[:, None] >= p.lengths
    x, dhs = p.x.copy(), p.dhs.copy()
    x[padding], dhs[padding] = filler, filler
    (hs, final), (dx, *grads) = run(cell, p)
    (other_hs, other_final), (other_dx, *other_grads) = run(cell, p._replace(x=x, dhs=dhs))
    assert_close((other_hs, other_final, other_dx, *other_grads), (hs, final, dx, *grads), 0)
    assert not hs[padding].any()
    assert not dx[padding].any()
    assert_close(rows_of(final, 0), rows_of(p.initial, 0), 0)  # of length 0
    assert_close(rows_of(grads[0], 0), rows_of(p.dfinal, 0), 0)


@every_cell
def test_full_lengths_are_no_lengths(cell):
    p = problem(cell, N=MANY)
    for lengths in (np.full(MANY, T), [T] * MANY, np.full(MANY, T, np.uint64)):
        assert_close(run(cell, p._replace(lengths=lengths)), run(cell, p), 1e-14)


@every_cell
@masked_or_not
@pytest.mark.parametrize("N", [N, MANY])
def test_the_cache_survives_and_inputs_stay(cell, N, masked):
    p = problem(cell, N=N, masked=masked)
    kept, step = copied(p[:3] + p[4:]), CELLS[cell]
    expected = copied(run(cell, p)[1])
    hs, final, cache = step.forward(p.x, p.initial, p.params, p.lengths)
    other = problem(cell, N=N, masked=masked, seed=1)
    step.forward(other.x, other.initial, p.params, other.lengths)
    for leaf in leaves((hs, final)):
        leaf[...] = np.nan
    for _ in range(2):  # twice: a backward does not use its cache up
        assert_close(step.backward(p.dhs, p.dfinal, cache), expected, 0)
    assert_close(p[:3] + p[4:], kept, 0)


@every_cell
def test_results_are_the_callers_own(cell):
    p = problem(cell)
    outputs, grads = run(cell, p)
    places = leaves((outputs, grads))
    arguments = leaves(p[:3] + p[4:])
    for k, a in enumerate(places):
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in (*places[:k], *arguments))


@every_cell
def test_views_in_any_order_of_memory_are_as_good(cell):
    p = problem(cell, masked=True)
    strange = map_tree(lambda a: np.asfortranarray(a[::-1].copy()[::-1]), p[:3] + p[4:])
    assert_close(run(cell, Problem(*strange[:3], p.lengths, *strange[3:])), run(cell, p), 1e-13)


@masked_or_not
@pytest.mark.parametrize(("cell", "place"), [(cell, k) for cell in CELLS for k in range(len(argument_names(cell, "initial")))])
def test_nan_is_named(cell, place, masked):
    p = problem(cell, masked=masked)
    with pytest.raises(ValueError, match=f"^{argument_names(cell, 'initial')[place]}: {ONE_NAN}"):
        CELLS[cell].forward(*spoiled(p[:3], place), p.lengths)


@masked_or_not
@pytest.mark.parametrize(
    ("cell", "place", "name"),
    [(cell, k, name) for cell in CELLS for k, name in enumerate(["dhs", *(["dh", "dc"] if cell == "lstm" else ["dfinal"])])],
)
def test_nan_in_a_gradient_is_named(cell, place, name, masked):
    p = problem(cell, masked=masked)
    lengths = None if p.lengths is None else np.array([0, T, T])
    cache = CELLS[cell].forward(p.x, p.initial, p.params, lengths)[2]
    with pytest.raises(ValueError, match=f"^{name}: {ONE_NAN}"):
        CELLS[cell].backward(*spoiled((p.dhs, p.dfinal), place), cache)


@pytest.mark.parametrize("which", ["h", "c"])
def test_nan_in_the_gradient_of_an_empty_stream_is_named(which):
    p = problem("lstm", masked=True)
    dfinal = copied(p.dfinal)
    getattr(dfinal, which)[0, 1] = np.nan
    cache = CELLS["lstm"].forward(p.x, p.initial, p.params, p.lengths)[2]
    with pytest.raises(ValueError, match=rf"^d{which}: expected numbers, got NaN at \[0, 1\] \(1 in all\)$"):
        CELLS["lstm"].backward(p.dhs, dfinal, cache)


SHAPE_ERRORS = [
    ("lstm", 3, (16, 3), "W_ih: axis D should be 2 (D = 2 from x), got shape (16, 3)"),
    ("lstm", 4, (12, 4), "W_hh: axis 4H should be 16 (H = 4 from h), got shape (12, 4)"),
    ("lstm", 5, (4,), "b: axis 4H should be 16 (H = 4 from h), got shape (4,)"),
    ("lstm", 1, (2, 4), "h: axis N should be 3 (N = 3 from x), got shape (2, 4)"),
    ("lstm", 2, (3, 5), "c: axis H should be 4 (H = 4 from h), got shape (3, 5)"),
    ("lstm", 0, (3, 2), "x: expected 3 axes (T, N, D), got shape (3, 2)"),
    ("rnn", 0, (0, 3, 2), "x: axis T should be at least 1, got shape (0, 3, 2)"),
    ("rnn", 1, (1, 4), "initial: axis N should be 3 (N = 3 from x), got shape (1, 4)"),
    ("rnn", 3, (4, 5), "W_hh: axis H should be 4 (H = 4 from initial), got shape (4, 5)"),
    ("gru", 1, (3, 1, 4), "initial: expected 2 axes (N, H), got shape (3, 1, 4)"),
    ("gru", 4, (16,), "b_ih: axis 3H should be 12 (H = 4 from initial), got shape (16,)"),
    ("gru", 5, (4,), "b_hh: axis 3H should be 12 (H = 4 from initial), got shape (4,)"),
]


@pytest.mark.parametrize(("cell", "place", "shape", "message"), SHAPE_ERRORS)
def test_wrong_shapes_are_named(cell, place, shape, message):
    with pytest.raises(ShapeError) as caught:
        CELLS[cell].forward(*replaced(problem(cell)[:3], place, np.zeros(shape)))
    assert str(caught.value) == message


@every_cell
@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([1, 2], ShapeError, "lengths: axis N should be 3 (N = 3 from x), got shape (2,)"),
        ([0, 6, 5], ValueError, "lengths: expected integers in [0, 5], got [0, 6, 5]"),
        ([0, -1, 5], ValueError, "lengths: expected integers in [0, 5], got [0, -1, 5]"),
    ],
)
def test_wrong_lengths_are_named(cell, lengths, kind, message):
    with pytest.raises(kind) as caught:
        CELLS[cell].forward(*problem(cell)[:3], lengths)
    assert str(caught.value) == message


def test_gradients_of_wrong_shape_are_named():
    right = np.zeros((N, H))
    for cell, dhs, dfinal, message in [
        ("rnn", (T, N, 3), right, "dhs: axis H should be 4 (H = 4 from output), got shape (5, 3, 3)"),
        ("gru", (4, N, H), right, "dhs: axis T should be 5 (T = 5 from output), got shape (4, 3, 4)"),
        ("rnn", (T, N, H), right[:1], "dfinal: axis N should be 3 (N = 3 from output), got shape (1, 4)"),
        ("gru", (T, N, H), right.T, "dfinal: axis N should be 3 (N = 3 from output), got shape (4, 3)"),
        ("lstm", (T, N, H), LSTMState(right[:1], right), "dh: axis N should be 3 (N = 3 from h), got shape (1, 4)"),
        ("lstm", (T, N, H), LSTMState(right, right[:, :1]), "dc: axis H should be 4 (H = 4 from h), got shape (3, 1)"),
    ]:
        cache = CELLS[cell].forward(*problem(cell)[:3])[2]
        with pytest.raises(ShapeError) as caught:
            CELLS[cell].backward(np.zeros(dhs), dfinal, cache)
        assert str(caught.value) == message


def test_the_cell_states_of_the_cache_start_with_the_initial_ones():
    p = problem("lstm")
    cache = CELLS["lstm"].forward(*p[:3])[2]
    assert [name for name, _ in named_leaves(cache)][:4] == ["x", "hs", "cs", "gates"]
    assert_close((cache.hs[0], cache.cs[0].T), tuple(p.initial), 0)
