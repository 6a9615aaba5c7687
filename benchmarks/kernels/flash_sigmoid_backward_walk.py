"""Which blocks of queries a program of FlashSigmoid's backward pass on Hopper visits in which order, and its turns.

The same bits in every run. What a program adds to sums in registers has the order of its walk over blocks of queries.
Sums in global memory, those of a block of queries over all keys, have the order of turns: a counter says how many
programs have added, each knows its turn and waits for it, the first one stores instead. Turns follow the walks, so that
nobody waits long as long as all keep pace:

- under the causal mask all walks end with the last queries; those of later keys, which are shorter, start earlier in
  time and go first. But the GPU would idle while the longest walk of all ends alone: of the last heads, as many as fill
  it, long walks start first; these begin with the last queries, and those of earlier keys go first;
- without a mask programs that run at the same time begin at different queries, spread over all, and go around; who
  comes by first goes first.

What fills the GPU is a matter of the number of its multiprocessors, and so is, of the last heads and of more blocks of
keys than these, the order of a sum: GPUs of different sizes may differ in the last bit.

Programs start in the order of their numbers. Under the mask they wait only for such as started before; without it also
for such as fit onto the GPU together with them: where fewer multiprocessors are free for good than the device has,
waiting traps after some seconds.
"""

# Gluon reads the annotations of an aggregate as classes: no `from __future__ import annotations` here.
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.language.core import _aggregate as aggregate

from benchmarks.kernels.hopper import ROWS

KEYS = gl.constexpr(2 * ROWS.value)
"""Keys of a program: ROWS of each warpgroup."""


@aggregate
class Settings:
    """What the compiler knows: queries of a step, width, what P lacks, mask."""

    M: gl.constexpr
    D: gl.constexpr
    UNIT: gl.constexpr
    CAUSAL: gl.constexpr
    SCORES: gl.constexpr
    OUTPUT: gl.constexpr
    WEIGHTS: gl.constexpr
    SHARE: gl.constexpr

    @gluon.constexpr_function
    def __init__(self, M, D, UNIT, CAUSAL):
        for name, value in (("M", M), ("D", D), ("UNIT", UNIT), ("CAUSAL", CAUSAL)):
            setattr(self, name, gl.constexpr(value))
        output = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(D), 16])
        self.SCORES = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, gl._unwrap_if_constexpr(M), 16]))
        self.OUTPUT, self.WEIGHTS = gl.constexpr(output), gl.constexpr(gl.DotOperandLayout(0, output, 2))
        self.SHARE = gl.constexpr(gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16]))


@aggregate
class Problem:
    """What a launch is about: biases (heads,) float32, turns (batch, heads, blocks of queries), factor, counts."""

    biases: gl.tensor
    turns: gl.tensor
    scale: gl.tensor
    queries: gl.tensor
    keys: gl.tensor
    heads: gl.tensor
    group: gl.tensor
    processors: gl.tensor

    @gluon.constexpr_function
    def __init__(self, biases, turns, scale, queries, keys, heads, group, processors):
        self.biases, self.turns, self.scale, self.queries = biases, turns, scale, queries
        self.keys, self.heads, self.group, self.processors = keys, heads, group, processors


@aggregate
class Walk:
    """Of a program: batch, key head, block of keys, first block of queries, its way (1 or -1), how many of how many."""

    batch: gl.tensor
    key_head: gl.tensor
    block: gl.tensor
    start: gl.tensor
    way: gl.tensor
    count: gl.tensor
    blocks: gl.tensor

    @gluon.constexpr_function
    def __init__(self, batch, key_head, block, start, way, count, blocks):
        self.batch, self.key_head, self.block = batch, key_head, block
        self.start, self.way, self.count, self.blocks = start, way, count, blocks


@gluon.jit
def own_walk(problem, settings):
    """This program's: for each query head of its key head `count` blocks of queries, from `start` on."""
    blocks = gl.cdiv(problem.queries, settings.M)
    key_blocks = gl.cdiv(problem.keys, KEYS)
    key_heads = problem.heads // problem.group
    block, both = gl.program_id(0) % key_blocks, gl.program_id(0) // key_blocks
    way, count = 1, blocks
    if settings.CAUSAL:
        last = gl.maximum(problem.processors // key_blocks, 1)
        others = gl.num_programs(0) // key_blocks - last
        rest = gl.program_id(0) - others * key_blocks
        back = (others > 0) & (rest >= 0)
        block = gl.where(back, rest // last, key_blocks - 1 - block)
        both = gl.where(back, others + rest % last, both)
        start = gl.maximum(block * KEYS - (problem.keys - problem.queries), 0) // settings.M
        count = blocks - start
        start, way = gl.where(back, blocks - 1, start), gl.where(back, -1, 1)
    else:
        start = gl.cdiv(block % problem.processors * blocks, _together(block, problem))
    return Walk(both // key_heads, both % key_heads, block, start, way, count, blocks)


@gluon.jit
def _together(block, problem):
    """How many programs of this one's head run at the same time: as many as there are multiprocessors, or the rest."""
    before = block // problem.processors * problem.processors
    return gl.minimum(problem.processors, gl.cdiv(problem.keys, KEYS) - before)


@gluon.jit
def visited(t, walk):
    """The t-th block of queries of a walk; without a mask the first comes after the last."""
    at = walk.start + t * walk.way
    return gl.where(at >= walk.blocks, at - walk.blocks, at)


@gluon.jit
def turn_of(at, walk, problem, settings):
    """How many programs add to a block of queries before this one."""
    if settings.CAUSAL:
        last = ((at + 1) * settings.M - 1 + problem.keys - problem.queries) // KEYS
        turn = gl.minimum(gl.cdiv(problem.keys, KEYS) - 1, last) - walk.block
        turn = gl.where(walk.way < 0, walk.block, turn)
    else:
        together = _together(walk.block, problem)
        turn = at * together // walk.blocks - walk.block % problem.processors
        turn = gl.where(turn < 0, turn + together, turn) + walk.block // problem.processors * problem.processors
    return turn
