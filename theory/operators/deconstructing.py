"""Attention taken apart: recurrences, caches and the bounds that hold whatever is trained (Xue et al., 2025).

Shapes: q, k (n, d) and v (n, e) of one head, d its width; everything is causal, row i sees keys 0..i. The recurrences
are made of + and * alone, so polynomials in numpy object arrays pass through them.
Source: arXiv:2510.11602, sections 3.2 to 3.5 and tables 1, 4 and 8; the operators are in `theory.operators.attention`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import Array, logistic

# -- Approximate: the exponential's second-order Taylor polynomial -----------------------------------------------------


ROOT = math.sqrt(2)


def second_order(x: np.ndarray, root: Any = ROOT) -> np.ndarray:
    """(1, x_a, x_a x_b for a < b, x_a^2 / sqrt 2), (n, F): products of two are T(q.k) = 1 + q.k + (q.k)^2 / 2.

    F = (d + 1)(d + 2) / 2; `root` is sqrt 2 in the caller's numbers. Source: Arora et al., arXiv:2402.18668, section 4,
    where each pair a < b appears twice, over sqrt 2.
    """
    rows, columns = np.triu_indices(x.shape[-1], 1)
    return np.concatenate([np.ones_like(x[:, :1]), x, x[:, rows] * x[:, columns], x**2 / root], axis=1)


def elementwise_order(x: np.ndarray, root: Any = ROOT) -> np.ndarray:
    """(1, x_a, x_a^2 / sqrt 2), (n, 1 + 2 d): no cross terms of (q.k)^2: `second_order` where d = 1 only."""
    return np.concatenate([np.ones_like(x[:, :1]), x, x**2 / root], axis=1)


def causal_sums(features: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The state after each token, sums over j <= i: phi(k_j) v_j^T, (n, F, e), and phi(k_j), (n, F)."""
    products, norms = [features[0][:, None] * v[0]], [features[0]]
    for phi, value in zip(features[1:], v[1:], strict=True):
        products.append(products[-1] + phi[:, None] * value)
        norms.append(norms[-1] + phi)
    return np.stack(products), np.stack(norms)


def taylor_recurrence(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, features: Callable[[np.ndarray], np.ndarray] = second_order
) -> tuple[np.ndarray, np.ndarray]:
    """Numerators (n, e) and denominators (n, 1) of causal Taylor attention, from a state of constant size.

    q and k carry the scale already. Source: equations 6 and 14-17, with one normalisation for all orders.
    """
    products, norms = causal_sums(features(k), v)
    phi = features(q)
    return (phi[:, :, None] * products).sum(axis=1), (phi * norms).sum(axis=1)[:, None]


def separate_sums(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The three orders each over its own norm and added up: how equations 14-17 come out of the stored PDF text."""
    output = 0 * v
    for order in (lambda x: x[:, :1] * 0 + 1, lambda x: x, lambda x: x**2):
        numerators, denominators = taylor_recurrence(q, k, v, features=order)
        output = output + numerators / denominators
    return output, output[:, :1] * 0 + 1


def kernel_rank(points: np.ndarray) -> int:
    """Rank of the matrix T(x_i.x_j) of integer points (N, d), exactly: products of F features have rank at most F."""
    from sympy import ZZ
    from sympy.polys.matrices import DomainMatrix

    s = points.astype(object) @ points.T.astype(object)
    return int(DomainMatrix((2 + 2 * s + s**2).tolist(), s.shape, ZZ).convert_to(ZZ.get_field()).rank())


# -- Non-approximate: one logit per key --------------------------------------------------------------------------------


def silu(x: Array) -> Array:
    """x / (1 + exp(-x)), elementwise."""
    return x * logistic(x)


def gated_logits(q: Array, k: Array) -> Array:
    """SiLU(q_j).k_j / sqrt d, (..., m): q and k are read from the same token j. Source: section 3.3."""
    return array_namespace(q).sum(silu(q) * k, axis=-1) / math.sqrt(q.shape[-1])


def gated_bound(d: int) -> float:
    """sqrt(d) logistic(sqrt(d)): the largest |logit| of queries and keys of root mean square 1, as after QK norm.

    |SiLU(q)| <= |q| logistic(max q) and max q <= |q| = sqrt d; attained where q = k has a single non-zero entry.
    """
    return math.sqrt(d) * float(logistic(np.sqrt(float(d))))


def rms_norm(x: Array) -> Array:
    """x over its root mean square: rows of length sqrt d, the QK norm of appendix A without its gain."""
    xp = array_namespace(x)
    return x / xp.sqrt(xp.mean(x**2, axis=-1, keepdims=True))


def per_key_recurrence(factors: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numerators (n, e) and denominators (n, 1) from factors e^{s_j}, (n,): two running sums. Source: equation 18."""
    products, norms = causal_sums(factors[:, None], v)
    return products[:, 0], norms


def newest_bound(i: Array, bound: float) -> Array:
    """Largest weight of the newest of i + 1 tokens with logits in [-bound, bound]: 1 / (1 + i e^{-2 bound})."""
    return 1 / (1 + i * math.exp(-2 * bound))


# -- What a layer must keep per sequence while it decodes --------------------------------------------------------------

CACHE: dict[str, Callable[[int, int, int, int], int]] = {
    "standard": lambda B, L, d, h: 4 * B * L * d,
    "Non-approximate": lambda B, L, d, h: 2 * B * d + 4 * B * h,
    "Approximate": lambda B, L, d, h: 6 * B * d + 4 * B * d * d // h,
    "MLP": lambda B, L, d, h: 0,
    "RndEmbQK, FixedSeqQK": lambda B, L, d, h: 2 * (B + 1) * L * d,
}
"""Bytes of one layer's cache as Table 8 prints them: batch B, length L, width d, h heads; 2 bytes a number, 4 for sums
of exponentials."""


def cache_bytes(variant: str, batch: int, length: int, width: int, heads: int) -> int:
    """Bytes of one layer's cache, counted on the arrays that must be kept, at the paper's bytes a number.

    Recurrences keep their last state; the sum of the feature that is 1 is the number of tokens, and no array.
    """
    d = width // heads
    one, v = np.ones((1, d)), np.ones((1, d))
    if variant == "Non-approximate":
        products, norms = per_key_recurrence(np.ones(1), v)
        return batch * heads * (2 * int(products[-1].size) + 4 * int(norms[-1].size))
    if variant in ("Approximate", "elementwise squares"):
        products, norms = causal_sums(second_order(one) if variant == "Approximate" else elementwise_order(one), v)
        return batch * heads * 2 * (int(products[-1].size) + int(norms[-1].size) - 1)
    keys, values = {"standard": (batch, batch), "MLP": (0, 0), "RndEmbQK, FixedSeqQK": (1, batch)}[variant]
    return 2 * length * width * (keys + values)


# -- A model without token mixing --------------------------------------------------------------------------------------


def conditional_entropy(context: np.ndarray, token: np.ndarray) -> float:
    """Nats per token left when `context` (N,) is known, from the counts of these very pairs: a bound for any model.

    The mean of -ln p(token | context) over the pairs is least for the relative frequencies (Gibbs' inequality), so that
    no model that reads nothing but `context` has a lower loss on them.
    """
    _, pairs = np.unique(np.stack([context, token]), axis=1, return_counts=True)
    _, singles = np.unique(context, return_counts=True)
    return float((singles * np.log(singles)).sum() - (pairs * np.log(pairs)).sum()) / len(token)


def unbound_accuracy(pairs: int, values: int) -> Fraction:
    """Best accuracy from which values were given, but not to which keys: E[largest count] / pairs."""
    draws = product(range(values), repeat=pairs)
    return Fraction(sum(max(map(drawn.count, drawn)) for drawn in draws), pairs * values**pairs)


# -- Table 1, as far as the statements need it -------------------------------------------------------------------------

SIMPLE = ("MLP", "Approximate", "Non-approximate", "RndEmbQK", "FixedSeqQK", "StaticEmbQK")
"""The five replacements of standard attention and the MLP, in Table 1's order."""
NLU = {"standard": 51.9} | dict(zip(SIMPLE, (40.0, 50.2, 39.3, 48.0, 50.0, 49.4), strict=True))
"""Mean accuracy over seven tasks, %, of uniform models with 500 million parameters."""
PERPLEXITY = {"standard": 38.1} | dict(zip(SIMPLE, (993.5, 47.9, 9e4, 84.8, 79.1, 79.9), strict=True))
LAMBADA = {"standard": 22.9} | dict(zip(SIMPLE, (0.0, 18.5, 0.0, 1.3, 1.4, 3.3), strict=True))
NLU_HYBRID = dict(zip(SIMPLE, (48.7, 51.6, 52.9, 49.8, 52.6, 51.8), strict=True))
PERPLEXITY_HYBRID = dict(zip(SIMPLE, (45.8, 39.4, 39.4, 39.3, 38.5, 38.7), strict=True))
GUESS_NLU, GUESS_PERPLEXITY, LISTED_CHANCE = 39.9, 3e5, 39.29
"""The row of random guesses, and the mean of the seven chance rates that the table lists beside it."""
ROUNDING = 0.05
"""What rounding to one decimal can hide of a printed value."""
