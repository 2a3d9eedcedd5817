"""An LSTM as an ``nn.Module``, called like ``torch.nn.LSTM``; weights move to and from NumPy, ``torch.nn.LSTM`` and Keras.

The parameters of a layer and direction are LSTMParams: gate rows i, f, g, o, and ONE bias. ``torch.nn.LSTM`` has two, b_ih
and b_hh, of which only the sum acts. Both receive the gradient of the sum, so that a step of gradient descent, or of Adam,
moves the sum twice as far as it moves our b: at the same learning rate its biases learn twice as fast.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from course_lib.cells import LSTMParams, LSTMState
from course_lib.shapes import ShapeError, check_shapes
from course_lib.stacked import Bidirectional
from course_lib.torch_dropout import drop_connect
from course_lib.torch_sequence import wide
from course_lib.torch_stack import BACKENDS, autocast_dtype, check_call, check_tensor, run_stack
from course_lib.trees import leaves, map_tree


class Direction(nn.Module):
    """The parameters of one layer in one direction."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        rows, bound = 4 * hidden_size, 1 / math.sqrt(hidden_size)
        self.W_ih = nn.Parameter(torch.empty(rows, input_size).uniform_(-bound, bound))
        self.W_hh = nn.Parameter(torch.empty(rows, hidden_size).uniform_(-bound, bound))
        b = torch.zeros(rows)
        b[hidden_size : 2 * hidden_size] = 1  # the forget gate: at the start the cell remembers
        self.b = nn.Parameter(b)

    def params(self) -> LSTMParams:
        """The parameters themselves, as the tree that the functions of this course take."""
        return LSTMParams(self.W_ih, self.W_hh, self.b)


class LSTM(nn.Module):
    """A stack of LSTM layers, each in one direction or in both; ``torch_stack`` lists the backends.

    Weights start uniform in ±1/√H, as in torch.nn.LSTM; biases at 0, and the forget gate's at 1.

    Args:     input_size D, hidden_size H, num_layers L. bidirectional: each layer reads both ways and is 2H wide.
              batch_first: x and the output are (N, T, ...). dropout: rate on the inputs of layers 1, 2, ..., in training;
              held: one mask for all time steps. recurrent_dropout: rate on the entries of W_hh; see ``torch_dropout``.
    Raises:   ValueError: naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        backend: str = "auto",
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        held: bool = False,
        recurrent_dropout: float = 0.0,
    ):
        super().__init__()
        for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
        if backend not in BACKENDS:
            raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        for name, rate in {"dropout": dropout, "recurrent_dropout": recurrent_dropout}.items():
            if not 0 <= rate < 1:
                raise ValueError(f"{name}: expected a rate in [0, 1), got {rate}")
        if dropout and num_layers == 1:
            warnings.warn("dropout acts between layers; with num_layers=1 it does nothing", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.backend, self.batch_first, self.dropout = bidirectional, backend, batch_first, dropout
        self.held, self.recurrent_dropout = held, recurrent_dropout
        self.layers = nn.ModuleList()
        for depth in range(num_layers):
            width = hidden_size * (1 + bidirectional) if depth else input_size
            ways = {way: Direction(width, hidden_size) for way in Bidirectional._fields[: 1 + bidirectional]}
            self.layers.append(nn.ModuleDict(ways) if bidirectional else ways["ahead"])

    def extra_repr(self) -> str:
        """The arguments, as print(module) shows them."""
        flags = f"bidirectional={self.bidirectional}, batch_first={self.batch_first}, dropout={self.dropout}"
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, {flags}, backend={self.backend!r}"

    def params(self) -> tuple:
        """LSTMParams of each layer, or a Bidirectional pair of them; the leaves are this module's own parameters."""
        if self.bidirectional:
            return tuple(Bidirectional(layer["ahead"].params(), layer["back"].params()) for layer in self.layers)
        return tuple(layer.params() for layer in self.layers)

    def forward(
        self, x: Tensor | PackedSequence, state: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, LSTMState]:
        """Run the stack over a sequence.

        Args:     x: (T, N, D); (N, T, D) if batch_first; (T, D) for one stream without a batch axis; or a PackedSequence.
                  state: h_0 and c_0, each (L, N, H), twice as many in both directions; zeros if None.
                  lengths: (N,) steps of each stream that are not padding.
        Returns:  The output, of the form of x with H for D (2H in both directions), 0 at padding; the final h and c, (L, N, H).
        Raises:   ShapeError, ValueError: one sentence that names the argument, what was expected and what came.
        """
        packed = x if isinstance(x, PackedSequence) else None
        if packed is not None:
            if lengths is not None:
                raise ValueError("lengths: a PackedSequence holds its own; leave lengths out")
            x, lengths = pad_packed_sequence(packed)
        check_tensor("x", x)
        alone, turned = x.dim() == 2, packed is None and x.dim() == 3 and self.batch_first
        form = "(T, D)" if alone else "(N, T, D)" if turned else "(T, N, D)"
        if alone:
            x, state = x[:, None], None if state is None else tuple(part[:, None] for part in state)
        elif turned:
            x = x.transpose(0, 1)
        layers = self.params()
        try:
            lengths = check_call(x, state, layers, lengths)
        except ShapeError as error:
            raise ShapeError(f"{error}; batch_first={self.batch_first}: x is read as {form}") from None
        if state is None:
            state = (x.new_zeros(len(leaves(layers)) // 3, x.shape[1], self.hidden_size),) * 2
        with _autocast(x.device.type) as cast:
            dropout, dropped = (self.dropout, self.recurrent_dropout) if self.training else (0.0, 0.0)
            arguments = cast(x), LSTMState(*map(cast, state)), drop_connect(map_tree(cast, layers), dropped)
            output, state = run_stack(*arguments, lengths, self.backend, dropout, self.held)
        if packed is not None:
            order = slice(None) if packed.sorted_indices is None else packed.sorted_indices
            return packed._replace(data=pack_padded_sequence(output[:, order], lengths[order].cpu()).data), state
        if alone:
            return output[:, 0], LSTMState(*(part[:, 0] for part in state))
        return output.transpose(0, 1) if turned else output, state


@contextmanager
def _autocast(device: str):
    """Under torch.autocast: a function that casts to its dtype, and autocast off within, since all is cast already."""
    dtype = autocast_dtype(device)
    if dtype is None:
        yield lambda tensor: tensor
        return
    with torch.autocast(device, enabled=False):
        yield lambda tensor: tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # as autocast does


def from_numpy(params: LSTMParams | tuple, **options: Any) -> LSTM:
    """A module with copies of these weights.

    Args:     params: LSTMParams, or a tuple of layers as in ``stacked``. options: backend, batch_first, dropout.
    Raises:   ShapeError, ValueError: no LSTM, or layers that do not fit on each other.
    """
    layers = (params,) if isinstance(params, LSTMParams | Bidirectional) else tuple(params)
    both = [isinstance(layer, Bidirectional) for layer in layers]
    parts = [part for layer in layers for part in (layer if isinstance(layer, Bidirectional) else (layer,))]
    if not parts or len(set(both)) > 1 or not all(isinstance(part, LSTMParams) for part in parts):
        found = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
        raise ValueError(f"params: expected LSTMParams for each layer, all in one direction or all Bidirectional, got {found}")
    sizes = check_shapes(W_ih=(parts[0].W_ih, "4H D"))
    module = LSTM(sizes["D"], sizes["H"], len(layers), both[0], **options)
    return _filled(module, [leaf for part in parts for leaf in part])


def to_numpy(module: LSTM) -> LSTMParams | tuple:
    """Copies of the weights: LSTMParams of a single layer in one direction, otherwise a tuple of layers as in ``stacked``.

    16-bit numbers come as float32: NumPy has no bfloat16.
    """
    layers = map_tree(_array, module.params())
    return layers[0] if len(layers) == 1 and not module.bidirectional else layers


def from_torch_lstm(module: nn.LSTM, **options: Any) -> LSTM:
    """Our module with the weights of torch.nn.LSTM; our one bias is the sum of its two.

    Raises:   ValueError: it has projections (proj_size).
    """
    if module.proj_size:
        raise ValueError(f"module: expected torch.nn.LSTM without projections, got proj_size={module.proj_size}")
    options = {"batch_first": module.batch_first, "dropout": module.dropout} | options
    ours = LSTM(module.input_size, module.hidden_size, module.num_layers, module.bidirectional, **options)
    arrays = []
    for W_ih, W_hh, *biases in module.all_weights:
        arrays += [W_ih, W_hh, sum(biases) if biases else W_hh.new_zeros(len(W_hh))]
    return _filled(ours.to(W_ih.device), arrays).train(module.training)


def to_torch_lstm(module: LSTM) -> nn.LSTM:
    """torch.nn.LSTM with these weights: its b_ih is our b, its b_hh is 0. Trained on, its sum moves twice as fast as our b."""
    parts = [part for layer in module.params() for part in (layer if module.bidirectional else (layer,))]
    options = {"batch_first": module.batch_first, "dropout": module.dropout, "bidirectional": module.bidirectional}
    W_ih = parts[0].W_ih
    theirs = nn.LSTM(module.input_size, module.hidden_size, module.num_layers, **options, device=W_ih.device, dtype=W_ih.dtype)
    arrays = [array for part in parts for array in (*part, torch.zeros_like(part.b))]
    return _filled(theirs, arrays).train(module.training)


def from_keras(*layers: Any, **options: Any) -> LSTM:
    """A module with the weights of Keras' LSTM layers, first layer first; ``keras.layers.Bidirectional`` of LSTM as well.

    Keras multiplies from the right, x W + h U + b with W (D, 4H) and U (H, 4H): transposed here. Its gate columns i, f, c, o
    are our rows i, f, g, o: it calls the candidate c. It has one bias, which may be missing.

    Raises:   ValueError: another layer, other activations than tanh and sigmoid, directions not joined by "concat", not built.
    """
    stack = []
    for layer in layers:
        params = [_from_keras_direction(part) for part in _keras_directions(layer)]
        stack.append(Bidirectional(*params) if len(params) == 2 else params[0])
    return from_numpy(tuple(stack), **options)


def to_keras(module: LSTM, *layers: Any) -> None:
    """Put the weights of a module into built Keras layers, as many as the module has; ``from_keras`` says how they differ.

    Raises:   ValueError: as ``from_keras``; another number of layers or directions, or shapes that do not fit.
    """
    if len(layers) != module.num_layers:
        raise ValueError(f"layers: expected {module.num_layers}, one for each layer of the module, got {len(layers)}")
    for layer, params in zip(layers, map_tree(_array, module.params()), strict=True):
        parts, ways = params if module.bidirectional else (params,), _keras_directions(layer)
        if len(parts) != len(ways):
            raise ValueError(f"layers: expected {len(parts)} direction(s) in each, as in the module, got {len(ways)}")
        for part, (W_ih, W_hh, b) in zip(ways, parts, strict=True):
            part.set_weights([W_ih.T, W_hh.T, b])


def _keras_directions(layer: Any) -> list:
    """The LSTM layers in a Keras layer, each held to what this module computes."""
    ways = [getattr(layer, f"{way}_layer", None) for way in ("forward", "backward")]
    parts = ways if all(ways) else [layer]
    if len(parts) == 2 and layer.merge_mode != "concat":
        raise ValueError(f"layers: expected Bidirectional with merge_mode='concat', got {layer.merge_mode!r}")
    for part, backwards in zip(parts, (False, True), strict=False):
        names = [getattr(getattr(part, kind, None), "__name__", "none") for kind in ("activation", "recurrent_activation")]
        if type(part).__name__ != "LSTM" or names != ["tanh", "sigmoid"]:
            what = f"{type(part).__name__} with {names[0]} and {names[1]}"
            raise ValueError(f"layers: expected keras.layers.LSTM with tanh and sigmoid, got {what}")
        if part.go_backwards != backwards:
            raise ValueError(f"layers: {part.name} has go_backwards={part.go_backwards}; only Bidirectional may read backwards")
        if not part.built:
            raise ValueError(f"layers: {part.name} has no weights yet; call it or its model once, or .build(shape)")
    return parts


def _from_keras_direction(layer: Any) -> LSTMParams:
    with warnings.catch_warnings():  # Keras 3.15 asks a tensor for its array in a way that NumPy 2 remarks on
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        kernel, recurrent, *bias = layer.get_weights()
    return LSTMParams(kernel.T, recurrent.T, bias[0] if bias else np.zeros(kernel.shape[1], kernel.dtype))


def _array(tensor: Tensor) -> np.ndarray:
    return wide(tensor.detach()).cpu().numpy().copy()


def _filled(module: nn.Module, arrays: Sequence[Any]) -> Any:
    """The module with copies of these arrays as its parameters, in their order, in the dtype of the arrays."""
    tensors = [torch.as_tensor(np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a).detach() for a in arrays]
    module.to(tensors[0].dtype)
    with torch.no_grad():
        for (name, parameter), tensor in zip(module.named_parameters(), tensors, strict=True):
            if parameter.shape != tensor.shape:
                raise ShapeError(f"{name}: expected {tuple(parameter.shape)}, got {tuple(tensor.shape)}")
            parameter.copy_(tensor)
    return module
