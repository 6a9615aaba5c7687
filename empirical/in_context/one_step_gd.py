"""One attention layer trained from scratch on prompts of linear regression, several seeds at once.

Nothing of the predicted answer is built in: W_K, W_Q, W_V and h are full and start random, each step sees new prompts.
What a trained layer computes is read off its weights as (u, M), see `theory.in_context.one_step_gd`, and judged by
closed forms.
Source: the setting of arXiv:2307.03576, trained as in von Oswald et al. (arXiv:2212.07677) with Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Kind = Literal["linear", "softmax"]


@dataclass(frozen=True)
class Task:
    """Prompts of n examples y = w.x + eps with x_a ~ N(0, covariance_a), w_a ~ N(0, weights_a), eps ~ N(0, noise).

    covariance, weights  d variances each; () stands for ones
    shuffled             labels are permuted between the prompts of a batch: nothing is left to learn
    """

    n: int
    d: int
    noise: float
    covariance: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    shuffled: bool = False

    def sample(self, seeds: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Covariates (seeds, batch, n + 1, d), responses (seeds, batch, n + 1), float32; last comes the query."""
        x = torch.randn(seeds, batch, self.n + 1, self.d, generator=generator)
        w = torch.randn(seeds, batch, self.d, generator=generator)
        if self.covariance:
            x = x * torch.tensor(self.covariance).sqrt()
        if self.weights:
            w = w * torch.tensor(self.weights).sqrt()
        noise = math.sqrt(self.noise) * torch.randn(seeds, batch, self.n + 1, generator=generator)
        y = (x @ w[..., None])[..., 0] + noise
        return x, y.roll(1, dims=1) if self.shuffled else y


class Layer(nn.Module):
    """Single-head attention with read-out, a batch of independent ones: every parameter has the seeds in front."""

    def __init__(
        self, seeds: int, d: int, generator: torch.Generator, kind: Kind = "linear", scale: float = 0.3
    ) -> None:
        super().__init__()
        self.kind, self.d = kind, d
        size = d + 1

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(scale / math.sqrt(size) * torch.randn(seeds, *shape, generator=generator))

        self.key, self.query, self.value = normal(size, size), normal(size, size), normal(size, size)
        self.read_out = normal(size)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Prediction (seeds, batch) for the last example, whose response is hidden."""
        examples = torch.cat([x, y[..., None]], dim=-1)[:, :, :-1]  # (s, b, n, d + 1)
        u, M = self.parameters_of_prediction()
        scores = torch.einsum("sbni,sij,sbj->sbn", examples, M, x[:, :, -1])
        if self.kind == "softmax":
            scores = scores.softmax(dim=-1)
        return (scores * torch.einsum("sbni,si->sbn", examples, u)).sum(dim=-1)

    def parameters_of_prediction(self) -> tuple[Tensor, Tensor]:
        """u = W_V^T h, (seeds, d + 1), and M = (W_K^T W_Q)[:, :d], (seeds, d + 1, d): the query's response is 0."""
        u = torch.einsum("sij,si->sj", self.value, self.read_out)
        return u, (self.key.transpose(1, 2) @ self.query)[..., : self.d]


@dataclass(frozen=True)
class Trained:
    """What training left: one entry per seed."""

    layer: Layer
    u: np.ndarray  # (seeds, d + 1) float64
    M: np.ndarray  # (seeds, d + 1, d) float64

    def preconditioner(self) -> np.ndarray:
        """(seeds, d, d): the A of x^T A X^T y inside the layer's prediction."""
        d = self.M.shape[-1]
        along_label = self.u[:, d, None, None] * self.M[:, :d]
        along_inputs = self.u[:, :d, None] * self.M[:, None, d]
        return np.swapaxes(along_label + along_inputs, 1, 2)

    def step(self) -> np.ndarray:
        """(seeds,): the step of the nearest plain gradient step, tr A / d."""
        return np.trace(self.preconditioner(), axis1=1, axis2=2) / self.M.shape[-1]

    def alignment(self) -> np.ndarray:
        """(seeds,): cosine between A and the identity."""
        A = self.preconditioner()
        return np.trace(A, axis1=1, axis2=2) / np.linalg.norm(A, axis=(1, 2)) / math.sqrt(A.shape[-1])


@cache
def train(
    task: Task,
    seed: int,
    *,
    seeds: int = 8,
    kind: Kind = "linear",
    steps: int = 1500,
    batch: int = 512,
    rate: float = 1e-2,
) -> Trained:
    """Train `seeds` independent layers side by side: Adam, cosine-decayed to a thousandth of the rate, float32.

    Seeds share the generator but no data. steps = 0 gives untrained layers. 3 ms a step for 8 seeds, n = 10, d = 4.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = Layer(seeds, task.d, generator, kind)
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), eta_min=rate / 1000)
    for _ in range(steps):
        x, y = task.sample(seeds, batch, generator)
        loss = (layer(x, y) - y[..., -1]).square().mean(dim=1).sum()  # the sum keeps the seeds' gradients apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        u, M = (t.double().numpy() for t in layer.parameters_of_prediction())
    return Trained(layer, u, M)


def loss_above_step(trained: Trained, task: Task, step: float, seed: int, prompts: int = 20_000) -> np.ndarray:
    """(seeds,): squared error minus that of one gradient step on the same fresh prompts, a paired difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x, y = task.sample(len(trained.u), prompts, generator)
        one_step = step * torch.einsum("sbn,sbni,sbi->sb", y[..., :-1], x[:, :, :-1], x[:, :, -1])
        gap = (trained.layer(x, y) - y[..., -1]).square() - (one_step - y[..., -1]).square()
    return gap.double().mean(dim=1).numpy()


@dataclass(frozen=True)
class Family:
    """A random family of responses f with E f(x) x = w_f, for covariates with E x x^T = I.

    draw    (rng, batch, d) -> the parameters of one f per prompt
    apply   (parameters, x of shape (batch, n, d)) -> responses (batch, n)
    linear  parameters -> w_f (batch, d)
    step    (n, d, noise) -> predicted step
    """

    draw: Callable[[np.random.Generator, int, int], tuple[np.ndarray, ...]]
    apply: Callable[..., np.ndarray]
    linear: Callable[..., np.ndarray]
    step: Callable[[int, int, float], float]


def gaussian(rng: np.random.Generator, batch: int, d: int) -> tuple[np.ndarray, ...]:
    """w ~ N(0, I)."""
    return (rng.standard_normal((batch, d)),)


def two_layers(rng: np.random.Generator, batch: int, d: int, width: int = 4) -> tuple[np.ndarray, ...]:
    """Gaussian weights of a two-layer net: w_j ~ N(0, I), read-out of variance 1 / width."""
    return rng.standard_normal((batch, width, d)), rng.standard_normal((batch, width)) / math.sqrt(width)


def _along(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("bi,bni->bn", w, x)


FAMILIES = {
    "relu(w.x)": Family(
        gaussian,
        lambda w, x: np.maximum(_along(w, x), 0),
        lambda w: w / 2,
        lambda n, d, noise: 1 / (n + 2 * d + 3 + 4 * noise),
    ),
    "sign(w.x)": Family(
        gaussian,
        lambda w, x: np.sign(_along(w, x)),
        lambda w: math.sqrt(2 / math.pi) * w / np.linalg.norm(w, axis=1, keepdims=True),
        lambda n, d, noise: (2 / math.pi) / (d + d * noise + (n - 1) * 2 / math.pi),
    ),
    "two-layer ReLU net": Family(
        two_layers,
        lambda w, a, x: np.einsum("bk,bnk->bn", a, np.maximum(np.einsum("bki,bni->bnk", w, x), 0)),
        lambda w, a: np.einsum("bk,bki->bi", a, w) / 2,
        lambda n, d, noise: 1 / (n + 2 * d + 3 + 4 * noise),
    ),
}
"""Rotation-invariant families that are not polynomials, each with its step of Theorem 3 (Gaussian covariates)."""


def optimality_scores(
    rng: np.random.Generator, family: Family, n: int, d: int, noise: float, step: float, prompts: int = 100_000
) -> np.ndarray:
    """z-scores of E (w_f - step X^T y)_a G_bc = 0, all d F of them: zero means iff this step is optimal for any heads.

    Each prompt is one independent sample of every product, so the standard errors are the plain ones.
    """
    parameters = family.draw(rng, prompts, d)
    x = rng.standard_normal((prompts, n, d))
    y = family.apply(*parameters, x) + math.sqrt(noise) * rng.standard_normal((prompts, n))
    v = np.concatenate([x, y[..., None]], axis=-1)
    G = np.swapaxes(v, 1, 2) @ v
    left = family.linear(*parameters) - step * G[:, :d, d]
    rows, columns = np.triu_indices(d + 1)
    products = (left[:, :, None] * G[:, None, rows, columns]).reshape(prompts, -1)
    return products.mean(axis=0) / (products.std(axis=0, ddof=1) / math.sqrt(prompts))
