"""Gaussian adaptive attention, trained: fitting a distribution, finding relevant features, reading digits.

Models of several seeds are trained side by side; results have the seeds in front, float64.
Source: Ioannides et al., arXiv:2401.11143. Where its authors' code shows a use (gate along an axis of frozen features,
added to them, then a classifier) we follow it; sizes and tasks are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from empirical.data import digits
from empirical.layers import Attention, Style
from empirical.training import Models, Recipe, device, fit
from theory.operators.attention import gaussian_adaptive
from theory.operators.gaam import mixture, multi_head

# -- fitting a distribution over the values of x -----------------------------------------------------------------------

Weights = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x (n,), logits of masses, offsets, widths, each (K,)) to weights (n,)."""


def product(x: Tensor, mass: Tensor, offset: Tensor, width: Tensor) -> Tensor:
    """The released operator; it has no masses."""
    return gaussian_adaptive(x, offset, width)


def summed(x: Tensor, mass: Tensor, offset: Tensor, width: Tensor) -> Tensor:
    """The mixture, with free masses."""
    return mixture(x, mass.softmax(dim=-1), offset, width)


def random_start(components: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Equal masses; offsets from the whole range of standardised values, in [-2, 2]; widths 1/2."""
    offset = 4 * torch.rand(components, generator=generator, dtype=torch.float64) - 2
    return torch.zeros_like(offset), offset, torch.full_like(offset, 0.5)


def released_start(components: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Equal masses, offsets 0, widths 2: the released mixture of January 2024."""
    return torch.zeros(components).double(), torch.zeros(components).double(), torch.full((components,), 2.0).double()


def approximate(
    x: np.ndarray,
    target: np.ndarray,
    weights: Weights,
    start: tuple[Tensor, Tensor, Tensor],
    steps: int = 400,
    rate: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """Descend KL(target, weights) from the start: fitted weights (n,), parameters (3, K), float64."""
    values, wanted = torch.from_numpy(x), torch.from_numpy(target)
    parameters = [one.clone().requires_grad_() for one in start]
    optimizer = torch.optim.Adam(parameters, rate)
    for _ in range(steps):
        fitted = weights(values, *parameters)
        divergence = (torch.xlogy(wanted, wanted) - wanted * (fitted + 1e-30).log()).sum()
        optimizer.zero_grad()
        divergence.backward()
        optimizer.step()
    with torch.no_grad():
        return weights(values, *parameters).numpy(), torch.stack(parameters).numpy()


# -- which features matter ---------------------------------------------------------------------------------------------

FEATURES, RELEVANT = 20, 5
"""The label is the sign of the sum of the first RELEVANT of FEATURES independent Gaussian features."""


class Gate(nn.Module):
    """A linear read-out of features that one head has gated, and added to themselves as the released block does."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(components))
        self.log_width = nn.Parameter(torch.randn(components))
        self.read_out = nn.Linear(FEATURES, 1)

    def weights(self, x: Tensor) -> Tensor:
        """x (..., FEATURES) to weights of the same shape."""
        return gaussian_adaptive(x, self.offset, self.log_width.exp())

    def forward(self, x: Tensor, only_weights: bool = False) -> Tensor:
        """Logit of the label (batch,), or the weights like x."""
        weights = self.weights(x)
        return weights if only_weights else self.read_out(x + FEATURES * x * weights)[..., 0]


def labelled(shape: tuple[int, ...], shift: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features (*shape, FEATURES), the relevant ones around `shift`, and labels (*shape) 0. or 1."""
    x = torch.randn(*shape, FEATURES, generator=generator)
    label = (x[..., :RELEVANT].sum(-1) > 0).float()
    x[..., :RELEVANT] += shift
    return x, label


@dataclass(frozen=True)
class Relevance:
    """What each trained model says about its features, all (seeds, ...)."""

    accuracy: np.ndarray
    mean_weights: np.ndarray
    gradients: np.ndarray


def relevance(seed: int, *, shift: float = 0.0, seeds: int = 32, steps: int = 200, components: int = 2) -> Relevance:
    """Train, and measure on 1000 new samples for each model.

    Measured are the mean weight and the mean |d logit / d x| of every feature, (seeds, FEATURES).
    """

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        return labelled((seeds, 64), shift, generator)

    def loss(model: Callable[..., Tensor], x: Tensor, label: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(model(x), label)

    models = fit(
        "feature gate",
        __file__,
        {"shift": shift, "components": components},
        build=lambda: Gate(components),
        loss=loss,
        batches=batches,
        recipe=Recipe(steps, rate=0.03),
        seed=seed,
        seeds=seeds,
    )
    x, label = (one.to(device()) for one in labelled((seeds, 1000), shift, torch.Generator().manual_seed(seed + 1)))
    accuracy = ((models(x, own=True) > 0) == (label > 0)).double().mean(dim=-1)
    weights = models.each(lambda model, x: model(x, True).mean(dim=0), x, own=True)
    slopes = models.each(lambda model, x: torch.func.grad(lambda x: model(x).sum())(x).abs().mean(dim=0), x, own=True)
    return Relevance(*(one.double().cpu().numpy() for one in (accuracy, weights, slopes)))


# -- digits, read as sequences of rows ---------------------------------------------------------------------------------

Mixer = Literal["nothing", "gate along features", "gate along rows", "dot-product attention"]
MIXERS: tuple[Mixer, ...] = ("nothing", "gate along features", "gate along rows", "dot-product attention")


class Gated(nn.Module):
    """x + x * weights, the weights of `heads` heads of K Gaussians along an axis of x (batch, length, width)."""

    def __init__(self, axis: int, heads: int = 2, components: int = 2) -> None:
        super().__init__()
        self.axis = axis
        self.offset = nn.Parameter(torch.zeros(heads, components))
        self.width = nn.Parameter(torch.randn(heads, components).exp())

    def forward(self, x: Tensor) -> Tensor:
        along = x.transpose(self.axis, -1)
        return x + x * multi_head(along, self.offset, self.width).transpose(self.axis, -1)


class Added(nn.Module):
    """x + dot-product attention of x."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.attention = Attention(Style(width=width, heads=heads, position="none"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x)


def mixing(mixer: Mixer, width: int) -> nn.Module:
    """The layer by its name."""
    if mixer == "nothing":
        return nn.Identity()
    return Added(width) if mixer == "dot-product attention" else Gated(-1 if mixer == "gate along features" else -2)


def count(module: nn.Module) -> int:
    """Numbers that training sets."""
    return sum(parameter.numel() for parameter in module.parameters())


def drifting(images: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Images (..., rows, columns) whose level and log-contrast walk at random from row to row, by steps N(0, size^2).

    Read as sequences of rows they are not stationary: mean and variance change on the way.
    """
    contrast, level = (size * torch.randn(2, *images.shape[:-1], 1, generator=generator)).cumsum(-2)
    return images * contrast.exp() + level


def digit_accuracy(
    mixer: Mixer,
    seed: int,
    *,
    layers: int = 1,
    seeds: int = 8,
    steps: int = 200,
    shuffled: bool = False,
    drift: float = 0.0,
) -> np.ndarray:
    """Test accuracy (seeds,): rows of 8 pixels, mixing layers, then a linear classifier of all 64 numbers.

    shuffled  every digit is trained with another one's label
    drift     size of the random walks of `drifting`, in training and test
    """
    images, labels = digits("train")
    if shuffled:
        labels = labels.roll(1)

    def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
        chosen = torch.randint(len(images), (seeds, 32), generator=generator)
        return drifting(images[chosen], drift, generator), labels[chosen]

    models: Models = fit(
        f"digits by rows, {mixer}",
        __file__,
        {"mixer": mixer, "layers": layers, "shuffled": shuffled, "drift": drift},
        build=lambda: nn.Sequential(*(mixing(mixer, 8) for _ in range(layers)), nn.Flatten(-2), nn.Linear(64, 10)),
        loss=lambda model, x, label: cross_entropy(model(x), label),
        batches=batches,
        recipe=Recipe(steps, rate=0.02),
        seed=seed,
        seeds=seeds,
    )
    images, labels = digits("test")
    images = drifting(images, drift, torch.Generator().manual_seed(seed + 1)).to(device())
    return (models(images).argmax(-1).cpu() == labels).double().mean(-1).numpy()
