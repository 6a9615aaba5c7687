"""Attention with frozen random heads and trained values: the features, and the kernels of infinitely many heads.

Tokens x_0 (the query) and x_1, ..., x_N (the keys) have unit norm; x~ = (x, 1). A head with query-key matrix W maps
them to

    phi_W(x_0, ..., x_N) = (1/N) sum_i relu(<W, x~_0 x~_i^T>) x~_i,       W_ab ~ N(mean_ab, 1/4),

and the model is sum_m <v_m, phi_W_m> with trained v_m. The variance 1/4 makes a score N(., 1), as |x~_0 x~_i^T|_F = 2.
Zero mean is the paper's RFA, a multiple of the identity on the d x d block its biased BRFA. Its rival RFMLP is a
network relu(<w, (x_0, ..., x_N, 1)>) with w ~ N(0, I / (N + 2)), here always at infinite width.

Source: Fu, Guo, Bai, Mei, arXiv:2307.11353. The kernels' closed forms are derived here: kappa is the arc-cosine kernel
of order one (Cho and Saul 2009) divided by 2; `bivariate_relu` follows from Price's theorem. No file of the authors'
is known to be public. Arrays are numpy's or torch's, inputs (n, N + 1, d), unless a function says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
from array_api_compat import array_namespace

SPREAD = 0.5
"""Standard deviation of the entries of W."""


def sphere(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform points of the unit sphere, float64 (*shape): the last axis is the space."""
    points = draw.standard_normal(shape)
    unit: np.ndarray = points / np.linalg.norm(points, axis=-1, keepdims=True)
    return unit


def extend(x: Any) -> Any:
    """x~ = (x, 1): (..., d) -> (..., d + 1). The 1 makes odd powers of degree 3 and more visible, see kappa."""
    xp = array_namespace(x)
    return xp.concat([x, xp.ones_like(x[..., :1])], axis=-1)


def diagonal_mean(d: int, size: float = 1.0) -> np.ndarray:
    """The mean of BRFA's query-key matrices, float64 (d + 1, d + 1): size times the identity on the d x d block."""
    return np.diag([*[float(size)] * d, 0.0])


def gaussian_heads(
    draw: np.random.Generator, heads: int, d: int, mean: np.ndarray | None = None, spread: float = SPREAD
) -> np.ndarray:
    """Query-key matrices W of independent heads, float64 (heads, d + 1, d + 1). mean (d + 1, d + 1), zero if None."""
    noise = spread * draw.standard_normal((heads, d + 1, d + 1))
    return noise if mean is None else noise + mean


def factored_heads(draw: np.random.Generator, heads: int, d: int, width: int) -> np.ndarray:
    """W = Q^T K / (2 sqrt(width)) with standard Gaussian Q, K (width, d + 1): entries of variance 1/4, not Gaussian."""
    query, key = draw.standard_normal((2, heads, width, d + 1))
    W: np.ndarray = np.swapaxes(query, 1, 2) @ key / (2 * math.sqrt(width))
    return W


def head_scores(x: Any, W: Any) -> Any:
    """<W_m, x~_0 x~_i^T> for each head and key: inputs (n, N + 1, d), heads (M, d + 1, d + 1) -> (n, M, N)."""
    xp = array_namespace(x, W)
    heads, size, _ = W.shape
    tokens = extend(x)
    flat = xp.reshape(xp.permute_dims(W, (1, 0, 2)), (size, heads * size))
    queries = xp.reshape(tokens[:, 0] @ flat, (x.shape[0], heads, size))
    return queries @ xp.matrix_transpose(tokens[:, 1:])


def head_features(x: Any, W: Any) -> Any:
    """phi_W of each head: inputs (n, N + 1, d), heads (M, d + 1, d + 1) -> (n, M, d + 1). The one definition."""
    xp = array_namespace(x, W)
    scores = head_scores(x, W)
    weights = xp.where(scores > 0, scores, xp.zeros_like(scores)) / (x.shape[1] - 1)
    return weights @ extend(x[:, 1:])


def monte_carlo_scores(
    draw: np.random.Generator,
    expected: np.ndarray,
    inputs: np.ndarray,
    heads: int,
    features: Callable[[np.ndarray, np.ndarray], np.ndarray] = head_features,
    mean: np.ndarray | None = None,
    spread: float = SPREAD,
) -> np.ndarray:
    """z-scores of the mean of <phi(x), phi(x')> over independent heads against a kernel expected (n, n).

    On and above the diagonal, (n (n + 1) / 2,). Heads are drawn in blocks of 1000; inputs (n, N + 1, d).
    """
    d = inputs.shape[-1]
    total, squares = np.zeros_like(expected), np.zeros_like(expected)
    for _ in range(heads // 1000):
        phi = features(inputs, gaussian_heads(draw, 1000, d, mean, spread)).swapaxes(0, 1)
        products = phi @ phi.mT  # (heads, n, n)
        total, squares = total + products.sum(axis=0), squares + (products**2).sum(axis=0)
    average = total / heads
    error = np.sqrt((squares / heads - average**2) / heads)
    rows = np.triu_indices(len(inputs))
    scores: np.ndarray = ((average - expected) / error)[rows]
    return scores


# -- infinitely many heads ---------------------------------------------------------------------------------------------


def kappa(rho: Any) -> Any:
    """E relu(g) relu(g') of standard Gaussians with correlation rho, any shape; rounding beyond [-1, 1] is cut off."""
    xp = array_namespace(rho)
    rho = xp.clip(rho, -1.0, 1.0)
    return (xp.sqrt(1 - rho**2) + rho * (math.pi - xp.acos(rho))) / (2 * math.pi)


def kernel(x: Any, y: Any) -> Any:
    """E <phi_W(x), phi_W(y)> for zero-mean heads: (n, N + 1, d), (m, N + 1, d) -> (n, m). Memory: a few (n, m)."""
    query = 1 + x[:, 0] @ y[:, 0].T
    total = 0.0
    for i in range(1, x.shape[1]):
        for j in range(1, y.shape[1]):
            key = 1 + x[:, i] @ y[:, j].T
            total = total + key * kappa(query * key / 4)
    return total / ((x.shape[1] - 1) * (y.shape[1] - 1))


def network_kernel(x: Any, y: Any) -> Any:
    """RFMLP's kernel at infinite width: (n, N + 1, d), (m, N + 1, d) -> (n, m)."""
    xp = array_namespace(x, y)
    flat = [xp.reshape(one, (one.shape[0], -1)) for one in (x, y)]
    return kappa((1 + flat[0] @ flat[1].T) / (x.shape[1] + 1))


def symmetrised_network_kernel(x: Any, y: Any) -> Any:
    """RFMLP's kernel averaged over all N! orders of y's keys: the same network, made invariant. Shapes as above."""
    orders = list(permutations(range(1, y.shape[1])))
    return sum(network_kernel(x, y[:, [0, *order]]) for order in orders) / len(orders)


def normal_density(z: np.ndarray) -> np.ndarray:
    """phi(z), float64, any shape."""
    density: np.ndarray = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return density


def bivariate_normal(a: np.ndarray, b: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """P(X <= a, Y <= b) for standard Gaussians of correlation rho, float64, shapes broadcast; by Owen's T function."""
    from scipy.special import ndtr, owens_t

    a, b, root = a + 0.0, b + 0.0, np.sqrt(1 - rho**2)  # -0.0 becomes 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = ((b / a - rho) / root, (a / b - rho) / root)
    both = (a == 0) & (b == 0)
    first = np.where(both, np.sqrt((1 - rho) / (1 + rho)), first)
    second = np.where(both, first, second)
    sign = np.sign(a) * np.sign(b)  # not that of a b, which may underflow
    opposite = (sign < 0) | ((sign == 0) & (a + b < 0))
    probability: np.ndarray = (ndtr(a) + ndtr(b) - opposite) / 2 - owens_t(a, first) - owens_t(b, second)
    return probability


def bivariate_relu(a: np.ndarray, b: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """E relu(a + g) relu(b + g') for standard Gaussians g, g' of correlation rho, float64, shapes broadcast.

    (a b + rho) Phi_2(a, b; rho) + a phi(b) Phi((a - rho b) / q) + b phi(a) Phi((b - rho a) / q) + q^2 phi_2(a, b; rho)
    with q^2 = 1 - rho^2. Correlations are kept 1e-14 away from +-1, which moves the value by no more than that.
    """
    from scipy.special import ndtr

    a, b, rho = np.broadcast_arrays(a, b, np.clip(rho, -1 + 1e-14, 1 - 1e-14))
    q = np.sqrt(1 - rho**2)
    after, before = (a - rho * b) / q, (b - rho * a) / q
    joint = normal_density(b) * normal_density(after)  # q phi_2(a, b; rho)
    one_sided = a * normal_density(b) * ndtr(after) + b * normal_density(a) * ndtr(before)
    value: np.ndarray = (a * b + rho) * bivariate_normal(a, b, rho) + one_sided + q * joint
    return value


def biased_kernel(x: np.ndarray, y: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """E <phi_W(x), phi_W(y)> for heads of this mean (d + 1, d + 1), exactly; numpy, shapes as `kernel`."""
    left, right = extend(x), extend(y)
    scores = [np.einsum("na,ab,nib->ni", one[:, 0], mean, one[:, 1:]) for one in (left, right)]
    query = left[:, 0] @ right[:, 0].T
    total: np.ndarray = np.zeros(query.shape)
    for i in range(1, x.shape[1]):
        for j in range(1, y.shape[1]):
            key = left[:, i] @ right[:, j].T
            total += key * bivariate_relu(scores[0][:, i - 1, None], scores[1][None, :, j - 1], query * key / 4)
    total /= (x.shape[1] - 1) * (y.shape[1] - 1)
    return total


def rank_one_kappa(query: Any, key: Any) -> Any:
    """What replaces kappa(query key) for W = q k^T / 2, one Gaussian query and key vector a head.

    A score is then a product of two independent Gaussians, positive when both signs agree, so that its covariance under
    relu splits: 2 kappa(query) kappa(key) + 2 kappa(-query) kappa(-key).
    """
    return 2 * kappa(query) * kappa(key) + 2 * kappa(-query) * kappa(-key)


def factored_kappa(width: int, key: float, terms: int = 200) -> float:
    """What replaces kappa(0) for heads Q^T K / (2 sqrt(width)) and queries with <x~_0, x~_0'> = 0; |key| <= 0.9.

    Given Q the scores are Gaussian, of correlation key cos(q, q') and scale |q| |q'| / (2 width), for independent
    Gaussian q, q' in width dimensions. So it is E|q||q'| / (2 width) sum_j kappa_2j key^(2j) E cos^(2j), with
    E cos^(2j) = prod_{i < j} (1 + 2 i) / (width + 2 i): odd powers have mean zero.
    """
    lengths = 2 / width * math.exp(2 * (math.lgamma((width + 1) / 2) - math.lgamma(width / 2)))
    total, coefficient, cosine = 0.0, 1.0, 1.0  # coefficient: 2 pi (2j - 1)^2 kappa_2j
    for j in range(terms):
        total += coefficient / (2 * j - 1) ** 2 * cosine * key ** (2 * j) / (2 * math.pi)
        coefficient *= (2 * j + 1) / (2 * j + 2)
        cosine *= (1 + 2 * j) / (width + 2 * j)
    return lengths * total
