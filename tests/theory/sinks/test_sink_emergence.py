"""Attention on repeated tokens: values known by hand, and the operators themselves."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import softmax
from theory.operators.positions import alibi, alibi_slopes, causal, rotary
from theory.sinks.measures import importance
from theory.sinks.sink_emergence import (
    alibi_first,
    alibi_scores,
    by_distance,
    first_importance,
    first_weights,
    next_inverse,
    opposed_head,
    opposed_scores,
    relative_scores,
    rotary_bound,
    rotary_importance_bound,
    rotary_length,
    uniform_importance,
)


def test_relative_scores_are_t5s_buckets():
    """Exact below 16, the logarithm's steps by hand, the last bucket from 113 on."""
    g = relative_scores(300)
    np.testing.assert_array_equal(g[:17], range(17))
    assert [g[n] for n in (18, 19, 20, 21, 32, 64, 112, 113, 128, 299)] == [16, 17, 17, 18, 21, 26, 30, 31, 31, 31]
    assert (np.diff(g) >= 0).all()


def test_other_numbers_of_buckets_and_distances():
    """Four exact buckets of eight; 4 + floor(4 ln(n / 4) / ln 4) up to distance 16."""
    np.testing.assert_array_equal(relative_scores(18, 8, 16), [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7])


def test_scores_by_distance_form_a_causal_matrix():
    np.testing.assert_array_equal(by_distance(np.array([5.0, 6.0, 7.0])), [[5, 0, 0], [6, 5, 0], [7, 6, 5]])


def test_alibi_scores_are_the_operators_bias():
    np.testing.assert_allclose(np.tril(by_distance(alibi_scores(6, 2.0**-8))), np.tril(alibi(6, 1)[0]))


@pytest.mark.parametrize("scores", [relative_scores(20), -relative_scores(20), alibi_scores(20, 0.3), np.zeros(20)])
def test_first_weights_and_importance_are_those_of_softmax(scores):
    q = np.ones((20, 2))
    for n in (1, 7, 20):
        A = softmax(q[:n], q[:n], mask=causal(n), bias=by_distance(scores[:n]))
        np.testing.assert_allclose(first_weights(scores)[:n], A[:, 0], rtol=1e-13)
        np.testing.assert_allclose(first_importance(first_weights(scores))[n - 1], importance(A)[0], rtol=1e-13)


def test_inverse_weights_follow_the_recurrence():
    g = np.array([0.3, -0.2, 1.0, 0.4])
    inverse = 1 / first_weights(g)
    for t in range(3):
        assert inverse[t + 1] == pytest.approx(next_inverse(inverse[t], math.exp(g[t] - g[t + 1])))


def test_the_closed_form_of_alibi():
    for slope in alibi_slopes(4):
        t = np.arange(1, 9)
        np.testing.assert_allclose(alibi_first(t, math.exp(-slope)), first_weights(alibi_scores(8, slope)), rtol=1e-12)


def test_uniform_attention_has_the_harmonic_number_over_its_length():
    assert [uniform_importance(n) for n in (1, 2, 3)] == [1, Fraction(3, 4), Fraction(11, 18)]


def test_the_rotary_bound_by_hand():
    assert rotary_bound(1, 0.7) == 1
    assert rotary_bound(4, 0.0) == pytest.approx(1 / 4)
    assert rotary_bound(3, 1.0) == pytest.approx(math.e**2 / (math.e**2 + 2))


@pytest.mark.parametrize("reach", [0.0, 1.0, 5.0, 6.0, 17.0, 18.0])
def test_the_mean_of_the_bound_has_a_closed_form(reach):
    """On both sides of E = 2^16, where the closed form changes."""
    mean = rotary_bound(np.arange(1, 65), reach).mean()
    assert rotary_importance_bound(64, reach) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("reach", [0.5, 3.0, 18.0])
def test_the_bound_crosses_the_threshold_at_its_length(reach):
    n = rotary_length(reach, 0.3)
    assert rotary_importance_bound(n, reach) == pytest.approx(0.3)


@pytest.mark.parametrize("plane", [0, 3, 7])
def test_an_opposed_head_has_the_scores_it_is_meant_to_have(plane):
    q, k = opposed_head(2.5, plane, 16)
    assert np.linalg.norm(q) * np.linalg.norm(k) / 4 == pytest.approx(2.5)
    turned = rotary(np.tile(k, (9, 1)))
    last = rotary(np.tile(q, (9, 1)))[-1]
    np.testing.assert_allclose((turned @ last / 4)[::-1], opposed_scores(9, 2.5, plane, 16), atol=1e-12)
