"""Factors, assignment mass and entropy against known values; reach through windows; counts of the backbones."""

from dataclasses import replace

import numpy as np
import pytest

from theory.operators.attention import linear, relu_map, softmax
from theory.operators.l2vit import (
    BACKBONES,
    Backbone,
    assignment_mass,
    concentrating_features,
    factors,
    normalised_entropy,
    on_a_circle,
    reachable,
    tempered,
    windows,
)


def test_linear_attention_is_the_product_of_its_stochastic_factors():
    q, k = np.random.default_rng(7).random((2, 6, 3))
    U, V = factors(q, k)
    assert (U.shape, V.shape) == ((6, 3), (3, 6))
    np.testing.assert_allclose(U.sum(1), 1)
    np.testing.assert_allclose(V.sum(1), 1)
    np.testing.assert_allclose(U @ V, linear(q, k, feature_map=relu_map))


def test_the_assignment_mass_is_the_best_permutation():
    assert assignment_mass(np.eye(4)[::-1]) == 4
    assert assignment_mass(np.full((4, 4), 0.25)) == 1
    assert assignment_mass(np.array([[0.0, 1.0], [0.25, 0.75]])) == 1.25
    assert assignment_mass(np.stack([np.eye(3)] * 2)[:, None]).shape == (2, 1)


def test_concentrating_features_reach_their_width():
    q, k = concentrating_features(7, 3)
    A = linear(q.astype(float), k.astype(float), feature_map=relu_map)
    assert A.trace() == 3
    np.testing.assert_array_equal(A.sum(1), 1)


def test_entropy_runs_from_zero_to_one():
    rows = np.array([[1.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(normalised_entropy(rows), [0, 1, 1])


def test_the_circle_is_the_identity_in_the_limit():
    q, k = on_a_circle(8, 1e4)
    np.testing.assert_allclose(softmax(q, k), np.eye(8), atol=1e-12)


def test_the_clamp_acts_below_its_floor_only():
    q = k = np.full((4, 2), 5.0)  # each entry of the kernel is 50, rows sum to 200
    np.testing.assert_allclose(tempered(q, k, 2.0), 0.5)
    np.testing.assert_allclose(tempered(q, k, 2.0, floor=400), 0.25)
    assert (tempered(-q, k) == 0).all()


def test_windows_tile_the_grid():
    mask = windows(4, 2)
    assert mask.sum(1).tolist() == [4] * 16
    assert mask[0, [0, 1, 4, 5]].all()
    assert not mask[0, 2]


def test_reach_composes_layers_with_their_skips():
    chain = np.eye(4, k=1, dtype=bool)
    np.testing.assert_array_equal(reachable(chain), chain | np.eye(4, dtype=bool))
    np.testing.assert_array_equal(reachable(chain, chain, chain), np.triu(np.ones((4, 4))) > 0)


@pytest.mark.parametrize(("name", "millions", "giga"), [("L2ViT-T", 28.6, 4.69), ("L2ViT-S", 50.2, 8.98)])
def test_released_backbones_have_their_counts(name, millions, giga):
    model = BACKBONES[name]
    assert model.parameters() / 1e6 == pytest.approx(millions, abs=0.05)
    assert model.multiplications(224) / 1e9 == pytest.approx(giga, abs=0.005)


def test_a_backbone_of_one_stage_is_counted_by_hand():
    C = 32
    small = Backbone((C,), (2,))
    stem = (27 * 16 + 16) + 2 * 16 + (9 * 16 * C + C) + 2 * C + 2 * C  # two convolutions with their norms, one norm
    attention, mlp = 4 * C * C + 4 * C, 8 * C * C + 5 * C
    local = attention + mlp + 2 * (9 * C + C) + 4 * C
    spread = attention + mlp + (9 * C + C) + 6 * C + 1 + 2 * (49 * C + C) + 2 * C
    assert small.parameters() == stem + local + spread + 2 * C + C * 1000 + 1000


def test_only_global_softmax_would_be_quadratic():
    model = BACKBONES["L2ViT-B"]
    head = model.dims[-1] * 1000
    assert model.multiplications(448) - head == 4 * (model.multiplications(224) - head)
    assert replace(model, linear=False).multiplications(448) > 4.5 * model.multiplications(224)
