"""Exact Gaussian moments against known values and against quadrature."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from theory.in_context.gaussian_moments import (
    cubic_response,
    expectation,
    is_positive,
    leading_minors,
    linear_response,
    prompt_moments,
    quadratic_response,
    rational_functions,
    square_response,
)


def numbers(names):
    from sympy import QQ
    from sympy.polys.rings import ring

    return ring(names, QQ)


@pytest.mark.parametrize(("power", "moment"), [(0, 1), (1, 0), (2, 1), (3, 0), (4, 3), (6, 15), (8, 105)])
def test_powers_of_a_standard_normal_have_double_factorials_as_means(power, moment):
    space, a, x = numbers("a,x")
    assert expectation((a + 2) * x**power if power else a + 2, [(1, space.one)]) == (a + 2) * moment


def test_a_variance_may_be_symbolic_and_other_variables_are_left_alone():
    _, s2, x, e = numbers("s2,x,e")
    assert expectation(7 * x * e**4 + x**2 * e + e**2, [(2, s2)]) == 21 * x * s2**2 + s2


def test_products_of_independent_variables_factor():
    space, x, y = numbers("x,y")
    assert expectation((x + y) ** 4, [(0, space.one), (1, space.one)]) == 3 + 6 + 3


def test_moments_of_one_dimension_are_the_known_polynomials():
    moments = prompt_moments(1)
    n, s2, _ = moments.target.ring.gens
    assert moments.target == 1 + s2
    assert moments.query[0, 0] == 1
    assert list(moments.cross[0]) == [0, n, 0]
    assert moments.gram[0, 0] == n**2 + 2 * n  # E (sum x^2)^2
    assert moments.gram[1, 1] == n * (n + 2 + s2)
    assert moments.gram[2, 2] == (n**2 + 2 * n) * (3 + 2 * s2 + s2**2)
    assert moments.gram[0, 2] == moments.gram[2, 0] == n**2 * (1 + s2) + 2 * n
    assert moments.gram[0, 1] == 0


def test_new_weights_for_every_example_leave_nothing_to_learn():
    moments = prompt_moments(1, shared=False)
    n, s2, _ = moments.target.ring.gens
    assert not moments.cross.any()
    assert moments.gram[1, 1] == n * (3 + s2)
    assert moments.gram[2, 2] == n * (9 + 6 * s2 + 3 * s2**2) + n * (n - 1) * (1 + s2) ** 2


@pytest.mark.parametrize(
    ("response", "options"),
    [
        (linear_response, {}),
        (quadratic_response, {}),
        (cubic_response, {}),
        (square_response, {}),
        (linear_response, {"mean": (1,), "weights": ((2,),), "mixing": ((3,),)}),
        (quadratic_response, {"mean": (-1,)}),
    ],
)
def test_exact_moments_agree_with_quadrature_in_one_dimension(response, options):
    """Two examples and the query, d = 1; Gauss-Hermite rules with enough nodes are exact for these polynomials."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(8)
    mass = mass / mass.sum()
    noise, c = 0.5, 0.25
    scale, shift, spread = (
        options.get(name, (default,)) for name, default in (("mixing", (1,)), ("mean", 0), ("weights", (1,)))
    )
    A, mu, B = np.ravel(scale)[0], np.ravel(shift)[0], np.ravel(spread)[0]
    axes = dict(zip("wxe", np.meshgrid(nodes, nodes, nodes, indexing="ij"), strict=True))
    x, w = A * axes["x"], mu + B * axes["w"]
    y = response([x], [w], c) + np.sqrt(noise) * axes["e"]
    weight = np.einsum("i,j->ij", mass, mass)

    def given_w(values):
        return np.einsum("wxe,xe->w", values, weight)

    features = [x * x, x * y, y * y]
    moments = prompt_moments(1, response, **options).at(2, Fraction(1, 2), Fraction(1, 4))
    first = [given_w(f) for f in features]
    second = np.array([[mass @ given_w(f * g) for g in features] for f in features])
    gram = 2 * second + 2 * np.array([[mass @ (p * q) for q in first] for p in first])
    np.testing.assert_allclose(moments.gram, gram, rtol=1e-12, atol=1e-12 * abs(gram).max())
    cross = [2 * mass @ (first[1] * p) for p in first]
    np.testing.assert_allclose(moments.cross[0], cross, rtol=1e-12, atol=1e-12)
    assert moments.target == pytest.approx(mass @ first[2], rel=1e-12)
    assert moments.query[0, 0] == pytest.approx(A**2)


def test_mixing_and_mean_act_on_their_own_coordinates():
    moments = prompt_moments(2, mixing=((2, 0), (1, 3)), mean=(1, 0), weights=((1, 0), (1, 1)))
    _, s2, _ = moments.target.ring.gens
    assert moments.query.tolist() == [[4, 2], [2, 10]]
    # w = (1 + o1, o1 + o2): E w w^T = [[2, 1], [1, 2]], and E y^2 = tr of it times [[4, 2], [2, 10]], plus s2
    assert moments.target == 2 * 4 + 2 * 1 * 2 + 2 * 10 + s2


def test_the_loss_and_its_gradient_vanish_together_for_a_perfect_predictor():
    moments = prompt_moments(1).at(1, 0)
    optimum = np.linalg.solve(moments.gram + 1e-300, moments.cross[0])[None]
    assert moments.loss(np.zeros((1, 3))) == 1
    assert abs(moments.residual(optimum)).max() < 1e-12
    step = 1e-6
    for i in range(3):
        there, back = (moments.loss(s * step * np.eye(3)[i : i + 1]) for s in (1, -1))
        assert (there - back) / (2 * step) == pytest.approx(-2 * moments.residual(np.zeros((1, 3)))[0, i], abs=1e-8)


def test_a_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        prompt_moments(0)


def test_vectors_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        prompt_moments(2, mean=(1,))
    with pytest.raises(ValueError, match="zip"):
        prompt_moments(2, mixing=((1,), (1,)))
    with pytest.raises(ValueError, match="zip"):
        linear_response([1], [1, 2], 0)


def test_leading_minors_are_determinants_in_polynomials_and_in_numbers():
    space, a, _ = numbers("a,b")
    matrix = np.array([[a, space.one, space.zero], [space.one, a, space.one], [space.zero, space.one, a]], object)
    kept = matrix.copy()
    assert leading_minors(matrix) == [a, a**2 - 1, a**3 - 2 * a]
    assert (matrix == kept).all()
    drawn = np.random.default_rng(0).integers(1, 9, (4, 4))
    exact = np.vectorize(Fraction, otypes=[object])(drawn)
    expected = [round(np.linalg.det(drawn[:k, :k])) for k in range(1, 5)]
    assert leading_minors(exact) == expected


@pytest.mark.parametrize(
    ("build", "least", "positive"),
    [
        (lambda n, s, c: n, (1, 0, 0), True),
        (lambda n, s, c: n - 1, (1, 0, 0), False),  # zero at n = 1
        (lambda n, s, c: n - 1, (2, 0, 0), True),
        (lambda n, s, c: s + c, (1, 0, 0), False),
        (lambda n, s, c: s + c, (1, 1, 0), True),
        (lambda n, s, c: s + c, (1, 0, 1), True),
        (lambda n, s, c: n**2 - n * s, (1, 0, 0), False),
        (lambda n, s, c: n * s - n * c + 1, (1, 0, 0), False),
        (lambda n, s, c: n - n, (1, 0, 0), False),
    ],
)
def test_positivity_is_read_off_the_shifted_coefficients(build, least, positive):
    _, *variables = numbers("n,s,c")
    assert is_positive(build(*variables), least) is positive


def test_the_default_range_is_a_prompt_of_at_least_one_example():
    _, n, s, c = numbers("n,s,c")
    assert is_positive(n + s + c)
    assert not is_positive(n - 1 + s + c)


def test_exact_moments_convert_to_rational_functions():
    K, n, noise, c = rational_functions()
    exact = prompt_moments(1, quadratic_response).map(K)
    assert exact.target == 1 + 9 * c**2 + noise
    assert exact.gram[1, 1] / n == n - 1 + 3 + 45 * c**2 + noise


def test_coefficients_between_zero_and_one_are_positive():
    space, n, s, _ = numbers("n,s,c")
    assert is_positive((n + s) * space.domain(1, 2))


def test_the_free_parameter_of_a_response_is_zero_unless_given():
    assert prompt_moments(1, quadratic_response).at(2, 1).target == 2


def test_a_mean_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        prompt_moments(2, mean=(1,))


def test_moments_that_are_shared_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        prompt_moments(1).target = 0
