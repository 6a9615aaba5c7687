"""Sparse-linear attention (SLA) in Triton: critical blocks of keys by softmax, the others by linear attention.

The map of blocks says for each block of queries which blocks of keys are critical (1), marginal (0) and negligible
(-1). One program a block of queries walks through its critical blocks with an online softmax, another multiplies
phi(Q_i) with the state H_i of its marginal blocks. The paper subtracts the states of all other blocks from the total;
here the map is a matrix of 0 and 1 and all H_i are one product [M = 0] h on tensor cores, h_j = phi(K_j)^T V_j: fewer
bytes than one block after another, and nothing cancels. Backward the same holds for the gradients of h_j. Two backward
kernels, one a block of queries and one a block of keys, walk through rows and columns of the map: nothing is added
atomically, two runs agree bitwise.

`linear` says which blocks the linear branch sees: "marginal" as the paper has it, "rest" all that are not critical (the
released branch SLA-1), "all" (the released main branch, there with 1e-5 in the denominator), "none".

Limits: float16 and bfloat16, head width and blocks powers of two from 16 to 128; else, and on a CPU,
`theory.operators.sla` answers with whole matrices. As many key heads as query heads. The map gets no gradient.
Source: Zhang et al., arXiv:2509.24006, algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from benchmarks.kernels.arguments import check_attention, is_hopper
from benchmarks.kernels.sla_blocks import backward_keys, backward_queries, branch, forward, key_states
from benchmarks.kernels.sla_map import block_map, listed, runs_here, tiles
from theory.operators import sla as theory

LINEAR = ("marginal", "rest", "all", "none")
FORWARD, QUERIES, KEYS = {"num_warps": 8, "STAGES": 3}, {"num_warps": 8, "STAGES": 2}, {"num_warps": 4, "STAGES": 2}
STATES, BRANCH = {"num_warps": 8, "maxnreg": 128, "EACH": 4}, {"num_warps": 8}
STEP = 32
"""Queries at a time in `backward_keys`: with so few, two programs share a multiprocessor."""


def sla(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, form: theory.Form) -> tuple[Tensor, Tensor]:
    """Outputs of both branches, O^s and O^l, with gradients; usable under `torch.compile`.

    Args:
        q: (batch, heads, queries, D), bfloat16 or float16 on a GPU; else a slow path answers.
        k, v: (batch, heads, keys, D).
        blocks: the map, (batch, heads, blocks of queries, blocks of keys) int8, as `block_map` gives it.
        form: block sizes, what the linear branch sees, phi, scale.

    Returns:
        (batch, heads, queries, D) each, in the dtype of q; rows of a branch that sees nothing are 0.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; the message says which.
    """
    _check(q, k, v, blocks, form)
    scale = q.shape[-1] ** -0.5 if form.scale is None else form.scale
    sparse, linear, *_ = _operator(q, k, v, blocks, form.query_block, form.key_block, form.linear, form.features, scale)
    return sparse, linear


def layer(
    q: Tensor, k: Tensor, v: Tensor, weight: Tensor, bias: Tensor, form: theory.Form, *, high: float, low: float
) -> Tensor:
    """The whole layer: map, both branches, and O^s + O^l W^T + b.

    weight (D, D) and bias (D,) are the projection, in the dtype of q; high and low are k_h and k_l as shares.
    """
    with torch.no_grad():
        blocks = block_map(q, k, query_block=form.query_block, key_block=form.key_block, high=high, low=low)
    sparse, linear = sla(q, k, v, blocks, form)
    return sparse + torch.nn.functional.linear(linear, weight, bias)


def _check(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, form: theory.Form) -> None:
    check_attention(q, k, v)
    if k.shape != v.shape or k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: give equal batch, heads, width")
    if min(q.numel(), k.numel()) == 0:
        raise ValueError(f"q {tuple(q.shape)} and k {tuple(k.shape)}: an empty sequence has no blocks")
    wanted = (*q.shape[:2], triton.cdiv(q.shape[2], form.query_block), triton.cdiv(k.shape[2], form.key_block))
    if blocks.shape != wanted or blocks.dtype != torch.int8 or blocks.device != q.device:
        raise ValueError(f"map is {blocks.dtype} {tuple(blocks.shape)} on {blocks.device}: give int8 {wanted} beside q")
    for name, chosen, known in (("linear", form.linear, LINEAR), ("features", form.features, (*theory.FEATURES,))):
        if chosen not in known:
            raise ValueError(f"{name} is {chosen!r}: give one of {', '.join(known)}")


@torch.library.custom_op("attest::sla", mutates_args=())
def _operator(
    q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, query_block: int, key_block: int, linear: str, features: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """O^s, O^l, and what the backward pass needs: log2 of the sums of exponentials, and H with Z."""
    if not runs_here(q, query_block, key_block):
        form = theory.Form(query_block, key_block, linear, features, scale)
        return *theory.branches(q, k, v, blocks, form), *(x.zero_() for x in _kept(q, blocks, linear)[2:])
    sparse, lse = _sparse(q, k, v, blocks, query_block, key_block, scale)
    other, H = _linear(q, k, v, blocks, query_block, key_block, linear, features)
    return sparse, other, lse, H


def _sparse(
    q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, query_block: int, key_block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """O^s, and log2 of the sums of exponentials."""
    lists, counts = listed(blocks)
    if is_hopper(q):
        from benchmarks.kernels import sla_hopper

        if sla_hopper.supported(q, k, v, query_block, key_block):
            return sla_hopper.forward(q, k, v, lists, counts, scale)
    sparse, lse, keys, heads = _like(q), _sums(q), k.shape[2], q.shape[1]
    forward[(blocks.shape[2], q.shape[0] * heads)](
        tiles(q, query_block), tiles(k, key_block), tiles(v, key_block), tiles(sparse, query_block), lse, lists, counts,
        scale, q.shape[2], keys, heads, blocks.shape[3], D=q.shape[3], M=query_block, N=key_block,
        RAGGED=keys % key_block != 0, **FORWARD,
    )  # fmt: skip
    return sparse, lse


def _linear(
    q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, query_block: int, key_block: int, linear: str, features: str
) -> tuple[Tensor, Tensor]:
    """O^l, and H with Z."""
    other, columns, programs = _like(q), blocks.shape[3], q.shape[0] * q.shape[1]
    if linear == "none":
        return other.zero_(), _room(q, 0)
    known: dict[str, Any] = {"D": q.shape[3], "FEATURES": features}
    states = _room(k, columns)
    key_states[(triton.cdiv(columns, STATES["EACH"]), programs)](
        tiles(k, key_block),
        tiles(v, key_block),
        states,
        k.shape[2],
        q.shape[1],
        columns,
        N=key_block,
        **known,
        **STATES,
    )
    H = _summed(_seen(blocks, linear), states)
    branch[(blocks.shape[2], programs)](
        tiles(q, query_block), tiles(other, query_block), H, q.shape[1], H.shape[2], M=query_block, **known, **BRANCH
    )
    return other, H


@torch.library.custom_op("attest::sla_backward", mutates_args=())
def _backward(
    dOs: Tensor, dOl: Tensor, q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, sparse: Tensor, other: Tensor,
    lse: Tensor, H: Tensor, query_block: int, key_block: int, linear: str, features: str, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if not runs_here(q, query_block, key_block):
        form = theory.Form(query_block, key_block, linear, features, scale)
        dq, dk, dv = theory.gradients(q, k, v, blocks, dOs, dOl, form)
        return dq, dk, dv
    dq, dk, dv = _like(q), _like(k), _like(v)
    delta, (rows, columns), heads, width = torch.empty_like(lse), blocks.shape[2:], q.shape[1], q.shape[3]
    dH = _room(q, rows if linear != "none" else 0)
    common = {"D": width, "M": query_block, "N": key_block, "LINEAR": linear != "none", "FEATURES": features}
    backward_queries[(rows, q.shape[0] * heads)](
        tiles(q, query_block), tiles(k, key_block), tiles(v, key_block), tiles(sparse, query_block),
        tiles(dOs, query_block), tiles(other, query_block), tiles(dOl, query_block), tiles(dq, query_block), lse,
        delta, H, dH, *listed(blocks), scale, q.shape[2], heads, columns, H.shape[2], **common, **QUERIES,
    )  # fmt: skip
    G = dH if linear == "none" else _summed(_seen(blocks.mT, linear), dH)
    step = min(query_block, STEP)
    backward_keys[(columns, q.shape[0] * heads)](
        tiles(q, step), tiles(k, key_block), tiles(v, key_block), tiles(dOs, step), tiles(dk, key_block),
        tiles(dv, key_block), lse, delta, G, *listed(blocks, columns=True), scale, q.shape[2], heads, rows,
        G.shape[2], STEP=step, **common, **KEYS,
    )  # fmt: skip
    return dq, dk, dv


def _seen(blocks: Tensor, linear: str) -> Tensor:
    """What the linear branch sees of the map; one row for all where it sees everything."""
    return torch.ones_like(blocks[:, :, :1]) if linear == "all" else theory.linear_mask(blocks, linear)


def _summed(seen: Tensor, states: Tensor) -> Tensor:
    """Sums of states (batch, heads, T, D + 1, D) over the places that a row sees; float32 within, as products are."""
    return (seen.to(states.dtype) @ states.flatten(3)).unflatten(3, states.shape[3:])


def _room(x: Tensor, places: int) -> Tensor:
    """States with their norms, (batch, heads, places, D + 1, D), not written."""
    return torch.empty((*x.shape[:2], places, x.shape[3] + 1, x.shape[3]), dtype=x.dtype, device=x.device)


def _sums(q: Tensor) -> Tensor:
    """A number a query, float32, not written."""
    return torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


def _kept(q: Tensor, blocks: Tensor, linear: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator's outputs, not written."""
    return _like(q), _like(q), _sums(q), _room(q, {"all": 1, "none": 0}.get(linear, blocks.shape[2]))


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, blocks, *ctx.rest = inputs
    ctx.save_for_backward(q, k, v, blocks, *output)


def _differentiate(ctx: Any, dOs: Tensor, dOl: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return *_backward(dOs, dOl, *ctx.saved_tensors, *ctx.rest), None, None, None, None, None, None


_operator.register_fake(lambda q, k, v, blocks, query_block, key_block, linear, *_: _kept(q, blocks, linear))
_backward.register_fake(lambda dOs, dOl, q, k, v, *_: (_like(q), _like(k), _like(v)))
_operator.register_autograd(_differentiate, setup_context=_keep)
