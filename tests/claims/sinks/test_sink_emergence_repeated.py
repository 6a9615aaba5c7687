"""When attention sink emerges: one token, repeated, without rotary positions (Gu et al., 2024, appendix C.1).

What the paper says. Where all tokens are equal, models with no, relative, ALiBi or rotary positions have equal hidden
states in every layer (equations 10-17); scores then depend on distance alone, and there is no sink on the first token
(propositions 1-3; proposition 4, rotary, is in test_sink_emergence_rotary.py).

Notation. g(n) is what a positional encoding adds at distance n = t - i; alpha_1(T) the importance of key 1 among T
tokens; a sink is alpha_1 > 0.3, the paper's metric, and T = 64, its default. Our g is their g_rel or g_alibi.

Scope. The theorems, and the relative encoding as the released code adds it: the bucket's own index, g = 0, 1, .. 31.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import attention, positions
from theory.sinks.measures import EPSILON, importance
from theory.sinks.sink_emergence import (
    alibi_first,
    alibi_scores,
    by_distance,
    first_importance,
    first_weights,
    next_inverse,
    relative_scores,
    uniform_importance,
)

PAPER = "gu2024attentionsink"
EPS = np.finfo(float).eps
TOKENS = 64
ALIBI = positions.alibi(TOKENS, 8)
NO_SINK_FROM = 76
"""The number of tokens from which on the relative encoding has no sink."""


def balls(scores):
    """exp of integers, as balls of `flint.arb`."""
    flint = pytest.importorskip("flint", reason="needs python-flint for interval arithmetic")
    return np.frompyfunc(lambda s: flint.arb(float(s)).exp(), 1, 1)(scores)


def subtracted(n):
    return -relative_scores(n)


def repeated(bias=None, n=TOKENS):
    """(n, n) weights of the operator on equal queries and equal keys under a causal mask."""
    q, k = np.ones((n, 3)), np.full((n, 3), 0.7)
    return attention.softmax(q, k, mask=positions.causal(n), bias=bias)


# -- hidden states -----------------------------------------------------------------------------------------------------

equal_states = Claim(
    paper=PAPER,
    slug="repeated-token-equal-states",
    where="Appendix C.1, equations 10-17",
    says="On a repeated token, models with no, relative, ALiBi or rotary positions have equal hidden states at all "
    "positions, in every layer.",
    formula=r"h_1^l = h_2^l = \dots = h_T^l, \quad 0 \le l \le L",
    gap="A key bias breaks it: the tokens' share of a row then grows with t. Trained models are not needed, as the "
    "theorem holds for all weights.",
)


def softmax_mean(e, v, indices):
    import sympy

    return sympy.Sum(e * v, indices) / sympy.Sum(e, indices)


def without_norm(e, v, indices):
    import sympy

    return sympy.Sum(e * v, indices)


def with_key_bias(e, v, indices):
    import sympy

    return sympy.Sum(e * v, indices) / (1 + sympy.Sum(e, indices))


@equal_states.check(
    "proof",
    controls={
        "weights without a norm": {"output": without_norm},
        "a key bias": {"output": with_key_bias},
    },
)
def test_any_weights_that_sum_to_one_return_the_common_value(evidence, *, output=softmax_mean):
    """The step of the induction: t and e_1..e_t > 0 symbols, sum_j e_j v / sum_j e_j = v; all else acts by position."""
    import sympy

    j, t = sympy.symbols("j t", integer=True, positive=True)
    e, v = sympy.IndexedBase("e", positive=True), sympy.Symbol("v", real=True)
    evidence.true("output is the value", sympy.simplify(output(e[j], v, (j, 1, t)) - v) == 0)


ENCODINGS = {
    "none": ("none", None),
    "rotary": ("rotary", None),
    "ALiBi": ("alibi", None),
    "relative": ("none", relative_scores),
    "subtracted": ("none", subtracted),
}


@equal_states.check(
    "property",
    scope="models of three layers",
    controls={
        "learned positions": {"encodings": {"learned": ("learned", None)}},
        "sinusoidal positions": {"encodings": {"sinusoidal": ("sinusoidal", None)}},
        "sigmoid attention": {"operator": attention.sigmoid},
        "key bias": {"outlet": "key bias"},
    },
)
def test_hidden_states_of_random_models_do_not_differ(
    evidence, rng, *, encodings=ENCODINGS, operator=attention.softmax, outlet="none"
):
    """Random weights, four repeated tokens, 64 positions: largest difference over the largest entry."""
    pytest.importorskip("torch", reason="needs torch for the models")
    from empirical.sinks import sink_emergence_positions as at

    for name, (position, scores) in encodings.items():
        bias = () if scores is None else scores(TOKENS)
        seed = rng.seed("model", name)
        model = at.untrained(position, seed, scores=bias, operator=operator, outlet=outlet)
        found = at.deviations(model, at.random_tokens(4, TOKENS, seed, repeated=True))
        # Sums of 64 weights, amplified fourfold by the norms and matrices of each layer.
        evidence.expect("relative difference", found, at_most=TOKENS * EPS * 4.0 ** np.arange(len(found)))


# -- propositions 1 and 3 ----------------------------------------------------------------------------------------------

uniform = Claim(
    paper=PAPER,
    slug="repeated-token-nope",
    where="Proposition 1",
    says="Without positions, a repeated token is attended to uniformly: 1 / t each, whatever the score.",
    formula=r"A_{t,i} = \frac{1}{t}",
    gap="By the paper's metric uniform attention has no sink only from ten tokens on.",
)


@uniform.check("proof", controls={"a score that grows with the place": {"score": lambda s, j: s + j}})
def test_equal_scores_share_the_row(evidence, *, score=lambda s, j: s):
    """The score s and t as symbols."""
    import sympy

    j, t = sympy.symbols("j t", integer=True, positive=True)
    s = sympy.Symbol("s", real=True)
    row = sympy.Sum(sympy.exp(score(s, j)), (j, 1, t)).doit()
    evidence.true("A_ti = 1 / t", sympy.simplify(sympy.exp(score(s, 1)) / row - 1 / t) == 0)


@uniform.check("exact", scope="the operator", controls={"ALiBi": {"bias": ALIBI[0]}})
def test_the_operator_attends_uniformly(evidence, *, bias=None):
    """t A_ti for all i <= t <= 64, and alpha_1 as the exact harmonic number over 64."""
    A = repeated(bias)
    t = np.arange(1, TOKENS + 1)[:, None]
    evidence.expect("t A_ti", (t * A)[positions.causal(TOKENS)], equals=1, error=TOKENS * EPS)
    evidence.expect("alpha_1", importance(A)[0], equals=float(uniform_importance(TOKENS)), error=TOKENS * EPS)


alibi = Claim(
    paper=PAPER,
    slug="repeated-token-alibi",
    where="Proposition 3",
    says="Under ALiBi the first of t repeated tokens gets less than 1 / t, at every slope: no sink on it.",
    formula=r"A_{t,1} = \frac{e^{-m (t-1)} (1 - e^{-m})}{1 - e^{-m t}} \le \frac{1}{t}",
    gap="alpha_1 stays below that of uniform attention, which the paper's metric calls no sink from ten tokens on.",
)


def keeps_its_share(ratio):
    """Is 1 / A_{t+1,1} >= t + 1 where 1 / A_{t,1} = t + s, s >= 0, for u >= 0?"""
    import sympy

    t = sympy.Symbol("t", integer=True, positive=True)
    u, s = sympy.symbols("u s", nonnegative=True)
    return sympy.expand(next_inverse(t + s, ratio(u)) - (t + 1)).is_nonnegative is True


@alibi.check("proof", controls={"slope of the other sign": {"ratio": lambda u: 1 / (1 + u)}})
def test_the_first_key_never_gets_more_than_its_share(evidence, *, ratio=lambda u: 1 + u):
    """Induction over t with e^m = 1 + u, u >= 0: A_{t,1} <= 1 / t stays so; the closed form obeys the recurrence."""
    import sympy

    t = sympy.Symbol("t", integer=True, positive=True)
    r = sympy.Symbol("r", positive=True)
    evidence.true("A_{t+1,1} <= 1 / (t + 1)", keeps_its_share(ratio))
    evidence.true("A_{1,1} = 1", sympy.simplify(alibi_first(1, r) - 1) == 0)
    closed = 1 / alibi_first(t + 1, r) - next_inverse(1 / alibi_first(t, r), 1 / r)
    evidence.true("the closed form obeys the recurrence", sympy.simplify(closed) == 0)


@alibi.check("exact", scope="eight heads, 64 tokens", controls={"slope of the other sign": {"bias": -ALIBI}})
def test_all_heads_stay_below_uniform_attention(evidence, *, bias=ALIBI):
    """The operator with the paper's slopes: closed form, and alpha_1 below uniform attention's."""
    A = repeated(bias)
    closed = alibi_first(np.arange(1, TOKENS + 1), np.exp(-positions.alibi_slopes(8))[:, None])
    evidence.expect("A_t1 over its closed form", A[..., 0] / closed, equals=1, error=TOKENS**2 * EPS)
    evidence.expect("alpha_1", importance(A)[..., 0], less_than=("uniform", float(uniform_importance(TOKENS))))


@alibi.check("property", scope="any bias that falls", controls={"turned round": {"order": np.sort}})
@given(steps=st.lists(st.floats(0, 3), min_size=1, max_size=64))
def test_falling_biases_give_the_first_token_at_most_its_share(evidence, steps, *, order=lambda g: g):
    """Slopes that change from distance to distance: t A_{t,1} <= 1, with equality where all are 0."""
    g = order(-np.cumsum([0.0, *steps]))
    t = np.arange(1, len(g) + 1)
    evidence.expect("t A_t1", t * first_weights(g - g.max()), at_most=1 + 8 * len(g) * EPS)


# -- proposition 2 -----------------------------------------------------------------------------------------------------

relative = Claim(
    paper=PAPER,
    slug="repeated-token-relative",
    where="Proposition 2",
    says="Under the relative encoding of equation 6 there is no attention sink on a repeated token.",
    formula=r"A_{t,1} = \frac{e^{g(t-1)}}{\sum_{n < t} e^{g(n)}}, \quad"
    r" g(n) = n \; (n < 16), \; \min\Bigl( 31, \, 16 + \bigl\lfloor 16 \tfrac{\ln(n / 16)}{\ln 8} \bigr\rfloor \Bigr)"
    r" \; (n \ge 16)",
    gap="g and its place, after the division by sqrt(d), are those of the released code; divided too, alpha_1 is a "
    "third of it. The paper's proof compares distances beyond 128, where keys share the largest value, and takes g for "
    "non-increasing.",
    repair="For an encoding that never grows with the distance, as if g were subtracted, or for 76 tokens and more.",
)


@relative.refutation(
    "certified",
    controls={
        "subtracted": {"scores": subtracted},
        "divided by sqrt(96)": {"scores": lambda n: relative_scores(n) / math.sqrt(96)},
        "128 tokens": {"tokens": 128},
    },
)
def test_at_64_tokens_the_first_has_a_sink(evidence, *, scores=relative_scores, tokens=TOKENS):
    """alpha_1(64) in interval arithmetic lies above 0.3, the paper's threshold at the paper's length."""
    alpha = first_importance(first_weights(scores(tokens), balls))[-1]
    evidence.note(f"alpha_1({tokens}) = {alpha}.")
    evidence.true("certainly above 0.3", bool(10 * alpha > 3))
    evidence.counterexample(f"{tokens} equal tokens, any weights", alpha_1=float(alpha.mid()))


@relative.refutation("exact", scope="the operator", controls={"subtracted": {"scores": subtracted}})
def test_the_operator_and_the_metric_find_the_sink(evidence, *, scores=relative_scores):
    """alpha_1 of softmax with the bias is the closed form's; key 1 has the largest weight at every t, alone at some."""
    A = repeated(by_distance(scores(TOKENS)))
    alpha = importance(A)
    evidence.expect("alpha_1", alpha[0], at_least=EPSILON)
    closed = first_importance(first_weights(relative_scores(TOKENS)))
    evidence.expect("alpha_1 less its closed form", alpha[0] - closed[-1], equals=0, error=TOKENS * EPS)
    others = np.where(np.tri(TOKENS, k=-1, dtype=bool).T | np.tri(TOKENS, dtype=bool), A, 0)[1:, 1:].max(1)
    evidence.expect("A_t1 less the largest other weight", A[1:, 0] - others, at_least=-EPS)
    evidence.note(f"Key 1 alone has the largest weight for {1 + int((A[1:, 0] > 1.5 * others).sum())} of {TOKENS} t.")
    evidence.figure(
        "Importance of the first of T repeated tokens",
        figure_of(),
        "What the relative encoding, added and subtracted, gives key 1; dotted: the paper's threshold.",
    )


@relative.check("proof", scope="encodings that never grow", controls={"that grow": {"ratio": lambda u: 1 / (1 + u)}})
def test_without_growth_the_first_token_gets_at_most_its_share(evidence, *, ratio=lambda u: 1 + u):
    """Induction over t with e^(g(t - 1) - g(t)) = 1 + u_t, u_t >= 0: t A_{t,1} <= 1, so alpha_1 <= H_T / T < 0.3."""
    evidence.true("A_{t+1,1} <= 1 / (t + 1)", keeps_its_share(ratio))
    evidence.expect("H_64 / 64", uniform_importance(TOKENS), less_than=Fraction(3, 10))


@relative.check("certified", scope="from 76 tokens on", controls={"from 75 on": {"start": 75}})
def test_from_76_tokens_on_the_sink_is_gone(evidence, *, start=NO_SINK_FROM):
    """Balls up to 256 tokens; beyond, g is constant, A_{t,1} falls, and alpha_1 is a mean of numbers below 0.3."""
    g = relative_scores(256)
    first = first_weights(g, balls)
    alpha = first_importance(first)
    evidence.true("certainly below 0.3", all(bool(10 * one < 3) for one in alpha[start - 1 :]))
    evidence.true("g is constant from 128 on", bool((g[128:] == g[128]).all()))
    evidence.true("A_{256,1} certainly below 0.3", bool(10 * first[-1] < 3))
    evidence.note(f"alpha_1(75) = {alpha[74].str(6)}, alpha_1(76) = {alpha[75].str(6)}.")


def figure_of():
    """alpha_1 against the number of tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes, n = figure.subplots(), 160
    for name, scores, style in (
        ("relative, added", relative_scores(n), "-"),
        ("no positions", np.zeros(n), "--"),
        ("ALiBi, slope 1/16", alibi_scores(n, 1 / 16), "-."),
        ("relative, subtracted", -relative_scores(n), ":"),
    ):
        axes.plot(np.arange(1, n + 1), first_importance(first_weights(scores)), style, label=name)
    axes.axhline(EPSILON, color="black", lw=0.8, ls=(0, (1, 2)))
    axes.axvline(TOKENS, color="black", lw=0.5)
    axes.set_xlabel("tokens T")
    axes.set_ylabel(r"$\alpha_1$")
    axes.legend(frameon=False)
    return figure
