"""Positional and standard Transformers trained on algorithmic tasks, and tested on numbers larger than those seen.

The architecture is the paper's own: heads' output beside the input, then a two-layer ReLU network; no residual sum, no
norm, one extra node that holds 0. The standard model gets one-hot positions beside the number, the positional model has
them in its attention only. Source: Back de Luca et al., arXiv:2410.01686, section 7; sizes of their released settings.

    inputs, targets  (models, batch, n + 1) float32, the last node being 0 and not part of the loss
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from empirical.training import Models, Recipe, device, fit
from theory.operators.attention import positional, softmax
from theory.operators.positions import rotary

Kind = Literal["positional", "standard", "rotary", "frozen"]
TASKS = ("sum", "min", "median", "sort", "maxsub")
RANGE = 2.0
"""Training numbers lie in [-2, 2]; a test at range factor c uses [-2 c, 2 c]."""


@dataclass(frozen=True)
class Sizes:
    """n numbers, width D, layers, heads, hidden width of Phi (D if 0)."""

    n: int = 4
    width: int = 32
    layers: int = 3
    heads: int = 2
    hidden: int = 0


class Mixer(nn.Module):
    """A layer's heads. frozen: positional, with queries and keys left at their random start."""

    queries: Tensor
    keys: Tensor
    positions: Tensor

    def __init__(self, kind: Kind, sizes: Sizes) -> None:
        super().__init__()
        self.kind, self.heads = kind, sizes.heads
        nodes = sizes.n + 1
        width = sizes.width if kind in ("standard", "rotary") else nodes
        weights = [torch.empty(sizes.heads, width, width) for _ in range(2)]
        # Glorot's, for queries and keys of all heads in one matrix.
        limit = (6 / (width + 2 * width * sizes.heads)) ** 0.5
        for name, weight in zip(("queries", "keys"), weights, strict=True):
            nn.init.uniform_(weight, -limit, limit)
            if kind == "frozen":
                self.register_buffer(name, weight)
            else:
                self.register_parameter(name, nn.Parameter(weight))
        self.values, self.output = nn.Linear(sizes.width, sizes.width), nn.Linear(sizes.width, sizes.width)
        self.register_buffer("positions", torch.eye(nodes))

    def weights(self, x: Tensor) -> Tensor:
        """(batch or 1, heads, nodes, nodes)."""
        if self.kind in ("positional", "frozen"):
            return positional(self.positions, self.queries, self.keys)[None]
        q, k = (torch.einsum("bnd,hde->bhne", x, weights) for weights in (self.queries, self.keys))
        if self.kind == "rotary":
            q, k = rotary(q), rotary(k)
        return softmax(q, k)

    def forward(self, x: Tensor) -> Tensor:
        batch, nodes, width = x.shape
        v = self.values(x).view(batch, nodes, self.heads, -1).transpose(1, 2)
        mixed = self.weights(x) @ v
        return self.output(mixed.transpose(1, 2).reshape(batch, nodes, width))


class Layer(nn.Module):
    """Phi([x, attention(x)])."""

    def __init__(self, kind: Kind, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden or sizes.width
        self.mixer = Mixer(kind, sizes)
        self.phi = nn.Sequential(nn.Linear(2 * sizes.width, hidden), nn.ReLU(), nn.Linear(hidden, sizes.width))

    def forward(self, x: Tensor) -> Tensor:
        return self.phi(torch.cat([x, self.mixer(x)], dim=-1))


class Transformer(nn.Module):
    """Numbers (batch, n + 1, channels) to numbers (batch, n + 1)."""

    positions: Tensor

    def __init__(self, kind: Kind, sizes: Sizes, channels: int = 1) -> None:
        super().__init__()
        self.kind = kind
        nodes = sizes.n + 1
        self.encoder = nn.Linear(channels + (nodes if kind in ("standard", "rotary") else 0), sizes.width)
        self.layers = nn.Sequential(*(Layer(kind, sizes) for _ in range(sizes.layers)))
        self.decoder = nn.Linear(sizes.width, 1)
        self.register_buffer("positions", torch.eye(nodes))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind in ("standard", "rotary"):
            x = torch.cat([x, self.positions.expand(*x.shape[:-1], -1)], dim=-1)
        return self.decoder(self.layers(self.encoder(x)))[..., 0]


# -- Tasks -------------------------------------------------------------------------------------------------------------


def target(task: str, x: Tensor) -> Tensor:
    """What a task asks for at each of the n numbers, x (..., n)."""
    if task == "sum":
        return x.cumsum(-1)
    if task == "min":
        return x.cummin(-1).values
    if task == "sort":
        return x.sort(-1).values
    if task == "median":
        prefixes = [x[..., : i + 1].sort(-1).values for i in range(x.shape[-1])]
        return torch.stack([(s[..., i // 2] + s[..., (i + 1) // 2]) / 2 for i, s in enumerate(prefixes)], dim=-1)
    best = ending = x[..., 0]
    found = [best]
    for i in range(1, x.shape[-1]):
        ending = x[..., i] + ending.clamp(min=0)
        best = torch.maximum(best, ending)
        found.append(best)
    return torch.stack(found, dim=-1)


def numbers(shape: Sequence[int], n: int, factor: float, generator: torch.Generator) -> Tensor:
    """(*shape, n): uniform between two uniform ends of [-2 c, 2 c]; for c > 1 never with both ends inside [-2, 2]."""
    ends = RANGE * factor * (2 * torch.rand(*shape, 2, generator=generator) - 1)
    while factor > 1 and (inside := (ends.abs() <= RANGE).all(-1)).any():
        ends[inside] = RANGE * factor * (2 * torch.rand(int(inside.sum()), 2, generator=generator) - 1)
    low, high = ends.amin(-1, keepdim=True), ends.amax(-1, keepdim=True)
    return low + (high - low) * torch.rand(*shape, n, generator=generator)


def with_null(x: Tensor) -> Tensor:
    """A node of zeros appended to (..., n)."""
    return torch.cat([x, torch.zeros_like(x[..., :1])], dim=-1)


def examples(
    task: str, shape: Sequence[int], n: int, factor: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens (*shape, n + 1, channels) and targets (*shape, n) of a task.

    lookup  numbers are N(0, factor^2), each token also holds a pointer; the target is the number pointed at
    mixed   numbers in [0, 5 factor] with a category each; the target sums the numbers of the token's own category
    """
    if task == "lookup":
        x = factor * torch.randn(*shape, n, generator=generator)
        labels = torch.randint(n, (*shape, n), generator=generator)
        return _labelled(x, labels, n), x.gather(-1, labels)
    if task == "mixed":
        x = numbers(shape, n, factor, generator).abs() * 5 / RANGE
        labels = torch.randint(3, (*shape, n), generator=generator)
        same = labels[..., None, :] == labels[..., :, None]
        return _labelled(x, labels, 3), (same * x[..., None, :]).sum(-1)
    x = numbers(shape, n, factor, generator)
    return with_null(x)[..., None], target(task, x)


def _labelled(x: Tensor, labels: Tensor, kinds: int) -> Tensor:
    """(..., n + 1, 1 + kinds): number and one-hot label, and the null node."""
    tokens = torch.cat([x[..., None], nn.functional.one_hot(labels, kinds)], dim=-1)
    return torch.cat([tokens, torch.zeros_like(tokens[..., :1, :])], dim=-2)


def mean_square(model: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error over the n numbers: x (batch, n + 1, channels), y (batch, n)."""
    return (model(x)[..., :-1] - y).square().mean()


@dataclass(frozen=True)
class Run:
    """`repeats` models of each task, in the order of the tasks; `samples` training examples each, fresh ones if 0."""

    kind: Kind
    sizes: Sizes
    recipe: Recipe
    tasks: tuple[str, ...] = TASKS
    repeats: int = 6
    batch: int = 16
    samples: int = 0

    def draw(self, size: int, factor: float, generator: torch.Generator, own: bool = True) -> tuple[Tensor, Tensor]:
        """Examples for all models, (models, size, ...); not own: the models of a task share them."""
        each = [
            examples(task, (self.repeats if own else 1, size), self.sizes.n, factor, generator) for task in self.tasks
        ]
        x, y = (torch.cat([one[i].expand(self.repeats, *one[i].shape[1:]) for one in each]) for i in (0, 1))
        return x.to(device()), y.to(device())

    def training_set(self, seed: int) -> tuple[Tensor, Tensor]:
        """The fixed examples of each model."""
        return self.draw(self.samples, 1.0, torch.Generator().manual_seed(seed + 1))

    def train(self, seed: int) -> Models:
        """From the cache if it was trained before. 40 models of width 16: some 15 ms a step on one core."""
        pool = self.training_set(seed) if self.samples else None

        def batches(generator: torch.Generator) -> tuple[Tensor, ...]:
            if pool is None:
                return self.draw(self.batch, 1.0, generator)
            chosen = torch.randint(self.samples, (self.batch,), generator=generator).to(pool[0].device)
            return pool[0][:, chosen], pool[1][:, chosen]

        channels = 1 + {"lookup": self.sizes.n, "mixed": 3}.get(self.tasks[0], 0)
        return fit(
            f"positional-{self.kind}", __file__, asdict(self),
            build=lambda: Transformer(self.kind, self.sizes, channels),
            loss=mean_square, batches=batches, recipe=self.recipe, seed=seed, seeds=len(self.tasks) * self.repeats,
        )  # fmt: skip

    def errors(self, seed: int, factor: float, size: int = 1000) -> np.ndarray:
        """Mean squared errors (tasks, repeats) at a range factor; all models of a task get the same numbers."""
        x, y = self.draw(size, factor, torch.Generator().manual_seed(seed + 2), own=False)
        return self._mean_squares(self.train(seed), x, y)

    def training_errors(self, seed: int) -> np.ndarray:
        """(tasks, repeats): the error on each model's own training set."""
        return self._mean_squares(self.train(seed), *self.training_set(seed))

    def _mean_squares(self, models: Models, x: Tensor, y: Tensor) -> np.ndarray:
        each = (models(x, own=True)[..., :-1] - y).double().square().mean((-1, -2))
        found: np.ndarray = each.unflatten(0, (len(self.tasks), self.repeats)).cpu().numpy()
        return found


def setting(kind: Kind, scale: str, sizes: dict[str, int] | None = None, **changes: Any) -> Run:
    """The main run of an architecture at a scale, with changes: the paper's sizes at `full`, on a shorter schedule."""
    if scale == "full":
        shape, run = {"n": 8, "width": 64, "layers": 4}, {"repeats": 10, "batch": 256, "samples": 30_000}
        recipe = Recipe(2500, 2e-3)
    else:
        shape, run, recipe = {"width": 16}, {"repeats": 4}, Recipe(600, 1e-2)
    return Run(**{"kind": kind, "sizes": Sizes(**{**shape, **(sizes or {})}), "recipe": recipe, **run, **changes})
