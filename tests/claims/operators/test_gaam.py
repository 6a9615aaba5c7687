"""Gaussian adaptive attention: which distributions its weights can take (Ioannides, Chadha, Elkins, 2024).

What the paper says. A head weighs features by Gaussians of their value, with learnable offset delta and width c; heads
together "model any Probability Distribution" (abstract; the README: "approximate any Probability Distribution to derive
attention weights"). The released code multiplies the K Gaussians of a head: here that is shown to be one Gaussian. The
gate as a layer is in test_gaam_gate.py, what training finds in test_gaam_trained.py.

Notation. offset, width (K,) are delta_k, c_k; a target is a distribution over the features of one chunk, one head each.
Distances between distributions are total variations.

Scope. The released operator (GaussianBlock.py), and by ties every version, the paper's form and a sum included.
"""

import math

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import gaussian_adaptive, gaussian_adaptive_paper, normalised, softmax_rows
from theory.operators.gaam import (
    LEAST_DISTANCE,
    best_bell,
    best_masses,
    golden_bell,
    merged,
    mixture,
    multi_head,
    narrow_width,
    total_variation,
    two_bumps,
)

PAPER = "ioannides2024gaam"
EPS = np.finfo(float).eps
THREE = np.array([-1.0, 0.0, 1.0])
ENDS = np.array([0.5, 0.0, 0.5])

seeds = st.integers(0, 2**32 - 1)
no_shrinking = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler case
bells = st.lists(st.tuples(st.floats(-3, 3), st.floats(0.5, 5)), min_size=1, max_size=6)


def product(x, offset, width):
    """The released operator, without the floor of its denominator."""
    return gaussian_adaptive(x, offset, width, eps=0.0)


def evenly_mixed(x, offset, width):
    """The same Gaussians summed, with equal masses."""
    return mixture(x, np.ones_like(offset), offset, width)


any_distribution = Claim(
    paper=PAPER,
    slug="any-distribution",
    where="Abstract, README",
    says="The K Gaussians of a head can take the form of any distribution over the values of its features.",
    formula=r"\forall p \; \exists \delta, c : \quad w_j(\delta, c) = p_j, \qquad"
    r" w_j \propto \prod_{k=1}^K e^{-(x_j - \mu - \delta_k)^2 / (2 c_k^2 \sigma^2)}",
    gap="That a mixture can represent a target does not say that training finds it (see released-mixture-learns).",
    repair="For a SUM of K Gaussians with free masses, which the code does not compute: on n distinct values K = n "
    "suffice, to any accuracy; a density on the line is approached as K grows.",
)


@any_distribution.refutation("proof", controls={"Gaussians summed": {"combined": lambda factors: sum(factors)}})
def test_gaussians_multiplied_are_one_gaussian(evidence, *, combined=math.prod):
    """The logarithm of the weights is a quadratic in x with a negative leading term; offsets and widths are symbols.

    Two Gaussians merge into one of precision 1/c^2 = sum 1/c_k^2; so by induction do K, and K only adds parameters.
    """
    import sympy

    x = sympy.Symbol("x", real=True)
    for count in (1, 2, 3):
        offset, width = sympy.symbols(f"delta:{count}", real=True), sympy.symbols(f"c:{count}", positive=True)
        factors = [sympy.exp(-((x - d) ** 2) / (2 * c**2)) for d, c in zip(offset, width, strict=True)]
        log = sympy.expand_log(sympy.log(combined(factors)), force=True)
        quadratic = bool(log.is_polynomial(x)) and sympy.degree(log, x) == 2
        evidence.true("log-weights are a quadratic in x", quadratic)
        precision = sum(1 / c**2 for c in width)
        centre = sum(d / c**2 for d, c in zip(offset, width, strict=True)) / precision
        one = -precision * (x - centre) ** 2 / 2
        evidence.true("log-weights are one Gaussian's, up to a constant", sympy.cancel(sympy.diff(log - one, x)) == 0)


@any_distribution.refutation("property", controls={"Gaussians summed": {"weights": evenly_mixed}})
@given(parameters=bells)
def test_no_head_comes_near_a_target_with_a_dip(evidence, parameters, *, weights=product):
    """Three features -1, 0, 1, target (1/2, 0, 1/2): b^2 >= a c keeps every product of bells (sqrt 5 - 1)/4 away."""
    offset, width = np.array(parameters).T
    found = weights(THREE, offset, width)
    evidence.counterexample("no parameters reach these weights", features=[-1, 0, 1], target=["1/2", 0, "1/2"])
    # Sum of the exponents, whose rounding the exponential passes on.
    budget = 8 * EPS * (1 + ((4 / width) ** 2).sum())
    evidence.expect("b^2 - a c", found[1] ** 2 - found[0] * found[2], at_least=-budget)
    evidence.expect("distance from the target", total_variation(found, ENDS), at_least=LEAST_DISTANCE - budget)


@any_distribution.refutation(
    "exact", scope="sharpness of the bound", controls={"bells not tilted": {"offset": lambda width: 0.0}}
)
def test_the_distance_is_approached_and_two_features_are_too_few(evidence, *, offset=golden_bell):
    """Wide bells with w_0 / w_-1 at the golden ratio's inverse come within 1/c^2; two features reach every p."""
    for width in (3.0, 10.0, 30.0):
        found = product(THREE, np.array([offset(width)]), np.array([width]))
        excess = total_variation(found, ENDS) - LEAST_DISTANCE
        evidence.expect("distance above the bound, times c^2", excess * width**2, within=(0, 1))
    two = np.array([0.0, 1.0])
    for share in (0.001, 0.5, 0.9):
        tilt = 0.5 * math.log((1 - share) / share)  # mean 1/2, variance 1/2: w_1 / w_0 = exp(2 delta / c^2)
        reached = product(two, np.array([tilt]), np.array([1.0]))
        evidence.expect("w_0 on two features", reached[0], equals=share, error=8 * EPS)


@any_distribution.refutation("experiment", scope="two bumps", controls={"sum of Gaussians": {"kind": "summed"}})
def test_more_gaussians_fit_two_bumps_no_better(evidence, rng, *, kind="product"):
    """Descent on the divergence for K = 1, 2, 5, 10 on 201 values; no single Gaussian of a fine grid does better."""
    import torch

    from empirical.operators import gaam

    x, target = two_bumps()
    least, bell = best_bell(x, target)
    generator = torch.Generator().manual_seed(rng.seed("starts"))
    fits = {}
    for count in (1, 2, 5, 10):
        fits[count], _ = gaam.approximate(x, target, getattr(gaam, kind), gaam.random_start(count, generator), 250)
        # The grid's least is that of one Gaussian up to the grid's cells; half of it lies half-way to a perfect fit.
        evidence.expect(
            f"distance from two bumps, K = {count}", total_variation(fits[count], target), at_least=least / 2
        )
    evidence.note(f"Best single Gaussian of the grid: distance {least:.3f}.")
    summed, _ = gaam.approximate(x, target, gaam.summed, gaam.random_start(5, generator), 250)
    evidence.figure(
        "Two bumps: what a product and a sum of Gaussians can do",
        figure_of(x, target, {"product, K = 10": fits[10], "best single Gaussian": bell, "sum, K = 5": summed}),
        "The product of ten Gaussians is one Gaussian; it minimises the divergence, the grid's bell the distance.",
    )


@any_distribution.check(
    "property",
    controls={
        "Gaussians multiplied": {"weights": lambda x, mass, offset, width: product(x, offset, width)},
        "masses all equal": {"weights": lambda x, mass, offset, width: evenly_mixed(x, offset, width)},
    },
)
@no_shrinking
@given(steps=st.lists(st.integers(1, 20), min_size=2, max_size=9), distance=st.floats(1e-9, 0.1), seed=seeds)
def test_a_sum_with_free_masses_takes_any_values(evidence, steps, distance, seed, *, weights=mixture):
    """One narrow bell on each of n distinct values; leaks bound the distance by (n - 1) exp(-gap^2 / (2 c^2 s^2))."""
    x = np.cumsum([0, *steps]) / 8.0
    target = np.random.default_rng(seed).dirichlet(np.full(len(x), 0.3))
    width = np.full(len(x), narrow_width(x, distance))
    found = weights(x, target, x - x.mean(), width)
    evidence.expect("distance over its bound", total_variation(found, target) / distance, at_most=1 + 1e3 * EPS)


@any_distribution.check(
    "experiment", scope="four densities", controls={"one Gaussian": {"fit": lambda x, p, K: best_bell(x, p)[1]}}
)
def test_sums_approach_densities_as_they_get_more_terms(evidence, *, fit=best_masses):
    """Laplace, uniform, exponential, three peaks: with K = 100 less than half the best single Gaussian's distance."""
    x = np.linspace(-3, 3, 201)
    densities = {
        "Laplace": np.exp(-math.sqrt(2) * abs(x)),
        "uniform": (abs(x) < 1.5).astype(float),
        "exponential": np.exp(-(x + 1.5)) * (x > -1.5),
        "three peaks": sum(np.exp(-((x - m) ** 2) / (2 * 0.15**2)) for m in (-2, 0, 2)),
    }
    for name, density in densities.items():
        target = density / density.sum()
        least = best_bell(x, target)[0]
        distances = [float(total_variation(fit(x, target, count), target)) for count in (12, 25, 50, 100)]
        evidence.note(f"{name}: {', '.join(f'{d:.2g}' for d in distances)} for K = 12, 25, 50, 100.")
        evidence.expect(
            f"distance of the sum, {name}", distances[-1], less_than=("half the single Gaussian's", least / 2)
        )


over_positions = Claim(
    paper=PAPER,
    slug="any-distribution-over-positions",
    where="README: 'any Probability Distribution to derive attention weights', read over positions",
    says="Weights can take any distribution over the features of a chunk, whatever their values.",
    formula=r"\forall x, p \; \exists \theta : \quad w_j(x; \theta) = p_j",
    gap="Ties of measure zero in float data; near ties behave the same by continuity for widths that are not tiny.",
)


@over_positions.refutation(
    "property",
    controls={
        "logits per position added": {
            "version": lambda x, mass, offset, width: softmax_rows(np.arange(x.shape[-1]) * offset[0] - offset[0] * x)
        }
    },
)
@no_shrinking
@given(parameters=bells, level=st.floats(-2, 2), others=st.lists(st.floats(-2, 2), max_size=4), seed=seeds)
def test_equal_features_get_equal_weights(evidence, parameters, level, others, seed, *, version=None):
    """Two features of one value in one chunk: the target (1, 0) stays at distance 1/2 under every version."""
    offset, width = np.array(parameters).T
    offset = np.where(offset == 0, 1.0, offset)
    x = np.array([level, level, level + 1, *others])
    mass = np.random.default_rng(seed).dirichlet(np.ones(len(offset)))
    versions = {
        "released": lambda x, mass, offset, width: gaussian_adaptive(x, offset, width),
        "paper": lambda x, mass, offset, width: gaussian_adaptive_paper(x, offset[0], width[0]),
        "sum": mixture,
    }
    evidence.counterexample("the same for all parameters", features=[1, 1], target=[1, 0], weights=["1/2", "1/2"])
    for one in versions.values() if version is None else [version]:
        found = one(x, mass, offset, width)
        evidence.expect("difference of the two weights", found[0] - found[1], equals=0, error=0)


together = Claim(
    paper=PAPER,
    slug="heads-collectively",
    where="Abstract: the heads 'collectively model any Probability Distribution'",
    says="The heads of a layer together can take any distribution over all features of the layer.",
    formula=r"\forall p \; \exists \theta_1, \dots, \theta_H : \quad \frac{w_j}{\sum_i w_i} = p_j",
    gap="The released layer, in which each head has consecutive features of its own; the paper's text on heads was not "
    "available to us.",
)


def under_one_sum(x, offset, width):
    """The same chunks, their Gaussians brought to sum 1 together; the first Gaussian of each head."""
    return normalised(multi_head(x, offset[:, :1], width[:, :1], weights=gaussian_adaptive_paper))


@together.refutation("property", controls={"one sum for all heads": {"layer": under_one_sum}})
@no_shrinking
@given(heads=st.integers(2, 4), size=st.integers(2, 5), count=st.integers(1, 3), seed=seeds)
def test_each_head_gets_an_equal_share(evidence, heads, size, count, seed, *, layer=None):
    """Weights of H chunks that sum to 1 each: all weight on the first feature stays at a distance of 1 - 1/H.

    Features of a chunk are 0, ..., size - 1 in random order, so that no Gaussian underflows.
    """
    draw = np.random.default_rng(seed)
    x = np.concatenate([draw.permutation(size) for _ in range(heads)]).astype(float)
    first = np.eye(heads * size)[0]
    offset, width = draw.uniform(-2, 2, (heads, count)), draw.uniform(0.5, 3, (heads, count))
    found = multi_head(x, offset, width, weights=product) if layer is None else layer(x, offset, width)
    found /= found.sum()
    budget = 4 * heads * size * EPS
    evidence.expect("share of a head", found.reshape(heads, size).sum(axis=1), equals=1 / heads, error=budget)
    evidence.expect("distance over 1 - 1/H", total_variation(found, first) / (1 - 1 / heads), at_least=1 - budget)
    evidence.counterexample("for all parameters of two heads", target=[1, 0, 0, 0], share_of_each_head="1/2")


def figure_of(x, target, fits):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(x, target, color="0.85", label="target")
    for (name, weights), style in zip(fits.items(), ("-", ":", "--"), strict=True):
        axes.plot(x, weights, style, label=name)
    axes.set(xlabel="standardised value of the feature", ylabel="weight")
    axes.legend(frameon=False)
    return figure


collapse = Claim(
    paper=PAPER,
    slug="more-gaussians-more-expressive",
    where="README (num_gaussians), where K = 5 is the example",
    says="A head of K Gaussians can weigh features in ways that a head of one cannot.",
    formula=r"w(\delta_1, \dots, \delta_K, c_1, \dots, c_K) \ne w(\delta^\star, c^\star)",
    gap="K changes the start and the path of training, though not what can be represented.",
)


@collapse.refutation("property", controls={"Gaussians summed": {"weights": evenly_mixed}})
@no_shrinking
@given(parameters=st.lists(st.tuples(st.floats(-2, 2), st.floats(0.5, 5)), min_size=2, max_size=10), seed=seeds)
def test_one_gaussian_gives_the_weights_of_many(evidence, parameters, seed, *, weights=product):
    """1/c^2 = sum 1/c_k^2 and the mean of the offsets with these precisions: the same weights to rounding."""
    offset, width = np.array(parameters).T
    x = np.random.default_rng(seed).standard_normal(12)
    one, its_width = merged(offset, width)
    single = product(x, np.array([one]), np.array([its_width]))
    # Exponents up to the sum of (|x| + |delta|)^2 / (2 c^2 s^2); their rounding is the weights' relative error.
    exponent = ((abs(x - x.mean()).max() + abs(offset)) ** 2 / (2 * width**2 * x.var(ddof=1))).sum()
    budget = 16 * EPS * (1 + exponent)
    evidence.expect("largest difference of a weight", weights(x, offset, width) - single, equals=0, error=budget)
