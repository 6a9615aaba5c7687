"""Byte models with softmax or sigmoid attention, and what may keep sigmoid attention small at the start of training.

The models read the source text of Python's standard library. Variants differ in the offset b = -alpha ln n of the
sigmoid, in positions, and in norms and factors on the branches. Also here: gradient ascent on a ratio of matrices, by
which bounds are put to the test.
Source: the setting of Ramapuram et al., arXiv:2409.04431, section 5, at a small size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from empirical.data import excerpts, library_text
from empirical.layers import Operator, Position, Style
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import Decoder, causal
from theory.operators.attention import sigmoid, softmax

BYTES = 256


@dataclass(frozen=True)
class Setting:
    """Size of the models and of their training; `length` is n, the number of bytes that they read."""

    length: int = 64
    width: int = 32
    heads: int = 4
    layers: int = 2
    batch: int = 4
    steps: int = 180
    rate: float = 3e-3
    seeds: int = 12


SETTINGS = {
    "small": Setting(),
    "full": Setting(length=256, width=128, heads=4, layers=4, batch=4, steps=3000, rate=2e-3, seeds=8),
}


@dataclass(frozen=True)
class Variant:
    """What a model's attention is, and what surrounds it.

    alpha  the sigmoid's offset is -alpha ln n; None: softmax
    The others are those of `empirical.transformer.Style`.
    """

    alpha: float | None = None
    position: Position = "rotary"
    qk_norm: bool = True
    branch_norm: bool = False
    layer_scale: float | None = None

    def operator(self, length: int) -> Operator:
        """Queries and keys to weights; the offset is a constant, also under the causal mask."""
        if self.alpha is None:
            return softmax
        offset = -self.alpha * math.log(length)

        def weights(q: Tensor, k: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None) -> Any:
            return sigmoid(q, k, mask=mask, bias=bias, offset=offset)

        return weights


def build(setting: Setting, variant: Variant) -> nn.Module:
    style = Style(
        setting.width,
        setting.heads,
        position=variant.position,
        qk_norm=variant.qk_norm,
        branch_norm=variant.branch_norm,
        layer_scale=variant.layer_scale,
    )
    operator = variant.operator(setting.length)
    return Decoder(BYTES, setting.length, style=style, layers=setting.layers, operators=operator)


def next_byte_loss(model: Callable[[Tensor], Tensor], text: Tensor) -> Tensor:
    """Mean cross-entropy in nats of text (batch, length + 1) int64, each byte from those before it."""
    return functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


def train(setting: Setting, variant: Variant, seed: int) -> Models:
    """The models of one variant. All variants start from the same seed and see the same excerpts."""
    text = library_text("train")

    def batches(generator: torch.Generator) -> tuple[Tensor]:
        return (excerpts(text, (setting.seeds, setting.batch), setting.length + 1, generator),)

    return fit(
        "sigmoid_attention",
        __file__,
        {"setting": asdict(setting), "variant": asdict(variant)},
        build=lambda: build(setting, variant),
        loss=next_byte_loss,
        batches=batches,
        recipe=Recipe(setting.steps, rate=setting.rate),
        seed=seed,
        seeds=setting.seeds,
    )


def held_out(setting: Setting, seed: int, count: int) -> Tensor:
    """(count, length + 1) int64: excerpts of the test text."""
    generator = torch.Generator().manual_seed(seed)
    return excerpts(library_text("test"), (count,), setting.length + 1, generator).to(device())


def losses(models: Models, setting: Setting, seed: int, count: int = 64) -> np.ndarray:
    """(seeds,) mean loss in nats on excerpts of the test text, the same for every variant."""
    text = held_out(setting, seed, count)
    total = sum(
        models.each(lambda model, part: next_byte_loss(model, part) * len(part), part) for part in text.split(16)
    )
    return (total / count).double().cpu().numpy()


def attention_sizes(models: Models, setting: Setting, seed: int) -> np.ndarray:
    """(seeds,) mean length over tokens of `weights @ values` in the first layer, all heads side by side."""
    return _first_layer(models, setting, seed, mixed)


def branch_sizes(models: Models, setting: Setting, seed: int) -> np.ndarray:
    """(seeds,) mean length over tokens of what the first attention branch adds to the residual stream."""
    return _first_layer(models, setting, seed, lambda branch, x, mask, bias: branch(x, mask=mask, bias=bias) - x)


def mixed(branch: Any, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, length, width): the values of a branch mixed by its weights, before the output projection."""
    layer, h = branch.layer, branch.norm(x)
    values = layer.weights(h, mask=mask, bias=bias) @ layer.split(layer.values(h))
    return values.transpose(-3, -2).flatten(-2)


@torch.no_grad()
def _first_layer(models: Models, setting: Setting, seed: int, what: Callable[..., Tensor]) -> np.ndarray:
    text, found = held_out(setting, seed, 4)[:, :-1], []
    for i in range(len(models)):
        model: Any = models.one(i)
        x = model.places(model.token(text))
        found.append(what(model.blocks[0].attention, x, causal(x), model.places.bias(x)).norm(dim=-1).mean())
    return torch.stack(found).double().cpu().numpy()


def without_logits(models: Models) -> Models:
    """The same models with the projections to queries and keys set to 0: every logit is 0."""
    emptied = {
        name: torch.zeros_like(tensor) if "queries_keys" in name else tensor for name, tensor in models.tensors.items()
    }
    return Models(models.skeleton, emptied)


def ascend(
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor], shape: tuple[int, int, int], steps: int, seed: int
) -> np.ndarray:
    """(starts,) largest ratio(X, A, W) met on the way up by Adam, for tokens X (starts, n, d), A and W (starts, d, d).

    shape  (starts, n, d);  all float64, random starts of several scales
    """
    starts, n, d = shape
    draw = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-0.5, 0.5, starts, dtype=torch.float64)[:, None, None]
    X = scale * torch.randn(starts, n, d, generator=draw, dtype=torch.float64)
    A, W = (torch.randn(starts, d, d, generator=draw, dtype=torch.float64) for _ in range(2))
    variables = [x.requires_grad_() for x in (X, A, W)]
    optimizer = torch.optim.Adam(variables, lr=0.03)
    best = torch.full((starts,), -math.inf, dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        value = ratio(X, A, W)
        best = torch.maximum(best, value.detach())
        (-value.log().sum()).backward()
        optimizer.step()
    return best.numpy()
