"""Training in windows: the gradient is that of NumPy cut at the borders, and whoever cuts elsewhere is told."""

import numpy as np
import pytest
import torch

from course_lib import sequence
from course_lib.cells import LSTMState
from course_lib.exercises import EXERCISES, check
from course_lib.trees import leaves, map_tree
from course_lib.window_book import train_windows

EXERCISE = EXERCISES["train_windows"]


@pytest.mark.parametrize("trial", range(5))
def test_expected_values_are_those_of_numpy(trial):
    windows, state, params = EXERCISE.problem(np.random.default_rng(trial))
    losses, final, dparams, at_once, attached = EXERCISE.call(EXERCISE.reference, windows, state, params)
    right, total = [], map_tree(np.zeros_like, params)
    for window in windows:
        hs, state, cache = sequence.lstm_forward(window, state, params)
        right.append((hs**2).sum())
        total = map_tree(np.add, total, sequence.lstm_backward(2 * hs, map_tree(np.zeros_like, state), cache)[2])
    for a, b in zip(leaves((losses, final, dparams)), leaves((np.array(right), state, total)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    assert (at_once, attached) == (1, 0)


def test_there_are_always_windows_enough():
    for trial in range(20):
        windows, state, _ = EXERCISE.problem(np.random.default_rng(trial))
        assert 2 <= len(windows) <= 4 and all(window.shape[1] == len(state.h) for window in windows)


def losses_as_a_tensor(loss_of, windows, state):
    losses = []
    for window in windows:
        loss, (h, c) = loss_of(window, state)
        loss.backward()
        losses.append(loss.detach())
        state = h.detach(), c.detach()
    return torch.stack(losses), state


def detached_before_each_window(loss_of, windows, state):
    losses = ()
    for window in windows:
        loss, state = loss_of(window, [part.detach() for part in state])
        torch.autograd.backward(loss)
        losses += (loss,)
    return losses, [part.data for part in state]


def detached_in_place(loss_of, windows, state):
    losses = torch.zeros(len(windows))
    for k in range(len(windows)):
        loss, state = loss_of(windows[k], state)
        losses[k] = loss.item()
        loss.backward()
        for part in state:
            part.detach_()
    return losses, state


def copied_without_gradient(loss_of, windows, state):
    losses = []
    for window in windows:
        loss, state = loss_of(window, state)
        loss.backward()
        with torch.no_grad():
            state = map_tree(torch.clone, state)
        losses.append(float(loss.detach()))
    return np.array(losses), state


@pytest.mark.parametrize(
    "train", [train_windows, losses_as_a_tensor, detached_before_each_window, detached_in_place, copied_without_gradient]
)
def test_many_ways_to_cut(train):
    assert check("train_windows", train).passed


def trained(loss_of, windows, state, after, backward=torch.Tensor.backward, before=lambda state: state):
    """The loop with its parts exchanged. after: of the state, once backward has run. before: of the state, for the loss."""
    losses = []
    for window in windows:
        loss, state = loss_of(window, before(state))
        backward(loss)
        state = after(state)
        losses.append(loss.item())
    return losses, state


def detach(state):
    return LSTMState(*(part.detach() for part in state))


def variant(**parts):
    return lambda loss_of, windows, state: trained(loss_of, windows, state, **{"after": detach} | parts)


def first_only(loss_of, windows, state):
    for window in windows:
        loss, state = loss_of(window, state)
        loss.backward()
        return [loss.item()], detach(state)


def zeroed(loss_of, windows, state):
    for part in state:
        part.zero_()
    return train_windows(loss_of, windows, state)


def no_grad(loss_of, windows, state):
    with torch.no_grad():
        return train_windows(loss_of, windows, state)


GRAPH = "hint: the state still hangs on the last window's graph: carry h.detach() and c.detach(); retain_graph is no cure"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (variant(after=lambda s: s), "raised RuntimeError: Trying to backward through the graph a second time"),
        (variant(after=lambda s: s), GRAPH),
        (variant(after=lambda s: (s.h.detach(), s.c)), GRAPH),
        (variant(after=lambda s: (s.h, s.c.detach())), GRAPH),
        (variant(after=lambda s: detach(s)._replace(h=detach(s).c, c=detach(s).h)), "losses is wrong"),
        (variant(after=lambda s: s.h.detach()), "loss_of(window, state): state: expected the pair (h, c), got one Tensor"),
        (variant(after=lambda s: map_tree(lambda p: p.detach().numpy(), s)), "state.h: expected a tensor, got ndarray"),
        (
            variant(after=lambda s: map_tree(lambda p: p.requires_grad_(), detach(s))),
            "  ✗ attached: worst entry: expected 0, got 2",
        ),
        (variant(before=lambda s: None), "loss_of(window, state): expected the pair (h, c) as state, got None"),
        (variant(backward=lambda loss: (2 * loss).backward()), "dparams.W_ih: all of it is 2 times"),
        (variant(backward=lambda loss: loss.item().backward()), "AttributeError: 'float' object has no attribute 'backward'"),
        (variant(backward=lambda loss: None), "hint: nobody calls backward"),
        (no_grad, "hint: the loss has no graph: no detach() before backward, no no_grad around loss_of"),
        (first_only, "  ✗ losses: expected shape (2,), got (1,)"),
        (zeroed, "  it changes its argument state"),
        (lambda *arguments: train_windows(*arguments)[0], "final: expected the pair (h, c), got one float"),
        (lambda *arguments: losses_as_a_tensor(*arguments)[0], "it must return (losses, (h, c)), got one Tensor"),
        (lambda loss_of, windows, state: train_windows(loss_of, windows[1:], state), "losses is wrong"),
        (lambda loss_of, windows, state: train_windows(loss_of, windows[::-1], state), "losses is wrong"),
        (lambda loss_of, windows, state: (None, state), "○ losses: not written yet"),
        (lambda loss_of, windows, state: (train_windows(loss_of, windows, state)[0], None), "○ final.h: not written yet"),
        (lambda windows, state: None, "it is called as train_windows(loss_of, windows, state)"),
    ],
)
def test_what_is_wrong_is_said(wrong, said):
    report = check("train_windows", wrong)
    assert not report.passed and said in "\n".join(report.lines)


def test_the_window_that_waits_is_counted():
    """Backward one window late: the gradient is right, and two graphs are alive."""

    def late(loss_of, windows, state):
        losses, waiting = [], []
        for window in windows:
            loss, state = loss_of(window, state)
            state = detach(state)
            losses.append(loss.item())
            waiting.append(loss)
            if len(waiting) > 1:
                waiting.pop(0).backward()
        waiting.pop().backward()
        return losses, state

    lines = check("train_windows", late).lines
    assert "  ✗ graphs_at_once: worst entry: expected 1, got 2" in lines and "  ✓ dparams.W_ih" in lines


def test_each_backward_frees_its_own_window():
    def first_early_others_at_the_end(loss_of, windows, state):
        losses = []
        for window in windows:
            loss, state = loss_of(window, state)
            state = detach(state)
            losses.append(loss)
            if len(losses) == 2:
                losses[0].backward()
        sum(losses[1:]).backward()
        return losses, state

    windows, state, params = EXERCISE.problem(np.random.default_rng(0))
    windows = tuple(np.random.default_rng(0).normal(size=(5, *windows[0].shape)))
    assert EXERCISE.call(first_early_others_at_the_end, windows, state, params)[3:] == (4, 0)
