"""Sigmoid attention, forward and backward: `benchmarks.kernels.flash_sigmoid` against PyTorch's softmax attention.

The baselines compute softmax, another function of the same cost: the comparison is of Ramapuram et al.,
arXiv:2409.04431, section 4, who report 17 % less time forward and 3 to 6 % less backward than FlashAttention-2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend

from benchmarks import sdpa
from benchmarks.kernels import flash_sigmoid as kernel
from benchmarks.kernels.arguments import is_hopper
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs, Unsupported
from benchmarks.sdpa import BACKENDS, in_float64, named
from theory.operators.positions import alibi_slopes

TOKENS, MODEL = 16_384, 2048
"""Batch times length, and heads times width, in the timed cases: the protocol of FlashAttention-2."""


@dataclass(frozen=True)
class Attention(Case):
    """Shapes of one call; `offset` is the bias, -ln keys unless given; `strided` inputs have heads inside tokens."""

    queries: int
    keys: int
    width: int = 64
    batch: int = 1
    heads: int = 1
    key_heads: int = 1
    dtype: str = "float16"
    causal: bool = False
    alibi: bool = False
    strided: bool = False
    backward: bool = False
    offset: float | None = None


def make(case: Attention, generator: Generator) -> Inputs:
    """Normal q, k, v and gradient of the output, biases and slopes a head."""
    dtype, device = getattr(torch, case.dtype), generator.device

    def draw(heads: int, length: int) -> Tensor:
        shape = (case.batch, length, heads, case.width) if case.strided else (case.batch, heads, length, case.width)
        drawn = torch.randn(shape, generator=generator, device=device).to(dtype)
        return drawn.transpose(1, 2) if case.strided else drawn

    offset = -math.log(case.keys) if case.offset is None else case.offset
    slopes = torch.from_numpy(alibi_slopes(case.heads)).float().to(device) if case.alibi else None
    return {
        "q": draw(case.heads, case.queries), "k": draw(case.key_heads, case.keys),
        "v": draw(case.key_heads, case.keys), "do": draw(case.heads, case.queries),
        "bias": torch.full((case.heads,), offset, device=device), "slopes": slopes, "causal": case.causal,
        "scale": case.width**-0.5, "backward": case.backward,
    }  # fmt: skip


def tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, bool, float]:
    """Arguments of the kernel's operators after the gradient."""
    q, k, v, bias = (inputs[name] for name in ("q", "k", "v", "bias"))
    return q, k, v, bias, inputs["slopes"], inputs["causal"], inputs["scale"]


def fast(inputs: Inputs) -> Outputs:
    if inputs["backward"]:
        gradients = torch.ops.attest.flash_sigmoid_backward(inputs["do"], *tensors(inputs))
        return named(gradients)
    return {"o": torch.ops.attest.flash_sigmoid(*tensors(inputs))}


def plain(inputs: Inputs, forward: Callable[..., Tensor] = kernel.reference) -> Outputs:
    """With the n x m matrix, in the inputs' dtype."""
    if not inputs["backward"]:
        return {"o": forward(*tensors(inputs))}
    q, k, v = (inputs[name].detach().requires_grad_() for name in ("q", "k", "v"))
    with torch.enable_grad():
        gradients = torch.autograd.grad(forward(q, k, v, *tensors(inputs)[3:]), (q, k, v), inputs["do"])
    return named(gradients)


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    return plain(in_float64(inputs, but=("bias", "slopes")))


def cost(case: Attention) -> Cost:
    """4 B H n m D forward, half of it under a causal mask, 2.5 times that backward; softmax is not counted."""
    seen = case.queries * case.keys * (0.5 if case.causal else 1.0)
    flops = 4 * case.batch * case.heads * seen * case.width * (2.5 if case.backward else 1)
    query, key = (case.batch * heads * n * case.width
                  for heads, n in ((case.heads, case.queries), (case.key_heads, case.keys)))  # fmt: skip
    moved = 3 * query + 4 * key if case.backward else 2 * query + 2 * key
    return Cost(flops, moved * torch.finfo(getattr(torch, case.dtype)).bits / 8)


# -- baselines ---------------------------------------------------------------------------------------------------------


def softmax(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """SDPA with one backend.

    Raises:
        Unsupported: SDPA has no such function.
    """
    if inputs["slopes"] is not None:
        raise Unsupported("SDPA has no ALiBi")
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    options = {"is_causal": inputs["causal"], "scale": inputs["scale"]}
    if inputs["backward"]:
        return sdpa.backward(inputs, inputs["do"], backend, **options)
    return {"o": sdpa.attention(q, k, v, backend, **options)}


def same_schedule(inputs: Inputs, form: str) -> Outputs:
    """The Hopper kernel's tiles and schedule with other weights: what the time of the weights themselves is."""
    if inputs["backward"] or not is_hopper(inputs["q"]):
        raise Unsupported("a variant of the Hopper forward kernel")
    from benchmarks.kernels import flash_sigmoid_hopper

    return {"o": flash_sigmoid_hopper.forward(*tensors(inputs), form=form)}


# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def off_by_one(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """A causal mask that shows one key too many."""
    shown = torch.cat([k, k[:, :, -1:]], dim=2)
    values = torch.cat([v, torch.zeros_like(v[:, :, -1:])], dim=2)
    return kernel.reference(q, shown[:, :, 1:], values[:, :, 1:], bias, slopes, causal, scale)


def last_tile_dropped(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    """The last 16 keys are left out."""
    kept = torch.ones_like(v)
    kept[:, :, -16:] = 0
    return kernel.reference(q, k, v * kept, *rest)


def half_forgotten(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, slopes: Tensor | None, *rest: Any) -> Tensor:
    """tanh of the score in place of half the score."""
    return kernel.reference(2 * q, k, v, 2 * bias, None if slopes is None else 2 * slopes, *rest)


def bias_forgotten(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    """b = 0."""
    return kernel.reference(q, k, v, torch.zeros_like(bias), *rest)


def softmax_backward(inputs: Inputs) -> Outputs:
    """A backward pass with softmax's -rowsum(dO * O) left in: wrong in dQ and dK, right in dV."""
    if not inputs["backward"]:
        return plain(inputs)
    q, k, v = (inputs[name].detach().requires_grad_() for name in ("q", "k", "v"))
    given = tensors(inputs)[3:]
    with torch.enable_grad():
        o = kernel.reference(q, k, v, *given)
        delta = (inputs["do"] * o).sum(-1, keepdim=True).detach()
        ones = kernel.reference(q, k, torch.ones_like(v), *given)
        dq, dk = torch.autograd.grad(o, (q, k), inputs["do"], retain_graph=True)
        extra = torch.autograd.grad(ones, (q, k), delta.expand_as(ones) / v.shape[-1], retain_graph=True)
        (dv,) = torch.autograd.grad(o, v, inputs["do"])
    return {"dq": dq - extra[0], "dk": dk - extra[1], "dv": dv}


# -- cases -------------------------------------------------------------------------------------------------------------

BORDERS = (1, 63, 64, 65, 129)
FORWARD = [
    *(Attention(n, n, causal=causal) for n in BORDERS for causal in (False, True)),
    *(Attention(n, m, causal=True) for n, m in ((64, 130), (130, 64), (1, 200))),
    *(Attention(130, 130, width=width, causal=True) for width in (16, 32, 80, 96, 128, 256)),
    Attention(100, 100, heads=4, key_heads=1, batch=2, strided=True, causal=True),
    Attention(100, 130, heads=4, key_heads=2, alibi=True),
    Attention(130, 130, alibi=True, causal=True),
    *(Attention(130, 130, offset=offset) for offset in (0.0, -math.log(131_072))),
]
SPEED = [
    Attention(n, n, width=width, batch=TOKENS // n, heads=MODEL // width, key_heads=MODEL // width, dtype="bfloat16",
              causal=causal, backward=backward)
    for backward in (False, True) for width in (64, 128) for causal in (False, True)
    for n in (1024, 2048, 4096, 8192, 16_384)
]  # fmt: skip
PATCHES = Attention(196, 196, batch=TOKENS // 196, heads=32, key_heads=32, dtype="bfloat16")
"""A vision transformer's tokens, at which the paper's users see no gain."""

# The interpreter multiplies bfloat16 as integers, and would take minutes for these: sizes of several programs a GPU.
LARGE = [
    Attention(n, n, width=width, heads=8, key_heads=2, batch=2, dtype=dtype, causal=causal, alibi=alibi)
    for n in (1000, 2049) for width in (32, 64, 128) for dtype in ("bfloat16", "float16")
    for causal, alibi in ((False, False), (True, False), (True, True))
]  # fmt: skip
CASES = FORWARD + LARGE if torch.cuda.is_available() else FORWARD

BENCH = Bench(
    name="flash_sigmoid",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=[replace(case, backward=backward) for case in CASES for backward in (False, True)],
    speed=[*SPEED, PATCHES],
    cost=cost,
    baselines={
        **{name: partial(softmax, backend=backend) for name, backend in BACKENDS.items()},
        "softmax twin": partial(same_schedule, form="softmax"),
        "sigmoid with row maximum": partial(same_schedule, form="newton with row maximum"),
        "sigmoid in float32": partial(same_schedule, form="newton"),
        "exp and divide": partial(same_schedule, form="divide"),
        "tanh": partial(same_schedule, form="tanh"),
    },
    controls={
        "mask off by one": partial(plain, forward=off_by_one),
        "last tile dropped": partial(plain, forward=last_tile_dropped),
        "half of the score forgotten": partial(plain, forward=half_forgotten),
        "bias forgotten": partial(plain, forward=bias_forgotten),
        "softmax's backward": softmax_backward,
    },
)
