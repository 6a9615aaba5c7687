"""Two ways to a sigmoid on a GPU, element by element, as attention kernels compute their weights.

    tanh        0.5 + 0.5 tanh.approx(z / 2): one instruction of the special-function unit (FlashSigmoid's choice)
    exp         1 / (1 + exp2(-z log2 e)): two of them, an exponential and a reciprocal

Numerics. float32 in and out. tanh.approx.f32 has a relative error up to 2^-11 (PTX ISA), which near tanh = -1 is an
absolute error: it does not shrink with the weight. The other form keeps its relative error. Memory: input and output.

Limits: contiguous float32 on a GPU; inline assembly has no interpreter, so nothing here runs without one.
Source: Ramapuram et al., arXiv:2409.04431, section 4 and appendix F.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _forms(Z, Out, count, TANH: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(Z + at, mask=at < count)
    if TANH:
        t = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [z * 0.5], dtype=tl.float32, is_pure=True, pack=1
        )
        p = 0.5 + 0.5 * t
    else:
        p = 1 / (1 + tl.exp2(-z * LOG2_E))
    tl.store(Out + at, p, mask=at < count)


def weights(z: Tensor, form: str) -> Tensor:
    """Sigmoid of z, float32.

    Args:
        z: contiguous, float32, on a GPU.
        form: "tanh" or "exp".

    Raises:
        ValueError: z is not of that kind, or the form has no such name.
    """
    if form not in ("tanh", "exp"):
        raise ValueError(f"no form {form!r} of the sigmoid: give 'tanh' or 'exp'")
    if z.device.type != "cuda" or z.dtype != torch.float32 or not z.is_contiguous():
        raise ValueError(f"z is {z.dtype} on {z.device}: give contiguous float32 on a GPU")
    out = torch.empty_like(z)
    if z.numel():
        _forms[(triton.cdiv(z.numel(), BLOCK),)](z, out, z.numel(), form == "tanh", BLOCK)
    return out
