"""Layers of LSTMs on each other in PyTorch, in one direction or both, and the choice of what computes them.

    backend     one layer over time
    "loop"      step by step, as the equations stand; the reference
    "fused"     input products and weight gradients outside the loop, the backward pass of lesson 05
    "compile"   torch.compile joins the operations of several steps
    "triton"    our own kernel, the time loop inside it (see ``torch_kernels``)
    "cudnn"     torch.nn.LSTM itself with our parameters: cuDNN on a GPU, ATen and oneDNN on a CPU
    "auto"      the fastest that fits, as far as it was measured

A stack is a tuple of layers, LSTMParams or a Bidirectional pair of them, with tensors as leaves. Its state is that of
torch.nn.LSTM: h and c, (L, N, H) each, layer by layer; in both directions (2L, N, H), ahead before back.
"""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from course_lib.cells import LSTMParams, LSTMState
from course_lib.shapes import ShapeError, check_shapes
from course_lib.stacked import Bidirectional
from course_lib.torch_dropout import drop
from course_lib.torch_kernels import run_triton, why_not
from course_lib.torch_sequence import reverse, run_compiled, run_fused, run_loop

RUNNERS = {"loop": run_loop, "fused": run_fused, "compile": run_compiled, "triton": run_triton}
BACKENDS = ("auto", *RUNNERS, "cudnn")


def run_stack(
    x: Tensor,
    state: LSTMState,
    layers: tuple,
    lengths: Tensor | None = None,
    backend: str = "auto",
    dropout: float = 0.0,
    held: bool = False,
) -> tuple[Tensor, LSTMState]:
    """Run a stack of layers over a sequence; the outputs of one are the inputs of the next.

    Args:     x: (T, N, D). state: h and c, see above. layers: parameters. lengths: (N,) steps that are not padding.
              dropout: the rate at which inputs of layers 1, 2, ... are dropped (training only). held: the same ones at
              every time step.
    Returns:  hs of the last layer (T, N, H), or (T, N, 2H) in both directions, and the final state.
    """
    if backend == "auto":
        backend = fastest(x, lengths)
    if backend == "cudnn" and not (held and dropout):
        return _delegate(x, state, layers, lengths, dropout if len(layers) > 1 else 0.0)
    if backend == "triton" and (reason := why_not(x, state.h.shape[2])):
        warnings.warn(f"{reason}; 'fused' is used instead", stacklevel=3)
        backend = "fused"
    run = _delegate_one if backend == "cudnn" else RUNNERS[backend]
    states, finals = iter(zip(*state, strict=True)), []
    for depth, layer in enumerate(layers):
        if depth:
            x = drop(x, dropout, held)
        runs = []
        for back, params in enumerate(_directions(layer)):
            hs, final = run(reverse(x, lengths) if back else x, LSTMState(*next(states)), params, lengths)
            runs.append(reverse(hs, lengths) if back else hs)
            finals.append(final)
        x = torch.cat(runs, dim=2) if len(runs) > 1 else runs[0]
    return x, LSTMState(*(torch.stack(parts) for parts in zip(*finals, strict=True)))


def fastest(x: Tensor, lengths: Tensor | None) -> str:
    """What "auto" stands for: torch.nn.LSTM, the fastest on a CPU at every size timed in docs/measurements/lstm_speed.md.

    Except in training with lengths on a CPU: packing for it costs time as well, and the two are about equal where a third or a
    half is padding, "fused" ahead where less is. On an H200, too, cuDNN was ahead of all of ours at every size timed.
    """
    return "fused" if lengths is not None and x.device.type == "cpu" and torch.is_grad_enabled() else "cudnn"


def check_call(x: Tensor, state: Any, layers: tuple, lengths: Any) -> Tensor | None:
    """Hold a call's time-major arguments to the notation.

    Returns:  lengths as int64 beside x, or None.
    Raises:   ShapeError, ValueError: naming the argument, what was expected and what came.
    """
    parts = [part for layer in layers for part in _directions(layer)]
    sizes = check_shapes(W_hh=(parts[0].W_hh, "4H H"), W_ih=(parts[0].W_ih, "4H D"), x=(x, "T N D"))
    _check_place("x", x, "the weights", parts[0].W_ih)
    if state is not None:
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise ValueError(f"state: expected the pair (h_0, c_0), got {_what(state)}")
        shape = (len(parts), sizes["N"], sizes["H"])
        for name, part in zip(("h_0", "c_0"), state, strict=True):
            _check_place(name, part, "x", x)
            if tuple(part.shape) != shape:
                raise ShapeError(f"{name}: expected (L, N, H) = {shape}, N = {shape[1]} from x, got {tuple(part.shape)}")
    if lengths is None:
        return None
    lengths = torch.as_tensor(lengths)
    if tuple(lengths.shape) != (sizes["N"],):
        raise ShapeError(f"lengths: axis N should be {sizes['N']} (N = {sizes['N']} from x), got shape {tuple(lengths.shape)}")
    if lengths.dtype in (torch.bool, *_FLOATS) or lengths.min() < 0 or lengths.max() > len(x):
        raise ValueError(f"lengths: expected integers in [0, {len(x)}], got {lengths.tolist()}")
    return lengths.long().to(x.device)


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_place(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both are on one device and of one dtype; autocast converts all but float64."""
    check_tensor(name, tensor)
    if tensor.device != other.device:
        raise ValueError(f"{name} is on {tensor.device} and {other_name} on {other.device}: move one of them, with .to(device)")
    dtypes = {tensor.dtype, other.dtype}
    converted = autocast_dtype(tensor.device.type) and torch.float64 not in dtypes
    if not dtypes <= set(_FLOATS) or (len(dtypes) > 1 and not converted):
        raise ValueError(
            f"{name} is {tensor.dtype} and {other_name} {other.dtype}: convert one with .to(dtype), or use autocast"
        )


def check_tensor(name: str, value: Any) -> None:
    """Raise ValueError unless it is one."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {_what(value)}; torch.as_tensor makes one of an array")


def autocast_dtype(device: str) -> torch.dtype | None:
    """The dtype of torch.autocast where it is on."""
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def _what(thing: Any) -> str:
    return f"{len(thing)} of them" if isinstance(thing, tuple | list) else type(thing).__name__


def _directions(layer: LSTMParams | Bidirectional) -> tuple[LSTMParams, ...]:
    return tuple(layer) if isinstance(layer, Bidirectional) else (layer,)


def _delegate(x: Tensor, state: LSTMState, layers: tuple, lengths: Tensor | None, dropout: float) -> tuple[Tensor, LSTMState]:
    """torch.nn.LSTM with these parameters and a second bias of zeros."""
    parts = [part for layer in layers for part in _directions(layer)]
    module = _skeleton(threading.get_ident(), x.shape[2], state.h.shape[2], len(layers), len(parts) > len(layers), dropout)
    zeros = torch.zeros_like(parts[0].b)
    weights = dict(zip(_names(module), [w for part in parts for w in (*part, zeros)], strict=True))
    # A stream without steps cannot be packed: it is given one, whose effect is taken back below.
    packed = x if lengths is None else pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
    with warnings.catch_warnings():  # cuDNN wants all weights in one block and copies them there: 4H (D + H) numbers a call
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        output, final = torch.func.functional_call(module, weights, (packed, tuple(state)))
    if lengths is None:
        return output, LSTMState(*final)
    real = (lengths > 0)[:, None]
    output = pad_packed_sequence(output, total_length=len(x))[0] * real
    return output, LSTMState(*(torch.where(real, new, old) for new, old in zip(final, state, strict=True)))


def _delegate_one(x: Tensor, state: LSTMState, params: LSTMParams, lengths: Tensor | None) -> tuple[Tensor, LSTMState]:
    """The same as a runner: one layer in one direction."""
    hs, final = _delegate(x, LSTMState(*(part[None] for part in state)), (params,), lengths, 0.0)
    return hs, LSTMState(*(part[0] for part in final))


@functools.lru_cache
def _skeleton(thread: int, D: int, H: int, num_layers: int, both: bool, dropout: float) -> nn.LSTM:
    """An nn.LSTM without memory, whose weights are put in at each call; one a thread, lest two mix their weights up."""
    return nn.LSTM(D, H, num_layers, bidirectional=both, dropout=dropout, device="meta")


def _names(module: nn.LSTM) -> list[str]:
    """The names of its parameters, a direction at a time: weight_ih, weight_hh, bias_ih, bias_hh."""
    return [name for name, _ in module.named_parameters()]
