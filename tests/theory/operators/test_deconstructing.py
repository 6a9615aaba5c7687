"""Recurrences of the simplified operators against the operators themselves, and the counts against hand counts."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators import attention
from theory.operators.deconstructing import (
    CACHE,
    cache_bytes,
    causal_sums,
    conditional_entropy,
    elementwise_order,
    gated_bound,
    gated_logits,
    kernel_rank,
    newest_bound,
    per_key_recurrence,
    rms_norm,
    second_order,
    separate_sums,
    silu,
    taylor_recurrence,
    unbound_accuracy,
)
from theory.operators.positions import causal


@pytest.fixture
def draw():
    return np.random.default_rng(11)


def test_second_order_features_multiply_to_the_taylor_polynomial(draw):
    q, k = draw.standard_normal((2, 5, 3))
    s = q @ k.T
    np.testing.assert_allclose(second_order(q) @ second_order(k).T, 1 + s + s**2 / 2, rtol=1e-12)


def test_elementwise_features_are_enough_in_one_dimension_only(draw):
    x = draw.standard_normal((4, 1))
    np.testing.assert_array_equal(second_order(x), elementwise_order(x))
    x = draw.standard_normal((4, 2))
    assert second_order(x).shape == (4, 6)
    assert elementwise_order(x).shape == (4, 5)


def test_the_state_is_the_running_sum():
    products, norms = causal_sums(np.array([[1, 2], [3, 4]]), np.array([[5], [6]]))
    assert products.tolist() == [[[5], [10]], [[23], [34]]]
    assert norms.tolist() == [[1, 2], [4, 6]]


def test_the_taylor_recurrence_is_the_masked_operator(draw):
    q, k, v = draw.standard_normal((3, 6, 4))
    numerators, denominators = taylor_recurrence(q / 2**0.5, k / 2**0.5, v)  # d^(1/4) = sqrt 2
    np.testing.assert_allclose(
        numerators / denominators, attention.taylor(q, k, mask=causal(6)) @ v, rtol=1e-10, atol=1e-12
    )


def test_sums_that_are_normalised_one_by_one_have_rows_that_sum_to_three(draw):
    q, k = draw.standard_normal((2, 5, 2))
    output, one = separate_sums(q, k, np.ones((5, 1)))
    np.testing.assert_allclose(output, 3)
    np.testing.assert_array_equal(one, 1)


def test_the_per_key_recurrence_is_the_masked_operator(draw):
    logits, v = draw.standard_normal(6), draw.standard_normal((6, 3))
    numerators, denominators = per_key_recurrence(np.exp(logits), v)
    np.testing.assert_allclose(
        numerators / denominators, attention.per_key(logits, mask=causal(6)) @ v, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(("d", "rank"), [(1, 3), (2, 6), (3, 10)])
def test_the_kernel_has_the_rank_of_its_monomials(draw, d, rank):
    assert kernel_rank(draw.integers(-9, 10, (rank + 3, d))) == rank


def test_gated_logits_have_their_known_values():
    assert silu(np.array([0.0, 2.0])) == pytest.approx([0, 2 / (1 + np.exp(-2))])
    assert gated_logits(np.array([[2.0, 0, 0, 0]]), np.array([[3.0, 7, 0, 0]])) == pytest.approx([3 / (1 + np.exp(-2))])
    corner = rms_norm(np.array([[5.0, 0, 0, 0]]))
    assert corner.tolist() == [[2, 0, 0, 0]]
    assert gated_logits(corner, corner) == pytest.approx([gated_bound(4)])


def test_the_newest_token_weighs_most_when_all_others_are_at_the_lower_end():
    assert newest_bound(0, 3.0) == 1
    weights = attention.per_key(np.array([-1.0, -1, -1, 1]))[0]
    assert weights[-1] == pytest.approx(newest_bound(3, 1.0))


def test_caches_are_counted_as_by_hand():
    assert cache_bytes("Approximate", 1, 1, 2, 1) == 2 * (6 * 2 + 5)
    assert cache_bytes("elementwise squares", 3, 9, 8, 2) == CACHE["Approximate"](3, 9, 8, 2) == 528
    assert cache_bytes("standard", 2, 5, 4, 2) == 160
    with pytest.raises(KeyError):
        cache_bytes("RWKV", 1, 1, 1, 1)


def test_conditional_entropy_has_its_known_values():
    context, token = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 2, 2, 2])
    assert conditional_entropy(context, token) == pytest.approx(np.log(2) / 3)
    assert conditional_entropy(0 * context, token) == pytest.approx(np.log(6) * 2 / 6 + np.log(6 / 4) * 4 / 6)


def test_values_without_their_keys_answer_as_often_as_the_commonest_one():
    assert unbound_accuracy(1, 5) == 1
    assert unbound_accuracy(2, 2) == Fraction(3, 4)
    assert unbound_accuracy(3, 6) == Fraction(120 + 2 * 90 + 3 * 6, 3 * 216)
