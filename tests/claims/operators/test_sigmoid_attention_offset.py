"""Why the offset of sigmoid attention is -ln n (Ramapuram et al., 2024, section 2 and appendix E).

What the paper says. Weights sigma(s_ij + b) are not normalised; with b = -ln n their sums stay of order one as the
number n of keys grows, and attention has a finite limit that is not zero.

Notation. s is a logit, E = e^s, b = b_n the offset; alpha is that of b = -alpha ln n.

Scope. The operator itself, no mask; b is one constant for all rows, so that under a causal mask early rows sum to less.
What the offset does for training is in test_sigmoid_attention_trained.py.
"""

import math

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import scores, sigmoid, softmax
from theory.operators.positions import alibi, alibi_slopes, causal

PAPER = "ramapuram2024theory"
EPS = np.finfo(float).eps

order = Claim(
    paper=PAPER,
    slug="offset-order",
    where="Section 2, Appendix E",
    says="n sigma(s + b_n) has a limit that is finite and not zero exactly when n e^(b_n) has: b_n = -ln n + O(1). "
    "Sums then stay of order one.",
    formula=r"\frac{1}{n \sigma(s + b_n)} = \frac{1}{n e^{b_n} e^{s}} + \frac{1}{n}",
    gap="That sums of order one make training work is another claim.",
)


@order.check(
    "proof",
    controls={
        "offset subtracted": {"logit": lambda s, b: s - b},
        "offset counted twice": {"logit": lambda s, b: s + 2 * b},
    },
)
def test_the_reciprocal_of_a_weight_splits_in_two(evidence, *, logit=lambda s, b: s + b):
    """The identity for all s, b and n; the last term vanishes, so the limit is c e^s where n e^(b_n) tends to c.

    With b_n = -alpha ln n the limits follow by machine: infinite for alpha = 1/2, e^s for alpha = 1, zero for 3/2.
    """
    import sympy

    s, b = sympy.symbols("s b", real=True)
    n = sympy.Symbol("n", positive=True)
    weight = 1 / (1 + sympy.exp(-logit(s, b)))
    gap = sympy.simplify(1 / (n * weight) - 1 / (n * sympy.exp(b) * sympy.exp(s)) - 1 / n)
    evidence.true("both sides are equal", gap == 0)
    E = sympy.Symbol("E", positive=True)
    for alpha, limit in ((sympy.Rational(1, 2), sympy.oo), (1, E), (sympy.Rational(3, 2), 0)):
        found = sympy.limit(n * E / (n**alpha + E), n, sympy.oo)
        evidence.true("limits for b = -alpha ln n", found == limit)


@order.check(
    "exact",
    scope="Gaussian logits",
    controls={
        "no offset, b = 0": {"alpha": 0.0},
        "b = -ln(n) / 2": {"alpha": 0.5},
        "b = -3 ln(n) / 2": {"alpha": 1.5},
    },
)
def test_sums_of_weights_stay_of_order_one(evidence, *, alpha=1.0):
    """Mean sum of n weights at logits N(0, 1), by quadrature, n up to 2^20: between e^(1/2) - e^2 / n and e^(1/2).

    Since E - E^2 / n <= n sigma <= E, where E[e^s] = e^(1/2) and E[e^(2 s)] = e^2. The figure has other offsets.
    """
    nodes, mass = np.polynomial.hermite_e.hermegauss(200)
    lengths = 2.0 ** np.arange(5, 21)
    sums = {a: mean_sums(lengths, a, nodes, mass / mass.sum()) for a in dict.fromkeys((0.0, 0.5, 1.0, 1.5, alpha))}
    evidence.figure(
        "Mean sum of n sigmoid weights at standard Gaussian logits", figure_of(lengths, sums), "b = −α ln n."
    )
    high = math.exp(0.5)
    rounding = 200 * EPS * lengths  # the operator's absolute error, n times
    evidence.expect("mean sum of weights over e^(1/2)", sums[alpha] / high, at_most=1 + rounding)
    evidence.expect("mean sum of weights", sums[alpha], at_least=high - math.exp(2) / lengths - rounding)


def mean_sums(lengths, alpha, nodes, mass):
    """n E[sigma(s - alpha ln n)] for each n, by the operator itself: queries are the nodes, the key is 1."""
    weights = [sigmoid(nodes[:, None], np.ones((1, 1)), offset=-alpha * math.log(n), scale=1)[:, 0] for n in lengths]
    return lengths * (np.stack(weights) @ mass)


def figure_of(lengths, sums):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for alpha, values in sums.items():
        axes.loglog(lengths, values, "o-", label=f"α = {alpha:g}")
    axes.axhline(math.exp(0.5), color="black", ls=":", label="limit for α = 1")
    axes.set_xlabel("keys n")
    axes.set_ylabel("sum of weights")
    axes.legend(frameon=False)
    return figure


mean_field = Claim(
    paper=PAPER,
    slug="mean-field-limit",
    where="Appendix E",
    says="With b = -ln n sigmoid attention over n keys that follow a distribution tends to its integral with weight "
    "e^(q.k), which is not normalised, at the rate 1 / n.",
    formula=r"\sum_j \sigma(q^\top k_j - \ln n) \, v_j \;\to\; \int e^{q^\top k} \, v \,\mathrm{d}\mu(k, v),"
    r" \quad \text{error} \le \tfrac{1}{n} \int e^{2 q^\top k} |v| \,\mathrm{d}\mu",
    gap="A distribution with finitely many atoms, each repeated; sampling would add an error of order n^(-1/2).",
)


@mean_field.check(
    "exact",
    controls={
        "no offset, b = 0": {"weights": lambda q, k: sigmoid(q, k, offset=0.0, scale=1)},
        "b = -ln(n) / 2": {"weights": lambda q, k: sigmoid(q, k, offset=-math.log(len(k)) / 2, scale=1)},
        "softmax, which is normalised": {"weights": lambda q, k: softmax(q, k, scale=1)},
    },
)
@given(doublings=st.integers(0, 9), atoms=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_attention_tends_to_an_integral(
    evidence, doublings, atoms, seed, *, weights=lambda q, k: sigmoid(q, k, scale=1)
):
    """Random atoms, each repeated up to 512 times; the error's bound follows from |n sigma - e^s| <= e^(2 s) / n."""
    draw = np.random.default_rng(seed)
    q, k, v = draw.standard_normal((4, 2)), draw.standard_normal((atoms, 2)), draw.standard_normal((atoms, 3))
    repeats = 2**doublings
    n = atoms * repeats
    output = weights(q, np.tile(k, (repeats, 1))) @ np.tile(v, (repeats, 1))
    s = scores(q, k, scale=1)
    limit, bound = np.exp(s) @ v / atoms, np.exp(2 * s) @ abs(v) / atoms / n
    rounding = 8 * EPS * (n + np.exp(s)) @ abs(v)
    evidence.expect("error over its bound", abs(output - limit) / (bound + rounding), at_most=1)


alibi_offsets = Claim(
    paper=PAPER,
    slug="full-alibi-offsets",
    where="Appendix F, comment in the released kernel",
    says="Under a causal mask softmax attention may add slope j to the scores in place of ALiBi's -slope (i - j); "
    "sigmoid attention may not.",
    formula=r"\sigma(s_{ij} + m j) = \sigma\bigl(s_{ij} - m (i - j) + m i\bigr) "
    r" \ne \sigma\bigl(s_{ij} - m (i - j)\bigr)",
    gap="The operator, not the kernel.",
)


@alibi_offsets.check("exact", controls={"softmax": {"operator": softmax}})
@given(n=st.integers(2, 32), seed=st.integers(0, 2**32 - 1))
def test_the_short_form_changes_sigmoid_attention(evidence, n, seed, *, operator=sigmoid):
    """It multiplies the odds of each weight of the last row by e^(slope (n - 1)); softmax cancels that factor."""
    draw, heads = np.random.default_rng(seed), 4
    q, k = draw.standard_normal((2, heads, n, 4))
    short = alibi_slopes(heads)[:, None, None] * np.arange(n)
    full, shortened = (operator(q, k, mask=causal(n), bias=bias)[:, -1] for bias in (alibi(n, heads), short))
    odds = np.log(shortened / (1 - shortened)) - np.log(full / (1 - full))
    expected = alibi_slopes(heads)[:, None] * (n - 1) + np.zeros((heads, n))
    # Logits of weights: absolute errors of half an ulp of 1, over w (1 - w).
    budget = 8 * EPS / np.minimum(full * (1 - full), shortened * (1 - shortened)) + 8 * EPS * n
    evidence.expect("change of the log-odds in the last row", odds, equals=expected, error=budget)
