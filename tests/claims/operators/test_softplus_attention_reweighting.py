"""The second stage of softplus attention: re-weighting by a shifted power (Gao and Spratling, 2025).

What the paper says. After the first stage a row is multiplied by its length N, lowered by 1, cut off at 0, raised to a
power p (15, or 3) and normalised again. That amplifies large weights and diminishes small ones, ends in argmax for
p -> infinity, is numerically stable, and, since the cut comes after a positive map, leaves no dead neurons.

Notation. a_j are the weights of a row of N keys, e_j = ReLU(N a_j - o) with o = 1, but o = 0 for N <= 3 (their O), and
the re-weighted row is e^p over its sum. `reweight` divides by the largest e before the power, which changes nothing in
exact arithmetic; `reweight_printed` does not.

Scope. Single rows, any weights, exact and floating arithmetic. Whether re-weighting helps a model is in
test_softplus_attention_trained.py.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import reweight
from theory.operators.softplus_attention import entropy, log_growth, majorisation_gap

PAPER = "gao2025softplus"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

sharpening = Claim(
    paper=PAPER,
    slug="reweighting-sharpens",
    where="Abstract, Section 2.3",
    says="Re-weighting a row that is not uniform, with p >= 1, amplifies its large weights and diminishes its small "
    "ones: for each k the k largest weights together do not shrink, and the entropy does not grow.",
    formula=r"\sum_{i \le k} b_{(i)} \ge \sum_{i \le k} a_{(i)}, \quad H(b) \le H(a)",
    gap="Sums of the largest weights; a single weight above the uniform one can shrink, as all but the largest do for "
    "large p. Uniform rows have no re-weighted row, see formula-is-stable.",
)


@sharpening.check(
    "proof",
    controls={"p = 1/2": {"least": lambda: __import__("sympy").Rational(1, 2)}},
)
def test_the_ratio_of_new_to_old_weight_rises_with_the_weight(evidence, *, least=lambda: 1):
    """If e(x)^p / x does not fall in x, the normalised e^p majorises x (Marshall and Olkin, 5.B.2).

    With N x = 1 + t, t > 0, its logarithmic derivative times x t is (p - 1)(1 + t) + 1, affine in p, and positive
    for p >= 1. Weights at most 1, t <= N - 1, allow p down to 1 - 1/N, where the derivative vanishes at x = 1. Up to
    three keys there is no cut, and x^p / x has the logarithmic derivative (p - 1) / x.
    """
    import sympy

    n, t, q = sympy.symbols("N t q", positive=True)
    p = least() + q
    growth = sympy.expand(sympy.simplify(log_growth(n, (1 + t) / n, p) * (1 + t) / n * t))
    evidence.expect("difference from p t - t + p", sympy.expand(growth - (p * (1 + t) - t)), equals=0, error=0)
    coefficients = sympy.Poly(growth, t, q).coeffs()
    evidence.expect("least coefficient in t and p - 1", min(coefficients), at_least=0)
    at_the_limit = log_growth(n, sympy.Integer(1), 1 - 1 / n)
    evidence.expect("derivative at p = 1 - 1/N, x = 1", sympy.simplify(at_the_limit), equals=0, error=0)
    uncut = sympy.simplify(t * sympy.diff(p * sympy.log(t) - sympy.log(t), t))
    least_uncut = min(sympy.Poly(uncut, q).coeffs())
    evidence.expect("least coefficient in p - 1 without the cut", least_uncut, at_least=0)


def random_row(seed, n, concentration):
    """A Dirichlet row (1, n), float64."""
    return np.random.default_rng(seed).dirichlet(np.full(n, concentration))[None]


@sharpening.check(
    "property",
    controls={
        "p = 0.3": {"operator": lambda a, p: reweight(a, 0.3)},
        "no cut, p = 0.9": {"operator": lambda a, p: a**0.9 / (a**0.9).sum()},
    },
)
@given(n=st.integers(2, 40), concentration=st.floats(0.05, 20), p=st.floats(1, 30), seed=seeds)
def test_partial_sums_grow_and_entropy_falls(evidence, n, concentration, p, seed, *, operator=reweight):
    """Random rows of 2 to 40 keys; and a row that is uniform on half of its keys, which stays as it is."""
    row = random_row(seed, n, concentration)
    sharp = operator(row, p)
    # N a - 1 is rounded at ulps of N a; the power multiplies relative errors by p.
    budget = 8 * n * EPS
    evidence.expect("least gain of the k largest weights", majorisation_gap(row[0], sharp[0]), at_least=-budget)
    evidence.expect("loss of entropy", entropy(row) - entropy(sharp), at_least=-budget * 40, unit="nats")
    fixed = np.repeat([1 / n, 0.0], n)[None]
    evidence.expect(
        "change of a row that is uniform on half of its keys", abs(reweight(fixed, p) - fixed), at_most=budget
    )


argmax = Claim(
    paper=PAPER,
    slug="limit-is-argmax",
    where="Section 2.3",
    says="As p grows the re-weighted row tends to argmax: the whole weight on the largest weight; where k weights tie "
    "for the largest, above the uniform weight, 1/k on each.",
    formula=r"\lim_{p \to \infty} b_j = \mathbf{1}[a_j = \max a] \, / \, |\operatorname{argmax} a|",
    gap="The paper does not mention ties.",
)


def exact_reweight(row, p):
    """The re-weighted row in rationals, for an integer p; N <= 3 has no cut."""
    n = len(row)
    raised = [max(n * x - (n > 3), Fraction(0)) ** p for x in row]
    return [x / sum(raised) for x in raised]


@argmax.check(
    "exact",
    controls={
        "re-weighting by p = 1 whatever p is": {"operator": lambda row, p: exact_reweight(row, 1)},
        "argmax that breaks ties": {"limit": lambda row: [Fraction(j == row.index(max(row))) for j in range(len(row))]},
    },
)
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=7).filter(lambda w: len(set(w)) > 1))
def test_distance_from_argmax_falls_at_the_rate_of_the_second_largest(
    evidence,
    weights,
    *,
    operator=exact_reweight,
    limit=lambda row: [Fraction(x == max(row), row.count(max(row))) for x in row],
):
    """In rationals: at each p the distance is at most N (second largest e / largest e)^p, which tends to 0."""
    row = [Fraction(w, sum(weights)) for w in weights]
    n = len(row)
    first, second = sorted({max(n * x - (n > 3), Fraction(0)) for x in row}, reverse=True)[:2]
    for p in (1, 15, 100):
        distance = max(abs(x - y) for x, y in zip(operator(row, p), limit(row), strict=True))
        evidence.expect("distance from argmax over its bound", distance - n * (second / first) ** p, at_most=0)


every_pair = Claim(
    paper=PAPER,
    slug="every-pair-separates",
    where="Section 2.3",
    says="For any two weights x_l < x_m of a row the difference of their normalised powers tends to 1 as p grows.",
    formula=r"\lim_{p \to \infty} \frac{x_m^p - x_l^p}{\sum_j x_j^p} = 1",
    gap="A remark of the paper on why the power helps; nothing else rests on it.",
    repair="x_m is the row's largest weight and no other weight equals it.",
)


@every_pair.refutation("proof", controls={"x_m is the largest": {"pair": (0, 2)}})
def test_two_weights_below_the_largest_come_together(evidence, *, pair=(0, 1)):
    """Three keys with weights 1/6, 2/6, 3/6: the limit for the first two is 0 and their difference never passes 1/3.

    No smaller row will do: in a row of two keys the larger weight is the largest.
    """
    import sympy

    p = sympy.Symbol("p", positive=True)
    powers = [sympy.Integer(w) ** p for w in (1, 2, 3)]
    low, high = pair
    difference = (powers[high] - powers[low]) / sum(powers)
    evidence.expect("limit of the difference", sympy.limit(sympy.expand(difference), p, sympy.oo), equals=0, error=0)
    # (2/3)^p bounds the difference, as 2^p / 3^p bounds it; so it is below 1 from p = 1 on.
    found = [difference.subs(p, value) for value in (1, 3, 15, 100)]
    evidence.expect(
        "difference over (2/3)^p",
        [float(x / sympy.Rational(2, 3) ** q) for x, q in zip(found, (1, 3, 15, 100), strict=True)],
        at_most=1,
    )
    evidence.counterexample(
        "Weights 1/6 < 2/6 < 3/6", pair="1/6, 2/6", differences_at_p_1_3_15_100=[float(x) for x in found]
    )


@every_pair.check("exact", controls={"x_m is only the second largest": {"place": 1}})
@given(weights=st.lists(st.integers(1, 30), min_size=2, max_size=7, unique=True))
def test_the_largest_separates_from_every_other(evidence, weights, *, place=0):
    """In rationals, without the cut: 1 - difference is at most 2 N (second / largest)^p."""
    ordered = [*sorted(weights, reverse=True), 0, 0]
    n, x_m, x_l = len(weights), ordered[place], ordered[place + 1]
    for p in (1, 15, 200):
        total = sum(w**p for w in weights)
        missing = 1 - Fraction(x_m**p - x_l**p, total)
        evidence.expect(
            "what is missing to 1, over its bound", missing - 2 * n * Fraction(ordered[1], ordered[0]) ** p, at_most=0
        )
