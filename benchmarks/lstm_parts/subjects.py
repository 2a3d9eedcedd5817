"""What benchmarks/lstm_speed.py compares: every backend on the same problem, its results, their errors and its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib import roofline, torch_sequence
from course_lib.cells import LSTMParams, LSTMState
from course_lib.sequence import lstm_backward, lstm_forward
from course_lib.torch_kernels import why_not
from course_lib.torch_lstm import from_numpy, to_torch_lstm

REFERENCE = "nn.LSTM"
BACKENDS = ("loop", "fused", "compile", "graph", "cudnn", "triton", "auto", REFERENCE)
OUTPUTS = ("hs", "h_n", "c_n")
NAMES = (*OUTPUTS, *(f"{name} in training" for name in OUTPUTS), "dx", "dh_0", "dc_0", "dW_ih", "dW_hh", "db")


class Problem(NamedTuple):
    """One size in one precision: inputs as leaves of autograd, weights in NumPy, gradients from above."""

    precision: str
    device: str
    inputs: list[torch.Tensor]  # x (T, N, D), h_0 and c_0 (1, N, H)
    params: LSTMParams  # float32, rounded to the precision
    upstream: list[torch.Tensor]  # dL/dhs (T, N, H), dL/dh_n and dL/dc_n (1, N, H)


def problem(sizes: tuple[int, int, int, int], precision: str, device: str) -> Problem:
    """Random numbers of sizes (T, N, D, H), the same in every precision but for its rounding."""
    (T, N, D, H), dtype, rng = sizes, roofline.dtype_of(precision), np.random.default_rng(0)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(scale * rng.standard_normal(shape, dtype=np.float32)).to(dtype)

    weights = draw(4 * H, D, scale=H**-0.5), draw(4 * H, H, scale=0.5 * H**-0.5), draw(4 * H, scale=0.5)
    inputs = [draw(*shape).to(device).requires_grad_() for shape in ((T, N, D), (1, N, H), (1, N, H))]
    upstream = [draw(*shape).to(device) for shape in ((T, N, H), (1, N, H), (1, N, H))]
    return Problem(precision, device, inputs, LSTMParams(*(w.float().numpy() for w in weights)), upstream)


def widened(given: Problem) -> Problem:
    """The same numbers in float32."""
    inputs = [t.detach().float().requires_grad_() for t in given.inputs]
    return given._replace(precision="fp32", inputs=inputs, upstream=[t.float() for t in given.upstream])


def unavailable(backend: str, given: Problem) -> str | None:
    """Why a backend is not measured on this problem, in one line, or None."""
    if given.device == "cpu":
        reasons = {"graph": "CUDA only", "triton": "on a CPU Triton's interpreter only, for tests; not timed"}
        if given.precision == "bf16":
            reasons["compile"] = "not measured: compiling all sizes once more takes minutes, see float32"
        return reasons.get(backend)
    if given.precision == "tf32" and backend in ("loop", "compile"):
        return "not measured: TF32 changes products only, see fused"
    return why_not(given.inputs[0], given.inputs[1].shape[2]) if backend == "triton" else None


class Subject:
    """One backend on one problem: what is checked and then timed."""

    def __init__(self, backend: str, given: Problem):
        own = "auto" if backend in (REFERENCE, "graph") else backend
        module = from_numpy(given.params, backend=own)
        if backend == REFERENCE:
            module = to_torch_lstm(module)
        module.to(given.device, roofline.dtype_of(given.precision))
        self.inputs, self.upstream = given.inputs, given.upstream
        self.parameters = list(module.parameters())  # nn.LSTM has one more: its second bias, with the gradient of the first
        self.call, self.held = module, None
        if backend == "graph":
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved()
            self.call = cuda_graph(self.inputs, self.parameters)
            torch.cuda.empty_cache()
            self.held = torch.cuda.memory_reserved() - before

    def outputs(self) -> tuple[torch.Tensor, ...]:
        """hs, h_n, c_n."""
        hs, (h, c) = self.call(self.inputs[0], tuple(self.inputs[1:]))
        return hs, h, c

    @torch.no_grad()
    def forward(self) -> tuple[torch.Tensor, ...]:
        """The outputs without gradients."""
        return self.outputs()

    def training(self) -> tuple[torch.Tensor, ...]:
        """The outputs, and the gradients of a loss whose gradients with respect to the outputs are those from above."""
        self.forget()
        outputs = self.outputs()
        torch.autograd.backward(outputs, self.upstream)
        return outputs

    def forget(self) -> None:
        """Drop the gradients."""
        for tensor in (*self.inputs, *self.parameters):
            tensor.grad = None

    def results(self) -> list[np.ndarray]:
        """Outputs in both modes and all gradients, in the order of NAMES, float64."""
        tensors = [*self.forward(), *self.training(), *(t.grad for t in (*self.inputs, *self.parameters[:3]))]
        return [tensor.detach().double().cpu().numpy() for tensor in tensors]


def cuda_graph(inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> Callable:
    """run_fused as a CUDA graph, forward and backward; a call copies x and the state into the graph's own memory."""

    def fused(x, h, c, *weights):
        hs, final = torch_sequence.run_fused(x, LSTMState(h[0], c[0]), LSTMParams(*weights))
        return hs, final.h[None], final.c[None]

    graph = torch.cuda.make_graphed_callables(fused, (*(t.detach().clone().requires_grad_() for t in inputs), *weights))

    def call(x, state):
        hs, *final = graph(x, *state, *weights)
        return hs, final

    return call


def by_numpy(given: Problem) -> list[np.ndarray]:
    """What ``Subject.results`` should be, by course_lib.sequence in float64."""
    x, h, c, dhs, dh, dc = (t.detach().double().cpu().numpy() for t in (*given.inputs, *given.upstream))
    params = LSTMParams(*(array.astype(np.float64) for array in given.params))
    hs, final, cache = lstm_forward(x, LSTMState(h[0], c[0]), params)
    dx, dinitial, dparams = lstm_backward(dhs, LSTMState(dh[0], dc[0]), cache)
    outputs = hs, *(part[None] for part in final)
    return [*outputs, *outputs, dx, *(part[None] for part in dinitial), *dparams]


def worst_error(got: list[np.ndarray], reference: list[np.ndarray], bound: float) -> float:
    """The largest ‖got - reference‖ / ‖reference‖ of the arrays of NAMES.

    Raises:   ArithmeticError: one passes the bound, or is NaN.
    """
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(got, reference, strict=True)]
    for name, error in zip(NAMES, errors, strict=True):
        if not error <= bound:
            raise ArithmeticError(f"{name} is off by {error:.2g} of its norm, allowed {bound:g}")
    return max(errors)


class Operators(TorchDispatchMode):
    """Within it, collects the names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def library(subject: Subject, mode: str) -> str:
    """What computes a torch.nn.LSTM: cuDNN or oneDNN, a whole sequence at a time, or ATen's own operators step by step."""
    with Operators() as operators:
        getattr(subject, mode)()
    names = " ".join(operators.names)
    return "cuDNN" if "_cudnn_rnn" in names else "oneDNN" if "mkldnn_rnn" in names else "ATen"


def memory_bytes(subject: Subject, mode: str, device: str) -> int | None:
    """Memory of one call, whose inputs and weights are not counted.

    CUDA: the most bytes allocated at any moment beyond those before it; of a CUDA graph, what it holds all the time. CPU: the
    bytes of all arrays that the forward pass keeps for the backward pass, each once; None without gradients.
    """
    subject.forget()
    if subject.held is not None:
        return subject.held
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        getattr(subject, mode)()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if mode == "forward":
        return None
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = subject.outputs()  # held until the sum is taken, lest an address be given out twice
    own = {tensor.untyped_storage().data_ptr() for tensor in (*subject.inputs, *subject.parameters)}
    total = sum(size for address, size in kept.items() if address not in own)
    del outputs
    return total
