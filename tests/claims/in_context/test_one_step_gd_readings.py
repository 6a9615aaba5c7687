"""Stronger readings of one step of gradient descent as the optimal in-context learner (Mahankali, Hashimoto, Ma, 2023).

What the paper says. Global minimisers of one layer of linear self-attention take one gradient step; "optimal" means
least population loss among such layers. The abstract can be read as more: optimal among all learners, one set of
weights, the inverse covariance as preconditioner always, any responses at all. Each such reading is *ours*; each fails,
on the smallest case we could find, and becomes true under a hypothesis which is then checked.

Notation. As in test_one_step_gd.py. Scope. Population loss; several heads add their predictions.
"""

from fractions import Fraction

import numpy as np

from reports.claim import Claim
from theory.in_context.gaussian_moments import (
    is_positive,
    linear_response,
    prompt_moments,
    quadratic_response,
    rational_functions,
    square_response,
)
from theory.in_context.one_step_gd import (
    bayes_loss,
    best_heads,
    best_multiple,
    best_preconditioner,
    best_relaxed,
    excess_loss,
    gradient_step,
    nonlinear_step,
    optimal_loss,
    quartic_form,
    step_size,
    vanishing_parameters,
)

PAPER = "mahankali2023onestep"
EPS = np.finfo(float).eps
LEAST = np.nextafter(0, 1)  # `at_least=LEAST` says: positive


# -- Optimal among what? ----------------------------------------------------------------------------------------------

optimal = Claim(
    paper=PAPER,
    slug="optimal-in-context-learner",
    where="Title (our stronger reading: optimal without restriction to a class)",
    says="One step of gradient descent has the least loss among all in-context learners of linear regression.",
    formula=r"L^\star \le \mathbb{E}(y_{n+1} - \hat{y}(D, x_{n+1}))^2 \quad\text{for every } \hat{y}",
    gap="The paper's own statement is about one layer of linear self-attention, see isotropic-optimum. The repair is "
    "by machine for d = 1 to 4; larger d by the degree argument of Theorem 1.",
    repair="It has the least loss among layers of linear self-attention, of any number of heads.",
)


@optimal.refutation("exact", controls={"against the zero predictor": {"rival": lambda X: np.array(1.0)}})
def test_one_noiseless_example_in_one_dimension_determines_the_weight(evidence, *, rival=lambda X: bayes_loss(X, 0.0)):
    """n = d = 1 and sigma^2 = 0: w = y_1 / x_1 predicts without error, one gradient step errs by 2/3."""
    least = optimal_loss(1, 1, Fraction(0))
    X = np.array([[[1.0]], [[-2.0]], [[0.125]]])
    evidence.expect("loss of the Bayes predictor", rival(X), less_than=("least loss of one layer", least))
    evidence.counterexample("Division by the covariate", n=1, d=1, noise=0, gradient_step=least, bayes=0)


@optimal.check(
    "proof",
    controls={
        "step that ignores the noise": {"step": lambda n, d, noise: 1 / (n + d + 1)},
        "weights with a mean": {"mean": (1, 0, 0, 0)},
    },
)
def test_no_number_of_heads_improves_on_the_step(evidence, *, step=step_size, mean=None):
    """The prediction of any heads is linear in their weights T on the features; the loss is convex in T, and its
    gradient vanishes at the step identically in n and sigma^2 (d = 1 to 4, which settles every d as in Theorem 1)."""
    K, n, noise, _ = rational_functions()
    for d in range(1, 5):
        exact = prompt_moments(d, mean=mean and mean[:d]).map(K)
        residual = exact.residual(gradient_step(np.eye(d, dtype=int) * step(n, d, noise)))
        evidence.expect("normal equations violated", np.count_nonzero(residual), equals=0, error=0)


@optimal.check(
    "property",
    scope="two and three heads, descended from random weights",
    controls={"weights with a mean": {"mean": (1, 0)}},
)
def test_descending_with_several_heads_never_passes_below_the_step(evidence, rng, *, mean=None):
    """n = 6, d = 2, sigma^2 = 1/2, ten starts each, L-BFGS with exact gradients. With a mean, two heads do win."""
    moments = prompt_moments(2, mean=mean).at(6, Fraction(1, 2))
    of_step = best_multiple(moments, gradient_step(np.eye(2)))
    for heads in (1, 2, 3):
        losses, _ = best_heads(moments, 0.3 * rng(heads).standard_normal((10, heads, 3, 3)))
        evidence.expect(
            "least loss above the step's", losses.min() - of_step, at_least=-moments.gram.size * EPS * of_step
        )


# -- Which weights? ---------------------------------------------------------------------------------------------------

same_weights = Claim(
    paper=PAPER,
    slug="same-weights-up-to-scaling",
    where="Theorem 1 (our stronger reading: equality in weight space)",
    says="All global minimisers are one and the same u, M up to the scaling u -> c u, M -> M / c.",
    formula=r"u = c\, e_y, \quad M = \tfrac{\eta}{c} \begin{bmatrix} I \\ 0 \end{bmatrix}",
    gap="Ideal membership for d = 2 and 3; for larger d by hand, u_a = r_b u_b u_a = 0 for a != b.",
    repair="This holds for d >= 2 (and for u and M; W_K, W_Q, W_V and h have the usual invariances besides).",
)


@same_weights.refutation("exact", controls={"the same exchange in two dimensions": {"d": 2}})
def test_in_one_dimension_the_two_factors_may_exchange_roles(evidence, *, d=1):
    """u = e_x, M = eta e_y has zero excess loss, in rational arithmetic, and is no multiple of (e_y, eta e_x)."""
    for n, noise in [(1, Fraction(0)), (2, Fraction(1, 2)), (9, Fraction(3))]:
        u, M = np.eye(d + 1, dtype=int)[0], np.zeros((d + 1, d), dtype=object)
        M[d, 0] = step_size(n, d, noise)
        evidence.expect("excess loss with the roles exchanged", excess_loss(u, M, n, noise), equals=0, error=0)
    evidence.counterexample("Exchanged roles", d=1, u="(1, 0)", M="(0, eta)", usual="u = (0, 1), M = (eta, 0)")


@same_weights.check("proof", controls={"one dimension": {"dimensions": (1,)}})
def test_from_two_dimensions_on_the_zero_set_is_one_family(evidence, *, dimensions=(2, 3)):
    """Zero excess needs u_y m + u_x r^T = eta I, u_x m^T = 0 and u_y r = 0, for the even features' form is definite.

    Definite: its minors are polynomials that are positive for all n >= 1, d >= 1, sigma^2 >= 0. A Groebner basis then
    shows that u_x and r are zero, so that u_y m = eta I is all that is left.
    """
    from sympy import QQ
    from sympy.polys.rings import ring

    _, n, d, noise = ring("n,d,s2", QQ)
    p, q, s = quartic_form(n, d, noise)
    for minor in (p, p * s - q**2):
        evidence.true("the form of the even features is positive definite", is_positive(minor, (1, 1, 0)))
    for size in dimensions:
        left = [name for name, zero in vanishing_parameters(size).items() if not zero]
        evidence.expect("parameters not forced to be zero", len(left), equals=0, error=0)


# -- Which distributions? ---------------------------------------------------------------------------------------------

inverse_covariance = Claim(
    paper=PAPER,
    slug="preconditioner-is-inverse-covariance",
    where="Abstract (our stronger reading: Theorem 2 without its law of w)",
    says="For covariates of covariance Sigma the learned preconditioner is a multiple of the inverse of Sigma.",
    formula=r"A \propto \Sigma^{-1}",
    gap="The general optimum is checked at rational covariances in d = 2.",
    repair="This holds for w ~ N(0, Sigma^-1), as Theorem 2 assumes; in general the preconditioner is "
    "Lambda Sigma [(n + 1) Lambda Sigma + (tr Lambda Sigma + sigma^2) I]^-1 Sigma^-1 for w ~ N(0, Lambda).",
)

# Mixings A and B of x = A xi and w = B omega.
UNEQUAL = ((2, 0), (0, 1))
DUAL = ((Fraction(1, 2), 0), (0, 1))
TILTED = ((1, 0), (1, 2))


@inverse_covariance.refutation("exact", controls={"weights w ~ N(0, Sigma^-1)": {"weights": DUAL}})
def test_weights_of_equal_variance_give_another_preconditioner(evidence, *, weights=((1, 0), (0, 1))):
    """Sigma = diag(4, 1), n = 1, sigma^2 = 0: least loss over all layers against the best multiple of Sigma^-1."""
    moments = prompt_moments(2, mixing=UNEQUAL, weights=weights).at(1, 0)
    # One noiseless example leaves the Gram matrix well-conditioned; both losses are exact to rounding.
    best = moments.loss(best_relaxed(moments))
    claimed = best_multiple(moments, gradient_step(np.diag([0.25, 1.0])))
    rounding = np.linalg.cond(moments.gram) * moments.gram.size * EPS * best
    evidence.expect("least loss", best + rounding, less_than=("of multiples of Sigma^-1", claimed))
    optimum = best_preconditioner(np.diag([4.0, 1.0]), np.eye(2), 1, 0.0)
    evidence.counterexample(
        "Weights w ~ N(0, I)", Sigma="diag(4, 1)", n=1, noise=0, A=np.diag(optimum), best=best, claimed=claimed
    )


@inverse_covariance.check(
    "exact",
    controls={
        "the inverse covariance for all": {
            "formula": lambda S, L, n, noise: np.linalg.inv(S) * step_size(n, len(S), noise)
        },
        "trace of the covariance alone": {
            "formula": lambda S, L, n, noise: np.linalg.inv((n + 1) * S + (np.trace(S) + noise) * np.eye(len(S)))
        },
    },
)
def test_the_general_preconditioner_solves_the_normal_equations(evidence, *, formula=best_preconditioner):
    """Exact moments in d = 2 for three laws of x and w, the dual one of Theorem 2 among them, n from 1 to 20."""
    for mixing, weights in [(UNEQUAL, DUAL), (TILTED, None), (None, UNEQUAL), (UNEQUAL, TILTED)]:
        exact = prompt_moments(2, mixing=mixing, weights=weights)
        A, B = (np.array(one or ((1, 0), (0, 1)), dtype=float) for one in (mixing, weights))
        for n, noise in [(1, 0.5), (4, 0.0), (20, 2.0)]:
            moments = exact.at(n, Fraction(noise))
            weights_of_step = gradient_step(formula(A @ A.T, B @ B.T, n, noise))
            terms = abs(moments.cross) + abs(moments.query) @ abs(weights_of_step) @ abs(moments.gram)
            residual = abs(moments.residual(weights_of_step)).max()
            evidence.expect(
                "largest normal equation", residual, at_most=16 * EPS * np.linalg.cond(A) ** 2 * terms.max()
            )


any_responses = Claim(
    paper=PAPER,
    slug="any-responses-give-the-same-algorithm",
    where="Abstract (our stronger reading: Theorem 3 without its symmetry)",
    says="Whatever the random family of responses, the best layer takes one plain gradient step.",
    formula=r"\min_t L(t I) = \min_{u, M} L(u, M)",
    gap="The repair is checked on one family; nonlinear-optimum has more.",
    repair="This holds for families that are invariant under rotations and reflections.",
)


@any_responses.refutation(
    "exact",
    controls={
        "weights without a mean": {"mean": (0, 0)},
        "an even response": {"response": square_response, "mean": (0, 0)},
    },
)
def test_weights_with_a_mean_make_other_features_useful(evidence, rng, *, mean=(1, 0), response=linear_response):
    """Linear responses with w ~ N((1, 0), I), n = 8, d = 2, sigma^2 = 1/2: one head beats each plain gradient step, and
    several heads, which can use G_xx besides, beat one."""
    moments = prompt_moments(2, response, mean=mean).at(8, Fraction(1, 2))
    plain = best_multiple(moments, gradient_step(np.eye(2)))
    starts = 0.3 * rng("starts").standard_normal((10, 1, 3, 3))
    starts[0, 0] = [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 1]]  # M = (0.1 I, 0), u = e_y: a plain step
    one_head = best_heads(moments, starts)[0].min()
    relaxed = moments.loss(best_relaxed(moments))
    rounding = np.linalg.cond(moments.gram) * moments.gram.size * EPS * plain
    evidence.expect("loss of one head", one_head + rounding, less_than=("of the best plain step", plain))
    evidence.expect("least loss of all heads", relaxed + rounding, less_than=("of the best plain step", plain))
    evidence.counterexample(
        "Weights with a mean", mu=mean, n=8, noise="1/2", plain=plain, one_head=one_head, heads=relaxed
    )


@any_responses.check(
    "proof",
    scope="w.x + c (w.x)^2, d = 2, 3",
    controls={
        "weights with a mean": {"mean": (1, 0, 0)},
        "weights of unequal variance": {"weights": ((2, 0, 0), (0, 1, 0), (0, 0, 1))},
    },
)
def test_rotation_invariance_is_enough(evidence, *, mean=None, weights=None):
    """The gradient of the loss vanishes at one plain step, identically in n, sigma^2 and c."""
    K, n, noise, c = rational_functions()
    for d in (2, 3):
        slices = {"mean": mean and mean[:d], "weights": weights and tuple(row[:d] for row in weights[:d])}
        exact = prompt_moments(d, quadratic_response, **slices).map(K)
        eta = nonlinear_step(d, d * (d + 2) * (1 + 3 * (d + 4) * c**2) + d * noise, n)
        residual = exact.residual(gradient_step(np.eye(d, dtype=int) * eta))
        evidence.expect("normal equations violated", np.count_nonzero(residual), equals=0, error=0)


some_step = Claim(
    paper=PAPER,
    slug="the-step-is-not-zero",
    where="Theorem 3 (our stronger reading: something is learned from every such family)",
    says="For every rotation-invariant family the optimal step is positive.",
    formula=r"\eta = \frac{\mathbb{E}\|w_f\|^2}{\mathbb{E}[\|x\|^2 y^2] + (n - 1) \mathbb{E}\|w_f\|^2} > 0",
    gap="Three families at sizes n = 1 to 16, d = 1 to 3; the formula is checked in nonlinear-optimum.",
    repair="The optimal step is positive if and only if E |w_f|^2 > 0, w_f = E_x[f(x) x] the linear part of f.",
)


@some_step.refutation("exact", controls={"a response with a linear part": {"response": quadratic_response}})
def test_an_even_response_leaves_nothing_for_the_layer_to_do(evidence, *, response=square_response):
    """f(x) = (w.x)^2 is rotation-invariant, and no weights on any features do better than predicting zero."""
    moments = prompt_moments(1, response)
    evidence.expect("products with the query that are not zero", np.count_nonzero(moments.cross), equals=0, error=0)
    evidence.counterexample("An even response", f="(w x)^2", d=1, step=0, loss="9 + sigma^2")


@some_step.check("exact", controls={"an even response": {"responses": (square_response,)}})
def test_a_linear_part_gives_a_positive_step(evidence, *, responses=(linear_response, quadratic_response)):
    """Among the optimal weights on all features those of the plain step are positive, n = 1 to 16, d = 1 to 3."""
    for response in responses:
        for d in (1, 2, 3):
            for n in (1, 4, 16):
                moments = prompt_moments(d, response).at(n, 1, Fraction(1, 2))
                steps = best_relaxed(moments)[gradient_step(np.eye(d)) == 1]
                rounding = np.linalg.cond(moments.gram) * moments.gram.size * EPS
                evidence.expect("optimal step", steps - rounding, at_least=LEAST)
