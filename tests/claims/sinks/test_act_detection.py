"""When a later token counts as a sink (ACT; Yu et al., 2024): the threshold, and what it flags by chance.

What the paper says. A token after the first is an attention sink where its average attention exceeds 5 / N; the
released scripts take 0.1, whatever N is. That sinks occur at later tokens is its first finding.

Notation. a_k is the mean attention to token k from the queries that see it, N their number, u_k = mean of 1/k .. 1/N
what uniform attention gives. The excess of a token is the sum over these queries of A_tk - 1/t.

Scope. Causal maps in which no token is special: uniform ones, and softmax of independent normal logits. The trained
models of test_act_trained.py are judged by the rule that is checked here.
"""

from fractions import Fraction

import numpy as np

from reports.claim import Claim
from theory.sinks.act import (
    ALPHA,
    RELEASED_TAU,
    beyond_chance,
    later_sinks,
    random_maps,
    uniform_importance,
)

PAPER = "yu2024unveiling"


def paper_threshold(n):
    return Fraction(int(ALPHA), n)


def released_threshold(n):
    return Fraction(1, 10)


def above(average, threshold):
    return average > threshold


def above_uniform(average, threshold):
    """Five times what uniform attention gives this token: nothing of uniform attention is."""
    return False


# -- what the threshold flags ------------------------------------------------------------------------------------------

chance = Claim(
    paper=PAPER,
    slug="threshold-flags-chance",
    where="ours, on the thresholds 5 / N and 0.1; the paper does not say otherwise",
    says="A later token above the threshold need not stand out: uniform attention puts the second token above 5 / N "
    "for every N from 221 on, and tokens above 0.1 for every N up to 31; random maps put some above 5 / N.",
    formula=r"\frac{1}{N - 1} \sum_{t=2}^{N} \frac1t > \frac5N \iff N \ge 221",
    gap="Uniform and random maps are no model of trained heads: they say what the threshold alone does not exclude.",
)


@chance.check(
    "exact",
    scope="uniform attention",
    controls={
        "five times the uniform average": {"flag": above_uniform},
        "10 / N": {"paper": lambda n: Fraction(10, n)},
    },
)
def test_uniform_attention_has_later_sinks(evidence, *, flag=above, paper=paper_threshold):
    """Exact fractions up to N = 221; beyond, N a_2 = N (H_N - 1) / (N - 1) grows: its increments are positive."""
    import sympy

    averages = {n: uniform_importance(n)[1] for n in range(6, 222)}
    first = [n for n, average in averages.items() if flag(average, paper(n))]
    evidence.expect("smallest N with a token above 5 / N", first[0] if first else 0, equals=221, error=0)
    flagged = {n: sum(flag(a, released_threshold(n)) for a in uniform_importance(n)[1:]) for n in range(2, 41)}
    evidence.expect("largest N with a token above 0.1", max(n for n in flagged if flagged[n]), equals=31, error=0)
    evidence.true("each N up to 31 has one", all(flagged[n] for n in range(2, 32)))
    evidence.note(f"At N = 10, {flagged[10]} of the nine later tokens are above 0.1; at N = 20, {flagged[20]}.")
    N, h = sympy.symbols("N h", positive=True)  # h = H_N - 1, at most N - 1
    growth = (N + 1) / N * (h + 1 / (N + 1)) - N / (N - 1) * h
    least = sympy.together(growth.subs(h, N - 1).subs(N, N + 2))  # linear in h, falling
    falls = sympy.together(sympy.diff(growth, h).subs(N, N + 2))
    evidence.true("N a_2 falls in h", sympy.factor(falls).is_negative is True)
    evidence.true("and grows where h is largest", sympy.factor(least).is_nonnegative is True)


@chance.check("statistical", scope="random maps", controls={"beyond shuffled copies": {"rule": beyond_chance}})
def test_random_maps_have_later_sinks(evidence, rng, *, rule=lambda A, rng: later_sinks(A)):
    """Logits N(0, 4), N = 64: a test at 5 % would flag a token in one map of 20. The note has other sizes."""
    maps = random_maps(200, 64, 2.0, rng("maps"))
    evidence.mean_at_least("maps with a flagged token", rule(maps, rng("shuffles")).any(axis=-1), 0.15, alpha=1e-4)
    for n, sigma in ((64, 1.0), (256, 1.0), (256, 2.0)):
        found = random_maps(40, n, sigma, rng("notes", n, sigma))
        counts = [later_sinks(found, tau).sum(axis=-1).mean() for tau in (None, RELEASED_TAU)]
        evidence.note(
            f"N = {n}, logits N(0, {sigma**2:g}): {counts[0]:.2f} a map above 5 / N, {counts[1]:.2f} above 0.1."
        )


# -- a rule with a null model ------------------------------------------------------------------------------------------

null = Claim(
    paper=PAPER,
    slug="sinks-beyond-chance",
    where="ours; the paper has no such rule",
    says="Shuffling each row among the keys that its query sees gives a test for later sinks: on maps with "
    "exchangeable rows it flags a map with probability 1 / (R + 1) at most for R copies, and it finds a planted sink.",
    formula=r"P\bigl(\max_k e_k > \max_{r \le R} \max_k e^{(r)}_k\bigr) \le \frac{1}{R + 1}",
    gap="Rows of trained heads are not exchangeable: content and distance also make tokens stand out. Passing the test "
    "is necessary for a sink, not sufficient.",
)


@null.check(
    "statistical",
    scope="false alarms",
    controls={
        "5 / N": {"rule": lambda A, rng: later_sinks(A)},
        "one copy": {"rule": lambda A, rng: beyond_chance(A, rng, 1)},
    },
)
def test_random_maps_are_rarely_flagged(evidence, rng, *, rule=lambda A, rng: beyond_chance(A, rng, 19)):
    """19 copies: at most one map in 20; 200 maps, N = 64, logits N(0, 4); the bound leaves room for their number."""
    maps = random_maps(200, 64, 2.0, rng("maps"))
    evidence.mean_at_most("maps with a flagged token", rule(maps, rng("shuffles")).any(axis=-1), 0.15, alpha=1e-4)


@null.check("statistical", scope="a planted sink", controls={"no sink": {"raised": 0.0}})
def test_a_planted_sink_is_found(evidence, rng, *, raised=2.5):
    """One token's logits are 2.5 higher, so that it gets a fifth of the attention; N = 64, logits N(0, 1)."""
    draw = rng("maps")
    logits = draw.standard_normal((200, 64, 64))
    logits[:, :, 20] += raised
    weights = np.where(np.tri(64) > 0, np.exp(logits), 0)
    maps = weights / weights.sum(axis=-1, keepdims=True)
    found = beyond_chance(maps, rng("shuffles"), 19)[:, 20]
    evidence.sign_test("maps in which it is flagged", int(found.sum()), len(found), alpha=1e-4)
