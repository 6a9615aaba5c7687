"""Attention as a positive map and a normalisation: softplus, and its scale (Gao and Spratling, 2025).

What the paper says. Softmax is two things in one, a positive map of each score (the exponential) and an l1
normalisation of the row. LSSA puts the more stable softplus in place of the exponential. This file has these
statements. LSSA's scale is in test_softplus_attention_entropy.py, the second stage in
test_softplus_attention_reweighting.py and test_softplus_attention_stability.py, what training finds in
test_softplus_attention_normalisation.py, test_softplus_attention_trained.py and test_softplus_attention_recall.py.

Notation. N is the number of keys that a row may attend to, d the width of a head, s the scores of a row. A row is
phi(s) over its sum: phi = exp for softmax, softplus for LSSA.

Scope. Rows by themselves, with given scores. What trained queries and keys do is not in this file.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import exp_map, logistic, relu_map, softmax_rows, softplus
from theory.operators.softplus_attention import dynamic_scale, log_curvature, two_stages

PAPER = "gao2025softplus"
EPS = np.finfo(float).eps
seeds = st.integers(0, 2**32 - 1)

decomposition = Claim(
    paper=PAPER,
    slug="softmax-is-two-stages",
    where="Abstract, Section 2.1",
    says="Softmax is an elementwise exponential followed by an l1 normalisation of the row; among positive maps the "
    "exponentials alone make l1-normalised rows blind to a common shift of the scores.",
    formula=r"\operatorname{softmax}(s) = \frac{e^s}{\|e^s\|_1}",
    gap="An identity. It does not say which of the two stages a trained model needs.",
)


@decomposition.check(
    "exact",
    scope="the identity",
    controls={
        "softplus in place of exp": {"positive": softplus},
        "sigmoid in place of exp": {"positive": logistic},
        "ReLU in place of exp": {"positive": relu_map},
    },
)
@given(n=st.integers(1, 64), width=st.floats(0, 80), seed=seeds)
def test_exp_over_its_sum_is_the_shifted_softmax(evidence, n, width, seed, *, positive=exp_map):
    """The two stages written out, against the operator that shifts each row by its maximum first."""
    s = width * np.random.default_rng(seed).uniform(-1, 1, n)
    softmax = softmax_rows(s)
    # exp and the division cost an ulp each, the sum n, and rounding s - max costs that difference times an ulp.
    budget = (n + 2 * width + 8) * EPS
    evidence.expect("distance relative to the weight", two_stages(s, positive) / softmax, equals=1, error=budget)


@decomposition.check(
    "proof",
    scope="what singles out the exponential",
    controls={
        "softplus": {"positive": lambda s: __import__("sympy").log(1 + __import__("sympy").exp(s))},
        "1 + s + s^2 / 2": {"positive": lambda s: 1 + s + s**2 / 2},
        "sigmoid": {"positive": lambda s: 1 / (1 + __import__("sympy").exp(-s))},
    },
)
def test_only_maps_with_a_straight_logarithm_are_blind_to_shifts(
    evidence, *, positive=lambda s: __import__("sympy").exp(3 * s)
):
    """(ln phi)'' must vanish identically; the general solution of that equation is C e^(k s), found by sympy."""
    import sympy

    s, f = sympy.Symbol("s", real=True), sympy.Function("f")
    solution = sympy.dsolve(f(s).diff(s, 2), f(s)).rhs
    ratio = sympy.exp(solution.subs(s, s + 1) - solution)
    evidence.expect("terms of ln phi that are not straight", sympy.Poly(solution, s).degree(), at_most=1)
    evidence.true("phi(s + 1) / phi(s) does not depend on s", sympy.simplify(sympy.diff(ratio, s)) == 0)
    evidence.true("(ln phi)'' is 0 for all s", log_curvature(positive) == 0)


def half(values):
    """As IEEE half precision; what does not fit is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float16)


def plain_softplus(s):
    """ln(1 + e^s) as it is written."""
    with np.errstate(over="ignore"):
        return np.log1p(np.exp(s))


def plain_exp(s):
    with np.errstate(over="ignore"):
        return np.exp(s)


stable_map = Claim(
    paper=PAPER,
    slug="softplus-does-not-overflow",
    where="Abstract, Section 2.1",
    says="Softplus is numerically more stable than the exponential: it is finite at every finite score of a format, "
    "where e^s overflows half precision from s = 11.1 on.",
    formula=r"0 \le \operatorname{softplus}(s) - \max(s, 0) \le \ln 2",
    gap="The comparison is with an exponential that is not shifted; softmax as everybody writes it subtracts the row's "
    "maximum and does not overflow either, which the check shows. The re-weighting is another matter, see "
    "formula-is-stable.",
)


@stable_map.check(
    "exact",
    controls={
        "the exponential, not shifted": {"positive": plain_exp},
        "softplus as ln(1 + e^s)": {"positive": plain_softplus},
    },
)
def test_softplus_of_every_half_precision_number_is_finite(evidence, *, positive=softplus):
    """All 63 487 finite half-precision scores, one by one, in half precision; and LSSA's own scores up to N = 2^30."""
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    evidence.expect(
        "overflows among the finite half-precision scores", np.isinf(positive(numbers)).sum(), equals=0, error=0
    )
    top = dynamic_scale(2.0 ** np.arange(1, 31), 128)
    evidence.expect(
        "overflows at LSSA's largest scores, N up to 2^30", np.isinf(positive(half(top))).sum(), equals=0, error=0
    )
    with np.errstate(over="ignore"):
        shifted = softmax_rows(np.stack([numbers, np.full_like(numbers, numbers.max())], axis=-1))
    evidence.note(
        f"Softmax shifted by the row's maximum: {int((~np.isfinite(shifted)).sum())} weights that are not finite, over "
        "all pairs of a half-precision score and the largest one. "
        f"Unshifted, e^s overflows for {np.isinf(plain_exp(numbers)).sum()} of {len(numbers)} scores."
    )


@stable_map.check(
    "proof",
    scope="the bracket, for all real scores",
    controls={"a bracket of width 1/2": {"width": lambda: __import__("sympy").Rational(1, 2)}},
)
def test_softplus_stays_within_ln_2_of_relu(evidence, *, width=lambda: __import__("sympy").log(2)):
    """softplus(s) - s = softplus(-s), so s <= 0 suffices: there it rises from 0 to ln 2, and ReLU is 0."""
    import sympy

    s = sympy.Symbol("s", real=True)
    of = sympy.log(1 + sympy.exp(s))
    mirrored = sympy.simplify(
        sympy.expand_log(sympy.log((1 + sympy.exp(s)) / sympy.exp(s) / (1 + sympy.exp(-s))), force=True)
    )
    evidence.true("softplus(s) - s is softplus(-s)", mirrored == 0)
    evidence.true("softplus rises", sympy.simplify(of.diff(s)).is_positive)
    evidence.expect("limit at minus infinity", sympy.limit(of, s, -sympy.oo), equals=0, error=0)
    evidence.expect("ln 2 attained at 0: excess over the bracket", of.subs(s, 0) - width(), at_most=0, unit="nats")
