"""Ways to a sigmoid on a GPU, element by element, as the attention kernels compute their weights.

    tanh        1/2 + 1/2 tanh.approx(z / 2): one operation of the special-function unit (Ramapuram et al.)
    divide      1 / (1 + 2^(-z log2 e)): two of them, an exponential and a reciprocal
    newton      the same with the reciprocal guessed in integers and one step of Newton: one of them
    packed newton   that in bfloat16, two weights an instruction after the exponential

Numerics. float32 in and out, but "packed newton" has the bits of bfloat16. tanh.approx.f32 is said to err by up to
2^-11 of itself (PTX ISA), which near tanh = -1 is an absolute error: it does not shrink with the weight. The others
keep a relative error: rounding, or 1.3e-3, or 3e-3 root mean square where rounding alone has 1.6e-3.
Memory: input and output.

Limits: contiguous float32 on a GPU; inline assembly has no interpreter, so nothing here runs without one.
Source: Ramapuram et al., arXiv:2409.04431, section 4 and appendix F; "newton" is that of `flash_sigmoid_weights`.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

FORMS = ("tanh", "divide", "newton", "packed newton")
BLOCK = 1024
LOG2_E = tl.constexpr(math.log2(math.e))
GUESS, STEP = tl.constexpr(-0x010CC000), tl.constexpr(2.0012942760794594)
"""Of "newton": the guess is GUESS less the bits, the step y (STEP + n y); together of the smallest largest error."""

PACKED = tl.constexpr(
    """{
    .reg .b32 e, n, y, t, unit, two, nothing;
    .reg .f32 first, second;
    mov.b32 unit, 0xB780B780;
    mov.b32 two, 0x40004000;
    mov.b32 nothing, 0;
    ex2.approx.ftz.f32 first, $1;
    ex2.approx.ftz.f32 second, $2;
    cvt.rn.bf16x2.f32 e, second, first;
    fma.rn.bf16x2 n, e, unit, unit;
    sub.u32 y, 0xFEF0FEF0, n;
    fma.rn.bf16x2 t, n, y, two;
    fma.rn.relu.bf16x2 $0, y, t, nothing;
    }"""
)
"""Of "packed newton": two weights from their x = -z log2 e, as y t with the guess y and t = 2 + n y.

n = -2^-16 (1 + 2^x), so that the guess of no finite n is below 0; that of an infinite n is, y t is -infinity, and what
is below 0 becomes 0. What PACKED_UNIT times y t is, is the weight.
"""
PACKED_UNIT = tl.constexpr(2.0**-16 * 1.00095)
"""2^-16, and what the bits of bfloat16 leave of Newton's step on average over z from -14 to 6."""


@triton.jit
def _forms(Z, Out, count, FORM: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(Z + at, mask=at < count)
    if FORM == "tanh":
        half = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [z * 0.5], dtype=tl.float32, is_pure=True, pack=1
        )
        p = half * 0.5 + 0.5
    elif FORM == "divide":
        p = 1 / (1 + tl.exp2(-z * LOG2_E))
    elif FORM == "packed newton":
        p = tl.inline_asm_elementwise(PACKED, "=r,r,r", [-z * LOG2_E], dtype=tl.bfloat16, is_pure=True, pack=2)
        p = p.to(tl.float32) * PACKED_UNIT
    else:
        n = -1.0 - tl.exp2(-z * LOG2_E)
        guess = (GUESS - n.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
        p = guess * tl.fma(n, guess, STEP)
    tl.store(Out + at, p, mask=at < count)


def weights(z: Tensor, form: str) -> Tensor:
    """Sigmoid of z, float32.

    Args:
        z: contiguous, float32, on a GPU; above -80, as the guess of "newton" ends where 2^126 does.
        form: one of `FORMS`.

    Raises:
        ValueError: z is not of that kind, or the form has no such name.
    """
    if form not in FORMS:
        raise ValueError(f"no form {form!r} of the sigmoid: give one of {', '.join(FORMS)}")
    if z.device.type != "cuda" or z.dtype != torch.float32 or not z.is_contiguous():
        raise ValueError(f"z is {z.dtype} on {z.device}: give contiguous float32 on a GPU")
    out = torch.empty_like(z)
    if z.numel():
        _forms[(triton.cdiv(z.numel(), BLOCK),)](z, out, z.numel(), form, BLOCK)
    return out


def inherited(form: str, keys: int, samples: int = 1_000_000) -> float:
    """Sum of |P - sigma(z)| over sum of sigma(z), at z = s - ln keys with s over the quantiles of a standard normal.

    By |o - o'| <= sum_j |dP_j| |v_j| it is what an output may lose to the form, over its size if nothing cancels.
    """
    at = (torch.arange(samples, device="cuda", dtype=torch.float64) + 0.5) / samples
    z = (torch.special.ndtri(at) - math.log(keys)).float()
    true = torch.sigmoid(z.double())
    return float((weights(z, form).double() - true).abs().sum() / true.sum())
