"""FlashSigmoid's backward pass for Hopper: warp-specialised, in Gluon. The operator is that of `flash_sigmoid`.

With P the weights (queries, keys), dO (queries, width) and dP = dO V^T:

    dV = P^T dO,   dS = P (1 - P) dP,   dQ = scale dS K,   dK = scale dS^T Q.

A program keeps 128 keys and walks over blocks of queries, so that P is computed once and dV and dK stay in registers.
Two warpgroups have 64 keys each. A step is S^T = K Q^T and dP^T = V dO^T, then dV and dK of the warpgroup's own keys,
and of dS K, over all 128 keys, half: the warpgroups exchange dS through shared memory. dK is still being multiplied
when a step ends, beside the next one's weights; therefore its dS comes from shared memory, not from registers that the
next step needs. One warp loads queries and gradients (TMA); another adds dS K to sums (float32) in global memory, and a
second, small kernel scales and rounds these.

The same bits in every run. Sums in registers have the order of the program's walk. Sums in global memory have that of
turns: for each block of queries and head a counter says how many programs have added, each knows its turn and waits for
it, the first one stores instead. Turns follow the walks, so that nobody waits long if all keep pace:

- under the causal mask all walks end with the last queries, programs with later keys start earlier and go first;
- else programs that run at the same time begin at different queries, spread over all, and go around; who comes by
  first goes first. Who runs at the same time is a matter of the number of multiprocessors, and with more blocks of keys
  than these so is the order of the sum: GPUs of different sizes may differ in the last bit.

Programs start in the order of their numbers and wait for such as started before, or for some that fit onto the GPU
together with them: if fewer multiprocessors are free for good than the device has, waiting traps after some seconds.

Measured by leaving things out: turns cost most, then the additions in L2 and the weights, about the same; everything
else is products and their operands from shared memory. dQ of the step before, which waits for nobody, was no faster;
nor were values in registers; dK that ends with its step was slower, but for some causal shapes of width 64.

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
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import _aggregate as aggregate

from benchmarks.kernels.flash_sigmoid_backward_weights import change, change_unit, weight_unit, weights
from benchmarks.kernels.hopper import (
    ROWS,
    async_load,
    async_store,
    await_turn,
    await_use,
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
KEYS = gl.constexpr(2 * ROWS.value)
"""Keys of a program: ROWS of each warpgroup."""
