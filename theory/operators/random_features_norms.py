"""RKHS norms of random-feature attention: exact coefficients of its kernel, and the complexity B(f*) of the paper.

For unit tokens the kernel is k(a, b) = (1 + b) kappa((1 + a)(1 + b) / 4) averaged over pairs of keys, with
a = <x_0, x_0'>, b = <x_i, x_j'>. With kappa(rho) = sum_k kappa_k rho^k it is sum_rs c_rs a^r b^s,

    c_rs = sum_{k >= max(r, s - 1)} kappa_k 4^-k binom(k, r) binom(k + 1, s),

so that f = (1/N) sum_i sum_rs <f_rs, x_0^(r) x x_i^(s)> has |f|_H^2 <= sum_rs |f_rs|_F^2 / c_rs. The paper measures f
by B(f) = sum_k C_k sum_{max(r, s - 1) = k} |f_rs|_F^2 (arXiv:2307.11353, Section 3, from memory), and `class_weight` is
C_k. kappa_0 = 1 / (2 pi), kappa_1 = 1/4, kappa_k = 0 for odd k >= 3, and even ones are rationals over pi.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

NORM_CONSTANT = Fraction(442, 100)
"""|f|_H^2 <= 4.42 B(f); 1 / c_00 = 1 / kappa(1/4) = 4.4118... is the least constant that can stand here."""


def kappa_even(j: int) -> Fraction:
    """2 pi kappa_{2j} = binom(2j, j) / (4^j (2j - 1)^2), exactly."""
    return Fraction(math.comb(2 * j, j), 4**j * (2 * j - 1) ** 2)


def kappa_coefficient(k: int) -> float:
    """kappa_k, float64."""
    if k % 2:
        return 0.25 if k == 1 else 0.0
    return float(kappa_even(k // 2)) / (2 * math.pi)


def class_weight(k: int) -> Fraction:
    """C_k = max(1, k^4.5 4^k), rounded down to a rational, so that a bound by it is a bound by C_k."""
    root = Fraction(math.isqrt(k * 10**40), 10**20)  # sqrt(k), at most 1e-20 too small
    weight: Fraction = k**4 * root * 4**k
    return max(Fraction(1), weight)


def coefficient_parts(r: int, s: int, terms: int) -> tuple[Fraction, Fraction]:
    """Rationals (p, q) with c_rs >= p + q / (2 pi): the first `terms` terms of its series, which are all >= 0."""
    first = max(r, s - 1, 0)
    plain, over_pi = Fraction(0), Fraction(0)
    for k in range(first, first + terms):
        binomials = Fraction(math.comb(k, r) * math.comb(k + 1, s), 4**k)
        if k == 1:
            plain += binomials / 4
        elif k % 2 == 0:
            over_pi += binomials * kappa_even(k // 2)
    return plain, over_pi


def coefficient(r: int, s: int, terms: int = 200) -> float:
    """c_rs, float64: its first `terms` terms, so never too large. All 200 are enough for r + s up to about 100."""
    plain, over_pi = coefficient_parts(r, s, terms)
    return float(plain) + float(over_pi) / (2 * math.pi)


def inverse_ball(r: int, s: int, terms: int = 12) -> Any:
    """An upper bound of 1 / c_rs as a flint ball, from the first `terms` terms of c_rs."""
    from flint import arb, fmpq

    plain, over_pi = (arb(fmpq(p.numerator, p.denominator)) for p in coefficient_parts(r, s, terms))
    return 1 / (plain + over_pi / (2 * arb.pi()))


def network_coefficient(p: int, tokens: int, terms: int = 1000) -> float:
    """c^MLP_p = sum_k kappa_k tokens^-k binom(k, p), tokens = N + 2: the weight of <u, u'>^p in RFMLP's kernel.

    u stacks x_0, ..., x_N; so <g, u^(p)> has squared norm |g|_F^2 / c^MLP_p. Terms in float64, all >= 0.
    """
    from scipy.special import gammaln

    k = 2.0 * np.arange(-(-p // 2), terms)
    log_central = gammaln(k + 1) - 2 * gammaln(k / 2 + 1) - k * math.log(2)  # of binom(k, k/2) / 2^k
    log_binomial = gammaln(k + 1) - gammaln(p + 1) - gammaln(k - p + 1)
    even = np.exp(log_central + log_binomial - k * math.log(tokens)) / (2 * math.pi * (k - 1) ** 2)
    return float(even.sum()) + (0.25 / tokens if p <= 1 else 0.0)


def average_norm(power: int) -> float:
    """Bound of the squared norm of (1/N) sum <b, x_i>^power for attention: 1 / c_0power, whatever N."""
    return 1 / coefficient(0, power)


def query_norm(power: int) -> float:
    """The same for <b, x_0>^power: 1 / c_power0."""
    return 1 / coefficient(power, 0)


def correlation_norm(power: int, d: int) -> float:
    """The same for (1/N) sum t_i^power <b, x_i>, of degree power in x_0 and power + 1 in x_i.

    Its tensor has squared norm d^power, as |(sum_a e_a x e_a)^(power)|_F^2 does.
    """
    return float(d**power) / coefficient(power, power + 1)


def network_average_norm(power: int, keys: int) -> float:
    """Squared norm of (1/N) sum <b, x_i>^power for RFMLP: its tensor is b^(power) in each of N places, over N."""
    return 1 / keys / network_coefficient(power, keys + 2)


def network_query_norm(power: int, keys: int) -> float:
    """Squared norm of <b, x_0>^power for RFMLP."""
    return 1 / network_coefficient(power, keys + 2)


def exact_correlation_norm(d: int, nodes: int = 200) -> float:
    """Squared norm of (1/N) sum t_i <b, x_i> for attention, exactly, with tokens on the sphere of R^d, d >= 3.

    Funk and Hecke: k's eigenvalue on harmonics of degrees l in x_0 and m in x_i is E k(a, b) P_l(a) P_m(b) for
    independent first coordinates a, b of uniform points and Gegenbauer polynomials with P(1) = 1. <x_0, x><b, x> has
    degree 1 in x_0, and in x degree 0, of variance d^-3, and degree 2, of the remaining variance d^-2 - d^-3.
    """
    from scipy.special import roots_gegenbauer

    from theory.operators.random_features import kappa

    points, mass = roots_gegenbauer(nodes, d / 2 - 1)
    mass = mass / mass.sum()
    values = kappa((1 + points[:, None]) * (1 + points) / 4) * (1 + points)
    second = (d * points**2 - 1) / (d - 1)
    constant, quadratic = (float((mass * points) @ values @ (mass * P)) for P in (1 + 0 * points, second))
    return float(d**-3 / constant + (d**-2 - d**-3) / quadratic)


def interpolation_norm(K: np.ndarray, y: np.ndarray, jitter: float) -> float:
    """y^T (K + jitter I)^-1 y: at most the squared norm of every function with values y (n,); K (n, n), float64."""
    values, vectors = np.linalg.eigh(K)
    return float(((vectors.T @ y) ** 2 / (np.maximum(values, 0) + jitter)).sum())


def risk_bound(complexity: float, samples: float, heads: float, d: int) -> float:
    """Theorem 2's bound of the excess risk with constant 1 and no logarithms: sqrt(B) (n^-1/2 + d M^-1/2)."""
    return math.sqrt(complexity) * (1 / math.sqrt(samples) + d / math.sqrt(heads))


def tail_polynomials(constant: Fraction = NORM_CONSTANT) -> dict[str, Any]:
    """Polynomials in t whose coefficients are all positive iff written so: then 1 / c_rs <= constant C_k for k >= 5.

    With j = k/2 (even k) or (k + 1)/2 (odd k), keeping the one term 2j of the series of c_rs, and all binomials >= 1,

        1 / c_rs <= 4^(2j) / kappa_2j <= 4^(2j) 4 pi sqrt(j) (2j - 1)^2,    as binom(2j, j) >= 4^j / (2 sqrt(j)).

    Squared, with pi^2 < 10, the bound constant C_k is: even, 80 k (k - 1)^4 <= constant^2 k^9; odd, 1280 (k + 1) k^4 <=
    constant^2 k^9. "central binomial" is the induction step of the last inequality, squared: (2j + 1)^2 (j + 1) minus
    (2j + 2)^2 j at j = 1 + t. The others are right minus left at k = 5 + t, odd ones divided by k^4.
    """
    from sympy import Poly, Rational, symbols

    t = symbols("t")
    k, j, square = t + 5, t + 1, Rational(constant.numerator, constant.denominator) ** 2
    return {
        "central binomial": Poly((2 * j + 1) ** 2 * (j + 1) - (2 * j + 2) ** 2 * j, t),
        "even degrees": Poly(square * k**9 - 80 * k * (k - 1) ** 4, t),
        "odd degrees": Poly(square * k**5 - 1280 * (k + 1), t),
    }
