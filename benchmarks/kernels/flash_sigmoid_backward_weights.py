"""Weights of FlashSigmoid's backward pass on Hopper: P, and dS = P (1 - P) dP, of a block of scores in registers.

Both come rounded to the dtype of the inputs, two elements a register, from one piece of assembly, so that nothing in
between outlives it: dV needs P, dK and dQ need dS, and P (1 - P) waits as 16 bits for dP, which is still multiplied.

    bfloat16    the guess and the step of "packed newton" (`sigmoid_forms`), and 1 - P = 2^x P with x = -z log2 e
    float16     P = 1 / (1 + 2^x) in float32, and P - P^2, each rounded once: eleven bits want more than a guess

In bfloat16 P lacks a factor, `unit`, and P (1 - P) lacks it twice; whole sums are multiplied by it. Neither form loses
small weights: in bfloat16 P is within 1.2e-2 of itself and P (1 - P) within 2.4e-2, in float16 both within rounding,
and where P is 0 so is P (1 - P). Where all weights are alike, as where all are 1, these errors do not cancel.
"""

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from benchmarks.kernels.hopper import ROWS
from benchmarks.kernels.sigmoid_forms import PACKED, PACKED_UNIT


def _divided() -> gl.constexpr:
    """P and P - P^2 of two elements, float16."""
    one = """
        ex2.approx.ftz.f32 e, ${x};
        add.f32 e, e, 0f3F800000;
        rcp.approx.ftz.f32 p{k}, e;
        mul.f32 n, p{k}, 0fBF800000;
        fma.rn.f32 g{k}, n, p{k}, p{k};"""
    both = one.format(x=2, k=0) + one.format(x=3, k=1)
    rounded = "cvt.rn.f16x2.f32 $0, p1, p0; cvt.rn.f16x2.f32 $1, g1, g0;"
    return gl.constexpr(f"{{ .reg .f32 e, n, p0, p1, g0, g1; {both} {rounded} }}")


def _with_slope() -> gl.constexpr:
    """What PACKED gives of two elements, and its product with 1 - P = 2^x P; of 2^x = inf, P = 0, max takes the 0."""
    weight = PACKED.value.replace("$2", "$3").replace("$1", "$2").removesuffix("}")
    return gl.constexpr(f"{weight} mul.bf16x2 e, e, $0; max.bf16x2 e, e, nothing; mul.bf16x2 $1, e, $0; }}")


DIVIDED, WITH_SLOPE = _divided(), _with_slope()
TIMES = gl.constexpr("{ .reg .b32 d; cvt.rn.bf16x2.f32 d, $3, $2; mul.bf16x2 $0, $1, d; }")
"""P (1 - P) times dP, rounded before they are multiplied."""


@gluon.jit
def weights(s, a, b, ahead, dtype: gl.constexpr, settings, MASK: gl.constexpr):
    """P and P (1 - P), without `unit`, of scores s (keys, queries).

    Args:
        a, b: -scale log2 e and -bias log2 e: s a + b is what the forms begin with.
        ahead: how far the first query is ahead of the first key; under the mask it does not see keys further ahead.
    """
    x = s * a + b
    if MASK:
        keys = gl.arange(0, ROWS, layout=gl.SliceLayout(1, settings.SCORES)) - ahead
        queries = gl.expand_dims(gl.arange(0, settings.M, layout=gl.SliceLayout(0, settings.SCORES)), 0)
        # As in `flash_sigmoid_weights`: no register for each column.
        x = gl.where(gl.expand_dims(keys, 1) - (queries & 6) <= (queries & ~6), x, float("inf"))
    if dtype == gl.bfloat16:
        return gl.inline_asm_elementwise(
            WITH_SLOPE, "=r,=r,r,r", [x], dtype=(gl.bfloat16, gl.bfloat16), is_pure=False, pack=2
        )
    else:
        return gl.inline_asm_elementwise(
            DIVIDED, "=r,=r,r,r", [x], dtype=(gl.float16, gl.float16), is_pure=False, pack=2
        )


@gluon.jit
def change(slope, dp, dtype: gl.constexpr):
    """dS, without `unit` twice: slope P (1 - P) times dp, both (keys, queries)."""
    if dtype == gl.bfloat16:
        return gl.inline_asm_elementwise(TIMES, "=r,r,r,r", [slope, dp], dtype=gl.bfloat16, is_pure=False, pack=2)
    else:
        # In float32: of gradients times a loss scale dP may be beyond float16 where dS is not.
        return (slope.to(gl.float32) * dp).to(gl.float16)


def unit(dtype: torch.dtype) -> float:
    """What sums of P are to be multiplied by, and those of dS twice."""
    return float(PACKED_UNIT.value) if dtype == torch.bfloat16 else 1.0
