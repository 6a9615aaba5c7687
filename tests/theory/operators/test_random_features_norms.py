"""Coefficients and norms of the kernel of random-feature attention."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.operators import random_features_norms as norms
from theory.operators.random_features import kernel, sphere
from theory.operators.random_features_targets import average, correlated


def test_kappa_has_its_known_coefficients():
    assert [norms.kappa_even(j) for j in range(3)] == [1, Fraction(1, 2), Fraction(1, 24)]
    assert [norms.kappa_coefficient(k) for k in (1, 3, 5)] == [0.25, 0, 0]


def test_class_weights_are_rounded_down_and_at_least_one():
    assert norms.class_weight(0) == norms.class_weight(0) == 1
    assert norms.class_weight(1) == 4
    assert norms.class_weight(4) == 4**4 * 2 * 4**4
    weight = norms.class_weight(3)
    assert weight**2 <= Fraction(3**9 * 4**6)
    assert float(weight) == pytest.approx(3**4.5 * 64)


def test_the_first_coefficient_is_kappa_of_a_quarter():
    assert norms.coefficient(0, 0) == pytest.approx(
        (math.sqrt(15) / 4 + (math.pi - math.acos(0.25)) / 4) / (2 * math.pi)
    )


def test_more_terms_only_lower_the_ball():
    pytest.importorskip("flint")
    few, many = norms.inverse_ball(2, 1, 4), norms.inverse_ball(2, 1, 40)
    assert float(many.upper()) < float(few.lower())
    assert float(many.mid()) == pytest.approx(1 / norms.coefficient(2, 1))


def test_at_two_keys_the_network_has_attentions_query_coefficients():
    for power in range(6):
        assert norms.network_coefficient(power, 4) == pytest.approx(norms.coefficient(power, 0), rel=1e-11)


def test_norms_have_the_catalogued_values():
    assert [norms.average_norm(p) for p in (1, 2, 3, 4)] == pytest.approx([3.342, 12.872, 190.45, 6738.8], rel=1e-3)
    assert [norms.query_norm(p) for p in (1, 2)] == pytest.approx([13.783, 194.68], rel=1e-4)
    assert norms.network_average_norm(2, 64) == pytest.approx(855.2, rel=1e-4)
    assert norms.network_query_norm(2, 16) == pytest.approx(4065.2, rel=1e-4)
    assert norms.correlation_norm(1, 5) == pytest.approx(5 / norms.coefficient(1, 2))


def test_the_exact_norm_lies_between_interpolation_and_the_tensors():
    draw = np.random.default_rng(0)
    x, b = sphere(draw, 400, 2, 3), sphere(draw, 3)
    exact = norms.exact_correlation_norm(3)
    found = norms.interpolation_norm(kernel(x, x), correlated(1)(x, b), 1e-9)
    assert 0.9 * exact < found <= exact * (1 + 1e-4)
    assert exact < norms.correlation_norm(1, 3)


def test_interpolation_needs_the_norm_of_the_kernels_own_functions():
    """f = K(., x_0) has squared norm K(x_0, x_0)."""
    x = sphere(np.random.default_rng(1), 30, 3, 3)
    K = kernel(x, x)
    assert norms.interpolation_norm(K, K[0], 1e-12) == pytest.approx(K[0, 0], rel=1e-6)


def test_interpolation_grows_with_the_inputs():
    draw = np.random.default_rng(2)
    x, b = sphere(draw, 60, 3, 2), sphere(draw, 2)
    K, y = kernel(x, x), average(2)(x, b)
    assert norms.interpolation_norm(K[:20, :20], y[:20], 1e-9) <= norms.interpolation_norm(K, y, 1e-9) * (1 + 1e-6)


def test_the_bound_of_the_risk_is_a_sum_of_two_roots():
    assert norms.risk_bound(4, 100, 10_000, 5) == pytest.approx(2 * (0.1 + 0.05))


def test_tail_polynomials_are_right_minus_left():
    found = norms.tail_polynomials(Fraction(2))
    assert found["central binomial"].eval(0) == 9 * 2 - 16
    assert found["even degrees"].eval(1) == 4 * 6**9 - 80 * 6 * 5**4
    assert found["odd degrees"].eval(0) == 4 * 5**5 - 1280 * 6
