"""What is measured of attention sinks and outliers, each defined once: numpy and torch run the same lines.

    A      (..., n, m)   attention weights, rows are queries; m = n, or m = n + s where s keys of no token come first
                         (a learned key k*, say), which every query sees
    alpha  (..., m)      importance of each key: the mean attention from the queries that may see it
    x      (..., D)      a hidden state

Attention is causal unless said otherwise: the queries that see token k are k, k + 1, .. n - 1, from 0. Arrays follow
the array-API standard, floating dtypes. Sources: G is Gu et al., arXiv:2410.10781; A is An et al., arXiv:2502.06415.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any
EPSILON = 0.3
"""Threshold of G for a sink; at 64 tokens, its default, uniform attention gives its first token 0.074."""
TAU = 1000.0
"""Threshold of A for an outlier: this many times the mean magnitude."""

# -- attention ---------------------------------------------------------------------------------------------------------


def seen(queries: int, keys: int, xp: Any, **like: Any) -> Array:
    """(keys,): by how many of the queries each key is seen; the first keys - queries of them by all."""
    place = xp.arange(keys, **like) - (keys - queries)
    return queries - xp.clip(place, 0, None)


def importance(A: Array) -> Array:
    """alpha_k = (1 / (n - k + 1)) sum_{t >= k} A_tk, (..., m). Source: G, section 3.2; Yu et al., arXiv:2406.15765.

    A full score of 1 means that every query that may look at key k looks at nothing else. The last key is seen by one
    query alone, so that alpha of the last keys says little.
    """
    xp = array_namespace(A)
    queries, keys = A.shape[-2:]
    return xp.sum(A, axis=-2) / seen(queries, keys, xp, dtype=A.dtype, device=A.device)


def sinks(A: Array, epsilon: float = EPSILON) -> Array:
    """(..., m) bool: alpha_k > epsilon. G's Sink_k is the share of heads, layers and sequences where it holds."""
    return importance(A) > epsilon


def row_mass(A: Array) -> Array:
    """(..., n): the sum of each row, 1 for a distribution."""
    return array_namespace(A).sum(A, axis=-1)


def proxy(A: Array) -> Array:
    """|A_ij| / (sum_j |A_ij| + 1e-8): rows as if they were distributions. Source: G, table 6 and its code.

    It hides how large a row is: a head that has switched itself off may show a sink (see `row_mass`).
    """
    xp = array_namespace(A)
    size = xp.abs(A)
    return size / (xp.sum(size, axis=-1, keepdims=True) + 1e-8)


def entropy(A: Array) -> Array:
    """-sum_j A_ij ln A_ij of each row, (..., n), in nats; 0 ln 0 is 0."""
    xp = array_namespace(A)
    return -xp.sum(A * xp.log(xp.where(A > 0, A, xp.ones_like(A))), axis=-1)


def attention_outliers(A: Array, share: float = 0.1) -> Array:
    """(..., m) bool: keys that collect at least share n of the n rows' attention, averaged over heads (..., h, n, m).

    A key that fewer than share n queries see cannot reach it: those of the last tenth. Source: A, its code.
    """
    xp = array_namespace(A)
    return xp.sum(xp.mean(A, axis=-3), axis=-2) >= share * A.shape[-2]


# -- magnitudes --------------------------------------------------------------------------------------------------------


def max_over_mean(x: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """max |x| / mean |x| along the axes (all unless given); 0 where x is 0 throughout."""
    xp = array_namespace(x)
    size = xp.abs(x)
    top, mean = xp.max(size, axis=axis), xp.mean(size, axis=axis)
    return top / xp.where(mean == 0, xp.ones_like(mean), mean)


def outliers(x: Array, tau: float = TAU) -> Array:
    """Bool like x: |x| > tau mean |x| over the whole array. Source: A, section 3."""
    xp = array_namespace(x)
    size = xp.abs(x)
    return size > tau * xp.mean(size)


def kurtosis(x: Array, axis: int = -1) -> Array:
    """E (x - mean)^4 / (E (x - mean)^2)^2 along an axis; 3 for a Gaussian; 1 at least.

    For n elements it is at most n - 2 + 1 / (n - 1), attained by one element unlike the others.
    """
    xp = array_namespace(x)
    square = (x - xp.mean(x, axis=axis, keepdims=True)) ** 2
    return xp.mean(square**2, axis=axis) / xp.mean(square, axis=axis) ** 2


def rms(x: Array) -> Array:
    """Root mean square over the last axis, kept as an axis of length 1."""
    xp = array_namespace(x)
    return xp.sqrt(xp.mean(x**2, axis=-1, keepdims=True))


def sink_dimension_value(x: Array, dimensions: list[int]) -> Array:
    """phi(x) = max over the dimensions of |x[d]| / rms(x), (...). Source: Kang et al., arXiv:2503.03321, equation 3.

    At most sqrt(D), attained where x has one nonzero element.
    """
    xp = array_namespace(x)
    return xp.max(xp.abs(x[..., dimensions]) / rms(x), axis=-1)


# -- vectors of tokens -------------------------------------------------------------------------------------------------


def lengths(x: Array) -> Array:
    """Euclidean length over the last axis."""
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x**2, axis=-1))


def length_ratio(x: Array, token: int = 0) -> Array:
    """|x_token| / mean |x_j| over the other tokens, of x (..., n, d), (...). Source: G, section 3.1: values and keys.

    Raises:
        ValueError: there is no other token.
    """
    xp, n = array_namespace(x), x.shape[-2]
    if n < 2:
        raise ValueError(f"{n} token: a ratio to the other tokens needs two or more")
    size = lengths(x)
    return size[..., token] * (n - 1) / (xp.sum(size, axis=-1) - size[..., token])


def cosines(q: Array, k: Array) -> Array:
    """cos(q_t, k_j), (..., n, m). Source: G, section 3.1."""
    xp = array_namespace(q)
    return (q @ xp.matrix_transpose(k)) / (lengths(q)[..., :, None] * lengths(k)[..., None, :])
