"""Selection of SALE in Triton: 4-bit integers, thresholds, comparison of all pairs, lists of blocks.

The integers are carried in fp8: e4m3 holds -7 .. 7, and sums of their products below 8192 are exact in float32. Hopper
multiplies no 4-bit integers. With x_ij the integer product, `_select` compares, for each block of keys and each row,

    max_j  s_j (x_ij + (qbar.k_j / s_j) / s_i)  >  (log2(tau D_i) ln 2 / scale + m_i) / s_i:

a multiply-add and a maximum a pair, and one multiplication for each of the four scales s_j of a block of keys, all
within a thread, as these are the columns it holds. Which rows exceed it is kept as bits in each thread, and joined over
rows once in 1024 keys. qbar.k_j is not rounded to an integer, as the released code does.

Source: Ji et al., arXiv:2505.24179, and its released code.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from theory.operators.sale import DENSE_BELOW, KEYS, QUERIES, SEGMENT
from theory.operators.sale import LEVELS as HIGHEST

LOG2_E = tl.constexpr(math.log2(math.e))
LEVELS = tl.constexpr(HIGHEST)
ROUNDER = tl.constexpr(1.5 * 2**23)
"""Added to and taken from a float32 below 2^22 it rounds to the nearest integer, ties to even."""
WORD = 32
"""Blocks of keys in one word of bits."""
SELECT = {"HEADS": 2, "N": 128, "num_warps": 4, "num_stages": 3}
"""Query heads that share the keys in `_select`, keys of a tile, and its pipeline."""


@triton.jit
def _rows(base, rows, n, D: tl.constexpr):
    """Rows (M,) of a contiguous (n, D), zeros beyond."""
    columns = tl.arange(0, D)
    return tl.load(base + rows[:, None].to(tl.int64) * D + columns[None, :], mask=rows[:, None] < n, other=0.0)


@triton.jit
def _rounded(x):
    return (x + ROUNDER) - ROUNDER


@triton.jit
def _inverse(largest):
    """One over the scale; 1 where all entries are 0, so that qbar.k is still compared."""
    return LEVELS / tl.where(largest > 0, largest, LEVELS)


@triton.jit
def _first_local(block):
    """The first key of the window of local keys of a block of queries."""
    return tl.maximum(block - 1, 0) // 2 * 128


@triton.jit
def _keys(
    K, mean, q_mean, K8, scales, offsets, n, padded, blocks, group,
    D: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Integers and scales of M keys, and qbar.k_j / s_j for each query head: program (M keys, batch * key heads)."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    x = _rows(K + head * n * D, rows, n, D).to(tl.float32) - tl.load(mean + head * D + tl.arange(0, D))[None, :]
    x = tl.where(rows[:, None] < n, x, 0.0)
    runs = tl.reshape(tl.max(tl.abs(x), axis=1), (M // 32, 4, 4, 2))
    largest = tl.max(tl.max(runs, axis=3), axis=1)
    block = tl.program_id(0) * (M // 32) + tl.arange(0, M // 32)
    places = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(scales + head * blocks * 4 + places, largest / LEVELS, mask=block[:, None] < blocks)
    largest = tl.reshape(tl.broadcast_to(largest[:, None, :, None], (M // 32, 4, 4, 2)), (M,))
    inverse = _inverse(largest)
    integers = _rounded(x * inverse[:, None]).to(K8.dtype.element_ty)
    tl.store(K8 + (head * padded + rows[:, None]) * D + tl.arange(0, D)[None, :], integers)
    for member in range(group):
        query_head = head * group + member
        q_bar = tl.load(q_mean + query_head * D + tl.arange(0, D))
        tl.store(offsets + query_head * padded + rows, tl.sum(x * q_bar[None, :], axis=1) * inverse)


@triton.jit
def _extremes(s, valid, top, norm):
    """Running maximum and sum of exponentials of rows, with the scores s where `valid`."""
    s = tl.where(valid, s, float("-inf"))
    new = tl.maximum(top, tl.max(s, axis=1))
    return new, norm * tl.exp2(top - new) + tl.sum(tl.exp2(s - new[:, None]), axis=1)


@triton.jit
def _queries(
    Q, K, mean, k_mean, taus, Q8, inverses, thresholds, scale, n, padded, heads, group,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Integers, 1 / s_i and thresholds of 64 queries: program (block, batch * heads)."""
    head, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    rows = block * M + tl.arange(0, M)
    q = _rows(Q + head * n * D, rows, n, D)
    x = q.to(tl.float32) - tl.load(mean + head * D + tl.arange(0, D))[None, :]
    x = tl.where(rows[:, None] < n, x, 0.0)
    largest = tl.max(tl.reshape(tl.max(tl.abs(x), axis=1), (M // 16, 2, 8)), axis=1)
    largest = tl.reshape(tl.broadcast_to(largest[:, None, :], (M // 16, 2, 8)), (M,))
    inverse = _inverse(largest)
    places = (head * padded + rows[:, None]) * D + tl.arange(0, D)[None, :]
    tl.store(Q8 + places, _rounded(x * inverse[:, None]).to(Q8.dtype.element_ty))
    k_base = K + head // group * n * D
    k_bar = tl.load(k_mean + head // group * D + tl.arange(0, D))
    constant = tl.sum(q.to(tl.float32) * k_bar[None, :], axis=1)
    top, norm = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32)
    first = _first_local(block)
    for start in range(first, (block + 1) * M, N):
        columns = start + tl.arange(0, N)
        s = tl.dot(q, tl.trans(_rows(k_base, columns, n, D))) - constant[:, None]
        top, norm = _extremes(s * (scale * LOG2_E), columns[None, :] <= rows[:, None], top, norm)
    if first > 0:
        columns = tl.arange(0, 32)
        s = tl.dot(q, tl.trans(_rows(k_base, columns, n, D))) - constant[:, None]
        top, norm = _extremes(s * (scale * LOG2_E), columns[None, :] <= rows[:, None], top, norm)
    tau = tl.load(taus + head % heads)
    bound = (tl.log2(tl.where(tau > 0, tau, 1.0) * norm) + top) / (scale * LOG2_E) * inverse
    bound = tl.where(tau > 0, bound, float("-inf"))
    tl.store(inverses + head * padded + rows, inverse)
    tl.store(thresholds + head * padded + rows, tl.where(rows < n, bound, float("inf")))


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _select(
    Q8, K8, inverses, thresholds, scales, offsets, words, padded, blocks, word_count, group,
    D: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Which blocks of keys 64 queries of HEADS heads keep, 32 to a word: program (block from the last, heads)."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64) * HEADS
    member, row = tl.arange(0, HEADS * M) // M, block * M + tl.arange(0, HEADS * M) % M
    places = (head + member) * padded + row
    q = tl.load(Q8 + places[:, None] * D + tl.arange(0, D)[None, :])
    inverse, threshold = tl.load(inverses + places), tl.load(thresholds + places)
    k_base, scale_base = K8 + head // group * padded * D, scales + head // group * blocks * 4
    PART: tl.constexpr = N // 32
    lanes = tl.arange(0, PART * 4)
    bits = tl.zeros((HEADS * M, 4), tl.int32)
    out = words + ((head + tl.arange(0, HEADS)) * tl.num_programs(0) + block) * word_count
    last = _first_local(block) // N
    for tile in range(0, last):
        columns = tile * N + tl.arange(0, N)
        k = tl.load(k_base + columns[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :])
        x = tl.dot(q, tl.trans(k))
        if HEADS == 1:
            x += tl.load(offsets + head * padded + columns)[None, :] * inverse[:, None]
        else:
            shift = tl.load(offsets + (head + tl.arange(0, HEADS))[:, None] * padded + columns[None, :])
            x = tl.reshape(x, (HEADS, M, N)) + shift[:, None, :] * tl.reshape(inverse, (HEADS, M))[:, :, None]
        x = tl.max(tl.max(tl.reshape(x, (HEADS * M, PART, 4, 4, 2)), axis=2), axis=3)
        scale = tl.reshape(tl.load(scale_base + tile * PART * 4 + lanes), (PART, 4))
        hit = (x * scale[None, :, :] > threshold[:, None, None]).to(tl.int32)
        place = tile * PART % 32
        bits |= tl.sum(hit << tl.arange(0, PART)[None, :, None], axis=1) << place
        if (place + PART == 32) | (tile == last - 1):
            joined = tl.reduce(tl.reshape(bits, (HEADS, M * 4)), 1, _either)
            tl.store(out + tile * PART // 32, joined)
            bits = tl.zeros((HEADS * M, 4), tl.int32)


@triton.jit
def _compact(words, lists, counts, blocks, word_count, CHUNK: tl.constexpr):
    """Numbers of blocks whose bit is set, in order, and of the sink's: program (block of queries, batch * heads)."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + block
    last, found = _first_local(block) // 32, 0
    for start in range(0, last, CHUNK):
        key = start + tl.arange(0, CHUNK)
        word = tl.load(words + row * word_count + key // 32, mask=key < last, other=0)
        kept = tl.where(key < last, (word >> (key % 32)) & 1 | (key == 0).to(tl.int32), 0)
        places = found + tl.cumsum(kept) - 1
        tl.store(lists + row * blocks + places, key.to(tl.int16), mask=kept > 0)
        found += tl.sum(kept)
    tl.store(counts + row, found)


def quantised(q: Tensor, k: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """Integers of q and k in fp8; scales of keys; qbar.k_j / s_j, 1 / s_i and thresholds, padded to whole segments."""
    (batch, heads, n, D), key_heads, make = q.shape, k.shape[1], q.new_empty
    blocks, padded, group = triton.cdiv(n, KEYS), triton.cdiv(n, SEGMENT) * SEGMENT, heads // key_heads
    q_mean, k_mean = (x.mean(2, dtype=torch.float32) for x in (q, k))
    q8 = make((batch, heads, padded, D), dtype=torch.float8_e4m3fn)
    k8 = make((batch, key_heads, padded, D), dtype=torch.float8_e4m3fn)
    scales = make((batch, key_heads, blocks, 4), dtype=torch.float32)
    offsets, inverses, thresholds = (make((batch, heads, padded), dtype=torch.float32) for _ in range(3))
    _keys[(padded // SEGMENT, batch * key_heads)](
        k, k_mean, q_mean, k8, scales, offsets, n, padded, blocks, group, D=D, M=SEGMENT, num_warps=8
    )
    _queries[(triton.cdiv(n, QUERIES), batch * heads)](
        q, k, q_mean, k_mean, torch.where(tau < DENSE_BELOW, 0, tau), q8, inverses, thresholds, D**-0.5, n,
        padded, heads, group, D=D, M=QUERIES, N=64, num_warps=4,
    )  # fmt: skip
    return q8, k8, inverses, thresholds, scales, offsets


def compared(q8: Tensor, k8: Tensor, inverses: Tensor, thresholds: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """Bits of kept blocks, (batch, heads, blocks of queries, words) int32, valid left of the windows."""
    (batch, heads, padded, D), (key_heads, blocks) = q8.shape, scales.shape[1:3]
    queries = triton.cdiv(blocks * KEYS, QUERIES)
    words = torch.empty((batch, heads, queries, triton.cdiv(blocks, WORD)), dtype=torch.int32, device=q8.device)
    together = math.gcd(SELECT["HEADS"], heads // key_heads)
    _select[(queries, batch * heads // together)](
        q8, k8, inverses, thresholds, scales, offsets, words, padded, blocks, words.shape[-1], heads // key_heads,
        D=D, M=QUERIES, **SELECT | {"HEADS": together},
    )  # fmt: skip
    return words


def compacted(words: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Lists (batch, heads, blocks of queries, blocks) int16 of set bits and of the sink's, and their counts int32."""
    lists = torch.empty((*words.shape[:3], blocks), dtype=torch.int16, device=words.device)
    counts = torch.empty(words.shape[:3], dtype=torch.int32, device=words.device)
    grid = (words.shape[2], words.shape[0] * words.shape[1])
    _compact[grid](words, lists, counts, blocks, words.shape[-1], CHUNK=1024)
    return lists, counts
