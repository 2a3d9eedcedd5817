"""The exercises of lesson 07 on the forward pass of an LSTM in PyTorch: as a module, hoisted, masked.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.cells import LSTMParams, LSTMState
from course_lib.diagnosis import MisfitError
from course_lib.exercise_book import Exercise, slips
from course_lib.lstm_book import LSTM_ORDER, swapped
from course_lib.rnn_book import draw, sizes
from course_lib.tensor_call import as_state, as_tensor, count_products, counted, differentiated, with_torch

if TYPE_CHECKING:
    from torch import Tensor


def module_forward(self: Any, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """The ``forward`` of a module with one LSTM layer, step by step.

    Args:     self: it has W_ih (4H, D), W_hh (4H, H), b (4H,), rows i, f, g, o. x: (T, N, D). state: h and c, (N, H) each.
    Returns:  hs (T, N, H), and the final state.
    """
    import torch

    (h, c), hs = state, []
    for x_t in x:
        a = x_t @ self.W_ih.T + h @ self.W_hh.T + self.b
        i, f, g, o = a.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hs.append(h)
    return torch.stack(hs), LSTMState(h, c)


def cell(a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c after a step, from the sum a (N, 4H) that the gates see and the old c (N, H)."""
    i, f, g, o = a.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def hoisted_forward(x: Tensor, state: LSTMState, params: LSTMParams) -> tuple[Tensor, LSTMState]:
    """The same, with the input product of all steps taken as one product before the loop."""
    import torch

    a = x @ params.W_ih.T + params.b
    (h, c), hs = state, []
    for a_t in a:
        h, c = cell(a_t + h @ params.W_hh.T, c)
        hs.append(h)
    return torch.stack(hs), LSTMState(h, c)


def masked_forward(x: Tensor, state: LSTMState, params: LSTMParams, lengths: Tensor) -> tuple[Tensor, LSTMState]:
    """The same for streams of ``lengths`` (N,) steps, padded on the right: padding changes no state, output (0) or gradient."""
    import torch

    (h, c), hs = state, []
    for t, a_t in enumerate(x @ params.W_ih.T + params.b):
        new_h, new_c = cell(a_t + h @ params.W_hh.T, c)
        real = (t < lengths)[:, None]
        h, c = new_h.where(real, h), new_c.where(real, c)
        hs.append(h * real)
    return torch.stack(hs), LSTMState(h, c)


def _sequence(rng: np.random.Generator) -> tuple:
    T, N, D, H = sizes(rng)
    x, h, c, *weights = draw(rng, (T, N, D), (N, H), (N, H), (4 * H, D), (4 * H, H), (4 * H,))
    return x, LSTMState(h, c), LSTMParams(*weights)


def _countable(rng: np.random.Generator) -> tuple:
    while True:  # a sum over one entry is no product that could be counted
        x, state, params = _sequence(rng)
        if x.shape[2] > 1:
            return x, state, params


def _padded(rng: np.random.Generator) -> tuple:
    x, state, params = _sequence(rng)
    T, N = x.shape[:2]
    special, others = rng.permutation([T, 1, 0]), rng.integers(0, T + 1, N)
    return x, state, params, rng.permutation(np.concatenate([special, others])[:N])


def _hs_and_final(result: Any) -> tuple:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise MisfitError(f"it must return (hs, (h, c)), got {counted(result)}")
    return as_tensor("hs", result[0]), as_state("final", result[1])


def _call(function: Callable, *arguments: Any) -> tuple | None:
    return differentiated(function, arguments, _hs_and_final)


def _call_on_module(function: Callable, *arguments: Any) -> tuple | None:
    import torch

    def forward(x: Tensor, state: LSTMState, params: LSTMParams) -> Any:
        module = torch.nn.Module()
        for name, parameter in params._asdict().items():
            module.register_parameter(name, parameter)
        return function(module, x, state)

    return _call(forward, *arguments)


def _call_and_count(function: Callable, x: np.ndarray, *others: Any) -> tuple | None:
    count = 0

    def watched(*arguments: Any) -> Any:
        nonlocal count
        result, count = count_products(lambda: function(*arguments), x.shape[2])
        return result

    result = _call(watched, x, *others)
    return result and (*result, count)


_REAL = "(torch.arange(len(x))[:, None] < lengths)[..., None]"  # (T, N, 1)

TORCH_EXERCISES: dict[str, Exercise] = {
    "module_forward": Exercise(
        "7.1",
        module_forward,
        with_torch(_sequence),
        [
            *swapped(module_forward, "i, f, g, o = a", LSTM_ORDER),
            *slips(
                module_forward,
                ("the candidate goes through tanh, not σ", "g.tanh()", "g.sigmoid()"),
                ("h = o tanh(C): the tanh is missing", "* c.tanh()", "* c"),
                ("each step starts from the state that the step before has left",
                 "h @ self", "state[0] @ self", "() * c +", "() * state[1] +"),
                ("the cell state is carried as well as h", "() * c +", "() * state[1] +"),
                ("start from the state that is given, not from zeros", "= state, []", "= [0 * part for part in state], []"),
                ("start from the state that is given; zeros of torch.zeros have a dtype and a device of their own besides",
                 "= state, []", "= [torch.zeros(part.shape) for part in state], []"),
                ("the bias is missing", " + self.b", ""),
                ("the gates read the previous h as well: the product with W_hh is missing", " + h @ self.W_hh.T", ""),
                ("hs[t] is the state after step t, not before", "stack(hs)", "stack([state[0], *hs[:-1]])"),
                ("the output of a step is h, not C", "hs.append(h)", "hs.append(c)"),
                ("the final state is (h, c), in this order", "LSTMState(h, c)", "LSTMState(c, h)"),
                ("return the state after the last step, not the one that was given", "LSTMState(h, c)", "LSTMState(*state)"),
                ("x is time-major, (T, N, D): walk along its first axis", "in x:", "in x.transpose(0, 1):"),
                ("detach() in the loop ends back-propagation at every step: nothing comes through h_{t-1}",
                 "h @ self", "h.detach() @ self"),
                ("detach() on C cuts the path along the cell state", "() * c +", "() * c.detach() +"),
                ("detach() in the loop ends back-propagation at every step: nothing comes from the step before",
                 "h @ self", "h.detach() @ self", "() * c +", "() * c.detach() +"),
                ("hs is cut off from the graph: collect h itself, not h.detach() or h.data", "append(h)", "append(h.detach())"),
                ("the final state is cut off from the graph: detach() is for whoever carries it on, not for forward",
                 "LSTMState(h, c)", "LSTMState(h.detach(), c.detach())"),
                ("the weights receive no gradient: take self.W_ih itself, not .data, .detach() or a copy by torch.tensor",
                 "x_t @ self.W_ih.T + h @ self.W_hh.T + self.b",
                 "x_t @ self.W_ih.data.T + h @ self.W_hh.data.T + self.b.data"),
                ("W_ih receives no gradient: take self.W_ih itself", "self.W_ih.T", "self.W_ih.data.T"),
                ("W_hh receives no gradient: take self.W_hh itself", "self.W_hh.T", "self.W_hh.data.T"),
                ("b receives no gradient: take self.b itself", "self.b\n", "self.b.data\n"),
                ("x receives no gradient: torch.tensor(x), x.data and x.numpy() are copies without history",
                 "in x:", "in x.detach():"),
                ("nothing receives a gradient: it ran under no_grad, or its results were detached",
                 "stack(hs), LSTMState(h, c)", "stack(hs).detach(), LSTMState(h.detach(), c.detach())"),
            ),
        ],
        call=_call_on_module, arguments="x state params", usage="forward(self, x, state), self a module of the check",
        outputs="hs final dx dstate dparams", gates=LSTM_ORDER,
    ),
    "hoisted_forward": Exercise(
        "7.2",
        hoisted_forward,
        with_torch(_countable),
        [
            *slips(
                hoisted_forward,
                ("the product with W_ih stands in the loop: take it for all steps at once, before",
                 "x @ params.W_ih.T + params.b\n", "x\n", "cell(a_t +", "cell(a_t @ params.W_ih.T + params.b +"),
                ("one product for the four gates: W_ih as a whole, cut its result afterwards",
                 "x @ params.W_ih.T", "torch.cat([x @ rows.T for rows in params.W_ih.chunk(4)], dim=2)"),
                ("one product for all streams: x as a whole",
                 "x @ params.W_ih.T", "torch.stack([row @ params.W_ih.T for row in x.unbind(1)], dim=1)"),
                ("no product with W_ih alone was seen: one of [x, h] with both matrices has to wait for h, x @ W_ih.T has not",
                 "x @ params.W_ih.T + params.b\n", "x\n", "cell(a_t + h @ params.W_hh.T,",
                 "cell(torch.cat([a_t, h], 1) @ torch.cat([params.W_ih, params.W_hh], 1).T + params.b,"),
                ("the bias is in the input product already: it is added twice", "W_hh.T, c", "W_hh.T + params.b, c"),
                ("the bias is missing", " + params.b", ""),
                ("the recurrent product is missing", "a_t + h @ params.W_hh.T", "a_t"),
                ("only the product with x can leave the loop: h is another at every step",
                 "(h, c), hs = state, []", "(h, c), hs, r = state, [], state[0] @ params.W_hh.T",
                 "h @ params.W_hh.T, c", "r, c"),
                ("step t takes a[t]: that takes the first step's everywhere", "for a_t in a:", "for a_t in [a[0]] * len(a):"),
                ("each step starts from the state that the step before has left", "W_hh.T, c)", "W_hh.T, state[1])",
                 "a_t + h", "a_t + state[0]"),
                ("the cell state is carried as well as h", "W_hh.T, c)", "W_hh.T, state[1])"),
                ("start from the state that is given, not from zeros", "= state, []", "= [0 * part for part in state], []"),
                ("the input product is cut off from the graph: x, W_ih and b receive no gradient",
                 "+ params.b", "+ params.b; a = a.detach()"),
                ("detach() in the loop ends back-propagation at every step", "h @ params", "h.detach() @ params"),
            ),
        ],
        call=_call_and_count, arguments="x state params",
        outputs="hs final dx dstate dparams input_products", gates=LSTM_ORDER,
    ),
    "masked_forward": Exercise(
        "7.3",
        masked_forward,
        with_torch(_padded),
        [
            *slips(
                masked_forward,
                ("lengths is not looked at: a step with t >= lengths is padding", "(t < lengths)", "(t < lengths + len(x))"),
                ("lengths counts real steps: step t is real where t < lengths, not t <= lengths", "t < len", "t <= len"),
                ("lengths counts real steps: step lengths - 1 is real too", "t < len", "t + 1 < len"),
                ("a padded step changes no state: the final state is that after the last real step",
                 "new_h.where(real, h), new_c.where(real, c)", "new_h, new_c"),
                ("the output of a padded step is 0", "h * real", "h"),
                ("a padded step keeps the old state; only its output is 0",
                 "new_h.where(real, h), new_c.where(real, c)", "new_h * real, new_c * real"),
                ("C too stays as it is at a padded step", "new_c.where(real, c)", "new_c"),
                ("h too stays as it is at a padded step", "new_h.where(real, h)", "new_h"),
                ("the final h is the carried one, not the last output, which is 0 for a stream that has ended",
                 "LSTMState(h, c)", "LSTMState(hs[-1], c)"),
                ("zeros as input are a step too, and change the state: keep the old state where a step is padding",
                 "enumerate(x @", f"enumerate(x * {_REAL} @",
                 "new_h.where(real, h), new_c.where(real, c)", "new_h, new_c", "h * real", "h"),
                ("0 written through .data or under no_grad is hidden from autograd: padding still receives a gradient",
                 "h * real", "h", "return torch.stack(hs),", f"hs = torch.stack(hs); hs.data.mul_({_REAL}); return hs,"),
                ("a padded step hands the gradient on as it hands on the state: no detach()",
                 "new_h.where(real, h), new_c.where(real, c)", "new_h.where(real, h.detach()), new_c.where(real, c.detach())"),
                ("that writes into an argument: make a new tensor, torch.where(real, new, old)",
                 "h, c = new_h.where(real, h), new_c.where(real, c)", "h[t < lengths] = new_h[t < lengths]"),
                ("(N,) beside (N, H) is read as a row of H: lengths needs a second axis, [:, None]", "[:, None]", ""),
            ),
        ],
        call=_call, arguments="x state params lengths", outputs="hs final dx dstate dparams", gates=LSTM_ORDER,
    ),
}  # fmt: skip
