"""The first token's attention scaled by gamma: what it does to a row, in closed form, and how kernels can do it.

    A     (..., n, m)   attention weights, rows are queries and sum to 1; the first of the m keys is tuned
    a0    its weight in a row; p = gamma a0 / D its weight after tuning, with D = 1 + (gamma - 1) a0
    rest  entropy in nats of r_i = a_i / (1 - a0), what the other tokens have among themselves; no gamma changes it

gamma > 0. Closed forms of a0 and gamma alone are rational: floats, arrays, fractions, sympy symbols and flint balls run
the same lines. Source of `tuned`, `gap_change` and the method: Han et al., arXiv:2505.11739; the rest is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import normalised
from theory.operators.sigmoid_attention import Certificate, branch_and_bound, certainly_positive

Array = Any
"""An array of any library that follows the array-API standard."""
Real = Any
"""A number, an array, a sympy expression or a flint ball."""


# -- rows --------------------------------------------------------------------------------------------------------------


def tuned(A: Array, gamma: Any, token: int = 0) -> Array:
    """Weights with one token's scaled by gamma, each row again of sum 1.

    gamma is a number, or an array that broadcasts with A: (heads, 1, 1) gives each head its own.
    """
    xp = array_namespace(A)
    place = xp.arange(A.shape[-1], device=A.device) == token
    return normalised(xp.where(place, A * gamma, A))


def denominator(a0: Real, gamma: Real) -> Real:
    """D = 1 + (gamma - 1) a0, by which every row is divided."""
    return 1 + (gamma - 1) * a0


def mass(a0: Real, gamma: Real) -> Real:
    """p = gamma a0 / D: the first token's weight after tuning."""
    return gamma * a0 / denominator(a0, gamma)


def gap_change(first: Real, second: Real, a0: Real, gamma: Real) -> Real:
    """E_ij = |a_i - a_j| |gamma - 1| a0 / D: by how much tuning changes the gap between two other tokens."""
    return abs(first - second) * leverage(a0, gamma)


def leverage(a0: Real, gamma: Real) -> Real:
    """|gamma - 1| a0 / D: the change of a gap over the gap itself, increasing in a0."""
    return abs(gamma - 1) * a0 / denominator(a0, gamma)


def shift(a0: Real, gamma: Real) -> Real:
    """|p - a0| = (1 - a0) |gamma - 1| a0 / D: the total variation between the row and the tuned one.

    Also the change of a gap where r_i and r_j stay as they are: |r_i - r_j| times this. Largest at `best_sink`.
    """
    return (1 - a0) * leverage(a0, gamma)


def best_sink(root: Real) -> Real:
    """1 / (1 + sqrt(gamma)), given the root of gamma: the a0 at which `shift` is largest."""
    return 1 / (1 + root)


# -- entropy -----------------------------------------------------------------------------------------------------------


def row_entropy(p: Real, rest: Real, log: Callable[[Any], Any] = np.log) -> Real:
    """-p ln p - (1 - p) ln(1 - p) + (1 - p) rest: entropy of the whole row, 0 < p < 1."""
    return -p * log(p) - (1 - p) * log(1 - p) + (1 - p) * rest


def others_entropy(p: Real, rest: Real, log: Callable[[Any], Any] = np.log) -> Real:
    """(1 - p) (rest - ln(1 - p)) = -sum over the other tokens of a_i' ln a_i', not normalised, 0 < p < 1."""
    return (1 - p) * (rest - log(1 - p))


def fair_share(number: Real) -> Real:
    """1 / (1 + N), N = exp(rest) the effective number of other tokens: the p at which the row's entropy is largest."""
    return 1 / (1 + number)


def peak(a0: Real, number: Real) -> Real:
    """gamma* = (1 - a0) / (a0 N): the gamma that gives the first token its fair share; the entropy falls beyond it."""
    return (1 - a0) / (a0 * number)


def slope_of_four(lead: Real, t: Real, u: Real, exp: Callable[[Any], Any] = np.exp, log: Any = np.log) -> Real:
    """-a0 (ln a0 + H): derivative of a row's entropy H by its first logit, at four logits (s, 0, t, u).

    The first exceeds ln(1 + e^t + e^u) by `lead`, so that a0 = 1 / (1 + e^-lead). Written in the logits themselves,
    without `rest`.
    """
    total = 1 + exp(t) + exp(u)
    a0, surprise = 1 / (1 + exp(-lead)), log(1 + exp(-lead))  # -ln a0
    mean_others = surprise + lead + log(total) - (t * exp(t) + u * exp(u)) / total
    return a0 * (surprise - surprise * a0 - mean_others * (1 - a0))


def certify_entropy_falls(lead: tuple[float, float], spread: float, *, limit: int = 100_000) -> Certificate:
    """Prove `slope_of_four` negative for all leads from low to high and |t|, |u| <= spread."""

    def decide(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        exp, log = np.frompyfunc(lambda x: x.exp(), 1, 1), np.frompyfunc(lambda x: x.log(), 1, 1)
        ahead, t, u = place.T
        slope = slope_of_four(ahead, t, u, exp, log)
        return certainly_positive(-slope), certainly_positive(slope)

    return branch_and_bound([lead[0], -spread, -spread], [lead[1], spread, spread], decide, limit)


# -- what kernels can do -----------------------------------------------------------------------------------------------


def logit_bias(gamma: Any, keys: int, token: int = 0) -> np.ndarray:
    """(..., 1, keys) for gamma (...): ln gamma on the token's column, 0 elsewhere; to be added to the scores."""
    column = np.arange(keys) == token
    bias: np.ndarray = np.log(np.asarray(gamma, dtype=float))[..., None, None] * column
    return bias


def after_the_kernel(output: Array, log_sum: Array, score: Array, value: Array, gamma: Any) -> Array:
    """The tuned output from what a fused kernel returns: (o + (gamma - 1) a0 v_0) / D with a0 = exp(s_0 - log sum).

    output (..., n, d); log_sum (..., n), the logarithm of each row's sum of exponentials; score (..., n), that of the
    first key; value (..., d), the first key's. gamma is a number or broadcasts with score.
    """
    a0 = array_namespace(output).exp(score - log_sum)
    added = ((gamma - 1) * a0)[..., None] * value[..., None, :]
    return (output + added) / denominator(a0, gamma)[..., None]


def with_copies(x: Array, gamma: int) -> Array:
    """Keys or values (..., m, d) with the first gamma times in place of once: a tuned cache for integers gamma >= 1."""
    return array_namespace(x).concat([x[..., :1, :]] * (gamma - 1) + [x], axis=-2)


def with_coordinate(q: Array, k: Array, gamma: float, scale: float) -> tuple[Array, Array]:
    """Queries and keys one coordinate wider, whose scores at the old scale are tuned: (q, 1) and (k, ln gamma / scale).

    The new coordinate of all keys but the first is 0.
    """
    xp = array_namespace(q)
    first = xp.arange(k.shape[-2], device=k.device) == 0
    more = xp.where(first, xp.ones_like(k[..., 0]), xp.zeros_like(k[..., 0])) * (float(np.log(gamma)) / scale)
    return xp.concat([q, xp.ones_like(q[..., :1])], axis=-1), xp.concat([k, more[..., None]], axis=-1)
