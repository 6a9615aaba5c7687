"""FlashSigmoid's forward pass for Hopper: warp-specialised, in Gluon. The operator is that of `flash_sigmoid`.

One warp loads (TMA); two or three warpgroups of 64 query rows each compute. A warpgroup's step multiplies queries with
a block of keys, and the weights of the block before with their values, both asynchronously; while the latter runs it
turns scores into weights. The warpgroups take turns to issue their products: without it the tensor cores
interleave them, all scores arrive at the same time, and products and weights follow one another instead of overlapping.
Programs stay on their multiprocessor and take tile after tile, so that loading goes on across tiles.

Weights: one of `FORMS`. "newton" is sigma(z) = 1 / (1 + 2^(-z log2 e)) with one special-function operation: the
reciprocal is a subtraction of exponents in integers and one step of Newton, within 1.3e-3, less than what rounding to
bfloat16 costs; float16 has two steps. "divide" has a second such operation instead, "tanh" has 1/2 + 1/2 tanh(z/2), of
which small weights have few right digits. The others are for comparison: the same tiles and schedule with softmax, or
with softmax's bookkeeping beside sigma.

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
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import _aggregate as aggregate

FORMS = ("newton", "newton twice", "divide", "tanh", "newton with row maximum", "softmax")
WIDTHS = (32, 64, 128)
# Three names that Triton changed after 3.6.
thread_barrier = getattr(gl, "barrier", None) or gl.thread_barrier
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
LOG2_E = gl.constexpr(math.log2(math.e))
ROWS = gl.constexpr(64)
"""Query rows of a warpgroup: those of one wgmma instruction."""


@aggregate
class Settings:
    """What the compiler knows."""

    N: gl.constexpr
    D: gl.constexpr
    STAGES: gl.constexpr
    CONSUMERS: gl.constexpr
    TOGETHER: gl.constexpr
    FORM: gl.constexpr
    CAUSAL: gl.constexpr
    ALIBI: gl.constexpr
    SCORES: gl.constexpr
    OUTPUT: gl.constexpr
    WEIGHTS: gl.constexpr

    @gluon.constexpr_function
    def __init__(self, N, D, STAGES, CONSUMERS, TOGETHER, FORM, CAUSAL, ALIBI):
        for name, value in (("N", N), ("D", D), ("STAGES", STAGES), ("CONSUMERS", CONSUMERS), ("TOGETHER", TOGETHER),
                            ("FORM", FORM), ("CAUSAL", CAUSAL), ("ALIBI", ALIBI)):  # fmt: skip
            setattr(self, name, gl.constexpr(value))
        scores = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(N), 16])
        output = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(D), 16])
        self.SCORES, self.OUTPUT = gl.constexpr(scores), gl.constexpr(output)
        self.WEIGHTS = gl.constexpr(gl.DotOperandLayout(0, output, 2))


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


@aggregate
class Shared:
    """Shared memory: queries and outputs of each consumer, a ring of keys and values, and who may touch what."""

    q: gl.shared_memory_descriptor
    o: gl.shared_memory_descriptor
    k: gl.shared_memory_descriptor
    v: gl.shared_memory_descriptor
    q_ready: gl.shared_memory_descriptor
    q_free: gl.shared_memory_descriptor
    k_ready: gl.shared_memory_descriptor
    k_free: gl.shared_memory_descriptor
    v_ready: gl.shared_memory_descriptor
    v_free: gl.shared_memory_descriptor
    turn: gl.shared_memory_descriptor

    @gluon.constexpr_function
    def __init__(self, q, o, k, v, q_ready, q_free, k_ready, k_free, v_ready, v_free, turn):
        self.q, self.o, self.k, self.v, self.turn = q, o, k, v, turn
        self.q_ready, self.q_free, self.k_ready, self.k_free = q_ready, q_free, k_ready, k_free
        self.v_ready, self.v_free = v_ready, v_free


@gluon.jit
def _barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    made = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(made.index(i), count=ARRIVALS)
    return made


@gluon.jit
def _await(barriers, n, STAGES: gl.constexpr):
    """Until the n-th use of a ring of barriers has completed."""
    mbarrier.wait(barriers.index(n % STAGES), n // STAGES & 1)


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
def _fetch(descriptor, batch, head, row, ready, target):
    mbarrier.expect(ready, descriptor.block_type.nbytes)
    async_load(descriptor, [batch, head, row, 0], ready, target)


@gluon.jit
def _load(queries, keys, values, shared, problem, settings):
    STAGES: gl.constexpr = settings.STAGES
    count = 0
    turn = 1
    for j in range(_own(problem, settings)):
        row, batch, head, blocks = _tile(j, problem, settings)
        key_head = head // problem.group
        for c in gl.static_range(settings.CONSUMERS):
            mbarrier.wait(shared.q_free.index(c), turn)
            _fetch(queries, batch, head, row + c * ROWS, shared.q_ready.index(c), shared.q.index(c))
        for i in range(blocks):
            stage = (count + i) % STAGES
            phase = (count + i) // STAGES & 1 ^ 1
            first = i * settings.N
            mbarrier.wait(shared.k_free.index(stage), phase)
            _fetch(keys, batch, key_head, first, shared.k_ready.index(stage), shared.k.index(stage))
            mbarrier.wait(shared.v_free.index(stage), phase)
            _fetch(values, batch, key_head, first, shared.v_ready.index(stage), shared.v.index(stage))
        count += blocks
        turn ^= 1


# -- weights -----------------------------------------------------------------------------------------------------------


@gluon.jit
def _special(x, OPERATION: gl.constexpr):
    # Not pure to the compiler, which otherwise moves it behind the wait that it shall overlap with.
    return gl.inline_asm_elementwise(OPERATION + " $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)


@gluon.jit
def _logits(s, a, b, slope, back, settings, MASK: gl.constexpr):
    """s a + b, and under the mask what gives weight 0; the row of s is `back` keys behind its first column."""
    x = s * a + b
    if MASK or settings.ALIBI:
        rows = gl.arange(0, ROWS, layout=gl.SliceLayout(1, settings.SCORES)) + back
        columns = gl.expand_dims(gl.arange(0, settings.N, layout=gl.SliceLayout(0, settings.SCORES)), 0)
        # Bits 1 and 2 of a column depend on the thread alone, the others are constants: no register for each column.
        near, jump = gl.expand_dims(rows, 1) - (columns & 6), columns & ~6
        if settings.ALIBI:
            x -= slope * gl.abs(near - jump).to(gl.float32)
        if MASK:
            nothing: gl.constexpr = float("-inf") if settings.FORM == "tanh" else float("inf")
            x = gl.where(near >= jump, x, nothing)
    return x


@gluon.jit
def _reciprocal(n, TWICE: gl.constexpr):
    """-1 / n for n <= -1, within 1.3e-3 or 2e-6.

    The constants of the first guess, 0xFEF34000 less the bits of n, and of Newton's step are those of the smallest
    largest error. Where n is beyond -2^126 the guess is negative or NaN: both saturate to 0. The sign of n saves the
    negation that a step has for positive numbers.
    """
    y = (-0x010CC000 - n.to(gl.int32, bitcast=True)).to(gl.float32, bitcast=True)
    t = gl.fma(n, y, 2.0012942760794594)
    if TWICE:
        y *= t
        t = gl.fma(n, y, 2.0)
    return gl.inline_asm_elementwise(
        "mul.sat.f32 $0, $1, $2;", "=f,f,f", [y, t], dtype=gl.float32, is_pure=False, pack=1
    )


@gluon.jit
def _sigmoid(x, settings):
    """sigma(z) of x = z / 2 ("tanh") or -z log2 e."""
    if settings.FORM == "tanh":
        return _special(x, "tanh.approx.f32") * 0.5 + 0.5
    elif settings.FORM == "divide":
        return _special(_special(x, "ex2.approx.ftz.f32") + 1.0, "rcp.approx.ftz.f32")
    else:
        return _reciprocal(-1.0 - _special(x, "ex2.approx.ftz.f32"), settings.FORM == "newton twice")


@gluon.jit
def _weights(s, top, total, a, b, slope, back, settings, MASK: gl.constexpr):
    """Weights of a block (ROWS, N) float32, and what softmax keeps for each row: top, total, and how top changed."""
    x = _logits(s, a, b, slope, back, settings, MASK)
    keeps: gl.constexpr = settings.FORM == "softmax" or settings.FORM == "newton with row maximum"
    shrink = top
    if keeps:
        # x is -z log2 e, so that the largest logit is the smallest x.
        new = gl.minimum(top, gl.min(x, 1))
        shrink = gl.exp2(new - top)
        top = new
    if settings.FORM == "softmax":
        p = _special(gl.expand_dims(new, 1) - x, "ex2.approx.ftz.f32")
    else:
        p = _sigmoid(x, settings)
    if keeps:
        total = total * shrink + gl.sum(p, 1)
    return p, top, total, shrink


@gluon.jit
def _operand(p, dtype, settings):
    """p as left operand of a product, rounded."""
    return gl.convert_layout(p.to(dtype), settings.WEIGHTS)


# -- computing ---------------------------------------------------------------------------------------------------------


@gluon.jit
def _pass_turn(shared, settings, WHICH: gl.constexpr):
    mbarrier.arrive(shared.turn.index((WHICH + 1) % settings.CONSUMERS))


@gluon.jit
def _take_turn(n, shared, WHICH: gl.constexpr):
    """Consumer 0 begins; each of the others waits for the one before it."""
    mbarrier.wait(shared.turn.index(WHICH), n & 1 if WHICH else n & 1 ^ 1)


@gluon.jit
def _scores(n, shared, settings, WHICH: gl.constexpr):
    N: gl.constexpr = settings.N
    D: gl.constexpr = settings.D
    k = shared.k.index(n % settings.STAGES).reshape((N, D)).permute((1, 0))
    empty = gl.zeros((ROWS, N), gl.float32, settings.SCORES)
    return warpgroup_mma(shared.q.index(WHICH).reshape((ROWS, D)), k, empty, use_acc=False, is_async=True)


@gluon.jit
def _values(p, o, n, shared, settings):
    v = shared.v.index(n % settings.STAGES).reshape((settings.N, settings.D))
    return warpgroup_mma(p, v, o, is_async=True)


@gluon.jit
def _step(i, n, p, o, top, total, a, b, slope, back, full, shared, settings, WHICH: gl.constexpr):
    """Scores and weights of block i, the n-th of this program, while those of the block before meet their values."""
    _await(shared.v_ready, n - 1, settings.STAGES)
    _await(shared.k_ready, n, settings.STAGES)
    _take_turn(n, shared, WHICH)
    s = _scores(n, shared, settings, WHICH)
    o = _values(p, o, n - 1, shared, settings)
    _pass_turn(shared, settings, WHICH)
    s = warpgroup_mma_wait(1, [s])
    mbarrier.arrive(shared.k_free.index(n % settings.STAGES))
    if settings.CAUSAL and i >= full:
        w, top, total, shrink = _weights(s, top, total, a, b, slope, back - i * settings.N, settings, True)
    else:
        w, top, total, shrink = _weights(s, top, total, a, b, slope, back - i * settings.N, settings, False)
    w = _operand(w, shared.v.dtype, settings)
    # Passes at once. The compiler does not move the weights across it, behind the wait for the values.
    _await(shared.v_ready, n - 1, settings.STAGES)
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
    _await(shared.k_ready, first, settings.STAGES)
    _take_turn(first, shared, WHICH)
    s = _scores(first, shared, settings, WHICH)
    _pass_turn(shared, settings, WHICH)
    s = warpgroup_mma_wait(0, [s])
    mbarrier.arrive(shared.k_free.index(first % settings.STAGES))
    w, top, total, _ = _weights(s, top, total, a, b, slope, back, settings, settings.CAUSAL)
    p = _operand(w, shared.v.dtype, settings)
    for i in range(1, mine):
        p, o, top, total = _step(i, first + i, p, o, top, total, a, b, slope, back, full, shared, settings, WHICH)
    mbarrier.arrive(shared.q_free.index(WHICH))
    last = first + mine - 1
    _await(shared.v_ready, last, settings.STAGES)
    o = warpgroup_mma_wait(0, [_values(p, o, last, shared, settings)])
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
            _await(shared.k_ready, n, STAGES)
            _take_turn(n, shared, WHICH)
            _pass_turn(shared, settings, WHICH)
            mbarrier.arrive(shared.k_free.index(n % STAGES))
            _await(shared.v_ready, n, STAGES)
            mbarrier.arrive(shared.v_free.index(n % STAGES))
        tma.store_wait(0)
        thread_barrier()
        shared.o.index(WHICH).reshape((ROWS, settings.D)).store(o.to(outputs.dtype))
        fence_async_shared()
        thread_barrier()
        async_store(outputs, [batch, head, row, 0], shared.o.index(WHICH))
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
    shared = Shared(
        gl.allocate_shared_memory(queries.dtype, [CONSUMERS, 1, 1, ROWS, D], queries.layout),
        gl.allocate_shared_memory(outputs.dtype, [CONSUMERS, 1, 1, ROWS, D], outputs.layout),
        gl.allocate_shared_memory(keys.dtype, [STAGES, 1, 1, N, D], keys.layout),
        gl.allocate_shared_memory(values.dtype, [STAGES, 1, 1, N, D], values.layout),
        _barriers(CONSUMERS, 1), _barriers(CONSUMERS, 1),
        _barriers(STAGES, 1), _barriers(STAGES, CONSUMERS), _barriers(STAGES, 1), _barriers(STAGES, CONSUMERS),
        _barriers(CONSUMERS, 1),
    )  # fmt: skip
    fence_async_shared()
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
    """
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    known = size(width, queries, slopes is not None)
    form = form or ("newton twice" if q.dtype == torch.float16 else "newton")
    together = 2 if causal else 1
    units = batch * heads * triton.cdiv(triton.cdiv(queries, known["CONSUMERS"] * ROWS.value), together)
    programs = min(units, torch.cuda.get_device_properties(q.device).multi_processor_count)
    _forward[(programs,)](
        _descriptor(q, ROWS.value), _descriptor(k, known["N"]), _descriptor(v, known["N"]), _descriptor(o, ROWS.value),
        biases, biases if slopes is None else slopes, scale, batch, queries, keys, heads, heads // k.shape[1], **known,
        TOGETHER=together, FORM=form, CAUSAL=causal, ALIBI=slopes is not None, num_warps=4,
    )  # fmt: skip
    return o


def _descriptor(x: Tensor, rows: int) -> TensorDescriptor:
    """Of x (batch, heads, length, width): blocks of some rows of one head."""
    layout = gl.NVMMASharedLayout(swizzle_byte_width=min(128, 2 * x.shape[3]), element_bitwidth=16, rank=4)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[3]], layout)
