"""Mixture-of-head attention in Triton: only the rows (token, head) that a router selected are computed.

A first kernel lists, for each head, the tokens whose gate is not 0, and behind them the others; the second computes
softmax attention of blocks of that list against all keys, multiplies by the gates and writes each row to its place,
zeros for the rest. Keys and values stay whole: other tokens need them.

Numerics. bf16 or fp16 inputs, products and the running softmax in float32, weights rounded to the inputs' dtype before
they meet the values, gates applied in float32. Each row is written once: two runs agree bitwise. The backward pass is
plain PyTorch with the n x m matrix of every head.

Limits: head width up to 256 (what is no power of two is padded), the last axis contiguous (else it is copied). A head's
rows are computed in blocks, so that short sequences gain less than the share of heads left out. float32 is right, not
fast. On a CPU `theory.operators.moh` answers. Source: Jin et al., arXiv:2410.11842; their released code computes all
heads.

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 786 TFLOP/s, a copy 4.22
    TB/s.
Measured: shared=16 tokens=16384: 5.35 ms, 436 TFLOP/s, 56% of the ceiling; SDPA/flash takes 1.45 times as long [1.45,
    1.45], SDPA/cudnn takes 0.91 times as long [0.91, 0.92], masking/flash takes 1.47 times as long [1.46, 1.48], alone
    takes 0.97 times as long [0.96, 0.97], SDPA/flash alone takes 1.42 times as long [1.42, 1.43], SDPA/cudnn alone
    takes 0.88 times as long [0.88, 0.89].
Measured: shared=14 tokens=16384: 4.97 ms, 429 TFLOP/s, 55% of the ceiling; SDPA/flash takes 1.57 times as long [1.57,
    1.57], SDPA/cudnn takes 0.99 times as long [0.99, 0.99], masking/flash takes 1.59 times as long [1.59, 1.59], alone
    takes 0.96 times as long [0.96, 0.96], SDPA/flash alone takes 1.53 times as long [1.53, 1.54], SDPA/cudnn alone
    takes 0.95 times as long [0.95, 0.95].
Measured: shared=12 tokens=16384: 4.1 ms, 436 TFLOP/s, 56% of the ceiling; SDPA/flash takes 1.90 times as long [1.90,
    1.90], SDPA/cudnn takes 1.20 times as long [1.20, 1.20], masking/flash takes 1.92 times as long [1.92, 1.93], alone
    takes 0.96 times as long [0.95, 0.96], SDPA/flash alone takes 1.85 times as long [1.85, 1.86], SDPA/cudnn alone
    takes 1.15 times as long [1.14, 1.16].
Measured: shared=8 tokens=16384: 2.82 ms, 439 TFLOP/s, 56% of the ceiling; SDPA/flash takes 2.76 times as long [2.75,
    2.76], SDPA/cudnn takes 1.74 times as long [1.73, 1.74], masking/flash takes 2.78 times as long [2.78, 2.79], alone
    takes 0.94 times as long [0.93, 0.94], SDPA/flash alone takes 2.69 times as long [2.67, 2.71], SDPA/cudnn alone
    takes 1.67 times as long [1.65, 1.68].
-- end of what was measured --
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.arguments import check_attention, check_groups, rows, runs, strides
from theory.operators.attention import softmax
from theory.operators.moh import gated_heads

WIDEST = 256
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _list(Gates, Order, Counts, tokens, heads, gb, gt, gh, N: tl.constexpr):
    """Tokens of one head, selected ones first, in their order, and how many: program (batch * heads)."""
    batch, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    Order += tl.program_id(0).to(tl.int64) * tokens
    taken = tl.program_id(0) * 0
    for start in range(0, tokens, N):
        step = tl.arange(0, N)
        inside = start + step < tokens
        gate = tl.load(Gates + batch * gb + (start + step).to(tl.int64) * gt + head * gh, mask=inside, other=0.0)
        selected = (gate != 0).to(tl.int32)
        before = tl.cumsum(selected, 0) - selected
        at = tl.where(selected != 0, taken + before, tokens - 1 - (start - taken + step - before))
        tl.store(Order + at, start + step, mask=inside)
        taken += tl.sum(selected, 0)
    tl.store(Counts + tl.program_id(0), taken)


@triton.jit
def _tile(base, rows, stride, last, D: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr):
    """Rows (R,) of a matrix with `last` rows and D columns, as (R, WIDTH), zeros beyond; WHOLE: nothing is beyond."""
    columns = tl.arange(0, WIDTH)
    at = base + rows[:, None].to(tl.int64) * stride + columns[None, :]
    if WHOLE:
        return tl.load(at)
    return tl.load(at, mask=(rows[:, None] < last) & (columns[None, :] < D), other=0.0)


@triton.jit
def _step(
    q, K, V, o, top, total, start, rows, shift, keys, kn, vn, scale,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr, CAUSAL: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """One block of keys: the output, the largest score (times log2 e) and the sum so far, each of (M,)."""
    columns = start + tl.arange(0, N)
    k = _tile(K, columns, kn, keys, D, WIDTH, WHOLE)
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if MASKED:
        seen = columns[None, :] < keys
        if CAUSAL:
            seen = seen & (columns[None, :] <= rows[:, None] + shift)
        s = tl.where(seen, s, float("-inf"))
    higher = tl.maximum(top, tl.max(s, 1) * scale)
    against = tl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
    P = tl.exp2(s * scale - against[:, None])
    shrink = tl.exp2(top - against)
    v = _tile(V, columns, vn, keys, D, WIDTH, WHOLE)
    o = tl.dot(P.to(v.dtype), v, o * shrink[:, None], input_precision="ieee")
    return o, higher, total * shrink + tl.sum(P, 1)


@triton.jit
def _attend(
    Q, K, V, Gates, Order, Counts, Out, scale, tokens, keys, heads, group,
    qb, qh, qn, kb, kh, kn, vb, vh, vn, gb, gt, gh,
    D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """One block of the list of one head: program (block, batch * heads). `scale` holds log2 e; it is positive."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    across = tl.arange(0, WIDTH)
    place = tl.program_id(0) * M + tl.arange(0, M)
    count = tl.load(Counts + tl.program_id(1))
    listed, selected = place < tokens, place < count
    Order += tl.program_id(1).to(tl.int64) * tokens
    rows = tl.load(Order + place, mask=listed, other=0)
    at = Q + batch * qb + head * qh + rows[:, None].to(tl.int64) * qn + across[None, :]
    q = tl.load(at, mask=selected[:, None] & (across[None, :] < D), other=0.0)
    K, V = K + batch * kb + head // group * kh, V + batch * vb + head // group * vh
    o = tl.zeros((M, WIDTH), tl.float32)
    top, total = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32)
    shift, free, last = keys - tokens, keys // N * N, keys
    if CAUSAL:  # the list is in order: the first row sees the fewest keys, the last selected one the most
        first = tl.load(Order + tl.program_id(0) * M) + shift + 1
        final = tl.load(Order + tl.minimum((tl.program_id(0) + 1) * M, count) - 1, mask=count > 0, other=0) + shift + 1
        free, last = tl.maximum(tl.minimum(first, keys), 0) // N * N, tl.minimum(final, keys)
    if tl.program_id(0) * M >= count:
        free, last = 0, 0
    for start in range(0, free, N):
        o, top, total = _step(
            q, K, V, o, top, total, start, rows, shift, keys, kn, vn, scale, D, WIDTH, N, False, CAUSAL, D == WIDTH
        )
    if CAUSAL or not WHOLE:
        for start in range(free, last, N):
            o, top, total = _step(
                q, K, V, o, top, total, start, rows, shift, keys, kn, vn, scale, D, WIDTH, N, True, CAUSAL, False
            )
    at = batch * gb + rows.to(tl.int64) * gt + head * gh
    gate = tl.load(Gates + at, mask=selected, other=0.0).to(tl.float32)
    o = o * (gate / tl.where(total == 0, 1.0, total))[:, None]
    to = Out + ((batch * tokens + rows) * heads + head)[:, None] * D + across[None, :]
    tl.store(to, o.to(Out.dtype.element_ty), mask=listed[:, None] & (across[None, :] < D))


# -- the operator ------------------------------------------------------------------------------------------------------


def moh_attention(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *, causal: bool = False, scale: float | None = None
) -> Tensor:
    """Heads of softmax attention times their gates, side by side; heads with a gate of exactly 0 cost nothing.

    Args:
        q: (batch, heads, tokens, D), float32, bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (batch, key heads, keys, D); each key head serves heads / key heads query heads.
        gates: (batch, tokens, heads), any floating dtype, such as `theory.operators.moh.gates` gives.
        causal: token i sees keys up to i + keys - tokens.
        scale: 1 / sqrt(D) unless given; positive.

    Returns:
        (batch, tokens, heads * D) in the dtype of q; times W_O it is the layer's output. Rows that see nothing are 0.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    _check(q, k, v, gates)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale is {scale}: give a positive number")
    return _operator(q, k, v, gates, causal, scale)


def reference(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    """The same by `theory.operators.moh.gated_heads`, all heads with their n x m matrices, in the dtype of q."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    mask = _mask(q, k) if causal else None
    output: Tensor = gated_heads(q, k, v, gates.to(q.dtype), mask=mask, scale=scale)
    return output


def _mask(q: Tensor, k: Tensor) -> Tensor:
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])


def _check(q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> None:
    check_attention(q, k, v)
    if k.shape != v.shape or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in batch, keys or width"
        )
    check_groups(q, k)
    if gates.shape != (q.shape[0], q.shape[2], q.shape[1]) or not gates.is_floating_point() or gates.device != q.device:
        raise ValueError(f"gates are {gates.dtype} {tuple(gates.shape)} on {gates.device}: give (batch, tokens, heads)")


def runs_here(q: Tensor) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    narrow = q.dtype in (torch.bfloat16, torch.float16, torch.float32) and 0 < q.shape[-1] <= WIDEST
    return narrow and runs(_attend, q)


@torch.library.custom_op("attest::moh_attention", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    if not runs_here(q) or k.shape[2] == 0:
        return _slow(q, k, v, gates, causal, scale)
    q, k, v = (rows(x) for x in (q, k, v))
    batch, heads, tokens, width = q.shape
    out = torch.empty(batch, tokens, heads * width, dtype=q.dtype, device=q.device)
    order, counts = _lists(gates)
    size = _size(width, q.element_size(), tokens)
    _attend[(triton.cdiv(tokens, size["M"]), batch * heads)](
        q, k, v, gates, order, counts, out, scale * LOG2_E.value, tokens, k.shape[2], heads, heads // k.shape[1],
        *strides(q, k, v, gates), CAUSAL=causal, WHOLE=k.shape[2] % size["N"] == 0, **size,
    )  # fmt: skip
    return out


def _lists(gates: Tensor) -> tuple[Tensor, Tensor]:
    """Order (batch * heads, tokens) and how many of them are selected (batch * heads,), int32."""
    batch, tokens, heads = gates.shape
    order = torch.empty(batch * heads, tokens, dtype=torch.int32, device=gates.device)
    counts = torch.empty(batch * heads, dtype=torch.int32, device=gates.device)
    block = min(1024, max(32, triton.next_power_of_2(tokens)))
    _list[(batch * heads,)](gates, order, counts, tokens, heads, *gates.stride(), N=block)
    return order, counts


def _slow(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    if q.numel() == 0 or k.shape[2] == 0:
        return q.new_zeros(q.shape[0], q.shape[2], q.shape[1] * q.shape[3])
    return reference(q, k, v, gates, causal, scale)


@torch.library.custom_op("attest::moh_attention_backward", mutates_args=())
def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """With whole matrices: within an operator autograd does not record."""
    if q.numel() == 0 or k.shape[2] == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(gates)
    group, key_heads = q.shape[1] // k.shape[1], k.shape[1]
    wide_k, wide_v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    P = softmax(q, wide_k, mask=_mask(q, k) if causal else None, scale=scale)
    do = do.unflatten(2, (q.shape[1], q.shape[3])).transpose(1, 2)
    dgates = (do * (P @ wide_v)).sum(-1).transpose(1, 2)
    dH = do * gates.transpose(1, 2).unsqueeze(-1).to(q.dtype)
    dP = dH @ wide_v.mT
    dS = scale * P * (dP - (dP * P).sum(-1, keepdim=True))
    dk, dv = (x.unflatten(1, (key_heads, group)).sum(2) for x in (dS.mT @ q, P.mT @ dH))
    return dS @ wide_k, dk, dv, dgates.to(gates.dtype).contiguous()


def _size(width: int, bytes_each: int, tokens: int) -> dict[str, int]:
    """Blocks: rows as many as shared memory holds beside the pipeline's copies, fewer where a list is short."""
    padded = max(16, triton.next_power_of_2(width))
    rows = 128 if padded * bytes_each <= 256 and tokens > 1024 else 64
    return {"D": width, "WIDTH": padded, "M": rows, "N": 64 if padded * bytes_each <= 256 else 32,
            "num_warps": 8 if rows == 128 and padded > 64 else 4}  # fmt: skip


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(do, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None


_operator.register_fake(
    lambda q, k, v, gates, causal, scale: q.new_empty((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]))
)
_backward.register_fake(lambda do, q, k, v, gates, *rest: tuple(x.new_empty(x.shape) for x in (q, k, v, gates)))
_operator.register_autograd(_differentiate, setup_context=_keep)
