"""Error rates of the tests, by simulation against an exact interval; equality with scipy; refused input."""

import math

import numpy as np
import pytest
import scipy.stats

from reports import statistics
from reports.evidence import Evidence, Inconclusive, NotANumber, Violation
from reports.randomness import seed_for

TRIALS = 2_000
ALPHA = 0.05


def false_alarms_lie_within(count: int, rate: float) -> bool:
    """Is the count of false alarms in TRIALS what this rate gives, but for one chance in a million?"""
    low, high = scipy.stats.binom.interval(1 - 1e-6, TRIALS, rate)
    return low <= count <= high


@pytest.fixture(scope="module")
def normal_samples():
    return np.random.default_rng(seed_for("statistics")).normal(size=(TRIALS, 12))


def test_a_mean_that_is_right_is_refused_at_the_declared_rate(normal_samples):
    refused = sum(statistics.mean_equals("m", sample, 0.0, ALPHA).held is False for sample in normal_samples)
    assert false_alarms_lie_within(refused, ALPHA)


def test_a_mean_on_the_bound_is_called_above_it_at_the_declared_rate(normal_samples):
    shown = sum(statistics.mean_between("m", sample, 0.0, math.inf, ALPHA).held is True for sample in normal_samples)
    assert false_alarms_lie_within(shown, ALPHA)


def test_a_mean_on_the_edge_is_called_equivalent_at_most_at_the_declared_rate(normal_samples):
    shown = sum(statistics.mean_between("m", sample, 0.0, 9.0, ALPHA).held is True for sample in normal_samples)
    assert false_alarms_lie_within(shown, ALPHA)


def test_scores_of_chance_are_refused_at_most_at_the_declared_rate(normal_samples):
    refused = sum(statistics.z_scores("z", sample, ALPHA).held is False for sample in normal_samples)
    assert refused <= scipy.stats.binom.isf(1e-6, TRIALS, ALPHA)
    assert refused >= scipy.stats.binom.isf(1 - 1e-6, TRIALS, 0.8 * ALPHA)


@pytest.mark.parametrize(("wins", "held"), [(30, True), (20, True), (19, None), (11, None), (10, False), (0, False)])
def test_a_majority_is_shown_refuted_or_left_open_by_sign_tests_in_both_directions(wins, held):
    one = statistics.majority("m", wins, 30, ALPHA)
    assert one.held is held
    assert one.p == min(scipy.stats.binomtest(wins, 30, alternative=way).pvalue for way in ("greater", "less"))


def test_an_open_majority_is_inconclusive():
    evidence = Evidence()
    evidence.majority("m", 30, 30, alpha=ALPHA)
    with pytest.raises(Inconclusive):
        evidence.majority("m", 15, 30, alpha=ALPHA)
    with pytest.raises(Violation):
        evidence.majority("m", 0, 30, alpha=ALPHA)


@pytest.mark.parametrize("alpha", [0.3, 0.01, 1e-3])
@pytest.mark.parametrize("trials", [1, 10, 11, 500])
def test_the_sign_test_and_the_wins_it_asks_for_agree(trials, alpha):
    for wins in range(trials + 1):
        evidence = Evidence()
        try:
            evidence.sign_test("wins", wins, trials, alpha=alpha)
        except Violation:
            assert wins < evidence.quantities["wins"].bound.limit
        else:
            assert wins >= evidence.quantities["wins"].bound.limit


def test_p_values_equal_those_of_scipy():
    sample = [1.0, 2.0, 4.0, 8.0]
    found = statistics.mean_equals("m", sample, 3.0, ALPHA)
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(sample, 3.0).pvalue, rel=1e-12)
    low, high = scipy.stats.ttest_1samp(sample, 0.0).confidence_interval(1 - ALPHA)
    assert found.interval == pytest.approx((low, high), rel=1e-12)


def test_an_interval_inside_holds_outside_violates_across_is_undecided():
    sample = [0.9, 1.0, 1.1, 1.0]
    evidence = Evidence()
    evidence.mean_within("inside", sample, 0.0, 2.0, alpha=1e-3)
    evidence.mean_at_least("above", sample, 0.0, alpha=1e-3)
    evidence.mean_at_most("below", sample, 2.0, alpha=1e-3)
    evidence.mean_equals("equal", sample, 1.0, alpha=1e-3)
    with pytest.raises(Violation):
        evidence.mean_within("outside", sample, 3.0, 4.0, alpha=1e-3)
    with pytest.raises(Violation):
        evidence.mean_equals("unequal", sample, 2.0, alpha=1e-3)
    with pytest.raises(Inconclusive, match="lies across the bound"):
        evidence.mean_at_least("across", sample, 1.0, alpha=1e-3)
    assert [test["held"] for test in evidence.to_json()["tests"]] == [True, True, True, True, False, False, None]
    assert evidence.quantities["across"].held is False


def test_scores_within_chance_hold_and_a_large_one_violates():
    Evidence().z_scores("z", [0.1, -2.0, 1.0], alpha=1e-3)
    with pytest.raises(Violation):
        Evidence().z_scores("z", [0.1, -5.0, 1.0], alpha=1e-3)


@pytest.mark.parametrize(("wins", "trials"), [(3, 2), (-1, 2), (0, 0)])
def test_a_sign_test_without_pairs_is_refused(wins, trials):
    with pytest.raises(ValueError, match="at least one untied pair"):
        statistics.sign_test("s", wins, trials, ALPHA)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 0.5])
def test_an_alpha_that_is_no_error_rate_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must lie in"):
        statistics.sign_test("s", 1, 2, alpha)


def test_samples_that_give_no_error_are_refused():
    with pytest.raises(ValueError, match="at least two samples"):
        statistics.mean_equals("m", [1.0], 1.0, ALPHA)
    with pytest.raises(ValueError, match="use expect instead"):
        statistics.mean_equals("m", [1.0, 1.0], 1.0, ALPHA)
    with pytest.raises(NotANumber):
        statistics.mean_equals("m", [1.0, math.inf], 1.0, ALPHA)
    with pytest.raises(NotANumber):
        statistics.mean_equals("m", [1.0, math.nan], 1.0, ALPHA)
