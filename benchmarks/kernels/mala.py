"""Magnitude-aware linear attention in Triton: two sweeps over memory, forward, and two more backward.

With phi = ELU + 1, means over the m keys, c = scale m and z_i = phi(q_i).mean phi(k), the output of MALA is

    o_i = (c + 1 / z_i) phi(q_i) C + mean v,    C = mean phi(k)^T v - (mean phi(k))^T mean v,

linear attention and the centred kernel in one product with a d x d covariance. The first sweep sums phi(k)^T v, phi(k)
and v over blocks of keys, a second kernel adds what the blocks gave in a fixed order, the second sweep writes o. With
f = phi(q), w = c + 1 / z and G = dO C^T the gradients are

    df_i = w_i G_i - (f_i.G_i) / z_i^2 mean phi(k),    dC = sum_i w_i f_i^T dO_i,
    dphi(k_j) = ((v_j - mean v) dC^T + sum_i dz_i f_i) / m,    dv_j = ((phi(k_j) - mean phi(k)) dC + sum_i dO_i) / m.

Numerics. bf16 or fp16 inputs, products accumulated in float32, C and dC / m rounded to the inputs' dtype before they
are multiplied: means, so that fp16 does not overflow however many keys there are. A query whose features are all 0 gets
0, as in `theory.operators.attention.mala_output`. No atomics: two runs agree bitwise.

Limits: width up to 128 (what is no power of two is padded), the last axis contiguous (else it is copied), as many key
heads as query heads, no mask. On a CPU `theory.operators.attention.mala_output` answers. Source: Fan et al.,
arXiv:2507.00698, section 4; their code has scale = 1 / (sqrt(d) m).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from theory.operators.attention import elu_plus_one, mala_output
from theory.operators.mala import released_scale

WIDEST = 128
PROGRAMS = 264
"""Wanted at least: two for each multiprocessor of a Hopper GPU."""
SHORTEST = 256
"""Keys that a program sums at least, so that writing its d x d sums costs little."""
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _features(x, inside):
    """phi(x) = ELU(x) + 1 in float32, 0 outside; phi'(x) is min(phi(x), 1)."""
    x = x.to(tl.float32)
    return tl.where(inside, tl.where(x > 0, x + 1, tl.exp2(tl.minimum(x, 0.0) * LOG2_E)), 0.0)


@triton.jit
def _tile(base, rows, stride, last, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (R,) below `last` of a matrix with D columns, as (R, WIDTH), zeros beyond; and which are inside."""
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < last) & (columns[None, :] < D)
    return tl.load(base + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0), inside


@triton.jit
def _write(base, rows, last, value, D: tl.constexpr, WIDTH: tl.constexpr):
    columns = tl.arange(0, WIDTH)
    inside = (rows[:, None] < last) & (columns[None, :] < D)
    at = base + rows[:, None].to(tl.int64) * D + columns[None, :]
    tl.store(at, value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _partial(Matrix, Left, Right, matrix, left, right, WIDTH: tl.constexpr):
    """Sums of this program to row (batch * heads + head) * splits + split of float32 buffers of WIDTH columns."""
    across = tl.arange(0, WIDTH)
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    tl.store(Matrix + row * WIDTH * WIDTH + across[:, None] * WIDTH + across[None, :], matrix)
    tl.store(Left + row * WIDTH + across, left)
    tl.store(Right + row * WIDTH + across, right)


@triton.jit
def _sum_keys(
    K, V, Matrix, Left, Right, keys, chunk, heads, kb, kh, kn, vb, vh, vn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Sums of phi(k)^T v, phi(k) and v over one chunk of keys: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    K, V = K + batch * kb + head * kh, V + batch * vb + head * vh
    matrix = tl.zeros((WIDTH, WIDTH), tl.float32)
    left, right = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0) * chunk
    last = tl.minimum(keys, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        k, inside = _tile(K, rows, kn, last, D, WIDTH)
        v, _ = _tile(V, rows, vn, last, D, WIDTH)
        g = _features(k, inside)
        matrix = tl.dot(tl.trans(g.to(v.dtype)), v, matrix, input_precision="ieee")
        left += tl.sum(g, 0)
        right += tl.sum(v.to(tl.float32), 0)
    _partial(Matrix, Left, Right, matrix, left, right, WIDTH)


@triton.jit
def _add(
    Matrix, Left, Right, C, LeftMean, RightMean, splits, keys,
    WIDTH: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """Sums of all chunks over the number of keys; CENTRED subtracts the means' product: program (rows, batch * heads).

    SPLITS is `splits` padded to a power of two: all chunks are read at once and added in a fixed tree.
    """
    split, across = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    block = tl.program_id(1).to(tl.int64)
    chunks, there = block * splits + split, split < splits
    left = tl.load(Left + chunks[:, None] * WIDTH + rows[None, :], mask=there[:, None], other=0.0)
    right = tl.load(Right + chunks[:, None] * WIDTH + across[None, :], mask=there[:, None], other=0.0)
    at = chunks[:, None, None] * WIDTH * WIDTH + rows[None, :, None] * WIDTH + across[None, None, :]
    matrix = tl.sum(tl.load(Matrix + at, mask=there[:, None, None], other=0.0), 0) / keys
    left, right = tl.sum(left, 0) / keys, tl.sum(right, 0) / keys
    if CENTRED:
        matrix -= left[:, None] * right[None, :]
    to = C + block * WIDTH * WIDTH + rows[:, None] * WIDTH + across[None, :]
    tl.store(to, matrix.to(C.dtype.element_ty))
    tl.store(LeftMean + block * WIDTH + rows, left)
    if tl.program_id(0) == 0:
        tl.store(RightMean + block * WIDTH + across, right)


@triton.jit
def _state(C, LeftMean, RightMean, WIDTH: tl.constexpr):
    """What `_add` wrote for this batch and head."""
    across = tl.arange(0, WIDTH)
    block = tl.program_id(1).to(tl.int64)
    matrix = tl.load(C + block * WIDTH * WIDTH + across[:, None] * WIDTH + across[None, :])
    return matrix, tl.load(LeftMean + block * WIDTH + across), tl.load(RightMean + block * WIDTH + across)


@triton.jit
def _inverse(z):
    """1 / z, and 0 where z is."""
    return tl.where(z == 0, 0.0, 1 / tl.where(z == 0, 1.0, z))


@triton.jit
def _outputs(
    Q, C, KeyMean, ValueMean, Out, c, queries, chunk, heads, qb, qh, qn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """o of one chunk of queries: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    Q, Out = Q + batch * qb + head * qh, Out + tl.program_id(1).to(tl.int64) * queries * D
    covariance, key_mean, value_mean = _state(C, KeyMean, ValueMean, WIDTH)
    first = tl.program_id(0) * chunk
    last = tl.minimum(queries, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        q, inside = _tile(Q, rows, qn, last, D, WIDTH)
        f = _features(q, inside)
        z = tl.sum(f * key_mean[None, :], 1)
        centred = tl.dot(f.to(q.dtype), covariance, input_precision="ieee")
        o = tl.where(z == 0, 0.0, 1.0)[:, None] * value_mean[None, :] + (c + _inverse(z))[:, None] * centred
        _write(Out, rows, last, o, D, WIDTH)


@triton.jit
def _backward_queries(
    Q, dO, C, KeyMean, ValueMean, dQ, Matrix, Left, Right, c, queries, chunk, heads, qb, qh, qn, ob, oh, on,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dQ of one chunk of queries, and its sums of w f^T dO, dz f and dO: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    Q, dO = Q + batch * qb + head * qh, dO + batch * ob + head * oh
    dQ += tl.program_id(1).to(tl.int64) * queries * D
    covariance, key_mean, _unused = _state(C, KeyMean, ValueMean, WIDTH)
    matrix = tl.zeros((WIDTH, WIDTH), tl.float32)
    left, right = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    first = tl.program_id(0) * chunk
    last = tl.minimum(queries, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        q, inside = _tile(Q, rows, qn, last, D, WIDTH)
        do, _ = _tile(dO, rows, on, last, D, WIDTH)
        f = _features(q, inside)
        z = tl.sum(f * key_mean[None, :], 1)
        over_z = _inverse(z)
        G = tl.dot(do, tl.trans(covariance), input_precision="ieee")
        dz = -tl.sum(f * G, 1) * over_z * over_z
        df = (c + over_z)[:, None] * G + dz[:, None] * key_mean[None, :]
        _write(dQ, rows, last, df * tl.minimum(f, 1.0), D, WIDTH)
        weighted = (c + over_z)[:, None] * f
        matrix = tl.dot(tl.trans(weighted.to(do.dtype)), do, matrix, input_precision="ieee")
        left += tl.sum(dz[:, None] * f, 0)
        right += tl.sum(tl.where(z == 0, 0.0, 1.0)[:, None] * do.to(tl.float32), 0)
    _partial(Matrix, Left, Right, matrix, left, right, WIDTH)


@triton.jit
def _backward_keys(
    K, V, KeyMean, ValueMean, dC, dLeft, dRight, dK, dV, keys, chunk, heads, kb, kh, kn, vb, vh, vn,
    D: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """dK and dV of one chunk of keys: program (chunk, batch * heads)."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    K, V = K + batch * kb + head * kh, V + batch * vb + head * vh
    block = tl.program_id(1).to(tl.int64)
    dK, dV = dK + block * keys * D, dV + block * keys * D
    gradient, left, right = _state(dC, dLeft, dRight, WIDTH)
    across = tl.arange(0, WIDTH)
    key_mean, value_mean = tl.load(KeyMean + block * WIDTH + across), tl.load(ValueMean + block * WIDTH + across)
    first = tl.program_id(0) * chunk
    last = tl.minimum(keys, first + chunk)
    for start in range(first, last, N):
        rows = start + tl.arange(0, N)
        k, inside = _tile(K, rows, kn, last, D, WIDTH)
        v, _ = _tile(V, rows, vn, last, D, WIDTH)
        g = _features(k, inside)
        centred = (g - key_mean[None, :]).to(k.dtype)
        shifted = (v.to(tl.float32) - value_mean[None, :]).to(v.dtype)
        dg = tl.dot(shifted, tl.trans(gradient), input_precision="ieee") + left[None, :]
        dv = tl.dot(centred, gradient, input_precision="ieee") + right[None, :]
        _write(dK, rows, last, dg * tl.minimum(g, 1.0), D, WIDTH)
        _write(dV, rows, last, dv, D, WIDTH)


# -- the operator ------------------------------------------------------------------------------------------------------


def mala(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """MALA with ELU + 1, forward and backward; usable under `torch.compile`.

    Args:
        q: (batch, heads, queries, D), float32, bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (batch, heads, keys, D).
        scale: the factor of the kernel, 1 / (sqrt(D) keys) unless given, as in the authors' code.

    Returns:
        (batch, heads, queries, D) in the dtype of q; zeros if there are no keys.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    _check(q, k, v)
    scale = released_scale(q.shape[-1], max(1, k.shape[-2])) if scale is None else scale
    return _operator(q, k, v, scale)


def reference(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The same by `theory.operators.attention.mala_output`, in the dtype of q."""
    return mala_output(q, k, v, scale=scale) if k.shape[2] else torch.zeros_like(q)


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: give (batch, heads, length, width)")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{name} is {x.dtype} on {x.device}, q {q.dtype} on {q.device}: bring them together")
        if not x.is_floating_point():
            raise ValueError(f"{name} is {x.dtype}: give bfloat16, float16, float32 or float64")
    if k.shape != v.shape or k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in batch, heads, keys or width"
        )


def runs_here(q: Tensor) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    interpreted = type(_outputs).__name__ == "InterpretedFunction"
    narrow = q.dtype in (torch.bfloat16, torch.float16, torch.float32) and 0 < q.shape[-1] <= WIDEST
    return narrow and q.numel() > 0 and (q.is_cuda or interpreted)


@torch.library.custom_op("attest::mala", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if not runs_here(q) or k.shape[2] == 0:
        return reference(q, k, v, scale)
    q, k, v = (_rows(x) for x in (q, k, v))
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    grid, chunk, options = _launch(q)
    numbers = scale * k.shape[2], q.shape[2], chunk, q.shape[1]
    _outputs[grid](q, *_moments(k, v), o, *numbers, *_strides(q), **options)
    return o


@torch.library.custom_op("attest::mala_backward", mutates_args=())
def _backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    if not runs_here(q) or k.shape[2] == 0:
        return _slow_backward(do, q, k, v, scale)
    do, q, k, v = (_rows(x) for x in (do, q, k, v))
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    state = _moments(k, v)
    grid, chunk, options = _launch(q)
    sums, c = _sums(q, grid), scale * k.shape[2]
    _backward_queries[grid](q, do, *state, dq, *sums, c, q.shape[2], chunk, q.shape[1], *_strides(q, do), **options)
    gradients = _added(q, sums, k.shape[2], centred=False)
    grid, chunk, options = _launch(k)
    _backward_keys[grid](
        k, v, *state[1:], *gradients, dk, dv, k.shape[2], chunk, k.shape[1], *_strides(k, v), **options
    )
    return dq, dk, dv


def _slow_backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The formulas of the module in plain PyTorch: within an operator autograd does not record."""
    if k.shape[2] == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    f, g, keys = elu_plus_one(q), elu_plus_one(k), k.shape[2]
    key_mean, value_mean = g.mean(2, keepdim=True), v.mean(2, keepdim=True)
    z = f @ key_mean.mT
    over_z = torch.where(z == 0, 0.0, 1 / torch.where(z == 0, 1.0, z))
    weight = scale * keys + over_z
    G = do @ ((g - key_mean).mT @ (v - value_mean) / keys).mT
    dz = -(f * G).sum(-1, keepdim=True) * over_z**2
    dC, seen = (weight * f).mT @ do / keys, torch.where(z == 0, 0.0, do)
    dk = (v - value_mean) @ dC.mT + (dz * f).sum(2, keepdim=True) / keys
    dv = (g - key_mean) @ dC + seen.sum(2, keepdim=True) / keys
    return (weight * G + dz * key_mean) * f.clamp(max=1), dk * g.clamp(max=1), dv


def _moments(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """C in the dtype of k, mean phi(k) and mean v in float32, each padded to a power of two."""
    grid, chunk, options = _launch(k)
    sums = _sums(k, grid)
    _sum_keys[grid](k, v, *sums, k.shape[2], chunk, k.shape[1], *_strides(k, v), **options)
    return _added(k, sums, k.shape[2], centred=True)


def _sums(x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Buffers of `_partial`: (batch * heads, splits, WIDTH, WIDTH) and twice (batch * heads, splits, WIDTH)."""
    shape, width = grid[::-1], _padded(x)
    return (
        torch.empty(*shape, width, width, dtype=torch.float32, device=x.device),
        torch.empty(*shape, width, dtype=torch.float32, device=x.device),
        torch.empty(*shape, width, dtype=torch.float32, device=x.device),
    )


def _added(
    x: Tensor, sums: tuple[Tensor, Tensor, Tensor], keys: int, *, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """All chunks together, over the number of keys."""
    blocks, splits, width = sums[1].shape
    matrix = torch.empty(blocks, width, width, dtype=x.dtype, device=x.device)
    left, right = (torch.empty(blocks, width, dtype=torch.float32, device=x.device) for _ in range(2))
    padded = triton.next_power_of_2(splits)
    rows = max(1, min(width, 16_384 // (padded * width)))
    _add[(width // rows, blocks)](
        *sums, matrix, left, right, splits, keys, WIDTH=width, SPLITS=padded, ROWS=rows, CENTRED=centred, num_warps=8
    )
    return matrix, left, right


def _launch(x: Tensor) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Grid, chunk and options of a sweep over the rows of x: chunks of equal length, enough of them to fill the GPU."""
    blocks, length, width = x.shape[0] * x.shape[1], x.shape[2], _padded(x)
    rows = 64
    splits = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(length, SHORTEST))
    chunk = rows * triton.cdiv(length, splits * rows)
    options = {"D": x.shape[3], "WIDTH": width, "N": rows, "num_warps": 8 if width == 128 else 4}
    return (triton.cdiv(length, chunk), blocks), chunk, options


def _padded(x: Tensor) -> int:
    return max(16, int(triton.next_power_of_2(x.shape[3])))


def _rows(x: Tensor) -> Tensor:
    """x with its last axis contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [x.stride(axis) for x in tensors for axis in range(3)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(do, *ctx.saved_tensors, ctx.scale), None


_operator.register_fake(lambda q, k, v, scale: q.new_empty(q.shape))
_backward.register_fake(lambda do, q, k, v, scale: tuple(x.new_empty(x.shape) for x in (q, k, v)))
_operator.register_autograd(_differentiate, setup_context=_keep)
