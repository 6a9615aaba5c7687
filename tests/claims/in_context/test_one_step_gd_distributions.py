"""What the distribution of the data does to the best layer of linear self-attention (Mahankali, Hashimoto, Ma, 2023).

What the paper says. For covariates of covariance Sigma and weights of covariance Sigma^-1 the best layer takes one step
of gradient descent preconditioned by Sigma^-1 (Theorem 2): changing the covariates has a strong effect. For responses
from a rotation-invariant, sign-symmetric random family, such as Gaussian networks, it still takes a plain step on
*linear* least squares (Theorem 3): changing only the responses has no large effect.

Notation. As in test_one_step_gd.py. w_f = E_x[f(x) x] is the linear part of a response f; x = A xi and w = B omega with
standard Gaussian xi and omega, Sigma = A A^T.

Scope. Population loss. That the sign symmetry is not needed is in test_one_step_gd_extensions.py; what fails without
rotation invariance is in test_one_step_gd_readings.py.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.in_context.gaussian_moments import (
    cubic_response,
    linear_response,
    prompt_moments,
    quadratic_response,
    rational_functions,
    square_response,
)
from theory.in_context.one_step_gd import (
    best_multiple,
    best_relaxed,
    gradient_step,
    nonlinear_step,
    optimal_loss,
    posterior_mean,
    step_size,
)

PAPER = "mahankali2023onestep"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)

# -- Theorem 2 --------------------------------------------------------------------------------------------------------

preconditioned = Claim(
    paper=PAPER,
    slug="preconditioned-optimum",
    where="Theorem 2",
    says="For x ~ N(0, Sigma) and w ~ N(0, Sigma^-1) each global minimiser takes one step preconditioned by Sigma^-1.",
    formula=r"u^\top G_D M x = \eta \sum_{i=1}^n y_i \, (\Sigma^{-1} x_i)^\top x",
    gap="Symbolic in n and sigma^2 at five rational covariances; whitening, checked to rounding, gives the rest.",
)


# Cholesky factors A of covariances Sigma = A A^T.
FACTORS = [((1,),), ((2,),), ((2, 0), (0, 1)), ((1, 0), (-1, 3)), ((1, 0, 0), (2, 1, 0), (-1, 1, 2))]


def inverse(matrix):
    """Exact inverse of a square matrix, dtype object."""
    from sympy import QQ
    from sympy.polys.matrices import DomainMatrix

    rows = [[QQ(int(x)) for x in row] for row in matrix]
    return np.array(DomainMatrix(rows, (len(rows), len(rows)), QQ).inv().to_list(), object)


def inverse_covariance(mixing):
    """Sigma^-1 = A^-T A^-1."""
    return inverse(mixing).T @ inverse(mixing)


def dual_mixing(mixing):
    """B = A^-T, so that w = B omega has covariance Sigma^-1."""
    return tuple(map(tuple, inverse(mixing).T))


@preconditioned.check(
    "exact",
    controls={
        "step that ignores the noise": {"step": lambda n, d, noise: 1 / (n + d + 1)},
        "weights w ~ N(0, I)": {"weights": lambda mixing: None},
        "plain gradient descent": {"preconditioner": lambda mixing: np.eye(len(mixing), dtype=int)},
    },
)
def test_the_preconditioned_step_solves_the_normal_equations(
    evidence, *, step=step_size, weights=dual_mixing, preconditioner=inverse_covariance
):
    """At five rational covariances, n and sigma^2 symbolic; the least loss is that of Theorem 1, at the same step."""
    K, n, noise, _ = rational_functions()
    for mixing in FACTORS:
        d = len(mixing)
        exact = prompt_moments(d, mixing=mixing, weights=weights(mixing)).map(K)
        best = gradient_step(preconditioner(mixing) * step(n, d, noise))
        evidence.expect("normal equations violated", np.count_nonzero(exact.residual(best)), equals=0, error=0)
        difference = exact.loss(best) - optimal_loss(n, d, noise)
        evidence.expect("loss minus that of Theorem 1", np.count_nonzero(difference), equals=0, error=0)


@preconditioned.check("property", controls={"weights left as they are": {"dual": lambda A: np.eye(len(A))}})
@given(d=st.integers(1, 6), n=st.integers(1, 20), seed=seeds)
def test_whitening_turns_every_layer_into_one_on_standard_prompts(
    evidence, d, n, seed, *, dual=lambda A: np.linalg.inv(A).T
):
    """x = A xi, w = A^-T omega: the layer (u, M) predicts and errs as (B^T u, B^T M A) does at xi, B = diag(A, 1)."""
    draw = np.random.default_rng(seed)
    A = np.linalg.qr(draw.standard_normal((d, d)))[0] * draw.uniform(0.5, 2, d)
    xi, omega = draw.standard_normal((n + 1, d)), draw.standard_normal(d)
    noise, u, M = draw.standard_normal(n), draw.standard_normal(d + 1), draw.standard_normal((d + 1, d))
    B = np.eye(d + 1)
    B[:d, :d] = A

    def error(x, w, u, M):
        v = np.column_stack([x[:-1], x[:-1] @ w + noise])
        return w @ x[-1] - u @ (v.T @ v) @ M @ x[-1], np.abs(u) @ (np.abs(v).T @ np.abs(v)) @ np.abs(M) @ np.abs(x[-1])

    ours, scale = error(xi @ A.T, dual(A) @ omega, u, M)
    whitened, _ = error(xi, omega, B.T @ u, B.T @ M @ A)
    budget = 64 * (n + d) * EPS * (1 + scale) * np.linalg.cond(A) ** 2
    evidence.expect("difference of the errors", ours - whitened, equals=0, error=budget)


covariates = Claim(
    paper=PAPER,
    slug="covariates-change-the-algorithm",
    where="Abstract",
    says="The covariance of covariates and weights has a strong effect on what is learned: a preconditioner appears, "
    "and no multiple of the plain step stays within any constant factor of the optimum.",
    formula=r"\frac{\min_t L(t I)}{L^\star} \to \infty \quad (n \to \infty,\ \sigma = 0,\ \Sigma \not\propto I)",
    gap="Strong is our quantification; covariances diag(1, s) are taken as examples.",
)


@covariates.check("exact", controls={"covariance a multiple of I": {"spectrum": (3.0, 3.0)}})
def test_the_loss_of_plain_steps_exceeds_the_optimum_by_any_factor(evidence, *, spectrum=(1.0, 3.0)):
    """Best multiple of x^T X^T y against the optimum, from the second moments of X^T y in closed form, at sigma^2 = 0.

    As n grows the ratio passes n times (1 - (tr S)^2 / (d tr S^2)) / (d + 1), the limit of plain steps over that of L*.
    """
    covariance = np.diag(spectrum)
    d = len(spectrum)
    limit = 1 - np.trace(covariance) ** 2 / (d * np.trace(covariance @ covariance))
    for n in (10, 100, 1000):
        cross = n * np.eye(d)  # E[w (X^T y)^T] = n Lambda Sigma, Lambda = Sigma^-1
        second = n * (n + 1 + d) * covariance  # E[X^T y y^T X] at sigma^2 = 0
        plain = d - np.trace(cross @ covariance) ** 2 / np.trace(covariance @ second)
        ratio = plain / optimal_loss(n, d, 0)
        evidence.expect(
            f"loss of the best plain step over the optimum, n = {n}", ratio, at_least=max(1.1, n * limit / (d + 1))
        )


# -- Theorem 3 --------------------------------------------------------------------------------------------------------

nonlinear = Claim(
    paper=PAPER,
    slug="nonlinear-optimum",
    where="Theorem 3",
    says="For standard Gaussian covariates and responses from a random family that is invariant under rotations and "
    "under f -> -f the global minimisers still take one plain gradient step on linear least squares.",
    formula=r"u^\top G_D M x = \eta \sum_{i=1}^n y_i \, x_i^\top x",
    gap="Three polynomial families in d = 2, 3 symbolically, three others by test; two of the six are not "
    "sign-symmetric, which turns out not to matter. Not every family.",
)

# response, signal E|w_f|^2 and energy E|x|^2 f(x)^2, for w ~ N(0, I): moments of |x| and |w|, derived by hand.
POLYNOMIALS = {
    "w.x": (linear_response, lambda d, c: d, lambda d, c: d * (d + 2)),
    "w.x + c (w.x)^2": (quadratic_response, lambda d, c: d, lambda d, c: d * (d + 2) * (1 + 3 * (d + 4) * c**2)),
    "w.x + c (w.x)^3": (
        cubic_response,
        lambda d, c: d * (1 + 6 * c * (d + 2) + 9 * c**2 * (d + 2) * (d + 4)),
        lambda d, c: d * (d + 2) * (1 + 6 * c * (d + 4) + 15 * c**2 * (d + 4) * (d + 6)),
    ),
}


@nonlinear.check(
    "proof",
    scope="polynomial families, d = 2, 3",
    controls={
        "a signal without the cubic's part": {"step": lambda signal, energy, n: nonlinear_step(2, energy, n)},
        "a step that leaves out n - 1": {"step": lambda signal, energy, n: signal / (energy + n * signal)},
        "weights of unequal variance": {"weights": ((2, 0), (0, 1))},
        "weights with a mean": {"mean": (1, 0)},
    },
)
def test_the_step_solves_the_normal_equations_for_polynomial_responses(
    evidence, *, step=nonlinear_step, weights=None, mean=None
):
    """n, sigma^2 and the coefficient c are symbols: three families in d = 2, the quadratic one also in d = 3."""
    K, n, noise, c = rational_functions()
    for d, family in [(2, "w.x"), (2, "w.x + c (w.x)^2"), (2, "w.x + c (w.x)^3"), (3, "w.x + c (w.x)^2")]:
        response, signal, energy = POLYNOMIALS[family]
        exact = prompt_moments(d, response, weights=weights, mean=mean).map(K)
        eta = step(signal(d, c) + 0 * n, energy(d, c) + d * noise, n)
        residual = exact.residual(gradient_step(np.eye(d, dtype=int) * eta))
        evidence.expect(
            f"normal equations violated by {family}, d = {d}", np.count_nonzero(residual), equals=0, error=0
        )


def shifted(family):
    """The family with a mean added to its first-layer weights: not rotation-invariant."""
    return replace(family, draw=lambda *sizes: [w + (i == 0) for i, w in enumerate(family.draw(*sizes))])


def stretched(family):
    """The family with its first axis doubled: not rotation-invariant."""
    return replace(
        family,
        draw=lambda rng, batch, d: [
            w * (1 + (i == 0) * (np.arange(w.shape[-1]) == 0)) for i, w in enumerate(family.draw(rng, batch, d))
        ],
    )


@nonlinear.check(
    "statistical",
    scope="ReLU, sign and two-layer responses",
    controls={
        "a step 5 % too long": {"factor": 1.05},
        "a step 5 % too short": {"factor": 0.95},
        "weights with a mean": {"change": shifted},
        "weights of unequal variance": {"change": stretched},
    },
)
def test_no_feature_explains_what_the_step_leaves_over(evidence, rng, *, factor=1.0, change=lambda family: family):
    """The residual w_f - eta X^T y is uncorrelated with each of 12 products: z-tests, Bonferroni's correction."""
    from empirical.in_context.one_step_gd import FAMILIES, optimality_scores

    n, d, noise = 8, 2, 0.5
    for name, family in FAMILIES.items():
        step = factor * family.step(n, d, noise)
        scores = optimality_scores(rng(name), change(family), n, d, noise, step)
        evidence.z_scores(f"residual against features, {name}", scores, alpha=1e-4)


nonlinear_ratio = Claim(
    paper=PAPER,
    slug="nonlinear-step",
    where="Theorem 3",
    says="There the step is the same ratio of moments, with the Bayes-optimal linear predictor u_D in place of ridge.",
    formula=r"\eta = \frac{\mathbb{E}[u_D^\top X^\top y]}{\mathbb{E}[y^\top X X^\top y]}",
    gap="One family: ReLU responses along 16 directions of the plane, whose posterior is a finite sum.",
)


@nonlinear_ratio.check(
    "statistical",
    controls={
        "posterior for four times the noise": {
            "posterior": lambda v, fits, y, noise: posterior_mean(v, fits, y, 4 * noise)
        },
        "the likeliest direction alone": {
            "posterior": lambda v, fits, y, noise: posterior_mean(v, fits, y, noise / 1e3)
        },
        "a step 5 % too long": {"factor": 1.05},
    },
)
def test_the_posterior_mean_of_the_linear_part_gives_the_step(evidence, rng, *, posterior=posterior_mean, factor=1.0):
    """E[(u_D - eta X^T y).X^T y] = 0 with u_D from Bayes' rule over all candidates, a t test on 100 000 prompts."""
    n, d, noise, prompts = 4, 2, 0.25, 100_000
    angles = np.arange(16) * np.pi / 8
    candidates = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    draw = rng("prompts")
    X = draw.standard_normal((prompts, n, d))
    fits = np.maximum(X @ candidates.T, 0)
    truth = draw.integers(len(candidates), size=prompts)
    y = fits[np.arange(prompts), :, truth] + np.sqrt(noise) * draw.standard_normal((prompts, n))
    gradient = np.einsum("kni,kn->ki", X, y)
    # |w| = 1: E|w_f|^2 = 1/4, E|x|^2 relu(w.x)^2 = (d + 2) / 2
    step = factor * nonlinear_step(0.25, (d + 2) / 2 + d * noise, n)
    u_D = posterior(candidates / 2, fits, y, noise)
    evidence.mean_equals("(u_D - eta X^T y).X^T y", ((u_D - step * gradient) * gradient).sum(axis=1), 0, alpha=1e-4)


networks = Claim(
    paper=PAPER,
    slug="gaussian-networks-are-rotation-invariant",
    where="Section 5",
    says="A fully connected network with Gaussian weights is a rotation-invariant random function.",
    formula=r"f_{W_1, \dots}(R x) = f_{W_1 R, \dots}(x), \quad W_1 R \sim W_1",
    gap="The two facts the statement follows from, at drawn networks and rotations, biases included.",
)


def network(x, layers):
    """ReLU network without activation on its output; layers is a list of (weights, bias)."""
    for weights, bias in layers[:-1]:
        x = np.maximum(weights @ x + bias, 0)
    return layers[-1][0] @ x + layers[-1][1]


@networks.check(
    "property",
    controls={
        "Laplace weights": {"log_density": lambda W: -np.abs(W).sum()},
        "a network of |x|": {"function": lambda x, layers: network(np.abs(x), layers)},
    },
)
@given(d=st.integers(2, 6), widths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=seeds)
def test_a_rotation_of_the_input_is_one_of_the_first_weights(
    evidence, d, widths, seed, *, function=network, log_density=lambda W: -(W**2).sum() / 2
):
    """The rotated function is the function of rotated weights, and these have the same density."""
    draw = np.random.default_rng(seed)
    shapes = list(zip([*widths, 1], [d, *widths], strict=True))
    layers = [(draw.standard_normal(shape), draw.standard_normal(shape[0])) for shape in shapes]
    x, R = draw.standard_normal(d), np.linalg.qr(draw.standard_normal((d, d)))[0]
    turned = [(layers[0][0] @ R, layers[0][1]), *layers[1:]]
    scale = np.prod([1 + np.linalg.norm(weights) + np.linalg.norm(bias) for weights, bias in layers]) * (
        1 + np.linalg.norm(x)
    )
    budget = 32 * d * EPS * scale
    evidence.expect("change of the function", function(R @ x, layers) - function(x, turned), equals=0, error=budget)
    densities = log_density(layers[0][0]) - log_density(turned[0][0])
    evidence.expect("change of the log density", densities, equals=0, error=32 * d * EPS * (layers[0][0] ** 2).sum())


responses = Claim(
    paper=PAPER,
    slug="responses-change-only-the-step",
    where="Abstract",
    says="Changing only the responses, within rotation-invariant families, changes the size of the step, nothing else.",
    formula=r"\min_t L(t I) = \min_{u, M} L(u, M)",
    gap="Four families at one size; Theorem 3's claim has the general statement.",
)


@responses.check(
    "exact",
    controls={
        "covariates of unequal variance": {
            "change": {"mixing": ((2, 0), (0, 1)), "weights": ((Fraction(1, 2), 0), (0, 1))}
        },
        "weights with a mean": {"change": {"mean": (1, 0)}},
    },
)
def test_a_plain_step_of_the_right_size_loses_nothing(evidence, *, change=None):
    """The best plain step against the best weights on all features, at n = 8, sigma^2 = 1/2, c = 1/3."""
    for response in (linear_response, quadratic_response, cubic_response, square_response):
        moments = prompt_moments(2, response, **(change or {})).at(8, Fraction(1, 2), Fraction(1, 3))
        best = moments.loss(best_relaxed(moments))
        budget = np.linalg.cond(moments.gram) * moments.gram.size * EPS
        ratio = best_multiple(moments, gradient_step(np.eye(2))) / best
        evidence.expect("loss of the best plain step over the least loss", ratio, equals=1, error=budget)
