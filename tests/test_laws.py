"""Laws that hold whatever the sizes, the lengths and the numbers: from single steps to stacks, and for all beside them.

A law is a plain function of a case. It is tested on cases that hypothesis draws, and on fixed ones; ``test_mutants`` runs the
fixed ones against copies of the library with a planted bug, and each bug must break a law.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    CELLS,
    ONE_NAN,
    Problem,
    argument_names,
    assert_close,
    copied,
    dot,
    few,
    form,
    random_like,
    random_params,
    random_stack,
    random_stack_state,
    random_state,
    rows_of,
    slow_backward,
    slow_forward,
    slow_stack,
    spoiled,
    worst_gradient_error,
)

from course_lib import attention_by_hand, layers, variants
from course_lib.attention_by_hand import AdditiveParams, MultiplicativeParams
from course_lib.cells import GRUParams, LSTMParams, LSTMState
from course_lib.jacobians import jacobian_products, lstm_step_jacobian, rnn_step_jacobian
from course_lib.shapes import ShapeError
from course_lib.stacked import stacked_backward, stacked_forward, zero_state, zeros_like
from course_lib.trees import leaves, map_tree
from course_lib.unroll import ONE_PRODUCT_BELOW
from course_lib.variants import CoupledParams, PeepholeParams
from course_lib.weights import orthogonal, uniform

VARIANTS = ("peephole", "coupled", "gru_reset_before")
STACKS = tuple(f"{cell} {way}" for cell in CELLS for way in ("ahead", "both"))
MANY = ONE_PRODUCT_BELOW


class Case(NamedTuple):
    """What a law is tried on; all numbers follow from the seed."""

    kind: str
    T: int
    N: int
    D: int
    H: int
    lengths: tuple[int, ...] | None
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


class Law(NamedTuple):
    holds: Callable[[Case], None]
    kinds: tuple[str, ...]
    modules: tuple[str, ...]  # whose bugs it is to notice
    largest: int  # of T, D, H, and of N unless many
    many: bool  # also with as many streams as take the other branch of input_product


LAWS: dict[str, Law] = {}


def law(kinds: Any, *modules: str, largest: int = 4, many: bool = False) -> Callable:
    """Register a function of a case."""

    def register(holds: Callable[[Case], None]) -> Callable[[Case], None]:
        assert holds.__name__ not in LAWS
        LAWS[holds.__name__] = Law(holds, tuple(kinds), modules, largest, many)
        return holds

    return register


def fixed_cases(name: str) -> Iterator[Case]:
    """A few cases of every kind, small first: all sizes 1, with and without lengths, and many streams."""
    some, H = LAWS[name].largest - 1, min(3, LAWS[name].largest)
    sizes = [(1, 1, 1, 1, None), (some, 3, 2, H, None), (some + 1, 4, 2, H, (some + 1, 0, some, 1))]
    if LAWS[name].many:
        sizes += [(2, MANY, 1, 2, None), (3, MANY + 1, 2, 1, (3, 0, 1, *(n % 4 for n in range(MANY - 2))))]
    for seed, size in enumerate(sizes):
        for kind in LAWS[name].kinds:
            yield Case(kind, *size, seed)


@st.composite
def cases(draw: Callable, name: str) -> Case:
    """Any case of a law."""
    kinds, _, largest, many = LAWS[name][1:]
    T, D, H = (draw(st.integers(1, largest)) for _ in range(3))
    N = draw(st.sampled_from([1, 2, 3, 4, 5, MANY - 1, MANY, MANY + 1]) if many else st.integers(1, largest))
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=N, max_size=N).map(tuple))
    return Case(draw(st.sampled_from(kinds)), T, N, D, H, lengths, draw(st.integers(0, 10**6)))


# One step


def sigma(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def equations(kind: str, x: np.ndarray, prev: Any, p: Any) -> Any:
    """The next state by the equations, gate by gate."""
    h, *c = leaves(prev)
    W, U, b, *more = (np.split(a, len(a) // h.shape[1]) for a in p)
    if isinstance(p, GRUParams):
        d = more[0]
        r, z = (sigma(x @ W[k].T + b[k] + h @ U[k].T + d[k]) for k in (0, 1))
        n = np.tanh(x @ W[2].T + b[2] + (r * (h @ U[2].T + d[2]) if kind == "gru" else (r * h) @ U[2].T + d[2]))
        return n - z * n + z * h
    a = [x @ w.T + h @ u.T + v for w, u, v in zip(W, U, b, strict=True)]
    if kind == "rnn":
        return np.tanh(a[0])
    p_i, p_f, p_o = more[0] if more else (0, 0, 0)
    a_f, a_g, a_o = a[-3:]
    f = sigma(a_f + p_f * c[0])
    i = 1 - f if kind == "coupled" else sigma(a[0] + p_i * c[0])
    new = f * c[0] + i * np.tanh(a_g)
    return LSTMState(sigma(a_o + p_o * new) * np.tanh(new), new)


def step(kind: str) -> tuple[Callable, Callable]:
    """Forward and backward."""
    if kind in CELLS:
        return CELLS[kind].step_forward, CELLS[kind].step_backward
    return getattr(variants, f"{kind}_step_forward"), getattr(variants, f"{kind}_step_backward")


def step_problem(case: Case) -> tuple[tuple, Any]:
    """(x, prev, params) and a gradient from above."""
    rng, kind = case.rng, {"peephole": "lstm", "coupled": "lstm", "gru_reset_before": "gru"}.get(case.kind, case.kind)
    params, prev = random_params(rng, kind, case.D, case.H), random_state(rng, kind, case.N, case.H)
    if case.kind == "peephole":
        params = PeepholeParams(*params, rng.normal(0, 0.6, 3 * case.H))
    if case.kind == "coupled":
        params = CoupledParams(*(rows[case.H :] for rows in params))
    return (rng.normal(size=(case.N, case.D)), prev, params), random_like(rng, prev)


@law([*CELLS, *VARIANTS], "cells", "variants", "layers")
def step_follows_its_equations(case: Case) -> None:
    inputs, _ = step_problem(case)
    state, _ = step(case.kind)[0](*inputs)
    assert_close(state, equations(case.kind, *inputs), 1e-13)


@law([*CELLS, *VARIANTS], "cells", "variants", largest=3)
def step_backward_is_the_derivative(case: Case) -> None:
    inputs, dstate = step_problem(case)
    forward, backward = step(case.kind)
    grads = backward(dstate, forward(*inputs)[1])
    assert form(grads) == form(inputs)
    assert worst_gradient_error(lambda *inputs: forward(*inputs)[0], inputs, dstate, grads) <= 1e-8


@law([*CELLS, *VARIANTS], "cells", "variants")
def step_keeps_its_inputs_and_its_precision(case: Case) -> None:
    inputs, dstate = step_problem(case)
    forward, backward = step(case.kind)
    kept, (state, cache) = copied((inputs, dstate)), forward(*inputs)
    grads = backward(dstate, cache)
    assert_close(backward(dstate, cache), grads, 0)
    assert_close((inputs, dstate), kept, 0)
    inputs, dstate = map_tree(lambda a: a.astype(np.float32), (inputs, dstate))
    single, cache = forward(*inputs)
    single_grads = backward(dstate, cache)
    assert {leaf.dtype for leaf in leaves((single, single_grads))} == {np.dtype(np.float32)}
    assert_close((single, single_grads), (state, grads), 1e-4)


@law([*CELLS, *VARIANTS], "cells", "variants")
def step_refuses_wrong_shapes(case: Case) -> None:
    inputs, dstate = step_problem(case)
    forward, backward = step(case.kind)
    for wrong in wider(inputs):
        with pytest.raises(ShapeError):
            forward(*wrong)
    for wrong in wider(dstate) if case.kind in CELLS else ():
        with pytest.raises(ShapeError):
            backward(wrong, forward(*inputs)[1])


@law(CELLS, "cells")
def step_names_nan_and_the_state_of_another_cell(case: Case) -> None:
    inputs, _ = step_problem(case)
    forward, _ = step(case.kind)
    for place, name in enumerate(argument_names(case.kind, "prev")):
        with pytest.raises(ValueError, match=f"^{name}: {ONE_NAN}"):
            forward(*spoiled(inputs, place))
    refuses_the_state_of_another_cell(forward, *inputs, "prev")


def refuses_the_state_of_another_cell(forward: Callable, x: np.ndarray, state: Any, params: Any, name: str) -> None:
    """An array for an LSTM, h and c for the others."""
    h, *c = leaves(state)
    with pytest.raises(ShapeError, match=f"^{name}: expected an {'LSTMState' if c else 'array h'}"):
        forward(x, h if c else LSTMState(h, h), params)


@law(["peephole"], "variants")
def without_peepholes_it_is_the_lstm(case: Case) -> None:
    (x, prev, params), dstate = step_problem(case)
    state, cache = variants.peephole_step_forward(x, prev, params._replace(p=np.zeros(3 * case.H)))
    plain, plain_cache = CELLS["lstm"].step_forward(x, prev, LSTMParams(*params[:3]))
    dx, dprev, dparams = variants.peephole_step_backward(dstate, cache)
    assert_close(
        (state, dx, dprev, LSTMParams(*dparams[:3])), (plain, *CELLS["lstm"].step_backward(dstate, plain_cache)), 1e-13
    )


@law(["coupled"], "variants")
def coupled_gates_are_tied_weights(case: Case) -> None:
    """1 - σ(a) = σ(-a): the input gate's rows are those of the forget gate, negated."""
    (x, prev, params), dstate = step_problem(case)
    H = case.H
    state, cache = variants.coupled_step_forward(x, prev, params)
    tied, tied_cache = CELLS["lstm"].step_forward(x, prev, LSTMParams(*(np.concatenate([-a[:H], a]) for a in params)))
    dx, dprev, dparams = CELLS["lstm"].step_backward(dstate, tied_cache)
    of_f_g_o = (np.concatenate([a[H : 2 * H] - a[:H], a[2 * H :]]) for a in dparams)
    expected = tied, dx, dprev, CoupledParams(*of_f_g_o)
    assert_close((state, *variants.coupled_step_backward(dstate, cache)), expected, 1e-13)


@law(["gru_reset_before"], "variants")
def with_the_reset_gate_open_both_grus_agree(case: Case) -> None:
    (x, prev, params), dstate = step_problem(case)
    params.b_ih[: case.H] = 50  # r = 1
    state, cache = variants.gru_reset_before_step_forward(x, prev, params)
    after, cache_after = CELLS["gru"].step_forward(x, prev, params)
    expected = after, *CELLS["gru"].step_backward(dstate, cache_after)
    assert_close((state, *variants.gru_reset_before_step_backward(dstate, cache)), expected, 1e-12)


# Sequences


def problem(case: Case) -> tuple[Problem, np.random.Generator]:
    """Random everything, and the generator for what else a law draws."""
    rng, (kind, T, N, D, H, lengths, _) = case.rng, case
    x, initial, params = rng.normal(size=(T, N, D)), random_state(rng, kind, N, H), random_params(rng, kind, D, H)
    dhs, dfinal = rng.normal(size=(T, N, H)), random_like(rng, initial)
    return Problem(x, initial, params, None if lengths is None else np.array(lengths), dhs, dfinal), rng


def padding(case: Case) -> np.ndarray:
    """(T, N), true where a step is padding."""
    lengths = np.full(case.N, case.T) if case.lengths is None else np.array(case.lengths)
    return np.arange(case.T)[:, None] >= lengths


def outputs(cell: str, p: Problem) -> tuple:
    """hs and final."""
    return CELLS[cell].forward(p.x, p.initial, p.params, p.lengths)[:2]


def gradients(cell: str, p: Problem) -> tuple:
    """dx, dinitial and dparams."""
    return CELLS[cell].backward(p.dhs, p.dfinal, CELLS[cell].forward(p.x, p.initial, p.params, p.lengths)[2])


def run(cell: str, p: Problem) -> tuple:
    return outputs(cell, p), gradients(cell, p)


def streams(p: Problem, which: Any) -> Problem:
    """The problem of the chosen streams."""
    lengths = None if p.lengths is None else p.lengths[which]
    return Problem(p.x[:, which], rows_of(p.initial, which), p.params, lengths, p.dhs[:, which], rows_of(p.dfinal, which))


def wider(tree: Any) -> Iterator[Any]:
    """The tree with one axis of one leaf twice as long, for every axis of two-axes leaves and vectors; T is free."""
    for place, array in enumerate(leaves(tree)):
        for axis in range(array.ndim - 2 if array.ndim == 3 else 0, array.ndim):
            numbers = iter(range(len(leaves(tree))))
            double = np.concatenate([array, array], axis)
            yield map_tree(lambda a, numbers=numbers, place=place, double=double: double if next(numbers) == place else a, tree)


def scaled_sum(a: float, u: Any, b: float, v: Any) -> Any:
    return map_tree(lambda u, v: a * u + b * v, u, v)


@law(CELLS, "sequence", "unroll", many=True)
def backward_is_linear_in_what_comes_from_above(case: Case) -> None:
    p, rng = problem(case)
    cache = CELLS[case.kind].forward(p.x, p.initial, p.params, p.lengths)[2]
    u, v = (p.dhs, p.dfinal), random_like(rng, (p.dhs, p.dfinal))
    a, b = rng.normal(size=2)
    of_u, of_v = (CELLS[case.kind].backward(*above, cache) for above in (u, v))
    assert_close(CELLS[case.kind].backward(*scaled_sum(a, u, b, v), cache), scaled_sum(a, of_u, b, of_v), 1e-12)


@law(CELLS, "sequence", "unroll", many=True)
def padding_changes_nothing(case: Case) -> None:
    p, rng = problem(case)
    padded, empty = padding(case), padding(case)[0]
    x, dhs = p.x.copy(), p.dhs.copy()
    for array in (x, dhs):
        array[padded] = rng.normal(size=array[padded].shape) * 10 ** rng.uniform(-100, 100)
    (hs, final), (dx, dinitial, dparams) = run(case.kind, p)
    assert_close(run(case.kind, p._replace(x=x, dhs=dhs)), ((hs, final), (dx, dinitial, dparams)), 0)
    assert not hs[padded].any()
    assert not dx[padded].any()
    assert_close(rows_of(final, empty), rows_of(p.initial, empty), 0)
    assert_close(rows_of(dinitial, empty), rows_of(p.dfinal, empty), 0)


@law(CELLS, "sequence", "unroll", many=True)
def nothing_flows_back_in_time(case: Case) -> None:
    """A later input changes no earlier output; after the last output that the loss uses, inputs have no gradient."""
    p, rng = problem(case)
    t = rng.integers(case.T)
    x = p.x.copy()
    x[t:] += 1
    hs, _ = outputs(case.kind, p)
    changed, _ = outputs(case.kind, p._replace(x=x))
    assert_close(changed[:t], hs[:t], 0)
    assert (np.abs(changed - hs)[t][~padding(case)[t]] > 0).all()
    dhs = p.dhs.copy()
    dhs[t:] = 0
    dx, _, _ = gradients(case.kind, p._replace(dhs=dhs, dfinal=map_tree(np.zeros_like, p.dfinal)))
    assert not dx[t:].any()
    assert (np.abs(dx)[:t][~padding(case)[:t]] > 0).all()


@law(CELLS, "sequence", "unroll", many=True)
def two_parts_with_carried_state_are_one_pass(case: Case) -> None:
    p, _ = problem(case)
    whole, step = run(case.kind, p), CELLS[case.kind]
    for cut in range(1, case.T):
        first, second = (None, None) if p.lengths is None else (np.minimum(p.lengths, cut), np.maximum(p.lengths - cut, 0))
        hs_1, middle, cache_1 = step.forward(p.x[:cut], p.initial, p.params, first)
        hs_2, final, cache_2 = step.forward(p.x[cut:], middle, p.params, second)
        dx_2, dmiddle, dparams_2 = step.backward(p.dhs[cut:], p.dfinal, cache_2)
        dx_1, dinitial, dparams_1 = step.backward(p.dhs[:cut], dmiddle, cache_1)
        grads = np.concatenate([dx_1, dx_2]), dinitial, map_tree(np.add, dparams_1, dparams_2)
        assert_close(((np.concatenate([hs_1, hs_2]), final), grads), whole, 1e-12)


@law(CELLS, "sequence", "unroll", many=True)
def permuted_streams_give_permuted_results(case: Case) -> None:
    p, rng = problem(case)
    order = rng.permutation(case.N)
    (hs, final), (dx, dinitial, dparams) = run(case.kind, p)
    expected = (hs[:, order], rows_of(final, order)), (dx[:, order], rows_of(dinitial, order), dparams)
    assert_close(run(case.kind, streams(p, order)), expected, 1e-12)


@law(CELLS, "sequence", "unroll", many=True)
def a_sequence_is_its_steps(case: Case) -> None:
    p, _ = problem(case)
    hs, final, caches = slow_forward(case.kind, p.x, p.initial, p.params, p.lengths)
    expected = (hs, final), slow_backward(case.kind, p.dhs, p.dfinal, p.x, p.params, caches)
    assert_close(run(case.kind, p), expected, 1e-12)


@law(CELLS, "sequence", "unroll", many=True)
def a_batch_is_its_streams(case: Case) -> None:
    p, _ = problem(case)
    (hs, final), (dx, dinitial, dparams) = run(case.kind, p)
    total = map_tree(np.zeros_like, p.params)
    for n in range(case.N):
        (own_hs, own_final), (own_dx, own_dinitial, part) = run(case.kind, streams(p, [n]))
        assert_close(
            (own_hs, own_final, own_dx, own_dinitial),
            (hs[:, [n]], rows_of(final, [n]), dx[:, [n]], rows_of(dinitial, [n])),
            1e-12,
        )
        total = map_tree(np.add, total, part)
    assert_close(dparams, total, 1e-12)


@law(CELLS, "sequence", "unroll", largest=3)
def backward_is_the_derivative(case: Case) -> None:
    p, _ = problem(case)

    def function(x: np.ndarray, initial: Any, params: Any) -> tuple:
        return outputs(case.kind, Problem(x, initial, params, *p[3:]))

    grads = gradients(case.kind, p)
    assert form(grads) == form(p[:3])
    assert worst_gradient_error(function, p[:3], (p.dhs, p.dfinal), grads) <= 1e-6


@law(CELLS, "sequence", "unroll", many=True)
def inputs_stay_and_results_are_the_callers_own(case: Case) -> None:
    p, _ = problem(case)
    kept, step = copied(p[:3] + p[4:]), CELLS[case.kind]
    hs, final, cache = step.forward(p.x, p.initial, p.params, p.lengths)
    grads = step.backward(p.dhs, p.dfinal, cache)
    assert_close(p[:3] + p[4:], kept, 0)
    places = leaves((hs, final, grads))
    for k, a in enumerate(places):
        assert not any(np.shares_memory(a, b) for b in (*places[:k], *leaves(kept), *leaves(p[:3] + p[4:])))
    expected = copied(grads)
    run(case.kind, problem(case._replace(seed=case.seed + 1))[0])
    for leaf in places:
        leaf[...] = np.nan
    assert_close(step.backward(p.dhs, p.dfinal, cache), expected, 0)


@law(CELLS, "sequence", "unroll", many=True)
def single_precision_stays_and_is_close(case: Case) -> None:
    p, _ = problem(case)
    single = run(case.kind, Problem(*(a if k == 3 else map_tree(np.float32, a) for k, a in enumerate(p))))
    assert {leaf.dtype for leaf in leaves(single)} == {np.dtype(np.float32)}
    assert_close(single, run(case.kind, p), 1e-4)


@law(CELLS, "sequence", "unroll", "cells")
def sequence_names_nan_wrong_shapes_and_lengths(case: Case) -> None:
    p, _ = problem(case)
    forward, backward = CELLS[case.kind].forward, CELLS[case.kind].backward
    for place, name in enumerate(argument_names(case.kind, "initial")):
        with pytest.raises(ValueError, match=f"^{name}: {ONE_NAN}"):
            forward(*spoiled(p[:3], place), p.lengths)
    cache = forward(*p[:3])[2]
    for place, name in enumerate(["dhs", *(["dh", "dc"] if case.kind == "lstm" else ["dfinal"])]):
        with pytest.raises(ValueError, match=f"^{name}: {ONE_NAN}"):
            backward(*spoiled((p.dhs, p.dfinal), place), cache)
    for wrong in wider(p[:3]):
        with pytest.raises(ShapeError):
            forward(*wrong)
    for wrong in wider((p.dhs, p.dfinal)):
        with pytest.raises(ShapeError):
            backward(*wrong, cache)
    for end in (case.T + 1, -1, 0.5):
        with pytest.raises(ValueError, match=r"^lengths: expected integers in \[0, "):
            forward(*p[:3], [0] * (case.N - 1) + [end])
    for wrong in ([0] * (case.N + 1), [0] * (case.N - 1), [[0] * case.N], 0):
        with pytest.raises(ShapeError, match=r"^lengths: axis N"):
            forward(*p[:3], wrong)
    refuses_the_state_of_another_cell(forward, p.x, p.initial, p.params, "initial")


@law(CELLS, "caches", many=True)
def a_cache_holds_the_caches_of_the_steps(case: Case) -> None:
    p, _ = problem(case)
    _, _, cache = CELLS[case.kind].forward(*p[:3])
    state = p.initial
    for t in range(case.T):
        state, expected = CELLS[case.kind].step_forward(p.x[t], state, p.params)
        assert type(cache.at(t)) is type(expected)
        assert_close(cache.at(t), expected, 1e-12)


# Jacobians


@law(["rnn", "lstm"], "jacobians")
def a_step_backward_multiplies_by_the_jacobian(case: Case) -> None:
    inputs, dstate = step_problem(case)
    forward, backward = step(case.kind)
    _, cache = forward(*inputs)
    J = {"rnn": rnn_step_jacobian, "lstm": lstm_step_jacobian}[case.kind](cache)
    dprev = np.hstack(leaves(backward(dstate, cache)[1]))
    assert J.shape == (case.N, dprev.shape[1], dprev.shape[1])
    assert_close(np.einsum("nj,njk->nk", np.hstack(leaves(dstate)), J), dprev, 1e-12)


@law(["products"], "jacobians")
def a_product_of_jacobians_is_taken_step_by_step(case: Case) -> None:
    jacobians = case.rng.normal(size=(case.T, case.H, case.H))
    products = jacobian_products(jacobians)
    assert len(products) == case.T + 1
    for t, product in enumerate(products):
        expected = np.eye(case.H)
        for J in jacobians[t:]:
            expected = J @ expected
        assert_close(product, expected, 1e-12)


# Stacks and both directions


def stack_problem(case: Case) -> tuple[str, tuple, tuple, np.random.Generator]:
    """The cell; (x, initial, layers) of one to three layers; gradients from above; the generator for more."""
    (cell, way), rng, depth = case.kind.split(), case.rng, 1 + case.seed % 3
    both = way == "both"
    stack = random_stack(rng, cell, case.D, case.H, depth, both)
    initial = random_stack_state(rng, cell, case.N, case.H, depth, both)
    dhs = rng.normal(size=(case.T, case.N, case.H * (1 + both)))
    return cell, (rng.normal(size=(case.T, case.N, case.D)), initial, stack), (dhs, random_like(rng, initial)), rng


@law(STACKS, "stacked", "unroll", largest=3)
def a_stack_is_layer_after_layer(case: Case) -> None:
    cell, inputs, _, rng = stack_problem(case)
    for rate in (0.0, 0.5):
        hs, finals, cache = stacked_forward(*inputs, case.lengths, rate, rng)
        assert_close((hs, finals), slow_stack(cell, *inputs, case.lengths, cache.masks), 1e-12)
        assert [mask is None for mask in cache.masks] == [True, *[not rate] * (len(inputs[2]) - 1)]
        assert all(set(mask.flat) <= {0.0, 2.0} for mask in cache.masks if mask is not None)
    x, initial, stack = inputs
    for wrong in (initial[1:], initial * 2):
        with pytest.raises(ValueError, match=f"^initial: expected {len(stack)} states"):
            stacked_forward(x, wrong, stack)


@law(STACKS, "stacked", "unroll", largest=3)
def a_stack_backward_is_the_derivative(case: Case) -> None:
    """Along a random direction through every entry of every array."""
    _, inputs, above, rng = stack_problem(case)

    def forward(*inputs: Any) -> tuple:
        return stacked_forward(*inputs, case.lengths, 0.4, np.random.default_rng(case.seed))

    kept = copied((inputs, above))
    grads = stacked_backward(*above, forward(*inputs)[2])
    assert_close((inputs, above), kept, 0)
    assert form(grads) == form(inputs)
    direction = random_like(rng, inputs)
    length = dot(direction, direction) ** 0.5
    ends = [dot(above, forward(*scaled_sum(1, inputs, eps / length, direction))[:2]) for eps in (1e-5, -1e-5)]
    assert dot(grads, direction) / length == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7, abs=1e-7)


@law(STACKS, "stacked", "unroll", largest=3)
def padding_changes_nothing_in_a_stack(case: Case) -> None:
    _, (x, initial, stack), (dhs, dfinals), _ = stack_problem(case)
    padded, results = padding(case), []
    for filler in (0.5, 1e30):
        x[padded], dhs[padded] = filler, -filler
        hs, finals, cache = stacked_forward(x, initial, stack, case.lengths)
        dx, *grads = stacked_backward(dhs, dfinals, cache)
        results.append((hs, finals, dx, *grads))
        assert not hs[padded].any()
        assert not dx[padded].any()
    assert_close(*results, 0)


@law(STACKS, "stacked")
def a_zero_state_is_a_state_of_zeros(case: Case) -> None:
    _, (_, initial, stack), _, _ = stack_problem(case)
    state = zero_state(stack, case.N)
    assert_close(state, zeros_like(initial), 0)
    assert form(state) == form(initial)
    assert not any(leaf.any() for leaf in leaves(zeros_like(initial)))
    places = leaves(state)
    assert not any(np.shares_memory(a, b) for k, a in enumerate(places) for b in places[:k])


# Layers and weights


@law(["linear"], "layers")
def a_linear_layer_is_its_sum(case: Case) -> None:
    rng, (_, T, N, D, H, _, _) = case.rng, case
    inputs, dy = (rng.normal(size=(T, N, D)), rng.normal(size=(H, D)), rng.normal(size=H)), rng.normal(size=(T, N, H))
    y, cache = layers.linear_forward(*inputs)
    assert_close(y, np.einsum("tnd,hd->tnh", *inputs[:2]) + inputs[2], 1e-13)
    grads = layers.linear_backward(dy, cache)
    assert worst_gradient_error(lambda *inputs: layers.linear_forward(*inputs)[0], inputs, dy, grads) <= 1e-8
    x, W, b = inputs
    for wrong in ((x, W[:, 1:], b), (x[..., 1:], W, b), (x, W[1:], b), (x, W, b[1:]), (x, W, b[:, None])):
        with pytest.raises(ShapeError, match=r"^linear: "):
            layers.linear_forward(*wrong)


@law(["embedding"], "layers")
def an_embedding_is_its_rows(case: Case) -> None:
    rng, (_, T, N, D, H, _, _) = case.rng, case
    tokens, table, dx = rng.integers(0, H, (T, N)), rng.normal(size=(H, D)), rng.normal(size=(T, N, D))
    x, cache = layers.embedding_forward(tokens, table)
    one_hot = np.eye(H)[tokens]
    assert_close(x, one_hot @ table, 0)
    assert_close(layers.embedding_backward(dx, cache), np.einsum("tnh,tnd->hd", one_hot, dx), 1e-13)
    with pytest.raises(ValueError, match=r"^tokens: "):
        layers.embedding_forward(tokens + H, table)


@law(["dropout"], "layers")
def dropout_drops_some_and_scales_the_rest(case: Case) -> None:
    rng = case.rng
    x, rate = rng.normal(size=(case.T, 2000)), rng.uniform(0.1, 0.8)
    y, mask = layers.dropout_forward(x, rate, rng)
    dropped = y == 0
    assert abs(dropped.mean() - rate) < 6 * (rate * (1 - rate) / x.size) ** 0.5
    assert_close(y, np.where(dropped, 0, x / (1 - rate)), 1e-13)
    assert_close(layers.dropout_backward(x, mask), y, 0)
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"^rate: "):
            layers.dropout_forward(x, wrong, rng)


@law(["cross entropy"], "layers")
def cross_entropy_is_the_mean_surprise(case: Case) -> None:
    rng, (_, T, N, _, H, _, _) = case.rng, case
    logits, targets = 3 * rng.normal(size=(T, N, H)), rng.integers(0, H, (T, N))
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    assert_close(layers.log_softmax(logits), np.log(p), 1e-13)
    assert np.isfinite(layers.log_softmax(1e5 * logits)).all()
    loss, cache = layers.softmax_cross_entropy_forward(logits, targets)
    assert loss == pytest.approx(-np.log(p[np.eye(H, dtype=bool)[targets]]).mean(), abs=1e-12)
    dlogits = layers.softmax_cross_entropy_backward(cache)
    assert_close(layers.softmax_cross_entropy_backward(cache), dlogits, 0)
    for wrong in (targets[1:], targets[:, 1:], targets[None]):
        with pytest.raises(ShapeError, match=r"^targets: "):
            layers.softmax_cross_entropy_forward(logits, wrong)
    for wrong in (targets + H, targets - H):
        with pytest.raises(ValueError, match=r"^targets: expected tokens in"):
            layers.softmax_cross_entropy_forward(logits, wrong)
    error = worst_gradient_error(
        lambda a: np.array(layers.softmax_cross_entropy_forward(a, targets)[0]), (logits,), np.array(1.0), (dlogits,)
    )
    assert error <= 1e-8


@law(["weights"], "weights")
def initial_weights_are_of_their_kind(case: Case) -> None:
    gaussian = case.rng.normal(size=(case.H, case.H))
    Q = orthogonal(gaussian)
    assert_close(Q @ Q.T, np.eye(case.H), 1e-12)
    R = Q.T @ gaussian
    assert_close(R, np.triu(R), 1e-12)
    assert (np.diag(R) > 0).all()
    for wrong in ((case.H, case.H + 1), (case.H + 1, case.H), (case.H,), (case.H, case.H, 1)):
        with pytest.raises(ShapeError):
            orthogonal(np.ones(wrong))
    W = uniform(case.rng, 2000, case.D, np.float64)
    bound = case.D**-0.5
    assert W.shape == (2000, case.D)
    assert -bound <= W.min() < -0.95 * bound
    assert 0.95 * bound < W.max() <= bound


# Attention


ATTENTIONS = ("additive", "additive square", "multiplicative", "multiplicative square")


class Attended(NamedTuple):
    """The arguments of an attention, and a gradient from above."""

    query: np.ndarray
    memory: np.ndarray
    params: Any
    lengths: np.ndarray
    dcontext: np.ndarray


def attention_problem(case: Case) -> Attended:
    rng, S, N, A = case.rng, case.T, case.N, case.D + case.H
    Q, M, A = (case.D, case.H, A) if "square" not in case.kind else (case.H,) * 3
    lengths = np.full(N, S) if case.lengths is None else np.maximum(case.lengths, 1)
    if case.kind.startswith("additive"):
        params = AdditiveParams(*(rng.normal(size=shape) for shape in ((A, Q), (A, M), (A,))))
    else:
        params = MultiplicativeParams(rng.normal(size=(Q, M)))
    return Attended(rng.normal(size=(N, Q)), rng.normal(size=(S, N, M)), params, lengths, rng.normal(size=(N, M)))


def attend(case: Case, p: Attended) -> tuple:
    """Context, alpha, and the gradients of query, memory and parameters."""
    kind = case.kind.split()[0]
    context, alpha, cache = getattr(attention_by_hand, f"{kind}_forward")(p.query, p.memory, p.lengths, p.params)
    return context, alpha, getattr(attention_by_hand, f"{kind}_backward")(p.dcontext, cache)


def by_loops(p: Attended, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Context and alpha of one stream, position by position, by eqs. 10.1 to 10.4."""
    states = p.memory[: p.lengths[n], n]
    if isinstance(p.params, AdditiveParams):
        scores = [p.params.v @ np.tanh(p.params.W_q @ p.query[n] + p.params.W_k @ m) for m in states]
    else:
        scores = [p.query[n] @ p.params.W_k @ m for m in states]
    weights = [1 / sum(np.exp(other - score) for other in scores) for score in scores]
    return sum(w * m for w, m in zip(weights, states, strict=True)), np.array(weights + [0] * (len(p.memory) - len(states)))


@law(ATTENTIONS, "attention_by_hand")
def attention_follows_its_equations(case: Case) -> None:
    p = attention_problem(case)
    context, alpha, _ = attend(case, p)
    expected = tuple(map(np.stack, zip(*(by_loops(p, n) for n in range(case.N)), strict=True)))
    assert_close((context, alpha), expected, 1e-13)
    assert_close(alpha.sum(axis=1), np.ones(case.N), 1e-14)


@law(ATTENTIONS, "attention_by_hand", largest=3)
def attention_backward_is_the_derivative(case: Case) -> None:
    p = attention_problem(case)
    grads = attend(case, p)[2]
    assert form(grads) == form(tuple(p[:3]))

    def context(query: np.ndarray, memory: np.ndarray, params: Any) -> np.ndarray:
        return attend(case, p._replace(query=query, memory=memory, params=params))[0]

    assert worst_gradient_error(context, tuple(p[:3]), p.dcontext, grads) <= 1e-8


@law(ATTENTIONS, "attention_by_hand")
def what_stands_at_padding_is_not_seen(case: Case) -> None:
    p, memory = attention_problem(case), attention_problem(case).memory
    padded = np.arange(case.T)[:, None] >= p.lengths
    results = attend(case, p)
    for garbage in (1e300, 1e-300, -7.0, np.nan, np.inf):
        memory[padded] = garbage
        assert_close(attend(case, p._replace(memory=memory)), results, 0)
    assert not results[1].T[padded].any() and not results[2][1][padded].any()
    for n in range(case.N):
        alone = Attended(p.query[[n]], p.memory[: p.lengths[n], [n]], p.params, p.lengths[[n]], p.dcontext[[n]])
        context, alpha, (dquery, dmemory, _) = attend(case, alone)
        mine = results[0][[n]], results[1][[n], : p.lengths[n]], results[2][0][[n]], results[2][1][: p.lengths[n], [n]]
        assert_close((context, alpha, dquery, dmemory), mine, 1e-12)


@law(["softmax"], "attention_by_hand")
def a_masked_softmax_is_each_row_s_own(case: Case) -> None:
    p, rng = attention_problem(case), case.rng
    scores, real = rng.normal(size=(case.N, case.T)), np.arange(case.T) < p.lengths[:, None]
    alpha = attention_by_hand.masked_softmax_forward(scores, p.lengths)
    assert_close(alpha, real * np.exp(scores) / (real * np.exp(scores)).sum(axis=1, keepdims=True), 1e-14)
    far = np.where(real, scores + rng.choice([-1e4, 1e4], (case.N, 1)), rng.choice([1e5, np.inf, np.nan]))
    assert_close(attention_by_hand.masked_softmax_forward(far, p.lengths), alpha, 1e-10)
    dalpha = rng.normal(size=alpha.shape)
    jacobians = [np.diag(a) - np.outer(a, a) for a in alpha]
    expected = np.stack([J @ d for J, d in zip(jacobians, dalpha, strict=True)])
    assert_close(attention_by_hand.masked_softmax_backward(dalpha, alpha), expected, 1e-14)
    for wrong in wider((dalpha, alpha)):
        with pytest.raises(ShapeError):
            attention_by_hand.masked_softmax_backward(*wrong)


@law(ATTENTIONS, "attention_by_hand")
def attention_keeps_its_inputs_and_its_precision(case: Case) -> None:
    p = attention_problem(case)
    kept, results = copied(p), attend(case, p)
    assert_close(p, kept, 0)
    single = attend(case, p._replace(**dict(zip(p._fields[:3], map_tree(np.float32, tuple(p[:3])), strict=True)),
                                     dcontext=np.float32(p.dcontext)))  # fmt: skip
    assert {leaf.dtype for leaf in leaves(single)} == {np.dtype(np.float32)}
    assert_close(single, results, 1e-4)


@law(ATTENTIONS, "attention_by_hand")
def attention_names_nan_wrong_shapes_and_lengths(case: Case) -> None:
    p = attention_problem(case)
    for wrong in wider(tuple(p[:3])):
        with pytest.raises(ShapeError):
            attend(case, p._replace(**dict(zip(p._fields[:3], wrong, strict=True))))
    for wrong in wider(p.dcontext):
        with pytest.raises(ShapeError):
            attend(case, p._replace(dcontext=wrong))
    for lengths in (p.lengths[None], p.lengths.repeat(2)):
        with pytest.raises(ShapeError, match=r"^lengths: "):
            attend(case, p._replace(lengths=lengths))
    for lengths in (0 * p.lengths, p.lengths + case.T, p.lengths.astype(float)):
        with pytest.raises(ValueError, match=rf"^lengths: expected integers in \[1, {case.T}\]"):
            attend(case, p._replace(lengths=lengths))
    full = p._replace(lengths=np.full(case.N, case.T))
    for place, name in enumerate(("query", "memory", *p.params._fields)):
        with pytest.raises(ValueError, match=f"^{name}: {ONE_NAN}"):
            attend(case, full._replace(**dict(zip(p._fields[:3], spoiled(tuple(p[:3]), place), strict=True))))


# PyTorch


def torch_law(name: str, kinds: Any, *modules: str, largest: int = 4, where: str = "torch_laws") -> None:
    """Register a function of ``torch_laws``, which is imported when it is first tried: importing torch takes seconds."""

    def holds(case: Case) -> None:
        getattr(importlib.import_module(where), name)(case)

    holds.__name__ = name
    law(kinds, *modules, largest=largest)(holds)


RUNNERS = ("loop", "fused", "compile")
ON_TORCH = [f"{backend} {way}" for backend in (*RUNNERS, "cudnn", "auto") for way in ("ahead", "both")]
TRANSLATORS = [f"{attention} {way}" for attention in ("none", "additive", "multiplicative") for way in ("ahead", "both")]
# 10 steps: 8 for the compiler and a rest
torch_law("runner_is_numpy", RUNNERS, "torch_sequence", largest=10)
torch_law("runner_keeps_precision", RUNNERS, "torch_sequence", largest=10)
torch_law("runner_holds_the_cell_state_in_single_precision", RUNNERS, "torch_sequence")
torch_law("runner_leaves_the_caller_s_tensors_alone", RUNNERS, "torch_sequence", largest=10)
torch_law("runner_takes_any_gradient", RUNNERS, "torch_sequence")
torch_law("reversed_streams_are_their_real_steps_backwards", ["reverse"], "torch_sequence")
torch_law("where_nothing_compiles_fused_runs", ["compile"], "torch_sequence", largest=10)
torch_law("torch_calls_are_checked", ["check_call"], "torch_stack")
torch_law("a_torch_stack_is_numpy_s", ON_TORCH, "torch_stack")
torch_law("torch_dropout_is_between_layers", ON_TORCH, "torch_stack")
torch_law("a_backend_runs_what_it_names", [*ON_TORCH, "triton ahead", "triton both"], "torch_stack")
torch_law("weights_survive_keras", ["weights"], "torch_lstm")
torch_law("weights_survive_nn_lstm", ["weights"], "torch_lstm")
torch_law("weights_survive_numpy", ["weights"], "torch_lstm")
torch_law("the_module_is_called_like_nn_lstm", ["module"], "torch_lstm", "torch_stack")
torch_law("the_module_says_how_it_reads_x", ["module"], "torch_lstm")
torch_law("a_new_module_is_as_described", ["module"], "torch_lstm")
torch_law("dropout_is_for_training", ["module"], "torch_lstm")
torch_law("modules_that_cannot_be_are_refused", ["module"], "torch_lstm", "torch_stack")
torch_law("autocast_computes_in_its_dtype", ["module"], "torch_lstm", "torch_stack")


def translation_law(name: str, *modules: str, kinds: Any = TRANSLATORS, largest: int = 4) -> None:
    """Register a function of ``translation_laws``."""
    torch_law(name, kinds, *modules, largest=largest, where="translation_laws")


translation_law("torch_attention_follows_its_equations", "attention", kinds=("additive", "multiplicative"))
translation_law("a_new_attention_is_as_described", "attention", kinds=["module"])
translation_law("the_loss_is_a_mean_over_real_tokens", "seq2seq", kinds=["none both"])
translation_law("translators_that_cannot_be_are_refused", "seq2seq", "torch_tokens", kinds=["additive both"])
translation_law("a_new_translator_is_as_described", "seq2seq")
translation_law("a_translator_is_its_equations", "attention", "seq2seq")
translation_law("logits_are_wide", "seq2seq", kinds=["additive both"])
translation_law("its_gradients_are_slopes", "attention", "seq2seq", largest=3)
translation_law("a_translator_drops_out_in_training_only", "seq2seq")
translation_law("decoding_can_stop_and_go_on", "seq2seq")
translation_law("a_batch_is_its_singles", "attention", "seq2seq")
translation_law("padding_of_pairs_changes_nothing", "attention", "seq2seq")
translation_law("a_model_is_fed_as_asked", "seq2seq", largest=3)
translation_law("a_translator_speaks_to_the_decoders", "seq2seq", largest=3)
translation_law("beam_search_finds_the_best_translations", "seq2seq", largest=3)
translation_law("texts_without_a_translation_are_refused", "translation", kinds=["additive both"])
translation_law("each_pass_deals_all_pairs_once", "translation", "torch_tokens", kinds=["batches"])
translation_law("rare_words_keep_their_numbers", "translation", kinds=["multiplicative both"])
translation_law("perplexity_is_of_the_true_text", "translation")
translation_law("translations_are_those_of_the_model", "translation", largest=3)


# The tests


@pytest.mark.parametrize("name", LAWS)
def test_on_fixed_cases(name):
    for case in fixed_cases(name):
        LAWS[name].holds(case)


@pytest.mark.parametrize("name", LAWS)
@few
@given(st.data())
def test_on_any_case(name, data):
    LAWS[name].holds(data.draw(cases(name)))
