"""Mixture-of-head attention: `benchmarks.kernels.moh`, gathered rows alone, against all heads.

Timed from q, k, v and gates to the layer's output: listing the rows, attention, product with W_O. Projections of q, k
and v and the router are in none of the contenders. "SDPA/..." computes all heads without gates, which is what the
paper's 100 % is; "masking" computes all heads and multiplies by the gates, as the released code does. "... alone" ends
before W_O, which costs the same for all. Source: Jin et al., arXiv:2410.11842, table 7 (32 heads of width 64).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend

from benchmarks import sdpa
from benchmarks.kernels import moh as kernel
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs
from benchmarks.sdpa import in_float64
from theory.operators import moh

TOKENS = 16_384
"""Batch times length in the timed cases."""
SHARES = {100: (16, 16), 90: (14, 15), 75: (12, 12), 50: (8, 8)}
"""Per cent of 32 heads that a token uses -> shared heads, routed heads selected; 90 is 29 of 32."""


@dataclass(frozen=True)
class Heads(Case):
    """Shapes of one call: each token uses `shared` heads and `top` of the others."""

    tokens: int
    heads: int = 4
    shared: int = 1
    top: int = 1
    width: int = 64
    batch: int = 1
    key_heads: int | None = None
    dtype: str = "float16"
    causal: bool = False


def make(case: Heads, generator: Generator) -> Inputs:
    """Normal q, k, v with heads inside tokens, as a projection writes them; gates of the released code; W_O."""
    dtype, device = getattr(torch, case.dtype), generator.device

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def heads(count: int) -> Tensor:
        return draw(case.batch, case.tokens, count, case.width).to(dtype).transpose(1, 2)

    shared, routed, kinds = (draw(case.batch, case.tokens, size) for size in (case.shared, case.heads - case.shared, 2))
    features, key_heads = case.heads * case.width, case.key_heads or case.heads
    return {
        "q": heads(case.heads), "k": heads(key_heads), "v": heads(key_heads),
        "gates": moh.gates(shared, routed, kinds, case.top, released=True).to(dtype),
        "W_O": (draw(features, features) * features**-0.5).to(dtype), "causal": case.causal, "scale": case.width**-0.5,
    }  # fmt: skip


def tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """Arguments of the operator."""
    return tuple(inputs[name] for name in ("q", "k", "v", "gates", "causal", "scale"))


def layer(inputs: Inputs, heads: Tensor) -> Outputs:
    return {"heads": heads, "y": heads @ inputs["W_O"]}


def fast(inputs: Inputs) -> Outputs:
    return layer(inputs, torch.ops.attest.moh_attention(*tensors(inputs)))


def plain(inputs: Inputs, forward: Callable[..., Tensor] = kernel.reference) -> Outputs:
    """All heads with their n x n matrices, then the gates, in the inputs' dtype."""
    return layer(inputs, forward(*tensors(inputs)))


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    return plain(in_float64(inputs))


def cost(case: Heads) -> Cost:
    """Executed: 4 n D a selected row (half under a causal mask), and the whole product with W_O."""
    return _cost(case, case.shared + case.top)


def dense_cost(case: Heads) -> Cost:
    """Of all heads."""
    return _cost(case, case.heads)


def _cost(case: Heads, active: int) -> Cost:
    element, features = torch.finfo(getattr(torch, case.dtype)).bits / 8, case.heads * case.width
    rows = case.batch * case.tokens
    flops = 4 * rows * active * case.tokens * case.width * (0.5 if case.causal else 1.0) + 2 * rows * features**2
    key_features = (case.key_heads or case.heads) * case.width
    moved = rows * (active * case.width + 2 * key_features + 2 * features + case.heads) + features**2
    return Cost(flops, moved * element)


# -- baselines ---------------------------------------------------------------------------------------------------------


def dense(inputs: Inputs, backend: SDPBackend) -> Tensor:
    """All heads of SDPA side by side: (batch, tokens, heads * D)."""
    q, k, v = (inputs[name] for name in "qkv")
    o = sdpa.attention(q, k, v, backend, is_causal=inputs["causal"], scale=inputs["scale"])
    return o.transpose(1, 2).flatten(2)


def all_heads(inputs: Inputs, backend: SDPBackend) -> Outputs:
    return layer(inputs, dense(inputs, backend))


def all_heads_alone(inputs: Inputs, backend: SDPBackend) -> Outputs:
    return {"heads": dense(inputs, backend)}


def masking(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """All heads are computed, those not selected are multiplied by 0."""
    heads = dense(inputs, backend).unflatten(2, (inputs["gates"].shape[2], -1))
    return layer(inputs, (heads * inputs["gates"].unsqueeze(-1)).flatten(2))


def gathered_alone(inputs: Inputs) -> Outputs:
    return {"heads": torch.ops.attest.moh_attention(*tensors(inputs))}


FLASH, CUDNN = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION

# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def gates_forgotten(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    """Selected heads weigh 1."""
    return kernel.reference(q, k, v, (gates != 0).to(gates.dtype), causal, scale)


def last_tile_dropped(q: Tensor, k: Tensor, v: Tensor, *rest: object) -> Tensor:
    """The last 16 keys give their weight, but no value."""
    kept = torch.ones_like(v)
    kept[:, :, -16:] = 0
    return kernel.reference(q, k, v * kept, *rest)  # type: ignore[arg-type]


def rows_at_the_neighbour(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    """Each computed row is written one token further: the list is read with an offset."""
    return kernel.reference(q, k, v, gates, causal, scale).roll(1, dims=1)


def heads_of_the_first_token(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    """Every token uses the heads that the first one selected."""
    return kernel.reference(q, k, v, gates * (gates[:, :1] != 0), causal, scale)


def off_by_one(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, causal: bool, scale: float) -> Tensor:
    """A causal mask that hides the token itself, but for the first."""
    if not causal or q.shape[2] == 1:
        return kernel.reference(q, k, v, gates, causal, scale)
    later = kernel.reference(q[:, :, 1:], k[:, :, :-1], v[:, :, :-1], gates[:, 1:], causal, scale)
    return torch.cat([kernel.reference(q[:, :, :1], k[:, :, :1], v[:, :, :1], gates[:, :1], causal, scale), later], 1)


# -- cases -------------------------------------------------------------------------------------------------------------

CASES = [
    *(Heads(n, causal=causal) for n in (1, 63, 64, 65, 129) for causal in (False, True)),
    Heads(200, heads=2, shared=1, top=0),
    Heads(200, heads=2, shared=1, top=1),
    *(Heads(100, width=width, heads=3, causal=True) for width in (16, 80, 128)),
    Heads(100, heads=4, key_heads=2, batch=2),
    Heads(130, heads=4, key_heads=1, causal=True),
    Heads(130, dtype="float32", heads=6, shared=2, top=2),
]
SPEED = [
    Heads(n, heads=32, shared=shared, top=top, batch=TOKENS // n, dtype="bfloat16")
    for n in (256, 512, 4096, 16_384) for shared, top in SHARES.values()
]  # fmt: skip

BENCH = Bench(
    name="moh",
    axis="tokens",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=CASES,
    speed=SPEED,
    cost=cost,
    baselines={
        "SDPA/flash": partial(all_heads, backend=FLASH),
        "SDPA/cudnn": partial(all_heads, backend=CUDNN),
        "masking/flash": partial(masking, backend=FLASH),
        "alone": gathered_alone,
        "SDPA/flash alone": partial(all_heads_alone, backend=FLASH),
        "SDPA/cudnn alone": partial(all_heads_alone, backend=CUDNN),
    },
    controls={
        "gates forgotten": partial(plain, forward=gates_forgotten),
        "last tile dropped": partial(plain, forward=last_tile_dropped),
        "rows written one further": partial(plain, forward=rows_at_the_neighbour),
        "heads of the first token": partial(plain, forward=heads_of_the_first_token),
        "mask off by one": partial(plain, forward=off_by_one),
    },
)
