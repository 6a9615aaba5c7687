"""Rows of MALA against hand-computed scores; the released operator; counts of the released backbones."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from theory.operators.attention import elu_plus_one, linear, mala
from theory.operators.mala import (
    BACKBONES,
    Backbone,
    identity,
    official,
    pole,
    released,
    released_scale,
    row_scores,
    scaled_score,
    total_variation,
    without_beta,
    without_gamma,
)


@pytest.fixture
def features():
    return np.random.default_rng(7).standard_normal((2, 5, 4))


def test_a_row_of_two_keys_has_its_known_scores():
    row = (Fraction(2, 3), Fraction(1, 3))
    assert row_scores(row).tolist() == [Fraction(5, 6), Fraction(1, 6)]
    assert row_scores(row, Fraction(3)).tolist() == [Fraction(7, 6), Fraction(-1, 6)]
    assert row_scores(row, Fraction(3), linear).tolist() == list(row)


def test_the_closed_form_is_the_operator():
    row, a = (Fraction(1, 2), Fraction(1, 4), Fraction(3, 20), Fraction(1, 10)), Fraction(7, 3)
    assert row_scores(row, a).tolist() == [scaled_score(s, sum(row), 4, a) for s in row]


def test_a_score_vanishes_at_its_pole():
    row = (Fraction(1, 2), Fraction(1, 4), Fraction(3, 20), Fraction(1, 10))
    assert [pole(row, j) for j in range(4)] == [None, None, Fraction(3, 2), Fraction(2, 3)]
    assert row_scores(row, Fraction(3, 2))[2] == 0


def test_identity_returns_its_argument():
    x = object()
    assert identity(x) is x


def test_the_released_operator_without_rotation_is_mala(features, monkeypatch):
    q, k = features
    monkeypatch.setattr("theory.operators.mala.rotary", lambda x: x)
    np.testing.assert_allclose(released(q, k), official(q, k), atol=1e-14)


def test_rotation_changes_the_sum_but_not_with_z_rotated_too(features):
    q, k = features
    assert abs(released(q, k).sum(-1) - 1).max() > 0.1
    np.testing.assert_allclose(released(q, k, rotated_norm=True).sum(-1), 1)
    assert abs(released(q, k, scale_power=2) - released(q, k)).max() > 0.01


def test_the_released_scale_enters_the_official_operator(features):
    q, k = features
    assert released_scale(4, 5) == pytest.approx(1 / 10)
    np.testing.assert_allclose(official(q, k), mala(q, k, scale=0.1))


def test_ablations_have_their_row_sums(features):
    q, k = features
    z = 0.1 * (elu_plus_one(q) @ elu_plus_one(k).T).sum(-1)
    np.testing.assert_allclose(without_gamma(q, k).sum(-1), 1 + z)
    np.testing.assert_allclose(without_beta(q, k).sum(-1), 0, atol=1e-14)
    np.testing.assert_allclose(without_gamma(q, k) - z[:, None] / 5, official(q, k))


def test_total_variation_of_disjoint_rows_is_one():
    assert total_variation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_a_backbone_of_one_stage_is_counted_by_hand():
    small = Backbone((2,), (1,), 3, kinds=("mala",), hidden=2)
    stem = (27 + 1) + 2 * (9 + 1) + 3 * 2 + (9 * 2 + 2) + 4
    attention = (2 * 8 + 8) + (50 + 2) + (4 + 2)
    block = attention + (8 + 4) + (8 + 2) + (36 + 4) + (18 + 2) + 2 * 4 + 2 * 2
    assert small.parameters() == stem + block + (2 * 3 + 3) + 6 + 4000


def test_only_softmax_stages_are_quadratic_in_the_tokens():
    one, four = (BACKBONES["MAViT-S"].multiplications(side) for side in (224, 448))
    assert four["mala"] == 4 * one["mala"]
    assert four["softmax"] == 16 * one["softmax"]
    all_mala = replace(BACKBONES["MAViT-S"], kinds=("mala",) * 4)
    assert all_mala.multiplications(224)["softmax"] == 0
    assert one["mala"] == 3 * 3136 * 64 * 129 + 5 * 784 * 128 * 129
    assert one["softmax"] == 2 * (9 * 196**2 * 320 + 3 * 49**2 * 512)
