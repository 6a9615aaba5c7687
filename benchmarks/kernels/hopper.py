"""Parts of warp-specialised kernels for Hopper, in Gluon: a ring of keys and values, whose turn it is, copies.

One warp loads, warpgroups of 64 query rows compute; who may touch which part of shared memory is said by mbarriers.
`flash_sigmoid_hopper` and `sla_hopper` are made of them. Triton's interpreter does not know Gluon;
`benchmarks.gluon_interpreter` does.
"""

# Gluon reads the annotations of an aggregate as classes: no `from __future__ import annotations` here.
from torch import Tensor
from triton._C.libtriton import ir
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma, warpgroup_mma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import _aggregate as aggregate

# Three names that Triton changed after 3.6.
thread_barrier = getattr(gl, "barrier", None) or gl.thread_barrier
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
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
    def __init__(self, N, D, STAGES, CONSUMERS, TOGETHER=1, FORM="softmax", CAUSAL=False, ALIBI=False):
        for name, value in (("N", N), ("D", D), ("STAGES", STAGES), ("CONSUMERS", CONSUMERS), ("TOGETHER", TOGETHER),
                            ("FORM", FORM), ("CAUSAL", CAUSAL), ("ALIBI", ALIBI)):  # fmt: skip
            setattr(self, name, gl.constexpr(value))
        scores = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(N), 16])
        output = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(D), 16])
        self.SCORES, self.OUTPUT = gl.constexpr(scores), gl.constexpr(output)
        self.WEIGHTS = gl.constexpr(gl.DotOperandLayout(0, output, 2))


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
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    made = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(made.index(i), count=ARRIVALS)
    return made


@gluon.jit
def await_use(barriers, n, STAGES: gl.constexpr):
    """Until the n-th use of a ring of barriers has completed."""
    mbarrier.wait(barriers.index(n % STAGES), n // STAGES & 1)


@gluon.jit
def allocated(
    queries, keys, values, outputs, N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, CONSUMERS: gl.constexpr,
    TILES: gl.constexpr,
):  # fmt: skip
    """Shared memory of a program with its barriers, ready for use; arguments are the descriptors of a launch.

    There is room for the queries of some TILES: with two, those of the next are there when a tile ends.
    """
    shared = Shared(
        gl.allocate_shared_memory(queries.dtype, [TILES * CONSUMERS, 1, 1, ROWS, D], queries.layout),
        gl.allocate_shared_memory(outputs.dtype, [CONSUMERS, 1, 1, ROWS, D], outputs.layout),
        gl.allocate_shared_memory(keys.dtype, [STAGES, 1, 1, N, D], keys.layout),
        gl.allocate_shared_memory(values.dtype, [STAGES, 1, 1, N, D], values.layout),
        barriers(TILES * CONSUMERS, 1), barriers(TILES * CONSUMERS, 1),
        barriers(STAGES, 1), barriers(STAGES, CONSUMERS), barriers(STAGES, 1), barriers(STAGES, CONSUMERS),
        barriers(CONSUMERS, 1),
    )  # fmt: skip
    fence_async_shared()
    return shared


@gluon.jit
def fetch(descriptor, batch, head, row, ready, target):
    mbarrier.expect(ready, descriptor.block_type.nbytes)
    async_load(descriptor, [batch, head, row, 0], ready, target)


@gluon.jit
def fetch_block(keys, values, batch, head, row, n, shared, settings):
    """The n-th block of this program into its place of the ring, once that is free."""
    stage = n % settings.STAGES
    phase = n // settings.STAGES & 1 ^ 1
    mbarrier.wait(shared.k_free.index(stage), phase)
    fetch(keys, batch, head, row, shared.k_ready.index(stage), shared.k.index(stage))
    mbarrier.wait(shared.v_free.index(stage), phase)
    fetch(values, batch, head, row, shared.v_ready.index(stage), shared.v.index(stage))


@gluon.jit
def pass_turn(shared, settings, WHICH: gl.constexpr):
    mbarrier.arrive(shared.turn.index((WHICH + 1) % settings.CONSUMERS))


@gluon.jit
def take_turn(n, shared, WHICH: gl.constexpr):
    """Consumer 0 begins; each of the others waits for the one before it."""
    mbarrier.wait(shared.turn.index(WHICH), n & 1 if WHICH else n & 1 ^ 1)


# -- between programs --------------------------------------------------------------------------------------------------


@builtin
def reduce_add(descriptor, coordinates, source, _semantic=None):
    """Like `async_store`, but adds to what is there."""
    coordinates = _semantic._convert_to_ir_values(coordinates, require_i64=False)
    _semantic.builder.create_async_tma_reduce(
        ir.DESCRIPTOR_REDUCE_KIND.ADD, descriptor.handle, coordinates, source.handle
    )


@gluon.jit
def await_turn(counter, turn):
    """Until the number at `counter` is `turn`: copies that ended before are visible. Traps after some seconds."""
    gl.inline_asm_elementwise(
        """{
        .reg .pred other, late;
        .reg .b32 found, polls;
        mov.b32 polls, 0;
        again:
        ld.acquire.gpu.global.b32 found, [$1];
        add.s32 polls, polls, 1;
        setp.gt.s32 late, polls, 8388608;
        @late trap;
        setp.ne.s32 other, found, $2;
        @other bra again;
        fence.proxy.async;
        mov.b32 $0, found;
        }""",
        "=r,l,r", [counter, turn], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def end_turn(counter):
    """Add one to the number at `counter` once the copies that this warp began are complete."""
    gl.inline_asm_elementwise(
        """{
        .reg .pred first;
        .reg .b32 lane;
        cp.async.bulk.wait_group 0;
        fence.proxy.async;
        bar.warp.sync 0xffffffff;
        mov.u32 lane, %laneid;
        setp.eq.s32 first, lane, 0;
        @first red.release.gpu.global.add.s32 [$1], 1;
        mov.b32 $0, lane;
        }""",
        "=r,l", [counter], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


# -- arithmetic --------------------------------------------------------------------------------------------------------


@gluon.jit
def special(x, OPERATION: gl.constexpr):
    # Not pure to the compiler, which otherwise moves it behind the wait that it shall overlap with.
    return gl.inline_asm_elementwise(OPERATION + " $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)


@gluon.jit
def operand(p, dtype, settings):
    """p as left operand of a product, rounded."""
    return gl.convert_layout(p.to(dtype), settings.WEIGHTS)


@gluon.jit
def times_values(p, o, n, shared, settings):
    v = shared.v.index(n % settings.STAGES).reshape((settings.N, settings.D))
    return warpgroup_mma(p, v, o, is_async=True)


@gluon.jit
def write_rows(o, outputs, batch, head, row, shared, settings, WHICH: gl.constexpr):
    """Output (ROWS, D) of a warpgroup, which goes on while it is copied; rows beyond the last are not written."""
    tma.store_wait(0)
    thread_barrier()
    shared.o.index(WHICH).reshape((ROWS, settings.D)).store(o.to(outputs.dtype))
    fence_async_shared()
    thread_barrier()
    async_store(outputs, [batch, head, row, 0], shared.o.index(WHICH))


def addressable(*tensors: Tensor) -> bool:
    """Whether TMA can address these (batch, heads, length, width), two bytes an element."""
    return all(
        x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and all(step > 0 and step % 8 == 0 for step in x.stride()[:3])
        for x in tensors
    )


def descriptor(x: Tensor, rows: int) -> TensorDescriptor:
    """Of x (batch, heads, length, width): blocks of some rows of one head."""
    layout = gl.NVMMASharedLayout(swizzle_byte_width=min(128, 2 * x.shape[3]), element_bitwidth=16, rank=4)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[3]], layout)
