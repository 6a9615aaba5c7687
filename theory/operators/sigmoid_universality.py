"""Transformers with sigmoid attention approximate permutation-equivariant maps: the construction, as running code.

A sequence of n tokens in [0, 1)^d is brought to a grid of K bins a coordinate and each token packed into an integer
l < K^d. One layer a bin, of four sigmoid heads, carries out a *selective shift*; after the sweep a head with zero
queries adds the sum of all tokens. The numbers that come out, ids, tell token and sequence: a table (the last
feed-forward layer) gives them the values of the function. Sequences with equal tokens are left out, as in Yun et al.

Source: the statement is Theorem 3.1 of Ramapuram et al., arXiv:2409.04431; the plan is that of Yun et al.,
arXiv:1912.10077; this construction and its proof are reconstructed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from theory.operators.attention import sigmoid

Shift = Callable[[np.ndarray, float, float], np.ndarray]
"""A selective shift: x (..., n), low, high -> (..., n)."""


# -- the selective shift -----------------------------------------------------------------------------------------------


def selective_shift(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """(..., n): sum of the tokens above `high` for tokens with low < x_i < high, 0 for others. Exact for integers."""
    above: np.ndarray = np.where(x > high, x, 0).sum(axis=-1, keepdims=True)
    return np.where((low < x) & (x < high), above, 0)


def heads(x: np.ndarray, low: float, high: float, temperature: float) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Queries, keys (each (..., n, 1), affine in x) and output weight of the four heads.

    The first two give 1[low < x_i < high] sign(x_k - high), the last two 1[low < x_i < high]: half of their sum is
    1[low < x_i < high] 1[x_k > high]. The last two have the key 1, a constant: keys need a shift as queries do.
    """
    x = x[..., None]
    one = np.ones_like(x)
    above_low, above_high = temperature * (x - low), temperature * (x - high)
    return [(above_low, x - high, 0.5), (above_high, x - high, -0.5), (above_low, one, 0.5), (above_high, one, -0.5)]


def four_heads(
    x: np.ndarray, low: float, high: float, *, temperature: float, offset: float = 0.0, used: int = 4
) -> np.ndarray:
    """(..., n): `selective_shift` by sigmoid attention, x (..., n) float64; values are the tokens.

    offset  the operator's b, for which nothing makes up;  used  how many of the heads
    """
    parts = [w * sigmoid(q, k, offset=offset, scale=1) for q, k, w in heads(x, low, high, temperature)[:used]]
    shifted: np.ndarray = (sum(parts) @ x[..., None])[..., 0]
    return shifted


def four_heads_bound(x: np.ndarray, low: float, high: float, *, temperature: float, offset: float = 0.0) -> np.ndarray:
    """(...) bound on the error of `four_heads`: (e^(-t m^2) + e^(-t m)) e^|b| sum |x_k|, m the margin.

    Each sigmoid is within e^(|b| - |u|) of a step at u = 0; |u| is t m^2 or more in two heads, t m or more in two; m is
    the least distance of a token from an end of the bin.
    """
    margin = np.minimum(abs(x - low), abs(x - high)).min(axis=-1)
    decay = np.exp(-temperature * margin**2) + np.exp(-temperature * margin)
    bound: np.ndarray = decay * math.exp(abs(offset)) * abs(x).sum(axis=-1)
    return bound


# -- the contextual mapping --------------------------------------------------------------------------------------------


def sweep(tokens: np.ndarray, bins: int, gain: int, shift: Shift = selective_shift) -> np.ndarray:
    """(..., n) ids: for each bin v upwards x <- x + gain shift(x, v - 1/2, v + 1/2). dtype object for big integers."""
    x = tokens
    for v in range(bins):
        x = x + gain * shift(x, v - 0.5, v + 0.5)
    return x


def next_id(token: Any, remaining: Any, done: Any, gain: Any) -> Any:
    """Id of the next token of a sequence in increasing order: token + gain (sum of later tokens + sum of earlier ids).

    This is what `sweep` does for distinct tokens below the gain: the ids so far exceed all bins that are still to come.
    """
    return token + gain * (remaining + done)


def ids_in_order(tokens: Sequence[Any], gain: Any, rule: Callable[..., Any] = next_id) -> list[Any]:
    """Ids of tokens in increasing order by `next_id`; integers or symbols."""
    ids: list[Any] = []
    for k, token in enumerate(tokens):
        ids.append(rule(token, sum(tokens[k + 1 :]), sum(ids), gain))
    return ids


def decode(total: int, n: int, gain: int) -> list[int]:
    """The n distinct tokens, increasing and below `gain`, whose ids have this sum: the sum is injective.

    With S the sum of the first k ids and R that of the later tokens, S = (1 + gain) S' + l + gain R, S' that of the
    first k - 1 ids; so l = S + R modulo gain + 1, which says l; then S' follows, and so on.
    """
    tokens: list[int] = []
    for _ in range(n):
        remaining = sum(tokens)
        token = (total + remaining) % (gain + 1)
        total = (total - token - gain * remaining) // (gain + 1)
        tokens.insert(0, token)
    return tokens


def spread(ids: np.ndarray) -> int:
    """A factor larger than every id, so that id + factor * sum says both."""
    return int(ids.max()) + 1


def add_sum(ids: np.ndarray, factor: float, *, offset: float | None = None) -> np.ndarray:
    """(..., n): id_i + factor * sum of ids. With an offset by a sigmoid head of zero queries and keys, else exactly."""
    if offset is None:
        total: np.ndarray = ids.sum(axis=-1, keepdims=True)
        return ids + factor * total
    zero = np.zeros_like(ids)[..., None]
    weight = 1 / (1 + math.exp(-offset))
    head: np.ndarray = (sigmoid(zero, zero, offset=offset, scale=1) @ ids[..., None])[..., 0]
    return ids + factor / weight * head


# -- the approximation -------------------------------------------------------------------------------------------------


def all_sequences(bins: int, n: int) -> np.ndarray:
    """(bins^n, n) int64: every sequence of tokens."""
    return np.stack(np.meshgrid(*[np.arange(bins)] * n, indexing="ij"), axis=-1).reshape(-1, n)


def distinct(tokens: np.ndarray) -> np.ndarray:
    """(...) bool: no two tokens of the sequence are equal."""
    ordered = np.sort(tokens, axis=-1)
    result: np.ndarray = (ordered[..., 1:] != ordered[..., :-1]).all(axis=-1)
    return result


def corners(tokens: np.ndarray, grid: int, d: int) -> np.ndarray:
    """(..., n, d) lower corner of each token's cell, in [0, 1)^d: the digits of the token to the base `grid`."""
    digits: np.ndarray = (tokens[..., None] // grid ** np.arange(d)) % grid
    return digits / grid


def network_ids(tokens: np.ndarray, bins: int, *, temperature: float = 400.0, gain: int | None = None) -> np.ndarray:
    """(..., n) int64 ids by the network of sigmoid heads itself, in float64, b = -ln n, rounded to integers.

    Raises:
        OverflowError: the ids need more than float64's 53 bits.
    """
    offset, x = -math.log(tokens.shape[-1]), tokens.astype(float)

    def shift(x: np.ndarray, low: float, high: float) -> np.ndarray:
        return four_heads(x, low, high, temperature=temperature, offset=offset)

    ids = sweep(x, bins, bins if gain is None else gain, shift)
    mixed = add_sum(ids, spread(ids), offset=offset)
    if mixed.max() > 2**50:
        raise OverflowError(f"ids up to {mixed.max():.1e} for {tokens.shape[-1]} tokens in {bins} bins: use fewer")
    rounded: np.ndarray = np.rint(mixed).astype(np.int64)
    return rounded


def best_table(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values (cells, n, d) replaced by their mean over all places with the same id (cells, n): what a table can do."""
    _, place = np.unique(ids, return_inverse=True)
    place, flat = place.ravel(), values.reshape(ids.size, -1)
    totals = np.stack([np.bincount(place, column) for column in flat.T], axis=-1)
    means: np.ndarray = (totals / np.bincount(place)[:, None])[place].reshape(values.shape)
    return means


def approximation_error(
    f: Callable[[np.ndarray], np.ndarray],
    n: int,
    d: int,
    grid: int,
    ids_of: Callable[[np.ndarray, int], np.ndarray] = network_ids,
    nodes: int = 3,
) -> tuple[float, float]:
    """L2 errors on [0, 1)^(n d): outside the cells with equal tokens, and everywhere if there the network says 0.

    f       (..., n, d) -> (..., n, d), permutation-equivariant
    ids_of  tokens (cells, n), number of bins -> ids (cells, n)
    nodes   Gauss-Legendre nodes for each coordinate of a cell
    """
    tokens = all_sequences(grid**d, n)
    apart = distinct(tokens)
    corner = corners(tokens, grid, d)
    answer = np.zeros(corner.shape)
    answer[apart] = best_table(ids_of(tokens[apart], grid**d), f(corner[apart] + 0.5 / grid))
    places, weights = np.polynomial.legendre.leggauss(nodes)
    within = all_sequences(nodes, n * d)
    mass = (weights[within] / 2).prod(axis=-1) / len(tokens)
    errors = np.zeros(2)
    for steps, share in zip((places[within] + 1) / (2 * grid), mass, strict=True):
        square = ((f(corner + steps.reshape(n, d)) - answer) ** 2).sum(axis=(-2, -1))
        errors += share * np.array([square[apart].sum(), square.sum()])
    return float(np.sqrt(errors[0])), float(np.sqrt(errors[1]))
