"""Attention of one query a sequence over a paged cache, in Triton.

A block of threads reads the pages of one sequence for the whole group of query heads that share a key head, so that the
cache is read once. Few sequences are cut into parts (split-K), which a second kernel adds with their softmax weights.

Numerics. bf16 or fp16 inputs, products and the running softmax in float32, weights rounded to the inputs' dtype before
they meet the values. Fixed order, no atomics: two runs agree bitwise.

Limits: width up to 256, pages of a power of two of tokens, groups of up to 64 query heads; the last axis contiguous,
else it is copied. float32 is right, not fast. No gradients: this is for decoding. On a CPU, and for what the kernels
cannot do, `theory.operators.attention.softmax` answers.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.arguments import rows, runs
from theory.operators.attention import softmax

WIDEST, MOST_HEADS = 256, 64
PROGRAMS = 264
"""At most so many parts and sequences: two for each multiprocessor of a Hopper GPU. One part more costs a merge."""
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _attend(
    Q, K, V, Table, Lengths, Out, Logs, scale, heads, group, pages, parts,
    qb, qh, kp, kh, kt, vp, vh, vt, tb, th, lb, lh,
    D: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr, N: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """One part of a table for the heads of one group: program (part, batch * key heads).

    WHOLE: there is one part, the output is final. Else parts are normalised, and Logs has ln of their sums, base 2.
    """
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    across, member = tl.arange(0, WIDTH), tl.arange(0, GROUP)
    inside = (member[:, None] < group) & (across[None, :] < D)
    q = tl.load(Q + batch * qb + (head * group + member)[:, None] * qh + across[None, :], mask=inside, other=0.0)
    length = tl.minimum(tl.load(Lengths + batch * lb + head * lh), pages * PAGE)
    share = tl.cdiv(tl.cdiv(length, N), parts) * N
    first = tl.program_id(0) * share
    last = tl.minimum(length, first + share)
    Table += batch * tb + head * th
    K, V = K + head * kh, V + head * vh
    top = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    o = tl.zeros((GROUP, WIDTH), tl.float32)
    for start in range(first, last, N):
        token = start + tl.arange(0, N)
        seen = token < last
        physical = tl.load(Table + token // PAGE, mask=seen, other=0).to(tl.int64)
        full = seen[:, None] & (across[None, :] < D)
        k = tl.load(K + (physical * kp + token % PAGE * kt)[:, None] + across[None, :], mask=full, other=0.0)
        v = tl.load(V + (physical * vp + token % PAGE * vt)[:, None] + across[None, :], mask=full, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
        s = tl.where(seen[None, :], s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, 1))  # finite: the first token of a block is seen
        P, shrink = tl.exp2(s - higher[:, None]), tl.exp2(top - higher)
        total = total * shrink + tl.sum(P, 1)
        o = tl.dot(P.to(v.dtype), v, o * shrink[:, None], input_precision="ieee")
        top = higher
    total = tl.where(total == 0, 1.0, total)
    o = o / total[:, None]
    row = tl.program_id(1).to(tl.int64) * group + member
    if WHOLE:
        tl.store(Out + row[:, None] * D + across[None, :], o.to(Out.dtype.element_ty), mask=inside)
    else:
        row = row * parts + tl.program_id(0)
        tl.store(Out + row[:, None] * D + across[None, :], o, mask=inside)
        tl.store(Logs + row, top + tl.log2(total), mask=member < group)


@triton.jit
def _merge(Parts, Logs, Out, parts, D: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """Parts of one query head, each with its share of the softmax: program (batch * heads)."""
    row, across, part = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH), tl.arange(0, PARTS)
    logs = tl.load(Logs + row * parts + part, mask=part < parts, other=float("-inf"))
    top = tl.max(logs, 0)
    weights = tl.exp2(logs - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(weights, 0)
    weights = weights / tl.where(total == 0, 1.0, total)
    at = Parts + (row * parts + part)[:, None] * D + across[None, :]
    o = tl.load(at, mask=(part[:, None] < parts) & (across[None, :] < D), other=0.0)
    o = tl.sum(o * weights[:, None], 0)
    tl.store(Out + row * D + across, o.to(Out.dtype.element_ty), mask=across < D)


# -- the operator ------------------------------------------------------------------------------------------------------


def paged_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor, *, scale: float | None = None
) -> Tensor:
    """Attention of one query a sequence to all pages of its table.

    Args:
        q: (batch, heads, D), float32, bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (physical pages, key heads, page, D): the cache; each key head serves heads / key heads query heads.
        table: (batch, pages) int32: the physical page of each page of a sequence, not checked, as that would wait for
            the GPU. Or (batch, key heads, pages), where each key head has pages of its own.
        lengths: (batch,), or (batch, key heads), int32: tokens; what does not fit the table's pages is not seen.
        scale: 1 / sqrt(D) unless given.

    Returns:
        (batch, heads, D) in the dtype of q; zeros for a sequence of no tokens.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    check_cache(k, v)
    check(q, k, "k", table, lengths, {(q.shape[0],), (q.shape[0], k.shape[1])})
    if table.dim() == 2:
        table, lengths = table.unsqueeze(1).expand(-1, k.shape[1], -1), lengths.unsqueeze(1).expand(-1, k.shape[1])
    return _operator(q, k, v, table, lengths, q.shape[-1] ** -0.5 if scale is None else scale)


def reference(q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor, scale: float) -> Tensor:
    """`paged_attention` by `theory.operators.attention.softmax`, in the dtype of q; table and lengths a key head."""
    heads = k.shape[1]
    which = table.clamp(min=0).long(), torch.arange(heads, device=q.device)[:, None]
    keys, values = (x[which].flatten(2, 3) for x in (k, v))  # (batch, key heads, tokens, D)
    seen = torch.arange(keys.shape[2], device=q.device) < lengths[:, :, None, None]
    grouped = q.unflatten(1, (heads, -1))
    if keys.shape[2] == 0:
        return torch.zeros_like(q)
    output: Tensor = softmax(grouped, keys, mask=seen, scale=scale) @ values
    return output.flatten(1, 2)


def check_cache(k: Tensor, v: Tensor) -> None:
    if k.dim() != 4:
        raise ValueError(f"k has shape {tuple(k.shape)}: give (physical pages, key heads, page, width)")
    if v.shape != k.shape or v.dtype != k.dtype or v.device != k.device:
        raise ValueError(f"v is {v.dtype} {tuple(v.shape)} on {v.device}, k {k.dtype} {tuple(k.shape)} on {k.device}")


def check(q: Tensor, cache: Tensor, name: str, table: Tensor, lengths: Tensor, leading: set[tuple[int, ...]]) -> None:
    """`leading`: what shapes lengths may have, and table before its last axis."""
    if q.dim() != 3:
        raise ValueError(f"q has shape {tuple(q.shape)}: give (batch, heads, width), one query a sequence")
    if cache.dtype != q.dtype or not q.is_floating_point():
        raise ValueError(f"q is {q.dtype}, {name} {cache.dtype}: give one of bfloat16, float16, float32 or float64")
    if cache.shape[3] != q.shape[2] or cache.shape[1] == 0 or q.shape[1] % cache.shape[1]:
        raise ValueError(f"q {tuple(q.shape)} and {name} {tuple(cache.shape)} differ in width, or heads do not divide")
    if table.dtype != torch.int32 or lengths.dtype != torch.int32:
        raise ValueError(f"table is {table.dtype}, lengths {lengths.dtype}: give int32")
    if table.shape[:-1] != lengths.shape or tuple(lengths.shape) not in leading:
        raise ValueError(
            f"table {tuple(table.shape)} and lengths {tuple(lengths.shape)} do not fit {q.shape[0]} sequences"
        )
    if len({x.device for x in (q, cache, table, lengths)}) > 1:
        raise ValueError(f"q, {name}, table and lengths lie on several devices: bring them together")


def runs_here(q: Tensor, key_heads: int, page: int) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    narrow = q.dtype in (torch.bfloat16, torch.float16, torch.float32) and 0 < q.shape[-1] <= WIDEST
    fits = page & (page - 1) == 0 and q.shape[1] <= MOST_HEADS * key_heads
    return narrow and fits and runs(_attend, q)


@torch.library.custom_op("attest::paged_attention", mutates_args=())
def _operator(q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor, scale: float) -> Tensor:
    batch, heads, page = q.shape[0], k.shape[1], k.shape[2]
    if not runs_here(q, heads, page) or table.shape[2] == 0:
        return reference(q, k, v, table, lengths, scale)
    q, k, v, table = (rows(x) for x in (q, k, v, table))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    width, group, block = q.shape[2], q.shape[1] // heads, _block(q.shape[2])
    parts = max(1, min(PROGRAMS // (batch * heads), table.shape[2] * page // (4 * block["N"])))
    options = {"D": width, "WIDTH": max(16, triton.next_power_of_2(width))}
    into, logs = out, out
    if parts > 1:
        into = torch.empty(*q.shape[:2], parts, width, dtype=torch.float32, device=q.device)
        logs = torch.empty(*q.shape[:2], parts, dtype=torch.float32, device=q.device)
    _attend[(parts, batch * heads)](
        q, k, v, table, lengths, into, logs, scale, heads, group, table.shape[2], parts,
        *q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *table.stride()[:2], *lengths.stride(),
        GROUP=max(16, triton.next_power_of_2(group)), PAGE=page, WHOLE=parts == 1, **block, **options,
    )  # fmt: skip
    if parts > 1:
        _merge[(batch * q.shape[1],)](into, logs, out, parts, PARTS=triton.next_power_of_2(parts), **options)
    return out


def _block(width: int) -> dict[str, int]:
    """Tokens of a block. Page numbers take half of the five stages: two blocks of keys and values are under way."""
    return {"N": 64 if width <= 128 else 32, "num_warps": 4, "num_stages": 5}


_operator.register_fake(lambda q, k, v, table, lengths, scale: q.new_empty(q.shape))
