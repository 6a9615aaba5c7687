"""Certified minima: on polynomials whose minima are known, and on points that are none."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from theory.in_context.local_minima import (
    Certificate,
    certify_minimum,
    evaluate,
    exact_derivatives,
    refine,
    smallest_pivot,
    upper,
)


def bowl():
    """(x - 1/3)^2 + x y + y^2 + y^4: minimum where 2 (x - 1/3) + y = 0 and x + 2 y + 4 y^3 = 0."""
    from sympy import QQ
    from sympy.polys.rings import ring

    _, x, y = ring("x,y", QQ)
    return (x - QQ(1, 3)) ** 2 + x * y + y**2 + y**4


def test_newton_finds_the_critical_point():
    x, y = refine(bowl(), np.array([0.5, -0.2]))
    assert 2 * (x - 1 / 3) + y == pytest.approx(0, abs=1e-14)
    assert x + 2 * y + 4 * y**3 == pytest.approx(0, abs=1e-14)


def test_a_minimum_is_certified_and_its_value_enclosed():
    point = refine(bowl(), np.array([0.5, -0.2]))
    certificate = certify_minimum(bowl(), point, 1e-8)
    assert 0 < certificate.contraction < 1e-5
    assert 0 < certificate.pivot <= 2
    low, high = certificate.value
    value = (point[0] - 1 / 3) ** 2 + point[0] * point[1] + point[1] ** 2 + point[1] ** 4
    assert low < value < high < low + 1e-6


def test_a_point_outside_the_box_is_not_certified():
    point = refine(bowl(), np.array([0.5, -0.2])) + 1e-6
    assert certify_minimum(bowl(), point, 1e-8).contraction > 1


def test_a_saddle_has_a_negative_pivot():
    _, x, y = plane()
    certificate = certify_minimum(x**2 + 4 * x * y + y**2, np.zeros(2), 1e-8)
    assert certificate.contraction < 1
    assert certificate.pivot == pytest.approx(-6)


def plane():
    from sympy import QQ
    from sympy.polys.rings import ring

    return ring("x,y", QQ)


def test_a_hessian_that_may_be_singular_in_the_box_gives_no_pivot():
    _, x, y = plane()
    certificate = certify_minimum(x**4 + x**2 + y**2 - y**4, np.array([0.0, 6**-0.5 + 1e-4]), 1e-3)
    assert certificate.pivot == -np.inf


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_radius_must_be_positive(radius):
    with pytest.raises(ValueError, match="radius must be positive"):
        certify_minimum(bowl(), np.zeros(2), radius)


def test_pivots_are_bounded_from_below():
    from flint import arb, arb_mat

    matrix = arb_mat([[arb(4, 1e-3), arb(2)], [arb(2), arb(5, 1e-3)]])
    assert 3.99 < smallest_pivot(matrix) < 3.9990001
    assert smallest_pivot(arb_mat([[2, 1, 0], [1, 2, 1], [0, 1, 2]])) == pytest.approx(4 / 3)
    assert smallest_pivot(arb_mat([[arb(0, 1e-9), arb(0)], [arb(0), arb(1)]])) == -np.inf


def test_polynomials_are_evaluated_in_floats_and_in_balls():
    from flint import arb

    _, x, y = plane()
    polynomial = x**2 * y / 3 - 2 * y + 5
    assert evaluate(polynomial, [3.0, 2.0]) == pytest.approx(7)
    ball = evaluate(polynomial, [arb(3), arb(2)])
    assert ball.contains(7)
    assert evaluate(polynomial - polynomial, [3.0, 2.0]) == 0


def test_an_upper_bound_lies_above_the_ball():
    from flint import arb

    third = arb(1) / 3
    assert third < upper(third) <= 1 / 3 + 1e-15
    assert upper(arb(1)) > 1


def test_exact_derivatives_are_those_of_the_polynomial():
    from sympy import QQ

    _, x, y = plane()
    value, gradient, minors = exact_derivatives(x**2 + x * y + 2 * y**2, np.array([QQ(1), QQ(-2)], object))
    assert value == 7
    assert gradient == [0, -7]
    assert minors == [2, 7]
    assert Fraction(int(value.numerator), 1) == 7


def test_a_point_of_the_wrong_length_is_refused():
    from sympy import QQ
    from sympy.polys.rings import ring

    _, x, y = ring("x,y", QQ)
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        evaluate(x * y, [1.0])
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        exact_derivatives(x * y, np.array([QQ(1)]))


def test_a_certificate_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Certificate(0.5, 1.0, (0.0, 1.0)).pivot = 2.0
