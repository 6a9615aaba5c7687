"""SALE: causal prefill over blocks of keys that 4-bit scores select, against PyTorch's dense attention.

The claims are of Ji et al., arXiv:2505.24179: selecting costs 11 % of full attention, and attention is 3.36 times as
fast from 64 thousand tokens on. What a user must pay is inside the timer: means, quantisation, thresholds, comparison,
lists and attention; a contender that leaves something out says so in its name. Work is dense-equivalent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend

from benchmarks import sdpa
from benchmarks.kernels import sale as kernel
from benchmarks.kernels import sale_select
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs
from benchmarks.sdpa import BACKENDS
from theory.operators import sale as theory
from theory.operators.sale_heads import synthetic

KINDS = ("local", "needle", "vertical")


@dataclass(frozen=True)
class Prefill(Case):
    """Shapes of one call.

    `head` is the kind of the synthetic heads, calibrated on these very inputs, or `mixed`: one kind after another, by
    key heads; `every` is theirs. Without it draws are normal, and tau lies between the scores of blocks. `strided`
    inputs have heads inside tokens.
    """

    n: int
    heads: int = 1
    key_heads: int = 1
    width: int = 128
    batch: int = 1
    dtype: str = "float16"
    head: str | None = None
    every: int | None = None
    strided: bool = False


def make(case: Prefill, generator: Generator) -> Inputs:
    """q, k, v and a threshold a head; the sink of a synthetic head has the value 0."""
    dtype, device = getattr(torch, case.dtype), generator.device

    def draw(heads: int) -> Tensor:
        shape = (case.batch, case.n, heads, case.width) if case.strided else (case.batch, heads, case.n, case.width)
        drawn = torch.randn(shape, generator=generator, device=device)
        return drawn.transpose(1, 2) if case.strided else drawn

    q, k, v = draw(case.heads), draw(case.key_heads), draw(case.key_heads)
    if case.head is None:
        q, k, v = (x.to(dtype) for x in (q + q[:, :, :1], k + k[:, :, :1], v))
        return {"q": q, "k": k, "v": v, "tau": between(q, k), "gate": True}
    group = case.heads // case.key_heads
    for head in range(case.key_heads):
        kind = KINDS[head % len(KINDS)] if case.head == "mixed" else case.head
        of = slice(head * group, (head + 1) * group)
        q[:, of], k[:, head : head + 1] = structured(kind, q[:, of], k[:, head : head + 1], case.every)
    v[:, :, 0] = 0
    given: Inputs = {"q": q.to(dtype), "k": k.to(dtype), "v": v.to(dtype), "gate": False}
    dense = softmax(given, SDPBackend.FLASH_ATTENTION)["o"]
    tau = theory.calibrated(lambda tau: kernel.sale(given["q"], given["k"], given["v"], tau), dense)
    return given | {"tau": tau}


def structured(kind: str, q: Tensor, k: Tensor, every: int | None) -> tuple[Tensor, Tensor]:
    """Query heads of one key head, the needle of each being of its own keys."""
    return synthetic(kind, q, k) if every is None else synthetic(kind, q, k, every=every)


def between(q: Tensor, k: Tensor) -> Tensor:
    """tau of each head in the widest gap, of the middle third, between the scores of blocks.

    So no rounding of scores decides on a block, and kept blocks must be equal in all versions.
    """
    scores = theory.block_scores(q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], dim=1))
    chosen = theory.selectable(q.shape[2], q)
    values = scores[..., chosen].transpose(0, 1).flatten(1).sort().values.log()
    third = values.shape[1] // 3
    if third == 0:
        return torch.full((q.shape[1],), theory.START, device=q.device)
    middle = values[:, third : values.shape[1] - third + 1]
    at = middle.diff().argmax(dim=1, keepdim=True)
    return ((middle.gather(1, at) + middle.gather(1, at + 1)) / 2).exp().flatten().float()


def fast(inputs: Inputs) -> Outputs:
    """The kernels; in the gate kept blocks are judged too."""
    q, k, v, tau = (inputs[name] for name in ("q", "k", "v", "tau"))
    lists, counts = kernel.select(q, k, tau)
    found = {"o": kernel.prefill(q, k, v, lists, counts)}
    return found | {"kept": kernel.kept_of(lists, counts, q.shape[2]).float()} if inputs["gate"] else found


Selection = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(
    inputs: Inputs,
    selection: Selection = kernel.reference_selection,
    attention: Callable[..., Tensor] = kernel.reference_attention,
) -> Outputs:
    """With n x n matrices: selection in float32, as in the kernels, attention in the inputs' dtype."""
    kept = selection(inputs["q"], inputs["k"], inputs["tau"])
    return {"o": attention(inputs["q"], inputs["k"], inputs["v"], kept), "kept": kept.float()}


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    found = plain(inputs | {name: inputs[name].double() for name in ("q", "k", "v")})
    return {name: value.double() for name, value in found.items()}


def cost(case: Prefill) -> Cost:
    """2 B H n^2 D of dense causal attention, and the bytes of q, k, v and o."""
    rows = case.batch * case.n * case.width
    moved = rows * 2 * (case.heads + case.key_heads) * torch.finfo(getattr(torch, case.dtype)).bits / 8
    return Cost(2.0 * rows * case.n * case.heads, moved)


def executed(case: Prefill, inputs: Inputs) -> float:
    """Of the prefill: 4 D a pair of the blocks kept, whole ones at the diagonal; selection, in int8, is not counted."""
    _, counts = kernel.select(inputs["q"], inputs["k"], inputs["tau"])
    block = torch.arange(counts.shape[2], device=counts.device)
    window = (block + 1) * theory.QUERIES - (block - 1).clamp(min=0) // 2 * theory.SEGMENT
    pairs = float((counts * theory.KEYS + window).double().sum()) * theory.QUERIES
    return 4 * case.width * pairs


# -- baselines ---------------------------------------------------------------------------------------------------------


def softmax(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """Dense causal SDPA with one backend."""
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    return {"o": sdpa.attention(q, k, v, backend, is_causal=True)}


def selecting(inputs: Inputs) -> Outputs:
    lists, counts = kernel.select(inputs["q"], inputs["k"], inputs["tau"])
    return {"lists": lists, "counts": counts}


def quantising(inputs: Inputs) -> Outputs:
    return dict(enumerate(sale_select.quantised(inputs["q"], inputs["k"], inputs["tau"])))  # type: ignore[arg-type]


def attending(inputs: Inputs) -> Outputs:
    """The lists are made once and kept in the inputs."""
    if "lists" not in inputs:
        inputs |= selecting(inputs)
    return {"o": kernel.prefill(*(inputs[name] for name in ("q", "k", "v", "lists", "counts")))}


def attending_to_all(inputs: Inputs) -> Outputs:
    """Our own kernel as dense attention; the lists are made once and kept in the inputs."""
    if "all" not in inputs:
        inputs["all"] = kernel.select(inputs["q"], inputs["k"], torch.zeros_like(inputs["tau"]))
    return {"o": kernel.prefill(*(inputs[name] for name in ("q", "k", "v")), *inputs["all"])}


def nothing_discarded(inputs: Inputs) -> Outputs:
    return fast(inputs | {"tau": torch.zeros_like(inputs["tau"])})


# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def last_listed_dropped(q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> Tensor:
    """The last block of each list is not attended to."""
    lists, counts = kernel.listed(kept, q.shape[2])
    return kernel.reference_attention(q, k, v, kernel.kept_of(lists, (counts - 1).clamp(min=0), q.shape[2]))


def off_by_one(q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> Tensor:
    """A causal mask that shows one key too many."""
    k, v = (torch.cat([x[:, :, 1:], torch.zeros_like(x[:, :, :1])], dim=2) for x in (k, v))
    return kernel.reference_attention(q, k, v, kept)


def without_norm(q: Tensor, k: Tensor, tau: Tensor) -> Tensor:
    """exp(s - m) is compared with tau, not with tau D."""
    estimate = theory.estimated(*(x.float() for x in (q, k.repeat_interleave(q.shape[1] // k.shape[1], dim=1))))
    s = theory.exact(q.float(), k.float().repeat_interleave(q.shape[1] // k.shape[1], dim=1))
    top, _ = theory.sink_and_local(s * q.shape[-1] ** -0.5)
    largest = theory.largest_in_blocks((estimate * q.shape[-1] ** -0.5 - top).exp())
    return theory.kept_blocks(largest, tau, q.shape[2])


def broken_estimate(q: Tensor, k: Tensor, tau: Tensor, **broken: Any) -> Tensor:
    return kernel.reference_selection(q, k, tau, estimate=partial(theory.estimated, **broken))


# -- cases -------------------------------------------------------------------------------------------------------------

BORDERS = (1, 63, 64, 65, 193, 257)
"""A block of queries, the first one whose window leaves out a segment, the first with a list to choose; neighbours."""
CASES = [
    *(Prefill(n, width=32) for n in BORDERS),
    Prefill(420, heads=4, key_heads=2, width=32, strided=True),
    Prefill(330, heads=3, key_heads=1, width=64),
    Prefill(260, heads=2, key_heads=2, batch=2),
    Prefill(1160, width=32),
]
SPEED = [
    *(Prefill(n, heads=6, key_heads=3, head="mixed") for n in (16_384, 32_768, 65_536, 131_072)),
    *(Prefill(65_536, heads=4, head="vertical", every=every) for every in (3, 12, 64)),
]
"""Heads of Llama's width, fewer than its 32: even 4 are thousands of programs, and each head costs the same."""

BENCH = Bench(
    name="sale",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=CASES,
    speed=SPEED,
    cost=cost,
    baselines={
        **{name: partial(softmax, backend=backend) for name, backend in BACKENDS.items()},
        "quantising alone": quantising,
        "selecting alone": selecting,
        "attending alone, blocks given": attending,
        "attending to all, blocks given": attending_to_all,
        "nothing discarded": nothing_discarded,
    },
    controls={
        "mean term forgotten": partial(plain, selection=partial(broken_estimate, mean_term=False)),
        "floor in place of rounding": partial(plain, selection=partial(broken_estimate, rounding=torch.floor)),
        "norm forgotten in the threshold": partial(plain, selection=without_norm),
        "last listed block dropped": partial(plain, attention=last_listed_dropped),
        "mask off by one": partial(plain, attention=off_by_one),
    },
    axis="n",
    executed=executed,
)
