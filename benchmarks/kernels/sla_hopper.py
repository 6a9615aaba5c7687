"""The sparse branch of SLA for Hopper: warp-specialised, in Gluon, of the parts that `flash_sigmoid_hopper` is made of.

One warp loads (TMA) queries and, by the lists, critical blocks of keys; two warpgroups of 64 query rows compute on the
same blocks, taking turns to issue their products. While the weights of one block meet their values, the scores of the
next become weights. Queries stay in registers, so that scores of 64 keys read keys alone from shared memory. Programs
stay on their multiprocessor and go through the blocks of queries of one head after another.

Blocks of 128 queries and 64 keys, float16 and bfloat16, width 64 or 128: elsewhere `sla_blocks` computes the same.
"""

# Gluon reads the annotations of an aggregate as classes: no `from __future__ import annotations` here.
import math

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.core import _aggregate as aggregate

from benchmarks.kernels.hopper import (
    ROWS,
    Settings,
    addressable,
    allocated,
    await_use,
    descriptor,
    fetch,
    fetch_block,
    operand,
    pass_turn,
    special,
    take_turn,
    thread_barrier,
    times_values,
    write_rows,
)

LOG2_E = gl.constexpr(math.log2(math.e))
QUERIES, KEYS = 128, 64
"""Of a block."""


@aggregate
class Task:
    """What a launch is about: lists (tiles, key_blocks) and counts (tiles,) int32, lses (batch, heads, queries)."""

    lists: gl.tensor
    counts: gl.tensor
    lses: gl.tensor
    scale: gl.tensor
    queries: gl.tensor
    keys: gl.tensor
    heads: gl.tensor
    tiles: gl.tensor
    query_blocks: gl.tensor
    key_blocks: gl.tensor

    @gluon.constexpr_function
    def __init__(self, lists, counts, lses, scale, queries, keys, heads, tiles, query_blocks, key_blocks):
        self.lists, self.counts, self.lses, self.scale, self.queries = lists, counts, lses, scale, queries
        self.keys, self.heads, self.tiles = keys, heads, tiles
        self.query_blocks, self.key_blocks = query_blocks, key_blocks


@gluon.jit
def _own(task):
    """How many blocks of queries this program works on."""
    return gl.cdiv(gl.maximum(0, task.tiles - gl.program_id(0)), gl.num_programs(0))


@gluon.jit
def _place(j, task, settings):
    """Tile, batch, head and first row of this program's j-th block of queries."""
    tile = gl.program_id(0) + j * gl.num_programs(0)
    row = tile // task.query_blocks
    return tile, row // task.heads, row % task.heads, tile % task.query_blocks * (ROWS * settings.CONSUMERS)


@gluon.jit
def _load(queries, keys, values, shared, task, settings):
    count = 0
    turn = 1
    for j in range(_own(task)):
        tile, batch, head, first = _place(j, task, settings)
        held = gl.load(task.counts + tile)
        for c in gl.static_range(settings.CONSUMERS):
            mbarrier.wait(shared.q_free.index(c), turn)
            fetch(queries, batch, head, first + c * ROWS, shared.q_ready.index(c), shared.q.index(c))
        entry = task.lists + tile * task.key_blocks
        for i in range(held):
            start = gl.load(entry + i) * settings.N
            fetch_block(keys, values, batch, head, start, count + i, shared, settings)
        count += held
        turn ^= 1


@gluon.jit
def _scores(q, n, shared, settings):
    """Of the n-th block of keys that this program meets."""
    k = shared.k.index(n % settings.STAGES).reshape((settings.N, settings.D)).permute((1, 0))
    empty = gl.zeros((ROWS, settings.N), gl.float32, settings.SCORES)
    return warpgroup_mma(q, k, empty, use_acc=False, is_async=True)


@gluon.jit
def _softmax(s, top, total, a, start, task, settings, RAGGED: gl.constexpr):
    """Weights not normalised, and maximum, sum and shrinkage of each row; logits in base 2."""
    if RAGGED:
        columns = start + gl.arange(0, settings.N, layout=gl.SliceLayout(0, settings.SCORES))
        s = gl.where(gl.expand_dims(columns < task.keys, 0), s, float("-inf"))
    new = gl.maximum(top, gl.max(s, 1) * a)
    shrink = gl.exp2(top - new)
    p = special(s * a - gl.expand_dims(new, 1), "ex2.approx.ftz.f32")
    return p, new, total * shrink + gl.sum(p, 1), shrink


@gluon.jit
def _first(entry, i, settings, RAGGED: gl.constexpr):
    """First key of the i-th block of a list; it matters only where the last block is short."""
    if RAGGED:
        i = gl.load(entry + i) * settings.N
    return i


@gluon.jit
def _rows(q, entry, before, held, shared, task, settings, WHICH: gl.constexpr, RAGGED: gl.constexpr):
    """Output not normalised, maxima and sums of this warpgroup's rows over `held` > 0 blocks."""
    a = task.scale * LOG2_E
    o = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
    top = gl.full((ROWS,), float("-inf"), gl.float32, gl.SliceLayout(1, settings.SCORES))
    total = gl.zeros((ROWS,), gl.float32, gl.SliceLayout(1, settings.SCORES))
    await_use(shared.k_ready, before, settings.STAGES)
    take_turn(before, shared, WHICH)
    s = _scores(q, before, shared, settings)
    pass_turn(shared, settings, WHICH)
    s = warpgroup_mma_wait(0, [s])
    mbarrier.arrive(shared.k_free.index(before % settings.STAGES))
    p, top, total, shrink = _softmax(s, top, total, a, _first(entry, 0, settings, RAGGED), task, settings, RAGGED)
    w = operand(p, shared.v.dtype, settings)
    for i in range(1, held):
        n = before + i
        await_use(shared.v_ready, n - 1, settings.STAGES)
        await_use(shared.k_ready, n, settings.STAGES)
        take_turn(n, shared, WHICH)
        s = _scores(q, n, shared, settings)
        o = times_values(w, o, n - 1, shared, settings)
        pass_turn(shared, settings, WHICH)
        s = warpgroup_mma_wait(1, [s])
        mbarrier.arrive(shared.k_free.index(n % settings.STAGES))
        p, top, total, shrink = _softmax(s, top, total, a, _first(entry, i, settings, RAGGED), task, settings, RAGGED)
        w = operand(p, shared.v.dtype, settings)
        # Passes at once; keeps the compiler from moving the weights behind the wait, as in flash_sigmoid_hopper.
        await_use(shared.v_ready, n - 1, settings.STAGES)
        o = warpgroup_mma_wait(0, [o])
        mbarrier.arrive(shared.v_free.index((n - 1) % settings.STAGES))
        o *= gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, settings.OUTPUT)), 1)
    last = before + held - 1
    await_use(shared.v_ready, last, settings.STAGES)
    o = warpgroup_mma_wait(0, [times_values(w, o, last, shared, settings)])
    mbarrier.arrive(shared.v_free.index(last % settings.STAGES))
    return o, top, total


@gluon.jit
def _compute(outputs, shared, task, settings, WHICH: gl.constexpr, RAGGED: gl.constexpr):
    count = 0
    turn = 0
    for j in range(_own(task)):
        tile, batch, head, first = _place(j, task, settings)
        first += WHICH * ROWS
        held = gl.load(task.counts + tile)
        entry = task.lists + tile * task.key_blocks
        mbarrier.wait(shared.q_ready.index(WHICH), turn)
        q = shared.q.index(WHICH).reshape((ROWS, settings.D)).load(gl.DotOperandLayout(0, settings.SCORES, 2))
        thread_barrier()
        mbarrier.arrive(shared.q_free.index(WHICH))
        if held > 0:
            o, top, total = _rows(q, entry, count, held, shared, task, settings, WHICH, RAGGED)
        else:
            o = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
            top = gl.zeros((ROWS,), gl.float32, gl.SliceLayout(1, settings.SCORES))
            total = gl.full((ROWS,), 1.0, gl.float32, gl.SliceLayout(1, settings.SCORES))
        rows = first + gl.arange(0, ROWS, layout=gl.SliceLayout(1, settings.SCORES))
        gl.store(
            task.lses + tile // task.query_blocks * task.queries + rows, top + gl.log2(total), mask=rows < task.queries
        )
        o *= gl.expand_dims(gl.convert_layout(1 / total, gl.SliceLayout(1, settings.OUTPUT)), 1)
        write_rows(o, outputs, batch, head, first, shared, settings, WHICH)
        count += held
        turn ^= 1
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["query_count", "key_count", "heads", "tiles", "query_blocks", "key_blocks"])
def sparse_forward(
    queries, keys, values, outputs, lists, counts, lses, scale, query_count, key_count, heads, tiles, query_blocks,
    key_blocks, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, RAGGED: gl.constexpr,
):  # fmt: skip
    TWICE: gl.constexpr = 2
    settings = Settings(N, D, STAGES, TWICE)
    task = Task(lists, counts, lses, scale, query_count, key_count, heads, tiles, query_blocks, key_blocks)
    ZERO: gl.constexpr = 0
    ONE: gl.constexpr = 1
    shared = allocated(queries, keys, values, outputs, N, D, STAGES, TWICE, ONE)
    gl.warp_specialize([
        (_compute, (outputs, shared, task, settings, ZERO, RAGGED)),
        (_compute, (outputs, shared, task, settings, ONE, RAGGED)),
        (_load, (queries, keys, values, shared, task, settings)),
    ], [4, 1], [240, 24])  # fmt: skip


def supported(q: Tensor, k: Tensor, v: Tensor, query_block: int, key_block: int) -> bool:
    """Whether `forward` takes these: its blocks, half precision, width 64 or 128, and what TMA can address."""
    fits = (query_block, key_block) == (QUERIES, KEYS) and q.dtype in (torch.float16, torch.bfloat16)
    return fits and q.shape[-1] in (64, 128) and addressable(q, k, v)


def forward(q: Tensor, k: Tensor, v: Tensor, lists: Tensor, counts: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """O^s, and log2 of the sums of exponentials; lists (batch, heads, T_m, T_n) and counts are those of rows."""
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    tiles, keys = counts.numel(), k.shape[2]
    programs = min(tiles, torch.cuda.get_device_properties(q.device).multi_processor_count)
    sparse_forward[(programs,)](
        descriptor(q, ROWS.value), descriptor(k, KEYS), descriptor(v, KEYS), descriptor(o, ROWS.value), lists,
        counts, lse, scale, q.shape[2], keys, q.shape[1], tiles, triton.cdiv(q.shape[2], QUERIES), lists.shape[-1],
        N=KEYS, D=q.shape[3], STAGES=4, RAGGED=keys % KEYS != 0, num_warps=4,
    )  # fmt: skip
    return o, lse
