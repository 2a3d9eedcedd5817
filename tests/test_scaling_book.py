"""The exercises of lesson 12: what is expected is recomputed, right answers in many ways pass, and what is wrong is said."""

import numpy as np
import pytest
import torch

from course_lib.exercises import EXERCISES, check
from course_lib.scaling_book import SCALING_EXERCISES, held_dropout, joint_gradient, running_mean, scan_doubling
from course_lib.torch_scan import scan_loop

TRIALS = range(20)  # as many as a check looks at


def problems(name):
    return [EXERCISES[name].problem(np.random.default_rng(trial)) for trial in TRIALS]


def test_they_are_registered():
    numbers = {name: EXERCISES[name].number for name in SCALING_EXERCISES}
    assert numbers == {"held_dropout": "12.1", "running_mean": "12.2", "joint_gradient": "12.3", "scan_doubling": "12.4"}
    assert all(EXERCISES[name] is exercise and len(exercise.mistakes) >= 9 for name, exercise in SCALING_EXERCISES.items())


# The problems


def test_masks_keep_and_drop_and_are_sometimes_square():
    masks = [keep for _, keep, _ in problems("held_dropout")]
    assert all(keep.any() and not keep.all() for keep in masks)
    assert 4 <= sum(x.shape == (4, 4, 4) for x, _, _ in problems("held_dropout")) <= 16


def test_gates_are_zero_now_and_then_and_lengths_are_any():
    gates = [a for a, _ in problems("scan_doubling")]
    assert 2 <= sum((a == 0).any() for a in gates) <= 18 and any((a < 0).any() for a in gates)
    assert {1, 2} & {len(a) for a in gates} and max(map(len, gates)) > 8 and len({len(a) for a in gates}) > 6


def test_no_two_processes_have_as_many_tokens():
    assert all(len(set(counts)) == len(counts) == len(gradients) for gradients, counts in problems("joint_gradient"))


# What is expected, recomputed


def test_expected_dropout_by_loops():
    for x, keep, rate in problems("held_dropout"):
        for (t, n, d), y in np.ndenumerate(held_dropout(x, keep, rate)):
            assert y == pytest.approx(x[t, n, d] / (1 - rate) if keep[n, d] else 0)


def test_expected_mean_in_closed_form():
    for history, decay in problems("running_mean"):
        K = len(history)
        weights = np.array([decay ** (K - 1), *((1 - decay) * decay ** (K - 1 - k) for k in range(1, K))])
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(running_mean(history, decay), weights @ history, rtol=1e-10, atol=1e-12)


def test_expected_gradient_is_autograd_s_of_the_joint_batch():
    for trial in range(5):
        rng = np.random.default_rng(trial)
        counts = rng.integers(1, 9, 3)
        x, y = torch.from_numpy(rng.normal(size=(counts.sum(), 4))), torch.from_numpy(rng.normal(size=counts.sum()))
        w = torch.from_numpy(rng.normal(size=4)).requires_grad_()

        def gradient(rows, x=x, y=y, w=w):
            (found,) = torch.autograd.grad((torch.tanh(x[rows] @ w) - y[rows]).square().mean(), w)
            return found.numpy()

        parts = np.split(np.arange(counts.sum()), counts.cumsum()[:-1])
        found = joint_gradient(np.stack([gradient(rows) for rows in parts]), counts)
        np.testing.assert_allclose(found, gradient(slice(None)), rtol=1e-10)


def test_expected_states_are_those_of_the_loop():
    for a, b in problems("scan_doubling"):
        expected = scan_loop(torch.from_numpy(a), torch.from_numpy(b)).numpy()
        np.testing.assert_allclose(scan_doubling(a, b), expected, rtol=1e-10, atol=1e-12)


# Right in many ways


def dropout_by_loop(x, keep, rate):
    return np.stack([np.where(keep, x_t / (1 - rate), 0) for x_t in x])


def mean_by_difference(history, decay):
    mean = history[0] + 0
    for weights in history[1:]:
        mean += (1 - decay) * (weights - mean)
    return mean


def scan_by_loop(a, b):
    h, hs = 0 * b[0], []
    for t in range(len(b)):
        h = a[t] * h + b[t]
        hs.append(h)
    return hs


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("held_dropout", dropout_by_loop),
        ("held_dropout", lambda x, keep, rate: torch.from_numpy(x) * torch.from_numpy(keep) / (1 - rate)),
        ("running_mean", mean_by_difference),
        ("joint_gradient", lambda g, n: np.average(g, axis=0, weights=n)),
        ("joint_gradient", lambda g, n: n @ g / n.sum()),
        ("joint_gradient", lambda g, n: sum(n_r * g_r for n_r, g_r in zip(n, g, strict=True)) / sum(n)),
        ("scan_doubling", scan_by_loop),
        ("scan_doubling", lambda a, b: scan_loop(torch.from_numpy(a), torch.from_numpy(b))),
    ],
)
def test_right_in_many_ways(name, right):
    assert check(name, right).passed


# Wrong


def mean_in_place(history, decay):
    mean = history[0]
    for weights in history[1:]:
        mean *= decay
        mean += (1 - decay) * weights
    return mean


def scan_in_place(a, b):
    for t in range(1, len(b)):
        b[t] += a[t] * b[t - 1]
    return b


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("held_dropout", lambda x, keep, rate: x * keep, "hint: what stays is not scaled"),
        ("held_dropout", lambda x, keep, rate: x[0] * keep / (1 - rate), "y: expected shape"),
        ("held_dropout", lambda x, keep, rate: held_dropout(x, keep, rate / 2), "y is wrong"),
        ("running_mean", mean_in_place, "it changes its argument history"),
        ("running_mean", lambda w, d: w.mean(axis=0), "hint: that is the plain mean"),
        ("running_mean", lambda w, d: running_mean(w, d * 0.99), "mean is wrong"),
        ("joint_gradient", lambda g, n: g.mean(axis=0), "hint: a process with few tokens"),
        ("joint_gradient", lambda g, n: -joint_gradient(g, n), "the sign is wrong everywhere"),
        ("joint_gradient", lambda g, n: joint_gradient(np.clip(g, -9, 9), n), "gradient is wrong"),
        ("scan_doubling", scan_in_place, "it changes its argument b"),
        ("scan_doubling", lambda a, b: scan_doubling(abs(a), b), "h is wrong"),
        ("scan_doubling", lambda a, b: scan_doubling(a, b)[:-1], "h: expected shape"),
        ("scan_doubling", lambda a, b: a.cumprod(0) * (b / a.cumprod(0)).cumsum(0), "hint: a gate of 0 cannot be divided by"),
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)
