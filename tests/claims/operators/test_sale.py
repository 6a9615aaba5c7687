"""SALE: 4-bit estimates and the relative attention score (Ji, Zhang, Fu, Cui, 2025, withdrawn from ICLR 2026).

What the paper says. For prefill of long contexts the product of 4-bit queries and keys, smoothed before they are
quantised, inspects every pair of query and key. Blocks of keys in which some pair's relative attention score exceeds a
threshold are attended to. The score relates a pair to the sink and the local keys alone, which costs no pass over all
keys. We read the abstract and the released code, not the body; definitions are the code's.

Notation. qbar, kbar are means over tokens; s = q.k without its row constant q.kbar, shat its estimate; m_i and D_i the
maximum and the sum of exp((s_il - m_i) / sqrt d) over sink and local keys; RAS, the score, is
exp((shat_ij - m_i) / sqrt d) / D_i; tau the threshold, a_ij softmax's weight. Blocks have 64 queries and 32 keys.

Scope. Estimates, score and selection on normal draws and synthetic heads; calibration, cost and speed in
test_sale_cost.py. What a model loses is not ours.
"""

import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import sale
from theory.operators.attention import softmax_rows
from theory.operators.sale_heads import synthetic

PAPER = "ji2025sale"
EPS = np.finfo(float).eps
N, D = 384, 32
KINDS = ("normal", "local", "needle", "vertical")


def head(seed, kind, n=N, d=D):
    """q and k (n, d); the synthetic heads with weak sinks, so that much is left to be selected."""
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, n, d))
    return (q + 1, k - 1) if kind == "normal" else synthetic(kind, q, k, contrast=2, reach=96, every=4)


seeds, kinds = st.integers(0, 2**32 - 1), st.sampled_from(KINDS)
levels = st.sampled_from((0.3, 0.03, 0.008, 0.001))

# -- smoothing ---------------------------------------------------------------------------------------------------------

smoothing = Claim(
    paper=PAPER,
    slug="smoothing-keeps-attention",
    where="Released code (quant_triton.py)",
    says="A score is that of query and key less their means, plus qbar.(k - kbar), plus a constant of the row: without "
    "the constant, softmax is the same.",
    formula=r"q \cdot k = \tilde q \cdot \tilde k + \bar q \cdot \tilde k + q \cdot \bar k",
    gap="Before quantisation.",
)


def centred_and_mean(q, k):
    """(q - qbar).(k - kbar) + qbar.(k - kbar)."""
    (q, q_mean), (k, _) = sale.smoothed(q), sale.smoothed(k)
    return (q + q_mean) @ k.T


@smoothing.check(
    "property", controls={"mean term left out": {"score": lambda q, k: centred_and_mean(q - q.mean(0), k)}}
)
@given(sizes=st.tuples(st.integers(1, 6), st.integers(1, 4)), entries=st.lists(st.integers(-9, 9), min_size=1))
def test_what_smoothing_drops_is_constant_along_a_row(evidence, sizes, entries, *, score=centred_and_mean):
    """Rational q and k of up to 6 tokens: q.k less the smoothed form equals q.kbar for every key, exactly."""
    numbers = np.array([Fraction(x, 3) + i for i, x in enumerate(entries)], dtype=object)
    q, k = np.resize(numbers, (2, *sizes))
    q[0, 0] += 1
    rest = q @ k.T - score(q, k)
    evidence.expect("difference less q.kbar", rest - (q @ k.mean(0))[:, None], equals=0, error=0)


# -- 4-bit estimates ---------------------------------------------------------------------------------------------------

estimate = Claim(
    paper=PAPER,
    slug="four-bit-scores-are-near",
    where="Abstract (4-bit quantised products estimate attention weights accurately enough; the bound is ours)",
    says="The estimate of a score differs from it by at most s_j |q|_1 / 2 + s_i |k|_1 / 2 + d s_i s_j / 4, with s the "
    "scales and q, k smoothed; no smaller multiple of this holds for all d.",
    formula=r"|\hat s - s| \le \tfrac12 s_k \|\tilde q\|_1 + \tfrac12 s_q \|\tilde k\|_1 + \tfrac d4 s_q s_k",
    gap="Whether so small an error is enough for a model.",
)


def rounding_error(q, k):
    """Of the float64 sums on both sides: d + 8 operations a score, none above these lengths."""
    lengths = abs(q).sum(-1)[..., :, None] * abs(k).max() + abs(k).sum(-1)[..., None, :] * abs(q).max()
    return 8 * (q.shape[-1] + 8) * EPS * lengths


def opposed(entry, d):
    """Tokens x and -x, whose mean is 0, with the entries 7, and `entry` d - 1 times: the scale is 1."""
    x = np.full(d, entry)
    x[0] = 7
    return np.stack([x, -x])


@estimate.check("property", scope="bound", controls={"floor in place of rounding": {"rounding": np.floor}})
@given(seed=seeds, kind=kinds, fraction=st.floats(0, 1), groups=st.sampled_from((sale.TOKEN, sale.BLOCK, None)))
def test_no_estimate_errs_by_more_than_the_bound(evidence, seed, kind, fraction, groups, *, rounding=np.round):
    """Four kinds of heads, scales a token, a block, and the code's; and entries 3 + fraction beside a 7, d = 128."""
    pairs = (sale.QUERY_PAIRS, sale.KEY_LANES) if groups is None else (groups, groups)
    for q, k in (head(seed, kind, n=128), (opposed(3 + fraction, 128),) * 2):
        error = abs(sale.estimated(q, k, groups=pairs, rounding=rounding) - sale.exact(q, k))
        bound = sale.estimate_error_bound(q, k, pairs) + rounding_error(q, k)
        evidence.expect("error over its bound", (error / bound).max(), at_most=1)


@estimate.check(
    "exact", scope="attained", controls={"entries that are integers": {"entry": 3.0}, "nearer to one": {"entry": 3.25}}
)
def test_the_bound_is_attained_as_the_width_grows(evidence, *, entry=3.5 + 2.0**-40):
    """Entries next to 7/2 beside a 7: 1 - error / bound is at most 8 / d for d = 32, 128, 2048."""
    for d in (32, 128, 2048):
        q = opposed(entry, d)
        ratio = abs(sale.estimated(q, q) - sale.exact(q, q))[0, 0] / sale.estimate_error_bound(q, q)[0, 0]
        evidence.expect("d (1 - error / bound)", d * (1 - ratio), at_most=8)


# -- the relative attention score --------------------------------------------------------------------------------------

no_misses = Claim(
    paper=PAPER,
    slug="no-false-negatives",
    where="Abstract (the score is a valid metric; statement and proof are ours)",
    says="The relative attention score of an exact score is at least softmax's weight, since it leaves summands out of "
    "the norm. So each discarded pair has a weight of at most tau, with 4-bit scores of tau exp(error / sqrt d).",
    formula=r"\mathrm{RAS}_{ij} \ge a_{ij}, \qquad a_{ij} \le \tau e^{\varepsilon_{ij} / \sqrt d}",
    gap="Weights one by one: their sum over many discarded keys may be large, and calibration has to see to it.",
)


def mean_of_blocks(x):
    """The mean over a block in place of its maximum."""
    filled = np.pad(x, ((0, -len(x) % sale.QUERIES), (0, -len(x) % sale.KEYS)))
    return filled.reshape(-1, sale.QUERIES, filled.shape[1] // sale.KEYS, sale.KEYS).mean((1, 3))


def another_maximum(s):
    """The maximum over all keys, beside the norm about that of sink and local keys."""
    visible = np.where(sale.causal(len(s), s), s, -np.inf)
    return visible.max(-1, keepdims=True), sale.sink_and_local(s)[1]


@no_misses.check(
    "property",
    controls={
        "mean of a block": {"of_block": mean_of_blocks},
        "norm about another maximum": {"statistics": another_maximum},
    },
)
@given(seed=seeds, kind=kinds, tau=levels)
def test_what_is_discarded_has_no_more_weight_than_tau(
    evidence, seed, kind, tau, *, of_block=sale.largest_in_blocks, statistics=sale.sink_and_local
):
    """Heads of 384 tokens: score less weight, and weights outside kept blocks, of exact and of 4-bit scores."""
    q, k = head(seed, kind)
    scale, causal = D**-0.5, sale.causal(N, q)
    s, approximate = sale.exact(q, k) * scale, sale.estimated(q, k) * scale
    weights = softmax_rows(s, causal)
    top, norm = statistics(s)
    score = np.exp(s - top) / norm
    slack = 16 * EPS * (N + abs(s).max())  # of two exponentials of scores and of sums of N of them, relative
    least = ((score[causal] + 1e-300) / (weights[causal] + 1e-300)).min()
    evidence.expect("least score over weight", least, at_least=1 - slack)
    error = sale.estimate_error_bound(q, k) * scale
    for name, found, allowed in (("exact", score, 0.0), ("4-bit", np.exp(approximate - top) / norm, error)):
        kept = sale.pairs(sale.kept_blocks(of_block(found), tau, N), N)
        over = np.where(causal & ~kept, weights / (tau * np.exp(allowed)), 0)
        evidence.expect(f"discarded weight over what {name} scores allow", over.max(), at_most=1 + slack)


superset = Claim(
    paper=PAPER,
    slug="thresholds-are-monotone",
    where="Released code (the kernel's one-pass and two-pass versions)",
    says="A lower threshold keeps a superset of blocks: everything at 0, where attention is dense, and the sink's and "
    "the local ones alone for a large one. One-pass selection, whose norm grows, keeps a subset of two-pass selection.",
    formula=r"\tau' \le \tau \Rightarrow B_{\tau} \subseteq B_{\tau'}, \qquad "
    r"B^{\text{one}}_\tau \subseteq B^{\text{two}}_\tau",
    gap="Which of the two is better.",
)


@superset.check(
    "property",
    controls={
        "one pass and two passes exchanged": {"one": sale.selection, "two": sale.one_pass_selection},
        "what is below the threshold": {"two": lambda q, k, tau: sale.always(N, q) | ~sale.selection(q, k, tau)},
    },
)
@given(seed=seeds, kind=kinds, low=levels, high=levels)
def test_a_lower_threshold_keeps_more(
    evidence, seed, kind, low, high, *, one=sale.one_pass_selection, two=sale.selection
):
    """Heads of 384 tokens, two thresholds, and the limits 0 and infinity."""
    q, k = head(seed, kind)
    low, high = min(low, high), max(low, high)
    fewer = two(q, k, high)
    evidence.expect("blocks that a lower threshold loses", (fewer & ~two(q, k, low)).sum(), equals=0, error=0)
    evidence.expect("blocks of one pass alone", (one(q, k, high) & ~fewer).sum(), equals=0, error=0)
    v = np.random.default_rng(seed).standard_normal((N, D))
    off = sale.attend(q, k, v, two(q, k, 0)) - softmax_rows(q @ k.T * D**-0.5, sale.causal(N, q)) @ v
    evidence.expect("distance to dense attention at 0", abs(off).max(), at_most=8 * N * EPS * abs(v).max())
    different = (two(q, k, np.inf) != sale.always(N, q)).sum()
    evidence.expect("blocks beside sink and local ones at infinity", different, equals=0, error=0)


comparison = Claim(
    paper=PAPER,
    slug="comparison-of-logarithms",
    where="Released code (flash_fwd_int4_sparse_kernel_v2.h)",
    says="A pair's score exceeds tau if and only if shat exceeds m + log2(tau D) sqrt d ln 2: one comparison a pair, "
    "no exponential.",
    formula=r"\mathrm{RAS}_{ij} > \tau \iff \hat s_{ij} > \log_2(\tau D_i) \sqrt d \ln 2 + m_i",
    gap="The kernel's rounding; the code compares in float16.",
)


@comparison.check("property", controls={"natural logarithm": {"log": np.log}})
@given(seed=seeds, kind=kinds, tau=levels)
def test_logarithms_decide_as_exponentials_do(evidence, seed, kind, tau, *, log=np.log2):
    """All pairs of heads of 384 tokens; where the two differ, |ln(score / tau)| is rounding."""
    q, k = head(seed, kind)
    s = sale.exact(q, k) * D**-0.5
    top, norm = sale.sink_and_local(s)
    shat = sale.estimated(q, k) * D**-0.5
    different = sale.exceeds(shat, top, norm, tau, log) != (np.exp(shat - top) / norm > tau)
    distance = abs(shat - top - np.log(tau * norm))
    rounding = 8 * EPS * (abs(shat) + abs(top) + abs(math.log(tau)) + np.log(norm) + 1)
    evidence.expect(
        "ln(score / tau) where they differ, over rounding", np.where(different, distance / rounding, 0).max(), at_most=1
    )
