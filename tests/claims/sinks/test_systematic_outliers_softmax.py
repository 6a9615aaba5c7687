"""Why softmax attention makes outliers, and sigmoid attention need not (An et al., ICLR 2025, sections 5 and 6).

What the paper says. Softmax is the root cause of outliers: its weights sum to 1 also where a query needs nothing. With
sigmoid attention, variant (f), there are none.

Notation. S is what the tokens that are no outliers keep of the weights; y the output, v_j the values; the *lead* of an
outlier is its score above the log-sum-exp of the others'.

Scope. Bounds that hold for every model. What training does is in test_systematic_outliers_trained.py.
"""

import math

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import logistic, sigmoid, softmax, softmax_rows
from theory.sinks import systematic_outliers as theory

PAPER = "an2025systematic"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)


def rounding(n):
    """Relative error of a weighted mean of n values, the weights from scores of up to 100."""
    return 16 * (n + 100) * EPS


cause = Claim(
    paper=PAPER,
    slug="softmax-needs-outliers",
    where="Section 6 (softmax is the root cause)",
    says="Since its weights sum to 1, softmax attention can give a query little or nothing only by means of outliers, "
    "tokens with small values.",
    formula=r"\sum_j a_j = 1 \;\Rightarrow\; \|y\| \ge \min_j \|v_j\|",
    repair="Unless 0 lies in the convex hull of the values: |y| is at least the hull's distance from 0.",
    gap="In high dimensions hulls of many values come close to 0; how close in trained models is not measured.",
)


@cause.refutation("exact", controls={"values that agree": {"second": 1.0}})
def test_two_opposed_values_cancel(evidence, *, second=-1.0):
    """Equal scores, values 1 and -1, both as large as any: the output is exactly 0."""
    output = softmax_rows(np.zeros(2)) @ np.array([1.0, second])
    evidence.counterexample("two tokens of equal scores", values=[1.0, second], output=output)
    evidence.expect("output", output, equals=0, error=0)


@cause.check(
    "proof",
    scope="repair, three tokens",
    controls={"sigmoid attention": {"total": lambda weights: 1}},
)
def test_the_output_stays_on_the_values_side(evidence, *, total=sum):
    """Values m + d_j >= m along a direction, weights e_j / total: y - m is nonnegative over positive."""
    import sympy

    e, d = sympy.symbols("e:3", positive=True), sympy.symbols("d:3", nonnegative=True)
    m = sympy.symbols("m", positive=True)
    weights = [one / total(e) for one in e]
    above = sum(a * (m + one) for a, one in zip(weights, d, strict=True)) - m
    evidence.true("y - m is nonnegative", sympy.factor(sympy.together(sympy.expand(above))).is_nonnegative is True)


@cause.check(
    "property", scope="repair", controls={"sigmoid attention": {"rows": lambda s: logistic(s - math.log(s.shape[-1]))}}
)
@given(n=st.integers(1, 32), seed=seeds, low=st.floats(-30, 0), alike=st.booleans())
def test_no_scores_bring_the_output_closer_than_the_hull(evidence, n, seed, low, alike, *, rows=softmax_rows):
    """Values with a first coordinate of at least 1, scores around `low`; equal values attain the distance."""
    rng = np.random.default_rng(seed)
    v = np.concatenate([1 + rng.exponential(0 if alike else 1, (n, 1)), (not alike) * rng.standard_normal((n, 3))], -1)
    output = rows(low + rng.standard_normal((1, n))) @ v
    evidence.expect("size of the output", np.sqrt((output**2).sum()), at_least=1 - rounding(n))


zero = Claim(
    paper=PAPER,
    slug="factor-needs-a-lead",
    where="Sections 5 and 6 (why outliers are large; ours)",
    says="A factor S needs an outlier whose score leads by ln((1 - S) / S), which grows without bound as S falls; no "
    "finite lead gives S = 0.",
    formula=r"s_O - \mathrm{LSE}_{j \notin O} s_j = \ln \frac{1 - S}{S}, \quad S > 0",
    gap="Real numbers: in float32 a lead of 104 gives weights that are exactly 0.",
)


def clipped(S):
    """Clipped softmax of Bondarenko et al., arXiv:2306.12929, with gamma = -0.1 and zeta = 1."""
    import sympy

    return sympy.Max(0, sympy.Rational(11, 10) * S - sympy.Rational(1, 10))


@zero.check(
    "proof", controls={"clipped softmax": {"kept": clipped}, "a lead of ln(1 / S)": {"lead": lambda S, log: -log(S)}}
)
def test_the_lead_diverges_and_never_arrives(evidence, *, kept=lambda S: S, lead=theory.gap):
    """S = 1 / (1 + exp(lead)) is positive, falls, and tends to 0; the lead is its inverse."""
    import sympy

    x, S = sympy.symbols("x", real=True), sympy.symbols("S", positive=True)
    share = kept(1 / (1 + sympy.exp(x)))
    evidence.true("S is positive", share.is_positive is True)
    evidence.true("S falls", (-sympy.diff(1 / (1 + sympy.exp(x)), x)).is_positive is True)
    evidence.true("S tends to 0", sympy.limit(1 / (1 + sympy.exp(x)), x, sympy.oo) == 0)
    inverse = sympy.simplify(1 / (1 + sympy.exp(lead(S, sympy.log))) - S)
    evidence.true("the lead is the inverse", inverse == 0)
    leads = ", ".join(f"{theory.gap(one):.2f} for {one:g}" for one in (0.1, 0.01, 0.001))
    evidence.note(f"Leads: {leads}.")


@zero.check("property", scope="|y| <= S max |v|", controls={"the square of S": {"factor": lambda S: S**2}})
@given(n=st.integers(2, 32), seed=seeds, lead=st.floats(0.5, 30), alike=st.booleans())
def test_the_factor_bounds_the_output(evidence, n, seed, lead, alike, *, factor=lambda S: S):
    """An outlier of zero value that leads by `lead`; equal values of the others attain the bound."""
    rng = np.random.default_rng(seed)
    v = np.concatenate([np.zeros((1, 3)), np.ones((n - 1, 3)) if alike else rng.standard_normal((n - 1, 3))])
    s = np.concatenate([[0.0], rng.standard_normal(n - 1)])
    s[0] = lead + np.log(np.exp(s[1:]).sum())
    size = np.sqrt(((softmax_rows(s) @ v) ** 2).sum())
    bound = factor(1 / (1 + math.exp(lead))) * np.sqrt((v**2).sum(-1)).max()
    evidence.expect("size over its bound", size / bound, at_most=1 + rounding(n))


free = Claim(
    paper=PAPER,
    slug="sigmoid-needs-no-outlier",
    where="Section 6, Table 2 (f) in the released code",
    says="Sigmoid attention can scale by any factor in (0, n) by moving all scores together; softmax does not change "
    "then.",
    formula=r"\sum_j \sigma(s - \ln n) = T \iff s = \ln \frac{n T}{n - T}",
    gap="Equal scores; with others the factor is continuous in the shift and has the same limits. What training does "
    "with it: trained-sigmoid-has-no-sink.",
)


@free.check("exact", controls={"softmax": {"operator": softmax}})
def test_a_common_shift_gives_any_factor(evidence, *, operator=sigmoid):
    """n equal keys, one query: the row's sum for wanted factors from 0.001 to n / 2."""
    for n in (2, 8, 64):
        for wanted in (0.001, 0.1, 1.0, n / 2):
            s = math.log(n * wanted / (n - wanted))
            weights = operator(np.full((1, 1), s), np.ones((n, 1)), scale=1)
            # (1 + tanh) / 2 errs by half an ulp of 1 on each of n weights.
            evidence.expect("sum of the row less the factor", weights.sum() - wanted, equals=0, error=4 * n * EPS)
