"""Magnitude-aware linear attention, forward and backward: `benchmarks.kernels.mala` against softmax attention.

SDPA and the materialised softmax compute another function; the comparison is of Fan et al., arXiv:2507.00698: time and
memory linear in the number of tokens against quadratic. `materialised` writes the n x m matrix of softmax down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend

from benchmarks import sdpa
from benchmarks.kernels import mala as kernel
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs, Unsupported
from benchmarks.sdpa import BACKENDS, in_float64, named
from theory.operators.attention import linear_output, mala, softmax
from theory.operators.mala import released_scale

HEADS = 8
"""In the timed cases, of one sequence: the longest still lets softmax write its matrix where the slope is read."""
MATRIX = 20e9
"""Bytes of n x m scores beyond which the materialised versions are not run: they hold up to three such matrices."""


@dataclass(frozen=True)
class Tokens(Case):
    """Shapes of one call; `factor` is the kernel's times sqrt(D) m; `strided` inputs have heads inside tokens."""

    queries: int
    keys: int
    width: int = 64
    batch: int = 1
    heads: int = 1
    dtype: str = "float16"
    strided: bool = False
    backward: bool = False
    factor: float | None = None


def make(case: Tokens, generator: Generator) -> Inputs:
    """Normal q, k, v and gradient of the output."""
    dtype, device = getattr(torch, case.dtype), generator.device

    def draw(length: int) -> Tensor:
        shape = (case.batch, length, case.heads, case.width) if case.strided else (
            case.batch, case.heads, length, case.width)  # fmt: skip
        drawn = torch.randn(shape, generator=generator, device=device).to(dtype)
        return drawn.transpose(1, 2) if case.strided else drawn

    return {
        "q": draw(case.queries), "k": draw(case.keys), "v": draw(case.keys), "do": draw(case.queries),
        "scale": (case.factor or 1.0) * released_scale(case.width, case.keys), "backward": case.backward,
    }  # fmt: skip


def fast(inputs: Inputs) -> Outputs:
    given = tuple(inputs[name] for name in ("q", "k", "v", "scale"))
    if inputs["backward"]:
        gradients = torch.ops.attest.mala_backward(inputs["do"], *given)
        return named(gradients)
    return {"o": torch.ops.attest.mala(*given)}


def plain(inputs: Inputs, forward: Callable[..., Tensor] = kernel.reference) -> Outputs:
    """phi(k)^T v first, in the inputs' dtype."""
    if not inputs["backward"]:
        return {"o": forward(*(inputs[name] for name in ("q", "k", "v", "scale")))}
    leaves = tuple(inputs[name].detach().requires_grad_() for name in ("q", "k", "v"))
    with torch.enable_grad():
        gradients = torch.autograd.grad(forward(*leaves, inputs["scale"]), leaves, inputs["do"])
    return named(gradients)


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    return plain(in_float64(inputs))


def cost(case: Tokens) -> Cost:
    """Forward 2 D^2 a key and 2 D^2 a query; backward 4 D^2 each, and the 2 D^2 a key of the state once more.

    Bytes: each input read and each output written once; backward q, k, v and dO read, dQ, dK and dV written.
    """
    rows, width = case.batch * case.heads, case.width
    query, key = rows * case.queries * width, rows * case.keys * width
    flops = (4 * query + 6 * key) * width if case.backward else (2 * query + 2 * key) * width
    moved = 3 * query + 4 * key if case.backward else 2 * query + 2 * key
    return Cost(flops, moved * torch.finfo(getattr(torch, case.dtype)).bits / 8)


# -- baselines ---------------------------------------------------------------------------------------------------------


def pinned(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """SDPA with one backend."""
    if inputs["backward"]:
        return sdpa.backward(inputs, inputs["do"], backend)
    return {"o": sdpa.attention(inputs["q"], inputs["k"], inputs["v"], backend)}


def materialised(inputs: Inputs, weights: Callable[..., Tensor]) -> Outputs:
    """Weights written down, then multiplied by v.

    Raises:
        Unsupported: the matrix is too large, or a backward pass is asked for.
    """
    q, k = inputs["q"], inputs["k"]
    if inputs["backward"]:
        raise Unsupported("forward alone")
    if (size := q[..., 0].numel() * k.shape[2] * q.element_size()) > MATRIX:
        raise Unsupported(f"a matrix of {size / 1e9:.0f} GB")
    return {"o": weights(q, k) @ inputs["v"]}


def quadratic(q: Tensor, k: Tensor) -> Tensor:
    """MALA's weights, at the released scale."""
    weights: Tensor = mala(q, k, scale=released_scale(q.shape[-1], k.shape[-2]))
    return weights


# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def last_tile_dropped(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The last 16 keys are left out of phi(k)^T v."""
    kept = torch.ones_like(v)
    kept[:, :, -16:] = 0
    return kernel.reference(q, k, v * kept, scale)


def mean_forgotten(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """beta S alone: gamma is forgotten."""
    z = scale * k.shape[2] * (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).mean(2, True).mT
    return kernel.reference(q, k, v, scale) + z * v.mean(2, keepdim=True)


def magnitude_forgotten(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Linear attention."""
    output: Tensor = linear_output(q, k, v)
    return output


def one_forgotten(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """phi(q) = ELU(q)."""
    return kernel.reference(torch.where(q > 0, q - 1, q), k, v, scale)


def norm_is_constant(inputs: Inputs) -> Outputs:
    """A backward pass that takes z for a constant: right in dV alone."""
    if not inputs["backward"]:
        return plain(inputs)

    def forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        f, g, keys = (torch.nn.functional.elu(q) + 1), (torch.nn.functional.elu(k) + 1), k.shape[2]
        z = (f @ g.mean(2, keepdim=True).mT).detach()
        return (f @ (g.mT @ v)) / keys * (scale * keys + 1 / z) - scale * keys * z * v.mean(2, keepdim=True)

    return plain(inputs, forward)


# -- cases -------------------------------------------------------------------------------------------------------------

BORDERS = (1, 63, 64, 65, 129)
FORWARD = [
    *(Tokens(n, n) for n in BORDERS),
    *(Tokens(n, m) for n, m in ((64, 130), (130, 64), (1, 600), (600, 300))),
    *(Tokens(130, 130, width=width) for width in (16, 32, 80, 128)),
    Tokens(100, 100, heads=4, batch=2, strided=True),
    Tokens(100, 130, dtype="float32"),
    Tokens(130, 130, factor=8.0),
]
SPEED = [
    *(Tokens(n, n, width=width, heads=HEADS, dtype="bfloat16")
      for width in (32, 64, 128) for n in (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)),
    *(Tokens(n, n, width=width, heads=HEADS, dtype="bfloat16", backward=True)
      for width in (64, 128) for n in (4096, 16_384)),
]  # fmt: skip

BENCH = Bench(
    name="mala",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=[replace(case, backward=backward) for case in FORWARD for backward in (False, True)],
    speed=SPEED,
    cost=cost,
    baselines={
        "eager": plain,
        **{name: partial(pinned, backend=backend) for name, backend in BACKENDS.items()},
        "materialised softmax": partial(materialised, weights=softmax),
        "materialised MALA": partial(materialised, weights=quadratic),
    },
    controls={
        "last tile dropped": partial(plain, forward=last_tile_dropped),
        "mean not subtracted": partial(plain, forward=mean_forgotten),
        "magnitude forgotten": partial(plain, forward=magnitude_forgotten),
        "one forgotten in the features": partial(plain, forward=one_forgotten),
        "norm taken for a constant": norm_is_constant,
    },
)
