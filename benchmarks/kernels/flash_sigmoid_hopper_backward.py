"""FlashSigmoid's backward pass for Hopper: warp-specialised, in Gluon. The operator is that of `flash_sigmoid`.

With P the weights (queries, keys), dO (queries, width) and dP = dO V^T:

    dV = P^T dO,   dS = P (1 - P) dP,   dQ = scale dS K,   dK = scale dS^T Q.

A program keeps 128 keys and walks over blocks of queries, so that P is computed once and dV and dK stay in registers.
Two warpgroups have 64 keys each. A step is S^T = K Q^T and dP^T = V dO^T, then dV and dK of the warpgroup's own keys, P
and dS in registers, and of dS K, over all 128 keys, half: the warpgroups exchange dS through shared memory, and while
they wait for one another dK is multiplied. One warp loads queries and gradients (TMA). Two others add dS K to sums
(float32) in global memory, each that of every second step, so that one may wait for its turn or for its sum to land
while the other adds; a second, small kernel scales and rounds the sums.

Two runs agree bitwise: additions in global memory have an order, that of `flash_sigmoid_backward_walk`.

Slower on an H200, whose power is what limits it: one adding warp, for which all then wait; dK of a dS from shared
memory, still multiplied beside the weights of the next step. Not faster: no turns; scores of the next step ahead of
this one's dS K, though that takes fewer cycles.

Limits: float16 and bfloat16, head widths of `WIDTHS`, no slopes. Memory: beside the gradients, queries x width float32
a head. Needs compute capability 9; runs in `benchmarks.gluon_interpreter`.
"""

# Gluon reads the annotations of an aggregate as classes: no `from __future__ import annotations` here.
import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import _aggregate as aggregate

from benchmarks.kernels.flash_sigmoid_backward_walk import KEYS, Problem, Settings, own_walk, turn_of, visited
from benchmarks.kernels.flash_sigmoid_backward_weights import change, unit, weights
from benchmarks.kernels.hopper import (
    ROWS,
    addressable,
    async_load,
    async_store,
    await_turn,
    barriers,
    descriptor,
    end_turn,
    fetch,
    operand,
    reduce_add,
    thread_barrier,
)

WIDTHS = (64, 128)
LOG2_E = gl.constexpr(math.log2(math.e))


@aggregate
class Shared:
    """Shared memory: keys and values; of two steps queries, gradients, dS and dS K; and who may touch what."""

    k: gl.shared_memory_descriptor
    v: gl.shared_memory_descriptor
    q: gl.shared_memory_descriptor
    do: gl.shared_memory_descriptor
    ds: gl.shared_memory_descriptor
    dq: gl.shared_memory_descriptor
    k_ready: gl.shared_memory_descriptor
    v_ready: gl.shared_memory_descriptor
    q_ready: gl.shared_memory_descriptor
    do_ready: gl.shared_memory_descriptor
    free: gl.shared_memory_descriptor
    ds_ready: gl.shared_memory_descriptor
    dq_ready: gl.shared_memory_descriptor
    dq_free: gl.shared_memory_descriptor

    @gluon.constexpr_function
    def __init__(self, k, v, q, do, ds, dq, k_ready, v_ready, q_ready, do_ready, free, ds_ready, dq_ready, dq_free):
        self.k, self.v, self.q, self.do, self.ds, self.dq = k, v, q, do, ds, dq
        self.k_ready, self.v_ready, self.q_ready, self.do_ready = k_ready, v_ready, q_ready, do_ready
        self.free, self.ds_ready, self.dq_ready, self.dq_free = free, ds_ready, dq_ready, dq_free


@gluon.jit
def _await(barriers, n):
    """Until what step n has here is ready: of two steps there is room for."""
    mbarrier.wait(barriers.index(n & 1), n >> 1 & 1)


# -- loading and adding ------------------------------------------------------------------------------------------------


@gluon.jit
def _fetch_pair(descriptor, walk, ready, target):
    """Keys or values of both warpgroups."""
    mbarrier.expect(ready.index(0), 2 * descriptor.block_type.nbytes)
    for half in gl.static_range(2):
        row = walk.block * KEYS + half * ROWS
        async_load(descriptor, [walk.batch, walk.key_head, row, 0], ready.index(0), target.index(half))


@gluon.jit
def _load(queries, keys, values, gradients, shared, problem, settings):
    walk = own_walk(problem, settings)
    _fetch_pair(keys, walk, shared.k_ready, shared.k)
    for n in range(problem.group * walk.count):
        slot = n & 1
        head = walk.key_head * problem.group + n // walk.count
        row = visited(n % walk.count, walk) * settings.M
        mbarrier.wait(shared.free.index(slot), n >> 1 & 1 ^ 1)
        fetch(queries, walk.batch, head, row, shared.q_ready.index(slot), shared.q.index(slot))
        if n == 0:
            _fetch_pair(values, walk, shared.v_ready, shared.v)
        fetch(gradients, walk.batch, head, row, shared.do_ready.index(slot), shared.do.index(slot))


@gluon.jit
def _add(sums, shared, problem, settings, WHICH: gl.constexpr):
    """Every second step's dS K to global memory in its turn."""
    walk = own_walk(problem, settings)
    for n in range(WHICH, problem.group * walk.count, 2):
        at = visited(n % walk.count, walk)
        head = walk.batch * problem.heads + walk.key_head * problem.group + n // walk.count
        place = head * walk.blocks + at
        turn = turn_of(at, walk, problem, settings)
        await_turn(problem.turns + place, turn)
        _await(shared.dq_ready, n)
        for half in gl.static_range(2):
            row, column = place * settings.M, half * 64
            if settings.D == 64:
                row, column = place * settings.M + half * ROWS, 0
            if turn == 0:
                async_store(sums, [row, column], shared.dq.index(WHICH * 2 + half))
            else:
                reduce_add(sums, [row, column], shared.dq.index(WHICH * 2 + half))
        tma.store_wait(0)
        mbarrier.arrive(shared.dq_free.index(WHICH))
        end_turn(problem.turns + place)


# -- computing ---------------------------------------------------------------------------------------------------------


@gluon.jit
def _scores(n, shared, settings, WHICH: gl.constexpr):
    """K Q^T and V dO^T of step n, (ROWS, M), under way."""
    slot = n & 1
    nothing = gl.zeros((ROWS, settings.M), gl.float32, settings.SCORES)
    k = shared.k.index(WHICH).reshape((ROWS, settings.D))
    v = shared.v.index(WHICH).reshape((ROWS, settings.D))
    q = shared.q.index(slot).reshape((settings.M, settings.D)).permute((1, 0))
    do = shared.do.index(slot).reshape((settings.M, settings.D)).permute((1, 0))
    _await(shared.q_ready, n)
    s = warpgroup_mma(k, q, nothing, use_acc=False, is_async=True)
    _await(shared.do_ready, n)
    mbarrier.wait(shared.v_ready.index(0), 0, pred=n == 0)
    dp = warpgroup_mma(v, do, nothing, use_acc=False, is_async=True)
    return s, dp


@gluon.jit
def _share(slot, shared, settings, WHICH: gl.constexpr):
    """This warpgroup's part (64, 64) of dS K, over all keys, under way: half of 128 columns, or of 128 queries."""
    dq = gl.zeros((ROWS, 64), gl.float32, settings.SHARE)
    for half in gl.static_range(2):
        ds = shared.ds.index(slot * 2 + half).permute((1, 0))
        k = shared.k.index(half).reshape((ROWS, settings.D))
        if settings.D == 64:
            ds = ds.slice(WHICH * ROWS, ROWS, 0)
        else:
            k = k.slice(WHICH * 64, 64, 1)
        dq = warpgroup_mma(ds, k, dq, use_acc=half > 0, is_async=True)
    return dq


@gluon.jit
def _give(dq, n, shared, settings, WHICH: gl.constexpr):
    """Hand the dS K of step n to the warp that adds it."""
    slot = n & 1
    mbarrier.wait(shared.dq_free.index(slot), n >> 1 & 1 ^ 1)
    shared.dq.index(slot * 2 + WHICH).store(dq)
    fence_async_shared()
    mbarrier.arrive(shared.dq_ready.index(slot))


@gluon.jit
def _step(n, dk, dv, a, b, ahead, shared, settings, WHICH: gl.constexpr):
    """Step n. The first query is `ahead` of the warpgroup's first key."""
    slot = n & 1
    q = shared.q.index(slot).reshape((settings.M, settings.D))
    do = shared.do.index(slot).reshape((settings.M, settings.D))
    s, dp = _scores(n, shared, settings, WHICH)
    s = warpgroup_mma_wait(1, [s])
    if settings.CAUSAL and ahead < ROWS - 1:
        p, slope = weights(s, a, b, ahead, shared.q.dtype, settings, True)
    else:
        p, slope = weights(s, a, b, ahead, shared.q.dtype, settings, False)
    p = operand(p, shared.q.dtype, settings)
    # Passes at once. The compiler does not move the weights across it.
    _await(shared.do_ready, n)
    dv = warpgroup_mma(p, do, dv, is_async=True)
    dp = warpgroup_mma_wait(1, [dp])
    ds = change(slope, dp, shared.q.dtype)
    # Who found the other warpgroup's dS of the step before knows that it is done with that of two steps before.
    shared.ds.index(slot * 2 + WHICH).store(ds)
    fence_async_shared()
    mbarrier.arrive(shared.ds_ready.index(slot))
    dk = warpgroup_mma(operand(ds, shared.q.dtype, settings), q, dk, is_async=True)
    _await(shared.ds_ready, n)
    dq = _share(slot, shared, settings, WHICH)
    dk, dv = warpgroup_mma_wait(2, [dk, dv])
    mbarrier.arrive(shared.free.index(slot))
    dq = warpgroup_mma_wait(0, [dq])
    _give(dq, n, shared, settings, WHICH)
    return dk, dv


@gluon.jit
def _write(x, target, walk, buffer, settings, WHICH: gl.constexpr):
    """Rows (ROWS, D) to global memory; those beyond the last are not written."""
    tma.store_wait(0)
    thread_barrier()
    buffer.reshape((ROWS, settings.D)).store(x.to(target.dtype))
    fence_async_shared()
    thread_barrier()
    async_store(target, [walk.batch, walk.key_head, walk.block * KEYS + WHICH * ROWS, 0], buffer)


@gluon.jit
def _compute(key_gradients, value_gradients, shared, problem, settings, WHICH: gl.constexpr):
    """dK and dV of ROWS keys. They leave through the place of the warpgroup's values, which nobody else reads."""
    walk = own_walk(problem, settings)
    dk = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
    dv = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
    a = problem.scale * -LOG2_E
    ahead = walk.start * settings.M + problem.keys - problem.queries - (walk.block * KEYS + WHICH * ROWS)
    further = walk.way * settings.M
    mbarrier.wait(shared.k_ready.index(0), 0)
    for member in range(problem.group):
        b = gl.load(problem.biases + walk.key_head * problem.group + member) * -LOG2_E
        for t in range(walk.count):
            n = member * walk.count + t
            dk, dv = _step(n, dk, dv, a, b, ahead + t * further, shared, settings, WHICH)
    _write(dv * settings.UNIT, value_gradients, walk, shared.v.index(WHICH), settings, WHICH)
    dk *= problem.scale * (settings.UNIT * settings.UNIT)
    _write(dk, key_gradients, walk, shared.v.index(WHICH), settings, WHICH)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["query_count", "key_count", "heads", "group", "processors"])
def _backward(
    queries, keys, values, gradients, key_gradients, value_gradients, sums, turns, biases, scale,
    query_count, key_count, heads, group, processors,
    M: gl.constexpr, D: gl.constexpr, UNIT: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys of one key head, a program, and its part of dQ."""
    settings = Settings(M, D, UNIT, CAUSAL)
    problem = Problem(biases, turns, scale, query_count, key_count, heads, group, processors)
    shared = Shared(
        gl.allocate_shared_memory(keys.dtype, [2, 1, 1, ROWS, D], keys.layout),
        gl.allocate_shared_memory(keys.dtype, [2, 1, 1, ROWS, D], values.layout),
        gl.allocate_shared_memory(keys.dtype, [2, 1, 1, M, D], queries.layout),
        gl.allocate_shared_memory(keys.dtype, [2, 1, 1, M, D], gradients.layout),
        gl.allocate_shared_memory(keys.dtype, [2 * 2, ROWS, M], gl.NVMMASharedLayout(128, 16, rank=2)),
        gl.allocate_shared_memory(gl.float32, [2 * 2, ROWS, 64], sums.layout),
        barriers(1, 1), barriers(1, 1), barriers(2, 1), barriers(2, 1), barriers(2, 2),
        barriers(2, 2), barriers(2, 2), barriers(2, 1),
    )  # fmt: skip
    fence_async_shared()
    ZERO: gl.constexpr = 0
    ONE: gl.constexpr = 1
    gl.warp_specialize([
        (_compute, (key_gradients, value_gradients, shared, problem, settings, ZERO)),
        (_compute, (key_gradients, value_gradients, shared, problem, settings, ONE)),
        (_load, (queries, keys, values, gradients, shared, problem, settings)),
        (_add, (sums, shared, problem, settings, ZERO)),
        (_add, (sums, shared, problem, settings, ONE)),
    ], [4, 1, 1, 1], [240, 24, 24, 24])  # fmt: skip


@triton.jit
def _scaled(
    Sums, dQ, scale, queries, padded, unseen, heads, qb, qh, qn, D: tl.constexpr, M: tl.constexpr
):  # fmt: skip
    """dQ of M queries of one head, program (block, batch * heads): scale times the sums; the unseen have none."""
    both = tl.program_id(1)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.arange(0, D)
    seen = (rows >= unseen) & (rows < queries)
    at = both.to(tl.int64) * padded + rows
    sums = tl.load(Sums + at[:, None] * D + columns[None, :], mask=seen[:, None], other=0.0)
    target = dQ + (both // heads).to(tl.int64) * qb + (both % heads).to(tl.int64) * qh
    at = target + rows.to(tl.int64)[:, None] * qn + columns[None, :]
    tl.store(at, (sums * scale).to(dQ.dtype.element_ty), mask=(rows < queries)[:, None])


# -- launching ---------------------------------------------------------------------------------------------------------


def supported(do: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `backward` takes these: half precision, a width of `WIDTHS`, and what TMA can address."""
    fits = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] in WIDTHS and min(q.numel(), k.numel()) > 0
    return fits and addressable(do, q, k, v)


def size(width: int) -> dict[str, int]:
    """Queries of a step for a width: as many as leave shared memory room for two steps."""
    return {"M": 8192 // width, "D": width}


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, biases: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dQ, dK and dV of one launch; arguments as those of `flash_sigmoid`, the last axis of do, q, k, v contiguous."""
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1:3]
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    known = size(width)
    blocks = triton.cdiv(queries, known["M"])
    padded = blocks * known["M"]
    # Not initialised: the first to come stores. Rows that nobody visits are unseen.
    sums = torch.empty((batch * heads * padded, width), dtype=torch.float32, device=q.device)
    turns = torch.zeros(batch * heads * blocks, dtype=torch.int32, device=q.device)
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=2)
    _backward[(triton.cdiv(keys, KEYS.value) * batch * key_heads,)](
        descriptor(q, known["M"]), descriptor(k, ROWS.value), descriptor(v, ROWS.value), descriptor(do, known["M"]),
        descriptor(dk, ROWS.value), descriptor(dv, ROWS.value),
        TensorDescriptor(sums, list(sums.shape), list(sums.stride()), [64, 64], layout), turns, biases, scale,
        queries, keys, heads, heads // key_heads, torch.cuda.get_device_properties(q.device).multi_processor_count,
        UNIT=unit(q.dtype), CAUSAL=causal, num_warps=4, **known,
    )  # fmt: skip
    unseen = max(0, queries - keys) if causal else 0
    _scaled[(triton.cdiv(queries, 64), batch * heads)](
        sums, dq, scale * unit(q.dtype) ** 2, queries, padded, unseen, heads, *dq.stride()[:3], D=width, M=64
    )
    return dq, dk, dv
