"""Closed forms of softplus attention, against direct computation."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import exp_map, lssa, reweight, softplus
from theory.operators.softplus_attention import (
    ball_softplus,
    dropped_sensitivity,
    dynamic_scale,
    entropy,
    entropy_floor,
    largest_excess,
    log_curvature,
    log_growth,
    majorisation_gap,
    one_key_entropy,
    random_row_deficit,
    two_stages,
)


def test_two_stages_of_two_scores_are_a_logistic():
    weights = two_stages(np.array([[0.0, np.log(3)]]))
    np.testing.assert_allclose(weights, [[0.25, 0.75]])
    np.testing.assert_allclose(two_stages(np.array([0.0, 0.0]), softplus), [0.5, 0.5])


def test_the_logarithm_of_an_exponential_is_straight():
    import sympy

    assert log_curvature(lambda s: 5 * sympy.exp(-2 * s)) == 0
    assert log_curvature(lambda s: sympy.exp(s**2)) == 2


def test_entropy_has_its_known_values():
    rows = np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(entropy(rows), [np.log(4), 0, np.log(2)])


def test_the_scale_is_that_of_the_operator():
    q, k = np.array([[1.0, 0, 0, 0]]), np.eye(4)[[0, 1, 1]]
    scores = dynamic_scale(3, 4) * np.array([1.0, 0, 0])
    np.testing.assert_allclose(lssa(q, k)[0], two_stages(scores, softplus))


@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_ball_of_one_key_holds_the_entropy_of_the_operator(n):
    row = lssa(np.eye(1, 64), np.eye(64)[[0, *[1] * (n - 1)]])
    ball = one_key_entropy(n, 64)
    assert float(ball.mid()) == pytest.approx(entropy(row)[0], rel=1e-12)
    assert float(ball.rad()) < 1e-10
    scores = dynamic_scale(n, 64) * np.eye(1, n)
    assert float(one_key_entropy(n, 64, lambda s: s.exp()).mid()) == pytest.approx(entropy(two_stages(scores))[0])


def test_the_softplus_of_a_ball_is_ln_2_at_0():
    from flint import arb

    assert float(ball_softplus(arb(0)).mid()) == pytest.approx(np.log(2))


def test_the_floor_of_the_entropy_has_its_value_by_hand():
    cosines = np.array([0.5, 0.1, -0.3, 0.0])
    by_hand = np.log(4) - np.log((0.5 + np.log(2) / 3) / 0.15)
    assert entropy_floor(cosines, 3.0) == pytest.approx(by_hand)
    assert entropy_floor(np.stack([cosines, cosines]), 3.0).shape == (2,)


def test_the_deficit_of_random_rows_is_that_of_a_long_row():
    draw = np.random.default_rng(3)
    z = draw.standard_normal((200_000, 8))
    cosines = z[:, 0] / np.linalg.norm(z, axis=1)
    for positive in (softplus, exp_map):
        row = two_stages(4.0 * cosines, positive)
        measured = np.log(len(row)) - entropy(row)
        assert random_row_deficit(4.0, 8, positive) == pytest.approx(measured, abs=0.02)


def test_a_flat_row_has_no_deficit():
    assert random_row_deficit(0.0, 16) == pytest.approx(0, abs=1e-12)


def test_log_growth_is_the_logarithmic_derivative():
    n, x, p, step = 5, 0.4, 3.0, 1e-6
    ratio = [np.log((n * y - 1) ** p / y) for y in (x - step, x + step)]
    assert log_growth(n, x, p) == pytest.approx((ratio[1] - ratio[0]) / (2 * step), rel=1e-8)
    assert log_growth(4, 1.0, 0.75) == pytest.approx(0, abs=1e-15)


def test_a_sharper_row_majorises_a_flat_one():
    flat, sharp = np.array([0.3, 0.4, 0.3]), np.array([0.1, 0.1, 0.8])
    assert majorisation_gap(flat, sharp) == pytest.approx(0, abs=1e-15)  # all of the weight, at k = 3
    assert majorisation_gap(sharp, flat) == pytest.approx(-0.4)


def test_the_largest_excess_is_the_root_of_the_largest_number():
    assert largest_excess(np.finfo(np.float16).max, 15) == pytest.approx(2.0946, rel=1e-4)
    assert largest_excess(np.finfo(np.float32).max, 15) == pytest.approx(370.5, rel=1e-3)
    assert largest_excess(8.0, 3) == pytest.approx(2)


def test_a_dropped_score_acts_through_the_sum():
    """Central difference in the score of a dropped key, against the closed form."""
    s, power, step = np.array([2.0, 1.5, -1.0, -2.0]), 3, 1e-6

    def row(scores):
        return reweight(two_stages(scores, softplus)[None], power)[0]

    weights = two_stages(s, softplus)
    kept = 4 * weights > 1
    assert kept.tolist() == [True, True, False, False]
    nudge = step * np.eye(4)[2]
    numeric = (row(s + nudge) - row(s - nudge)) / (2 * step)
    slope = 1 / (1 + np.exp(1.0)) / softplus(s).sum()
    np.testing.assert_allclose(numeric[kept], dropped_sensitivity(weights[kept], 4, power) * slope, rtol=1e-6)
    np.testing.assert_allclose(numeric[~kept], 0, atol=1e-12)


def test_equal_kept_weights_feel_no_dropped_score():
    assert dropped_sensitivity([Fraction(2, 5)], 4, 15).tolist() == [0]
    assert dropped_sensitivity([Fraction(1, 3)] * 2, 4, 3).tolist() == [0, 0]
    change = dropped_sensitivity([Fraction(2, 5), Fraction(3, 10)], 4, 3)
    assert change[0] == -change[1] > 0
