"""Attention on repeated tokens, where scores depend on distance alone, and what the sink metric makes of it.

Query t sees keys 1..t; all queries are equal, and so are all keys. A key n back from the query has the score g(n), so

    A_{t,1} = exp(g(t - 1)) / sum_{n < t} exp(g(n)),      alpha_1(T) = (1 / T) sum_{t <= T} A_{t,1}

numpy float64, and object arrays of `flint.arb` or of sympy expressions where a function takes `exp`. Source of the
settings: Gu et al., arXiv:2410.10781, section 3.2 and appendices B and C.1; closed forms and bounds are derived here.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

Array = Any


# -- scores by distance ------------------------------------------------------------------------------------------------


def relative_scores(n: int, buckets: int = 32, distance: int = 128) -> np.ndarray:
    """(n,): g at the distances 0..n - 1, the bucket's own index: exact below buckets / 2, then logarithmic.

    Source: equation 6 and the released `model_relpos.py`; T5 (arXiv:1910.10683) learns a bias for each bucket instead.
    """
    place, half = np.arange(n), buckets // 2
    steps = np.log(np.maximum(place, 1) / half) / math.log(distance / half) * half
    far = np.minimum(half + np.floor(steps), buckets - 1)
    scores: np.ndarray = np.where(place < half, place, far)
    return scores


def alibi_scores(n: int, slope: float) -> np.ndarray:
    """(n,): -slope times the distance."""
    scores: np.ndarray = -slope * np.arange(n)
    return scores


def by_distance(scores: np.ndarray) -> np.ndarray:
    """(n, n): entry (i, j) is the score at distance i - j, and 0 where j > i."""
    back = np.arange(len(scores))[:, None] - np.arange(len(scores))
    matrix: np.ndarray = np.where(back >= 0, np.asarray(scores)[np.maximum(back, 0)], 0.0)
    return matrix


# -- the first key -----------------------------------------------------------------------------------------------------


def first_weights(scores: Array, exp: Any = np.exp) -> Array:
    """(T,): A_{t,1} for t = 1..T from the scores g(0)..g(T - 1)."""
    e = exp(scores)
    return e / np.cumsum(e)


def first_importance(first: Array) -> Array:
    """(T,): alpha_1 of sequences of 1, 2, .. T tokens, from A_{t,1}, t = 1..T."""
    return np.cumsum(first) / np.arange(1, len(first) + 1)


def next_inverse(inverse: Any, ratio: Any) -> Any:
    """1 / A_{t+1,1} from 1 / A_{t,1} and exp(g(t - 1) - g(t)).

    sum_{n <= t} e^g(n) / e^g(t) = 1 + e^(g(t - 1) - g(t)) sum_{n < t} e^g(n) / e^g(t - 1). So a bias that never grows
    with the distance (ratio >= 1) has 1 / A_{t,1} >= t: key 1 gets no more than its share.
    """
    return 1 + inverse * ratio


def alibi_first(t: Any, decay: Any) -> Any:
    """A_{t,1} under ALiBi, decay = exp(-slope): r^(t - 1) (1 - r) / (1 - r^t)."""
    return decay ** (t - 1) * (1 - decay) / (1 - decay**t)


def uniform_importance(n: int) -> Fraction:
    """alpha_1 of a head that attends to nothing in particular, A_{t,j} = 1 / t: the harmonic number over n."""
    return sum((Fraction(1, t) for t in range(1, n + 1)), Fraction(0)) / n


# -- rotary positions --------------------------------------------------------------------------------------------------


def rotary_bound(t: Any, reach: Any, exp: Any = np.exp) -> Any:
    """e^(2 xi) / (e^(2 xi) + t - 1) >= A_{t,i} for any i; xi = |q| |k| times the scale. Source: proposition 4."""
    top = exp(2 * reach)
    return top / (top + t - 1)


def rotary_importance_bound(n: float, reach: float) -> float:
    """Mean of `rotary_bound` over t = 1..n, which bounds alpha_1: (E / n) (psi(E + n) - psi(E)), E = e^(2 xi).

    psi is the digamma function; for large E, where the difference cancels, by psi(x) = ln x - 1 / (2 x) + O(1 / x^2).
    """
    from scipy.special import digamma

    top = math.exp(2 * reach)
    if top < 2**16:
        return float(top / n * (digamma(top + n) - digamma(top)))
    return top / n * (math.log1p(n / top) + (1 / top - 1 / (top + n)) / 2)


def rotary_length(reach: float, epsilon: float) -> float:
    """The number of tokens from which on `rotary_importance_bound` is below epsilon."""
    from scipy.optimize import brentq

    return math.exp(
        brentq(
            lambda log_n: rotary_importance_bound(math.exp(log_n), reach) - epsilon,
            0,
            2 * reach - math.log(epsilon) + 9,
        )
    )


def opposed_head(reach: float, plane: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """q and k = -q, (width,), in one plane of `theory.operators.positions.rotary`, with |q| |k| / sqrt(width) = reach.

    Their score at distance n is -reach cos(n theta): the further back, the higher, up to half a turn.
    """
    q = np.zeros(width)
    q[plane] = math.sqrt(reach) * width**0.25
    return q, -q


def opposed_scores(n: int, reach: Any, plane: int, width: int, base: float = 10_000.0, cos: Any = np.cos) -> Array:
    """(n,): the scores of `opposed_head` at the distances 0..n - 1; `cos` may be that of balls."""
    angle = base ** (-plane / (width // 2))
    return -reach * cos(np.arange(n) * angle)
