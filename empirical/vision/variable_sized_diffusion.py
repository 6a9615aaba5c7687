"""A denoiser of handwritten digits, trained at 8 x 8 pixels and run at other sizes: entropies and errors.

Each pixel is a token, with Fourier features of its place in the unit square, so that the model takes any size. It sees
a digit plus Gaussian noise of a given level and returns the digit: one step of what a diffusion model repeats. Several
seeds are trained side by side. Quantities are means over test images and noise levels, one for each seed.
Source: the setting of arXiv:2306.08645 in small; model and sizes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from empirical.data import Part, digits
from empirical.layers import Style
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import blocks, table
from theory.operators.attention import softmax
from theory.vision.variable_sized_diffusion import entropy

Factor = Callable[[int, int], float]
SIDE = 8
"""Training images are 8 x 8: T = 64 tokens."""
LEVELS = (0.2, 1.4)
"""Least and greatest standard deviation of the noise; pixels lie in [-1, 1]."""
OCTAVES = 3


def unchanged(tokens: int, trained: int) -> float:
    """The usual scale, whatever the size."""
    return 1.0


@dataclass(frozen=True)
class Size:
    """Model and training: `small` for every run, `full` for a GPU."""

    width: int = 32
    heads: int = 2
    layers: int = 2
    batch: int = 8
    steps: int = 400
    seeds: int = 6
    images: int = 16


SIZES = {
    "small": Size(),
    "full": Size(width=128, heads=4, layers=4, batch=64, steps=4000, seeds=8, images=64),
}


class Scaled:
    """Softmax attention whose scores are multiplied by `factor`; it remembers the mean entropy of each call."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.entropies: list[Tensor] = []

    def __call__(self, q: Tensor, k: Tensor) -> Tensor:
        weights = softmax(q, k, scale=self.factor / math.sqrt(q.shape[-1]))
        self.entropies.append(entropy(weights).mean())
        return weights


class Denoiser(nn.Module):
    """Noisy pixels of a square image of any size in, clean ones out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.operator = Scaled()
        style = Style(width=size.width, heads=size.heads, hidden=2, position="none")
        self.embed = nn.Linear(2 + 4 * OCTAVES, size.width)
        self.blocks = blocks(style, size.layers, self.operator)
        self.norm = nn.LayerNorm(size.width)
        self.pixel = nn.Linear(size.width, 1)

    def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
        """noisy (batch, h, h), level (batch,) of the noise: the estimate (batch, h, h)."""
        self.operator.entropies.clear()
        side = noisy.shape[-1]
        places = table(fourier, side, dtype=noisy.dtype, device=noisy.device).expand(len(noisy), -1, -1)
        levels = level.log()[:, None].expand(-1, side**2)
        x = self.embed(torch.cat([noisy.flatten(1)[..., None], levels[..., None], places], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.pixel(self.norm(x))[..., 0].unflatten(-1, (side, side))


def fourier(side: int) -> np.ndarray:
    """Sines and cosines of the pixels' centres in the unit square, (side^2, 4 OCTAVES)."""
    waves = np.pi * (np.arange(side)[:, None] + 0.5) / side * 2.0 ** np.arange(OCTAVES)
    line = np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    return np.concatenate([line.repeat(side, axis=0), np.tile(line, (side, 1))], axis=1)


def images(part: Part, side: int = SIDE) -> Tensor:
    """Digits (count, side, side) in [-1, 1], brought to this size by antialiased bilinear interpolation."""
    original = 2 * digits(part)[0] - 1
    if side == SIDE:
        return original
    resized = functional.interpolate(original[:, None], (side, side), mode="bilinear", antialias=side < SIDE)
    return resized[:, 0]


def random_levels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise levels, log-uniform."""
    low, high = map(math.log, LEVELS)
    return torch.exp(low + (high - low) * torch.rand(shape, generator=generator))


def train(seed: int, size: Size, steps: int | None = None) -> Models:
    """Denoisers of several seeds, from the cache if they were trained before."""
    clean = images("train")

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        shape = size.seeds, size.batch
        batch = clean[torch.randint(len(clean), shape, generator=generator)]
        return batch, random_levels(shape, generator), torch.randn(batch.shape, generator=generator)

    def loss(model: Callable[..., Tensor], batch: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        estimate = model(batch + level[:, None, None] * noise, level)
        return ((estimate - batch) ** 2 / (level[:, None, None] ** 2 + 0.25)).mean()

    recipe = Recipe(size.steps if steps is None else steps, rate=4e-3)
    return fit(
        "digit denoiser",
        __file__,
        asdict(size),
        build=lambda: Denoiser(size),
        loss=loss,
        batches=batches,
        recipe=recipe,
        seed=seed,
        seeds=size.seeds,
    )


def noisy_images(side: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Test images (count, side, side), the same with noise, and its levels (count,), evenly spaced in the logarithm."""
    generator = torch.Generator().manual_seed(seed + side)
    clean = images("test", side)[:count]
    level = torch.logspace(math.log10(LEVELS[0]), math.log10(LEVELS[1]), count)
    return clean, clean + level[:, None, None] * torch.randn(clean.shape, generator=generator), level


def measure(models: Models, side: int, factor: Factor, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Entropy, mean over layers, heads and queries, and squared error, at this size: each (seeds,) float64."""
    clean, noisy, level = (tensor.to(device()) for tensor in noisy_images(side, count, seed))
    operator = models.skeleton.operator
    assert isinstance(operator, Scaled)
    operator.factor = factor(side**2, SIDE**2)

    def both(model: Callable[..., Tensor], noisy: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        estimate = model(noisy, level)
        return torch.stack(operator.entropies).mean(), (estimate - clean).square().mean()

    entropies, errors = models.each(both, noisy, level)
    operator.entropies.clear()
    operator.factor = 1.0
    return entropies.double().cpu().numpy(), errors.double().cpu().numpy()


def linear_error(side: int, count: int, seed: int) -> float:
    """Squared error of the best linear denoiser for this size, fitted to the training images resized to it."""
    clean, noisy, level = noisy_images(side, count, seed)
    clean, noisy, level = clean.double().flatten(1), noisy.double().flatten(1), level.double()[:, None]
    train_images = images("train", side).double().flatten(1)
    mean = train_images.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(train_images.T))
    gains = values.clamp(min=0) / (values.clamp(min=0) + level**2)
    estimate = mean + ((noisy - mean) @ vectors * gains) @ vectors.T
    return float((estimate - clean).square().mean())
