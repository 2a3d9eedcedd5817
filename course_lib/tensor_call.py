"""Call a learner's function on tensors made of NumPy arrays, and differentiate what it returns.

The exercises on PyTorch compare gradients beside values: a result that was detached, or has passed through NumPy, is right in
every number and still teaches a network nothing. torch is loaded when the first of them is checked, since the first lessons
must start fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.cells import LSTMParams, LSTMState
from course_lib.diagnosis import MisfitError
from course_lib.trees import leaves, map_tree

# Matrix products, and where their first factor stands among the arguments; `@`, linear, einsum and the rest end in these.
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "addmm": 1, "addbmm": 1, "baddbmm": 1, "addmv": 1}


def with_torch(problem: Callable) -> Callable:
    """A problem that loads torch when it is drawn: that may take seconds, which are not the learner's."""

    def draw(rng: np.random.Generator) -> tuple:
        import torch  # noqa: F401

        return problem(rng)

    return draw


def differentiated(function: Callable, arguments: tuple, form: Callable[[Any], tuple]) -> tuple | None:
    """What a function returns for tensors, then the gradient of each argument of floats, all as NumPy arrays.

    The loss is a fixed linear function of the results, with other weights for each entry: no gradient is right by accident.

    Args:     arguments: trees of arrays; the tensors share their memory. form: from the result to a tuple of trees of tensors.
    Returns:  None if the function did; a gradient is None while a result is.
    Raises:   MisfitError: a result that is no tensor, or that autograd cannot differentiate.
    """
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        inputs = tuple(map_tree(_leaf(argument), argument) for argument in arguments)
        result = function(*inputs)
        if result is None:
            return None
        outputs = form(result)
        return (*to_numpy(outputs), *_gradients(outputs, tuple(i for i in inputs if leaves(i)[0].requires_grad)))


def _leaf(argument: Any) -> Callable:
    import torch

    def leaf(array: np.ndarray) -> Any:
        tensor = torch.from_numpy(array)
        if isinstance(argument, LSTMParams):
            return torch.nn.Parameter(tensor)
        return tensor.requires_grad_() if tensor.is_floating_point() else tensor

    return leaf


def _gradients(outputs: tuple, inputs: tuple) -> tuple:
    import torch

    if any(output is None for output in leaves(outputs)):
        return map_tree(lambda _: None, inputs)
    weights = [torch.from_numpy(np.random.default_rng(k).normal(size=y.numel())) for k, y in enumerate(leaves(outputs))]
    pairs = [(y, w.reshape(y.shape).to(y)) for y, w in zip(leaves(outputs), weights, strict=True) if y.requires_grad]
    grads = iter([None] * len(leaves(inputs)))
    try:
        if pairs:
            sources, weights = zip(*pairs, strict=True)
            grads = iter(torch.autograd.grad(sources, leaves(inputs), weights, allow_unused=True))
    except RuntimeError as error:
        raise MisfitError(_why_not_differentiated(str(error))) from None
    return map_tree(lambda leaf: np.zeros(leaf.shape) if (grad := next(grads)) is None else grad.numpy(), inputs)


def _why_not_differentiated(message: str) -> str:
    """Torch's message, up to where it explains itself at length, and what to do."""
    advice = "the check itself calls backward, your function must not"
    if "inplace" in message:
        advice = "give each new value a new tensor, `h = ...`, not `h *= ...` or `h[k] = ...`"
    return f"autograd cannot differentiate what it returned: {re.split(r'[.:(]', message)[0].strip()}; {advice}"


def to_numpy(tree: Any) -> Any:
    """The numbers of a tree of tensors; what is None stays None."""
    return map_tree(lambda t: None if t is None else (t.detach().float() if t.itemsize < 4 else t.detach()).cpu().numpy(), tree)


def as_tensor(name: str, value: Any) -> Any:
    """The value itself, if it is a tensor or None.

    Raises:   MisfitError: it is something else.
    """
    import torch

    if value is None or isinstance(value, torch.Tensor):
        return value
    advice = ": torch.stack makes one of a list of them" if isinstance(value, list | tuple) else ""
    advice = ": autograd sees nothing of what NumPy computes" if isinstance(value, np.ndarray | np.generic) else advice
    raise MisfitError(f"{name}: expected a tensor, got {type(value).__name__}{advice}")


def as_state(name: str, value: Any) -> LSTMState | None:
    """The value as an LSTMState, if it is a pair of tensors.

    Raises:   MisfitError: it is something else.
    """
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise MisfitError(f"{name}: expected the pair (h, c), got {counted(value)}")
    return LSTMState(*(as_tensor(f"{name}.{part}", v) for part, v in zip("hc", value, strict=True)))


def counted(value: Any) -> str:
    """ "3 values", or the type of what is one."""
    return f"{len(value)} values" if isinstance(value, tuple | list) else f"one {type(value).__name__}"


def count_products(function: Callable[[], Any], inner: int) -> tuple[Any, int]:
    """What ``function()`` returns, and how many matrix products it made that sum over an axis of ``inner`` entries."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            place = PRODUCTS.get(operation.overloadpacket.__name__.rstrip("_"))
            if place is not None and args[place].shape[-1] == inner:
                found.append(operation)
            return operation(*args, **(kwargs or {}))

    with Watch():
        return function(), len(found)
