"""FlashSigmoid's forward pass for Hopper: warp-specialised, in Gluon. The operator is that of `flash_sigmoid`.

One warp loads (TMA); two to four warpgroups of 64 query rows each compute. A warpgroup turns the scores of a block of
keys into weights, then multiplies them with the values and queries with the next block of keys, both asynchronously:
what overlaps with its products is the other warpgroups' arithmetic. A second set of weights, with which a warpgroup
could overlap its own, was faster at width 128 alone and by little, and slower where sequences are short.
Programs stay on their multiprocessor and take tile after tile; the next block may be the next tile's first, so that
there is one loop and no pause between tiles.

Weights are those of `flash_sigmoid_weights`.

float16 and bfloat16, head widths of `WIDTHS`; keys beyond the last are zeros of TMA, rows beyond it are not stored.
Needs compute capability 9; nothing here runs in Triton's interpreter, but in `benchmarks.gluon_interpreter`.
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

from benchmarks.kernels.flash_sigmoid_weights import FORMS, unit, weights
from benchmarks.kernels.hopper import (
    ROWS,
    Settings,
    addressable,
    allocated,
    await_use,
    descriptor,
    fetch,
    operand,
    times_values,
    write_rows,
)

WIDTHS = (32, 64, 128)
LOG2_E = gl.constexpr(math.log2(math.e))
TILES = gl.constexpr(2)
"""Tiles whose queries are in memory: the one that is computed and the next."""


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
    all pairs have the same work; of an odd number of tiles the one in the middle is not done twice. Rows that see
    nothing go through one block under the mask.
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
        blocks = gl.where(tile < tiles, _seen(tile * M + M, problem, settings, blocks), 1)
    return tile * M, both // problem.heads, both % problem.heads, blocks


@gluon.jit
def _seen(end, problem, settings, blocks):
    """Blocks of keys that rows before `end` see under the causal mask, at least one."""
    last = end + problem.keys - problem.queries
    return gl.maximum(1, gl.minimum(blocks, (last + settings.N - 1) // settings.N))


@gluon.jit
def _part(j, problem, settings, WHICH: gl.constexpr):
    """A warpgroup's part of tile j: first row, batch, head, blocks that its rows see and that the tile sees."""
    row, batch, head, blocks = _tile(j, problem, settings)
    row += WHICH * ROWS
    mine = blocks
    if settings.CAUSAL:
        mine = _seen(row + ROWS, problem, settings, blocks)
    return row, batch, head, mine, blocks


# -- loading -----------------------------------------------------------------------------------------------------------


@gluon.jit
def _load(queries, keys, values, shared, problem, settings):
    count = 0
    for j in range(_own(problem, settings)):
        row, batch, head, blocks = _tile(j, problem, settings)
        for c in gl.static_range(settings.CONSUMERS):
            at = j % TILES * settings.CONSUMERS + c
            mbarrier.wait(shared.q_free.index(at), j // TILES & 1 ^ 1)
            fetch(queries, batch, head, row + c * ROWS, shared.q_ready.index(at), shared.q.index(at))
        for i in range(blocks):
            n = count + i
            stage = n % settings.STAGES
            # Whoever gave back the values of a block has read the keys of the next: see `_step`. But the very first.
            if n == settings.STAGES:
                mbarrier.wait(shared.k_free.index(0), 0)
            fetch(
                keys, batch, head // problem.group, i * settings.N, shared.k_ready.index(stage), shared.k.index(stage)
            )
            mbarrier.wait(shared.v_free.index(stage), n // settings.STAGES & 1 ^ 1)
            fetch(
                values, batch, head // problem.group, i * settings.N, shared.v_ready.index(stage), shared.v.index(stage)
            )
        count += blocks


# -- computing ---------------------------------------------------------------------------------------------------------


@gluon.jit
def _scores(at, n, shared, settings):
    N: gl.constexpr = settings.N
    D: gl.constexpr = settings.D
    k = shared.k.index(n % settings.STAGES).reshape((N, D)).permute((1, 0))
    empty = gl.zeros((ROWS, N), gl.float32, settings.SCORES)
    return warpgroup_mma(shared.q.index(at).reshape((ROWS, D)), k, empty, use_acc=False, is_async=True)


@gluon.jit
def _offsets(head, problem, settings):
    """Bias and slope of a head as factors of what `weights` takes."""
    factor: gl.constexpr = 0.5 if settings.FORM == "tanh" else -LOG2_E
    slope = 0.0
    if settings.ALIBI:
        slope = gl.load(problem.slopes + head) * factor
    return problem.scale * factor, gl.load(problem.biases + head) * factor, slope


@gluon.jit
def _pass_on(first, end, shared, settings):
    """Blocks that only later rows of a tile see, unread."""
    for n in range(first, end):
        await_use(shared.v_ready, n, settings.STAGES)
        mbarrier.arrive(shared.v_free.index(n % settings.STAGES))


@gluon.jit
def _step(s, o, top, total, i, n, m, at, more, a, b, slope, back, full, shared, settings):
    """Weights of block i, the n-th of this program, meet its values while the m-th is scored, where there is more.

    Between n and m are blocks that only later rows see. Values of a block are given back, by each warpgroup, when these
    and the keys of the next block are out of use: those before the m-th together with those of the n-th.
    """
    if settings.CAUSAL and i >= full:
        w, top, total, shrink = weights(s, top, total, a, b, slope, back - i * settings.N, settings, True)
    else:
        w, top, total, shrink = weights(s, top, total, a, b, slope, back - i * settings.N, settings, False)
    if settings.FORM == "softmax":
        o *= gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, settings.OUTPUT)), 1)
    p = operand(w, shared.v.dtype, settings)
    await_use(shared.v_ready, n, settings.STAGES)
    mbarrier.wait(shared.k_ready.index(m % settings.STAGES), m // settings.STAGES & 1, pred=more)
    s = _scores(at, m, shared, settings)
    o = times_values(p, o, n, shared, settings)
    s, o = warpgroup_mma_wait(0, [s, o])
    mbarrier.arrive(shared.v_free.index(n % settings.STAGES))
    if settings.CAUSAL and m - 1 > n:
        await_use(shared.v_ready, m - 1, settings.STAGES)
        mbarrier.arrive(shared.v_free.index((m - 1) % settings.STAGES))
    return s, o, top, total


@gluon.jit
def _write(o, total, outputs, batch, head, row, shared, settings, WHICH: gl.constexpr):
    o *= unit(settings)
    if settings.FORM == "softmax":
        o /= gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, settings.OUTPUT)), 1)
    if settings.FORM == "newton with row maximum":
        kept = gl.expand_dims(gl.convert_layout(total, gl.SliceLayout(1, settings.OUTPUT)), 1)
        o = gl.where(kept >= 0, o, 0.0)
    write_rows(o, outputs, batch, head, row, shared, settings, WHICH)


@gluon.jit
def _compute(outputs, shared, problem, settings, WHICH: gl.constexpr):
    own = _own(problem, settings)
    mbarrier.wait(shared.q_ready.index(WHICH), 0)
    await_use(shared.k_ready, 0, settings.STAGES)
    s = warpgroup_mma_wait(0, [_scores(WHICH, 0, shared, settings)])
    mbarrier.arrive(shared.k_free.index(0))
    count = 0
    for j in range(own):
        row, batch, head, mine, blocks = _part(j, problem, settings, WHICH)
        a, b, slope = _offsets(head, problem, settings)
        back = row + problem.keys - problem.queries
        full = gl.maximum(0, back + 1) // settings.N
        at = j % TILES * settings.CONSUMERS + WHICH
        o = gl.zeros((ROWS, settings.D), gl.float32, settings.OUTPUT)
        top = gl.full((ROWS,), float("inf"), gl.float32, gl.SliceLayout(1, settings.SCORES))
        total = gl.zeros((ROWS,), gl.float32, gl.SliceLayout(1, settings.SCORES))
        for i in range(mine):
            n, m, here, more = count + i, count + i + 1, at, True
            if i == mine - 1:
                m, here, more = count + blocks, (j + 1) % TILES * settings.CONSUMERS + WHICH, j + 1 < own
                _pass_on(n + 1, m - 1, shared, settings)
                mbarrier.wait(shared.q_ready.index(here), (j + 1) // TILES & 1, pred=more)
            s, o, top, total = _step(s, o, top, total, i, n, m, here, more, a, b, slope, back, full, shared, settings)
        mbarrier.arrive(shared.q_free.index(at))
        _write(o, total, outputs, batch, head, row, shared, settings, WHICH)
        count += blocks
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["batch", "query_count", "key_count", "heads", "group"])
def _forward(
    queries, keys, values, outputs, biases, slopes, scale, batch, query_count, key_count, heads, group,
    N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr, TOGETHER: gl.constexpr,
    FORM: gl.constexpr, CAUSAL: gl.constexpr, ALIBI: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    settings = Settings(N, D, STAGES, CONSUMERS, TOGETHER, FORM, CAUSAL, ALIBI)
    problem = Problem(biases, slopes, scale, batch, query_count, key_count, heads, group)
    shared = allocated(queries, keys, values, outputs, N, D, STAGES, CONSUMERS, TILES)
    ZERO: gl.constexpr = 0
    ONE: gl.constexpr = 1
    TWO: gl.constexpr = 2
    THREE: gl.constexpr = 3
    if CONSUMERS == 4:
        gl.warp_specialize([
            (_compute, (outputs, shared, problem, settings, ZERO)),
            (_compute, (outputs, shared, problem, settings, ONE)),
            (_compute, (outputs, shared, problem, settings, TWO)),
            (_compute, (outputs, shared, problem, settings, THREE)),
            (_load, (queries, keys, values, shared, problem, settings)),
        ], [4, 4, 4, 1], [REGISTERS, REGISTERS, REGISTERS, 24])  # fmt: skip
    elif CONSUMERS == 3:
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
    return fits and addressable(q, k, v)


def size(width: int, queries: int, heads: int, processors: int, causal: bool) -> dict[str, int]:
    """Blocks, stages and warpgroups, and registers a thread of a computing warpgroup.

    Args:
        width: of heads.
        heads: those of all batches.
        processors: multiprocessors, each of which takes as many tiles as any other or one less.
    """
    if width == 128:
        return {"N": 128, "D": width, "CONSUMERS": 2, "STAGES": 2, "REGISTERS": 240}

    def rows(consumers: int) -> int:
        """Of a processor that takes the most."""
        tile = consumers * ROWS.value
        return triton.cdiv(heads * triton.cdiv(queries, tile), processors) * tile

    # Under the mask three are slower where they have fewer rows, too.
    if width == 64 and not causal and rows(3) < rows(4):
        return {"N": 128, "D": width, "CONSUMERS": 3, "STAGES": 4, "REGISTERS": 160}
    return {"N": 64, "D": width, "CONSUMERS": 4, "STAGES": 6, "REGISTERS": 112}


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
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    known = size(width, queries, batch * heads, processors, causal)
    form = form or ("newton twice" if q.dtype == torch.float16 else "packed newton")
    if form not in FORMS:
        raise ValueError(f"no form {form!r} of the weights: give one of {', '.join(FORMS)}")
    together = 2 if causal else 1
    units = batch * heads * triton.cdiv(triton.cdiv(queries, known["CONSUMERS"] * ROWS.value), together)
    _forward[(min(units, processors),)](
        descriptor(q, ROWS.value), descriptor(k, known["N"]), descriptor(v, known["N"]), descriptor(o, ROWS.value),
        biases, biases if slopes is None else slopes, scale, batch, queries, keys, heads, heads // k.shape[1], **known,
        TOGETHER=together, FORM=form, CAUSAL=causal, ALIBI=slopes is not None, num_warps=4,
    )  # fmt: skip
    return o
