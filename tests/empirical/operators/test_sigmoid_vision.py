"""Vision transformers with sigmoid attention: the variants and their losses."""

import numpy as np
import pytest
import torch

from empirical.data import digits, patches
from empirical.operators import sigmoid_vision
from empirical.operators.mala import Size, digit_loss
from empirical.operators.sigmoid_vision import VARIANTS, losses, trained


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    monkeypatch.setitem(sigmoid_vision.SIZES, "small", Size(2, 3, 4, 3e-3, 8, 2, 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_to_finite_losses(variant):
    found = losses(trained(variant, "small", 0))
    assert found.shape == (2,)
    assert np.isfinite(found).all()


def test_the_loss_is_that_of_each_model_by_itself():
    models = trained("softmax", "small", 0)
    images, labels = digits("test")
    with torch.no_grad():
        alone = [float(digit_loss(models.one(i), patches(images), labels)) for i in range(2)]
    np.testing.assert_allclose(losses(models), alone, rtol=1e-5)


def test_without_attention_no_weight_is_left():
    q = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    assert VARIANTS["no attention"](q, q).max() < 1e-6


def test_variants_are_the_operators_that_they_are_called():
    q = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    s = q @ q.T / 8**0.5
    for name, expected in {
        "b = -ln n": torch.sigmoid(s - np.log(16)),
        "plain": torch.sigmoid(s),
        "ReLU": torch.relu(s),
        "ReLU / n": torch.relu(s) / 16,
    }.items():
        torch.testing.assert_close(VARIANTS[name](q, q), expected, msg=name)
