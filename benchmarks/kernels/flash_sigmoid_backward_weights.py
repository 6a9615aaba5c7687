"""Weights of FlashSigmoid's backward pass on Hopper: P, and dS = P (1 - P) dP, of a block of scores in registers.

Both come rounded to the dtype of the inputs, two elements a register, from one piece of assembly, so that nothing in
between outlives it: dV needs P, dK and dQ need dS, and P (1 - P) waits as 16 bits for dP, which is still multiplied.

    bfloat16    the guess and the step of "packed newton" (`sigmoid_forms`), and 1 - P = 2^x P with x = -z log2 e
    float16     P = 1 / (1 + 2^x) in float32, and P - P^2, each rounded once: eleven bits want more than a guess

In bfloat16 both lack a factor, that of P once and that of P (1 - P) twice; `weight_unit` and `change_unit` give it back
to whole sums. Neither form loses small weights: P (1 - P) has the relative accuracy of P, and is 0 where P is.
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


def _times(pack: str) -> gl.constexpr:
    """P (1 - P) times dP, rounded before they are multiplied."""
    return gl.constexpr(f"{{ .reg .b32 d; cvt.rn.{pack}.f32 d, $3, $2; mul.{pack} $0, $1, d; }}")


DIVIDED, WITH_SLOPE = _divided(), _with_slope()
TIMES, TIMES16 = _times("bf16x2"), _times("f16x2")


@gluon.jit
def weights(s, a, b, ahead, dtype: gl.constexpr, settings, MASK: gl.constexpr):
    """P and P (1 - P), without their units, of scores s (keys, queries).

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
    ASM: gl.constexpr = WITH_SLOPE if dtype == gl.bfloat16 else DIVIDED
    return gl.inline_asm_elementwise(ASM, "=r,=r,r,r", [x], dtype=(dtype, dtype), is_pure=False, pack=2)


@gluon.jit
def change(slope, dp, dtype: gl.constexpr):
    """dS without its unit: slope P (1 - P) times dp, both (keys, queries)."""
    ASM: gl.constexpr = TIMES if dtype == gl.bfloat16 else TIMES16
    return gl.inline_asm_elementwise(ASM, "=r,r,r,r", [slope, dp], dtype=dtype, is_pure=False, pack=2)


def weight_unit(dtype: torch.dtype) -> float:
    """What sums of `weights` are to be multiplied by."""
    return float(PACKED_UNIT.value) if dtype == torch.bfloat16 else 1.0


def change_unit(dtype: torch.dtype) -> float:
    """What sums of `change` are to be multiplied by."""
    return weight_unit(dtype) ** 2
