"""Outliers as a factor on attention, and the variants of table 2 as identities (An et al., ICLR 2025).

What the paper says. Tokens with massive activations draw attention and have small values: they act as an implicit
context-aware scaling factor. Variants of attention tell what outliers are for (table 2): a fixed bias (b) and a
context-aware bias (c) leave them, an attention bias (d) and an explicit factor (e) do not need them; nor does sigmoid
attention (f), since softmax, whose weights sum to 1, is the cause (test_systematic_outliers_softmax.py).

Notation. y is plain attention (a); k', v' are the bias's key and value; S is what the other tokens keep of the weights
beside the outliers O, or beside k'. The gate of (e) is 2 sigmoid(w x + b), as in the released code.

Scope. Identities and bounds, which hold for every model and so do not show that trained ones use them: for that see
test_systematic_outliers_trained.py and _pretrained.py.
"""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import logistic, scores, softmax_rows
from theory.sinks import systematic_outliers as theory
from theory.sinks.sink_emergence_identities import scaled_by_star, star_share, with_star

PAPER = "an2025systematic"
EPS = np.finfo(float).eps
LENGTH = 16
TWICE = math.log(2)
seeds = st.integers(0, 2**32 - 1)


def rounding(n):
    """Relative error of a weighted mean of n values, the weights from scores of up to 100."""
    return 16 * (n + 100) * EPS


# -- the variants ------------------------------------------------------------------------------------------------------

variants = Claim(
    paper=PAPER,
    slug="variants-share-one-factor",
    where="Table 2, Section 5 (exact reading, ours)",
    says="Variants (c) and (d) differ from plain attention through one number for each query: a context-aware bias "
    "adds (1 - S) v', an attention bias does so too and scales by S.",
    formula=r"(c) = y + (1 - S)\,v', \quad (d) = S\,y + (1 - S)\,v', \quad (d) - (c) = (S - 1)\,y",
    gap="An identity: it tells what the variants can do, not what training makes of them.",
)


@variants.check(
    "proof",
    controls={
        "a bias that renormalises the values": {"context_aware": with_star},
        "a fixed bias": {"context_aware": lambda weighted, total, star, value: weighted / total + value},
    },
)
def test_the_two_biases_differ_by_the_scaling_alone(evidence, *, context_aware=theory.context_aware_bias):
    """For any number of tokens: sum_j e_j v_j, sum_j e_j > 0, e' > 0 and v' are symbols."""
    import sympy

    total, star = sympy.symbols("Z e", positive=True)
    weighted, value = sympy.symbols("N v", real=True)
    forms, S = (weighted, total, star, value), total / (total + star)
    evidence.true("(d) = S y + (1 - S) v'", sympy.simplify(with_star(*forms) - scaled_by_star(*forms)) == 0)
    difference = with_star(*forms) - context_aware(*forms) - (S - 1) * weighted / total
    evidence.true("(d) - (c) = (S - 1) y", sympy.simplify(difference) == 0)


def layers(rng):
    """Three attention layers of two heads with the same weights: (a), (c), (d); tokens (4, LENGTH, 16); the mask."""
    torch = pytest.importorskip("torch", reason="needs torch for the layers")
    from empirical.layers import Attention, Style

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed("layers"))
        made = [
            Attention(Style(16, 2, linear_bias=False, outlet=outlet)).double().requires_grad_(False)
            for outlet in ("key-value bias", "context-aware bias", "none")
        ]
        made[0].star_key.normal_()
        made[0].star_value.normal_()
        for one in made[1:]:
            one.load_state_dict(made[0].state_dict(), strict=False)
        x = torch.randn(4, LENGTH, 16, dtype=torch.float64)
    return made, x, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


@variants.check(
    "exact",
    scope="the layers that are trained",
    controls={"S from the largest score alone": {"share": lambda s, star: logistic(s.max(-1) - star)}},
)
def test_layers_with_biases_follow_the_identities(evidence, rng, *, share=star_share):
    """Two heads, four random sequences under a causal mask."""
    (both, bias, plain), x, mask = layers(rng)
    q, k = plain.queries_and_keys(x)
    s = np.where(mask.numpy(), scores(q, k).numpy(), -np.inf)
    S = share(s, scores(q, both.star_key)[..., 0].numpy())[..., None]
    values, star = plain.split(plain.values(x)), both.star_value.numpy()
    y, c, d = (one.mix(x, values, mask, None).numpy() for one in (plain, bias, both))
    error = rounding(LENGTH) * (1 + abs(values).max().item() + abs(star).max())
    evidence.expect("(c) - y - (1 - S) v'", c - y - (1 - S) * star, equals=0, error=error)
    evidence.expect("(d) - S y - (1 - S) v'", d - S * y - (1 - S) * star, equals=0, error=error)


# -- outliers as a factor ----------------------------------------------------------------------------------------------

implicit = Claim(
    paper=PAPER,
    slug="outliers-are-a-factor",
    where="Abstract, Section 5",
    says="Attention with outlier tokens O is attention among the other tokens times a factor S in (0, 1) that depends "
    "on the context.",
    formula=r"y = S \sum_{j \notin O} \tilde a_j v_j, \quad S = \sigma\bigl(\mathrm{LSE}_{j \notin O} s_j"
    r" - \mathrm{LSE}_{j \in O} s_j\bigr)",
    repair="Where the outliers' values are 0; else they are a bias beside it, (1 - S) times the outliers' own mean "
    "value.",
    gap="How small the values are is to be measured: see trained-gate-spares-values.",
)


@implicit.refutation("exact", controls={"a value of zero": {"size": 0.0}})
def test_two_tokens_of_which_one_keeps_its_value(evidence, *, size=1.0):
    """Equal scores, values (1, 0) and (0, 1): the output (1/2, 1/2) is no multiple of the first value."""
    output = softmax_rows(np.zeros((1, 2))) @ np.diag([1.0, size])
    evidence.counterexample(
        "two tokens of equal scores, the second an outlier", values=np.diag([1.0, size]), output=output
    )
    evidence.expect("part of the output across the other token's value", output[0, 1], equals=0.5, error=2 * EPS)


@implicit.check(
    "proof",
    scope="repair",
    controls={
        "values as they are": {"outlier_values": lambda value: value},
        "the others not renormalised": {"reading": lambda S, weighted, total: S * weighted},
    },
)
def test_without_values_outliers_only_scale(
    evidence, *, outlier_values=lambda value: 0, reading=lambda S, weighted, total: S * weighted / total
):
    """Any number of tokens in both sets: their sums of e_j and of e_j v_j are symbols; 0 < S < 1."""
    import sympy

    total, star = sympy.symbols("Z E", positive=True)
    weighted, value = sympy.symbols("N w", real=True)
    S = total / (total + star)
    difference = with_star(weighted, total, star, outlier_values(value)) - reading(S, weighted, total)
    evidence.true("difference is zero", sympy.simplify(difference) == 0)
    evidence.true("S > 0 and 1 - S > 0", S.is_positive is True and sympy.factor(1 - S).is_positive is True)


@implicit.check(
    "property",
    scope="repair",
    controls={
        "outliers' values forgotten": {"bias": lambda S, own: 0 * own},
        "not weighted": {"bias": lambda S, own: own},
    },
)
@given(n=st.integers(2, 32), seed=seeds, spread=st.floats(0, 30))
def test_any_split_of_tokens_is_a_factor_and_a_bias(
    evidence, n, seed, spread, *, bias=lambda S, own: (1 - S)[..., None] * own
):
    """Random scores, values and sets O, for the operator itself; S also from the log-sum-exps."""
    rng = np.random.default_rng(seed)
    s, v, outlier = spread * rng.standard_normal((3, n)), rng.standard_normal((3, n, 4)), rng.random(n) < 0.5
    outlier[:2] = True, False
    S, others, own = theory.parts(s, v, outlier)
    output = (softmax_rows(s)[:, None] @ v)[:, 0]
    difference = output - S[:, None] * others - bias(S, own)
    evidence.expect("largest difference", difference, equals=0, error=rounding(n) * abs(v).max())
    top = s[:, outlier].max(-1, keepdims=True)
    star = top[:, 0] + np.log(np.exp(s[:, outlier] - top).sum(-1))
    # Scores of size `spread` have that many roundings; where S underflows in one form it does in the other.
    closed = star_share(np.where(outlier, -np.inf, s), star)
    evidence.expect("S less its closed form", S - closed, equals=0, error=rounding(n) * (1 + spread))


explicit = Claim(
    paper=PAPER,
    slug="explicit-for-implicit",
    where="Section 5, Table 2 (e)",
    says="The explicit factor (e) does what outliers do implicitly: for a head with an outlier of zero value there is "
    "a gate with which its output is the same without the outlier.",
    formula=r"2\sigma(w \cdot x_t + b) = S_t",
    repair="For every S there is a gate value, but the gate sees its token's x alone and S the whole context: in the "
    "first layer the two agree only where S depends on the token alone.",
    gap="In later layers x has read the context, and how well w x follows S there is not known. The gate reaches (0, "
    "2), an outlier (0, 1): the gate can also amplify.",
)


@explicit.check(
    "proof",
    scope="repair",
    controls={
        "a gate without its factor of 2": {"gate": lambda z: 1 / (1 + math.e**-z)},
        "a gate of one half": {"gate": lambda z: z * 0 + 1},
    },
)
def test_the_gate_takes_every_value_of_the_factor(evidence, *, gate=None):
    """2 / (1 + exp(-z)) at z = ln(S / (2 - S)) is S; with S = 1 / (1 + e) that z is real for every e > 0."""
    import sympy

    gate = gate or (lambda z: 2 / (1 + sympy.exp(-z)))
    e = sympy.symbols("e", positive=True)
    S = 1 / (1 + e)
    evidence.true("S / (2 - S) is positive", sympy.factor(S / (2 - S)).is_positive is True)
    value = sympy.simplify(gate(theory.gate_logit(S, sympy.log)) - S)
    evidence.true("gate - S is zero", value == 0)


@explicit.refutation("exact", controls={"the same context twice": {"context": 0.0}})
def test_one_token_in_two_contexts(evidence, *, context=TWICE):
    """One other token besides the outlier, both at score 0, or the other at ln 2: S is 1/2 or 2/3; x_t is the same."""
    found = star_share(np.array([[0.0], [context]]), np.zeros(2))
    evidence.counterexample("one query, an outlier at score 0, another token", scores=[0.0, context], S=found)
    evidence.expect("difference of S at one x", found[1] - found[0], equals=1 / 6, error=4 * EPS)
