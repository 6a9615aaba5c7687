"""Block top-k decoding in Triton: attention of one query to the pages of a cache that its mean keys say are best.

`select_pages` scores every page, sum over a group of query heads of q.(mean key), and keeps the first, the last and the
`top` best others, of equal ones the earlier. The k-th largest score is found exactly, bit by bit, by one block of
threads a sequence. The result is again a page table, with lengths, in the order of the sequence; `paged_attention`
reads it.

Numerics. Scores in float32. Fixed order, no atomics: two runs agree bitwise.

Limits: as of `benchmarks.kernels.paged_attention`, and at most 32768 pages a sequence; beyond, and on a CPU,
`theory.operators.block_topk` answers. Source: Sadhukhan et al., arXiv:2506.05333.

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 791 TFLOP/s, a copy 4.25
    TB/s.
Measured: batch=256 heads=2 context=32768: 0.101 ms, 4.07 TFLOP/s, 63% of the ceiling; all pages takes 9.79 times as
    long [9.73, 9.87], SDPA/flash takes 15.61 times as long [15.41, 15.74], SDPA/cudnn takes 9.61 times as long [9.55,
    9.65], attention alone takes 0.51 times as long [0.50, 0.51], search alone takes 0.58 times as long [0.58, 0.59],
    all pages chosen takes 10.28 times as long [10.22, 10.36].
Measured: batch=256 heads=4 context=32768: 0.11 ms, 6.27 TFLOP/s, 59% of the ceiling; all pages takes 9.02 times as
    long [8.96, 9.10], SDPA/flash takes 14.50 times as long [14.22, 14.64], SDPA/cudnn takes 8.87 times as long [8.80,
    8.95], attention alone takes 0.46 times as long [0.46, 0.47], search alone takes 0.63 times as long [0.62, 0.63],
    all pages chosen takes 9.57 times as long [9.51, 9.67].
Measured: batch=256 heads=5 context=32768: 0.122 ms, 6.78 TFLOP/s, 53% of the ceiling; all pages takes 8.14 times as
    long [8.10, 8.23], SDPA/flash takes 12.97 times as long [12.84, 13.08], SDPA/cudnn takes 8.01 times as long [7.96,
    8.09], attention alone takes 0.42 times as long [0.42, 0.42], search alone takes 0.66 times as long [0.65, 0.67],
    all pages chosen takes 8.72 times as long [8.66, 8.80].
Measured: batch=256 heads=8 context=32768: 0.123 ms, 10.1 TFLOP/s, 52% of the ceiling; all pages takes 8.06 times as
    long [7.99, 8.11], SDPA/flash takes 12.93 times as long [12.81, 13.01], SDPA/cudnn takes 7.93 times as long [7.86,
    7.99], attention alone takes 0.42 times as long [0.41, 0.43], search alone takes 0.66 times as long [0.66, 0.67],
    all pages chosen takes 8.62 times as long [8.58, 8.72].
Measured: batch=16 heads=8 context=32768: 0.428 ms, 0.181 TFLOP/s, 1% of the ceiling; all pages takes 0.48 times as
    long [0.36, 0.60], SDPA/flash takes 0.36 times as long [0.25, 0.46], SDPA/cudnn takes 1.05 times as long [0.96,
    1.28], attention alone takes 0.18 times as long [0.04, 0.52], search alone takes 0.46 times as long [0.41, 0.60],
    all pages chosen takes 1.02 times as long [0.88, 1.16].
Measured: batch=1 heads=8 context=32768: 0.0793 ms, 0.0611 TFLOP/s, 0% of the ceiling; all pages takes 0.58 times as
    long [0.56, 0.62], SDPA/flash takes 0.51 times as long [0.36, 1.29], SDPA/cudnn takes 5.58 times as long [3.21,
    12.41], attention alone takes 0.70 times as long [0.12, 2.15], search alone takes 0.56 times as long [0.17, 2.03],
    all pages chosen takes 1.65 times as long [0.29, 5.06].
-- end of what was measured --
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.arguments import rows
from benchmarks.kernels.paged_attention import check, check_cache, paged_attention, runs_here
from theory.operators.block_topk import chosen, page_scores

MOST_PAGES = 32_768


@triton.jit
def _scores(
    Q, Means, Table, Lengths, Scores, heads, group, pages, page, qb, qh, mp, mh, tb,
    D: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Scores of N pages: program (pages, batch * key heads). Infinite for the first and the last, -inf beyond it."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    across, member = tl.arange(0, WIDTH), tl.arange(0, GROUP)
    at = Q + batch.to(tl.int64) * qb + (head * group + member)[:, None] * qh + across[None, :]
    q = tl.load(at, mask=(member[:, None] < group) & (across[None, :] < D), other=0.0)
    q = tl.sum(q.to(tl.float32), 0)
    there = tl.minimum(tl.cdiv(tl.load(Lengths + batch), page), pages)
    number = tl.program_id(0) * N + tl.arange(0, N)
    physical = tl.load(Table + batch.to(tl.int64) * tb + number, mask=number < there, other=0)
    at = Means + physical.to(tl.int64)[:, None] * mp + head * mh + across[None, :]
    means = tl.load(at, mask=(number < there)[:, None] & (across[None, :] < D), other=0.0)
    score = tl.sum(means.to(tl.float32) * q[None, :], 1)
    score = tl.where((number == 0) | (number == there - 1), float("inf"), score)
    score = tl.where(number < there, score, float("-inf"))
    tl.store(Scores + tl.program_id(1).to(tl.int64) * pages + number, score, mask=number < pages)


@triton.jit
def _select(
    Scores, Table, Lengths, Chosen, Left, heads, pages, page, most, tb, PAGES: tl.constexpr, MOST: tl.constexpr
):
    """Table and length of the `most` best pages of a sequence: program (batch * key heads).

    As integers, floats keep their order when those with the sign bit are inverted; the largest threshold that at least
    `most` pages reach is built from its highest bit down.
    """
    row = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(0) // heads
    length = tl.minimum(tl.load(Lengths + batch), pages * page)
    there = tl.cdiv(length, page)
    number = tl.arange(0, PAGES)
    bits = tl.load(Scores + row * pages + number, mask=number < pages, other=float("-inf")).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # signed order is that of the scores
    count = tl.minimum(most, there)
    threshold = tl.where(tl.sum((ordered >= 0).to(tl.int32), 0) >= count, 0, -2147483647 - 1)
    for step in range(31):
        candidate = threshold | (1 << (30 - step))
        threshold = tl.where(tl.sum((ordered >= candidate).to(tl.int32), 0) >= count, candidate, threshold)
    above, equal = ordered > threshold, (ordered == threshold) & (number < there)
    spare = count - tl.sum(above.to(tl.int32), 0)
    kept = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= spare))
    at = tl.cumsum(kept.to(tl.int32), 0) - 1
    physical = tl.load(Table + batch.to(tl.int64) * tb + number, mask=kept, other=0)
    tl.store(Chosen + row * most + at, physical, mask=kept)
    slot = tl.arange(0, MOST)
    tl.store(Chosen + row * most + slot, -1, mask=(slot >= count) & (slot < most))
    tl.store(Left + row, length - (there - count) * page)


# -- the operators -----------------------------------------------------------------------------------------------------


def block_topk_attention(
    q: Tensor, k: Tensor, v: Tensor, means: Tensor, table: Tensor, lengths: Tensor, *, top: int,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Attention of one query a sequence to its first page, its last and the `top` best others by mean key.

    Args:
        q: (batch, heads, D), float32, bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (physical pages, key heads, page, D): the cache; each key head serves heads / key heads query heads.
        means: (physical pages, key heads, D): the mean key of each page, as the cache keeps it.
        table: (batch, pages) int32: the physical page of each page of a sequence.
        lengths: (batch,) int32: tokens of each sequence; what does not fit the table's pages is not seen. Page numbers
            in the table are not checked: that would wait for the GPU.
        top: pages by score.
        scale: 1 / sqrt(D) unless given.

    Returns:
        (batch, heads, D) in the dtype of q; zeros for a sequence of no tokens.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    check_cache(k, v)
    if means.shape != (*k.shape[:2], k.shape[3]):
        raise ValueError(
            f"means has shape {tuple(means.shape)}, k {tuple(k.shape)}: give a mean key a page and key head"
        )
    pages, left = select_pages(q, means, table, lengths, page=k.shape[2], top=top)
    return paged_attention(q, k, v, pages, left, scale=scale)


def select_pages(
    q: Tensor, means: Tensor, table: Tensor, lengths: Tensor, *, page: int, top: int
) -> tuple[Tensor, Tensor]:
    """Table (batch, key heads, top + 2) of the pages to attend to, -1 beyond the last, and lengths (batch, key heads).

    Arguments and errors as of `block_topk_attention`.
    """
    if means.dim() != 3:
        raise ValueError(f"means has shape {tuple(means.shape)}: give (physical pages, key heads, width)")
    check(q, means.unsqueeze(2), "means", table, lengths, {(q.shape[0],)})
    if top < 0 or page < 1:
        raise ValueError(f"{top} pages of {page} tokens: give no negative number of pages, each of a token or more")
    return _selection(q, means, table, lengths, page, top)


def reference_selection(
    q: Tensor, means: Tensor, table: Tensor, lengths: Tensor, page: int, top: int
) -> tuple[Tensor, Tensor]:
    """`select_pages` by `theory.operators.block_topk`, a sequence after another; scores in float32 or better."""
    batch, heads, wide = q.shape[0], means.shape[1], torch.promote_types(q.dtype, torch.float32)
    pages = torch.full((batch, heads, top + 2), -1, dtype=torch.int32, device=q.device)
    left = torch.zeros(batch, heads, dtype=torch.int32, device=q.device)
    for number, length in enumerate(lengths.tolist()):
        physical = table[number, : -(-length // page)]
        length = min(length, len(physical) * page)
        if length:
            grouped = q[number].unflatten(0, (heads, -1)).to(wide)
            kept = chosen(page_scores(grouped, means[physical].transpose(0, 1).to(wide)), top)
            count = int(kept[0].sum())
            pages[number, :, :count] = physical.expand(heads, -1)[kept].view(heads, count)
            left[number] = length - (len(physical) - count) * page
    return pages, left


@torch.library.custom_op("attest::select_pages", mutates_args=())
def _selection(q: Tensor, means: Tensor, table: Tensor, lengths: Tensor, page: int, top: int) -> tuple[Tensor, Tensor]:
    batch, heads, pages = q.shape[0], means.shape[1], table.shape[1]
    if not runs_here(q, heads, page) or not 0 < pages <= MOST_PAGES:
        return reference_selection(q, means, table, lengths, page, top)
    q, means, table, lengths = rows(q), rows(means), rows(table), lengths.contiguous()
    scores = torch.empty(batch * heads, pages, dtype=torch.float32, device=q.device)
    best = torch.empty(batch, heads, top + 2, dtype=torch.int32, device=q.device)
    left = torch.empty(batch, heads, dtype=torch.int32, device=q.device)
    width, N = q.shape[2], 64
    _scores[(triton.cdiv(pages, N), batch * heads)](
        q, means, table, lengths, scores, heads, q.shape[1] // heads, pages, page,
        *q.stride()[:2], *means.stride()[:2], table.stride(0),
        D=width, WIDTH=triton.next_power_of_2(width), GROUP=triton.next_power_of_2(q.shape[1] // heads), N=N,
    )  # fmt: skip
    padded = max(128, triton.next_power_of_2(pages))
    _select[(batch * heads,)](
        scores, table, lengths, best, left, heads, pages, page, top + 2, table.stride(0),
        PAGES=padded, MOST=triton.next_power_of_2(top + 2), num_warps=min(16, max(4, padded // 512)),
    )  # fmt: skip
    return best, left


_selection.register_fake(
    lambda q, means, table, lengths, page, top: (
        table.new_empty((q.shape[0], means.shape[1], top + 2)), table.new_empty((q.shape[0], means.shape[1]))
    )
)  # fmt: skip
