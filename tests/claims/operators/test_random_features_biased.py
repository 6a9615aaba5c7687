"""Random-feature attention: heads with a mean, and heads with random factors (Fu, Guo, Bai, Mei 2023).

What the paper says. A non-zero mean of the random query-key matrices gives another kernel (Section 4). The abstract
speaks of random query and key matrices; the theory samples their product.

Notation and scope. As in test_random_features.py.
"""

from functools import cache

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.random_features import (
    biased_kernel,
    bivariate_relu,
    diagonal_mean,
    factored_heads,
    factored_kappa,
    head_features,
    kappa,
    kernel,
    monte_carlo_scores,
    normal_density,
    rank_one_kappa,
    sphere,
)

PAPER = "fu2023single"
EPS = np.finfo(float).eps
ALPHA = 2e-5


def hundredths(most):
    """Numbers from -most/100 to most/100."""
    return st.integers(-most, most).map(lambda k: k / 100)


biased = Claim(
    paper=PAPER,
    slug="biased-kernel",
    where="Section 4 (biased query-key matrices; closed form ours)",
    says="With query-key matrices of non-zero mean, the kernel averages the product moment of two rectified Gaussians "
    "whose means are the scores of the mean matrix.",
    formula=r"K = \frac{1}{N^2} \sum_{i,j} (1 + b_{ij}) \, \mathbb{E}\bigl[\max(m_i + g, 0) \max(m_j' + g', 0)\bigr], "
    r"\quad m_i = \langle W_0, \tilde x_0 \tilde x_i^\top \rangle",
    gap="ReLU heads with Gaussian W of independent entries.",
)


def moment_of_rectified(a, b, rho, parts):
    """The closed form with Phi_2 and Phi as symbols: (a b + rho) P + a phi(b) U + b phi(a) V + q^2 phi_2."""
    return (a * b + rho) * parts["P"] + a * parts["phi_b"] * parts["U"] + b * parts["phi_a"] * parts["V"] + parts["end"]


@biased.check(
    "proof",
    scope="one pair of scores",
    controls={
        "without the density term": {"closed": lambda a, b, rho, p: moment_of_rectified(a, b, rho, p | {"end": 0})},
        "correlation left out": {"closed": lambda a, b, rho, p: moment_of_rectified(a, b, rho, p) - rho * p["P"]},
    },
)
def test_the_moment_of_rectified_gaussians_solves_prices_equation(evidence, *, closed=moment_of_rectified):
    """Price: its derivative in the correlation is P(both positive) = Phi_2; at correlation 0 it is a product.

    Phi and Phi_2 are unknown functions of which only the derivatives are used: dPhi_2/drho = phi_2.
    """
    import sympy

    a, b, rho, P, U, V = sympy.symbols("a b rho P U V", real=True)
    q = sympy.Symbol("q", positive=True)  # sqrt(1 - rho^2), so that dq/drho = -rho/q
    u, v = (a - rho * b) / q, (b - rho * a) / q

    def slope(term):
        return sympy.diff(term, rho) - sympy.diff(term, q) * rho / q

    def density(z):
        return sympy.exp(-(z**2) / 2) / sympy.sqrt(2 * sympy.pi)

    joint = sympy.exp(-(a**2 - 2 * rho * a * b + b**2) / (2 * q**2)) / (2 * sympy.pi * q)
    parts = {"P": P, "U": U, "V": V, "phi_a": density(a), "phi_b": density(b), "end": q**2 * joint}
    value = closed(a, b, rho, parts)
    chain = {P: joint, U: density(u) * slope(u), V: density(v) * slope(v)}
    total = slope(value) + sum(sympy.diff(value, symbol) * rate for symbol, rate in chain.items())
    # Each product of densities is a multiple of phi_2: exponents cancel once they stand in one exponential.
    ratio = [sympy.powsimp(term / joint, combine="exp", force=True) for term in sympy.expand(total - P).args]
    rest = sum(
        term.replace(sympy.exp, lambda power: sympy.exp(sympy.cancel(sympy.expand(power).subs(rho**2, 1 - q**2))))
        for term in ratio
    )
    evidence.expect("derivative minus Phi_2 is not zero", int(sympy.expand(rest) != 0), equals=0, error=0)
    # At rho = 0: U = Phi(a), V = Phi(b), P = U V, and the moment is (a Phi(a) + phi(a)) (b Phi(b) + phi(b)).
    start = value.subs({rho: 0, q: 1}).subs(P, U * V) - (a * U + density(a)) * (b * V + density(b))
    evidence.expect("value without correlation is off", int(sympy.simplify(start) != 0), equals=0, error=0)


@cache
def gauss_legendre(panels=16):
    """Nodes and weights on [0, 1]: 40 nodes in each of equal panels (numpy vouches for rules of up to 100 nodes)."""
    nodes, mass = np.polynomial.legendre.leggauss(40)
    return ((nodes + 1) / 2 + np.arange(panels)[:, None]).ravel() / panels, np.tile(mass / 2, panels) / panels


def by_quadrature(a, b, rho):
    """E relu(a + z) relu(b + rho z + q z'), the inner mean in closed form and the outer by Gauss-Legendre."""
    from scipy.special import ndtr

    nodes, mass = gauss_legendre()
    low, high = max(-a, -9.0), 9.0
    z = low + (high - low) * nodes
    q, centre = np.sqrt(1 - rho**2), b + rho * z
    inner = centre * ndtr(centre / q) + q * normal_density(centre / q)
    return (high - low) * mass @ ((a + z) * inner * normal_density(z))


@biased.check(
    "exact",
    scope="one pair of scores, numerically",
    controls={
        "independent scores": {"moment": lambda a, b, rho: bivariate_relu(a, b, np.float64(0))},
        "means left out": {"moment": lambda a, b, rho: kappa(np.float64(rho))},
    },
)
@given(a=hundredths(300), b=hundredths(300), rho=hundredths(99))
def test_the_closed_moment_is_the_integral(evidence, a, b, rho, *, moment=bivariate_relu):
    """Gauss-Legendre, 16 panels of 40 nodes; what lies beyond nine standard deviations is below 1e-16."""
    # The integrand is at most 12 * 12; scipy's Owen T and normal distribution are good to about 1e-15 relative to 1.
    value = moment(np.float64(a), np.float64(b), np.float64(rho))
    evidence.expect("closed form minus integral", value - by_quadrature(a, b, rho), equals=0, error=1e3 * EPS)


@biased.check(
    "statistical",
    controls={
        "the kernel without the mean": {"limit": lambda x, mean: kernel(x, x)},
        "half the mean": {"limit": lambda x, mean: biased_kernel(x, x, mean / 2)},
        "the mean with its sign flipped": {"limit": lambda x, mean: biased_kernel(x, x, -mean)},
    },
)
def test_the_average_over_many_biased_heads_is_the_biased_kernel(
    evidence, rng, *, limit=lambda x, mean: biased_kernel(x, x, mean)
):
    """20 000 heads of mean sqrt(d) I, 12 inputs of N = 5 keys in d = 6: each entry within its Monte-Carlo error."""
    x, mean = sphere(rng("inputs"), 12, 6, 6), diagonal_mean(6, np.sqrt(6))
    z = monte_carlo_scores(rng("heads"), limit(x, mean), x, 20_000, head_features, mean)
    evidence.z_scores("Monte-Carlo error of the entries, in standard errors", z, alpha=ALPHA)


# -- The abstract's wording -------------------------------------------------------------------------------------------

factors = Claim(
    paper=PAPER,
    slug="random-query-and-key-matrices",
    where="Abstract (our literal reading: query and key matrices are what is random)",
    says="Heads with Gaussian query and key matrices Q and K, of any width, have the kernel of heads whose product "
    "Q^T K is Gaussian.",
    formula=r"\mathbb{E}_{Q,K} \langle \varphi_{Q^\top K}, \varphi_{Q^\top K}' \rangle = "
    r"\mathbb{E}_{W} \langle \varphi_W, \varphi_W' \rangle",
    gap="The rate of the repaired statement is exact for opposite queries; general inputs by simulation at width 1. "
    "The paper's theory itself samples the product W.",
    repair="in the limit of wide factors: for opposite queries the relative error at width p is at most 1 / (2 p).",
)


def distance_to_gaussian(width, key):
    """Relative distance of the kernel at orthogonal x~_0, x~_0'."""
    return 1 - factored_kappa(width, key) / kappa(np.float64(0))


@factors.refutation("exact", controls={"the product is Gaussian": {"product": lambda query, key: kappa(query * key)}})
def test_rank_one_heads_have_another_kernel(evidence, *, product=rank_one_kappa):
    """d = 2, N = 1, width 1: queries e_1 and -e_1, keys e_1 and e_2. In closed form the kernels differ by 28 %."""
    x, y = np.array([[[1.0, 0], [1, 0]]]), np.array([[[-1.0, 0], [0, 1]]])
    query, key = (1 + x[:, 0] @ y[:, 0].T) / 2, (1 + x[:, 1] @ y[:, 1].T) / 2
    share = float((product(query, key) / kernel(x, y))[0, 0])
    evidence.expect("rank-one over Gaussian kernel", share, equals=(np.sqrt(3) + np.pi / 6) / np.pi, error=16 * EPS)
    evidence.counterexample("One key each, two dimensions", x=x.tolist(), y=y.tolist(), share=round(share, 4))


@factors.refutation("statistical", controls={"heads of width 64": {"width": 64}})
def test_simulated_rank_one_heads_have_the_kernel_of_the_closed_form(evidence, rng, *, width=1):
    """40 000 rank-one heads agree with 2 kappa kappa + 2 kappa(-) kappa(-) on 10 inputs, which is not kappa."""
    x = sphere(rng("inputs"), 10, 2, 4)
    a, b = (x[:, 0] @ x[:, 0].T + 1) / 2, (x[:, 1] @ x[:, 1].T + 1) / 2
    phi = head_features(x, factored_heads(rng("heads"), 40_000, 4, width)).swapaxes(0, 1)
    products = phi @ phi.mT
    error = products.std(axis=0) / np.sqrt(len(phi))
    rows = np.triu_indices(10)
    z = ((products.mean(axis=0) - 2 * b * rank_one_kappa(a, b)) / error)[rows]
    evidence.z_scores("distance from the rank-one form, in standard errors", z, alpha=ALPHA)
    away = np.abs((products.mean(axis=0) - kernel(x, x)) / error)[rows].max()
    evidence.note(f"The same averages are up to {away:.0f} standard errors from the kernel of Gaussian W.")


@factors.check("exact", controls={"width 1 throughout": {"distance": lambda width, key: distance_to_gaussian(1, key)}})
def test_wide_factors_approach_the_gaussian_kernel(evidence, *, distance=distance_to_gaussian):
    """Width p = 1 to 65 536 and keys of any similarity: p times the relative error lies between 0 and 1/2.

    (E|q|)^2 / p >= 1 - 1/(2 p) by Kershaw's bound of the ratio of Gammas, and the series over powers is >= kappa(0).
    """
    for width in (2**k for k in range(17)):
        for key in (0.0, 0.3, 0.6, 0.9):
            error = distance(width, key)
            # lgamma of p/2 is about p log p; its rounding enters the relative error.
            budget = 8 * width * np.log(width + 1) * EPS
            evidence.expect("width times the relative error", width * error, at_most=0.5 + width * budget)
            evidence.expect("relative error", error, at_least=-budget)
