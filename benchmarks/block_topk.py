"""Block top-k decoding over a paged cache: `benchmarks.kernels.block_topk` against all pages and against SDPA.

The whole step is timed: scores of all pages, selection, attention. "attention alone" starts from chosen pages, "search
alone" ends with them, "all pages" is the same attention kernel over the whole cache. SDPA reads keys and values laid
out without pages, the group's heads as queries of one head, which is the least it can read. Keeping the mean key of
each page up to date, once every 16 tokens, is in none of them. Source: Sadhukhan et al., arXiv:2506.05333.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend

from benchmarks import sdpa
from benchmarks.kernels import block_topk as kernel
from benchmarks.kernels import paged_attention as paged
from benchmarks.operation import Bench, Case, Cost, Inputs, Outputs, Unsupported
from benchmarks.sdpa import BACKENDS, in_float64
from theory.operators.block_topk import PAGE, TOP, dense_bytes, sparse_bytes

GARBAGE = 100.0
"""What cached tokens hold that belong to no sequence."""


@dataclass(frozen=True)
class Decode(Case):
    """One query of each of `batch` sequences of `context` tokens; `ragged`: of lengths from context / batch on."""

    context: int
    batch: int = 1
    heads: int = 2
    key_heads: int = 1
    width: int = 64
    page: int = PAGE
    top: int = 4
    dtype: str = "float16"
    ragged: bool = False


def make(case: Decode, generator: Generator) -> Inputs:
    """Normal q, keys and values, without pages and in pages that lie in random order; mean keys; pages chosen."""
    dtype, device = getattr(torch, case.dtype), generator.device

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    pages = -(-case.context // case.page)
    order = torch.randperm(case.batch * pages, generator=generator, device=device)
    keys, values = (draw(case.batch, case.key_heads, case.context, case.width) for _ in range(2))
    at = torch.arange(case.batch, device=device)
    lengths = case.context * (at + 1) // case.batch if case.ragged else torch.full_like(at, case.context)
    k, v = (_paged(x, order, case.page) for x in (keys, values))
    inputs = {
        "q": draw(case.batch, case.heads, case.width), "k": k, "v": v,
        "means": k.mean(2, dtype=torch.float32).to(dtype),
        "table": order.view(case.batch, pages).int(), "lengths": lengths.int(), "top": case.top, "keys": keys,
        "values": values, "scale": case.width**-0.5, "ragged": case.ragged,
    }  # fmt: skip
    inputs["chosen"] = select(inputs)
    return inputs


def _paged(x: Tensor, order: Tensor, page: int) -> Tensor:
    """(batch, heads, tokens, width) as (physical pages, heads, page, width): the i-th page of all lies at order[i]."""
    batch, heads, tokens, width = x.shape
    padded = torch.nn.functional.pad(x, (0, 0, 0, -tokens % page), value=GARBAGE)
    cache = torch.empty(len(order), heads, page, width, dtype=x.dtype, device=x.device)
    cache[order] = padded.view(batch, heads, -1, page, width).transpose(1, 2).flatten(0, 1)
    return cache


def select(inputs: Inputs) -> tuple[Tensor, Tensor]:
    q, means, table, lengths = (inputs[name] for name in ("q", "means", "table", "lengths"))
    return kernel.select_pages(q, means, table, lengths, page=inputs["k"].shape[2], top=inputs["top"])


def attend(inputs: Inputs, table: Tensor, lengths: Tensor) -> Tensor:
    return paged.paged_attention(inputs["q"], inputs["k"], inputs["v"], table, lengths, scale=inputs["scale"])


def fast(inputs: Inputs) -> Outputs:
    pages, left = select(inputs)
    return {"pages": pages, "left": left, "o": attend(inputs, pages, left)}


Selected = tuple[Tensor, Tensor]


def plain(inputs: Inputs, change: Callable[[Tensor, Tensor], Selected] = lambda pages, left: (pages, left),
          query: Callable[[Tensor], Tensor] = lambda q: q) -> Outputs:  # fmt: skip
    """Pages by scores in float32 whatever the inputs' dtype: else two versions could choose others."""
    q, k, v, means, table, lengths = (inputs[name] for name in ("q", "k", "v", "means", "table", "lengths"))
    pages, left = change(*kernel.reference_selection(query(q), means, table, lengths, k.shape[2], inputs["top"]))
    o = paged.reference(q, k, v, pages, left, inputs["scale"])
    return {"pages": pages, "left": left, "o": o}


def reference(inputs: Inputs) -> Outputs:
    """In float64."""
    return plain(in_float64(inputs))


def cost(case: Decode) -> Cost:
    """2 D FLOP a page for its score, 4 D a token and head; bytes of mean keys, chosen pages, queries and outputs."""
    element = torch.finfo(getattr(torch, case.dtype)).bits // 8
    pages = -(-case.context // case.page)
    tokens = min(case.context, (case.top + 2) * case.page)
    each = sparse_bytes(case.context, case.width, top=case.top, page=case.page, element=element)
    flops = case.batch * case.width * (2 * case.key_heads * pages + 4 * case.heads * tokens)
    return Cost(flops, case.batch * (case.key_heads * each + 2 * case.heads * case.width * element))


def dense_cost(case: Decode) -> Cost:
    """Of attention to all pages."""
    element = torch.finfo(getattr(torch, case.dtype)).bits // 8
    flops = 4 * case.batch * case.heads * case.context * case.width
    read = case.key_heads * dense_bytes(case.context, case.width, element)
    return Cost(flops, case.batch * (read + 2 * case.heads * case.width * element))


# -- baselines ---------------------------------------------------------------------------------------------------------


def all_pages(inputs: Inputs) -> Outputs:
    return {"o": attend(inputs, inputs["table"], inputs["lengths"])}


def all_pages_chosen(inputs: Inputs) -> Outputs:
    """The whole step with a budget that covers the context: it can gain nothing."""
    return fast(inputs | {"top": max(0, inputs["table"].shape[1] - 2)})


def attention_alone(inputs: Inputs) -> Outputs:
    return {"o": attend(inputs, *inputs["chosen"])}


def search_alone(inputs: Inputs) -> Outputs:
    return dict(zip(("pages", "left"), select(inputs), strict=True))


def pinned(inputs: Inputs, backend: SDPBackend) -> Outputs:
    """SDPA with one backend.

    Raises:
        Unsupported: sequences of several lengths.
    """
    if inputs["ragged"]:
        raise Unsupported("SDPA has one length for all sequences")
    q = inputs["q"].unflatten(1, (inputs["keys"].shape[1], -1))
    return {"o": sdpa.attention(q, inputs["keys"], inputs["values"], backend, scale=inputs["scale"]).flatten(1, 2)}


# -- controls: what a broken kernel would return -----------------------------------------------------------------------


def one_token_less(pages: Tensor, left: Tensor) -> Selected:
    """The newest token is not seen."""
    return pages, left - 1


def last_page_dropped(pages: Tensor, left: Tensor) -> Selected:
    return pages, torch.where(left > PAGE, (left - 1) // PAGE * PAGE, left)


def second_page_twice(pages: Tensor, left: Tensor) -> Selected:
    """The first page is read where the second one should be."""
    return torch.cat([pages[..., :1], pages[..., :1], pages[..., 2:]], dim=-1), left


def first_head_alone(q: Tensor) -> Tensor:
    """Scores of one head of a group in place of all."""
    return torch.cat([q[:, :1], torch.zeros_like(q[:, 1:])], dim=1)


# -- cases -------------------------------------------------------------------------------------------------------------

CASES = [
    *(Decode(context) for context in (1, 15, 16, 17, 63, 64, 65, 200)),
    Decode(96, top=4),
    Decode(97, top=4),
    Decode(300, heads=5),
    Decode(300, heads=8, top=0),
    Decode(1100, heads=4, key_heads=2, batch=2, top=8),
    Decode(400, batch=5, heads=4, ragged=True),
    Decode(300, width=80, heads=3),
    Decode(300, width=128, page=32, batch=2),
    Decode(500, dtype="float32", top=7),
]
SPEED = [
    Decode(context, batch=batch, heads=heads, width=128, top=TOP, dtype="bfloat16")
    for context in (16_384, 32_768) for batch, heads in ((256, 2), (256, 4), (256, 5), (256, 8), (16, 8), (1, 8))
]  # fmt: skip

BENCH = Bench(
    name="block_topk",
    axis="context",
    make=make,
    reference=reference,
    plain=plain,
    fast=fast,
    cases=CASES,
    speed=SPEED,
    cost=cost,
    baselines={
        "all pages": all_pages,
        **{name: partial(pinned, backend=backend) for name, backend in BACKENDS.items()},
        "attention alone": attention_alone,
        "search alone": search_alone,
        "all pages chosen": all_pages_chosen,
    },
    controls={
        "newest token not seen": partial(plain, change=one_token_less),
        "last page dropped": partial(plain, change=last_page_dropped),
        "first page read twice": partial(plain, change=second_page_twice),
        "score of one head": partial(plain, query=first_head_alone),
    },
)
