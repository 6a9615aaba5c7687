"""One step of gradient descent is the best one layer of linear self-attention can do (Mahankali, Hashimoto, Ma, 2023).

What the paper says. A prompt holds n examples of a linear regression problem; a single head of linear self-attention,
trained on the population loss, predicts the response of a query. For standard Gaussian covariates and weights each
global minimiser predicts what one step of gradient descent on least squares predicts (Theorem 1). This file has that
theorem, its lemmas and its background; test_one_step_gd_distributions.py has Theorems 2 and 3.

Notation. `noise` is their sigma^2; u = W_V^T h and M = (W_K^T W_Q)[:, :d], so that the prediction is u^T G M x with
G = sum_i v_i v_i^T, v_i = (x_i, y_i); `step` is their eta, for the objective |X w - y|^2 / 2.

Scope. Population loss. Symbolic checks keep n and sigma^2 as symbols. What training finds, and readings of the abstract
that go beyond its theorems, are in test_one_step_gd_trained.py and test_one_step_gd_extensions.py.
"""

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.in_context.gaussian_moments import is_positive, leading_minors, prompt_moments, rational_functions
from theory.in_context.one_step_gd import (
    bayes_loss,
    best_heads,
    coefficients,
    excess_loss,
    gradient_step,
    isotropic_moments,
    optimal_loss,
    ridge_weights,
    step_size,
)

PAPER = "mahankali2023onestep"
EPS = np.finfo(float).eps
STEP_CONTROLS = {
    "textbook step 1/n": {"step": lambda n, d, noise: 1 / (n + 0 * noise)},
    "step 1/(n + d + noise)": {"step": lambda n, d, noise: 1 / (n + d + noise)},
    "step that ignores the noise": {"step": lambda n, d, noise: 1 / (n + d + 1 + 0 * noise)},
    "step with the noise's sign flipped": {"step": lambda n, d, noise: 1 / (n + d + 1 - noise)},
}

seeds = st.integers(0, 2**32 - 1)

# -- Background: what one layer is compared with ----------------------------------------------------------------------

ridge = Claim(
    paper=PAPER,
    slug="ridge-is-bayes",
    where="Abstract, Section 2",
    says="For Gaussian weights and Gaussian noise the mean of w given the prompt, and so the Bayes predictor, is ridge "
    "regression with regularisation sigma^2.",
    formula=r"\mathbb{E}[w \mid X, y] = (X^\top X + \sigma^2 I)^{-1} X^\top y",
    gap="That large transformers learn it (Akyurek et al., cited by the paper) is not checked.",
)


@ridge.check(
    "exact",
    controls={
        "regularisation of the mean loss, n sigma^2": {
            "estimate": lambda X, y, noise: ridge_weights(X, y, len(X) * noise)
        },
        "ordinary least squares": {"estimate": lambda X, y, noise: y @ np.linalg.pinv(X).T},
    },
)
@given(size=st.tuples(st.integers(2, 20), st.integers(1, 6), st.floats(0.1, 10)), seed=seeds)
def test_ridge_is_the_conditional_mean_of_the_joint_gaussian(evidence, size, seed, *, estimate=ridge_weights):
    """The joint Gaussian of (w, y) is conditioned on y directly, through the n x n covariance of y, and compared."""
    n, d, noise = size
    draw = np.random.default_rng(seed)
    X, y = draw.standard_normal((n, d)), draw.standard_normal(n)
    covariance = X @ X.T + noise * np.eye(n)
    conditional = X.T @ np.linalg.solve(covariance, y)
    # Backward stability of both solves: relative error of the order (n + d) eps times the condition number.
    budget = 8 * (n + d) * EPS * np.linalg.cond(covariance) * np.linalg.norm(X, 2) * np.linalg.norm(y) / noise
    evidence.expect(
        "distance from the conditional mean", np.linalg.norm(estimate(X, y, noise) - conditional), at_most=budget
    )


lemma_1 = Claim(
    paper=PAPER,
    slug="loss-splits-at-ridge",
    where="Lemma 1",
    says="The population loss is the risk of the ridge predictor plus the mean squared distance between the layer's "
    "prediction and the ridge predictor's, whatever the parameters.",
    formula=r"L(u, M) = C + \mathbb{E}\bigl((\hat{w}_D - M^\top G_D u)^\top x\bigr)^2",
    gap="Checked given the covariates, for n <= 3 and d <= 2 (the expectation over w and noise is then exact).",
)


@lemma_1.check(
    "exact",
    controls={
        "ordinary least squares in place of ridge": {"target": lambda X, y, noise: y @ np.linalg.pinv(X).T},
        "ridge with half the regularisation": {"target": lambda X, y, noise: ridge_weights(X, y, noise / 2)},
    },
)
@given(n=st.integers(1, 3), d=st.integers(1, 2), noise=st.floats(0.05, 5), seed=seeds)
def test_the_loss_is_ridge_risk_plus_distance_to_ridge(evidence, n, d, noise, seed, *, target=ridge_weights):
    """Gauss-Hermite quadrature over w and the noise, exact for these quartics, at random covariates and parameters."""
    draw = np.random.default_rng(seed)
    X, u, M = draw.standard_normal((n, d)), draw.standard_normal(d + 1), draw.standard_normal((d + 1, d))
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(3)  # three nodes integrate degree five
    grid = np.stack(np.meshgrid(*[nodes] * (d + n)), axis=-1).reshape(-1, d + n)
    mass = np.stack(np.meshgrid(*[node_weights] * (d + n)), axis=-1).reshape(-1, d + n).prod(axis=1)
    mass /= mass.sum()
    w, y = grid[:, :d], grid[:, :d] @ X.T + np.sqrt(noise) * grid[:, d:]
    v = np.concatenate([np.broadcast_to(X, (len(y), n, d)), y[..., None]], axis=-1)
    layer = np.einsum("kib,kic,c->kb", v, v, u) @ M
    ridge_solution = target(X, y, noise)
    loss = noise + mass @ ((w - layer) ** 2).sum(axis=1)
    split = bayes_loss(X, noise) + mass @ ((ridge_solution - layer) ** 2).sum(axis=1)
    scale = np.linalg.cond(X.T @ X + noise * np.eye(d)) * (1 + mass @ ((w - layer) ** 2).sum(axis=1) + noise)
    evidence.expect("loss minus its split", loss - split, equals=0, error=len(grid) * EPS * scale)


lemma_2 = Claim(
    paper=PAPER,
    slug="loss-splits-at-the-step",
    where="Lemma 2",
    says="In that split the ridge predictor may be replaced by one gradient step of the optimal size: the loss is a "
    "constant plus the mean squared distance to the step's prediction.",
    formula=r"L(u, M) = L^\star + \mathbb{E}\bigl\| \eta X^\top y - M^\top G_D u \bigr\|^2,"
    r"\quad L^\star = \sigma^2 + \frac{d (d + 1 + \sigma^2)}{n + d + 1 + \sigma^2}",
    gap="Symbolic for d = 1 to 6; for larger d by a degree argument which is written down, not machine-checked.",
)


@lemma_2.check("proof", controls=STEP_CONTROLS)
def test_loss_minus_distance_to_the_step_is_the_same_at_all_parameters(evidence, *, step=step_size):
    """Polynomial identity in u, M, n and sigma^2, for d = 1 to 6.

    That is enough for every d: times n + d + 1 + sigma^2 each coefficient is a polynomial in d of degree at most 3, and
    reflections leave only monomials with at most three distinct indices, all of which occur at d = 3, 4, 5, 6.
    """
    from sympy.polys.rings import ring

    K, n, noise, _ = rational_functions()
    for d in range(1, 7):
        names = [*(f"u{b}" for b in range(d + 1)), *(f"m{b}{a}" for b in range(d + 1) for a in range(d))]
        space, *generators = ring(names, K)
        u, M = np.array(generators[: d + 1], object), np.array(generators[d + 1 :], object).reshape(d + 1, d)
        moments = prompt_moments(d).map(lambda polynomial, space=space: space(K(polynomial)))
        weights = coefficients(u, M)
        loss, off = moments.loss(weights), weights - gradient_step(np.eye(d, dtype=int) * step(n, d, noise))
        constant = loss - (off @ moments.gram * off).sum()
        evidence.expect("terms that depend on u or M", len(constant - constant.coeff(1)), equals=0, error=0)
        squares = optimal_loss(n, d, noise) + excess_loss(u, M, n, noise, step(n, d, noise))
        evidence.expect("terms by which the sum of squares is off", len(loss - squares), equals=0, error=0)


size_of_step = Claim(
    paper=PAPER,
    slug="step-size",
    where="Theorem 1",
    says="The step is the ratio of two moments, and for standard Gaussians it is 1 / (n + d + 1 + sigma^2).",
    formula=r"\eta = \frac{\mathbb{E}[\hat{w}_D^\top X^\top y]}{\mathbb{E}[y^\top X X^\top y]}"
    r" = \frac{1}{n + d + 1 + \sigma^2}",
    gap="The moments are affine in d, so that two values of d settle all; the tower property is checked given X.",
)


@size_of_step.check("proof", controls=STEP_CONTROLS)
def test_the_ratio_of_moments_is_the_closed_form(evidence, *, step=step_size):
    """E[w.X^T y] and E|X^T y|^2 from Isserlis' theorem, n and sigma^2 symbolic, d = 1 to 4."""
    K, n, noise, _ = rational_functions()
    for d in range(1, 5):
        moments, of_step = prompt_moments(d), gradient_step(np.eye(d, dtype=int))
        signal, energy = (moments.cross * of_step).sum(), (of_step @ moments.gram * of_step).sum()
        evidence.expect("signal is n d", np.count_nonzero([K(signal) - n * d]), equals=0, error=0)
        evidence.expect(
            "ratio minus step", np.count_nonzero([K(signal) / K(energy) - step(n, d, noise)]), equals=0, error=0
        )


@size_of_step.check(
    "property",
    scope="ridge numerator",
    controls={"ordinary least squares in place of ridge": {"estimate": lambda X, y, noise: y @ np.linalg.pinv(X).T}},
)
@given(size=st.tuples(st.integers(1, 12), st.integers(1, 6), st.floats(0.1, 5)), seed=seeds)
def test_ridge_and_the_true_weights_have_the_same_product_with_the_gradient(
    evidence, size, seed, *, estimate=ridge_weights
):
    """Given X, E[w_hat.X^T y] is tr(W (X X^T + sigma^2 I) X) with w_hat = W y, and equals E[w.X^T y] = tr X^T X."""
    n, d, noise = size
    X = np.random.default_rng(seed).standard_normal((n, d))
    linear_map = estimate(X, np.eye(n), noise).T
    product = np.trace(linear_map @ (X @ X.T + noise * np.eye(n)) @ X)
    energy = np.trace(X.T @ X)
    budget = 16 * (n + d) * EPS * (energy + noise) ** 2 / noise
    evidence.expect("E[w_hat.X^T y] minus E[w.X^T y]", product - energy, equals=0, error=budget)


# -- Theorem 1 --------------------------------------------------------------------------------------------------------

isotropic = Claim(
    paper=PAPER,
    slug="isotropic-optimum",
    where="Theorem 1",
    says="For standard Gaussian covariates and weights, every n, d and sigma^2, each global minimiser of the "
    "population loss predicts what one step of gradient descent from zero predicts, and such minimisers exist.",
    formula=r"u^\top G_D M x = \eta \sum_{i=1}^n y_i \, x_i^\top x \quad\text{at every global minimum}",
    gap="By machine for d = 1 to 4; larger d by a degree argument which is written down in the check, not "
    "machine-checked. A theorem on global minima of the population loss: training may end elsewhere.",
)


def fresh_tasks(d):
    """Moments of prompts in which every example has weights of its own."""
    return prompt_moments(d, shared=False)


@isotropic.check("proof", controls={**STEP_CONTROLS, "new weights for every example": {"moments": fresh_tasks}})
def test_the_step_solves_the_normal_equations_of_every_layer_at_once(
    evidence, *, step=step_size, moments=prompt_moments
):
    """The prediction is linear in T, the weights of the features G_bc x_a; over ALL T the loss is convex.

    The step's T makes its gradient vanish identically in n and sigma^2 (d = 1 to 4; each entry is affine in d and has
    at most three indices, so that holds for every d). It is one head's: u = e_y, M = (step I, 0). With Lemma 2 the
    minimum is the set where M^T G u = step X^T y almost surely: the same function at every global minimiser.
    """
    K, n, noise, _ = rational_functions()
    for d in range(1, 5):
        exact = moments(d).map(K)
        weights = gradient_step(np.eye(d, dtype=int) * step(n, d, noise))
        evidence.expect("normal equations violated", np.count_nonzero(exact.residual(weights)), equals=0, error=0)
        head = np.eye(d + 1, dtype=int)[d], np.vstack([np.eye(d, dtype=int) * step(n, d, noise), [0 * n] * d])
        evidence.expect("weights one head misses", np.count_nonzero(coefficients(*head) - weights), equals=0, error=0)


def counted_twice(gram):
    """The Gram matrix with its last feature appended once more: singular."""
    rows = np.vstack([gram, gram[-1:]])
    return np.hstack([rows, rows[:, -1:]])


@isotropic.check(
    "proof",
    scope="uniqueness among any number of heads, d = 1 to 4",
    controls={"a feature counted twice": {"gram": lambda d: counted_twice(prompt_moments(d).gram)}},
)
def test_no_other_weights_on_the_features_reach_the_optimum(evidence, *, gram=lambda d: prompt_moments(d).gram):
    """E[G_bc G_b'c'] is positive definite: each leading minor is positive for every n >= 1 and sigma^2 >= 0."""
    for d in range(1, 5):
        minors = leading_minors(gram(d))
        evidence.expect(
            "leading minors not seen to be positive", sum(not is_positive(p) for p in minors), equals=0, error=0
        )


@isotropic.check(
    "property", controls={name: STEP_CONTROLS[name] for name in ("textbook step 1/n", "step 1/(n + d + noise)")}
)
@settings(phases=(Phase.generate, Phase.target))  # a smaller start of a descent is no simpler one
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 4), st.floats(0, 10)), seed=seeds, magnitude=st.integers(-3, 1)
)
def test_no_other_parameters_have_lower_loss(evidence, size, seed, magnitude, *, step=step_size):
    """From random parameters of any size L-BFGS descends as far as it can; it never ends below the step's loss."""
    n, d, noise = size
    moments = isotropic_moments(n, d, noise)
    start = 10.0**magnitude * np.random.default_rng(seed).standard_normal((1, 1, d + 1, d + 1))
    losses, _ = best_heads(moments, start)
    of_step = moments.loss(gradient_step(step(n, d, noise) * np.eye(d)))
    # Each loss is a sum of fewer than F^2 d products of the size of the response's variance.
    budget = moments.gram.size * d * EPS * moments.target
    evidence.expect("lowest loss found above the step's", losses[0] - of_step, at_least=-budget)
