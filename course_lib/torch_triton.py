"""The recurrence of an LSTM as Triton kernels: all time steps inside one launch, forward and backward.

``torch_kernels`` calls these and says what they cost; here is how they work. A program (a group of threads that shares one
part of the GPU, a streaming multiprocessor) owns BLOCK_N streams and every one of their H units, so that no program ever waits
for another. In each pair of kernels

    ``*_resident``   reads W_hh once, before the time loop; h and c, dh and dc never leave the chip;
    ``*_streamed``   reads W_hh again in every step, tile by tile; the states go through memory, so all threads of the
                     program have to meet (``tl.debug_barrier``) before one may read what another has written.

Blocks have sizes that are powers of two, and are cut to N and H by masks: a masked load gives 0, a masked store does nothing.
Pointers move by one time step at a time, so no 32-bit offset ever spans more than one. In the time loop n, j and k number
streams, units and units of the step before.

Triton reads TRITON_INTERPRET when this module is imported: with 1 its kernels run on the CPU, in NumPy, one program after the
other. That shows every mistake of arithmetic, mask and index, but no missing barrier.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def sigmoid(a):
    """σ(a), by the exponential of a number that is never positive: it cannot overflow."""
    e = tl.exp(-tl.abs(a))
    return tl.where(a >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def tanh(a):
    """tanh(a) likewise; its error is a rounding of 1, not of the result, which sums of outputs near 1 do not notice."""
    e = tl.exp(-2.0 * tl.abs(a))
    return tl.where(a >= 0, 1.0 - e, e - 1.0) / (1.0 + e)


@triton.jit
def cell(a_i, a_f, a_g, a_o, c):
    """From the pre-activations and the cell state before: the gates, and the states h and c after."""
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
    c = f * c + i * g
    return i, f, g, o, o * tanh(c), c


@triton.jit
def cell_backward(i, f, g, o, c_prev, c, dh, dc):
    """From dL/dh and dL/dc after a step: da of the four gates, and dL/dc before it."""
    tanh_c = tanh(c)
    dc = dc + dh * o * (1.0 - tanh_c * tanh_c)
    da_i, da_f, da_g = dc * g * i * (1.0 - i), dc * c_prev * f * (1.0 - f), dc * i * (1.0 - g * g)
    return da_i, da_f, da_g, dh * tanh_c * o * (1.0 - o), dc * f


@triton.jit
def product(acc, a, b, PRECISION: tl.constexpr):
    """acc + a b, summed in acc's type. PRECISION: "ieee", or "tf32" for float32 rounded to 10 bits after the point."""
    if INTERPRETED:  # NumPy has no bfloat16, and Triton 3.7 would multiply its bits as if they were integers
        a, b = a.to(acc.dtype), b.to(acc.dtype)
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def load_four(start, apart, mask):
    """The same block of the gates i, f, g and o, which lie ``apart`` numbers from each other."""
    i, f = tl.load(start, mask=mask, other=0), tl.load(start + apart, mask=mask, other=0)
    g, o = tl.load(start + 2 * apart, mask=mask, other=0), tl.load(start + 3 * apart, mask=mask, other=0)
    return i, f, g, o


@triton.jit
def store_four(start, apart, mask, i, f, g, o):
    """The reverse of load_four, in the type of the memory."""
    tl.store(start, i.to(start.dtype.element_ty), mask=mask)
    tl.store(start + apart, f.to(start.dtype.element_ty), mask=mask)
    tl.store(start + 2 * apart, g.to(start.dtype.element_ty), mask=mask)
    tl.store(start + 3 * apart, o.to(start.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["T", "N"])
def forward_resident(
    gates, W_hh, hs, cs, lengths, T, N, H: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr
):
    """gates (T, N, 4H): x W_ihᵀ + b, replaced by i, f, g, o. hs, cs (T + 1, N, H): rows 1 to T are written. BLOCK_H >= H."""
    n, j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_H)
    block = (n < N)[:, None] & (j < H)[None, :]
    state, gate = n[:, None] * H + j[None, :], n[:, None] * (4 * H) + j[None, :]
    length = tl.load(lengths + n, mask=n < N, other=0)
    # W_hhᵀ, a column a unit, each gate by itself: a_i, a_f, a_g and a_o then lie in the same threads.
    W_i, W_f, W_g, W_o = load_four(W_hh + j[None, :] * H + j[:, None], H * H, (j < H)[None, :] & (j < H)[:, None])
    h, c = tl.load(hs + state, mask=block, other=0), tl.load(cs + state, mask=block, other=0)
    for t in range(T):
        a_i, a_f, a_g, a_o = load_four(gates + gate, H, block)  # asked for before the products, needed after them
        a_i, a_f = product(a_i.to(c.dtype), h, W_i, PRECISION), product(a_f.to(c.dtype), h, W_f, PRECISION)
        a_g, a_o = product(a_g.to(c.dtype), h, W_g, PRECISION), product(a_o.to(c.dtype), h, W_o, PRECISION)
        i, f, g, o, new_h, c = cell(a_i, a_f, a_g, a_o, c)
        h = new_h.to(h.dtype)
        hs += N * H
        cs += N * H
        store_four(gates + gate, H, block, i, f, g, o)
        tl.store(cs + state, c, mask=block)
        tl.store(hs + state, tl.where((t < length)[:, None], new_h, 0.0).to(h.dtype), mask=block)
        gates += N * 4 * H


@triton.jit(do_not_specialize=["T", "N"])
def forward_streamed(
    gates, W_hh, hs, cs, lengths, T, N, H: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr
):
    """As forward_resident, for any H: BLOCK_H units at a time, from BLOCK_H units of the step before at a time."""
    n, tile = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_H)
    length = tl.load(lengths + n, mask=n < N, other=0)
    for t in range(T):
        for first_j in range(0, H, BLOCK_H):
            j = first_j + tile
            block = (n < N)[:, None] & (j < H)[None, :]
            state, gate = n[:, None] * H + j[None, :], n[:, None] * (4 * H) + j[None, :]
            c = tl.load(cs + state, mask=block, other=0)
            a_i, a_f, a_g, a_o = load_four(gates + gate, H, block)
            a_i, a_f, a_g, a_o = a_i.to(c.dtype), a_f.to(c.dtype), a_g.to(c.dtype), a_o.to(c.dtype)
            for first_k in range(0, H, BLOCK_H):
                k = first_k + tile
                h = tl.load(hs + n[:, None] * H + k[None, :], mask=(n < N)[:, None] & (k < H)[None, :], other=0)
                weights = (j < H)[None, :] & (k < H)[:, None]
                W_i, W_f, W_g, W_o = load_four(W_hh + j[None, :] * H + k[:, None], H * H, weights)
                a_i, a_f = product(a_i, h, W_i, PRECISION), product(a_f, h, W_f, PRECISION)
                a_g, a_o = product(a_g, h, W_g, PRECISION), product(a_o, h, W_o, PRECISION)
            i, f, g, o, new_h, c = cell(a_i, a_f, a_g, a_o, c)
            store_four(gates + gate, H, block, i, f, g, o)
            tl.store(cs + N * H + state, c, mask=block)
            new_h = tl.where((t < length)[:, None], new_h, 0.0)
            tl.store(hs + N * H + state, new_h.to(hs.dtype.element_ty), mask=block)
        tl.debug_barrier()  # the next step reads every unit of this one
        hs += N * H
        cs += N * H
        gates += N * 4 * H


@triton.jit(do_not_specialize=["T", "N"])
def backward_resident(
    gates, W_hh, cs, lengths, dhs, da, dh_end, dc_end, T, N,
    H: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """da (T, N, 4H) is written; dh_end and dc_end (N, H) hold dL/dh_T and dL/dc_T, then dL/dh_0 and dL/dc_0.

    gates, cs, dhs and da point at the last step. A padded step passes dh and dc on unchanged, and its da is 0: so the final
    state's gradient arrives at each stream's last real step, or at the initial state of a stream that has none.
    """
    n, j = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_H)
    block = (n < N)[:, None] & (j < H)[None, :]
    state, gate = n[:, None] * H + j[None, :], n[:, None] * (4 * H) + j[None, :]
    length = tl.load(lengths + n, mask=n < N, other=0)
    W_i, W_f, W_g, W_o = load_four(W_hh + j[:, None] * H + j[None, :], H * H, (j < H)[:, None] & (j < H)[None, :])
    dh, dc = tl.load(dh_end + state, mask=block, other=0), tl.load(dc_end + state, mask=block, other=0)
    c = tl.load(cs + state, mask=block, other=0)
    for back in range(T):
        real = (T - 1 - back < length)[:, None]
        i, f, g, o = load_four(gates + gate, H, block)
        i, f, g, o = i.to(dc.dtype), f.to(dc.dtype), g.to(dc.dtype), o.to(dc.dtype)
        cs -= N * H
        c_prev = tl.load(cs + state, mask=block, other=0)
        dh += tl.load(dhs + state, mask=block & real, other=0).to(dh.dtype)
        da_i, da_f, da_g, da_o, dc_prev = cell_backward(i, f, g, o, c_prev, c, dh, dc)
        da_i, da_f = tl.where(real, da_i, 0.0).to(W_i.dtype), tl.where(real, da_f, 0.0).to(W_i.dtype)
        da_g, da_o = tl.where(real, da_g, 0.0).to(W_i.dtype), tl.where(real, da_o, 0.0).to(W_i.dtype)
        store_four(da + gate, H, block, da_i, da_f, da_g, da_o)
        dh_prev = product(product(tl.full((BLOCK_N, BLOCK_H), 0, dh.dtype), da_i, W_i, PRECISION), da_f, W_f, PRECISION)
        dh_prev = product(product(dh_prev, da_g, W_g, PRECISION), da_o, W_o, PRECISION)
        dh, dc, c = tl.where(real, dh_prev, dh), tl.where(real, dc_prev, dc), c_prev
        dhs -= N * H
        gates -= N * 4 * H
        da -= N * 4 * H
    tl.store(dh_end + state, dh, mask=block)
    tl.store(dc_end + state, dc, mask=block)


@triton.jit(do_not_specialize=["T", "N"])
def backward_streamed(
    gates, W_hh, cs, lengths, dhs, da, dh_end, dc_end, T, N,
    H: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """As backward_resident, for any H. dh_end and dc_end hold dh and dc between the steps; a step goes over the units twice."""
    n, tile = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_H)
    length = tl.load(lengths + n, mask=n < N, other=0)
    for back in range(T):
        real = (T - 1 - back < length)[:, None]
        for first_j in range(0, H, BLOCK_H):  # da of this step, from its dh and dc
            j = first_j + tile
            block = (n < N)[:, None] & (j < H)[None, :]
            state, gate = n[:, None] * H + j[None, :], n[:, None] * (4 * H) + j[None, :]
            dh, dc = tl.load(dh_end + state, mask=block, other=0), tl.load(dc_end + state, mask=block, other=0)
            i, f, g, o = load_four(gates + gate, H, block)
            i, f, g, o = i.to(dc.dtype), f.to(dc.dtype), g.to(dc.dtype), o.to(dc.dtype)
            c, c_prev = tl.load(cs + state, mask=block, other=0), tl.load(cs - N * H + state, mask=block, other=0)
            dh += tl.load(dhs + state, mask=block & real, other=0).to(dh.dtype)
            da_i, da_f, da_g, da_o, dc_prev = cell_backward(i, f, g, o, c_prev, c, dh, dc)
            da_i, da_f = tl.where(real, da_i, 0.0), tl.where(real, da_f, 0.0)
            da_g, da_o = tl.where(real, da_g, 0.0), tl.where(real, da_o, 0.0)
            store_four(da + gate, H, block, da_i, da_f, da_g, da_o)
            tl.store(dc_end + state, dc_prev, mask=block & real)
        tl.debug_barrier()  # below, each unit needs da of all
        for first_k in range(0, H, BLOCK_H):  # dh of the step before, from da of this one
            k = first_k + tile
            dh_prev = tl.full((BLOCK_N, BLOCK_H), 0, dh_end.dtype.element_ty)
            for first_j in range(0, H, BLOCK_H):
                j = first_j + tile
                block = (n < N)[:, None] & (j < H)[None, :]
                weights = (j < H)[:, None] & (k < H)[None, :]
                da_i, da_f, da_g, da_o = load_four(da + n[:, None] * (4 * H) + j[None, :], H, block)
                W_i, W_f, W_g, W_o = load_four(W_hh + j[:, None] * H + k[None, :], H * H, weights)
                dh_prev = product(product(dh_prev, da_i, W_i, PRECISION), da_f, W_f, PRECISION)
                dh_prev = product(product(dh_prev, da_g, W_g, PRECISION), da_o, W_o, PRECISION)
            tl.store(dh_end + n[:, None] * H + k[None, :], dh_prev, mask=(n < N)[:, None] & (k < H)[None, :] & real)
        tl.debug_barrier()  # the next step reads every unit's dh
        cs -= N * H
        dhs -= N * H
        gates -= N * 4 * H
        da -= N * 4 * H
