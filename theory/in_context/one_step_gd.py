"""One layer of linear self-attention on prompts of linear regression: exact loss, its minimisers, and what bounds it.

A prompt has n examples v_i = (x_i, y_i), y_i = w.x_i + eps_i, with x_i, w ~ N(0, I_d) and eps_i ~ N(0, sigma^2).
One head without softmax, read out by h, predicts the response of the query x as

    h^T W_V G W_K^T W_Q (x, 0) = u^T G M x,    G = sum_i v_i v_i^T,  u = W_V^T h,  M = (W_K^T W_Q)[:, :d].

Source: Mahankali, Hashimoto, Ma, arXiv:2307.03576 (Theorems 1-3). The closed forms here are derived from moments, see
`theory.in_context.gaussian_moments`, and do not rest on the paper's proofs. Relative to the paper: our `noise` is the
variance sigma^2, our `step` their eta for the objective |X w - y|^2 / 2; halve it for |X w - y|^2, multiply by n for a
mean.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations_with_replacement
from numbers import Real
from typing import Any

import numpy as np

from theory.in_context.gaussian_moments import Moments


def check_sizes(n: Any, d: Any, noise: Any) -> None:
    """Raise ValueError unless n >= 1, d >= 1 and noise >= 0. Symbols pass."""
    for name, value, least in (("n", n, 1), ("d", d, 1), ("noise", noise, 0)):
        if isinstance(value, Real) and not float(value) >= least:  # written so that NaN is refused
            raise ValueError(f"{name} must be at least {least}, got {value}")


def step_size(n: Any, d: Any, noise: Any) -> Any:
    """The step eta = 1 / (n + d + 1 + sigma^2) of Theorems 1 and 2; float, Fraction or symbol, as its arguments.

    n  number of examples;  d  dimension;  noise  variance of the responses' noise.
    """
    check_sizes(n, d, noise)
    return 1 / (n + d + 1 + noise)


def optimal_loss(n: Any, d: Any, noise: Any) -> Any:
    """Least population loss of one layer, the noise of the query's response included (follows from Lemma 2)."""
    return noise + d * (d + 1 + noise) * step_size(n, d, noise)


def quartic_form(n: Any, d: Any, noise: Any) -> tuple[Any, Any, Any]:
    """(p, q, r) of the form p t^2 + 2 q t s + r s^2: what even features add to the loss.

    t = m_a.u_x weighs the trace of G_xx, s the entry G_yy; positive definite for n >= 1, as p > 0 and p r > q^2.
    """
    return n**2 + n, n**2 * (d + noise) + 2 * n, (n**2 + 2 * n) * (d * (d + 2) + 2 * d * noise + noise**2)


def excess_loss(u: np.ndarray, M: np.ndarray, n: Any, noise: Any, step: Any = None) -> Any:
    """Population loss minus `optimal_loss`, as the sum of squares E |M^T G u - step X^T y|^2 (Lemma 2), exactly.

    u     (d + 1,)    W_V^T h, any dtype (object for exact or symbolic entries)
    M     (d + 1, d)  first d columns of W_K^T W_Q
    step  the optimal step if None
    Raises ValueError for n < 1, noise < 0 or shapes that do not fit.
    """
    d = len(u) - 1
    if M.shape != (d + 1, d):
        raise ValueError(f"u of shape {u.shape} asks for M of shape {(d + 1, d)}, got {M.shape}")
    check_sizes(n, d, noise)
    eta = step_size(n, d, noise) if step is None else step
    u_x, u_y, m, r = u[:d], u[d], M[:d], M[d]
    direction = m * u_y + np.multiply.outer(u_x, r)  # (b, a): weight of (X^T y)_b x_a
    trace, label = u_x @ m, r * u_y  # (a,): weights of tr G_xx and of G_yy
    off = direction - np.eye(d, dtype=int) * eta
    p, q, s = quartic_form(n, d, noise)
    gradient_terms = n * (n + d + 1 + noise) * (off * off).sum() + n * (m * m).sum() * (u_x * u_x).sum()
    return gradient_terms + p * (trace * trace).sum() + 2 * q * (trace * label).sum() + s * (label * label).sum()


def isotropic_moments(n: Any, d: int, noise: Any) -> Moments:
    """The moments of a linear prompt with standard Gaussian covariates and weights, in any dimension d >= 1.

    dtype float64 for numbers, object for symbols. Each entry is a polynomial in d of degree at most 2.
    """
    check_sizes(n, d, noise)
    pairs = list(combinations_with_replacement(range(d + 1), 2))
    _, mixed, labels = quartic_form(n, d, noise)
    gram = np.zeros((len(pairs), len(pairs)), dtype=object)
    for i, (b, c) in enumerate(pairs):
        for j, (e, f) in enumerate(pairs):
            of_labels = (b, c, e, f).count(d)
            if of_labels == 0:
                gram[i, j] = n**2 * (b == c) * (e == f) + n * ((b == e) * (c == f) + (b == f) * (c == e))
            elif of_labels == 4:
                gram[i, j] = labels
            elif of_labels == 2 and c == f == d:
                gram[i, j] = (b == e) * n * (n + d + 1 + noise)
            elif of_labels == 2:
                gram[i, j] = (min(b, e) == min(c, f)) * mixed
    cross = gradient_step(np.eye(d, dtype=int)) * n
    dtype = float if isinstance(n, Real) and isinstance(noise, Real) else object
    return Moments(d + noise, np.eye(d, dtype=int), cross.astype(dtype), gram.astype(dtype))


def coefficients(u: np.ndarray, M: np.ndarray) -> np.ndarray:
    """(d, F) weights T of the features G_bc x_a in the prediction u^T G M x; entries of any dtype.

    u  (..., d + 1) and M  (..., d + 1, d): leading axes are heads, whose predictions add up.
    """
    products = np.multiply(u[..., None, None, :], M.mT[..., None])  # (..., a, b, c)
    total: np.ndarray = products.sum(axis=tuple(range(products.ndim - 3)))
    rows, columns = np.triu_indices(u.shape[-1])
    return total[:, rows, columns] + np.where(rows == columns, 0, total[:, columns, rows])


def gradient_step(preconditioner: np.ndarray) -> np.ndarray:
    """(d, F) weights T of the prediction x^T A X^T y: one step from zero, preconditioned by A of shape (d, d)."""
    d = len(preconditioner)
    weights = np.zeros((d, (d + 1) * (d + 2) // 2), dtype=preconditioner.dtype)
    rows, columns = np.triu_indices(d + 1)
    weights[:, (rows < d) & (columns == d)] = preconditioner
    return weights


def best_preconditioner(covariance: np.ndarray, weights: np.ndarray, n: int, noise: float) -> np.ndarray:
    """(d, d) matrix A of the best layer x^T A X^T y for x ~ N(0, Sigma), w ~ N(0, Lambda), both float64 (d, d).

    A = Lambda Sigma [(n + 1) Lambda Sigma + (tr Lambda Sigma + sigma^2) I]^-1 Sigma^-1: Theorem 2 is Lambda = Sigma^-1.
    """
    d = len(covariance)
    check_sizes(n, d, noise)
    product = weights @ covariance
    inner = (n + 1) * product + (np.trace(product) + noise) * np.eye(d)
    A: np.ndarray = product @ np.linalg.inv(inner) @ np.linalg.inv(covariance)
    return A


def best_relaxed(moments: Moments) -> np.ndarray:
    """(d, F) weights T of least loss among all: what any number of heads can reach. Float moments."""
    return np.linalg.solve(moments.query, np.linalg.solve(moments.gram, moments.cross.T).T)


def best_multiple(moments: Moments, weights: np.ndarray) -> float:
    """Least loss among the multiples of given weights T (d, F): the best step along a fixed preconditioner."""
    curvature = moments.loss(weights) - moments.target + 2 * (weights * moments.cross).sum()
    return float(moments.target - (weights * moments.cross).sum() ** 2 / curvature)


def best_heads(moments: Moments, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses after minimising over the parameters of all heads by L-BFGS, from each start.

    starts   (k, heads, d + 1, d + 1) float64: the last column of each head is u, the others are M
    returns  losses (k,) and the parameters reached, shaped as `starts`: local minima, not always global.
    """
    from scipy.optimize import minimize

    def flat(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = heads_loss(moments, parameters.reshape(starts[0].shape))
        return loss, slope.ravel()

    options = {"ftol": 1e-15, "gtol": 1e-10}
    found = [minimize(flat, start.ravel(), jac=True, method="L-BFGS-B", options=options) for start in starts]
    return np.array([one.fun for one in found]), np.array([one.x for one in found]).reshape(starts.shape)


def heads_loss(moments: Moments, heads: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and its gradient in the parameters of heads (heads, d + 1, d + 1): the last column is u, the others M."""
    _, size, _ = heads.shape
    u, M = heads[..., -1], heads[..., :-1]
    weights = coefficients(u, M)
    by_products = np.zeros((size - 1, size, size))
    rows, columns = np.triu_indices(size)
    by_products[:, rows, columns] = by_products[:, columns, rows] = -2 * moments.residual(weights)
    by_u, by_M = np.einsum("abc,hca->hb", by_products, M), np.einsum("abc,hc->hba", by_products, u)
    return moments.loss(weights), np.concatenate([by_M, by_u[..., None]], axis=-1)


def nonlinear_step(signal: Any, energy: Any, n: Any) -> Any:
    """The step of Theorem 3 for isotropic covariates (E x x^T = I) and a rotation-invariant family of responses.

    signal  E |w_f|^2 with w_f = E_x[f(x) x], the linear part of the response
    energy  E [|x|^2 y^2], noise included
    """
    return signal / (energy + (n - 1) * signal)


def ridge_weights(X: np.ndarray, y: np.ndarray, noise: float) -> np.ndarray:
    """Ridge solution (X^T X + sigma^2 I)^-1 X^T y: the posterior mean of w. X (..., n, d), y (..., n), float64."""
    w: np.ndarray = np.linalg.solve(X.mT @ X + noise * np.eye(X.shape[-1]), X.mT @ y[..., None])
    return w[..., 0]


def bayes_loss(X: np.ndarray, noise: float) -> np.ndarray:
    """Loss of the Bayes predictor given the covariates, sigma^2 + sigma^2 tr (X^T X + sigma^2 I)^-1. X (..., n, d).

    Without noise it needs covariates of rank d.
    """
    precision = X.mT @ X + noise * np.eye(X.shape[-1])
    loss: np.ndarray = noise + noise * np.trace(np.linalg.inv(precision), axis1=-2, axis2=-1)
    return loss


def step_loss(X: np.ndarray, noise: float, step: float) -> np.ndarray:
    """Loss of one gradient step given the covariates, sigma^2 + |I - step S|_F^2 + step^2 sigma^2 tr S, S = X^T X."""
    S = X.mT @ X
    left = np.eye(X.shape[-1]) - step * S
    loss: np.ndarray = noise + (left**2).sum(axis=(-2, -1)) + step**2 * noise * np.trace(S, axis1=-2, axis2=-1)
    return loss


def vanishing_parameters(d: int) -> dict[str, bool]:
    """Which of u_x and of the last row of M are zero at every point of zero excess, by membership in its ideal.

    `excess_loss` is zero exactly where u_y m + u_x r^T = step I, u_x m^T = 0 and u_y r = 0; scaling M sets step = 1.
    A Groebner basis decides which coordinates lie in the ideal of these equations. d <= 3 takes under a second.
    """
    from sympy import QQ, groebner
    from sympy.polys.rings import ring

    names = [*(f"u{b}" for b in range(d + 1)), *(f"m{b}_{a}" for b in range(d + 1) for a in range(d))]
    _, *generators = ring(names, QQ, "grevlex")
    u, entries = np.split(np.array(generators, object), [d + 1])
    M = entries.reshape(d + 1, d)
    equations = [*(M[:d] * u[d] + np.multiply.outer(u[:d], M[d]) - np.eye(d, dtype=int)).ravel()]
    equations += [*np.multiply.outer(u[:d], M[:d]).ravel(), *(M[d] * u[d])]
    basis = groebner([e.as_expr() for e in equations], *(g.as_expr() for g in generators), order="grevlex")
    return {str(g): basis.contains(g.as_expr()) for g in [*u[:d], *M[d]]}


def slice_excess(n: int, d: int, noise: Any, domain: Any = None) -> Any:
    """`excess_loss` on the slice u = (1, 0, ..., 0, u_y): a polynomial in the entries of M, row by row, and u_y.

    Rotations, and u -> c u with M -> M / c, leave the loss alone and carry every point with u_x != 0 to the slice.
    A strict local minimum there is a local minimum of the whole loss, strict up to these symmetries.

    noise   int or Fraction, for rational coefficients; or an element of `domain`
    domain  sympy domain of the coefficients, the rationals if None
    """
    from sympy import QQ
    from sympy.polys.rings import ring

    space, *generators = ring([*(f"m{b}_{a}" for b in range(d + 1) for a in range(d)), "u"], domain or QQ)
    u = np.array([space.one, *[space.zero] * (d - 1), generators[-1]], object)
    M = np.array(generators[:-1], object).reshape(d + 1, d)
    return excess_loss(u, M, n, noise if domain else QQ.convert(Fraction(noise)))


def along_one_direction(n: Any, d: int, noise: Any) -> np.ndarray:
    """(d (d + 1) + 1,) point of `slice_excess`, dtype object: one gradient step along the first axis alone.

    The roles of u and M are swapped: u reads the first covariate, M the response.
    """
    point = np.zeros(d * (d + 1) + 1, dtype=object)
    point[d * d] = step_size(n, d, noise)
    return point


def posterior_mean(values: np.ndarray, fits: np.ndarray, y: np.ndarray, noise: float) -> np.ndarray:
    """(batch, d): E[w_f | prompt] for finitely many equally likely responses and Gaussian noise.

    values  (k, d) w_f of each candidate;  fits  (batch, n, k) its responses;  y  (batch, n);  noise > 0
    """
    log_likelihood = -((y[..., None] - fits) ** 2).sum(axis=1) / (2 * noise)
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    mean: np.ndarray = (likelihood / likelihood.sum(axis=1, keepdims=True)) @ values
    return mean
