"""The map of blocks of sparse-linear attention, and its rows and columns as lists: kernels in Triton.

Each block of queries and of keys is pooled to its mean, the products of means are ranked a row, the highest are
critical (1), the lowest negligible (-1), the rest marginal (0), which is `theory.operators.sla.classify`.
Source: Zhang et al., arXiv:2509.24006, section 4.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks.kernels.arguments import runs
from theory.operators import sla as theory

SIZES = (16, 32, 64, 128)
"""Head widths and blocks that the kernels have."""
CHUNK = 64
"""Entries of a map at a time in a list."""


@triton.jit
def _mean(X, means, length, heads, D: tl.constexpr, ROWS: tl.constexpr):
    """Mean of one block: program (block, batch * heads); the last block is over its own length."""
    block, row = tl.program_id(0), tl.program_id(1)
    x = X.load([row // heads, row % heads, block * ROWS, 0]).reshape(ROWS, D).to(tl.float32)
    held = tl.minimum(ROWS, length - block * ROWS)
    at = row * tl.num_programs(0) + block
    tl.store(means + at * D + tl.arange(0, D), tl.sum(x, 0) / held)


@triton.jit
def _list(blocks, lists, counts, length, step, row_step, head_step, CHUNK: tl.constexpr):
    """Where a row (or column) of the map is 1, in order: program (row, batch * heads)."""
    at = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    base = blocks + tl.program_id(1).to(tl.int64) * head_step + tl.program_id(0) * row_step
    found = 0
    for start in range(0, length, CHUNK):
        column = start + tl.arange(0, CHUNK)
        critical = (tl.load(base + column * step, mask=column < length, other=0) == 1).to(tl.int32)
        place = found + tl.cumsum(critical, 0) - 1
        tl.store(lists + at.to(tl.int64) * length + place, column, mask=critical == 1)
        found += tl.sum(critical, 0)
    tl.store(counts + at, found)


# -- what the host calls -----------------------------------------------------------------------------------------------


def block_map(q: Tensor, k: Tensor, *, query_block: int, key_block: int, high: float, low: float) -> Tensor:
    """The map of blocks from pooled queries and keys, int8.

    Args:
        q, k: (batch, heads, length, D); means and products are float32.
        query_block, key_block: b_q and b_kv.
        high, low: shares of a row's blocks that are critical and negligible, k_h and k_l; floor.

    Returns:
        (batch, heads, blocks of queries, blocks of keys) of 1, 0 and -1.
    """
    if not runs_here(q, query_block, key_block) or k.numel() == 0:
        sizes = {"query_block": query_block, "key_block": key_block}
        return theory.block_map(q.float(), k.float(), **sizes, high=high, low=low)
    scores = means(q, query_block) @ means(k, key_block).mT
    return theory.classify(scores, theory.count(high, scores.shape[-1]), theory.count(low, scores.shape[-1]))


def means(x: Tensor, block: int) -> Tensor:
    """Mean of each block of rows, (batch, heads, blocks, D) in float32."""
    batch, heads, length, width = x.shape
    pooled = torch.empty((batch, heads, triton.cdiv(length, block), width), dtype=torch.float32, device=x.device)
    _mean[(pooled.shape[2], batch * heads)](tiles(x, block), pooled, length, heads, D=width, ROWS=block)
    return pooled


def listed(blocks: Tensor, *, columns: bool = False) -> tuple[Tensor, Tensor]:
    """Positions of critical blocks in each row (or column) of the map, int32, and how many there are; the rest of a
    list is not written."""
    batch, heads, rows, length = blocks.shape
    step, row_step = 1, length
    if columns:
        rows, length, step, row_step = length, rows, row_step, step
    lists = torch.empty((batch, heads, rows, length), dtype=torch.int32, device=blocks.device)
    counts = torch.empty((batch, heads, rows), dtype=torch.int32, device=blocks.device)
    _list[(rows, batch * heads)](blocks, lists, counts, length, step, row_step, rows * length, CHUNK=CHUNK)
    return lists, counts


def tiles(x: Tensor, rows: int) -> TensorDescriptor:
    """x (batch, heads, length, D) in tiles of rows, for the copy engine, whose strides are multiples of 16 bytes."""
    whole = 16 // x.element_size()
    odd = any(size > 1 and (step % whole or not step) for size, step in zip(x.shape[:3], x.stride()[:3], strict=True))
    if odd or x.stride(-1) != 1 or x.data_ptr() % 16:
        x = x.contiguous()
    steps = [step if size > 1 else x.shape[-1] for size, step in zip(x.shape[:3], x.stride()[:3], strict=True)]
    return TensorDescriptor(x, list(x.shape), [*steps, 1], [1, 1, rows, x.shape[-1]])


def runs_here(q: Tensor, query_block: int, key_block: int) -> bool:
    """Whether the kernels answer for this tensor: on a GPU, or anywhere in Triton's interpreter."""
    sized = q.shape[-1] in SIZES and query_block in SIZES and key_block in SIZES
    return sized and q.dtype in (torch.bfloat16, torch.float16) and runs(_mean, q)
