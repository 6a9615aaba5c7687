"""Entropy of attention as the number of tokens changes, and the factor that is to hold it.

A denoiser trained on images of T tokens is run on N tokens; its self-attention multiplies the scores by
sqrt(ln N / ln T). Entropy is in nats. Arrays follow the array-API standard, floating dtypes.

Source: Jin, Shen, Li, Xue, "Training-free Diffusion Model Adaptation for Variable-Sized Text-to-Image Synthesis",
arXiv:2306.08645. The factor is confirmed by two independent implementations (Birch-san/diffusers-play and a DiT code
base); the theory for Gaussian scores is our own, from the random energy model (Derrida, 1981).
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import Array, softmax_rows


def entropy(weights: Array) -> Array:
    """-sum_j w_j ln w_j of each row, (..., m) -> (...), with 0 ln 0 = 0."""
    xp = array_namespace(weights)
    return -xp.sum(weights * xp.log(xp.where(weights > 0, weights, xp.ones_like(weights))), axis=-1)


def score_entropy(scores: Array) -> Array:
    """Entropy of the softmax of each row of scores, (..., m) -> (...)."""
    return entropy(softmax_rows(scores))


def size_factor(tokens: int, trained: int) -> float:
    """sqrt(ln N / ln T): the paper's scale over the usual one.

    Raises:
        ValueError: either number is below 2, where the logarithm is 0 and the factor 0 or infinite.
    """
    if min(tokens, trained) < 2:
        raise ValueError(f"the factor needs at least 2 tokens, got {tokens} now and {trained} in training")
    return math.sqrt(math.log(tokens) / math.log(trained))


def inverse_factor(tokens: int, trained: int) -> float:
    """1 / `size_factor`: the wrong way round."""
    return 1 / size_factor(tokens, trained)


def linear_factor(tokens: int, trained: int) -> float:
    """ln N / ln T: the factor of entropy-invariant softmax, the square of the paper's."""
    return size_factor(tokens, trained) ** 2


def gaussian_entropy(tokens: int, sigma: float) -> float:
    """ln N - sigma^2 / 2: expected entropy for N independent N(0, sigma^2) scores, to leading order.

    For sigma^2 < 2 ln N; beyond, the softmax freezes on a few scores and the entropy stays bounded.
    """
    return math.log(tokens) - sigma**2 / 2


def critical_sigma(tokens: int) -> float:
    """sqrt(2 ln N), where independent Gaussian scores freeze."""
    return math.sqrt(2 * math.log(tokens))


def share_removed(sigma: float, trained: int) -> float:
    """sigma^2 / (2 ln T): share of the entropy's growth with ln N that the factor removes, N(0, sigma^2) scores.

    With the factor the variance is sigma^2 ln N / ln T, so that the entropy is (1 - share) ln N.
    """
    return sigma**2 / (2 * math.log(trained))


def slope(tokens: np.ndarray, entropies: np.ndarray) -> np.ndarray:
    """Least-squares slope of the entropy in ln N: tokens (sizes,), entropies (..., sizes) -> (...)."""
    x = np.log(tokens) - np.log(tokens).mean()
    return np.asarray(entropies @ x / (x @ x))


def sampled_entropies(
    rng: np.random.Generator, tokens: np.ndarray, deviations: np.ndarray, batches: int = 16, rows: int = 8
) -> np.ndarray:
    """Mean entropies of batches of rows of independent Gaussian scores, (batches, sizes).

    tokens, deviations (sizes,) are the number of scores of a row and their standard deviation.
    """
    columns = [
        score_entropy(sigma * rng.standard_normal((batches, rows, count))).mean(axis=1)
        for count, sigma in zip(tokens, deviations, strict=True)
    ]
    return np.stack(columns, axis=1)


def keeping_factor(scores: np.ndarray, copies: int) -> float:
    """Factor on scores (..., m) after which `copies` of every key have the mean entropy that one of each had before.

    Copies add exactly ln(copies), so that the tempered entropy must fall by it.

    Raises:
        ValueError: no factor does, because the mean entropy is not ln(copies) above that of the largest scores alone.
    """
    from scipy.optimize import brentq

    def above_goal(factor: float) -> float:
        return float(score_entropy(factor * scores).mean()) - goal

    goal = float(score_entropy(scores).mean()) - math.log(copies)
    highest = 1e6 / max(float(np.ptp(scores)), 1e-300)
    if above_goal(highest) >= 0:
        raise ValueError(f"no factor takes ln {copies} from an entropy of {goal + math.log(copies):.3g}")
    return float(brentq(above_goal, 0, highest))


def entropy_slope(scores: np.ndarray, factor: float) -> np.ndarray:
    """Derivative of the entropy of softmax(factor s) by the factor: -factor Var_w(s) <= 0, scores (..., m) -> (...)."""
    weights = softmax_rows(factor * scores)
    mean = (weights * scores).sum(axis=-1, keepdims=True)
    return np.asarray(-factor * (weights * (scores - mean) ** 2).sum(axis=-1))


def tokens_of(height: int, width: int, downsampling: int) -> int:
    """Tokens of a self-attention layer of a latent denoiser at this downsampling from pixels."""
    return (height // downsampling) * (width // downsampling)
