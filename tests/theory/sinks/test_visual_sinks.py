"""Redistributed rows by hand, the released code's conventions, bounds, and what F1 and accuracy ask for."""

from fractions import Fraction

import numpy as np
import pytest

from theory.sinks.measures import sink_dimension_value
from theory.sinks.visual_sinks import (
    amplification,
    amplification_bound,
    false_alarms,
    least_spread,
    recall,
    recycled_share,
    redistribute,
    released,
    selected,
    share_above,
    var,
)

SINKS = np.array([True, True, False, False, False])
VISUAL = np.array([False, True, True, True, False])


def row(*weights):
    return np.array([weights], dtype=float)


def test_what_the_sinks_give_goes_to_the_other_visual_tokens():
    after = redistribute(row(0.4, 0.2, 0.1, 0.2, 0.1), SINKS, VISUAL, 0.5)
    np.testing.assert_allclose(after, row(0.2, 0.1, 0.2, 0.4, 0.1))


def test_a_row_without_a_receiver_stays_as_it_is():
    A = row(0.6, 0.3, 0.0, 0.0, 0.1)
    np.testing.assert_array_equal(redistribute(A, SINKS, VISUAL, 0.5), A)


def test_image_centric_rows_see_the_image_and_not_its_sinks_alone():
    A = np.stack([[0.4, 0.2, 0.1, 0.2, 0.1], [0.8, 0.05, 0.05, 0.05, 0.05], [0.3, 0.5, 0.1, 0.0, 0.1]])
    assert selected(A, SINKS, VISUAL, 0.5)[:, 0].tolist() == [True, False, False]
    after = var(A, SINKS, VISUAL, 0.5, 0.5)
    np.testing.assert_array_equal(after[1:], A[1:])
    np.testing.assert_allclose(after[:1], redistribute(A[:1], SINKS, VISUAL, 0.5))


def test_the_released_code_keeps_what_the_paper_gives_away():
    A = row(0.4, 0.2, 0.1, 0.2, 0.1)
    np.testing.assert_allclose(released(A, SINKS, VISUAL, 0.7, 0.5), redistribute(A, SINKS, VISUAL, 0.3))
    np.testing.assert_array_equal(released(A, SINKS, VISUAL, 0.7, 0.3), A)  # the sink has two fifths of the image


def test_the_released_code_does_nothing_without_a_visual_sink():
    A, text_sink = row(0.4, 0.2, 0.1, 0.2, 0.1), np.array([True, False, False, False, False])
    np.testing.assert_array_equal(released(A, text_sink, VISUAL, 0.7, 0.5), A)
    assert not np.allclose(var(A, text_sink, VISUAL, 0.3, 0.5), A)


def test_bounds_have_the_values_of_their_formulas():
    p, rho, least = Fraction(2, 5), Fraction(1, 2), Fraction(1, 5)
    assert amplification_bound(p, rho, least) == Fraction(23, 5)
    assert amplification(1 - rho * least, rho * least, p) == Fraction(23, 5)
    assert recycled_share(Fraction(1, 2), rho) == Fraction(1, 3)


def test_the_share_of_a_gaussian_above_a_threshold_is_a_beta_tail():
    assert share_above(1.0, 2) == pytest.approx(0.5)  # x_1^2 > x_2^2
    assert share_above(2.0, 4) == 0.0  # sqrt(4)
    x = np.random.default_rng(0).standard_normal((200_000, 6))
    found = (sink_dimension_value(x, [0]) > 1.5).mean()
    assert found == pytest.approx(share_above(1.5, 6), abs=4e-3)


def test_recall_and_false_alarms_give_f1_and_accuracy_back():
    hits, alarms = 0.9, 0.2
    f1, accuracy = 2 * hits / (1 + hits + alarms), (1 + hits - alarms) / 2
    assert recall(f1, accuracy) == pytest.approx(hits)
    assert false_alarms(hits, accuracy) == pytest.approx(alarms)


def test_no_spread_is_needed_where_one_set_would_do_and_none_helps_beyond_reach():
    f1, accuracy = 2 * 0.9 / 2.1, 0.85
    assert least_spread(f1 - 1e-9, accuracy, 0.9) == 0
    assert 0 < least_spread(f1 + 0.005, accuracy, 0.9) < 0.5
    assert least_spread(0.99, accuracy, 0.9) == np.inf
