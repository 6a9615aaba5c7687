"""FlashSigmoid in Triton: o_i = sum_j sigma(scale q_i.k_j + b - slope |i - j|) v_j, without the n x m matrix in memory.

Sigmoid attention needs no row maximum and no row sum, so that blocks of keys simply add up, and its backward pass no
-rowsum(dO * O) term. On a Hopper GPU `flash_sigmoid_hopper` and `flash_sigmoid_hopper_backward` answer where they can,
elsewhere the kernels here. With P_ij the weight and dP = dO V^T:

    dV = P^T dO,   dS = P (1 - P) dP,   dQ = scale dS K,   dK = scale dS^T Q.

Numerics. bf16 or fp16 inputs, products accumulated in float32, P and dS rounded to the inputs' dtype before they are
multiplied. The sigmoid is 1 / (1 + exp2(-z log2 e)), of full relative accuracy however negative z is; that is where
attention with b = -ln m lives. On Hopper the weights of bfloat16 have an error of 3e-3 of themselves, root mean square,
twice what rounding them costs; it averages out over keys unless all weights are alike, as all 1 are. Memory: inputs and
outputs. The backward pass recomputes P in two kernels, one a block of keys and one a block of queries, so that nothing
is added atomically; on Hopper in one, whose sums are added in a fixed order. Two runs agree bitwise.

Limits: head width up to 256 (what is no power of two is padded), the last axis contiguous (else it is copied). Biases
are numbers or (heads,); they and the slopes of ALiBi get no gradient. Positions of queries and keys end together. On a
CPU `theory.operators.attention.sigmoid` answers. Triton's interpreter runs the kernels in float16 and float32; bfloat16
it multiplies as integers (Triton 3.9). Source: Ramapuram et al., arXiv:2409.04431, section 4 and appendix.

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 786 TFLOP/s, a copy 4.23
    TB/s.
Measured: width=64 queries=16384: 3.71 ms, 592 TFLOP/s, 75% of the ceiling; SDPA/flash takes 2.07 times as long [2.06,
    2.07], SDPA/cudnn takes 1.28 times as long [1.28, 1.29], softmax twin takes 1.23 times as long [1.23, 1.24],
    sigmoid with row maximum takes 1.40 times as long [1.39, 1.40], sigmoid in float32 takes 1.16 times as long [1.16,
    1.17], exp and divide takes 1.54 times as long [1.53, 1.55], tanh takes 1.01 times as long [1.01, 1.02].
Measured: width=64 causal queries=16384: 1.94 ms, 567 TFLOP/s, 72% of the ceiling; SDPA/flash takes 1.96 times as long
    [1.95, 1.96], SDPA/cudnn takes 1.24 times as long [1.24, 1.25], softmax twin takes 1.47 times as long [1.46, 1.47],
    sigmoid with row maximum takes 1.73 times as long [1.72, 1.74], sigmoid in float32 takes 1.18 times as long [1.17,
    1.19], exp and divide takes 1.55 times as long [1.54, 1.55], tanh takes 1.10 times as long [1.09, 1.10].
Measured: width=128 queries=16384: 3.03 ms, 727 TFLOP/s, 93% of the ceiling; SDPA/flash takes 2.37 times as long [2.37,
    2.38], SDPA/cudnn takes 1.17 times as long [1.16, 1.17], softmax twin takes 1.26 times as long [1.25, 1.27],
    sigmoid with row maximum takes 1.34 times as long [1.33, 1.35], sigmoid in float32 takes 1.13 times as long [1.12,
    1.14], exp and divide takes 1.26 times as long [1.24, 1.27], tanh takes 1.02 times as long [1.01, 1.03].
Measured: width=128 causal queries=16384: 1.63 ms, 673 TFLOP/s, 86% of the ceiling; SDPA/flash takes 2.40 times as long
    [2.37, 2.41], SDPA/cudnn takes 1.19 times as long [1.19, 1.20], softmax twin takes 1.26 times as long [1.26, 1.26],
    sigmoid with row maximum takes 1.25 times as long [1.25, 1.26], sigmoid in float32 takes 1.09 times as long [1.08,
    1.09], exp and divide takes 1.24 times as long [1.23, 1.24], tanh takes 1.01 times as long [1.00, 1.01].
Measured: width=64 backward queries=16384: 11 ms, 499 TFLOP/s, 64% of the ceiling; SDPA/flash takes 1.85 times as long
    [1.85, 1.86], SDPA/cudnn takes 1.08 times as long [1.07, 1.09].
Measured: width=64 causal backward queries=16384: 5.51 ms, 499 TFLOP/s, 64% of the ceiling; SDPA/flash takes 1.92 times
    as long [1.92, 1.92], SDPA/cudnn takes 1.14 times as long [1.14, 1.15].
Measured: width=128 backward queries=16384: 9.08 ms, 605 TFLOP/s, 77% of the ceiling; SDPA/flash takes 2.14 times as
    long [2.12, 2.16], SDPA/cudnn takes 1.05 times as long [1.04, 1.06].
Measured: width=128 causal backward queries=16384: 4.72 ms, 582 TFLOP/s, 74% of the ceiling; SDPA/flash takes 2.07
    times as long [2.07, 2.07], SDPA/cudnn takes 1.07 times as long [1.07, 1.08].
-- end of what was measured --
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.arguments import check_attention, check_groups, is_hopper, rows, runs, strides
from theory.operators.attention import sigmoid

WIDEST = 256
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _weights(q, k, rows, columns, scale, bias, slope, queries, keys, CAUSAL: tl.constexpr, ALIBI: tl.constexpr):
    """P of a block, float32: q (M, D), k (N, D), rows (M,) and columns (N,) their positions."""
    back = rows[:, None] + (keys - queries) - columns[None, :]
    z = tl.dot(q, tl.trans(k), input_precision="ieee") * scale + bias
    if ALIBI:
        z -= slope * tl.abs(back).to(tl.float32)
    P = 1 / (1 + tl.exp2(-z * LOG2_E))
    seen = (rows[:, None] < queries) & (columns[None, :] < keys)
    if CAUSAL:
        seen = seen & (back >= 0)
    return tl.where(seen, P, 0.0)


@triton.jit
def _block(base, rows, stride, count, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (M,) of a matrix with `count` rows of D, as (M, WIDTH); zeros beyond."""
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (columns[None, :] < D)
    return tl.load(base + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _write(base, rows, stride, count, value, D: tl.constexpr, WIDTH: tl.constexpr):
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (columns[None, :] < D)
    tl.store(base + rows[:, None].to(tl.int64) * stride + columns[None, :], value, mask=inside)


@triton.jit
def _forward(
    Q, K, V, Out, biases, slopes, scale, queries, keys, heads, group,
    qb, qh, qn, kb, kh, kn, vb, vh, vn, ob, oh, on,
    D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: program (block, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    q = _block(Q + batch * qb + head * qh, rows, qn, queries, D, WIDTH)
    k_base, v_base = K + batch * kb + head // group * kh, V + batch * vb + head // group * vh
    bias, slope = tl.load(biases + head), tl.load(slopes + head) if ALIBI else 0.0
    o = tl.zeros((M, WIDTH), tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * M + keys - queries)
    for start in range(0, last, N):
        columns = start + tl.arange(0, N)
        k = _block(k_base, columns, kn, keys, D, WIDTH)
        v = _block(v_base, columns, vn, keys, D, WIDTH)
        P = _weights(q, k, rows, columns, scale, bias, slope, queries, keys, CAUSAL, ALIBI)
        o = tl.dot(P.to(v.dtype), v, o, input_precision="ieee")
    _write(Out + batch * ob + head * oh, rows, on, queries, o.to(Out.dtype.element_ty), D, WIDTH)


@triton.jit
def _backward_keys(
    Q, K, V, dO, dK, dV, biases, slopes, scale, queries, keys, heads, group,
    qb, qh, qn, kb, kh, kn, vb, vh, vn, ob, oh, on, dkb, dkh, dkn, dvb, dvh, dvn,
    D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys: program (block, batch * key heads); the group's query heads one after another."""
    key_heads = heads // group
    batch, key_head = (tl.program_id(1) // key_heads).to(tl.int64), (tl.program_id(1) % key_heads).to(tl.int64)
    columns = tl.program_id(0) * N + tl.arange(0, N)
    k = _block(K + batch * kb + key_head * kh, columns, kn, keys, D, WIDTH)
    v = _block(V + batch * vb + key_head * vh, columns, vn, keys, D, WIDTH)
    dk, dv = tl.zeros((N, WIDTH), tl.float32), tl.zeros((N, WIDTH), tl.float32)
    first = 0
    if CAUSAL:
        first = tl.maximum(0, tl.program_id(0) * N - (keys - queries)) // M * M
    for member in range(group):
        head = key_head * group + member
        bias, slope = tl.load(biases + head), tl.load(slopes + head) if ALIBI else 0.0
        for start in range(first, queries, M):
            rows = start + tl.arange(0, M)
            q = _block(Q + batch * qb + head * qh, rows, qn, queries, D, WIDTH)
            do = _block(dO + batch * ob + head * oh, rows, on, queries, D, WIDTH)
            P = _weights(q, k, rows, columns, scale, bias, slope, queries, keys, CAUSAL, ALIBI)
            dv = tl.dot(tl.trans(P.to(do.dtype)), do, dv, input_precision="ieee")
            dS = P * (1 - P) * tl.dot(do, tl.trans(v), input_precision="ieee")
            dk = tl.dot(tl.trans(dS.to(q.dtype)), q, dk, input_precision="ieee")
    _write(dK + batch * dkb + key_head * dkh, columns, dkn, keys, (dk * scale).to(dK.dtype.element_ty), D, WIDTH)
    _write(dV + batch * dvb + key_head * dvh, columns, dvn, keys, dv.to(dV.dtype.element_ty), D, WIDTH)


@triton.jit
def _backward_queries(
    Q, K, V, dO, dQ, biases, slopes, scale, queries, keys, heads, group,
    qb, qh, qn, kb, kh, kn, vb, vh, vn, ob, oh, on, dqb, dqh, dqn,
    D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    """dQ of one block of queries of one head: program (block, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    q = _block(Q + batch * qb + head * qh, rows, qn, queries, D, WIDTH)
    do = _block(dO + batch * ob + head * oh, rows, on, queries, D, WIDTH)
    k_base, v_base = K + batch * kb + head // group * kh, V + batch * vb + head // group * vh
    bias, slope = tl.load(biases + head), tl.load(slopes + head) if ALIBI else 0.0
    dq = tl.zeros((M, WIDTH), tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * M + keys - queries)
    for start in range(0, last, N):
        columns = start + tl.arange(0, N)
        k = _block(k_base, columns, kn, keys, D, WIDTH)
        v = _block(v_base, columns, vn, keys, D, WIDTH)
        P = _weights(q, k, rows, columns, scale, bias, slope, queries, keys, CAUSAL, ALIBI)
        dS = P * (1 - P) * tl.dot(do, tl.trans(v), input_precision="ieee")
        dq = tl.dot(dS.to(k.dtype), k, dq, input_precision="ieee")
    _write(dQ + batch * dqb + head * dqh, rows, dqn, queries, (dq * scale).to(dQ.dtype.element_ty), D, WIDTH)


# -- the operator ------------------------------------------------------------------------------------------------------


def flash_sigmoid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: float | Tensor | None = None,
    slopes: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Sigmoid attention, forward and backward; usable under `torch.compile`.

    Args:
        q: (batch, heads, queries, D), float32, bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (batch, key heads, keys, D); each key head serves heads / key heads query heads.
        bias: b, a number or (heads,) float32; -ln keys unless given.
        slopes: (heads,) float32 of ALiBi.
        causal: query i sees keys up to i + keys - queries.
        scale: 1 / sqrt(D) unless given.

    Returns:
        (batch, heads, queries, D) in the dtype of q; rows that see nothing are 0.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    _check(q, k, v, bias, slopes)
    if bias is None:
        bias = -math.log(max(1, k.shape[-2]))
    if not isinstance(bias, Tensor):
        bias = torch.full((q.shape[1],), bias, dtype=torch.float32, device=q.device)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _operator(q, k, v, bias, slopes, causal, scale)


def reference(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """The same by `theory.operators.attention.sigmoid`, with the n x m matrix, in the dtype of q."""
    return _matrix(q, k, bias, slopes, causal, scale) @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


def _matrix(q: Tensor, k: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float) -> Tensor:
    """P, (batch, heads, n, m)."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    queries, keys = q.shape[2], k.shape[2]
    back = torch.arange(queries, device=q.device)[:, None] + (keys - queries) - torch.arange(keys, device=q.device)
    added = bias[:, None, None].to(q.dtype)
    if slopes is not None:
        added = added - slopes[:, None, None].to(q.dtype) * back.abs()
    return sigmoid(q, k, mask=back >= 0 if causal else None, bias=added, offset=0.0, scale=scale)


def _check(q: Tensor, k: Tensor, v: Tensor, bias: float | Tensor | None, slopes: Tensor | None) -> None:
    check_attention(q, k, v)
    if k.shape != v.shape or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in batch, keys or width"
        )
    check_groups(q, k)
    for name, number in (("bias", bias), ("slopes", slopes)):
        if isinstance(number, Tensor) and (number.shape != (q.shape[1],) or number.dtype != torch.float32):
            raise ValueError(f"{name} is {number.dtype} {tuple(number.shape)}: give a number a head, float32")


def runs_here(q: Tensor) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    narrow = q.dtype in (torch.bfloat16, torch.float16, torch.float32) and 0 < q.shape[-1] <= WIDEST
    return narrow and runs(_forward, q)


@torch.library.custom_op("attest::flash_sigmoid", mutates_args=())
def _operator(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float
) -> Tensor:
    if not runs_here(q) or k.shape[2] == 0:
        return reference(q, k, v, bias, slopes, causal, scale)
    q, k, v = (rows(x) for x in (q, k, v))
    if is_hopper(q):
        from benchmarks.kernels import flash_sigmoid_hopper

        if flash_sigmoid_hopper.supported(q, k, v):
            return flash_sigmoid_hopper.forward(q, k, v, bias, slopes, causal, scale)
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    size = _size(q.shape[-1], q.element_size())
    grid = (triton.cdiv(q.shape[2], size["M"]), q.shape[0] * q.shape[1])
    _forward[grid](
        q, k, v, o, bias, slopes if slopes is not None else bias, *_numbers(q, k, scale),
        *strides(q, k, v, o), CAUSAL=causal, ALIBI=slopes is not None, **size,
    )  # fmt: skip
    return o


@torch.library.custom_op("attest::flash_sigmoid_backward", mutates_args=())
def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    if not runs_here(q) or k.shape[2] == 0:
        return _slow_backward(do, q, k, v, bias, slopes, causal, scale)
    do, q, k, v = (rows(x) for x in (do, q, k, v))
    if slopes is None and is_hopper(q):
        from benchmarks.kernels import flash_sigmoid_hopper_backward

        if flash_sigmoid_hopper_backward.supported(do, q, k, v):
            return flash_sigmoid_hopper_backward.backward(do, q, k, v, bias, causal, scale)
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    numbers, slope = _numbers(q, k, scale), slopes if slopes is not None else bias
    options = {"CAUSAL": causal, "ALIBI": slopes is not None}
    size = _size(q.shape[-1], q.element_size(), of_keys=True)
    _backward_keys[(triton.cdiv(k.shape[2], size["N"]), k.shape[0] * k.shape[1])](
        q, k, v, do, dk, dv, bias, slope, *numbers, *strides(q, k, v, do, dk, dv), **options, **size
    )
    size = _size(q.shape[-1], q.element_size())
    _backward_queries[(triton.cdiv(q.shape[2], size["M"]), q.shape[0] * q.shape[1])](
        q, k, v, do, dq, bias, slope, *numbers, *strides(q, k, v, do, dq), **options, **size
    )
    return dq, dk, dv


def _slow_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The formulas of the module with whole matrices: within an operator autograd does not record."""
    group, key_heads = q.shape[1] // k.shape[1], k.shape[1]
    P = _matrix(q, k, bias, slopes, causal, scale)
    dS = scale * P * (1 - P) * (do @ v.repeat_interleave(group, dim=1).mT)
    dk, dv = (x.unflatten(1, (key_heads, group)).sum(2) for x in (dS.mT @ q, P.mT @ do))
    return dS @ k.repeat_interleave(group, dim=1), dk, dv


def _numbers(q: Tensor, k: Tensor, scale: float) -> tuple[float, int, int, int, int]:
    """scale, queries, keys, heads, and query heads per key head."""
    return scale, q.shape[2], k.shape[2], q.shape[1], q.shape[1] // k.shape[1]


def _size(width: int, bytes_each: int, of_keys: bool = False) -> dict[str, int]:
    """Blocks: as many rows as shared memory holds beside the pipeline's copies, which are more for dK and dV."""
    padded = max(16, triton.next_power_of_2(width))
    if padded * bytes_each > 256:
        rows = 64 if padded * bytes_each <= 512 else 32
        return {"D": width, "WIDTH": padded, "M": rows, "N": 32, "num_warps": 4, "num_stages": 2}
    M, N, warps, stages = 128, 64, 8, 3
    if of_keys:
        M, N, warps, stages = (64, 64, 4, 3) if padded * bytes_each <= 128 else (64, 128, 8, 2)
    return {"D": width, "WIDTH": padded, "M": M, "N": N, "num_warps": warps, "num_stages": stages}


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, bias, slopes, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, slopes)


def _differentiate(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, bias, slopes = ctx.saved_tensors
    return *_backward(do, q, k, v, bias, slopes, ctx.causal, ctx.scale), None, None, None, None


_operator.register_fake(lambda q, k, v, bias, slopes, causal, scale: q.new_empty(q.shape))
_backward.register_fake(lambda do, q, k, v, *given: tuple(x.new_empty(x.shape) for x in (q, k, v)))
_operator.register_autograd(_differentiate, setup_context=_keep)
