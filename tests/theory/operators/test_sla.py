"""The map of sparse-linear attention, both branches and their limits."""

import numpy as np
import pytest

from theory.operators.attention import linear as linear_weights
from theory.operators.attention import softmax, softmax_rows
from theory.operators.sla import (
    Form,
    aggregate,
    algorithm,
    block_map,
    branches,
    classify,
    count,
    dense_flops,
    gradients,
    linear_flops,
    linear_mask,
    pool,
    spread,
    through,
    weights,
)

FORM = Form(4, 2)


@pytest.fixture
def given():
    """q (10, 3), k and v (7, 3): 3 blocks of 4 queries, 4 blocks of 2 keys, the last of each shorter."""
    rng = np.random.default_rng(5)
    return rng.standard_normal((10, 3)), *rng.standard_normal((2, 7, 3))


def test_the_last_block_is_divided_by_its_own_length():
    assert pool(np.array([[1.0], [3.0], [8.0]]), 2).tolist() == [[2.0], [8.0]]


def test_a_share_of_blocks_is_rounded_down():
    assert [count(share, 512) for share in (0, 0.05, 0.1, 1, 2)] == [0, 25, 51, 512, 512]


def test_the_highest_are_critical_and_the_lowest_negligible_and_ties_go_to_the_earlier():
    scores = np.array([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert classify(scores, 1, 2).tolist() == [[1, -1, 0, -1], [1, 0, -1, -1]]
    assert classify(scores, 3, 3).tolist() == [[1, 1, 1, -1], [1, 1, 1, -1]]


def test_the_map_ranks_products_of_means(given):
    q, k, _ = given
    kinds = block_map(q, k, query_block=4, key_block=2, high=0.5, low=0.25)
    assert kinds.shape == (3, 4)
    products = pool(q, 4) @ pool(k, 2).T
    assert (np.sort(kinds, axis=-1) == [-1, 0, 1, 1]).all()
    assert (np.argmin(products, axis=-1) == np.argmin(kinds, axis=-1)).all()


def test_a_block_spreads_over_its_queries_and_keys():
    kinds = spread(np.array([[1, 0], [-1, 1]], dtype=np.int8), 3, 3, Form(2, 2))
    assert kinds.tolist() == [[1, 1, 0], [1, 1, 0], [-1, -1, 1]]


@pytest.mark.parametrize(
    ("linear", "seen"),
    [("marginal", [False, True, False]), ("rest", [True, True, False]), ("all", [True] * 3), ("none", [False] * 3)],
)
def test_who_sees_what(linear, seen):
    assert linear_mask(np.array([-1, 0, 1]), linear).tolist() == seen


def test_with_every_block_critical_it_is_softmax_attention(given):
    q, k, v = given
    sparse, linear = branches(q, k, v, np.ones((3, 4), np.int8), FORM)
    np.testing.assert_array_equal(sparse, softmax(q, k) @ v)
    assert not linear.any()


def test_with_every_block_marginal_it_is_linear_attention(given):
    q, k, v = given
    sparse, linear = branches(q, k, v, np.zeros((3, 4), np.int8), FORM)
    assert not sparse.any()
    np.testing.assert_allclose(linear, linear_weights(q, k, feature_map=softmax_rows) @ v, atol=1e-15)


def test_both_branches_have_rows_that_sum_to_one(given):
    q, k, _ = given
    for matrix in weights(q, k, block_map(q, k, query_block=4, key_block=2, high=0.25, low=0.25), FORM):
        np.testing.assert_allclose(matrix.sum(-1), 1)
        assert matrix.min() >= 0


@pytest.mark.parametrize("linear", ["marginal", "rest", "all", "none"])
@pytest.mark.parametrize("features", ["softmax", "elu", "relu"])
def test_the_algorithm_and_the_gradients_are_those_of_the_definition(given, linear, features):
    q, k, v = given
    form = Form(4, 2, linear, features, scale=0.7)
    kinds = block_map(q, k, query_block=4, key_block=2, high=0.25, low=0.25)
    np.testing.assert_allclose(algorithm(q, k, v, kinds, form), branches(q, k, v, kinds, form), atol=1e-14)
    dO, step = np.random.default_rng(6).standard_normal((2, 10, 3)), 1e-6
    found = gradients(q, k, v, kinds, *dO, form)
    for place, gradient in enumerate(found):
        direction = np.random.default_rng(place).standard_normal(gradient.shape)
        ends = []
        for side in (step, -step):
            moved = [x + side * direction if at == place else x for at, x in enumerate((q, k, v))]
            ends.append(sum((a * b).sum() for a, b in zip(branches(*moved, kinds, form), dO, strict=True)))
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_features_of_known_slope():
    x, df = np.array([[-1.0, 2.0]]), np.array([[3.0, 5.0]])
    np.testing.assert_allclose(through(x, df, "relu"), [[0, 5]])
    np.testing.assert_allclose(through(x, df, "elu"), [[3 * np.exp(-1), 5]])
    f = softmax_rows(x)
    np.testing.assert_allclose(through(x, df, "softmax"), f * (df - (f * df).sum()))


def test_what_attention_costs():
    assert dense_flops(8, 2) == 4 * 64 * 2
    assert linear_flops(8, 2) == 4 * 8 * 4
    assert linear_flops(8, 2, products=1) == 2 * 8 * 4


@pytest.mark.parametrize("subtract", [False, True])
def test_both_ways_to_add_up_states(subtract):
    states = np.arange(8.0).reshape(4, 2)
    assert aggregate(states, np.array([True, False, True, False]), subtract=subtract).tolist() == [4, 6]
