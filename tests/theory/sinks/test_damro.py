"""Contrast, the filter, and what tables of averages allow."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import softmax_rows
from theory.sinks import damro
from theory.sinks.damro_tables import CAPTIONS, CHAIR, POPE, shares


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_a_worked_step_of_decoding():
    found = damro.contrast(np.array([2.0, 1.0, -1.0]), np.array([0.0, 2.0, 0.0]), 0.5, 0.1)
    np.testing.assert_allclose(found, [3.0, 0.5, -np.inf])


def test_beta_of_one_keeps_the_likeliest_word_alone(rng):
    logits = rng.standard_normal((4, 9))
    found = damro.contrast(logits, rng.standard_normal((4, 9)), 1.0, 1.0)
    np.testing.assert_array_equal(np.isfinite(found), logits == logits.max(axis=-1, keepdims=True))


def test_experts_multiply(rng):
    p, minus = softmax_rows(rng.standard_normal((2, 3, 6)))
    found = damro.product_of_experts(p, minus, 2.0, 0.0)
    np.testing.assert_allclose(found, (w := p**3 / minus**2) / w.sum(axis=-1, keepdims=True), rtol=1e-12)


def test_torch_agrees_with_numpy(rng):
    torch = pytest.importorskip("torch", reason="needs torch")
    logits, minus = rng.standard_normal((2, 3, 6))
    found = damro.contrast(torch.from_numpy(logits), torch.from_numpy(minus), 1.5, 0.2)
    np.testing.assert_allclose(found.numpy(), damro.contrast(logits, minus, 1.5, 0.2))
    q, k = rng.standard_normal((2, 8)), rng.standard_normal((2, 5, 8))
    found = damro.cls_attention(torch.from_numpy(q), torch.from_numpy(k), 4)
    np.testing.assert_allclose(found.numpy(), damro.cls_attention(q, k, 4))


def test_merged_heads_add_their_logits(rng):
    q, k = rng.standard_normal(8), rng.standard_normal((5, 8))
    each = np.einsum("hc,nhc->nh", q.reshape(4, 2), k.reshape(5, 4, 2))
    np.testing.assert_allclose(damro.cls_attention(q, k), softmax_rows(each.sum(axis=1) / np.sqrt(8)), rtol=1e-12)
    apart = softmax_rows(each.T / np.sqrt(2)).mean(axis=0)
    np.testing.assert_allclose(damro.cls_attention(q, k, 4), apart, rtol=1e-12)


def test_the_top_tokens_are_marked():
    a = np.array([[0.1, 0.4, 0.4, 0.1], [0.7, 0.1, 0.1, 0.1]])
    np.testing.assert_array_equal(damro.top(a, 2), [[False, True, True, False], [True, True, False, False]])


def averages(P, R):
    """Mean precision, recall, F1 and accuracy of balanced sets with these precisions and recalls."""
    f = R * (1 / P - 1)
    return P.mean(-1), R.mean(-1), (2 * P * R / (P + R)).mean(-1), ((1 + R - f) / 2).mean(-1)


@pytest.mark.parametrize("spread", [0, 0.02])
def test_no_averages_lie_outside_their_range(rng, spread):
    for _ in range(500):
        P = rng.uniform(0.85, 1, 3)
        offsets = rng.uniform(-1, 1, 3)
        R = rng.uniform(0.3, 0.9) + spread / 2 * (offsets - offsets.mean())  # at most `spread` from their mean
        precision, recall, score, accuracy = averages(P, R)
        least, most = damro.accuracy_range(precision, recall, spread=spread)
        assert least - 1e-12 <= accuracy <= most + 1e-12
        if not spread:
            least, most = damro.score_range(precision, recall)
            assert least - 1e-12 <= score <= most + 1e-12


@pytest.mark.parametrize("end", [0, 1])
def test_the_ends_of_the_ranges_are_attained(end):
    P = np.array([[1, 1, 0.7], [0.9, 0.9, 0.9]])[end]
    precision, recall, score, accuracy = averages(P, np.full(3, 0.8))
    np.testing.assert_allclose(damro.accuracy_range(precision, recall)[end], accuracy, rtol=1e-12)
    np.testing.assert_allclose(damro.score_range(precision, recall)[end], score, rtol=1e-12)


def test_a_precision_that_bounds_nothing_is_refused():
    with pytest.raises(ValueError, match="no bound"):
        damro.accuracy_range(Fraction(1, 2), Fraction(4, 5))


def test_false_positives_of_a_worked_example():
    assert damro.false_positives(Fraction(3, 4), Fraction(4, 5)) == Fraction(3, 20)  # 75 of 100, 85 of 100


def test_sampling_sharpens_towards_the_greedy_answer():
    p = np.array([0.2, 0.5, 0.9])
    np.testing.assert_allclose(damro.sharpened_accuracy(p), p**2 + (1 - p) ** 2)
    np.testing.assert_allclose(damro.sharpened_accuracy(p, np.inf), [0.8, 0.5, 0.9])
    assert (np.diff([damro.sharpened_accuracy(p, power) for power in (1, 1.5, 3, 9)], axis=0) >= 0).all()


def test_the_bound_of_greedy_answers_holds_for_random_questions(rng):
    p = rng.random((100, 50))
    sampled, greedy = damro.sharpened_accuracy(p).mean(-1), damro.sharpened_accuracy(p, np.inf).mean(-1)
    assert (greedy <= damro.greedy_at_most(sampled)).all()
    assert abs(damro.greedy_at_most(damro.sharpened_accuracy(0.8)) - 0.8) < 1e-12


def test_tables_are_whole():
    assert [len(methods) for methods in POPE.values()] == [4, 4, 4]
    assert all(len(shares(row)) == 4 for methods in POPE.values() for row in methods.values())
    assert CAPTIONS == 500
    assert CHAIR.keys() == POPE.keys()
