"""Entropy of attention and the factor for other sizes: closed forms against plain definitions and samples."""

import math

import numpy as np
import pytest

from theory.vision.variable_sized_diffusion import (
    critical_sigma,
    entropy,
    entropy_slope,
    gaussian_entropy,
    inverse_factor,
    keeping_factor,
    linear_factor,
    sampled_entropies,
    score_entropy,
    share_removed,
    size_factor,
    slope,
    tokens_of,
)


@pytest.fixture
def draw():
    return np.random.default_rng(5)


def test_entropy_has_its_known_values():
    weights = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(entropy(weights), [math.log(4), math.log(2), 0], atol=1e-15)


def test_entropy_agrees_with_scipy_in_every_row(draw):
    from scipy.special import softmax
    from scipy.stats import entropy as reference

    scores = 3 * draw.standard_normal((2, 5, 7))
    np.testing.assert_allclose(score_entropy(scores), reference(softmax(scores, axis=-1), axis=-1))


def test_the_factor_has_the_papers_values():
    assert size_factor(4096, 4096) == 1
    assert size_factor(1024, 4096) == pytest.approx(math.sqrt(10 / 12))
    assert size_factor(16384, 4096) == pytest.approx(math.sqrt(14 / 12))
    assert inverse_factor(1024, 4096) == pytest.approx(math.sqrt(12 / 10))
    assert linear_factor(1024, 4096) == pytest.approx(10 / 12)


@pytest.mark.parametrize("sizes", [(1, 64), (64, 1), (0, 64)])
def test_a_single_token_has_no_factor(sizes):
    with pytest.raises(ValueError, match=f"needs at least 2 tokens, got {sizes[0]} now and {sizes[1]} in training"):
        size_factor(*sizes)


def test_gaussian_scores_have_the_predicted_entropy(draw):
    tokens, deviations = np.array([1024, 4096]), np.array([0.5, 1.0])
    found = sampled_entropies(draw, tokens, deviations, batches=3)
    assert found.shape == (3, 2)
    expected = [gaussian_entropy(*one) for one in zip(tokens, deviations, strict=True)]
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.01)


def test_the_factor_removes_everything_at_the_critical_sigma():
    assert share_removed(critical_sigma(4096), 4096) == pytest.approx(1)
    assert share_removed(1.0, 4096) == pytest.approx(1 / (2 * math.log(4096)))


def test_the_slope_of_a_line_is_found_row_by_row():
    tokens = np.array([4, 16, 64])
    lines = np.log(tokens) * [[0.5], [2.0]] + [[1.0], [-3.0]]
    np.testing.assert_allclose(slope(tokens, lines), [0.5, 2.0])


def test_the_keeping_factor_keeps_the_mean_entropy(draw):
    scores = draw.standard_normal((3, 50))
    factor = keeping_factor(scores, 3)
    assert factor > 1
    copies = np.repeat(factor * scores, 3, axis=-1)
    assert score_entropy(copies).mean() == pytest.approx(score_entropy(scores).mean(), abs=1e-9)


@pytest.mark.parametrize("scores", [np.zeros(9), np.array([0.0, 50.0])])
def test_no_factor_makes_up_for_copies_of_equal_or_frozen_scores(scores):
    with pytest.raises(ValueError, match="no factor takes ln 4"):
        keeping_factor(scores, 4)


def test_the_slope_in_the_factor_is_the_numeric_derivative(draw):
    scores = draw.standard_normal((4, 10))
    difference = (score_entropy(1.30001 * scores) - score_entropy(1.29999 * scores)) / 2e-5
    np.testing.assert_allclose(entropy_slope(scores, 1.3), difference, rtol=1e-6)


def test_tokens_of_stable_diffusion():
    assert [tokens_of(512, 512, down) for down in (8, 16, 32, 64)] == [4096, 1024, 256, 64]
    assert tokens_of(512, 768, 8) == 6144
