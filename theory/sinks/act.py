"""Attention Calibration (ACT): later sinks are lowered to beta of their attention, what is freed goes to the others.

    A       (..., n, n)  causal attention weights, rows are queries; `measures.importance` is the paper's average
    chosen  (..., n)     bool: the keys that are lowered

Sources: Yu et al., arXiv:2406.15765, for the rule; its released code (`models/llama_modelling_aug.py`) for
`released`, described anew here, and for the thresholds. The null models and what a search finds by chance are ours.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.positions import causal
from theory.sinks.measures import importance

Array = Any
BETA = 0.4
ALPHA = 5.0
"""A later sink receives on average more than ALPHA / n."""
RELEASED_TAU = 0.1
"""The threshold in the released scripts, whatever n is."""
SEARCHED_HEADS = 29 * 32
"""Layers 2 to 30 of Llama-2-7B, 32 heads each."""

# -- the rule ----------------------------------------------------------------------------------------------------------


def later_sinks(A: Array, tau: float | None = None) -> Array:
    """(..., n) bool: keys after the first whose average attention exceeds tau, ALPHA / n unless given."""
    xp = array_namespace(A)
    flagged = importance(A) > (ALPHA / A.shape[-1] if tau is None else tau)
    return flagged & (xp.arange(A.shape[-1], device=A.device) > 0)


def lower(A: Array, chosen: Array, beta: float = BETA) -> Array:
    """beta A_tk for the chosen k; the others grow by one factor, so that the row keeps its sum.

    That factor is (1 - beta m) / (1 - m) where m is the row's mass on the chosen keys and 1 its sum. A row with all of
    its mass there has nothing to grow: its other weights become NaN, as in the released code.
    """
    xp = array_namespace(A)
    chosen = chosen[..., None, :]
    taken = xp.sum(xp.where(chosen, A, xp.zeros_like(A)), axis=-1, keepdims=True)
    left = xp.sum(xp.where(chosen, xp.zeros_like(A), A), axis=-1, keepdims=True)
    full = left + (1 - beta) * taken
    nothing = xp.full_like(left, math.nan)
    factor = xp.where(taken > 0, full / xp.where(left > 0, left, nothing), xp.ones_like(left))
    return xp.where(chosen, beta * A, factor * A)


def calibrate(A: Array, beta: float = BETA, tau: float | None = None) -> Array:
    """ACT on one causal map: its later sinks, lowered."""
    return lower(A, later_sinks(A, tau), beta)


def released(A: np.ndarray, beta: float = BETA, tau: float = RELEASED_TAU) -> np.ndarray:
    """What the released function makes of the map of one head, (q, n): q = n for a prompt, q = 1 in cached decoding.

    It differs from `calibrate` in three ways. Averages are over q - k queries, from 0, or over one for q = 1. Of the
    keys above tau the first is spared, whichever it is. And the first row gives what is freed to all keys in
    proportion, sinks too; then its first weight is set to 1.
    """
    q = len(A)
    average = A.sum(axis=0) / np.arange(q, 0, -1)
    chosen = np.zeros(A.shape[-1], dtype=bool)
    chosen[np.flatnonzero(average > tau)[1:]] = True
    result = np.asarray(lower(A, chosen, beta))
    result[0] = np.where(chosen, beta, 1) * A[0] + (1 - beta) * A[0, chosen].sum() * A[0] / A[0].sum()
    result[0, 0] = 1
    return result


# -- what is flagged by chance -----------------------------------------------------------------------------------------


def uniform_importance(n: int) -> list[Fraction]:
    """The n averages under uniform causal attention: of key k, from 1, the mean of 1/k, 1/(k + 1), .. 1/n."""
    total, averages = Fraction(0), []
    for k in range(n, 0, -1):
        total += Fraction(1, k)
        averages.append(total / (n - k + 1))
    return averages[::-1]


def random_maps(count: int, n: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """(count, n, n): causal softmax of independent N(0, sigma^2) logits, where no key is special."""
    logits = np.where(causal(n), sigma * rng.standard_normal((count, n, n)), -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def shuffle_rows(A: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The weights of each row in random order among the keys that its query may see."""
    order = np.argsort(np.where(causal(A.shape[-1]), rng.random(A.shape), 2), axis=-1)
    return np.take_along_axis(A, order, axis=-1)


def excess(A: np.ndarray) -> np.ndarray:
    """(..., n): what each key receives beyond uniform attention, summed over the queries that see it."""
    n = A.shape[-1]
    return np.asarray((A - causal(n) / np.arange(1, n + 1)[:, None]).sum(axis=-2))


def beyond_chance(A: np.ndarray, rng: np.random.Generator, shuffles: int = 99) -> np.ndarray:
    """(..., n) bool: keys after the first whose excess is above that of every key in so many shuffled copies of A.

    Where the weights of each row are exchangeable, any key of a map is flagged with probability 1 / (shuffles + 1) at
    most: the largest excess is then as likely to be the largest in the map as in each copy.
    """
    most = np.max([excess(shuffle_rows(A, rng))[..., 1:].max(axis=-1) for _ in range(shuffles)], axis=0)
    return np.asarray((excess(A) > most[..., None]) & (np.arange(A.shape[-1]) > 0))


# -- what a search over heads finds by chance --------------------------------------------------------------------------


def search_by_chance(answers: int, changed: float) -> tuple[float, float]:
    """Share of heads that look beneficial on so many answers when none is, and the mean apparent gain of those.

    Each answer turns from wrong to right, or from right to wrong, with probability changed / 2. The gain is a share of
    the answers. Expectations, which do not ask that heads be independent.
    """
    from scipy.special import gammaln
    from scipy.stats import binom

    turned = np.arange(answers + 1)
    weight = binom.pmf(turned, answers, changed)
    half = turned // 2
    middle = np.exp(gammaln(turned + 1) - gammaln(half + 1) - gammaln(turned - half + 1) - turned * math.log(2))
    tie = float((weight * np.where(turned % 2 == 0, middle, 0)).sum())
    # The mean distance of a walk of c steps is c, or c + 1 where c is odd, times the probability of its middle.
    distance = float((weight * np.where(turned % 2 == 0, turned, turned + 1) * middle).sum())
    share = (1 - tie) / 2
    return share, distance / 2 / share / answers


def search_results(
    heads: int, answers: int, up: np.ndarray | float, down: np.ndarray | float, rng: np.random.Generator
) -> np.ndarray:
    """(heads,) change of accuracy on a fresh sample; an answer turns right with probability `up`, wrong with `down`."""
    up, down = np.broadcast_to(up, heads), np.broadcast_to(down, heads)
    counts = rng.multinomial(answers, np.stack([up, down, 1 - up - down], axis=-1))
    return np.asarray((counts[:, 0] - counts[:, 1]) / answers)
