"""What is measured of sinks and outliers: values by hand, invariances, equality cases, edges; numpy and torch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.operators.positions import causal, strictly_causal
from theory.sinks import measures

EPS = np.finfo(float).eps


def both(x):
    """The array, and the same as a tensor."""
    torch = pytest.importorskip("torch")
    return [np.asarray(x), torch.from_numpy(np.asarray(x))]


def attention(seed, n, stars=0, heads=()):
    """Random causal weights, rows of sum 1; the first columns are keys of no token."""
    rng = np.random.default_rng(seed)
    A = rng.exponential(size=(*heads, n, n + stars)) * np.concatenate([np.ones((n, stars)), causal(n)], axis=1)
    return A / A.sum(-1, keepdims=True)


sizes = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)


# -- importance --------------------------------------------------------------------------------------------------------


def test_importance_is_the_mean_over_the_queries_that_see_a_key():
    for A in both([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]):
        np.testing.assert_allclose(measures.importance(A), [1.75 / 3, 1.25 / 2, 0.0])


@given(n=sizes, stars=st.integers(0, 2), seed=seeds)
def test_importances_times_the_queries_that_see_add_up_to_all_queries(n, stars, seed):
    A = attention(seed, n, stars)
    seen = np.concatenate([np.full(stars, n), n - np.arange(n)])
    np.testing.assert_allclose(measures.importance(A) @ seen, n, rtol=8 * n * EPS)


@given(n=sizes, seed=seeds)
def test_the_order_of_queries_does_not_matter_and_importance_is_linear(n, seed):
    A, rng = attention(seed, n), np.random.default_rng(seed)
    np.testing.assert_allclose(measures.importance(A[rng.permutation(n)]), measures.importance(A))
    np.testing.assert_allclose(measures.importance(3 * A), 3 * measures.importance(A))


def test_a_key_that_all_look_at_has_importance_one_and_a_learned_key_is_seen_by_all():
    A = np.zeros((4, 5))
    A[:, 0] = 1
    np.testing.assert_array_equal(measures.importance(A), [1, 0, 0, 0, 0])
    A[0] = [0, 1, 0, 0, 0]
    np.testing.assert_array_equal(measures.importance(A)[:2], [0.75, 0.25])


def test_one_token_is_a_sink_and_no_token_none():
    for one in both([[1.0]]):
        assert measures.importance(one).tolist() == [1.0]
        assert measures.sinks(one).tolist() == [True]
    for none in both(np.zeros((3, 0, 0))):
        assert tuple(measures.importance(none).shape) == (3, 0)


def test_importance_at_the_threshold_is_no_sink():
    for A in both([[0.25, 0.0], [0.25, 0.75]]):
        assert measures.sinks(A, 0.25).tolist() == [False, True]
        assert measures.sinks(A, 0.24).tolist() == [True, True]


def test_uniform_attention_at_64_tokens_gives_its_first_token_the_value_in_the_docstring():
    A = causal(64) / np.arange(1, 65)[:, None]
    assert round(float(measures.importance(A)[0]), 3) == 0.074


# -- rows --------------------------------------------------------------------------------------------------------------


def test_row_mass_is_what_a_row_gives_away():
    for A in both([[0.5, 0.0], [0.25, 2.0]]):
        assert measures.row_mass(A).tolist() == [0.5, 2.25]


@given(n=sizes, seed=seeds, power=st.integers(-3, 6))
def test_the_proxy_does_not_see_the_size_or_the_sign_of_a_row(n, seed, power):
    A = attention(seed, n)
    np.testing.assert_allclose(measures.proxy(-(10.0**power) * A), A, atol=2e-8 * 10.0 ** max(0, -power))


def test_the_proxy_of_an_empty_row_is_empty():
    for A in both([[0.0, 0.0], [0.0, 1e-12]]):
        found = measures.proxy(A)
        assert found[0].tolist() == [0, 0]
        assert found[1, 1] < 1e-3


def test_entropy_lies_between_that_of_one_key_and_of_even_attention():
    for A in both([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]):
        np.testing.assert_allclose(measures.entropy(A), [0, math.log(4), math.log(2)], atol=4 * EPS)


@given(n=sizes, seed=seeds)
def test_entropy_does_not_see_the_order_of_keys(n, seed):
    A, order = attention(seed, n), np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(measures.entropy(A[:, order]), measures.entropy(A), atol=n * EPS)
    assert (measures.entropy(A) <= np.log(np.arange(1, n + 1)) + 4 * n * EPS).all()


def test_attention_outliers_are_of_the_mean_over_heads_and_include_the_bound():
    A = np.zeros((2, 20, 20))
    A[0, :, 0], A[1, :2, 3], A[0, 0, 5] = 1, 1, 1
    for weights in both(A):  # sums over 20 rows of the mean of 2 heads: 10, 1, 0.5; a tenth of the rows is 2
        assert np.flatnonzero(measures.attention_outliers(weights)).tolist() == [0]
        assert np.flatnonzero(measures.attention_outliers(weights, 0.05)).tolist() == [0, 3]


def test_after_nine_tenths_of_the_keys_too_few_queries_are_left_for_an_outlier():
    most = causal(20).astype(float)[None]  # each query gives each key that it sees as much as it may
    assert np.flatnonzero(measures.attention_outliers(most)).max() == 18
    late = strictly_causal(20).astype(float)[None]
    assert np.flatnonzero(measures.attention_outliers(late)).max() == 17


# -- magnitudes --------------------------------------------------------------------------------------------------------


def with_ratio(ratio, n=100_000):
    """n ones but for one element, which is `ratio` times the mean magnitude of all."""
    x = np.ones(n)
    x[n // 3] = ratio * (n - 1) / (n - ratio)
    return x


@pytest.mark.parametrize("sign", [1, -1])
def test_an_outlier_of_1001_times_the_mean_is_found_and_one_of_999_is_not(sign):
    for x in both(sign * with_ratio(1001)):
        assert np.flatnonzero(measures.outliers(x)).tolist() == [33_333]
        np.testing.assert_allclose(float(measures.max_over_mean(x)), 1001)
    for x in both(sign * with_ratio(999)):
        assert not measures.outliers(x).any()


def test_outliers_are_those_of_the_whole_array_and_many_are_found():
    x = np.ones((300, 1000))
    x[7, 3] = x[200, 999] = 5000  # mean 1.03
    assert np.argwhere(measures.outliers(x)).tolist() == [[7, 3], [200, 999]]


def test_no_element_is_more_than_their_number_times_the_mean():
    x = np.zeros(1000)
    x[5] = 3.0
    assert measures.max_over_mean(x) == 1000
    assert not measures.outliers(x).any()
    assert measures.outliers(np.append(x, 0)).any()


@given(seed=seeds, power=st.integers(-30, 30))
def test_outliers_do_not_feel_scale_and_move_with_the_elements(seed, power):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(60) * np.exp(4 * rng.standard_normal(60))
    order, scaled = rng.permutation(60), x * 2.0**power
    np.testing.assert_array_equal(measures.outliers(scaled, 10), measures.outliers(x, 10))
    np.testing.assert_array_equal(measures.outliers(x[order], 10), measures.outliers(x, 10)[order])
    np.testing.assert_allclose(measures.max_over_mean(scaled), measures.max_over_mean(x))


def test_nothing_stands_out_of_zeros_or_of_equal_elements():
    for x in both(np.zeros((2, 3))):
        assert float(measures.max_over_mean(x)) == 0
        assert not measures.outliers(x).any()
    for x in both(np.full((2, 3), -4.0)):
        assert measures.max_over_mean(x, -1).tolist() == [1, 1]


def test_max_over_mean_is_taken_along_the_axes():
    x = np.array([[1.0, 3.0], [0.0, 0.0]])
    assert measures.max_over_mean(x, -1).tolist() == [1.5, 0.0]
    assert measures.max_over_mean(x, (0, 1)) == 3.0


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_kurtosis_is_largest_for_one_element_unlike_the_others(n):
    x = np.full(n, 2.0)
    x[-1] = -1.0
    for one in both(x):
        np.testing.assert_allclose(float(measures.kurtosis(one)), n - 2 + 1 / (n - 1), rtol=1e-9)


def test_kurtosis_is_least_for_two_values_in_equal_numbers():
    for x in both([[1.0, -1.0, 1.0, -1.0], [5.0, 5.0, 3.0, 3.0]]):
        assert measures.kurtosis(x).tolist() == [1, 1]


@given(seed=seeds, n=st.integers(2, 40))
def test_kurtosis_does_not_feel_scale_shift_and_order_and_keeps_its_bounds(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    found = measures.kurtosis(x)
    np.testing.assert_allclose(measures.kurtosis(3 - 8 * rng.permutation(x)), found, rtol=1e-6)
    assert 1 - 1e-9 <= found <= n - 2 + 1 / (n - 1) + 1e-9


def test_sink_dimension_value_is_largest_where_one_element_is_not_zero():
    x = np.zeros((2, 16))
    x[0, 3], x[1, 5] = -2.0, 7.0
    for h in both(x):
        assert measures.sink_dimension_value(h, [3]).tolist() == [4, 0]
        assert measures.sink_dimension_value(h, [3, 5]).tolist() == [4, 4]
        assert measures.rms(h).shape == (2, 1)


@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_sink_dimension_value_does_not_feel_scale_and_the_order_of_dimensions(seed, factor):
    x = np.random.default_rng(seed).standard_normal((3, 8))
    found = measures.sink_dimension_value(x, [1, 4])
    np.testing.assert_allclose(measures.sink_dimension_value(-factor * x, [4, 1]), found)
    assert (found <= math.sqrt(8) * (1 + 8 * EPS)).all()


# -- vectors -----------------------------------------------------------------------------------------------------------


def test_length_ratio_is_over_the_mean_of_the_other_tokens():
    x = np.array([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    for one in both(x):
        assert measures.lengths(one).tolist() == [5, 1, 2, 0]
        np.testing.assert_allclose(measures.length_ratio(one), 5.0)
        np.testing.assert_allclose(measures.length_ratio(one, 1), 3 / 7)
        np.testing.assert_allclose(measures.length_ratio(-9.0 * one), 5.0)


def test_one_token_has_no_length_ratio():
    with pytest.raises(ValueError, match="needs two or more"):
        measures.length_ratio(np.ones((3, 1, 2)))


@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_cosines_feel_angles_alone(seed, factor):
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))
    found = measures.cosines(q, k)
    assert found.shape == (2, 3, 5)
    assert (abs(found) <= 1 + 8 * EPS).all()
    np.testing.assert_allclose(measures.cosines(factor * q, k / factor), found, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(measures.cosines(q, -2 * q), axis1=-2, axis2=-1), -1)


def test_cosines_of_right_angles_are_zero():
    for x in both(np.eye(3)):
        np.testing.assert_array_equal(measures.cosines(x, x), np.eye(3))


# -- the same lines for numpy and torch --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["importance", "sinks", "row_mass", "proxy", "entropy", "outliers", "kurtosis", "rms"])
def test_torch_gives_the_numbers_of_numpy_and_keeps_the_dtype(name, dtype):
    A = attention(0, 7, stars=1, heads=(2, 3)).astype(dtype)
    measure, (numpy, tensor) = getattr(measures, name), both(A)
    there, here = measure(tensor), measure(numpy)
    np.testing.assert_allclose(there, here, rtol=1e-5)
    assert str(there.dtype).removeprefix("torch.") == str(here.dtype)
    assert str(here.dtype) in (dtype, "bool")
