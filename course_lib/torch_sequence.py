"""One LSTM layer over a whole sequence in PyTorch, written three ways that give the same numbers at three speeds.

``run_loop`` is the definition: ``lstm_step`` again and again, and autograd finds the gradients. ``run_fused`` is lesson 05 in
torch: the input product of all steps before the loop, one recurrent product a step, and the gradients by the derivation instead
of by autograd's record of every operation. ``run_compiled`` lets torch.compile join the operations of several steps.

A runner takes x (T, N, D), an LSTMState, LSTMParams with tensors as leaves, and lengths (N,) or None; it returns hs (T, N, H)
and the final state, differentiable in all of them. ``lengths`` marks padding on the right as in ``sequence``: a padded step
changes no state, output (0) or gradient. In 16-bit types the products and gates are rounded to 16 bits, but the cell state, a
sum over time, is kept in float32 from the first step to the last of a call.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from course_lib.cells import LSTMParams, LSTMState
from course_lib.trees import map_tree

UNROLL = 8  # steps that run_compiled hands to the compiler at once: compiling takes the longer, the more there are


def lstm_step(x: Tensor, prev: LSTMState, params: LSTMParams) -> LSTMState:
    """Advance an LSTM by one time step; the equations are those of cells.lstm_step_forward.

    Args:     x: (N, D). prev: h and c, each (N, H). params: see LSTMParams.
    Returns:  The next state.
    """
    return activate(x @ params.W_ih.T + prev.h @ params.W_hh.T + params.b, prev.c)


def activate(a: Tensor, c: Tensor) -> LSTMState:
    """From the pre-activations a (N, 4H) and the previous cell state (N, H) to the next state."""
    i, f, g, o = a.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return LSTMState((o.sigmoid() * c.tanh()).to(a.dtype), c)


def run_loop(x: Tensor, initial: LSTMState, params: LSTMParams, lengths: Tensor | None = None) -> tuple[Tensor, LSTMState]:
    """Step by step, as the equations say; autograd keeps and differentiates every operation."""
    h, c = initial.h, wide(initial.c)
    hs = []
    for t, x_t in enumerate(x):
        new = lstm_step(x_t, LSTMState(h, c), params)
        if lengths is None:
            h, c = new
            hs.append(h)
        else:
            real = (t < lengths)[:, None]
            h, c = torch.where(real, new.h, h), torch.where(real, new.c, c)
            hs.append(h * real)
    return torch.stack(hs), LSTMState(h, c.to(h.dtype))


def run_fused(x: Tensor, initial: LSTMState, params: LSTMParams, lengths: Tensor | None = None) -> tuple[Tensor, LSTMState]:
    """Both big products outside the time loop, and the backward pass of lesson 05 (see ``FusedLSTM``)."""
    hs, h, c = FusedLSTM.apply(x, *initial, *params, lengths)
    return hs, LSTMState(h, c)


class FusedLSTM(torch.autograd.Function):
    """sequence.lstm_forward and lstm_backward on tensors.

    Kept for the backward pass, a token: the gates (4H), c (H) and h (H), which is the output as well. Autograd's record of
    run_loop keeps 7H, and the outputs once more. The output is a view of what is kept: autograd refuses to change it in place.
    """

    @staticmethod
    def forward(ctx, x, h_0, c_0, W_ih, W_hh, b, lengths):
        T, N, H = len(x), *h_0.shape
        a = input_product(x, LSTMParams(W_ih, W_hh, b))  # (T, N, 4H); becomes the gates, in place
        hs, cs = h_0.new_empty(T + 1, N, H), wide(c_0).new_empty(T + 1, N, H)
        hs[0], cs[0] = h_0, c_0
        W_hh_T, tanh = W_hh.T, torch.empty_like(cs[0])
        for gates, h, c, next_h, next_c in zip(a, hs[:-1], cs[:-1], hs[1:], cs[1:], strict=True):
            gates.addmm_(h, W_hh_T)
            i, f, g, o = gates.chunk(4, dim=1)
            candidate = g.tanh()
            gates.sigmoid_()  # of all four: one call over contiguous memory costs less than two over its parts
            g.copy_(candidate)
            torch.mul(f, c, out=next_c).addcmul_(i, g)
            torch.mul(o, torch.tanh(next_c, out=tanh), out=tanh)
            next_h.copy_(tanh)
        ctx.save_for_backward(x, W_ih, W_hh, a, hs, cs, lengths)
        return outputs(hs, lengths), final_state(hs, lengths), final_state(cs, lengths).to(hs.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dhs, dh_T, dc_T):
        x, W_ih, W_hh, a, hs, cs, lengths = ctx.saved_tensors
        dhs, ends = output_gradients(dhs, dh_T, lengths)
        dh, dc = torch.zeros_like(cs[0]), torch.zeros_like(cs[0])
        if lengths is None:
            dc += dc_T
        da, slope, tanh_c, through_h = torch.empty_like(a), torch.empty_like(a[0]), torch.empty_like(dc), torch.empty_like(dc)
        H = hs.shape[2]
        for t in reversed(range(len(x))):
            gates, (i, f, g, o) = a[t], a[t].chunk(4, dim=1)
            da_i, da_f, da_g, da_o = da[t].chunk(4, dim=1)
            dh += dhs[t]
            if ends is not None:
                dc = torch.where(ends[t], dc_T, dc)
            torch.tanh(cs[t + 1], out=tanh_c)
            torch.mul(dh, tanh_c, out=da_o)
            torch.mul(tanh_c, tanh_c, out=through_h).neg_().add_(1).mul_(o)
            dc.addcmul_(dh, through_h)
            torch.mul(dc, g, out=da_i)
            torch.mul(dc, cs[t], out=da_f)
            torch.mul(dc, i, out=da_g)
            torch.mul(gates, gates, out=slope).neg_()  # σ' = σ - σ² for i, f, o;  tanh' = 1 - tanh² for g
            slope[:, : 2 * H] += gates[:, : 2 * H]
            slope[:, 2 * H : 3 * H] += 1
            slope[:, 3 * H :] += o
            da[t] *= slope
            dc *= f
            dh.copy_(da[t] @ W_hh)
        return *input_gradients(x, W_ih, hs, da, dh, dc, dh_T, dc_T, lengths), None


def run_compiled(x: Tensor, initial: LSTMState, params: LSTMParams, lengths: Tensor | None = None) -> tuple[Tensor, LSTMState]:
    """The loop through torch.compile, UNROLL steps at a time; where nothing compiles, one warning, and run_fused."""
    if _not_compiling:
        return run_fused(x, initial, params, lengths)
    try:
        with warnings.catch_warnings(action="ignore"):  # the compiler's remarks about its own code
            hs, cs = _compiled_states(x, initial, params)
    except Exception as error:
        if not isinstance(error, CannotCompile) and not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        cause = getattr(error, "inner_exception", error)
        _not_compiling.append(f"{type(cause).__name__}: {cause}".partition("\n")[0])
        warnings.warn(f"torch.compile does not work here ({_not_compiling[0]}); 'fused' is used instead", stacklevel=2)
        return run_fused(x, initial, params, lengths)
    return outputs(hs, lengths), LSTMState(final_state(hs, lengths), final_state(cs, lengths).to(hs.dtype))


def _compiled_states(x: Tensor, initial: LSTMState, params: LSTMParams) -> tuple[Tensor, Tensor]:
    """h and c before the first step and after each, (T + 1, N, H)."""
    hs, cs = [initial.h[None]], [wide(initial.c)[None]]
    for part in input_product(x, params).split(UNROLL):
        steps = _compiled() if len(part) == UNROLL else _several_steps
        new_hs, new_cs = steps(part, hs[-1][-1], cs[-1][-1], params.W_hh)
        hs.append(new_hs)
        cs.append(new_cs)
    return torch.cat(hs), torch.cat(cs)


def _several_steps(a: Tensor, h: Tensor, c: Tensor, W_hh: Tensor) -> tuple[Tensor, Tensor]:
    """From the input products (steps, N, 4H) to the states h and c after each step, (steps, N, H)."""
    hs, cs = [], []
    for a_t in a:
        h, c = activate(torch.addmm(a_t, h, W_hh.T), c)
        hs.append(h)
        cs.append(c)
    return torch.stack(hs), torch.stack(cs)


class CannotCompile(Exception):
    """torch.compile does not support this Python or system."""


@functools.cache
def _compiled():
    try:
        return torch.compile(_several_steps)
    except RuntimeError as error:
        raise CannotCompile(error) from None


_not_compiling: list[str] = []  # why torch.compile failed, once it has


def input_product(x: Tensor, params: LSTMParams) -> Tensor:
    """x_t W_ihᵀ + b for every t at once: (T, N, D) -> (T, N, 4H)."""
    return torch.nn.functional.linear(x, params.W_ih, params.b)


def outputs(hs: Tensor, lengths: Tensor | None) -> Tensor:
    """The outputs h_1 ... h_T of hs (T + 1, N, H), 0 where a step is padding."""
    return hs[1:] if lengths is None else hs[1:] * real_steps(lengths, len(hs) - 1)


def final_state(states: Tensor, lengths: Tensor | None) -> Tensor:
    """The state after each stream's last real step, from states (T + 1, N, H) that start with the initial one."""
    return states[-1].clone() if lengths is None else states[lengths, torch.arange(states.shape[1], device=states.device)]


def output_gradients(dhs: Tensor, dh_T: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """dL/dhs with dL/dh_T added at each stream's last real step and 0 at padding; with lengths, a mask of the last steps."""
    if lengths is None:
        return torch.cat([dhs[:-1], (dhs[-1] + dh_T)[None]]), None
    ends = (torch.arange(1, len(dhs) + 1, device=dhs.device)[:, None] == lengths)[..., None]  # (T, N, 1)
    return dhs * real_steps(lengths, len(dhs)) + ends * dh_T, ends


def input_gradients(x, W_ih, hs, da, dh, dc, dh_T, dc_T, lengths) -> tuple[Tensor, ...]:
    """What follows the backward loop: dx, dh_0, dc_0, dW_ih, dW_hh, db, each sum over time one product."""
    if lengths is not None:  # a stream without any step passes its final state's gradient straight through
        empty = (lengths == 0)[:, None]
        dh, dc = torch.where(empty, dh_T, dh), torch.where(empty, dc_T, dc)
    rows = da.flatten(0, 1)  # (T N, 4H)
    dW_ih, dW_hh = rows.T @ x.flatten(0, 1), rows.T @ hs[:-1].flatten(0, 1)
    return da @ W_ih, dh.to(hs.dtype), dc.to(hs.dtype), dW_ih, dW_hh, rows.sum(0)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse (T, N, ...) in time; with lengths, each stream's real steps only, the padding staying behind them."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device)[:, None]
    return x[torch.where(t < lengths, lengths - 1 - t, t), torch.arange(x.shape[1], device=x.device)]


def real_steps(lengths: Tensor, T: int) -> Tensor:
    """(T, N, 1), true where a step is not padding."""
    return (torch.arange(T, device=lengths.device)[:, None] < lengths)[..., None]


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: 16-bit numbers are widened."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def to_arrays(tree: Any) -> Any:
    """A tree of tensors as a tree of arrays in memory of their own; 16-bit floats become float32."""
    return map_tree(lambda t: wide(t.detach()).cpu().numpy().copy(), tree)
