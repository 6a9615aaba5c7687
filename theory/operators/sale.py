"""SALE: 4-bit estimates of all scores say which blocks of keys a block of queries attends to, in causal prefill.

    q, k, v  (..., n, d)   one head; leading axes broadcast      tau   (...) or a number: threshold of the head
    kept     (..., n / 64, n / 32) bool, rounded up              theta the calibration's allowed error

Scores are raw, q.k, without the constant q.mean(k) of each row; `scale` = 1 / sqrt(d) comes with the exponential.
Arrays follow the array-API standard. Source: Ji et al., arXiv:2505.24179, and its
released code, whose defaults these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, device

from theory.operators.attention import softmax_rows, total, transpose

Array = Any
QUERIES, KEYS, SEGMENT = 64, 32, 128
"""Rows of a block of queries, of a block of keys, and keys of a segment: the window of local keys is whole segments."""
LEVELS = 7
"""4-bit integers lie in -7 .. 7."""
DENSE_BELOW = 1e-5
"""A threshold below this means that everything is kept."""
THETA, START, LAST = 0.4, 0.008, 1e-4
"""Of the calibration: allowed error a token (L1 over channels), first threshold, and the one from which on it is 0."""

Groups = tuple[tuple[int, ...], tuple[int, ...]]
"""Rows that share a scale: the shape of a run of rows, and the axes of it over which the scale is common."""
TOKEN: Groups = ((1,), ())
QUERY_PAIRS: Groups = ((2, 8), (0,))
"""Rows r and r + 8 of every 16: the rows of one thread of a tensor core."""
KEY_LANES: Groups = ((4, 4, 2), (0, 2))
"""Four scales a block of 32 keys: the columns of one thread."""
BLOCK: Groups = ((KEYS,), (0,))


# -- estimates ---------------------------------------------------------------------------------------------------------


def smoothed(x: Array) -> tuple[Array, Array]:
    """x less its mean over tokens, and that mean (..., 1, d)."""
    mean = array_namespace(x).mean(x, axis=-2, keepdims=True)
    return x - mean, mean


def scales(x: Array, groups: Groups) -> Array:
    """max |x| / 7 over the rows of a group, for each row: (..., n, 1)."""
    xp, (shape, axes) = array_namespace(x), groups
    largest = _padded(xp.max(xp.abs(x), axis=-1), -1, math.prod(shape))
    runs = xp.reshape(largest, (*largest.shape[:-1], -1, *shape))
    first = runs.ndim - len(shape)
    for axis in axes:
        runs = xp.broadcast_to(xp.max(runs, axis=first + axis, keepdims=True), runs.shape)
    return xp.reshape(runs, largest.shape)[..., : x.shape[-2], None] / LEVELS


def quantised(
    x: Array, groups: Groups = TOKEN, rounding: Callable[[Array], Array] | None = None
) -> tuple[Array, Array]:
    """Integers in -7 .. 7, of x's dtype, and the scale of each row; x is about scale * integers."""
    xp, scale = array_namespace(x), scales(x, groups)
    safe = xp.where(scale > 0, scale, xp.ones_like(scale))
    return (rounding or xp.round)(x / safe), scale


def estimated(
    q: Array,
    k: Array,
    *,
    groups: tuple[Groups, Groups] = (QUERY_PAIRS, KEY_LANES),
    rounding: Callable[[Array], Array] | None = None,
    mean_term: bool = True,
) -> Array:
    """s_i s_j (integers of q_i).(integers of k_j) + mean(q).(k_j - mean(k)), (..., n, n).

    Without `mean_term` the last summand is left out, as a broken version does.
    """
    (q, q_mean), (k, _) = smoothed(q), smoothed(k)
    (a, q_scale), (b, k_scale) = quantised(q, groups[0], rounding), quantised(k, groups[1], rounding)
    product = q_scale * transpose(k_scale) * (a @ transpose(b))
    return product + q_mean @ transpose(k) if mean_term else product


def exact(q: Array, k: Array) -> Array:
    """q_i.(k_j - mean(k)), what `estimated` estimates."""
    return q @ transpose(smoothed(k)[0])


def estimate_error_bound(q: Array, k: Array, groups: tuple[Groups, Groups] = (QUERY_PAIRS, KEY_LANES)) -> Array:
    """|estimated - exact| <= s_j |q_i|_1 / 2 + s_i |k_j|_1 / 2 + d s_i s_j / 4, of smoothed q and k: (..., n, n).

    Each entry errs by at most half a scale: e.(k) + q.(f) + e.(f) with |e| <= s_i / 2 and |f| <= s_j / 2, where the
    product of the two errors enters with either sign.
    """
    xp = array_namespace(q)
    (q, _), (k, _) = smoothed(q), smoothed(k)
    q_scale, k_scale = scales(q, groups[0]), transpose(scales(k, groups[1]))
    lengths = total(xp.abs(q)), transpose(total(xp.abs(k)))
    return k_scale * lengths[0] / 2 + q_scale * lengths[1] / 2 + q.shape[-1] / 4 * q_scale * k_scale


# -- what is always kept, and the relative attention score -------------------------------------------------------------


def causal(n: int, like: Array) -> Array:
    """(n, n) bool: query i sees keys up to i."""
    index = _arange(n, like)
    return index[:, None] >= index[None, :]


def selectable(n: int, like: Array) -> Array:
    """(blocks of queries, blocks of keys) bool: left of the window of local keys, and not the block of the sink.

    The window ends with the block of queries, has at least 128 keys where there are so many, and whole segments.
    """
    xp = array_namespace(like)
    b, j = _arange(-(-n // QUERIES), like), _arange(-(-n // KEYS), like)
    local = xp.clip((b + 1) * QUERIES - SEGMENT, 0, None) // SEGMENT * (SEGMENT // KEYS)
    return (j[None, :] < local[:, None]) & (j[None, :] > 0)


def always(n: int, like: Array) -> Array:
    """(blocks of queries, blocks of keys) bool: the sink's block and the local ones."""
    b, j = _arange(-(-n // QUERIES), like), _arange(-(-n // KEYS), like)
    visible = j[None, :] * KEYS < (b[:, None] + 1) * QUERIES
    return visible & ~selectable(n, like)


def pairs(blocks: Array, n: int) -> Array:
    """(..., n, n) bool of the pairs in these blocks that the causal mask allows."""
    xp = array_namespace(blocks)
    wide = xp.repeat(xp.repeat(blocks, QUERIES, axis=-2), KEYS, axis=-1)
    return wide[..., :n, :n] & causal(n, blocks)


def sink_and_local(s: Array) -> tuple[Array, Array]:
    """Maximum and sum of exponentials of scaled scores (..., n, n) over what is always kept: (..., n, 1) each."""
    xp, n = array_namespace(s), s.shape[-1]
    s = xp.where(pairs(always(n, s), n), s, xp.full_like(s, -math.inf))
    top = xp.max(s, axis=-1, keepdims=True)
    return top, total(xp.exp(s - top))


def relative_attention_score(estimate: Array, s: Array) -> Array:
    """exp(estimate_ij - m_i) / D_i, scaled scores; m and D are those of the true scores s in the sink and nearby."""
    top, norm = sink_and_local(s)
    return array_namespace(s).exp(estimate - top) / norm


def largest_in_blocks(x: Array) -> Array:
    """Maximum over each block of a nonnegative (..., n, n) below the diagonal: (..., blocks, blocks)."""
    xp, n = array_namespace(x), x.shape[-1]
    x = xp.where(causal(n, x), x, xp.zeros_like(x))
    x = _padded(_padded(x, -1, KEYS), -2, QUERIES)
    x = xp.reshape(x, (*x.shape[:-2], x.shape[-2] // QUERIES, QUERIES, x.shape[-1] // KEYS, KEYS))
    return xp.max(xp.max(x, axis=-1), axis=-2)


def kept_blocks(largest: Array, tau: Array, n: int) -> Array:
    """What is always kept, and the blocks in which some pair's relative attention score exceeds tau."""
    tau = _thresholds(tau, largest)
    return always(n, largest) | (selectable(n, largest) & ((largest > tau) | (tau == 0)))


def block_scores(q: Array, k: Array, estimate: Callable[[Array, Array], Array] = estimated) -> Array:
    """The largest relative attention score of each block; a block is kept if it exceeds tau."""
    scale = q.shape[-1] ** -0.5
    return largest_in_blocks(relative_attention_score(estimate(q, k) * scale, exact(q, k) * scale))


def selection(q: Array, k: Array, tau: Array, estimate: Callable[[Array, Array], Array] = estimated) -> Array:
    """Kept blocks by the two-pass rule: D_i is of the sink and the local keys."""
    return kept_blocks(block_scores(q, k, estimate), tau, q.shape[-2])


def one_pass_selection(q: Array, k: Array, tau: Array) -> Array:
    """Segment by segment from the left, m_i and D_i grow by the blocks that were selected so far."""
    xp, n, scale = array_namespace(q), q.shape[-2], q.shape[-1] ** -0.5
    estimate, s = estimated(q, k) * scale, exact(q, k) * scale
    kept = always(n, q) & xp.ones((*q.shape[:-2], 1, 1), dtype=xp.bool)
    blocks = _arange(kept.shape[-1], q)
    for segment in range(-(-n // SEGMENT)):
        seen = xp.where(pairs(kept, n), s, xp.full_like(s, -math.inf))
        top = xp.max(seen, axis=-1, keepdims=True)
        found = largest_in_blocks(xp.exp(estimate - top) / total(xp.exp(seen - top)))
        here = blocks // (SEGMENT // KEYS) == segment
        kept = kept | (kept_blocks(found, tau, n) & here)
    return kept


def exceeds(estimate: Array, top: Array, norm: Array, tau: float, log: Callable[[Array], Array] | None = None) -> Array:
    """The comparison as the kernel makes it, without an exponential a pair: estimate > m + log2(tau D) ln 2, scaled."""
    log = log or array_namespace(norm).log2
    return estimate > top + log(tau * norm) * math.log(2)


# -- attention over the kept blocks, calibration, cost -----------------------------------------------------------------


def attend(q: Array, k: Array, v: Array, kept: Array) -> Array:
    """Causal softmax attention over the kept blocks alone."""
    return softmax_rows(q @ transpose(k) * q.shape[-1] ** -0.5, pairs(kept, q.shape[-2])) @ v


def sale(q: Array, k: Array, v: Array, tau: Array) -> Array:
    """The whole method: (..., n, d)."""
    return attend(q, k, v, selection(q, k, tau))


def calibrated(output: Callable[[Array], Array], dense: Array, theta: float = THETA) -> Array:
    """tau of each head: halved from 0.008 until the error a token is below theta, 0 from 0.0001 on.

    Args:
        output: thresholds (heads,) to the output (..., heads, n, d).
        dense: the output of full attention.
        theta: allowed mean over tokens of the L1 distance over channels, in units of v.
    """
    xp = array_namespace(dense)
    tau = xp.full((dense.shape[-3],), START, dtype=xp.float32, device=device(dense))
    while bool(xp.any(bad := (error_per_token(output(tau), dense) >= theta) & (tau > 0))):
        tau = xp.where(bad, tau / 2, tau)
        tau = xp.where(tau <= LAST, xp.zeros_like(tau), tau)
    return tau


def error_per_token(output: Array, dense: Array) -> Array:
    """Mean over tokens of the L1 distance over channels, a head; leading axes are averaged too."""
    xp = array_namespace(dense)
    each = xp.mean(xp.sum(xp.abs(xp.astype(output - dense, xp.float32)), axis=-1), axis=-1)
    return xp.mean(xp.reshape(each, (-1, dense.shape[-3])), axis=0)


def density(kept: Array, n: int) -> float:
    """Kept pairs over the causal ones, mean over leading axes."""
    xp, allowed = array_namespace(kept), causal(n, kept)
    each = xp.sum(xp.astype(pairs(kept, n), xp.float64), axis=(-2, -1))
    return float(xp.mean(each / xp.sum(xp.astype(allowed, xp.float64))))


def speed_up(overhead: float, share: float) -> float:
    """Dense time over ours, if selecting costs `overhead` of dense attention and computing `share` of it."""
    return 1 / (overhead + share)


def largest_density(wanted: float, overhead: float) -> float:
    """The density at which `speed_up` is `wanted`, where a kept pair costs what it costs in dense attention."""
    return 1 / wanted - overhead


def _arange(n: int, like: Array) -> Array:
    return array_namespace(like).arange(n, device=device(like))


def _thresholds(tau: Array, like: Array) -> Array:
    """tau with two axes more, 0 where it means dense."""
    xp = array_namespace(like)
    tau = xp.asarray(tau, dtype=like.dtype, device=device(like))[..., None, None]
    return xp.where(tau < DENSE_BELOW, xp.zeros_like(tau), tau)


def _padded(x: Array, axis: int, size: int) -> Array:
    """x with zeros up to a multiple of size along an axis, -1 or -2."""
    xp = array_namespace(x)
    shape = list(x.shape)
    shape[axis] = -x.shape[axis] % size
    return xp.concat([x, xp.zeros(tuple(shape), dtype=x.dtype, device=device(x))], axis=axis)
