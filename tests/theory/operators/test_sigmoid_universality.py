"""The parts of the construction for universal approximation."""

import numpy as np
import pytest

from theory.operators.sigmoid_universality import (
    add_sum,
    all_sequences,
    approximation_error,
    best_table,
    corners,
    decode,
    distinct,
    four_heads,
    four_heads_bound,
    heads,
    ids_in_order,
    network_ids,
    selective_shift,
    spread,
    sweep,
)


def test_a_shift_sums_what_lies_above_the_bin():
    x = np.array([[0, 3, 5, 3], [1, 2, 9, 9]])
    assert selective_shift(x, 2.5, 3.5).tolist() == [[0, 5, 0, 5], [0, 0, 0, 0]]
    assert selective_shift(x, 0.5, 1.5).tolist() == [[0, 0, 0, 0], [20, 0, 0, 0]]


def test_heads_have_one_dimension_and_affine_queries_and_keys():
    x = np.array([0.0, 2.0])
    first, second, third, fourth = heads(x, 0.5, 1.5, 10.0)
    assert first[0].tolist() == third[0].tolist() == [[-5], [15]]
    assert second[0].tolist() == fourth[0].tolist() == [[-15], [5]]
    assert first[1].tolist() == second[1].tolist() == [[-1.5], [0.5]]
    assert third[1].tolist() == fourth[1].tolist() == [[1], [1]]
    assert [one[2] for one in (first, second, third, fourth)] == [0.5, -0.5, 0.5, -0.5]


def test_cold_heads_are_the_shift_and_warm_ones_are_within_their_bound():
    x = np.array([[0.0, 1, 4], [2, 1, 0]])
    cold = four_heads(x, 0.5, 1.5, temperature=400.0, offset=-1.0)
    np.testing.assert_allclose(cold, selective_shift(x, 0.5, 1.5), atol=1e-12)
    warm = abs(four_heads(x, 0.5, 1.5, temperature=6.0) - selective_shift(x, 0.5, 1.5)).max(axis=-1)
    assert (warm > 0.01).all()
    assert (warm <= four_heads_bound(x, 0.5, 1.5, temperature=6.0)).all()
    assert four_heads_bound(x, 0.5, 1.5, temperature=4.0).tolist() == pytest.approx(
        [5 * (np.exp(-1) + np.exp(-2)), 3 * (np.exp(-1) + np.exp(-2))]
    )


def test_a_sweep_by_hand():
    """{0, 1, 2} with gain 4: 0 + 4 (1 + 2) = 12; 1 + 4 (2 + 12) = 57; 2 + 4 (12 + 57) = 278."""
    ids = sweep(np.array([1, 0, 2]), 4, 4)
    assert ids.tolist() == [57, 12, 278]
    assert ids_in_order([0, 1, 2], 4) == [12, 57, 278]
    assert decode(12 + 57 + 278, 3, 4) == [0, 1, 2]
    assert spread(ids) == 279
    assert add_sum(ids, 2).tolist() == [57 + 694, 12 + 694, 278 + 694]


def test_the_head_of_the_sum_makes_up_for_its_offset():
    ids = np.array([3.0, 5.0])
    np.testing.assert_allclose(add_sum(ids, 10.0, offset=-2.0), add_sum(ids, 10.0))


def test_the_network_rounds_to_exact_ids():
    tokens = np.array([[3, 0, 5], [1, 2, 7]])
    ids = sweep(tokens, 8, 8)
    assert network_ids(tokens, 8).tolist() == add_sum(ids, spread(ids)).tolist()


def test_ids_beyond_float64_are_refused():
    with pytest.raises(OverflowError, match="use fewer"):
        network_ids(np.arange(12)[None], 12)


def test_sequences_cells_and_equal_tokens():
    tokens = all_sequences(4, 2)
    assert tokens.shape == (16, 2)
    assert len({tuple(row) for row in tokens}) == 16
    assert distinct(tokens).sum() == 12
    assert corners(np.array([0, 1, 2, 3]), 2, 2).tolist() == [[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]]


def test_a_table_gives_the_mean_of_what_shares_an_id():
    values = np.array([[[1.0], [2.0]], [[4.0], [8.0]]])
    assert best_table(np.array([[7, 7], [1, 2]]), values).ravel().tolist() == [1.5, 1.5, 4, 8]


def test_the_error_of_the_identity_is_that_of_rounding_to_a_grid():
    """Uniform within a cell: squared error h^2 / 12 a coordinate, on the cells with distinct tokens."""
    grid = 4
    off, whole = approximation_error(lambda X: X, 2, 1, grid)
    assert off**2 == pytest.approx(2 * (1 - 1 / grid) / (12 * grid**2))
    middles = (np.arange(grid) + 0.5) / grid
    zero = 2 / grid**2 * (middles**2 + 1 / (12 * grid**2)).sum()
    assert whole**2 == pytest.approx(off**2 + zero)
