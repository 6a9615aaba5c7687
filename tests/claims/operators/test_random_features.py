"""Attention heads with random queries and keys: invariance, and the kernel of infinitely many (Fu, Guo, Bai, Mei 2023).

What the paper says. A single attention layer whose query-key matrices are frozen at random and whose values are trained
is a random-feature model, with ReLU in place of softmax. It does not depend on the order of the keys (Section 2); with
many heads it approaches a kernel method; and a non-zero mean of the query-key matrices gives another kernel.

Notation. x_0 is the query, x_1, ..., x_N the keys, all of unit norm in R^d; x~ = (x, 1); W is their Q^T K, a matrix
with entries N(mean, 1/4); a = <x_0, x_0'>, b_ij = <x_i, x_j'>. RFA has mean zero, BRFA a multiple of the identity.

Scope. Statements that hold for every input. The body of the paper was not at hand: section numbers are from memory and
the kernels are derived here. Heads with a mean are in test_random_features_biased.py, norms in
test_random_features_norms.py, rates in test_random_features_rates.py, and
what is learned by whom in test_random_features_comparisons.py and test_random_features_simulations.py.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.random_features import (
    SPREAD,
    extend,
    gaussian_heads,
    head_features,
    head_scores,
    kappa,
    kernel,
    monte_carlo_scores,
    network_kernel,
    sphere,
)

PAPER = "fu2023single"
EPS = np.finfo(float).eps
ALPHA = 2e-5

seeds = st.integers(0, 2**32 - 1)

# -- Section 2: what the model computes -------------------------------------------------------------------------------

order = Claim(
    paper=PAPER,
    slug="keys-have-no-order",
    where="Section 2",
    says="Every head, and so every choice of trained values, is invariant to permutations of the keys.",
    formula=r"\varphi_W(x_0, x_{\pi(1)}, \dots, x_{\pi(N)}) = \varphi_W(x_0, x_1, \dots, x_N)",
    gap="Generated inputs; the identity itself is a sum in another order.",
)


def network_features(x, W):
    """Hidden units on the concatenated tokens, as the rival network has them."""
    flat = x.reshape(len(x), -1)
    return np.maximum(flat @ np.resize(W, (flat.shape[-1], len(W))), 0)


def weighted_keys(x, W):
    """The same head, but its keys are numbered: the i-th counts i times."""
    scores = np.maximum(head_scores(x, W), 0) * np.arange(1, x.shape[1])
    return scores @ extend(x[:, 1:])


def keys_only(draw, keys):
    """A random order of the tokens that leaves the query in its place."""
    return [0, *(1 + draw.permutation(keys))]


@order.check(
    "property",
    controls={
        "network on concatenated tokens": {"features": network_features},
        "keys weighted by their position": {"features": weighted_keys},
        "permutations that move the query too": {"reorder": lambda draw, keys: list(draw.permutation(keys + 1))},
    },
)
@given(size=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 5)), seed=seeds)
def test_features_do_not_see_the_order_of_the_keys(evidence, size, seed, *, features=head_features, reorder=keys_only):
    """Random heads, tokens and permutations; the features may differ by the rounding of one sum."""
    keys, d, heads = size
    draw = np.random.default_rng(seed)
    x, W = sphere(draw, 2, keys + 1, d), gaussian_heads(draw, heads, d)
    moved = x[:, reorder(draw, keys)]
    # Scores are at most 2 |W|_F and dot products of (d + 1)^2 terms, features sums of N of them times |x~| = sqrt(2).
    budget = ((d + 1) ** 2 + keys) * EPS * 4 * np.linalg.norm(W, axis=(1, 2)).max()
    evidence.expect("change of a feature", np.abs(features(x, W) - features(moved, W)).max(), at_most=budget)


@order.check("property", scope="kernels", controls={"the network's kernel": {"of_infinitely_many": network_kernel}})
@given(size=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=seeds)
def test_kernels_do_not_see_the_order_of_the_keys(evidence, size, seed, *, of_infinitely_many=kernel):
    """Kernel between two inputs before and after the keys of one are permuted."""
    keys, d = size
    draw = np.random.default_rng(seed)
    x = sphere(draw, 2, keys + 1, d)
    values = of_infinitely_many(x[:1], x[1:]), of_infinitely_many(x[:1], x[1:, keys_only(draw, keys)])
    # kappa is at most 1/2 and 1 + b at most 2; its argument loses (d + 2) eps, and kappa' <= 1/2; N^2 summands.
    evidence.expect("change of the kernel", abs(values[0] - values[1]), at_most=(2 * d + keys**2 + 8) * 2 * EPS)


# -- Infinitely many heads --------------------------------------------------------------------------------------------

infinite = Claim(
    paper=PAPER,
    slug="infinite-head-kernel",
    where="Section 3 (the kernel of the random features; closed form ours)",
    says="For Gaussian query-key matrices of mean zero the kernel of infinitely many heads is an average, over pairs "
    "of keys, of the arc-cosine kernel at a quarter of a product of token similarities.",
    formula=r"K = \frac{1}{N^2} \sum_{i,j} (1 + b_{ij}) \, \kappa\Bigl(\frac{(1 + a)(1 + b_{ij})}{4}\Bigr), \quad "
    r"\kappa(\rho) = \frac{\sqrt{1 - \rho^2} + \rho (\pi - \arccos \rho)}{2 \pi}",
    gap="ReLU heads, as in the paper's theory; it says nothing about softmax heads.",
)


def arc_cosine(alpha, sympy):
    """kappa(cos alpha), symbolic."""
    return (sympy.sin(alpha) + (sympy.pi - alpha) * sympy.cos(alpha)) / (2 * sympy.pi)


@infinite.check(
    "proof",
    scope="one pair of scores",
    controls={
        "Cho and Saul's normalisation": {"closed": lambda alpha, sympy: 2 * arc_cosine(alpha, sympy)},
        "arc-cosine kernel of order zero": {"closed": lambda alpha, sympy: (sympy.pi - alpha) / (2 * sympy.pi)},
    },
)
def test_two_correlated_scores_have_the_arc_cosine_product(evidence, *, closed=arc_cosine):
    """E relu(g) relu(g') in polar coordinates: the integral over the angle, symbolically, and the radius' moment, 2."""
    import sympy

    alpha, theta, radius = sympy.symbols("alpha theta R", positive=True)
    moment = sympy.integrate(radius**3 * sympy.exp(-(radius**2) / 2), (radius, 0, sympy.oo))
    # g = R cos(theta), g' = R cos(theta - alpha) are both positive for alpha - pi/2 < theta < pi/2.
    product = sympy.expand_trig(sympy.cos(theta) * sympy.cos(theta - alpha))
    angle = sympy.integrate(sympy.expand(product), (theta, alpha - sympy.pi / 2, sympy.pi / 2))
    difference = sympy.simplify(sympy.expand_trig(moment * angle / (2 * sympy.pi) - closed(alpha, sympy)))
    evidence.expect("integral minus closed form is not zero", int(difference != 0), equals=0, error=0)
    grid = np.linspace(0, np.pi, 181)
    symbolic = np.array(sympy.lambdify(alpha, closed(alpha, sympy))(grid))
    # arccos turns the rounding of its argument into at most sqrt(2 eps), where it counts least: kappa' <= 1/2.
    evidence.expect("kappa minus the closed form", kappa(np.cos(grid)) - symbolic, equals=0, error=4 * EPS)


def score_covariance(x, y, spread):
    """Covariance of all pairs of scores, (n, N, m, N): scores are linear in W, so unit matrices W read them off."""
    size = x.shape[-1] + 1
    unit = np.eye(size**2).reshape(size**2, size, size)
    return spread**2 * np.einsum("nwi,mwj->nimj", head_scores(x, unit), head_scores(y, unit))


@infinite.check(
    "exact",
    controls={
        "entries of variance 1": {"spread": 1.0},
        "entries of variance 1 / (d + 1)": {"spread": 0.3},
        "keys without the appended 1": {"gram": lambda x, y: x @ y.T},
    },
)
@given(size=st.tuples(st.integers(1, 5), st.integers(1, 6)), seed=seeds)
def test_the_kernel_is_assembled_from_the_covariance_of_the_scores(
    evidence, size, seed, *, spread=SPREAD, gram=lambda x, y: 1 + x @ y.T
):
    """Scores are Gaussian with the covariance read off unit matrices; each pair has the closed form of the proof."""
    keys, d = size
    draw = np.random.default_rng(seed)
    x, y = sphere(draw, 3, keys + 1, d), sphere(draw, 2, keys + 1, d)
    covariance = score_covariance(x, y, spread)
    variances = [np.einsum("nini->ni", score_covariance(one, one, spread)) for one in (x, y)]
    scale = np.sqrt(np.einsum("ni,mj->nimj", *variances))
    flat = [one[:, 1:].reshape(-1, d) for one in (x, y)]
    values = gram(*flat).reshape(3, keys, 2, keys)
    assembled = (scale * kappa(covariance / scale) * values).mean(axis=(1, 3))
    budget = (4 * (d + 1) ** 2 + keys**2) * EPS
    evidence.expect("kernel minus its assembly", kernel(x, y) - assembled, equals=0, error=budget)


def softmax_features(x, W):
    """Heads with softmax in place of ReLU."""
    scores = np.exp(head_scores(x, W))
    return scores / scores.sum(axis=-1, keepdims=True) @ extend(x[:, 1:])


@infinite.check(
    "statistical",
    scope="simulated heads",
    controls={
        "entries of variance 1": {"spread": 1.0},
        "softmax heads": {"features": softmax_features},
        "the network's kernel": {"limit": network_kernel},
    },
)
def test_the_average_over_many_heads_is_the_kernel(
    evidence, rng, *, spread=SPREAD, features=head_features, limit=kernel
):
    """20 000 heads, 12 inputs of N = 5 keys in d = 6: each of 78 entries within its Monte-Carlo error."""
    x = sphere(rng("inputs"), 12, 6, 6)
    z = monte_carlo_scores(rng("heads"), limit(x, x), x, 20_000, features, spread=spread)
    evidence.z_scores("Monte-Carlo error of the entries, in standard errors", z, alpha=ALPHA)
