"""Sparse-linear attention (SLA) in Triton: critical blocks of keys by softmax, the others by linear attention.

The map of blocks says for each block of queries which blocks of keys are critical (1), marginal (0) and negligible
(-1). One program a block of queries multiplies phi(Q_i) with the state H_i of its marginal blocks, then walks through
its critical blocks with an online softmax. The paper subtracts the states of all other blocks from the total; here the
map is a matrix of 0 and 1 and all H_i are one product [M = 0] h on tensor cores, h_j = phi(K_j)^T V_j: fewer bytes than
one block after another, and nothing cancels. Backward the same holds for the gradients of h_j. Two backward kernels,
one a block of queries and one a block of keys, walk through rows and columns of the map: nothing is added atomically,
two runs agree bitwise.

`linear` says which blocks the linear branch sees: "marginal" as the paper has it, "rest" all that are not critical (the
released branch SLA-1), "all" (the released main branch, there with 1e-5 in the denominator), "none".

Limits: float16 and bfloat16, head width and blocks powers of two from 16 to 128; else, and on a CPU,
`theory.operators.sla` answers with whole matrices. As many key heads as query heads. The map gets no gradient.
Source: Zhang et al., arXiv:2509.24006, algorithms 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.sla_map import block_map, listed, runs_here, tiles
from theory.operators import sla as theory

LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def _tile(x, batch, head, row, ROWS: tl.constexpr, D: tl.constexpr):
    """Rows (ROWS, D) of a head; zeros beyond its end."""
    return x.load([batch, head, row, 0]).reshape(ROWS, D)


@triton.jit
def _features(x, FEATURES: tl.constexpr):
    """phi of rows (R, D), float32."""
    x = x.to(tl.float32)
    if FEATURES == "softmax":
        e = tl.exp2((x - tl.max(x, 1)[:, None]) * LOG2_E)
        return e * (1 / tl.sum(e, 1))[:, None]
    if FEATURES == "elu":
        return tl.where(x > 0, x + 1, tl.exp2(tl.minimum(x, 0.0) * LOG2_E))
    return tl.maximum(x, 0.0)


@triton.jit
def _through_features(x, df, FEATURES: tl.constexpr):
    """Gradient of x (R, D) from that of phi(x)."""
    f = _features(x, FEATURES)
    if FEATURES == "softmax":
        return f * (df - tl.sum(f * df, 1)[:, None])
    if FEATURES == "elu":
        return df * tl.minimum(f, 1.0)
    return tl.where(x.to(tl.float32) > 0, df, 0.0)


@triton.jit
def _matrix(base, D: tl.constexpr):
    """Pointers to a contiguous (D, D)."""
    return base + tl.arange(0, D)[:, None] * D + tl.arange(0, D)[None, :]


@triton.jit
def _state(states, norms, at, D: tl.constexpr):
    """State (D, D) and its norm (D,) at a place."""
    columns = tl.arange(0, D)
    matrix = states + at.to(tl.int64) * D * D + columns[:, None] * D + columns[None, :]
    return matrix, norms + at * D + columns


@triton.jit
def _states(K, V, states, norms, keys, heads, D: tl.constexpr, N: tl.constexpr, FEATURES: tl.constexpr):
    """phi(K_j)^T V_j and phi(K_j)^T 1 over N of one block of keys: program (block, batch * heads).

    Over N so that sums of many blocks stay within float16; the quotient of the branch does not see it.
    """
    block, row = tl.program_id(0), tl.program_id(1)
    k = _tile(K, row // heads, row % heads, block * N, N, D)
    v = _tile(V, row // heads, row % heads, block * N, N, D)
    inside = block * N + tl.arange(0, N) < keys
    f = tl.where(inside[:, None], _features(k, FEATURES), 0.0).to(v.dtype)
    h, z = _state(states, norms, row * tl.num_programs(0) + block, D)
    tl.store(h, (tl.dot(tl.trans(f), v) * (1 / N)).to(states.dtype.element_ty))
    tl.store(z, tl.sum(f.to(tl.float32), 0) * (1 / N))


@triton.jit
def _forward(
    Q, K, V, Os, Ol, Lse, H, Z, lists, counts, scale, queries, keys, heads, key_blocks, state_rows,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, LINEAR: tl.constexpr, FEATURES: tl.constexpr,
    RAGGED: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Both branches of one block of queries: program (block, batch * heads), so that a head's keys stay in L2."""
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    q = _tile(Q, batch, head, block * M, M, D)
    if LINEAR:
        h, z = _state(H, Z, row * state_rows + block % state_rows, D)
        f = _features(q, FEATURES).to(q.dtype)
        total = tl.sum(f.to(tl.float32) * tl.load(z)[None, :], 1)
        o = tl.dot(f, tl.load(h)) * (1 / tl.where(total > 0, total, 1.0))[:, None]
        Ol.store([batch, head, block * M, 0], o.to(q.dtype).reshape(1, 1, M, D))
    top, norm, o = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.float32), tl.zeros((M, D), tl.float32)
    entry = lists + at * key_blocks
    for n in tl.range(tl.load(counts + at), num_stages=STAGES):
        start = tl.load(entry + n) * N
        k = _tile(K, batch, head, start, N, D)
        v = _tile(V, batch, head, start, N, D)
        s = tl.dot(q, tl.trans(k))
        if RAGGED:
            s = tl.where((start + tl.arange(0, N) < keys)[None, :], s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, 1) * (scale * LOG2_E))
        p = tl.exp2(s * (scale * LOG2_E) - higher[:, None])
        shrink = tl.exp2(top - higher)
        norm = norm * shrink + tl.sum(p, 1)
        o = tl.dot(p.to(v.dtype), v, o * shrink[:, None])
        top = higher
    norm = tl.where(norm > 0, norm, 1.0)  # a row without critical blocks: 0 / 1
    o = o * (1 / norm)[:, None]
    Os.store([batch, head, block * M, 0], o.to(q.dtype).reshape(1, 1, M, D))
    rows = block * M + tl.arange(0, M)
    tl.store(Lse + row * queries + rows, top + tl.log2(norm), mask=rows < queries)


@triton.jit
def _backward_queries(
    Q, K, V, Os, dOs, Ol, dOl, dQ, Lse, Delta, H, Z, dH, dZ, lists, counts, scale, queries, heads, key_blocks,
    state_rows, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, LINEAR: tl.constexpr, FEATURES: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """dQ, rowsum(dOs Os), dH_i and dZ_i of one block of queries: program (block, batch * heads).

    Keys beyond the end are zeros, so that what their dS is does not matter to dS K. H and Z are over N, as `_states`
    leaves them, hence dH and dZ times N.
    """
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    rows = block * M + tl.arange(0, M)
    q = _tile(Q, batch, head, block * M, M, D)
    dq = tl.zeros((M, D), tl.float32)
    if LINEAR:
        h, z = _state(H, Z, row * state_rows + block % state_rows, D)
        z = tl.load(z)[None, :]
        dh, dz = _state(dH, dZ, at, D)
        f = _features(q, FEATURES).to(q.dtype)
        total = tl.sum(f.to(tl.float32) * z, 1)
        each = 1 / tl.where(total > 0, total, 1.0)  # 0 only where H and Z are
        o, do = _tile(Ol, batch, head, block * M, M, D), _tile(dOl, batch, head, block * M, M, D)
        slope = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1) * each
        given = (do.to(tl.float32) * each[:, None]).to(q.dtype)
        tl.store(dh, tl.dot(tl.trans(f), given).to(dH.dtype.element_ty))
        tl.store(dz, -tl.sum(f.to(tl.float32) * slope[:, None], 0))
        dq = _through_features(q, tl.dot(given, tl.trans(tl.load(h))) - slope[:, None] * z, FEATURES) * (1 / scale)
    o, do = _tile(Os, batch, head, block * M, M, D), _tile(dOs, batch, head, block * M, M, D)
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(Delta + row * queries + rows, delta, mask=rows < queries)
    lse = tl.load(Lse + row * queries + rows, mask=rows < queries, other=0.0)
    entry = lists + at * key_blocks
    for n in tl.range(tl.load(counts + at), num_stages=STAGES):
        start = tl.load(entry + n) * N
        k = _tile(K, batch, head, start, N, D)
        v = _tile(V, batch, head, start, N, D)
        p = tl.exp2(tl.dot(q, tl.trans(k)) * (scale * LOG2_E) - lse[:, None])
        dS = p * (tl.dot(do, tl.trans(v)) - delta[:, None])
        dq = tl.dot(dS.to(k.dtype), k, dq)
    dQ.store([batch, head, block * M, 0], (dq * scale).to(q.dtype).reshape(1, 1, M, D))


@triton.jit
def _backward_keys(
    Q, K, V, dOs, dK, dV, Lse, Delta, G, g, lists, counts, scale, queries, heads, query_blocks, state_rows,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, STEP: tl.constexpr, LINEAR: tl.constexpr,
    FEATURES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys, STEP queries at a time: program (block, batch * heads)."""
    block, row = tl.program_id(0), tl.program_id(1)
    batch, head, at = row // heads, row % heads, row * tl.num_programs(0) + block
    k, v = _tile(K, batch, head, block * N, N, D), _tile(V, batch, head, block * N, N, D)
    dk, dv = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32)
    if LINEAR:  # before the loop: after it, the compiler would no longer overlap the loop's products
        G_j, g_j = _state(G, g, row * state_rows + block % state_rows, D)
        G_j = tl.load(G_j)
        dv = tl.dot(_features(k, FEATURES).to(G_j.dtype), G_j) * (1 / N)
        df = tl.dot(v, tl.trans(G_j)) + tl.load(g_j)[None, :]
        dk = _through_features(k, df, FEATURES) * (1 / (N * scale))
    entry = lists + at * query_blocks
    for n in tl.range(tl.load(counts + at) * (M // STEP), num_stages=STAGES):
        start = tl.load(entry + n // (M // STEP)) * M + n % (M // STEP) * STEP
        rows = start + tl.arange(0, STEP)
        q, do = _tile(Q, batch, head, start, STEP, D), _tile(dOs, batch, head, start, STEP, D)
        lse = tl.load(Lse + row * queries + rows, mask=rows < queries, other=float("inf"))
        delta = tl.load(Delta + row * queries + rows, mask=rows < queries, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(q)) * (scale * LOG2_E) - lse[None, :])
        dv = tl.dot(p.to(do.dtype), do, dv)
        dS = p * (tl.dot(v, tl.trans(do)) - delta[None, :])
        dk = tl.dot(dS.to(q.dtype), q, dk)
    dK.store([batch, head, block * N, 0], (dk * scale).to(k.dtype).reshape(1, 1, N, D))
    dV.store([batch, head, block * N, 0], dv.to(k.dtype).reshape(1, 1, N, D))


# -- the operator ------------------------------------------------------------------------------------------------------


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
    added = torch.addmm(sparse.flatten(0, 2), linear.flatten(0, 2), weight.mT)
    return (added + bias).view_as(q)


def _check(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, form: theory.Form) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dim() != 4:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: give (batch, heads, length, width)")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(f"{name} is {x.dtype} on {x.device}, q {q.dtype} on {q.device}: bring them together")
        if not x.is_floating_point():
            raise ValueError(f"{name} is {x.dtype}: give bfloat16, float16, float32 or float64")
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """O^s, O^l, and what the backward pass needs: log2 of the sums of exponentials, H and Z."""
    sparse, branch, lse, H, Z = _kept(q, blocks, linear)
    if not runs_here(q, query_block, key_block):
        form = theory.Form(query_block, key_block, linear, features, scale)
        return *theory.branches(q, k, v, blocks, form), lse.zero_(), H.zero_(), Z.zero_()
    keys, heads, width = k.shape[2], q.shape[1], q.shape[3]
    tiles_k, tiles_v = tiles(k, key_block), tiles(v, key_block)
    if linear == "none":
        branch.zero_()
    else:
        states, norms = _room(k, blocks.shape[3])
        _states[(blocks.shape[3], q.shape[0] * heads)](
            tiles_k, tiles_v, states, norms, keys, heads, D=width, N=key_block, FEATURES=features, num_warps=8
        )
        H, Z = _summed(_seen(blocks, linear), states, norms)
    lists, counts = listed(blocks)
    _forward[(blocks.shape[2], q.shape[0] * heads)](
        tiles(q, query_block), tiles_k, tiles_v, tiles(sparse, query_block), tiles(branch, query_block), lse, H, Z,
        lists, counts, scale, q.shape[2], keys, heads, blocks.shape[3], H.shape[2], D=width, M=query_block, N=key_block,
        LINEAR=linear != "none", FEATURES=features, RAGGED=keys % key_block != 0, **FORWARD,
    )  # fmt: skip
    return sparse, branch, lse, H, Z


@torch.library.custom_op("attest::sla_backward", mutates_args=())
def _backward(
    dOs: Tensor, dOl: Tensor, q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, sparse: Tensor, branch: Tensor,
    lse: Tensor, H: Tensor, Z: Tensor, query_block: int, key_block: int, linear: str, features: str, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    if not runs_here(q, query_block, key_block):
        form = theory.Form(query_block, key_block, linear, features, scale)
        dq, dk, dv = theory.gradients(q, k, v, blocks, dOs, dOl, form)
        return dq, dk, dv
    dq, dk, dv = _like(q), _like(k), _like(v)
    delta, (rows, columns), heads, width = torch.empty_like(lse), blocks.shape[2:], q.shape[1], q.shape[3]
    dH, dZ = _room(q, rows if linear != "none" else 0)
    common = {"D": width, "M": query_block, "N": key_block, "LINEAR": linear != "none", "FEATURES": features}
    _backward_queries[(rows, q.shape[0] * heads)](
        tiles(q, query_block), tiles(k, key_block), tiles(v, key_block), tiles(sparse, query_block),
        tiles(dOs, query_block), tiles(branch, query_block), tiles(dOl, query_block), tiles(dq, query_block), lse,
        delta, H, Z, dH, dZ, *listed(blocks), scale, q.shape[2], heads, columns, H.shape[2], **common, **QUERIES,
    )  # fmt: skip
    G, g = (dH, dZ) if linear == "none" else _summed(_seen(blocks.mT, linear), dH, dZ)
    step = min(query_block, STEP)
    _backward_keys[(columns, q.shape[0] * heads)](
        tiles(q, step), tiles(k, key_block), tiles(v, key_block), tiles(dOs, step), tiles(dk, key_block),
        tiles(dv, key_block), lse, delta, G, g, *listed(blocks, columns=True), scale, q.shape[2], heads, rows,
        G.shape[2], STEP=step, **common, **KEYS,
    )  # fmt: skip
    return dq, dk, dv


LINEAR = ("marginal", "rest", "all", "none")
FORWARD, QUERIES, KEYS = {"num_warps": 8, "STAGES": 3}, {"num_warps": 8, "STAGES": 2}, {"num_warps": 8, "STAGES": 2}
STEP = 64


def _seen(blocks: Tensor, linear: str) -> Tensor:
    """What the linear branch sees of the map; one row for all where it sees everything."""
    return torch.ones_like(blocks[:, :, :1]) if linear == "all" else theory.linear_mask(blocks, linear)


def _summed(seen: Tensor, states: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of states (batch, heads, T, D, D) and of norms (batch, heads, T, D) over the places that a row sees."""
    H = seen.to(states.dtype) @ states.flatten(3)
    return H.unflatten(3, states.shape[3:]), seen.float() @ norms


def _room(x: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """States (batch, heads, places, D, D) and norms (batch, heads, places, D), not written."""
    states = torch.empty((*x.shape[:2], places, x.shape[3], x.shape[3]), dtype=x.dtype, device=x.device)
    return states, torch.empty(states.shape[:-1], dtype=torch.float32, device=x.device)


def _kept(q: Tensor, blocks: Tensor, linear: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator's outputs, not written."""
    sparse, branch = _like(q), _like(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    return sparse, branch, lse, *_room(q, {"all": 1, "none": 0}.get(linear, blocks.shape[2]))


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
