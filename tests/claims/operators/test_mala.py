"""Magnitude-aware linear attention, its scores row by row (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. Linear attention divides out the magnitude of the query, softmax does not: there, scaling the query
turns the ratio p of two scores into p^a (section 3). MALA multiplies the kernel by beta = 1 + 1/z and subtracts
gamma = z/N, so that rows still sum to 1, and the ratio grows with the magnitude, but more gently than softmax's
(section 4). Negative scores are possible in theory.

Notation. S_j = phi(q).phi(k_j) >= 0 is a row of the kernel, z its sum, N the number of keys; a multiplies phi(q). Then
MALA is S_j / z + a (S_j - z / N): linear attention plus the centred kernel. Ratios of scores are their beta p_m.

Scope. One row, exact arithmetic where possible. test_mala_code.py has the cost and the released code,
test_mala_trained.py what training shows. Scores may be negative: they are no probabilities (test_mala_signs.py).
"""

from fractions import Fraction

import numpy as np
from hypothesis import Phase, assume, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import elu_plus_one, exp_map, focused, linear, mala, relu_map, softmax
from theory.operators.mala import identity, row_scores, scaled_score, total_variation

PAPER = "fan2025mala"
EPS = np.finfo(float).eps
ROW = (Fraction(1, 2), Fraction(1, 4), Fraction(3, 20), Fraction(1, 10))
SMALLEST = (Fraction(2, 3), Fraction(1, 3))
AT_THE_MEAN = (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6))

rows = st.lists(st.integers(1, 20), min_size=2, max_size=8).map(lambda row: tuple(Fraction(s, 7) for s in row))
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
    """Symbolic rows of 2 to 4 scores: both identities. The variance is a sum of squares with weights w >= 0."""
    import sympy as sp

    a = sp.Symbol("a", positive=True)
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


# -- A5, A6: how MALA's ratios grow ------------------------------------------------------------------------------------


def ratio(row, m, n, a, operator=mala):
    """A_m(a) / A_n(a)."""
    scores = row_scores(row, a, operator)
    return scores[m] / scores[n]


grows = Claim(
    paper=PAPER,
    slug="ratio-grows-with-magnitude",
    where="Section 4",
    says="When phi(q) is scaled by a > 1, MALA's ratio of a larger to a smaller score increases.",
    formula=r"p_m = \frac{A_m(a)}{A_n(a)} > \frac{A_m(1)}{A_n(1)} = p",
    gap="One row; the paper's text may intend only rows whose scores are all positive.",
    repair="It does as long as the smaller score stays positive: for every a if S_n is at least the row's mean, else "
    "below the a at which A_n(a) vanishes, where the ratio has a pole and turns negative.",
)


@grows.refutation("exact", controls={"a smaller score at the mean": {"row": AT_THE_MEAN}})
def test_tripling_the_features_turns_a_ratio_of_five_into_minus_seven(evidence, *, row=SMALLEST):
    """S = (2/3, 1/3), two keys, one feature: A = (5/6, 1/6) at a = 1, (1, 0) at a = 2, (7/6, -1/6) at a = 3."""
    before, after = ratio(row, 0, 1, Fraction(1)), ratio(row, 0, 1, Fraction(3))
    evidence.counterexample(
        "two keys, one feature", S=row, at_1=[*row_scores(row)], at_3=[*row_scores(row, Fraction(3))]
    )
    evidence.expect("ratio at a = 3", after, less_than=("at a = 1", before))


@grows.check(
    "proof",
    controls={
        "linear attention": {"score": lambda s, z, N, a: s / z},
        "gamma of the other sign": {"score": lambda s, z, N, a: s / z + a * (s + z / N)},
    },
)
def test_the_slope_of_the_ratio_is_positive_off_its_pole(evidence, *, score=scaled_score):
    """d/da (A_m / A_n) = (S_m - S_n) / (N A_n^2) identically in S_m, S_n, z, N and a."""
    import sympy as sp

    m, n, z, N, a = sp.symbols("s_m s_n z N a", positive=True)
    slope = sp.diff(score(m, z, N, a) / score(n, z, N, a), a)
    evidence.true("slope as stated", sp.simplify(slope - (m - n) / (N * score(n, z, N, a) ** 2)) == 0)


milder = Claim(
    paper=PAPER,
    slug="ratio-grows-more-gently-than-softmax",
    where="Section 4",
    says="Scaling phi(q) by a > 1 raises MALA's ratio p of a larger to a smaller score by less than softmax, which "
    "makes it p^a.",
    formula=r"p < p_m < p^a",
    gap="How many rows of a trained network meet the repair's condition.",
    repair="So it does whenever the smaller kernel value is at least the row's mean; p_m then also stays below "
    "(S_m - z/N) / (S_n - z/N).",
)


@milder.refutation("exact", controls={"a smaller score at the mean": {"row": AT_THE_MEAN}})
def test_near_its_pole_the_ratio_outruns_the_exponential_law(evidence, *, row=SMALLEST):
    """S = (2/3, 1/3): p = 5, and at a = 5/3 the ratio is 17 > 5^(5/3) = 14.6, in integers 17^3 = 4913 > 5^5 = 3125.

    The figure shows the pairs of S = (.5, .25, .15, .10): one starts at the mean and grows linearly, the others break.
    """
    p, p_m = ratio(row, 0, 1, Fraction(1)), ratio(row, 0, 1, Fraction(5, 3))
    evidence.counterexample("two keys, one feature", S=row, a="5/3", p=p, p_m=p_m, softmax=float(p) ** (5 / 3))
    evidence.expect("p^5", p**5, less_than=("p_m^3", p_m**3))
    evidence.figure(*figure_of_ratios())


def figure_of_ratios():
    """Title, figure and caption: ratios of three pairs of a row, and softmax's law from the same start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(0, 4, 401)
    for j, colour in ((1, "tab:blue"), (2, "tab:orange"), (3, "tab:red")):
        values = np.array([float(ratio(ROW, 0, j, Fraction(int(100 * a) + 1, 103))) for a in grid])
        values[np.abs(np.diff(values, append=values[-1])) > 30] = np.nan  # the pole
        axes.plot(grid, values, color=colour, label=f"MALA, {float(ROW[0])} over {float(ROW[j])}")
    axes.plot(grid, 3.0**grid, color="black", ls=":", label="softmax from the ratio 3 at a = 1")
    axes.set_ylim(-40, 60)
    axes.set_xlabel("factor a on the features of the query")
    axes.set_ylabel("ratio of two scores")
    axes.legend(frameon=False, fontsize="small")
    return "Ratios of two scores against the query's magnitude", figure, "S = (.5, .25, .15, .10); its mean is .25."


@milder.check(
    "proof", controls={"scores without the normalised part": {"score": lambda s, z, N, a: a * (s - z / N) + 0 / z}}
)
def test_above_the_mean_the_log_ratio_is_concave_in_the_magnitude(evidence, *, score=scaled_score):
    """With S_n = mu + u, S_m = mu + u + w: ln(A_m / A_n) is concave on a >= 0 and positive at 0, hence less than a
    times its value at 1 for a > 1. The numerator of -(ln ratio)'' has positive coefficients only.
    """
    import sympy as sp

    mu, u, w, N, a = sp.symbols("mu u w N a", positive=True)
    small, large = (score(mu + u + extra, N * mu, N, a) for extra in (0, w))
    curvature = (sp.diff(large, a) * small) ** 2 - (sp.diff(small, a) * large) ** 2  # -(ln r)'' A_m^2 A_n^2
    coefficients = sp.Poly(sp.fraction(sp.together(curvature))[0], mu, u, w, N, a).coeffs()
    evidence.expect("least coefficient of the curvature", min(coefficients), at_least=1)
    evidence.true("limit of the ratio", sp.simplify(sp.limit(large / small, a, sp.oo) - (u + w) / u) == 0)


def above_the_mean(row):
    """Pairs (m, n) with S_m > S_n >= mean."""
    mean = sum(row) / len(row)
    return [(m, n) for m, x in enumerate(row) for n, y in enumerate(row) if x > y >= mean]


@milder.check(
    "property",
    controls={
        "all pairs": {"pairs": lambda row: [(0, 1)] if row[0] > row[1] else [(1, 0)] if row[0] < row[1] else []},
        "linear attention": {"operator": linear},
    },
)
@given(row=rows, a=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_pairs_above_the_mean_lie_between_linear_attention_and_softmax(
    evidence, row, a, *, pairs=above_the_mean, operator=mala
):
    """Rational rows of up to 8 keys and rational a = 1 + i/j: p < p_m and p_m^j < p^(i + j), in exact arithmetic."""
    extra, below = a
    chosen = pairs(row)
    assume(chosen)
    for m, n in chosen:
        p, p_m = (ratio(row, m, n, one, operator) for one in (Fraction(1), 1 + Fraction(extra, below)))
        evidence.expect("p / p_m", p / p_m, less_than=1)
        evidence.expect("p_m^j / p^(i + j)", p_m**below / p ** (extra + below), less_than=1)
