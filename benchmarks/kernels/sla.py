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

-- measured; written by `python -m benchmarks.docstrings` --
Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0; a square matrix product reaches 785 TFLOP/s, a copy 4.22
    TB/s.
Measured: high=5 linear=marginal queries=65536: 3.17 ms, 8.32e+03 TFLOP/s with 6.0% of that work done, 1059% of the
    ceiling; SDPA/flash takes 24.89 times as long [24.02, 26.16], SDPA/cudnn takes 12.56 times as long [12.19, 13.42],
    with map and projection takes 1.51 times as long [1.43, 1.56].
Measured: high=5 linear=marginal backward queries=65536: 10.6 ms, 6.21e+03 TFLOP/s with 6.0% of that work done, 791% of
    the ceiling; SDPA/flash takes 20.14 times as long [19.69, 20.24], SDPA/cudnn takes 11.31 times as long [11.06,
    11.49].
Measured: high=10 linear=marginal queries=32768: 1.66 ms, 3.98e+03 TFLOP/s with 11.1% of that work done, 507% of the
    ceiling; SDPA/flash takes 12.38 times as long [12.31, 12.43], SDPA/cudnn takes 5.95 times as long [5.83, 6.03],
    with map and projection takes 1.31 times as long [1.28, 1.32].
Measured: high=20 linear=marginal queries=32768: 2.85 ms, 2.32e+03 TFLOP/s with 21.1% of that work done, 295% of the
    ceiling; SDPA/flash takes 7.18 times as long [7.12, 7.23], SDPA/cudnn takes 3.47 times as long [3.42, 3.50], with
    map and projection takes 1.16 times as long [1.14, 1.17].
Measured: high=100 linear=marginal queries=32768: 12.4 ms, 532 TFLOP/s with 101.2% of that work done, 68% of the
    ceiling; SDPA/flash takes 1.67 times as long [1.65, 1.68], SDPA/cudnn takes 0.81 times as long [0.80, 0.82], with
    map and projection takes 1.03 times as long [1.02, 1.04].
Measured: high=10 linear=marginal backward queries=32768: 5.22 ms, 3.16e+03 TFLOP/s with 11.1% of that work done, 402%
    of the ceiling; SDPA/flash takes 10.76 times as long [10.43, 11.31], SDPA/cudnn takes 5.31 times as long [5.25,
    5.67].
Measured: high=20 linear=marginal backward queries=32768: 9.49 ms, 1.74e+03 TFLOP/s with 21.1% of that work done, 221%
    of the ceiling; SDPA/flash takes 6.01 times as long [5.76, 6.25], SDPA/cudnn takes 2.95 times as long [2.89, 3.13].
Measured: high=100 linear=marginal backward queries=32768: 53.9 ms, 306 TFLOP/s with 101.2% of that work done, 39% of
    the ceiling; SDPA/flash takes 1.08 times as long [1.00, 1.09], SDPA/cudnn takes 0.52 times as long [0.51, 0.55].
Measured: high=5 linear=none queries=32768: 0.668 ms, 9.88e+03 TFLOP/s with 4.9% of that work done, 1259% of the
    ceiling; SDPA/flash takes 30.65 times as long [30.33, 30.88], SDPA/cudnn takes 14.61 times as long [14.38, 14.90],
    with map and projection takes 1.78 times as long [1.75, 1.81].
Measured: high=5 linear=all queries=32768: 0.994 ms, 6.63e+03 TFLOP/s with 6.1% of that work done, 845% of the ceiling;
    SDPA/flash takes 20.69 times as long [20.52, 20.84], SDPA/cudnn takes 10.01 times as long [9.88, 10.11], with map
    and projection takes 1.53 times as long [1.50, 1.55].
Measured: high=5 linear=rest queries=32768: 1.04 ms, 6.32e+03 TFLOP/s with 6.1% of that work done, 805% of the ceiling;
    SDPA/flash takes 19.64 times as long [19.54, 19.77], SDPA/cudnn takes 9.40 times as long [9.22, 9.48], with map and
    projection takes 1.49 times as long [1.47, 1.51].
Measured: high=5 linear=none backward queries=32768: 2.53 ms, 6.51e+03 TFLOP/s with 4.9% of that work done, 829% of the
    ceiling; SDPA/flash takes 22.89 times as long [21.45, 23.20], SDPA/cudnn takes 11.43 times as long [10.78, 11.73].
Measured: high=5 linear=all backward queries=32768: 2.92 ms, 5.65e+03 TFLOP/s with 6.1% of that work done, 720% of the
    ceiling; SDPA/flash takes 19.13 times as long [18.67, 20.11], SDPA/cudnn takes 9.50 times as long [9.35, 10.02].
Measured: high=5 linear=rest backward queries=32768: 3.06 ms, 5.4e+03 TFLOP/s with 6.1% of that work done, 687% of the
    ceiling; SDPA/flash takes 18.33 times as long [17.81, 19.27], SDPA/cudnn takes 9.13 times as long [8.92, 9.74].
-- end of what was measured --
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
