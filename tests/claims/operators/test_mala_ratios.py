"""Magnitude-aware linear attention: how ratios of its scores grow with the query (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. When phi(q) is scaled by a > 1, MALA's ratio p of a larger to a smaller score increases to p_m, but
by less than softmax's, which becomes p^a (section 4).

Notation. As in test_mala.py: A_j(a) = S_j / z + a (S_j - z / N) for a row S of the kernel with sum z and N keys.

Scope. One row, exact arithmetic. Scores may be negative, and then ratios break: test_mala_signs.py.
"""

from fractions import Fraction

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import linear, mala
from theory.operators.mala import pole, row_scores, scaled_score

PAPER = "fan2025mala"
ROW = (Fraction(1, 2), Fraction(1, 4), Fraction(3, 20), Fraction(1, 10))
SMALLEST = (Fraction(2, 3), Fraction(1, 3))
AT_THE_MEAN = (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6))

rows = st.lists(st.integers(1, 20), min_size=2, max_size=8).map(lambda row: tuple(Fraction(s, 7) for s in row))


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


@grows.check(
    "property",
    scope="the operator, up to the pole",
    controls={"linear attention": {"operator": linear}, "beyond the pole": {"reach": lambda row, n: Fraction(3)}},
)
@given(row=rows, share=st.fractions(Fraction(1, 10), Fraction(9, 10)))
def test_every_ratio_grows_until_its_smaller_score_vanishes(evidence, row, share, *, operator=mala, reach=pole):
    """Rational rows, all pairs whose smaller score is positive at 1; a is between 1 and the pole, or 4 without one."""
    for n in range(len(row)):
        end = reach(row, n)
        if end is not None and end <= 1:
            continue
        a = 4 if end is None else 1 + share * (end - 1)
        for m in (m for m in range(len(row)) if row[m] > row[n]):
            before, after = (ratio(row, m, n, one, operator) for one in (Fraction(1), a))
            evidence.expect("p minus p_m", before - after, less_than=0)


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
