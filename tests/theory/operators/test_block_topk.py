"""Block top-k attention: which pages are chosen, and what their bytes are."""

from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import softmax
from theory.operators.block_topk import (
    block_topk,
    byte_ratio,
    chosen,
    dense_bytes,
    page_mask,
    page_means,
    page_scores,
    sparse_bytes,
)


def test_the_mean_of_the_last_page_is_of_the_tokens_it_has():
    k = np.arange(10.0).reshape(5, 2)
    assert page_means(k, page=2).tolist() == [[1, 2], [5, 6], [8, 9]]


def test_a_group_scores_a_page_together():
    q, means = np.array([[1.0, 0], [0, 2]]), np.array([[3.0, 4], [5, 6]])
    assert page_scores(q, means).tolist() == [3 + 8, 5 + 12]


@pytest.mark.parametrize(
    ("scores", "top", "expected"),
    [
        ([0, 5, 9, 7, 0], 1, [1, 0, 1, 0, 1]),
        ([9, 5, 5, 5, 9], 2, [1, 1, 1, 0, 1]),
        ([0, 1, 2, 3, 0], 0, [1, 0, 0, 0, 1]),
        ([0, 1, 2, 3, 0], 9, [1, 1, 1, 1, 1]),
        ([0, 0], 1, [1, 1]),
        ([0], 1, [1]),
    ],
)
def test_the_ends_and_the_best_are_chosen_the_earlier_of_equals(scores, top, expected):
    assert chosen(np.array(scores, float), top).astype(int).tolist() == expected


def test_pages_cover_their_tokens():
    assert page_mask(np.array([True, False, True]), 5, page=2).astype(int).tolist() == [1, 1, 0, 0, 1]


def test_with_enough_pages_it_is_softmax_else_rows_see_the_chosen_alone():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((3, 4)), rng.standard_normal((20, 4))
    np.testing.assert_allclose(block_topk(q, k, 8, page=2), softmax(q, k))
    few = block_topk(q, k, 1, page=2)
    assert ((few > 0).sum(-1) == 6).all()
    np.testing.assert_allclose(few.sum(-1), 1)


def test_bytes_are_those_of_the_catalogue():
    assert dense_bytes(16_384, 128) == 2 * 16_384 * 128 * 2
    assert sparse_bytes(16_384, 128, kept=0) == (2 * 1024 + 1024) * 128 * 2
    assert byte_ratio(16_384, kept=0) == Fraction(32, 3)
    assert byte_ratio(32_768, kept=0) == 16
    assert byte_ratio(32_768, kept=0, search=False) == 32
    assert sparse_bytes(100, 128, search=False) == dense_bytes(100, 128)
