"""What attention knows about positions: masks, ALiBi, rotary and sinusoidal encodings. numpy float64 or bool.

Torch callers convert once (`torch.from_numpy`); only `rotary` runs on the array that it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace


def causal(n: int) -> np.ndarray:
    """(n, n) bool: query i may attend to keys 0..i."""
    return np.arange(n)[:, None] >= np.arange(n)


def window(n: int, width: int) -> np.ndarray:
    """(n, n) bool: consecutive blocks of `width` tokens attend to themselves only."""
    block = np.arange(n) // width
    same: np.ndarray = block[:, None] == block
    return same


def strictly_causal(n: int) -> np.ndarray:
    """(n, n) bool: query i may attend to keys 0..i - 1, the first to none."""
    return np.arange(n)[:, None] > np.arange(n)


def sliding(n: int, width: int) -> np.ndarray:
    """(n, n) bool: query i may attend to the last `width` keys up to i."""
    back = np.arange(n)[:, None] - np.arange(n)
    return (back >= 0) & (back < width)


def prefix(n: int, length: int) -> np.ndarray:
    """(n, n) bool: causal, but the first `length` tokens see one another (prefix language model)."""
    place = np.arange(n)
    return (place[:, None] >= place) | (place < length)


def alibi_slopes(heads: int) -> np.ndarray:
    """(heads,): 2^(-8 h / heads), h = 1..heads. Source: Press et al., arXiv:2108.12409, section 3 (powers of two)."""
    return np.exp2(-8 * np.arange(1, heads + 1) / heads)


def alibi(n: int, heads: int) -> np.ndarray:
    """(heads, n, n): -slope |i - j|, the bias of a score. Source: Press et al., arXiv:2108.12409."""
    place = np.arange(n)
    bias: np.ndarray = -alibi_slopes(heads)[:, None, None] * abs(place[:, None] - place)
    return bias


def rotary(x: Any, base: float = 10_000.0, positions: Any = None) -> Any:
    """x (..., n, d), d even, with the pair (x_a, x_{a + d/2}) of token i turned by the angle i base^(-2 a / d).

    positions (n,) replace 0..n-1. Source: Su et al., arXiv:2104.09864, equation 34; pairs as in GPT-NeoX.

    Raises:
        ValueError: d is odd.
    """
    xp, half = array_namespace(x), x.shape[-1] // 2
    if 2 * half != x.shape[-1]:
        raise ValueError(f"rotary positions need an even width, not {x.shape[-1]}: choose another head width")
    like = {"dtype": x.dtype, "device": x.device}
    positions = xp.arange(x.shape[-2], **like) if positions is None else positions
    angles = positions[:, None] * base ** (-xp.arange(half, **like) / half)
    return turned(x, xp.cos(angles), xp.sin(angles))


def turned(x: Any, cos: Any, sin: Any) -> Any:
    """x (..., n, d) with the pair (x_a, x_{a + d/2}) of each token turned; cosines and sines of the angles (n, d/2)."""
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return array_namespace(x).concat([a * cos - b * sin, a * sin + b * cos], axis=-1)


def sinusoidal(n: int, width: int, base: float = 10_000.0) -> np.ndarray:
    """(n, width), width even: sines, then cosines. Source: Vaswani et al., arXiv:1706.03762, section 3.5."""
    half = width // 2
    angles = np.arange(n)[:, None] * base ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
