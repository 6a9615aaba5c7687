"""FlashSigmoid's forward pass for Hopper: warp-specialised, in Gluon. The operator is that of `flash_sigmoid`.

One warp loads (TMA); two or three warpgroups of 64 query rows each compute. A warpgroup's step multiplies queries with
a block of keys, and the weights of the block before with their values, both asynchronously; while the latter runs it
turns scores into weights. The warpgroups take turns to issue their products, so that scores of one could be turned into
weights while another multiplies; on an H200 it was no faster than without, and why is not known.
Programs stay on their multiprocessor and take tile after tile, so that loading goes on across tiles.

Weights are those of `flash_sigmoid_weights`.

float16 and bfloat16, head widths of `WIDTHS`; keys beyond the last are zeros of TMA, rows beyond it are not stored.
Needs compute capability 9; nothing here runs in Triton's interpreter.
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

from benchmarks.kernels.flash_sigmoid_weights import FORMS, weights
from benchmarks.kernels.hopper import (
    ROWS,
    Settings,
    allocated,
    await_use,
    descriptor,
    fetch,
    fetch_block,
    operand,
    pass_turn,
    take_turn,
    times_values,
    write_rows,
)

WIDTHS = (32, 64, 128)
LOG2_E = gl.constexpr(math.log2(math.e))


@aggregate
class Problem:
    """What a launch is about: biases and slopes (heads,) float32, counts, and the factor of the scores."""

    biases: gl.tensor
    slopes: gl.tensor
    scale: gl.tensor
    batch: gl.tensor
    queries: gl.tensor
    keys: gl.tensor
    heads: gl.tensor
    group: gl.tensor

    @gluon.constexpr_function
    def __init__(self, biases, slopes, scale, batch, queries, keys, heads, group):
        self.biases, self.slopes, self.scale, self.batch = biases, slopes, scale, batch
        self.queries, self.keys, self.heads, self.group = queries, keys, heads, group


@gluon.jit
def _own(problem, settings):
    """How many tiles this program works on."""
    units = problem.heads * gl.cdiv(gl.cdiv(problem.queries, ROWS * settings.CONSUMERS), settings.TOGETHER)
    rest = gl.maximum(0, problem.batch * units - gl.program_id(0))
    return gl.cdiv(rest, gl.num_programs(0)) * settings.TOGETHER


@gluon.jit
def _tile(j, problem, settings):
    """First row, batch and head of this program's tile j, and how many blocks of keys it sees.

    Under the causal mask the j-th tile from the start of a head comes together with the j-th from its end, so that
    all pairs have the same work; of an odd number of tiles the one in the middle is not done twice.
    """
    M: gl.constexpr = ROWS * settings.CONSUMERS
    tiles = gl.cdiv(problem.queries, M)
    units = gl.cdiv(tiles, settings.TOGETHER)
    unit = gl.program_id(0) + j // settings.TOGETHER * gl.num_programs(0)
    both = unit // units
    tile = unit % units
    blocks = gl.cdiv(problem.keys, settings.N)
    if settings.CAUSAL:
        other = tiles - 1 - tile
        if j % 2 == 0:
            tile = gl.where(tile == other, tiles, other)
        blocks = gl.where(tile < tiles, _seen(tile * M + M, problem, settings, blocks), 0)
    return tile * M, both // problem.heads, both % problem.heads, blocks


@gluon.jit
def _seen(end, problem, settings, blocks):
    """Blocks of keys that rows before `end` see under the causal mask."""
    last = end + problem.keys - problem.queries
    return gl.maximum(0, gl.minimum(blocks, (last + settings.N - 1) // settings.N))


# -- loading -----------------------------------------------------------------------------------------------------------


@gluon.jit
def _load(queries, keys, values, shared, problem, settings):
    count = 0
    turn = 1
    for j in range(_own(problem, settings)):
        row, batch, head, blocks = _tile(j, problem, settings)
        for c in gl.static_range(settings.CONSUMERS):
            mbarrier.wait(shared.q_free.index(c), turn)
            fetch(queries, batch, head, row + c * ROWS, shared.q_ready.index(c), shared.q.index(c))
        for i in range(blocks):
            fetch_block(keys, values, batch, head // problem.group, i * settings.N, count + i, shared, settings)
        count += blocks
        turn ^= 1


# -- computing ---------------------------------------------------------------------------------------------------------


@gluon.jit
def _scores(n, shared, settings, WHICH: gl.constexpr):
    N: gl.constexpr = settings.N
    D: gl.constexpr = settings.D
    k = shared.k.index(n % settings.STAGES).reshape((N, D)).permute((1, 0))
    empty = gl.zeros((ROWS, N), gl.float32, settings.SCORES)
    return warpgroup_mma(shared.q.index(WHICH).reshape((ROWS, D)), k, empty, use_acc=False, is_async=True)


@gluon.jit
def _step(i, n, p, o, top, total, a, b, slope, back, full, shared, settings, WHICH: gl.constexpr):
    """Scores and weights of block i, the n-th of this program, while those of the block before meet their values."""
    await_use(shared.v_ready, n - 1, settings.STAGES)
    await_use(shared.k_ready, n, settings.STAGES)
    take_turn(n, shared, WHICH)
    s = _scores(n, shared, settings, WHICH)
    o = times_values(p, o, n - 1, shared, settings)
    pass_turn(shared, settings, WHICH)
    s = warpgroup_mma_wait(1, [s])
    mbarrier.arrive(shared.k_free.index(n % settings.STAGES))
    if settings.CAUSAL and i >= full:
        w, top, total, shrink = weights(s, top, total, a, b, slope, back - i * settings.N, settings, True)
    else:
        w, top, total, shrink = weights(s, top, total, a, b, slope, back - i * settings.N, settings, False)
    w = operand(w, shared.v.dtype, settings)
    # Passes at once. The compiler does not move the weights across it, behind the wait for the values.
    await_use(shared.v_ready, n - 1, settings.STAGES)
    o = warpgroup_mma_wait(0, [o])
    mbarrier.arrive(shared.v_free.index((n - 1) % settings.STAGES))
    if settings.FORM == "softmax":
        o *= gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, settings.OUTPUT)), 1)
    return w, o, top, total


@gluon.jit
def _rows(row, first, mine, shared, problem, settings, a, b, slope, WHICH: gl.constexpr):
    """Output (ROWS, D) float32 of the rows from `row` on, which see `mine` blocks; `first` counts earlier blocks."""
    back = row + problem.keys - problem.queries
    full = gl.maximum(0, back + 1) // settings.N
    o = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
    top = gl.full((ROWS,), float("inf"), gl.float32, gl.SliceLayout(1, settings.SCORES))
    total = gl.zeros((ROWS,), gl.float32, gl.SliceLayout(1, settings.SCORES))
    await_use(shared.k_ready, first, settings.STAGES)
    take_turn(first, shared, WHICH)
    s = _scores(first, shared, settings, WHICH)
    pass_turn(shared, settings, WHICH)
    s = warpgroup_mma_wait(0, [s])
    mbarrier.arrive(shared.k_free.index(first % settings.STAGES))
    w, top, total, _ = weights(s, top, total, a, b, slope, back, settings, settings.CAUSAL)
    p = operand(w, shared.v.dtype, settings)
    for i in range(1, mine):
        p, o, top, total = _step(i, first + i, p, o, top, total, a, b, slope, back, full, shared, settings, WHICH)
    mbarrier.arrive(shared.q_free.index(WHICH))
    last = first + mine - 1
    await_use(shared.v_ready, last, settings.STAGES)
    o = warpgroup_mma_wait(0, [times_values(p, o, last, shared, settings)])
    mbarrier.arrive(shared.v_free.index(last % settings.STAGES))
    if settings.FORM == "softmax":
        o /= gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, settings.OUTPUT)), 1)
    if settings.FORM == "newton with row maximum":
        kept = gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, settings.OUTPUT)), 1)
        o = gl.where(kept >= 0, o, 0.0)
    return o


@gluon.jit
def _compute(outputs, shared, problem, settings, WHICH: gl.constexpr):
    factor: gl.constexpr = 0.5 if settings.FORM == "tanh" else -LOG2_E
    STAGES: gl.constexpr = settings.STAGES
    count = 0
    turn = 0
    for j in range(_own(problem, settings)):
        row, batch, head, blocks = _tile(j, problem, settings)
        row += WHICH * ROWS
        mine = blocks
        if settings.CAUSAL:
            mine = _seen(row + ROWS, problem, settings, blocks)
        b, slope = gl.load(problem.biases + head) * factor, 0.0
        if settings.ALIBI:
            slope = gl.load(problem.slopes + head) * factor
        mbarrier.wait(shared.q_ready.index(WHICH), turn)
        if mine > 0:
            o = _rows(row, count, mine, shared, problem, settings, problem.scale * factor, b, slope, WHICH)
        else:
            o = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
            mbarrier.arrive(shared.q_free.index(WHICH))
        for n in range(count + mine, count + blocks):
            # Keys that only later rows of this tile see are passed on unread.
            await_use(shared.k_ready, n, STAGES)
            take_turn(n, shared, WHICH)
            pass_turn(shared, settings, WHICH)
            mbarrier.arrive(shared.k_free.index(n % STAGES))
            await_use(shared.v_ready, n, STAGES)
            mbarrier.arrive(shared.v_free.index(n % STAGES))
        write_rows(o, outputs, batch, head, row, shared, settings, WHICH)
        count += blocks
        turn ^= 1
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["batch", "query_count", "key_count", "heads", "group"])
def _forward(
    queries, keys, values, outputs, biases, slopes, scale, batch, query_count, key_count, heads, group,
    N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr, TOGETHER: gl.constexpr,
    FORM: gl.constexpr, CAUSAL: gl.constexpr, ALIBI: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    settings = Settings(N, D, STAGES, CONSUMERS, TOGETHER, FORM, CAUSAL, ALIBI)
    problem = Problem(biases, slopes, scale, batch, query_count, key_count, heads, group)
    shared = allocated(queries, keys, values, outputs, N, D, STAGES, CONSUMERS)
    ZERO: gl.constexpr = 0
    ONE: gl.constexpr = 1
    TWO: gl.constexpr = 2
    if CONSUMERS == 3:
        gl.warp_specialize([
            (_compute, (outputs, shared, problem, settings, ZERO)),
            (_compute, (outputs, shared, problem, settings, ONE)),
            (_compute, (outputs, shared, problem, settings, TWO)),
            (_load, (queries, keys, values, shared, problem, settings)),
        ], [4, 4, 1], [REGISTERS, REGISTERS, 24])  # fmt: skip
    else:
        gl.warp_specialize([
            (_compute, (outputs, shared, problem, settings, ZERO)),
            (_compute, (outputs, shared, problem, settings, ONE)),
            (_load, (queries, keys, values, shared, problem, settings)),
        ], [4, 1], [REGISTERS, 24])  # fmt: skip


# -- launching ---------------------------------------------------------------------------------------------------------


def supported(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `forward` takes these: half precision, a width of `WIDTHS`, and what TMA can address."""
    fits = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] in WIDTHS and min(q.numel(), k.numel()) > 0
    return fits and all(
        x.data_ptr() % 16 == 0 and all(stride > 0 and stride % 8 == 0 for stride in x.stride()[:3]) for x in (q, k, v)
    )


def size(width: int, queries: int, alibi: bool) -> dict[str, int]:
    """Blocks, stages and warpgroups for a shape, and registers a thread of a computing warpgroup."""
    # Three warpgroups share what is loaded, but leave 160 registers a thread: enough for width 64 without slopes.
    consumers = 3 if width < 128 and queries > 1024 and not alibi else 2
    return {"N": 128, "D": width, "CONSUMERS": consumers, "STAGES": 3 if width < 128 else 2,
            "REGISTERS": 160 if consumers == 3 else 240}  # fmt: skip


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    biases: Tensor,
    slopes: Tensor | None,
    causal: bool,
    scale: float,
    form: str | None = None,
) -> Tensor:
    """Attention of one launch; arguments as those of `flash_sigmoid`, the last axis of q, k, v contiguous.

    Args:
        form: one of `FORMS`, unless given that of the dtype; "softmax" needs as many queries as keys.

    Raises:
        ValueError: the form has no such name.
    """
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    known = size(width, queries, slopes is not None)
    form = form or ("newton twice" if q.dtype == torch.float16 else "newton")
    if form not in FORMS:
        raise ValueError(f"no form {form!r} of the weights: give one of {', '.join(FORMS)}")
    together = 2 if causal else 1
    units = batch * heads * triton.cdiv(triton.cdiv(queries, known["CONSUMERS"] * ROWS.value), together)
    programs = min(units, torch.cuda.get_device_properties(q.device).multi_processor_count)
    _forward[(programs,)](
        descriptor(q, ROWS.value), descriptor(k, known["N"]), descriptor(v, known["N"]), descriptor(o, ROWS.value),
        biases, biases if slopes is None else slopes, scale, batch, queries, keys, heads, heads // k.shape[1], **known,
        TOGETHER=together, FORM=form, CAUSAL=causal, ALIBI=slopes is not None, num_warps=4,
    )  # fmt: skip
    return o
