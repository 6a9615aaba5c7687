"""SALE in Triton: causal attention over the blocks of keys that 4-bit scores select, and over sink and local keys.

    q (batch, heads, n, D), k and v (batch, key heads, n, D), tau (heads,) float32
    lists (batch, heads, blocks of 64 queries, blocks of 32 keys) int16: the kept blocks left of the window of local
    keys, in order, of which the first `counts` (batch, heads, blocks of queries) int32 are valid

`benchmarks.kernels.sale_select` makes the lists; here is attention over them, with products in the inputs' dtype, sums
in float32. Two runs agree bitwise. Memory beside inputs and outputs: the integers, a byte each, and the lists.

Limits: the kernels take D of 32, 64 and 128 in float16 and bfloat16; otherwise, and on a CPU, `theory.operators.sale`
answers with n x n matrices. No backward pass. Source: Ji et al., arXiv:2505.24179, and its released code.

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 791 TFLOP/s, a copy 4.22
    TB/s.
Measured: heads=6 n=131072: 16.3 ms, 1.62e+03 TFLOP/s with 2.4% of that work done, 205% of the ceiling; SDPA/flash
    takes 5.14 times as long [5.00, 5.30], SDPA/cudnn takes 2.60 times as long [2.56, 2.65], quantising alone takes
    0.03 times as long [0.03, 0.04], selecting alone takes 0.94 times as long [0.93, 1.07], attending alone, blocks
    given takes 0.11 times as long [0.10, 0.12], attending to all, blocks given takes 3.68 times as long [3.54, 3.74],
    nothing discarded takes 4.53 times as long [4.47, 4.60].
Measured: heads=4 every=3 n=65536: 6.06 ms, 726 TFLOP/s with 33.8% of that work done, 92% of the ceiling; SDPA/flash
    takes 2.43 times as long [2.40, 2.47], SDPA/cudnn takes 1.18 times as long [1.15, 1.20], quantising alone takes
    0.04 times as long [0.04, 0.04], selecting alone takes 0.45 times as long [0.44, 0.46], attending alone, blocks
    given takes 0.54 times as long [0.53, 0.54], attending to all, blocks given takes 1.54 times as long [1.53, 1.57],
    nothing discarded takes 1.97 times as long [1.94, 1.99].
Measured: heads=4 every=12 n=65536: 3.74 ms, 1.18e+03 TFLOP/s with 8.9% of that work done, 149% of the ceiling;
    SDPA/flash takes 3.98 times as long [3.89, 4.02], SDPA/cudnn takes 1.90 times as long [1.84, 1.96], quantising
    alone takes 0.07 times as long [0.07, 0.07], selecting alone takes 0.72 times as long [0.70, 0.74], attending
    alone, blocks given takes 0.25 times as long [0.24, 0.25], attending to all, blocks given takes 2.49 times as long
    [2.43, 2.54], nothing discarded takes 3.19 times as long [3.15, 3.24].
Measured: heads=4 every=64 n=65536: 3.07 ms, 1.43e+03 TFLOP/s with 2.1% of that work done, 181% of the ceiling;
    SDPA/flash takes 4.84 times as long [4.81, 4.87], SDPA/cudnn takes 2.32 times as long [2.29, 2.35], quantising
    alone takes 0.08 times as long [0.08, 0.09], selecting alone takes 0.87 times as long [0.86, 0.89], attending
    alone, blocks given takes 0.10 times as long [0.10, 0.10], attending to all, blocks given takes 3.04 times as long
    [3.00, 3.08], nothing discarded takes 3.92 times as long [3.85, 3.96].
-- end of what was measured --
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.arguments import check_attention, check_groups
from benchmarks.kernels.sale_select import LOG2_E, _first_local, _rows, _select, compacted, compared, quantised
from theory.operators import sale as theory

QUERIES, KEYS = theory.QUERIES, theory.KEYS
WIDTHS, LONGEST = (32, 64, 128), 2**15 * KEYS
PREFILL = {"N": 64, "num_warps": 4, "num_stages": 3}
"""Keys of a tile of `_prefill`, and its pipeline."""


@triton.jit
def _attend(q, k, v, o, top, norm, scale, valid, MASKED: tl.constexpr):
    """One step of softmax attention with running maximum and norm; `valid` (M, N) where it is MASKED."""
    s = tl.dot(q, tl.trans(k))
    if MASKED:
        s = tl.where(valid, s, float("-inf"))
    new = tl.maximum(top, tl.max(s, axis=1) * scale)
    p, decay = tl.exp2(s * scale - new[:, None]), tl.exp2(top - new)
    return tl.dot(p.to(v.dtype), v, o * decay[:, None]), new, norm * decay + tl.sum(p, axis=1)


@triton.jit
def _prefill(
    Q, K, V, lists, counts, Out, scale, n, blocks, group,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Attention of 64 queries over their window and their list: program (block from the last, batch * heads)."""
    block, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows = block * M + tl.arange(0, M)
    k_base, v_base = K + head // group * n * D, V + head // group * n * D
    q = _rows(Q + head * n * D, rows, n, D)
    o = tl.zeros((M, D), tl.float32)
    top, norm = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32)
    scale *= LOG2_E
    for start in range(_first_local(block), (block + 1) * M, N):
        columns = start + tl.arange(0, N)
        k, v = _rows(k_base, columns, n, D), _rows(v_base, columns, n, D)
        o, top, norm = _attend(q, k, v, o, top, norm, scale, columns[None, :] <= rows[:, None], True)
    row = head * tl.num_programs(0) + block
    listed, count = lists + row * blocks, tl.load(counts + row)
    PART: tl.constexpr = N // 32
    part, inner, width = tl.arange(0, N) // 32, tl.arange(0, N) % 32, tl.arange(0, D)
    whole = count // PART
    for tile in range(0, whole):
        places = (tl.load(listed + tile * PART + part).to(tl.int64) * 32 + inner)[:, None] * D + width[None, :]
        k, v = tl.load(k_base + places), tl.load(v_base + places)
        o, top, norm = _attend(q, k, v, o, top, norm, scale, rows, False)
    if whole * PART < count:
        valid = whole * PART + part < count
        number = tl.load(listed + whole * PART + part, mask=valid, other=0).to(tl.int64)
        places = (number * 32 + inner)[:, None] * D + width[None, :]
        k, v = tl.load(k_base + places), tl.load(v_base + places)
        o, top, norm = _attend(q, k, v, o, top, norm, scale, valid[None, :], True)
    places = rows[:, None].to(tl.int64) * D + width[None, :]
    tl.store(Out + head * n * D + places, (o / norm[:, None]).to(Out.dtype.element_ty), mask=rows[:, None] < n)


# -- the operators -----------------------------------------------------------------------------------------------------


def sale(q: Tensor, k: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
    """Causal attention over the blocks that 4-bit scores select; usable under `torch.compile`, without a gradient.

    Args:
        q: (batch, heads, n, D), float16 or bfloat16 and D of 32, 64 or 128 on a GPU; else a slow path answers.
        k, v: (batch, key heads, n, D); each key head serves heads / key heads query heads.
        tau: a threshold, or one a head (heads,) float32; below 1e-5 everything is kept.

    Returns:
        (batch, heads, n, D) in the dtype of q.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    lists, counts = select(q, k, tau)
    return prefill(q, k, v, lists, counts)


def select(q: Tensor, k: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
    """Lists of kept blocks left of each window, and how many there are; arguments as of `sale`."""
    if not isinstance(tau, Tensor):
        tau = torch.full((q.shape[1] if q.dim() == 4 else 0,), tau, dtype=torch.float32, device=q.device)
    _check(q, k, k, tau)
    return _selected(q, k, tau)


def prefill(q: Tensor, k: Tensor, v: Tensor, lists: Tensor, counts: Tensor) -> Tensor:
    """Attention over the lists of `select` and the window of local keys."""
    _check(q, k, v, None)
    shape = (*q.shape[:2], -(-q.shape[2] // QUERIES), -(-q.shape[2] // KEYS))
    if lists.shape != shape or counts.shape != shape[:3] or (lists.dtype, counts.dtype) != (torch.int16, torch.int32):
        raise ValueError(f"lists {tuple(lists.shape)} and counts {tuple(counts.shape)} are not those of q {shape}")
    return _prefilled(q, k, v, lists, counts)


def _check(q: Tensor, k: Tensor, v: Tensor, tau: Tensor | None) -> None:
    check_attention(q, k, v)
    if k.shape != v.shape or (k.shape[0], *k.shape[2:]) != (q.shape[0], *q.shape[2:]):
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} differ in batch, length or width"
        )
    check_groups(q, k)
    if q.shape[2] > LONGEST:
        raise ValueError(f"{q.shape[2]} tokens: block numbers are 16 bits, give at most {LONGEST}")
    if tau is not None and (tau.shape != (q.shape[1],) or tau.dtype != torch.float32 or tau.device != q.device):
        raise ValueError(f"tau is {tau.dtype} {tuple(tau.shape)} on {tau.device}: give a number a head, float32")


def runs_here(q: Tensor) -> bool:
    """Whether the kernels answer for this tensor: on a GPU with fp8, or anywhere in Triton's interpreter."""
    interpreted = type(_select).__name__ == "InterpretedFunction"
    able = interpreted or (q.is_cuda and torch.cuda.get_device_capability(q.device) >= (8, 9))
    return able and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] in WIDTHS and q.numel() > 0


@torch.library.custom_op("attest::sale_select", mutates_args=())
def _selected(q: Tensor, k: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    if q.numel() == 0:
        return _no_lists(q)
    if not runs_here(q):
        return listed(reference_selection(q, k, tau), q.shape[2])
    q, k = q.contiguous(), k.contiguous()
    return compacted(compared(*quantised(q, k, tau)), triton.cdiv(q.shape[2], KEYS))


@torch.library.custom_op("attest::sale_prefill", mutates_args=())
def _prefilled(q: Tensor, k: Tensor, v: Tensor, lists: Tensor, counts: Tensor) -> Tensor:
    if q.numel() == 0:
        return torch.empty_like(q)
    if not runs_here(q):
        return reference_attention(q, k, v, kept_of(lists, counts, q.shape[2]))
    q, k, v = (x.contiguous() for x in (q, k, v))
    o = torch.empty_like(q)
    _prefill[(counts.shape[2], q.shape[0] * q.shape[1])](
        q, k, v, lists, counts, o, q.shape[3] ** -0.5, q.shape[2], lists.shape[3], q.shape[1] // k.shape[1],
        D=q.shape[3], M=QUERIES, **PREFILL,
    )  # fmt: skip
    return o


def _no_lists(q: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*q.shape[:2], triton.cdiv(q.shape[2], QUERIES), triton.cdiv(q.shape[2], KEYS))
    return q.new_zeros(shape, dtype=torch.int16), q.new_zeros(shape[:3], dtype=torch.int32)


_selected.register_fake(lambda q, k, tau: _no_lists(q))
_prefilled.register_fake(lambda q, k, v, lists, counts: q.new_empty(q.shape))


# -- the same with n x n matrices --------------------------------------------------------------------------------------


def reference_selection(q: Tensor, k: Tensor, tau: Tensor, **broken: Any) -> Tensor:
    """Kept blocks by `theory.operators.sale`, in float32 unless q is float64: (batch, heads, blocks, blocks) bool."""
    q, k = (x if x.dtype == torch.float64 else x.float() for x in (q, k))
    return theory.selection(q, k.repeat_interleave(q.shape[1] // k.shape[1], dim=1), tau, **broken)


def reference_attention(q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> Tensor:
    """Attention over kept blocks by `theory.operators.sale`, in the dtype of q."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return theory.attend(q, k, v, kept)


def left(n: int, like: Tensor) -> Tensor:
    """(blocks of queries, blocks of keys) bool: left of the window, the sink's block among them."""
    chosen = theory.selectable(n, like)
    sink = torch.arange(chosen.shape[1], device=like.device) == 0
    return chosen | (sink & (torch.arange(chosen.shape[0], device=like.device) > 2)[:, None])


def listed(kept: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Lists and counts of kept blocks (batch, heads, blocks, blocks)."""
    chosen = kept & left(n, kept)
    order = (~chosen).to(torch.int8).argsort(dim=-1, stable=True)
    return order.to(torch.int16), chosen.sum(-1, dtype=torch.int32)


def kept_of(lists: Tensor, counts: Tensor, n: int) -> Tensor:
    """Kept blocks of lists and counts, with the window: the inverse of `listed`."""
    valid = torch.arange(lists.shape[-1], device=lists.device) < counts[..., None]
    places = torch.where(valid, lists, 0).long()
    found = torch.zeros_like(places).scatter_add(-1, places, valid.long())
    return (found > 0) | theory.always(n, lists)
