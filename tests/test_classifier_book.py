"""What a classifier reads, and what it confuses: right answers in many ways, and what is wrong with others."""

import numpy as np
import pytest
import torch

from course_lib.classifier_book import confusion, last_real_step
from course_lib.exercises import EXERCISES, check


@pytest.mark.parametrize(
    "last",
    [
        last_real_step,
        lambda hs, n: hs.gather(0, (n - 1)[None, :, None].expand(1, -1, hs.shape[2]))[0],
        lambda hs, n: torch.take_along_dim(hs, (n - 1)[None, :, None], 0).squeeze(0),
        lambda hs, n: torch.stack([hs[length - 1, k] for k, length in enumerate(n.tolist())]),
        lambda hs, n: (hs * (torch.arange(len(hs))[:, None] == n - 1)[..., None]).sum(0),
        lambda hs, n: hs.transpose(0, 1)[torch.arange(hs.shape[1]), n - 1],
        lambda hs, n: torch.einsum("tn,tnh->nh", torch.nn.functional.one_hot(n - 1, len(hs)).T.double(), hs),
        lambda hs, n: hs[n - 1].diagonal(dim1=0, dim2=1).T,
    ],
    ids=["index", "gather", "take_along_dim", "stack", "mask", "batch first", "einsum", "diagonal"],
)
def test_last_steps_in_many_ways(last):
    assert check("last_real_step", last).passed


def test_expected_gradient_arrives_at_the_last_real_steps_alone():
    exercise = EXERCISES["last_real_step"]
    for trial in range(20):
        hs, lengths = exercise.problem(np.random.default_rng(trial))
        assert lengths.min() >= 1 and lengths.max() == len(hs) and hs.all()
        last, dhs = exercise.call(exercise.reference, hs, lengths)
        real = np.arange(len(hs))[:, None] == lengths - 1
        np.testing.assert_array_equal(last, (hs * real[..., None]).sum(0))
        assert ((dhs != 0).all(2) == real).all()


@pytest.mark.parametrize(
    "count",
    [
        confusion,
        lambda y, p, k: np.bincount(y * k + p, minlength=k * k).reshape(k, k),
        lambda y, p, k: np.histogram2d(y, p, bins=(range(k + 1), range(k + 1)))[0],
        lambda y, p, k: np.eye(k)[y].T @ np.eye(k)[p],
        lambda y, p, k: [[int(((y == i) & (p == j)).sum()) for j in range(k)] for i in range(k)],
        lambda y, p, k: torch.zeros(k, k).index_put(tuple(map(torch.from_numpy, (y, p))), torch.tensor(1.0), accumulate=True),
    ],
    ids=["add.at", "bincount", "histogram", "one-hot", "loops", "torch"],
)
def test_confusion_in_many_ways(count):
    assert check("confusion", count).passed


def test_now_and_then_a_class_does_not_occur():
    problems = [EXERCISES["confusion"].problem(np.random.default_rng(trial)) for trial in range(20)]
    absent = [max(*labels, *predicted) < classes - 1 for labels, predicted, classes in problems]
    assert 4 <= sum(absent) <= 16
    assert all((labels != predicted).any() and len(labels) > classes**2 / 2 for labels, predicted, classes in problems)


def written_into(hs, lengths):
    lengths -= 1
    return hs[lengths, torch.arange(len(lengths))]


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("last_real_step", lambda hs, n: hs[n, torch.arange(len(n))], "IndexError"),
        ("last_real_step", lambda hs, n: hs[n, torch.arange(len(n))], "hint: steps are counted from 0: the last real one is"),
        ("last_real_step", lambda hs, n: hs[n.max() - 1], "hint: hs[-1] is padding"),
        ("last_real_step", lambda hs, n: last_real_step(hs, n).T, "is it the transpose?"),
        ("last_real_step", lambda hs, n: last_real_step(hs, n)[None], "expected shape (4, 3), got (1, 4, 3)"),
        ("last_real_step", lambda hs, n: list(last_real_step(hs, n)), "last: expected a tensor, got list"),
        ("last_real_step", lambda hs, n: last_real_step(hs, n).detach().numpy(), "last: expected a tensor, got ndarray"),
        ("last_real_step", lambda hs, n: torch.tensor(last_real_step(hs, n).tolist()).double(), "receives no gradient"),
        ("last_real_step", lambda hs, n: last_real_step(hs, n).tanh(), "last is wrong"),
        ("last_real_step", lambda hs, n: hs[-n, torch.arange(len(n))], "last is wrong"),
        ("last_real_step", written_into, "it changes its argument lengths"),
        ("confusion", lambda y, p, k: (y == p).mean(), "expected shape (5, 5), got ()"),
        ("confusion", lambda y, p, k: confusion(y, p, k)[::-1], "counts is wrong"),
        ("confusion", lambda y, p, k: confusion(y, p, k) * (1 - np.eye(k)), "counts is wrong"),
        ("confusion", lambda y, p, k: confusion(y, p, k) + confusion(p, y, k), "counts is wrong"),
        ("confusion", lambda y, p, k: np.bincount(y * k + p).reshape(k, k), "ValueError: cannot reshape array"),
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)
