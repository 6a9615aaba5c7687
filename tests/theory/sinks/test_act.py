"""Attention Calibration: the rule, null models, and what a search finds by chance."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators.positions import causal
from theory.sinks import act
from theory.sinks.measures import importance


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_a_worked_row_is_calibrated():
    A = np.array([[0.5, 0.2, 0.3]])
    expected = [[0.5 + 0.18 * 5 / 7, 0.2 + 0.18 * 2 / 7, 0.12]]
    np.testing.assert_allclose(act.lower(A, np.array([False, False, True])), expected, rtol=1e-14)


def test_batches_are_calibrated_one_by_one(rng):
    A = act.random_maps(3, 16, 3.0, rng)
    np.testing.assert_array_equal(act.calibrate(A, tau=0.1), np.stack([act.calibrate(one, tau=0.1) for one in A]))


def test_the_first_token_is_no_later_sink():
    A = np.zeros((8, 8))
    A[:, 0] = 1
    assert not act.later_sinks(A).any()


def test_torch_agrees_with_numpy(rng):
    torch = pytest.importorskip("torch", reason="needs torch")
    A = act.random_maps(2, 20, 2.0, rng)
    found = act.calibrate(torch.from_numpy(A), tau=0.1)
    np.testing.assert_allclose(found.numpy(), act.calibrate(A, tau=0.1), rtol=1e-13)


def test_random_maps_are_causal_distributions(rng):
    A = act.random_maps(4, 12, 2.0, rng)
    np.testing.assert_allclose(A.sum(axis=-1), 1, rtol=1e-12)
    assert (A[:, ~causal(12)] == 0).all()


def test_the_uniform_average_is_that_of_the_uniform_map():
    A = causal(9) / np.arange(1, 10)[:, None]
    np.testing.assert_allclose([float(x) for x in act.uniform_importance(9)], importance(A), rtol=1e-13)
    assert act.uniform_importance(3) == [Fraction(11, 18), Fraction(5, 12), Fraction(1, 3)]


def test_shuffling_keeps_the_weights_of_each_row_and_the_mask(rng):
    A = act.random_maps(2, 10, 2.0, rng)
    shuffled = act.shuffle_rows(A, rng)
    np.testing.assert_array_equal(np.sort(shuffled, axis=-1), np.sort(A, axis=-1))
    assert (shuffled[:, ~causal(10)] == 0).all()
    assert not np.array_equal(shuffled, A)


def test_the_excess_of_uniform_attention_is_zero():
    np.testing.assert_allclose(act.excess(causal(7) / np.arange(1, 8)[:, None]), 0, atol=1e-15)


@pytest.mark.parametrize(("answers", "changed"), [(5, 0.3), (6, 0.5), (40, 0.1)])
def test_the_search_by_chance_agrees_with_an_enumeration(answers, changed):
    steps = np.array([changed / 2, 1 - changed, changed / 2])  # -1, 0, +1
    law = np.ones(1)
    for _ in range(answers):
        law = np.convolve(law, steps)
    net = np.arange(-answers, answers + 1)
    share = law[net > 0].sum()
    gain = (law * net)[net > 0].sum() / share / answers
    np.testing.assert_allclose(act.search_by_chance(answers, changed), (share, gain), rtol=1e-10)


def test_simulated_searches_agree_with_the_expectation(rng):
    found = act.search_results(100_000, 900, 0.019, 0.019, rng)
    share, gain = act.search_by_chance(900, 0.038)
    assert abs((found > 0).mean() - share) < 5 * (share * (1 - share) / len(found)) ** 0.5
    kept = found[found > 0]
    assert abs(kept.mean() - gain) < 5 * kept.std() / len(kept) ** 0.5
