"""The exercises of lesson 12: a held mask, a running mean of weights, the gradient of a shared batch, a scan by doubling.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

import numpy as np

from course_lib.exercise_book import Exercise, slips
from course_lib.rnn_book import draw, upstream


def held_dropout(x: np.ndarray, keep: np.ndarray, rate: float) -> np.ndarray:
    """Drop the same entries of a stream at every time step, and scale the others so that the mean stays.

    Args:     x: (T, N, D). keep: (N, D), True where an entry stays. rate: the share dropped on average, in [0, 1).
    Returns:  (T, N, D).
    Reference: Gal & Ghahramani 2016.
    """
    mask = keep / (1 - rate)
    return x * mask[None]


def running_mean(history: np.ndarray, decay: float) -> np.ndarray:
    """The exponential running mean of weights after a run; it begins with the first ones.

    Args:     history: (K, P), the P weights after each of K steps. decay: the share of the old mean that stays.
    Returns:  (P,).
    """
    mean = history[0].copy()
    for weights in history[1:]:
        mean = decay * mean + (1 - decay) * weights
    return mean


def joint_gradient(gradients: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The gradient of the mean loss of all tokens, from the processes' gradients of the mean over their own tokens.

    Args:     gradients: (R, P), one row a process. counts: (R,), its tokens.
    Returns:  (P,).
    """
    shares = counts / counts.sum()
    return (shares[:, None] * gradients).sum(axis=0)


def scan_doubling(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """h_t = a_t h_{t-1} + b_t from h_0 = 0, in rounds: after each, a row covers twice as many steps.

    Args:     a, b: (T, H).
    Returns:  h_1 to h_T, (T, H).
    Reference: Hillis & Steele 1986.
    """
    d = 1
    while d < len(a):
        b, a = np.concatenate([b[:d], b[d:] + a[d:] * b[:-d]]), np.concatenate([a[:d], a[d:] * a[:-d]])
        d = 2 * d
    return b


def _for_held(rng: np.random.Generator) -> tuple:
    """T, N and D differ or are all equal: then a mask on the wrong axes fits."""
    T, N, D = map(int, rng.permutation([2, 3, 4]) if rng.random() < 0.5 else [4, 4, 4])
    keep = rng.random((N, D)) < 0.6
    keep.flat[:2] = rng.permutation([True, False])  # there is something to drop, and something to keep
    return rng.normal(1, 2, (T, N, D)), keep, float(rng.uniform(0.1, 0.8))


def _for_mean(rng: np.random.Generator) -> tuple:
    return draw(rng, (int(rng.integers(2, 9)), int(rng.integers(1, 5))))[0], float(rng.uniform(0.2, 0.95))


def _for_joint(rng: np.random.Generator) -> tuple:
    R = int(rng.integers(2, 6))
    return upstream(rng, (R, int(rng.integers(1, 5)))), rng.permutation(np.arange(1, 2 * R, 2) * rng.integers(1, 40))


def _for_scan(rng: np.random.Generator) -> tuple:
    """Any length, gates of both signs, and now and then one of 0, by which nothing can be divided."""
    a, b = draw(rng, *[(int(rng.integers(1, 14)), int(rng.integers(1, 4)))] * 2)
    return a * (rng.random(a.shape) < rng.choice([1, 0.8])), b


_ROUND = "np.concatenate([b[:d], b[d:] + a[d:] * b[:-d]]), np.concatenate([a[:d], a[d:] * a[:-d]])"
_NEXT = "mean = decay * mean + (1 - decay) * weights"

SCALING_EXERCISES: dict[str, Exercise] = {
    "held_dropout": Exercise(
        "12.1",
        held_dropout,
        _for_held,
        [
            *slips(
                held_dropout,
                ("what stays is not scaled: the mean shrinks by 1 - rate", "keep / (1 - rate)", "keep"),
                ("divide by 1 - rate: multiplied, the mean shrinks twice", "keep / (1 - rate)", "keep * (1 - rate)"),
                ("rate is the share that is dropped: divide by what stays, 1 - rate", "(1 - rate)", "rate"),
                ("keep says what stays; that drops it", "keep / (1 - rate)", "~keep / (1 - rate)"),
                ("divide by the expected share that stays, 1 - rate, not by that of this mask", "(1 - rate)", "keep.mean()"),
                ("the mask is held: every time step has it, not the first alone",
                 "x * mask[None]", "np.concatenate([x[:1] * mask, x[1:]])"),
                ("the mask has the axes (N, D): it is held over time, not over the streams",
                 "mask[None]", "np.resize(mask, (len(x), x.shape[2]))[:, None]"),
                ("each stream has a mask of its own, not that of the first", "mask[None]", "mask[:1]"),
                ("applied at every step anew, a mask's scale would grow with t: x already is the input of each step",
                 "mask[None]", "mask[None] ** np.arange(1, len(x) + 1)[:, None, None]"),
                ("a dropped entry is 0", "x * mask[None]", "np.where(keep, x / (1 - rate), x)"),
            ),
        ],
        arguments="x keep rate", outputs="y",
    ),
    "running_mean": Exercise(
        "12.2",
        running_mean,
        _for_mean,
        [
            *slips(
                running_mean,
                ("decay is the share of the old mean, 1 - decay that of the new weights",
                 _NEXT, "mean = (1 - decay) * mean + decay * weights"),
                ("the mean begins with the first weights, not with 0", "history[0].copy()", "0 * history[0]",
                 "history[1:]", "history"),
                ("the first weights are the beginning, and not a step", "history[1:]", "history[:-1]"),
                ("those are the last weights: nothing is averaged", _NEXT, "mean = weights"),
                ("that is the plain mean: the first, bad weights count as much as the last",
                 _NEXT, "mean = history.mean(axis=0)"),
                ("that is one step: the sum of the shares is no longer 1", _NEXT, "mean = decay * mean + weights"),
                ("each step starts from the mean of the step before, not from the first weights",
                 _NEXT, "mean = decay * history[0] + (1 - decay) * weights"),
                ("the latest weights count most: that runs from the end", "history[0].copy()", "history[-1].copy()",
                 "history[1:]", "history[-2::-1]"),
                ("one mean for each weight: they must not be mixed", "weights\n", "weights.mean()\n"),
            ),
        ],
        arguments="history decay", outputs="mean",
    ),
    "joint_gradient": Exercise(
        "12.3",
        joint_gradient,
        _for_joint,
        [
            *slips(
                joint_gradient,
                ("a process with few tokens must not count as much as one with many: weigh by counts",
                 "counts / counts.sum()", "np.full(len(counts), 1 / len(counts))"),
                ("a sum of means is too large: divide by the number of all tokens",
                 "counts / counts.sum()", "np.ones(len(counts))"),
                ("that is the gradient of the summed loss: divide by all tokens", "counts / counts.sum()", "counts"),
                ("divide by the number of all tokens, not of processes", "counts.sum()", "len(counts)"),
                ("divide by all tokens, not by the largest count", "counts.sum()", "counts.max()"),
                ("more tokens, more weight: not the inverse",
                 "counts / counts.sum()", "(1 / counts) / (1 / counts).sum()"),
                ("gradients of a mean are given: to divide by the counts once more gives small shares the most",
                 "shares[:, None]", "1 / counts.sum() + 0 * shares[:, None]"),
                ("all processes are asked for, not the first alone", ".sum(axis=0)", "[0]"),
                ("a gradient has one entry a weight: sum over the processes, axis 0", "sum(axis=0)", "sum(axis=1)"),
            ),
        ],
        arguments="gradients counts", outputs="gradient",
    ),
    "scan_doubling": Exercise(
        "12.4",
        scan_doubling,
        _for_scan,
        [
            *slips(
                scan_doubling,
                ("the gates of a pair multiply: a must be composed as well, in each round",
                 ", np.concatenate([a[:d], a[d:] * a[:-d]])", ", a"),
                ("b is composed with the a of before the round: do not overwrite a first",
                 f"b, a = {_ROUND}",
                 "a = np.concatenate([a[:d], a[d:] * a[:-d]]); b = np.concatenate([b[:d], b[d:] + a[d:] * b[:-d]])"),
                ("the later step's gate multiplies what came before it: a[d:] * b[:-d], not a[:-d] * b[d:]",
                 "b[d:] + a[d:] * b[:-d]", "a[:-d] * b[d:] + b[:-d]"),
                ("the reach doubles: d = 2 d, not d + 1: rows are composed twice", "d = 2 * d", "d = d + 1"),
                ("one round covers two steps only: repeat until d reaches T", "d = 2 * d", "break"),
                ("one round too few: go on while d < T", "d < len(a)", "2 * d < len(a)"),
                ("gates multiply, they do not add", "a[d:] * a[:-d]", "a[d:] + a[:-d]"),
                ("that is a cumulative sum: the gate a is missing", "a[d:] * b[:-d]", "b[:-d]"),
                ("h is asked for, not the products of the gates", "return b", "return a"),
                ("all states are asked for, not the last", "return b", "return b[-1]"),
                ("a row's own b is lost", "b[d:] + a[d:]", "a[d:]"),
            ),
            (
                "a gate of 0 cannot be divided by: compose pairs instead of dividing by the products of gates",
                lambda a, b: a.cumprod(axis=0) * (b / a.cumprod(axis=0)).cumsum(axis=0),
            ),
        ],
        arguments="a b", outputs="h",
    ),
}  # fmt: skip
