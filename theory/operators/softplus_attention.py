"""Softplus attention with re-weighting: the entropy of its rows, what its powers overflow, and its gradient.

The operators are `theory.operators.attention.lssa` and `reweight`. A row of N keys with cosines c_j to the query has
weights phi(scale c_j) over their sum, phi = softplus for LSSA, exp for softmax; LSSA's scale is ln d ln N. The second
stage takes ReLU(N a_j - 1)^p over its sum. Source: Gao and Spratling, arXiv:2501.13428, section 2; the closed forms
here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from theory.operators.attention import exp_map, normalised, softplus

Map = Callable[[Any], Any]


# -- the first stage ---------------------------------------------------------------------------------------------------


def two_stages(s: np.ndarray, positive: Map = exp_map) -> np.ndarray:
    """Rows of scores (..., m) through a positive map, then over their sum: softmax for exp, without its shift."""
    weights: np.ndarray = normalised(positive(s))
    return weights


def log_curvature(positive: Map) -> Any:
    """d^2/ds^2 ln phi(s), simplified; phi takes and returns sympy expressions.

    Rows phi(s_j) / sum phi are unchanged by s -> s + t, for all s and t, exactly if this is 0: in t the logarithm of
    phi(a + t) / phi(b + t) has the derivative (ln phi)'(a + t) - (ln phi)'(b + t). So phi = C e^(k s).
    """
    import sympy

    s = sympy.Symbol("s", real=True)
    return sympy.simplify(sympy.diff(sympy.log(positive(s)), s, 2))


# -- entropy -----------------------------------------------------------------------------------------------------------


def entropy(weights: np.ndarray) -> np.ndarray:
    """-sum w ln w in nats along the last axis, with 0 ln 0 = 0; weights (..., m) float64."""
    logarithm = np.log(np.where(weights > 0, weights, 1.0))
    value: np.ndarray = -(weights * logarithm).sum(axis=-1)
    return value


def dynamic_scale(n: Any, d: int) -> Any:
    """ln d ln N, LSSA's factor of the cosines; n is a number or an array."""
    return math.log(d) * np.log(n)


def entropy_floor(cosines: np.ndarray, scale: float) -> np.ndarray:
    """ln N - ln((c_max + ln 2 / scale) / mean ReLU(c)): no row of softplus attention has less entropy, in nats.

    ln N - H is the divergence of the weights from the uniform ones, at most ln(N max weight); and max(x, 0) <=
    softplus(x) <= max(x, 0) + ln 2. So the entropy grows as ln N where cosines keep their distribution, for any scale.
    cosines (..., N) float64, some of them positive.
    """
    positive = np.maximum(cosines, 0)
    largest, mean = positive.max(axis=-1), positive.mean(axis=-1)
    floor: np.ndarray = np.log(cosines.shape[-1] * mean / (largest + math.log(2) / scale))
    return floor


def ball_softplus(s: Any) -> Any:
    """ln(1 + e^s) of a flint ball."""
    return (1 + s.exp()).log()


def one_key_entropy(n: int, d: int, positive: Map = ball_softplus) -> Any:
    """Entropy of a row with one aligned key (cosine 1) and n - 1 orthogonal ones, scale ln d ln n, as a flint ball.

    With softplus the aligned key's weight tends to 0, as ln d ln n / (n ln 2), and the entropy grows; with exp the
    weight is n^(ln d) / (n^(ln d) + n - 1), which tends to 1 for d > e.
    """
    from flint import arb

    aligned, other = positive(arb(d).log() * arb(n).log()), positive(arb(0))
    total = aligned + (n - 1) * other
    shares = [(1, aligned / total), (n - 1, other / total)]
    return -sum((count * share * share.log() for count, share in shares), arb(0))


def random_row_deficit(scale: float, d: int, positive: Map = softplus, nodes: int = 400) -> float:
    """lim (ln N - H) for N directions drawn uniformly from the sphere in R^d at a fixed scale: E[w ln w].

    w = phi(scale c) / E phi(scale c); c has the density (1 - c^2)^((d - 3) / 2). Gauss-Gegenbauer quadrature.
    """
    from scipy.special import roots_gegenbauer

    c, mass = roots_gegenbauer(nodes, (d - 2) / 2)
    weights = positive(scale * c)
    weights = weights / (mass @ weights / mass.sum())
    return float(mass @ (weights * np.log(np.where(weights > 0, weights, 1.0))) / mass.sum())


# -- the second stage --------------------------------------------------------------------------------------------------


def log_growth(n: Any, x: Any, p: Any) -> Any:
    """d/dx ln[(N x - 1)^p / x] for x > 1 / N: the re-weighted row majorises the row where this is >= 0.

    It is ((p - 1) N x + 1) / (x (N x - 1)): positive for p >= 1, and down to p = 1 - 1 / N for x <= 1. Numbers, or
    sympy symbols.
    """
    return p * n / (n * x - 1) - 1 / x


def majorisation_gap(row: np.ndarray, other: np.ndarray) -> float:
    """Least excess, over k, of the k largest entries of `other` over those of `row`; both (m,). >= 0: it majorises."""
    partial = [np.cumsum(np.sort(x)[::-1]) for x in (other, row)]
    return float((partial[0] - partial[1]).min())


def largest_excess(largest: float, power: float) -> float:
    """The largest N a - 1 whose power is at most `largest`, the greatest finite number of a format."""
    root: float = float(largest) ** (1 / power)
    return root


def dropped_sensitivity(kept: Sequence[Any] | np.ndarray, n: int, power: Any) -> np.ndarray:
    """(k,) derivative of the re-weighted row in ln S, S = sum phi(s): all that a dropped key's score can change.

    A key j whose weight is at most 1 / N changes the kept weights a (k,) by one common factor, so that
    d out_i / d s_j = [this]_i phi'(s_j) / S, with [this]_i = -p out_i (r_i - sum_k out_k r_k), r = N a / (N a - 1).
    It is 0 exactly if all kept weights are equal, so also where one is kept. Any number type; power an int for exact.
    """
    a = np.asarray(kept)
    excess = n * a - 1
    raised = excess**power
    out = raised / raised.sum()
    ratio = n * a / excess
    change: np.ndarray = -power * out * (ratio - (out * ratio).sum())
    return change
