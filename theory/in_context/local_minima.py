"""Strict local minima of polynomials, proved: in exact arithmetic, or in ball arithmetic (Arb) around a float64 point.

A ball provably contains the true number, so that a strict inequality between balls is a proof.
Source: Krawczyk, 1969; Neumaier, Interval Methods for Systems of Equations, 1990, section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.in_context.gaussian_moments import leading_minors


@dataclass(frozen=True)
class Certificate:
    """What ball arithmetic proves about a box.

    contraction  largest |K(X)_i - x_i| / radius: below 1 the box holds exactly one critical point
    pivot        lower bound of the pivots of the Hessian over the box: above 0 that point is a strict local minimum
    value        (low, high) enclosure of the polynomial on the box
    """

    contraction: float
    pivot: float
    value: tuple[float, float]


def refine(polynomial: Any, point: np.ndarray, steps: int = 8) -> np.ndarray:
    """Newton's method for a critical point, in float64. point (k,): one value per generator of the ring."""
    slopes, curvatures = derivatives(polynomial)
    for _ in range(steps):
        values = [float(x) for x in point]
        slope = np.array([evaluate(p, values) for p in slopes], dtype=float)
        curvature = np.array([[evaluate(p, values) for p in row] for row in curvatures], dtype=float)
        point = point - np.linalg.solve(curvature, slope)
    return point


def certify_minimum(polynomial: Any, point: np.ndarray, radius: float) -> Certificate:
    """Certificate for the box of the given radius around a point.

    polynomial  element of a sympy ring over the rationals, in k variables
    point       (k,) float64, finite;  radius  positive float
    Raises ValueError for a radius that is not positive, ZeroDivisionError where the Hessian at the point is singular.
    """
    from flint import arb, arb_mat

    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    slopes, curvatures = derivatives(polynomial)
    centre, box = [arb(x) for x in point], [arb(x, radius) for x in point]
    size = len(centre)
    curvature = arb_mat([[evaluate(p, box) for p in row] for row in curvatures])
    middle = arb_mat([[evaluate(p, centre) for p in row] for row in curvatures])
    inverse = arb_mat([[entry.mid() for entry in row] for row in middle.inv().table()])
    shift = inverse * arb_mat([[evaluate(p, centre)] for p in slopes])
    identity = arb_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])
    offsets = arb_mat([[arb(0, radius)] for _ in range(size)])
    moved = (identity - inverse * curvature) * offsets - shift
    reach = max(upper(abs(entry)) for row in moved.table() for entry in row)
    value = evaluate(polynomial, box)
    return Certificate(reach / radius, smallest_pivot(curvature), (-upper(-value), upper(value)))


def exact_derivatives(polynomial: Any, point: np.ndarray) -> tuple[Any, list[Any], list[Any]]:
    """Value, gradient (k entries) and leading minors of the Hessian (k entries) in the arithmetic of the coefficients.

    point  (k,), dtype object, of the ring's domain. Zero gradient and positive minors: a strict local minimum.
    """
    ring = polynomial.ring
    place = [(generator, ring(value)) for generator, value in zip(ring.gens, point, strict=True)]

    def at_point(p: Any) -> Any:
        return p.compose(place).coeff(1)

    slopes, curvatures = derivatives(polynomial)
    hessian = np.array([[at_point(p) for p in row] for row in curvatures], object)
    return at_point(polynomial), [at_point(p) for p in slopes], leading_minors(hessian)


def smallest_pivot(matrix: Any) -> float:
    """Lower bound of the pivots of LDL^T for each symmetric matrix in an arb_mat; -inf where one may vanish."""
    rows = matrix.table()
    least = math.inf
    for k, pivot_row in enumerate(rows):
        least = min(least, -upper(-pivot_row[k]))
        if pivot_row[k].contains(0):
            return -math.inf
        for row in rows[k + 1 :]:
            factor = row[k] / pivot_row[k]
            row[k:] = [entry - factor * above for entry, above in zip(row[k:], pivot_row[k:], strict=True)]
    return least


def derivatives(polynomial: Any) -> tuple[list[Any], list[list[Any]]]:
    """Gradient and Hessian of a polynomial with respect to all generators of its ring."""
    generators = polynomial.ring.gens
    slopes = [polynomial.diff(g) for g in generators]
    return slopes, [[slope.diff(g) for g in generators] for slope in slopes]


def evaluate(polynomial: Any, values: list[Any]) -> Any:
    """A polynomial with rational coefficients at floats or at balls, in their arithmetic."""
    total = values[0] * 0
    for powers, coefficient in polynomial.terms():
        term = values[0] * 0 + int(coefficient.numerator)
        for value, power in zip(values, powers, strict=True):
            term = math.prod([value] * power, start=term)  # Arb's own power is NaN for a ball around zero
        total = total + term / int(coefficient.denominator)
    return total


def upper(ball: Any) -> float:
    """A float64 that no number in the ball exceeds."""
    return math.nextafter(float(ball.upper()), math.inf)
