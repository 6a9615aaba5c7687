"""When attention sink emerges: what the metric can and cannot tell (Gu et al., 2024, sections 3.2 and 7.4).

What the paper says. alpha_k is the mean attention that key k gets from the queries that see it; a head has a sink on
token k if alpha_k > epsilon, with epsilon = 0.3 and T = 64 tokens. 1 / T <= alpha_1 <= 1. The rate of heads with a sink
tends to decrease with T. Attention without a norm is measured by proxy: its rows are divided by their sums.

Notation. Queries and keys count from 1 to T; A_tk is the weight of key k for query t, 0 where k > t; rows sum to 1.

Scope. What follows from the definition for any causal attention matrix, trained or not.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.positions import causal
from theory.sinks.measures import EPSILON, importance, proxy, row_mass, sinks
from theory.sinks.sink_emergence import first_importance, uniform_importance

PAPER = "gu2024attentionsink"
EPS = np.finfo(float).eps
LIMIT = Fraction(3, 10)
FEWEST = 10
"""Tokens from which on uniform attention has no sink."""


def draw(seed, n, sharpness):
    """(n, n) causal rows that sum to 1: softmax of Gaussian scores, from uniform to one key alone."""
    scores = sharpness * np.random.default_rng(seed).standard_normal((n, n))
    e = np.where(causal(n), np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    return e / e.sum(-1, keepdims=True)


matrices = {
    "seed": st.integers(0, 2**32 - 1), "n": st.integers(1, 40), "sharpness": st.sampled_from([0.0, 1.0, 10.0, 100.0])
}  # fmt: skip

laws = Claim(
    paper=PAPER,
    slug="importance-bounds",
    where="Section 3.2",
    says="For causal attention whose rows sum to 1, 1 / T <= alpha_1 <= 1.",
    formula=r"\tfrac{1}{T} \le \alpha_1 \le 1",
    gap="Softmax attains neither end, but comes as close as one likes.",
)


@laws.check(
    "proof",
    controls={
        "a first query that sees other keys": {"first": 0},
        "weights below 0": {"low": -1},
        "above 1": {"high": 2},
    },
)
def test_the_sum_of_the_first_column_stays_in_its_range(evidence, *, first=1, low=0, high=1):
    """Induction over T on S = sum_t A_t1 = 1 + x = T - y with x, y >= 0: adding A = low + a = high - b keeps both."""
    import sympy

    T = sympy.Symbol("T", positive=True)
    x, y, a, b = sympy.symbols("x y a b", nonnegative=True)
    evidence.true("S = A_11 = 1 at T = 1", first == 1)
    evidence.true("S >= 1 at T + 1", ((1 + x) + (low + a) - 1).is_nonnegative is True)
    evidence.true("S <= T + 1 at T + 1", sympy.expand(T + 1 - (T - y) - (high - b)).is_nonnegative is True)


@laws.check(
    "property",
    scope="in float64; and the T - k + 1 queries that see key k account for all attention",
    controls={
        "not causal": {"matrix": lambda A: A[:, ::-1]},
        "rows that sum to 1 / 2": {"matrix": lambda A: A / 2},
        "rows that sum to 2": {"matrix": lambda A: 2 * A},
    },
)
@given(**matrices)
def test_no_causal_matrix_leaves_the_range(evidence, seed, n, sharpness, *, matrix=lambda A: A):
    """Up to 40 tokens, from uniform attention to nearly one key per query."""
    alpha = importance(matrix(draw(seed, n, sharpness)))
    evidence.expect("T alpha_1", n * alpha[0], at_least=1 - 4 * EPS)
    evidence.expect("alpha_1", alpha[0], at_most=1 + 4 * n * EPS)
    error = 8 * n * EPS
    evidence.expect("sum of (T - k + 1) alpha_k over T", (np.arange(n, 0, -1) * alpha).sum() / n, equals=1, error=error)


def to_first(n):
    A = np.zeros((n, n))
    A[:, 0] = 1
    return A


ENDS = (to_first(3), np.eye(3))


@laws.check("exact", scope="equality", controls={"uniform attention": {"ends": (np.tri(3) / [[1], [2], [3]],) * 2}})
def test_both_ends_are_attained(evidence, *, ends=ENDS):
    """All attention on the first key, and each token on itself."""
    evidence.expect("alpha_1 of all on the first key", importance(ends[0])[0], equals=1, error=0)
    evidence.expect("T alpha_1 of each on itself", 3 * importance(ends[1])[0], equals=1, error=EPS)


length = Claim(
    paper=PAPER,
    slug="rate-falls-with-length",
    where="Section 3.2, Figure 3 ('tends to')",
    says="On longer sequences fewer heads count as having a sink: alpha_1 decreases with the number of tokens T.",
    formula=r"\alpha_1(T + 1) \le \alpha_1(T)",
    gap="The open models of Figure 3 are not measured here.",
    repair="Where later queries give the first key no more than earlier ones, as uniform attention does.",
)
LATE = (Fraction(1), Fraction(0), Fraction(1))
"""A_{t,1} of three queries."""


def alphas(first):
    """alpha_1 of the first 1, 2, .. tokens."""
    return first_importance(np.array(first))


@length.refutation(
    "exact", controls={"the last query too looks away": {"first": (Fraction(1), Fraction(0), Fraction(0))}}
)
def test_a_query_that_looks_back_late_raises_the_importance(evidence, *, first=LATE):
    """Three tokens, the smallest case: the second looks at itself and the third at the first: 1/2 becomes 2/3."""
    alpha = alphas(first)
    evidence.expect("alpha_1(3) - alpha_1(2)", alpha[2] - alpha[1], at_least=Fraction(1, 6))
    evidence.counterexample("A_11, A_21, A_31", first=first, alpha_1=[*alpha])


@length.check("proof", controls={"a first weight that rises": {"sign": 1}, "may rise or fall": {"sign": None}})
def test_a_mean_of_falling_numbers_falls(evidence, *, sign=-1):
    """Induction over T on alpha(T) = A_T + x, x >= 0, with A_{T+1} = A_T - y, y >= 0: both relations stay true."""
    import sympy

    T = sympy.Symbol("T", positive=True)
    A, free = sympy.symbols("A z", real=True)
    x, y = sympy.symbols("x y", nonnegative=True)
    following = A + free if sign is None else A + sign * y
    mean = (T * (A + x) + following) / (T + 1)
    evidence.true("alpha(T) >= alpha(T + 1)", sympy.factor(A + x - mean).is_nonnegative is True)
    evidence.true("alpha(T + 1) >= A_{T+1}", sympy.factor(mean - following).is_nonnegative is True)


@length.check("property", scope="exact fractions", controls={"turned round": {"order": sorted}})
@given(weights=st.lists(st.fractions(0, 1, max_denominator=20), min_size=1, max_size=20))
def test_importance_falls_where_the_first_weights_do(evidence, weights, *, order=lambda w: sorted(w, reverse=True)):
    """Non-increasing A_{t,1} from A_11 = 1 on, exact; equality where all are 1."""
    first = [Fraction(1), *order(weights)]
    evidence.expect("alpha_1(T + 1) - alpha_1(T)", np.diff(alphas(first)), at_most=0)


threshold = Claim(
    paper=PAPER,
    slug="threshold-against-uniform",
    where="Section 3.2, selection of thresholds (what a threshold has to do; our reading)",
    says="With epsilon = 0.3, a head that attends to nothing in particular does not count as having a sink.",
    formula=r"\frac{1}{T} \sum_{t=1}^{T} \frac{1}{t} \le 0.3",
    gap="It says nothing of heads between uniform attention and a sink, such as those with a bias for far tokens.",
    repair="From T = 10 tokens on; at the paper's 64 uniform attention is at 0.074.",
)


@threshold.refutation("exact", controls={"ten tokens": {"n": FEWEST}, "64 tokens": {"n": 64}})
def test_on_nine_tokens_uniform_attention_counts_as_a_sink(evidence, *, n=9):
    """The harmonic number over T as a fraction, and the metric on the matrix."""
    evidence.expect("alpha_1", uniform_importance(n), at_least=LIMIT)
    evidence.true("the metric sees a sink", bool(sinks(np.tri(n) / np.arange(1, n + 1)[:, None])[0]))
    evidence.counterexample("uniform attention", tokens=n, alpha_1=float(uniform_importance(n)))


@threshold.check("proof", controls={"from nine on": {"start": 9}})
def test_from_ten_tokens_on_uniform_attention_has_no_sink(evidence, *, start=FEWEST):
    """alpha_1(10) as a fraction; then alpha_1(T + 1) is a mean of alpha_1(T) and 1 / (T + 1), which is at most 1/11."""
    import sympy

    h, T = sympy.symbols("h T", positive=True)
    evidence.expect(f"alpha_1({start})", uniform_importance(start), at_most=LIMIT)
    step = T * h / (T + 1) + 1 / (T + 1) ** 2  # alpha_1(T + 1) from alpha_1(T) = h
    mean = sympy.simplify(step - (h * T + (1 / (T + 1))) / (T + 1))
    evidence.true("alpha_1(T + 1) is the mean", mean == 0)
    evidence.expect("1 / (T + 1)", Fraction(1, start + 1), at_most=LIMIT)


anywhere = Claim(
    paper=PAPER,
    slug="sink-at-late-tokens",
    where="Section 3.2, definition of Sink_k",
    says="A head with alpha_k > 0.3 has a sink on token k: many queries attend to it.",
    formula=r"\alpha_k = \frac{1}{T - k + 1} \sum_{t=k}^{T} A_{t,k}",
    gap="The paper reports k <= 4 of 64, where this does not matter.",
    repair="For all tokens but the last three: a token that only attends to itself has alpha_k = 1 / (T - k + 1).",
)


SELF = np.eye(64)


@anywhere.refutation("exact", controls={"uniform attention": {"A": np.tri(64) / np.arange(1, 65)[:, None]}})
def test_tokens_that_look_at_themselves_make_the_last_ones_sinks(evidence, *, A=SELF):
    """No query looks at another token, yet the last three tokens of 64 count as sinks."""
    evidence.expect("tokens that count as sinks", int(sinks(A).sum()), equals=3, error=0)
    evidence.expect("attention of the last token to itself", A[-1, -1], equals=1, error=0)


@anywhere.check("exact", controls={"but the last two": {"last": 2}})
def test_no_earlier_token_counts_for_its_own_attention(evidence, *, last=3):
    """What a token gives itself, at most 1, adds at most 1 / (T - k + 1) <= 1/4 to alpha_k, at any length."""
    evidence.expect("largest addition", Fraction(1, last + 1), at_most=LIMIT)
    for n in range(last + 1, 80):
        evidence.expect("alpha_k", importance(np.eye(n))[: n - last], at_most=EPSILON)


proxies = Claim(
    paper=PAPER,
    slug="proxy-scores",
    where="Section 7.4, Table 6 (marked *)",
    says="Attention without a norm has a sink where its proxy, rows divided by their sums, has one.",
    formula=r"\frac{1}{T} \sum_t \frac{\mathrm{sim}(q_t, k_1)}{\sum_{j \le t} \mathrm{sim}(q_t, k_j)} > \epsilon"
    r" \;\Rightarrow\; \frac{1}{T} \sum_t \mathrm{sim}(q_t, k_1) > \epsilon",
    gap="The rates in Table 6 are below 1 %, so that there the proxy errs on the safe side; other tasks differ.",
    repair="For non-negative attention whose rows sum to at least 1.",
)


@proxies.refutation("exact", controls={"rows that sum to 1": {"size": 1.0}})
def test_a_head_that_has_switched_itself_off_shows_a_full_sink(evidence, *, size=1e-3):
    """All that is left of each row, a thousandth, is on the first key: the proxy says 1, the attention is 0.001."""
    A = size * to_first(64)
    evidence.expect("alpha_1 by proxy", importance(proxy(A))[0], at_least=1 - 1e-8 / size)
    evidence.expect("alpha_1 of the attention itself", importance(A)[0], at_most=EPSILON)
    evidence.counterexample("64 tokens, all on the first key", row_mass=size, proxy=importance(proxy(A))[0])


@proxies.check("proof", controls={"rows that sum to less": {"mass": lambda x: 1 / (1 + x)}})
def test_a_weight_is_at_least_its_proxy_where_its_row_sums_to_one_or_more(evidence, *, mass=lambda x: 1 + x):
    """With the row's sum 1 + x, x >= 0, a weight w >= 0 and the code's small addend as symbols."""
    import sympy

    x, w = sympy.symbols("x w", nonnegative=True)
    addend = sympy.Symbol("epsilon", positive=True)
    weight = mass(x) * w
    difference = sympy.factor(sympy.together(weight - weight / (mass(x) + addend)))
    evidence.true("weight - proxy >= 0", difference.is_nonnegative is True)


@proxies.check(
    "property",
    scope="in float64",
    controls={"rows that sum to 1 / 2": {"mass": lambda extra: np.full_like(extra, 0.5)}},
)
@given(**matrices)
def test_rows_of_mass_one_or_more_have_what_their_proxy_has(
    evidence, seed, n, sharpness, *, mass=lambda extra: 1 + extra
):
    """alpha_1 is at least its proxy, so that no sink of the proxy is missing; equality at mass 1."""
    extra = np.random.default_rng(seed).exponential(size=(n, 1)) * (seed % 2)
    A = mass(extra) * draw(seed, n, sharpness)
    evidence.expect("sum of a row", row_mass(A), at_least=mass(0 * extra)[0, 0] - 4 * n * EPS)
    evidence.expect("alpha_1 less its proxy", importance(A)[0] - importance(proxy(A))[0], at_least=-4 * n * EPS)
