"""Outliers as a factor, norms, thresholds and rounding: values known by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.sinks import systematic_outliers as theory


def test_parts_of_a_row_by_hand():
    """Weights 1/6, 1/3, 1/2 on values 6, 9, 2, the last an outlier: half of 8, and half of 2."""
    s = np.log(np.array([[1.0, 2.0, 3.0]]))
    S, others, own = theory.parts(s, np.array([[[6.0], [9.0], [2.0]]]), np.array([False, False, True]))
    np.testing.assert_allclose([S[0], others[0, 0], own[0, 0]], [0.5, 8, 2])


def test_parts_need_both_kinds_of_tokens():
    for outlier in (np.ones(2, bool), np.zeros(2, bool)):
        with pytest.raises(ValueError, match="some of the tokens"):
            theory.parts(np.zeros((1, 2)), np.zeros((1, 2, 1)), outlier)


def test_leads_and_gates_by_hand():
    assert theory.gap(0.5) == 0
    assert theory.gap(0.001) == pytest.approx(6.9068, abs=1e-4)
    assert theory.gate_logit(1.0) == 0
    assert 2 / (1 + math.exp(-theory.gate_logit(0.25))) == pytest.approx(0.25)


def test_a_context_aware_bias_by_hand():
    """Weights 1 and 3 on 2 and 6, a bias of 4 on 10: 5 and half of 10."""
    assert theory.context_aware_bias(20, 4, 4, 10) == 10


def test_distances_from_the_limit_by_hand():
    """At a right angle, nearly, sqrt(2); at 3-4-5 it is sqrt(2 - 2 * 0.6)."""
    assert theory.distance_from_limit(3.0, 4.0) == pytest.approx(math.sqrt(0.8))
    assert theory.distance_from_limit(1e12, 1.0) == pytest.approx(1e-12, rel=1e-12)


def test_rms_norm_has_unit_mean_square():
    np.testing.assert_allclose(theory.rms_norm(np.array([[3.0, 4.0]])), math.sqrt(2) * np.array([[0.6, 0.8]]))


def test_the_smallest_outlier_meets_its_threshold():
    """Of four elements: with tau = 2, 3 = 2 (1 + 1 + 1 + 3) / 4."""
    assert theory.smallest_outlier(4, Fraction(2)) == 3
    with pytest.raises(ValueError, match="take more"):
        theory.smallest_outlier(2, Fraction(2))


def test_shares_of_uniform_attention_by_hand():
    """Rows (1), (1/2, 1/2), (1/3, 1/3, 1/3)."""
    assert [theory.uniform_share(key, 3) for key in range(3)] == [Fraction(11, 18), Fraction(5, 18), Fraction(1, 9)]


def test_rounding_errors_at_their_ends():
    assert theory.gaussian_rounding_error(0.1) == pytest.approx(0.1 / math.sqrt(12))
    assert theory.gaussian_rounding_error(20.0, terms=100_000) == pytest.approx(1, abs=2e-3)
    assert theory.gaussian_zeroed(2 * 1.959964) == pytest.approx(0.95, abs=1e-6)
    assert theory.step_over_deviation(127.0, 8) == pytest.approx(math.sqrt(2 / math.pi))
