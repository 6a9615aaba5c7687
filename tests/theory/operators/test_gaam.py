"""Gaussian adaptive attention: closed forms against the operator, searches and plain definitions."""

import numpy as np
import pytest

from theory.operators.attention import gaussian_adaptive
from theory.operators.gaam import (
    LEAST_DISTANCE,
    best_bell,
    best_masses,
    dot_product_parameters,
    effective_parameters,
    golden_bell,
    importance_factor,
    merged,
    mixture,
    multi_head,
    narrow_width,
    parameters,
    ranking_quality,
    total_variation,
)


@pytest.fixture
def draw():
    return np.random.default_rng(11)


def test_two_equal_gaussians_merge_into_one_of_half_the_variance():
    offset, width = merged(np.array([0.5, 0.5]), np.array([2.0, 2.0]))
    assert offset == pytest.approx(0.5)
    assert width == pytest.approx(2 / np.sqrt(2))


def test_the_narrower_gaussian_pulls_the_merged_offset():
    offset, width = merged(np.array([0.0, 1.0]), np.array([1.0, 0.5]))
    assert offset == pytest.approx(4 / 5)
    assert width == pytest.approx(np.sqrt(1 / 5))


def test_gaussians_merge_head_by_head(draw):
    offset, width = draw.standard_normal((3, 4)), np.exp(draw.standard_normal((3, 4)))
    together = merged(offset, width)
    for h in range(3):
        one = merged(offset[h], width[h])
        assert (together[0][h], together[1][h]) == pytest.approx(one)


def test_a_mixture_of_one_is_the_released_operator(draw):
    x, offset, width = draw.standard_normal((2, 9)), np.array([0.3]), np.array([0.8])
    found = mixture(x, np.array([7.0]), offset, width)
    np.testing.assert_allclose(found, gaussian_adaptive(x, offset, width), rtol=1e-6)


def test_a_mixture_is_the_normalised_sum_of_densities(draw):
    from scipy.stats import norm

    x, mass, offset, width = draw.standard_normal(6), np.array([0.2, 0.8]), np.array([-1.0, 0.5]), np.array([0.5, 2.0])
    sd = x.std(ddof=1)
    density = sum(m * norm.pdf((x - x.mean() - o) / sd / w) / w for m, o, w in zip(mass, offset, width, strict=True))
    np.testing.assert_allclose(mixture(x, mass, offset, width), density / density.sum())


def test_a_mixture_runs_along_any_axis(draw):
    x, mass, offset, width = draw.standard_normal((5, 3)), np.ones(2), np.array([-1.0, 1.0]), np.ones(2)
    along = mixture(x, mass, offset, width, axis=0)
    np.testing.assert_allclose(along, mixture(x.T, mass, offset, width).T)


def test_heads_take_chunks_and_the_last_one_the_remainder(draw):
    x, offset, width = draw.standard_normal((2, 7)), draw.standard_normal((3, 2)), np.ones((3, 2))
    weights = multi_head(x, offset, width)
    assert weights.shape == x.shape
    np.testing.assert_allclose(weights[:, 2:4], gaussian_adaptive(x[:, 2:4], offset[1], width[1]))
    np.testing.assert_allclose(weights[:, 4:], gaussian_adaptive(x[:, 4:], offset[2], width[2]))


def test_parameters_of_the_readmes_example():
    assert parameters(4, 5) == 40
    assert dot_product_parameters(8) == 256


def test_the_rank_is_that_of_a_numeric_derivative(draw):
    x, offset, width = draw.standard_normal(10), draw.standard_normal(4), np.exp(0.3 * draw.standard_normal(4))

    def logs(theta):
        return np.log(gaussian_adaptive(x, theta[:4], theta[4:], eps=0.0))

    point = np.concatenate([offset, width])
    slopes = np.array([(logs(point + e) - logs(point - e)) / 2e-5 for e in 1e-5 * np.eye(8)])
    singular = np.linalg.svd(slopes, compute_uv=False)
    assert effective_parameters(x, offset, width) == 2
    assert singular[1] > 1e-3
    assert singular[2] < 1e-8


def test_one_gaussian_on_two_features_has_one_effective_parameter(draw):
    assert effective_parameters(draw.standard_normal(2), np.zeros(1), np.ones(1)) == 1


def test_no_log_concave_weights_are_nearer_to_the_target(draw):
    """A fine grid over all log-concave distributions on three points."""
    a, c = np.meshgrid(np.linspace(0, 1, 801), np.linspace(0, 1, 801))
    b = 1 - a - c
    allowed = (b >= 0) & (b**2 >= a * c)
    distance = (abs(a - 0.5) + abs(b) + abs(c - 0.5)) / 2
    assert LEAST_DISTANCE <= distance[allowed].min() < LEAST_DISTANCE + 0.003


def test_the_golden_bell_has_the_golden_ratio():
    weights = gaussian_adaptive(np.array([-1.0, 0.0, 1.0]), np.array([golden_bell(5.0)]), np.array([5.0]), eps=0.0)
    assert weights[0] / weights[1] == pytest.approx((1 + np.sqrt(5)) / 2)
    assert weights[1] / weights[2] == pytest.approx(weights[0] / weights[1] * np.exp(1 / 25))


def test_total_variation_lies_between_nothing_and_one():
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(total_variation(p, p), [0, 0])
    np.testing.assert_array_equal(total_variation(p, p[:, ::-1]), [1, 0])


def test_the_narrow_width_solves_its_equation():
    values = np.array([0.0, 0.5, 3.0, 7.0])
    width, gap = narrow_width(values, 1e-3), 0.5 / values.std(ddof=1)
    assert 3 * np.exp(-(gap**2) / (2 * width**2)) == pytest.approx(1e-3)


def test_the_best_bell_finds_a_bell():
    x = np.linspace(-3, 3, 201)
    target = np.exp(-((x - 0.4) ** 2) / 0.5)
    distance, weights = best_bell(x, target / target.sum())
    assert distance < 0.02
    assert weights.sum() == pytest.approx(1)


def test_the_best_masses_are_a_distribution_that_fits_what_the_mixture_can_make():
    x = np.linspace(-3, 3, 101)
    centres = np.linspace(-3, 3, 13)
    target = np.exp(-((x[:, None] - centres[[2, 9]]) ** 2) / (2 * 0.5**2)) @ [0.3, 0.7]
    target /= target.sum()
    found = best_masses(x, target, 13)
    assert found.sum() == pytest.approx(1)
    assert total_variation(found, target) < 1e-9


def test_the_importance_factor_runs_from_nought_to_one():
    weights = np.array([[0.1, 0.2, 0.7], [0.3, 0.2, 0.5]])
    np.testing.assert_allclose(importance_factor(weights), [0, 0, 1])
    np.testing.assert_allclose(importance_factor(np.array([[0.1, 0.3, 0.6]])), [0, 0.4, 1])


def test_the_importance_factor_of_equal_means_is_nought():
    np.testing.assert_array_equal(importance_factor(np.array([[0.0, 1.0], [1.0, 0.0]])), [0, 0])


def test_ranking_quality_counts_pairs_and_halves_ties():
    relevant = np.array([True, False, True, False])
    assert ranking_quality(np.array([4.0, 1.0, 3.0, 2.0]), relevant) == 1
    assert ranking_quality(np.zeros(4), relevant) == 0.5
    np.testing.assert_allclose(ranking_quality(np.array([[1.0, 2.0, 3.0, 3.0]]), relevant), [0.375 - 0.25 + 0.25])
