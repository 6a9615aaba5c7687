"""Sparse-linear attention: `benchmarks.kernels.sla` against PyTorch's dense attention.

The comparison is of Zhang et al., arXiv:2509.24006: 13.7x forward and 6.8x backward of FlashAttention-2 at 95 %
sparsity, on an RTX 5090. `fast` is given its map, as in their benchmark; the features of queries and keys, which theirs
is given too, it computes. "with map and projection" pays for the map and for O^s + O^l W^T + b as well. `cost` is the
work of dense attention, so that rates of all contenders compare; what the sparse operator executes is `executed`.
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
from benchmarks.kernels import sla as kernel
from benchmarks.kernels.sla_map import block_map
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs, Unsupported
from benchmarks.sdpa import BACKENDS, in_float64, named
from theory.operators import sla as theory


@dataclass(frozen=True)
class Sla(Case):
    """Shapes of one call; `high` and `low` are per cent of a row's blocks of keys that are critical and negligible.

    `keys` are as many as queries unless given; `strided` inputs have heads inside tokens.
    """

    queries: int
    keys: int | None = None
    width: int = 16
    batch: int = 1
    heads: int = 1
    dtype: str = "float16"
    query_block: int = 32
    key_block: int = 16
    high: int = 30
    low: int = 20
    linear: str = "marginal"
    features: str = "softmax"
    strided: bool = False
    backward: bool = False

    @property
    def form(self) -> theory.Form:
        return theory.Form(self.query_block, self.key_block, self.linear, self.features)


def make(case: Sla, generator: Generator) -> Inputs:
    """Normal q, k, v, gradients of both outputs and projection; the map is that of q and k."""
    dtype, device, keys = getattr(torch, case.dtype), generator.device, case.keys or case.queries

    def draw(length: int) -> Tensor:
        middle = (length, case.heads) if case.strided else (case.heads, length)
        shape = (case.batch, *middle, case.width)
        drawn = torch.randn(shape, generator=generator, device=device).to(dtype)
        return drawn.transpose(1, 2) if case.strided else drawn

    q, k = draw(case.queries), draw(keys)
    weight = torch.randn(case.width, case.width, generator=generator, device=device) * case.width**-0.5
    blocks = block_map(
        q, k, query_block=case.query_block, key_block=case.key_block, high=case.high / 100, low=case.low / 100
    )
    return {
        "q": q, "k": k, "v": draw(keys), "dOs": draw(case.queries), "dOl": draw(case.queries), "form": case.form,
        "high": case.high / 100, "low": case.low / 100,
        "weight": weight.to(dtype), "bias": torch.zeros(case.width, dtype=dtype, device=device),
        "blocks": blocks, "backward": case.backward,
    }  # fmt: skip


def tensors(inputs: Inputs) -> tuple[Any, ...]:
    """q, k, v and the map."""
    return inputs["q"], inputs["k"], inputs["v"], inputs["blocks"]


def fast(inputs: Inputs) -> Outputs:
    """The kernel given its map. Backward, what the forward pass leaves is made once and kept in the inputs."""
    form, scale = inputs["form"], inputs["q"].shape[-1] ** -0.5
    given = form.query_block, form.key_block, form.linear, form.features, scale
    if not inputs["backward"]:
        sparse, linear, *_ = torch.ops.attest.sla(*tensors(inputs), *given)
        return {"o_s": sparse, "o_l": linear}
    if "left" not in inputs:
        inputs["left"] = torch.ops.attest.sla(*tensors(inputs), *given)
    gradients = torch.ops.attest.sla_backward(inputs["dOs"], inputs["dOl"], *tensors(inputs), *inputs["left"], *given)
    return named(gradients)


def plain(
    inputs: Inputs, blocks: Callable[[Tensor], Tensor] | None = None, through_norm: bool = True, **swap: Any
) -> Outputs:
    """With the n x m matrix, in the inputs' dtype; a control replaces the map, parts of the form or the gradient."""
    form, (q, k, v, given) = replace(inputs["form"], **swap), tensors(inputs)
    given = given if blocks is None else blocks(given)
    if not inputs["backward"]:
        return dict(zip(("o_s", "o_l"), theory.branches(q, k, v, given, form), strict=True))
    gradients = theory.gradients(q, k, v, given, inputs["dOs"], inputs["dOl"], form, through_norm=through_norm)
    return named(gradients)


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    return plain(in_float64(inputs))


def cost(case: Sla) -> Cost:
    """Of dense attention: 4 B H n m D forward, 2.5 times that backward; bytes of q, k, v, o and gradients."""
    keys = case.keys or case.queries
    flops = 4 * case.batch * case.heads * case.queries * keys * case.width * (2.5 if case.backward else 1)
    rows = 3 * case.queries + 4 * keys if case.backward else 2 * case.queries + 2 * keys
    return Cost(flops, rows * case.batch * case.heads * case.width * torch.finfo(getattr(torch, case.dtype)).bits / 8)


def executed(case: Sla, inputs: Inputs) -> float:
    """Of the operator: critical blocks of the map 4 b_q b_kv D each; states and their use 4 n D^2; the sum of states is
    2 T_m T_n D^2 as a matrix product. Backward 2.5 times that, 3.5 with the scores computed twice, is not counted."""
    *both, rows, columns = inputs["blocks"].shape
    critical = float((inputs["blocks"] == 1).sum()) * 4 * case.query_block * case.key_block * case.width
    states = (2 * case.queries + 2 * (case.keys or case.queries) + 2 * rows * columns) * case.width**2
    if case.linear == "none":
        states = 0
    return (critical + math.prod(both) * states) * (2.5 if case.backward else 1)


# -- baselines ---------------------------------------------------------------------------------------------------------


def dense(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """SDPA with one backend."""
    q, k, v, _ = tensors(inputs)
    if inputs["backward"]:
        return sdpa.backward(inputs, inputs["dOs"], backend)
    return {"o_s": sdpa.attention(q, k, v, backend)}


def whole(inputs: Inputs) -> Outputs:
    """The layer: map, features, both branches and the projection, all timed."""
    if inputs["backward"]:
        raise Unsupported("the map and the projection are timed forward")
    given = [inputs[name] for name in ("q", "k", "v", "weight", "bias", "form")]
    return {"o_s": kernel.layer(*given, high=inputs["high"], low=inputs["low"])}


# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def half_dropped(blocks: Tensor) -> Tensor:
    """Every second critical block of a row is left out."""
    critical = blocks == 1
    return torch.where(critical & (critical.cumsum(-1) % 2 == 0), -1, blocks)


def shifted(blocks: Tensor) -> Tensor:
    """Lists that are off by one block of keys."""
    return blocks.roll(1, dims=-1)


# A single key has weight 1 exactly in plain code, so that nothing but equality would pass: tests/ has that case.
FORWARD = [
    *(Sla(queries, keys) for queries, keys in ((1, 33), (31, 31), (32, 32), (33, 17))),
    Sla(40, 50, width=32, batch=2, heads=2, strided=True),
    *(Sla(70, linear=linear, features=features) for linear, features in (("rest", "elu"), ("all", "relu"))),
    *(Sla(40, high=high, low=low) for high, low in ((100, 0), (0, 0), (0, 100))),
    Sla(70, linear="none"),
    Sla(130, 200, width=128, query_block=128, key_block=64),
]
TIMED = Sla(32_768, width=128, heads=12, dtype="bfloat16", query_block=128, key_block=64, high=5, low=10)
SPEED = [
    *(replace(TIMED, high=high, low=min(10, 100 - high), backward=backward)
      for backward in (False, True) for high in (5, 10, 20, 100)),
    *(replace(TIMED, linear=linear, backward=backward)
      for backward in (False, True) for linear in ("none", "all", "rest")),
    *(replace(TIMED, queries=n, backward=backward) for backward in (False, True) for n in (8192, 16_384, 65_536)),
]  # fmt: skip

BENCH = Bench(
    name="sla",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=[replace(case, backward=backward) for case in FORWARD for backward in (False, True)],
    speed=SPEED,
    cost=cost,
    baselines={
        **{name: partial(dense, backend=backend) for name, backend in BACKENDS.items()},
        "with map and projection": whole,
    },
    controls={
        "half of the list dropped": partial(plain, blocks=half_dropped),
        "list off by one": partial(plain, blocks=shifted),
        "negligible blocks in the linear branch": partial(plain, linear="rest"),
        "no scale": partial(plain, scale=1.0),
        "gradient without dZ": partial(plain, through_norm=False),
    },
    executed=executed,
)
