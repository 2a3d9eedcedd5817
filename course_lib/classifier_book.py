"""The exercises of lesson 08 on a classifier: what it reads of a stream, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.exercise_book import Exercise, slips
from course_lib.metrics import confusion
from course_lib.rnn_book import draw, sizes
from course_lib.tensor_call import as_tensor, differentiated, with_torch

if TYPE_CHECKING:
    from torch import Tensor


def last_real_step(hs: Tensor, lengths: Tensor) -> Tensor:
    """What a classifier reads: the output after each stream's last step that is not padding.

    Args:     hs: (T, N, H); beyond a stream's length it may hold anything. lengths: (N,) integers, at least 1.
    Returns:  (N, H).
    """
    import torch

    return hs[lengths - 1, torch.arange(len(lengths))]


def _outputs_and_lengths(rng: np.random.Generator) -> tuple:
    T, N, _, H = sizes(rng)
    lengths = rng.integers(1, T + 1, N)
    lengths[rng.integers(N)] = T  # the longest stream is why hs has T steps
    return *draw(rng, (T, N, H)), lengths


def _labels(rng: np.random.Generator) -> tuple:
    classes = int(rng.integers(3, 6))
    used = classes - int(rng.integers(2))  # now and then the last class does not occur
    labels = rng.integers(0, used, rng.integers(20, 60))
    predicted = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(0, used, len(labels)))
    return labels, predicted, classes


def _call_last(function: Callable, *arguments: Any) -> tuple | None:
    return differentiated(function, arguments, lambda result: (as_tensor("last", result),))


CLASSIFIER_EXERCISES: dict[str, Exercise] = {
    "last_real_step": Exercise(
        "8.2",
        last_real_step,
        with_torch(_outputs_and_lengths),
        [
            *slips(
                last_real_step,
                ("hs[-1] is padding for all streams but the longest", "hs[lengths - 1, torch.arange(len(lengths))]", "hs[-1]"),
                ("steps are counted from 0: the last real one is lengths - 1", "lengths - 1", "lengths"),
                ("steps are counted from 0: lengths - 1, not lengths - 2", "lengths - 1", "lengths - 2"),
                ("the first axis of hs is time, the second the stream: they are exchanged",
                 "hs[lengths - 1, torch.arange(len(lengths))]", "hs[torch.arange(len(lengths)), lengths - 1]"),
                ("each length belongs to its stream: hs[lengths - 1] alone takes all streams at each of those steps",
                 "hs[lengths - 1, torch.arange(len(lengths))]", "hs[lengths - 1]"),
                ("hs is time-major: hs[:, -1] is the last stream", "hs[lengths - 1, torch.arange(len(lengths))]", "hs[:, -1]"),
                ("one step is asked for, not the mean, and least of all that over the padding",
                 "hs[lengths - 1, torch.arange(len(lengths))]", "hs.mean(0)"),
                ("one step is asked for, not the mean over the real ones",
                 "return hs[lengths - 1, torch.arange(len(lengths))]",
                 "real = torch.arange(len(hs))[:, None] < lengths; return (hs * real[..., None]).sum(0) / lengths[:, None]"),
                ("one step is asked for, not the sum", "hs[lengths - 1, torch.arange(len(lengths))]", "hs.sum(0)"),
                ("one step is asked for, not the largest value of any",
                 "hs[lengths - 1, torch.arange(len(lengths))]", "hs.max(0).values"),
                ("that is the first step", "lengths - 1", "0 * lengths"),
                ("the network behind hs receives no gradient: no detach(), .data or torch.tensor",
                 "len(lengths))]", "len(lengths))].detach()"),
            ),
        ],
        call=_call_last, arguments="hs lengths", outputs="last dhs",
    ),
    "confusion": Exercise(
        "8.3",
        confusion,
        _labels,
        [
            *slips(
                confusion,
                ("the row is the true class, the column the predicted one: they are exchanged",
                 "(labels, predicted), 1", "(predicted, labels), 1"),
                ("counts[labels, predicted] += 1 counts a pair that occurs twice only once: np.add.at, or a loop",
                 "np.add.at(counts, (labels, predicted), 1)", "counts[labels, predicted] += 1"),
                ("counts[labels] is a copy: what is added to it is lost; one index, [labels, predicted]",
                 "np.add.at(counts, (labels, predicted), 1)", "counts[labels][:, predicted] += 1"),
                ("counts are asked for, not shares of all", "return counts", "return counts / len(labels)"),
                ("counts are asked for, not shares of a row: a class that never occurs would be 0 / 0",
                 "return counts", "return counts / counts.sum(axis=1, keepdims=True)"),
                ("counts are asked for, not shares of a row",
                 "return counts", "return counts / counts.sum(axis=1, keepdims=True).clip(1)"),
                ("the mistakes count too, beside the diagonal", "return counts", "return np.diag(np.diag(counts))"),
                ("a class that does not occur has a row and a column of zeros: the size is `classes`",
                 "np.zeros((classes, classes)", "np.zeros((max(*labels, *predicted) + 1,) * 2"),
            ),
        ],
        arguments="labels predicted classes", outputs="counts",
    ),
}  # fmt: skip
