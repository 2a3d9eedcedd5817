"""The exercises of lesson 03: Jacobians and their products, clipping, orthogonal weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib import optim
from course_lib.exercise_book import Exercise, slips
from course_lib.jacobians import jacobian_products, rnn_step_jacobian
from course_lib.rnn_book import rnn_step_gradient
from course_lib.trees import named_leaves
from course_lib.weights import orthogonal


def _jacobians_problem(rng: np.random.Generator) -> tuple:
    T, H = rng.integers(1, 8), rng.integers(1, 5)
    return (rng.normal(size=(T, H, H)),)


def _clip_problem(rng: np.random.Generator) -> tuple:
    grads = (rng.normal(size=(3, 4)), (rng.normal(size=5), rng.normal(size=(2, 2))))
    return grads, rng.choice([0.5, 2, 100])


def _clip(function: Callable, grads: tuple, max_norm: float) -> tuple:
    """The gradients after the call: clipping is in place."""
    function(grads, max_norm)
    return grads


def _clip_each(grads: tuple, max_norm: float) -> None:
    for _, g in named_leaves(grads):
        g *= min(1, max_norm / np.linalg.norm(g))


def _clip_by_the_square(grads: tuple, max_norm: float) -> None:
    square = optim.global_norm(grads) ** 2
    for _, g in named_leaves(grads):
        g *= min(1, max_norm / square)


def _clip_by_the_larger(grads: tuple, max_norm: float) -> None:
    norm = optim.global_norm(grads)
    for _, g in named_leaves(grads):
        g *= max(1, max_norm / norm)


def _clip_entries(grads: tuple, max_norm: float) -> None:
    for _, g in named_leaves(grads):
        np.clip(g, -max_norm, max_norm, out=g)


def _clip_always(grads: tuple, max_norm: float) -> None:
    norm = optim.global_norm(grads)
    for _, g in named_leaves(grads):
        g *= max_norm / norm


def _products_forward(jacobians: np.ndarray) -> np.ndarray:
    products = [np.eye(jacobians.shape[1])]
    for J in jacobians:
        products.append(J @ products[-1])
    return np.stack(products)


JACOBIAN_EXERCISES: dict[str, Exercise] = {
    "rnn_step_jacobian": Exercise(
        "3.1",
        rnn_step_jacobian,
        lambda rng: (rnn_step_gradient(rng)[1],),
        [
            ("the slope of tanh, 1 - h², is missing",
             lambda c: np.broadcast_to(c.params.W_hh, (len(c.h), *c.params.W_hh.shape))),
            ("the slope belongs to the row, the unit of h_t: diag(1 - h²) W_hh, not W_hh diag(1 - h²)",
             lambda c: (1 - c.h**2)[:, None, :] * c.params.W_hh),
            ("h is tanh(a) already: the slope is 1 - h², not 1 - tanh²(h)",
             lambda c: (1 - np.tanh(c.h) ** 2)[:, :, None] * c.params.W_hh),
            ("entry [j, k] is dh_t[j] / dh_{t-1}[k]: this is its transpose", lambda c: rnn_step_jacobian(c).swapaxes(1, 2)),
            ("the slope is that of this step's h, not of the previous one",
             lambda c: (1 - c.prev**2)[:, :, None] * c.params.W_hh),
        ],
        arguments="cache", outputs="jacobian",
    ),
    "clip_global_norm_": Exercise(
        "3.2",
        optim.clip_global_norm_,
        _clip_problem,
        [
            ("one norm over all arrays together: clipping each by itself turns the direction", _clip_each),
            ("the norm is the root of the sum of squares: the root is missing", _clip_by_the_square),
            ("scale, do not cut entries off: the direction must stay", _clip_entries),
            ("a gradient below max_norm stays as it is", _clip_always),
            ("nothing changed: `g *= ...` works in place, `g = g * ...` makes a new array", lambda grads, limit: None),
            ("the factor is at most 1: min, not max", _clip_by_the_larger),
        ],
        call=_clip, arguments="grads max_norm", outputs="grads", in_place=True,
    ),
    "jacobian_products": Exercise(
        "3.3",
        jacobian_products,
        _jacobians_problem,
        [
            *slips(
                jacobian_products,
                ("matrices do not commute: the later Jacobian stands on the left",
                 "products[t + 1] @ jacobians[t]", "jacobians[t] @ products[t + 1]"),
            ),
            ("entry [t] is dh_T / dh_t: the product of the steps after t, up to the last", _products_forward),
            ("the order is the other one: entry [0] is the whole product, entry [T] the identity",
             lambda J: jacobian_products(J)[::-1]),
            ("dh_T / dh_T is the identity: an entry more than there are steps", lambda J: jacobian_products(J)[:-1]),
            *slips(
                jacobian_products,
                ("matrix products, @, not products of entries",
                 "products[t + 1] @ jacobians[t]", "products[t + 1] * jacobians[t]"),
            ),
        ],
        arguments="jacobians", outputs="products",
    ),
    "orthogonal": Exercise(
        "3.4",
        orthogonal,
        lambda rng: (rng.normal(size=(int(rng.integers(1, 6)),) * 2),),
        [
            ("the signs are left to chance: make R's diagonal positive", lambda A: np.linalg.qr(A)[0]),
            ("the signs are those of R's diagonal, not of Q's",
             lambda A: (Q := np.linalg.qr(A)[0]) * np.sign(np.diag(Q))),
            ("a column of Q belongs to a row of R: scale columns, not rows",
             lambda A: np.sign(np.diag(np.linalg.qr(A)[1]))[:, None] * np.linalg.qr(A)[0]),
            ("R is the triangular factor; Q is the orthogonal one", lambda A: np.linalg.qr(A)[1]),
            ("scaling by the norm does not make the columns orthogonal", lambda A: A / np.linalg.norm(A, 2)),
        ],
        arguments="gaussian", outputs="Q",
    ),
}  # fmt: skip
