"""Rows with a tuned first token: hand-computed values, heads, and the ways of kernels against the definition."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import scores, softmax_rows
from theory.sinks.measures import entropy
from theory.sinks.zerotuning import (
    after_the_kernel,
    best_sink,
    certify_entropy_falls,
    fair_share,
    gap_change,
    logit_bias,
    mass,
    others_entropy,
    peak,
    row_entropy,
    shift,
    slope_of_four,
    tuned,
    with_coordinate,
    with_copies,
)


def row(*weights):
    return np.array([weights], dtype=object)


def test_doubling_half_gives_two_thirds():
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    assert tuned(row(half, quarter, quarter), 2).tolist() == [[Fraction(2, 3), Fraction(1, 6), Fraction(1, 6)]]
    assert mass(half, 2) == Fraction(2, 3)
    assert shift(half, 2) == Fraction(1, 6)
    assert gap_change(half, quarter, half, 2) == Fraction(1, 4) * Fraction(1, 3)
    assert best_sink(Fraction(2)) == Fraction(1, 3)


def test_another_token_can_be_tuned_and_heads_have_their_own_factor():
    A = np.full((2, 3, 4), 0.25)
    np.testing.assert_allclose(tuned(A, np.array([1.0, 2.0])[:, None, None], token=3)[1, 0], [0.2, 0.2, 0.2, 0.4])
    np.testing.assert_array_equal(tuned(A, np.array([1.0, 2.0])[:, None, None], token=3)[0], A[0])


def test_a_row_of_the_first_token_alone_stays_as_it_is():
    np.testing.assert_array_equal(tuned(np.eye(1, 3), 0.3), np.eye(1, 3))


def test_gamma_zero_leaves_a_row_of_the_first_token_alone_empty():
    np.testing.assert_array_equal(tuned(np.eye(1, 3), 0.0), np.zeros((1, 3)))


def test_torch_gets_its_own_kind_back():
    torch = pytest.importorskip("torch")
    A = torch.full((2, 4), 0.25, dtype=torch.float32)
    assert tuned(A, 3.0).dtype == torch.float32
    torch.testing.assert_close(tuned(A, 3.0)[0], torch.tensor([0.5, 1 / 6, 1 / 6, 1 / 6]))


def test_entropies_are_those_of_the_rows():
    others = np.array([0.5, 0.3, 0.2])
    for p in (0.1, 0.4, 0.9):
        whole = np.concatenate([[p], (1 - p) * others])
        assert row_entropy(p, entropy(others)) == pytest.approx(entropy(whole))
        assert others_entropy(p, entropy(others)) == pytest.approx(entropy(whole[1:]))


def test_the_peak_gives_the_first_token_its_fair_share():
    assert mass(Fraction(1, 10), peak(Fraction(1, 10), 9)) == fair_share(Fraction(9)) == Fraction(1, 10)
    assert mass(Fraction(3, 5), peak(Fraction(3, 5), 4)) == Fraction(1, 5)


def test_the_slope_is_a_central_difference():
    for lead, t, u in ((0.3, 0.5, -0.2), (-1.0, 2.0, 0.0)):
        first = lead + np.log(1 + np.exp(t) + np.exp(u))
        ends = [entropy(softmax_rows(np.array([first + h, 0.0, t, u]))) for h in (-1e-5, 1e-5)]
        assert slope_of_four(lead, t, u) == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-6)


def test_certificates_prove_and_refute():
    pytest.importorskip("flint")
    assert certify_entropy_falls((0.0, 4.0), 1.0).proved
    assert certify_entropy_falls((-4.0, 0.0), 1.0).counterexample is not None


def test_every_way_of_a_kernel_gives_the_tuned_output():
    draw = np.random.default_rng(0)
    q, k, v = draw.standard_normal((2, 5, 3)), draw.standard_normal((2, 6, 3)), draw.standard_normal((2, 6, 3))
    s, gamma = scores(q, k), 3
    expected = tuned(softmax_rows(s), gamma) @ v
    log_sum = np.log(np.exp(s).sum(-1))
    assert logit_bias(np.array([1.0, 2.0]), 6).shape == (2, 1, 6)
    wide = with_coordinate(q, k, gamma, 3**-0.5)
    for way in (
        softmax_rows(s + logit_bias(gamma, 6)) @ v,
        after_the_kernel(softmax_rows(s) @ v, log_sum, s[..., 0], v[..., 0, :], gamma),
        softmax_rows(scores(q, with_copies(k, gamma))) @ with_copies(v, gamma),
        softmax_rows(scores(*wide, scale=3**-0.5)) @ v,
    ):
        np.testing.assert_allclose(way, expected, rtol=1e-12)
