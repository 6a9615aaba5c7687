"""Rounding weights to few bits, and pruning them: what outliers make worse. numpy and torch run the same lines.

Source: rounding to nearest with the largest magnitude as scale (AbsMax), as in An et al., arXiv:2502.06415, section 6.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

Array = Any


def step_size(x: Array, bits: int, *, by_row: bool = False) -> Array:
    """max |x| / (2^(bits - 1) - 1), of the whole array or of each row (kept as an axis of length 1).

    Raises:
        ValueError: fewer than 2 bits, which leave no level but 0.
    """
    if bits < 2:
        raise ValueError(f"{bits} bit: symmetric rounding needs 2 or more")
    xp = array_namespace(x)
    top = xp.max(xp.abs(x), axis=-1, keepdims=True) if by_row else xp.max(xp.abs(x))
    return top / (2 ** (bits - 1) - 1)


def round_to_nearest(x: Array, bits: int, *, by_row: bool = False) -> Array:
    """x at the nearest multiple of its step size; 0 stays 0."""
    xp = array_namespace(x)
    step = step_size(x, bits, by_row=by_row)
    return xp.round(x / xp.where(step == 0, xp.ones_like(step), step)) * step


def relative_error(x: Array, rounded: Array) -> Array:
    """rms(rounded - x) / rms(x)."""
    xp = array_namespace(x)
    return xp.sqrt(xp.mean((rounded - x) ** 2) / xp.mean(x**2))


def fine_step_error(step: float, deviation: float) -> float:
    """The relative error of rounding with a step well below the deviation: uniform in half a step, step / sqrt(12)."""
    return step / (math.sqrt(12) * deviation)


def prune(x: Array, share: float) -> Array:
    """x with the given share of its elements, the smallest in magnitude, set to 0; ties go with them."""
    xp = array_namespace(x)
    size = xp.reshape(xp.abs(x), (-1,))
    count = int(share * size.shape[0])
    if count == 0:
        return x
    threshold = xp.sort(size)[count - 1]
    return xp.where(xp.abs(x) <= threshold, xp.zeros_like(x), x)
