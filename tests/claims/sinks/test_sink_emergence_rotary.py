"""When attention sink emerges: one token, repeated, with rotary positions (Gu et al., 2024, proposition 4).

What the paper says. If |q| |k| = xi, no key gets more than e^(2 xi) / (e^(2 xi) + t - 1), which tends to 0; so there is
no sink on repeated tokens (section 3.3: Mistral and LLaMA show 0.00 % there, at T = 64).

Notation. xi is |q| |k| times the scale of the scores, 1 / sqrt(d): our `reach`; the paper writes scores without the
scale. A head with xi = 10 and d = 96, the paper's width, has |q| |k| = 98.

Scope. Single heads; which xi trained models reach is not measured here.
"""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax
from theory.operators.positions import causal, rotary
from theory.sinks.measures import EPSILON, importance
from theory.sinks.sink_emergence import (
    first_importance,
    first_weights,
    opposed_head,
    opposed_scores,
    rotary_bound,
    rotary_importance_bound,
    rotary_length,
)

PAPER = "gu2024attentionsink"
EPS = np.finfo(float).eps
TOKENS, WIDTH = 64, 96
REACH, PLANE, SAFE = 10, 15, 1.09
"""A head with a sink; a reach at which proposition 4 excludes one."""


def weights(q, k, n=TOKENS):
    """(n, n) of one query and one key, (d,) each, at all positions, turned by rotary positions."""
    q, k = (rotary(np.tile(x, (n, 1))) for x in (q, k))
    return softmax(q, k, mask=causal(n))


bounded = Claim(
    paper=PAPER,
    slug="repeated-token-rotary",
    where="Proposition 4",
    says="With rotary positions no key of t repeated tokens gets more than e^(2 xi) / (e^(2 xi) + t - 1); for a given "
    "xi the first token's importance tends to 0.",
    formula=r"A_{t,i} \le \frac{e^{2 \xi}}{e^{2 \xi} + t - 1}, \quad \xi = \|q\| \|k\| / \sqrt{d}",
    gap="Attained where all angles are free; those of rotary positions are not, so that a sharper bound may exist.",
)


@bounded.check(
    "proof",
    controls={
        "e^xi in place of e^(2 xi)": {"top": lambda X: X},
        "e^(3 xi / 2)": {"top": lambda X: X**1.5},
    },
)
def test_the_bound_follows_from_the_range_of_the_cosines(evidence, *, top=lambda X: X**2):
    """e^(s_i) = X - p, and the others sum to (t - 1) / X + r, with X = e^xi and p, r >= 0 as symbols."""
    import sympy

    X, t = 1 + sympy.Symbol("y", positive=True), 1 + sympy.Symbol("m", nonnegative=True)
    p, r = sympy.symbols("p r", nonnegative=True)
    own, others = X - p, (t - 1) / X + r
    gap = sympy.expand(sympy.simplify(X * (top(X) * (own + others) - own * (top(X) + t - 1))))
    evidence.true("bound - A has the sign of a sum of positive terms", sympy.expand(gap).is_nonnegative is True)
    evidence.true("no less where p = r = 0", sympy.simplify(gap.subs({p: 0, r: 0})) == 0)


@bounded.check("proof", scope="the limit", controls={"xi that grows as ln(T) / 2": {"reach": lambda n: n}})
def test_the_first_tokens_importance_tends_to_zero(evidence, *, reach=lambda n: 1):
    """The mean of the bound over t <= T is at most (1 + E ln(1 + T / E)) / T, E = e^(2 xi), as the bound falls in t."""
    import sympy

    n, E = sympy.symbols("n E", positive=True)
    top = E * reach(n)
    evidence.true("limit is 0", sympy.limit((1 + top * sympy.log(1 + n / top)) / n, n, sympy.oo) == 0)


def draw(seed, width, reach, opposed):
    """q and k of the given reach: random, or opposite in one plane."""
    rng = np.random.default_rng(seed)
    if opposed:
        return opposed_head(reach, int(rng.integers(width // 2)), width)
    q, k = rng.standard_normal((2, width))
    size = math.sqrt(reach * math.sqrt(width) / np.linalg.norm(q) / np.linalg.norm(k))
    return size * q, size * k


@bounded.check(
    "property",
    scope="rotary positions in float64",
    controls={"e^xi in place of e^(2 xi)": {"bound": lambda t, reach: rotary_bound(t, reach / 2)}},
)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([2, 8, WIDTH]),
    reach=st.floats(0.1, 20),
    opposed=st.booleans(),
)
def test_no_weight_exceeds_the_bound(evidence, seed, width, reach, opposed, *, bound=rotary_bound):
    """Random queries and keys, and opposite ones in one plane; the search drives weights up."""
    A = weights(*draw(seed, width, reach, opposed))
    t = np.arange(1, TOKENS + 1)
    error = 16 * EPS * (width + reach + TOKENS)
    evidence.expect("largest weight less its bound", (A - bound(t, reach)[:, None])[causal(TOKENS)], at_most=error)


@bounded.check("exact", scope="equality", controls={"a third of a turn": {"turn": 2 * math.pi / 3}})
def test_half_a_turn_attains_the_bound(evidence, *, turn=math.pi):
    """Opposite q and k, d = 2: one key turned by pi, the others not; its weight is the bound for each xi and t."""
    for reach in (0.5, 2.0, 8.0):
        for t in (2, 5, TOKENS):
            q, k = opposed_head(reach, 0, 2)
            place = np.zeros(t)
            place[0] = turn
            A = softmax(q[None], rotary(np.tile(k, (t, 1)), positions=place))
            error = 64 * EPS * (1 + reach + t)
            evidence.expect("A_t1 over its bound", A[0, 0] / rotary_bound(t, reach), equals=1, error=error)


explains = Claim(
    paper=PAPER,
    slug="rotary-excludes-sinks-at-64",
    where="Section 3.3, Table 1 (left), by proposition 4",
    says="By proposition 4, models with rotary positions have no sink on a repeated token at T = 64, whatever q and k.",
    formula=r"\alpha_1(64) \le \frac{1}{64} \sum_{t=1}^{64} \frac{e^{2 \xi}}{e^{2 \xi} + t - 1} \le 0.3",
    gap="Between xi = 1.1 and 9.8 we have neither a head with a sink nor a bound that excludes one. The printed 0.00 % "
    "on Mistral and LLaMA then rests on the angles that these models learned, not on the proposition.",
    repair="For xi up to 1.09: the proposition's bound excludes a sink there, and no further.",
)


def cosine(balls):
    return np.frompyfunc(lambda x: x.cos(), 1, 1)(balls)


def certified_importance(reach, plane, tokens=TOKENS):
    """alpha_1 of `opposed_head` as a ball."""
    flint = pytest.importorskip("flint", reason="needs python-flint for interval arithmetic")
    base, place = flint.arb(10_000), np.array([flint.arb(n) for n in range(tokens)])
    angle = base ** (flint.arb(-plane) / (WIDTH // 2))
    scores = opposed_scores(tokens, reach, plane, WIDTH, cos=lambda _: cosine(place * angle))
    return first_importance(first_weights(scores, np.frompyfunc(lambda s: s.exp(), 1, 1)))[-1]


@explains.refutation(
    "certified",
    controls={
        "xi = 5": {"reach": 5},
        "the fastest plane": {"plane": 0},
        "the slowest plane": {"plane": WIDTH // 2 - 1},
    },
)
def test_opposite_vectors_in_one_plane_have_a_sink(evidence, *, reach=REACH, plane=PLANE):
    """k = -q in one plane of 48, xi = 10: scores grow with the distance up to half a turn; alpha_1(64) is a ball."""
    alpha = certified_importance(reach, plane)
    found = importance(weights(*opposed_head(reach, plane, WIDTH)))[0]
    evidence.note(f"alpha_1(64) = {alpha.str(8)} as a ball, {found:.8f} by the operator.")
    evidence.true("certainly above 0.3", bool(10 * alpha > 3))
    evidence.expect("operator less ball", found - float(alpha.mid()), equals=0, error=TOKENS * (1 + reach) * 16 * EPS)
    evidence.counterexample("k = -q in plane 15 of 48, d = 96", xi=reach, product_of_norms=round(reach * WIDTH**0.5, 1))
    for xi in (1, 5, 10, 20):
        evidence.note(
            f"xi = {xi}: opposite vectors reach alpha_1 = {best_opposed(xi):.3f}; the proposition allows "
            f"{rotary_importance_bound(TOKENS, xi):.3f}, excludes a sink from {rotary_length(xi, EPSILON):.2g} tokens."
        )
    evidence.figure(
        "First of 64 repeated tokens, rotary positions",
        figure_of(),
        "What the proposition allows, and what opposite vectors in the best plane reach; dotted: the threshold.",
    )


def best_opposed(xi):
    """The largest alpha_1 of opposite vectors over the planes."""
    planes = (opposed_scores(TOKENS, xi, plane, WIDTH) for plane in range(WIDTH // 2))
    return max(first_importance(first_weights(scores))[-1] for scores in planes)


def figure_of():
    """alpha_1 against xi."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes, reaches = figure.subplots(), np.linspace(0.1, 20, 60)
    axes.plot(reaches, [rotary_importance_bound(TOKENS, xi) for xi in reaches], label="bound of proposition 4")
    axes.plot(reaches, [best_opposed(xi) for xi in reaches], "--", label="opposite vectors")
    axes.axhline(EPSILON, color="black", lw=0.8, ls=(0, (1, 2)))
    axes.set_xlabel(r"$\xi$")
    axes.set_ylabel(r"$\alpha_1(64)$")
    axes.legend(frameon=False)
    return figure


@explains.check("certified", controls={"xi = 1.1": {"reach": 1.1}})
def test_up_to_the_repaired_reach_the_bound_excludes_a_sink(evidence, *, reach=SAFE):
    """The mean of the proposition's bound over t <= 64 as a ball; it grows with xi."""
    flint = pytest.importorskip("flint", reason="needs python-flint for interval arithmetic")
    t, xi = np.array([flint.arb(n) for n in range(1, TOKENS + 1)]), flint.arb(str(reach))
    mean = sum(rotary_bound(t, xi, lambda x: x.exp())) / TOKENS
    evidence.note(f"Mean of the bound at xi = {reach}: {mean.str(8)}.")
    evidence.true("certainly below 0.3", bool(10 * mean < 3))
