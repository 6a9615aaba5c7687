"""The positional Transformer in float64, with weights that can be written by hand, and what bounds it.

A layer maps tokens X (n, d) to Phi([A^1 X V^1, ..., A^H X V^H, X]), where A^h = softmax(P Q^h (P K^h)^T / sqrt(d_k))
does not depend on X, and Phi is a ReLU network that acts on each token alone. The same P enters every layer.
Source: Back de Luca et al., arXiv:2410.01686, section 4. Their W_O is absorbed by Phi's first matrix; there is no
residual sum and no norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from theory.operators.attention import positional, softmax

Affine = tuple[np.ndarray, np.ndarray]
"""Matrix (in, out) and bias (out,)."""
Network = Sequence[Affine]
"""Affine maps with a ReLU between each two."""


@dataclass(frozen=True)
class Layer:
    """Per head: queries, keys (H, p, d_k), values (H, d, d_v); phi maps H d_v + d numbers to the next d."""

    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    phi: Callable[[np.ndarray], np.ndarray] | Network

    @property
    def heads(self) -> int:
        return len(self.queries)


def relu_network(maps: Network, x: np.ndarray) -> np.ndarray:
    """x (..., in) -> (..., out), dtype kept."""
    *hidden, (last, bias) = maps
    for matrix, offset in hidden:
        x = np.maximum(x @ matrix + offset, 0)
    result: np.ndarray = x @ last + bias
    return result


def attention_matrices(layer: Layer, P: np.ndarray) -> np.ndarray:
    """(H, n, n): the weights of each head. P (n, p)."""
    weights: np.ndarray = positional(P, layer.queries, layer.keys)
    return weights


def forward(layers: Sequence[Layer], P: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Tokens after all layers. P (n, p); x (..., n, d), float64: leading axes are a batch, which shares the weights."""
    for layer in layers:
        mixed = attention_matrices(layer, P) @ (x[..., None, :, :] @ layer.values)  # (..., H, n, d_v)
        x = apply(layer.phi, np.concatenate([*np.moveaxis(mixed, -3, 0), x], axis=-1))
    return x


def apply(phi: Callable[[np.ndarray], np.ndarray] | Network, x: np.ndarray) -> np.ndarray:
    """phi(x), whether it is a function or a ReLU network."""
    return phi(x) if callable(phi) else relu_network(phi, x)


def standard_forward(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """The same layers with weights computed from the tokens: A^h = softmax(X Q^h (X K^h)^T / sqrt(d_k))."""
    for layer in layers:
        tokens = x[..., None, :, :]
        mixed = softmax(tokens @ layer.queries, tokens @ layer.keys) @ (tokens @ layer.values)
        x = apply(layer.phi, np.concatenate([*np.moveaxis(mixed, -3, 0), x], axis=-1))
    return x


# -- Heads that point --------------------------------------------------------------------------------------------------


def pointing(targets: np.ndarray, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys (H, n, n) of heads for which P = I gives score `sharpness` at targets[h, i] and 0 elsewhere."""
    heads, nodes = targets.shape
    queries = np.zeros((heads, nodes, nodes))
    np.put_along_axis(queries, targets[..., None], sharpness * math.sqrt(nodes), axis=-1)
    return queries, np.broadcast_to(np.eye(nodes), queries.shape)


def leakage(nodes: int, sharpness: float) -> float:
    """Weight that a pointing head leaves to all nodes but its target: (n - 1) / (e^beta + n - 1)."""
    return (nodes - 1) / (math.exp(sharpness) + nodes - 1)


def leakage_bound(nodes: int, sharpness: float, largest: Sequence[float], slopes: Sequence[float]) -> float:
    """Bound on the largest error of any word after all layers, exact heads being replaced by ones of finite sharpness.

    largest  per layer, max |word| that its heads read in the exact run
    slopes   per layer, Lipschitz constant of Phi in the words it reads, largest entry to largest entry
    A leaking head averages: it passes an earlier error on undiminished at worst, and adds 2 `leakage` max |word|.
    """
    error = 0.0
    for size, slope in zip(largest, slopes, strict=True):
        error = slope * (error + 2 * leakage(nodes, sharpness) * size)
    return error


def rounding_budget(layers: Sequence[Layer], tokens: np.ndarray, largest: float) -> float:
    """Forward error of float64 in exact terms of the model: widths times layers times epsilon times the largest number.

    tokens (..., n, d) only lend their width; `largest` covers every number that occurs, gates included.
    """
    width = max(layer.heads + tokens.shape[-1] + tokens.shape[-2] for layer in layers)
    return float(4 * len(layers) * width * np.finfo(float).eps * largest)


# -- Lipschitz constants -----------------------------------------------------------------------------------------------


def rowwise_norm(x: np.ndarray) -> np.ndarray:
    """||X||_{2,inf}: the largest Euclidean norm of a token. x (..., n, d)."""
    norm: np.ndarray = np.linalg.norm(x, axis=-1).max(axis=-1)
    return norm


def attention_jacobian(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Jacobian (n d, n d) of X -> softmax(X W X^T) X, standard attention with identity values. x (n, d), W (d, d).

    dY_i/dX_k = A_ik I + X^T (diag A_i - A_i A_i^T) [1_{j=k} x_i^T W + 1_{i=k} (W x_j)^T]_j, with scores x_i^T W x_j.
    """
    n, d = x.shape
    A = softmax(x @ W, x, scale=1.0)
    jacobian: np.ndarray = np.einsum("ik,ab->iakb", A, np.eye(d))
    for i in range(n):
        spread = x.T @ (np.diag(A[i]) - np.outer(A[i], A[i]))  # (d, n)
        jacobian[i] += np.einsum("ak,b->akb", spread, x[i] @ W)
        jacobian[i, :, i, :] += spread @ (x @ W.T)
    return jacobian.reshape(n * d, n * d)


def positional_jacobian_norm(A: np.ndarray, W_v: np.ndarray) -> float:
    """||J||_2 of X -> A X W_v, which is ||A||_2 ||W_v||_2; at most sqrt(n) ||W_v||_2 for row-stochastic A (n, n)."""
    return float(np.linalg.norm(A, 2) * np.linalg.norm(W_v, 2))


def amplifier(sharpness: float) -> Layer:
    """A standard layer on tokens (value, flag, 1), values 0, 1 and -1; its slope at 0 is (1 + 2 sharpness) / 3.

    The token with flag 0 asks with its value, those with flag 1 keep theirs: L such layers have that slope to the
    power L.
    """
    queries = np.array([[sharpness], [0.0], [0.0]])
    keys = values = np.array([[1.0], [0.0], [0.0]])

    def phi(x: np.ndarray) -> np.ndarray:
        mixed, value, flag, one = np.moveaxis(x, -1, 0)
        return np.stack([np.where(flag > 0, value, mixed), flag, one], axis=-1)

    return Layer(queries[None], keys[None], values[None], phi)


# -- What one layer can know, and how much a class of layers can fit ---------------------------------------------------


def lookup_floor(nodes: int, heads: int) -> float:
    """Least mean squared error of y_i = v[p_i], v ~ N(0, I), p_i uniform, for one positional layer, whatever its Phi.

    Node i learns v_i and one linear functional of v per head, so that sum_j Var(v_j | what it knows) >= n - 1 - heads.
    """
    return max(0, nodes - 1 - heads) / nodes


def lookup_error(A: np.ndarray) -> np.ndarray:
    """(n,): that error, exactly, for the best Phi behind heads A (H, n, n)."""
    nodes = A.shape[-1]
    known = np.concatenate([np.moveaxis(A, 0, 1), np.eye(nodes)[:, None]], axis=1)  # (n, H + 1, n)
    rank = np.linalg.matrix_rank(known)
    error: np.ndarray = (nodes - rank) / nodes
    return error


def look_up(nodes: int, heads: int, largest: float) -> list[Layer]:
    """Words (v, p, own number, 0), p in the data: the last word of node i ends as the v of node p_i, exactly.

    ceil((n - 1) / H) layers of at most H heads: each head points at a node not yet seen and reads its v and number, and
    Phi, made of ReLUs, takes v where the number is p. |v| <= largest; no null node, P = I.
    """

    def relu(z: np.ndarray) -> np.ndarray:
        positive: np.ndarray = np.maximum(z, 0)
        return positive

    def phi(x: np.ndarray, own: int) -> np.ndarray:
        v, p, number, answer = np.moveaxis(x[..., -4:], -1, 0)
        words, numbers = (np.concatenate([x[..., i:-4:2], x[..., -4 + 2 * i, None][..., :own]], -1) for i in (0, 1))
        off = numbers - p[..., None]
        miss = largest * (1 - relu(off + 1) + 2 * relu(off) - relu(off - 1))  # 0 where off = 0, else `largest`
        taken = (relu(words - miss) - relu(-words - miss)).sum(axis=-1)
        return np.stack([v, p, number, answer + taken], axis=-1)

    read = np.eye(4)[:, [0, 2]]
    layers = []
    for first in range(1, nodes, heads):
        steps = np.arange(first, min(first + heads, nodes))
        queries, keys = pointing((np.arange(nodes) + steps[:, None]) % nodes, 750.0)  # exp(-750) is 0 in float64
        layers.append(Layer(queries, keys, np.stack([read] * len(steps)), partial(phi, own=int(first == 1))))
    return layers


def rademacher(x: np.ndarray) -> float:
    """Exact empirical Rademacher complexity of {X -> a X : a in the simplex} on samples x (m, n), over all 2^m signs.

    The simplex is the closure of all positional heads' rows, whatever the norm of their queries and keys.
    """
    m = len(x)
    signs = 1 - 2 * (np.arange(2**m)[:, None] >> np.arange(m) & 1)
    return float((signs @ x).max(axis=1).mean() / m)


def massart(x: np.ndarray) -> float:
    """max_j |x_j| sqrt(2 ln n) / m: Massart's bound on `rademacher`, the one-layer case of the paper's Theorem 6.1."""
    m, n = x.shape
    return float(np.linalg.norm(x, axis=0).max() * math.sqrt(2 * math.log(n)) / m)
