"""Sparse-linear attention (SLA): critical blocks of keys by softmax, marginal ones by linear attention, the rest not.

    q, k, v  (..., n, d), (..., m, d), (..., m, d)   queries, keys, values
    blocks   (..., T_m, T_n) int8                    the map: 1 critical, 0 marginal, -1 negligible
    O^s, O^l (..., n, d)                             outputs of the two branches; the layer adds O^s + Proj(O^l)

T_m = ceil(n / b_q) blocks of `query_block` queries, T_n = ceil(m / b_kv) blocks of `key_block` keys; the last of each
may be shorter. Arrays follow the array-API standard. The map gets no gradient. phi acts on the feature axis: softmax,
elu + 1 or ReLU. Source: Zhang et al., arXiv:2509.24006, section 4; `linear` says whose operator it is: the paper's
("marginal"), the released branch SLA-1 ("rest": all that is not critical), the released main branch ("all", there with
1e-5 added to the denominator), or no linear branch ("none").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import array_namespace

from theory.operators.attention import (
    elu_plus_one,
    masked,
    normalised,
    relu_map,
    scores,
    softmax_rows,
    total,
    transpose,
)

Array = Any
Linear = Literal["marginal", "rest", "all", "none"]
Features = Literal["softmax", "elu", "relu"]
FEATURES: dict[str, Callable[[Array], Array]] = {"softmax": softmax_rows, "elu": elu_plus_one, "relu": relu_map}


@dataclass(frozen=True)
class Form:
    """What an operator of the family is made of: block sizes, which blocks the linear branch sees, phi, 1 / sqrt(d)."""

    query_block: int
    key_block: int
    linear: str = "marginal"
    features: str = "softmax"
    scale: float | None = None


# -- the map -----------------------------------------------------------------------------------------------------------


def pool(x: Array, block: int) -> Array:
    """Mean of each block of rows, (..., ceil(n / block), d); the last block is divided by its own length."""
    xp = array_namespace(x)
    parts = [x[..., at : at + block, :] for at in range(0, x.shape[-2], block)]
    return xp.stack([xp.mean(part, axis=-2) for part in parts], axis=-2)


def count(share: float, blocks: int) -> int:
    """Blocks of a row that a share stands for: floor, as released."""
    return min(blocks, int(share * blocks))


def classify(pooled: Array, high: int, low: int) -> Array:
    """The map from scores of blocks (..., T_m, T_n): a row's `high` highest are 1, its `low` lowest -1; ties go to the
    earlier block, and where high + low exceeds T_n critical goes first."""
    xp = array_namespace(pooled)
    order = xp.argsort(pooled, axis=-1, descending=True, stable=True)
    rank = xp.argsort(order, axis=-1, stable=True)
    kinds = xp.zeros_like(rank, dtype=xp.int8)
    kinds = xp.where(rank >= pooled.shape[-1] - low, kinds - 1, kinds)
    return xp.where(rank < high, xp.ones_like(kinds), kinds)


def block_map(q: Array, k: Array, *, query_block: int, key_block: int, high: float, low: float) -> Array:
    """The map from products of pooled queries and keys; high and low are k_h and k_l as shares of T_n."""
    pooled = pool(q, query_block) @ transpose(pool(k, key_block))
    return classify(pooled, count(high, pooled.shape[-1]), count(low, pooled.shape[-1]))


def spread(blocks: Array, n: int, m: int, form: Form) -> Array:
    """The map of blocks as a map of queries and keys, (..., n, m)."""
    xp = array_namespace(blocks)
    device = {} if isinstance(blocks.device, str) else {"device": blocks.device}
    rows = xp.take(blocks, xp.arange(n, **device) // form.query_block, axis=-2)
    return xp.take(rows, xp.arange(m, **device) // form.key_block, axis=-1)


def linear_mask(kinds: Array, linear: str) -> Array:
    """Which entries of a map the linear branch sees, bool."""
    if linear == "marginal":
        return kinds == 0
    return kinds != 1 if linear == "rest" else (kinds == kinds) & (linear == "all")


# -- the operator and its gradients, with whole matrices ---------------------------------------------------------------


def weights(q: Array, k: Array, blocks: Array, form: Form) -> tuple[Array, Array]:
    """Weights of both branches, (..., n, m) each; rows sum to 1, or are 0 where a branch sees nothing."""
    kinds = spread(blocks, q.shape[-2], k.shape[-2], form)
    phi = FEATURES[form.features]
    sparse = softmax_rows(scores(q, k, scale=form.scale), kinds == 1)
    return sparse, normalised(masked(phi(q) @ transpose(phi(k)), linear_mask(kinds, form.linear), 0.0))


def branches(q: Array, k: Array, v: Array, blocks: Array, form: Form) -> tuple[Array, Array]:
    """O^s and O^l."""
    sparse, linear = weights(q, k, blocks, form)
    return sparse @ v, linear @ v


def gradients(
    q: Array, k: Array, v: Array, blocks: Array, dOs: Array, dOl: Array, form: Form, *, through_norm: bool = True
) -> tuple[Array, ...]:
    """dQ, dK, dV from the gradients of both outputs, by the paper's formulas: section 4, backward pass.

    Written with whole matrices in place of H_i and Z_i: phi(Q) H / (phi(Q) Z) is A V with A the weights of the branch.
    Without `through_norm` the denominators phi(Q) Z count as constants, which is wrong: dZ is left out.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if form.scale is None else form.scale
    phi = FEATURES[form.features]
    P, A = weights(q, k, blocks, form)
    dS = P * (dOs @ transpose(v) - total(dOs * (P @ v))) * scale
    seen = linear_mask(spread(blocks, q.shape[-2], k.shape[-2], form), form.linear)
    norm = total(masked(phi(q) @ transpose(phi(k)), seen, 0.0))
    inverse = normalised(array_namespace(norm).ones_like(norm), norm) * (norm != 0)
    slope = total(dOl * (A @ v)) * through_norm
    dA = masked((dOl @ transpose(v) - slope) * inverse, seen, 0.0)  # of phi(q) phi(k)^T
    dq = dS @ k + through(q, dA @ phi(k), form.features)
    dk = transpose(dS) @ q + through(k, transpose(dA) @ phi(q), form.features)
    return dq, dk, transpose(P) @ dOs + transpose(A) @ dOl


def through(x: Array, df: Array, features: str) -> Array:
    """Gradient of x from that of phi(x)."""
    xp, f = array_namespace(x), FEATURES[features](x)
    if features == "softmax":
        return f * (df - total(f * df))
    return df * xp.clip(f, None, 1.0) if features == "elu" else xp.where(x > 0, df, xp.zeros_like(df))


# -- the algorithm, block by block, one head ---------------------------------------------------------------------------


def online(state: tuple[Array, Array, Array], s: Array, v: Array) -> tuple[Array, Array, Array]:
    """Maximum, sum of exponentials and unnormalised output of each row after one more block of scores and values."""
    top, norm, out = state
    xp = array_namespace(s)
    higher = xp.maximum(top, xp.max(s, axis=-1))
    shrink, p = xp.exp(top - higher), xp.exp(s - higher[:, None])
    return higher, norm * shrink + xp.sum(p, axis=-1), out * shrink[:, None] + p @ v


def algorithm(
    q: Array, k: Array, v: Array, blocks: Array, form: Form, step: Callable[..., tuple[Array, Array, Array]] = online
) -> tuple[Array, Array]:
    """O^s and O^l of one head by the paper's algorithm 1: an online softmax over critical blocks, states of the others.

    blocks (T_m, T_n); q (n, d), k and v (m, d).
    """
    xp, phi = array_namespace(q), FEATURES[form.features]
    starts = range(0, k.shape[0], form.key_block)
    parts = [(k[at : at + form.key_block, :], v[at : at + form.key_block, :]) for at in starts]
    states = [(transpose(phi(kj)) @ vj, xp.sum(phi(kj), axis=0)) for kj, vj in parts]
    sparse, linear = [], []
    for i in range(blocks.shape[0]):
        qi = q[i * form.query_block : (i + 1) * form.query_block, :]
        state = (xp.full_like(qi[:, 0], -math.inf), xp.zeros_like(qi[:, 0]), xp.zeros_like(qi @ transpose(qi) @ qi))
        H, Z = xp.zeros_like(states[0][0]), xp.zeros_like(states[0][1])
        for j, (kj, vj) in enumerate(parts):
            if blocks[i, j] == 1:
                state = step(state, scores(qi, kj, scale=form.scale), vj)
            if linear_mask(blocks[i : i + 1, j : j + 1], form.linear)[0, 0]:
                H, Z = H + states[j][0], Z + states[j][1]
        sparse.append(normalised(state[2], state[1][:, None]))
        linear.append(normalised(phi(qi) @ H, (phi(qi) @ Z)[:, None]))
    return xp.concat(sparse, axis=0), xp.concat(linear, axis=0)


def aggregate(states: Array, seen: Array, *, subtract: bool = False) -> Array:
    """Sum of the states (T_n, ...) of the blocks seen (T_n,) bool: added, or as the total less all others."""
    xp = array_namespace(states)
    if not subtract:
        return xp.sum(states[seen, ...], axis=0)
    return xp.sum(states, axis=0) - xp.sum(states[~seen, ...], axis=0)


# -- what it costs -----------------------------------------------------------------------------------------------------


def dense_flops(n: int, d: int) -> int:
    """Both products of full attention, one head: 4 n^2 d."""
    return 4 * n * n * d


def linear_flops(n: int, d: int, products: int = 2) -> int:
    """phi(K)^T V and phi(Q) H, 2 n d^2 each."""
    return 2 * products * n * d * d
