"""Attention with outliers as attention times a factor, in closed form; content under RMSNorm; thresholds; rounding.

    s   (..., n)     scores of a query                     O   (n,) bool   the outlier tokens
    v   (..., n, e)  values                                S   what the other tokens keep of the weights
    x = c + M u: a token's content c with a massive activation M along the unit vector u

Functions of + - * / and powers run on floats, fractions, arrays and sympy symbols alike. Source of the variants and
thresholds: An et al., arXiv:2502.06415, table 2 and section 3; the closed forms are derived here.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import softmax_rows
from theory.sinks.measures import lengths

Array = Any
Real = Any
"""A number, an array or a sympy expression."""


# -- outliers as a factor ----------------------------------------------------------------------------------------------


def parts(s: Array, v: Array, outlier: Array) -> tuple[Array, Array, Array]:
    """S (...), the others' output (..., e) and the outliers' own (..., e), each with weights that sum to 1.

    Attention over all tokens is S times the second plus (1 - S) times the third.

    Raises:
        ValueError: all tokens are outliers, or none is.
    """
    xp = array_namespace(s)
    if xp.all(outlier) or not xp.any(outlier):
        raise ValueError("a factor needs outliers and others: choose some of the tokens, not all and not none")
    S = xp.sum(xp.where(outlier, xp.zeros_like(s), softmax_rows(s)), axis=-1)
    others, own = (softmax_rows(s, one)[..., None, :] @ v for one in (~outlier, outlier))
    return S, others[..., 0, :], own[..., 0, :]


def gap(S: Real, log: Any = math.log) -> Real:
    """ln((1 - S) / S): by how much the outliers' logit (their log-sum-exp) must exceed the others', for a factor S."""
    return log((1 - S) / S)


def gate_logit(S: Real, log: Any = math.log) -> Real:
    """ln(S / (2 - S)): where the gate 2 / (1 + exp(-z)) of variant (e) is S, 0 < S < 2."""
    return log(S / (2 - S))


def context_aware_bias(weighted: Real, total: Real, star: Real, value: Real) -> Real:
    """Variant (c), y + (1 - S) v', with weighted = sum_j e_j v_j and total = sum_j e_j, as in `with_star`."""
    return weighted / total + star / (total + star) * value


# -- content under RMSNorm ---------------------------------------------------------------------------------------------


def distance_from_limit(along: Real, across: Real, sqrt: Any = np.sqrt) -> Real:
    """|x / |x| - u| for x with `along` = x.u > 0 and |x - (x.u) u| = `across`; RMSNorm has it times sqrt(D).

    sqrt(2 - 2 along / |x|), written without cancellation. At most across / along.
    """
    size = sqrt(along**2 + across**2)
    return across * sqrt(2 / (size * (size + along)))


def rms_norm(x: Array) -> Array:
    """sqrt(D) x / |x|, (..., D): RMSNorm without epsilon and gain."""
    return math.sqrt(x.shape[-1]) * x / lengths(x)[..., None]


# -- thresholds --------------------------------------------------------------------------------------------------------


def smallest_outlier(n: int, tau: Fraction) -> Fraction:
    """tau (n - 1) / (n - tau): among n elements, n - 1 of them of size 1, one above this exceeds tau times the mean.

    Raises:
        ValueError: n <= tau, where no element of n can, as the largest is at most n times the mean.
    """
    if n <= tau:
        raise ValueError(f"{n} elements: none can exceed {tau} times their mean; take more")
    return tau * (n - 1) / (n - tau)


def uniform_share(key: int, n: int) -> Fraction:
    """Of all n rows' attention, what key `key` (from 0) gets under uniform causal attention: (H_n - H_key) / n."""
    return sum((Fraction(1, t) for t in range(key + 1, n + 1)), Fraction(0)) / n


# -- rounding ----------------------------------------------------------------------------------------------------------


def gaussian_rounding_error(step: float, terms: int = 400) -> float:
    """rms(round(x) - x) / rms(x) for x ~ N(0, 1), rounded to the nearest multiple of `step`, exact but for the tail.

    The square is step^2 (1 / 12 + sum_k (-1)^k exp(-2 (pi k / step)^2) / (pi k)^2): the error is a sawtooth of x, and
    its square has this Fourier series. Below a step of 1 it is less than 3e-9 of the whole: step / sqrt(12) is left.
    """
    k = np.arange(1, terms + 1)
    series = (-1.0) ** k * np.exp(-2 * (math.pi * k / step) ** 2) / (math.pi * k) ** 2
    return step * math.sqrt(1 / 12 + float(series.sum()))


def gaussian_zeroed(step: float) -> float:
    """The share of N(0, 1) that rounds to 0: erf(step / sqrt(8))."""
    return math.erf(step / math.sqrt(8))


def step_over_deviation(ratio: float, bits: int) -> float:
    """AbsMax's step in deviations of a Gaussian, where the largest is `ratio` times the mean magnitude sqrt(2 / pi)."""
    return ratio * math.sqrt(2 / math.pi) / float(2 ** (bits - 1) - 1)
