"""The closed forms for one layer of linear attention against quadrature, sampling-free moments and each other."""

from fractions import Fraction

import numpy as np
import pytest

from theory.in_context.gaussian_moments import prompt_moments
from theory.in_context.one_step_gd import (
    along_one_direction,
    bayes_loss,
    best_heads,
    best_multiple,
    best_preconditioner,
    best_relaxed,
    check_sizes,
    coefficients,
    excess_loss,
    gradient_step,
    heads_loss,
    isotropic_moments,
    nonlinear_step,
    optimal_loss,
    posterior_mean,
    quartic_form,
    ridge_weights,
    slice_excess,
    step_loss,
    step_size,
    vanishing_parameters,
)


@pytest.fixture
def draw():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1, 0), "n must be at least 1, got 0"),
        ((1, 0, 0), "d must be at least 1, got 0"),
        ((1, 1, -0.1), "noise must be at least 0, got -0.1"),
        ((1, 1, float("nan")), "noise must be at least 0, got nan"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes, message):
    for function in (check_sizes, step_size, optimal_loss, isotropic_moments):
        with pytest.raises(ValueError, match=message):
            function(*sizes)


def test_sizes_are_checked_wherever_they_come_in():
    with pytest.raises(ValueError, match="n must be"):
        excess_loss(np.zeros(2), np.zeros((2, 1)), 0, 1.0)
    with pytest.raises(ValueError, match="noise must be"):
        excess_loss(np.zeros(2), np.zeros((2, 1)), 1, -1.0, step=0.1)
    with pytest.raises(ValueError, match="n must be"):
        best_preconditioner(np.eye(2), np.eye(2), 0, 1.0)


def test_symbols_pass_the_check():
    check_sizes("n", "d", "noise")


def test_parameters_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"asks for M of shape \(3, 2\), got \(3, 3\)"):
        excess_loss(np.zeros(3), np.zeros((3, 3)), 1, 1.0)


def test_step_and_loss_have_their_known_values():
    assert step_size(10, 4, Fraction(1)) == Fraction(1, 16)
    assert optimal_loss(10, 4, Fraction(1)) == Fraction(5, 2)
    assert optimal_loss(1, 1, Fraction(0)) == Fraction(2, 3)
    assert step_size(1, 1, 0) == pytest.approx(1 / 3)


def quadrature(n, d, noise, u, M):
    """E (w.x - u^T G M x)^2 + noise by a rule of five nodes, exact up to degree nine; n examples of dimension d."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(5)
    count = d + n * (d + 1)
    grid = np.stack(np.meshgrid(*[nodes] * count), axis=-1).reshape(-1, count)
    weights = np.stack(np.meshgrid(*[mass / mass.sum()] * count), axis=-1).reshape(-1, count).prod(axis=1)
    w, x = grid[:, :d], grid[:, d : d + n * d].reshape(-1, n, d)
    y = np.einsum("kni,ki->kn", x, w) + np.sqrt(noise) * grid[:, d + n * d :]
    v = np.concatenate([x, y[..., None]], axis=-1)
    return noise + weights @ ((w - np.einsum("kni,knj,i->kj", v, v, u) @ M) ** 2).sum(axis=1)


@pytest.mark.parametrize(("n", "d", "noise"), [(1, 1, 0.0), (2, 1, 0.5), (3, 1, 2.0), (1, 2, 0.0), (1, 2, 1.5)])
def test_the_closed_loss_agrees_with_quadrature(draw, n, d, noise):
    for _ in range(3):
        u, M = draw.standard_normal(d + 1), draw.standard_normal((d + 1, d))
        exact = quadrature(n, d, noise, u, M)
        assert optimal_loss(n, d, noise) + excess_loss(u, M, n, noise) == pytest.approx(exact, rel=1e-12)
        assert isotropic_moments(n, d, noise).loss(coefficients(u, M)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_block_formula_is_isserlis_result(d):
    exact = prompt_moments(d)
    n, s2, _ = exact.target.ring.gens
    block = isotropic_moments(n, d, s2)
    assert block.target == exact.target
    for name in ("query", "cross", "gram"):
        assert (getattr(block, name) == getattr(exact, name)).all()


def test_the_excess_is_the_distance_to_any_given_step(draw):
    """E |M^T G u - step X^T y|^2 from the moments, also for steps that are not optimal."""
    n, d, noise, step = 5, 3, 0.7, 0.3
    u, M = draw.standard_normal(d + 1), draw.standard_normal((d + 1, d))
    off = coefficients(u, M) - gradient_step(step * np.eye(d))
    expected = (off @ isotropic_moments(n, d, noise).gram * off).sum()
    assert excess_loss(u, M, n, noise, step) == pytest.approx(expected, rel=1e-12)


def test_moments_of_numbers_are_floats_and_of_symbols_objects():
    assert isotropic_moments(2, 1, 0.5).gram.dtype == float
    n, s2, _ = prompt_moments(1).target.ring.gens
    assert isotropic_moments(2, 1, s2).gram.dtype == object
    assert isotropic_moments(n, 1, 0).gram.dtype == object


def test_the_excess_is_zero_at_the_step_under_any_scaling():
    for scale in (Fraction(1), Fraction(-3), Fraction(1, 7)):
        u = np.array([0, 0, scale], object)
        M = np.vstack([np.eye(2, dtype=int) * (step_size(3, 2, Fraction(2)) / scale), [0, 0]])
        assert excess_loss(u, M, 3, Fraction(2)) == 0


def test_coefficients_weigh_the_features_of_the_prediction(draw):
    d, heads = 3, 2
    u, M = draw.standard_normal((heads, d + 1)), draw.standard_normal((heads, d + 1, d))
    G, x = draw.standard_normal((d + 1, d + 1)), draw.standard_normal(d)
    G = G + G.T
    features = G[np.triu_indices(d + 1)]
    for i in range(heads):
        assert x @ coefficients(u[i], M[i]) @ features == pytest.approx(u[i] @ G @ M[i] @ x)
    both = sum(u[i] @ G @ M[i] @ x for i in range(heads))
    assert x @ coefficients(u, M) @ features == pytest.approx(both)


def test_a_step_weighs_the_entries_of_the_gradient(draw):
    d = 3
    A, v, x = draw.standard_normal((d, d)), draw.standard_normal((5, d + 1)), draw.standard_normal(d)
    features = (v.T @ v)[np.triu_indices(d + 1)]
    assert x @ gradient_step(A) @ features == pytest.approx(x @ A @ v[:, :d].T @ v[:, d])


@pytest.mark.parametrize("weights", [None, ((2, 0), (1, 1))])
def test_the_best_preconditioner_is_the_best_of_all_weights(weights):
    mixing = ((2, 0), (1, 3))
    moments = prompt_moments(2, mixing=mixing, weights=weights).at(6, Fraction(1, 2))
    A, B = (np.array(m, dtype=float) for m in (mixing, weights or ((1, 0), (0, 1))))
    best = gradient_step(best_preconditioner(A @ A.T, B @ B.T, 6, 0.5))
    np.testing.assert_allclose(best_relaxed(moments), best, atol=1e-12)


def test_the_best_multiple_is_the_minimum_along_a_line():
    moments = prompt_moments(2, mixing=((2, 0), (1, 3))).at(6, Fraction(1, 2))
    direction = gradient_step(np.eye(2))
    least = best_multiple(moments, direction)
    grid = min(moments.loss(t * direction) for t in np.linspace(0, 0.05, 2001))
    assert least <= grid < least * (1 + 1e-6)


def test_descent_returns_the_losses_of_what_it_returns(draw):
    moments = isotropic_moments(6, 2, 0.5)
    losses, heads = best_heads(moments, 0.3 * draw.standard_normal((4, 2, 3, 3)))
    assert heads.shape == (4, 2, 3, 3)
    for loss, one in zip(losses, heads, strict=True):
        assert moments.loss(coefficients(one[..., -1], one[..., :-1])) == pytest.approx(loss)
        assert loss == pytest.approx(optimal_loss(6, 2, 0.5), rel=1e-8)


def test_the_gradient_of_the_heads_is_that_of_their_loss(draw):
    """Central differences are exact for the quadratic part; the step balances the rest against rounding."""
    moments, heads = isotropic_moments(4, 2, 0.5), draw.standard_normal((2, 3, 3))
    loss, slope = heads_loss(moments, heads)
    assert loss == moments.loss(coefficients(heads[..., -1], heads[..., :-1]))
    for i in range(heads.size):
        nudge = 1e-5 * np.eye(heads.size)[i].reshape(heads.shape)
        difference = heads_loss(moments, heads + nudge)[0] - heads_loss(moments, heads - nudge)[0]
        assert difference / 2e-5 == pytest.approx(slope.ravel()[i], rel=1e-6, abs=1e-4)


@pytest.mark.parametrize(("d", "c"), [(2, Fraction(1, 3)), (3, Fraction(2))])
def test_the_nonlinear_step_of_a_linear_family_is_the_linear_step(d, c):
    assert nonlinear_step(d, d * (d + 2) + d * c, 7) == step_size(7, d, c)


def test_ridge_solves_its_normal_equations_in_batches(draw):
    X, y = draw.standard_normal((5, 4, 3)), draw.standard_normal((5, 4))
    w = ridge_weights(X, y, 0.5)
    assert w.shape == (5, 3)
    gradient = np.swapaxes(X, 1, 2) @ (X @ w[..., None] - y[..., None]) + 0.5 * w[..., None]
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_losses_given_the_covariates_have_their_closed_values():
    X = np.stack([[[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]], np.zeros((3, 2))])
    np.testing.assert_allclose(bayes_loss(X, 1.0), [1 + 2 / 5, 1 + 2])
    np.testing.assert_allclose(step_loss(X, 1.0, 0.25), [1 + 0 + 0.0625 * 8, 1 + 2])
    np.testing.assert_allclose(step_loss(X, 1.0, 0.5), [1 + 2 + 0.25 * 8, 1 + 2])


def test_the_mean_of_the_conditional_loss_is_the_population_loss():
    """d = 1: S = X^T X has E S = n and E S^2 = n (n + 2); the loss is quadratic in S."""
    n, noise, step = 3, 0.5, 0.2
    values = [float(step_loss(np.array([[np.sqrt(s)]]), noise, step)) for s in (0.0, 1.0, 2.0)]
    constant, second = values[0], (values[2] - 2 * values[1] + values[0]) / 2
    first = values[1] - constant - second
    mean = constant + first * n + second * n * (n + 2)
    u, M = np.array([0.0, 1.0]), np.array([[step], [0.0]])
    assert mean == pytest.approx(optimal_loss(n, 1, noise) + excess_loss(u, M, n, noise))


def test_parameters_are_forced_to_vanish_from_two_dimensions_on():
    assert vanishing_parameters(1) == {"u0": False, "m1_0": False}
    assert vanishing_parameters(2) == dict.fromkeys(["u0", "u1", "m2_0", "m2_1"], True)


@pytest.mark.parametrize(("n", "d", "noise"), [(1, 1, Fraction(0)), (3, 2, Fraction(1, 2)), (2, 3, Fraction(5))])
def test_the_form_of_the_even_features_is_that_of_the_moments(n, d, noise):
    moments = prompt_moments(d).at(n, noise)
    p, q, r = quartic_form(n, d, noise)
    assert (moments.gram[0, -1], moments.gram[-1, -1]) == (q, r)
    assert p == n**2 + n


def test_the_slice_is_the_excess_at_its_points(draw):
    n, d, noise = 3, 2, Fraction(1, 2)
    polynomial = slice_excess(n, d, noise)
    M, u_y = draw.integers(1, 5, (d + 1, d)), 7
    value = polynomial(*(int(x) for x in M.ravel()), u_y)
    assert Fraction(int(value.numerator), int(value.denominator)) == excess_loss(np.array([1, 0, u_y]), M, n, noise)


def test_the_slice_takes_symbolic_noise():
    K = rational_noise()
    polynomial = slice_excess(1, 2, K.gens[0], K.to_domain())
    assert polynomial.ring.domain == K.to_domain()
    assert [str(g) for g in polynomial.ring.gens] == ["m0_0", "m0_1", "m1_0", "m1_1", "m2_0", "m2_1", "u"]


def rational_noise():
    from sympy import QQ
    from sympy.polys.fields import field

    return field("s2", QQ)[0]


def test_one_direction_has_a_single_entry():
    assert along_one_direction(1, 2, Fraction(1, 2)).tolist() == [0, 0, 0, 0, Fraction(2, 9), 0, 0]


def test_the_posterior_mean_follows_bayes_rule():
    values = np.array([[1.0, 0.0], [0.0, 2.0]])
    fits, y = np.array([[[0.0, 1.0], [0.0, 2.0]]]), np.array([[0.0, 1.0]])
    odds = np.exp(-(0 + 1) / 1.0 + (1 + 1) / 1.0)  # noise 1/2: squared error over 1
    expected = [[odds / (1 + odds), 2 / (1 + odds)]]
    np.testing.assert_allclose(posterior_mean(values, fits, y, 0.5), expected)
    far = posterior_mean(values, fits + 1e3, y, 1e-3)  # would underflow without the shift
    np.testing.assert_allclose(far, [[1.0, 0.0]])


def test_a_matrix_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="asks for M of shape"):
        excess_loss(np.ones(3), np.ones((2, 2)), 1, 0)


def test_the_posterior_mean_weighs_two_candidates_by_their_likelihood():
    found = posterior_mean(np.array([[0.0], [1.0]]), np.array([[[0.0, 1.0]]]), np.array([[0.3]]), 1.0)
    assert found == pytest.approx(1 / (1 + np.exp(0.2)))
