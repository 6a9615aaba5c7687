"""L2ViT's parts on handwritten digits: linear attention and the local concentration module (LCM).

A block adds, in this order: attention(norm x), LCM(norm x), MLP(norm x). Attention and LCM may be left out, and softmax
may stand in for linear attention, so that what a part contributes can be told apart. Differences from the released
code: learned positions instead of convolutional ones, which would give every variant a local prior; LayerNorm instead
of BatchNorm inside the LCM (seeds are trained side by side); kernels of 3 x 3 instead of 7 x 7 on the 4 x 4 grid of
tokens; no drop path. Source: arXiv:2501.16182.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from empirical.data import digits, patches
from empirical.layers import Attention, Branch, Style
from empirical.operators.mala import fit_digits
from empirical.training import Models, device
from theory.operators.attention import linear, relu_map, softmax


class Depthwise(nn.Module):
    """A convolution of each channel by itself on a square grid: x (..., tokens, channels) to the same."""

    def __init__(self, width: int, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(kernel, kernel, width) / kernel)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        side, reach = round(x.shape[-2] ** 0.5), self.kernel // 2
        grid = pad(x.unflatten(-2, (side, side)), (0, 0, reach, reach, reach, reach))
        shifted = (
            grid[..., i : i + side, j : j + side, :] * self.weight[i, j]
            for i, j in product(range(self.kernel), repeat=2)
        )
        return sum(shifted, self.bias).flatten(-3, -2)


class LocalConcentration(nn.Module):
    """The LCM: depthwise convolution, GELU, norm, depthwise convolution; no skip inside."""

    def __init__(self, width: int, kernel: int = 3) -> None:
        super().__init__()
        self.first, self.second = Depthwise(width, kernel), Depthwise(width, kernel)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(gelu(self.first(x))))


def relu_linear(q: Tensor, k: Tensor) -> Tensor:
    """L2ViT's attention where its clamp is inactive: rows sum to 1 (0 for a dead query)."""
    return linear(q, k, feature_map=relu_map)


@dataclass(frozen=True)
class Variant:
    """attention  "linear", "softmax" or "" for none;  kernel  of the LCM, 0 for none."""

    attention: str
    kernel: int


VARIANTS = {
    "linear": Variant("linear", 0),
    "linear + LCM": Variant("linear", 3),
    "linear + pointwise LCM": Variant("linear", 1),
    "softmax": Variant("softmax", 0),
    "softmax + LCM": Variant("softmax", 3),
    "LCM alone": Variant("", 3),
    "neither": Variant("", 0),
}


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


SIZES = {"small": Size(24, 200, 8, 7e-3, 16, 2, 2), "full": Size(32, 1000, 64, 3e-3, 32, 4, 3)}


class Block(nn.Module):
    """Attention, LCM, MLP; each adds to the residual stream."""

    def __init__(self, style: Style, variant: Variant) -> None:
        super().__init__()
        width, hidden = style.width, int(style.hidden * style.width)
        operators: dict[str, Callable[..., Tensor]] = {"linear": relu_linear, "softmax": softmax}
        self.attention = Branch(style, Attention(style, operators[variant.attention])) if variant.attention else None
        self.local = Branch(style, LocalConcentration(width, variant.kernel)) if variant.kernel else None
        self.hidden = Branch(style, nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)))

    def mix(self, x: Tensor) -> Tensor:
        """What attention and LCM make of tokens (..., tokens, width)."""
        x = x if self.attention is None else self.attention(x)
        return x if self.local is None else self.local(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.mix(x))


class Network(nn.Module):
    """Patches (batch, 16, 4) to logits (batch, 10), read off the mean over all tokens."""

    def __init__(self, size: Size, variant: Variant) -> None:
        super().__init__()
        style = Style(width=size.width, heads=size.heads, hidden=2)
        self.patch = nn.Linear(4, size.width)
        self.positions = nn.Parameter(torch.randn(16, size.width))
        self.blocks = nn.ModuleList(Block(style, variant) for _ in range(size.layers))
        self.norm, self.logits = nn.LayerNorm(size.width), nn.Linear(size.width, 10)

    def embed(self, tokens: Tensor) -> Tensor:
        """(batch, 16, width): what the first block sees."""
        return self.patch(tokens) + self.positions

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x).mean(dim=-2))


def trained(variant: str, seed: int, scale: str = "small") -> Models:
    """Networks of one variant, from the cache where they were trained before.

    Raises:
        KeyError: no such variant.
    """
    size = SIZES[scale]
    build = partial(Network, size, VARIANTS[variant])
    return fit_digits(f"l2vit-{variant}", __file__, asdict(VARIANTS[variant]), size, build, seed % 2**31)


def attention_weights(models: Models, images: int = 100) -> np.ndarray:
    """(seeds, layers, images, heads, 16, 16) float64: weights on the first test digits."""
    tokens = patches(digits("test")[0][:images]).to(device())
    found = []
    with torch.no_grad():
        for seed in range(len(models)):
            model, weights = models.one(seed), []
            assert isinstance(model, Network)
            x = model.embed(tokens)
            for block in model.blocks:
                assert isinstance(block, Block)
                assert block.attention is not None
                weights.append(block.attention.layer.weights(block.attention.norm(x)))  # type: ignore[operator]
                x = block(x)
            found.append(torch.stack(weights))
    return torch.stack(found).double().cpu().numpy()


def neighbour_share(models: Models, images: int = 4) -> np.ndarray:
    """(seeds,) share of a token's dependence on other tokens that goes to its up to eight neighbours, first block.

    |dY_i / dX_j| (Frobenius norm) of attention and LCM together, by automatic differentiation, summed over neighbours
    j of i, over the sum over all j != i, of all tokens i and some test digits.
    """
    tokens = patches(digits("test")[0][:images]).to(device())
    near, other = neighbours(4), ~np.eye(16, dtype=bool)
    shares = []
    for seed in range(len(models)):
        model = models.one(seed)
        assert isinstance(model, Network)
        block = model.blocks[0]
        assert isinstance(block, Block)
        with torch.no_grad():
            x = model.embed(tokens)
        jacobian = torch.func.vmap(torch.func.jacrev(block.mix))(x)  # (images, 16, width, 16, width)
        size = jacobian.detach().pow(2).sum((2, 4)).sqrt().cpu().numpy()
        shares.append((size * near).sum() / (size * other).sum())
    return np.array(shares)


def neighbours(side: int) -> np.ndarray:
    """(side^2, side^2) bool: tokens at distance 1 on the grid, diagonals included, themselves excluded."""
    row, column = np.divmod(np.arange(side * side), side)
    distance = np.maximum(abs(row[:, None] - row), abs(column[:, None] - column))
    near: np.ndarray = distance == 1
    return near


def kept_numbers(output: Callable[..., Tensor], tokens: int, width: int) -> int:
    """Numbers that autograd keeps for the backward pass of `output(q, k, v)`, one head, beside q, k and v."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.rand(tokens, width, generator=draw).requires_grad_() for _ in range(3))
    own = {x.untyped_storage().data_ptr() for x in (q, k, v)}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = output(q, k, v)
    del result
    return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
