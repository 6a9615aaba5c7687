"""What RMSNorm leaves of a token with a massive activation (An et al., ICLR 2025, life cycle of outliers).

What the paper says. A massive activation makes its token's normed vector nearly constant and sparse; so its keys and
values are special: small values, keys that all queries like (figures 7 to 9).

Notation. x = c + M u: content c, a massive activation M along the unit vector u (in LLaMA-2-7B two of 4096 dimensions);
D is the width; W_V maps the normed vector to the value.

Scope. RMSNorm without epsilon and gain, exact. How large M is in trained models is for checkpoint claims.
"""

import math

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks import systematic_outliers as theory

PAPER = "an2025systematic"
EPS = np.finfo(float).eps
IDENTITY = np.eye(2)
seeds = st.integers(0, 2**32 - 1)


erased = Claim(
    paper=PAPER,
    slug="norm-erases-content",
    where="Figures 7 to 9 (life cycle: the normed vector becomes nearly constant)",
    says="RMSNorm makes a token with a massive activation M along u nearly constant: its distance from sqrt(D) u is "
    "at most sqrt(D) |c across u| / (M + c.u), so that content is erased at rate 1 / M.",
    formula=r"\bigl\| \mathrm{RMSNorm}(c + M u) - \sqrt{D}\,u \bigr\| \le \sqrt{D}\, \frac{\|c_\perp\|}{M + c \cdot u}",
    gap="Without epsilon and gain. Activations of 1000 times the mean are the subject of checkpoint claims.",
)


@erased.check(
    "proof",
    controls={
        "no norm": {"distance": lambda p, r, sqrt: r},
        "the square": {"distance": lambda p, r, sqrt: r**2 / p**2},
    },
)
def test_the_distance_has_rate_one_over_m(evidence, *, distance=theory.distance_from_limit):
    """In the plane of u and c: the distance's square is 2 - 2 cos, below (r / p)^2; times p it tends to r."""
    import sympy

    p, r = sympy.symbols("p r", positive=True)
    found = distance(p, r, sympy.sqrt)
    square = 2 - 2 * p / sympy.sqrt(p**2 + r**2)
    evidence.true("square is 2 - 2 cos", sympy.simplify(found**2 - square) == 0)
    evidence.true("p times distance tends to r", sympy.limit(p * found, p, sympy.oo) == r)
    # With h = |x| > p: r^2 / p^2 - 2 + 2 p / h = (h - p)^2 (h + 2 p) / (p^2 h), and r^2 = h^2 - p^2.
    more = sympy.symbols("k", positive=True)
    h = p + more
    slack = (h**2 - p**2) / p**2 - 2 + 2 * p / h
    evidence.true("bound less square is positive", sympy.factor(sympy.together(slack)).is_positive is True)


@erased.check("property", scope="the operator", controls={"no norm": {"norm": lambda x: x}})
@given(width=st.integers(2, 64), seed=seeds, power=st.floats(1.5, 8))
def test_tokens_of_different_content_become_alike(evidence, width, seed, power, *, norm=theory.rms_norm):
    """Two random contents: their distance under the norm against the sum of both bounds."""
    rng = np.random.default_rng(seed)
    u = theory.rms_norm(rng.standard_normal(width)) / math.sqrt(width)
    c, M = rng.standard_normal((2, width)), 10**power
    along = c @ u
    across = np.sqrt(((c - along[:, None] * u) ** 2).sum(-1))
    spread = np.sqrt(((norm(c + M * u)[0] - norm(c + M * u)[1]) ** 2).sum())
    bound = math.sqrt(width) * (across / (M + along)).sum()
    error = 16 * width * EPS * M / across.sum()  # of two vectors of length sqrt(D), relative to the bound
    evidence.expect("distance over its bound", spread / bound, at_most=1 + error)


small = Claim(
    paper=PAPER,
    slug="massive-means-small-value",
    where="Figures 7 to 9 (life cycle: small values)",
    says="A massive activation makes the value of its token small.",
    formula=r"M \to \infty \;\Rightarrow\; \| W_V\, \mathrm{RMSNorm}(c + M u) \| \to 0",
    repair="If W_V u = 0: the value is then at most |W_V| sqrt(D) |c across u| / (M + c.u). W_V has to be trained to "
    "it.",
    gap="Whether trained W_V annihilate u is measured on checkpoints, not here.",
)


@small.refutation("exact", controls={"values that annihilate u": {"W": np.diag([0.0, 1.0])}})
def test_the_identity_keeps_all_values_equally_large(evidence, *, W=IDENTITY):
    """D = 2, W_V = I, u the first axis: every value has length sqrt(2), at every M."""
    for M in (0.0, 1e3, 1e6):
        value = W @ theory.rms_norm(np.array([M, 1.0]))
        evidence.counterexample("D = 2, c = (0, 1)", M=M, value=value)
        evidence.expect("length of the value", np.sqrt((value**2).sum()), equals=math.sqrt(2), error=8 * EPS)


@small.check("property", scope="repair", controls={"W_V as it is drawn": {"project": lambda W, u: W}})
@given(width=st.integers(3, 64), seed=seeds, power=st.floats(3, 8))
def test_values_vanish_where_the_matrix_annihilates_u(
    evidence, width, seed, power, *, project=lambda W, u: W - np.outer(W @ u, u)
):
    """Random W_V, with W_V u = 0 or not."""
    rng = np.random.default_rng(seed)
    u = theory.rms_norm(rng.standard_normal(width)) / math.sqrt(width)
    c, M, W = rng.standard_normal(width), 10**power, project(rng.standard_normal((4, width)), u)
    across = np.sqrt(((c - (c @ u) * u) ** 2).sum())
    value = np.sqrt(((W @ theory.rms_norm(c + M * u)) ** 2).sum())
    bound = np.linalg.norm(W, 2) * math.sqrt(width) * across / (M + c @ u)
    evidence.expect("value over its bound", value / bound, at_most=1 + 16 * width * EPS * M / across)
