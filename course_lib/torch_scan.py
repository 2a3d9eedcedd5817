"""A recurrence that time does not serialise: gates that see the input only, all steps computed by a scan in log2 T levels.

    h_t = a_t ⊙ h_{t-1} + b_t,          a_t and b_t from x_t alone

Two steps in a row are again such a step: (a, b) followed by (a', b') is (a' a, a' b + b'). This composition is associative,
so the steps may be paired in any order, as in a prefix sum. Nothing is divided by a product of gates and nothing is a
logarithm: gates of 0 or 1, and negative ones, are exact cases like any other.

``scan_loop`` is the definition. ``scan_parallel`` composes neighbours, which halves T, and fills in: 2 log2 T levels, fewer
than 2 T compositions. ``scan_chunked`` walks through all chunks side by side and carries their ends along: about 3 √T steps.

Reference: Blelloch, "Prefix sums and their applications", 1990; Martin & Cundy 2018; MinGRU: Feng et al. 2024; blocks and time
scales of the language model: De et al. 2024 (Griffin), Orvieto et al. 2023 (LRU).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from course_lib.shapes import ShapeError, check_shapes
from course_lib.torch_sequence import wide

WINDOW = 4  # inputs that the convolution of a block sees: this one and the three before it


def scan_loop(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """h_t = a_t ⊙ h_{t-1} + b_t, step by step; autograd records every step.

    Args:     a, b: (T, ...), such as (T, N, H). h0: (...), zeros if None.
    Returns:  h_1 to h_T, the shape of b.
    Raises:   ShapeError: naming the argument, what was expected and what came.
    """
    h, hs = _start(a, b, h0), []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        hs.append(h)
    return torch.stack(hs)


def scan_parallel(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """As scan_loop, in 2 log2 T levels of a tree; also differentiated by a scan (see ``LinearScan``)."""
    return LinearScan.apply(a, b, _start(a, b, h0), tree)


def scan_chunked(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """As scan_loop, in about 3 √T steps, most of them over all chunks at once; differentiated in the same way."""
    return LinearScan.apply(a, b, _start(a, b, h0), chunked)


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """As scan_loop, by what was the fastest in docs/measurements/scan_speed.md: the tree where a step is small work."""
    small = b.is_cuda or b.numel() < SMALL * len(b)
    return (scan_parallel if small else scan_chunked)(a, b, h0)


SMALL = 1024  # numbers in a step, from which on a CPU moves bytes rather than starts operations
SCANS = {"auto": scan, "loop": scan_loop, "parallel": scan_parallel, "chunked": scan_chunked}


class LinearScan(torch.autograd.Function):
    """The scan and its derivative, which is a scan as well, from the last step to the first.

    Let g_t = ∂L/∂h_t by the output h_t alone, and dh_t the total derivative. h_t acts on L directly and through h_{t+1}, so

        dh_t = g_t + a_{t+1} ⊙ dh_{t+1},   dh_T = g_T
        da_t = dh_t ⊙ h_{t-1},   db_t = dh_t,   dh_0 = a_1 ⊙ dh_1

    Kept for it: a and h, 2 numbers a step and unit.
    """

    @staticmethod
    def forward(ctx, a, b, h0, method):
        hs = torch.empty_like(b, memory_format=torch.contiguous_format)
        method(a, b, h0, hs, False)
        ctx.save_for_backward(a, h0, hs)
        ctx.method = method
        return hs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        a, h0, hs = ctx.saved_tensors
        dh, da = torch.empty_like(hs), torch.empty_like(hs)
        dh[-1] = g[-1]
        if len(a) > 1:
            ctx.method(a[1:], g[:-1], g[-1], dh[:-1], True)
        torch.mul(dh[0], h0, out=da[0])
        torch.mul(dh[1:], hs[:-1], out=da[1:])
        return da, dh, a[0] * dh[0], None


def tree(a: Tensor, b: Tensor, start: Tensor, out: Tensor, reverse: bool) -> None:
    """Compose each second step with the one before it, scan those half as many, and fill in the steps between.

    Args:     a, b, start: of the recurrence. out: (T, ...), filled with the states. reverse: from the last step to the first.
    """
    T = len(a)
    first = T - 1 if reverse else 0
    torch.addcmul(b[first], a[first], start, out=out[first])
    if T == 1:
        return
    second, before = slice(1, T, 2), slice(0, T - 1, 2)  # of each pair, in the order in which the steps act
    between = slice(2, T, 2)
    if reverse:
        second, before, between = slice(T % 2, T - 1, 2), slice(T % 2 + 1, T, 2), slice((T - 1) % 2, T - 2, 2)
    half_a, half_b = a[second] * a[before], torch.addcmul(b[second], a[second], b[before])
    half = torch.empty_like(half_b)
    tree(half_a, half_b, start, half, reverse)
    out[second] = half
    if T > 2:
        rest = out[between]
        previous = half[len(half) - len(rest) :] if reverse else half[: len(rest)]
        torch.addcmul(b[between], a[between], previous, out=rest)


def chunked(a: Tensor, b: Tensor, start: Tensor, out: Tensor, reverse: bool) -> None:
    """All chunks side by side, each from 0 but the first; then their ends in a row; then what each chunk began with.

    The states of a chunk that begins with h instead of 0 differ by h times the product of its gates up to there. Arguments as
    in ``tree``; what is left of T behind the last whole chunk is done step by step.
    """
    T = len(a)
    length = max(1, round(math.sqrt(T) / 2))  # half of √T: a step over all chunks costs more than one over the ends
    chunks = T // length
    whole = slice(T - chunks * length, T) if reverse else slice(0, chunks * length)
    A, B, H = (part[whole].unflatten(0, (chunks, length)) for part in (a, b, out))
    products = torch.empty_like(H)
    order = range(length)[::-1] if reverse else range(length)
    begin = torch.zeros_like(H[:, 0])
    begin[-1 if reverse else 0] = start
    last = None
    for t in order:
        torch.addcmul(B[:, t], A[:, t], begin if last is None else H[:, last], out=H[:, t])
        products[:, t] = A[:, t]
        if last is not None:
            products[:, t] *= products[:, last]
        last = t
    later = range(chunks - 1)[::-1] if reverse else range(1, chunks)
    back = 1 if reverse else -1
    for c in later:  # the ends first: each needs the one before it, complete
        H[c, last].addcmul_(products[c, last], H[c + back, last])
    inner = slice(1, None) if reverse else slice(0, -1)  # the steps of a chunk but its end
    after, ahead = (slice(0, -1), slice(1, None)) if reverse else (slice(1, None), slice(0, -1))
    H[after, inner].addcmul_(products[after, inner], H[ahead, last, None])
    h = H[0, 0] if reverse else H[-1, -1]
    for t in range(whole.start)[::-1] if reverse else range(whole.stop, T):
        h = torch.addcmul(b[t], a[t], h, out=out[t])


def _start(a: Tensor, b: Tensor, h0: Tensor | None) -> Tensor:
    """The initial state, after a look at all shapes."""
    if a.shape != b.shape or a.dim() == 0 or len(a) == 0:
        raise ShapeError(f"a, b: expected one shape (T, ...) with T of at least 1, got {tuple(a.shape)} and {tuple(b.shape)}")
    if h0 is None:
        return torch.zeros_like(b[0])
    if h0.shape != b.shape[1:]:
        raise ShapeError(f"h0: expected shape {tuple(b.shape[1:])}, that of a step, got {tuple(h0.shape)}")
    return h0


class MinGRU(nn.Module):
    """The GRU without h_{t-1} in its gates (Feng et al. 2024), called like our LSTM; a stack of layers.

        z_t = σ(W_z x_t + b_z);   h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ (W_g x_t + b_g)

    2H (D + 1) parameters a layer, where an LSTM has 4H (D + H + 1). 1 - z is computed as σ(-·): near 1 nothing cancels. The
    gates' biases start so that 1 / z, the steps for which a unit remembers, is spread from 1 to 100 over the units. The
    state is kept in float32 under autocast.

    Args:     input_size D, hidden_size H, num_layers L. method: a key of SCANS.
    Raises:   ValueError: naming the argument, what was expected and what came.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, method: str = "auto"):
        super().__init__()
        for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {size!r}")
        if method not in SCANS:
            raise ValueError(f"method: expected one of {', '.join(SCANS)}, got {method!r}")
        self.input_size, self.hidden_size, self.num_layers, self.method = input_size, hidden_size, num_layers, method
        widths = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(nn.Linear(width, 2 * hidden_size) for width in widths)  # rows: z, then the candidate
        for layer in self.layers:
            z = 100 ** -torch.linspace(0, 1, hidden_size + 2)[1:-1]
            with torch.no_grad():
                layer.bias[:hidden_size] = z.logit()
                layer.bias[hidden_size:] = 0

    def forward(self, x: Tensor, state: Tensor | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the stack over a sequence.

        Args:     x: (T, N, D). state: (L, N, H), zeros if None. lengths: (N,) steps of each stream that are not padding.
        Returns:  hs of the last layer (T, N, H), 0 at padding, and the final state (L, N, H).
        Raises:   ShapeError: naming the argument, what was expected and what came.
        """
        T, N = (check_shapes(W=(self.layers[0].weight, "H D"), x=(x, "T N D"))[letter] for letter in "TN")
        shape = (self.num_layers, N, self.hidden_size)
        if state is not None and tuple(state.shape) != shape:
            raise ShapeError(f"state: expected (L, N, H) = {shape}, got {tuple(state.shape)}")
        if lengths is not None and tuple(lengths.shape) != (N,):
            raise ShapeError(f"lengths: expected shape {(N,)}, N = {N} from x, got {tuple(lengths.shape)}")
        finals = []
        real = None if lengths is None else (torch.arange(T, device=x.device)[:, None] < lengths)[..., None]
        for depth, layer in enumerate(self.layers):
            k, g = wide(layer(x)).chunk(2, dim=2)
            a, b = torch.sigmoid(-k), torch.sigmoid(k) * g
            if real is not None:  # a padded step changes nothing
                a, b = torch.where(real, a, 1), torch.where(real, b, 0)
            x = SCANS[self.method](a, b, None if state is None else wide(state[depth]))
            finals.append(x[-1])
        return (x if real is None else x * real), torch.stack(finals)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One token of each stream: x (N, D), state (L, N, H) -> h of the last layer (N, H), the next state."""
        hs, state = self(x[None], state)
        return hs[0], state


class Block(nn.Module):
    """x + out(MinGRU(conv(norm x))), then x + MLP(norm x): what a stack of linear recurrences needs besides them.

    The norms and the residual sums keep it stable in depth. The convolution lets gates see the last WINDOW inputs instead of
    one, and the MLP is the nonlinearity between layers that the recurrence lacks.
    """

    def __init__(self, width: int, hidden_size: int, dropout: float, method: str):
        super().__init__()
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.taps = nn.Parameter(torch.empty(WINDOW, width).uniform_(-1, 1) / math.sqrt(WINDOW))
        self.mixer, self.out = MinGRU(width, hidden_size, method=method), nn.Linear(hidden_size, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (T, N, W), state: h (N, H) and the last WINDOW - 1 inputs of the convolution (N, WINDOW - 1, W)."""
        h, seen = state
        inputs = torch.cat([seen.transpose(0, 1), self.before(x)])
        mixed, h = self.mixer(sum(tap * inputs[k : k + len(x)] for k, tap in enumerate(self.taps)), h[None])
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.mlp(self.between(x))), (h[0], inputs[1 - WINDOW :].transpose(0, 1))


class ScanLanguageModel(nn.Module):
    """Embedding, blocks of MinGRU, norm, linear layer over the next token; called like ``torch_model.LanguageModel``.

    ``torch_model.evaluate`` and ``make_step`` take it as well: one step costs the same whatever came before.

    Args:     vocab_size V, width W of the residual stream, hidden_size H, num_layers L; dropout: rate, in training.
    """

    def __init__(
        self, vocab_size: int, width: int, hidden_size: int, num_layers: int = 2, dropout: float = 0.0, method: str = "auto"
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width, hidden_size, dropout, method) for _ in range(num_layers))
        self.norm, self.out, self.dropout = nn.RMSNorm(width), nn.Linear(width, vocab_size), nn.Dropout(dropout)
        self.hidden_size = hidden_size

    def initial_state(self, batch_size: int) -> tuple:
        """The state before the first token: for each block h and the convolution's inputs, zeros, streams on axis 0."""
        new = self.out.weight.new_zeros
        width = self.embedding.embedding_dim
        return tuple((new(batch_size, self.hidden_size), new(batch_size, WINDOW - 1, width)) for _ in self.blocks)

    def forward(self, tokens: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """tokens (T, N) -> logits of the next token at each position (T, N, V), and the state after the last."""
        x, states = self.dropout(self.embedding(tokens)), []
        for block, before in zip(self.blocks, state, strict=True):
            x, after = block(x, before)
            states.append(after)
        return wide(self.out(self.norm(x))), tuple(states)
