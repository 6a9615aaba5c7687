"""Synthetic heads for prefill: a sink that takes most of the mass, and one structure that sparse attention must find.

Ours, after the kinds of heads that papers on sparse prefill describe (Ji et al., arXiv:2505.24179; vertical and slash
heads of Jiang et al., arXiv:2407.02490). Arrays follow the array-API standard.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from array_api_compat import array_namespace, device

from theory.operators.attention import total
from theory.operators.sale import KEYS, QUERIES

Array = Any


def synthetic(
    kind: str, q: Array, k: Array, *, contrast: float = 6.0, reach: int = 256, every: int = 16
) -> tuple[Array, Array]:
    """Heads with a sink and one structure, out of normal draws q and k (..., n, d), d >= 4.

    With S = ln n + contrast, key 0 has the scaled score S in every row, so that normal scores hold a share of about
    exp(1/2 - contrast). Of score S - 1 moreover are, in the head `needle`, one key for each block of queries; `local`,
    the keys nearer than about `reach`, by Gaussian position features; `vertical`, one key of every `every` blocks.
    """
    xp, (n, d) = array_namespace(q), q.shape[-2:]
    top = math.log(n) + contrast
    axis, row = _positions(d, q), _positions(n, q)[:, None]
    noise = xp.astype(axis > 1, q.dtype)  # channels 0 and 1 are for the structure alone
    q, k = q * noise, k * noise
    if kind == "needle":
        where = _scattered(_positions(n, q) // QUERIES)
        chosen = xp.take(k, where, axis=-2)
        q = q + (top - 1) * math.sqrt(d) / total(chosen**2) * chosen
    elif kind == "local":
        rates = _normal_quantiles(d // 2 - 1, q) / reach
        angles = xp.astype(row, q.dtype) * rates
        waves = xp.concat([xp.zeros_like(angles[:, :1])] * 2 + [xp.cos(angles), xp.sin(angles)], axis=-1)
        waves = waves * math.sqrt((top - 1) * math.sqrt(d) / (d // 2 - 1))
        q, k = q + waves, k + waves
    elif kind == "vertical":
        column = xp.astype((row % (KEYS * every) == KEYS * every // 2) & (axis == 1), q.dtype)
        length = math.sqrt((top - 1) * math.sqrt(d))
        q, k = q + length * xp.astype(axis == 1, q.dtype), k + length * column
    else:
        raise ValueError(f"no synthetic head {kind!r}: give needle, local or vertical")
    length, sink = math.sqrt(top * math.sqrt(d)), xp.astype(axis == 0, q.dtype)
    return q + length * sink, xp.where(row == 0, length * sink, k)


def _scattered(block: Array) -> Array:
    """For each block of queries a key before it but not key 0, spread by multiplication modulo a prime."""
    return 1 + block * 7919 % 104_729 * 31 % array_namespace(block).clip(block * QUERIES - 1, 1, None)


def _normal_quantiles(count: int, like: Array) -> Array:
    levels = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    return array_namespace(like).asarray(levels, dtype=like.dtype, device=device(like))


def _positions(n: int, like: Array) -> Array:
    return array_namespace(like).arange(n, device=device(like))
