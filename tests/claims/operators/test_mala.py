"""Magnitude-aware linear attention: what it adds to linear attention, and why (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. Linear attention divides out the magnitude of the query, softmax does not: there, scaling the query
turns the ratio p of two scores into p^a (section 3). MALA multiplies the kernel by beta = 1 + 1/z and subtracts
gamma = z/N, so that rows still sum to 1 (section 4).

Notation. S_j = phi(q).phi(k_j) >= 0 is a row of the kernel, z its sum, N the number of keys; a multiplies phi(q). Then
MALA is S_j / z + a (S_j - z / N): linear attention plus the centred kernel.

Scope. One row, exact arithmetic where possible. How ratios of scores grow is in test_mala_ratios.py, that they may be
negative in test_mala_signs.py, cost in test_mala_cost.py, the released code in test_mala_code.py, the paper's tables in
test_mala_tables.py, what training shows in test_mala_trained.py.
"""

from fractions import Fraction

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import elu_plus_one, exp_map, focused, linear, mala, relu_map, softmax
from theory.operators.mala import identity, row_scores, scaled_score, total_variation

PAPER = "fan2025mala"
EPS = np.finfo(float).eps
unshrunk = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler one
seeds = st.integers(0, 2**32 - 1)


def unscaled_gamma(q, k, *, feature_map):
    """gamma = z, without the 1 / N."""
    S = feature_map(q) @ feature_map(k).T
    z = S.sum(-1)[:, None]
    return S + S / z - z


def bare_beta(q, k, *, feature_map):
    """beta = 1 / z, without the 1."""
    S = feature_map(q) @ feature_map(k).T
    z = S.sum(-1)[:, None]
    return S / z - z / S.shape[-1]


# -- A4: rows sum to one ----------------------------------------------------------------------------------------------

sums = Claim(
    paper=PAPER,
    slug="rows-sum-to-one",
    where="Section 4",
    says="For every query with a positive kernel row MALA's scores over the keys sum to 1: they are linear attention's "
    "plus the centred kernel.",
    formula=r"A_j = \left(1 + \frac{1}{z}\right) S_j - \frac{z}{N} = \frac{S_j}{z} + \left(S_j - \frac{z}{N}\right), "
    r"\quad \sum_{j=1}^{N} A_j = 1",
    gap="That they sum to 1 does not make them probabilities, and the released vision model breaks it.",
)
BROKEN_SUMS = {"gamma without 1/N": {"operator": unscaled_gamma}, "beta = 1/z": {"operator": bare_beta}}


@sums.check("proof", controls=BROKEN_SUMS)
def test_the_sum_is_one_identically_in_the_row(evidence, *, operator=mala):
    """Symbolic rows of 1 to 6 keys: sum 1 and the decomposition; then the sum with N a symbol."""
    import sympy as sp

    a, N, z = sp.symbols("a N z", positive=True)
    for n in range(1, 7):
        row = sp.symbols(f"s:{n}", positive=True)
        scores = row_scores(row, a, operator)
        evidence.true("scores sum to 1", sp.simplify(sum(scores) - 1) == 0)
        off = [score - scaled_score(s, sum(row), n, a) for s, score in zip(row, scores, strict=True)]
        evidence.true("linear attention plus the centred kernel", all(sp.simplify(one) == 0 for one in off))
    # The scores are affine in S_j, so that their sum over N keys has S_j replaced by z once and its constants N times.
    s = sp.Symbol("s")
    slope = sp.diff(scaled_score(s, z, N, a), s)
    evidence.true("sum over N keys", sp.simplify(slope * z + N * scaled_score(0, z, N, a) - 1) == 0)


@sums.check("property", controls=BROKEN_SUMS)
@unshrunk
@given(n=st.integers(2, 200), d=st.integers(1, 64), seed=seeds)
def test_rows_of_random_features_sum_to_one(evidence, n, d, seed, *, operator=mala):
    """ELU + 1 of Gaussian queries and keys in float64, the paper's scale."""
    q, k = np.random.default_rng(seed).standard_normal((2, n, d))
    A = operator(q, k, feature_map=elu_plus_one)
    # Sums of N terms of this size, whose own errors are (d + N) roundings of the kernel's.
    budget = n * (n + d) * EPS * abs(A).max()
    evidence.expect("largest |row sum - 1| over its rounding budget", abs(A.sum(-1) - 1).max() / budget, at_most=1)


# -- A2: what linear attention disregards ------------------------------------------------------------------------------

neglect = Claim(
    paper=PAPER,
    slug="linear-attention-ignores-magnitude",
    where="Abstract, Equation 4, README ('Q or phi(Q)')",
    says="Linear attention entirely disregards the magnitude of the query Q.",
    formula=r"\frac{\phi(aq) \phi(k_j)^\top}{\sum_m \phi(aq) \phi(k_m)^\top} "
    r"= \frac{\phi(q) \phi(k_j)^\top}{\sum_m \phi(q) \phi(k_m)^\top}",
    gap="How much of ELU + 1's sensitivity a trained network uses.",
    repair="It disregards the magnitude of phi(Q); that of Q where phi is positively homogeneous, as ReLU is and the "
    "paper's ELU + 1 and exp are not.",
)


@neglect.refutation("exact", controls={"ReLU": {"feature_map": relu_map}})
def test_doubling_a_query_moves_the_weights_of_elu_plus_one(evidence, rng, *, feature_map=elu_plus_one):
    """q = (1, 0), keys (1, 0) and (0, 1): weights (5/9, 4/9) become (7/12, 5/12). Width 2 is least: at 1 phi cancels.

    The figure has total variations of random rows (N = 196, d = 32) when q is scaled: ELU + 1 moves, less than softmax.
    """

    def weights(q):
        exact = [np.vectorize(Fraction, otypes=[object])(feature_map(np.array(x, float))) for x in (q, np.eye(2))]
        return linear(*exact, feature_map=identity)[0]

    before, after = weights([[1, 0]]), weights([[2, 0]])
    evidence.counterexample("phi = ELU + 1, N = d = 2", q=(1, 0), keys=((1, 0), (0, 1)), once=[*before], twice=[*after])
    evidence.expect("total variation", total_variation(before, after), equals=Fraction(1, 36), error=0)
    evidence.figure(*figure_of_maps(rng("figure")))


MAPS = {"ReLU": relu_map, "focused, p = 3": focused, "ELU + 1": elu_plus_one, "exp": exp_map}


def figure_of_maps(draw):
    """Title, figure and caption: mean total variation between the weights of q and of a q, by feature map."""
    from matplotlib.figure import Figure

    q, k = draw.standard_normal((2, 196, 32))
    factors = 2.0 ** np.arange(-4, 5)
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    operators = {name: lambda x, phi=phi: linear(x, k, feature_map=phi) for name, phi in MAPS.items()}
    for name, operator in {**operators, "softmax": lambda x: softmax(x, k)}.items():
        moved = [total_variation(operator(a * q), operator(q)).mean() for a in factors]
        axes.plot(factors, moved, ".-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("factor on the query")
    axes.set_ylabel("total variation")
    axes.legend(frameon=False, fontsize="small")
    return "What scaling a query does to attention weights", figure, "Gaussian queries and keys, N = 196, d = 32."


@neglect.check("proof", controls={"MALA": {"operator": mala}})
def test_the_magnitude_of_the_features_cancels_identically(evidence, *, operator=linear):
    """Symbolic rows of 1 to 6 keys: multiplying phi(q), and with it the whole row of the kernel, changes nothing.

    The kernel enters by its row alone, and a positively homogeneous phi takes a factor of q to one of phi(q).
    """
    import sympy as sp

    a = sp.Symbol("a", positive=True)
    for n in range(1, 7):
        row = sp.symbols(f"s:{n}", positive=True)
        off = row_scores(row, a, operator) - row_scores(row, sp.Integer(1), operator)
        evidence.true("weights unchanged", all(sp.simplify(one) == 0 for one in off))


@neglect.check(
    "property",
    scope="positively homogeneous feature maps",
    controls={name: {"maps": (MAPS[name],)} for name in ("ELU + 1", "exp")},
)
@unshrunk
@given(n=st.integers(2, 100), d=st.integers(2, 32), seed=seeds, power=st.floats(-4, 4).filter(lambda x: abs(x) > 0.1))
def test_homogeneous_maps_ignore_the_magnitude_of_the_query(
    evidence, n, d, seed, power, *, maps=(relu_map, lambda x: focused(x, 3))
):
    """Gaussian queries and keys, q scaled by 2^-4 .. 2^4: ReLU and the focused map of third powers."""
    q, k = np.random.default_rng(seed).standard_normal((2, n, d))
    for phi in maps:
        moved = total_variation(linear(q, k, feature_map=phi), linear(2**power * q, k, feature_map=phi))
        # Each weight has the relative error of d + N additions and a dozen operations in phi, twice.
        evidence.expect("total variation", moved, at_most=2 * (n + d + 12) * EPS)


# -- A3: softmax does not ----------------------------------------------------------------------------------------------

sharpens = Claim(
    paper=PAPER,
    slug="softmax-sharpens-with-magnitude",
    where="Section 3",
    says="In softmax attention scaling a query by a > 1 turns every ratio p of two weights into p^a; the row's entropy "
    "falls, at the rate a times the variance of its scores under the weights.",
    formula=r"\frac{w_m(a)}{w_n(a)} = \left(\frac{w_m(1)}{w_n(1)}\right)^a, \quad "
    r"\frac{dH}{da} = -a \operatorname{Var}_{w(a)}(s) \le 0",
    gap="A statement about one row; it says nothing of what training does with it.",
)


def gibbs(values, a):
    """Softmax of a times the values, in symbols."""
    import sympy as sp

    powers = [sp.exp(a * s) for s in values]
    return [p / sum(powers) for p in powers]


@sharpens.check(
    "proof",
    controls={"linear attention": {"weights": lambda values, a: list(row_scores(values, a, linear))}},
)
def test_ratio_law_and_slope_of_the_entropy(evidence, *, weights=gibbs):
    """Symbolic rows of 2 to 4 scores: both identities; then the slope for any number of them.

    With the partition sum Z(a) = sum_j exp(a s_j) left abstract, H = ln Z - a Z'/Z, the mean score is Z'/Z and the mean
    square Z''/Z, whatever N. The variance is a sum of squares with weights w >= 0.
    """
    import sympy as sp

    a = sp.Symbol("a", positive=True)
    Z = sp.Function("Z")(a)
    mean, square = (sp.diff(Z, a, order) / Z for order in (1, 2))
    abstract = sp.diff(sp.log(Z) - a * mean, a) + a * (square - mean**2)
    evidence.true("slope of the entropy, any number of keys", sp.simplify(abstract) == 0)
    for n in (2, 3, 4):
        values = sp.symbols(f"s:{n}", positive=True)
        w = weights(values, a)
        ratio = sp.simplify(sp.expand_log(sp.log(w[0] / w[1]), force=True) - a * (values[0] - values[1]))
        evidence.true("log ratio is a times the difference of scores", ratio == 0)
        slope = sum(-sp.diff(p, a) * sp.log(p) for p in w)  # the weights sum to 1: the derivative of p has no part
        logs = {sp.log(p): a * s for p, s in zip(w, values, strict=True)}  # up to log of the partition sum, which drops
        mean = sum(p * s for p, s in zip(w, values, strict=True))
        variance = sum(p * (s - mean) ** 2 for p, s in zip(w, values, strict=True))
        evidence.true("slope of the entropy", sp.simplify(slope.subs(logs) + a * variance) == 0)


@sharpens.check(
    "property", controls={"ReLU linear attention": {"operator": lambda q, k: linear(q, k, feature_map=relu_map)}}
)
@unshrunk
@given(n=st.integers(2, 64), d=st.integers(1, 32), seed=seeds, a=st.floats(1.1, 4))
def test_the_operator_raises_ratios_to_the_power_of_the_factor(evidence, n, d, seed, a, *, operator=softmax):
    """The library's softmax on Gaussian queries and keys: ln ratio is a times what it was, entropy does not rise."""
    q, k = np.random.default_rng(seed).uniform(0.1, 1, (2, n, d))
    once, scaled = operator(q, k), operator(a * q, k)
    laws = [np.log(w[:, :1] / w[:, 1:]) for w in (once, scaled)]
    # Scores are below sqrt(d) in size; each log carries the error of d + 8 operations on them and of two logarithms.
    budget = 2 * a * (d + 8) * EPS * (1 + np.sqrt(d))
    evidence.expect("error of the law over its budget", abs(laws[1] - a * laws[0]).max() / budget, at_most=1)
    entropy = [-(w * np.log(w)).sum(-1) for w in (once, scaled)]
    evidence.expect("rise of the entropy", (entropy[1] - entropy[0]).max(), at_most=4 * n * EPS, unit="nats")
