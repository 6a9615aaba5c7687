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
heads as query heads, no mask. float32 is right, not fast: its products are not rounded to TF32. On a CPU
`theory.operators.attention.mala_output` answers. Source: Fan et al., arXiv:2507.00698, section 4; their code has
scale = 1 / (sqrt(d) m).

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 788 TFLOP/s, a copy 4.25
    TB/s.
Measured: width=32 queries=65536: 0.0804 ms, 26.7 TFLOP/s, 39% of the ceiling; eager takes 8.52 times as long [8.48,
    8.56], SDPA/flash takes 247.04 times as long [245.85, 248.05], SDPA/cudnn takes 219.26 times as long [217.64,
    220.27].
Measured: width=64 queries=65536: 0.136 ms, 63.2 TFLOP/s, 46% of the ceiling; eager takes 7.34 times as long [7.26,
    7.37], SDPA/flash takes 223.15 times as long [221.56, 225.75], SDPA/cudnn takes 134.26 times as long [133.23,
    135.80].
Measured: width=128 queries=65536: 0.303 ms, 113 TFLOP/s, 42% of the ceiling; eager takes 5.65 times as long [5.59,
    5.68], SDPA/flash takes 177.76 times as long [170.50, 187.87], SDPA/cudnn takes 86.00 times as long [85.00, 89.99].
Measured: width=64 backward queries=16384: 0.116 ms, 46.2 TFLOP/s, 24% of the ceiling; eager takes 8.73 times as long
    [8.68, 8.77], SDPA/flash takes 41.81 times as long [41.62, 41.93], SDPA/cudnn takes 24.81 times as long [24.68,
    24.90].
Measured: width=128 backward queries=16384: 0.29 ms, 74 TFLOP/s, 19% of the ceiling; eager takes 6.03 times as long
    [5.99, 6.07], SDPA/flash takes 31.54 times as long [31.36, 31.74], SDPA/cudnn takes 15.76 times as long [15.70,
    15.86].
-- end of what was measured --
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from benchmarks.kernels.arguments import check_attention, rows, runs, strides
from benchmarks.kernels.mala_sweeps import add, backward_keys, backward_queries, outputs, sum_keys
from theory.operators.attention import elu_plus_one, mala_output
from theory.operators.mala import released_scale

WIDEST = 128
PROGRAMS = 264
"""Wanted at least: two for each multiprocessor of a Hopper GPU."""
SHORTEST = 256
"""Keys that a program sums at least, so that writing its d x d sums costs little."""


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
    check_attention(q, k, v)
    if k.shape != v.shape or k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in batch, heads, keys or width"
        )


def runs_here(q: Tensor) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    narrow = q.dtype in (torch.bfloat16, torch.float16, torch.float32) and 0 < q.shape[-1] <= WIDEST
    return narrow and runs(outputs, q)


@torch.library.custom_op("attest::mala", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if not runs_here(q) or k.shape[2] == 0:
        return reference(q, k, v, scale)
    q, k, v = (rows(x) for x in (q, k, v))
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    grid, chunk, options = _launch(q)
    numbers = scale * k.shape[2], q.shape[2], chunk, q.shape[1]
    outputs[grid](q, *_moments(k, v), o, *numbers, *strides(q), **options)
    return o


@torch.library.custom_op("attest::mala_backward", mutates_args=())
def _backward(do: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    if not runs_here(q) or k.shape[2] == 0:
        return _slow_backward(do, q, k, v, scale)
    do, q, k, v = (rows(x) for x in (do, q, k, v))
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    state = _moments(k, v)
    grid, chunk, options = _launch(q, backward=True)
    sums, c = _sums(q, grid), scale * k.shape[2]
    backward_queries[grid](q, do, *state, dq, *sums, c, q.shape[2], chunk, q.shape[1], *strides(q, do), **options)
    gradients = _added(q, sums, k.shape[2], centred=False)
    grid, chunk, options = _launch(k, backward=True)
    backward_keys[grid](k, v, *state[1:], *gradients, dk, dv, k.shape[2], chunk, k.shape[1], *strides(k, v), **options)
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
    sum_keys[grid](k, v, *sums, k.shape[2], chunk, k.shape[1], *strides(k, v), **options)
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
    add[(width // rows, blocks)](
        *sums, matrix, left, right, splits, keys, WIDTH=width, SPLITS=padded, ROWS=rows, CENTRED=centred, num_warps=8
    )
    return matrix, left, right


def _launch(x: Tensor, backward: bool = False) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Grid, chunk and options of a sweep over the rows of x: chunks of equal length, enough of them to fill the GPU."""
    blocks, length, width = x.shape[0] * x.shape[1], x.shape[2], _padded(x)
    rows = 32 if backward else 128 if width <= 64 else 64
    splits = min(triton.cdiv(PROGRAMS, blocks), triton.cdiv(length, SHORTEST))
    chunk = rows * triton.cdiv(length, splits * rows)
    options = {"D": x.shape[3], "WIDTH": width, "N": rows, "num_warps": 4}
    return (triton.cdiv(length, chunk), blocks), chunk, options


def _padded(x: Tensor) -> int:
    return max(16, int(triton.next_power_of_2(x.shape[3])))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(do, *ctx.saved_tensors, ctx.scale), None


_operator.register_fake(lambda q, k, v, scale: q.new_empty(q.shape))
_backward.register_fake(lambda do, q, k, v, scale: tuple(x.new_empty(x.shape) for x in (q, k, v)))
_operator.register_autograd(_differentiate, setup_context=_keep)
