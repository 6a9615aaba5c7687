"""Gaussian adaptive attention (GAAM): what its gate can express, and what it cannot.

The operators themselves are `gaussian_adaptive` and `gaussian_adaptive_paper` in `theory.operators.attention`. Here are
the closed forms about them, and the mixture that the paper's words describe but its released code does not compute.
Arrays follow the array-API standard, floating dtypes.

Source: Ioannides, Chadha, Elkins, "Gaussian Adaptive Attention is All You Need", arXiv:2401.11143, and the repository
gioannides/Gaussian-Adaptive-Attention, GaussianBlock.py. The derivations are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import Array, gaussian_adaptive, normalised

LEAST_DISTANCE = (math.sqrt(5) - 1) / 4
"""No product of Gaussians comes nearer, in total variation, to (1/2, 0, 1/2) on three equally spaced values.

Log-concave weights (a, b, c) have b^2 >= a c. With a, c <= 1/2 the distance is b and a c >= (1/2 - b) / 2; otherwise,
say for a > 1/2, it is t = 1/2 - c with t^2 > b^2 >= a c > (1/2 - t) / 2. Either way t^2 >= (1/2 - t) / 2.
"""


def merged(offset: Array, width: Array) -> tuple[Array, Array]:
    """(offset, width) of the one Gaussian to which the product of K Gaussians is proportional; offset, width (..., K).

    1 / c^2 = sum_k 1 / c_k^2, and the offset is the mean of the offsets with these precisions as masses.
    """
    xp = array_namespace(offset, width)
    precision = 1 / width**2
    total = xp.sum(precision, axis=-1)
    return xp.sum(precision * offset, axis=-1) / total, 1 / total**0.5


def mixture(x: Array, mass: Array, offset: Array, width: Array, *, axis: int = -1) -> Array:
    """Weights like x: the SUM of K Gaussians with masses (K,), over its sum; mean and variance as in the released code.

    With equal masses, offset 0 and width 2 it is the release of January 2024; with free masses it is the repair.
    """
    xp = array_namespace(x)
    mean, variance = xp.mean(x, axis=axis, keepdims=True), xp.var(x, axis=axis, correction=1, keepdims=True)
    deviation = x[..., None] - mean[..., None] - offset
    bells = mass * xp.exp(-(deviation**2) / (2 * width**2 * variance[..., None])) / xp.sqrt(2 * math.pi * width**2)
    density = xp.sum(bells, axis=-1)
    return density / xp.sum(density, axis=axis, keepdims=True)


def multi_head(x: Array, offset: Array, width: Array, *, weights: Callable[..., Array] = gaussian_adaptive) -> Array:
    """Weights like x: the last axis in consecutive chunks, one head each; offset, width (heads, K).

    Every chunk is normalised by itself; the last one takes what remains when the sizes do not divide.
    """
    xp = array_namespace(x)
    heads, size = len(offset), x.shape[-1] // len(offset)
    ends = [*(size * h for h in range(1, heads)), x.shape[-1]]
    chunks = [x[..., size * h : end] for h, end in enumerate(ends)]
    return xp.concat([weights(chunk, offset[h], width[h]) for h, chunk in enumerate(chunks)], axis=-1)


def parameters(heads: int, components: int) -> int:
    """Parameters of one layer: an offset and a width for each component of each head, whatever the model's width."""
    return 2 * components * heads


def dot_product_parameters(width: int) -> int:
    """Weights of the four square matrices of a dot-product layer, biases not counted."""
    return 4 * width**2


def effective_parameters(x: np.ndarray, offset: np.ndarray, width: np.ndarray) -> int:
    """Rank of the derivative of the weights' logarithm, up to a constant, by the 2 K parameters at this point.

    x (n,) holds values, offset and width (K,). Of log w only quadratics in x remain, so that the rank is at most 2.
    """
    z = (x[:, None] - x.mean() - offset) / x.std(ddof=1)
    slopes = np.concatenate([z / width**2, z**2 / width**3], axis=1)  # by offset (up to a factor) and by width
    return int(np.linalg.matrix_rank(slopes - slopes.mean(axis=0)))


def golden_bell(width: float) -> float:
    """Offset at which a bell of this width on the values -1, 0, 1 is within 1 / width^2 of `LEAST_DISTANCE`.

    It makes w(0) / w(-1) the golden ratio's inverse; as the width grows, so does w(1) / w(0).
    """
    return -(width**2) * math.log((1 + math.sqrt(5)) / 2) - 0.5


def total_variation(p: Array, q: Array) -> Array:
    """Half the sum of |p - q| along the last axis."""
    xp = array_namespace(p)
    return xp.sum(xp.abs(p - q), axis=-1) / 2


def narrow_width(values: np.ndarray, distance: float) -> float:
    """Width at which a mixture centred on n distinct values is within `distance` of any masses on them.

    Each bell leaks at most q = exp(-gap^2 / (2 c^2 variance)) onto every other value, so that the total variation is
    at most (n - 1) q; the width solves (n - 1) q = distance.
    """
    gap = np.diff(np.sort(values)).min() / values.std(ddof=1)
    return float(gap / math.sqrt(2 * math.log((len(values) - 1) / distance)))


def two_bumps() -> tuple[np.ndarray, np.ndarray]:
    """201 values from -3 to 3, and a distribution over them with bumps of width 0.3 at -1.5 and 1.5."""
    x = np.linspace(-3, 3, 201)
    target = np.exp(-((x - 1.5) ** 2) / 0.18) + np.exp(-((x + 1.5) ** 2) / 0.18)
    return x, target / target.sum()


def best_bell(x: np.ndarray, target: np.ndarray, points: int = 121) -> tuple[float, np.ndarray]:
    """Least total variation between target and one Gaussian on x, all (n,), over a grid of centres and widths.

    Returns it with its weights. Widths run over three decades below the range of x, centres over twice that range.
    """
    reach = np.ptp(x)
    centres = np.linspace(x.min() - reach / 2, x.max() + reach / 2, points)
    widths = reach * np.geomspace(1e-3, 4, points)
    logs = -((x - centres[:, None, None]) ** 2) / (2 * widths[:, None] ** 2)
    bells = np.exp(logs - logs.max(axis=-1, keepdims=True))
    bells /= bells.sum(axis=-1, keepdims=True)
    distances = total_variation(bells, target)
    at = np.unravel_index(distances.argmin(), distances.shape)
    return float(distances[at]), bells[at]


def best_masses(x: np.ndarray, target: np.ndarray, components: int) -> np.ndarray:
    """Weights (n,) of the mixture of Gaussians on an even grid of centres whose masses fit the target best.

    Non-negative least squares; the width is that of a cell between centres.
    """
    from scipy.optimize import nnls

    centres = np.linspace(x.min(), x.max(), components)
    bells = np.exp(-((x[:, None] - centres) ** 2) / (2 * (centres[1] - centres[0]) ** 2))
    mass, _ = nnls(bells, target)
    return np.asarray(normalised(bells @ mass))


def importance_factor(weights: np.ndarray) -> np.ndarray:
    """(mean weight - least) / (greatest - least) over samples: weights (samples, n), result (n,).

    Source: at second hand, as the min-max normalised mean weight; the section that defines it was not available.
    """
    mean = weights.mean(axis=0)
    return np.asarray(normalised(mean - mean.min(), np.ptp(mean)))


def ranking_quality(score: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Chance that a relevant feature scores higher than another one, ties count half: score (..., n), relevant (n,)."""
    ahead = score[..., relevant, None] - score[..., None, ~relevant]
    return np.asarray((np.sign(ahead) / 2 + 0.5).mean(axis=(-2, -1)))
