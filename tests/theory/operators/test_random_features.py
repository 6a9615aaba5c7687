"""Random-feature attention: features and kernels against direct evaluation, scipy, scikit-learn and simulation."""

import numpy as np
import pytest

from theory.operators.random_features import (
    biased_kernel,
    bivariate_normal,
    bivariate_relu,
    diagonal_mean,
    extend,
    factored_heads,
    factored_kappa,
    gaussian_heads,
    head_features,
    head_scores,
    kappa,
    kernel,
    monte_carlo_scores,
    network_kernel,
    rank_one_kappa,
    sphere,
    symmetrised_network_kernel,
)
from theory.operators.random_features_ridge import head_kernel, spectrum, validated_errors
from theory.operators.random_features_targets import TARGETS


@pytest.fixture
def draw():
    return np.random.default_rng(3)


def test_points_of_the_sphere_have_norm_one(draw):
    points = sphere(draw, 4, 5, 3)
    assert points.shape == (4, 5, 3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1)


def test_a_head_is_the_printed_sum_over_keys(draw):
    x, W = sphere(draw, 3, 5, 4), gaussian_heads(draw, 2, 4)
    for n in range(3):
        for m in range(2):
            tokens = extend(x[n])
            scores = [tokens[0] @ W[m] @ tokens[i] for i in range(1, 5)]
            expected = sum(max(score, 0) * tokens[i] for i, score in enumerate(scores, start=1)) / 4
            np.testing.assert_allclose(head_features(x, W)[n, m], expected, atol=1e-14)
            np.testing.assert_allclose(head_scores(x, W)[n, m], scores, atol=1e-14)


def test_torch_runs_the_same_lines(draw):
    torch = pytest.importorskip("torch")
    x, W = sphere(draw, 3, 4, 5), gaussian_heads(draw, 7, 5)
    tx, tW = torch.from_numpy(x), torch.from_numpy(W)
    for ours, theirs in (
        (head_features(x, W), head_features(tx, tW)),
        (head_kernel(x, x, W), head_kernel(tx, tx, tW)),
        (kernel(x, x), kernel(tx, tx)),
        (network_kernel(x, x), network_kernel(tx, tx)),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-14)


def test_heads_have_the_mean_and_spread_they_are_asked_for(draw):
    W = gaussian_heads(draw, 4000, 2, diagonal_mean(2, 3.0))
    np.testing.assert_allclose(W.mean(axis=0), np.diag([3.0, 3.0, 0.0]), atol=0.05)
    np.testing.assert_allclose(W.std(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(factored_heads(draw, 4000, 2, 3).std(axis=0), 0.5, atol=0.05)


def test_kappa_has_its_known_values_and_forgives_rounding():
    np.testing.assert_allclose(kappa(np.array([-1.0, 0.0, 1.0, 1 + 1e-15])), [0, 1 / (2 * np.pi), 0.5, 0.5], atol=1e-15)


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.6, 0.99])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.0, 1.0), (-0.0, 1.0), (0.0, -1.0), (1.5, -0.7), (-1.0, -2.0)])
def test_the_bivariate_normal_is_scipys(a, b, rho):
    from scipy.stats import multivariate_normal

    expected = multivariate_normal.cdf([a, b], cov=[[1, rho], [rho, 1]])
    assert bivariate_normal(np.float64(a), np.float64(b), np.float64(rho)) == pytest.approx(expected, abs=1e-8)
    assert bivariate_normal(np.float64(b), np.float64(a), np.float64(rho)) == pytest.approx(expected, abs=1e-8)


def test_tiny_means_of_opposite_sign_do_not_underflow():
    tiny = np.float64(1e-200)
    expected = 1 / 4 + np.arcsin(0.5) / (2 * np.pi)
    assert bivariate_normal(tiny, -tiny, np.float64(0.5)) == pytest.approx(expected)


def test_equal_scores_have_the_second_moment_of_one():
    from scipy.special import ndtr

    a = np.linspace(-2, 2, 9)
    density = np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(bivariate_relu(a, a, np.float64(1)), (a**2 + 1) * ndtr(a) + a * density, atol=1e-6)


def test_the_biased_kernel_without_a_mean_is_the_kernel(draw):
    x, y = sphere(draw, 4, 4, 3), sphere(draw, 2, 3, 3)
    np.testing.assert_allclose(biased_kernel(x, y, diagonal_mean(3, 0)), kernel(x, y), atol=1e-13)


def test_kernels_agree_with_simulated_heads(draw):
    x, mean = sphere(draw, 4, 3, 3), diagonal_mean(3, 1.5)
    assert abs(monte_carlo_scores(draw, kernel(x, x), x, 8000)).max() < 5
    assert abs(monte_carlo_scores(draw, biased_kernel(x, x, mean), x, 8000, mean=mean)).max() < 5
    assert abs(monte_carlo_scores(draw, kernel(x, x), x, 8000, mean=mean)).max() > 5


def test_the_networks_kernel_is_that_of_simulated_units(draw):
    x = sphere(draw, 4, 3, 2)
    flat = np.concatenate([x.reshape(4, -1), np.ones((4, 1))], axis=1)
    units = np.maximum(flat @ draw.standard_normal((7, 200_000)) / 2, 0)  # N + 2 = 4
    np.testing.assert_allclose(units @ units.T / 200_000, network_kernel(x, x), atol=0.01)


def test_the_symmetrised_kernel_is_invariant_and_averages_two_orders(draw):
    x = sphere(draw, 3, 3, 4)
    both = (network_kernel(x, x) + network_kernel(x, x[:, [0, 2, 1]])) / 2
    np.testing.assert_allclose(symmetrised_network_kernel(x, x), both)
    np.testing.assert_allclose(symmetrised_network_kernel(x[:, [0, 2, 1]], x), both)


@pytest.mark.parametrize(("query", "key"), [(0.3, 0.8), (-0.5, 0.2), (0.9, -0.9)])
def test_rank_one_scores_have_their_moment_by_simulation(draw, query, key):
    g = draw.standard_normal((4, 400_000))
    second = query * g[0] + np.sqrt(1 - query**2) * g[1], key * g[2] + np.sqrt(1 - key**2) * g[3]
    found = np.maximum(g[0] * g[2], 0) * np.maximum(second[0] * second[1], 0)
    value = float(rank_one_kappa(np.float64(query), np.float64(key)))
    assert abs(found.mean() - value) < 5 * found.std() / np.sqrt(400_000)


@pytest.mark.parametrize("key", [0.0, 0.4, -0.8])
def test_factors_of_width_one_are_rank_one(key):
    assert factored_kappa(1, key) == pytest.approx(float(rank_one_kappa(np.float64(0), np.float64(key))), abs=1e-14)


def test_factors_of_width_three_have_their_moment_by_simulation(draw):
    q, r, k, m = draw.standard_normal((4, 200_000, 3))
    other = 0.6 * k + 0.8 * m
    found = np.maximum((q * k).sum(axis=1), 0) * np.maximum((r * other).sum(axis=1), 0) / 3
    assert abs(found.mean() - factored_kappa(3, 0.6)) < 5 * found.std() / np.sqrt(200_000)


def test_the_kernel_of_heads_does_not_depend_on_blocks(draw):
    x, y, W = sphere(draw, 7, 3, 4), sphere(draw, 5, 3, 4), gaussian_heads(draw, 11, 4)
    phi = [head_features(one, W).reshape(len(one), -1) for one in (x, y)]
    np.testing.assert_allclose(head_kernel(x, y, W, rows=3, heads=4), phi[0] @ phi[1].T / 11, atol=1e-14)


def test_ridge_is_scikit_learns(draw):
    kernel_ridge = pytest.importorskip("sklearn.kernel_ridge")
    x = sphere(draw, 30, 3, 4)
    K, y = kernel(x, x), draw.standard_normal((30, 2))
    theirs = kernel_ridge.KernelRidge(alpha=30 * 0.01, kernel="precomputed").fit(K, y).dual_coef_
    parts = spectrum(K)
    np.testing.assert_allclose(parts.weights(y, 0.01), theirs, atol=1e-9)
    np.testing.assert_allclose(parts.weights(y[:, 0], 0.01), theirs[:, 0], atol=1e-9)
    assert parts.size(y[:, 0], 0.01) == pytest.approx(theirs[:, 0] @ K @ theirs[:, 0])


def test_the_dual_size_is_that_of_the_trained_values(draw):
    x, W = sphere(draw, 12, 3, 4), gaussian_heads(draw, 5, 4)
    y = draw.standard_normal(12)
    parts = spectrum(head_kernel(x, x, W))
    values = np.einsum("n,nma->ma", parts.weights(y, 0.1), head_features(x, W)) / 5
    assert 5 * (values**2).sum() == pytest.approx(parts.size(y, 0.1))


def test_the_penalty_of_a_ball_puts_the_solution_on_its_surface(draw):
    x = sphere(draw, 20, 3, 4)
    parts, y = spectrum(kernel(x, x)), draw.standard_normal(20)
    penalty = parts.in_ball(y, 2.0)
    assert parts.size(y, penalty) == pytest.approx(2.0)
    assert parts.in_ball(y, 1e30) == pytest.approx(1e-14)


def test_each_target_gets_the_penalty_that_validates_best(draw):
    x = sphere(draw, 60, 3, 4)
    K, y = kernel(x, x[:30]), draw.standard_normal((60, 3))
    y[:, 0] = x[:, 1, 0]  # easy: wants a small penalty
    parts, penalties = spectrum(K[:30]), (1e-6, 1e-2, 10.0)
    found = validated_errors(K[:30], K[30:45], K[45:], (y[:30], y[30:45], y[45:]), penalties)
    for target in range(3):
        fits = [K @ parts.weights(y[:30, target], penalty) for penalty in penalties]
        errors = [(fit - y[:, target]) ** 2 for fit in fits]
        best = min(errors, key=lambda error: error[30:45].mean())
        assert found[target] == pytest.approx(best[45:].mean())


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "alternating sum"])
def test_targets_do_not_depend_on_the_order_of_the_keys(draw, name):
    x, b = sphere(draw, 5, 4, 3), sphere(draw, 3)
    np.testing.assert_allclose(TARGETS[name](x, b), TARGETS[name](x[:, [0, 3, 1, 2]], b))


def test_targets_have_their_values_at_one_input():
    x = np.array([[[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]]])
    b = np.array([1.0, 0.0])
    expected = {
        "average of <b,x>": 0.5,
        "<b,query>²": 0.36,
        "average of t<b,x>": 0.3,
        "average of t²<b,x>": 0.18,
        "average of relu(t)<b,x>": 0.3,
        "alternating sum": -0.5,
    }
    assert {name: pytest.approx(float(TARGETS[name](x, b)[0])) for name in expected} == expected
