"""What an exercise is; those of lessons 00, 01 and 06: the right answer, the inputs, the mistakes that people make."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from course_lib import datasets, decoding, layers, metrics
from course_lib.diagnosis import MisfitError

Problem = Callable[[np.random.Generator], tuple]


@dataclass(frozen=True)
class Exercise:
    """number: "2.3" is the third exercise of lesson 02; empty if no lesson sets it. reference: the right answer.

    problem: draws the arguments. call: how a function is applied to them (mistakes too). mistakes: (hint, wrong function)
    pairs; the hint is shown to whoever makes that mistake. arguments, outputs: their names, for messages; usage: how it is
    called, if not simply with them. gates: the order of the gate rows. in_place: the function is meant to change its arguments.
    """

    number: str
    reference: Callable
    problem: Problem
    mistakes: Sequence[tuple[str, Callable]]
    call: Callable[..., Any] = lambda function, *arguments: function(*arguments)
    arguments: str = ""
    usage: str = ""
    outputs: str = ""
    gates: str = ""
    in_place: bool = False


def edited(function: Callable, *changes: tuple[str, str]) -> Callable:
    """The function with pieces of its source replaced: a mistake, written as the difference that it makes.

    Raises:   ValueError, when it is first called: an old text that does not occur exactly once.
    """

    @functools.cache
    def make() -> Callable:
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in changes:
            if source.count(old) != 1:
                raise ValueError(f"{function.__name__}: {old!r} occurs {source.count(old)} times, expected once")
            source = source.replace(old, new)
        namespace = dict(function.__globals__)
        exec(source, namespace)
        return namespace[function.__name__]

    return lambda *arguments: make()(*arguments)


def slips(function: Callable, *rows: tuple[str, ...]) -> list[tuple[str, Callable]]:
    """Mistakes that are small edits of a function: a row is the hint, then old, new, old, new, ..."""
    return [(hint, edited(function, *zip(texts[::2], texts[1::2], strict=True))) for hint, *texts in rows]


def _logits(rng: np.random.Generator) -> tuple:
    return (rng.normal(0, 3, (rng.integers(2, 5), rng.integers(3, 9))) * rng.choice([1, 300]),)


def _filter_problem(parameter: Callable[[np.random.Generator], float]) -> Problem:
    def problem(rng: np.random.Generator) -> tuple:
        return parameter(rng), layers.log_softmax(rng.normal(0, 2, (3, 7)))

    return problem


def _apply_filter(make: Callable, parameter: float, log_probs: np.ndarray) -> np.ndarray:
    keep = make(parameter)
    if not callable(keep):
        raise MisfitError(f"it must return a function of log_probs, got {type(keep).__name__}")
    return keep(log_probs)


def _batches_problem(rng: np.random.Generator) -> tuple:
    return rng.integers(0, 50, rng.integers(60, 90)), int(rng.integers(2, 5)), int(rng.integers(3, 8))


def _all_batches(function: Callable, tokens: np.ndarray, batch_size: int, steps: int) -> tuple:
    pairs = function(tokens, batch_size, steps)
    if not isinstance(pairs, Iterable):
        raise MisfitError(f"it must return or yield pairs (inputs, targets), got {type(pairs).__name__}")
    return tuple(tuple(batch) for batch in islice(pairs, len(tokens) + 1))


def _rows_as_streams(tokens: np.ndarray, batch_size: int, steps: int) -> list:
    length = (len(tokens) - 1) // batch_size
    x, y = (tokens[k : k + length * batch_size].reshape(length, batch_size) for k in (0, 1))
    return [(x[t : t + steps], y[t : t + steps]) for t in range(0, length, steps)]


def _unshifted(tokens: np.ndarray, batch_size: int, steps: int) -> list:
    return [(x, x) for x, _ in datasets.batches(tokens, batch_size, steps)]


def _counts_problem(rng: np.random.Generator) -> tuple:
    counts = rng.poisson(0.7, (5, 6))
    counts[rng.integers(5)] = 0  # a context never seen
    return counts, rng.dirichlet(np.ones(6))


def _witten_bell_table(n: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    total, different = n.sum(1, keepdims=True), (n > 0).sum(1, keepdims=True)
    return np.where(total > 0, (n + different * shorter) / np.maximum(total + different, 1), shorter)


def _add_one(n: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    return (n + 1) / (n + 1).sum(1, keepdims=True)


def _unseen_context_is_zero(n: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    return np.where(n.sum(1, keepdims=True) > 0, _witten_bell_table(n, shorter), 0)


def _one_shared_weight(n: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    total, different = n.sum(1, keepdims=True), (n > 0).sum()
    return np.where(total > 0, (n + different * shorter) / np.maximum(total + different, 1), shorter)


def _mean_of_means(parts: list) -> metrics.Score:
    return metrics.score(sum(n for n, _ in parts) / len(parts) * sum(t for _, t in parts), sum(t for _, t in parts))


def _mean_perplexity(parts: list) -> metrics.Score:
    tokens = sum(t for _, t in parts)
    right = metrics.pooled(parts)
    return right._replace(perplexity=sum(np.exp(n) * t for n, t in parts) / tokens)


def _rank(log_probs: np.ndarray) -> np.ndarray:
    """0 for each row's most probable token, 1 for the next, ..."""
    return np.argsort(np.argsort(-log_probs, axis=1, kind="stable"), axis=1)


def _nucleus(log_probs: np.ndarray, p: float, include: bool = True, normalise: bool = True) -> np.ndarray:
    order = np.argsort(-log_probs, axis=1)
    total = np.exp(np.take_along_axis(log_probs, order, axis=1)).cumsum(axis=1)
    total -= np.exp(np.take_along_axis(log_probs, order, axis=1)) if include else 0
    kept = np.full_like(log_probs, -np.inf)
    np.put_along_axis(kept, order, np.where(total < p, np.take_along_axis(log_probs, order, axis=1), -np.inf), axis=1)
    return layers.log_softmax(kept) if normalise else kept


def _over_p(p: float) -> Callable:
    return lambda log_probs: layers.log_softmax(np.where(log_probs >= np.log(p), log_probs, -1e9))


LANGUAGE_EXERCISES: dict[str, Exercise] = {
    "perplexity": Exercise(
        "0.1",
        metrics.perplexity,
        lambda rng: (rng.uniform(0.1, 5),),
        [
            ("nats are logarithms to base e, not 2: e^nats", lambda nats: 2**nats),
            ("that is the probability of a typical token; perplexity is its inverse", lambda nats: np.exp(-nats)),
        ],
        arguments="nats",
    ),
    "bits_per_character": Exercise(
        "1.1",
        metrics.bits_per_character,
        lambda rng: (rng.uniform(0.1, 5),),
        [
            ("one nat is more than one bit: divide by ln 2", lambda nats: nats * np.log(2)),
            ("log2 of the nats is not the nats in bits: the logarithm is already taken", lambda nats: np.log2(nats)),
        ],
        arguments="nats",
    ),
    "log_softmax": Exercise(
        "1.2",
        layers.log_softmax,
        _logits,
        [
            ("e^1000 is infinite: subtract each row's maximum first", lambda a: a - np.log(np.exp(a).sum(-1, keepdims=True))),
            ("normalise over the last axis: each row is one distribution", lambda a: layers.log_softmax(a.T).T),
            ("these are probabilities; their logarithm is asked for", lambda a: np.exp(layers.log_softmax(a))),
        ],
        arguments="logits",
    ),
    "pooled": Exercise(
        "1.3",
        metrics.pooled,
        lambda rng: ([(rng.uniform(0.5, 4), int(rng.integers(1, 1000))) for _ in range(rng.integers(2, 5))],),
        [
            ("a text of 10 tokens must not count as much as one of 1000: weight by tokens", _mean_of_means),
            ("average the nats first, then exponentiate: perplexities cannot be averaged", _mean_perplexity),
        ],
        arguments="parts",
    ),
    "witten_bell_table": Exercise(
        "1.4",
        _witten_bell_table,
        _counts_problem,
        [
            ("that adds 1 to every count: the fall-back must follow the shorter context instead", _add_one),
            ("a context that never occurred says nothing: it passes `shorter` on", _unseen_context_is_zero),
            ("u(c) belongs to one context: count the non-zero entries of each row", _one_shared_weight),
        ],
        arguments="counts shorter",
    ),
    "temperature": Exercise(
        "6.1",
        decoding.temperature,
        _filter_problem(lambda rng: rng.choice([0.1, rng.uniform(0.3, 3)])),
        [
            ("the result must be log-probabilities again: normalise after dividing", lambda t: lambda lp: lp / t),
            ("divide by t: a low temperature sharpens", lambda t: lambda lp: layers.log_softmax(lp * t)),
        ],
        call=_apply_filter,
        arguments="t log_probs",
        usage="function(t)(log_probs)",
        outputs="log_probs",
    ),
    "top_k": Exercise(
        "6.2",
        decoding.top_k,
        _filter_problem(lambda rng: int(rng.choice([1, 1, 2, 3, 4, 5, 6, 7, 8]))),
        [
            ("the kept ones must sum to 1 again: normalise", lambda k: lambda lp: np.where(_rank(lp) < k, lp, -np.inf)),
            ("those are the k least probable", lambda k: lambda lp: layers.log_softmax(np.where(_rank(-lp) < k, lp, -np.inf))),
            ("one too many: exactly k are kept", lambda k: decoding.top_k(k + 1)),
        ],
        call=_apply_filter,
        arguments="k log_probs",
        usage="function(k)(log_probs)",
        outputs="log_probs",
    ),
    "top_p": Exercise(
        "6.3",
        decoding.top_p,
        _filter_problem(lambda rng: rng.choice([1.0, 0.97, *rng.uniform(0.1, 0.95, 4)])),
        [
            ("the token that carries the sum past p belongs to the set", lambda p: lambda lp: _nucleus(lp, p, include=False)),
            ("the kept ones must sum to 1 again: normalise", lambda p: lambda lp: _nucleus(lp, p, normalise=False)),
            ("that keeps every token of probability at least p (or none): add them up, best first", _over_p),
        ],
        call=_apply_filter,
        arguments="p log_probs",
        usage="function(p)(log_probs)",
        outputs="log_probs",
    ),
    "batches": Exercise(
        "6.4",
        datasets.batches,
        _batches_problem,
        [
            ("column n must go on in the next batch: cut the text into N long streams first", _rows_as_streams),
            ("the target is the next token, not the same one", _unshifted),
        ],
        call=_all_batches,
        arguments="tokens batch_size steps",
    ),
}
