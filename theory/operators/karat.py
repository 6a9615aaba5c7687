"""Kolmogorov-Arnold attention: its structure, and what a vision transformer pays for it.

The operator itself is `theory.operators.attention.kolmogorov_arnold`. Here are the parts around it: one layer of any
basis written as the sum that it is, the projection of its rows onto the simplex, ranks, and closed counts of parameters
and operations. Notation: N tokens (197: 14 x 14 patches and the class token), r hidden units, G grid size (number of
frequencies), h heads, L blocks.
Source: Maity, Hitsman, Li, Dutta, arXiv:2503.10632, and its project page. The counts were found by matching the page's
tables; the paper's own formulas were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Unit = Callable[[Any], Any]
"""A learnable function of one number: one phi_pq."""
TOKENS, RANK = 197, 12
"""N and r of all experiments in the paper."""


@dataclass(frozen=True)
class Vit:
    """Sizes of a vision transformer on 224 x 224 pixels in patches of 16, and the grid size G that the paper gives it.

    classes   of the linear head behind the page's total: 10, but 1000 for ViT-Small
    """

    name: str
    width: int
    heads: int
    grid: int
    classes: int
    layers: int = 12

    def parameters(self) -> int:
        """Weights and biases of the plain model: 12 d^2 + 13 d a block, patches, positions, class token, norm, head."""
        d = self.width
        block = 12 * d**2 + 13 * d
        return self.layers * block + (3 * 16**2 + 1) * d + TOKENS * d + d + 2 * d + (d + 1) * self.classes


VITS = (Vit("Tiny", 192, 3, 3, 10), Vit("Small", 384, 6, 3, 1000), Vit("Base", 768, 12, 1, 10))


def unit_parameters(grid: int) -> int:
    """Parameters per unit that match the table, 2 G + 3: the Fourier coefficients, one entry of W, and two more.

    The two are presumably the scales of base function and sum that KAN code keeps per edge.
    """
    return 2 * grid + 3


def extra_parameters(vit: Vit, *, universal: bool = False, rank: int = RANK, unit: Callable[[int], int]) -> int:
    """h L N r unit(G): what the operators add; with `universal` all blocks share h of them and L is 1."""
    return vit.heads * (1 if universal else vit.layers) * TOKENS * rank * unit(vit.grid)


def activation_operations(vit: Vit, *, rank: int = RANK) -> int:
    """h L N^2 r (3 G + 1): what matches the table for the learnable activation of one image."""
    return vit.heads * vit.layers * TOKENS**2 * rank * (3 * vit.grid + 1)


def softmax_operations(vit: Vit, per_entry: int = 3) -> int:
    """h L N^2 times the operations counted for each entry: exponential, sum, division."""
    return vit.heads * vit.layers * TOKENS**2 * per_entry


def broadcast_entries(tokens: int, units: int, grid: int) -> int:
    """Numbers in 2 N^2 r G: sines and cosines when each unit phi_pq is evaluated on its own, one head, one block."""
    return 2 * tokens**2 * units * grid


def matmul_entries(tokens: int, units: int, grid: int) -> int:
    """Numbers in 2 N^2 G + N r: the same when they are computed once and a product of matrices does the rest."""
    return 2 * tokens**2 * grid + tokens * units


ONE_COSINE = (np.array([[[1.0], [0.0]]]), np.zeros((1, 2, 1)), np.array([[1.0], [0.0]]))
"""Cosine, sine and W of N = 2, r = 1, G = 1: the first weight is cos(a_0), the second 0."""


def coefficients(draw: np.random.Generator, rank: int, tokens: int, grid: int) -> tuple[np.ndarray, ...]:
    """cosine, sine (r, N, G) and mix (N, r), all N(0, 1) as the paper initialises them."""
    return (*draw.standard_normal((2, rank, tokens, grid)), draw.standard_normal((tokens, rank)))


def additive_layer(row: Sequence[Any], units: Sequence[Sequence[Unit]]) -> list[Any]:
    """Phi[a]_p = sum_q phi_pq(a_q), any basis: numbers, arrays or symbols. units are r rows of N functions."""
    return [sum(phi(entry) for phi, entry in zip(functions, row, strict=True)) for functions in units]


def fourier_unit(cosine: Sequence[Any], sine: Sequence[Any]) -> Unit:
    """phi(t) = sum_g a_g cos(g t) + b_g sin(g t), for numbers and arrays."""

    def phi(t: Any) -> Any:
        return sum(
            a * np.cos(g * t) + b * np.sin(g * t) for g, (a, b) in enumerate(zip(cosine, sine, strict=True), start=1)
        )

    return phi


BASES: dict[str, Unit] = {
    "rational": lambda t: (1 + t - t**2) / (1 + abs(t + t**2)),
    "Mexican hat": lambda t: 2 / (np.pi**0.25 * np.sqrt(3)) * (1 - t**2) * np.exp(-(t**2) / 2),
    "Morlet": lambda t: np.cos(5 * t) * np.exp(-(t**2) / 2),
    "derivative of a Gaussian": lambda t: t * np.exp(-(t**2) / 2),
    "Fourier": lambda t: np.cos(t) + np.sin(2 * t),
}
"""One mother function of each family on the project page (Meyer and Shannon left out), numpy."""


def project_to_simplex(rows: np.ndarray) -> np.ndarray:
    """The nearest point of the probability simplex to each row (..., m), float64.

    Source: Held, Wolfe, Crowder 1974: max(row - t, 0), where t makes the sum 1.
    """
    descending = -np.sort(-rows, axis=-1)
    thresholds = (np.cumsum(descending, axis=-1) - 1) / np.arange(1, rows.shape[-1] + 1)
    support = np.sum(descending > thresholds, axis=-1, keepdims=True)
    projected: np.ndarray = np.clip(rows - np.take_along_axis(thresholds, support - 1, axis=-1), 0, None)
    return projected


def numerical_rank(matrix: np.ndarray) -> np.ndarray:
    """Singular values above N eps times the largest: rank (...) of matrices (..., n, m), float64."""
    values = np.linalg.svd(matrix, compute_uv=False)
    cut = max(matrix.shape[-2:]) * np.finfo(matrix.dtype).eps * values[..., :1]
    count: np.ndarray = np.sum(values > cut, axis=-1)
    return count


def percent_range(before: float, after: float, half: float = 0.005) -> tuple[float, float]:
    """Range of 100 |after / before - 1| when both were rounded to two decimals: what a table may print."""
    ends = [(after + i * half) / (before + j * half) for i in (-1, 1) for j in (-1, 1)]
    changes = sorted(abs(100 * (ratio - 1)) for ratio in ends)
    return changes[0], changes[-1]


def binomial_z(first: float, second: float, images: int) -> float:
    """Standard score of the difference second - first of two accuracies in percent, each on so many test images."""
    p, q = first / 100, second / 100
    return float((q - p) / np.sqrt((p * (1 - p) + q * (1 - q)) / images))
