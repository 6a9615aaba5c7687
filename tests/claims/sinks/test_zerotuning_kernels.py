"""Is the tuned first token kernel-agnostic? (ZeroTuning, Han et al., 2025)

What the paper says. The method works with fused kernels (SDPA, FlashAttention), where weights are not at hand: there it
scales query or key states, equivalently. It changes neither the key-value cache nor decoding.

Notation. As in test_zerotuning.py; s_j = q . k_j / sqrt(d) are a query's scores.

Scope. One head. What is tuned are the weights themselves: the reference is `tuned` on explicit softmax rows.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import scores, softmax_rows
from theory.operators.positions import causal
from theory.sinks.zerotuning import after_the_kernel, denominator, logit_bias, tuned, with_coordinate, with_copies

PAPER = "han2025zerotuning"
EPS = np.finfo(float).eps
GAMMA = float(np.e)

seeds = st.integers(0, 2**32 - 1)


def draw(seed, n, m, d):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)), rng.standard_normal((m, d))


def rounding(m, d):
    """Outputs are means of values below 8; scores of up to 64 carry their error into the weights."""
    return 8 * 4 * (m + d + 64) * EPS


equivalent = Claim(
    paper=PAPER,
    slug="key-scaling-is-equivalent",
    where="Kernel compatibility",
    says="Tuning the first token by gamma is equivalent to scaling query or key states before the kernel.",
    formula=r"\mathrm{softmax}(q \cdot c k_0, q \cdot k_1, \dots) = a'(\gamma) \text{ for one } c",
    gap="The released demonstration uses eager attention; what the authors' fused version computes we could not see.",
    repair="What is equivalent: ln gamma on the mask's first column; one more coordinate of queries and keys; gamma "
    "copies of the first key and value, for integers; and a correction from the kernel's output and log-sum-exp.",
)


def needed_factors(first, gamma):
    """c with c s = s + ln gamma, for each of some scores or differences of scores s."""
    return 1 + np.log(gamma) / first


def differ(evidence, description, first):
    """gamma = e asks for the factors 2 where s = 1 and 3/2 where s = 2; one factor cannot be both."""
    needed = needed_factors(np.array(first), GAMMA)
    evidence.expect("difference of the factors needed", abs(needed[0] - needed[1]), at_least=0.5 - 4 * EPS)
    evidence.counterexample(description, scores=first, factors=tuple(needed))


@equivalent.refutation("exact", scope="keys", controls={"queries that agree": {"first": (1.0, 1.0)}})
def test_two_queries_need_two_factors_of_one_key(evidence, *, first=(1.0, 2.0)):
    """d = 1, k_0 = 1, queries 1 and 2, gamma = e: a key has one factor. For a query with s_0 = 0 none works."""
    differ(evidence, "scores of the first key under two queries, gamma = e", first)
    best, error = best_single_factor(np.array(first))
    evidence.note(f"The best single factor, {best:.3f}, leaves an error of {error:.3f} in a weight (second score 0).")


def best_single_factor(first):
    """The c in [0, 4] with the least worst error of the first weight, among 4001, and that error."""
    tuned_weight = 1 / (1 + np.exp(-first) / GAMMA)
    factors = np.linspace(0, 4, 4001)
    worst = abs(1 / (1 + np.exp(-factors[:, None] * first)) - tuned_weight).max(axis=1)
    return factors[np.argmin(worst)], worst.min()


@equivalent.refutation("exact", scope="queries", controls={"other keys that agree": {"ahead": (1.0, 1.0)}})
def test_two_other_keys_need_two_factors_of_one_query(evidence, *, ahead=(1.0, 2.0)):
    """One query, scores 2, 1 and 0: a factor c must raise the first by ln gamma against both of the others."""
    differ(evidence, "the first score less each of the others, one query, gamma = e", ahead)


def by_mask(q, k, v, gamma):
    return softmax_rows(scores(q, k) + logit_bias(gamma, len(k))) @ v


def by_correction(q, k, v, gamma, correct=after_the_kernel):
    s = scores(q, k)
    top = s.max(axis=-1)
    log_sum = top + np.log(np.exp(s - top[:, None]).sum(axis=-1))
    return correct(softmax_rows(s) @ v, log_sum, s[:, 0], v[0], gamma)


def without_denominator(output, log_sum, score, value, gamma):
    a0 = np.exp(score - log_sum)
    return after_the_kernel(output, log_sum, score, value, gamma) * denominator(a0, gamma)[:, None]


def by_coordinate(q, k, v, gamma):
    scale = q.shape[-1] ** -0.5
    return softmax_rows(scores(*with_coordinate(q, k, gamma, scale), scale=scale)) @ v


def by_copies(q, k, v, gamma, more=0):
    return softmax_rows(scores(q, with_copies(k, gamma + more))) @ with_copies(v, gamma + more)


def by_key(q, k, v, gamma):
    """The first key scaled so that the first query gets what it needs."""
    s = scores(q, k)
    factor = needed_factors(s[0, 0], gamma)
    return softmax_rows(np.where(np.arange(len(k)) == 0, s * factor, s)) @ v


WAYS = {"mask": by_mask, "correction": by_correction, "coordinate": by_coordinate, "copies": by_copies}


@equivalent.check(
    "property",
    controls={
        "gamma itself in the mask": {"ways": {"mask": lambda q, k, v, gamma: by_mask(q, k, v, np.exp(gamma))}},
        "correction without D": {"ways": {"correction": lambda *x: by_correction(*x, correct=without_denominator)}},
        "gamma copies beside the first": {"ways": {"copies": lambda *x: by_copies(*x, more=1)}},
        "one factor for the key": {"ways": {"key": by_key}},
    },
)
@given(seed=seeds, n=st.integers(2, 6), m=st.integers(2, 24), d=st.integers(1, 8), gamma=st.integers(2, 9))
def test_four_ways_that_are_equivalent(evidence, seed, n, m, d, gamma, *, ways=WAYS):
    """Outputs of each way against explicit tuned weights, float64."""
    q, k, v = draw(seed, n, m, d)
    expected = tuned(softmax_rows(scores(q, k)), gamma) @ v
    for name, way in ways.items():
        evidence.expect(
            f"{name}: largest difference", abs(way(q, k, v, gamma) - expected).max(), at_most=rounding(m, d)
        )


@equivalent.check(
    "exact", scope="PyTorch's own kernel", controls={"gamma for ln gamma": {"entry": lambda gamma: gamma}}
)
def test_pytorch_takes_the_mask(evidence, rng, *, entry=np.log):
    """scaled_dot_product_attention with a causal mask that holds ln gamma, four heads with their own gamma, float64."""
    torch = pytest.importorskip("torch", reason="needs torch")
    gammas = np.array([0.25, 0.8, 1.5, 4.0])
    generator = rng("states")
    q, k, v = (torch.from_numpy(generator.standard_normal((4, 12, 8))) for _ in range(3))
    mask = torch.from_numpy(causal(12))
    bias = torch.zeros(4, 12, 12, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    bias[..., 0] += torch.from_numpy(entry(gammas))[:, None]
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    expected = tuned(softmax_rows(scores(q, k), mask), torch.from_numpy(gammas)[:, None, None]) @ v
    evidence.expect("largest difference of outputs", abs(fused - expected).max(), at_most=rounding(12, 8))


cache = Claim(
    paper=PAPER,
    slug="no-change-of-the-cache",
    where="Abstract (versions 2 and 3)",
    says="Tuning needs no change of the key-value cache or of decoding: from cached keys and values, token by token, "
    "it gives the rows of the whole pass.",
    formula=r"a'_t = \mathrm{tune}\bigl(\mathrm{softmax}(q_t \cdot k_{\le t})\bigr)",
    gap="One layer; deeper layers follow, as each is fed the same states.",
)


def by_column(A, gamma):
    """Scales the first token to gamma times its mean over all queries, later ones too."""
    return tuned(A, gamma * A[:, :1].mean(axis=0) / A[:, :1])


@cache.check("property", controls={"a factor from the whole column": {"tune": by_column}})
@given(seed=seeds, n=st.integers(2, 16), d=st.integers(1, 8), log_gamma=st.floats(-3, 3))
def test_decoding_gives_the_rows_of_the_whole_pass(evidence, seed, n, d, log_gamma, *, tune=tuned):
    """Each query alone on the keys up to its own, against the causal rows of the whole."""
    q, k, _ = draw(seed, n, n, d)
    gamma = np.exp(log_gamma)
    rows = tune(softmax_rows(scores(q, k), causal(n)), gamma)
    for t in range(n):
        alone = tune(softmax_rows(scores(q[t : t + 1], k[: t + 1])), gamma)
        evidence.expect("largest difference of weights", abs(rows[t, : t + 1] - alone).max(), at_most=rounding(n, d))
