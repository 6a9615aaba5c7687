"""The denoiser of digits: its images, its inputs, and what is measured on it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from empirical.vision.variable_sized_diffusion import (
    LEVELS,
    SIZES,
    Denoiser,
    Scaled,
    fourier,
    images,
    linear_error,
    measure,
    noisy_images,
    random_levels,
    train,
    unchanged,
)
from theory.operators.attention import softmax
from theory.vision.variable_sized_diffusion import entropy

TINY = replace(SIZES["small"], width=8, heads=2, layers=1, batch=2, seeds=2, images=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))


@pytest.mark.parametrize("side", [4, 8, 16])
def test_images_of_every_size_are_the_same_digits(side):
    resized = images("test", side)
    assert resized.shape[1:] == (side, side)
    assert resized.min() >= -1
    assert resized.max() <= 1
    assert resized.mean().item() == pytest.approx(images("test").mean().item(), abs=0.02)


def test_smaller_images_are_means_of_blocks_in_their_middle():
    """Antialiased halving weighs 4 x 4 pixels; a constant image stays constant."""
    flat = torch.nn.functional.interpolate(torch.ones(1, 1, 8, 8), (4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(flat, torch.ones(1, 1, 4, 4))


def test_places_are_those_of_the_unit_square_whatever_the_size():
    assert fourier(8).shape == (64, 12)
    # The first pixel of 4 x 4 has its centre in the corner between four pixels of 8 x 8: 1/8.
    first = fourier(4)[0]
    assert first[0].item() == pytest.approx(math.sin(math.pi / 8))
    assert first[3].item() == pytest.approx(math.cos(math.pi / 8))


def test_noise_levels_keep_to_their_range():
    levels = random_levels((1000,), torch.Generator().manual_seed(0))
    assert LEVELS[0] <= levels.min() < levels.max() <= LEVELS[1]
    assert levels.log().mean().item() == pytest.approx(math.log(LEVELS[0] * LEVELS[1]) / 2, abs=0.05)


def test_noise_is_of_the_level_it_is_said_to_be():
    clean, noisy, level = noisy_images(16, 200, 0)
    found = (noisy - clean).flatten(1).std(dim=1) / level
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    assert (level[0].item(), level[-1].item()) == pytest.approx(LEVELS)


def test_the_operator_scales_scores_and_remembers_the_entropy():
    q, k = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    operator = Scaled()
    operator.factor = 1.5
    weights = operator(q, k)
    torch.testing.assert_close(weights, softmax(1.5 * q, k))
    assert operator.entropies[0].item() == pytest.approx(entropy(weights).mean().item())


def test_the_denoiser_takes_images_of_any_size_and_sees_the_level():
    torch.manual_seed(0)
    model = Denoiser(TINY)
    for side in (4, 8, 12):
        noisy = torch.randn(3, side, side)
        low, high = model(noisy, torch.full((3,), 0.2)), model(noisy, torch.full((3,), 1.4))
        assert low.shape == (3, side, side)
        assert not torch.equal(low, high)
        assert len(model.operator.entropies) == TINY.layers


def test_measures_are_those_of_each_model_by_itself():
    models = train(3, TINY, steps=2)
    entropies, errors = measure(models, 4, lambda N, T: 2.0, 4, seed=1)
    clean, noisy, level = noisy_images(4, 4, 1)
    for seed in range(2):
        model = models.one(seed).cpu()
        model.operator.factor = 2.0
        estimate = model(noisy, level)
        assert (estimate - clean).square().mean().item() == pytest.approx(errors[seed], rel=1e-4)
        assert model.operator.entropies[0].item() == pytest.approx(entropies[seed], rel=1e-4)
    assert models.skeleton.operator.factor == 1.0


def test_training_lowers_the_error():
    before, after = (measure(train(0, TINY, steps=s), 8, unchanged, 4, 0)[1] for s in (0, 60))
    assert (after < before / 2).all()


def test_the_linear_denoiser_beats_the_mean_image_and_the_noise():
    clean, noisy, _ = noisy_images(8, 50, 0)
    mean_image = (clean - images("train").mean(0)).square().mean().item()
    assert linear_error(8, 50, 0) < min(mean_image, (noisy - clean).square().mean().item())
    assert np.isfinite(linear_error(16, 4, 0))
