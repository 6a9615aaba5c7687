"""Small vision transformers on handwritten digits with MALA, its ablations and its rivals; operations and times.

Several seeds are trained side by side. What differs between variants is the operator alone: same initial weights, same
batches, same number of steps. Source: the operator of arXiv:2507.00698 at its released scale, see
`theory.operators.mala.official`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from empirical.data import digits, patches
from empirical.layers import Style
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import Classifier
from theory.operators.attention import elu_plus_one, exp_map, linear, mala, relu_map, softmax, transpose, unit
from theory.operators.mala import official, released_scale, without_beta, without_gamma


@dataclass(frozen=True)
class Size:
    """Seeds, steps, images in a batch and learning rate; width, heads and layers of the network."""

    seeds: int
    steps: int
    batch: int
    rate: float
    width: int
    heads: int
    layers: int


SIZES = {"small": Size(32, 500, 16, 5e-3, 16, 2, 2), "full": Size(32, 1000, 64, 3e-3, 32, 4, 3)}
"""At `small` the networks see 8000 images, 6 times the training set, at `full` 64 000, 48 times."""


def unit_query_softmax(q: Tensor, k: Tensor) -> Tensor:
    """Softmax attention without the query's magnitude: q / |q|."""
    return softmax(unit(q), k)


def with_map(feature_map: Callable[[Any], Any]) -> Callable[..., Tensor]:
    """MALA at the released scale with another feature map."""
    return lambda q, k: mala(q, k, feature_map=feature_map, scale=released_scale(q.shape[-1], k.shape[-2]))


class LearnedScalars(nn.Module):
    """beta S - gamma with one learned beta and gamma for each head, at the released scale.

    They start at MALA's for z = 1: beta = 2 and gamma = 1 / N.
    """

    def __init__(self, heads: int, keys: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((heads, 1, 1), 2.0))
        self.gamma = nn.Parameter(torch.full((heads, 1, 1), 1 / keys))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        kernel = elu_plus_one(q) @ transpose(elu_plus_one(k))
        weights: Tensor = self.beta * released_scale(q.shape[-1], k.shape[-2]) * kernel - self.gamma
        return weights


VARIANTS: dict[str, Callable[..., Any]] = {
    "softmax": softmax,
    "softmax of unit queries": unit_query_softmax,
    "linear": linear,
    "mala": official,
    "mala without gamma": without_gamma,
    "mala without beta": without_beta,
    "mala with ReLU": with_map(relu_map),
    "mala with exp": with_map(exp_map),
    "mala with learned scalars": LearnedScalars,
}
"""Operators; a module is made anew for each layer."""
TOKENS = 16


def vision_transformer(operator: Callable[..., Any], size: Size) -> nn.Module:
    """A classifier of 16 patches of 2 x 2 pixels."""
    style = Style(width=size.width, heads=size.heads, hidden=2)
    each = [operator(size.heads, TOKENS) if isinstance(operator, type) else operator for _ in range(size.layers)]
    return Classifier(4, TOKENS, 10, style=style, layers=size.layers, operators=each)


def digit_loss(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of one seed's batch: images (batch, 16, 4), labels (batch,)."""
    return cross_entropy(model(images), labels)


def digit_batches(seeds: int, size: int, patch: int = 2) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Random batches of training digits, another for each seed: (seeds, size, tokens, pixels), (seeds, size)."""
    images, labels = digits("train")
    tokens = patches(images, patch)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (seeds, size), generator=generator)
        return tokens[chosen], labels[chosen]

    return draw


def trained(variant: str, seed: int, scale: str = "small") -> Models:
    """Models of one variant, from the cache where they were trained before.

    Raises:
        KeyError: no such variant.
    """
    size = SIZES[scale]
    build = partial(vision_transformer, VARIANTS[variant], size)
    return fit_digits(f"digits-{variant}", __file__, variant, size, build, seed % 2**31)


def fit_digits(name: str, code: str, variant: Any, size: Any, build: Callable[[], nn.Module], seed: int) -> Models:
    """Models of one variant on digits, from the cache where they were trained before.

    Args:
        name, code, build, seed: as of `empirical.training.fit`.
        variant: what the models differ in, as JSON.
        size: a dataclass with seeds, batch, steps and rate.
    """
    return fit(
        name.replace(" ", "-").replace("/", "over"),
        code,
        {"variant": variant, "size": asdict(size)},
        build=build,
        loss=digit_loss,
        batches=digit_batches(size.seeds, size.batch),
        recipe=Recipe(size.steps, rate=size.rate),
        seed=seed,
        seeds=size.seeds,
    )


def accuracy(models: Models, patch: int = 2) -> np.ndarray:
    """(seeds,) share of the 450 test digits that each model reads right; a model that returns NaN reads at chance."""
    images, labels = digits("test")
    logits = models(patches(images, patch).to(device()))
    right = (logits.argmax(-1).cpu() == labels).float().mean(-1).numpy()
    return np.where(torch.isfinite(logits).all(-1).all(-1).cpu().numpy(), right, 0.1)


def attention_weights(models: Models) -> list[Tensor]:
    """Weights of each layer on the test digits, (seeds, images, heads, 16, 16)."""
    tokens = patches(digits("test")[0]).to(device())
    found: list[Tensor] = []
    with torch.no_grad():
        for seed in range(len(models)):
            model, weights = models.one(seed), []
            assert isinstance(model, Classifier)
            x = model.places(model.patch(tokens))
            for block in model.blocks:
                weights.append(block.attention.layer.weights(block.attention.norm(x)))  # type: ignore[operator, union-attr]
                x = block(x)
            found.append(torch.stack(weights))
    return list(torch.stack(found, 1).cpu())


def trained_scores(variant: str, seed: int, scale: str = "small") -> np.ndarray:
    """(seeds, layers) share of negative scores of trained models on the test digits."""
    weights = attention_weights(trained(variant, seed, scale))
    return np.stack([(layer < 0).float().mean((1, 2, 3, 4)).numpy() for layer in weights], axis=1)


def operations(output: Callable[..., Any], N: int, d: int) -> int:
    """Operations in the matrix products of one head, two for each multiply-add; nothing is computed.

    output (q, k, v) gets tensors (N, d) without storage.
    """
    q, k, v = (torch.empty(N, d, device="meta") for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        output(q, k, v)
    return counter.get_total_flops()


def time_slope(
    output: Callable[..., Any], lengths: Sequence[int], d: int, repeats: int = 20
) -> tuple[float, list[float]]:
    """Slope of log time against log N on the GPU, and the median seconds at each N; 8 heads, float32."""
    seconds = []
    for N in lengths:
        q, k, v = (torch.randn(8, N, d, device="cuda") for _ in range(3))
        times = []
        for _ in range(repeats + 3):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            output(q, k, v)
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        seconds.append(float(np.median(times[3:])))
    slope = math.log(seconds[-1] / seconds[0]) / math.log(lengths[-1] / lengths[0])
    return slope, seconds
