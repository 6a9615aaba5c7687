"""Sigmoid attention as a map of its tokens: Jacobian, bounds on it, and certificates in interval arithmetic.

Tokens are the rows of X (n, d); s_ij = x_i^T A x_j are the logits (A holds W_q, W_k and 1 / sqrt(d_qk)), v_j = W x_j
the values, W (e, d); the operator maps X to P v with P_ij = sigma(s_ij + b), b = -ln n unless given. Written once for
numpy and torch, whose leading axes are batches, and for object arrays of `flint.arb`.

Source: Ramapuram et al., arXiv:2409.04431, section 3.2 (Theorem 3.2 is `jacobian_bound`); the closed forms, the bound
on softmax and the certificates are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from theory.operators.attention import logistic, sigmoid, softmax, transpose

Array = Any
"""An array of any library that follows the array-API standard, or an object array of `flint.arb`."""


# -- Jacobians ---------------------------------------------------------------------------------------------------------


def assemble(P: Array, response: Array, X: Array, A: Array, W: Array) -> Array:
    """(..., n e, n d) Jacobian of P v by the chain rule.

    P         (..., n, n)     weights
    response  (..., n, n, e)  derivative of output i by the logit s_ik
    """
    xp, (n, d), e = array_namespace(X), X.shape[-2:], W.shape[-2]
    by_logit = xp.matrix_transpose(response)  # (..., i, e, k)
    direct = P[..., :, None, :, None] * W[..., None, :, None, :]
    by_key = by_logit[..., None] * (X @ A)[..., :, None, None, :]
    by_query = (by_logit @ (X @ transpose(A))[..., None, :, :])[..., :, :, None, :]
    same = xp.eye(n, dtype=X.dtype)[:, None, :, None]
    return xp.reshape(direct + by_key + same * by_query, (*P.shape[:-2], n * e, n * d))


def sigmoid_jacobian(X: Array, A: Array, W: Array, offset: Any = None) -> Array:
    """Jacobian (..., n e, n d) of sigmoid attention: P_ij W + D_ij v_j (A^T x_i)^T + [i=j] sum_k D_ik v_k (A x_k)^T.

    D = P (1 - P) elementwise. X (..., n, d), A (d, d), W (e, d); all of one dtype.
    """
    P = sigmoid(X @ A, X, offset=offset, scale=1)
    values = X @ transpose(W)
    return assemble(P, (P * (1 - P))[..., None] * values[..., None, :, :], X, A, W)


def softmax_jacobian(X: Array, A: Array, W: Array) -> Array:
    """Jacobian (..., n e, n d) of softmax attention: as above with P_ij (v_j - o_i) in place of D_ij v_j."""
    P = softmax(X @ A, X, scale=1)
    return assemble(P, centred(P, X @ transpose(W)), X, A, W)


def centred(P: Array, values: Array) -> Array:
    """(..., n, n, e): P_ij (v_j - o_i), the derivative of softmax attention's output i by the logit s_ij."""
    return P[..., None] * (values[..., None, :, :] - (P @ values)[..., :, None, :])


def largest_stretch(J: Array) -> Array:
    """(...) spectral norm of each matrix: the local Lipschitz constant."""
    return array_namespace(J).linalg.svdvals(J)[..., 0]


# -- bounds ------------------------------------------------------------------------------------------------------------


def jacobian_bound(X: Array, A: Array, W: Array, offset: Any = None) -> Array:
    """(...) Theorem 3.2: |W| (n max sigma + 2 n max sigma' |A| mean_i |x_i|^2), spectral norms.

    It holds since the three terms of the Jacobian have at most the norms |W| n max P, and twice |W| |A| max D sum |x|^2
    (Cauchy-Schwarz for each row).
    """
    P = sigmoid(X @ A, X, offset=offset, scale=1)
    return bound_from(P, mean_square(X), largest_stretch(A), largest_stretch(W))


def bound_from(P: Array, square: Array, norm_A: Any, norm_W: Any, factor: float = 2.0) -> Array:
    """|W| (n max P + factor n max P (1 - P) |A| square); `factor` is 2 in the theorem."""
    xp, n = array_namespace(P), P.shape[-1]
    peak, slope = (n * xp.max(xp.max(x, axis=-1), axis=-1) for x in (P, P * (1 - P)))
    return norm_W * (peak + factor * slope * norm_A * square)


def mean_square(X: Array) -> Array:
    """(...) mean squared length of the tokens."""
    xp = array_namespace(X)
    return xp.mean(xp.sum(X * X, axis=-1), axis=-1)


def bounded_logits_bound(mu: Any, square: Any, norm_A: Any = 1.0, norm_W: Any = 1.0) -> Any:
    """|W| e^mu (1 + 2 |A| mean |x|^2): bounds the Jacobian for every n where all logits are <= mu and b = -ln n."""
    return norm_W * math.exp(mu) * (1 + 2 * norm_A * square)


def softmax_ball_bound(n: int, radius: float) -> float:
    """sqrt(n) (1 + R^2) + R^2 >= the norm of softmax attention's Jacobian for A = W = I and |x_i| <= R, any d.

    The block row i of the first two terms maps h to sum_j P_ij (h_j + (x_j - o_i) x_i.h_j); row sums of P are 1 and
    column sums at most n, so by Cauchy-Schwarz with weights P_ij they are at most sqrt(n) and sqrt(n) R^2. The third is
    block diagonal; its blocks are covariances of points in the ball, at most R^2.
    """
    return math.sqrt(n) * (1 + radius**2) + radius**2


def identical_tokens_norm(n: Any, s: Any, sigma: Callable[[Any], Any], log: Callable[[Any], Any]) -> Any:
    """Norm of sigmoid attention's Jacobian at n equal tokens of squared length s, A = W = I, b = -ln n.

    n sigma (1 + 2 s (1 - sigma)) with sigma = sigma(s - ln n): `jacobian_bound` with equality. As n grows it tends to
    e^s (1 + 2 s); at s = ln n it is n (1 + ln n) / 2. Softmax attention has norm 1 there.
    """
    peak = sigma(s - log(n))
    return n * peak * (1 + 2 * s * (1 - peak))


def one_large_token(n: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 2) and A = diag(1, -1): one token on the hyperbola p^2 - q^2 = ln n with p^2 + q^2 = R^2, the rest 0.

    There the slope of its own logit is the largest, 1/4: the norm is close to the bound, and uses the mean of |x|^2.
    """
    p = math.sqrt((radius**2 + math.log(n)) / 2)
    X = np.zeros((n, 2))
    X[0] = p, math.sqrt(radius**2 - p**2)
    return X, np.diag([1.0, -1.0])


def crowd(n: int, radius: float, small: float) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 2) and A = diag(-1, 0), n >= 3: no logit exceeds 0, few tokens are large, softmax looks at those alone.

    Tokens (R, 0), (0, R), (0, -R) and n - 3 times (small, 0). The first query gives the last n - 3 the logit
    -R small; half of its weight lies on each of the other two, and moving their keys moves it R^2 / 2 times as far.
    """
    X = np.zeros((n, 2))
    X[:3] = (radius, 0), (0, radius), (0, -radius)
    X[3:, 0] = small
    return X, np.diag([-1.0, 0.0])


# -- certificates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """Outcome of a search over boxes: all proved, or a box on which the statement is proved false, or neither."""

    boxes: int
    proved: bool
    counterexample: tuple[float, ...] | None = None


def branch_and_bound(
    low: list[float], high: list[float], decide: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], limit: int
) -> Certificate:
    """Cover the box [low, high] by boxes, halved along their longest side, until each is decided.

    decide  object array (boxes, k) of `flint.arb` -> bool arrays (boxes,): statement proved there, refuted there
    limit   give up (neither proved nor refuted) beyond so many boxes

    Raises:
        ValueError: the ends of a side are in the wrong order.
    """
    from flint import arb

    ends = np.array([low, high], dtype=float)
    if not (ends[0] < ends[1]).all():
        raise ValueError(f"not a box: {low} to {high}")
    middle, reach, seen = ends.mean(axis=0)[None], (ends[1] - ends[0])[None] / 2, 0
    ball = np.frompyfunc(arb, 2, 1)
    while len(middle):
        seen += len(middle)
        if seen > limit:
            return Certificate(seen, proved=False)
        # One part in 10^12 wider: rounding of the middles leaves no gap.
        proved, refuted = decide(ball(middle, reach * (1 + 1e-12) + 1e-300))
        if refuted.any():
            return Certificate(seen, False, tuple(middle[np.argmax(refuted)].tolist()))
        middle, reach = middle[~proved], reach[~proved]
        side = np.eye(len(low))[np.argmax(reach, axis=1)]
        step = side * reach / 2
        middle, reach = np.concatenate([middle - step, middle + step]), np.tile(reach - step, (2, 1))
    return Certificate(seen, proved=True)


def certainly_positive(x: np.ndarray) -> np.ndarray:
    """Bool array: the ball lies above zero."""
    result: np.ndarray = np.frompyfunc(lambda ball: bool(ball > 0), 1, 1)(x).astype(bool)
    return result


def norm_below(J: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For balls J (boxes, m, m) and limit (boxes,): |J| < limit proved, and |J| > limit proved, bool (boxes,).

    By the pivots of limit^2 I - J^T J: all positive, or the first ones positive and the next negative.
    """
    size = J.shape[-1]
    M = (limit * limit)[:, None, None] * np.eye(size, dtype=int) - np.matrix_transpose(J) @ J
    proved, refuted = np.ones(len(J), bool), np.zeros(len(J), bool)
    for i in range(size):
        pivot = M[:, i, i]
        refuted |= proved & certainly_positive(-pivot)
        proved &= certainly_positive(pivot)
        safe = np.where(proved, pivot, 1)[:, None, None]
        M = M - M[:, :, i, None] * M[:, None, i, :] / safe
    return proved, refuted


def largest_ball(entries: np.ndarray) -> np.ndarray:
    """(boxes,) enclosure of the largest of balls (boxes, ...)."""
    flat = entries.reshape(len(entries), -1)
    biggest: np.ndarray = reduce(np.frompyfunc(lambda x, y: x.max(y), 2, 1), list(flat.T))
    return biggest


def certify_bound(
    reach: float, sign: int, slack: float, *, factor: float = 2.0, n: int = 2, limit: int = 200_000
) -> Certificate:
    """Prove |J| < (1 + slack) times Theorem 3.2 for d = 1 and b = -ln n, all tokens with |a| x^2 <= reach^2.

    Only the sign of a = A matters: with y = sqrt(|a|) x both sides depend on y alone. One sign of the first token is
    enough, as X -> -X changes nothing. `factor` replaces the theorem's 2.
    """
    from flint import arb

    def decide(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X, A, W = tokens[..., None], np.array([[arb(sign)]]), np.array([[arb(1)]])
        offset: Any = -arb(n).log()
        P = sigmoid(X @ A, X, offset=offset, scale=1)
        square = (X * X).sum(axis=(-2, -1)) / n
        at_most = n * (largest_ball(P) + factor * largest_ball(P * (1 - P)) * square)
        return norm_below(sigmoid_jacobian(X, A, W, offset), at_most * (1 + arb(slack)))

    return branch_and_bound([0.0] + [-reach] * (n - 1), [reach] * n, decide, limit)


def certify_softmax_pair(square: Any, limit: Any, *, boxes: int = 200_000) -> Certificate:
    """Prove that softmax attention on two tokens with |x|^2 <= square, A = W = I, any d, has norm below `limit`.

    A rotation brings the tokens to (a, 0) and (b, c). The Jacobian then splits: across their plane it is P, whose norm
    is at most sqrt(2) (see `softmax_ball_bound`); within the plane it is bounded here, for all a, b, c.
    `square` and `limit` are numbers or balls.

    Raises:
        ValueError: limit <= sqrt(2).
    """
    from flint import arb

    square, limit = arb(square), arb(limit)
    if not limit > arb(2).sqrt():
        raise ValueError(f"the limit must exceed sqrt(2), the bound across the plane of the tokens: {limit}")
    radius = math.nextafter(float(square.sqrt().upper()), math.inf)

    def decide(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, c = place.T
        X = np.stack([np.stack([a, 0 * a], -1), np.stack([b, c], -1)], -2)
        unit = np.array([[arb(1), arb(0)], [arb(0), arb(1)]])
        logits = X @ np.matrix_transpose(X)
        first = logistic(logits[..., 0] - logits[..., 1])  # softmax of two scores
        P = np.stack([first, 1 - first], -1)
        share = (first * (1 - first))[..., None] * (X[:, None, 0] - X[:, None, 1])  # (boxes, i, d)
        J = assemble(P, np.stack([share, -share], -2), X, unit, unit)
        proved, refuted = norm_below(J, np.full(len(J), limit))
        outside = certainly_positive(b * b + c * c - square)
        inside = certainly_positive(square - a * a) & certainly_positive(square - b * b - c * c)
        return proved | outside, refuted & inside

    return branch_and_bound([0.0, -radius, 0.0], [radius, radius, radius], decide, boxes)
