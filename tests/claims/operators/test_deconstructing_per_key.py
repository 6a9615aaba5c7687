"""Attention taken apart: one logit per key (Xue, Moosavi, Aletras, 2025).

What the paper says. *Non-approximate* gives each key one logit, SiLU(h W_q) . (h W_k) / sqrt(d), which no query changes
(Section 3.3, Equation 18): two running sums compute it, as the denominator grows, later tokens weigh ever less. With
QK norm it trains also without standard layers (Appendix A).

Notation. One head of width d, their d_h; s_j is the logit of key j, A_ij the weight of key j for query i, causal.

Scope. Identities and bounds that hold whatever is trained; trained models are in test_deconstructing_trained.py.
"""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import per_key, softmax
from theory.operators.deconstructing import (
    gated_bound,
    gated_logits,
    newest_bound,
    per_key_recurrence,
    rms_norm,
    silu,
)
from theory.operators.positions import causal, rotary

PAPER = "xue2025deconstructing"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

per_key_form = Claim(
    paper=PAPER,
    slug="per-key-recurrence",
    where="Section 3.3, Equation 18",
    says="With one logit per key, causal attention is the quotient of two running sums, and the denominator grows with "
    "every token.",
    formula=r"o_i = \frac{\sum_{j \le i} e^{s_j} v_j}{\sum_{j \le i} e^{s_j}}",
    gap="Exact arithmetic; printed without a shift, the sums overflow in float32 once a logit passes 88.",
)


def forgetful(factors, v):
    """The denominator of the last token alone."""
    return per_key_recurrence(factors, v)[0], factors[:, None]


@per_key_form.check("proof", controls={"only the newest denominator": {"run": forgetful}})
def test_the_running_sums_are_those_of_the_operator(evidence, *, run=per_key_recurrence):
    """Six tokens with symbolic factors e^{s_j} and values; each step adds one token, so that six show any number."""
    from sympy import QQ
    from sympy.polys.rings import ring

    names = [*(f"e{j}" for j in range(6)), *(f"v{j}" for j in range(6))]
    _, *generators = ring(names, QQ)
    e, v = np.array(generators[:6], object), np.array(generators[6:], object)[:, None]
    numerators, denominators = run(e, v)
    for i in range(6):
        off = len(numerators[i, 0] - (e * v[:, 0])[: i + 1].sum()) + len(denominators[i, 0] - e[: i + 1].sum())
        evidence.expect("terms by which the sums are off", off, equals=0, error=0)
    growth = [set((after - before)[0].coeffs()) for before, after in pairwise(denominators)]
    evidence.expect("steps at which the denominator does not grow", sum(g != {1} for g in growth), equals=0, error=0)


order_blind = Claim(
    paper=PAPER,
    slug="per-key-has-no-positions",
    where="Section 3.3 (our consequence)",
    says="Turning SiLU(q_j) and k_j by the same rotary angle leaves every logit as it is, and no output "
    "depends on the order of the tokens before it: one layer of Non-approximate knows nothing of positions.",
    formula=r"(R_j\,\mathrm{SiLU}(q_j))^\top R_j k_j = \mathrm{SiLU}(q_j)^\top k_j",
    gap="One layer; a second one sees prefixes of different lengths. Turned before SiLU, logits change: the control.",
)


def turned_before(q, k):
    return gated_logits(rotary(q), rotary(k))


def turned_after(q, k):
    return (rotary(silu(q)) * rotary(k)).sum(axis=-1) / np.sqrt(q.shape[-1])


@order_blind.check(
    "property", controls={"rotation before SiLU": {"logits": turned_before}, "keys alone turned": {
        "logits": lambda q, k: gated_logits(q, rotary(k))}}
)  # fmt: skip
@given(size=st.tuples(st.integers(2, 16), st.integers(1, 4)), seed=seeds)
def test_neither_rotation_nor_order_reaches_the_output(evidence, size, seed, *, logits=turned_after):
    """Logits before and after the rotation, and the last token's output with the others permuted."""
    n, half = size
    draw = np.random.default_rng(seed)
    q, k, v = draw.standard_normal((3, n, 2 * half))
    budget = 16 * half * EPS * (abs(q) * abs(k)).max() * np.sqrt(2 * half)
    evidence.expect("change of a logit", abs(logits(q, k) - gated_logits(q, k)).max(), at_most=budget)
    order = [*draw.permutation(n - 1), n - 1]
    output = [(per_key(gated_logits(q[at], k[at]), mask=causal(n)) @ v[at])[-1] for at in (order, range(n))]
    evidence.expect("change of the last output", abs(output[0] - output[1]).max(), at_most=8 * n * EPS * abs(v).max())


fading = Claim(
    paper=PAPER,
    slug="later-tokens-weigh-less",
    where="Section 3.3",
    says="Because the denominator grows with the position, later tokens get ever less weight.",
    formula=r"A_{ii} > A_{i+1,i+1}",
    repair="A given token's weight falls strictly as queries move on, and with logits in [-C, C] the newest of i + 1 "
    "tokens weighs at most 1/(1 + i exp(-2 C)).",
    gap="Nothing is said on how large trained logits are; see the claims on logit outliers.",
)


@fading.refutation("exact", controls={"equal logits": {"factors": (1, 1, 1)}})
def test_a_later_token_with_a_larger_logit_weighs_more(evidence, *, factors=(1, 1, 3)):
    """Three tokens: the newest weighs 1, 1/2, then 3/5; two tokens suffice within one row, where 3/4 follows 1/4."""
    from fractions import Fraction

    newest = [Fraction(factors[i], sum(factors[: i + 1])) for i in range(3)]
    evidence.expect("rise of the newest token's weight", newest[2] - newest[1], at_least=Fraction(1, 100))
    evidence.counterexample("Factors e^s of three tokens", factors=factors, newest=[str(w) for w in newest])


def own_logits(e):
    """Factors of each row of their own, as in standard attention; e (n,) are those of one row."""
    return per_row(np.stack([np.roll(e, i) for i in range(len(e))]))


def per_row(table):
    """(n, n): numerators and norms of causal rows; table (n, n) or (n,) of factors."""
    n = len(table)
    rows = np.broadcast_to(table, (n, n))
    return [[(rows[i, j], rows[i, : i + 1].sum()) for j in range(i + 1)] for i in range(n)]


@fading.check(
    "proof", scope="strict fall of a token's weight", controls={"logits of each row's own": {"rows": own_logits}}
)
def test_the_weight_of_a_token_falls_with_every_further_query(evidence, *, rows=per_row):
    """A_ij - A_{i+1,j} over a common denominator has only positive coefficients in the factors e^{s_j}; five tokens."""
    from sympy import QQ
    from sympy.polys.rings import ring

    _, *generators = ring([f"e{j}" for j in range(5)], QQ)
    table = rows(np.array(generators, object))
    for before, after in pairwise(table):
        for (top, norm), (next_top, next_norm) in zip(before, after, strict=False):
            difference = top * next_norm - next_top * norm
            signs = {c > 0 for c in difference.coeffs()}
            evidence.expect("falls not shown to be strict", int(signs != {True}), equals=0, error=0)


@fading.check("property", controls={"half the range": {"bound": lambda i, C: newest_bound(i, C / 2)}})
@given(i=st.integers(1, 60), C=st.floats(0.01, 8), share=st.floats(0, 1), seed=seeds)
def test_bounded_logits_bound_the_newest_weight(evidence, i, C, share, seed, *, bound=newest_bound):
    """Logits between the extremes, and at them: with the newest at C and all others at -C the bound is attained."""
    extreme = np.array([-C] * i + [C])
    logits = (1 - share) * extreme + share * np.random.default_rng(seed).uniform(-C, C, i + 1)
    budget = 4 * (i + 8 * C) * EPS
    for row in (logits, extreme):
        weights = per_key(row, mask=causal(i + 1))
        evidence.expect("bound less newest weight", bound(i, C) - weights[-1, -1], at_least=-budget)
        evidence.expect("least fall of a weight", (weights[:-1] - weights[1:])[np.tril_indices(i)].min(), at_least=-EPS)
    evidence.expect("bound less weight at the extreme", bound(i, C) - weights[-1, -1], equals=0, error=budget)


per_key_ratios = Claim(
    paper=PAPER,
    slug="per-key-ratios",
    where="Section 3.3",
    says="In Non-approximate the ratio of two keys' weights is the same for every query that sees both.",
    formula=r"\frac{A_{ij}}{A_{ij'}} = e^{s_j - s_{j'}}",
    gap="In exact arithmetic; a weight that underflows has no ratio.",
)


def dot_product(q, k):
    return softmax(q, k, mask=causal(len(q)))


@per_key_ratios.check("property", controls={"standard attention": {"weights": dot_product}})
@given(size=st.tuples(st.integers(3, 16), st.integers(1, 6)), seed=seeds)
def test_ratios_of_weights_do_not_depend_on_the_query(
    evidence, size, seed, *, weights=lambda q, k: per_key(gated_logits(q, k), mask=causal(len(q)))
):
    """ln A_ij - ln A_i0 over all later rows; quotients of exponentials err by a few roundings."""
    q, k = np.random.default_rng(seed).standard_normal((2, *size))
    logs = np.log(np.where(causal(len(q)), weights(q, k), 1.0))
    relative = np.where(causal(len(q)), logs - logs[:, :1], 0)
    spread = max(np.ptp(relative[j:, j]) for j in range(len(q)))
    evidence.expect("spread of a ratio's logarithm", spread, at_most=16 * EPS * (1 + abs(logs).max()))


qk_norm = Claim(
    paper=PAPER,
    slug="qk-norm-bounds-logits",
    where="Appendix A, Table 2",
    says="With queries and keys brought to unit root mean square every logit of Non-approximate lies within "
    "sqrt(d) logistic(sqrt(d)), d the width of a head: there are no outliers.",
    formula=r"|s_j| \le \sqrt{d}\, \sigma(\sqrt{d})",
    gap="Without the norm's learned gains, which can undo it; trained models are in qk-norm-lets-it-train.",
)


@qk_norm.check("property", controls={"no norm": {"norm": lambda x: x}, "unit length": {"norm": lambda x: x / np.sqrt(
    (x**2).sum(-1, keepdims=True))}})  # fmt: skip
@given(d=st.integers(1, 64), magnitude=st.integers(-3, 3), sparse=st.integers(1, 64), draw=st.integers(0, 2**32 - 1))
def test_normalised_logits_stay_within_the_bound_and_attain_it(evidence, d, magnitude, sparse, draw, *, norm=rms_norm):
    """Dense and sparse queries and keys of any size; with a single non-zero entry in both the bound is attained."""
    q, k = 10.0**magnitude * np.random.default_rng(draw).standard_normal((2, 50, d))
    q[:, sparse:] = k[:, sparse:] = 0
    rounding = 8 * d * np.finfo(float).eps * gated_bound(d)
    size = abs(gated_logits(norm(q), norm(k))).max()
    evidence.expect("largest logit less the bound", size - gated_bound(d), at_most=rounding)
    corner = norm(2 * np.eye(d)[:1])
    attained = gated_logits(corner, corner)[0] - gated_bound(d)
    evidence.expect("distance to the bound at a corner", attained, equals=0, error=rounding)
