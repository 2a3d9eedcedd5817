"""Optimisers against torch.optim over several steps, on trees of arrays; clipping against torch; the schedule's shape."""

import math

import numpy as np
import pytest
import torch
from problems import assert_close, copied, random_like, random_params

from course_lib.optim import adam_, adam_init, clip_global_norm_, global_norm, sgd_, warmup_cosine
from course_lib.trees import leaves, map_tree

DTYPES = [(np.float64, 1e-12), (np.float32, 2e-6)]
both_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)


def problem(dtype, seed=0):
    """A tree of matrices and vectors, and gradients for four steps, of very different sizes."""
    rng = np.random.default_rng(seed)
    params = (random_params(rng, "lstm", 3, 2, dtype), random_params(rng, "gru", 2, 4, dtype))
    return params, [map_tree(lambda g, s=size: g * dtype(s), random_like(rng, params)) for size in (1, 1e-3, 100, 0)]


def as_tensors(tree):
    return [torch.tensor(leaf) for leaf in leaves(tree)]


def assert_follows(take_step, optimizer, params, steps, tolerance):
    """``take_step(params, grads)`` stays equal to torch's optimizer, changes params in place and leaves grads alone."""
    places, tensors = leaves(params), as_tensors(params)
    optimizer = optimizer(tensors)
    for grads in steps:
        kept = copied(grads)
        take_step(params, grads)
        assert_close(grads, kept, 0)
        for tensor, grad in zip(tensors, as_tensors(grads), strict=True):
            tensor.grad = grad
        optimizer.step()
        assert_close(tuple(leaves(params)), tuple(t.numpy() for t in tensors), tolerance)
    assert all(a is b for a, b in zip(leaves(params), places, strict=True))


@both_dtypes
def test_sgd(dtype, tolerance):
    params, steps = problem(dtype)
    assert_follows(lambda p, g: sgd_(p, g, 0.1), lambda t: torch.optim.SGD(t, 0.1), params, steps, tolerance)


@both_dtypes
@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-3}], ids=str)
@pytest.mark.parametrize("decay", [0, 0.3])
def test_adam_and_adamw(dtype, tolerance, options, decay):
    def decays_matrices_only(tensors):
        matrices, biases = ([t for t in tensors if (t.ndim > 1) is flag] for flag in (True, False))
        groups = [{"params": matrices, "weight_decay": decay}, {"params": biases, "weight_decay": 0}]
        return torch.optim.AdamW(groups, 0.01, **options) if decay else torch.optim.Adam(tensors, 0.01, **options)

    params, steps = problem(dtype)
    states = [adam_init(params)]

    def step(params, grads):
        states.append(adam_(params, grads, states[-1], 0.01, **options, weight_decay=decay))

    assert_follows(step, decays_matrices_only, params, steps, tolerance)
    assert [state.t for state in states] == [0, 1, 2, 3, 4]
    assert {leaf.dtype for leaf in leaves((params, states[-1].m, states[-1].v))} == {np.dtype(dtype)}


def test_adam_starts_from_zeros_of_the_form_of_the_parameters():
    params, _ = problem(np.float32)
    state = adam_init(params)
    for moment in (state.m, state.v):
        assert_close(moment, map_tree(np.zeros_like, params), 0)
    assert not any(np.shares_memory(a, b) for a, b in zip(leaves(state.m), leaves(state.v), strict=True))


def test_the_first_step_of_adam_is_the_learning_rate():
    params = (np.array([1.0, -2.0]),)
    adam_(params, (np.array([1e-4, -50.0]),), adam_init(params), 0.1)
    assert_close(params, (np.array([0.9, -1.9]),), 1e-3)


@both_dtypes
@pytest.mark.parametrize("share", [0.01, 0.999, 1.001, 50])
def test_clipping(dtype, tolerance, share):
    _, (_, _, grads, _) = problem(dtype)
    tensors = as_tensors(map_tree(np.zeros_like, grads))
    for tensor, grad in zip(tensors, as_tensors(grads), strict=True):
        tensor.grad = grad
    norm, kept = global_norm(grads), copied(grads)
    assert norm == pytest.approx(math.sqrt(sum((leaf.astype(float) ** 2).sum() for leaf in leaves(grads))), rel=1e-6)
    limit = share * norm
    assert clip_global_norm_(grads, limit) == norm
    assert torch.nn.utils.clip_grad_norm_(tensors, limit).item() == pytest.approx(norm, rel=1e-6)
    assert global_norm(grads) == pytest.approx(min(norm, limit), rel=1e-6)
    assert_close(tuple(leaves(grads)), tuple(t.grad.numpy() for t in tensors), 2e-6)  # torch divides by norm + 1e-6
    if share > 1:
        assert_close(grads, kept, 0)


def test_clipping_of_zeros_and_of_nan():
    grads = (np.zeros(3), np.zeros((2, 2)))
    assert clip_global_norm_(grads, 1.0) == 0
    assert math.isnan(clip_global_norm_((np.array([1.0, np.nan]),), 1.0))


@pytest.mark.parametrize("max_norm", [0, -1, float("nan")])
def test_clipping_refuses_other_limits(max_norm):
    with pytest.raises(ValueError) as caught:
        clip_global_norm_((np.ones(2),), max_norm)
    assert str(caught.value) == f"max_norm: expected a positive number, got {max_norm}"


def test_trees_of_other_forms_are_refused():
    with pytest.raises(ValueError, match="zip"):
        sgd_((np.ones(2), np.ones(2)), (np.ones(2),), 0.1)


def test_warmup_then_cosine():
    assert warmup_cosine(0.05, warmup=0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.0, warmup=0.1) == pytest.approx(0.01)  # never a step of nothing
    assert warmup_cosine(0.1, warmup=0.1, floor=0.2) == pytest.approx(1)
    assert warmup_cosine(0.55, warmup=0.1, floor=0.2) == pytest.approx(0.6)
    assert warmup_cosine(0.325, warmup=0.1, floor=0.2) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    for done in (1.0, 1.7):
        assert warmup_cosine(done, warmup=0.1, floor=0.2) == pytest.approx(0.2)
    assert warmup_cosine(0.5, warmup=0.0) == pytest.approx(0.51)
    assert warmup_cosine(0.02) == pytest.approx(1)
    assert warmup_cosine(1) == pytest.approx(0.02)
