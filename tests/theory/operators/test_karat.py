"""The pieces of Kolmogorov-Arnold attention: values known by hand, and each other."""

import numpy as np
import pytest

from theory.operators.attention import kolmogorov_arnold
from theory.operators.karat import (
    BASES,
    ONE_COSINE,
    VITS,
    Vit,
    activation_operations,
    additive_layer,
    binomial_z,
    broadcast_entries,
    coefficients,
    extra_parameters,
    fourier_unit,
    matmul_entries,
    numerical_rank,
    percent_range,
    project_to_simplex,
    softmax_operations,
    unit_parameters,
)


def test_the_plain_models_have_their_known_parameters():
    """timm's counts with these heads."""
    assert [vit.parameters() for vit in VITS] == [5_526_346, 22_050_664, 85_806_346]


def test_extra_parameters_are_counted_by_hand():
    tiny = Vit("Tiny", 192, 3, 3, 10)
    assert extra_parameters(tiny, unit=unit_parameters) == 3 * 12 * 197 * 12 * 9
    assert extra_parameters(tiny, universal=True, unit=unit_parameters) == 3 * 197 * 12 * 9
    assert extra_parameters(tiny, rank=1, unit=lambda grid: grid) == 3 * 12 * 197 * 3


def test_operations_are_counted_by_hand():
    tiny = Vit("Tiny", 192, 3, 3, 10, layers=2)
    assert activation_operations(tiny, rank=1) == 3 * 2 * 197**2 * 10
    assert softmax_operations(tiny) == 3 * 2 * 197**2 * 3
    assert softmax_operations(tiny, per_entry=1) == 3 * 2 * 197**2


def test_entries_by_hand():
    assert broadcast_entries(4, 3, 2) == 2 * 16 * 3 * 2
    assert matmul_entries(4, 3, 2) == 2 * 16 * 2 + 12


def test_a_layer_of_units_is_a_sum_over_the_row():
    units = [[lambda t: t, lambda t: t**2], [lambda t: 0 * t, lambda t: -t]]
    assert additive_layer([3, 5], units) == [28, -5]


def test_a_fourier_unit_starts_at_frequency_one():
    phi = fourier_unit([1.0, 0.0], [0.0, 2.0])
    assert phi(0.3) == pytest.approx(np.cos(0.3) + 2 * np.sin(0.6))


def test_the_bases_take_arrays():
    for unit in BASES.values():
        assert np.isfinite(unit(np.linspace(-3, 3, 7))).all()


def test_known_values_of_the_bases():
    assert BASES["Morlet"](0.0) == 1
    assert BASES["derivative of a Gaussian"](1.0) == pytest.approx(np.exp(-0.5))
    assert BASES["Mexican hat"](1.0) == 0
    assert BASES["Mexican hat"](0.0) == pytest.approx(2 / (3**0.5 * np.pi**0.25))
    assert BASES["rational"](1.0) == pytest.approx(1 / 3)
    assert BASES["Fourier"](0.0) == 1


@pytest.mark.parametrize(
    ("row", "projected"),
    [([0.2, 0.8], [0.2, 0.8]), ([2, 0.0], [1, 0]), ([0.5, 0.5, 0.5], [1 / 3] * 3), ([1, 0.5, -9], [0.75, 0.25, 0])],
)  # fmt: skip
def test_projections_by_hand(row, projected):
    np.testing.assert_allclose(project_to_simplex(np.array(row)), projected, atol=1e-15)


def test_rows_are_projected_one_by_one():
    rows = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_array_equal(project_to_simplex(rows)[1, 2], project_to_simplex(rows[1, 2]))


def test_numerical_ranks():
    draw = np.random.default_rng(0)
    low = draw.standard_normal((9, 3)) @ draw.standard_normal((3, 7))
    assert numerical_rank(low) == 3
    assert numerical_rank(np.stack([np.eye(4), np.ones((4, 4))])).tolist() == [4, 1]


def test_the_range_of_a_percentage_holds_the_plain_one():
    low, high = percent_range(80.0, 78.0)
    assert low < 2.5 < high
    assert high - low == pytest.approx(100 * 0.01 / 80 * (1 + 78 / 80), rel=1e-3)
    assert percent_range(80.0, 78.0, half=0) == pytest.approx((2.5, 2.5))


def test_the_score_of_two_accuracies():
    assert binomial_z(50.0, 50.0, 100) == 0
    assert binomial_z(50.0, 60.0, 100) == pytest.approx(0.1 / np.sqrt(0.0049))


def test_operators_of_several_heads_act_head_by_head():
    draw = np.random.default_rng(0)
    s, mix = draw.standard_normal((2, 5, 4)), draw.standard_normal((2, 4, 3))
    cosine, sine = draw.standard_normal((2, 2, 3, 4, 2))
    both = kolmogorov_arnold(s, cosine, sine, mix)
    for head in range(2):
        np.testing.assert_allclose(both[head], kolmogorov_arnold(s[head], cosine[head], sine[head], mix[head]))


def test_coefficients_have_their_shapes_and_one_cosine_is_a_set_of_them():
    cosine, sine, mix = coefficients(np.random.default_rng(0), 3, 5, 2)
    assert (cosine.shape, sine.shape, mix.shape) == ((3, 5, 2), (3, 5, 2), (5, 3))
    np.testing.assert_array_equal(kolmogorov_arnold(np.array([[0.3, 0.7]]), *ONE_COSINE), [[np.cos(0.3), 0]])
