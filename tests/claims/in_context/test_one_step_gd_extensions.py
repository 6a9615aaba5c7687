"""Beyond the theorems on one step of gradient descent (Mahankali, Hashimoto, Ma, 2023): landscape, bound, symmetry.

What the paper says. Global minimisers of one layer of linear self-attention take one gradient step. It does not say
whether descent finds them, how far they are from the Bayes predictor, whether both symmetries of Theorem 3 are needed,
or whether the step is short enough to be repeated (a reviewer asked). This file does.

Notation. As in test_one_step_gd.py. Scope. Population loss.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.in_context.gaussian_moments import (
    is_positive,
    linear_response,
    prompt_moments,
    quadratic_response,
    rational_functions,
)
from theory.in_context.local_minima import certify_minimum, exact_derivatives, refine
from theory.in_context.one_step_gd import (
    along_one_direction,
    bayes_loss,
    gradient_step,
    nonlinear_step,
    slice_excess,
    step_loss,
    step_size,
)

PAPER = "mahankali2023onestep"
EPS = np.finfo(float).eps
LEAST = np.nextafter(0, 1)  # `at_least=LEAST` says: positive

seeds = st.integers(0, 2**32 - 1)


# -- What training may find -------------------------------------------------------------------------------------------

local_minima = Claim(
    paper=PAPER,
    slug="every-local-minimum-is-global",
    where="Abstract (our stronger reading: optimal is what descent finds)",
    says="Every local minimum of the population loss of one linear attention layer is global.",
    formula=r"\nabla L = 0,\ \nabla^2 L \succeq 0 \ \Longrightarrow\ L = L^\star",
    gap="Existence at these sizes; which sizes have none, and how often training ends there, is not settled.",
)


@local_minima.refutation(
    "proof", scope="n = 1, d = 2", controls={"three dimensions": {"d": 3}, "four examples": {"n": 4}}
)
def test_a_step_along_one_direction_is_a_strict_local_minimum(evidence, *, n=1, d=2):
    """One example in the plane, every sigma^2: u = e_1, M = eta e_y e_1^T, whose excess loss is n (d - 1) eta.

    In the field of rational functions of sigma^2, on a slice across scalings and rotations: the gradient is zero and
    each leading minor of the Hessian is positive. The controls are the same point where it is a saddle.
    """
    from sympy import QQ
    from sympy.polys.fields import field

    K, noise = field("s2", QQ)
    excess = slice_excess(n, d, noise, K.to_domain())
    value, gradient, minors = exact_derivatives(excess, along_one_direction(n, d, noise))
    evidence.expect("slopes that are not zero", np.count_nonzero(gradient), equals=0, error=0)
    positive = [is_positive(minor.numer, (0,)) and is_positive(minor.denom, (0,)) for minor in map(K, minors)]
    evidence.expect("leading minors not seen to be positive", positive.count(False), equals=0, error=0)
    evidence.true("the excess loss is n (d - 1) eta", value == n * (d - 1) * step_size(n, d, noise))
    evidence.counterexample("A step along one direction", n=n, d=d, noise="any", u="(1, 0, 0)", excess=value)


# n, d, sigma^2, then to four digits M[0, 0], the other M[a, a], M[d, 0] and u_y; every other entry of M is zero.
SPURIOUS = [
    (2, 2, Fraction(0), -0.0316, 0.1087, 0.1916, 0.1160),
    (4, 2, Fraction(1, 2), -0.0403, 0.1548, 0.1157, 0.2024),
    (20, 2, Fraction(1, 2), -0.0179, 0.1017, 0.0360, 0.2439),
    (30, 3, Fraction(1, 10), 0.0117, -0.0736, 0.0183, -0.3011),
    (60, 4, Fraction(1, 10), -0.0072, 0.0452, 0.0086, 0.2862),
]


def tabulated(n, d, noise, *entries):
    """Point of the slice with the four entries of `SPURIOUS`."""
    along, across, label, u_y = entries
    M = np.vstack([np.diag([along] + [across] * (d - 1)), [label] + [0.0] * (d - 1)])
    return np.append(M.ravel(), u_y)


@local_minima.refutation(
    "certified",
    scope="five sizes",
    controls={
        "the tabulated digits, not refined": {"locate": lambda excess, point: point},
        "the step along one direction, a saddle there": {
            "start": lambda n, d, noise, *entries: along_one_direction(n, d, float(noise)).astype(float)
        },
    },
)
def test_ball_arithmetic_certifies_strict_local_minima(evidence, *, locate=refine, start=tabulated):
    """Krawczyk's operator maps a box of radius 1e-9 into itself: it holds one critical point; the Hessian is positive
    definite on all of it, by LDL^T; the excess loss there is positive."""
    for n, d, noise, *entries in SPURIOUS:
        excess = slice_excess(n, d, noise)
        certificate = certify_minimum(excess, locate(excess, start(n, d, noise, *entries)), radius=1e-9)
        evidence.expect("Krawczyk's image, in radii of the box", certificate.contraction, less_than=1)
        evidence.expect("smallest pivot of the Hessian", certificate.pivot, at_least=LEAST)
        evidence.expect("excess loss", certificate.value[0], at_least=LEAST, interval=certificate.value)
        evidence.counterexample("Strict local minimum", n=n, d=d, noise=noise, excess=certificate.value)


bound = Claim(
    paper=PAPER,
    slug="ridge-bounds-the-layer",
    where="Abstract, Section 2 (our quantification)",
    says="Whatever the covariates, no gradient step of any size has less loss than ridge regression with sigma^2; "
    "they tie where the covariates are orthogonal and of equal length.",
    formula=r"L_X(\eta) \ge \sigma^2 + \sigma^2 \operatorname{tr}(X^\top X + \sigma^2 I)^{-1}",
    gap="Drawn covariates; the general fact is that the conditional mean minimises squared loss.",
)


@bound.check(
    "property",
    controls={
        "bound of ordinary least squares": {"bayes": lambda X, noise: noise + noise * np.trace(np.linalg.pinv(X.T @ X))}
    },
)
@given(n=st.integers(1, 20), d=st.integers(1, 6), noise=st.floats(0.05, 5), factor=st.floats(0, 4), seed=seeds)
def test_no_step_of_any_size_beats_ridge_on_any_covariates(evidence, n, d, noise, factor, seed, *, bayes=bayes_loss):
    """Both losses in closed form given X; steps from zero to four times the optimal one."""
    X = np.random.default_rng(seed).standard_normal((n, d))
    step = factor * step_size(n, d, noise)
    loss = step_loss(X, noise, step)
    budget = 16 * (n + d) * EPS * (loss + d) * np.linalg.cond(X.T @ X + noise * np.eye(d))
    evidence.expect("loss of the step above that of ridge", loss - bayes(X, noise), at_least=-budget)


@bound.check(
    "exact",
    scope="equality",
    controls={"the optimal average step": {"step": lambda n, d, size, noise: step_size(n, d, noise)}},
)
def test_orthogonal_covariates_of_equal_length_attain_the_bound(
    evidence, *, step=lambda n, d, size, noise: 1 / (size + noise)
):
    """X = sqrt(s) I: ridge divides by s + sigma^2, and so does a step of that inverse."""
    for d, size, noise in [(1, 1.0, 0.5), (2, 4.0, 1.0), (5, 0.25, 2.0)]:
        X = math.sqrt(size) * np.eye(d)
        gap = step_loss(X, noise, step(d, d, size, noise)) - bayes_loss(X, noise)
        evidence.expect("loss of the step above that of ridge", gap, equals=0, error=16 * d * EPS * (noise + d))


sign_symmetry = Claim(
    paper=PAPER,
    slug="sign-symmetry-is-redundant",
    where="Assumption 1 (our extension)",
    says="Theorem 3 does not need f and -f to have the same law: a rotation-invariant family without that symmetry has "
    "the same optimum, for the reflection x -> -x is among the rotations.",
    formula=r"f \sim f \circ R \ \ (R \in O(d)) \ \Longrightarrow\ A = \eta I",
    gap="One family shows it; the reason, that odd tensors vanish under -I, is general but not machine-checked.",
)


@sign_symmetry.check(
    "proof",
    scope="w.x + c (w.x)^2, d = 2",
    controls={"a sign-symmetric family": {"response": linear_response}, "weights with a mean": {"mean": (1, 0)}},
)
def test_a_family_without_sign_symmetry_has_the_same_optimum(evidence, *, response=quadratic_response, mean=None):
    """E f(x) is not zero, so that f and -f differ in law, and yet a plain step solves the normal equations."""
    K, n, noise, c = rational_functions()
    exact = prompt_moments(2, response, mean=mean).map(K)
    eta = nonlinear_step(2, 8 * (1 + 18 * c**2) + 2 * noise, n)
    nodes, mass = np.polynomial.hermite_e.hermegauss(3)
    mean_response = sum(m * response((1, 0), (w, 0), 1) for w, m in zip(nodes, mass, strict=True)) / mass.sum()
    evidence.expect("E f(x) at x = (1, 0), c = 1", mean_response, equals=1, error=16 * EPS)
    residual = exact.residual(gradient_step(np.eye(2, dtype=int) * eta))
    evidence.expect("normal equations violated", np.count_nonzero(residual), equals=0, error=0)


# -- How long is the step? --------------------------------------------------------------------------------------------

stability = Claim(
    paper=PAPER,
    slug="the-step-is-stable-on-average",
    where="Theorem 1 (our extension)",
    says="On average the optimal step is shorter than 2 / lambda_max, beyond which repeated steps would diverge; "
    "it comes as close as one likes when n = d grows.",
    formula=r"\eta \, \mathbb{E}\, \lambda_{\max}(X^\top X)"
    r" \le \frac{(\sqrt n + \sqrt d)^2 + 1}{n + d + 1 + \sigma^2} \le 2",
    gap="The middle bound (Davidson and Szarek, and a variance of at most 1) is cited; single prompts may exceed 2.",
)


@stability.check(
    "statistical", scope="three sizes", controls={"textbook step 1/n": {"step": lambda n, d, noise: 1 / n}}
)
def test_the_mean_of_the_largest_eigenvalue_times_the_step_is_below_two(evidence, rng, *, step=step_size):
    """4000 prompts for each size, a one-sided t interval against the closed bound, which is at most 2."""
    for n, d, noise in [(10, 4, 0.25), (20, 20, 1.0), (4, 16, 0.0)]:
        largest = np.linalg.norm(rng(n, d).standard_normal((4000, n, d)), 2, axis=(1, 2)) ** 2
        limit = ((math.sqrt(n) + math.sqrt(d)) ** 2 + 1) / (n + d + 1 + noise)
        evidence.mean_at_most(
            f"step times largest eigenvalue, n = {n}, d = {d}", step(n, d, noise) * largest, limit, alpha=1e-4
        )


@stability.check("property", scope="the closed bound", controls={"a step longer by half": {"factor": 1.5}})
@given(n=st.integers(1, 10**6), d=st.integers(1, 10**6), noise=st.floats(0, 100))
def test_the_bound_never_exceeds_two(evidence, n, d, noise, *, factor=1.0):
    """2 sqrt(n d) <= n + d; the supremum 2 is approached at n = d without noise, and not attained."""
    limit = factor * ((math.sqrt(n) + math.sqrt(d)) ** 2 + 1) * step_size(n, d, noise)
    evidence.expect("bound on step times largest eigenvalue", limit, less_than=2)
