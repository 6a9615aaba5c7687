"""The parts of L2ViT against plain convolutions, and the measurements on its networks."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from empirical.operators import l2vit as subject
from empirical.operators.l2vit import (
    VARIANTS,
    Depthwise,
    LocalConcentration,
    Size,
    attention_weights,
    kept_numbers,
    neighbour_share,
    neighbours,
    trained,
)
from empirical.operators.mala import accuracy


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    monkeypatch.setitem(subject.SIZES, "small", Size(2, 3, 4, 1e-3, 8, 2, 2))


def test_the_depthwise_convolution_is_pytorchs():
    layer, x = Depthwise(5, 3), torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))
    image = x.transpose(1, 2).unflatten(-1, (4, 4))
    expected = conv2d(image, layer.weight.permute(2, 0, 1)[:, None], layer.bias, padding=1, groups=5)
    torch.testing.assert_close(layer(x), expected.flatten(2).transpose(1, 2))


def test_the_module_reaches_as_far_as_its_two_kernels():
    module = LocalConcentration(4, 3)
    x = torch.zeros(1, 49, 4, requires_grad=True)
    module(x + torch.arange(4.0))[0, 24].sum().backward()
    touched = x.grad[0].abs().sum(-1).view(7, 7) > 0
    assert touched[1:6, 1:6].all()
    assert touched.sum() == 25


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_and_reads_digits(variant):
    assert accuracy(trained(variant, 0)).shape == (2,)


@pytest.mark.parametrize("variant", ["linear", "softmax + LCM"])
def test_weights_of_trained_networks_sum_to_one(variant):
    weights = attention_weights(trained(variant, 0), images=3)
    assert weights.shape == (2, 2, 3, 2, 16, 16)
    sums = weights.sum(-1)
    np.testing.assert_allclose(sums[sums > 0], 1, atol=1e-5)


def test_neighbours_are_the_eight_around_a_token():
    near = neighbours(4)
    assert near[5].sum() == 8
    assert near[0].nonzero()[0].tolist() == [1, 4, 5]
    assert near.sum() / 16 / 15 == 0.35


def test_a_pointwise_module_sees_no_neighbours():
    module = LocalConcentration(4, 1)
    x = torch.zeros(1, 16, 4, requires_grad=True)
    module(x + torch.arange(4.0))[0, 5].sum().backward()
    assert x.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [5]


def test_kept_numbers_are_those_of_the_factors():
    """A product keeps its two factors; q, k and v are not counted, the matrix of weights is."""
    assert kept_numbers(lambda q, k, v: q * k, 6, 3) == 0
    assert kept_numbers(lambda q, k, v: (q @ k.T) @ v, 6, 3) == 36


def test_the_share_of_the_neighbours_is_a_share():
    share = neighbour_share(trained("LCM alone", 0))
    assert share.shape == (2,)
    assert ((share > 0.35) & (share < 1)).all()
