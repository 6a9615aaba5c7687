"""Sigmoid attention a block of keys at a time, forward and backward: what a fused kernel computes, in float64.

With scores s_ij, weights P_ij = sigma(s_ij + b) and the gradient dO of the output O = P V,

    dV = P^T dO,   dS = P (1 - P) (dO V^T),   dQ = scale dS K,   dK = scale dS^T Q.

No block needs what another computed: there is no row maximum, no row sum, and no row term in dS. Softmax has
dS = P (dO V^T - rowsum(dO O)), for which its kernels keep the rows' log-sum-exp. Source: Ramapuram et al.,
arXiv:2409.04431, appendix F.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from theory.operators.attention import sigmoid

Weights = Callable[..., np.ndarray]


def forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, blocks: Sequence[slice], weights: Weights, **given: np.ndarray
) -> np.ndarray:
    """O (n, d) as the sum over blocks of keys; q (n, d), k and v (m, d).

    Args:
        blocks: of keys, in the order in which they are added.
        weights: (q, keys of a block, mask=, bias=) to (n, block).
        **given: mask and bias (n, m), where there are any.
    """
    output = np.zeros((len(q), v.shape[1]))
    for block in blocks:
        output += weights(q, k[block], **_columns(given, block)) @ v[block]
    return output


def backward(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    do: np.ndarray,
    blocks: Sequence[slice],
    weights: Weights,
    **given: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dQ (n, d), dK and dV (m, d), a block of keys at a time, for scale 1 / sqrt(d)."""
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for block in blocks:
        P = weights(q, k[block], **_columns(given, block))
        dS = P * (1 - P) * (do @ v[block].T) / np.sqrt(q.shape[-1])
        dq, dk[block], dv[block] = dq + dS @ k[block], dS.T @ q, P.T @ do
    return dq, dk, dv


def with_offset(offset: float) -> Weights:
    """The operator of `theory.operators.attention` with b fixed: a block cannot know how many keys there are."""
    return lambda q, k, **given: sigmoid(q, k, offset=offset, **given)


def _columns(given: dict[str, np.ndarray], block: slice) -> dict[str, np.ndarray]:
    return {name: matrix[:, block] for name, matrix in given.items()}
