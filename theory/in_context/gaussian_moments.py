"""Exact moments of a prompt made of Gaussian variables, as polynomials in its length and its noise.

A prompt holds n examples v_i = (x_i, y_i) with x_i = A xi_i, y_i = f(x_i, w) + eps_i, where one weight vector
w = mu + B omega is shared by the whole prompt, f is a polynomial and xi_i, omega, eps_i are independent Gaussians.
Every moment of the matrix G = sum_i v_i v_i^T is then a polynomial with rational coefficients, found monomial by
monomial from E z^k = (k - 1)!! for even k (Isserlis, 1918). Nothing is sampled and nothing is rounded.

Notation: n the number of examples, s2 the noise variance sigma^2, c a free parameter of the response f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Matrix = tuple[tuple[Any, ...], ...]
Response = Callable[[Sequence[Any], Sequence[Any], Any], Any]


@dataclass(frozen=True)
class Moments:
    """Everything the population loss of a linear attention layer depends on.

    The features of a prompt are the F = (d + 1)(d + 2) / 2 entries G_bc, b <= c, row by row; index d stands for y.

    target  E[y^2] of the query, noise included: scalar
    query   (d, d)   E[x x^T] of the query
    cross   (d, F)   E[y x_a G_bc], with (x, y) the query
    gram    (F, F)   E[G_bc G_b'c']

    The arrays hold float64, or (dtype object) exact polynomials in n, s2 and c.
    """

    target: Any
    query: np.ndarray
    cross: np.ndarray
    gram: np.ndarray

    def map(self, convert: Callable[[Any], Any], dtype: type = object) -> Moments:
        """The same moments with every entry converted, in arrays of the given dtype."""
        arrays = [np.vectorize(convert, otypes=[object])(a).astype(dtype) for a in (self.query, self.cross, self.gram)]
        return Moments(convert(self.target), *arrays)

    def at(self, n: Any, noise: Any, c: Any = 0) -> Moments:
        """Float64 values of exact moments at the given length, noise variance and response parameter."""
        return self.map(lambda polynomial: float(polynomial(n, noise, c)), dtype=float)

    def loss(self, coefficients: np.ndarray) -> Any:
        """E (y - sum_a,f T_af G_f x_a)^2 for coefficients T of shape (d, F), in the arithmetic of the entries."""
        explained = (self.query * (coefficients @ self.gram @ coefficients.T)).sum()
        return self.target - 2 * (coefficients * self.cross).sum() + explained

    def residual(self, coefficients: np.ndarray) -> np.ndarray:
        """(d, F) minus half the gradient of `loss`: zero exactly at its minimum, for the loss is convex in T."""
        left_over: np.ndarray = self.cross - self.query @ coefficients @ self.gram
        return left_over


def linear_response(x: Sequence[Any], w: Sequence[Any], c: Any) -> Any:
    """w.x: the response of Theorems 1 and 2."""
    return sum(a * b for a, b in zip(x, w, strict=True))


def quadratic_response(x: Sequence[Any], w: Sequence[Any], c: Any) -> Any:
    """w.x + c (w.x)^2: rotation-invariant over w ~ N(0, I), not sign-symmetric unless c = 0."""
    return linear_response(x, w, c) + c * linear_response(x, w, c) ** 2


def cubic_response(x: Sequence[Any], w: Sequence[Any], c: Any) -> Any:
    """w.x + c (w.x)^3: rotation-invariant and sign-symmetric."""
    return linear_response(x, w, c) + c * linear_response(x, w, c) ** 3


def square_response(x: Sequence[Any], w: Sequence[Any], c: Any) -> Any:
    """(w.x)^2: even, so that it has no linear part."""
    return linear_response(x, w, c) ** 2


def expectation(polynomial: Any, variances: Sequence[tuple[int, Any]]) -> Any:
    """E over independent centred Gaussians, exactly.

    polynomial  element of a sympy polynomial ring
    variances   pairs (position of the generator in the ring, its variance, an element of the ring)
    returns     element of the same ring, free of those generators
    """
    total = polynomial.ring.zero
    for powers, coefficient in polynomial.terms():
        if any(powers[i] % 2 for i, _ in variances):
            continue
        kept, factor = list(powers), polynomial.ring(coefficient)
        for i, variance in variances:
            factor *= math.prod(range(1, powers[i], 2)) * variance ** (powers[i] // 2)
            kept[i] = 0
        total += factor * polynomial.ring({tuple(kept): polynomial.ring.domain.one})
    return total


@cache
def prompt_moments(
    d: int,
    response: Response = linear_response,
    *,
    mixing: Matrix | None = None,
    weights: Matrix | None = None,
    mean: tuple[Any, ...] | None = None,
    shared: bool = True,
) -> Moments:
    """Exact moments of a prompt in dimension d, as polynomials of the ring QQ[n, s2, c].

    response  f(x, w, c), polynomial, without the noise
    mixing    (d, d) rational A with x = A xi; identity if None
    weights   (d, d) rational B and
    mean      (d,) rational mu with w = mu + B omega; identity and zero if None
    shared    False draws a new w for every example, so that there is nothing to learn from the prompt

    Raises ValueError for d < 1.
    """
    from sympy import QQ
    from sympy.polys.rings import ring

    if d < 1:
        raise ValueError(f"d must be at least 1, got {d}")
    names = ["n", "s2", "c", *(f"{kind}{i}" for kind in ("x", "w") for i in range(d)), "e"]
    space, n, s2, c, *latent = ring(names, QQ)
    x = _mix(mixing, latent[:d])
    w = [shift + value for shift, value in zip(mean or [0] * d, _mix(weights, latent[d : 2 * d]), strict=True)]
    z = [*x, response(x, w, c) + latent[2 * d]]
    per_example = [*((3 + i, space.one) for i in range(d)), (3 + 2 * d, s2)]
    per_prompt = [(3 + d + i, space.one) for i in range(d)]

    def over_prompts(first: Any, second: Any) -> Any:
        """E[first second], two factors that belong to different examples of one prompt."""
        if shared:
            return expectation(first * second, per_prompt)
        return expectation(first, per_prompt) * expectation(second, per_prompt)

    features = [z[b] * z[k] for b in range(d + 1) for k in range(b, d + 1)]
    given_w = [expectation(f, per_example) for f in features]
    pairs = list(zip(features, given_w, strict=True))
    query = [expectation(x_a * z[d], per_example) for x_a in x]
    gram = [
        [n * expectation(f * g, per_example + per_prompt) + n * (n - 1) * over_prompts(p, q) for g, q in pairs]
        for f, p in pairs
    ]
    cross = [[n * over_prompts(q, p) for p in given_w] for q in query]
    second = [[expectation(x_a * x_b, per_example) for x_b in x] for x_a in x]
    arrays = [np.array(entries, object) for entries in (second, cross, gram)]
    exact = Moments(expectation(z[d] ** 2, per_example + per_prompt), *arrays)
    parameters = ring(names[:3], QQ)[0]
    return exact.map(lambda polynomial: parameters.from_dict({m[:3]: v for m, v in polynomial.terms()}))


def _mix(matrix: Matrix | None, latent: Sequence[Any]) -> list[Any]:
    """matrix times latent, or latent itself."""
    if matrix is None:
        return list(latent)
    return [sum(entry * value for entry, value in zip(row, latent, strict=True)) for row in matrix]


def rational_functions() -> tuple[Any, Any, Any, Any]:
    """The sympy field QQ(n, s2, c), which `Moments.map` takes as a conversion, and its three generators."""
    from sympy import QQ
    from sympy.polys.fields import field

    K, n, s2, c = field("n,s2,c", QQ)
    return K, n, s2, c


def leading_minors(gram: np.ndarray) -> list[Any]:
    """Leading principal minors of a matrix of polynomials, by fraction-free elimination (Bareiss, 1968).

    gram  (F, F), dtype object, elements of one polynomial ring; no leading minor but the last may vanish.
    """
    rows = gram.copy()
    previous = gram[0, 0] ** 0
    for k in range(len(rows) - 1):
        below = rows[k + 1 :, k + 1 :] * rows[k, k] - np.outer(rows[k + 1 :, k], rows[k, k + 1 :])
        rows[k + 1 :, k + 1 :] = below / previous  # the division is exact
        previous = rows[k, k]
    return list(np.diagonal(rows))


def is_positive(polynomial: Any, least: Sequence[int] = (1, 0, 0)) -> bool:
    """Whether a polynomial is seen to be positive wherever each variable is at least its entry of `least`.

    Sufficient, not necessary: after the shift to `least` no coefficient is negative and the constant is positive.
    """
    generators = polynomial.ring.gens
    shifted = polynomial.compose([(g, g + shift) for g, shift in zip(generators, least, strict=True)])
    return bool(all(value >= 0 for value in shifted.coeffs()) and shifted.coeff(1) > 0)
