"""Visual attention redistribution (VAR): attention moved from sink tokens to other visual tokens, and what bounds it.

    A        (..., n, m)  attention weights of text queries; rows sum to 1
    sinks    (m,) bool    sink tokens, visual and text ones: those with a large sink-dimension value
    visual   (m,) bool    tokens of the image; `receivers` are those that are no sinks
    p        the share of their attention that sinks give away, in [0, 1]
    V, W     a row's mass on visual tokens and on receivers; r = W / V

`theory.sinks.measures.sink_dimension_value` is phi. Source: Kang et al., arXiv:2503.03321, sections 4 and 5; its code
(github.com/seilk/VisAttnSink) is `released`; bounds and certificates are derived here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

Array = Any
"""An array of any library that follows the array-API standard."""
Real = Any
"""A number, an array or a sympy expression."""
LEAST = 0.2
"""The least mass on visual tokens of an image-centric head."""


def mass(A: Array, tokens: Array) -> Array:
    """(..., n, 1): each row's weight on the tokens."""
    xp = array_namespace(A)
    return xp.sum(xp.where(tokens, A, xp.zeros_like(A)), axis=-1, keepdims=True)


def redistribute(A: Array, sinks: Array, visual: Array, p: Real) -> Array:
    """Sinks keep 1 - p of their weights; the rest goes to the receivers in proportion to theirs.

    A row without any weight on a receiver stays as it is.
    """
    xp, receivers = array_namespace(A), visual & ~sinks
    budget, received = p * mass(A, sinks), mass(A, receivers)
    none = received == 0
    grown = A * (1 + budget / xp.where(none, received + 1, received))
    changed = xp.where(sinks, A * (1 - p), xp.where(receivers, grown, A))
    return xp.where(none, A, changed)


def selected(A: Array, sinks: Array, visual: Array, rho: float, least: float = LEAST) -> Array:
    """(..., n, 1) bool, the image-centric rows: V >= least and r >= rho."""
    seen, received = mass(A, visual), mass(A, visual & ~sinks)
    return (seen >= least) & (received >= rho * seen)


def var(A: Array, sinks: Array, visual: Array, p: float, rho: float, least: float = LEAST) -> Array:
    """Redistribution in the image-centric rows alone."""
    xp = array_namespace(A)
    return xp.where(selected(A, sinks, visual, rho, least), redistribute(A, sinks, visual, p), A)


# -- bounds ------------------------------------------------------------------------------------------------------------


def amplification(given: Real, received: Real, p: Real) -> Real:
    """1 + p S / W: by how much the receivers' weights grow, where sinks have the mass S and receivers W."""
    return 1 + p * given / received


def amplification_bound(p: Real, rho: Real, least: Real) -> Real:
    """1 + p (1 / (rho least) - 1), the largest amplification in an image-centric row.

    There W >= rho V >= rho least, and S <= 1 - W. Equality: V = least, r = rho, all else on sinks.
    """
    return 1 + p * (1 / (rho * least) - 1)


def recycled_share(text: Real, rho: Real) -> Real:
    """The largest share of the budget that visual sinks give in an image-centric row with `text` on text sinks.

    Visual sinks have at most (1 - rho) V, and V <= 1 - text. Attained with nothing on other text.
    """
    most = (1 - rho) * (1 - text)
    return most / (most + text)


def share_above(tau: float, width: int) -> float:
    """P(|x_d| / rms(x) > tau) of a coordinate of a Gaussian x: x_d^2 / |x|^2 is Beta(1/2, (width - 1)/2)."""
    from scipy.stats import beta

    return float(beta.sf(min(1.0, tau**2 / width), 0.5, (width - 1) / 2))


# -- released code -----------------------------------------------------------------------------------------------------


def released(A: Array, sinks: Array, visual: Array, p: float, rho: float, least: float = LEAST) -> Array:
    """VAR as the released code has it: sinks *keep* p, rho is an upper bound on the sinks' share of the visual mass.

    Its denominator has 1e-6 more for each visual token; without a visual sink nothing is changed.
    """
    xp, lost = array_namespace(A), visual & sinks
    if not bool(xp.any(lost)):
        return A
    tokens = int(xp.sum(xp.astype(visual, xp.int64)))
    share = mass(A, lost) / (mass(A, visual) + 1e-6 * tokens)
    chosen = (share <= rho) & (mass(A, visual) >= least)
    ratio = xp.where(visual & ~sinks, A, xp.zeros_like(A))
    whole = xp.sum(ratio, axis=-1, keepdims=True)
    ratio = ratio / xp.where(whole == 0, xp.ones_like(whole), whole)
    changed = xp.where(sinks, A * p, A) + (1 - p) * mass(A, sinks) * ratio
    return xp.where(chosen, changed, A)


# -- printed scores ----------------------------------------------------------------------------------------------------


def recall(f1: Real, accuracy: Real) -> Real:
    """The recall R that an F1 and an accuracy ask for, half of the questions being positive: F1 = R / (R + 1 - acc)."""
    return f1 * (1 - accuracy) / (1 - f1)


def false_alarms(hits: Real, accuracy: Real) -> Real:
    """The rate of false alarms: 1 + R - 2 acc."""
    return 1 + hits - 2 * accuracy


def least_spread(f1: float, accuracy: float, hits: float, steps: int = 400) -> float:
    """How far the false-alarm rates of three balanced sets must differ for their mean F1 to reach f1; inf: no way.

    All three have the recall `hits`, and together the mean accuracy. F1 = 2 R / (1 + R + f) is convex in f: at a given
    spread its mean is largest with the middle rate at an end of the range, or the lowest rate at 0. Spreads on a grid.
    """
    centre = false_alarms(hits, accuracy)
    for spread in np.linspace(0, 1, steps + 1):
        for low in (centre - spread / 3, centre - 2 * spread / 3, 0.0):
            rates = np.array([low, 3 * centre - 2 * low - spread, low + spread])
            ordered = low >= -1e-12 and low - 1e-12 <= rates[1] <= rates[2] + 1e-12 and rates[2] <= 1
            if ordered and float(np.mean(2 * hits / (1 + hits + rates))) >= f1:
                return float(spread)
    return math.inf
