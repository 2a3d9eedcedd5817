"""The exercise of lesson 07 on training in PyTorch: truncated back-propagation through time, window by window.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from course_lib.cells import LSTMParams, LSTMState
from course_lib.diagnosis import MisfitError
from course_lib.exercise_book import Exercise, slips
from course_lib.lstm_book import LSTM_ORDER
from course_lib.rnn_book import draw, sizes
from course_lib.tensor_call import as_state, counted, to_numpy, with_torch
from course_lib.trees import map_tree

if TYPE_CHECKING:
    from torch import Tensor


def train_windows(loss_of: Callable, windows: Sequence[Tensor], state: LSTMState) -> tuple[list[float], LSTMState]:
    """Truncated back-propagation through time: one backward pass a window, the state carried on without its history.

    Args:     loss_of: (window, state) -> (loss, next state). windows: one after another in time. state: before the first.
    Returns:  The loss of each window, and the final state, detached; the gradients add up in the parameters.
    """
    losses = []
    for window in windows:
        loss, state = loss_of(window, state)
        loss.backward()
        state = LSTMState(state.h.detach(), state.c.detach())
        losses.append(loss.item())
    return losses, state


def _windows(rng: np.random.Generator) -> tuple:
    T, N, D, H = sizes(rng)
    x, h, c, *weights = draw(rng, (rng.integers(2, 5), T, N, D), (N, H), (N, H), (4 * H, D), (4 * H, H), (4 * H,))
    return tuple(x), LSTMState(h, c), LSTMParams(*weights)


def _call_train(function: Callable, windows: tuple, state: LSTMState, params: LSTMParams) -> tuple | None:
    import torch

    from course_lib.torch_sequence import run_loop

    parameters = map_tree(lambda a: torch.from_numpy(a).requires_grad_(), params)
    calls, waiting, most = 0, set(), 0  # waiting: windows that no backward pass has reached

    def loss_of(window: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        nonlocal calls, most
        if state is None:
            raise MisfitError("loss_of(window, state): expected the pair (h, c) as state, got None")
        hs, final = run_loop(window, as_state("loss_of(window, state): state", state), parameters)
        loss, calls = hs.square().sum(), calls + 1
        waiting.add(number := calls)
        most = max(most, len(waiting))
        if loss.requires_grad:
            loss.register_hook(lambda _: waiting.discard(number))
        return loss, final

    with torch.inference_mode(False), torch.enable_grad():
        result = function(loss_of, [torch.from_numpy(w) for w in windows], map_tree(torch.from_numpy, state))
    if result is None:
        return None
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise MisfitError(f"it must return (losses, (h, c)), got {counted(result)}")
    losses, final = result[0], as_state("final", result[1])
    if isinstance(losses, list | tuple):
        losses = np.array([loss.detach() if isinstance(loss, torch.Tensor) else loss for loss in losses])
    grads = map_tree(lambda p: np.zeros(p.shape) if p.grad is None else p.grad.numpy(), parameters)
    attached = final and sum(part is not None and part.requires_grad for part in final)
    return losses, to_numpy(final), grads, most, attached


_DETACH = "state = LSTMState(state.h.detach(), state.c.detach())"

WINDOW_EXERCISES: dict[str, Exercise] = {
    "train_windows": Exercise(
        "7.4",
        train_windows,
        with_torch(_windows),
        [
            *slips(
                train_windows,
                ("the state still hangs on the last window's graph: carry h.detach() and c.detach(); retain_graph is no cure",
                 _DETACH, "pass"),
                ("retain_graph=True without detach: the gradient runs through all earlier windows, and their memory stays",
                 _DETACH, "pass", "backward()", "backward(retain_graph=True)"),
                ("h is detached and C is not: the gradient goes on along C",
                 _DETACH, "state = LSTMState(state.h.detach(), state.c)", "backward()", "backward(retain_graph=True)"),
                ("C is detached and h is not: the gradient goes on through h",
                 _DETACH, "state = LSTMState(state.h, state.c.detach())", "backward()", "backward(retain_graph=True)"),
                ("each window starts from zeros: only the gradient is cut, the values of the state are carried",
                 "loss_of(window, state)", "loss_of(window, LSTMState(0 * state[0], 0 * state[1]))"),
                ("each window starts from the first state: carry what loss_of returns",
                 "losses = []", "losses, first = [], state", "loss_of(window, state)", "loss_of(window, first)"),
                ("the state is replaced by zeros after each window: keep its values, drop its history",
                 "state.h.detach(), state.c.detach()", "0 * state.h.detach(), 0 * state.c.detach()"),
                ("nobody calls backward: the parameters have no gradient", "loss.backward()", "pass"),
                ("the loss has no graph: no detach() before backward, no no_grad around loss_of",
                 "loss.backward()", "loss.detach().backward()"),
                ("one backward of the sum at the end: the gradient is right, but all windows' graphs are in memory at once",
                 "loss.backward()", "pass", "loss.item()", "loss", "return losses,", "sum(losses).backward(); return losses,"),
                ("one backward of the sum at the end, and no detach: that is full back-propagation through time",
                 _DETACH, "pass", "loss.backward()", "pass", "loss.item()", "loss",
                 "return losses,", "sum(losses).backward(); return losses,"),
                ("every window has a loss of its own: that calls backward for the last one alone",
                 "loss.backward()", "window is windows[-1] and loss.backward()"),
                ("call backward on this window's loss alone: the running sum counts the earlier ones again",
                 "loss.backward()", "sum(losses, loss).backward(retain_graph=True)", "loss.item()", "loss"),
                ("the losses are not divided by the number of windows", "loss.backward()", "(loss / len(windows)).backward()"),
                ("the final state is still in the graph: detach after each window, the last one included",
                 "loss_of(window, state)", "loss_of(window, LSTMState(state[0].detach(), state[1].detach()))", _DETACH, "pass"),
                ("return the state after the last window, not the first one",
                 "losses = []", "losses, first = [], state", "return losses, state", "return losses, first"),
                ("a loss for each window is asked for, not their sum", "return losses", "return sum(losses)"),
            ),
        ],
        call=_call_train, arguments="windows state params", usage="train_windows(loss_of, windows, state)",
        outputs="losses final dparams graphs_at_once attached", gates=LSTM_ORDER,
    ),
}  # fmt: skip
